//! Silo shim.

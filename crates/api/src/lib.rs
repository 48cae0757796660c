//! Silo api.

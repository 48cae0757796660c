//! Silo runtime.

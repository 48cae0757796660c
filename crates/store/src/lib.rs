//! Silo store.

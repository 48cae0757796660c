//! Silo archive.

//! Silo cli.

//! Silo client.

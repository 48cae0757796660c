//! Silo net.

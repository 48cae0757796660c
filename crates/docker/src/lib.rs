//! Silo docker.

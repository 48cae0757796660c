//! Silo engine.

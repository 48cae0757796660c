//! Silo seccomp.

//! Silo cgroup.

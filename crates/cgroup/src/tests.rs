//! Groups in directories that only look like hierarchies, and real ones on this machine.

mod fake;
mod real;

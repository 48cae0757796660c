//! fdpass.

//! The Open Container Initiative's data: image configurations, manifests and indexes, the
//! runtime specification, references to images, and platform matching. Bytes in, data out.
#![warn(missing_docs)]

pub mod attest;
pub mod capability;
pub mod image;
pub mod platform;
pub mod reference;
pub mod runtime;

//! One function for each verb of the API.

pub(crate) mod absent;
pub(crate) mod archive;
pub(crate) mod attach;
pub(crate) mod build;
mod build_output;
pub(crate) mod buildkit;
pub(crate) mod containers;
pub(crate) mod exec;
pub(crate) mod images;
pub(crate) mod networks;
pub(crate) mod registry;
pub(crate) mod stream;
pub(crate) mod system;
pub(crate) mod volumes;
pub(crate) mod windows;

//! The distribution specification's HTTP interface.

pub(crate) mod answer;
mod blobs;
mod lists;
mod manifests;
mod proxy;
mod query;
mod range;
mod route;
mod server;
mod socket;
mod uploads;

pub use server::serve;

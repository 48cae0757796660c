//! Layers that are not fetched, because others stand in for them.

use std::fmt;

use silo_oci::image::{ImageConfig, Manifest};
use silo_oci::reference::Reference;
use silo_store::StandIn;

/// An image that is being pulled.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// What was asked for.
    pub reference: &'a Reference,
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Its configuration, which has as many layers.
    pub config: &'a ImageConfig,
}

/// What stands in for the lowest layers of an image.
#[derive(Debug, Clone)]
pub struct Base {
    /// The layers, and those in whose place they stand.
    pub stand_in: StandIn,
    /// A tar of what is different for this image.
    pub tar: Vec<u8>,
    /// A line for the client.
    pub notice: String,
}

/// Knows which layers need not be fetched.
pub trait Bases: Send + Sync + fmt::Debug {
    /// What stands in for the lowest layers of an image; `None` if all are to be fetched.
    fn find(&self, candidate: &Candidate<'_>) -> Result<Option<Base>, silo_types::Error>;
}

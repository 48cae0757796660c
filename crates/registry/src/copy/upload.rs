//! Blobs to a registry, while they come.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use silo_oci::image::Descriptor;

use super::check::Checked;
use super::source::Source;
use super::{CopyError, held};
use crate::Repository;
use crate::progress::Meter;

/// Sends a blob to a registry while it comes.
pub(super) async fn upload(
    repository: &Repository,
    source: &Arc<Source>,
    blob: &Descriptor,
    meter: Meter,
) -> Result<(), CopyError> {
    let meter = Arc::new(Mutex::new(meter));
    // Why the source failed: the upload knows only that it did.
    let failure: Arc<Mutex<Option<CopyError>>> = Arc::default();
    let open = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
        if held(&failure).is_some() {
            return Err(io::Error::other("the source failed"));
        }
        let checked = Checked::at(source.feed(blob, offset), blob, offset);
        Ok(Box::new(Shared {
            inner: checked,
            meter: Arc::clone(&meter),
            failure: Arc::clone(&failure),
        }))
    };
    let result = repository.put_blob(blob, &open).await;
    match (held(&failure).take(), result) {
        (Some(failure), Err(_)) => Err(failure),
        (_, result) => Ok(result?),
    }
}

/// The same where others want to know how it goes.
struct Shared {
    inner: Checked,
    meter: Arc<Mutex<Meter>>,
    failure: Arc<Mutex<Option<CopyError>>>,
}

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        if let Some(failure) = self.inner.failure.take() {
            *held(&self.failure) = Some(failure);
        }
        held(&self.meter).at(self.inner.at);
        result
    }
}

//! Images of OCI layouts that are contexts: `--build-context name=oci-layout://...`.

use std::sync::Arc;

use silo_oci::image::{Descriptor, Document, ImageConfig, Manifest};
use silo_oci::platform::Platform;
use silo_store::Image;
use silo_types::{Digest, Error, ErrorKind};

use crate::attest::capture;
use crate::builder::Builder;
use crate::job::{Job, blocking};
use crate::outcome::BuildError;
use crate::stage::check_platform;
use crate::state::State;
use crate::transfer::{BlobSource, document};

/// How deep indexes may lie in each other.
const MAX_DEPTH: usize = 8;

fn refused(digest: &Digest) -> impl FnOnce(silo_oci::image::ImageError) -> Error {
    move |error| Error::invalid(format!("{digest}: {}", silo_types::error::chain(&error)))
}

impl Job {
    /// The state of an image of a layout, whose layers come into the store.
    pub(crate) async fn layout_state(
        self: &Arc<Self>,
        name: &str,
        source: &Arc<dyn BlobSource>,
        digest: Digest,
        wanted: Option<&Platform>,
    ) -> Result<State, BuildError> {
        let title = format!("[context {name}] OCI load from client");
        let work = self.work(&title, None);
        let (builder, source) = (Arc::clone(&self.builder), Arc::clone(source));
        let named = name.to_owned();
        let (name, wanted) = (name.to_owned(), wanted.cloned());
        let loaded =
            blocking(move || builder.load_layout(&name, &*source, digest, wanted.as_ref()));
        let state = work.end(loaded.await)?;
        let image = capture::Image { platform: state.image.platform(), digest, is_local: true };
        self.capture.image(&named, image);
        Ok(state)
    }
}

impl Builder {
    fn load_layout(
        &self,
        name: &str,
        source: &dyn BlobSource,
        digest: Digest,
        wanted: Option<&Platform>,
    ) -> Result<State, BuildError> {
        let manifest = manifest_of(source, digest, wanted)?;
        let id = manifest.config.digest;
        let bytes = document(source, &id)?;
        let config = ImageConfig::parse(&bytes).map_err(refused(&id))?;
        check_platform(name, wanted, &config)?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(
                Error::invalid(format!("manifest and configuration of {name} disagree")).into()
            );
        }
        let store = self.engine.store();
        let lease = store.lease();
        let chain = config.chain_ids();
        let mut parent = None;
        let mut sizes = Vec::new();
        for ((layer, diff_id), chain) in
            manifest.layers.iter().zip(&config.rootfs.diff_ids).zip(&chain)
        {
            lease.hold(*chain);
            let known = match store.layer(chain) {
                Ok(known) => known,
                Err(_) => {
                    let blob = source.open(&layer.digest)?;
                    let added = store.add_layer_tar(blob, parent.as_ref(), diff_id);
                    added.map_err(Error::from_kind)?.0
                }
            };
            sizes.push(known.size);
            parent = Some(*chain);
        }
        let size = bytes.len() as u64;
        let image = Image {
            id,
            manifest: Descriptor::new(&manifest.config.media_type, id, size),
            config: Arc::new(config),
            chain,
            layer_sizes: sizes,
            stand_in: None,
        };
        Ok(State::of_image(&image, lease))
    }
}

/// The manifest that is best for a platform.
fn manifest_of(
    source: &dyn BlobSource,
    digest: Digest,
    wanted: Option<&Platform>,
) -> Result<Manifest, BuildError> {
    let host = Platform::host();
    let wanted = wanted.unwrap_or(&host);
    let mut digest = digest;
    for _ in 0..MAX_DEPTH {
        let bytes = document(source, &digest)?;
        let index = match Document::parse(&bytes, "").map_err(refused(&digest))? {
            Document::Manifest(manifest) if manifest.is_image() => return Ok(manifest),
            Document::Manifest(_) => {
                return Err(Error::invalid(format!("{digest} is no image")).into());
            }
            Document::Index(index) => index,
        };
        let platforms = index.manifests.iter().map(|descriptor| descriptor.platform.as_ref());
        let best = match (&index.manifests[..], wanted.best(platforms)) {
            (manifests, Some(best)) => manifests.get(best),
            // A list of names need not say what they are for.
            ([only], None) if only.platform.is_none() => Some(only),
            _ => None,
        };
        let Some(best) = best else {
            // buildkit wording
            let text = format!(
                "no match for platform in manifest {digest}: not found: wanted {}",
                crate::plan::text(wanted)
            );
            return Err(BuildError::new(ErrorKind::NotFound, text));
        };
        digest = best.digest;
    }
    Err(Error::invalid(format!("{digest}: the indexes of the layout are too deep")).into())
}

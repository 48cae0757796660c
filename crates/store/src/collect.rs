//! Garbage collection, by reachability.

use std::collections::HashSet;

use silo_oci::image::{MAX_DOCUMENT, Manifest};
use silo_types::Digest;

use crate::lease::lock;
use crate::store::{State, names};
use crate::{Collected, Error, Store};

impl Store {
    /// Forgets all images but those that `keep` gives, and removes the layers and blobs that then
    /// are needed neither by an image, nor a snapshot, nor a lease. `keep` is called while no
    /// lease can end: whoever records an image before he gives its lease up does not lose it. It
    /// must not use the store.
    pub fn collect(&self, keep: impl FnOnce() -> HashSet<Digest>) -> Result<Collected, Error> {
        let mut state = lock(&self.inner.state);
        // Held to the end: what is pinned later was not yet there, or is still there.
        let pins = lock(&self.inner.pins);
        let keep = keep();
        let unwanted = state.images.keys().filter(|id| !keep.contains(id)).copied();
        let images = unwanted.filter(|id| !pins.contains_key(id)).collect();
        let mut collected = Collected { images, ..Collected::default() };
        self.forget(&mut state, &collected.images)?;

        let mut live: HashSet<Digest> = pins.keys().copied().collect();
        let mut chains: Vec<Digest> = self.snapshot_chains()?;
        chains.extend(state.layers.keys().filter(|chain| pins.contains_key(chain)));
        for image in state.images.values() {
            live.extend([image.id, image.manifest.digest]);
            live.extend(self.manifest_layers(&image.manifest.digest)?);
            chains.extend(image.top());
        }
        crate::index::settle(&mut state);
        live.extend(crate::index::documents(&state));
        let alive = mark(chains, &state, &mut live);

        let mut dead: Vec<Digest> =
            state.layers.keys().filter(|chain| !alive.contains(chain)).copied().collect();
        let depth = |chain: &Digest| {
            std::iter::successors(state.layers.get(chain), |layer| {
                layer.parent.as_ref().and_then(|parent| state.layers.get(parent))
            })
            .count()
        };
        dead.sort_by_cached_key(|chain| std::cmp::Reverse(depth(chain)));
        for chain in &dead {
            // Topmost first, so that an interruption leaves no layer without its parent.
            self.discard(&self.layer_path(chain))?;
            if let Some(layer) = state.layers.remove(chain) {
                collected.bytes += layer.size;
            }
        }
        collected.layers = dead;
        for name in names(&self.path("content/blobs/sha256"))? {
            let path = self.path("content/blobs/sha256").join(&name);
            let is_live =
                format!("sha256:{name}").parse().is_ok_and(|digest: Digest| live.contains(&digest));
            if !is_live {
                collected.bytes += fs_err::metadata(&path).map_or(0, |metadata| metadata.len());
                fs_err::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        collected.bytes += self.remove_partial(|digest| pins.contains_key(digest))?;
        Ok(collected)
    }

    /// The digests of a stored manifest's layers.
    pub(crate) fn manifest_layers(&self, digest: &Digest) -> Result<Vec<Digest>, Error> {
        let bytes = self.read_blob(digest, MAX_DOCUMENT as u64)?;
        let manifest = Manifest::parse(&bytes)
            .map_err(|source| Error::Document { what: format!("manifest {digest}"), source })?;
        Ok(manifest.layers.into_iter().map(|layer| layer.digest).collect())
    }
}

/// The layers that `chains` stand on; their blobs are added to `live`.
fn mark(chains: Vec<Digest>, state: &State, live: &mut HashSet<Digest>) -> HashSet<Digest> {
    let mut alive = HashSet::new();
    for chain in chains {
        let mut next = Some(chain);
        while let Some(chain) = next {
            let Some(layer) = state.layers.get(&chain).filter(|_| alive.insert(chain)) else {
                break;
            };
            live.extend(layer.blob.as_ref().map(|blob| blob.digest));
            next = layer.parent;
        }
    }
    alive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_asked_for_while_no_lease_can_end() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mut asked = false;
        let keep = || {
            asked = store.inner.pins.try_lock().is_err();
            HashSet::new()
        };
        store.collect(keep).unwrap();
        assert!(asked, "a lease could have been given up meanwhile");
    }
}

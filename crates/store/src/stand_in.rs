//! Layers of another image in the place of an image's lowest ones: see [`StandIn`].

use std::collections::HashSet;
use std::io::BufRead;
use std::sync::Arc;

use silo_oci::image::{ImageConfig, to_bytes};
use silo_types::Digest;

use crate::layer;
use crate::lease::lock;
use crate::store::State;
use crate::{Error, Layer, Lease, StandIn, Store};

/// The chain id of the layer that records a stand-in, whose own tar is `diff_id`.
pub(crate) fn chain_id(stand_in: &StandIn, diff_id: &Digest) -> Digest {
    let mut text = format!("stand-in {diff_id} ").into_bytes();
    text.extend(to_bytes(stand_in));
    silo_oci::image::digest(&text)
}

/// The chain ids of an image's layers, lowest first, and for how many of them something stands in.
pub(crate) fn chain_of(
    config: &ImageConfig,
    stand_in: Option<&Digest>,
    state: &State,
) -> Result<(Vec<Digest>, usize), Error> {
    let Some(top) = stand_in else { return Ok((config.chain_ids(), 0)) };
    let layer = state.layers.get(top).ok_or(Error::NoLayer(*top))?;
    let replaced = layer.stand_in.iter().flat_map(|stand_in| &stand_in.replaced);
    let count = replaced.clone().count();
    let diff_ids = &config.rootfs.diff_ids;
    let fits = count > 0
        && count <= diff_ids.len()
        && replaced.map(|layer| &layer.diff_id).eq(diff_ids.iter().take(count));
    if !fits {
        return Err(Error::NoLayer(*top));
    }
    let mut chain = vec![*top; count];
    for diff_id in &diff_ids[count..] {
        chain.push(silo_oci::image::chain_id(chain.last(), diff_id));
    }
    Ok((chain, count))
}

/// Bytes of the files of all layers that a stand-in brings.
pub(crate) fn size(layer: &Arc<Layer>, state: &State) -> u64 {
    let below = |layer: &&Arc<Layer>| state.layers.get(layer.parent.as_ref()?);
    std::iter::successors(Some(layer), below).map(|layer| layer.size).sum()
}

impl Store {
    /// Places the layer that records a stand-in on top of the base that stands in. `tar` is what
    /// else the layer has: what the images on top see of the difference.
    pub fn place_stand_in(
        &self,
        stand_in: StandIn,
        tar: impl BufRead,
        lease: &Lease,
    ) -> Result<Arc<Layer>, Error> {
        lease.hold(stand_in.base);
        self.layer(&stand_in.base)?;
        let mut new = layer::unpack(&self.new_layer_path(), tar, true)?;
        let base = stand_in.base;
        new.stand_in = Some(stand_in);
        lease.hold(new.chain_id(Some(&base)));
        self.place_layer(new, Some(&base))
    }

    pub(crate) fn chain_of(
        &self,
        config: &ImageConfig,
        stand_in: Option<&Digest>,
    ) -> Result<(Vec<Digest>, usize), Error> {
        chain_of(config, stand_in, &lock(&self.inner.state))
    }

    /// The digests of the layers' tars up to `chain`, lowest first, as the configuration of an
    /// image of them names them: those of layers that are not here, where something stands in.
    pub fn diff_ids(&self, chain: Option<Digest>) -> Result<Vec<Digest>, Error> {
        let mut diff_ids = Vec::new();
        let mut next = chain;
        while let Some(chain) = next {
            let layer = self.layer(&chain)?;
            if let Some(stand_in) = &layer.stand_in {
                diff_ids.extend(stand_in.replaced.iter().rev().map(|layer| layer.diff_id));
                break;
            }
            diff_ids.push(layer.diff_id);
            next = layer.parent;
        }
        diff_ids.reverse();
        Ok(diff_ids)
    }

    /// The digests of the tars of all layers, also of those that something stands in for.
    pub fn layer_tars(&self) -> HashSet<Digest> {
        let state = lock(&self.inner.state);
        let mut tars = HashSet::new();
        for layer in state.layers.values() {
            tars.insert(layer.diff_id);
            let replaced = layer.stand_in.iter().flat_map(|stand_in| &stand_in.replaced);
            tars.extend(replaced.map(|layer| layer.diff_id));
        }
        tars
    }

    /// The chain ids of the layers that lie over each other up to `chain`, lowest first: with
    /// those that stand in.
    pub fn stack(&self, chain: Option<Digest>) -> Result<Vec<Digest>, Error> {
        let mut stack = Vec::new();
        let mut next = chain;
        while let Some(chain) = next {
            stack.push(chain);
            next = self.layer(&chain)?.parent;
        }
        stack.reverse();
        Ok(stack)
    }

    /// The chain ids of the layers that [`Self::diff_ids`] names: as in
    /// [`Image::chain`](crate::Image::chain), where something stands in.
    pub fn image_chain(&self, chain: Option<Digest>) -> Result<Vec<Digest>, Error> {
        let mut stack = Vec::new();
        let mut next = chain;
        while let Some(chain) = next {
            let layer = self.layer(&chain)?;
            if let Some(stand_in) = &layer.stand_in {
                stack.extend(stand_in.replaced.iter().map(|_| chain));
                break;
            }
            stack.push(chain);
            next = layer.parent;
        }
        stack.reverse();
        Ok(stack)
    }

    /// The chain id of what stands in beneath a layer, if something does.
    pub fn stand_in_of(&self, chain: Option<Digest>) -> Result<Option<Digest>, Error> {
        let mut next = chain;
        while let Some(chain) = next {
            let layer = self.layer(&chain)?;
            if layer.stand_in.is_some() {
                return Ok(Some(chain));
            }
            next = layer.parent;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use silo_oci::image::{Descriptor, RootFs, chain_ids, digest, media};

    use super::*;
    use crate::Replaced;

    fn tar(text: &str) -> Vec<u8> {
        let mut writer = silo_archive::Writer::new(Vec::new());
        let mut entry = silo_archive::Entry::new(silo_archive::EntryKind::Regular, "file", 0o644);
        entry.size = text.len() as u64;
        entry.stored = entry.size;
        writer.append(&entry, &mut text.as_bytes()).unwrap();
        writer.finish().unwrap()
    }

    fn stand_in(base: Digest, names: &[&str]) -> StandIn {
        let replaced = names.iter().map(|name| Replaced {
            diff_id: digest(name.as_bytes()),
            blob: Descriptor::new(media::DOCKER_FOREIGN, digest(&name.as_bytes()[1..]), 7),
        });
        StandIn { name: "own/base:1".into(), base, replaced: replaced.collect() }
    }

    #[test]
    fn nobody_else_gets_what_stands_in() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (base, base_lease) = store.import(&tar("base")[..], ImageConfig::default()).unwrap();
        let base_top = base.top().unwrap();
        let lease = store.lease();
        let wanted = stand_in(base_top, &["a1", "a2"]);
        let diff_ids = [digest(b"a1"), digest(b"a2")];
        let placed = store.place_stand_in(wanted.clone(), &tar("version")[..], &lease).unwrap();
        // Of the layers in whose place it stands there is none, for any image.
        for chain in chain_ids(&diff_ids) {
            assert!(store.layer(&chain).is_err());
        }
        assert!(store.layer(&digest(b"a1")).is_err());
        // The same again is the same; whatever is different is another one.
        let again = store.place_stand_in(wanted.clone(), &tar("version")[..], &lease).unwrap();
        assert_eq!(again.chain_id, placed.chain_id);
        let mut other = wanted.clone();
        other.replaced[1].blob.urls.push("https://x".into());
        let other = store.place_stand_in(other, &tar("version")[..], &lease).unwrap();
        assert_ne!(other.chain_id, placed.chain_id);
        let other = store.place_stand_in(wanted.clone(), &tar("another")[..], &lease).unwrap();
        assert_ne!(other.chain_id, placed.chain_id);
        // An image of other layers cannot stand on it.
        let rootfs = RootFs { diff_ids: vec![diff_ids[1], diff_ids[0]], ..RootFs::default() };
        let mut config = ImageConfig { rootfs, ..ImageConfig::default() };
        let record = |config: &ImageConfig| {
            let stand_in = Some(placed.chain_id);
            store.record_received(config.to_bytes(), Vec::new(), "", stand_in, &lease)
        };
        assert!(record(&config).is_err());

        config.rootfs.diff_ids = diff_ids.to_vec();
        let image = record(&config).unwrap();
        assert_eq!(image.chain, [placed.chain_id, placed.chain_id]);
        assert_eq!(image.layer_sizes, [4 + 7, 0]);
        assert_eq!(store.diff_ids(image.top()).unwrap(), diff_ids);
        assert_eq!(store.stack(image.top()).unwrap(), [base_top, placed.chain_id]);
        assert_eq!(store.image_chain(image.top()).unwrap(), image.chain);
        // What is made of it has the true layers, with their descriptors.
        let (child, child_lease) = store.derive(image.top(), ImageConfig::default()).unwrap();
        assert_eq!(child.config.rootfs.diff_ids, diff_ids);
        let bytes = store.read_blob(&child.manifest.digest, 1 << 20).unwrap();
        let manifest = silo_oci::image::Manifest::parse(&bytes).unwrap();
        let blobs: Vec<_> = wanted.replaced.iter().map(|layer| layer.blob.clone()).collect();
        assert_eq!(manifest.layers, blobs);
        let save = crate::SaveImage { id: image.id, names: Vec::new(), index: None };
        assert!(matches!(store.save(&[save], Vec::new()), Err(Error::NotHere { .. })));

        let tars = store.layer_tars();
        assert!(diff_ids.iter().all(|diff_id| tars.contains(diff_id)), "{tars:?}");

        // It is there for as long as the image is, with what it stands on.
        drop((lease, base_lease, child_lease, store));
        let store = Store::open(directory.path()).unwrap();
        let found = store.image(&image.id).unwrap();
        assert_eq!((found.chain, found.stand_in.as_deref()), (image.chain, Some(&wanted)));
        store.collect(|| HashSet::from([image.id])).unwrap();
        assert!(store.layer(&base_top).is_ok() && store.layer(&placed.chain_id).is_ok());
        store.collect(HashSet::new).unwrap();
        assert!(store.layers().is_empty() && store.layer_tars().is_empty());
    }
}

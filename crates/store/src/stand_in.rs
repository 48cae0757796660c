//! Layers of another image in the place of an image's lowest ones: see [`StandIn`].

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

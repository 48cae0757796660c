//! Images from a tar (`import`) and from a snapshot (`commit`).

use std::io::{BufReader, Read};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use silo_archive::{Compression, compress, pipe};
use silo_oci::image::{ImageConfig, RootFs};
use silo_types::Digest;

use crate::image::NewImage;
use crate::layer::{self, NewLayer};
use crate::load::join;
use crate::{Error, Image, Layer, Lease, Store, tree};

impl Store {
    /// Makes an image of one layer from a tar stream, compressed or not. `config` is the
    /// image's configuration but for its layer, which is filled in.
    pub fn import(
        &self,
        input: impl Read + Send,
        config: ImageConfig,
    ) -> Result<(Image, Lease), Error> {
        let stream = |error| Error::Stream("cannot read the archive", error);
        let (compression, input) = compress::detect(input).map_err(stream)?;
        let input = BufReader::with_capacity(256 << 10, input);
        let target = self.new_layer_path();
        let new = if compression == Compression::None {
            layer::unpack(&target, input, true)?
        } else {
            let mut source =
                compress::decoder(compression, input).map_err(Error::archive("the archive"))?;
            let (writer, reader) = pipe::pipe();
            std::thread::scope(|scope| {
                scope.spawn(move || compress::pump(&mut source, writer));
                layer::unpack(&target, reader, true)
            })?
        };
        self.add_layer(new, None, config)
    }

    /// Makes an image of a snapshot's changes on top of what it stands on. `config` is the
    /// whole configuration of the new image, history included, but for the layers' digests:
    /// those of the chain beneath and of the new layer are filled in.
    ///
    /// The caller has paused what writes to the snapshot, if it cares for consistency.
    pub fn commit(&self, snapshot: &str, config: ImageConfig) -> Result<(Image, Lease), Error> {
        let snapshot = self.snapshot(snapshot)?;
        let upper = silo_sys::path::open_root(&snapshot.upper)
            .map_err(Error::io("open", &snapshot.upper))?;
        let (thread, mut writer) = self.unpack_in_thread(Compression::None, true)?;
        match tree::pack_layer(upper.as_fd(), &mut writer) {
            Ok(()) => writer.finish(),
            Err(Error::Stream(_, error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                drop(writer);
            }
            Err(error) => {
                writer.fail(std::io::Error::other("the source failed"));
                // It fails because of this, which is the better reason.
                drop(join(thread));
                return Err(error);
            }
        }
        self.add_layer(join(thread)?, snapshot.chain, config)
    }

    /// Makes a layer of a snapshot's changes on top of what it stands on, without an image. The
    /// snapshot's files become the layer's own, so nothing is copied and the snapshot is of no
    /// use any more; nothing has it mounted. No time of a file is later than `latest`, seconds
    /// since 1970.
    ///
    /// `None` if nothing has changed.
    pub fn commit_layer(
        &self,
        snapshot: &str,
        latest: Option<i64>,
    ) -> Result<Option<(Arc<Layer>, Lease)>, Error> {
        let snapshot = self.snapshot(snapshot)?;
        if tree::is_empty(&snapshot.upper).map_err(Error::io("list", &snapshot.upper))? {
            return Ok(None);
        }
        if let Some(latest) = latest {
            tree::bound_times(&snapshot.upper, latest)?;
        }
        let new = layer::adopt(&self.new_layer_path(), &snapshot.upper)?;
        if new.is_without_entries() {
            return Ok(None);
        }
        self.add_layer_alone(new, snapshot.chain).map(Some)
    }

    /// Holds a layer and all beneath it, and tells what it is; `None` if it is not there.
    pub fn hold_layer(&self, chain: &Digest) -> Option<(Arc<Layer>, Lease)> {
        let lease = self.lease();
        lease.hold(*chain);
        let layer = self.layer(chain).ok()?;
        Some((layer, lease))
    }

    pub(crate) fn add_layer_alone(
        &self,
        new: NewLayer,
        parent: Option<Digest>,
    ) -> Result<(Arc<Layer>, Lease), Error> {
        let lease = self.lease();
        lease.hold(silo_oci::image::chain_id(parent.as_ref(), &new.diff_id));
        let layer = self.place_layer(new, parent.as_ref())?;
        Ok((layer, lease))
    }

    pub(crate) fn add_layer(
        &self,
        new: NewLayer,
        parent: Option<Digest>,
        mut config: ImageConfig,
    ) -> Result<(Image, Lease), Error> {
        let lease = self.lease();
        let chain = silo_oci::image::chain_id(parent.as_ref(), &new.diff_id);
        lease.hold(chain);
        parent.inspect(|below| lease.hold(*below));
        let mut diff_ids = self.diff_ids(parent)?;
        diff_ids.push(new.diff_id);
        config.rootfs = RootFs { diff_ids, ..RootFs::default() };
        self.place_layer(new, parent.as_ref())?;
        let stand_in = self.stand_in_of(parent)?;
        let config_bytes = config.to_bytes();
        let new = NewImage { config_bytes, config, manifest: None, stand_in };
        let mut images = self.record_images(vec![new], &lease)?;
        images.pop().map(|image| (image, lease)).ok_or(Error::NoLayer(chain))
    }

    /// Makes another image of the same layers: `config` is its configuration but for the
    /// layers, which are those of `chain`.
    pub fn derive(
        &self,
        chain: Option<Digest>,
        mut config: ImageConfig,
    ) -> Result<(Image, Lease), Error> {
        let lease = self.lease();
        chain.inspect(|top| lease.hold(*top));
        config.rootfs = RootFs { diff_ids: self.diff_ids(chain)?, ..RootFs::default() };
        let stand_in = self.stand_in_of(chain)?;
        let config_bytes = config.to_bytes();
        let id = silo_oci::image::digest(&config_bytes);
        let new = NewImage { config_bytes, config, manifest: None, stand_in };
        let mut images = self.record_images(vec![new], &lease)?;
        images.pop().map(|image| (image, lease)).ok_or(Error::NoImage(id))
    }
}

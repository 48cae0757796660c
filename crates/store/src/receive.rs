//! Layers that come over a network: unpacked while they come in, and taken up again when an
//! earlier try did not end.
//!
//! A compressed layer is written to `content/partial/<hex>` as it comes. When the stream breaks
//! off for good, or the process is killed, the file stays; the next [`Receiving`] of the same
//! digest reads it first, so that only the rest is asked for again. It is there until the layer
//! has its place, so that a layer that came whole, but had to wait for those beneath it, does not
//! come again. What is in it is trusted no more than what comes over the network: the digest is
//! that of all bytes. Content that turned out to be wrong is removed at once, what nobody took up
//! again by [`Store::collect`].
//!
//! An uncompressed layer leaves nothing behind: its tar is not kept.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use fs_err::File;
use sha2::{Digest as _, Sha256};
use silo_archive::Compression;
use silo_archive::pipe::PipeWriter;
use silo_oci::image::{Descriptor, ImageConfig, Manifest, digest, media};
use silo_types::Digest;

use crate::image::NewImage;
use crate::layer::NewLayer;
use crate::load::{Unpacking, join};
use crate::store::StagedBlob;
use crate::{Error, Image, Layer, Lease, Store};

/// Directory of what has come in part.
pub(crate) const PARTIAL: &str = "content/partial";
/// How much is looked at to tell how a layer is compressed.
const PEEK: u64 = 512;
/// Bytes that are read at once from what an earlier try left.
const PIECE: usize = 256 << 10;

impl Drop for Receiving {
    fn drop(&mut self) {
        if self.position == 0 {
            self.forget_partial();
        }
    }
}

/// A layer that is coming in. Dropped before [`finish`](Self::finish), what has come stays for
/// the next try.
#[derive(Debug)]
pub struct Receiving {
    store: Store,
    wanted: Descriptor,
    hash: Sha256,
    position: u64,
    /// First bytes, until there are enough to tell the compression.
    head: Vec<u8>,
    partial: Option<(File, PathBuf)>,
    compression: Compression,
    // In this order: the writer must be dropped before the thread is waited for.
    writer: Option<PipeWriter>,
    thread: Option<Unpacking>,
}

/// A layer that has come in, is checked and unpacked, and has no place yet. Dropped without
/// having got one, its compressed blob stays for the next try.
#[derive(Debug)]
pub struct Received {
    layer: NewLayer,
    /// Where the compressed blob is that goes with the layer.
    blob: Option<PathBuf>,
}

impl Received {
    /// The digest of its uncompressed tar.
    pub fn diff_id(&self) -> Digest {
        self.layer.diff_id
    }
}

impl Store {
    /// Begins to receive a layer that the caller holds with a lease. One of a digest at a time.
    pub fn receive_layer(&self, wanted: &Descriptor) -> Result<Receiving, Error> {
        let path = self.path(PARTIAL).join(wanted.digest.hex());
        let mut options = fs_err::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(Error::io("create", &path))?;
        Ok(Receiving {
            store: self.clone(),
            wanted: wanted.clone(),
            hash: Sha256::new(),
            position: 0,
            head: Vec::new(),
            partial: Some((file, path)),
            compression: Compression::None,
            writer: None,
            thread: None,
        })
    }

    /// Gives a received layer its place on top of `parent`. Its tar must be the one that the
    /// image's configuration names.
    pub fn place_received(
        &self,
        received: Received,
        parent: Option<&Digest>,
        diff_id: &Digest,
    ) -> Result<(), Error> {
        let Received { layer, blob } = received;
        let actual = layer.diff_id;
        if actual != *diff_id {
            if let Some(path) = blob {
                // It is as the manifest says, but of no use. What remains is removed later.
                drop(fs_err::remove_file(path));
            }
            let what = "the uncompressed tar of a layer".to_owned();
            return Err(Error::DigestMismatch { what, expected: *diff_id, actual });
        }
        if let (Some(path), Some(blob)) = (&blob, &layer.blob) {
            // It keeps its name as long as no layer needs the blob: one that no layer needs is
            // removed when the store is opened next.
            let staged = self.fresh("content/ingest", "");
            let linked = fs_err::hard_link(path, &staged);
            if linked.is_ok() {
                self.place_blob(StagedBlob::at(staged, blob.digest, blob.size))?;
            } else if !self.has_blob(&blob.digest) {
                // Not another pull of the same layer that has placed it.
                return linked.map_err(Error::io("link", path));
            }
        }
        self.place_layer(layer, parent)?;
        if let Some(path) = blob {
            // What remains is removed when the store is opened next.
            drop(fs_err::remove_file(path));
        }
        Ok(())
    }

    /// Removes what came in part of blobs that are here.
    pub(crate) fn remove_finished(&self) -> Result<(), Error> {
        self.remove_partial(|digest| !self.has_blob(digest)).map(drop)
    }

    /// Records an image all of whose layers have their places, the lowest perhaps by what stands
    /// in for them ([`Store::place_stand_in`]). The manifest is kept as it came if all that it
    /// names can be given out again, or was never here.
    pub fn record_received(
        &self,
        config_bytes: Vec<u8>,
        manifest_bytes: Vec<u8>,
        media_type: &str,
        stand_in: Option<Digest>,
        lease: &Lease,
    ) -> Result<Image, Error> {
        let config = ImageConfig::parse(&config_bytes).map_err(|source| Error::Document {
            what: format!("configuration {}", digest(&config_bytes)),
            source,
        })?;
        let (chain, replaced) = self.chain_of(&config, stand_in.as_ref())?;
        let usable = Manifest::parse(&manifest_bytes).is_ok_and(|manifest| {
            let diff_ids = &config.rootfs.diff_ids;
            manifest.layers.len() == diff_ids.len()
                && manifest.layers.iter().zip(diff_ids).zip(&chain).skip(replaced).all(
                    |((descriptor, diff_id), chain)| {
                        descriptor.digest == *diff_id || self.holds(&descriptor.digest, chain)
                    },
                )
        });
        let manifest = usable.then(|| (manifest_bytes, media_type.to_owned()));
        let image = NewImage { config_bytes, config, manifest, stand_in };
        let mut images = self.record_images(vec![image], lease)?;
        images.pop().ok_or(Error::NoImage(Digest::from_sha256([0; 32])))
    }

    /// Whether the blob is in the content store as that of this layer.
    fn holds(&self, blob: &Digest, chain: &Digest) -> bool {
        let is_its = |layer: &Layer| layer.blob.as_ref().is_some_and(|own| own.digest == *blob);
        self.layer(chain).is_ok_and(|layer| is_its(&layer)) && self.has_blob(blob)
    }

    /// Removes what came in part and `keep` does not need; returns how many bytes that was.
    pub(crate) fn remove_partial(&self, keep: impl Fn(&Digest) -> bool) -> Result<u64, Error> {
        let mut bytes = 0;
        for name in crate::store::names(&self.path(PARTIAL))? {
            if format!("sha256:{name}").parse().is_ok_and(|digest| keep(&digest)) {
                continue;
            }
            let path = self.path(PARTIAL).join(name);
            bytes += fs_err::metadata(&path).map_or(0, |metadata| metadata.len());
            fs_err::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(bytes)
    }
}

impl Receiving {
    /// Takes up what an earlier try left, and returns how many bytes are here: the rest is to be
    /// written.
    pub fn resume(&mut self) -> Result<u64, Error> {
        let Some((file, path)) = &self.partial else { return Ok(self.position) };
        let path = path.clone();
        let mut left = file.try_clone().map_err(Error::io("open", &path))?;
        let length = left.metadata().map_err(Error::io("look at", &path))?.len();
        if length > self.wanted.size {
            file.set_len(0).map_err(Error::io("truncate", &path))?;
            return Ok(0);
        }
        let mut piece = vec![0; PIECE];
        loop {
            let count = left.read(&mut piece).map_err(Error::io("read", &path))?;
            // The file has them already, and its position is behind them.
            if count == 0 || !self.take(&piece[..count], false)? {
                return Ok(self.position);
            }
        }
    }

    /// How many bytes have come.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Takes the next bytes. More than the descriptor says is an error, as is what cannot be
    /// unpacked.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.take(bytes, true)? {
            return Ok(());
        }
        // The thread that unpacks has the reason.
        self.writer = None;
        let reason = self.thread.take().map(join);
        self.forget_partial();
        match reason {
            Some(Err(error)) => Err(error),
            _ => Err(Error::Stream("cannot unpack a layer", io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Hashes, keeps and unpacks bytes. `false` when unpacking has ended already.
    fn take(&mut self, bytes: &[u8], is_new: bool) -> Result<bool, Error> {
        let after = self.position + bytes.len() as u64;
        if after > self.wanted.size {
            self.forget_partial();
            let size = self.wanted.size;
            return Err(Error::InvalidArchive(format!(
                "layer {} is longer than the {size} bytes that its descriptor says",
                self.wanted.digest
            )));
        }
        if is_new && let Some((file, path)) = &mut self.partial {
            let written = file.write_all(bytes).map_err(Error::io("write", &*path));
            if written.is_err() {
                // Most likely the disk is full, which what came in part should not make worse.
                self.forget_partial();
            }
            written?;
        }
        self.hash.update(bytes);
        self.position = after;
        if self.writer.is_none() {
            self.head.extend_from_slice(bytes);
            if (self.head.len() as u64) < PEEK.min(self.wanted.size) {
                return Ok(true);
            }
            self.start()?;
            let head = std::mem::take(&mut self.head);
            return Ok(self.unpack(&head));
        }
        Ok(self.unpack(bytes))
    }

    fn unpack(&mut self, bytes: &[u8]) -> bool {
        self.writer.as_mut().is_some_and(|writer| writer.write_all(bytes).is_ok())
    }

    /// Starts the thread that unpacks.
    fn start(&mut self) -> Result<(), Error> {
        self.compression = Compression::sniff(&self.head);
        // Only what the OCI specification has a media type for can be given out again as it came.
        let keep = matches!(self.compression, Compression::Gzip | Compression::Zstd);
        if !keep {
            self.forget_partial();
        }
        let (thread, writer) = self.store.unpack_in_thread(self.compression, !keep)?;
        (self.thread, self.writer) = (Some(thread), Some(writer));
        Ok(())
    }

    fn forget_partial(&mut self) {
        if let Some((_, path)) = self.partial.take() {
            // What remains is removed by the next collection.
            drop(fs_err::remove_file(path));
        }
    }

    /// Checks length and digest, and waits until all is unpacked.
    pub fn finish(mut self) -> Result<Received, Error> {
        if self.position != self.wanted.size {
            let (position, size) = (self.position, self.wanted.size);
            let text = format!("it ended after {position} of {size} bytes");
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, text);
            return Err(Error::Stream("cannot receive a layer", error));
        }
        if self.writer.is_none() {
            // A layer of no bytes, which is not even a tar.
            self.start()?;
        }
        let actual = Digest::from_sha256(std::mem::take(&mut self.hash).finalize().into());
        if actual != self.wanted.digest {
            self.forget_partial();
            let what = "a layer".to_owned();
            return Err(Error::DigestMismatch { what, expected: self.wanted.digest, actual });
        }
        if let Some(writer) = self.writer.take() {
            writer.finish();
        }
        let unpacked = self.thread.take().map_or_else(
            || Err(Error::Stream("cannot unpack a layer", io::ErrorKind::BrokenPipe.into())),
            join,
        );
        let mut layer = match unpacked {
            Ok(layer) => layer,
            Err(error) => {
                self.forget_partial();
                return Err(error);
            }
        };
        let blob = self.partial.take().map(|(_, path)| path);
        if blob.is_some() {
            let media_type = match self.compression {
                Compression::Zstd => media::OCI_LAYER_ZSTD,
                _ => media::OCI_LAYER_GZIP,
            };
            let (digest, size) = (self.wanted.digest, self.wanted.size);
            layer.blob = Some(Descriptor::new(media_type, digest, size));
        }
        Ok(Received { layer, blob })
    }
}

//! Single layers in and out, without an image around them: what caches of builds are made of.

use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;

use silo_archive::{Compression, compress, pipe};
use silo_oci::image::{Descriptor, media};
use silo_types::Digest;

use crate::{Error, Layer, Lease, Store, layer};

impl Store {
    /// What [`Self::write_layer_blob`] writes of a layer: the compressed blob that it came as, or
    /// its tar.
    pub fn layer_blob(&self, chain: &Digest) -> Result<Descriptor, Error> {
        let layer = self.layer(chain)?;
        Ok(match &layer.blob {
            Some(blob) => blob.clone(),
            None => Descriptor::new(media::OCI_LAYER, layer.diff_id, layer.tar_size),
        })
    }

    /// Writes a layer as a blob. A tar is checked on the way; a compressed blob was when it came,
    /// and whoever reads it checks it.
    pub fn write_layer_blob(&self, chain: &Digest, mut output: impl Write) -> Result<(), Error> {
        let layer = self.layer(chain)?;
        let Some(blob) = &layer.blob else { return self.write_layer_tar(chain, output) };
        let mut file = self.open_blob(&blob.digest)?;
        io::copy(&mut file, &mut output)
            .map(drop)
            .map_err(|error| Error::Stream("cannot write a layer", error))
    }

    /// Adds a layer upon `parent`, which the caller holds, from its tar, compressed or not, that
    /// must have the digest `diff_id`. One that is there already is not read.
    pub fn add_layer_tar(
        &self,
        input: impl Read + Send,
        parent: Option<&Digest>,
        diff_id: &Digest,
    ) -> Result<(Arc<Layer>, Lease), Error> {
        if let Some(parent) = parent {
            self.layer(parent)?;
        }
        if let Some(held) = self.hold_layer(&silo_oci::image::chain_id(parent, diff_id)) {
            return Ok(held);
        }
        let stream = |error| Error::Stream("cannot read a layer", error);
        let (compression, input) = compress::detect(input).map_err(stream)?;
        let input = BufReader::with_capacity(256 << 10, input);
        let target = self.new_layer_path();
        let new = if compression == Compression::None {
            layer::unpack(&target, input, true)?
        } else {
            let mut source = compress::decoder(compression, input)
                .map_err(Error::archive("a compressed layer"))?;
            let (writer, reader) = pipe::pipe();
            std::thread::scope(|scope| {
                scope.spawn(move || compress::pump(&mut source, writer));
                layer::unpack(&target, reader, true)
            })?
        };
        if new.diff_id != *diff_id {
            let what = "the tar of a layer".to_owned();
            return Err(Error::DigestMismatch { what, expected: *diff_id, actual: new.diff_id });
        }
        self.add_layer_alone(new, parent.copied())
    }
}

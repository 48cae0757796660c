//! Loading images from archives, in one pass.
//!
//! Layers are unpacked as they come, each in threads of its own, before it is known which
//! image they belong to: what something is, is told from its first bytes. When the archive
//! has ended, its manifests name the images, and layers are put where they belong. Nothing
//! is visible in the store before everything is checked and flushed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};
use silo_archive::pipe::{self, PipeWriter};
use silo_archive::{Compression, EntryKind, Reader, compress};
use silo_oci::image::{Descriptor, MAX_DOCUMENT, media};
use silo_types::Digest;

use crate::layer::{self, NewLayer};
use crate::resolve::{self, Found, Part};
use crate::store::StagedBlob;
use crate::{Error, Lease, Loaded, Progress, Store};

/// All documents of one archive together, in bytes.
const MAX_DOCUMENTS: usize = 128 << 20;
/// Members of one archive.
const MAX_MEMBERS: usize = 100_000;
/// Bytes between two reports of progress.
const REPORT: u64 = 512 << 10;
/// How much of a member is looked at to tell what it is.
const PEEK: usize = 512;

/// A thread that unpacks a layer. Dropped, it is waited for, so that it leaves nothing behind
/// after the operation that failed; whoever writes to it must have stopped before.
#[derive(Debug)]
pub(crate) struct Unpacking(Option<JoinHandle<Result<NewLayer, Error>>>);

impl Drop for Unpacking {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            drop(thread.join());
        }
    }
}

/// A layer that came in compressed or not, and is being unpacked.
struct Running {
    path: Vec<u8>,
    /// Digest and size of the member itself.
    digest: Digest,
    size: u64,
    compression: Compression,
    thread: Unpacking,
    blob: Option<StagedBlob>,
}

impl Store {
    /// Loads all images of an archive: what `docker save` writes, of any version, or an OCI
    /// layout in a tar; uncompressed, gzip, zstd, bzip2 or xz.
    pub fn load(
        &self,
        input: impl Read + Send,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Loaded, Error> {
        let stream = |error| Error::Stream("cannot read the archive", error);
        let (compression, input) = compress::detect(input).map_err(stream)?;
        let input = BufReader::with_capacity(256 << 10, input);
        let lease = self.lease();
        let found = if compression == Compression::None {
            self.read_archive(input, &lease, progress)?
        } else {
            let mut source =
                compress::decoder(compression, input).map_err(Error::archive("the archive"))?;
            let (writer, reader) = pipe::pipe();
            std::thread::scope(|scope| {
                scope.spawn(move || compress::pump(&mut source, writer));
                self.read_archive(reader, &lease, progress)
            })?
        };
        resolve::resolve(self, found, lease)
    }

    fn read_archive(
        &self,
        input: impl BufRead,
        lease: &Lease,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Found, Error> {
        let mut reader = Reader::new(input);
        let mut found = Found::default();
        let mut running: Vec<Running> = Vec::new();
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let mut documents = 0;
        let archive = || Error::archive("the archive");
        while let Some(entry) = reader.next_entry().map_err(archive())? {
            if found.parts.len() + running.len() > MAX_MEMBERS {
                let text = format!("it has more than {MAX_MEMBERS} members");
                return Err(Error::InvalidArchive(text));
            }
            let Some(path) = crate::extract::clean(&entry.path) else {
                let text = format!("member {:?}", String::from_utf8_lossy(&entry.path));
                return Err(Error::InvalidArchive(text));
            };
            match entry.kind {
                EntryKind::Regular if entry.sparse.is_none() => {}
                EntryKind::Symlink | EntryKind::HardLink => {
                    let target = if entry.kind == EntryKind::Symlink {
                        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                        [&path[..end], b"/", &entry.link].concat()
                    } else {
                        entry.link
                    };
                    if let Some(target) = crate::extract::clean(&target) {
                        found.links.insert(path, target);
                    }
                    continue;
                }
                _ => continue,
            }
            let named = path
                .strip_prefix(b"blobs/sha256/")
                .and_then(|hex| format!("sha256:{}", String::from_utf8_lossy(hex)).parse().ok());
            if let Some(digest) = named {
                lease.hold(digest);
                if self.hold_layers(&digest, lease) {
                    // Its content is here already: it is neither read nor needed.
                    found.parts.insert(path, Part::Known);
                    continue;
                }
            }
            let mut start = Vec::with_capacity(PEEK);
            (&mut reader)
                .take(PEEK as u64)
                .read_to_end(&mut start)
                .map_err(|error| Error::Stream("cannot read the archive", error))?;
            let size = entry.stored;
            match kind_of(&start, size) {
                Contents::Document => {
                    let mut bytes = start;
                    reader
                        .read_to_end(&mut bytes)
                        .map_err(|error| Error::Stream("cannot read the archive", error))?;
                    documents += bytes.len();
                    if documents > MAX_DOCUMENTS {
                        let text = "it has too many documents".to_owned();
                        return Err(Error::InvalidArchive(text));
                    }
                    check(named, silo_oci::image::digest(&bytes), &path)?;
                    found.parts.insert(path, Part::Document(bytes));
                }
                Contents::Other => {}
                Contents::Layer(compression) => {
                    if running.len() >= at_once {
                        let oldest = running.remove(0);
                        finish(oldest, &mut found)?;
                    }
                    let part = self.start_layer(
                        path,
                        named,
                        compression,
                        size,
                        &start,
                        &mut reader,
                        progress,
                    )?;
                    running.push(part);
                }
            }
        }
        for part in running {
            finish(part, &mut found)?;
        }
        reader.finish().map_err(archive())?;
        Ok(found)
    }

    /// Holds all layers whose tar, compressed or not, has this digest.
    fn hold_layers(&self, digest: &Digest, lease: &Lease) -> bool {
        let state = crate::lease::lock(&self.inner.state);
        let mut any = false;
        for layer in state.layers.values() {
            let blob = layer.blob.as_ref().map(|blob| blob.digest);
            if layer.diff_id == *digest || blob == Some(*digest) {
                lease.hold(layer.chain_id);
                any = true;
            }
        }
        any
    }

    /// Sends a member to a thread that unpacks it, and waits until it is sent.
    #[expect(clippy::too_many_arguments, reason = "one call, all of it about one member")]
    fn start_layer<R: BufRead>(
        &self,
        path: Vec<u8>,
        named: Option<Digest>,
        compression: Compression,
        size: u64,
        start: &[u8],
        reader: &mut Reader<R>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Running, Error> {
        // Only what the OCI specification has a media type for can be given out again as it came.
        let keep = named.is_some() && matches!(compression, Compression::Gzip | Compression::Zstd);
        let (mut file, mut blob) = match keep.then(|| self.begin_blob()).transpose()? {
            Some((file, blob)) => (Some(file), Some(blob)),
            None => (None, None),
        };
        // In this order: the writer must be dropped before the thread is waited for.
        let (thread, mut writer) = self.unpack_in_thread(compression, !keep)?;
        let mut hash = Sha256::new();
        let mut current = 0;
        let mut reported = 0;
        let mut alive = true;
        // An uncompressed tar is hashed by the thread that unpacks it.
        let hashed = compression != Compression::None;
        let mut send = |bytes: &[u8]| -> Result<(), Error> {
            if hashed {
                hash.update(bytes);
            }
            if let Some(file) = &mut file {
                file.write_all(bytes).map_err(Error::io("write", file.path()))?;
            }
            // When the thread gave up, the reason comes when it is joined.
            alive = alive && writer.write_all(bytes).is_ok();
            current += bytes.len() as u64;
            if current - reported >= REPORT || current == size {
                reported = current;
                progress(Progress { layer: named, current, total: size });
            }
            Ok(())
        };
        send(start)?;
        loop {
            let bytes = reader
                .fill_buf()
                .map_err(|error| Error::Stream("cannot read the archive", error))?;
            if bytes.is_empty() {
                break;
            }
            let count = bytes.len();
            send(bytes)?;
            reader.consume(count);
        }
        writer.finish();
        let digest = Digest::from_sha256(hash.finalize().into());
        if hashed {
            check(named, digest, &path)?;
        }
        let digest = named.unwrap_or(digest);
        if let Some(blob) = &mut blob {
            (blob.digest, blob.size) = (digest, size);
        }
        Ok(Running { path, digest, size, compression, thread, blob })
    }

    /// Starts a thread that unpacks what is written to the pipe.
    pub(crate) fn unpack_in_thread(
        &self,
        compression: Compression,
        recipe: bool,
    ) -> Result<(Unpacking, PipeWriter), Error> {
        let target = self.new_layer_path();
        let (writer, reader) = pipe::pipe();
        let work = move || {
            if compression == Compression::None {
                return layer::unpack(&target, reader, recipe);
            }
            let reader = compress::decode_in_thread(compression, reader)
                .map_err(Error::archive("a compressed layer"))?;
            layer::unpack(&target, reader, recipe)
        };
        let thread = std::thread::Builder::new().name("layer".into()).spawn(work);
        let thread = thread.map_err(|error| Error::Stream("cannot start a thread", error))?;
        Ok((Unpacking(Some(thread)), writer))
    }
}

/// Waits for a thread that unpacks.
pub(crate) fn join(mut thread: Unpacking) -> Result<NewLayer, Error> {
    let result = thread.0.take().map(JoinHandle::join);
    result.and_then(Result::ok).unwrap_or_else(|| {
        let error = std::io::Error::other("a panic while unpacking a layer");
        Err(Error::Stream("cannot unpack a layer", error))
    })
}

/// Takes the result of a layer's thread. That it could not be unpacked is kept with it:
/// perhaps no image needs it.
fn finish(running: Running, found: &mut Found) -> Result<(), Error> {
    let Running { path, digest, size, compression, thread, blob } = running;
    let part = match join(thread) {
        Err(error) => Part::Failed(error),
        Ok(mut layer) => {
            if compression == Compression::None && path.starts_with(b"blobs/sha256/") {
                check(Some(digest), layer.diff_id, &path)?;
            }
            if let Some(blob) = blob {
                let media_type = match compression {
                    Compression::Zstd => media::OCI_LAYER_ZSTD,
                    _ => media::OCI_LAYER_GZIP,
                };
                layer.blob = Some(Descriptor::new(media_type, digest, size));
                found.blobs.push(blob);
            }
            let diff_id = layer.diff_id;
            found.layers.entry(diff_id).or_insert(layer);
            Part::Layer(diff_id)
        }
    };
    found.parts.insert(path, part);
    Ok(())
}

/// Refuses content that is not what its name says.
fn check(named: Option<Digest>, actual: Digest, path: &[u8]) -> Result<(), Error> {
    match named {
        Some(expected) if expected != actual => {
            let what = format!("archive member {:?}", String::from_utf8_lossy(path));
            Err(Error::DigestMismatch { what, expected, actual })
        }
        _ => Ok(()),
    }
}

/// What a member is.
enum Contents {
    Document,
    Layer(Compression),
    Other,
}

fn kind_of(start: &[u8], size: u64) -> Contents {
    let compression = Compression::sniff(start);
    if compression != Compression::None {
        return Contents::Layer(compression);
    }
    let first = start.iter().find(|byte| !byte.is_ascii_whitespace());
    if matches!(first, Some(b'{' | b'[')) && size <= MAX_DOCUMENT as u64 {
        return Contents::Document;
    }
    let is_tar = start.len() == PEEK && Reader::new(start).next_entry().is_ok();
    // A header of an extension is a whole tar only with what follows.
    let is_header = start.len() == PEEK && &start[257..262] == b"ustar";
    if is_tar || is_header { Contents::Layer(Compression::None) } else { Contents::Other }
}

/// Paths of an archive that are other names of members.
pub(crate) type Links = HashMap<Vec<u8>, Vec<u8>>;

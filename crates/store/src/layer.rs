//! Unpacking layers, and making their tars again.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};
use silo_archive::{Entry, EntryKind, RawTap as _, Reader, compress, pipe};
use silo_oci::image::Descriptor;
use silo_types::Digest;

use crate::Error;
use crate::extract::{self, Journal as _, Rules};
use crate::lane::Lane;
use crate::recipe::{self, RECIPE, Recorder};
use crate::types::{Kept, Layer, StandIn};
use crate::{stand_in, tree};

/// File name of a layer's record.
pub(crate) const RECORD: &str = "layer.json";
/// Directory of a layer's files.
pub(crate) const FILES: &str = "fs";

/// A layer that is unpacked but has no name yet. Its directory is removed when this is
/// dropped without having been given one.
#[derive(Debug)]
pub(crate) struct NewLayer {
    pub(crate) path: PathBuf,
    pub(crate) diff_id: Digest,
    pub(crate) tar_size: u64,
    size: u64,
    entries: u64,
    has_root: bool,
    kept: Vec<Kept>,
    /// The compressed blob that is kept, if any.
    pub(crate) blob: Option<Descriptor>,
    pub(crate) stand_in: Option<StandIn>,
    placed: bool,
}

impl Drop for NewLayer {
    fn drop(&mut self) {
        if !self.placed {
            // What remains is removed when the store is opened next.
            drop(remove_tree(&self.path));
        }
    }
}

/// Removes a directory of the store's with all that is in it.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    silo_sys::path::remove_all_at(silo_sys::path::open_root(parent)?, name)
}

/// How many threads write small files.
pub(crate) fn writers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores - 1).min(4)
}

/// Unpacks an uncompressed tar into the new directory `path`. `recipe` asks for what is
/// needed to make the tar again.
pub(crate) fn unpack(path: &Path, input: impl BufRead, recipe: bool) -> Result<NewLayer, Error> {
    let mode = Mode::from_raw_mode(0o700);
    rustix::fs::mkdir(path, mode).map_err(io::Error::from).map_err(Error::io("create", path))?;
    let mut layer = NewLayer::empty(path);
    let directory = silo_sys::path::open_root(path).map_err(Error::io("open", path))?;
    let root = make_root(&directory).map_err(Error::io("create", path.join(FILES)))?;
    let recorder = Recorder::new(path, directory, recipe)?;
    let mut reader = Reader::with_tap(Hashing::new(input), recorder);
    let rules = Rules {
        whiteouts: true,
        leave_room: true,
        threads: writers(),
        is_new: true,
        ..Rules::default()
    };
    let extracted = extract::extract_all(root.as_fd(), &mut reader, rules)?;
    let (input, recorder) = reader.finish().map_err(Error::archive("the layer"))?;
    layer.kept = recorder.finish().map_err(Error::io("write", path.join(RECIPE)))?;
    (layer.diff_id, layer.tar_size) = input.finish();
    layer.size = extracted.bytes;
    layer.entries = extracted.entries;
    layer.has_root = extracted.has_root;
    Ok(layer)
}

/// Makes a layer of the upper directory of a snapshot, which becomes the layer's own: nothing is
/// copied. The snapshot is of no use any more.
pub(crate) fn adopt(path: &Path, upper: &Path) -> Result<NewLayer, Error> {
    let mode = Mode::from_raw_mode(0o700);
    rustix::fs::mkdir(path, mode).map_err(io::Error::from).map_err(Error::io("create", path))?;
    let mut layer = NewLayer::empty(path);
    let directory = silo_sys::path::open_root(path).map_err(Error::io("open", path))?;
    let recorder = Recorder::new(path, directory, true)?;
    let root = silo_sys::path::open_root(upper).map_err(Error::io("open", upper))?;
    let measure = Measure { hash: Lane::default(), count: 0, payload: 0, recorder };
    let (measure, entries, bytes) = tree::pack_still_layer(root, measure, Measure::payload)?;
    layer.kept = measure.recorder.finish().map_err(Error::io("write", path.join(RECIPE)))?;
    layer.diff_id = Digest::from_sha256(
        measure.hash.finish().map_err(|error| Error::Stream("cannot hash the layer", error))?,
    );
    (layer.tar_size, layer.entries, layer.size) = (measure.count, entries, bytes);
    fs_err::rename(upper, path.join(FILES)).map_err(Error::io("rename", upper))?;
    Ok(layer)
}

/// Takes a layer's tar for its digest and its recipe.
struct Measure {
    hash: Lane,
    count: u64,
    /// Bytes of a file's content that come next.
    payload: u64,
    recorder: Recorder,
}

impl Measure {
    fn payload(&mut self, path: &[u8], size: u64) -> io::Result<()> {
        self.payload = size;
        let entry = Entry { size, stored: size, ..Entry::new(EntryKind::Regular, path, 0) };
        self.recorder.payload(path, &entry)
    }
}

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = if self.payload > 0 {
            let count = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
            self.payload -= count as u64;
            count
        } else {
            self.recorder.raw(bytes)?;
            bytes.len()
        };
        self.hash.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn make_root(layer: &std::os::fd::OwnedFd) -> io::Result<std::os::fd::OwnedFd> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(layer, FILES, mode)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::openat(layer, FILES, flags, Mode::empty())?;
    rustix::fs::fchmod(&root, mode)?;
    Ok(root)
}

impl NewLayer {
    /// One of which nothing is known yet.
    fn empty(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            diff_id: Digest::from_sha256([0; 32]),
            tar_size: 0,
            size: 0,
            entries: 0,
            has_root: false,
            kept: Vec::new(),
            blob: None,
            stand_in: None,
            placed: false,
        }
    }

    /// Whether it changes nothing.
    pub(crate) fn is_without_entries(&self) -> bool {
        self.entries == 0
    }

    /// The chain id that this layer has on top of `parent`.
    pub(crate) fn chain_id(&self, parent: Option<&Digest>) -> Digest {
        match &self.stand_in {
            Some(stand_in) => stand_in::chain_id(stand_in, &self.diff_id),
            None => silo_oci::image::chain_id(parent, &self.diff_id),
        }
    }

    /// The record that this layer has on top of `parent`.
    pub(crate) fn record(&self, parent: Option<&Digest>, marker: Option<String>) -> Layer {
        Layer {
            chain_id: self.chain_id(parent),
            parent: parent.copied(),
            diff_id: self.diff_id,
            tar_size: self.tar_size,
            size: self.size,
            entries: self.entries,
            blob: self.blob.clone(),
            kept: self.kept.clone(),
            stand_in: self.stand_in.clone(),
            unsynced: marker,
        }
    }

    /// Writes the record with a marker; without an entry for the root, the root is as the
    /// parent's.
    pub(crate) fn seal(
        &self,
        parent: Option<(&Digest, &Path)>,
        marker: String,
    ) -> Result<Layer, Error> {
        let layer = self.record(parent.map(|(chain, _)| chain), Some(marker));
        if let (false, Some((_, below))) = (self.has_root, parent) {
            copy_root(&below.join(FILES), &self.path.join(FILES))
                .map_err(Error::io("set the mode of", self.path.join(FILES)))?;
        }
        let path = self.path.join(RECORD);
        let bytes = silo_oci::image::to_bytes(&layer);
        fs_err::write(&path, bytes).map_err(Error::io("write", &path))?;
        Ok(layer)
    }

    /// Gives the directory its place.
    pub(crate) fn place(mut self, to: &Path) -> Result<(), Error> {
        fs_err::rename(&self.path, to).map_err(Error::io("rename", &self.path))?;
        self.placed = true;
        Ok(())
    }
}

/// Gives one directory the owner and mode of another.
pub(crate) fn copy_root(from: &Path, to: &Path) -> io::Result<()> {
    let stat = rustix::fs::stat(from)?;
    let (uid, gid) =
        (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::chown(to, Some(uid), Some(gid))?;
    rustix::fs::chmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(())
}

/// Writes the uncompressed tar of the layer at `path`, which `blobs` may hold compressed,
/// and checks that it is the right one. Its bytes are found in one thread, and hashed and
/// written in another.
pub(crate) fn write_tar(
    path: &Path,
    layer: &Layer,
    blob: Option<&Path>,
    mut output: impl Write,
) -> Result<(), Error> {
    let (mut writer, mut reader) = pipe::pipe();
    let produce = move || {
        let made = match blob {
            Some(blob) => uncompress(blob, &mut writer),
            None => recipe::replay(path, &layer.kept, &mut writer),
        };
        match &made {
            Ok(()) => writer.finish(),
            Err(_) => writer.fail(io::Error::other("the source failed")),
        }
        made
    };
    let mut hash = Sha256::new();
    let mut written = Ok(());
    let made = std::thread::scope(|scope| {
        let producer = std::thread::Builder::new().name("tar".into()).spawn_scoped(scope, produce);
        let producer = producer.map_err(|error| Error::Stream("cannot start a thread", error))?;
        loop {
            match reader.fill_buf() {
                // The producer has the reason.
                Ok([]) | Err(_) => break,
                Ok(bytes) => {
                    hash.update(bytes);
                    written = output.write_all(bytes);
                    if written.is_err() {
                        break;
                    }
                    let count = bytes.len();
                    reader.consume(count);
                }
            }
        }
        drop(reader);
        producer.join().unwrap_or_else(|_| {
            let error = io::Error::other("a panic while making a tar");
            Err(Error::Stream("cannot make a layer's tar", error))
        })
    });
    // When the output fails, so does the producer.
    written.map_err(|error| Error::Stream("cannot write a layer's tar", error))?;
    made?;
    let actual = Digest::from_sha256(hash.finalize().into());
    if actual != layer.diff_id {
        let what = format!("the tar made from layer {}", layer.chain_id);
        return Err(Error::DigestMismatch { what, expected: layer.diff_id, actual });
    }
    Ok(())
}

fn uncompress(blob: &Path, output: &mut impl Write) -> Result<(), Error> {
    let file = fs_err::File::open(blob).map_err(Error::io("open", blob))?;
    let file = BufReader::with_capacity(256 << 10, file);
    let (compression, input) = compress::detect(file).map_err(Error::io("read", blob))?;
    let mut input = compress::decoder(compression, BufReader::new(input))
        .map_err(Error::archive("a compressed layer"))?;
    io::copy(&mut input, output).map_err(Error::io("read", blob))?;
    Ok(())
}

/// A reader that hashes what is consumed.
#[derive(Debug)]
pub(crate) struct Hashing<R> {
    inner: R,
    hash: Sha256,
    count: u64,
}

impl<R> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new(), count: 0 }
    }

    /// Digest and number of the bytes that went through.
    pub(crate) fn finish(self) -> (Digest, u64) {
        (Digest::from_sha256(self.hash.finalize().into()), self.count)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Hashing<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // Filled already, so this neither reads nor fails.
        if let Ok(bytes) = self.inner.fill_buf() {
            self.hash.update(&bytes[..count.min(bytes.len())]);
        }
        self.inner.consume(count);
        self.count += count as u64;
    }
}

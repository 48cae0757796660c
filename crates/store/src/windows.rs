//! Windows layers, ready to be put together as a drive C:.
//!
//! An unpacked layer's `fs/` is its tar as it is: `Files/`, `Hives/`, names as in the tar,
//! modes of nothing. What a container needs is made of it once, by [`Store::windows_layers`],
//! in the layer's directory:
//!
//! ```text
//! windows/
//!   files/       a lower directory of C:. The files are those of fs/Files by another name;
//!                links lead where they do on Windows; names are spelled as beneath
//!   hives/       differences of the registry
//!   utility/     files of the utility VM
//!   side.zst     the layer's side record (silo-winlayer): what Linux has no place for
//!   left-out     what has no place in the tree, a line each
//! ```
//!
//! It is derived, so it can be removed and is made again.

mod commit;
mod find;

use std::io::{self, BufRead, BufReader, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use silo_archive::compress;
use silo_types::Digest;
use silo_winlayer::plan::{Meta, Rules};
use silo_winlayer::{
    FileAttributes, FileTime, LayerPath, LayerReader, Op, Part, Planner, SideReader, SideWriter,
    Tree,
};

use crate::layer::{FILES, remove_tree};
use crate::{Error, Layer, Store, recipe};

pub use commit::WindowsChanges;

/// Directory of a layer's Windows view.
const VIEW: &str = "windows";
const DRIVE: &str = "files";
const HIVES: &str = "hives";
const UTILITY: &str = "utility";
const SIDE: &str = "side.zst";
const LEFT_OUT: &str = "left-out";

/// A layer of a Windows image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowsLayer {
    /// The layer.
    pub chain_id: Digest,
    /// A lower directory of C:.
    pub files: PathBuf,
    /// Holds the files of `Hives/`.
    pub hives: PathBuf,
    /// A zstd stream of its side record.
    pub side: PathBuf,
    /// What was left out, a line each.
    pub left_out: PathBuf,
}

impl Store {
    /// The layers of a Windows image up to `chain`, lowest first. What is missing of their
    /// Windows view is made. Whoever calls holds the layers by a lease, image or snapshot.
    pub fn windows_layers(&self, chain: &Digest) -> Result<Vec<WindowsLayer>, Error> {
        let mut layers = Vec::new();
        let mut next = Some(*chain);
        while let Some(chain) = next {
            let layer = self.layer(&chain)?;
            next = layer.parent;
            layers.push(layer);
        }
        layers.reverse();
        let view = |layer: &Arc<Layer>| self.layer_path(&layer.chain_id).join(VIEW);
        let missing = layers.iter().rposition(|layer| !exists(&view(layer)));
        let mut beneath = Tree::default();
        let mut drives: Vec<PathBuf> = Vec::new();
        let count = layers.len();
        for (at, layer) in layers.iter().enumerate().take(missing.map_or(0, |last| last + 1)) {
            let path = view(layer);
            let damaged = |error| match error {
                Error::Entry { .. } | Error::Archive { .. } => {
                    Error::WindowsLayer { number: at + 1, count, source: Box::new(error) }
                }
                other => other,
            };
            let tree = if exists(&path) {
                known(&path, &beneath)
            } else {
                self.make_view(layer, &path, &beneath, &drives)
            };
            let tree = tree.map_err(damaged)?;
            beneath.overlay(&tree).map_err(|error| damaged(refused("", &error)))?;
            drives.push(path);
        }
        Ok(layers
            .iter()
            .map(|layer| {
                let path = view(layer);
                WindowsLayer {
                    chain_id: layer.chain_id,
                    files: path.join(DRIVE),
                    hives: path.join(HIVES),
                    side: path.join(SIDE),
                    left_out: path.join(LEFT_OUT),
                }
            })
            .collect())
    }

    fn make_view(
        &self,
        layer: &Layer,
        place: &Path,
        beneath: &Tree,
        drives: &[PathBuf],
    ) -> Result<Tree, Error> {
        let home = self.layer_path(&layer.chain_id);
        let new = self.fresh("layers", ".new-");
        let made = build(&new, &home, self.tar_of(layer, &home)?, beneath, drives);
        let tree = match made {
            Ok(tree) => tree,
            Err(error) => {
                // What remains is removed when the store is opened next.
                drop(remove_tree(&new));
                return Err(error);
            }
        };
        match fs_err::rename(&new, place) {
            Ok(()) => {}
            // Somebody else was faster, and made the same.
            Err(_) if exists(place) => {
                remove_tree(&new).map_err(Error::io("remove", &new))?;
            }
            Err(error) => return Err(Error::io("rename", new)(error)),
        }
        Ok(tree)
    }

    /// A layer's tar; where its recipe is at hand, with zeros for the contents of files.
    fn tar_of(&self, layer: &Layer, home: &Path) -> Result<Box<dyn BufRead>, Error> {
        let Some(blob) = &layer.blob else {
            return Ok(Box::new(BufReader::new(recipe::Skeleton::open(home)?)));
        };
        let path = self.blob_path(&blob.digest);
        let file = fs_err::File::open(&path).map_err(Error::io("open", &path))?;
        let (compression, input) = compress::detect(file).map_err(Error::io("read", &path))?;
        let input = compress::decoder(compression, BufReader::new(input));
        Ok(Box::new(BufReader::new(input.map_err(Error::archive("a compressed layer"))?)))
    }
}

fn exists(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok()
}

/// An entry, or the layer as a whole, that is refused.
fn refused(entry: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    if let Some(silo_winlayer::Error::Refused { entry, reason }) = error.downcast_ref() {
        return Error::Entry { path: entry.clone(), reason: reason.to_string() };
    }
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        reason = format!("{reason}: {error}");
        source = error.source();
    }
    Error::Entry { path: entry.to_owned(), reason }
}

/// The names of a layer whose view is there.
fn known(view: &Path, beneath: &Tree) -> Result<Tree, Error> {
    let path = view.join(SIDE);
    let file = fs_err::File::open(&path).map_err(Error::io("open", &path))?;
    let input = zstd::stream::read::Decoder::new(file).map_err(Error::io("read", &path))?;
    let mut side = SideReader::new(BufReader::new(input)).map_err(|error| refused(SIDE, &error))?;
    let mut planner = Planner::new(Rules::default());
    while let Some(record) = side.next_record().map_err(|error| refused(SIDE, &error))? {
        let name = String::from_utf8_lossy(&record.header().name).into_owned();
        let meaning = record.meaning().map_err(|error| refused(&name, &error))?;
        planner.plan(&name, meaning).map_err(|error| refused(&name, &error))?;
    }
    Ok(planner.finish(beneath).1)
}

fn build(
    new: &Path,
    home: &Path,
    tar: Box<dyn BufRead>,
    beneath: &Tree,
    drives: &[PathBuf],
) -> Result<Tree, Error> {
    let private = Mode::from_raw_mode(0o700);
    let made = rustix::fs::mkdir(new, private).map_err(io::Error::from);
    made.map_err(Error::io("create", new))?;
    for (name, mode) in [(DRIVE, 0o755), (HIVES, 0o700), (UTILITY, 0o755)] {
        let path = new.join(name);
        let made = rustix::fs::mkdir(&path, private)
            .and_then(|()| rustix::fs::chmod(&path, Mode::from_raw_mode(mode)));
        made.map_err(io::Error::from).map_err(Error::io("create", path))?;
    }
    let open = |path: &Path| silo_sys::path::open_root(path).map_err(Error::io("open", path));
    let view = View { from: open(&home.join(FILES))?, to: open(new)?, drives };

    let path = new.join(SIDE);
    let file = fs_err::File::create(&path).map_err(Error::io("create", &path))?;
    let output = zstd::stream::write::Encoder::new(file, 3).map_err(Error::io("write", &path))?;
    let mut side = SideWriter::new(output).map_err(|error| refused(SIDE, &error))?;
    let mut reader = LayerReader::new(tar);
    let mut planner = Planner::new(Rules::default());
    while let Some(item) = reader.next_item().map_err(|error| refused("", &error))? {
        side.push(&item.record).map_err(|error| refused(SIDE, &error))?;
        let source = item.record.header().name.clone();
        let name = String::from_utf8_lossy(&source).into_owned();
        let ops = planner.plan(&name, item.meaning).map_err(|error| refused(&name, &error))?;
        for op in &ops {
            view.apply(op, &source)?;
        }
    }
    let (_, trailer) = reader.finish().map_err(|error| refused("", &error))?;
    let (ops, tree, reports) = planner.finish(beneath);
    for op in &ops {
        view.apply(op, b"")?;
    }
    let output = side.finish(&trailer).map_err(|error| refused(SIDE, &error))?;
    let file = output.finish().map_err(Error::io("write", &path))?;
    file.sync_all().map_err(Error::io("flush", &path))?;

    let path = new.join(LEFT_OUT);
    let mut lines = Vec::new();
    for report in &reports.first {
        let line = format!("{report}").replace('\n', " ");
        lines.extend_from_slice(line.as_bytes());
        lines.push(b'\n');
    }
    let mut file = fs_err::File::create(&path).map_err(Error::io("create", &path))?;
    file.write_all(&lines).map_err(Error::io("write", &path))?;
    file.sync_all().map_err(Error::io("flush", &path))?;
    Ok(tree)
}

/// Carries operations out.
struct View<'a> {
    /// The layer's `fs`.
    from: OwnedFd,
    /// The new view.
    to: OwnedFd,
    /// The views of the layers beneath, lowest first.
    drives: &'a [PathBuf],
}

/// Where a path is in a view.
fn place(path: &LayerPath) -> String {
    let top = match path.part() {
        Part::Files => DRIVE,
        Part::Hives => HIVES,
        Part::Utility | Part::UtilityFiles => UTILITY,
    };
    format!("{top}/{}", path.inner())
}

/// A directory that is held open, and a name in it.
type Spot = (OwnedFd, std::ffi::OsString);

impl View<'_> {
    fn spot(root: impl AsFd, path: &str) -> io::Result<Spot> {
        silo_sys::path::parent_in_root(root, path)
    }

    fn apply(&self, op: &Op, source: &[u8]) -> Result<(), Error> {
        let (shown, result) = match op {
            Op::Directory { path, .. } => (path.to_tar(), self.directory(path)),
            Op::File { path, meta, .. } => (path.to_tar(), self.file(source, &place(path), *meta)),
            Op::Hive { name, meta, .. } => {
                (name.clone(), self.file(source, &format!("{HIVES}/{name}"), *meta))
            }
            Op::Stream { owner, name, meta } => {
                let path = format!("{}:{name}", place(owner));
                (owner.to_tar(), self.file(source, &path, *meta))
            }
            Op::Whiteout { path } => (path.to_tar(), self.whiteout(&place(path))),
            Op::StreamWhiteout { owner, name } => {
                (owner.to_tar(), self.whiteout(&format!("{}:{name}", place(owner))))
            }
            Op::Opaque { path } => (path.to_tar(), self.opaque(path)),
            Op::Elsewhere => return Ok(()),
            Op::Rename { from, to } => (from.to_tar(), self.rename(&place(from), &place(to))),
            Op::RenameStream { from, to, name } => {
                let suffixed = |path| format!("{}:{name}", place(path));
                (from.to_tar(), self.rename(&suffixed(from), &suffixed(to)))
            }
            Op::Symlink { path, target, meta } => {
                (path.to_tar(), self.symlink(&place(path), target, *meta))
            }
            Op::HardLink { path, target } => {
                (path.to_tar(), self.link(&self.to, &place(target), &place(path)))
            }
            Op::LinkBeneath { path, target } => {
                (path.to_tar(), self.link_beneath(&place(target), &place(path)))
            }
            Op::Times { path, written } => (path.to_tar(), self.times(&place(path), *written)),
        };
        let failed = |source| Error::Extract { path: shown, operation: "make for Windows", source };
        result.map_err(failed)
    }

    fn directory(&self, path: &LayerPath) -> io::Result<()> {
        if path.file_name().is_none() {
            return Ok(());
        }
        let (parent, name) = Self::spot(&self.to, &place(path))?;
        match rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755)) {
            // Others' paths spoke of it before.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // The umask may have taken bits away.
        Ok(rustix::fs::chmodat(&parent, &name, Mode::from_raw_mode(0o755), AtFlags::empty())?)
    }

    /// Gives a file of the layer's tar its name in the view, and what can be kept of it.
    fn file(&self, source: &[u8], to: &str, meta: Meta) -> io::Result<()> {
        let source = std::str::from_utf8(source).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.link(&self.from, source, to)?;
        let (parent, name) = Self::spot(&self.to, to)?;
        let readonly = meta.attributes.contains(FileAttributes::READONLY);
        let mode = Mode::from_raw_mode(if readonly { 0o555 } else { 0o755 });
        let (uid, gid) = (Some(Uid::ROOT), Some(Gid::ROOT));
        rustix::fs::chownat(&parent, &name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::chmodat(&parent, &name, mode, AtFlags::empty())?;
        if let Some(value) = meta.attributes.to_dosattrib() {
            let route = format!("/proc/self/fd/{}", parent.as_raw_fd());
            let route = Path::new(&route).join(&name);
            let flags = XattrFlags::empty();
            match rustix::fs::lsetxattr(route, "user.DOSATTRIB", value.as_bytes(), flags) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        set_time(&parent, &name, meta.written)
    }

    fn link(&self, root: &OwnedFd, source: &str, to: &str) -> io::Result<()> {
        let (holder, old) = Self::spot(root, source)?;
        let stat = rustix::fs::statat(&holder, &old, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a file"));
        }
        let (parent, name) = Self::spot(&self.to, to)?;
        Ok(rustix::fs::linkat(&holder, &old, &parent, &name, AtFlags::empty())?)
    }

    /// The same file under a name of this layer, from the nearest layer that has it.
    fn link_beneath(&self, target: &str, to: &str) -> io::Result<()> {
        for view in self.drives.iter().rev() {
            match self.link(&silo_sys::path::open_root(view)?, target, to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => return result,
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    fn whiteout(&self, path: &str) -> io::Result<()> {
        let (parent, name) = Self::spot(&self.to, path)?;
        let kind = FileType::CharacterDevice;
        Ok(rustix::fs::mknodat(&parent, &name, kind, Mode::empty(), 0)?)
    }

    fn opaque(&self, path: &LayerPath) -> io::Result<()> {
        let (parent, name) = Self::spot(&self.to, &place(path))?;
        let route = format!("/proc/self/fd/{}", parent.as_raw_fd());
        let (route, flags) = (Path::new(&route).join(&name), XattrFlags::empty());
        Ok(rustix::fs::lsetxattr(route, "trusted.overlay.opaque", b"y", flags)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, old) = Self::spot(&self.to, from)?;
        let (to, new) = Self::spot(&self.to, to)?;
        Ok(rustix::fs::renameat(&from, &old, &to, &new)?)
    }

    fn symlink(&self, path: &str, target: &str, meta: Meta) -> io::Result<()> {
        let (parent, name) = Self::spot(&self.to, path)?;
        rustix::fs::symlinkat(target, &parent, &name)?;
        set_time(&parent, &name, meta.written)
    }

    fn times(&self, path: &str, written: FileTime) -> io::Result<()> {
        let (parent, name) = Self::spot(&self.to, path)?;
        set_time(&parent, &name, written)
    }
}

fn set_time(parent: &OwnedFd, name: &std::ffi::OsStr, written: FileTime) -> io::Result<()> {
    let time = written.to_unix();
    let time = Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanos) };
    let times = Timestamps { last_access: time, last_modification: time };
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::utimensat(parent, name, &times, flags) {
        // A year that the file system does not know.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

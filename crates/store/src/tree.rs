//! Trees as tar streams, and tar streams into trees: `docker cp` and `docker export`.
//!
//! The tree may be that of a running container, whose programs rename and link while it is
//! read. Every step is by a name in a directory that is held open, without following links.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
pub use silo_archive::EntryKind;
use silo_archive::pipe;
use silo_archive::{Compression, Entry, Reader, Time, Writer, compress, whiteout};

use crate::Error;
use crate::extract::{self, Rules};

/// The deepest tree that is read.
const MAX_DEPTH: usize = 1024;
/// The largest value of an extended attribute.
const MAX_XATTR: usize = 64 << 10;

/// Gives the entries of a tar stream the paths at which they are made.
pub trait EntryNames: std::fmt::Debug {
    /// The path below the directory of an entry with this name, or of what a hard link to this
    /// name leads to; else why there can be none.
    fn place(&self, name: &[u8], kind: EntryKind) -> Result<Vec<u8>, String>;
}

/// Hears of the files that [`unpack_into`] makes, from several threads.
pub trait Observer: std::fmt::Debug + Send + Sync {
    /// A file without extended attributes is complete: how it looks, and the SHA-256 of its
    /// content. A later entry may still replace it or change it by a hard link, which shows in how
    /// it looks then.
    fn file(&self, stat: &Stat, sha256: [u8; 32]);
}

/// How [`unpack_into`] treats what is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnpackOptions<'a> {
    /// Refuse to replace a directory by something else, or something else by a directory.
    pub no_overwrite_dir_non_dir: bool,
    /// Give everything to this user and group; `None` keeps the archive's.
    pub owner: Option<(u32, u32)>,
    /// Where names lead; `None` where they are paths already.
    pub names: Option<&'a dyn EntryNames>,
    /// The directory is empty, and nobody else writes to it: several threads do.
    pub is_new: bool,
    /// Who hears of files; their contents are hashed for it as they are written.
    pub observer: Option<&'a Arc<dyn Observer>>,
}

/// Unpacks a tar stream, compressed or not, into the directory `directory` of `root`, which
/// must exist. Links in the path are followed inside `root` only, and so is every path of
/// the stream.
pub fn unpack_into(
    root: impl AsFd,
    directory: &Path,
    input: impl Read + Send,
    options: UnpackOptions<'_>,
) -> Result<(), Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let target = silo_sys::path::open_in_root(root, directory, flags, Mode::empty())
        .map_err(|error| pack_error(directory.as_os_str().as_bytes(), "open", error))?;
    let rules = Rules {
        no_overwrite_dir_non_dir: options.no_overwrite_dir_non_dir,
        owner: options.owner,
        names: options.names,
        threads: if options.is_new { crate::layer::writers() } else { 0 },
        is_new: options.is_new,
        observer: options.observer,
        ..Rules::default()
    };
    let stream = |error| Error::Stream("cannot read the archive", error);
    let (compression, input) = compress::detect(input).map_err(stream)?;
    let input = BufReader::with_capacity(256 << 10, input);
    if compression == Compression::None {
        let mut reader = Reader::new(input);
        extract::extract_all(target.as_fd(), &mut reader, rules)?;
        reader.finish().map_err(Error::archive("the archive"))?;
        return Ok(());
    }
    let mut source =
        compress::decoder(compression, input).map_err(Error::archive("the archive"))?;
    let (writer, reader) = pipe::pipe();
    std::thread::scope(|scope| {
        scope.spawn(move || compress::pump(&mut source, writer));
        let mut reader = Reader::new(reader);
        extract::extract_all(target.as_fd(), &mut reader, rules)?;
        reader.finish().map_err(Error::archive("the archive"))?;
        Ok(())
    })
}

/// Writes what is at `path` of `root`, and all beneath it, as a tar whose entries begin with
/// `name`. A link as last component of `path` is written as a link.
pub fn pack(root: impl AsFd, path: &Path, name: &[u8], output: impl Write) -> Result<(), Error> {
    let root = root.as_fd();
    let mut packer = Packer::new(output, false);
    let clean = silo_sys::path::clean(path);
    let (parent, last) = if clean.as_os_str().is_empty() {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = silo_sys::path::open_in_root(root, "", flags, Mode::empty())
            .map_err(|error| pack_error(b"/", "open", error))?;
        (root, OsString::from("."))
    } else {
        silo_sys::path::parent_in_root(root, &clean)
            .map_err(|error| pack_error(clean.as_os_str().as_bytes(), "open", error))?
    };
    packer.walk(parent.as_fd(), &last, name)?;
    packer.finish()
}

/// Writes a whole root as a tar without an entry for the root itself, as `docker export`.
pub fn export(root: impl AsFd, output: impl Write) -> Result<(), Error> {
    let mut packer = Packer::new(output, false);
    packer.children(top(root)?, b"")?;
    packer.finish()
}

/// Writes whole roots as one tar, each as a directory of its name.
pub fn export_several<R: AsFd>(
    roots: &BTreeMap<String, R>,
    output: impl Write,
) -> Result<(), Error> {
    let mut packer = Packer::new(output, false);
    for (name, root) in roots {
        let entry = Entry::new(EntryKind::Directory, format!("{name}/"), 0o755);
        packer.writer.append_empty(&entry).map_err(archive)?;
        packer.links.clear();
        packer.children(top(root)?, name.as_bytes())?;
    }
    packer.finish()
}

/// Writes the upper directory of a snapshot as a layer's tar.
pub(crate) fn pack_layer(upper: impl AsFd, output: impl Write) -> Result<(), Error> {
    let mut packer = Packer::new(output, true);
    packer.children(top(upper)?, b"")?;
    packer.finish()
}

fn top(root: impl AsFd) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    silo_sys::path::open_in_root(root, "", flags, Mode::empty())
        .map_err(|error| pack_error(b"/", "open", error))
}

/// As [`pack_layer`], of a directory that nobody writes to meanwhile. `payload` hears of each file
/// whose content comes next in the output, by its path and size. Gives back the output, and the
/// number of entries and the bytes of files.
pub(crate) fn pack_still_layer<W: Write>(
    upper: impl AsFd,
    output: W,
    payload: Payload<W>,
) -> Result<(W, u64, u64), Error> {
    let mut packer = Packer::new(output, true);
    packer.is_still = true;
    packer.payload = payload;
    packer.children(top(upper)?, b"")?;
    let (entries, bytes) = (packer.entries, packer.bytes);
    let output = packer.writer.finish().map_err(archive)?;
    let output = output
        .into_inner()
        .map_err(|error| Error::Stream("cannot write the archive", error.into_error()))?;
    Ok((output, entries, bytes))
}

fn pack_error(path: &[u8], operation: &'static str, source: io::Error) -> Error {
    Error::Pack { path: String::from_utf8_lossy(path).into_owned(), operation, source }
}

/// Hears, with the output, of a file by its path and size.
type Payload<W> = fn(&mut W, &[u8], u64) -> io::Result<()>;

struct Packer<W: Write> {
    writer: Writer<io::BufWriter<W>>,
    payload: Payload<W>,
    /// What was written so far.
    entries: u64,
    bytes: u64,
    /// The name under which a file with several names was written.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Overlay's whiteouts become those of layers.
    layer: bool,
    /// Nobody writes to the tree: what is a file when it is looked at is one when it is opened.
    is_still: bool,
    buffer: Vec<u8>,
}

impl<W: Write> Packer<W> {
    fn new(output: W, layer: bool) -> Self {
        let output = io::BufWriter::with_capacity(256 << 10, output);
        let (links, buffer) = (HashMap::new(), vec![0; 256 << 10]);
        let payload: Payload<W> = |_, _, _| Ok(());
        let (entries, bytes) = (0, 0);
        let writer = Writer::new(output);
        Self { writer, payload, entries, bytes, links, layer, is_still: false, buffer }
    }

    fn finish(self) -> Result<(), Error> {
        let mut output = self.writer.finish().map_err(archive)?;
        output.flush().map_err(|error| Error::Stream("cannot write the archive", error))
    }

    /// Writes `name` of `parent` as `path`, and all beneath it.
    fn walk(&mut self, parent: BorrowedFd<'_>, name: &OsStr, path: &[u8]) -> Result<(), Error> {
        match self.member(parent, name, path, true)? {
            Some(directory) => self.children(directory, path),
            None => Ok(()),
        }
    }

    /// Writes one entry. Gives back a directory, whose entries come next.
    fn member(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
        is_top: bool,
    ) -> Result<Option<OwnedFd>, Error> {
        let failed = |operation| move |error: Errno| pack_error(path, operation, error.into());
        if self.is_still {
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed("look at"))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                return self.still_file(parent, name, path, &stat).map(|()| None);
            }
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            // Removed since its name was read.
            Err(Errno::NOENT) if !is_top => return Ok(None),
            result => result.map_err(failed("open"))?,
        };
        let stat = rustix::fs::fstat(&node).map_err(failed("look at"))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.layer && kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            return self.whiteout(path).map(|()| None);
        }
        let Some(mut entry) = describe(&stat, path) else {
            // Sockets have no place in a tar.
            return Ok(None);
        };
        entry.xattrs = if kind == FileType::Symlink {
            // It cannot be reached through its descriptor; its name in the directory can.
            let route = format!("/proc/self/fd/{}", parent.as_raw_fd());
            xattrs_at(&Path::new(&route).join(name), true).map_err(failed("read attributes of"))?
        } else {
            xattrs(&node).map_err(|error| pack_error(path, "read attributes of", error))?
        };
        self.entries += 1;
        match kind {
            FileType::Directory => {
                if !entry.path.ends_with(b"/") {
                    entry.path.push(b'/');
                }
                let opaque = self.layer && is_opaque(&node);
                self.writer.append_empty(&entry).map_err(archive)?;
                if opaque {
                    self.marker(&[path, b"/", whiteout::OPAQUE].concat())?;
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let directory = silo_sys::path::reopen(&node, flags)
                    .map_err(|error| pack_error(path, "open", error))?;
                return Ok(Some(directory));
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&node, "", Vec::new());
                entry.link = target.map_err(failed("read the link"))?.into_bytes();
                self.bytes += entry.link.len() as u64;
                self.writer.append_empty(&entry).map_err(archive)?;
            }
            FileType::RegularFile => {
                let open = || {
                    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
                    silo_sys::path::reopen(&node, flags)
                };
                self.file(open, entry, &stat)?;
            }
            _ => self.writer.append_empty(&entry).map_err(archive)?,
        }
        Ok(None)
    }

    /// Writes what is in a directory, and below: without recursion, as strangers say how deep that
    /// is.
    fn children(&mut self, directory: OwnedFd, path: &[u8]) -> Result<(), Error> {
        let list = |directory: &OwnedFd, path: &[u8]| match silo_sys::path::names(directory) {
            Ok(names) => Ok(names.into_iter()),
            Err(error) => Err(pack_error(path, "list", error)),
        };
        let names = list(&directory, path)?;
        let mut levels = vec![(directory, path.to_vec(), names)];
        while let Some((directory, path, names)) = levels.last_mut() {
            let Some(name) = names.next() else {
                levels.pop();
                continue;
            };
            let below = match &path[..] {
                b"" => name.as_bytes().to_vec(),
                path if path.ends_with(b"/") => [path, name.as_bytes()].concat(),
                path => [path, b"/", name.as_bytes()].concat(),
            };
            if let Some(directory) = self.member(directory.as_fd(), &name, &below, false)? {
                if levels.len() == MAX_DEPTH {
                    return Err(pack_error(&below, "list", Errno::LOOP.into()));
                }
                let names = list(&directory, &below)?;
                levels.push((directory, below, names));
            }
        }
        Ok(())
    }

    /// As [`Self::member`], for what is a file for certain: it is opened but once.
    fn still_file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
        stat: &Stat,
    ) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::empty())
            .map_err(|error| pack_error(path, "open", error.into()))?;
        let Some(mut entry) = describe(stat, path) else { return Ok(()) };
        entry.xattrs =
            xattrs(&file).map_err(|error| pack_error(path, "read attributes of", error))?;
        self.entries += 1;
        self.file(|| Ok(file), entry, stat)
    }

    fn file(
        &mut self,
        open: impl FnOnce() -> io::Result<OwnedFd>,
        mut entry: Entry,
        stat: &Stat,
    ) -> Result<(), Error> {
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                entry.kind = EntryKind::HardLink;
                entry.link.clone_from(first);
                // With attributes: Docker gives the file the owner that this entry says, and
                // the kernel takes the capabilities away when it does.
                (entry.size, entry.stored) = (0, 0);
                return self.writer.append_empty(&entry).map_err(archive);
            }
            self.links.insert(key, entry.path.clone());
        }
        let path = entry.path.clone();
        let file = if entry.size == 0 {
            None
        } else {
            Some(open().map_err(|error| pack_error(&path, "open", error))?)
        };
        self.writer.append_header(&entry).map_err(archive)?;
        self.bytes += entry.size;
        if entry.size > 0 {
            let output = self.writer.output();
            output
                .flush()
                .and_then(|()| (self.payload)(output.get_mut(), &path, entry.size))
                .map_err(|error| Error::Stream("cannot write the archive", error))?;
        }
        let mut left = entry.size;
        while let (Some(file), true) = (&file, left > 0) {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = match rustix::io::read(file, &mut self.buffer[..wanted]) {
                Err(Errno::INTR) => continue,
                result => result.map_err(|error| pack_error(&path, "read", error.into()))?,
            };
            // Cut short since its size was read: the rest is zeros.
            if count == 0 {
                self.buffer[..wanted].fill(0);
            }
            let count = if count == 0 { wanted } else { count };
            let output = self.writer.output();
            output
                .write_all(&self.buffer[..count])
                .map_err(|error| Error::Stream("cannot write the archive", error))?;
            left -= count as u64;
        }
        self.writer.pad(entry.size).map_err(archive)
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), Error> {
        let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        self.marker(&[&path[..at], whiteout::PREFIX, &path[at..]].concat())
    }

    fn marker(&mut self, path: &[u8]) -> Result<(), Error> {
        self.entries += 1;
        let entry = Entry::new(EntryKind::Regular, path, 0);
        self.writer.append_empty(&entry).map_err(archive)
    }
}

fn archive(source: silo_archive::Error) -> Error {
    match source {
        silo_archive::Error::Write(error) => Error::Stream("cannot write the archive", error),
        source => Error::Archive { what: "the tree as a tar".into(), source },
    }
}

/// The header of a file; `None` for what tar does not have.
fn describe(stat: &Stat, path: &[u8]) -> Option<Entry> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::Regular,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::CharacterDevice => EntryKind::CharDevice,
        FileType::BlockDevice => EntryKind::BlockDevice,
        FileType::Fifo => EntryKind::Fifo,
        _ => return None,
    };
    let mut entry = Entry::new(kind, path, stat.st_mode & 0o7777);
    (entry.uid, entry.gid) = (stat.st_uid, stat.st_gid);
    // Whole seconds, as Docker writes them.
    entry.mtime = Time { seconds: stat.st_mtime, nanos: 0 };
    if kind == EntryKind::Regular {
        entry.size = u64::try_from(stat.st_size).unwrap_or(0);
        entry.stored = entry.size;
    }
    if matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
        entry.major = rustix::fs::major(stat.st_rdev);
        entry.minor = rustix::fs::minor(stat.st_rdev);
    }
    Some(entry)
}

/// Names and values of extended attributes.
pub type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// The extended attributes of a file that belong into an image, sorted. The file is no link.
///
/// # Errors
///
/// What the kernel says.
pub fn xattrs(file: impl AsFd) -> io::Result<Attributes> {
    // Most have none.
    if rustix::fs::flistxattr(&file, &mut [0_u8; 0]) == Ok(0) {
        return Ok(Vec::new());
    }
    // By its descriptor's name, as one of `O_PATH` has no other way.
    let route = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    Ok(xattrs_at(Path::new(&route), false)?)
}

fn xattrs_at(route: &Path, is_link: bool) -> Result<Attributes, Errno> {
    let mut list = vec![0; 1024];
    let length = loop {
        let result = if is_link {
            rustix::fs::llistxattr(route, &mut list[..])
        } else {
            rustix::fs::listxattr(route, &mut list[..])
        };
        match result {
            Err(Errno::RANGE) if list.len() < MAX_XATTR => list.resize(list.len() * 4, 0),
            Err(Errno::OPNOTSUPP | Errno::NOENT) => return Ok(Vec::new()),
            result => break result?,
        }
    };
    let mut found = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // As Docker: capabilities and the user's own; the rest is of this host.
        if name != b"security.capability" && !name.starts_with(b"user.") {
            continue;
        }
        if name.starts_with(b"user.overlay.") || name.contains(&b'=') {
            continue;
        }
        let mut value = vec![0; MAX_XATTR];
        let result = if is_link {
            rustix::fs::lgetxattr(route, name, &mut value[..])
        } else {
            rustix::fs::getxattr(route, name, &mut value[..])
        };
        match result {
            Ok(length) => {
                value.truncate(length);
                found.push((name.to_vec(), value));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort();
    Ok(found)
}

/// Whether overlay hides what is beneath a directory.
pub(crate) fn is_opaque(directory: &OwnedFd) -> bool {
    let route = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let mut value = [0_u8; 1];
    let mut is = |name: &str| {
        rustix::fs::getxattr(&*route, name, &mut value[..])
            .is_ok_and(|length| value[..length] == *b"y")
    };
    is("trusted.overlay.opaque") || is("user.overlay.opaque")
}

/// Sets all times in a tree that are later than `latest` to it.
pub(crate) fn bound_times(root: &Path, latest: i64) -> Result<(), Error> {
    let failed =
        |path: &OsStr, error: io::Error| pack_error(path.as_bytes(), "set the time of", error);
    let root = silo_sys::path::open_root(root).map_err(|error| failed(OsStr::new("/"), error))?;
    let time = rustix::fs::Timespec { tv_sec: latest, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let mut pending: Vec<OsString> = vec![OsString::new()];
    while let Some(path) = pending.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = silo_sys::path::open_in_root_no_links(&root, &path, flags, Mode::empty())
            .map_err(|error| failed(&path, error))?;
        if path.is_empty() && rustix::fs::fstat(&directory).is_ok_and(|s| s.st_mtime >= latest) {
            rustix::fs::futimens(&directory, &times).map_err(|e| failed(&path, e.into()))?;
        }
        let mut entries =
            rustix::fs::Dir::read_from(&directory).map_err(|error| failed(&path, error.into()))?;
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(|error| failed(&path, error.into()))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let mut below = path.clone();
            below.push("/");
            below.push(name);
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let bound = || {
                let stat = rustix::fs::statat(&directory, name, flags)?;
                if (stat.st_mtime, stat.st_mtime_nsec) > (latest, 0) {
                    rustix::fs::utimensat(&directory, name, &times, flags)?;
                }
                Ok(stat)
            };
            let stat = bound().map_err(|error: Errno| failed(&below, error.into()))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                pending.push(below);
            }
        }
    }
    Ok(())
}

/// Whether a directory has nothing in it.
pub(crate) fn is_empty(directory: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Bytes of the files in a tree, each file once.
pub fn usage(root: impl AsFd) -> io::Result<u64> {
    let mut seen = std::collections::HashSet::new();
    let mut total = 0_u64;
    let mut pending: Vec<OsString> = vec![OsString::new()];
    while let Some(path) = pending.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = match silo_sys::path::open_in_root_no_links(
            root.as_fd(),
            &path,
            flags,
            Mode::empty(),
        ) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            result => result?,
        };
        let mut entries = rustix::fs::Dir::read_from(&directory)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if entry.file_type() == FileType::Directory {
                let mut below = path.clone();
                below.push("/");
                below.push(name);
                pending.push(below);
                continue;
            }
            let Ok(stat) = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if stat.st_nlink <= 1 || seen.insert((stat.st_dev, stat.st_ino)) {
                total += u64::try_from(stat.st_size).unwrap_or(0);
            }
        }
    }
    Ok(total)
}

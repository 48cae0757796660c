//! What a container changed on its drive C:, as overlay keeps it.
//!
//! The upper directory holds what is new, changed and removed. A directory that was moved holds
//! only what changed in it since; overlay's attribute `redirect` says where the rest is. That
//! is found here in full, as a layer has no moves. Of a changed file all its alternate data
//! streams are found, as in a layer they come with it or are gone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use silo_winlayer::fold::fold;
use silo_winlayer::scan::{Found, Node};
use silo_winlayer::{FileAttributes, FileTime, LayerPath, Tree};

use crate::Error;
use crate::tree::is_opaque;

/// The deepest tree that is read.
const MAX_DEPTH: usize = 1024;
/// The number of the upper directory among the roots; the others are the lower ones.
const UPPER: usize = 0;

/// A file or directory in one of the roots.
#[derive(Debug, Clone)]
struct Place {
    root: usize,
    path: PathBuf,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Changes {
    /// Everything that the layer is made of.
    pub(super) nodes: Vec<Node>,
    roots: Vec<OwnedFd>,
    /// Where those files are that are not in the upper directory under their own path.
    elsewhere: HashMap<Vec<u8>, Place>,
    /// What has no place in a layer: devices, sockets, pipes.
    pub(super) left_out: Vec<Vec<u8>>,
}

impl Changes {
    /// Opens the file of a node.
    pub(super) fn open(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let (root, place) = match self.elsewhere.get(path) {
            Some(place) => (place.root, place.path.as_path()),
            None => (UPPER, Path::new(OsStr::from_bytes(path))),
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file =
            silo_sys::path::open_in_root_no_links(&self.roots[root], place, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a file any more"));
        }
        Ok(file)
    }
}

/// Finds the changes in `upper` over `lowers`, topmost first, which together have the names of
/// `beneath`.
pub(super) fn changes(upper: &Path, lowers: &[PathBuf], beneath: &Tree) -> Result<Changes, Error> {
    let open = |path: &Path| silo_sys::path::open_root(path).map_err(Error::io("open", path));
    let mut roots = vec![open(upper)?];
    for lower in lowers {
        roots.push(open(lower)?);
    }
    let changes =
        Changes { nodes: Vec::new(), roots, elsewhere: HashMap::new(), left_out: Vec::new() };
    let mut finder = Finder { changes, beneath };
    let all = (1..finder.changes.roots.len()).map(|root| Place { root, path: PathBuf::new() });
    let mut pending = vec![Directory {
        path: Vec::new(),
        upper: Some(PathBuf::new()),
        lowers: all.collect(),
        origin: None,
        hides: false,
        depth: 0,
    }];
    while let Some(directory) = pending.pop() {
        let shown = String::from_utf8_lossy(&directory.path).into_owned();
        let failed = |source| Error::Pack { path: shown, operation: "look for changes", source };
        finder.directory(&directory, &mut pending).map_err(failed)?;
    }
    Ok(finder.changes)
}

/// A directory of the drive.
#[derive(Debug)]
struct Directory {
    /// Its path on the drive.
    path: Vec<u8>,
    /// Where it is in the upper directory; `None` for one that was moved with what holds it.
    upper: Option<PathBuf>,
    /// The lower directories that show through, topmost first.
    lowers: Vec<Place>,
    /// Where those are beneath, if that is not under the same path.
    origin: Option<Vec<u8>>,
    /// Nothing shows through that has the same path beneath.
    hides: bool,
    depth: usize,
}

/// What the lower directories have of a name.
enum Below {
    Directory(Vec<Place>, Stat),
    Other(Place, Stat),
}

struct Finder<'a> {
    changes: Changes,
    beneath: &'a Tree,
}

fn joined(path: &[u8], name: &OsStr) -> Vec<u8> {
    if path.is_empty() { name.as_bytes().to_vec() } else { [path, b"/", name.as_bytes()].concat() }
}

/// The owner's name, if a name is that of a stream.
fn owner_of(name: &OsStr) -> Option<&OsStr> {
    let at = name.as_bytes().iter().position(|byte| *byte == b':').filter(|at| *at > 0)?;
    Some(OsStr::from_bytes(&name.as_bytes()[..at]))
}

fn folded(name: &OsStr) -> String {
    fold(&name.to_string_lossy())
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn is_whiteout(stat: &Stat) -> bool {
    kind_of(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

impl Finder<'_> {
    fn open(&self, root: usize, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let root = &self.changes.roots[root];
        silo_sys::path::open_in_root_no_links(root, path, flags, Mode::empty())
    }

    /// The names in a directory, and what they are.
    fn names(directory: &OwnedFd) -> io::Result<BTreeMap<OsString, Stat>> {
        let mut names = BTreeMap::new();
        let mut entries = rustix::fs::Dir::read_from(directory)?;
        while let Some(entry) = entries.read() {
            let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
            if name == "." || name == ".." {
                continue;
            }
            match rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => drop(names.insert(name, stat)),
                // Removed since its name was read.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(names)
    }

    /// Looks a name up in lower directories, as overlay does.
    fn below(&self, lowers: &[Place], name: &OsStr) -> io::Result<Option<Below>> {
        let mut found: Vec<Place> = Vec::new();
        let mut first = None;
        for lower in lowers {
            let directory = self.open(lower.root, &lower.path)?;
            let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            let place = Place { root: lower.root, path: lower.path.join(name) };
            if kind_of(&stat) != FileType::Directory {
                if found.is_empty() && !is_whiteout(&stat) {
                    return Ok(Some(Below::Other(place, stat)));
                }
                break;
            }
            let opaque = is_opaque(&self.open(place.root, &place.path)?);
            first.get_or_insert(stat);
            found.push(place);
            if opaque {
                break;
            }
        }
        Ok(first.map(|stat| Below::Directory(found, stat)))
    }

    /// Finds what is in a directory, and puts the directories in it on the list.
    fn directory(&mut self, at: &Directory, pending: &mut Vec<Directory>) -> io::Result<()> {
        if at.depth >= MAX_DEPTH {
            return Err(Errno::LOOP.into());
        }
        let mut own = BTreeMap::new();
        if let Some(upper) = &at.upper {
            let directory = self.open(UPPER, upper)?;
            if at.depth == 0 {
                let stat = rustix::fs::fstat(&directory)?;
                self.push(at, Vec::new(), Found::Directory { opaque: false }, &stat, None)?;
            }
            own = Self::names(&directory)?;
        }
        // What was removed and made again in another spelling is there.
        let there: HashSet<String> =
            own.iter().filter(|(_, stat)| !is_whiteout(stat)).map(|(n, _)| folded(n)).collect();
        for (name, stat) in &own {
            if is_whiteout(stat) && there.contains(&folded(name)) {
                continue;
            }
            let place =
                at.upper.as_ref().map(|upper| Place { root: UPPER, path: upper.join(name) });
            if let Some(place) = place {
                self.member(at, name, stat, &place, pending)?;
            }
        }
        if at.origin.is_some() {
            return self.moved(at, &own, pending);
        }
        self.streams(at, &own, &there)
    }

    /// A name of the upper directory.
    fn member(
        &mut self,
        at: &Directory,
        name: &OsStr,
        stat: &Stat,
        place: &Place,
        pending: &mut Vec<Directory>,
    ) -> io::Result<()> {
        let path = joined(&at.path, name);
        if is_whiteout(stat) {
            // Of a stream it says nothing more: its owner comes with all that it has left.
            if owner_of(name).is_none() && at.origin.is_none() {
                self.push(at, path, Found::Whiteout, stat, None)?;
            }
            return Ok(());
        }
        if kind_of(stat) != FileType::Directory {
            return self.leaf(at, path, stat, place);
        }
        let directory = self.open(UPPER, &place.path)?;
        let mut inner = Directory {
            path: path.clone(),
            upper: Some(place.path.clone()),
            lowers: Vec::new(),
            origin: at.origin.as_ref().map(|origin| joined(origin, name)),
            hides: at.hides || at.origin.is_some(),
            depth: at.depth + 1,
        };
        if let Some(target) = redirect(&directory)? {
            (inner.lowers, inner.origin) = self.moved_from(at, &target)?;
            inner.hides = true;
        } else if is_opaque(&directory) {
            (inner.hides, inner.origin) = (true, None);
        } else {
            match self.below(&at.lowers, name)? {
                Some(Below::Directory(places, _)) => inner.lowers = places,
                _ => (inner.hides, inner.origin) = (true, None),
            }
        }
        let kind = Found::Directory { opaque: inner.hides };
        self.push_as(path, kind, stat, Some(place), inner.origin.clone())?;
        pending.push(inner);
        Ok(())
    }

    /// The lower directories of one that was moved, and their path beneath.
    fn moved_from(
        &self,
        at: &Directory,
        target: &[u8],
    ) -> io::Result<(Vec<Place>, Option<Vec<u8>>)> {
        let (mut lowers, mut path) = match target {
            [b'/', ..] => {
                let all = 1..self.changes.roots.len();
                (all.map(|root| Place { root, path: PathBuf::new() }).collect(), Vec::new())
            }
            _ => (at.lowers.clone(), at.origin.clone().unwrap_or_else(|| at.path.clone())),
        };
        for name in target.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if name == b"." || name == b".." {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a bad overlay.redirect"));
            }
            let name = OsStr::from_bytes(name);
            lowers = match self.below(&lowers, name)? {
                Some(Below::Directory(places, _)) => places,
                _ => return Ok((Vec::new(), None)),
            };
            path = joined(&path, name);
        }
        Ok((lowers, Some(path)))
    }

    /// What a moved directory holds and the upper directory does not.
    fn moved(
        &mut self,
        at: &Directory,
        own: &BTreeMap<OsString, Stat>,
        pending: &mut Vec<Directory>,
    ) -> io::Result<()> {
        let mut names = BTreeSet::new();
        for lower in &at.lowers {
            names.extend(Self::names(&self.open(lower.root, &lower.path)?)?.into_keys());
        }
        for name in names {
            if own.contains_key(&name) {
                continue;
            }
            let path = joined(&at.path, &name);
            match self.below(&at.lowers, &name)? {
                Some(Below::Directory(lowers, stat)) => {
                    let origin = at.origin.as_ref().map(|origin| joined(origin, &name));
                    let kind = Found::Directory { opaque: true };
                    self.push_as(path.clone(), kind, &stat, lowers.first(), origin.clone())?;
                    let (upper, hides, depth) = (None, true, at.depth + 1);
                    pending.push(Directory { path, upper, lowers, origin, hides, depth });
                }
                Some(Below::Other(place, stat)) => self.leaf(at, path, &stat, &place)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Streams beneath of files that changed, and files beneath whose streams changed.
    fn streams(
        &mut self,
        at: &Directory,
        own: &BTreeMap<OsString, Stat>,
        there: &HashSet<String>,
    ) -> io::Result<()> {
        if at.lowers.is_empty() {
            return Ok(());
        }
        let name = |path: &[u8]| LayerPath::parse(&[b"Files/", path].concat()).ok();
        let Some((here, None)) = name(&at.path) else { return Ok(()) };
        let Some(beneath) = self.beneath.find(&here) else { return Ok(()) };
        let gone: HashSet<String> =
            own.iter().filter(|(_, stat)| is_whiteout(stat)).map(|(n, _)| folded(n)).collect();
        let mut owners: BTreeMap<String, OsString> = BTreeMap::new();
        for (name, stat) in own {
            match owner_of(name) {
                Some(owner) => drop(owners.insert(folded(owner), owner.to_owned())),
                None if kind_of(stat) == FileType::RegularFile => {
                    owners.insert(folded(name), name.clone());
                }
                None => {}
            }
        }
        for (owner, spelled) in owners {
            // What was removed is gone with all its streams; what came in its place is new.
            if gone.contains(&owner) {
                continue;
            }
            let Some(id) = self.beneath.child(beneath, &owner) else { continue };
            let name = OsString::from(self.beneath.name(id));
            if !there.contains(&owner) {
                match self.below(&at.lowers, &name)? {
                    Some(Below::Other(place, stat)) => {
                        self.leaf(at, joined(&at.path, &spelled), &stat, &place)?;
                    }
                    Some(Below::Directory(places, stat)) => {
                        let kind = Found::Directory { opaque: false };
                        let path = joined(&at.path, &spelled);
                        self.push_as(path, kind, &stat, places.first(), None)?;
                    }
                    None => {}
                }
            }
            for stream in self.beneath.streams(id) {
                let mut full = name.clone();
                full.push(":");
                full.push(stream);
                let key = folded(&full);
                if there.contains(&key) || gone.contains(&key) {
                    continue;
                }
                if let Some(Below::Other(place, stat)) = self.below(&at.lowers, &full)? {
                    self.leaf(at, joined(&at.path, &full), &stat, &place)?;
                }
            }
        }
        Ok(())
    }

    /// What is no directory.
    fn leaf(
        &mut self,
        at: &Directory,
        path: Vec<u8>,
        stat: &Stat,
        place: &Place,
    ) -> io::Result<()> {
        let kind = match kind_of(stat) {
            FileType::RegularFile => Found::File {
                size: u64::try_from(stat.st_size).unwrap_or(0),
                inode: (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino)),
            },
            FileType::Symlink => {
                let root = &self.changes.roots[place.root];
                let parent = place.path.parent().unwrap_or(Path::new(""));
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                let parent =
                    silo_sys::path::open_in_root_no_links(root, parent, flags, Mode::empty())?;
                let name = place.path.file_name().unwrap_or_default();
                let target = rustix::fs::readlinkat(&parent, name, Vec::new())?;
                Found::Symlink { target: target.into_bytes() }
            }
            _ => {
                self.changes.left_out.push(path);
                return Ok(());
            }
        };
        self.push(at, path, kind, stat, Some(place))
    }

    fn push(
        &mut self,
        at: &Directory,
        path: Vec<u8>,
        kind: Found,
        stat: &Stat,
        place: Option<&Place>,
    ) -> io::Result<()> {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let origin = at.origin.as_ref().map(|origin| joined(origin, OsStr::from_bytes(name)));
        self.push_as(path, kind, stat, place, origin)
    }

    fn push_as(
        &mut self,
        path: Vec<u8>,
        kind: Found,
        stat: &Stat,
        place: Option<&Place>,
        origin: Option<Vec<u8>>,
    ) -> io::Result<()> {
        let seconds = silo_archive::Time {
            seconds: stat.st_mtime,
            nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        };
        let written = FileTime::from_unix(seconds).unwrap_or_default();
        let mut attributes = FileAttributes::default();
        if let (Found::File { .. } | Found::Directory { .. }, Some(place)) = (&kind, place) {
            attributes = self.attributes(place)?;
            if matches!(kind, Found::File { .. }) && stat.st_mode & 0o222 == 0 {
                attributes = attributes.with(FileAttributes::READONLY);
            }
            if place.root != UPPER || place.path.as_os_str().as_bytes() != path {
                self.changes.elsewhere.insert(path.clone(), place.clone());
            }
        }
        self.changes.nodes.push(Node { path, kind, written, attributes, origin });
        Ok(())
    }

    /// The attributes that Wine keeps beside a file.
    fn attributes(&self, place: &Place) -> io::Result<FileAttributes> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let root = &self.changes.roots[place.root];
        let file = silo_sys::path::open_in_root_no_links(root, &place.path, flags, Mode::empty())?;
        let value = attribute(&file, "user.DOSATTRIB")?;
        Ok(value
            .map_or_else(FileAttributes::default, |value| FileAttributes::from_dosattrib(&value)))
    }
}

/// Where overlay finds the rest of a directory that was moved.
fn redirect(directory: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
    match attribute(directory, "trusted.overlay.redirect")? {
        Some(target) => Ok(Some(target)),
        None => attribute(directory, "user.overlay.redirect"),
    }
}

fn attribute(file: &OwnedFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let route = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut value = vec![0; 4096];
    match rustix::fs::getxattr(&*route, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

//! Tars of layouts: where their files are, and writing one.

use std::collections::HashMap;
use std::io::{BufReader, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use fs_err::File;
use fs_err::os::unix::fs::FileExt as _;
use silo_archive::{BLOCK, Entry, EntryKind, Reader, Writer};

use super::CopyError;
use super::layout::Opened;

/// Files of an archive.
const MAX_FILES: usize = 100_000;
/// Bytes that are read for a header.
const HEADER: usize = 4096;
/// How many links may lead to each other.
const MAX_LINKS: usize = 8;

/// The beginnings of what people take for a tar.
const COMPRESSED: [(&[u8], &str); 3] = [
    (&[0x1f, 0x8b], "gzip"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"),
];

/// Where a file of an archive is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// In the archive: offset and size in bytes.
    Stored(u64, u64),
    /// Here: the archive has none, but what it would be made of.
    Made(Bytes),
}

/// An archive, which is read where it lies.
#[derive(Debug)]
pub(super) struct Archive {
    file: Arc<File>,
    places: HashMap<String, Place>,
    links: HashMap<String, String>,
}

impl Archive {
    /// Looks where the files of an archive are. Their data is not read.
    pub(super) fn open(mut file: File) -> Result<Self, CopyError> {
        let path = file.path().to_owned();
        let failed = || CopyError::io("read", &path);
        let wrong = |reason: String| CopyError::Layout { path: path.clone(), reason };
        let mut magic = Vec::new();
        file.seek(SeekFrom::Start(0)).map_err(failed())?;
        (&mut file).take(8).read_to_end(&mut magic).map_err(failed())?;
        if let Some((_, name)) = COMPRESSED.iter().find(|(begin, _)| magic.starts_with(begin)) {
            return Err(wrong(format!("it is compressed by {name}; decompress it first")));
        }
        let (mut places, mut links) = (HashMap::new(), HashMap::new());
        let mut at = 0;
        loop {
            file.seek(SeekFrom::Start(at)).map_err(failed())?;
            let mut reader = Reader::new(BufReader::with_capacity(HEADER, &mut file));
            let tar = |source| CopyError::Tar { path: path.clone(), source };
            let Some(entry) = reader.next_entry().map_err(tar)? else { break };
            let start = at + reader.position();
            at = start + entry.stored.next_multiple_of(BLOCK as u64);
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            let is_new = match entry.kind {
                EntryKind::Regular if entry.sparse.is_none() => {
                    places.insert(name, Place::Stored(start, entry.stored)).is_none()
                }
                EntryKind::Symlink => {
                    links.insert(name, String::from_utf8_lossy(&entry.link).into_owned());
                    true
                }
                _ => true,
            };
            if !is_new || places.len() > MAX_FILES || links.len() > MAX_FILES {
                return Err(wrong("it has the same file twice, or too many files".to_owned()));
            }
        }
        Ok(Self { file: Arc::new(file), places, links })
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Where a file is, which may be a symbolic link to another.
    pub(super) fn place(&self, name: &str) -> Option<Place> {
        let mut name = name.strip_prefix("./").unwrap_or(name).to_owned();
        for _ in 0..MAX_LINKS {
            if let Some(place) = self.places.get(&name) {
                return Some(place.clone());
            }
            name = beside(&name, self.links.get(&name)?)?;
        }
        None
    }

    /// Gives a file one more name, or makes it.
    pub(super) fn add(&mut self, name: &str, place: Place) {
        self.places.insert(name.to_owned(), place);
    }

    /// A file from some byte on, and its size.
    pub(super) fn reader(&self, name: &str, offset: u64) -> Option<Opened> {
        Some(match self.place(name)? {
            Place::Stored(at, size) => {
                let (at, end) = (at + offset.min(size), at + size);
                (Box::new(Window { file: Arc::clone(&self.file), at, end }), size)
            }
            Place::Made(mut bytes) => {
                let size = bytes.len();
                bytes.advance(usize::try_from(offset).unwrap_or(size).min(size));
                (Box::new(bytes.reader()), size as u64)
            }
        })
    }
}

/// The name that a link leads to; `None` for one out of the archive.
fn beside(link: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." => {}
            "" => return None,
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// A part of a file.
struct Window {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// An archive that is being written.
#[derive(Debug)]
pub(super) struct Outgoing {
    writer: Option<Writer<BufWriter<File>>>,
    /// What it is called in messages, and in the end.
    path: PathBuf,
    /// Where it is until all of it is written.
    aside: Option<PathBuf>,
    directories: Vec<&'static str>,
}

impl Outgoing {
    /// Begins an archive, which is in its place when all of it is written.
    pub(super) fn create(path: &Path) -> Result<Self, CopyError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let aside = path.with_file_name(name);
        let file = File::create(&aside).map_err(CopyError::io("create", &aside))?;
        let mut outgoing = Self::to(file);
        (outgoing.aside, outgoing.path) = (Some(aside), path.to_owned());
        Ok(outgoing)
    }

    /// Begins an archive in a file that somebody else cares for.
    pub(super) fn to(file: File) -> Self {
        let path = file.path().to_owned();
        let writer = Some(Writer::new(BufWriter::with_capacity(256 << 10, file)));
        Self { writer, path, aside: None, directories: Vec::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is until all of it is written, if that is not where it stays.
    pub(super) fn aside(&self) -> Option<&Path> {
        self.aside.as_deref()
    }

    /// Adds a file of `size` bytes.
    pub(super) fn add(
        &mut self,
        name: &str,
        size: u64,
        data: &mut impl Read,
    ) -> Result<(), CopyError> {
        let failed = |source| CopyError::Tar { path: self.path.clone(), source };
        let writer = self.writer.as_mut().ok_or(crate::Error::Cancelled)?;
        if name.starts_with("blobs/") && self.directories.is_empty() {
            self.directories = vec!["blobs/", "blobs/sha256/"];
            for directory in &self.directories {
                let entry = Entry::new(EntryKind::Directory, *directory, 0o755);
                writer.append_empty(&entry).map_err(failed)?;
            }
        }
        let entry = Entry { size, stored: size, ..Entry::new(EntryKind::Regular, name, 0o644) };
        writer.append(&entry, data).map_err(failed)
    }

    /// Ends the archive and puts it in its place.
    pub(super) fn finish(&mut self) -> Result<(), CopyError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let tar = |source| CopyError::Tar { path: self.path.clone(), source };
        let mut output = writer.finish().map_err(tar)?;
        output.flush().map_err(CopyError::io("write", &self.path))?;
        let Some(aside) = &self.aside else { return Ok(()) };
        output.get_ref().sync_all().map_err(CopyError::io("write", aside))?;
        fs_err::rename(aside, &self.path).map_err(CopyError::io("rename", aside))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(aside) = &self.aside {
            // Nothing is there after it is finished.
            fs_err::remove_file(aside).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_within() {
        for (link, target, found) in [
            ("a/layer.tar", "../b/layer.tar", Some("b/layer.tar")),
            ("a/layer.tar", "x", Some("a/x")),
            ("a", "./x", Some("x")),
            ("a", "../x", None),
            ("a/b", "/x", None),
        ] {
            assert_eq!(beside(link, target).as_deref(), found, "{link} -> {target}");
        }
    }

    #[test]
    fn files_by_links() {
        let mut writer = Writer::new(Vec::new());
        let file = Entry { size: 3, stored: 3, ..Entry::new(EntryKind::Regular, "./a/l", 0o644) };
        writer.append(&file, &mut &b"abc"[..]).unwrap();
        for (name, target) in [("b/l", "../a/l"), ("c/l", "../b/l"), ("loop", "loop")] {
            let mut link = Entry::new(EntryKind::Symlink, name, 0o777);
            link.link = target.into();
            writer.append_empty(&link).unwrap();
        }
        let bytes = writer.finish().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tar");
        fs_err::write(&path, bytes).unwrap();
        let archive = Archive::open(File::open(&path).unwrap()).unwrap();
        for (name, offset, wanted) in [("a/l", 0, "abc"), ("./c/l", 1, "bc"), ("b/l", 9, "")] {
            let (mut reader, size) = archive.reader(name, offset).unwrap();
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), size), (wanted, 3), "{name}");
        }
        assert!(archive.reader("loop", 0).is_none());
        assert!(archive.reader("d", 0).is_none());
    }
}

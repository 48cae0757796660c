//! Tars of layouts: where their files are, and writing one.

use std::collections::HashMap;
use std::io::{BufReader, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use fs_err::File;
use silo_archive::{BLOCK, Entry, EntryKind, Reader, Writer};

use super::CopyError;

/// Files of an archive.
const MAX_FILES: usize = 100_000;
/// Bytes that are read for a header.
const HEADER: usize = 4096;

/// The beginnings of what people take for a tar.
const COMPRESSED: [(&[u8], &str); 3] = [
    (&[0x1f, 0x8b], "gzip"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"),
];

/// Where files lie in a tar: offset and size in bytes.
pub(super) type Places = HashMap<String, (u64, u64)>;

/// Looks where the files of an archive are. Their data is not read.
pub(super) fn index(path: &Path) -> Result<Places, CopyError> {
    let open = || File::open(path).map_err(CopyError::io("open", path));
    let failed = || CopyError::io("read", path);
    let mut magic = Vec::new();
    open()?.take(8).read_to_end(&mut magic).map_err(failed())?;
    if let Some((_, name)) = COMPRESSED.iter().find(|(begin, _)| magic.starts_with(begin)) {
        let reason = format!("it is compressed by {name}; decompress it first");
        return Err(CopyError::Layout { path: path.to_owned(), reason });
    }
    let mut file = open()?;
    let mut places = Places::new();
    let mut at = 0;
    loop {
        file.seek(SeekFrom::Start(at)).map_err(failed())?;
        let mut reader = Reader::new(BufReader::with_capacity(HEADER, &mut file));
        let tar = |source| CopyError::Tar { path: path.to_owned(), source };
        let Some(entry) = reader.next_entry().map_err(tar)? else { return Ok(places) };
        let start = at + reader.position();
        at = start + entry.stored.next_multiple_of(BLOCK as u64);
        if entry.kind != EntryKind::Regular || entry.sparse.is_some() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        if places.len() >= MAX_FILES || places.insert(name, (start, entry.stored)).is_some() {
            let reason = "it has the same file twice, or too many files".to_owned();
            return Err(CopyError::Layout { path: path.to_owned(), reason });
        }
    }
}

/// An archive that is being written, aside.
#[derive(Debug)]
pub(super) struct Outgoing {
    path: PathBuf,
    aside: PathBuf,
    writer: Option<Writer<BufWriter<File>>>,
    directories: Vec<&'static str>,
}

impl Outgoing {
    /// Begins an archive, which is in its place when all of it is written.
    pub(super) fn create(path: &Path) -> Result<Self, CopyError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let aside = path.with_file_name(name);
        let file = File::create(&aside).map_err(CopyError::io("create", &aside))?;
        let writer = Some(Writer::new(BufWriter::with_capacity(256 << 10, file)));
        Ok(Self { path: path.to_owned(), aside, writer, directories: Vec::new() })
    }

    /// Where it is until all of it is written.
    pub(super) fn aside(&self) -> &Path {
        &self.aside
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
        output.flush().map_err(CopyError::io("write", &self.aside))?;
        output.get_ref().sync_all().map_err(CopyError::io("write", &self.aside))?;
        fs_err::rename(&self.aside, &self.path).map_err(CopyError::io("rename", &self.aside))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // Nothing is there after it is finished.
        fs_err::remove_file(&self.aside).ok();
    }
}

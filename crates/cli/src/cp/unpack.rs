//! A tar stream into local files.
//!
//! The stream comes from a container and may be hostile. Every path is resolved by the kernel
//! with the destination as its root (`openat2`, `RESOLVE_IN_ROOT`), so that no name and no link
//! in it leads out; files are made new, never opened through a link.

use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, fchmod, linkat, mkdirat,
    mknodat, openat2, symlinkat, unlinkat, utimensat,
};
use silo_archive::{Entry, EntryKind, Reader};

use super::rename;
use crate::failure::{Failure, Outcome};

/// Unpacks `input` into `directory`, which exists.
pub(super) fn unpack(
    input: &mut impl BufRead,
    directory: &Path,
    renamed: Option<&(String, String)>,
) -> Outcome {
    let root = rustix::fs::open(
        directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| Failure::io(&directory.display().to_string(), &error.into()))?;
    let mut reader = Reader::new(input);
    let mut directories = Vec::new();
    while let Some(mut entry) =
        reader.next_entry().map_err(|error| Failure::new(silo_types::error::chain(&error)))?
    {
        entry.path = rename(&entry.path, renamed);
        if entry.kind == EntryKind::HardLink {
            entry.link = rename(&entry.link, renamed);
        }
        let what = String::from_utf8_lossy(&entry.path).into_owned();
        extract(&root, &entry, &mut reader)
            .map_err(|error| Failure::io(&format!("{}/{what}", directory.display()), &error))?;
        if entry.kind == EntryKind::Directory {
            directories.push(entry);
        }
    }
    // Files made within change a directory's time, and its mode may forbid making them.
    for entry in directories.iter().rev() {
        if let Ok((parent, name)) = parent(root.as_fd(), &entry.path)
            && let Ok(made) = openat2(
                &parent,
                name,
                OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            )
        {
            fchmod(&made, Mode::from_raw_mode(entry.mode)).ok();
            utimensat(&parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).ok();
        }
    }
    Ok(())
}

/// The elements that name something: no `.`, no `..`, no root.
fn elements(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|element| !matches!(*element, b"" | b"." | b".."))
        .collect()
}

/// The directory that holds `path`, and the last element (`.` for the root itself).
fn parent<'a>(root: BorrowedFd<'_>, path: &'a [u8]) -> std::io::Result<(OwnedFd, &'a [u8])> {
    let mut elements = elements(path);
    let last = elements.pop().unwrap_or(b".");
    let directory = if elements.is_empty() { b".".to_vec() } else { elements.join(&b'/') };
    let opened = openat2(
        root,
        directory.as_slice(),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?;
    Ok((opened, last))
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: i64::from(entry.mtime.nanos) };
    Timestamps { last_access: time, last_modification: time }
}

fn extract<R: BufRead>(root: &OwnedFd, entry: &Entry, data: &mut Reader<R>) -> std::io::Result<()> {
    let (parent, name) = parent(root.as_fd(), &entry.path)?;
    if name == b"." {
        return Ok(());
    }
    let existing = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .map(|stat| FileType::from_raw_mode(stat.st_mode));
    match (existing, entry.kind) {
        (Ok(FileType::Directory), EntryKind::Directory) => return Ok(()),
        (Ok(FileType::Directory), _) => {
            return Err(std::io::Error::other("cannot overwrite directory with non-directory"));
        }
        (Ok(_), EntryKind::Directory) => {
            return Err(std::io::Error::other("cannot overwrite non-directory with directory"));
        }
        (Ok(_), _) => unlinkat(&parent, name, AtFlags::empty())?,
        (Err(_), _) => {}
    }
    let mode = Mode::from_raw_mode(entry.mode);
    match entry.kind {
        EntryKind::Directory => mkdirat(&parent, name, Mode::RWXU)?,
        EntryKind::Regular => {
            let file = rustix::fs::openat(
                &parent,
                name,
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::RUSR | Mode::WUSR,
            )?;
            let mut file = File::from(file);
            write_data(&mut file, entry, data)?;
            fchmod(&file, mode)?;
        }
        EntryKind::Symlink => symlinkat(entry.link.as_slice(), &parent, name)?,
        EntryKind::HardLink => {
            let (other, other_name) = self::parent(root.as_fd(), &entry.link)?;
            linkat(&other, other_name, &parent, name, AtFlags::empty())?;
            return Ok(());
        }
        EntryKind::Fifo => mknodat(&parent, name, FileType::Fifo, mode, 0)?,
        EntryKind::CharDevice | EntryKind::BlockDevice => {
            let kind = if entry.kind == EntryKind::CharDevice {
                FileType::CharacterDevice
            } else {
                FileType::BlockDevice
            };
            let device = rustix::fs::makedev(entry.major, entry.minor);
            mknodat(&parent, name, kind, mode, device)?;
        }
    }
    utimensat(&parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).ok();
    Ok(())
}

fn write_data<R: BufRead>(
    file: &mut File,
    entry: &Entry,
    data: &mut Reader<R>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    let Some(segments) = &entry.sparse else {
        loop {
            match data.read(&mut buffer)? {
                0 => return Ok(()),
                length => file.write_all(&buffer[..length])?,
            }
        }
    };
    file.set_len(entry.size)?;
    for segment in segments {
        let (mut at, end) = (segment.offset, segment.offset + segment.length);
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            data.read_exact(&mut buffer[..want])?;
            file.write_all_at(&buffer[..want], at)?;
            at += want as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use silo_archive::Writer;

    fn archive(entries: &[(EntryKind, &str, &str)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (kind, path, content) in entries {
            let mut entry = Entry::new(*kind, *path, 0o755);
            if *kind == EntryKind::Regular {
                entry.size = content.len() as u64;
                entry.stored = entry.size;
                writer.append(&entry, &mut content.as_bytes()).unwrap();
            } else {
                entry.link = content.as_bytes().to_vec();
                writer.append_empty(&entry).unwrap();
            }
        }
        writer.finish().unwrap()
    }

    #[test]
    fn packs_and_unpacks() {
        let from = tempfile::tempdir().unwrap();
        let tree = from.path().join("tree");
        fs_err::create_dir_all(tree.join("sub")).unwrap();
        fs_err::write(tree.join("sub/file"), "content").unwrap();
        fs_err::hard_link(tree.join("sub/file"), tree.join("second")).unwrap();
        fs_err::os::unix::fs::symlink("sub/file", tree.join("link")).unwrap();
        let mut stream = Vec::new();
        super::super::pack::pack(&tree, b"tree", &mut stream).unwrap();
        let to = tempfile::tempdir().unwrap();
        let names = ("tree".to_owned(), "copy".to_owned());
        unpack(&mut stream.as_slice(), to.path(), Some(&names)).unwrap();
        let copy = to.path().join("copy");
        assert_eq!(fs_err::read_to_string(copy.join("second")).unwrap(), "content");
        assert_eq!(fs_err::read_link(copy.join("link")).unwrap(), Path::new("sub/file"));
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs_err::metadata(copy.join("sub/file")).unwrap().nlink(), 2);
    }

    #[test]
    fn nothing_leads_out() {
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        fs_err::write(&secret, "old").unwrap();
        let into = outside.path().join("into");
        fs_err::create_dir(&into).unwrap();
        let absolute = secret.to_str().unwrap();
        for entries in [
            vec![(EntryKind::Regular, "../secret", "new")],
            vec![(EntryKind::Regular, absolute, "new")],
            vec![(EntryKind::Symlink, "l", absolute), (EntryKind::Regular, "l", "new")],
            vec![(EntryKind::Symlink, "up", ".."), (EntryKind::Regular, "up/secret", "new")],
            vec![
                (EntryKind::Symlink, "abs", outside.path().to_str().unwrap()),
                (EntryKind::Regular, "abs/secret", "new"),
            ],
            vec![(EntryKind::HardLink, "hard", "../secret"), (EntryKind::Regular, "hard", "new")],
        ] {
            unpack(&mut archive(&entries).as_slice(), &into, None).ok();
            assert_eq!(fs_err::read_to_string(&secret).unwrap(), "old", "{entries:?}");
        }
    }
}

//! Local files into a tar stream.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use silo_archive::{Entry, EntryKind, Time, Writer};

/// Names of files that have several, by device and inode.
type Links = HashMap<(u64, u64), Vec<u8>>;

/// Writes `path` and all beneath it, under the name `name`. Sockets are left out.
pub(super) fn pack(path: &Path, name: &[u8], output: &mut impl Write) -> std::io::Result<()> {
    let mut writer = Writer::new(output);
    // A path that ends in a slash or in `/.` means what a link there leads to.
    let text = path.as_os_str().as_bytes();
    let follow = text.ends_with(b"/") || text.ends_with(b"/.");
    let name = name.strip_suffix(b"/").unwrap_or(name);
    add(&mut writer, path, name, follow, &mut Links::new())?;
    writer.finish().map_err(std::io::Error::other)?.flush()
}

fn add<W: Write>(
    writer: &mut Writer<W>,
    path: &Path,
    name: &[u8],
    follow: bool,
    links: &mut Links,
) -> std::io::Result<()> {
    let data = if follow { fs_err::metadata(path)? } else { fs_err::symlink_metadata(path)? };
    let kind = data.file_type();
    let entry_kind = if kind.is_dir() {
        EntryKind::Directory
    } else if kind.is_file() {
        EntryKind::Regular
    } else if kind.is_symlink() {
        EntryKind::Symlink
    } else if kind.is_fifo() {
        EntryKind::Fifo
    } else if kind.is_char_device() {
        EntryKind::CharDevice
    } else if kind.is_block_device() {
        EntryKind::BlockDevice
    } else {
        return Ok(());
    };
    let mut entry = Entry::new(entry_kind, name, data.mode() & 0o7777);
    entry.uid = data.uid();
    entry.gid = data.gid();
    entry.mtime =
        Time { seconds: data.mtime(), nanos: u32::try_from(data.mtime_nsec()).unwrap_or(0) };
    match entry_kind {
        EntryKind::Regular => {
            if data.nlink() > 1
                && let Some(first) = links.get(&(data.dev(), data.ino()))
            {
                entry.kind = EntryKind::HardLink;
                entry.link.clone_from(first);
                return writer.append_empty(&entry).map_err(std::io::Error::other);
            }
            links.insert((data.dev(), data.ino()), name.to_vec());
            let mut file = fs_err::File::open(path)?;
            entry.size = data.len();
            entry.stored = data.len();
            writer.append(&entry, &mut file).map_err(std::io::Error::other)
        }
        EntryKind::Symlink => {
            entry.link = fs_err::read_link(path)?.into_os_string().into_vec();
            writer.append_empty(&entry).map_err(std::io::Error::other)
        }
        EntryKind::CharDevice | EntryKind::BlockDevice => {
            entry.major = rustix::fs::major(data.rdev());
            entry.minor = rustix::fs::minor(data.rdev());
            writer.append_empty(&entry).map_err(std::io::Error::other)
        }
        EntryKind::Directory => {
            entry.path.push(b'/');
            writer.append_empty(&entry).map_err(std::io::Error::other)?;
            let mut children: Vec<_> = fs_err::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
            children.sort_by_key(fs_err::DirEntry::file_name);
            for child in children {
                let child_name = [name, b"/", child.file_name().as_os_str().as_bytes()].concat();
                add(writer, &child.path(), &child_name, false, links)?;
            }
            Ok(())
        }
        EntryKind::Fifo | EntryKind::HardLink => {
            writer.append_empty(&entry).map_err(std::io::Error::other)
        }
    }
}

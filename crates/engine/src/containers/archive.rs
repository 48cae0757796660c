//! `docker cp` and `docker export`: files of a container as tar streams, both ways.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use silo_docker::containers::PathStat;
use silo_store::tree::{self, EntryNames, UnpackOptions};
use silo_types::{Error, ErrorKind, Kind, time};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;

use super::rootfs::RootView;
use crate::container::{Container, timestamp};
use crate::engine::Engine;
use crate::mountpoints::clean;

/// Pieces of a stream that wait for a slow client.
const PIECES: usize = 8;
/// The size of a piece.
const PIECE: usize = 128 << 10;
/// How much is still taken of a stream that was refused, as by Docker.
const UNREAD: u64 = 256 << 10;

/// A tar stream that is made while it is sent.
#[derive(Debug)]
pub struct ArchiveStream {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
}

impl ArchiveStream {
    /// The next piece; `None` at the end. An error ends the stream.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        self.pieces.recv().await
    }

    /// A stream of what `write` writes, in a thread of its own.
    pub(crate) fn new(
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || {
            let mut writer = PieceWriter { buffer: Vec::with_capacity(PIECE), sender };
            let outcome = write(&mut writer).and_then(|()| io::Write::flush(&mut writer));
            if let Err(error) = outcome {
                // A client that has gone does not hear of it.
                drop(writer.sender.blocking_send(Err(error)));
            }
        });
        Self { pieces }
    }
}

/// Collects what is written into pieces.
struct PieceWriter {
    buffer: Vec<u8>,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl io::Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.sender
            .blocking_send(Ok(piece.into()))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// Something in a container, found.
struct Found {
    stat: Stat,
    link_target: String,
}

/// Go's `os.FileMode` of a file.
fn go_mode(mode: u32) -> u32 {
    const DIRECTORY: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const NAMED_PIPE: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const CHARACTER: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;
    let mut go = mode & 0o777;
    go |= match FileType::from_raw_mode(mode) {
        FileType::Directory => DIRECTORY,
        FileType::Symlink => SYMLINK,
        FileType::BlockDevice => DEVICE,
        FileType::CharacterDevice => DEVICE | CHARACTER,
        FileType::Fifo => NAMED_PIPE,
        FileType::Socket => SOCKET,
        _ => 0,
    };
    for (bit, flag) in [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)] {
        if mode & bit != 0 {
            go |= flag;
        }
    }
    go
}

/// A path as seen from the root, without dots.
fn rooted(path: &str) -> String {
    clean(&format!("/{path}"))
}

/// Looks at a path without following a link at its end, unless it ends in a slash or dot.
fn find(view: &RootView, path: &str) -> io::Result<Found> {
    let follow = path.ends_with('/') || path.ends_with("/.");
    let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    let fd = silo_sys::path::open_in_root(view.fd(), rooted(path), flags, Mode::empty())?;
    let stat = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH)?;
    let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
    if follow && !is_directory {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let mut link_target = String::new();
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
        let target = PathBuf::from(std::ffi::OsStr::from_bytes(target.as_bytes()));
        let parent = Path::new("/").join(clean(path));
        let parent = parent.parent().unwrap_or(Path::new("/"));
        link_target = clean(&parent.join(target).display().to_string());
    }
    Ok(Found { stat, link_target })
}

fn path_stat(name: Option<String>, found: &Found) -> PathStat {
    let nanoseconds = i64::try_from(found.stat.st_mtime_nsec).unwrap_or(0);
    let modified = found.stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanoseconds);
    PathStat {
        name: name.unwrap_or_else(|| "/".to_owned()),
        size: found.stat.st_size,
        mode: go_mode(found.stat.st_mode),
        mtime: time::or_zero(timestamp(modified)),
        link_target: found.link_target.clone(),
    }
}

/// The error for a path that could not be used.
fn path_error(container: &str, path: &str, error: &io::Error) -> Error {
    // docker wording
    match error.kind() {
        io::ErrorKind::NotFound => {
            Error::not_found(format!("Could not find the file {path} in container {container}"))
        }
        io::ErrorKind::NotADirectory => Error::invalid(format!("{path}: not a directory")),
        _ => Error::internal(format!("{path} in container {container}: {error}")),
    }
}

impl Engine {
    fn check_cp(&self, name: &str, path: &str) -> Result<Arc<Container>, Error> {
        if path.is_empty() {
            return Err(Error::invalid("bad parameter: 'path' cannot be empty"));
        }
        if path.contains('\0') {
            return Err(Error::invalid("bad parameter: 'path' contains a zero byte"));
        }
        let container = self.container(name)?;
        if container.state().dead {
            return Err(Error::conflict(format!("container {} is marked as dead", container.id)));
        }
        Ok(container)
    }

    /// What is at a path of a container.
    pub async fn container_archive_head(&self, name: &str, path: &str) -> Result<PathStat, Error> {
        let container = self.check_cp(name, path)?;
        let view = self.open_root(&container).await?;
        let (name, path) = (name.to_owned(), path.to_owned());
        blocking(move || {
            let below = view.path(&path)?;
            let found = find(&view, &below).map_err(|error| path_error(&name, &path, &error))?;
            Ok(path_stat(view.last_name(&path), &found))
        })
        .await
    }

    /// What is at a path of a container, and all of it as a tar stream.
    pub async fn container_archive_get(
        &self,
        name: &str,
        path: &str,
    ) -> Result<(PathStat, ArchiveStream), Error> {
        let container = self.check_cp(name, path)?;
        let view = self.open_root(&container).await?;
        let (name, path) = (name.to_owned(), path.to_owned());
        let (view, path, stat) = blocking(move || {
            let below = view.path(&path)?;
            let found = find(&view, &below).map_err(|error| path_error(&name, &path, &error))?;
            let stat = path_stat(view.last_name(&path), &found);
            Ok((view, below, stat))
        })
        .await?;
        let entry_name =
            if path.ends_with("/.") || path == "." { ".".to_owned() } else { stat.name.clone() };
        let stream = ArchiveStream::new(move |output| {
            tree::pack(view.fd(), Path::new(&rooted(&path)), entry_name.as_bytes(), output)
                .map_err(|error| io::Error::other(silo_types::error::chain(&error)))
        });
        self.container_event(&container, "archive-path", &[]);
        Ok((stat, stream))
    }

    /// Unpacks a tar stream into a directory of a container.
    pub async fn container_archive_put(
        self: &Arc<Self>,
        name: &str,
        path: &str,
        no_overwrite_dir_non_dir: bool,
        copy_uid_gid: bool,
        input: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<(), Error> {
        let container = self.check_cp(name, path)?;
        let record = container.record();
        let has_accounts = !crate::windows::is(&record);
        let owner = if copy_uid_gid && has_accounts && !record.config.user.is_empty() {
            let user = self.resolve_user(&container, &record, &record.config.user).await?;
            Some((user.uid, user.gid))
        } else {
            None
        };
        let view = self.open_root_to_write(&container).await?;
        let (name, path) = (name.to_owned(), path.to_owned());
        let mut input = tokio_util::io::SyncIoBridge::new(input);
        let work = move |input: &mut (dyn io::Read + Send)| {
            let path = view.path(&path)?;
            let target =
                silo_sys::path::open_in_root(view.fd(), rooted(&path), OFlags::PATH, Mode::empty())
                    .map_err(|error| path_error(&name, &path, &error))?;
            let stat = rustix::fs::fstat(&target)
                .map_err(|error| path_error(&name, &path, &error.into()))?;
            // docker wording
            if !FileType::from_raw_mode(stat.st_mode).is_dir() {
                return Err(Error::invalid("extraction point is not a directory"));
            }
            view.check_writable(&path, &record)?;
            let names = view.names(target.as_fd(), &path)?;
            let names = names.as_ref().map(|names| names as &dyn EntryNames);
            let options = UnpackOptions {
                no_overwrite_dir_non_dir,
                owner,
                names,
                ..UnpackOptions::default()
            };
            tree::unpack_into(view.fd(), Path::new(&rooted(&path)), input, options).map_err(
                |error| {
                    let kind = match error.kind() {
                        ErrorKind::InvalidParameter => ErrorKind::InvalidParameter,
                        _ => ErrorKind::Internal,
                    };
                    Error::new(kind, silo_types::error::chain(&error))
                },
            )
        };
        blocking(move || {
            let outcome = work(&mut input);
            if outcome.is_err() {
                // A client that still sends does not listen.
                drop(io::copy(&mut io::Read::take(input, UNREAD), &mut io::sink()));
            }
            outcome
        })
        .await?;
        self.container_event(&container, "extract-to-dir", &[]);
        Ok(())
    }

    /// The whole root of a container as a tar stream, without its mounts.
    #[expect(clippy::unused_async, reason = "verbs are async, whatever they do today")]
    pub async fn container_export(&self, name: &str) -> Result<ArchiveStream, Error> {
        let container = self.container(name)?;
        let state = container.state().clone();
        // docker wording
        if state.dead {
            return Err(Error::conflict(format!(
                "You cannot export container {} which is Dead",
                container.id
            )));
        }
        if state.removing {
            return Err(Error::conflict(format!(
                "You cannot export container {} which is being removed",
                container.id
            )));
        }
        let root = self.mount_read_only(&container)?;
        let stream = ArchiveStream::new(move |output| {
            tree::export(&root, output)
                .map_err(|error| io::Error::other(silo_types::error::chain(&error)))
        });
        self.container_event(&container, "export", &[]);
        Ok(stream)
    }
}

/// Runs `work` where it may wait for the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal(format!("a task of the engine failed: {error}")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_as_go_has_them() {
        for (mode, go) in [
            (0o100_644, 0o644),
            (0o040_755, (1 << 31) | 0o755),
            (0o120_777, (1 << 27) | 0o777),
            (0o041_777, (1 << 31) | (1 << 20) | 0o777),
            (0o104_755, (1 << 23) | 0o755),
            (0o020_666, (1 << 26) | (1 << 21) | 0o666),
            (0o060_660, (1 << 26) | 0o660),
        ] {
            assert_eq!(go_mode(mode), go, "{mode:o}");
        }
    }
}

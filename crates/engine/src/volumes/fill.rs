//! Filling an empty volume with what the image has at its place, all or nothing.
//!
//! The copy is made in the directory [`COPYING`], where a crash leaves something that is thrown
//! away. A complete one that the disk has is renamed [`COPIED`]: from then on the volume is going
//! to be filled, by whoever comes next if this process does not get to it. What the copy holds
//! moves into the volume entry by entry, which can be repeated. The volume's own directory stays
//! the same, since other containers may have it mounted; what they put there meanwhile is kept.
//!
//! Both directories lie next to `_data`, or inside the volume if that is another file system.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FlockOperation, Mode, RenameFlags};
use rustix::io::Errno;
use silo_sys::path::remove_all_at;

use super::copy_up::{copy_tree, finish, names, open_dir, open_source, times};

/// A copy that is being made.
const COPYING: &str = ".silo-copying";
/// A copy that is complete, until all of it is in the volume.
const COPIED: &str = ".silo-copied";

/// The exclusive lock on a directory that containers cannot reach, held until dropped.
pub(super) fn lock(dir: &Path) -> io::Result<OwnedFd> {
    let dir = open_dir(CWD, dir)?;
    loop {
        match rustix::fs::flock(&dir, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            outcome => return Ok(outcome.map(|()| dir)?),
        }
    }
}

/// Copies the directory `path`, resolved inside `root`, into the directory `volume`, if that is
/// empty; `work` is the directory for what is unfinished. With `durable`, the disk has it when
/// this returns. Nothing happens when the path is no directory. True when the volume was filled.
///
/// Only one may work on a volume at a time.
pub(super) fn fill(
    root: BorrowedFd<'_>,
    path: &Path,
    volume: &Path,
    work: &Path,
    durable: bool,
) -> io::Result<bool> {
    if settle(volume, work)? {
        return Ok(true);
    }
    let Some(source) = open_source(root, path)? else { return Ok(false) };
    let target = open_dir(CWD, volume)?;
    if names(target.as_fd())?.next().is_some() {
        return Ok(false);
    }
    if names(source.as_fd())?.next().is_none() {
        let stat = rustix::fs::fstat(&source)?;
        finish(source.as_fd(), target.as_fd(), &stat)?;
        return Ok(true);
    }
    let work_dir = open_dir(CWD, work)?;
    if let Err(error) = copy_aside(source.as_fd(), work_dir.as_fd(), durable) {
        // It is thrown away by the next one if this fails, as for want of space it does not.
        remove_all_at(&work_dir, COPYING).ok();
        return Err(error);
    }
    settle(volume, work)?;
    if durable {
        rustix::fs::fsync(&target)?;
    }
    Ok(true)
}

fn copy_aside(source: BorrowedFd<'_>, work: BorrowedFd<'_>, durable: bool) -> io::Result<()> {
    rustix::fs::mkdirat(work, COPYING, Mode::RWXU)?;
    let copy = open_dir(work, COPYING)?;
    copy_tree(source, copy.as_fd())?;
    if durable {
        // Far quicker than file by file.
        rustix::fs::syncfs(&copy)?;
    }
    Ok(rustix::fs::renameat(work, COPYING, work, COPIED)?)
}

/// Finishes what a crash cut off: a copy that is complete goes into the volume, any other goes.
/// True when the volume was filled.
pub(super) fn settle(volume: &Path, work: &Path) -> io::Result<bool> {
    let work = open_dir(CWD, work)?;
    remove_all_at(&work, COPYING)?;
    let copy = match open_dir(work.as_fd(), COPIED) {
        Ok(copy) => copy,
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let target = open_dir(CWD, volume)?;
    let stat = rustix::fs::fstat(&copy)?;
    for name in names(copy.as_fd())? {
        let outcome =
            match rustix::fs::renameat_with(&copy, &name, &target, &name, RenameFlags::NOREPLACE) {
                // A file system that cannot tell, such as NFS.
                Err(Errno::INVAL) => rename_if_free(copy.as_fd(), target.as_fd(), &name),
                outcome => outcome,
            };
        match outcome {
            // What another container has put there goes first.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    finish(copy.as_fd(), target.as_fd(), &stat)?;
    remove_all_at(&work, COPIED)?;
    rustix::fs::futimens(&target, &times(&stat))?;
    Ok(true)
}

fn rename_if_free(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &std::ffi::CStr,
) -> rustix::io::Result<()> {
    match rustix::fs::statat(to, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => rustix::fs::renameat(from, name, to, name),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    /// A root, a volume in a directory of its own.
    fn places(dir: &Path) -> (PathBuf, PathBuf, PathBuf) {
        let (root, work) = (dir.join("root"), dir.join("volume"));
        let volume = work.join("_data");
        fs_err::create_dir_all(root.join("data/sub")).unwrap();
        fs_err::create_dir_all(&volume).unwrap();
        (root, work, volume)
    }

    fn entries(path: &Path) -> Vec<String> {
        let name = |entry: fs_err::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<_> = fs_err::read_dir(path).unwrap().map(|e| name(e.unwrap())).collect();
        names.sort();
        names
    }

    #[test]
    fn trees_are_copied_with_what_belongs_to_them() {
        // Next to the volume, and inside it.
        for inside in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (root, work, volume) = places(dir.path());
            fs_err::write(root.join("data/sub/file"), "content").unwrap();
            fs_err::hard_link(root.join("data/sub/file"), root.join("data/again")).unwrap();
            symlink("/etc/passwd", root.join("data/link")).unwrap();
            std::os::unix::fs::chown(root.join("data"), Some(7), Some(8)).unwrap();
            let mode = std::fs::Permissions::from_mode(0o2750);
            fs_err::set_permissions(root.join("data"), mode).unwrap();
            let mtime = fs_err::metadata(root.join("data")).unwrap().mtime_nsec();

            let fd = open_dir(CWD, &root).unwrap();
            let work = if inside { volume.clone() } else { work };
            let fill = || fill(fd.as_fd(), Path::new("/data"), &volume, &work, true).unwrap();
            assert!(fill());
            assert_eq!(entries(&volume), ["again", "link", "sub"]);
            assert_eq!(fs_err::read_to_string(volume.join("sub/file")).unwrap(), "content");
            assert_eq!(fs_err::read_link(volume.join("link")).unwrap(), Path::new("/etc/passwd"));
            let (a, b) = (volume.join("again"), volume.join("sub/file"));
            assert_eq!(fs_err::metadata(a).unwrap().ino(), fs_err::metadata(b).unwrap().ino());
            let meta = fs_err::metadata(&volume).unwrap();
            assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (7, 8, 0o2750));
            assert_eq!(meta.mtime_nsec(), mtime);
            assert!(!fill(), "no longer empty");
        }
    }

    #[test]
    fn links_do_not_lead_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let (root, work, volume) = places(dir.path());
        fs_err::write(root.join("data/mine"), "").unwrap();
        fs_err::create_dir(dir.path().join("secret")).unwrap();
        fs_err::write(dir.path().join("secret/key"), "").unwrap();
        symlink(dir.path().join("secret"), root.join("absolute")).unwrap();
        symlink("../secret", root.join("relative")).unwrap();
        symlink("/data", root.join("good")).unwrap();
        let fd = open_dir(CWD, &root).unwrap();
        let fill = |path: &str| fill(fd.as_fd(), Path::new(path), &volume, &work, false).unwrap();
        for bad in ["absolute", "relative", "missing", "data/mine"] {
            assert!(!fill(bad), "{bad}");
        }
        assert!(fill("good"));
        assert!(volume.join("mine").exists());
    }

    #[test]
    fn what_a_crash_left_is_thrown_away_or_finished() {
        let dir = tempfile::tempdir().unwrap();
        let (root, work, volume) = places(dir.path());
        fs_err::write(root.join("data/file"), "whole").unwrap();
        let fd = open_dir(CWD, &root).unwrap();
        let fill = || fill(fd.as_fd(), Path::new("/data"), &volume, &work, false).unwrap();
        fs_err::create_dir_all(work.join(".silo-copying/sub")).unwrap();
        fs_err::write(work.join(".silo-copying/file"), "ha").unwrap();
        assert!(!settle(&volume, &work).unwrap());
        assert_eq!((entries(&work), entries(&volume)), (vec!["_data".to_owned()], vec![]));
        // Complete, and one entry has been moved; another container has written one as well.
        let copied = work.join(".silo-copied");
        fs_err::create_dir_all(copied.join("sub")).unwrap();
        fs_err::write(copied.join("theirs"), "image").unwrap();
        fs_err::set_permissions(&copied, PermissionsExt::from_mode(0o700)).unwrap();
        fs_err::write(volume.join("file"), "moved").unwrap();
        fs_err::write(volume.join("theirs"), "theirs").unwrap();
        assert!(settle(&volume, &work).unwrap());
        assert_eq!(entries(&work), ["_data"]);
        assert_eq!(entries(&volume), ["file", "sub", "theirs"]);
        assert_eq!(fs_err::read_to_string(volume.join("theirs")).unwrap(), "theirs");
        assert_eq!(fs_err::metadata(&volume).unwrap().mode() & 0o777, 0o700);
        assert!(!fill(), "not empty");
    }

    #[test]
    fn a_copy_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (root, work, volume) = places(dir.path());
        let mut deep = open_dir(CWD, root.join("data")).unwrap();
        for _ in 0..140 {
            rustix::fs::mkdirat(&deep, c"d", Mode::RWXU).unwrap();
            deep = open_dir(deep.as_fd(), c"d").unwrap();
        }
        let fd = open_dir(CWD, &root).unwrap();
        fill(fd.as_fd(), Path::new("/data"), &volume, &work, false).unwrap_err();
        assert_eq!((entries(&work), entries(&volume)), (vec!["_data".to_owned()], vec![]));
        remove_all_at(&fd, "data").unwrap();
    }
}

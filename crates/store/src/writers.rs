//! Threads that write small files while the archive is parsed on.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::{Gid, Mode, OFlags, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use silo_archive::{Entry, Time};

use crate::Error;
use crate::lease::lock;
use crate::tree::Observer;

/// Bytes of file data that one batch gathers.
const BATCH_BYTES: usize = 256 << 10;
/// Files that one batch gathers.
const BATCH_FILES: usize = 128;
/// Batches that may wait.
const QUEUE: usize = 4;

/// Owner, mode, time and attributes of what is extracted.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Metadata {
    pub(crate) fn of(entry: &mut Entry, owner: Option<(u32, u32)>) -> Self {
        let (uid, gid) = owner.unwrap_or((entry.uid, entry.gid));
        let xattrs = std::mem::take(&mut entry.xattrs);
        Self { mode: entry.mode, uid, gid, mtime: entry.mtime, xattrs }
    }

    /// Whether what is new in `parent` belongs to whom it should.
    fn is_owned(&self, parent: &Directory, us: Us) -> bool {
        self.uid == us.uid && self.gid == us.gid && !parent.inherits_group
    }

    /// Whether what was made with the mode's lower nine bits has all of it.
    fn has_mode(&self, us: Us) -> bool {
        self.mode & (us.umask | 0o7000) == 0
    }

    /// Whether a new directory in `parent` has all this, but for its time.
    pub(crate) fn is_as_created(&self, parent: &Directory, us: Us) -> bool {
        self.is_owned(parent, us) && self.has_mode(us) && self.xattrs.is_empty()
    }
}

/// A directory that files are made in.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) fd: OwnedFd,
    pub(crate) inode: u64,
    pub(crate) device: u64,
    /// New entries take the directory's group instead of ours.
    pub(crate) inherits_group: bool,
}

impl Directory {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&fd)?;
        let inherits_group = stat.st_mode & 0o2000 != 0;
        Ok(Self { fd, inode: stat.st_ino, device: stat.st_dev, inherits_group })
    }
}

/// A file to be written.
#[derive(Debug)]
struct Job {
    parent: Arc<Directory>,
    name: OsString,
    metadata: Metadata,
    data: Range<usize>,
}

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    jobs: Vec<Job>,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Batch>,
    spare: Vec<Batch>,
    busy: usize,
    closed: bool,
    failure: Option<Error>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// A batch came, or the end.
    work: Condvar,
    /// A batch was taken or done.
    progress: Condvar,
}

/// Who we are, which new files belong to without further ado.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Us {
    uid: u32,
    gid: u32,
    umask: u32,
}

impl Us {
    pub(crate) fn new() -> Self {
        // The mask can only be read by setting it, which is not for a thread among others.
        let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
        let umask = status
            .lines()
            .find_map(|line| line.strip_prefix("Umask:"))
            .and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok())
            .unwrap_or(0o777);
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Self { uid: uid.as_raw(), gid: gid.as_raw(), umask }
    }
}

/// The threads, and the batch that is being gathered.
#[derive(Debug)]
pub(crate) struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    batch: Batch,
}

impl Writers {
    /// Starts `count` threads; with 0 the caller writes.
    /// `observer` hears of the files.
    pub(crate) fn new(count: usize, us: Us, observer: Option<Arc<dyn Observer>>) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..count)
            .filter_map(|_| {
                let shared = Arc::clone(&shared);
                let observer = observer.clone();
                let builder = std::thread::Builder::new().name("unpack".into());
                builder.spawn(move || serve(&shared, us, observer.as_ref())).ok()
            })
            .collect();
        Self { shared, threads, batch: Batch::default() }
    }

    /// Whether there are threads.
    pub(crate) fn is_parallel(&self) -> bool {
        !self.threads.is_empty()
    }

    /// Adds a file whose bytes `fill` appends to the buffer that it is given.
    pub(crate) fn add(
        &mut self,
        parent: &Arc<Directory>,
        name: OsString,
        metadata: Metadata,
        fill: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> Result<io::Result<()>, Error> {
        let start = self.batch.bytes.len();
        if let Err(error) = fill(&mut self.batch.bytes) {
            return Ok(Err(error));
        }
        let data = start..self.batch.bytes.len();
        self.batch.jobs.push(Job { parent: Arc::clone(parent), name, metadata, data });
        if self.batch.bytes.len() >= BATCH_BYTES || self.batch.jobs.len() >= BATCH_FILES {
            self.submit()?;
        }
        Ok(Ok(()))
    }

    fn submit(&mut self) -> Result<(), Error> {
        let mut queue = lock(&self.shared.queue);
        while queue.batches.len() >= QUEUE && queue.failure.is_none() {
            queue = self.shared.progress.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(error) = queue.failure.take() {
            return Err(error);
        }
        let spare = queue.spare.pop().unwrap_or_default();
        queue.batches.push_back(std::mem::replace(&mut self.batch, spare));
        drop(queue);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Waits until every file that was added is written.
    pub(crate) fn barrier(&mut self) -> Result<(), Error> {
        if !self.batch.jobs.is_empty() {
            self.submit()?;
        }
        let mut queue = lock(&self.shared.queue);
        while (queue.busy > 0 || !queue.batches.is_empty()) && queue.failure.is_none() {
            queue = self.shared.progress.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.failure.take().map_or(Ok(()), Err)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue);
        queue.closed = true;
        queue.batches.clear();
        drop(queue);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A panic in a writer has been printed by itself.
            drop(thread.join());
        }
    }
}

fn serve(shared: &Shared, us: Us, observer: Option<&Arc<dyn Observer>>) {
    let mut queue = lock(&shared.queue);
    loop {
        let Some(mut batch) = queue.batches.pop_front() else {
            if queue.closed {
                return;
            }
            queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        queue.busy += 1;
        drop(queue);
        shared.progress.notify_all();
        let result = batch.jobs.drain(..).try_for_each(|job| {
            write_file(&job, &batch.bytes[job.data.clone()], us, observer)
                .map_err(|(operation, source)| extract(job.name.as_bytes(), operation, source))
        });
        batch.bytes.clear();
        queue = lock(&shared.queue);
        queue.busy -= 1;
        queue.spare.push(batch);
        if let Err(error) = result {
            queue.failure.get_or_insert(error);
            queue.batches.clear();
        }
        shared.progress.notify_all();
    }
}

/// The error for a failed system call on an entry.
pub(crate) fn extract(path: &[u8], operation: &'static str, source: io::Error) -> Error {
    Error::Extract { path: String::from_utf8_lossy(path).into_owned(), operation, source }
}

/// A step of the extraction of one entry: the operation and its failure.
pub(crate) type Step<T> = Result<T, (&'static str, io::Error)>;

/// Names the operation that failed.
pub(crate) fn step<T, E: Into<io::Error>>(
    operation: &'static str,
    result: Result<T, E>,
) -> Step<T> {
    result.map_err(|error| (operation, error.into()))
}

/// Makes a file that does not exist yet, with all its bytes.
fn write_file(job: &Job, bytes: &[u8], us: Us, observer: Option<&Arc<dyn Observer>>) -> Step<()> {
    let file = create_file(&job.parent, &job.name, &job.metadata)?;
    step("write", write_all(file.as_fd(), bytes))?;
    finish_file(&file, &job.parent, &job.metadata, us)?;
    let observer = observer.filter(|_| job.metadata.xattrs.is_empty());
    tell(observer, &file, observer.map(|_| Sha256::new_with_prefix(bytes)))
}

/// Tells of a file that is complete.
pub(crate) fn tell(
    observer: Option<&Arc<dyn Observer>>,
    file: &OwnedFd,
    hash: Option<Sha256>,
) -> Step<()> {
    if let (Some(observer), Some(hash)) = (observer, hash) {
        let stat = step("look at", rustix::fs::fstat(file))?;
        observer.file(&stat, hash.finalize().into());
    }
    Ok(())
}

/// Opens a new file for writing.
pub(crate) fn create_file(
    parent: &Directory,
    name: &OsString,
    metadata: &Metadata,
) -> Step<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(metadata.mode & 0o777);
    step("create", rustix::fs::openat(&parent.fd, name, flags, mode))
}

pub(crate) fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Sets what a file's creation did not set, in the order in which nothing is lost: changing
/// the owner clears set-user-id and capabilities.
pub(crate) fn finish_file(
    file: &OwnedFd,
    parent: &Directory,
    metadata: &Metadata,
    us: Us,
) -> Step<()> {
    if !metadata.is_owned(parent, us) {
        let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
        step("chown", rustix::fs::fchown(file, Some(uid), Some(gid)))?;
    }
    for (name, value) in &metadata.xattrs {
        xattr_result(rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()))?;
    }
    if !metadata.has_mode(us) {
        let mode = Mode::from_raw_mode(metadata.mode & 0o7777);
        step("chmod", rustix::fs::fchmod(file, mode))?;
    }
    step("set the time of", rustix::fs::futimens(file, &times(metadata.mtime)))
}

/// Attributes that the file system does not have are left out, as Docker does.
pub(crate) fn xattr_result(result: Result<(), Errno>) -> Step<()> {
    match result {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        Err(error) => Err(("set an extended attribute of", error.into())),
    }
}

pub(crate) fn times(time: Time) -> Timestamps {
    let time = rustix::fs::Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets owner, attributes and mode of a directory, device or pipe through a descriptor that
/// cannot do so itself (`O_PATH`).
pub(crate) fn finish_node(node: BorrowedFd<'_>, metadata: &Metadata) -> Step<()> {
    let name = format!("/proc/self/fd/{}", node.as_raw_fd());
    let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
    step("chown", rustix::fs::chown(&*name, Some(uid), Some(gid)))?;
    for (attribute, value) in &metadata.xattrs {
        let empty = XattrFlags::empty();
        xattr_result(rustix::fs::setxattr(&*name, &attribute[..], value, empty))?;
    }
    let mode = Mode::from_raw_mode(metadata.mode & 0o7777);
    step("chmod", rustix::fs::chmod(&*name, mode))
}

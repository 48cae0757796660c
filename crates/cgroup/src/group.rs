//! The hierarchies of the machine, and one group in them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, Mode as FileMode, OFlags};
use rustix::io::Errno;

use crate::controller::{Controller, Controllers};
use crate::error::Error;
use crate::files;
use crate::hierarchy::{self, Found, Hierarchy, Version};
use crate::path::CgroupPath;

/// What every container gets a group for, because statistics, pausing, killing and device rules
/// need one. The others (processor sets, huge pages, networks) get one when they are limited.
const ALWAYS: Controllers = Controllers::of(&[
    Controller::Cpu,
    Controller::Cpuacct,
    Controller::Memory,
    Controller::Devices,
    Controller::Freezer,
    Controller::Blkio,
    Controller::Pids,
]);

/// Which versions of control groups a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Version 1 alone.
    Legacy,
    /// Version 1 with a hierarchy of version 2 beside.
    Hybrid,
    /// Version 2 alone.
    Unified,
}

/// The hierarchies of the machine. Cheap to clone; every clone shares the open directories.
#[derive(Debug, Clone)]
pub struct Cgroups {
    hierarchies: Arc<[Hierarchy]>,
}

impl Cgroups {
    /// Finds and opens what is mounted.
    ///
    /// # Errors
    ///
    /// If procfs cannot be read, or nothing is mounted.
    pub fn detect() -> Result<Self, Error> {
        let proc = |path: &str| {
            fs_err::read(path).map_err(|source| Error::Proc { path: path.into(), source })
        };
        let mountinfo = proc("/proc/self/mountinfo")?;
        let own = proc("/proc/self/cgroup")?;
        Self::open_all(hierarchy::parse(&mountinfo, &String::from_utf8_lossy(&own)))
    }

    pub(crate) fn open_all(found: Vec<Found>) -> Result<Self, Error> {
        let alone = found.iter().all(|found| found.version == Version::V2);
        let hierarchies: Result<Vec<_>, _> =
            found.into_iter().map(|found| Hierarchy::open(found, alone)).collect();
        let hierarchies = hierarchies?;
        if hierarchies.is_empty() {
            return Err(Error::NotMounted);
        }
        Ok(Self { hierarchies: hierarchies.into() })
    }

    /// Which versions there are.
    pub fn mode(&self) -> Mode {
        let has = |version| self.hierarchies.iter().any(|hierarchy| hierarchy.version == version);
        match (has(Version::V1), has(Version::V2)) {
            (true, true) => Mode::Hybrid,
            (true, false) => Mode::Legacy,
            (false, _) => Mode::Unified,
        }
    }

    /// What Docker calls the version: "1" unless version 2 is alone.
    pub fn docker_version(&self) -> &'static str {
        if self.mode() == Mode::Unified { "2" } else { "1" }
    }

    /// Every controller of some hierarchy.
    pub fn controllers(&self) -> Controllers {
        self.hierarchies
            .iter()
            .fold(Controllers::default(), |set, hierarchy| set.union(hierarchy.controllers))
    }

    /// Whether swap can be limited.
    pub fn limits_swap(&self) -> bool {
        self.hierarchies
            .iter()
            .filter(|hierarchy| hierarchy.controllers.contains(Controller::Memory))
            .any(|hierarchy| {
                let file = match hierarchy.version {
                    Version::V1 => "memory.memsw.limit_in_bytes".to_owned(),
                    // The root of version 2 has no limits; this process's own group has.
                    Version::V2 => format!("{}/memory.swap.max", hierarchy.own),
                };
                let file = file.trim_start_matches('/');
                rustix::fs::accessat(
                    hierarchy.root(),
                    file,
                    rustix::fs::Access::EXISTS,
                    AtFlags::empty(),
                )
                .is_ok()
            })
    }

    /// Makes a group, without limits. Parents are made as needed. A group that was left behind
    /// empty is made anew.
    ///
    /// # Errors
    ///
    /// If a group of this path has processes or children, or no hierarchy is writable.
    pub fn create(&self, path: &CgroupPath) -> Result<Cgroup, Error> {
        let group = self.group(path);
        let mut made = false;
        let result = (|| {
            for (at, hierarchy) in self.hierarchies.iter().enumerate() {
                if hierarchy.controllers.meets(ALWAYS) || self.mode() == Mode::Unified {
                    made |= group.make(at, Fresh::Yes)?;
                }
            }
            if made { Ok(()) } else { Err(Error::NotWritable) }
        })();
        match result {
            Ok(()) => Ok(group),
            Err(error) => {
                // The first error is the one to report.
                drop(group.remove_made());
                Err(error)
            }
        }
    }

    /// Opens a group that exists in at least one hierarchy.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is none.
    pub fn open(&self, path: &CgroupPath) -> Result<Cgroup, Error> {
        let group = self.group(path);
        let mut found = false;
        for (at, hierarchy) in self.hierarchies.iter().enumerate() {
            match group.open_directory(hierarchy) {
                Ok(directory) => {
                    found = true;
                    group.keep(at, directory);
                }
                Err(Errno::NOENT) => {}
                Err(error) => {
                    let path = group.directory_path(at);
                    return Err(Error::Open { path, source: error.into() });
                }
            }
        }
        if found { Ok(group) } else { Err(Error::NotFound(path.to_string())) }
    }

    fn group(&self, path: &CgroupPath) -> Cgroup {
        Cgroup {
            hierarchies: Arc::clone(&self.hierarchies),
            path: path.clone(),
            directories: self.hierarchies.iter().map(|_| OnceLock::new()).collect(),
        }
    }
}

/// Whether a directory that exists already may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fresh {
    /// It is removed and made anew.
    Yes,
    No,
}

/// One group: a directory in each hierarchy where it was wanted, held open.
#[derive(Debug)]
pub struct Cgroup {
    hierarchies: Arc<[Hierarchy]>,
    path: CgroupPath,
    /// One for each hierarchy, set where the group exists.
    directories: Box<[OnceLock<OwnedFd>]>,
}

impl Cgroup {
    /// The path that the group was made or opened with.
    pub fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// The descriptor to give to clone3(2) with `CLONE_INTO_CGROUP`: the group's directory, if
    /// version 2 is all there is. Then [`Self::entrance`] is empty.
    pub fn fd_for_clone_into(&self) -> Option<BorrowedFd<'_>> {
        match (&*self.hierarchies, &*self.directories) {
            ([hierarchy], [directory]) if hierarchy.version == Version::V2 => {
                directory.get().map(AsFd::as_fd)
            }
            _ => None,
        }
    }

    /// Opens what a process needs to enter the group by itself.
    ///
    /// # Errors
    ///
    /// If a file cannot be opened for writing.
    pub fn entrance(&self) -> Result<Entrance, Error> {
        let mut files = Vec::with_capacity(self.directories.len());
        if self.fd_for_clone_into().is_none() {
            for (at, directory) in self.present() {
                let name = match self.hierarchies[at].version {
                    Version::V1 => "tasks",
                    Version::V2 => "cgroup.procs",
                };
                let flags = OFlags::WRONLY | OFlags::CLOEXEC;
                let file = rustix::fs::openat(directory, name, flags, FileMode::empty()).map_err(
                    |error| Error::Open {
                        path: self.directory_path(at).join(name),
                        source: error.into(),
                    },
                )?;
                files.push(file);
            }
        }
        Ok(Entrance { files })
    }

    /// Moves a process with all its threads into the group. With version 1 this may wait for
    /// several milliseconds; a process that starts in the group uses [`Self::entrance`] or
    /// [`Self::fd_for_clone_into`].
    ///
    /// # Errors
    ///
    /// If the process is gone or a hierarchy refuses it.
    pub fn add(&self, pid: i32) -> Result<(), Error> {
        for (at, directory) in self.present() {
            self.write_in(at, directory, "cgroup.procs", &pid.to_string())?;
        }
        Ok(())
    }

    /// The processes of the group and of those below it, in no particular order. Ids are those
    /// of this process's PID namespace; processes outside of it are left out.
    ///
    /// # Errors
    ///
    /// If a list cannot be read. A group that vanishes meanwhile has no processes.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        let mut pids = Vec::new();
        let preferred = [Controller::Pids, Controller::Freezer, Controller::Memory];
        let chosen = preferred
            .into_iter()
            .find_map(|controller| self.find(controller))
            .or_else(|| self.present().next());
        if let Some((at, directory)) = chosen {
            self.pids_in(at, directory, &mut pids)?;
            pids.sort_unstable();
            pids.dedup();
        }
        Ok(pids)
    }

    /// The processes below one directory.
    pub(crate) fn pids_in(
        &self,
        at: usize,
        directory: BorrowedFd<'_>,
        pids: &mut Vec<i32>,
    ) -> Result<(), Error> {
        let error = |source| self.read_error(at, "cgroup.procs", source);
        each_group(directory, 0, &mut |group| {
            match files::read(group, "cgroup.procs") {
                Ok(text) => pids.extend(
                    text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|&pid| pid > 0),
                ),
                Err(error) if vanished(&error) => {}
                Err(error) => return Err(error),
            }
            Ok(())
        })
        .map_err(error)
    }

    /// The hierarchies in which the group exists.
    pub(crate) fn present(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.directories
            .iter()
            .enumerate()
            .filter_map(|(at, directory)| Some((at, directory.get()?.as_fd())))
    }

    /// The group's directory in the hierarchy of a controller, if it exists there.
    pub(crate) fn find(&self, controller: Controller) -> Option<(usize, BorrowedFd<'_>)> {
        let at = self.hierarchy_of(controller)?;
        Some((at, self.directories[at].get()?.as_fd()))
    }

    /// The hierarchy of a controller; version 1 comes before version 2.
    pub(crate) fn hierarchy_of(&self, controller: Controller) -> Option<usize> {
        let has = |version| {
            self.hierarchies.iter().position(|hierarchy| {
                hierarchy.version == version && hierarchy.controllers.contains(controller)
            })
        };
        has(Version::V1).or_else(|| has(Version::V2))
    }

    /// The one hierarchy of version 2.
    pub(crate) fn unified(&self) -> Option<usize> {
        self.hierarchies.iter().position(|hierarchy| hierarchy.version == Version::V2)
    }

    pub(crate) fn version(&self, at: usize) -> Version {
        self.hierarchies[at].version
    }

    /// The group's directory in the hierarchy of a controller, made there if it does not exist.
    /// Processes of the group are then moved into it.
    pub(crate) fn ensure(
        &self,
        controller: Controller,
        setting: &str,
    ) -> Result<(usize, BorrowedFd<'_>), Error> {
        let missing = || Error::NoController { setting: setting.to_owned(), controller };
        let at = self.hierarchy_of(controller).ok_or_else(missing)?;
        self.ensure_at(at)?.map(|directory| (at, directory)).ok_or_else(missing)
    }

    /// As [`Self::ensure`], in a given hierarchy; `None` if it is not writable.
    pub(crate) fn ensure_at(&self, at: usize) -> Result<Option<BorrowedFd<'_>>, Error> {
        if self.directories[at].get().is_none() {
            let pids = self.pids()?;
            if !self.make(at, Fresh::No)? {
                return Ok(None);
            }
            self.gather(at, pids)?;
        }
        Ok(self.directories[at].get().map(AsFd::as_fd))
    }

    /// Moves the group's processes into a directory of it that was made later. Processes that
    /// are born while this runs are found by looking again until none is new.
    fn gather(&self, at: usize, mut pids: Vec<i32>) -> Result<(), Error> {
        let mut moved = Vec::new();
        while !pids.is_empty() {
            let Some(directory) = self.directories[at].get() else { return Ok(()) };
            for &pid in &pids {
                match files::write(directory.as_fd(), "cgroup.procs", &pid.to_string()) {
                    Ok(()) => {}
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    Err(source) => {
                        return Err(self.write_error(at, "cgroup.procs", &pid.to_string(), source));
                    }
                }
            }
            moved.extend(pids);
            pids = self.pids()?.into_iter().filter(|pid| !moved.contains(pid)).collect();
        }
        Ok(())
    }

    /// Makes and opens the directory in one hierarchy. `false` if the hierarchy is not ours to
    /// write to.
    fn make(&self, at: usize, fresh: Fresh) -> Result<bool, Error> {
        let hierarchy = &self.hierarchies[at];
        let path = self.path.below_root(&hierarchy.own);
        let create =
            |error: Errno| Error::Create { path: self.directory_path(at), source: error.into() };
        let mode = FileMode::from_raw_mode(0o755);
        let mut made = rustix::fs::mkdirat(hierarchy.root(), &*path, mode);
        // Again where an engine that ends has just removed the parent.
        for _ in 0..3 {
            if made != Err(Errno::NOENT) {
                break;
            }
            made = make_parents(hierarchy, &path)
                .and_then(|()| rustix::fs::mkdirat(hierarchy.root(), &*path, mode));
        }
        if made == Err(Errno::EXIST) && fresh == Fresh::Yes {
            match rustix::fs::unlinkat(hierarchy.root(), &*path, AtFlags::REMOVEDIR) {
                Err(Errno::BUSY | Errno::NOTEMPTY) => {
                    return Err(Error::InUse(self.directory_path(at)));
                }
                _ => made = rustix::fs::mkdirat(hierarchy.root(), &*path, mode),
            }
        }
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => return Ok(false),
            Err(error) => return Err(create(error)),
        }
        let directory = self.open_directory(hierarchy).map_err(create)?;
        match hierarchy.version {
            Version::V1 if hierarchy.controllers.contains(Controller::Cpuset) => {
                inherit_cpuset(hierarchy, &path)
                    .map_err(|source| self.write_error(at, "cpuset.cpus", "", source))?;
            }
            Version::V2 => enable_controllers(hierarchy, &path),
            Version::V1 => {}
        }
        self.keep(at, directory);
        Ok(true)
    }

    fn open_directory(&self, hierarchy: &Hierarchy) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let path = self.path.below_root(&hierarchy.own);
        rustix::fs::openat(hierarchy.root(), &*path, flags, FileMode::empty())
    }

    fn keep(&self, at: usize, directory: OwnedFd) {
        // If another thread was first, its descriptor is as good.
        drop(self.directories[at].set(directory));
    }

    /// The absolute path of the group in one hierarchy, for messages.
    pub(crate) fn directory_path(&self, at: usize) -> PathBuf {
        let hierarchy = &self.hierarchies[at];
        hierarchy.mount.join(self.path.below_root(&hierarchy.own))
    }

    pub(crate) fn parent(&self, at: usize) -> (&Hierarchy, String) {
        let hierarchy = &self.hierarchies[at];
        (hierarchy, self.path.below_root(&hierarchy.own))
    }

    pub(crate) fn read_in(
        &self,
        at: usize,
        directory: BorrowedFd<'_>,
        name: &str,
    ) -> Result<String, Error> {
        files::read(directory, name).map_err(|source| self.read_error(at, name, source))
    }

    pub(crate) fn write_in(
        &self,
        at: usize,
        directory: BorrowedFd<'_>,
        name: &str,
        value: &str,
    ) -> Result<(), Error> {
        files::write(directory, name, value)
            .map_err(|source| self.write_error(at, name, value, source))
    }

    pub(crate) fn read_error(&self, at: usize, name: &str, source: io::Error) -> Error {
        Error::Read { path: self.directory_path(at).join(name), source }
    }

    pub(crate) fn write_error(
        &self,
        at: usize,
        name: &str,
        value: &str,
        source: io::Error,
    ) -> Error {
        Error::Write { path: self.directory_path(at).join(name), value: value.to_owned(), source }
    }
}

/// Files through which a process enters a group by itself.
///
/// A process that moves another one takes a lock which, after an idle moment, waits for an RCU
/// grace period of about ten milliseconds. A single thread that moves itself does not.
#[derive(Debug)]
pub struct Entrance {
    files: Vec<OwnedFd>,
}

impl Entrance {
    /// Moves the calling thread, which must be the only one of its process, into the group. To
    /// be called before a new cgroup namespace is made, so that the group is its root. Makes
    /// only system calls: it is safe between clone and exec.
    ///
    /// # Errors
    ///
    /// The error of the first hierarchy that refuses.
    pub fn enter(&self) -> io::Result<()> {
        for file in &self.files {
            rustix::io::write(file, b"0")?;
        }
        Ok(())
    }

    /// Whether there is nothing to enter, as after `CLONE_INTO_CGROUP`.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// How deep groups below a container's are looked for. The kernel allows more, by default, but
/// every level costs the walk a descriptor.
const DEPTH: usize = 64;

/// Calls `visit` for a directory after all directories below it.
pub(crate) fn each_group(
    directory: BorrowedFd<'_>,
    depth: usize,
    visit: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<()> {
    if depth < DEPTH {
        for name in children(directory)? {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            match rustix::fs::openat(directory, &*name, flags, FileMode::empty()) {
                Ok(child) => each_group(child.as_fd(), depth + 1, visit)?,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    visit(directory)
}

/// The names of the groups directly below one.
pub(crate) fn children(directory: BorrowedFd<'_>) -> io::Result<Vec<std::ffi::CString>> {
    // A group without children has two links. Anything but that may have some: not all file
    // systems count.
    if rustix::fs::fstat(directory)?.st_nlink == 2 {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    let entries = match rustix::fs::Dir::read_from(directory) {
        Err(Errno::NOENT) => return Ok(names),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type().is_dir() && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Whether an operation failed because the group is no more.
pub(crate) fn vanished(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Makes the parents of a group, each ready for children.
fn make_parents(hierarchy: &Hierarchy, path: &str) -> Result<(), Errno> {
    for (at, _) in path.match_indices('/') {
        match rustix::fs::mkdirat(hierarchy.root(), &path[..at], FileMode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives a group of version 1, and its parents, the processors and memory nodes of the group
/// above where they have none. Without any it takes no process.
fn inherit_cpuset(hierarchy: &Hierarchy, path: &str) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut value = files::read(hierarchy.root(), file)?;
        for at in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
            let name = format!("{}/{file}", &path[..at]);
            let own = files::read(hierarchy.root(), &name)?;
            if own.trim().is_empty() {
                files::write(hierarchy.root(), &name, value.trim())?;
            } else {
                value = own;
            }
        }
    }
    Ok(())
}

/// Passes every controller that Silo uses down to a group of version 2. What cannot be passed
/// is not an error here: a limit that needs it will say so.
fn enable_controllers(hierarchy: &Hierarchy, path: &str) {
    let parent = path.rfind('/').map_or("", |at| &path[..at]);
    let file = |directory: &str| {
        if directory.is_empty() {
            "cgroup.subtree_control".to_owned()
        } else {
            format!("{directory}/cgroup.subtree_control")
        }
    };
    let missing = |directory: &str| {
        let text = files::read(hierarchy.root(), &file(directory)).unwrap_or_default();
        let enabled = hierarchy::v2_controllers(&text);
        let missing: Vec<&str> = hierarchy
            .controllers
            .iter()
            .filter(|&controller| !enabled.contains(controller))
            .filter_map(Controller::v2_name)
            .collect();
        missing
    };
    if missing(parent).is_empty() {
        return;
    }
    let levels = std::iter::once("").chain(path.match_indices('/').map(|(at, _)| &path[..at]));
    for directory in levels {
        let missing = missing(directory);
        let all: Vec<String> = missing.iter().map(|name| format!("+{name}")).collect();
        if all.is_empty()
            || files::write(hierarchy.root(), &file(directory), &all.join(" ")).is_ok()
        {
            continue;
        }
        // One that cannot be enabled must not hold up the others.
        for one in all {
            drop(files::write(hierarchy.root(), &file(directory), &one));
        }
    }
}

impl Cgroup {
    /// Removes what was made so far of a group that cannot be made whole.
    fn remove_made(&self) -> io::Result<()> {
        for (at, _) in self.present() {
            let (hierarchy, path) = self.parent(at);
            rustix::fs::unlinkat(hierarchy.root(), Path::new(&path), AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }
}

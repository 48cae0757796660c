//! Mounts as descriptors: fsopen(2), fsmount(2), open_tree(2), mount_setattr(2), move_mount(2).
//!
//! A mount that these functions make is *detached*: no mount namespace has it and no path
//! leads to it until it is attached with [`attach`]; it goes away with its last descriptor.
#![expect(unsafe_code, reason = "mount_setattr(2) is not in rustix")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use rustix::thread::LinkNameSpaceType;

/// `CLONE_FS`: a root and working directory of the thread's own, as setns(2) wants for mounts.
const FS: u64 = 0x200;

/// The longest value that fsconfig(2) takes as a string, without its end.
const STRING_MAX: usize = 255;

/// How a mount passes on mounts that are made in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// To and from nowhere.
    Private,
    /// To and from its peers.
    Shared,
    /// From its former peers only.
    Slave,
    /// As private, and it cannot be bound.
    Unbindable,
}

/// The attributes of a mount (not of its file system).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountAttr {
    /// Attributes to set.
    pub set: MountAttrFlags,
    /// Attributes to clear; applied before those to set.
    pub clear: MountAttrFlags,
    /// The propagation, left as it is when absent.
    pub propagation: Option<Propagation>,
}

impl Default for MountAttr {
    fn default() -> Self {
        Self { set: MountAttrFlags::empty(), clear: MountAttrFlags::empty(), propagation: None }
    }
}

impl MountAttr {
    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn raw_set_attr(
    at: BorrowedFd<'_>,
    path: &CStr,
    flags: i32,
    attr: &libc::mount_attr,
) -> io::Result<()> {
    // SAFETY: `path` ends with NUL, `attr` is a live structure of the size that is passed, and
    // the call neither writes to it nor keeps either pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn to_raw(attr: MountAttr, userns: u64) -> libc::mount_attr {
    // The access-time attributes are an enumeration in a mask: to set one, clear the mask.
    let atime = MountAttrFlags::MOUNT_ATTR__ATIME;
    let mut clear = attr.clear;
    if attr.set.intersects(atime) || attr.clear.intersects(atime) {
        clear |= atime;
    }
    let propagation = match attr.propagation {
        None => 0,
        Some(Propagation::Private) => libc::MS_PRIVATE,
        Some(Propagation::Shared) => libc::MS_SHARED,
        Some(Propagation::Slave) => libc::MS_SLAVE,
        Some(Propagation::Unbindable) => libc::MS_UNBINDABLE,
    };
    libc::mount_attr {
        attr_set: u64::from(attr.set.bits()),
        attr_clr: u64::from(clear.bits()),
        propagation,
        userns_fd: userns,
    }
}

/// Changes the attributes of the mount that `fd` refers to, and with `recursive` of all mounts
/// beneath it: all of them or none.
pub fn set_attr(fd: impl AsFd, attr: MountAttr, recursive: bool) -> io::Result<()> {
    if attr.is_empty() {
        return Ok(());
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    raw_set_attr(fd.as_fd(), c"", flags, &to_raw(attr, 0))
}

/// Changes the propagation of the whole tree of mounts that the caller sees.
pub fn set_propagation_of_all(propagation: Propagation) -> io::Result<()> {
    let attr = MountAttr { propagation: Some(propagation), ..MountAttr::default() };
    raw_set_attr(CWD, c"/", libc::AT_RECURSIVE, &to_raw(attr, 0))
}

/// Maps the owners of files in a detached mount as the user namespace `userns` does.
pub fn set_idmap(fd: impl AsFd, userns: impl AsFd, recursive: bool) -> io::Result<()> {
    let attr = MountAttr { set: MountAttrFlags::MOUNT_ATTR_IDMAP, ..MountAttr::default() };
    let userns = u64::try_from(userns.as_fd().as_raw_fd())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    raw_set_attr(fd.as_fd(), c"", flags, &to_raw(attr, userns))
}

/// A detached copy of the mount at `path`, beginning at `path`; with `recursive` also of the
/// mounts beneath. Follows links.
pub fn bind_clone(path: impl AsRef<Path>, recursive: bool) -> io::Result<OwnedFd> {
    open_tree(CWD, path.as_ref(), recursive, OpenTreeFlags::empty())
}

/// As [`bind_clone`], of what `fd` refers to.
pub fn bind_clone_fd(fd: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    open_tree(fd.as_fd(), Path::new(""), recursive, OpenTreeFlags::AT_EMPTY_PATH)
}

/// A tree of mounts that no process lives in. It lasts as long as the value.
#[derive(Debug)]
pub struct Composed {
    /// The root, from where everything beneath can be reached.
    pub root: OwnedFd,
    /// Keeps the mount namespace.
    _namespace: OwnedFd,
}

/// Puts detached mounts together in a mount namespace of their own: `root`, and in it `beneath`,
/// in that order. Directories and files that are missing in the root are made; what cannot be
/// attached is left out.
///
/// Before Linux 6.15 a detached mount cannot have others beneath it, so a thread makes a
/// namespace and leaves it to a descriptor.
pub fn compose(root: OwnedFd, beneath: Vec<(PathBuf, OwnedFd)>) -> io::Result<Composed> {
    let compose = move || {
        crate::namespace::unshare(FS | crate::process::NEW_MOUNT)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = rustix::fs::open("/proc/thread-self/ns/mnt", flags, Mode::empty())?;
        set_propagation_of_all(Propagation::Private)?;
        attach_at(&root, "/")?;
        rustix::process::fchdir(&root)?;
        // Otherwise the tree would keep what the host unmounts busy. A host whose root is a RAM
        // disk cannot do without it.
        if rustix::process::pivot_root(c".", c".").is_ok() {
            detach_cwd()?;
        }
        for (place, mount) in beneath {
            let private =
                MountAttr { propagation: Some(Propagation::Private), ..MountAttr::default() };
            let attached = set_attr(&mount, private, true)
                .and_then(|()| target(&root, &place, &mount))
                .and_then(|target| attach(&mount, target));
            // Its place may be a link to nothing, or on a mount that is read-only.
            drop(attached);
        }
        Ok(Composed { root, _namespace: namespace })
    };
    in_thread(compose)
}

/// What a mount is to be attached at: a directory or a file, as it is one itself.
fn target(root: &OwnedFd, place: &Path, mount: &OwnedFd) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(0o755);
    if FileType::from_raw_mode(rustix::fs::fstat(mount)?.st_mode).is_dir() {
        return crate::path::mkdir_all_in_root(root, place, mode);
    }
    match crate::path::open_in_root(root, place, OFlags::PATH, Mode::empty()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    if let Some(parent) = place.parent() {
        crate::path::mkdir_all_in_root(root, parent, mode)?;
    }
    crate::path::open_in_root(root, place, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, mode)
}

/// As [`bind_clone`], of a directory in another mount namespace, as seen from its root. A link
/// in the path is an error.
///
/// The kernel copies only what is in the caller's own namespace, so a thread goes there.
pub fn bind_clone_in(namespace: OwnedFd, path: PathBuf) -> io::Result<OwnedFd> {
    let clone = move || {
        crate::namespace::unshare(FS)?;
        crate::namespace::join(&namespace, LinkNameSpaceType::Mount)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = crate::path::open_root("/")?;
        let place = crate::path::open_in_root_no_links(&root, path, flags, Mode::empty())?;
        bind_clone_fd(&place, false)
    };
    in_thread(clone)
}

/// A mount of what is at `path` of a detached mount; links are followed inside it only.
///
/// The kernel copies only mounts of the caller's own namespace (before Linux 6.15), so a thread
/// makes one for the purpose.
pub fn subtree(root: OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let path = path.to_owned();
    in_thread(move || {
        crate::namespace::unshare(FS | crate::process::NEW_MOUNT)?;
        set_propagation_of_all(Propagation::Private)?;
        attach_at(&root, "/")?;
        let place = crate::path::open_in_root(&root, path, OFlags::PATH, Mode::empty())?;
        bind_clone_fd(&place, false)
    })
}

fn open_tree(
    at: BorrowedFd<'_>,
    path: &Path,
    recursive: bool,
    flags: OpenTreeFlags,
) -> io::Result<OwnedFd> {
    let mut flags = flags | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(at, path, flags)?)
}

/// Attaches a detached mount at exactly what `target` refers to.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", target, c"", flags)?)
}

/// As [`attach`], at a path.
pub fn attach_at(mount: impl AsFd, target: impl AsRef<Path>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", CWD, target.as_ref(), flags)?)
}

/// One setting of a new file system.
#[derive(Debug, Clone, Copy)]
pub enum Setting<'a> {
    /// A word alone.
    Flag(&'a str),
    /// A name and a value of at most 255 bytes.
    String(&'a str, &'a str),
}

/// A new file system of the given type, mounted nowhere.
///
/// The kernel's own explanation, where it gives one, becomes the error's text.
pub fn new_filesystem(
    kind: &str,
    source: Option<&Path>,
    settings: &[Setting<'_>],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let configure = || -> Result<(), Errno> {
        if let Some(source) = source {
            rustix::mount::fsconfig_set_string(&context, c"source", source)?;
        }
        for setting in settings {
            match *setting {
                Setting::Flag(name) => rustix::mount::fsconfig_set_flag(&context, name)?,
                Setting::String(name, value) => {
                    rustix::mount::fsconfig_set_string(&context, name, value)?;
                }
            }
        }
        rustix::mount::fsconfig_create(&context)
    };
    configure().map_err(|error| explain(&context, error))?;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// The error number with what the kernel wrote into the context's log.
fn explain(context: &OwnedFd, error: Errno) -> io::Error {
    let mut text = String::new();
    let mut buffer = [0; 512];
    // A read gives one message and fails when there is none left.
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        if length == 0 || text.len() > 4096 {
            break;
        }
        let line = String::from_utf8_lossy(&buffer[..length]);
        let line = line.strip_prefix("e ").unwrap_or(&line).trim_end();
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(line);
    }
    let plain = io::Error::from(error);
    if text.is_empty() { plain } else { io::Error::new(plain.kind(), format!("{plain} ({text})")) }
}

/// A detached overlay of the directories `lowers`, the topmost first, with the writable layer
/// `upper` and its work directory, or read-only without them. `options` are further settings,
/// such as `("index", Some("off"))` or `("userxattr", None)`.
///
/// Before Linux 6.8 fsconfig(2) takes no list of many layers; there the overlay is made by mount(2)
/// in a mount namespace of its own.
pub fn overlay(
    lowers: &[&Path],
    upper_work: Option<(&Path, &Path)>,
    options: &[(&str, Option<&str>)],
) -> io::Result<OwnedFd> {
    let release = rustix::system::uname();
    if appends_layers(&release.release().to_string_lossy()) {
        Ok(overlay_by_context(lowers, upper_work, options)?)
    } else {
        overlay_by_mount(lowers, upper_work, options)
    }
}

/// Whether a kernel's fsconfig(2) takes one layer of an overlay after the other. It cannot be
/// asked: before 6.5 it takes any setting, and refuses the whole when the overlay is made.
fn appends_layers(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (6, 8)
}

/// Removes the mark that an overlay with the option `volatile` left in its work directory, by
/// which the kernel refuses to mount the same directories again. Only for upper layers whose
/// files may be lost or half written after a power cut.
pub fn forget_volatile(work: &Path) -> io::Result<()> {
    let inner = rustix::fs::open(
        work.join("work"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    );
    match inner {
        Ok(inner) => crate::path::remove_all_at(inner, "incompat"),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Names a layer to the context, through a descriptor if its path is too long.
fn set_layer(context: &OwnedFd, key: &CStr, path: &Path) -> Result<(), Errno> {
    if path.as_os_str().len() <= STRING_MAX {
        return rustix::mount::fsconfig_set_string(context, key, path);
    }
    let layer = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::mount::fsconfig_set_fd(context, key, &layer) {
        Err(Errno::INVAL) => {
            let name = format!("/proc/self/fd/{}", layer.as_raw_fd());
            rustix::mount::fsconfig_set_string(context, key, name)
        }
        result => result,
    }
}

fn overlay_by_context(
    lowers: &[&Path],
    upper_work: Option<(&Path, &Path)>,
    options: &[(&str, Option<&str>)],
) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, c"source", c"overlay")?;
    for lower in lowers {
        set_layer(&context, c"lowerdir+", lower)?;
    }
    if let Some((upper, work)) = upper_work {
        set_layer(&context, c"upperdir", upper)?;
        set_layer(&context, c"workdir", work)?;
    }
    for (name, value) in options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(&context, *name, *value)?,
            None => rustix::mount::fsconfig_set_flag(&context, *name)?,
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// The overlay by mount(2): its options fit a page since every directory is named by a
/// descriptor. It is made where nobody else sees it, and what is left of it is a detached copy.
///
/// A process with several threads cannot be copied, so there a thread does it. One that is alone
/// stays so: it may have to be copied right after, when a thread would still be leaving.
fn overlay_by_mount(
    lowers: &[&Path],
    upper_work: Option<(&Path, &Path)>,
    options: &[(&str, Option<&str>)],
) -> io::Result<OwnedFd> {
    let make = || -> io::Result<OwnedFd> {
        set_propagation_of_all(Propagation::Private)?;
        // Opened here, since the kernel takes directories of the own namespace only.
        let mut held = Vec::new();
        let data = mount_data(lowers, upper_work, options, &mut held)?;
        rustix::mount::mount(
            c"overlay",
            c"/",
            c"overlay",
            rustix::mount::MountFlags::empty(),
            Some(data.as_c_str()),
        )?;
        // The new mount covers the root of the tree; `/..` leads to the topmost mount.
        let top = rustix::fs::open(c"/..", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        bind_clone_fd(&top, false)
    };
    if crate::process::is_single_threaded()? {
        return from_child(make);
    }
    in_thread(|| {
        crate::namespace::unshare(FS | crate::process::NEW_MOUNT)?;
        make()
    })
}

/// The descriptor that `make` opens in a child with a mount namespace of its own.
fn from_child(make: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    let (ours, theirs) = crate::fdpass::stream_pair()?;
    let spawned = crate::process::fork(crate::process::NEW_MOUNT, None, || {
        let sent = match make() {
            Ok(mount) => crate::fdpass::send(&theirs, &[0; 4], &[mount.as_fd()]),
            Err(error) => {
                let number = error.raw_os_error().unwrap_or(libc::EIO);
                crate::fdpass::send(&theirs, &number.to_ne_bytes(), &[])
            }
        };
        u8::from(sent.is_err())
    })?;
    drop(theirs);
    let (mut number, mut fds) = ([0; 4], Vec::new());
    let received = crate::fdpass::receive(&ours, &mut number, &mut fds);
    crate::process::wait(&spawned.pidfd)?;
    received?;
    fds.pop().ok_or_else(|| match i32::from_ne_bytes(number) {
        0 => io::Error::from(io::ErrorKind::UnexpectedEof),
        number => io::Error::from_raw_os_error(number),
    })
}

/// Runs `work` in a thread of its own, which may leave the mount namespace of the others.
fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("mount-namespace".into());
        let failed = |_| io::Error::other("a thread failed");
        thread.spawn_scoped(scope, work)?.join().map_err(failed)?
    })
}

/// The options for mount(2), with each directory opened into `held` and named by that.
fn mount_data(
    lowers: &[&Path],
    upper_work: Option<(&Path, &Path)>,
    options: &[(&str, Option<&str>)],
    held: &mut Vec<OwnedFd>,
) -> io::Result<std::ffi::CString> {
    let mut name = |path: &Path| -> io::Result<String> {
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        held.push(fd);
        Ok(format!("/proc/self/fd/{}", held[held.len() - 1].as_raw_fd()))
    };
    let names = lowers.iter().map(|lower| name(lower)).collect::<io::Result<Vec<_>>>()?;
    let mut data = format!("lowerdir={}", names.join(":"));
    if let Some((upper, work)) = upper_work {
        data.extend([",upperdir=", &name(upper)?, ",workdir=", &name(work)?]);
    }
    for (key, value) in options {
        data.push(',');
        data.push_str(key);
        if let Some(value) = value {
            data.extend(["=", value]);
        }
    }
    Ok(std::ffi::CString::new(data)?)
}

/// Detaches what is mounted at `.` from the caller's mount namespace, with all beneath it.
pub fn detach_cwd() -> io::Result<()> {
    Ok(rustix::mount::unmount(c".", UnmountFlags::DETACH)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Layers {
        directory: PathBuf,
    }

    impl Layers {
        fn new(name: &str) -> Self {
            let directory =
                std::env::temp_dir().join(format!("silo-mount-{name}-{}", std::process::id()));
            for part in ["a", "b", "upper", "work"] {
                fs_create(&directory.join(part));
            }
            write(&directory.join("a/x"), "a");
            write(&directory.join("b/x"), "b");
            write(&directory.join("b/y"), "b");
            Self { directory }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test")]
    fn fs_create(path: &Path) {
        std::fs::create_dir_all(path).unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "a test")]
    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
    }

    impl Drop for Layers {
        #[expect(clippy::disallowed_methods, reason = "a test")]
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.directory).unwrap();
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test")]
    fn fs_lines(path: &str) -> usize {
        std::fs::read_to_string(path).unwrap().lines().count()
    }

    fn read(root: &OwnedFd, name: &str) -> String {
        let file = rustix::fs::openat(root, name, OFlags::RDONLY, Mode::empty()).unwrap();
        let mut buffer = [0; 16];
        let length = rustix::io::read(&file, &mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn overlay_stacks_topmost_first() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let layers = Layers::new("overlay");
        let at = |name: &str| layers.directory.join(name);
        let mount = overlay(
            &[&at("a"), &at("b")],
            Some((&at("upper"), &at("work"))),
            &[("index", Some("off"))],
        )
        .unwrap();
        assert_eq!(read(&mount, "x"), "a");
        assert_eq!(read(&mount, "y"), "b");
        rustix::fs::mkdirat(&mount, "new", Mode::RWXU).unwrap();
        assert!(at("upper/new").is_dir());
        let copy = bind_clone_fd(&mount, true);
        let read_only =
            MountAttr { set: MountAttrFlags::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
        set_attr(&mount, read_only, true).unwrap();
        assert_eq!(rustix::fs::mkdirat(&mount, "no", Mode::RWXU), Err(Errno::ROFS));
        drop(copy);
    }

    #[test]
    fn kernels_that_append_layers() {
        for (release, appends) in [
            ("5.15.0-91-generic", false),
            ("6.1.0-56-amd64", false),
            ("6.7.12", false),
            ("6.8", true),
            ("6.18.1", true),
            ("10.0", true),
        ] {
            assert_eq!(appends_layers(release), appends, "{release}");
        }
    }

    #[test]
    fn overlay_by_mount_is_the_same() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let layers = Layers::new("by-mount");
        let at = |name: &str| layers.directory.join(name);
        let (a, b, upper, work) = (at("a"), at("b"), at("upper"), at("work"));
        let make = || {
            let both = Some((upper.as_path(), work.as_path()));
            let mount = overlay_by_mount(&[&a, &b], both, &[("index", Some("off"))])?;
            assert_eq!(read(&mount, "x"), "a");
            assert_eq!(read(&mount, "y"), "b");
            Ok(rustix::fs::mkdirat(&mount, "new", Mode::RWXU)?)
        };
        let mounts = || fs_lines("/proc/self/mountinfo");
        let before = mounts();
        // In a thread, by one of several.
        in_thread(make).unwrap();
        assert!(at("upper/new").is_dir());
        rustix::fs::rmdir(at("upper/new")).unwrap();
        let wrong = in_thread(|| overlay_by_mount(&[&at("none")], None, &[]).map(drop));
        assert_eq!(wrong.unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert_eq!(mounts(), before);
    }

    #[test]
    fn a_volatile_overlay_is_mounted_again() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let layers = Layers::new("volatile");
        let at = |name: &str| layers.directory.join(name);
        let work = at("work");
        let mount = || {
            overlay(
                &[&at("a"), &at("b")],
                Some((&at("upper"), &work)),
                &[("index", Some("off")), ("volatile", None)],
            )
        };
        forget_volatile(&work).unwrap();
        rustix::fs::mkdirat(mount().unwrap(), "new", Mode::RWXU).unwrap();
        assert!(mount().is_err(), "the kernel refuses while the mark is there");
        forget_volatile(&work).unwrap();
        assert_eq!(read(&mount().unwrap(), "x"), "a");
        assert!(at("upper/new").is_dir());
    }

    #[test]
    fn kernel_explains_wrong_settings() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let error = new_filesystem(
            "tmpfs",
            None,
            &[Setting::String("nosuch", "1")],
            MountAttrFlags::empty(),
        )
        .unwrap_err();
        assert!(error.to_string().contains("nosuch"), "{error}");
    }
}

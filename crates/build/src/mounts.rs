//! `RUN --mount`: what is mounted for one step, and never part of its layer.
//!
//! Sources are resolved inside the tree that they are in, and what is mounted is what was found
//! there, by its descriptor: no path is looked at twice (CVE-2024-1753, CVE-2024-9407).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::mount::MountAttrFlags;
use silo_dockerfile::ast::Run;
use silo_dockerfile::mount::{Mount, MountKind, Sharing};
use silo_engine::builds::{StepContainer, StepMount, StepSource};
use silo_sys::mount::Setting;
use silo_types::{Error, ErrorKind};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::task::JoinSet;

use crate::cache::KeyBuilder;
use crate::copy::copier::{Copier, Options};
use crate::copy::digest::Hasher;
use crate::copy::resolve::Names;
use crate::copy::select::{Filter, Found, select};
use crate::files::Source;
use crate::job::{Job, Work, blocking};
use crate::outcome::BuildError;
use crate::scratch::Scratch;
use crate::secret::SshAgents;
use crate::stage::Turn;
use crate::state::State;

/// Connections of one step to an agent at the same time; more have to wait.
const MAX_CONNECTIONS: usize = 64;

/// The mounts of a step.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// What they depend on.
    keys: Vec<String>,
    wanted: Vec<Wanted>,
    /// Ready to be mounted, after [`Mounts::open`].
    pub(crate) list: Vec<StepMount>,
    /// Variables with secrets.
    pub(crate) env: Vec<String>,
    /// Where they are in the container.
    targets: Vec<String>,
    /// What lives as long as they do.
    pub(crate) keep: Vec<Box<dyn crate::context::Keep>>,
}

/// A mount whose source is known.
#[derive(Debug)]
struct Wanted {
    target: String,
    readonly: bool,
    what: What,
}

#[derive(Debug)]
enum What {
    Bind { source: Source, found: Found, is_windows: bool },
    Cache { id: String, sharing: Sharing, mount: Mount, from: Option<(Source, Found)> },
    Tmpfs(String),
    File { name: String, bytes: Vec<u8>, mode: u32, uid: u32, gid: u32, folder: bool },
    Ssh { id: String, mode: u32, uid: u32, gid: u32 },
}

/// The lock of a cache mount's directory. Whoever holds it uses the directory; the mutex within is
/// for making the directory, which those that share it do only once.
pub(crate) type MountLock = Arc<RwLock<Mutex<()>>>;

/// Says that a cache mount is in use.
#[derive(Debug)]
pub(crate) enum Held {
    Shared(OwnedRwLockReadGuard<Mutex<()>>),
    Alone(OwnedRwLockWriteGuard<Mutex<()>>),
}

impl Held {
    fn making(&self) -> &Mutex<()> {
        match self {
            Self::Shared(guard) => guard,
            Self::Alone(guard) => guard,
        }
    }
}

fn invalid(message: impl Into<String>) -> BuildError {
    BuildError::new(ErrorKind::InvalidParameter, message)
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> BuildError {
    move |error| BuildError::new(ErrorKind::Internal, format!("{operation}: {error}"))
}

impl Mounts {
    /// What the step's cache key has of them.
    pub(crate) fn key(&self) -> &[String] {
        &self.keys
    }

    /// Adds a directory with a script.
    pub(crate) fn script(&mut self, directory: &str, name: &str, text: &[u8]) {
        let (name, bytes) = (name.to_owned(), text.to_vec());
        let what = What::File { name, bytes, mode: 0o755, uid: 0, gid: 0, folder: true };
        self.wanted.push(Wanted { target: directory.to_owned(), readonly: true, what });
    }
}

impl Job {
    /// Finds the sources of a step's mounts.
    pub(crate) async fn mounts(
        self: &Arc<Self>,
        turn: &Turn<'_>,
        state: &State,
        run: &Run,
        work: &Work,
    ) -> Result<Mounts, BuildError> {
        let mut mounts = Mounts::default();
        for mount in &run.mounts {
            self.one_mount(turn, state, mount, work, &mut mounts).await?;
        }
        Ok(mounts)
    }

    async fn one_mount(
        self: &Arc<Self>,
        turn: &Turn<'_>,
        state: &State,
        mount: &Mount,
        work: &Work,
        mounts: &mut Mounts,
    ) -> Result<(), BuildError> {
        let place = |path: &str| -> Result<String, BuildError> {
            let place = state.place(path)?;
            let place = place.trim_end_matches('/');
            if place.is_empty() {
                return Err(invalid("mount target must not be /"));
            }
            Ok(if state.is_windows() { format!("/c{place}") } else { place.to_owned() })
        };
        let needs_linux = || {
            if state.is_windows() {
                return Err(invalid(format!(
                    "RUN --mount=type={} is not supported for Windows",
                    mount.kind.name()
                )));
            }
            Ok(())
        };
        let shown = format!(
            "{} {:?} {:?} {:?} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            mount.kind.name(),
            mount.from,
            mount.source,
            mount.target,
            mount.read_only,
            mount.size,
            mount.id,
            mount.sharing,
            mount.env,
            mount.mode,
            mount.uid,
            mount.gid
        );
        mounts.keys.push(shown);
        let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        let (target, what) = match mount.kind {
            MountKind::Bind => {
                let target = mount.target.as_deref().unwrap_or_default();
                let (source, found, digest) = self.mount_source(turn, mount, work).await?;
                mounts.keys.push(digest);
                let is_windows = source.names == Names::AnyCase;
                (place(target)?, What::Bind { source, found, is_windows })
            }
            MountKind::Cache => {
                let target = place(mount.target.as_deref().unwrap_or_default())?;
                let id = mount.id.clone().unwrap_or_else(|| target.clone());
                let from = match &mount.from {
                    None => None,
                    Some(_) => {
                        let (source, found, _) = self.mount_source(turn, mount, work).await?;
                        Some((source, found))
                    }
                };
                let sharing = mount.sharing.unwrap_or(Sharing::Shared);
                (target, What::Cache { id, sharing, mount: mount.clone(), from })
            }
            MountKind::Tmpfs => {
                needs_linux()?;
                let size = mount.size.map(|size| format!(",size={size}")).unwrap_or_default();
                let target = place(mount.target.as_deref().unwrap_or_default())?;
                (target, What::Tmpfs(format!("exec{size}")))
            }
            MountKind::Secret => {
                let target = mount.target.as_deref();
                let id = mount.id.as_deref().or(mount.source.as_deref());
                let id = id.or_else(|| target.and_then(|target| target.rsplit('/').next()));
                let id = id.unwrap_or_default().to_owned();
                let Some(bytes) = self.request.secrets.secret(&id).await? else {
                    if mount.required {
                        // buildkit wording
                        let text = format!("secret {id}: not found");
                        return Err(BuildError::new(ErrorKind::NotFound, text));
                    }
                    return Ok(());
                };
                if let Some(name) = &mount.env {
                    let name = if name.is_empty() { &id } else { name };
                    let value = String::from_utf8(bytes.clone())
                        .map_err(|_| invalid(format!("secret {id} is not text")))?;
                    mounts.env.push(format!("{name}={value}"));
                    if target.is_none() {
                        return Ok(());
                    }
                }
                let target = match target {
                    Some(target) => place(target)?,
                    None if state.is_windows() => format!("/c/run/secrets/{id}"),
                    None => format!("/run/secrets/{id}"),
                };
                let (mode, name) = (mount.mode.unwrap_or(0o400), "secret".to_owned());
                (target, What::File { name, bytes, mode, uid, gid, folder: false })
            }
            MountKind::Ssh => {
                needs_linux()?;
                let id = mount.id.clone().unwrap_or_else(|| "default".into());
                if !self.request.ssh.has(&id).await? {
                    if mount.required {
                        // buildkit wording
                        let text = format!("unset ssh forward key {id}");
                        return Err(BuildError::new(ErrorKind::NotFound, text));
                    }
                    return Ok(());
                }
                let number = mounts.wanted.len();
                let target = match mount.target.as_deref() {
                    Some(target) => place(target)?,
                    None => format!("/run/buildkit/ssh_agent.{number}"),
                };
                mounts.env.push(format!("SSH_AUTH_SOCK={target}"));
                (target, What::Ssh { id, mode: mount.mode.unwrap_or(0o600), uid, gid })
            }
        };
        mounts.wanted.push(Wanted { target, readonly: mount.read_only, what });
        Ok(())
    }

    /// What a mount takes from the context, a stage or an image, and its digest.
    async fn mount_source(
        self: &Arc<Self>,
        turn: &Turn<'_>,
        mount: &Mount,
        work: &Work,
    ) -> Result<(Source, Found, String), BuildError> {
        let source = self.source(turn, mount.from.as_deref(), work).await?;
        let path = mount.source.clone().unwrap_or_default();
        blocking(move || {
            // No wildcards here.
            let plain: String = path
                .chars()
                .flat_map(|c| "*?[\\".contains(c).then_some('\\').into_iter().chain([c]))
                .collect();
            let found = select(source.tree.root(), &plain, source.names)?;
            let Some(found) = found.into_iter().next() else {
                return Err(invalid(format!("failed to find {path}")));
            };
            let mut key = KeyBuilder::new("bind");
            match &source.chain {
                Some(chain) => key.chain(Some(chain)),
                None => {
                    let mut hasher = Hasher::new(source.tree.digests());
                    hasher.add(source.tree.root(), &found, &Filter::default())?;
                    key.field(hasher.finish());
                }
            }
            key.field(found.path.as_os_str().as_encoded_bytes());
            Ok((source, found, key.finish()))
        })
        .await
    }

    /// Makes the mounts. What comes back says that they are in use.
    pub(crate) async fn open_mounts(
        self: &Arc<Self>,
        mounts: &mut Mounts,
    ) -> Result<Vec<Arc<Held>>, BuildError> {
        let caches = self.hold_caches(&mounts.wanted).await;
        for wanted in std::mem::take(&mut mounts.wanted) {
            let job = Arc::clone(self);
            let source = match wanted.what {
                What::Tmpfs(options) => StepSource::Tmpfs(options),
                What::Bind { source, found, is_windows } => {
                    let writable = !wanted.readonly;
                    let (tree, keep) =
                        blocking(move || job.bind(&source, &found, writable, is_windows)).await?;
                    mounts.keep.extend(keep);
                    StepSource::Tree(tree)
                }
                What::Cache { id, mount, from, .. } => {
                    let Some((name, held)) = caches.get(&id).cloned() else { continue };
                    // The guard goes along: a build that ends now does not end the making.
                    let made =
                        blocking(move || job.builder.open_mount(&name, &held, &mount, &id, from));
                    StepSource::Tree(made.await?)
                }
                What::File { name, bytes, mode, uid, gid, folder } => {
                    let made = blocking(move || {
                        file_in_memory(&name, &bytes, mode, (uid, gid), folder)
                            .map_err(failed("make a file for a mount"))
                    });
                    StepSource::Tree(made.await?)
                }
                What::Ssh { id, mode, uid, gid } => {
                    let scratch = self.builder.scratch()?;
                    let agents = Arc::clone(&self.request.ssh);
                    let agent = Agent::listen(scratch, agents, id, mode, (uid, gid))
                        .map_err(failed("forward an ssh agent"))?;
                    let tree = agent.tree().map_err(failed("forward an ssh agent"))?;
                    mounts.keep.push(Box::new(agent));
                    StepSource::Tree(tree)
                }
            };
            mounts.targets.push(wanted.target.clone());
            let (destination, readonly) = (wanted.target, wanted.readonly);
            mounts.list.push(StepMount { destination, source, readonly });
        }
        Ok(caches.into_values().map(|(_, held)| held).collect())
    }

    /// Holds the cache mounts of a step: each once, as strictly as any of its mounts asks, and in
    /// the order of their ids, so that no two steps wait for each other.
    async fn hold_caches(&self, wanted: &[Wanted]) -> BTreeMap<String, (String, Arc<Held>)> {
        let strictness = |sharing| match sharing {
            Sharing::Shared => 0,
            Sharing::Private => 1,
            Sharing::Locked => 2,
        };
        let mut sharings = BTreeMap::new();
        for wanted in wanted {
            if let What::Cache { id, sharing, .. } = &wanted.what {
                let strictest = sharings.entry(id.clone()).or_insert(*sharing);
                if strictness(*sharing) > strictness(*strictest) {
                    *strictest = *sharing;
                }
            }
        }
        let mut caches = BTreeMap::new();
        for (id, sharing) in sharings {
            let (name, held) = self.builder.hold_mount(&id, sharing).await;
            caches.insert(id, (name, Arc::new(held)));
        }
        caches
    }

    /// A mount of something in a tree. What is written to it goes to a layer that is thrown away.
    fn bind(
        &self,
        source: &Source,
        found: &Found,
        writable: bool,
        is_windows: bool,
    ) -> Result<(OwnedFd, Vec<Box<dyn crate::context::Keep>>), BuildError> {
        let mut keep: Vec<Box<dyn crate::context::Keep>> = vec![Box::new(Arc::clone(&source.tree))];
        if !writable && source.chain.is_none() {
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let place = silo_sys::path::open_in_root_no_links(
                source.tree.root(),
                &found.path,
                flags,
                Mode::empty(),
            );
            let tree = place.and_then(|place| silo_sys::mount::bind_clone_fd(&place, false));
            return Ok((tree.map_err(failed("mount a source"))?, keep));
        }
        let root = if !writable {
            self.builder.engine.layers_root(source.chain, is_windows)?
        } else if source.chain.is_some() {
            let workspace = self.builder.engine.workspace(source.chain, is_windows, false)?;
            let root = workspace.mount()?;
            keep.push(Box::new(workspace));
            root
        } else {
            let scratch = self.builder.scratch()?;
            let (upper, work) = (scratch.directory("upper")?, scratch.directory("work")?);
            let empty = scratch.directory("empty")?;
            keep.push(Box::new(scratch));
            let lower = PathBuf::from(format!("/proc/self/fd/{}", source.tree.root().as_raw_fd()));
            let options = [("index", Some("off")), ("volatile", None)];
            silo_sys::mount::overlay(&[&lower, &empty], Some((&upper, &work)), &options)
                .map_err(failed("mount a source"))?
        };
        let tree = silo_sys::mount::subtree(root, &found.path);
        Ok((tree.map_err(failed("mount a source"))?, keep))
    }
}

/// A file in memory, or the directory with it alone, as a mount.
fn file_in_memory(
    name: &str,
    bytes: &[u8],
    mode: u32,
    owner: (u32, u32),
    folder: bool,
) -> io::Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let settings = [Setting::String("mode", "0755")];
    let root = silo_sys::mount::new_filesystem("tmpfs", None, &settings, attributes)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&root, name, flags, Mode::from_raw_mode(0o600))?;
    let mut left = bytes;
    while !left.is_empty() {
        left = &left[rustix::io::write(&file, left)?..];
    }
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    rustix::fs::fchown(&file, Some(uid), Some(gid))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777))?;
    drop(file);
    if folder { Ok(root) } else { silo_sys::mount::subtree(root, Path::new(name)) }
}

/// A socket that leads to an agent of the client's.
#[derive(Debug)]
pub(crate) struct Agent {
    scratch: Scratch,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    pub(crate) fn listen(
        scratch: Scratch,
        agents: Arc<dyn SshAgents>,
        id: String,
        mode: u32,
        owner: (u32, u32),
    ) -> io::Result<Self> {
        let path = scratch.path().join("s");
        let listener = tokio::net::UnixListener::bind(&path)?;
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(rustix::fs::CWD, &path, Some(uid), Some(gid), flags)?;
        rustix::fs::chmod(&path, Mode::from_raw_mode(mode & 0o777))?;
        let task = tokio::spawn(async move {
            // They end with the step.
            let mut connections = JoinSet::new();
            while let Ok((mut ours, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                if connections.len() == MAX_CONNECTIONS {
                    connections.join_next().await;
                }
                let (agents, id) = (Arc::clone(&agents), id.clone());
                connections.spawn(async move {
                    match agents.connect(&id).await {
                        // Either side may go at any time.
                        Ok(mut theirs) => {
                            drop(tokio::io::copy_bidirectional(&mut ours, &mut theirs).await);
                        }
                        Err(error) => tracing::debug!(%error, "no ssh agent"),
                    }
                });
            }
        });
        Ok(Self { scratch, task })
    }

    /// Where it is for programs of the host.
    pub(crate) fn path(&self) -> PathBuf {
        self.scratch.path().join("s")
    }

    fn tree(&self) -> io::Result<OwnedFd> {
        silo_sys::mount::bind_clone(self.scratch.path().join("s"), false)
    }
}

/// The name of the directory of a cache mount; those that are used alone at once have numbers.
pub(crate) fn directory_name(id: &str, number: u32) -> String {
    let mut key = KeyBuilder::new("cache mount");
    key.field(id);
    key.field(number.to_le_bytes());
    key.finish()
}

impl crate::builder::Builder {
    /// The lock of a cache mount's directory.
    pub(crate) fn mount_lock(&self, name: &str) -> MountLock {
        let mut locks = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(name.to_owned()).or_default())
    }

    /// Holds a cache mount's directory that nobody uses now.
    pub(crate) fn hold_idle(&self, name: &str) -> Option<Held> {
        self.mount_lock(name).try_write_owned().ok().map(Held::Alone)
    }

    /// The directory name of a cache mount, held as its sharing asks.
    async fn hold_mount(&self, id: &str, sharing: Sharing) -> (String, Held) {
        let mut number = 0_u32;
        loop {
            let name = directory_name(id, number);
            let lock = self.mount_lock(&name);
            match sharing {
                Sharing::Shared => return (name, Held::Shared(lock.read_owned().await)),
                Sharing::Locked => return (name, Held::Alone(lock.write_owned().await)),
                Sharing::Private => match lock.try_write_owned() {
                    Ok(guard) => return (name, Held::Alone(guard)),
                    Err(_) => number += 1,
                },
            }
        }
    }

    /// The directory of a cache mount that is held, made if it is missing. Blocks while another
    /// step that shares it makes it.
    fn open_mount(
        &self,
        name: &str,
        held: &Held,
        mount: &Mount,
        id: &str,
        from: Option<(Source, Found)>,
    ) -> Result<OwnedFd, BuildError> {
        let directory = self.directory.join("mounts").join(name);
        let files = directory.join("files");
        let making = held.making().lock().unwrap_or_else(PoisonError::into_inner);
        if rustix::fs::access(&files, rustix::fs::Access::EXISTS).is_err() {
            make_mount(&directory, mount, id, from)?;
        }
        drop(making);
        let now = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
            last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        };
        // When it was last used.
        let id = directory.join("id");
        rustix::fs::utimensat(rustix::fs::CWD, &id, &now, AtFlags::empty())
            .map_err(io::Error::from)
            .map_err(failed("note the use of a cache mount"))?;
        silo_sys::mount::bind_clone(&files, false).map_err(failed("mount a cache"))
    }
}

/// Makes the directory of a cache mount: aside, so that it is whole once it has its name.
fn make_mount(
    directory: &Path,
    mount: &Mount,
    id: &str,
    from: Option<(Source, Found)>,
) -> Result<(), BuildError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let failed = || failed("make a cache mount");
    let aside = directory.join("new");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .and_then(|()| fs_err::write(directory.join("id"), id))
        .map_err(failed())?;
    crate::scratch::remove(&aside);
    fs_err::create_dir(&aside).map_err(failed())?;
    if let Some((source, found)) = from {
        let root = silo_sys::path::open_root(&aside).map_err(failed())?;
        let options = Options { owner: None, chmod: None, names: Names::Exact };
        Copier::new(root.as_fd(), options).copy(
            source.tree.root(),
            &found,
            &Filter::default(),
            "/",
        )?;
    }
    let finish = || -> io::Result<()> {
        let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        rustix::fs::chown(&aside, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        rustix::fs::chmod(&aside, Mode::from_raw_mode(mount.mode.unwrap_or(0o755)))?;
        fs_err::rename(&aside, directory.join("files"))
    };
    finish().map_err(failed())
}

/// Removes the places of mounts that the step's root did not have.
pub(crate) async fn clean_up(mounts: &Mounts, step: &StepContainer) -> Result<(), Error> {
    if mounts.targets.is_empty() {
        return Ok(());
    }
    step.forget_places(&mounts.targets).await
}

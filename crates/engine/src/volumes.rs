//! Volumes of the `local` driver.
//!
//! A volume is a directory `<root>/<name>/_data` and a record in the database. One with the
//! options `type` and `device` is a mount over that directory while containers use it; a bind
//! (`o=bind`) needs none and stands for the device's own path. The directory `<name>` is 0700, so
//! that users of the host do not reach set-user-id files inside a volume.
//!
//! A crash leaves no directory without a record: the record is written before the directory is
//! made, says that the volume is to go before anything of it is removed, and goes when the disk
//! knows that the directory is gone. Opening makes the directories that are missing and goes on
//! with removals. A volume that the creation of a container fills with the image's files is filled
//! entirely or not at all. A volume that nobody named belongs to the container that it was made
//! for, and goes when that is missing, until the container is removed without its volumes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use silo_docker::volumes::{Volume, VolumeCreateRequest, VolumeUsage, VolumesPruneReport};
use silo_docker::{Filters, Map};
use silo_types::{Error, ErrorKind, VolumeName};

use crate::db::Db;
use crate::engine::Engine;
use crate::mountpoints::MountKind;

mod copy_up;
mod fill;
mod mount;

/// The only driver.
pub const DRIVER: &str = "local";
/// The label of volumes that nobody named.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// A volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its name.
    #[serde(skip)]
    pub name: String,
    /// When it was made, Unix seconds.
    pub created: i64,
    /// Labels, as they were given.
    pub labels: Map<String>,
    /// Driver options, as they were given.
    pub options: Map<String>,
    /// The container with which it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Its removal has begun.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
}

impl VolumeRecord {
    /// Was it made without a name?
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }
}

/// All volumes.
#[derive(Debug)]
pub struct Volumes {
    root: PathBuf,
    db: Arc<Db>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    volumes: BTreeMap<String, Arc<VolumeRecord>>,
    /// Volumes that operations in progress rely on.
    holds: HashMap<String, usize>,
    /// Containers that have a volume with options mounted.
    mounts: HashMap<String, HashSet<String>>,
    /// Removed volumes that still have a record.
    removed: HashSet<String>,
}

/// So many removed volumes wait for the disk together.
const BATCH: usize = 64;

/// Keeps a volume from being removed until dropped.
#[derive(Debug)]
pub struct Hold<'a> {
    volumes: &'a Volumes,
    name: String,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut inner = self.volumes.lock();
        if let Some(count) = inner.holds.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                inner.holds.remove(&self.name);
            }
        }
    }
}

fn io_error(operation: &str, path: &Path, source: io::Error) -> Error {
    let message = format!("{operation} {}: {source}", path.display());
    Error::with_source(ErrorKind::Internal, message, source)
}

impl Volumes {
    /// Reads the records of all volumes, and finishes what was cut off.
    pub fn open(root: &Path, db: &Arc<Db>) -> Result<Self, Error> {
        let this = Self { root: root.to_owned(), db: Arc::clone(db), inner: Mutex::default() };
        let mut volumes = BTreeMap::new();
        for (name, record) in db.volumes()? {
            match serde_json::from_str::<VolumeRecord>(&record) {
                Ok(record) => {
                    let outcome = if record.removed {
                        this.remove_dir(&mut this.lock(), &name)
                    } else {
                        this.make_dir(&name).and_then(|()| this.settle(&name))
                    };
                    if let Err(error) = outcome {
                        tracing::error!(volume = name, error = error.chain(), "repair volume");
                    }
                    if !record.removed {
                        let record = VolumeRecord { name: name.clone(), ..record };
                        volumes.insert(name, Arc::new(record));
                    }
                }
                Err(error) => tracing::error!(volume = name, %error, "unreadable volume record"),
            }
        }
        let mut inner = this.lock();
        inner.volumes = volumes;
        this.forget_removed(&mut inner)?;
        drop(inner);
        Ok(this)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a volume's content lies.
    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.root.join(name).join("_data")
    }

    /// A volume by name.
    pub fn get(&self, name: &str) -> Option<Arc<VolumeRecord>> {
        self.lock().volumes.get(name).cloned()
    }

    /// Every volume, by name.
    pub fn all(&self) -> Vec<Arc<VolumeRecord>> {
        self.lock().volumes.values().cloned().collect()
    }

    /// Makes a volume, or finds the one of that name. The hold keeps it until the caller has
    /// written down that it uses it. True when it is new. One without a name goes with `owner`.
    pub fn create(
        &self,
        request: VolumeCreateRequest,
        owner: Option<&str>,
    ) -> Result<(Arc<VolumeRecord>, Hold<'_>, bool), Error> {
        let (name, anonymous) = match request.name.as_str() {
            "" => (VolumeName::random().as_str().to_owned(), true),
            name => (name.to_owned(), false),
        };
        let refused = |kind, message: String| Error::new(kind, format!("create {name}: {message}"));
        if !matches!(request.driver.as_str(), "" | DRIVER) {
            let driver = &request.driver;
            return Err(refused(
                ErrorKind::NotFound,
                format!("error looking up volume plugin {driver}: plugin {driver:?} not found"),
            ));
        }
        check_name(&name).map_err(|message| refused(ErrorKind::InvalidParameter, message))?;
        let mut inner = self.lock();
        if let Some(found) = inner.volumes.get(&name).cloned() {
            let hold = self.hold_locked(&mut inner, &name);
            return Ok((found, hold, false));
        }
        check_options(&request.driver_opts)
            .map_err(|message| refused(ErrorKind::InvalidParameter, message))?;
        let mut labels = request.labels;
        if anonymous {
            labels.make().insert(ANONYMOUS.into(), String::new());
        }
        let record = VolumeRecord {
            name: name.clone(),
            created: Timestamp::now().as_second(),
            labels,
            options: request.driver_opts,
            owner: owner.filter(|_| anonymous).map(str::to_owned),
            removed: false,
        };
        self.write(&record)?;
        inner.removed.remove(&name);
        if let Err(error) = self.make_dir(&name) {
            self.db.volume_remove(&name)?;
            return Err(error);
        }
        let record = Arc::new(record);
        inner.volumes.insert(name.clone(), Arc::clone(&record));
        let hold = self.hold_locked(&mut inner, &name);
        Ok((record, hold, true))
    }

    fn write(&self, record: &VolumeRecord) -> Result<(), Error> {
        let json = serde_json::to_string(record)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "write volume", error))?;
        Ok(self.db.volume_put(&record.name, &json)?)
    }

    /// Has volumes stay when the container goes that they were made for.
    pub fn disown<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
        let mut inner = self.lock();
        for name in names {
            let Some(record) = inner.volumes.get_mut(name).filter(|record| record.owner.is_some())
            else {
                continue;
            };
            let free = VolumeRecord { owner: None, ..VolumeRecord::clone(record) };
            self.write(&free)?;
            *record = Arc::new(free);
        }
        Ok(())
    }

    fn make_dir(&self, name: &str) -> Result<(), Error> {
        use std::os::unix::fs::DirBuilderExt;
        for (path, mode) in [(self.root.join(name), 0o700), (self.data_dir(name), 0o755)] {
            match std::fs::DirBuilder::new().mode(mode).create(&path) {
                Ok(()) => {}
                // Left by a removal or creation that was cut off.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("mkdir", &path, error)),
            }
        }
        Ok(())
    }

    /// Finishes a volume's filling that was cut off.
    fn settle(&self, name: &str) -> Result<(), Error> {
        let data = self.data_dir(name);
        fill::settle(&data, &self.root.join(name))
            .map(drop)
            .map_err(|error| io_error("fill", &data, error))
    }

    /// Copies the directory `path`, resolved inside `root`, into a volume that is empty, all or
    /// nothing. `volume` is what [`Volumes::acquire`] returned. With `durable`, the disk has it
    /// when this returns. Nothing happens when the path is no directory.
    pub fn fill(
        &self,
        name: &str,
        volume: &Path,
        root: BorrowedFd<'_>,
        path: &Path,
        durable: bool,
    ) -> io::Result<()> {
        let dir = self.root.join(name);
        let _lock = fill::lock(&dir)?;
        let beside = volume == self.data_dir(name) && !mount::is_mounted(volume)?;
        let work = if beside { &dir } else { volume };
        fill::fill(root, path, volume, work, durable).map(drop)
    }

    fn hold_locked(&self, inner: &mut Inner, name: &str) -> Hold<'_> {
        *inner.holds.entry(name.to_owned()).or_default() += 1;
        Hold { volumes: self, name: name.to_owned() }
    }

    /// Removes a volume that no container uses: `users` are the ids of those that do.
    pub fn remove(&self, name: &str, users: &[String]) -> Result<(), Error> {
        self.remove_unless(name, || users.to_vec())
    }

    /// [`Volumes::remove`], asking for the users when nothing can begin to use the volume any more.
    fn remove_unless(&self, name: &str, users: impl FnOnce() -> Vec<String>) -> Result<(), Error> {
        let mut inner = self.lock();
        if !inner.volumes.contains_key(name) {
            return Err(Error::not_found(format!("get {name}: no such volume")));
        }
        let users = users();
        if !users.is_empty() || inner.holds.contains_key(name) {
            let users = users.join(", ");
            return Err(Error::conflict(format!("remove {name}: volume is in use - [{users}]")));
        }
        mount::detach(&self.data_dir(name))
            .map_err(|error| io_error("unmount", &self.data_dir(name), error))?;
        if let Some(record) = inner.volumes.get(name) {
            self.write(&VolumeRecord { removed: true, ..VolumeRecord::clone(record) })?;
        }
        inner.volumes.remove(name);
        inner.mounts.remove(name);
        self.remove_dir(&mut inner, name)?;
        if inner.removed.len() >= BATCH {
            self.forget_removed(&mut inner)?;
        }
        Ok(())
    }

    /// Removes what is left of a volume that is to go.
    fn remove_dir(&self, inner: &mut Inner, name: &str) -> Result<(), Error> {
        let dir = self.root.join(name);
        match fs_err::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &dir, error));
            }
            _ => inner.removed.insert(name.to_owned()),
        };
        Ok(())
    }

    /// Removes the records of volumes whose directories are gone, once the disk knows that.
    fn forget_removed(&self, inner: &mut Inner) -> Result<(), Error> {
        if inner.removed.is_empty() {
            return Ok(());
        }
        fs_err::File::open(&self.root)
            .and_then(|root| root.sync_all())
            .map_err(|error| io_error("sync", &self.root, error))?;
        for name in inner.removed.drain() {
            self.db.volume_remove(&name)?;
        }
        Ok(())
    }

    /// Makes a volume ready for a container and returns the host path to bind. Balanced by
    /// [`Volumes::release`]; calling it again for the same container is harmless.
    pub fn acquire(&self, name: &str, container: &str) -> Result<PathBuf, Error> {
        let mut inner = self.lock();
        let record = inner
            .volumes
            .get(name)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))?;
        let data = self.data_dir(name);
        if record.options.get("type").is_none() {
            return Ok(data);
        }
        let plan = mount::Plan::read(&record.options).map_err(Error::internal)?;
        if plan.is_bind() {
            return Ok(PathBuf::from(plan.device));
        }
        let users = inner.mounts.entry(name.to_owned()).or_default();
        if users.is_empty() && !mount::is_mounted(&data).unwrap_or(false) {
            plan.mount(&data).map_err(|source| {
                let device = &plan.device;
                let message = format!(
                    "error while mounting volume '{}': failed to mount local volume: mount \
                     {device}:{}, flags: {:#x}, data: {}: {source}",
                    data.display(),
                    data.display(),
                    plan.flags.bits(),
                    plan.data,
                );
                Error::with_source(ErrorKind::Internal, message, source)
            })?;
        }
        users.insert(container.to_owned());
        Ok(data)
    }

    /// Ends a container's use of a volume; the last one unmounts it.
    pub fn release(&self, name: &str, container: &str) {
        let mut inner = self.lock();
        let Some(users) = inner.mounts.get_mut(name) else { return };
        if users.remove(container) && users.is_empty() {
            inner.mounts.remove(name);
            if let Err(error) = mount::detach(&self.data_dir(name)) {
                tracing::warn!(volume = name, %error, "unmount volume");
            }
        }
    }

    /// As the API shows it.
    pub fn to_api(&self, record: &VolumeRecord) -> Volume {
        let created = Timestamp::from_second(record.created).unwrap_or(Timestamp::UNIX_EPOCH);
        Volume {
            created_at: silo_types::time::rfc3339_nano(created),
            driver: DRIVER.into(),
            labels: record.labels.clone(),
            mountpoint: self.data_dir(&record.name).to_string_lossy().into_owned(),
            name: record.name.clone(),
            options: record.options.clone(),
            scope: "local".into(),
            usage_data: None,
        }
    }
}

/// dockerd's words for names that are no volume names.
fn check_name(name: &str) -> Result<(), String> {
    if name.len() == 1 {
        return Err("volume name is too short, names should be at least two alphanumeric \
                    characters"
            .into());
    }
    if name.parse::<VolumeName>().is_err() {
        return Err(format!(
            "{name:?} includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, \
             use absolute path"
        ));
    }
    Ok(())
}

fn check_options(options: &BTreeMap<String, String>) -> Result<(), String> {
    for name in options.keys() {
        if !matches!(name.as_str(), "type" | "o" | "device" | "size") {
            return Err(format!("invalid option: {name:?}"));
        }
    }
    if let Some(size) = options.get("size") {
        if silo_types::size::parse_binary(size).is_none() {
            return Err(format!("invalid size: '{size}'"));
        }
        return Err("quota size requested but no quota support".into());
    }
    for (name, needed) in [("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")] {
        if options.contains_key(name) && !options.contains_key(needed) {
            return Err(format!("missing required option: {needed:?}"));
        }
    }
    if options.contains_key("type") {
        mount::Plan::read(options)?;
    }
    Ok(())
}

/// Bytes of everything below a directory, each file once.
fn tree_size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let (mut total, mut seen, mut open) = (0, HashSet::new(), vec![path.to_owned()]);
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs_err::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                open.push(entry.path());
            } else if meta.nlink() < 2 || seen.insert((meta.dev(), meta.ino())) {
                total += meta.size();
            }
        }
    }
    total
}

impl Engine {
    /// Ids of the containers that have a volume, running or not.
    pub fn volume_users(&self, name: &str) -> Vec<String> {
        let uses = |mounts: &[crate::mountpoints::MountRecord]| {
            mounts.iter().any(|mount| mount.kind == MountKind::Volume && mount.name == name)
        };
        self.containers
            .all()
            .iter()
            .filter(|container| uses(&container.record().mounts))
            .map(|container| container.id.to_string())
            .collect()
    }

    fn volume_event(&self, name: &str, action: &str) {
        let attributes = BTreeMap::from([("driver".to_owned(), DRIVER.to_owned())]);
        self.events.publish("volume", action, name, attributes);
    }

    /// Makes a volume for a caller that will write down its use; see [`Volumes::create`].
    pub(crate) fn volume_make(
        &self,
        mut request: VolumeCreateRequest,
        owner: &str,
    ) -> Result<(Arc<VolumeRecord>, Hold<'_>), Error> {
        // What a mount did not say was never set.
        for map in [&mut request.labels, &mut request.driver_opts] {
            if map.is_empty() {
                *map = Map::null();
            }
        }
        self.volume_made(request, Some(owner))
    }

    fn volume_made(
        &self,
        request: VolumeCreateRequest,
        owner: Option<&str>,
    ) -> Result<(Arc<VolumeRecord>, Hold<'_>), Error> {
        let (record, hold, new) = self.volumes.create(request, owner)?;
        if new {
            self.volume_event(&record.name, "create");
        }
        Ok((record, hold))
    }

    /// `POST /volumes/create`.
    pub fn volume_create(&self, request: VolumeCreateRequest) -> Result<Volume, Error> {
        let (record, _hold) = self.volume_made(request, None)?;
        Ok(self.volumes.to_api(&record))
    }

    /// `GET /volumes/{name}`.
    pub fn volume_inspect(&self, name: &str) -> Result<Volume, Error> {
        match self.volumes.get(name) {
            Some(record) => Ok(self.volumes.to_api(&record)),
            None => Err(Error::not_found(format!("get {name}: no such volume"))),
        }
    }

    /// `GET /volumes`.
    pub fn volume_list(&self, filters: &Filters) -> Result<Vec<Volume>, Error> {
        filters.validate(&["dangling", "name", "driver", "label"])?;
        let dangling = if filters.contains("dangling") {
            Some(filters.boolean("dangling", false)?)
        } else {
            None
        };
        let mut volumes = Vec::new();
        for record in self.volumes.all() {
            let label = |key: &str| record.labels.get(key).map(String::as_str);
            let wanted = filters.pattern("name", &record.name)
                && filters.exact("driver", DRIVER)
                && filters.labels("label", label)
                && dangling
                    .is_none_or(|dangling| self.volume_users(&record.name).is_empty() == dangling);
            if wanted {
                volumes.push(self.volumes.to_api(&record));
            }
        }
        Ok(volumes)
    }

    fn volume_remove_now(&self, name: &str) -> Result<(), Error> {
        self.volumes.remove_unless(name, || self.volume_users(name))?;
        self.volume_event(name, "destroy");
        Ok(())
    }

    /// `DELETE /volumes/{name}`. With `force` a volume that is not there is no error.
    pub async fn volume_remove(self: &Arc<Self>, name: &str, force: bool) -> Result<(), Error> {
        let (engine, name) = (Arc::clone(self), name.to_owned());
        let removed = tokio::task::spawn_blocking(move || engine.volume_remove_now(&name))
            .await
            .map_err(|error| Error::internal(format!("remove volume: {error}")))?;
        match removed {
            Err(error) if force && error.kind() == ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// `POST /volumes/prune`.
    pub async fn volume_prune(
        self: &Arc<Self>,
        filters: &Filters,
    ) -> Result<VolumesPruneReport, Error> {
        filters.validate(&["label", "label!", "all"])?;
        let (engine, filters) = (Arc::clone(self), filters.clone());
        let all = filters.boolean("all", false)?;
        tokio::task::spawn_blocking(move || engine.volume_prune_now(&filters, all))
            .await
            .map_err(|error| Error::internal(format!("prune volumes: {error}")))
    }

    fn volume_prune_now(&self, filters: &Filters, all: bool) -> VolumesPruneReport {
        let mut report = VolumesPruneReport::default();
        for record in self.volumes.all() {
            let label = |key: &str| record.labels.get(key).map(String::as_str);
            let excluded = filters.contains("label!") && filters.labels("label!", label);
            if !(all || record.is_anonymous()) || !filters.labels("label", label) || excluded {
                continue;
            }
            // Options may point at data that is not ours.
            if !record.options.is_empty() || !self.volume_users(&record.name).is_empty() {
                continue;
            }
            let size = tree_size(&self.volumes.data_dir(&record.name));
            if let Err(error) = self.volume_remove_now(&record.name) {
                tracing::warn!(volume = record.name, error = error.chain(), "prune volume");
                continue;
            }
            report.space_reclaimed += size;
            report.volumes_deleted.make().push(record.name.clone());
        }
        let reclaimed = report.space_reclaimed.to_string();
        let attributes = BTreeMap::from([("reclaimed".to_owned(), reclaimed)]);
        self.events.publish("volume", "prune", "", attributes);
        report
    }

    /// Removes the volumes of containers that are missing: their creation or removal was cut off.
    pub(crate) fn volumes_without_owner(&self, known: &HashSet<String>) {
        for record in self.volumes.all() {
            if record.owner.as_ref().is_none_or(|owner| known.contains(owner)) {
                continue;
            }
            tracing::info!(volume = record.name, "removing the volume of a missing container");
            self.volume_remove_owned(&record.name);
        }
    }

    /// Removes a volume whose container goes; one that others use becomes as any other.
    pub(crate) fn volume_remove_owned(&self, name: &str) {
        let outcome = match self.volume_remove_now(name) {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                self.volumes.disown(std::iter::once(name))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        };
        if let Err(error) = outcome {
            tracing::warn!(volume = name, error = error.chain(), "remove volume");
        }
    }

    /// Volumes with their sizes and users, as `docker system df -v` shows them.
    pub(crate) fn volume_usage(&self) -> Vec<Volume> {
        let mut volumes = Vec::new();
        for record in self.volumes.all() {
            let mut volume = self.volumes.to_api(&record);
            let users = self.volume_users(&record.name).len();
            // Data behind options is somebody else's and may be remote.
            let size = if record.options.is_empty() {
                i64::try_from(tree_size(&self.volumes.data_dir(&record.name))).unwrap_or(i64::MAX)
            } else {
                0
            };
            let ref_count = i64::try_from(users).unwrap_or(i64::MAX);
            volume.usage_data = Some(VolumeUsage { ref_count, size });
            volumes.push(volume);
        }
        volumes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes() -> (tempfile::TempDir, Volumes) {
        let dir = tempfile::tempdir().unwrap();
        let db = Arc::new(Db::in_memory().unwrap());
        let volumes = Volumes::open(dir.path(), &db).unwrap();
        (dir, volumes)
    }

    fn request(name: &str, options: &[(&str, &str)]) -> VolumeCreateRequest {
        let options: BTreeMap<String, String> =
            options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let driver_opts = if options.is_empty() { Map::null() } else { options.into() };
        VolumeCreateRequest { name: name.into(), driver_opts, ..VolumeCreateRequest::default() }
    }

    #[test]
    fn made_once_and_removed() {
        let (_dir, volumes) = volumes();
        let (record, hold, new) = volumes.create(request("data", &[]), None).unwrap();
        assert!(new && !record.is_anonymous() && volumes.data_dir("data").is_dir());
        assert!(!volumes.create(request("data", &[("x", "y")]), None).unwrap().2);
        assert_eq!(
            volumes.remove("data", &[]).unwrap_err().message(),
            "remove data: volume is in use - []"
        );
        drop(hold);
        assert_eq!(
            volumes.remove("data", &["c1".into(), "c2".into()]).unwrap_err().message(),
            "remove data: volume is in use - [c1, c2]"
        );
        volumes.remove("data", &[]).unwrap();
        assert!(!volumes.root.join("data").exists());
        let error = volumes.remove("data", &[]).unwrap_err();
        assert_eq!(error.message(), "get data: no such volume");
    }

    #[test]
    fn records_survive() {
        let (dir, volumes) = volumes();
        let name = volumes.create(request("", &[]), None).unwrap().0.name.clone();
        let again = Volumes::open(dir.path(), &volumes.db).unwrap();
        assert!(again.get(&name).unwrap().is_anonymous());
        assert_eq!(again.to_api(&again.get(&name).unwrap()).options, Map::null());
    }

    #[test]
    fn what_was_cut_off_is_finished() {
        let (dir, volumes) = volumes();
        for name in ["begun", "half", "kept"] {
            drop(volumes.create(request(name, &[]), Some("c1")).unwrap());
            fs_err::write(volumes.data_dir(name).join("file"), "x").unwrap();
        }
        // A creation that wrote its record only, and a removal that removed half of it.
        fs_err::remove_dir_all(dir.path().join("begun")).unwrap();
        let half =
            VolumeRecord { removed: true, ..VolumeRecord::clone(&volumes.get("half").unwrap()) };
        volumes.write(&half).unwrap();
        // Somebody else's.
        fs_err::create_dir(dir.path().join("f".repeat(64))).unwrap();
        let again = Volumes::open(dir.path(), &volumes.db).unwrap();
        let names: Vec<_> = again.all().iter().map(|record| record.name.clone()).collect();
        assert_eq!(names, ["begun", "kept"]);
        assert!(again.data_dir("begun").is_dir());
        assert!(again.data_dir("kept").join("file").exists());
        assert!(!dir.path().join("half").exists());
        assert!(dir.path().join("f".repeat(64)).exists());
        // A removal that nobody has seen the disk finish is done again, and its name is free.
        again.remove("kept", &[]).unwrap();
        fs_err::create_dir(dir.path().join("kept")).unwrap();
        let again = Volumes::open(dir.path(), &volumes.db).unwrap();
        assert!(!dir.path().join("kept").exists());
        assert_eq!(volumes.db.volumes().unwrap().len(), 1);
        drop(again.create(request("half", &[]), None).unwrap());
        assert!(again.data_dir("half").is_dir());
    }

    #[test]
    fn only_what_nobody_named_has_an_owner() {
        let (dir, volumes) = volumes();
        drop(volumes.create(request("named", &[]), Some("c1")).unwrap());
        let name = volumes.create(request("", &[]), Some("c1")).unwrap().0.name.clone();
        assert_eq!(volumes.get("named").unwrap().owner, None);
        assert_eq!(volumes.get(&name).unwrap().owner.as_deref(), Some("c1"));
        volumes.disown(["named", &name, "missing"].into_iter()).unwrap();
        let again = Volumes::open(dir.path(), &volumes.db).unwrap();
        assert_eq!(again.get(&name).unwrap().owner, None);
    }

    #[test]
    fn bad_requests_have_dockers_words() {
        let (_dir, volumes) = volumes();
        for (name, options, expected) in [
            (
                "a",
                &[][..],
                "create a: volume name is too short, names should be at least two \
                alphanumeric characters",
            ),
            (
                "../x",
                &[],
                "create ../x: \"../x\" includes invalid characters for a local volume \
                name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a \
                host directory, use absolute path",
            ),
            ("ok", &[("x", "y")], "create ok: invalid option: \"x\""),
            ("ok", &[("type", "tmpfs")], "create ok: missing required option: \"device\""),
            ("ok", &[("device", "/x")], "create ok: missing required option: \"type\""),
            ("ok", &[("o", "ro")], "create ok: missing required option: \"device\""),
            ("ok", &[("size", "1m")], "create ok: quota size requested but no quota support"),
        ] {
            let error = volumes.create(request(name, options), None).map(|_| ()).unwrap_err();
            assert_eq!(error.message(), expected);
            assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        }
        let driver = VolumeCreateRequest { driver: "no".into(), ..request("ok", &[]) };
        assert_eq!(
            volumes.create(driver, None).map(|_| ()).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn tmpfs_is_mounted_while_used() {
        let (_dir, volumes) = volumes();
        let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,mode=700,nosuid")];
        drop(volumes.create(request("ram", &options), None).unwrap());
        let data = volumes.acquire("ram", "c1").unwrap();
        volumes.acquire("ram", "c2").unwrap();
        assert!(mount::is_mounted(&data).unwrap());
        volumes.release("ram", "c1");
        assert!(mount::is_mounted(&data).unwrap());
        volumes.release("ram", "c2");
        assert!(!mount::is_mounted(&data).unwrap());
        let bind = [("type", "none"), ("device", "/srv"), ("o", "bind")];
        drop(volumes.create(request("bound", &bind), None).unwrap());
        assert_eq!(volumes.acquire("bound", "c1").unwrap(), Path::new("/srv"));
    }
}

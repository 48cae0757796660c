//! The engine's own images as repositories that can only be read.
//!
//! They are below one name of their own, so that no push goes there: `engine/busybox` is the
//! engine's `busybox`, and `engine/quay.io/a/b` its `quay.io/a/b`. Of a registry's port the colon
//! becomes `_`. Nothing is copied: manifests, configurations and compressed layers are the
//! engine's files, and a layer that it has only unpacked goes out as the tar that it was, made
//! anew, whose digest is that of the image's configuration. What is given out in place of a
//! manifest or an index all of which is not here: see [`given`].
//!
//! Names come from the engine's database, `silo.db` (table `tags`: name, image, list), which is
//! opened for reading only; see the engine's `db.rs` for its form.
//!
//! # What is remembered
//!
//! What a repository has is found out once, with a few files read for each of its images, and
//! looked up from then on. Whether the engine has changed anything is asked for each request: of
//! the database its count of changes by others (SQLite's `data_version`), and of the store whether
//! its list is the same file still. The names are read before the list, as the engine records an
//! image before its names. What is remembered and then is not to be found is looked for once more.

mod given;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use silo_oci::reference::Reference as Named;
use silo_store::{Layer, Listing, View};
use silo_types::Digest as Sha256;

use self::given::Given;
use crate::Error;
use crate::error::Refusal;
use crate::name::{Digest, Name, Reference};
use crate::store::Stored;

/// The engine's images.
#[derive(Debug)]
pub(crate) struct EngineImages {
    database: PathBuf,
    pub(crate) view: View,
    /// The first elements of their names, with a slash.
    prefix: String,
    known: Mutex<Known>,
}

/// A blob of an image.
#[derive(Debug)]
pub(crate) enum Content {
    /// A file and its size.
    File(std::fs::File, u64),
    /// A tar that is made as it goes out.
    Layer(Box<Layer>),
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    /// The image that the engine runs.
    image: Sha256,
    /// The index that it is of.
    index: Option<Sha256>,
}

/// Repositories with their tags.
type Names = BTreeMap<String, BTreeMap<String, Target>>;

/// What is remembered.
#[derive(Debug, Default)]
struct Known {
    database: Option<Database>,
    /// The database's count of changes by others, and what it had then.
    names: Option<(i64, Arc<Names>)>,
    state: Option<Arc<State>>,
}

/// The open database.
#[derive(Debug)]
struct Database {
    connection: Connection,
    /// Device and inode: no other file has them as long as this one is open.
    file: (u64, u64),
}

/// What the engine has at one moment.
#[derive(Debug, Default)]
struct State {
    names: Arc<Names>,
    listing: Arc<Listing>,
    /// Layers by the digests of their tars, for images whose own are not here.
    layers: OnceLock<HashMap<Sha256, Sha256>>,
    /// What was found out about manifests.
    images: Mutex<HashMap<Sha256, Arc<Given>>>,
    repositories: Mutex<HashMap<String, Arc<Repository>>>,
}

/// What one repository has.
#[derive(Debug, Default)]
struct Repository {
    tags: BTreeMap<String, Arc<Given>>,
    documents: HashMap<Sha256, Arc<Given>>,
    /// Blobs that are here; with the chain id and the tar's digest if it is a layer.
    blobs: HashMap<Sha256, Option<(Sha256, Sha256)>>,
}

impl Repository {
    fn add(&mut self, given: &Arc<Given>) {
        if self.documents.insert(given.digest, Arc::clone(given)).is_none() {
            self.blobs.extend(given.blobs.iter().copied());
            for below in &given.manifests {
                self.add(below);
            }
        }
    }
}

/// A panic of another thread leaves something to be found out again.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EngineImages {
    pub(crate) fn new(data_root: &Path, prefix: &Name) -> Self {
        Self {
            database: data_root.join("silo.db"),
            view: View::new(data_root),
            prefix: format!("{prefix}/"),
            known: Mutex::default(),
        }
    }

    /// Whether a repository is one of these, there or not.
    pub(crate) fn owns(&self, repository: &Name) -> bool {
        repository.as_str().starts_with(&self.prefix)
            || self.prefix.trim_end_matches('/') == repository.as_str()
    }

    /// What the engine has now.
    fn state(&self) -> Result<Arc<State>, Error> {
        let mut known = lock(&self.known);
        let names = self.names(&mut known)?;
        let same_list = match &known.state {
            Some(state) => self.view.is_current(&state.listing)?,
            None => false,
        };
        let listing = match &known.state {
            Some(state) if same_list && Arc::ptr_eq(&state.names, &names) => {
                return Ok(Arc::clone(state));
            }
            Some(state) if same_list => Arc::clone(&state.listing),
            _ => Arc::new(self.view.list()?),
        };
        let state = Arc::new(State { names, listing, ..State::default() });
        if let Some(before) = &known.state {
            // What goes out as it came does not change.
            let (old, new) = (&before.listing.images, &state.listing.images);
            let kept = lock(&before.images).clone().into_iter().filter(|(_, given)| {
                let same = |id: &Sha256| old.get(id).is_some_and(|it| new.get(id) == Some(it));
                given.is_whole() && given.image.as_ref().is_some_and(same)
            });
            lock(&state.images).extend(kept);
        }
        known.state = Some(Arc::clone(&state));
        Ok(state)
    }

    /// Looks for everything anew.
    fn forget(&self, state: &Arc<State>) {
        let mut known = lock(&self.known);
        if known.state.as_ref().is_some_and(|now| Arc::ptr_eq(now, state)) {
            known.state = None;
        }
    }

    /// The number of the database's file.
    fn database_file(&self) -> Result<Option<(u64, u64)>, Error> {
        match fs_err::metadata(&self.database) {
            Ok(found) => Ok(Some((found.dev(), found.ino()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("look at", &self.database)(error)),
        }
    }

    /// All names.
    fn names(&self, known: &mut Known) -> Result<Arc<Names>, Error> {
        let Some(file) = self.database_file()? else {
            known.database = None;
            known.names = None;
            let none = known.state.as_ref().map(|state| Arc::clone(&state.names));
            return Ok(none.filter(|names| names.is_empty()).unwrap_or_default());
        };
        if known.database.as_ref().is_none_or(|database| database.file != file) {
            known.names = None;
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.database, flags)?;
            connection.busy_timeout(Duration::from_secs(10))?;
            // If it was replaced just now, this one does not count the next time.
            known.database = Some(Database { connection, file });
        }
        let Some(database) = &known.database else { return Ok(Arc::default()) };
        let result = self.read_names(&database.connection, known.names.as_ref());
        match result {
            Ok((version, names)) => {
                known.names = Some((version, Arc::clone(&names)));
                Ok(names)
            }
            Err(error) => {
                known.database = None;
                known.names = None;
                Err(error)
            }
        }
    }

    fn read_names(
        &self,
        db: &Connection,
        before: Option<&(i64, Arc<Names>)>,
    ) -> Result<(i64, Arc<Names>), Error> {
        // Before the names: what is changed between the two is read again the next time.
        let version: i64 = db.query_row("PRAGMA data_version", [], |row| row.get(0))?;
        if let Some((_, names)) = before.filter(|(before, _)| *before == version) {
            return Ok((version, Arc::clone(names)));
        }
        let mut names = Names::new();
        let columns = "SELECT 1 FROM pragma_table_info('tags') WHERE name = 'list'";
        // An engine that has not been started since it knows indexes has none.
        let list = if db.prepare(columns)?.exists([])? { "list" } else { "NULL" };
        let mut statement = db.prepare(&format!("SELECT name, image, {list} FROM tags"))?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        for row in rows {
            let (name, image, index): (String, String, Option<String>) = row?;
            let (Ok(name), Ok(image)) = (Named::parse(&name), image.parse()) else { continue };
            let Some(tag) = name.tag() else { continue };
            let index = index.and_then(|index| index.parse().ok());
            if let Some(repository) = self.repository_name(&name) {
                let target = Target { image, index };
                names.entry(repository).or_default().insert(tag.to_owned(), target);
            }
        }
        // Most changes are of containers.
        let same = before.filter(|(_, before)| **before == names);
        Ok((version, same.map_or_else(|| Arc::new(names), |(_, before)| Arc::clone(before))))
    }

    /// Under which name an image's repository is served; `None` if there is none for it.
    fn repository_name(&self, name: &Named) -> Option<String> {
        let familiar = name.familiar_name();
        let own = match familiar.split_once('/') {
            Some((domain, path)) if domain == name.domain() => {
                let plain =
                    |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' };
                let domain: String = domain.to_lowercase().chars().map(plain).collect();
                format!("{domain}/{path}")
            }
            _ => familiar,
        };
        let whole = format!("{}{own}", self.prefix);
        whole.parse::<Name>().is_ok().then_some(whole)
    }

    /// All repositories.
    pub(crate) fn repositories(&self) -> Result<BTreeSet<String>, Error> {
        Ok(self.state()?.names.keys().cloned().collect())
    }

    /// The tags of a repository.
    pub(crate) fn tags(&self, repository: &Name) -> Result<Vec<String>, Error> {
        let state = self.state()?;
        let tags = state.names.get(repository.as_str()).ok_or_else(Refusal::no_repository)?;
        Ok(tags.keys().cloned().collect())
    }

    /// What a repository has.
    fn repository(&self, state: &State, name: &Name) -> Result<Arc<Repository>, Error> {
        if let Some(found) = lock(&state.repositories).get(name.as_str()) {
            return Ok(Arc::clone(found));
        }
        let tags = state.names.get(name.as_str()).ok_or_else(Refusal::no_repository)?;
        let mut repository = Repository::default();
        let mut is_complete = true;
        let mut failed = |error: Error| {
            is_complete = false;
            tracing::warn!(error = error.chain(), repository = %name, "the engine's image");
        };
        for target in tags.values().collect::<BTreeSet<_>>() {
            let image = given::image(&self.view, state, &target.image);
            let image = image.map_err(&mut failed).ok().flatten();
            let index = target.index.map(|index| given::index(&self.view, state, &index));
            let index = index.and_then(|index| index.map_err(&mut failed).ok());
            let given::Forms { tagged: index, own } = index.unwrap_or_default();
            // Who has its digest gets the index as it came, with the images that are here.
            for given in [&image, &index, &own].into_iter().flatten() {
                repository.add(given);
            }
            if let Some(given) = index.or(image) {
                let its = tags.iter().filter(|(_, other)| *other == target);
                repository.tags.extend(its.map(|(tag, _)| (tag.clone(), Arc::clone(&given))));
            }
        }
        let repository = Arc::new(repository);
        if is_complete {
            let kept = Arc::clone(&repository);
            lock(&state.repositories).insert(name.as_str().to_owned(), kept);
        }
        Ok(repository)
    }

    /// Looks something up; once more if it was to be found and is not.
    fn look_up<T>(
        &self,
        name: &Name,
        find: impl Fn(&Repository) -> Result<Option<T>, Error>,
        absent: impl FnOnce() -> Refusal,
    ) -> Result<T, Error> {
        let state = self.state()?;
        let error = match find(&*self.repository(&state, name)?) {
            Ok(found) => return found.ok_or_else(|| absent().into()),
            Err(error) => error,
        };
        tracing::debug!(error = error.chain(), repository = %name, "looked for once more");
        self.forget(&state);
        let state = self.state()?;
        match find(&*self.repository(&state, name)?) {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(absent().into()),
            Err(Error::Refused(_)) => Err(absent().into()),
            Err(again) => Err(again),
        }
    }

    /// A manifest or an index, with its bytes if they are asked for.
    pub(crate) fn manifest(
        &self,
        repository: &Name,
        reference: &Reference,
        whole: bool,
    ) -> Result<(Stored, Vec<u8>), Error> {
        let find = |repository: &Repository| {
            let given = match reference {
                Reference::Tag(tag) => repository.tags.get(tag),
                Reference::Digest(digest) => {
                    let digest = digest.to_string().parse().ok();
                    digest.and_then(|digest: Sha256| repository.documents.get(&digest))
                }
            };
            let Some(given) = given else { return Ok(None) };
            let bytes = match &given.made {
                _ if !whole => Vec::new(),
                Some(bytes) => bytes.clone(),
                None => self.view.document(&given.digest)?,
            };
            let digest = given.digest.to_string().parse()?;
            let media_type = given.media_type.clone();
            Ok(Some((Stored { digest, media_type, size: given.size }, bytes)))
        };
        self.look_up(repository, find, || {
            let mut refusal = Refusal::no_manifest();
            refusal.message = format!("manifest unknown: {reference}");
            refusal
        })
    }

    /// A blob that an image of a repository has.
    pub(crate) fn blob(&self, repository: &Name, digest: &Digest) -> Result<Content, Error> {
        let wanted: Sha256 = digest.to_string().parse().map_err(|_| Refusal::no_blob())?;
        let find = |repository: &Repository| {
            let layer = match repository.blobs.get(&wanted) {
                Some(layer) => *layer,
                // Of manifests, only the engine's own files.
                None if repository.documents.get(&wanted).is_some_and(|it| it.made.is_none()) => {
                    None
                }
                None => return Ok(None),
            };
            if let Some((file, size)) = self.view.blob(&wanted)? {
                return Ok(Some(Content::File(file, size)));
            }
            let layer = layer.filter(|(_, diff_id)| *diff_id == wanted);
            match layer.and_then(|(chain, diff_id)| self.view.layer(&chain, &diff_id)) {
                Some(layer) => Ok(Some(Content::Layer(Box::new(layer)))),
                None => Err(Refusal::no_blob().into()),
            }
        };
        self.look_up(repository, find, Refusal::no_blob)
    }
}

#[cfg(test)]
mod tests;

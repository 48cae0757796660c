//! The build cache: which step on which layers with which inputs makes which layer.
//!
//! # On disk
//!
//! `<data>/build/cache.db` (SQLite). A record is of one step: its key is the SHA-256 of everything
//! that the step depends on, its value the chain id of the layers after it. The layers themselves
//! are the store's; a record keeps them from being collected. An alias is another key by which
//! the same record is found without looking at the contents of its inputs. Nothing here is worth
//! a flush: what a power cut takes is made again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};
use sha2::{Digest as _, Sha256};
use silo_store::{Lease, Store};
use silo_types::{Digest, Error};

/// The tables.
const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = OFF;
    CREATE TABLE IF NOT EXISTS records (
        key TEXT PRIMARY KEY,
        parent TEXT,
        chain TEXT,
        kind TEXT NOT NULL,
        description TEXT NOT NULL,
        created INTEGER NOT NULL,
        last_used INTEGER NOT NULL,
        uses INTEGER NOT NULL,
        size INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS aliases (key TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
";

/// The end of a statement that records a step.
const INTO_RECORDS: &str = "INTO records
    (key, parent, chain, kind, description, created, last_used, uses, size)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

/// Gathers what a step depends on.
#[derive(Debug, Clone)]
pub(crate) struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// The key of a kind of step.
    pub(crate) fn new(kind: &str) -> Self {
        let mut builder = Self(Sha256::new());
        builder.field("silo build 1");
        builder.field(kind);
        builder
    }

    /// Adds a field; its length makes sure that it is not taken for another's part.
    pub(crate) fn field(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds a list.
    pub(crate) fn list<T: AsRef<[u8]>>(&mut self, items: impl IntoIterator<Item = T>) {
        let items: Vec<T> = items.into_iter().collect();
        self.0.update((items.len() as u64).to_le_bytes());
        for item in &items {
            self.field(item);
        }
    }

    /// Adds layers.
    pub(crate) fn chain(&mut self, chain: Option<&Digest>) {
        self.field(chain.map(ToString::to_string).unwrap_or_default());
    }

    /// The key.
    pub(crate) fn finish(self) -> String {
        silo_types::digest::hex(&self.0.finalize())
    }
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: String,
    /// The layers before the step.
    pub(crate) parent: Option<Digest>,
    /// The layers after it.
    pub(crate) chain: Option<Digest>,
    pub(crate) kind: String,
    pub(crate) description: String,
    /// Nanoseconds since 1970.
    pub(crate) created: i64,
    pub(crate) last_used: i64,
    pub(crate) uses: u64,
    /// Bytes of the layer's files.
    pub(crate) size: u64,
}

/// Another key of a record; without a record it notes a configuration that a build came by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alias {
    pub(crate) key: String,
    pub(crate) record: String,
}

/// A step whose result is known.
#[derive(Debug)]
pub(crate) struct Hit {
    /// The key of its record.
    pub(crate) key: String,
    /// The layers after it.
    pub(crate) chain: Option<Digest>,
    /// When they were made.
    pub(crate) created: i64,
    /// Keeps them.
    pub(crate) lease: Option<Arc<Lease>>,
}

/// The cache of one data root.
#[derive(Debug)]
pub(crate) struct Cache {
    inner: Mutex<Inner>,
    store: Arc<Store>,
}

#[derive(Debug)]
struct Inner {
    db: Connection,
    leases: HashMap<String, Arc<Lease>>,
    /// One step is carried out once at a time.
    running: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
}

fn failed(operation: &'static str) -> impl FnOnce(rusqlite::Error) -> Error {
    move |error| Error::internal(format!("build cache: {operation}: {error}"))
}

impl Cache {
    /// Opens the cache in a directory. One that cannot be read is begun anew.
    pub(crate) fn open(directory: &Path, store: Arc<Store>) -> Result<Self, Error> {
        fs_err::create_dir_all(directory).map_err(|error| Error::internal(error.to_string()))?;
        let path = directory.join("cache.db");
        let open = || -> rusqlite::Result<Connection> {
            let db = Connection::open(&path)?;
            db.execute_batch(SCHEMA)?;
            Ok(db)
        };
        let db = match open() {
            Ok(db) => db,
            Err(error) => {
                tracing::warn!(%error, "the build cache is begun anew");
                for name in ["cache.db", "cache.db-wal", "cache.db-shm"] {
                    drop(fs_err::remove_file(directory.join(name)));
                }
                open().map_err(failed("open"))?
            }
        };
        let inner = Inner { db, leases: HashMap::new(), running: HashMap::new() };
        let cache = Self { inner: Mutex::new(inner), store };
        for record in cache.records()? {
            let Some(chain) = &record.chain else { continue };
            match cache.store.hold_layer(chain) {
                Some((_, lease)) => {
                    cache.lock().leases.insert(record.key, Arc::new(lease));
                }
                None => cache.forget(&[record.key])?,
            }
        }
        Ok(cache)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All records, the oldest first.
    pub(crate) fn records(&self) -> Result<Vec<Record>, Error> {
        let inner = self.lock();
        let mut statement = inner
            .db
            .prepare(
                "SELECT key, parent, chain, kind, description, created, last_used, uses, size
                 FROM records ORDER BY last_used, key",
            )
            .map_err(failed("list"))?;
        let rows = statement.query_map([], read).map_err(failed("list"))?;
        rows.collect::<Result<_, _>>().map_err(failed("list"))
    }

    /// Finds a step by its key or an alias of it.
    pub(crate) fn get(&self, key: &str) -> Result<Option<Hit>, Error> {
        let inner = self.lock();
        let found: Option<Record> = inner
            .db
            .prepare_cached(
                "SELECT key, parent, chain, kind, description, created, last_used, uses, size
                 FROM records
                 WHERE key = ?1 OR key = (SELECT record FROM aliases WHERE key = ?1)",
            )
            .and_then(|mut statement| statement.query_row([key], read).optional())
            .map_err(failed("look up"))?;
        let Some(record) = found else { return Ok(None) };
        let lease = match &record.chain {
            None => None,
            Some(chain) => match self.store.hold_layer(chain) {
                Some((_, lease)) => Some(Arc::new(lease)),
                None => return Ok(None),
            },
        };
        let now = now();
        inner
            .db
            .prepare_cached("UPDATE records SET last_used = ?2, uses = uses + 1 WHERE key = ?1")
            .and_then(|mut statement| statement.execute(params![record.key, now]))
            .map_err(failed("note a use"))?;
        Ok(Some(Hit { key: record.key, chain: record.chain, created: record.created, lease }))
    }

    /// Records a step. `lease` holds its layers.
    pub(crate) fn put(&self, record: &Record, lease: Option<Arc<Lease>>) -> Result<(), Error> {
        let mut inner = self.lock();
        inner
            .db
            .prepare_cached(&format!("INSERT OR REPLACE {INTO_RECORDS}"))
            .and_then(|mut statement| statement.execute(params_from_iter(values(record))))
            .map_err(failed("record"))?;
        match lease {
            Some(lease) => drop(inner.leases.insert(record.key.clone(), lease)),
            None => drop(inner.leases.remove(&record.key)),
        }
        Ok(())
    }

    /// Records steps that are not known, and further keys, all at once. Tells how many steps are
    /// new.
    pub(crate) fn put_new(
        &self,
        records: Vec<(Record, Option<Arc<Lease>>)>,
        aliases: &[Alias],
    ) -> Result<u64, Error> {
        let mut inner = self.lock();
        let transaction = inner.db.transaction().map_err(failed("record"))?;
        let mut new = Vec::new();
        for (record, lease) in records {
            let count = transaction
                .prepare_cached(&format!("INSERT OR IGNORE {INTO_RECORDS}"))
                .and_then(|mut statement| statement.execute(params_from_iter(values(&record))))
                .map_err(failed("record"))?;
            if count > 0 {
                new.push((record.key, lease));
            }
        }
        for alias in aliases {
            transaction
                .prepare_cached("INSERT OR IGNORE INTO aliases (key, record) VALUES (?1, ?2)")
                .and_then(|mut statement| statement.execute([&alias.key, &alias.record]))
                .map_err(failed("record"))?;
        }
        transaction.commit().map_err(failed("record"))?;
        let count = new.len() as u64;
        let held = new.into_iter().filter_map(|(key, lease)| Some((key, lease?)));
        inner.leases.extend(held);
        Ok(count)
    }

    /// The further keys of a record.
    pub(crate) fn aliases(&self, record: &str) -> Result<Vec<String>, Error> {
        let inner = self.lock();
        let mut statement = inner
            .db
            .prepare_cached("SELECT key FROM aliases WHERE record = ?1 ORDER BY key")
            .map_err(failed("list"))?;
        let keys = statement.query_map([record], |row| row.get(0)).map_err(failed("list"))?;
        keys.collect::<Result<_, _>>().map_err(failed("list"))
    }

    /// The configurations that builds came by.
    pub(crate) fn configurations(&self) -> Result<Vec<String>, Error> {
        self.aliases("")
    }

    /// Gives a record another key.
    pub(crate) fn alias(&self, key: &str, record: &str) -> Result<(), Error> {
        self.lock()
            .db
            .prepare_cached("INSERT OR REPLACE INTO aliases (key, record) VALUES (?1, ?2)")
            .and_then(|mut statement| statement.execute([key, record]))
            .map(drop)
            .map_err(failed("record"))
    }

    /// Whether there is such an alias, whatever it leads to.
    pub(crate) fn has_alias(&self, key: &str) -> Result<bool, Error> {
        self.lock()
            .db
            .prepare_cached("SELECT 1 FROM aliases WHERE key = ?1")
            .and_then(|mut statement| statement.exists([key]))
            .map_err(failed("look up"))
    }

    /// Forgets records; their layers go with the store's next collection.
    pub(crate) fn forget(&self, keys: &[String]) -> Result<(), Error> {
        let mut inner = self.lock();
        let transaction = inner.db.transaction().map_err(failed("forget"))?;
        for key in keys {
            transaction
                .execute("DELETE FROM records WHERE key = ?1", [key])
                .and_then(|_| {
                    transaction.execute("DELETE FROM aliases WHERE record IN (?1, '')", [key])
                })
                .map_err(failed("forget"))?;
        }
        transaction.commit().map_err(failed("forget"))?;
        for key in keys {
            inner.leases.remove(key);
        }
        Ok(())
    }

    /// Forgets keys that lead nowhere any more, and the oldest beyond a number. What was found by
    /// them is found by its contents, or made again.
    pub(crate) fn bound(&self, keys: u64) -> Result<(), Error> {
        let keys = i64::try_from(keys).unwrap_or(i64::MAX);
        let mut inner = self.lock();
        let transaction = inner.db.transaction().map_err(failed("bound"))?;
        transaction
            .execute(
                "DELETE FROM aliases WHERE record <> '' AND record NOT IN (SELECT key FROM records)",
                [],
            )
            .and_then(|_| {
                // A key that is used again is written again.
                transaction.execute(
                    "DELETE FROM aliases WHERE rowid <= \
                     (SELECT rowid FROM aliases ORDER BY rowid DESC LIMIT 1 OFFSET ?1)",
                    [keys],
                )
            })
            .map_err(failed("bound"))?;
        transaction.commit().map_err(failed("bound"))
    }

    /// A lock for as long as a step with this key is carried out, so that of two that are the
    /// same the second finds the first's result.
    pub(crate) fn turn(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut inner = self.lock();
        inner.running.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(inner.running.entry(key.to_owned()).or_default())
    }

    /// Whether a step with this key is carried out now.
    pub(crate) fn is_running(&self, key: &str) -> bool {
        self.lock().running.get(key).is_some_and(|lock| Arc::strong_count(lock) > 1)
    }
}

/// The values of [`INTO_RECORDS`].
fn values(record: &Record) -> [Box<dyn rusqlite::ToSql>; 9] {
    let text = |digest: &Option<Digest>| digest.map(|digest| digest.to_string());
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    [
        Box::new(record.key.clone()),
        Box::new(text(&record.parent)),
        Box::new(text(&record.chain)),
        Box::new(record.kind.clone()),
        Box::new(record.description.clone()),
        Box::new(record.created),
        Box::new(record.last_used),
        Box::new(number(record.uses)),
        Box::new(number(record.size)),
    ]
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Record> {
    let digest = |at| -> rusqlite::Result<Option<Digest>> {
        Ok(row.get::<_, Option<String>>(at)?.and_then(|text| text.parse().ok()))
    };
    let count = |at| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0));
    Ok(Record {
        key: row.get(0)?,
        parent: digest(1)?,
        chain: digest(2)?,
        kind: row.get(3)?,
        description: row.get(4)?,
        created: row.get(5)?,
        last_used: row.get(6)?,
        uses: count(7)?,
        size: count(8)?,
    })
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str) -> Record {
        Record {
            key: key.into(),
            parent: None,
            chain: None,
            kind: "regular".into(),
            description: "RUN x".into(),
            created: 5,
            last_used: 6,
            uses: 0,
            size: 7,
        }
    }

    #[test]
    fn records_are_found_by_key_and_alias() {
        let temporary = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(temporary.path()).unwrap());
        let directory = temporary.path().join("build");
        let cache = Cache::open(&directory, Arc::clone(&store)).unwrap();
        cache.put(&record("a"), None).unwrap();
        cache.alias("fast", "a").unwrap();
        for key in ["a", "fast"] {
            assert_eq!(cache.get(key).unwrap().unwrap().created, 5, "{key}");
        }
        assert!(cache.get("b").unwrap().is_none());
        assert_eq!(cache.records().unwrap()[0].uses, 2);
        // A layer that is gone takes its record with it.
        let lost = Digest::from_sha256([7; 32]);
        cache.put(&Record { chain: Some(lost), ..record("lost") }, None).unwrap();
        assert!(cache.get("lost").unwrap().is_none());
        drop(cache);
        let cache = Cache::open(&directory, Arc::clone(&store)).unwrap();
        assert_eq!(cache.records().unwrap().len(), 1);
        cache.forget(&["a".into()]).unwrap();
        assert!(cache.get("fast").unwrap().is_none());
        drop(cache);
        fs_err::write(directory.join("cache.db"), "not a database at all, but long enough")
            .unwrap();
        assert!(Cache::open(&directory, store).unwrap().records().unwrap().is_empty());
    }

    #[test]
    fn keys_are_bounded() {
        let temporary = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(temporary.path()).unwrap());
        let cache = Cache::open(&temporary.path().join("build"), store).unwrap();
        cache.put(&record("a"), None).unwrap();
        for (key, record) in [("1", "a"), ("2", ""), ("3", "gone"), ("4", "a"), ("1", "a")] {
            cache.alias(key, record).unwrap();
        }
        cache.bound(10).unwrap();
        assert_eq!(cache.aliases("a").unwrap(), ["1", "4"]);
        assert!(cache.aliases("gone").unwrap().is_empty());
        assert!(cache.has_alias("2").unwrap());
        // The one that was written last stays.
        cache.bound(2).unwrap();
        assert_eq!(cache.aliases("a").unwrap(), ["1", "4"]);
        assert!(!cache.has_alias("2").unwrap());
        cache.bound(1).unwrap();
        assert_eq!(cache.aliases("a").unwrap(), ["1"]);
        assert!(cache.get("a").unwrap().is_some());
    }

    #[test]
    fn fields_do_not_run_together() {
        let key = |fields: &[&str]| {
            let mut builder = KeyBuilder::new("x");
            builder.list(fields);
            builder.finish()
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a"]), key(&["a", ""]));
        assert_eq!(key(&["a"]), key(&["a"]));
    }
}

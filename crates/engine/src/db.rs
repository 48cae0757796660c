//! Records on disk: one SQLite file, `<data>/silo.db`, in WAL mode.
//!
//! `PRAGMA user_version` counts the migrations that have run. Documents (a container's
//! configuration, an image's record) are JSON text, written and read whole by their owners; what
//! must be unique or looked up has a column.
//!
//! Writes that make, remove or name an object are synced to the disk (`Sync::Full`); changes of
//! state are not (`Sync::Normal`), because what they say can be told again from the shims. A
//! power cut may lose the latter but never tears the file.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};
use silo_types::{ErrorKind, Kind};

/// A failure of the database.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The file could not be opened.
    #[error("open database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: rusqlite::Error,
    },
    /// The file was written by a newer Silo.
    #[error("database {path} has version {found}, this Silo knows versions up to {known}")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A unique name or id exists.
    #[error("{table} record exists")]
    Exists {
        /// The table.
        table: &'static str,
    },
    /// A statement failed.
    #[error("{operation} in database")]
    Statement {
        /// What was to be done.
        operation: &'static str,
        /// Cause.
        #[source]
        source: rusqlite::Error,
    },
}

impl Kind for DbError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Exists { .. } => ErrorKind::Conflict,
            _ => ErrorKind::Internal,
        }
    }
}

impl From<DbError> for silo_types::Error {
    fn from(error: DbError) -> Self {
        Self::from_kind(error)
    }
}

/// Result of a database operation.
pub type Result<T> = std::result::Result<T, DbError>;

/// How durable a write is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    /// Survives a crash of the daemon.
    Normal,
    /// Survives a power cut.
    Full,
}

const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE images (
        id TEXT PRIMARY KEY,
        record TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE tags (
        name TEXT PRIMARY KEY,
        image TEXT NOT NULL REFERENCES images (id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tags_by_image ON tags (image);
    CREATE TABLE containers (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        config TEXT NOT NULL,
        state TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE volumes (
        name TEXT PRIMARY KEY,
        record TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE networks (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        record TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE kv (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE tags ADD COLUMN list TEXT;
",
];

/// A stored container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRow {
    /// Id.
    pub id: String,
    /// Name without slash.
    pub name: String,
    /// What it was created with, JSON.
    pub config: String,
    /// Where it stands, JSON.
    pub state: String,
}

/// The database. Calls take microseconds (hundreds, when synced), so they are made directly from
/// async code.
#[derive(Debug)]
pub struct Db {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    sync: Sync,
}

impl Db {
    /// Opens or makes the file and brings it to the newest version.
    pub fn open(path: &Path) -> Result<Self> {
        let open_error = |source| DbError::Open { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(open_error)?;
        Self::prepare(connection, path)
    }

    /// A database that lives in memory, for tests.
    pub fn in_memory() -> Result<Self> {
        let path = Path::new(":memory:");
        let open_error = |source| DbError::Open { path: path.to_owned(), source };
        Self::prepare(Connection::open_in_memory().map_err(open_error)?, path)
    }

    fn prepare(mut connection: Connection, path: &Path) -> Result<Self> {
        let open_error = |source| DbError::Open { path: path.to_owned(), source };
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
                 PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000;",
            )
            .map_err(open_error)?;
        connection.set_prepared_statement_cache_capacity(64);
        let found: u32 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(open_error)?;
        let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
        if found > known {
            return Err(DbError::TooNew { path: path.to_owned(), found, known });
        }
        for (version, migration) in (1..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
            let transaction = connection.transaction().map_err(open_error)?;
            transaction.execute_batch(migration).map_err(open_error)?;
            transaction.pragma_update(None, "user_version", version).map_err(open_error)?;
            transaction.commit().map_err(open_error)?;
        }
        Ok(Self { inner: Mutex::new(Inner { connection, sync: Sync::Normal }) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere cannot leave SQLite's own state half-changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one writing statement; returns how many rows it changed.
    fn write(
        &self,
        sync: Sync,
        table: &'static str,
        operation: &'static str,
        sql: &str,
        values: impl rusqlite::Params,
    ) -> Result<usize> {
        let mut inner = self.lock();
        inner.set_sync(sync, operation)?;
        inner
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(values))
            .map_err(|source| translate(table, operation, source))
    }

    fn pairs(&self, operation: &'static str, sql: &str) -> Result<Vec<(String, String)>> {
        let inner = self.lock();
        let rows = || -> rusqlite::Result<Vec<_>> {
            let mut statement = inner.connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        rows().map_err(|source| DbError::Statement { operation, source })
    }

    /// Adds a container. [`DbError::Exists`] when its name is taken.
    pub fn container_insert(&self, row: &ContainerRow) -> Result<()> {
        self.container_insert_with(row, true)
    }

    /// [`Db::container_insert`], synced only when `durable`: a container that removes itself would
    /// be removed after a power cut anyway.
    pub fn container_insert_with(&self, row: &ContainerRow, durable: bool) -> Result<()> {
        self.write(
            if durable { Sync::Full } else { Sync::Normal },
            "container",
            "insert container",
            "INSERT INTO containers (id, name, config, state) VALUES (?1, ?2, ?3, ?4)",
            params![row.id, row.name, row.config, row.state],
        )?;
        Ok(())
    }

    /// Replaces a container's configuration.
    pub fn container_set_config(&self, id: &str, config: &str) -> Result<()> {
        self.write(
            Sync::Full,
            "container",
            "update container",
            "UPDATE containers SET config = ?2 WHERE id = ?1",
            params![id, config],
        )?;
        Ok(())
    }

    /// Replaces a container's state; not synced.
    pub fn container_set_state(&self, id: &str, state: &str) -> Result<()> {
        self.write(
            Sync::Normal,
            "container",
            "update container state",
            "UPDATE containers SET state = ?2 WHERE id = ?1",
            params![id, state],
        )?;
        Ok(())
    }

    /// Renames a container. [`DbError::Exists`] when the name is taken.
    pub fn container_rename(&self, id: &str, name: &str) -> Result<()> {
        self.write(
            Sync::Full,
            "container",
            "rename container",
            "UPDATE containers SET name = ?2 WHERE id = ?1",
            params![id, name],
        )?;
        Ok(())
    }

    /// Removes a container; false when there was none.
    pub fn container_remove(&self, id: &str) -> Result<bool> {
        self.container_remove_with(id, true)
    }

    /// [`Db::container_remove`], synced only when `durable`.
    pub fn container_remove_with(&self, id: &str, durable: bool) -> Result<bool> {
        let sync = if durable { Sync::Full } else { Sync::Normal };
        let sql = "DELETE FROM containers WHERE id = ?1";
        let count = self.write(sync, "container", "remove container", sql, params![id])?;
        Ok(count > 0)
    }

    /// Every container.
    pub fn containers(&self) -> Result<Vec<ContainerRow>> {
        let operation = "list containers";
        let inner = self.lock();
        let rows = || -> rusqlite::Result<Vec<_>> {
            let mut statement = inner
                .connection
                .prepare_cached("SELECT id, name, config, state FROM containers")?;
            let rows = statement.query_map([], |row| {
                Ok(ContainerRow {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    config: row.get(2)?,
                    state: row.get(3)?,
                })
            })?;
            rows.collect()
        };
        rows().map_err(|source| DbError::Statement { operation, source })
    }

    /// Adds or replaces an image's record and points names at it, or at the index that leads to
    /// it, in one step.
    pub fn image_put(
        &self,
        id: &str,
        record: &str,
        tags: &[String],
        index: Option<&str>,
    ) -> Result<()> {
        let operation = "put image";
        let mut inner = self.lock();
        inner.set_sync(Sync::Full, operation)?;
        let mut put = || {
            let transaction = inner.connection.transaction()?;
            transaction
                .prepare_cached(
                    "INSERT INTO images (id, record) VALUES (?1, ?2) \
                     ON CONFLICT (id) DO UPDATE SET record = ?2",
                )?
                .execute(params![id, record])?;
            for tag in tags {
                transaction
                    .prepare_cached(
                        "INSERT INTO tags (name, image, list) VALUES (?1, ?2, ?3) \
                         ON CONFLICT (name) DO UPDATE SET image = ?2, list = ?3",
                    )?
                    .execute(params![tag, id, index])?;
            }
            transaction.commit()
        };
        put().map_err(|source| DbError::Statement { operation, source })
    }

    /// Removes an image and its names.
    pub fn image_remove(&self, id: &str) -> Result<()> {
        let operation = "remove image";
        let mut inner = self.lock();
        inner.set_sync(Sync::Full, operation)?;
        let mut remove = || {
            let transaction = inner.connection.transaction()?;
            transaction.execute("DELETE FROM tags WHERE image = ?1", params![id])?;
            transaction.execute("DELETE FROM images WHERE id = ?1", params![id])?;
            transaction.commit()
        };
        remove().map_err(|source| DbError::Statement { operation, source })
    }

    /// Every image as id and record.
    pub fn images(&self) -> Result<Vec<(String, String)>> {
        self.pairs("list images", "SELECT id, record FROM images")
    }

    /// Removes a name from an image.
    pub fn tag_remove(&self, name: &str) -> Result<()> {
        let sql = "DELETE FROM tags WHERE name = ?1";
        self.write(Sync::Full, "tag", "remove tag", sql, params![name])?;
        Ok(())
    }

    /// Points a name that has an index at another of its images.
    pub fn tag_move(&self, name: &str, image: &str) -> Result<()> {
        let sql = "UPDATE tags SET image = ?2 WHERE name = ?1";
        self.write(Sync::Full, "tag", "move tag", sql, params![name, image])?;
        Ok(())
    }

    /// Every name and the image that it points to.
    pub fn tags(&self) -> Result<Vec<(String, String)>> {
        self.pairs("list tags", "SELECT name, image FROM tags")
    }

    /// Every name that points to an index, and the index.
    pub fn indexed_tags(&self) -> Result<Vec<(String, String)>> {
        self.pairs("list tags", "SELECT name, list FROM tags WHERE list IS NOT NULL")
    }

    /// Adds or replaces a volume.
    pub fn volume_put(&self, name: &str, record: &str) -> Result<()> {
        let sql = "INSERT INTO volumes (name, record) VALUES (?1, ?2) \
                   ON CONFLICT (name) DO UPDATE SET record = ?2";
        self.write(Sync::Full, "volume", "put volume", sql, params![name, record])?;
        Ok(())
    }

    /// Removes a volume; not synced.
    pub fn volume_remove(&self, name: &str) -> Result<()> {
        let sql = "DELETE FROM volumes WHERE name = ?1";
        self.write(Sync::Normal, "volume", "remove volume", sql, params![name])?;
        Ok(())
    }

    /// Every volume as name and record.
    pub fn volumes(&self) -> Result<Vec<(String, String)>> {
        self.pairs("list volumes", "SELECT name, record FROM volumes")
    }

    /// Adds or replaces a network. [`DbError::Exists`] when another has its name.
    pub fn network_put(&self, id: &str, name: &str, record: &str) -> Result<()> {
        self.write(
            Sync::Full,
            "network",
            "put network",
            "INSERT INTO networks (id, name, record) VALUES (?1, ?2, ?3) \
             ON CONFLICT (id) DO UPDATE SET name = ?2, record = ?3",
            params![id, name, record],
        )?;
        Ok(())
    }

    /// Removes a network.
    pub fn network_remove(&self, id: &str) -> Result<()> {
        let sql = "DELETE FROM networks WHERE id = ?1";
        self.write(Sync::Full, "network", "remove network", sql, params![id])?;
        Ok(())
    }

    /// Every network as id and record.
    pub fn networks(&self) -> Result<Vec<(String, String)>> {
        self.pairs("list networks", "SELECT id, record FROM networks")
    }

    /// A single remembered value.
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        let operation = "read value";
        self.lock()
            .connection
            .prepare_cached("SELECT value FROM kv WHERE key = ?1")
            .and_then(|mut statement| statement.query_row([key], |row| row.get(0)).optional())
            .map_err(|source| DbError::Statement { operation, source })
    }

    /// Remembers a single value.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let sql = "INSERT INTO kv (key, value) VALUES (?1, ?2) \
                   ON CONFLICT (key) DO UPDATE SET value = ?2";
        self.write(Sync::Full, "value", "write value", sql, params![key, value])?;
        Ok(())
    }

    /// Changes a single value in one step; not synced.
    pub fn change(&self, key: &str, change: impl FnOnce(Option<String>) -> String) -> Result<()> {
        let operation = "change value";
        let mut inner = self.lock();
        inner.set_sync(Sync::Normal, operation)?;
        let run = || {
            let transaction = inner.connection.transaction()?;
            let before = transaction
                .prepare_cached("SELECT value FROM kv WHERE key = ?1")?
                .query_row([key], |row| row.get(0))
                .optional()?;
            transaction
                .prepare_cached(
                    "INSERT INTO kv (key, value) VALUES (?1, ?2) \
                     ON CONFLICT (key) DO UPDATE SET value = ?2",
                )?
                .execute(params![key, change(before)])?;
            transaction.commit()
        };
        run().map_err(|source| DbError::Statement { operation, source })
    }

    /// The keys of remembered values that begin with `prefix`.
    pub fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let inner = self.lock();
        let rows = || -> rusqlite::Result<Vec<_>> {
            let sql = "SELECT key FROM kv WHERE key >= ?1 ORDER BY key";
            let mut statement = inner.connection.prepare_cached(sql)?;
            let keys = statement.query_map([prefix], |row| row.get::<_, String>(0))?;
            keys.take_while(|key| key.as_ref().map_or(true, |key| key.starts_with(prefix)))
                .collect()
        };
        rows().map_err(|source| DbError::Statement { operation: "list values", source })
    }

    /// Forgets a single value; not synced.
    pub fn forget(&self, key: &str) -> Result<()> {
        let sql = "DELETE FROM kv WHERE key = ?1";
        self.write(Sync::Normal, "value", "forget value", sql, params![key])?;
        Ok(())
    }
}

impl Inner {
    fn set_sync(&mut self, sync: Sync, operation: &'static str) -> Result<()> {
        if self.sync == sync {
            return Ok(());
        }
        let sql = match sync {
            Sync::Normal => "PRAGMA synchronous = NORMAL",
            Sync::Full => "PRAGMA synchronous = FULL",
        };
        self.connection
            .execute_batch(sql)
            .map_err(|source| DbError::Statement { operation, source })?;
        self.sync = sync;
        Ok(())
    }
}

fn translate(table: &'static str, operation: &'static str, source: rusqlite::Error) -> DbError {
    let code = source.sqlite_error().map(|error| error.extended_code);
    match code {
        Some(
            rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
        ) => DbError::Exists { table },
        _ => DbError::Statement { operation, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, name: &str) -> ContainerRow {
        ContainerRow { id: id.into(), name: name.into(), config: "{}".into(), state: "{}".into() }
    }

    #[test]
    fn containers_live_and_keep_names_unique() {
        let db = Db::in_memory().unwrap();
        db.container_insert(&row("1", "a")).unwrap();
        db.container_insert(&row("2", "b")).unwrap();
        assert!(matches!(db.container_insert(&row("3", "a")), Err(DbError::Exists { .. })));
        assert!(matches!(db.container_rename("2", "a"), Err(DbError::Exists { .. })));
        db.container_set_state("1", "{\"x\":1}").unwrap();
        assert!(db.container_remove("2").unwrap());
        assert!(!db.container_remove("2").unwrap());
        let left = db.containers().unwrap();
        assert_eq!(left, [ContainerRow { state: "{\"x\":1}".into(), ..row("1", "a") }]);
    }

    #[test]
    fn tags_follow_images() {
        let db = Db::in_memory().unwrap();
        db.image_put("i1", "{}", &["a:1".into(), "a:2".into()], None).unwrap();
        db.image_put("i2", "{}", &["a:2".into()], None).unwrap();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(db.tags().unwrap(), [pair("a:1", "i1"), pair("a:2", "i2")]);
        db.image_remove("i2").unwrap();
        assert_eq!(db.tags().unwrap(), [pair("a:1", "i1")]);
        assert_eq!(db.images().unwrap().len(), 1);
    }

    #[test]
    fn names_of_indexes() {
        let db = Db::in_memory().unwrap();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        db.image_put("i1", "{}", &["a:1".into(), "a:2".into()], Some("x")).unwrap();
        db.image_put("i2", "{}", &["a:2".into()], None).unwrap();
        assert_eq!(db.indexed_tags().unwrap(), [pair("a:1", "x")]);
        db.tag_move("a:1", "i2").unwrap();
        db.image_remove("i1").unwrap();
        assert_eq!(db.tags().unwrap(), [pair("a:1", "i2"), pair("a:2", "i2")]);
        assert_eq!(db.indexed_tags().unwrap(), [pair("a:1", "x")]);
    }

    #[test]
    fn what_an_older_version_wrote_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("silo.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        old.execute_batch(
            "INSERT INTO images VALUES ('i1', '{}'); INSERT INTO tags VALUES ('a:1', 'i1');",
        )
        .unwrap();
        drop(old);
        let db = Db::open(&path).unwrap();
        assert_eq!(db.tags().unwrap(), [("a:1".to_owned(), "i1".to_owned())]);
        assert_eq!(db.indexed_tags().unwrap(), []);
    }

    #[test]
    fn reopening_keeps_and_newer_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("silo.db");
        Db::open(&path).unwrap().set("id", "x").unwrap();
        let db = Db::open(&path).unwrap();
        assert_eq!(db.get("id").unwrap().as_deref(), Some("x"));
        assert_eq!(db.get("none").unwrap(), None);
        db.lock().connection.pragma_update(None, "user_version", 99).unwrap();
        drop(db);
        assert!(matches!(Db::open(&path), Err(DbError::TooNew { found: 99, .. })));
    }
}

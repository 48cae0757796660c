//! The database: what is in which repository.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use crate::Error;
use crate::name::{Digest, Name};

/// What each version added, in order.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE repositories(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    -- Every file of blobs/, manifests among them.
    CREATE TABLE blobs(id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, size INTEGER NOT NULL);
    -- Which blobs a repository gives out; since: when one was last pushed or asked for.
    CREATE TABLE links(
        repository INTEGER NOT NULL REFERENCES repositories,
        blob INTEGER NOT NULL REFERENCES blobs,
        since INTEGER NOT NULL,
        PRIMARY KEY(repository, blob)
    ) WITHOUT ROWID;
    CREATE INDEX links_of ON links(blob);
    CREATE TABLE manifests(
        id INTEGER PRIMARY KEY,
        repository INTEGER NOT NULL REFERENCES repositories,
        blob INTEGER NOT NULL REFERENCES blobs,
        media_type TEXT NOT NULL,
        artifact_type TEXT NOT NULL,
        annotations TEXT NOT NULL,
        subject TEXT,
        since INTEGER NOT NULL,
        UNIQUE(repository, blob)
    );
    CREATE INDEX manifests_of ON manifests(blob);
    CREATE INDEX referrers ON manifests(repository, subject) WHERE subject IS NOT NULL;
    CREATE TABLE tags(
        repository INTEGER NOT NULL REFERENCES repositories,
        name TEXT NOT NULL,
        manifest INTEGER NOT NULL REFERENCES manifests ON DELETE CASCADE,
        PRIMARY KEY(repository, name)
    ) WITHOUT ROWID;
    CREATE INDEX tags_of ON tags(manifest);
    -- Configurations, layers and manifests that a manifest names, whether they are here or not.
    CREATE TABLE uses(
        manifest INTEGER NOT NULL REFERENCES manifests ON DELETE CASCADE,
        digest TEXT NOT NULL,
        PRIMARY KEY(manifest, digest)
    ) WITHOUT ROWID;
    CREATE INDEX uses_of ON uses(digest);
"];

/// Two connections: readers need not wait for a writer.
#[derive(Debug)]
pub(crate) struct Db {
    write: Mutex<Connection>,
    read: Mutex<Connection>,
}

impl Db {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let connect = || -> Result<Connection, Error> {
            let connection = Connection::open(path)?;
            // What a client was told to be stored outlives a power cut. A collection may be
            // another process.
            connection.execute_batch(
                "PRAGMA busy_timeout = 30000; PRAGMA journal_mode = WAL; \
                 PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
            )?;
            connection.set_prepared_statement_cache_capacity(64);
            Ok(connection)
        };
        let mut write = connect()?;
        migrate(&mut write)?;
        Ok(Self { write: Mutex::new(write), read: Mutex::new(connect()?) })
    }

    /// Reads something.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        Ok(work(&lock(&self.read))?)
    }

    /// Changes something, all of it or nothing. Nobody else writes meanwhile, in no process.
    pub(crate) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut connection = lock(&self.write);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = work(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }
}

fn migrate(connection: &mut Connection) -> Result<(), Error> {
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > known {
        return Err(Error::Newer { found, known });
    }
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(usize::MAX)) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    Ok(transaction.commit()?)
}

/// A panic of another thread rolled its transaction back.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    seconds(since)
}

pub(crate) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// As the database has it.
pub(crate) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number of bytes.
pub(crate) fn size(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(|size: i64| u64::try_from(size).unwrap_or_default())
}

/// The id of a repository.
pub(crate) fn repository(db: &Connection, name: &Name) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT id FROM repositories WHERE name = ?")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()
}

/// The id of a repository, which is made if there is none.
pub(crate) fn make_repository(db: &Transaction<'_>, name: &Name) -> rusqlite::Result<i64> {
    if let Some(id) = repository(db, name)? {
        return Ok(id);
    }
    db.prepare_cached("INSERT INTO repositories(name) VALUES (?)")?.insert([name.as_str()])
}

/// Id and size of content that there is a file of.
pub(crate) fn blob(db: &Connection, digest: &Digest) -> rusqlite::Result<Option<(i64, u64)>> {
    db.prepare_cached("SELECT id, size FROM blobs WHERE digest = ?")?
        .query_row([digest.to_string()], |row| Ok((row.get(0)?, size(row, 1)?)))
        .optional()
}

/// Records content; gives its id.
pub(crate) fn make_blob(db: &Transaction<'_>, digest: &Digest, size: u64) -> rusqlite::Result<i64> {
    if let Some((id, _)) = blob(db, digest)? {
        return Ok(id);
    }
    db.prepare_cached("INSERT INTO blobs(digest, size) VALUES (?, ?)")?
        .insert(params![digest.to_string(), number(size)])
}

/// Puts a blob into a repository, or says that it is needed still.
pub(crate) fn link(db: &Transaction<'_>, repository: i64, blob: i64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO links(repository, blob, since) VALUES (?, ?, ?) \
         ON CONFLICT DO UPDATE SET since = excluded.since",
    )?
    .execute(params![repository, blob, now()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registry.db");
        drop(Db::open(&path).unwrap());
        let db = Db::open(&path).unwrap();
        lock(&db.write).pragma_update(None, "user_version", 9).unwrap();
        drop(db);
        assert!(matches!(Db::open(&path), Err(Error::Newer { found: 9, known: 1 })));
    }

    #[test]
    fn a_failure_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("registry.db")).unwrap();
        let name: Name = "a".parse().unwrap();
        let failed: Result<(), Error> = db.write(|db| {
            make_repository(db, &name)?;
            Err(crate::error::Refusal::no_blob().into())
        });
        assert!(failed.is_err());
        assert_eq!(db.read(|db| repository(db, &name)).unwrap(), None);
        assert!(db.write(|db| Ok(make_repository(db, &name)?)).is_ok());
        assert!(db.read(|db| repository(db, &name)).unwrap().is_some());
    }
}

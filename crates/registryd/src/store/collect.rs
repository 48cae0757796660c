//! Garbage collection. It may run at any moment and in any process, also beside a server.
//!
//! What goes is decided by the database alone, in one transaction. Files are removed afterwards,
//! each while nobody else can write to the database and after another look: what is pushed
//! meanwhile is either recorded before, and stays, or gets a file of its own after.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::{Transaction, params};

use super::db::{self, now, seconds};
use super::files::{is_random_name, names};
use crate::name::{Algorithm, Digest};
use crate::{Collect, Error, Registry};

/// How long a file is left alone that is written in one go.
const STAGING: Duration = Duration::from_hours(1);

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Manifests of repositories.
    pub manifests: usize,
    /// Blobs that a repository gives out no more.
    pub links: usize,
    /// Repositories that had nothing left.
    pub repositories: usize,
    /// Uploads that nothing was added to.
    pub uploads: usize,
    /// Files of content.
    pub files: usize,
    /// Bytes of files that had no other name: what the engine has as well stays on the disk.
    pub bytes: u64,
}

impl Registry {
    /// Removes what nothing needs, and has not for a while.
    pub fn collect(&self, what: &Collect) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        let before = now().saturating_sub(seconds(what.grace));
        self.db.write(|db| {
            if let Some(unused) = what.unused {
                let before = now().saturating_sub(seconds(unused));
                let sql = "DELETE FROM manifests WHERE since <= ?";
                collected.manifests = db.execute(sql, [before])?;
            }
            if what.untagged {
                collected.manifests += remove_untagged(db, before)?;
            }
            collected.links = db.execute(
                "DELETE FROM links WHERE since <= ?1 AND NOT EXISTS (SELECT 1 FROM uses \
                 JOIN manifests ON manifests.id = uses.manifest \
                 JOIN blobs ON blobs.digest = uses.digest \
                 WHERE manifests.repository = links.repository AND blobs.id = links.blob)",
                [before],
            )?;
            collected.repositories = db.execute(
                "DELETE FROM repositories WHERE \
                 NOT EXISTS (SELECT 1 FROM links WHERE repository = repositories.id) AND \
                 NOT EXISTS (SELECT 1 FROM manifests WHERE repository = repositories.id)",
                [],
            )?;
            db.execute(
                "DELETE FROM blobs WHERE \
                 NOT EXISTS (SELECT 1 FROM links WHERE blob = blobs.id) AND \
                 NOT EXISTS (SELECT 1 FROM manifests WHERE blob = blobs.id)",
                [],
            )?;
            Ok(())
        })?;
        for algorithm in Algorithm::ALL {
            for name in names(&self.files.blobs(algorithm))? {
                let digest = format!("{}:{name}", algorithm.as_str());
                let Ok(digest) = digest.parse::<Digest>() else { continue };
                if self.db.read(|db| db::blob(db, &digest))?.is_none() {
                    self.remove_file(&digest, &mut collected)?;
                }
            }
        }
        self.remove_uploads(what.uploads, &mut collected)?;
        Ok(collected)
    }

    /// Removes a file that is recorded nowhere.
    fn remove_file(&self, digest: &Digest, collected: &mut Collected) -> Result<(), Error> {
        use std::os::unix::fs::MetadataExt as _;
        self.db.write(|db| {
            if db::blob(db, digest)?.is_some() {
                return Ok(());
            }
            let path = self.files.blob(digest);
            let metadata = match fs_err::metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(Error::io("look at", path)(error)),
            };
            fs_err::remove_file(&path).map_err(Error::io("remove", &path))?;
            collected.files += 1;
            if metadata.nlink() == 1 {
                collected.bytes += metadata.len();
            }
            Ok(())
        })
    }

    fn remove_uploads(&self, age: Duration, collected: &mut Collected) -> Result<(), Error> {
        for name in names(&self.files.uploads())? {
            let path = self.files.uploads().join(&name);
            // The directory's own time is that of its making.
            let changed = modified(&path.join("data")).or_else(|| modified(&path));
            if is_random_name(&name) && is_older(changed, age) {
                collected.bytes += fs_err::metadata(path.join("data")).map_or(0, |data| data.len());
                fs_err::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
                collected.uploads += 1;
            }
        }
        for name in names(&self.files.staging())? {
            let path = self.files.staging().join(&name);
            if is_older(modified(&path), age.max(STAGING)) {
                drop(fs_err::remove_file(path));
            }
        }
        Ok(())
    }
}

/// Manifests that no tag leads to: not by itself, nor by an index, nor as what another manifest
/// that stays is about, nor because they are about one that stays.
fn remove_untagged(db: &Transaction<'_>, before: i64) -> Result<usize, Error> {
    Ok(db.execute(
        "WITH RECURSIVE alive(id) AS ( \
             SELECT manifest FROM tags \
             UNION SELECT id FROM manifests WHERE since > ?1 \
             UNION SELECT below.id FROM alive \
                 JOIN manifests AS above ON above.id = alive.id \
                 JOIN uses ON uses.manifest = above.id \
                 JOIN blobs ON blobs.digest = uses.digest \
                 JOIN manifests AS below \
                     ON below.blob = blobs.id AND below.repository = above.repository \
             UNION SELECT about.id FROM alive \
                 JOIN manifests AS subject ON subject.id = alive.id \
                 JOIN blobs ON blobs.id = subject.blob \
                 JOIN manifests AS about ON about.subject = blobs.digest \
                     AND about.repository = subject.repository \
         ) DELETE FROM manifests WHERE since <= ?1 AND id NOT IN alive",
        params![before],
    )?)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs_err::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn is_older(time: Option<SystemTime>, age: Duration) -> bool {
    // A time in the future is one that the clock was set back from.
    time.is_some_and(|time| time.elapsed().is_ok_and(|elapsed| elapsed >= age))
}

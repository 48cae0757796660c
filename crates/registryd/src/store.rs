//! The registry's content. All methods block.

mod collect;
pub(crate) mod db;
pub(crate) mod files;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use fs_err::File;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use silo_oci::image::Descriptor;

pub use self::collect::Collected;
use self::db::Db;
use self::files::{Files, Staged};
use crate::Error;
use crate::error::Refusal;
use crate::manifest::{Manifest, Used};
use crate::name::{Algorithm, Digest, Name, Reference};

/// How many missing blobs an error names.
const MISSING: usize = 10;

/// Content, and what is in which repository. Several processes may have it open; one serves it.
#[derive(Debug)]
pub struct Registry {
    pub(crate) db: Db,
    pub(crate) files: Files,
}

/// A manifest as it is given out.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) size: u64,
}

/// A manifest that was pushed.
#[derive(Debug)]
pub(crate) struct Pushed {
    pub(crate) digest: Digest,
    pub(crate) subject: Option<Digest>,
}

/// An entry of a list of referrers.
#[derive(Debug)]
pub(crate) struct Referrer {
    pub(crate) stored: Stored,
    pub(crate) artifact_type: String,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// A manifest to be stored.
#[derive(Debug)]
pub(crate) struct Push<'a> {
    pub(crate) repository: &'a Name,
    pub(crate) reference: &'a Reference,
    /// Further tags.
    pub(crate) tags: &'a [String],
    pub(crate) content_type: Option<&'a str>,
    pub(crate) bytes: &'a [u8],
    /// What it names may be absent.
    pub(crate) sparse: bool,
}

impl Registry {
    /// Opens the registry in an engine's data root, or makes it.
    pub fn open(data_root: &Path) -> Result<Self, Error> {
        let files = Files::open(data_root)?;
        let db = Db::open(&files.database())?;
        Ok(Self { db, files })
    }

    /// The size of a blob of a repository.
    pub(crate) fn blob(&self, repository: &Name, digest: &Digest) -> Result<u64, Error> {
        self.db.read(|db| linked(db, repository, digest))?.ok_or_else(|| Refusal::no_blob().into())
    }

    /// Opens a blob of a repository; gives its size as well.
    pub(crate) fn open_blob(
        &self,
        repository: &Name,
        digest: &Digest,
    ) -> Result<(std::fs::File, u64), Error> {
        let size = self.blob(repository, digest)?;
        let path = self.files.blob(digest);
        match File::open(&path) {
            Ok(file) => Ok((file.into_file(), size)),
            // Collected since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Refusal::no_blob().into()),
            Err(error) => Err(Error::io("open", path)(error)),
        }
    }

    /// Whether a blob of a repository is there, for a client that would push it otherwise: it is
    /// kept as if it had been, if it has not been for `stale` seconds.
    pub(crate) fn claim_blob(
        &self,
        repository: &Name,
        digest: &Digest,
        stale: i64,
    ) -> Result<u64, Error> {
        let before = db::now().saturating_sub(stale);
        let found = self.db.read(|db| {
            db.prepare_cached(
                "SELECT blobs.size, links.since, links.repository, links.blob FROM links \
                 JOIN repositories ON repositories.id = links.repository \
                 JOIN blobs ON blobs.id = links.blob \
                 WHERE repositories.name = ? AND blobs.digest = ?",
            )?
            .query_row(params![repository.as_str(), digest.to_string()], |row| {
                Ok((db::size(row, 0)?, row.get::<_, i64>(1)?, row.get(2)?, row.get(3)?))
            })
            .optional()
        })?;
        let (size, since, id, blob): (u64, i64, i64, i64) = found.ok_or_else(Refusal::no_blob)?;
        if since < before {
            let changed = self.db.write(|db| {
                let sql = "UPDATE links SET since = ? WHERE repository = ? AND blob = ?";
                Ok(db.prepare_cached(sql)?.execute(params![db::now(), id, blob])?)
            })?;
            if changed == 0 {
                return Err(Refusal::no_blob().into());
            }
        }
        Ok(size)
    }

    /// Stores a complete file as a blob of a repository. It was checked against its digest, and
    /// is gone afterwards.
    pub(crate) fn commit_blob(
        &self,
        repository: &Name,
        digest: &Digest,
        path: &Path,
    ) -> Result<(), Error> {
        let size = fs_err::metadata(path).map_err(Error::io("look at", path))?.len();
        let known = self.has(digest)?;
        if !known {
            self.files.settle(path, digest)?;
        }
        self.db.write(|db| {
            if known && !self.files.blob(digest).exists() {
                // It was collected meanwhile.
                self.files.settle(path, digest)?;
            }
            let blob = self.place(db, digest, size, path)?;
            let repository = db::make_repository(db, repository)?;
            Ok(db::link(db, repository, blob)?)
        })
    }

    /// Whether there is content with this digest, in whatever repository.
    fn has(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.db.read(|db| db::blob(db, digest))?.is_some() && self.files.blob(digest).exists())
    }

    /// Gives a durable file its place, unless the same is there already. In a transaction, so
    /// that no collection removes it before it is recorded.
    fn place(
        &self,
        db: &Transaction<'_>,
        digest: &Digest,
        size: u64,
        path: &Path,
    ) -> Result<i64, Error> {
        if db::blob(db, digest)?.is_none() || !self.files.blob(digest).exists() {
            self.files.place(path, digest)?;
        }
        Ok(db::make_blob(db, digest, size)?)
    }

    /// Puts a blob of one repository, or of any, into another as well. False if there is none.
    pub(crate) fn mount(
        &self,
        repository: &Name,
        digest: &Digest,
        from: Option<&Name>,
    ) -> Result<bool, Error> {
        self.db.write(|db| {
            let found = match from {
                Some(from) if linked(db, from, digest)?.is_none() => None,
                _ => db::blob(db, digest)?,
            };
            let Some((blob, _)) = found else { return Ok(false) };
            let repository = db::make_repository(db, repository)?;
            db::link(db, repository, blob)?;
            Ok(true)
        })
    }

    /// Puts a blob that the engine has into a repository: the same file, after it was checked.
    /// False if it has none.
    pub(crate) fn adopt(&self, repository: &Name, digest: &Digest) -> Result<bool, Error> {
        let Some(path) = self.files.of_engine(digest) else { return Ok(false) };
        let staged = self.files.stage()?;
        match fs_err::hard_link(&path, &staged.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            // On another file system, or with too many names: it is uploaded.
            Err(error) => {
                tracing::debug!(%error, %digest, "not shared with the engine");
                return Ok(false);
            }
        }
        let read = || files::digest_of(File::open(&staged.path)?, digest.algorithm);
        let found = read().map_err(Error::io("read", &path))?.finish();
        if found != *digest {
            tracing::error!(%digest, %found, path = %path.display(), "the engine's blob is damaged");
            return Ok(false);
        }
        self.commit_blob(repository, digest, &staged.path)?;
        Ok(true)
    }

    /// Takes a blob out of a repository.
    pub(crate) fn delete_blob(&self, repository: &Name, digest: &Digest) -> Result<(), Error> {
        let removed = self.db.write(|db| {
            Ok(db
                .prepare_cached(
                    "DELETE FROM links WHERE repository = \
                     (SELECT id FROM repositories WHERE name = ?) \
                     AND blob = (SELECT id FROM blobs WHERE digest = ?)",
                )?
                .execute(params![repository.as_str(), digest.to_string()])?)
        })?;
        if removed == 0 { Err(Refusal::no_blob().into()) } else { Ok(()) }
    }

    /// What is known of a manifest.
    pub(crate) fn manifest(
        &self,
        repository: &Name,
        reference: &Reference,
    ) -> Result<Stored, Error> {
        let found = self.db.read(|db| {
            let Some(id) = db::repository(db, repository)? else {
                return Ok(Err(Refusal::no_repository()));
            };
            Ok(manifest_id(db, id, reference)?.map(|(_, stored)| stored).ok_or_else(|| {
                let mut refusal = Refusal::no_manifest();
                refusal.message = format!("manifest unknown: {reference}");
                refusal
            }))
        })?;
        Ok(found?)
    }

    /// The bytes of a manifest.
    pub(crate) fn read_manifest(&self, stored: &Stored) -> Result<Vec<u8>, Error> {
        let path = self.files.blob(&stored.digest);
        fs_err::read(&path).map_err(Error::io("read", path))
    }

    /// Stores a manifest with its tags.
    pub(crate) fn push(&self, push: &Push<'_>) -> Result<Pushed, Error> {
        let digest = match push.reference {
            Reference::Tag(_) => Digest::of(Algorithm::Sha256, push.bytes),
            Reference::Digest(digest) => {
                let found = Digest::of(digest.algorithm, push.bytes);
                if found != *digest {
                    let text = format!("the manifest's digest is {found}, not {digest}");
                    return Err(Refusal::digest(text).into());
                }
                found
            }
        };
        let manifest = Manifest::parse(push.bytes, push.content_type)?;
        let staged = self.files.stage()?;
        write(&staged, push.bytes)?;
        self.files.settle(&staged.path, &digest)?;
        self.db.write(|db| {
            let repository = db::make_repository(db, push.repository)?;
            if !push.sparse {
                check(db, repository, &manifest)?;
            }
            let blob = self.place(db, &digest, push.bytes.len() as u64, &staged.path)?;
            let id = record(db, repository, blob, &manifest)?;
            let tag = match push.reference {
                Reference::Tag(tag) => Some(tag),
                Reference::Digest(_) => None,
            };
            for tag in push.tags.iter().chain(tag) {
                db.prepare_cached(
                    "INSERT INTO tags(repository, name, manifest) VALUES (?, ?, ?) \
                     ON CONFLICT DO UPDATE SET manifest = excluded.manifest",
                )?
                .execute(params![repository, tag, id])?;
            }
            Ok(())
        })?;
        Ok(Pushed { digest, subject: manifest.subject })
    }

    /// What a manifest of a repository says of a blob.
    pub(crate) fn descriptor(
        &self,
        repository: &Name,
        digest: &Digest,
    ) -> Result<Option<Descriptor>, Error> {
        let manifests: Vec<Stored> = self.db.read(|db| {
            db.prepare_cached(
                "SELECT blobs.digest, manifests.media_type, blobs.size FROM uses \
                 JOIN manifests ON manifests.id = uses.manifest \
                 JOIN repositories ON repositories.id = manifests.repository \
                 JOIN blobs ON blobs.id = manifests.blob \
                 WHERE uses.digest = ? AND repositories.name = ? LIMIT 8",
            )?
            .query_map(params![digest.to_string(), repository.as_str()], stored)?
            .collect()
        })?;
        let wanted = digest.to_string();
        for manifest in manifests {
            // What it cannot read, it cannot fetch.
            let Ok(bytes) = self.read_manifest(&manifest) else { continue };
            let Ok(parsed) = silo_oci::image::Manifest::parse(&bytes) else { continue };
            let mut named = std::iter::once(parsed.config).chain(parsed.layers);
            if let Some(found) = named.find(|named| named.digest.to_string() == wanted) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Says that a manifest is in use, if that was not said for `stale` seconds.
    pub(crate) fn touch(
        &self,
        repository: &Name,
        digest: &Digest,
        stale: i64,
    ) -> Result<(), Error> {
        let before = db::now().saturating_sub(stale);
        let id = self.db.read(|db| {
            db.prepare_cached(
                "SELECT manifests.id FROM manifests \
                 JOIN repositories ON repositories.id = manifests.repository \
                 JOIN blobs ON blobs.id = manifests.blob \
                 WHERE repositories.name = ? AND blobs.digest = ? AND manifests.since < ?",
            )?
            .query_row(params![repository.as_str(), digest.to_string(), before], |row| row.get(0))
            .optional()
        })?;
        let Some(id): Option<i64> = id else { return Ok(()) };
        self.db.write(|db| {
            db.prepare_cached("UPDATE manifests SET since = ? WHERE id = ?")?
                .execute(params![db::now(), id])?;
            Ok(())
        })
    }

    /// Removes a tag, or a manifest with all its tags.
    pub(crate) fn delete_manifest(
        &self,
        repository: &Name,
        reference: &Reference,
    ) -> Result<(), Error> {
        self.db.write(|db| {
            let id = db::repository(db, repository)?.ok_or_else(Refusal::no_repository)?;
            let removed = match reference {
                Reference::Tag(tag) => db
                    .prepare_cached("DELETE FROM tags WHERE repository = ? AND name = ?")?
                    .execute(params![id, tag])?,
                Reference::Digest(digest) => db
                    .prepare_cached(
                        "DELETE FROM manifests WHERE repository = ? \
                         AND blob = (SELECT id FROM blobs WHERE digest = ?)",
                    )?
                    .execute(params![id, digest.to_string()])?,
            };
            if removed == 0 { Err(Refusal::no_manifest().into()) } else { Ok(()) }
        })
    }

    /// At most `count` tags after `last`, in the order of their bytes.
    pub(crate) fn tags(
        &self,
        repository: &Name,
        last: &str,
        count: u32,
    ) -> Result<Vec<String>, Error> {
        let found = self.db.read(|db| {
            let Some(id) = db::repository(db, repository)? else { return Ok(None) };
            db.prepare_cached(
                "SELECT name FROM tags WHERE repository = ? AND name > ? ORDER BY name LIMIT ?",
            )?
            .query_map(params![id, last, count], |row| row.get(0))?
            .collect::<Result<_, _>>()
            .map(Some)
        })?;
        found.ok_or_else(|| Refusal::no_repository().into())
    }

    /// At most `count` repositories after `last`, in the order of their bytes.
    pub(crate) fn repositories(&self, last: &str, count: u32) -> Result<Vec<String>, Error> {
        self.db.read(|db| {
            db.prepare_cached("SELECT name FROM repositories WHERE name > ? ORDER BY name LIMIT ?")?
                .query_map(params![last, count], |row| row.get(0))?
                .collect()
        })
    }

    /// At most `count` manifests about `subject` whose digests come after `last`.
    pub(crate) fn referrers(
        &self,
        repository: &Name,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: &str,
        count: u32,
    ) -> Result<Vec<Referrer>, Error> {
        self.db.read(|db| {
            db.prepare_cached(
                "SELECT blobs.digest, manifests.media_type, blobs.size, manifests.artifact_type, \
                 manifests.annotations FROM manifests \
                 JOIN repositories ON repositories.id = manifests.repository \
                 JOIN blobs ON blobs.id = manifests.blob \
                 WHERE repositories.name = ?1 AND manifests.subject = ?2 \
                 AND (?3 IS NULL OR manifests.artifact_type = ?3) AND blobs.digest > ?4 \
                 ORDER BY blobs.digest LIMIT ?5",
            )?
            .query_map(
                params![repository.as_str(), subject.to_string(), artifact_type, last, count],
                |row| {
                    let annotations: String = row.get(4)?;
                    Ok(Referrer {
                        stored: stored(row)?,
                        artifact_type: row.get(3)?,
                        annotations: serde_json::from_str(&annotations).unwrap_or_default(),
                    })
                },
            )?
            .collect()
        })
    }
}

/// The size of a blob, if it is in a repository.
fn linked(db: &Connection, repository: &Name, digest: &Digest) -> rusqlite::Result<Option<u64>> {
    db.prepare_cached(
        "SELECT blobs.size FROM links JOIN repositories ON repositories.id = links.repository \
         JOIN blobs ON blobs.id = links.blob WHERE repositories.name = ? AND blobs.digest = ?",
    )?
    .query_row(params![repository.as_str(), digest.to_string()], |row| db::size(row, 0))
    .optional()
}

/// A row that begins with digest, media type and size.
fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let digest: String = row.get(0)?;
    let digest = digest.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    });
    Ok(Stored { digest: digest?, media_type: row.get(1)?, size: db::size(row, 2)? })
}

fn manifest_id(
    db: &Connection,
    repository: i64,
    reference: &Reference,
) -> rusqlite::Result<Option<(i64, Stored)>> {
    let row = |row: &Row<'_>| Ok((row.get(3)?, stored(row)?));
    match reference {
        Reference::Tag(tag) => db
            .prepare_cached(
                "SELECT blobs.digest, manifests.media_type, blobs.size, manifests.id FROM tags \
                 JOIN manifests ON manifests.id = tags.manifest \
                 JOIN blobs ON blobs.id = manifests.blob \
                 WHERE tags.repository = ? AND tags.name = ?",
            )?
            .query_row(params![repository, tag], row)
            .optional(),
        Reference::Digest(digest) => db
            .prepare_cached(
                "SELECT blobs.digest, manifests.media_type, blobs.size, manifests.id \
                 FROM manifests JOIN blobs ON blobs.id = manifests.blob \
                 WHERE manifests.repository = ? AND blobs.digest = ?",
            )?
            .query_row(params![repository, digest.to_string()], row)
            .optional(),
    }
}

/// Refuses a manifest that names what is not in the repository.
fn check(db: &Transaction<'_>, repository: i64, manifest: &Manifest) -> Result<(), Error> {
    let mut links = db.prepare_cached(
        "SELECT 1 FROM links JOIN blobs ON blobs.id = links.blob \
         WHERE links.repository = ? AND blobs.digest = ?",
    )?;
    let mut manifests = db.prepare_cached(
        "SELECT 1 FROM manifests JOIN blobs ON blobs.id = manifests.blob \
         WHERE manifests.repository = ? AND blobs.digest = ?",
    )?;
    let mut missing = Vec::new();
    let is_index = silo_oci::image::media::is_index(&manifest.media_type);
    for (used, is_manifest) in manifest
        .blobs
        .iter()
        .map(|used| (used, false))
        .chain(manifest.manifests.iter().map(|used| (used, true)))
    {
        let Used { digest, foreign } = used;
        if *foreign || missing.len() > MISSING {
            continue;
        }
        let place = params![repository, digest.to_string()];
        let is_here = if is_manifest {
            manifests.exists(place)?
        } else {
            // An index may name a manifest by any type.
            links.exists(place)? || (is_index && manifests.exists(place)?)
        };
        if !is_here {
            missing.push(digest.to_string());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    missing.truncate(MISSING);
    let text = format!("blob unknown to registry: {}", missing.join(", "));
    let status = hyper::StatusCode::NOT_FOUND;
    Err(Refusal::new(status, "MANIFEST_BLOB_UNKNOWN", text).into())
}

/// Records a manifest, or that it was pushed again; gives its id.
fn record(
    db: &Transaction<'_>,
    repository: i64,
    blob: i64,
    manifest: &Manifest,
) -> Result<i64, Error> {
    let annotations = serde_json::to_string(&manifest.annotations).unwrap_or_default();
    let id: i64 = db
        .prepare_cached(
            "INSERT INTO manifests(repository, blob, media_type, artifact_type, annotations, \
             subject, since) VALUES (?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT DO UPDATE SET media_type = excluded.media_type, since = excluded.since \
             RETURNING id",
        )?
        .query_row(
            params![
                repository,
                blob,
                manifest.media_type,
                manifest.artifact_type,
                annotations,
                manifest.subject.as_ref().map(ToString::to_string),
                db::now()
            ],
            |row| row.get(0),
        )?;
    let mut insert =
        db.prepare_cached("INSERT OR IGNORE INTO uses(manifest, digest) VALUES (?, ?)")?;
    for used in manifest.blobs.iter().chain(&manifest.manifests) {
        insert.execute(params![id, used.digest.to_string()])?;
    }
    Ok(id)
}

fn write(staged: &Staged, bytes: &[u8]) -> Result<(), Error> {
    let path = &staged.path;
    let write = || File::create_new(path)?.write_all(bytes);
    write().map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests;

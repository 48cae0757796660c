//! The engine's own images as repositories that can only be read.
//!
//! They are below one name of their own, so that no push goes there: `engine/busybox` is the
//! engine's `busybox`, and `engine/quay.io/a/b` its `quay.io/a/b`. Of a registry's port the colon
//! becomes `_`. Nothing is copied: manifests, configurations and compressed layers are the
//! engine's files, and a layer that it has only unpacked goes out as the tar that it was, made
//! anew, whose digest is that of the image's configuration. A manifest that names a compressed
//! form which the engine does not have is given out with the uncompressed one in its place, and
//! so with another digest, always the same.
//!
//! Names come from the engine's database, `silo.db` (table `tags`: name, image), which is opened
//! for reading only; see the engine's `db.rs` for its form.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use silo_oci::image::{Descriptor, ImageConfig, Manifest, media, to_bytes};
use silo_oci::reference::Reference as Named;
use silo_store::{Layer, View};
use silo_types::Digest as Sha256;

use crate::Error;
use crate::error::Refusal;
use crate::name::{Algorithm, Digest, Name, Reference};
use crate::store::Stored;

/// The engine's images.
#[derive(Debug)]
pub(crate) struct EngineImages {
    database: PathBuf,
    pub(crate) view: View,
    /// The first elements of their names, with a slash.
    prefix: String,
}

/// A blob of an image.
#[derive(Debug)]
pub(crate) enum Content {
    /// A file and its size.
    File(std::fs::File, u64),
    /// A tar that is made as it goes out.
    Layer(Box<Layer>),
}

/// A tag, or the digest under which an image was pulled.
type Names = BTreeMap<String, BTreeMap<String, Sha256>>;

impl EngineImages {
    pub(crate) fn new(data_root: &Path, prefix: &Name) -> Self {
        Self {
            database: data_root.join("silo.db"),
            view: View::new(data_root),
            prefix: format!("{prefix}/"),
        }
    }

    /// Whether a repository is one of these, there or not.
    pub(crate) fn owns(&self, repository: &Name) -> bool {
        repository.as_str().starts_with(&self.prefix)
            || self.prefix.trim_end_matches('/') == repository.as_str()
    }

    /// Images by repository and tag.
    fn names(&self) -> Result<Names, Error> {
        let mut names = Names::new();
        if !self.database.exists() {
            return Ok(names);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&self.database, flags)?;
        db.busy_timeout(Duration::from_secs(10))?;
        let mut statement = db.prepare("SELECT name, image FROM tags")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for row in rows {
            let (name, image): (String, String) = row?;
            let (Ok(name), Ok(image)) = (Named::parse(&name), image.parse()) else { continue };
            let Some(tag) = name.tag() else { continue };
            if let Some(repository) = self.repository(&name) {
                names.entry(repository).or_default().insert(tag.to_owned(), image);
            }
        }
        Ok(names)
    }

    /// Under which name an image's repository is served; `None` if there is none for it.
    fn repository(&self, name: &Named) -> Option<String> {
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
        Ok(self.names()?.into_keys().collect())
    }

    fn of(&self, repository: &Name) -> Result<BTreeMap<String, Sha256>, Error> {
        self.names()?.remove(repository.as_str()).ok_or_else(|| Refusal::no_repository().into())
    }

    /// The tags of a repository.
    pub(crate) fn tags(&self, repository: &Name) -> Result<Vec<String>, Error> {
        Ok(self.of(repository)?.into_keys().collect())
    }

    /// A manifest and its bytes.
    pub(crate) fn manifest(
        &self,
        repository: &Name,
        reference: &Reference,
    ) -> Result<(Stored, Vec<u8>), Error> {
        let tags = self.of(repository)?;
        let images: BTreeMap<Sha256, Descriptor> = self.view.images()?.into_iter().collect();
        let wanted = |tag: &str| match reference {
            Reference::Tag(wanted) => wanted == tag,
            Reference::Digest(_) => true,
        };
        for (tag, image) in tags.iter().filter(|(tag, _)| wanted(tag)) {
            let Some(descriptor) = images.get(image) else { continue };
            let given = match self.given(descriptor) {
                Err(error) => {
                    tracing::warn!(error = error.chain(), %repository, tag, "the engine's image");
                    continue;
                }
                Ok(given) => given,
            };
            let (bytes, media_type) = (to_given(&given), given.1.media_type.clone());
            let digest = Digest::of(Algorithm::Sha256, &bytes);
            if matches!(reference, Reference::Digest(wanted) if *wanted != digest) {
                continue;
            }
            return Ok((Stored { digest, media_type, size: bytes.len() as u64 }, bytes));
        }
        let mut refusal = Refusal::no_manifest();
        refusal.message = format!("manifest unknown: {reference}");
        Err(refusal.into())
    }

    /// The manifest of an image as it is given out; the bytes if they are the engine's own.
    fn given(&self, descriptor: &Descriptor) -> Result<(Option<Vec<u8>>, Manifest), Error> {
        let bytes = self.view.document(&descriptor.digest)?;
        let unreadable = |source| silo_store::Error::Document {
            what: format!("manifest {}", descriptor.digest),
            source,
        };
        let mut manifest = Manifest::parse(&bytes).map_err(unreadable)?;
        let config = self.view.document(&manifest.config.digest)?;
        let config = ImageConfig::parse(&config).map_err(unreadable)?;
        let mut changed = false;
        for (layer, diff_id) in manifest.layers.iter_mut().zip(&config.rootfs.diff_ids) {
            let is_here = layer.digest == *diff_id || self.view.blob(&layer.digest)?.is_some();
            if is_here || !layer.urls.is_empty() {
                continue;
            }
            // Only compressed, it is not here; what stands in for it has another digest.
            let Some(found) = self.view.layer(diff_id)? else { continue };
            *layer = Descriptor {
                annotations: std::mem::take(&mut layer.annotations),
                ..Descriptor::new(media::OCI_LAYER, *diff_id, found.tar_size)
            };
            changed = true;
        }
        if manifest.media_type.is_empty() {
            manifest.media_type.clone_from(&descriptor.media_type);
        }
        if changed && manifest.media_type == media::DOCKER_MANIFEST {
            for layer in &mut manifest.layers {
                if layer.media_type == media::OCI_LAYER {
                    media::DOCKER_LAYER.clone_into(&mut layer.media_type);
                }
            }
        }
        Ok(((!changed).then_some(bytes), manifest))
    }

    /// A blob that an image of a repository has.
    pub(crate) fn blob(&self, repository: &Name, digest: &Digest) -> Result<Content, Error> {
        let wanted: Sha256 = digest.to_string().parse().map_err(|_| Refusal::no_blob())?;
        let tags = self.of(repository)?;
        let images: BTreeMap<Sha256, Descriptor> = self.view.images()?.into_iter().collect();
        for image in tags.values().collect::<BTreeSet<_>>() {
            let Some(descriptor) = images.get(image) else { continue };
            let Ok((_, manifest)) = self.given(descriptor) else { continue };
            let mut blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
            if descriptor.digest != wanted && !blobs.any(|blob| blob.digest == wanted) {
                continue;
            }
            if let Some((file, size)) = self.view.blob(&wanted)? {
                return Ok(Content::File(file, size));
            }
            if let Some(layer) = self.view.layer(&wanted)? {
                return Ok(Content::Layer(Box::new(layer)));
            }
        }
        Err(Refusal::no_blob().into())
    }
}

fn to_given((bytes, manifest): &(Option<Vec<u8>>, Manifest)) -> Vec<u8> {
    bytes.clone().unwrap_or_else(|| to_bytes(manifest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories() {
        let images = EngineImages::new(Path::new("/none"), &"engine".parse().unwrap());
        for (name, repository) in [
            ("busybox", Some("engine/busybox")),
            ("me/app:2", Some("engine/me/app")),
            ("docker.io/library/busybox", Some("engine/busybox")),
            ("quay.io/a/b", Some("engine/quay.io/a/b")),
            ("localhost:5000/app", Some("engine/localhost_5000/app")),
            ("127.0.0.1:5000/a/b", Some("engine/127.0.0.1_5000/a/b")),
            ("Reg.Example/a", Some("engine/reg.example/a")),
            ("[::1]:5000/a", None),
        ] {
            let name = Named::parse(name).unwrap();
            assert_eq!(images.repository(&name).as_deref(), repository, "{name}");
        }
        let owns = |name: &str| images.owns(&name.parse().unwrap());
        assert!(owns("engine/a") && owns("engine") && !owns("engines/a") && !owns("a/engine"));
        // Without an engine there is nothing.
        assert!(images.repositories().unwrap().is_empty());
        assert!(images.tags(&"engine/a".parse().unwrap()).is_err());
    }
}

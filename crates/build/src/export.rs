//! What a build gives out besides an image in the store: archives, and files.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use silo_store::SaveImage;
use silo_types::{Digest, Error};

use crate::builder::Builder;
use crate::context::Tree;
use crate::mounts::Held;
use crate::outcome::Outcome;

/// An image that is in the store for as long as it is written out.
struct Stored<'a> {
    builder: &'a Builder,
    id: Digest,
    _lease: silo_store::Lease,
    was_there: bool,
}

impl Drop for Stored<'_> {
    fn drop(&mut self) {
        // What cannot be forgotten now goes with the next collection.
        if !self.was_there && self.builder.engine.image(&self.id.to_string()).is_err() {
            drop(self.builder.engine.store().remove_image(&self.id));
        }
    }
}

impl Builder {
    fn stored(&self, outcome: &Outcome) -> Result<Stored<'_>, Error> {
        let was_there = self.engine.store().image(&outcome.image).is_ok();
        let config = silo_oci::image::ImageConfig::clone(&outcome.config);
        let (image, lease) =
            self.engine.store().derive(outcome.chain, config).map_err(Error::from_kind)?;
        Ok(Stored { builder: self, id: image.id, _lease: lease, was_there })
    }

    /// Writes an image as `docker save` does, which is an OCI layout too. Blocks.
    pub fn export_docker(
        &self,
        outcome: &Outcome,
        names: &[String],
        output: impl Write,
    ) -> Result<(), Error> {
        let stored = self.stored(outcome)?;
        let image = SaveImage { id: stored.id, names: names.to_vec() };
        self.engine.store().save(&[image], output).map_err(Error::from_kind)
    }

    /// Writes an image as an OCI layout in a tar. Blocks.
    pub fn export_oci(
        &self,
        outcome: &Outcome,
        names: &[String],
        output: impl Write,
    ) -> Result<(), Error> {
        self.export_docker(outcome, names, output)
    }

    /// Writes an image's files as a tar. Blocks.
    pub fn export_tar(&self, outcome: &Outcome, output: impl Write) -> Result<(), Error> {
        let tree = self.files(outcome)?;
        silo_store::tree::export(tree.root(), output).map_err(Error::from_kind)
    }

    /// An image's files, as a read-only mount that nobody else sees. Blocks.
    pub fn files(&self, outcome: &Outcome) -> Result<Tree, Error> {
        let is_windows = outcome.config.os == "windows";
        let root = self.engine.layers_root(outcome.chain, is_windows)?;
        Ok(Tree::of(root, Arc::default(), Some(Box::new(Arc::clone(&outcome.lease)))))
    }

    /// Writes the files of a cache mount as a tar. Blocks.
    pub fn export_mount(&self, id: &str, output: impl Write) -> Result<(), Error> {
        let (files, _held) = self.idle_mount(id)?;
        let root = silo_sys::path::open_root(&files)
            .map_err(|_| Error::not_found(format!("no cache mount {id:?}")))?;
        silo_store::tree::export(root, output).map_err(Error::from_kind)
    }

    /// Puts the files of a tar, compressed or not, in place of those of a cache mount. Blocks.
    pub fn import_mount(&self, id: &str, input: impl Read + Send) -> Result<(), Error> {
        let (files, _held) = self.idle_mount(id)?;
        let failed =
            |error: std::io::Error| Error::internal(format!("write cache mount {id:?}: {error}"));
        let scratch = self.scratch()?;
        let aside = scratch.directory("files")?;
        let root = silo_sys::path::open_root(&aside).map_err(failed)?;
        let options = silo_store::tree::UnpackOptions::default();
        silo_store::tree::unpack_into(root, Path::new(""), input, options)
            .map_err(Error::from_kind)?;
        let directory = files.parent().unwrap_or(&files);
        fs_err::create_dir_all(directory).map_err(failed)?;
        fs_err::write(directory.join("id"), id).map_err(failed)?;
        crate::scratch::remove(&files);
        fs_err::rename(&aside, &files).map_err(failed)
    }

    /// Where a cache mount is that no step uses now, and that none uses until it is let go.
    fn idle_mount(&self, id: &str) -> Result<(PathBuf, Held), Error> {
        let name = crate::mounts::directory_name(id, 0);
        let held = self
            .hold_idle(&name)
            .ok_or_else(|| Error::conflict(format!("cache mount {id:?} is used by a build")))?;
        Ok((self.directory.join("mounts").join(name).join("files"), held))
    }
}

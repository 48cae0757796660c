//! What a build gives out besides an image in the store: archives, and files.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use silo_engine::Engine;
use silo_oci::image::Descriptor;
use silo_oci::reference::Reference;
use silo_store::{Image, SaveImage};
use silo_types::{Digest, Error};

use crate::archive_form::ArchiveForm;
use crate::attest::export::{AttachOptions, attach};
use crate::builder::Builder;
use crate::context::Tree;
use crate::outcome::Outcome;

/// An image that is in the store for as long as it is written out.
pub(crate) struct Stored {
    engine: Arc<Engine>,
    pub(crate) image: Image,
    _lease: silo_store::Lease,
    was_there: bool,
}

impl Drop for Stored {
    fn drop(&mut self) {
        // What cannot be forgotten now goes with the next collection.
        let id = self.image.id;
        if !self.was_there && self.engine.image(&id.to_string()).is_err() {
            drop(self.engine.store().remove_image(&id));
        }
    }
}

impl Builder {
    pub(crate) fn stored(&self, outcome: &Outcome) -> Result<Stored, Error> {
        let was_there = self.engine.store().image(&outcome.image).is_ok();
        let config = silo_oci::image::ImageConfig::clone(&outcome.config);
        let (image, lease) =
            self.engine.store().derive(outcome.chain, config).map_err(Error::from_kind)?;
        Ok(Stored { engine: Arc::clone(&self.engine), image, _lease: lease, was_there })
    }

    /// Writes an image as `docker save` does, which is an OCI layout too. Blocks.
    pub fn export_archive(
        &self,
        outcome: &Outcome,
        names: &[String],
        form: &ArchiveForm,
        output: impl Write,
    ) -> Result<(), Error> {
        let stored = self.stored(outcome)?;
        let (forms, _files) = self.forms(std::iter::once(&stored.image), form)?;
        let image = SaveImage { id: stored.image.id, names: names.to_vec(), index: None };
        self.engine.store().save_as(&[image], &forms, output).map_err(Error::from_kind)
    }

    /// Writes images of several platforms, or one of which something is said, as an OCI layout in
    /// a tar: an index that has the names. The one that is best for this host is there as `docker save` has it, too. Blocks.
    pub fn export_list(
        &self,
        outcomes: &[Outcome],
        names: &[Reference],
        (options, form): (AttachOptions, &ArchiveForm),
        output: impl Write,
    ) -> Result<Digest, Error> {
        let stored = outcomes.iter().map(|outcome| self.stored(outcome));
        let stored = stored.collect::<Result<Vec<_>, _>>()?;
        let (forms, _files) = self.forms(stored.iter().map(|stored| &stored.image), form)?;
        let ids: Vec<Digest> = stored.iter().map(|stored| stored.image.id).collect();
        let texts: Vec<String> = names.iter().map(ToString::to_string).collect();
        let attach = attach(outcomes, names, options);
        let saved = self.engine.store().save_list(&ids, &texts, &attach, &forms, output);
        saved.map_err(Error::from_kind)
    }

    /// Puts images of several platforms, or one of which something is said, into the store: an
    /// index that has the names. Blocks.
    pub fn store_list(
        &self,
        outcomes: &[Outcome],
        names: &[Reference],
        options: AttachOptions,
    ) -> Result<Descriptor, Error> {
        let part = |outcome: &Outcome| {
            (outcome.chain, silo_oci::image::ImageConfig::clone(&outcome.config))
        };
        let parts = outcomes.iter().map(part).collect();
        let attach = attach(outcomes, names, options);
        let (index, _lease) = self.engine.put_index(parts, names, &attach)?;
        Ok(index.descriptor)
    }

    /// Writes an image's files as a tar. Blocks.
    pub fn export_tar(
        &self,
        outcome: &Outcome,
        prefix: &str,
        output: impl Write,
    ) -> Result<(), Error> {
        let tree = self.files(outcome, prefix)?;
        silo_store::tree::export(tree.root(), output).map_err(Error::from_kind)
    }

    /// Writes the files of several images as a tar, each below a directory of its name. Blocks.
    pub fn export_tars(
        &self,
        outcomes: &BTreeMap<String, Outcome>,
        prefix: &str,
        output: impl Write,
    ) -> Result<(), Error> {
        let tree =
            |(name, outcome): (&String, &Outcome)| Ok((name.clone(), self.files(outcome, prefix)?));
        let trees = outcomes.iter().map(tree).collect::<Result<BTreeMap<_, _>, Error>>()?;
        let roots = trees.iter().map(|(name, tree)| (name.clone(), tree.root())).collect();
        silo_store::tree::export_several(&roots, output).map_err(Error::from_kind)
    }

    /// An image's files, and what is said of them in files whose names begin with `prefix`, as a
    /// read-only mount that nobody else sees. Blocks.
    pub fn files(&self, outcome: &Outcome, prefix: &str) -> Result<Tree, Error> {
        self.own_files(&self.beside_files(outcome, prefix)?)
    }

    /// An image's files alone.
    pub(crate) fn own_files(&self, outcome: &Outcome) -> Result<Tree, Error> {
        let is_windows = outcome.config.os == "windows";
        let root = self.engine.layers_root(outcome.chain, is_windows)?;
        Ok(Tree::of(root, Arc::default(), Some(Box::new(Arc::clone(&outcome.lease)))))
    }

    /// Writes the files of a cache mount as a tar. Blocks.
    pub fn export_mount(&self, id: &str, output: impl Write) -> Result<(), Error> {
        self.idle_mount(id, 0)?.pack(output)
    }

    /// Puts the files of a tar, compressed or not, in place of those of a cache mount. Blocks.
    pub fn import_mount(&self, id: &str, input: impl Read + Send) -> Result<(), Error> {
        let mount = self.idle_mount(id, 0)?;
        let scratch = self.scratch()?;
        let aside = mount.unpack(&scratch, input, (0, 0, 0o755))?;
        mount.replace(&aside)
    }
}

//! Archives of images in another form than the store has them.

use silo_archive::compress::{Compression, Packing};
use silo_oci::image::{Descriptor, Manifest, to_bytes};
use silo_store::{Image, SaveForms};
use silo_types::Error;

use crate::builder::Builder;
use crate::scratch::Scratch;
use crate::transfer::{CacheForm, MAX_DOCUMENT};

/// What is wanted of an archive; all else is as the store has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArchiveForm {
    /// How layers are packed that the store has only unpacked, and whether those that came in
    /// another compression are packed anew.
    pub packing: Option<(Packing, bool)>,
    /// Types are OCI's (`true`) or Docker's.
    pub oci_types: Option<bool>,
}

impl Builder {
    /// Makes what an archive has in another form. Files lie in the directory that is given back.
    /// Blocks.
    pub(crate) fn forms<'a>(
        &self,
        images: impl Iterator<Item = &'a Image>,
        form: &ArchiveForm,
    ) -> Result<(SaveForms, Option<Scratch>), Error> {
        let mut forms = SaveForms::default();
        if *form == ArchiveForm::default() {
            return Ok((forms, None));
        }
        let scratch = self.scratch()?;
        let store = self.engine.store();
        let packed = form.packing.map(|(packing, force)| CacheForm {
            packing,
            force,
            oci_types: true,
            is_manifest: true,
        });
        for image in images {
            let bytes = store.read_blob(&image.manifest.digest, MAX_DOCUMENT);
            let mut manifest = Manifest::parse(&bytes.map_err(Error::from_kind)?)
                .map_err(|error| Error::internal(error.to_string()))?;
            for (blob, chain) in manifest.layers.iter_mut().zip(&image.chain) {
                let Some(packed) = packed.filter(|form| form.packs(blob) && blob.urls.is_empty())
                else {
                    continue;
                };
                let path = scratch.path().join(chain.hex());
                let new = packed.pack(store, chain, &path)?;
                if packed.packing.compression != Compression::None {
                    forms.files.insert(new.digest, path);
                }
                let annotations = std::mem::take(&mut blob.annotations);
                *blob = Descriptor { annotations, ..new };
            }
            let oci = form.oci_types.unwrap_or(true);
            silo_registry::change_types(&mut manifest, oci).map_err(Error::from_kind)?;
            forms.manifests.insert(image.id, to_bytes(&manifest));
        }
        Ok((forms, Some(scratch)))
    }
}

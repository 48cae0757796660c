//! Archives as targets.

use std::collections::HashSet;

use fs_err::File;
use serde_json::Value;
use silo_oci::image::Descriptor;
use silo_types::Digest;

use super::archive::Outgoing;
use super::check::Checked;
use super::docker::{self, Items};
use super::naming::{self, Naming};
use super::{Content, CopyError, Name, layout};

/// An archive of a layout that is being written.
#[derive(Debug)]
pub(super) struct Tar {
    outgoing: Outgoing,
    naming: Naming,
    index: Value,
    have: HashSet<Digest>,
    /// Of one that is Docker's as well.
    items: Option<Items>,
}

impl Tar {
    /// A layout's.
    pub(super) fn plain(outgoing: Outgoing, naming: Naming) -> Self {
        let index = naming::new_index();
        Self { outgoing, naming, index, have: HashSet::new(), items: None }
    }

    /// Docker's and a layout's.
    pub(super) fn docker(outgoing: Outgoing, naming: Naming) -> Self {
        Self { items: Some(Items::default()), ..Self::plain(outgoing, naming) }
    }

    /// The same in a file that is there.
    pub(super) fn docker_in(file: File, naming: Naming) -> Self {
        Self::docker(Outgoing::to(file), naming)
    }

    pub(super) fn outgoing(&self) -> &Outgoing {
        &self.outgoing
    }

    pub(super) fn naming(&self) -> &Naming {
        &self.naming
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.have.contains(digest)
    }

    pub(super) fn add_blob(
        &mut self,
        blob: &Descriptor,
        mut reader: Checked,
    ) -> Result<(), CopyError> {
        let name = layout::blob_name(&blob.digest);
        let added = self.outgoing.add(&name, blob.size, &mut reader);
        let ended = added.and_then(|()| reader.end());
        if let Some(failure) = reader.failure.take() {
            return Err(failure);
        }
        self.have.insert(blob.digest);
        ended
    }

    pub(super) fn add_document(
        &mut self,
        content: &Content,
        name: Name<'_>,
    ) -> Result<(), CopyError> {
        let digest = content.descriptor.digest;
        if self.have.insert(digest) {
            let size = content.bytes.len() as u64;
            let name = layout::blob_name(&digest);
            self.outgoing.add(&name, size, &mut &content.bytes[..])?;
        }
        if let Some(items) = &mut self.items {
            items.add(content)?;
            if matches!(name, Name::Given | Name::Tag(_)) {
                items.name(&digest, self.naming.whole(name).as_ref());
            }
        }
        self.naming.enter(&mut self.index, &content.descriptor, name);
        Ok(())
    }

    /// Writes what tells of all the rest.
    pub(super) fn finish(&mut self) -> Result<(), CopyError> {
        let index = self.index.to_string().into_bytes();
        let mut files = vec![(layout::INDEX, index), (layout::LAYOUT, layout::LAYOUT_TEXT.into())];
        if let Some(items) = &self.items {
            files.insert(1, (docker::MANIFEST, items.to_json(&self.have, self.outgoing.path())?));
        }
        for (name, bytes) in files {
            self.outgoing.add(name, bytes.len() as u64, &mut &bytes[..])?;
        }
        self.outgoing.finish()
    }
}

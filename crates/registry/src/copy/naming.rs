//! What is called how in a layout.

use serde_json::Value;
use silo_oci::image::Descriptor;
use silo_oci::reference::Reference;
use silo_types::Digest;

use super::layout::{self, EntryName};
use super::location::Selector;
use super::{CopyError, Name};

/// The names that a target gives.
#[derive(Debug)]
pub(super) struct Naming {
    selector: Selector,
    /// In archives of Docker's: names are whole there.
    reference: Option<Reference>,
}

impl Naming {
    /// Names of a layout.
    pub(super) fn plain(selector: &Selector) -> Self {
        Self { selector: selector.clone(), reference: None }
    }

    /// Names of a Docker archive.
    pub(super) fn docker(selector: &Selector) -> Result<Self, CopyError> {
        let reference = match selector {
            Selector::Tag(text) => Some(Reference::parse_normalized(text).map_err(|error| {
                CopyError::Location { text: text.clone(), reason: error.to_string() }
            })?),
            _ => None,
        };
        Ok(Self { selector: selector.clone(), reference })
    }

    /// The digest that the image has to have.
    pub(super) fn digest(&self) -> Option<&Digest> {
        match &self.selector {
            Selector::Digest(digest) => Some(digest),
            _ => None,
        }
    }

    /// The whole name that is meant.
    pub(super) fn whole(&self, name: Name<'_>) -> Option<Reference> {
        match name {
            Name::Given => self.reference.clone(),
            Name::Tag(tag) => self.reference.as_ref()?.with_tag(tag).ok(),
            _ => None,
        }
    }

    /// Adds a document to an index, if it has a name or is about another.
    pub(super) fn enter(&self, index: &mut Value, descriptor: &Descriptor, name: Name<'_>) {
        let whole = self.whole(name).and_then(|whole| EntryName::of(&whole));
        let name = match (name, &self.selector) {
            (Name::Digest, _) => return,
            _ if whole.is_some() => whole,
            (Name::Tag(tag) | Name::Beside(tag), _) => Some(EntryName::plain(tag)),
            (Name::Given, Selector::Tag(tag)) => Some(EntryName::plain(tag)),
            (Name::Given | Name::About(_), _) => None,
        };
        layout::put_entry(index, descriptor, name.as_ref());
    }
}

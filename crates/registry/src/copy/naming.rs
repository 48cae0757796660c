//! What is called how in a layout: the entries of its index.

use serde_json::{Value, json};
use silo_oci::image::{Descriptor, media};
use silo_oci::reference::Reference;
use silo_types::Digest;

use super::location::Selector;
use super::{CopyError, Name};

/// The annotation with an image's name.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The same, whole, in archives of Docker's and containerd's.
pub(super) const IMAGE_NAME: &str = "io.containerd.image.name";

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
        put_entry(index, descriptor, name.as_ref());
    }
}

/// What an entry of an index is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntryName {
    tag: String,
    whole: Option<String>,
}

impl EntryName {
    /// A name that says nothing of a repository.
    pub(super) fn plain(tag: &str) -> Self {
        Self { tag: tag.to_owned(), whole: None }
    }

    /// A tag of a repository.
    pub(super) fn of(reference: &Reference) -> Option<Self> {
        let tag = reference.tag()?.to_owned();
        Some(Self { whole: Some(format!("{}:{tag}", reference.name())), tag })
    }

    /// The whole of it, if it has a repository's name.
    pub(super) fn into_whole(self) -> Option<String> {
        self.whole
    }
}

/// An index of nothing.
pub(super) fn new_index() -> Value {
    json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [] })
}

/// Adds an image to an index, in the place of the one of that name.
pub(super) fn put_entry(index: &mut Value, descriptor: &Descriptor, name: Option<&EntryName>) {
    let Some(entries) = index["manifests"].as_array_mut() else { return };
    let digest = descriptor.digest.to_string();
    let is_same = |entry: &Value| entry["digest"] == digest.as_str();
    // One without a name needs to be there once, whatever name it has.
    if name.is_none() && entries.iter().any(is_same) {
        return;
    }
    entries.retain(|entry| match entry["annotations"][REF_NAME].as_str() {
        None => !is_same(entry),
        old => {
            let whole = entry["annotations"][IMAGE_NAME].as_str();
            name.is_none_or(|name| {
                old != Some(name.tag.as_str())
                    || (name.whole.is_some() && whole != name.whole.as_deref())
            })
        }
    });
    let mut descriptor = descriptor.clone();
    let annotations = &mut descriptor.annotations;
    annotations.retain(|key, _| key != REF_NAME && key != IMAGE_NAME);
    if let Some(name) = name {
        annotations.insert(REF_NAME.to_owned(), name.tag.clone());
        annotations.extend(name.whole.iter().map(|whole| (IMAGE_NAME.to_owned(), whole.clone())));
    }
    descriptor.urls.clear();
    entries.push(serde_json::to_value(&descriptor).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use silo_oci::image::digest;

    use super::*;

    #[test]
    fn entries_of_an_index() {
        let mut index = new_index();
        index["x"] = json!(1);
        let one = Descriptor::new(media::OCI_MANIFEST, digest(b"1"), 1);
        let two = Descriptor::new(media::OCI_MANIFEST, digest(b"2"), 1);
        put_entry(&mut index, &one, None);
        put_entry(&mut index, &one, Some(&EntryName::plain("a")));
        put_entry(&mut index, &one, None);
        let entries = index["manifests"].as_array().unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0]["annotations"][REF_NAME], "a", "it keeps its name");
        put_entry(&mut index, &one, Some(&EntryName::plain("a")));
        put_entry(&mut index, &two, Some(&EntryName::plain("b")));
        put_entry(&mut index, &two, Some(&EntryName::plain("a")));
        let entries = index["manifests"].as_array().unwrap();
        let names: Vec<&str> =
            entries.iter().filter_map(|entry| entry["annotations"][REF_NAME].as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        assert!(entries.iter().all(|entry| entry["digest"] == two.digest.to_string()));
        assert_eq!(index["x"], 1);
    }
}

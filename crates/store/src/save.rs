//! Saving images: one tar that is an OCI layout and a Docker archive at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;
use silo_archive::{Entry, EntryKind, Writer};
use silo_oci::attest::attests;
use silo_oci::image::{Descriptor, MAX_DOCUMENT, Manifest, media, to_bytes};
use silo_oci::platform::Platform;
use silo_types::Digest;

use crate::index::{Attach, attached, list};
use crate::{Error, Image, IndexEntry, SaveImage, Store};

/// An image of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Where a blob of the archive comes from.
enum Source {
    /// `content/`.
    Blob,
    /// The tar of the layer of this chain id.
    Layer(Digest),
    /// Here.
    Bytes(Vec<u8>),
    /// Somebody's file.
    File(PathBuf),
}

/// Images that go out in another form than the store has them.
#[derive(Debug, Clone, Default)]
pub struct SaveForms {
    /// Manifests by the ids of their images.
    pub manifests: BTreeMap<Digest, Vec<u8>>,
    /// Blobs that these name and the store has not.
    pub files: BTreeMap<Digest, PathBuf>,
}

/// The blobs of an archive, with their sizes.
type Blobs = BTreeMap<Digest, (u64, Source)>;

impl Store {
    /// Writes images with their names. Layers that several of them have are written once.
    ///
    /// A layer whose tar is made again is hashed as it goes out, once, and an error if it is
    /// not what was loaded. Blobs are copied as they are: documents were checked when the
    /// store was opened or when they came, compressed layers only when they came, and who
    /// loads the archive checks them all.
    pub fn save(&self, images: &[SaveImage], output: impl Write) -> Result<(), Error> {
        self.save_as(images, &SaveForms::default(), output)
    }

    /// As [`Self::save`], some images in another form.
    pub fn save_as(
        &self,
        images: &[SaveImage],
        forms: &SaveForms,
        output: impl Write,
    ) -> Result<(), Error> {
        let lease = self.lease();
        let mut blobs = Blobs::new();
        let mut items = Vec::new();
        let mut manifests = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for wanted in images {
            let image = self.image(&wanted.id)?;
            for held in image.chain.iter().chain([&image.id, &image.manifest.digest]) {
                lease.hold(*held);
            }
            let names: Vec<String> = wanted.names.iter().map(|name| familiar(name)).collect();
            let (descriptor, layers) = match &wanted.index {
                Some(index) => self.collect_index(index, &image, &lease, &mut blobs)?,
                None => {
                    let (mut plain, layers) =
                        self.collect_blobs(&image, forms, &lease, &mut blobs)?;
                    plain.annotations.clear();
                    (plain, layers)
                }
            };
            for name in &names {
                if let Some((repository, tag)) = name.rsplit_once(':')
                    && let Some(top) = layers.last()
                {
                    let tags = repositories.entry(repository.to_owned()).or_default();
                    tags.insert(tag.to_owned(), top.hex());
                }
            }
            manifests.append(&mut named(&descriptor, &names));
            if seen.insert(image.id) {
                let config = blob_name(&image.id);
                let layers = layers.iter().map(blob_name).collect();
                items.push(Item { config, repo_tags: names, layers });
            } else if let Some(item) =
                items.iter_mut().find(|item| item.config == blob_name(&image.id))
            {
                let new = names.into_iter().filter(|name| !item.repo_tags.contains(name));
                let new: Vec<String> = new.collect();
                item.repo_tags.extend(new);
            }
        }
        self.write_archive(output, &blobs, manifests, &items, &repositories)
    }

    /// Refuses images that [`Store::save`] cannot give out whole, before anything is written.
    pub fn check_save(&self, images: &[SaveImage]) -> Result<(), Error> {
        for wanted in images {
            is_here(&self.image(&wanted.id)?)?;
            let Some(index) = &wanted.index else { continue };
            for entry in &self.index(index)?.entries {
                if let Ok(image) = self.image_of_entry(entry) {
                    is_here(&image)?;
                }
            }
        }
        Ok(())
    }

    /// Writes images of several platforms as one: an index that has the names. The image that
    /// is best for this host is also what `docker load` takes. `attach` gives what is said of an
    /// image, as for [`Store::make_index`]. Gives back the index's digest.
    pub fn save_list(
        &self,
        ids: &[Digest],
        names: &[String],
        attach: &Attach<'_>,
        forms: &SaveForms,
        output: impl Write,
    ) -> Result<Digest, Error> {
        let lease = self.lease();
        let mut blobs = Blobs::new();
        let names: Vec<String> = names.iter().map(|name| familiar(name)).collect();
        let mut manifests = Vec::new();
        let mut images = Vec::new();
        for id in ids {
            let image = self.image(id)?;
            for held in image.chain.iter().chain([&image.id, &image.manifest.digest]) {
                lease.hold(*held);
            }
            let (manifest, layers) = self.collect_blobs(&image, forms, &lease, &mut blobs)?;
            manifests.push(Descriptor {
                annotations: BTreeMap::new(),
                platform: Some(image.config.platform()),
                ..manifest
            });
            images.push((image, layers));
        }
        let platforms: Vec<Platform> =
            images.iter().map(|(image, _)| image.config.platform()).collect();
        let best = Platform::host().best(platforms.iter().map(Some));
        let items = best.and_then(|best| images.get(best)).map(|(image, layers)| Item {
            config: blob_name(&image.id),
            repo_tags: names.clone(),
            layers: layers.iter().map(blob_name).collect(),
        });
        let items: Vec<Item> = items.into_iter().collect();
        for said in attached(&mut manifests, attach) {
            for bytes in said.documents() {
                let digest = silo_oci::image::digest(&bytes);
                blobs.insert(digest, (bytes.len() as u64, Source::Bytes(bytes)));
            }
        }
        let list = add_list(manifests, &mut blobs);
        let digest = list.digest;
        let named = named(&list, &names);
        self.write_archive(output, &blobs, named, &items, &BTreeMap::new())?;
        Ok(digest)
    }

    fn write_archive(
        &self,
        output: impl Write,
        blobs: &Blobs,
        manifests: Vec<Descriptor>,
        items: &[Item],
        repositories: &BTreeMap<String, BTreeMap<String, String>>,
    ) -> Result<(), Error> {
        let index = list(manifests);
        let output = io::BufWriter::with_capacity(256 << 10, output);
        let mut writer = Writer::new(output);
        for directory in ["blobs/", "blobs/sha256/"] {
            let entry = Entry::new(EntryKind::Directory, directory, 0o755);
            writer.append_empty(&entry).map_err(written)?;
        }
        for (digest, (size, source)) in blobs {
            self.write_blob(&mut writer, digest, *size, source)?;
        }
        document(&mut writer, "index.json", &to_bytes(&index))?;
        document(&mut writer, "manifest.json", &to_bytes(&items))?;
        document(&mut writer, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        if !repositories.is_empty() {
            document(&mut writer, "repositories", &to_bytes(repositories))?;
        }
        let mut output = writer.finish().map_err(written)?;
        output.flush().map_err(|error| Error::Stream("cannot write the archive", error))
    }

    /// Adds an index with those of its images that are there; gives its descriptor, and the layers
    /// of one of the images. Where an image cannot be given out as the index names it, another
    /// index takes its place.
    fn collect_index(
        &self,
        digest: &Digest,
        one: &Image,
        lease: &crate::Lease,
        blobs: &mut Blobs,
    ) -> Result<(Descriptor, Vec<Digest>), Error> {
        let index = self.index(digest)?;
        let mut entries = Vec::new();
        let mut layers = None;
        let mut as_it_came = true;
        let as_is = SaveForms::default();
        for entry in &index.entries {
            let Ok(image) = self.image_of_entry(entry) else {
                entries.push(entry.descriptor.clone());
                continue;
            };
            for held in image.chain.iter().chain([&image.id, &image.manifest.digest]) {
                lease.hold(*held);
            }
            as_it_came &= image.manifest.digest == entry.descriptor.digest;
            let (_, found) = self.collect_blobs(&image, &as_is, lease, blobs)?;
            if image.id == one.id {
                layers = Some(found);
            }
            entries.push(image.manifest);
        }
        let layers = match layers {
            Some(layers) => layers,
            None => self.collect_blobs(one, &as_is, lease, blobs)?.1,
        };
        if !as_it_came {
            // What was said about a manifest is not said about the one in its place.
            let here: Vec<Digest> = entries.iter().map(|entry| entry.digest).collect();
            entries.retain(|entry| attests(entry).is_none_or(|about| here.contains(&about)));
        }
        let documents: Vec<Digest> = if as_it_came {
            index.documents
        } else {
            let kept = |entry: &&IndexEntry| {
                entries.iter().any(|kept| kept.digest == entry.descriptor.digest)
            };
            let parts = |entry: &IndexEntry| entry.parts.clone().into_iter();
            let own = |entry: &IndexEntry| parts(entry).next().map(|_| entry.descriptor.clone());
            let kept = index.entries.iter().filter(kept);
            kept.flat_map(|entry| parts(entry).chain(own(entry))).map(|part| part.digest).collect()
        };
        for document in &documents {
            lease.hold(*document);
            if !blobs.contains_key(document) && self.has_blob(document) {
                let file = self.open_blob(document)?;
                let path = self.blob_path(document);
                let metadata = file.metadata().map_err(Error::io("look at", path))?;
                blobs.insert(*document, (metadata.len(), Source::Blob));
            }
        }
        if !as_it_came {
            return Ok((add_list(entries, blobs), layers));
        }
        let mut descriptor = index.descriptor;
        descriptor.annotations.clear();
        Ok((descriptor, layers))
    }

    /// Adds an image's blobs; gives its manifest, and those of its layers, lowest first.
    fn collect_blobs(
        &self,
        image: &Image,
        forms: &SaveForms,
        lease: &crate::Lease,
        blobs: &mut Blobs,
    ) -> Result<(Descriptor, Vec<Digest>), Error> {
        let own = forms.manifests.get(&image.id);
        let bytes = match own {
            Some(bytes) => bytes.clone(),
            None => self.read_blob(&image.manifest.digest, MAX_DOCUMENT as u64)?,
        };
        let manifest = Manifest::parse(&bytes).map_err(|source| Error::Document {
            what: format!("manifest {}", image.manifest.digest),
            source,
        })?;
        let mut descriptor = image.manifest.clone();
        let size = bytes.len() as u64;
        let source = if own.is_some() {
            manifest.media_type.clone_into(&mut descriptor.media_type);
            (descriptor.digest, descriptor.size) = (silo_oci::image::digest(&bytes), size);
            Source::Bytes(bytes)
        } else {
            Source::Blob
        };
        blobs.insert(descriptor.digest, (size, source));
        let config = self.read_blob(&image.id, MAX_DOCUMENT as u64)?;
        blobs.insert(image.id, (config.len() as u64, Source::Blob));
        let mut layers = Vec::new();
        is_here(image)?;
        for (blob, chain) in manifest.layers.iter().zip(&image.chain) {
            let layer = self.layer(chain)?;
            lease.hold(blob.digest);
            let found = if blob.digest == layer.diff_id {
                (layer.tar_size, Source::Layer(*chain))
            } else if let Some(file) = forms.files.get(&blob.digest) {
                (blob.size, Source::File(file.clone()))
            } else {
                let file = self.open_blob(&blob.digest)?;
                let path = self.blob_path(&blob.digest);
                let metadata = file.metadata().map_err(Error::io("look at", path))?;
                (metadata.len(), Source::Blob)
            };
            blobs.insert(blob.digest, found);
            layers.push(blob.digest);
        }
        Ok((descriptor, layers))
    }

    fn write_blob<W: Write>(
        &self,
        writer: &mut Writer<W>,
        digest: &Digest,
        size: u64,
        source: &Source,
    ) -> Result<(), Error> {
        let mut entry = Entry::new(EntryKind::Regular, blob_name(digest), 0o644);
        entry.size = size;
        entry.stored = size;
        match source {
            Source::Bytes(bytes) => writer.append(&entry, &mut &bytes[..]).map_err(written),
            Source::Blob => {
                let mut file = self.open_blob(digest)?;
                writer.append(&entry, &mut file).map_err(written)
            }
            Source::File(path) => {
                let mut file = fs_err::File::open(path).map_err(Error::io("open", path.clone()))?;
                writer.append(&entry, &mut file).map_err(written)
            }
            Source::Layer(chain) => {
                writer.append_header(&entry).map_err(written)?;
                self.write_layer_tar(chain, writer.output())?;
                writer.pad(size).map_err(written)
            }
        }
    }
}

/// An image whose base is another's cannot be given out: its own layers are elsewhere.
fn is_here(image: &Image) -> Result<(), Error> {
    match &image.stand_in {
        None => Ok(()),
        Some(stand_in) => Err(Error::NotHere { id: image.id, name: stand_in.name.clone() }),
    }
}

/// Adds an index that is made here.
fn add_list(manifests: Vec<Descriptor>, blobs: &mut Blobs) -> Descriptor {
    let bytes = to_bytes(&list(manifests));
    let digest = silo_oci::image::digest(&bytes);
    let descriptor = Descriptor::new(media::OCI_INDEX, digest, bytes.len() as u64);
    blobs.insert(digest, (descriptor.size, Source::Bytes(bytes)));
    descriptor
}

/// A descriptor, once for each name.
fn named(plain: &Descriptor, names: &[String]) -> Vec<Descriptor> {
    if names.is_empty() {
        return vec![plain.clone()];
    }
    let named = names.iter().map(|name| {
        let mut descriptor = plain.clone();
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let annotations = &mut descriptor.annotations;
        annotations.insert("io.containerd.image.name".into(), full(name));
        annotations.insert("org.opencontainers.image.ref.name".into(), tag.to_owned());
        descriptor
    });
    named.collect()
}

/// `docker.io/library/busybox:latest` -> `busybox:latest`.
fn familiar(name: &str) -> String {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    short.strip_prefix("library/").unwrap_or(short).to_owned()
}

/// The opposite of [`familiar`].
fn full(name: &str) -> String {
    match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn written(source: silo_archive::Error) -> Error {
    match source {
        silo_archive::Error::Write(error) => Error::Stream("cannot write the archive", error),
        source => Error::Archive { what: "the archive to be saved".into(), source },
    }
}

fn document<W: Write>(writer: &mut Writer<W>, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let mut entry = Entry::new(EntryKind::Regular, name, 0o644);
    entry.size = bytes.len() as u64;
    entry.stored = entry.size;
    writer.append(&entry, &mut &bytes[..]).map_err(written)
}

//! Images in and out: load, save, import; and resolving one for a container.

use std::io::{Read, Write};
use std::sync::Arc;

use jiff::Timestamp;
use silo_docker::containers::Config;
use silo_docker::query::ImportQuery;
use silo_docker::stream::{ProgressDetail, StreamMessage};
use silo_oci::image::{History, ImageConfig};
use silo_oci::platform::Platform;
use silo_oci::reference::Reference;
use silo_store::{Progress, SaveImage};
use silo_types::{Digest, Error, ErrorKind};

use super::{change, config, repository_and_tag};
use crate::engine::Engine;

async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, silo_store::Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::with_source(ErrorKind::Internal, what, error))?
        .map_err(|error| match error.lacks_room() {
            // docker wording first
            Some(path) => Error::with_source(
                ErrorKind::Internal,
                format!(
                    "write {path}: no space left on device: the engine's data root is full; \
                     `docker system df` tells what takes room, `docker system prune` removes what \
                     is not used"
                ),
                error,
            ),
            None => Error::from_kind(error),
        })
}

/// The platform that a client names, or the host's.
pub(super) fn platform(text: &str) -> Result<Platform, Error> {
    match text {
        "" => Ok(Platform::host()),
        text => text
            .parse()
            .map_err(|error: silo_oci::platform::PlatformError| Error::invalid(error.to_string())),
    }
}

fn progress_line(progress: Progress) -> StreamMessage {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    StreamMessage {
        status: "Loading layer".to_owned(),
        progress_detail: Some(ProgressDetail {
            current: number(progress.current),
            total: number(progress.total),
        }),
        id: progress.layer.map(|layer| super::short(&layer)).unwrap_or_default(),
        ..StreamMessage::default()
    }
}

impl Engine {
    /// `POST /images/load`: reads an archive and tells `sink` how it goes. What was loaded before
    /// an error stays.
    pub async fn image_load(
        &self,
        input: impl Read + Send + 'static,
        quiet: bool,
        platforms: &[Platform],
        sink: impl Fn(StreamMessage) + Send + Clone + 'static,
    ) -> Result<(), Error> {
        let store = Arc::clone(&self.store);
        let report = sink.clone();
        let loaded = blocking("load images", move || {
            store.load(input, &mut |progress| {
                if !quiet {
                    report(progress_line(progress));
                }
            })
        })
        .await?;
        let wanted = |image: &silo_store::Image| {
            let is_for = |wanted| super::indexed::is_for(wanted, image);
            platforms.is_empty() || platforms.iter().any(is_for)
        };
        if !loaded.images.iter().any(|image| wanted(&image.image)) {
            drop(loaded);
            self.images.collect().await?;
            let list: Vec<String> = platforms.iter().map(ToString::to_string).collect();
            // moby wording
            return Err(Error::not_found(format!(
                "requested platform(s) ({}) not found in the archive",
                list.join(", ")
            )));
        }
        for image in loaded.images.iter().filter(|image| wanted(&image.image)) {
            let names: Vec<Reference> = image
                .names
                .iter()
                .filter_map(|name| Reference::parse_normalized(name).ok())
                .filter(|name| name.digest().is_none())
                .collect();
            for name in &names {
                // A name moves; what it pointed to stays without it.
                let old = self.images.by_name(name).filter(|old| *old != image.id);
                if let Some(old) = old {
                    sink(StreamMessage::stream(format!(
                        "The image {} already exists, renaming the old one with ID {old} to empty \
                         string\n",
                        name.familiar()
                    )));
                }
            }
            self.images.put(image.image.clone(), None, &names)?;
            // Those of an index are told of by its name.
            let in_index = loaded.indexes.iter().any(|found| {
                let entries = &found.index.entries;
                !found.names.is_empty() && entries.iter().any(|e| e.image == Some(image.id))
            });
            for name in &names {
                sink(StreamMessage::stream(format!("Loaded image: {}\n", name.familiar())));
            }
            if names.is_empty() && !in_index {
                sink(StreamMessage::stream(format!("Loaded image ID: {}\n", image.id)));
            }
            self.image_event("load", &image.id, &image.id.to_string());
        }
        for found in &loaded.indexes {
            let names: Vec<Reference> = found
                .names
                .iter()
                .filter_map(|name| Reference::parse_normalized(name).ok())
                .filter(|name| name.digest().is_none())
                .collect();
            let mut here = found.index.entries.iter().filter_map(|entry| entry.image);
            let Some(entry) = here.find_map(|id| self.images.get(&id)) else { continue };
            self.images.put_indexed(entry.image.clone(), None, &names, Some(&found.index))?;
        }
        // The records keep the content from here on.
        drop(loaded.lease);
        if !platforms.is_empty() {
            self.images.collect().await?;
        }
        Ok(())
    }

    /// Waits until all images are on the disk, where they get by themselves a little later.
    pub async fn sync(&self) -> Result<(), Error> {
        let store = Arc::clone(&self.store);
        blocking("flush images", move || store.sync()).await
    }

    /// The images behind names, for [`Engine::image_save`]. A bare repository stands for all of
    /// its tags, an id for the image without a name, a name of an index for all images of it that
    /// are here, or for those for `platforms`. Images that cannot be given out whole are refused
    /// here, while the client can still be told.
    pub fn image_save_resolve(
        &self,
        names: &[String],
        platforms: &[Platform],
    ) -> Result<Vec<SaveImage>, Error> {
        let mut images: Vec<SaveImage> = Vec::new();
        let mut add = |id: Digest, index: Option<Digest>, name: Option<String>| {
            let known = images.iter_mut().find(|image| image.id == id && image.index == index);
            match known {
                Some(image) => image.names.extend(name),
                None => images.push(SaveImage { id, names: name.into_iter().collect(), index }),
            }
        };
        for text in names {
            let not_found = || Error::not_found(format!("No such image: {text}"));
            let bare = Reference::parse(text).ok().filter(Reference::is_name_only);
            if let Some(repository) = bare {
                let tags = self.images.tags_of(&repository.without_suffix());
                for (name, id) in &tags {
                    let text = name.to_string();
                    for platform in platforms {
                        let entry = self.images.find_for(&text, Some(platform))?;
                        add(entry.id(), None, Some(text.clone()));
                    }
                    if platforms.is_empty() {
                        let index = self.images.index_by_name(name);
                        add(*id, index.map(|index| index.descriptor.digest), Some(text));
                    }
                }
                if !tags.is_empty() {
                    continue;
                }
            }
            let entry = self.images.find(text).map_err(|_| not_found())?;
            let index = self.images.index_named(text).map(|index| index.descriptor.digest);
            let name = Reference::parse_normalized(text)
                .ok()
                .filter(|name| name.tag().is_some() && self.images.by_name(name).is_some());
            let name = name.map(|name| name.to_string());
            for platform in platforms {
                let entry = self.images.find_for(text, Some(platform))?;
                add(entry.id(), None, name.clone());
            }
            if platforms.is_empty() {
                add(entry.id(), index, name);
            }
        }
        self.store.check_save(&images).map_err(Error::from_kind)?;
        Ok(images)
    }

    /// `GET /images/get`: writes an archive. Blocking.
    pub fn image_save(&self, images: Vec<SaveImage>, output: impl Write) -> Result<(), Error> {
        self.store.save(&images, output).map_err(Error::from_kind)?;
        for image in &images {
            self.image_event("save", &image.id, &image.id.to_string());
        }
        Ok(())
    }

    /// `POST /images/create?fromSrc=`: makes an image of one layer and returns its id.
    pub async fn image_import(
        &self,
        query: ImportQuery,
        input: impl Read + Send + 'static,
    ) -> Result<String, Error> {
        let name = repository_and_tag(&query.repo, &query.tag)?;
        let platform = platform(&query.platform)?;
        let config = change::apply(Config::default(), &query.changes)?;
        let created = Some(silo_types::time::rfc3339_nano(Timestamp::now()));
        let image = ImageConfig {
            created: created.clone(),
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            comment: query.message.clone(),
            config: config::from_api(&config),
            history: vec![History { created, comment: query.message, ..History::default() }],
            ..ImageConfig::default()
        };
        let store = Arc::clone(&self.store);
        let (image, lease) = blocking("import image", move || store.import(input, image)).await?;
        let id = image.id;
        let names: Vec<Reference> = name.into_iter().collect();
        self.images.put(image, None, &names)?;
        drop(lease);
        for name in &names {
            self.image_event("tag", &id, &name.familiar());
        }
        self.image_event("import", &id, &id.to_string());
        Ok(id.to_string())
    }
}

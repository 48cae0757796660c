//! From what a client asks to a build, and from the build to what it gets.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use silo_archive::compress::Compression;
use silo_build::context::{ContextRef, Tree};
use silo_build::progress::{Event, Progress as _, Status, Vertex};
use silo_build::{
    ArchiveForm, BuildError, BuildRequest, Builder, CacheImport, DockerfileSource, Outcome,
    PruneOptions, Pruned,
};
use silo_oci::image::Descriptor;
use silo_oci::platform::Platform;
use silo_oci::reference::Reference;
use silo_types::{Digest, Error, ErrorKind};

use crate::attributes::{Attributes, CacheExport, CachePlace, CacheTo, Place, not_yet};
use crate::content::ClientContent;
use crate::credentials::ClientCredentials;
use crate::filesync::{ClientFiles, Slots, SyncError, overlap, send_bytes, send_tree, send_trees};
use crate::job::Job;
use crate::push::{ImageExport, attach_options, packing, switch};
use crate::session::Session;
use crate::upload::Upload;

/// Platforms of one build.
const MAX_PLATFORMS: usize = 32;

/// What builds are made with.
#[derive(Debug)]
pub(crate) struct Solver {
    pub(crate) builder: Arc<Builder>,
    pub(crate) slots: Arc<Slots>,
}

/// Where a result goes.
#[derive(Debug, Clone)]
pub(crate) struct Export {
    pub(crate) kind: String,
    pub(crate) attributes: Attributes,
}

/// A build as a client asks for it.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The build, but for its platform where there are several.
    pub(crate) build: BuildRequest,
    /// Platforms, each of which is a build.
    platforms: Vec<Platform>,
    /// The result is a list of images.
    is_list: bool,
}

impl Wanted {
    /// A build of one image.
    pub(crate) fn one(build: BuildRequest) -> Self {
        Self { build, platforms: Vec::new(), is_list: false }
    }
}

/// What the client learns of its result, by BuildKit's names.
pub(crate) type Response = HashMap<String, String>;

impl Solver {
    /// The build that a client asks for.
    pub(crate) fn request(
        &self,
        session: &Arc<Session>,
        attributes: &Attributes,
        inputs: &HashMap<String, String>,
    ) -> Result<Wanted, Error> {
        let local = |name: &str, hint: &str| {
            let slots = Arc::clone(&self.slots);
            Arc::new(ClientFiles::new(Arc::clone(session), slots, name, hint))
        };
        let place = |name: &str, place: Place| -> Result<ContextRef, Error> {
            Ok(match place {
                Place::Local(directory) => {
                    let hint = attributes.get(&format!("sharedkey:localdir:{name}"));
                    ContextRef::Files(local(&directory, &format!("{name}:{hint}")))
                }
                Place::Git(url) => ContextRef::Git(url),
                Place::Http(url) => ContextRef::Http(url),
                Place::Image(image) => ContextRef::Image(image),
                Place::Empty => ContextRef::Empty,
                Place::Layout { store, digest } => {
                    let content = ClientContent::new(Arc::clone(session), &format!("oci:{store}"));
                    ContextRef::Layout { source: Arc::new(content?), digest }
                }
                Place::Upload(id) => ContextRef::Files(Arc::new(Upload::new(
                    Arc::clone(&self.builder),
                    Arc::clone(session),
                    id,
                ))),
                Place::Input(input) => {
                    let image = inputs.get(&input).ok_or_else(|| {
                        // BuildKit's wording.
                        Error::invalid(format!("invalid input {input} for {name}"))
                    })?;
                    ContextRef::Image(image.clone())
                }
            })
        };
        let main = attributes.context()?;
        let (dockerfile, forced) = attributes.dockerfile();
        let with_context = !forced && !matches!(main, Place::Local(_));
        let mut request = BuildRequest::new(place("context", main)?);
        request.dockerfile = DockerfileSource::InContext {
            context: if with_context { None } else { Some(local(dockerfile, "dockerfile")) },
            path: attributes.filename().to_owned(),
        };
        let mut named = BTreeMap::new();
        for (name, at) in attributes.named_contexts()? {
            let context = place(&name, at)?;
            named.insert(name, context);
        }
        request.named_contexts = named;
        attributes.get("target").clone_into(&mut request.target);
        let arguments = attributes.prefixed("build-arg:").into_iter();
        request.args = arguments.map(|(name, value)| (name, Some(value))).collect();
        request.labels = attributes.prefixed("label:");
        let mut platforms = attributes.platforms()?;
        platforms.dedup();
        if platforms.len() > MAX_PLATFORMS {
            return Err(Error::invalid("too many platforms"));
        }
        let is_list = platforms.len() > 1 || attributes.multi_platform()?;
        request.platform = platforms.first().cloned();
        (request.no_cache, request.no_cache_filter) = attributes.no_cache();
        let from = attributes.cache_from()?;
        request.cache_from = from.images;
        request.cache_insecure = from.insecure;
        for (directory, manifest) in from.directories {
            let name = format!("local:{directory}");
            let source = Arc::new(ClientContent::new(Arc::clone(session), &name)?);
            request.cache_imports.push(CacheImport { name, source, manifest });
        }
        request.inline_cache = attributes.inline_cache()?;
        request.pull = match attributes.get("image-resolve-mode") {
            "pull" => true,
            "" | "default" | "local" => false,
            mode => return Err(Error::invalid(format!("invalid image-resolve-mode: {mode}"))),
        };
        // Silo's own.
        request.base = attributes.get("base").parse()?;
        request.network = attributes.network()?;
        request.extra_hosts = attributes.extra_hosts()?;
        request.hostname = match attributes.get("build-arg:BUILDKIT_SANDBOX_HOSTNAME") {
            "" => attributes.get("hostname").to_owned(),
            argument => argument.to_owned(),
        };
        request.limits = attributes.limits()?;
        request.attest = crate::attest::wanted(attributes)?;
        request.source_date_epoch = attributes.source_date_epoch()?;
        request.registry_keys = Arc::new(ClientCredentials::new(Arc::clone(session)));
        request.secrets = Arc::new(ClientCredentials::new(Arc::clone(session)));
        request.ssh = Arc::new(ClientCredentials::new(Arc::clone(session)));
        request.store = false;
        Ok(Wanted { build: request, platforms, is_list })
    }

    /// Removes from the cache what nobody uses, contexts included.
    pub(crate) async fn prune(&self, options: PruneOptions) -> Result<Pruned, Error> {
        self.builder.prune(options).await
    }

    /// Builds and hands the result out.
    pub(crate) async fn run(
        &self,
        session: &Arc<Session>,
        job: &Arc<Job>,
        wanted: Wanted,
        exports: &[Export],
        caches: &CacheTo,
    ) -> Result<Response, BuildError> {
        let Wanted { mut build, platforms, is_list } = wanted;
        crate::attest::begin(&mut build.attest, exports, job.reference())?;
        // Of an image of which something is said, the index is what is given out.
        let is_index = is_list || build.attest.is_some();
        let mut response = Response::new();
        let (mut names, mut tags) = (Vec::new(), Vec::new());
        for export in exports {
            match export.kind.as_str() {
                "moby" | "image" => {
                    let image = ImageExport::parse(&export.attributes)?;
                    // Of several platforms, the index is what is stored.
                    build.store |= image.store && !is_index;
                    let named = image_names(export)?;
                    if build.store && !image.by_digest {
                        tags.extend(named.iter().cloned());
                    }
                    names.extend(named);
                }
                "docker" | "oci" if export.attributes.get("tar") == "false" => {
                    return Err(not_yet("an image layout as a directory").into());
                }
                "docker" | "oci" => drop(archive_form(export)?),
                "tar" => {}
                "local" => drop(is_split(export, is_list)?),
                other => {
                    // BuildKit's wording.
                    let message = format!("exporter {other:?} could not be found");
                    return Err(BuildError::new(ErrorKind::NotFound, message));
                }
            }
        }
        build.tags = tags;
        build.inline_cache |= caches.inline;
        let builds = self.builds(job, build, platforms);
        let outcomes = tokio::select! {
            outcomes = futures_util::future::try_join_all(builds) => outcomes?,
            () = session.closed() => {
                return Err(BuildError::new(ErrorKind::Cancelled, "context canceled"));
            }
        };
        for (number, export) in exports.iter().enumerate() {
            let lists = (is_list, is_index);
            let list = self.export(session, job, &outcomes, lists, number, export).await?;
            if let Some(list) = list {
                response.insert("containerimage.digest".to_owned(), list.to_string());
            }
        }
        for (number, cache) in caches.exports.iter().enumerate() {
            let written = self.export_cache(session, job, &outcomes, number, cache).await;
            match written {
                Ok(Some(manifest)) if matches!(cache.place, CachePlace::Directory(_)) => {
                    let text = serde_json::to_string(&manifest).unwrap_or_default();
                    response.insert("cache.manifest".to_owned(), text);
                }
                Ok(_) => {}
                // Its step shows it.
                Err(_) if cache.ignore_error => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let ([outcome], false) = (&outcomes[..], is_list) {
            let id = outcome.image.to_string();
            response.entry("containerimage.digest".to_owned()).or_insert_with(|| id.clone());
            response.insert("containerimage.config.digest".to_owned(), id);
        }
        for export in exports.iter().enumerate() {
            if let Some(manifest) = self.push(session, job, &outcomes, is_index, export).await? {
                let text = serde_json::to_string(&manifest).unwrap_or_default();
                let text = STANDARD.encode(text);
                response.insert("containerimage.descriptor".to_owned(), text);
                response.insert("containerimage.digest".to_owned(), manifest.digest.to_string());
            }
        }
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            response.insert("image.name".to_owned(), names.join(","));
        }
        Ok(response)
    }

    /// The builds of all platforms.
    fn builds(
        &self,
        job: &Arc<Job>,
        build: BuildRequest,
        platforms: Vec<Platform>,
    ) -> Vec<impl Future<Output = Result<Outcome, BuildError>>> {
        let several = platforms.len() > 1;
        let mut builds = Vec::new();
        for (number, platform) in platforms.into_iter().enumerate() {
            let id = match number {
                0 => job.reference().to_owned(),
                number => format!("{}/{number}", job.reference()),
            };
            let platform = Some(platform);
            builds.push(BuildRequest { id, platform, show_platform: several, ..build.clone() });
        }
        if builds.is_empty() {
            builds.push(BuildRequest { id: job.reference().to_owned(), ..build });
        }
        let begin = |build| {
            let (builder, progress) = (Arc::clone(&self.builder), Arc::clone(job));
            async move { builder.build(build, progress).await }
        };
        builds.into_iter().map(begin).collect()
    }

    /// Writes the cache of builds where the client wants it.
    async fn export_cache(
        &self,
        session: &Arc<Session>,
        job: &Arc<Job>,
        outcomes: &[Outcome],
        number: usize,
        cache: &CacheExport,
    ) -> Result<Option<Descriptor>, Error> {
        let title = match &cache.place {
            CachePlace::Directory(_) => "exporting cache to client directory",
            CachePlace::Registry(..) => "exporting cache to registry",
        };
        let step = Step::begin(job, 1000 + number, title, "writing cache");
        let (builder, outcomes) = (Arc::clone(&self.builder), outcomes.to_vec());
        let (max, form) = (cache.max, cache.form);
        let written = match &cache.place {
            CachePlace::Registry(name, insecure) => {
                let keys = ClientCredentials::new(Arc::clone(session));
                let to = (name, *insecure);
                builder.export_cache_to_registry(outcomes, (max, form), to, &keys).await
            }
            CachePlace::Directory(path) => {
                match ClientContent::new(Arc::clone(session), &format!("local:{path}")) {
                    Ok(mut content) => tokio::task::spawn_blocking(move || {
                        builder.export_cache(&outcomes, max, &form, &mut content)
                    })
                    .await
                    .map_err(|error| Error::internal(error.to_string()))
                    .flatten(),
                    Err(error) => Err(error),
                }
            }
        };
        step.end(written.as_ref().err().map(ToString::to_string));
        written
    }

    /// Puts images of several platforms into the store, under the same names.
    async fn store_list(
        &self,
        job: &Arc<Job>,
        outcomes: &[Outcome],
        number: usize,
        export: &Export,
    ) -> Result<Option<Digest>, BuildError> {
        let names = image_names(export)?;
        let options = attach_options(&export.attributes)?;
        let step = Step::begin(job, number, "exporting to image", "exporting manifest list");
        let (builder, outcomes) = (Arc::clone(&self.builder), outcomes.to_vec());
        let store = move || builder.store_list(&outcomes, &names, options);
        let stored = tokio::task::spawn_blocking(store)
            .await
            .map_err(|error| Error::internal(error.to_string()))
            .flatten();
        step.end(stored.as_ref().err().map(ToString::to_string));
        Ok(Some(stored?.digest))
    }

    /// Sends a result that the client wants to have itself. There may be several of it (the first
    /// of `lists`), and as an image it may be an index (the second): of that, gives back the digest.
    async fn export(
        &self,
        session: &Session,
        job: &Arc<Job>,
        outcomes: &[Outcome],
        (is_list, is_index): (bool, bool),
        number: usize,
        export: &Export,
    ) -> Result<Option<Digest>, BuildError> {
        let (title, part) = match export.kind.as_str() {
            "docker" => ("exporting to docker image format", "sending tarball"),
            "oci" => ("exporting to oci image format", "sending tarball"),
            "tar" => ("exporting to client tarball", "sending tarball"),
            "local" => ("exporting to client directory", "copying files"),
            "moby" | "image" if is_index => {
                let image = ImageExport::parse(&export.attributes)?;
                if !image.store || image.by_digest {
                    return Ok(None);
                }
                return self.store_list(job, outcomes, number, export).await;
            }
            _ => return Ok(None),
        };
        let step = Step::begin(job, number, title, part);
        let builder = Arc::clone(&self.builder);
        let names = image_names(export)?;
        let options = attach_options(&export.attributes)?;
        let texts: Vec<String> = names.iter().map(ToString::to_string).collect();
        let prefix = export.attributes.get("attestation-prefix").to_owned();
        let digest = Arc::new(Mutex::new(None));
        let sent = match (export.kind.as_str(), outcomes) {
            ("docker" | "oci", outcomes) if is_index => {
                let (outcomes, digest) = (outcomes.to_vec(), Arc::clone(&digest));
                let form = archive_form(export)?;
                let make = move |to: &mut dyn std::io::Write| {
                    let list = builder.export_list(&outcomes, &names, (options, &form), to)?;
                    *digest.lock().unwrap_or_else(PoisonError::into_inner) = Some(list);
                    Ok(())
                };
                send_bytes(session, number, make).await
            }
            ("tar", outcomes) if is_list => {
                let outcomes = by_platform(outcomes);
                let make =
                    move |to: &mut dyn std::io::Write| builder.export_tars(&outcomes, &prefix, to);
                send_bytes(session, number, make).await
            }
            ("local", outcomes) => {
                let mut trees = Vec::new();
                let mut roots = BTreeMap::new();
                for (name, image) in by_platform(outcomes) {
                    let tree = files(Arc::clone(&builder), image, &prefix).await?;
                    roots.insert(name, root_of(&tree)?);
                    trees.push(tree);
                }
                if is_split(export, is_list)? {
                    send_trees(session, number, roots).await
                } else {
                    send_together(session, number, roots).await
                }
            }
            ("docker" | "oci", [image]) => {
                let (image, form) = (image.clone(), archive_form(export)?);
                let make = move |to: &mut dyn std::io::Write| {
                    builder.export_archive(&image, &texts, &form, to)
                };
                send_bytes(session, number, make).await
            }
            ("tar", [image]) => {
                let image = image.clone();
                let make =
                    move |to: &mut dyn std::io::Write| builder.export_tar(&image, &prefix, to);
                send_bytes(session, number, make).await
            }
            _ => Err(SyncError::Protocol("a result of several images")),
        };
        step.end(sent.as_ref().err().map(ToString::to_string));
        sent.map_err(Error::from)?;
        let digest = *digest.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(digest)
    }
}

/// Results by the names that BuildKit has for the directories of platforms: `linux_arm_v7`.
fn by_platform(outcomes: &[Outcome]) -> BTreeMap<String, Outcome> {
    let name = |outcome: &Outcome| {
        let mut platform = outcome.config.platform();
        platform.normalize();
        platform.to_string().replace('/', "_")
    };
    outcomes.iter().map(|outcome| (name(outcome), outcome.clone())).collect()
}

/// Whether an exporter of files gives each platform a directory.
fn is_split(export: &Export, is_list: bool) -> Result<bool, Error> {
    Ok(switch(&export.attributes, "platform-split")?.unwrap_or(is_list))
}

/// The form of an archive of images, where one is asked for.
fn archive_form(export: &Export) -> Result<ArchiveForm, Error> {
    let attributes = &export.attributes;
    let oci_types = switch(attributes, "oci-mediatypes")?;
    let named = ["compression", "compression-level", "force-compression"];
    let is_packed = named.iter().any(|name| attributes.0.contains_key(*name));
    let packing = if is_packed { Some(packing(attributes, Compression::Gzip)?) } else { None };
    Ok(ArchiveForm { packing, oci_types })
}

/// Sends trees, none of which has a file of another, to one directory.
async fn send_together(
    session: &Session,
    number: usize,
    roots: BTreeMap<String, OwnedFd>,
) -> Result<(), SyncError> {
    let roots = if roots.len() > 1 {
        let looked = tokio::task::spawn_blocking(move || {
            let both = overlap(&roots)?;
            Ok::<_, std::io::Error>((roots, both))
        });
        let failed = |error: &dyn std::error::Error| SyncError::Client(error.to_string());
        let (roots, both) =
            looked.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        if let Some((path, one, other)) = both {
            // buildkit wording
            let (path, one, other) =
                (path.display(), one.replace('_', "/"), other.replace('_', "/"));
            let text = format!(
                "cannot overwrite {path} from {one} with {other} when split option is disabled"
            );
            return Err(SyncError::Client(text));
        }
        roots
    } else {
        roots
    };
    for root in roots.into_values() {
        send_tree(session, number, root).await?;
    }
    Ok(())
}

/// The files of a result, and what is said of them in files that begin with a prefix.
async fn files(builder: Arc<Builder>, image: Outcome, prefix: &str) -> Result<Tree, BuildError> {
    let prefix = prefix.to_owned();
    let opened = tokio::task::spawn_blocking(move || builder.files(&image, &prefix)).await;
    let opened = opened.map_err(|error| BuildError::new(ErrorKind::Internal, error.to_string()))?;
    Ok(opened?)
}

fn root_of(tree: &Tree) -> Result<OwnedFd, Error> {
    let root = tree.root().as_fd().try_clone_to_owned();
    root.map_err(|error| Error::internal(error.to_string()))
}

/// The names that an exporter is to give an image.
pub(crate) fn image_names(export: &Export) -> Result<Vec<Reference>, Error> {
    // What is found by its digest has no tag.
    let by_digest = switch(&export.attributes, "push-by-digest")?.unwrap_or(false);
    let names = export.attributes.get("name").split(',').filter(|name| !name.is_empty());
    names
        .map(|name| {
            let parse = if by_digest { Reference::parse } else { Reference::parse_normalized };
            parse(name).map_err(|error| Error::invalid(format!("failed to parse {name}: {error}")))
        })
        .collect()
}

/// A piece of work of this face, shown among those of the builder.
pub(crate) struct Step<'a> {
    job: &'a Job,
    vertex: Vertex,
    status: Status,
}

impl<'a> Step<'a> {
    pub(crate) fn begin(job: &'a Job, number: usize, title: &str, part: &str) -> Self {
        let name = format!("{}:{number}:{title}", job.reference());
        let digest = Digest::from_sha256(Sha256::digest(name.as_bytes()).into());
        let now = Timestamp::now();
        let mut vertex = Vertex::new(digest, title);
        vertex.started = Some(now);
        let status = Status {
            vertex: digest,
            id: part.to_owned(),
            name: String::new(),
            current: 0,
            total: 0,
            at: now,
            started: Some(now),
            completed: None,
        };
        job.event(Event::Vertex(vertex.clone()));
        job.event(Event::Status(status.clone()));
        Self { job, vertex, status }
    }

    /// Its part is done, and the next one begins.
    pub(crate) fn next(&mut self, part: &str) {
        let now = Timestamp::now();
        let next = Status {
            id: part.to_owned(),
            at: now,
            started: Some(now),
            completed: None,
            ..self.status.clone()
        };
        let mut done = std::mem::replace(&mut self.status, next);
        (done.at, done.completed) = (now, Some(now));
        self.job.event(Event::Status(done));
        self.job.event(Event::Status(self.status.clone()));
    }

    pub(crate) fn end(mut self, error: Option<String>) {
        let now = Timestamp::now();
        self.vertex.completed = Some(now);
        self.status.at = now;
        self.status.completed = Some(now);
        self.vertex.error = error.unwrap_or_default();
        self.job.event(Event::Status(self.status));
        self.job.event(Event::Vertex(self.vertex));
    }
}

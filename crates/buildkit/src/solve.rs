//! From what a client asks to a build, and from the build to what it gets.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use silo_build::context::ContextRef;
use silo_build::progress::{Event, Progress as _, Status, Vertex};
use silo_build::{
    BuildError, BuildRequest, Builder, DockerfileSource, Outcome, PruneOptions, Pruned,
};
use silo_oci::reference::Reference;
use silo_types::{Digest, Error, ErrorKind};

use crate::attributes::{Attributes, Place, boolean};
use crate::credentials::ClientCredentials;
use crate::filesync::{ClientFiles, Slots, SyncError, send_bytes, send_tree};
use crate::job::Job;
use crate::session::Session;
use crate::upload::Upload;

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

/// What the client learns of its result, by BuildKit's names.
pub(crate) type Response = HashMap<String, String>;

impl Solver {
    /// The build that a client asks for.
    pub(crate) fn request(
        &self,
        session: &Arc<Session>,
        attributes: &Attributes,
        inputs: &HashMap<String, String>,
    ) -> Result<BuildRequest, Error> {
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
        if platforms.len() > 1 || attributes.multi_platform()? {
            return Err(not_yet("an image for several platforms"));
        }
        request.platform = platforms.pop();
        (request.no_cache, request.no_cache_filter) = attributes.no_cache();
        request.cache_from = attributes.cache_from()?;
        request.pull = match attributes.get("image-resolve-mode") {
            "pull" => true,
            "" | "default" | "local" => false,
            mode => return Err(Error::invalid(format!("invalid image-resolve-mode: {mode}"))),
        };
        request.network = attributes.network()?;
        request.extra_hosts = attributes.extra_hosts()?;
        request.hostname = match attributes.get("build-arg:BUILDKIT_SANDBOX_HOSTNAME") {
            "" => attributes.get("hostname").to_owned(),
            argument => argument.to_owned(),
        };
        request.limits = attributes.limits()?;
        request.source_date_epoch = attributes.source_date_epoch()?;
        request.registry_keys = Arc::new(ClientCredentials::new(Arc::clone(session)));
        request.secrets = Arc::new(ClientCredentials::new(Arc::clone(session)));
        request.ssh = Arc::new(ClientCredentials::new(Arc::clone(session)));
        request.store = false;
        Ok(request)
    }

    /// Removes from the cache what nobody uses, contexts included.
    pub(crate) async fn prune(&self, options: PruneOptions) -> Result<Pruned, Error> {
        let slots = Arc::clone(&self.slots);
        let also = options.clone();
        let contexts = tokio::task::spawn_blocking(move || slots.prune(&also)).await;
        let contexts = contexts.map_err(|error| Error::internal(error.to_string()))?;
        let mut pruned = self.builder.prune(options).await?;
        pruned.bytes += contexts.bytes;
        pruned.records.extend(contexts.records);
        Ok(pruned)
    }

    /// Builds and hands the result out.
    pub(crate) async fn run(
        &self,
        session: &Session,
        job: &Arc<Job>,
        mut request: BuildRequest,
        exports: &[Export],
    ) -> Result<Response, BuildError> {
        let mut response = Response::new();
        let mut names = Vec::new();
        for export in exports {
            match export.kind.as_str() {
                "moby" | "image" => {
                    request.store = true;
                    if boolean("push", export.attributes.get("push"))? {
                        return Err(not_yet("pushing images").into());
                    }
                    names.extend(image_names(export)?);
                }
                "docker" | "oci" if export.attributes.get("tar") == "false" => {
                    return Err(not_yet("an image layout as a directory").into());
                }
                "docker" | "oci" | "tar" | "local" => {}
                other => {
                    // BuildKit's wording.
                    let message = format!("exporter {other:?} could not be found");
                    return Err(BuildError::new(ErrorKind::NotFound, message));
                }
            }
        }
        request.tags.clone_from(&names);
        job.reference().clone_into(&mut request.id);
        let progress = Arc::clone(job);
        let outcome = tokio::select! {
            outcome = self.builder.build(request, progress) => outcome?,
            () = session.closed() => {
                return Err(BuildError::new(ErrorKind::Cancelled, "context canceled"));
            }
        };
        for (number, export) in exports.iter().enumerate() {
            self.export(session, job, &outcome, number, export).await?;
        }
        let id = outcome.image.to_string();
        response.insert("containerimage.digest".to_owned(), id.clone());
        response.insert("containerimage.config.digest".to_owned(), id);
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            response.insert("image.name".to_owned(), names.join(","));
        }
        Ok(response)
    }

    /// Sends a result that the client wants to have itself.
    async fn export(
        &self,
        session: &Session,
        job: &Arc<Job>,
        outcome: &Outcome,
        number: usize,
        export: &Export,
    ) -> Result<(), BuildError> {
        let (title, part) = match export.kind.as_str() {
            "docker" => ("exporting to docker image format", "sending tarball"),
            "oci" => ("exporting to oci image format", "sending tarball"),
            "tar" => ("exporting to client tarball", "sending tarball"),
            "local" => ("exporting to client directory", "copying files"),
            _ => return Ok(()),
        };
        let step = Step::begin(job, number, title, part);
        let builder = Arc::clone(&self.builder);
        let image = outcome.clone();
        let names: Vec<String> = image_names(export)?.iter().map(ToString::to_string).collect();
        let sent = match export.kind.as_str() {
            "docker" => {
                let make =
                    move |to: &mut dyn std::io::Write| builder.export_docker(&image, &names, to);
                send_bytes(session, number, make).await
            }
            "oci" => {
                let make =
                    move |to: &mut dyn std::io::Write| builder.export_oci(&image, &names, to);
                send_bytes(session, number, make).await
            }
            "tar" => {
                let make = move |to: &mut dyn std::io::Write| builder.export_tar(&image, to);
                send_bytes(session, number, make).await
            }
            _ => {
                let tree = tokio::task::spawn_blocking(move || builder.files(&image))
                    .await
                    .map_err(|error| BuildError::new(ErrorKind::Internal, error.to_string()))??;
                let root = tree
                    .root()
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(|error| Error::internal(error.to_string()))?;
                send_tree(session, number, root).await
            }
        };
        step.end(&sent);
        sent.map_err(|error| Error::from(error).into())
    }
}

/// The names that an exporter is to give an image.
fn image_names(export: &Export) -> Result<Vec<Reference>, Error> {
    let names = export.attributes.get("name").split(',').filter(|name| !name.is_empty());
    names
        .map(|name| {
            Reference::parse_normalized(name)
                .map_err(|error| Error::invalid(format!("failed to parse {name}: {error}")))
        })
        .collect()
}

fn not_yet(what: &str) -> Error {
    Error::new(ErrorKind::NotImplemented, format!("{what}: not supported by this version of Silo"))
}

/// A piece of work of this face, shown among those of the builder.
struct Step<'a> {
    job: &'a Job,
    vertex: Vertex,
    status: Status,
}

impl<'a> Step<'a> {
    fn begin(job: &'a Job, number: usize, title: &str, part: &str) -> Self {
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

    fn end(mut self, result: &Result<(), SyncError>) {
        let now = Timestamp::now();
        self.vertex.completed = Some(now);
        self.status.at = now;
        self.status.completed = Some(now);
        if let Err(error) = result {
            self.vertex.error = error.to_string();
        }
        self.job.event(Event::Status(self.status));
        self.job.event(Event::Vertex(self.vertex));
    }
}

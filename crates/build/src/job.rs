//! One build: what all of its stages share, and the telling of how it goes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use silo_dockerfile::Span;
use silo_oci::reference::Reference;
use silo_types::{Digest, ErrorKind};
use tokio::sync::OnceCell;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::attest::capture::Capture;
use crate::builder::Builder;
use crate::context::{Context, ContextRef, Filter, Transfer, Tree};
use crate::outcome::BuildError;
use crate::plan::Plan;
use crate::progress::{Event, Location, Log, Note, NoteKind, Progress, Step, Stream, Vertex};
use crate::request::BuildRequest;
use crate::stages::Stages;
use crate::transfer::Imports;

/// The outcome of something that several stages wait for.
type Shared<T> = OnceCell<Result<T, BuildError>>;

/// A build.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) builder: Arc<Builder>,
    pub(crate) request: Arc<BuildRequest>,
    pub(crate) progress: Arc<dyn Progress>,
    pub(crate) plan: Plan,
    /// Name and text of the Dockerfile.
    pub(crate) file: (String, Arc<[u8]>),
    /// What of the main context is wanted.
    pub(crate) filter: Filter,
    /// The main context, where it had to be fetched already.
    pub(crate) main: Arc<dyn Context>,
    /// What goes into it.
    pub(crate) capture: Capture,
    pub(crate) stages: Stages,
    tree: Shared<Arc<Tree>>,
    whole_tree: Shared<Arc<Tree>>,
    named: Mutex<HashMap<String, Arc<Shared<Arc<Tree>>>>>,
    /// Tells this build's vertices from others'.
    nonce: u64,
    /// The layers that the cache may give, where it may not give all.
    pub(crate) allowed: Option<HashSet<Digest>>,
    /// Images whose steps may be taken.
    pub(crate) sources: Vec<Arc<silo_engine::images::Entry>>,
    /// Caches that the client named.
    pub(crate) imports: Imports,
    /// Keys of the steps that were taken from the cache or carried out.
    steps: Mutex<BTreeSet<String>>,
    /// Names of build arguments that no stage has asked for.
    pub(crate) unused: Mutex<Vec<String>>,
    /// Says that something works for the build, for as long as that has the job.
    _works: TaskTrackerToken,
}

static NONCE: AtomicU64 = AtomicU64::new(0);

/// A number that tells the vertices of one build from another's.
pub(crate) fn nonce() -> u64 {
    NONCE.fetch_add(1, Ordering::Relaxed)
}

impl Job {
    pub(crate) fn new(
        builder: &Arc<Builder>,
        request: Arc<BuildRequest>,
        progress: Arc<dyn Progress>,
        plan: Plan,
        file: (String, Arc<[u8]>),
        context: (Arc<dyn Context>, Filter, Capture),
        nonce: u64,
    ) -> Self {
        let stages = Stages::new(plan.stages.len());
        let unused = request
            .args
            .keys()
            .filter(|name| {
                !plan.globals.contains_key(*name)
                    && !crate::plan::PROXIES.contains(&name.as_str())
                    && !name.starts_with("BUILDKIT_")
                    && *name != "SOURCE_DATE_EPOCH"
            })
            .cloned()
            .collect();
        let sources: Vec<_> =
            request.cache_from.iter().filter_map(|name| builder.engine.image(name).ok()).collect();
        let chains = || sources.iter().flat_map(|entry| entry.image.chain.iter().copied());
        let allowed = request.cache_from_only.then(|| chains().collect());
        Self {
            allowed,
            sources,
            imports: Imports::default(),
            steps: Mutex::default(),
            builder: Arc::clone(builder),
            request,
            progress,
            plan,
            file,
            filter: context.1,
            main: context.0,
            capture: context.2,
            stages,
            tree: OnceCell::new(),
            whole_tree: OnceCell::new(),
            named: Mutex::default(),
            nonce,
            unused: Mutex::new(unused),
            _works: builder.tasks.token(),
        }
    }

    /// The place of an instruction.
    pub(crate) fn location(&self, span: Span) -> Location {
        Location {
            file: self.file.0.clone(),
            source: Arc::clone(&self.file.1),
            start_line: span.start_line,
            end_line: span.end_line,
        }
    }

    /// The files of the main context; all of them for a trigger of a base image, as what that
    /// wants is not known before.
    pub(crate) async fn context(&self, for_trigger: bool) -> Result<Arc<Tree>, BuildError> {
        if matches!(self.request.context, ContextRef::Files(_)) {
            self.capture.local("context");
        }
        let load = async |name: &str, filter: &Filter| {
            let work = Work::begin(Arc::clone(&self.progress), name, self.nonce, None);
            let transfer = Transfer { progress: &*self.progress, vertex: work.vertex.digest };
            let tree = self.main.tree(filter, &transfer).await;
            work.end(tree.map_err(BuildError::from))
        };
        let tree = if for_trigger && !self.filter.follow.is_empty() {
            let all = Filter { follow: Vec::new(), exclude: self.filter.exclude.clone() };
            let whole = self.whole_tree.get_or_init(|| async {
                load("[internal] load build context for triggers", &all).await
            });
            whole.await
        } else {
            let tree = self.tree.get_or_init(|| async {
                load("[internal] load build context", &self.filter).await
            });
            tree.await
        };
        tree.clone()
    }

    /// The files of a context that the client named.
    pub(crate) async fn named_tree(
        &self,
        name: &str,
        context: &Arc<dyn Context>,
    ) -> Result<Arc<Tree>, BuildError> {
        if matches!(self.request.named_contexts.get(name), Some(ContextRef::Files(_))) {
            self.capture.local(name);
        }
        let cell = {
            let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(named.entry(name.to_owned()).or_default())
        };
        let load = || async {
            let title = format!("[context {name}] load from client");
            let work = Work::begin(Arc::clone(&self.progress), &title, self.nonce, None);
            let transfer = Transfer { progress: &*self.progress, vertex: work.vertex.digest };
            let tree = context.tree(&Filter::default(), &transfer).await;
            work.end(tree.map_err(BuildError::from))
        };
        cell.get_or_init(load).await.clone()
    }

    /// Begins a piece of work.
    pub(crate) fn work(&self, name: &str, step: Option<Step>) -> Work {
        Work::begin(Arc::clone(&self.progress), name, self.nonce, step)
    }

    /// The time that an image made now has, in nanoseconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        match self.request.source_date_epoch {
            Some(seconds) => seconds.saturating_mul(1_000_000_000),
            None => crate::cache::now(),
        }
    }

    /// Notes that a step is part of the build.
    pub(crate) fn use_step(&self, key: &str) {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned());
    }

    /// The steps that were part of it so far.
    pub(crate) fn steps(&self) -> Vec<String> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Looks at the caches that the client named. What cannot be used is shown, and ends nothing.
    pub(crate) async fn load_imports(self: &Arc<Self>) {
        for name in &self.request.cache_from {
            let title = format!("importing cache manifest from {name}");
            let work = self.work(&title, None);
            let found = match self.builder.engine.image(name) {
                // Steps of such an image are known by its history, too.
                Ok(entry) => match self.imports.add_image(&entry.image) {
                    Ok(()) => Ok(true),
                    Err(error) => Err(error.into()),
                },
                // The classic builder looks at images that are here, and no further.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    match Reference::parse_normalized(name) {
                        Ok(reference) if !self.request.cache_from_only => {
                            let insecure = self.request.cache_insecure.contains(name);
                            self.import_from_registry(&reference, insecure).await
                        }
                        _ => Err(crate::stage::missing(name, &error)),
                    }
                }
                Err(error) => Err(error.into()),
            };
            if let Err(error) = work.end_with_cache(found) {
                tracing::debug!(name, %error, "a cache of a build");
            }
        }
        for import in self.request.cache_imports.clone() {
            let title = format!("importing cache manifest from {}", import.name);
            let work = self.work(&title, None);
            let job = Arc::clone(self);
            let name = import.name.clone();
            let added = blocking(move || Ok(job.imports.add(&import)?)).await;
            if let Err(error) = work.end_with_cache(added) {
                tracing::debug!(name, %error, "a cache of a build");
            }
        }
    }

    async fn import_from_registry(
        self: &Arc<Self>,
        name: &Reference,
        insecure: bool,
    ) -> Result<bool, BuildError> {
        let keys = &*self.request.registry_keys;
        let import = self.builder.cache_in_registry(name, keys, insecure).await?;
        let job = Arc::clone(self);
        blocking(move || Ok(job.imports.add(&import)?)).await
    }

    /// Notes that an argument was asked for.
    pub(crate) fn use_argument(&self, name: &str) {
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        unused.retain(|known| known != name);
    }
}

/// A piece of work that is told of: begun now, and ended by [`Work::end`] or, as cancelled, when it
/// is dropped.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) vertex: Vertex,
    progress: Arc<dyn Progress>,
    ended: bool,
}

impl Work {
    pub(crate) fn begin(
        progress: Arc<dyn Progress>,
        name: &str,
        nonce: u64,
        step: Option<Step>,
    ) -> Self {
        let mut key = crate::cache::KeyBuilder::new("vertex");
        key.field(nonce.to_le_bytes());
        key.field(name);
        key.field(step.as_ref().map_or(0, |step| step.number).to_le_bytes());
        let digest = format!("sha256:{}", key.finish()).parse();
        let digest = digest.unwrap_or_else(|_| Digest::from_sha256([0; 32]));
        let mut vertex = Vertex::new(digest, name);
        vertex.started = Some(Timestamp::now());
        vertex.step = step.map(Arc::new);
        progress.event(Event::Vertex(vertex.clone()));
        Self { vertex, progress, ended: false }
    }

    /// Says that the result was in the cache.
    pub(crate) fn cached(&mut self) {
        self.vertex.cached = true;
    }

    /// Output of the work.
    pub(crate) fn log(&self, stream: Stream, data: bytes::Bytes) {
        let at = Timestamp::now();
        self.progress.event(Event::Log(Log { vertex: self.vertex.digest, stream, data, at }));
    }

    /// What only the classic output shows.
    pub(crate) fn note(&self, kind: NoteKind) {
        self.progress.event(Event::Note(Note { vertex: self.vertex.digest, kind }));
    }

    /// Ends it, after `tell` of what came.
    pub(crate) fn end_with<T>(
        self,
        result: Result<T, BuildError>,
        tell: impl FnOnce(&T),
    ) -> Result<T, BuildError> {
        if let Ok(value) = &result {
            tell(value);
        }
        self.end(result)
    }

    /// Ends the look at a cache: is it one that Silo knows the steps of?
    fn end_with_cache(self, is_known: Result<bool, BuildError>) -> Result<bool, BuildError> {
        if matches!(is_known, Ok(false)) {
            let text = "all its steps are of another builder, and are carried out again\n";
            self.log(Stream::Stderr, bytes::Bytes::from_static(text.as_bytes()));
        }
        self.end(is_known)
    }

    /// Ends it.
    pub(crate) fn end<T>(mut self, result: Result<T, BuildError>) -> Result<T, BuildError> {
        if let Err(error) = &result {
            self.vertex.error.clone_from(&error.message);
        }
        self.finish();
        result
    }

    fn finish(&mut self) {
        self.ended = true;
        self.vertex.completed = Some(Timestamp::now());
        self.progress.event(Event::Vertex(self.vertex.clone()));
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.ended {
            self.vertex.error = "context canceled".into(); // buildkit wording
            self.finish();
        }
    }
}

/// An error of a task that did not end.
pub(crate) fn lost(error: tokio::task::JoinError) -> BuildError {
    BuildError::new(ErrorKind::Internal, format!("a task of the build failed: {error}"))
}

/// Runs what blocks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BuildError> + Send + 'static,
) -> Result<T, BuildError> {
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}

//! The builder: one for an engine, with its cache and the builds that run.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use silo_dockerfile::ast::{Dockerfile, Instruction};
use silo_dockerfile::{MAX_FILE, Span, ignore};
use silo_engine::Engine;
use silo_types::{Digest, Error, ErrorKind};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attest::capture::Capture;
use crate::cache::Cache;
use crate::check;
use crate::context::{Context, ContextRef, Filter, Transfer, Tree};
use crate::job::{Job, Work, blocking, lost, nonce};
use crate::mounts::MountLock;
use crate::outcome::{BuildError, Outcome};
use crate::plan::Plan;
use crate::progress::{Location, NoteKind, Progress};
use crate::request::{BuildRequest, DockerfileSource};
use crate::stages::EndStages;

/// How long builds may take to end with the engine.
const CLOSING: Duration = Duration::from_secs(10);

/// Builds images on an engine.
#[derive(Debug)]
pub struct Builder {
    pub(crate) engine: Arc<Engine>,
    pub(crate) cache: Cache,
    /// The builder's own state.
    pub(crate) directory: PathBuf,
    /// The cache mounts that are in use, by the names of their directories.
    pub(crate) mounts: Mutex<HashMap<String, MountLock>>,
    /// Builds that can be cancelled.
    running: Mutex<HashMap<String, CancellationToken>>,
    /// Ends all builds.
    closing: CancellationToken,
    /// Knows what still works for builds.
    pub(crate) tasks: TaskTracker,
    /// When the cache was last collected.
    pub(crate) collected: Mutex<Option<Instant>>,
    /// What else the cache is made of.
    pub(crate) others: Mutex<Option<Arc<dyn Kept>>>,
}

/// What others keep for builds, which is a part of the cache.
pub trait Kept: fmt::Debug + Send + Sync {
    /// What there is. Blocks.
    fn records(&self) -> Vec<CacheRecord>;

    /// Removes what has this id; whether that was possible. Blocks.
    fn remove(&self, id: &str) -> bool;
}

/// What the cache holds of one step, or a cache mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRecord {
    /// Its id.
    pub id: String,
    /// `regular`, `exec.cachemount`, `source.local`, ...
    pub kind: String,
    /// What made it: `mount / from exec /bin/sh -c make`.
    pub description: String,
    /// Records that it stands on.
    pub parents: Vec<String>,
    /// A build works with it.
    pub in_use: bool,
    /// An image has it too.
    pub shared: bool,
    /// Bytes of its files.
    pub size: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last used.
    pub last_used: Option<Timestamp>,
    /// How often.
    pub usage_count: u64,
}

/// What is to be removed from the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// What images share, too.
    pub all: bool,
    /// Only these ids, kinds, parents...: `id=`, `type=`, `description~=`, `inuse`, `shared`,
    /// `private`, `until=`, as `docker builder prune --filter` has them.
    pub filters: Vec<(String, String)>,
    /// Bytes that may always stay, the newest first.
    pub keep_storage: u64,
    /// Bytes that may stay at most; 0 for no such bound.
    pub max_used_space: u64,
    /// Bytes of the disk that are to be free; 0 for no such bound.
    pub min_free_space: u64,
    /// Only what was not used for so long.
    pub keep_duration: Duration,
}

/// What was removed from the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The records.
    pub records: Vec<CacheRecord>,
    /// Bytes.
    pub bytes: u64,
}

impl Builder {
    /// The builder of an engine, with the cache in the engine's data root.
    pub fn open(engine: &Arc<Engine>) -> Result<Arc<Self>, Error> {
        let directory = engine.build_directory();
        crate::scratch::remove(&directory.join("scratch"));
        let cache = Cache::open(&directory, Arc::clone(engine.store()))?;
        Ok(Arc::new(Self {
            engine: Arc::clone(engine),
            cache,
            directory,
            mounts: Mutex::default(),
            running: Mutex::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            collected: Mutex::default(),
            others: Mutex::default(),
        }))
    }

    /// Lets the bounds of the cache hold for what somebody else keeps, too.
    pub fn keeps_too(&self, others: Arc<dyn Kept>) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = Some(others);
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Ends a build; false if there is none of this id.
    pub fn cancel(&self, id: &str) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(id).inspect(|build| build.cancel()).is_some()
    }

    /// Ends all builds, and takes no more. Their steps are the engine's to end.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(CLOSING, self.tasks.wait()).await.is_err() {
            tracing::warn!("builds did not end in time");
        }
    }

    /// Builds an image. Dropping the future ends the build, of which only finished steps stay, in
    /// the cache.
    pub async fn build(
        self: &Arc<Self>,
        request: BuildRequest,
        progress: Arc<dyn Progress>,
    ) -> Result<Outcome, BuildError> {
        let stop = self.closing.child_token();
        let _registered = Registered::new(self, &request.id, stop.clone());
        let _works = self.tasks.token();
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                let why = if self.closing.is_cancelled() { "the engine is shutting down" } else { "build cancelled" };
                Err(BuildError::new(ErrorKind::Cancelled, why))
            }
            outcome = self.run(request, progress) => {
                self.collect();
                outcome
            }
        }
    }

    async fn run(
        self: &Arc<Self>,
        request: BuildRequest,
        progress: Arc<dyn Progress>,
    ) -> Result<Outcome, BuildError> {
        let (nonce, started, capture) = (nonce(), Timestamp::now(), Capture::default());
        let main = self.files_of(&request.context, &request.ssh, &capture).await?;
        if let DockerfileSource::InContext { context, .. } = &request.dockerfile {
            match (context, &request.context) {
                (Some(_), _) => capture.local("dockerfile"),
                (None, ContextRef::Files(_)) => capture.local("context"),
                (None, _) => {}
            }
        }
        let (name, text, loading) = self.load(&request, &main, &progress, nonce).await?;
        let text: Arc<[u8]> = text.into();
        let located = |span: Option<Span>, mut error: BuildError| {
            error.location = span.map(|span| Location {
                file: name.clone(),
                source: Arc::clone(&text),
                start_line: span.start_line,
                end_line: span.end_line,
            });
            error
        };
        let asked = check::asked(&request)?;
        let dockerfile =
            silo_dockerfile::parse_checked(&text, asked.as_ref()).map_err(|error| {
                let message = match error.span {
                    Some(span) if !error.message.contains("parse error") => {
                        // buildkit wording
                        format!(
                            "dockerfile parse error on line {}: {}",
                            span.start_line, error.message
                        )
                    }
                    _ => error.message.clone(),
                };
                located(error.span, BuildError::new(ErrorKind::InvalidParameter, message))
            })?;
        let rules = match asked {
            Some(rules) => rules,
            None => silo_dockerfile::config_of(&dockerfile.directives)
                .map_err(|error| located(error.span, error.into()))?,
        };
        let plan =
            Plan::new(&dockerfile, &request).map_err(|error| located(error.span, error.into()))?;
        let exclude = self.ignored(&request, &main, &progress, nonce).await?;
        let filter = Filter { follow: wanted(&dockerfile, &plan), exclude };
        let only_check = request.check;
        let job = Arc::new(Job::new(
            self,
            Arc::new(request),
            progress,
            plan,
            (name.clone(), Arc::clone(&text)),
            (main, filter, capture),
            nonce,
        ));
        let (warnings, allowed) = job.check(&dockerfile, &rules, loading);
        if only_check {
            return Ok(job.nothing(warnings));
        }
        allowed?;
        job.load_imports().await;
        // Stages are built side by side; the first that fails ends all.
        let _ended = EndStages(Arc::clone(&job));
        let mut tasks = JoinSet::new();
        for index in job.plan.needed.clone() {
            let job = Arc::clone(&job);
            tasks.spawn(async move { job.stage(index).await.map(drop) });
        }
        while let Some(done) = tasks.join_next().await {
            done.map_err(lost)??;
        }
        let state = job.stage(job.plan.target).await?;
        let said = job.said(&state, started).await?;
        let unused = job.unused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut outcome = job.finish(state).await?;
        outcome.said = Arc::new(said);
        if !unused.is_empty() {
            let work = job.work("", None);
            // docker wording
            let text = format!("One or more build-args [{}] were not consumed", unused.join(" "));
            work.note(NoteKind::Warning(text));
            work.end(Ok(()))?;
        }
        outcome.warnings = warnings;
        Ok(outcome)
    }

    /// Name and text of the Dockerfile, and the vertex that was the work.
    async fn load(
        &self,
        request: &BuildRequest,
        main: &Arc<dyn Context>,
        progress: &Arc<dyn Progress>,
        nonce: u64,
    ) -> Result<(String, Vec<u8>, Digest), BuildError> {
        let path = match &request.dockerfile {
            DockerfileSource::Text { name, .. } => name,
            DockerfileSource::InContext { path, .. } => path,
        };
        let path = if path.is_empty() { "Dockerfile" } else { path };
        let title = format!("[internal] load build definition from {path}");
        let work = Work::begin(Arc::clone(progress), &title, nonce, None);
        let vertex = work.vertex.digest;
        let context = match &request.dockerfile {
            DockerfileSource::Text { text, .. } => {
                return work.end(Ok((path.to_owned(), text.clone(), vertex)));
            }
            DockerfileSource::InContext { context, .. } => context.as_ref().unwrap_or(main),
        };
        let filter = Filter {
            follow: vec![path.to_owned(), format!("{path}.dockerignore"), path.to_lowercase()],
            exclude: Vec::new(),
        };
        let transfer = Transfer { progress: &**progress, vertex: work.vertex.digest };
        let loaded = match context.tree(&filter, &transfer).await {
            Ok(tree) => {
                let path = path.to_owned();
                blocking(move || {
                    let text = read(&tree, &path)?;
                    let lower = path.to_lowercase();
                    // As BuildKit: a file of another spelling will do.
                    let text = match text {
                        None if lower != path => read(&tree, &lower)?,
                        text => text,
                    };
                    text.map(|text| (path.clone(), text, vertex)).ok_or_else(|| {
                        // buildkit wording
                        let mut error = BuildError::new(
                            ErrorKind::NotFound,
                            format!(
                                "failed to read dockerfile: open {path}: no such file or directory"
                            ),
                        );
                        // docker wording
                        error.classic = Some(format!("Cannot locate specified Dockerfile: {path}"));
                        error
                    })
                })
                .await
            }
            Err(error) => Err(error.into()),
        };
        work.end(loaded)
    }

    /// The patterns of what of the main context is left out.
    async fn ignored(
        &self,
        request: &BuildRequest,
        main: &Arc<dyn Context>,
        progress: &Arc<dyn Progress>,
        nonce: u64,
    ) -> Result<Vec<String>, BuildError> {
        let work = Work::begin(Arc::clone(progress), "[internal] load .dockerignore", nonce, None);
        let (context, path) = match &request.dockerfile {
            DockerfileSource::Text { name, .. } => (main, name.clone()),
            DockerfileSource::InContext { context, path } => {
                let path = if path.is_empty() { "Dockerfile" } else { path };
                (context.as_ref().unwrap_or(main), path.to_owned())
            }
        };
        let own = format!("{path}.dockerignore");
        let mut found = None;
        for (context, path) in [(context, own.as_str()), (main, ".dockerignore")] {
            let filter = Filter { follow: vec![path.to_owned()], exclude: Vec::new() };
            let transfer = Transfer { progress: &**progress, vertex: work.vertex.digest };
            let tree = match context.tree(&filter, &transfer).await {
                Ok(tree) => tree,
                Err(error) => return work.end(Err(error.into())),
            };
            let path = path.to_owned();
            match blocking(move || read(&tree, &path)).await {
                Ok(Some(text)) => {
                    found = Some(text);
                    break;
                }
                Ok(None) => {}
                Err(error) => return work.end(Err(error)),
            }
        }
        let lines = ignore::lines(&found.unwrap_or_default()).map_err(|error| {
            BuildError::new(
                ErrorKind::InvalidParameter,
                format!("error reading .dockerignore: {error}"),
            )
        });
        work.end(lines)
    }
}

/// A build that can be cancelled.
struct Registered<'a> {
    builder: &'a Builder,
    id: String,
}

impl<'a> Registered<'a> {
    fn new(builder: &'a Builder, id: &str, stop: CancellationToken) -> Option<Self> {
        if id.is_empty() {
            return None;
        }
        let mut running = builder.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(id.to_owned(), stop);
        Some(Self { builder, id: id.to_owned() })
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut running = self.builder.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.id);
    }
}

/// Reads a small file of a context; `None` if it is not there.
fn read(tree: &Tree, path: &str) -> Result<Option<Vec<u8>>, BuildError> {
    let read = silo_sys::path::read_regular_file_in_root(tree.root(), path, MAX_FILE as u64);
    match read {
        Ok(Some(bytes)) => Ok(Some(bytes)),
        Ok(None) => {
            let text = format!("{path} is larger than {MAX_FILE} bytes");
            Err(BuildError::new(ErrorKind::InvalidParameter, text))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let text = format!("failed to read {path}: {error}");
            Err(BuildError::new(ErrorKind::InvalidParameter, text))
        }
    }
}

/// The paths of the main context that a build can want; none for everything.
fn wanted(dockerfile: &Dockerfile, plan: &Plan) -> Vec<String> {
    let mut paths = Vec::new();
    for index in &plan.needed {
        for line in &dockerfile.stages[*index].instructions {
            let sources = match &line.node {
                Instruction::Copy(copy) if copy.from.is_none() => &copy.sources.paths,
                Instruction::Add(add) => &add.sources.paths,
                Instruction::Run(run) if run.mount_flags.is_empty() => continue,
                Instruction::Run(_) => return Vec::new(),
                _ => continue,
            };
            for path in sources {
                let clean = silo_sys::path::clean(path).display().to_string();
                if clean.is_empty() || path.contains(['$', '\\', '`', '"', '\'']) {
                    return Vec::new();
                }
                paths.push(clean);
            }
        }
    }
    // What triggers of base images want is not known yet; they get everything.
    paths.sort();
    paths.dedup();
    paths
}

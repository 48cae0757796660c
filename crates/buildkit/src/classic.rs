//! Builds of older clients, which have a session but ask with `POST /build?version=2`, and get
//! what happens as messages in the answer instead of from the control service.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use prost::Message as _;
use silo_build::{BuildError, BuildRequest, ContextRef, DockerfileSource, TarContext};
use silo_types::{Error, ErrorKind};
use tokio::sync::{oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::attributes::{Attributes, CacheTo, boolean};
use crate::credentials::ClientCredentials;
use crate::filesync::ClientFiles;
use crate::service::Service;
use crate::solve::{Export, Wanted};

/// How long a build waits for its archive, and an archive for its build.
const PATIENCE: Duration = Duration::from_secs(5);

/// What only BuildKit's way of a build has.
#[derive(Debug)]
pub struct ClassicBuild {
    /// The build, with everything but its files.
    pub request: BuildRequest,
    /// The client's session.
    pub session: String,
    /// The Dockerfile's path.
    pub dockerfile: String,
    /// The context, if it is not in the session.
    pub context: Option<ContextRef>,
    /// Where the result goes, by kind and attributes; the image store if there is none.
    pub outputs: Vec<(String, HashMap<String, String>)>,
}

/// What happens in a build.
#[derive(Debug)]
pub enum Piece {
    /// A message `moby.buildkit.v1.StatusResponse`.
    Trace(Vec<u8>),
    /// The build is done; the id of the image, if there is one.
    Image(Option<String>),
    /// The build failed.
    Failed(BuildError),
}

impl Service {
    /// Builds; what happens comes with the stream, and dropping it ends the build.
    pub(crate) async fn classic(
        self: &Arc<Self>,
        build: ClassicBuild,
    ) -> Result<Pin<Box<dyn Stream<Item = Piece> + Send>>, Error> {
        let ClassicBuild { mut request, session, dockerfile, context, outputs } = build;
        let reference = format!("classic-{}", self.jobs.number());
        let running = self.jobs.begin(&reference, &session)?;
        let session = self.sessions.get(&session).await?;
        let local = |name: &str| {
            let slots = Arc::clone(&self.solver.slots);
            Arc::new(ClientFiles::new(Arc::clone(&session), slots, name, name))
        };
        request.dockerfile = DockerfileSource::InContext {
            context: if context.is_none() { Some(local("dockerfile")) } else { None },
            path: dockerfile,
        };
        request.context = context.unwrap_or_else(|| ContextRef::Files(local("context")));
        request.registry_keys = Arc::new(ClientCredentials::new(Arc::clone(&session)));
        request.secrets = Arc::new(ClientCredentials::new(Arc::clone(&session)));
        request.ssh = Arc::new(ClientCredentials::new(Arc::clone(&session)));
        request.store = false;
        // That is the other builder's way of a cache.
        request.cache_from_only = false;
        let argument = request.args.get("BUILDKIT_INLINE_CACHE").cloned().flatten();
        request.inline_cache =
            boolean("BUILDKIT_INLINE_CACHE", argument.as_deref().unwrap_or_default())?;
        let mut exports: Vec<Export> = outputs
            .into_iter()
            .filter(|(kind, _)| kind != "cacheonly")
            .map(|(kind, attributes)| Export { kind, attributes: Attributes(attributes) })
            .collect();
        if exports.len() > 1 {
            // docker wording
            return Err(Error::invalid("multiple outputs not supported"));
        }
        if exports.is_empty() {
            exports.push(Export { kind: "moby".to_owned(), attributes: Attributes::default() });
        }
        let names: Vec<String> = request.tags.iter().map(ToString::to_string).collect();
        for export in &mut exports {
            export.attributes.0.insert("name".to_owned(), names.join(","));
        }
        let wanted = Wanted::one(request);
        let job = Arc::clone(running.job());
        let service = Arc::clone(self);
        let (send, result) = oneshot::channel();
        let task = tokio::spawn(async move {
            let job = Arc::clone(running.job());
            let built =
                service.solver.run(&session, &job, wanted, &exports, &CacheTo::default()).await;
            let images =
                exports.iter().any(|export| export.kind == "moby" || export.kind == "image");
            // Nobody wants it when the client is gone.
            let _gone = send.send(match built {
                Ok(mut response) => {
                    let id = response.remove("containerimage.digest");
                    Piece::Image(id.filter(|_| images))
                }
                Err(error) => Piece::Failed(error),
            });
            drop(running);
        });
        let task = AbortOnDropHandle::new(task);
        let lost = || BuildError::new(ErrorKind::Internal, "the build was lost");
        let last = stream::once(async move {
            let last = result.await.unwrap_or_else(|_| Piece::Failed(lost()));
            drop(task);
            last
        });
        let trace = job.follow().map(|response| Piece::Trace(response.encode_to_vec()));
        Ok(trace.chain(last).boxed())
    }
}

/// Archives that clients send with a request of their own, by the build that they are for.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    waiting: Mutex<HashMap<String, oneshot::Receiver<TarContext>>>,
    changed: watch::Sender<()>,
}

impl Uploads {
    /// Announces an archive. Its context goes into what is returned.
    pub(crate) fn announce(&self, build: &str) -> oneshot::Sender<TarContext> {
        let (send, receive) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(build.to_owned(), receive);
        drop(waiting);
        self.changed.send_replace(());
        send
    }

    /// Waits a moment until the build has come for its archive, and forgets it otherwise.
    pub(crate) async fn taken(&self, build: &str) {
        let mut changed = self.changed.subscribe();
        let taken = async {
            loop {
                changed.mark_unchanged();
                let here = {
                    let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    waiting.contains_key(build)
                };
                if !here {
                    return;
                }
                // The sender lives as long as `self`.
                drop(changed.changed().await);
            }
        };
        if tokio::time::timeout(PATIENCE, taken).await.is_err() {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(build);
        }
    }

    /// The context of an archive, once it is announced and unpacked.
    pub(crate) async fn take(&self, build: &str) -> Result<TarContext, Error> {
        let mut changed = self.changed.subscribe();
        let announced = async {
            loop {
                changed.mark_unchanged();
                let taken =
                    self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(build);
                if let Some(taken) = taken {
                    // A tuple, because what is inside can be waited for itself.
                    return (taken,);
                }
                // The sender lives as long as `self`.
                drop(changed.changed().await);
            }
        };
        let announced = tokio::time::timeout(PATIENCE, announced);
        let (receive,) = announced.await.map_err(|_| Error::invalid("the context did not come"))?;
        self.changed.send_replace(());
        receive.await.map_err(|_| Error::invalid("the context could not be read"))
    }
}

//! BuildKit's API, as docker's command line speaks it when `buildx` is installed.
//!
//! A client takes two kinds of connections over from the Docker API, upgraded to HTTP/2 (`h2c`):
//!
//! * `POST /grpc`: the client calls. [`BuildKit::serve`] answers `moby.buildkit.v1.Control`,
//!   `moby.buildkit.v1.frontend.LLBBridge` (the gateway) and `grpc.health.v1.Health`.
//! * `POST /session`: the builder calls. [`BuildKit::session`] keeps the connection by the id
//!   that the client gave it; builds then fetch files from it (`moby.filesync.v1.FileSync`),
//!   send results to it (`FileSend`), and ask it for secrets and SSH agents.
//!
//! Caches and image layouts in directories of the client are read and written with containerd's
//! content service, which a session answers too.
//!
//! There is one frontend, `dockerfile.v0`, which is the engine's own builder; definitions in
//! BuildKit's low-level form (LLB) are refused. The messages are generated from `proto/` by
//! `cargo xtask protos`.
//!
//! On disk: `<root>/build/contexts/<key>/<n>`, what clients have sent (`filesync`).
#![warn(missing_docs)]

mod attest;
mod attributes;
mod caps;
mod classic;
pub mod client;
mod content;
mod control;
mod credentials;
mod filesync;
mod gateway;
mod history;
mod http2;
mod job;
#[expect(missing_docs, reason = "generated")]
#[allow(warnings, clippy::all, clippy::pedantic, clippy::unwrap_used, reason = "generated")]
mod pb;
mod push;
mod service;
mod session;
mod solve;
mod status;
mod subrequest;
mod upload;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use futures_util::Stream;
use hyper::HeaderMap;
use hyper::Request;
use hyper::Response;
use hyper::body::Incoming;
use silo_build::{Builder, PruneOptions, Pruned, TarContext};
use silo_types::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;
use tonic::body::Body;
use tower_service::Service as _;

use crate::classic::Uploads;
pub use crate::classic::{ClassicBuild, Piece};
use crate::filesync::Slots;
use crate::pb::grpc::health::v1::health_server::{Health, HealthServer};
use crate::pb::grpc::health::v1::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};
use crate::pb::moby::buildkit::v1::control_server::ControlServer;
use crate::pb::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use crate::service::Service;
use crate::session::Sessions;
use crate::solve::Solver;

/// Bytes of one message of a client.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// BuildKit's services in front of a builder.
#[derive(Debug, Clone)]
pub struct BuildKit {
    service: Arc<Service>,
}

impl BuildKit {
    /// Services of `builder`, which keep what clients send below `root`, the engine's data root.
    pub fn open(builder: Arc<Builder>, root: &Path) -> Result<Self, Error> {
        let slots = Arc::new(Slots::open(root.join("build/contexts"))?);
        builder.keeps_too(slots.clone());
        let service = Service {
            sessions: Arc::default(),
            jobs: Arc::default(),
            history: Arc::default(),
            solver: Arc::new(Solver { builder, slots }),
            uploads: Uploads::default(),
            worker_id: "silo".to_owned(),
        };
        Ok(Self { service: Arc::new(service) })
    }

    /// Whether a request's headers describe a session.
    pub fn check_session(headers: &HeaderMap) -> Result<(), Error> {
        Sessions::describe(headers).map(drop)
    }

    /// Keeps the session of a client until the client goes.
    pub async fn session<S>(&self, headers: &HeaderMap, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match Sessions::describe(headers) {
            Ok(description) => self.service.sessions.run(description, stream).await,
            Err(error) => tracing::debug!(%error, "a session"),
        }
    }

    /// Removes from the builder's cache, and of what clients have sent, what nobody uses.
    pub async fn prune(&self, options: PruneOptions) -> Result<Pruned, Error> {
        self.service.solver.prune(options).await
    }

    /// Builds for a client that has a session and asks with `POST /build?version=2`. Dropping the
    /// stream ends the build.
    pub async fn build(
        &self,
        build: ClassicBuild,
    ) -> Result<impl Stream<Item = Piece> + Send + use<>, Error> {
        self.service.classic(build).await
    }

    /// Takes the archive that is the context of a build, and waits until the build has it.
    pub async fn upload(
        &self,
        build: &str,
        archive: impl Read + Send + 'static,
    ) -> Result<(), Error> {
        let context = self.service.uploads.announce(build);
        let builder = Arc::clone(&self.service.solver.builder);
        let unpacked = tokio::task::spawn_blocking(move || builder.unpack(archive)).await;
        let unpacked = unpacked.map_err(|error| Error::internal(error.to_string()))??;
        // The build may have ended.
        let _ended = context.send(unpacked);
        self.service.uploads.taken(build).await;
        Ok(())
    }

    /// The context that came for a build with a request of its own.
    pub async fn uploaded(&self, build: &str) -> Result<TarContext, Error> {
        self.service.uploads.take(build).await
    }

    /// Answers the calls of a client until the client goes.
    pub async fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = Arc::clone(&self.service);
        let served =
            http2::serve(stream, move |request| answer(Arc::clone(&service), request)).await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection to the builder");
        }
    }
}

/// Leads a call to its service.
async fn answer(service: Arc<Service>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let name = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let answered = match name {
        "moby.buildkit.v1.Control" => {
            let mut server =
                ControlServer::from_arc(service).max_decoding_message_size(MAX_MESSAGE);
            server.call(request).await
        }
        "moby.buildkit.v1.frontend.LLBBridge" => {
            let mut server =
                LlbBridgeServer::from_arc(service).max_decoding_message_size(MAX_MESSAGE);
            server.call(request).await
        }
        "grpc.health.v1.Health" => HealthServer::new(Alive).call(request).await,
        other => {
            tracing::debug!(service = other, "a service that is not here");
            let words = format!("unknown service {}", name.chars().take(100).collect::<String>());
            return Status::unimplemented(words).into_http();
        }
    };
    match answered {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

struct Alive;

#[tonic::async_trait]
impl Health for Alive {
    async fn check(
        &self,
        _request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        Ok(tonic::Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }
}

//! What all of BuildKit's services share, and the frontend that they lead to.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::{Message as _, Name as _};
use silo_types::Error;
use tonic::{Code, Status};

use crate::attributes::Attributes;
use crate::caps;
use crate::classic::Uploads;
use crate::history::History;
use crate::job::{Job, Jobs};
use crate::pb::errdefs;
use crate::pb::google::rpc;
use crate::pb::moby::buildkit::v1::types::{BuildkitVersion, WorkerRecord};
use crate::pb::pb::Platform;
use crate::session::{Session, Sessions};
use crate::solve::Solver;
use crate::status;

/// The release of BuildKit whose services these follow.
const VERSION: &str = "v0.25.0";

/// BuildKit's services.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) history: Arc<History>,
    pub(crate) solver: Arc<Solver>,
    pub(crate) uploads: Uploads,
    pub(crate) worker_id: String,
}

impl Service {
    pub(crate) async fn session(&self, id: &str) -> Result<Arc<Session>, Status> {
        self.sessions.get(id).await.map_err(|error| status::error(&error))
    }

    /// The session of a build that runs. A build that was refused at once has lost its client's
    /// session, which would be waited for in vain.
    pub(crate) async fn session_of(&self, job: &Job) -> Result<Arc<Session>, Status> {
        tokio::select! {
            session = self.session(job.session()) => session,
            () = job.ended() => {
                // BuildKit's wording.
                let error = Error::not_found(format!("no such job {}", job.reference()));
                Err(status::error(&error))
            }
        }
    }

    pub(crate) fn version() -> BuildkitVersion {
        BuildkitVersion {
            package: "silo".to_owned(),
            version: VERSION.to_owned(),
            revision: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// What the builder says of itself.
    pub(crate) fn worker(&self) -> WorkerRecord {
        let label = |name: &str, value: &str| {
            (format!("org.mobyproject.buildkit.worker.{name}"), value.to_owned())
        };
        // docker's client takes the snapshotter's for a sign that all exporters are there.
        let mut labels =
            HashMap::from([label("executor", "silo"), label("snapshotter", "overlay")]);
        if let Some(gateway) = self.solver.builder.engine().host_gateway() {
            labels.extend([label("moby.host-gateway-ip", &gateway.to_string())]);
        }
        let host = silo_oci::platform::Platform::host();
        let platform = |os: &str| Platform {
            architecture: host.architecture.clone(),
            os: os.to_owned(),
            variant: host.variant.clone(),
            ..Platform::default()
        };
        WorkerRecord {
            id: self.worker_id.clone(),
            labels,
            platforms: vec![platform("linux"), platform("windows")],
            gc_policy: Vec::new(),
            buildkit_version: Some(Self::version()),
        }
    }

    /// Asks the Dockerfile frontend. The answer is what it says of the Dockerfile, or a reference
    /// to a build that can be carried out.
    pub(crate) async fn frontend(
        &self,
        job: &Arc<Job>,
        frontend: &str,
        attributes: &Attributes,
        inputs: &HashMap<String, String>,
    ) -> Result<(HashMap<String, Bytes>, Option<String>), Status> {
        match frontend {
            "dockerfile.v0" => {}
            // Another version of the same frontend, which is here already.
            "gateway.v0" if is_dockerfile(attributes.get("source")) => {}
            "" => return Err(Status::invalid_argument("no frontend is named")),
            other => {
                let name: String = other.chars().take(100).collect();
                return Err(Status::not_found(format!("could not find frontend {name}")));
            }
        }
        if let Some(missing) = caps::missing(attributes.get("frontend.caps")) {
            let detail = prost_types::Any {
                type_url: "errdefs.FrontendCap".to_owned(),
                value: errdefs::Subrequest { name: missing.to_owned() }.encode_to_vec(),
            };
            return Err(status::with_details(&rpc::Status {
                code: Code::Unimplemented.into(),
                message: format!("unsupported frontend capability {missing}"),
                details: vec![detail],
            }));
        }
        let session = self.session_of(job).await?;
        let request = self
            .solver
            .request(&session, attributes, inputs)
            .map_err(|error| status::error(&error))?;
        match attributes.get("requestid") {
            "" => {
                let reference = job.bridge().add(request).map_err(|error| status::error(&error))?;
                Ok((HashMap::new(), Some(reference)))
            }
            other => {
                let asked = self.solver.ask(job, other, request.build).await;
                let asked =
                    asked.map_err(|error| status::with_details(&status::build_error(&error)))?;
                if let Some(answer) = asked {
                    return Ok((answer, None));
                }
                let detail = errdefs::Subrequest { name: other.to_owned() };
                Err(status::with_details(&rpc::Status {
                    code: Code::Unimplemented.into(),
                    message: format!("unsupported request {other}"),
                    details: vec![prost_types::Any {
                        type_url: errdefs::Subrequest::full_name(),
                        value: detail.encode_to_vec(),
                    }],
                }))
            }
        }
    }
}

/// Is it an image of BuildKit's own Dockerfile frontend?
fn is_dockerfile(image: &str) -> bool {
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    let name = image.split([':', '@']).next().unwrap_or_default();
    matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream")
}

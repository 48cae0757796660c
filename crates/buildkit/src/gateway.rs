//! The gateway: a client that is its own frontend, as `docker buildx` is, asks for the Dockerfile
//! frontend's result through it, and returns what is to be exported.
//!
//! Its calls name their build in a header. A build that was asked for is only carried out once
//! the client has returned it, when it is known where the result goes; or when the client has it
//! evaluated.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use silo_types::Error;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use crate::attributes::{Attributes, CacheTo};
use crate::caps;
use crate::pb::google::rpc;
use crate::pb::moby::buildkit::v1 as control;
use crate::pb::moby::buildkit::v1::frontend::{
    EvaluateRequest, EvaluateResponse, InputsRequest, InputsResponse, PingRequest, PongResponse,
    ReadDirRequest, ReadDirResponse, ReadFileRequest, ReadFileResponse, Ref,
    ResolveImageConfigRequest, ResolveImageConfigResponse, ResolveSourceMetaRequest,
    ResolveSourceMetaResponse, Result as SolveResult, ReturnRequest, ReturnResponse, SolveRequest,
    SolveResponse, StatFileRequest, StatFileResponse, WarnRequest, WarnResponse,
    llb_bridge_server::LlbBridge, result,
};
use crate::pb::pb::{Definition, Input, Op, OpMetadata, SourceOp};
use crate::service::Service;
use crate::solve::Wanted;
use crate::status;

/// The header that names a build.
const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// The scheme of sources that are results of builds.
const RESULT: &str = "silo-result://";
/// Results that a client may ask for in one build.
const MAX_RESULTS: usize = 256;

/// What the gateway knows of one build.
#[derive(Debug, Default)]
pub(crate) struct Bridge {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: HashMap<String, Wanted>,
    /// The images that came of them, also after the build.
    images: HashMap<String, String>,
    returned: Option<oneshot::Sender<Returned>>,
    early: Option<Returned>,
}

/// What the client returned: a reference to a result, or none, or an error.
pub(crate) type Returned = Result<Option<String>, rpc::Status>;

impl Bridge {
    /// Waits for what the client returns.
    pub(crate) fn wait(&self) -> oneshot::Receiver<Returned> {
        let (send, receive) = oneshot::channel();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.early.take() {
            // The other end is here.
            Some(returned) => drop(send.send(returned)),
            None => state.returned = Some(send),
        }
        receive
    }

    fn returned(&self, returned: Returned) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.returned.take() {
            // A build that has ended does not want it any more.
            Some(send) => drop(send.send(returned)),
            None => state.early = Some(returned),
        }
    }

    /// Forgets all: what builds hold on to is free.
    pub(crate) fn clear(&self) {
        let requests = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut state.requests)
        };
        drop(requests);
    }

    /// Remembers the image that came of a reference.
    pub(crate) fn built(&self, reference: &str, image: String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.images.insert(reference.to_owned(), image);
    }

    /// The image that came of a reference.
    pub(crate) fn image(&self, reference: &str) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.images.get(reference).cloned()
    }

    /// Remembers a build by a reference.
    pub(crate) fn add(&self, request: Wanted) -> Result<String, Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.requests.len() == MAX_RESULTS {
            return Err(Error::invalid("too many results of one build"));
        }
        let reference = format!("result-{}", state.requests.len());
        state.requests.insert(reference.clone(), request);
        Ok(reference)
    }

    /// The request behind a reference.
    pub(crate) fn request(&self, reference: &str) -> Result<Wanted, Error> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests.get(reference).cloned().ok_or_else(|| {
            // BuildKit's wording.
            Error::not_found(format!(
                "no such ref: {}",
                reference.chars().take(100).collect::<String>()
            ))
        })
    }
}

/// A definition that stands for a result: clients hand it on to builds that want the result as
/// a context, and look no closer.
fn definition(build: &str, reference: &str) -> Definition {
    let identifier = format!("{RESULT}{build}/{reference}");
    let source =
        Op { source: Some(SourceOp { identifier, ..SourceOp::default() }), ..Op::default() };
    let source = source.encode_to_vec();
    let digest = silo_types::Digest::from_sha256(Sha256::digest(&source).into()).to_string();
    let last = Op { inputs: vec![Input { digest: digest.clone(), index: 0 }], ..Op::default() };
    Definition {
        def: vec![source.into(), last.encode_to_vec().into()],
        // Clients take a definition without any for none.
        metadata: HashMap::from([(digest, OpMetadata::default())]),
    }
}

/// The build and the reference that a definition stands for.
fn result_of(definition: &Definition) -> Option<(String, String)> {
    definition.def.iter().find_map(|bytes| {
        let source = Op::decode(bytes.clone()).ok()?.source?;
        let (build, reference) = source.identifier.strip_prefix(RESULT)?.split_once('/')?;
        Some((build.to_owned(), reference.to_owned()))
    })
}

fn unsupported(what: &str) -> Status {
    Status::unimplemented(format!("{what}: not supported by Silo"))
}

impl Service {
    async fn job<T>(&self, request: &Request<T>) -> Result<Arc<crate::job::Job>, Status> {
        let id = request.metadata().get(BUILD_ID).and_then(|id| id.to_str().ok());
        let id = id.ok_or_else(|| Status::unknown("no buildid found in context"))?;
        self.jobs.get(id).await.map_err(|error| status::error(&error))
    }

    /// The results of other builds of the client that a build takes for contexts, as images.
    pub(crate) async fn inputs(
        &self,
        job: &Arc<crate::job::Job>,
        inputs: &HashMap<String, Definition>,
    ) -> Result<HashMap<String, String>, Status> {
        let mut images = HashMap::new();
        for (name, definition) in inputs {
            let (build, reference) = result_of(definition).ok_or_else(|| {
                unsupported("definitions in BuildKit's low-level form as contexts")
            })?;
            let other = self.jobs.get(&build).await.map_err(|error| status::error(&error))?;
            let image = match other.bridge().image(&reference) {
                Some(image) => image,
                None => {
                    let request = other.bridge().request(&reference);
                    let mut request = request.map_err(|error| status::error(&error))?;
                    request.build.store = true;
                    let progress = Arc::clone(job);
                    let built = self.solver.builder.build(request.build, progress).await;
                    let built = built
                        .map_err(|error| status::with_details(&status::build_error(&error)))?;
                    built.image.to_string()
                }
            };
            images.insert(name.clone(), image);
        }
        Ok(images)
    }
}

#[tonic::async_trait]
impl LlbBridge for Service {
    async fn resolve_image_config(
        &self,
        _request: Request<ResolveImageConfigRequest>,
    ) -> Result<Response<ResolveImageConfigResponse>, Status> {
        Err(unsupported("looking at images of a registry"))
    }

    async fn resolve_source_meta(
        &self,
        _request: Request<ResolveSourceMetaRequest>,
    ) -> Result<Response<ResolveSourceMetaResponse>, Status> {
        Err(unsupported("looking at sources"))
    }

    async fn solve(
        &self,
        request: Request<SolveRequest>,
    ) -> Result<Response<SolveResponse>, Status> {
        let job = self.job(&request).await?;
        let request = request.into_inner();
        if request.definition.is_some_and(|definition| !definition.def.is_empty()) {
            return Err(unsupported("definitions in BuildKit's low-level form"));
        }
        let attributes = Attributes(request.frontend_opt);
        let inputs = self.inputs(&job, &request.frontend_inputs).await?;
        let (metadata, reference) =
            self.frontend(&job, &request.frontend, &attributes, &inputs).await?;
        let result = reference.map(|id| {
            let def = Some(definition(job.reference(), &id));
            result::Result::Ref(Ref { id, def })
        });
        Ok(Response::new(SolveResponse {
            result: Some(SolveResult { result, metadata }),
            ..SolveResponse::default()
        }))
    }

    async fn read_file(
        &self,
        _request: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        Err(unsupported("reading files of a result"))
    }

    async fn read_dir(
        &self,
        _request: Request<ReadDirRequest>,
    ) -> Result<Response<ReadDirResponse>, Status> {
        Err(unsupported("reading directories of a result"))
    }

    async fn stat_file(
        &self,
        _request: Request<StatFileRequest>,
    ) -> Result<Response<StatFileResponse>, Status> {
        Err(unsupported("looking at files of a result"))
    }

    async fn evaluate(
        &self,
        request: Request<EvaluateRequest>,
    ) -> Result<Response<EvaluateResponse>, Status> {
        let job = self.job(&request).await?;
        let build = job
            .bridge()
            .request(&request.get_ref().r#ref)
            .map_err(|error| status::error(&error))?;
        let session = self.session_of(&job).await?;
        let built = self.solver.run(&session, &job, build, &[], &CacheTo::default()).await;
        built.map_err(|error| status::with_details(&status::build_error(&error)))?;
        Ok(Response::new(EvaluateResponse {}))
    }

    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PongResponse>, Status> {
        self.job(&request).await?;
        Ok(Response::new(PongResponse {
            frontend_api_caps: caps::gateway(),
            llb_caps: caps::definitions(),
            workers: vec![self.worker()],
        }))
    }

    async fn r#return(
        &self,
        request: Request<ReturnRequest>,
    ) -> Result<Response<ReturnResponse>, Status> {
        let job = self.job(&request).await?;
        let ReturnRequest { result, error } = request.into_inner();
        let returned = match error {
            Some(error) => Err(error),
            None => match result.and_then(|result| result.result) {
                None => Ok(None),
                Some(result::Result::RefDeprecated(id)) => Ok(Some(id)),
                Some(result::Result::Ref(reference)) => Ok(Some(reference.id)),
                Some(result::Result::RefsDeprecated(refs)) => Ok(refs.refs.into_values().next()),
                Some(result::Result::Refs(refs)) => {
                    Ok(refs.refs.into_values().next().map(|reference| reference.id))
                }
            },
        };
        job.bridge().returned(returned.map(|id| id.filter(|id| !id.is_empty())));
        Ok(Response::new(ReturnResponse {}))
    }

    async fn inputs(
        &self,
        request: Request<InputsRequest>,
    ) -> Result<Response<InputsResponse>, Status> {
        self.job(&request).await?;
        Ok(Response::new(InputsResponse::default()))
    }

    async fn warn(&self, request: Request<WarnRequest>) -> Result<Response<WarnResponse>, Status> {
        let job = self.job(&request).await?;
        let warning = request.into_inner();
        job.tell(control::StatusResponse {
            warnings: vec![control::VertexWarning {
                vertex: warning.digest,
                level: warning.level,
                short: warning.short,
                detail: warning.detail,
                url: warning.url,
                info: warning.info,
                ranges: warning.ranges,
            }],
            ..control::StatusResponse::default()
        });
        Ok(Response::new(WarnResponse {}))
    }
}

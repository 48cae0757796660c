//! The control service: builds, and what is kept of them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use silo_build::{CacheRecord, PruneOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::attributes::{Attributes, CacheTo};
use crate::job::Running;
use crate::pb::google::rpc;
use crate::pb::moby::buildkit::v1::control_server::Control;
use crate::pb::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryRecord, BuildHistoryRequest, BytesMessage, CacheOptionsEntry,
    DiskUsageRequest, DiskUsageResponse, Exporter, InfoRequest, InfoResponse, ListWorkersRequest,
    ListWorkersResponse, PruneRequest, SolveRequest, SolveResponse, StatusRequest, StatusResponse,
    UpdateBuildHistoryRequest, UpdateBuildHistoryResponse, UsageRecord,
};
use crate::service::Service;
use crate::session::Sessions;
use crate::solve::Export;
use crate::status;

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Bytes of a session inside a call that are on their way.
const PIPE: usize = 64 * 1024;
/// Results that a build may have.
const MAX_EXPORTS: usize = 16;

#[tonic::async_trait]
impl Control for Service {
    async fn disk_usage(
        &self,
        _request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        let records = self.solver.builder.disk_usage().await;
        let mut records = records.map_err(|error| status::error(&error))?;
        let slots = Arc::clone(&self.solver.slots);
        let contexts = tokio::task::spawn_blocking(move || slots.records());
        records.extend(contexts.await.map_err(|error| Status::internal(error.to_string()))?);
        let record = records.into_iter().map(usage).collect();
        Ok(Response::new(DiskUsageResponse { record }))
    }

    type PruneStream = Messages<UsageRecord>;

    async fn prune(
        &self,
        request: Request<PruneRequest>,
    ) -> Result<Response<Self::PruneStream>, Status> {
        let request = request.into_inner();
        let options = PruneOptions {
            all: request.all,
            filters: request.filter.iter().flat_map(|filter| prune_filters(filter)).collect(),
            keep_storage: u64::try_from(request.reserved_space).unwrap_or_default(),
            max_used_space: u64::try_from(request.max_used_space).unwrap_or_default(),
            min_free_space: u64::try_from(request.min_free_space).unwrap_or_default(),
            keep_duration: Duration::from_nanos(
                u64::try_from(request.keep_duration).unwrap_or_default(),
            ),
        };
        let pruned = self.solver.prune(options).await;
        let pruned = pruned.map_err(|error| status::error(&error))?;
        let records = pruned.records.into_iter().map(|record| Ok(usage(record)));
        Ok(Response::new(stream::iter(records.collect::<Vec<_>>()).boxed()))
    }

    async fn solve(
        &self,
        request: Request<SolveRequest>,
    ) -> Result<Response<SolveResponse>, Status> {
        let request = request.into_inner();
        let running = self
            .jobs
            .begin(&request.r#ref, &request.session)
            .map_err(|error| status::error(&error))?;
        let mut record = BuildHistoryRecord {
            r#ref: request.r#ref.clone(),
            frontend: request.frontend.clone(),
            frontend_attrs: request.frontend_attrs.clone(),
            exporters: request.exporters.clone(),
            created_at: Some(status::timestamp(Timestamp::now())),
            ..BuildHistoryRecord::default()
        };
        let internal = request.internal;
        if !internal {
            self.history.record(record.clone());
        }
        let mut ended =
            Ended { service: self, record: (!internal).then_some(&mut record), running };
        // A build is large, and calls of others are not.
        match Box::pin(self.carry_out(&ended.running, request)).await {
            Ok(exporter_response) => {
                ended.answer(Ok(&exporter_response));
                Ok(Response::new(SolveResponse { exporter_response }))
            }
            Err(error) => {
                ended.answer(Err(error.clone()));
                Err(status::with_details(&error))
            }
        }
    }

    type StatusStream = Messages<StatusResponse>;

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        let job = self.jobs.get(&request.get_ref().r#ref).await;
        let job = job.map_err(|error| status::error(&error))?;
        Ok(Response::new(job.follow().map(Ok).boxed()))
    }

    type SessionStream = Messages<BytesMessage>;

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let headers = request.metadata().clone().into_headers();
        let description = Sessions::describe(&headers).map_err(|error| status::error(&error))?;
        let mut incoming = request.into_inner();
        let (near, far) = tokio::io::duplex(PIPE);
        let sessions = Arc::clone(&self.sessions);
        tokio::spawn(async move { sessions.run(description, near).await });
        let (mut output, mut input) = tokio::io::split(far);
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                if input.write_all(&message.data).await.is_err() {
                    break;
                }
            }
            // The session may have ended on its own.
            let _ended = input.shutdown().await;
        });
        let (send, mut receive) = mpsc::channel(4);
        tokio::spawn(async move {
            let mut buffer = vec![0; PIPE];
            while let Ok(count @ 1..) = output.read(&mut buffer).await {
                let data = bytes::Bytes::copy_from_slice(&buffer[..count]);
                if send.send(Ok(BytesMessage { data })).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(stream::poll_fn(move |cx| receive.poll_recv(cx)).boxed()))
    }

    async fn list_workers(
        &self,
        _request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        Ok(Response::new(ListWorkersResponse { record: vec![self.worker()] }))
    }

    async fn info(&self, _request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse { buildkit_version: Some(Self::version()) }))
    }

    type ListenBuildHistoryStream = Messages<BuildHistoryEvent>;

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Ok(Response::new(self.history.listen(request.into_inner()).map(Ok).boxed()))
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        if !self.history.update(request.get_ref()) {
            // BuildKit's wording.
            return Err(Status::not_found(format!(
                "could not find build {}: not found",
                request.get_ref().r#ref
            )));
        }
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }
}

impl Service {
    /// Carries a build out, on the client's own account or through the gateway.
    async fn carry_out(
        &self,
        running: &Running,
        request: SolveRequest,
    ) -> Result<HashMap<String, String>, rpc::Status> {
        let job = running.job();
        let plain = |status: Status| rpc::Status {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: Vec::new(),
        };
        if request.definition.is_some_and(|definition| !definition.def.is_empty()) {
            let words = "definitions in BuildKit's low-level form: not supported by Silo";
            return Err(plain(Status::unimplemented(words)));
        }
        let mut exporters = request.exporters;
        if exporters.is_empty() && !request.exporter_deprecated.is_empty() {
            exporters.push(Exporter {
                r#type: request.exporter_deprecated,
                attrs: request.exporter_attrs_deprecated,
            });
        }
        if exporters.len() > MAX_EXPORTS {
            return Err(plain(Status::invalid_argument("too many exporters")));
        }
        let exports: Vec<Export> = exporters
            .into_iter()
            .map(|exporter| Export {
                kind: exporter.r#type,
                attributes: Attributes(exporter.attrs),
            })
            .collect();
        let caches = request.cache.unwrap_or_default().exports;
        let caches = cache_to(&caches).map_err(|error| plain(status::error(&error)))?;
        let session = self.session(&request.session).await.map_err(plain)?;
        let reference = if request.frontend.is_empty() {
            let returned = job.bridge().wait();
            tokio::select! {
                returned = returned => match returned {
                    Ok(returned) => returned?,
                    Err(_) => return Err(plain(Status::cancelled("context canceled"))),
                },
                () = session.closed() => {
                    return Err(plain(Status::cancelled("context canceled")));
                }
            }
        } else {
            let attributes = Attributes(request.frontend_attrs);
            let inputs = self.inputs(job, &request.frontend_inputs).await.map_err(plain)?;
            let answered = self.frontend(job, &request.frontend, &attributes, &inputs).await;
            let (metadata, reference) = answered.map_err(plain)?;
            if reference.is_none() {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                return Ok(metadata
                    .iter()
                    .map(|(name, value)| (name.clone(), text(value)))
                    .collect());
            }
            reference
        };
        let Some(reference) = reference else { return Ok(HashMap::new()) };
        let build =
            job.bridge().request(&reference).map_err(|error| plain(status::error(&error)))?;
        let built = self.solver.run(&session, job, build, &exports, &caches).await;
        let built = built.map_err(|error| status::build_error(&error))?;
        if let Some(image) = built.get("containerimage.digest") {
            job.bridge().built(&reference, image.clone());
        }
        Ok(built)
    }
}

/// Where the cache goes.
fn cache_to(entries: &[CacheOptionsEntry]) -> Result<CacheTo, silo_types::Error> {
    if entries.len() > MAX_EXPORTS {
        return Err(silo_types::Error::invalid("too many cache exporters"));
    }
    let mut caches = CacheTo::default();
    for entry in entries {
        caches.add(&entry.r#type, &entry.attrs)?;
    }
    Ok(caches)
}

/// Writes down how a build ended, also when its client went away.
struct Ended<'a> {
    service: &'a Service,
    record: Option<&'a mut BuildHistoryRecord>,
    running: Running,
}

impl Ended<'_> {
    fn answer(&mut self, answer: Result<&HashMap<String, String>, rpc::Status>) {
        let Some(record) = self.record.take() else { return };
        let (total, completed, cached, warnings) = self.running.job().steps().counts();
        record.completed_at = Some(status::timestamp(Timestamp::now()));
        record.num_total_steps = total;
        record.num_completed_steps = completed;
        record.num_cached_steps = cached;
        record.num_warnings = warnings;
        match answer {
            Ok(response) => record.exporter_response.clone_from(response),
            Err(error) => record.error = Some(error),
        }
        self.service.history.record(record.clone());
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.answer(Err(rpc::Status {
            code: tonic::Code::Cancelled.into(),
            message: "context canceled".to_owned(),
            details: Vec::new(),
        }));
    }
}

/// The conditions of a filter as clients write it, `type==exec.cachemount,inuse`.
fn prune_filters(filter: &str) -> Vec<(String, String)> {
    let conditions = filter.split(',').filter(|condition| !condition.is_empty());
    conditions
        .map(|condition| {
            let pair = ["~=", "==", "="].iter().find_map(|sign| condition.split_once(sign));
            let (name, value) = pair.unwrap_or((condition, "true"));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

fn usage(record: CacheRecord) -> UsageRecord {
    UsageRecord {
        id: record.id,
        mutable: record.kind == "exec.cachemount" || record.kind == "source.local",
        in_use: record.in_use,
        size: i64::try_from(record.size).unwrap_or(i64::MAX),
        created_at: Some(status::timestamp(record.created)),
        last_used_at: record.last_used.map(status::timestamp),
        usage_count: i64::try_from(record.usage_count).unwrap_or(i64::MAX),
        description: record.description,
        record_type: record.kind,
        shared: record.shared,
        parents: record.parents,
    }
}

//! What a client answers.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::PoisonError;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use hyper::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::{Output, Secret, Share};
use crate::filesync::{Select, Sender, receive_into};
use crate::pb::fsutil::types::{Packet, packet::PacketType};
use crate::pb::moby::buildkit::secrets::v1::secrets_server::Secrets;
use crate::pb::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use crate::pb::moby::filesync::v1::auth_server::Auth;
use crate::pb::moby::filesync::v1::file_send_server::FileSend;
use crate::pb::moby::filesync::v1::file_sync_server::FileSync;
use crate::pb::moby::filesync::v1::{BytesMessage, CredentialsRequest, CredentialsResponse};
use crate::pb::moby::sshforward::v1::ssh_server::Ssh;
use crate::pb::moby::sshforward::v1::{
    BytesMessage as AgentMessage, CheckAgentRequest, CheckAgentResponse,
};
use crate::pb::moby::upload::v1::BytesMessage as UploadMessage;
use crate::pb::moby::upload::v1::upload_server::Upload;

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Packets that wait for the builder.
const QUEUE: usize = 64;
/// Bytes of a piece.
const PIECE: usize = 32 * 1024;
/// Bytes of a secret. BuildKit's limit.
const MAX_SECRET: u64 = 500 * 1024;
const EXPORTER: &str = "buildkit-attachable-exporter-id";

/// All services of a session.
#[derive(Debug)]
pub(super) struct Services {
    share: Share,
    archive: Mutex<Option<Vec<u8>>>,
}

impl Services {
    pub(super) fn new(mut share: Share) -> Self {
        let archive = share.archive.as_mut().map(|(_, head)| std::mem::take(head));
        Self { share, archive: Mutex::new(archive) }
    }

    /// What the builder may have.
    pub(super) fn share(&self) -> &Share {
        &self.share
    }

    /// Where the result of a call goes.
    pub(super) fn output(&self, headers: &HeaderMap) -> Result<Output, Status> {
        let number = headers.get(EXPORTER).and_then(|value| value.to_str().ok()).unwrap_or("0");
        let number: usize =
            number.parse().map_err(|_| Status::invalid_argument("invalid exporter id"))?;
        let output = self.share.outputs.get(number).cloned().flatten();
        output.ok_or_else(|| Status::not_found(format!("no output for exporter {number}")))
    }
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

/// The values of a header, decoded where the caller says that they are encoded.
fn values(metadata: &MetadataMap, name: &str) -> Result<Vec<String>, Status> {
    let encoded = metadata.contains_key(format!("{name}-encoded").as_str());
    let values = metadata.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let decode = |value: &str| {
        if !encoded {
            return Ok(value.to_owned());
        }
        let decoded = silo_types::query::unescape(value);
        decoded.map_err(|error| Status::invalid_argument(format!("{name}: {error}")))
    };
    values.map(decode).collect()
}

/// Messages of a queue.
fn messages<T: Send + 'static>(mut queue: mpsc::Receiver<Result<T, Status>>) -> Messages<T> {
    stream::poll_fn(move |cx| queue.poll_recv(cx)).boxed()
}

#[tonic::async_trait]
impl FileSync for Services {
    type DiffCopyStream = Messages<Packet>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let metadata = request.metadata();
        let name = values(metadata, "dir-name")?.pop().unwrap_or_default();
        let (follow, exclude) =
            (values(metadata, "followpaths")?, values(metadata, "exclude-patterns")?);
        let path = self.share.directories.get(&name);
        let path = path.ok_or_else(|| Status::not_found(format!("no access allowed to {name}")))?;
        let fail = |error: std::io::Error| Status::unknown(format!("{}: {error}", path.display()));
        let path = fs_err::canonicalize(path).map_err(fail)?;
        let root = silo_sys::path::open_root(&path).map_err(fail)?;
        let mut incoming = request.into_inner();
        let (queue, mut packets) = mpsc::channel::<Packet>(QUEUE);
        let (asked, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(packet)) = incoming.message().await {
                match packet.r#type() {
                    kind @ (PacketType::PacketReq | PacketType::PacketFin) => {
                        if asked.send((kind, packet.id)).is_err() {
                            break;
                        }
                    }
                    _ => break,
                }
            }
        });
        tokio::task::spawn_blocking(move || {
            let sent = Select::new(&path, &follow, &exclude)
                .map_err(|error| error.to_string())
                .and_then(|select| {
                    let sender = Sender::of_user(root, queue.clone(), select);
                    sender.run(requests).map_err(|error| silo_types::error::chain(&error))
                });
            if let Err(error) = sent {
                let data = error.into_bytes().into();
                let kind = PacketType::PacketErr.into();
                // A builder that is gone has its own reason.
                let _gone = queue.blocking_send(Packet { r#type: kind, data, ..Packet::default() });
            }
        });
        Ok(Response::new(stream::poll_fn(move |cx| packets.poll_recv(cx)).map(Ok).boxed()))
    }
}

/// Files that become those of a directory.
#[derive(Debug)]
pub(super) struct DirectoryOutput(pub(super) PathBuf);

impl tonic::server::StreamingService<Packet> for DirectoryOutput {
    type Response = Packet;
    type ResponseStream = Messages<Packet>;
    type Future =
        Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Packet>>) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move {
            let fail = |error| Status::unknown(format!("{}: {error}", path.display()));
            fs_err::create_dir_all(&path).map_err(fail)?;
            let path = fs_err::canonicalize(&path).map_err(fail)?;
            let root = silo_sys::path::open_root(&path).map_err(fail)?;
            let mut incoming = request.into_inner();
            let (queue, packets) = mpsc::channel(QUEUE);
            let (answers, mut answered) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                while let Ok(Some(packet)) = incoming.message().await {
                    if queue.send(packet).await.is_err() {
                        break;
                    }
                }
            });
            let (send, receive) = mpsc::channel(QUEUE);
            let forward = send.clone();
            tokio::spawn(async move {
                while let Some(packet) = answered.recv().await {
                    if forward.send(Ok(packet)).await.is_err() {
                        break;
                    }
                }
            });
            tokio::task::spawn_blocking(move || {
                let owner = (rustix::process::getuid(), rustix::process::getgid());
                let owner = (owner.0.as_raw(), owner.1.as_raw());
                if let Err(error) = receive_into(root, owner, packets, &answers) {
                    let words = silo_types::error::chain(&error);
                    let _gone = send.blocking_send(Err(Status::unknown(words)));
                }
            });
            Ok(Response::new(messages(receive)))
        })
    }
}

#[tonic::async_trait]
impl FileSend for Services {
    type DiffCopyStream = Messages<BytesMessage>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let output = self.output(&request.metadata().clone().into_headers())?;
        let mut incoming = request.into_inner();
        let (queue, mut pieces) = mpsc::channel::<Bytes>(QUEUE);
        let written = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            let mut whole = |to: &mut dyn std::io::Write| -> std::io::Result<()> {
                loop {
                    // Only an empty piece, which no message is, says that all has come.
                    match pieces.blocking_recv() {
                        Some(piece) if piece.is_empty() => return to.flush(),
                        Some(piece) => to.write_all(&piece)?,
                        None => return Err(std::io::Error::other("the result ended early")),
                    }
                }
            };
            match output {
                Output::Stdout => whole(&mut std::io::stdout().lock()),
                Output::File(path) => write_file(&path, &mut whole),
                Output::Directory(_) => Err(std::io::Error::other("a directory takes no bytes")),
            }
        });
        let mut failed = None;
        loop {
            match incoming.message().await {
                Ok(Some(message)) if message.data.is_empty() => {}
                Ok(Some(message)) => {
                    if queue.send(message.data).await.is_err() {
                        break;
                    }
                }
                Ok(None) => {
                    let _written = queue.send(Bytes::new()).await;
                    break;
                }
                Err(status) => {
                    failed = Some(status);
                    break;
                }
            }
        }
        drop(queue);
        let written = written.await.map_err(internal)?;
        if let Some(status) = failed {
            return Err(status);
        }
        written.map_err(|error| Status::unknown(error.to_string()))?;
        Ok(Response::new(stream::empty().boxed()))
    }
}

/// Writes a file that is there whole or not at all. What is no ordinary file is written to as it is.
fn write_file(
    path: &Path,
    write: &mut dyn FnMut(&mut dyn std::io::Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    if fs_err::metadata(path).is_ok_and(|found| !found.is_file()) {
        return write(&mut fs_err::OpenOptions::new().write(true).open(path)?);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = parent.join(format!(".{name}.{}", std::process::id()));
    let mut file = fs_err::OpenOptions::new().write(true).create_new(true).open(&aside)?;
    let written = write(&mut file).and_then(|()| fs_err::rename(&aside, path));
    if written.is_err() {
        let _left = fs_err::remove_file(&aside);
    }
    written
}

/// The host by which builders mean Docker Hub.
const DOCKER_HUB: &str = "registry-1.docker.io";

#[tonic::async_trait]
impl Auth for Services {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let registry = if host == DOCKER_HUB { "docker.io" } else { &host };
        let (username, secret) = self.share.keys.get(registry);
        Ok(Response::new(CredentialsResponse { username, secret }))
    }
}

#[tonic::async_trait]
impl Secrets for Services {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = &request.get_ref().id;
        let secret = self.share.secrets.get(id);
        let data = match secret {
            None => return Err(Status::not_found(format!("secret {id} not found"))),
            Some(Secret::Value(value)) => value.clone(),
            Some(Secret::File(path)) => {
                let mut data = Vec::new();
                let read = fs_err::File::open(path)
                    .and_then(|file| file.take(MAX_SECRET + 1).read_to_end(&mut data));
                read.map_err(|error| Status::unknown(error.to_string()))?;
                if data.len() as u64 > MAX_SECRET {
                    return Err(Status::invalid_argument(format!(
                        "{} is too large for a secret: at most {MAX_SECRET} bytes",
                        path.display()
                    )));
                }
                data
            }
        };
        Ok(Response::new(GetSecretResponse { data: data.into() }))
    }
}

#[tonic::async_trait]
impl Ssh for Services {
    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        let id = agent_id(&request.get_ref().id);
        if self.share.agents.contains_key(id) {
            Ok(Response::new(CheckAgentResponse {}))
        } else {
            Err(Status::not_found(format!("unset ssh forward key {id}")))
        }
    }

    type ForwardAgentStream = Messages<AgentMessage>;

    async fn forward_agent(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = request.metadata().get("buildkit.ssh.id").and_then(|value| value.to_str().ok());
        let id = agent_id(id.unwrap_or_default()).to_owned();
        let socket = self.share.agents.get(&id);
        let socket =
            socket.ok_or_else(|| Status::not_found(format!("unset ssh forward key {id}")))?;
        let agent = tokio::net::UnixStream::connect(socket).await;
        let agent = agent.map_err(|error| Status::unknown(format!("ssh agent: {error}")))?;
        let (mut from_agent, mut to_agent) = agent.into_split();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                if to_agent.write_all(&message.data).await.is_err() {
                    break;
                }
            }
        });
        let (send, receive) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let mut buffer = vec![0; PIECE];
            while let Ok(count @ 1..) = from_agent.read(&mut buffer).await {
                let data = Bytes::copy_from_slice(&buffer[..count]);
                if send.send(Ok(AgentMessage { data })).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(messages(receive)))
    }
}

fn agent_id(id: &str) -> &str {
    if id.is_empty() { "default" } else { id }
}

#[tonic::async_trait]
impl Upload for Services {
    type PullStream = Messages<UploadMessage>;

    async fn pull(
        &self,
        _request: Request<Streaming<UploadMessage>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let head = self.archive.lock().unwrap_or_else(PoisonError::into_inner).take();
        let head = head.ok_or_else(|| Status::not_found("no archive to upload"))?;
        let (send, receive) = mpsc::channel(QUEUE);
        tokio::task::spawn_blocking(move || {
            if send.blocking_send(Ok(UploadMessage { data: head.into() })).is_err() {
                return;
            }
            let mut input = std::io::stdin().lock();
            loop {
                let mut piece = vec![0; PIECE];
                let message = match input.read(&mut piece) {
                    Ok(0) => return,
                    Ok(count) => {
                        piece.truncate(count);
                        Ok(UploadMessage { data: piece.into() })
                    }
                    Err(error) => Err(internal(error)),
                };
                let is_end = message.is_err();
                if send.blocking_send(message).is_err() || is_end {
                    return;
                }
            }
        });
        Ok(Response::new(messages(receive)))
    }
}

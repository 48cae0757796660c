//! The session: calls of the builder, led to their services.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;
use tonic::body::Body;
use tonic_prost::ProstCodec;
use tower_service::Service as _;

use super::services::{DirectoryOutput, Services};
use super::{Output, Share};
use crate::http2;
use crate::pb::containerd::services::content::v1::content_server::ContentServer;
use crate::pb::fsutil::types::Packet;
use crate::pb::grpc::health::v1::health_server::HealthServer;
use crate::pb::moby::buildkit::secrets::v1::secrets_server::SecretsServer;
use crate::pb::moby::filesync::v1::auth_server::AuthServer;
use crate::pb::moby::filesync::v1::file_send_server::FileSendServer;
use crate::pb::moby::filesync::v1::file_sync_server::FileSyncServer;
use crate::pb::moby::sshforward::v1::ssh_server::SshServer;
use crate::pb::moby::upload::v1::upload_server::UploadServer;
use crate::session::MAX_MESSAGE;

const FILE_SEND: &str = "/moby.filesync.v1.FileSend/DiffCopy";

/// The calls that [`share`] answers, for the headers of the request that opens the session.
pub const METHODS: [&str; 12] = [
    "/grpc.health.v1.Health/Check",
    "/moby.filesync.v1.FileSync/DiffCopy",
    FILE_SEND,
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.sshforward.v1.SSH/CheckAgent",
    "/moby.sshforward.v1.SSH/ForwardAgent",
    "/moby.upload.v1.Upload/Pull",
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.content.v1.Content/Read",
    "/containerd.services.content.v1.Content/Write",
    "/containerd.services.content.v1.Content/Abort",
];

/// Answers a builder until it hangs up.
pub async fn share<S>(stream: S, share: Share) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let services = Arc::new(Services::new(share));
    http2::serve(stream, move |request| answer(Arc::clone(&services), request)).await
}

async fn answer(services: Arc<Services>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let name = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    macro_rules! serve {
        ($server:ident) => {
            $server::from_arc(services).max_decoding_message_size(MAX_MESSAGE).call(request).await
        };
    }
    let answered = match name {
        "moby.filesync.v1.FileSync" => serve!(FileSyncServer),
        "moby.filesync.v1.FileSend" if path == FILE_SEND => {
            match services.output(request.headers()) {
                Ok(Output::Directory(directory)) => {
                    // The same call carries files, not bytes, where the output is a directory.
                    let codec: ProstCodec<Packet, Packet> = ProstCodec::default();
                    let mut grpc = tonic::server::Grpc::new(codec)
                        .apply_max_message_size_config(Some(MAX_MESSAGE), None);
                    return grpc.streaming(DirectoryOutput(directory), request).await;
                }
                Ok(_) => serve!(FileSendServer),
                Err(status) => return status.into_http(),
            }
        }
        "moby.filesync.v1.Auth" => serve!(AuthServer),
        "moby.buildkit.secrets.v1.Secrets" => serve!(SecretsServer),
        "moby.sshforward.v1.SSH" => serve!(SshServer),
        "moby.upload.v1.Upload" => serve!(UploadServer),
        "containerd.services.content.v1.Content" => serve!(ContentServer),
        "grpc.health.v1.Health" => HealthServer::new(crate::Alive).call(request).await,
        _ => return Status::unimplemented(format!("unknown service {name}")).into_http(),
    };
    match answered {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

//! What only the client has: secrets, SSH agents, and credentials for registries.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use silo_build::Boxed;
use silo_build::secret::{Duplex, RegistryKeys, Secrets, SshAgents};
use silo_engine::Credentials;
use silo_types::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::{Code, Request};

use crate::pb::moby::buildkit::secrets::v1::GetSecretRequest;
use crate::pb::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use crate::pb::moby::filesync::v1::auth_client::AuthClient;
use crate::pb::moby::filesync::v1::{CredentialsRequest, CredentialsResponse};
use crate::pb::moby::sshforward::v1::ssh_client::SshClient;
use crate::pb::moby::sshforward::v1::{BytesMessage, CheckAgentRequest};
use crate::session::{MAX_MESSAGE, Session};

const GET_SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const GET_CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
/// Bytes of a secret. BuildKit's limit.
const MAX_SECRET: usize = 500 * 1024;
/// Bytes of a message of an agent on their way.
const PIPE: usize = 32 * 1024;

/// The client behind a session.
#[derive(Debug)]
pub(crate) struct ClientCredentials {
    session: Arc<Session>,
}

impl ClientCredentials {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self { session }
    }
}

impl Secrets for ClientCredentials {
    fn secret<'a>(&'a self, id: &'a str) -> Boxed<'a, Result<Option<Vec<u8>>, Error>> {
        Box::pin(async move {
            if !self.session.answers(GET_SECRET) {
                return Ok(None);
            }
            let mut client = SecretsClient::with_origin(self.session.channel(), Session::origin())
                .max_decoding_message_size(MAX_MESSAGE);
            let request = GetSecretRequest { id: id.to_owned(), ..Default::default() };
            match client.get_secret(request).await {
                Ok(answer) => {
                    let data = answer.into_inner().data;
                    if data.len() > MAX_SECRET {
                        return Err(Error::invalid(format!(
                            "invalid secret size {}: the limit is {MAX_SECRET}",
                            data.len()
                        )));
                    }
                    Ok(Some(data.to_vec()))
                }
                Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
                    Ok(None)
                }
                Err(status) => Err(Error::internal(status.message())),
            }
        })
    }
}

impl RegistryKeys for ClientCredentials {
    fn credentials<'a>(&'a self, registry: &'a str) -> Boxed<'a, Credentials> {
        Box::pin(async move {
            if !self.session.answers(GET_CREDENTIALS) {
                return Credentials::default();
            }
            let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
            let mut client = AuthClient::with_origin(self.session.channel(), Session::origin());
            let answer = client.credentials(CredentialsRequest { host: host.to_owned() }).await;
            match answer.map(tonic::Response::into_inner) {
                Ok(CredentialsResponse { username, secret }) if username.is_empty() => {
                    Credentials { identity_token: secret, ..Credentials::default() }
                }
                Ok(CredentialsResponse { username, secret }) => {
                    Credentials { username, password: secret, ..Credentials::default() }
                }
                // Without credentials it may still be let in.
                Err(error) => {
                    tracing::debug!(%error, "a client's credentials");
                    Credentials::default()
                }
            }
        })
    }
}

impl SshAgents for ClientCredentials {
    fn has<'a>(&'a self, id: &'a str) -> Boxed<'a, Result<bool, Error>> {
        Box::pin(async move {
            if !self.session.answers(FORWARD_AGENT) {
                return Ok(false);
            }
            let mut client = SshClient::with_origin(self.session.channel(), Session::origin());
            Ok(client.check_agent(CheckAgentRequest { id: id.to_owned() }).await.is_ok())
        })
    }

    fn connect<'a>(&'a self, id: &'a str) -> Boxed<'a, Result<Box<dyn Duplex>, Error>> {
        Box::pin(async move {
            let bad = || Error::invalid(format!("invalid ssh id {id:?}"));
            let (send, mut receive) = mpsc::channel::<BytesMessage>(16);
            let outgoing = stream::poll_fn(move |cx| receive.poll_recv(cx));
            let mut request = Request::new(outgoing);
            let value: AsciiMetadataValue = id.parse().map_err(|_| bad())?;
            request.metadata_mut().insert(AsciiMetadataKey::from_static("buildkit.ssh.id"), value);
            let mut client = SshClient::with_origin(self.session.channel(), Session::origin())
                .max_decoding_message_size(MAX_MESSAGE);
            let (near, far) = tokio::io::duplex(PIPE);
            // The answer's head may come with the agent's first answer only.
            tokio::spawn(async move {
                let (mut from_container, mut to_container) = tokio::io::split(far);
                let up = async move {
                    let mut buffer = vec![0; PIPE];
                    while let Ok(count @ 1..) = from_container.read(&mut buffer).await {
                        let data = Bytes::copy_from_slice(&buffer[..count]);
                        if send.send(BytesMessage { data }).await.is_err() {
                            break;
                        }
                    }
                };
                let down = async move {
                    let mut incoming = match client.forward_agent(request).await {
                        Ok(answer) => answer.into_inner(),
                        Err(error) => {
                            tracing::debug!(%error, "the client's ssh agent");
                            return;
                        }
                    };
                    while let Ok(Some(message)) = incoming.message().await {
                        if to_container.write_all(&message.data).await.is_err() {
                            break;
                        }
                    }
                };
                tokio::join!(up, down);
            });
            let near: Box<dyn Duplex> = Box::new(near);
            Ok(near)
        })
    }
}

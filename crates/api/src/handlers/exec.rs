//! Processes that are started in a running container.

use std::sync::Arc;

use hyper::StatusCode;
use silo_docker::IdResponse;
use silo_docker::exec::{ExecCreateRequest, ExecStartRequest};
use silo_engine::containers::ExecStarted;
use silo_types::Error;
use tokio::io::AsyncWriteExt;

use super::attach::hijack;
use super::containers::window;
use crate::request::Request;
use crate::respond::{self, Answer};

pub(crate) async fn create(mut request: Request, id: &str) -> Answer {
    let mut body: ExecCreateRequest = request.json().await?;
    if body.cmd.is_empty() {
        return Err(Error::invalid("No exec command specified"));
    }
    if !request.at_least(42) {
        body.console_size = None;
    }
    let id = request.engine.exec_create(id, body).await?;
    respond::created(&IdResponse { id })
}

pub(crate) async fn start(mut request: Request, id: &str) -> Answer {
    let mut body: ExecStartRequest = request.json().await?;
    if !request.at_least(42) || !body.tty {
        body.console_size = None;
    }
    let engine = Arc::clone(&request.engine);
    if body.detach {
        engine.exec_start(id, body).await?;
        return respond::status(StatusCode::OK);
    }
    engine.exec_inspect(id)?;
    // As with dockerd the head goes first, and what fails after it is told in the stream; the
    // request decides about frames, not the exec.
    let (id, tty) = (id.to_owned(), body.tty);
    hijack(request, tty, move |reader, mut writer| async move {
        match engine.exec_start(&id, body).await {
            Ok(ExecStarted::Attached(mut attachment)) => {
                attachment.tty = tty;
                attachment.run(reader, writer).await;
            }
            Ok(ExecStarted::Detached) => {}
            Err(error) => {
                tracing::debug!(error = error.chain(), "exec refused");
                let mut text = format!("{}\r\n", error.message()).into_bytes();
                if !tty {
                    let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
                    text.splice(0..0, [1, 0, 0, 0].into_iter().chain(length));
                }
                // A client that has gone does not read it.
                drop(writer.write_all(&text).await);
                drop(writer.shutdown().await);
            }
        }
    })
}

pub(crate) fn inspect(request: Request, id: &str) -> Answer {
    respond::json(&request.engine.exec_inspect(id)?)
}

pub(crate) async fn resize(request: Request, id: &str) -> Answer {
    let (height, width) = window(&request)?;
    request.engine.exec_resize(id, height, width).await?;
    respond::status(StatusCode::OK)
}

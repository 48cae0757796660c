//! Processes that are started in a running container.

use hyper::StatusCode;
use silo_docker::IdResponse;
use silo_docker::exec::{ExecCreateRequest, ExecStartRequest};
use silo_engine::containers::ExecStarted;
use silo_types::Error;

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
    match request.engine.exec_start(id, body).await? {
        ExecStarted::Detached => respond::status(StatusCode::OK),
        ExecStarted::Attached(attachment) => hijack(request, attachment),
    }
}

pub(crate) async fn inspect(request: Request, id: &str) -> Answer {
    respond::json(&request.engine.exec_inspect(id)?)
}

pub(crate) async fn resize(request: Request, id: &str) -> Answer {
    let (height, width) = window(&request)?;
    request.engine.exec_resize(id, height, width).await?;
    respond::status(StatusCode::OK)
}

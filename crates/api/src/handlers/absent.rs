//! Parts of Docker's API that Silo does not have: they answer as dockerd does where the part is
//! switched off, so that clients fall back or explain themselves.

use serde_json::json;
use silo_oci::reference::Reference;
use silo_types::{Error, ErrorKind};

use crate::body::Body;
use crate::request::Request;
use crate::respond::{self, Answer};
use silo_docker::stream::StreamMessage;

/// Swarm is off.
pub(crate) fn swarm(segments: &[&str]) -> Error {
    let message = match segments {
        ["swarm", "leave"] => "This node is not part of a swarm",
        ["swarm", "init" | "join"] => {
            return Error::new(ErrorKind::NotImplemented, "swarm mode is not supported by Silo");
        }
        _ => {
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" \
             to connect this node to swarm and try again."
        }
    };
    Error::new(ErrorKind::Unavailable, message)
}

/// Volumes that are updated are swarm's.
pub(crate) fn volume_update() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "volume update only valid for cluster volumes, but swarm is unavailable",
    )
}

/// There are no plugins.
pub(crate) fn plugin_list() -> Answer {
    respond::json(&json!([]))
}

/// There are no plugins.
pub(crate) fn plugin(segments: &[&str]) -> Error {
    match segments {
        ["plugins", "pull" | "create" | "privileges", ..] => {
            Error::new(ErrorKind::NotImplemented, "plugins are not supported by Silo")
        }
        ["plugins", name @ .., _] if !name.is_empty() => {
            Error::not_found(format!("plugin {:?} not found", name.join("/")))
        }
        ["plugins", name] => Error::not_found(format!("plugin {name:?} not found")),
        _ => Error::not_found("page not found"),
    }
}

/// Checkpoints are dockerd's experiment.
pub(crate) fn checkpoints() -> Error {
    Error::new(
        ErrorKind::NotImplemented,
        "This experimental feature is disabled by default. Start the Docker daemon in \
         experimental mode in order to enable it.",
    )
}

fn no_registry(action: &str, name: &str) -> Error {
    Error::new(
        ErrorKind::NotImplemented,
        format!("{action} {name}: registries are not supported by this version of Silo"),
    )
}

/// No registry client.
pub(crate) fn auth() -> Answer {
    Err(no_registry("login", "to registry"))
}

/// No registry client.
pub(crate) fn distribution(name: &str) -> Answer {
    let reference = Reference::parse_normalized(name).map_err(Error::from_kind)?;
    Err(no_registry("inspect", &reference.familiar()))
}

/// No registry client.
pub(crate) fn search() -> Error {
    no_registry("search", "Docker Hub")
}

/// No registry client; the failure of a pull is a status as with dockerd.
pub(crate) fn pull(image: &str, tag: &str) -> Answer {
    // "pull -a" may send a trailing colon.
    let name = image.strip_suffix(':').unwrap_or(image);
    let mut reference = Reference::parse(name).map_err(Error::from_kind)?;
    if !tag.is_empty() {
        reference = match tag.parse() {
            Ok(digest) => reference.with_digest(digest),
            Err(_) => reference.with_tag(tag).map_err(Error::from_kind)?,
        };
    } else if reference.is_name_only() {
        reference = Reference::parse_normalized(name).map_err(Error::from_kind)?;
    }
    if reference.familiar_name() == "scratch" {
        return Err(Error::new(ErrorKind::Forbidden, "'scratch' is a reserved name"));
    }
    Err(no_registry("pull", &reference.familiar()))
}

/// No registry client; the failure of a push is inside the stream as with dockerd.
pub(crate) fn push(request: &Request, name: &str) -> Answer {
    let mut reference = Reference::parse(name).map_err(Error::from_kind)?;
    let tag = request.query.get("tag");
    if !tag.is_empty() {
        reference = reference.with_tag(tag).map_err(Error::from_kind)?;
    }
    let message = match request.engine.image_inspect(&reference.familiar()) {
        Ok(_) => no_registry("push", &reference.familiar()).message().to_owned(),
        Err(_) => {
            format!("An image does not exist locally with the tag: {}", reference.familiar_name())
        }
    };
    let status =
        StreamMessage::status(format!("The push refers to repository [{}]", reference.name()));
    let mut lines = respond::line(&status)?.to_vec();
    lines.extend_from_slice(&respond::line(&StreamMessage::failure(message))?);
    Ok(respond::content("application/json", Body::full(lines)))
}

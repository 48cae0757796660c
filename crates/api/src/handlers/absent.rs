//! Parts of Docker's API that Silo does not have: they answer as dockerd does where the part is
//! switched off, so that clients fall back or explain themselves.

use serde_json::json;
use silo_types::{Error, ErrorKind};

use crate::respond::{self, Answer};

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

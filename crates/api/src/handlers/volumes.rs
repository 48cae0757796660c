//! `/volumes`.

use silo_docker::volumes::{VolumeCreateRequest, VolumeListResponse};
use silo_types::Error;

use crate::request::Request;
use crate::respond::{self, Answer};

pub(crate) fn list(request: Request) -> Answer {
    let filters = request.query.filters().map_err(|error| {
        Error::invalid(format!("error reading volume filters: {}", error.message()))
    })?;
    let volumes = request.engine.volume_list(&filters)?;
    respond::json(&VolumeListResponse { volumes, ..VolumeListResponse::default() })
}

pub(crate) fn inspect(request: Request, name: &str) -> Answer {
    respond::json(&request.engine.volume_inspect(name)?)
}

pub(crate) async fn create(mut request: Request) -> Answer {
    let body: VolumeCreateRequest = request.json().await?;
    if request.at_least(42) && body.cluster_volume_spec.is_some() {
        return Err(super::absent::swarm(&["volumes", "create"]));
    }
    respond::created(&request.engine.volume_create(body)?)
}

pub(crate) async fn remove(request: Request, name: &str) -> Answer {
    request.engine.volume_remove(name, request.query.flag("force")).await?;
    respond::no_content()
}

pub(crate) async fn prune(request: Request) -> Answer {
    let mut filters = request.query.filters()?;
    if !request.at_least(42) {
        // Before 1.42 pruning took named volumes, too.
        filters.add("all", "true");
    }
    respond::json(&request.engine.volume_prune(&filters).await?)
}

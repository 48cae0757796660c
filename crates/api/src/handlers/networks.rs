//! `/networks`.

use silo_docker::networks::{
    NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
};
use silo_types::Error;

use crate::compat;
use crate::request::Request;
use crate::respond::{self, Answer};

pub(crate) fn list(request: Request) -> Answer {
    let networks = request.engine.network_list(&request.query.filters()?)?;
    let list: Vec<_> = networks
        .iter()
        .map(|network| compat::network(network, true, request.version))
        .collect::<Result<_, Error>>()?;
    respond::json(&list)
}

pub(crate) fn inspect(request: Request, id: &str) -> Answer {
    let verbose = request.query.get("verbose");
    if !matches!(verbose, "" | "0" | "1" | "t" | "f" | "true" | "false" | "True" | "False") {
        return Err(Error::invalid(format!(
            "invalid value for verbose: {verbose}: strconv.ParseBool: parsing {verbose:?}: \
             invalid syntax"
        )));
    }
    let network = request.engine.network_inspect(id, request.query.get("scope"))?;
    respond::json(&compat::network(&network, false, request.version)?)
}

pub(crate) async fn create(mut request: Request) -> Answer {
    let body: NetworkCreateRequest = request.json().await?;
    respond::created(&request.engine.network_create(&body)?)
}

pub(crate) fn remove(request: Request, id: &str) -> Answer {
    request.engine.network_remove(id)?;
    respond::no_content()
}

pub(crate) async fn connect(mut request: Request, id: &str) -> Answer {
    let mut body: NetworkConnectRequest = request.json().await?;
    if !request.at_least(54)
        && let Some(endpoint) = &mut body.endpoint_config
    {
        // The field was there since 1.44 but had no effect.
        endpoint.mac_address.clear();
    }
    request.engine.network_connect(id, &body)?;
    respond::status(hyper::StatusCode::OK)
}

pub(crate) async fn disconnect(mut request: Request, id: &str) -> Answer {
    let body: NetworkDisconnectRequest = request.json().await?;
    request.engine.network_disconnect(id, &body)?;
    respond::status(hyper::StatusCode::OK)
}

pub(crate) fn prune(request: Request) -> Answer {
    respond::json(&request.engine.network_prune(&request.query.filters()?)?)
}

//! Which handler answers which method and path.

use hyper::Method;
use silo_types::Error;

use crate::handlers::{
    absent, archive, attach, build, buildkit, containers, exec, images, networks, registry, system,
    volumes, windows,
};
use crate::request::Request;
use crate::respond::Answer;

/// Calls the handler of a path without its version prefix.
pub(crate) async fn route(method: &Method, segments: &[String], request: Request) -> Answer {
    let mut segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    // dockerd redirects to the path without empty segments, which makes only sense for reads.
    if segments.iter().any(|segment| segment.is_empty()) {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(not_found());
        }
        segments.retain(|segment| !segment.is_empty());
    }
    match method.as_str() {
        "GET" => get(&segments, request).await,
        "HEAD" => head(&segments, request).await,
        "POST" => post(&segments, request).await,
        "PUT" => put(&segments, request).await,
        "DELETE" => delete(&segments, request).await,
        "OPTIONS" => crate::respond::status(hyper::StatusCode::OK),
        _ => Err(not_found()),
    }
}

fn not_found() -> Error {
    Error::not_found("page not found")
}

/// Routes that came with a later version do not exist for older clients.
fn since(request: &Request, minor: u32) -> Result<(), Error> {
    if request.at_least(minor) { Ok(()) } else { Err(not_found()) }
}

async fn get(segments: &[&str], request: Request) -> Answer {
    match segments {
        ["_ping"] => system::ping(),
        ["info"] => system::info(request),
        ["version"] => system::version(request),
        ["events"] => system::events(request),
        ["system", "df"] => system::disk_usage(request).await,

        ["containers", "json"] => containers::list(request).await,
        ["containers", id, "json"] => containers::inspect(request, id).await,
        ["containers", id, "logs"] => attach::logs(request, id).await,
        ["containers", id, "stats"] => containers::stats(request, id).await,
        ["containers", id, "top"] => containers::top(request, id).await,
        ["containers", id, "changes"] => containers::changes(request, id).await,
        ["containers", id, "export"] => archive::export(request, id).await,
        ["containers", id, "archive"] => archive::get(request, id).await,
        ["containers", id, "attach", "ws"] => attach::websocket(request, id).await,
        ["containers", _, "checkpoints"] => Err(absent::checkpoints()),
        ["exec", id, "json"] => exec::inspect(request, id),

        ["images", "json"] => images::list(request),
        ["images", "search"] => registry::search(request).await,
        ["images", "get"] => images::save_many(request),
        ["images", name @ .., "get"] if !name.is_empty() => images::save(request, name.join("/")),
        ["images", name @ .., "history"] if !name.is_empty() => {
            images::history(request, &name.join("/"))
        }
        ["images", name @ .., "json"] if !name.is_empty() => {
            images::inspect(request, &name.join("/"))
        }
        ["images", name @ .., "attestations"] if !name.is_empty() => {
            since(&request, 55)?;
            images::attestations(request, &name.join("/"))
        }
        ["distribution", name @ .., "json"] if !name.is_empty() => {
            since(&request, 30)?;
            registry::distribution(request, &name.join("/")).await
        }

        ["volumes"] => volumes::list(request),
        ["volumes", name] => volumes::inspect(request, name),
        ["networks"] => networks::list(request),
        ["networks", id] => networks::inspect(request, id),

        ["silo", "builder", "cache"] => build::export_cache(request).await,
        ["silo", "windows", "check"] => windows::check(request).await,

        ["plugins"] => absent::plugin_list(),
        ["plugins", ..] => Err(absent::plugin(segments)),
        ["swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs", ..] => {
            Err(absent::swarm(segments))
        }
        _ => Err(not_found()),
    }
}

async fn head(segments: &[&str], request: Request) -> Answer {
    match segments {
        ["_ping"] => system::ping(),
        ["containers", id, "archive"] => archive::head(request, id).await,
        _ => Err(not_found()),
    }
}

async fn post(segments: &[&str], request: Request) -> Answer {
    match segments {
        ["auth"] => registry::auth(request).await,
        ["build"] => build::build(request).await,
        ["build", "prune"] => {
            since(&request, 31)?;
            build::prune(request).await
        }
        ["build", "cancel"] => {
            since(&request, 39)?;
            build::cancel(&request)
        }
        ["session"] => buildkit::session(request),
        ["grpc"] => buildkit::grpc(request),
        ["commit"] => images::commit(request).await,

        ["containers", "create"] => containers::create(request).await,
        ["containers", "prune"] => {
            since(&request, 25)?;
            containers::prune(request).await
        }
        ["containers", id, "start"] => containers::start(request, id).await,
        ["containers", id, "stop"] => containers::stop(request, id).await,
        ["containers", id, "restart"] => containers::restart(request, id).await,
        ["containers", id, "kill"] => containers::kill(request, id).await,
        ["containers", id, "pause"] => containers::pause(request, id).await,
        ["containers", id, "unpause"] => containers::unpause(request, id).await,
        ["containers", id, "rename"] => containers::rename(request, id).await,
        ["containers", id, "update"] => containers::update(request, id).await,
        ["containers", id, "wait"] => containers::wait(request, id).await,
        ["containers", id, "resize"] => containers::resize(request, id).await,
        ["containers", id, "attach"] => attach::attach(request, id).await,
        ["containers", id, "exec"] => exec::create(request, id).await,
        ["containers", _, "checkpoints"] => Err(absent::checkpoints()),
        ["exec", id, "start"] => exec::start(request, id).await,
        ["exec", id, "resize"] => exec::resize(request, id).await,

        ["images", "load"] => images::load(request),
        ["images", "create"] => images::create(request).await,
        ["images", "prune"] => {
            since(&request, 25)?;
            images::prune(request).await
        }
        ["images", name @ .., "push"] if !name.is_empty() => {
            registry::push(request, &name.join("/"))
        }
        ["images", name @ .., "tag"] if !name.is_empty() => images::tag(request, &name.join("/")),

        ["volumes", "create"] => volumes::create(request).await,
        ["volumes", "prune"] => {
            since(&request, 25)?;
            volumes::prune(request).await
        }
        ["networks", "create"] => networks::create(request).await,
        ["networks", "prune"] => {
            since(&request, 25)?;
            networks::prune(request)
        }
        ["networks", id, "connect"] => networks::connect(request, id).await,
        ["networks", id, "disconnect"] => networks::disconnect(request, id).await,

        ["silo", "builder", "cache"] => build::import_cache(request).await,
        ["silo", "windows", "libraries"] => windows::libraries(request).await,

        ["plugins", ..] => Err(absent::plugin(segments)),
        ["swarm" | "nodes" | "services" | "secrets" | "configs", ..] => {
            Err(absent::swarm(segments))
        }
        _ => Err(not_found()),
    }
}

async fn put(segments: &[&str], request: Request) -> Answer {
    match segments {
        ["containers", id, "archive"] => archive::put(request, id).await,
        ["volumes", _] => {
            since(&request, 42)?;
            Err(absent::volume_update())
        }
        _ => Err(not_found()),
    }
}

async fn delete(segments: &[&str], request: Request) -> Answer {
    match segments {
        ["containers", _, "checkpoints", _] => Err(absent::checkpoints()),
        // A link is named `/container/alias`.
        ["containers", id @ ..] if !id.is_empty() => {
            containers::remove(request, &id.join("/")).await
        }
        ["images", name @ ..] if !name.is_empty() => images::remove(request, &name.join("/")).await,
        ["volumes", name] => volumes::remove(request, name).await,
        ["networks", id] => networks::remove(request, id),
        ["plugins", ..] => Err(absent::plugin(segments)),
        ["nodes" | "services" | "secrets" | "configs", ..] => Err(absent::swarm(segments)),
        _ => Err(not_found()),
    }
}

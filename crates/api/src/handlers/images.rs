//! `/images` and `/commit`.

use hyper::StatusCode;
use silo_docker::IdResponse;
use silo_docker::containers::Config;
use silo_docker::query::{CommitQuery, ImageListQuery, ImageRemoveQuery, ImportQuery};
use silo_docker::stream::StreamMessage;
use silo_oci::platform::Platform;
use silo_types::Error;
use tokio::sync::mpsc;

use super::stream::{BodyReader, ChannelWriter};
use crate::body::Body;
use crate::compat;
use crate::request::Request;
use crate::respond::{self, Answer};

pub(crate) fn list(request: Request) -> Answer {
    let mut filters = request.query.filters()?;
    let pattern = request.query.get("filter");
    if !request.at_least(25) && !pattern.is_empty() && !filters.contains("reference") {
        filters.add("reference", pattern);
    }
    let query = ImageListQuery {
        all: request.query.flag("all"),
        shared_size: request.at_least(42) && request.query.flag("shared-size"),
        containers: request.at_least(51),
        manifests: request.at_least(47) && request.query.flag("manifests"),
        filters,
    };
    let images = request.engine.image_list(&query)?;
    respond::json(&compat::image_list(&images, request.version)?)
}

pub(crate) fn inspect(request: Request, name: &str) -> Answer {
    let manifests = request.at_least(48) && request.query.flag("manifests");
    let platform = platform(&request, 49)?;
    if manifests && platform.is_some() {
        return Err(Error::invalid(
            "conflicting options: manifests and platform options cannot both be set",
        ));
    }
    let image = request.engine.image_inspect(name, platform.as_ref(), manifests)?;
    respond::json(&compat::image(&image, request.version)?)
}

pub(crate) fn history(request: Request, name: &str) -> Answer {
    let platform = platform(&request, 48)?;
    respond::json(&request.engine.image_history(name, platform.as_ref())?)
}

/// One platform of a request, in JSON, as of some version of the API.
pub(super) fn platform(request: &Request, since: u32) -> Result<Option<Platform>, Error> {
    match request.query.get("platform") {
        text if !text.is_empty() && request.at_least(since) => decode(text).map(Some),
        _ => Ok(None),
    }
}

/// Reads a platform as an OCI document has it.
fn decode(text: &str) -> Result<Platform, Error> {
    let mut platform: Platform = serde_json::from_str(text)
        .map_err(|error| Error::invalid(format!("failed to parse platform: {error}")))?;
    // moby wording
    if platform.os.is_empty() && platform.architecture.is_empty() && !platform.variant.is_empty() {
        return Err(Error::invalid(
            "optional platform fields provided, but OS and Architecture are missing",
        ));
    }
    if platform.os.is_empty() || platform.architecture.is_empty() {
        return Err(Error::invalid("both OS and Architecture must be provided"));
    }
    platform.normalize();
    Ok(platform)
}

/// Attestations of indexes are not fetched.
pub(crate) fn attestations(request: Request, name: &str) -> Answer {
    request.engine.image(name)?;
    respond::json(&serde_json::json!([]))
}

pub(crate) fn tag(request: Request, name: &str) -> Answer {
    let (repo, tag) = (request.query.get("repo"), request.query.get("tag"));
    request.engine.image_tag(name, repo, tag)?;
    respond::status(StatusCode::CREATED)
}

pub(crate) async fn remove(request: Request, name: &str) -> Answer {
    if name.trim().is_empty() {
        return Err(Error::invalid("image name cannot be blank"));
    }
    let query = ImageRemoveQuery {
        force: request.query.flag("force"),
        no_prune: request.query.flag("noprune"),
    };
    let mut platforms = Vec::new();
    if request.at_least(50) {
        for text in request.query.all("platforms") {
            platforms.push(decode(text)?);
        }
    }
    respond::json(&request.engine.image_remove(name, query, &platforms).await?)
}

pub(crate) async fn prune(request: Request) -> Answer {
    respond::json(&request.engine.image_prune(&request.query.filters()?).await?)
}

pub(crate) fn save(request: Request, name: String) -> Answer {
    save_names(request, vec![name])
}

pub(crate) fn save_many(request: Request) -> Answer {
    let names = request.query.all("names").map(str::to_owned).collect();
    save_names(request, names)
}

/// The platforms of a request to save or load.
fn several(request: &Request) -> Result<Vec<Platform>, Error> {
    if !request.at_least(48) {
        return Ok(Vec::new());
    }
    let texts: Vec<&str> = request.query.all("platform").filter(|text| !text.is_empty()).collect();
    if texts.len() > 1 && !request.at_least(52) {
        // moby wording
        return Err(Error::invalid(
            "multiple platform parameters are not supported in this API version; use API version \
             1.52 or later",
        ));
    }
    texts.into_iter().map(decode).collect()
}

fn save_names(request: Request, names: Vec<String>) -> Answer {
    // Names are resolved before the head goes out, so that a wrong one is a proper error.
    let platforms = several(&request)?;
    let images = request.engine.image_save_resolve(&names, &platforms)?;
    let (sender, receiver) = mpsc::channel(4);
    let engine = request.engine;
    tokio::task::spawn_blocking(move || {
        let mut writer = ChannelWriter::new(sender);
        if let Err(error) = engine.image_save(images, &mut writer) {
            tracing::warn!(error = error.chain(), "save images");
            writer.fail(&error);
        } else {
            writer.finish();
        }
    });
    Ok(respond::content("application/x-tar", Body::channel(receiver)))
}

/// A sink of progress lines, and the body that they make.
///
/// The sink tells whether the client is still there.
fn progress() -> (impl Fn(StreamMessage) -> bool + Clone + Send + 'static, Body) {
    let (sender, body) = progress_channel();
    (move |message| sender.send(message).is_ok(), body)
}

/// Where progress lines go, and the body that they make. It ends with the last sender.
pub(super) fn progress_channel() -> (mpsc::UnboundedSender<StreamMessage>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel::<StreamMessage>();
    let lines = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let message = receiver.recv().await?;
        let line = respond::line(&message).map_err(|error| std::io::Error::other(error.chain()));
        Some((line, receiver))
    });
    (sender, Body::stream(lines))
}

pub(crate) fn load(request: Request) -> Answer {
    let platforms = several(&request)?;
    let quiet = request.query.flag_or("quiet", true);
    // A client that has gone does not stop the work.
    let (sink, body) = progress();
    let reader = BodyReader::new(request.body);
    let engine = request.engine;
    tokio::spawn(async move {
        let (lines, mut receiver) = mpsc::unbounded_channel();
        let sending = move |message| drop(lines.send(message));
        let loading = engine.image_load(reader, quiet, &platforms, sending);
        tokio::pin!(loading);
        let result = loop {
            tokio::select! {
                biased;
                Some(message) = receiver.recv() => drop(sink(message)),
                result = &mut loading => break result,
            }
        };
        while let Ok(message) = receiver.try_recv() {
            sink(message);
        }
        if let Err(error) = result {
            sink(StreamMessage::failure(error.message()));
        }
    });
    Ok(respond::content("application/json", body))
}

pub(crate) async fn create(request: Request) -> Answer {
    let from = request.query.get("fromImage");
    if !from.is_empty() {
        let from = from.to_owned();
        return super::registry::pull(request, &from).await;
    }
    let source = request.query.get("fromSrc").to_owned();
    let message = match request.query.get("message") {
        "" => format!("Imported from {source}"),
        message => message.to_owned(),
    };
    let query = ImportQuery {
        repo: request.query.get("repo").to_owned(),
        tag: request.query.get("tag").to_owned(),
        message,
        platform: request.query.get("platform").to_owned(),
        changes: request.query.all("changes").map(str::to_owned).collect(),
    };
    if source == "-" {
        let id = request.engine.image_import(query, BodyReader::new(request.body)).await?;
        let line = respond::line(&StreamMessage::status(id))?;
        return Ok(respond::content("application/json", Body::full(line)));
    }
    let archive = request.engine.image_import_fetch(&query, &source).await?;
    let (sink, body) = progress();
    sink(StreamMessage::status(format!("Downloading from {}", archive.url())));
    let reader = archive.into_reader(sink.clone());
    tokio::spawn(async move {
        let message = match request.engine.image_import(query, reader).await {
            Ok(id) => StreamMessage::status(id),
            Err(error) => StreamMessage::failure(error.message()),
        };
        sink(message);
    });
    Ok(respond::content("application/json", body))
}

pub(crate) async fn commit(mut request: Request) -> Answer {
    let config: Option<Config> = request.json_if_any().await?;
    let query = CommitQuery {
        container: request.query.get("container").to_owned(),
        repo: request.query.get("repo").to_owned(),
        tag: request.query.get("tag").to_owned(),
        comment: request.query.get("comment").to_owned(),
        author: request.query.get("author").to_owned(),
        pause: request.query.flag_or("pause", true),
        changes: request.query.all("changes").map(str::to_owned).collect(),
    };
    let id = request.engine.commit(query, config).await?;
    respond::created(&IdResponse { id })
}

//! `inspect` of every kind of object.

use silo_client::{Client, ClientError};

use crate::command::Invocation;
use crate::context::warn;
use crate::failure::{Failure, Outcome};
use crate::flags::flags;
use crate::format;
use crate::value::{Value, indent_json};

flags! {
    /// Flags of `container inspect`.
    ContainerFlags {
        format: String, ['f'] "format", "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.";
        size: bool, ['s'] "size", "Display total file sizes";
    }
}

flags! {
    /// Flags of `image inspect` and `volume inspect`.
    ObjectFlags {
        format: String, ['f'] "format", "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.";
        platform: Option<String>, "platform", "Inspect a specific platform of the multi-platform image";
    }
}

flags! {
    /// Flags of `network inspect`.
    NetworkFlags {
        format: String, ['f'] "format", "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.";
        verbose: bool, ['v'] "verbose", "Verbose output for diagnostics";
    }
}

flags! {
    /// Flags of `inspect`.
    AnyFlags {
        format: String, ['f'] "format", "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.";
        size: bool, ['s'] "size", "Display total file sizes if the type is container";
        kind: Option<String>, "type", "Only inspect objects of the given type";
    }
}

/// One way to look for an object: the kind's name, and the path before and after its name.
struct Place {
    kind: &'static str,
    prefix: &'static str,
    suffix: &'static str,
}

const PLACES: [Place; 4] = [
    Place { kind: "container", prefix: "/containers/", suffix: "/json" },
    Place { kind: "image", prefix: "/images/", suffix: "/json" },
    Place { kind: "network", prefix: "/networks/", suffix: "" },
    Place { kind: "volume", prefix: "/volumes/", suffix: "" },
];

/// Kinds that Docker knows and an engine without swarm mode does not have.
const OTHERS: [&str; 7] = ["config", "node", "plugin", "secret", "service", "task", "context"];

/// `container inspect`
pub(crate) async fn containers(invocation: Invocation) -> Outcome {
    let (flags, names) = invocation.parse::<ContainerFlags>()?;
    inspect(&invocation, &names, &flags.format, &PLACES[0..1], flags.size).await
}

/// `image inspect`
pub(crate) async fn images(invocation: Invocation) -> Outcome {
    let (flags, names) = invocation.parse::<ObjectFlags>()?;
    let platform = flags.platform.as_deref().map(super::image::platform_json);
    let places = [&PLACES[1]];
    run(&invocation, &names, &flags.format, &places, false, false, platform.as_deref()).await
}

/// `network inspect`
pub(crate) async fn networks(invocation: Invocation) -> Outcome {
    let (flags, names) = invocation.parse::<NetworkFlags>()?;
    inspect(&invocation, &names, &flags.format, &PLACES[2..3], false).await
}

/// `volume inspect`
pub(crate) async fn volumes(invocation: Invocation) -> Outcome {
    let (flags, names) = invocation.parse::<ObjectFlags>()?;
    inspect(&invocation, &names, &flags.format, &PLACES[3..4], false).await
}

/// `inspect`
pub(crate) async fn any(invocation: Invocation) -> Outcome {
    let (flags, names) = invocation.parse::<AnyFlags>()?;
    let places: Vec<&Place> = match flags.kind.as_deref() {
        None => PLACES.iter().collect(),
        Some("") => {
            return Err(Failure::new(
                "type is empty: must be one of \"config\", \
            \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \
            \"task\", \"volume\"",
            ));
        }
        Some(kind) if OTHERS.contains(&kind) => Vec::new(),
        Some(kind) => match PLACES.iter().find(|place| place.kind == kind) {
            Some(place) => vec![place],
            None => {
                return Err(Failure::new(format!(
                    "unknown type: {kind:?}: must be one of \"config\", \"container\", \
                     \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \
                     \"task\", \"volume\""
                )));
            }
        },
    };
    let several = places.len() != 1;
    run(&invocation, &names, &flags.format, &places, flags.size, several, None).await
}

async fn inspect(
    invocation: &Invocation,
    names: &[String],
    format: &str,
    places: &[Place],
    size: bool,
) -> Outcome {
    run(invocation, names, format, &places.iter().collect::<Vec<_>>(), size, false, None).await
}

async fn run(
    invocation: &Invocation,
    names: &[String],
    format: &str,
    places: &[&Place],
    size: bool,
    several: bool,
    platform: Option<&str>,
) -> Outcome {
    if !format.is_empty() && format != "json" {
        // A bad template is known before any request.
        crate::template::Template::parse(format)
            .map_err(|error| Failure::new(format!("template parsing error: {error}")))?;
    }
    let client = invocation.cli.client().await?;
    let mut found: Vec<Vec<u8>> = Vec::new();
    let mut problems = Vec::new();
    for name in names {
        match find(&client, name, places, size, platform).await {
            Ok(Some(json)) => found.push(json),
            Ok(None) if several => problems.push(format!("Error: No such object: {name}")),
            Ok(None) => problems.push(format!("Error: No such {}: {name}", "object")),
            Err(error) => problems.push(Failure::from(error).message),
        }
    }
    let mut shown = Ok(());
    if format.is_empty() || format == "json" {
        let texts: Vec<String> =
            found.iter().map(|json| String::from_utf8_lossy(json).trim().to_owned()).collect();
        let joined = format!("[{}]", texts.join(","));
        let text = if format == "json" { joined } else { indent_json(&joined, "", "    ") };
        invocation.cli.line(&text)?;
    } else {
        for json in &found {
            let value = Value::parse(json).map_err(|error| Failure::new(error.to_string()))?;
            match format::object(&value, format) {
                Ok(text) => invocation.cli.line(&text)?,
                Err(failure) => {
                    // Docker ends the line that the template began.
                    invocation.cli.line("")?;
                    shown = Err(failure);
                    break;
                }
            }
        }
        if found.is_empty() {
            invocation.cli.line("")?;
        }
    }
    for problem in &problems {
        warn(problem);
    }
    shown?;
    if problems.is_empty() { Ok(()) } else { Err(Failure::code(1)) }
}

/// The raw JSON of the first object of that name. With one place the engine's own error counts;
/// with several only the absence everywhere does.
async fn find(
    client: &Client,
    name: &str,
    places: &[&Place],
    size: bool,
    platform: Option<&str>,
) -> Result<Option<Vec<u8>>, ClientError> {
    for place in places {
        let request = client
            .get(format!("{}{name}{}", place.prefix, place.suffix))
            .query_if("size", size && place.kind == "container")
            .query_some("platform", platform);
        match request.send().await {
            Ok(answer) => return Ok(Some(answer.bytes().await?.to_vec())),
            Err(error) if places.len() > 1 && error.status() == Some(404) => {}
            // A name that no object of this kind can have.
            Err(error) if places.len() > 1 && error.status() == Some(400) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

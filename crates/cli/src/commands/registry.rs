//! Images from and to registries. The engine decides; its answer is shown.

use std::collections::BTreeSet;

use silo_client::Client;
use silo_oci::reference::Reference;

use crate::command::Invocation;
use crate::context::Cli;
use crate::failure::{Failure, Outcome};
use crate::flags::flags;
use crate::progress::{Sink, show};
use crate::value::Value;

flags! {
    /// Flags of `pull`.
    PullFlags {
        all_tags: bool, ['a'] "all-tags", "Download all tagged images in the repository";
        base: Option<String>, "base", "What to put beneath images with Microsoft's base layers (\"silo\", \"exact\") (default \"silo\")";
        disable_content_trust: Option<bool>, "disable-content-trust", "";
        platform: Option<String>, "platform", "Set platform if server is multi-platform capable";
        quiet: bool, ['q'] "quiet", "Suppress verbose output";
    }
}

flags! {
    /// Flags of `push`.
    PushFlags {
        all_tags: bool, ['a'] "all-tags", "Push all tags of an image to the repository";
        disable_content_trust: Option<bool>, "disable-content-trust", "";
        platform: Option<String>, "platform", "Push a platform-specific manifest as a single-platform image to the registry.";
        quiet: bool, ['q'] "quiet", "Suppress verbose output";
    }
}

/// Pulls an image for `run` and `create`.
pub(super) async fn pull_for_run(
    cli: &Cli,
    client: &Client,
    image: &str,
    platform: Option<&str>,
    base: Option<&str>,
    quiet: bool,
) -> Outcome {
    let reference =
        Reference::parse_normalized(image).map_err(|error| Failure::new(error.to_string()))?;
    let sink = if quiet { Sink::Nothing } else { Sink::Stderr };
    fetch(cli, client, &reference, platform, base, sink).await
}

async fn fetch(
    cli: &Cli,
    client: &Client,
    reference: &Reference,
    platform: Option<&str>,
    base: Option<&str>,
    sink: Sink,
) -> Outcome {
    let digest = reference.digest().map(ToString::to_string);
    let tag = digest.as_deref().or(reference.tag());
    let mut request = client
        .post("/images/create")
        .query("fromImage", reference.name())
        .query_some("tag", tag)
        .query_some("platform", platform.map(str::to_lowercase))
        .query_some("base", base);
    let auth = cli.config().registry_auth(reference.domain())?;
    if !auth.is_empty() {
        request = request.header("x-registry-auth", &auth);
    }
    show(request.send().await?, sink).await
}

/// `pull`
pub(crate) async fn pull(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<PullFlags>()?;
    let mut reference =
        Reference::parse(&words[0]).map_err(|error| Failure::new(error.to_string()))?;
    if flags.all_tags && !reference.is_name_only() {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    if !flags.all_tags && reference.is_name_only() {
        if !flags.quiet {
            invocation.cli.line("Using default tag: latest")?;
        }
        reference = reference.with_tag("latest").map_err(|error| error.to_string())?;
    }
    let client = invocation.cli.client().await?;
    let sink = if flags.quiet { Sink::Nothing } else { Sink::Stdout };
    fetch(
        &invocation.cli,
        &client,
        &reference,
        flags.platform.as_deref(),
        flags.base.as_deref(),
        sink,
    )
    .await?;
    invocation.cli.line(&reference.to_string())
}

/// Credentials for the registries that have base layers which are not here: the target may need
/// them. Empty when there are none.
async fn sources(cli: &Cli, client: &Client, reference: &Reference) -> Outcome<String> {
    let mut names = vec![reference.to_string()];
    if reference.is_name_only() {
        let filter = serde_json::json!({ "reference": [reference.name()] }).to_string();
        let images: Value = client.get("/images/json").query("filters", filter).receive().await?;
        let tags = images.list().iter().flat_map(|image| image.get("RepoTags").list());
        names = tags.map(|tag| tag.str().to_owned()).collect();
    }
    let mut domains = BTreeSet::new();
    for name in names {
        // Of what is not there, the push tells.
        let image = client.get(format!("/images/{name}/json")).receive::<Value>().await;
        let image = image.unwrap_or_default();
        let found = image.path(&["StandIn", "FoundIn"]).list().iter();
        domains.extend(found.filter_map(|name| Some(name.str().split_once('/')?.0.to_owned())));
    }
    domains.remove(reference.domain());
    cli.config().registry_config(domains.iter().map(String::as_str))
}

/// `push`
pub(crate) async fn push(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<PushFlags>()?;
    let mut reference =
        Reference::parse(&words[0]).map_err(|error| Failure::new(error.to_string()))?;
    if flags.all_tags && !reference.is_name_only() {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    if !flags.all_tags && reference.is_name_only() {
        invocation.cli.line("Using default tag: latest")?;
        reference = reference.with_tag("latest").map_err(|error| error.to_string())?;
    }
    let client = invocation.cli.client().await?;
    let auth = invocation.cli.config().registry_auth(reference.domain())?;
    let auth = if auth.is_empty() { "e30=".to_owned() } else { auth };
    let platform = flags.platform.as_deref().map(super::image::platform_json);
    let sources = sources(&invocation.cli, &client, &reference).await?;
    let mut request = client
        .post(format!("/images/{}/push", reference.name()))
        .query_some("platform", platform)
        .query("tag", reference.tag().unwrap_or_default())
        .header("x-registry-auth", &auth);
    if !sources.is_empty() {
        request = request.header("x-registry-config", &sources);
    }
    let answer = request.send().await?;
    show(answer, if flags.quiet { Sink::Nothing } else { Sink::Stdout }).await
}

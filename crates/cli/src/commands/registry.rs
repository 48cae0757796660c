//! Images from and to registries. The engine decides; its answer is shown.

use silo_client::Client;
use silo_oci::reference::Reference;

use crate::command::Invocation;
use crate::context::Cli;
use crate::failure::{Failure, Outcome};
use crate::flags::flags;
use crate::progress::{Sink, show};

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
    let answer = client
        .post(format!("/images/{}/push", reference.name()))
        .query_some("platform", platform)
        .query("tag", reference.tag().unwrap_or_default())
        .header("x-registry-auth", &auth)
        .send()
        .await?;
    show(answer, if flags.quiet { Sink::Nothing } else { Sink::Stdout }).await
}

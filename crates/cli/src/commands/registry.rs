//! Verbs that need a registry or the builder. The engine decides; its answer is shown.

use silo_client::Client;
use silo_oci::reference::Reference;

use crate::cli_input::password;
use crate::command::Invocation;
use crate::context::{Cli, warn};
use crate::credentials::{self, Credentials, Store};
use crate::failure::{Failure, Outcome};
use crate::flags::{Filters, flags};
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

flags! {
    /// Flags of `search`.
    SearchFlags {
        filter: Filters, ['f'] "filter", "Filter output based on conditions provided";
        format: String, "format", "Pretty-print search using a Go template";
        limit: Option<i64>, "limit", "Max number of search results";
        no_trunc: bool, "no-trunc", "Don't truncate output";
    }
}

flags! {
    /// Flags of `login`.
    LoginFlags {
        password: String, ['p'] "password", "Password or Personal Access Token (PAT)";
        password_stdin: bool, "password-stdin", "Take the Password or Personal Access Token (PAT) from stdin";
        username: String, ['u'] "username", "Username";
    }
}

flags! {
    /// Flags of `logout`.
    LogoutFlags {}
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

/// `search`
pub(crate) async fn search(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<SearchFlags>()?;
    let client = invocation.cli.client().await?;
    let found: Value = client
        .get("/images/search")
        .query("term", &words[0])
        .query_some("limit", flags.limit.map(|limit| limit.to_string()))
        .query_some("filters", flags.filter.query())
        .receive()
        .await?;
    let mut text = "NAME\tDESCRIPTION\tSTARS\tOFFICIAL\n".to_owned();
    for item in found.list() {
        // The registry's words are anybody's, and go to a terminal.
        let plain = |text: &str| text.replace(|c: char| c.is_control(), " ");
        let description = plain(item.get("description").str());
        let description =
            if flags.no_trunc { description } else { crate::table::ellipsis(&description, 45) };
        let official = if item.get("is_official").bool() { "[OK]" } else { "" };
        let (name, stars) = (plain(item.get("name").str()), item.get("star_count").int());
        text.push_str(&format!("{name}\t{description}\t{stars}\t{official}\n"));
    }
    invocation.cli.print(&crate::table::align(&text, 10, 3))
}

/// `login`
pub(crate) async fn login(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<LoginFlags>()?;
    if flags.password_stdin && !flags.password.is_empty() {
        return Err(Failure::new(
            "conflicting options: cannot specify both --password and --password-stdin",
        ));
    }
    if flags.password_stdin && flags.username.is_empty() {
        return Err(Failure::new("the --password-stdin option requires --username to be set"));
    }
    let mut secret = flags.password.clone();
    if flags.password_stdin || secret == "-" {
        secret = password()?;
    } else if !secret.is_empty() {
        warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    let server = credentials::key(words.first().map_or("", String::as_str));
    let mut store = Store::open(invocation.cli.config().directory())?;
    let mut given =
        Credentials { username: flags.username, password: secret, ..Credentials::default() };
    if given.username.is_empty() && given.password.is_empty() {
        // docker wording
        let stored = store.get(server)?.ok_or_else(|| {
            Failure::new(
                "error: cannot perform an interactive login: give --username and --password-stdin",
            )
        })?;
        let known = if stored.username.is_empty() {
            String::new()
        } else {
            format!(" [Username: {}]", stored.username)
        };
        warn(&format!("Authenticating with existing credentials...{known}"));
        given = stored;
    } else if given.username.is_empty() {
        return Err(Failure::new("username is empty"));
    } else if given.password.trim().is_empty() {
        return Err(Failure::new("password is empty"));
    }
    let client = invocation.cli.client().await?;
    let answer: Value = client
        .post("/auth")
        .json(&serde_json::json!({
            "username": given.username,
            "password": given.password,
            "identitytoken": given.identity_token,
            "serveraddress": server,
        }))
        .receive()
        .await?;
    let token = answer.get("IdentityToken").str();
    if !token.is_empty() {
        given.password.clear();
        token.clone_into(&mut given.identity_token);
    }
    store.put(server, &given)?;
    invocation.cli.line(answer.get("Status").str())
}

/// `logout`
pub(crate) async fn logout(invocation: Invocation) -> Outcome {
    let (_, words) = invocation.parse::<LogoutFlags>()?;
    let server = credentials::key(words.first().map_or("", String::as_str));
    invocation.cli.line(&format!("Removing login credentials for {server}"))?;
    Store::open(invocation.cli.config().directory())?.remove(server)
}

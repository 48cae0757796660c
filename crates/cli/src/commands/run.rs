//! `run`, `create`, `start` and `attach`.

use std::io::Write;

use fs_err::File;
use serde_json::Value as Json;
use silo_client::{Client, ClientError};
use silo_oci::reference::{Reference, is_identifier};

use crate::command::Invocation;
use crate::commands::{registry, windows};
use crate::context::{Cli, warn};
use crate::create::{Attach, request};
use crate::env;
use crate::failure::{Failure, Outcome};
use crate::flags::flags;
use crate::options::RunFlags;
use crate::stream::{self, End, Session};
use crate::terminal;
use crate::value::Value;

flags! {
    /// Flags of `attach`.
    AttachFlags {
        detach_keys: String, "detach-keys", "Override the key sequence for detaching a container";
        no_stdin: bool, "no-stdin", "Do not attach STDIN";
        sig_proxy: Option<bool>, "sig-proxy", "Proxy all received signals to the process (default true)";
    }
}

flags! {
    /// Flags of `start`.
    StartFlags {
        attach: bool, ['a'] "attach", "Attach STDOUT/STDERR and forward signals";
        checkpoint: String, "checkpoint", "";
        detach_keys: String, "detach-keys", "Override the key sequence for detaching a container";
        interactive: bool, ['i'] "interactive", "Attach container's STDIN";
    }
}

/// Docker's frame around an error of `run` or `create`.
fn with_help(verb: &str, failure: Failure, code: u8) -> Failure {
    Failure {
        message: format!(
            "silo: {}\n\nRun 'silo {verb} --help' for more information",
            failure.message
        ),
        code,
    }
}

/// 127 for a program that is missing, 126 for one that cannot be run, else 125.
fn start_code(message: &str) -> u8 {
    let has = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if has(&[
        "executable file not found",
        "no such file or directory",
        "system cannot find the file",
    ]) {
        127
    } else if has(&["permission denied", "is a directory"]) {
        126
    } else {
        125
    }
}

fn run_failure(failure: Failure) -> Failure {
    let code = start_code(&failure.message);
    with_help("run", failure, code)
}

/// A file for the container's id: taken before the container exists, and removed again when it
/// never comes to be.
struct IdFile {
    file: Option<(File, bool)>,
}

impl IdFile {
    fn new(path: &str) -> Outcome<Self> {
        if path.is_empty() {
            return Ok(Self { file: None });
        }
        let created = fs_err::OpenOptions::new().write(true).create_new(true).open(path);
        match created {
            Ok(file) => Ok(Self { file: Some((file, false)) }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Failure::new(format!(
                    "container ID file found, make sure the other container isn't running or \
                     delete {path}"
                )))
            }
            Err(error) => {
                Err(Failure::new(format!("failed to create the container ID file: {error}")))
            }
        }
    }

    fn write(&mut self, id: &str) -> Outcome {
        let Some((file, written)) = &mut self.file else { return Ok(()) };
        file.write_all(id.as_bytes()).map_err(|error| {
            Failure::new(format!("failed to write the container ID ({id}) to file: {error}"))
        })?;
        *written = true;
        Ok(())
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if let Some((file, false)) = &self.file {
            fs_err::remove_file(file.path()).ok();
        }
    }
}

/// Makes the container, pulling the image if that is wanted. Returns its id.
async fn create_container(
    cli: &Cli,
    client: &Client,
    flags: &RunFlags,
    image: &str,
    body: &Json,
) -> Outcome<String> {
    let mut id_file = IdFile::new(&flags.cidfile)?;
    let platform = flags.platform.clone().or_else(|| env::get(env::DOCKER_DEFAULT_PLATFORM));
    let reference = if is_identifier(image) || image.starts_with("sha256:") {
        None
    } else {
        Some(Reference::parse_normalized(image).map_err(|error| Failure::new(error.to_string()))?)
    };
    let pull = flags.pull.as_deref().unwrap_or("missing");
    let base = flags.base.as_deref();
    let pull_it =
        || registry::pull_for_run(cli, client, image, platform.as_deref(), base, flags.quiet);
    let fetch = || async {
        match pull_it().await {
            Err(failure) if windows::says_setup(&failure.message) => {
                let error = ClientError::Engine { status: 503, message: failure.message };
                windows::offer_setup(client, error).await?;
                pull_it().await
            }
            other => other,
        }
    };
    if pull == "always" {
        fetch().await?;
    }
    let post = || {
        let mut post = client.post("/containers/create");
        if !flags.name.is_empty() {
            post = post.query("name", &flags.name);
        }
        let post = post.query_some("platform", platform.as_deref()).query_some("base", base);
        post.json(body).receive::<Value>()
    };
    let answer = match post().await {
        Err(error) if windows::lacks_setup(&error) => {
            windows::offer_setup(client, error).await?;
            post().await
        }
        other => other,
    };
    let created = match answer {
        Err(ClientError::Engine { status: 404, .. })
            if reference.is_some() && pull == "missing" =>
        {
            if !flags.quiet
                && let Some(reference) = &reference
            {
                warn(&format!("Unable to find image '{}' locally", reference.familiar()));
            }
            fetch().await?;
            post().await
        }
        other => other,
    }?;
    for warning in created.get("Warnings").list() {
        warn(&format!("WARNING: {warning}"));
    }
    let id = created.get("Id").str().to_owned();
    id_file.write(&id)?;
    Ok(id)
}

fn check_pull(flags: &RunFlags) -> Result<(), String> {
    match flags.pull.as_deref() {
        None | Some("" | "always" | "missing" | "never") => Ok(()),
        Some(other) => Err(format!(
            "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
        )),
    }
}

/// `create`
pub(crate) async fn create(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<RunFlags>()?;
    let wrong = |reason: String| with_help("create", Failure::new(reason), 125);
    check_pull(&flags).map_err(wrong)?;
    let (image, args) = words.split_first().ok_or_else(|| Failure::code(1))?;
    let body = request(&flags, image, args, Attach::of(&flags), terminal::size()).map_err(wrong)?;
    let cli = &invocation.cli;
    let client = cli.client().await?;
    let id = create_container(cli, &client, &flags, image, &body).await?;
    cli.line(&id)
}

/// `run`: create, attach and wait at once, start.
pub(crate) async fn run(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<RunFlags>()?;
    let wrong = |reason: String| with_help("run", Failure::new(reason), 125);
    check_pull(&flags).map_err(wrong)?;
    let (image, args) = words.split_first().ok_or_else(|| Failure::code(1))?;
    let attach = if flags.detach { Attach::default() } else { Attach::of(&flags) };
    let body = request(&flags, image, args, attach, terminal::size()).map_err(wrong)?;
    if flags.detach && !flags.attach.0.is_empty() {
        return Err(Failure::new("conflicting options: cannot specify both --attach and --detach"));
    }
    stream::check_tty(attach.stdin, flags.tty)?;
    let cli = &invocation.cli;
    let keys = detach_keys(cli, &flags.detach_keys)?;
    let client = cli.client().await?;
    let id = create_container(cli, &client, &flags, image, &body).await.map_err(run_failure)?;
    if !attach.any() {
        // The id is only printed for a container that started, as Docker prints it before.
        let started = start_container(&client, &id, "").await;
        cli.line(&id)?;
        return started.map_err(|error| run_failure(error.into()));
    }
    if flags.sig_proxy != Some(false) {
        stream::forward_signals(&client, &id);
    }
    let session = Session { tty: flags.tty, stdin: attach.stdin, detach_keys: keys };
    let status = attached_start(&client, &id, &session, attach, flags.rm, run_failure).await?;
    exit_with(status)
}

/// Attaches, waits for the end, and starts, in the order that loses nothing. `None` when the
/// user detached.
async fn attached_start(
    client: &Client,
    id: &str,
    session: &Session,
    attach: Attach,
    removed: bool,
    failed: fn(Failure) -> Failure,
) -> Outcome<Option<i64>> {
    let condition = if removed { "removed" } else { "next-exit" };
    let (hijacked, waiting) = tokio::join!(
        attach_request(client, id, attach, &session.detach_keys).hijack(),
        client.post(format!("/containers/{id}/wait")).query("condition", condition).send(),
    );
    let (hijacked, waiting) = (hijacked?, waiting?);
    let wait = tokio::task::spawn(waiting.json::<Value>());
    if let Err(error) = start_container(client, id, "").await {
        if removed {
            // The engine removes it; the next command may count on that.
            wait.await.ok();
        }
        return Err(failed(error.into()));
    }
    if session.tty {
        stream::follow_size(client, format!("/containers/{id}"));
    }
    if session.run(hijacked).await? == End::Detached {
        return Ok(None);
    }
    let ended = wait.await.map_err(|error| Failure::new(error.to_string()))??;
    let message = ended.path(&["Error", "Message"]).str();
    if !message.is_empty() {
        warn(&format!("Error waiting for container: {message}"));
        return Ok(Some(125));
    }
    Ok(Some(ended.get("StatusCode").int()))
}

fn attach_request<'a>(
    client: &'a Client,
    id: &str,
    attach: Attach,
    keys: &str,
) -> silo_client::Request<'a> {
    let request = client
        .post(format!("/containers/{id}/attach"))
        .query("stream", "1")
        .query_if("stdin", attach.stdin)
        .query_if("stdout", attach.stdout)
        .query_if("stderr", attach.stderr);
    if keys.is_empty() { request } else { request.query("detachKeys", keys) }
}

async fn start_container(client: &Client, id: &str, checkpoint: &str) -> Result<(), ClientError> {
    let checkpoint = (!checkpoint.is_empty()).then_some(checkpoint);
    client.post(format!("/containers/{id}/start")).query_some("checkpoint", checkpoint).done().await
}

fn exit_with(status: Option<i64>) -> Outcome {
    match status {
        None => Ok(()),
        Some(code) => Failure::of_program(code),
    }
}

/// The flag, or the configuration's keys. Checked before anything is made.
fn detach_keys(cli: &Cli, flag: &str) -> Outcome<String> {
    let keys = if flag.is_empty() { cli.config().text("detachKeys") } else { flag };
    stream::detach_sequence(keys)?;
    Ok(keys.to_owned())
}

/// `start`
pub(crate) async fn start(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<StartFlags>()?;
    let cli = &invocation.cli;
    if !flags.attach && !flags.interactive {
        let client = cli.client().await?;
        let mut failed = Vec::new();
        for name in &words {
            match start_container(&client, name, &flags.checkpoint).await {
                Ok(()) => cli.line(name)?,
                Err(error) => {
                    warn(&Failure::from(error).message);
                    failed.push(name.clone());
                }
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        let names = failed.join(", ");
        return Err(Failure::new(format!("Error: failed to start containers: {names}")));
    }
    let [name] = &words[..] else {
        return Err(Failure::new("you cannot start and attach multiple containers at once"));
    };
    let keys = detach_keys(cli, &flags.detach_keys)?;
    let client = cli.client().await?;
    let container: Value = client.get(format!("/containers/{name}/json")).receive().await?;
    let tty = container.path(&["Config", "Tty"]).bool();
    let stdin = flags.interactive && container.path(&["Config", "OpenStdin"]).bool();
    let id = container.get("Id").str();
    if container.path(&["State", "Running"]).bool() {
        return attach_to(&client, &container, stdin, keys, true).await;
    }
    if !tty {
        stream::forward_signals(&client, id);
    }
    let session = Session { tty, stdin, detach_keys: keys };
    let attach = Attach { stdin, stdout: true, stderr: true };
    let removed = container.path(&["HostConfig", "AutoRemove"]).bool();
    let status = attached_start(&client, id, &session, attach, removed, |failure| failure).await?;
    exit_with(status)
}

/// `attach`
pub(crate) async fn attach(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<AttachFlags>()?;
    let cli = &invocation.cli;
    let keys = detach_keys(cli, &flags.detach_keys)?;
    let client = cli.client().await?;
    let container: Value = client.get(format!("/containers/{}/json", words[0])).receive().await?;
    let state = container.get("State");
    for (field, message) in [
        ("Paused", "cannot attach to a paused container, unpause it first"),
        ("Restarting", "cannot attach to a restarting container, wait until it is running"),
    ] {
        if state.get(field).bool() {
            return Err(Failure::new(message));
        }
    }
    if !state.get("Running").bool() {
        return Err(Failure::new("cannot attach to a stopped container, start it first"));
    }
    let stdin = !flags.no_stdin && container.path(&["Config", "OpenStdin"]).bool();
    attach_to(&client, &container, stdin, keys, flags.sig_proxy != Some(false)).await
}

async fn attach_to(
    client: &Client,
    container: &Value,
    stdin: bool,
    keys: String,
    proxy: bool,
) -> Outcome {
    let id = container.get("Id").str();
    let tty = container.path(&["Config", "Tty"]).bool();
    stream::check_tty(stdin, tty)?;
    if proxy && !tty {
        stream::forward_signals(client, id);
    }
    let attach = Attach { stdin, stdout: true, stderr: true };
    let (hijacked, waiting) = tokio::join!(
        attach_request(client, id, attach, &keys).hijack(),
        client.post(format!("/containers/{id}/wait")).send(),
    );
    let (hijacked, waiting) = (hijacked?, waiting?);
    if tty {
        stream::follow_size(client, format!("/containers/{id}"));
    }
    let session = Session { tty, stdin, detach_keys: keys };
    if session.run(hijacked).await? == End::Detached {
        return Err(Failure::new("read escape sequence"));
    }
    let ended: Value = waiting.json().await?;
    exit_with(Some(ended.get("StatusCode").int()))
}

#[cfg(test)]
mod tests;

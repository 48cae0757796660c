//! `windows setup`, `info`, `check`, `export` and `import`.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use silo_client::{Client, ClientError};
use silo_windows::{base, runtime};

use super::container::NoFlags;
use super::image_stream;
use crate::command::Invocation;
use crate::context::warn;
use crate::doctor::{Finding, lines};
use crate::env;
use crate::failure::{Failure, Outcome};
use crate::flags::flags;
use crate::terminal;
use crate::value::Value;
use crate::windows::{Engine, Request, SETUP, check, host, kinds_and_builds, name, remove, setup};

/// The mirror that finds one nearby.
const MIRROR: &str = "http://deb.debian.org/debian";

flags! {
    /// Flags of `windows setup`.
    SetupFlags {
        cache: String, "cache", "Directory for downloads (default \"~/.cache/silo/debian\")";
        fonts: bool, "fonts", "Have text really drawn: a larger runtime and slower starts";
        force: bool, ['f'] "force", "Make everything again";
        mirror: String, "mirror", "Debian mirror: http, https or file URL (default \"http://deb.debian.org/debian\")";
        quiet: bool, ['q'] "quiet", "Show the result only";
        update: bool, ['u'] "update", "Look for newer packages";
    }
}

flags! {
    /// Flags of `windows import`.
    ImportFlags {
        input: String, ['i'] "input", "Read from tar archive file, instead of STDIN";
    }
}

flags! {
    /// Flags of `windows check`.
    CheckFlags {
        base: String, "base", "Base image whose libraries a file is checked against";
        format: String, "format", "Format output: 'table' or 'json' (default \"table\")";
    }
}

/// Exit code of a check that ends badly.
const WILL_NOT_RUN: u8 = 2;

/// `windows check`
pub(crate) async fn check_windows(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<CheckFlags>()?;
    if !matches!(flags.format.as_str(), "" | "table" | "json") {
        return Err(Failure::new(format!("--format is table or json, not {:?}", flags.format)));
    }
    let subject = words.first().map_or("", String::as_str);
    let report = if check::is_file(subject) {
        let local = check::local(subject)?;
        // Without an engine much can be said as well.
        let base = match invocation.cli.client().await {
            Ok(client) => check::look_up(&client, &flags.base, local.needs()).await,
            Err(failure) => Err(failure.message),
        };
        local.report(subject, base)
    } else {
        check::image(&invocation.cli.client().await?, subject).await?
    };
    if flags.format == "json" {
        let text = serde_json::to_string_pretty(&report);
        invocation.cli.line(&text.map_err(|error| Failure::new(error.to_string()))?)?;
    } else {
        invocation.cli.print(&check::show(&report))?;
    }
    if report.grade.is_bad() { Err(Failure::code(WILL_NOT_RUN)) } else { Ok(()) }
}

/// `windows setup`
pub(crate) async fn setup_windows(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<SetupFlags>()?;
    let request = request(flags);
    let client = invocation.cli.client().await?;
    let line = run(client, request).await?;
    invocation.cli.line(&line)
}

fn request(flags: SetupFlags) -> Request {
    let or = |flag: String, variable| Some(flag).filter(|v| !v.is_empty()).or(env::get(variable));
    Request {
        mirror: or(flags.mirror, env::SILO_DEBIAN_MIRROR).unwrap_or_else(|| MIRROR.to_owned()),
        cache: Some(flags.cache).filter(|v| !v.is_empty()).map_or_else(cache, PathBuf::from),
        fonts: flags.fonts,
        update: flags.update,
        force: flags.force,
        quiet: flags.quiet,
    }
}

/// Whether a message of the engine says that Windows containers are not set up.
pub(crate) fn says_setup(message: &str) -> bool {
    message.contains(runtime::HOW_TO_SET_UP)
}

/// Whether an error of the engine says that Windows containers are not set up.
pub(crate) fn lacks_setup(error: &ClientError) -> bool {
    matches!(error, ClientError::Engine { status: 503, message } if message.contains(runtime::HOW_TO_SET_UP))
}

/// Sets Windows containers up if the user wants it, before a container is made that needs it:
/// as `SILO_WINDOWS_SETUP` says, else by asking on the terminal.
pub(crate) async fn offer_setup(client: &Client, error: ClientError) -> Outcome {
    let wanted = env::get(env::SILO_WINDOWS_SETUP);
    let wanted = match wanted.as_deref() {
        Some("auto") => true,
        Some("never") => false,
        None | Some("ask") if terminal::stdin_is_terminal() && terminal::stderr_is_terminal() => {
            ask()?
        }
        None | Some("ask") => false,
        Some(other) => {
            return Err(Failure::new(format!(
                "{} is auto, ask or never, not {other:?}",
                env::SILO_WINDOWS_SETUP
            )));
        }
    };
    if !wanted {
        let failure = Failure::from(error);
        let way = "with SILO_WINDOWS_SETUP=auto, 'silo run' does it by itself";
        return Err(Failure { message: format!("{}\n({way})", failure.message), ..failure });
    }
    let done = run(client.clone(), request(SetupFlags::default())).await?;
    warn(&done);
    Ok(())
}

fn ask() -> Outcome<bool> {
    let question = "Windows containers are not set up. 'silo windows setup' makes the Wine runtime and \
        the base images once, in about a minute, from some 220 MB of Debian's packages.\n\
        Set up now and go on? [y/N] ";
    let failed = |error: std::io::Error| Failure::io("the terminal", &error);
    let mut out = std::io::stderr().lock();
    out.write_all(question.as_bytes()).and_then(|()| out.flush()).map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// How long an interrupted set-up may take to notice.
const NOTICE: Duration = Duration::from_secs(2);

/// Sets up in a thread of its own; an interrupt ends it and leaves nothing in the engine.
async fn run(client: Client, request: Request) -> Outcome<String> {
    let engine = Engine::new(client.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let mut task = tokio::task::spawn_blocking(move || setup(&engine, &request, &stopped));
    tokio::select! {
        result = &mut task => result.map_err(|_| Failure::new("the set-up broke off"))?,
        _ = tokio::signal::ctrl_c() => {
            stop.store(true, Ordering::Relaxed);
            // With the container gone, whatever waits for it fails. What has nothing to do with
            // the engine ends with this process.
            clean(&client).await?;
            if tokio::time::timeout(NOTICE, task).await.is_err() {
                clean(&client).await?;
            }
            Err(Failure::code(130))
        }
    }
}

/// Removes what the set-up has in the engine while it runs.
async fn clean(client: &Client) -> Outcome {
    let absent = |result| match result {
        Err(ClientError::Engine { status: 404, .. }) => Ok(()),
        other => other,
    };
    absent(remove(client, SETUP).await)?;
    Ok(absent(client.delete(format!("/images/{SETUP}")).done().await)?)
}

/// Where downloads are kept when nothing else is said.
fn cache() -> PathBuf {
    let home = || env::get(env::HOME).map(|home| PathBuf::from(home).join(".cache"));
    let base = env::get(env::XDG_CACHE_HOME).map(PathBuf::from).or_else(home);
    base.unwrap_or_else(|| PathBuf::from("/var/cache")).join("silo/debian")
}

/// Every image of a set-up by the names that `export` gives them.
fn names() -> Vec<String> {
    let bases = kinds_and_builds()
        .flat_map(|(kind, build)| build.tags(kind).into_iter().map(|tag| name(kind, tag)));
    std::iter::once(runtime::CURRENT.to_owned()).chain(bases).collect()
}

/// An image, if the engine has it.
async fn inspect(client: &Client, name: &str) -> Outcome<Option<Value>> {
    match client.get(format!("/images/{name}/json")).receive::<Value>().await {
        Ok(image) => Ok(Some(image)),
        Err(ClientError::Engine { status: 404, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// `windows info`
pub(crate) async fn info(invocation: Invocation) -> Outcome {
    let (_, _) = invocation.parse::<NoFlags>()?;
    let client = invocation.cli.client().await?;
    let host = host::examine();
    let is_fit = !host.iter().any(Finding::is_failure);
    let host = format!("Host:\n{}", lines(&host));
    let Some(wine) = inspect(&client, runtime::CURRENT).await? else {
        invocation.cli.print(&host)?;
        return Err(Failure::new(
            "Windows containers are not set up.\nRun 'silo windows setup' to make the Wine \
             runtime and the base images.",
        ));
    };
    let label =
        |image: &Value, name: &str| image.path(&["Config", "Labels", name]).str().to_owned();
    let recipe = label(&wine, runtime::RECIPE);
    let size = |image: &Value| silo_types::size::human(image.get("Size").float());
    let mut text = format!(
        "Wine:     {} ({}, {})\nPackages: {}\nBases:\n",
        label(&wine, runtime::LABEL),
        runtime::CURRENT,
        size(&wine),
        label(&wine, "silo.windows.packages").split(", ").count(),
    );
    let mut fit = true;
    for (kind, build) in kinds_and_builds() {
        let name = name(kind, build.tag);
        let state = match inspect(&client, &name).await? {
            None => "missing".to_owned(),
            Some(base) if label(&base, runtime::RECIPE) != recipe => "of another set-up".to_owned(),
            Some(base) => {
                let version = label(&base, base::LABEL);
                text.push_str(&format!(" {name:<26} {version:<18} {}\n", size(&base)));
                continue;
            }
        };
        fit = false;
        text.push_str(&format!(" {name:<26} {state}\n"));
    }
    text.push_str(&host);
    text.push_str(match (is_fit, fit) {
        (false, _) => "Fit:      no: see what fails above\n",
        (true, true) => "Fit:      yes\n",
        (true, false) => "Fit:      not completely: run 'silo windows setup'\n",
    });
    invocation.cli.print(&text)
}

/// `windows export`
pub(crate) async fn export(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<image_stream::OutputFlags>()?;
    image_stream::save_images(&invocation, &flags.output, &names(), &[]).await
}

/// `windows import`
pub(crate) async fn import(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<ImportFlags>()?;
    image_stream::load_images(&invocation, &flags.input, false, &[]).await
}

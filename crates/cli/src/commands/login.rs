//! Credentials: `login` and `logout`.

use std::io::{BufRead as _, Read as _, Write as _};

use silo_client::ClientError;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli_input::password;
use crate::command::Invocation;
use crate::context::{Cli, warn};
use crate::credentials::{self, Credentials, DOCKER_HUB, Store};
use crate::direct;
use crate::failure::{Failure, Outcome};
use crate::flags::flags;
use crate::terminal;
use crate::value::Value;

flags! {
    /// Flags of `login`.
    LoginFlags {
        password: Option<String>, ['p'] "password", "Password or Personal Access Token (PAT), or \"-\" to read from stdin";
        password_stdin: bool, "password-stdin", "Take the Password or Personal Access Token (PAT) from stdin";
        username: Option<String>, ['u'] "username", "Username";
    }
}

flags! {
    /// Flags of `logout`.
    LogoutFlags {}
}

/// The exit code of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
/// Bytes of a line that somebody types.
const MAX_LINE: u64 = 64 << 10;
/// Docker's words to those who are asked for a name on Docker Hub.
const HUB: &str = "Log in with your Docker ID or email address to push and pull images from \
                   Docker Hub. If you don't have a Docker ID, head over to \
                   https://hub.docker.com/ to create one.\n";

/// What the engine, or the registry, makes of credentials.
enum Verdict {
    /// They are good. What is said, and what stands for the password from now on.
    Good {
        status: String,
        token: String,
    },
    /// They are not.
    Refused(Failure),
    Failed(Failure),
}

/// Whether flags contradict each other. The words are Docker's.
fn check(flags: &LoginFlags) -> Outcome {
    let reads_stdin = flags.password_stdin || flags.password.as_deref() == Some("-");
    if reads_stdin {
        if flags.password.as_deref().is_some_and(|password| password != "-") {
            return Err(Failure::new(
                "conflicting options: cannot specify both --password and --password-stdin",
            ));
        }
        if flags.username.is_none() {
            return Err(Failure::new("the --password-stdin option requires --username to be set"));
        }
    }
    if flags.username.as_deref() == Some("") {
        return Err(Failure::new("username is empty"));
    }
    if flags.password.as_deref() == Some("") {
        return Err(Failure::new("password is empty"));
    }
    Ok(())
}

/// `login`
pub(crate) async fn login(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<LoginFlags>()?;
    check(&flags)?;
    let cli = &invocation.cli;
    let username = flags.username.as_deref().unwrap_or_default().trim().to_owned();
    let mut secret = flags.password.clone().unwrap_or_default();
    if flags.password_stdin || secret == "-" {
        secret = password()?;
        if secret.trim().is_empty() {
            return Err(Failure::new("password is empty"));
        }
    } else if !secret.is_empty() {
        warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    let server = credentials::key(words.first().map_or("", String::as_str));
    let mut store = Store::open(cli.config().directory())?;
    let mut known = String::new();
    if username.is_empty() && secret.is_empty() {
        // One that cannot be read is one that is not there: a new one takes its place.
        let stored = store.get(server).unwrap_or_else(|failure| {
            warn(&failure.message);
            None
        });
        if let Some(stored) = stored {
            known.clone_from(&stored.username);
            if let Some(status) = again(cli, &mut store, server, stored).await? {
                return cli.line(&status);
            }
        }
    }
    if (username.is_empty() || secret.is_empty()) && !terminal::stdin_is_terminal() {
        return Err(Failure::new(
            "error: cannot perform an interactive login from a non-TTY device",
        ));
    }
    let given = ask(cli, server, username, secret, &known).await?;
    match verify(cli, server, &given).await {
        Verdict::Good { status, token } => {
            keep(&mut store, server, given, token)?;
            cli.line(&status)
        }
        Verdict::Refused(failure) | Verdict::Failed(failure) => Err(failure),
    }
}

/// Tries what was kept. `None` if it is not good any more.
async fn again(
    cli: &Cli,
    store: &mut Store<'_>,
    server: &str,
    stored: Credentials,
) -> Outcome<Option<String>> {
    // docker wording
    let user = &stored.username;
    let user = if user.is_empty() { String::new() } else { format!(" [Username: {user}]") };
    warn(&format!("Authenticating with existing credentials...{user}"));
    warn("To login with a different account, run 'silo logout' followed by 'silo login'\n");
    match verify(cli, server, &stored).await {
        Verdict::Good { status, token } => {
            keep(store, server, stored, token)?;
            return Ok(Some(status));
        }
        Verdict::Refused(_) => warn("Stored credentials invalid or expired"),
        Verdict::Failed(failure) => {
            warn(&format!("Login did not succeed, error: {}", failure.message));
        }
    }
    Ok(None)
}

fn keep(store: &mut Store<'_>, server: &str, mut given: Credentials, token: String) -> Outcome {
    if !token.is_empty() {
        given.password.clear();
        given.identity_token = token;
    }
    store
        .put(server, &given)
        .map_err(|failure| Failure::new(format!("error saving credentials: {}", failure.message)))
}

/// Asks the engine whether credentials are good; the registry itself where no engine answers.
async fn verify(cli: &Cli, server: &str, given: &Credentials) -> Verdict {
    let Ok(client) = cli.client().await else { return verify_here(server, given).await };
    let answer: Result<Value, ClientError> = client
        .post("/auth")
        .json(&serde_json::json!({
            "username": given.username,
            "password": given.password,
            "identitytoken": given.identity_token,
            "serveraddress": server,
        }))
        .receive()
        .await;
    match answer {
        Ok(answer) => Verdict::Good {
            status: answer.get("Status").str().to_owned(),
            token: answer.get("IdentityToken").str().to_owned(),
        },
        Err(ClientError::Connect { .. }) => verify_here(server, given).await,
        Err(error @ ClientError::Engine { status: 401, .. }) => Verdict::Refused(error.into()),
        Err(error) => Verdict::Failed(error.into()),
    }
}

async fn verify_here(server: &str, given: &Credentials) -> Verdict {
    match direct::registries(Vec::new()).login(&direct::of(given, server)).await {
        Ok(token) => Verdict::Good { status: "Login Succeeded".to_owned(), token },
        Err(error @ silo_registry::Error::Refused { status: 401 | 403, .. }) => {
            Verdict::Refused(direct::failure(&error))
        }
        Err(error) => Verdict::Failed(direct::failure(&error)),
    }
}

/// Asks a person for what is missing.
async fn ask(
    cli: &Cli,
    server: &str,
    mut username: String,
    mut password: String,
    known: &str,
) -> Outcome<Credentials> {
    let mut ended = Ended::watch()?;
    if username.is_empty() {
        if server == DOCKER_HUB {
            cli.print(HUB)?;
        }
        let question =
            if known.is_empty() { "Username: ".into() } else { format!("Username ({known}): ") };
        line(cli, &mut ended, &question).await?.trim().clone_into(&mut username);
        if username.is_empty() {
            known.clone_into(&mut username);
        }
        if username.is_empty() {
            return Err(Failure::new("error: username is required"));
        }
    }
    if password.trim().is_empty() {
        terminal::hide_input();
        let typed = line(cli, &mut ended, "Password: ").await;
        terminal::restore();
        cli.print("\n")?;
        password = typed?;
        if password.is_empty() {
            return Err(Failure::new("error: password is required"));
        }
    }
    Ok(Credentials { username, password, ..Credentials::default() })
}

/// The signals that end the command. They are watched before anything is asked, or shown no more:
/// one that came in between would leave the terminal as it is.
struct Ended {
    interrupt: Signal,
    terminate: Signal,
}

impl Ended {
    fn watch() -> Outcome<Self> {
        let watch = |kind| signal(kind).map_err(|error| Failure::io("signal", &error));
        Ok(Self {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What somebody types. Ctrl-C ends the command with the terminal as it was.
async fn line(cli: &Cli, ended: &mut Ended, question: &str) -> Outcome<String> {
    cli.print(question)?;
    let typed = tokio::task::spawn_blocking(|| {
        let mut text = String::new();
        std::io::stdin().lock().take(MAX_LINE).read_line(&mut text).map(|_| text)
    });
    let text = tokio::select! {
        typed = typed => typed.map_err(|error| Failure::new(error.to_string()))?,
        () = ended.wait() => return Err(interrupted()),
    };
    let text = text.map_err(|error| Failure::io("stdin", &error))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn interrupted() -> Failure {
    terminal::restore();
    writeln!(std::io::stdout().lock()).ok();
    Failure::code(INTERRUPTED)
}

/// `logout`
pub(crate) fn logout(invocation: Invocation) -> Outcome {
    let (_, words) = invocation.parse::<LogoutFlags>()?;
    let server = credentials::key(words.first().map_or("", String::as_str));
    // docker wording
    invocation.cli.line(&format!("Removing login credentials for {server}"))?;
    let removed = Store::open(invocation.cli.config().directory())?.remove(server);
    if let Err(failure) = removed {
        warn(&format!("WARNING: could not erase credentials:\n{server}: {}", failure.message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_contradict() {
        for (username, password, stdin, message) in [
            (Some("u"), Some("p"), false, ""),
            (None, None, false, ""),
            (Some("u"), Some("-"), true, ""),
            (
                Some("u"),
                Some("p"),
                true,
                "conflicting options: cannot specify both --password and --password-stdin",
            ),
            (None, None, true, "the --password-stdin option requires --username to be set"),
            (None, Some("-"), false, "the --password-stdin option requires --username to be set"),
            (Some(""), None, false, "username is empty"),
            (Some("u"), Some(""), false, "password is empty"),
        ] {
            let flags = LoginFlags {
                username: username.map(str::to_owned),
                password: password.map(str::to_owned),
                password_stdin: stdin,
            };
            let said = check(&flags).err().map(|failure| failure.message).unwrap_or_default();
            assert_eq!(said, message, "{username:?} {password:?} {stdin}");
        }
    }
}

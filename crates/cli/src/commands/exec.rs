//! `exec`

use serde_json::json;

use crate::command::Invocation;
use crate::failure::{Failure, Outcome};
use crate::flags::flags;
use crate::options::values::EnvList;
use crate::stream::{self, End, Session};
use crate::terminal;
use crate::value::Value;

flags! {
    /// Flags of `exec`.
    ExecFlags {
        detach: bool, ['d'] "detach", "Detached mode: run command in the background";
        detach_keys: String, "detach-keys", "Override the key sequence for detaching a container";
        env: EnvList, ['e'] "env", "Set environment variables";
        env_file: Vec<String>, "env-file", "Read in a file of environment variables";
        interactive: bool, ['i'] "interactive", "Keep STDIN open even if not attached";
        privileged: bool, "privileged", "Give extended privileges to the command";
        tty: bool, ['t'] "tty", "Allocate a pseudo-TTY";
        user: String, ['u'] "user", "Username or UID (format: \"<name|uid>[:<group|gid>]\")";
        workdir: String, ['w'] "workdir", "Working directory inside the container";
    }
}

/// `exec`
pub(crate) async fn exec(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<ExecFlags>()?;
    let cli = &invocation.cli;
    let (container, command) = words.split_first().ok_or_else(|| Failure::code(1))?;
    let env = crate::create::exec_env(&flags.env_file, &flags.env.0)?;
    let keys = if flags.detach_keys.is_empty() {
        cli.config().text("detachKeys").to_owned()
    } else {
        flags.detach_keys.clone()
    };
    stream::detach_sequence(&keys)?;
    let attach = !flags.detach;
    stream::check_tty(attach && flags.interactive, flags.tty)?;
    let size = terminal::size();
    let console = (flags.tty && size != (0, 0)).then_some([size.0, size.1]);
    let client = cli.client().await?;
    let body = json!({
        "User": flags.user,
        "Privileged": flags.privileged,
        "Tty": flags.tty,
        "ConsoleSize": console,
        "AttachStdin": attach && flags.interactive,
        "AttachStderr": attach,
        "AttachStdout": attach,
        "Detach": flags.detach,
        "DetachKeys": keys,
        "Env": env,
        "WorkingDir": flags.workdir,
        "Cmd": command,
    });
    let created: Value =
        client.post(format!("/containers/{container}/exec")).json(&body).receive().await?;
    let id = created.get("Id").str();
    if id.is_empty() {
        return Err(Failure::new("exec ID empty"));
    }
    let start = client.post(format!("/exec/{id}/start")).json(&json!({
        "Detach": flags.detach,
        "Tty": flags.tty,
        "ConsoleSize": console,
    }));
    if flags.detach {
        return start.done().await.map_err(start_failure);
    }
    let hijacked = start.hijack().await.map_err(start_failure)?;
    if flags.tty {
        stream::follow_size(&client, format!("/exec/{id}"));
    }
    let session = Session { tty: flags.tty, stdin: flags.interactive, detach_keys: keys };
    if session.run(hijacked).await? == End::Detached {
        return Err(Failure::new("read escape sequence"));
    }
    let ended: Value = client.get(format!("/exec/{id}/json")).receive().await?;
    Failure::of_program(ended.get("ExitCode").int())
}

/// An exec that cannot start has the codes of a program that cannot run.
fn start_failure(error: silo_client::ClientError) -> Failure {
    let failure = Failure::from(error);
    let has = |text: &str| failure.message.contains(text);
    let code = if has("executable file not found") || has("no such file or directory") {
        127
    } else if has("permission denied") || has("is a directory") {
        126
    } else {
        1
    };
    failure.with_code(code)
}

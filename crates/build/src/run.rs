//! `RUN`: a program in a container of the stage's image.

use std::sync::Arc;

use silo_docker::containers::Config;
use silo_docker::host_config::{HostConfig, Resources};
use silo_dockerfile::ast::{Run, Security};
use silo_engine::builds::{StepOptions, StepStream};
use silo_oci::image::ImageConfig;
use silo_oci::platform::Platform;
use silo_types::ErrorKind;

use crate::cache::KeyBuilder;
use crate::job::{Job, Work};
use crate::mounts::{self, Mounts};
use crate::outcome::BuildError;
use crate::progress::{NoteKind, Stream};
use crate::stage::Turn;
use crate::state::State;

/// Where a script that brings its own interpreter is put.
const PIPES: &str = "/dev/pipes";

/// A command, ready to run.
#[derive(Debug, Default)]
pub(crate) struct Command {
    words: Vec<String>,
    /// The words are one line, as Windows has it.
    escaped: bool,
    /// A script with an interpreter of its own: its name and text.
    script: Option<(String, String)>,
}

impl Command {
    /// Its words.
    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }
}

fn invalid(message: impl Into<String>) -> BuildError {
    BuildError::new(ErrorKind::InvalidParameter, message)
}

/// What a `RUN` runs, with its here-documents.
pub(crate) fn command(state: &State, run: &Run) -> Command {
    let mut line = run.command.clone();
    let mut script = None;
    if let [only] = &line.heredocs[..]
        && line.shell
        && line.words.len() == 1
        && is_heredoc_alone(&line.words[0])
    {
        let text = only.text();
        if text.starts_with("#!") && !state.is_windows() {
            line.words = vec![format!("{PIPES}/{}", only.name)];
            script = Some((only.name.clone(), text));
        } else {
            line.words = vec![text];
        }
    } else if let (Some(first), false) = (line.words.first_mut(), line.heredocs.is_empty()) {
        for heredoc in &line.heredocs {
            first.push('\n');
            first.push_str(&heredoc.content);
            first.push_str(&heredoc.name);
        }
    }
    let (words, escaped) = state.command(&line);
    Command { words, escaped, script }
}

/// Whether a line is nothing but `<<NAME`.
fn is_heredoc_alone(line: &str) -> bool {
    let line = line.trim();
    let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    digits.starts_with("<<") && !line.contains(char::is_whitespace)
}

impl Job {
    /// `RUN`.
    pub(crate) async fn run(
        self: &Arc<Self>,
        turn: &Turn<'_>,
        mut state: State,
        run: Run,
    ) -> Result<State, BuildError> {
        let mut work = turn.work();
        let done = self.run_program(turn, &mut state, &run, &mut work).await;
        work.end(done.map_err(|error| turn.error(error)))?;
        Ok(state)
    }

    async fn run_program(
        self: &Arc<Self>,
        turn: &Turn<'_>,
        state: &mut State,
        run: &Run,
        work: &mut Work,
    ) -> Result<(), BuildError> {
        if run.security == Security::Insecure && !self.request.allow_insecure {
            // buildkit wording
            let message = "granting entitlement security.insecure is not allowed by build daemon configuration";
            return Err(invalid(message));
        }
        if let Some(why) = &state.inert {
            return Err(BuildError::new(ErrorKind::Conflict, why));
        }
        if let Some(device) = run.devices.iter().find(|device| device.required) {
            return Err(invalid(format!("no CDI device {:?} on this host", device.name)));
        }
        let command = command(state, run);
        if state.is_windows() {
            refuse_powershell(&command.words)?;
        }
        let network = self.network_of(run);
        let mut shown = vec!["RUN".to_owned()];
        if !state.args.is_empty() {
            shown.push(format!("|{}", state.args.len()));
            for (name, value) in &state.args {
                let value = state.variable(name).or_else(|| value.clone()).unwrap_or_default();
                shown.push(format!("{name}={value}"));
            }
        }
        shown.extend(command.words.iter().cloned());
        let created_by = format!("{} # buildkit", shown.join(" "));
        let mut mounts = self.mounts(turn, state, run, work).await?;
        if let Some((name, text)) = &command.script {
            mounts.script(PIPES, name, text.as_bytes());
        }
        let key = self.run_key(state, run, &command, &network, &mounts);
        let turn_lock = self.builder.cache.turn(&key);
        let _turn = turn_lock.lock().await;
        let hit = !turn.no_cache
            && (self.apply_hit(state, &key, work).await?
                || (mounts.key().is_empty()
                    && self.adopt(turn, state, &created_by, &key, work)?));
        if !hit {
            self.run_container(
                turn,
                state,
                run,
                command.words.clone(),
                &command,
                network,
                mounts,
                &key,
                work,
            )
            .await?;
        }
        state.note_layer(created_by);
        work.note(NoteKind::Image(self.image_id(state)));
        Ok(())
    }

    /// Takes the result of a run from an image that the client named.
    fn adopt(
        &self,
        turn: &Turn<'_>,
        state: &mut State,
        created_by: &str,
        key: &str,
        work: &mut Work,
    ) -> Result<bool, BuildError> {
        for candidate in self.candidates(state) {
            if candidate.is_run(created_by)
                && self.take(turn, state, key, None, &candidate, work)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a run depends on.
    fn run_key(
        &self,
        state: &State,
        run: &Run,
        command: &Command,
        network: &str,
        mounts: &Mounts,
    ) -> String {
        let mut key = KeyBuilder::new("run");
        key.chain(state.chain.as_ref());
        key.field(&state.image.os);
        key.field(&state.image.architecture);
        key.list(&command.words);
        if let Some((name, text)) = &command.script {
            key.list([name, text]);
        }
        // The proxy's address does not make another step.
        let mut env: Vec<String> =
            state.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        env.sort();
        key.list(env);
        key.field(&state.image.config.working_dir);
        key.field(&state.image.config.user);
        key.field(network);
        key.field([u8::from(run.security == Security::Insecure)]);
        key.list(&self.request.extra_hosts);
        key.list(mounts.key());
        key.field(self.request.source_date_epoch.map_or(String::new(), |time| time.to_string()));
        key.finish()
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one step")]
    async fn run_container(
        self: &Arc<Self>,
        turn: &Turn<'_>,
        state: &mut State,
        run: &Run,
        words: Vec<String>,
        command: &Command,
        network: String,
        mut mounts: Mounts,
        key: &str,
        work: &mut Work,
    ) -> Result<(), BuildError> {
        check_processor(&state.image, &words)?;
        let limits = &self.request.limits;
        let mut env: Vec<String> =
            state.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        env.extend(self.proxies().into_iter().map(|(name, value)| format!("{name}={value}")));
        env.append(&mut mounts.env);
        let config = Config {
            hostname: self.request.hostname.clone(),
            user: state.image.config.user.clone(),
            env: env.into(),
            cmd: words.clone().into(),
            args_escaped: command.escaped,
            working_dir: state.image.config.working_dir.clone(),
            ..Config::default()
        };
        let host_config = HostConfig {
            resources: Resources {
                memory: limits.memory,
                memory_swap: limits.memory_swap,
                cpu_shares: limits.cpu_shares,
                cpu_period: limits.cpu_period,
                cpu_quota: limits.cpu_quota,
                cpuset_cpus: limits.cpuset_cpus.clone(),
                cpuset_mems: limits.cpuset_mems.clone(),
                cgroup_parent: limits.cgroup_parent.clone(),
                ulimits: limits.ulimits.clone().into(),
                ..Resources::default()
            },
            network_mode: network,
            extra_hosts: self.request.extra_hosts.clone().into(),
            privileged: run.security == Security::Insecure,
            security_opt: limits.security_opt.clone().into(),
            shm_size: limits.shm_size,
            ..HostConfig::default()
        };
        let caches = self.open_mounts(&mut mounts).await?;
        let step = self.builder.engine.step(StepOptions {
            chain: state.chain,
            is_windows: state.is_windows(),
            config,
            host_config,
            mounts: std::mem::take(&mut mounts.list),
            keep: Box::new((caches, std::mem::take(&mut mounts.keep))),
        })?;
        work.note(NoteKind::Running(step.id().to_string()));
        let output = |stream, data| {
            let stream = match stream {
                StepStream::Stdout => Stream::Stdout,
                StepStream::Stderr => Stream::Stderr,
            };
            work.log(stream, data);
            self.progress.ready()
        };
        let line = words.join(" ");
        let code = step.run(output).await.map_err(|error| not_begun(&line, &error))?;
        if code != 0 {
            let id = step.id().to_string();
            // buildkit wording
            let mut error = BuildError::new(
                ErrorKind::InvalidParameter,
                format!("process {line:?} did not complete successfully: exit code: {code}"),
            );
            // docker wording
            error.classic = Some(format!("The command '{line}' returned a non-zero code: {code}"));
            error.exit_code = Some(code);
            drop(step);
            work.note(NoteKind::Removed(id));
            return Err(error);
        }
        mounts::clean_up(&mounts, &step).await?;
        let made = step.commit(self.request.source_date_epoch).await?;
        work.note(NoteKind::Removed(step.id().to_string()));
        self.keep(state, key, None, turn, made)
    }
}

/// Fails for a stage whose programs this host's processor cannot run.
fn check_processor(image: &ImageConfig, words: &[String]) -> Result<(), BuildError> {
    let host = Platform::host();
    let (own, wanted) = (host.architecture.as_str(), image.architecture.as_str());
    let runs = wanted.is_empty()
        || wanted == own
        || matches!((own, wanted), ("amd64", "386") | ("arm64", "arm"))
        || (image.os != "windows" && is_emulated(wanted));
    if runs {
        return Ok(());
    }
    let program = words.first().map_or("", |line| line.split(' ').next().unwrap_or_default());
    let mut error = invalid(format!(
        "exec {program}: exec format error: the stage is for {}, and this host runs programs for {host} only",
        image.platform()
    ));
    error.exit_code = Some(255);
    Err(error)
}

/// Whether the kernel hands programs for a processor to an emulator, by the names that QEMU's
/// packages give these.
fn is_emulated(architecture: &str) -> bool {
    let name = match architecture {
        "amd64" => "x86_64",
        "386" => "i386",
        "arm64" => "aarch64",
        "mips64le" => "mips64el",
        "mipsle" => "mipsel",
        other => other,
    };
    fs_err::read_to_string(format!("/proc/sys/fs/binfmt_misc/qemu-{name}"))
        .is_ok_and(|text| text.starts_with("enabled"))
}

/// There is no PowerShell to be found in Wine: what it has under this name does nothing.
fn refuse_powershell(words: &[String]) -> Result<(), BuildError> {
    let line = words.join(" ").to_ascii_lowercase();
    let mut rest = line.as_str();
    for shell in ["cmd /s /c ", "cmd.exe /s /c ", "cmd /c "] {
        rest = rest.strip_prefix(shell).unwrap_or(rest);
    }
    let program = rest.trim_start_matches(['"', '@', ' ']);
    let program = program.split([' ', '"']).next().unwrap_or_default();
    let name = program.rsplit(['\\', '/']).next().unwrap_or_default();
    if matches!(name.strip_suffix(".exe").unwrap_or(name), "powershell") {
        return Err(invalid(
            "RUN powershell: Windows PowerShell is not in Silo's Windows containers; use cmd, or a program that the image brings",
        ));
    }
    Ok(())
}

/// The error for a program that could not be started.
fn not_begun(line: &str, cause: &silo_types::Error) -> BuildError {
    let reason = cause.message();
    // What is before it is about containers that `run` makes.
    let reason = reason.rsplit_once("OCI runtime create failed: ").map_or(reason, |(_, end)| end);
    // buildkit wording
    let text = format!("process {line:?} did not complete successfully: {reason}");
    let mut error = BuildError::new(cause.kind(), text);
    error.classic = Some(cause.message().to_owned());
    error
}

#[cfg(test)]
mod tests {
    use silo_dockerfile::ast::Instruction;

    use super::*;

    fn run_of(text: &str) -> Run {
        let file = silo_dockerfile::parse(format!("FROM a\n{text}\n").as_bytes()).unwrap();
        match file.stages[0].instructions[0].node.clone() {
            Instruction::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands() {
        let linux = State::scratch("linux", "amd64", "");
        let windows = State::scratch("windows", "amd64", "");
        for (text, state, words) in [
            ("RUN echo hi", &linux, vec!["/bin/sh", "-c", "echo hi"]),
            ("RUN [\"a\", \"b c\"]", &linux, vec!["a", "b c"]),
            ("RUN <<EOF\necho 1\necho 2\nEOF", &linux, vec!["/bin/sh", "-c", "echo 1\necho 2\n"]),
            (
                "RUN cat <<A <<B\n1\nA\n2\nB",
                &linux,
                vec!["/bin/sh", "-c", "cat <<A <<B\n1\nA\n2\nB"],
            ),
            ("RUN <<X\n#!/bin/sh\nY\nX", &linux, vec!["/bin/sh", "-c", "/dev/pipes/X"]),
            ("RUN dir \"C:\\x y\"", &windows, vec!["cmd /S /C dir \"C:\\x y\""]),
        ] {
            let command = command(state, &run_of(text));
            assert_eq!(command.words, words, "{text}");
            assert_eq!(command.script.is_some(), text.contains("#!"), "{text}");
            assert_eq!(command.escaped, state.is_windows(), "{text}");
        }
    }

    #[test]
    fn programs_of_other_processors_are_refused() {
        let host = Platform::host().architecture;
        let words = ["/bin/sh".to_owned(), "-c".to_owned()];
        let image = |architecture: &str| ImageConfig {
            os: "linux".into(),
            architecture: architecture.into(),
            ..ImageConfig::default()
        };
        for fine in ["", &*host] {
            check_processor(&image(fine), &words).unwrap();
        }
        let error = check_processor(&image("none-such"), &words).unwrap_err();
        assert!(error.message.starts_with("exec /bin/sh: exec format error"), "{error}");
        assert!(error.message.contains("linux/none-such"), "{error}");
    }

    #[test]
    fn powershell_is_refused() {
        for (line, refused) in [
            ("cmd /S /C powershell -Command x", true),
            ("cmd /S /C C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\PowerShell.exe x", true),
            ("powershell -Command x", true),
            ("cmd /S /C echo powershell", false),
            ("cmd /S /C pwsh x", false),
        ] {
            assert_eq!(refuse_powershell(&[line.to_owned()]).is_err(), refused, "{line}");
        }
    }
}

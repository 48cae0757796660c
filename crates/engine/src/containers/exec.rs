//! Processes that are started in a running container.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use silo_docker::exec::{ExecCreateRequest, ExecInspect, ExecProcessConfig, ExecStartRequest};
use silo_oci::runtime::Process;
use silo_shim::config::ConsoleSize;
use silo_shim::exit::ExitRecord;
use silo_shim::protocol::{AtEof, AttachOptions, ExecSpec, ProcessRef};
use silo_shim::{AttachStream, ShimError};
use silo_types::{Error, ErrorKind, ExecId, Kind};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::attach::{Attachment, Deframer};
use crate::container::{Container, Record};
use crate::detach;
use crate::engine::Engine;
use crate::spec::{self, process};

/// Exit codes of a process that could not be run.
const CANNOT_EXECUTE: i64 = 126;
const NOT_FOUND: i64 = 127;
/// How long an exec that has ended can be inspected.
const REMEMBERED: Duration = Duration::from_mins(5);
/// How long a start of a check may take.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How far an exec is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Progress {
    running: bool,
    pid: i32,
    exit_code: Option<i64>,
    /// When it ended, for being forgotten.
    ended: Option<std::time::Instant>,
}

/// A process that was, is or will be started in a container.
#[derive(Debug)]
pub struct Exec {
    /// Its id.
    pub id: ExecId,
    /// Its container.
    pub container: Arc<Container>,
    /// What was asked for.
    pub(crate) request: ExecCreateRequest,
    /// Its detach keys.
    pub(crate) keys: Vec<u8>,
    /// It is the engine's own, of which no events tell.
    internal: bool,
    progress: watch::Sender<Progress>,
    /// Held until it is known whether the program started, which may be after its end.
    starting: tokio::sync::Mutex<()>,
}

/// What a start gives.
#[derive(Debug)]
pub enum ExecStarted {
    /// It runs by itself.
    Detached,
    /// The client is attached.
    Attached(Attachment),
}

/// An exec whose client has not been answered yet. One that is dropped will never run.
#[derive(Debug)]
pub(crate) struct Unstarted {
    exec: Option<Arc<Exec>>,
    size: Option<[u32; 2]>,
}

impl Unstarted {
    pub(crate) fn new(exec: &Arc<Exec>, size: Option<[u32; 2]>) -> Self {
        Self { exec: Some(Arc::clone(exec)), size }
    }

    /// Runs it and returns its streams.
    pub(crate) async fn start(
        mut self,
        engine: &Arc<Engine>,
    ) -> Result<Option<AttachStream>, Error> {
        match self.exec.take() {
            Some(exec) => engine.run_exec(&exec, true, self.size).await,
            None => Ok(None),
        }
    }
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if let Some(exec) = self.exec.take() {
            exec.end(CANNOT_EXECUTE);
        }
    }
}

impl Exec {
    /// Records the end, unless it was recorded before.
    pub(crate) fn end(&self, code: i64) {
        self.progress.send_modify(|progress| {
            progress.running = false;
            progress.exit_code.get_or_insert(code);
            progress.ended.get_or_insert_with(std::time::Instant::now);
        });
        let mut running = self.container.execs.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|id| id != self.id.as_str());
    }

    /// Waits for the end and returns the exit code.
    pub(crate) async fn wait(&self) -> i64 {
        let mut watch = self.progress.subscribe();
        let ended = watch.wait_for(|progress| progress.exit_code.is_some()).await;
        ended.ok().and_then(|progress| progress.exit_code).unwrap_or(CANNOT_EXECUTE)
    }

    fn command_line(&self) -> String {
        self.request.cmd.join(" ")
    }

    fn can_be_forgotten(&self) -> bool {
        self.progress.borrow().ended.is_some_and(|ended| ended.elapsed() > REMEMBERED)
    }
}

impl Engine {
    /// Prepares a process in a running container.
    pub async fn exec_create(
        self: &Arc<Self>,
        name: &str,
        request: ExecCreateRequest,
    ) -> Result<String, Error> {
        let container = self.container(name)?;
        // docker wording, throughout
        if request.cmd.is_empty() {
            return Err(Error::invalid("No exec command specified"));
        }
        Self::check_exec(&container, name)?;
        let keys = detach::parse(&request.detach_keys).map_err(|_| {
            Error::invalid(format!("Invalid escape keys ({}) provided", request.detach_keys))
        })?;
        if !request.working_dir.is_empty() && request.working_dir.contains('\0') {
            return Err(Error::invalid("invalid working directory: it contains a zero byte"));
        }
        if crate::windows::is(&container.record()) {
            crate::windows::account(&request.user)?;
        } else if !request.user.is_empty() {
            self.resolve_user(&container, &container.record(), &request.user).await?;
        }
        let exec = self.new_exec(&container, request, keys);
        Ok(exec.id.to_string())
    }

    fn new_exec(
        &self,
        container: &Arc<Container>,
        request: ExecCreateRequest,
        keys: Vec<u8>,
    ) -> Arc<Exec> {
        let exec = self.remember_exec(container, request, keys, false);
        let action = format!("exec_create: {}", exec.command_line());
        self.container_event(container, &action, &[("execID", exec.id.as_str())]);
        exec
    }

    fn remember_exec(
        &self,
        container: &Arc<Container>,
        request: ExecCreateRequest,
        keys: Vec<u8>,
        internal: bool,
    ) -> Arc<Exec> {
        let exec = Arc::new(Exec {
            id: ExecId::random(),
            container: Arc::clone(container),
            request,
            keys,
            internal,
            progress: watch::Sender::new(Progress::default()),
            starting: tokio::sync::Mutex::new(()),
        });
        self.containers.exec_retain(|exec| !exec.can_be_forgotten());
        self.containers.exec_insert(Arc::clone(&exec));
        exec
    }

    /// Runs a program of the engine's own in a container: its exit code, or `None` when it took
    /// too long.
    pub(crate) async fn run_internal(
        self: &Arc<Self>,
        container: &Arc<Container>,
        request: ExecCreateRequest,
        timeout: Duration,
    ) -> Result<Option<i64>, Error> {
        let exec = self.remember_exec(container, request, Vec::new(), true);
        exec.progress.send_modify(|progress| progress.running = true);
        let run = async {
            self.run_exec(&exec, false, None).await?;
            Ok::<_, Error>(exec.wait().await)
        };
        match tokio::time::timeout(timeout, run).await {
            Ok(code) => code.map(Some),
            Err(_) => {
                if let Some(shim) = container.shim() {
                    let process = ProcessRef::Exec(exec.id.clone());
                    drop(shim.signal(process, crate::signal::KILL).await);
                }
                Ok(None)
            }
        }
    }

    /// The container must be able to run another process.
    fn check_exec(container: &Container, name: &str) -> Result<(), Error> {
        let state = container.state();
        if !state.running {
            drop(state);
            return Err(container.not_running());
        }
        if state.paused {
            return Err(Error::conflict(format!(
                "Container {name} is paused, unpause the container before exec"
            )));
        }
        if state.restarting {
            return Err(Error::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        Ok(())
    }

    fn exec(&self, id: &str) -> Result<Arc<Exec>, Error> {
        self.containers
            .exec(id)
            .ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }

    /// Starts a prepared process.
    pub async fn exec_start(
        self: &Arc<Self>,
        id: &str,
        request: ExecStartRequest,
    ) -> Result<ExecStarted, Error> {
        let exec = self.exec(id)?;
        Self::check_exec(&exec.container, exec.container.id.as_str())?;
        let mut refused = None;
        exec.progress.send_modify(|progress| {
            if progress.exit_code.is_some() {
                refused = Some("has already run");
            } else if progress.running {
                refused = Some("is already running");
            } else {
                progress.running = true;
            }
        });
        if let Some(reason) = refused {
            return Err(Error::conflict(format!("exec command {id} {reason}")));
        }
        let action = format!("exec_start: {}", exec.command_line());
        self.container_event(&exec.container, &action, &[("execID", exec.id.as_str())]);
        let size = request.console_size.or(exec.request.console_size);
        if !request.detach {
            return Ok(ExecStarted::Attached(self.attachment_of_exec(&exec, size)));
        }
        self.run_exec(&exec, false, size).await?;
        Ok(ExecStarted::Detached)
    }

    /// Runs the process; with `attach` returns its streams.
    async fn run_exec(
        self: &Arc<Self>,
        exec: &Arc<Exec>,
        attach: bool,
        size: Option<[u32; 2]>,
    ) -> Result<Option<AttachStream>, Error> {
        let container = &exec.container;
        let prepared = async {
            let shim = container.running_shim()?;
            if crate::windows::is(&container.record()) {
                let own = Self::own_process(container)?;
                let exec = Arc::clone(exec);
                // It reads the container's registry.
                let (process, name) = super::archive::blocking(move || {
                    Self::windows_exec(&exec.container, exec.id.as_str(), &exec.request, &own)
                })
                .await?;
                return Ok::<_, Error>((shim, process, Some(name)));
            }
            let process = self.exec_process(container, &exec.request).await?;
            Ok::<_, Error>((shim, process, None))
        };
        let (shim, process, windows) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => {
                exec.end(CANNOT_EXECUTE);
                return Err(error);
            }
        };
        let console_size = size.and_then(|[height, width]| {
            Some(ConsoleSize {
                rows: u16::try_from(height).ok()?,
                columns: u16::try_from(width).ok()?,
            })
        });
        let request = &exec.request;
        let spec = ExecSpec {
            id: exec.id.clone(),
            process,
            console_size,
            attach: AttachOptions {
                stdin: request.attach_stdin,
                stdout: request.attach_stdout || !(request.attach_stdin || request.attach_stderr),
                stderr: request.attach_stderr && !request.tty,
                at_eof: AtEof::CloseStdin,
                unlogged: false,
            },
        };
        container.execs.lock().unwrap_or_else(PoisonError::into_inner).push(exec.id.to_string());
        let _starting = exec.starting.lock().await;
        let started = if attach {
            shim.exec_attached(spec).await.map(|(pid, stream)| (pid, Some(stream)))
        } else {
            shim.exec(spec).await.map(|pid| (pid, None))
        };
        match started {
            Ok((pid, stream)) => {
                exec.progress.send_modify(|progress| progress.pid = pid);
                if let Some(name) = windows
                    && let Err((code, error)) =
                        Self::windows_exec_started(container, &name, pid, &exec.request).await
                {
                    exec.end(code);
                    return Err(error);
                }
                Ok(stream)
            }
            Err(error) => {
                let (code, error) = exec_failure(&error, container);
                exec.end(code);
                Err(error)
            }
        }
    }

    /// The container's own process, as its specification has it.
    fn own_process(container: &Container) -> Result<Arc<Process>, Error> {
        container.process().ok_or_else(|| {
            Error::internal(format!("the specification of container {} is gone", container.id))
        })
    }

    /// What an exec runs: the container's own process, changed by what was asked for.
    async fn exec_process(
        self: &Arc<Self>,
        container: &Arc<Container>,
        request: &ExecCreateRequest,
    ) -> Result<Process, Error> {
        let record: Arc<Record> = container.record();
        let own = Self::own_process(container)?;
        let mut process = (*own).clone();
        // A linked container may have ended meanwhile.
        let linked = self.links(&record).unwrap_or_default().env;
        let mut env =
            process::environment(&record.config.hostname, request.tty, &linked, &record.config.env);
        env = process::merge_env(env, &request.env);
        let mut home = own.env.iter().find_map(|variable| variable.strip_prefix("HOME="));
        let resolved;
        if !request.user.is_empty() {
            resolved = self.resolve_user(container, &record, &request.user).await?;
            process.user.uid = resolved.uid;
            process.user.gid = resolved.gid;
            process.user.additional_gids.clone_from(&resolved.groups);
            home = Some(&resolved.home);
        }
        process::add_home(&mut env, home.unwrap_or("/"));
        process.env = env;
        process.args = request.cmd.to_vec();
        process.terminal = request.tty;
        process.console_size = None;
        process.cwd = if request.working_dir.is_empty() {
            spec::working_directory(&record.config).into()
        } else {
            crate::mountpoints::clean(&request.working_dir).into()
        };
        if request.privileged {
            let all = self.host.capabilities.iter().map(|&name| name.to_owned()).collect();
            process.capabilities = Some(spec::capability_sets(all));
        }
        Ok(process)
    }

    /// An exec's end, as its shim reports it.
    pub(crate) async fn exec_ended(&self, id: &str, exit: &ExitRecord) {
        let Some(exec) = self.containers.exec(id) else { return };
        // What the start of a Windows program leaves is read before it goes.
        drop(exec.starting.lock().await);
        let told = crate::windows::is(&exec.container.record())
            .then(|| crate::windows::exec_exit_code(&exec.container, id))
            .flatten();
        let code = told.unwrap_or_else(|| exit.code.into());
        exec.end(code);
        if exec.internal {
            return;
        }
        let code = code.to_string();
        self.container_event(&exec.container, "exec_die", &[("execID", id), ("exitCode", &code)]);
    }

    /// What is known of an exec.
    pub fn exec_inspect(&self, id: &str) -> Result<ExecInspect, Error> {
        let exec = self.exec(id)?;
        let progress = *exec.progress.borrow();
        let request = &exec.request;
        let keys = if request.detach_keys.is_empty() {
            String::new()
        } else {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(&exec.keys)
        };
        Ok(ExecInspect {
            id: exec.id.to_string(),
            running: progress.running,
            exit_code: progress.exit_code,
            process_config: ExecProcessConfig {
                tty: request.tty,
                entrypoint: request.cmd.first().cloned().unwrap_or_default(),
                arguments: request.cmd.iter().skip(1).cloned().collect(),
                privileged: Some(request.privileged),
                user: request.user.clone(),
            },
            open_stdin: request.attach_stdin,
            open_stderr: request.attach_stderr,
            open_stdout: request.attach_stdout,
            can_remove: false,
            container_id: exec.container.id.to_string(),
            detach_keys: keys,
            pid: progress.pid,
        })
    }

    /// Sets the size of an exec's terminal.
    pub async fn exec_resize(&self, id: &str, height: u16, width: u16) -> Result<(), Error> {
        let exec = self.exec(id)?;
        Self::check_exec(&exec.container, exec.container.id.as_str())?;
        // A client may ask as soon as it has sent the start.
        let mut watch = exec.progress.subscribe();
        let begun = watch.wait_for(|progress| progress.pid != 0 || progress.exit_code.is_some());
        if !matches!(tokio::time::timeout(Duration::from_secs(10), begun).await, Ok(Ok(_))) {
            return Err(Error::internal("timeout waiting for exec session ready"));
        }
        if exec.progress.borrow().pid == 0 {
            return Err(Error::invalid("exec process is not started"));
        }
        let shim = exec.container.running_shim()?;
        let process = ProcessRef::Exec(exec.id.clone());
        Self::windows_resize(&exec.container, &process, height, width);
        let size = ConsoleSize { rows: height, columns: width };
        shim.resize(ProcessRef::Exec(exec.id.clone()), size).await.map_err(Error::from_kind)
    }

    /// Runs a health check: its exit code and the beginning of its output, or `None` when it took
    /// too long.
    pub(crate) async fn probe(
        self: &Arc<Self>,
        container: &Arc<Container>,
        command: &[String],
        timeout: Duration,
        output_limit: usize,
    ) -> Result<Option<(i64, String)>, Error> {
        let request = ExecCreateRequest {
            cmd: command.to_vec().into(),
            attach_stdout: true,
            attach_stderr: true,
            ..ExecCreateRequest::default()
        };
        let exec = self.new_exec(container, request, Vec::new());
        exec.progress.send_modify(|progress| progress.running = true);
        let action = format!("exec_start: {}", exec.command_line());
        self.container_event(container, &action, &[("execID", exec.id.as_str())]);
        let started = tokio::time::timeout(START_TIMEOUT, self.run_exec(&exec, true, None));
        let stream = started.await.map_err(|_| {
            Error::internal(format!(
                "timed out starting health check for container {}",
                container.id
            ))
        })??;
        let mut output = Vec::new();
        let finish = async {
            if let Some(mut stream) = stream {
                let (mut deframer, mut buffer) = (Deframer::default(), vec![0; 4096]);
                let mut piece = Vec::new();
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    piece.clear();
                    deframer.feed(&buffer[..count], &mut piece);
                    let room = output_limit.saturating_sub(output.len());
                    output.extend_from_slice(&piece[..piece.len().min(room)]);
                }
            }
            exec.wait().await
        };
        let outcome = tokio::time::timeout(timeout, finish).await;
        if outcome.is_err()
            && let Some(shim) = container.shim()
        {
            let process = ProcessRef::Exec(exec.id.clone());
            drop(shim.signal(process, crate::signal::KILL).await);
        }
        let output = String::from_utf8_lossy(&output).into_owned();
        Ok(outcome.ok().map(|code| (code, output)))
    }
}

/// The exit code and the message of an exec that could not be run.
fn exec_failure(error: &ShimError, container: &Container) -> (i64, Error) {
    let cause = silo_types::error::chain(error);
    let lower = cause.to_ascii_lowercase();
    let missing = lower.contains("executable file not found") || lower.contains("no such file");
    let guess = if missing { NOT_FOUND } else { CANNOT_EXECUTE };
    let code = error.exit_code().map_or(guess, i64::from);
    if error.kind() == ErrorKind::Unavailable {
        return (code, container.not_running());
    }
    // docker wording
    let message = format!("OCI runtime exec failed: exec failed: {cause}");
    (code, Error::new(ErrorKind::InvalidParameter, message))
}

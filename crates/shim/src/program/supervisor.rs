//! The loop that everything happens in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Pid;
use silo_sys::process::{Ended, try_wait};
use silo_types::ErrorKind;

use super::client::Client;
use super::compute::{Compute, Launched};
use super::connection::Connection;
use super::process::{CHUNK, Part, Process, Streams};
use crate::config::{ConsoleSize, ShimConfig};
use crate::exit::{self, ExitRecord};
use crate::logs::Stream;
use crate::logs::writer::{LogWriter, now};
use crate::protocol::{
    AttachOptions, Call, Event, ExecSpec, ExecState, Failure, Message, ProcessRef, Reply, State,
    Status,
};

/// How long the end of a later process is kept back while others hold its output open, as
/// dockerd does.
const GRACE: Duration = Duration::from_secs(2);

/// A shim's whole state. The container's first process is `processes[0]`.
#[derive(Debug)]
pub(super) struct Supervisor<C> {
    config: ShimConfig,
    compute: C,
    log: LogWriter,
    /// The lock on the container's directory, until nothing is left of the container.
    claim: Option<OwnedFd>,
    /// Whether the daemon that wanted the container is gone.
    orphaned: bool,
    listener: Option<UnixListener>,
    connections: Vec<Connection>,
    processes: Vec<Process>,
    buffer: Vec<u8>,
    status: Status,
    started_at: i64,
    /// How the first process ended, until that has been dealt with.
    ended: Option<ExitRecord>,
    /// Why the program could not be run.
    start_failure: Option<Failure>,
    oom_killed: bool,
}

/// What poll(2) can report on.
#[derive(Debug, Clone, Copy)]
enum Source {
    Listener,
    Oom,
    Connection(usize),
    Process(usize, Part),
}

impl<C: Compute> Supervisor<C> {
    /// Creates the container.
    pub(super) fn create(
        config: ShimConfig,
        mut compute: C,
        log: LogWriter,
    ) -> Result<Self, Failure> {
        let pipes =
            || Streams::pipes(config.open_stdin, true, true).map_err(internal("make pipes"));
        let (streams, launched) = if config.tty {
            let size = config.console_size.map(Into::into);
            let launched = compute.create(silo_runtime::Stdio::Terminal { size })?;
            (None, launched)
        } else {
            let (streams, stdio) = pipes()?;
            (Some(streams), compute.create(stdio)?)
        };
        let init = process(ProcessRef::Init, launched, streams, config.open_stdin);
        let init = match init {
            Ok(init) => init,
            Err(failure) => {
                compute.destroy();
                return Err(failure);
            }
        };
        Ok(Self {
            config,
            compute,
            log,
            claim: None,
            orphaned: false,
            listener: None,
            connections: Vec::new(),
            processes: vec![init],
            buffer: Vec::new(),
            status: Status::Created,
            started_at: 0,
            ended: None,
            start_failure: None,
            oom_killed: false,
        })
    }

    /// What it was told.
    pub(super) fn config(&self) -> &ShimConfig {
        &self.config
    }

    /// Takes a container back that nobody can reach.
    pub(super) fn abandon(mut self) {
        drop(self.signal(&ProcessRef::Init, 9, false));
        drop(silo_sys::process::wait(&self.processes[0].pidfd));
        remove_run_files(&self.config);
        self.compute.destroy();
    }

    /// Takes another way of being called.
    pub(super) fn listen(&mut self, listener: UnixListener) {
        self.listener = Some(listener);
    }

    /// Serves the connection on which the shim was born, which gets the state at once, and holds
    /// `claim` as long as there is something of the container.
    pub(super) fn serve(&mut self, mut connection: Connection, claim: OwnedFd) {
        self.claim = Some(claim);
        connection.first = true;
        let state = Reply::State(self.state());
        connection.send(&Message::Reply { id: 0, result: Ok(state) });
        self.connections.push(connection);
    }

    /// Runs until the container has ended and everything it wrote is where it belongs. If the
    /// daemon is lost before it has started the container, nobody knows that there is one, and
    /// it is taken back.
    pub(super) fn run(mut self) {
        self.settle();
        while !self.is_done() {
            if self.orphaned && self.status == Status::Created && self.start_failure.is_none() {
                return self.abandon();
            }
            match self.wait() {
                Ok(ready) => {
                    for (source, flags) in ready {
                        self.ready(source, flags);
                    }
                    if let Some(record) = self.ended.take() {
                        self.finish(record);
                    }
                }
                // Only for want of memory or descriptors: what is there is still to be served.
                Err(_) => continue,
            }
            self.settle();
        }
    }

    fn is_done(&self) -> bool {
        matches!(self.status, Status::Exited(_))
            && self.processes.iter().all(|process| process.clients.is_empty())
            && self.connections.iter().all(Connection::is_flushed)
    }

    fn wait(&self) -> rustix::io::Result<Vec<(Source, PollFlags)>> {
        let (mut sources, mut fds) = (Vec::new(), Vec::new());
        let mut add = |source, fd| {
            sources.push(source);
            fds.push(fd);
        };
        if let Some(listener) = &self.listener {
            add(Source::Listener, PollFd::new(listener, PollFlags::IN));
        }
        if let Some((oom, flags)) = self.compute.oom() {
            add(Source::Oom, PollFd::from_borrowed_fd(oom, flags));
        }
        for (index, connection) in self.connections.iter().enumerate() {
            let (fd, flags) = connection.interest();
            add(Source::Connection(index), PollFd::from_borrowed_fd(fd, flags));
        }
        for (index, process) in self.processes.iter().enumerate() {
            process.interests(&mut |part, fd| add(Source::Process(index, part), fd));
        }
        let timeout = self.timeout();
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let mut ready: Vec<_> = sources
            .into_iter()
            .zip(fds.iter().map(PollFd::revents))
            .filter(|(_, flags)| !flags.is_empty())
            .collect();
        // What a process wrote comes before its end, and both before new wishes.
        ready.sort_by_key(|(source, _)| match source {
            Source::Process(_, Part::Exit) => 1,
            Source::Process(..) | Source::Oom => 0,
            Source::Connection(_) | Source::Listener => 2,
        });
        Ok(ready)
    }

    fn timeout(&self) -> Option<Timespec> {
        let left = if self.log.has_work() {
            Duration::ZERO
        } else {
            let deadline = self.processes.iter().filter_map(|process| process.grace).min()?;
            deadline.saturating_duration_since(Instant::now())
        };
        Timespec::try_from(left).ok()
    }

    fn ready(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Oom => self.oom(),
            Source::Connection(index) => self.connection_ready(index, flags),
            Source::Process(index, part) => {
                self.buffer.resize(CHUNK, 0);
                let process = &mut self.processes[index];
                match part {
                    Part::Exit => self.reap(index),
                    Part::Stdin => process.stdin_ready(),
                    Part::Output(stream) => {
                        process.read_output(stream, &mut self.buffer, &mut self.log);
                    }
                    Part::Client(client) => {
                        let stdin_once = self.config.stdin_once;
                        process.client_ready(client, flags, &mut self.buffer, stdin_once);
                    }
                }
            }
        }
    }

    fn accept(&mut self) {
        // One that went away again, or for which there is no descriptor, is no loss.
        if let Some(Ok((stream, _))) = self.listener.as_ref().map(UnixListener::accept) {
            self.connections.push(Connection::new(stream.into(), false));
        }
    }

    fn oom(&mut self) {
        if self.compute.take_oom() {
            self.oom_killed = true;
            self.publish(&Event::Oom);
        }
    }

    fn connection_ready(&mut self, index: usize, flags: PollFlags) {
        if flags.contains(PollFlags::OUT) {
            self.connections[index].flush();
        }
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        for request in self.connections[index].receive() {
            let result = self.call(index, request.call);
            self.connections[index].send(&Message::Reply { id: request.id, result });
        }
    }

    /// Does what has to be done after anything happened.
    fn settle(&mut self) {
        self.log.idle();
        if let Some(error) = self.log.take_failure() {
            self.publish(&Event::Warning(format!("write log: {error}")));
        }
        self.announce();
        for process in &mut self.processes {
            process.sweep();
        }
        self.orphaned |=
            self.connections.iter().any(|connection| connection.first && connection.dead);
        self.connections.retain(|connection| !connection.dead);
        let exited = matches!(self.status, Status::Exited(_));
        self.processes.retain(|process| {
            process.id == ProcessRef::Init
                || !process.announced
                || !process.clients.is_empty()
                || !(process.is_silent() || exited)
        });
    }

    /// Tells of later processes that have ended and whose output is complete, or that will not
    /// be waited for any longer.
    fn announce(&mut self) {
        let time = Instant::now();
        for index in 1..self.processes.len() {
            let process = &mut self.processes[index];
            let late = process.grace.is_some_and(|deadline| deadline <= time);
            if process.announced || !(process.is_silent() || late) {
                continue;
            }
            if let Some(exit) = process.exit.clone() {
                process.grace = None;
                process.announced = true;
                process.end_clients();
                let process = process.id.clone();
                self.publish(&Event::Exited { process, exit });
            }
        }
    }

    fn publish(&mut self, event: &Event) {
        let message = Message::Event(event.clone());
        for connection in self.connections.iter_mut().filter(|connection| connection.subscribed) {
            connection.send(&message);
        }
    }

    /// Collects a process that has ended.
    fn reap(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let waited = try_wait(&process.pidfd);
        let mut record = match waited {
            Ok(Some(ended)) => record(ended),
            Ok(None) => return,
            Err(error) => {
                let mut unknown = ExitRecord::unknown(jiff::Timestamp::now());
                unknown.error = Some(format!("wait for the process: {error}"));
                unknown
            }
        };
        if index > 0 {
            process.drain(&mut self.buffer, &mut self.log);
            process.close_stdin();
            process.grace = (!process.is_silent()).then(|| Instant::now() + GRACE);
            process.exit = Some(record);
            return;
        }
        self.oom();
        record.started_at = self.started_at;
        record.oom_killed = self.oom_killed;
        if let Some(failure) = self.start_failure.take() {
            record.code = failure.exit_code.unwrap_or(record.code);
            record.signal = None;
            record.error = Some(failure.message);
        }
        self.ended = Some(record);
    }

    /// The first process has ended, and so has the container.
    fn finish(&mut self, record: ExitRecord) {
        self.compute.kill_rest();
        for process in &mut self.processes {
            process.drain(&mut self.buffer, &mut self.log);
            process.close_outputs(&mut self.log);
        }
        self.processes[0].exit = Some(record.clone());
        self.status = Status::Exited(record.clone());
        if let Err(error) = exit::write(&self.config.container_dir, &record) {
            self.publish(&Event::Warning(format!("write exit record: {error}")));
        }
        for index in 1..self.processes.len() {
            if self.processes[index].exit.is_none() {
                self.processes[index].exit = Some(self.last_words(index));
            }
        }
        self.announce();
        self.publish(&Event::Exited { process: ProcessRef::Init, exit: record });
        self.listener = None;
        remove_run_files(&self.config);
        self.compute.destroy();
        self.claim = None;
        self.publish(&Event::Released);
    }

    /// The end of a later process that the container's end took along.
    fn last_words(&self, index: usize) -> ExitRecord {
        match try_wait(&self.processes[index].pidfd) {
            Ok(Some(ended)) => record(ended),
            _ => record(Ended::Killed(9)),
        }
    }

    fn state(&self) -> State {
        State {
            shim_pid: rustix::process::getpid().as_raw_nonzero().get(),
            pid: self.processes[0].pid,
            status: self.status.clone(),
            started_at: self.started_at,
            execs: self.processes[1..]
                .iter()
                .filter(|process| !process.announced)
                .filter_map(|process| match &process.id {
                    ProcessRef::Exec(id) => Some(ExecState { id: id.clone(), pid: process.pid }),
                    ProcessRef::Init => None,
                })
                .collect(),
        }
    }

    fn call(&mut self, connection: usize, call: Call) -> Result<Reply, Failure> {
        let mut descriptor = || {
            self.connections[connection]
                .take_fd()
                .ok_or_else(|| Failure::new(ErrorKind::InvalidParameter, "no socket came along"))
        };
        match call {
            Call::State { subscribe } => {
                self.connections[connection].subscribed |= subscribe;
                Ok(Reply::State(self.state()))
            }
            Call::Start => self.start(),
            Call::Signal { process, signal, all } => self.signal(&process, signal, all),
            Call::Exec { spec, client } => {
                let client = client.then(descriptor).transpose()?;
                self.exec(&spec, client)
            }
            Call::Resize { process, size } => self.resize(&process, size),
            Call::Attach { process, options } => {
                let socket = descriptor()?;
                self.attach(&process, socket, options)
            }
            Call::CloseStdin { process } => {
                self.live(&process)?.close_stdin();
                Ok(Reply::Done)
            }
            Call::ReopenLog => {
                self.log.reopen().map_err(internal("reopen log"))?;
                Ok(Reply::Done)
            }
            Call::UpdateLog { log } => {
                self.log.update(&log).map_err(internal("open log"))?;
                self.config.log = log;
                Ok(Reply::Done)
            }
            Call::Shutdown => {
                self.compute.kill_all();
                // Where that was not enough; it may as well be gone by now.
                drop(self.signal(&ProcessRef::Init, 9, false));
                Ok(Reply::Done)
            }
        }
    }

    /// A process that has not ended.
    fn live(&mut self, id: &ProcessRef) -> Result<&mut Process, Failure> {
        self.processes
            .iter_mut()
            .find(|process| process.id == *id && process.exit.is_none())
            .ok_or_else(|| Failure::new(ErrorKind::NotFound, "no such process, or it has ended"))
    }

    fn start(&mut self) -> Result<Reply, Failure> {
        if self.status != Status::Created || self.start_failure.is_some() {
            return Err(Failure::new(ErrorKind::Conflict, "the container was started before"));
        }
        // The moment is taken before, so that nothing the program does is earlier.
        let at = now();
        match self.compute.start() {
            Ok(()) => {
                self.started_at = at;
                self.status = Status::Running;
                Ok(Reply::Started { pid: self.processes[0].pid, at })
            }
            Err(failure) => {
                self.start_failure = Some(failure.clone());
                // It waits for nothing any more; usually it has ended by itself.
                drop(self.signal(&ProcessRef::Init, 9, false));
                Err(failure)
            }
        }
    }

    fn signal(&mut self, process: &ProcessRef, signal: i32, all: bool) -> Result<Reply, Failure> {
        if all {
            self.compute.signal_all(signal)?;
            return Ok(Reply::Done);
        }
        let pidfd = &self.live(process)?.pidfd;
        let sent = silo_sys::process::send_signal(pidfd, signal);
        match sent {
            Ok(()) => Ok(Reply::Done),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                Err(Failure::new(ErrorKind::NotFound, "the process has ended"))
            }
            Err(error) => Err(internal("send signal")(error)),
        }
    }

    fn resize(&mut self, process: &ProcessRef, size: ConsoleSize) -> Result<Reply, Failure> {
        let process = self.live(process)?;
        // A process without a terminal has no size; dockerd says nothing to that either.
        if let Some(master) = process.master() {
            silo_sys::pty::set_size(master, size.into()).map_err(internal("resize terminal"))?;
        }
        Ok(Reply::Done)
    }

    fn attach(
        &mut self,
        process: &ProcessRef,
        socket: OwnedFd,
        options: AttachOptions,
    ) -> Result<Reply, Failure> {
        let mut client = Client::new(socket, options);
        if options.unlogged && *process == ProcessRef::Init {
            for stream in [Stream::Stdout, Stream::Stderr] {
                client.send(stream, self.log.held(stream));
            }
        }
        let mark = self.log.mark();
        let process = self.live(process)?;
        if process.is_silent() {
            client.end();
        }
        process.clients.push(client);
        Ok(Reply::Attached { mark })
    }

    fn init_pid(&self) -> Result<Pid, Failure> {
        Pid::from_raw(self.processes[0].pid)
            .ok_or_else(|| Failure::new(ErrorKind::Internal, "the first process has no id"))
    }

    fn exec(&mut self, spec: &ExecSpec, client: Option<OwnedFd>) -> Result<Reply, Failure> {
        if self.status != Status::Running {
            return Err(Failure::new(ErrorKind::Conflict, "the container is not running"));
        }
        let id = ProcessRef::Exec(spec.id.clone());
        if self.processes.iter().any(|process| process.id == id) {
            return Err(Failure::new(ErrorKind::Conflict, "a process of this id runs already"));
        }
        let init = (self.init_pid()?, self.processes[0].pidfd.as_fd());
        let wanted = |wanted| client.is_some() && wanted;
        let stdin = wanted(spec.attach.stdin);
        let (streams, stdio) = if spec.process.terminal {
            let size = spec.console_size.map(Into::into);
            (None, silo_runtime::Stdio::Terminal { size })
        } else {
            let (stdout, stderr) = (wanted(spec.attach.stdout), wanted(spec.attach.stderr));
            let (streams, stdio) =
                Streams::pipes(stdin, stdout, stderr).map_err(internal("make pipes"))?;
            (Some(streams), stdio)
        };
        let launched = self.compute.exec(init, &spec.process, stdio)?;
        let mut process = process(id, launched, streams, stdin)?;
        process.clients.extend(client.map(|socket| Client::new(socket, spec.attach)));
        let (pid, at) = (process.pid, now());
        self.processes.push(process);
        Ok(Reply::Started { pid, at })
    }
}

fn process(
    id: ProcessRef,
    launched: Launched,
    streams: Option<Streams>,
    stdin: bool,
) -> Result<Process, Failure> {
    let terminal = launched.console.is_some();
    let streams = match (launched.console, streams) {
        (Some(master), _) => {
            Streams::terminal(master, stdin).map_err(internal("prepare terminal"))?
        }
        (None, Some(streams)) => streams,
        (None, None) => {
            return Err(Failure::new(ErrorKind::Internal, "the process got no terminal"));
        }
    };
    let mut process =
        Process::new(id, launched.pid.as_raw_nonzero().get(), launched.pidfd, streams);
    process.terminal = terminal;
    Ok(process)
}

/// How a process ended, now.
fn record(ended: Ended) -> ExitRecord {
    ExitRecord {
        code: ended.code(),
        signal: match ended {
            Ended::Exited(_) => None,
            Ended::Killed(signal) => Some(signal),
        },
        oom_killed: false,
        started_at: 0,
        finished_at: now(),
        error: None,
    }
}

/// Removes what the shim put into its run directory, which stays for the next one.
pub(super) fn remove_run_files(config: &ShimConfig) {
    for name in ["shim.sock", "pid"] {
        // What is not there need not be removed.
        drop(fs_err::remove_file(config.run_dir.join(name)));
    }
}

/// Names the step in which a call of the system failed.
pub(super) fn internal<E: Into<io::Error>>(step: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::new(ErrorKind::Internal, format!("{step}: {}", error.into()))
}

//! Carries what arrives at a published port by IPv6 to a container that has only IPv4.
//!
//! The kernel can not translate between the families, so a thread of this process copies. It
//! starts with the first such port. Ports vanish with the engine and are back after
//! [`crate::Network::adopt`]; connections through them do not survive the engine.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use crate::port::{PortBinding, Protocol};

/// Connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 512;
/// A UDP flow ends when nothing came for this long.
const UDP_IDLE: Duration = Duration::from_secs(90);
const UDP_MAX_FLOWS: usize = 1024;

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Udp { socket: UdpSocket, flows: HashMap<SocketAddr, Flow> },
}

#[derive(Debug)]
struct Flow {
    socket: UdpSocket,
    last: Instant,
}

#[derive(Debug, Default)]
struct Commands {
    add: Vec<(PortBinding, SocketAddrV4, OwnedFd)>,
    remove: Vec<PortBinding>,
    /// Told when all of this is done.
    done: Vec<Sender<()>>,
    stop: bool,
}

/// Handle of the relay thread.
#[derive(Debug)]
pub(crate) struct Relay {
    commands: Arc<Mutex<Commands>>,
    wake: Arc<OwnedFd>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Relay {
    pub(crate) fn start() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(rustix::event::eventfd(0, flags)?);
        let commands = Arc::new(Mutex::new(Commands::default()));
        let thread = std::thread::Builder::new().name("silo-relay".into()).spawn({
            let (commands, wake) = (Arc::clone(&commands), Arc::clone(&wake));
            move || run(&commands, &wake)
        })?;
        Ok(Self { commands, wake, thread: Some(thread) })
    }

    fn command(&self, change: impl FnOnce(&mut Commands)) {
        change(&mut self.commands.lock().unwrap_or_else(PoisonError::into_inner));
        wake(&self.wake);
    }

    /// Serves the bound `socket` of `binding` for `target`.
    pub(crate) fn add(&self, binding: PortBinding, target: SocketAddrV4, socket: OwnedFd) {
        self.command(|c| c.add.push((binding, target, socket)));
    }

    /// Closes the sockets of `bindings`, before it returns.
    pub(crate) fn remove(&self, bindings: Vec<PortBinding>) {
        let (done, wait) = channel();
        self.command(|c| {
            c.remove.extend(bindings);
            c.done.push(done);
        });
        // The relay never blocks but in its poll. An error means that it is gone, with its sockets.
        if wait.recv().is_err() {
            tracing::error!("the relay thread is gone");
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.command(|c| c.stop = true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the relay thread panicked");
        }
    }
}

/// Adds one to an eventfd.
pub(crate) fn wake(eventfd: &OwnedFd) {
    // It fails only if 2^64 wake-ups are unread, when the reader is awake already.
    let written = rustix::io::write(eventfd, &1_u64.to_ne_bytes());
    debug_assert!(written.is_ok());
}

type Served = HashMap<PortBinding, (SocketAddrV4, Listener)>;

fn run(commands: &Mutex<Commands>, wake: &OwnedFd) {
    let open = Arc::new(AtomicUsize::new(0));
    let mut served = Served::new();
    loop {
        let Commands { add, remove, done, stop } =
            std::mem::take(&mut *commands.lock().unwrap_or_else(PoisonError::into_inner));
        if stop {
            return;
        }
        for (binding, target, socket) in add {
            let listener = match binding.protocol {
                Protocol::Tcp => Listener::Tcp(socket.into()),
                Protocol::Udp => Listener::Udp { socket: socket.into(), flows: HashMap::new() },
                Protocol::Sctp => continue,
            };
            served.insert(binding, (target, listener));
        }
        for binding in remove {
            served.remove(&binding);
        }
        for done in done {
            // Whoever asked may have given up.
            let told = done.send(());
            debug_assert!(told.is_ok());
        }
        wait(&served, wake, &open);
        for (target, listener) in served.values_mut() {
            match listener {
                Listener::Tcp(listener) => accept(listener, *target, &open),
                Listener::Udp { socket, flows } => exchange(socket, flows, *target),
            }
        }
    }
}

/// Waits until there is something to do; the sockets never block afterwards.
fn wait(served: &Served, wake: &OwnedFd, open: &AtomicUsize) {
    let mut fds = vec![PollFd::new(wake, PollFlags::IN)];
    let mut has_flows = false;
    let full = open.load(Ordering::Relaxed) >= MAX_CONNECTIONS;
    for (_, listener) in served.values() {
        match listener {
            Listener::Tcp(_) if full => {}
            Listener::Tcp(listener) => fds.push(PollFd::new(listener, PollFlags::IN)),
            Listener::Udp { socket, flows } => {
                has_flows |= !flows.is_empty();
                fds.push(PollFd::new(socket, PollFlags::IN));
                fds.extend(flows.values().map(|flow| PollFd::new(&flow.socket, PollFlags::IN)));
            }
        }
    }
    // Idle flows are to be found, and a place for a connection may become free.
    let timeout = Timespec { tv_sec: if full { 1 } else { 30 }, tv_nsec: 0 };
    let timeout = (has_flows || full).then_some(&timeout);
    match rustix::event::poll(&mut fds, timeout) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => tracing::error!(%error, "poll of the relay"),
    }
    let drained = rustix::io::read(wake, &mut [0_u8; 8]);
    debug_assert!(matches!(drained, Ok(_) | Err(rustix::io::Errno::AGAIN)));
}

fn accept(listener: &TcpListener, target: SocketAddrV4, open: &Arc<AtomicUsize>) {
    while open.load(Ordering::Relaxed) < MAX_CONNECTIONS {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                tracing::debug!(%error, "accept of the relay");
                return;
            }
        };
        open.fetch_add(1, Ordering::Relaxed);
        let guard = Count(Arc::clone(open));
        let serve = move || {
            let _guard = guard;
            if let Err(error) = carry(&client, target) {
                tracing::debug!(%error, %target, "relayed connection");
            }
        };
        let thread = std::thread::Builder::new().name("silo-relay-tcp".into()).stack_size(64 << 10);
        if let Err(error) = thread.spawn(serve) {
            tracing::warn!(%error, "thread of the relay");
        }
    }
}

struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Copies both ways until both ends are done.
fn carry(client: &TcpStream, target: SocketAddrV4) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let server = TcpStream::connect_timeout(&target.into(), Duration::from_secs(30))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    std::thread::scope(|scope| {
        let back = std::thread::Builder::new()
            .stack_size(64 << 10)
            .spawn_scoped(scope, || copy(&server, client))?;
        copy(client, &server);
        drop(back);
        Ok(())
    })
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = [0; 16 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                if to.write_all(&buffer[..length]).is_err() {
                    // Nobody takes it: the sender is to know.
                    shutdown(from, Shutdown::Both);
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                shutdown(to, Shutdown::Both);
                return;
            }
        }
    }
    shutdown(to, Shutdown::Write);
}

fn shutdown(stream: &TcpStream, how: Shutdown) {
    if let Err(error) = stream.shutdown(how) {
        tracing::trace!(%error, "shutdown of a relayed connection");
    }
}

fn exchange(socket: &UdpSocket, flows: &mut HashMap<SocketAddr, Flow>, target: SocketAddrV4) {
    let mut buffer = vec![0; 64 << 10];
    let now = Instant::now();
    while let Ok((length, client)) = socket.recv_from(&mut buffer) {
        if !flows.contains_key(&client) {
            if flows.len() >= UDP_MAX_FLOWS {
                continue;
            }
            match connect(target) {
                Ok(socket) => drop(flows.insert(client, Flow { socket, last: now })),
                Err(error) => {
                    tracing::debug!(%error, "flow of the relay");
                    continue;
                }
            }
        }
        if let Some(flow) = flows.get_mut(&client) {
            flow.last = now;
            trace(flow.socket.send(&buffer[..length]));
        }
    }
    for (client, flow) in &mut *flows {
        loop {
            match flow.socket.recv(&mut buffer) {
                Ok(length) => {
                    flow.last = now;
                    trace(socket.send_to(&buffer[..length], client));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => break,
            }
        }
    }
    flows.retain(|_, flow| now.duration_since(flow.last) < UDP_IDLE);
}

fn connect(target: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(target)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Datagrams may be lost.
fn trace(sent: io::Result<usize>) {
    if let Err(error) = sent {
        tracing::trace!(%error, "datagram of the relay");
    }
}

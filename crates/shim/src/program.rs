//! The shim's program.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;

use silo_types::ErrorKind;

use crate::config::ShimConfig;
use crate::exit;
use crate::handle::{CLAIM_FD, CONTROL_FD, Given, NETNS_FD, SHM_FD, TREES_FD};
use crate::logs::writer::LogWriter;
use crate::protocol::{Failure, Message};

mod client;
mod compute;
mod connection;
mod oci;
mod process;
mod supervisor;
#[cfg(test)]
mod tests;

use compute::Compute;
use connection::Connection;
use supervisor::{Supervisor, internal, remove_run_files};

/// Runs a shim: `silo-shim <container id> <container directory>`, the name included, with its
/// first control connection as descriptor 3, perhaps a network namespace as descriptor 4, and
/// the lock on the directory as descriptor 5.
///
/// The process must have no other thread.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(dir) = args.into_iter().nth(2).map(PathBuf::from) else { return ExitCode::from(64) };
    let Ok(Inherited { control, given, claim }) = inherited() else { return ExitCode::from(64) };
    exit::note_panics(&dir);
    let mut control = Connection::new(control, true);
    if control.has_ended() {
        // The daemon is gone, and nothing has been done yet.
        return ExitCode::FAILURE;
    }
    // The daemon's own is nothing that a container should depend on.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let supervisor = prepare(&dir).and_then(|(config, log)| {
        let compute = oci::OciCompute::new(&config, given)?;
        set_up(config, compute, log)
    });
    match supervisor {
        Ok(mut supervisor) => {
            supervisor.serve(control, claim);
            supervisor.run();
            ExitCode::SUCCESS
        }
        Err(failure) => {
            // The daemon reads it, or has gone and will find that there is no container.
            control.send(&Message::Reply { id: 0, result: Err(failure) });
            ExitCode::FAILURE
        }
    }
}

/// The descriptors that the daemon left for us.
struct Inherited {
    control: OwnedFd,
    given: Given,
    claim: OwnedFd,
}

/// Takes them over and nothing else, and keeps signals off that are meant for the daemon.
fn inherited() -> io::Result<Inherited> {
    let control = silo_sys::spawn::inherited(CONTROL_FD)?;
    let given = Given {
        netns: silo_sys::spawn::inherited(NETNS_FD).ok(),
        shm: silo_sys::spawn::inherited(SHM_FD).ok(),
        // Their places are in the configuration.
        trees: (TREES_FD..)
            .map_while(|number| silo_sys::spawn::inherited(number).ok())
            .map(|tree| (String::new(), tree))
            .collect(),
    };
    let claim = silo_sys::spawn::inherited(CLAIM_FD)?;
    silo_sys::process::close_on_exec_from(CONTROL_FD.cast_unsigned())?;
    silo_sys::process::block_signals()?;
    Ok(Inherited { control, given, claim })
}

/// Reads the configuration and opens the log.
fn prepare(dir: &std::path::Path) -> Result<(ShimConfig, LogWriter), Failure> {
    let path = dir.join(ShimConfig::FILE);
    let bytes = fs_err::read(&path).map_err(internal("shim"))?;
    let config: ShimConfig = serde_json::from_slice(&bytes).map_err(|error| {
        Failure::new(ErrorKind::Internal, format!("{} is damaged: {error}", path.display()))
    })?;
    exit::clear(&config.container_dir).map_err(internal("shim"))?;
    let log = LogWriter::open(&config.log).map_err(|error| {
        // docker wording
        Failure::new(ErrorKind::Internal, format!("failed to initialize logging driver: {error}"))
    })?;
    Ok((config, log))
}

/// Creates the container and opens the ways to reach it.
fn set_up<C: Compute>(
    config: ShimConfig,
    compute: C,
    log: LogWriter,
) -> Result<Supervisor<C>, Failure> {
    let mut supervisor = Supervisor::create(config, compute, log)?;
    match listen(supervisor.config()) {
        Ok(listener) => {
            supervisor.listen(listener);
            Ok(supervisor)
        }
        Err(error) => {
            supervisor.abandon();
            Err(internal("shim socket")(error))
        }
    }
}

/// Binds the socket and writes the pid file.
fn listen(config: &ShimConfig) -> io::Result<UnixListener> {
    remove_run_files(config);
    // The path may be longer than a socket's address can be.
    let dir = fs_err::File::open(&config.run_dir)?;
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/shim.sock", dir.as_raw_fd()));
    rustix::process::umask(mask);
    let pid = rustix::process::getpid().as_raw_nonzero();
    fs_err::write(config.run_dir.join("pid"), format!("{pid}\n"))?;
    listener
}

//! Process 1 of a Windows container, and the process that starts each further program in it.
//!
//! It runs Wine's loader with the start program, which reads the rest from its directory (see
//! [`crate::control`]), turns Linux signals into console events, and reaps what Wine leaves
//! behind. Process 1 also makes links that programs ask for. When the program has ended, process
//! 1 has the registry written before it ends and everything else with it. Of a program that was
//! not even loaded it says which library was missing.

use std::ffi::CString;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use silo_sys::signal;

use crate::check;
use crate::control::{self, Request};
use crate::links::Requests;
use crate::path::{Speller, WindowsPath};
use crate::pipes::{self, Pipes};

/// Wine's loader in the runtime.
pub const LOADER: &str = "/usr/lib/wine/wine64";
/// Wine's server in the runtime.
const SERVER: &str = "/usr/lib/wine/wineserver64";
/// The start program.
pub const START_PROGRAM: &str = "C:\\windows\\system32\\silo-run.exe";
/// Wine's prefix in a container.
pub const PREFIX: &str = "/prefix";
/// The drive C: in a container.
const DRIVE: &str = "/c";
/// Most bytes of the file `start`: environments may be large.
const START_LIMIT: u64 = 1 << 20;

/// Our own exit code when Wine or the start program does not work.
const FAILED: u8 = 125;
/// Exit code of a program that could not be started; the engine knows more from `error`.
const CANNOT_EXECUTE: u8 = 126;

/// Runs the process whose directory is named by the first argument. The registry of a container
/// that is `volatile` is not written at the end: it goes with the container.
pub fn main(name: &str, volatile: bool) -> ExitCode {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return fail("its one argument is the name of a process");
    }
    let folder = Path::new(PREFIX).join(control::FOLDER).join(name);
    match supervise(name, &folder, volatile) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(message: &str) -> ExitCode {
    // Nothing can be done when that fails.
    writeln!(io::stderr().lock(), "silo-init: {message}").ok();
    ExitCode::from(FAILED)
}

fn supervise(name: &str, folder: &Path, volatile: bool) -> io::Result<u8> {
    let is_first = rustix::process::getpid() == Pid::INIT;
    if is_first {
        // Where that fails, the start program tells of it.
        make_directory(folder).ok();
        // Where that fails, the loader starts it.
        start_server().ok();
    }
    // Without it the program cannot be asked anything.
    let wake = control::make_wake(folder, true).ok();
    let word = |text: &str| CString::new(text).map_err(io::Error::from);
    let command = [word(LOADER)?, word(START_PROGRAM)?, word(name)?];
    // Blocked before the child exists, so that no signal of its life is missed.
    let mask = signal::block_all()?;
    // Without it programs are told that a link cannot be made.
    let links =
        is_first.then(|| Requests::open(Path::new(PREFIX), Path::new(DRIVE)).ok()).flatten();
    // They are there before the program is.
    let pipes = is_first.then(|| Pipes::open(Path::new(pipes::FOLDER), mask)).transpose()?;
    let child = signal::spawn_foreground(&command, &mask)?;
    // The child was made while there was one thread.
    if let Some(pipes) = pipes {
        pipes.serve()?;
    }
    if let Some(links) = links {
        std::thread::Builder::new().spawn(move || links.serve())?;
    }
    let ended = wait_for(child, |number| {
        let request = match number {
            number if number == Signal::TERM.as_raw() => Request::CtrlC,
            number if number == Signal::INT.as_raw() => Request::CtrlC,
            number if number == Signal::HUP.as_raw() => Request::CtrlC,
            number if number == Signal::QUIT.as_raw() => Request::CtrlBreak,
            _ => return,
        };
        // The program may be ending just now.
        ask(folder, wake.as_ref(), request).ok();
    })?;
    if is_first {
        if !volatile {
            write_registry()?;
        }
        // Our end would do it, but one after the other.
        end_others();
    }
    let bounded = |file: &str, limit: u64| {
        fs_err::File::open(folder.join(file)).and_then(|opened| {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(opened, limit), &mut bytes)?;
            Ok(bytes)
        })
    };
    let exit = bounded("exit", control::LIMIT);
    if let Some(code) = exit.ok().and_then(|bytes| control::parse_exit(&bytes)) {
        if let Some(why) = check::means_not_loaded(code)
            .then(|| bounded("start", START_LIMIT).ok().and_then(|start| explain(&start, code)))
            .flatten()
        {
            // Nothing can be done when that fails.
            writeln!(io::stderr().lock(), "silo: {why}").ok();
        }
        return Ok(low_byte(code));
    }
    if bounded("error", control::LIMIT).is_ok() {
        return Ok(CANNOT_EXECUTE);
    }
    Ok(u8::try_from(ended).ok().filter(|&code| code != 0).unwrap_or(FAILED))
}

/// Why a program ended before it began; nobody else says which library was missing.
fn explain(start: &[u8], code: u32) -> Option<String> {
    let told = control::parse_start(start)?;
    let mut drive = check::Drive::new(silo_sys::path::open_root(DRIVE).ok()?);
    let command = check::Command {
        words: std::slice::from_ref(&told.command),
        escaped: true,
        path: &told.path,
        directory: &told.directory,
    };
    check::explain_end(&mut drive, &command, code)
}

/// Makes the working directory of a container's own program, as Windows does where it is missing.
fn make_directory(folder: &Path) -> io::Result<()> {
    let start = fs_err::read(folder.join("start"))?;
    let Some(start) = control::parse_start(&start) else { return Ok(()) };
    let path = WindowsPath::parse(&start.directory).map_err(io::Error::other)?;
    let drive = match path.drive {
        'C' => DRIVE.to_owned(),
        letter => format!("/drives/{}", letter.to_ascii_lowercase()),
    };
    make_on_drive(silo_sys::path::open_root(drive)?, &path.names)
}

fn make_on_drive(root: OwnedFd, names: &[String]) -> io::Result<()> {
    let mut speller = Speller::new(root);
    let spelled = speller.spell(names)?;
    let mode = rustix::fs::Mode::from_raw_mode(0o755);
    silo_sys::path::mkdir_all_in_root(speller.root(), spelled, mode).map(drop)
}

/// Waits for the end of a child, and hands on every other signal.
fn wait_for(child: i32, mut other: impl FnMut(i32)) -> io::Result<i32> {
    loop {
        let number = match signal::wait() {
            Ok(number) => number,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if number == Signal::CHILD.as_raw() {
            while let Some((pid, code)) = signal::reap()? {
                if pid == child {
                    return Ok(code);
                }
            }
        } else {
            other(number);
        }
    }
}

/// What Linux shows of a 32-bit exit code: a failure never looks like success.
fn low_byte(code: u32) -> u8 {
    let low = code.to_le_bytes()[0];
    if code != 0 && low == 0 { u8::MAX } else { low }
}

fn ask(folder: &Path, wake: Option<&std::fs::File>, request: Request) -> io::Result<()> {
    let new = folder.join("request.new");
    fs_err::write(&new, request.to_bytes())?;
    fs_err::rename(new, folder.join(request.file()))?;
    // One that is full has not been read yet.
    wake.map_or(Ok(()), |mut wake| wake.write_all(&[1]))
}

/// Starts Wine's server, which goes to the background when it can be reached. It reads the registry
/// while the loader gets ready, which would start it later. Before any signal is blocked.
fn start_server() -> io::Result<()> {
    let null = fs_err::OpenOptions::new().read(true).write(true).open("/dev/null")?.into_file();
    let streams = [null.try_clone()?, null.try_clone()?, null].map(std::process::Stdio::from);
    let [input, output, errors] = streams;
    let mut server = std::process::Command::new(SERVER);
    server.stdin(input).stdout(output).stderr(errors).status().map(drop)
}

/// Has Wine's server write the registry, and waits for its end.
fn write_registry() -> io::Result<()> {
    let Some(server) = find("wineserver")?.and_then(Pid::from_raw) else { return Ok(()) };
    let Ok(process) = rustix::process::pidfd_open(server, PidfdFlags::empty()) else {
        return Ok(());
    };
    if rustix::process::pidfd_send_signal(&process, Signal::TERM).is_ok() {
        // It takes milliseconds. A disk that hangs must not keep a container for ever.
        let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit))?;
    }
    Ok(())
}

/// Kills every other process of the container.
fn end_others() {
    let Ok(entries) = fs_err::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw).filter(|&pid| pid != Pid::INIT) {
            // It may have ended meanwhile.
            rustix::process::kill_process(pid, Signal::KILL).ok();
        }
    }
}

/// The process with a name that begins so, if there is one.
fn find(name: &str) -> io::Result<Option<i32>> {
    for entry in fs_err::read_dir("/proc")? {
        let path: PathBuf = entry?.path();
        let Some(pid) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok())
        else {
            continue;
        };
        // It may have ended meanwhile.
        let command = fs_err::read_to_string(path.join("comm")).unwrap_or_default();
        if command.starts_with(name) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_stay_failures() {
        for (code, low) in [(0, 0), (1, 1), (256, 255), (0xC000_013A, 0x3A), (0xFFFF_FFFF, 255)] {
            assert_eq!(low_byte(code), low, "{code:#x}");
        }
    }

    #[test]
    fn directories_are_made_as_windows_spells_them() {
        let drive = tempfile::tempdir().unwrap();
        fs_err::create_dir(drive.path().join("Program Files")).unwrap();
        fs_err::write(drive.path().join("file"), "").unwrap();
        let make = |path: &str| {
            let names = WindowsPath::parse(path).unwrap().names;
            make_on_drive(silo_sys::path::open_root(drive.path()).unwrap(), &names)
        };
        make("C:\\PROGRAM FILES\\App\\bin").unwrap();
        make("C:\\").unwrap();
        make("C:\\program files\\app").unwrap();
        make("C:\\File\\x").unwrap_err();
        assert!(drive.path().join("Program Files/App/bin").is_dir());
        assert_eq!(fs_err::read_dir(drive.path().join("Program Files")).unwrap().count(), 1);
    }

    #[test]
    fn processes_are_found_by_name() {
        assert_eq!(find("no such process").unwrap(), None);
        let own = fs_err::read_to_string("/proc/self/comm").unwrap();
        assert!(find(own.trim()).unwrap().is_some());
    }
}

//! Silo's own small programs inside Windows containers.
//!
//! They are C in `programs/`, compiled for Windows when this crate is built (Debian's package
//! `gcc-mingw-w64-x86-64`), and are part of the Wine runtime and of base images. Nothing of them
//! runs on the host. None is linked with a C library; most use Wine's `msvcrt.dll`.
//!
//! * [`boot`] takes the place of Wine's `wineboot.exe` in the runtime. It brings a session up,
//!   and starts Wine's services. For Wine to take it, it has to carry Wine's mark for built-in
//!   programs, and so has the file of the same name in `System32`.
//! * `silo-run.exe` starts a container's program and stays until it ends. It works by files
//!   below `/prefix/.silo`, whose format is at the head of `programs/run.c`.
//! * `silo-pipe.exe` is a named pipe that leads out of Windows; process 1 of a container starts
//!   it. Its protocol is at the head of `programs/pipe.c`.
//! * [`save`] writes a container's registry to files, from where the engine puts it.
//! * [`processes`] tells the processes of a container, from where the engine puts it.
//! * [`shell`] is a library that Wine's `cmd.exe` loads in place of one of Wine's.
//! * [`memory`] is a library for Linux that Wine loads where memory is limited, and [`server`] one
//!   that Wine's server loads.
//! * The others are commands that Windows has and that Wine lacks or only pretends to have. They
//!   take Windows' options and say what it says, in English; an option that cannot work is an
//!   error that names it. A program that Wine also has must be left out of the runtime
//!   ([`Program::name`] says which), since Wine prefers its own.

/// The processor that a program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// 64-bit x86.
    Amd64,
}

/// A program for Windows.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its file name, in lower case and with its ending. All lie in `C:\Windows\System32` but
    /// `powershell.exe`, which has a directory of its own there.
    pub name: &'static str,
    /// What it runs on.
    pub machine: Machine,
    /// The file.
    pub bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/programs.rs"));

/// What lies in `C:\Windows\System32` of base images.
pub fn programs() -> &'static [Program] {
    PROGRAMS
}

/// What takes the place of Wine's `wineboot.exe` in the runtime, without Wine's mark.
pub fn boot() -> &'static [u8] {
    BOOT
}

/// What writes the registry of the session that it runs in to files beside it.
pub fn save() -> &'static [u8] {
    SAVE
}

/// What tells the processes of the session that it runs in, in a file beside it.
pub fn processes() -> &'static [u8] {
    PROCESSES
}

/// The library for Windows that stands for `shell32.dll` in cmd, without Wine's mark.
pub fn shell() -> &'static [u8] {
    SHELL
}

/// The Linux library (ELF) by which Wine's server leaves links alone.
pub fn server() -> &'static [u8] {
    SERVER
}

/// The Linux library (ELF) through which Wine sees the memory limit of its container.
pub fn memory() -> &'static [u8] {
    MEMORY
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Characteristics of the header: the machine, and whether it is a program.
    fn header(bytes: &[u8]) -> (u16, bool) {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let at = usize::from(word(0x3c));
        assert_eq!(&bytes[at..at + 4], b"PE\0\0");
        (word(at + 4), word(at + 22) & 2 != 0)
    }

    #[test]
    fn all_are_small_programs_for_windows() {
        let others =
            [("boot", boot()), ("save", save()), ("processes", processes()), ("shell", shell())];
        for (name, bytes) in
            programs().iter().map(|program| (program.name, program.bytes)).chain(others)
        {
            assert_eq!(header(bytes), (0x8664, true), "{name}");
            assert!(bytes.len() < 96 << 10, "{name}: {} bytes", bytes.len());
        }
    }

    #[test]
    fn libraries_are_small() {
        for library in [memory(), server()] {
            assert_eq!(library[..4], *b"\x7fELF");
            assert!(library.len() < 32 << 10, "{} bytes", library.len());
        }
    }

    #[test]
    fn names_are_of_one_kind_and_differ() {
        let mut names: Vec<_> = programs().iter().map(|program| program.name).collect();
        assert!(names.iter().all(|name| {
            name.strip_suffix(".exe").is_some_and(|stem| {
                stem.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
            })
        }));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

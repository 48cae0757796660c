//! Compiles the C programs for Windows and writes the table of them that `src/lib.rs` includes.

use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const COMPILER: &str = "x86_64-w64-mingw32-gcc";
const PACKAGE: &str = "gcc-mingw-w64-x86-64";

/// No C library is linked: programs start at `start`, and msvcrt.dll, which Wine has, holds what
/// they need of it.
const FLAGS: [&str; 17] = [
    "-std=c11",
    "-Os",
    "-s",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-cast-function-type",
    "-ffreestanding",
    "-fno-ident",
    "-fno-asynchronous-unwind-tables",
    "-fno-tree-loop-distribute-patterns",
    "-ffunction-sections",
    "-nostdlib",
    "-Wl,--gc-sections",
    "-Wl,--no-insert-timestamp",
    "-Wl,-e,start",
    "-mconsole",
];

/// A library for Linux finds what it needs in the program that loads it.
const LIBRARY_FLAGS: [&str; 17] = [
    "-std=gnu11",
    "-shared",
    "-nostdlib",
    "-ffreestanding",
    "-fPIC",
    "-Os",
    "-s",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-U_FORTIFY_SOURCE",
    "-fno-ident",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fvisibility=hidden",
    "-Wl,--build-id=none",
    "-Wl,--hash-style=gnu",
];

/// A program made of one or more files.
struct Program {
    name: &'static str,
    sources: &'static [&'static str],
    libraries: &'static [&'static str],
}

/// Libraries for Linux.
const LIBRARIES: [&str; 2] = ["memory", "server"];

const BASE: &[&str] = &["kernel32", "ntdll"];

include!("programs/list.rs");

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=programs");
    println!("cargo::rerun-if-changed=library");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let jobs: Vec<_> = [&BOOT, &SAVE, &PROCESSES, &SHELL]
        .into_iter()
        .chain(PROGRAMS)
        .map(|program| {
            let to = out.join(program.name);
            std::thread::spawn(move || compile(program, &to))
        })
        .collect();
    for job in jobs {
        job.join().map_err(|_| "a compilation panicked".to_owned())??;
    }
    for name in LIBRARIES {
        compile_library(&format!("{name}.c"), &out.join(format!("{name}.so")))?;
    }
    let mut table = String::new();
    let mut line = |text: &str| writeln!(table, "{text}").map_err(|error| error.to_string());
    line("static BOOT: &[u8] = include_bytes!(concat!(env!(\"OUT_DIR\"), \"/wineboot.exe\"));")?;
    line("static SAVE: &[u8] = include_bytes!(concat!(env!(\"OUT_DIR\"), \"/silo-save.exe\"));")?;
    line(
        "static PROCESSES: &[u8] = include_bytes!(concat!(env!(\"OUT_DIR\"), \"/silo-list.exe\"));",
    )?;
    line("static MEMORY: &[u8] = include_bytes!(concat!(env!(\"OUT_DIR\"), \"/memory.so\"));")?;
    line("static SERVER: &[u8] = include_bytes!(concat!(env!(\"OUT_DIR\"), \"/server.so\"));")?;
    line("static SHELL: &[u8] = include_bytes!(concat!(env!(\"OUT_DIR\"), \"/silocmd.dll\"));")?;
    line("static PROGRAMS: &[Program] = &[")?;
    for Program { name, .. } in PROGRAMS {
        line(&format!(
            "    Program {{ name: {name:?}, machine: Machine::Amd64, \
             bytes: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}\")) }},"
        ))?;
    }
    line("];")?;
    fs_err::write(out.join("programs.rs"), table).map_err(|error| error.to_string())
}

fn compile(program: &Program, to: &Path) -> Result<(), String> {
    let mut command = Command::new(COMPILER);
    command.args(FLAGS).arg("-o").arg(to);
    if to.extension().is_some_and(|extension| extension == "dll") {
        command.arg("-shared");
    }
    command.args(program.sources.iter().map(|source| Path::new("programs").join(source)));
    command.args(program.libraries.iter().map(|library| format!("-l{library}")));
    run(command, program.name, |error| {
        format!(
            "{COMPILER}: {error}; it is in Debian's package {PACKAGE}, as root: apt-get install {PACKAGE}"
        )
    })
}

/// Compiles for Linux, with the compiler that other crates need as well.
fn compile_library(source: &str, to: &Path) -> Result<(), String> {
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut command = Command::new(&compiler);
    command.args(LIBRARY_FLAGS).arg("-o").arg(to).arg(Path::new("library").join(source));
    run(command, source, |error| format!("{compiler}: {error}"))
}

fn run(
    mut command: Command,
    what: &str,
    missing: impl FnOnce(std::io::Error) -> String,
) -> Result<(), String> {
    let output = command.output().map_err(missing)?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{what}:\n{}", String::from_utf8_lossy(&output.stderr)))
}

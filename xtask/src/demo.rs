//! The first thing a new user runs: from nothing to a page served from a container.

mod linux;
mod windows;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{build_silo, root, setup};

/// Where the engine of root listens.
const SOCKET: &str = "/run/silo/silo.sock";
/// The demo's container.
const NAME: &str = "silo-demo";
/// Runs beside the demo and tidies up after it, however it ends: its standard input ends with it.
/// `engine` is set when an engine is to be started, which is then the script's child.
const GUARD: &str = r#"
trap '' INT TERM HUP
if [ "$engine" ]; then
    env --default-signal "$silo" daemon --log-level warn --ready-on-stdout & engine=$!
fi
exec >/dev/null
cat
"$silo" rm --force --volumes "$name" 2>/dev/null
if [ "$engine" ]; then
    kill "$engine" 2>/dev/null; wait "$engine"
    "$silo" daemon --remove-network
fi
"#;

/// Runs the demo that the arguments name.
pub fn run(arguments: &[String]) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (packages, serve): (_, fn(&Demo) -> Result<()>) = match arguments[..] {
        [] | ["windows"] => (setup::Packages::Demo, windows::run),
        ["linux"] => (setup::Packages::LinuxDemo, linux::run),
        _ => bail!("demo: there are two, windows and linux"),
    };
    setup::run(packages)?;
    let silo = build_silo(true)?;
    let folder = root().join("target/demo");
    fs_err::create_dir_all(&folder)?;
    let mut demo = Demo::start(silo, folder)?;
    let result = serve(&demo);
    demo.end();
    result?;
    let silo = demo.silo.strip_prefix(root()).unwrap_or(&demo.silo);
    eprintln!(
        "\nNothing of the demo runs any more. Its images are kept; go on with `{} help`.",
        silo.display()
    );
    Ok(())
}

/// An engine, what speaks to it, and who tidies up.
struct Demo {
    silo: PathBuf,
    /// Docker's command line where there is one, else Silo's.
    cli: PathBuf,
    /// For what is fetched and made once.
    folder: PathBuf,
    guard: Child,
}

impl Demo {
    /// Uses the engine that runs, or starts one for as long as the demo takes.
    fn start(silo: PathBuf, folder: PathBuf) -> Result<Self> {
        let runs = UnixStream::connect(SOCKET).is_ok();
        let mut guard = at_home(Command::new("sh"))
            .args(["-c", GUARD])
            .env("silo", &silo)
            .env("name", NAME)
            .env("engine", if runs { "" } else { "start" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start sh")?;
        let docker = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|folder| folder.join("docker"))
            .find(|file| file.is_file());
        let mut ready = String::new();
        let output = guard.stdout.take().context("sh has no output")?;
        output.take(5).read_to_string(&mut ready)?;
        let cli = docker.unwrap_or_else(|| silo.clone());
        let mut demo = Self { silo, cli, folder, guard };
        if !runs && ready != "ready" {
            demo.end();
            bail!("the engine did not start");
        }
        Ok(demo)
    }

    /// Tidies up. Does nothing the second time.
    fn end(&mut self) {
        drop(self.guard.stdin.take());
        self.guard.wait().ok();
    }

    /// A command of Silo's command line, shown.
    fn silo(&self, arguments: &[&str]) -> Command {
        shown(&self.silo, arguments)
    }

    /// A command of Docker's command line where there is one, shown.
    fn docker(&self, arguments: &[&str]) -> Command {
        shown(&self.cli, arguments)
    }

    /// Fetches the page of the container's `port`, which must have `expected` in it, and shows it.
    fn fetch(&self, port: &str, expected: &str) -> Result<()> {
        let address = output_of(&mut self.docker(&["port", NAME, port]))?;
        eprintln!("+ fetch http://{address}/");
        let page = fetch(&address)?;
        println!("{page}");
        if !page.contains(expected) {
            bail!("this is not the page of the program in the container");
        }
        Ok(())
    }
}

/// A command that talks to the demo's engine, whatever this shell's own engine is.
fn at_home(mut command: Command) -> Command {
    command.env("DOCKER_HOST", format!("unix://{SOCKET}")).env_remove("DOCKER_CONTEXT");
    command.env_remove("SILO_ROOT").env_remove("SILO_RUN_ROOT");
    command
}

/// A command, shown as a user would type it.
fn shown(program: &Path, arguments: &[&str]) -> Command {
    let plain =
        |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:/=@".contains(c));
    let words = arguments
        .iter()
        .map(|&word| if plain(word) { word.to_owned() } else { format!("'{word}'") });
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let line: Vec<String> = std::iter::once(name).chain(words).collect();
    eprintln!("+ {}", line.join(" "));
    let mut command = at_home(Command::new(program));
    command.args(arguments);
    command
}

fn output_of(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{} failed: {}", command.get_program().display(), output.status);
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The body at `address`. The server may not listen yet when the container has just started.
fn fetch(address: &str) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match fetch_once(address) {
            Ok(page) => return Ok(page),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::yield_now(),
        }
    }
}

fn fetch_once(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connect {address}"))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    Ok(body.trim().to_owned())
}

//! The first thing a new user runs: from nothing to a page served from a container.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{build_silo, check, setup};

/// Builds Silo, makes an image from the packaged busybox, runs a web server from it with a
/// published port, fetches its page, and removes everything again but the image.
pub fn run() -> Result<()> {
    setup::run(setup::Packages::Demo)?;
    let silo = build_silo(true)?;
    let tree = root_tree()?;
    let result = serve(&silo, &tree);
    fs_err::remove_dir_all(&tree)?;
    result
}

fn serve(silo: &Path, tree: &Path) -> Result<()> {
    eprintln!("+ tar -C {} -c . | silo import - busybox:demo", tree.display());
    let mut tar = Command::new("tar")
        .args(["-C", &tree.to_string_lossy(), "-c", "."])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = tar.stdout.take().context("tar has no output")?;
    check(
        Command::new(silo)
            .args(["import", "--change", "CMD [\"httpd\",\"-f\",\"-h\",\"/www\"]"])
            .args(["--change", "EXPOSE 80", "-", "busybox:demo"])
            .stdin(output),
    )?;
    if !tar.wait()?.success() {
        bail!("tar failed");
    }
    let run = ["run", "--detach", "--rm", "--publish", "127.0.0.1::80", "busybox:demo"];
    eprintln!("+ silo {}", run.join(" "));
    let id = output_of(silo, &run)?;
    let page = output_of(silo, &["port", &id, "80/tcp"]).and_then(|address| {
        eprintln!("+ fetch http://{address}/");
        fetch(&address)
    });
    check(Command::new(silo).args(["stop", "--time", "1", &id]).stdout(Stdio::null()))?;
    let page = page?;
    println!("{page}");
    if !page.contains("Hello from a container") {
        bail!("the page is not the one in the image");
    }
    eprintln!("The engine goes on in the background; `{} ps` speaks to it.", silo.display());
    Ok(())
}

/// A root file system with busybox, its names, and one page.
fn root_tree() -> Result<PathBuf> {
    let tree = std::env::temp_dir().join(format!("silo-demo-{}", std::process::id()));
    for folder in ["bin", "www", "tmp", "etc", "root"] {
        fs_err::create_dir_all(tree.join(folder))?;
    }
    fs_err::copy("/bin/busybox", tree.join("bin/busybox"))?;
    for name in ["sh", "httpd", "ls", "cat", "echo", "sleep", "ps", "wget"] {
        symlink("busybox", tree.join("bin").join(name))?;
    }
    fs_err::write(tree.join("www/index.html"), "Hello from a container\n")?;
    fs_err::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs_err::write(tree.join("etc/group"), "root:x:0:\n")?;
    Ok(tree)
}

fn output_of(silo: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(silo).args(arguments).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("silo {} failed: {}", arguments.join(" "), output.status);
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The body at `address`. The server may not listen yet when the container has just started.
fn fetch(address: &str) -> Result<String> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match fetch_once(address) {
            Ok(page) => return Ok(page),
            Err(error) if std::time::Instant::now() > deadline => return Err(error),
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

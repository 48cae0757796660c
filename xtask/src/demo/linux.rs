//! An image of the packaged busybox, and its web server.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Demo, NAME};
use crate::check;

/// Makes the image, runs a web server from it with a published port, and fetches its page.
pub(super) fn run(demo: &Demo) -> Result<()> {
    let tree = demo.folder.join("busybox");
    if tree.exists() {
        fs_err::remove_dir_all(&tree)?;
    }
    root_tree(&tree)?;
    eprintln!("+ tar -C target/demo/busybox -c . |");
    let mut tar = Command::new("tar")
        .args(["-C", &tree.to_string_lossy(), "-c", "."])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = tar.stdout.take().context("tar has no output")?;
    let change = "CMD [\"httpd\",\"-f\",\"-h\",\"/www\"]";
    let import = ["import", "--change", change, "--change", "EXPOSE 80", "-", "busybox:demo"];
    check(demo.docker(&import).stdin(output).stdout(Stdio::null()))?;
    if !tar.wait()?.success() {
        bail!("tar failed");
    }
    check(&mut demo.docker(&["run", "--rm", "busybox:demo", "echo", "Hello from a container"]))?;
    let server = ["run", "--detach", "--rm", "--name", NAME, "--publish", "127.0.0.1::80"];
    check(demo.docker(&[&server[..], &["busybox:demo"]].concat()).stdout(Stdio::null()))?;
    demo.fetch("80/tcp", "Hello from busybox")?;
    check(demo.docker(&["stop", "--time", "1", NAME]).stdout(Stdio::null()))
}

/// A root file system with busybox, its names, and one page.
fn root_tree(tree: &Path) -> Result<()> {
    for folder in ["bin", "www", "tmp", "etc", "root"] {
        fs_err::create_dir_all(tree.join(folder))?;
    }
    fs_err::copy("/bin/busybox", tree.join("bin/busybox"))?;
    for name in ["sh", "httpd", "ls", "cat", "echo", "sleep", "ps", "wget"] {
        symlink("busybox", tree.join("bin").join(name))?;
    }
    fs_err::write(tree.join("www/index.html"), "Hello from busybox in a container\n")?;
    fs_err::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs_err::write(tree.join("etc/group"), "root:x:0:\n")?;
    Ok(())
}

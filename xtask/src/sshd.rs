//! OpenSSH's server for the tests that fetch over SSH: unpacked, not installed, so that no
//! service, user or host key comes to the machine with it.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

/// The server, and a library of which it is the usual only user.
const PACKAGES: [&str; 2] = ["openssh-server", "libwrap0"];

/// Unpacks the server below `target/openssh-server`, once; tests find it there.
pub fn unpack() -> Result<()> {
    let folder = crate::root().join("target/openssh-server");
    if folder.join("usr/sbin/sshd").exists() || Path::new("/usr/sbin/sshd").exists() {
        return Ok(());
    }
    let work = folder.with_extension("new");
    let tree = work.join("tree");
    fs_err::create_dir_all(&tree)?;
    let mut download = Command::new("apt-get");
    download.args(["-qq", "-o", "APT::Sandbox::User=root", "download"]).args(PACKAGES);
    crate::check(download.current_dir(&work))?;
    let mut count = 0;
    for entry in fs_err::read_dir(&work)? {
        let package = entry?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            crate::check(Command::new("dpkg-deb").arg("-x").arg(package).arg(&tree))?;
            count += 1;
        }
    }
    if count < PACKAGES.len() {
        bail!("apt-get download {}: {count} packages came", PACKAGES.join(" "));
    }
    if folder.exists() {
        fs_err::remove_dir_all(&folder)?;
    }
    fs_err::rename(&tree, &folder)?;
    fs_err::remove_dir_all(&work)?;
    Ok(())
}

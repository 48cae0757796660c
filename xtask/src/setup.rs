//! Installs what the demo, the tests and the benchmarks need from Debian.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Which packages to install.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Packages {
    /// What the build and the demo with Windows programs need.
    Demo,
    /// What the demo with Linux programs needs as well.
    LinuxDemo,
    /// What the tests and benchmarks need as well: other engines to compare with, and tools
    /// that look at the kernel from outside.
    All,
}

/// Each package with a file that shows it is there.
const DEMO: [(&str, &str); 4] = [
    ("gcc-mingw-w64-x86-64-win32", "/usr/bin/x86_64-w64-mingw32-gcc"),
    ("gcc", "/usr/bin/gcc"),
    ("libc6-dev", "/usr/include/stdio.h"),
    ("python3-pip", "/usr/bin/pip3"),
];

const LINUX: [(&str, &str); 1] = [("busybox-static", "/bin/busybox")];

const TEST: [(&str, &str); 26] = [
    // Only compared with: setting up needs neither it nor any other tool of Debian.
    ("gpgv", "/usr/bin/gpgv"),
    ("bzip2", "/bin/bzip2"),
    ("xz-utils", "/usr/bin/xz"),
    ("zstd", "/usr/bin/zstd"),
    ("docker.io", "/usr/sbin/dockerd"),
    ("runc", "/usr/sbin/runc"),
    ("crun", "/usr/bin/crun"),
    ("podman", "/usr/bin/podman"),
    ("buildah", "/usr/bin/buildah"),
    ("containerd", "/usr/bin/containerd"),
    ("skopeo", "/usr/bin/skopeo"),
    ("docker-registry", "/usr/bin/docker-registry"),
    ("iproute2", "/usr/sbin/ip"),
    ("iptables", "/usr/sbin/iptables"),
    ("nftables", "/usr/sbin/nft"),
    ("attr", "/usr/bin/getfattr"),
    ("tmux", "/usr/bin/tmux"),
    ("curl", "/usr/bin/curl"),
    ("socat", "/usr/bin/socat"),
    ("hyperfine", "/usr/bin/hyperfine"),
    ("python3", "/usr/bin/python3"),
    ("openssl", "/usr/bin/openssl"),
    ("openssh-client", "/usr/bin/ssh-keygen"),
    ("netcat-openbsd", "/usr/bin/nc.openbsd"),
    ("libhivex-bin", "/usr/bin/hivexml"),
    ("python3-hivex", "/usr/lib/python3/dist-packages/hivex/__init__.py"),
];

/// Installs the packages whose file is missing; does nothing when all are there.
pub fn run(packages: Packages) -> Result<()> {
    let more: &[&[(&str, &str)]] = match packages {
        Packages::Demo => &[],
        Packages::LinuxDemo => &[&LINUX],
        Packages::All => &[&LINUX, &TEST],
    };
    let wanted = DEMO.iter().chain(more.iter().copied().flatten());
    let missing: Vec<&str> =
        wanted.filter(|(_, file)| !Path::new(file).exists()).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let uid = Command::new("id").arg("-u").output().context("id -u")?;
    if uid.stdout != b"0\n" {
        bail!("packages are missing; as root: apt-get install {}", missing.join(" "));
    }
    eprintln!("+ apt-get install {}", missing.join(" "));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        // Engines that start themselves on installation would meddle with the network.
        crate::check(
            command
                .args(["-qq", "-o", "Dpkg::Use-Pty=0"])
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .env("RUNLEVEL", "1"),
        )
    };
    apt(&["update"])?;
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(missing);
    apt(&arguments)
}

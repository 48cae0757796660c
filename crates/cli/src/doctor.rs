//! `doctor`: what of this host is fit for containers, and what to do where it is not.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How well something fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    /// Works, with less than all features.
    Warning,
    /// Containers cannot work.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    what: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do; empty where all is well.
    advice: &'static str,
}

impl Finding {
    pub(crate) fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Good, found: found.into(), advice: "" }
    }

    pub(crate) fn bad(
        verdict: Verdict,
        what: &'static str,
        found: impl Into<String>,
        advice: &'static str,
    ) -> Self {
        Self { what, verdict, found: found.into(), advice }
    }

    /// Whether containers cannot work because of this.
    pub(crate) fn is_failure(&self) -> bool {
        self.verdict == Verdict::Failure
    }
}

/// Findings as lines for people.
pub(crate) fn lines(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok  ",
            Verdict::Warning => "warn",
            Verdict::Failure => "FAIL",
        };
        out.push_str(&format!("{mark}  {:<18} {}\n", finding.what, finding.found));
        if !finding.advice.is_empty() {
            out.push_str(&format!("      {:<18} -> {}\n", "", finding.advice));
        }
    }
    out
}

/// Findings with what follows from them.
pub(crate) fn report(findings: &[Finding]) -> String {
    let mut out = lines(findings);
    let count = |verdict| findings.iter().filter(|f| f.verdict == verdict).count();
    out.push_str(&match (count(Verdict::Failure), count(Verdict::Warning)) {
        (0, 0) => "This host is fit for containers.\n".to_owned(),
        (0, warnings) => format!("This host is fit for containers; {warnings} to look at.\n"),
        (failures, _) => format!("This host is not fit for containers: {failures} to mend.\n"),
    });
    out
}

/// Looks at everything.
pub(crate) fn examine() -> Vec<Finding> {
    let mut findings = for_every_container();
    findings.extend([nftables(), forward_policy(), ip_forwarding(), disk(), memory()]);
    findings
}

/// Looks at what no container can do without.
pub(crate) fn for_every_container() -> Vec<Finding> {
    vec![
        kernel(&rustix::system::uname().release().to_string_lossy()),
        user(),
        cgroups(),
        overlay(),
        openat2(),
        mount_api(),
        namespaces(),
        seccomp(),
    ]
}

fn read(path: &str) -> Option<String> {
    fs_err::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn there(path: &str) -> bool {
    fs_err::metadata(path).is_ok()
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 15) {
        Finding::good("kernel", release)
    } else {
        Finding::bad(Verdict::Failure, "kernel", release, "use Linux 5.15 or newer")
    }
}

fn user() -> Finding {
    if rustix::process::geteuid().is_root() {
        return Finding::good("user", "root");
    }
    let allowed = read("/proc/sys/user/max_user_namespaces").is_none_or(|count| count != "0");
    if allowed {
        let advice = "limits, published ports and some mounts need root: sudo silo ...";
        Finding::bad(Verdict::Warning, "user", "not root", advice)
    } else {
        let advice = "run as root, or: sysctl -w user.max_user_namespaces=15000";
        Finding::bad(Verdict::Failure, "user", "not root, no user namespaces", advice)
    }
}

fn cgroups() -> Finding {
    if let Some(controllers) = read("/sys/fs/cgroup/cgroup.controllers") {
        let missing: Vec<&str> = ["cpu", "memory", "pids"]
            .into_iter()
            .filter(|wanted| !controllers.split_whitespace().any(|known| known == *wanted))
            .collect();
        return if missing.is_empty() {
            Finding::good("cgroups", format!("v2: {controllers}"))
        } else {
            let found = format!("v2 without {}", missing.join(", "));
            let advice = "add them to cgroup.subtree_control of the root, or delegate them";
            Finding::bad(Verdict::Warning, "cgroups", found, advice)
        };
    }
    if there("/sys/fs/cgroup/memory") {
        let kind = if there("/sys/fs/cgroup/unified") { "hybrid" } else { "v1" };
        return Finding::good("cgroups", kind);
    }
    let advice = "mount -t cgroup2 none /sys/fs/cgroup";
    Finding::bad(Verdict::Failure, "cgroups", "not mounted", advice)
}

fn overlay() -> Finding {
    let list = read("/proc/filesystems").unwrap_or_default();
    let known = list.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay");
    if known {
        return Finding::good("overlay", "in the kernel");
    }
    // Who may mount makes the kernel load the module, as the first container would.
    match rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Finding::good("overlay", "in the kernel"),
        Err(Errno::PERM) => {
            let advice = "modprobe overlay, unless the first container does it";
            Finding::bad(Verdict::Warning, "overlay", "not loaded yet", advice)
        }
        Err(_) => {
            Finding::bad(Verdict::Failure, "overlay", "unknown to the kernel", "modprobe overlay")
        }
    }
}

fn openat2() -> Finding {
    let opened = rustix::fs::openat2(
        CWD,
        "/",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    );
    match opened {
        Ok(_) => Finding::good("openat2", "works"),
        Err(error) => Finding::bad(
            Verdict::Failure,
            "openat2",
            error.to_string(),
            "use a newer kernel, or a sandbox (seccomp filter) that permits it",
        ),
    }
}

fn mount_api() -> Finding {
    match rustix::mount::fsopen("tmpfs", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Finding::good("mount API", "works"),
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => {
            Finding::good("mount API", "for root")
        }
        Err(error) => Finding::bad(
            Verdict::Failure,
            "mount API",
            format!("fsopen: {error}"),
            "run with CAP_SYS_ADMIN on Linux 5.15 or newer",
        ),
    }
}

fn namespaces() -> Finding {
    let missing: Vec<&str> = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
        .into_iter()
        .filter(|name| fs_err::read_link(format!("/proc/self/ns/{name}")).is_err())
        .collect();
    match missing[..] {
        [] => Finding::good("namespaces", "all"),
        ["user"] => Finding::bad(
            Verdict::Warning,
            "namespaces",
            "no user namespaces",
            "--userns and running without root need CONFIG_USER_NS",
        ),
        _ => Finding::bad(
            Verdict::Failure,
            "namespaces",
            format!("missing: {}", missing.join(", ")),
            "use a kernel with these namespaces",
        ),
    }
}

fn seccomp() -> Finding {
    match read("/proc/sys/kernel/seccomp/actions_avail") {
        Some(actions) => Finding::good("seccomp", actions),
        None => Finding::bad(
            Verdict::Failure,
            "seccomp",
            "not in the kernel",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
}

fn nftables() -> Finding {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with};
    let opened = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::NETFILTER),
    );
    let module = there("/sys/module/nf_tables") || there("/proc/sys/net/netfilter");
    match opened {
        Ok(_) if module => Finding::good("nftables", "works"),
        Ok(_) => Finding::bad(
            Verdict::Warning,
            "nftables",
            "not loaded yet",
            "modprobe nf_tables; published ports and outgoing connections need it",
        ),
        Err(error) => Finding::bad(
            Verdict::Warning,
            "nftables",
            error.to_string(),
            "modprobe nf_tables; without it only --network host and none work",
        ),
    }
}

/// Whether another program's rules drop what containers send.
fn forward_policy() -> Finding {
    const WHAT: &str = "forwarding rules";
    if nft_forward_policy().as_deref() == Some("drop") {
        return Finding::bad(
            Verdict::Warning,
            WHAT,
            "another program (Docker, a firewall) drops what it does not know",
            "if containers cannot reach out: iptables -I FORWARD -i silo0 -j ACCEPT; iptables -I \
             FORWARD -o silo0 -j ACCEPT",
        );
    }
    let tables = read("/proc/net/ip_tables_names").unwrap_or_default();
    if tables.lines().any(|table| table == "filter") {
        return Finding::bad(
            Verdict::Warning,
            WHAT,
            "iptables' filter table is in use (Docker, a firewall)",
            "if containers cannot reach out: iptables -I FORWARD -i silo0 -j ACCEPT; iptables -I \
             FORWARD -o silo0 -j ACCEPT",
        );
    }
    Finding::good(WHAT, "nothing drops by default")
}

/// The policy of the chain that iptables makes, where the `nft` program can tell.
fn nft_forward_policy() -> Option<String> {
    let output = std::process::Command::new("nft")
        .args(["-j", "list", "chain", "ip", "filter", "FORWARD"])
        .output()
        .ok()?;
    let listed = crate::value::Value::parse(&output.stdout).ok()?;
    let chains = listed.get("nftables").list();
    let policy = |item: &crate::value::Value| item.path(&["chain", "policy"]).str().to_owned();
    chains.iter().map(policy).find(|policy| !policy.is_empty())
}

fn ip_forwarding() -> Finding {
    match read("/proc/sys/net/ipv4/ip_forward").as_deref() {
        Some("1") => Finding::good("IP forwarding", "on"),
        _ => Finding::bad(
            Verdict::Warning,
            "IP forwarding",
            "off",
            "the daemon turns it on; to have it stay: sysctl -w net.ipv4.ip_forward=1",
        ),
    }
}

pub(crate) fn disk() -> Finding {
    let roots = crate::connect::Roots::of("", "");
    let place = roots.data.ancestors().find(|path| fs_err::metadata(path).is_ok());
    let place = place.unwrap_or_else(|| Path::new("/"));
    let Ok(stat) = rustix::fs::statvfs(place) else {
        let advice = "choose another place with --root";
        return Finding::bad(Verdict::Warning, "disk", "cannot be measured", advice);
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let found = format!("{} free at {}", silo_types::size::binary(free as f64), place.display());
    if free < 2 << 30 {
        Finding::bad(Verdict::Warning, "disk", found, "free some space, or use --root elsewhere")
    } else {
        Finding::good("disk", found)
    }
}

/// Memory that programs can have, in KiB.
pub(crate) fn available_memory() -> u64 {
    read("/proc/meminfo")
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?.to_owned();
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .unwrap_or(0)
}

fn memory() -> Finding {
    let kib = available_memory();
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let found = format!("{} available", silo_types::size::binary(kib as f64 * 1024.0));
    if kib < 128 << 10 {
        Finding::bad(Verdict::Warning, "memory", found, "stop something, or add swap")
    } else {
        Finding::good("memory", found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_fail() {
        for (release, verdict) in [
            ("6.1.0-18-amd64", Verdict::Good),
            ("5.15.0", Verdict::Good),
            ("5.10.0-28", Verdict::Failure),
            ("4.19", Verdict::Failure),
        ] {
            assert_eq!(kernel(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn reports_say_what_to_do() {
        let text = report(&[
            Finding::good("a", "fine"),
            Finding::bad(Verdict::Failure, "b", "broken", "mend it"),
        ]);
        assert!(text.contains("-> mend it"));
        assert!(text.ends_with("This host is not fit for containers: 1 to mend.\n"));
    }
}

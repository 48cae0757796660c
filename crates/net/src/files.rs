//! The text of a container's `/etc/hosts` and `/etc/resolv.conf`: pure functions.

use std::fmt::Write as _;
use std::net::IpAddr;

const HOSTS_V4: &str = "127.0.0.1\tlocalhost\n";
const HOSTS_V6: &str = "::1\tlocalhost ip6-localhost ip6-loopback\n\
                        fe00::\tip6-localnet\n\
                        ff00::\tip6-mcastprefix\n\
                        ff02::1\tip6-allnodes\n\
                        ff02::2\tip6-allrouters\n";

/// The `/etc/hosts` that dockerd writes: loopback, then `extra` in order, then `own`.
///
/// An entry is (address, names separated by blanks).
pub fn hosts(extra: &[(String, String)], own: &[(IpAddr, String)]) -> String {
    let mut text = format!("{HOSTS_V4}{HOSTS_V6}");
    for (address, names) in extra {
        push_line(&mut text, format_args!("{address}\t{names}"));
    }
    for (address, names) in own {
        push_line(&mut text, format_args!("{address}\t{names}"));
    }
    text
}

fn push_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let written = writeln!(text, "{line}");
    debug_assert!(written.is_ok());
}

/// Splits `host:address` (or `host=address`) of `--add-host` into (address, host).
///
/// The address `host-gateway` stands for `gateway`. `None` if it is not an entry.
pub fn parse_extra_host(entry: &str, gateway: Option<IpAddr>) -> Option<(String, String)> {
    let (name, address) = entry.split_once('=').or_else(|| entry.split_once(':'))?;
    if name.is_empty() {
        return None;
    }
    if address == "host-gateway" {
        return Some((gateway?.to_string(), name.to_owned()));
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    bare.parse::<IpAddr>().ok().map(|address| (address.to_string(), name.to_owned()))
}

/// The `--dns*` options of a container; an empty list leaves what the host has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsOptions {
    /// `--dns`: addresses of name servers.
    pub servers: Vec<String>,
    /// `--dns-search`: search domains; `.` alone clears them.
    pub search: Vec<String>,
    /// `--dns-opt`: resolver options.
    pub options: Vec<String>,
}

/// Whether a container's `/etc/resolv.conf` may name servers on the host's loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolverReach {
    /// The container has its own network: loopback servers are dropped, and Google's public ones
    /// (`8.8.8.8`, `8.8.4.4`) used if none is left, as dockerd does; IPv6 servers need IPv6.
    OwnNetwork {
        /// Whether the container has IPv6.
        ipv6: bool,
    },
    /// The container shares the host's network: the host's servers as they are.
    Host,
}

/// A container's `/etc/resolv.conf`, from the text of the host's file.
pub fn resolv_conf(host: &str, dns: &DnsOptions, reach: ResolverReach) -> String {
    let mut servers: Vec<String> = Vec::new();
    let mut search: Vec<String> = Vec::new();
    let mut options: Vec<String> = Vec::new();
    let mut other: Vec<&str> = Vec::new();
    for line in host.lines().filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        let Some(keyword) = words.next() else { continue };
        let mut rest = words.map(str::to_owned).peekable();
        match keyword {
            "nameserver" => {
                servers.extend(rest.next().filter(|s| server_address(s).is_some()));
            }
            "domain" | "search" if rest.peek().is_some() => search = rest.collect(),
            "options" => options.extend(rest),
            "domain" | "search" => {}
            _ => other.push(line),
        }
    }
    if !dns.servers.is_empty() {
        servers.clone_from(&dns.servers);
    } else if let ResolverReach::OwnNetwork { ipv6 } = reach {
        servers.retain(|server| {
            server_address(server).is_some_and(|a| !a.is_loopback() && (a.is_ipv4() || ipv6))
        });
        if servers.is_empty() {
            servers.extend(["8.8.8.8".to_owned(), "8.8.4.4".to_owned()]);
            if ipv6 {
                servers.extend(["2001:4860:4860::8888", "2001:4860:4860::8844"].map(str::to_owned));
            }
        }
    }
    if !dns.search.is_empty() {
        search = dns.search.iter().filter(|domain| *domain != ".").cloned().collect();
    }
    if !dns.options.is_empty() {
        options.clone_from(&dns.options);
    }

    let mut text = String::with_capacity(256);
    for server in &servers {
        push_line(&mut text, format_args!("nameserver {server}"));
    }
    if !search.is_empty() {
        push_line(&mut text, format_args!("search {}", search.join(" ")));
    }
    if !options.is_empty() {
        push_line(&mut text, format_args!("options {}", options.join(" ")));
    }
    for line in other {
        push_line(&mut text, format_args!("{line}"));
    }
    text
}

/// Whether a resolv.conf names only systemd-resolved's stub (`127.0.0.53`), so that the servers
/// behind it are in `/run/systemd/resolve/resolv.conf`.
pub fn is_resolved_stub(host: &str) -> bool {
    let mut servers = host.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()).flatten()
    });
    servers.next() == Some("127.0.0.53") && servers.next().is_none()
}

/// The text of the host's resolver configuration that a container's file is made of: of
/// `/etc/resolv.conf`, or of systemd-resolved's own file where the first is only its stub.
/// Without any file the text is empty.
pub fn host_resolv_conf(reach: ResolverReach) -> String {
    let text = fs_err::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if reach != ResolverReach::Host && is_resolved_stub(&text) {
        return fs_err::read_to_string("/run/systemd/resolve/resolv.conf").unwrap_or(text);
    }
    text
}

/// An address of a `nameserver` line, which may carry a zone (`fe80::1%eth0`).
fn server_address(text: &str) -> Option<IpAddr> {
    text.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: ResolverReach = ResolverReach::OwnNetwork { ipv6: false };

    fn dns(servers: &[&str], search: &[&str], options: &[&str]) -> DnsOptions {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        DnsOptions { servers: own(servers), search: own(search), options: own(options) }
    }

    #[test]
    fn hosts_has_loopback_extras_then_self() {
        let text = hosts(
            &[("1.2.3.4".into(), "foo".into())],
            &[("172.17.0.2".parse().unwrap(), "c0ffee.example c0ffee".into())],
        );
        assert_eq!(
            text,
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\n\
             ff02::2\tip6-allrouters\n1.2.3.4\tfoo\n172.17.0.2\tc0ffee.example c0ffee\n"
        );
    }

    #[test]
    fn extra_hosts_parse() {
        let gateway = Some("172.17.0.1".parse().unwrap());
        for (entry, expected) in [
            ("a:1.2.3.4", Some(("1.2.3.4", "a"))),
            ("a=::1", Some(("::1", "a"))),
            ("a:::1", Some(("::1", "a"))),
            ("a:[::1]", Some(("::1", "a"))),
            ("h:host-gateway", Some(("172.17.0.1", "h"))),
            ("a", None),
            (":1.2.3.4", None),
            ("a:nonsense", None),
        ] {
            let expected = expected.map(|(a, n): (&str, &str)| (a.to_owned(), n.to_owned()));
            assert_eq!(parse_extra_host(entry, gateway), expected, "{entry}");
        }
        assert_eq!(parse_extra_host("h:host-gateway", None), None);
    }

    #[test]
    fn resolv_conf_follows_dockerd() {
        let plain =
            "# c\nnameserver 10.0.0.1\nsearch a.b c.d\noptions ndots:2 edns0\nsortlist 1.0.0.0\n";
        for (host, dns, reach, expected) in [
            (plain, DnsOptions::default(), OWN, plain.strip_prefix("# c\n").unwrap()),
            ("", DnsOptions::default(), OWN, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
            ("", DnsOptions::default(), ResolverReach::Host, ""),
            (
                "nameserver 127.0.0.53\nnameserver 9.9.9.9\nnameserver fe80::1%eth0\n",
                DnsOptions::default(),
                OWN,
                "nameserver 9.9.9.9\n",
            ),
            (
                "nameserver 127.0.0.53\n",
                DnsOptions::default(),
                ResolverReach::Host,
                "nameserver 127.0.0.53\n",
            ),
            (
                plain,
                dns(&["127.0.0.1"], &["."], &["timeout:1"]),
                OWN,
                "nameserver 127.0.0.1\noptions timeout:1\nsortlist 1.0.0.0\n",
            ),
            (
                "domain x\nsearch\n",
                dns(&["1.1.1.1"], &[], &[]),
                OWN,
                "nameserver 1.1.1.1\nsearch x\n",
            ),
        ] {
            assert_eq!(resolv_conf(host, &dns, reach), expected, "{host:?} {dns:?}");
        }
    }

    #[test]
    fn resolved_stub_is_known() {
        assert!(is_resolved_stub("nameserver 127.0.0.53\noptions edns0\n"));
        assert!(!is_resolved_stub("nameserver 127.0.0.53\nnameserver 1.1.1.1\n"));
        assert!(!is_resolved_stub("nameserver 127.0.0.1\n"));
    }
}

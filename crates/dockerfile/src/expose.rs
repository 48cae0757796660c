//! The ports of `EXPOSE`.

use std::collections::BTreeSet;

use crate::error::ExpandError;
use crate::quote;

/// What one word of `EXPOSE` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// The first port.
    pub start: u16,
    /// The last port.
    pub end: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// The protocol is not in lower case.
    pub odd_case: bool,
    /// There is an address or a host's port, which mean nothing here.
    pub mapped: bool,
}

/// Reads `[[ip:]host-port:]port[-port][/protocol]`, expanded. Without one the protocol is tcp.
pub fn read(word: &str) -> Result<Exposed, ExpandError> {
    let fail = |message: String| Err(ExpandError::new(message));
    let mut parts: Vec<&str> = word.rsplitn(3, ':').collect();
    parts.reverse();
    let (ip, host, container) = match parts.as_slice() {
        [ip, host, container] => (*ip, *host, *container),
        [host, container] => ("", *host, *container),
        _ => ("", "", word),
    };
    let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
    let invalid = |what: &str| fail(format!("invalid port: {}: {what}", quote::go(word)));
    if container.is_empty() {
        return invalid("no port specified");
    }
    let lower = protocol.to_lowercase();
    let known = match lower.as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return invalid(&format!("invalid proto: {protocol}")),
    };
    if !ip.is_empty() {
        let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
        if ip.starts_with('[') && bare == ip {
            return fail(format!("invalid IP address {ip}: address {ip}:: missing ']' in address"));
        }
        if bare.parse::<std::net::IpAddr>().is_err() {
            return fail(format!("invalid IP address: {bare}"));
        }
    }
    let Some((start, end)) = range(container) else {
        return fail(format!("invalid containerPort: {container}"));
    };
    if !host.is_empty() {
        let Some((host_start, host_end)) = range(host) else {
            return fail(format!("invalid hostPort: {host}"));
        };
        // Several host ports for one of the container are a choice.
        if end - start != host_end - host_start && end != start {
            return fail(format!(
                "invalid ranges specified for container and host Ports: {container} and {host}"
            ));
        }
    }
    Ok(Exposed {
        start,
        end,
        protocol: known,
        odd_case: protocol != lower,
        mapped: !ip.is_empty() || !host.is_empty(),
    })
}

impl Exposed {
    /// `80/tcp` and so on, each of the range.
    pub fn ports(&self) -> impl Iterator<Item = String> {
        (self.start..=self.end).map(|port| format!("{port}/{}", self.protocol))
    }
}

/// All ports of expanded words, each once, in the order of the words.
pub fn ports(words: &[String]) -> Result<Vec<String>, ExpandError> {
    let mut ports = Vec::new();
    let mut seen = BTreeSet::new();
    let mut ranges = BTreeSet::new();
    for word in words {
        let Exposed { start, end, protocol, .. } = read(word)?;
        // A line has room for thousands of words that each name all ports.
        if !ranges.insert((start, end, protocol)) {
            continue;
        }
        let new = (start..=end).filter(|&port| seen.insert((port, protocol)));
        ports.extend(new.map(|port| format!("{port}/{protocol}")));
    }
    Ok(ports)
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (number(start)?, number(end)?);
    (start <= end).then_some((start, end))
}

/// Go takes a sign, too.
fn number(text: &str) -> Option<u16> {
    match text.strip_prefix('-') {
        Some(zero) if !zero.is_empty() && zero.bytes().all(|byte| byte == b'0') => Some(0),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (word, ports, mapped) in [
            ("80", vec!["80/tcp"], false),
            ("80/UDP", vec!["80/udp"], false),
            ("80/", vec!["80/tcp"], false),
            ("8000-8002/sctp", vec!["8000/sctp", "8001/sctp", "8002/sctp"], false),
            ("8080:80", vec!["80/tcp"], true),
            ("127.0.0.1:8080-8090:80", vec!["80/tcp"], true),
            ("[::1]:8080:80/tcp", vec!["80/tcp"], true),
            ("::1:8080:80/tcp", vec!["80/tcp"], true),
            (":80", vec!["80/tcp"], false),
        ] {
            let exposed = read(word).unwrap();
            assert_eq!(exposed.ports().collect::<Vec<_>>(), ports, "{word}");
            assert_eq!(exposed.mapped, mapped, "{word}");
        }
        assert!(read("80/Tcp").unwrap().odd_case);
        let all = ["81-82", "80-82", "80/udp", "81"].map(str::to_owned);
        assert_eq!(ports(&all).unwrap(), ["81/tcp", "82/tcp", "80/tcp", "80/udp"]);
    }

    #[test]
    fn refused() {
        for (word, message) in [
            ("", "invalid port: \"\": no port specified"),
            ("/tcp", "invalid port: \"/tcp\": no port specified"),
            ("80/icmp", "invalid port: \"80/icmp\": invalid proto: icmp"),
            ("http", "invalid containerPort: http"),
            ("65536", "invalid containerPort: 65536"),
            ("90-80", "invalid containerPort: 90-80"),
            ("x:80", "invalid hostPort: x"),
            ("1-2:80-85", "invalid ranges specified for container and host Ports: 80-85 and 1-2"),
            ("1.2.3:1:2", "invalid IP address: 1.2.3"),
        ] {
            assert_eq!(read(word).unwrap_err().message, message, "{word}");
        }
    }
}

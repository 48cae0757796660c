//! `--publish` and `--expose`.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Host address and host port (which may be a range, or empty) for each container port.
pub(crate) type Bindings = BTreeMap<String, Vec<(String, String)>>;

/// Adds what one `--publish` says.
pub(crate) fn publish(spec: &str, bindings: &mut Bindings) -> Result<(), String> {
    let spec = &standard_form(spec)?;
    let parts: Vec<&str> = spec.split(':').collect();
    let (address, host, container) = match parts.len() {
        1 => (String::new(), "", parts[0]),
        2 => (String::new(), parts[0], parts[1]),
        n => (parts[..n - 2].join(":"), parts[n - 2], parts[n - 1]),
    };
    let (container, protocol) = split_protocol(container);
    if container.is_empty() {
        return Err(format!("no port specified: {spec}<empty>"));
    }
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let bare = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(|| {
            format!("invalid IP address {address}: address {address}:: missing ']' in address")
        })?,
        None => &address,
    };
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {bare}"));
    }
    let (first, last) =
        range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
    let host_range = if host.is_empty() {
        None
    } else {
        Some(range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?)
    };
    if let Some((host_first, host_last)) = host_range
        && last - first != host_last - host_first
        && last != first
    {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        ));
    }
    for offset in 0..=(last - first) {
        let host_port = match host_range {
            None => String::new(),
            // One container port and many host ports: any of these may be taken.
            Some((a, b)) if first == last && a != b => format!("{a}-{b}"),
            Some((a, _)) => (a + offset).to_string(),
        };
        bindings
            .entry(format!("{}/{protocol}", first + offset))
            .or_default()
            .push((bare.to_owned(), host_port));
    }
    Ok(())
}

/// The ports of one `--expose`.
pub(crate) fn expose(spec: &str) -> Result<Vec<String>, String> {
    if spec.contains(':') {
        return Err(format!("invalid port format for --expose: {spec}"));
    }
    let (ports, protocol) = split_protocol(spec);
    let (first, last) = range(ports).ok_or_else(|| {
        format!("invalid range format for --expose: {ports}, error: invalid port range")
    })?;
    Ok((first..=last).map(|port| format!("{port}/{}", protocol.to_lowercase())).collect())
}

fn split_protocol(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((port, protocol)) if !protocol.is_empty() => (port, protocol),
        Some((port, _)) => (port, "tcp"),
        None => (text, "tcp"),
    }
}

fn range(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits).map(u32::from)
    };
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some((first, last))
        }
    }
}

/// `published=80,target=8080,protocol=tcp` in the short form.
fn standard_form(spec: &str) -> Result<String, String> {
    if !spec.contains('=') {
        return Ok(spec.to_owned());
    }
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for parameter in spec.split(',') {
        let (key, value) =
            parameter.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
                format!("invalid publish opts format (should be name=value but got '{parameter}')")
            })?;
        match key {
            "published" => published = value,
            "target" => target = value,
            "protocol" => protocol = value,
            _ => {}
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: &str) -> Result<String, String> {
        let mut bindings = Bindings::new();
        publish(spec, &mut bindings)?;
        let shown = bindings.iter().flat_map(|(port, hosts)| {
            hosts.iter().map(move |(address, host)| format!("{address}|{host}->{port}"))
        });
        Ok(shown.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn forms() {
        for (spec, shown) in [
            ("80", "|->80/tcp"),
            ("8080:80", "|8080->80/tcp"),
            ("127.0.0.1:8080:81/UDP", "127.0.0.1|8080->81/udp"),
            ("127.0.0.1::80", "127.0.0.1|->80/tcp"),
            ("9000-9001:90-91", "|9000->90/tcp |9001->91/tcp"),
            ("100-105:99", "|100-105->99/tcp"),
            ("[::1]:70:71", "::1|70->71/tcp"),
            ("::1:70:71", "::1|70->71/tcp"),
            ("published=80,target=90", "|80->90/tcp"),
        ] {
            assert_eq!(parse(spec).as_deref(), Ok(shown), "{spec}");
        }
    }

    #[test]
    fn refused() {
        for (spec, message) in [
            ("", "no port specified: <empty>"),
            ("x", "invalid containerPort: x"),
            ("70000", "invalid containerPort: 70000"),
            ("x:80", "invalid hostPort: x"),
            ("1-2:1-3", "invalid ranges specified for container and host Ports: 1-3 and 1-2"),
            ("80/foo", "invalid proto: foo"),
            ("host:1:2", "invalid IP address: host"),
            ("2-1", "invalid containerPort: 2-1"),
        ] {
            assert_eq!(parse(spec).unwrap_err(), message, "{spec}");
        }
        assert_eq!(expose("5-6/udp").unwrap(), ["5/udp", "6/udp"]);
        assert!(expose("x").is_err());
    }
}

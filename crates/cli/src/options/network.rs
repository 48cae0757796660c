//! `--network`, in its short form and in `name=...,alias=...`.

use serde_json::{Map as JsonMap, Value as Json, json};

use super::RunFlags;
use super::values::csv_fields;
use crate::flags::FlagValue;

/// What one `--network` says.
#[derive(Debug, Default, Clone)]
pub(crate) struct Attachment {
    pub(crate) target: String,
    aliases: Vec<String>,
    driver_options: JsonMap<String, Json>,
    links: Vec<String>,
    ipv4: String,
    ipv6: String,
    link_local: Vec<String>,
    mac: String,
    gateway_priority: i64,
}

/// All of them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Networks(pub(crate) Vec<Attachment>);

impl FlagValue for Networks {
    const KIND: &'static str = "network";
    fn set(&mut self, text: &str) -> Result<(), String> {
        self.0.push(if is_long(text) {
            long(text)?
        } else {
            Attachment { target: text.to_owned(), ..Attachment::default() }
        });
        Ok(())
    }
}

/// Whether there is `word=word` anywhere.
fn is_long(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices('=')
        .any(|(at, _)| text[..at].ends_with(is_word) && text[at + 1..].starts_with(is_word))
}

fn long(text: &str) -> Result<Attachment, String> {
    let mut network = Attachment::default();
    let address = |value: &str| {
        value
            .parse::<std::net::IpAddr>()
            .map(|address| address.to_string())
            .map_err(|_| format!("ParseAddr({value:?}): unable to parse IP"))
    };
    for field in csv_fields(text)? {
        let lower = field.to_lowercase();
        let (key, value) = lower
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| format!("invalid field {field}"))?;
        let (key, value) = (key.trim(), value.trim());
        match key {
            "name" => value.clone_into(&mut network.target),
            "alias" => network.aliases.push(value.to_owned()),
            "ip" => network.ipv4 = address(value)?,
            "ip6" => network.ipv6 = address(value)?,
            "mac-address" => value.clone_into(&mut network.mac),
            "link-local-ip" => network.link_local.push(address(value)?),
            "driver-opt" => {
                let (name, value) = value
                    .split_once('=')
                    .filter(|(name, _)| !name.is_empty())
                    .ok_or("invalid key value pair format in driver options")?;
                network.driver_options.insert(name.trim().to_owned(), json!(value.trim()));
            }
            "gw-priority" => {
                network.gateway_priority = value
                    .parse()
                    .map_err(|_| format!("invalid gw-priority ({value}): invalid syntax"))?;
            }
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if network.target.is_empty() {
        return Err("network name/id is not specified".into());
    }
    Ok(network)
}

fn is_user_defined(target: &str) -> bool {
    !matches!(target, "default" | "bridge" | "host" | "none" | "nat")
        && !target.starts_with("container:")
}

/// The network mode and the endpoints of a new container.
pub(crate) fn endpoints(flags: &RunFlags) -> Result<(String, Json), String> {
    let mut endpoints = JsonMap::new();
    let networks = &flags.network.0;
    if networks.is_empty() {
        let mut only = Attachment { target: "default".into(), ..Attachment::default() };
        merge(&mut only, flags)?;
        endpoints.insert("default".into(), endpoint(&only)?);
        return Ok(("default".into(), Json::Object(endpoints)));
    }
    let (mut user_defined, mut others) = (false, false);
    for (index, network) in networks.iter().enumerate() {
        let mut network = network.clone();
        if is_user_defined(&network.target) {
            user_defined = true;
        } else {
            others = true;
        }
        if index == 0 {
            merge(&mut network, flags)?;
        }
        let endpoint = endpoint(&network)?;
        if endpoints.contains_key(&network.target) {
            return Err(format!("network {:?} is specified multiple times", network.target));
        }
        // A single network without options needs no endpoint: the engine makes it.
        if networks.len() == 1 && is_plain(&network) {
            continue;
        }
        endpoints.insert(network.target.clone(), endpoint);
    }
    if user_defined && others {
        return Err("conflicting options: cannot attach both user-defined and non-user-defined \
                    network-modes"
            .into());
    }
    Ok((networks[0].target.clone(), Json::Object(endpoints)))
}

fn is_plain(network: &Attachment) -> bool {
    network.aliases.is_empty()
        && network.driver_options.is_empty()
        && network.links.is_empty()
        && network.ipv4.is_empty()
        && network.ipv6.is_empty()
        && network.link_local.is_empty()
        && network.mac.is_empty()
        && network.gateway_priority == 0
}

/// Adds the flags of their own to the first network.
fn merge(network: &mut Attachment, flags: &RunFlags) -> Result<(), String> {
    let twice = |flag: &str, what: &str| {
        Err(format!("conflicting options: cannot specify both {flag} and per-network {what}"))
    };
    if !flags.network_alias.is_empty() {
        if !network.aliases.is_empty() {
            return twice("--network-alias", "alias");
        }
        network.aliases.clone_from(&flags.network_alias);
    }
    if is_user_defined(&network.target) {
        network.links.clone_from(&flags.link.0);
    }
    if !flags.ip.0.is_empty() {
        if !network.ipv4.is_empty() {
            return twice("--ip", "IPv4 address");
        }
        network.ipv4.clone_from(&flags.ip.0);
    }
    if !flags.ip6.0.is_empty() {
        if !network.ipv6.is_empty() {
            return twice("--ip6", "IPv6 address");
        }
        network.ipv6.clone_from(&flags.ip6.0);
    }
    if !flags.mac_address.is_empty() {
        if !network.mac.is_empty() {
            return twice("--mac-address", "MAC address");
        }
        network.mac.clone_from(&flags.mac_address);
    }
    if !flags.link_local_ip.is_empty() {
        if !network.link_local.is_empty() {
            return twice("--link-local-ip", "link-local IP addresses");
        }
        network.link_local.clone_from(&flags.link_local_ip);
    }
    Ok(())
}

fn endpoint(network: &Attachment) -> Result<Json, String> {
    if network.target.trim().is_empty() {
        return Err("no name set for network".into());
    }
    if !is_user_defined(&network.target) {
        if !network.aliases.is_empty() {
            return Err(
                "network-scoped aliases are only supported for user-defined networks".into()
            );
        }
        if !network.links.is_empty() {
            return Err("links are only supported for user-defined networks".into());
        }
    }
    let list = |items: &[String]| if items.is_empty() { Json::Null } else { json!(items) };
    let mut ipam = JsonMap::new();
    for (name, value) in [("IPv4Address", &network.ipv4), ("IPv6Address", &network.ipv6)] {
        if !value.is_empty() {
            ipam.insert(name.into(), json!(value));
        }
    }
    if !network.link_local.is_empty() {
        ipam.insert("LinkLocalIPs".into(), json!(network.link_local));
    }
    let options = &network.driver_options;
    Ok(endpoint_json(
        if ipam.is_empty() { Json::Null } else { Json::Object(ipam) },
        list(&network.links),
        list(&network.aliases),
        mac(&network.mac)?,
        if options.is_empty() { Json::Null } else { Json::Object(options.clone()) },
        network.gateway_priority,
    ))
}

/// An endpoint with the fields that the API has for it.
pub(crate) fn endpoint_json(
    ipam: Json,
    links: Json,
    aliases: Json,
    mac: String,
    driver_options: Json,
    gateway_priority: i64,
) -> Json {
    json!({
        "IPAMConfig": ipam,
        "Links": links,
        "Aliases": aliases,
        "MacAddress": mac,
        "DriverOpts": driver_options,
        "GwPriority": gateway_priority,
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": null,
    })
}

fn mac(text: &str) -> Result<String, String> {
    let address = text.trim();
    if address.is_empty() {
        return Ok(String::new());
    }
    let separator = if address.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = address.split(separator).collect();
    let right = matches!(parts.len(), 6 | 8 | 20)
        && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
    if right { Ok(address.to_owned()) } else { Err(format!("{text} is not a valid mac address")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Parsed, parse};

    fn run(args: &[&str]) -> Result<(String, Json), String> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        match parse::<RunFlags>(&args, false)? {
            Parsed::Flags(flags, _) => endpoints(&flags),
            Parsed::Help => unreachable!("no test asks for help"),
        }
    }

    #[test]
    fn modes() {
        let (mode, endpoints) = run(&["--network", "host"]).unwrap();
        assert_eq!((mode.as_str(), endpoints), ("host", json!({})));
        let (mode, endpoints) =
            run(&["--net", "name=n1,alias=a,ip=1.2.3.4,driver-opt=k=v", "--net=n2"]).unwrap();
        assert_eq!(mode, "n1");
        assert_eq!(endpoints["n1"]["Aliases"], json!(["a"]));
        assert_eq!(endpoints["n1"]["IPAMConfig"], json!({"IPv4Address": "1.2.3.4"}));
        assert_eq!(endpoints["n1"]["DriverOpts"], json!({"k": "v"}));
        assert_eq!(endpoints["n2"]["Aliases"], Json::Null);
    }

    #[test]
    fn conflicts() {
        for (args, message) in [
            (&["--net", "n", "--net", "n"][..], "network \"n\" is specified multiple times"),
            (
                &["--net", "n", "--net", "host"],
                "conflicting options: cannot attach both \
                user-defined and non-user-defined network-modes",
            ),
            (
                &["--net", "host", "--network-alias", "x"],
                "network-scoped aliases are only \
                supported for user-defined networks",
            ),
            (&["--mac-address", "x"], "x is not a valid mac address"),
            (
                &["--net", "name=n,alias=a", "--network-alias", "b"],
                "conflicting options: cannot \
                specify both --network-alias and per-network alias",
            ),
        ] {
            assert_eq!(run(args).unwrap_err(), message, "{args:?}");
        }
    }
}

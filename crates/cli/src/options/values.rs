//! Values of flags that are checked when they are read, with Docker's wording.

use std::net::IpAddr;

use serde_json::{Value as Json, json};

use crate::flags::FlagValue;

/// A newtype over a list whose elements are checked by a function.
macro_rules! checked_list {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Default, Clone)]
        pub(crate) struct $name(pub(crate) Vec<String>);
        impl FlagValue for $name {
            const KIND: &'static str = "list";
            fn set(&mut self, text: &str) -> Result<(), String> {
                self.0.push($check(text)?);
                Ok(())
            }
        }
    };
}

checked_list!(
    /// `-a stdin`
    AttachList, attach_name
);
checked_list!(
    /// `-e NAME=value`, or `-e NAME` for a variable of the caller
    EnvList, variable
);
checked_list!(
    /// `-l key=value`
    Labels, label
);
checked_list!(
    /// `--dns 1.1.1.1`
    IpList, ip_address
);
checked_list!(
    /// `--dns-search example.com`
    DnsSearch, search_domain
);
checked_list!(
    /// `--add-host name:address`
    ExtraHosts, extra_host
);
checked_list!(
    /// `--link name:alias`
    Links, link
);
checked_list!(
    /// `--device-cgroup-rule 'c 1:3 rwm'`
    DeviceRules, device_rule
);

fn attach_name(text: &str) -> Result<String, String> {
    let name = text.to_lowercase();
    match name.as_str() {
        "stdin" | "stdout" | "stderr" => Ok(name),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".into()),
    }
}

fn variable(text: &str) -> Result<String, String> {
    let name = text.split('=').next().unwrap_or_default();
    if name.is_empty() {
        return Err(format!("invalid environment variable: {text}"));
    }
    if text.contains('=') {
        return Ok(text.to_owned());
    }
    Ok(match std::env::var(name) {
        Ok(value) => format!("{name}={value}"),
        Err(_) => text.to_owned(),
    })
}

pub(crate) fn label(text: &str) -> Result<String, String> {
    let key = text.split('=').next().unwrap_or_default().trim_start_matches([' ', '\t']);
    if key.is_empty() {
        return Err(format!("invalid label '{text}': empty name"));
    }
    if key.contains([' ', '\t']) {
        return Err(format!("label '{key}' contains whitespaces"));
    }
    Ok(text.to_owned())
}

pub(crate) fn ip_address(text: &str) -> Result<String, String> {
    match text.trim().parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
    }
}

fn search_domain(text: &str) -> Result<String, String> {
    let name = text.trim_matches(' ');
    if name == "." {
        return Ok(name.to_owned());
    }
    let domain = name.trim_end().strip_suffix('.').unwrap_or(name.trim_end());
    let is_component = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if domain.len() < 255
        && domain.bytes().any(|b| b.is_ascii_alphabetic())
        && domain.split('.').all(is_component)
    {
        Ok(domain.to_owned())
    } else {
        Err(format!("{name} is not a valid domain"))
    }
}

/// `name:address` or `name=address`; IPv6 may be in brackets.
fn extra_host(text: &str) -> Result<String, String> {
    let bad = || format!("bad format for add-host: {text:?}");
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    if name.is_empty() {
        return Err(bad());
    }
    if address == "host-gateway" {
        return Ok(format!("{name}:{address}"));
    }
    let bare = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').unwrap_or(address),
        None => address,
    };
    if bare.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{bare}"))
}

fn link(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("empty string specified for links".into());
    }
    if text.matches(':').count() > 1 {
        return Err(format!("bad format for links: {text}"));
    }
    Ok(text.to_owned())
}

fn device_rule(text: &str) -> Result<String, String> {
    let number =
        |part: &str| part == "*" || (!part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let parts: Vec<&str> = text.split(' ').collect();
    let right = matches!(parts[..], [kind, numbers, access]
        if matches!(kind, "a" | "c" | "b")
            && numbers.split_once(':').is_some_and(|(a, b)| number(a) && number(b))
            && (1..=3).contains(&access.len())
            && access.bytes().all(|b| matches!(b, b'r' | b'w' | b'm')));
    if right { Ok(text.to_owned()) } else { Err(format!("invalid device cgroup format '{text}'")) }
}

/// Bytes, as go-units reads them.
fn bytes(text: &str) -> Result<i64, String> {
    silo_types::size::parse_binary(text)
        .and_then(|bytes| i64::try_from(bytes).ok())
        .ok_or_else(|| format!("invalid size: '{text}'"))
}

/// A size in bytes.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Bytes(pub(crate) i64);

impl FlagValue for Bytes {
    const KIND: &'static str = "bytes";
    fn set(&mut self, text: &str) -> Result<(), String> {
        self.0 = bytes(text)?;
        Ok(())
    }
}

/// A size in bytes, or -1 for no limit.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct SwapBytes(pub(crate) i64);

impl FlagValue for SwapBytes {
    const KIND: &'static str = "bytes";
    fn set(&mut self, text: &str) -> Result<(), String> {
        self.0 = if text == "-1" { -1 } else { bytes(text)? };
        Ok(())
    }
}

/// A number of CPUs, kept in billionths.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Cpus(pub(crate) i64);

impl FlagValue for Cpus {
    const KIND: &'static str = "decimal";
    fn set(&mut self, text: &str) -> Result<(), String> {
        let bad = || format!("failed to parse {text} as a rational number");
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if digits.is_empty() || digits == "." || !is_number(whole) || !is_number(fraction) {
            return Err(bad());
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 9 {
            return Err("value is too precise".into());
        }
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
        let fraction: i64 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
        let nano = whole.checked_mul(1_000_000_000).and_then(|nano| nano.checked_add(fraction));
        self.0 = nano.ok_or_else(bad)? * if negative { -1 } else { 1 };
        Ok(())
    }
}

/// One address.
#[derive(Debug, Default, Clone)]
pub(crate) struct IpAddress(pub(crate) String);

impl FlagValue for IpAddress {
    const KIND: &'static str = "ip";
    fn set(&mut self, text: &str) -> Result<(), String> {
        match text.trim().parse::<IpAddr>() {
            Ok(address) => self.0 = address.to_string(),
            Err(_) => return Err(format!("failed to parse IP: {text:?}")),
        }
        Ok(())
    }
}

/// `key=value` pairs, of which the last of a key counts.
#[derive(Debug, Default, Clone)]
pub(crate) struct Map(pub(crate) Vec<(String, String)>);

impl Map {
    fn insert(&mut self, text: &str) {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        self.0.retain(|(known, _)| known != key);
        self.0.push((key.to_owned(), value.to_owned()));
    }

    /// A JSON object.
    pub(crate) fn json(&self) -> Json {
        self.0.iter().map(|(key, value)| (key.clone(), json!(value))).collect()
    }
}

impl FlagValue for Map {
    const KIND: &'static str = "map";
    fn set(&mut self, text: &str) -> Result<(), String> {
        self.insert(text);
        Ok(())
    }
}

/// Kernel parameters that a container may have of its own.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sysctls(pub(crate) Map);

impl FlagValue for Sysctls {
    const KIND: &'static str = "map";
    fn set(&mut self, text: &str) -> Result<(), String> {
        const NAMES: [&str; 8] = [
            "kernel.msgmax",
            "kernel.msgmnb",
            "kernel.msgmni",
            "kernel.sem",
            "kernel.shmall",
            "kernel.shmmax",
            "kernel.shmmni",
            "kernel.shm_rmid_forced",
        ];
        let allowed = text.split_once('=').is_some_and(|(name, _)| {
            NAMES.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.")
        });
        if !allowed {
            return Err(format!("sysctl '{text}' is not allowed"));
        }
        self.0.insert(text);
        Ok(())
    }
}

/// `--ulimit nofile=1024:2048`, sorted by name.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ulimits(std::collections::BTreeMap<String, (i64, i64)>);

impl Ulimits {
    /// `name=soft:hard`, one for each.
    pub(crate) fn fields(&self) -> Vec<String> {
        let limit = |(name, (soft, hard)): (&String, &(i64, i64))| format!("{name}={soft}:{hard}");
        self.0.iter().map(limit).collect()
    }

    /// JSON as the API wants it.
    pub(crate) fn json(&self) -> Json {
        let limit = |(name, (soft, hard)): (&String, &(i64, i64))| json!({"Name": name, "Hard": hard, "Soft": soft});
        self.0.iter().map(limit).collect()
    }
}

impl FlagValue for Ulimits {
    const KIND: &'static str = "ulimit";
    fn set(&mut self, text: &str) -> Result<(), String> {
        const NAMES: [&str; 16] = [
            "as",
            "core",
            "cpu",
            "data",
            "fsize",
            "locks",
            "memlock",
            "msgqueue",
            "nice",
            "nofile",
            "nproc",
            "rss",
            "rtprio",
            "rttime",
            "sigpending",
            "stack",
        ];
        let (name, limits) =
            text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
        if !NAMES.contains(&name) {
            return Err(format!("invalid ulimit type: {name}"));
        }
        let number = |part: &str| {
            part.parse::<i64>()
                .map_err(|_| format!("strconv.ParseInt: parsing {part:?}: invalid syntax"))
        };
        let (soft, hard) = match limits.split_once(':') {
            Some((_, hard)) if hard.contains(':') => {
                return Err(format!(
                    "too many limit value arguments - {limits}, can only have up to two, \
                     `soft[:hard]`"
                ));
            }
            Some((soft, hard)) => (number(soft)?, number(hard)?),
            None => (number(limits)?, number(limits)?),
        };
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            ));
        }
        self.0.insert(name.to_owned(), (soft, hard));
        Ok(())
    }
}

/// `--blkio-weight-device /dev/sda:100`
#[derive(Debug, Default, Clone)]
pub(crate) struct WeightDevices(pub(crate) Vec<Json>);

fn device_and_value(text: &str) -> Result<(&str, &str), String> {
    let (device, value) = text.split_once(':').ok_or_else(|| format!("bad format: {text}"))?;
    if device.is_empty() {
        return Err(format!("bad format: {text}"));
    }
    if !device.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    Ok((device, value))
}

impl FlagValue for WeightDevices {
    const KIND: &'static str = "list";
    fn set(&mut self, text: &str) -> Result<(), String> {
        let (device, value) = device_and_value(text)?;
        let weight: u16 = value
            .parse()
            .ok()
            .filter(|weight| *weight == 0 || (10..=1000).contains(weight))
            .ok_or_else(|| format!("invalid weight for device: {text}"))?;
        self.0.push(json!({"Path": device, "Weight": weight}));
        Ok(())
    }
}

/// `--device-read-bps /dev/sda:1mb`
#[derive(Debug, Default, Clone)]
pub(crate) struct ThrottleBytes(pub(crate) Vec<Json>);

impl FlagValue for ThrottleBytes {
    const KIND: &'static str = "list";
    fn set(&mut self, text: &str) -> Result<(), String> {
        let (device, value) = device_and_value(text)?;
        let rate = bytes(value).map_err(|_| {
            format!(
                "invalid rate for device: {text}. The correct format is \
                 <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is \
                 optional and can be kb, mb, or gb"
            )
        })?;
        self.0.push(json!({"Path": device, "Rate": rate}));
        Ok(())
    }
}

/// `--device-read-iops /dev/sda:100`
#[derive(Debug, Default, Clone)]
pub(crate) struct ThrottleOps(pub(crate) Vec<Json>);

impl FlagValue for ThrottleOps {
    const KIND: &'static str = "list";
    fn set(&mut self, text: &str) -> Result<(), String> {
        let (device, value) = device_and_value(text)?;
        let rate: u64 = value.parse().map_err(|_| {
            format!(
                "invalid rate for device: {text}. The correct format is <device-path>:<number>. \
                 Number must be a positive integer"
            )
        })?;
        self.0.push(json!({"Path": device, "Rate": rate}));
        Ok(())
    }
}

/// `--gpus all`
#[derive(Debug, Default, Clone)]
pub(crate) struct Gpus(pub(crate) Vec<Json>);

impl FlagValue for Gpus {
    const KIND: &'static str = "gpu-request";
    fn set(&mut self, text: &str) -> Result<(), String> {
        let count_of = |text: &str| {
            if text == "all" {
                return Ok(-1);
            }
            text.parse::<i64>().map_err(|_| {
                format!(
                    "invalid count ({text}): value must be either \"all\" or an integer: invalid \
                     syntax"
                )
            })
        };
        let mut seen: Vec<String> = Vec::new();
        let (mut count, mut driver) = (None, String::new());
        let (mut devices, mut options) = (Json::Null, json!({}));
        let mut capabilities = json!([["gpu"]]);
        for field in csv_fields(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, value),
                None => ("count", field.as_str()),
            };
            if seen.iter().any(|known| known == key) {
                return Err(format!("gpu request key '{key}' can be specified only once"));
            }
            seen.push(key.to_owned());
            match key {
                "count" => count = Some(count_of(value)?),
                "driver" => value.clone_into(&mut driver),
                "device" => devices = value.split(',').collect(),
                "capabilities" => {
                    let list: Vec<&str> = value.split(',').chain(["gpu"]).collect();
                    capabilities = json!([list]);
                }
                "options" => {
                    options = csv_fields(value)?
                        .iter()
                        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                        .map(|(key, value)| (key.to_owned(), json!(value)))
                        .collect();
                }
                _ => return Err(format!("unexpected key '{key}' in '{field}'")),
            }
        }
        let count = count.unwrap_or(i64::from(devices.is_null()));
        self.0.push(json!({
            "Driver": driver,
            "Count": count,
            "DeviceIDs": devices,
            "Capabilities": capabilities,
            "Options": options,
        }));
        Ok(())
    }
}

/// One record of comma-separated values.
pub(crate) fn csv_fields(text: &str) -> Result<Vec<String>, String> {
    silo_types::csv::fields(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<T: FlagValue + Default>(text: &str) -> Result<T, String> {
        let mut value = T::default();
        value.set(text).map(|()| value)
    }

    #[test]
    fn cpus() {
        for (text, nano) in [
            ("1.5", 1_500_000_000),
            (".5", 500_000_000),
            ("2", 2_000_000_000),
            ("0.10", 100_000_000),
        ] {
            assert_eq!(set::<Cpus>(text).unwrap().0, nano, "{text}");
        }
        assert_eq!(set::<Cpus>("x").unwrap_err(), "failed to parse x as a rational number");
        assert_eq!(set::<Cpus>("0.0000000001").unwrap_err(), "value is too precise");
        assert!(set::<Cpus>("99999999999999999999").is_err());
    }

    #[test]
    fn hosts_links_and_domains() {
        assert_eq!(extra_host("a:1.2.3.4").unwrap(), "a:1.2.3.4");
        assert_eq!(extra_host("a=[::1]").unwrap(), "a:::1");
        assert_eq!(extra_host("a:::1").unwrap(), "a:::1");
        assert_eq!(extra_host("a:host-gateway").unwrap(), "a:host-gateway");
        assert_eq!(extra_host("a").unwrap_err(), "bad format for add-host: \"a\"");
        assert_eq!(extra_host("a:x").unwrap_err(), "invalid IP address in add-host: \"x\"");
        assert_eq!(link("a:b:c").unwrap_err(), "bad format for links: a:b:c");
        assert_eq!(search_domain("ex.com.").unwrap(), "ex.com");
        assert_eq!(search_domain("-x").unwrap_err(), "-x is not a valid domain");
        assert!(device_rule("c 1:* rwm").is_ok());
        assert!(device_rule("x 1:* rwm").is_err());
    }

    #[test]
    fn limits() {
        assert_eq!(
            set::<Ulimits>("nofile=1:2").unwrap().json(),
            json!([{"Name": "nofile", "Hard": 2, "Soft": 1}])
        );
        assert_eq!(set::<Ulimits>("x=1").unwrap_err(), "invalid ulimit type: x");
        assert!(set::<Ulimits>("nofile=3:2").is_err());
        assert_eq!(set::<SwapBytes>("-1").unwrap().0, -1);
        assert_eq!(set::<Bytes>("x").unwrap_err(), "invalid size: 'x'");
        assert!(set::<WeightDevices>("/dev/sda:5").is_err());
        assert_eq!(set::<ThrottleBytes>("/x:1").unwrap_err(), "bad format for device path: /x:1");
    }

    #[test]
    fn labels_and_variables() {
        assert!(label("a b=c").is_err());
        assert_eq!(label("=x").unwrap_err(), "invalid label '=x': empty name");
        assert_eq!(variable("=x").unwrap_err(), "invalid environment variable: =x");
        assert_eq!(variable("NO_SUCH_VARIABLE_").unwrap(), "NO_SUCH_VARIABLE_");
        assert_eq!(set::<Sysctls>("vm.x=1").unwrap_err(), "sysctl 'vm.x=1' is not allowed");
    }

    #[test]
    fn csv() {}
}

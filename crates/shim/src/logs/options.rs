//! Options of the log drivers, as `docker run --log-opt` takes them.

use std::collections::BTreeMap;

use regex_lite::Regex;

use crate::config::LogDriver;

/// An option that a driver does not take, or not so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionError(String);

impl silo_types::Kind for OptionError {
    fn kind(&self) -> silo_types::ErrorKind {
        silo_types::ErrorKind::InvalidParameter
    }
}

/// Options by name.
pub type Options = BTreeMap<String, String>;

/// Checks the names of a driver's options, as dockerd does when a container is created; their
/// values are judged at its start, by [`initialize`].
pub fn validate(driver: LogDriver, options: &Options) -> Result<(), OptionError> {
    // docker wording
    for name in options.keys().map(String::as_str) {
        match driver {
            LogDriver::None => {
                return Err(OptionError("invalid logging opts for driver none".into()));
            }
            LogDriver::JsonFile => match name {
                "max-size" | "max-file" | "compress" | "labels" | "labels-regex" | "env"
                | "env-regex" | "tag" => {}
                _ => {
                    return Err(OptionError(format!(
                        "unknown log opt '{name}' for json-file log driver"
                    )));
                }
            },
            LogDriver::Local => match name {
                "max-size" | "max-file" | "compress" => {}
                _ => {
                    return Err(OptionError(format!(
                        "unknown log opt '{name}' for log driver local"
                    )));
                }
            },
        }
    }
    Ok(())
}

/// Checks the values of a driver's options, with the messages that dockerd has when a container
/// is started.
pub fn initialize(driver: LogDriver, options: &Options) -> Result<(), OptionError> {
    // docker wording
    Rotation::new(driver, options).map(drop).map_err(|OptionError(cause)| {
        OptionError(format!("failed to initialize logging driver: {cause}"))
    })
}

/// When a log file is replaced and what becomes of the old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// Bytes from which on a file takes no further record; `None` is no limit.
    pub(crate) max_size: Option<u64>,
    /// How many files there may be, the current one included; at least one.
    pub(crate) max_file: u32,
    /// Whether files other than the current one are compressed.
    pub(crate) compress: bool,
}

impl Rotation {
    pub(crate) fn new(driver: LogDriver, options: &Options) -> Result<Self, OptionError> {
        let fail = |text: String| Err(OptionError(text));
        let local = driver == LogDriver::Local;
        let max_size = match options.get("max-size") {
            None => local.then_some(20_000_000),
            Some(text) => match decimal_size(text) {
                None => return fail(format!("invalid size: '{text}'")),
                Some(0) => return fail("max-size must be a positive number".into()),
                size => size,
            },
        };
        let max_file = match options.get("max-file") {
            None if local => 5,
            None => 1,
            Some(text) => match text.parse::<i64>().map(u32::try_from) {
                Err(_) => {
                    return fail(format!(
                        "strconv.Atoi: parsing {}: invalid syntax",
                        serde_json::Value::from(text.as_str())
                    ));
                }
                Ok(Ok(count @ 1..)) => count,
                Ok(_) => return fail("max-file cannot be less than 1".into()),
            },
        };
        let compress = match options.get("compress").map(String::as_str) {
            None => local,
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
            Some(text) => {
                return fail(format!(
                    "strconv.ParseBool: parsing {}: invalid syntax",
                    serde_json::Value::from(text)
                ));
            }
        };
        let rotates = max_file > 1 && max_size.is_some();
        if compress && !rotates && options.contains_key("compress") {
            return fail(
                "compress cannot be true when max-file is less than 2 or max-size is not set"
                    .into(),
            );
        }
        Ok(Self { max_size, max_file, compress: compress && rotates })
    }
}

/// `10m`, `1.5 GB`: sizes with 1000 as the base, as `max-size` has them.
fn decimal_size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let suffix = suffix.strip_prefix(' ').unwrap_or(suffix).to_ascii_lowercase();
    let power = match suffix.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let unit = 1000_u64.pow(power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    // A fraction: digits after the point weigh ever smaller parts of the unit.
    let (whole, fraction) = number.split_once('.')?;
    let mut total = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let mut weight = unit;
    for digit in fraction.chars() {
        weight /= 10;
        total = total.checked_add(u64::from(digit.to_digit(10)?) * weight)?;
    }
    Some(total)
}

/// What of a container can appear in its log's attributes.
#[derive(Debug, Clone, Copy)]
pub struct AttributeSource<'a> {
    /// Full container id.
    pub id: &'a str,
    /// Container name without the slash.
    pub name: &'a str,
    /// Image id, `sha256:...`.
    pub image_id: &'a str,
    /// Image as the user named it.
    pub image_name: &'a str,
    /// Entry point and arguments.
    pub command: &'a [String],
    /// `NAME=value`.
    pub env: &'a [String],
    /// The container's labels.
    pub labels: &'a BTreeMap<String, String>,
}

/// The attributes that `options` choose of a container: `labels`, `labels-regex`, `env`,
/// `env-regex`, `tag`.
pub fn attributes(
    options: &Options,
    source: AttributeSource<'_>,
) -> Result<BTreeMap<String, String>, OptionError> {
    let mut chosen = BTreeMap::new();
    let labels = || source.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let env = || source.env.iter().filter_map(|variable| variable.split_once('='));
    choose(options, "labels", labels(), &mut chosen)?;
    choose(options, "env", env(), &mut chosen)?;
    if let Some(template) = options.get("tag").filter(|tag| !tag.is_empty()) {
        let tag = expand_tag(template, source)?;
        if !tag.is_empty() {
            chosen.insert("tag".into(), tag);
        }
    }
    Ok(chosen)
}

fn choose<'a>(
    options: &Options,
    option: &str,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
    chosen: &mut BTreeMap<String, String>,
) -> Result<(), OptionError> {
    let listed: Vec<&str> = options.get(option).map_or(vec![], |list| list.split(',').collect());
    let pattern = match options.get(&format!("{option}-regex")).filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(
            Regex::new(text)
                .map_err(|error| OptionError(format!("error parsing regexp `{text}`: {error}")))?,
        ),
    };
    for (name, value) in pairs {
        if listed.contains(&name) || pattern.as_ref().is_some_and(|p| p.is_match(name)) {
            chosen.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(())
}

/// Replaces the fields of a Go template that documentation names for log tags.
fn expand_tag(template: &str, source: AttributeSource<'_>) -> Result<String, OptionError> {
    let short = |id: &str| id.rsplit(':').next().unwrap_or(id).chars().take(12).collect();
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let (field, after) = after
            .split_once("}}")
            .ok_or_else(|| OptionError(format!("template: log-tag: unclosed action in {rest}")))?;
        let value: String = match field.trim_matches(|c: char| c == ' ' || c == '-') {
            ".ID" => short(source.id),
            ".FullID" | ".ContainerID" => source.id.to_owned(),
            ".Name" => source.name.to_owned(),
            ".ContainerName" => format!("/{}", source.name),
            ".ImageID" => short(source.image_id),
            ".ImageFullID" | ".ContainerImageID" => source.image_id.to_owned(),
            ".ImageName" | ".ContainerImageName" => source.image_name.to_owned(),
            ".Command" => source.command.join(" "),
            ".DaemonName" => "silo".to_owned(),
            ".Hostname" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            other => {
                return Err(OptionError(format!(
                    "template: log-tag: can't evaluate field {}",
                    other.trim_start_matches('.')
                )));
            }
        };
        text.push_str(&value);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn mistakes_read_as_dockerds() {
        for (pairs, message) in [
            (&[("max-size", "x")][..], "invalid size: 'x'"),
            (&[("max-size", "-1")], "invalid size: '-1'"),
            (&[("max-size", "0")], "max-size must be a positive number"),
            (&[("max-file", "0")], "max-file cannot be less than 1"),
            (&[("max-file", "-2")], "max-file cannot be less than 1"),
            (&[("max-file", "x")], "strconv.Atoi: parsing \"x\": invalid syntax"),
            (&[("compress", "x")], "strconv.ParseBool: parsing \"x\": invalid syntax"),
            (
                &[("compress", "true")],
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ),
        ] {
            let error = initialize(LogDriver::JsonFile, &options(pairs)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("failed to initialize logging driver: {message}")
            );
        }
        for (driver, message) in [
            (LogDriver::JsonFile, "unknown log opt 'bogus' for json-file log driver"),
            (LogDriver::Local, "unknown log opt 'bogus' for log driver local"),
            (LogDriver::None, "invalid logging opts for driver none"),
        ] {
            let error = validate(driver, &options(&[("bogus", "1")])).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn limits() {
        let rotation = |driver, pairs: &[_]| Rotation::new(driver, &options(pairs)).unwrap();
        let of = |max_size, max_file, compress| Rotation { max_size, max_file, compress };
        assert_eq!(rotation(LogDriver::JsonFile, &[]), of(None, 1, false));
        assert_eq!(rotation(LogDriver::Local, &[]), of(Some(20_000_000), 5, true));
        assert_eq!(
            rotation(LogDriver::Local, &[("max-file", "1")]),
            of(Some(20_000_000), 1, false)
        );
        let pairs = [("max-size", "1.5k"), ("max-file", "3"), ("compress", "true")];
        assert_eq!(rotation(LogDriver::JsonFile, &pairs), of(Some(1500), 3, true));
        for (text, size) in
            [("10m", 10_000_000), ("10 MB", 10_000_000), ("7", 7), ("1gib", 1_000_000_000)]
        {
            assert_eq!(decimal_size(text), Some(size), "{text}");
        }
    }

    #[test]
    fn attributes_come_from_labels_variables_and_tag() {
        let labels = BTreeMap::from([("x".into(), "y".into()), ("app.one".into(), "1".into())]);
        let env = ["A=1".to_owned(), "BX=2=3".to_owned(), "C".to_owned()];
        let id = "0123456789abcdef".repeat(4);
        let source = AttributeSource {
            id: &id,
            name: "web",
            image_id: "sha256:aabbccddeeff0011",
            image_name: "busybox",
            command: &["sh".to_owned(), "-c".to_owned()],
            env: &env,
            labels: &labels,
        };
        let chosen = attributes(
            &options(&[
                ("labels", "x,none"),
                ("labels-regex", "^app"),
                ("env", "A"),
                ("env-regex", "^B"),
                ("tag", "{{.Name}}/{{ .ID }}-{{.ImageID}} {{.Command}}"),
            ]),
            source,
        )
        .unwrap();
        let wanted = options(&[
            ("x", "y"),
            ("app.one", "1"),
            ("A", "1"),
            ("BX", "2=3"),
            ("tag", "web/0123456789ab-aabbccddeeff sh -c"),
        ]);
        assert_eq!(chosen, wanted);
        assert!(attributes(&options(&[("env-regex", "(")]), source).is_err());
        assert!(attributes(&options(&[("tag", "{{.Nope}}")]), source).is_err());
        assert!(attributes(&options(&[("tag", "{{.ID")]), source).is_err());
    }
}

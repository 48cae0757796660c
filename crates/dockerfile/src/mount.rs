//! `RUN --mount` and `RUN --device`: fields as a line of CSV.

use crate::ast::Device;
use crate::error::{ExpandError, ParseError};
use crate::{quote, suggest};

/// One `--mount`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// A stage, an image or a named context. For `bind` without it: the build context.
    pub from: Option<String>,
    /// A path in `from`, or for a secret its id.
    pub source: Option<String>,
    /// Where it is mounted. Relative paths are the caller's to join with the working directory.
    pub target: Option<String>,
    /// Whether it is not written to; depends on the kind when the flag does not say.
    pub read_only: bool,
    /// `tmpfs`: its size in bytes.
    pub size: Option<u64>,
    /// `cache`: what makes two of them the same; `secret`, `ssh`: which one.
    pub id: Option<String>,
    /// `cache`: what happens when two steps want it.
    pub sharing: Option<Sharing>,
    /// `secret`, `ssh`: the step fails without it.
    pub required: bool,
    /// `secret`: the variable that gets the value; empty for the id's own name.
    pub env: Option<String>,
    /// Permissions.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// `type=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret of the client.
    Secret,
    /// The client's SSH agent.
    Ssh,
}

impl MountKind {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// `sharing=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// All steps use it at once.
    Shared,
    /// A step that comes while it is in use gets another one.
    Private,
    /// A step that comes while it is in use waits.
    Locked,
}

const KINDS: [MountKind; 5] =
    [MountKind::Bind, MountKind::Cache, MountKind::Tmpfs, MountKind::Secret, MountKind::Ssh];

const SHARING: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

fn fail<T>(message: impl Into<String>) -> Result<T, ExpandError> {
    Err(ExpandError::new(message))
}

/// What can be said of a mount before variables are expanded: only `from` takes none.
pub(crate) fn unexpanded(flag: &str) -> Result<Mount, ParseError> {
    let mut mount = Mount::default();
    let fields = fields(flag)
        .map_err(|cause| ParseError::about(format!("failed to parse csv mounts: {cause}"), flag))?;
    for field in fields {
        let Some((key, value)) = field.split_once('=') else { continue };
        if !key.eq_ignore_ascii_case("from") {
            continue;
        }
        if value.find('$').is_some_and(|at| at + 1 != value.len()) {
            return Err(ParseError::about(
                "'from' doesn't support variable expansion, define alias stage instead",
                &field,
            ));
        }
        mount.from = some(value.to_owned());
    }
    mount.read_only = true;
    Ok(mount)
}

/// Empty means not given.
fn some(value: String) -> Option<String> {
    (!value.is_empty()).then_some(value)
}

/// Reads a mount whose values go through `expand`.
pub(crate) fn expanded(
    flag: &str,
    expand: &mut dyn FnMut(&str) -> Result<String, ExpandError>,
) -> Result<Mount, ExpandError> {
    let mut mount = Mount::default();
    let mut read_only = None;
    let fields = fields(flag)
        .map_err(|cause| ExpandError::new(format!("failed to parse csv mounts: {cause}")))?;
    for field in &fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        let Some(value) = value else {
            match key.as_str() {
                "readonly" | "ro" => read_only = Some(true),
                "readwrite" | "rw" => read_only = Some(false),
                "required" => {
                    optional(mount.kind, &key)?;
                    mount.required = true;
                }
                _ => return fail(format!("invalid field '{key}' must be a key=value pair")),
            }
            continue;
        };
        let value = expand(value)?;
        set(&mut mount, &mut read_only, &key, value, field)?;
    }
    mount.read_only =
        read_only.unwrap_or(!matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs));
    check(&mount)?;
    Ok(mount)
}

/// `required` is for what a client may lack.
fn optional(kind: MountKind, key: &str) -> Result<(), ExpandError> {
    match kind {
        MountKind::Secret | MountKind::Ssh => Ok(()),
        _ => fail(format!("unexpected key '{key}' for mount type '{}'", kind.name())),
    }
}

fn set(
    mount: &mut Mount,
    read_only: &mut Option<bool>,
    key: &str,
    value: String,
    field: &str,
) -> Result<(), ExpandError> {
    let invalid = |value: &str| ExpandError::new(format!("invalid value for {key}: {value}"));
    let number = |value: &str, radix| {
        digits(value, radix)
            .ok_or_else(|| ExpandError::new(format!("invalid value {value} for {key}")))
    };
    match key {
        "type" => {
            let lower = value.to_lowercase();
            mount.kind = match KINDS.into_iter().find(|kind| kind.name() == lower) {
                Some(kind) => kind,
                None => {
                    return fail(suggest::message(
                        format!("unsupported mount type {}", quote::go(&value)),
                        &value,
                        KINDS.map(MountKind::name),
                        true,
                    ));
                }
            };
        }
        "from" => mount.from = some(value),
        "source" | "src" => mount.source = some(value),
        "target" | "dst" | "destination" => mount.target = some(value),
        "readonly" | "ro" => *read_only = Some(boolean(&value).ok_or_else(|| invalid(&value))?),
        "readwrite" | "rw" => *read_only = Some(!boolean(&value).ok_or_else(|| invalid(&value))?),
        "required" => {
            optional(mount.kind, key)?;
            mount.required = boolean(&value).ok_or_else(|| invalid(&value))?;
        }
        "size" if mount.kind == MountKind::Tmpfs => {
            let size = silo_types::size::parse_binary(&value).ok_or_else(|| invalid(&value))?;
            mount.size = (size > 0).then_some(size);
        }
        "size" => {
            return fail(format!("unexpected key '{key}' for mount type '{}'", mount.kind.name()));
        }
        "id" => mount.id = some(value),
        "sharing" => {
            let lower = value.to_lowercase();
            mount.sharing = match SHARING.into_iter().find(|(name, _)| *name == lower) {
                Some((_, sharing)) => Some(sharing),
                None => {
                    return fail(suggest::message(
                        format!("unsupported sharing value {}", quote::go(&value)),
                        &value,
                        SHARING.map(|(name, _)| name),
                        true,
                    ));
                }
            };
        }
        "mode" => mount.mode = Some(number(&value, 8)?),
        "uid" => mount.uid = Some(number(&value, 10)?),
        "gid" => mount.gid = Some(number(&value, 10)?),
        "env" => mount.env = Some(value),
        _ => {
            let message = format!("unexpected key '{key}' in '{field}'");
            return fail(suggest::message(message, key, KEYS, true));
        }
    }
    Ok(())
}

/// What does not go together.
fn check(mount: &Mount) -> Result<(), ExpandError> {
    let kind = mount.kind;
    if matches!(kind, MountKind::Bind | MountKind::Tmpfs) {
        let given = [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)];
        if let Some((key, _)) = given.into_iter().find(|(_, value)| value.is_some()) {
            let name = quote::go(kind.name());
            return fail(format!("{key} not allowed for {name} type mounts"));
        }
    }
    if kind == MountKind::Secret {
        if mount.from.is_some() {
            return fail("secret mount should not have a from");
        }
        if mount.sharing.is_some() {
            return fail("secret mount should not define sharing");
        }
        if mount.source.is_none() && mount.target.is_none() && mount.id.is_none() {
            return fail("invalid secret mount. one of source, target required");
        }
        if mount.source.is_some() && mount.id.is_some() {
            return fail("both source and id can't be set");
        }
    }
    if mount.sharing.is_some() && kind != MountKind::Cache {
        return fail(format!("invalid cache sharing set for {} mount", kind.name()));
    }
    Ok(())
}

/// Reads a `--device`.
pub(crate) fn device(flag: &str) -> Result<Device, ParseError> {
    let fail = |message: String| Err(ParseError::about(message, flag));
    let mut device = Device::default();
    let fields = match fields(flag) {
        Ok(fields) => fields,
        Err(cause) => return fail(format!("failed to parse csv devices: {cause}")),
    };
    for field in fields {
        let Some((key, value)) = field.split_once('=') else {
            if field.eq_ignore_ascii_case("required") {
                device.required = true;
            } else if device.name.is_empty() {
                device.name = field;
            } else {
                return fail(format!("invalid field '{field}' must be a key=value pair"));
            }
            continue;
        };
        match key.to_lowercase().as_str() {
            "name" if !device.name.is_empty() => {
                return fail(format!("device name already set to {}", device.name));
            }
            "name" => value.clone_into(&mut device.name),
            "required" => match boolean(value) {
                Some(required) => device.required = required,
                None => return fail(format!("invalid value for required: {value}")),
            },
            // CDI names have a `=` of their own.
            _ if device.name.is_empty() => device.name = field,
            other => {
                let message = format!("unexpected key '{other}' in '{field}'");
                return fail(suggest::message(message, other, ["name", "required"], true));
            }
        }
    }
    Ok(device)
}

/// The forms that Go's `ParseBool` takes.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn digits(text: &str, radix: u32) -> Option<u32> {
    if text.starts_with('+') { None } else { u32::from_str_radix(text, radix).ok() }
}

/// The fields of one line of CSV, or the parser's complaint in Go's words.
pub(crate) fn fields(line: &str) -> Result<Vec<String>, String> {
    const BARE: &str = "bare \" in non-quoted field";
    const QUOTE: &str = "extraneous or missing \" in quoted field";
    let error = |at: usize, what| Err(format!("parse error on line 1, column {}: {what}", at + 1));
    let line = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return Err("EOF".to_owned());
    }
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let rest = &line[at..];
        let Some(mut quoted) = rest.strip_prefix('"') else {
            let field = rest.split(',').next().unwrap_or_default();
            if let Some(quote) = field.find('"') {
                return error(at + quote, BARE);
            }
            fields.push(field.to_owned());
            at += field.len();
            if at == line.len() {
                return Ok(fields);
            }
            at += 1;
            continue;
        };
        let mut field = String::new();
        loop {
            let Some((before, behind)) = quoted.split_once('"') else {
                return error(line.len() - quoted.len(), QUOTE);
            };
            field.push_str(before);
            if let Some(behind) = behind.strip_prefix('"') {
                field.push('"');
                quoted = behind;
                continue;
            }
            fields.push(field);
            if behind.is_empty() {
                return Ok(fields);
            }
            if !behind.starts_with(',') {
                return error(line.len() - behind.len() - 1, QUOTE);
            }
            at = line.len() - behind.len() + 1;
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flag: &str) -> Result<Mount, String> {
        expanded(flag, &mut |value| Ok(value.replace("$V", "v"))).map_err(|error| error.message)
    }

    #[test]
    fn mounts() {
        let mount =
            read("type=cache,target=/$V,id=x,sharing=locked,mode=0755,uid=1,gid=2").unwrap();
        assert_eq!(
            mount,
            Mount {
                kind: MountKind::Cache,
                target: Some("/v".to_owned()),
                id: Some("x".to_owned()),
                sharing: Some(Sharing::Locked),
                mode: Some(0o755),
                uid: Some(1),
                gid: Some(2),
                ..Mount::default()
            }
        );
        let mount = read("from=a,\"source=b,c\",dst=d,rw").unwrap();
        assert_eq!(mount.from.as_deref(), Some("a"));
        assert_eq!(mount.source.as_deref(), Some("b,c"));
        assert_eq!(mount.target.as_deref(), Some("d"));
        assert!(!mount.read_only);
        assert!(read("target=/x").unwrap().read_only);
        assert!(read("type=cache,target=/x,readonly=true").unwrap().read_only);
        assert_eq!(read("type=tmpfs,target=/x,size=1k").unwrap().size, Some(1024));
        let secret = read("type=Secret,id=s,required,env=").unwrap();
        assert!(secret.required && secret.read_only);
        assert_eq!(secret.env.as_deref(), Some(""));
        assert_eq!(read("type=ssh").unwrap().kind, MountKind::Ssh);
    }

    #[test]
    fn refused() {
        for (flag, message) in [
            ("", "failed to parse csv mounts: EOF"),
            ("type=cahce", "unsupported mount type \"cahce\" (did you mean cache?)"),
            ("type=x", "unsupported mount type \"x\""),
            ("tpe=cache", "unexpected key 'tpe' in 'tpe=cache' (did you mean type?)"),
            ("bogus", "invalid field 'bogus' must be a key=value pair"),
            ("required", "unexpected key 'required' for mount type 'bind'"),
            ("ro=maybe", "invalid value for ro: maybe"),
            ("size=1", "unexpected key 'size' for mount type 'bind'"),
            ("type=tmpfs,size=x", "invalid value for size: x"),
            (
                "type=cache,sharing=lock",
                "unsupported sharing value \"lock\" (did you mean locked?)",
            ),
            ("mode=9", "invalid value 9 for mode"),
            ("type=cache,uid=+1", "invalid value +1 for uid"),
            ("mode=755", "mode not allowed for \"bind\" type mounts"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,src=b", "both source and id can't be set"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
            ("sharing=shared", "invalid cache sharing set for bind mount"),
            (
                "a\"b",
                "failed to parse csv mounts: parse error on line 1, column 2: bare \" in non-quoted field",
            ),
        ] {
            assert_eq!(read(flag).unwrap_err(), message, "{flag}");
        }
        let error = unexpanded("type=bind,from=$x").unwrap_err();
        assert_eq!(
            error.message,
            "'from' doesn't support variable expansion, define alias stage instead"
        );
        assert_eq!(unexpanded("type=$t,from=a$").unwrap().from.as_deref(), Some("a$"));
    }

    #[test]
    fn csv() {
        for (line, expected) in [
            ("a,b", Ok(vec!["a", "b"])),
            ("a,", Ok(vec!["a", ""])),
            ("\"a,\"\"b\",c", Ok(vec!["a,\"b", "c"])),
            ("\"a\"", Ok(vec!["a"])),
            ("\"a\"b", Err(3)),
            ("\"a", Err(2)),
            ("x,a\"", Err(4)),
        ] {
            let found = fields(line);
            match expected {
                Ok(expected) => assert_eq!(found.unwrap(), expected, "{line}"),
                Err(column) => {
                    let message = found.unwrap_err();
                    assert!(message.contains(&format!("column {column}:")), "{line}: {message}");
                }
            }
        }
    }

    #[test]
    fn devices() {
        let device_of = |name: &str, required| Device { name: name.to_owned(), required };
        for (flag, expected) in [
            ("vendor.com/gpu=0", device_of("vendor.com/gpu=0", false)),
            ("vendor.com/gpu=0,required", device_of("vendor.com/gpu=0", true)),
            ("name=x,required=false", device_of("x", false)),
        ] {
            assert_eq!(device(flag).unwrap(), expected);
        }
        for (flag, message) in [
            ("x,y", "invalid field 'y' must be a key=value pair"),
            ("x,name=y", "device name already set to x"),
            ("x,nme=y", "unexpected key 'nme' in 'nme=y' (did you mean name?)"),
        ] {
            assert_eq!(device(flag).unwrap_err().message, message);
        }
    }
}

//! `--mount type=bind,source=/a,target=/b` and `--volume /a:/b:ro`.

use serde_json::{Map as JsonMap, Value as Json, json};

use super::values::csv_fields;
use crate::flags::FlagValue;

/// The mounts, as the API wants them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Mounts(pub(crate) Vec<Json>);

/// The objects of options that one mount can have, and the type that each belongs to.
const OPTIONS: [(&str, &str, &str); 4] = [
    ("BindOptions", "bind", "bind-*"),
    ("VolumeOptions", "volume", "volume-*"),
    ("ImageOptions", "image", "image-*"),
    ("TmpfsOptions", "tmpfs", "tmpfs-*"),
];

#[derive(Default)]
struct Mount {
    kind: String,
    source: String,
    target: String,
    read_only: bool,
    consistency: String,
    options: JsonMap<String, Json>,
}

impl Mount {
    fn option(&mut self, object: &str, name: &str, value: Json) {
        let object = self.options.entry(object).or_insert_with(|| json!({}));
        if let Some(object) = object.as_object_mut() {
            object.insert(name.to_owned(), value);
        }
    }

    fn driver(&mut self) -> &mut Json {
        let options = self.options.entry("VolumeOptions").or_insert_with(|| json!({}));
        &mut options["DriverConfig"]
    }

    fn json(self) -> Json {
        let mut json = JsonMap::new();
        json.insert("Type".into(), json!(self.kind));
        for (name, value) in
            [("Source", self.source), ("Target", self.target), ("Consistency", self.consistency)]
        {
            if !value.is_empty() {
                json.insert(name.into(), json!(value));
            }
        }
        if self.read_only {
            json.insert("ReadOnly".into(), json!(true));
        }
        json.extend(self.options);
        Json::Object(json)
    }
}

impl FlagValue for Mounts {
    const KIND: &'static str = "mount";
    fn set(&mut self, text: &str) -> Result<(), String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("value is empty".into());
        }
        let mut mount = Mount { kind: "volume".into(), ..Mount::default() };
        for field in csv_fields(text)? {
            set_field(&mut mount, &field)?;
        }
        check(&mount)?;
        self.0.push(mount.json());
        Ok(())
    }
}

fn set_field(mount: &mut Mount, field: &str) -> Result<(), String> {
    let (key, value) = match field.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (field, None),
    };
    if key.trim() != key {
        return Err(format!(
            "invalid option '{}' in '{field}': option should not have whitespace",
            key.trim()
        ));
    }
    if let Some(value) = value {
        if value.trim().is_empty() {
            return Err(format!("invalid value for '{key}': value is empty"));
        }
        if value.trim() != value {
            return Err(format!(
                "invalid value for '{key}' in '{field}': value should not have whitespace"
            ));
        }
    }
    let key = key.to_lowercase();
    let switches = ["readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src"];
    if value.is_none() && !switches.contains(&key.as_str()) {
        return Err(format!("invalid field '{field}' must be a key=value pair"));
    }
    let switch = || match value {
        None | Some("1" | "true") => Ok(true),
        Some("0" | "false") => Ok(false),
        Some(value) => Err(format!(
            "invalid value for '{key}': invalid boolean value ({value:?}): must be one of \
             \"true\", \"1\", \"false\", or \"0\" (default \"true\")"
        )),
    };
    let text = value.unwrap_or_default();
    let wrong = || format!("invalid value for {key}: {text}");
    match key.as_str() {
        "type" => mount.kind = text.to_lowercase(),
        "source" | "src" => mount.source = absolute(text),
        "target" | "dst" | "destination" => text.clone_into(&mut mount.target),
        "readonly" | "ro" => mount.read_only = switch()?,
        "consistency" => mount.consistency = text.to_lowercase(),
        "bind-propagation" => {
            mount.option("BindOptions", "Propagation", json!(text.to_lowercase()));
        }
        "bind-nonrecursive" => {
            return Err(
                "bind-nonrecursive is deprecated, use bind-recursive=disabled instead".into()
            );
        }
        "bind-recursive" => {
            let name = match text {
                "enabled" => return Ok(()),
                "disabled" => "NonRecursive",
                "writable" => "ReadOnlyNonRecursive",
                "readonly" => "ReadOnlyForceRecursive",
                _ => {
                    return Err(format!(
                        "invalid value for {key}: {text} (must be \"enabled\", \"disabled\", \
                         \"writable\", or \"readonly\")"
                    ));
                }
            };
            mount.option("BindOptions", name, json!(true));
        }
        "bind-create-src" => {
            mount.option("BindOptions", "CreateMountpoint", json!(switch()?));
        }
        "volume-subpath" => mount.option("VolumeOptions", "Subpath", json!(text)),
        "volume-nocopy" => mount.option("VolumeOptions", "NoCopy", json!(switch()?)),
        "volume-label" => {
            if let Some((name, value)) = pair(text) {
                let options = mount.options.entry("VolumeOptions").or_insert_with(|| json!({}));
                options["Labels"][name] = json!(value);
            }
        }
        "volume-driver" => mount.driver()["Name"] = json!(text),
        "volume-opt" => {
            if let Some((name, value)) = pair(text) {
                mount.driver()["Options"][name] = json!(value);
            }
        }
        "image-subpath" => mount.option("ImageOptions", "Subpath", json!(text)),
        "tmpfs-size" => {
            let bytes = silo_types::size::parse_binary(text).ok_or_else(wrong)?;
            mount.option("TmpfsOptions", "SizeBytes", json!(bytes));
        }
        "tmpfs-mode" => {
            let mode = u32::from_str_radix(text, 8).map_err(|_| wrong())?;
            mount.option("TmpfsOptions", "Mode", json!(mode));
        }
        _ => return Err(format!("unknown option '{key}' in '{field}'")),
    }
    Ok(())
}

fn pair(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (!name.is_empty()).then_some((name, value))
}

fn check(mount: &Mount) -> Result<(), String> {
    if mount.kind.is_empty() {
        return Err("type is required".into());
    }
    for (object, kind, names) in OPTIONS {
        if mount.kind != kind && mount.options.contains_key(object) {
            return Err(format!("cannot mix '{names}' options with mount type '{}'", mount.kind));
        }
    }
    let bind = mount.options.get("BindOptions").cloned().unwrap_or_default();
    if bind["ReadOnlyNonRecursive"] == json!(true) && !mount.read_only {
        return Err("option 'bind-recursive=writable' requires 'readonly' to be specified in \
                    conjunction"
            .into());
    }
    if bind["ReadOnlyForceRecursive"] == json!(true) {
        if !mount.read_only {
            return Err("option 'bind-recursive=readonly' requires 'readonly' to be specified in \
                        conjunction"
                .into());
        }
        if bind["Propagation"] != json!("rprivate") {
            return Err("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' \
                        to be specified in conjunction"
                .into());
        }
    }
    Ok(())
}

/// A path that begins with a dot, made absolute; anything else as it is.
pub(crate) fn absolute(path: &str) -> String {
    if !path.starts_with('.') {
        return path.to_owned();
    }
    let Ok(mut full) = std::env::current_dir() else { return path.to_owned() };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                full.pop();
            }
            part => full.push(part),
        }
    }
    full.to_string_lossy().into_owned()
}

/// What a `--volume` means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Volume {
    /// Only a path in the container.
    Anonymous,
    /// Something of the host or a named volume, in the form of the API.
    Bind(String),
}

/// Reads one `--volume`.
pub(crate) fn volume(spec: &str) -> Result<Volume, String> {
    if spec.is_empty() {
        return Err("invalid empty volume spec".into());
    }
    if spec.len() <= 2 {
        return Ok(Volume::Anonymous);
    }
    let parts = split_spec(spec);
    let wrong = |reason: &str| Err(format!("invalid spec: {spec}: {reason}"));
    if parts.iter().any(String::is_empty) {
        return wrong("empty section between colons");
    }
    if parts.len() > 3 {
        return wrong("too many colons");
    }
    if parts.len() == 1 {
        return Ok(Volume::Anonymous);
    }
    let is_path = parts[0].starts_with(['.', '/', '~']) || parts[0].starts_with("\\\\");
    match spec.split_once(':') {
        Some((host, rest)) if is_path && host.starts_with('.') => {
            Ok(Volume::Bind(format!("{}:{rest}", absolute(host))))
        }
        _ => Ok(Volume::Bind(spec.to_owned())),
    }
}

/// The parts between colons; the colon of a Windows drive belongs to its part.
fn split_spec(spec: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for c in spec.chars() {
        let part = parts.last_mut().map_or("", |part| part.as_str());
        let is_drive = part.len() == 1 && part.starts_with(char::is_alphabetic);
        if c == ':' && !is_drive {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        let mut mounts = Mounts::default();
        for text in [
            "type=bind,src=/x,dst=/y,readonly,bind-propagation=rslave",
            "type=volume,source=v,target=/v,volume-nocopy,volume-label=a=b,volume-opt=k=v",
            "type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770",
            "target=/only",
        ] {
            mounts.set(text).unwrap();
        }
        assert_eq!(
            Json::Array(mounts.0),
            json!([
                {"Type": "bind", "Source": "/x", "Target": "/y", "ReadOnly": true,
                 "BindOptions": {"Propagation": "rslave"}},
                {"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions":
                 {"NoCopy": true, "Labels": {"a": "b"},
                  "DriverConfig": {"Options": {"k": "v"}}}},
                {"Type": "tmpfs", "Target": "/t",
                 "TmpfsOptions": {"SizeBytes": 67_108_864, "Mode": 0o1770}},
                {"Type": "volume", "Target": "/only"},
            ])
        );
    }

    #[test]
    fn refused_mounts() {
        for (text, message) in [
            ("", "value is empty"),
            ("x=1", "unknown option 'x' in 'x=1'"),
            ("type", "invalid field 'type' must be a key=value pair"),
            ("type=", "invalid value for 'type': value is empty"),
            (
                "type=bind,ro=x",
                "invalid value for 'ro': invalid boolean value (\"x\"): must be \
                                one of \"true\", \"1\", \"false\", or \"0\" (default \"true\")",
            ),
            (
                "type=tmpfs,src=/a,bind-propagation=shared",
                "cannot mix 'bind-*' options with mount type 'tmpfs'",
            ),
            ("type=tmpfs,tmpfs-size=x", "invalid value for tmpfs-size: x"),
            (
                "type =bind",
                "invalid option 'type' in 'type =bind': option should not have \
                            whitespace",
            ),
        ] {
            assert_eq!(Mounts::default().set(text).unwrap_err(), message, "{text}");
        }
    }

    #[test]
    fn volumes() {
        let here = std::env::current_dir().unwrap();
        let relative = format!("{}/rel:/r", here.display());
        for (spec, expected) in [
            ("/anon", Ok(Volume::Anonymous)),
            ("/a:/b:ro", Ok(Volume::Bind("/a:/b:ro".into()))),
            ("name:/c", Ok(Volume::Bind("name:/c".into()))),
            ("./rel:/r", Ok(Volume::Bind(relative))),
            ("C:\\a:D:\\b:ro", Ok(Volume::Bind("C:\\a:D:\\b:ro".into()))),
            ("", Err("invalid empty volume spec".into())),
            ("/a::/b", Err("invalid spec: /a::/b: empty section between colons".into())),
            ("/a:/b:ro:x", Err("invalid spec: /a:/b:ro:x: too many colons".into())),
        ] {
            assert_eq!(volume(spec), expected, "{spec}");
        }
    }
}

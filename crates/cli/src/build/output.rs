//! `--output`: what becomes of a result.

use std::collections::HashMap;
use std::path::PathBuf;

use silo_buildkit::client::Output;

use super::share::fields;
use crate::failure::{Failure, Outcome};
use crate::terminal;

/// A kind of result for the engine, and where its bytes go here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Export {
    pub(super) kind: String,
    pub(super) attributes: HashMap<String, String>,
    pub(super) output: Option<Output>,
}

/// What `--output` says; without any, an image in the engine's store.
pub(super) fn exports(
    texts: &[String],
    names: &[String],
    load: bool,
    push: bool,
) -> Outcome<Vec<Export>> {
    let mut exports = texts.iter().map(|text| export(text)).collect::<Outcome<Vec<_>>>()?;
    let has_image = exports.iter().any(|export| export.kind == "moby");
    if exports.is_empty() || ((load || push) && !has_image) {
        exports.push(Export { kind: "moby".into(), attributes: HashMap::new(), output: None });
    }
    if push {
        for export in exports.iter_mut().filter(|export| export.kind == "moby") {
            export.attributes.insert("push".to_owned(), "true".to_owned());
        }
    }
    if !names.is_empty() {
        for export in &mut exports {
            if matches!(export.kind.as_str(), "moby" | "docker" | "oci")
                && !export.attributes.contains_key("name")
            {
                export.attributes.insert("name".to_owned(), names.join(","));
            }
        }
    }
    Ok(exports)
}

fn export(text: &str) -> Outcome<Export> {
    let bad = |what: String| Failure::new(format!("ERROR: {what}"));
    if !text.contains('=') && !text.contains(',') {
        // A path alone: files, or an archive of them on standard output.
        let (kind, output) = if text == "-" {
            ("tar", to_stdout()?)
        } else {
            ("local", Output::Directory(PathBuf::from(text)))
        };
        return Ok(Export { kind: kind.into(), attributes: HashMap::new(), output: Some(output) });
    }
    let (mut kind, mut destination) = (String::new(), String::new());
    let mut attributes = HashMap::new();
    for (name, value) in fields(text).map_err(bad)? {
        match name.as_str() {
            "type" => kind = value,
            "dest" => destination = value,
            _ => {
                attributes.insert(name, value);
            }
        }
    }
    let output = match (kind.as_str(), destination.as_str()) {
        ("", _) => return Err(bad("type is required for output".to_owned())),
        ("local", "") => return Err(bad("dest is required for local output".to_owned())),
        ("local", path) => Some(Output::Directory(PathBuf::from(path))),
        ("registry", _) => {
            "moby".clone_into(&mut kind);
            attributes.insert("push".to_owned(), "true".to_owned());
            None
        }
        ("image" | "moby", _) | ("docker", "") => {
            "moby".clone_into(&mut kind);
            None
        }
        ("tar" | "oci" | "docker", "-" | "") => Some(to_stdout()?),
        ("tar" | "oci" | "docker", path) => {
            let path = PathBuf::from(path);
            if path.is_dir() {
                return Err(bad(format!("destination file {} is a directory", path.display())));
            }
            Some(Output::File(path))
        }
        (other, _) => return Err(bad(format!("exporter {other:?} could not be found"))),
    };
    Ok(Export { kind, attributes, output })
}

fn to_stdout() -> Outcome<Output> {
    if terminal::stdout_is_terminal() {
        return Err(Failure::new(
            "ERROR: dest file is required for the exporter. refusing to write to console",
        ));
    }
    Ok(Output::Stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_go_where_they_are_wanted() {
        let names = ["a:1".to_owned(), "b".to_owned()];
        let all = |texts: &[&str], load| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            exports(&texts, &names, load, false)
        };
        let image = all(&[], false).unwrap();
        assert_eq!((image[0].kind.as_str(), &image[0].output), ("moby", &None));
        assert_eq!(image[0].attributes["name"], "a:1,b");
        let both = all(&["out"], true).unwrap();
        assert_eq!(both[0].output, Some(Output::Directory("out".into())));
        assert!(both[0].attributes.is_empty());
        assert_eq!(both[1].kind, "moby");
        let file = all(&["type=oci,dest=x.tar,name=c"], false).unwrap();
        assert_eq!(file[0].output, Some(Output::File("x.tar".into())));
        assert_eq!(file[0].attributes["name"], "c");
        assert_eq!(all(&["type=docker"], false).unwrap()[0].kind, "moby");
        let pushed = exports(&["out".to_owned()], &names, false, true).unwrap();
        assert_eq!(
            (pushed[1].kind.as_str(), pushed[1].attributes["push"].as_str()),
            ("moby", "true")
        );
        let registry = all(&["type=registry"], true).unwrap();
        assert_eq!((registry.len(), registry[0].attributes["push"].as_str()), (1, "true"));
        for bad in ["type=local", "dest=x", "type=tar,dest=/", "type=none,dest=x"] {
            assert!(all(&[bad], false).is_err(), "{bad}");
        }
    }
}

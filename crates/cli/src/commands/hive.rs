//! Verbs on registry hives: files of layers, of virtual disks, and Wine's. No engine is needed.

mod change;
mod file;
mod show;

use silo_hive::delta::{self, DiffOptions};
use silo_hive::regfile::{self, Version};
use silo_hive::{Hive, wine};

use self::file::{Document, read_bytes, write_atomically};
use crate::command::Invocation;
use crate::context::warn;
use crate::failure::{Failure, Outcome};
use crate::flags::flags;

flags! {
    /// Flags of `hive dump`.
    DumpFlags {
        depth: Option<u64>, ['d'] "depth", "Show keys down to this depth only";
        keys: bool, ['k'] "keys", "Show keys without their values";
        no_logs: bool, "no-logs", "Leave the logs beside the file aside";
        verbose: bool, ['v'] "verbose", "Show times, classes, flags and security descriptors too";
    }
}

flags! {
    /// Flags of `hive get`.
    GetFlags {
        no_logs: bool, "no-logs", "Leave the logs beside the file aside";
        raw: bool, ['r'] "raw", "Write the bytes of the value as they are";
    }
}

flags! {
    /// Flags of `hive set`.
    SetFlags {
        create: bool, ['c'] "create", "Make the file if there is none";
        delete: bool, ['d'] "delete", "Delete the value, or the key with all below it";
        output: String, ['o'] "output", "Write to another file";
        r#type: String, ['t'] "type", "Type of the value: SZ, EXPAND_SZ, MULTI_SZ, DWORD, QWORD, BINARY, or a number (default \"SZ\")";
    }
}

flags! {
    /// Flags of `hive diff`.
    DiffFlags {
        ignore: Vec<String>, ['i'] "ignore", "Leave a key out, with all below it";
        output: String, ['o'] "output", "Write the difference as a differencing hive";
        times: bool, "times", "Keys that differ in their time only are different";
    }
}

flags! {
    /// Flags of `hive merge`.
    MergeFlags {
        flatten: bool, "flatten", "Make an ordinary hive, also if BASE is a differencing one";
        output: String, ['o'] "output", "Write to a file, instead of STDOUT";
    }
}

flags! {
    /// Flags of `hive export`.
    ExportFlags {
        format: String, ['f'] "format", "Format: reg, reg4, regf or wine (default \"reg\")";
        output: String, ['o'] "output", "Write to a file, instead of STDOUT";
        root: String, "root", "Path that the hive has in the registry (default by the file's name)";
    }
}

flags! {
    /// Flags of `hive import`.
    ImportFlags {
        create: bool, ['c'] "create", "Make the file if there is none";
        output: String, ['o'] "output", "Write to another file";
        root: String, "root", "Path that the hive has in the registry (default by the file's name)";
    }
}

/// `hive dump`
pub(crate) async fn dump(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<DumpFlags>()?;
    let document = Document::read(&words[0], !flags.no_logs)?;
    let path = words.get(1).map_or("", String::as_str);
    let key = document.key(path)?;
    let options = show::Options {
        depth: flags.depth.unwrap_or(u64::MAX),
        values: !flags.keys,
        verbose: flags.verbose,
    };
    let mut text = String::new();
    if flags.verbose {
        text.push_str(&show::header(&document.hive));
    }
    show::tree(&mut text, key, path.trim_matches('\\'), &options);
    invocation.cli.print(&text)
}

/// `hive get`
pub(crate) async fn get(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<GetFlags>()?;
    let document = Document::read(&words[0], !flags.no_logs)?;
    let key = document.key(&words[1])?;
    let Some(name) = words.get(2) else {
        let mut text = String::new();
        key.values().iter().for_each(|value| show::value(&mut text, value, ""));
        return invocation.cli.print(&text);
    };
    let value = key.value(name).filter(|value| !value.tombstone).ok_or_else(|| {
        Failure::new(format!("no value {name:?} in key {:?} of {}", words[1], words[0]))
    })?;
    if flags.raw {
        return file::write_stdout(&value.data);
    }
    invocation.cli.print(&show::plain(value))
}

/// `hive set`
pub(crate) async fn set(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<SetFlags>()?;
    let mut document = Document::read_to_change(&words[0], flags.create)?;
    let now = file::now();
    let root = &mut document.hive.root;
    if flags.delete {
        if words.len() > 3 {
            return Err(Failure::new("--delete takes no data"));
        }
        change::delete(root, &words[1], words.get(2), now)
            .map_err(|what| Failure::new(format!("{what} in {}", words[0])))?;
    } else {
        let value = match words.get(2) {
            None => None,
            Some(name) => Some(change::value(name, &flags.r#type, &words[3..])?),
        };
        let key = root.create(&words[1], now).map_err(|error| Failure::new(error.to_string()))?;
        if let Some(value) = value {
            key.set_value(value);
            key.last_write = now;
        }
    }
    let target = if flags.output.is_empty() { &words[0] } else { &flags.output };
    document.write(target)
}

/// `hive diff`
pub(crate) async fn diff(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<DiffFlags>()?;
    let base = Document::read(&words[0], true)?;
    let target = Document::read(&words[1], true)?;
    for (document, name) in [(&base, &words[0]), (&target, &words[1])] {
        if document.hive.layered {
            return Err(Failure::new(format!(
                "{name} is a differencing hive: merge it with its base first"
            )));
        }
    }
    let ignored: Vec<String> =
        flags.ignore.iter().map(|path| path.trim_matches('\\').to_uppercase()).collect();
    let ignore =
        |path: &str, value: Option<&str>| value.is_none() && ignored.contains(&path.to_uppercase());
    let options = DiffOptions {
        times: flags.times,
        ignore: if ignored.is_empty() { None } else { Some(&ignore) },
    };
    let difference = delta::diff(&base.hive, &target.hive, &options);
    if flags.output.is_empty() {
        let mut text = String::new();
        show::changes(&mut text, &base.hive.root, &difference.root, "");
        return invocation.cli.print(&text);
    }
    write_atomically(&flags.output, &file::regf(&difference)?)
}

/// `hive merge`
pub(crate) async fn merge(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<MergeFlags>()?;
    let mut document = Document::read(&words[0], true)?;
    for name in &words[1..] {
        let layer = Document::read(name, true)?;
        if !layer.hive.layered {
            return Err(Failure::new(format!("{name} is not a differencing hive")));
        }
        document.hive = delta::merge(document.hive, &layer.hive);
    }
    if flags.flatten {
        document.hive = delta::flatten(document.hive, []);
    }
    let bytes = document.bytes()?;
    put(&flags.output, &bytes)
}

/// `hive export`
pub(crate) async fn export(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<ExportFlags>()?;
    let document = Document::read(&words[0], true)?;
    let path = words.get(1).map_or("", String::as_str).trim_matches('\\');
    let key = document.key(path)?;
    let root = if flags.root.is_empty() { document.root.as_str() } else { &flags.root };
    let root = if path.is_empty() { root.to_owned() } else { format!("{root}\\{path}") };
    let bytes = match flags.format.as_str() {
        "" | "reg" => regfile::render(key, &root, Version::Five),
        "reg4" => regfile::render(key, &root, Version::Four),
        "regf" => {
            let mut hive = document.hive.clone();
            hive.root = key.clone();
            file::regf(&hive)?
        }
        "wine" => {
            if document.hive.layered {
                return Err(Failure::new(format!(
                    "{} is a differencing hive, which Wine's registry cannot hold: merge it with \
                     its base first",
                    words[0]
                )));
            }
            let base = file::wine_base(&root);
            let arch = Some(wine::Arch::Win64);
            wine::render(&wine::Registry { base, arch, hive: Hive::new(key.clone()) })
        }
        other => {
            return Err(Failure::new(format!(
                "unknown format {other:?}: expected reg, reg4, regf or wine"
            )));
        }
    };
    put(&flags.output, &bytes)
}

/// `hive import`
pub(crate) async fn import(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<ImportFlags>()?;
    let mut document = Document::read_to_change(&words[0], flags.create)?;
    let root = if flags.root.is_empty() { document.root.clone() } else { flags.root };
    for name in &words[1..] {
        let wrong = |error: regfile::Error| Failure::new(format!("{name}: {error}"));
        let edits = regfile::parse(&read_bytes(name)?).map_err(wrong)?;
        regfile::apply(&mut document.hive.root, &root, &edits, file::now()).map_err(wrong)?;
    }
    let target = if flags.output.is_empty() { &words[0] } else { &flags.output };
    document.write(target)
}

/// Writes to a file, or to stdout if none is named.
fn put(output: &str, bytes: &[u8]) -> Outcome {
    if output.is_empty() { file::write_stdout(bytes) } else { write_atomically(output, bytes) }
}

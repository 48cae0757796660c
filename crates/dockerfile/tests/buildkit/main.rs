//! BuildKit's own test data: what its parser and its shell words make of it, Silo makes of it.
//!
//! The data are not here. `SILO_BUILDKIT` names an unpacked source of BuildKit
//! (`cargo xtask conformance dockerfile DIR` sets it); without it the tests count as skipped.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod check;
mod go;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use silo_dockerfile::expand::Expander;
use silo_dockerfile::quote;
use silo_dockerfile::syntax::{self, Node};

/// `frontend/dockerfile` of the source, or nothing, with the test counted as skipped.
pub(crate) fn source(test: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("SILO_BUILDKIT") {
        return Some(Path::new(&folder).join("frontend/dockerfile"));
    }
    let reason = "SILO_BUILDKIT names no source of BuildKit";
    eprintln!("skipped {test}: {reason}");
    if let Some(file) = std::env::var_os("SILO_TEST_SKIPS") {
        let mut file =
            fs_err::OpenOptions::new().create(true).append(true).open(PathBuf::from(file)).unwrap();
        writeln!(file, "{test}: {reason}").unwrap();
    }
    None
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        fs_err::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "{}", path.display());
    folders
}

/// The tree as the original's dumper writes it.
fn dump(nodes: &[Node]) -> String {
    let lines: Vec<String> = nodes.iter().map(|node| format!("({})", dump_node(node))).collect();
    lines.join("\n")
}

fn dump_node(node: &Node) -> String {
    let mut out = node.keyword.to_lowercase();
    if !node.flags.is_empty() {
        let flags: Vec<String> = node.flags.iter().map(|flag| quote::go(flag)).collect();
        out.push_str(&format!(" [{}]", flags.join(" ")));
    }
    for arg in &node.args {
        out.push_str(&format!(" {}", quote::go(arg)));
    }
    if let Some(child) = &node.child {
        out.push_str(&format!(" ({})", dump_node(child)));
    }
    out.trim().to_owned()
}

#[test]
fn parser_files() {
    let Some(source) = source("parser_files") else { return };
    let mut different = Vec::new();
    let folders = folders(&source.join("parser/testfiles"));
    for folder in &folders {
        let text = fs_err::read(folder.join("Dockerfile")).unwrap();
        let expected = fs_err::read_to_string(folder.join("result")).unwrap();
        let found = match syntax::parse(&text) {
            Ok(tree) => dump(&tree.nodes),
            Err(error) => error.to_string(),
        };
        if found.trim() != expected.trim() {
            different.push(format!("{}:\n{found}\nexpected:\n{expected}", folder.display()));
        }
    }
    eprintln!("{} of {} files alike", folders.len() - different.len(), folders.len());
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn refused_files() {
    let Some(source) = source("refused_files") else { return };
    for folder in folders(&source.join("parser/testfiles-negative")) {
        let text = fs_err::read(folder.join("Dockerfile")).unwrap();
        assert!(syntax::parse(&text).is_err(), "{}", folder.display());
    }
}

#[test]
fn line_numbers() {
    let Some(source) = source("line_numbers") else { return };
    let text = fs_err::read(source.join("parser/testfile-line/Dockerfile")).unwrap();
    let tree = syntax::parse(&text).unwrap();
    let lines: Vec<(u32, u32)> =
        tree.nodes.iter().map(|node| (node.start_line, node.end_line)).collect();
    assert_eq!(lines, [(5, 5), (11, 12), (17, 31)]);
}

#[test]
fn variables() {
    let Some(source) = source("variables") else { return };
    let text = fs_err::read_to_string(source.join("shell/envVarTest")).unwrap();
    let values =
        BTreeMap::from([("PWD", "/home"), ("SHELL", "bash"), ("KOREAN", "한국어"), ("NULL", "")]);
    let expander = Expander::with_char('\\');
    let mut count = 0;
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        let [system, word, expected] = parts.as_slice() else { panic!("{line}") };
        let exact = |name: &str| values.get(name).map(|&value| value.to_owned());
        let folded = |name: &str| exact(&name.to_uppercase());
        // A for all systems, U for those that tell cases apart, W for Windows.
        for (applies, lookup) in
            [(*system != "W", &exact as &dyn Fn(&str) -> Option<String>), (*system != "U", &folded)]
        {
            if !applies {
                continue;
            }
            let found = expander.word(word, lookup);
            let found = found.as_deref().unwrap_or("error");
            assert_eq!(found, *expected, "{line}");
            count += 1;
        }
    }
    eprintln!("{count} words alike");
    assert!(count > 0);
}

#[test]
fn words() {
    let Some(source) = source("words") else { return };
    let text = fs_err::read_to_string(source.join("shell/wordsTest")).unwrap();
    let mut values = BTreeMap::new();
    let mut count = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(pair) = line.strip_prefix("ENV ") {
            let (key, value) = pair.trim_start().split_once('=').unwrap();
            values.insert(key.to_owned(), value.to_owned());
            continue;
        }
        let (word, expected) = line.split_once('|').unwrap();
        let expected: Vec<&str> = expected.trim_start_matches(' ').split(',').collect();
        let expander = Expander::with_char('\\');
        let found = expander.words(word.trim(), &|name| values.get(name).cloned());
        let found = found.unwrap_or_else(|_| vec!["error".to_owned()]);
        assert_eq!(found, expected, "{line}");
        count += 1;
    }
    eprintln!("{count} lines of words alike");
    assert!(count > 0);
}

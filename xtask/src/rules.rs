//! Rules of the repository that no compiler checks.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Longest source file without a reason. A file that has one says so in its first lines with
/// `// long: <reason>`.
const MAX_LINES: usize = 800;

/// Licences of dependencies that go with Apache-2.0 in one binary.
const LICENCES: [&str; 13] = [
    "Apache-2.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unlicense",
    "Unicode-3.0",
    "0BSD",
    "CC0-1.0",
    "BSL-1.0",
    "bzip2-1.0.6",
    "Apache-2.0 WITH LLVM-exception",
];

/// Checks every rule and reports all that is wrong at once.
pub fn run() -> Result<()> {
    let mut wrong = Vec::new();
    layers(&mut wrong)?;
    licences(&mut wrong)?;
    sources(&mut wrong)?;
    if wrong.is_empty() {
        eprintln!("repository rules: all hold");
        return Ok(());
    }
    for line in &wrong {
        eprintln!("rule: {line}");
    }
    bail!("{} repository rules are broken", wrong.len())
}

fn metadata(arguments: &[&str]) -> Result<Value> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version=1", "--locked"])
        .args(arguments)
        .current_dir(crate::root())
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A crate depends on crates of strictly lower layers only.
fn layers(wrong: &mut Vec<String>) -> Result<()> {
    let metadata = metadata(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let mut layer_of = BTreeMap::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        match package["metadata"]["silo"]["layer"].as_u64() {
            Some(layer) => {
                layer_of.insert(name, layer);
            }
            None => wrong.push(format!("{name} names no layer in [package.metadata.silo]")),
        }
    }
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(&layer) = layer_of.get(name) else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            if let Some(&below) = layer_of.get(on)
                && below >= layer
            {
                wrong.push(format!("{name} (layer {layer}) depends on {on} (layer {below})"));
            }
        }
    }
    Ok(())
}

/// Every dependency offers a licence of the list, and comes from the registry.
fn licences(wrong: &mut Vec<String>) -> Result<()> {
    let metadata = metadata(&[])?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or_default().replace('/', " OR ");
        let fits = |part: &str| {
            let part = part.trim_matches(|c| c == '(' || c == ')' || c == ' ');
            part.split(" AND ").all(|one| {
                LICENCES.contains(&one.trim_matches(|c| c == '(' || c == ')' || c == ' '))
            })
        };
        let all_parts_fit = licence.split(" AND (").all(|group| group.split(" OR ").any(fits));
        if !all_parts_fit {
            wrong.push(format!("{name} has the licence {licence:?}"));
        }
        if let Some(source) = package["source"].as_str()
            && !source.starts_with("registry+")
        {
            wrong.push(format!("{name} comes from {source}"));
        }
    }
    Ok(())
}

/// File lengths, `unsafe` only in `sys`, and nothing left unfinished.
fn sources(wrong: &mut Vec<String>) -> Result<()> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .current_dir(crate::root())
        .output()
        .context("git ls-files")?;
    for file in String::from_utf8(output.stdout)?.lines() {
        let path = crate::root().join(file);
        if !path.exists() {
            continue;
        }
        let text = fs_err::read_to_string(&path)?;
        let lines = text.lines().count();
        if lines > MAX_LINES && !text.lines().take(10).any(|line| line.starts_with("// long: ")) {
            wrong.push(format!("{file} has {lines} lines"));
        }
        if Path::new(file).starts_with("xtask") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let unfinished = ["todo!(", "unimplemented!("].iter().any(|mark| code.contains(mark))
                || ["TODO", "FIXME", "XXX"].iter().any(|mark| line.contains(mark));
            if unfinished {
                wrong.push(format!("{file}:{} is unfinished: {}", number + 1, line.trim()));
            }
            let has_unsafe = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|form| code.contains(form));
            if has_unsafe && !file.starts_with("crates/sys/") && !file.starts_with("fuzz/") {
                wrong.push(format!("{file}:{} has unsafe outside crates/sys", number + 1));
            }
        }
    }
    Ok(())
}

//! Public Dockerfiles for Windows: each is read and expanded, and what they use is counted.
//!
//! The files are not here. `SILO_DOCKERFILES` names a folder of them
//! (`cargo xtask conformance windows-dockerfiles DIR` sets it; `tests/conformance` lists where
//! they are from); without it the test counts as skipped.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

use regex_lite::Regex;
use silo_dockerfile::ast::{CommandLine, Instruction};
use silo_dockerfile::directive::Escape;
use silo_dockerfile::lint::{self, Base, Config, Context};
use silo_dockerfile::path::Os;
use silo_dockerfile::{Dockerfile, Expander, parse};

/// How often something occurs, and in how many files.
#[derive(Default)]
struct Counts {
    all: BTreeMap<String, usize>,
    files: BTreeMap<String, BTreeSet<usize>>,
}

impl Counts {
    fn add(&mut self, name: &str, file: usize) {
        *self.all.entry(name.to_owned()).or_default() += 1;
        self.files.entry(name.to_owned()).or_default().insert(file);
    }

    fn print(&self, title: &str, most: usize) {
        let mut rows: Vec<(&String, usize)> =
            self.files.iter().map(|(name, files)| (name, files.len())).collect();
        rows.sort_by_key(|&(name, files)| (std::cmp::Reverse(files), name));
        eprintln!("\n| {title} | files | times |\n| --- | ---: | ---: |");
        for (name, files) in rows.iter().take(most) {
            eprintln!("| `{name}` | {files} | {} |", self.all[*name]);
        }
        if rows.len() > most {
            eprintln!("| *{} others* | | |", rows.len() - most);
        }
    }
}

#[derive(Default)]
struct Report {
    instructions: Counts,
    flags: Counts,
    bases: Counts,
    shells: Counts,
    commands: Counts,
    cmdlets: Counts,
    rules: Counts,
    refused: Vec<String>,
}

/// The program that a shell's words begin with.
fn program(words: &[String]) -> String {
    let first = words.first().map(String::as_str).unwrap_or_default().to_lowercase();
    let name = first.rsplit(['\\', '/']).next().unwrap_or_default();
    name.strip_suffix(".exe").unwrap_or(name).to_owned()
}

impl Report {
    fn file(&mut self, index: usize, file: &Dockerfile) {
        let expander = Expander::new(file.directives.escape);
        let mut global = BTreeMap::new();
        for definition in file.meta_args.iter().flat_map(|arg| &arg.node) {
            if let Some(value) = &definition.value
                && let Ok(value) = expander.word(value, &|name| global.get(name).cloned())
            {
                global.insert(definition.key.clone(), value);
            }
        }
        for stage in &file.stages {
            let base = expander.word(&stage.base, &|name| global.get(name).cloned());
            let base = base.unwrap_or_else(|_| stage.base.clone());
            let family = base.split([':', '@']).next().unwrap_or_default();
            if !file.stages.iter().any(|stage| stage.name.as_deref() == Some(&base)) {
                self.bases.add(family, index);
            }
            let mut shell = vec!["cmd".to_owned()];
            let mut env = BTreeMap::new();
            for located in &stage.instructions {
                let mut node = located.node.clone();
                self.instructions.add(node.name(), index);
                let flags = located.source.split_whitespace().skip(1);
                for flag in flags.take_while(|word| word.starts_with("--")) {
                    let flag = flag.split('=').next().unwrap_or_default();
                    self.flags.add(&format!("{} {flag}", node.name()), index);
                }
                if let Err(error) = node.expand(&expander, &|name| env.get(name).cloned()) {
                    self.refused.push(format!("line {}: {error}", located.span.start_line));
                }
                match node {
                    Instruction::Env(pairs) => {
                        env.extend(pairs.into_iter().map(|pair| (pair.key, pair.value)));
                    }
                    Instruction::Shell(words) => {
                        self.shells.add(&program(&words), index);
                        shell = words;
                    }
                    Instruction::Run(run) => self.run(index, &run.command, &program(&shell)),
                    Instruction::Workdir(path) => {
                        if let Err(error) = Os::Windows.workdir("", &path) {
                            self.refused.push(format!("WORKDIR {path}: {error}"));
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// What a `RUN` runs. Only roughly: shells are not parsed, but taken apart at what usually
    /// stands between commands.
    fn run(&mut self, index: usize, line: &CommandLine, shell: &str) {
        let cmdlet = Regex::new(
            "(?i)\\b(add|clear|compress|convertfrom|convertto|copy|disable|enable|expand|export|find|\
             foreach|format|get|import|install|invoke|join|measure|mount|move|new|out|pop|push|\
             register|remove|rename|resolve|restart|save|select|set|sort|split|start|stop|test|\
             unblock|uninstall|update|wait|where|write)-[a-z]+\\b",
        )
        .unwrap();
        let text = line.words.join(" ");
        let shell = if line.shell { shell.to_owned() } else { program(&line.words) };
        self.commands.add(&format!("(shell) {shell}"), index);
        for found in cmdlet.find_iter(&text) {
            // Options of dism and nuget look the same.
            if text[..found.start()].ends_with(['/', '-', '\\', '.']) {
                continue;
            }
            self.cmdlets.add(&found.as_str().to_lowercase(), index);
        }
        let between = if shell == "cmd" { "&&|\\|\\||[&|\n]" } else { "[;|{}\n]|&&" };
        for part in Regex::new(between).unwrap().split(&text) {
            let part = part.trim().trim_start_matches(['(', '@', '&', '"', '\'']);
            let word = part.split([' ', '\t', '"', '\'', '(']).next().unwrap_or_default();
            // A folder of a PATH is no command, nor is a name with a version in it.
            let lower = word.to_lowercase();
            let path = word.contains(['\\', '/']);
            if path && ![".exe", ".cmd", ".bat"].iter().any(|end| lower.ends_with(end)) {
                continue;
            }
            let word = program(&[lower]);
            let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if plain && word.starts_with(|c: char| c.is_ascii_alphabetic()) {
                self.commands.add(&word, index);
            }
        }
    }
}

fn files() -> Option<Vec<PathBuf>> {
    let Some(folder) = std::env::var_os("SILO_DOCKERFILES") else {
        let reason = "SILO_DOCKERFILES names no folder of Dockerfiles";
        eprintln!("skipped corpus: {reason}");
        if let Some(file) = std::env::var_os("SILO_TEST_SKIPS") {
            let options = fs_err::OpenOptions::new().create(true).append(true).clone();
            writeln!(options.open(PathBuf::from(file)).unwrap(), "corpus: {reason}").unwrap();
        }
        return None;
    };
    let mut files: Vec<PathBuf> = fs_err::read_dir(PathBuf::from(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    Some(files)
}

#[test]
fn windows() {
    let Some(files) = files() else { return };
    let mut report = Report::default();
    let base = |_: &str| Some(Base { os: Os::Windows, ..Base::default() });
    for (index, path) in files.iter().enumerate() {
        let text = fs_err::read(path).unwrap();
        let before = report.refused.len();
        match parse(&text) {
            Ok(file) => {
                report.file(index, &file);
                let context = Context {
                    args: &BTreeMap::new(),
                    predefined: &[],
                    base: &base,
                    platform: None,
                    ignore: None,
                    stages: None,
                };
                for warning in
                    lint::check(&file, &Config::default(), &context).iter().chain(&file.warnings)
                {
                    report.rules.add(warning.rule.name, index);
                }
                let escape = match file.directives.escape {
                    Escape::Backslash => "(escape backslash)",
                    Escape::Backtick => "(escape backtick)",
                };
                report.instructions.add(escape, index);
            }
            Err(error) => report.refused.push(error.to_string()),
        }
        for refused in &mut report.refused[before..] {
            *refused = format!("{}: {refused}", path.display());
        }
    }
    eprintln!("{} files, {} complaints", files.len(), report.refused.len());
    report.instructions.print("instruction", 40);
    report.flags.print("flag", 40);
    report.bases.print("base", 30);
    report.shells.print("`SHELL`", 10);
    report.commands.print("command", 60);
    report.cmdlets.print("cmdlet", 60);
    report.rules.print("check", 30);
    assert!(report.refused.is_empty(), "{}", report.refused.join("\n"));
}

//! The checks that know what variables become: each stage is gone through as a build would.

use std::collections::{BTreeMap, BTreeSet};

use silo_oci::platform::Platform;
use silo_oci::reference::Reference;

use super::{
    COPY_IGNORED_FILE, Config, EXPOSE_INVALID_FORMAT, EXPOSE_PROTO_CASING,
    FROM_PLATFORM_FLAG_CONST_DISALLOWED, INVALID_BASE_IMAGE_PLATFORM, INVALID_DEFAULT_ARG_IN_FROM,
    JSON_ARGS_RECOMMENDED, LEGACY_KEY_VALUE_FORMAT, Linter, MULTIPLE_INSTRUCTIONS_DISALLOWED,
    REDUNDANT_TARGET_PLATFORM, SECRETS_USED_IN_ARG_OR_ENV, UNDEFINED_ARG_IN_FROM, UNDEFINED_VAR,
    WORKDIR_RELATIVE_PATH, Warning,
};
use crate::ast::{ArgDefinition, Dockerfile, Instruction, KeyValue, Located, Span, Stage};
use crate::error::ExpandError;
use crate::expand::{Expander, Expansion};
use crate::ignore::{self, Patterns};
use crate::path::Os;
use crate::{expose, quote, suggest};

/// What a build knows beside the Dockerfile.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// `--build-arg` with the values.
    pub args: &'a BTreeMap<String, String>,
    /// `TARGETPLATFORM` and the other arguments that are there without being asked for.
    pub predefined: &'a [(String, String)],
    /// What is known of an image. Without an answer nothing is said of its stage's variables.
    pub base: &'a dyn Fn(&str) -> Option<Base>,
    /// The platform that is asked for, if one is.
    pub platform: Option<&'a Platform>,
    /// The context's `.dockerignore`.
    pub ignore: Option<&'a Patterns>,
    /// The stages that are looked into, by their index; all without it.
    pub stages: Option<&'a BTreeSet<usize>>,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("args", self.args).finish_non_exhaustive()
    }
}

/// What a base image brings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base {
    /// The variables of its config.
    pub env: Vec<(String, String)>,
    /// Its config has a shell.
    pub shell: bool,
    /// Its system.
    pub os: Os,
    /// What it is for, where it says so.
    pub platform: Option<Platform>,
}

/// Checks a file. What [`crate::parse`] found is not repeated. An expansion that fails ends the
/// checks of its stage: the build itself reports it.
pub fn check(dockerfile: &Dockerfile, config: &Config, context: &Context<'_>) -> Vec<Warning> {
    let expander = Expander::new(dockerfile.directives.escape);
    let mut linter = Linter::new(config.clone());
    let predefined: Variables =
        context.predefined.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    default_bases(dockerfile, expander, &predefined, &mut linter);
    let Ok(global) = meta_args(dockerfile, expander, &predefined, context.args) else {
        return linter.warnings;
    };
    let mut names: BTreeSet<String> = global.keys().cloned().collect();
    let declared = dockerfile.meta_args.iter().flat_map(|arg| &arg.node);
    names.extend(declared.map(|definition| definition.key.clone()));
    let mut checker = Checker { expander, global, names, context, linter, done: BTreeMap::new() };
    let bases: Vec<_> = dockerfile.stages.iter().map(|stage| checker.from(stage)).collect();
    for (index, (stage, base)) in dockerfile.stages.iter().zip(bases).enumerate() {
        let Some(base) = base else { continue };
        if context.stages.is_none_or(|stages| stages.contains(&index)) {
            checker.stage(stage, &base);
        }
    }
    checker.linter.warnings
}

/// A platform with the version of its system.
fn shown(platform: &Platform) -> String {
    if platform.os_version.is_empty() {
        return platform.to_string();
    }
    let plain = platform.to_string();
    let rest = plain.strip_prefix(&platform.os).unwrap_or_default();
    format!("{}({}){rest}", platform.os, platform.os_version)
}

type Variables = BTreeMap<String, String>;

/// The arguments before the first `FROM`, on top of the predefined ones.
fn meta_args(
    dockerfile: &Dockerfile,
    expander: Expander,
    predefined: &Variables,
    given: &BTreeMap<String, String>,
) -> Result<Variables, ExpandError> {
    let mut global = predefined.clone();
    for (key, value) in &mut global {
        if let Some(given) = given.get(key) {
            value.clone_from(given);
        }
    }
    for ArgDefinition { key, value, .. } in dockerfile.meta_args.iter().flat_map(|arg| &arg.node) {
        let value = match (given.get(key), value) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(value)) => Some(expander.word(value, &|name| global.get(name).cloned())?),
            (None, None) => None,
        };
        if let Some(value) = value {
            global.insert(key.clone(), value);
        }
    }
    Ok(global)
}

/// Every base should be an image's name without any argument given.
fn default_bases(
    dockerfile: &Dockerfile,
    expander: Expander,
    predefined: &Variables,
    linter: &mut Linter,
) {
    let nothing = BTreeMap::new();
    let Ok(global) = meta_args(dockerfile, expander, predefined, &nothing) else { return };
    for stage in &dockerfile.stages {
        let Ok(base) = expander.word(&stage.base, &|name| global.get(name).cloned()) else {
            return;
        };
        if Reference::parse_normalized(&base).is_err() {
            let message = format!(
                "Default value for ARG {} results in empty or invalid base image name",
                stage.base
            );
            linter.warn(&INVALID_DEFAULT_ARG_IN_FROM, stage.span, message);
        }
    }
}

/// How many bytes of variables are kept for a stage.
const MAX_STATE: usize = 1 << 20;

/// What is true in a stage at one point.
#[derive(Debug, Clone, Default)]
struct State {
    /// Names as [`State::fold`] has them, with the spelling and the value.
    env: BTreeMap<String, (String, String)>,
    /// What `ARG` declared, with or without a value.
    declared: BTreeSet<String>,
    /// All variables of the base are known.
    known: bool,
    /// How many bytes the variables have.
    size: usize,
    workdir_set: bool,
    shell: bool,
    os: Os,
}

impl State {
    fn new(base: Base) -> Self {
        let mut state = Self { known: true, shell: base.shell, os: base.os, ..Self::default() };
        for (key, value) in base.env {
            state.set(&key, value);
        }
        if state.os == Os::Linux && state.get("PATH").is_none() {
            state.set("PATH", "/bin".to_owned());
        }
        state
    }

    /// On Windows names have no case.
    fn fold(&self, name: &str) -> String {
        match self.os {
            Os::Linux => name.to_owned(),
            Os::Windows => name.to_uppercase(),
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.env.get(&self.fold(name)).map(|(_, value)| value.clone())
    }

    fn set(&mut self, name: &str, value: String) {
        // A stage with more has no program that could run; its state is copied to others.
        self.size += name.len() + value.len();
        if self.size > MAX_STATE {
            self.known = false;
            return;
        }
        let key = self.fold(name);
        self.env.insert(key, (name.to_owned(), value));
    }
}

struct Checker<'a> {
    expander: Expander,
    global: Variables,
    /// Everything that `FROM` may name.
    names: BTreeSet<String>,
    context: &'a Context<'a>,
    linter: Linter,
    /// Stages that are done, by their names.
    done: BTreeMap<String, State>,
}

impl Checker<'_> {
    /// Checks a `FROM` and returns the base that it means.
    fn from(&mut self, stage: &Stage) -> Option<String> {
        let outer = self.linter.enter(&stage.comments);
        let base = self.global_word(&stage.base, stage.span);
        if base.is_some()
            && let Some(platform) = &stage.platform
            && let Some(expansion) = self.global_word(platform, stage.span)
        {
            self.platform(stage, platform, &expansion);
        }
        self.linter.leave(outer);
        base.map(|base| base.text)
    }

    /// Expands a word of a `FROM`, whose variables must be declared before the first.
    fn global_word(&mut self, text: &str, span: Span) -> Option<Expansion> {
        let global = &self.global;
        let expansion = self.expander.expand(text, &|name| global.get(name).cloned()).ok()?;
        for name in expansion.unmatched.difference(&self.names) {
            if self.linter.is_full() {
                break;
            }
            let near = suggest::search(name, self.names.iter().map(String::as_str), true);
            let message =
                format!("FROM argument '{name}' is not declared{}", did_you_mean("", near));
            self.linter.warn(&UNDEFINED_ARG_IN_FROM, span, message);
        }
        Some(expansion)
    }

    fn platform(&mut self, stage: &Stage, written: &str, expansion: &Expansion) {
        const TARGET: &str = "TARGETPLATFORM";
        if expansion.unmatched.is_empty()
            && expansion.matched.len() == 1
            && expansion.matched.contains(TARGET)
            && self.global.get(TARGET) == Some(&expansion.text)
        {
            let message = format!(
                "Setting platform to predefined {written} in FROM is redundant as this is the \
                 default behavior"
            );
            self.linter.warn(&REDUNDANT_TARGET_PLATFORM, stage.span, message);
        }
        if !expansion.matched.is_empty() || !expansion.unmatched.is_empty() {
            return;
        }
        let Some((os, architecture)) = os_and_architecture(&expansion.text) else { return };
        let name = stage.name.as_deref().unwrap_or_default();
        // A stage that is called after its platform means it.
        if !name.contains(&os) && !name.contains(&architecture) {
            let message = format!(
                "FROM --platform flag should not use constant value {}",
                quote::go(&expansion.text)
            );
            self.linter.warn(&FROM_PLATFORM_FLAG_CONST_DISALLOWED, stage.span, message);
        }
    }

    /// An image that is not for the platform that the stage wants.
    fn base_platform(&mut self, stage: &Stage, name: &str, actual: Option<&Platform>) {
        let written = stage.platform.as_deref().and_then(|text| {
            let lookup = |name: &str| self.global.get(name).cloned();
            self.expander.word(text, &lookup).ok()?.parse::<Platform>().ok()
        });
        let expected = written.as_ref().or(self.context.platform);
        let (Some(expected), Some(actual)) = (expected, actual) else { return };
        if (&expected.os, &expected.architecture) == (&actual.os, &actual.architecture) {
            return;
        }
        let message = format!(
            "Base image {name} was pulled with platform {}, expected {} for current build",
            quote::go(&shown(actual)),
            quote::go(&shown(expected))
        );
        self.linter.warn(&INVALID_BASE_IMAGE_PLATFORM, stage.span, message);
    }

    fn stage(&mut self, stage: &Stage, base: &str) {
        let mut state = match self.done.get(&base.to_lowercase()) {
            Some(state) => state.clone(),
            None if base == "scratch" => State::new(Base::default()),
            None => match (self.context.base)(base) {
                Some(found) => {
                    self.base_platform(stage, base, found.platform.as_ref());
                    State::new(found)
                }
                None => State::default(),
            },
        };
        let mut once = Once::default();
        for instruction in &stage.instructions {
            let outer = self.linter.enter(&instruction.comments);
            let result = self.instruction(instruction, &mut state, &mut once);
            self.linter.leave(outer);
            if result.is_err() || self.linter.is_full() {
                break;
            }
        }
        if let Some(name) = &stage.name {
            self.done.insert(name.clone(), state);
        }
    }

    fn instruction(
        &mut self,
        located: &Located<Instruction>,
        state: &mut State,
        once: &mut Once,
    ) -> Result<(), ExpandError> {
        let Located { span, keyword, .. } = located;
        let span = *span;
        let mut node = located.node.clone();
        let unmatched = node.expand(&self.expander, &|name| state.get(name))?;
        self.undefined(&unmatched, state, span);
        match node {
            Instruction::Add(add) => self.ignored("Add", &add.sources.paths, span),
            Instruction::Copy(copy) if copy.from.is_none() => {
                self.ignored("Copy", &copy.sources.paths, span);
            }
            Instruction::Arg(definitions) => {
                for definition in definitions {
                    self.secret("ARG", &definition.key, span);
                    self.arg(definition, state, span)?;
                }
            }
            Instruction::Cmd(command) => {
                self.once(&mut once.cmd, keyword, span);
                self.shell_form(command.shell, keyword, state, span);
            }
            Instruction::Entrypoint(command) => {
                self.once(&mut once.entrypoint, keyword, span);
                self.shell_form(command.shell, keyword, state, span);
            }
            Instruction::HealthCheck(_) => self.once(&mut once.health_check, keyword, span),
            Instruction::Env(pairs) => {
                for KeyValue { key, value, legacy } in pairs {
                    self.legacy(legacy, keyword, span);
                    self.secret("ENV", &key, span);
                    state.set(&key, value);
                }
            }
            Instruction::Label(pairs) => {
                for pair in pairs {
                    self.legacy(pair.legacy, keyword, span);
                }
            }
            Instruction::Expose(ports) => self.expose(&ports, span)?,
            Instruction::Shell(_) => state.shell = true,
            Instruction::Workdir(path) => {
                if !state.workdir_set && !state.os.is_absolute(&path) {
                    let message = format!(
                        "Relative workdir {} can have unexpected results if the base image changes",
                        quote::go(&path)
                    );
                    self.linter.warn(&WORKDIR_RELATIVE_PATH, span, message);
                }
                state.workdir_set = true;
            }
            Instruction::Copy(_)
            | Instruction::Maintainer(_)
            | Instruction::OnBuild(_)
            | Instruction::Run(_)
            | Instruction::StopSignal(_)
            | Instruction::User(_)
            | Instruction::Volume(_) => {}
        }
        Ok(())
    }

    fn arg(
        &mut self,
        definition: ArgDefinition,
        state: &mut State,
        span: Span,
    ) -> Result<(), ExpandError> {
        let ArgDefinition { key, value, .. } = definition;
        let value = match (self.context.args.get(&key), value) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(value)) => {
                let expansion = self.expander.expand(&value, &|name| state.get(name))?;
                self.undefined(&expansion.unmatched, state, span);
                Some(expansion.text)
            }
            (None, None) => self.global.get(&key).cloned(),
        };
        if let Some(value) = value {
            state.set(&key, value);
        }
        state.declared.insert(state.fold(&key));
        Ok(())
    }

    fn undefined(&mut self, names: &BTreeSet<String>, state: &State, span: Span) {
        if !state.known {
            return;
        }
        for name in names.iter().filter(|name| !state.declared.contains(&state.fold(name))) {
            // Arguments of the builder itself, which never are variables of a step.
            if self.linter.is_full() {
                return;
            }
            if ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"].contains(&name.as_str()) {
                continue;
            }
            let options = state.env.values().map(|(name, _)| name.as_str());
            let near = suggest::search(name, options, state.os == Os::Linux);
            let message =
                format!("Usage of undefined variable '${name}'{}", did_you_mean("$", near));
            self.linter.warn(&UNDEFINED_VAR, span, message);
        }
    }

    /// Sources that the context does not have. With exceptions in the list nothing is sure.
    fn ignored(&mut self, instruction: &str, paths: &[String], span: Span) {
        let Some(patterns) = self.context.ignore.filter(|patterns| !patterns.has_exceptions())
        else {
            return;
        };
        for path in paths {
            let remote = path.contains("://") || path.starts_with("git@");
            let path = ignore::clean(path);
            let all = || patterns.iter().any(|(text, _)| ["*", "**", "**/*"].contains(&text));
            if remote || [".", "/"].contains(&path.as_str()) && !all() || !patterns.matches(&path) {
                continue;
            }
            let message = format!(
                "Attempting to {instruction} file {} that is excluded by .dockerignore",
                quote::go(&path)
            );
            self.linter.warn(&COPY_IGNORED_FILE, span, message);
        }
    }

    fn once(&mut self, before: &mut Option<Span>, keyword: &str, span: Span) {
        // The earlier one is the one without effect.
        if let Some(before) = before.replace(span) {
            let message = format!(
                "Multiple {keyword} instructions should not be used in the same stage because only \
                 the last one will be used"
            );
            self.linter.warn(&MULTIPLE_INSTRUCTIONS_DISALLOWED, before, message);
        }
    }

    fn shell_form(&mut self, shell: bool, keyword: &str, state: &State, span: Span) {
        if shell && !state.shell {
            let message = format!(
                "JSON arguments recommended for {keyword} to prevent unintended behavior related to \
                 OS signals"
            );
            self.linter.warn(&JSON_ARGS_RECOMMENDED, span, message);
        }
    }

    fn legacy(&mut self, legacy: bool, keyword: &str, span: Span) {
        if legacy {
            let message = format!(
                "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" \
                 format"
            );
            self.linter.warn(&LEGACY_KEY_VALUE_FORMAT, span, message);
        }
    }

    fn secret(&mut self, instruction: &str, key: &str, span: Span) {
        const SECRET: [&str; 10] = [
            "apikey",
            "auth",
            "credential",
            "credentials",
            "key",
            "password",
            "pword",
            "passwd",
            "secret",
            "token",
        ];
        let lower = key.to_lowercase();
        let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
        if has(&SECRET) && !has(&["public", "file", "version"]) {
            let message = format!(
                "Do not use ARG or ENV instructions for sensitive data ({instruction} {})",
                quote::go(key)
            );
            self.linter.warn(&SECRETS_USED_IN_ARG_OR_ENV, span, message);
        }
    }

    fn expose(&mut self, ports: &[String], span: Span) -> Result<(), ExpandError> {
        for word in ports {
            let exposed = expose::read(word)?;
            if exposed.odd_case {
                let message =
                    format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
                self.linter.warn(&EXPOSE_PROTO_CASING, span, message);
            }
            if exposed.mapped {
                let message = format!(
                    "EXPOSE instruction should not define an IP address or host-port mapping, found \
                     '{word}'"
                );
                self.linter.warn(&EXPOSE_INVALID_FORMAT, span, message);
            }
        }
        Ok(())
    }
}

/// Instructions of which the last counts.
#[derive(Debug, Default)]
struct Once {
    cmd: Option<Span>,
    entrypoint: Option<Span>,
    health_check: Option<Span>,
}

fn did_you_mean(before: &str, near: Option<String>) -> String {
    match near {
        Some(near) if !near.is_empty() => format!(" (did you mean {before}{near}?)"),
        _ => String::new(),
    }
}

/// The system and the architecture that a platform names.
fn os_and_architecture(platform: &str) -> Option<(String, String)> {
    let valid = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
    };
    let parts: Vec<String> = platform.split('/').map(str::to_lowercase).collect();
    if parts.len() > 3 || !parts.iter().all(|part| valid(part)) {
        return None;
    }
    let host = Platform::host();
    let known = ["linux", "windows", "darwin", "freebsd"];
    let (os, architecture) = match parts.as_slice() {
        [os] if known.contains(&os.as_str()) => (os.clone(), host.architecture),
        [architecture] => (host.os, architecture.clone()),
        [os, architecture, ..] => (os.clone(), architecture.clone()),
        [] => return None,
    };
    let platform = Platform::new(&os, &architecture, "");
    Some((platform.os, platform.architecture))
}

//! Checks: what works and should not be written. Names, texts and addresses are BuildKit's.
//!
//! [`crate::parse`] runs those that need the text alone, [`check`] those that know what variables
//! become. `# check=skip=Rule,Rule;error=true` at the head of a file says which count; the same
//! in a comment directly above an instruction says it for that one.

mod check;
mod rules;

pub use check::{Base, Context, check};
pub use rules::*;

use crate::ast::{Span, Stage};
use crate::directive::Reader;
use crate::mount::boolean;
use crate::quote;
use crate::syntax::Node;

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The name that `skip` takes.
    pub name: &'static str,
    /// What the rule demands.
    pub description: &'static str,
    /// Where it is explained; empty when nowhere.
    pub url: &'static str,
    /// Only checked where asked for.
    pub experimental: bool,
}

/// A place where a rule is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule.
    pub rule: &'static Rule,
    /// What is wrong, in one line.
    pub message: String,
    /// Where.
    pub span: Span,
}

impl Warning {
    /// `Rule: message (line 3)`, as progress shows it.
    pub fn short(&self) -> String {
        format!("{}: {} (line {})", self.rule.name, self.message, self.span.start_line)
    }

    /// As `docker build --check` prints it, with the lines of `text`.
    pub fn render(&self, name: &str, text: &[u8]) -> String {
        let Rule { name: rule, url, .. } = self.rule;
        let link = if url.is_empty() { String::new() } else { format!(" - {url}") };
        let excerpt = crate::excerpt::render(name, text, &[self.span], None);
        format!("WARNING: {rule}{link}\n{}\n{excerpt}", self.message)
    }
}

/// Which rules count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// `skip=all`
    pub skip_all: bool,
    /// `skip=Name,...`
    pub skip: Vec<String>,
    /// `experimental=all`
    pub experimental_all: bool,
    /// `experimental=Name,...`
    pub experimental: Vec<String>,
    /// `error=true`: a broken rule fails the build.
    pub error: bool,
}

impl Config {
    /// Reads the value of a `check` directive, or of the build argument
    /// `BUILDKIT_DOCKERFILE_CHECK`, which overrides it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(config);
        }
        for part in text.splitn(3, ';') {
            let Some((key, value)) = part.split_once('=') else {
                return Err(format!("invalid check option {}", quote::go(part)));
            };
            let (key, value) = (key.trim(), value.trim());
            let names = || value.split(',').map(|name| name.trim().to_owned()).collect();
            match key {
                "skip" if value == "all" => config.skip_all = true,
                "skip" => config.skip = names(),
                "experimental" if value == "all" => config.experimental_all = true,
                "experimental" => config.experimental = names(),
                "error" => match boolean(value) {
                    Some(error) => config.error = error,
                    None => {
                        return Err(format!(
                            "failed to parse check option {}: strconv.ParseBool: parsing {}: \
                             invalid syntax",
                            quote::go(part),
                            quote::go(value)
                        ));
                    }
                },
                _ => return Err(format!("invalid check option {}", quote::go(key))),
            }
        }
        Ok(config)
    }

    /// With what the comments above an instruction say.
    fn merged(&self, comments: &[String]) -> Self {
        let mut merged = self.clone();
        for comment in comments {
            let Ok(Some(directive)) = Reader::new("").line(comment) else { continue };
            if directive.name != "check" {
                continue;
            }
            let value = directive.value.split(' ').next().unwrap_or_default();
            let Ok(other) = Self::parse(value) else { break };
            merged.skip_all |= other.skip_all;
            merged.skip.extend(other.skip);
            merged.experimental_all |= other.experimental_all;
            merged.experimental.extend(other.experimental);
            break;
        }
        merged
    }

    fn counts(&self, rule: &Rule) -> bool {
        let listed = |names: &[String]| names.iter().any(|name| name == rule.name);
        if rule.experimental {
            self.experimental_all || listed(&self.experimental)
        } else {
            !self.skip_all && !listed(&self.skip)
        }
    }
}

/// The message with which a build fails that has `error=true` and warnings.
pub fn violation(config: &Config, warnings: &[Warning]) -> Option<String> {
    if !config.error || warnings.is_empty() {
        return None;
    }
    let mut names: Vec<&str> = warnings.iter().map(|warning| warning.rule.name).collect();
    names.sort_unstable();
    names.dedup();
    Some(format!("lint violation found for rules: {}", names.join(", ")))
}

/// The most warnings that one file gets from each of the two kinds of checks.
const MAX_WARNINGS: usize = 1000;

/// Gathers the warnings that count.
#[derive(Debug, Default)]
pub(crate) struct Linter {
    config: Config,
    silent: bool,
    pub(crate) warnings: Vec<Warning>,
}

impl Linter {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    pub(crate) fn silent() -> Self {
        Self { silent: true, ..Self::default() }
    }

    pub(crate) fn add(&mut self, warning: Warning) {
        if !self.is_full() && !self.silent && self.config.counts(warning.rule) {
            self.warnings.push(warning);
        }
    }

    /// Whether there are so many that no more are wanted.
    pub(crate) fn is_full(&self) -> bool {
        self.warnings.len() >= MAX_WARNINGS
    }

    pub(crate) fn warn(&mut self, rule: &'static Rule, span: Span, message: String) {
        self.add(Warning { rule, message, span });
    }

    /// Adds what the comments above an instruction say, until [`Linter::leave`].
    pub(crate) fn enter(&mut self, comments: &[String]) -> Config {
        let merged = self.config.merged(comments);
        std::mem::replace(&mut self.config, merged)
    }

    /// Back to what [`Linter::enter`] gave.
    pub(crate) fn leave(&mut self, outer: Config) {
        self.config = outer;
    }
}

pub(crate) fn empty_continuation(_line: &str, number: u32) -> Warning {
    let message = "Empty continuation line".to_owned();
    Warning { rule: &NO_EMPTY_CONTINUATION, message, span: Span::new(number, number) }
}

pub(crate) fn maintainer_deprecated() -> String {
    "Maintainer instruction is deprecated in favor of using label".to_owned()
}

/// The case of a stage's name, and of `AS` beside `FROM`.
pub(crate) fn from_casing(node: &Node, linter: &mut Linter) {
    if let [_, _, name] = node.args.as_slice()
        && *name != name.to_lowercase()
    {
        let message = format!("Stage name '{name}' should be lowercase");
        linter.warn(&STAGE_NAME_CASING, node.span(), message);
    }
    let (Some(keyword), true) = (node.args.get(1), node.args.len() >= 3) else { return };
    let lower = node.keyword == node.keyword.to_lowercase();
    let upper = node.keyword == node.keyword.to_uppercase();
    let same = match (lower, upper) {
        (true, _) => *keyword == keyword.to_lowercase(),
        (_, true) => *keyword == keyword.to_uppercase(),
        _ => true,
    };
    if !same {
        let message = format!("'{keyword}' and '{}' keywords' casing do not match", node.keyword);
        linter.warn(&FROM_AS_CASING, node.span(), message);
    }
}

/// The last comment above should describe what is defined.
pub(crate) fn description(
    instruction: &str,
    keys: &[&str],
    comments: &[String],
    span: Span,
    linter: &mut Linter,
) {
    let (Some(last), Some(first)) = (comments.last(), keys.first()) else { return };
    if last.split(' ').next().is_some_and(|word| keys.contains(&word)) {
        return;
    }
    let key = if keys.len() > 1 { "<arg_key>" } else { first };
    let message =
        format!("Comment for {instruction} should follow the format: `# {key} <description>`");
    linter.warn(&INVALID_DEFINITION_DESCRIPTION, span, message);
}

/// Names that are taken.
pub(crate) fn stage_names(stages: &[Stage], linter: &mut Linter) {
    let mut seen = std::collections::BTreeSet::new();
    for stage in stages {
        let Some(name) = stage.name.as_deref() else { continue };
        let quoted = quote::go(name);
        if ["context", "scratch"].contains(&name) {
            let message =
                format!("Stage name should not use the same name as reserved stage {quoted}");
            linter.warn(&RESERVED_STAGE_NAME, stage.span, message);
        }
        if !seen.insert(name) {
            let message = format!("Duplicate stage name {quoted}, stage names should be unique");
            linter.warn(&DUPLICATE_STAGE_NAME, stage.span, message);
        }
    }
}

/// All instructions in the case of most of them.
pub(crate) fn casing(stages: &[Stage], linter: &mut Linter) {
    let all = || {
        stages.iter().flat_map(|stage| {
            let rest = stage.instructions.iter().map(|inner| (inner.keyword.as_str(), inner.span));
            std::iter::once((stage.keyword.as_str(), stage.span)).chain(rest)
        })
    };
    let lower = all().filter(|(name, _)| *name == name.to_lowercase()).count();
    let upper = all()
        .filter(|(name, _)| *name == name.to_uppercase() && *name != name.to_lowercase())
        .count();
    let (wanted, change): (&str, fn(&str) -> String) = if lower > upper {
        ("lowercase", |name| name.to_lowercase())
    } else {
        ("uppercase", |name| name.to_uppercase())
    };
    for (name, span) in all().filter(|(name, _)| *name != change(name)) {
        let message =
            format!("Command '{name}' should match the case of the command majority ({wanted})");
        linter.warn(&CONSISTENT_INSTRUCTION_CASING, span, message);
    }
}

#[cfg(test)]
mod tests;

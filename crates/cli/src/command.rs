//! What a command is, and how its arguments are read.

use std::future::Future;
use std::pin::Pin;

use crate::context::Cli;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, FlagSet, Parsed, parse};
use crate::help;

/// How many words that are no flags a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arity {
    None,
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
}

/// A running command.
pub(crate) type Running = Pin<Box<dyn Future<Output = Outcome>>>;

/// One command. `silo container ls` is also `silo ps`: both names are one entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command {
    /// The group, `container`; empty for a command without one.
    pub(crate) group: &'static str,
    /// The name within the group.
    pub(crate) name: &'static str,
    /// Further names within the group.
    pub(crate) aliases: &'static [&'static str],
    /// The name without a group; empty if there is none.
    pub(crate) top: &'static str,
    /// What follows the name in the usage line.
    pub(crate) usage: &'static str,
    pub(crate) about: &'static str,
    pub(crate) arity: Arity,
    pub(crate) flags: &'static [Flag],
    /// Whether flags may follow other words.
    pub(crate) interspersed: bool,
    /// Whether help leaves the command out.
    pub(crate) hidden: bool,
    pub(crate) run: fn(Invocation) -> Running,
}

impl Command {
    /// A command of a group.
    pub(crate) const fn new(
        group: &'static str,
        name: &'static str,
        usage: &'static str,
        about: &'static str,
        arity: Arity,
        flags: &'static [Flag],
        run: fn(Invocation) -> Running,
    ) -> Self {
        Self {
            group,
            name,
            aliases: &[],
            top: "",
            usage,
            about,
            arity,
            flags,
            interspersed: true,
            hidden: false,
            run,
        }
    }

    pub(crate) const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    pub(crate) const fn top(mut self, name: &'static str) -> Self {
        self.top = name;
        self
    }

    /// The first word that is no flag ends the flags.
    pub(crate) const fn runs_program(mut self) -> Self {
        self.interspersed = false;
        self
    }

    pub(crate) const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// Whether the command is called so within its group.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }

    /// Every way to call the command.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        if !self.group.is_empty() {
            for name in std::iter::once(&self.name).chain(self.aliases) {
                paths.push(format!("silo {} {name}", self.group));
            }
        }
        if !self.top.is_empty() {
            paths.push(format!("silo {}", self.top));
        }
        paths
    }
}

/// A command as it was called.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) cli: Cli,
    pub(crate) command: &'static Command,
    /// `silo ps`
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
}

impl Invocation {
    /// Reads the flags and checks the number of words. `--help` prints help and ends the command.
    pub(crate) fn parse<F: FlagSet>(&self) -> Outcome<(F, Vec<String>)> {
        let wrong_flag = |reason: String| {
            Failure::new(format!(
                "{reason}\n\nUsage:  {}\n\nRun '{} --help' for more information",
                self.usage_line(),
                self.path
            ))
            .with_code(125)
        };
        match parse::<F>(&self.args, self.command.interspersed).map_err(wrong_flag)? {
            Parsed::Help => {
                self.cli.print(&help::of_command(self.command, &self.path))?;
                Err(Failure::code(0))
            }
            Parsed::Flags(flags, words) => {
                self.check_arity(words.len())?;
                Ok((flags, words))
            }
        }
    }

    fn usage_line(&self) -> String {
        format!("{} {}", self.path, self.command.usage).trim_end().to_owned()
    }

    fn check_arity(&self, count: usize) -> Outcome {
        let plural = |count| if count == 1 { "argument" } else { "arguments" };
        let (right, says, hint) = match self.command.arity {
            Arity::None => (count == 0, "accepts no arguments".to_owned(), "Run"),
            Arity::Exactly(n) => (count == n, format!("requires {n} {}", plural(n)), "Run"),
            Arity::AtLeast(n) => {
                (count >= n, format!("requires at least {n} {}", plural(n)), "See")
            }
            Arity::AtMost(n) => (count <= n, format!("requires at most {n} {}", plural(n)), "Run"),
            Arity::Between(least, most) => (
                (least..=most).contains(&count),
                format!("requires at least {least} and at most {most} {}", plural(most)),
                "Run",
            ),
        };
        if right {
            return Ok(());
        }
        Err(Failure::new(format!(
            "silo: '{path}' {says}\n\nUsage:  {usage}\n\n{hint} '{path} --help' for more \
             information",
            path = self.path,
            usage = self.usage_line(),
        )))
    }
}

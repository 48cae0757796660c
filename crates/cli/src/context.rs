//! The way from the arguments to the chosen command, and what every command has at hand.

use std::io::Write;
use std::rc::Rc;

use silo_client::Client;
use tokio::sync::OnceCell;

use crate::command::Invocation;
use crate::commands::{COMMANDS, GROUPS};
use crate::config::Config;
use crate::connect;
use crate::failure::{Failure, Outcome};
use crate::flags::{FlagSet, Parsed, flags, parse};
use crate::help;

flags! {
    /// Flags before the command's name.
    GlobalFlags {
        config: String, "config", "Location of client config files (default \"~/.docker\")";
        context: String, ['c'] "context", "Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with \"docker context use\")";
        debug: bool, ['D'] "debug", "Enable debug mode";
        host: Vec<String>, ['H'] "host", "Daemon socket to connect to";
        log_level: String, ['l'] "log-level", "Set the logging level (\"debug\", \"info\", \"warn\", \"error\", \"fatal\") (default \"info\")";
        root: String, "root", "Root directory of Silo's persistent state";
        run_root: String, "run-root", "Root directory of Silo's state that a reboot may lose";
        tls: bool, "tls", "Use TLS; implied by --tlsverify";
        tlscacert: String, "tlscacert", "Trust certs signed only by this CA";
        tlscert: String, "tlscert", "Path to TLS certificate file";
        tlskey: String, "tlskey", "Path to TLS key file";
        tlsverify: bool, "tlsverify", "Use TLS and verify the remote";
        version: bool, ['v'] "version", "Print version information and quit";
    }
}

/// What every command has at hand.
#[derive(Debug, Clone)]
pub(crate) struct Cli(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    flags: GlobalFlags,
    config: Config,
    client: OnceCell<Client>,
}

impl Cli {
    /// The flags before the command's name.
    pub(crate) fn flags(&self) -> &GlobalFlags {
        &self.0.flags
    }

    /// The user's configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// The connection to the engine, made when first asked for.
    pub(crate) async fn client(&self) -> Outcome<Client> {
        self.0.client.get_or_try_init(|| connect::client(self)).await.cloned()
    }

    /// Writes to stdout.
    #[expect(clippy::unused_self, reason = "whoever has the command line may write")]
    pub(crate) fn print(&self, text: &str) -> Outcome {
        print(text)
    }

    /// Writes a line to stdout.
    #[expect(clippy::unused_self, reason = "whoever has the command line may write")]
    pub(crate) fn line(&self, text: &str) -> Outcome {
        print(&format!("{text}\n"))
    }
}

fn print(text: &str) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::io("stdout", &error))
}

/// Writes a line to stderr. Nothing can be done when that fails.
pub(crate) fn warn(text: &str) {
    writeln!(std::io::stderr().lock(), "{text}").ok();
}

/// Finds and runs the command that `args` name.
pub(crate) fn run(args: &[String]) -> Outcome {
    let (flags, words) = match parse::<GlobalFlags>(args, false) {
        Ok(Parsed::Flags(flags, words)) => (flags, words),
        Ok(Parsed::Help) => return print(&help::of_root(GlobalFlags::FLAGS)),
        Err(reason) => {
            return Err(Failure::new(format!(
                "{reason}\n\nUsage:  silo [OPTIONS] COMMAND [ARG...]\n\nRun 'silo --help' for \
                 more information"
            ))
            .with_code(125));
        }
    };
    if flags.version {
        return print(&format!("Silo version {}\n", env!("CARGO_PKG_VERSION")));
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((first, rest)) = words.split_first() else {
        return print(&help::of_root(GlobalFlags::FLAGS));
    };
    if *first == "help" {
        return help_for(rest);
    }
    let (command, path, rest) = find(first, rest)?;
    let config = Config::load(&flags.config)?;
    let cli = Cli(Rc::new(Shared { flags, config, client: OnceCell::new() }));
    let args = rest.iter().map(ToString::to_string).collect();
    let invocation = Invocation { cli, command, path, args };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("runtime", &error))?;
    let result = runtime.block_on((command.run)(invocation));
    // A thread that still reads the terminal must not hold the exit up.
    runtime.shutdown_background();
    match result {
        Err(Failure { message, code: 0 }) if message.is_empty() => Ok(()),
        other => other,
    }
}

type Found<'a> = (&'static crate::command::Command, String, &'a [&'a str]);

fn find<'a>(first: &str, rest: &'a [&'a str]) -> Outcome<Found<'a>> {
    if let Some(command) = COMMANDS.iter().find(|command| command.top == first) {
        return Ok((command, format!("silo {first}"), rest));
    }
    let Some((group, _)) = GROUPS.iter().find(|(group, _)| *group == first) else {
        return Err(Failure::new(format!(
            "silo: unknown command: silo {first}\n\nRun 'silo --help' for more information"
        )));
    };
    match rest.split_first() {
        None => Err(Failure { message: help::of_group(group).trim_end().to_owned(), code: 0 }),
        Some((name, rest)) => {
            let named = |command: &&crate::command::Command| {
                command.group == *group && command.is_named(name)
            };
            if let Some(command) = COMMANDS.iter().find(named) {
                return Ok((command, format!("silo {group} {}", command.name), rest));
            }
            if matches!(*name, "--help" | "-h" | "help") {
                print(&help::of_group(group))?;
                return Err(Failure::code(0));
            }
            if name.starts_with('-') {
                let flag = name.split('=').next().unwrap_or(name);
                return Err(Failure::new(format!(
                    "unknown flag: {flag}\n\nUsage:  silo {group} COMMAND\n\nRun 'silo {group} \
                     --help' for more information"
                ))
                .with_code(125));
            }
            Err(Failure::new(format!(
                "silo: unknown command: silo {group} {name}\n\nUsage:  silo {group}\n\nRun 'silo \
                 {group} --help' for more information"
            )))
        }
    }
}

fn help_for(words: &[&str]) -> Outcome {
    match words.split_first() {
        None => print(&help::of_root(GlobalFlags::FLAGS)),
        Some((first, [])) if GROUPS.iter().any(|(group, _)| group == first) => {
            print(&help::of_group(first))
        }
        Some((first, rest)) => match find(first, rest) {
            Ok((command, path, [])) => print(&help::of_command(command, &path)),
            Err(Failure { code: 0, .. }) => Ok(()),
            _ => Err(Failure::new(format!("unknown help topic: {}", words.join(" ")))),
        },
    }
}

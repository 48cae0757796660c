//! Help texts, in Docker's layout.

use crate::command::Command;
use crate::commands::{COMMANDS, COMMON, GROUPS};
use crate::flags::Flag;

/// Columns of help when there is no terminal to ask.
const WIDTH: usize = 80;

/// Help of one command, as it was called.
pub(crate) fn of_command(command: &Command, path: &str) -> String {
    let mut out = format!("Usage:  {path} {}", command.usage).trim_end().to_owned();
    out.push_str(&format!("\n\n{}\n", command.about));
    let paths = command.paths();
    if paths.len() > 1 {
        out.push_str(&format!("\nAliases:\n  {}\n", paths.join(", ")));
    }
    if !command.flags.is_empty() {
        out.push_str("\nOptions:\n");
        out.push_str(&flags(command.flags));
    }
    out
}

/// Help of a group of commands.
pub(crate) fn of_group(group: &str) -> String {
    let about = GROUPS.iter().find(|(name, _)| *name == group).map_or("", |(_, about)| about);
    let mut out = format!("Usage:  silo {group} COMMAND\n\n{about}\n\nCommands:\n");
    let mut commands: Vec<&Command> =
        COMMANDS.iter().filter(|command| command.group == group && !command.hidden).collect();
    commands.sort_by_key(|command| command.name);
    list(&mut out, commands.iter().map(|command| (command.name, command.about)));
    out.push_str(&format!(
        "\nRun 'silo {group} COMMAND --help' for more information on a command.\n"
    ));
    out
}

/// Help of `silo` itself.
pub(crate) fn of_root(global: &[Flag]) -> String {
    let mut out = "Usage:  silo [OPTIONS] COMMAND\n\nA container engine for Linux and Windows \
                   containers\n\nCommon Commands:\n"
        .to_owned();
    let top = |name: &str| COMMANDS.iter().find(|command| command.top == name);
    list(&mut out, COMMON.iter().filter_map(|name| top(name)).map(|c| (c.top, c.about)));
    out.push_str("\nManagement Commands:\n");
    list(&mut out, GROUPS.iter().copied());
    out.push_str("\nCommands:\n");
    let mut others: Vec<(&str, &str)> = COMMANDS
        .iter()
        .filter(|command| {
            !command.hidden && !command.top.is_empty() && !COMMON.contains(&command.top)
        })
        .map(|command| (command.top, command.about))
        .collect();
    // Roles of the program that the table does not have.
    others.push(("daemon", "Run the engine in the foreground"));
    others.push(("registry", "Serve a registry over the engine's content"));
    others.push(("runtime", "Run as an OCI runtime"));
    others.sort_unstable();
    list(&mut out, others);
    out.push_str("\nGlobal Options:\n");
    out.push_str(&flags(global));
    out.push_str("\nRun 'silo COMMAND --help' for more information on a command.\n");
    out
}

fn list<'a>(out: &mut String, entries: impl IntoIterator<Item = (&'a str, &'a str)>) {
    for (name, about) in entries {
        out.push_str(&format!("  {name:<11} {about}\n"));
    }
}

/// The name a value has in help: a word in backquotes in the text, or its kind.
fn value_name(flag: &Flag) -> &str {
    flag.kind
}

fn flags(flags: &[Flag]) -> String {
    let mut sorted: Vec<&Flag> = flags.iter().filter(|flag| !flag.help.is_empty()).collect();
    sorted.sort_by_key(|flag| flag.long);
    let left: Vec<String> = sorted
        .iter()
        .map(|flag| {
            let short = flag.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
            let value = value_name(flag);
            let gap = if value.is_empty() { "" } else { " " };
            format!("  {short}--{}{gap}{value}", flag.long)
        })
        .collect();
    let width = left.iter().map(String::len).max().unwrap_or(0) + 3;
    let mut out = String::new();
    for (flag, left) in sorted.iter().zip(left) {
        let lines = wrap(flag.help, (WIDTH - 1).saturating_sub(width).max(24));
        for (index, line) in lines.iter().enumerate() {
            let left = if index == 0 { left.as_str() } else { "" };
            out.push_str(format!("{left:width$}{line}").trim_end());
            out.push('\n');
        }
    }
    out
}

/// Breaks text at spaces; line ends of the text stay.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.len() + 1 + word.len() > width {
                lines.push(std::mem::take(&mut line));
            } else if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

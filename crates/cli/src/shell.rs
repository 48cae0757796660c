//! Completion scripts and man pages, made from the table of commands.

use crate::command::Command;
use crate::commands::{COMMANDS, GROUPS};

/// The script for a shell; `None` for a shell that is not known.
pub(crate) fn completion(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => {
            Some(format!("#compdef silo\nautoload -U +X bashcompinit && bashcompinit\n{}", bash()))
        }
        "fish" => Some(fish()),
        _ => None,
    }
}

fn shown() -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().filter(|command| !command.hidden)
}

fn flag_words(command: &Command) -> String {
    let mut words: Vec<String> = command
        .flags
        .iter()
        .filter(|flag| !flag.help.is_empty())
        .flat_map(|flag| {
            let short = flag.short.map(|short| format!("-{short}"));
            std::iter::once(format!("--{}", flag.long)).chain(short)
        })
        .collect();
    words.push("--help".into());
    words.join(" ")
}

/// What a command's words are: which list of the engine's completes them.
fn objects(command: &Command) -> &'static str {
    match (command.group, command.name) {
        ("container", "run" | "create") | ("image", _) => "images",
        ("container", _) => "containers",
        ("volume", "rm" | "inspect") => "volumes",
        ("network", "rm" | "inspect" | "connect" | "disconnect") => "networks",
        ("", "inspect") => "containers",
        _ => "",
    }
}

fn bash() -> String {
    let tops: Vec<&str> =
        shown().map(|command| command.top).filter(|top| !top.is_empty()).collect();
    let groups: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
    let mut cases = String::new();
    let mut add = |path: &str, command: &Command| {
        cases.push_str(&format!(
            "    \"{path}\") flags=\"{}\"; objects=\"{}\";;\n",
            flag_words(command),
            objects(command)
        ));
    };
    for command in shown() {
        if !command.top.is_empty() {
            add(command.top, command);
        }
        if !command.group.is_empty() {
            add(&format!("{} {}", command.group, command.name), command);
        }
    }
    let mut members = String::new();
    for group in &groups {
        let names: Vec<&str> =
            shown().filter(|command| command.group == *group).map(|command| command.name).collect();
        members.push_str(&format!("    {group}) words=\"{}\";;\n", names.join(" ")));
    }
    format!(
        r#"_silo() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" path="" words="" flags="" objects="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    [[ "${{COMP_WORDS[i]}}" == -* ]] || path="${{path:+$path }}${{COMP_WORDS[i]}}"
  done
  case "$path" in
    "") words="{tops} {groups}";;
{members}  esac
  if [[ -n "$words" ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$current")); return
  fi
  local first="${{path%% *}}" rest="${{path#* }}" key
  case "$first" in
    {alternatives}) key="$first ${{rest%% *}}";;
    *) key="$first";;
  esac
  case "$key" in
{cases}  esac
  if [[ "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$current")); return
  fi
  case "$objects" in
    containers) words="$(silo ps -a --format '{{{{.Names}}}}' 2>/dev/null)";;
    images) words="$(silo images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' 2>/dev/null)";;
    volumes) words="$(silo volume ls -q 2>/dev/null)";;
    networks) words="$(silo network ls --format '{{{{.Name}}}}' 2>/dev/null)";;
    *) COMPREPLY=($(compgen -f -- "$current")); return;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -F _silo silo
"#,
        tops = tops.join(" "),
        groups = groups.join(" "),
        alternatives = groups.join("|"),
    )
}

fn fish() -> String {
    let quote = |text: &str| text.lines().next().unwrap_or("").replace('\'', "\\'");
    let mut out = "complete -c silo -f\n".to_owned();
    for command in shown().filter(|command| !command.top.is_empty()) {
        out.push_str(&format!(
            "complete -c silo -n __fish_use_subcommand -a {} -d '{}'\n",
            command.top,
            quote(command.about)
        ));
    }
    for (group, about) in GROUPS {
        out.push_str(&format!(
            "complete -c silo -n __fish_use_subcommand -a {group} -d '{}'\n",
            quote(about)
        ));
    }
    for command in shown() {
        let condition = if command.group.is_empty() || !command.top.is_empty() {
            format!("__fish_seen_subcommand_from {}", command.top)
        } else {
            format!(
                "__fish_seen_subcommand_from {}; and __fish_seen_subcommand_from {}",
                command.group, command.name
            )
        };
        if !command.group.is_empty() {
            out.push_str(&format!(
                "complete -c silo -n '__fish_seen_subcommand_from {}' -a {} -d '{}'\n",
                command.group,
                command.name,
                quote(command.about)
            ));
        }
        for flag in command.flags.iter().filter(|flag| !flag.help.is_empty()) {
            let short = flag.short.map_or(String::new(), |short| format!(" -s {short}"));
            let value = if flag.kind.is_empty() { "" } else { " -r" };
            out.push_str(&format!(
                "complete -c silo -n '{condition}'{short} -l {}{value} -d '{}'\n",
                flag.long,
                quote(flag.help)
            ));
        }
    }
    out
}

/// File names and texts of the man pages: one for `silo`, one for each command.
pub(crate) fn man_pages() -> Vec<(String, String)> {
    let mut pages = vec![("silo.1".to_owned(), root_page())];
    for command in shown() {
        let path = if command.group.is_empty() {
            command.top.to_owned()
        } else {
            format!("{}-{}", command.group, command.name)
        };
        let page = command_page(command, &path);
        pages.push((format!("silo-{path}.1"), page));
        if !command.group.is_empty() && !command.top.is_empty() {
            let link = format!(".so man1/silo-{path}.1\n");
            pages.push((format!("silo-{}.1", command.top), link));
        }
    }
    pages
}

/// Text that troff shows as it is.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    text.lines()
        .map(
            |line| {
                if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() }
            },
        )
        .collect::<Vec<_>>()
        .join("\n.br\n")
}

fn heading(name: &str, about: &str) -> String {
    format!(
        ".TH \"{}\" 1 \"\" \"Silo {}\" \"Silo manual\"\n.SH NAME\n{} \\- {}\n",
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION"),
        escape(name),
        escape(about)
    )
}

fn command_page(command: &Command, path: &str) -> String {
    let spaced = path.replacen('-', " ", 1);
    let mut page = heading(&format!("silo-{path}"), command.about);
    page.push_str(&format!(
        ".SH SYNOPSIS\n.B silo {}\n{}\n",
        escape(&spaced),
        escape(command.usage)
    ));
    let paths = command.paths();
    if paths.len() > 1 {
        page.push_str(&format!(".SH ALIASES\n{}\n", escape(&paths.join(", "))));
    }
    let flags: Vec<_> = command.flags.iter().filter(|flag| !flag.help.is_empty()).collect();
    if !flags.is_empty() {
        page.push_str(".SH OPTIONS\n");
    }
    for flag in flags {
        let short = flag.short.map_or(String::new(), |short| format!("\\fB\\-{short}\\fR, "));
        let value =
            if flag.kind.is_empty() { String::new() } else { format!(" \\fI{}\\fR", flag.kind) };
        page.push_str(&format!(
            ".TP\n{short}\\fB\\-\\-{}\\fR{value}\n{}\n",
            escape(flag.long),
            escape(flag.help)
        ));
    }
    page.push_str(".SH SEE ALSO\n.BR silo (1)\n");
    page
}

fn root_page() -> String {
    let mut page = heading("silo", "container engine for Linux and Windows containers");
    page.push_str(".SH SYNOPSIS\n.B silo\n[OPTIONS] COMMAND [ARG...]\n.SH COMMANDS\n");
    for command in shown() {
        let name = command.paths().join(", ");
        page.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", escape(&name), escape(command.about)));
    }
    page.push_str(
        ".SH EXIT STATUS\n0 on success, 1 on failure, 125 when a flag is wrong or the engine \
         refuses a run, 126 when the program cannot be run, 127 when it is not found, else the \
         status of the container.\n",
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_name_every_command() {
        for shell in ["bash", "zsh", "fish"] {
            let script = completion(shell).unwrap();
            for command in shown().filter(|command| !command.top.is_empty()) {
                assert!(script.contains(command.top), "{shell}: {}", command.top);
            }
        }
        assert_eq!(completion("csh"), None);
    }

    #[test]
    fn a_page_for_each_command() {
        let pages = man_pages();
        for name in ["silo.1", "silo-container-run.1", "silo-run.1", "silo-version.1"] {
            assert!(pages.iter().any(|(page, _)| page == name), "{name}");
        }
        for (name, page) in &pages {
            for line in page.lines() {
                let request = line.starts_with('.') || !line.starts_with('\'');
                assert!(request, "{name}: {line}");
            }
        }
    }
}

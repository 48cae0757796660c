//! Which file a command runs.

use crate::path::WindowsPath;

/// A command as a container has it.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    /// Its words.
    pub words: &'a [String],
    /// The first word is a command line already.
    pub escaped: bool,
    /// `PATH`, with `;` between its directories.
    pub path: &'a str,
    /// The working directory.
    pub directory: &'a str,
}

/// Most words of a command that are looked at.
const MAX_WORDS: usize = 64;

impl Command<'_> {
    /// The whole command line.
    fn line(&self) -> String {
        crate::command::line(&self.words[..self.words.len().min(MAX_WORDS)], self.escaped)
    }

    /// The program that it names, and its arguments. What `cmd /c` is to run comes before `cmd`
    /// itself.
    pub fn programs(&self) -> Vec<(String, Vec<String>)> {
        let line = self.line();
        let mut words = split(&line);
        if words.is_empty() {
            return Vec::new();
        }
        let program = words.remove(0);
        let mut programs = Vec::new();
        if stem(&program).eq_ignore_ascii_case("cmd")
            && let Some(rest) = after_run(&line)
        {
            let rest = rest.trim().trim_start_matches(['@', '(', ' ']);
            // cmd takes outer quotes away, unless they are around a program's name alone.
            let inner = rest.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let inner = inner.filter(|inner| !inner.starts_with('"') || inner.ends_with('"'));
            let lines = inner.filter(|inner| inner.contains(' ')).into_iter().chain([rest]);
            for line in lines {
                let mut words = split(line);
                if !words.is_empty() {
                    let program = words.remove(0);
                    programs.push((program, words));
                }
            }
        }
        programs.push((program, words));
        programs
    }

    /// The files on drive C: that a program's name may mean, in Windows' order.
    pub fn candidates(&self, program: &str) -> Vec<Vec<String>> {
        let name = stem_and_ending(program);
        let directory =
            WindowsPath::parse(if self.directory.is_empty() { "C:\\" } else { self.directory });
        let rooted = program.contains(['\\', '/', ':']);
        let mut directories: Vec<WindowsPath> = Vec::new();
        if rooted {
            let Ok(base) = directory else { return Vec::new() };
            let Ok(path) = base.join(&with_ending(program, name.1)) else { return Vec::new() };
            return if path.drive == 'C' && !path.names.is_empty() {
                vec![path.names]
            } else {
                Vec::new()
            };
        }
        directories.extend(WindowsPath::parse("C:\\Windows\\System32").ok());
        directories.extend(directory.ok());
        directories.extend(WindowsPath::parse("C:\\Windows").ok());
        directories.extend(search(self.path));
        let mut found: Vec<Vec<String>> = Vec::new();
        for directory in directories {
            if let Ok(path) = directory.join(&with_ending(program, name.1))
                && path.drive == 'C'
                && !found.contains(&path.names)
            {
                found.push(path.names);
            }
        }
        found
    }
}

/// What follows the word `/c` or `/k` of a command line.
fn after_run(line: &str) -> Option<&str> {
    let mut quoted = false;
    let mut before = ' ';
    for (at, character) in line.char_indices() {
        if character == '/' && before == ' ' && !quoted {
            let rest = line.get(at + 1..)?;
            if rest.starts_with(['c', 'C', 'k', 'K']) {
                return rest.get(1..);
            }
        }
        quoted ^= character == '"';
        before = character;
    }
    None
}

/// The directories of `PATH`.
fn search(path: &str) -> impl Iterator<Item = WindowsPath> {
    path.split(';').take(256).filter_map(|directory| {
        let directory = directory.trim().trim_matches('"');
        WindowsPath::parse(&expand(directory)).ok()
    })
}

/// The directories of `PATH` where a program's own libraries may be: those on C: that are not
/// Windows'.
pub fn search_directories(path: &str) -> Vec<Vec<String>> {
    search(path)
        .filter(|directory| {
            directory.drive == 'C'
                && !directory.names.is_empty()
                && !directory.names[0].eq_ignore_ascii_case("windows")
        })
        .map(|directory| directory.names)
        .collect()
}

/// Puts values in place of the variables that paths begin with.
pub(super) fn expand(path: &str) -> String {
    let variables = [
        ("%systemroot%", "C:\\Windows"),
        ("%windir%", "C:\\Windows"),
        ("%systemdrive%", "C:"),
        ("%programfiles%", "C:\\Program Files"),
        ("%programfiles(x86)%", "C:\\Program Files (x86)"),
        ("%programdata%", "C:\\ProgramData"),
    ];
    for (name, value) in variables {
        if let Some(start) = path.get(..name.len())
            && start.eq_ignore_ascii_case(name)
        {
            return format!("{value}{}", &path[name.len()..]);
        }
    }
    path.to_owned()
}

/// Splits a command line at spaces that are not in quotes.
pub(super) fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut any) = (false, false);
    for character in line.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            ' ' | '\t' if !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
                if words.len() >= MAX_WORDS {
                    return words;
                }
            }
            other => {
                word.push(other);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}

fn stem_and_ending(program: &str) -> (&str, &str) {
    let name = program.rsplit(['\\', '/', ':']).next().unwrap_or(program);
    name.rsplit_once('.').unwrap_or((name, ""))
}

fn stem(program: &str) -> &str {
    stem_and_ending(program).0
}

/// A name without an ending means a program.
fn with_ending(program: &str, ending: &str) -> String {
    if ending.is_empty() && !program.ends_with('.') {
        format!("{program}.exe")
    } else {
        program.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(words: &[&str], escaped: bool) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let command = Command { words: &words, escaped, path: "", directory: "" };
        command.programs().into_iter().map(|(program, _)| program).collect()
    }

    #[test]
    fn programs_of_commands() {
        for (words, escaped, found) in [
            (&["node", "x.js"][..], false, &["node"][..]),
            (&["cmd", "/S", "/C", "app.exe -x"], false, &["app.exe", "app.exe -x", "cmd"]),
            (&["cmd /S /C \"C:\\my app\\x.exe\" -y"], true, &["C:\\my app\\x.exe", "cmd"]),
            (&["cmd", "/s", "/c", "C:\\my app\\x.exe", "-y"], false, &["C:\\my app\\x.exe", "cmd"]),
            (&["cmd", "/c", "C:\\my app\\x.exe"], false, &["C:\\my", "C:\\my app\\x.exe", "cmd"]),
            (&["C:\\Windows\\system32\\CMD.EXE"], false, &["C:\\Windows\\system32\\CMD.EXE"]),
            (&["cmd", "/c"], false, &["cmd"]),
            (&["cmd", "/cver"], false, &["ver", "cmd"]),
            (&[], false, &[]),
        ] {
            assert_eq!(programs(words, escaped), found, "{words:?}");
        }
    }

    #[test]
    fn candidates_are_in_windows_order() {
        let path = "%SystemRoot%\\system32;C:\\app\\bin;D:\\x;\"C:\\Program Files\\y\"";
        let command = Command { words: &[], escaped: false, path, directory: "C:\\work" };
        let shown = |program: &str| -> Vec<String> {
            command.candidates(program).into_iter().map(|names| names.join("\\")).collect()
        };
        assert_eq!(
            shown("node"),
            [
                "Windows\\System32\\node.exe",
                "work\\node.exe",
                "Windows\\node.exe",
                "Windows\\system32\\node.exe",
                "app\\bin\\node.exe",
                "Program Files\\y\\node.exe"
            ]
        );
        assert_eq!(shown("sub\\x.exe"), ["work\\sub\\x.exe"]);
        assert_eq!(shown("c:/app/x"), ["app\\x.exe"]);
        assert_eq!(shown("D:\\x.exe"), Vec::<String>::new());
        assert_eq!(search_directories(path), [vec!["app", "bin"], vec!["Program Files", "y"]]);
    }

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(split("a  \"b c\"d \"\" e"), ["a", "b cd", "", "e"]);
    }
}

//! Command lines: Windows hands a program one text, which the program splits.

/// The command line of a list of words. With `escaped` the first word is a command line already,
/// as images of classic builders have it (`ArgsEscaped`).
///
/// What `cmd /C` or `cmd /K` is to run, given as one word, reaches it to the letter: cmd does not
/// know `\"`, it takes the first and the last quote of what follows the switch away and the rest as
/// it is. (Docker on Windows escapes here as everywhere, so that quotes arrive as `\"`.)
pub fn line(words: &[String], escaped: bool) -> String {
    let mut line = String::new();
    let text = text_of_cmd(words);
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            line.push(' ');
        }
        if index == 0 && escaped {
            line.push_str(word);
        } else if text == Some(index) && word.contains(['"', ' ', '\t']) {
            line.push('"');
            line.push_str(word);
            line.push('"');
        } else {
            quote(word, &mut line);
        }
    }
    line
}

/// The index of the one word that cmd is to run.
fn text_of_cmd(words: &[String]) -> Option<usize> {
    let program = words.first()?.trim_matches('"');
    let name = program.rsplit(['\\', '/']).next()?;
    if !["cmd", "cmd.exe"].iter().any(|cmd| name.eq_ignore_ascii_case(cmd)) {
        return None;
    }
    let switch = words.len().checked_sub(2).filter(|&switch| switch > 0)?;
    let is_switch = |word: &String| ["/c", "/k"].iter().any(|run| word.eq_ignore_ascii_case(run));
    // Everything after the first such switch belongs to what is run.
    (words.iter().position(is_switch)? == switch).then_some(switch + 1)
}

/// Appends a word so that Microsoft's C runtime takes it for one argument again.
pub fn quote(word: &str, line: &mut String) {
    if word.is_empty() {
        line.push_str("\"\"");
        return;
    }
    let spaces = word.contains([' ', '\t']);
    if !spaces && !word.contains('"') {
        line.push_str(word);
        return;
    }
    if spaces {
        line.push('"');
    }
    let mut backslashes = 0;
    for character in word.chars() {
        match character {
            '\\' => backslashes += 1,
            // Those before a quote are taken as half their number.
            '"' => line.extend(std::iter::repeat_n('\\', std::mem::take(&mut backslashes) + 1)),
            _ => backslashes = 0,
        }
        line.push(character);
    }
    if spaces {
        line.extend(std::iter::repeat_n('\\', backslashes));
        line.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (word, quoted) in [
            ("", "\"\""),
            ("plain", "plain"),
            ("C:\\dir\\", "C:\\dir\\"),
            ("a b", "\"a b\""),
            ("a b\\", "\"a b\\\\\""),
            ("say \"x\"", "\"say \\\"x\\\"\""),
            ("a\\\\\"b", "a\\\\\\\\\\\"b"),
            ("tab\there", "\"tab\there\""),
        ] {
            let mut line = String::new();
            quote(word, &mut line);
            assert_eq!(line, quoted, "{word}");
        }
        let words = ["cmd /S /C echo \"a b\"".to_owned(), "x y".to_owned()];
        assert_eq!(line(&words, true), "cmd /S /C echo \"a b\" \"x y\"");
        assert_eq!(line(&words[1..], false), "\"x y\"");
    }

    #[test]
    fn texts_for_cmd() {
        for (words, expected) in [
            (
                &["cmd", "/S", "/C", "reg add X /v \"a b\""][..],
                "cmd /S /C \"reg add X /v \"a b\"\"",
            ),
            (&["C:\\Windows\\CMD.EXE", "/k", "\"x\""], "C:\\Windows\\CMD.EXE /k \"\"x\"\""),
            (&["cmd", "/c", "dir \"C:\\a b\\\""], "cmd /c \"dir \"C:\\a b\\\"\""),
            (&["cmd", "/c", "dir C:\\a b\\"], "cmd /c \"dir C:\\a b\\\""),
            (&["cmd", "/c", "ver"], "cmd /c ver"),
            (&["cmd", "/c", ""], "cmd /c \"\""),
            // More than one word is quoted as for every program.
            (&["cmd", "/c", "echo", "a \"b\""], "cmd /c echo \"a \\\"b\\\"\""),
            (&["cmd", "/c", "x", "/c", "a\"b"], "cmd /c x /c a\\\"b"),
            (&["cmd", "a\"b"], "cmd a\\\"b"),
            (&["mycmd", "/c", "a\"b"], "mycmd /c a\\\"b"),
        ] {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            for escaped in [false, true] {
                assert_eq!(line(&words, escaped), expected, "{words:?}");
            }
        }
    }
}

//! Command lines: Windows hands a program one text, which the program splits.

/// The command line of a list of words. With `escaped` the first word is a command line already,
/// as images of classic builders have it (`ArgsEscaped`).
pub fn line(words: &[String], escaped: bool) -> String {
    let mut line = String::new();
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            line.push(' ');
        }
        if index == 0 && escaped {
            line.push_str(word);
        } else {
            quote(word, &mut line);
        }
    }
    line
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
}

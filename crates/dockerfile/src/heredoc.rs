//! Here-documents: `<<WORD` in a line and the lines up to `WORD`.

use crate::ast::Heredoc;
use crate::error::ParseError;
use crate::expand::Expander;

/// No variable has a value while words are looked for.
fn unset(_: &str) -> Option<String> {
    None
}

/// The here-documents that a line opens, without their text.
pub(crate) fn in_line(line: &str) -> Result<Vec<Heredoc>, ParseError> {
    // Whatever `# escape=` says: their words are quoted as a shell does it.
    let expander = Expander {
        raw_quotes: true,
        raw_escapes: true,
        keep_unset: true,
        ..Expander::with_char('\\')
    };
    let words = expander.words(line, &unset).unwrap_or_default();
    let mut heredocs = Vec::new();
    for word in words {
        heredocs.extend(from_word(&word)?);
    }
    Ok(heredocs)
}

/// The here-document that a word is: `[number]<<[-]WORD`.
pub(crate) fn from_word(word: &str) -> Result<Option<Heredoc>, ParseError> {
    let digits = word.len() - word.trim_start_matches(|digit: char| digit.is_ascii_digit()).len();
    let (descriptor, rest) = word.split_at(digits);
    let Some(rest) = rest.strip_prefix("<<") else { return Ok(None) };
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let expander = Expander { keep_unset: true, ..Expander::with_char('\\') };
    let words = expander.words(rest, &unset).map_err(|e| ParseError::about(e.message, rest))?;
    let [name] = words.as_slice() else { return Ok(None) };
    let raw = Expander { raw_quotes: true, ..expander };
    let raw = raw.words(rest, &unset).map_err(|error| ParseError::about(error.message, rest))?;
    let [raw] = raw.as_slice() else {
        let message = format!("internal lexing of heredoc produced inconsistent results: {rest}");
        return Err(ParseError::about(message, rest));
    };
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    Ok(Some(Heredoc {
        name: name.clone(),
        content: String::new(),
        chomp,
        expand: quotes(name) == quotes(raw),
        descriptor: if digits == 0 { 0 } else { descriptor.parse().unwrap_or(u64::MAX) },
    }))
}

/// The text without tabs at the start of its lines.
pub(crate) fn chomp(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (word, found) in [
            ("<<EOF", Some(("EOF", false, true, 0))),
            ("<<-EOF", Some(("EOF", true, true, 0))),
            ("3<<EOF", Some(("EOF", false, true, 3))),
            ("<<'EOF'", Some(("EOF", false, false, 0))),
            ("<<\"E F\"", Some(("E F", false, false, 0))),
            ("<< EOF", Some(("EOF", false, true, 0))),
            ("<<$EOF", Some(("$EOF", false, true, 0))),
            ("<<E\\ F", Some(("E F", false, true, 0))),
            ("<<", None),
            ("<<<EOF", None),
            ("<EOF", None),
            ("x<<EOF", None),
            ("<<a b", None),
        ] {
            let heredoc = from_word(word).unwrap();
            let heredoc =
                heredoc.as_ref().map(|h| (h.name.as_str(), h.chomp, h.expand, h.descriptor));
            assert_eq!(heredoc, found, "{word}");
        }
        assert!(from_word("<<'a").is_err());
    }

    #[test]
    fn lines() {
        for (line, names) in [
            ("RUN <<A <<-'B' 3<<C cat", vec!["A", "B", "C"]),
            ("RUN echo '<<A' \"<<B\"", vec![]),
            ("RUN python3 <<EOF", vec!["EOF"]),
            ("RUN echo $((1<<2))", vec![]),
            ("RUN echo 'unclosed <<A", vec![]),
        ] {
            let heredocs = in_line(line).unwrap();
            let found: Vec<&str> = heredocs.iter().map(|heredoc| heredoc.name.as_str()).collect();
            assert_eq!(found, names, "{line}");
        }
    }

    #[test]
    fn tabs() {
        assert_eq!(chomp("\ta\n\t\tb\n c\n\n"), "a\nb\n c\n\n");
    }
}

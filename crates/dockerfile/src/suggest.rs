//! "did you mean": the nearest of the words that would have been right.

/// The longest word that has a near one, in characters.
const MAX_WORD: usize = 64;

/// How many words are compared.
const MAX_OPTIONS: usize = 1000;

/// The option nearest to `value` with a distance of at most two edits; nothing when `value` is
/// one of them. Of equally near ones the first is taken. Without `case_sensitive` the answer has
/// the case that `value` has.
pub fn search<'a>(
    value: &str,
    options: impl IntoIterator<Item = &'a str>,
    case_sensitive: bool,
) -> Option<String> {
    let wanted = if case_sensitive { value.to_owned() } else { value.to_lowercase() };
    let wanted: Vec<char> = wanted.chars().collect();
    if wanted.len() > MAX_WORD {
        return None;
    }
    let mut best = None;
    let mut least = 3;
    for option in options.into_iter().take(MAX_OPTIONS) {
        let option = if case_sensitive { option.to_owned() } else { option.to_lowercase() };
        let characters: Vec<char> = option.chars().collect();
        if characters == wanted {
            return None;
        }
        if wanted.len().abs_diff(characters.len()) >= least {
            continue;
        }
        let distance = distance(&wanted, &characters);
        if distance < least {
            least = distance;
            best = Some(option);
        }
    }
    let best = best?;
    if case_sensitive || value == value.to_lowercase() {
        Some(best)
    } else if value == value.to_uppercase() {
        Some(best.to_uppercase())
    } else {
        Some(best)
    }
}

/// `message`, with the nearest option behind it if there is one.
pub fn message<'a>(
    message: String,
    value: &str,
    options: impl IntoIterator<Item = &'a str>,
    case_sensitive: bool,
) -> String {
    match search(value, options, case_sensitive) {
        Some(option) if !option.is_empty() => format!("{message} (did you mean {option}?)"),
        _ => message,
    }
}

/// Levenshtein's distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest() {
        for (value, case_sensitive, found) in [
            ("FORM", false, Some("FROM")),
            ("form", false, Some("from")),
            ("Form", false, Some("from")),
            ("FROM", false, None),
            ("WORKDIRR", false, Some("WORKDIR")),
            ("BOGUS", false, None),
            ("", false, None),
            ("FORM", true, Some("FROM")),
            ("form", true, None),
        ] {
            let options = ["FROM", "WORKDIR"];
            assert_eq!(search(value, options, case_sensitive).as_deref(), found, "{value}");
        }
        assert_eq!(message("x: y".to_owned(), "fron", ["from"], true), "x: y (did you mean from?)");
    }
}

//! Lines of a Dockerfile around an error or a warning, as BuildKit's clients print them.

use crate::ast::Span;

const RULE: &str = "--------------------\n";

/// Prints the lines of `spans` with a few around them. Under the first place of `excerpt` in
/// these lines go carets. Empty when the spans are not in the text.
pub fn render(name: &str, text: &[u8], spans: &[Span], excerpt: Option<&str>) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.split('\n').collect();
    let Some(first) = spans.iter().map(|span| span.start_line as usize).min() else {
        return String::new();
    };
    let last = spans.iter().map(|span| span.end_line as usize).max().unwrap_or(first);
    if first < 1 || first > lines.len() {
        return String::new();
    }
    let last = last.clamp(first, lines.len());
    let (start, end) = widen(first, last, lines.len());
    let mut out = format!("{name}:{first}\n{RULE}");
    let mut excerpt = excerpt.filter(|excerpt| !excerpt.is_empty() && !excerpt.contains('\n'));
    for number in start..=end {
        let line = lines[number - 1].trim_end_matches('\r');
        let marked = spans
            .iter()
            .any(|span| (span.start_line as usize..=span.end_line as usize).contains(&number));
        let mark = if marked { ">>>" } else { "   " };
        out.push_str(&format!(" {number:3} | {mark} {line}\n"));
        if marked && let Some(column) = excerpt.and_then(|excerpt| line.find(excerpt)) {
            let width = excerpt.take().unwrap_or_default().chars().count();
            // Tabs stay, so that the carets stand where the text does.
            let indent: String =
                line[..column].chars().map(|c| if c == '\t' { c } else { ' ' }).collect();
            out.push_str(&format!("     |     {indent}{}\n", "^".repeat(width)));
        }
    }
    out.push_str(RULE);
    out
}

/// The lines to show: two more on the whole, four more around a single line.
fn widen(first: usize, last: usize, count: usize) -> (usize, usize) {
    let (mut start, mut end) = (first, last);
    let wanted = if first == last { 4 } else { 2 };
    let mut got = 0;
    while got < wanted {
        if start > 1 {
            start -= 1;
            got += 1;
        }
        if end != count {
            end += 1;
            got += 1;
        }
        got += 1;
    }
    (start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_around() {
        let text = b"FROM a\nRUN b\n\tFOO c\nRUN d\nRUN e\n";
        assert_eq!(
            render("Dockerfile", text, &[Span::new(3, 3)], Some("FOO")),
            "Dockerfile:3\n--------------------\n   1 |     FROM a\n   2 |     RUN b\n   \
             3 | >>> \tFOO c\n     |     \t^^^\n   4 |     RUN d\n   5 |     RUN e\n\
             --------------------\n"
        );
        assert_eq!(
            render("d", b"a\nb\nc\nd", &[Span::new(2, 3)], None),
            "d:2\n--------------------\n   1 |     a\n   2 | >>> b\n   3 | >>> c\n   4 |     d\n\
             --------------------\n"
        );
        assert_eq!(render("d", b"a", &[Span::new(9, 9)], None), "");
        assert_eq!(render("d", b"a", &[], None), "");
    }
}

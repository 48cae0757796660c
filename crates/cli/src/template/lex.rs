//! Text into tokens, with the trim markers applied.

/// A token and where it begins, in bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Text outside of actions.
    Text(String),
    /// `{{`
    Left,
    /// `}}`
    Right,
    /// `.name`
    Field(String),
    /// `.` alone
    Dot,
    /// `$name`, with the dollar sign
    Variable(String),
    /// A word: keyword, function, `true`, `false`, `nil`
    Word(String),
    /// A number or a character constant, as written
    Number(String),
    /// A string, unquoted
    Text2(String),
    /// White space between arguments
    Space,
    /// `|`, `(`, `)`, `,`
    Mark(char),
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// Anything else
    Other(char),
    /// The end of the text
    End,
}

/// Splits `source` into tokens, the last of which is [`Kind::End`]. Errors have no prefix and
/// come with their position.
pub(super) fn lex(source: &str) -> Result<Vec<Token>, (usize, String)> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut trim_next = false;
    loop {
        let rest = &source[at..];
        let open = rest.find("{{");
        let text = &rest[..open.unwrap_or(rest.len())];
        let trim_end = open.is_some_and(|open| opens_trimmed(&rest[open + 2..]));
        let mut shown = text;
        if trim_next {
            shown = shown.trim_start_matches([' ', '\t', '\r', '\n']);
        }
        if trim_end {
            shown = shown.trim_end_matches([' ', '\t', '\r', '\n']);
        }
        if !shown.is_empty() {
            tokens.push(Token { kind: Kind::Text(shown.to_owned()), at });
        }
        let Some(open) = open else {
            tokens.push(Token { kind: Kind::End, at: source.len() });
            return Ok(tokens);
        };
        let left = at + open;
        at = left + 2 + if trim_end { 2 } else { 0 };
        if let Some(comment) = source[at..].strip_prefix("/*") {
            let end = comment.find("*/").ok_or((left, "unclosed comment".to_owned()))?;
            at += 2 + end + 2;
            (at, trim_next) = closes(source, at)
                .ok_or((left, "comment ends before closing delimiter".to_owned()))?;
            continue;
        }
        tokens.push(Token { kind: Kind::Left, at: left });
        (at, trim_next) = lex_action(source, at, &mut tokens)?;
    }
}

fn opens_trimmed(after: &str) -> bool {
    after.starts_with('-') && after[1..].starts_with([' ', '\t', '\r', '\n'])
}

/// Where the text goes on after a closing mark at `at`, and whether that mark trims.
fn closes(source: &str, at: usize) -> Option<(usize, bool)> {
    let rest = &source[at..];
    if rest.starts_with("}}") {
        return Some((at + 2, false));
    }
    let mut chars = rest.chars();
    let space = chars.next().is_some_and(char::is_whitespace);
    (space && chars.as_str().starts_with("-}}"))
        .then(|| (at + rest.len() - chars.as_str().len() + 3, true))
}

fn lex_action(
    source: &str,
    mut at: usize,
    tokens: &mut Vec<Token>,
) -> Result<(usize, bool), (usize, String)> {
    let is_word = |c: char| c == '_' || c.is_alphanumeric();
    let mut open_parens = 0usize;
    loop {
        if let Some((end, trims)) = closes(source, at) {
            if open_parens > 0 {
                return Err((at, "unclosed left paren".to_owned()));
            }
            tokens.push(Token { kind: Kind::Right, at });
            return Ok((end, trims));
        }
        let rest = &source[at..];
        let Some(c) = rest.chars().next() else {
            return Err((at, "unclosed action".to_owned()));
        };
        let after = &rest[c.len_utf8()..];
        let word_end = |text: &str| text.find(|c| !is_word(c)).unwrap_or(text.len());
        let (kind, length) = match c {
            ' ' | '\t' | '\r' | '\n' => {
                let all = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
                // The space before a trimming end belongs to the end.
                let ends = rest[all..].starts_with("-}}");
                let length = if ends { all - 1 } else { all };
                if length == 0 {
                    return Err((at, "unclosed action".to_owned()));
                }
                (Kind::Space, length)
            }
            '.' if after.starts_with(|c: char| c.is_ascii_digit()) => number(rest),
            '.' => match word_end(after) {
                0 => (Kind::Dot, 1),
                end => (Kind::Field(after[..end].to_owned()), 1 + end),
            },
            '$' => {
                let end = word_end(after);
                (Kind::Variable(format!("${}", &after[..end])), 1 + end)
            }
            '"' => quoted(rest, '"').ok_or((at, "unterminated quoted string".to_owned()))?,
            '\'' => {
                let (kind, length) =
                    quoted(rest, '\'').ok_or((at, "unterminated character constant".to_owned()))?;
                let Kind::Text2(text) = kind else { unreachable!("quoted makes strings") };
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(c), None) => (Kind::Number(u32::from(c).to_string()), length),
                    _ => {
                        return Err((
                            at,
                            format!("malformed character constant: {}", &rest[..length]),
                        ));
                    }
                }
            }
            '`' => {
                let end =
                    after.find('`').ok_or((at, "unterminated raw quoted string".to_owned()))?;
                (Kind::Text2(after[..end].to_owned()), end + 2)
            }
            '|' | ',' => (Kind::Mark(c), 1),
            '(' => {
                open_parens += 1;
                (Kind::Mark(c), 1)
            }
            ')' => {
                if open_parens == 0 {
                    return Err((at, "unexpected right paren".to_owned()));
                }
                open_parens -= 1;
                (Kind::Mark(c), 1)
            }
            ':' if after.starts_with('=') => (Kind::Declare, 2),
            ':' => return Err((at, "expected :=".to_owned())),
            '=' => (Kind::Assign, 1),
            '+' | '-' if after.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
                number(rest)
            }
            c if c.is_ascii_digit() => number(rest),
            c if is_word(c) => {
                let end = word_end(rest);
                (Kind::Word(rest[..end].to_owned()), end)
            }
            c => (Kind::Other(c), c.len_utf8()),
        };
        let name = matches!(kind, Kind::Field(_) | Kind::Variable(_) | Kind::Word(_));
        tokens.push(Token { kind, at });
        at += length;
        // A name ends at one of these or it is no name.
        if name
            && let Some(next) = source[at..].chars().next()
            && !matches!(next, ' ' | '\t' | '\r' | '\n' | '.' | ',' | '|' | ':' | ')' | '(')
            && !source[at..].starts_with("}}")
        {
            return Err((at, format!("bad character U+{:04X} '{next}'", u32::from(next))));
        }
    }
}

fn number(text: &str) -> (Kind, usize) {
    let mut end = 0;
    let mut previous = ' ';
    for c in text.chars() {
        let sign = matches!(c, '+' | '-') && (end == 0 || matches!(previous, 'e' | 'E'));
        if !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || sign) {
            break;
        }
        previous = c;
        end += c.len_utf8();
    }
    (Kind::Number(text[..end].to_owned()), end)
}

/// A string in quotes with Go's escapes, and its length in the source.
fn quoted(text: &str, quote: char) -> Option<(Kind, usize)> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Some((Kind::Text2(out), at + 1)),
            '\n' => return None,
            '\\' => {
                let (_, escape) = chars.next()?;
                let mut code = |digits: usize| {
                    let mut value = 0;
                    for _ in 0..digits {
                        value = value * 16 + chars.next()?.1.to_digit(16)?;
                    }
                    char::from_u32(value)
                };
                out.push(match escape {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'a' => '\u{7}',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'v' => '\u{b}',
                    'x' => code(2)?,
                    'u' => code(4)?,
                    'U' => code(8)?,
                    '\\' | '"' | '\'' => escape,
                    _ => return None,
                });
            }
            _ => out.push(c),
        }
    }
    None
}

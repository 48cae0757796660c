//! Go's `print` family for template values.

use crate::value::Value;

/// Operands next to each other get a space between them when neither is a string.
pub(super) fn print(args: &[Value]) -> String {
    let mut out = String::new();
    for (index, value) in args.iter().enumerate() {
        let text = matches!(value, Value::Text(_));
        if index > 0 && !text && !matches!(args[index - 1], Value::Text(_)) {
            out.push(' ');
        }
        out.push_str(&shown(value));
    }
    out
}

/// Operands with spaces between them, and a newline.
pub(super) fn println(args: &[Value]) -> String {
    let mut out = args.iter().map(shown).collect::<Vec<_>>().join(" ");
    out.push('\n');
    out
}

fn shown(value: &Value) -> String {
    if *value == Value::Nil { "<nil>".into() } else { value.to_string() }
}

/// Widths above this are cut, so that a template cannot ask for gigabytes of spaces.
const MAX_WIDTH: usize = 4096;

#[derive(Default)]
struct Verb {
    minus: bool,
    plus: bool,
    zero: bool,
    sharp: bool,
    space: bool,
    width: usize,
    precision: Option<usize>,
}

/// The first argument is the format.
pub(super) fn printf(args: &[Value]) -> String {
    let format = args.first().map(ToString::to_string).unwrap_or_default();
    let mut values = args.iter().skip(1);
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = chars.peek().copied() {
            match flag {
                '-' => verb.minus = true,
                '+' => verb.plus = true,
                '0' => verb.zero = true,
                '#' => verb.sharp = true,
                ' ' => verb.space = true,
                _ => break,
            }
            chars.next();
        }
        verb.width = digits(&mut chars);
        if chars.peek() == Some(&'.') {
            chars.next();
            verb.precision = Some(digits(&mut chars));
        }
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(letter) => match values.next() {
                None => out.push_str(&format!("%!{letter}(MISSING)")),
                Some(value) => out.push_str(&verb.format(letter, value)),
            },
        }
    }
    let extra: Vec<String> =
        values.map(|value| format!("{}={}", kind(value), shown(value))).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn digits(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> usize {
    let mut number = 0usize;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        number = (number * 10 + digit as usize).min(MAX_WIDTH);
        chars.next();
    }
    number
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "<nil>",
        Value::Bool(_) => "bool",
        Value::Int(_) | Value::Uint(_) => "int",
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::List(_) => "[]interface {}",
        Value::Map(_) => "map[string]interface {}",
        Value::Row(row) => row.type_name,
    }
}

impl Verb {
    fn format(&self, letter: char, value: &Value) -> String {
        let integer = matches!(value, Value::Int(_) | Value::Uint(_));
        let number = integer || matches!(value, Value::Float(_));
        let body = match letter {
            'v' => shown(value),
            's' => match value {
                Value::Text(_) | Value::List(_) | Value::Map(_) | Value::Row(_) => {
                    let text = shown(value);
                    match self.precision {
                        Some(length) => text.chars().take(length).collect(),
                        None => text,
                    }
                }
                _ => return wrong(letter, value),
            },
            'q' => match value {
                Value::Text(text) => quote(text),
                _ => return wrong(letter, value),
            },
            'd' if integer => self.signed(value.to_string()),
            'x' if integer => format!("{:x}", value.int()),
            'X' if integer => format!("{:X}", value.int()),
            'o' if integer => format!("{:o}", value.int()),
            'b' if integer => format!("{:b}", value.int()),
            'c' if integer => u32::try_from(value.int())
                .ok()
                .and_then(char::from_u32)
                .unwrap_or(char::REPLACEMENT_CHARACTER)
                .to_string(),
            'x' | 'X' => match value {
                Value::Text(text) => {
                    let hex = silo_types::digest::hex(text.as_bytes());
                    if letter == 'X' { hex.to_uppercase() } else { hex }
                }
                _ => return wrong(letter, value),
            },
            'f' | 'F' if matches!(value, Value::Float(_)) => {
                let precision = self.precision.unwrap_or(6);
                self.signed(format!("{:.precision$}", value.float()))
            }
            'g' | 'e' if matches!(value, Value::Float(_)) => self.signed(value.to_string()),
            't' => match value {
                Value::Bool(_) => value.to_string(),
                _ => return wrong(letter, value),
            },
            'T' => kind(value).to_owned(),
            _ => return wrong(letter, value),
        };
        let missing = self.width.saturating_sub(body.chars().count());
        if self.minus {
            format!("{body}{}", " ".repeat(missing))
        } else if self.zero && number {
            let (sign, digits) = match body.strip_prefix('-') {
                Some(digits) => ("-", digits),
                None => ("", body.as_str()),
            };
            format!("{sign}{}{digits}", "0".repeat(missing))
        } else {
            format!("{}{body}", " ".repeat(missing))
        }
    }

    fn signed(&self, text: String) -> String {
        match text.starts_with('-') {
            false if self.plus => format!("+{text}"),
            false if self.space => format!(" {text}"),
            _ => text,
        }
    }
}

fn wrong(letter: char, value: &Value) -> String {
    format!("%!{letter}({}={})", kind(value), shown(value))
}

/// Go's `%q` and `strconv.Quote`.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

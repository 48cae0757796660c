//! Go's predefined functions and those that Docker adds.

use std::cmp::Ordering;

use super::{Mode, printf};
use crate::value::Value;

/// A failed call.
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) place: Place,
}

/// What an error of a call is about.
pub(super) enum Place {
    /// The number of arguments.
    Count,
    /// The type of the argument of this index.
    Argument(usize),
    /// The call itself.
    Call,
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self { message, place: Place::Call }
    }
}

impl From<&str> for Problem {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

/// Name, least and greatest number of arguments.
const FUNCTIONS: &[(&str, usize, usize)] = &[
    ("and", 1, usize::MAX),
    ("or", 1, usize::MAX),
    ("not", 1, 1),
    ("len", 1, 1),
    ("index", 1, usize::MAX),
    ("slice", 1, 4),
    ("print", 0, usize::MAX),
    ("printf", 1, usize::MAX),
    ("println", 0, usize::MAX),
    ("html", 0, usize::MAX),
    ("js", 0, usize::MAX),
    ("urlquery", 0, usize::MAX),
    ("eq", 1, usize::MAX),
    ("ne", 2, 2),
    ("lt", 2, 2),
    ("le", 2, 2),
    ("gt", 2, 2),
    ("ge", 2, 2),
    ("json", 1, 1),
    ("split", 2, 2),
    ("join", 2, 2),
    ("title", 1, 1),
    ("lower", 1, 1),
    ("upper", 1, 1),
    ("pad", 3, 3),
    ("truncate", 2, 2),
];

/// Whether there is a function of this name.
pub(super) fn exists(name: &str) -> bool {
    FUNCTIONS.iter().any(|(known, ..)| *known == name)
}

/// Calls a function.
pub(super) fn call(name: &str, args: Vec<Value>, mode: Mode) -> Result<Value, Problem> {
    let limits = FUNCTIONS.iter().find(|(known, ..)| *known == name);
    let (_, least, most) = limits.copied().unwrap_or((name, 0, usize::MAX));
    if args.len() < least || args.len() > most {
        let want = if least == most { least.to_string() } else { format!("at least {least}") };
        let message = format!("wrong number of args for {name}: want {want} got {}", args.len());
        return Err(Problem { message, place: Place::Count });
    }
    // In a table's heading every function of Docker's hands on the column's name.
    if mode == Mode::Header
        && matches!(
            name,
            "json" | "split" | "join" | "title" | "lower" | "upper" | "pad" | "truncate"
        )
    {
        return Ok(args.into_iter().next().unwrap_or_default());
    }
    run(name, args).map_err(|problem| match problem.place {
        Place::Call => format!("error calling {name}: {}", problem.message).into(),
        _ => problem,
    })
}

fn run(name: &str, mut args: Vec<Value>) -> Result<Value, Problem> {
    Ok(match name {
        // Short cuts were taken while the arguments were made.
        "and" | "or" => args.pop().unwrap_or_default(),
        "not" => Value::Bool(!args[0].is_true()),
        "len" => Value::Int(length(&args[0])?),
        "index" => {
            let mut value = args.remove(0);
            for key in args {
                value = index(&value, &key)?;
            }
            value
        }
        "slice" => slice(&args)?,
        "print" => Value::Text(printf::print(&args)),
        "println" => Value::Text(printf::println(&args)),
        "printf" => Value::Text(printf::printf(&args)),
        "html" => Value::Text(escape_html(&printf::print(&args))),
        "js" => Value::Text(escape_js(&printf::print(&args))),
        "urlquery" => Value::Text(escape_query(&printf::print(&args))),
        "eq" => {
            let first = &args[0];
            if args.len() == 1 {
                return Err("missing argument for comparison".into());
            }
            let mut equal = false;
            for other in &args[1..] {
                equal |= equals(first, other)?;
            }
            Value::Bool(equal)
        }
        "ne" => Value::Bool(!equals(&args[0], &args[1])?),
        "lt" => Value::Bool(order(&args[0], &args[1])? == Ordering::Less),
        "le" => Value::Bool(order(&args[0], &args[1])? != Ordering::Greater),
        "gt" => Value::Bool(order(&args[0], &args[1])? == Ordering::Greater),
        "ge" => Value::Bool(order(&args[0], &args[1])? != Ordering::Less),
        "json" => Value::Text(args[0].json()),
        "split" => {
            let (text, by) = (string(&args, 0)?, string(&args, 1)?);
            Value::List(if by.is_empty() {
                text.chars().map(|c| Value::Text(c.to_string())).collect()
            } else {
                text.split(by).map(Value::text).collect()
            })
        }
        "join" => match &args[0] {
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                Value::Text(items.join(string(&args, 1)?))
            }
            Value::Nil => Value::text(""),
            other => return Err(wrong_type(0, "[]string", other)),
        },
        "title" => Value::Text(title(string(&args, 0)?)),
        "lower" => Value::Text(string(&args, 0)?.to_lowercase()),
        "upper" => Value::Text(string(&args, 0)?.to_uppercase()),
        "pad" => {
            let text = string(&args, 0)?;
            if text.is_empty() {
                return Ok(Value::text(""));
            }
            let spaces =
                |count: &Value| " ".repeat(usize::try_from(count.int()).unwrap_or(0).min(4096));
            Value::Text(format!("{}{text}{}", spaces(&args[1]), spaces(&args[2])))
        }
        "truncate" => {
            let text = string(&args, 0)?;
            let length = usize::try_from(args[1].int()).unwrap_or(0);
            Value::Text(text.chars().take(length).collect())
        }
        _ => return Err("not a function".into()),
    })
}

fn string(args: &[Value], index: usize) -> Result<&str, Problem> {
    match &args[index] {
        Value::Text(text) => Ok(text),
        other => Err(wrong_type(index, "string", other)),
    }
}

fn wrong_type(index: usize, wanted: &str, value: &Value) -> Problem {
    let message = if *value == Value::Nil {
        format!("invalid value; expected {wanted}")
    } else {
        format!("wrong type for value; expected {wanted}; got {}", type_name(value))
    };
    Problem { message, place: Place::Argument(index) }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Bool(_) => "bool",
        Value::Int(_) | Value::Uint(_) => "int",
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::List(_) => "[]interface {}",
        Value::Map(_) => "map[string]interface {}",
        Value::Row(row) => row.type_name,
    }
}

fn length(value: &Value) -> Result<i64, String> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(entries) => entries.len(),
        Value::Nil => 0,
        other => return Err(format!("len of type {}", type_name(other))),
    };
    i64::try_from(length).map_err(|error| error.to_string())
}

fn position(key: &Value, length: usize) -> Result<usize, String> {
    let (Value::Int(_) | Value::Uint(_)) = key else {
        return Err(format!("cannot index slice/array with type {}", type_name(key)));
    };
    usize::try_from(key.int())
        .ok()
        .filter(|&position| position < length)
        .ok_or_else(|| format!("index out of range: {key}"))
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match value {
        Value::List(items) => Ok(items[position(key, items.len())?].clone()),
        Value::Text(text) => {
            let byte = text.as_bytes()[position(key, text.len())?];
            Ok(Value::Int(i64::from(byte)))
        }
        Value::Map(entries) => {
            let Value::Text(name) = key else {
                return Err(format!("value has type {}; should be string", type_name(key)));
            };
            if let Some(found) = value.find(name) {
                return Ok(found.clone());
            }
            // A missing key is the zero value of what the map holds.
            let holds_text = entries.iter().all(|(_, value)| matches!(value, Value::Text(_)));
            Ok(if holds_text { Value::text("") } else { Value::Nil })
        }
        Value::Nil => Err("index of untyped nil".into()),
        other => Err(format!("can't index item of type {}", type_name(other))),
    }
}

fn slice(args: &[Value]) -> Result<Value, String> {
    let length = usize::try_from(length(&args[0])?).unwrap_or(0);
    let bound = |index: usize, default: usize| match args.get(index) {
        None => Ok(default),
        Some(value) => usize::try_from(value.int())
            .ok()
            .filter(|&position| position <= length)
            .ok_or_else(|| format!("index out of range: {value}")),
    };
    let (from, to) = (bound(1, 0)?, bound(2, length)?);
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    match &args[0] {
        Value::Text(text) => {
            Ok(Value::Text(String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()))
        }
        Value::List(items) => Ok(Value::List(items[from..to].to_vec())),
        other => Err(format!("can't slice item of type {}", type_name(other))),
    }
}

fn equals(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Nil, _) | (_, Value::Nil) => Ok(a == b),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::List(_) | Value::Map(_) | Value::Row(_), _) => {
            Err(format!("non-comparable type {}", type_name(a)))
        }
        _ => Ok(order(a, b)? == Ordering::Equal),
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering, String> {
    let number = |value: &Value| matches!(value, Value::Int(_) | Value::Uint(_) | Value::Float(_));
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) => Ok(a.cmp(b)),
        _ if number(a) && number(b) => {
            a.float().partial_cmp(&b.float()).ok_or_else(|| "not a number".into())
        }
        _ => Err("incompatible types for comparison".into()),
    }
}

/// The first letter of each word in upper case.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.push(c);
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphanumeric() || c == '_' || c == '\'';
    }
    out
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

fn escape_js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out
}

fn escape_query(text: &str) -> String {
    silo_client::encode_query(text).replace("%20", "+")
}

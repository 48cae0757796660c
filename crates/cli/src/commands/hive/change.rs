//! Changes by the command line.

use silo_hive::{FileTime, Key, MAX_VALUE_NAME, Name, Value, ValueType};

use crate::failure::{Failure, Outcome};

/// A value from words: text, several texts, a number, or bytes in hexadecimal digits.
pub(super) fn value(name: &str, kind: &str, words: &[String]) -> Outcome<Value> {
    let kind = if kind.is_empty() { "SZ" } else { kind };
    let kind = ValueType::parse(kind).ok_or_else(|| {
        Failure::new(format!(
            "unknown value type {kind:?}: expected SZ, EXPAND_SZ, MULTI_SZ, DWORD, QWORD, BINARY, \
             or a number"
        ))
    })?;
    if name.encode_utf16().count() > MAX_VALUE_NAME {
        return Err(Failure::new("the name of a value is longer than 16383 characters"));
    }
    if kind == ValueType::MULTI_SZ {
        return Ok(Value::strings(name, words.iter().map(String::as_str)));
    }
    let word = match words {
        [] => "",
        [word] => word.as_str(),
        _ => return Err(Failure::new(format!("{kind} takes one word of data"))),
    };
    let wrong = || Failure::new(format!("invalid {kind} {word:?}"));
    Ok(match kind {
        ValueType::SZ => Value::string(name, word),
        ValueType::EXPAND_SZ => Value::expand_string(name, word),
        ValueType::LINK => Value { name: name.into(), ..Value::link(word) },
        ValueType::DWORD => {
            Value::dword(name, number(word).and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong)?)
        }
        ValueType::DWORD_BIG_ENDIAN => {
            let number = number(word).and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong)?;
            Value::new(name, kind, number.to_be_bytes().to_vec())
        }
        ValueType::QWORD => Value::qword(name, number(word).ok_or_else(wrong)?),
        kind => Value::new(name, kind, bytes(word).ok_or_else(wrong)?),
    })
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

/// Hexadecimal digits, two a byte, with or without commas or spaces.
fn bytes(word: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = word
        .chars()
        .filter(|letter| !matches!(letter, ',' | ' '))
        .map(|letter| u8::try_from(letter.to_digit(16)?).ok())
        .collect();
    let digits = digits?;
    let (pairs, rest) = digits.as_chunks();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Deletes a value or a key. The error says what is not there.
pub(super) fn delete(
    root: &mut Key,
    path: &str,
    name: Option<&String>,
    now: FileTime,
) -> Result<(), String> {
    let no_key = || format!("no key {path:?}");
    let Some(name) = name else {
        let path = path.trim_matches('\\');
        root.remove(path).ok_or_else(no_key)?;
        let parent = path.rsplit_once('\\').map_or("", |(parent, _)| parent);
        if let Some(parent) = root.get_mut(parent) {
            parent.last_write = now;
        }
        return Ok(());
    };
    let key = root.get_mut(path).ok_or_else(no_key)?;
    key.remove_value(&Name::from(name))
        .ok_or_else(|| format!("no value {name:?} in key {path:?}"))?;
    key.last_write = now;
    Ok(())
}

//! Hives as text for people.

use silo_hive::{Hive, Key, KeyFlags, Recovery, Semantics, Value, ValueType};

/// What of a tree is shown.
#[derive(Debug)]
pub(super) struct Options {
    /// How many levels below the first.
    pub(super) depth: u64,
    pub(super) values: bool,
    pub(super) verbose: bool,
}

/// What the file says about itself.
pub(super) fn header(hive: &Hive) -> String {
    let state = match hive.recovery {
        Recovery::Clean => "clean",
        Recovery::Replayed => "completed from its logs",
        Recovery::Dirty => "in use, without its last changes",
    };
    let kind = if hive.layered { "differencing hive" } else { "hive" };
    format!("; {kind}, version 1.{}, {state}, {} keys\n\n", hive.minor, hive.root.count())
}

/// A key and all below it.
pub(super) fn tree(out: &mut String, key: &Key, path: &str, options: &Options) {
    out.push_str(&format!("[{}]{}\n", escape(path), mark(key)));
    if options.verbose {
        properties(out, key);
    }
    if options.values {
        key.values().iter().for_each(|item| value(out, item, "  "));
    }
    if options.depth == 0 {
        return;
    }
    let below = Options { depth: options.depth - 1, ..*options };
    for subkey in key.subkeys() {
        tree(out, subkey, &join(path, &subkey.name().to_string()), &below);
    }
}

/// What a key does to the layers below.
fn mark(key: &Key) -> &'static str {
    match key.layer.semantics {
        Semantics::Merge => "",
        Semantics::Tombstone => " (deleted)",
        Semantics::SupersedeLocal => " (replaces values)",
        Semantics::SupersedeTree => " (replaces)",
    }
}

fn properties(out: &mut String, key: &Key) {
    let seconds = key.last_write.unix();
    let time = jiff::Timestamp::from_second(seconds).map_or("-".into(), |time| time.to_string());
    out.push_str(&format!("  ; written {time}\n"));
    if !key.class.is_empty() {
        out.push_str(&format!("  ; class {:?}\n", key.class.to_string()));
    }
    if key.flags != KeyFlags::NONE {
        out.push_str(&format!("  ; flags {:?}\n", key.flags));
    }
    if let Some(security) = &key.security {
        out.push_str(&format!("  ; security {}\n", hex(security)));
    }
}

/// A value in a line: name, type and data.
pub(super) fn value(out: &mut String, value: &Value, indent: &str) {
    let name = if value.name.is_empty() {
        "@".to_owned()
    } else {
        format!("\"{}\"", escape(&value.name.to_string()))
    };
    if value.tombstone {
        out.push_str(&format!("{indent}{name} (deleted)\n"));
    } else {
        out.push_str(
            &format!("{indent}{name} {} {}\n", value.kind, data(value)).replace(" \n", "\n"),
        );
    }
}

/// The data in a line.
fn data(value: &Value) -> String {
    if let Some(text) = whole_text(value) {
        return format!("\"{}\"", escape(&text));
    }
    if let Some(texts) = value.texts()
        && Value::strings("", texts.iter().map(String::as_str)).data == value.data
    {
        let texts: Vec<String> = texts.iter().map(|text| format!("\"{}\"", escape(text))).collect();
        return texts.join(", ");
    }
    match value.number() {
        Some(number) => format!("{number:#x} ({number})"),
        None => hex(&value.data),
    }
}

/// A text if it says all that is in the data.
fn whole_text(value: &Value) -> Option<String> {
    let text = value.text()?;
    let data = if value.kind == ValueType::LINK {
        Value::link(&text).data
    } else {
        Value::string("", &text).data
    };
    (data == value.data).then_some(text)
}

/// The data alone, for scripts: text as it is, a number in decimal digits, else bytes.
pub(super) fn plain(value: &Value) -> String {
    if let Some(text) = value.text() {
        return format!("{text}\n");
    }
    if let Some(texts) = value.texts() {
        return texts.into_iter().flat_map(|text| [text, "\n".to_owned()]).collect();
    }
    match value.number() {
        Some(number) => format!("{number}\n"),
        None => format!("{}\n", hex(&value.data)),
    }
}

/// What a difference changes, a line each: `+` new, `-` gone, `~` changed.
pub(super) fn changes(out: &mut String, base: &Key, delta: &Key, path: &str) {
    for item in delta.values() {
        let old = base.value_named(&item.name);
        let sign = match (item.tombstone, old) {
            (true, _) => '-',
            (false, Some(old)) if old == item => continue,
            (false, Some(_)) => '~',
            (false, None) => '+',
        };
        let shown = if item.tombstone { old.unwrap_or(item) } else { item };
        let mut line = String::new();
        value(&mut line, shown, "");
        out.push_str(&format!("{sign} [{}] {line}", escape(path)));
    }
    for subkey in delta.subkeys() {
        let path = join(path, &subkey.name().to_string());
        match (subkey.layer.semantics, base.subkey(subkey.name())) {
            (Semantics::Tombstone, _) => out.push_str(&format!("- [{}]\n", escape(&path))),
            (_, Some(old)) => changes(out, old, subkey, &path),
            (_, None) => added(out, subkey, &path),
        }
    }
}

fn added(out: &mut String, key: &Key, path: &str) {
    out.push_str(&format!("+ [{}]\n", escape(path)));
    for item in key.values() {
        out.push_str(&format!("+ [{}] ", escape(path)));
        value(out, item, "");
    }
    for subkey in key.subkeys() {
        added(out, subkey, &join(path, &subkey.name().to_string()));
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}\\{name}") }
}

/// Text without what would move a terminal's cursor or end the line.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        out.push_str(&format!("{byte:02x}"));
    }
    out
}

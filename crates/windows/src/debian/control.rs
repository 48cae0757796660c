//! Stanzas of `Name: value` lines, the form of Debian's indexes (Debian policy, section 5.1).

/// One stanza: borrowed fields in order.
#[derive(Debug, Default)]
pub struct Stanza<'a> {
    fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Stanza<'a> {
    /// The value of a field, by its name in any case; continuation lines are still in it.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// The first line of a field, without space around it.
    pub fn line(&self, name: &str) -> Option<&'a str> {
        self.get(name).map(|value| value.lines().next().unwrap_or("").trim())
    }
}

/// The stanzas of a text. Lines that are neither field nor continuation are passed over: what
/// is needed of a stanza is asked for by name anyway.
pub fn stanzas(text: &str) -> impl Iterator<Item = Stanza<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches('\n');
        if rest.is_empty() {
            return None;
        }
        let end = rest.find("\n\n").map_or(rest.len(), |at| at + 1);
        let (stanza, after) = rest.split_at(end);
        rest = after;
        Some(parse(stanza))
    })
}

fn parse(stanza: &str) -> Stanza<'_> {
    let mut fields = Vec::new();
    let mut at = 0;
    while at < stanza.len() {
        // A field ends before the next line that does not begin with a space.
        let mut end = at;
        loop {
            end = stanza[end..].find('\n').map_or(stanza.len(), |length| end + length + 1);
            if !stanza[end..].starts_with([' ', '\t']) {
                break;
            }
        }
        if let Some((name, value)) = stanza[at..end].split_once(':') {
            fields.push((name, value));
        }
        at = end;
    }
    Stanza { fields }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_are_split_and_fields_found() {
        let text = "\nPackage: a\nDepends: b,\n c\nSize: 3\n\n\nPackage: d\nno field\nsize:4";
        let all: Vec<_> = stanzas(text).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].line("package"), Some("a"));
        assert_eq!(all[0].get("Depends"), Some(" b,\n c\n"));
        assert_eq!(all[0].line("Size"), Some("3"));
        assert_eq!(all[1].line("Size"), Some("4"));
        assert_eq!(all[1].line("Depends"), None);
        assert_eq!(stanzas("\n\n").count(), 0);
    }
}

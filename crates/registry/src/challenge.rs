//! `WWW-Authenticate` (RFC 9110, section 11.6.1).

use std::collections::BTreeMap;

/// Headers longer than this are not looked at.
const MAX_HEADER: usize = 8192;

/// What a server wants to see before it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// `basic`, `bearer` or another, in small letters.
    pub(crate) scheme: String,
    /// Its parameters, by names in small letters.
    pub(crate) parameters: BTreeMap<String, String>,
}

impl Challenge {
    pub(crate) fn get(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }
}

/// Reads the challenges of one header. What cannot be read ends the list.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    if header.len() > MAX_HEADER {
        return found;
    }
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let Some((word, after)) = token(rest) else { break };
        let after = after.trim_start_matches([' ', '\t']);
        // `name=value` belongs to the last scheme, anything else is a new one.
        match after.strip_prefix('=') {
            Some(value) if !found.is_empty() => {
                let Some((value, after)) = parameter(value.trim_start_matches([' ', '\t'])) else {
                    break;
                };
                if let Some(last) = found.last_mut() {
                    last.parameters.entry(word.to_ascii_lowercase()).or_insert(value);
                }
                rest = after;
            }
            Some(_) => break,
            None => {
                let scheme = word.to_ascii_lowercase();
                found.push(Challenge { scheme, parameters: BTreeMap::new() });
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    found
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A value, in quotes or not.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(header: &str) -> Vec<String> {
        let show = |challenge: &Challenge| {
            let parameters: Vec<String> = challenge
                .parameters
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            format!("{} {}", challenge.scheme, parameters.join(";")).trim_end().to_owned()
        };
        parse(header).iter().map(show).collect()
    }

    #[test]
    fn challenges_of_registries() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull""#,
                &[
                    "bearer realm=https://auth.docker.io/token;scope=repository:library/busybox:pull;service=registry.docker.io",
                ][..],
            ),
            (r#"Basic realm="Registry Realm""#, &["basic realm=Registry Realm"]),
            (r#"BASIC REALM=x"#, &["basic realm=x"]),
            (
                r#"Bearer realm="https://a/t", error="invalid_token" , Basic realm="b\"c""#,
                &["bearer error=invalid_token;realm=https://a/t", r#"basic realm=b"c"#],
            ),
            (r#"Bearer scope="repository:a:pull,push""#, &["bearer scope=repository:a:pull,push"]),
            ("Negotiate, Basic realm=x", &["negotiate", "basic realm=x"]),
            (r#"Bearer realm = "a" ,scope="#, &["bearer realm=a;scope="]),
            (r#"Bearer realm="a",realm="b""#, &["bearer realm=a"]),
            (r#"Bearer realm="unfinished"#, &["bearer"]),
            ("=x", &[]),
            ("", &[]),
            ("\u{e9}", &[]),
        ] {
            assert_eq!(show(header), expected, "{header}");
        }
        assert!(show(&format!("Basic realm={}", "x".repeat(MAX_HEADER))).is_empty());
    }
}

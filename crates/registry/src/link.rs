//! `Link` headers, by which lists go on (RFC 8288).

/// Headers longer than this are not looked at.
const MAX_HEADER: usize = 8192;

/// The reference of the link whose relation is `next`.
pub(crate) fn next(header: &str) -> Option<&str> {
    if header.len() > MAX_HEADER {
        return None;
    }
    let mut rest = header;
    loop {
        let start = rest.find('<')?;
        let end = start + rest[start..].find('>')?;
        let target = &rest[start + 1..end];
        let after = &rest[end + 1..];
        let parameters = &after[..after.find('<').unwrap_or(after.len())];
        let is_next = parameters.split([';', ',']).any(|parameter| {
            let Some((name, value)) = parameter.split_once('=') else { return false };
            let value = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel")
                && value.split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Some(target);
        }
        rest = &after[parameters.len()..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page() {
        for (header, expected) in [
            (r#"</v2/a/tags/list?last=b&n=2>; rel="next""#, Some("/v2/a/tags/list?last=b&n=2")),
            ("<https://h/x>;rel=next", Some("https://h/x")),
            (r#"</a>; rel="prev", </b>; rel="last next""#, Some("/b")),
            (r#"</a>; rel="prev""#, None),
            ("</a>", None),
            ("/a; rel=next", None),
            ("</a; rel=next", None),
            ("", None),
        ] {
            assert_eq!(next(header), expected, "{header}");
        }
    }
}

//! Patterns against the regular expressions that the originals make of them, and files that are
//! anything at all.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use regex_lite::Regex;
use silo_dockerfile::Span;
use silo_dockerfile::expand::Expander;
use silo_dockerfile::ignore::{Parent, Patterns, clean};
use silo_dockerfile::{parse, syntax};

/// What a shell's pattern is as a regular expression.
fn shell_regex(pattern: &str, longest: bool, anchored: bool) -> Regex {
    let mut out = String::from(if anchored { "^" } else { "" });
    for character in pattern.chars() {
        match character {
            '*' => out.push_str(if longest { ".*" } else { ".*?" }),
            '?' => out.push('.'),
            _ => out.push_str(&regex_lite::escape(&character.to_string())),
        }
    }
    Regex::new(&out).unwrap()
}

/// What a pattern of an ignore file is as a regular expression. Without wildcards, and with
/// `**` at one end only, the original compares texts.
fn ignore_matches(pattern: &str, path: &str) -> bool {
    let plain = |text: &str| !text.contains(['*', '?']);
    if plain(pattern) {
        return pattern == path;
    }
    if let Some(suffix) = pattern.strip_prefix("**").filter(|suffix| plain(suffix)) {
        return path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path);
    }
    if let Some(prefix) = pattern.strip_suffix("**").filter(|prefix| plain(prefix)) {
        return path.starts_with(prefix);
    }
    let mut out = String::from("^");
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("**") {
            rest = behind.strip_prefix('/').unwrap_or(behind);
            out.push_str(if rest.is_empty() { ".*" } else { "(.*/)?" });
            continue;
        }
        match first {
            '*' => out.push_str("[^/]*"),
            '?' => out.push_str("[^/]"),
            _ => out.push_str(&regex_lite::escape(&first.to_string())),
        }
        rest = &rest[first.len_utf8()..];
    }
    out.push('$');
    Regex::new(&out).unwrap().is_match(path)
}

fn expand(word: &str, value: &str) -> String {
    Expander::with_char('\\').word(word, &|_| Some(value.to_owned())).unwrap()
}

fn reversed(text: &str) -> String {
    text.chars().rev().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn prefixes_and_suffixes(pattern in "[ab*?\n]{0,8}", value in "[ab\n]{0,12}") {
        for longest in [false, true] {
            let cut = |pattern: &str, value: &str| {
                let regex = shell_regex(pattern, longest, true);
                let end = regex.find(value).map_or(0, |found| found.end());
                value[end..].to_owned()
            };
            let (hash, percent) = if longest { ("##", "%%") } else { ("#", "%") };
            let found = expand(&format!("${{x{hash}{pattern}}}"), &value);
            prop_assert_eq!(found, cut(&pattern, &value));
            let found = expand(&format!("${{x{percent}{pattern}}}"), &value);
            prop_assert_eq!(reversed(&found), cut(&reversed(&pattern), &reversed(&value)));
        }
    }

    #[test]
    fn replacements(pattern in "[ab*?\n]{1,8}", value in "[ab\n]{0,12}") {
        let regex = shell_regex(&pattern, true, false);
        let found = expand(&format!("${{x/{pattern}/<>}}"), &value);
        prop_assert_eq!(found, regex.replacen(&value, 1, "<>"));
        let found = expand(&format!("${{x//{pattern}/<>}}"), &value);
        prop_assert_eq!(found, regex.replace_all(&value, "<>"));
    }

    #[test]
    fn ignored_paths(pattern in "[ab/*?]{1,8}", path in "[ab]{1,2}(/[ab]{1,2}){0,3}") {
        let pattern = clean(&pattern);
        let patterns = Patterns::new([&pattern]).unwrap();
        let (matched, _) = patterns.matches_in(&path, Some(&Parent::default()));
        prop_assert_eq!(matched, ignore_matches(&pattern, &path), "{} {}", pattern, path);
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        let any = above.chain([path.as_str()]).any(|path| ignore_matches(&pattern, path));
        prop_assert_eq!(patterns.matches(&path), any, "{} {}", pattern, path);
    }

    #[test]
    fn any_text(text in "(([A-Z]{0,2}|FROM a|RUN|COPY|ENV|ARG|LABEL|ONBUILD|HEALTHCHECK CMD|<<A|A|#|[\\\\\"' =$\\[\\]{}a-c-]){0,6}[\\\\\n]){0,6}") {
        let lines = u32::try_from(text.matches('\n').count() + 1).unwrap();
        let inside = |span: Span| span.start_line <= span.end_line && span.end_line <= lines;
        if let Ok(tree) = syntax::parse(text.as_bytes()) {
            prop_assert!(tree.nodes.iter().all(|node| inside(node.span())));
        }
        match parse(text.as_bytes()) {
            Ok(file) => {
                let stages = file.stages.iter().map(|stage| stage.span);
                let inner = file.stages.iter().flat_map(|stage| &stage.instructions);
                prop_assert!(stages.chain(inner.map(|located| located.span)).all(inside));
            }
            Err(error) => {
                prop_assert!(error.span.is_none_or(inside));
                drop(error.render("Dockerfile", text.as_bytes()));
            }
        }
    }
}

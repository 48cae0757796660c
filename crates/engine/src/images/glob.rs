//! Patterns of the `reference` filter: Go's `path.Match`.

/// Does the whole text match? `None` when the pattern is malformed.
pub(super) fn matches(pattern: &str, text: &str) -> Option<bool> {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    check(&pattern)?;
    let (mut p, mut t) = (0, 0);
    // Where to go on when a star has to take one more character.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if p == pattern.len() && t == text.len() {
            return Some(true);
        }
        let step = match pattern.get(p) {
            Some('*') => {
                retry = Some((p, t));
                p += 1;
                continue;
            }
            Some('?') => text.get(t).filter(|&&c| c != '/').map(|_| 1),
            Some('[') => text.get(t).filter(|&&c| c != '/').and_then(|&c| class(&pattern[p..], c)),
            Some('\\') => (text.get(t) == pattern.get(p + 1)).then_some(2),
            Some(c) => (text.get(t) == Some(c)).then_some(1),
            None => None,
        };
        if let Some(step) = step {
            p += step;
            t += 1;
            continue;
        }
        match retry {
            // A star takes everything but a slash.
            Some((star, start)) if text.get(start).is_some_and(|&c| c != '/') => {
                retry = Some((star, start + 1));
                (p, t) = (star + 1, start + 1);
            }
            _ => return Some(false),
        }
    }
}

/// The length of the class at the start of `pattern` if it has the character.
fn class(pattern: &[char], wanted: char) -> Option<usize> {
    let mut at = 1;
    let negated = pattern.get(at) == Some(&'^');
    at += usize::from(negated);
    let (mut found, start) = (false, at);
    while at == start || pattern.get(at) != Some(&']') {
        let low = member(pattern, &mut at)?;
        let high = if pattern.get(at) == Some(&'-') {
            at += 1;
            member(pattern, &mut at)?
        } else {
            low
        };
        found |= (low..=high).contains(&wanted);
    }
    (found != negated).then_some(at + 1)
}

fn member(pattern: &[char], at: &mut usize) -> Option<char> {
    if pattern.get(*at) == Some(&'\\') {
        *at += 1;
    }
    let member = *pattern.get(*at)?;
    *at += 1;
    Some(member)
}

/// `None` for an open class or a trailing backslash.
fn check(pattern: &[char]) -> Option<()> {
    let mut at = 0;
    while let Some(c) = pattern.get(at) {
        at += match c {
            '\\' => pattern.get(at + 1).map(|_| 2)?,
            '[' => {
                let mut end = at + 1 + usize::from(pattern.get(at + 1) == Some(&'^'));
                let start = end;
                while end == start || *pattern.get(end)? != ']' {
                    if matches!(pattern.get(end), Some('-' | ']')) && end == start {
                        return None;
                    }
                    member(pattern, &mut end)?;
                    if pattern.get(end) == Some(&'-') {
                        end += 1;
                        if pattern.get(end) == Some(&']') {
                            return None;
                        }
                        member(pattern, &mut end)?;
                    }
                }
                end + 1 - at
            }
            _ => 1,
        };
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_matches() {
        for (pattern, text, expected) in [
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "ab/c", Some(false)),
            ("a*/b", "abc/b", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[^b-d]", "abc", Some(false)),
            ("ab[^e-g]", "abc", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a?b", "a/b", Some(false)),
            ("[\\]a]", "]", Some(true)),
            ("busybox:*", "busybox:latest", Some(true)),
            ("[]a]", "]", None),
            ("[a", "a", None),
            ("[a-]", "-", None),
            ("a\\", "a", None),
            ("", "", Some(true)),
            ("", "a", Some(false)),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}

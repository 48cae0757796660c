use super::*;

#[test]
fn files() {
    let text = "\u{feff}# comment\n\n  a/b/ \n/root\n! /x/../y \n!\n #no comment\n./c//d\r\n";
    assert_eq!(lines(text.as_bytes()).unwrap(), ["a/b", "root", "!y", "!", "#no comment", "c/d"]);
    assert_eq!(lines(b"/").unwrap(), ["/"]);
    assert_eq!(Patterns::parse(b"!").unwrap_err(), Error::BareException);
    assert!(matches!(Patterns::parse(b"[a"), Err(Error::Pattern { .. })));
    let long = "a".repeat(crate::syntax::MAX_LINE + 1);
    assert_eq!(lines(format!("a\n{long}").as_bytes()), Err(Error::Line(2)));
}

#[test]
fn cleaning() {
    for (path, cleaned) in [
        ("", "."),
        ("a//b/./c/", "a/b/c"),
        ("a/../../b", "../b"),
        ("/..//a", "/a"),
        ("/", "/"),
        ("..", ".."),
        ("a/..", "."),
    ] {
        assert_eq!(clean(path), cleaned, "{path}");
    }
}

#[test]
fn single_patterns() {
    for (pattern, path, matched) in [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "file", true),
        ("**/file", "dir/dir/file", true),
        ("**/file", "file", true),
        ("**/file", "xfile", false),
        ("**file", "xfile", true),
        ("**/**", "dir/file", true),
        ("**/**/*.txt", "a/b/c.txt", true),
        ("**/*.txt", "c.txt", true),
        ("**/*.txt2", "c.txt", false),
        ("dir/**", "dir/a/b", true),
        ("dir/**", "dir", false),
        ("dir/**", "xdir/a", false),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("a/**/b", "a/xb", false),
        ("a**/*.txt", "abc/d.txt", true),
        ("a**b", "a/x/b", true),
        ("x***b", "xyb", true),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aze", false),
        ("a[!b]", "ab", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("abc.def", "abcdef", false),
        ("abc?def", "abc/def", false),
        ("a\\*b", "a*b", true),
        ("a\\\\", "a\\", true),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/*bar", "x/foo/xbar", true),
        ("foo/**/bar", "foo/\n/bar", false),
        ("dir", "dir/file", true),
        ("d?r", "dir/sub/file", true),
        ("*", "dir/file", true),
        ("*/", "file", true),
        (".", "file", false),
        ("..", "file", false),
        ("dir/", "dir", true),
        ("/dir", "/dir/x", true),
    ] {
        let patterns = Patterns::new([pattern]).unwrap();
        assert_eq!(patterns.matches(path), matched, "{pattern} {path}");
        assert_eq!(patterns.matches_in(path, None).0, matched, "{pattern} {path}");
    }
}

#[test]
fn the_last_one_decides() {
    for (list, path, matched) in [
        (vec!["**", "!util/docker/web"], "util/docker/web/foo", false),
        (vec!["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true),
        (vec!["dir", "!dir/file"], "dir/file", false),
        (vec!["dir", "!dir/file"], "dir/other", true),
        (vec!["!dir/file", "dir"], "dir/file", true),
        (vec!["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true),
        (vec!["*.md", "!README*.md", "README-secret.md"], "README-x.md", false),
        (vec!["!a"], "a", false),
    ] {
        let patterns = Patterns::new(&list).unwrap();
        assert_eq!(patterns.matches(path), matched, "{list:?} {path}");
        // A walk finds the same, level by level.
        let mut parent = None;
        let mut found = false;
        for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
            let (matched, own) = patterns.matches_in(&path[..end], parent.as_ref());
            (found, parent) = (matched, Some(own));
        }
        assert_eq!(found, matched, "{list:?} {path}");
    }
}

#[test]
fn pruning() {
    for (list, directory, may) in [
        (vec!["a"], "a", false),
        (vec!["a", "!a/b"], "a", true),
        (vec!["a", "!b"], "a", false),
        (vec!["a", "!a/b/c"], "a/b", true),
        (vec!["a", "!a/b"], "a/b/c", true),
        (vec!["a", "!ab"], "a", false),
        (vec!["*", "!**/x"], "any", true),
        (vec!["*", "!d*/x"], "any", false),
        (vec!["*", "!a/*.x"], "a", true),
        (vec!["*", "!a/b*"], "a", true),
    ] {
        let patterns = Patterns::new(&list).unwrap();
        assert_eq!(patterns.may_except_in(directory), may, "{list:?} {directory}");
    }
}

#[test]
fn hostile_patterns_take_little_time() {
    let pattern = "**/a*".repeat(2000) + "b";
    let path = "a/".repeat(2000);
    let patterns = Patterns::new([pattern]).unwrap();
    assert!(!patterns.matches_in(&path, Some(&Parent::default())).0);
}

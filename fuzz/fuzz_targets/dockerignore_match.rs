//! Ignore files: single patterns against Go's other matcher, walks against single questions.
//! The input is an ignore file, an empty line, and paths.
#![no_main]

use libfuzzer_sys::fuzz_target;
use silo_dockerfile::glob::Glob;
use silo_dockerfile::ignore::{self, Parent, Patterns};

/// The answers for a path and all above it, as a walk gets them.
fn walk(patterns: &Patterns, path: &str) -> Vec<(usize, bool)> {
    let mut parent: Option<Parent> = None;
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    ends.map(|end| {
        let (matched, own) = patterns.matches_in(&path[..end], parent.as_ref());
        parent = Some(own);
        (end, matched)
    })
    .collect()
}

fuzz_target!(|text: &str| {
    let (list, paths) = text.split_once("\n\n").unwrap_or((text, "a/b\nb"));
    let Ok(patterns) = Patterns::parse(list.as_bytes()) else { return };
    for path in paths.lines().take(20) {
        let path = ignore::clean(path);
        let path = path.trim_start_matches('/');
        if path.is_empty() {
            continue;
        }
        let answers = walk(&patterns, path);
        if !patterns.has_exceptions() {
            let last = answers.last().is_some_and(|(_, matched)| *matched);
            assert_eq!(last, patterns.matches(path), "{path:?}");
        }
        // Where a walk may turn back there was nothing to find.
        let pruned =
            answers.iter().position(|(end, out)| *out && !patterns.may_except_in(&path[..*end]));
        if let Some(pruned) = pruned {
            assert!(answers[pruned..].iter().all(|(_, matched)| *matched), "{path:?}");
        }
        for (pattern, _) in patterns.iter() {
            // With classes that take a `/` the two differ in Go as well.
            let special =
                pattern.contains("**") || pattern.starts_with('!') || pattern.contains('[');
            // An exception is cleaned with its mark, so what is behind it need not be clean.
            if special || pattern != pattern.trim() || ignore::clean(pattern) != pattern {
                continue;
            }
            let (Ok(glob), Ok(single)) = (Glob::new(pattern), Patterns::new([pattern])) else {
                panic!("{pattern:?} is read in a list only");
            };
            let (matched, _) = single.matches_in(path, Some(&Parent::default()));
            assert_eq!(matched, glob.matches(path), "{pattern:?} {path:?}");
        }
    }
});

//! Variables in words: nothing makes expansion take long or give much, and what has no variables
//! and no quotes stays as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use silo_dockerfile::expand::{Expander, MAX_EXPANSION};

fuzz_target!(|input: (bool, bool, bool, bool, &str, &str)| {
    let (backtick, raw_quotes, raw_escapes, keep_unset, text, value) = input;
    let escape = if backtick { '`' } else { '\\' };
    let expander = Expander { raw_quotes, raw_escapes, keep_unset, ..Expander::with_char(escape) };
    let lookup = |name: &str| (name != "u").then(|| value.to_owned());
    if let Ok(expansion) = expander.expand(text, &lookup) {
        assert!(expansion.text.len() <= MAX_EXPANSION + text.len());
        assert!(expansion.words.iter().all(|word| !word.is_empty()));
        if !text.contains(['$', '\'', '"', escape, '\u{feff}']) {
            assert_eq!(expansion.text, text);
            // The spaces behind `<<` belong to the word.
            if !text.contains('<') {
                assert!(expansion.words.iter().map(String::as_str).eq(text.split_whitespace()));
            }
        }
        if !value.contains('u') {
            assert!(!expansion.matched.contains("u"));
        }
    }
    let heredoc = Expander::heredoc();
    if !text.contains(['$', '\\', '\u{feff}']) {
        assert_eq!(heredoc.word(text, &lookup).as_deref(), Ok(text));
    }
    drop(heredoc.word(text, &lookup));
});

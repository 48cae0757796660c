use super::*;

fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "a" => "value",
        "empty" => "",
        "path" => "/usr/local/bin:/bin",
        "spaced" => " x  y ",
        "file" => "archive.tar.gz",
        "star" => "a*b*c",
        _ => return None,
    };
    Some(value.to_owned())
}

fn word(text: &str) -> Result<String, String> {
    Expander::with_char('\\').word(text, &lookup).map_err(|error| error.message)
}

#[test]
fn modifiers() {
    for (text, expected) in [
        ("$a ${a}x $a.x $ax", "value valuex value.x "),
        ("${a:-x}${b:-x}${empty:-x}${empty-x}${b-x}", "valuexxx"),
        ("${a:+x}${b:+x}${empty:+y}${empty+x}${b+x}", "xx"),
        ("${a:?x}${a?x}${empty?x}", "valuevalue"),
        ("${b:-${c:-${a}}}", "value"),
        ("${b:-'q r'}", "q r"),
        (
            "${path#*/} ${path##*/} ${path%/*} ${path%%/*}",
            "usr/local/bin:/bin bin /usr/local/bin: ",
        ),
        ("${file%.gz} ${file%%.*} ${file#*.} ${file##*.}", "archive.tar archive tar.gz gz"),
        ("${path/bin/sbin} ${path//bin/sbin}", "/usr/local/sbin:/bin /usr/local/sbin:/sbin"),
        ("${path//\\//-}", "-usr-local-bin:-bin"),
        ("${a/value/\\}}", "\\}"),
        ("${star#a\\*} ${star//\\*/+}", "b*c a+b+c"),
        ("${b#x}${b/x/y}", ""),
        ("$$ $1x $? $", " x  $"),
    ] {
        assert_eq!(word(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn quotes() {
    for (text, expected) in [
        ("'$a' \"$a\" \\$a", "$a value $a"),
        ("\"\\$a \\\\ \\\" \\x\" \\x", "$a \\ \" \\x x"),
        ("'a\\' b", "a\\ b"),
        ("a\\", "a"),
        ("\"'$a'\"", "'value'"),
        ("a<b<<c<< d", "a<b<<c<< d"),
    ] {
        assert_eq!(word(text).as_deref(), Ok(expected), "{text}");
    }
    let backtick = Expander::new(Escape::Backtick);
    for (text, expected) in [("C:\\$a\\x", "C:\\value\\x"), ("`$a \"a`\"b\" `\\", "$a a\"b \\")] {
        assert_eq!(backtick.word(text, &lookup).unwrap(), expected, "{text}");
    }
    let raw = Expander { raw_quotes: true, keep_unset: true, ..Expander::with_char('\\') };
    for (text, expected) in [
        ("'$b' \"$b\" ${b:-x} $a", "'$b' \"$b\" ${b:-x} value"),
        ("${b/x/y}${b#x}", "${b/x/y}${b#x}"),
    ] {
        assert_eq!(raw.word(text, &lookup).unwrap(), expected, "{text}");
    }
    let heredoc = Expander::heredoc();
    assert_eq!(heredoc.word("it's \"$a\" \\$a\n", &lookup).unwrap(), "it's \"value\" $a\n");
}

#[test]
fn splitting() {
    let expander = Expander::with_char('\\');
    for (text, expected) in [
        ("a  b", vec!["a", "b"]),
        ("'a b' c", vec!["a b", "c"]),
        ("a\\ b", vec!["a b"]),
        ("x${spaced}y", vec!["x", "x", "y", "y"]),
        ("\"$spaced\"", vec![" x  y "]),
        ("x${b:-y}", vec!["xy"]),
        ("''", vec![]),
        ("", vec![]),
    ] {
        assert_eq!(expander.words(text, &lookup).unwrap(), expected, "{text}");
    }
}

#[test]
fn names() {
    let expansion = Expander::with_char('\\').expand("$a ${b:-$c} '$d' $é", &lookup).unwrap();
    assert_eq!(expansion.matched.iter().collect::<Vec<_>>(), ["a"]);
    assert_eq!(expansion.unmatched.iter().collect::<Vec<_>>(), ["b", "c", "é"]);
}

#[test]
fn refused() {
    for (text, message) in [
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${:-x}", "syntax error: bad substitution"),
        ("${{a}}", "syntax error: bad substitution"),
        ("${a:-x", "syntax error: missing '}'"),
        ("${a:", "syntax error: missing '}'"),
        ("${a", "unsupported modifier (\u{fffd}) in substitution"),
        ("${a=x}", "unsupported modifier (=) in substitution"),
        ("${a:=x}", "unsupported modifier (:=) in substitution"),
        ("${a:#x}", "unsupported modifier (:#) in substitution"),
        ("${a/x}", "syntax error: missing '/' in ${}"),
        ("${a/x/y", "syntax error: missing '}'"),
        ("${a#\\x}", "invalid pattern (\\x) in substitution: invalid escape '\\x'"),
        ("${b?}", "b: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${b:?no $a}", "b: no value"),
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ("\"a", "unexpected end of statement while looking for matching double-quote"),
    ] {
        let expected = format!("failed to process {}: {message}", quote::go(text));
        assert_eq!(word(text), Err(expected), "{text}");
    }
}

#[test]
fn bounds() {
    let deep = "${a:-".repeat(MAX_DEPTH) + &"}".repeat(MAX_DEPTH);
    assert!(word(&deep).unwrap_err().contains("nested more than"));
    let big = "x".repeat(MAX_VALUE);
    let expander = Expander::with_char('\\');
    let expand = |text: &str, value: &str| {
        expander.word(text, &|_| Some(value.to_owned())).map_err(|error| error.message)
    };
    assert!(expand(&"$big".repeat(15), &big).is_ok());
    let error = expand(&"$big".repeat(40), &big).unwrap_err();
    assert!(error.ends_with("the result is longer by more than 4194304 bytes"), "{error}");
    let error = expand("${big//x/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx}", &big).unwrap_err();
    assert!(error.ends_with("the result is longer by more than 4194304 bytes"), "{error}");
    let error = expand("$big", &(big.clone() + "x")).unwrap_err();
    assert!(error.ends_with("big has 131073 bytes, at most 131072 are used"), "{error}");
    let text = "x".repeat(MAX_EXPANSION * 2);
    assert_eq!(expand(&text, "").as_deref(), Ok(text.as_str()));
}

use super::*;

fn nodes(text: &str) -> Vec<Node> {
    parse(text.as_bytes()).unwrap().nodes
}

#[test]
fn continued_lines() {
    for (text, original) in [
        ("RUN a \\\n  b", "RUN a   b"),
        ("RUN a \\  \t\n b", "RUN a  b"),
        ("RUN a\\\r\nb\r\n", "RUN ab"),
        ("RUN a \\\n# comment\n  # another\n b", "RUN a  b"),
        ("RUN a \\\n\n b", "RUN a  b"),
        ("RUN a \\", "RUN a "),
        ("RUN a \\\\\nUSER b", "RUN a \\\\"),
        ("\\\nRUN a", "RUN a"),
        ("# escape=`\nRUN a `\n C:\\b\\", "RUN a  C:\\b\\"),
        ("RUN a \\\n\\\n\\\nb", "RUN a b"),
        ("\u{feff}RUN a", "RUN a"),
        ("  \t RUN a", "RUN a"),
        ("RUN a # no comment", "RUN a # no comment"),
    ] {
        assert_eq!(nodes(text)[0].original, original, "{text:?}");
    }
    let [first, second] = &nodes("\n\nRUN a \\\n# c\n\n b\n\n# x\nUSER d\n")[..] else { panic!() };
    assert_eq!((first.start_line, first.end_line), (3, 6));
    assert_eq!((second.start_line, second.end_line), (9, 9));
    assert_eq!(second.comments, ["x"]);
}

#[test]
fn directives() {
    let tree =
        parse(b"# syntax=a\n# ESCAPE = `\n# check=skip=all\n# escape=\\\nRUN a").unwrap_err();
    assert_eq!(tree.message, "only one escape parser directive can be used");
    assert_eq!(tree.span, Some(Span::new(4, 4)));
    let error = parse(b"#escape=x\nRUN a").unwrap_err();
    assert_eq!(error.message, "invalid escape token 'x' does not match ` or \\");
    for (text, escape) in [
        ("# escape=`\nRUN a", Escape::Backtick),
        ("\n# escape=`\nRUN a", Escape::Backslash),
        ("# comment\n# escape=`\nRUN a", Escape::Backslash),
        ("RUN a\n# escape=`", Escape::Backslash),
        ("  # escape=`\nRUN a", Escape::Backtick),
    ] {
        assert_eq!(parse(text.as_bytes()).unwrap().directives.escape, escape, "{text:?}");
    }
    let tree = parse(b"# syntax=a b\n# check=error=true\nRUN a").unwrap();
    assert_eq!(tree.directives.syntax.as_deref(), Some("a b"));
    assert_eq!(tree.directives.check.as_deref(), Some("error=true"));
}

#[test]
fn heredocs() {
    let text = "RUN <<EOF cat\na\n  EOF\nEOF\nCOPY <<-'A' <<B /c\n\t# a\r\n\tA\nb\nB\nUSER x\n";
    let nodes = nodes(text);
    assert_eq!(nodes.len(), 3);
    assert_eq!(nodes[0].heredocs[0].content, "a\n  EOF\n");
    let [a, b] = &nodes[1].heredocs[..] else { panic!() };
    assert_eq!((a.content.as_str(), a.chomp, a.expand), ("\t# a\r\n", true, false));
    assert_eq!(a.text(), "# a\r\n");
    assert_eq!((b.content.as_str(), b.chomp, b.expand), ("b\n", false, true));
    assert_eq!((nodes[1].start_line, nodes[1].end_line), (5, 9));
    assert_eq!(nodes[2].keyword, "USER");
}

#[test]
fn not_every_line_has_heredocs() {
    for text in [
        "CMD <<EOF\nUSER EOF",
        "RUN [\"<<EOF\"]\nUSER EOF",
        "ENTRYPOINT <<EOF\nUSER EOF",
        "RUN echo '<<EOF'\nUSER EOF",
        "ONBUILD CMD <<EOF\nUSER EOF",
    ] {
        assert_eq!(nodes(text).len(), 2, "{text}");
    }
    assert_eq!(nodes("ONBUILD RUN <<EOF\na\nEOF\n")[0].heredocs[0].content, "a\n");
    let error = parse(b"FROM a\nRUN <<EOF\na\n").unwrap_err();
    assert_eq!(error.message, "unterminated heredoc");
    assert_eq!(error.span, Some(Span::new(2, 3)));
}

#[test]
fn nothing_in_it() {
    for text in ["\n", "# a\n# b", "# escape=`"] {
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.message, "file with no instructions", "{text:?}");
    }
}

#[test]
fn long_lines() {
    let just = format!("RUN {}\nUSER a", "x".repeat(MAX_LINE - 4));
    assert_eq!(nodes(&just).len(), 2);
    let over = format!("FROM a\nRUN {}\nUSER a", "x".repeat(MAX_LINE - 3));
    let error = parse(over.as_bytes()).unwrap_err();
    assert_eq!(error.message, "dockerfile line greater than max allowed size of 65535");
    assert_eq!(error.span, Some(Span::new(2, 2)));
    let within = format!("FROM a\nCOPY <<E /f\n{}\nE\n", "x".repeat(MAX_LINE + 1));
    let error = parse(within.as_bytes()).unwrap_err();
    assert_eq!(error.message, "dockerfile line greater than max allowed size of 65535");
    assert_eq!(error.span, Some(Span::new(3, 3)));
}

#[test]
fn bytes_that_are_no_text() {
    let nodes = parse(b"# caf\xe9\nRUN \xff").unwrap().nodes;
    assert_eq!(nodes[0].args, ["\u{fffd}"]);
}

#[test]
fn warnings() {
    let tree = parse(b"FROM a\nRUN b \\\n\n c \\\n\n d\n").unwrap();
    assert_eq!(tree.warnings.len(), 1);
    assert_eq!(tree.warnings[0].span, Span::new(6, 6));
    assert_eq!(tree.warnings[0].short(), "NoEmptyContinuation: Empty continuation line (line 6)");
}

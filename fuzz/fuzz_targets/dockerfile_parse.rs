//! Dockerfiles: every place is in the text, and what is read means the same when it is written
//! down again.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use silo_dockerfile::ast::{Heredoc, Instruction, Located};
use silo_dockerfile::ignore::Patterns;
use silo_dockerfile::lint::{self, Base, Config, Context};
use silo_dockerfile::syntax::{self, Node};
use silo_dockerfile::{Expander, Span, parse, parse_trigger};

fn lookup(name: &str) -> Option<String> {
    (name.len() % 3 != 0).then(|| format!("v {name}/*"))
}

/// The file without comments, continued lines and spaces around.
fn print(nodes: &[Node], escape: char) -> String {
    let mut out = format!("# escape={escape}\n");
    for node in nodes {
        out.push_str(node.original.trim());
        out.push('\n');
        for Heredoc { content, name, .. } in &node.heredocs {
            out.push_str(content);
            out.push_str(name);
            out.push('\n');
        }
    }
    out
}

fn plain(mut nodes: Vec<Node>) -> Vec<Node> {
    for node in &mut nodes {
        node.comments.clear();
        (node.start_line, node.end_line) = (0, 0);
        node.original = node.original.trim().to_owned();
    }
    nodes
}

fuzz_target!(|text: &[u8]| {
    let lines = u32::try_from(text.iter().filter(|&&byte| byte == b'\n').count()).unwrap_or(0) + 1;
    let inside = |span: Span| {
        assert!(span.start_line <= span.end_line && span.end_line <= lines, "{span:?} of {lines}");
    };
    drop(silo_dockerfile::directive::detect_syntax(text));
    if let Ok(tree) = syntax::parse(text) {
        let escape = tree.directives.escape.char();
        tree.nodes.iter().for_each(|node| inside(node.span()));
        // A line that ends in an escape only because the file ends there would go on, and one
        // that begins in the middle of a continued comment would be one.
        let printable = |node: &Node| {
            let line = node.original.trim();
            !line.is_empty()
                && !line.ends_with(escape)
                && !line.starts_with('#')
                && node.heredocs.iter().all(|heredoc| !heredoc.name.contains(['\n', '\r']))
                && node.heredocs.iter().all(|h| h.content.is_empty() || h.content.ends_with('\n'))
        };
        if tree.nodes.iter().all(printable) {
            let printed = print(&tree.nodes, escape);
            let again = syntax::parse(printed.as_bytes());
            let again = again.unwrap_or_else(|error| panic!("{error}: {printed:?}"));
            assert_eq!(plain(again.nodes), plain(tree.nodes), "{printed:?}");
        }
    }
    let file = match parse(text) {
        Ok(file) => file,
        Err(error) => {
            error.span.into_iter().for_each(inside);
            drop(error.render("Dockerfile", text));
            return;
        }
    };
    let ignore = Patterns::new(["a*", "b/**"]).unwrap_or_default();
    let context = Context {
        args: &BTreeMap::new(),
        predefined: &[("TARGETPLATFORM".to_owned(), "linux/amd64".to_owned())],
        base: &|_| Some(Base::default()),
        platform: None,
        ignore: Some(&ignore),
        stages: None,
    };
    for warning in lint::check(&file, &Config::default(), &context).iter().chain(&file.warnings) {
        inside(warning.span);
        drop(warning.render("Dockerfile", text));
    }
    let expander = Expander::new(file.directives.escape);
    for stage in &file.stages {
        inside(stage.span);
        for Located { node, span, source, .. } in &stage.instructions {
            inside(*span);
            assert!(!source.contains('\n'));
            if let Instruction::OnBuild(text) = node {
                drop(parse_trigger(text));
            }
            drop(node.clone().expand(&expander, &lookup));
        }
    }
});

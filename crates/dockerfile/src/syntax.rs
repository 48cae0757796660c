//! From text to lines that are split into words: what can be said before any instruction is
//! understood. Most callers want [`crate::parse`].

use crate::ast::{Heredoc, Span};
use crate::directive::{Directives, Escape, Reader};
use crate::error::ParseError;
use crate::heredoc;
use crate::lint::{self, Warning};
use crate::words;

/// The longest line, in bytes.
pub const MAX_LINE: usize = 65535;

/// One instruction, split into words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// The first word.
    pub keyword: String,
    /// The words that begin with `--`, up to the first that does not.
    pub flags: Vec<String>,
    /// The other words. `ENV` and `LABEL`: key, value and the character between them, in turns.
    pub args: Vec<String>,
    /// The words are a JSON array's.
    pub json: bool,
    /// The instruction in an `ONBUILD`.
    pub child: Option<Box<Node>>,
    /// The here-documents.
    pub heredocs: Vec<Heredoc>,
    /// The line with its continuations, as it was.
    pub original: String,
    /// The comments directly above, without `#`.
    pub comments: Vec<String>,
    /// The first line.
    pub start_line: u32,
    /// The last line.
    pub end_line: u32,
}

impl Node {
    /// The lines.
    pub fn span(&self) -> Span {
        Span::new(self.start_line, self.end_line)
    }

    /// The words, with those of the instruction in an `ONBUILD` behind it.
    pub fn all_args(&self) -> Vec<String> {
        let mut args = self.args.clone();
        if let Some(child) = &self.child {
            args.push(child.keyword.clone());
            args.extend(child.all_args());
        }
        args
    }

    fn may_have_heredocs(&self) -> bool {
        let node = match &self.child {
            Some(child) if self.keyword.eq_ignore_ascii_case("onbuild") => child,
            _ => self,
        };
        let known = ["add", "copy", "run"];
        known.iter().any(|known| node.keyword.eq_ignore_ascii_case(known)) && !node.json
    }
}

/// A file, split into words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The directives of its head.
    pub directives: Directives,
    /// The instructions, at least one.
    pub nodes: Vec<Node>,
    /// Lines that continue and are empty.
    pub warnings: Vec<Warning>,
}

/// The physical lines with their ends; stops before a line that is too long.
struct Lines<'a> {
    rest: &'a str,
    /// How many lines there were.
    number: u32,
    too_long: bool,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() || self.too_long {
            return None;
        }
        let end = self.rest.find('\n').map_or(self.rest.len(), |end| end + 1);
        let (line, rest) = self.rest.split_at(end);
        if line.strip_suffix('\n').unwrap_or(line).len() > MAX_LINE {
            self.too_long = true;
            return None;
        }
        self.rest = rest;
        self.number = self.number.saturating_add(1);
        Some(line)
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// Takes the continuation off the end of a line: true, when the line goes on.
fn continued(line: &str, escape: char) -> (&str, bool) {
    let Some(text) = line.trim_end_matches([' ', '\t']).strip_suffix(escape) else {
        return (line, false);
    };
    // A doubled escape at the end is the character itself.
    if text.ends_with(escape) { (line, false) } else { (text, true) }
}

/// Reads a file. Bytes that are not UTF-8 become replacement characters.
pub fn parse(text: &[u8]) -> Result<Tree, ParseError> {
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut lines = Lines { rest: text, number: 0, too_long: false };
    let mut directives = Directives::default();
    let mut reader = Reader::new("#");
    let mut tree =
        Tree { directives: Directives::default(), nodes: Vec::new(), warnings: Vec::new() };
    let mut comments: Vec<String> = Vec::new();

    while let Some(raw) = lines.next() {
        let start = lines.number;
        let line = raw.trim_end_matches(['\r', '\n']).trim_start();
        let found = reader.line(line).map_err(|error| error.at(Span::new(start, start)))?;
        if let Some(directive) = found {
            directives.set(directive).map_err(|error| error.at(Span::new(start, start)))?;
            continue;
        }
        if is_comment(line) {
            // As the original does it: the first character of the line is not always the `#`.
            let comment = raw.get(1..).unwrap_or_default().trim();
            if comment.is_empty() {
                comments.clear();
            } else {
                comments.push(comment.to_owned());
            }
            continue;
        }
        let (line, mut more) = continued(line, directives.escape.char());
        if !more && line.is_empty() {
            continue;
        }
        let mut logical = line.to_owned();
        let mut has_empty = false;
        while more {
            let Some(raw) = lines.next() else { break };
            // Spaces at the start of a continued line belong to it.
            let line = raw.trim_end_matches(['\r', '\n']);
            if is_comment(line) {
                continue;
            }
            if line.trim_start().is_empty() {
                has_empty = true;
                continue;
            }
            let (line, goes_on) = continued(line, directives.escape.char());
            logical.push_str(line);
            more = goes_on;
        }
        if has_empty {
            tree.warnings.push(lint::empty_continuation(&logical, lines.number));
        }
        let at = |error: ParseError, end| error.at(Span::new(start, end));
        let mut node =
            node(&logical, directives.escape).map_err(|error| at(error, lines.number))?;
        node.comments = std::mem::take(&mut comments);
        if node.may_have_heredocs() && logical.contains("<<") {
            let heredocs = heredoc::in_line(&logical).map_err(|error| at(error, lines.number))?;
            for mut heredoc in heredocs {
                if !read_heredoc(&mut lines, &mut heredoc) {
                    if lines.too_long {
                        return Err(too_long(&lines));
                    }
                    let error = ParseError::about("unterminated heredoc", "<<");
                    return Err(at(error, lines.number));
                }
                node.heredocs.push(heredoc);
            }
        }
        node.start_line = start;
        node.end_line = lines.number;
        tree.nodes.push(node);
    }
    let end = Span::new(lines.number, lines.number);
    if tree.nodes.is_empty() {
        return Err(ParseError::new("file with no instructions").at(end));
    }
    if lines.too_long {
        return Err(too_long(&lines));
    }
    tree.directives = directives;
    Ok(tree)
}

/// The next line is longer than any may be.
fn too_long(lines: &Lines<'_>) -> ParseError {
    let line = lines.number + 1;
    // buildkit wording
    let message = format!("dockerfile line greater than max allowed size of {MAX_LINE}");
    ParseError::new(message).at(Span::new(line, line))
}

/// Reads lines up to the one that ends the here-document; false, when there is none.
fn read_heredoc(lines: &mut Lines<'_>, heredoc: &mut Heredoc) -> bool {
    while let Some(raw) = lines.next() {
        let line = raw.trim_end_matches(['\r', '\n']);
        let line = if heredoc.chomp { line.trim_start_matches('\t') } else { line };
        if line == heredoc.name {
            return true;
        }
        heredoc.content.push_str(raw);
    }
    false
}

/// Splits a logical line as its instruction wants it.
fn node(line: &str, escape: Escape) -> Result<Node, ParseError> {
    node_at_depth(line, escape.char(), 0)
}

/// How many `ONBUILD` may stand in a row before the rest is not looked at: it is wrong anyway.
const MAX_ONBUILD: usize = 2;

fn node_at_depth(line: &str, escape: char, depth: usize) -> Result<Node, ParseError> {
    let split = words::split_line(line, escape);
    let rest = split.rest;
    let keyword = split.keyword.to_ascii_lowercase();
    let mut node = Node {
        keyword: split.keyword.to_owned(),
        flags: split.flags,
        original: line.to_owned(),
        ..Node::default()
    };
    match keyword.as_str() {
        "env" | "label" => {
            for (key, value, legacy) in words::pairs(rest, &keyword.to_uppercase(), escape)? {
                let separator = if legacy { "" } else { "=" };
                node.args.extend([key, value, separator.to_owned()]);
            }
        }
        "arg" => node.args = words::quoted_words(rest, escape),
        "add" | "copy" | "volume" => match words::json(rest)? {
            Some(args) => (node.args, node.json) = (args, true),
            None => node.args = blank_words(rest),
        },
        "expose" | "from" => node.args = blank_words(rest),
        "cmd" | "entrypoint" | "run" | "shell" => (node.args, node.json) = maybe_json(rest)?,
        "healthcheck" => {
            let kind = rest.split(char::is_whitespace).next().unwrap_or_default();
            if !kind.is_empty() {
                let (args, json) = maybe_json(rest[kind.len()..].trim_start())?;
                node.args.push(kind.to_owned());
                node.args.extend(args);
                node.json = json;
            }
        }
        "onbuild" if !rest.is_empty() => {
            if depth < MAX_ONBUILD {
                node.child = Some(Box::new(node_at_depth(rest, escape, depth + 1)?));
            } else {
                node.args.push(rest.to_owned());
            }
        }
        "onbuild" => {}
        "maintainer" | "stopsignal" | "user" | "workdir" => {
            if !rest.is_empty() {
                node.args.push(rest.to_owned());
            }
        }
        // Not an instruction; whoever reads the tree says so.
        _ => node.args.push(String::new()),
    }
    Ok(node)
}

fn blank_words(rest: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = rest;
    while let Some((word, behind)) = words::split_blank(rest) {
        words.push(word.to_owned());
        rest = behind;
    }
    if !rest.is_empty() {
        words.push(rest.to_owned());
    }
    words
}

/// A JSON array, or the text as one word.
fn maybe_json(rest: &str) -> Result<(Vec<String>, bool), ParseError> {
    Ok(match words::json(rest)? {
        Some(args) => (args, true),
        None if rest.is_empty() => (Vec::new(), false),
        None => (vec![rest.to_owned()], false),
    })
}

#[cfg(test)]
mod tests;

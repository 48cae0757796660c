//! Tokens into a tree.

use super::functions;
use super::lex::{Kind, Token, lex};
use crate::value::Value;

/// How deep blocks and parentheses may nest.
const MAX_DEPTH: usize = 200;

/// One piece of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If { pipe: Pipe, body: Vec<Node>, other: Vec<Node> },
    With { pipe: Pipe, body: Vec<Node>, other: Vec<Node> },
    Range { pipe: Pipe, body: Vec<Node>, other: Vec<Node> },
    Break,
    Continue,
}

/// Commands whose results flow from left to right, and the variables that get the last one.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) variables: Vec<String>,
    /// Whether the variables are set (`=`) instead of declared (`:=`).
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
}

/// A function or value with its arguments.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) args: Vec<Operand>,
    pub(super) at: usize,
    pub(super) end: usize,
}

/// A value in a command.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) term: Term,
    /// Fields that are taken of the term, one after the other.
    pub(super) fields: Vec<String>,
    /// The position that errors show.
    pub(super) at: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What an operand begins with.
#[derive(Debug)]
pub(super) enum Term {
    Dot,
    Nil,
    Variable(String),
    Function(String),
    Constant(Value),
    Pipe(Pipe),
}

/// Parses a whole template.
pub(super) fn parse(source: &str) -> Result<Vec<Node>, String> {
    let error = |(at, message): (usize, String)| {
        let line = source[..at.min(source.len())].matches('\n').count() + 1;
        format!("template: :{line}: {message}")
    };
    let tokens = lex(source).map_err(error)?;
    let mut parser = Parser { tokens, next: 0, variables: vec!["$".into()], depth: 0, ranges: 0 };
    let (nodes, stop) = parser.nodes().map_err(error)?;
    match stop {
        Stop::End => Ok(nodes),
        Stop::Else(at) => Err(error((at, "unexpected {{else}}".into()))),
        Stop::Closed(at) => Err(error((at, "unexpected {{end}}".into()))),
    }
}

/// Whether `test` holds for the fields of any operand.
pub(super) fn any_field(nodes: &[Node], test: &mut dyn FnMut(&[String]) -> bool) -> bool {
    fn in_pipe(pipe: &Pipe, test: &mut dyn FnMut(&[String]) -> bool) -> bool {
        pipe.commands.iter().flat_map(|command| &command.args).any(|operand| {
            test(&operand.fields)
                || matches!(&operand.term, Term::Pipe(pipe) if in_pipe(pipe, test))
        })
    }
    nodes.iter().any(|node| match node {
        Node::Text(_) | Node::Break | Node::Continue => false,
        Node::Action(pipe) => in_pipe(pipe, test),
        Node::If { pipe, body, other }
        | Node::With { pipe, body, other }
        | Node::Range { pipe, body, other } => {
            in_pipe(pipe, test) || any_field(body, test) || any_field(other, test)
        }
    })
}

type Fault = (usize, String);

/// What ended a list of nodes.
enum Stop {
    End,
    Else(usize),
    Closed(usize),
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    /// Names of the variables in scope.
    variables: Vec<String>,
    depth: usize,
    ranges: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        // The last token is `End`, which is never passed.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        if self.next < self.tokens.len() - 1 {
            self.next += 1;
        }
        token
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.take();
        }
    }

    fn enter(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err((self.peek().at, "template nesting is too deep".into()));
        }
        Ok(())
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Stop), Fault> {
        self.enter()?;
        let mut nodes = Vec::new();
        let stop = loop {
            let token = self.take();
            match token.kind {
                Kind::Text(text) => nodes.push(Node::Text(text)),
                Kind::End => break Stop::End,
                _ => {
                    self.skip_space();
                    let word = match &self.peek().kind {
                        Kind::Word(word) => word.clone(),
                        _ => String::new(),
                    };
                    match word.as_str() {
                        "end" => {
                            let at = self.take().at;
                            self.close("end")?;
                            break Stop::Closed(at);
                        }
                        "else" => {
                            let at = self.take().at;
                            break Stop::Else(at);
                        }
                        _ => nodes.push(self.action(&word)?),
                    }
                }
            }
        };
        self.depth -= 1;
        Ok((nodes, stop))
    }

    fn action(&mut self, word: &str) -> Result<Node, Fault> {
        match word {
            "if" | "with" | "range" => {
                self.take();
                self.block(word)
            }
            "break" | "continue" => {
                let at = self.take().at;
                if self.ranges == 0 {
                    return Err((at, format!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
                self.close(word)?;
                Ok(if word == "break" { Node::Break } else { Node::Continue })
            }
            "define" | "template" | "block" => {
                Err((self.peek().at, format!("unexpected {{{{{word}}}}}")))
            }
            _ => Ok(Node::Action(self.pipe("command", false)?)),
        }
    }

    /// An `if`, `with` or `range` after its keyword, up to its `end`.
    fn block(&mut self, word: &str) -> Result<Node, Fault> {
        self.enter()?;
        let scope = self.variables.len();
        let pipe = self.pipe(word, word == "range")?;
        self.ranges += usize::from(word == "range");
        let (body, stop) = self.nodes()?;
        self.ranges -= usize::from(word == "range");
        let other = match stop {
            Stop::Closed(_) => Vec::new(),
            Stop::End => return Err((self.peek().at, "unexpected EOF".into())),
            Stop::Else(_) => {
                self.skip_space();
                let next = match &self.peek().kind {
                    Kind::Word(next) => next.clone(),
                    _ => String::new(),
                };
                if next == word && word != "range" {
                    // `else if` closes with the outer block's `end`.
                    self.take();
                    vec![self.block(word)?]
                } else {
                    self.close("else")?;
                    match self.nodes()? {
                        (other, Stop::Closed(_)) => other,
                        (_, Stop::Else(at)) => {
                            return Err((at, "expected end; found {{else}}".into()));
                        }
                        (_, Stop::End) => return Err((self.peek().at, "unexpected EOF".into())),
                    }
                }
            }
        };
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok(match word {
            "if" => Node::If { pipe, body, other },
            "with" => Node::With { pipe, body, other },
            _ => Node::Range { pipe, body, other },
        })
    }

    fn close(&mut self, context: &str) -> Result<(), Fault> {
        self.skip_space();
        let token = self.take();
        if token.kind == Kind::Right {
            return Ok(());
        }
        Err((token.at, format!("unexpected {} in {context}", describe(&token.kind))))
    }

    /// A pipeline with its closing `}}`.
    fn pipe(&mut self, context: &str, two_variables: bool) -> Result<Pipe, Fault> {
        let (variables, assigns) = self.declaration(two_variables)?;
        let commands = self.commands(context, &Kind::Right)?;
        self.take();
        if !assigns {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipe { variables, assigns, commands })
    }

    /// `$a :=`, `$a =` or `$a, $b :=` at the beginning of a pipeline.
    fn declaration(&mut self, two_variables: bool) -> Result<(Vec<String>, bool), Fault> {
        self.skip_space();
        let start = self.next;
        let mut variables = Vec::new();
        while let Kind::Variable(name) = self.peek().kind.clone() {
            let at = self.take().at;
            self.skip_space();
            variables.push(name.clone());
            match self.peek().kind {
                Kind::Declare => {
                    self.take();
                    return Ok((variables, false));
                }
                Kind::Assign => {
                    self.take();
                    if !self.variables.contains(&name) {
                        return Err((at, format!("undefined variable {name:?}")));
                    }
                    return Ok((variables, true));
                }
                Kind::Mark(',') if two_variables && variables.len() == 1 => {
                    self.take();
                    self.skip_space();
                }
                _ => break,
            }
        }
        self.next = start;
        Ok((Vec::new(), false))
    }

    /// Commands up to, and without, the token `until`.
    fn commands(&mut self, context: &str, until: &Kind) -> Result<Vec<Command>, Fault> {
        let mut commands: Vec<Command> = Vec::new();
        loop {
            self.skip_space();
            let token = self.peek().clone();
            if token.kind == *until {
                if commands.is_empty() {
                    return Err((token.at, format!("missing value for {context}")));
                }
                return Ok(commands);
            }
            let command = self.command()?;
            if let [Operand { term: Term::Constant(_) | Term::Nil, .. }, ..] = command.args[..]
                && !commands.is_empty()
            {
                let message =
                    format!("non executable command in pipeline stage {}", commands.len() + 1);
                return Err((token.at, message));
            }
            commands.push(command);
            self.skip_space();
            if self.peek().kind == Kind::Mark('|') {
                self.take();
            }
        }
    }

    fn command(&mut self) -> Result<Command, Fault> {
        let at = self.peek().at;
        let mut args: Vec<Operand> = Vec::new();
        loop {
            self.skip_space();
            let token = self.peek().clone();
            match token.kind {
                Kind::Right | Kind::Mark('|' | ')') => break,
                Kind::Other(_)
                | Kind::Mark(',')
                | Kind::Declare
                | Kind::Assign
                | Kind::End
                | Kind::Left
                | Kind::Text(_) => {
                    let context = if args.is_empty() { "command" } else { "operand" };
                    return Err((
                        token.at,
                        format!("unexpected {} in {context}", describe(&token.kind)),
                    ));
                }
                _ => {}
            }
            let operand = self.operand()?;
            args.push(operand);
            let token = self.peek();
            match token.kind {
                Kind::Space | Kind::Right | Kind::Mark('|' | ')') => {}
                _ => {
                    return Err((
                        token.at,
                        format!("unexpected {} in operand", describe(&token.kind)),
                    ));
                }
            }
        }
        match args.last() {
            None => Err((at, "missing value for command".into())),
            Some(last) => Ok(Command { at, end: last.end, args }),
        }
    }

    fn operand(&mut self) -> Result<Operand, Fault> {
        let token = self.take();
        let start = token.at;
        let mut fields = Vec::new();
        let mut end = self.peek().at;
        let term = match token.kind {
            Kind::Dot => Term::Dot,
            Kind::Field(name) => {
                fields.push(name);
                Term::Dot
            }
            Kind::Variable(name) => {
                if !self.variables.contains(&name) {
                    return Err((start, format!("undefined variable {name:?}")));
                }
                Term::Variable(name)
            }
            Kind::Word(word) => match word.as_str() {
                "true" => Term::Constant(Value::Bool(true)),
                "false" => Term::Constant(Value::Bool(false)),
                "nil" => Term::Nil,
                _ if functions::exists(&word) => Term::Function(word),
                _ => return Err((start, format!("function {word:?} not defined"))),
            },
            Kind::Number(text) => Term::Constant(
                number(&text).ok_or((start, format!("bad number syntax: {text:?}")))?,
            ),
            Kind::Text2(text) => Term::Constant(Value::Text(text)),
            Kind::Mark('(') => {
                self.enter()?;
                let (variables, assigns) = self.declaration(false)?;
                let commands = self.commands("parenthesized pipeline", &Kind::Mark(')'))?;
                self.take();
                end = self.peek().at;
                self.depth -= 1;
                Term::Pipe(Pipe { variables, assigns, commands })
            }
            kind => return Err((start, format!("unexpected {} in operand", describe(&kind)))),
        };
        let mut at = start;
        while let Kind::Field(name) = self.peek().kind.clone() {
            // Go reports a chain at its second link.
            if at == start {
                at = self.peek().at;
            }
            self.take();
            fields.push(name);
            end = self.peek().at;
        }
        Ok(Operand { term, fields, at, start, end })
    }
}

fn number(text: &str) -> Option<Value> {
    let clean = text.replace('_', "");
    let (negative, digits) = match clean.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, clean.strip_prefix('+').unwrap_or(&clean)),
    };
    let radix = [("0x", 16), ("0X", 16), ("0o", 8), ("0b", 2)];
    let integer = match radix.iter().find(|(prefix, _)| digits.starts_with(prefix)) {
        Some((_, radix)) => i64::from_str_radix(&digits[2..], *radix).ok(),
        None => digits.parse().ok(),
    };
    if let Some(integer) = integer {
        return Some(Value::Int(if negative { -integer } else { integer }));
    }
    let starts_right = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let float = digits.parse::<f64>().ok().filter(|_| starts_right)?;
    Some(Value::Float(if negative { -float } else { float }))
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::End => "EOF".into(),
        Kind::Right => "\"}}\"".into(),
        Kind::Left => "\"{{\"".into(),
        Kind::Text(text) | Kind::Text2(text) => format!("{text:?}"),
        Kind::Field(name) => format!("<.{name}>"),
        Kind::Dot => "<.>".into(),
        Kind::Variable(name) | Kind::Word(name) => format!("<{name}>"),
        Kind::Number(text) => format!("{text:?}"),
        Kind::Space => "\" \"".into(),
        Kind::Mark(c) | Kind::Other(c) => format!("{:?}", c.to_string()),
        Kind::Declare => "\":=\"".into(),
        Kind::Assign => "\"=\"".into(),
    }
}

//! Running a parsed template.

use super::Mode;
use super::functions;
use super::parse::{Command, Node, Operand, Pipe, Term};
use crate::value::{Row, Value};

/// Fields whose JSON objects are maps in Go, so that a missing key is no error.
const MAPS: &[&str] = &[
    "Annotations",
    "Config.Labels",
    "Data",
    "DriverOpts",
    "EndpointsConfig",
    "ExposedPorts",
    "Labels",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "Status",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
    "Containers",
    "Runtimes",
];

/// Executes `nodes`, appending to `out`.
pub(super) fn execute(
    nodes: &[Node],
    source: &str,
    data: &Value,
    mode: Mode,
    out: &mut String,
) -> Result<(), String> {
    let mut run = Run { source, mode, out, variables: vec![("$".into(), data.clone())] };
    run.nodes(nodes, data).map(|_| ())
}

/// Whether a loop goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Run<'a> {
    source: &'a str,
    mode: Mode,
    out: &'a mut String,
    variables: Vec<(String, Value)>,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, String> {
        let scope = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Action(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.variables.is_empty() {
                        self.out.push_str(&value.to_string());
                    }
                }
                Node::If { pipe, body, other } => {
                    let inner = self.variables.len();
                    let value = self.pipe(pipe, dot)?;
                    flow = self.nodes(if value.is_true() { body } else { other }, dot)?;
                    self.variables.truncate(inner);
                }
                Node::With { pipe, body, other } => {
                    let inner = self.variables.len();
                    let value = self.pipe(pipe, dot)?;
                    flow = if value.is_true() {
                        self.nodes(body, &value)?
                    } else {
                        self.nodes(other, dot)?
                    };
                    self.variables.truncate(inner);
                }
                Node::Range { pipe, body, other } => self.range(pipe, body, other, dot)?,
                Node::Break => flow = Flow::Break,
                Node::Continue => flow = Flow::Continue,
            }
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn range(
        &mut self,
        pipe: &Pipe,
        body: &[Node],
        other: &[Node],
        dot: &Value,
    ) -> Result<(), String> {
        let value = self.commands(pipe, dot)?;
        let items: Vec<(Value, Value)> = match value {
            Value::List(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| (Value::Int(i64::try_from(index).unwrap_or(i64::MAX)), item))
                .collect(),
            Value::Map(mut entries) => {
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                entries.into_iter().map(|(key, item)| (Value::Text(key), item)).collect()
            }
            Value::Int(count) => {
                (0..count.max(0)).map(|number| (Value::Int(number), Value::Int(number))).collect()
            }
            Value::Nil => Vec::new(),
            Value::Text(text) if self.mode == Mode::Header => {
                vec![(Value::Int(0), Value::Text(text))]
            }
            other => {
                let first = pipe.commands.last().and_then(|command| command.args.first());
                let message = format!("range can't iterate over {other}");
                return Err(first.map_or(message.clone(), |at| self.fault_at(at, &message)));
            }
        };
        if items.is_empty() {
            self.nodes(other, dot)?;
            return Ok(());
        }
        let scope = self.variables.len();
        for (key, item) in items {
            let values = match pipe.variables.len() {
                0 => vec![],
                1 => vec![item.clone()],
                _ => vec![key, item.clone()],
            };
            for (name, value) in pipe.variables.iter().zip(values) {
                self.set(name, value, pipe.assigns);
            }
            let flow = self.nodes(body, &item)?;
            self.variables.truncate(scope);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: Value, assigns: bool) {
        if assigns && let Some(slot) = self.variables.iter_mut().rev().find(|(n, _)| n == name) {
            slot.1 = value;
        } else {
            self.variables.push((name.to_owned(), value));
        }
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, String> {
        let value = self.commands(pipe, dot)?;
        for name in &pipe.variables {
            self.set(name, value.clone(), pipe.assigns);
        }
        Ok(value)
    }

    fn commands(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, String> {
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or_default())
    }

    fn command(
        &mut self,
        command: &Command,
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, String> {
        let (first, rest) = command.args.split_first().ok_or("missing value for command")?;
        if let Term::Function(name) = &first.term {
            return self.call(name, command, rest, dot, last);
        }
        if let (Term::Dot | Term::Variable(_), Some("Label")) =
            (&first.term, first.fields.last().map(String::as_str))
            && (!rest.is_empty() || last.is_some())
        {
            let name = match (rest.first(), last) {
                (Some(argument), _) => self.operand(argument, dot)?,
                (None, last) => last.unwrap_or_default(),
            };
            return Ok(label(dot, name.str(), self.mode));
        }
        if !rest.is_empty() || last.is_some() {
            return Err(self.fault_at(first, &self.no_arguments(first, dot, rest.len())));
        }
        self.operand(first, dot)
    }

    /// Why what is no function takes no arguments.
    fn no_arguments(&self, first: &Operand, dot: &Value, count: usize) -> String {
        match (first.fields.last(), dot) {
            (Some(field), Value::Row(_)) => {
                format!("wrong number of args for {field}: want 0 got {count}")
            }
            (Some(field), _) => format!("{field} is not a method but has arguments"),
            _ => format!("can't give argument to non-function {}", self.text(first)),
        }
    }

    fn call(
        &mut self,
        name: &str,
        command: &Command,
        rest: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, String> {
        let mut args = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            let value = self.operand(operand, dot)?;
            // `and` and `or` look at no more than they need.
            let decided = match name {
                "and" => !value.is_true(),
                "or" => value.is_true(),
                _ => false,
            };
            if decided {
                return Ok(value);
            }
            args.push(value);
        }
        args.extend(last);
        functions::call(name, args, self.mode).map_err(|problem| match problem.place {
            functions::Place::Count => self.fault(command.at, name, &problem.message),
            functions::Place::Argument(index) if index < rest.len() => {
                self.fault_at(&rest[index], &problem.message)
            }
            _ => {
                let text = self.source[command.at..command.end].trim_end();
                self.fault(command.at, text, &problem.message)
            }
        })
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        let mut value = match &operand.term {
            Term::Dot => dot.clone(),
            Term::Nil => Value::Nil,
            Term::Constant(value) => value.clone(),
            Term::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone()).unwrap_or_default()
            }
            Term::Function(name) => functions::call(name, Vec::new(), self.mode)
                .map_err(|problem| self.fault_at(operand, &problem.message))?,
            Term::Pipe(pipe) => self.pipe(pipe, dot)?,
        };
        let mut inside_map = false;
        for (index, field) in operand.fields.iter().enumerate() {
            let is_last = index + 1 == operand.fields.len();
            value = match take_field(&value, field) {
                Some(found) => found,
                None if inside_map && is_last => Value::Nil,
                None => {
                    let typed = matches!(self.variables[0].1, Value::Row(_));
                    let message = missing(&value, field, typed);
                    return Err(self.fault_at(operand, &message));
                }
            };
            inside_map = MAPS.contains(&field.as_str());
        }
        Ok(value)
    }

    fn text(&self, operand: &Operand) -> &str {
        self.source[operand.start..operand.end].trim_end()
    }

    fn fault_at(&self, operand: &Operand, message: &str) -> String {
        self.fault(operand.at, self.text(operand), message)
    }

    /// Go's form: line, bytes from the beginning of the line, the node's text cut to 20.
    fn fault(&self, at: usize, text: &str, message: &str) -> String {
        let before = &self.source[..at];
        let line = before.matches('\n').count() + 1;
        let column = at - before.rfind('\n').map_or(0, |newline| newline + 1);
        let shown: String = text.chars().take(20).collect();
        let dots = if text.chars().count() > 20 { "..." } else { "" };
        format!("template: :{line}:{column}: executing \"\" at <{shown}{dots}>: {message}")
    }
}

/// The field or key `name`. Docker's JSON and Go's names differ in case only, so case is
/// ignored where nothing has the exact name.
fn take_field(value: &Value, name: &str) -> Option<Value> {
    if let Some(found) = value.find(name) {
        return Some(found.clone());
    }
    let Value::Map(entries) = value else { return None };
    let found = entries.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.clone())
}

fn missing(value: &Value, name: &str, typed: bool) -> String {
    match value {
        Value::Map(_) => format!("map has no entry for key {name:?}"),
        Value::Row(Row { type_name, .. }) => {
            format!("can't evaluate field {name} in type {type_name}")
        }
        Value::Nil => format!("nil pointer evaluating interface {{}}.{name}"),
        _ if typed => format!("can't evaluate field {name} in type string"),
        _ => format!("can't evaluate field {name} in type interface {{}}"),
    }
}

/// Docker's `Label` method: a label's value, or in a heading the last part of its name.
fn label(row: &Value, name: &str, mode: Mode) -> Value {
    if mode == Mode::Header {
        let last = name.rsplit('.').next().unwrap_or_default();
        return Value::Text(last.replace(['-', '_'], " "));
    }
    let Value::Row(row) = row else { return Value::text("") };
    let found = row.labels.iter().find(|(key, _)| key == name);
    Value::Text(found.map(|(_, value)| value.clone()).unwrap_or_default())
}

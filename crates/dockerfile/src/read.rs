//! From words to typed instructions.

use std::time::Duration;

use crate::ast::{
    Add, ArgDefinition, CommandLine, Copy, Dockerfile, HealthCheck, InlineSource, Instruction,
    KeyValue, Located, Network, Run, Security, Sources, Stage,
};
use crate::error::ParseError;
use crate::flags::{Flags, Takes};
use crate::lint::{self, Linter};
use crate::syntax::{Node, Tree};
use crate::{heredoc, mount, quote, suggest};

/// Every instruction.
const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

fn fail<T>(message: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError::new(message))
}

fn at_least_one<T>(name: &str) -> Result<T, ParseError> {
    fail(format!("{name} requires at least one argument"))
}

/// What a node can be.
enum Read {
    Stage(Stage),
    Instruction(Instruction),
}

/// Reads all instructions and gathers the stages.
pub(crate) fn dockerfile(tree: Tree, linter: &mut Linter) -> Result<Dockerfile, ParseError> {
    for warning in tree.warnings {
        linter.add(warning);
    }
    let mut meta_args = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    for node in &tree.nodes {
        let span = node.span();
        let outer = linter.enter(&node.comments);
        let read = read(node, linter);
        linter.leave(outer);
        let read = read.map_err(|mut error| {
            // docker wording
            error.message =
                format!("dockerfile parse error on line {}: {}", span.start_line, error.message);
            error.at(span)
        })?;
        let count = stages.len();
        match (read, stages.last_mut()) {
            (Read::Stage(_), _) if count == crate::MAX_STAGES => {
                let message = format!("more than {} stages", crate::MAX_STAGES);
                return Err(ParseError::new(message).at(span));
            }
            (Read::Stage(stage), _) => stages.push(stage),
            (Read::Instruction(instruction), Some(stage)) => {
                stage.instructions.push(located(node, instruction));
            }
            (Read::Instruction(Instruction::Arg(definitions)), None) => {
                meta_args.push(located(node, definitions));
            }
            (Read::Instruction(_), None) => {
                let error = ParseError::about("no build stage in current context", &node.keyword);
                return Err(error.at(span));
            }
        }
    }
    if stages.is_empty() {
        return fail("dockerfile contains no stages to build");
    }
    lint::stage_names(&stages, linter);
    lint::casing(&stages, linter);
    Ok(Dockerfile { directives: tree.directives, meta_args, stages, warnings: Vec::new() })
}

/// Reads one instruction that is no `FROM`.
pub(crate) fn instruction(node: &Node) -> Result<Located<Instruction>, ParseError> {
    match read(node, &mut Linter::silent()).map_err(|error| error.at(node.span()))? {
        Read::Instruction(instruction) => Ok(located(node, instruction)),
        Read::Stage(_) => Err(ParseError::new("FROM is not a command type").at(node.span())),
    }
}

fn located<T>(node: &Node, inner: T) -> Located<T> {
    Located {
        node: inner,
        span: node.span(),
        source: node.original.trim().to_owned(),
        keyword: node.keyword.clone(),
        comments: node.comments.clone(),
    }
}

fn read(node: &Node, linter: &mut Linter) -> Result<Read, ParseError> {
    let span = node.span();
    Ok(Read::Instruction(match node.keyword.to_ascii_lowercase().as_str() {
        "add" => Instruction::Add(add(node)?),
        "arg" => {
            let definitions = arg(node)?;
            let keys: Vec<&str> = definitions.iter().map(|arg| arg.key.as_str()).collect();
            lint::description("ARG", &keys, &node.comments, span, linter);
            Instruction::Arg(definitions)
        }
        "cmd" => {
            Flags::parse(&node.flags, &[])?;
            Instruction::Cmd(command_line(node))
        }
        "copy" => Instruction::Copy(copy(node)?),
        "entrypoint" => {
            Flags::parse(&node.flags, &[])?;
            Instruction::Entrypoint(command_line(node))
        }
        "env" => Instruction::Env(pairs(node, "ENV")?),
        "expose" => {
            let mut ports = some_args(node, "EXPOSE")?;
            ports.sort();
            Instruction::Expose(ports)
        }
        "from" => {
            lint::from_casing(node, linter);
            let stage = from(node)?;
            if let Some(name) = &stage.name {
                lint::description("FROM", &[name], &node.comments, span, linter);
            }
            return Ok(Read::Stage(stage));
        }
        "healthcheck" => Instruction::HealthCheck(health_check(node)?),
        "label" => Instruction::Label(pairs(node, "LABEL")?),
        "maintainer" => {
            linter.warn(&lint::MAINTAINER_DEPRECATED, span, lint::maintainer_deprecated());
            Instruction::Maintainer(one_arg(node, "MAINTAINER", true)?)
        }
        "onbuild" => Instruction::OnBuild(on_build(node)?),
        "run" => Instruction::Run(run(node)?),
        "shell" => Instruction::Shell(shell(node)?),
        "stopsignal" => Instruction::StopSignal(one_arg(node, "STOPSIGNAL", false)?),
        "user" => Instruction::User(one_arg(node, "USER", true)?),
        "volume" => {
            let volumes = some_args(node, "VOLUME")?;
            let volumes: Vec<String> =
                volumes.iter().map(|volume| volume.trim().to_owned()).collect();
            if volumes.iter().any(String::is_empty) {
                return fail("VOLUME specified can not be an empty string");
            }
            Instruction::Volume(volumes)
        }
        "workdir" => Instruction::Workdir(one_arg(node, "WORKDIR", true)?),
        _ => {
            let keyword = &node.keyword;
            let message =
                suggest::message(format!("unknown instruction: {keyword}"), keyword, NAMES, false);
            return Err(ParseError::about(message, keyword));
        }
    }))
}

fn one_arg(node: &Node, name: &str, flags: bool) -> Result<String, ParseError> {
    let [arg] = node.args.as_slice() else {
        return fail(format!("{name} requires exactly one argument"));
    };
    if flags {
        Flags::parse(&node.flags, &[])?;
    }
    Ok(arg.clone())
}

fn some_args(node: &Node, name: &str) -> Result<Vec<String>, ParseError> {
    if node.args.is_empty() {
        return at_least_one(name);
    }
    Flags::parse(&node.flags, &[])?;
    Ok(node.args.clone())
}

fn pairs(node: &Node, name: &str) -> Result<Vec<KeyValue>, ParseError> {
    Flags::parse(&node.flags, &[])?;
    if node.args.is_empty() {
        return at_least_one(name);
    }
    let mut pairs = Vec::with_capacity(node.args.len() / 3);
    for triple in node.args.chunks(3) {
        let [key, value, separator] = triple else {
            return fail(format!("Bad input to {name}, too many arguments"));
        };
        if key.is_empty() {
            return fail(format!("{name} names can not be blank"));
        }
        let legacy = separator.is_empty();
        pairs.push(KeyValue { key: key.clone(), value: value.clone(), legacy });
    }
    Ok(pairs)
}

fn arg(node: &Node) -> Result<Vec<ArgDefinition>, ParseError> {
    if node.args.is_empty() {
        return at_least_one("ARG");
    }
    let mut definitions = Vec::with_capacity(node.args.len());
    for arg in &node.args {
        let (key, value) = match arg.split_once('=') {
            Some(("", _)) => return fail("ARG names can not be blank"),
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        let description = description(&node.comments, key);
        definitions.push(ArgDefinition { key: key.to_owned(), value, description });
    }
    Ok(definitions)
}

/// What the comments above say of a name.
fn description(comments: &[String], name: &str) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    let found = comments.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.map(str::to_owned)
}

fn from(node: &Node) -> Result<Stage, ParseError> {
    let (base, name) = match node.args.as_slice() {
        [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            let lower = name.to_lowercase();
            let mut bytes = lower.bytes();
            let valid = bytes.next().is_some_and(|first| first.is_ascii_lowercase())
                && bytes.all(|b| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.')
                });
            if !valid {
                let message = format!(
                    "invalid name for build stage: {}, name can't start with a number or contain \
                     symbols",
                    quote::go(name)
                );
                return Err(ParseError::about(message, name));
            }
            (base, Some(lower))
        }
        [base] => (base, None),
        _ => return fail("FROM requires either one or three arguments"),
    };
    let flags = Flags::parse(&node.flags, &[("platform", Takes::String)])?;
    let located = located(node, ());
    Ok(Stage {
        description: name.as_deref().and_then(|name| description(&node.comments, name)),
        name,
        base: base.clone(),
        platform: flags.string("platform").filter(|platform| !platform.is_empty()),
        instructions: Vec::new(),
        span: located.span,
        source: located.source,
        keyword: located.keyword,
        comments: located.comments,
    })
}

fn sources(node: &Node, name: &str) -> Result<Sources, ParseError> {
    let Some((destination, sources)) = node.args.split_last() else {
        return no_destination(name);
    };
    let word = |word: &str| heredoc::from_word(word).ok().flatten();
    if word(destination).is_some() {
        let message = format!("{name} cannot accept a heredoc as a destination");
        return Err(ParseError::about(message, destination));
    }
    let mut paths = Vec::new();
    let mut inline = Vec::new();
    let mut room = crate::MAX_FILE;
    for source in sources {
        let Some(opened) = word(source) else {
            paths.push(source.clone());
            continue;
        };
        // Of several with one name the last counts.
        let found = node.heredocs.iter().rfind(|heredoc| heredoc.name == opened.name);
        let content = found.map(|heredoc| heredoc.content.as_str()).unwrap_or_default();
        // Each that has the name has the text: a line could ask for thousands of copies.
        room = match room.checked_sub(content.len()) {
            Some(room) => room,
            None => {
                return fail(format!("{name} has more than {} bytes of heredocs", crate::MAX_FILE));
            }
        };
        let data = if opened.chomp { heredoc::chomp(content) } else { content.to_owned() };
        inline.push(InlineSource { name: opened.name, data, expand: opened.expand });
    }
    Ok(Sources { paths, inline, destination: destination.clone() })
}

fn no_destination<T>(name: &str) -> Result<T, ParseError> {
    fail(format!(
        "{name} requires at least two arguments, but only one was provided. Destination could not \
         be determined"
    ))
}

fn given(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

fn add(node: &Node) -> Result<Add, ParseError> {
    if node.args.len() < 2 {
        return no_destination("ADD");
    }
    let flags = Flags::parse(
        &node.flags,
        &[
            ("checksum", Takes::String),
            ("chmod", Takes::String),
            ("chown", Takes::String),
            ("exclude", Takes::Strings),
            ("keep-git-dir", Takes::Bool),
            ("link", Takes::Bool),
            ("unpack", Takes::Bool),
        ],
    )?;
    Ok(Add {
        sources: sources(node, "ADD")?,
        chown: given(flags.string("chown")),
        chmod: given(flags.string("chmod")),
        link: flags.bool("link").unwrap_or(false),
        exclude: flags.strings("exclude"),
        keep_git_dir: flags.bool("keep-git-dir"),
        checksum: given(flags.string("checksum")),
        unpack: flags.bool("unpack"),
    })
}

fn copy(node: &Node) -> Result<Copy, ParseError> {
    if node.args.len() < 2 {
        return no_destination("COPY");
    }
    let flags = Flags::parse(
        &node.flags,
        &[
            ("chmod", Takes::String),
            ("chown", Takes::String),
            ("exclude", Takes::Strings),
            ("from", Takes::String),
            ("link", Takes::Bool),
            ("parents", Takes::Bool),
        ],
    )?;
    Ok(Copy {
        sources: sources(node, "COPY")?,
        from: given(flags.string("from")),
        chown: given(flags.string("chown")),
        chmod: given(flags.string("chmod")),
        link: flags.bool("link").unwrap_or(false),
        parents: flags.bool("parents").unwrap_or(false),
        exclude: flags.strings("exclude"),
    })
}

fn command_line(node: &Node) -> CommandLine {
    let words = if node.json || node.args.is_empty() {
        node.args.clone()
    } else {
        vec![node.args.join(" ")]
    };
    CommandLine { words, shell: !node.json, heredocs: node.heredocs.clone() }
}

fn run(node: &Node) -> Result<Run, ParseError> {
    let flags = Flags::parse(
        &node.flags,
        &[
            ("device", Takes::Strings),
            ("mount", Takes::Strings),
            ("network", Takes::String),
            ("security", Takes::String),
        ],
    )?;
    let devices = flags.strings("device");
    let devices = devices.iter().map(|device| mount::device(device)).collect::<Result<_, _>>()?;
    let mount_flags = flags.strings("mount");
    let mounts =
        mount_flags.iter().map(|flag| mount::unexpanded(flag)).collect::<Result<_, _>>()?;
    let network = match flags.string("network").as_deref() {
        None | Some("default") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(other) => {
            let message = format!("invalid network mode {}", quote::go(other));
            return Err(ParseError::about(message, other));
        }
    };
    let security = match flags.string("security").as_deref() {
        None | Some("sandbox") => Security::Sandbox,
        Some("insecure") => Security::Insecure,
        Some(other) => {
            let message = format!("security {} is not valid", quote::go(other));
            return Err(ParseError::about(message, other));
        }
    };
    Ok(Run { command: command_line(node), mount_flags, mounts, network, security, devices })
}

fn shell(node: &Node) -> Result<Vec<String>, ParseError> {
    Flags::parse(&node.flags, &[])?;
    if node.args.is_empty() {
        return at_least_one("SHELL");
    }
    if !node.json {
        return fail("SHELL requires the arguments to be in JSON form");
    }
    Ok(node.args.clone())
}

fn on_build(node: &Node) -> Result<String, ParseError> {
    let args = node.all_args();
    let Some(first) = args.first() else { return at_least_one("ONBUILD") };
    Flags::parse(&node.flags, &[])?;
    let trigger = first.trim().to_uppercase();
    match trigger.as_str() {
        "ONBUILD" => return fail("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        "MAINTAINER" | "FROM" => {
            let message = format!("{trigger} isn't allowed as an ONBUILD trigger");
            return Err(ParseError::about(message, first));
        }
        _ => {}
    }
    let line = node.original.trim_start();
    let mut text = line.get("ONBUILD".len()..).unwrap_or_default().trim_start().to_owned();
    for heredoc in &node.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(text)
}

fn health_check(node: &Node) -> Result<HealthCheck, ParseError> {
    let Some((kind, args)) = node.args.split_first() else {
        return at_least_one("HEALTHCHECK");
    };
    let kind = kind.to_uppercase();
    if kind == "NONE" {
        if !args.is_empty() {
            return fail("HEALTHCHECK NONE takes no arguments");
        }
        return Ok(HealthCheck { test: vec![kind], ..HealthCheck::default() });
    }
    let flags = Flags::parse(
        &node.flags,
        &[
            ("interval", Takes::String),
            ("retries", Takes::String),
            ("start-interval", Takes::String),
            ("start-period", Takes::String),
            ("timeout", Takes::String),
        ],
    )?;
    if kind != "CMD" {
        let message = format!("Unknown type {} in HEALTHCHECK (try CMD)", quote::go(&kind));
        return Err(ParseError::about(message, &node.args[0]));
    }
    if args.is_empty() {
        return fail("Missing command after HEALTHCHECK CMD");
    }
    let mut test = vec![if node.json { "CMD" } else { "CMD-SHELL" }.to_owned()];
    test.extend(args.iter().cloned());
    Ok(HealthCheck {
        test,
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

/// A duration of at least a millisecond, or zero.
fn interval(flags: &Flags, name: &str) -> Result<Duration, ParseError> {
    let Some(text) = given(flags.string(name)) else { return Ok(Duration::ZERO) };
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(&text);
    let Some(duration) = silo_types::duration::parse_go(unsigned) else {
        return Err(ParseError::about(duration_complaint(&text, unsigned), &text));
    };
    if duration.is_zero() {
        return Ok(duration);
    }
    if text.starts_with('-') || duration < Duration::from_millis(1) {
        let message = format!("Interval {} cannot be less than 1ms", quote::go(name));
        return Err(ParseError::about(message, &text));
    }
    Ok(duration)
}

/// What Go says of a text that is no duration.
fn duration_complaint(text: &str, unsigned: &str) -> String {
    let quoted = quote::go(text);
    let mut rest = unsigned;
    while !rest.is_empty() {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        if !rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            break;
        }
        let unit = number
            .split(|character: char| character.is_ascii_digit() || character == '.')
            .next()
            .unwrap_or_default();
        if unit.is_empty() {
            return format!("time: missing unit in duration {quoted}");
        }
        if !["ns", "us", "µs", "μs", "ms", "s", "m", "h"].contains(&unit) {
            return format!("time: unknown unit {} in duration {quoted}", quote::go(unit));
        }
        rest = &number[unit.len()..];
    }
    format!("time: invalid duration {quoted}")
}

fn retries(flags: &Flags) -> Result<u32, ParseError> {
    let Some(text) = given(flags.string("retries")) else { return Ok(0) };
    let quoted = quote::go(&text);
    let digits = text.strip_prefix(['-', '+']).unwrap_or(&text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let message = format!("strconv.ParseInt: parsing {quoted}: invalid syntax");
        return Err(ParseError::about(message, &text));
    }
    match text.parse::<i32>() {
        Ok(number) => match u32::try_from(number) {
            Ok(number) => Ok(number),
            Err(_) => {
                let message = format!("--retries cannot be negative ({number})");
                Err(ParseError::about(message, &text))
            }
        },
        Err(_) => {
            let message = format!("strconv.ParseInt: parsing {quoted}: value out of range");
            Err(ParseError::about(message, &text))
        }
    }
}

#[cfg(test)]
mod tests;

//! `--change` of commit and import: a few Dockerfile instructions that alter a configuration.
//!
//! The syntax is that of Dockerfiles: `\` at the end of a line goes on with the next, `#` begins
//! a comment line, words may be quoted, `$NAME` and `${NAME}` stand for environment variables.

use silo_docker::List;
use silo_docker::containers::{Config, EmptyObject, HealthConfig};
use silo_types::{Error, duration};

/// Applies instructions in order.
pub(super) fn apply(mut config: Config, changes: &[String]) -> Result<Config, Error> {
    let mut state = State { config: &mut config, cmd_set: false };
    for line in lines(&changes.join("\n")) {
        let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        state.instruction(keyword, rest.trim()).map_err(Error::invalid)?;
    }
    Ok(config)
}

/// Whole instructions: comments dropped, continued lines joined.
fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with('#') || (current.is_empty() && line.trim().is_empty()) {
            continue;
        }
        let trimmed = line.trim_end();
        if let Some(part) = trimmed.strip_suffix('\\') {
            current.push_str(part);
            continue;
        }
        current.push_str(trimmed);
        lines.push(std::mem::take(&mut current).trim_start().to_owned());
    }
    if !current.trim().is_empty() {
        lines.push(current.trim_start().to_owned());
    }
    lines.retain(|line| !line.is_empty());
    lines
}

struct State<'a> {
    config: &'a mut Config,
    /// A CMD came before, so an ENTRYPOINT does not reset it.
    cmd_set: bool,
}

fn some(keyword: &str, rest: &str) -> Result<(), String> {
    if rest.is_empty() {
        return Err(format!("{keyword} requires at least one argument"));
    }
    Ok(())
}

fn exactly_one(keyword: &str, rest: &str) -> Result<(), String> {
    if rest.is_empty() {
        return Err(format!("{keyword} requires exactly one argument"));
    }
    Ok(())
}

impl State<'_> {
    fn instruction(&mut self, keyword: &str, rest: &str) -> Result<(), String> {
        let upper = keyword.to_ascii_uppercase();
        match upper.as_str() {
            "CMD" => {
                self.config.cmd = self.command(rest).into();
                self.config.args_escaped = false;
                self.cmd_set = true;
            }
            "ENTRYPOINT" => {
                let command = self.command(rest);
                self.config.entrypoint =
                    if command.is_empty() { List::null() } else { command.into() };
                if !self.cmd_set {
                    self.config.cmd = List::null();
                }
            }
            "ENV" => {
                some(&upper, rest)?;
                for (name, value) in self.pairs(&upper, rest)? {
                    self.set_env(&name, &value);
                }
            }
            "LABEL" => {
                some(&upper, rest)?;
                for (name, value) in self.pairs(&upper, rest)? {
                    self.config.labels.make().insert(name, value);
                }
            }
            "EXPOSE" => {
                some(&upper, rest)?;
                for word in rest.split_whitespace() {
                    for port in ports(&self.expand(word)?)? {
                        self.config.exposed_ports.make().insert(port, EmptyObject {});
                    }
                }
            }
            "USER" => {
                exactly_one(&upper, rest)?;
                self.config.user = self.expand(rest)?;
            }
            "WORKDIR" => {
                exactly_one(&upper, rest)?;
                let path = self.expand(rest)?;
                self.config.working_dir = if path.starts_with('/') {
                    crate::mountpoints::clean(&path)
                } else {
                    crate::mountpoints::clean(&format!("/{}/{path}", self.config.working_dir))
                };
            }
            "VOLUME" => {
                some(&upper, rest)?;
                let paths = match json_words(rest) {
                    Some(words) => words,
                    None => rest.split_whitespace().map(str::to_owned).collect(),
                };
                for path in paths {
                    let path = self.expand(path.trim())?;
                    if path.is_empty() {
                        return Err("VOLUME specified can not be an empty string".into());
                    }
                    self.config.volumes.make().insert(path, EmptyObject {});
                }
            }
            "STOPSIGNAL" => {
                exactly_one(&upper, rest)?;
                let signal = self.expand(rest)?;
                crate::signal::parse(&signal).map_err(|error| error.message().to_owned())?;
                self.config.stop_signal = signal;
            }
            "ONBUILD" => {
                some(&upper, rest)?;
                let trigger = rest.split_whitespace().next().unwrap_or_default();
                match trigger.to_ascii_uppercase().as_str() {
                    "ONBUILD" => {
                        return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into());
                    }
                    trigger @ ("MAINTAINER" | "FROM") => {
                        return Err(format!("{trigger} isn't allowed as an ONBUILD trigger"));
                    }
                    _ => self.config.on_build.make().push(rest.to_owned()),
                }
            }
            "HEALTHCHECK" => self.config.healthcheck = Some(Self::health(rest)?),
            _ => return Err(format!("{keyword} is not a valid change command")),
        }
        Ok(())
    }

    /// `["a", "b"]`, or a line for the shell.
    fn command(&self, rest: &str) -> Vec<String> {
        if let Some(words) = json_words(rest) {
            return words;
        }
        if rest.is_empty() {
            return Vec::new();
        }
        let mut words = self.config.shell.to_vec();
        if words.is_empty() {
            words = vec!["/bin/sh".into(), "-c".into()];
        }
        words.push(rest.to_owned());
        words
    }

    fn set_env(&mut self, name: &str, value: &str) {
        let variable = format!("{name}={value}");
        let variables = self.config.env.make();
        let same = |v: &&mut String| v.split('=').next() == Some(name);
        match variables.iter_mut().find(same) {
            Some(found) => *found = variable,
            None => variables.push(variable),
        }
    }

    /// `a=b c="d e"`, or the old `a b c` for one name.
    fn pairs(&self, keyword: &str, rest: &str) -> Result<Vec<(String, String)>, String> {
        let words = words(rest);
        let Some(first) = words.first() else { return Ok(Vec::new()) };
        if !first.contains('=') {
            let (name, value) = rest
                .split_once(char::is_whitespace)
                .ok_or_else(|| format!("{keyword} must have two arguments"))?;
            return Ok(vec![(self.expand(name)?, self.expand(value.trim())?)]);
        }
        let mut pairs = Vec::new();
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(|| {
                format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")
            })?;
            let name = self.expand(name)?;
            if name.is_empty() {
                return Err(format!("{keyword} names can not be blank"));
            }
            pairs.push((name, self.expand(value)?));
        }
        Ok(pairs)
    }

    fn health(rest: &str) -> Result<HealthConfig, String> {
        let mut check = HealthConfig::default();
        let mut rest = rest;
        while let Some(flag) = rest.strip_prefix("--") {
            let (flag, tail) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
            let (name, value) =
                flag.split_once('=').ok_or_else(|| format!("Missing a value on flag: {flag}"))?;
            let time = || -> Result<i64, String> {
                let time = duration::parse_go(value)
                    .ok_or_else(|| format!("time: invalid duration {value:?}"))?;
                if !time.is_zero() && time.as_micros() < 1000 {
                    return Err(format!("Interval {name:?} cannot be less than 1ms"));
                }
                i64::try_from(time.as_nanos()).map_err(|error| error.to_string())
            };
            match name {
                "interval" => check.interval = time()?,
                "timeout" => check.timeout = time()?,
                "start-period" => check.start_period = time()?,
                "start-interval" => check.start_interval = time()?,
                "retries" => {
                    check.retries = value
                        .parse()
                        .ok()
                        .filter(|retries| *retries >= 0)
                        .ok_or_else(|| format!("--retries must be at least 0, not {value}"))?;
                }
                _ => return Err(format!("Unknown flag: {name}")),
            }
            rest = tail.trim_start();
        }
        let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let command = command.trim();
        check.test = match kind.to_ascii_uppercase().as_str() {
            "" => return Err("HEALTHCHECK requires at least one argument".into()),
            "NONE" if command.is_empty() => vec!["NONE".to_owned()].into(),
            "NONE" => return Err("HEALTHCHECK NONE takes no arguments".into()),
            "CMD" if command.is_empty() => {
                return Err("Missing command after HEALTHCHECK CMD".into());
            }
            "CMD" => match json_words(command) {
                Some(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
                None => vec!["CMD-SHELL".to_owned(), command.to_owned()].into(),
            },
            _ => return Err(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)")),
        };
        Ok(check)
    }

    /// Resolves quotes, backslashes and variables of one word.
    fn expand(&self, word: &str) -> Result<String, String> {
        let variable = |name: &str| {
            let mut found = self.config.env.iter().rev().filter_map(|v| v.split_once('='));
            found.find(|(n, _)| *n == name).map(|(_, value)| value.to_owned())
        };
        let mut out = String::with_capacity(word.len());
        let mut chars = word.chars().peekable();
        let mut double = false;
        while let Some(c) = chars.next() {
            match c {
                '\'' if !double => loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => out.push(c),
                        None => {
                            return Err(format!(
                                "unexpected end of statement while looking for matching single-quote: {word}"
                            ));
                        }
                    }
                },
                '"' => double = !double,
                '\\' => match chars.next() {
                    Some(c) if !double || matches!(c, '"' | '$' | '\\') => out.push(c),
                    Some(c) => out.extend(['\\', c]),
                    None => out.push('\\'),
                },
                '$' if chars.next_if_eq(&'{').is_some() => {
                    let inside: String = chars.by_ref().take_while(|c| *c != '}').collect();
                    let end = inside
                        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                        .unwrap_or(inside.len());
                    let (name, modifier) = inside.split_at(end);
                    let value = variable(name);
                    let set = value.as_ref().is_some_and(|value| !value.is_empty());
                    out.push_str(&match modifier.split_at(modifier.len().min(2)) {
                        ("", _) => value.unwrap_or_default(),
                        (":-", _) if set => value.unwrap_or_default(),
                        (":-", default) => self.expand(default)?,
                        (":+", other) if set => self.expand(other)?,
                        (":+", _) => String::new(),
                        _ => return Err(format!("unsupported modifier in substitution: {word}")),
                    });
                }
                '$' => {
                    let mut name = String::new();
                    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                        name.push(c);
                    }
                    if name.is_empty() {
                        out.push('$');
                    } else {
                        out.push_str(&variable(&name).unwrap_or_default());
                    }
                }
                c => out.push(c),
            }
        }
        if double {
            return Err(format!(
                "unexpected end of statement while looking for matching double-quote: {word}"
            ));
        }
        Ok(out)
    }
}

fn json_words(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// Splits at blanks outside of quotes; quotes and backslashes stay in the words.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                word.push(c);
                word.extend(chars.next());
            }
            ('\'' | '"', None) => {
                quote = Some(c);
                word.push(c);
            }
            (c, Some(open)) if c == open => {
                quote = None;
                word.push(c);
            }
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (c, _) => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// `80`, `80/udp`, `8000-8002/tcp` as single ports.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let invalid = || format!("invalid containerPort: {text}");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let first: u16 = first.parse().map_err(|_| invalid())?;
    let last: u16 = last.parse().map_err(|_| invalid())?;
    if last < first {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<Config, Error> {
        let changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
        let mut config = Config { working_dir: "/srv".into(), ..Config::default() };
        config.env.make().push("A=1".into());
        config.cmd.make().push("old".into());
        apply(config, &changes)
    }

    #[test]
    fn commands() {
        let config = changed(&["CMD [\"a\", \"b c\"]", "entrypoint run me"]).unwrap();
        assert_eq!(&*config.cmd, ["a", "b c"]);
        assert_eq!(&*config.entrypoint, ["/bin/sh", "-c", "run me"]);
        let config = changed(&["ENTRYPOINT [\"x\"]"]).unwrap();
        assert!(config.cmd.is_null());
    }

    #[test]
    fn variables_and_labels() {
        let config = changed(&[
            "ENV B=\"$A two\" C=${A:-x}${D:-y}${A:+z} A=3",
            "ENV E spaced out",
            "# comment\nLABEL a=b \\\n  'c d'=\"e f\"",
            "USER $A:${B}",
        ])
        .unwrap();
        assert_eq!(&*config.env, ["A=3", "B=1 two", "C=1yz", "E=spaced out"]);
        assert_eq!(config.labels["a"], "b");
        assert_eq!(config.labels["c d"], "e f");
        assert_eq!(config.user, "3:1 two");
    }

    #[test]
    fn the_rest() {
        let config = changed(&[
            "EXPOSE 80 53/udp 8000-8001",
            "VOLUME /a /b",
            "VOLUME [\"/c d\"]",
            "WORKDIR sub/../dir",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN make",
            "HEALTHCHECK --interval=5s --retries=2 CMD curl localhost",
        ])
        .unwrap();
        let ports: Vec<_> = config.exposed_ports.keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/a", "/b", "/c d"]);
        assert_eq!(config.working_dir, "/srv/dir");
        assert_eq!(config.stop_signal, "SIGINT");
        assert_eq!(&*config.on_build, ["RUN make"]);
        let check = config.healthcheck.unwrap();
        assert_eq!((check.interval, check.retries), (5_000_000_000, 2));
        assert_eq!(&*check.test, ["CMD-SHELL", "curl localhost"]);
        let none = changed(&["HEALTHCHECK NONE"]).unwrap().healthcheck.unwrap();
        assert_eq!(&*none.test, ["NONE"]);
    }

    #[test]
    fn refusals() {
        for (change, expected) in [
            ("RUN x", "RUN is not a valid change command"),
            ("copy a b", "copy is not a valid change command"),
            ("ENV", "ENV requires at least one argument"),
            ("ENV A", "ENV must have two arguments"),
            (
                "LABEL a=b c",
                "Syntax error - can't find = in \"c\". Must be of the form: name=value",
            ),
            ("EXPOSE x", "invalid containerPort: x"),
            ("USER", "USER requires exactly one argument"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
            ("HEALTHCHECK x", "Unknown type \"x\" in HEALTHCHECK (try CMD)"),
        ] {
            assert_eq!(changed(&[change]).unwrap_err().message(), expected);
        }
        for bad in ["ENV A='x", "ENV A=\"x", "ENV A=${A:?x}", "STOPSIGNAL NOPE", "EXPOSE 9-8"] {
            assert!(changed(&[bad]).is_err(), "{bad}");
        }
    }
}

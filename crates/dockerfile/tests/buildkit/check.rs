//! The Dockerfiles of BuildKit's tests of its checks, with the warnings that they expect.

use std::collections::BTreeMap;

use silo_dockerfile::ignore::Patterns;
use silo_dockerfile::lint::{self, Base, Config, Context};
use silo_dockerfile::parse_collecting;

use crate::go::{Reader, Token, Value, tokens};

/// Line, rule and message.
type Found = (u32, String, String);

struct Case {
    dockerfile: String,
    ignore: Option<String>,
    args: BTreeMap<String, String>,
    expected: Vec<Found>,
    /// Whether the original compares lines: not for what is found in all stages.
    lines: bool,
    error: Option<String>,
}

/// What a table says of the warnings; nothing when it has to be run to be known.
fn expected(params: &Value) -> Option<Vec<Found>> {
    let field = params.field("UnmarshalWarnings").or_else(|| params.field("Warnings"));
    let list = match field {
        None => return Some(Vec::new()),
        Some(Value::List(list)) => list,
        Some(_) => return None,
    };
    let warnings = list.iter().map(|warning| {
        let Some(Value::Number(line)) = warning.field("Line") else { return None };
        let text = |name| Some(warning.field(name)?.text()?.to_owned());
        Some((*line, text("RuleName")?, text("Detail")?))
    });
    warnings.collect()
}

/// The cases of the file, and how many there are that cannot be read from it.
fn cases(text: &str) -> (Vec<Case>, usize) {
    let tokens = tokens(text);
    let mut reader = Reader { tokens: &tokens };
    let mut texts: BTreeMap<String, Option<String>> = BTreeMap::new();
    let (mut cases, mut unread) = (Vec::new(), 0);
    while let Some(token) = reader.next() {
        let Token::Word(name) = token else { continue };
        match reader.tokens {
            // name := []byte(`text`), or without the colon, or something else.
            [Token::Sign(':'), Token::Sign('='), rest @ ..] | [Token::Sign('='), rest @ ..] => {
                let text = match rest {
                    [
                        Token::Sign('['),
                        Token::Sign(']'),
                        Token::Word(word),
                        Token::Sign('('),
                        Token::Text(text),
                        Token::Sign(')'),
                        ..,
                    ] if word == "byte" => Some(text.clone()),
                    _ => None,
                };
                texts.insert(name, text);
            }
            [Token::Sign('('), Token::Word(t), Token::Sign(','), Token::Word(_), ..]
                if name == "checkLinterWarnings" && t == "t" =>
            {
                // ( t , sb ,
                reader.tokens = &reader.tokens[5..];
                let params = reader.value();
                match case(&params, &texts) {
                    Some(case) => cases.push(case),
                    None => unread += 1,
                }
            }
            _ => {}
        }
    }
    (cases, unread)
}

fn case(params: &Value, texts: &BTreeMap<String, Option<String>>) -> Option<Case> {
    let text = |name: &str| match params.field(name) {
        None => Some(None),
        Some(Value::Text(text)) => Some(Some(text.clone())),
        Some(Value::Name(variable)) => Some(Some(texts.get(variable)?.clone()?)),
        Some(_) => None,
    };
    let mut args = BTreeMap::new();
    match params.field("FrontendAttrs") {
        None => {}
        Some(Value::Fields(fields)) => {
            for (key, value) in fields {
                let key = key.strip_prefix("build-arg:")?;
                args.insert(key.to_owned(), value.text()?.to_owned());
            }
        }
        Some(_) => return None,
    }
    let error = match params.field("BuildErr") {
        None => None,
        Some(value) => Some(value.text()?.to_owned()),
    };
    Some(Case {
        dockerfile: text("Dockerfile")??,
        ignore: text("DockerIgnore")?,
        args,
        expected: expected(params)?,
        lines: params.field("UnmarshalWarnings").is_none(),
        error,
    })
}

fn run(case: &Case) -> (Vec<Found>, Option<String>) {
    let given = case.args.get("BUILDKIT_DOCKERFILE_CHECK");
    let given = given.map(|text| Config::parse(text).unwrap());
    let (result, mut warnings) = parse_collecting(case.dockerfile.as_bytes(), given.as_ref());
    let mut message = result.as_ref().err().map(ToString::to_string);
    if let Ok(dockerfile) = &result {
        let config = match given {
            Some(config) => config,
            None => silo_dockerfile::config_of(&dockerfile.directives).unwrap(),
        };
        let ignore = case.ignore.as_ref().map(|text| Patterns::parse(text.as_bytes()).unwrap());
        let predefined = [
            "BUILDPLATFORM",
            "TARGETPLATFORM",
            "BUILDOS",
            "TARGETOS",
            "BUILDARCH",
            "TARGETARCH",
            "BUILDVARIANT",
            "TARGETVARIANT",
            "TARGETSTAGE",
        ]
        .map(|name| {
            let value = if name.ends_with("PLATFORM") { "linux/amd64" } else { "linux" };
            (name.to_owned(), value.to_owned())
        });
        let context = Context {
            args: &case.args,
            predefined: &predefined,
            base: &|_| Some(Base::default()),
            platform: None,
            ignore: ignore.as_ref(),
            stages: None,
        };
        warnings.extend(lint::check(dockerfile, &config, &context));
        message = lint::violation(&config, &warnings);
    }
    let mut found: Vec<Found> = warnings
        .into_iter()
        .map(|warning| (warning.span.start_line, warning.rule.name.to_owned(), warning.message))
        .collect();
    found.sort();
    (found, message)
}

#[test]
fn warnings() {
    let Some(source) = crate::source("warnings") else { return };
    let text = fs_err::read_to_string(source.join("dockerfile_check_test.go")).unwrap();
    let (cases, unread) = cases(&text);
    let mut different = Vec::new();
    for case in &cases {
        let (mut found, message) = run(case);
        let mut expected = case.expected.clone();
        if !case.lines {
            found.iter_mut().chain(&mut expected).for_each(|(line, ..)| *line = 0);
            found.sort();
        }
        expected.sort();
        // What only a build finds out is not ours to say.
        let ours = |message: &&String| {
            message.contains("lint violation") || message.contains("parse error")
        };
        let wrong = case.error.as_ref().filter(ours) != message.as_ref().filter(ours);
        if found != expected || wrong {
            different.push(format!(
                "{}\nfound: {found:#?} {message:?}\nexpected: {expected:#?} {:?}",
                case.dockerfile, case.error
            ));
        }
    }
    eprintln!(
        "{} of {} checks alike, {unread} cannot be read",
        cases.len() - different.len(),
        cases.len()
    );
    assert!(!cases.is_empty());
    assert!(different.is_empty(), "{}", different.join("\n---\n"));
}

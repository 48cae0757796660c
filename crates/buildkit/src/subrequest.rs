//! What clients ask about a Dockerfile instead of having it built: `docker build --check` and
//! `--call`. The answers are JSON in BuildKit's form, version 1.0.0.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use silo_build::context::{ContextRef, Filter, Transfer};
use silo_build::progress::{Location, Warning};
use silo_build::{BuildError, BuildRequest, DockerfileSource};
use silo_dockerfile::{Dockerfile, Instruction, Span, Stage};
use silo_types::{Digest, Error, ErrorKind};

use crate::job::Job;
use crate::solve::Solver;

/// The form of the answers.
const VERSION: &str = "1.0.0";
/// Stages that one stage may stand on.
const MAX_STAGES: usize = 10_000;

/// Parts of an answer by name.
type Answer = HashMap<String, Bytes>;

impl Solver {
    /// Answers a request about a Dockerfile; `None` for one that is not known.
    pub(crate) async fn ask(
        &self,
        job: &Arc<Job>,
        what: &str,
        request: BuildRequest,
    ) -> Result<Option<Answer>, BuildError> {
        match what {
            "frontend.lint" => self.lint(job, request).await.map(Some),
            "frontend.targets" => {
                let (text, dockerfile) = parsed(job, &request).await?;
                Ok(Some(answer(&targets(&text, &dockerfile))))
            }
            "frontend.outline" => {
                let (text, dockerfile) = parsed(job, &request).await?;
                Ok(Some(answer(&outline(&text, &dockerfile, &request)?)))
            }
            "frontend.subrequests.describe" => Ok(Some(answer(&describe()))),
            _ => Ok(None),
        }
    }

    async fn lint(&self, job: &Arc<Job>, mut request: BuildRequest) -> Result<Answer, BuildError> {
        request.check = true;
        let progress = Arc::clone(job);
        let (warnings, error) = match self.builder.build(request, progress).await {
            Ok(outcome) => (outcome.warnings, None),
            Err(error) if error.location.is_some() => (Vec::new(), Some(error)),
            Err(error) => return Err(error),
        };
        let mut sources = Sources::default();
        let broken: Vec<Value> =
            warnings.iter().map(|warning| lint_warning(warning, &mut sources)).collect();
        let mut result = json!({ "warnings": broken });
        if let Some(error) = &error
            && let Some(location) = &error.location
        {
            result["buildError"] = json!({
                "message": error.message,
                "location": sources.locate(location),
            });
        }
        result["sources"] = sources.list.into();
        let failed = error.is_some() || !warnings.is_empty();
        let mut answer = answer(&result);
        let code = if failed { "1" } else { "0" };
        answer.insert("result.statuscode".to_owned(), Bytes::from_static(code.as_bytes()));
        Ok(answer)
    }
}

fn answer(result: &Value) -> Answer {
    let text = serde_json::to_string_pretty(result).unwrap_or_default();
    HashMap::from([
        ("result.json".to_owned(), text.into()),
        ("version".to_owned(), Bytes::from_static(VERSION.as_bytes())),
    ])
}

/// The texts that places are in.
#[derive(Default)]
struct Sources {
    list: Vec<Value>,
    known: Vec<(String, Arc<[u8]>)>,
}

impl Sources {
    fn locate(&mut self, location: &Location) -> Value {
        let same =
            |known: &(String, Arc<[u8]>)| known.0 == location.file && known.1 == location.source;
        let index = self.known.iter().position(same).unwrap_or_else(|| {
            self.known.push((location.file.clone(), Arc::clone(&location.source)));
            self.list.push(json!({
                "filename": location.file,
                "language": "Dockerfile",
                "data": STANDARD.encode(&location.source),
            }));
            self.known.len() - 1
        });
        let mut place = ranges(Span::new(location.start_line, location.end_line));
        place["sourceIndex"] = index.into();
        place
    }
}

fn ranges(span: Span) -> Value {
    json!({"ranges": [{"start": {"line": span.start_line}, "end": {"line": span.end_line}}]})
}

/// A warning of progress, `Rule: words (line 3)`, taken apart again.
fn lint_warning(warning: &Warning, sources: &mut Sources) -> Value {
    let (rule, words) = warning.short.split_once(": ").unwrap_or(("", &warning.short));
    let words = words.rsplit_once(" (line ").map_or(words, |(words, _)| words);
    let mut value = json!({
        "ruleName": rule,
        "description": warning.detail.join("\n"),
        "url": warning.url,
        "detail": words,
    });
    if let Some(location) = &warning.location {
        value["location"] = sources.locate(location);
    }
    value
}

/// The text of a build's Dockerfile, and what it says.
async fn parsed(
    job: &Arc<Job>,
    request: &BuildRequest,
) -> Result<(Vec<u8>, Dockerfile), BuildError> {
    let (name, text) = text(job, request).await?;
    let dockerfile = silo_dockerfile::parse(&text).map_err(|error| {
        let mut failed = BuildError::new(ErrorKind::InvalidParameter, error.message);
        failed.location = error.span.map(|span| Location {
            file: name,
            source: text.clone().into(),
            start_line: span.start_line,
            end_line: span.end_line,
        });
        failed
    })?;
    Ok((text, dockerfile))
}

async fn text(job: &Arc<Job>, request: &BuildRequest) -> Result<(String, Vec<u8>), BuildError> {
    let (context, path) = match &request.dockerfile {
        DockerfileSource::Text { name, text } => return Ok((name.clone(), text.clone())),
        DockerfileSource::InContext { context, path } => (context.as_ref(), path.clone()),
    };
    let ((Some(context), _) | (None, ContextRef::Files(context))) = (context, &request.context)
    else {
        return Err(BuildError::new(
            ErrorKind::NotImplemented,
            "a Dockerfile that is not with the client can only be built",
        ));
    };
    let filter = Filter { follow: vec![path.clone()], exclude: Vec::new() };
    let vertex = Digest::from_sha256([0; 32]);
    let tree = context.tree(&filter, &Transfer { progress: &**job, vertex }).await?;
    let limit = u64::try_from(silo_dockerfile::MAX_FILE).unwrap_or(u64::MAX);
    let read = silo_sys::path::read_regular_file_in_root(tree.root(), &path, limit);
    match read {
        Ok(Some(text)) => Ok((path, text)),
        Ok(None) => Err(Error::invalid(format!("{path} is too large")).into()),
        Err(error) => {
            Err(Error::invalid(format!("failed to read dockerfile: open {path}: {error}")).into())
        }
    }
}

/// `docker build --call targets`.
fn targets(text: &[u8], dockerfile: &Dockerfile) -> Value {
    let last = dockerfile.stages.len().saturating_sub(1);
    let targets: Vec<Value> = dockerfile
        .stages
        .iter()
        .enumerate()
        .map(|(number, stage)| {
            let mut target = json!({"base": stage.base, "location": ranges(stage.span)});
            if let Some(name) = &stage.name {
                target["name"] = name.as_str().into();
            }
            if number == last {
                target["default"] = true.into();
            }
            if let Some(description) = &stage.description {
                target["description"] = description.as_str().into();
            }
            if let Some(platform) = &stage.platform {
                target["platform"] = platform.as_str().into();
            }
            target
        })
        .collect();
    json!({"targets": targets, "sources": [STANDARD.encode(text)]})
}

/// `docker build --call outline`: what the wanted stage and those below it can be given.
fn outline(
    text: &[u8],
    dockerfile: &Dockerfile,
    request: &BuildRequest,
) -> Result<Value, BuildError> {
    let stages = &dockerfile.stages;
    let wanted = match request.target.as_str() {
        "" => stages.len().checked_sub(1),
        name => find(stages, stages.len(), name),
    };
    let wanted = wanted.ok_or_else(|| {
        // BuildKit's wording.
        let message = format!("target stage {:?} could not be found", request.target);
        BuildError::new(ErrorKind::InvalidParameter, message)
    })?;
    let (mut seen, mut open) = (HashSet::from([wanted]), vec![wanted]);
    let (mut arguments, mut secrets, mut agents) =
        (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    while let Some(number) = open.pop() {
        let stage = &stages[number];
        let mut from: Vec<String> = vec![stage.base.clone()];
        for line in &stage.instructions {
            match &line.node {
                Instruction::Arg(definitions) => {
                    for argument in definitions {
                        arguments.entry((line.span, argument.key.clone())).or_insert(argument);
                    }
                }
                Instruction::Copy(copy) => from.extend(copy.from.clone()),
                Instruction::Run(run) => {
                    for flag in &run.mount_flags {
                        let field = |name: &str| {
                            flag.split(',').find_map(|part| {
                                part.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)
                            })
                        };
                        let required = match field("required").as_deref() {
                            Some(value) => value != "false" && value != "0",
                            None => flag.split(',').any(|part| part == "required"),
                        };
                        from.extend(field("from"));
                        match field("type").as_deref() {
                            Some("secret") => {
                                let id = field("id").or_else(|| field("source")).or_else(|| {
                                    let target = field("target").or_else(|| field("dst"))?;
                                    target.rsplit('/').next().map(str::to_owned)
                                });
                                let id = id.unwrap_or_default();
                                secrets.entry(id).or_insert((line.span, required));
                            }
                            Some("ssh") => {
                                let id = field("id").unwrap_or_else(|| "default".to_owned());
                                agents.entry(id).or_insert((line.span, required));
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        for name in from {
            if let Some(below) = find(stages, number, &name)
                && seen.len() < MAX_STAGES
                && seen.insert(below)
            {
                open.push(below);
            }
        }
    }
    for line in &dockerfile.meta_args {
        for argument in &line.node {
            let name = format!("${{{}", argument.key);
            let short = format!("${}", argument.key);
            let used = |stage: &Stage| {
                let platform = stage.platform.as_deref().unwrap_or_default();
                [stage.base.as_str(), platform]
                    .iter()
                    .any(|text| text.contains(&name) || text.contains(&short))
            };
            if seen.iter().any(|number| used(&stages[*number])) {
                arguments.entry((line.span, argument.key.clone())).or_insert(argument);
            }
        }
    }
    let stage = &stages[wanted];
    let mut named = HashSet::new();
    let arguments: Vec<Value> = arguments
        .into_iter()
        .filter(|((_, key), _)| named.insert(key.clone()))
        .map(|((span, key), argument)| {
            let given = request.args.get(&key).cloned().flatten();
            let mut value = json!({"name": key, "location": ranges(span)});
            if let Some(text) = given.or_else(|| argument.value.clone()) {
                value["value"] = text.into();
            }
            if let Some(description) = &argument.description {
                value["description"] = description.as_str().into();
            }
            value
        })
        .collect();
    let needs = |needs: BTreeMap<String, (Span, bool)>| -> Vec<Value> {
        let mut needs: Vec<_> = needs.into_iter().collect();
        needs.sort_by_key(|(_, (span, _))| *span);
        let each = needs.into_iter().map(|(name, (span, required))| {
            let mut value = json!({"name": name, "location": ranges(span)});
            if required {
                value["required"] = true.into();
            }
            value
        });
        each.collect()
    };
    let mut outline = json!({
        "args": arguments,
        "secrets": needs(secrets),
        "ssh": needs(agents),
        "sources": [STANDARD.encode(text)],
    });
    if let Some(name) = &stage.name {
        outline["name"] = name.as_str().into();
    }
    if let Some(description) = &stage.description {
        outline["description"] = description.as_str().into();
    }
    Ok(outline)
}

/// The stage of a name or number among the first `count`.
fn find(stages: &[Stage], count: usize, name: &str) -> Option<usize> {
    let lower = name.to_lowercase();
    let named = stages[..count].iter().rposition(|stage| stage.name.as_ref() == Some(&lower));
    named.or_else(|| name.parse().ok().filter(|number| *number < count))
}

/// `docker build --call subrequests.describe`.
fn describe() -> Value {
    let request = |name: &str, description: &str, metadata: &[&str]| {
        let metadata: Vec<Value> = metadata.iter().map(|name| json!({"name": name})).collect();
        json!({
            "name": name,
            "version": VERSION,
            "type": "rpc",
            "description": description,
            "opts": [],
            "metadata": metadata,
        })
    };
    let plain = ["result.json", "result.txt"];
    json!([
        request(
            "frontend.lint",
            "Lint a Dockerfile",
            &["result.json", "result.txt", "result.statuscode"]
        ),
        request("frontend.outline", "List all parameters current build target supports", &plain),
        request("frontend.targets", "List all targets current build supports", &plain),
        request("frontend.subrequests.describe", "List available subrequest types", &plain),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"ARG VERSION=1\n\
        # base is what all stand on\n\
        FROM busybox:${VERSION} AS base\n\
        # who it greets\n\
        ARG NAME=world\n\
        FROM scratch AS unused\n\
        ARG NEVER\n\
        FROM busybox AS last\n\
        COPY --from=base /a /b\n\
        RUN --mount=type=secret,id=token,required=true --mount=type=ssh true\n";

    #[test]
    fn targets_are_listed() {
        let list = targets(TEXT, &silo_dockerfile::parse(TEXT).unwrap());
        let names: Vec<_> = list["targets"].as_array().unwrap().iter().collect();
        assert_eq!(names.len(), 3);
        assert_eq!(names[0]["name"], "base");
        assert_eq!(names[0]["base"], "busybox:${VERSION}");
        assert_eq!(names[0]["default"], Value::Null);
        assert_eq!(names[2]["default"], true);
        assert_eq!(names[2]["location"]["ranges"][0]["start"]["line"], 8);
    }

    #[test]
    fn an_outline_has_what_the_stage_needs() {
        let mut request = BuildRequest::new(ContextRef::Empty);
        request.args.insert("NAME".into(), Some("you".into()));
        let dockerfile = silo_dockerfile::parse(TEXT).unwrap();
        let found = outline(TEXT, &dockerfile, &request).unwrap();
        let names = |what: &str| -> Vec<String> {
            let list = found[what].as_array().unwrap().iter();
            list.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(found["name"], "last");
        assert_eq!(names("args"), ["VERSION", "NAME"]);
        assert_eq!(found["args"][1]["value"], "you");
        assert_eq!(names("secrets"), ["token"]);
        assert_eq!(found["secrets"][0]["required"], true);
        assert_eq!(names("ssh"), ["default"]);
        request.target = "none".into();
        let error = outline(TEXT, &dockerfile, &request).unwrap_err();
        assert_eq!(error.message, "target stage \"none\" could not be found");
    }
}

//! From a Dockerfile to the stages that have to be built, and what each of them needs.

use std::collections::BTreeMap;

use silo_dockerfile::ast::{Dockerfile, Instruction, Stage};
use silo_dockerfile::{Expander, ParseError};
use silo_oci::platform::Platform;

use crate::request::BuildRequest;

/// Arguments that need no `ARG`, and by which no step is told from another.
pub(crate) const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What a stage or `--from` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// A context of this name that the client gave.
    Context(String),
    /// An image.
    Image(String),
}

/// A stage, ready to be built.
#[derive(Debug, Clone)]
pub(crate) struct PlannedStage {
    /// Its place in the file, from 0.
    pub(crate) index: usize,
    /// What it is as in the file.
    pub(crate) stage: Stage,
    /// What it begins with.
    pub(crate) base: Origin,
    /// What the base is called.
    pub(crate) base_name: String,
    /// The platform that `FROM` asks for.
    pub(crate) platform: Option<Platform>,
    /// How the classic output numbers its `FROM`.
    pub(crate) first_step: usize,
}

/// What is to be built.
#[derive(Debug)]
pub(crate) struct Plan {
    /// All stages of the file; those that nothing needs are never built.
    pub(crate) stages: Vec<PlannedStage>,
    /// The one that is wanted.
    pub(crate) target: usize,
    /// Those that it needs, itself included, in the file's order.
    pub(crate) needed: Vec<usize>,
    /// Arguments of before the first `FROM`, and those of platforms.
    pub(crate) globals: BTreeMap<String, String>,
    /// How words are expanded.
    pub(crate) expander: Expander,
    /// How many steps the classic output counts.
    pub(crate) total: usize,
}

/// The arguments that every build has: its platforms and its target.
pub(crate) fn predefined(request: &BuildRequest) -> BTreeMap<String, String> {
    let host = Platform::host();
    let target = request.platform.as_ref().unwrap_or(&host);
    let stage = request.target.as_str();
    let mut map = BTreeMap::new();
    for (prefix, platform) in [("BUILD", &host), ("TARGET", target)] {
        for (name, value) in [
            ("PLATFORM", text(platform)),
            ("OS", platform.os.clone()),
            ("ARCH", platform.architecture.clone()),
            ("VARIANT", platform.variant.clone()),
            ("OSVERSION", platform.os_version.clone()),
        ] {
            map.insert(format!("{prefix}{name}"), value);
        }
    }
    map.insert("TARGETSTAGE".into(), if stage.is_empty() { "default" } else { stage }.into());
    map
}

/// `os/architecture[/variant]`.
pub(crate) fn text(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if !platform.variant.is_empty() {
        text.push('/');
        text.push_str(&platform.variant);
    }
    text
}

/// Reads `--platform`.
pub(crate) fn parse_platform(text: &str) -> Result<Platform, String> {
    text.parse().map_err(|error| format!("failed to parse platform {text}: {error}"))
}

impl Plan {
    /// Plans a build.
    pub(crate) fn new(dockerfile: &Dockerfile, request: &BuildRequest) -> Result<Self, ParseError> {
        let expander = Expander::new(dockerfile.directives.escape);
        let mut globals = predefined(request);
        for name in globals.keys().cloned().collect::<Vec<_>>() {
            if let Some(Some(value)) = request.args.get(&name) {
                globals.insert(name, value.clone());
            }
        }
        for line in &dockerfile.meta_args {
            for definition in &line.node {
                let given = request.args.get(&definition.key).cloned().flatten();
                let value = match (given, &definition.value) {
                    (Some(given), _) => Some(given),
                    (None, Some(default)) => {
                        let lookup = |name: &str| globals.get(name).cloned();
                        let word = expander.word(default, &lookup);
                        Some(word.map_err(|error| error.at(line.span))?)
                    }
                    (None, None) => None,
                };
                if let Some(value) = value {
                    globals.insert(definition.key.clone(), value);
                }
            }
        }
        let mut stages: Vec<PlannedStage> = Vec::new();
        let lookup = |name: &str| globals.get(name).cloned();
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            let expand =
                |text: &str| expander.word(text, &lookup).map_err(|error| error.at(stage.span));
            let base_name = expand(&stage.base)?;
            if base_name.is_empty() {
                // buildkit wording
                let message = format!("base name ({}) should not be blank", stage.base);
                return Err(error(message, stage));
            }
            let platform = match stage.platform.as_deref().map(expand).transpose()? {
                None => None,
                Some(text) if text.is_empty() => {
                    let shown = stage.platform.as_deref().unwrap_or_default();
                    // buildkit wording
                    let message = format!("empty platform value from expression {shown}");
                    return Err(error(message, stage));
                }
                Some(text) => Some(parse_platform(&text).map_err(|message| error(message, stage))?),
            };
            let base = origin(&base_name, &stages, request, false);
            stages.push(PlannedStage {
                index,
                stage: stage.clone(),
                base,
                base_name,
                platform,
                first_step: 0,
            });
        }
        let target = find_target(&stages, &request.target)?;
        let mut needed = vec![false; stages.len()];
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if std::mem::replace(&mut needed[index], true) {
                continue;
            }
            let stage = &stages[index];
            let base = std::iter::once(stage.base.clone());
            let more = stage.stage.instructions.iter().flat_map(|line| sources(&line.node));
            let more = more.map(|name| origin(&name, &stages[..index], request, true));
            for origin in base.chain(more) {
                if let Origin::Stage(index) = origin {
                    open.push(index);
                }
            }
        }
        let needed: Vec<usize> = (0..stages.len()).filter(|index| needed[*index]).collect();
        let mut total = 0;
        for index in &needed {
            stages[*index].first_step = total + 1;
            total += 1 + stages[*index].stage.instructions.len();
        }
        Ok(Self { stages, target, needed, globals, expander, total })
    }

    /// What `--from` of an instruction of a stage means.
    pub(crate) fn origin(&self, name: &str, stage: usize, request: &BuildRequest) -> Origin {
        origin(name, &self.stages[..stage], request, true)
    }
}

fn error(message: String, stage: &Stage) -> ParseError {
    ParseError { message, span: Some(stage.span), excerpt: None }
}

/// The `--from`s of an instruction.
fn sources(instruction: &Instruction) -> Vec<String> {
    match instruction {
        Instruction::Copy(copy) => copy.from.clone().into_iter().collect(),
        Instruction::Run(run) => run.mounts.iter().filter_map(|mount| mount.from.clone()).collect(),
        _ => Vec::new(),
    }
}

/// What a name stands for, where `stages` come before.
fn origin(name: &str, stages: &[PlannedStage], request: &BuildRequest, numbers: bool) -> Origin {
    let lower = name.to_lowercase();
    let known = stages.iter().rposition(|stage| stage.stage.name.as_deref() == Some(&lower));
    if let Some(index) = known {
        return Origin::Stage(index);
    }
    if numbers && let Some(index) = name.parse().ok().filter(|index| *index < stages.len()) {
        return Origin::Stage(index);
    }
    if let Some(context) = context_name(name, request) {
        return Origin::Context(context);
    }
    if name == "scratch" {
        return Origin::Scratch;
    }
    Origin::Image(name.to_owned())
}

/// The context that a client gave for a name, which may be an image's in its long form.
fn context_name(name: &str, request: &BuildRequest) -> Option<String> {
    let lower = name.to_lowercase();
    let known = |name: &str| request.named_contexts.contains_key(name).then(|| name.to_owned());
    known(name).or_else(|| known(&lower)).or_else(|| {
        let reference = silo_oci::reference::Reference::parse_normalized(name).ok()?;
        known(&reference.familiar()).or_else(|| known(&reference.to_string()))
    })
}

fn find_target(stages: &[PlannedStage], target: &str) -> Result<usize, ParseError> {
    if target.is_empty() {
        return Ok(stages.len() - 1);
    }
    let lower = target.to_lowercase();
    if let Some(at) = stages.iter().rposition(|stage| stage.stage.name.as_deref() == Some(&lower)) {
        return Ok(at);
    }
    if let Ok(index) = target.parse::<usize>()
        && index < stages.len()
    {
        return Ok(index);
    }
    // buildkit wording
    let message = format!("target stage {target:?} could not be found");
    Err(ParseError { message, span: None, excerpt: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::ContextRef;

    fn plan(text: &str, change: impl FnOnce(&mut BuildRequest)) -> Result<Plan, ParseError> {
        let mut request = BuildRequest::new(ContextRef::Empty);
        change(&mut request);
        Plan::new(&silo_dockerfile::parse(text.as_bytes()).unwrap(), &request)
    }

    #[test]
    fn only_what_is_needed() {
        let text = "FROM a AS one\nRUN x\nFROM b AS two\nFROM c\nCOPY --from=one /x /y\n\
                    FROM two AS three\nRUN --mount=from=2,target=/m x\nFROM d AS unused\n\
                    FROM three\n";
        let plan = plan(text, |_| {}).unwrap();
        assert_eq!(plan.needed, [0, 1, 2, 3, 5]);
        assert_eq!(plan.stages[5].base, Origin::Stage(3));
        assert_eq!(plan.total, 5 + 1 + 1 + 1);
        let first: Vec<usize> = plan.needed.iter().map(|i| plan.stages[*i].first_step).collect();
        assert_eq!(first, [1, 3, 4, 6, 8]);
    }

    #[test]
    fn targets_and_arguments() {
        let text = "ARG V=1\nARG N=base:$V\nFROM $N AS a\nFROM --platform=$BUILDPLATFORM a AS B\n\
                    FROM scratch\n";
        let first = plan(text, |request| request.target = "A".into()).unwrap();
        assert_eq!((first.target, first.stages[0].base_name.as_str()), (0, "base:1"));
        let given = plan(text, |request| {
            request.args.insert("V".into(), Some("7".into()));
            request.args.insert("OTHER".into(), Some("x".into()));
            request.target = "1".into();
        })
        .unwrap();
        assert_eq!(given.stages[0].base_name, "base:7");
        assert_eq!(given.stages[1].platform, Some(Platform::host()));
        assert_eq!(given.needed, [0, 1]);
        let error = plan(text, |request| request.target = "x".into()).unwrap_err();
        assert_eq!(error.message, "target stage \"x\" could not be found");
        let error = plan("FROM $X\n", |_| {}).unwrap_err();
        assert_eq!(error.message, "base name ($X) should not be blank");
    }

    #[test]
    fn contexts_go_before_images() {
        let text = "FROM alpine\nCOPY --from=files /a /b\n";
        let contexts = |request: &mut BuildRequest| {
            request.named_contexts.insert("alpine".into(), ContextRef::Image("busybox".into()));
            request.named_contexts.insert("files".into(), ContextRef::Empty);
        };
        let plan = plan(text, contexts).unwrap();
        assert_eq!(plan.stages[0].base, Origin::Context("alpine".into()));
        let mut request = BuildRequest::new(ContextRef::Empty);
        contexts(&mut request);
        assert_eq!(plan.origin("files", 0, &request), Origin::Context("files".into()));
        assert_eq!(plan.origin("other", 0, &request), Origin::Image("other".into()));
    }
}

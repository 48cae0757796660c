//! The steps of a build as provenance tells them: BuildKit's low-level form, as JSON.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use silo_dockerfile::MountKind;
use silo_dockerfile::ast::{Instruction, Network, Run};
use silo_oci::reference::Reference;

use super::capture::{Captured, Step, redacted};
use crate::context::ContextRef;
use crate::job::Job;
use crate::plan::Origin;
use crate::run::command;
use crate::stage::Turn;
use crate::state::State;

/// How much of the host's network a step has, by BuildKit's numbers.
const NETWORK_HOST: u8 = 1;
const NETWORK_NONE: u8 = 2;

/// The steps that a result stands on, each behind those that it needs.
pub(super) struct Steps {
    /// They.
    pub(super) list: Vec<Value>,
    /// Their lines, by their names.
    pub(super) locations: Map<String, Value>,
}

/// Puts the steps beneath `last` in order; the order in which they were carried out is chance.
pub(super) fn in_order(captured: &Captured, last: Option<usize>) -> Steps {
    let mut numbers: HashMap<usize, usize> = HashMap::new();
    let mut steps = Steps { list: Vec::new(), locations: Map::new() };
    let mut waiting: Vec<(usize, bool)> = last.map(|last| (last, false)).into_iter().collect();
    let inputs = |numbers: &HashMap<usize, usize>, inputs: &[usize]| -> Vec<Value> {
        let number = |input: &usize| numbers.get(input).map(|at| format!("step{at}:0").into());
        inputs.iter().filter_map(number).collect()
    };
    while let Some((at, is_ready)) = waiting.pop() {
        let Some(step) = captured.steps.get(at).filter(|_| !numbers.contains_key(&at)) else {
            continue;
        };
        if !is_ready {
            waiting.push((at, true));
            waiting.extend(step.inputs.iter().rev().map(|input| (*input, false)));
            continue;
        }
        let id = format!("step{}", steps.list.len());
        steps.list.push(json!({
            "id": id, "op": step.operation, "inputs": inputs(&numbers, &step.inputs),
        }));
        numbers.insert(at, steps.list.len() - 1);
        if let Some(span) = step.span {
            let range = json!({
                "start": { "line": span.start_line }, "end": { "line": span.end_line },
            });
            steps.locations.insert(id, json!({ "locations": [{ "ranges": [range] }] }));
        }
    }
    if let Some(last) = last {
        let id = format!("step{}", steps.list.len());
        let inputs = inputs(&numbers, &[last]);
        steps.list.push(json!({ "id": id, "op": { "Op": null }, "inputs": inputs }));
    }
    steps
}

fn source(identifier: String) -> Value {
    json!({ "Op": { "source": { "identifier": identifier } } })
}

/// An operation on files: of a step, and of what it takes files from.
fn on_files(actions: &[Value], platform: Value) -> Value {
    json!({ "Op": { "file": { "actions": actions } }, "platform": platform })
}

fn platform(state: &State) -> Value {
    let own = state.image.platform();
    json!({ "OS": own.os, "Architecture": own.architecture, "Variant": own.variant })
}

impl Job {
    /// Are steps told at all?
    fn tells_steps(&self) -> bool {
        let provenance = self.request.attest.as_ref().and_then(|attest| attest.provenance.as_ref());
        provenance.is_some_and(|provenance| provenance.max)
    }

    fn source_step(&self, identifier: String) -> Option<usize> {
        self.capture.step(Step { operation: source(identifier), inputs: Vec::new(), span: None })
    }

    /// What a stage begins with, as a step.
    pub(crate) fn tell_base(&self, turn: (&Origin, silo_dockerfile::Span), state: &mut State) {
        if !self.tells_steps() {
            return;
        }
        let (origin, span) = turn;
        let Some(identifier) = self.identifier(origin) else { return };
        let operation = json!({
            "Op": { "source": { "identifier": identifier } }, "platform": platform(state),
        });
        state.step = self.capture.step(Step { operation, inputs: Vec::new(), span: Some(span) });
    }

    /// The name of a source that is not a stage.
    fn identifier(&self, origin: &Origin) -> Option<String> {
        let image = |name: &str| {
            let full = Reference::parse_normalized(name);
            let full = full.map_or_else(|_| name.to_owned(), |name| name.to_string());
            format!("docker-image://{full}")
        };
        Some(match origin {
            Origin::Image(name) => image(name),
            Origin::Context(name) => match self.request.named_contexts.get(name) {
                Some(ContextRef::Image(name)) => image(name),
                Some(ContextRef::Git(url) | ContextRef::Http(url)) => redacted(url),
                Some(ContextRef::Layout { digest, .. }) => format!("oci-layout://{name}@{digest}"),
                Some(ContextRef::Files(_)) => format!("local://{name}"),
                Some(ContextRef::Empty) | None => return None,
            },
            Origin::Stage(_) | Origin::Scratch => return None,
        })
    }

    /// The step whose result `--from` takes files from.
    async fn step_from(self: &Arc<Self>, turn: &Turn<'_>, from: Option<&str>) -> Option<usize> {
        let Some(from) = from else {
            let context = match &self.request.context {
                ContextRef::Git(url) | ContextRef::Http(url) => redacted(url),
                _ => "local://context".to_owned(),
            };
            return self.source_step(context);
        };
        match self.plan.origin(from, turn.stage.index, &self.request) {
            Origin::Stage(index) => self.stage(index).await.ok()?.step,
            other => self.source_step(self.identifier(&other)?),
        }
    }

    /// Writes down what an instruction takes, and, where that is wanted, what it does. Gives its
    /// step.
    pub(crate) async fn tell(
        self: &Arc<Self>,
        turn: &Turn<'_>,
        state: &State,
        instruction: &Instruction,
    ) -> Option<usize> {
        if let Instruction::Run(run) = instruction {
            self.tell_run(run);
        }
        if !self.tells_steps() {
            return None;
        }
        let mut inputs: Vec<usize> = state.step.into_iter().collect();
        let below = if inputs.is_empty() { -1 } else { 0 };
        let operation = match instruction {
            Instruction::Run(run) => {
                let command = command(state, run);
                let mut mounts = vec![json!({ "input": below, "dest": "/", "output": 0 })];
                for mount in &run.mounts {
                    let mut told = json!({
                        "input": -1, "output": -1, "readonly": mount.read_only,
                        "dest": mount.target.clone().unwrap_or_default(),
                    });
                    let id = mount.id.clone().unwrap_or_default();
                    let optional = !mount.required;
                    match mount.kind {
                        MountKind::Bind => {}
                        MountKind::Secret => {
                            told["mountType"] = 1.into();
                            told["secretOpt"] = json!({ "ID": id, "optional": optional });
                        }
                        MountKind::Ssh => {
                            told["mountType"] = 2.into();
                            told["SSHOpt"] = json!({ "ID": id, "optional": optional });
                        }
                        MountKind::Cache => {
                            told["mountType"] = 3.into();
                            told["cacheOpt"] = json!({ "ID": id });
                        }
                        MountKind::Tmpfs => told["mountType"] = 4.into(),
                    }
                    if matches!(mount.kind, MountKind::Bind | MountKind::Cache)
                        && (mount.kind == MountKind::Bind || mount.from.is_some())
                        && let Some(from) = self.step_from(turn, mount.from.as_deref()).await
                    {
                        told["input"] = inputs.len().into();
                        told["selector"] = mount.source.clone().unwrap_or_default().into();
                        inputs.push(from);
                    }
                    mounts.push(told);
                }
                let env: Vec<String> =
                    state.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let mut exec = json!({
                    "meta": {
                        "args": command.words(), "env": env,
                        "cwd": if state.image.config.working_dir.is_empty() { "/" } else {
                            &state.image.config.working_dir
                        },
                        "user": state.image.config.user,
                    },
                    "mounts": mounts,
                });
                match self.network_of(run).as_str() {
                    "host" => exec["network"] = NETWORK_HOST.into(),
                    "none" => exec["network"] = NETWORK_NONE.into(),
                    _ => {}
                }
                json!({ "Op": { "exec": exec }, "platform": platform(state) })
            }
            Instruction::Copy(copy) => {
                let from = self.step_from(turn, copy.from.as_deref()).await;
                self.copying(state, &copy.sources, from, &mut inputs)
            }
            Instruction::Add(add) => {
                let is_remote = |path: &String| {
                    crate::fetch::is_url(path)
                        || crate::fetch::GitRef::parse(path).is_ok_and(|git| git.is_some())
                };
                let from = if add.sources.paths.iter().all(is_remote) {
                    None
                } else {
                    self.step_from(turn, None).await
                };
                self.copying(state, &add.sources, from, &mut inputs)
            }
            Instruction::Workdir(path) => {
                let path = state.workdir(path).unwrap_or_else(|_| path.clone());
                let make = json!({ "path": path, "mode": 0o755, "makeParents": true });
                let action = json!({
                    "input": below, "secondaryInput": -1, "output": 0, "Action": { "mkdir": make },
                });
                on_files(&[action], platform(state))
            }
            _ => return state.step,
        };
        self.capture.step(Step { operation, inputs, span: Some(turn.span) }).or(state.step)
    }

    /// The operation of a copy.
    fn copying(
        &self,
        state: &State,
        sources: &silo_dockerfile::ast::Sources,
        from: Option<usize>,
        inputs: &mut Vec<usize>,
    ) -> Value {
        let below = if inputs.is_empty() { -1 } else { 0 };
        let destination = state.workdir(&sources.destination);
        let destination = destination.unwrap_or_else(|_| sources.destination.clone());
        let mut actions = Vec::new();
        let action = |source: Value, action: Value| json!({ "input": below, "secondaryInput": source, "output": 0, "Action": action });
        let mut shared = None;
        for path in &sources.paths {
            let remote = match crate::fetch::GitRef::parse(path) {
                Ok(Some(git)) => Some(format!("git://{}", redacted(&git.remote))),
                _ if crate::fetch::is_url(path) => Some(redacted(path)),
                _ => None,
            };
            let is_remote = remote.is_some();
            let source = match remote {
                Some(identifier) => self.source_step(identifier).map(|step| {
                    inputs.push(step);
                    inputs.len() - 1
                }),
                None => {
                    if shared.is_none() {
                        shared = from.map(|step| {
                            inputs.push(step);
                            inputs.len() - 1
                        });
                    }
                    shared
                }
            };
            let source = source.map_or(json!(-1), |source| json!(source));
            let path = if is_remote { "/" } else { path.as_str() };
            actions.push(action(source, json!({ "copy": { "src": path, "dest": destination } })));
        }
        for inline in &sources.inline {
            let path = format!("{}/{}", destination.trim_end_matches('/'), inline.name);
            actions.push(action(json!(-1), json!({ "mkfile": { "path": path } })));
        }
        on_files(&actions, platform(state))
    }

    /// Writes down what a `RUN` may use besides files.
    fn tell_run(&self, run: &Run) {
        for mount in &run.mounts {
            let optional = !mount.required;
            match mount.kind {
                MountKind::Secret => {
                    let target = mount.target.as_deref();
                    let id = mount.id.as_deref().or(mount.source.as_deref());
                    let id = id.or_else(|| target.and_then(|target| target.rsplit('/').next()));
                    self.capture.secret(id.unwrap_or_default(), optional);
                }
                MountKind::Ssh => {
                    self.capture.ssh(mount.id.as_deref().unwrap_or("default"), optional);
                }
                _ => {}
            }
        }
        if self.network_of(run) != "none" {
            self.capture.network();
        }
    }

    /// The network of a `RUN`.
    pub(crate) fn network_of(&self, run: &Run) -> String {
        match run.network {
            Network::Default => self.request.network.clone(),
            Network::None => "none".into(),
            Network::Host => "host".into(),
        }
    }
}

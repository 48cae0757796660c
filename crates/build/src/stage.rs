//! One stage: its base, and its instructions in order.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use silo_docker::stream::StreamMessage;
use silo_dockerfile::ast::{Instruction, Located};
use silo_dockerfile::{Expander, Span};
use silo_engine::images::{Entry, WhichBase};
use silo_oci::image::{Empty, Healthcheck, ImageConfig};
use silo_oci::platform::Platform;
use silo_oci::reference::Reference;
use silo_types::{Error, ErrorKind};

use crate::context::ContextRef;
use crate::job::{Job, Work};
use crate::outcome::BuildError;
use crate::plan::{Origin, PROXIES, PlannedStage};
use crate::progress::{NoteKind, Step};
use crate::state::State;

/// The longest history whose image is shown after each instruction.
const MAX_SHOWN: usize = 2000;

/// One instruction on its way.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) job: &'a Arc<Job>,
    pub(crate) stage: &'a PlannedStage,
    /// Its text as written.
    pub(crate) source: &'a str,
    pub(crate) span: Span,
    /// What people see of it.
    pub(crate) title: String,
    /// For the classic output; triggers of a base image have none of their own.
    pub(crate) step: Option<Step>,
    /// Nothing is taken from the cache.
    pub(crate) no_cache: bool,
}

impl Turn<'_> {
    /// Begins its work.
    pub(crate) fn work(&self) -> Work {
        self.job.work(&self.title, self.step.clone())
    }

    /// An error of this instruction.
    pub(crate) fn error(&self, error: impl Into<BuildError>) -> BuildError {
        let mut error = error.into();
        error.location.get_or_insert_with(|| self.job.location(self.span));
        error
    }
}

fn invalid(message: impl Into<String>) -> BuildError {
    BuildError::new(ErrorKind::InvalidParameter, message)
}

impl Job {
    /// Builds a stage.
    pub(crate) async fn build_stage(self: &Arc<Self>, index: usize) -> Result<State, BuildError> {
        let stage = &self.plan.stages[index];
        let lines = &stage.stage.instructions;
        let makes_vertex = |line: &&Located<Instruction>| {
            matches!(
                line.node,
                Instruction::Run(_)
                    | Instruction::Copy(_)
                    | Instruction::Add(_)
                    | Instruction::Workdir(_)
            )
        };
        let count = 1 + lines.iter().filter(makes_vertex).count();
        let mut number = 1;
        let mut state = self.base(stage, count).await?;
        let no_cache = self.request.no_cache || self.is_filtered(stage);
        let triggers = state.config().on_build.take().unwrap_or_default();
        for text in &triggers {
            let trigger = silo_dockerfile::parse_trigger(text).map_err(|error| {
                let mut error = invalid(error.to_string());
                error.location = Some(self.location(stage.stage.span));
                error
            })?;
            let turn = Turn {
                job: self,
                stage,
                source: &trigger.source,
                span: stage.stage.span,
                title: format!("{} {}", self.prefix(stage, 1, count), trigger.source),
                step: None,
                no_cache,
            };
            state = self.instruction(turn, state, trigger.node.clone()).await?;
        }
        for (at, line) in lines.iter().enumerate() {
            let mut title = String::new();
            if makes_vertex(&line) {
                number += 1;
                let shown = self.shown(&state, &line.source);
                title = format!("{} {shown}", self.prefix(stage, number, count));
            }
            let step = Step {
                number: stage.first_step + 1 + at,
                total: self.plan.total,
                text: line.source.clone(),
                line: line.span.start_line,
            };
            let turn = Turn {
                job: self,
                stage,
                source: &line.source,
                span: line.span,
                title,
                step: Some(step),
                no_cache,
            };
            state = self.instruction(turn, state, line.node.clone()).await?;
        }
        Ok(state)
    }

    fn is_filtered(&self, stage: &PlannedStage) -> bool {
        let index = stage.index.to_string();
        self.request.no_cache_filter.iter().any(|name| {
            *name == index
                || stage.stage.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name))
        })
    }

    /// `[build 2/5]`.
    fn prefix(&self, stage: &PlannedStage, number: usize, count: usize) -> String {
        let name = match &stage.stage.name {
            Some(name) => format!("{name} "),
            None if self.plan.stages.len() > 1 => format!("stage-{} ", stage.index),
            None => String::new(),
        };
        let platform = match (self.request.show_platform, &self.request.platform) {
            (true, Some(platform)) => format!("{} ", crate::plan::text(platform)),
            _ => String::new(),
        };
        let width = count.to_string().len();
        format!("[{platform}{name}{number:>width$}/{count}]")
    }

    /// An instruction with the variables that have values replaced.
    fn shown(&self, state: &State, source: &str) -> String {
        let expander = Expander {
            raw_quotes: true,
            keep_unset: true,
            raw_escapes: true,
            ..self.plan.expander
        };
        let lookup = |name: &str| state.variable(name);
        let text = expander.word(source, &lookup).unwrap_or_else(|_| source.to_owned());
        match text.split_once(' ') {
            Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
            None => text.to_uppercase(),
        }
    }

    /// What a stage begins with.
    async fn base(
        self: &Arc<Self>,
        stage: &PlannedStage,
        count: usize,
    ) -> Result<State, BuildError> {
        let step = Step {
            number: stage.first_step,
            total: self.plan.total,
            text: stage.stage.source.clone(),
            line: stage.stage.span.start_line,
        };
        let shown = match &stage.base {
            Origin::Image(name) => Reference::parse_normalized(name)
                .map_or_else(|_| name.clone(), |reference| reference.to_string()),
            _ => stage.base_name.clone(),
        };
        let located = |error: BuildError| {
            let mut error = error;
            error.location.get_or_insert_with(|| self.location(stage.stage.span));
            error
        };
        if let Origin::Stage(index) = stage.base {
            let below = self.stage(index).await?;
            let work = self.work("", Some(step));
            let mut state = State::clone(&below);
            state.cmd_set = false;
            if let Some(platform) = &stage.platform
                && platform.os != state.image.os
            {
                let error = invalid(format!(
                    "stage {} is for {}, not for {}",
                    stage.base_name, state.image.os, platform.os
                ));
                return work.end(Err(located(error)));
            }
            work.note(NoteKind::Image(self.image_id(&state)));
            return work.end(Ok(state));
        }
        let title = format!("{} FROM {shown}", self.prefix(stage, 1, count));
        let mut work = self.work(&title, Some(step));
        let mut state = self.begin(stage, &work).await.map_err(located);
        if let Ok(state) = &mut state {
            self.tell_base((&stage.base, stage.stage.span), state);
            work.cached();
            match state.base {
                Some(base) => work.note(NoteKind::Image(base)),
                None => work.note(NoteKind::Text(" ---> ".into())),
            }
        }
        work.end(state)
    }

    async fn begin(
        self: &Arc<Self>,
        stage: &PlannedStage,
        work: &Work,
    ) -> Result<State, BuildError> {
        let host = Platform::host();
        let platform = stage.platform.clone().or_else(|| self.request.platform.clone());
        match &stage.base {
            Origin::Stage(_) | Origin::Scratch => {
                let platform = platform.unwrap_or(host);
                Ok(State::scratch(&platform.os, &platform.architecture, &platform.variant))
            }
            Origin::Image(name) => self.image_state(name, platform.as_ref(), None, work).await,
            Origin::Context(name) => match self.request.named_contexts.get(name) {
                Some(ContextRef::Image(image)) => {
                    self.image_state(image, platform.as_ref(), None, work).await
                }
                Some(ContextRef::Layout { source, digest }) => {
                    self.layout_state(name, source, *digest, platform.as_ref()).await
                }
                Some(ContextRef::Empty) | None => {
                    let platform = platform.unwrap_or(host);
                    Ok(State::scratch(&platform.os, &platform.architecture, &platform.variant))
                }
                Some(context) => {
                    let platform = platform.unwrap_or(host);
                    let state =
                        State::scratch(&platform.os, &platform.architecture, &platform.variant);
                    let ssh = &self.request.ssh;
                    let context = self.builder.files_of(context, ssh, &self.capture).await?;
                    let tree = self.named_tree(name, &context).await?;
                    self.layer_of_tree(state, tree).await
                }
            },
        }
    }

    /// The state of an image: from the store, or from its registry. It must be for `platform`; of
    /// an index without that, the one for `preferred` is taken.
    pub(crate) async fn image_state(
        &self,
        name: &str,
        platform: Option<&Platform>,
        preferred: Option<&Platform>,
        work: &Work,
    ) -> Result<State, BuildError> {
        let engine = &self.builder.engine;
        let is_exact = self.request.base == WhichBase::Exact;
        let entry = match engine.image_best(&looked_up(name), platform.or(preferred)) {
            Ok(entry) => {
                let lacks = is_exact && entry.image.stand_in.is_some();
                let fits = check_platform(name, platform, &entry.image.config).is_ok();
                if fits && !lacks && !self.request.pull {
                    entry
                } else {
                    match self.pull(name, platform, work).await {
                        // What was made here and never pushed is as new as it gets.
                        Err(error) if !lacks && (!fits || error.kind == ErrorKind::NotFound) => {
                            entry
                        }
                        pulled => pulled?,
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => match engine.substitute(name) {
                Some((entry, text)) if !is_exact => {
                    // Of Microsoft's base only the manifest comes.
                    if self.request.pull
                        && let Ok(entry) = self.pull(name, platform, work).await
                    {
                        return self.state_of(name, platform, &entry, work);
                    }
                    work.note(NoteKind::Warning(text.clone()));
                    work.log(crate::progress::Stream::Stderr, format!("{text}\n").into());
                    entry
                }
                _ => self.pull(name, platform, work).await?,
            },
            Err(error) => return Err(error.into()),
        };
        self.state_of(name, platform, &entry, work)
    }

    fn state_of(
        &self,
        name: &str,
        platform: Option<&Platform>,
        entry: &Entry,
        work: &Work,
    ) -> Result<State, BuildError> {
        let engine = &self.builder.engine;
        let image = &entry.image;
        check_platform(name, platform, &image.config)?;
        if let Some(text) = engine.stands_on(name, entry) {
            work.log(crate::progress::Stream::Stderr, format!("{text}\n").into());
        }
        let lease = engine.store().lease();
        for layer in &image.chain {
            lease.hold(*layer);
        }
        self.capture_image(name, entry);
        let mut state = State::of_image(image, lease);
        state.inert = engine.may_run(name, entry).err().map(|error| error.message().to_owned());
        Ok(state)
    }

    /// Pulls an image.
    async fn pull(
        &self,
        name: &str,
        platform: Option<&Platform>,
        work: &Work,
    ) -> Result<Arc<Entry>, BuildError> {
        let registry = Reference::parse_normalized(name)
            .map(|reference| reference.domain().to_owned())
            .unwrap_or_default();
        let credentials = self.request.registry_keys.credentials(&registry).await;
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = Arc::clone(&lines);
        let sink = move |message: StreamMessage| {
            // Layers come and go too fast to be told of.
            if message.id.is_empty() && !message.status.is_empty() {
                told.lock().unwrap_or_else(PoisonError::into_inner).push(message.status);
            }
        };
        let engine = &self.builder.engine;
        let platform = platform.or(self.request.platform.as_ref()).cloned();
        let base = self.request.base;
        // Rarely needed, and large.
        let pulled =
            Box::pin(engine.image_pull_for(name, platform, base, &credentials, sink)).await;
        for line in lines.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            work.log(crate::progress::Stream::Stderr, format!("{line}\n").into());
        }
        pulled.map_err(|error| missing(name, &error))
    }

    /// Carries out one instruction.
    async fn instruction(
        self: &Arc<Self>,
        turn: Turn<'_>,
        mut state: State,
        mut instruction: Instruction,
    ) -> Result<State, BuildError> {
        let expanded = {
            let lookup = |name: &str| state.variable(name);
            instruction.expand(&self.plan.expander, &lookup)
        };
        expanded.map_err(|error| turn.error(invalid(error.to_string())))?;
        self.wait_for_stages(&turn, &instruction).await?;
        let step = self.tell(&turn, &state, &instruction).await;
        let at = |state: State| State { step, ..state };
        match instruction {
            Instruction::Run(run) => self.run(&turn, state, run).await.map(at),
            Instruction::Copy(copy) => self.copy(&turn, state, copy.into()).await.map(at),
            Instruction::Add(add) => self.copy(&turn, state, add.into()).await.map(at),
            Instruction::Workdir(path) => self.workdir(&turn, state, &path).await.map(at),
            other => {
                let mut work = self.work("", turn.step.clone());
                let done = self.configure(&turn, &mut state, other);
                let done = done.and_then(|()| Ok(state.check_weight()?));
                if done.is_ok() && state.image.history.len() <= MAX_SHOWN {
                    let image = self.image_id(&state);
                    work.note(NoteKind::Image(image));
                    if self.was_made_before(&turn, &image)? {
                        work.cached();
                    }
                }
                work.end(done.map_err(|error| turn.error(error)))?;
                Ok(state)
            }
        }
    }

    /// Waits for the stages that an instruction takes files from: its own time begins then.
    async fn wait_for_stages(
        self: &Arc<Self>,
        turn: &Turn<'_>,
        instruction: &Instruction,
    ) -> Result<(), BuildError> {
        let sources: Vec<&str> = match instruction {
            Instruction::Copy(copy) => copy.from.as_deref().into_iter().collect(),
            Instruction::Run(run) => {
                run.mounts.iter().filter_map(|mount| mount.from.as_deref()).collect()
            }
            _ => Vec::new(),
        };
        for source in sources {
            if let Origin::Stage(index) = self.plan.origin(source, turn.stage.index, &self.request)
            {
                self.stage(index).await?;
            }
        }
        Ok(())
    }

    /// An instruction that changes the configuration only.
    fn configure(
        &self,
        turn: &Turn<'_>,
        state: &mut State,
        instruction: Instruction,
    ) -> Result<(), BuildError> {
        match instruction {
            Instruction::Arg(definitions) => {
                let mut shown = Vec::new();
                for definition in definitions {
                    let name = &definition.key;
                    self.use_argument(name);
                    let given = self.request.args.get(name);
                    let value = match (given, &definition.value) {
                        (Some(Some(value)), _) => Some(value.clone()),
                        // Given without a value: the client has none either.
                        (_, Some(default)) => {
                            let lookup = |name: &str| state.variable(name);
                            let word = self.plan.expander.word(default, &lookup);
                            Some(word.map_err(|error| invalid(error.to_string()))?)
                        }
                        (_, None) => self.plan.globals.get(name).cloned(),
                    };
                    shown.push(match &value {
                        Some(value) => format!("{name}={value}"),
                        None => name.clone(),
                    });
                    state.declare(name, value);
                }
                state.note(format!("ARG {}", shown.join(" ")), false);
            }
            Instruction::Env(pairs) => {
                let mut shown = String::from("ENV");
                for pair in pairs {
                    shown.push_str(&format!(" {}={}", pair.key, pair.value));
                    state.set_env(&pair.key, &pair.value);
                }
                state.note(shown, false);
            }
            Instruction::Label(pairs) => {
                let mut shown = String::from("LABEL");
                for pair in pairs {
                    shown.push_str(&format!(" {}={}", pair.key, pair.value));
                    state.config().labels.insert(pair.key, pair.value);
                }
                state.note(shown, false);
            }
            Instruction::Cmd(command) => {
                let (words, escaped) = state.command(&command);
                state.note(format!("CMD {}", quoted(&words)), false);
                state.config().args_escaped = escaped;
                state.config().cmd = Some(words);
                state.cmd_set = true;
            }
            Instruction::Entrypoint(command) => {
                let (words, escaped) = state.command(&command);
                state.note(format!("ENTRYPOINT {}", quoted(&words)), false);
                state.config().args_escaped = escaped;
                state.config().entrypoint = (!words.is_empty()).then_some(words);
                if !state.cmd_set {
                    state.config().cmd = None;
                }
            }
            Instruction::Expose(words) => {
                let ports = silo_dockerfile::expose::ports(&words)
                    .map_err(|error| invalid(error.to_string()))?;
                let shown: BTreeSet<_> = ports.iter().map(ToString::to_string).collect();
                let shown: Vec<String> = shown.into_iter().collect();
                state.note(format!("EXPOSE [{}]", shown.join(" ")), false);
                for port in ports {
                    state.config().exposed_ports.insert(port, Empty {});
                }
            }
            Instruction::Volume(paths) => {
                state.note(format!("VOLUME [{}]", paths.join(" ")), false);
                for path in paths {
                    if path.is_empty() {
                        // buildkit wording
                        return Err(invalid("VOLUME specified can not be an empty string"));
                    }
                    state.config().volumes.insert(path, Empty {});
                }
            }
            Instruction::User(user) => {
                state.note(format!("USER {user}"), false);
                state.config().user = user;
            }
            Instruction::StopSignal(signal) => {
                silo_engine::builds::check_signal(&signal)?;
                state.note(format!("STOPSIGNAL {signal}"), false);
                state.config().stop_signal = signal;
            }
            Instruction::Shell(words) => {
                state.note(format!("SHELL [{}]", words.join(" ")), false);
                state.config().shell = Some(words);
            }
            Instruction::HealthCheck(check) => {
                state.note(turn.source, false);
                let nanos = |time: std::time::Duration| i64::try_from(time.as_nanos()).unwrap_or(0);
                state.config().healthcheck = Some(Healthcheck {
                    test: Some(check.test).filter(|test| !test.is_empty()),
                    interval: nanos(check.interval),
                    timeout: nanos(check.timeout),
                    start_period: nanos(check.start_period),
                    start_interval: nanos(check.start_interval),
                    retries: check.retries.into(),
                });
            }
            Instruction::OnBuild(text) => {
                state.config().on_build.get_or_insert_default().push(text);
            }
            Instruction::Maintainer(name) => {
                state.note(format!("MAINTAINER {name}"), false);
                state.image.author = name;
            }
            Instruction::Run(_)
            | Instruction::Copy(_)
            | Instruction::Add(_)
            | Instruction::Workdir(_) => {}
        }
        Ok(())
    }

    /// Whether an earlier build came by this configuration. Nothing is saved by it; the classic
    /// output says so.
    fn was_made_before(
        &self,
        turn: &Turn<'_>,
        image: &silo_types::Digest,
    ) -> Result<bool, BuildError> {
        let mut key = crate::cache::KeyBuilder::new("configuration");
        key.field(image.to_string());
        let key = key.finish();
        let cache = &self.builder.cache;
        let known = cache.has_alias(&key)?;
        if !known {
            cache.alias(&key, "")?;
        }
        Ok(known
            && !turn.no_cache
            && self.allowed.as_ref().is_none_or(|allowed| !allowed.is_empty()))
    }

    /// Variables of a `RUN` that no `ARG` has to declare.
    pub(crate) fn proxies(&self) -> Vec<(String, String)> {
        let given = |name: &&str| self.request.args.get(*name).cloned().flatten();
        PROXIES
            .iter()
            .filter_map(|name| given(name).map(|value| ((*name).to_owned(), value)))
            .collect()
    }
}

/// Fails for an image of another platform than that which is wanted.
pub(crate) fn check_platform(
    name: &str,
    wanted: Option<&Platform>,
    image: &ImageConfig,
) -> Result<(), BuildError> {
    let actual = image.platform();
    if let Some(wanted) = wanted
        && (wanted.os != actual.os
            || (!image.architecture.is_empty() && wanted.architecture != actual.architecture))
    {
        // docker wording
        return Err(BuildError::new(
            ErrorKind::NotFound,
            format!(
                "image with reference {name} was found but does not match the specified platform: wanted {}/{}, actual: {}/{}",
                wanted.os, wanted.architecture, actual.os, actual.architecture
            ),
        ));
    }
    Ok(())
}

/// The error for an image that neither the store nor its registry gives.
pub(crate) fn missing(name: &str, cause: &Error) -> BuildError {
    let reference = match Reference::parse_normalized(name) {
        Ok(reference) => reference,
        Err(error) => {
            // buildkit wording
            return invalid(format!("failed to parse stage name {name:?}: {error}"));
        }
    };
    let text = cause.message();
    // buildkit wording
    let text = match cause.kind() {
        ErrorKind::NotFound => format!("{reference}: not found: {text}"),
        _ => text.to_owned(),
    };
    let text = format!("{name}: failed to resolve source metadata for {reference}: {text}");
    let mut error = BuildError::new(cause.kind(), text);
    error.classic = Some(cause.message().to_owned());
    error
}

/// Words as Go's `%q` writes a list.
fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| silo_dockerfile::quote::go(word)).collect();
    format!("[{}]", words.join(" "))
}

impl From<silo_dockerfile::ParseError> for BuildError {
    fn from(error: silo_dockerfile::ParseError) -> Self {
        Self::new(ErrorKind::InvalidParameter, error.message)
    }
}

/// An error of files as one of the build.
impl From<crate::copy::CopyError> for BuildError {
    fn from(error: crate::copy::CopyError) -> Self {
        Error::from_kind(error).into()
    }
}
/// Digits of an image's id that are taken for one.
const ID_DIGITS: usize = 12;

/// The text that an image is looked up by. A name such as `b` or `cafe` begins the id of some image
/// by chance, which is not what a Dockerfile means by it.
fn looked_up(name: &str) -> Cow<'_, str> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if name.len() < ID_DIGITS && name.bytes().all(is_digit) {
        return Cow::Owned(format!("{name}:latest"));
    }
    Cow::Borrowed(name)
}

//! What a Dockerfile says, before any variable is expanded.

use std::time::Duration;

use crate::directive::Directives;
use crate::lint::Warning;
use crate::mount::Mount;

/// Lines of the text, both ends included; the first line has the number 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The first line.
    pub start_line: u32,
    /// The last line, never before the first.
    pub end_line: u32,
}

impl Span {
    /// The lines from `start_line` to `end_line`, or one line when they are not in order.
    pub fn new(start_line: u32, end_line: u32) -> Self {
        Self { start_line, end_line: end_line.max(start_line) }
    }
}

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The parser directives of its head.
    pub directives: Directives,
    /// `ARG` before the first `FROM`: the variables of `FROM` lines.
    pub meta_args: Vec<Located<Vec<ArgDefinition>>>,
    /// The stages, at least one.
    pub stages: Vec<Stage>,
    /// What the checks of the text alone found; [`crate::lint::check`] knows more.
    pub warnings: Vec<Warning>,
}

/// `FROM base [AS name]` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The name in lower case.
    pub name: Option<String>,
    /// The image or stage as written.
    pub base: String,
    /// `--platform` as written.
    pub platform: Option<String>,
    /// What is done, in order.
    pub instructions: Vec<Located<Instruction>>,
    /// The lines of the `FROM`.
    pub span: Span,
    /// The `FROM` line itself.
    pub source: String,
    /// `FROM` as written.
    pub keyword: String,
    /// The description that a comment above gives: `# name description`.
    pub description: Option<String>,
    /// The comments directly above, without their `#`.
    pub comments: Vec<String>,
}

/// Something with its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The thing itself.
    pub node: T,
    /// Its lines, those of its here-documents included.
    pub span: Span,
    /// Its text with continued lines joined and without here-documents: what history and
    /// progress show.
    pub source: String,
    /// The instruction's word as written.
    pub keyword: String,
    /// The comments directly above, without their `#`.
    pub comments: Vec<String>,
}

/// One instruction. `FROM` is a [`Stage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `ADD`
    Add(Add),
    /// `ARG`
    Arg(Vec<ArgDefinition>),
    /// `CMD`
    Cmd(CommandLine),
    /// `COPY`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `ENV`
    Env(Vec<KeyValue>),
    /// `EXPOSE`: ports as written, sorted; [`crate::expose::ports`] reads them.
    Expose(Vec<String>),
    /// `HEALTHCHECK`
    HealthCheck(HealthCheck),
    /// `LABEL`
    Label(Vec<KeyValue>),
    /// `MAINTAINER`
    Maintainer(String),
    /// `ONBUILD`: the instruction's text with its here-documents, for [`crate::parse_trigger`].
    OnBuild(String),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    StopSignal(String),
    /// `USER`
    User(String),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `WORKDIR`
    Workdir(String),
}

impl Instruction {
    /// The instruction's word in upper case.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::HealthCheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::OnBuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }
}

/// `ARG key[=value]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDefinition {
    /// The name.
    pub key: String,
    /// The default.
    pub value: Option<String>,
    /// The description that a comment above gives: `# key description`.
    pub description: Option<String>,
}

/// One pair of `ENV` or `LABEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The name, never empty.
    pub key: String,
    /// The value, quotes and all until it is expanded.
    pub value: String,
    /// Written `ENV key value`, the old form.
    pub legacy: bool,
}

/// A command as `RUN`, `CMD` and `ENTRYPOINT` have it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandLine {
    /// Exec form: the arguments. Shell form: one text, or nothing at all.
    pub words: Vec<String>,
    /// Shell form: `words` go behind the shell's own words.
    pub shell: bool,
    /// Here-documents of a `RUN`. When the text is nothing but one of them it is the script.
    pub heredocs: Vec<Heredoc>,
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, without quotes.
    pub name: String,
    /// The text with its line ends, up to the line of the word; tabs as they were.
    pub content: String,
    /// Written with `<<-`: [`Heredoc::text`] has no leading tabs.
    pub chomp: bool,
    /// The word was not quoted: variables in the text are meant.
    pub expand: bool,
    /// The number before `<<`, 0 without one.
    pub descriptor: u64,
}

impl Heredoc {
    /// The text, without leading tabs where `<<-` asks for that.
    pub fn text(&self) -> String {
        if self.chomp { crate::heredoc::chomp(&self.content) } else { self.content.clone() }
    }
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// What to run.
    pub command: CommandLine,
    /// `--mount` as written.
    pub mount_flags: Vec<String>,
    /// The mounts. Complete after [`Instruction::expand`] only: before, nothing but `from` is
    /// known, because types and paths may be variables.
    pub mounts: Vec<Mount>,
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Security,
    /// `--device`.
    pub devices: Vec<Device>,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// What the build as a whole has.
    #[default]
    Default,
    /// None but loopback.
    None,
    /// The host's own.
    Host,
}

/// `RUN --security`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// As any container.
    #[default]
    Sandbox,
    /// Privileged.
    Insecure,
}

/// `RUN --device`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// The CDI name.
    pub name: String,
    /// The step fails without it.
    pub required: bool,
}

/// What `COPY` and `ADD` copy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// Paths (`ADD`: and URLs), here-documents left out.
    pub paths: Vec<String>,
    /// Files written in the Dockerfile itself.
    pub inline: Vec<InlineSource>,
    /// Where to.
    pub destination: String,
}

/// A source of `COPY` that is a here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineSource {
    /// The file's name.
    pub name: String,
    /// What is in it.
    pub data: String,
    /// Whether [`Instruction::expand`] replaces variables in it.
    pub expand: bool,
}

/// `COPY`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// What and where to.
    pub sources: Sources,
    /// `--from`: a stage, a stage's number, a named context or an image. Never expanded.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`. Never expanded.
    pub exclude: Vec<String>,
}

/// `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Add {
    /// What and where to.
    pub sources: Sources,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--exclude`. Never expanded.
    pub exclude: Vec<String>,
    /// `--keep-git-dir`, for git sources.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`, for remote sources.
    pub checksum: Option<String>,
    /// `--unpack`: without it local archives are unpacked and remote ones are not.
    pub unpack: Option<bool>,
}

/// `HEALTHCHECK`. A zero means what the base image or the engine has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HealthCheck {
    /// `["NONE"]`, `["CMD", words...]` or `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    /// `--interval`.
    pub interval: Duration,
    /// `--timeout`.
    pub timeout: Duration,
    /// `--start-period`.
    pub start_period: Duration,
    /// `--start-interval`.
    pub start_interval: Duration,
    /// `--retries`.
    pub retries: u32,
}

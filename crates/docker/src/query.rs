//! The query values of the larger verbs, as plain structs that server and client share.

use crate::Filters;

/// `GET /containers/json`.
#[derive(Debug, Clone, Default)]
pub struct ContainerListQuery {
    /// Those that do not run, too.
    pub all: bool,
    /// The newest so many; implies `all`.
    pub limit: Option<usize>,
    /// Compute sizes.
    pub size: bool,
    /// Filters.
    pub filters: Filters,
}

/// `GET /containers/{id}/logs`.
#[derive(Debug, Clone, Default)]
pub struct LogsQuery {
    /// Go on with new output.
    pub follow: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Unix time `seconds[.nanoseconds]`, or empty.
    pub since: String,
    /// Unix time `seconds[.nanoseconds]`, or empty.
    pub until: String,
    /// A timestamp before each line.
    pub timestamps: bool,
    /// Attributes of the log before each line.
    pub details: bool,
    /// `all`, empty, or the number of last lines.
    pub tail: String,
}

/// `POST /containers/{id}/attach`.
#[derive(Debug, Clone, Default)]
pub struct AttachQuery {
    /// Replay the log first.
    pub logs: bool,
    /// Stream what comes.
    pub stream: bool,
    /// Attach standard input.
    pub stdin: bool,
    /// Attach standard output.
    pub stdout: bool,
    /// Attach standard error.
    pub stderr: bool,
    /// Keys that detach, such as `ctrl-p,ctrl-q`; empty takes the default.
    pub detach_keys: String,
}

/// `POST /containers/{id}/stop` and `/restart`.
#[derive(Debug, Clone, Default)]
pub struct StopQuery {
    /// Empty takes the container's stop signal.
    pub signal: String,
    /// Seconds until SIGKILL, -1 for never; `None` takes the container's.
    pub timeout: Option<i64>,
}

/// `DELETE /containers/{id}`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ContainerRemoveQuery {
    /// Its anonymous volumes, too.
    pub volumes: bool,
    /// Kill it first.
    pub force: bool,
    /// Only the link of that name.
    pub link: bool,
}

/// What `POST /containers/{id}/wait` waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// That it does not run; at once when so.
    #[default]
    NotRunning,
    /// Its next exit.
    NextExit,
    /// Its removal.
    Removed,
}

impl WaitCondition {
    /// Reads the query value; empty is [`WaitCondition::NotRunning`].
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "not-running" => Self::NotRunning,
            "next-exit" => Self::NextExit,
            "removed" => Self::Removed,
            _ => return None,
        })
    }

    /// The query value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRunning => "not-running",
            Self::NextExit => "next-exit",
            Self::Removed => "removed",
        }
    }
}

/// `GET /events`.
#[derive(Debug, Clone, Default)]
pub struct EventsQuery {
    /// Unix time `seconds[.nanoseconds]`, or empty.
    pub since: String,
    /// Unix time `seconds[.nanoseconds]`, or empty.
    pub until: String,
    /// Filters.
    pub filters: Filters,
}

/// `GET /images/json`.
#[derive(Debug, Clone, Default)]
pub struct ImageListQuery {
    /// Tell the images for other platforms, too.
    pub manifests: bool,
    /// Intermediate images, too.
    pub all: bool,
    /// Compute shared sizes.
    pub shared_size: bool,
    /// Count the containers of each image (API 1.51 and later).
    pub containers: bool,
    /// Filters.
    pub filters: Filters,
}

/// `GET /images/search`.
#[derive(Debug, Clone, Default)]
pub struct SearchQuery {
    /// What is looked for.
    pub term: String,
    /// The most results; zero for the default.
    pub limit: i64,
    /// Filters.
    pub filters: Filters,
}

/// `DELETE /images/{name}`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImageRemoveQuery {
    /// Even when stopped containers or several tags refer to it.
    pub force: bool,
    /// Keep untagged parents.
    pub no_prune: bool,
}

/// `POST /commit`.
#[derive(Debug, Clone, Default)]
pub struct CommitQuery {
    /// Container.
    pub container: String,
    /// Repository, or empty.
    pub repo: String,
    /// Tag, or empty.
    pub tag: String,
    /// Commit message.
    pub comment: String,
    /// Author.
    pub author: String,
    /// Freeze the container meanwhile.
    pub pause: bool,
    /// Dockerfile instructions, one or more to an element.
    pub changes: Vec<String>,
}

/// `POST /images/create?fromSrc=`.
#[derive(Debug, Clone, Default)]
pub struct ImportQuery {
    /// Repository, or empty.
    pub repo: String,
    /// Tag, or empty.
    pub tag: String,
    /// Commit message.
    pub message: String,
    /// `os[/arch[/variant]]`, or empty.
    pub platform: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
}

//! What can go wrong, on both sides of the process boundary.

use std::io;

use serde::{Deserialize, Serialize};
use silo_types::{ErrorKind, Kind};

/// A failure of the compute layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration asks for something that cannot be.
    #[error("{what}")]
    Invalid {
        /// What, and where in the configuration.
        what: String,
    },
    /// The program cannot be executed. The text has the form `exec: "x": reason` that clients
    /// of Docker know.
    #[error("{text}")]
    Program {
        /// What is shown.
        text: String,
        /// The exit status that stands for it: 127 if it was not found, else 126.
        status: u8,
    },
    /// A step of making the container or of starting a process in it failed.
    #[error("{step}: {cause}")]
    Step {
        /// Which step, on what.
        step: String,
        /// Why.
        cause: String,
        /// The error number, if the kernel gave one.
        errno: Option<i32>,
    },
    /// The container's process ended before it was ready, without saying why.
    #[error("container process ended while it was set up ({0})")]
    Ended(String),
    /// A hook failed.
    #[error("error running {stage} hook #{index}: {cause}")]
    Hook {
        /// The list that the hook is of.
        stage: String,
        /// Its place in the list.
        index: usize,
        /// Why.
        cause: String,
    },
    /// The container, or the process, is not in a state for the operation.
    #[error("{0}")]
    State(String),
    /// There is no such container.
    #[error("container {0:?} does not exist")]
    NoContainer(String),
}

impl Error {
    /// The configuration is wrong.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    /// A failed step.
    pub fn step(step: impl Into<String>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        Self::Step {
            step: step.into(),
            errno: error.raw_os_error(),
            // The number says the same in every language; the text is for people.
            cause: plain(&error),
        }
    }

    /// The exit status of a command line that failed so: 127 or 126 for a program that cannot
    /// be executed.
    pub fn exit_status(&self) -> Option<u8> {
        match self {
            Self::Program { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// The text of an error without the number that the standard library adds.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let Some(number) = error.raw_os_error() else { return text };
    let text = text.strip_suffix(&format!(" (os error {number})")).unwrap_or(&text);
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } | Self::Program { .. } => ErrorKind::InvalidParameter,
            Self::Step { .. } | Self::Ended(_) | Self::Hook { .. } => ErrorKind::Internal,
            Self::State(_) => ErrorKind::Conflict,
            Self::NoContainer(_) => ErrorKind::NotFound,
        }
    }
}

/// Adds the step to an error of the system.
pub(crate) trait Context<T> {
    /// Names the step that failed.
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::step(step(), error))
    }
}

/// An error as it crosses from the container's process to ours.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Invalid(String),
    Program(String, u8),
    Step(String, String, Option<i32>),
    Hook(String, usize, String),
}

/// The longest text of an error that crosses, in bytes.
const REPORT_TEXT_MAX: usize = 4096;

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(REPORT_TEXT_MAX);
    text[..end].to_owned()
}

impl From<&Error> for Report {
    fn from(error: &Error) -> Self {
        match error {
            Error::Program { text, status } => Self::Program(cut(text), *status),
            Error::Step { step, cause, errno } => Self::Step(cut(step), cut(cause), *errno),
            Error::Hook { stage, index, cause } => Self::Hook(cut(stage), *index, cut(cause)),
            Error::Invalid { .. } | Error::State(_) | Error::NoContainer(_) | Error::Ended(_) => {
                Self::Invalid(cut(&error.to_string()))
            }
        }
    }
}

impl From<Report> for Error {
    fn from(report: Report) -> Self {
        match report {
            Report::Invalid(what) => Self::Invalid { what },
            Report::Program(text, status) => Self::Program { text, status },
            Report::Step(step, cause, errno) => Self::Step { step, cause, errno },
            Report::Hook(stage, index, cause) => Self::Hook { stage, index, cause },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_read_as_in_docker() {
        let error = Error::step("mount \"/x\"", io::Error::from_raw_os_error(2));
        assert_eq!(error.to_string(), "mount \"/x\": no such file or directory");
    }

    #[test]
    fn long_texts_are_cut_on_a_character() {
        let error = Error::invalid("ä".repeat(5000));
        let Report::Invalid(text) = Report::from(&error) else { panic!() };
        assert_eq!(text.len(), REPORT_TEXT_MAX);
    }
}

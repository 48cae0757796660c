//! How a command fails: what is said on stderr, and the exit code.

use silo_client::ClientError;
use silo_types::error::chain;

/// A failed command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What is said; empty when everything has been said, or nothing is to be said.
    pub(crate) message: String,
    pub(crate) code: u8,
}

/// The result of a command's step.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A message, and exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// An exit code without a message.
    pub(crate) fn code(code: u8) -> Self {
        Self { message: String::new(), code }
    }

    /// What follows from a program's exit code. Those of Windows have 32 bits, and none of them
    /// but zero is to look like success.
    pub(crate) fn of_program(code: i64) -> Outcome {
        match (code, u8::try_from(code & 255)) {
            (0, _) => Ok(()),
            (_, Ok(low @ 1..)) => Err(Self::code(low)),
            _ => Err(Self::code(255)),
        }
    }

    /// The same with another exit code.
    pub(crate) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// An I/O failure on something that the message names.
    pub(crate) fn io(what: &str, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            // Whoever read our output has seen enough.
            return Self::code(141);
        }
        Self::new(format!("{what}: {error}"))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::new(match &error {
            ClientError::Connect { .. } | ClientError::Engine { .. } => error.to_string(),
            _ => chain(&error),
        })
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_programs_stay_failures() {
        for (code, seen) in [(1, 1), (256, 255), (-1, 255), (0x8000_0100, 255), (0xC000_0135, 0x35)]
        {
            assert_eq!(Failure::of_program(code), Err(Failure::code(seen)), "{code:#x}");
        }
        assert_eq!(Failure::of_program(0), Ok(()));
    }
}

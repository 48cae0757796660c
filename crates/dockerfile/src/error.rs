//! What is wrong with a Dockerfile, and where.

use silo_types::{ErrorKind, Kind};

use crate::ast::Span;

/// Why a text is not a Dockerfile. `Display` is the message alone, in BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// The message.
    pub message: String,
    /// The lines, where the error has any.
    pub span: Option<Span>,
    /// What in these lines is wrong, where it is a text of theirs: gets carets in
    /// [`ParseError::render`].
    pub excerpt: Option<String>,
}

impl ParseError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), span: None, excerpt: None }
    }

    pub(crate) fn about(message: impl Into<String>, excerpt: &str) -> Self {
        Self { excerpt: Some(excerpt.to_owned()), ..Self::new(message) }
    }

    /// The error with its place, if it has none yet.
    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }

    /// The lines of `text` around the error as `docker build` prints them, with carets under what
    /// is wrong where that is known. Empty when the error has no place.
    pub fn render(&self, name: &str, text: &[u8]) -> String {
        match self.span {
            Some(span) => crate::excerpt::render(name, text, &[span], self.excerpt.as_deref()),
            None => String::new(),
        }
    }
}

impl Kind for ParseError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidParameter
    }
}

/// Why a text with variables cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpandError {
    /// The message, in BuildKit's words.
    pub message: String,
}

impl ExpandError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }

    /// The error as one of the file.
    pub fn at(self, span: Span) -> ParseError {
        ParseError::new(self.message).at(span)
    }
}

impl Kind for ExpandError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidParameter
    }
}

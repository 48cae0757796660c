//! The Dockerfile language: text in, typed instructions out. No input or output of its own.
//!
//! - [`parse`] reads a file into [`Dockerfile`]: parser directives, `ARG`s before the first
//!   `FROM`, and [`Stage`]s of [`Instruction`]s, each with its lines and its text. Variables stay
//!   as written. [`parse_trigger`] reads the text that an `ONBUILD` left in an image.
//! - [`expand`] replaces variables in words; [`Instruction::expand`] does so in the parts of an
//!   instruction that take them.
//! - [`lint`] warns of what works and should not be written.
//!
//! Meaning and messages are BuildKit's (`frontend/dockerfile`, reference:
//! <https://docs.docker.com/reference/dockerfile/>). Every [`ParseError`] has its lines where it
//! has any, and [`ParseError::render`] shows them with carets under what is wrong.
//!
//! What is read here was written by strangers: a line has at most [`syntax::MAX_LINE`] bytes, a
//! variable [`expand::MAX_VALUE`], an instruction grows by [`expand::MAX_EXPANSION`] at most,
//! substitutions nest 64 deep, and what a pattern compares is bounded. What all variables of a
//! stage have together is for the builder to bound.
#![warn(missing_docs)]

pub mod ast;
pub mod directive;
mod error;
pub mod excerpt;
pub mod expand;
pub mod expose;
mod flags;
pub mod glob;
mod heredoc;
pub mod ignore;
mod instruction;
pub mod lint;
pub mod mount;
pub mod path;
mod pattern;
pub mod quote;
mod read;
pub mod suggest;
pub mod syntax;
mod words;

pub use ast::{Dockerfile, Instruction, Located, Span, Stage};
pub use error::{ExpandError, ParseError};
pub use expand::{Expander, Expansion};
pub use mount::{Mount, MountKind, Sharing};

/// The largest file that is read, in bytes.
pub const MAX_FILE: usize = 16 << 20;

/// The most stages that a file may have.
pub const MAX_STAGES: usize = 1000;

/// Reads a Dockerfile. The checks are those that its own `check` directive asks for.
pub fn parse(text: &[u8]) -> Result<Dockerfile, ParseError> {
    parse_checked(text, None)
}

/// Reads a Dockerfile with checks that override those of its `check` directive.
pub fn parse_checked(text: &[u8], checks: Option<&lint::Config>) -> Result<Dockerfile, ParseError> {
    parse_collecting(text, checks).0
}

/// The same, with what the checks had found by then also where the file is wrong.
pub fn parse_collecting(
    text: &[u8],
    checks: Option<&lint::Config>,
) -> (Result<Dockerfile, ParseError>, Vec<lint::Warning>) {
    let (tree, config) = match tree_of(text, checks) {
        Ok(read) => read,
        Err(error) => return (Err(error), Vec::new()),
    };
    let mut linter = lint::Linter::new(config);
    let mut result = read::dockerfile(tree, &mut linter);
    if let Ok(dockerfile) = &mut result {
        dockerfile.warnings.clone_from(&linter.warnings);
    }
    (result, linter.warnings)
}

fn tree_of(
    text: &[u8],
    checks: Option<&lint::Config>,
) -> Result<(syntax::Tree, lint::Config), ParseError> {
    if text.is_empty() {
        return Err(ParseError::new("the Dockerfile cannot be empty"));
    }
    if text.len() > MAX_FILE {
        let message =
            format!("the Dockerfile has {} bytes, at most {MAX_FILE} are read", text.len());
        return Err(ParseError::new(message));
    }
    let tree = syntax::parse(text)?;
    let config = match checks {
        Some(config) => config.clone(),
        None => config_of(&tree.directives)?,
    };
    Ok((tree, config))
}

/// What a file's `check` directive asks for.
pub fn config_of(directives: &directive::Directives) -> Result<lint::Config, ParseError> {
    let text = directives.check.as_deref().unwrap_or_default();
    lint::Config::parse(text.split(' ').next().unwrap_or_default())
        .map_err(|cause| ParseError::new(format!("failed to parse check options: {cause}")))
}

/// Reads the instruction that an `ONBUILD` left in an image. Its lines are those of the trigger
/// itself: callers show the `FROM` instead.
pub fn parse_trigger(text: &str) -> Result<Located<Instruction>, ParseError> {
    let tree = syntax::parse(text.as_bytes())?;
    match tree.nodes.as_slice() {
        [node] => read::instruction(node),
        _ => Err(ParseError::new("onbuild trigger should be a single expression")),
    }
}

//! Secrets from stdin.

use std::io::Read;

use crate::failure::{Failure, Outcome};

/// All of stdin without its last line end. Longer input than any password is refused.
pub(crate) fn password() -> Outcome<String> {
    const LIMIT: u64 = 64 * 1024;
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(LIMIT)
        .read_to_string(&mut text)
        .map_err(|error| Failure::io("stdin", &error))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

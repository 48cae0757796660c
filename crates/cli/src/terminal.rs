//! The user's terminal: raw mode, which is always undone, and its size.

use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use rustix::termios::{
    LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr,
};

/// The terminal's settings from before raw mode, while it is raw.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether stdin is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    isatty(std::io::stdin())
}

/// Whether stdout is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    isatty(std::io::stdout())
}

/// Whether stderr is a terminal.
pub(crate) fn stderr_is_terminal() -> bool {
    isatty(std::io::stderr())
}

/// Rows and columns of the terminal on stdout, or zeros.
pub(crate) fn size() -> (u16, u16) {
    tcgetwinsize(std::io::stdout().as_fd()).map_or((0, 0), |size| (size.ws_row, size.ws_col))
}

/// Rows and columns of the terminal on stderr, or zeros.
pub(crate) fn stderr_size() -> (u16, u16) {
    tcgetwinsize(std::io::stderr().as_fd()).map_or((0, 0), |size| (size.ws_row, size.ws_col))
}

/// Puts the terminal on stdin into raw mode, if there is one: keys come as they are typed, and
/// Ctrl-C is a key. Output stays as it is if stdout is no terminal of its own.
pub(crate) fn make_raw() {
    let stdin = std::io::stdin();
    let Ok(before) = tcgetattr(&stdin) else { return };
    let mut raw = before.clone();
    raw.make_raw();
    let mut saved = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if saved.is_none() && tcsetattr(&stdin, OptionalActions::Now, &raw).is_ok() {
        *saved = Some(before);
    }
}

/// Makes the terminal on stdin, if there is one, not show what is typed.
pub(crate) fn hide_input() {
    let stdin = std::io::stdin();
    let Ok(before) = tcgetattr(&stdin) else { return };
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let mut saved = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if saved.is_none() && tcsetattr(&stdin, OptionalActions::Now, &hidden).is_ok() {
        *saved = Some(before);
    }
}

/// Undoes [`make_raw`] and [`hide_input`].
pub(crate) fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        tcsetattr(std::io::stdin(), OptionalActions::Drain, &before).ok();
    }
}

/// Makes a panic undo raw mode before its message is printed.
pub(crate) fn restore_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        report(info);
    }));
}

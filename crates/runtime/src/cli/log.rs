//! Errors, for people on standard error and for callers in a file.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::args::LogFormat;

/// Where errors go.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<PathBuf>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    pub(super) fn new(file: Option<&Path>, format: LogFormat, debug: bool) -> Self {
        Self { file: file.map(Path::to_owned), format, debug }
    }

    /// Tells what happens, if more is to be logged.
    pub(super) fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
            let _best_effort = writeln!(std::io::stderr().lock(), "debug: {message}");
        }
    }

    /// Reports a failure. What cannot be written to the file is still on standard error.
    pub(super) fn error(&self, message: &str) {
        self.write("error", message);
        let _best_effort = writeln!(std::io::stderr().lock(), "error: {message}");
    }

    fn write(&self, level: &str, message: &str) {
        if let Some(path) = &self.file {
            let time = silo_types::time::rfc3339_nano(silo_types::time::now());
            let line = match self.format {
                LogFormat::Json => {
                    serde_json::json!({ "level": level, "msg": message, "time": time }).to_string()
                }
                LogFormat::Text => format!("time={time:?} level={level} msg={message:?}"),
            };
            let opened = fs_err::OpenOptions::new().create(true).append(true).open(path);
            if let Ok(mut file) = opened {
                let _best_effort = writeln!(file, "{line}");
            }
        }
    }
}

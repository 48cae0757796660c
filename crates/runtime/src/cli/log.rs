//! Errors, for people on standard error and for callers in a file.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::args::LogFormat;

/// Where errors go.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<PathBuf>,
    format: LogFormat,
}

impl Log {
    pub(super) fn new(file: Option<&Path>, format: LogFormat, _debug: bool) -> Self {
        Self { file: file.map(Path::to_owned), format }
    }

    /// Reports a failure. What cannot be written to the file is still on standard error.
    pub(super) fn error(&self, message: &str) {
        if let Some(path) = &self.file {
            let time = silo_types::time::rfc3339_nano(silo_types::time::now());
            let line = match self.format {
                LogFormat::Json => {
                    serde_json::json!({ "level": "error", "msg": message, "time": time })
                        .to_string()
                }
                LogFormat::Text => format!("time={time:?} level=error msg={message:?}"),
            };
            let opened = fs_err::OpenOptions::new().create(true).append(true).open(path);
            if let Ok(mut file) = opened {
                let _best_effort = writeln!(file, "{line}");
            }
        }
        let _best_effort = writeln!(std::io::stderr().lock(), "silo runtime: {message}");
    }
}

//! `/containers/{id}/exec` and `/exec`.

use crate::{List, empty};

model! {
    /// `POST /containers/{id}/exec`.
    pub struct ExecCreateRequest {
        /// `user[:group]`.
        pub user: String,
        /// All capabilities.
        pub privileged: bool,
        /// Standard streams are a terminal.
        pub tty: bool,
        /// Height and width at start.
        #[serde(skip_serializing_if = "empty")]
        pub console_size: Option<[u32; 2]>,
        /// Attach standard input.
        pub attach_stdin: bool,
        /// Attach standard error.
        pub attach_stderr: bool,
        /// Attach standard output.
        pub attach_stdout: bool,
        /// Keys that detach.
        pub detach_keys: String,
        /// Added environment.
        pub env: List<String>,
        /// Working directory.
        pub working_dir: String,
        /// Program and arguments.
        pub cmd: List<String>,
    }
}

model! {
    /// `POST /exec/{id}/start`.
    pub struct ExecStartRequest {
        /// Do not attach.
        pub detach: bool,
        /// Standard streams are a terminal.
        pub tty: bool,
        /// Height and width at start.
        #[serde(skip_serializing_if = "empty")]
        pub console_size: Option<[u32; 2]>,
    }
}

model! {
    /// `GET /exec/{id}/json`.
    pub struct ExecInspect {
        /// Id.
        #[serde(rename = "ID")]
        pub id: String,
        /// Runs.
        pub running: bool,
        /// Exit code, `null` until it exits.
        pub exit_code: Option<i64>,
        /// What it runs.
        pub process_config: ExecProcessConfig,
        /// Standard input is attached.
        pub open_stdin: bool,
        /// Standard error is attached.
        pub open_stderr: bool,
        /// Standard output is attached.
        pub open_stdout: bool,
        /// It will be forgotten.
        pub can_remove: bool,
        /// Its container.
        #[serde(rename = "ContainerID")]
        pub container_id: String,
        /// Base64 of the detach key codes, or empty.
        pub detach_keys: String,
        /// Host pid.
        pub pid: i32,
    }
}

model! {
    /// See [`ExecInspect`].
    pub struct ExecProcessConfig {
        /// Standard streams are a terminal.
        #[serde(rename = "tty")]
        pub tty: bool,
        /// Program.
        #[serde(rename = "entrypoint")]
        pub entrypoint: String,
        /// Arguments.
        #[serde(rename = "arguments")]
        pub arguments: Vec<String>,
        /// All capabilities.
        #[serde(rename = "privileged", skip_serializing_if = "empty")]
        pub privileged: Option<bool>,
        /// User.
        #[serde(rename = "user", skip_serializing_if = "empty")]
        pub user: String,
    }
}

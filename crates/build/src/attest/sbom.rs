//! What a result is made of: a scanner, which is an image, looks at its files and says so.
//!
//! Source: <https://github.com/moby/buildkit/blob/master/docs/attestations/sbom-protocol.md>

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use silo_docker::containers::Config;
use silo_docker::host_config::HostConfig;
use silo_engine::builds::{StepMount, StepOptions, StepSource, StepStream};
use silo_oci::attest::{Attestation, MAX_STATEMENTS};
use silo_oci::platform::Platform;
use silo_types::{Error, ErrorKind};

use super::Sbom;
use crate::job::{Job, Work, blocking};
use crate::outcome::BuildError;
use crate::progress::Stream;
use crate::state::State;

/// What a scanner may say, a URI.
const SPDX: &str = "https://spdx.dev/Document";
/// Where it finds the result's files.
const CORE: &str = "/run/src/core/sbom";
/// Where it finds those of stages and the context.
const EXTRAS: &str = "/run/src/extras";
/// How their names begin.
const EXTRA_PREFIX: &str = "sbom-";
/// Where it writes what it finds.
const OUT: &str = "/run/out";
/// Files that it may write.
const MAX_FILES: usize = 128;

fn invalid(message: impl Into<String>) -> BuildError {
    BuildError::new(ErrorKind::InvalidParameter, message)
}

/// Is a scan asked for of a stage: yes or no for all, or names of stages?
fn is_for(stage: &str, value: &str) -> bool {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        list => list.split(',').any(|name| name == stage),
    }
}

impl Job {
    /// Has the result scanned.
    pub(super) async fn sbom(
        self: &Arc<Self>,
        wanted: &Sbom,
        state: &State,
    ) -> Result<Vec<Attestation>, BuildError> {
        let platform = crate::plan::text(&state.image.platform());
        let title = format!("[{platform}] generating sbom using {}", wanted.generator);
        let work = self.work(&title, None);
        let done = self.scan(wanted, state, &work).await;
        work.end(done)
    }

    async fn scan(
        self: &Arc<Self>,
        wanted: &Sbom,
        state: &State,
        work: &Work,
    ) -> Result<Vec<Attestation>, BuildError> {
        let host = Platform::host();
        let scanner = self.image_state(&wanted.generator, Some(&host), None, work).await?;
        if let Some(why) = &scanner.inert {
            return Err(invalid(format!("scanner {} cannot run: {why}", wanted.generator)));
        }
        let own = &scanner.image.config;
        let words: Vec<String> = own.entrypoint.iter().chain(&own.cmd).flatten().cloned().collect();
        if words.is_empty() {
            // buildkit wording
            return Err(invalid(format!("scanner {} does not have cmd", wanted.generator)));
        }
        let mut env: Vec<String> = own.env.clone().unwrap_or_default();
        env.push(format!("BUILDKIT_SCAN_DESTINATION={OUT}/"));
        env.push(format!("BUILDKIT_SCAN_SOURCE={CORE}"));
        let mut mounts = vec![self.layers_at(CORE.to_owned(), state).await?];
        let mut keep = vec![state.clone()];
        let extras = self.extras(state).await?;
        if !extras.is_empty() {
            env.push(format!("BUILDKIT_SCAN_SOURCE_EXTRAS={EXTRAS}/"));
        }
        for (name, state) in extras {
            mounts.push(self.layers_at(format!("{EXTRAS}/{EXTRA_PREFIX}{name}"), &state).await?);
            keep.push(state);
        }
        let mut context = None;
        if self.asks_for_scan("BUILDKIT_SBOM_SCAN_CONTEXT", self.plan.target, state) {
            let tree = self.context(true).await?;
            if mounts.len() == 1 {
                env.push(format!("BUILDKIT_SCAN_SOURCE_EXTRAS={EXTRAS}/"));
            }
            let source = mounted(tree.root())?;
            let destination = format!("{EXTRAS}/{EXTRA_PREFIX}context");
            mounts.push(StepMount { destination, source, readonly: true });
            context = Some(tree);
        }
        env.extend(
            wanted.parameters.iter().map(|(name, value)| format!("BUILDKIT_SCAN_{name}={value}")),
        );
        let scratch = self.builder.scratch()?;
        let out = scratch.directory("out")?;
        let written = silo_sys::path::open_root(&out)
            .map_err(|error| Error::internal(format!("open {}: {error}", out.display())))?;
        mounts.push(StepMount {
            destination: OUT.to_owned(),
            source: mounted(&written)?,
            readonly: false,
        });
        mounts.push(StepMount {
            destination: "/tmp".to_owned(),
            source: StepSource::Tmpfs(String::new()),
            readonly: false,
        });
        let step = self.builder.engine.step(StepOptions {
            chain: scanner.chain,
            is_windows: false,
            config: Config {
                user: own.user.clone(),
                env: env.into(),
                cmd: words.clone().into(),
                working_dir: own.working_dir.clone(),
                ..Config::default()
            },
            host_config: HostConfig {
                network_mode: self.request.network.clone(),
                extra_hosts: self.request.extra_hosts.clone().into(),
                ..HostConfig::default()
            },
            mounts,
            keep: Box::new((keep, context, scanner.leases.clone())),
        })?;
        let output = |stream, data| {
            let stream = match stream {
                StepStream::Stdout => Stream::Stdout,
                StepStream::Stderr => Stream::Stderr,
            };
            work.log(stream, data);
            self.progress.ready()
        };
        let code = step.run(output).await?;
        drop(step);
        if code != 0 {
            // buildkit wording
            let line = words.join(" ");
            return Err(invalid(format!(
                "process {line:?} did not complete successfully: exit code: {code}"
            )));
        }
        blocking(move || {
            let said = read(&written, &out);
            drop(scratch);
            said
        })
        .await
    }

    /// The files of a state, at a path of the scanner.
    async fn layers_at(&self, destination: String, state: &State) -> Result<StepMount, BuildError> {
        let engine = Arc::clone(&self.builder.engine);
        let (chain, is_windows) = (state.chain, state.is_windows());
        let root = blocking(move || Ok(engine.layers_root(chain, is_windows)?)).await?;
        Ok(StepMount { destination, source: StepSource::Tree(root), readonly: true })
    }

    /// The stages besides the target that are to be scanned, by their names.
    async fn extras(self: &Arc<Self>, target: &State) -> Result<Vec<(String, State)>, BuildError> {
        let mut extras = Vec::new();
        for index in self.plan.needed.iter().copied().filter(|index| *index != self.plan.target) {
            let state = self.stage(index).await?;
            if self.asks_for_scan("BUILDKIT_SBOM_SCAN_STAGE", index, &state)
                && state.is_windows() == target.is_windows()
            {
                extras.push((self.stage_name(index), State::clone(&state)));
            }
        }
        Ok(extras)
    }

    fn stage_name(&self, index: usize) -> String {
        let name = self.plan.stages[index].stage.name.clone();
        name.unwrap_or_else(|| format!("stage-{index}"))
    }

    /// Does an `ARG` of a stage, or one before all stages, ask for a scan of it?
    fn asks_for_scan(&self, argument: &str, index: usize, state: &State) -> bool {
        let declared = state.args.iter().find(|(name, _)| name == argument);
        let value = match declared {
            Some((_, value)) => state.variable(argument).or_else(|| value.clone()),
            None => self.plan.globals.get(argument).cloned(),
        };
        value.is_some_and(|value| is_for(&self.stage_name(index), &value))
    }
}

fn mounted(root: impl AsFd) -> Result<StepSource, BuildError> {
    let tree = silo_sys::mount::bind_clone_fd(root, false)
        .map_err(|error| Error::internal(format!("mount for a scanner: {error}")))?;
    Ok(StepSource::Tree(tree))
}

/// The statements in the files that a scanner wrote: that of the result first.
fn read(root: impl AsFd, path: &Path) -> Result<Vec<Attestation>, BuildError> {
    let failed = |error: &dyn std::fmt::Display| {
        BuildError::from(Error::internal(format!("read what a scanner wrote: {error}")))
    };
    let mut names = Vec::new();
    for entry in fs_err::read_dir(path).map_err(|error| failed(&error))? {
        let entry = entry.map_err(|error| failed(&error))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
        if names.len() > MAX_FILES {
            return Err(invalid(format!("the scanner wrote more than {MAX_FILES} files")));
        }
    }
    names.sort_by_key(|name| (name.split('.').next() != Some("sbom"), name.clone()));
    let mut left = MAX_STATEMENTS;
    let mut said = Vec::new();
    for name in names {
        let read = silo_sys::path::read_regular_file_in_root(&root, &name, left);
        let Some(bytes) = read.map_err(|error| failed(&format!("{name}: {error}")))? else {
            return Err(invalid(format!("the scanner wrote more than {MAX_STATEMENTS} bytes")));
        };
        left = left.saturating_sub(bytes.len() as u64);
        let found = Attestation::of_statement(&bytes, &name)
            .map_err(|error| invalid(format!("cannot decode in-toto statement {name}: {error}")))?;
        if found.predicate_type != SPDX {
            // buildkit wording
            return Err(invalid(format!(
                "bundle entry {} does not match required predicate type {SPDX}",
                found.predicate_type
            )));
        }
        said.push(found);
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(kind: &str, subject: &str) -> String {
        format!(
            r#"{{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"{kind}",
            "subject":{subject},"predicate":{{"name":"{kind}"}}}}"#
        )
    }

    #[test]
    fn what_scanners_write() {
        let directory = tempfile::tempdir().unwrap();
        let root = silo_sys::path::open_root(directory.path()).unwrap();
        let write = |name: &str, text: &str| {
            fs_err::write(directory.path().join(name), text).unwrap();
        };
        assert!(read(&root, directory.path()).unwrap().is_empty());
        let other = r#"[{"name":"x","digest":{"sha256":"00"}}]"#;
        write("another.spdx.json", &statement(SPDX, other));
        write("sbom.spdx.json", &statement(SPDX, "null"));
        let said = read(&root, directory.path()).unwrap();
        let files: Vec<_> = said.iter().map(|said| said.file.as_str()).collect();
        assert_eq!(files, ["sbom.spdx.json", "another.spdx.json"]);
        assert_eq!((said[0].subjects.len(), said[1].subjects.len()), (0, 1));
        for (name, text, words) in [
            ("x", "{", "cannot decode in-toto statement x"),
            ("x", "{} {}", "cannot decode in-toto statement x"),
            ("x", &statement("https://slsa.dev/provenance/v1", "[]"), "does not match"),
        ] {
            write(name, text);
            let error = read(&root, directory.path()).unwrap_err();
            assert!(error.message.contains(words), "{error}");
        }
        // A link leads nowhere else.
        fs_err::remove_file(directory.path().join("x")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("x")).unwrap();
        let error = read(&root, directory.path()).unwrap_err();
        assert!(error.message.contains("read what a scanner wrote"), "{error}");
    }

    #[test]
    fn stages_are_named_or_all_meant() {
        assert!(is_for("a", "true") && is_for("a", "b,a") && is_for("a", "1"));
        assert!(!is_for("a", "false") && !is_for("a", "b") && !is_for("a", ""));
    }
}

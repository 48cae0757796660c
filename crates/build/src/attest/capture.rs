//! What goes into a build, written down while it goes in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use silo_dockerfile::Span;
use silo_oci::platform::Platform;
use silo_types::Digest;

/// The most steps that are written down.
const MAX_STEPS: usize = 10_000;

/// What goes into one build. Clones are of the same build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Capture(Arc<Mutex<Captured>>);

/// All that went into a build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Captured {
    /// Images, by their names and platforms.
    pub(crate) images: BTreeMap<(String, String), Image>,
    /// Commits, by the repository and the reference in it.
    pub(crate) git: BTreeMap<String, String>,
    /// Files, by their URLs.
    pub(crate) http: BTreeMap<String, Digest>,
    /// Directories of the client.
    pub(crate) local: BTreeSet<String>,
    /// Secrets that were asked for, and whether the build does without.
    pub(crate) secrets: BTreeMap<String, bool>,
    /// The same of agents.
    pub(crate) ssh: BTreeMap<String, bool>,
    /// A step could use a network.
    pub(crate) network: bool,
    /// The steps, where they are wanted.
    pub(crate) steps: Vec<Step>,
}

/// An image that went in.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Its platform.
    pub(crate) platform: Platform,
    /// The manifest or index.
    pub(crate) digest: Digest,
    /// It is in no registry.
    pub(crate) is_local: bool,
}

/// A step.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// What is done, as BuildKit's low-level form has it.
    pub(crate) operation: Value,
    /// The steps whose results it takes.
    pub(crate) inputs: Vec<usize>,
    /// Its instruction.
    pub(crate) span: Option<Span>,
}

impl Capture {
    fn lock(&self) -> MutexGuard<'_, Captured> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What went in so far.
    pub(crate) fn get(&self) -> Captured {
        self.lock().clone()
    }

    /// An image goes in.
    pub(crate) fn image(&self, name: &str, image: Image) {
        let key = (name.to_owned(), image.platform.to_string());
        self.lock().images.insert(key, image);
    }

    /// A commit goes in.
    pub(crate) fn git(&self, repository: &str, reference: &str, commit: &str) {
        let mut url = redacted(repository);
        if !reference.is_empty() {
            url.push('#');
            url.push_str(reference);
        }
        self.lock().git.insert(url, commit.to_owned());
    }

    /// A file goes in.
    pub(crate) fn http(&self, url: &str, digest: Digest) {
        self.lock().http.insert(redacted(url), digest);
    }

    /// A directory of the client goes in.
    pub(crate) fn local(&self, name: &str) {
        self.lock().local.insert(name.to_owned());
    }

    /// A step asks for a secret.
    pub(crate) fn secret(&self, id: &str, optional: bool) {
        let mut captured = self.lock();
        let known = captured.secrets.entry(id.to_owned()).or_insert(optional);
        *known &= optional;
    }

    /// A step asks for an agent.
    pub(crate) fn ssh(&self, id: &str, optional: bool) {
        let mut captured = self.lock();
        let known = captured.ssh.entry(id.to_owned()).or_insert(optional);
        *known &= optional;
    }

    /// A step can use a network.
    pub(crate) fn network(&self) {
        self.lock().network = true;
    }

    /// A step is part of the build; gives its number. The same source twice is one step.
    pub(crate) fn step(&self, step: Step) -> Option<usize> {
        let mut captured = self.lock();
        if step.inputs.is_empty()
            && let Some(same) =
                captured.steps.iter().position(|known| known.operation == step.operation)
        {
            return Some(same);
        }
        if captured.steps.len() >= MAX_STEPS {
            return None;
        }
        captured.steps.push(step);
        Some(captured.steps.len() - 1)
    }
}

/// A URL without the user and the password in it.
pub(crate) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((user, host)) = authority.rsplit_once('@') else { return url.to_owned() };
    let hidden = if user.contains(':') { "xxxxx:xxxxx" } else { "xxxxx" };
    // The user of ssh is the same for everybody.
    let hidden = if scheme.ends_with("ssh") && user == "git" { user } else { hidden };
    format!("{scheme}://{hidden}@{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_keep_their_secrets() {
        for (url, shown) in [
            ("https://u:p@h/a.git#main", "https://xxxxx:xxxxx@h/a.git#main"),
            ("https://token@h:8080", "https://xxxxx@h:8080"),
            ("https://u:a@b@h/x", "https://xxxxx:xxxxx@h/x"),
            ("https://h/a@b", "https://h/a@b"),
            ("ssh://git@h/x", "ssh://git@h/x"),
            ("git@h:x", "git@h:x"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }

    #[test]
    fn a_secret_that_is_needed_once_is_needed() {
        let capture = Capture::default();
        capture.secret("a", true);
        capture.secret("a", false);
        capture.secret("a", true);
        capture.secret("b", true);
        assert_eq!(capture.get().secrets, [("a".into(), false), ("b".into(), true)].into());
    }
}

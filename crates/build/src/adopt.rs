//! Steps of images that the client named as a cache, and that say nothing of keys: a step is taken
//! from one if the layers beneath are the same and its history says that it came of the same
//! instruction; for steps that copy files, if the layer is what was copied now.

use std::os::fd::AsFd as _;
use std::path::Path;

use silo_engine::builds::HeldLayer;
use silo_oci::image::History;
use silo_types::Digest;

use crate::copy::same::is_same;
use crate::job::{Job, Work};
use crate::outcome::BuildError;
use crate::stage::Turn;
use crate::state::State;

/// A layer that an image has upon the same layers.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    chain: Digest,
    history: History,
}

/// What an instruction came to, in the words of BuildKit's or the classic builder's history.
fn plain(created_by: &str) -> &str {
    let text = created_by.strip_suffix(" # buildkit").unwrap_or(created_by);
    text.strip_prefix("RUN ").unwrap_or(text)
}

impl Candidate {
    /// Whether it came of a program.
    pub(crate) fn is_run(&self, created_by: &str) -> bool {
        plain(&self.history.created_by) == plain(created_by)
    }

    /// Whether it came of an instruction of this name.
    fn is(&self, keyword: &str) -> bool {
        let text = &self.history.created_by;
        let text = text.strip_prefix("/bin/sh -c #(nop) ").unwrap_or(text).trim_start();
        text.get(..keyword.len()).is_some_and(|word| word.eq_ignore_ascii_case(keyword))
    }
}

impl Job {
    /// The layers that named images have upon those of a state.
    pub(crate) fn candidates(&self, state: &State) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for entry in &self.sources {
            let image = &entry.image;
            let below = match &state.chain {
                None => 0,
                Some(chain) => match image.chain.iter().position(|layer| layer == chain) {
                    Some(at) => at + 1,
                    None => continue,
                },
            };
            let mut history = image.config.history.iter().filter(|history| !history.empty_layer);
            if let (Some(chain), Some(history)) = (image.chain.get(below), history.nth(below)) {
                candidates.push(Candidate { chain: *chain, history: history.clone() });
            }
        }
        candidates
    }

    /// Those that came of copying, or of making a directory, and may be what a step comes to.
    pub(crate) fn candidates_of(
        &self,
        turn: &Turn<'_>,
        state: &State,
        keywords: &[&str],
    ) -> Vec<Candidate> {
        // With a fixed time, that of the files is part of the result.
        if turn.no_cache || state.is_windows() || self.request.source_date_epoch.is_some() {
            return Vec::new();
        }
        let mut candidates = self.candidates(state);
        candidates.retain(|candidate| keywords.iter().any(|keyword| candidate.is(keyword)));
        candidates
    }

    /// Takes over the layer of a candidate; false if it is gone.
    pub(crate) fn take(
        &self,
        turn: &Turn<'_>,
        state: &mut State,
        key: &str,
        alias: Option<String>,
        candidate: &Candidate,
        work: &mut Work,
    ) -> Result<bool, BuildError> {
        let held: Option<HeldLayer> = self.builder.engine.store().hold_layer(&candidate.chain);
        let Some(held) = held else { return Ok(false) };
        work.cached();
        self.keep(state, key, alias, turn, Some(held))?;
        let created = candidate.history.created.as_deref().and_then(silo_types::time::parse);
        if let Some(Ok(created)) = created.map(|time| i64::try_from(time.as_nanosecond())) {
            state.pending = Some((created, true));
        }
        Ok(true)
    }
}

/// The candidate whose layer has the same files as a directory, but for times.
pub(crate) fn same(
    store: &silo_store::Store,
    upper: &Path,
    candidates: Vec<Candidate>,
) -> Option<Candidate> {
    let own = silo_sys::path::open_root(upper).ok()?;
    candidates.into_iter().find(|candidate| {
        // Nothing is taken from a layer that cannot be read.
        let theirs = silo_sys::path::open_root(store.layer_files(&candidate.chain));
        theirs.and_then(|theirs| is_same(own.as_fd(), theirs.as_fd())).unwrap_or(false)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories() {
        let candidate = |created_by: &str| Candidate {
            chain: Digest::from_sha256([0; 32]),
            history: History { created_by: created_by.to_owned(), ..History::default() },
        };
        let copy = candidate("/bin/sh -c #(nop) COPY file:1234 in /x ");
        assert!(copy.is("copy") && !copy.is("ADD") && !copy.is("WORKDIR"));
        assert!(candidate("COPY a /x").is("COPY") && candidate("add x").is("ADD"));
        let run = candidate("/bin/sh -c make");
        assert!(run.is_run("RUN /bin/sh -c make # buildkit"));
        assert!(candidate("RUN |1 A=b /bin/sh -c x # buildkit").is_run("|1 A=b /bin/sh -c x"));
        assert!(!run.is_run("RUN /bin/sh -c make x # buildkit"));
    }
}

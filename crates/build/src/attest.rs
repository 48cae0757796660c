//! What is said about a result: how it was made (SLSA provenance), and what it is made of (SBOM).
//!
//! A build writes down what goes into it ([`capture`]); at its end that and the client's request
//! become a predicate ([`predicate`]); who gives the result out says it of what he gives out
//! ([`export`]).

pub(crate) mod capture;
pub(crate) mod export;
mod predicate;
mod sbom;
mod steps;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use silo_engine::images::Entry;
use silo_oci::attest::Attestation;
use silo_oci::reference::{Reference, is_identifier};
use silo_types::Digest;

use crate::attest::capture::Image;
use crate::job::Job;
use crate::outcome::BuildError;
use crate::state::State;

/// What is to be said about a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attest {
    /// How it was made.
    pub provenance: Option<Provenance>,
    /// What it is made of.
    pub sbom: Option<Sbom>,
    /// What the client asked the frontend for, by BuildKit's names.
    pub args: BTreeMap<String, String>,
    /// The frontend.
    pub frontend: String,
    /// What tells this invocation from all others.
    pub invocation: String,
}

/// How provenance is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// All that is known, with the Dockerfile, its steps and the values of build arguments.
    pub max: bool,
    /// Its form.
    pub version: Slsa,
    /// Who builds, a URI; empty for nobody.
    pub builder: String,
    /// The client says that the same comes out when it is built again.
    pub reproducible: bool,
    /// It fails when not all that goes into the result is known.
    pub complete: bool,
    /// It belongs to images only.
    pub inline_only: bool,
    /// Its file beside files.
    pub file: String,
}

/// How a result is scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sbom {
    /// The scanner, an image.
    pub generator: String,
    /// What it is told, as `BUILDKIT_SCAN_<name>`.
    pub parameters: BTreeMap<String, String>,
}

/// A version of SLSA's provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slsa {
    /// <https://slsa.dev/provenance/v0.2>
    V02,
    /// <https://slsa.dev/provenance/v1>
    V1,
}

/// What came of what is to be said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// It, without what it is about.
    pub attestations: Vec<Attestation>,
    /// It is not put beside files.
    pub inline_only: bool,
    /// Unix time that no file is younger than.
    pub(crate) epoch: Option<i64>,
}

impl Job {
    /// Writes down that an image goes into the build. `entry` is what was taken for it.
    pub(crate) fn capture_image(&self, name: &str, entry: &Entry) {
        if self.request.attest.is_none() {
            return;
        }
        let Some(reference) = Reference::parse_normalized(name)
            .ok()
            .filter(|_| name.parse::<Digest>().is_err() && !is_identifier(name))
        else {
            // The result of another build, which nobody else has.
            self.capture.local(name);
            return;
        };
        let platform = entry.image.config.platform();
        let found = self.builder.engine.image_inspect(name, None, false).ok();
        let is_local = match &found {
            Some(found) => self.builder.engine.image_best(name, Some(&platform)).is_ok_and(|own| {
                own.image.id != entry.image.id && found.id != entry.image.id.to_string()
            }),
            // Another image stands in for it.
            None => true,
        };
        let found = found.filter(|_| !is_local);
        let pushed = found.as_ref().and_then(|found| {
            let mut names =
                found.repo_digests.iter().filter_map(|text| Reference::parse_normalized(text).ok());
            let name = names.find(|own| own.name() == reference.name())?;
            name.digest().copied()
        });
        let described = found
            .as_ref()
            .and_then(|found| found.descriptor.as_ref()?.get("digest")?.as_str()?.parse().ok());
        let digest = reference.digest().copied().filter(|_| !is_local).or(pushed).or(described);
        let digest = digest.unwrap_or(entry.image.manifest.digest);
        self.capture.image(&reference.to_string(), Image { platform, digest, is_local });
    }

    /// What is said of the result of this build.
    pub(crate) async fn said(
        self: &Arc<Self>,
        state: &State,
        started: Timestamp,
    ) -> Result<Said, BuildError> {
        let Some(attest) = &self.request.attest else { return Ok(Said::default()) };
        let mut said = Said { epoch: self.request.source_date_epoch, ..Said::default() };
        if let Some(wanted) = &attest.sbom {
            said.attestations = self.sbom(wanted, state).await?;
        }
        if let Some(wanted) = &attest.provenance {
            said.inline_only = wanted.inline_only && attest.sbom.is_none();
            let file = (self.file.0.as_str(), &self.file.1[..]);
            let captured = self.capture.get();
            let times = (started, Timestamp::now());
            let told = predicate::provenance(attest, wanted, &captured, file, state.step, times)?;
            said.attestations.push(told);
        }
        Ok(said)
    }
}

//! The exporter of images: what it is asked for, and images on their way to registries.

use std::sync::Arc;

use silo_archive::compress::{Compression, Packing};
use silo_build::{AttachOptions, BuildError, Outcome, PushTo};
use silo_oci::image::Descriptor;
use silo_registry::PushOptions;
use silo_types::Error;

use crate::attributes::{Attributes, not_yet, number};
use crate::credentials::ClientCredentials;
use crate::job::Job;
use crate::session::Session;
use crate::solve::{Export, Solver, Step, image_names};

/// What an image exporter is to do besides naming an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageExport {
    /// It is sent to the registries of its names.
    pub(crate) push: bool,
    /// It is stored.
    pub(crate) store: bool,
    /// Registries find it by its digest only.
    pub(crate) by_digest: bool,
    insecure: bool,
    options: PushOptions,
}

/// A boolean of an exporter: its name alone says yes.
pub(crate) fn switch(attributes: &Attributes, name: &str) -> Result<Option<bool>, Error> {
    match attributes.0.get(name).map(String::as_str) {
        None => Ok(None),
        Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
        // buildkit wording
        Some(other) => {
            let text = format!("non-bool value specified for {name}: {other:?}");
            Err(Error::invalid(text))
        }
    }
}

/// How what is said of images goes with them.
pub(crate) fn attach_options(attributes: &Attributes) -> Result<AttachOptions, Error> {
    let artifact = switch(attributes, "oci-artifact")?.unwrap_or(false);
    Ok(AttachOptions { artifact })
}

/// `compression`, `compression-level`, and `force-compression`.
pub(crate) fn packing(
    attributes: &Attributes,
    usual: Compression,
) -> Result<(Packing, bool), Error> {
    let compression = match attributes.get("compression") {
        "" => usual,
        "uncompressed" => Compression::None,
        "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        "estargz" => return Err(not_yet("compression=estargz")),
        // buildkit wording
        other => return Err(Error::invalid(format!("unsupported compression type {other}"))),
    };
    let level = match attributes.0.get("compression-level") {
        None => None,
        Some(text) => Some(number("compression-level", text)?),
    };
    let force = switch(attributes, "force-compression")?.unwrap_or(false);
    Ok((Packing { compression, level }, force))
}

impl ImageExport {
    pub(crate) fn parse(attributes: &Attributes) -> Result<Self, Error> {
        let is = |name: &str, usual: bool| -> Result<bool, Error> {
            Ok(switch(attributes, name)?.unwrap_or(usual))
        };
        let (packing, force) = packing(attributes, Compression::Gzip)?;
        let export = Self {
            push: is("push", false)?,
            store: is("store", true)?,
            by_digest: is("push-by-digest", false)?,
            insecure: is("registry.insecure", false)?,
            options: PushOptions {
                tag: None,
                packing,
                force,
                oci_types: switch(attributes, "oci-mediatypes")?,
                ..PushOptions::default()
            },
        };
        if export.push && attributes.get("name").is_empty() {
            // buildx wording
            return Err(Error::invalid("tag is needed when pushing to registry"));
        }
        Ok(export)
    }
}

impl Solver {
    /// Sends what was built to the registries of its names. Gives back the manifest or index.
    pub(crate) async fn push(
        &self,
        session: &Arc<Session>,
        job: &Arc<Job>,
        outcomes: &[Outcome],
        is_list: bool,
        export: (usize, &Export),
    ) -> Result<Option<Descriptor>, BuildError> {
        let (number, export) = export;
        let wanted = ImageExport::parse(&export.attributes)?;
        if !wanted.push {
            return Ok(None);
        }
        let mut last = None;
        let keys = ClientCredentials::new(Arc::clone(session));
        for (index, name) in image_names(export)?.into_iter().enumerate() {
            let shown = name.to_string();
            let number = 2000 + number * 100 + index;
            let mut step = Step::begin(job, number, &format!("pushing {shown}"), "pushing layers");
            let to = PushTo {
                name,
                by_digest: wanted.by_digest,
                insecure: wanted.insecure,
                options: wanted.options.clone(),
                attach: attach_options(&export.attributes)?,
            };
            let pushed = tokio::select! {
                pushed = self.builder.push(outcomes, is_list, &to, &keys) => pushed,
                () = session.closed() => Err(Error::new(
                    silo_types::ErrorKind::Cancelled,
                    "context canceled",
                )),
            };
            let pushed = pushed.map_err(|error| {
                // buildkit wording
                Error::new(error.kind(), format!("failed to push {shown}: {}", error.message()))
            });
            match pushed {
                Ok(manifest) => {
                    step.next(&format!("pushing manifest for {shown}@{}", manifest.digest));
                    step.end(None);
                    last = Some(manifest);
                }
                Err(error) => {
                    step.end(Some(error.message().to_owned()));
                    return Err(error.into());
                }
            }
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(pairs: &[(&str, &str)]) -> Attributes {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Attributes(pairs.iter().map(own).collect())
    }

    #[test]
    fn what_an_exporter_is_asked_for() {
        let parse = |pairs: &[(&str, &str)]| ImageExport::parse(&attributes(pairs));
        let usual = parse(&[("name", "a")]).unwrap();
        assert!(usual.store && !usual.push && !usual.options.force);
        assert_eq!(usual.options.packing, Packing::default());
        let all = [
            ("name", "a"),
            ("push", ""),
            ("store", "0"),
            ("push-by-digest", "true"),
            ("compression", "zstd"),
            ("compression-level", "19"),
            ("force-compression", "1"),
            ("oci-mediatypes", "false"),
        ];
        let export = parse(&all).unwrap();
        assert!(export.push && !export.store && export.by_digest && export.options.force);
        let packing = Packing { compression: Compression::Zstd, level: Some(19) };
        assert_eq!((export.options.packing, export.options.oci_types), (packing, Some(false)));
        for (pairs, words) in [
            (&[("push", "true")][..], "tag is needed when pushing to registry"),
            (&[("name", "a"), ("push", "maybe")], "non-bool value specified for push"),
            (&[("compression", "lz4")], "unsupported compression type lz4"),
            (&[("compression", "estargz")], "estargz: not supported"),
            (&[("compression-level", "-1")], "invalid compression-level value: -1"),
        ] {
            let error = parse(pairs).unwrap_err();
            assert!(error.message().contains(words), "{error}");
        }
    }
}

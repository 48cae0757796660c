//! What a client wants said about a result: `attest:provenance` and `attest:sbom`, by BuildKit's
//! names.

use std::collections::BTreeMap;

use silo_build::{Attest, Provenance, Sbom, Slsa};
use silo_oci::reference::{DEFAULT_TAG, Reference};
use silo_types::{Error, csv};

use crate::attributes::{Attributes, boolean};
use crate::push::switch;
use crate::solve::Export;

/// How the names of attestations begin, and how build arguments that stand for them do.
const PREFIXES: [&str; 2] = ["build-arg:BUILDKIT_ATTEST_", "attest:"];

/// What scans a result where the client names no scanner. BuildKit's.
const SCANNER: &str = "docker/buildkit-syft-scanner:stable-1";

/// What is to be said, if anything.
pub(crate) fn wanted(attributes: &Attributes) -> Result<Option<Attest>, Error> {
    let mut kinds: BTreeMap<String, String> = BTreeMap::new();
    for prefix in PREFIXES {
        let named = attributes.prefixed(prefix).into_iter();
        kinds.extend(named.map(|(kind, value)| (kind.to_lowercase(), value)));
    }
    let mut attest = Attest::default();
    for (kind, value) in kinds {
        let fields = if value.is_empty() {
            Vec::new()
        } else {
            csv::fields(&value)
                .map_err(|error| Error::invalid(format!("failed to parse {kind}: {error}")))?
        };
        let fields: BTreeMap<&str, &str> =
            fields.iter().map(|field| field.split_once('=').unwrap_or((field, ""))).collect();
        match kind.as_str() {
            "provenance" => attest.provenance = Some(provenance(&fields)?),
            "sbom" => attest.sbom = Some(sbom(&fields)?),
            // buildkit wording
            other => return Err(Error::invalid(format!("unknown attestation type {other:?}"))),
        }
    }
    if attest == Attest::default() {
        return Ok(None);
    }
    "dockerfile.v0".clone_into(&mut attest.frontend);
    attest.args = attributes.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(Some(attest))
}

fn provenance(fields: &BTreeMap<&str, &str>) -> Result<Provenance, Error> {
    let get = |name: &str| fields.get(name).copied().unwrap_or_default();
    let max = match get("mode") {
        "" | "max" | "full" => true,
        "min" => false,
        // buildkit wording
        other => return Err(Error::invalid(format!("invalid mode {other:?}"))),
    };
    let version = match get("version") {
        "" | "v0.2" => Slsa::V02,
        "v1" => Slsa::V1,
        other => {
            // buildkit wording
            return Err(Error::invalid(format!("invalid provenance SLSA version: {other}")));
        }
    };
    let file = match get("filename") {
        "" => "provenance.json",
        name => name,
    };
    Ok(Provenance {
        max,
        version,
        builder: get("builder-id").to_owned(),
        reproducible: boolean("reproducible", get("reproducible"))?,
        complete: boolean("complete-materials", get("complete-materials"))?,
        inline_only: boolean("inline-only", get("inline-only"))?,
        file: file.to_owned(),
    })
}

fn sbom(fields: &BTreeMap<&str, &str>) -> Result<Sbom, Error> {
    let generator = fields.get("generator").copied().unwrap_or(SCANNER);
    // buildkit wording
    let bad = |error: &dyn std::fmt::Display| {
        Error::invalid(format!("failed to parse sbom scanner {generator}: {error}"))
    };
    let name = Reference::parse_normalized(generator).map_err(|error| bad(&error))?;
    let name = if name.is_name_only() { name.with_tag(DEFAULT_TAG) } else { Ok(name) };
    let generator = name.map_err(|error| bad(&error))?.to_string();
    let parameters = fields.iter().filter(|(name, _)| !matches!(**name, "generator" | "type"));
    let parameters = parameters.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Ok(Sbom { generator, parameters: parameters.collect() })
}

/// Settles what is said when it is known where the result goes, and which build it is.
///
/// buildx asks for provenance that is `inline-only` when nobody has asked it for any; images then
/// stay plain manifests, unless the exporter is told `attestation-inline`.
pub(crate) fn begin(
    wanted: &mut Option<Attest>,
    exports: &[Export],
    build: &str,
) -> Result<(), Error> {
    let Some(attest) = wanted else { return Ok(()) };
    let mut inline = false;
    for export in exports {
        inline |= switch(&export.attributes, "attestation-inline")?.unwrap_or(false);
    }
    attest.provenance.take_if(|provenance| provenance.inline_only && !inline);
    build.clone_into(&mut attest.invocation);
    if attest.provenance.is_none() && attest.sbom.is_none() {
        *wanted = None;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Result<Option<Attest>, Error> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        wanted(&Attributes(pairs.iter().map(own).collect()))
    }

    #[test]
    fn what_is_to_be_said() {
        assert_eq!(asked(&[("build-arg:A", "b")]).unwrap(), None);
        let usual = asked(&[("attest:provenance", "")]).unwrap().unwrap();
        let provenance = usual.provenance.unwrap();
        assert!(provenance.max && !provenance.reproducible && !provenance.inline_only);
        assert_eq!((provenance.version, provenance.file.as_str()), (Slsa::V02, "provenance.json"));
        let all = "type=provenance,mode=min,version=v1,\"builder-id=https://x,y\",reproducible=true,\
                   filename=p.json";
        let all = asked(&[("attest:provenance", all)]).unwrap().unwrap().provenance.unwrap();
        assert_eq!((all.max, all.version, all.reproducible), (false, Slsa::V1, true));
        assert_eq!((all.builder.as_str(), all.file.as_str()), ("https://x,y", "p.json"));
        let argument = asked(&[("build-arg:BUILDKIT_ATTEST_PROVENANCE", "mode=min")]).unwrap();
        assert!(!argument.unwrap().provenance.unwrap().max);
        let scanned = asked(&[("attest:sbom", "type=sbom,generator=x/y,A=b")]).unwrap().unwrap();
        let sbom = scanned.sbom.unwrap();
        assert_eq!(sbom.generator, "docker.io/x/y:latest");
        assert_eq!(sbom.parameters, [("A".to_owned(), "b".to_owned())].into());
        let usual = asked(&[("attest:sbom", "")]).unwrap().unwrap().sbom.unwrap();
        assert_eq!(usual.generator, format!("docker.io/{SCANNER}"));
        for (name, value, words) in [
            ("attest:sbom", "generator=X", "failed to parse sbom scanner X"),
            ("attest:provenance", "mode=all", "invalid mode \"all\""),
            ("attest:provenance", "version=v2", "invalid provenance SLSA version: v2"),
            ("attest:provenance", "reproducible=maybe", "reproducible"),
            ("attest:provenance", "\"mode", "failed to parse provenance"),
            ("attest:vsa", "", "unknown attestation type \"vsa\""),
        ] {
            let error = asked(&[(name, value)]).unwrap_err();
            assert!(error.message().contains(words), "{error}");
        }
    }

    #[test]
    fn what_nobody_asked_for_is_not_said() {
        let begun = |value: &str, attributes: &[(&str, &str)]| {
            let mut attest = asked(&[("attest:provenance", value)]).unwrap();
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let attributes = Attributes(attributes.iter().map(own).collect());
            let export = Export { kind: "moby".to_owned(), attributes };
            begin(&mut attest, &[export], "build").unwrap();
            attest.map(|attest| attest.invocation)
        };
        assert_eq!(begun("mode=min,inline-only=true", &[]), None);
        assert_eq!(begun("mode=min", &[]).as_deref(), Some("build"));
        let inline = [("attestation-inline", "true")];
        assert_eq!(begun("mode=min,inline-only=true", &inline).as_deref(), Some("build"));
    }
}

//! `--attest`, `--provenance` and `--sbom`.

use std::collections::BTreeMap;

use crate::failure::{Failure, Outcome};
use crate::options::values::csv_fields;

/// A boolean as Go's `strconv.ParseBool` reads it.
fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The frontend's attributes for what is to be said. Of what is asked for twice, the last holds.
pub(super) fn attributes(
    attest: &[String],
    provenance: &str,
    sbom: &str,
) -> Outcome<BTreeMap<String, String>> {
    let short = |kind: &str, text: &str| match (text, switch(text)) {
        ("", _) => None,
        (_, Some(wanted)) => Some(format!("type={kind},disabled={}", !wanted)),
        (own, None) => Some(format!("type={kind},{own}")),
    };
    let shorts = [short("provenance", provenance), short("sbom", sbom)];
    let mut wanted = BTreeMap::new();
    for text in attest.iter().cloned().chain(shorts.into_iter().flatten()) {
        let bad =
            |what: String| Failure::new(format!("ERROR: invalid attestation {text:?}: {what}"));
        let (mut kind, mut disabled, mut rest) = (String::new(), false, Vec::new());
        for field in csv_fields(&text).map_err(bad)? {
            let Some((name, value)) = field.split_once('=') else {
                // buildx wording
                return Err(bad(format!("invalid value {field}")));
            };
            match name.trim().to_lowercase().as_str() {
                "type" => value.clone_into(&mut kind),
                "disabled" => {
                    disabled =
                        switch(value).ok_or_else(|| bad(format!("invalid value {field}")))?;
                }
                // Scanners' parameters have a case.
                _ => rest.push(super::request::quoted(&field)),
            }
        }
        if kind.is_empty() {
            // buildx wording
            return Err(bad("attestation type not specified".to_owned()));
        }
        wanted.insert(format!("attest:{kind}"), (!disabled).then(|| rest.join(",")));
    }
    Ok(wanted.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_said() {
        let all = |attest: &[&str], provenance: &str| {
            let attest: Vec<String> = attest.iter().map(ToString::to_string).collect();
            let pairs = attributes(&attest, provenance, "").ok()?;
            Some(
                pairs
                    .into_iter()
                    .map(|(name, value)| format!("{name}:{value}"))
                    .collect::<Vec<_>>(),
            )
        };
        let none: Option<Vec<String>> = Some(Vec::new());
        assert_eq!(all(&[], ""), none);
        assert_eq!(all(&[], "false"), none);
        assert_eq!(all(&[], "true").unwrap(), ["attest:provenance:"]);
        assert_eq!(all(&[], "mode=min").unwrap(), ["attest:provenance:mode=min"]);
        let long = "type=provenance,\"builder-id=a,b\",mode=max";
        assert_eq!(all(&[long], "").unwrap(), ["attest:provenance:\"builder-id=a,b\",mode=max"]);
        assert_eq!(all(&["type=provenance"], "0"), none);
        assert_eq!(all(&["mode=max"], ""), None);
        assert_eq!(all(&["type=sbom,disabled=perhaps"], ""), None);
    }
}

//! SLSA provenance, in the words that BuildKit has for it.
//!
//! Source: <https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md>

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use silo_oci::attest::{Attestation, package_url};
use silo_oci::platform::Platform;
use silo_oci::reference::Reference;
use silo_types::Error;
use silo_types::time::rfc3339_nano;

use super::capture::{Captured, redacted};
use super::{Attest, Provenance, Slsa};
use crate::fetch::GitRef;
use crate::plan::PROXIES;

/// What the request has that says nothing of the result, or that is told elsewhere.
const LEFT_OUT: [&str; 4] = ["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"];
/// How names begin that are left out as well.
const LEFT_OUT_PREFIXES: [&str; 3] = ["attest:", "build-arg:BUILDKIT_ATTEST_", "sharedkey:"];

/// A material: where it is, and what it is.
struct Material {
    uri: String,
    digest: Value,
}

impl Material {
    fn value(&self) -> Value {
        json!({ "uri": self.uri, "digest": self.digest })
    }
}

/// What is known of the request.
struct Told {
    source: Map<String, Value>,
    args: BTreeMap<String, String>,
    vcs: BTreeMap<String, String>,
    is_complete: bool,
}

/// How a result was made. `step` is the one whose result it is.
pub(super) fn provenance(
    attest: &Attest,
    wanted: &Provenance,
    captured: &Captured,
    file: (&str, &[u8]),
    step: Option<usize>,
    times: (Timestamp, Timestamp),
) -> Result<Attestation, Error> {
    let materials = materials(captured);
    let told = told(attest, wanted, captured, &materials);
    let all_known = captured.local.is_empty();
    if wanted.complete && !all_known {
        let names: Vec<&str> = captured.local.iter().map(String::as_str).collect();
        // buildkit wording
        let text = format!(
            "provenance materials are incomplete: uncaptured local sources: {}",
            names.join(", ")
        );
        return Err(Error::invalid(text));
    }
    let mut request = Map::new();
    request.insert("frontend".into(), attest.frontend.clone().into());
    if !told.args.is_empty() {
        request.insert("args".into(), json!(told.args));
    }
    if wanted.max {
        for (name, asked) in [("secrets", &captured.secrets), ("ssh", &captured.ssh)] {
            let list = asked.iter().map(|(id, optional)| match optional {
                true => json!({ "id": id, "optional": true }),
                false => json!({ "id": id }),
            });
            let list: Vec<Value> = list.collect();
            if !list.is_empty() {
                request.insert(name.into(), list.into());
            }
        }
    }
    if !captured.local.is_empty() {
        let locals: Vec<Value> =
            captured.local.iter().map(|name| json!({ "name": name })).collect();
        request.insert("locals".into(), locals.into());
    }
    let mut metadata = Map::new();
    if !told.vcs.is_empty() {
        metadata.insert("vcs".into(), json!(told.vcs));
    }
    let mut config = None;
    if wanted.max {
        let steps = super::steps::in_order(captured, step);
        metadata.insert("source".into(), source(file, &steps.locations));
        config = Some(json!({ "llbDefinition": steps.list }));
    }
    let host = Platform::host().to_string();
    let (started, finished) = (rfc3339_nano(times.0), rfc3339_nano(times.1));
    let hermetic = all_known && !captured.network;
    let list: Vec<Value> = materials.iter().map(Material::value).collect();
    let (predicate_type, mut predicate) = match wanted.version {
        Slsa::V02 => (
            "https://slsa.dev/provenance/v0.2",
            json!({
                "builder": { "id": wanted.builder },
                "buildType": "https://mobyproject.org/buildkit@v1",
                "materials": list,
                "invocation": {
                    "configSource": told.source,
                    "parameters": request,
                    "environment": { "platform": host },
                },
                "metadata": {
                    "buildInvocationID": attest.invocation,
                    "buildStartedOn": started,
                    "buildFinishedOn": finished,
                    "completeness": {
                        "parameters": told.is_complete,
                        "environment": true,
                        "materials": all_known,
                    },
                    "reproducible": wanted.reproducible,
                    "https://mobyproject.org/buildkit@v1#metadata": metadata,
                },
            }),
        ),
        Slsa::V1 => (
            "https://slsa.dev/provenance/v1",
            json!({
                "buildDefinition": {
                    "buildType": "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
                    "externalParameters": {
                        "configSource": told.source,
                        "request": request,
                    },
                    "internalParameters": { "builderPlatform": host },
                    "resolvedDependencies": list,
                },
                "runDetails": {
                    "builder": { "id": wanted.builder },
                    "metadata": {
                        "invocationId": attest.invocation,
                        "startedOn": started,
                        "finishedOn": finished,
                        "buildkit_metadata": metadata,
                        "buildkit_completeness": {
                            "request": told.is_complete,
                            "resolvedDependencies": all_known,
                        },
                        "buildkit_reproducible": wanted.reproducible,
                    },
                },
            }),
        ),
    };
    let (hermetically, configured) = match wanted.version {
        Slsa::V02 => {
            (predicate["metadata"].as_object_mut(), "https://mobyproject.org/buildkit@v1#hermetic")
        }
        Slsa::V1 => (predicate["runDetails"]["metadata"].as_object_mut(), "buildkit_hermetic"),
    };
    if let Some(place) = hermetically.filter(|_| hermetic) {
        place.insert(configured.to_owned(), true.into());
    }
    let place = match wanted.version {
        Slsa::V02 => predicate.as_object_mut(),
        Slsa::V1 => predicate["buildDefinition"]["internalParameters"].as_object_mut(),
    };
    if let (Some(place), Some(config)) = (place, config) {
        place.insert("buildConfig".to_owned(), config);
    }
    let (predicate_type, file) = (predicate_type.to_owned(), wanted.file.clone());
    Ok(Attestation { predicate_type, predicate, file, subjects: Vec::new() })
}

/// Everything from elsewhere, with its digest.
fn materials(captured: &Captured) -> Vec<Material> {
    let images = captured.images.iter().filter_map(|((name, _), image)| {
        let kind = if image.is_local { "oci" } else { "docker" };
        let name = Reference::parse_normalized(name).ok()?;
        Some(Material {
            uri: package_url(kind, &name, Some(&image.platform)),
            digest: json!({ "sha256": image.digest.hex() }),
        })
    });
    let git = captured.git.iter().map(|(url, commit)| {
        let algorithm = if commit.len() == 64 { "sha256" } else { "sha1" };
        Material { uri: url.clone(), digest: json!({ algorithm: commit }) }
    });
    let http = captured.http.iter().map(|(url, digest)| Material {
        uri: url.clone(),
        digest: json!({ "sha256": digest.hex() }),
    });
    images.chain(git).chain(http).collect()
}

/// What of the request is told.
fn told(attest: &Attest, wanted: &Provenance, captured: &Captured, all: &[Material]) -> Told {
    let mut args = attest.args.clone();
    let key = match args.get("contextkey").map(String::as_str) {
        None | Some("") => "context".to_owned(),
        Some(key) => key.to_owned(),
    };
    let mut source = Map::new();
    if let Some(place) = args.remove(&key).filter(|place| !place.is_empty()) {
        let url = match GitRef::parse(&place) {
            Ok(Some(git)) if git.reference.is_empty() => redacted(&git.remote),
            Ok(Some(git)) => format!("{}#{}", redacted(&git.remote), git.reference),
            _ => redacted(&place),
        };
        let is_material = captured.git.contains_key(&url) || captured.http.contains_key(&url);
        if let Some(material) = all.iter().find(|material| is_material && material.uri == url) {
            source.insert("digest".into(), material.digest.clone());
        }
        let uri = if is_material { url } else { redacted(&place) };
        source.insert("uri".into(), uri.into());
    }
    if let Some(path) = args.remove("filename").filter(|path| !path.is_empty()) {
        let name = match wanted.version {
            Slsa::V02 => "entryPoint",
            Slsa::V1 => "path",
        };
        source.insert(name.into(), path.into());
    }
    let mut told = Told {
        source,
        args: BTreeMap::new(),
        vcs: BTreeMap::new(),
        is_complete: !attest.frontend.is_empty(),
    };
    for (name, value) in args {
        if LEFT_OUT.contains(&name.as_str())
            || LEFT_OUT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        {
            continue;
        }
        if let Some(name) = name.strip_prefix("vcs:") {
            if !value.is_empty() {
                told.vcs.insert(name.to_owned(), redacted(&value));
            }
            continue;
        }
        let argument = name.strip_prefix("build-arg:");
        if !wanted.max && (argument.is_some() || name.starts_with("label:")) {
            told.is_complete = false;
            continue;
        }
        let is_place = name.starts_with("context:")
            || argument.is_some_and(|argument| PROXIES.contains(&argument));
        told.args.insert(name, if is_place { redacted(&value) } else { value });
    }
    told
}

/// The Dockerfile, and which of its lines each step is.
fn source((name, text): (&str, &[u8]), locations: &Map<String, Value>) -> Value {
    json!({
        "infos": [{ "filename": name, "language": "Dockerfile", "data": STANDARD.encode(text) }],
        "locations": locations,
    })
}

#[cfg(test)]
mod tests {
    use super::super::capture::{Capture, Image, Step};
    use super::*;

    fn attest() -> Attest {
        let args = [
            ("filename", "Dockerfile"),
            ("context", "https://u:p@h/x.git#v1:sub"),
            ("build-arg:TOKEN", "t0ken"),
            ("build-arg:HTTP_PROXY", "http://me:pass@proxy"),
            ("label:a", "b"),
            ("target", "t"),
            ("platform", "linux/amd64"),
            ("attest:provenance", ""),
            ("vcs:source", "https://k:e@h/y.git"),
            ("vcs:revision", "abc"),
            ("context:other", "https://q:r@h/z.tar"),
        ];
        Attest {
            provenance: None,
            sbom: None,
            args: args.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            frontend: "dockerfile.v0".to_owned(),
            invocation: "ref".to_owned(),
        }
    }

    fn wanted(max: bool, version: Slsa) -> Provenance {
        let (builder, file) = (String::new(), "provenance.json".to_owned());
        Provenance {
            max,
            version,
            builder,
            reproducible: true,
            complete: false,
            inline_only: false,
            file,
        }
    }

    fn captured() -> Captured {
        let capture = Capture::default();
        let digest = silo_oci::image::digest(b"x");
        let platform: Platform = "linux/amd64".parse().unwrap();
        let image = Image { platform, digest, is_local: false };
        capture.image("docker.io/library/busybox:1", image);
        capture.git("https://u:p@h/x.git", "v1", &"a".repeat(40));
        capture.http("https://q:r@h/f", digest);
        capture.secret("key", false);
        capture.network();
        let step = |operation, inputs| Step { operation, inputs, span: None };
        let base = capture.step(step(json!({"Op": {"source": {}}}), vec![])).unwrap();
        capture.step(step(json!({"Op": {"exec": {}}}), vec![base])).unwrap();
        capture.get()
    }

    fn told_as(max: bool, version: Slsa) -> Value {
        let times = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        let file = ("Dockerfile", &b"FROM busybox:1\n"[..]);
        let said = provenance(&attest(), &wanted(max, version), &captured(), file, Some(1), times);
        said.unwrap().predicate
    }

    #[test]
    fn little_and_all_are_told() {
        let min = told_as(false, Slsa::V02);
        assert_eq!(min["materials"][0]["uri"], "pkg:docker/busybox@1?platform=linux%2Famd64");
        let source = &min["invocation"]["configSource"];
        assert_eq!(source["uri"], "https://xxxxx:xxxxx@h/x.git#v1");
        assert_eq!(source["digest"]["sha1"], "a".repeat(40));
        assert_eq!(source["entryPoint"], "Dockerfile");
        assert_eq!(
            min["invocation"]["parameters"]["args"],
            json!({"target": "t", "context:other": "https://xxxxx:xxxxx@h/z.tar"})
        );
        assert!(min.get("buildConfig").is_none());
        assert_eq!(min["metadata"]["completeness"]["parameters"], false);
        let own = &min["metadata"]["https://mobyproject.org/buildkit@v1#metadata"];
        assert_eq!(own["vcs"]["source"], "https://xxxxx:xxxxx@h/y.git");

        let max = told_as(true, Slsa::V02);
        let parameters = &max["invocation"]["parameters"];
        assert_eq!(parameters["args"]["build-arg:TOKEN"], "t0ken");
        assert_eq!(parameters["args"]["build-arg:HTTP_PROXY"], "http://xxxxx:xxxxx@proxy");
        assert_eq!(parameters["secrets"], json!([{"id": "key"}]));
        let steps = max["buildConfig"]["llbDefinition"].as_array().unwrap();
        assert_eq!(steps.len(), 3);
        assert_eq!(steps[1]["inputs"], json!(["step0:0"]));
        assert_eq!(max["metadata"]["completeness"]["parameters"], true);

        let one = told_as(true, Slsa::V1);
        let definition = &one["buildDefinition"];
        assert_eq!(definition["externalParameters"]["configSource"]["path"], "Dockerfile");
        assert_eq!(definition["resolvedDependencies"].as_array().unwrap().len(), 3);
        assert!(definition["internalParameters"]["buildConfig"].is_object());
        assert_eq!(one["runDetails"]["metadata"]["buildkit_reproducible"], true);
        for told in [min, max, one] {
            assert!(!told.to_string().contains("u:p"), "{told}");
        }
    }

    #[test]
    fn what_is_not_known_may_be_refused() {
        let complete = Provenance { complete: true, ..wanted(false, Slsa::V1) };
        let times = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        let mut captured = captured();
        let tell = |captured: &Captured| {
            provenance(&attest(), &complete, captured, ("", b""), None, times)
        };
        assert!(tell(&captured).is_ok());
        captured.local.insert("context".to_owned());
        assert!(tell(&captured).unwrap_err().message().contains("context"));
    }
}

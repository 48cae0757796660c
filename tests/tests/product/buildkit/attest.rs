//! What is said about results: provenance.

use std::path::Path;

use fs_err as fs;
use serde_json::Value;
use silo_tests::{Engine, Registry};

use super::{build, built, context};

/// What `imagetools` finds said about an image of a registry.
#[track_caller]
fn provenance(engine: &Engine, name: &str) -> Value {
    let format = "{{json .Provenance}}";
    let arguments = ["buildx", "imagetools", "inspect", name, "--format", format];
    let text = engine.ok(&arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn is_index(document: &Value) -> bool {
    document["mediaType"].as_str().is_some_and(|kind| kind.ends_with("image.index.v1+json"))
}

#[track_caller]
fn document(registry: &Registry, repository: &str) -> Value {
    let digest = registry.digest(repository, "1");
    registry.document(&digest.unwrap_or_else(|| panic!("no {repository}:1")))
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn provenance_goes_with_an_image() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("the daemon's store has no indexes") || !engine.has_plugins_or_skip()
    {
        return;
    }
    let Some(registry) = Registry::start_or_skip() else { return };
    let dockerfile = format!(
        "FROM busybox AS first\nARG WHO\n\
         RUN --mount=type=secret,id=key cat /run/secrets/key && echo {} > /f\n\
         FROM scratch\nCOPY --from=first /f /\nCOPY own /\n",
        engine.name("f")
    );
    let files = [("Dockerfile", dockerfile.as_str()), ("own", "1"), ("key", "hidden-value\n")];
    let folder = context(&engine, "c", &files);
    let secret = format!("id=key,src={}", text_of(&folder.join("key")));
    let push = |name: &str, more: &[&str]| {
        let name = registry.name(&format!("{name}:1"));
        let mut arguments = vec!["--push", "-t", &name, "--build-arg", "WHO=somebody"];
        arguments.extend(["--secret", &secret, "--build-arg", "SOURCE_DATE_EPOCH=1000"]);
        arguments.extend(more);
        built(&engine, &folder, &arguments);
        name
    };
    // Nobody asked for it, whatever the client sends of itself.
    push("plain", &[]);
    let plain = document(&registry, "plain");
    assert!(!is_index(&plain), "{plain}");

    let name = push("max", &["--provenance=mode=max,builder-id=https://here"]);
    let index = document(&registry, "max");
    assert!(is_index(&index), "{index}");
    let entries = index["manifests"].as_array().expect("entries");
    // The image is the same as without.
    assert_eq!(entries[0]["digest"], registry.digest("plain", "1").expect("it").as_str());
    assert_eq!(entries[1]["platform"]["os"], "unknown");
    let marks = &entries[1]["annotations"];
    assert_eq!(marks["vnd.docker.reference.digest"], entries[0]["digest"]);
    assert_eq!(marks["vnd.docker.reference.type"], "attestation-manifest");
    let manifest = registry.document(entries[1]["digest"].as_str().expect("a digest"));
    let statement = &manifest["layers"][0];
    assert_eq!(statement["mediaType"], "application/vnd.in-toto+json");
    let statement = registry.blob(statement["digest"].as_str().expect("a digest"));
    let statement: Value = serde_json::from_slice(&fs::read(statement).expect("it")).expect("JSON");
    let about = statement["subject"][0]["digest"]["sha256"].as_str().expect("a digest");
    assert_eq!(entries[0]["digest"], format!("sha256:{about}"));
    assert!(statement["subject"][0]["name"].as_str().expect("a name").contains("max@1?platform="));

    let max = provenance(&engine, &name);
    let said = &max["SLSA"];
    assert_eq!(said["buildType"], "https://mobyproject.org/buildkit@v1");
    assert_eq!(said["builder"]["id"], "https://here");
    let uri = said["materials"][0]["uri"].as_str().expect("a URI");
    assert!(uri.starts_with("pkg:docker/busybox@latest?platform=linux%2F"), "{uri}");
    let parameters = &said["invocation"]["parameters"];
    assert_eq!(parameters["args"]["build-arg:WHO"], "somebody");
    assert_eq!(parameters["secrets"][0]["id"], "key");
    let steps = said["buildConfig"]["llbDefinition"].as_array().expect("steps");
    let has = |kind: &str| steps.iter().any(|step| step["op"]["Op"][kind].is_object());
    assert!(has("source") && has("exec") && has("file"), "{steps:?}");
    assert!(!max.to_string().contains("hidden-value"), "{max}");

    push("min", &["--provenance=mode=min,version=v1"]);
    let min = provenance(&engine, &registry.name("min:1"));
    let definition = &min["SLSA"]["buildDefinition"];
    assert_eq!(definition["externalParameters"]["configSource"]["path"], "Dockerfile");
    assert_eq!(definition["resolvedDependencies"][0]["uri"], uri);
    assert!(!min.to_string().contains("somebody"), "{min}");

    // Such an image is one like any other, from a registry, and of the engine's own.
    let own = registry.name("again:1");
    engine.ok(&["tag", &name, &own]);
    engine.ok(&["push", &own]);
    let again = provenance(&engine, &own);
    assert_eq!(
        again["SLSA"]["metadata"]["buildInvocationID"],
        said["metadata"]["buildInvocationID"]
    );
    engine.ok(&["rmi", &name, &own]);
    engine.ok(&["pull", &name]);
    let id = engine.ok(&["create", &name, "x"]);
    engine.ok(&["rm", &id]);
    for (value, words) in [
        ("mode=some", "invalid mode \"some\""),
        ("version=v9", "invalid provenance SLSA version"),
        ("complete-materials=true", "provenance materials are incomplete"),
    ] {
        let provenance = format!("--provenance={value}");
        let refused = build(&engine, &folder, &["--secret", &secret, &provenance]);
        assert_ne!(refused.code, 0);
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
}

#[test]
fn provenance_lies_beside_files_and_in_layouts() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("the daemon's store has no indexes") || !engine.has_plugins_or_skip()
    {
        return;
    }
    let files = [("Dockerfile", "FROM scratch\nCOPY own other /\n"), ("own", "1"), ("other", "2")];
    let folder = context(&engine, "c", &files);
    let out = folder.join("out");
    built(&engine, &folder, &["--provenance=true", "-o", text_of(&out)]);
    let read = |path: &Path| -> Value {
        serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
    };
    let said = read(&out.join("provenance.json"));
    let names: Vec<_> =
        said["subject"].as_array().expect("subjects").iter().map(|file| &file["name"]).collect();
    assert_eq!(names, ["other", "own"]);
    let digest = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";
    assert_eq!(said["subject"][1]["digest"]["sha256"], digest);
    // Without asking there is none.
    let plain = folder.join("plain");
    built(&engine, &folder, &["-o", text_of(&plain)]);
    assert!(!plain.join("provenance.json").exists());

    let name = engine.name("laid");
    let archive = folder.join("oci.tar");
    let output = format!("type=oci,oci-artifact=true,dest={}", text_of(&archive));
    built(&engine, &folder, &["--provenance=mode=min", "-o", &output, "-t", &name]);
    let loaded = engine.ok(&["load", "-i", text_of(&archive)]);
    assert!(loaded.contains(&name), "{loaded}");
    let again = folder.join("again.tar");
    engine.ok(&["save", "-o", text_of(&again), &name]);
    engine.ok(&["rmi", &name]);
    for archive in [archive, again] {
        let layout = archive.with_extension("");
        fs::create_dir(&layout).expect("a directory");
        let unpack = ["-xf", text_of(&archive), "-C", text_of(&layout)];
        let done = std::process::Command::new("tar").args(unpack).status().expect("tar");
        assert!(done.success());
        let blob = |entry: &Value| {
            let digest = entry["digest"].as_str().expect("a digest").replace(':', "/");
            read(&layout.join("blobs").join(digest))
        };
        let index = blob(&read(&layout.join("index.json"))["manifests"][0]);
        let about = blob(&index["manifests"][1]);
        assert_eq!(about["subject"]["digest"], index["manifests"][0]["digest"]);
        let said = blob(&about["layers"][0]);
        assert_eq!(said["predicate"]["invocation"]["parameters"]["frontend"], "dockerfile.v0");
    }
}

/// A scanner as BuildKit's protocol has it: it names what it finds in each root.
const SCANNER: &str = r#"set -e
one() {
    name=$(basename "$1")
    if touch "$1/new" 2> /dev/null; then exit 1; fi
    printf '{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"%s","subject":null,
        "predicate":{"name":"%s","files":"%s","told":"%s"}}' https://spdx.dev/Document \
        "$name" "$(cd "$1" && echo *)" "$BUILDKIT_SCAN_WORD" \
        > "$BUILDKIT_SCAN_DESTINATION/$name.spdx.json"
}
one "$BUILDKIT_SCAN_SOURCE"
if [ -n "$BUILDKIT_SCAN_SOURCE_EXTRAS" ]; then
    for extra in "$BUILDKIT_SCAN_SOURCE_EXTRAS"/*; do one "$extra"; done
fi
"#;

#[test]
fn a_scanner_says_what_an_image_is_made_of() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("the daemon's store has no indexes") || !engine.has_plugins_or_skip()
    {
        return;
    }
    let Some(registry) = Registry::start_or_skip() else { return };
    let scanner = engine.name("scanner");
    let dockerfile = "FROM busybox\nCOPY scan /\nENTRYPOINT [\"sh\"]\nCMD [\"/scan\"]\n";
    let files = [("Dockerfile", dockerfile), ("scan", SCANNER)];
    built(&engine, &context(&engine, "scanner", &files), &["-t", &scanner]);

    let dockerfile = "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nFROM busybox AS first\n\
                      ARG BUILDKIT_SBOM_SCAN_STAGE=true\nWORKDIR /made\n\
                      FROM scratch\nCOPY --from=first /made /made\nCOPY own /\n";
    let folder = context(&engine, "c", &[("Dockerfile", dockerfile), ("own", "1")]);
    let name = registry.name("scanned:1");
    let sbom = format!("--sbom=generator={scanner},WORD=this");
    built(&engine, &folder, &[&sbom, "--provenance=mode=min", "--push", "-t", &name]);
    let format = "{{json .SBOM}}";
    let text = engine.ok(&["buildx", "imagetools", "inspect", &name, "--format", format]);
    let said: Value = serde_json::from_str(&text).expect("JSON");
    let core = serde_json::json!({ "name": "sbom", "files": "made own", "told": "this" });
    assert_eq!(said["SPDX"], core);
    let extras = said["AdditionalSPDXs"].as_array().expect("more");
    let extra = |name: &str| {
        let found = extras.iter().find(|extra| extra["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {text}"))["files"].to_string()
    };
    assert!(extra("sbom-first").contains("made"), "{text}");
    assert!(extra("sbom-context").contains("Dockerfile"), "{text}");
    assert!(provenance(&engine, &name)["SLSA"].is_object());

    let out = folder.join("out");
    let output = format!("type=local,attestation-prefix=x-,dest={}", text_of(&out));
    let done = engine.silo(&["build", &sbom, "--output", &output, text_of(&folder)]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let file = fs::read(out.join("x-sbom.spdx.json")).expect("a statement");
    let said: Value = serde_json::from_slice(&file).expect("JSON");
    assert_eq!(said["predicate"], core);
    assert_eq!(said["subject"][0]["name"], "own");

    // What cannot be scanned is not built.
    let missing = format!("--sbom=generator={}", registry.name("none"));
    let refused = build(&engine, &folder, &[&missing]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("none:latest: not found"), "{}", refused.stderr);
}

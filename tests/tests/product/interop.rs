//! Images, registries and clients of other makers, each with Silo's.

mod buildkit;
mod clients;
mod engine_images;
mod engines;
mod shapes;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::registryd::{Answer, sha256};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Any registry, without TLS, by the requests of the specification.
struct Remote {
    address: String,
    /// Blobs that are there, by repository and digest.
    pushed: RefCell<BTreeSet<String>>,
}

impl Remote {
    fn new(address: &str) -> Self {
        Self { address: address.to_owned(), pushed: RefCell::default() }
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        use std::io::Write as _;
        let mut stream = TcpStream::connect(&self.address).expect("connect to the registry");
        let mut head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n",
            self.address,
            body.len()
        );
        for (name, value) in headers {
            head = format!("{head}{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).expect("send a head");
        stream.write_all(body).ok();
        Answer::read(stream)
    }

    /// Pushes a blob in the two requests that every registry knows.
    fn blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        self.blob_as(repository, &digest, bytes);
        digest
    }

    fn blob_as(&self, repository: &str, digest: &str, bytes: &[u8]) {
        if !self.pushed.borrow_mut().insert(format!("{repository}@{digest}")) {
            return;
        }
        let begun = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        assert_eq!(begun.status, 202, "{}", begun.text());
        let location = begun.header("location").expect("a location");
        let host = format!("http://{}", self.address);
        let target = location.strip_prefix(&host).unwrap_or(location);
        let sign = if target.contains('?') { '&' } else { '?' };
        let done = self.send("PUT", &format!("{target}{sign}digest={digest}"), &[], bytes);
        assert_eq!(done.status, 201, "{}", done.text());
    }

    /// Pushes a manifest; gives its descriptor.
    fn manifest(&self, repository: &str, reference: &str, kind: &str, manifest: &Value) -> Value {
        let bytes = manifest.to_string().into_bytes();
        let digest = sha256(&bytes);
        let reference = if reference.is_empty() { &digest } else { reference };
        let target = format!("/v2/{repository}/manifests/{reference}");
        let answer = self.send("PUT", &target, &[("Content-Type", kind)], &bytes);
        assert_eq!(answer.status, 201, "{}", answer.text());
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    }
}

/// A layer as it is sent.
#[derive(Clone)]
struct Layer {
    media_type: String,
    bytes: Vec<u8>,
    diff_id: String,
    /// Members of its descriptor besides the usual ones.
    more: Value,
}

impl Layer {
    /// The tar that `bytes` is made of by a program.
    fn packed(media_type: &str, tar: &[u8], program: &[&str]) -> Self {
        let bytes = if program.is_empty() { tar.to_vec() } else { filter(program, tar) };
        Self { media_type: media_type.into(), bytes, diff_id: sha256(tar), more: json!({}) }
    }

    fn gzip(tar: &[u8]) -> Self {
        Self::packed(&format!("{OCI_LAYER}+gzip"), tar, &["gzip", "-1n"])
    }
}

/// An image as others would push it.
struct Shape {
    manifest_type: &'static str,
    config_type: &'static str,
    layers: Vec<Layer>,
    /// Members of the configuration, and of the manifest, besides the usual ones.
    config: Value,
    manifest: Value,
}

impl Shape {
    fn oci(layers: &[&Layer]) -> Self {
        Self {
            manifest_type: OCI_MANIFEST,
            config_type: OCI_CONFIG,
            layers: layers.iter().map(|layer| (*layer).clone()).collect(),
            config: json!({}),
            manifest: json!({}),
        }
    }

    /// Pushes it; gives the manifest's descriptor.
    fn push(&self, remote: &Remote, repository: &str, reference: &str) -> Value {
        let ids: Vec<&String> = self.layers.iter().map(|layer| &layer.diff_id).collect();
        let mut config = json!({
            "architecture": "amd64", "os": "linux",
            "config": { "Cmd": ["cat", "/said"], "Env": ["PATH=/bin"] },
            "rootfs": { "type": "layers", "diff_ids": ids },
        });
        merge(&mut config, &self.config);
        let config = config.to_string().into_bytes();
        let mut layers = Vec::new();
        for layer in &self.layers {
            let mut descriptor = json!({
                "mediaType": layer.media_type,
                "digest": sha256(&layer.bytes),
                "size": layer.bytes.len(),
            });
            merge(&mut descriptor, &layer.more);
            if layer.more.get("urls").is_none() {
                remote.blob(repository, &layer.bytes);
            }
            layers.push(descriptor);
        }
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": self.manifest_type,
            "config": {
                "mediaType": self.config_type,
                "digest": remote.blob(repository, &config),
                "size": config.len(),
            },
            "layers": layers,
        });
        merge(&mut manifest, &self.manifest);
        remote.manifest(repository, reference, self.manifest_type, &manifest)
    }
}

fn merge(into: &mut Value, more: &Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

/// What a program makes of bytes.
fn filter(program: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program:?}: {error}"));
    let (mut stdin, bytes) = (child.stdin.take().expect("its input"), input.to_vec());
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().expect("wait for the program");
    writer.join().expect("the writer").expect("give it input");
    assert!(output.status.success(), "{program:?}");
    output.stdout
}

/// The tar of a directory.
fn tar(directory: &Path) -> Vec<u8> {
    let output = Command::new("tar")
        .args(["--sort=name", "--mtime=@1700000000", "--owner=0", "--group=0", "-C"])
        .arg(directory)
        .args(["-c", "."])
        .output()
        .expect("run tar");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The tar of some files.
fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    silo_tests::write_files(directory.path(), files);
    tar(directory.path())
}

/// The tar of a small userland: a shell and a few commands.
fn userland() -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    let bin = directory.path().join("bin");
    fs_err::create_dir(&bin).expect("a folder");
    fs_err::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
    for applet in ["sh", "cat", "ls", "echo"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("a link");
    }
    tar(directory.path())
}

//! `silo registry serve`, by its protocol and by other people's clients.

mod archives;
mod artifacts;
pub(super) mod clients;
mod copies;
mod crash;
mod ending;
mod hostile;
mod manifests;
mod protocol;
mod proxy;
mod shared;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// A registry of a test's own.
pub(super) struct Registry {
    pub(super) directory: tempfile::TempDir,
    root: PathBuf,
    options: Vec<String>,
    server: Option<Child>,
    pub(super) address: String,
}

impl Registry {
    pub(super) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(super) fn start_with(options: &[&str]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("silo-registry-")
            .tempdir()
            .expect("a directory for the test");
        let root = directory.path().join("data");
        Self::start_at(directory, root, options)
    }

    /// On the data root of somebody else.
    pub(super) fn start_at(directory: tempfile::TempDir, root: PathBuf, options: &[&str]) -> Self {
        let options = options.iter().map(ToString::to_string).collect();
        let mut registry = Self { directory, root, options, server: None, address: String::new() };
        registry.restart();
        registry
    }

    /// Starts the server, which does not run.
    fn restart(&mut self) {
        let log = fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.path().join("registry.log"))
            .expect("the registry's log");
        let log: std::fs::File = log.into_parts().0;
        let mut server = silo_tests::alone(Command::new(silo_tests::silo_binary()))
            .args(["registry", "serve", "--listen", "127.0.0.1:0", "--ready-on-stdout"])
            .args(["--log-level", "debug", "--root"])
            .arg(&self.root)
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("start silo registry");
        let mut line = String::new();
        let output = server.stdout.take().expect("the server's output");
        BufReader::new(output).read_line(&mut line).expect("the server's address");
        self.server = Some(server);
        let address = line.trim().split_once("://").map(|(_, address)| address.to_owned());
        self.address = address.unwrap_or_else(|| panic!("it did not start:\n{}", self.log()));
    }

    fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("kill the registry");
            server.wait().expect("wait for the registry");
        }
    }

    pub(super) fn log(&self) -> String {
        fs_err::read_to_string(self.directory.path().join("registry.log")).unwrap_or_default()
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).expect("connect to the registry")
    }

    pub(super) fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut stream = self.connect();
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: r\r\nConnection: close\r\n");
        for (name, value) in headers {
            head = format!("{head}{name}: {value}\r\n");
        }
        head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).expect("send a head");
        // A server that refuses a request need not read its body.
        stream.write_all(body).ok();
        Answer::read(stream)
    }

    pub(super) fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], b"")
    }

    /// Pushes a blob; gives its digest.
    fn blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let answer = self.send("POST", &target, &[], bytes);
        assert_eq!(answer.status, 201, "{}", answer.text());
        digest
    }

    /// Begins an upload; gives its location.
    fn upload(&self, repository: &str) -> String {
        let answer = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.header("location").expect("a location").to_owned()
    }

    /// Pushes an image of one layer; gives its manifest's digest.
    fn image(&self, repository: &str, tag: &str, layer: &[u8], more: &Value) -> String {
        let config = self.blob(repository, b"{}");
        let digest = self.blob(repository, layer);
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": { "mediaType": "application/vnd.x", "digest": config, "size": 2 },
            "layers": [{ "mediaType": "x/y", "digest": digest, "size": layer.len() }],
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            manifest[key] = value.clone();
        }
        let bytes = manifest.to_string();
        let answer = self.manifest(repository, tag, bytes.as_bytes());
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.header("docker-content-digest").expect("a digest").to_owned()
    }

    fn manifest(&self, repository: &str, reference: &str, bytes: &[u8]) -> Answer {
        let target = format!("/v2/{repository}/manifests/{reference}");
        self.send("PUT", &target, &[("Content-Type", OCI_MANIFEST)], bytes)
    }

    /// The file of a blob.
    fn file(&self, digest: &str) -> PathBuf {
        self.root.join("registry/blobs").join(digest.replace(':', "/"))
    }

    /// Removes everything that nothing needs.
    fn collect(&self) -> String {
        let output = Command::new(silo_tests::silo_binary())
            .args(["registry", "gc", "--gc-grace", "0s", "--upload-expiry", "0s", "--root"])
            .arg(&self.root)
            .output()
            .expect("run silo registry gc");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.kill();
    }
}

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An answer of the registry.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        // What came before a reset is the answer.
        stream.read_to_end(&mut bytes).ok();
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
        let Some(end) = end else { panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)) };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
        Self { status, head, body: bytes[end + 4..].to_vec() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(super) fn text(&self) -> String {
        format!("{}\n{}", self.head, String::from_utf8_lossy(&self.body))
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The code of an error.
    fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().expect("a code").to_owned()
    }
}

/// A digest by coreutils.
pub(super) fn sum(program: &str, bytes: &[u8]) -> String {
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("coreutils");
    child.stdin.take().expect("its input").write_all(bytes).expect("send bytes");
    let output = child.wait_with_output().expect("a digest");
    let hex = String::from_utf8_lossy(&output.stdout);
    let hex = hex.split(' ').next().expect("a digest");
    format!("{}:{hex}", program.trim_end_matches("sum"))
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    sum("sha256sum", bytes)
}

/// Bytes that do not repeat soon.
pub(super) fn noise(seed: u8, count: usize) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

/// Whether programs are installed; otherwise the test counts as skipped.
pub(super) fn has_or_skip(test: &str, programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| {
        let found = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        });
        !found
    });
    if let Some(program) = missing {
        silo_tests::skip(test, &format!("{program} is not installed"));
    }
    missing.is_none()
}

/// Runs a program that has to succeed; gives its output.
pub(super) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("run a program");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// All files below a directory.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

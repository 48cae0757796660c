//! Debian's `docker-registry` for one test.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A registry of the test's own. Dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    directory: TempDir,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Registry {
    /// A registry without TLS that anybody may use, on a port of its own of the loopback
    /// interface. `None`, with the running test counted as skipped, where it is not installed.
    pub fn start_or_skip() -> Option<Self> {
        Self::start_with(|_| String::new())
    }

    /// One that lets in the user `me` with the password `secret` only.
    pub fn start_with_password_or_skip() -> Option<Self> {
        // bcrypt of `secret`, as htpasswd makes it.
        const LINE: &str = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
        Self::start_with(|directory| {
            let file = directory.join("htpasswd");
            fs_err::write(&file, LINE).expect("a file of passwords");
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display())
        })
    }

    /// One with further configuration, which `more` makes for a directory.
    pub fn start_with(more: impl FnOnce(&Path) -> String) -> Option<Self> {
        let program = Path::new("/usr/bin/docker-registry");
        if !program.exists() {
            let thread = std::thread::current();
            crate::skip(thread.name().unwrap_or("a test"), "docker-registry is not installed");
            return None;
        }
        let directory = tempfile::Builder::new()
            .prefix("silo-test-registry-")
            .tempdir()
            .expect("a directory for the registry");
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
             delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:0\n{}",
            directory.path().join("storage").display(),
            more(directory.path())
        );
        let file = directory.path().join("config.yml");
        fs_err::write(&file, config).expect("the registry's configuration");
        let mut child = crate::alone(Command::new(program))
            .arg("serve")
            .arg(&file)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start docker-registry");
        let mut log = BufReader::new(child.stderr.take().expect("its log"));
        let mut seen = String::new();
        let address = loop {
            let mut line = String::new();
            let count = log.read_line(&mut line).expect("read the registry's log");
            assert!(count > 0, "the registry did not start:\n{seen}");
            let found = line.split("listening on ").nth(1).map(|rest| {
                rest.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect()
            });
            seen.push_str(&line);
            if let Some(address) = found {
                break address;
            }
        };
        // Nobody reads on, and a full pipe would stop it.
        let path = directory.path().join("registry.log");
        let mut rest = fs_err::File::create(path).expect("a log").into_parts().0;
        std::thread::spawn(move || std::io::copy(&mut log, &mut rest));
        Some(Self { child, directory, address })
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A name in it.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// The digest that a tag leads to; nothing where there is no such tag.
    pub fn digest(&self, repository: &str, tag: &str) -> Option<String> {
        let repositories = self.directory.path().join("storage/docker/registry/v2/repositories");
        let link = format!("{repository}/_manifests/tags/{tag}/current/link");
        fs_err::read_to_string(repositories.join(link)).ok()
    }

    /// The document of a digest.
    pub fn document(&self, digest: &str) -> serde_json::Value {
        let bytes = fs_err::read(self.blob(digest)).expect("a document");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// Where it keeps a blob.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        let storage = self.directory.path().join("storage/docker/registry/v2/blobs/sha256");
        storage.join(&hex[..2]).join(hex).join("data")
    }
}

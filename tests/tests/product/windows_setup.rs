//! `silo windows setup` from a mirror on this host. Docker has nothing like it.

mod first_run;

use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use silo_tests::{Engine, Outcome, debian_mirror, skip};

/// An engine and a mirror; `None` where the test cannot run.
fn prepared(test: &str) -> Option<(Engine, PathBuf)> {
    let engine = Engine::start_empty();
    if !engine.is_silo_or_skip("Windows containers on Linux are Silo's") {
        return None;
    }
    match debian_mirror() {
        Ok(mirror) => Some((engine, mirror)),
        Err(reason) => {
            skip(test, &format!("no mirror of Debian's packages: {reason}"));
            None
        }
    }
}

/// Sets up from a mirror. No program of the host is within its reach: the host may be of any
/// distribution.
fn set_up_from(
    engine: &Engine,
    mirror: &str,
    more: &[&str],
    variables: &[(&str, &str)],
) -> Outcome {
    let cache = engine.scratch().join("cache").display().to_string();
    let mut command = engine.silo_command();
    command.args(["windows", "setup", "--mirror", mirror, "--cache", &cache]).args(more);
    command.env("PATH", "/nonexistent").envs(variables.iter().copied());
    command.output().expect("run silo").into()
}

fn set_up(engine: &Engine, mirror: &Path, more: &[&str]) -> Outcome {
    set_up_from(engine, &format!("file://{}", mirror.display()), more, &[])
}

/// A server of a directory. Ends when it is dropped.
struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    port: String,
}

impl Server {
    /// The first transfer of a file that ends with `cut` breaks off; `certificate` makes it HTTPS.
    fn start(directory: &Path, cut: &str, certificate: Option<&Path>) -> Self {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/product/windows_setup/mirror.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(directory).arg(cut).args(certificate);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("run python3");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut port = String::new();
        output.read_line(&mut port).expect("the port");
        Self { child, output, port: port.trim().to_owned() }
    }

    /// Ends it; what it was asked for.
    fn requests(mut self) -> Vec<String> {
        self.child.kill().expect("kill the server");
        self.output.by_ref().lines().map_while(Result::ok).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A certificate for 127.0.0.1 with its key in one file, which also is its own authority.
fn certificate(directory: &Path) -> PathBuf {
    let path = |name: &str| directory.join(name).display().to_string();
    let status = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=mirror",
        ])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &path("key.pem")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-out", &path("cert.pem")])
        .stderr(Stdio::null())
        .status();
    assert!(status.expect("run openssl").success());
    let read = |name: &str| fs_err::read_to_string(directory.join(name)).expect("a file");
    let both = directory.join("both.pem");
    fs_err::write(&both, read("key.pem") + &read("cert.pem")).expect("a file");
    both
}

#[test]
fn images_are_made_once_and_can_be_carried_elsewhere() {
    let Some((engine, mirror)) = prepared("windows_setup::images_are_made_once") else { return };
    let outcome = engine.silo(&["windows", "info"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("silo windows setup"), "{}", outcome.stderr);

    // Over TLS, and with a transfer that breaks off.
    let certificate = certificate(&engine.scratch());
    let authority = certificate.display().to_string();
    let server = Server::start(&mirror, "_i386.deb", Some(&certificate));
    let address = format!("https://127.0.0.1:{}/debian", server.port);
    let outcome = set_up_from(&engine, &address, &[], &[]);
    assert_eq!(outcome.code, 1, "the certificate is nobody's");
    assert!(outcome.stderr.contains("certificate"), "{}", outcome.stderr);
    let outcome = set_up_from(&engine, &address, &[], &[("SSL_CERT_FILE", &authority)]);
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.stderr, engine.daemon_log());
    assert!(outcome.stderr.contains("going on without trixie-security"), "{}", outcome.stderr);
    let requests = server.requests();
    let broken: Vec<&String> =
        requests.iter().filter(|line| line.contains("libwine_") && line.contains("i386")).collect();
    assert!(broken.len() == 2 && broken[0].ends_with(" -"), "{requests:?}");
    assert!(broken[1].contains(" bytes="), "{requests:?}");
    let info = engine.silo(&["windows", "info"]);
    assert!(info.stdout.ends_with("Fit:      yes\n"), "{}", info.stdout);
    assert_eq!(engine.silo(&["ps", "-aq"]).stdout, "", "no container is left");

    let wine = engine.inspect("silo/wine:latest");
    assert_eq!(wine["Os"], "linux");
    assert!(wine["Size"].as_u64().expect("a size") < 150_000_000);
    let core = engine.inspect("silo/servercore:ltsc2019");
    assert_eq!(core["Os"], "windows");
    assert_eq!(core["OsVersion"], "10.0.17763.6293");
    assert_eq!(core["Config"]["Cmd"][0], "c:\\windows\\system32\\cmd.exe");
    let nano = engine.inspect("silo/nanoserver:sac2016");
    assert_eq!(nano["Config"]["User"], "ContainerUser");
    let layers = |image: &serde_json::Value| image["RootFS"]["Layers"].clone();
    assert_eq!(layers(&core)[0], layers(&nano)[0], "one content layer");
    assert_ne!(layers(&core)[1], layers(&nano)[1]);

    // Nothing is done again, and nothing is fetched.
    let outcome = set_up(&engine, Path::new("/nonexistent"), &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    // What was done says how long it took.
    assert!(outcome.stdout.trim_end().ends_with('.'), "{}", outcome.stdout);
    let outcome = set_up(&engine, &mirror, &["--update"]);
    assert!(outcome.stdout.contains("up to date"), "{}", outcome.stdout);

    let archive = engine.scratch().join("windows.tar");
    let archive = archive.to_str().expect("UTF-8");
    let outcome = engine.silo(&["windows", "export", "-o", archive]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let other = Engine::start_empty();
    let outcome = other.silo(&["windows", "import", "-i", archive]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(other.silo(&["windows", "info"]).stdout.ends_with("Fit:      yes\n"));
    assert_eq!(other.inspect("silo/servercore:ltsc2019")["Id"], core["Id"]);
}

#[test]
fn mirrors_that_lie_are_refused() {
    let Some((engine, mirror)) = prepared("windows_setup::mirrors_that_lie") else { return };
    let lying = engine.scratch().join("debian");
    let suite = lying.join("dists/trixie");
    fs_err::create_dir_all(&suite).expect("a directory");
    let signed = fs_err::read_to_string(mirror.join("dists/trixie/InRelease")).expect("InRelease");

    let changed = signed.replacen("Codename: trixie", "Codename: trixiE", 1);
    assert_ne!(changed, signed);
    fs_err::write(suite.join("InRelease"), changed).expect("write");
    let outcome = set_up(&engine, &lying, &[]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("signature"), "{}", outcome.stderr);

    fs_err::write(suite.join("InRelease"), format!("{signed}Origin: me\n")).expect("write");
    let outcome = set_up(&engine, &lying, &[]);
    assert!(outcome.stderr.contains("follows its signature"), "{}", outcome.stderr);

    fs_err::write(suite.join("InRelease"), signed).expect("write");
    for architecture in ["amd64", "i386"] {
        let index = suite.join(format!("main/binary-{architecture}"));
        fs_err::create_dir_all(&index).expect("a directory");
        fs_err::write(index.join("Packages"), "Package: libwine\n").expect("write");
    }
    let outcome = set_up(&engine, &lying, &[]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("another size than"), "{}", outcome.stderr);

    let outcome = set_up(&engine, Path::new("/nonexistent"), &[]);
    assert!(outcome.stderr.contains("the mirror has no file:///nonexistent"), "{}", outcome.stderr);
    let outcome = set_up_from(&engine, "ftp://mirror", &[], &[]);
    assert!(outcome.stderr.contains("http://, https:// or file:// is needed"), "{outcome:?}");
    assert_eq!(engine.silo(&["images", "-q"]).stdout, "", "nothing was loaded");
}

/// What has to do with a network: proxies, and what is not there.
#[test]
fn mirrors_are_reached_through_proxies() {
    let Some((engine, mirror)) = prepared("windows_setup::mirrors_are_reached") else { return };
    let server = Server::start(&mirror, "", None);
    let proxy = format!("http://127.0.0.1:{}", server.port);
    let address = "http://mirror.invalid/elsewhere";
    let outcome = set_up_from(&engine, address, &[], &[("http_proxy", &proxy)]);
    assert_eq!(outcome.code, 1);
    let missing = "the mirror has no http://mirror.invalid/elsewhere/dists/trixie/InRelease";
    assert!(outcome.stderr.contains(missing), "{}", outcome.stderr);
    let requests = server.requests();
    assert_eq!(requests, [format!("{address}/dists/trixie/InRelease -")]);

    for (address, message) in [
        ("http://127.0.0.1:1/debian", "connection refused"),
        ("https://mirror.invalid/debian", "mirror.invalid"),
    ] {
        let outcome = set_up_from(&engine, address, &[], &[]);
        assert_eq!(outcome.code, 1);
        assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("dists/trixie/InRelease"), "{}", outcome.stderr);
    }
    assert_eq!(engine.silo(&["images", "-q"]).stdout, "", "nothing was loaded");
}

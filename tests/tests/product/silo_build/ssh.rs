//! `RUN --mount=type=ssh`: the agent, or keys of files, through `silo build` and `buildx`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fs_err as fs;
use silo_tests::{Engine, skip};

use super::context;

/// Programs of the host that a step runs.
const PROGRAMS: [&str; 2] = ["/usr/bin/ssh-add", "/usr/bin/ssh-keygen"];

/// A context with programs of the host and all that they need, and where it is.
fn programs(engine: &Engine) -> Option<PathBuf> {
    let this = std::thread::current();
    let mut files: Vec<String> = Vec::new();
    for program in PROGRAMS {
        let Ok(needed) = Command::new("ldd").arg(program).output() else {
            skip(this.name().unwrap_or("a test"), "ldd is not here");
            return None;
        };
        if !Path::new(program).exists() || !needed.status.success() {
            skip(this.name().unwrap_or("a test"), "OpenSSH's client is not here");
            return None;
        }
        let text = String::from_utf8_lossy(&needed.stdout).into_owned();
        let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
        files.extend(paths.map(str::to_owned));
        files.push(program.to_owned());
    }
    files.sort();
    files.dedup();
    let text = "FROM busybox\nCOPY root /\n\
        RUN echo root:x:0:0:root:/root:/bin/sh > /etc/passwd; mkdir -p /root\n\
        RUN --mount=type=ssh,required=true ssh-add -l | sed 's/^/has /'; echo to sign > /text; \
        ssh-add -L | while read key; do echo \"$key\" > /key.pub; \
        ssh-keygen -q -Y sign -f /key.pub -n test /text && \
        ssh-keygen -q -Y check-novalidate -n test -s /text.sig < /text && echo signed; \
        rm -f /text.sig; done\n\
        RUN test -z \"$SSH_AUTH_SOCK\" && ! test -e /run/buildkit && echo gone\n";
    let at = context(engine, &[("Dockerfile", text)]);
    for file in files {
        let to = at.join("root").join(file.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        fs::copy(&file, &to).expect("a copy");
    }
    Some(at)
}

/// A key of a kind, in a directory.
fn key(directory: &Path, kind: &[&str]) -> PathBuf {
    let path = directory.join(kind.join("-"));
    let made = Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", &kind.join("-"), "-t"])
        .args(kind)
        .arg("-f")
        .arg(&path)
        .status();
    assert!(made.expect("ssh-keygen").success());
    path
}

/// An agent that ends with the value.
struct Agent(Child, PathBuf);

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn agent(directory: &Path, key: &Path) -> Agent {
    use std::io::{BufRead as _, BufReader};
    let socket = directory.join("agent.sock");
    let mut child = Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(Stdio::piped())
        .spawn()
        .expect("ssh-agent");
    // It says where it listens once it does.
    let mut said = String::new();
    let output = child.stdout.as_mut().expect("a pipe");
    BufReader::new(output).read_line(&mut said).expect("a line");
    let agent = Agent(child, socket);
    let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &agent.1).status();
    assert!(added.expect("ssh-add").success());
    agent
}

#[track_caller]
fn has_signed(output: &str, comments: &[&str]) {
    for comment in comments {
        let has = output.lines().any(|line| line.contains(" has ") && line.contains(comment));
        assert!(has, "{comment}\n{output}");
    }
    let signed = output.lines().filter(|line| line.ends_with(" signed")).count();
    assert_eq!(signed, comments.len(), "{output}");
    assert!(output.lines().any(|line| line.ends_with(" gone")), "{output}");
}

#[test]
fn keys_of_files_and_agents_sign_in_a_step() {
    let Some(engine) = super::engine() else { return };
    let Some(at) = programs(&engine) else { return };
    let path = at.to_str().expect("text");
    let keys = engine.scratch();
    let kinds: [&[&str]; 4] =
        [&["ed25519"], &["rsa", "-b", "2048"], &["ecdsa", "-b", "256"], &["ecdsa", "-b", "384"]];
    let files: Vec<String> =
        kinds.iter().map(|kind| key(&keys, kind).display().to_string()).collect();
    let with =
        |ssh: &str| engine.silo(&["build", "--no-cache", "--progress=plain", "--ssh", ssh, path]);
    let built = with(&format!("default={}", files.join(",")));
    assert_eq!(built.code, 0, "{}", built.stderr);
    has_signed(&built.stderr, &["ed25519", "rsa--b-2048", "ecdsa--b-256", "ecdsa--b-384"]);

    let agent = agent(&keys, Path::new(&files[0]));
    let built = with(&format!("default={}", agent.1.display()));
    assert_eq!(built.code, 0, "{}", built.stderr);
    has_signed(&built.stderr, &["ed25519"]);

    let none = engine.silo(&["build", "--no-cache", path]);
    assert!(none.stderr.contains("unset ssh forward key default"), "{}", none.stderr);
    let other = with(&format!("other={}", files[0]));
    assert!(other.stderr.contains("unset ssh forward key default"), "{}", other.stderr);
    let secret = keys.join("locked");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-N", "passphrase", "-t", "ed25519", "-f"])
        .arg(&secret)
        .status();
    assert!(made.expect("ssh-keygen").success());
    let locked = with(&format!("default={}", secret.display()));
    assert!(locked.stderr.contains("protected by a passphrase"), "{}", locked.stderr);
    let wrong = with(&format!("default={path}/Dockerfile"));
    assert!(wrong.stderr.contains("it is no private key in PEM form"), "{}", wrong.stderr);
}

#[test]
fn buildx_brings_keys_and_agents_too() {
    let Some(engine) = super::engine() else { return };
    if !engine.has_plugins_or_skip() {
        return;
    }
    let Some(at) = programs(&engine) else { return };
    let keys = engine.scratch();
    let file = key(&keys, &["ed25519"]);
    let agent = agent(&keys, &file);
    for place in [&file, &agent.1] {
        let mut command = engine.docker_command();
        let ssh = format!("default={}", place.display());
        command.args(["buildx", "build", "--no-cache", "--progress=plain", "--ssh", &ssh]);
        let built = silo_tests::Outcome::from(command.arg(&at).output().expect("docker"));
        assert_eq!(built.code, 0, "{}", built.stderr);
        has_signed(&built.stderr, &[""]);
    }
}

/// An SSH server for one test, as root, on a port of its own. Dropping it ends it.
struct Sshd {
    child: Child,
    port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Sshd {
    /// Lets in who has the key `authorized`. `None`, with the running test counted as skipped,
    /// where there is no server: neither one that is installed, nor the one that
    /// `cargo xtask test` unpacks. `SILO_TEST_SSHD` may name another.
    fn start_or_skip(directory: &Path, authorized: &Path) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
        let unpacked = root.join("target/openssh-server/usr");
        let mut programs = vec![PathBuf::from("/usr/sbin/sshd"), unpacked.join("sbin/sshd")];
        programs.extend(std::env::var_os("SILO_TEST_SSHD").map(PathBuf::from));
        let Some(program) = programs.into_iter().rev().find(|program| program.exists()) else {
            let this = std::thread::current();
            skip(this.name().unwrap_or("a test"), "OpenSSH's server is not here");
            return None;
        };
        fs::create_dir_all(directory).expect("a directory");
        let host = key(directory, &["ed25519"]);
        // Nobody else comes in, should the port be another's by then.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let config = directory.join("sshd_config");
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n",
            host.display(),
            authorized.with_extension("pub").display(),
        );
        fs::write(&config, text).expect("a configuration");
        // It wants a user and a directory, which are there for it alone.
        let script = "cp /etc/passwd \"$1/passwd\" && \
            echo sshd:x:990:65534::/run/sshd:/usr/sbin/nologin >> \"$1/passwd\" && \
            mount --bind \"$1/passwd\" /etc/passwd && mount -t tmpfs run /run && \
            mkdir -m 755 /run/sshd && exec \"$2\" -D -e -f \"$1/sshd_config\"";
        let mut child = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh"])
            .args([directory, &program])
            .env("LD_LIBRARY_PATH", unpacked.join("lib/x86_64-linux-gnu"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut log = BufReader::new(child.stderr.take().expect("its log"));
        let mut seen = String::new();
        while !seen.contains("Server listening on") {
            let count = log.read_line(&mut seen).expect("read the log");
            assert!(count > 0, "the server did not start:\n{seen}");
        }
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Some(Self { child, port })
    }
}

#[test]
fn repositories_come_over_ssh() {
    let Some(engine) = super::engine() else { return };
    let keys = engine.scratch().join("keys");
    fs::create_dir_all(&keys).expect("a directory");
    let (mine, other) = (key(&keys, &["ed25519"]), key(&keys, &["ecdsa"]));
    let Some(server) = Sshd::start_or_skip(&engine.scratch().join("sshd"), &mine) else { return };
    let files = [("Dockerfile", "FROM scratch\nCOPY sub/f /file\n"), ("sub/f", "over ssh\n")];
    let repository = context(&engine, &files);
    for arguments in [
        &["init", "--quiet", "--initial-branch=main"][..],
        &["add", "--all"],
        &["-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "-m", "first"],
    ] {
        let mut git = Command::new("git");
        git.args(arguments).current_dir(&repository).env("HOME", &keys);
        assert!(git.status().expect("git").success(), "{arguments:?}");
    }
    let url = format!("ssh://root@127.0.0.1:{}{}", server.port, repository.display());
    let added = format!("FROM scratch\nADD git+{url}?subdir=sub /\n");
    let added = context(&engine, &[("Dockerfile", &added)]);
    let out = engine.scratch().join("out");
    let build = |ssh: &[&str], place: &str| {
        let to = ["build", "-o", out.to_str().expect("text")];
        engine.silo(&[&to[..], ssh, &[place]].concat())
    };
    let with = |key: &Path| format!("default={}", key.display());
    for (place, file) in [
        (url.as_str(), "file"),
        (&format!("git+{url}?ref=main"), "file"),
        (added.to_str().expect("text"), "f"),
    ] {
        let done = build(&["--ssh", &with(&mine)], place);
        assert_eq!(done.code, 0, "{place}: {}\n{}", done.stderr, engine.daemon_log());
        assert_eq!(fs::read_to_string(out.join(file)).expect("a file"), "over ssh\n");
        fs::remove_file(out.join(file)).expect("remove");
    }
    // Neither a key that is not let in, nor the engine's own, which it does not look for.
    for ssh in [&[][..], &["--ssh", &with(&other)]] {
        let refused = build(ssh, &url);
        assert_eq!(refused.code, 1, "{ssh:?}");
        assert!(refused.stderr.contains("Permission denied"), "{}", refused.stderr);
    }
}

//! `RUN --mount=type=ssh`: the agent, or keys of files, through `silo build` and `buildx`.

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

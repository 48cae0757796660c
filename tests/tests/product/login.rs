//! `login`, `logout` and `search`: what people and programs that keep secrets say and see.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use silo_tests::{Engine, Outcome, Registry, Reply, Scripted};

/// A directory of configuration and of programs.
struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    fn new(config: &Value) -> Self {
        let home = Self { directory: tempfile::tempdir().expect("a directory") };
        fs_err::write(home.config(), config.to_string()).expect("a configuration");
        home
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("config.json")
    }

    fn read(&self) -> Value {
        let bytes = fs_err::read(self.config()).expect("a configuration");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// A command that finds the programs, and no engine.
    fn command(&self) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = silo_tests::alone(Command::new(silo_tests::silo_binary()));
        command
            .env("DOCKER_CONFIG", self.directory.path())
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .env("PATH", format!("{}:{path}", self.directory.path().display()))
            .stdin(Stdio::null());
        command
    }

    fn silo(&self, arguments: &[&str]) -> Outcome {
        self.command().args(arguments).output().expect("run silo").into()
    }

    /// A program that keeps credentials, in shell.
    fn helper(&self, name: &str, script: &str) {
        let path = self.directory.path().join(format!("docker-credential-{name}"));
        fs_err::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a helper");
        let mode = std::fs::Permissions::from_mode(0o755);
        fs_err::set_permissions(&path, mode).expect("a program");
    }
}

/// Keeps what it gets in a file.
fn keeper(directory: &Path) -> String {
    let file = directory.join("kept").display().to_string();
    format!(
        "echo \"$1\" >> {file}.log\n\
         case $1 in\n\
         store) cat > {file};;\n\
         get) cat > /dev/null; cat {file} 2> /dev/null || {{ echo credentials not found in native \
         keychain; exit 1; }};;\n\
         erase) cat > /dev/null; rm {file};;\n\
         esac"
    )
}

#[test]
fn without_an_engine() {
    let Some(registry) = Registry::start_with_password_or_skip() else { return };
    let home = Home::new(&json!({"psFormat": "x", "mine": {"a": [1, 2.50]}}));
    let address = registry.address();
    let fails = |arguments: &[&str], said: &str| {
        let outcome = home.silo(arguments);
        assert_eq!(outcome.code, 1, "{arguments:?}: {}", outcome.stdout);
        assert!(outcome.stderr.contains(said), "{arguments:?}: {}", outcome.stderr);
    };
    let non_tty = "error: cannot perform an interactive login from a non-TTY device";
    fails(&["login", address], non_tty);
    fails(&["login", "-u", "me", address], non_tty);
    fails(&["login", "-u", "me", "--password-stdin", address], "password is empty");
    fails(&["login", "-u", "me", "-p", "wrong", address], "unauthorized: authentication required");
    assert!(home.read()["auths"].is_null());
    let mut login = home.command();
    login.args(["login", "-u", "me", "--password-stdin", address]);
    let outcome = silo_tests::feed(&mut login, b"secret\r\n");
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (0, "Login Succeeded\n"),
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.stderr, "");
    let kept = home.read();
    assert_eq!(kept["auths"][address]["auth"], "bWU6c2VjcmV0", "{kept}");
    assert_eq!((&kept["psFormat"], &kept["mine"]["a"][1]), (&json!("x"), &json!(2.5)));
    let mode = fs_err::metadata(home.config()).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // What is kept is tried, under each name of the registry.
    for name in [address.to_owned(), format!("http://{address}/v1/")] {
        let outcome = home.silo(&["login", &name]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "Login Succeeded\n"));
        assert!(
            outcome
                .stderr
                .starts_with("Authenticating with existing credentials... [Username: me]"),
            "{}",
            outcome.stderr
        );
    }
    let warned = home.silo(&["login", "-u", "me", "-p", "secret", address]);
    let warning = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n";
    assert_eq!(warned.stderr, warning);
    let out = home.silo(&["logout", &format!("https://{address}")]);
    assert_eq!(out.stdout, format!("Removing login credentials for {address}\n"));
    assert_eq!(home.read()["auths"], json!({}));
    fails(&["login", address], non_tty);
}

/// A terminal that somebody sits at.
struct Terminal {
    child: std::process::Child,
    seen: String,
}

impl Terminal {
    fn start(home: &Home, arguments: &str) -> Self {
        let silo = silo_tests::silo_binary();
        let command = format!("{} {arguments}; echo exit=$?; stty -a", silo.display());
        let mut program = silo_tests::alone(Command::new("script"));
        let config = home.directory.path();
        program
            .env("DOCKER_CONFIG", config)
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .env("SHELL", "/bin/sh")
            .args(["-q", "-e", "-f", "-c", &command, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Self { child: program.spawn().expect("start script"), seen: String::new() }
    }

    /// Waits for what is asked.
    fn wait_for(&mut self, text: &str) {
        let output = self.child.stdout.as_mut().expect("a terminal");
        while !self.seen.ends_with(text) {
            let mut byte = [0];
            output.read_exact(&mut byte).unwrap_or_else(|_| panic!("{text}: {}", self.seen));
            self.seen.push(char::from(byte[0]));
        }
    }

    fn type_in(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().expect("a terminal");
        input.write_all(text.as_bytes()).expect("type");
        input.flush().expect("type");
    }

    /// Everything that was seen.
    fn end(mut self) -> String {
        let mut rest = Vec::new();
        let output = self.child.stdout.as_mut().expect("a terminal");
        output.read_to_end(&mut rest).expect("the rest");
        self.child.wait().expect("the end");
        self.seen + &String::from_utf8_lossy(&rest)
    }
}

#[test]
fn at_a_terminal() {
    let Some(registry) = Registry::start_with_password_or_skip() else { return };
    let home = Home::new(&json!({}));
    let address = registry.address();
    let mut terminal = Terminal::start(&home, &format!("login {address}"));
    terminal.wait_for("Username: ");
    terminal.type_in("me\n");
    terminal.wait_for("Password: ");
    terminal.type_in("secret\n");
    let seen = terminal.end();
    assert!(seen.contains("Login Succeeded\r\nexit=0"), "{seen}");
    assert!(!seen.contains("secret"), "{seen}");
    assert!(seen.contains(" echo ") && !seen.contains("-echo "), "{seen}");
    // What is kept is not good any more: it is asked for again.
    let wrong = json!({"auths": {address: {"auth": "bWU6d3Jvbmc="}}});
    fs_err::write(home.config(), wrong.to_string()).expect("a configuration");
    let mut terminal = Terminal::start(&home, &format!("login {address}"));
    terminal.wait_for("Username (me): ");
    terminal.type_in("\n");
    terminal.wait_for("Password: ");
    terminal.type_in("secret\n");
    let seen = terminal.end();
    assert!(seen.contains("Login Succeeded\r\nexit=0"), "{seen}");
    // Whoever gives up has the terminal back as it was.
    let mut terminal = Terminal::start(&home, &format!("login -u me {address}"));
    terminal.wait_for("Password: ");
    terminal.type_in("\x03");
    let seen = terminal.end();
    assert!(!seen.contains("-echo ") && !seen.contains("Login Succeeded"), "{seen}");
}

#[test]
fn programs_that_keep_secrets() {
    let Some(registry) = Registry::start_with_password_or_skip() else { return };
    let address = registry.address();
    let home = Home::new(&json!({"credHelpers": {address: "mine"}, "credsStore": "other"}));
    home.helper("mine", &keeper(home.directory.path()));
    let good = home.silo(&["login", "-u", "me", "-p", "secret", address]);
    assert_eq!(good.code, 0, "{}", good.stderr);
    // The secret is with the program alone.
    assert_eq!(home.read()["auths"], json!({address: {}}));
    let kept = fs_err::read(home.directory.path().join("kept")).expect("what is kept");
    let kept: Value = serde_json::from_slice(&kept).expect("JSON");
    assert_eq!(kept, json!({"ServerURL": address, "Username": "me", "Secret": "secret"}));
    let again = home.silo(&["login", address]);
    assert_eq!(again.stdout, "Login Succeeded\n", "{}", again.stderr);
    assert_eq!(home.silo(&["logout", address]).code, 0);
    assert_eq!(home.read()["auths"], json!({}));
    let log = fs_err::read_to_string(home.directory.path().join("kept.log")).expect("a log");
    assert_eq!(log, "store\nget\nstore\nerase\n");
    let absent = home.silo(&["login", address]);
    assert!(absent.stderr.contains("non-TTY device"), "{}", absent.stderr);
    // Those that fail are named, with what they say.
    let name = registry.name("x");
    for (script, said) in [
        (
            "echo it is locked; exit 3",
            "error getting credentials - err: exit status 3, out: `it is locked`",
        ),
        ("echo '{'", "error getting credentials - docker-credential-mine: EOF"),
        ("echo '[]'", "no basic auth credentials"),
        ("kill -9 $$", "error getting credentials - err: signal: 9, out: ``"),
        ("exec yes", "answers with more than 1048576 bytes"),
        ("echo credentials not found in native keychain; exit 1", "no basic auth credentials"),
    ] {
        home.helper("mine", script);
        let outcome = home.silo(&["manifest", "inspect", &name]);
        assert_eq!(outcome.code, 1, "{script}");
        assert!(outcome.stderr.contains(said), "{script}: {}", outcome.stderr);
    }
    home.helper("mine", "case $1 in store) echo disk full; exit 1;; *) exit 0;; esac");
    let full = home.silo(&["login", "-u", "me", "-p", "secret", address]);
    let said = "error saving credentials: error storing credentials - err: exit status 1, out: \
                `disk full`";
    assert!(full.code == 1 && full.stderr.contains(said), "{}", full.stderr);
    home.helper("mine", "echo no; exit 1");
    let out = home.silo(&["logout", address]);
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert!(out.stderr.contains("WARNING: could not erase credentials:"), "{}", out.stderr);
    let elsewhere = home.silo(&["manifest", "inspect", "127.0.0.1:1/x"]);
    let said = "exec: \"docker-credential-other\": executable file not found in $PATH";
    assert!(elsewhere.stderr.contains(said), "{}", elsewhere.stderr);
}

/// An index of images, which says what it was asked.
fn index(refuses: bool) -> (Scripted, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let server = Scripted::start(move |request| {
        let authorization = request.header("authorization");
        log.lock().expect("a log").push(format!("{} {authorization}", request.target));
        match request.path() {
            "/v1/_ping" => Reply::new(200, "{}"),
            "/v1/search" if !refuses => {
                let text = format!("line one\nline two {}", "x".repeat(60));
                let results = json!({"num_results": 2, "results": [
                    {"name": "a/b", "description": text, "star_count": 7, "is_official": true, "is_automated": true},
                    {"name": "c", "description": null, "star_count": 0, "is_official": false},
                ]});
                Reply::new(200, results.to_string()).header("Content-Type", "application/json")
            }
            _ => Reply::refusal(404, "NOT_FOUND"),
        }
    });
    (server, asked)
}

#[test]
fn searching() {
    let engine = Engine::start_empty();
    if !engine.is_silo_or_skip("only Silo's words are looked at") {
        return;
    }
    let (server, asked) = index(false);
    let term = format!("{}/bits and/bytes", server.address());
    let silo = |arguments: &[&str]| {
        let outcome = engine.silo(&[&["search"], arguments].concat());
        assert_eq!(outcome.code, 0, "{arguments:?}: {}", outcome.stderr);
        outcome.stdout
    };
    let expected = "NAME      DESCRIPTION                                     STARS     OFFICIAL\n\
                    a/b       line one line two xxxxxxxxxxxxxxxxxxxxxxxxxx…   7         [OK]\n\
                    c                                                         0         \n";
    assert_eq!(silo(&[&term]), expected);
    assert_eq!(asked.lock().expect("a log").as_slice(), ["/v1/search?q=bits+and%2Fbytes&n=25 "]);
    // Old command lines have a further column.
    let is_new = !engine.docker(&["--version"]).stdout.starts_with("Docker version 20.");
    let theirs = |arguments: &[&str]| engine.docker(&[&["search"], arguments].concat()).stdout;
    if is_new {
        assert_eq!(theirs(&[&term]), expected);
    }
    assert!(theirs(&[&term]).contains("line one line two"));
    let both = |arguments: &[&str]| {
        let ours = silo(arguments);
        if !is_new {
            return ours;
        }
        assert_eq!(theirs(arguments), ours, "{arguments:?}");
        ours
    };
    assert_eq!(
        both(&["--filter", "stars=3", "--format", "{{.Name}} {{.StarCount}}", &term]),
        "a/b 7\n"
    );
    assert_eq!(both(&["--filter", "is-official=false", "--format", "{{.Name}}", &term]), "c\n");
    assert!(both(&["--no-trunc", "--limit", "7", &term]).contains(&"x".repeat(60)));
    assert!(asked.lock().expect("a log").last().expect("a request").contains("&n=7"));
    assert!(both(&["--format", "json", &term]).contains(r#""IsOfficial":"true","Name":"a/b""#));
    let fails = |arguments: &[&str], said: &str| {
        let outcome = engine.silo(&[&["search"], arguments].concat());
        assert_eq!(outcome.code, 1, "{arguments:?}");
        assert!(outcome.stderr.contains(said), "{arguments:?}: {}", outcome.stderr);
    };
    fails(&["--limit", "101", &term], "limit 101 is outside the range of [1, 100]");
    fails(&["--filter", "name=x", &term], "invalid filter 'name'");
    fails(&["--filter", "stars=x", &term], "invalid filter 'stars=x'");
    fails(&["https://r/x"], "repository name (https://r/x) should not have a scheme");
    let closed = "invalid registry endpoint \"http://127.0.0.1:1/v1/\". HTTPS attempt: ";
    fails(&["127.0.0.1:1/x"], closed);
    let (refusing, _) = index(true);
    fails(&[&format!("{}/x", refusing.address())], "unexpected status code 404");
    // Who has a password shows it.
    let config = engine.scratch().join("config");
    fs_err::create_dir_all(&config).expect("a directory");
    let text = json!({"auths": {server.address(): {"auth": "bWU6c2VjcmV0"}}}).to_string();
    fs_err::write(config.join("config.json"), text).expect("a configuration");
    let mut search = engine.silo_command();
    search.env("DOCKER_CONFIG", &config).args(["search", &term]);
    assert!(search.status().expect("run silo").success());
    let last = asked.lock().expect("a log").last().cloned().expect("a request");
    assert!(last.ends_with("&n=25 Basic bWU6c2VjcmV0"), "{last}");
}

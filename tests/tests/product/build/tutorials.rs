//! Dockerfiles as tutorials about Windows containers have them, with programs as their makers
//! publish them. Their archives come from a server of the test.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fs_err as fs;
use silo_tests::{Engine, FileServer, Outcome, Page, WindowsEngine, skip, windows_program};

use super::context;

/// By which command line an image is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Builder {
    /// `docker build` without BuildKit.
    Classic,
    /// `silo build`.
    Silo,
}

const BUILDERS: [Builder; 2] = [Builder::Classic, Builder::Silo];

/// What the test's server of files is called.
const HOST: [&str; 2] = ["--add-host", "files.test:host-gateway"];

impl Builder {
    fn run(self, engine: &Engine, context: &Path, arguments: &[&str]) -> Outcome {
        let mut command = match self {
            Self::Classic => engine.docker_command(),
            Self::Silo => engine.silo_command(),
        };
        command.env("DOCKER_BUILDKIT", "0").arg("build").args(HOST);
        command.args(arguments).arg(context).output().expect("run a builder").into()
    }

    /// Builds what must succeed; all that the builder said.
    #[track_caller]
    fn built(self, engine: &Engine, context: &Path, arguments: &[&str]) -> String {
        let Outcome { code, stdout, stderr } = self.run(engine, context, arguments);
        assert_eq!(code, 0, "{self:?}\n{stdout}\n{stderr}\n{}", engine.daemon_log());
        stdout + &stderr
    }
}

/// The directory of a program, without which the running test counts as skipped.
fn program(name: &str) -> Option<PathBuf> {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    windows_program(name).map_err(|reason| skip(test, &format!("no {name}: {reason}"))).ok()
}

/// Packs a tree as `tool` does, to standard output.
fn packed(tree: &Path, tool: &[&str]) -> Vec<u8> {
    let output = Command::new(tool[0]).args(&tool[1..]).current_dir(tree).output();
    let output = output.unwrap_or_else(|error| panic!("{tool:?}: {error}"));
    assert!(output.status.success(), "{tool:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The archive of nginx for Windows, as nginx.org has it.
fn nginx_archive(engine: &Engine, program: &Path) -> Vec<u8> {
    let work = engine.scratch().join("nginx");
    let tree = work.join("nginx-1.31.3");
    for folder in ["html", "logs", "temp"] {
        fs::create_dir_all(tree.join(folder)).expect("a directory");
    }
    let configuration = "worker_processes 1;\nevents { worker_connections 64; }\n\
        http { server { listen 80; location / { root html; index index.html; } } }\n";
    // This build of it looks for its configuration beside it.
    fs::write(tree.join("nginx.conf"), configuration).expect("a file");
    fs::write(tree.join("html/index.html"), "Welcome to nginx!\n").expect("a file");
    fs::copy(program.join("nginx.exe"), tree.join("nginx.exe")).expect("a copy");
    let zip = "import os, sys, zipfile\n\
        with zipfile.ZipFile('../nginx.zip', 'w', zipfile.ZIP_DEFLATED) as z:\n\
        \x20   for at, folders, files in os.walk('nginx-1.31.3'):\n\
        \x20       for name in folders + files: z.write(os.path.join(at, name))\n\
        sys.stdout.buffer.write(open('../nginx.zip', 'rb').read())\n";
    packed(&work, &["python3", "-c", zip])
}

/// Runs an image as a server and asks for its page.
#[track_caller]
fn page(engine: &Engine, image: &str, port: &str) -> String {
    let publish = format!("127.0.0.1::{port}");
    let name = engine.name("server");
    engine.ok(&["run", "-d", "--name", &name, "-p", &publish, image]);
    let address = engine.ok(&["port", &name, &format!("{port}/tcp")]);
    let end = Instant::now() + Duration::from_mins(1);
    let answer = loop {
        let answer = fetch(&address).unwrap_or_default();
        if !answer.is_empty() {
            break answer;
        }
        assert!(Instant::now() < end, "no page: {:?}", engine.docker(&["logs", &name]));
        std::thread::yield_now();
    };
    engine.ok(&["rm", "-f", &name]);
    answer
}

/// The answer of a server, which may not listen yet.
fn fetch(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What a program of a Windows image prints.
#[track_caller]
fn cmd(engine: &Engine, image: &str, line: &str) -> String {
    let arguments = ["run", "--rm", "--entrypoint", "cmd", image, "/c", line];
    engine.ok(&arguments).replace("\r\n", "\n")
}

#[test]
fn nginx_on_server_core() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(nginx) = program("nginx") else { return };
    let archive = Page::File(nginx_archive(&engine, &nginx));
    let server = FileServer::start(BTreeMap::from([
        ("/download/nginx-1.31.3.zip".to_owned(), Page::Moved("/cdn/n.zip".to_owned())),
        ("/cdn/n.zip".to_owned(), archive),
    ]));
    let port = server.port();
    let dockerfile = format!(
        "FROM mcr.microsoft.com/windows/servercore:ltsc2019\n\
         \n\
         LABEL maintainer=\"somebody@example.test\" \\\n\
         \x20     Description=\"nginx on Windows\" Vendor=\"nginx\" Version=\"1.31.3\"\n\
         ENV NGINX_VERSION 1.31.3\n\
         \n\
         RUN curl -fSL -o nginx.zip http://files.test:{port}/download/nginx-%NGINX_VERSION%.zip && \\\n\
         \x20   tar -xf nginx.zip && \\\n\
         \x20   ren nginx-%NGINX_VERSION% nginx && \\\n\
         \x20   del nginx.zip\n\
         RUN setx /M PATH \"%PATH%;C:\\nginx\"\n\
         RUN nginx -v & nginx -t -p C:\\nginx\n\
         RUN reg add HKLM\\SOFTWARE\\nginx /v Version /t REG_SZ /d %NGINX_VERSION% /f\n\
         \n\
         WORKDIR /nginx\n\
         COPY index.html html/\n\
         EXPOSE 80\n\
         CMD [\"/nginx/nginx.exe\"]\n"
    );
    let files = [("Dockerfile", dockerfile.as_str()), ("index.html", "A page of ours\n")];
    let context = context(&engine, &files);
    for builder in BUILDERS {
        let said = builder.built(&engine, &context, &["--no-cache", "-t", "nginx:windows"]);
        for line in ["nginx version: nginx/1.31.3", "test is successful"] {
            assert!(said.contains(line), "{builder:?}: {line}: {said}");
        }
        let answer = page(&engine, "nginx:windows", "80");
        assert!(answer.contains("Server: nginx/1.31.3\r\n"), "{builder:?}: {answer}");
        assert!(answer.ends_with("A page of ours\n"), "{builder:?}: {answer}");
        let found = cmd(
            &engine,
            "nginx:windows",
            "dir /b C:\\ & where nginx & cd & reg query HKLM\\SOFTWARE\\nginx /v Version",
        );
        assert!(!found.contains("nginx.zip") && !found.contains("nginx-1"), "{found}");
        assert!(found.contains("C:\\nginx\\nginx.exe\nC:\\nginx\n"), "{found}");
        assert!(found.contains("REG_SZ    1.31.3"), "{found}");
        let config = &engine.inspect("nginx:windows")["Config"];
        assert_eq!(config["Labels"]["Description"], "nginx on Windows");
        assert_eq!(config["Cmd"], serde_json::json!(["/nginx/nginx.exe"]));
        assert_eq!(config["ExposedPorts"], serde_json::json!({ "80/tcp": {} }));
    }
    assert_eq!(server.asked(), ["/download/nginx-1.31.3.zip", "/cdn/n.zip"].repeat(2));
}

#[test]
fn node_on_an_old_server_core() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(node) = program("node") else { return };
    let work = engine.scratch().join("node");
    let tree = work.join("node-v22.23.3-win-x64");
    fs::create_dir_all(&tree).expect("a directory");
    fs::copy(node.join("node.exe"), tree.join("node.exe")).expect("a copy");
    fs::write(tree.join("LICENSE"), "the license\n").expect("a file");
    let archive = packed(&work, &["tar", "-I", "gzip -1", "-c", "node-v22.23.3-win-x64"]);
    let name = "/dist/v22.23.3/node-v22.23.3-win-x64.tar.gz";
    let server = FileServer::start(BTreeMap::from([(name.to_owned(), Page::File(archive))]));
    let port = server.port();
    let dockerfile = format!(
        "# escape=`\n\
         FROM microsoft/windowsservercore\n\
         SHELL [\"cmd\", \"/S\", \"/C\"]\n\
         ENV NODE_VERSION=22.23.3 `\n\
         \x20   NODE_ENV=production\n\
         RUN mkdir C:\\nodejs `\n\
         \x20   && curl -sSL -o node.tar.gz \"http://files.test:{port}/dist/v%NODE_VERSION%/node-v%NODE_VERSION%-win-x64.tar.gz\" `\n\
         \x20   && tar -xzf node.tar.gz -C C:\\nodejs --strip-components=1 `\n\
         \x20   && del /q node.tar.gz\n\
         RUN setx /M PATH \"C:\\nodejs;%PATH%\"\n\
         RUN node --version\n\
         WORKDIR C:\\app\n\
         COPY package.json server.js ./\n\
         RUN node -p \"require('./package.json').name\"\n\
         EXPOSE 3000\n\
         CMD [\"node\", \"server.js\"]\n"
    );
    let script = "require('http').createServer((q, a) => a.end('Hello from ' + process.version + \
                  ' in ' + process.cwd() + ' for ' + process.env.NODE_ENV)).listen(3000);\n";
    let files = [
        ("Dockerfile", dockerfile.as_str()),
        ("package.json", "{ \"name\": \"hello-windows\" }\n"),
        ("server.js", script),
    ];
    let context = context(&engine, &files);
    for builder in BUILDERS {
        let said = builder.built(&engine, &context, &["--no-cache", "-t", "node:windows"]);
        assert!(said.contains("v22.23.3") && said.contains("hello-windows"), "{builder:?}: {said}");
        let answer = page(&engine, "node:windows", "3000");
        let expected = "Hello from v22.23.3 in C:\\app for production";
        assert!(answer.ends_with(expected), "{builder:?}: {answer}");
        assert_eq!(cmd(&engine, "node:windows", "dir /b C:\\nodejs"), "LICENSE\nnode.exe");
    }
    assert_eq!(server.asked(), [name].repeat(2));
}

#[test]
fn an_application_copied_into_nano_server() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(node) = program("node") else { return };
    let dockerfile = "FROM mcr.microsoft.com/windows/nanoserver:ltsc2022\n\
        WORKDIR /app\n\
        COPY app .\n\
        USER ContainerUser\n\
        EXPOSE 8080\n\
        ENTRYPOINT [\"node.exe\", \"server.js\"]\n";
    let script = "require('http').createServer((q, a) => a.end('from ' + __filename + ' by ' + \
                  require('os').userInfo().username)).listen(8080);\n";
    let context = context(&engine, &[("Dockerfile", dockerfile), ("app/server.js", script)]);
    fs::copy(node.join("node.exe"), context.join("app/node.exe")).expect("a copy");
    for builder in BUILDERS {
        builder.built(&engine, &context, &["--no-cache", "-t", "app:nano"]);
        let answer = page(&engine, "app:nano", "8080");
        let expected = "from C:\\app\\server.js by ContainerUser";
        assert!(answer.ends_with(expected), "{builder:?}: {answer}");
    }
}

#[test]
fn what_cannot_be_fetched_or_run_stops_the_build() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let server = FileServer::start(BTreeMap::new());
    let port = server.port();
    for (step, words) in [
        (
            format!("RUN curl -fSL -o n.zip http://files.test:{port}/n.zip && tar -xf n.zip"),
            &["curl: (22)", "404"][..],
        ),
        ("RUN echo none> n.zip && tar -xf n.zip".to_owned(), &["tar: "]),
        (
            "RUN powershell -Command Invoke-WebRequest http://files.test/n.zip".to_owned(),
            &["Windows PowerShell is not in Silo's Windows containers"],
        ),
        (
            "SHELL [\"powershell\", \"-Command\"]\nRUN Expand-Archive n.zip".to_owned(),
            &["Windows PowerShell is not in Silo's Windows containers"],
        ),
    ] {
        let dockerfile = format!("FROM mcr.microsoft.com/windows/servercore:ltsc2019\n{step}\n");
        let context = context(&engine, &[("Dockerfile", &dockerfile)]);
        for builder in BUILDERS {
            let outcome = builder.run(&engine, &context, &[]);
            assert_ne!(outcome.code, 0, "{builder:?} {step}: {outcome:?}");
            for word in words {
                let said = format!("{}{}", outcome.stdout, outcome.stderr);
                assert!(said.contains(word), "{builder:?} {step}: {word}: {said}");
            }
        }
    }
}

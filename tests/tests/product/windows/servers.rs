//! Server programs: pages over published ports, queries, and the end of a server.

use silo_tests::WindowsEngine;

use super::{CORE, fetch, program, wait_log};

/// Who runs a server, and how.
const WAYS: [(&str, &[&str]); 4] = [
    ("administrator", &["-u", "ContainerAdministrator"]),
    ("user", &["-u", "ContainerUser"]),
    ("terminal", &["-t"]),
    ("piped", &["-i", "-u", "ContainerUser"]),
];

/// A server that greets.
const SERVER: &str = "require('http').createServer((q, a) => a.end('page of ' + process.version))\
    .listen(8080)";

#[test]
fn node_serves_pages() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(node) = program("node", "C:\\node") else { return };
    for (way, options) in WAYS {
        let name = engine.name(way);
        let mut arguments = vec!["run", "-d", "--name", &name, "-p", "127.0.0.1::8080", "-v"];
        arguments.push(&node);
        arguments.extend(options);
        arguments.extend([CORE, "C:\\node\\node.exe", "-e", SERVER]);
        engine.ok(&arguments);
        let address = engine.ok(&["port", &name, "8080/tcp"]);
        let page = fetch(&address);
        assert!(page.ends_with("page of v22.23.3"), "{way}: {page}");
        engine.ok(&["rm", "-f", &name]);
    }
}

#[test]
fn nginx_serves_pages() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(nginx) = program("nginx", "C:\\nginx") else { return };
    let site = engine.scratch().join("site");
    for folder in ["conf", "html", "logs", "temp"] {
        fs_err::create_dir_all(site.join(folder)).expect("a folder");
    }
    let configuration = "worker_processes 1;\nevents {}\n\
        http { server { listen 80; root html; access_log off; } }\n";
    fs_err::write(site.join("conf/nginx.conf"), configuration).expect("a file");
    fs_err::write(site.join("html/index.html"), "page of nginx\n").expect("a file");
    let site = format!("{}:D:", site.display());
    for (way, options) in WAYS {
        let name = engine.name(way);
        let mut arguments = vec!["run", "-d", "--name", &name, "-p", "127.0.0.1::80"];
        arguments.extend(["-v", &nginx, "-v", &site]);
        arguments.extend(options);
        let command = ["C:\\nginx\\nginx.exe", "-p", "D:/", "-c", "conf/nginx.conf"];
        arguments.push(CORE);
        arguments.extend(command);
        arguments.extend(["-g", "daemon off;"]);
        engine.ok(&arguments);
        let address = engine.ok(&["port", &name, "80/tcp"]);
        let page = fetch(&address);
        assert!(page.contains("Server: nginx/1.31.3\r\n"), "{way}: {page}");
        assert!(page.ends_with("page of nginx\n"), "{way}: {page}");
        engine.ok(&["stop", &name]);
        let state = engine.inspect(&name)["State"].clone();
        assert_ne!(state["ExitCode"], 137, "{way}: nginx ends by itself: {state}");
        engine.ok(&["rm", &name]);
    }
}

#[test]
fn postgres_answers_queries() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(postgres) = program("postgres", "C:\\pg") else { return };
    let data = engine.name("data");
    let volume = format!("{data}:C:\\data");
    let files = ["-v", &postgres, "-v", &volume];
    let run = |more: &[&str], command: &[&str]| {
        let head = ["run", "-u", "ContainerUser"];
        engine.ok(&[&head[..], &files, more, &[CORE], command].concat())
    };
    run(
        &["--rm"],
        &["C:\\pg\\bin\\initdb.exe", "-D", "C:\\data\\db", "-U", "postgres", "-A", "trust", "-N"],
    );
    let name = engine.name("postgres");
    let server = ["C:\\pg\\bin\\postgres.exe", "-D", "C:\\data\\db"];
    let query = |name: &str, sql: &str| {
        let psql = ["exec", name, "C:\\pg\\bin\\psql.exe", "-U", "postgres", "-h", "127.0.0.1"];
        engine.ok(&[&psql[..], &["-tAc", sql]].concat())
    };
    run(&["-d", "--name", &name], &server);
    wait_log(&engine, &name, "ready to accept connections");
    query(&name, "create table numbers as select generate_series(1, 1000) as n");
    assert_eq!(query(&name, "select sum(n) from numbers"), "500500");
    // Queries over standard input.
    let psql = ["exec", "-i", &name, "C:\\pg\\bin\\psql.exe", "-U", "postgres", "-h", "127.0.0.1"];
    let outcome =
        engine.docker_with_input(&[&psql[..], &["-tA"]].concat(), b"select 6 * 7;\nselect 'end';");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "42\r\nend\r\n"), "{}", outcome.stderr);
    engine.ok(&["stop", &name]);
    assert_eq!(engine.inspect(&name)["State"]["ExitCode"], 0);
    // Also while its helpers are starting.
    for _ in 0..3 {
        let since =
            engine.inspect(&name)["State"]["FinishedAt"].as_str().expect("a time").to_owned();
        engine.ok(&["start", &name]);
        super::wait("the server", || {
            let log = engine.docker(&["logs", "--since", &since, &name]).stderr;
            log.contains("ready to accept connections").then_some(())
        });
        engine.ok(&["stop", &name]);
        assert_eq!(engine.inspect(&name)["State"]["ExitCode"], 0);
    }
    engine.ok(&["start", &name]);
    assert_eq!(query_when_ready(&engine, &name), "1000");
    engine.ok(&["rm", "-f", &name]);

    // An administrator's server is refused by PostgreSQL itself.
    let refused = engine.docker(&[&["run", "--rm"], &files[..], &[CORE], &server].concat());
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("administrative permissions"), "{}", refused.stderr);
}

/// How many numbers there are, from a server that may still start.
fn query_when_ready(engine: &WindowsEngine, name: &str) -> String {
    super::wait("an answer of the server", || {
        let psql = ["exec", name, "C:\\pg\\bin\\psql.exe", "-U", "postgres", "-h", "127.0.0.1"];
        let outcome =
            engine.docker(&[&psql[..], &["-tAc", "select count(*) from numbers"]].concat());
        (outcome.code == 0).then(|| outcome.stdout.trim().to_owned())
    })
}

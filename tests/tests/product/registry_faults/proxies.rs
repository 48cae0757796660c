//! Proxies: names that only the proxy knows.

use silo_tests::{Authority, Proxy, Registry, feed, tar_of};

use super::impatient;

#[test]
fn proxies_are_asked() {
    const ME: &str = "Basic bWU6c2VjcmV0";
    let Some(plain) = Registry::start_or_skip() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new();
    let pair = authority.sign(&["secure.test"], false, &directory.path().join("server"));
    let (certificate, key) = (pair.0.display(), pair.1.display());
    let secure = Registry::start_with(|_| {
        format!("  tls:\n    certificate: {certificate}\n    key: {key}\n")
    });
    let Some(secure) = secure else { return };
    let direct =
        format!("direct.localhost:{}", plain.address().rsplit(':').next().expect("a port"));
    let routes = [
        ("plain.test:5000", plain.address()),
        ("secure.test:5000", secure.address()),
        ("192.0.2.7:5000", plain.address()),
    ];
    let proxy = Proxy::start(&routes, ME);
    let mut engine = impatient();
    if !engine.is_silo_or_skip("the daemon is one of ours") {
        return;
    }
    let trusted = engine.scratch().join("certs.d");
    authority.write(&trusted.join("secure.test:5000/ca.crt"));
    let url = format!("http://me:secret@{}", proxy.address());
    engine.set_variable("HTTP_PROXY", &url);
    engine.set_variable("HTTPS_PROXY", &url);
    engine.set_variable("NO_PROXY", "direct.localhost,.intern.test");
    engine.add_option("--registry-certs");
    engine.add_option(trusted.to_str().expect("a path"));
    for insecure in ["plain.test:5000", "192.0.2.0/24", &direct] {
        engine.add_option(format!("--insecure-registry={insecure}"));
    }
    engine.start_daemon();
    let mut import = engine.docker_command();
    feed(import.args(["import", "-", "app"]), &tar_of("file", 200_000));
    let round = |host: &str| {
        let name = format!("{host}/app:1");
        engine.ok(&["tag", "app", &name]);
        engine.ok(&["push", "-q", &name]);
        engine.ok(&["rmi", &name]);
        engine.ok(&["pull", "-q", &name]);
    };
    // What is on this host, and what NO_PROXY names, is asked itself.
    round(plain.address());
    round(&direct);
    assert!(proxy.asked().is_empty(), "{:?}", proxy.asked());
    round("secure.test:5000");
    assert!(proxy.asked().iter().all(|line| line.starts_with("CONNECT secure.test:5000 ")));
    round("plain.test:5000");
    // An address of a network that needs no certificates.
    round("192.0.2.7:5000");
    let asked = proxy.asked();
    for host in ["plain.test:5000", "192.0.2.7:5000"] {
        let line = format!("http://{host}/v2/app/");
        assert!(asked.iter().any(|asked| asked.contains(&line)), "{line}: {asked:?}");
    }
    let outcome = engine.docker(&["pull", "absent.test:5000/app"]);
    assert!(outcome.stderr.contains("Get \"https://absent.test:5000/v2/"), "{}", outcome.stderr);
    // Nobody sees the password.
    let info = engine.ok(&["info", "-f", "{{.HTTPProxy}}"]);
    assert!(info.contains("xxxxx:xxxxx@") && !info.contains("secret"), "{info}");
    assert!(!engine.daemon_log().contains("secret@"), "{}", engine.daemon_log());

    let other = Proxy::start(&routes, "Basic other");
    engine.stop_daemon();
    engine.set_variable("HTTP_PROXY", &format!("http://{}", other.address()));
    engine.set_variable("HTTPS_PROXY", &format!("http://{}", other.address()));
    engine.start_daemon();
    let outcome = engine.docker(&["pull", "secure.test:5000/app:1"]);
    let words =
        "Get \"https://secure.test:5000/v2/app/manifests/1\": Proxy Authentication Required";
    assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
    let outcome = engine.docker(&["pull", "192.0.2.7:5000/app:1"]);
    assert!(outcome.stderr.contains("407 Proxy Authentication Required"), "{}", outcome.stderr);
    engine.stop_daemon();
    engine.set_variable("HTTPS_PROXY", "http://127.0.0.1:1");
    engine.start_daemon();
    let outcome = engine.docker(&["pull", "secure.test:5000/app:1"]);
    let words = "proxyconnect tcp: dial tcp 127.0.0.1:1: connect: connection refused";
    assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
}

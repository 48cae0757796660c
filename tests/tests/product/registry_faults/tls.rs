//! Certificates. Names below `.localhost` lead to this host without being on the list of what
//! needs no certificate, which the loopback addresses are on.

use std::path::Path;

use silo_tests::{Authority, Engine, Registry, feed, tar_of};

use super::impatient;

/// A registry with TLS; `more` is further configuration of that.
fn registry(pair: &(std::path::PathBuf, std::path::PathBuf), more: &str) -> Option<Registry> {
    let (certificate, key) = (pair.0.display(), pair.1.display());
    Registry::start_with(|_| {
        format!("  tls:\n    certificate: {certificate}\n    key: {key}\n{more}")
    })
}

fn port(registry: &Registry) -> &str {
    registry.address().rsplit(':').next().expect("a port")
}

/// An engine with an image, that looks for certificates in a directory of the test's.
fn engine(options: &[&str]) -> Option<(Engine, std::path::PathBuf)> {
    let mut engine = impatient();
    if !engine.is_silo_or_skip("dockerd looks for certificates in /etc") {
        return None;
    }
    let trusted = engine.scratch().join("certs.d");
    engine.add_option("--registry-certs");
    engine.add_option(trusted.to_str().expect("a path"));
    for option in options {
        engine.add_option(*option);
    }
    engine.start_daemon();
    let mut import = engine.docker_command();
    feed(import.args(["import", "-", "app"]), &tar_of("file", 1000));
    Some((engine, trusted))
}

fn push(engine: &Engine, host: &str) -> Result<(), String> {
    let name = format!("{host}/app:1");
    engine.ok(&["tag", "app", &name]);
    let outcome = engine.docker(&["push", &name]);
    if outcome.code == 0 { Ok(()) } else { Err(outcome.stderr) }
}

#[track_caller]
fn refused(engine: &Engine, host: &str, words: &[&str]) {
    for error in [
        push(engine, host).expect_err("a push that is refused"),
        engine.docker(&["pull", &format!("{host}/app:1")]).stderr,
        engine.docker(&["login", "-u", "me", "-p", "secret", host]).stderr,
    ] {
        for word in words {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}

#[test]
fn certificates_are_checked() {
    let Some((engine, trusted)) = engine(&[]) else { return };
    let here = engine.scratch();
    let authority = Authority::new();
    let good = authority.sign(&["reg.localhost"], false, &here.join("good"));
    let Some(server) = registry(&good, "") else { return };
    let host = format!("reg.localhost:{}", port(&server));
    let unknown =
        "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    refused(&engine, &host, &[unknown, &format!("/etc/silo/certs.d/{host}/ca.crt")]);
    // A wrong authority, then the right one, which is seen at once.
    let place = trusted.join(&host).join("ca.crt");
    Authority::new().write(&place);
    refused(&engine, &host, &[unknown]);
    fs_err::remove_file(&place).expect("remove a certificate");
    authority.write(&trusted.join(&host).join("team.crt"));
    push(&engine, &host).expect("a push");
    engine.ok(&["rmi", &format!("{host}/app:1")]);
    engine.ok(&["pull", "-q", &format!("{host}/app:1")]);
    // A name that the certificate has not.
    let other = format!("other.localhost:{}", port(&server));
    authority.write(&trusted.join(&other).join("ca.crt"));
    refused(
        &engine,
        &other,
        &["x509: certificate is valid for reg.localhost, not other.localhost"],
    );
    // One that has ended.
    let expired = authority.sign(&["reg.localhost"], true, &here.join("expired"));
    let Some(server) = registry(&expired, "") else { return };
    let host = format!("reg.localhost:{}", port(&server));
    authority.write(&trusted.join(&host).join("ca.crt"));
    let words = "x509: certificate has expired or is not yet valid: current time ";
    refused(&engine, &host, &[words, "is after 2020-01-01T00:00:00Z"]);
    // Any certificate is good enough for a loopback address.
    push(&engine, server.address()).expect("a push without a check");
}

#[test]
fn names_in_insecure_networks_need_no_certificate() {
    // Another network than that of the names.
    let Some((engine, _)) = engine(&["--insecure-registry=10.99.0.0/16"]) else { return };
    let pair = Authority::new().sign(&["x.example"], false, &engine.scratch().join("pair"));
    let Some(by_tls) = registry(&pair, "") else { return };
    let Some(plain) = Registry::start_or_skip() else { return };
    let names = [&by_tls, &plain].map(|server| format!("reg.localhost:{}", port(server)));
    refused(&engine, &names[0], &["x509: certificate signed by unknown authority"]);
    refused(&engine, &names[1], &["http: server gave HTTP response to HTTPS client"]);
    let options = ["--insecure-registry=127.0.0.0/8", "--insecure-registry=::1/128"];
    let Some((engine, _)) = self::engine(&options) else { return };
    for name in &names {
        push(&engine, name).expect("a push without a check");
        engine.ok(&["rmi", &format!("{name}/app:1")]);
        engine.ok(&["pull", "-q", &format!("{name}/app:1")]);
        engine.ok(&["login", "-u", "me", "-p", "secret", name]);
    }
}

#[test]
fn clients_show_who_they_are() {
    let Some((engine, trusted)) = engine(&[]) else { return };
    let here = engine.scratch();
    let authority = Authority::new();
    let pair = authority.sign(&["reg.localhost"], false, &here.join("server"));
    authority.write(&here.join("ca.pem"));
    let clients = format!("    clientcas:\n      - {}\n", here.join("ca.pem").display());
    let Some(server) = registry(&pair, &clients) else { return };
    let host = format!("reg.localhost:{}", port(&server));
    let place = trusted.join(&host);
    authority.write(&place.join("ca.crt"));
    refused(&engine, &host, &["remote error: tls: ", "certificate", "client.cert and client.key"]);
    let stranger = Authority::new().sign(&["me"], false, &here.join("stranger"));
    let me = authority.sign(&["me"], false, &here.join("me"));
    let show = |pair: &(std::path::PathBuf, std::path::PathBuf)| {
        let copy = |from: &Path, to: &str| fs_err::copy(from, place.join(to)).expect("a copy");
        copy(&pair.0, "client.cert");
        copy(&pair.1, "client.key");
    };
    show(&stranger);
    refused(&engine, &host, &["remote error: tls: "]);
    show(&me);
    push(&engine, &host).expect("a push");
    // Half of it.
    fs_err::remove_file(place.join("client.key")).expect("remove a key");
    let error = push(&engine, &host).expect_err("no key");
    assert!(error.contains("missing key ") && error.contains("client.key"), "{error}");
    // As an insecure registry it has TLS too, and wants to know who asks.
    let error = push(&engine, server.address()).expect_err("no certificate");
    assert!(error.contains("remote error: tls: "), "{error}");
}

#[test]
fn what_has_no_tls_has_to_be_named() {
    let Some(server) = Registry::start_or_skip() else { return };
    let named = format!("named.localhost:{}", port(&server));
    let options = ["--insecure-registry", &named, "--insecure-registry", "192.0.2.0/24"];
    let Some((engine, _)) = engine(&options) else { return };
    let host = format!("reg.localhost:{}", port(&server));
    let words = "http: server gave HTTP response to HTTPS client";
    refused(&engine, &host, &[words, &format!("--insecure-registry {host}")]);
    push(&engine, &named).expect("a push");
    let info = engine.ok(&["info", "-f", "{{json .RegistryConfig.InsecureRegistryCIDRs}}"]);
    assert!(info.contains("127.0.0.0/8"), "{info}");
}

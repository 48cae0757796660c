//! `silo windows setup` from a mirror on this host. Docker has nothing like it.

use std::path::Path;
use std::time::{Duration, Instant};

use silo_tests::{Engine, debian_mirror, skip};

/// An engine and a mirror; `None` where the test cannot run.
fn prepared(test: &str) -> Option<(Engine, std::path::PathBuf)> {
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

fn set_up(engine: &Engine, mirror: &Path, more: &[&str]) -> silo_tests::Outcome {
    let mirror = format!("file://{}", mirror.display());
    let cache = engine.scratch().join("cache");
    let cache = cache.to_str().expect("UTF-8");
    let arguments = ["windows", "setup", "--mirror", &mirror, "--cache", cache];
    engine.silo(&[&arguments, more].concat())
}

#[test]
fn images_are_made_once_and_can_be_carried_elsewhere() {
    let Some((engine, mirror)) = prepared("windows_setup::images_are_made_once") else { return };
    let outcome = engine.silo(&["windows", "info"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("silo windows setup"), "{}", outcome.stderr);

    let outcome = set_up(&engine, &mirror, &[]);
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.stderr, engine.daemon_log());
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
    let began = Instant::now();
    let outcome = set_up(&engine, Path::new("/nonexistent"), &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(began.elapsed() < Duration::from_secs(10));
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
    assert!(outcome.stderr.contains("cannot fetch"), "{}", outcome.stderr);

    let outcome = set_up(&engine, Path::new("/nonexistent"), &[]);
    assert!(outcome.stderr.contains("the mirror has no file:///nonexistent"), "{}", outcome.stderr);
    assert_eq!(engine.silo(&["images", "-q"]).stdout, "", "nothing was loaded");
}

//! Servers that a build fetches from and that mean harm.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use fs_err as fs;
use silo_tests::{Engine, FileServer, Page};

use super::{build, built, context, shell};

/// Runs git in a directory, without anybody's configuration.
fn git(directory: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .args(["-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=main"])
        .args(["-c", "protocol.file.allow=always"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", directory)
        .output()
        .expect("run git");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The files below a directory, as a server has them.
fn pages(directory: &Path, at: &str, pages: &mut BTreeMap<String, Page>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let path = format!("{at}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().expect("a type").is_dir() {
            self::pages(&entry.path(), &path, pages);
        } else {
            pages.insert(path, Page::File(fs::read(entry.path()).expect("a file")));
        }
    }
}

/// A repository on a server of plain files; its URL, without a query.
fn serve(bare: &Path) -> (FileServer, String) {
    git(bare, &["update-server-info"]);
    let mut all = BTreeMap::new();
    pages(bare, "/r.git", &mut all);
    // The client asks for the newer protocol first.
    let refs = all["/r.git/info/refs"].clone();
    all.insert("/r.git/info/refs?service=git-upload-pack".into(), refs);
    let server = FileServer::start(all);
    let url = format!("http://127.0.0.1:{}/r.git", server.port());
    (server, url)
}

/// Parts of repositories by fragments and by queries, as contexts and for `ADD`.
#[test]
fn repositories_and_their_parts() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("dockerd of this age knows no queries") {
        return;
    }
    let work = engine.scratch().join("work");
    fs::create_dir_all(work.join("sub")).expect("a directory");
    git(&work, &["init", "--quiet"]);
    let dockerfile = |text: &str| format!("FROM scratch\nCOPY {text} /file\n");
    fs::write(work.join("Dockerfile"), dockerfile("f")).expect("a file");
    fs::write(work.join("f"), "first\n").expect("a file");
    fs::write(work.join("sub/Dockerfile"), dockerfile("g")).expect("a file");
    fs::write(work.join("sub/g"), "below\n").expect("a file");
    git(&work, &["add", "--all"]);
    git(&work, &["commit", "--quiet", "-m", "first"]);
    git(&work, &["tag", "v1"]);
    git(&work, &["checkout", "--quiet", "-b", "other"]);
    fs::write(work.join("f"), "second\n").expect("a file");
    git(&work, &["commit", "--quiet", "-am", "second"]);
    git(&work, &["checkout", "--quiet", "main"]);
    git(&work, &["clone", "--quiet", "--bare", ".", "../served.git"]);
    let (_server, url) = serve(&engine.scratch().join("served.git"));
    let out = engine.scratch().join("out");
    let built = |source: &str| {
        let outcome: silo_tests::Outcome = engine
            .silo_command()
            .args(["build", "-o"])
            .args([out.as_path(), Path::new(source)])
            .output()
            .expect("silo")
            .into();
        assert_eq!(outcome.code, 0, "{source}: {}", outcome.stderr);
        fs::read_to_string(out.join("file")).expect("what was built")
    };
    for (part, expected) in [
        ("", "first\n"),
        ("#other", "second\n"),
        ("?ref=other", "second\n"),
        ("?branch=other", "second\n"),
        ("?tag=v1&submodules=false", "first\n"),
        ("#main:sub", "below\n"),
        ("?ref=main&subdir=sub", "below\n"),
    ] {
        assert_eq!(built(&format!("{url}{part}")), expected, "{part}");
    }
    assert_eq!(built(&format!("git+{url}?ref=other")), "second\n");
    let classic = format!("{url}?ref=main&subdir=sub").replace('?', "%3F").replace('&', "%26");
    let answer = engine.http("POST", &format!("/build?remote={classic}"), "");
    let said = String::from_utf8_lossy(&answer.body);
    assert!(said.contains("Successfully built"), "{said}");

    let steps = format!(
        "FROM busybox\nADD {url}?branch=other /a\nADD {url}?ref=v1&keep-git-dir=true /b\n\
         ADD --keep-git-dir=true {url}#main:sub /c\n\
         RUN cat /a/f /b/f /c/g && test ! -e /a/.git && test -d /b/.git\n"
    );
    let at = context(&engine, &[("Dockerfile", &steps)]);
    let outcome = super::built(&engine, &at, &["--no-cache"]);
    assert!(outcome.contains("second\nfirst\nbelow\n"), "{outcome}");
    for (query, words) in [
        ("?ref=main&exec=x", "unexpected query"),
        ("?commit=0123456789", "expected checksum to match"),
        ("?ref=none", "failed to fetch"),
    ] {
        let refused = engine.silo(&["build", &format!("{url}{query}")]);
        assert_eq!(refused.code, 1, "{query}");
        assert!(refused.stderr.contains(words), "{query}: {}", refused.stderr);
    }
}

/// Submodules in submodules, one of them at a relative place and behind the head of its branch.
#[test]
fn repositories_within_repositories() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("dockerd of this age fetches by other rules") {
        return;
    }
    let scratch = engine.scratch();
    let commit = |name: &str, file: &str, text: &str| {
        let work = scratch.join(name);
        fs::create_dir_all(&work).expect("a directory");
        fs::write(work.join(file), text).expect("a file");
        git(&work, &["init", "--quiet"]);
        git(&work, &["add", "--all"]);
        git(&work, &["commit", "--quiet", "-m", "more"]);
        work
    };
    let add = |work: &Path, name: &str| {
        git(work, &["submodule", "--quiet", "add", &format!("../{name}"), name]);
        git(work, &["commit", "--quiet", "-m", "with another"]);
    };
    commit("deep", "d", "deep\n");
    let middle = commit("middle", "m", "old\n");
    add(&middle, "deep");
    let top = commit("top", "Dockerfile", "FROM scratch\nCOPY . /\n");
    add(&top, "middle");
    commit("middle", "m", "new\n");
    let mut all = BTreeMap::new();
    for name in ["deep", "middle", "top"] {
        let bare = scratch.join(format!("{name}.git"));
        let target = bare.to_str().expect("text");
        git(&scratch.join(name), &["clone", "--quiet", "--bare", ".", target]);
        git(&bare, &["update-server-info"]);
        pages(&bare, &format!("/{name}"), &mut all);
        let refs = all[&format!("/{name}/info/refs")].clone();
        all.insert(format!("/{name}/info/refs?service=git-upload-pack"), refs);
    }
    let server = FileServer::start(all);
    let url = format!("git+http://127.0.0.1:{}/top", server.port());
    let out = scratch.join("out");
    let to = out.to_str().expect("text");
    let without = engine.silo(&["build", "-o", to, &format!("{url}?submodules=false")]);
    assert_eq!(without.code, 0, "{}", without.stderr);
    assert!(!out.join("middle/m").exists());
    let built = engine.silo(&["build", "-o", to, &url]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    for (name, text) in [("middle/m", "old\n"), ("middle/deep/d", "deep\n")] {
        assert_eq!(fs::read_to_string(out.join(name)).expect("a file"), text);
    }
}

/// A repository whose files are links that lead out, and hooks and submodules that would run
/// programs, on a server of plain files.
#[test]
fn repositories_reach_nothing_outside() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("dockerd of this age fetches by other rules") {
        return;
    }
    let work = engine.scratch().join("work");
    let (marker, secret) = (engine.scratch().join("marker"), engine.scratch().join("secret"));
    fs::create_dir_all(work.join("sub")).expect("a directory");
    fs::create_dir(&secret).expect("a directory");
    fs::write(secret.join("word"), "secret").expect("a file");
    fs::write(secret.join("Dockerfile"), "FROM busybox\nCOPY word /word\n").expect("a file");
    git(&work, &["init", "--quiet"]);
    symlink(&secret, work.join("out")).expect("a link");
    symlink("../../../../../../../../../../etc", work.join("up")).expect("a link");
    fs::write(work.join("sub/Dockerfile"), "FROM busybox\nCOPY . /all\n").expect("a file");
    // Attributes that name programs, which only a configuration could define.
    fs::write(work.join(".gitattributes"), "* filter=evil diff=evil\n").expect("a file");
    let touch = format!("touch {}", marker.display());
    git(&work, &["config", "filter.evil.smudge", &touch]);
    git(&work, &["config", "core.fsmonitor", &touch]);
    let modules = format!(
        "[submodule \"a\"]\n\tpath = a\n\turl = file://{}\n\tupdate = !{touch}\n",
        secret.display()
    );
    fs::write(work.join("Dockerfile"), "FROM busybox\nCOPY . /all\n").expect("a file");
    git(&work, &["-c", "core.fsmonitor=false", "add", "--all"]);
    git(&work, &["-c", "core.fsmonitor=false", "commit", "--quiet", "-m", "first"]);
    git(&work, &["branch", "plain"]);
    git(&work, &["-c", "core.fsmonitor=false", "checkout", "--quiet", "-b", "modules"]);
    fs::write(work.join(".gitmodules"), &modules).expect("a file");
    git(&work, &["-c", "core.fsmonitor=false", "add", "--all"]);
    git(&work, &["-c", "core.fsmonitor=false", "commit", "--quiet", "-m", "second"]);
    git(&work, &["-c", "core.fsmonitor=false", "checkout", "--quiet", "main"]);
    // The checkouts here have run it, as this repository's own configuration has it.
    if marker.exists() {
        fs::remove_file(&marker).expect("remove");
    }
    git(&work, &["clone", "--quiet", "--bare", ".", "../served.git"]);
    let bare = engine.scratch().join("served.git");
    fs::create_dir_all(bare.join("hooks")).expect("a directory");
    for hook in ["post-checkout", "post-merge", "reference-transaction"] {
        fs::write(bare.join("hooks").join(hook), format!("#!/bin/sh\n{touch}\n")).expect("a hook");
    }
    let (server, url) = serve(&bare);

    let remote = |fragment: &str| {
        let source = format!("{url}{fragment}").replace('#', "%23").replace(':', "%3A");
        let answer = engine.http("POST", &format!("/build?t=fetched&remote={source}"), "");
        String::from_utf8_lossy(&answer.body).into_owned()
    };
    // Refused or built, as git thinks of it; nothing is run.
    remote("#modules");
    // What links lead to is not the context, and is not copied.
    for fragment in ["#main:out", "#main:up", "#main:sub/../../secret", "#main:.git"] {
        let said = remote(fragment);
        assert!(!said.contains("Successfully built"), "{fragment}: {said}");
        assert!(!said.contains("secret\\n"), "{fragment}: {said}");
    }
    let said = remote("#main:sub");
    assert!(said.contains("Successfully built"), "{said}\n{:?}", server.asked());
    assert_eq!(shell(&engine, "fetched", "ls -A /all"), "Dockerfile");
    let said = remote("");
    assert!(said.contains("Successfully built"), "{said}");
    let found = shell(&engine, "fetched", "readlink /all/out; cat /all/out/word 2>&1 | tail -1");
    assert!(found.starts_with(&format!("{}\n", secret.display())), "{found}");
    assert!(!found.ends_with("secret"), "{found}");
    let dockerfile = format!("FROM busybox\nADD {url}#plain /r\n");
    let context = context(&engine, &[("Dockerfile", &dockerfile)]);
    built(&engine, &context, &["-t", "added"]);
    assert_eq!(shell(&engine, "added", "ls -A /r/sub"), "Dockerfile");
    assert!(!marker.exists(), "a program of the repository ran");
}

/// Names in URLs and answers that lead elsewhere, and archives that do.
#[test]
fn downloads_are_written_in_their_place_only() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("dockerd of this age fetches by other rules") {
        return;
    }
    let outside = engine.scratch().join("outside");
    fs::create_dir(&outside).expect("a directory");
    let tree = engine.scratch().join("tree");
    fs::create_dir(&tree).expect("a directory");
    symlink(&outside, tree.join("link")).expect("a link");
    fs::write(tree.join("f"), "f").expect("a file");
    fs::write(tree.join("Dockerfile"), "FROM busybox\nCOPY f /f\n").expect("a file");
    // A link, and a file that goes through it.
    let archive = Command::new("tar")
        .args(["-C", tree.to_str().expect("UTF-8"), "-c", "Dockerfile", "link", "f"])
        .args(["--transform", "s,^f$,link/f,"])
        .output()
        .expect("run tar");
    let upwards = Command::new("tar")
        .args(["-C", tree.to_str().expect("UTF-8"), "-P", "-c", "Dockerfile", "f"])
        .args(["--transform", "s,^f$,../../../../../../../../tmp/silo-escaped,"])
        .output()
        .expect("run tar");
    let file = || Page::File(b"content".to_vec());
    let server = FileServer::start(BTreeMap::from([
        ("/a/..%2f..%2f..%2f..%2ftmp%2fsilo-escaped".to_owned(), file()),
        ("/through.tar".to_owned(), Page::File(archive.stdout)),
        ("/upwards.tar".to_owned(), Page::File(upwards.stdout)),
        ("/moved".to_owned(), Page::Moved("file:///etc/passwd".to_owned())),
        ("/round".to_owned(), Page::Moved("/round".to_owned())),
    ]));
    let at = format!("http://127.0.0.1:{}", server.port());
    for (step, ends) in [
        (format!("ADD {at}/a/..%2f..%2f..%2f..%2ftmp%2fsilo-escaped /d/"), true),
        (format!("ADD {at}/moved /d/"), false),
        (format!("ADD {at}/round /d/"), false),
        (format!("ADD --checksum=sha256:{} {at}/through.tar /d/", "0".repeat(64)), false),
    ] {
        let context = context(&engine, &[("Dockerfile", &format!("FROM busybox\n{step}\n"))]);
        let outcome = build(&engine, &context, &["-t", "step"]);
        assert_eq!(outcome.code == 0, ends, "{step}: {outcome:?}");
    }
    for name in ["through.tar", "upwards.tar"] {
        let source = format!("{at}/{name}").replace(':', "%3A");
        // Either refused or kept inside.
        engine.http("POST", &format!("/build?t=context&remote={source}"), "");
    }
    assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 0);
    assert!(!Path::new("/tmp/silo-escaped").exists());
}

//! The bounds of the cache.

use silo_tests::Engine;

use super::{context, engine};
use crate::build::disk::SmallDisk;

/// Steps that the cache has.
fn steps(engine: &Engine) -> usize {
    let usage = engine.http("GET", "/system/df", "").json();
    let records = usage["BuildCache"].as_array().expect("records").clone();
    records.iter().filter(|record| record["Size"].as_u64() >= Some(1_000_000)).count()
}

#[test]
fn a_prune_leaves_what_it_is_told_to() {
    let Some(engine) = engine() else { return };
    for number in 0..4 {
        let text = format!("FROM busybox\nRUN head -c 1000000 /dev/urandom > /{number}\n");
        let at = context(&engine, &[("Dockerfile", &text)]);
        let out = ["build", "-q", "-o", "type=tar,dest=/dev/null", at.to_str().expect("text")];
        let done = engine.silo(&out);
        assert_eq!(done.code, 0, "{}", done.stderr);
    }
    assert_eq!(steps(&engine), 4);
    for (bounds, left) in [
        // What is free is enough.
        (&["--min-free-space", "1"][..], 4),
        (&["--max-used-space", "3500000"], 3),
        (&["--max-used-space", "10", "--reserved-space", "2500000"], 2),
        (&["--keep-storage", "1500000"], 1),
        // More than there is.
        (&["--min-free-space", "8000000000000000"], 0),
    ] {
        let done = engine.silo(&[&["builder", "prune", "-f"], bounds].concat());
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert_eq!(steps(&engine), left, "{bounds:?}\n{}", done.stdout);
    }
}

/// The steps that the cache has, by the numbers of their files.
fn numbers(engine: &Engine) -> Vec<String> {
    let usage = engine.http("GET", "/system/df", "").json();
    let records = usage["BuildCache"].as_array().expect("records").clone();
    let large = records.iter().filter(|record| record["Size"].as_u64() >= Some(1_000_000));
    let text = large.map(|record| record["Description"].as_str().expect("text").to_owned());
    let mut found: Vec<String> =
        text.filter_map(|text| Some(text.rsplit_once("> /n")?.1.trim().to_owned())).collect();
    found.sort();
    found
}

#[test]
fn what_was_not_used_for_longest_goes_by_itself() {
    let mut engine = Engine::prepare();
    if !engine.is_silo_or_skip("chooses where Silo keeps its data") {
        return;
    }
    // A fifth of a disk is to stay free: 12 of these, where six steps of 8 leave no more than that.
    let disk = SmallDisk::new(60);
    engine.set_data_root(&disk.path().join("data"));
    engine.start_daemon();
    engine.load_busybox();
    // How many steps were there already, the base's included.
    let build = |engine: &Engine, number: u32| {
        let text = format!("FROM busybox\nRUN head -c 8m /dev/zero > /n{number}\n");
        let at = context(engine, &[("Dockerfile", &text)]);
        let done =
            engine.silo(&["build", "-o", "type=tar,dest=/dev/null", at.to_str().expect("text")]);
        assert_eq!(done.code, 0, "{}\n{}", done.stderr, engine.daemon_log());
        done.stderr.matches("CACHED").count()
    };
    for number in 0..4 {
        build(&engine, number);
    }
    // It is used again, so that another one is the oldest.
    assert_eq!(build(&engine, 0), 2);
    assert_eq!(numbers(&engine), ["0", "1", "2", "3"]);
    // The next collection is due with the next daemon, which waits for it when it ends.
    for number in [4, 5] {
        engine.stop_daemon();
        engine.start_daemon();
        build(&engine, number);
    }
    engine.stop_daemon();
    engine.start_daemon();
    assert_eq!(numbers(&engine), ["0", "2", "3", "4", "5"], "{}", engine.daemon_log());
    assert!(disk.room() >= 12, "{} MiB", disk.room());
    for (number, cached) in [(0, 2), (5, 2), (1, 1)] {
        assert_eq!(build(&engine, number), cached, "{number}");
    }
}

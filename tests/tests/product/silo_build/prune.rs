//! The bounds of the cache.

use silo_tests::Engine;

use super::{context, engine};

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

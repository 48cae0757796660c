//! What Silo's builder does that the classic builder of dockerd does not.

use silo_tests::Engine;
use std::fmt::Write as _;

use super::{build, built, context, shell};

/// A private engine, for what only Silo has.
fn silo() -> Option<Engine> {
    let engine = Engine::start();
    engine
        .is_silo_or_skip("only Silo's builder does this by its classic endpoint")
        .then_some(engine)
}

#[test]
fn here_documents_and_mounts() {
    let Some(engine) = silo() else { return };
    let tag = engine.name("mounts");
    let dockerfile = "FROM busybox\n\
        ENV NAME=world\n\
        COPY <<A <<\"B\" /docs/\n\
        hello $NAME\n\
        A\n\
        plain $NAME\n\
        B\n\
        RUN <<EOF\n\
        set -e\n\
        echo one > /one\n\
        echo two > /two\n\
        EOF\n\
        RUN <<EOF\n\
        #!/bin/busybox sh\n\
        echo $0 > /script\n\
        EOF\n\
        RUN --mount=type=bind,source=tree,target=/bound cat /bound/f > /from-bind\n\
        RUN --mount=type=bind,target=/all,rw echo x > /all/f && cat /all/tree/f\n\
        RUN --mount=type=tmpfs,target=/memory echo x > /memory/f\n\
        RUN --mount=type=cache,target=/cache,id=c echo x >> /cache/f && wc -l < /cache/f > /count\n\
        RUN --mount=type=bind,from=busybox,source=/etc/group,target=/g cp /g /group\n\
        RUN --network=none ls /sys/class/net > /net\n";
    let context = context(&engine, &[("Dockerfile", dockerfile), ("tree/f", "bound\n")]);
    built(&engine, &context, &["-t", &tag]);
    for (script, expected) in [
        ("cat /docs/A /docs/B", "hello world\nplain $NAME"),
        ("cat /one /two /script", "one\ntwo\n/dev/pipes/EOF"),
        ("cat /from-bind /count", "bound\n1"),
        // Places of mounts are no part of the image.
        ("ls -d /bound /all /memory /cache /g 2>/dev/null || true", ""),
        ("grep -c root /group; cat /net", "1\nlo"),
    ] {
        assert_eq!(shell(&engine, &tag, script), expected, "{script}");
    }
    // What a cache mount holds stays for the next build.
    built(&engine, &context, &["--no-cache", "-t", &tag]);
    assert_eq!(shell(&engine, &tag, "cat /count"), "2");
}

#[test]
fn copies_with_flags() {
    let Some(engine) = silo() else { return };
    let tag = engine.name("flags");
    let dockerfile = "FROM busybox\n\
        COPY --chmod=600 a/b/c.txt /six\n\
        COPY --chmod=u=rwx,go= a/b/c.txt /symbolic\n\
        COPY --parents a/b/c.txt a/*/d.md /parents/\n\
        COPY --parents a/./b/c.txt /pivot/\n\
        COPY --exclude=**/*.md a /excluded\n\
        RUN ln -s /elsewhere /link\n\
        COPY --link a/b/c.txt /linked/\n";
    let files = [("Dockerfile", dockerfile), ("a/b/c.txt", "c\n"), ("a/b/d.md", "d\n")];
    let context = context(&engine, &files);
    built(&engine, &context, &["-t", &tag]);
    for (script, expected) in [
        ("stat -c %a /six /symbolic", "600\n700"),
        ("cd /parents && find . -type f | sort", "./a/b/c.txt\n./a/b/d.md"),
        ("cd /pivot && find . -type f", "./b/c.txt"),
        ("cd /excluded && find . -type f", "./b/c.txt"),
        ("cat /linked/c.txt", "c"),
    ] {
        assert_eq!(shell(&engine, &tag, script), expected, "{script}");
    }
}

#[test]
fn stages_run_side_by_side_and_only_those_that_are_needed() {
    let Some(engine) = silo() else { return };
    let tag = engine.name("parallel");
    // Each waits for the other in a place that both see.
    let wait = |own: &str, other: &str| {
        format!(
            "FROM busybox AS {own}\n\
             RUN --mount=type=cache,target=/meet,id=meet-{0} touch /meet/{own}; \
             for i in $(seq 600); do test -e /meet/{other} && exit 0; usleep 50000; done; exit 1\n",
            "x"
        )
    };
    let dockerfile = format!(
        "{}{}FROM busybox AS unused\nRUN exit 1\nFROM busybox\nCOPY --from=one /etc/passwd /1\n\
         COPY --from=two /etc/passwd /2\n",
        wait("one", "two"),
        wait("two", "one")
    );
    let context = context(&engine, &[("Dockerfile", &dockerfile)]);
    let output = built(&engine, &context, &["-t", &tag]);
    assert!(!output.contains("unused"), "{output}");
}

#[test]
fn the_same_build_gives_the_same_image() {
    let Some(engine) = silo() else { return };
    let (one, two) = (engine.name("one"), engine.name("two"));
    let dockerfile = "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN date > /dev/null; echo x > /made; mkdir /dir\n\
        COPY f /f\nWORKDIR /w/x\n";
    let context = context(&engine, &[("Dockerfile", dockerfile), ("f", "f\n")]);
    for tag in [&one, &two] {
        built(
            &engine,
            &context,
            &["--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-t", tag],
        );
    }
    assert_eq!(engine.inspect(&one)["Id"], engine.inspect(&two)["Id"]);
    assert_eq!(
        shell(&engine, &one, "stat -c %Y /made /dir /f"),
        "1700000000\n1700000000\n1700000000"
    );
    assert_eq!(engine.inspect(&one)["Created"], "2023-11-14T22:13:20Z");
}

#[test]
fn cache_mounts_are_held_without_a_deadlock() {
    let Some(engine) = silo() else { return };
    // Twice in one step, and in two orders in steps that run side by side.
    let dockerfile = "FROM busybox AS one\n\
        RUN --mount=type=cache,id=a,sharing=locked,target=/x --mount=type=cache,id=b,sharing=locked,target=/y \\\n\
            --mount=type=cache,id=a,target=/z echo 1 >> /x/n; grep -q 1 /z/n\n\
        FROM busybox AS two\n\
        RUN --mount=type=cache,id=b,sharing=locked,target=/y --mount=type=cache,id=a,sharing=locked,target=/x \\\n\
            echo 2 >> /x/n\n\
        FROM busybox\n\
        COPY --from=one /etc/passwd /a\n\
        COPY --from=two /etc/passwd /b\n\
        RUN --mount=type=cache,id=p,sharing=private,target=/p echo 3 > /p/n\n\
        RUN --mount=type=cache,id=p,sharing=private,target=/p cat /p/n > /c\n\
        RUN --mount=type=cache,id=a,target=/x sort /x/n >> /c\n";
    let context = context(&engine, &[("Dockerfile", dockerfile)]);
    let tag = engine.name("mounts");
    built(&engine, &context, &["-t", &tag]);
    assert_eq!(shell(&engine, &tag, "cat /c"), "3\n1\n2");
}

#[test]
fn a_long_chain_of_stages_is_no_burden() {
    let Some(engine) = silo() else { return };
    let mut dockerfile = String::from("FROM busybox AS s0\n");
    for stage in 1..1000 {
        writeln!(dockerfile, "FROM s{} AS s{stage}", stage - 1).expect("text");
    }
    dockerfile.push_str("RUN echo whole > /a\n");
    let context = context(&engine, &[("Dockerfile", &dockerfile)]);
    let tag = engine.name("chain");
    built(&engine, &context, &["-t", &tag]);
    assert_eq!(shell(&engine, &tag, "cat /a"), "whole");
}

#[test]
fn deep_trees_are_refused() {
    let Some(engine) = silo() else { return };
    let dockerfile = "FROM busybox AS deep\n\
        RUN i=0; while [ $i -lt 1010 ]; do mkdir d && cd d; i=$((i+1)); done\n\
        FROM busybox\n\
        COPY --from=deep /d /d\n";
    let context = context(&engine, &[("Dockerfile", dockerfile)]);
    let outcome = build(&engine, &context, &[]);
    let expected = "more than 1000 directories within each other";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    engine.ok(&["version"]);
}

#[test]
fn the_cache_is_pruned() {
    let Some(engine) = silo() else { return };
    let tag = engine.name("pruned");
    let dockerfile = "FROM busybox\nRUN head -c 100000 /dev/zero > /big\n";
    let context = context(&engine, &[("Dockerfile", dockerfile)]);
    built(&engine, &context, &["-t", &tag]);
    // What an image has stays, unless all is asked for.
    let kept = engine.ok(&["builder", "prune", "-f"]);
    assert!(kept.contains("Total reclaimed space: 0B"), "{kept}");
    engine.ok(&["rmi", &tag]);
    let pruned = engine.ok(&["builder", "prune", "-f"]);
    assert!(pruned.contains("Total reclaimed space: 100kB"), "{pruned}");
    let output = built(&engine, &context, &["-t", &tag]);
    assert!(!output.contains("RUN head -c 100000 /dev/zero > /big\n ---> Using"), "{output}");
}

//! Several engines on one host.

use std::path::Path;

use silo_tests::{Engine, Outcome};

/// Starts a daemon on `root` with the network of `engine`, and waits for its end.
fn start_another(engine: &Engine, root: &Path, bridge: &str, table: &str) -> Outcome {
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let output = engine
        .silo_command()
        .args(["daemon", "--root", &text(root), "--run-root", &text(&root.join("run"))])
        .args(["--host", &format!("unix://{}", root.join("socket").display())])
        .args(["--bridge", bridge, "--table", table])
        .output();
    output.expect("run silo").into()
}

/// A second engine with the bridge or the table of the first says whose they are and ends. It does
/// so as well when the first has been killed and its containers run on.
#[test]
fn a_bridge_has_one_engine() {
    let mut engine = Engine::start();
    if !engine.is_silo_or_skip("starts Silo's own daemon") {
        return;
    }
    let name = engine.name("pinging");
    engine.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"]);
    let gateway =
        engine.ok(&["network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}"]);
    let ping = ["exec", &name, "ping", "-c", "1", "-W", "5", &gateway];
    let root = engine.scratch().join("other");
    let (own, other) = (engine.bridge(), format!("{}o", engine.bridge()));
    let first = format!("pid {}, root {}", engine.daemon_pid(), engine.data_root().display());
    for (bridge, table) in [(&own, &own), (&own, &other), (&other, &own)] {
        let outcome = start_another(&engine, &root, bridge, table);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        for part in [&own, &first, "--bridge", "--table"] {
            assert!(outcome.stderr.contains(part), "{part}: {outcome:?}");
        }
    }
    // Nor is the network removed under a daemon.
    assert_eq!(engine.remove_network().code, 1);
    engine.ok(&ping);
    engine.kill_daemon();
    let outcome = start_another(&engine, &root, &own, &own);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let first = format!("root {}", engine.data_root().display());
    assert!(outcome.stderr.contains(&first), "{outcome:?}");
    engine.start_daemon();
    engine.ok(&ping);
    engine.ok(&["rm", "-f", &name]);
    // Left by the tries that got as far as the first of two locks.
    let output = engine
        .silo_command()
        .args(["daemon", "--remove-network", "--bridge", &other, "--table", &other])
        .output();
    assert!(output.expect("run silo").status.success());
}

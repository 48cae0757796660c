//! Bad requests: the status and the words that dockerd gives.

use silo_tests::Engine;

#[test]
fn unknown_things() {
    let engine = Engine::start();
    let check = |method: &str, target: &str, body: &str, status: u16, message: &str| {
        let response = engine.http(method, target, body);
        // Docker before 23 answers 500 to a body that is no JSON.
        let is_malformed =
            response.status == 500 && response.message().contains("invalid character");
        assert!(
            response.status == status || is_malformed,
            "{method} {target}: {} {}",
            response.status,
            String::from_utf8_lossy(&response.body)
        );
        let text = response.message();
        assert!(text.contains(message), "{method} {target}: {text}");
    };
    check("GET", "/v1.41/nothing", "", 404, "page not found");
    check("GET", "/containers/nothing/json", "", 404, "No such container: nothing");
    check("POST", "/containers/nothing/start", "", 404, "No such container: nothing");
    check("DELETE", "/containers/nothing", "", 404, "No such container: nothing");
    check("GET", "/images/nothing/json", "", 404, "No such image: nothing");
    check("DELETE", "/images/nothing", "", 404, "No such image: nothing");
    check("GET", "/networks/nothing", "", 404, "network nothing not found");
    check("DELETE", "/volumes/nothing", "", 404, "no such volume");
    check(
        "GET",
        "/v1.99/containers/json",
        "",
        400,
        "client version 1.99 is too new. Maximum supported API version is",
    );
    check(
        "POST",
        "/containers/create",
        r#"{"Image":"nothing-here"}"#,
        404,
        "No such image: nothing-here:latest",
    );
    check("POST", "/containers/create", "{}", 400, "");
    check(
        "POST",
        "/containers/create",
        r#"{"Image": busybox}"#,
        400,
        "invalid character 'b' looking for beginning of value",
    );
    check(
        "POST",
        "/containers/create?name=-bad",
        r#"{"Image":"busybox"}"#,
        400,
        "Invalid container name (-bad), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
    );
    check("GET", "/containers/json?filters=nonsense", "", 400, "");
    check("GET", "/containers/json?filters=%7B%22nope%22%3A%5B%22x%22%5D%7D", "", 400, "nope");
    check("GET", "/swarm", "", 503, "This node is not a swarm manager");
    check("GET", "/services", "", 503, "This node is not a swarm manager");
}

#[test]
fn impossible_settings() {
    let engine = Engine::start();
    let fails = |arguments: &[&str], message: &str| {
        let mut command = vec!["create"];
        command.extend(arguments);
        command.extend(["busybox", "true"]);
        let outcome = engine.docker(&command);
        assert_ne!(outcome.code, 0, "{arguments:?}");
        assert!(outcome.stderr.contains(message), "{arguments:?}: {}", outcome.stderr);
    };
    fails(&["-m", "1k"], "Minimum memory limit allowed is 6MB");
    fails(&["--cpus", "1000"], "there are only");
    fails(
        &["--cpuset-cpus", "900"],
        "Requested CPUs are not available - requested 900, available:",
    );
    fails(
        &["-m", "10m", "--memory-swap", "8m"],
        "Minimum memoryswap limit should be larger than memory limit",
    );
    fails(&["--memory-swappiness", "200"], "nvalid value: 200");
    fails(
        &["--oom-score-adj", "5000"],
        "Invalid value 5000, range for oom score adj is [-1000, 1000]",
    );
    fails(&["--ipc", "container:nothing-here"], "nothing-here");
    fails(&["--runtime", "no-such-runtime"], "no-such-runtime");
    fails(&["--cap-add", "NO_SUCH"], "NO_SUCH");
    fails(&["--security-opt", "nonsense"], "nonsense");
    fails(&["--restart", "no", "--rm", "--restart", "always"], "");
    fails(&["--stop-signal", "NOPE"], "nvalid signal: NOPE");
    fails(&["--network", "no-such-network-here", "--ip", "1.2.3.4.5"], "");
}

#[test]
fn users_out_of_range_are_never_root() {
    let engine = Engine::start();
    for user in ["2147483648", "4294967296", "-1", "0x0", "18446744073709551616", "0:4294967296"] {
        let outcome = engine.docker(&["run", "--rm", "--user", user, "busybox", "id", "-u"]);
        assert_ne!(outcome.code, 0, "{user}: {}", outcome.stdout);
        assert!(!outcome.stdout.contains('0'), "{user}: {}", outcome.stdout);
    }
}

//! Containers made by the command line in private directories, with a root of busybox alone.
//! They need root; without it each test says that it was skipped.

mod bundle;

use bundle::{Bundle, needs_root};
use serde_json::json;

#[test]
fn program_runs_with_what_the_configuration_gives() {
    needs_root!();
    let bundle = Bundle::new("run");
    bundle.configure(|config| {
        config["hostname"] = json!("inside");
        config["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7]});
        config["process"]["env"] = json!(["PATH=/bin", "A=b"]);
        config["process"]["cwd"] = json!("/made/here");
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 33, "hard": 44}]);
        config["process"]["args"] = json!([
            "sh",
            "-c",
            "id -u; id -g; id -G; hostname; pwd; echo $A $HOME; ulimit -n; \
             grep -E 'CapInh|CapPrm|NoNewPrivs' /proc/self/status; exit 9"
        ]);
    });
    let output = bundle.run();
    let expected = "5\n6\n6 7\ninside\n/made/here\nb /\n33\nCapInh:\t0000000000000000\n\
                    CapPrm:\t0000000000000000\nNoNewPrivs:\t1\n";
    assert_eq!(output.stdout, expected, "{}", output.stderr);
    assert_eq!(output.code, 9);
}

#[test]
fn life_of_a_container() {
    needs_root!();
    let bundle = Bundle::new("life");
    bundle.configure(|config| config["process"]["args"] = json!(["sleep", "100"]));
    let directory = bundle.directory.to_str().unwrap();
    assert_eq!(bundle.command(&["create", "--bundle", directory, "c"]).code, 0);
    assert_eq!(bundle.command(&["create", "--bundle", directory, "c"]).code, 1);
    assert_eq!(bundle.status("c"), "created");
    assert_eq!(bundle.command(&["start", "c"]).code, 0);
    assert_eq!(bundle.command(&["start", "c"]).code, 1);
    assert_eq!(bundle.status("c"), "running");
    let output = bundle.command(&["exec", "c", "sh", "-c", "echo $$; exit 4"]);
    assert_eq!((output.stdout.as_str(), output.code), ("2\n", 4), "{}", output.stderr);
    let output = bundle.command(&["exec", "c", "nosuch"]);
    assert!(output.stderr.contains("exec: \"nosuch\": executable file not found in $PATH"));
    assert_eq!(output.code, 127);
    assert_eq!(bundle.command(&["pause", "c"]).code, 0);
    assert_eq!(bundle.status("c"), "paused");
    assert_eq!(bundle.command(&["resume", "c"]).code, 0);
    assert_eq!(bundle.command(&["delete", "c"]).code, 1);
    assert_eq!(bundle.command(&["kill", "c", "KILL"]).code, 0);
    assert_eq!(bundle.command(&["delete", "c"]).code, 0);
    assert_eq!(bundle.command(&["state", "c"]).code, 1);
    assert_eq!(bundle.command(&["delete", "c"]).code, 1);
    assert_eq!(bundle.command(&["delete", "--force", "c"]).code, 0);
}

#[test]
fn programs_that_cannot_run_are_named() {
    needs_root!();
    let bundle = Bundle::new("words");
    bundle.write("bin/text", "no program");
    bundle.write("bin/broken", "\u{7f}ELF");
    bundle.allow("bin/broken");
    let cases = [
        ("nosuch", "exec: \"nosuch\": executable file not found in $PATH", 127),
        ("/nosuch", "exec: \"/nosuch\": no such file or directory", 127),
        ("/bin", "exec: \"/bin\": is a directory", 126),
        ("text", "exec: \"text\": permission denied", 126),
        ("broken", "exec: \"broken\": exec format error", 126),
    ];
    for (program, text, code) in cases {
        bundle.configure(|config| config["process"]["args"] = json!([program]));
        let output = bundle.run();
        assert!(output.stderr.contains(text), "{program}: {}", output.stderr);
        assert_eq!(output.code, code, "{program}");
    }
}

#[test]
fn user_namespace_maps_ids() {
    needs_root!();
    let bundle = Bundle::new("userns");
    bundle.configure(|config| {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["process"]["args"] =
            json!(["sh", "-c", "cat /proc/self/uid_map; echo x > /dev/null && stat -c %u /dev"]);
    });
    let output = bundle.run();
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "1000", "0"], "{}", output.stderr);
}

#[test]
fn hooks_run_in_their_order() {
    needs_root!();
    let bundle = Bundle::new("hooks");
    let log = bundle.directory.join("log");
    let hook = |stage: &str| {
        let line = format!("read state; echo {stage} >> {}", log.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", line]}])
    };
    bundle.configure(|config| {
        config["process"]["args"] = json!(["true"]);
        config["hooks"] = json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
            "createContainer": hook("createContainer"), "poststart": hook("poststart"),
            "poststop": hook("poststop"),
            "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo start; pwd"]}],
        });
    });
    let output = bundle.run();
    assert_eq!(output.stdout, "start\n/\n", "{}", output.stderr);
    assert_eq!(
        fs_err::read_to_string(log).unwrap(),
        "prestart\ncreateRuntime\ncreateContainer\npoststart\npoststop\n"
    );
    let failing = json!([{"path": "/bin/false"}]);
    for stage in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        bundle.configure(|config| {
            config["process"]["args"] = json!(["sleep", "100"]);
            config["hooks"] = json!({});
            config["hooks"][stage] = failing.clone();
        });
        let output = bundle.run();
        assert_eq!(output.code, 1, "{stage}");
        assert!(output.stderr.contains(stage), "{stage}: {}", output.stderr);
    }
    let after = bundle.directory.join("after");
    let line = format!("echo poststart >> {}", after.display());
    bundle.configure(|config| {
        config["hooks"] = json!({
            "startContainer": failing,
            "poststart": [{"path": "/bin/sh", "args": ["sh", "-c", line]}],
        });
    });
    assert_eq!(bundle.run().code, 1);
    assert_eq!(fs_err::read_to_string(after).unwrap(), "poststart\n");
    bundle.configure(|config| {
        config["hooks"] = json!({"createRuntime": [
            {"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}
        ]});
    });
    assert!(bundle.run().stderr.contains("timed out"));
}

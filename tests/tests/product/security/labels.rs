//! An image's labels are text for people, never orders to the engine.

use serde_json::Value;
use silo_tests::Engine;

/// Labels that some engine, or a tool around one, acts on when a container has them.
fn hostile(mark: &str) -> Vec<(&'static str, String)> {
    let program = format!("binary:///bin/sh?-c=touch+{mark}");
    vec![
        ("containerd.io/restart.status", "running".into()),
        ("containerd.io/restart.policy", "always".into()),
        ("containerd.io/restart.loguri", program.clone()),
        ("containerd.io/restart.logpath", mark.into()),
        ("nerdctl/log-uri", program),
        ("nerdctl/log-config", format!(r#"{{"driver":"json-file","opts":{{"path":"{mark}"}}}}"#)),
        ("nerdctl/mounts", r#"[{"Type":"bind","Source":"/","Destination":"/host"}]"#.into()),
        ("io.kubernetes.cri.container-log-path", mark.into()),
        ("io.podman.annotations.privileged", "TRUE".into()),
        ("io.podman.annotations.autoremove", "TRUE".into()),
        ("io.containers.autoupdate", "registry".into()),
        ("com.docker.volume.anonymous", String::new()),
        ("com.docker.compose.project", "x".into()),
        ("com.docker.stack.namespace", "x".into()),
        ("com.docker.swarm.task", "x".into()),
        ("org.systemd.property.ExecStopPost", format!("/bin/touch {mark}")),
        ("run.oci.hooks.stderr", mark.into()),
        ("run.oci.keep_original_groups", "1".into()),
        ("RUN", format!("docker run --privileged -v /:/host IMAGE touch {mark}")),
        ("seccomp.security.alpha.kubernetes.io/pod", "unconfined".into()),
        ("devices", "/dev/mem".into()),
        // What events say about their container.
        ("name", "somebody-else".into()),
        ("image", "somebody-elses".into()),
    ]
}

/// What must not differ between containers with such labels and without.
fn decided(inspected: &Value) -> Value {
    let mut host = inspected["HostConfig"].clone();
    host["ContainerIDFile"] = Value::Null;
    let fields = ["AppArmorProfile", "RestartCount", "Driver", "Platform"];
    let rest: Vec<Value> = fields.iter().map(|&field| inspected[field].clone()).collect();
    let mounts: Vec<Value> = inspected["Mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|mount| serde_json::json!([mount["Type"], mount["Destination"], mount["RW"]]))
        .collect();
    serde_json::json!([host, rest, mounts, inspected["State"]["Status"]])
}

/// CVE-2026-53488: labels of an image are its containers' labels, and that is all they are.
#[test]
fn labels_of_images_decide_nothing() {
    let engine = Engine::start();
    let mark = engine.scratch().join("mark");
    let labels = hostile(mark.to_str().expect("UTF-8"));
    let base = engine.name("base");
    engine.ok(&["create", "--name", &base, "busybox"]);
    let volume = "VOLUME /data".to_owned();
    let commands: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("LABEL {name:?}={}", Value::from(value.as_str())))
        .chain([volume.clone()])
        .collect();
    let commit = |tag: &str, commands: &[String]| {
        let changes = commands.iter().flat_map(|command| ["-c", command]);
        let arguments: Vec<&str> = ["commit"].into_iter().chain(changes).collect();
        engine.ok(&[&arguments[..], &[&base, tag]].concat());
    };
    let (plain, labelled) = (engine.name("plain"), engine.name("labelled"));
    commit(&plain, &[volume]);
    commit(&labelled, &commands);
    let mut containers = Vec::new();
    for image in [&plain, &labelled] {
        let name = format!("{image}-c");
        let script = "echo said; id; cat /proc/self/status | grep -E 'Cap|Seccomp:|NoNew'; ls /dev";
        let said = engine.ok(&["run", "--name", &name, image, "sh", "-c", script]);
        assert_eq!(engine.ok(&["logs", &name]), said);
        let inspected = engine.inspect(&name);
        containers.push((said, decided(&inspected), name, inspected));
    }
    let (without, with) = (&containers[0], &containers[1]);
    assert_eq!(without.0, with.0, "what the program can do");
    assert_eq!(without.1, with.1, "how it is run");
    assert_eq!(with.3["State"]["Status"], "exited");
    assert_eq!(with.3["HostConfig"]["RestartPolicy"]["Name"], "no");
    for (name, value) in &labels {
        assert_eq!(with.3["Config"]["Labels"][*name], Value::from(value.as_str()), "{name}");
    }
    assert!(!mark.exists(), "a label was an order");
    let filter = format!("container={}", with.3["Id"].as_str().expect("an id"));
    let format = "{{.Actor.Attributes.name}} {{.Actor.Attributes.image}}";
    let now = engine.http("GET", "/info", "").json()["SystemTime"].clone();
    let until = now.as_str().expect("a time");
    let arguments = ["events", "--since", "1h", "--until", until, "--filter", &filter];
    let events = engine.ok(&[&arguments[..], &["--format", format]].concat());
    assert!(!events.is_empty());
    for event in events.lines() {
        assert_eq!(event, format!("{} {labelled}", with.2));
    }
    if engine.is_silo_or_skip("looks at Silo's own process and files") {
        // Nor are they annotations, on which runtimes and their hooks act.
        let id = with.3["Id"].as_str().expect("an id");
        for file in fs_err::read_dir(engine.data_root().join("containers").join(id)).expect("files")
        {
            let file = file.expect("a file").path();
            let text = fs_err::read(&file).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            assert!(!text.contains("org.systemd.property"), "{}", file.display());
        }
    }
    engine.ok(&["rm", "-v", &base, &without.2, &with.2]);
    engine.ok(&["rmi", &plain, &labelled]);
}

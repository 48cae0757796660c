//! The event stream.

use silo_tests::Engine;

#[test]
fn a_life_in_events() {
    let engine = Engine::start();
    let name = engine.name("ev");
    let since =
        engine.http("GET", "/info", "").json()["SystemTime"].as_str().expect("a time").to_owned();
    engine.ok(&["run", "--name", &name, "--label", "k=v", "busybox", "true"]);
    engine.ok(&["rm", &name]);
    let until =
        engine.http("GET", "/info", "").json()["SystemTime"].as_str().expect("a time").to_owned();
    let actions = |more: &[&str]| {
        let mut arguments =
            vec!["events", "--since", &since, "--until", &until, "--format", "{{.Action}}"];
        let filter = format!("container={name}");
        arguments.extend(["--filter", &filter]);
        arguments.extend(more);
        engine.ok(&arguments).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(actions(&[]), ["create", "attach", "start", "die", "destroy"]);
    assert_eq!(actions(&["--filter", "event=die", "--filter", "event=start"]), ["start", "die"]);
    assert_eq!(actions(&["--filter", "label=k=v", "--filter", "event=create"]), ["create"]);
    assert_eq!(actions(&["--filter", "label=k=other"]), Vec::<String>::new());
    let network = engine.ok(&[
        "events",
        "--since",
        &since,
        "--until",
        &until,
        "--filter",
        "type=network",
        "--format",
        "{{.Action}}",
    ]);
    assert!(network.contains("connect") && network.contains("disconnect"), "{network}");
    let die = engine.ok(&[
        "events",
        "--since",
        &since,
        "--until",
        &until,
        "--filter",
        &format!("container={name}"),
        "--filter",
        "event=die",
        "--format",
        "{{json .}}",
    ]);
    let die: serde_json::Value = serde_json::from_str(&die).expect("JSON");
    assert_eq!(die["Type"], "container");
    assert_eq!(die["Actor"]["Attributes"]["exitCode"], "0");
    assert_eq!(die["Actor"]["Attributes"]["image"], "busybox");
    assert_eq!(die["Actor"]["Attributes"]["name"], name.as_str());
    assert_eq!(die["Actor"]["Attributes"]["k"], "v");
    assert!(die["timeNano"].as_u64().is_some());
}

//! Images that cannot be containers: each says what it is about, and what to do.

use serde_json::{Value, json};
use silo_tests::{WindowsEngine, real_hives, skip};

use super::CORE;
use super::image::{archive, directory, file, hard_link, layer, load};

const ROOTS: [&str; 2] = ["Hives", "Files"];

/// The entries of a layer with both of its roots.
fn with_roots(entries: Vec<Value>) -> Vec<Value> {
    ROOTS.iter().copied().map(directory).chain(entries).collect()
}

/// The directories above the hives of a base, and these entries.
fn configuration(entries: impl IntoIterator<Item = Value>) -> Vec<Value> {
    ["Files", "Files/Windows", "Files/Windows/System32", "Files/Windows/System32/config"]
        .into_iter()
        .map(directory)
        .chain(entries)
        .collect()
}

#[test]
fn damaged_images_are_told() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let scratch = engine.scratch();
    let hives = |data: &'static str| {
        let names = ["DEFAULT", "SAM", "SECURITY", "SOFTWARE", "SYSTEM"];
        configuration(
            names.map(|name| file(&format!("Files/Windows/System32/config/{name}"), data)),
        )
    };
    let again = "pull or build the image again";
    for (base, entries, words) in [
        (
            None,
            hives("regf and no more"),
            &["config/SYSTEM", "layer 1 of 1", again, "silo hive", "within the base block"][..],
        ),
        (
            None,
            hives(""),
            &["no registry hives", "build it from a Windows base", "silo/servercore"],
        ),
        (None, with_roots(vec![]), &["no registry hives", "build it from a Windows base"]),
        (
            Some(CORE),
            with_roots(vec![file("Hives/Software_Delta", "no hive at all")]),
            &["Software_Delta", "layer 3 of 3", again, "does not start with \"regf\""],
        ),
        (
            Some(CORE),
            with_roots(vec![file("Files/a", ""), file("Files/A", "")]),
            &["layer 3 of 3", again, "Files/A", "there already, as \"Files/a\""],
        ),
        (
            Some(CORE),
            with_roots(vec![directory("Files/a"), directory("Files/a")]),
            &["layer 3 of 3", again, "Files/a", "there already"],
        ),
        (
            Some(CORE),
            with_roots(vec![file("Files/Z:/etc/x", "")]),
            &["layer 3 of 3", again, "Files/Z:/etc/x", "colon"],
        ),
        (
            Some(CORE),
            with_roots(vec![file("Files/a\\..\\..\\x", "")]),
            &["layer 3 of 3", again, "Files/a\\\\..\\\\..\\\\x"],
        ),
    ] {
        let tar = layer(&scratch.join("layer.tar"), &entries);
        load(&engine, base, "damaged:one", &[tar]);
        let outcome = engine.docker(&["run", "--rm", "damaged:one", "cmd", "/c", "ver"]);
        assert_eq!(outcome.code, 125, "{words:?}: {outcome:?}");
        for word in words {
            assert!(outcome.stderr.contains(word), "{word}: {}", outcome.stderr);
        }
        engine.ok(&["rmi", "damaged:one"]);
    }
    // What no layer of any system may have is refused at the door.
    for (entries, words) in [
        (vec![file("Files/../../x", "")], &["Files/../../x", "outside of the root"][..]),
        (vec![hard_link("Files/a", "../../etc/passwd")], &["Files/a", "outside of the root"]),
        (vec![file("Files/.wh...", "")], &["Files/.wh...", "invalid whiteout"]),
        (vec![file("Files/a", ""), file("Files/a/b", "")], &["Files/a", "Not a directory"]),
    ] {
        let tar = layer(&scratch.join("layer.tar"), &with_roots(entries));
        let image = archive(&engine, Some(CORE), "damaged:one", &[tar]).display().to_string();
        let outcome = engine.docker(&["load", "-i", &image]);
        assert_eq!(outcome.code, 1, "{words:?}: {outcome:?}");
        for word in words {
            assert!(outcome.stderr.contains(word), "{word}: {}", outcome.stderr);
        }
        assert_eq!(engine.docker(&["image", "inspect", "damaged:one"]).code, 1);
    }
}

/// What Windows keeps with a file and a Linux file system cannot: when it is damaged the file is
/// there without it, and the layer goes out as it came in.
#[test]
fn damaged_attributes_are_left_out() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let scratch = engine.scratch();
    let odd = |name: &str, key: &str, value: &str| json!({ "name": name, "kind": "f", "data": "kept\r\n", "pax": { key: value } });
    let entries = with_roots(vec![
        odd("Files/rawsd1", "MSWINDOWS.rawsd", "!!"),
        odd("Files/rawsd2", "MSWINDOWS.rawsd", "AQAEgBQAAAAkAAAAAAAAADAAAAD/////"),
        odd("Files/rawsd3", "MSWINDOWS.rawsd", &"A".repeat(200_000)),
        odd("Files/sd", "MSWINDOWS.sd", "O:BAG:SYD:(A;;"),
        odd("Files/attr1", "MSWINDOWS.fileattr", "-1"),
        odd("Files/attr2", "MSWINDOWS.fileattr", "99999999999"),
        odd("Files/efs", "MSWINDOWS.fileattr", "16416"),
        odd("Files/ea", "MSWINDOWS.xattr.EA", "***"),
        odd("Files/time", "LIBARCHIVE.creationtime", "yesterday"),
        odd("Files/junction", "MSWINDOWS.mountpoint", "1"),
        odd("Files/other", "MSWINDOWS.efs", "AAAA"),
    ]);
    let tar = layer(&scratch.join("layer.tar"), &entries);
    load(&engine, Some(CORE), "odd:one", std::slice::from_ref(&tar));
    for entry in &entries[2..] {
        let name = entry["name"].as_str().expect("a name").trim_start_matches("Files/");
        let show = format!("type C:\\{name}");
        assert_eq!(engine.ok(&["run", "--rm", "odd:one", "cmd", "/c", &show]), "kept", "{name}");
    }
    let (diff_ids, expected) =
        (engine.inspect("odd:one")["RootFS"]["Layers"].clone(), super::image::sum(&tar));
    let last = diff_ids.as_array().and_then(|ids| ids.last()).cloned();
    assert_eq!(last, Some(format!("sha256:{expected}").into()));
}

/// A hive that was in use when the layer was made is completed from the logs beside it.
#[test]
fn hives_in_use_are_completed() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let hives = match real_hives("nt_hive2") {
        Ok(hives) => hives.join("NewDirtyHive1"),
        Err(reason) => return skip("damaged::hives_in_use", &format!("no hives: {reason}")),
    };
    let scratch = engine.scratch();
    let account = "Files/Users/ContainerAdministrator";
    let taken = |name: &str, from: &str| json!({ "name": format!("{account}/{name}"), "kind": "f", "from": hives.join(from) });
    let mut entries = with_roots(vec![directory("Files/Users"), directory(account)]);
    entries.push(taken("NTUSER.DAT", "NewDirtyHive"));
    let query = ["run", "--rm", "dirty:one", "reg", "query", "HKCU\\Key3"];
    let alone = layer(&scratch.join("alone.tar"), &entries);
    load(&engine, Some(CORE), "dirty:one", &[alone]);
    assert_ne!(engine.docker(&query).code, 0, "it is in the logs only");
    entries.push(taken("NTUSER.DAT.LOG1", "NewDirtyHive.LOG1"));
    entries.push(taken("NTUSER.DAT.LOG2", "NewDirtyHive.LOG2"));
    let whole = layer(&scratch.join("whole.tar"), &entries);
    load(&engine, Some(CORE), "dirty:one", &[whole]);
    let keys = engine.ok(&query);
    assert!(keys.contains("Key3_1") && keys.contains("Key3_3"), "{keys}");
}

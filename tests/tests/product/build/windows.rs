//! Dockerfiles of Windows images, which Docker has none of on Linux.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use silo_tests::{Engine, Outcome, WindowsEngine, feed};

use super::{build, built, context};

/// What a program of a Windows image prints.
#[track_caller]
fn cmd(engine: &Engine, image: &str, line: &str) -> String {
    engine.ok(&["run", "--rm", "--entrypoint", "cmd", image, "/c", line]).replace("\r\n", "\n")
}

#[test]
fn steps_change_files_and_the_registry() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let dockerfile = "# escape=`\n\
        FROM mcr.microsoft.com/windows/servercore:ltsc2019\n\
        ENV FOO=bar Other=\"x y\"\n\
        RUN echo %foo%& mkdir C:\\made && echo content> C:\\made\\file.txt\n\
        RUN setx /M SILOVAR persistent && reg add HKLM\\Software\\Silo /v Key /d Value /f\n\
        RUN echo %SILOVAR%> C:\\var.txt && reg query HKLM\\Software\\Silo /v Key\n\
        WORKDIR /App\n\
        COPY tree c:\\APP\\\n\
        COPY [\"tree/Sub/a.txt\", \"C:/Program Files/x.txt\"]\n\
        RUN [\"cmd\", \"/S\", \"/C\", \"type C:\\\\app\\\\sub\\\\A.TXT & exit 0\"]\n\
        CMD type C:\\made\\file.txt\n";
    let files = [("Dockerfile", dockerfile), ("tree/Sub/a.txt", "a\n"), ("tree/top.txt", "t\n")];
    let context = context(&engine, &files);
    let output = built(&engine, &context, &["-t", "app"]);
    // The substitute is named, never used in silence.
    assert!(output.contains("silo/servercore:ltsc2019, Silo's compatible base"), "{output}");
    assert!(output.contains("\nbar\n") || output.contains("\nbar\r\n"), "{output}");
    assert_eq!(engine.ok(&["run", "--rm", "app"]), "content");
    for (line, expected) in [
        ("type C:\\var.txt", "persistent"),
        ("cd", "C:\\App"),
        ("type C:\\app\\SUB\\a.txt", "a"),
        ("type \"C:\\Program Files\\x.txt\"", "a"),
        ("dir /b C:\\app", "Sub\ntop.txt"),
    ] {
        assert_eq!(cmd(&engine, "app", line), expected, "{line}");
    }
    assert!(cmd(&engine, "app", "reg query HKLM\\Software\\Silo /v Key").contains("Value"));
    let config = &engine.inspect("app")["Config"];
    assert_eq!(config["Cmd"], serde_json::json!(["cmd /S /C type C:\\made\\file.txt"]));
    assert_eq!(config["ArgsEscaped"], true);
    assert_eq!(config["WorkingDir"], "C:\\App");
    let again = built(&engine, &context, &["-t", "app"]);
    assert!(!again.contains("Running in"), "{again}");
}

#[test]
fn stages_of_both_systems_hand_files_on() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    engine.load_busybox();
    let dockerfile = "FROM --platform=linux busybox AS build\n\
        RUN mkdir -p /out/Sub && echo linux > /out/Sub/made.txt\n\
        FROM silo/nanoserver:ltsc2022 AS win\n\
        COPY --from=build /out C:/From/\n\
        RUN type C:\\from\\sub\\MADE.TXT && echo win> C:\\From\\win.txt\n\
        FROM --platform=windows/amd64 scratch AS bare\n\
        COPY --from=win C:/FROM/ /files/\n\
        FROM busybox\n\
        COPY --from=win /from/WIN.txt /w/\n\
        COPY --from=bare /Files/sub/made.txt /m/\n\
        RUN cat /w/WIN.txt /m/made.txt > /both\n";
    let context = context(&engine, &[("Dockerfile", dockerfile)]);
    built(&engine, &context, &["-t", "mixed"]);
    let both = engine.ok(&["run", "--rm", "mixed", "cat", "/both"]);
    assert_eq!(both.replace('\r', ""), "win\nlinux");
    built(&engine, &context, &["--target", "bare", "-t", "bare"]);
    let bare = engine.inspect("bare");
    assert_eq!(bare["Os"], "windows");
    let archive = engine.scratch().join("bare.tar");
    engine.ok(&["save", "-o", archive.to_str().expect("UTF-8"), "bare"]);
    let layer = bare["RootFS"]["Layers"][0].as_str().expect("a layer").replace("sha256:", "");
    let tar = std::process::Command::new("tar")
        .arg("-xOf")
        .arg(&archive)
        .arg(format!("blobs/sha256/{layer}"))
        .output()
        .expect("run tar");
    let names = String::from_utf8_lossy(&tar.stdout).into_owned();
    for name in ["Files/files/Sub/made.txt", "Hives", "MSWINDOWS.fileattr"] {
        assert!(names.contains(name), "{name}");
    }
}

/// What Microsoft's own programs and `hivexsh` would find in the layers of a build.
#[test]
fn other_readers_understand_the_layers() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let base = "mcr.microsoft.com/windows/servercore:ltsc2019";
    let dockerfile = format!(
        "FROM {base}\n\
         COPY tree C:/App/\n\
         RUN attrib +r C:\\App\\a.txt && mklink /d C:\\Link C:\\App && mklink /h C:\\h.txt C:\\App\\b.txt\n\
         RUN reg add HKLM\\SOFTWARE\\App /v Level /t REG_DWORD /d 3 /f && \\\n\
         \x20   reg add HKLM\\SOFTWARE\\App\\Gone /f && reg add HKCU\\Software\\Mine /v Who /d me /f && \\\n\
         \x20   setx /M APP_HOME C:\\App\n\
         RUN reg delete HKLM\\SOFTWARE\\App\\Gone /f && reg add HKLM\\SOFTWARE\\App /v Level /t REG_DWORD /d 4 /f\n\
         RUN del /f C:\\App\\a.txt\n"
    );
    let files = [("Dockerfile", dockerfile.as_str()), ("tree/a.txt", "a\n"), ("tree/b.txt", "b\n")];
    let context = context(&engine, &files);
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-t", "read"];
    built(&engine, &context, &epoch);
    let scratch = engine.scratch();
    let archive = scratch.join("read.tar");
    let archive = archive.to_str().expect("UTF-8");
    engine.ok(&["save", "-o", archive, "read"]);
    let below = engine.inspect("silo/servercore:ltsc2019");
    let below = below["RootFS"]["Layers"].as_array().expect("layers").len();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/product/build/readback.py");
    let output = Command::new("python3")
        .arg(script)
        .args([archive, scratch.to_str().expect("UTF-8"), &below.to_string()])
        .output()
        .expect("run python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let layers: Vec<Vec<Value>> = serde_json::from_slice(&output.stdout).expect("layers");
    let find = |number: usize, name: &str| {
        let found = layers[number].iter().find(|entry| entry["name"] == name);
        found.unwrap_or_else(|| panic!("{name} in {:#?}", layers[number])).clone()
    };
    assert_eq!(layers.len(), 5);
    for name in ["Files/App", "Files/App/a.txt", "Files/App/b.txt"] {
        assert!(find(0, name)["mtime"].as_f64() <= Some(1_700_000_000.0), "{name}");
    }
    assert_eq!(find(1, "Files/App/a.txt")["attributes"].as_u64().map(|bits| bits & 1), Some(1));
    assert_eq!(find(1, "Files/Link")["link"], "App");
    assert!(["hard link", "file"].iter().any(|kind| find(1, "Files/h.txt")["kind"] == *kind));
    assert_eq!(find(4, "Files/App/.wh.a.txt")["kind"], "whiteout");
    for (hive, commands, expected) in [
        ("2/Software_Delta", "cd App\nlsval\n", "\"Level\"=dword:00000003"),
        ("2/Software_Delta", "cd App\nls\n", "Gone"),
        ("2/NTUSER.DAT", "cd Software\\Mine\nlsval Who\n", "me"),
        (
            "2/System_Delta",
            "cd ControlSet001\\Control\\Session Manager\\Environment\nlsval APP_HOME\n",
            "C:\\App",
        ),
        ("3/Software_Delta", "cd App\nlsval\n", "\"Level\"=dword:00000004"),
    ] {
        let found = hivexsh(&scratch.join(hive), commands);
        assert!(found.contains(expected), "{hive}: {commands}: {found}");
    }
    let query = "reg query HKLM\\SOFTWARE\\App & echo %APP_HOME% & dir /b C:\\App C:\\Link";
    let seen = cmd(&engine, "read", query);
    assert!(seen.contains("0x4") && seen.contains("C:\\App \nb.txt\nb.txt"), "{seen}");
    assert!(!seen.contains("Gone"), "{seen}");
}

/// What `hivexsh` says of a hive.
fn hivexsh(hive: &Path, commands: &str) -> String {
    let mut command = Command::new("hivexsh");
    let outcome = feed(command.arg(hive), commands.as_bytes());
    assert_eq!(outcome.code, 0, "{}: {}", hive.display(), outcome.stderr);
    outcome.stdout
}

/// By another engine, at another time, with another command line.
#[test]
fn the_same_windows_build_gives_the_same_layers() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(other) = WindowsEngine::start_or_skip() else { return };
    let dockerfile = "FROM silo/servercore:ltsc2019\n\
        COPY f C:/f.txt\n\
        WORKDIR /work\n\
        RUN echo made> C:\\made.txt && setx /M LEVEL 3\n\
        RUN reg add HKLM\\SOFTWARE\\App /v Level /d 3 /f && reg add HKCU\\Software\\App /v Who /d me /f\n\
        RUN reg delete HKLM\\SOFTWARE\\App /v Level /f && del C:\\made.txt\n";
    let context = context(&engine, &[("Dockerfile", dockerfile), ("f", "f\n")]);
    let arguments = ["--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-t", "same"];
    built(&engine, &context, &arguments);
    let first = engine.inspect("same")["RootFS"].clone();
    let base = engine.inspect("silo/servercore:ltsc2019")["RootFS"].clone();
    let count = |root: &Value| root["Layers"].as_array().expect("layers").len();
    assert_eq!(count(&first), count(&base) + 5);
    built(&engine, &context, &arguments);
    assert_eq!(engine.inspect("same")["RootFS"], first);
    let mut command = other.silo_command();
    let outcome: Outcome =
        command.arg("build").args(arguments).arg(&context).output().expect("run silo").into();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(other.inspect("same")["RootFS"], first);
}

#[test]
fn what_windows_has_not_is_refused() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let base = "FROM silo/nanoserver:ltsc2022\n";
    for (text, message) in [
        (
            "RUN powershell -Command Get-Date\n",
            "Windows PowerShell is not in Silo's Windows containers",
        ),
        ("SHELL [\"powershell\", \"-Command\"]\nRUN Get-Date\n", "Windows PowerShell is not in"),
        ("COPY --chown=1:1 Dockerfile C:/x\n", "--chown is not supported by Windows images"),
        ("COPY Dockerfile D:/x\n", "not on the system drive"),
        ("RUN exit 7\n", "returned a non-zero code: 7"),
        ("USER nobody\nRUN exit 0\n", "unable to find user nobody"),
        ("RUN --mount=type=tmpfs,target=C:/x dir\n", "not supported for Windows"),
    ] {
        let context = context(&engine, &[("Dockerfile", &format!("{base}{text}"))]);
        let outcome = build(&engine, &context, &[]);
        assert_ne!(outcome.code, 0, "{text}: {}", outcome.stdout);
        assert!(outcome.stderr.contains(message), "{text}: {}", outcome.stderr);
    }
}

//! Dockerfiles of Windows images, which Docker has none of on Linux.

use silo_tests::{Engine, WindowsEngine};

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

#[test]
fn the_same_windows_build_gives_the_same_layers() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let dockerfile = "FROM silo/nanoserver:ltsc2022\n\
        COPY f C:/f.txt\n\
        WORKDIR /work\n\
        RUN echo made> C:\\made.txt\n";
    let context = context(&engine, &[("Dockerfile", dockerfile), ("f", "f\n")]);
    for tag in ["one", "two"] {
        let arguments = ["--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-t", tag];
        built(&engine, &context, &arguments);
    }
    assert_eq!(engine.inspect("one")["RootFS"], engine.inspect("two")["RootFS"]);
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

//! The compatibility report, the warning before a program that will not run, and what is said of
//! one that could not be loaded.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;
use silo_tests::{Engine, WindowsEngine, skip, windows_program, windows_programs};

use super::CORE;

/// Programs with something against them, and words of it; all others are good.
const NOT_GOOD: &[(&str, &str, &str)] = &[
    ("bun.exe", "likely", "SaferiIsExecutableFileType"),
    ("dotnet.exe", "likely", "ECDSA"),
    ("pgbench.exe", "likely", "InitializeSynchronizationBarrier"),
    ("uv.exe", "likely", "RegOpenKeyTransactedW"),
    ("uvw.exe", "likely", "no screen"),
];

fn report(engine: &Engine, code: i32, arguments: &[&str]) -> Json {
    let head = ["windows", "check", "--format", "json"];
    let outcome = engine.silo(&[&head[..], arguments].concat());
    assert_eq!(outcome.code, code, "{arguments:?}: {outcome:?}");
    serde_json::from_str(&outcome.stdout).expect("a report as JSON")
}

/// The grade and the reasons of a program in a report.
fn of(report: &Json, name: &str) -> (String, String) {
    let programs = report["Programs"].as_array().expect("programs");
    let found = programs.iter().find(|one| {
        let path = one["Path"].as_str().expect("a path");
        path.rsplit(['\\', '/']).next().is_some_and(|file| file.eq_ignore_ascii_case(name))
    });
    let found = found.unwrap_or_else(|| panic!("{name} in {report}"));
    (found["Grade"].as_str().expect("a grade").to_owned(), found["Reasons"].to_string())
}

/// Compiles a program for Windows; `libraries` are other files of the directory.
fn compile(directory: &Path, name: &str, source: &str, options: &[&str]) -> PathBuf {
    let file = directory.join(name).with_extension("c");
    fs_err::write(&file, source).expect("a source");
    let output = Command::new("x86_64-w64-mingw32-gcc")
        .current_dir(directory)
        .args(["-s", "-o", name])
        .arg(&file)
        .args(options)
        .output()
        .expect("run the cross compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs_err::remove_file(file).expect("remove the source");
    directory.join(name)
}

/// A directory with `lost.exe`, which needs `gone.dll`; that library lies beside, as `gone.bin`.
fn lost(engine: &Engine) -> PathBuf {
    let directory = engine.scratch().join("lost");
    fs_err::create_dir_all(&directory).expect("a directory");
    let library = "__declspec(dllexport) int lost(void) { return 3; }";
    compile(&directory, "gone.dll", library, &["-shared", "-Wl,--out-implib,libgone.a"]);
    let program = "int lost(void); int main(void) { return lost(); }";
    compile(&directory, "lost.exe", program, &["-L.", "-lgone"]);
    fs_err::rename(directory.join("gone.dll"), directory.join("gone.bin")).expect("rename");
    directory
}

/// The program with another number for its processor.
fn for_processor(program: &Path, number: u16, to: &Path) {
    let mut bytes = fs_err::read(program).expect("the program");
    let at = usize::from(bytes[0x3c]) + (usize::from(bytes[0x3d]) << 8) + 4;
    bytes[at..at + 2].copy_from_slice(&number.to_le_bytes());
    fs_err::write(to, bytes).expect("a file");
}

#[test]
fn real_programs_have_the_grades_that_they_deserve() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    for name in windows_programs() {
        let directory = match windows_program(name) {
            Ok(directory) => directory,
            Err(reason) => {
                skip("windows::check::real_programs", &format!("no {name}: {reason}"));
                continue;
            }
        };
        let directory = if name == "postgres" { directory.join("bin") } else { directory };
        let report = report(&engine, 0, &[directory.to_str().expect("UTF-8")]);
        assert_eq!(report["Base"], "silo/servercore:ltsc2025");
        for program in report["Programs"].as_array().expect("programs") {
            let path = program["Path"].as_str().expect("a path");
            let file = path.rsplit('/').next().expect("a name");
            let (grade, reasons) = of(&report, file);
            match NOT_GOOD.iter().find(|(known, ..)| *known == file) {
                Some((_, expected, words)) => {
                    assert_eq!(grade, *expected, "{path}: {reasons}");
                    assert!(reasons.contains(words), "{path}: {reasons}");
                }
                None => assert_eq!((grade.as_str(), reasons.as_str()), ("good", "null"), "{path}"),
            }
        }
    }
}

#[test]
fn bases_are_good() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    for image in [CORE, "silo/nanoserver:ltsc2022", "mcr.microsoft.com/windows/server:ltsc2016"] {
        let report = report(&engine, 0, &[image]);
        assert_eq!(report["Grade"], "good", "{report}");
        assert_eq!(report["Services"], Json::Null, "{report}");
        assert_eq!(report["Programs"].as_array().map(Vec::len), Some(1), "{report}");
    }
    let outcome = engine.silo(&["windows", "check", "silo/wine:latest"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("an image for linux"), "{}", outcome.stderr);
    let outcome = engine.silo(&["windows", "check", "nosuch:1"]);
    assert!(outcome.code == 1 && outcome.stderr.contains("nosuch:1"), "{}", outcome.stderr);
}

#[test]
fn a_missing_library_is_named_before_and_after() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let directory = lost(&engine);
    let files = format!("{}:C:\\lost", directory.display());
    let program = "C:\\lost\\lost.exe";
    let report_of = |code| report(&engine, code, &[directory.to_str().expect("UTF-8")]);
    let (grade, reasons) = of(&report_of(2), "lost.exe");
    assert_eq!(grade, "no");
    assert!(reasons.contains("gone.dll is missing"), "{reasons}");

    let outcome = engine.docker(&["run", "--rm", "-v", &files, CORE, program]);
    assert_eq!(outcome.code, 0x35, "{outcome:?}");
    for words in [
        "WARNING: C:\\lost\\lost.exe will not run: gone.dll is missing",
        "silo: C:\\lost\\lost.exe cannot be loaded\n  gone.dll is missing",
        "-> add gone.dll to the image, beside the program",
    ] {
        assert!(outcome.stderr.contains(words), "{words}: {}", outcome.stderr);
    }
    // The same in an exec, in what `cmd` starts, and in the log.
    let name = engine.name("a");
    engine.docker(&["run", "--name", &name, "-v", &files, CORE, "cmd", "/c", program]);
    let log = engine.docker(&["logs", &name]).stderr;
    assert!(log.contains("lost.exe cannot be loaded\n  gone.dll is missing"), "{log}");
    let name = engine.name("b");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "-v",
        &files,
        CORE,
        "ping",
        "-n",
        "999",
        "127.0.0.1",
    ]);
    let outcome = engine.docker(&["exec", &name, program]);
    assert!(outcome.stderr.contains("gone.dll is missing"), "{outcome:?}");

    // In an image, and once the library is there.
    let name = engine.name("c");
    engine.docker(&["create", "--name", &name, CORE, program]);
    engine.ok(&["cp", directory.to_str().expect("UTF-8"), &format!("{name}:/")]);
    let image = format!("{}:1", engine.name("lost"));
    engine.ok(&["commit", &name, &image]);
    let found = report(&engine, 2, &[&image]);
    assert_eq!((&found["Grade"], &found["Base"]), (&"no".into(), &CORE.into()), "{found}");
    assert_eq!(found["Command"], program);
    let outcome = engine.docker(&["create", &image]);
    assert!(outcome.stderr.contains("gone.dll is missing"), "{outcome:?}");

    fs_err::rename(directory.join("gone.bin"), directory.join("gone.dll")).expect("rename");
    assert_eq!(of(&report_of(0), "lost.exe").0, "good");
    let outcome = engine.docker(&["run", "--rm", "-v", &files, CORE, program]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (3, ""));
}

#[test]
fn functions_that_wine_lacks_are_named() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let directory = engine.scratch().join("half");
    fs_err::create_dir_all(&directory).expect("a directory");
    let definition = "LIBRARY kernel32.dll\nEXPORTS\nInitializeSynchronizationBarrier\n";
    fs_err::write(directory.join("k.def"), definition).expect("a file");
    let output = Command::new("x86_64-w64-mingw32-dlltool")
        .current_dir(&directory)
        .args(["-d", "k.def", "-l", "libbarrier.a"])
        .output()
        .expect("run dlltool");
    assert!(output.status.success(), "{output:?}");
    let source = "int InitializeSynchronizationBarrier(void *, int, int);
        int main(int count, char **words)
        { return count > 1 ? InitializeSynchronizationBarrier(words, 2, -1) : 7; }";
    compile(&directory, "half.exe", source, &["-L.", "-lbarrier"]);
    let found = report(&engine, 0, &[directory.join("half.exe").to_str().expect("UTF-8")]);
    let (grade, reasons) = of(&found, "half.exe");
    assert_eq!(grade, "likely");
    assert!(reasons.contains("kernel32.dll!InitializeSynchronizationBarrier"), "{reasons}");

    // It runs, without a warning, until it calls the function.
    let files = format!("{}:C:\\half", directory.display());
    let run = |words: &[&str]| {
        let head = ["run", "--rm", "-v", &files, CORE, "C:\\half\\half.exe"];
        engine.docker(&[&head[..], words].concat())
    };
    let outcome = run(&[]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (7, ""));
    let outcome = run(&["x"]);
    let words = "silo: C:\\half\\half.exe called what Wine does not have: kernel32.dll!Initialize";
    assert!(outcome.stderr.contains(words), "{outcome:?}");
    // The code's last byte is zero, which is no success.
    let arguments =
        ["run", "--rm", "-v", &files, CORE, "C:\\half\\half.exe", "x"].map(str::to_owned);
    assert_eq!(engine.silo(&arguments).code, 255);
}

#[test]
fn programs_for_other_systems_are_warned_of() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let directory = engine.scratch().join("other");
    fs_err::create_dir_all(&directory).expect("a directory");
    let plain = compile(&directory, "plain.exe", "int main(void) { return 4; }", &[]);
    for_processor(&plain, 0xaa64, &directory.join("arm.exe"));
    compile(&directory, "gui.exe", "int main(void) { return 5; }", &["-mwindows"]);
    fs_err::write(directory.join("dos.exe"), "MZ and no more").expect("a file");
    fs_err::write(directory.join("cut.exe"), &fs_err::read(&plain).expect("it")[..0x300])
        .expect("a file");
    fs_err::copy("/bin/true", directory.join("elf.exe")).expect("a Linux program");
    let found = report(&engine, 2, &[directory.to_str().expect("UTF-8")]);
    let files = format!("{}:C:\\other:ro", directory.display());
    for (name, grade, words, code) in [
        ("plain.exe", "good", "null", Some(4)),
        ("gui.exe", "likely", "no screen", Some(5)),
        ("arm.exe", "no", "for another processor: 64-bit ARM", Some(126)),
        ("dos.exe", "no", "a program for DOS", Some(126)),
        ("cut.exe", "no", "damaged", Some(126)),
        ("elf.exe", "no", "a program for Linux", None),
    ] {
        let (found, reasons) = of(&found, name);
        assert_eq!(found, grade, "{name}: {reasons}");
        assert!(reasons.contains(words), "{name}: {reasons}");
        let path = format!("C:\\other\\{name}");
        let outcome = engine.docker(&["run", "--rm", "-v", &files, CORE, &path]);
        if let Some(code) = code {
            assert_eq!(outcome.code, code, "{name}: {outcome:?}");
        }
        let warned = outcome.stderr.contains(&format!("WARNING: {path} will not run: "));
        assert_eq!(warned, grade == "no", "{name}: {}", outcome.stderr);
        assert!(!warned || outcome.stderr.contains(words), "{name}: {}", outcome.stderr);
    }
    // A report for people says the same, and ends as badly.
    let outcome = engine.silo(&["windows", "check", directory.to_str().expect("UTF-8")]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.stdout.contains("\nno        "), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("-> use the program's version for x64"), "{}", outcome.stdout);
}

#[test]
fn services_and_placeholders_of_images() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let key = "HKLM\\SYSTEM\\CurrentControlSet\\Services";
    let add = |service: &str, name: &str, kind: &str, value: &str| {
        format!("reg add {key}\\{service} /v {name} /t {kind} /d {value} /f")
    };
    let commands = [
        "reg add HKLM\\SOFTWARE\\Microsoft\\InetStp /v MajorVersion /t REG_DWORD /d 10 /f"
            .to_owned(),
        add("SiloDrv", "Type", "REG_DWORD", "1"),
        add("SiloDrv", "Start", "REG_DWORD", "2"),
        add("SiloDrv", "ImagePath", "REG_SZ", "system32\\drivers\\silodrv.sys"),
        add("SiloSvc", "Type", "REG_DWORD", "16"),
        add("SiloSvc", "Start", "REG_DWORD", "3"),
        add("SiloSvc", "ImagePath", "REG_SZ", "C:\\Windows\\System32\\where.exe"),
    ];
    let name = engine.name("services");
    let line = commands.join(" && ");
    engine.ok(&["run", "--name", &name, CORE, "cmd", "/c", &line]);
    let image = format!("{}:1", engine.name("services"));
    engine.ok(&["commit", "-c", "CMD [\"powershell\", \"-Command\", \"exit\"]", &name, &image]);
    let found = report(&engine, 2, &[&image]);
    let (grade, reasons) = of(&found, "powershell.exe");
    assert_eq!(grade, "no");
    assert!(reasons.contains("needs .NET Framework"), "{reasons}");
    let services: Vec<_> = found["Services"]
        .as_array()
        .expect("services")
        .iter()
        .map(|s| {
            [&s["Name"], &s["Kind"], &s["Start"], &s["Grade"]].map(|v| v.as_str().unwrap_or(""))
        })
        .collect();
    assert_eq!(
        services,
        [["SiloDrv", "driver", "auto", "no"], ["SiloSvc", "program", "demand", "good"]]
    );
    let reasons = found["Reasons"].to_string();
    for words in ["will not run: SiloDrv", "IIS is installed"] {
        assert!(reasons.contains(words), "{words}: {found}");
    }
    let outcome = engine.docker(&["create", &image]);
    assert!(outcome.stderr.contains("powershell.exe will not run"), "{outcome:?}");
}

#[test]
fn files_are_checked_without_a_set_up() {
    let engine = Engine::start_empty();
    if !engine.is_silo_or_skip("Windows containers on Linux are Silo's") {
        return;
    }
    let directory = lost(&engine);
    let program = directory.join("lost.exe");
    let program = program.to_str().expect("UTF-8");
    // What needs no libraries to be known is known.
    for_processor(Path::new(program), 0xaa64, &directory.join("arm.exe"));
    let found = report(&engine, 2, &[directory.join("arm.exe").to_str().expect("UTF-8")]);
    assert_eq!(of(&found, "arm.exe").0, "no");
    let found = report(&engine, 0, &[program]);
    let left_out = found["LeftOut"].to_string();
    assert!(left_out.contains("silo windows setup"), "{left_out}");

    let outcome = engine.silo(&["windows", "check", CORE]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("silo windows setup"), "{}", outcome.stderr);
    let outcome = engine.silo(&["windows", "check", "/nonexistent/x.exe"]);
    assert!(outcome.code == 1 && outcome.stderr.contains("/nonexistent/x.exe"), "{outcome:?}");
}

//! Programs on a small drive, from their files to the verdict.

use std::path::{Path, PathBuf};

use silo_pe::sample::{Builder, Export};
use silo_pe::{Import, Symbol};
use tempfile::TempDir;

use super::*;

fn import(library: &str, delayed: bool, functions: &[&str]) -> Import {
    let functions = functions.iter().map(|name| Symbol::Name((*name).to_owned())).collect();
    Import { library: library.to_owned(), delayed, functions }
}

fn program(imports: Vec<Import>) -> Builder {
    Builder { imports, ..Builder::default() }
}

/// A drive with a `kernel32.dll` of Wine's for both widths, and files.
fn drive(files: &[(&str, Builder)]) -> (TempDir, Drive) {
    let directory = tempfile::tempdir().unwrap();
    let put = |path: &str, file: &Builder| {
        let path = directory.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, file.build()).unwrap();
    };
    for (place, wide, machine) in [("System32", true, 0x8664), ("SysWOW64", false, 0x14c)] {
        let library = Builder {
            wide,
            machine,
            wine: true,
            library: "kernel32.dll",
            exports: vec![
                ("ExitProcess", Export::Code),
                ("Half", Export::Stub("kernel32.dll")),
                ("Away", Export::Forward("kernelbase.Away")),
                ("Loop", Export::Forward("kernel32.Loop")),
            ],
            ..Builder::default()
        };
        put(&format!("Windows/{place}/kernel32.dll"), &library);
    }
    for (path, file) in files {
        put(path, file);
    }
    let drive = Drive::new(silo_sys::path::open_root(directory.path()).unwrap());
    (directory, drive)
}

/// The verdict on one program.
fn verdict(files: &[(&str, Builder)], path: &str) -> Verdict {
    let (_directory, mut drive) = drive(files);
    let survey = survey(&mut drive, &[PathBuf::from(path)], &[vec!["tools".into()]]).unwrap();
    let answers = answers(&mut drive, &survey.needs, true).unwrap();
    let around = Surroundings::of(&mut drive).unwrap();
    judge(&survey.programs[0], path.to_owned(), &survey.needs, Some(&answers), &around)
}

/// Asserts grade and words of the first reason.
#[track_caller]
fn expect(files: &[(&str, Builder)], grade: Grade, words: &str) {
    let verdict = verdict(files, files[0].0);
    assert_eq!(verdict.grade, grade, "{verdict:?}");
    let text = verdict.reasons.first().map_or("", |reason| reason.text.as_str());
    assert!(text.contains(words), "{words:?} in {verdict:?}");
}

#[test]
fn what_it_needs_is_there() {
    let all = vec![import("KERNEL32.DLL", false, &["ExitProcess"]), import("Own.dll", false, &[])];
    expect(
        &[("app/x.exe", program(all.clone())), ("app/OWN.dll", program(vec![]))],
        Grade::Good,
        "",
    );
    expect(&[("app/x.exe", program(all)), ("tools/own.dll", program(vec![]))], Grade::Good, "");
    let narrow = Builder { wide: false, machine: 0x14c, ..program(vec![]) };
    let imports = vec![import("kernel32.dll", false, &["ExitProcess"])];
    expect(&[("x.exe", Builder { imports, ..narrow })], Grade::Good, "");
}

#[test]
fn libraries_that_are_nowhere() {
    expect(
        &[("app/x.exe", program(vec![import("gone.dll", false, &["f"])]))],
        Grade::No,
        "gone.dll is missing",
    );
    // Through a library of its own.
    let own = program(vec![import("gone.dll", false, &[])]);
    expect(
        &[("app/x.exe", program(vec![import("own.dll", false, &[])])), ("app/own.dll", own)],
        Grade::No,
        "(own.dll needs it)",
    );
    expect(
        &[("x.exe", program(vec![import("late.dll", true, &["f"])]))],
        Grade::Likely,
        "what needs late.dll fails",
    );
    let imports = vec![import("api-ms-win-none-l1-1-0.dll", false, &["f"])];
    expect(&[("x.exe", program(imports))], Grade::No, "api-ms-win-none");
    // Two that need each other end the search all the same.
    let (one, two) = (import("one.dll", false, &[]), import("two.dll", false, &[]));
    let files = [
        ("x.exe", program(vec![one.clone()])),
        ("one.dll", program(vec![two])),
        ("two.dll", program(vec![one])),
    ];
    expect(&files, Grade::Good, "");
}

#[test]
fn functions_that_wine_lacks() {
    for function in ["Half", "None", "Away", "Loop"] {
        let imports = vec![import("kernel32.dll", false, &["ExitProcess", function])];
        expect(
            &[("x.exe", program(imports))],
            Grade::Likely,
            &format!("it ends if it calls what Wine does not have: kernel32.dll!{function}"),
        );
    }
    let imports = vec![import("kernel32.dll", true, &["Half"])];
    expect(&[("x.exe", program(imports))], Grade::Likely, "what needs kernel32.dll!Half fails");
}

#[test]
fn libraries_for_another_processor() {
    let narrow = Builder { wide: false, machine: 0x14c, ..program(vec![]) };
    expect(
        &[("x.exe", program(vec![import("own.dll", false, &[])])), ("own.dll", narrow)],
        Grade::No,
        "own.dll, which comes with it, cannot be loaded: it is 32-bit x86",
    );
}

#[test]
fn programs_of_other_kinds() {
    let of = |machine: u16, subsystem: u16| Builder { machine, subsystem, ..program(vec![]) };
    expect(&[("x.exe", of(0xaa64, 3))], Grade::No, "64-bit ARM");
    expect(&[("x.exe", of(0x200, 3))], Grade::No, "Itanium");
    expect(&[("x.sys", of(0x8664, 1))], Grade::No, "driver of the Windows kernel");
    expect(&[("x.efi", of(0x8664, 10))], Grade::No, "firmware");
    expect(&[("x.exe", of(0x8664, 2))], Grade::Likely, "no screen");
    expect(&[("w3wp.exe", of(0x8664, 3))], Grade::No, "HTTP.sys");
    expect(&[("PowerShell.exe", of(0x8664, 3))], Grade::No, ".NET Framework");
    let wines = Builder { wine: true, ..of(0x8664, 3) };
    expect(&[("powershell.exe", wines)], Grade::No, "does nothing");
    let net = |names: &[&'static str]| Builder { clr: Some(names.to_vec()), ..of(0x14c, 3) };
    expect(&[("x.exe", net(&["mscorlib"]))], Grade::No, ".NET Framework (v4.0.30319)");
    expect(&[("x.exe", net(&["System.Runtime"]))], Grade::Good, "");
    let mono = ("Windows/mono/mono-2.0/x.dll", program(vec![]));
    expect(&[("x.exe", net(&["mscorlib"])), mono], Grade::Likely, "Mono");
}

#[test]
fn files_that_are_no_programs() {
    let (directory, mut drive) = drive(&[]);
    for (name, content, grade, words) in [
        ("a.exe", &b"\x7fELF\x02"[..], Grade::No, "for Linux"),
        ("b.exe", b"MZ", Grade::No, "for DOS"),
        ("c.exe", b"hello", Grade::No, "no program"),
        ("d.bat", b"@echo off", Grade::Good, ""),
        ("e.ps1", b"echo x", Grade::No, "no program"),
    ] {
        fs_err::write(directory.path().join(name), content).unwrap();
        let verdict = glance(&mut drive, None, Path::new(name), &[]).unwrap().unwrap();
        assert_eq!(verdict.grade, grade, "{verdict:?}");
        assert!(verdict.reasons.first().map_or("", |r| &r.text).contains(words), "{verdict:?}");
    }
    let mut cut = program(vec![import("a.dll", false, &["f"])]).build();
    cut.truncate(0x420);
    fs_err::write(directory.path().join("f.exe"), cut).unwrap();
    let verdict = glance(&mut drive, None, Path::new("f.exe"), &[]).unwrap().unwrap();
    assert_eq!((verdict.grade, verdict.kind.as_str()), (Grade::No, "a damaged file"));
    assert!(glance(&mut drive, None, Path::new("none.exe"), &[]).unwrap().is_none());
}

#[test]
fn images_have_the_grade_of_their_command() {
    let (_directory, mut drive) = drive(&[
        ("app/good.exe", program(vec![import("kernel32.dll", false, &["ExitProcess"])])),
        ("app/bad.exe", program(vec![import("gone.dll", false, &[])])),
        ("ServiceMonitor.exe", program(vec![])),
    ]);
    let mut report = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let input = Assessment {
            subject: "app:1".into(),
            command: Command { words: &words, escaped: false, path: "C:\\app", directory: "" },
            programs: vec!["app/good.exe".into(), "app/bad.exe".into()],
            services: Vec::new(),
            reasons: Vec::new(),
            left_out: Vec::new(),
        };
        assess(&mut drive, input).unwrap()
    };
    for (words, grade, first) in [
        (&["good"][..], Grade::Good, "C:\\app\\good.exe"),
        (&["C:\\app\\BAD.exe"], Grade::No, "C:\\app\\bad.exe"),
        (&["cmd", "/c", "bad x"], Grade::No, "C:\\app\\bad.exe"),
        (&["C:\\ServiceMonitor.exe", "w3svc"], Grade::No, "C:\\ServiceMonitor.exe"),
        (&["none.exe"], Grade::No, "C:\\app\\good.exe"),
        (&[], Grade::Likely, "C:\\app\\good.exe"),
    ] {
        let report = report(words);
        assert_eq!(report.grade, grade, "{words:?}: {report:?}");
        assert_eq!(report.programs[0].path, first, "{words:?}");
    }
}

#[test]
fn services_have_the_grade_of_their_programs() {
    let (_directory, mut drive) =
        drive(&[("app/bad.exe", program(vec![import("gone.dll", false, &[])]))]);
    let service = |start: &str| Service {
        name: start.to_owned(),
        start: start.to_owned(),
        kind: "program".into(),
        program: "\"C:\\app\\bad.exe\" -run".into(),
        grade: Grade::Good,
        reasons: Vec::new(),
    };
    let words = [String::from("C:\\Windows\\System32\\kernel32.dll")];
    let input = Assessment {
        subject: "app:1".into(),
        command: Command { words: &words, escaped: false, path: "", directory: "" },
        programs: Vec::new(),
        services: vec![service("auto"), service("demand")],
        reasons: Vec::new(),
        left_out: Vec::new(),
    };
    let report = assess(&mut drive, input).unwrap();
    assert!(report.services.iter().all(|service| service.grade == Grade::No));
    assert_eq!(report.grade, Grade::Likely);
    assert!(report.reasons[0].text.ends_with("will not run: auto"), "{report:?}");
}

#[test]
fn ends_are_explained() {
    let (_directory, mut drive) = drive(&[
        ("app/bad.exe", program(vec![import("gone.dll", false, &[])])),
        ("app/half.exe", program(vec![import("kernel32.dll", false, &["Half"])])),
    ]);
    let mut explain = |line: &str, code| {
        let words = [line.to_owned()];
        let command = Command { words: &words, escaped: true, path: "", directory: "C:\\app" };
        explain_end(&mut drive, &command, code)
    };
    for (line, code, words) in [
        ("bad.exe -x", 0xC000_0135, "C:\\app\\bad.exe cannot be loaded\n  gone.dll is missing"),
        ("half.exe", 0x8000_0100, "called what Wine does not have: kernel32.dll!Half"),
        ("half.exe", 0xC000_0135, "is missing (0xc0000135)"),
        ("none.exe", 0xC000_007B, "damaged, or for another processor (0xc000007b)"),
    ] {
        let text = explain(line, code).unwrap();
        assert!(text.contains(words), "{line} {code:#x}: {text}");
    }
    assert_eq!(explain("bad.exe", 1), None);
    assert_eq!(explain("bad.exe", 0xC000_0005), None);
}

#[test]
fn reports_are_told_and_read() {
    let (_directory, mut drive) = drive(&[("x.exe", program(vec![import("a.dll", false, &[])]))]);
    let verdict = glance(&mut drive, None, Path::new("x.exe"), &[]).unwrap().unwrap();
    let text = serde_json::to_string(&verdict).unwrap();
    assert!(text.contains("\"Grade\":\"no\""), "{text}");
    assert_eq!(serde_json::from_str::<Verdict>(&text).unwrap(), verdict);
}

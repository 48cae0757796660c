//! `silo hive`, which needs no engine: what it writes is read by hivex, and the other way round.

use std::path::Path;
use std::process::Command;

use silo_tests::{Outcome, real_hives, silo_binary, skip};

/// Runs `silo hive` in a directory.
fn hive(directory: &Path, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(silo_binary());
    command.arg("hive").args(arguments).current_dir(directory);
    run(&mut command)
}

fn run(command: &mut Command) -> Outcome {
    command.output().expect("run a program").into()
}

/// Runs it, and must succeed.
fn done(directory: &Path, arguments: &[&str]) -> String {
    let outcome = hive(directory, arguments);
    assert_eq!(outcome.code, 0, "{arguments:?}: {}", outcome.stderr);
    outcome.stdout
}

fn fails(directory: &Path, arguments: &[&str], message: &str) {
    let outcome = hive(directory, arguments);
    assert_ne!(outcome.code, 0, "{arguments:?}: {}", outcome.stdout);
    assert!(outcome.stderr.contains(message), "{arguments:?}: {}", outcome.stderr);
}

#[test]
fn values_of_every_type() {
    let temporary = tempfile::tempdir().expect("a directory");
    let at = temporary.path();
    done(at, &["set", "-c", "SOFTWARE", "Vendor\\App"]);
    for (name, kind, data, shown, plain) in [
        ("text", "SZ", &["Käse \\ \"x\""][..], "REG_SZ \"Käse \\ \"x\"\"", "Käse \\ \"x\"\n"),
        ("path", "expand_sz", &["%TEMP%"], "REG_EXPAND_SZ \"%TEMP%\"", "%TEMP%\n"),
        ("list", "MULTI_SZ", &["a", "b"], "REG_MULTI_SZ \"a\", \"b\"", "a\nb\n"),
        ("number", "DWORD", &["0x2a"], "REG_DWORD 0x2a (42)", "42\n"),
        (
            "large",
            "QWORD",
            &["18446744073709551615"],
            "0xffffffffffffffff",
            "18446744073709551615\n",
        ),
        ("bytes", "BINARY", &["00,ff 10"], "REG_BINARY 00ff10", "00ff10\n"),
        ("other", "0xffff0012", &["01"], "0xffff0012 01", "01\n"),
        ("", "SZ", &["default"], "@ REG_SZ \"default\"", "default\n"),
    ] {
        let mut arguments = vec!["set", "-t", kind, "SOFTWARE", "vendor\\APP", name];
        arguments.extend(data);
        done(at, &arguments);
        assert_eq!(done(at, &["get", "SOFTWARE", "Vendor\\App", name]), plain);
        let all = done(at, &["dump", "SOFTWARE"]);
        assert!(all.contains("[Vendor\\App]\n") && all.contains(shown), "{all}");
    }
    assert_eq!(done(at, &["get", "SOFTWARE", "vendor\\app"]).lines().count(), 8);
    assert_eq!(done(at, &["get", "-r", "SOFTWARE", "Vendor\\App", "number"]), "*\0\0\0");
    done(at, &["set", "-d", "SOFTWARE", "Vendor\\App", "text"]);
    fails(at, &["get", "SOFTWARE", "Vendor\\App", "text"], "no value \"text\" in key");
    done(at, &["set", "-d", "SOFTWARE", "Vendor"]);
    assert_eq!(done(at, &["dump", "SOFTWARE"]), "[]\n");
    assert_eq!(fs_err::read_dir(at).expect("the directory").count(), 1, "something is left aside");
}

#[test]
fn mistakes_name_the_thing() {
    let temporary = tempfile::tempdir().expect("a directory");
    let at = temporary.path();
    fs_err::write(at.join("text"), "not a hive at all").expect("a file");
    done(at, &["set", "-c", "good", "A"]);
    let mut cut = fs_err::read(at.join("good")).expect("the hive");
    cut.truncate(5000);
    fs_err::write(at.join("cut"), &cut).expect("a file");
    fails(at, &["dump", "absent"], "failed to open file `absent`: No such file or directory");
    fails(at, &["dump", "text"], "text: not a registry hive: it does not start with \"regf\"");
    fails(at, &["dump", "cut"], "cut: not a registry hive: it ends before its last bin");
    fails(at, &["dump", "."], ". is a directory");
    fails(at, &["dump", "good", "B"], "no key \"B\" in good");
    fails(at, &["set", "absent", "A"], "failed to open file `absent`");
    fails(at, &["set", "-t", "float", "good", "A", "v", "1"], "unknown value type \"float\"");
    fails(at, &["set", "-t", "DWORD", "good", "A", "v", "4294967296"], "invalid REG_DWORD");
    fails(at, &["set", "good", "A", "v", "1", "2"], "REG_SZ takes one word of data");
    fails(at, &["set", "-d", "good", "B"], "no key \"B\" in good");
    fails(at, &["merge", "good", "good"], "good is not a differencing hive");
    fails(at, &["export", "-f", "xml", "good"], "unknown format \"xml\"");
    fails(at, &["import", "good", "text"], "text: not a registry editor file");
    done(at, &["diff", "-o", "delta", "good", "good"]);
    fails(at, &["set", "delta", "A"], "delta is a differencing hive: merge it with its base");
    fails(at, &["diff", "good", "delta"], "delta is a differencing hive");
    assert!(done(at, &["--help"]).contains("Read and change registry hives of Windows"));
    assert!(done(at, &["set", "--help"]).contains("Usage:  silo hive set [OPTIONS] FILE KEY"));
}

/// What hivex reads of a hive and the differencing hives over it; `None` where it is not
/// installed.
#[track_caller]
fn independent(at: &Path, files: &[&str]) -> Option<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/product/hive/merge.py");
    let mut command = Command::new("/usr/bin/python3");
    let read = run(command.arg(&script).args(files).current_dir(at));
    if read.stderr.contains("No module named 'hivex'") {
        return None;
    }
    assert_eq!(read.code, 0, "{files:?}: {}", read.stderr);
    Some(read.stdout)
}

/// Three changes of a registry, one over the other.
const STEPS: [&str; 4] = [
    "[HKEY_LOCAL_MACHINE\\SOFTWARE\\Keep]\n\"a\"=\"1\"\n\"b\"=dword:00000001\n\
     [HKEY_LOCAL_MACHINE\\SOFTWARE\\Gone\\Below]\n@=\"x\"\n\
     [HKEY_LOCAL_MACHINE\\SOFTWARE\\Again\\Old]\n\"v\"=hex:01,02,03,04,05\n",
    "[-HKEY_LOCAL_MACHINE\\SOFTWARE\\Gone]\n\
     [HKEY_LOCAL_MACHINE\\SOFTWARE\\Keep]\n\"b\"=-\n\"c\"=hex(7):61,00,00,00,00,00\n\
     [HKEY_LOCAL_MACHINE\\SOFTWARE\\New\\Deep]\n\"v\"=hex(b):01,00,00,00,00,00,00,00\n",
    "[-HKEY_LOCAL_MACHINE\\SOFTWARE\\Again]\n[HKEY_LOCAL_MACHINE\\SOFTWARE\\Again]\n\"n\"=\"2\"\n\
     [HKEY_LOCAL_MACHINE\\SOFTWARE\\Keep]\n\"A\"=\"changed\"\n",
    "[HKEY_LOCAL_MACHINE\\SOFTWARE\\Gone]\n\"back\"=\"3\"\n\
     [-HKEY_LOCAL_MACHINE\\SOFTWARE\\New\\Deep]\n",
];

#[test]
fn layers_are_merged_as_an_independent_reader_does() {
    let temporary = tempfile::tempdir().expect("a directory");
    let at = temporary.path();
    for (number, step) in STEPS.iter().enumerate() {
        let text = format!("Windows Registry Editor Version 5.00\n\n{step}");
        fs_err::write(at.join("step.reg"), text).expect("a file");
        let state = format!("state{number}");
        if number == 0 {
            done(at, &["import", "-c", "--root", "HKLM\\SOFTWARE", &state, "step.reg"]);
            continue;
        }
        let before = format!("state{}", number - 1);
        let arguments = ["import", "--root", "HKLM\\SOFTWARE", "-o", &state, &before, "step.reg"];
        done(at, &arguments);
        done(at, &["diff", "--times", "-o", &format!("delta{number}"), &before, &state]);
    }
    let changes = done(at, &["diff", "state0", "state1"]);
    assert_eq!(
        changes,
        "- [Gone]\n- [Keep] \"b\" REG_DWORD 0x1 (1)\n+ [Keep] \"c\" REG_MULTI_SZ \"a\"\n\
         + [New]\n+ [New\\Deep]\n+ [New\\Deep] \"v\" REG_QWORD 0x1 (1)\n"
    );
    let all = ["merge", "-o", "merged", "state0", "delta1", "delta2", "delta3"];
    done(at, &all);
    assert_eq!(done(at, &["diff", "--times", "merged", "state3"]), "");
    done(at, &["merge", "-o", "upper", "delta1", "delta2", "delta3"]);
    done(at, &["merge", "-o", "merged2", "state0", "upper"]);
    assert_eq!(done(at, &["diff", "--times", "merged2", "state3"]), "");
    let shown = done(at, &["dump", "-v", "delta1"]);
    assert!(shown.starts_with("; differencing hive, version 1.6, clean, "), "{shown}");
    assert!(shown.contains("[Gone] (deleted)") && shown.contains("\"b\" (deleted)"), "{shown}");

    let Some(expected) = independent(at, &["state3"]) else {
        return skip("hive::layers (independent reader)", "python3-hivex is not installed");
    };
    for files in [
        &["state0", "delta1", "delta2", "delta3"][..],
        &["state0", "upper"],
        &["merged"],
        &["merged2"],
    ] {
        assert_eq!(independent(at, files).as_ref(), Some(&expected), "{files:?}");
    }
}

#[test]
fn wines_registry_and_reg_files_hold_the_same() {
    let temporary = tempfile::tempdir().expect("a directory");
    let at = temporary.path();
    let text = "WINE REGISTRY Version 2\n;; All keys relative to REGISTRY\\\\Machine\n\n\
                #arch=win64\n\n[Software\\\\App] 1700000000\n#time=1da1747c66d0000\n\
                \"n\"=dword:00000007\n\"s\"=\"caf\\x00e9\"\n";
    fs_err::write(at.join("system.reg"), text).expect("a file");
    assert_eq!(done(at, &["get", "system.reg", "software\\app", "s"]), "café\n");
    done(at, &["set", "system.reg", "Software\\App", "new", "x"]);
    let changed = fs_err::read_to_string(at.join("system.reg")).expect("the file");
    assert!(
        changed.contains("#arch=win64") && changed.contains("\"new\"=\"x\"\n\"s\"="),
        "{changed}"
    );

    done(at, &["export", "-f", "regf", "-o", "SOFTWARE", "system.reg", "Software"]);
    assert_eq!(done(at, &["get", "SOFTWARE", "App", "n"]), "7\n");
    done(at, &["export", "-o", "out.reg", "SOFTWARE"]);
    let utf16 = fs_err::read(at.join("out.reg")).expect("the file");
    assert!(utf16.starts_with(b"\xFF\xFEW\0i\0n\0"));
    done(at, &["import", "-c", "--root", "HKLM\\SOFTWARE", "again", "out.reg"]);
    assert_eq!(done(at, &["diff", "SOFTWARE", "again"]), "");
    let reg4 = done(at, &["export", "-f", "reg4", "SOFTWARE", "App"]);
    assert!(reg4.starts_with("REGEDIT4\r\n\r\n[HKEY_LOCAL_MACHINE\\SOFTWARE\\App]\r\n"), "{reg4}");
    done(at, &["export", "-f", "wine", "-o", "wine.reg", "again"]);
    assert_eq!(done(at, &["get", "wine.reg", "App", "new"]), "x\n");
}

/// What is read of a real hive, written and read again is the same, for us and for hivex.
#[track_caller]
fn comes_back(at: &Path, hive: &Path) {
    let name = hive.display().to_string();
    done(at, &["export", "-f", "regf", "-o", "copy", &name]);
    done(at, &["export", "-f", "regf", "-o", "again", "copy"]);
    let (first, second) = (done(at, &["dump", &name]), done(at, &["dump", "copy"]));
    assert!(first == second, "{name} is not the same");
    assert_eq!(done(at, &["diff", "--times", &name, "copy"]), "", "{name}");
    let bytes = |file: &str| fs_err::read(at.join(file)).expect("a file");
    assert!(bytes("copy") == bytes("again"), "{name} is written in two ways");
    let shown = done(at, &["dump", "-v", &name]);
    let clean = shown.lines().next().is_some_and(|head| head.contains("clean"));
    let (original, copy) = (independent(at, &[&name]), independent(at, &["copy"]));
    let (Some(original), Some(copy)) = (original, copy) else {
        return skip("hive::comes_back (independent reader)", "python3-hivex is not installed");
    };
    // hivex knows nothing of logs.
    assert!(original == copy || !clean, "{name} is another for hivex");
}

/// The directory of a package's hives. Where it cannot be had the test counts as skipped.
fn package(test: &str, name: &str) -> Option<std::path::PathBuf> {
    real_hives(name).map_err(|reason| skip(test, &format!("no {name}: {reason}"))).ok()
}

#[test]
fn real_hives_come_back() {
    let temporary = tempfile::tempdir().expect("a directory");
    let at = temporary.path();
    let test = "hive::real_hives_come_back";
    if let Some(hives) = package(test, "nt-hive") {
        comes_back(at, &hives.join("testhive"));
    }
    if let Some(hives) = package(test, "nt_hive2") {
        comes_back(at, &hives.join("testhive"));
        comes_back(at, &hives.join("NewDirtyHive1/RecoveredHive_Windows10"));
    }
    if let Some(hives) = package(test, "dissect.regf") {
        let system = at.join("SYSTEM");
        let packed = Command::new("gzip").arg("-dc").arg(hives.join("SYSTEM.gz")).output();
        fs_err::write(&system, packed.expect("run gzip").stdout).expect("a file");
        comes_back(at, &system);
        let keys = done(at, &["dump", "SYSTEM"]).lines().filter(|l| l.starts_with('[')).count();
        assert_eq!(keys, 33_317);
    }
    // More of them, for those who have some.
    let Some(more) = std::env::var_os("SILO_TEST_HIVES") else { return };
    for file in fs_err::read_dir(std::path::PathBuf::from(more)).expect("the directory") {
        let path = file.expect("a file").path();
        if path.is_file() && !path.to_string_lossy().to_uppercase().contains(".LOG") {
            comes_back(at, &path);
        }
    }
}

/// Hives that were in use when they were copied, with the logs beside them.
#[test]
fn logs_complete_real_hives_as_windows_does() {
    let Some(hives) = package("hive::logs_complete_real_hives", "nt_hive2") else { return };
    let temporary = tempfile::tempdir().expect("a directory");
    let at = temporary.path();
    for name in ["NewDirtyHive1", "NewDirtyHive2"] {
        let file = hives.join(name).join("NewDirtyHive");
        comes_back(at, &file);
        let path = file.display().to_string();
        let shown = done(at, &["dump", "-v", &path]);
        assert!(shown.contains("completed from its logs, 5 keys"), "{shown}");
        // Without the logs it is another.
        fs_err::copy(&file, at.join("alone")).expect("copy");
        let alone = hive(at, &["diff", "alone", &path]);
        assert!(alone.code != 0 || !alone.stdout.is_empty(), "{name}: the logs change nothing");
    }
    let dirty = hives.join("NewDirtyHive1/NewDirtyHive").display().to_string();
    let windows = hives.join("NewDirtyHive1/RecoveredHive_Windows10").display().to_string();
    assert_eq!(done(at, &["diff", "--times", &dirty, &windows]), "");
}

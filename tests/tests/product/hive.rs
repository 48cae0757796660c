//! `silo hive`, which needs no engine: what it writes is read by hivex, and the other way round.

use std::path::Path;
use std::process::Command;

use silo_tests::{Outcome, silo_binary, skip};

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

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/product/hive/merge.py");
    let python = |files: &[&str]| {
        let mut command = Command::new("/usr/bin/python3");
        run(command.arg(&script).args(files).current_dir(at))
    };
    let expected = python(&["state3"]);
    if expected.code != 0 {
        assert!(expected.stderr.contains("No module named 'hivex'"), "{}", expected.stderr);
        return skip("hive::layers (independent reader)", "python3-hivex is not installed");
    }
    for files in [
        &["state0", "delta1", "delta2", "delta3"][..],
        &["state0", "upper"],
        &["merged"],
        &["merged2"],
    ] {
        let read = python(files);
        assert_eq!(read.code, 0, "{files:?}: {}", read.stderr);
        assert_eq!(read.stdout, expected.stdout, "{files:?}");
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

/// Real hives, for those who have some: `SILO_TEST_HIVES` names a directory of them. Each is
/// read, written and read again, and is the same; hivex reads what was written.
#[test]
fn real_hives_come_back() {
    let Some(hives) = std::env::var_os("SILO_TEST_HIVES") else {
        return skip("hive::real_hives_come_back", "SILO_TEST_HIVES names no directory of hives");
    };
    let temporary = tempfile::tempdir().expect("a directory");
    let at = temporary.path();
    let files = fs_err::read_dir(std::path::PathBuf::from(hives)).expect("the directory");
    let mut count = 0;
    for file in files {
        let path = file.expect("a file").path();
        let name = path.to_string_lossy().into_owned();
        if name.to_uppercase().contains(".LOG") {
            continue;
        }
        count += 1;
        done(at, &["export", "-f", "regf", "-o", "copy", &name]);
        let (first, second) = (done(at, &["dump", &name]), done(at, &["dump", "copy"]));
        assert!(first == second, "{name} is not the same");
        let copy = at.join("copy");
        let read = run(Command::new("/usr/bin/hivexml").arg(&copy));
        assert!(read.code == 0 || read.stderr.contains("No such file"), "{name}: {}", read.stderr);
    }
    assert!(count > 0, "no hive is there");
}

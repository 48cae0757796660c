//! Runs the programs under Wine: `SILO_TEST_WINE` names a directory with a runtime (`root/`), the
//! drive C: of base images (`c/`) and a prepared prefix (`prefix/`). Without it, or without root,
//! every test here counts as skipped.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod container;

use container::{Container, End};

/// A container, or nothing when there can be none.
macro_rules! container {
    () => {
        match Container::new() {
            Ok(container) => container,
            Err(reason) => return container::skip(&reason),
        }
    };
}

#[test]
fn exit_codes_have_32_bits() {
    for (command, code) in [
        ("cmd /c exit 0", 0),
        ("cmd /c exit 70000", 70000),
        ("cmd /c exit -3", 0xffff_fffd),
        (r"C:\windows\system32\where.exe nothing-of-this-name", 1),
    ] {
        assert_eq!(container!().run(command, b"").end, End::Exit(code), "{command}");
    }
}

#[test]
fn what_cannot_start_is_told() {
    let end = container!().run("no-such-program.exe 1 2", b"").end;
    assert_eq!(end, End::Error { step: "program".into(), code: 2 });
    let mut container = container!();
    container.put("text.exe", b"not a program");
    let end = container.run(r"C:\text.exe", b"").end;
    assert_eq!(end, End::Error { step: "program".into(), code: 193 });
    let mut container = container!();
    container.set("directory", r"C:\nowhere");
    let End::Error { step, code } = container.run("cmd", b"").end else { panic!("it started") };
    assert!(step == "directory" && matches!(code, 2 | 3 | 267), "{step} {code}");
}

#[test]
fn streams_keep_apart_and_are_complete() {
    let result = container!().run("cmd /c echo out& echo err>&2", b"");
    assert_eq!((&*result.out, &*result.err), ("out\n", "err\n"));
    // Larger than every pipe, and binary.
    let bytes: Vec<u8> =
        (0..750_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut container = container!();
    container.put("in.bin", &bytes);
    let result = container.script("tar -cf - in.bin | tar -xOf - > copy.bin\r\n");
    assert_eq!(result.end, End::Exit(0), "{result:?}");
    assert!(container.get("copy.bin") == bytes);
}

#[test]
fn cmd_runs_every_line_of_its_input() {
    let mut input = String::new();
    for n in 0..300 {
        input += &format!("echo line-%N%-{n}\r\n");
    }
    input += "set /p X=\r\ngiven\r\necho [%X%]\r\nexit 7\r\n";
    let result = container!().run("cmd /q", input.as_bytes());
    assert_eq!(result.end, End::Exit(7));
    assert_eq!(result.out.lines().filter(|line| line.contains("line-")).count(), 300);
    assert!(result.out.contains("[given]"), "{}", result.out);
    // The input's end is the program's.
    let result = container!().run("cmd /q", b"echo last\r\n");
    assert!(result.out.contains("last") && result.end == End::Exit(0), "{result:?}");
}

#[test]
fn a_user_is_no_administrator() {
    let mut container = container!();
    container.set("user", "user");
    let out = container.run("whoami /groups /fo csv", b"").out;
    let line = out.lines().find(|line| line.contains("S-1-5-32-544")).expect("administrators");
    assert!(line.contains("deny only"), "{line}");
    let out = container!().run("whoami /groups /fo csv", b"").out;
    let line = out.lines().find(|line| line.contains("S-1-5-32-544")).expect("administrators");
    assert!(line.contains("Enabled group"), "{line}");
}

#[test]
fn a_session_is_complete_from_the_first_program_on() {
    let result = container!().script(
        "vol\r\nipconfig\r\nreg query HKLM\\Hardware\\Description\\System\\CentralProcessor\\0 /v VendorIdentifier\r\n\
         hostname\r\nsc query nsiproxy\r\n",
    );
    for part in ["Volume", "127.0.0.1", "VendorIdentifier", "WINTEST", "SERVICE_NAME: nsiproxy"] {
        assert!(result.out.contains(part), "{part}: {result:?}");
    }
}

#[test]
fn the_environment_is_what_was_given() {
    let mut container = container!();
    container.set("environment", "ONE=a=b\nc \u{e4}\u{20ac}");
    let out = container.run("cmd /c set ONE& echo %PATH%", b"").out;
    assert!(out.starts_with("ONE=a=b"), "{out}");
    assert!(out.contains(r"C:\Windows\system32;C:\Windows"), "{out}");
}

#[test]
fn tar_and_other_packers_understand_each_other() {
    let mut container = container!();
    let text = "words that repeat themselves ".repeat(9000);
    let long = format!("t/{}/{}/end.txt", "n".repeat(70), "m".repeat(70));
    for (name, data) in [
        ("t/a.txt", text.as_bytes()),
        ("t/empty", b""),
        (&long, b"long"),
        ("t/\u{fc}.bin", &[0, 159, 146]),
    ] {
        container.put(name, data);
    }
    let result = container.script(
        "tar -cf a.tar t && tar -czf a.tgz t && tar -a -cf a.zip t && mkdir x y z\r\n\
         tar -xf a.tar -C x && tar xzf a.tgz -C y && tar -xf a.zip -C z --strip-components 1\r\n\
         tar -tf a.zip t/a.txt t/empty\r\n",
    );
    assert_eq!(result.out, "t/a.txt\nt/empty\n", "{result:?}");
    for name in ["x/t/a.txt", "y/t/a.txt", "z/a.txt"] {
        assert_eq!(container.get(name), text.as_bytes(), "{name}");
    }
    assert_eq!(container.get(&format!("y/{long}")), b"long");
    let inside = container.file("");
    for (command, archive) in [("tar -tf", "a.tar"), ("gzip -dc", "a.tgz"), ("tar -tzf", "a.tgz")] {
        let mut words = command.split(' ').map(str::to_owned).collect::<Vec<_>>();
        words.push(archive.to_owned());
        let output = container::command(&words, &inside);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        if command.starts_with("tar") {
            let names = String::from_utf8(output.stdout).unwrap();
            assert!(names.contains("t/a.txt\n") && names.contains("end.txt\n"), "{names}");
        }
    }
    container::command(&["tar", "-czf", "gnu.tgz", "t"].map(str::to_owned), &inside);
    container.again("mkdir g & tar -xf gnu.tgz -C g");
    assert_eq!(container.get("g/t/a.txt"), text.as_bytes());
    assert_eq!(container.get(&format!("g/{long}")), b"long");
}

#[test]
fn tar_makes_nothing_outside() {
    let mut container = container!();
    // One entry `../out.txt` and one `in.txt`, as a ustar archive.
    let mut archive = Vec::new();
    for name in ["../out.txt", "in.txt"] {
        let mut header = vec![0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(b"00000000001");
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend(header);
        archive.extend([b'x'; 1]);
        archive.extend([0; 511]);
    }
    archive.extend([0; 1024]);
    container.put("evil.tar", &archive);
    let result =
        container.script("mkdir d & cd d & tar -xf ..\\evil.tar\r\necho code %errorlevel%\r\n");
    assert!(result.out.contains("code 1") && result.err.contains(".."), "{result:?}");
    assert_eq!(container.get("d/in.txt"), b"x");
    assert!(!container.file("out.txt").exists());
}

#[test]
fn robocopy_mirrors_and_tells_by_its_code() {
    let result = container!().script(
        "mkdir s\\a s\\e & echo a> s\\1.txt & echo b> s\\a\\2.txt\r\n\
         robocopy s d /e /njh /njs /nfl /ndl > nul & call echo first %%errorlevel%%\r\n\
         robocopy s d /mir > nul & call echo same %%errorlevel%%\r\n\
         echo x> d\\x.txt & del s\\a\\2.txt\r\n\
         robocopy s d /mir > nul & call echo extra %%errorlevel%%\r\n\
         if exist d\\x.txt echo bad\r\nif exist d\\a\\2.txt echo bad\r\nif not exist d\\e echo bad\r\n\
         robocopy none d > nul & call echo none %%errorlevel%%\r\n",
    );
    assert_eq!(result.out, "first 1\nsame 0\nextra 2\nnone 16\n", "{result:?}");
}

#[test]
fn commands_answer_as_on_windows() {
    let result = container!().script(
        "echo|set /p=abc> h.txt\r\ncertutil -hashfile h.txt SHA256\r\n\
         setx NAME value > nul & reg query HKCU\\Environment /v NAME\r\n\
         where cmd\r\nwhoami\r\nicacls h.txt\r\ntakeown /f h.txt\r\n\
         tree C:\\Users\\Public /a\r\nforfiles /m h.txt /c \"cmd /c echo @file @isdir\"\r\n\
         sc query nosuch\r\ncall echo sc %%errorlevel%%\r\ntimeout /t 1\r\ncall echo timeout %%errorlevel%%\r\n\
         systeminfo\r\ncurl http://127.0.0.1:9/\r\ncall echo curl %%errorlevel%%\r\n",
    );
    for part in [
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "NAME    REG_SZ    value",
        r"C:\Windows\system32\cmd.exe",
        r"user manager\containeradministrator",
        "Successfully processed 1 files; Failed processing 0 files",
        "SUCCESS: The file (or folder)",
        "+---Desktop",
        "\"h.txt\" FALSE",
        "The specified service does not exist as an installed service.",
        "sc 1060",
        "timeout 1",
        "Host Name:                 WINTEST",
        "curl 7",
    ] {
        assert!(result.out.contains(part), "{part}: {result:?}");
    }
    assert!(result.err.contains("Input redirection is not supported"), "{result:?}");
}

#[test]
fn options_that_cannot_work_are_named() {
    for (command, part) in [
        ("curl --upload-magic x", "--upload-magic"),
        ("tar -cjf x.tar.bz2 x", "-j"),
        ("robocopy a b /bogus", "/bogus"),
        ("whoami /upn", "domain"),
        ("icacls x /save y", "not enforced"),
        ("nslookup", "not supported"),
        ("setx /s other A b", "/s"),
        ("certutil -store", "-store"),
        ("powershell -Command exit", "nothing was run"),
    ] {
        let result = container!().run(command, b"");
        assert_ne!(result.end, End::Exit(0), "{command}");
        assert!(format!("{}{}", result.out, result.err).contains(part), "{command}: {result:?}");
    }
}

#[test]
fn stopping_raises_ctrl_c() {
    let result = container!().interrupt(r"C:\Windows\System32\choice.exe");
    assert_eq!(result.end, End::Exit(0xc000_013a), "{result:?}");
}

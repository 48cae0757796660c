//! What separates containers from each other and from the host.

use std::os::unix::fs::symlink;
use std::process::Command;

use silo_tests::WindowsEngine;

use super::image::archive;
use super::{CORE, fetch, program, wait_log};

const LONG: [&str; 4] = ["ping", "-n", "1000", "127.0.0.1"];

#[test]
fn two_versions_side_by_side() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let server =
        "require('http').createServer((q, a) => a.end(process.version)).listen(8080, '0.0.0.0')";
    let mut running = Vec::new();
    for (program_name, version) in [("node", "v22.23.3"), ("node20", "v20.20.2")] {
        let Some(files) = program(program_name, "C:\\node") else { return };
        let name = engine.name(program_name);
        let source = files.split(':').next().expect("a path").to_owned();
        // Each has the program in its own C:, in the same place.
        engine.ok(&[
            "create",
            "--name",
            &name,
            "-p",
            "127.0.0.1::8080",
            CORE,
            "C:\\app\\node.exe",
            "-e",
            server,
        ]);
        engine.ok(&["cp", &source, &format!("{name}:/app")]);
        engine.ok(&["start", &name]);
        running.push((name, version));
    }
    for (name, version) in &running {
        let batch = format!(
            "reg add HKLM\\Software\\Own /v Value /d {version} /f& echo {version}> C:\\own.txt"
        );
        engine.ok(&["exec", name, "cmd", "/c", &batch]);
    }
    for (name, version) in &running {
        let address = engine.ok(&["port", name, "8080/tcp"]);
        assert!(fetch(&address).ends_with(version), "{name}");
        let show = "reg query HKLM\\Software\\Own /v Value& type C:\\own.txt";
        let text = engine.ok(&["exec", name, "cmd", "/c", show]);
        assert_eq!(text.matches(version).count(), 2, "{text}");
        assert!(!text.contains(if *version == "v22.23.3" { "v20" } else { "v22" }), "{text}");
        let tasks = engine.ok(&["exec", name, "tasklist"]);
        assert_eq!(tasks.matches("node.exe").count(), 1, "{tasks}");
        let top = engine.ok(&["top", name]);
        assert_eq!(top.matches("node.exe").count(), 1, "{top}");
        let own = "require('http').get('http://127.0.0.1:8080', a => a.pipe(process.stdout))";
        let page = engine.ok(&["exec", name, "C:\\app\\node.exe", "-e", own]);
        assert_eq!(&page, version, "one port, two servers");
    }
    let (first, second) = (&running[0].0, &running[1]);
    engine.docker(&["exec", first, "taskkill", "/f", "/im", "node.exe"]);
    engine.ok(&["wait", first]);
    let address = engine.ok(&["port", &second.0, "8080/tcp"]);
    assert!(fetch(&address).ends_with(second.1));
}

/// Paths by which Wine, or Windows, would reach what is not on a drive of the container.
#[test]
fn no_path_leads_to_the_host() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(node) = program("node", "C:\\node") else { return };
    let secret = engine.scratch().join("secret");
    fs_err::write(&secret, "the host's secret\n").expect("a file");
    let windows = secret.display().to_string().replace('/', "\\");
    let mut paths = vec![
        "Z:\\etc\\shadow".to_owned(),
        format!("Z:{windows}"),
        format!("C:\\..\\..{windows}"),
        format!("\\\\?\\C:\\..\\..{windows}"),
        format!("\\\\?\\unix\\proc\\1\\root{windows}"),
        format!("\\\\?\\unix\\c\\..\\..{windows}"),
        format!("\\\\?\\unix\\dev\\..{windows}"),
        "\\\\.\\PhysicalDrive0".to_owned(),
        "\\\\?\\unix\\etc\\shadow".to_owned(),
        "\\\\?\\unix\\root\\.ssh\\id_rsa".to_owned(),
        format!("\\\\.\\C:\\..\\..{windows}"),
        format!("C:\\CON\\..\\..\\..{windows}"),
        format!("C:\\Windows.\\..\\..{windows}"),
        format!("C:\\Windows:s\\..\\..{windows}"),
        format!("C:\\PROGRA~1\\..\\..{windows}"),
        format!("\\\\localhost\\c$\\..{windows}"),
        format!("\\\\?\\UNC\\localhost\\..{windows}"),
        format!("\\Device\\Harddisk0\\Partition1{windows}"),
        format!("\\DosDevices\\Z:{windows}"),
        format!("/{windows}").replace('\\', "/"),
    ];
    for prefix in
        ["\\\\?\\unix", "\\\\.\\unix", "\\??\\unix", "\\\\?\\Z:", "\\\\?\\GLOBALROOT\\??\\unix"]
    {
        paths.push(format!("{prefix}{windows}"));
    }
    let list = engine.scratch().join("share");
    fs_err::create_dir_all(&list).expect("a folder");
    fs_err::write(list.join("paths"), paths.join("\n")).expect("a file");
    let share = format!("{}:D:", list.display());
    for user in ["ContainerAdministrator", "ContainerUser"] {
        let batch = "for /f \"usebackq delims=\" %p in (\"D:\\paths\") do @type \"%p\"";
        let run = ["run", "--rm", "-u", user, "-v", &share, CORE, "cmd", "/c", batch];
        let outcome = engine.docker(&run);
        let said = outcome.stdout + &outcome.stderr;
        assert!(!said.contains("secret\n") && !said.contains("root:"), "{said}");
        let script = "const fs = require('fs');\n\
            for (const path of fs.readFileSync('D:\\\\paths', 'utf8').split('\\n')) {\n\
            try { fs.readFileSync(path); console.log('read', path) } catch (e) { }\n\
            try { fs.writeFileSync(path, 'x'); console.log('wrote', path) } catch (e) { } }\n\
            for (const drive of 'ABDEFGHIJKLMNOPQRSTUVWXYZ')\n\
            if (fs.existsSync(drive + ':\\\\')) console.log('drive', drive);";
        let run = ["run", "--rm", "-u", user, "-v", &share, "-v", &node, CORE];
        let text = engine.ok(&[&run[..], &["C:\\node\\node.exe", "-e", script]].concat());
        assert_eq!(text, "drive D", "{user}");
    }
    assert_eq!(fs_err::read_to_string(&secret).expect("a file"), "the host's secret\n");
}

/// What programs share by name, of one container is not another's.
#[test]
fn named_things_are_of_one_container() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(node) = program("node", "C:\\node") else { return };
    let pipe = "\\\\\\\\.\\\\pipe\\\\own";
    let server = format!(
        "require('net').createServer(s => s.end('from the pipe')).listen('{pipe}', () => console.log('listens'))"
    );
    let client = format!(
        "require('net').connect('{pipe}').on('error', e => console.log(e.code)).pipe(process.stdout)"
    );
    let name = engine.name("server");
    let exe = "C:\\node\\node.exe";
    engine.ok(&["run", "-d", "--name", &name, "-v", &node, CORE, exe, "-e", &server]);
    wait_log(&engine, &name, "listens");
    assert_eq!(engine.ok(&["exec", &name, exe, "-e", &client]), "from the pipe");
    let other = ["run", "--rm", "-v", &node, CORE, exe, "-e", &client];
    assert_eq!(engine.ok(&other), "ENOENT");
}

/// Devices of the host are not there, by no name.
#[test]
fn no_device_of_the_host_is_there() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(node) = program("node", "C:\\node") else { return };
    let script =
        "console.log(require('fs').readdirSync('\\\\\\\\?\\\\unix\\\\dev\\\\').sort().join(' '))";
    let run = ["run", "--rm", "-v", &node, CORE, "C:\\node\\node.exe", "-e", script];
    let names = engine.ok(&run);
    for name in names.split(' ') {
        let usual = ["console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random"];
        let other = ["shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"];
        assert!(usual.contains(&name) || other.contains(&name), "{name}: {names}");
    }
}

/// What Wine's files beside drive C: are to a container: its own, or read-only.
#[test]
fn the_runtime_cannot_be_changed() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(node) = program("node", "C:\\node") else { return };
    let script = "const fs = require('fs');\n\
        for (const path of ['bin', 'usr\\\\lib\\\\wine', 'sys', 'proc\\\\sys\\\\kernel', 'sbin', 'etc'])\n\
        try { fs.writeFileSync('\\\\\\\\?\\\\unix\\\\' + path + '\\\\new', 'x'); console.log('wrote', path) }\n\
        catch (e) { }\n\
        for (const path of ['usr\\\\sbin\\\\docker-init', 'usr\\\\lib\\\\wine\\\\wine64'])\n\
        try { fs.closeSync(fs.openSync('\\\\\\\\?\\\\unix\\\\' + path, 'r+')); console.log('opened', path) }\n\
        catch (e) { }";
    let run = ["run", "--rm", "-v", &node, CORE, "C:\\node\\node.exe", "-e", script];
    assert_eq!(engine.ok(&run), "");
}

/// Links that lead out, in the files of a container: for the engine they stay inside, and for
/// programs they lead into the read-only runtime at most.
#[test]
fn links_that_lead_out_stay_inside() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let scratch = engine.scratch();
    let outside = scratch.join("outside");
    fs_err::create_dir_all(&outside).expect("a folder");
    fs_err::write(outside.join("secret"), "the host's secret\n").expect("a file");
    let tree = scratch.join("tree");
    fs_err::create_dir_all(&tree).expect("a folder");
    symlink(&outside, tree.join("absolute")).expect("a link");
    let up = format!("{}{}", "../".repeat(40), outside.display());
    symlink(up, tree.join("relative")).expect("a link");
    symlink("/proc/1/root", tree.join("process")).expect("a link");
    symlink("/etc/shadow", tree.join("shadow")).expect("a link");
    let tar = Command::new("tar").arg("-C").arg(&tree).args(["-c", "."]).output().expect("tar");
    let name = engine.name("links");
    engine.ok(&[&["run", "-d", "--name", &name, CORE], &LONG[..]].concat());
    let copied = engine.docker_with_input(&["cp", "-", &format!("{name}:/Users")], &tar.stdout);
    assert_eq!(copied.code, 0, "{}", copied.stderr);
    let process = format!("process{}/secret", outside.display());
    for round in ["runs", "stopped"] {
        for path in ["absolute/secret", "relative/secret", &process] {
            let from = format!("{name}:/Users/{path}");
            let read = engine.docker(&["cp", &from, "-"]);
            assert_ne!(read.code, 0, "{round} {path}: {}", read.stdout);
            let into = format!("{name}:/Users/{}", path.rsplit_once('/').expect("a folder").0);
            engine.docker(&["cp", "/etc/hostname", &into]);
        }
        let shadow = engine.docker(&["cp", "-L", &format!("{name}:/Users/shadow"), "-"]);
        assert!(!shadow.stdout.contains("root:"), "{}", shadow.stdout);
        if round == "runs" {
            for path in ["absolute\\secret", "relative\\secret", "shadow"] {
                let show = format!("type C:\\Users\\{path}");
                let said = engine.docker(&["exec", &name, "cmd", "/c", &show]);
                assert!(
                    !said.stdout.contains("secret\n") && !said.stdout.contains("root:"),
                    "{said:?}"
                );
            }
            engine.ok(&["stop", "-t", "0", &name]);
        }
    }
    let left: Vec<_> = fs_err::read_dir(&outside).expect("the folder").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Links in the place of the engine's own files in the prefix, as a program that uses Linux by
/// itself can make them: the engine does not write through them.
#[test]
fn links_in_the_prefix_are_not_followed() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let outside = engine.scratch().join("outside");
    fs_err::create_dir_all(&outside).expect("a folder");
    fs_err::write(outside.join("secret"), "secret").expect("a file");
    let name = engine.name("prefix");
    engine.ok(&[&["run", "-d", "--name", &name, CORE], &LONG[..]].concat());
    let id = engine.inspect(&name)["Id"].as_str().expect("an id").to_owned();
    // What the container sees as /prefix.
    let prefix = engine.data_root().join("containers").join(id).join("prefix");
    fs_err::rename(prefix.join(".silo"), prefix.join("aside")).expect("rename");
    symlink(&outside, prefix.join(".silo")).expect("a link");
    let outcome = engine.docker(&["exec", &name, "cmd", "/c", "ver"]);
    assert_ne!(outcome.code, 0, "{}", outcome.stdout);
    fs_err::remove_file(prefix.join(".silo")).expect("remove");
    fs_err::rename(prefix.join("aside"), prefix.join(".silo")).expect("rename");
    symlink(outside.join("secret"), prefix.join(".silo/0/request.new")).expect("a link");
    let size = engine.http("POST", &format!("/containers/{name}/resize?h=30&w=100"), "");
    assert_eq!(size.status, 200);
    fs_err::remove_file(prefix.join("user.reg")).expect("remove");
    symlink(outside.join("secret"), prefix.join("user.reg")).expect("a link");
    let outcome = engine.docker(&["exec", &name, "cmd", "/c", "ver"]);
    assert!(outcome.code != 0 && !outcome.stderr.contains("secret"), "{outcome:?}");
    engine.ok(&["rm", "-f", &name]);
    let left: Vec<_> = fs_err::read_dir(&outside).expect("the folder").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(fs_err::read_to_string(outside.join("secret")).expect("the file"), "secret");
}

/// Links that lead out, in a layer of an image: neither the engine nor a program comes by them to
/// what is not the container's.
#[test]
fn links_of_a_layer_stay_inside() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let scratch = engine.scratch();
    let outside = scratch.join("outside");
    fs_err::create_dir_all(&outside).expect("a folder");
    fs_err::write(outside.join("secret"), "the host's secret\n").expect("a file");
    let layer = scratch.join("layer");
    fs_err::create_dir_all(layer.join("Files/links")).expect("a folder");
    let up = format!("{}{}", "../".repeat(40), outside.display());
    for (name, target) in [
        ("absolute", outside.display().to_string()),
        ("relative", up),
        ("process", format!("/proc/1/root{}", outside.display())),
    ] {
        symlink(target, layer.join("Files/links").join(name)).expect("a link");
    }
    let tar = scratch.join("hostile.tar");
    let mut command = Command::new("tar");
    let status = command.arg("-C").arg(&layer).arg("-cf").arg(&tar).arg("Files").status();
    assert!(status.expect("run tar").success());
    let image = archive(&engine, Some(CORE), "hostile:latest", &[tar]).display().to_string();
    let loaded = engine.docker(&["load", "-i", &image]);
    if loaded.code != 0 {
        // Refusing is as good.
        assert!(loaded.stderr.contains("link"), "{}", loaded.stderr);
        return;
    }
    let name = engine.name("layer");
    engine.ok(&[&["run", "-d", "--name", &name, "hostile:latest"], &LONG[..]].concat());
    let listed = scratch.join("listed");
    engine.ok(&["cp", &format!("{name}:/links"), &listed.display().to_string()]);
    assert!(listed.join("absolute").is_symlink(), "the layer's links are there");
    for link in ["absolute", "relative", "process"] {
        let show = format!("type C:\\links\\{link}\\secret& echo x> C:\\links\\{link}\\new");
        let said = engine.docker(&["exec", &name, "cmd", "/c", &show]);
        assert!(!said.stdout.contains("secret\r\n") && !said.stdout.contains("host's"), "{said:?}");
        let read = engine.docker(&["cp", &format!("{name}:/links/{link}/secret"), "-"]);
        assert_ne!(read.code, 0, "{}", read.stdout);
        engine.docker(&["cp", "/etc/hostname", &format!("{name}:/links/{link}/")]);
    }
    // A volume and a working directory below a link.
    let volume = format!("{}:C:\\links\\absolute\\deep", scratch.join("layer").display());
    engine.docker(&["run", "--rm", "-v", &volume, "hostile:latest", "cmd", "/c", "cd"]);
    engine.docker(&["run", "--rm", "-w", "C:\\links\\absolute\\made", "hostile:latest", "cmd"]);
    let left: Vec<_> = fs_err::read_dir(&outside).expect("the folder").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

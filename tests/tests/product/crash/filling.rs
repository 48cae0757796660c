//! A volume is filled with the image's files entirely or not at all.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use silo_tests::Engine;

use super::{Random, entries};

/// So many files are in the directory of the image.
const FILES: usize = 800;

/// An image with a directory that takes a while to copy.
fn image(engine: &Engine) -> String {
    let tree = engine.scratch().join("image");
    silo_tests::busybox_tree(&tree);
    for folder in 0..8 {
        let folder = tree.join(format!("data/{folder}"));
        fs_err::create_dir_all(&folder).expect("a folder");
        for file in 0..FILES / 8 {
            fs_err::write(folder.join(file.to_string()), "all of it").expect("a file");
        }
    }
    let tar = Command::new("tar").arg("-C").arg(&tree).args(["-c", "."]).output().expect("run tar");
    let tag = engine.name("image");
    let outcome = engine.docker_with_input(&["import", "-", &tag], &tar.stdout);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    tag
}

/// The daemon is killed at a random moment of the filling, and more often than not the next
/// one is as well.
#[test]
fn a_volume_is_filled_entirely_or_not_at_all() {
    let mut engine = Engine::start();
    if !engine.is_silo_or_skip("kills Silo's own processes") {
        return;
    }
    let image = image(&engine);
    let start = Instant::now();
    let mount = format!("{}:/data", engine.name("whole"));
    engine.ok(&["create", "--name", &engine.name("whole"), "-v", &mount, &image, "/bin/true"]);
    let mut duration = u64::try_from(start.elapsed().as_micros()).expect("a short time");
    let mut random = Random::new();
    let (mut empty, mut full) = (0, 0);
    // As often as it takes until one was killed before it was filled.
    for round in 0.. {
        if round >= 12 && empty > 0 {
            break;
        }
        let name = engine.name(&format!("volume{round}"));
        let mount = format!("{name}:/data");
        for _ in 0..2 {
            let mut client = engine
                .docker_command()
                .args(["create", "-v", &mount, &image, "/bin/true"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("run docker");
            // The random moment is the point: nothing is waited for but time.
            let until = Instant::now() + Duration::from_micros(random.below(duration));
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                std::thread::park_timeout(left);
            }
            engine.kill_daemon();
            client.wait().expect("wait for docker");
            engine.start_daemon();
        }
        let volume = engine.data_root().join("volumes").join(&name);
        if volume.exists() {
            assert_eq!(entries(&volume), ["_data"]);
            match files(&volume.join("_data")) {
                0 => empty += 1,
                FILES => {
                    full += 1;
                    // It took longer when it was measured: others were busy then.
                    duration = (duration * 3 / 4).max(1000);
                }
                number => panic!("{number} files of {FILES} are in the volume"),
            }
        }
        let count = format!("/bin/find /data -type f -size +0 | /bin/wc -l; {CHANGE}");
        let counted = engine.ok(&["run", "--rm", "-v", &mount, &image, "/bin/sh", "-c", &count]);
        assert_eq!(counted, FILES.to_string());
        // What a container did to it is not done again.
        let list = ["run", "--rm", "-v", &mount, &image, "/bin/ls", "/data"];
        assert_eq!(engine.ok(&list), "1\n2\n3\n4\n5\n6\n7\nmine");
    }
    eprintln!("{empty} volumes were empty, {full} full after a kill");
}

const CHANGE: &str = "/bin/rm -r /data/0; /bin/touch /data/mine";

fn files(folder: &Path) -> usize {
    let count = |name: String| {
        let path = folder.join(name);
        if path.is_dir() { files(&path) } else { 1 }
    };
    entries(folder).into_iter().map(count).sum()
}

/// Containers that fill the same volume at once do not get into each other's way.
#[test]
fn one_volume_is_filled_by_many_at_once() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("dockerd 20.10 lets them fail") {
        return;
    }
    let image = image(&engine);
    let mount = format!("{}:/data", engine.name("shared"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| engine.ok(&["create", "-v", &mount, &image, "/bin/true"]));
        }
    });
    let volume = engine.data_root().join("volumes").join(engine.name("shared"));
    assert_eq!(entries(&volume), ["_data"]);
    assert_eq!(files(&volume), FILES);
}

//! Whatever a client was told is done survives the loss of power at any moment, and what was
//! half done does not keep the engine from starting.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use silo_tests::Engine;

use super::{Random, Stop, entries, kill, processes};

/// What clients were told.
#[derive(Debug, Default, Clone)]
struct Told {
    containers: BTreeSet<String>,
    /// Containers whose removal has begun, which may be there or not.
    leaving: BTreeSet<String>,
    removed: BTreeSet<String>,
    tags: BTreeSet<String>,
    volumes: BTreeSet<String>,
}

/// One client: makes things with names that nobody had before, and keeps account.
fn work(command: impl Fn() -> Command, client: &str, told: &Mutex<Told>, stop: &AtomicBool) {
    let run = |arguments: &[&str]| {
        let output = command().args(arguments).output().expect("run docker");
        output.status.success()
    };
    let note = |note: &dyn Fn(&mut Told)| note(&mut told.lock().expect("the account"));
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("{client}-{number}");
        let volume = format!("v-{name}:/v");
        // It is filled with what the image has there.
        let filled = format!("f-{name}:/etc");
        let volumes = ["-v", &volume, "-v", &filled, "-v", "/a"];
        let create = ["create", "--name", &name];
        if run(&[&create[..], &volumes[..], &["busybox", "sleep", "99"]].concat()) {
            note(&|told| {
                told.containers.extend([name.clone()]);
                told.volumes.extend([format!("v-{name}"), format!("f-{name}")]);
            });
        }
        run(&["start", &name]);
        let tag = format!("tag:{name}");
        if run(&["tag", "busybox", &tag]) {
            note(&|told| told.tags.extend([tag.clone()]));
        }
        if number % 2 == 0 {
            note(&|told| told.leaving.extend([name.clone()]));
            if run(&["rm", "-fv", &name]) {
                note(&|told| told.removed.extend([name.clone()]));
            }
        }
        run(&["run", "--rm", "-v", "/data", "busybox", "true"]);
    }
}

/// Starts clients, runs `at_a_moment`, and ends them. Returns what they were told before that.
fn under_load(
    engine: &Engine,
    round: usize,
    patience: Duration,
    at_a_moment: impl FnOnce(),
) -> Told {
    let (told, stop) = (Mutex::new(Told::default()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for client in 0..3 {
            let command = engine.docker_maker();
            let client = engine.name(&format!("r{round}c{client}"));
            let (told, stop) = (&told, &stop);
            scope.spawn(move || work(command, &client, told, stop));
        }
        let until = Instant::now() + patience;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
        let before = told.lock().expect("the account").clone();
        at_a_moment();
        // Removals that began in between may have been in time.
        Told { leaving: told.lock().expect("the account").leaving.clone(), ..before }
    })
}

/// What must be true of an engine that finds the image of a crash.
#[track_caller]
fn survived(engine: &Engine, told: &Told) {
    eprintln!(
        "told of {} containers, {} removals, {} tags, {} volumes",
        told.containers.len(),
        told.removed.len(),
        told.tags.len(),
        told.volumes.len()
    );
    let listed = engine.ok(&["ps", "-a", "--format", "{{.Names}}"]);
    let listed: BTreeSet<&str> = listed.lines().collect();
    for name in told.containers.difference(&told.leaving) {
        assert!(listed.contains(name.as_str()), "{name} is lost");
    }
    for name in &told.removed {
        assert!(!listed.contains(name.as_str()), "{name} is back");
    }
    for name in &listed {
        let status = engine.inspect(name)["State"]["Status"].clone();
        assert!(status == "created" || status == "exited", "{name} is {status}");
    }
    let tags = engine.ok(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]);
    for tag in &told.tags {
        assert!(tags.lines().any(|line| line == tag), "{tag} is lost");
    }
    let volumes = engine.ok(&["volume", "ls", "-q"]);
    for volume in &told.volumes {
        assert!(volumes.lines().any(|line| line == volume), "{volume} is lost");
    }
    for volume in volumes.lines() {
        let data = engine.data_root().join("volumes").join(volume).join("_data");
        let passwd = fs_err::read_to_string(data.join("passwd"));
        let told = told.volumes.contains(volume);
        match passwd {
            // All or nothing, and all when the client was told.
            Err(_) => assert!(!told || !volume.starts_with("f-"), "{volume} is not filled"),
            Ok(text) => assert!(
                text.starts_with("root:x:0:0:") && data.join("group").exists(),
                "{volume} is half filled: {text:?}"
            ),
        }
        assert_eq!(entries(data.parent().expect("a parent")), ["_data"], "{volume}");
    }
    // Each has its directory, and each directory its volume.
    let mut known: Vec<&str> = volumes.lines().collect();
    known.sort_unstable();
    let mut directories = entries(&engine.data_root().join("volumes"));
    directories.sort_unstable();
    assert_eq!(directories, known);
    let mut ids: Vec<String> =
        engine.ok(&["ps", "-aq", "--no-trunc"]).lines().map(str::to_owned).collect();
    ids.sort_unstable();
    for folder in ["containers", "snapshots"] {
        let mut found = entries(&engine.data_root().join(folder));
        // Other names are no container's.
        found.retain(|name| name.len() == 64);
        found.sort_unstable();
        assert_eq!(found, ids, "{folder}");
    }
    assert_eq!(engine.ok(&["run", "--rm", "busybox", "echo", "works"]), "works");
    if let Some(name) = told.containers.difference(&told.leaving).next() {
        engine.ok(&["start", name]);
        assert_eq!(engine.ok(&["exec", name, "ls", "/v"]), "");
        engine.ok(&["stop", "-t", "0", name]);
    }
}

/// A file system in a file, mounted until dropped.
struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    /// Fails where there are no loop devices.
    fn new() -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let disk = Self { directory };
        let image = disk.directory.path().join("image");
        fs_err::File::create(&image)
            .and_then(|file| file.set_len(1 << 30))
            .map_err(|error| error.to_string())?;
        fs_err::create_dir(disk.path()).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q".as_ref(), image.as_ref()])?;
        disk.mount()?;
        Ok(disk)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    fn mount(&self) -> Result<(), String> {
        let image = self.directory.path().join("image");
        run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_ref(), self.path().as_ref()])
    }

    /// Nothing that has not reached the disk will.
    fn cut_power(&self) -> Result<(), String> {
        // EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH.
        let program = r#"open(my $f, "<", $ARGV[0]) or die "$!\n";
            my $flags = pack("I", 2); ioctl($f, 0x8004587d, $flags) or die "$!\n""#;
        let file = self.path().join("silo.db");
        run("perl", &["-e".as_ref(), program.as_ref(), file.as_ref()])
    }

    fn unmount(&self) -> Result<(), String> {
        // Processes that were killed hold it until they are gone, and so does every mount
        // namespace that was made meanwhile, by whomever, until it has another root.
        Self::retry(|| run("umount", &[self.path().as_ref()]))?;
        Self::retry(|| if self.is_held() { Err(self.holders()) } else { Ok(()) })
    }

    /// Whether a loop device has the image, as long as the file system is mounted anywhere.
    fn is_held(&self) -> bool {
        let image = self.directory.path().join("image").display().to_string();
        let backing = |device: String| {
            fs_err::read_to_string(format!("/sys/block/{device}/loop/backing_file"))
        };
        entries(Path::new("/sys/block"))
            .into_iter()
            .filter(|device| device.starts_with("loop"))
            .any(|device| backing(device).is_ok_and(|file| file.starts_with(&image)))
    }

    /// The processes that see the file system, with their commands.
    fn holders(&self) -> String {
        let path = self.path().display().to_string();
        let read = |pid: &str, file: &str| {
            fs_err::read(format!("/proc/{pid}/{file}"))
                .map(|text| String::from_utf8_lossy(&text).replace('\0', " "))
        };
        let pids = entries(Path::new("/proc")).into_iter();
        let held = pids.filter(|pid| read(pid, "mountinfo").is_ok_and(|text| text.contains(&path)));
        let held: Vec<String> = held
            .map(|pid| format!("{pid} {}", read(&pid, "cmdline").unwrap_or_default()))
            .collect();
        format!("the disk is held by {held:?}")
    }

    fn retry(attempt: impl Fn() -> Result<(), String>) -> Result<(), String> {
        let start = Instant::now();
        loop {
            match attempt() {
                Err(_) if start.elapsed() < Duration::from_mins(1) => {
                    std::thread::park_timeout(Duration::from_millis(5));
                }
                outcome => return outcome,
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Not mounted if the test ended in between.
        let _outcome = run("umount", &["-l".as_ref(), self.path().as_ref()]);
    }
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The disk stops taking writes, and everything ends, at a random moment.
#[test]
fn what_clients_were_told_survives_a_power_cut() {
    let disk = match Disk::new() {
        Ok(disk) => disk,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let mut engine = Engine::prepare();
    if !engine.is_silo_or_skip("kills Silo's own processes") {
        return;
    }
    engine.set_data_root(&disk.path());
    engine.start_daemon();
    engine.load_busybox();
    let mut random = Random::new();
    for round in 0..6 {
        let patience = Duration::from_micros(random.below(1_500_000));
        let expected = under_load(&engine, round, patience, || {
            disk.cut_power().expect("cut the power");
        });
        engine.kill_daemon();
        processes(&format!("{}", disk.path().display())).into_iter().for_each(kill);
        fs_err::remove_dir_all(engine.run_root()).expect("what a reboot clears");
        disk.unmount().expect("unmount");
        disk.mount().expect("mount again");
        engine.start_daemon();
        survived(&engine, &expected);
        let all = engine.ok(&["ps", "-aq"]);
        if !all.is_empty() {
            let all: Vec<&str> = ["rm", "-fv"].into_iter().chain(all.lines()).collect();
            engine.ok(&all);
        }
        // `volume prune --all` came with 23.0 only.
        let filters = "%7B%22all%22%3A%5B%22true%22%5D%7D";
        let pruned = engine.http("POST", &format!("/v1.44/volumes/prune?filters={filters}"), "");
        assert_eq!(pruned.status, 200, "{}", pruned.message());
    }
}

/// A copy of the data root, taken while the daemon stands still, is as good as the original, and
/// an engine on it leaves the original's containers alone.
#[test]
fn an_engine_starts_on_a_copy_of_another() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("kills Silo's own processes") {
        return;
    }
    let running = engine.name("running");
    engine.ok(&["run", "-d", "--name", &running, "busybox", "sleep", "1000"]);
    let pid = engine.inspect(&running)["State"]["Pid"].clone();
    let mut random = Random::new();
    for round in 0..5 {
        let mut copy = Engine::prepare();
        let patience = Duration::from_micros(random.below(700_000));
        let expected = under_load(&engine, round, patience, || {
            let daemon = i32::try_from(engine.daemon_pid()).expect("a pid");
            let daemon = rustix::process::Pid::from_raw(daemon).expect("a pid");
            let signal = |signal| rustix::process::kill_process(daemon, signal).expect("signal");
            signal(rustix::process::Signal::STOP);
            let (from, to) = (engine.data_root(), copy.data_root());
            let copied = run("cp", &["-a".as_ref(), from.as_ref(), to.as_ref()]);
            signal(rustix::process::Signal::CONT);
            // What a supervisor removes meanwhile is no loss.
            assert!(to.join("silo.db").exists(), "{copied:?}");
        });
        copy.start_daemon();
        survived(&copy, &expected);
        assert_eq!(copy.inspect(&running)["State"]["Status"], "exited");
    }
    assert_eq!(engine.inspect(&running)["State"]["Pid"], pid);
    assert_eq!(engine.inspect(&running)["State"]["Status"], "running");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
}

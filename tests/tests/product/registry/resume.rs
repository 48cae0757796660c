//! Uploads that break off: they go on where the registry has them, where it can tell.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use silo_tests::{Content, Engine, Scripted, feed, tar_of};

use crate::registryd::Registry;

/// Bytes of the layer, which does not compress.
const SIZE: usize = 5_000_000;
/// What of it goes out before the connection breaks.
const PART: usize = 2_500_000;
/// Requests without the layer.
const REST: usize = 100_000;

/// What is between an engine and a registry.
#[derive(Default)]
struct Counts {
    /// Bytes that went out.
    sent: usize,
    /// After so many nothing goes out any more.
    limit: Option<usize>,
    stalled: Vec<TcpStream>,
}

/// Leads to a registry, on a port of its own, until the test's process ends.
struct Relay {
    address: String,
    counts: Arc<Mutex<Counts>>,
    stalled: Receiver<()>,
}

impl Relay {
    fn start(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address").to_string();
        let counts: Arc<Mutex<Counts>> = Arc::default();
        let (sender, stalled) = channel();
        let (shared, to) = (Arc::clone(&counts), to.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (counts, sender, to) = (Arc::clone(&shared), sender.clone(), to.clone());
                // Connections that break are part of the test.
                std::thread::spawn(move || lead(client, &to, &counts, &sender).ok());
            }
        });
        Self { address, counts, stalled }
    }

    /// Nothing goes out any more after so many bytes.
    fn limit(&self, limit: usize) {
        let mut counts = self.counts.lock().expect("counts");
        (counts.sent, counts.limit) = (0, Some(limit));
    }

    /// Waits until that is so.
    fn wait(&self) {
        self.stalled.recv_timeout(Duration::from_mins(1)).expect("it is not reached");
    }

    /// Cuts off what waits; what comes then goes out.
    fn cut(&self) {
        let mut counts = self.counts.lock().expect("counts");
        (counts.sent, counts.limit) = (0, None);
        for connection in counts.stalled.drain(..) {
            connection.shutdown(Shutdown::Both).ok();
        }
    }

    /// Bytes that went out since then.
    fn sent(&self) -> usize {
        self.counts.lock().expect("counts").sent
    }
}

fn lead(
    mut client: TcpStream,
    to: &str,
    counts: &Mutex<Counts>,
    stalled: &Sender<()>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(to)?;
    let (mut answers, mut back) = (server.try_clone()?, client.try_clone()?);
    let down = std::thread::spawn(move || {
        io::copy(&mut answers, &mut back).ok();
        back.shutdown(Shutdown::Both).ok();
    });
    let mut buffer = [0; 16 << 10];
    loop {
        let count = client.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            break;
        }
        let mut counts = counts.lock().expect("counts");
        let limit = counts.limit.unwrap_or(usize::MAX);
        let may = count.min(limit - counts.sent);
        counts.sent += may;
        server.write_all(&buffer[..may])?;
        if may < count {
            counts.stalled.extend([server.try_clone()?, client.try_clone()?]);
            // Nobody may listen any more.
            stalled.send(()).ok();
            break;
        }
    }
    if counts.lock().expect("counts").limit.is_none() {
        server.shutdown(Shutdown::Both).ok();
    }
    down.join().ok();
    Ok(())
}

/// Engine, image, and what to call it: one whose layer is compressed as it goes out, or one that
/// came compressed.
fn engine_with_image(is_made: bool) -> Option<Engine> {
    let mut engine = Engine::prepare();
    if !engine.is_silo_or_skip("dockerd begins anew") {
        return None;
    }
    engine.add_option("--registry-retry-wait=10");
    engine.start_daemon();
    if is_made {
        let mut import = engine.docker_command();
        let imported = feed(import.args(["import", "-", "app"]), &tar_of("file", SIZE));
        assert_eq!(imported.code, 0, "{}", imported.stderr);
    } else {
        let content = Mutex::new(Content::of(&[tar_of("file", SIZE)]));
        let source = Scripted::start(move |asked| content.lock().expect("content").answer(asked));
        let name = format!("{}/app:latest", source.address());
        engine.ok(&["pull", &name]);
        engine.ok(&["tag", &name, "app"]);
    }
    Some(engine)
}

/// Waits until some of an upload is in a file of the registry.
fn wait_for_part(registry: &Registry) {
    let uploads = registry.directory.path().join("data/registry/uploads");
    let until = Instant::now() + Duration::from_mins(1);
    let size = |entry: fs_err::DirEntry| {
        fs_err::metadata(entry.path().join("data")).map_or(0, |metadata| metadata.len())
    };
    while !fs_err::read_dir(&uploads)
        .is_ok_and(|entries| entries.flatten().any(|entry| size(entry) > 1_000_000))
    {
        assert!(Instant::now() < until, "nothing comes:\n{}", registry.log());
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn uploads_go_on_after_broken_connections() {
    for is_made in [true, false] {
        let Some(engine) = engine_with_image(is_made) else { return };
        let registry = Registry::start();
        let relay = Relay::start(&registry.address);
        let name = format!("{}/app:1", relay.address);
        engine.ok(&["tag", "app", &name]);
        relay.limit(PART);
        std::thread::scope(|scope| {
            let push = scope.spawn(|| engine.docker(&["push", &name]));
            relay.wait();
            wait_for_part(&registry);
            relay.cut();
            let outcome = push.join().expect("the push");
            assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        });
        let sent = relay.sent();
        assert!(sent < SIZE - 1_000_000 + REST, "{sent} bytes, made: {is_made}");
        engine.ok(&["rmi", "app", &name]);
        engine.ok(&["pull", &name]);
    }
}

#[test]
fn uploads_go_on_after_kills() {
    for is_made in [true, false] {
        let Some(mut engine) = engine_with_image(is_made) else { return };
        let registry = Registry::start();
        let relay = Relay::start(&registry.address);
        let name = format!("{}/app:1", relay.address);
        engine.ok(&["tag", "app", &name]);
        relay.limit(PART);
        let mut push = engine.docker_command();
        push.args(["push", &name]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut push = push.spawn().expect("spawn docker");
        relay.wait();
        wait_for_part(&registry);
        engine.kill_daemon();
        push.wait().expect("docker");
        relay.cut();
        engine.start_daemon();
        engine.ok(&["push", &name]);
        let sent = relay.sent();
        assert!(sent < SIZE - 1_000_000 + REST, "{sent} bytes, made: {is_made}");
        engine.ok(&["rmi", "app", &name]);
        engine.ok(&["pull", &name]);
    }
}

#[test]
fn uploads_begin_anew_at_registries_that_cannot_go_on() {
    let Some(registry) = silo_tests::Registry::start_or_skip() else { return };
    for (is_made, is_killed) in [(true, false), (false, true)] {
        let Some(mut engine) = engine_with_image(is_made) else { return };
        let relay = Relay::start(registry.address());
        // Each its own repository, without what the others have.
        let name = format!("{}/app{is_made}{is_killed}:1", relay.address);
        engine.ok(&["tag", "app", &name]);
        relay.limit(PART);
        let mut push = engine.docker_command();
        let mut push = push.args(["push", "-q", &name]).spawn().expect("spawn docker");
        relay.wait();
        if is_killed {
            engine.kill_daemon();
        }
        relay.cut();
        let ended = push.wait().expect("docker");
        assert!(is_killed || ended.success());
        if is_killed {
            engine.start_daemon();
            engine.ok(&["push", &name]);
        }
        let sent = relay.sent();
        assert!(sent > SIZE, "{sent} bytes: it can go on");
        engine.ok(&["rmi", "app", &name]);
        engine.ok(&["pull", &name]);
    }
}

//! Big blobs from servers that give a connection little, and from those that misbehave besides.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use silo_registry::{Config, Credentials, Ranges};

use super::server::{Asked, Content, GATED, Reply, Server, unknown};
use super::{Place, config, content, is_layer};

/// The size of the layer, and of a part of it.
const SIZE: usize = 768 << 10;
const PART: usize = 64 << 10;

fn in_parts() -> Config {
    Config {
        ranges: Ranges {
            at_once: 4,
            length: PART as u64,
            ahead: 5 * PART as u64,
            patience: Duration::from_millis(10),
        },
        ..config()
    }
}

/// The part that a request is for.
fn part(asked: &Asked) -> Option<(usize, usize)> {
    asked.range().and_then(|(start, end)| Some((start, end?)))
}

/// What gives the bytes of a connection bit by bit, until a part was asked for.
#[derive(Clone, Default)]
struct Throttle(Arc<(Mutex<bool>, Condvar)>);

impl Throttle {
    fn answer(&self, asked: &Asked, content: &Content) -> Reply {
        if part(asked).is_some() {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_all();
            return content.answer(asked);
        }
        let reply = content.answer(asked);
        if !is_layer(asked, content) {
            return reply;
        }
        let parts = Arc::clone(&self.0);
        reply.gated(move || {
            let asked = parts.0.lock().unwrap();
            let pause = Duration::from_millis(40);
            drop(parts.1.wait_timeout_while(asked, pause, |asked| !*asked).unwrap());
        })
    }
}

/// A server whose parts are as `fault` says; the number is how many were asked for before.
fn faulty(
    fault: impl Fn(&Asked, &Content, usize) -> Option<Reply> + Send + Sync + 'static,
) -> (Server, Content) {
    static CONTENT: OnceLock<Content> = OnceLock::new();
    let content = CONTENT.get_or_init(|| content(&[SIZE])).clone();
    let served = content.clone();
    let (throttle, count) = (Throttle::default(), AtomicUsize::new(0));
    let server = Server::start(move |asked| {
        let honest = throttle.answer(asked, &served);
        if part(asked).is_none() {
            return honest;
        }
        fault(asked, &served, count.fetch_add(1, Ordering::SeqCst)).unwrap_or(honest)
    });
    (server, content)
}

fn pull(place: &Place, server: &Server) -> Result<(), String> {
    let pulled = place.pull_by(&server.address, &Credentials::default(), None, in_parts());
    pulled.map(drop)
}

fn parts(server: &Server) -> Vec<(usize, usize)> {
    server.asked().iter().filter_map(part).collect()
}

/// How many parts are on their way, and how many were at most. The first waits for a second.
#[derive(Default)]
struct Open(Mutex<(usize, usize)>, Condvar);

impl Open {
    fn enter(self: &Arc<Self>) -> Arc<Self> {
        let mut counts = self.0.lock().unwrap();
        counts.0 += 1;
        counts.1 = counts.1.max(counts.0);
        self.1.notify_all();
        let patience = Duration::from_secs(10);
        drop(self.1.wait_timeout_while(counts, patience, |counts| counts.1 < 2).unwrap());
        Arc::clone(self)
    }

    fn leave(&self) {
        self.0.lock().unwrap().0 -= 1;
    }
}

#[test]
fn a_slow_server_is_asked_for_parts() {
    let content = content(&[SIZE, SIZE, 1000]);
    let (throttle, served) = (Throttle::default(), content.clone());
    let open = Arc::new(Open::default());
    let seen = Arc::clone(&open);
    let server = Server::start(move |asked| {
        let reply = throttle.answer(asked, &served);
        if part(asked).is_none() {
            return reply;
        }
        let open = seen.enter();
        let left = AtomicUsize::new(reply.body.len().div_ceil(GATED));
        reply.gated(move || {
            if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                open.leave();
            }
        })
    });
    let place = Place::new();
    pull(&place, &server).unwrap();
    let parts = parts(&server);
    assert!(parts.len() > 8, "{parts:?}");
    assert!(parts.iter().all(|(start, end)| end - start <= PART), "{parts:?}");
    // What may be kept bounds how many come at once, over both layers.
    let most = open.0.lock().unwrap().1;
    assert!((2..=5).contains(&most), "{most}");
    assert!(server.asked().iter().all(|asked| {
        let blob = asked.path.rsplit('/').next().unwrap_or_default();
        asked.range().is_none() || content.blobs[blob].len() > SIZE
    }));
    assert!(place.files("content/partial").is_empty());
}

#[test]
fn a_fast_server_and_a_small_blob_need_one_connection() {
    for (size, patience) in [(SIZE, Duration::from_mins(1)), (PART, Duration::ZERO)] {
        let content = content(&[size]);
        let served = content.clone();
        let server = Server::start(move |asked| served.answer(asked));
        let ranges = Ranges { patience, ..in_parts().ranges };
        let config = Config { ranges, ..config() };
        let none = Credentials::default();
        Place::new().pull_by(&server.address, &none, None, config).unwrap();
        let layers = server.asked().iter().filter(|asked| is_layer(asked, &content)).count();
        assert_eq!((layers, parts(&server)), (1, Vec::new()), "{size}");
    }
}

type Fault = fn(&Asked, &Content, usize) -> Option<Reply>;

fn blob<'a>(asked: &Asked, content: &'a Content) -> &'a [u8] {
    &content.blobs[asked.path.rsplit('/').next().unwrap()]
}

/// An answer that says it is another part than was asked for.
fn as_if(asked: &Asked, content: &Content, range: impl Fn(usize, usize, usize) -> String) -> Reply {
    let (start, end) = part(asked).unwrap();
    let bytes = blob(asked, content);
    Reply::new(206, &bytes[start..end]).header("Content-Range", range(start, end - 1, bytes.len()))
}

/// What is wrong with parts, and none of which is the end of a pull.
const BORNE: &[(&str, Fault)] = &[
    ("all of the blob", |asked, content, _| Some(Reply::new(200, blob(asked, content)))),
    ("another part", |asked, content, _| {
        Some(as_if(asked, content, |start, last, size| {
            format!("bytes {}-{last}/{size}", start + 1)
        }))
    }),
    ("an impossible part", |asked, content, _| {
        Some(as_if(asked, content, |start, last, size| format!("bytes {last}-{start}/{size}")))
    }),
    ("no word of the part", |asked, content, _| {
        let (start, end) = part(asked).unwrap();
        Some(Reply::new(206, &blob(asked, content)[start..end]))
    }),
    ("of another blob", |asked, content, _| {
        Some(as_if(asked, content, |start, last, size| {
            format!("bytes {start}-{last}/{}", size + 1)
        }))
    }),
    ("fewer bytes than it says", |asked, content, _| {
        let mut reply =
            as_if(asked, content, |start, last, size| format!("bytes {start}-{last}/{size}"));
        reply.body.pop();
        Some(reply)
    }),
    ("less than was asked for", |asked, content, _| {
        let (start, end) = part(asked).unwrap();
        let (bytes, end) = (blob(asked, content), start + (end - start).div_ceil(3));
        let range = format!("bytes {start}-{}/*", end - 1);
        Some(Reply::new(206, &bytes[start..end]).header("Content-Range", range))
    }),
    ("more than was asked for", |asked, content, _| {
        let (start, _) = part(asked).unwrap();
        let bytes = blob(asked, content);
        let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
        Some(Reply::new(206, &bytes[start..]).header("Content-Range", range))
    }),
    ("cut at times", |asked, content, count| {
        (count % 2 == 0).then(|| content.answer(asked).cut(PART / 2))
    }),
    ("cut always", |asked, content, _| Some(content.answer(asked).cut(100))),
    ("never answered", |_, _, _| Some(Reply::new(206, "x").cut(0))),
    ("busy at times", |_, _, count| {
        (count % 3 == 0).then(|| Reply::new(503, "").header("Retry-After", "0"))
    }),
    ("busy", |_, _, count| (count >= 2).then(|| Reply::new(503, ""))),
    ("too many requests", |_, _, count| {
        (count >= 1).then(|| Reply::new(429, "").header("Retry-After", "86400"))
    }),
    ("not satisfiable", |_, _, _| Some(Reply::new(416, ""))),
    ("gone", |_, _, count| (count >= 3).then(|| unknown("BLOB_UNKNOWN"))),
    ("forbidden", |_, _, count| (count >= 3).then(|| Reply::new(403, ""))),
    ("around in circles", |asked, _, _| {
        Some(Reply::new(307, "").header("Location", asked.path.clone()))
    }),
];

#[test]
fn what_is_wrong_with_parts_is_borne() {
    // Side by side, since they mostly wait.
    std::thread::scope(|scope| {
        for (name, fault) in BORNE {
            scope.spawn(move || {
                let (server, _) = faulty(fault);
                let place = Place::new();
                let result = pull(&place, &server);
                assert_eq!(result, Ok(()), "{name}");
                assert!(!parts(&server).is_empty(), "{name}");
                assert!(place.files("content/partial").is_empty(), "{name}");
            });
        }
    });
}

#[test]
fn a_server_that_wants_to_be_left_alone_is() {
    let (server, content) =
        faulty(|_, _, _| Some(Reply::new(429, "").header("Retry-After", "86400")));
    pull(&Place::new(), &server).unwrap();
    assert!(parts(&server).len() <= 3, "{:?}", parts(&server));
    // The one connection never was given up.
    let layers = server.asked().into_iter().filter(|asked| is_layer(asked, &content));
    assert_eq!(layers.count(), 1 + parts(&server).len());
}

#[test]
fn what_comes_in_parts_is_what_its_digest_says_or_is_refused() {
    let (server, _) = faulty(|asked, content, count| {
        (count == 5).then(|| {
            let mut reply = content.answer(asked);
            reply.body[1000] ^= 1;
            reply
        })
    });
    let place = Place::new();
    let error = pull(&place, &server).unwrap_err();
    assert!(error.contains("digest") || error.contains("corrupt"), "{error}");
    assert!(place.is_empty());
    assert!(place.files("content/partial").is_empty());
}

#[test]
fn a_blob_that_changes_is_refused() {
    let other = content(&[SIZE + 1000]);
    let (server, _) = faulty(move |asked, content, _| {
        let (start, end) = part(asked).unwrap();
        let size = blob(asked, content).len();
        let bytes = other.blobs.values().find(|bytes| bytes.len() > SIZE).unwrap();
        let range = format!("bytes {start}-{}/{size}", end - 1);
        Some(Reply::new(206, &bytes[start..end]).header("Content-Range", range))
    });
    let place = Place::new();
    pull(&place, &server).unwrap_err();
    assert!(place.is_empty());
    assert!(place.files("content/partial").is_empty());
}

#[test]
fn a_pull_that_breaks_off_among_parts_goes_on_later() {
    let content = content(&[SIZE]);
    let (throttle, served) = (Throttle::default(), content.clone());
    let broken = Arc::new(AtomicBool::new(true));
    let (count, is_broken) = (AtomicUsize::new(0), Arc::clone(&broken));
    let server = Server::start(move |asked| {
        let reply = throttle.answer(asked, &served);
        let is_late = part(asked).is_some() && count.fetch_add(1, Ordering::SeqCst) >= 6;
        let is_again = asked.range().is_some() && part(asked).is_none();
        let cuts = is_broken.load(Ordering::SeqCst) && (is_late || is_again);
        if cuts { reply.cut(0) } else { reply }
    });
    let place = Place::new();
    let error = pull(&place, &server).unwrap_err();
    assert!(error.contains("EOF"), "{error}");
    let kept = place.files("content/partial");
    assert_eq!(kept.len(), 1);
    let kept = place.directory.path().join("content/partial").join(&kept[0]);
    let kept = usize::try_from(fs_err::metadata(kept).unwrap().len()).unwrap();
    assert!(kept >= 4 * PART, "{kept}");
    broken.store(false, Ordering::SeqCst);
    let before = server.asked().len();
    pull(&place, &server).unwrap();
    let again: Vec<_> = server.asked()[before..].iter().filter_map(Asked::range).collect();
    assert_eq!(again[0].0, kept);
    assert!(again.iter().all(|(start, _)| *start >= kept), "{again:?}");
}

#[test]
fn a_server_that_sends_less_than_the_rest_is_asked_on() {
    let content = content(&[SIZE]);
    let served = content.clone();
    let server = Server::start(move |asked| {
        let mut reply = served.answer(asked);
        if !is_layer(asked, &served) {
            return reply;
        }
        match asked.range() {
            None => reply.cut(300_000),
            Some((start, _)) => {
                reply.body.truncate(100_000);
                let last = start + reply.body.len() - 1;
                Reply::new(206, reply.body)
                    .header("Content-Range", format!("bytes {start}-{last}/*"))
            }
        }
    });
    Place::new().pull(&server).unwrap();
    assert!(server.asked().iter().filter_map(Asked::range).count() >= 5);
}

#[test]
fn a_server_that_refuses_the_rest_sends_all() {
    let content = content(&[SIZE]);
    let (served, count) = (content.clone(), AtomicUsize::new(0));
    let server = Server::start(move |asked| {
        let reply = served.answer(asked);
        let is_first = is_layer(asked, &served) && count.fetch_add(1, Ordering::SeqCst) == 0;
        match asked.range() {
            Some(_) => Reply::new(416, ""),
            None if is_first => reply.cut(300_000),
            None => reply,
        }
    });
    Place::new().pull(&server).unwrap();
    let asked: Vec<_> =
        server.asked().into_iter().filter(|asked| is_layer(asked, &content)).collect();
    assert_eq!(asked.len(), 3);
}

/// A registry whose first token is good for a few requests, with blobs on another host.
fn guarded(content: &Content) -> (Server, Server, Arc<AtomicUsize>) {
    let (throttle, files) = (Throttle::default(), content.clone());
    let storage = Server::start(move |asked| throttle.answer(asked, &files));
    let issued = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&issued);
    let tokens = Server::start(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        Reply::new(200, format!(r#"{{"token":"t{number}","expires_in":300}}"#))
    });
    let (realm, other, content) =
        (tokens.address.clone(), storage.address.clone(), content.clone());
    let uses = AtomicUsize::new(0);
    let registry = Server::start(move |asked| {
        let token = asked.header("authorization");
        let is_old = token == "Bearer t0" && uses.fetch_add(1, Ordering::SeqCst) >= 6;
        if token.is_empty() || is_old {
            let challenge = format!(
                "Bearer realm=\"http://{realm}/token\",service=\"test\",scope=\"repository:app:pull\""
            );
            return Reply::new(401, "").header("WWW-Authenticate", challenge);
        }
        if asked.path.contains("/blobs/") {
            return Reply::new(307, "")
                .header("Location", format!("http://{other}{}?signature=x", asked.path));
        }
        content.answer(asked)
    });
    (registry, storage, issued)
}

#[test]
fn parts_go_where_they_are_led_without_secrets_and_tokens_are_renewed() {
    let content = content(&[SIZE]);
    let (registry, storage, issued) = guarded(&content);
    pull(&Place::new(), &registry).unwrap();
    assert!(parts(&storage).len() > 5, "{:?}", parts(&storage));
    assert!(storage.asked().iter().all(|asked| asked.header("authorization").is_empty()));
    // However many found at once that the first one was too old.
    assert_eq!(issued.load(Ordering::SeqCst), 2);
    // Each part was asked for where the registry is.
    assert!(parts(&registry).len() > parts(&storage).len());
}

#[test]
fn a_mirror_that_fails_among_parts_is_left() {
    let content = content(&[SIZE]);
    let (throttle, served) = (Throttle::default(), content.clone());
    let count = AtomicUsize::new(0);
    let mirror = Server::start(move |asked| {
        let reply = throttle.answer(asked, &served);
        match asked.range() {
            Some((_, Some(_))) if count.fetch_add(1, Ordering::SeqCst) >= 4 => reply.cut(0),
            Some((_, None)) => Reply::new(502, ""),
            _ => reply,
        }
    });
    let server = Server::start(move |asked| content.answer(asked));
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("reg.example");
    fs_err::create_dir(&folder).unwrap();
    let hosts = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        server.address, mirror.address
    );
    fs_err::write(folder.join("hosts.toml"), hosts).unwrap();
    let config = Config { certificates: vec![directory.path().to_owned()], ..in_parts() };
    let place = Place::new();
    place.pull_by("reg.example", &Credentials::default(), None, config).unwrap();
    assert!(parts(&mirror).len() > 4, "{:?}", parts(&mirror));
    let rest: Vec<_> = server.asked().iter().filter_map(Asked::range).collect();
    assert!(!rest.is_empty() && rest.iter().all(|(start, _)| *start > PART), "{rest:?}");
    assert!(place.files("content/partial").is_empty());
}

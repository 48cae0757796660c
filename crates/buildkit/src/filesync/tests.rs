//! Transfers with a client that is played.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::{Stream, StreamExt as _, stream};
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use silo_build::context::{Context as _, Filter, Transfer, Tree};
use silo_build::progress::Silent;
use silo_types::{Digest, Error};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service as _;

use super::send::Sender;
use super::{ClientFiles, Slots};
use crate::http2;
use crate::pb::fsutil::types::{Packet, Stat, packet::PacketType};
use crate::pb::moby::filesync::v1::file_sync_server::{FileSync, FileSyncServer};
use crate::session::Sessions;

/// What the client sends.
#[derive(Clone)]
enum Play {
    /// A directory.
    Directory(std::path::PathBuf),
    /// These packets, whatever is asked.
    Packets(Vec<Packet>),
}

#[derive(Clone)]
struct Client {
    play: Play,
    /// What was asked of it: patterns to exclude, and bytes of content sent.
    seen: Arc<Mutex<(Vec<String>, usize)>>,
}

#[tonic::async_trait]
impl FileSync for Client {
    type DiffCopyStream = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let excludes = request.metadata().get_all("exclude-patterns").iter();
        let excludes = excludes.map(|value| value.to_str().unwrap().to_owned()).collect();
        self.seen.lock().unwrap().0 = excludes;
        let directory = match &self.play {
            Play::Packets(packets) => {
                let packets = packets.clone().into_iter().map(Ok);
                return Ok(Response::new(stream::iter(packets).boxed()));
            }
            Play::Directory(directory) => directory.clone(),
        };
        let mut incoming = request.into_inner();
        let (queue, mut packets) = mpsc::channel(4);
        let (asked, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(packet)) = incoming.message().await {
                if asked.send((packet.r#type(), packet.id)).is_err() {
                    break;
                }
            }
        });
        tokio::task::spawn_blocking(move || {
            let root = silo_sys::path::open_root(directory).unwrap();
            // Fails when the builder is not content; the test sees why.
            drop(Sender::new(root, queue).run(requests));
        });
        let seen = Arc::clone(&self.seen);
        let packets = stream::poll_fn(move |cx| packets.poll_recv(cx)).map(move |packet| {
            seen.lock().unwrap().1 += packet.data.len();
            Ok(packet)
        });
        Ok(Response::new(packets.boxed()))
    }
}

/// What a build gets of a client's files, and what the client saw.
struct Outcome {
    tree: Result<Arc<Tree>, Error>,
    excludes: Vec<String>,
    content: usize,
}

async fn fetch(slots: &Arc<Slots>, play: Play, filter: Filter) -> Outcome {
    let client = Client { play, seen: Arc::default() };
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = client.clone();
    let served = tokio::spawn(http2::serve(far, move |request| {
        let mut server = FileSyncServer::new(server.clone());
        async move {
            match server.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    }));
    let mut headers = HeaderMap::new();
    headers.insert("x-docker-expose-session-uuid", HeaderValue::from_static("one"));
    headers.insert(
        "x-docker-expose-session-grpc-method",
        HeaderValue::from_static("/moby.filesync.v1.FileSync/DiffCopy"),
    );
    let sessions = Arc::new(Sessions::default());
    let description = Sessions::describe(&headers).unwrap();
    let running = tokio::spawn({
        let sessions = Arc::clone(&sessions);
        async move { sessions.run(description, near).await }
    });
    let session = sessions.get("one").await.unwrap();
    let files = ClientFiles::new(session, Arc::clone(slots), "context", "hint");
    let to = Transfer { progress: &Silent, vertex: Digest::from_sha256([0; 32]) };
    let tree = files.tree(&filter, &to).await;
    drop(files);
    served.abort();
    running.abort();
    let (excludes, content) = client.seen.lock().unwrap().clone();
    Outcome { tree, excludes, content }
}

/// Every file below a directory, in one text.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs_err::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let at = path.strip_prefix(root).unwrap().display().to_string();
            let metadata = fs_err::symlink_metadata(&path).unwrap();
            let content = if metadata.is_symlink() {
                fs_err::read_link(&path).unwrap().display().to_string()
            } else if metadata.is_dir() {
                open.push(path);
                String::new()
            } else {
                fs_err::read_to_string(&path).unwrap()
            };
            let (mode, uid) = (metadata.mode(), metadata.uid());
            let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
            lines.push(format!("{at} {mode:o} {uid} {seconds}.{nanoseconds} {content:?}"));
        }
    }
    lines.sort();
    lines
}

fn slots(directory: &Path) -> Arc<Slots> {
    Arc::new(Slots::open(directory.join("contexts")).unwrap())
}

/// The only directory of the only key.
fn kept(directory: &Path) -> std::path::PathBuf {
    let keys: Vec<_> = fs_err::read_dir(directory.join("contexts")).unwrap().collect();
    assert_eq!(keys.len(), 1);
    keys.into_iter().next().unwrap().unwrap().path().join("0")
}

#[tokio::test]
async fn only_what_changed_travels() {
    let directory = tempfile::tempdir().unwrap();
    let (client, slots) = (directory.path().join("client"), slots(directory.path()));
    let write = |name: &str, text: &str| {
        let path = client.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    };
    write("a", "aaaa");
    write("sub/deep/b", "bb");
    write("sub.x", "not in sub");
    write("empty", "");
    write("gone/one", "1");
    fs_err::set_permissions(client.join("a"), PermissionsExt::from_mode(0o4751)).unwrap();
    fs_err::os::unix::fs::symlink("/etc/passwd", client.join("link")).unwrap();
    let play = || Play::Directory(client.clone());

    let filter = Filter { follow: Vec::new(), exclude: vec!["*.log".into(), "!é".into()] };
    let first = fetch(&slots, play(), filter.clone()).await;
    let tree = first.tree.unwrap();
    assert_eq!(first.content, "aaaa".len() + "bb".len() + "not in sub".len() + "1".len());
    // Text that is not ASCII travels escaped.
    assert_eq!(first.excludes, ["%2A.log", "%21%C3%A9"]);
    assert_eq!(listing(&kept(directory.path())), listing(&client));
    let known = rustix::fs::statat(tree.root(), "a", AtFlags::empty()).unwrap();
    assert!(tree.digests().get(&super::tree::version(&known)).is_some());
    drop(tree);

    let again = fetch(&slots, play(), filter.clone()).await;
    assert_eq!(again.content, 0);
    let tree = again.tree.unwrap();
    assert!(tree.digests().get(&super::tree::version(&known)).is_some());
    drop(tree);

    // A change, another type each way, and files that are gone.
    write("sub/deep/b", "changed");
    fs_err::remove_dir_all(client.join("gone")).unwrap();
    write("gone", "a file now");
    fs_err::remove_file(client.join("empty")).unwrap();
    fs_err::create_dir(client.join("empty")).unwrap();
    fs_err::remove_file(client.join("link")).unwrap();
    let later = fetch(&slots, play(), filter).await;
    later.tree.unwrap();
    assert_eq!(later.content, "changed".len() + "a file now".len());
    assert_eq!(listing(&kept(directory.path())), listing(&client));
}

#[tokio::test]
async fn files_of_any_size_arrive_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (client, slots) = (directory.path().join("client"), slots(directory.path()));
    fs_err::create_dir(&client).unwrap();
    let sizes = [0, 1, 511, 512, 513, 128 << 10, (128 << 10) + 1, (1 << 20) - 1, 3 << 20];
    for size in sizes {
        let text: String = ('a'..='y').cycle().take(size).collect();
        fs_err::write(client.join(size.to_string()), text).unwrap();
    }
    let outcome = fetch(&slots, Play::Directory(client.clone()), Filter::default()).await;
    let tree = outcome.tree.unwrap();
    assert_eq!(outcome.content, sizes.iter().sum::<usize>());
    assert_eq!(listing(&kept(directory.path())), listing(&client));
    for size in sizes {
        let stat = rustix::fs::statat(tree.root(), size.to_string(), AtFlags::empty()).unwrap();
        assert!(tree.digests().get(&super::tree::version(&stat)).is_some(), "{size}");
    }
}

#[tokio::test]
async fn a_file_of_the_same_time_and_size_is_taken_for_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let (client, slots) = (directory.path().join("client"), slots(directory.path()));
    fs_err::create_dir(&client).unwrap();
    let time = Timespec { tv_sec: 1_000_000, tv_nsec: 5 };
    let times = Timestamps { last_access: time, last_modification: time };
    for (text, content) in [("one", 3), ("two", 0)] {
        fs_err::write(client.join("f"), text).unwrap();
        rustix::fs::utimensat(CWD, client.join("f"), &times, AtFlags::empty()).unwrap();
        let outcome = fetch(&slots, Play::Directory(client.clone()), Filter::default()).await;
        outcome.tree.unwrap();
        assert_eq!(outcome.content, content);
    }
}

#[tokio::test]
async fn builds_at_the_same_time_have_directories_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let (client, slots) = (directory.path().join("client"), slots(directory.path()));
    fs_err::create_dir(&client).unwrap();
    fs_err::write(client.join("f"), "x").unwrap();
    let play = || Play::Directory(client.clone());
    let first = fetch(&slots, play(), Filter::default()).await.tree.unwrap();
    let second = fetch(&slots, play(), Filter::default()).await;
    assert_eq!(second.content, 1, "nothing was there yet");
    let second = second.tree.unwrap();
    let inode = |tree: &Tree| rustix::fs::fstat(tree.root()).unwrap().st_ino;
    assert_ne!(inode(&first), inode(&second));
    drop((first, second));
    assert_eq!(fetch(&slots, play(), Filter::default()).await.content, 0);
}

fn stat(path: &str, mode: u32) -> Packet {
    let stat = Stat { path: path.to_owned(), mode, size: 1, ..Stat::default() };
    Packet { stat: Some(stat), ..Packet::default() }
}

fn link(path: &str, target: &str, mode: u32) -> Packet {
    let linkname = target.to_owned();
    let stat = Stat { path: path.to_owned(), mode, linkname, ..Stat::default() };
    Packet { stat: Some(stat), ..Packet::default() }
}

fn packet(kind: PacketType, id: u32, data: &'static [u8]) -> Packet {
    Packet { r#type: kind.into(), id, data: data.into(), stat: None }
}

#[tokio::test]
async fn a_hostile_client_reaches_nothing_outside() {
    const DIRECTORY: u32 = 1 << 31 | 0o755;
    const SYMLINK: u32 = 1 << 27 | 0o777;
    let end = || Packet::default();
    let outside = tempfile::tempdir().unwrap();
    fs_err::write(outside.path().join("secret"), "secret").unwrap();
    let out = outside.path().display().to_string();
    let cases: Vec<(&str, Vec<Packet>)> = vec![
        ("parent", vec![stat("../x", 0o644), end()]),
        ("absolute", vec![stat("/x", 0o644), end()]),
        ("dots inside", vec![stat("a", DIRECTORY), stat("a/../b", 0o644), end()]),
        ("not clean", vec![stat("a", DIRECTORY), stat("a//b", 0o644), end()]),
        ("dot", vec![stat("./b", 0o644), end()]),
        ("empty name", vec![stat("", 0o644), end()]),
        ("zero byte", vec![stat("a\0b", 0o644), end()]),
        ("no parent", vec![stat("a/b", 0o644), end()]),
        ("a file as parent", vec![stat("a", 0o644), stat("a/b", 0o644), end()]),
        ("a link as parent", vec![link("a", &out, SYMLINK), stat("a/secret", 0o644), end()]),
        ("backwards", vec![stat("b", 0o644), stat("a", 0o644), end()]),
        ("twice", vec![stat("a", 0o644), stat("a", 0o644), end()]),
        (
            "a directory that was left",
            vec![stat("a", DIRECTORY), stat("b", 0o644), stat("a/c", 0o644), end()],
        ),
        ("a hard link out", vec![link("a", &format!("{out}/secret"), 0o644), end()]),
        ("a hard link up", vec![link("a", "../../../secret", 0o644), end()]),
        (
            "a hard link through a link",
            vec![link("a", &out, SYMLINK), link("b", "a/secret", 0o644), end()],
        ),
        ("a hard link to a link", vec![link("a", "secret", SYMLINK), link("b", "a", 0o644), end()]),
        ("content nobody wanted", vec![packet(PacketType::PacketData, 7, b"x")]),
        (
            "content of a directory",
            vec![stat("a", DIRECTORY), packet(PacketType::PacketData, 0, b"x")],
        ),
        ("no type", vec![stat("a", 1 << 31 | 1 << 27), end()]),
        ("a file after the last", vec![end(), stat("a", 0o644)]),
        ("a request", vec![packet(PacketType::PacketReq, 0, b"")]),
        ("an early end", vec![packet(PacketType::PacketFin, 0, b"")]),
        ("nothing at all", vec![]),
        ("content that stops", vec![stat("a", 0o644), end()]),
        ("an error", vec![packet(PacketType::PacketErr, 0, b"no")]),
    ];
    for (name, packets) in cases {
        let directory = tempfile::tempdir().unwrap();
        let slots = slots(directory.path());
        let outcome = fetch(&slots, Play::Packets(packets), Filter::default()).await;
        assert!(outcome.tree.is_err(), "{name}");
        assert_eq!(listing(outside.path()).len(), 1, "{name}");
        let secret = fs_err::read_to_string(outside.path().join("secret")).unwrap();
        assert_eq!(secret, "secret", "{name}");
    }
}

#[tokio::test]
async fn devices_and_labels_stay_with_the_client() {
    const DEVICE: u32 = 1 << 26 | 1 << 21 | 0o666;
    let directory = tempfile::tempdir().unwrap();
    let slots = slots(directory.path());
    let mut file = stat("f", 0o644);
    let xattrs = [("user.a", "1"), ("trusted.overlay.opaque", "y"), ("security.selinux", "x")];
    file.stat.as_mut().unwrap().xattrs =
        xattrs.map(|(name, value)| (name.to_owned(), value.into())).into();
    let packets = vec![
        stat("a", DEVICE),
        file,
        Packet::default(),
        packet(PacketType::PacketData, 1, b"x"),
        packet(PacketType::PacketData, 1, b""),
        packet(PacketType::PacketFin, 0, b""),
    ];
    let outcome = fetch(&slots, Play::Packets(packets), Filter::default()).await;
    let tree = outcome.tree.unwrap();
    let kept = kept(directory.path());
    assert_eq!(listing(&kept).len(), 1);
    let mut names = vec![0; 1024];
    let count = rustix::fs::listxattr(kept.join("f"), &mut names).unwrap();
    assert_eq!(&names[..count], b"user.a\0");
    drop(tree);
}

#[test]
fn contexts_go_with_the_cache_and_when_there_are_many() {
    let directory = tempfile::tempdir().unwrap();
    let slots = slots(directory.path());
    let held = slots.take("held").unwrap();
    for number in 0..80 {
        let slot = slots.take(&format!("key {number}")).unwrap();
        fs_err::write(slot.path().join("f"), "x".repeat(5000)).unwrap();
    }
    let records = slots.records();
    assert!(records.len() <= 65, "{}", records.len());
    assert!(records.iter().any(|record| record.in_use));
    let remove = |id: &str| silo_build::Kept::remove(&*slots, id);
    assert!(!remove("another"));
    for record in &records {
        assert_eq!(remove(&record.id), !record.in_use, "{record:?}");
    }
    assert_eq!(slots.records().len(), 1, "what is used stays");
    drop(held);
    assert!(remove(&slots.records()[0].id));
    assert_eq!(fs_err::read_dir(directory.path().join("contexts")).unwrap().count(), 0);
}

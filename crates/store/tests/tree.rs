//! `docker cp` and `docker export`: trees out, trees in, and programs that swap links
//! meanwhile.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::collections::HashMap;
use std::io::{Cursor, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use silo_archive::{Entry, EntryKind, Reader, Writer};
use silo_store::tree::{Observer, UnpackOptions, export, pack, unpack_into};

fn root(path: &Path) -> OwnedFd {
    silo_sys::path::open_root(path).unwrap()
}

fn tar(entries: &[(EntryKind, &str, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (kind, path, text) in entries {
        let mut entry = Entry::new(*kind, *path, 0o755);
        if *kind == EntryKind::Regular {
            entry.size = text.len() as u64;
        } else {
            entry.link = text.as_bytes().to_vec();
        }
        (entry.uid, entry.gid) = (12, 34);
        writer.append(&entry, &mut text.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(tar);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8(entry.path).unwrap());
    }
    names
}

/// Remembers what it heard of.
#[derive(Debug, Default)]
struct Ears(Mutex<HashMap<u64, [u8; 32]>>);

impl Observer for Ears {
    fn file(&self, stat: &rustix::fs::Stat, sha256: [u8; 32]) {
        self.0.lock().unwrap().insert(stat.st_ino, sha256);
    }
}

#[test]
fn files_are_hashed_on_their_way() {
    use sha2::{Digest as _, Sha256};
    let large = "x".repeat(5 << 20);
    let mut entries = vec![
        (EntryKind::Regular, "large", large.as_str()),
        (EntryKind::Regular, "empty", ""),
        (EntryKind::Regular, "again", "first"),
        (EntryKind::Directory, "sub/", ""),
    ];
    let many: Vec<(String, String)> =
        (0..300).map(|n| (format!("sub/f{n}"), format!("text {n}"))).collect();
    entries.extend(many.iter().map(|(path, text)| (EntryKind::Regular, &**path, &**text)));
    entries.push((EntryKind::Regular, "again", "second"));
    let archive = tar(&entries);
    for is_new in [false, true] {
        let to = tempfile::tempdir().unwrap();
        let ears = Arc::new(Ears::default());
        let observer: Arc<dyn Observer> = Arc::clone(&ears) as _;
        let options =
            UnpackOptions { is_new, observer: Some(&observer), ..UnpackOptions::default() };
        unpack_into(root(to.path()), Path::new("/"), Cursor::new(&archive), options).unwrap();
        let heard = ears.0.lock().unwrap();
        for (_, path, _) in entries.iter().filter(|entry| entry.0 == EntryKind::Regular) {
            let path = to.path().join(path);
            let expected: [u8; 32] = Sha256::digest(fs_err::read(&path).unwrap()).into();
            assert_eq!(heard.get(&path.metadata().unwrap().ino()), Some(&expected), "{path:?}");
        }
        assert_eq!(fs_err::read(to.path().join("again")).unwrap(), b"second");
    }
}

#[test]
fn out_and_in_again() {
    let from = tempfile::tempdir().unwrap();
    let path = from.path();
    fs_err::create_dir_all(path.join("etc/sub")).unwrap();
    fs_err::write(path.join("etc/a"), b"a").unwrap();
    fs_err::hard_link(path.join("etc/a"), path.join("etc/sub/b")).unwrap();
    symlink("/etc/a", path.join("etc/link")).unwrap();
    symlink("/etc", path.join("dir")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(path.join("etc/socket")).unwrap();
    let packed = |at: &str, name: &[u8]| {
        let mut out = Vec::new();
        pack(root(path), Path::new(at), name, &mut out).unwrap();
        out
    };
    let whole = packed("/dir/../etc", b"new");
    assert_eq!(names(&whole), ["new/", "new/a", "new/link", "new/sub/", "new/sub/b"]);
    assert_eq!(names(&packed("/dir/a", b"a")), ["a"]);
    assert_eq!(names(&packed("/dir", b"dir")), ["dir"]);
    assert_eq!(names(&packed("/", b"."))[0], "./");
    let mut all = Vec::new();
    export(root(path), &mut all).unwrap();
    assert_eq!(names(&all)[..3], ["dir", "etc/", "etc/a"]);
    drop(socket);
    assert!(pack(root(path), Path::new("/missing"), b"x", Vec::new()).is_err());

    let to = tempfile::tempdir().unwrap();
    let options = UnpackOptions { owner: Some((5, 6)), ..UnpackOptions::default() };
    unpack_into(root(to.path()), Path::new("/"), Cursor::new(whole), options).unwrap();
    let a = to.path().join("new/a").metadata().unwrap();
    assert_eq!((a.uid(), a.gid(), a.nlink()), (5, 6, 2));
    let mut command = Command::new("tar");
    command.args(["-tf", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut listed = command.spawn().unwrap();
    listed.stdin.take().unwrap().write_all(&all).unwrap();
    let text = String::from_utf8(listed.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(text.lines().collect::<Vec<_>>(), names(&all));
}

#[test]
fn directories_and_others_do_not_replace_each_other_unless_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs_err::create_dir(path.join("d")).unwrap();
    fs_err::write(path.join("f"), b"f").unwrap();
    let careful = UnpackOptions { no_overwrite_dir_non_dir: true, ..UnpackOptions::default() };
    let unpack = |entries: &[(EntryKind, &str, &str)], options| {
        unpack_into(root(path), Path::new("/"), Cursor::new(tar(entries)), options)
    };
    let error = unpack(&[(EntryKind::Regular, "d", "x")], careful).unwrap_err().to_string();
    assert!(error.contains("cannot overwrite directory"), "{error}");
    let error = unpack(&[(EntryKind::Directory, "f", "")], careful).unwrap_err().to_string();
    assert!(error.contains("cannot overwrite non-directory"), "{error}");
    unpack(&[(EntryKind::Regular, "f", "new")], careful).unwrap();
    assert_eq!(fs_err::read(path.join("f")).unwrap(), b"new");
    unpack(&[(EntryKind::Regular, "d", "x")], UnpackOptions::default()).unwrap();
    assert!(path.join("d").is_file());
    // Names of layers mean nothing here.
    unpack(&[(EntryKind::Regular, ".wh.f", "")], careful).unwrap();
    assert!(path.join("f").exists() && path.join(".wh.f").exists());
    assert!(unpack(&[(EntryKind::Regular, "../x", "")], careful).is_err());
    let zipped = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&tar(&[(EntryKind::Regular, "z", "z")])).unwrap();
        encoder.finish().unwrap()
    };
    unpack_into(root(path), Path::new("/"), Cursor::new(zipped), careful).unwrap();
    assert!(path.join("z").exists());
}

#[test]
fn links_that_are_swapped_meanwhile_lead_nowhere() {
    // CVE-2018-15664 and its like: a directory becomes a link to outside while cp runs.
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().join("outside");
    let inside = directory.path().join("root");
    fs_err::create_dir_all(inside.join("a/b")).unwrap();
    fs_err::create_dir_all(outside.join("b")).unwrap();
    fs_err::write(outside.join("b/secret"), b"secret").unwrap();
    fs_err::write(inside.join("a/b/secret"), b"mine").unwrap();
    symlink("../outside", inside.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            let at = root(&inside);
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(&at, "a", &at, "link", flags).unwrap();
            }
        });
        let entries = [
            (EntryKind::Directory, "a/b/", ""),
            (EntryKind::Regular, "a/b/evil", "evil"),
            (EntryKind::Regular, "a/b/secret", "evil"),
            (EntryKind::Symlink, "a/b/l", "x"),
        ];
        for _ in 0..400 {
            let options = UnpackOptions::default();
            // Whether it works depends on the moment; where it writes must not.
            drop(unpack_into(root(&inside), Path::new("/"), Cursor::new(tar(&entries)), options));
            let mut out = Vec::new();
            drop(pack(root(&inside), Path::new("/a/b/secret"), b"s", &mut out));
            assert!(!out.windows(6).any(|window| window == b"secret"));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let left: Vec<_> =
        fs_err::read_dir(outside.join("b")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["secret"]);
    assert_eq!(fs_err::read(outside.join("b/secret")).unwrap(), b"secret");
}

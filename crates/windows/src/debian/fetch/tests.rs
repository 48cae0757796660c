use std::sync::Arc;

use super::super::openpgp::signer::Signer;
use super::super::server::{Answer, Request, Server};
use super::*;

struct Nobody;

impl Watch for Nobody {
    fn bytes(&self, _: u64, _: u64) {}
    fn note(&self, _: &str) {}
}

/// A mirror with one package, a fetcher of it, and what the index says of it.
fn prepared(content: &[u8]) -> (tempfile::TempDir, Fetcher, Package) {
    let directory = tempfile::tempdir().unwrap();
    let (mirror, cache) = (directory.path().join("debian"), directory.path().join("cache"));
    fs::create_dir_all(mirror.join("pool")).unwrap();
    fs::create_dir(&cache).unwrap();
    fs::write(mirror.join("pool/a.deb"), content).unwrap();
    let mirror = Mirror::new(&format!("file://{}", mirror.display()), |_| None).unwrap();
    let suite = Suite { mirror, name: "trixie".to_owned(), required: true };
    let package = Package {
        name: "a".to_owned(),
        architecture: "amd64".to_owned(),
        version: "1".to_owned(),
        path: "pool/a.deb".to_owned(),
        size: content.len() as u64,
        digest: Digest::from_sha256(Sha256::digest(content).into()),
        depends: Vec::new(),
        suite: 0,
    };
    let fetcher = Fetcher::new(vec![suite], cache);
    (directory, fetcher, package)
}

fn fetch(fetcher: &Fetcher, package: &Package) -> Result<Vec<u8>, Error> {
    let fetched =
        fetcher.packages(std::slice::from_ref(package), &Nobody, &AtomicBool::new(false))?;
    Ok(fs::read(&fetched[0].file).unwrap())
}

#[test]
fn packages_are_fetched_once_and_completed() {
    let (directory, fetcher, package) = prepared(b"content");
    let part = fetcher.cache.join(format!("{}.part", package.digest.hex()));
    fs::write(&part, "cont").unwrap();
    assert_eq!(fetch(&fetcher, &package).unwrap(), b"content");
    assert!(!part.exists());
    fs::remove_dir_all(directory.path().join("debian")).unwrap();
    assert_eq!(fetch(&fetcher, &package).unwrap(), b"content", "it is in the cache");
}

#[test]
fn other_contents_are_refused_and_forgotten() {
    let (directory, fetcher, package) = prepared(b"content");
    for (content, what) in [(&b"CONTENT"[..], "checksum"), (b"content and more", "size")] {
        fs::write(directory.path().join("debian/pool/a.deb"), content).unwrap();
        match fetch(&fetcher, &package) {
            Err(Error::Mismatch { what: told, .. }) => assert_eq!(told, what),
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read_dir(&fetcher.cache).unwrap().count(), 0);
    }
    fs::remove_file(directory.path().join("debian/pool/a.deb")).unwrap();
    assert!(matches!(fetch(&fetcher, &package), Err(Error::Missing(_))));
    assert_eq!(fs::read_dir(&fetcher.cache).unwrap().count(), 0);
}

#[test]
fn a_wrong_part_is_noticed() {
    let (_directory, fetcher, package) = prepared(b"content");
    let part = fetcher.cache.join(format!("{}.part", package.digest.hex()));
    fs::write(&part, "wron").unwrap();
    assert!(matches!(fetch(&fetcher, &package), Err(Error::Mismatch { .. })));
    assert_eq!(fetch(&fetcher, &package).unwrap(), b"content");
}

/// Remembers the notes.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Watch for Notes {
    fn bytes(&self, _: u64, _: u64) {}
    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// A mirror by HTTP of one file; `answer` is told how often it was asked already.
fn served(
    content: &'static [u8],
    mut answer: impl FnMut(usize, &Request) -> Answer + Send + 'static,
) -> (tempfile::TempDir, Server, Fetcher, Package) {
    let (directory, mut fetcher, package) = prepared(content);
    let mut count = 0;
    let server = Server::start(move |request| {
        count += 1;
        answer(count - 1, request)
    });
    fetcher.suites[0].mirror = Mirror::new(&server.address("debian"), |_| None).unwrap();
    (directory, server, fetcher, package)
}

#[test]
fn transfers_that_break_off_go_on() {
    let offsets = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&offsets);
    let (_directory, _server, fetcher, package) = served(b"all of it", move |count, request| {
        seen.lock().unwrap().push(request.offset);
        let offset = request.offset.unwrap_or(0);
        let rest = &b"all of it"[offset..];
        // Three bytes at a time.
        if count < 2 {
            Answer::Cut(offset, rest[..3].to_vec(), rest.len())
        } else {
            request.content(b"all of it")
        }
    });
    assert_eq!(fetch(&fetcher, &package).unwrap(), b"all of it");
    assert_eq!(*offsets.lock().unwrap(), [None, Some(3), Some(6)]);
}

#[test]
fn what_came_of_a_broken_transfer_is_kept() {
    let (_directory, _server, fetcher, package) = served(b"all of it", |count, request| {
        let rest = &b"all of it"[request.offset.unwrap_or(0)..];
        match count {
            0 => Answer::Cut(0, rest[..3].to_vec(), rest.len()),
            // Nothing comes any more: it is not asked for ever.
            1 => Answer::Cut(3, Vec::new(), rest.len()),
            _ => request.content(b"all of it"),
        }
    });
    assert!(matches!(fetch(&fetcher, &package), Err(Error::Fetch { .. })));
    let part = fetcher.cache.join(format!("{}.part", package.digest.hex()));
    assert_eq!(fs::read(part).unwrap(), b"all");
    assert_eq!(fetch(&fetcher, &package).unwrap(), b"all of it");
}

#[test]
fn a_stopped_transfer_is_not_taken_up_again() {
    let (_directory, _server, fetcher, package) = served(b"all of it", |count, request| {
        assert_eq!(count, 0, "it was asked again");
        request.content(b"all of it")
    });
    let packages = std::slice::from_ref(&package);
    let stopped = fetcher.packages(packages, &Nobody, &AtomicBool::new(true));
    assert!(matches!(stopped, Err(Error::Fetch { .. })), "{stopped:?}");
}

/// What a file on a mirror is, by its path below `debian/`.
type Files = Vec<(String, Vec<u8>)>;

const INDEX: &str = "Package: a\nVersion: 1\nArchitecture: amd64\nFilename: pool/a.deb\nSize: 1\n\
    SHA256: 0000000000000000000000000000000000000000000000000000000000000000\n";

/// The files of a suite with one index.
fn suite(name: &str, release: &str, index: &[u8], signer: &Signer) -> Files {
    let sum = Digest::from_sha256(Sha256::digest(index).into());
    let release = format!(
        "Codename: {name}\n{release}SHA256:\n {} {} main/binary-amd64/Packages",
        sum.hex(),
        index.len()
    );
    let base = format!("dists/{name}");
    vec![
        (format!("{base}/InRelease"), signer.clearsigned(&release).into_bytes()),
        (format!("{base}/main/binary-amd64/Packages"), index.to_vec()),
        (format!("{base}/main/binary-amd64/by-hash/SHA256/{}", sum.hex()), index.to_vec()),
    ]
}

/// The index of a mirror with these files, of which only `trixie` is required.
fn index(files: &Files, suites: &[&str]) -> (Result<Option<Package>, Error>, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = directory.path().join("debian").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let cache = directory.path().join("cache");
    fs::create_dir(&cache).unwrap();
    let address = format!("file://{}/debian", directory.path().display());
    let mirror = Mirror::new(&address, |_| None).unwrap();
    let suites = suites.iter().map(|name| Suite {
        mirror: mirror.clone(),
        name: (*name).to_owned(),
        required: *name == "trixie",
    });
    let fetcher = Fetcher::new(suites.collect(), cache).with_keyring(Signer::new(1).keyring());
    let notes = Notes::default();
    let indexes = fetcher.indexes(&["amd64"], &notes);
    let newest = indexes.and_then(|indexes| indexes[0].newest("a"));
    (newest, notes.0.into_inner().unwrap())
}

#[test]
fn releases_are_believed_as_they_are_signed() {
    let known = Signer::new(1);
    let files = |release: &str| suite("trixie", release, INDEX.as_bytes(), &known);
    assert_eq!(index(&files(""), &["trixie"]).0.unwrap().unwrap().version, "1");
    index(&files("Valid-Until: Fri, 31 Dec 9999 00:00:00 UTC\n"), &["trixie"]).0.unwrap();
    let strange = suite("trixie", "", INDEX.as_bytes(), &Signer::new(2));
    let mut changed = files("");
    let text = String::from_utf8(changed[0].1.clone()).unwrap();
    changed[0].1 = text.replace("Codename", "Suite: x\nCodename").into_bytes();
    let mut unsigned = files("");
    unsigned[0].1 = b"Codename: trixie\n".to_vec();
    let other = suite("bookworm", "", INDEX.as_bytes(), &known);
    let renamed: Files = other
        .into_iter()
        .map(|(path, bytes)| (path.replace("bookworm", "trixie"), bytes))
        .collect();
    let mut damaged = files("");
    damaged[1].1[0] ^= 1;
    let mut longer = files("");
    longer[1].1.push(b'x');
    for (files, message) in [
        (strange, "unknown keys: 0202"),
        (changed, "another text"),
        (unsigned, "it does not begin with a signed message"),
        (renamed, "it is of bookworm"),
        (files("Valid-Until: Thu, 20 Nov 2025 00:00:00 UTC\n"), "its time of validity is over"),
        (damaged, "another checksum than the index says"),
        (longer, "another size than the index says"),
        (files("")[..1].to_vec(), "the mirror has no "),
        (Vec::new(), "the mirror has no "),
    ] {
        let error = index(&files, &["trixie"]).0.unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
        let named = error.contains("dists/trixie/");
        assert!(named, "it does not say which file: {error}");
    }
}

#[test]
fn indexes_come_by_their_checksums() {
    let known = Signer::new(1);
    let mut files = suite("trixie", "Acquire-By-Hash: yes\n", INDEX.as_bytes(), &known);
    // The mirror is in the middle of an update.
    files[1].1 = b"newer".to_vec();
    assert_eq!(index(&files, &["trixie"]).0.unwrap().unwrap().version, "1");
    // Mirrors need not have them.
    files[1].1 = INDEX.into();
    files.truncate(2);
    assert_eq!(index(&files, &["trixie"]).0.unwrap().unwrap().version, "1");
}

#[test]
fn updates_are_taken_where_they_can_be_had() {
    let known = Signer::new(1);
    let base = suite("trixie", "", INDEX.as_bytes(), &known);
    let newer = INDEX.replace("Version: 1", "Version: 1+deb13u1");
    let updates = suite("trixie-security", "", newer.as_bytes(), &known);
    let all = [base.clone(), updates.clone()].concat();
    let suites = ["trixie", "trixie-security"];
    let (package, notes) = index(&all, &suites);
    let package = package.unwrap().unwrap();
    assert_eq!((package.version.as_str(), package.suite), ("1+deb13u1", 1));
    assert_eq!(notes, [""; 0]);

    let mut stale = all.clone();
    stale[4].1.pop();
    for files in [base.clone(), stale] {
        let (package, notes) = index(&files, &suites);
        assert_eq!(package.unwrap().unwrap().version, "1");
        assert_eq!(notes.len(), 1);
        assert!(notes[0].starts_with("going on without trixie-security: "), "{notes:?}");
    }
    // But somebody else's are never passed over.
    let forged = suite("trixie-security", "", newer.as_bytes(), &Signer::new(2));
    let error = index(&[base, forged].concat(), &suites).0.unwrap_err();
    assert!(matches!(error, Error::Signature { .. }), "{error}");
}

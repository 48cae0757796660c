//! Fetching: from a suite's signed release to packages in the cache.
//!
//! # On disk
//!
//!     <cache>/<sha256>.deb     a package, checked
//!     <cache>/<sha256>.index   an index, as the mirror has it, checked
//!     <cache>/<sha256>.part    what an interrupted download left; it goes on from there
//!
//! The names are the checksums of the whole files.

use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use fs_err as fs;
use sha2::{Digest as _, Sha256};
use silo_archive::compress;
use silo_types::Digest;

use super::index::{Index, Package};
use super::openpgp::Keyring;
use super::release::Release;
use super::signature;
use super::{Error, Mirror, keys};

/// Largest `InRelease`, in bytes; Debian's have 140 kB.
const MAX_RELEASE: u64 = 8 << 20;
/// Largest index, uncompressed, in bytes; Debian's have 55 MB.
const MAX_INDEX: u64 = 512 << 20;
/// Largest package, in bytes; Wine has 111 MB.
const MAX_PACKAGE: u64 = 1 << 30;
/// Downloads at a time.
const PARALLEL: usize = 4;

/// A suite of a mirror.
#[derive(Debug, Clone)]
pub struct Suite {
    /// The mirror that has it.
    pub mirror: Mirror,
    /// Its name under `dists/`.
    pub name: String,
    /// Whether nothing can be done without it. Others are left out, with a note, when the
    /// mirror cannot deliver them.
    pub required: bool,
}

/// A package in the cache.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// What the index says of it.
    pub package: Package,
    /// The file.
    pub file: PathBuf,
}

/// What goes on meanwhile; called from several threads.
pub trait Watch: Sync {
    /// Bytes that are there, of all that will be fetched.
    fn bytes(&self, have: u64, total: u64);
    /// Something the user should know, though it goes on.
    fn note(&self, text: &str);
}

/// Fetches from suites into a cache directory.
#[derive(Debug)]
pub struct Fetcher {
    suites: Vec<Suite>,
    cache: PathBuf,
    keyring: Keyring,
}

impl Fetcher {
    /// A fetcher that believes Debian's keys. The cache directory must exist.
    pub fn new(suites: Vec<Suite>, cache: PathBuf) -> Self {
        let keyring = keys::keyring(&keys::DEBIAN_13);
        let keyring = keyring.and_then(|keys| Keyring::parse(&keys)).unwrap_or_default();
        Self { suites, cache, keyring }
    }

    /// A fetcher that believes other keys.
    #[must_use]
    pub fn with_keyring(mut self, keyring: Keyring) -> Self {
        self.keyring = keyring;
        self
    }

    /// The indexes of an architecture in all suites, one for each of `architectures`.
    pub fn indexes(&self, architectures: &[&str], watch: &dyn Watch) -> Result<Vec<Index>, Error> {
        let mut indexes: Vec<Index> = architectures.iter().map(|_| Index::default()).collect();
        for (number, suite) in self.suites.iter().enumerate() {
            match self.suite(suite, architectures) {
                Ok(texts) => {
                    for (index, text) in indexes.iter_mut().zip(texts) {
                        index.add(number, text);
                    }
                }
                // A signature that does not hold is never passed over.
                Err(error @ Error::Signature { .. }) => return Err(error),
                Err(error) if suite.required => return Err(error),
                Err(error) => {
                    watch.note(&format!("going on without {}: {}", suite.name, chain(&error)));
                }
            }
        }
        Ok(indexes)
    }

    fn suite(&self, suite: &Suite, architectures: &[&str]) -> Result<Vec<String>, Error> {
        let path = format!("dists/{}/InRelease", suite.name);
        let malformed = |reason: &str| Error::Malformed {
            path: format!("{}/{path}", suite.mirror),
            reason: reason.to_owned(),
        };
        let file = suite.mirror.small(&path, MAX_RELEASE)?;
        let file = String::from_utf8(file).map_err(|_| malformed("it is no text"))?;
        let signed = signature::split(&file).map_err(malformed)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        self.keyring.check(&signed.text, &signed.signature, now).map_err(|reason| {
            Error::Signature { path: format!("{}/{path}", suite.mirror), reason }
        })?;
        let release = Release::parse(&signed.text).map_err(malformed)?;
        if release.codename != suite.name {
            return Err(malformed(&format!("it is of {}", release.codename)));
        }
        if release.valid_until.is_some_and(|until| until < i64::try_from(now).unwrap_or(i64::MAX)) {
            return Err(malformed("it is out of date: its time of validity is over"));
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = architectures
                .iter()
                .map(|architecture| scope.spawn(|| self.index(suite, &release, architecture)))
                .collect();
            threads.into_iter().map(join).collect()
        })
    }

    /// The text of one index; from the cache if it is there.
    fn index(&self, suite: &Suite, release: &Release, arch: &str) -> Result<String, Error> {
        let mut missing = None;
        for extension in [".xz", ".gz", ""] {
            let name = format!("main/binary-{arch}/Packages{extension}");
            let Some((digest, size)) = release.file(&name) else { continue };
            let path = format!("dists/{}/{name}", suite.name);
            // Under its own name a mirror may have another state of the file than is signed.
            let hashed =
                format!("dists/{}/main/binary-{arch}/by-hash/SHA256/{}", suite.name, digest.hex());
            for path in release.by_hash.then_some(hashed).iter().chain([&path]) {
                let wanted = Wanted { path, digest, size, extension: "index", limit: MAX_INDEX };
                match self.file(&suite.mirror, &wanted, &mut |_| Ok(())) {
                    Ok(file) => return read_index(&file, path),
                    Err(Error::Missing(path)) => missing = Some(path),
                    Err(error) => return Err(error),
                }
            }
        }
        Err(Error::Missing(missing.unwrap_or_else(|| format!("index of {arch} packages"))))
    }

    /// Fetches packages, several at a time. `stop` ends it early.
    pub fn packages(
        &self,
        packages: &[Package],
        watch: &dyn Watch,
        stop: &AtomicBool,
    ) -> Result<Vec<Fetched>, Error> {
        let total = packages.iter().map(|package| package.size).sum();
        let have = AtomicU64::new(0);
        // Large ones first, so that none of them is left alone at the end.
        let mut order: Vec<usize> = (0..packages.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(packages[*at].size));
        let queue = Mutex::new(order.into_iter());
        let work = || -> Result<Vec<(usize, Fetched)>, Error> {
            let mut fetched = Vec::new();
            loop {
                let next = queue.lock().ok().and_then(|mut queue| queue.next());
                let Some(at) = next else { return Ok(fetched) };
                let package = &packages[at];
                let suite = self.suites.get(package.suite).ok_or_else(|| {
                    Error::Missing(format!("suite of the package {}", package.name))
                })?;
                let mut progress = |count: u64| {
                    let have = have.fetch_add(count, Ordering::Relaxed) + count;
                    watch.bytes(have, total);
                    if stop.load(Ordering::Relaxed) {
                        return Err(io::Error::other("stopped"));
                    }
                    Ok(())
                };
                let wanted = Wanted {
                    path: &package.path,
                    digest: package.digest,
                    size: package.size,
                    extension: "deb",
                    limit: MAX_PACKAGE,
                };
                match self.file(&suite.mirror, &wanted, &mut progress) {
                    Ok(file) => fetched.push((at, Fetched { package: package.clone(), file })),
                    Err(error) => {
                        // The others need not go on.
                        if let Ok(mut queue) = queue.lock() {
                            queue.by_ref().for_each(drop);
                        }
                        return Err(error);
                    }
                }
            }
        };
        let mut all = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..PARALLEL).map(|_| scope.spawn(work)).collect();
            let mut all = Vec::new();
            for result in threads.into_iter().map(join).collect::<Vec<_>>() {
                all.extend(result?);
            }
            Ok(all)
        })?;
        all.sort_by_key(|(at, _)| *at);
        Ok(all.into_iter().map(|(_, fetched)| fetched).collect())
    }

    /// A file of known checksum in the cache, fetched or completed if it is not there. A
    /// transfer that breaks off is taken up again as long as something comes.
    fn file(
        &self,
        mirror: &Mirror,
        wanted: &Wanted<'_>,
        progress: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> Result<PathBuf, Error> {
        let Wanted { path, digest, size, extension, limit } = *wanted;
        let target = self.cache.join(format!("{}.{extension}", digest.hex()));
        let cached = |error| Error::File("cannot use the download cache", error);
        if size > limit {
            return Err(Error::Malformed {
                path: path.to_owned(),
                reason: format!("its size of {size} bytes is beyond {limit}"),
            });
        }
        if fs::metadata(&target).is_ok_and(|metadata| metadata.len() == size) {
            // Names are checksums, but disks fail and users copy: it is read once more.
            let mut file = fs::File::open(&target).map_err(cached)?;
            let (hasher, _) = prefix(&mut file).map_err(cached)?;
            if hasher.finalize()[..] == digest.as_bytes()[..] {
                progress(size).map_err(|source| fetching(mirror, path, source))?;
                return Ok(target);
            }
        }
        let part = self.cache.join(format!("{}.part", digest.hex()));
        // Bytes that were told of; those that come twice are not.
        let mut told = 0;
        loop {
            let before = told;
            let mut tell = |at: u64| {
                let more = at.saturating_sub(told);
                told = told.max(at);
                progress(more)
            };
            match attempt(mirror, wanted, &part, &mut tell) {
                Ok(()) => break,
                // Nothing more to tell: this only asks whether to go on.
                Err(Error::Fetch { .. }) if told > before && progress(0).is_ok() => {}
                Err(error) => return Err(error),
            }
        }
        fs::rename(&part, &target).map_err(cached)?;
        Ok(target)
    }
}

/// A file as an index or a release tells of it.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    path: &'a str,
    digest: Digest,
    size: u64,
    /// What its name in the cache ends with.
    extension: &'a str,
    /// Size that it may have, in bytes.
    limit: u64,
}

fn fetching(mirror: &Mirror, path: &str, source: io::Error) -> Error {
    Error::Fetch { path: format!("{mirror}/{path}"), source }
}

/// Fetches what of a file is not in `part` yet. `tell` is told how much of it is there.
fn attempt(
    mirror: &Mirror,
    wanted: &Wanted<'_>,
    part: &Path,
    tell: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<(), Error> {
    let Wanted { path, digest, size, .. } = *wanted;
    let cached = |error| Error::File("cannot use the download cache", error);
    let fetching = |source| fetching(mirror, path, source);
    // The file is made only once the mirror has something to put into it.
    let (mut hasher, mut have) = match fs::File::open(part) {
        Ok(mut file) => prefix(&mut file).map_err(cached)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Sha256::new(), 0),
        Err(error) => return Err(cached(error)),
    };
    if have > size {
        (hasher, have) = (Sha256::new(), 0);
    }
    let (start, mut body) = mirror.open(path, have)?;
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(part)
        .map_err(cached)?;
    if start != have {
        hasher = Sha256::new();
    }
    out.set_len(start).map_err(cached)?;
    let mut at = start;
    tell(at).map_err(fetching)?;
    io::Seek::seek(&mut out, io::SeekFrom::Start(start)).map_err(cached)?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(fetching(error)),
        };
        at += count as u64;
        if at > size {
            break;
        }
        out.write_all(&buffer[..count]).map_err(cached)?;
        hasher.update(&buffer[..count]);
        tell(at).map_err(fetching)?;
    }
    if at == size && Digest::from_sha256(hasher.finalize().into()) == digest {
        return Ok(());
    }
    drop(out);
    fs::remove_file(part).map_err(cached)?;
    let what = if at == size { "checksum" } else { "size" };
    Err(Error::Mismatch { path: format!("{mirror}/{path}"), what })
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Error::File("a download failed", io::Error::other("panic"))))
}

/// The hash of what is in a file already, and how much that is.
fn prefix(file: &mut fs::File) -> io::Result<(Sha256, u64)> {
    let mut hasher = Sha256::new();
    let mut have = 0;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((hasher, have));
        }
        hasher.update(&buffer[..count]);
        have += count as u64;
    }
}

fn read_index(file: &Path, path: &str) -> Result<String, Error> {
    let malformed = |reason: String| Error::Malformed { path: path.to_owned(), reason };
    let input = fs::File::open(file).map_err(|error| Error::File("cannot open an index", error))?;
    let detected = compress::detect(input);
    let (compression, input) = detected.map_err(|error| malformed(error.to_string()))?;
    let decoder = compress::decoder(compression, BufReader::with_capacity(256 << 10, input));
    let decoder = decoder.map_err(|error| malformed(error.to_string()))?;
    let mut text = String::new();
    decoder
        .take(MAX_INDEX)
        .read_to_string(&mut text)
        .map_err(|error| malformed(error.to_string()))?;
    if text.len() as u64 == MAX_INDEX {
        return Err(malformed(format!("it is larger than {MAX_INDEX} bytes")));
    }
    Ok(text)
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;

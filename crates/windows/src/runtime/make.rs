//! Making the runtime's trees.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use silo_archive::{Entry, EntryKind};

use super::place::{Place, place};
use super::{
    Error, LIBRARIES, Parts, Runtime, SERVER, UNIX, WINDOWS_32, WINDOWS_64, adjust, elf, list, pe,
};
use crate::debian::Fetched;
use crate::debian::archive::visit;
use crate::spool::Spool;
use crate::tree::{Node, Tree};

/// Largest file of a package that is wanted, in bytes. Wine's largest has 28 MB.
const MAX_FILE: u64 = 256 << 20;
/// Largest runtime, in bytes: less than this is promised.
const MAX_SIZE: u64 = 150_000_000;

/// Empty directories and files of the runtime, for the engine to mount upon.
const MOUNT_DIRECTORIES: [&str; 9] =
    ["c", "dev", "drives", "prefix", "proc", "root", "run", "sys", "tmp"];
const MOUNT_FILES: [&str; 4] =
    ["etc/hostname", "etc/hosts", "etc/resolv.conf", "usr/sbin/silo-init"];

/// What one package gives.
struct Part {
    tree: Tree,
    windows_32: Tree,
    certificates: BTreeMap<String, Vec<u8>>,
    /// What is changed for containers, as it is without that.
    stock: Tree,
}

/// Makes the runtime from packages. Contents are spooled in `directory`.
pub fn make(packages: &[Fetched], parts: Parts<'_>, directory: &Path) -> Result<Runtime, Error> {
    let spool = Arc::new(Spool::new(directory)?);
    let mut order: Vec<&Fetched> = packages.iter().collect();
    order.sort_by_key(|fetched| std::cmp::Reverse(fetched.package.size));
    // The two large packages side by side, each with a thread that uncompresses.
    let queue = std::sync::Mutex::new(order.into_iter());
    let work = || -> Result<Vec<Part>, Error> {
        let mut done = Vec::new();
        loop {
            let next = queue.lock().ok().and_then(|mut queue| queue.next());
            let Some(fetched) = next else { return Ok(done) };
            done.push(read(fetched, &spool)?);
        }
    };
    let read: Result<Vec<Vec<Part>>, Error> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| Error::Thread)?).collect()
    });
    let mut tree = Tree::new(Arc::clone(&spool));
    let mut all_32 = Tree::new(Arc::clone(&spool));
    let mut stock = Tree::new(Arc::clone(&spool));
    let mut certificates = BTreeMap::new();
    for part in read?.into_iter().flatten() {
        tree.merge(part.tree);
        all_32.merge(part.windows_32);
        certificates.extend(part.certificates);
        stock.merge(part.stock);
    }
    let time = tree.newest();
    add_own(&mut tree, &certificates, parts, time)?;
    require(&tree)?;
    close(&mut tree)?;

    let mut setup = Tree::new(spool);
    let core = core_32(&all_32)?;
    for (path, node) in all_32.iter() {
        let name = path.rsplit('/').next().unwrap_or(path);
        let target = if core.contains(name) { &mut tree } else { &mut setup };
        target.put(path, node.clone(), time);
    }
    let boot = format!("{WINDOWS_64}/wineboot.exe");
    if let Some(program) = parts.boot {
        let own = tree.get(&boot).ok_or_else(|| Error::Absent(boot.clone()))?.clone();
        setup.put(boot.as_str(), own, time);
        tree.put_file(&boot, &marked(program, &boot)?, time)?;
    }
    let shell = format!("{WINDOWS_64}/{}", adjust::SHELL_LIBRARY);
    tree.put_file(&shell, &marked(parts.shell, &shell)?, time)?;
    setup.merge(stock);
    for name in parts.replaced {
        tree.remove(&format!("{WINDOWS_64}/{name}"));
    }
    tree.complete();
    setup.complete();
    if tree.size() > MAX_SIZE && !parts.fonts {
        return Err(Error::Absent(format!("runtime below {MAX_SIZE} bytes")));
    }
    let version = packages
        .iter()
        .find(|fetched| fetched.package.name == "libwine" && wide(fetched))
        .map(|fetched| fetched.package.version.clone())
        .ok_or_else(|| Error::Absent("libwine".to_owned()))?;
    let name = |fetched: &Fetched| {
        let package = &fetched.package;
        format!("{}:{} {}", package.name, package.architecture, package.version)
    };
    let mut names: Vec<String> = packages.iter().map(name).collect();
    names.sort();
    Ok(Runtime { tag: tag(&version), version, tree, setup, packages: names })
}

/// A program or library of ours with Wine's mark.
fn marked(program: &[u8], path: &str) -> Result<Vec<u8>, Error> {
    pe::mark(program).map_err(|source| Error::Windows {
        package: "silo".to_owned(),
        path: path.to_owned(),
        source,
    })
}

fn wide(fetched: &Fetched) -> bool {
    fetched.package.architecture != "i386"
}

/// A version as a tag: without epoch, and without `~repack` and the like.
fn tag(version: &str) -> String {
    let version = version.split_once(':').map_or(version, |(_, version)| version);
    let (upstream, revision) = version.rsplit_once('-').unwrap_or((version, ""));
    let upstream = upstream.split(['~', '+']).next().unwrap_or(upstream);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let text = format!("{upstream}-{revision}");
    text.trim_end_matches('-').chars().map(|c| if allowed(c) { c } else { '.' }).collect()
}

/// Reads what is wanted of one package.
fn read(fetched: &Fetched, spool: &Arc<Spool>) -> Result<Part, Error> {
    let mut part = Part {
        tree: Tree::new(Arc::clone(spool)),
        windows_32: Tree::new(Arc::clone(spool)),
        certificates: BTreeMap::new(),
        stock: Tree::new(Arc::clone(spool)),
    };
    let wide = wide(fetched);
    let mut failed = None;
    let result = visit(&fetched.file, |entry, data| {
        take(&mut part, wide, entry, data).map_err(|error| {
            // The visitor's error type knows archives only.
            let stop = silo_archive::Error::Read(std::io::Error::other("given up"));
            failed = Some(match error {
                Error::Windows { path, source, .. } => {
                    Error::Windows { package: fetched.package.name.clone(), path, source }
                }
                other => other,
            });
            stop
        })
    });
    match failed {
        Some(error) => Err(error),
        None => result.map(|()| part).map_err(Error::Package),
    }
}

fn take(part: &mut Part, wide: bool, entry: &Entry, data: &mut dyn Read) -> Result<(), Error> {
    let Some(path) = clean(&entry.path) else { return Ok(()) };
    let Some(place) = place(wide, &path) else { return Ok(()) };
    let time = entry.mtime.seconds;
    if entry.kind == EntryKind::Symlink {
        if let (Place::Keep(path), Ok(target)) = (place, String::from_utf8(entry.link.clone())) {
            part.tree.put(path, Node::Symlink(target), time);
        }
        return Ok(());
    }
    if entry.kind != EntryKind::Regular || entry.sparse.is_some() {
        return Ok(());
    }
    if entry.size > MAX_FILE {
        return Err(Error::Absent(format!("{path} below {MAX_FILE} bytes")));
    }
    let mut bytes = Vec::new();
    data.read_to_end(&mut bytes)?;
    let windows = |result: Result<Vec<u8>, pe::Error>| {
        result.map_err(|source| Error::Windows {
            package: String::new(),
            path: path.clone(),
            source,
        })
    };
    // Of Wine's own files some are type libraries and plain data.
    let stripped = |bytes: Vec<u8>| {
        if bytes.starts_with(b"MZ") { windows(pe::strip(&bytes)) } else { Ok(bytes) }
    };
    let adjusted = |name: &str, wide, bytes: &mut Vec<u8>| {
        if !bytes.starts_with(b"MZ") {
            return Ok(false);
        }
        adjust::windows(name, wide, bytes).map_err(|source| Error::Windows {
            package: String::new(),
            path: path.clone(),
            source,
        })
    };
    match place {
        Place::Keep(path) => {
            let mode = if entry.mode & 0o111 == 0 { 0o644 } else { 0o755 };
            let unix = path.strip_prefix(UNIX).and_then(|rest| rest.strip_prefix('/'));
            if let Some(name) = unix.and_then(|name| name.strip_suffix(".so")) {
                let stock = bytes.clone();
                if adjust::linux(name, &mut bytes) {
                    part.stock.put_file(&path, &stock, time)?;
                }
            }
            if path == SERVER.trim_start_matches('/') {
                adjust::server(&mut bytes)
                    .map_err(|source| Error::Linux { path: path.clone(), source })?;
            }
            let content = part.tree.spool().add(&bytes)?;
            part.tree.put(path, Node::File(mode, content), time);
        }
        Place::Windows64(name) => {
            let stock = stripped(bytes)?;
            let path = format!("{WINDOWS_64}/{name}");
            let mut bytes = stock.clone();
            if adjusted(&name, true, &mut bytes)? {
                part.stock.put_file(&path, &stock, time)?;
            }
            part.tree.put_file(&path, &bytes, time)?;
        }
        Place::Windows32(name) => {
            let stock = stripped(bytes)?;
            let path = format!("{WINDOWS_32}/{name}");
            let mut bytes = stock.clone();
            if adjusted(&name, false, &mut bytes)? {
                part.stock.put_file(&path, &stock, time)?;
            }
            part.windows_32.put_file(&path, &bytes, time)?;
        }
        Place::Zlib64 => {
            let marked = windows(pe::mark(&bytes))?;
            part.tree.put_file(&format!("{WINDOWS_64}/zlib1.dll"), &marked, time)?;
        }
        Place::Zlib32 => {
            let marked = windows(pe::mark(&bytes))?;
            part.windows_32.put_file(&format!("{WINDOWS_32}/zlib1.dll"), &marked, time)?;
        }
        Place::Certificate => {
            part.certificates.insert(path, bytes);
        }
    }
    Ok(())
}

/// A package's path as a tree has it: `./lib/x` is `usr/lib/x`. `None` for names that no
/// package should have.
fn clean(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let path = path.strip_prefix("./").unwrap_or(path).trim_end_matches('/');
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return None;
    }
    let merged = ["lib/", "lib64/", "bin/", "sbin/"];
    let usr = merged.iter().any(|directory| path.starts_with(directory));
    Some(if usr { format!("usr/{path}") } else { path.to_owned() })
}

/// Adds what no package has.
fn add_own(
    tree: &mut Tree,
    certificates: &BTreeMap<String, Vec<u8>>,
    parts: Parts<'_>,
    time: i64,
) -> Result<(), Error> {
    for (link, target) in
        [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin")]
    {
        tree.put(link, Node::Symlink(target.to_owned()), time);
    }
    tree.put("usr/bin", Node::Directory(0o755), time);
    for directory in MOUNT_DIRECTORIES {
        let mode = if directory == "root" { 0o700 } else { 0o755 };
        tree.put(directory, Node::Directory(mode), time);
    }
    for file in MOUNT_FILES {
        tree.put_file(file, b"", time)?;
    }
    // Wine looks for it under the name without a number, where Debian has a shell script.
    tree.put("usr/lib/wine/wineserver", Node::Symlink("wineserver64".to_owned()), time);
    tree.put_file(&format!("{LIBRARIES}/{}", adjust::SERVER_LIBRARY), parts.server, time)?;
    tree.put_file("etc/passwd", b"root:x:0:0:root:/root:/sbin/nologin\n", time)?;
    tree.put_file("etc/group", b"root:x:0:\n", time)?;
    tree.put_file("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n", time)?;
    let mut bundle = Vec::new();
    for certificate in certificates.values() {
        bundle.extend(certificate);
        if !certificate.ends_with(b"\n") {
            bundle.push(b'\n');
        }
    }
    tree.put_file("etc/ssl/certs/ca-certificates.crt", &bundle, time)?;
    if parts.fonts {
        tree.put_file("etc/fonts/fonts.conf", FONTS_CONF.as_bytes(), time)?;
    } else {
        let stub = elf::stub_library("libfreetype.so.6", &list::FREETYPE);
        tree.put_file(&format!("{LIBRARIES}/libfreetype.so.6"), &stub, time)?;
        tree.put("usr/share/wine/fonts", Node::Directory(0o755), time);
    }
    Ok(())
}

const FONTS_CONF: &str = r#"<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><dir>/usr/share/wine/fonts</dir><cachedir>/tmp/fontconfig</cachedir></fontconfig>
"#;

/// Checks that what cannot be done without is there.
fn require(tree: &Tree) -> Result<(), Error> {
    let unix = list::UNIX_REQUIRED.iter().map(|name| format!("{UNIX}/{name}.so"));
    let windows = ["ntdll.dll", "kernel32.dll", "wineboot.exe", "services.exe", "zlib1.dll"];
    let windows = windows.iter().map(|name| format!("{WINDOWS_64}/{name}"));
    let others = ["usr/lib/wine/wine64", "usr/lib/wine/wineserver64", "usr/share/wine/wine.inf"];
    let others = others.iter().map(|path| (*path).to_owned());
    for path in unix.chain(windows).chain(others) {
        if tree.get(&path).is_none() {
            return Err(Error::Absent(path));
        }
    }
    Ok(())
}

/// Keeps exactly the libraries that something needs.
fn close(tree: &mut Tree) -> Result<(), Error> {
    let library = |name: &str| format!("{LIBRARIES}/{name}");
    let is_library = |path: &str| {
        path.strip_prefix(LIBRARIES)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|name| !name.contains('/'))
    };
    let mut queue: Vec<(String, String)> = Vec::new();
    for name in list::OPENED_AT_RUN_TIME {
        queue.push((library(name), "Wine".to_owned()));
    }
    queue.push((library("libfreetype.so.6"), "Wine".to_owned()));
    for name in ["libfontconfig.so.1"] {
        if tree.get(&library(name)).is_some() {
            queue.push((library(name), "Wine".to_owned()));
        }
    }
    for (path, node) in tree.iter() {
        if matches!(node, Node::File(..)) && !is_library(path) {
            queue.push((path.to_owned(), "the runtime".to_owned()));
        }
    }
    let mut kept = BTreeSet::new();
    while let Some((path, by)) = queue.pop() {
        if !kept.insert(path.clone()) {
            continue;
        }
        match tree.get(&path) {
            Some(Node::Symlink(target)) => {
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                queue.push((join(directory, target), by));
            }
            Some(Node::File(_, content)) => {
                if !is_library(&path) && !may_be_elf(&path) {
                    continue;
                }
                let bytes = tree.spool().get(*content)?;
                if !elf::is_elf(&bytes) {
                    continue;
                }
                let links = elf::links(&bytes)
                    .map_err(|source| Error::Linux { path: path.clone(), source })?;
                for needed in links.needed {
                    // Wine's halves need each other, from their own directory.
                    let own = format!("{UNIX}/{needed}");
                    let own = tree.get(&own).is_some().then_some(own);
                    queue.push((own.unwrap_or_else(|| library(&needed)), path.clone()));
                }
                if let Some(interpreter) = links.interpreter {
                    let interpreter = interpreter.trim_start_matches('/');
                    queue.push((format!("usr/{interpreter}"), path.clone()));
                }
            }
            _ => {
                let needed = path.rsplit('/').next().unwrap_or(&path).to_owned();
                return Err(Error::Library { needed, by });
            }
        }
    }
    tree.retain(|path, _| !is_library(path) || kept.contains(path));
    Ok(())
}

fn may_be_elf(path: &str) -> bool {
    path.starts_with(UNIX) || path.starts_with("usr/lib/wine/")
}

/// A link's target from the directory that it is in.
fn join(directory: &str, target: &str) -> String {
    if let Some(absolute) = target.strip_prefix('/') {
        return clean(absolute.as_bytes()).unwrap_or_default();
    }
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Names of the 32-bit files that the runtime has itself.
fn core_32(all: &Tree) -> Result<BTreeSet<String>, Error> {
    let mut core = BTreeSet::new();
    let mut queue: Vec<String> = list::WINDOWS_32_CORE.iter().map(|name| (*name).into()).collect();
    while let Some(name) = queue.pop() {
        let path = format!("{WINDOWS_32}/{name}");
        let Some(bytes) = all.read(&path)? else { continue };
        if !core.insert(name) {
            continue;
        }
        queue.extend(pe::imports(&bytes).map_err(|source| Error::Windows {
            package: "libwine".to_owned(),
            path,
            source,
        })?);
    }
    Ok(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_become_tags() {
        for (version, expected) in [
            ("10.0~repack-6", "10.0-6"),
            ("1:11.2+dfsg-1~deb13u1", "11.2-1.deb13u1"),
            ("10.0", "10.0"),
        ] {
            assert_eq!(tag(version), expected, "{version}");
        }
    }

    #[test]
    fn paths_are_cleaned() {
        for (path, expected) in [
            ("./lib/x86_64-linux-gnu/libc.so.6", Some("usr/lib/x86_64-linux-gnu/libc.so.6")),
            ("./usr/share/doc/", Some("usr/share/doc")),
            ("./", None),
            ("./a/../b", None),
            ("/etc/passwd", None),
        ] {
            assert_eq!(clean(path.as_bytes()).as_deref(), expected, "{path}");
        }
        assert_eq!(
            join("usr/lib64", "../lib/x86_64-linux-gnu/ld.so"),
            "usr/lib/x86_64-linux-gnu/ld.so"
        );
        assert_eq!(join("usr/lib64", "/lib/x/ld.so"), "usr/lib/x/ld.so");
        assert_eq!(join("a", "../../../b"), "b");
    }
}

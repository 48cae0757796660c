//! The content layer, and how layers of Windows are written.

use std::collections::HashMap;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use silo_archive::Time;
use silo_winlayer::entry::key;
use silo_winlayer::header::{self, Header};
use silo_winlayer::hives::Hive;
use silo_winlayer::{FileAttributes, FileTime, descriptor, record};

use super::registry::{self, Hives, PROFILES};
use super::{Error, Prefix, SETUP_USER};
use crate::tree::{Node, Tree};

/// A program that has a directory of its own.
const POWERSHELL: &str = "powershell.exe";

/// A program of Silo's inside Windows.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// Its name with ending.
    pub name: &'a str,
    /// Whether it is a 32-bit one, which lies in `SysWOW64`.
    pub narrow: bool,
    /// The file.
    pub bytes: &'a [u8],
}

/// The content layer before it is written.
#[derive(Debug)]
pub struct Content {
    /// The drive C:.
    pub drive: Tree,
    /// The registry in it.
    pub hives: Hives,
    /// The time of all files, seconds since 1970.
    pub time: i64,
    /// Files that are other names of earlier ones.
    links: HashMap<String, String>,
}

/// Makes the content of a prefix and Silo's programs.
pub fn content(prefix: Prefix, programs: &[Program<'_>], time: i64) -> Result<Content, Error> {
    let hives = registry::hives(&prefix.system, &prefix.user, &prefix.default, time)?;
    let mut drive = prefix.drive;
    for program in programs {
        let directory = if program.narrow { "SysWOW64" } else { "System32" };
        if program.name == POWERSHELL {
            for directory in ["System32", "SysWOW64"] {
                let path = format!("Windows/{directory}/WindowsPowerShell/v1.0/{POWERSHELL}");
                put(&mut drive, &path, program.bytes)?;
            }
            continue;
        }
        put(&mut drive, &format!("Windows/{directory}/{}", program.name), program.bytes)?;
    }
    profiles(&mut drive, &hives)?;
    let empty = silo_hive::Hive { last_written: hives.system.last_written, ..Default::default() };
    for (place, hive) in [
        (Hive::Software, &hives.software),
        (Hive::System, &hives.system),
        (Hive::DefaultUser, &hives.default),
        (Hive::Sam, &empty),
        (Hive::Security, &empty),
    ] {
        put(&mut drive, place.base_path(), &registry::file(place.base_path(), hive)?)?;
    }
    for directory in ["Windows/System32/config/systemprofile", "Windows/Temp", "ProgramData"] {
        if drive.get(directory).is_none() {
            drive.put(directory, Node::Directory(0o755), time);
        }
    }
    drive.complete();
    let links = links(&drive)?;
    Ok(Content { drive, hives, time, links })
}

/// Puts a file in place of one whose name differs in case only.
fn put(drive: &mut Tree, path: &str, bytes: &[u8]) -> io::Result<()> {
    let twin = drive.iter().map(|(path, _)| path).find(|old| old.eq_ignore_ascii_case(path));
    let path = twin.unwrap_or(path).to_owned();
    drive.put_file(&path, bytes, 0)
}

/// Gives every account the directories of the one that the prefix has, and its registry.
fn profiles(drive: &mut Tree, hives: &Hives) -> Result<(), Error> {
    let own = format!("Users/{SETUP_USER}");
    let directories: Vec<String> = drive
        .iter()
        .filter(|(_, node)| matches!(node, Node::Directory(_)))
        .filter_map(|(path, _)| path.strip_prefix(&own).map(str::to_owned))
        .filter(|inner| inner.is_empty() || inner.starts_with('/'))
        .collect();
    for account in PROFILES {
        for inner in &directories {
            drive.put(format!("Users/{account}{inner}"), Node::Directory(0o755), 0);
        }
    }
    for (account, hive) in &hives.users {
        let bytes = registry::file("NTUSER.DAT", hive)?;
        drive.put_file(&format!("Users/{account}/NTUSER.DAT"), &bytes, 0)?;
    }
    Ok(())
}

/// Finds files with the content of an earlier one.
fn links(drive: &Tree) -> io::Result<HashMap<String, String>> {
    let mut first: HashMap<[u8; 32], String> = HashMap::new();
    let mut links = HashMap::new();
    for (path, node) in drive.iter() {
        // Registries and empty files are nobody's other name.
        let Node::File(_, content) = node else { continue };
        if content.size < 512 || !path.starts_with("Windows/") || path.contains("/config/") {
            continue;
        }
        let sum: [u8; 32] = Sha256::digest(drive.spool().get(*content)?).into();
        match first.get(&sum) {
            Some(earlier) => {
                links.insert(path.to_owned(), earlier.clone());
            }
            None => {
                first.insert(sum, path.to_owned());
            }
        }
    }
    Ok(links)
}

impl Content {
    /// Writes the layer's tar.
    pub fn write_layer(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut layer = Layer::new(out, self.time);
        layer.directory("Files", FileAttributes::DIRECTORY)?;
        for (path, node) in self.drive.iter() {
            let name = format!("Files/{path}");
            match node {
                Node::Directory(_) => layer.directory(&name, directory_attributes(path))?,
                Node::File(_, content) => match self.links.get(path) {
                    Some(earlier) => layer.hard_link(&name, &format!("Files/{earlier}"))?,
                    None => {
                        layer.file(&name, file_attributes(path), content.size, |out| {
                            self.drive.spool().write(*content, out)
                        })?;
                    }
                },
                Node::Symlink(_) => {}
            }
        }
        layer.finish()
    }
}

fn directory_attributes(path: &str) -> FileAttributes {
    match path {
        "ProgramData" | "Users/Default" => FileAttributes::DIRECTORY.with(FileAttributes::HIDDEN),
        _ => FileAttributes::DIRECTORY,
    }
}

fn file_attributes(path: &str) -> FileAttributes {
    if path.ends_with("/NTUSER.DAT") {
        FileAttributes::ARCHIVE.with(FileAttributes::HIDDEN)
    } else {
        FileAttributes::ARCHIVE
    }
}

/// Writes the tar of a Windows layer: every entry with attributes, descriptor and times.
pub(super) struct Layer<'a> {
    out: &'a mut dyn Write,
    written: u64,
    time: i64,
    created: String,
    directory: String,
    file: String,
}

impl<'a> Layer<'a> {
    pub(super) fn new(out: &'a mut dyn Write, time: i64) -> Self {
        let created = FileTime::from_unix(Time { seconds: time, nanos: 0 }).unwrap_or_default();
        Self {
            out,
            written: 0,
            time,
            created: created.to_pax(),
            directory: STANDARD.encode(descriptor::default_directory()),
            file: STANDARD.encode(descriptor::default_file()),
        }
    }

    fn header(&mut self, mut header: Header, attributes: FileAttributes) -> io::Result<()> {
        header.mtime = Time { seconds: self.time, nanos: 0 };
        if header.kind != header::HARD_LINK {
            let directory = header.kind == header::DIRECTORY;
            header.set(key::ATTRIBUTES, attributes.0.to_string());
            header.set(key::CREATED, self.created.as_str());
            let descriptor = if directory { &self.directory } else { &self.file };
            header.set(key::DESCRIPTOR, descriptor.as_str());
        }
        let mut bytes = Vec::new();
        header.encode(&mut bytes).map_err(io::Error::other)?;
        self.written += bytes.len() as u64;
        self.out.write_all(&bytes)
    }

    pub(super) fn directory(&mut self, name: &str, attributes: FileAttributes) -> io::Result<()> {
        let mut header = Header::new(header::DIRECTORY, name);
        header.mode = 0o040_000;
        self.header(header, attributes)
    }

    pub(super) fn file(
        &mut self,
        name: &str,
        attributes: FileAttributes,
        size: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut header = Header::new(header::REGULAR, name);
        header.mode = 0o100_000;
        header.size = size;
        self.header(header, attributes)?;
        write(self.out)?;
        let padding = record::padding(size);
        self.written += size + padding as u64;
        self.out.write_all(&vec![0; padding])
    }

    fn hard_link(&mut self, name: &str, target: &str) -> io::Result<()> {
        let mut header = Header::new(header::HARD_LINK, name);
        header.mode = 0o644;
        header.link = target.as_bytes().to_vec();
        self.header(header, FileAttributes::ARCHIVE)
    }

    pub(super) fn finish(self) -> io::Result<()> {
        self.out.write_all(&[0; 1024])
    }
}

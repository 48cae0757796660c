//! What the headers of a layer mean: its entries.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use silo_archive::whiteout::{self, Whiteout};

use crate::attributes::FileAttributes;
use crate::descriptor::{self, SecurityDescriptor};
use crate::header::{self, Header};
use crate::name::{self, NameProblem};
use crate::path::{LayerPath, Part, PathProblem};
use crate::report::{Finding, Refusal};
use crate::sddl;
use crate::time::FileTime;

/// Keys of PAX records.
pub mod key {
    /// `FILE_ATTRIBUTE_*` as a decimal number.
    pub const ATTRIBUTES: &str = "MSWINDOWS.fileattr";
    /// Base64 of a self-relative security descriptor.
    pub const DESCRIPTOR: &str = "MSWINDOWS.rawsd";
    /// A security descriptor as text; old, read only where there is no raw one.
    pub const SDDL: &str = "MSWINDOWS.sd";
    /// Marks a junction.
    pub const MOUNT_POINT: &str = "MSWINDOWS.mountpoint";
    /// Start of the keys of extended attributes.
    pub const EXTENDED: &str = "MSWINDOWS.xattr.";
    /// Time of creation.
    pub const CREATED: &str = "LIBARCHIVE.creationtime";
    /// Time of the last access.
    pub const ACCESSED: &str = "atime";
    /// Time of the last change of anything.
    pub const CHANGED: &str = "ctime";
}

/// The longest target of a link, in bytes: what a reparse buffer of 16 KiB holds.
pub const MAX_TARGET: usize = 8000;
/// The largest value of one extended attribute.
pub const MAX_EXTENDED: usize = 65_535;

/// Times of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Last write.
    pub written: FileTime,
    /// Last access, if said.
    pub accessed: Option<FileTime>,
    /// Last change of content or metadata, if said.
    pub changed: Option<FileTime>,
    /// Creation, if said; otherwise that of the last write counts.
    pub created: Option<FileTime>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// An alternate data stream of [`Entry::path`].
    Stream {
        /// Its name, without the type.
        name: String,
    },
    /// A symbolic link or junction.
    Link {
        /// Its target as written, with backslashes.
        target: String,
        /// Whether it is a junction.
        junction: bool,
        /// Whether it says of itself that it leads to a directory.
        directory: bool,
    },
    /// Another name of a file of this layer, or of one beneath.
    HardLink {
        /// The file.
        target: LayerPath,
    },
    /// [`Entry::path`] does not exist any more.
    Whiteout,
    /// Nothing that the layers beneath have in the directory [`Entry::path`] exists any more.
    /// Windows does not know this.
    Opaque,
}

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Of what file: for a stream its owner, for a whiteout the victim.
    pub path: LayerPath,
    /// What it is.
    pub kind: EntryKind,
    /// Attributes, if said and sound.
    pub attributes: Option<FileAttributes>,
    /// Times.
    pub times: Times,
    /// A self-relative security descriptor that was checked; without one, a file inherits.
    pub descriptor: Option<Vec<u8>>,
    /// Extended attributes (EAs) by name.
    pub extended: Vec<(String, Vec<u8>)>,
    /// Size of the data.
    pub size: u64,
}

/// What a header means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// The entry, if it has a place in the tree.
    pub entry: Option<Entry>,
    /// What was left out.
    pub findings: Vec<Finding>,
}

impl Entry {
    /// An entry with nothing but its path and kind.
    pub fn new(path: LayerPath, kind: EntryKind) -> Self {
        Self {
            path,
            kind,
            attributes: None,
            times: Times::default(),
            descriptor: None,
            extended: Vec::new(),
            size: 0,
        }
    }

    /// Reads a header.
    pub fn read(header: &Header) -> Result<Meaning, Refusal> {
        let mut findings = Vec::new();
        let entry = read(header, &mut findings)?;
        Ok(Meaning { entry, findings })
    }

    /// The attributes that the file has: those said, or what importers infer.
    pub fn effective_attributes(&self) -> FileAttributes {
        let inferred = match &self.kind {
            EntryKind::Directory => FileAttributes::DIRECTORY,
            EntryKind::Link { directory: true, .. } => {
                FileAttributes::DIRECTORY.with(FileAttributes::REPARSE_POINT)
            }
            EntryKind::Link { .. } => FileAttributes::REPARSE_POINT,
            _ => FileAttributes::default(),
        };
        self.attributes.unwrap_or(inferred)
    }
}

fn read(header: &Header, findings: &mut Vec<Finding>) -> Result<Option<Entry>, Refusal> {
    let Some((path, special)) = place(header, findings)? else {
        return Ok(None);
    };
    let mut entry = Entry::new(path, EntryKind::File);
    entry.size = header.size;
    entry.times = times(header, findings);
    match special {
        Special::Whiteout => {
            entry.kind = EntryKind::Whiteout;
            return Ok(Some(entry));
        }
        Special::Opaque => {
            entry.kind = EntryKind::Opaque;
            return Ok(Some(entry));
        }
        Special::Stream(name) => {
            entry.kind = EntryKind::Stream { name };
            return Ok(Some(entry));
        }
        Special::None => {}
    }
    let attributes = match header.record(key::ATTRIBUTES) {
        None => None,
        Some(text) => {
            let parsed = FileAttributes::parse(text);
            if parsed.is_none() {
                findings.push(Finding::Attributes(shown(text)));
            }
            parsed
        }
    };
    entry.kind = match header.kind {
        header::DIRECTORY => EntryKind::Directory,
        header::SYMLINK => {
            let Some(target) = link_target(header, findings) else {
                return Ok(None);
            };
            let directory = attributes.is_some_and(|bits| bits.contains(FileAttributes::DIRECTORY));
            let junction = header.record(key::MOUNT_POINT).is_some();
            EntryKind::Link { target, junction, directory: directory || junction }
        }
        header::HARD_LINK => match hard_link_target(header, entry.path.part(), findings)? {
            Some(target) => EntryKind::HardLink { target },
            None => return Ok(None),
        },
        _ => EntryKind::File,
    };
    entry.attributes = attributes.and_then(|bits| suited(bits, &entry.kind, findings));
    entry.descriptor = security(header, findings);
    entry.extended = extended(header, findings);
    if entry.path.file_name().is_some_and(name::is_short) {
        findings.push(Finding::ShortName);
    }
    Ok(Some(entry))
}

/// What a name says besides the path.
enum Special {
    None,
    Stream(String),
    Whiteout,
    Opaque,
}

/// Where an entry belongs; `None` if it is dropped.
fn place(
    header: &Header,
    findings: &mut Vec<Finding>,
) -> Result<Option<(LayerPath, Special)>, Refusal> {
    let mut drop_for = |problem: PathProblem| {
        if problem.is_escape() {
            return Err(Refusal::Path(problem));
        }
        findings.push(Finding::Path(problem));
        Ok(None)
    };
    let name = &header.name;
    let start = name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (holder, last) = name.split_at(start);
    let found = whiteout::parse(last);
    let Some(kind) = kind_name(header.kind) else {
        // The name is looked at all the same: a bad one refuses the layer.
        return match LayerPath::parse(name) {
            Err(problem) if problem.is_escape() => Err(Refusal::Path(problem)),
            _ => {
                findings.push(Finding::Kind(other_kind(header.kind)));
                Ok(None)
            }
        };
    };
    if matches!(found, Whiteout::None) {
        let (path, stream) = match LayerPath::parse(name) {
            Ok(found) => found,
            Err(problem) => return drop_for(problem),
        };
        return match stream {
            None => Ok(Some((path, Special::None))),
            Some(_) if header.kind != header::REGULAR => {
                Err(Refusal::Path(PathProblem::Name(NameProblem::Colon)))
            }
            Some(stream) => Ok(Some((path, Special::Stream(stream)))),
        };
    }
    let parent = match LayerPath::parse(holder) {
        Ok((parent, None)) => parent,
        Ok((_, Some(_))) => {
            return Err(Refusal::Path(PathProblem::Name(NameProblem::Colon)));
        }
        Err(problem) => return drop_for(problem),
    };
    if kind != "file" || !parent.part().is_tree() {
        findings.push(Finding::Whiteout);
        return Ok(None);
    }
    match found {
        Whiteout::Opaque => Ok(Some((parent, Special::Opaque))),
        Whiteout::Invalid => Err(Refusal::Whiteout(NameProblem::Dots)),
        Whiteout::Metadata | Whiteout::None => {
            findings.push(Finding::Kind("bookkeeping of another file system"));
            Ok(None)
        }
        Whiteout::Remove(victim) => {
            let victim = std::str::from_utf8(victim).map_err(|_| NameProblem::Encoding);
            let checked = victim.and_then(|victim| name::check(victim).map(|()| victim));
            match checked.map(|victim| parent.join(victim)) {
                Ok(Ok(path)) => Ok(Some((path, Special::Whiteout))),
                Ok(Err(problem)) => drop_for(problem),
                Err(problem) if problem.is_escape() => Err(Refusal::Whiteout(problem)),
                Err(problem) => drop_for(PathProblem::Name(problem)),
            }
        }
    }
}

fn kind_name(kind: u8) -> Option<&'static str> {
    match kind {
        header::REGULAR | b'7' | 0 => Some("file"),
        header::DIRECTORY => Some("directory"),
        header::SYMLINK => Some("symbolic link"),
        header::HARD_LINK => Some("hard link"),
        _ => None,
    }
}

fn other_kind(kind: u8) -> &'static str {
    match kind {
        b'3' => "character device",
        b'4' => "block device",
        b'6' => "named pipe",
        _ => "file of unknown kind",
    }
}

fn times(header: &Header, findings: &mut Vec<Finding>) -> Times {
    let mut time = |key: &str| {
        let text = header.record(key)?;
        let time = FileTime::parse(text);
        if time.is_none() {
            findings.push(Finding::Record(key.to_owned()));
        }
        time
    };
    let (accessed, changed) = (time(key::ACCESSED), time(key::CHANGED));
    let created = time(key::CREATED);
    let written = FileTime::from_unix(header.mtime);
    if written.is_none() {
        findings.push(Finding::Record("mtime".to_owned()));
    }
    Times { written: written.unwrap_or_default(), accessed, changed, created }
}

/// The target of a symbolic link as Windows gets it; `None` if the link is dropped.
fn link_target(header: &Header, findings: &mut Vec<Finding>) -> Option<String> {
    let text = std::str::from_utf8(&header.link).ok().filter(|text| text.len() <= MAX_TARGET);
    if text.is_none() {
        findings.push(Finding::LinkTarget(shown(&header.link)));
    }
    text.map(|text| text.replace('/', "\\"))
}

fn hard_link_target(
    header: &Header,
    part: Part,
    findings: &mut Vec<Finding>,
) -> Result<Option<LayerPath>, Refusal> {
    match LayerPath::parse(&header.link) {
        Ok((target, None)) => {
            let whiteout = target.file_name().is_none_or(|name| name.starts_with(".wh."));
            if part.is_tree() && target.part() == part && !whiteout {
                return Ok(Some(target));
            }
            findings.push(Finding::LinkTarget(shown(&header.link)));
            Ok(None)
        }
        Ok((_, Some(_))) => {
            let problem = PathProblem::Name(NameProblem::Colon);
            Err(Refusal::LinkTarget(shown(&header.link), problem))
        }
        Err(problem) if problem.is_escape() => {
            Err(Refusal::LinkTarget(shown(&header.link), problem))
        }
        Err(_) => {
            findings.push(Finding::LinkTarget(shown(&header.link)));
            Ok(None)
        }
    }
}

/// The attributes as far as they suit what the entry is.
fn suited(
    mut bits: FileAttributes,
    kind: &EntryKind,
    findings: &mut Vec<Finding>,
) -> Option<FileAttributes> {
    let directory = bits.contains(FileAttributes::DIRECTORY);
    let contradicts = match kind {
        EntryKind::Directory => !directory,
        EntryKind::File | EntryKind::HardLink { .. } => directory,
        _ => false,
    };
    if contradicts {
        findings.push(Finding::Attributes(bits.0.to_string()));
        return None;
    }
    if bits.contains(FileAttributes::ENCRYPTED) {
        findings.push(Finding::Encrypted);
        bits = bits.without(FileAttributes::ENCRYPTED);
    }
    let is_link = matches!(kind, EntryKind::Link { .. });
    if bits.contains(FileAttributes::REPARSE_POINT) && !is_link {
        findings.push(Finding::Reparse);
        bits = bits.without(FileAttributes::REPARSE_POINT);
    }
    Some(bits)
}

fn security(header: &Header, findings: &mut Vec<Finding>) -> Option<Vec<u8>> {
    if let Some(text) = header.record(key::DESCRIPTOR) {
        let bytes = decode(text, descriptor::MAX_SIZE).ok_or(descriptor::Error::Encoding);
        return match bytes.and_then(|bytes| SecurityDescriptor::parse(&bytes).map(|_| bytes)) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                findings.push(Finding::Descriptor(error));
                None
            }
        };
    }
    let text = header.record(key::SDDL)?;
    match sddl::parse(&String::from_utf8_lossy(text)) {
        Ok(descriptor) => Some(descriptor.to_bytes()),
        Err(error) => {
            findings.push(Finding::Sddl(error));
            None
        }
    }
}

fn extended(header: &Header, findings: &mut Vec<Finding>) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for (key, value) in &header.records {
        let Some(name) = key.strip_prefix(key::EXTENDED.as_bytes()) else {
            continue;
        };
        // Names of EAs are ASCII of up to 255 bytes.
        let name = std::str::from_utf8(name).ok().filter(|name| {
            let valid = name.bytes().all(|byte| byte > 0x20 && byte < 0x7f);
            valid && !name.is_empty() && name.len() <= 255
        });
        match (name, decode(value, MAX_EXTENDED)) {
            (Some(name), Some(value)) => found.push((name.to_owned(), value)),
            _ => findings.push(Finding::Record(shown(key))),
        }
    }
    found
}

/// Decodes padded base64 of at most `limit` bytes.
fn decode(text: &[u8], limit: usize) -> Option<Vec<u8>> {
    let bytes = (text.len() <= limit.div_ceil(3) * 4).then(|| STANDARD.decode(text))?.ok()?;
    Some(bytes).filter(|bytes| bytes.len() <= limit)
}

/// Bytes of a stranger's as a text of bounded length.
pub(crate) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).into_owned()
}

//! One member of a tar stream.

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file, sparse ones included.
    Regular,
    /// Another name of a file: [`Entry::link`] is its path from the root of the archive.
    HardLink,
    /// A symbolic link to [`Entry::link`].
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// A time of a file: seconds since 1970, which may be negative, and nanoseconds onward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds after that, below 10^9.
    pub nanos: u32,
}

/// A stretch of a sparse file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Where it lies in the file, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

/// One member: everything but its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Its name as written: not empty, without NUL, otherwise any bytes.
    pub path: Vec<u8>,
    /// Target of a link, as written; empty for others.
    pub link: Vec<u8>,
    /// Size of the file in bytes, holes included; 0 for all but regular files.
    pub size: u64,
    /// How many bytes the stream holds for it: [`size`](Self::size) without holes.
    pub stored: u64,
    /// Permission bits with setuid, setgid and sticky (12 bits).
    pub mode: u32,
    /// Owner, never `u32::MAX`.
    pub uid: u32,
    /// Group, never `u32::MAX`.
    pub gid: u32,
    /// Owner by name, may be empty.
    pub uname: Vec<u8>,
    /// Group by name, may be empty.
    pub gname: Vec<u8>,
    /// Time of last change.
    pub mtime: Time,
    /// Device number, major part.
    pub major: u32,
    /// Device number, minor part.
    pub minor: u32,
    /// Extended attributes, names without the `SCHILY.xattr.` prefix.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the stored bytes belong, if there are holes: ascending, apart, within `size`,
    /// together `stored` long.
    pub sparse: Option<Vec<Segment>>,
    /// PAX records that mean nothing here (such as `MSWINDOWS.` ones), in order.
    pub pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// An entry of root's with the given kind, path and permission bits, and nothing else.
    pub fn new(kind: EntryKind, path: impl Into<Vec<u8>>, mode: u32) -> Self {
        Self {
            kind,
            path: path.into(),
            link: Vec::new(),
            size: 0,
            stored: 0,
            mode,
            uid: 0,
            gid: 0,
            uname: Vec::new(),
            gname: Vec::new(),
            mtime: Time::default(),
            major: 0,
            minor: 0,
            xattrs: Vec::new(),
            sparse: None,
            pax: Vec::new(),
        }
    }
}

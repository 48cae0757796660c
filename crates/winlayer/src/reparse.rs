//! Reparse buffers of symbolic links and junctions (`[MS-FSCC]` 2.1.2).
//!
//! ```text
//! tag u32, length of the rest u16, reserved u16
//! substitute offset, substitute length, print offset, print length   u16 each, bytes
//! flags u32 (symbolic links only; 1: relative)
//! names: UTF-16LE, each with a NUL that its length does not count
//! ```

use std::fmt;

/// Tag of a symbolic link.
pub const SYMLINK: u32 = 0xa000_000c;
/// Tag of a junction.
pub const MOUNT_POINT: u32 = 0xa000_0003;
/// The largest buffer.
pub const MAX_BUFFER: usize = 16_384;

/// Names of tags.
const TAGS: &[(u32, &str)] = &[
    (MOUNT_POINT, "junction"),
    (SYMLINK, "symbolic link"),
    (0x8000_0008, "WIM file"),
    (0x8000_0013, "deduplicated file"),
    (0x8000_0014, "NFS file"),
    (0x8000_0017, "compressed system file (WOF)"),
    (0x8000_0018, "layer placeholder (WCI)"),
    (0x9000_1018, "layer placeholder (WCI)"),
    (0x8000_001b, "application alias"),
    (0x9000_001c, "projected file"),
    (0xa000_0022, "projected file's tombstone"),
    (0xa000_0019, "global redirection"),
    (0xa000_001d, "Linux symbolic link (WSL)"),
    (0xa000_001f, "layer tombstone (WCI)"),
    (0x8000_0020, "unhandled placeholder"),
    (0x8000_0023, "Unix socket"),
    (0x8000_0024, "named pipe (WSL)"),
    (0x8000_0025, "character device (WSL)"),
    (0x8000_0026, "block device (WSL)"),
    (0xa000_0027, "layer link (WCI)"),
    (0xa000_1027, "layer link (WCI)"),
    (0xa000_0028, "dataless file (CIM)"),
];

/// What a buffer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReparsePoint {
    /// A symbolic link.
    Symlink(Names),
    /// A junction (or mount point of a volume).
    MountPoint(Names),
    /// Another kind; layers do not carry it.
    Other {
        /// Its tag.
        tag: u32,
        /// Its data, as they are.
        data: Vec<u8>,
    },
}

/// The names of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The target as the kernel takes it.
    pub substitute: String,
    /// The target as shown; may be empty.
    pub print: String,
    /// Whether the target is relative to the link's directory.
    pub relative: bool,
}

/// A buffer that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Lengths that do not fit.
    #[error("a reparse buffer whose lengths do not fit")]
    Length,
    /// Names that are not UTF-16, or have a NUL within.
    #[error("a reparse buffer with an invalid name")]
    Name,
}

/// A tag, shown by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag(pub u32);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tags of cloud files differ in four bits.
        let cloud = self.0 & 0xffff_0fff == 0x9000_001a;
        match TAGS.iter().find(|(tag, _)| *tag == self.0) {
            Some((_, name)) => f.write_str(name),
            None if cloud => f.write_str("cloud file"),
            None => write!(f, "reparse point 0x{:08x}", self.0),
        }
    }
}

impl Names {
    /// The names that a link gets whose target was written into a layer: how importers on
    /// Windows read it.
    pub fn of_target(target: &str) -> Self {
        let print = target.replace('/', "\\");
        let mut relative = false;
        let substitute = if let Some(rest) = print.strip_prefix("\\\\?\\") {
            format!("\\??\\{rest}")
        } else if let Some(rest) = print.strip_prefix("\\\\") {
            format!("\\??\\UNC\\{rest}")
        } else if print.as_bytes().get(1) == Some(&b':') {
            format!("\\??\\{print}")
        } else {
            relative = true;
            print.clone()
        };
        Self { substitute, print, relative }
    }

    /// The target to write into a layer: the print name, or the substitute name where that is
    /// empty, as it is for some junctions.
    pub fn target(&self) -> String {
        if !self.print.is_empty() {
            return self.print.clone();
        }
        match self.substitute.strip_prefix("\\??\\") {
            Some(rest) => match rest.strip_prefix("UNC\\") {
                Some(share) => format!("\\\\{share}"),
                None if rest.as_bytes().get(1) == Some(&b':') => rest.to_owned(),
                None => format!("\\\\?\\{rest}"),
            },
            None => self.substitute.clone(),
        }
    }
}

impl ReparsePoint {
    /// Reads a buffer.
    pub fn parse(buffer: &[u8]) -> Result<Self, Error> {
        if buffer.len() > MAX_BUFFER {
            return Err(Error::Length);
        }
        let (head, data) = buffer.split_first_chunk::<8>().ok_or(Error::Length)?;
        let tag = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let length = usize::from(u16::from_le_bytes([head[4], head[5]]));
        if data.len() != length {
            return Err(Error::Length);
        }
        if tag != SYMLINK && tag != MOUNT_POINT {
            return Ok(Self::Other { tag, data: data.to_vec() });
        }
        let (fields, mut rest) = data.split_first_chunk::<8>().ok_or(Error::Length)?;
        let mut relative = false;
        if tag == SYMLINK {
            let (flags, names) = rest.split_first_chunk::<4>().ok_or(Error::Length)?;
            relative = u32::from_le_bytes(*flags) & 1 != 0;
            rest = names;
        }
        let field = |at: usize| usize::from(u16::from_le_bytes([fields[at], fields[at + 1]]));
        let name = |at: usize| {
            let (start, length) = (field(at), field(at + 2));
            text(rest.get(start..start + length).ok_or(Error::Length)?)
        };
        let names = Names { substitute: name(0)?, print: name(4)?, relative };
        Ok(if tag == SYMLINK { Self::Symlink(names) } else { Self::MountPoint(names) })
    }

    /// Writes a buffer.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let (tag, data) = match self {
            Self::Other { tag, data } => (*tag, data.clone()),
            Self::Symlink(names) => (SYMLINK, names.write(true)?),
            Self::MountPoint(names) => (MOUNT_POINT, names.write(false)?),
        };
        let length = u16::try_from(data.len()).map_err(|_| Error::Length)?;
        let mut out = tag.to_le_bytes().to_vec();
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&data);
        if out.len() > MAX_BUFFER { Err(Error::Length) } else { Ok(out) }
    }
}

impl Names {
    fn write(&self, flags: bool) -> Result<Vec<u8>, Error> {
        if self.substitute.contains('\0') || self.print.contains('\0') {
            return Err(Error::Name);
        }
        let wide =
            |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        let (substitute, print) = (wide(&self.substitute), wide(&self.print));
        let mut out = Vec::new();
        for number in [0, substitute.len(), substitute.len() + 2, print.len()] {
            let number = u16::try_from(number).map_err(|_| Error::Length)?;
            out.extend_from_slice(&number.to_le_bytes());
        }
        if flags {
            out.extend_from_slice(&u32::from(self.relative).to_le_bytes());
        }
        for name in [substitute, print] {
            out.extend_from_slice(&name);
            out.extend_from_slice(&[0, 0]);
        }
        Ok(out)
    }
}

fn text(bytes: &[u8]) -> Result<String, Error> {
    let (units, []) = bytes.as_chunks::<2>() else {
        return Err(Error::Length);
    };
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit));
    let text: String =
        char::decode_utf16(units).collect::<Result<_, _>>().map_err(|_| Error::Name)?;
    if text.contains('\0') { Err(Error::Name) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_bytes() {
        let link = ReparsePoint::Symlink(Names::of_target("..\\b"));
        let bytes = link.to_bytes().unwrap();
        let want = b"\x0c\0\0\xa0\x20\0\0\0\0\0\x08\0\x0a\0\x08\0\x01\0\0\0.\0.\0\\\0b\0\0\0.\0.\0\\\0b\0\0\0";
        assert_eq!(bytes, want);
        assert_eq!(ReparsePoint::parse(&bytes), Ok(link));
        let junction = ReparsePoint::MountPoint(Names::of_target("C:\\x"));
        let bytes = junction.to_bytes().unwrap();
        assert_eq!(&bytes[..16], b"\x03\0\0\xa0\x24\0\0\0\0\0\x10\0\x12\0\x08\0");
        assert_eq!(ReparsePoint::parse(&bytes), Ok(junction));
    }

    #[test]
    fn targets() {
        for (target, substitute, relative) in [
            ("a\\b", "a\\b", true),
            ("a/b", "a\\b", true),
            ("\\rooted", "\\rooted", true),
            ("C:\\x", "\\??\\C:\\x", false),
            ("\\\\?\\C:\\x", "\\??\\C:\\x", false),
            ("\\\\?\\Volume{1}\\", "\\??\\Volume{1}\\", false),
            ("\\\\server\\share", "\\??\\UNC\\server\\share", false),
        ] {
            let names = Names::of_target(target);
            assert_eq!((names.substitute.as_str(), names.relative), (substitute, relative));
            assert_eq!(names.target(), target.replace('/', "\\"));
            let hidden = Names { print: String::new(), ..names };
            assert_eq!(Names::of_target(&hidden.target()).substitute, substitute);
        }
    }

    #[test]
    fn refusals() {
        let good = ReparsePoint::Symlink(Names::of_target("a")).to_bytes().unwrap();
        for (at, byte) in [(4, 0), (4, 0xff), (8, 0xff), (10, 1), (10, 0xff), (14, 0x21)] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert!(ReparsePoint::parse(&bytes).is_err(), "byte {at}");
        }
        let mut lone = good.clone();
        lone[20..22].copy_from_slice(&[0, 0xd8]);
        assert_eq!(ReparsePoint::parse(&lone), Err(Error::Name));
        for length in 0..good.len() {
            assert!(ReparsePoint::parse(&good[..length]).is_err());
        }
        let long = ReparsePoint::Symlink(Names::of_target(&"x".repeat(9000)));
        assert_eq!(long.to_bytes(), Err(Error::Length));
    }

    #[test]
    fn tags() {
        assert_eq!(Tag(0x9000_701a).to_string(), "cloud file");
        assert_eq!(Tag(0x8000_0017).to_string(), "compressed system file (WOF)");
        assert_eq!(Tag(0x1234).to_string(), "reparse point 0x00001234");
    }

    proptest! {
        #[test]
        fn bytes_round_trip(target in "\\PC{0,40}", junction: bool) {
            let names = Names::of_target(&target);
            let point = if junction {
                ReparsePoint::MountPoint(Names { relative: false, ..names })
            } else {
                ReparsePoint::Symlink(names)
            };
            prop_assert_eq!(ReparsePoint::parse(&point.to_bytes().unwrap()), Ok(point));
        }

        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(point) = ReparsePoint::parse(&bytes) {
                prop_assert_eq!(ReparsePoint::parse(&point.to_bytes().unwrap()), Ok(point));
            }
        }
    }
}

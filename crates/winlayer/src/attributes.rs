//! File attributes of NTFS, as in `MSWINDOWS.fileattr`.

use std::fmt;

/// `FILE_ATTRIBUTE_*` bits. Bits without a name here are kept.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct FileAttributes(pub u32);

/// Bits and their names, lowest first.
const NAMES: [(u32, &str); 17] = [
    (0x1, "READONLY"),
    (0x2, "HIDDEN"),
    (0x4, "SYSTEM"),
    (0x10, "DIRECTORY"),
    (0x20, "ARCHIVE"),
    (0x80, "NORMAL"),
    (0x100, "TEMPORARY"),
    (0x200, "SPARSE"),
    (0x400, "REPARSE_POINT"),
    (0x800, "COMPRESSED"),
    (0x1000, "OFFLINE"),
    (0x2000, "NOT_CONTENT_INDEXED"),
    (0x4000, "ENCRYPTED"),
    (0x8000, "INTEGRITY_STREAM"),
    (0x2_0000, "NO_SCRUB"),
    (0x4_0000, "RECALL_ON_OPEN"),
    (0x40_0000, "RECALL_ON_DATA_ACCESS"),
];

impl FileAttributes {
    /// Must not be written to.
    pub const READONLY: Self = Self(0x1);
    /// Not shown by default.
    pub const HIDDEN: Self = Self(0x2);
    /// Of the operating system.
    pub const SYSTEM: Self = Self(0x4);
    /// A directory, or a link to one.
    pub const DIRECTORY: Self = Self(0x10);
    /// Changed since the last backup.
    pub const ARCHIVE: Self = Self(0x20);
    /// Nothing else is set.
    pub const NORMAL: Self = Self(0x80);
    /// A reparse point.
    pub const REPARSE_POINT: Self = Self(0x400);
    /// Encrypted by the file system (EFS): its content is of no use elsewhere.
    pub const ENCRYPTED: Self = Self(0x4000);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These bits with those of `other`.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These bits without those of `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Reads the decimal number of a PAX record. `None` for anything but digits that fit,
    /// as Go's `ParseUint` has it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(text).ok().filter(|_| digits)?;
        text.parse().ok().map(Self)
    }

    /// The value of the `user.DOSATTRIB` attribute that Wine keeps what Unix modes do not
    /// hold in: hidden and system. `None` where there is nothing to keep.
    pub fn to_dosattrib(self) -> Option<String> {
        let bits = self.0 & (Self::HIDDEN.0 | Self::SYSTEM.0);
        (bits != 0).then(|| format!("0x{bits:x}"))
    }

    /// Reads hidden and system from a `user.DOSATTRIB` attribute; nothing if it has another
    /// form (Samba has several).
    pub fn from_dosattrib(value: &[u8]) -> Self {
        let value = value.strip_suffix(b"\0").unwrap_or(value);
        let bits = value
            .strip_prefix(b"0x")
            .filter(|hex| hex.len() <= 8 && hex.iter().all(u8::is_ascii_hexdigit))
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u32::from_str_radix(hex, 16).ok());
        Self(bits.unwrap_or(0) & (Self::HIDDEN.0 | Self::SYSTEM.0))
    }
}

impl fmt::Display for FileAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut first = true;
        for (bit, name) in NAMES {
            if rest & bit != 0 {
                rest &= !bit;
                write!(f, "{}{name}", if first { "" } else { "|" })?;
                first = false;
            }
        }
        match (first, rest) {
            (false, 0) => Ok(()),
            (true, rest) => write!(f, "0x{rest:x}"),
            (false, rest) => write!(f, "|0x{rest:x}"),
        }
    }
}

impl fmt::Debug for FileAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, want) in [
            ("0", Some(0)),
            ("32", Some(32)),
            ("0016", Some(16)),
            ("4294967295", Some(u32::MAX)),
            ("4294967296", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("0x10", None),
            ("1 ", None),
        ] {
            let parsed = FileAttributes::parse(text.as_bytes());
            assert_eq!(parsed, want.map(FileAttributes), "{text}");
        }
    }

    #[test]
    fn texts() {
        for (bits, want) in [
            (0, "0x0"),
            (0x10, "DIRECTORY"),
            (0x2027, "READONLY|HIDDEN|SYSTEM|ARCHIVE|NOT_CONTENT_INDEXED"),
            (0x8000_0000, "0x80000000"),
            (0x8000_0001, "READONLY|0x80000000"),
        ] {
            assert_eq!(FileAttributes(bits).to_string(), want);
        }
    }

    #[test]
    fn wine_attribute() {
        assert_eq!(FileAttributes(0x26).to_dosattrib().as_deref(), Some("0x6"));
        assert_eq!(FileAttributes(0x21).to_dosattrib(), None);
        for (value, want) in [
            (&b"0x6"[..], 6),
            (b"0x2\0", 2),
            (b"0xffffffff", 6),
            (b"6", 0),
            (b"0x", 0),
            (b"0x+6", 0),
            (b"0x123456789", 0),
        ] {
            assert_eq!(FileAttributes::from_dosattrib(value).0, want, "{value:?}");
        }
    }
}

//! What a file is, by its first bytes.

/// A kind of file that somebody may want to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A Windows executable.
    Pe,
    /// A program for 16-bit Windows or OS/2.
    Windows16,
    /// A program for DOS.
    Dos,
    /// A program for Linux.
    Elf,
    /// A program for macOS.
    MachO,
    /// A script with an interpreter (`#!`).
    Script,
    /// Nothing that is known.
    Other,
}

impl FileKind {
    /// What people call it.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Pe => "a Windows executable",
            Self::Windows16 => "a program for 16-bit Windows",
            Self::Dos => "a program for DOS",
            Self::Elf => "a program for Linux",
            Self::MachO => "a program for macOS",
            Self::Script => "a script for a Unix shell",
            Self::Other => "no program",
        }
    }
}

/// Tells what a file is; `start` should have its first 4096 bytes.
pub fn identify(start: &[u8]) -> FileKind {
    if start.starts_with(b"MZ") {
        let offset = start.get(0x3c..).and_then(|rest| rest.first_chunk());
        let offset = offset.map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let new = usize::try_from(offset).ok().and_then(|offset| start.get(offset..));
        return match new {
            Some(new) if new.starts_with(b"PE\0\0") => FileKind::Pe,
            Some(new) if new.starts_with(b"NE") || new.starts_with(b"LX") => FileKind::Windows16,
            // Beyond what is at hand: only the whole file can tell.
            None if offset >= 4096 => FileKind::Pe,
            _ => FileKind::Dos,
        };
    }
    if start.starts_with(b"\x7fELF") {
        FileKind::Elf
    } else if start.starts_with(b"#!") {
        FileKind::Script
    } else if [&b"\xcf\xfa\xed\xfe"[..], b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe"]
        .iter()
        .any(|magic| start.starts_with(magic))
    {
        FileKind::MachO
    } else {
        FileKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let mz = |magic: &[u8]| {
            let mut file = vec![0; 0x40];
            file[..2].copy_from_slice(b"MZ");
            file[0x3c] = 0x40;
            file.extend_from_slice(magic);
            file
        };
        for (file, kind) in [
            (mz(b"PE\0\0"), FileKind::Pe),
            (mz(b"NE\0\0"), FileKind::Windows16),
            (mz(b""), FileKind::Dos),
            (b"MZ".to_vec(), FileKind::Dos),
            (b"\x7fELF\x02".to_vec(), FileKind::Elf),
            (b"#!/bin/sh".to_vec(), FileKind::Script),
            (b"\xcf\xfa\xed\xfe".to_vec(), FileKind::MachO),
            (Vec::new(), FileKind::Other),
        ] {
            assert_eq!(identify(&file), kind, "{file:?}");
        }
    }
}

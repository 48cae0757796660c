//! The headers, and where addresses are in the file.

use crate::Error;
use crate::reader::Reader;

/// Sections that a file may have by its format.
const MAX_SECTIONS: u16 = 96;
/// Directories that the optional header may have.
const MAX_DIRECTORIES: u32 = 16;
/// Wine's mark of its own files, in the DOS stub.
const MARK: &[u8] = b"Wine builtin DLL";
const MARK_AT: u64 = 64;

/// The processor that a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Machine {
    /// 32-bit x86.
    I386,
    /// 64-bit x86.
    Amd64,
    /// 32-bit ARM.
    Arm,
    /// 64-bit ARM.
    Arm64,
    /// Another one, by the format's number.
    Other(u16),
}

impl Machine {
    fn of(number: u16) -> Self {
        match number {
            0x14c => Self::I386,
            0x8664 => Self::Amd64,
            0x1c0 | 0x1c2 | 0x1c4 => Self::Arm,
            0xaa64 | 0xa641 | 0xa64e => Self::Arm64,
            other => Self::Other(other),
        }
    }

    /// What people call it.
    pub fn describe(self) -> String {
        match self {
            Self::I386 => "32-bit x86".to_owned(),
            Self::Amd64 => "64-bit x86".to_owned(),
            Self::Arm => "32-bit ARM".to_owned(),
            Self::Arm64 => "64-bit ARM".to_owned(),
            Self::Other(0x200) => "Itanium".to_owned(),
            Self::Other(number) => format!("processor {number:#06x}"),
        }
    }
}

/// What a file runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subsystem {
    /// The kernel, or the time before anything else runs.
    Native,
    /// With windows.
    Gui,
    /// In a console.
    Console,
    /// Firmware.
    Efi,
    /// Another one, by the format's number.
    Other(u16),
}

/// What the headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// The processor.
    pub machine: Machine,
    /// Whether it has 64-bit addresses (PE32+).
    pub is_wide: bool,
    /// Whether it is a library.
    pub is_library: bool,
    /// Whether it is a driver of the kernel.
    pub is_driver: bool,
    /// What it runs in.
    pub subsystem: Subsystem,
    /// Whether it has Wine's mark of its own files.
    pub is_wine: bool,
}

/// A section of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Section {
    pub(crate) name: [u8; 8],
    pub(crate) address: u32,
    pub(crate) virtual_size: u32,
    pub(crate) raw: u32,
    pub(crate) raw_size: u32,
}

/// Where things are.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) image_base: u64,
    sections: Vec<Section>,
    directories: Vec<(u32, u32)>,
    /// Bytes at the front that lie at their own addresses.
    front: u32,
}

impl Layout {
    /// A directory's address and size, if it is there.
    pub(crate) fn directory(&self, number: usize) -> Option<(u32, u32)> {
        self.directories.get(number).copied().filter(|(address, _)| *address != 0)
    }

    pub(crate) fn section(&self, name: &[u8]) -> Option<Section> {
        self.sections.iter().copied().find(|section| {
            section.name.starts_with(name) && section.name[name.len()..].iter().all(|b| *b == 0)
        })
    }

    /// Where in the file an address is.
    pub(crate) fn offset(&self, address: u32) -> Result<u64, Error> {
        let inside = self.sections.iter().find_map(|section| {
            let within = address.checked_sub(section.address)?;
            (within < section.raw_size).then(|| u64::from(section.raw) + u64::from(within))
        });
        inside
            .or_else(|| (address < self.front).then_some(address.into()))
            .ok_or(Error::Damaged("an address lies outside all sections"))
    }
}

pub(crate) fn read(reader: &mut Reader<'_>) -> Result<(Headers, Layout), Error> {
    if reader.len() < 0x40 || reader.u16(0)? != u16::from_le_bytes(*b"MZ") {
        return Err(Error::Other("it does not begin as one"));
    }
    let signature = u64::from(reader.u32(0x3c)?);
    match reader.u32(signature) {
        Ok(magic) if magic == u32::from_le_bytes(*b"PE\0\0") => {}
        Err(Error::Io(error)) => return Err(error.into()),
        _ => return Err(Error::Other("it has no PE header")),
    }
    let coff = signature + 4;
    let machine = Machine::of(reader.u16(coff)?);
    let count = reader.u16(coff + 2)?;
    if count > MAX_SECTIONS {
        return Err(Error::TooMany("sections"));
    }
    let optional = coff + 20;
    let optional_size = u64::from(reader.u16(coff + 16)?);
    let characteristics = reader.u16(coff + 18)?;
    let is_wide = match reader.u16(optional)? {
        0x10b => false,
        0x20b => true,
        _ => return Err(Error::Damaged("its optional header is of no known kind")),
    };
    let (directories_at, count_at) =
        if is_wide { (optional + 112, optional + 108) } else { (optional + 96, optional + 92) };
    if optional + optional_size < directories_at {
        return Err(Error::Damaged("its optional header is too short"));
    }
    let image_base =
        if is_wide { reader.u64(optional + 24)? } else { u64::from(reader.u32(optional + 28)?) };
    let alignment = reader.u32(optional + 32)?;
    let (image_size, front) = (reader.u32(optional + 56)?, reader.u32(optional + 60)?);
    let subsystem = match reader.u16(optional + 68)? {
        1 => Subsystem::Native,
        2 => Subsystem::Gui,
        3 => Subsystem::Console,
        10..=13 => Subsystem::Efi,
        other => Subsystem::Other(other),
    };
    let library_flags = reader.u16(optional + 70)?;
    let room = (optional + optional_size - directories_at) / 8;
    let listed = u64::from(reader.u32(count_at)?.min(MAX_DIRECTORIES)).min(room);
    let mut directories = Vec::new();
    for number in 0..listed {
        let at = directories_at + 8 * number;
        directories.push((reader.u32(at)?, reader.u32(at + 4)?));
    }
    let mut sections = Vec::new();
    for number in 0..u64::from(count) {
        let at = optional + optional_size + 40 * number;
        let name = reader.u64(at)?.to_le_bytes();
        sections.push(Section {
            name,
            virtual_size: reader.u32(at + 8)?,
            address: reader.u32(at + 12)?,
            raw_size: reader.u32(at + 16)?,
            raw: reader.u32(at + 20)?,
        });
    }
    // Files whose sections are smaller than a page are mapped as they are.
    let front = if alignment < 0x1000 { image_size } else { front };
    let is_wine = reader.bytes(MARK_AT, MARK.len()).is_ok_and(|bytes| bytes == MARK);
    let headers = Headers {
        machine,
        is_wide,
        is_library: characteristics & 0x2000 != 0,
        is_driver: library_flags & 0x2000 != 0 || subsystem == Subsystem::Native,
        subsystem,
        is_wine,
    };
    Ok((headers, Layout { image_base, sections, directories, front }))
}

#[cfg(test)]
mod tests {
    use crate::sample::Builder;
    use crate::{Error, Machine, Pe, Subsystem};

    #[test]
    fn headers_are_read() {
        for (machine, number, wide) in [
            (Machine::Amd64, 0x8664, true),
            (Machine::I386, 0x14c, false),
            (Machine::Arm64, 0xaa64, true),
            (Machine::Other(0x200), 0x200, true),
        ] {
            let file =
                Builder { machine: number, wide, subsystem: 3, ..Builder::default() }.build();
            let source = &file[..];
            let pe = Pe::open(&source).unwrap();
            assert_eq!(pe.headers().machine, machine);
            assert_eq!(pe.headers().is_wide, wide);
            assert_eq!(pe.headers().subsystem, Subsystem::Console);
            assert!(!pe.headers().is_wine && !pe.headers().is_driver && !pe.headers().is_library);
        }
        let file = Builder { subsystem: 1, wine: true, ..Builder::default() }.build();
        let source = &file[..];
        let pe = Pe::open(&source).unwrap();
        assert!(pe.headers().is_driver && pe.headers().is_wine);
    }

    #[test]
    fn what_is_none_is_refused() {
        let whole = Builder::default().build();
        for length in [0, 1, 0x3f, 0x7f, 0x84, 0x98, 0x100] {
            let source = &whole[..length];
            assert!(Pe::open(&source).is_err(), "{length}");
        }
        let source = &b"#!/bin/sh\n"[..];
        assert!(matches!(Pe::open(&source), Err(Error::Other(_))));
    }
}

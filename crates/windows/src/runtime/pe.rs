//! Windows executables (PE files): debug information cut off, Wine's mark put in.
//!
//! Wine's files hold DWARF in sections at their end, four fifths of their size. Cutting it off
//! leaves every byte that is mapped and used where it was, and the mark in the DOS stub by which
//! Wine knows its own files.

use std::ops::Range;

/// The mark of Wine's own files, at [`SIGNATURE_AT`] in the DOS stub, and zeros after it.
const SIGNATURE: [u8; 32] = *b"Wine builtin DLL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const SIGNATURE_AT: usize = 64;
/// Sections that a file may have by its format.
const MAX_SECTIONS: usize = 96;
const SECTION: usize = 40;

/// Why a file cannot be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no Windows executable of a known form: {0}")]
pub struct Error(&'static str);

struct Headers {
    /// Where the COFF header begins.
    coff: usize,
    /// Where the optional header begins.
    optional: usize,
    /// Where the section table begins.
    table: usize,
    sections: Vec<Section>,
}

struct Section {
    name: Vec<u8>,
    virtual_size: u32,
    address: u32,
    raw_size: u32,
    raw: u32,
}

/// The file without debug sections and symbols.
pub fn strip(file: &[u8]) -> Result<Vec<u8>, Error> {
    let headers = headers(file)?;
    let is_debug = |section: &Section| section.name.starts_with(b".debug");
    let kept = headers.sections.iter().take_while(|section| !is_debug(section)).count();
    let (kept, cut) = headers.sections.split_at(kept);
    if !cut.iter().all(is_debug) {
        return Err(Error("debug sections are not the last ones"));
    }
    let mut end = headers.table + SECTION * headers.sections.len();
    let mut image = 0;
    for section in kept {
        if section.raw != 0 && section.raw_size != 0 {
            end = end.max(section.raw as usize + section.raw_size as usize);
        }
        let size =
            section.virtual_size.max(if section.virtual_size == 0 { section.raw_size } else { 0 });
        image = image.max(section.address.checked_add(size).ok_or(Error("a section wraps"))?);
    }
    let mut stripped = file.get(..end).ok_or(Error("a section is cut off"))?.to_vec();
    for (at, section) in kept.iter().enumerate() {
        // Long names are in the string table, which goes.
        let at = headers.table + SECTION * at;
        let length = section.name.len().min(8);
        stripped[at..at + 8].fill(0);
        stripped[at..at + length].copy_from_slice(&section.name[..length]);
    }
    let first_cut = headers.table + SECTION * kept.len();
    stripped[first_cut..first_cut + SECTION * cut.len()].fill(0);
    let count = u16::try_from(kept.len()).map_err(|_| Error("too many sections"))?;
    put(&mut stripped, headers.coff + 2, &count.to_le_bytes());
    // Symbol table and number of symbols.
    put(&mut stripped, headers.coff + 8, &[0; 8]);
    let alignment = u32_at(file, headers.optional + 32)?;
    if !alignment.is_power_of_two() {
        return Err(Error("its section alignment is no power of two"));
    }
    let image = image.checked_next_multiple_of(alignment).ok_or(Error("it is too large"))?;
    put(&mut stripped, headers.optional + 56, &image.to_le_bytes());
    // The checksum, which nobody checks for what is no driver.
    put(&mut stripped, headers.optional + 64, &[0; 4]);
    Ok(stripped)
}

/// The file marked as one of Wine's own, as Debian does with libraries of other packages.
pub fn mark(file: &[u8]) -> Result<Vec<u8>, Error> {
    let headers = headers(file)?;
    if headers.coff < SIGNATURE_AT + SIGNATURE.len() + 4 {
        return Err(Error("it has no DOS stub to hold the mark"));
    }
    let mut marked = file.to_vec();
    put(&mut marked, SIGNATURE_AT, &SIGNATURE);
    Ok(marked)
}

/// Whether a file has Wine's mark.
pub fn is_marked(file: &[u8]) -> bool {
    file.starts_with(b"MZ") && file.get(SIGNATURE_AT..).is_some_and(|f| f.starts_with(&SIGNATURE))
}

/// Names of the libraries that a file imports, in lower case; those it loads on demand are not
/// among them.
pub fn imports(file: &[u8]) -> Result<Vec<String>, Error> {
    let headers = headers(file)?;
    let wide = u16_at(file, headers.optional)? == 0x20b;
    let directories = headers.optional + if wide { 112 } else { 96 };
    if directories + 16 > headers.table {
        return Ok(Vec::new());
    }
    let table = u32_at(file, directories + 8)?;
    if table == 0 {
        return Ok(Vec::new());
    }
    let mut at = headers.offset(table)?;
    let mut names = Vec::new();
    loop {
        let name = u32_at(file, at + 12)?;
        if name == 0 {
            return Ok(names);
        }
        let start = headers.offset(name)?;
        let text = file.get(start..).ok_or(Error("a name lies outside"))?;
        let text = text.iter().take(256).take_while(|byte| **byte != 0);
        names.push(text.map(|byte| char::from(byte.to_ascii_lowercase())).collect());
        if names.len() > 4096 {
            return Err(Error("it imports more than 4096 libraries"));
        }
        at += 20;
    }
}

/// Where in the file a function that it exports by name begins.
pub fn export(file: &[u8], function: &str) -> Result<Option<usize>, Error> {
    let headers = headers(file)?;
    let wide = u16_at(file, headers.optional)? == 0x20b;
    let table = u32_at(file, headers.optional + if wide { 112 } else { 96 })?;
    if table == 0 {
        return Ok(None);
    }
    let at = headers.offset(table)?;
    let count = u32_at(file, at + 24)?.min(1 << 16) as usize;
    let part = |place: usize| headers.offset(u32_at(file, at + place)?);
    let (functions, names, ordinals) = (part(28)?, part(32)?, part(36)?);
    for number in 0..count {
        let name = headers.offset(u32_at(file, names + 4 * number)?)?;
        let text = file.get(name..).ok_or(Error("a name lies outside"))?;
        let rest = text.strip_prefix(function.as_bytes());
        if rest.is_some_and(|rest| rest.first() == Some(&0)) {
            let ordinal = usize::from(u16_at(file, ordinals + 2 * number)?);
            return headers.offset(u32_at(file, functions + 4 * ordinal)?).map(Some);
        }
    }
    Ok(None)
}

impl Headers {
    /// Where in the file an address is.
    fn offset(&self, address: u32) -> Result<usize, Error> {
        self.sections
            .iter()
            .find_map(|section| {
                let within = address.checked_sub(section.address)?;
                (within < section.raw_size).then(|| section.raw as usize + within as usize)
            })
            .ok_or(Error("an address lies outside all sections"))
    }
}

fn headers(file: &[u8]) -> Result<Headers, Error> {
    if !file.starts_with(b"MZ") {
        return Err(Error("it has no DOS header"));
    }
    let signature = u32_at(file, 0x3c)? as usize;
    let bytes = |range: Range<usize>| file.get(range).ok_or(Error("it is cut off"));
    if bytes(signature..signature + 4)? != b"PE\0\0" {
        return Err(Error("it has no PE header"));
    }
    let coff = signature + 4;
    let count = usize::from(u16_at(file, coff + 2)?);
    if count > MAX_SECTIONS {
        return Err(Error("it has more than 96 sections"));
    }
    let symbols = u32_at(file, coff + 8)? as usize;
    let symbol_count = u32_at(file, coff + 12)? as usize;
    let strings = if symbols == 0 { None } else { Some(symbols + 18 * symbol_count) };
    let optional = coff + 20;
    let table = optional + usize::from(u16_at(file, coff + 16)?);
    if table < optional + 68 || !matches!(u16_at(file, optional)?, 0x10b | 0x20b) {
        return Err(Error("it has no optional header"));
    }
    let mut sections = Vec::with_capacity(count);
    for number in 0..count {
        let at = table + SECTION * number;
        let short = bytes(at..at + 8)?;
        let short = &short[..short.iter().position(|byte| *byte == 0).unwrap_or(8)];
        let name = match (short.strip_prefix(b"/"), strings) {
            (Some(digits), Some(strings)) => {
                let offset: usize = std::str::from_utf8(digits)
                    .ok()
                    .and_then(|digits| digits.parse().ok())
                    .ok_or(Error("a section's name is no offset"))?;
                let start = strings.checked_add(offset).ok_or(Error("a name lies outside"))?;
                let text = file.get(start..).ok_or(Error("a name lies outside"))?;
                text.iter().take(64).take_while(|byte| **byte != 0).copied().collect()
            }
            _ => short.to_vec(),
        };
        sections.push(Section {
            name,
            virtual_size: u32_at(file, at + 8)?,
            address: u32_at(file, at + 12)?,
            raw_size: u32_at(file, at + 16)?,
            raw: u32_at(file, at + 20)?,
        });
    }
    Ok(Headers { coff, optional, table, sections })
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn u16_at(file: &[u8], at: usize) -> Result<u16, Error> {
    let bytes = file.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Error("it is cut off"))?;
    Ok(u16::from_le_bytes(*bytes))
}

fn u32_at(file: &[u8], at: usize) -> Result<u32, Error> {
    let bytes = file.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Error("it is cut off"))?;
    Ok(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A 64-bit file with `.text`, `.eh_frame` under a long name, and debug sections.
    fn sample() -> Vec<u8> {
        let mut file = vec![0; 0x400];
        put(&mut file, 0, b"MZ");
        put(&mut file, 0x3c, &0x80_u32.to_le_bytes());
        put(&mut file, SIGNATURE_AT, &SIGNATURE);
        put(&mut file, 0x80, b"PE\0\0");
        put(&mut file, 0x86, &4_u16.to_le_bytes());
        put(&mut file, 0x8c, &0x1000_u32.to_le_bytes());
        put(&mut file, 0x94, &240_u16.to_le_bytes());
        let optional = 0x98;
        put(&mut file, optional, &0x20b_u16.to_le_bytes());
        put(&mut file, optional + 32, &0x1000_u32.to_le_bytes());
        put(&mut file, optional + 64, &77_u32.to_le_bytes());
        let names: [&[u8]; 4] = [b".text", b"/4", b"/14", b"/26"];
        for (number, name) in names.iter().enumerate() {
            let at = optional + 240 + SECTION * number;
            let step = u32::try_from(number).unwrap();
            put(&mut file, at, name);
            put(&mut file, at + 8, &0x123_u32.to_le_bytes());
            put(&mut file, at + 12, &(0x1000 * (step + 1)).to_le_bytes());
            put(&mut file, at + 16, &0x200_u32.to_le_bytes());
            put(&mut file, at + 20, &(0x400 + 0x200 * step).to_le_bytes());
        }
        file.resize(0x1000, b'c');
        file.extend(b"\0\0\0\0.eh_frame\0.debug_info\0.debug_line\0");
        file
    }

    #[test]
    fn debug_sections_and_symbols_go() {
        let stripped = strip(&sample()).unwrap();
        assert_eq!(stripped.len(), 0x800);
        assert!(is_marked(&stripped));
        assert_eq!(u16_at(&stripped, 0x86).unwrap(), 2);
        assert_eq!(u32_at(&stripped, 0x8c).unwrap(), 0);
        assert_eq!(u32_at(&stripped, 0x98 + 56).unwrap(), 0x3000);
        assert_eq!(u32_at(&stripped, 0x98 + 64).unwrap(), 0);
        let after = headers(&stripped).unwrap();
        let names: Vec<_> = after.sections.iter().map(|section| section.name.clone()).collect();
        assert_eq!(names, [b".text".to_vec(), b".eh_fram".to_vec()]);
        assert_eq!(stripped[0x400..], sample()[0x400..0x800]);
        assert_eq!(strip(&stripped).unwrap(), stripped, "a second time changes nothing");
    }

    #[test]
    fn debug_sections_in_the_middle_are_refused() {
        let mut file = sample();
        let (at, name) = (0x98 + 240, b".debug_x");
        put(&mut file, at, name);
        assert!(strip(&file).is_err());
    }

    #[test]
    fn marks_are_put_in() {
        let mut file = sample();
        put(&mut file, SIGNATURE_AT, b"This program cannot be run in DO");
        assert!(!is_marked(&file));
        let marked = mark(&file).unwrap();
        assert!(is_marked(&marked));
        assert_eq!(marked, sample());
    }

    #[test]
    fn what_is_no_executable_is_refused() {
        for file in [&b""[..], b"MZ", b"#!/bin/sh", &[0x4d, 0x5a, 0, 0][..], &sample()[..0x90]] {
            assert!(strip(file).is_err());
            assert!(mark(file).is_err());
        }
    }

    proptest! {
        #[test]
        fn damaged_files_do_no_harm(changes in prop::collection::vec((0_usize..0x200, any::<u8>()), 0..20), length in 0_usize..0x1100) {
            let mut file = sample();
            for (at, byte) in changes {
                file[at] = byte;
            }
            file.truncate(length);
            drop(strip(&file));
            drop(mark(&file));
            drop(imports(&file));
            let _at = export(&file, "x");
        }
    }
}

//! What a library offers.

use crate::headers::Layout;
use crate::reader::Reader;
use crate::{Error, MAX_FUNCTIONS, Pe, Symbol};

const EXPORTS: usize = 0;
const MAX_NAME: usize = 4096;

/// The functions of a library.
#[derive(Debug, Clone)]
pub struct Exports {
    /// The name that the library has for itself.
    pub library: String,
    /// Names and places in the table of addresses, sorted.
    names: Vec<(String, u16)>,
    /// The number of the first address.
    base: u32,
    addresses: Vec<u32>,
    directory: (u32, u32),
}

/// What came of the search for a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is there.
    Function,
    /// Another library has it.
    Forward {
        /// That library, with its ending.
        library: String,
        /// What it is called there.
        symbol: Symbol,
    },
    /// Wine has a name for it, and ends a program that calls it.
    Stub,
    /// It is not there.
    Missing,
}

pub(crate) fn read(reader: &mut Reader<'_>, layout: &Layout) -> Result<Option<Exports>, Error> {
    let Some(directory) = layout.directory(EXPORTS) else { return Ok(None) };
    let at = layout.offset(directory.0)?;
    let bounded = |count: u32| {
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= MAX_FUNCTIONS)
            .ok_or(Error::TooMany("exported functions"))
    };
    let library = match layout.offset(reader.u32(at + 12)?) {
        Ok(at) => reader.text(at, 256)?,
        // Nobody needs it.
        Err(_) => String::new(),
    };
    let base = reader.u32(at + 16)?;
    let function_count = bounded(reader.u32(at + 20)?)?;
    let name_count = bounded(reader.u32(at + 24)?)?;
    let mut table = |place: u64, count: usize, size: usize| {
        if count == 0 {
            return Ok(Vec::new());
        }
        let address = reader.u32(place)?;
        reader.bytes(layout.offset(address)?, count * size)
    };
    let addresses = numbers(&table(at + 28, function_count, 4)?);
    let name_addresses = numbers(&table(at + 32, name_count, 4)?);
    let places = table(at + 36, name_count, 2)?;
    let mut names = Vec::with_capacity(name_count);
    for (address, place) in name_addresses.into_iter().zip(places.as_chunks().0) {
        let name = reader.text(layout.offset(address)?, MAX_NAME)?;
        names.push((name, u16::from_le_bytes(*place)));
    }
    names.sort_unstable();
    Ok(Some(Exports { library, names, base, addresses, directory }))
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect()
}

impl Exports {
    /// How many names there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Looks a function up; `pe` is the file that these are of.
    pub fn find(&self, pe: &mut Pe<'_>, symbol: &Symbol) -> Result<Found, Error> {
        let place = match symbol {
            Symbol::Name(name) => {
                let found = self.names.binary_search_by(|(known, _)| known.as_str().cmp(name));
                found.ok().map(|at| usize::from(self.names[at].1))
            }
            Symbol::Ordinal(number) => u32::from(*number)
                .checked_sub(self.base)
                .and_then(|place| usize::try_from(place).ok()),
        };
        let address = place.and_then(|place| self.addresses.get(place)).copied().unwrap_or(0);
        if address == 0 {
            return Ok(Found::Missing);
        }
        let (start, size) = self.directory;
        if address.checked_sub(start).is_some_and(|within| within < size) {
            let text = pe.reader.text(pe.layout.offset(address)?, MAX_NAME)?;
            return forward(&text).ok_or(Error::Damaged("a function leads nowhere"));
        }
        let Ok(at) = pe.layout.offset(address) else { return Ok(Found::Function) };
        let is_stub = pe.headers.is_wine && self.is_stub(pe, at, address);
        Ok(if is_stub { Found::Stub } else { Found::Function })
    }

    /// Whether the code at an offset is what Wine's build tool makes for a function that has only
    /// a name: it passes the library's and the function's name to what ends the program.
    fn is_stub(&self, pe: &mut Pe<'_>, at: u64, address: u32) -> bool {
        let Ok(mut code) = pe.reader.bytes(at, 48) else { return false };
        // 32-bit ones have room before them to be replaced at run time.
        let pad = code.iter().take(16).take_while(|byte| **byte == 0x90).count();
        code.drain(..pad);
        let u32_at = |from: usize| {
            code.get(from..).and_then(|rest| rest.first_chunk()).map(|b| u32::from_le_bytes(*b))
        };
        let name = if pe.headers.is_wide {
            // sub rsp, 0x28; lea rcx, [rip + library]; lea rdx, ...
            if !code.starts_with(&[0x48, 0x83, 0xec, 0x28, 0x48, 0x8d, 0x0d])
                || !matches!(code.get(11..13), Some([0x48, _]))
            {
                return false;
            }
            let next = u64::from(address) + pad as u64 + 11;
            u32_at(7).and_then(|offset| {
                u32::try_from(next.wrapping_add_signed(i64::from(offset.cast_signed()))).ok()
            })
        } else {
            // sub esp, 12; mov [esp + 4], function; mov [esp], library
            if !code.starts_with(&[0x83, 0xec, 0x0c, 0xc7, 0x44, 0x24, 0x04])
                || code.get(11..14) != Some(&[0xc7, 0x04, 0x24])
            {
                return false;
            }
            u32_at(14).and_then(|address| {
                u32::try_from(u64::from(address).checked_sub(pe.layout.image_base)?).ok()
            })
        };
        let text = name
            .and_then(|name| pe.layout.offset(name).ok())
            .and_then(|at| pe.reader.text(at, 256).ok());
        text.is_some_and(|text| !text.is_empty() && text.eq_ignore_ascii_case(&self.library))
    }
}

/// Where `library.function` or `library.#number` leads.
fn forward(text: &str) -> Option<Found> {
    let (library, function) = text.rsplit_once('.')?;
    let symbol = match function.strip_prefix('#') {
        Some(number) => Symbol::Ordinal(number.parse().ok()?),
        None => Symbol::Name(function.to_owned()),
    };
    let ending = if library.contains('.') { "" } else { ".dll" };
    Some(Found::Forward { library: format!("{library}{ending}"), symbol })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Builder, Export};

    fn name(text: &str) -> Symbol {
        Symbol::Name(text.to_owned())
    }

    #[test]
    fn functions_are_found() {
        for wide in [true, false] {
            let file = Builder {
                wide,
                wine: true,
                library: "kernelbase.dll",
                exports: vec![
                    ("Real", Export::Code),
                    ("Away", Export::Forward("ntdll.RtlAway")),
                    ("Numbered", Export::Forward("ws2_32.#7")),
                    ("Half", Export::Stub("kernelbase.dll")),
                    ("NoStub", Export::Stub("other.dll")),
                ],
                ..Builder::default()
            }
            .build();
            let source = &file[..];
            let mut pe = Pe::open(&source).unwrap();
            let exports = pe.exports().unwrap().unwrap();
            assert_eq!((exports.library.as_str(), exports.len()), ("kernelbase.dll", 5));
            let away = |library: &str, symbol| Found::Forward { library: library.into(), symbol };
            for (symbol, found) in [
                (name("Real"), Found::Function),
                (name("real"), Found::Missing),
                (name("Away"), away("ntdll.dll", name("RtlAway"))),
                (name("Numbered"), away("ws2_32.dll", Symbol::Ordinal(7))),
                (name("Half"), Found::Stub),
                (name("NoStub"), Found::Function),
                (Symbol::Ordinal(1), Found::Function),
                (Symbol::Ordinal(4), Found::Stub),
                (Symbol::Ordinal(0), Found::Missing),
                (Symbol::Ordinal(6), Found::Missing),
            ] {
                assert_eq!(exports.find(&mut pe, &symbol).unwrap(), found, "{wide} {symbol}");
            }
        }
    }

    #[test]
    fn only_wines_own_files_have_stubs() {
        let exports = vec![("Half", Export::Stub("a.dll"))];
        let file = Builder { library: "a.dll", exports, ..Builder::default() }.build();
        let source = &file[..];
        let mut pe = Pe::open(&source).unwrap();
        let exports = pe.exports().unwrap().unwrap();
        assert_eq!(exports.find(&mut pe, &name("Half")).unwrap(), Found::Function);
    }

    #[test]
    fn programs_offer_nothing() {
        let file = Builder::default().build();
        let source = &file[..];
        assert!(Pe::open(&source).unwrap().exports().unwrap().is_none());
    }
}

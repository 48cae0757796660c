//! What a file needs of libraries.

use crate::headers::{Headers, Layout};
use crate::reader::Reader;
use crate::{Error, MAX_FUNCTIONS, MAX_LIBRARIES};

const IMPORTS: usize = 1;
const DELAYED: usize = 13;
/// Most bytes of a library's name.
const MAX_NAME: usize = 256;
/// Most bytes of a function's name: C++ makes long ones.
const MAX_FUNCTION: usize = 4096;

/// A function of a library.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Symbol {
    /// By its name.
    Name(String),
    /// By its number.
    Ordinal(u16),
}

impl std::fmt::Display for Symbol {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => formatter.write_str(name),
            Self::Ordinal(number) => write!(formatter, "#{number}"),
        }
    }
}

/// A library that a file needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Its name as the file spells it.
    pub library: String,
    /// Whether it is loaded only when one of its functions is called.
    pub delayed: bool,
    /// What the file needs of it.
    pub functions: Vec<Symbol>,
}

pub(crate) fn read(
    reader: &mut Reader<'_>,
    headers: &Headers,
    layout: &Layout,
) -> Result<Vec<Import>, Error> {
    let mut tables = Tables { reader, headers, layout, functions: 0 };
    let mut imports = Vec::new();
    if let Some((table, _)) = layout.directory(IMPORTS) {
        let mut at = layout.offset(table)?;
        loop {
            let (names, name, addresses) =
                (tables.reader.u32(at)?, tables.reader.u32(at + 12)?, tables.reader.u32(at + 16)?);
            if name == 0 || addresses == 0 {
                break;
            }
            // Old linkers have the names in the one table that there is.
            let names = if names == 0 { addresses } else { names };
            tables.add(&mut imports, name, names, false)?;
            at += 20;
        }
    }
    if let Some((table, _)) = layout.directory(DELAYED) {
        let mut at = layout.offset(table)?;
        loop {
            let attributes = tables.reader.u32(at)?;
            let (name, names) = (tables.reader.u32(at + 4)?, tables.reader.u32(at + 16)?);
            if name == 0 {
                break;
            }
            // Those of old linkers are addresses in memory.
            let relative = |address: u32| {
                if attributes & 1 != 0 {
                    return Ok(address);
                }
                u64::from(address)
                    .checked_sub(layout.image_base)
                    .and_then(|address| u32::try_from(address).ok())
                    .ok_or(Error::Damaged("an address lies outside all sections"))
            };
            let (name, names) = (relative(name)?, relative(names)?);
            tables.add(&mut imports, name, names, true)?;
            at += 32;
        }
    }
    Ok(imports)
}

struct Tables<'a, 'b> {
    reader: &'a mut Reader<'b>,
    headers: &'a Headers,
    layout: &'a Layout,
    functions: usize,
}

impl Tables<'_, '_> {
    fn add(
        &mut self,
        imports: &mut Vec<Import>,
        name: u32,
        names: u32,
        delayed: bool,
    ) -> Result<(), Error> {
        if imports.len() >= MAX_LIBRARIES {
            return Err(Error::TooMany("libraries"));
        }
        let library = self.reader.text(self.layout.offset(name)?, MAX_NAME)?;
        let functions = self.functions(names)?;
        imports.push(Import { library, delayed, functions });
        Ok(())
    }

    fn functions(&mut self, table: u32) -> Result<Vec<Symbol>, Error> {
        let mut functions = Vec::new();
        let mut at = self.layout.offset(table)?;
        loop {
            let (value, by_number, step) = if self.headers.is_wide {
                let value = self.reader.u64(at)?;
                (value, value >> 63 != 0, 8)
            } else {
                let value = self.reader.u32(at)?;
                (u64::from(value), value >> 31 != 0, 4)
            };
            if value == 0 {
                return Ok(functions);
            }
            self.functions += 1;
            if self.functions > MAX_FUNCTIONS {
                return Err(Error::TooMany("imported functions"));
            }
            let [low, high, ..] = value.to_le_bytes();
            functions.push(if by_number {
                Symbol::Ordinal(u16::from_le_bytes([low, high]))
            } else {
                let hint = u32::try_from(value & 0x7fff_ffff)
                    .map_err(|_| Error::Damaged("a name lies outside"))?;
                // A hint for the search comes first.
                let name = self.layout.offset(hint)? + 2;
                Symbol::Name(self.reader.text(name, MAX_FUNCTION)?)
            });
            at += step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pe;
    use crate::sample::Builder;

    fn import(library: &str, delayed: bool, functions: &[&str]) -> Import {
        let symbol = |text: &&str| match text.strip_prefix('#') {
            Some(number) => Symbol::Ordinal(number.parse().unwrap()),
            None => Symbol::Name((*text).to_owned()),
        };
        Import {
            library: library.to_owned(),
            delayed,
            functions: functions.iter().map(symbol).collect(),
        }
    }

    #[test]
    fn imports_of_both_widths() {
        let wanted = vec![
            import("KERNEL32.dll", false, &["CreateFileW", "ExitProcess"]),
            import("WS2_32.dll", false, &["#115", "WSAStartup"]),
            import("late.dll", true, &["Later"]),
        ];
        for wide in [true, false] {
            let builder = Builder { wide, imports: wanted.clone(), ..Builder::default() };
            let file = builder.build();
            let source = &file[..];
            assert_eq!(Pe::open(&source).unwrap().imports().unwrap(), wanted);
        }
    }

    #[test]
    fn endless_tables_are_refused() {
        // The table of imports is where its own names are: it never ends in the section.
        let many = vec![import("a.dll", false, &[]); MAX_LIBRARIES + 1];
        let file = Builder { imports: many, ..Builder::default() }.build();
        let source = &file[..];
        let error = Pe::open(&source).unwrap().imports().unwrap_err();
        assert!(matches!(error, Error::TooMany("libraries")), "{error}");
    }
}

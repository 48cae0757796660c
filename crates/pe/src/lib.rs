//! What Windows executables (PE files: programs, libraries, drivers) say of themselves.
//!
//! Bytes in, data out. A file is a [`Source`]: only what is asked for is read of it, a few pages
//! of a program of a hundred megabytes.
//!
//! - [`identify`] tells from the first bytes what a file is at all.
//! - [`Pe::open`] reads the headers ([`Headers`]): processor, subsystem, kind.
//! - [`Pe::imports`] are the libraries and functions that a file needs, those it loads on demand
//!   too; [`Pe::exports`] what a library offers, with the functions that Wine only has a name
//!   for ([`Exports::find`]).
//! - [`Pe::clr`] says whether and for which .NET a file is.
//! - [`ApiSets`] is the table by which Windows finds the library behind `api-ms-win-*`.
//!
//! # The format
//!
//! `MZ`; at 0x3c the offset of `PE\0\0`; the COFF header (20 bytes: machine, number of sections,
//! size of the optional header, characteristics); the optional header (0x10b: PE32, 0x20b:
//! PE32+), which ends in up to 16 directories of an address and a size each: 0 exports, 1 imports,
//! 13 imports on demand, 14 .NET; then 40 bytes for each section, which say where the addresses
//! are in the file. After Microsoft's "PE Format"; all numbers are little-endian.
//!
//! # Hostile input
//!
//! Nothing here panics. Counts have limits ([`MAX_LIBRARIES`], [`MAX_FUNCTIONS`]), and what is
//! read of one file is bounded as a whole, however its tables overlap.
//!
//! # Why not a crate
//!
//! `object` reads the same tables and is well kept, but its iterators end where the file says,
//! so that every loop here would be written around it again, and it knows neither .NET, API
//! sets nor Wine's stubs.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod apiset;
mod clr;
mod exports;
mod headers;
mod identify;
mod imports;
mod reader;
#[cfg(any(test, feature = "sample"))]
pub mod sample;

pub use apiset::ApiSets;
pub use clr::{Clr, DotNet};
pub use exports::{Exports, Found};
pub use headers::{Headers, Machine, Subsystem};
pub use identify::{FileKind, identify};
pub use imports::{Import, Symbol};
pub use reader::Source;

use reader::Reader;

/// Most libraries that a file may import.
pub const MAX_LIBRARIES: usize = 1024;
/// Most functions that a file may import, or export, together.
pub const MAX_FUNCTIONS: usize = 100_000;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is something else.
    #[error("it is no Windows executable: {0}")]
    Other(&'static str),
    /// A part that is not as it has to be.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// More than is ever needed.
    #[error("it has too many {0}")]
    TooMany(&'static str),
    /// The source failed.
    #[error("it cannot be read")]
    Io(#[from] std::io::Error),
}

/// A Windows executable.
#[derive(Debug)]
pub struct Pe<'a> {
    reader: Reader<'a>,
    headers: Headers,
    layout: headers::Layout,
}

impl<'a> Pe<'a> {
    /// Reads the headers.
    pub fn open(source: &'a dyn Source) -> Result<Self, Error> {
        let mut reader = Reader::new(source)?;
        let (headers, layout) = headers::read(&mut reader)?;
        Ok(Self { reader, headers, layout })
    }

    /// What the headers say.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Everything that it needs of libraries.
    pub fn imports(&mut self) -> Result<Vec<Import>, Error> {
        imports::read(&mut self.reader, &self.headers, &self.layout)
    }

    /// What it offers to others; none for most programs.
    pub fn exports(&mut self) -> Result<Option<Exports>, Error> {
        exports::read(&mut self.reader, &self.layout)
    }

    /// What of .NET it is, if it is.
    pub fn clr(&mut self) -> Result<Option<Clr>, Error> {
        clr::read(&mut self.reader, &self.layout)
    }

    /// The API sets in it, which is the library `apisetschema.dll`.
    pub fn api_sets(&mut self) -> Result<ApiSets, Error> {
        let section = self.layout.section(b".apiset").ok_or(Error::Damaged("no API sets in it"))?;
        let length = usize::try_from(section.raw_size.min(section.virtual_size))
            .map_err(|_| Error::TooMany("API sets"))?;
        let bytes = self.reader.bytes(section.raw.into(), length)?;
        ApiSets::parse(&bytes)
    }

    /// Whether any of `needles` is in the first bytes of the file, up to `limit` of them.
    pub fn contains(&mut self, needles: &[&[u8]], limit: usize) -> Result<bool, Error> {
        let length = usize::try_from(self.reader.len()).unwrap_or(usize::MAX).min(limit);
        let bytes = self.reader.bytes(0, length)?;
        Ok(needles.iter().any(|needle| reader::position(&bytes, needle).is_some()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample::{Builder, Export};

    fn everything() -> Vec<u8> {
        let functions = vec![Symbol::Name("CreateFileW".into()), Symbol::Ordinal(9)];
        Builder {
            wine: true,
            library: "own.dll",
            imports: vec![
                Import { library: "a.dll".into(), delayed: false, functions: functions.clone() },
                Import { library: "b.dll".into(), delayed: true, functions },
            ],
            exports: vec![("Half", Export::Stub("own.dll")), ("Away", Export::Forward("x.y"))],
            clr: Some(vec!["System.Runtime"]),
            ..Builder::default()
        }
        .build()
    }

    fn read_all(file: &[u8]) -> Result<(), Error> {
        let mut pe = Pe::open(&file)?;
        drop((pe.imports(), pe.clr(), pe.api_sets(), pe.contains(&[b"x"], 100)));
        if let Some(exports) = pe.exports()? {
            exports.find(&mut pe, &Symbol::Name("Half".into()))?;
            exports.find(&mut pe, &Symbol::Name("Away".into()))?;
        }
        Ok(())
    }

    #[test]
    fn everything_is_read() {
        read_all(&everything()).unwrap();
    }

    proptest! {
        #[test]
        fn damage_does_no_harm(
            changes in prop::collection::vec((0_usize..0x800, any::<u8>()), 0..30),
            length in 0_usize..0x900,
        ) {
            let mut file = everything();
            for (at, byte) in changes {
                let at = at % file.len();
                file[at] = byte;
            }
            file.truncate(length);
            drop(read_all(&file));
        }
    }
}

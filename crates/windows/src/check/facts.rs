//! What is known of one file.

use std::fs::File;

use silo_pe::{Clr, DotNet, Error, FileKind, Headers, Import, Machine, Pe, Source, Subsystem};

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A Windows executable.
    Executable(Headers),
    /// Something else.
    Other(FileKind),
    /// A Windows executable that cannot be read.
    Damaged(String),
}

/// What is known of a file.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// Its libraries.
    pub imports: Vec<Import>,
    /// What of .NET it is.
    pub clr: Option<Clr>,
    /// Whether it is the small program that starts one made for .NET Core.
    pub is_host: bool,
}

/// Larger files are not searched for the names that the host of .NET Core has in it.
const MAX_HOST: u64 = 1 << 20;
/// What every such host looks for, as wide characters.
const HOST: &[u8] = b"h\0o\0s\0t\0f\0x\0r\0.\0d\0l\0l\0";

impl Facts {
    /// Reads a file.
    pub fn read(file: &File) -> Self {
        let mut start = vec![0; 4096];
        let count = match Source::read_at(file, 0, &mut start) {
            Ok(count) => count,
            Err(error) => return Self::of(Kind::Damaged(format!("it cannot be read: {error}"))),
        };
        match silo_pe::identify(&start[..count]) {
            FileKind::Pe => Self::executable(file).unwrap_or_else(|error| match error {
                Error::Other(_) => Self::of(Kind::Other(FileKind::Dos)),
                error => Self::of(Kind::Damaged(silo_types::error::chain(&error))),
            }),
            other => Self::of(Kind::Other(other)),
        }
    }

    fn of(kind: Kind) -> Self {
        Self { kind, imports: Vec::new(), clr: None, is_host: false }
    }

    fn executable(file: &File) -> Result<Self, Error> {
        let mut pe = Pe::open(file)?;
        let headers = pe.headers().clone();
        let imports = pe.imports()?;
        let clr = pe.clr()?;
        let small = file.length()? <= MAX_HOST;
        let is_host = small
            && clr.is_none()
            && !headers.is_library
            && pe.contains(&[HOST], usize::try_from(MAX_HOST).unwrap_or(usize::MAX))?;
        Ok(Self { kind: Kind::Executable(headers), imports, clr, is_host })
    }

    /// Its headers, if it is an executable.
    pub fn headers(&self) -> Option<&Headers> {
        match &self.kind {
            Kind::Executable(headers) => Some(headers),
            _ => None,
        }
    }

    /// Whether it runs in a 32-bit process.
    pub fn is_narrow(&self) -> bool {
        self.headers().is_some_and(|headers| headers.machine == Machine::I386)
            && !self.clr.as_ref().is_some_and(|clr| clr.is_il_only && !clr.is_narrow)
    }

    /// Whether it is a file of Wine's.
    pub fn is_wine(&self) -> bool {
        self.headers().is_some_and(|headers| headers.is_wine)
    }

    /// In words.
    pub fn describe(&self) -> String {
        let headers = match &self.kind {
            Kind::Executable(headers) => headers,
            Kind::Other(kind) => return kind.describe().to_owned(),
            Kind::Damaged(_) => return "a damaged file".to_owned(),
        };
        let mut text = headers.machine.describe();
        let what = match headers.subsystem {
            _ if headers.is_driver => ", driver",
            _ if headers.is_library => ", library",
            Subsystem::Gui => ", windows",
            Subsystem::Console => ", console",
            Subsystem::Efi => ", firmware",
            Subsystem::Native | Subsystem::Other(_) => "",
        };
        text.push_str(what);
        match self.clr.as_ref().map(|clr| clr.kind) {
            Some(DotNet::Framework) => text.push_str(", .NET Framework"),
            Some(DotNet::Core) => text.push_str(", .NET"),
            Some(DotNet::Standard) => text.push_str(", .NET Standard"),
            None if self.is_host => text.push_str(", .NET"),
            None => {}
        }
        text
    }
}

//! .NET in a file.

use crate::Error;
use crate::headers::Layout;
use crate::reader::{Reader, position};

const CLR: usize = 14;
/// Most bytes of the names that are looked through.
const MAX_NAMES: usize = 4 << 20;
/// Most streams of metadata.
const MAX_STREAMS: u16 = 32;

/// Which .NET a file is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DotNet {
    /// .NET Framework, a part of Windows.
    Framework,
    /// .NET Core, or .NET 5 and later: it comes with the program.
    Core,
    /// A library for all of them.
    Standard,
}

/// What a file says of .NET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clr {
    /// The version of its metadata, `v4.0.30319`.
    pub version: String,
    /// Which .NET.
    pub kind: DotNet,
    /// Whether there is no machine code in it.
    pub is_il_only: bool,
    /// Whether it wants a 32-bit process.
    pub is_narrow: bool,
}

pub(crate) fn read(reader: &mut Reader<'_>, layout: &Layout) -> Result<Option<Clr>, Error> {
    let Some((address, _)) = layout.directory(CLR) else { return Ok(None) };
    let at = layout.offset(address)?;
    let flags = reader.u32(at + 16)?;
    let metadata = layout.offset(reader.u32(at + 8)?)?;
    if reader.u32(metadata)? != u32::from_le_bytes(*b"BSJB") {
        return Err(Error::Damaged("its .NET metadata is none"));
    }
    let length = reader.u32(metadata + 12)?;
    if length > 255 {
        return Err(Error::Damaged("its .NET version is none"));
    }
    let version = reader.text(metadata + 16, 255)?;
    let streams = metadata + 16 + u64::from(length);
    let count = reader.u16(streams + 2)?.min(MAX_STREAMS);
    let mut at = streams + 4;
    let mut names = Vec::new();
    for _ in 0..count {
        let (offset, size) = (reader.u32(at)?, reader.u32(at + 4)?);
        let name = reader.text(at + 8, 32)?;
        if name == "#Strings" {
            let size = usize::try_from(size).unwrap_or(usize::MAX).min(MAX_NAMES);
            names = reader.bytes(metadata + u64::from(offset), size)?;
            break;
        }
        // Its zero byte, and to a multiple of four.
        at += 8 + (name.len() as u64 + 1).next_multiple_of(4);
    }
    let has = |name: &[u8]| position(&names, &[b"\0", name, b"\0"].concat()).is_some();
    let kind = if has(b"System.Runtime") || has(b"System.Private.CoreLib") {
        DotNet::Core
    } else if has(b"netstandard") && !has(b"mscorlib") {
        DotNet::Standard
    } else {
        DotNet::Framework
    };
    Ok(Some(Clr { version, kind, is_il_only: flags & 1 != 0, is_narrow: flags & 2 != 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pe;
    use crate::sample::Builder;

    #[test]
    fn the_kind_follows_from_names() {
        for (names, kind) in [
            (&["mscorlib", "System"][..], DotNet::Framework),
            (&["System.Runtime", "Program"], DotNet::Core),
            (&["netstandard"], DotNet::Standard),
            (&["mscorlib", "netstandard"], DotNet::Framework),
            (&["NotSystem.Runtime"], DotNet::Framework),
        ] {
            let file = Builder { clr: Some(names.to_vec()), ..Builder::default() }.build();
            let source = &file[..];
            let clr = Pe::open(&source).unwrap().clr().unwrap().unwrap();
            assert_eq!((clr.kind, clr.version.as_str()), (kind, "v4.0.30319"), "{names:?}");
            assert!(clr.is_il_only && !clr.is_narrow);
        }
        let file = Builder::default().build();
        let source = &file[..];
        assert_eq!(Pe::open(&source).unwrap().clr().unwrap(), None);
    }
}

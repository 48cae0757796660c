//! Linux libraries (ELF files): what they need, and a stub that stands for one.

/// Why a file cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no 64-bit ELF file of a known form: {0}")]
pub struct Error(&'static str);

const DYNAMIC: u32 = 2;
const LOAD: u32 = 1;
const INTERPRETER: u32 = 3;
/// In a dynamic section: a library that is loaded.
const NEEDED: usize = 1;
const STACK: u32 = 0x6474_e551;
/// Entries of a dynamic section that are looked at.
const MAX_DYNAMIC: usize = 4096;

/// Whether a file begins as an ELF file.
pub fn is_elf(file: &[u8]) -> bool {
    file.starts_with(b"\x7fELF")
}

/// What one file says of others.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Names of the libraries that are loaded with it (`DT_NEEDED`).
    pub needed: Vec<String>,
    /// Its program loader, for programs.
    pub interpreter: Option<String>,
}

struct Header {
    kind: u32,
    offset: usize,
    address: usize,
    size: usize,
}

fn program_headers(file: &[u8]) -> Result<Vec<Header>, Error> {
    let table = usize_at(file, 32)?;
    let size = usize::from(u16_at(file, 54)?);
    let count = usize::from(u16_at(file, 56)?);
    if size != 56 {
        return Err(Error("its program headers have another size"));
    }
    let mut headers = Vec::with_capacity(count);
    for number in 0..count {
        let at = table.checked_add(number * size).ok_or(Error("it is cut off"))?;
        headers.push(Header {
            kind: u32_at(file, at)?,
            offset: usize_at(file, at + 8)?,
            address: usize_at(file, at + 16)?,
            size: usize_at(file, at + 32)?,
        });
    }
    Ok(headers)
}

/// Where in the file an address is.
fn offset(headers: &[Header], address: usize) -> Result<usize, Error> {
    headers
        .iter()
        .filter(|header| header.kind == LOAD)
        .find_map(|header| {
            let within = address.checked_sub(header.address)?;
            (within < header.size).then(|| header.offset + within)
        })
        .ok_or(Error("an address lies outside"))
}

/// Reads which libraries a file needs.
pub fn links(file: &[u8]) -> Result<Links, Error> {
    if !is_elf(file) || file.get(4..6) != Some(&[2, 1]) {
        return Err(Error("it is not a little-endian one"));
    }
    let headers = program_headers(file)?;
    let mut links = Links::default();
    if let Some(header) = headers.iter().find(|header| header.kind == INTERPRETER) {
        links.interpreter = Some(text(file, header.offset)?);
    }
    let Some(dynamic) = headers.iter().find(|header| header.kind == DYNAMIC) else {
        return Ok(links);
    };
    let mut strings = None;
    let mut needed = Vec::new();
    for number in 0..(dynamic.size / 16).min(MAX_DYNAMIC) {
        let at = dynamic.offset + 16 * number;
        let value = usize_at(file, at + 8)?;
        match usize_at(file, at)? {
            0 => break,
            NEEDED => needed.push(value),
            5 => strings = Some(offset(&headers, value)?),
            _ => {}
        }
    }
    for name in needed {
        let strings = strings.ok_or(Error("it has no string table"))?;
        links.needed.push(text(file, strings.checked_add(name).ok_or(Error("it is cut off"))?)?);
    }
    Ok(links)
}

/// A symbol that the compiler adds to every program and that no library has.
const UNUSED: &str = "_ITM_deregisterTMCloneTable";

/// Has a program load a library before all others, so that what that has is taken from there.
pub fn load_first(file: &mut [u8], library: &str) -> Result<(), Error> {
    const STRINGS: usize = 5;
    const STRINGS_SIZE: usize = 10;
    let headers = program_headers(file)?;
    let dynamic = headers.iter().find(|header| header.kind == DYNAMIC);
    let dynamic = dynamic.ok_or(Error("it loads no libraries"))?;
    let (start, count) = (dynamic.offset, (dynamic.size / 16).min(MAX_DYNAMIC));
    let mut tags = Vec::new();
    while tags.len() < count {
        match usize_at(file, start + 16 * tags.len())? {
            0 => break,
            tag => tags.push(tag),
        }
    }
    let end = start + 16 * tags.len();
    // The one that ends the table, and one for the library that has been the first.
    if tags.len() + 2 > count || file.get(end..end + 32) != Some(&[0; 32]) {
        return Err(Error("it has no room for a library"));
    }
    let place = |tag| tags.iter().position(|&found| found == tag).map(|at| start + 16 * at);
    let places = (place(NEEDED), place(STRINGS), place(STRINGS_SIZE));
    let (Some(first), Some(strings), Some(size)) = places else {
        return Err(Error("it loads no libraries"));
    };
    let strings = offset(&headers, usize_at(file, strings + 8)?)?;
    let size = usize_at(file, size + 8)?;
    let table = file.get(strings..strings + size).ok_or(Error("a name lies outside"))?;
    let name = memchr::memmem::find(table, format!("\0{UNUSED}\0").as_bytes())
        .filter(|_| library.len() <= UNUSED.len())
        .ok_or(Error("there is no room for a name"))?
        + 1;
    let text = strings + name;
    file[text..text + library.len()].copy_from_slice(library.as_bytes());
    file[text + library.len()] = 0;
    file.copy_within(first..first + 16, end);
    file[first + 8..first + 16].copy_from_slice(&(name as u64).to_le_bytes());
    Ok(())
}

fn text(file: &[u8], at: usize) -> Result<String, Error> {
    let rest = file.get(at..).ok_or(Error("a name lies outside"))?;
    let end =
        rest.iter().take(256).position(|byte| *byte == 0).ok_or(Error("a name has no end"))?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

fn u16_at(file: &[u8], at: usize) -> Result<u16, Error> {
    let bytes = file.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Error("it is cut off"))?;
    Ok(u16::from_le_bytes(*bytes))
}

fn u32_at(file: &[u8], at: usize) -> Result<u32, Error> {
    let bytes = file.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Error("it is cut off"))?;
    Ok(u32::from_le_bytes(*bytes))
}

fn usize_at(file: &[u8], at: usize) -> Result<usize, Error> {
    let bytes = file.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Error("it is cut off"))?;
    // Files are much smaller, and sums of two must not wrap.
    usize::try_from(u64::from_le_bytes(*bytes))
        .ok()
        .filter(|value| *value < 1 << 48)
        .ok_or(Error("a number is too large"))
}

/// A shared library for x86-64 that exports functions which all return 1.
///
/// One read-only, executable segment: headers, hash table, symbols, names, code; one writable
/// one: the dynamic section, which the loader writes to. Nothing is relocated.
pub fn stub_library(soname: &str, functions: &[&str]) -> Vec<u8> {
    const CODE: [u8; 6] = [0xb8, 1, 0, 0, 0, 0xc3]; // mov eax, 1; ret
    const HEADERS: u64 = 64 + 4 * 56;
    const PAGE: u64 = 0x1000;
    let symbols = functions.len() as u64 + 1;
    let count = u32::try_from(symbols).unwrap_or(u32::MAX);

    let mut names = vec![0_u8];
    let mut add = |name: &str| {
        let at = names.len() as u64;
        names.extend(name.as_bytes());
        names.push(0);
        at
    };
    let soname = add(soname);
    let offsets: Vec<u64> = functions.iter().map(|name| add(name)).collect();

    let hash_at = HEADERS;
    let symbols_at = (hash_at + 4 * (2 + 1 + symbols)).next_multiple_of(8);
    let names_at = symbols_at + 24 * symbols;
    let code_at = (names_at + names.len() as u64).next_multiple_of(16);
    let end = code_at + CODE.len() as u64;
    let dynamic_at = end.next_multiple_of(PAGE);
    let dynamic = [
        (14, soname),
        (4, hash_at),
        (5, names_at),
        (6, symbols_at),
        (10, names.len() as u64),
        (11, 24),
        (0, 0),
    ];
    let dynamic_size = 16 * dynamic.len() as u64;

    let mut file = Vec::new();
    let u16s = |file: &mut Vec<u8>, values: &[u16]| {
        for value in values {
            file.extend(value.to_le_bytes());
        }
    };
    let u32s = |file: &mut Vec<u8>, values: &[u32]| {
        for value in values {
            file.extend(value.to_le_bytes());
        }
    };
    let u64s = |file: &mut Vec<u8>, values: &[u64]| {
        for value in values {
            file.extend(value.to_le_bytes());
        }
    };
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    u16s(&mut file, &[3, 62]);
    u32s(&mut file, &[1]);
    u64s(&mut file, &[0, 64, 0]);
    u32s(&mut file, &[0]);
    u16s(&mut file, &[64, 56, 4, 64, 0, 0]);
    // Loaded read-only and executable, loaded writable, the dynamic section, and a stack that is
    // not executable, as it would be without this header.
    u32s(&mut file, &[LOAD, 5]);
    u64s(&mut file, &[0, 0, 0, end, end, PAGE]);
    u32s(&mut file, &[LOAD, 6]);
    u64s(&mut file, &[dynamic_at, dynamic_at, dynamic_at, dynamic_size, dynamic_size, PAGE]);
    u32s(&mut file, &[DYNAMIC, 6]);
    u64s(&mut file, &[dynamic_at, dynamic_at, dynamic_at, dynamic_size, dynamic_size, 8]);
    u32s(&mut file, &[STACK, 6]);
    u64s(&mut file, &[0, 0, 0, 0, 0, 16]);
    // One bucket with a chain through all symbols: the order does not matter then.
    u32s(&mut file, &[1, count, u32::from(count > 1)]);
    u32s(&mut file, &[0]);
    for number in 1..count {
        u32s(&mut file, &[if number + 1 < count { number + 1 } else { 0 }]);
    }
    file.resize(usize_of(symbols_at), 0);
    u64s(&mut file, &[0, 0, 0]);
    for name in offsets {
        u32s(&mut file, &[u32::try_from(name).unwrap_or(0)]);
        file.extend([0x12, 0]); // global function
        u16s(&mut file, &[1]); // any section but none
        u64s(&mut file, &[code_at, CODE.len() as u64]);
    }
    file.extend(&names);
    file.resize(usize_of(code_at), 0);
    file.extend(CODE);
    file.resize(usize_of(dynamic_at), 0);
    for (tag, value) in dynamic {
        u64s(&mut file, &[tag, value]);
    }
    file
}

fn usize_of(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_stub_is_a_library_that_loaders_take() {
        let stub = stub_library("libstub.so.6", &["FT_Init_FreeType", "FT_Done_Face"]);
        assert_eq!(links(&stub).unwrap(), Links::default());
        // Any dynamic program of this host loads it, if there is one to try with.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("libstub.so.6");
        fs_err::File::create(&path).unwrap().write_all(&stub).unwrap();
        let program = "import ctypes,sys\nl=ctypes.CDLL(sys.argv[1])\nassert l.FT_Done_Face()==1 and l.FT_Init_FreeType()==1\ntry:\n l.FT_Missing\n sys.exit(3)\nexcept AttributeError:\n pass";
        match Command::new("python3").args(["-c", program]).arg(&path).status() {
            Ok(status) => assert!(status.success()),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let stub = stub_library("a", &["b"]);
        for end in (0..stub.len()).step_by(7) {
            drop(links(&stub[..end]));
        }
        assert!(links(b"").is_err());
        assert!(links(b"MZ").is_err());
        let mut wild = stub.clone();
        wild[32..40].fill(0xff);
        assert!(links(&wild).is_err());
        assert!(load_first(&mut wild, "a").is_err());
        assert!(load_first(&mut stub.clone(), "a").is_err(), "it loads none");
    }
}

//! The inside of a package: an `ar` archive whose member `data.tar.*` is the files (deb(5)).

use std::io::{BufReader, Read, Take};
use std::path::Path;

use fs_err::File;
use silo_archive::{Entry, Error as Archive, Reader, compress};

use super::Error;

const MAGIC: &[u8] = b"!<arch>\n";
/// Members before the data; there are two.
const MAX_MEMBERS: u64 = 16;
/// Size that all files of a package may have together, in bytes.
const MAX_CONTENT: u64 = 4 << 30;

/// Finds the data member of a package: its compressed stream.
pub fn data_member(mut input: impl Read) -> Result<Take<impl Read>, Archive> {
    let malformed = |offset, reason: &str| Archive::Malformed { offset, reason: reason.to_owned() };
    let mut magic = [0; 8];
    input.read_exact(&mut magic).map_err(Archive::Read)?;
    if magic != MAGIC {
        return Err(malformed(0, "it is no Debian package"));
    }
    let mut offset = 8;
    for _ in 0..MAX_MEMBERS {
        let mut header = [0; 60];
        input.read_exact(&mut header).map_err(|_| Archive::Truncated { offset })?;
        if header[58..] != *b"`\n" {
            return Err(malformed(offset, "a member's header is damaged"));
        }
        let text = |range: std::ops::Range<usize>| {
            std::str::from_utf8(&header[range]).ok().map(|text| text.trim_end_matches(' '))
        };
        let size: u64 = text(48..58)
            .filter(|size| size.bytes().all(|digit| digit.is_ascii_digit()))
            .and_then(|size| size.parse().ok())
            .ok_or_else(|| malformed(offset, "a member's size is no number"))?;
        let name = text(0..16).unwrap_or("").trim_end_matches('/');
        if name.starts_with("data.tar") {
            return Ok(input.take(size));
        }
        let padded = size + (size & 1);
        let skipped = std::io::copy(&mut input.by_ref().take(padded), &mut std::io::sink())
            .map_err(Archive::Read)?;
        if skipped != padded {
            return Err(Archive::Truncated { offset });
        }
        offset += 60 + padded;
    }
    Err(malformed(offset, "it has no data"))
}

/// Calls `visit` with every file of a package and its content, in the package's order.
pub fn visit(
    path: &Path,
    mut visit: impl FnMut(&Entry, &mut dyn Read) -> Result<(), Archive>,
) -> Result<(), Error> {
    let file = File::open(path).map_err(|error| Error::File("cannot open a package", error))?;
    let read = || {
        let member = data_member(BufReader::with_capacity(256 << 10, file))?;
        let (compression, member) = compress::detect(member).map_err(Archive::Read)?;
        let stream = compress::decode_in_thread(compression, member)?;
        let mut reader = Reader::new(stream.take(MAX_CONTENT));
        while let Some(entry) = reader.next_entry()? {
            visit(&entry, &mut reader)?;
        }
        Ok(())
    };
    read().map_err(|source| Error::Archive { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, data.len());
        bytes.push_str(&String::from_utf8_lossy(data));
        if data.len() % 2 == 1 {
            bytes.push('\n');
        }
        bytes.into_bytes()
    }

    fn read(archive: &[u8]) -> Result<String, Archive> {
        let mut text = String::new();
        data_member(archive)?.read_to_string(&mut text).map_err(Archive::Read)?;
        Ok(text)
    }

    #[test]
    fn the_data_member_is_found() {
        let mut archive = MAGIC.to_vec();
        archive.extend(member("debian-binary", b"2.0\n"));
        archive.extend(member("control.tar.xz", b"odd"));
        archive.extend(member("data.tar.xz/", b"data"));
        archive.extend(member("later", b"x"));
        assert_eq!(read(&archive).unwrap(), "data");
        for end in [0, 7, 30, 100] {
            assert!(read(&archive[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn damaged_archives_are_refused() {
        let mut huge = MAGIC.to_vec();
        huge.extend(member("a", b"").iter());
        huge[8 + 48..8 + 58].copy_from_slice(b"9999999999");
        let mut signed = MAGIC.to_vec();
        signed.extend(member("a", b""));
        signed[8 + 48..8 + 50].copy_from_slice(b"-1");
        let mut many = MAGIC.to_vec();
        (0..20).for_each(|_| many.extend(member("a", b"")));
        many.extend(member("data.tar", b"x"));
        for archive in [&b"!<arch>x"[..], &huge, &signed, &many] {
            assert!(read(archive).is_err());
        }
    }
}

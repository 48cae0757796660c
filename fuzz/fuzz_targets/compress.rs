//! Compressed streams: no panic, and no more memory than the format's window.
//!
//! The first byte chooses the format. Checksums in headers are made right, since no fuzzer would
//! find them: what follows is a member of gzip without its head, or a block of xz with any filters.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use silo_archive::Compression;
use silo_archive::compress::decoder;

/// How much is read at most: a bomb is no finding.
const MAX: u64 = 4 << 20;

fn crc(bytes: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

/// An xz stream with a block header of our making around the input's first bytes.
fn xz(input: &[u8]) -> Vec<u8> {
    let mut stream = b"\xfd7zXZ\0".to_vec();
    let flags = [0, [0, 1, 4, 10][usize::from(input.first().copied().unwrap_or(1)) % 4]];
    stream.extend_from_slice(&flags);
    stream.extend_from_slice(&crc(&flags));
    let (properties, data) = input.split_at(input.len().min(15));
    let mut header = vec![4];
    header.extend_from_slice(properties);
    header.resize(16, 0);
    stream.extend_from_slice(&header);
    stream.extend_from_slice(&crc(&header));
    stream.extend_from_slice(data);
    stream
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let (kind, stream) = match choice % 6 {
        0 => (Compression::Gzip, rest.to_vec()),
        1 => (Compression::Gzip, [b"\x1f\x8b\x08\0\0\0\0\0\0\x03", rest].concat()),
        2 => (Compression::Zstd, rest.to_vec()),
        3 => (Compression::Bzip2, [b"BZh1", rest].concat()),
        4 => (Compression::Xz, rest.to_vec()),
        _ => (Compression::Xz, xz(rest)),
    };
    if let Ok(reader) = decoder(kind, &stream[..]) {
        let mut out = Vec::new();
        // Whether it ends well is for the tests to say.
        drop(reader.take(MAX).read_to_end(&mut out));
    }
});

//! Compressed streams as gzip, bzip2 and xz of the system make them, whole, cut and spoilt.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Cursor, Read, Write};
use std::process::{Command, Stdio};

use silo_archive::Compression;
use silo_archive::compress::{self, decode_in_thread, decoder};

/// What a program of the system makes of `input`.
fn made_by(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    output.stdout
}

/// Text that is neither random nor uniform.
fn text(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let word = ["layer", "image", "container", "\0\0\0\0", "e8 12"][(state >> 16) as usize % 5];
        bytes.extend_from_slice(word.as_bytes());
        bytes.push((state >> 24) as u8);
    }
    bytes.truncate(length);
    bytes
}

fn read(stream: &[u8]) -> std::io::Result<Vec<u8>> {
    let (kind, input) = compress::detect(Cursor::new(stream.to_vec()))?;
    let mut out = Vec::new();
    let mut reader = decode_in_thread(kind, input).map_err(std::io::Error::other)?;
    reader.read_to_end(&mut out)?;
    Ok(out)
}

#[test]
fn what_the_tools_write_is_read() {
    let plain = text(3 << 20);
    for (program, arguments) in [
        ("gzip", &["-1"][..]),
        ("gzip", &["-9"]),
        ("bzip2", &["-1"]),
        ("bzip2", &["-9"]),
        ("xz", &["-0"]),
        ("xz", &["-9"]),
        ("xz", &["-6e", "--check=sha256"]),
        ("xz", &["--check=crc32", "--block-size=100000"]),
        ("xz", &["--check=none", "-T2", "--block-size=1MiB"]),
        ("xz", &["--x86", "--lzma2=preset=1"]),
        ("xz", &["--delta=dist=4", "--arm", "--lzma2=preset=0,lc=1,lp=2,pb=0"]),
    ] {
        let stream = made_by(program, arguments, &plain);
        let kind = Compression::sniff(&stream);
        let expected = match program {
            "gzip" => Compression::Gzip,
            "bzip2" => Compression::Bzip2,
            _ => Compression::Xz,
        };
        assert_eq!(kind, expected, "{program} {arguments:?}");
        assert!(read(&stream).unwrap() == plain, "{program} {arguments:?}");
        // Several streams after each other are one, as for the tools.
        let twice = [&stream[..], &stream[..]].concat();
        assert_eq!(read(&twice).unwrap().len(), 2 * plain.len(), "{program} {arguments:?}");
        let followed = [&stream[..], b"and something else"].concat();
        assert!(read(&followed).is_err(), "{program} {arguments:?}");
    }
}

#[test]
fn empty_streams_are_empty() {
    for program in ["gzip", "bzip2", "xz"] {
        assert_eq!(read(&made_by(program, &[], b"")).unwrap(), b"", "{program}");
    }
}

#[test]
fn cut_streams_are_errors() {
    let plain = text(20_000);
    for program in ["gzip", "bzip2", "xz"] {
        let stream = made_by(program, &[], &plain);
        // Shorter than the magic is not recognised, and is what it is.
        for length in (8..stream.len()).step_by(7).chain([stream.len() - 1]) {
            assert!(read(&stream[..length]).is_err(), "{program} cut at {length}");
        }
    }
}

#[test]
fn spoilt_streams_are_never_read_as_something_else() {
    let plain = text(1_500);
    for program in ["gzip", "bzip2", "xz"] {
        let stream = made_by(program, &[], &plain);
        for at in 6..stream.len() {
            for bit in [0, 7] {
                let mut spoilt = stream.clone();
                spoilt[at] ^= 1 << bit;
                let mut found = Vec::new();
                let mut reader = decoder(Compression::sniff(&stream), &spoilt[..]).unwrap();
                // Some bits mean nothing, such as gzip's time.
                if reader.read_to_end(&mut found).is_ok() {
                    assert!(found == plain, "{program}, byte {at}, bit {bit}");
                }
            }
        }
    }
}

/// An xz stream of "hello" whose block asks for a dictionary of this size code.
fn xz_with_dictionary(code: u8) -> Vec<u8> {
    let mut stream = made_by("xz", &["-0"], b"hello");
    // The block's header: size, flags, filter 0x21, length of its properties, the size code,
    // padding, CRC-32.
    assert_eq!(stream[12..16], [2, 0, 0x21, 1]);
    stream[16] = code;
    let mut crc = flate2::Crc::new();
    crc.update(&stream[12..20]);
    stream[20..24].copy_from_slice(&crc.sum().to_le_bytes());
    stream
}

#[test]
fn dictionaries_are_bounded() {
    // 64 MiB is what `xz -9` asks for, 128 MiB the limit, 40 the largest code: 4 GiB.
    for code in [0, 28, 30] {
        assert_eq!(read(&xz_with_dictionary(code)).unwrap(), b"hello", "{code}");
    }
    for code in [31, 32, 39, 40] {
        let error = read(&xz_with_dictionary(code)).unwrap_err().to_string();
        assert_eq!(error, "the xz stream's dictionary is larger than 128 MiB", "{code}");
    }
    assert!(read(&xz_with_dictionary(41)).is_err());
}

/// The most memory that this process has had, in KiB.
fn peak_memory() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn bombs_are_read_piece_by_piece() {
    const SIZE: u64 = 256 << 20;
    for program in ["gzip", "bzip2", "xz"] {
        let pipeline = format!("head -c {SIZE} /dev/zero | {program} -1");
        let bomb = made_by("sh", &["-c", &pipeline], b"");
        let before = peak_memory();
        let mut reader = decoder(Compression::sniff(&bomb), &bomb[..]).unwrap();
        let read = std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
        assert_eq!(read, SIZE, "{program}");
        let more = peak_memory() - before;
        assert!(more < 64 << 10, "{program} took {more} KiB for {} bytes", bomb.len());
    }
}

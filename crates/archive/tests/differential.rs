//! The reader and writer against GNU tar and Python's tarfile, and against attacks on
//! readers that see different entries in one stream.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use fs_err as fs;
use std::io::{Cursor, Read, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use silo_archive::pax;
use silo_archive::{Compression, Entry, EntryKind, Error, RawTap, Reader, Segment, Time, Writer};

/// What two readers must agree about: kind, path, link, and content.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: char,
    path: String,
    link: String,
    mode: u32,
    mtime: i64,
    sum: u64,
}

fn sum(data: &[u8]) -> u64 {
    data.iter()
        .enumerate()
        .filter(|(_, byte)| **byte != 0)
        .fold(0, |sum, (at, byte)| (sum + (at as u64 + 1) * u64::from(*byte)) % 1_000_000_007)
}

fn ours(tar: &[u8]) -> Result<Vec<Seen>, Error> {
    let mut reader = Reader::new(tar);
    let mut seen = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut stored = Vec::new();
        reader.read_to_end(&mut stored).map_err(Error::Read)?;
        assert_eq!(stored.len() as u64, entry.stored);
        let mut data = Vec::new();
        if let Some(map) = &entry.sparse {
            assert!(entry.size < 64 << 20);
            data.resize(usize::try_from(entry.size).unwrap(), 0);
            let mut rest = &stored[..];
            for segment in map {
                let at = usize::try_from(segment.offset).unwrap();
                let (now, later) = rest.split_at(usize::try_from(segment.length).unwrap());
                data[at..at + now.len()].copy_from_slice(now);
                rest = later;
            }
        } else {
            data = stored;
        }
        let kind = match entry.kind {
            EntryKind::Regular => 'f',
            EntryKind::HardLink => 'h',
            EntryKind::Symlink => 'l',
            EntryKind::CharDevice => 'c',
            EntryKind::BlockDevice => 'b',
            EntryKind::Directory => 'd',
            EntryKind::Fifo => 'p',
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        seen.push(Seen {
            kind,
            path: text(&entry.path).trim_end_matches('/').to_owned(),
            link: text(&entry.link),
            mode: entry.mode,
            mtime: entry.mtime.seconds,
            sum: sum(&data),
        });
    }
    Ok(seen)
}

const PYTHON: &str = r#"
import sys, tarfile, math
def total(data):
    n = 0
    for i, b in enumerate(data):
        if b: n = (n + (i + 1) * b) % 1000000007
    return n
t = tarfile.open(fileobj=sys.stdin.buffer, mode='r|')
for m in t:
    k = 'f' if m.isreg() else 'h' if m.islnk() else 'l' if m.issym() else 'c' if m.ischr() \
        else 'b' if m.isblk() else 'd' if m.isdir() else 'p' if m.isfifo() else '?'
    data = t.extractfile(m).read() if m.isreg() else b''
    link = m.linkname if k in 'hl' else ''
    print(k, m.name.rstrip('/'), link, m.mode & 0o7777, math.floor(m.mtime), total(data), sep='\x1f')
"#;

fn python(tar: &[u8]) -> Vec<Seen> {
    let output = pipe("python3", &["-c", PYTHON], tar);
    let text = String::from_utf8_lossy(&output);
    let lines = text.lines().map(|line| {
        let part: Vec<&str> = line.split('\x1f').collect();
        Seen {
            kind: part[0].chars().next().unwrap(),
            path: part[1].to_owned(),
            link: part[2].to_owned(),
            mode: part[3].parse().unwrap(),
            mtime: part[4].parse().unwrap(),
            sum: part[5].parse().unwrap(),
        }
    });
    lines.collect()
}

/// Runs a program on `input` and gives its output.
fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feed = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    output.stdout
}

/// The names that GNU tar lists, one a line, and whether it was content.
fn gnu_names(tar: &[u8]) -> Vec<String> {
    let listed = pipe("tar", &["-tf", "-", "--quoting-style=literal", "-P"], tar);
    String::from_utf8_lossy(&listed).lines().map(|l| l.trim_end_matches('/').to_owned()).collect()
}

fn tree(root: &Path) {
    let long = "long-directory-name/".repeat(14);
    fs::create_dir_all(root.join(&long)).unwrap();
    fs::write(root.join(&long).join("file-with-a-name"), b"deep").unwrap();
    fs::write(root.join("a".repeat(180)), b"long name").unwrap();
    fs::write(root.join("ümläut"), b"text").unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("block"), vec![b'b'; 512]).unwrap();
    fs::hard_link(root.join("block"), root.join("zhard")).unwrap();
    std::os::unix::fs::symlink("../x".repeat(60), root.join("longlink")).unwrap();
    std::os::unix::fs::symlink("empty", root.join("link")).unwrap();
    Command::new("mkfifo").arg(root.join("fifo")).status().unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    for index in 0..40_u64 {
        let at = index * 200_000;
        std::os::unix::fs::FileExt::write_all_at(sparse.file(), b"some data here", at).unwrap();
    }
    sparse.set_len(9_000_000).unwrap();
}

#[test]
fn agrees_with_what_gnu_tar_writes() {
    let directory = tempfile::tempdir().unwrap();
    tree(directory.path());
    let cases: [&[&str]; 9] = [
        &["--format=v7"],
        &["--format=ustar"],
        &["--format=oldgnu"],
        &["--format=gnu"],
        &["--format=gnu", "--sparse"],
        &["--format=posix"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
    ];
    for case in cases {
        let directory = directory.path().to_str().unwrap();
        let arguments: Vec<&str> =
            case.iter().copied().chain(["-C", directory, "-cf", "-", "."]).collect();
        let tar = pipe("tar", &arguments, b"");
        let mine = ours(&tar).unwrap_or_else(|error| panic!("{case:?}: {error}"));
        assert!(mine.len() > 8, "{case:?}");
        assert_eq!(mine, python(&tar), "{case:?}");
        assert_eq!(mine.iter().map(|seen| seen.path.clone()).collect::<Vec<_>>(), gnu_names(&tar));
    }
}

#[test]
fn others_agree_with_what_we_write() {
    let mut writer = Writer::new(Vec::new());
    let mut mine = Vec::new();
    for (index, length) in
        [1, 99, 100, 101, 150, 155, 156, 200, 255, 256, 257, 500, 3000].into_iter().enumerate()
    {
        let path = "d234567/".repeat(500)[..length].trim_end_matches('/').to_owned() + "x";
        let mut entry = Entry::new(EntryKind::Regular, path, 0o4751);
        entry.mtime = Time { seconds: i64::try_from(index).unwrap() - 7, nanos: 0 };
        entry.size = 600 * index as u64;
        (entry.uid, entry.gid) = (3_000_000, u32::MAX - 1);
        entry.xattrs.push((b"user.a".to_vec(), b"v\0\n=".to_vec()));
        let data = vec![b'd'; 600 * index];
        writer.append(&entry, &mut &data[..]).unwrap();
        mine.push(entry);
    }
    let mut link = Entry::new(EntryKind::Symlink, "näme", 0o777);
    link.link = "t".repeat(300).into_bytes();
    writer.append_empty(&link).unwrap();
    let tar = writer.finish().unwrap();
    assert_eq!(ours(&tar).unwrap(), python(&tar));
    assert_eq!(gnu_names(&tar).len(), mine.len() + 1);
    let mut reader = Reader::new(&tar[..]);
    for wanted in mine {
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!(entry, Entry { stored: wanted.size, ..wanted });
    }
}

/// A header, with whatever is wrong about it.
struct Raw([u8; 512]);

impl Raw {
    fn new(kind: u8, name: &str, size: u64) -> Self {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(b"0000644\0");
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        block[136..148].copy_from_slice(b"00000000000\0");
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        Self(block)
    }
    fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }
    fn gnu(self) -> Self {
        self.put(257, b"ustar  \0")
    }
    fn seal(mut self) -> Vec<u8> {
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.to_vec()
    }
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

fn pax_header(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        pax::write(&mut body, key.as_bytes(), value.as_bytes());
    }
    [Raw::new(kind, "pax", body.len() as u64).seal(), padded(&body)].concat()
}

fn gnu_long(kind: u8, name: &str) -> Vec<u8> {
    let body = [name.as_bytes(), b"\0"].concat();
    [Raw::new(kind, "././@LongLink", body.len() as u64).gnu().seal(), padded(&body)].concat()
}

fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = parts.concat();
    tar.extend_from_slice(&[0; 1024]);
    tar
}

#[test]
fn pax_size_wins_over_the_header_as_everywhere() {
    // CVE-2025-62518: a reader that takes the header's 0 sees the hidden archive's entries.
    let hidden = [Raw::new(b'0', "hidden", 4).seal(), padded(b"evil")].concat();
    let size = hidden.len().to_string();
    let tar = archive(&[
        pax_header(b'x', &[("size", &size)]),
        Raw::new(b'0', "outer", 0).seal(),
        hidden,
        Raw::new(b'0', "last", 0).seal(),
    ]);
    let names: Vec<String> = ours(&tar).unwrap().into_iter().map(|seen| seen.path).collect();
    assert_eq!(names, ["outer", "last"]);
    assert_eq!(gnu_names(&tar), names);
}

#[test]
fn what_readers_differ_about_is_refused() {
    let file = |name: &str| Raw::new(b'0', name, 0).seal();
    let sized =
        |kind, size| [Raw::new(kind, "x", size).put(157, b"t").seal(), padded(&[1; 512])].concat();
    let x = |records: &[(&str, &str)]| pax_header(b'x', records);
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("pax and long name", vec![x(&[("path", "p")]), gnu_long(b'L', "l"), file("f")]),
        ("long name and pax", vec![gnu_long(b'L', "l"), x(&[("path", "p")]), file("f")]),
        ("two pax", vec![x(&[("path", "p")]), x(&[("uid", "1")]), file("f")]),
        ("two long names", vec![gnu_long(b'L', "l"), gnu_long(b'L', "m"), file("f")]),
        ("global size", vec![pax_header(b'g', &[("size", "512")]), file("f")]),
        ("global path", vec![pax_header(b'g', &[("path", "p")]), file("f")]),
        ("symlink with data", vec![sized(b'2', 512)]),
        ("directory with data", vec![sized(b'5', 512)]),
        ("device with data", vec![sized(b'3', 512)]),
        ("pax size on a link", vec![x(&[("size", "512")]), sized(b'1', 0)]),
        ("file with a slash", vec![Raw::new(b'0', "d/", 512).seal(), padded(&[1; 512])]),
        ("empty file with a slash", vec![file("d/")]),
        (
            "sparse form by half",
            vec![
                x(&[
                    ("GNU.sparse.major", "0"),
                    ("GNU.sparse.size", "9"),
                    ("GNU.sparse.numblocks", "1"),
                    ("GNU.sparse.map", "0,1"),
                ]),
                [Raw::new(b'0', "f", 1).seal(), padded(b"a")].concat(),
            ],
        ),
        (
            "sparse map without its length",
            vec![
                x(&[("GNU.sparse.size", "9"), ("GNU.sparse.map", "0,1")]),
                [Raw::new(b'0', "f", 1).seal(), padded(b"a")].concat(),
            ],
        ),
        ("number of an extension", vec![Raw::new(b'x', "x", 0).put(108, b"z").seal(), file("f")]),
        // Go forgets what came before a global header.
        (
            "global after pax",
            vec![x(&[("path", "p")]), pax_header(b'g', &[("comment", "c")]), file("f")],
        ),
        (
            "global after a long name",
            vec![gnu_long(b'L', "l"), pax_header(b'g', &[("comment", "c")]), file("f")],
        ),
        ("name prefix in GNU's", vec![Raw::new(b'0', "f", 0).gnu().put(345, b"dir").seal()]),
        ("time of access in pax", vec![x(&[("atime", "x")]), file("f")]),
        ("device number of a file", vec![Raw::new(b'0', "f", 0).put(329, b"dev").seal()]),
        ("volume label", vec![Raw::new(b'V', "v", 0).seal()]),
        ("multi volume", vec![Raw::new(b'M', "v", 0).seal()]),
        ("solaris header", vec![Raw::new(b'X', "v", 0).seal(), file("f")]),
        ("dangling pax", vec![x(&[("path", "p")])]),
        ("dangling long name", vec![gnu_long(b'L', "l")]),
        ("negative size", vec![Raw::new(b'0', "f", 0).put(124, &[0xff; 12]).seal()]),
        (
            "huge size",
            vec![
                Raw::new(b'0', "f", 0)
                    .put(124, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
                    .seal(),
            ],
        ),
        ("size with junk", vec![Raw::new(b'0', "f", 0).put(124, b"0000 000000\0").seal()]),
        ("size in pax beyond 63 bits", vec![x(&[("size", "18446744073709551615")]), file("f")]),
        ("signed pax size", vec![x(&[("size", "+1")]), file("f")]),
        ("empty pax path", vec![x(&[("path", "")]), file("f")]),
        ("uid that chown ignores", vec![x(&[("uid", "4294967295")]), file("f")]),
        ("uid beyond 32 bits", vec![x(&[("uid", "4294967296")]), file("f")]),
        ("negative uid", vec![x(&[("uid", "-1")]), file("f")]),
        ("two pax sizes", vec![x(&[("size", "0"), ("size", "512")]), file("f")]),
        ("lone zero block", vec![vec![0; 512], file("f")]),
        ("unknown magic", vec![Raw::new(b'0', "f", 0).put(257, b"ustar 99").seal()]),
        ("empty name", vec![file("")]),
        ("no checksum", vec![Raw::new(b'0', "f", 0).0.to_vec()]),
        (
            "wrong sparse form",
            vec![x(&[("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0")]), file("f")],
        ),
        (
            "sparse without map",
            vec![x(&[("GNU.sparse.name", "n"), ("GNU.sparse.realsize", "9")]), file("f")],
        ),
        (
            "sparse overlap",
            vec![
                x(&[
                    ("GNU.sparse.size", "9"),
                    ("GNU.sparse.numblocks", "2"),
                    ("GNU.sparse.map", "0,2,1,2"),
                ]),
                [Raw::new(b'0', "f", 4).seal(), padded(b"abcd")].concat(),
            ],
        ),
        (
            "sparse beyond end",
            vec![
                x(&[
                    ("GNU.sparse.size", "9"),
                    ("GNU.sparse.numblocks", "1"),
                    ("GNU.sparse.map", "8,4"),
                ]),
                [Raw::new(b'0', "f", 4).seal(), padded(b"abcd")].concat(),
            ],
        ),
        (
            "sparse bytes left over",
            vec![
                x(&[
                    ("GNU.sparse.size", "9"),
                    ("GNU.sparse.numblocks", "1"),
                    ("GNU.sparse.map", "0,2"),
                ]),
                [Raw::new(b'0', "f", 4).seal(), padded(b"abcd")].concat(),
            ],
        ),
        (
            "sparse map without end",
            vec![
                x(&[
                    ("GNU.sparse.major", "1"),
                    ("GNU.sparse.minor", "0"),
                    ("GNU.sparse.realsize", "9"),
                ]),
                [Raw::new(b'0', "f", 4).seal(), padded(b"9999")].concat(),
            ],
        ),
        (
            "sparse map too long",
            vec![
                x(&[
                    ("GNU.sparse.major", "1"),
                    ("GNU.sparse.minor", "0"),
                    ("GNU.sparse.realsize", "9"),
                ]),
                [Raw::new(b'0', "f", 512).seal(), padded(b"9999999999\n")].concat(),
            ],
        ),
        ("sparse in ustar", vec![Raw::new(b'S', "f", 0).seal()]),
        ("large extension", vec![Raw::new(b'x', "x", (1 << 33) - 1).seal()]),
        ("truncated", vec![Raw::new(b'0', "f", (1 << 33) - 1).seal()]),
    ];
    for (name, parts) in cases {
        assert!(ours(&archive(&parts)).is_err(), "{name}");
    }
    assert!(ours(&[0; 512]).unwrap().is_empty());
    assert!(ours(&[]).unwrap().is_empty());
    let comment = archive(&[pax_header(b'g', &[("comment", "of git archive")]), file("f")]);
    assert_eq!(ours(&comment).unwrap().len(), 1);
    let numbers = archive(&[Raw::new(b'0', "f", 0)
        .put(108, &[0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0])
        .gnu()
        .seal()]);
    let mut reader = Reader::new(&numbers[..]);
    assert_eq!(reader.next_entry().unwrap().unwrap().uid, 3_000_000);
}

/// Collects what is not data.
#[derive(Default)]
struct Tap(Vec<u8>);

impl RawTap for Tap {
    fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[test]
fn tap_and_data_are_the_whole_stream() {
    let mut entry = Entry::new(EntryKind::Regular, "f", 0o644);
    entry.size = 700;
    let mut writer = Writer::new(Vec::new());
    writer.append(&entry, &mut &[b'D'; 700][..]).unwrap();
    writer.append(&entry, &mut &[b'S'; 700][..]).unwrap();
    let mut tar = writer.finish().unwrap();
    tar.extend_from_slice(b"and what follows");
    let mut reader = Reader::with_tap(&tar[..], Tap::default());
    reader.next_entry().unwrap();
    let mut data = Vec::new();
    reader.read_to_end(&mut data).unwrap();
    let at = reader.tap_mut().0.len();
    let (_, tap) = reader.finish().unwrap();
    let mut whole = tap.0;
    whole.splice(at..at, data);
    assert!(whole == tar);
}

#[test]
fn compressed_streams_of_several_members() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::stream::encode_all(bytes, 1).unwrap();
    for (kind, stream) in [
        (Compression::Gzip, [gzip(b"one "), gzip(b"two")].concat()),
        (Compression::Zstd, [zstd(b"one "), zstd(b"two")].concat()),
        (Compression::None, b"one two".to_vec()),
    ] {
        assert_eq!(Compression::sniff(&stream), kind);
        let mut text = String::new();
        let mut reader =
            silo_archive::compress::decode_in_thread(kind, Cursor::new(stream.clone())).unwrap();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
        if kind != Compression::None {
            let short = stream[..stream.len() - 5].to_vec();
            let mut reader =
                silo_archive::compress::decode_in_thread(kind, Cursor::new(short)).unwrap();
            assert!(reader.read_to_end(&mut Vec::new()).is_err());
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let file = |name: &str| [Raw::new(b'0', name, 5).seal(), padded(b"hello")].concat();
    vec![
        archive(&[file("a"), file("b/c"), Raw::new(b'5', "d/", 0).seal()]),
        archive(&[
            pax_header(b'x', &[("path", "long"), ("size", "5"), ("mtime", "1.5")]),
            file("a"),
        ]),
        archive(&[gnu_long(b'L', "gnu-long-name"), file("a"), file("b")]),
        archive(&[
            pax_header(
                b'x',
                &[
                    ("GNU.sparse.size", "9"),
                    ("GNU.sparse.map", "0,2,4,3"),
                    ("GNU.sparse.numblocks", "2"),
                ],
            ),
            file("a"),
            file("b"),
        ]),
        archive(&[
            Raw::new(b'2', "l", 0).put(157, b"target").seal(),
            Raw::new(b'1', "h", 0).put(157, b"l").seal(),
        ]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// What we accept of a damaged archive, GNU tar lists by the same names.
    #[test]
    fn mutations_are_refused_or_agreed_on(
        seed in 0..5_usize,
        changes in prop::collection::vec((0..4_usize, 0..512_usize, any::<u8>()), 1..4),
    ) {
        let mut tar = seeds().swap_remove(seed);
        for (block, at, byte) in changes {
            let start = block * 512;
            if start + 512 > tar.len() { continue }
            tar[start + at] = byte;
            // Mend the checksum where there was one, so that the change is looked at.
            if tar[start + 257..start + 262] == *b"ustar" {
                let sum: u64 = (0..512).map(|i| if (148..156).contains(&i) { 32 } else { u64::from(tar[start + i]) }).sum();
                tar[start + 148..start + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        if let Ok(mine) = ours(&tar) {
            let names: Vec<String> = mine.into_iter().map(|seen| seen.path).collect();
            let printable = names.iter().all(|name| name.bytes().all(|b| (33..127).contains(&b)));
            if printable {
                prop_assert_eq!(names, gnu_names(&tar));
            }
        }
    }

    /// Nothing that comes in makes the reader panic or take much memory.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        drop(ours(&bytes));
        drop(pax::parse(&bytes));
    }

    /// What we write is what we read.
    #[test]
    fn round_trip(
        path in "[a-zé/]{1,300}x", link in "[a-zé/]{1,200}", mode in 0..0o10000_u32,
        uid in 0..u32::MAX, seconds in -1000..1_i64 << 40, nanos in 0..1_000_000_000_u32,
        data in prop::collection::vec(any::<u8>(), 0..1500),
    ) {
        let mut file = Entry::new(EntryKind::Regular, path.clone(), mode);
        file.size = data.len() as u64;
        file.stored = file.size;
        file.uid = uid;
        file.mtime = Time { seconds, nanos };
        let mut symlink = Entry::new(EntryKind::Symlink, path, 0o777);
        symlink.link = link.into_bytes();
        let mut writer = Writer::new(Vec::new());
        writer.append(&file, &mut &data[..]).unwrap();
        writer.append_empty(&symlink).unwrap();
        let tar = writer.finish().unwrap();
        let mut reader = Reader::new(&tar[..]);
        prop_assert_eq!(reader.next_entry().unwrap().unwrap(), file);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        prop_assert_eq!(read, data);
        prop_assert_eq!(reader.next_entry().unwrap().unwrap(), symlink);
        prop_assert!(reader.next_entry().unwrap().is_none());
    }
}

#[test]
fn sparse_maps_are_given_in_order() {
    let tar = archive(&[
        pax_header(
            b'x',
            &[
                ("GNU.sparse.size", "9"),
                ("GNU.sparse.numblocks", "3"),
                ("GNU.sparse.map", "0,2,4,3,9,0"),
                ("GNU.sparse.name", "real"),
            ],
        ),
        Raw::new(b'0', "a", 5).seal(),
        padded(b"hello"),
    ]);
    let mut reader = Reader::new(&tar[..]);
    let entry = reader.next_entry().unwrap().unwrap();
    let want = vec![Segment { offset: 0, length: 2 }, Segment { offset: 4, length: 3 }];
    assert_eq!((entry.sparse, entry.size, entry.stored), (Some(want), 9, 5));
    assert_eq!(entry.path, b"real");
}

//! Layers that other programs wrote: read, and made again bit for bit.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::io::{BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use silo_archive::compress;
use silo_winlayer::header::{self, Header};
use silo_winlayer::record::Trailer;
use silo_winlayer::{LayerReader, Record, SideReader, SideWriter, side};

const FIXTURES: [&str; 3] = ["exported", "base", "built"];

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let file = fs_err::File::open(path.join(format!("{name}.tar.zst"))).unwrap();
    let (compression, input) = compress::detect(file).unwrap();
    let mut bytes = Vec::new();
    compress::decoder(compression, BufReader::new(input)).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

struct Layer {
    records: Vec<Record>,
    data: Vec<Vec<u8>>,
    trailer: Trailer,
}

fn read(tar: &[u8]) -> Layer {
    let mut reader = LayerReader::new(tar);
    let (mut records, mut data) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next_item().unwrap() {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        records.push(item.record);
        data.push(bytes);
    }
    let (rest, trailer) = reader.finish().unwrap();
    assert!(rest.is_empty());
    Layer { records, data, trailer }
}

/// Writes a side record and makes the tar again with it; gives the side record.
fn assert_round_trip(tar: &[u8]) -> Vec<u8> {
    let layer = read(tar);
    let write = || {
        let mut writer = SideWriter::new(Vec::new()).unwrap();
        layer.records.iter().for_each(|record| writer.push(record).unwrap());
        writer.finish(&layer.trailer).unwrap()
    };
    let bytes = write();
    assert_eq!(bytes, write());

    let mut reader = SideReader::new(&bytes[..]).unwrap();
    for record in &layer.records {
        assert_eq!(reader.next_record().unwrap().as_ref(), Some(record));
    }
    let (rest, trailer) = reader.finish().unwrap();
    assert!(rest.is_empty());
    assert_eq!(trailer, layer.trailer);

    let mut again = Vec::new();
    let mut reader = SideReader::new(&bytes[..]).unwrap();
    let content = |number: u64, record: &Record, out: &mut Vec<u8>| {
        let data = &layer.data[usize::try_from(number).unwrap()];
        assert_eq!(data.len() as u64, record.size());
        out.write_all(data)
    };
    side::replay(&mut reader, &mut again, content).unwrap();
    assert!(again == tar, "the tar is another");
    bytes
}

#[test]
fn layers_by_the_rules_need_no_raw_bytes() {
    for name in FIXTURES {
        let tar = fixture(name);
        let layer = read(&tar);
        for record in &layer.records {
            let shown = String::from_utf8_lossy(&record.header().name).into_owned();
            assert!(record.raw().is_none(), "{name}: {shown}");
        }
        let last = layer.records.last().unwrap().size();
        assert_eq!(layer.trailer, Trailer::standard(last));
        let side = assert_round_trip(&tar);
        assert!(side.len() * 10 < tar.len(), "{name}: {} of {}", side.len(), tar.len());
    }
}

#[test]
fn go_writes_the_same() {
    if Command::new("go").arg("version").output().is_err() {
        println!("skipped: there is no Go");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/go/main.go");
    let output = Command::new("go")
        .arg("run")
        .arg(program)
        .arg(directory.path())
        .env("GOFLAGS", "-mod=mod")
        .env("GOCACHE", directory.path().join("cache"))
        .env("CGO_ENABLED", "0")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in FIXTURES {
        let tar = fs_err::read(directory.path().join(format!("{name}.tar"))).unwrap();
        assert!(tar == fixture(name), "{name}");
        assert_round_trip(&tar);
    }
}

/// A tree as a layer's.
fn tree() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs_err::create_dir_all(root.join("Files/Windows/System32")).unwrap();
    fs_err::create_dir_all(root.join("Hives")).unwrap();
    fs_err::write(root.join("Files/Windows/System32/größe.dll"), vec![7; 70_000]).unwrap();
    fs_err::write(root.join(format!("Files/{}", "n".repeat(120))), b"long name").unwrap();
    fs_err::hard_link(root.join("Files/Windows/System32/größe.dll"), root.join("Files/again"))
        .unwrap();
    fs_err::os::unix::fs::symlink("Windows", root.join("Files/link")).unwrap();
    (directory, root)
}

#[test]
fn layers_of_gnu_tar() {
    let (_directory, root) = tree();
    for format in ["gnu", "ustar", "posix", "v7"] {
        let mut command = Command::new("tar");
        command.arg("-C").arg(&root).arg(format!("--format={format}"));
        if format != "gnu" && format != "posix" {
            command.arg(format!("--exclude={}", "n".repeat(120)));
        }
        let output = command.args(["-cf", "-", "Files", "Hives"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let layer = read(&output.stdout);
        assert!(layer.records.len() >= 6, "{format}");
        assert_round_trip(&output.stdout);
    }
}

#[test]
fn layers_of_python() {
    let (_directory, root) = tree();
    for format in ["PAX_FORMAT", "GNU_FORMAT"] {
        let script = format!(
            "import tarfile, sys, io\n\
             out = io.BytesIO()\n\
             tar = tarfile.open(fileobj=out, mode='w', format=tarfile.{format})\n\
             def add(info):\n\
             \x20   info.pax_headers = {{'MSWINDOWS.fileattr': '16' if info.isdir() else '32'}}\n\
             \x20   return info\n\
             tar.add(sys.argv[1] + '/Files', 'Files', filter=add)\n\
             tar.add(sys.argv[1] + '/Hives', 'Hives', filter=add)\n\
             tar.close()\n\
             sys.stdout.buffer.write(out.getvalue())\n"
        );
        let output = Command::new("python3").arg("-c").arg(script).arg(&root).output();
        let Ok(output) = output else {
            println!("skipped: there is no Python");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_round_trip(&output.stdout);
    }
}

#[test]
fn ends_of_all_kinds() {
    let tar = fixture("base");
    let end = tar.len() - 1024;
    let cut = |extra: &[u8]| [&tar[..end], extra].concat();
    for ending in [&b""[..], &[0; 512], &[0; 1024], &[0; 10_240]] {
        assert_round_trip(&cut(ending));
    }
    assert_round_trip(&cut(&[&[0; 1024][..], b"more"].concat()));
    assert_round_trip(&cut(&[&[0; 1536][..], b"\x01\0\0"].concat()));
}

#[test]
fn padding_that_is_not_zero() {
    let mut tar = Vec::new();
    let mut header = Header::new(header::REGULAR, "Files/a");
    header.size = 3;
    header.encode(&mut tar).unwrap();
    tar.extend_from_slice(b"abc");
    tar.resize(1024, 0x55);
    Header::new(header::REGULAR, "Files/b").encode(&mut tar).unwrap();
    tar.resize(tar.len() + 1024, 0);
    let layer = read(&tar);
    assert!(layer.records[0].raw().is_none());
    assert_eq!(layer.records[1].raw().unwrap().len(), 509 + 512);
    assert_round_trip(&tar);
}

#[test]
fn data_that_is_not_read_is_skipped() {
    let tar = fixture("exported");
    let mut reader = LayerReader::new(&tar[..]);
    let mut records = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        records.push(item.record);
    }
    assert_eq!(records, read(&tar).records);
}

fn any_header() -> impl Strategy<Value = Header> {
    let name = "(Files|Hives|UtilityVM/Files)(/[a-zA-Zäж .:]{1,60}){0,4}";
    let key = "(MSWINDOWS\\.[a-z]{1,8}|LIBARCHIVE\\.creationtime|atime|comment)";
    let value = prop_oneof![
        "[0-9]{1,12}",
        "-?[0-9]{1,10}\\.[0-9]{1,7}",
        "([A-Za-z0-9+/]{4}){1,40}",
        "\\PC{0,20}"
    ];
    let records = proptest::collection::btree_map(key, value, 0..5);
    (name, 0_usize..4, -1_i64 << 34..1 << 34, 0_u32..1_000_000_000, 0_u32..1 << 21, records)
        .prop_map(|(name, kind, seconds, nanos, mode, records)| {
            let kind =
                [header::REGULAR, header::DIRECTORY, header::SYMLINK, header::HARD_LINK][kind];
            let mut header = Header::new(kind, name);
            (header.mtime.seconds, header.mtime.nanos, header.mode) = (seconds, nanos, mode);
            if kind == header::SYMLINK || kind == header::HARD_LINK {
                header.link = b"Files/target".to_vec();
            }
            for (key, value) in records {
                // What is no time refuses the archive.
                let time =
                    key != "atime" || silo_archive::pax::parse_time(value.as_bytes()).is_some();
                if time {
                    header.set(&key, value);
                }
            }
            header
        })
}

proptest! {
    #[test]
    fn any_headers(headers in proptest::collection::vec(any_header(), 1..8)) {
        let mut tar = Vec::new();
        for header in &headers {
            header.encode(&mut tar).unwrap();
        }
        tar.resize(tar.len() + 1024, 0);
        let mut reader = silo_archive::Reader::new(&tar[..]);
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            found.push(entry.path);
        }
        let names: Vec<_> = headers.iter().map(|header| header.name.clone()).collect();
        prop_assert_eq!(found, names);
        // Some are refused for their names; the rest come out as they went in.
        let mut side = SideWriter::new(Vec::new()).unwrap();
        for header in &headers {
            side.push(&Record::new(header.clone()).unwrap()).unwrap();
        }
        let bytes = side.finish(&Trailer::standard(0)).unwrap();
        let mut again = Vec::new();
        let mut reader = SideReader::new(&bytes[..]).unwrap();
        side::replay(&mut reader, &mut again, |_, _, _| Ok(())).unwrap();
        prop_assert_eq!(again, tar);
    }

    #[test]
    fn any_bytes_as_side_record(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = [&b"SWLR\x01"[..], &bytes].concat();
        let mut reader = SideReader::new(&bytes[..]).unwrap();
        while let Ok(Some(record)) = reader.next_record() {
            prop_assert!(record.header().name.len() <= 1 << 20);
        }
    }
}

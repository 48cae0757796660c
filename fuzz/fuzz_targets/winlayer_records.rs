//! Records of Windows layers: what is read is written again with the same bytes, and nothing
//! that is planned leads out of the layer. Input is a tar, or a side record, of which a tar
//! is made first: so checksums are right.
#![no_main]

use std::io::{self, Write};

use libfuzzer_sys::fuzz_target;
use silo_winlayer::plan::Rules;
use silo_winlayer::{
    LayerPath, LayerReader, Op, Planner, Record, SideReader, SideWriter, Tree, side,
};

/// The most bytes of data that are made.
const MAX_DATA: u64 = 64 << 10;

fn zeros(_: u64, record: &Record, out: &mut Vec<u8>) -> io::Result<()> {
    if record.size() > MAX_DATA {
        return Err(io::ErrorKind::QuotaExceeded.into());
    }
    io::copy(&mut io::Read::take(io::repeat(0), record.size()), out).map(drop)
}

fn check_path(path: &LayerPath) {
    for name in path.names() {
        assert!(silo_winlayer::name::check(name).is_ok(), "{path}");
    }
}

fn check(op: &Op) {
    match op {
        Op::Symlink { path, target, .. } => {
            check_path(path);
            let up = target.split('/').take_while(|name| *name == "..").count();
            assert!(up < path.names().count(), "{path} -> {target}");
            let down: Vec<&str> = target.split('/').skip(up).collect();
            let here = down == ["."] && up == 0;
            assert!(here || down.iter().all(|name| silo_winlayer::name::check(name).is_ok()));
        }
        Op::HardLink { path, target } | Op::LinkBeneath { path, target } => {
            check_path(path);
            check_path(target);
            assert_ne!(path, target);
        }
        Op::Directory { path, .. }
        | Op::File { path, .. }
        | Op::Whiteout { path }
        | Op::Opaque { path }
        | Op::Times { path, .. } => check_path(path),
        Op::Stream { owner, name, .. } => {
            check_path(owner);
            assert!(silo_winlayer::name::check_stream(name).is_ok());
        }
        Op::Hive { name, .. } => assert!(silo_winlayer::name::check(name).is_ok()),
        _ => {}
    }
}

fn read(tar: &[u8]) {
    let mut reader = LayerReader::new(tar);
    let mut planner = Planner::new(Rules { opaque: tar.len() % 2 == 0 });
    let mut again = Vec::new();
    let mut side = SideWriter::new(Vec::new()).unwrap();
    let mut before = 0;
    let mut records = Vec::new();
    loop {
        let item = match reader.next_item() {
            Ok(Some(item)) => item,
            Ok(None) => break,
            Err(_) => return,
        };
        item.record.write(before, &mut again).unwrap();
        before = item.record.size();
        let start = again.len();
        if io::Read::read_to_end(&mut reader, &mut again).is_err() {
            return;
        }
        assert_eq!((again.len() - start) as u64, before);
        side.push(&item.record).unwrap();
        let name = String::from_utf8_lossy(&item.record.header().name).into_owned();
        records.push(item.record);
        match planner.plan(&name, item.meaning) {
            Ok(ops) => ops.iter().for_each(check),
            Err(_) => return,
        }
    }
    let Ok((_, trailer)) = reader.finish() else {
        return;
    };
    io::copy(&mut io::Read::take(io::repeat(0), trailer.zeros), &mut again).unwrap();
    again.write_all(&trailer.rest).unwrap();
    if again != tar {
        let at = again.iter().zip(tar).position(|(a, b)| a != b);
        panic!("{} bytes became {}, another at {at:?}", tar.len(), again.len());
    }

    let side = side.finish(&trailer).unwrap();
    let mut reader = SideReader::new(&side[..]).unwrap();
    for record in &records {
        assert_eq!(reader.next_record().unwrap().as_ref(), Some(record));
    }
    assert_eq!(reader.finish().unwrap().1, trailer);

    // Once on nothing, then on itself.
    let beneath = Tree::default();
    let (ops, names, _) = planner.finish(&beneath);
    ops.iter().for_each(check);
    let mut merged = Tree::default();
    merged.overlay(&names).unwrap();
    merged.overlay(&names).unwrap();
}

fuzz_target!(|bytes: &[u8]| {
    if !bytes.starts_with(b"SWLR") {
        return read(bytes);
    }
    let Ok(mut reader) = SideReader::new(bytes) else {
        return;
    };
    let mut tar = Vec::new();
    let mut limited = Limited { out: &mut tar };
    let made = side::replay(&mut reader, &mut limited, |number, record, out| {
        zeros(number, record, out.out)
    });
    if made.is_ok() {
        read(&tar);
    }
});

/// Takes so much and no more: an end may ask for any number of zeros.
struct Limited<'a> {
    out: &'a mut Vec<u8>,
}

impl Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.out.len() + bytes.len() > 4 << 20 {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

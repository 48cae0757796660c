//! Records for what was found on a file system, and that a plan takes them for the same.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;

use silo_winlayer::plan::Rules;
use silo_winlayer::scan::{Beneath, Found, HiveDelta, Made, Node, Source, records};
use silo_winlayer::{
    Entry, EntryKind, FileAttributes, FileTime, LayerPath, LayerReader, Planner, Record, Tree,
    descriptor, hives::Hive,
};

#[derive(Default)]
struct Layers {
    tree: Tree,
    entries: HashMap<LayerPath, Entry>,
}

impl Beneath for Layers {
    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn entry(&self, path: &LayerPath) -> Option<Entry> {
        self.entries.get(path).cloned()
    }
}

fn node(path: &str, kind: Found) -> Node {
    let written = FileTime(133_444_736_001_234_567);
    Node { path: path.into(), kind, written, attributes: FileAttributes::default(), origin: None }
}

fn file(path: &str, size: u64) -> Node {
    node(path, Found::File { size, inode: None })
}

fn directory(path: &str) -> Node {
    node(path, Found::Directory { opaque: false })
}

fn link(path: &str, target: &str) -> Node {
    node(path, Found::Symlink { target: target.into() })
}

/// Writes the records as a tar, reads it, and plans it; every record must be taken.
fn read_back(made: &[Made]) -> (Tree, HashMap<LayerPath, Entry>) {
    let mut tar = Vec::new();
    let mut before = 0;
    for made in made {
        let record = Record::new(made.header.clone()).unwrap();
        record.write(before, &mut tar).unwrap();
        before = record.size();
        tar.resize(tar.len() + usize::try_from(before).unwrap(), b'x');
    }
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    let mut reader = LayerReader::new(&tar[..]);
    let mut planner = Planner::new(Rules::default());
    let mut entries = HashMap::new();
    while let Some(item) = reader.next_item().unwrap() {
        assert!(item.record.raw().is_none());
        if let Some(entry) = &item.meaning.entry
            && !matches!(entry.kind, EntryKind::Stream { .. } | EntryKind::Whiteout)
        {
            entries.insert(entry.path.clone(), entry.clone());
        }
        let name = String::from_utf8_lossy(&item.record.header().name).into_owned();
        planner.plan(&name, item.meaning).unwrap();
    }
    let (_, tree, reports) = planner.finish(&Tree::default());
    assert_eq!(reports.count, 0, "{:?}", reports.first);
    let mut all = Tree::default();
    all.overlay(&tree).unwrap();
    (all, entries)
}

fn names(made: &[Made]) -> Vec<String> {
    made.iter().map(|made| String::from_utf8(made.header.name.clone()).unwrap()).collect()
}

#[test]
fn a_new_tree() {
    let inode = Some((1, 2));
    let nodes = vec![
        directory(""),
        directory("b"),
        file("b/z.txt", 3),
        file("b/z.txt:Zone.Identifier", 5),
        file("b/A.txt", 0),
        node("b/one", Found::File { size: 4, inode }),
        node("b/two", Found::File { size: 4, inode }),
        link("b/link", "../c"),
        link("b/file", "z.txt"),
        node("b/gone", Found::Whiteout),
        file("c/deep/x", 1),
        file("d:s", 1),
        file("CON", 1),
        file("B/twin", 1),
        file("a\\b", 1),
        link("out", "../etc"),
        link("abs", "/etc"),
    ];
    let delta = |hive| HiveDelta { hive, size: 8, written: FileTime(1) };
    let hives = [delta(Hive::System), delta(Hive::Sam)];
    let (made, reports) = records(nodes, &hives, FileTime(7), &Layers::default()).unwrap();
    assert_eq!(
        names(&made),
        [
            "Files",
            "Files/B",
            "Files/B/.wh.gone",
            "Files/B/A.txt",
            "Files/B/file",
            "Files/B/link",
            "Files/B/one",
            "Files/B/twin",
            "Files/B/two",
            "Files/B/z.txt",
            "Files/B/z.txt:Zone.Identifier",
            "Files/c",
            "Files/c/deep",
            "Files/c/deep/x",
            "Hives",
            "Hives/Sam_Delta",
            "Hives/System_Delta",
        ]
    );
    assert_eq!(reports.count, 5, "{:?}", reports.first);
    let (tree, entries) = read_back(&made);
    assert!(!tree.is_empty());
    let entry = |path: &str| &entries[&LayerPath::parse(path.as_bytes()).unwrap().0];
    let is_link = |path: &str, want: &str, dir: bool| match &entry(path).kind {
        EntryKind::Link { target, directory, junction } => {
            assert_eq!((target.as_str(), *directory, *junction), (want, dir, false));
        }
        other => panic!("{other:?}"),
    };
    is_link("Files/B/link", "..\\c", true);
    is_link("Files/B/file", "z.txt", false);
    assert_eq!(entry("Files/c/deep/x").descriptor, Some(descriptor::default_file()));
    assert_eq!(entry("Files/c").descriptor, Some(descriptor::default_directory()));
    assert_eq!(entry("Files/c").times.written, FileTime(7));
    assert_eq!(entry("Files/B/z.txt").times.written, FileTime(133_444_736_001_234_567));
    assert_eq!(made[9].source, Source::File(b"b/z.txt".to_vec()));
}

#[test]
fn changes_keep_what_was() {
    let nodes = vec![
        directory("D"),
        file("D/File.txt", 1),
        file("D/other", 1),
        directory("D/E"),
        link("D/L", "E"),
    ];
    let (mut made, _) = records(nodes, &[], FileTime(7), &Layers::default()).unwrap();
    for made in &mut made {
        if made.header.name == b"Files/D/File.txt" {
            made.header.set("MSWINDOWS.fileattr", "8231");
            made.header.set("MSWINDOWS.xattr.EA", "QUJD");
            made.header.set("LIBARCHIVE.creationtime", "1");
        }
        if made.header.name == b"Files/D/L" {
            made.header.link = b"C:\\D\\E".to_vec();
            made.header.set("MSWINDOWS.mountpoint", "1");
        }
    }
    let (tree, entries) = read_back(&made);
    let below = Layers { tree, entries };
    let mut hidden = file("d/file.TXT", 9);
    hidden.attributes = FileAttributes::HIDDEN;
    let nodes = vec![
        node("d", Found::Directory { opaque: true }),
        hidden,
        file("d/new", 2),
        link("d/L", "E"),
    ];
    let (made, reports) = records(nodes, &[], FileTime(8), &below).unwrap();
    assert_eq!(reports.count, 0, "{:?}", reports.first);
    assert_eq!(
        names(&made),
        [
            "Files",
            "Files/d",
            "Files/d/.wh.E",
            "Files/d/.wh.other",
            "Files/d/file.TXT",
            "Files/d/L",
            "Files/d/new",
            "Hives"
        ]
    );
    let header =
        |name: &str| &made.iter().find(|made| made.header.name == name.as_bytes()).unwrap().header;
    let changed = header("Files/d/file.TXT");
    assert_eq!(changed.record("MSWINDOWS.fileattr"), Some(&b"8226"[..]));
    assert_eq!(changed.record("MSWINDOWS.xattr.EA"), Some(&b"QUJD"[..]));
    assert_eq!(changed.record("LIBARCHIVE.creationtime"), Some(&b"1"[..]));
    assert!(changed.record("MSWINDOWS.rawsd").is_some());
    let junction = header("Files/d/L");
    assert_eq!(junction.link, b"C:\\D\\E");
    assert!(junction.record("MSWINDOWS.mountpoint").is_some());
    // Inherited from a directory whose descriptor is known.
    assert!(header("Files/d/new").record("MSWINDOWS.rawsd").is_none());
}

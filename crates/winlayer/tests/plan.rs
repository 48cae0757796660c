//! What becomes of the entries of a layer: names, links, streams, whiteouts, and what is
//! refused or left out.
#![allow(clippy::unwrap_used, reason = "a test")]

use silo_winlayer::header::{DIRECTORY, HARD_LINK, Header, REGULAR, SYMLINK};
use silo_winlayer::plan::Rules;
use silo_winlayer::{Entry, Error, Finding, Op, Planner, Refusal, Reports, Tree};

/// A header from `d NAME`, `f NAME`, `l NAME -> TARGET`, `j NAME -> TARGET` (junction),
/// `h NAME -> TARGET` (hard link), `c NAME` (device).
fn header(text: &str) -> Header {
    let (kind, rest) = text.split_once(' ').unwrap();
    let (name, target) = rest.split_once(" -> ").unwrap_or((rest, ""));
    let flag = match kind {
        "d" => DIRECTORY,
        "f" => REGULAR,
        "l" | "j" => SYMLINK,
        "h" => HARD_LINK,
        _ => b'3',
    };
    let mut header = Header::new(flag, name);
    header.link = target.into();
    if kind == "j" {
        header.set("MSWINDOWS.mountpoint", "1");
    }
    header
}

/// An operation as short text.
fn shown(op: &Op) -> String {
    match op {
        Op::Directory { path, .. } => format!("mkdir {path}"),
        Op::File { path, .. } => format!("file {path}"),
        Op::Hive { name, .. } => format!("hive {name}"),
        Op::Stream { owner, name, .. } => format!("stream {owner}:{name}"),
        Op::Whiteout { path } => format!("whiteout {path}"),
        Op::Opaque { path } => format!("opaque {path}"),
        Op::Elsewhere => "elsewhere".into(),
        Op::Rename { from, to } => format!("rename {from} {to}"),
        Op::RenameStream { from, to, name } => format!("rename {from}:{name} {to}:{name}"),
        Op::StreamWhiteout { owner, name } => format!("whiteout {owner}:{name}"),
        Op::Symlink { path, target, .. } => format!("symlink {path} {target}"),
        Op::HardLink { path, target } => format!("link {path} {target}"),
        Op::LinkBeneath { path, target } => format!("link-beneath {path} {target}"),
        Op::Times { path, .. } => format!("times {path}"),
    }
}

struct Planned {
    ops: Vec<String>,
    tree: Tree,
    reports: Reports,
}

fn plan_with(rules: Rules, beneath: &Tree, entries: &[&str]) -> Result<Planned, Error> {
    let mut planner = Planner::new(rules);
    let mut ops = Vec::new();
    for entry in entries {
        let header = header(entry);
        let name = String::from_utf8(header.name.clone()).unwrap();
        let meaning = Entry::read(&header)
            .map_err(|reason| Error::Refused { entry: name.clone(), reason })?;
        ops.extend(planner.plan(&name, meaning)?);
    }
    let (rest, tree, reports) = planner.finish(beneath);
    ops.extend(rest);
    let ops = ops.iter().map(shown).filter(|op| !op.starts_with("times")).collect();
    Ok(Planned { ops, tree, reports })
}

fn plan(entries: &[&str]) -> Result<Planned, Error> {
    plan_with(Rules::default(), &Tree::default(), entries)
}

fn refusal(entries: &[&str]) -> Refusal {
    match plan(entries) {
        Err(Error::Refused { reason, .. }) => reason,
        Err(error) => panic!("{entries:?}: {error}"),
        Ok(planned) => panic!("{entries:?}: {:?}", planned.ops),
    }
}

#[test]
fn a_layer() {
    let planned = plan(&[
        "d Files",
        "f Files/.wh.gone",
        "d Files/Users",
        "j Files/Users/All Users -> C:\\ProgramData",
        "d Files/ProgramData",
        "f Files/ProgramData/a.txt",
        "f Files/ProgramData/a.txt:Zone.Identifier",
        "f Files/ProgramData/a.txt:other:$DATA",
        "h Files/ProgramData/b.txt -> Files/ProgramData/a.txt",
        "d Hives",
        "f Hives/System_Delta",
        "d UtilityVM",
        "d UtilityVM/Files",
        "f UtilityVM/Files/x",
    ])
    .unwrap();
    assert_eq!(
        planned.ops,
        [
            "mkdir Files",
            "whiteout Files/gone",
            "mkdir Files/Users",
            "mkdir Files/ProgramData",
            "file Files/ProgramData/a.txt",
            "stream Files/ProgramData/a.txt:Zone.Identifier",
            "stream Files/ProgramData/a.txt:other",
            "mkdir Hives",
            "hive System_Delta",
            "mkdir UtilityVM",
            "mkdir UtilityVM/Files",
            "file UtilityVM/Files/x",
            "symlink Files/Users/All Users ../ProgramData",
            "link Files/ProgramData/b.txt Files/ProgramData/a.txt",
        ]
    );
    assert_eq!(planned.reports.count, 0);
}

#[test]
fn refused_layers() {
    let duplicate = |name: &str| Refusal::Duplicate(name.into());
    let beneath = |name: &str| Refusal::Beneath(name.into());
    for (entries, want) in [
        (&["d Files", "d Files"][..], duplicate("Files")),
        (&["d Files", "d Files/a", "d Files/A"], duplicate("Files/a")),
        (&["f Files/a", "f Files/A"], duplicate("Files/a")),
        (&["f Files/größe", "f Files/GRÖßE"], duplicate("Files/größe")),
        (&["f Files/.wh.a", "f Files/A"], duplicate("Files/a")),
        (&["f Files/a", "f Files/.wh.a"], duplicate("Files/a")),
        (&["f Files/a", "f Files/a:s", "f Files/a:S"], duplicate("Files/a:S")),
        (&["f Files/a", "f Files/a/b"], beneath("Files/a")),
        (&["l Files/a -> C:\\", "f Files/A/b"], beneath("Files/a")),
        (&["l Files/a -> C:\\", "f Files/a/.wh.b"], beneath("Files/a")),
        (&["f Files/.wh.a", "f Files/a/b"], beneath("Files/a")),
        (&["f Files"], Refusal::Kind("a part of the layer that is no directory")),
    ] {
        assert_eq!(refusal(entries), want, "{entries:?}");
    }
    for entry in [
        "f Files/../../etc/passwd",
        "d Files/..",
        "f /Files/a",
        "f ../x",
        "f Files/a\\..\\..\\b",
        "f \\\\?\\unix\\etc\\passwd",
        "f Files/Z:/x",
        "f Files/a:b/c",
        "d Files/a:b",
        "l Files/a:b -> x",
        "f Files/.wh...",
        "f Files/.wh.",
        "f Files/.wh.a\\b",
        "f Files/.wh.a:b",
        "f Files/a:b/.wh.c",
        "f ../.wh.a",
        "h Files/a -> ../../etc/passwd",
        "h Files/a -> /etc/passwd",
        "h Files/a -> Files\\b",
        "h Files/a -> Files/b:c",
        "c Files/../x",
    ] {
        assert!(
            matches!(
                refusal(&[entry]),
                Refusal::Path(_) | Refusal::Whiteout(_) | Refusal::LinkTarget(..)
            ),
            "{entry}"
        );
    }
}

#[test]
fn left_out() {
    for (entries, ops) in [
        (&["f Files/CON", "d Files/nul.d", "f Files/nul.d/x"][..], &["elsewhere"; 3][..]),
        (&["f Files/trailing.", "f Files/blank "], &["elsewhere"; 2]),
        (&["f Files/a?b", "f bin/sh", "f files/x", "c Files/dev"], &["elsewhere"; 4]),
        (&["f Files/a:s"], &["elsewhere"]),
        (
            &["f Files/a", "f Files/b", "f Files/a:s"],
            &["file Files/a", "file Files/b", "elsewhere"],
        ),
        (&["f Files/CON", "f Files/CON:s"], &["elsewhere"; 2]),
        (&["f Files/.wh.CON", "f Hives/.wh.System_Delta", "f .wh.Files"], &["elsewhere"; 3]),
        (&["f Files/.wh..wh.plnk"], &["elsewhere"]),
        (&["f Files/.wh..wh..opq"], &["elsewhere"]),
        (&["d Hives/sub", "f Hives/sub/x"], &["elsewhere"; 2]),
        (&["f UtilityVM/x"], &["elsewhere"]),
        (&["l Files/a -> Z:\\etc", "f Files/a:s"], &["elsewhere"]),
        (&["l Files/a -> ..\\..\\etc"], &[]),
        (&["l Files/a -> /etc/passwd"], &["symlink Files/a etc/passwd"]),
        (&["j Files/a -> \\\\?\\unix\\etc"], &[]),
        (&["j Files/a -> \\??\\Volume{0}\\"], &[]),
        (&["h Files/a -> Files/missing"], &[]),
        (&["h Files/a -> Files/a"], &[]),
        (&["h Files/a -> Files/b", "h Files/b -> Files/a"], &[]),
        (&["d Files/d", "h Files/a -> Files/d"], &["mkdir Files/d"]),
        (&["f Hives/h", "h Files/a -> Hives/h"], &["hive h", "elsewhere"]),
        (
            &["f UtilityVM/Files/h", "h Files/a -> UtilityVM/Files/h"],
            &["file UtilityVM/Files/h", "elsewhere"],
        ),
        (&["h Files/a -> Files/.wh.x"], &["elsewhere"]),
    ] {
        let planned = plan(entries).unwrap();
        let made: Vec<_> = planned
            .ops
            .iter()
            .filter(|op| !op.starts_with("mkdir Files/d") || ops.contains(&op.as_str()))
            .collect();
        assert_eq!(made, ops, "{entries:?}");
        let silent = ops.iter().any(|op| op.starts_with("symlink"));
        assert!(silent || planned.reports.count > 0, "{entries:?}");
    }
}

#[test]
fn implied_directories() {
    let planned = plan(&["f Files/a/b/c", "d Files/A", "d Files/a/B"]).unwrap();
    assert_eq!(
        planned.ops,
        [
            "mkdir Files/a",
            "mkdir Files/a/b",
            "file Files/a/b/c",
            "mkdir Files/a",
            "mkdir Files/a/b"
        ]
    );
    let implied = |report: &silo_winlayer::Report| matches!(report.finding, Finding::Implied(_));
    assert_eq!(planned.reports.first.iter().filter(|report| implied(report)).count(), 2);
}

#[test]
fn links_come_after_what_they_lead_to() {
    let planned = plan(&[
        "h Files/first -> Files/later",
        "h Files/second -> Files/first",
        "l Files/link -> WINDOWS\\system32\\X.dll",
        "d Files/Windows",
        "d Files/Windows/System32",
        "f Files/Windows/System32/x.dll",
        "f Files/later",
    ])
    .unwrap();
    assert_eq!(
        planned.ops[4..],
        [
            "symlink Files/link Windows/System32/x.dll",
            "link Files/first Files/later",
            "link Files/second Files/later",
        ]
    );
}

fn beneath(entries: &[&str]) -> Tree {
    let mut all = Tree::default();
    all.overlay(&plan(entries).unwrap().tree).unwrap();
    all
}

#[test]
fn spelled_as_beneath() {
    let below = beneath(&[
        "d Files/Windows",
        "d Files/Windows/System32",
        "f Files/Windows/System32/Drivers.dll",
        "f Files/Windows/notepad.exe",
        "f Files/Windows/notepad.exe:old",
        "f Files/Windows/notepad.exe:kept",
        "f Files/Other.txt",
    ]);
    let planned = plan_with(
        Rules::default(),
        &below,
        &[
            "d Files/windows",
            "d Files/windows/SYSTEM32",
            "f Files/windows/SYSTEM32/new.dll",
            "f Files/windows/.wh.NOTEPAD.EXE",
            "l Files/windows/OTHER -> ..\\other.TXT",
            "d Files/new",
            "h Files/new/copy -> Files/WINDOWS/system32/DRIVERS.dll",
            "h Files/new/none -> Files/windows/notepad.exe",
        ],
    )
    .unwrap();
    let mut late: Vec<_> = planned.ops.iter().filter(|op| !op.starts_with("mkdir")).collect();
    late.drain(..2);
    assert_eq!(
        late,
        [
            "rename Files/windows Files/Windows",
            "rename Files/Windows/NOTEPAD.EXE Files/Windows/notepad.exe",
            "whiteout Files/Windows/notepad.exe:old",
            "whiteout Files/Windows/notepad.exe:kept",
            "rename Files/Windows/SYSTEM32 Files/Windows/System32",
            "symlink Files/Windows/OTHER ../Other.txt",
            "link-beneath Files/new/copy Files/Windows/System32/Drivers.dll",
        ]
    );
    assert_eq!(planned.reports.count, 1);
}

#[test]
fn streams_go_with_their_owner() {
    let below = beneath(&["f Files/App.exe", "f Files/App.exe:old", "f Files/App.exe:same"]);
    let planned = plan_with(
        Rules::default(),
        &below,
        &["f Files/app.exe", "f Files/app.exe:same", "f Files/app.exe:new"],
    )
    .unwrap();
    assert_eq!(
        planned.ops[3..],
        [
            "rename Files/app.exe:same Files/App.exe:same",
            "rename Files/app.exe:new Files/App.exe:new",
            "rename Files/app.exe Files/App.exe",
            "whiteout Files/App.exe:old",
        ]
    );
}

#[test]
fn opaque_directories() {
    let below = beneath(&["d Files/d", "f Files/d/x"]);
    let entries = ["d Files/d", "f Files/d/.wh..wh..opq", "h Files/y -> Files/d/x"];
    let planned = plan_with(Rules { opaque: true }, &below, &entries).unwrap();
    assert_eq!(planned.ops, ["mkdir Files/d", "opaque Files/d"]);
    let planned = plan_with(Rules::default(), &below, &entries).unwrap();
    assert_eq!(planned.ops, ["mkdir Files/d", "elsewhere", "link-beneath Files/y Files/d/x"]);
}

#[test]
fn attributes_and_descriptors() {
    let read = |change: &dyn Fn(&mut Header)| {
        let mut header = header("f Files/a");
        change(&mut header);
        Entry::read(&header).unwrap()
    };
    for (key, value) in [
        ("MSWINDOWS.fileattr", "x"),
        ("MSWINDOWS.fileattr", ""),
        ("MSWINDOWS.fileattr", "4294967296"),
        ("MSWINDOWS.fileattr", "16"),
        ("MSWINDOWS.fileattr", "16416"),
        ("MSWINDOWS.fileattr", "1056"),
        ("MSWINDOWS.rawsd", "!"),
        ("MSWINDOWS.rawsd", ""),
        ("MSWINDOWS.rawsd", "AQAEgBQAAAAkAAAA"),
        ("MSWINDOWS.sd", "nonsense"),
        ("MSWINDOWS.xattr.EA", "!"),
        ("MSWINDOWS.xattr.", "QQ=="),
        ("MSWINDOWS.xattr.ä", "QQ=="),
        ("LIBARCHIVE.creationtime", "yesterday"),
        ("atime", "99999999999999"),
    ] {
        let meaning = read(&|header| header.set(key, value));
        let entry = meaning.entry.unwrap();
        assert_eq!(meaning.findings.len(), 1, "{key}={value}");
        assert!(entry.descriptor.is_none() && entry.extended.is_empty());
        let bits = entry.attributes.unwrap_or_default().0;
        assert!(bits == 0 || bits == 0x20, "{key}={value}: {bits:x}");
    }
    let meaning = read(&|header| header.set("MSWINDOWS.sd", "O:BAG:SYD:(A;;FA;;;BA)"));
    assert!(meaning.entry.unwrap().descriptor.is_some());
    // The raw one counts alone, even if it is bad.
    let meaning = read(&|header| {
        header.set("MSWINDOWS.sd", "O:BAG:SYD:(A;;FA;;;BA)");
        header.set("MSWINDOWS.rawsd", "!");
    });
    assert!(meaning.entry.unwrap().descriptor.is_none());
    let meaning = read(&|header| header.set("MSWINDOWS.xattr.EA", "QUJD"));
    assert_eq!(meaning.entry.unwrap().extended, [("EA".to_owned(), b"ABC".to_vec())]);
}

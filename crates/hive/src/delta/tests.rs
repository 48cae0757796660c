use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::key::KeyFlags;
use crate::name::Name;
use crate::sample::{self, Naive};
use crate::value::Value;
use crate::{FileTime, Hive, ValueType};

/// Ten thousand of each, as nothing else here is as easy to get wrong.
fn many() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(10_000) }
}

/// The effective key of nodes of the same path, top first, by the rules of a reader that walks
/// down.
fn walk(nodes: &[&Key]) -> Option<Key> {
    let mut reached = Vec::new();
    let mut own_end = None;
    for &node in nodes {
        match node.layer.semantics {
            Semantics::Tombstone => break,
            Semantics::Merge => reached.push(node),
            Semantics::SupersedeLocal => {
                reached.push(node);
                own_end.get_or_insert(reached.len());
            }
            Semantics::SupersedeTree => {
                reached.push(node);
                break;
            }
        }
    }
    let top = *reached.first()?;
    let own = &reached[..own_end.unwrap_or(reached.len())];
    let mut key = Key::new(top.name().clone());
    let with_class = own.iter().find(|node| !node.layer.inherit_class).or(own.last()).unwrap();
    key.class = with_class.class.clone();
    key.last_write = own.iter().map(|node| node.last_write).max().unwrap();
    key.security = own.iter().find_map(|node| node.security.clone());
    key.flags = top.flags;
    key.user_flags = top.user_flags;
    let mut values: BTreeMap<Vec<u16>, &Value> = BTreeMap::new();
    let mut below: BTreeMap<Vec<u16>, Vec<&Key>> = BTreeMap::new();
    let fold = |name: &Name| name.units().iter().map(|&unit| crate::upcase(unit)).collect();
    for value in own.iter().flat_map(|node| node.values()) {
        values.entry(fold(&value.name)).or_insert(value);
    }
    for subkey in reached.iter().flat_map(|node| node.subkeys()) {
        below.entry(fold(subkey.name())).or_default().push(subkey);
    }
    key.set_values(values.into_values().filter(|value| !value.tombstone).cloned().collect());
    key.set_subkeys(below.into_values().filter_map(|nodes| walk(&nodes)).collect());
    Some(key)
}

fn flat(base: &Key, layers: &[&Key]) -> Key {
    let layers: Vec<Hive> = layers.iter().map(|&layer| Hive::layered(layer.clone())).collect();
    flatten(Hive::new(base.clone()), &layers).root
}

proptest! {
    #![proptest_config(many())]

    #[test]
    fn edits_come_back(base in sample::tree(), edits in sample::edits()) {
        let mut edited = base.clone();
        let mut naive = Naive::of(&base);
        for edit in &edits {
            sample::apply(&mut edited, edit);
            naive.apply(edit);
        }
        prop_assert_eq!(&Naive::of(&edited), &naive);

        let (base, edited) = (Hive::new(base), Hive::new(edited));
        let delta = diff(&base, &edited, &DiffOptions::default());
        prop_assert!(delta.layered);
        let merged = merge(base.clone(), &delta);
        prop_assert_eq!(&merged.root, &edited.root);
        prop_assert_eq!(&Naive::of(&merged.root), &naive);
        let walked = walk(&[&delta.root, &base.root]);
        prop_assert_eq!(walked.as_ref(), Some(&edited.root));

        let written = crate::write(&delta, &crate::WriteOptions::default()).unwrap();
        let read = crate::read(&written).unwrap();
        prop_assert_eq!(&read.root, &delta.root);
        prop_assert!(read.layered);
    }

    #[test]
    fn any_layers_merge_as_a_reader_walks(
        base in sample::tree(),
        low in sample::layered_tree(),
        high in sample::layered_tree(),
    ) {
        let walked = walk(&[&high, &low, &base]).unwrap();
        let root = base.name().clone();
        prop_assert_eq!(&flat(&base, &[&low, &high]), &walked.clone().renamed(root.clone()));
        let merged = merge(Hive::layered(low), &Hive::layered(high));
        prop_assert_eq!(&flat(&base, &[&merged.root]), &walked.renamed(root));
    }
}

proptest! {
    // Three sequences of edits each.
    #![proptest_config(ProptestConfig { cases: 4_000, ..many() })]

    #[test]
    fn layers_add_up(
        base in sample::tree(),
        edits in prop::collection::vec(sample::edits(), 3),
    ) {
        let mut state = Hive::new(base);
        let first = state.clone();
        let mut deltas = Vec::new();
        for edits in &edits {
            let mut next = state.clone();
            for edit in edits {
                sample::apply(&mut next.root, edit);
            }
            deltas.push(diff(&state, &next, &DiffOptions::default()));
            state = next;
        }
        prop_assert_eq!(&flatten(first.clone(), &deltas).root, &state.root);
        let one = merge(merge(deltas[0].clone(), &deltas[1]), &deltas[2]);
        prop_assert!(one.layered);
        prop_assert_eq!(&flatten(first.clone(), [&one]).root, &state.root);
        let upper = merge(deltas[1].clone(), &deltas[2]);
        prop_assert_eq!(&flatten(first, [&deltas[0], &upper]).root, &state.root);
    }
}

/// A hive with keys at these paths; `path=number` gives the key a value `v`.
fn hive(paths: &[&str]) -> Hive {
    let mut root = Key::new("ROOT");
    for path in paths {
        let (path, number) = path.split_once('=').map_or((*path, None), |(p, n)| (p, Some(n)));
        let key = root.create(path, FileTime(1)).unwrap();
        if let Some(number) = number {
            key.set_value(Value::dword("v", number.parse().unwrap()));
        }
    }
    Hive::new(root)
}

/// Every key of a tree with its part in a layer, and its values.
fn shown(key: &Key) -> Vec<String> {
    fn show(key: &Key, path: &str, lines: &mut Vec<String>) {
        let mark = match key.layer.semantics {
            Semantics::Merge => "",
            Semantics::Tombstone => "-",
            Semantics::SupersedeLocal => "!",
            Semantics::SupersedeTree => "!!",
        };
        let values = key.values().iter().map(|value| match value.number() {
            Some(number) => format!(" {}={number}", value.name),
            None if value.tombstone => format!(" -{}", value.name),
            None => format!(" {}", value.name),
        });
        lines.push(format!("{mark}{path}{}", values.collect::<String>()));
        for subkey in key.subkeys() {
            show(subkey, &format!("{path}\\{}", subkey.name()), lines);
        }
    }
    let mut lines = Vec::new();
    show(key, "", &mut lines);
    lines
}

#[test]
fn a_difference_says_only_what_changed() {
    let base = hive(&["same\\below", "gone\\below", "value=1", "lost=1", "old\\x=1"]);
    let target = hive(&["same\\below", "value=2", "lost", "old\\x=1", "new\\below=3"]);
    let delta = diff(&base, &target, &DiffOptions::default());
    assert_eq!(
        shown(&delta.root),
        ["", "-\\gone", "\\lost -v", "!!\\new", "!!\\new\\below v=3", "\\value v=2"]
    );
    assert!(delta.root.get("value").unwrap().layer.inherit_class);
}

#[test]
fn nothing_changed_is_an_empty_layer() {
    let base = hive(&["a\\b=1"]);
    let delta = diff(&base, &base, &DiffOptions::default());
    assert_eq!(shown(&delta.root), [""]);
    assert_eq!(merge(base.clone(), &delta), base);
}

#[test]
fn what_is_ignored_stays_as_it_is() {
    let base = hive(&["keep=1", "run\\state=1", "gone\\x", "mixed=1"]);
    let mut target = hive(&["keep=2", "run\\state=2", "run\\more", "mixed=2", "new\\run"]);
    target.root.get_mut("mixed").unwrap().set_value(Value::dword("pid", 7));
    let ignore = |path: &str, value: Option<&str>| match value {
        None => path.ends_with("run") || path == "gone",
        Some(value) => value == "pid",
    };
    let options = DiffOptions { ignore: Some(&ignore), ..DiffOptions::default() };
    let delta = diff(&base, &target, &options);
    assert_eq!(shown(&delta.root), ["", "\\keep v=2", "\\mixed v=2", "!!\\new"]);
}

#[test]
fn ignored_values_survive_a_key_whose_time_goes_back() {
    let mut base = hive(&["k=1"]);
    let key = base.root.get_mut("k").unwrap();
    key.set_value(Value::dword("pid", 1));
    key.last_write = FileTime(9);
    let target = hive(&["k=2"]);
    let ignore = |_: &str, value: Option<&str>| value == Some("pid");
    let options = DiffOptions { ignore: Some(&ignore), ..DiffOptions::default() };
    let delta = diff(&base, &target, &options);
    assert_eq!(shown(&delta.root), ["", "!\\k pid=1 v=2"]);
    assert_eq!(merge(base, &delta).root.get("k").unwrap().last_write, FileTime(1));
}

#[test]
fn times_alone_can_count_or_not() {
    let base = hive(&["k\\below=1"]);
    let mut target = base.clone();
    target.root.get_mut("k\\below").unwrap().last_write = FileTime(5);
    assert_eq!(diff(&base, &target, &DiffOptions::default()).root.count(), 3);
    let options = DiffOptions { times: false, ..DiffOptions::default() };
    assert_eq!(diff(&base, &target, &options).root.count(), 1);
}

#[test]
fn volatile_keys_are_in_no_difference() {
    let base = hive(&["was", "stays=1"]);
    let mut target = hive(&["was", "stays=1", "new\\volatile", "new\\real"]);
    for path in ["was", "new\\volatile"] {
        target.root.get_mut(path).unwrap().flags = KeyFlags::VOLATILE;
    }
    let delta = diff(&base, &target, &DiffOptions::default());
    assert_eq!(shown(&delta.root), ["", "!!\\new", "!!\\new\\real", "-\\was"]);
}

#[test]
fn an_unknown_descriptor_is_the_one_below() {
    let mut base = hive(&["k=1"]);
    base.root.security = Some([1][..].into());
    base.root.get_mut("k").unwrap().security = Some([2][..].into());
    let target = hive(&["k=2"]);
    let merged = merge(base.clone(), &diff(&base, &target, &DiffOptions::default()));
    assert_eq!(merged.root.security, base.root.security);
    assert_eq!(merged.get("k").unwrap().security, base.get("k").unwrap().security);
    assert_eq!(merged.get("k").unwrap().value("v").unwrap().number(), Some(2));
}

#[test]
fn a_layer_over_a_layer_keeps_what_hides() {
    let mut low = Hive::layered(hive(&["dead", "local=1", "tree=1", "plain=1"]).root);
    for (path, semantics) in [
        ("dead", Semantics::Tombstone),
        ("local", Semantics::SupersedeLocal),
        ("tree", Semantics::SupersedeTree),
    ] {
        low.root.get_mut(path).unwrap().layer.semantics = semantics;
    }
    let mut high = Hive::layered(hive(&["dead\\again=2", "local\\x", "tree\\x", "plain"]).root);
    for path in ["local", "tree", "plain"] {
        high.root.get_mut(path).unwrap().set_value(Value::tombstone("v"));
    }
    let mut dead = Key::new("x");
    dead.layer.semantics = Semantics::Tombstone;
    for path in ["tree", "plain"] {
        high.root.get_mut(path).unwrap().insert_subkey(dead.clone());
    }
    assert_eq!(
        shown(&merge(low, &high).root),
        [
            "",
            "!!\\dead",
            "!!\\dead\\again v=2",
            "!\\local",
            "\\local\\x",
            "\\plain -v",
            "-\\plain\\x",
            "!!\\tree",
        ]
    );
}

#[test]
fn a_base_that_is_a_layer_becomes_plain() {
    let mut base = Hive::layered(hive(&["a=1", "b"]).root);
    base.root.get_mut("b").unwrap().layer.semantics = Semantics::Tombstone;
    base.root.get_mut("a").unwrap().set_value(Value::tombstone("t"));
    let hive = flatten(base, &[]);
    assert_eq!(shown(&hive.root), ["", "\\a v=1"]);
    assert!(!hive.layered && hive.root.is_plain() && hive.minor == 5);
    assert_eq!(hive.root.get("a").unwrap().value("v").unwrap().kind, ValueType::DWORD);
}

/// Everything that walks a tree does so on an ordinary stack, also at the greatest depth.
#[test]
fn the_deepest_tree() {
    let base = Hive::new(Key::new("ROOT"));
    let mut target = base.clone();
    let path = "d\\".repeat(crate::MAX_DEPTH - 1);
    target.root.create(&path, FileTime(1)).unwrap().set_value(Value::dword("v", 1));
    let ignore = |_: &str, _: Option<&str>| false;
    for ignore in [None, Some(&ignore as &Ignore<'_>)] {
        let delta = diff(&base, &target, &DiffOptions { ignore, ..DiffOptions::default() });
        assert_eq!(merge(base.clone(), &delta).root, target.root);
        assert_eq!(flatten(base.clone(), [&delta, &delta]).root, target.root);
        let twice =
            merge(merge(delta.clone(), &diff(&target, &base, &DiffOptions::default())), &delta);
        assert_eq!(flatten(base.clone(), [&twice]).root, target.root);
    }
    let mut changed = target.clone();
    changed.root.get_mut(&path).unwrap().set_value(Value::dword("v", 2));
    let delta = diff(&target, &changed, &DiffOptions::default());
    assert_eq!(delta.root.count(), crate::MAX_DEPTH);
    assert_eq!(merge(target.clone(), &delta), changed);
    let bytes = crate::write(&delta, &crate::WriteOptions::default()).unwrap();
    assert_eq!(crate::read(&bytes).unwrap().root.count(), crate::MAX_DEPTH);
    assert!(format!("{delta:?}").len() > 512);

    let text = crate::wine::render(&crate::wine::Registry {
        base: String::new(),
        arch: None,
        hive: target.clone(),
    });
    assert_eq!(crate::wine::parse(&text).unwrap().hive.root.count(), crate::MAX_DEPTH);
    let text = crate::regfile::render(&delta.root, "HKLM", crate::regfile::Version::Five);
    let edits = crate::regfile::parse(&text).unwrap();
    crate::regfile::apply(&mut target.root, "HKLM", &edits, FileTime(1)).unwrap();
    assert_eq!(target.root.get(&path).unwrap().value("v").unwrap().number(), Some(2));
}

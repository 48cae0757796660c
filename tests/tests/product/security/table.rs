//! The table in `SECURITY.md`: what it names exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Each name `crate::...::test`, or `product::...::test` for a test of this program, is a test in
/// a file of that crate, and the file has the modules' names.
#[test]
fn tests_of_the_table_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let table = fs_err::read_to_string(root.join("SECURITY.md")).expect("SECURITY.md");
    let rows: Vec<&str> =
        table.lines().filter(|line| line.contains('`') && line.starts_with("| ")).collect();
    assert!(rows.len() >= 20, "{} rows", rows.len());
    for row in rows {
        let names: BTreeSet<&str> =
            row.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            let parts: Vec<&str> = name.split("::").collect();
            let (first, test) = (parts[0], parts[parts.len() - 1]);
            let modules: Vec<&str> =
                parts[1..parts.len() - 1].iter().copied().filter(|part| *part != "tests").collect();
            let folder = match first {
                "product" => root.join("tests/tests/product"),
                krate => root.join("crates").join(krate),
            };
            let mut files = Vec::new();
            sources(&folder, &mut files);
            let declared = format!("fn {test}(");
            let found = files.iter().any(|file| {
                let path = file.with_extension("");
                modules.iter().all(|module| path.iter().any(|part| part == *module))
                    && fs_err::read_to_string(file).expect("a source").contains(&declared)
            });
            assert!(found, "no such test: {name}");
        }
    }
}

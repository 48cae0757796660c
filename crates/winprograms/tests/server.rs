//! The library that Wine's server loads, in a program that does what the server does.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// `empty PATH`: opens it, and says whether it is an empty directory, as the server finds out.
/// `rmdir PATH` removes it, `real PATH` says where it is.
const SOURCE: &str = r#"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc < 3) return 2;
    if (!strcmp(argv[1], "rmdir")) return rmdir(argv[2]) != 0;
    if (!strcmp(argv[1], "real")) return puts(realpath(argv[2], 0)) < 0;
    int file = dup(open(argv[2], O_RDONLY)), empty = 1;
    DIR *directory = fdopendir(file);
    struct dirent *entry;
    if (!directory) return 3;
    while (empty && (entry = readdir(directory)))
        empty = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
    closedir(directory);
    return !empty;
}
"#;

#[test]
fn links_are_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name);
    fs_err::write(place("x.c"), SOURCE).expect("a source");
    fs_err::write(place("server.so"), silo_winprograms::server()).expect("a library");
    let mut compiler = Command::new("cc");
    compiler.arg("-fno-builtin").arg("-o").args([place("x"), place("x.c")]);
    assert!(compiler.status().expect("the compiler").success());
    let run = |action: &str, path: &str| {
        let mut command = Command::new(place("x"));
        command.args([action, path]).current_dir(&directory);
        let output = command.env("LD_PRELOAD", place("server.so")).output().expect("a run");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        (output.status.code(), text.trim().to_owned())
    };
    let is = |path: &str, expected: bool| {
        assert_eq!(run("empty", path).0, Some(i32::from(!expected)), "{path}");
    };
    for name in ["full", "empty", "odd"] {
        fs_err::create_dir(place(name)).expect("a directory");
    }
    fs_err::write(place("full/file"), "kept").expect("a file");
    for (target, link) in [("full", "link"), ("none", "odd/dangling"), ("../full", "odd/whole")] {
        symlink(target, place(link)).expect("a link");
    }
    is("full", false);
    is("empty", true);
    is("link", true);
    is("link/.", false);
    is("odd", false);
    assert_eq!(run("real", "link").1, "link");
    for (path, gone) in [("full", false), ("link", true), ("odd", false), ("odd/whole", true)] {
        assert_eq!(run("rmdir", path).0 == Some(0), gone, "{path}");
        assert_eq!(fs_err::symlink_metadata(place(path)).is_err(), gone, "{path}");
    }
    is("odd", true);
    assert_eq!(run("rmdir", "odd").0, Some(0));
    assert_eq!(run("rmdir", "full/file").0, Some(1), "it is no directory");
    let kept = |path: &Path| fs_err::read_to_string(path).expect("what the links led to");
    assert_eq!(kept(&place("full/file")), "kept");
}

//! Small changes to Wine's files, for programs that run in containers.
//!
//! Wine's Linux half adds variables to the environment of every process, by which its Windows
//! half finds things. No program should see them: with `=` for their first letter they are
//! hidden as Windows hides `=C:`, and both halves still agree. (Those that the C library looks up
//! are not found any more: it leaves such names out. They are of use to the set-up alone, which
//! is made with the files as they are.)
//!
//! Wine's server finds out where a link leads when a file is opened, and removes or renames that
//! place instead of the link. It takes the path as it is when `realpath` is made `strdup`, which
//! ignores the second argument and gives a copy; and `remove` in place of `rmdir` also removes a
//! link to a directory.

use super::elf;

/// Variables that Wine adds to each process.
const VARIABLES: [&str; 10] = [
    "WINELOADER",
    "WINEDATADIR",
    "WINEHOMEDIR",
    "WINEBUILDDIR",
    "WINECONFIGDIR",
    "WINEDLLDIR",
    "WINESYSTEMDLLPATH",
    "WINEUSERNAME",
    "WINEUNIXCP",
    "WINEUSERLOCALE",
];
/// A command of Wine's cmd that does nothing and says that it did: ours is a program.
const COMMAND: &str = "MKLINK";
/// The file with that command.
const SHELL: &str = "cmd.exe";
/// The Linux half that adds the variables, without its ending.
const ADDER: &str = "ntdll";

/// What all variables begin with.
const BEGIN: &str = "WINE";

/// Hides names in one of Wine's Windows files; whether it has some.
pub(super) fn windows(name: &str, bytes: &mut [u8]) -> bool {
    let variables = VARIABLES.map(utf16);
    let mut changed = replace(bytes, &utf16(BEGIN), &utf16("="), |rest| {
        variables.iter().any(|name| rest.starts_with(name))
    });
    changed |= replace(bytes, BEGIN.as_bytes(), b"=", |rest| {
        VARIABLES.iter().any(|name| {
            rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
        })
    });
    if name == SHELL {
        // In the table of commands, which ends each with zeros; it is also in texts.
        changed |= replace(bytes, &utf16(&format!("{COMMAND}\0\0")), &utf16("\u{1}"), |_| true);
    }
    changed
}

/// Hides names in one of Wine's Linux files; whether it has some.
pub(super) fn linux(name: &str, bytes: &mut [u8]) -> bool {
    if name != ADDER {
        return false;
    }
    let begin = format!("\0{BEGIN}");
    replace(bytes, begin.as_bytes(), b"\0=", |rest| {
        let Some(end) = memchr::memchr(0, &rest[1..]) else { return false };
        let text = &rest[1..=end];
        // Not those with `=`, by which it knows variables of Linux.
        let text = text.strip_suffix(b"%u").unwrap_or(text);
        VARIABLES.iter().any(|name| name.as_bytes() == text)
    })
}

/// Has Wine's server remove and rename links instead of what they lead to.
pub(super) fn server(bytes: &mut [u8]) -> Result<(), elf::Error> {
    let mut imports = elf::Imports::of(bytes)?;
    imports.replace("realpath", "strdup")?;
    imports.rename("rmdir", "remove", "realpath")
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Writes `start` over the beginning of each place that has `pattern` and is wanted; whether
/// there is one.
fn replace(bytes: &mut [u8], pattern: &[u8], start: &[u8], wanted: impl Fn(&[u8]) -> bool) -> bool {
    let places: Vec<usize> = memchr::memmem::find_iter(bytes, pattern)
        .filter(|&place| wanted(&bytes[place..]))
        .collect();
    for &place in &places {
        bytes[place..place + start.len()].copy_from_slice(start);
    }
    !places.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_links() {
        const SOURCE: &str = "#define _GNU_SOURCE\n#include <stdio.h>\n#include <stdlib.h>\n\
            #include <string.h>\n#include <unistd.h>\nint main(void) {\n\
            puts(realpath(\"/proc/..\", 0)); free(strdup(\"\")); return rmdir(\"link\"); }\n";
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let run = |program: &str, arguments: &[&str]| {
            let mut command = std::process::Command::new(program);
            command.args(arguments).current_dir(&directory).output().unwrap()
        };
        fs_err::write(place("x.c"), SOURCE).unwrap();
        std::os::unix::fs::symlink(".", place("link")).unwrap();
        let made = run("cc", &["-fno-builtin", "-o", "x", "x.c"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let before = run("./x", &[]);
        assert!(!before.status.success() && before.stdout == b"/\n", "{before:?}");

        let mut bytes = fs_err::read(place("x")).unwrap();
        server(&mut bytes).unwrap();
        server(&mut bytes).unwrap_err();
        server(&mut bytes[..100]).unwrap_err();
        fs_err::write(place("x"), bytes).unwrap();
        let after = run("./x", &[]);
        assert!(after.status.success() && after.stdout == b"/proc/..\n", "{after:?}");
        assert!(fs_err::symlink_metadata(place("link")).is_err());
    }

    #[test]
    fn names_are_hidden_in_both_halves() {
        let mut half = b"\0WINELOADER=\0x\0WINEDLLDIR%u\0WINELOADER\0WINELOADERNOEXEC\0".to_vec();
        assert!(linux(ADDER, &mut half));
        assert_eq!(half, b"\0WINELOADER=\0x\0=INEDLLDIR%u\0=INELOADER\0WINELOADERNOEXEC\0");
        let before = half.clone();
        assert!(!linux("win32u", &mut half));
        assert_eq!(half, before);

        let mut half = utf16("a\0WINEDLLDIR%u\0WINEUNIXCP\0");
        assert!(windows("ntdll.dll", &mut half));
        assert_eq!(half, utf16("a\0=INEDLLDIR%u\0=INEUNIXCP\0"));
        let mut half = b"WINEUSERNAME\0WINEUSERNAME=x\0WINEPREFIX\0".to_vec();
        assert!(windows("advapi32.dll", &mut half));
        assert_eq!(half, b"=INEUSERNAME\0WINEUSERNAME=x\0WINEPREFIX\0");
        let text = "CHOICE\0\0\0\0MKLINK\0\0\0\0MKLINK makes links";
        let mut shell = utf16(text);
        assert!(!windows("other.exe", &mut shell));
        assert_eq!(shell, utf16(text));
        assert!(windows(SHELL, &mut shell));
        assert_eq!(shell, utf16("CHOICE\0\0\0\0\u{1}KLINK\0\0\0\0MKLINK makes links"));
    }
}

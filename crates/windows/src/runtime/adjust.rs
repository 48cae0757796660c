//! Small changes to Wine's files, for programs that run in containers.
//!
//! Wine's Linux half adds variables to the environment of every process, by which its Windows
//! half finds things. No program should see them: with `=` for their first letter they are
//! hidden as Windows hides `=C:`, and both halves still agree. (Those that the C library looks up
//! are not found any more: it leaves such names out. They are of use to the set-up alone, which
//! is made with the files as they are.)
//!
//! Every process asks for the zone of its time when it starts, and the Linux half searches the list
//! of all zones in the registry for the first that fits: some three hundred and fifty questions to
//! the server, a third of what a small program costs. It is sent to a list with the only zone that
//! containers have (see `crate::registry`), which is also the right one of several that fit.
//!
//! Wine's server finds out where a link leads when a file is opened, and removes or renames that
//! place instead of the link; so it loads a library of ours, which leaves links alone. cmd gets
//! another one in place of `shell32.dll`, for the same reason.
//!
//! `CreateSymbolicLink` says that it made a link, and makes none. It fails here as on Windows for
//! those who may not make any, which programs know.
//!
//! What Wine's loader writes when a program cannot be loaded says no more than the error that its
//! starter gets, and is taken away.

use super::{elf, pe};
use crate::registry::ZONES;

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
/// The library that [`SHELL`] imports, and what it gets for it, with a name of the same length.
const SHELL_IMPORT: &str = "shell32.dll";
pub(super) const SHELL_LIBRARY: &str = "silocmd.dll";
/// What Wine's server loads.
pub(super) const SERVER_LIBRARY: &str = "silo-server.so";
/// Functions that make no links, and the libraries that have them.
const LINKS: [(&str, &str); 2] =
    [("kernelbase.dll", "CreateSymbolicLinkW"), ("kernel32.dll", "CreateSymbolicLinkA")];
/// What the loader writes of a program that it cannot load.
const NOT_LOADED: &[u8] = b"wine: failed to start %s\n\0";
/// The Linux half that adds the variables, and starts programs; without its ending.
const ADDER: &str = "ntdll";

/// Where the Linux half has the list of zones.
const ALL_ZONES: &str =
    "\\Registry\\Machine\\Software\\Microsoft\\Windows NT\\CurrentVersion\\Time Zones\0";

/// What all variables begin with.
const BEGIN: &str = "WINE";

/// Changes one of Wine's Windows files, the 64-bit one or the other; whether there is something.
pub(super) fn windows(name: &str, wide: bool, bytes: &mut [u8]) -> Result<bool, pe::Error> {
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
        if wide {
            let library = format!("{SHELL_IMPORT}\0");
            changed |= replace(bytes, library.as_bytes(), SHELL_LIBRARY.as_bytes(), |_| true);
        }
    }
    if let Some((_, function)) = LINKS.iter().find(|(library, _)| *library == name) {
        changed |= refuse_links(function, bytes, wide)?;
    }
    Ok(changed)
}

/// Changes one of Wine's Linux files; whether there is something.
pub(super) fn linux(name: &str, bytes: &mut [u8]) -> bool {
    if name != ADDER {
        return false;
    }
    let silenced = replace(bytes, NOT_LOADED, b"\0", |_| true);
    let zones = utf16(&format!("\\Registry\\Machine\\Software\\{ZONES}\0"));
    let zones = replace(bytes, &utf16(ALL_ZONES), &zones, |_| true);
    let begin = format!("\0{BEGIN}");
    silenced
        | zones
        | replace(bytes, begin.as_bytes(), b"\0=", |rest| {
            let Some(end) = memchr::memchr(0, &rest[1..]) else { return false };
            let text = &rest[1..=end];
            // Not those with `=`, by which it knows variables of Linux.
            let text = text.strip_suffix(b"%u").unwrap_or(text);
            VARIABLES.iter().any(|name| name.as_bytes() == text)
        })
}

/// Has Wine's server load the library by which it leaves links alone.
pub(super) fn server(bytes: &mut [u8]) -> Result<(), elf::Error> {
    elf::load_first(bytes, SERVER_LIBRARY)
}

/// Has a function that makes no link say so, in a library that has it.
fn refuse_links(function: &str, bytes: &mut [u8], wide: bool) -> Result<bool, pe::Error> {
    /// What is put in its place: sets the last error to 1314 (a privilege is not held), and gives
    /// FALSE. The 32-bit one leaves the address in the second instruction as it is, which is
    /// changed where the library is loaded.
    const WIDE: &[u8] = &[
        0x65, 0xc7, 0x04, 0x25, 0x68, 0, 0, 0, 0x22, 0x05, 0, 0, // mov dword gs:[0x68], 1314
        0x31, 0xc0, // xor eax, eax
        0xc3, // ret
    ];
    const NARROW_START: &[u8] = &[0xeb, 0x04]; // jmp over the address
    const NARROW: &[u8] = &[
        0x64, 0xc7, 0x05, 0x34, 0, 0, 0, 0x22, 0x05, 0, 0, // mov dword fs:[0x34], 1314
        0x31, 0xc0, // xor eax, eax
        0xc2, 0x0c, 0, // ret 12
    ];
    /// How both stand for the case that nothing is to be logged: `mov eax, 1`.
    const SUCCESS: &[u8] = &[0xb8, 1, 0, 0, 0];
    let Some(at) = pe::export(bytes, function)? else { return Ok(false) };
    let Some(code) = bytes.get_mut(at..at + 48) else { return Ok(false) };
    if wide {
        if memchr::memmem::find(code, SUCCESS).is_none() {
            return Ok(false);
        }
        code[..WIDE.len()].copy_from_slice(WIDE);
    } else {
        // test byte [address], 1; jnz; mov eax, 1; ret 12; and seven bytes to fill up.
        if !code.starts_with(&[0xf6, 0x05]) || !code[9..].starts_with(SUCCESS) {
            return Ok(false);
        }
        code[..2].copy_from_slice(NARROW_START);
        code[6..6 + NARROW.len()].copy_from_slice(NARROW);
    }
    Ok(true)
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
    fn the_library_of_the_server_comes_first() {
        const SOURCE: &str = "#include <unistd.h>\nint main(void) { return getppid() != 1; }\n";
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let run = |program: &str, arguments: &[&str]| {
            let mut command = std::process::Command::new(program);
            command.args(arguments).current_dir(&directory).env("LD_LIBRARY_PATH", ".");
            command.output().unwrap()
        };
        fs_err::write(place("x.c"), SOURCE).unwrap();
        let made = run("cc", &["-o", "x", "x.c"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        assert!(!run("./x", &[]).status.success());

        let mut bytes = fs_err::read(place("x")).unwrap();
        let before = elf::links(&bytes).unwrap().needed;
        server(&mut bytes).unwrap();
        let after = elf::links(&bytes).unwrap().needed;
        assert_eq!(after[0], SERVER_LIBRARY);
        assert_eq!(after.last(), before.first());
        assert_eq!(after.len(), before.len() + 1);
        server(&mut bytes).unwrap_err();
        server(&mut bytes[..100]).unwrap_err();
        fs_err::write(place("x"), bytes).unwrap();
        let stub = elf::stub_library(SERVER_LIBRARY, &["getppid"]);
        fs_err::write(place(SERVER_LIBRARY), stub).unwrap();
        let after = run("./x", &[]);
        assert!(after.status.success(), "{after:?}");
    }

    #[test]
    fn names_are_hidden_in_both_halves() {
        let mut half = b"\0WINELOADER=\0x\0WINEDLLDIR%u\0WINELOADER\0WINELOADERNOEXEC\0".to_vec();
        assert!(linux(ADDER, &mut half));
        assert_eq!(half, b"\0WINELOADER=\0x\0=INEDLLDIR%u\0=INELOADER\0WINELOADERNOEXEC\0");
        let before = half.clone();
        assert!(!linux("win32u", &mut half));
        assert_eq!(half, before);

        let mut half = b"x\0wine: failed to start %s\n\0".to_vec();
        assert!(linux(ADDER, &mut half));
        assert_eq!(half, b"x\0\0ine: failed to start %s\n\0");
        let mut half = utf16(&format!("a\0{ALL_ZONES}b"));
        let length = half.len();
        assert!(linux(ADDER, &mut half));
        assert!(half.starts_with(&utf16("a\0\\Registry\\Machine\\Software\\Wine\\Zones\0")));
        assert_eq!(half.len(), length);

        let mut half = utf16("a\0WINEDLLDIR%u\0WINEUNIXCP\0");
        assert!(windows("ntdll.dll", true, &mut half).unwrap());
        assert_eq!(half, utf16("a\0=INEDLLDIR%u\0=INEUNIXCP\0"));
        let mut half = b"WINEUSERNAME\0WINEUSERNAME=x\0WINEPREFIX\0".to_vec();
        assert!(windows("advapi32.dll", false, &mut half).unwrap());
        assert_eq!(half, b"=INEUSERNAME\0WINEUSERNAME=x\0WINEPREFIX\0");
        let text = "CHOICE\0\0\0\0MKLINK\0\0\0\0MKLINK makes links";
        let mut shell = utf16(text);
        assert!(!windows("other.exe", true, &mut shell).unwrap());
        assert_eq!(shell, utf16(text));
        assert!(windows(SHELL, false, &mut shell).unwrap());
        assert_eq!(shell, utf16("CHOICE\0\0\0\0\u{1}KLINK\0\0\0\0MKLINK makes links"));
    }

    #[test]
    fn cmd_gets_another_library() {
        let import = b"\0shell32.dll\0shell32.dllx\0";
        let mut shell = import.to_vec();
        assert!(!windows(SHELL, false, &mut shell).unwrap());
        assert_eq!(shell, import);
        assert!(windows(SHELL, true, &mut shell).unwrap());
        assert_eq!(shell, b"\0silocmd.dll\0shell32.dllx\0");
    }

    /// A library that exports the function, with this code.
    fn library(wide: bool, code: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 0x400];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        let number = |value: u32| value.to_le_bytes();
        put(0, b"MZ");
        put(0x3c, &number(0x80));
        put(0x80, b"PE\0\0");
        put(0x86, &[1, 0]);
        put(0x94, &[if wide { 240 } else { 224 }, 0]);
        put(0x98, &[0x0b, if wide { 2 } else { 1 }]);
        put(0x98 + if wide { 112 } else { 96 }, &number(0x1000));
        let section = 0x98 + if wide { 240 } else { 224 };
        put(section, b".text");
        for (at, value) in [(8, 0x200), (12, 0x1000), (16, 0x200), (20, 0x200)] {
            put(section + at, &number(value));
        }
        for (at, value) in [(24, 1), (28, 0x1040), (32, 0x1044), (36, 0x1048)] {
            put(0x200 + at, &number(value));
        }
        put(0x240, &number(0x1080));
        put(0x244, &number(0x1050));
        put(0x250, b"CreateSymbolicLinkW\0");
        put(0x280, code);
        file
    }

    #[test]
    fn links_are_refused_where_none_are_made() {
        let wide = b"\x55\xf6\x05\0\0\0\0\x01\x75\x16\xb8\x01\0\0\0\xc3";
        let narrow = b"\xf6\x05\x11\x22\x33\x44\x01\x75\x0f\xb8\x01\0\0\0\xc2\x0c\0";
        let mut file = library(true, wide);
        assert!(windows("kernelbase.dll", true, &mut file).unwrap());
        assert_eq!(file[0x280..0x284], [0x65, 0xc7, 0x04, 0x25]);
        assert!(!windows("kernelbase.dll", true, &mut file).unwrap(), "it is no stub any more");
        let mut file = library(false, narrow);
        assert!(windows("kernelbase.dll", false, &mut file).unwrap());
        assert_eq!(file[0x280..0x289], [0xeb, 4, 0x11, 0x22, 0x33, 0x44, 0x64, 0xc7, 0x05]);
        for mut other in [library(true, b"\xc3"), library(false, b"\xc3")] {
            let wide = other[0x94] == 240;
            assert!(!windows("kernelbase.dll", wide, &mut other).unwrap());
        }
    }
}

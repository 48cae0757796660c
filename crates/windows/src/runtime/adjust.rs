//! Names in Wine's files that are put out of the way of programs.
//!
//! Wine's Linux half adds variables to the environment of every process, by which its Windows
//! half finds things. No program should see them: with `=` for their first letter they are
//! hidden as Windows hides `=C:`, and both halves still agree. A file that has none of the names
//! stays as it is.

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

/// Hides names in one of Wine's Windows files.
pub(super) fn windows(name: &str, bytes: &mut [u8]) {
    let variables = VARIABLES.map(utf16);
    replace(bytes, &utf16(BEGIN), &utf16("="), |rest| {
        variables.iter().any(|name| rest.starts_with(name))
    });
    if name == SHELL {
        // In the table of commands, which ends each with zeros; it is also in texts.
        replace(bytes, &utf16(&format!("{COMMAND}\0\0")), &utf16("\u{1}"), |_| true);
    }
}

/// Hides names in one of Wine's Linux files.
pub(super) fn linux(name: &str, bytes: &mut [u8]) {
    if name != ADDER {
        return;
    }
    let begin = format!("\0{BEGIN}");
    replace(bytes, begin.as_bytes(), b"\0=", |rest| {
        let Some(end) = memchr::memchr(0, &rest[1..]) else { return false };
        let text = &rest[1..=end];
        // Not those with `=`, by which it knows variables of Linux.
        let text = text.strip_suffix(b"%u").unwrap_or(text);
        VARIABLES.iter().any(|name| name.as_bytes() == text)
    });
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Writes `start` over the beginning of each place that has `pattern` and is wanted.
fn replace(bytes: &mut [u8], pattern: &[u8], start: &[u8], wanted: impl Fn(&[u8]) -> bool) {
    let places: Vec<usize> = memchr::memmem::find_iter(bytes, pattern).collect();
    for place in places {
        if wanted(&bytes[place..]) {
            bytes[place..place + start.len()].copy_from_slice(start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hidden_in_both_halves() {
        let mut half = b"\0WINELOADER=\0x\0WINEDLLDIR%u\0WINELOADER\0WINELOADERNOEXEC\0".to_vec();
        linux(ADDER, &mut half);
        assert_eq!(half, b"\0WINELOADER=\0x\0=INEDLLDIR%u\0=INELOADER\0WINELOADERNOEXEC\0");
        let before = half.clone();
        linux("win32u", &mut half);
        assert_eq!(half, before);

        let mut half = utf16("a\0WINEDLLDIR%u\0WINEUNIXCP\0");
        windows("ntdll.dll", &mut half);
        assert_eq!(half, utf16("a\0=INEDLLDIR%u\0=INEUNIXCP\0"));
        let text = "CHOICE\0\0\0\0MKLINK\0\0\0\0MKLINK makes links";
        let mut shell = utf16(text);
        windows("other.exe", &mut shell);
        assert_eq!(shell, utf16(text));
        windows(SHELL, &mut shell);
        assert_eq!(shell, utf16("CHOICE\0\0\0\0\u{1}KLINK\0\0\0\0MKLINK makes links"));
    }
}

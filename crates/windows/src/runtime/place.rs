//! Which file of a package goes where.

use super::{LIBRARIES, UNIX, WINDOWS_32, WINDOWS_64, list};

/// What becomes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// It is kept at this path.
    Keep(String),
    /// A 64-bit Windows file of Wine's, by its name.
    Windows64(String),
    /// A 32-bit Windows file of Wine's, by its name.
    Windows32(String),
    /// The library that Wine takes from another package, 64-bit.
    Zlib64,
    /// The same, 32-bit.
    Zlib32,
    /// The certificate of an authority.
    Certificate,
}

/// Where a path of a package goes, if anywhere. `wide` is the package's architecture being the
/// host's: of the 32-bit package only Windows files are taken.
pub(super) fn place(wide: bool, path: &str) -> Option<Place> {
    let keep = || Some(Place::Keep(path.to_owned()));
    if !wide {
        let name = path.strip_prefix("usr/lib/i386-linux-gnu/wine/i386-windows/")?;
        return plain(name).map(Place::Windows32);
    }
    if let Some(name) = inside(path, WINDOWS_64) {
        return plain(name).map(Place::Windows64);
    }
    if let Some(name) = inside(path, UNIX) {
        let name = name.strip_suffix(".so")?;
        let wanted = list::UNIX_REQUIRED.contains(&name) || list::UNIX_OPTIONAL.contains(&name);
        return if wanted { keep() } else { None };
    }
    if inside(path, WINDOWS_32).is_some() {
        return None;
    }
    if let Some(name) = inside(path, LIBRARIES) {
        // Directories beneath have plug-ins and character sets.
        let library = !name.contains('/')
            && (name.contains(".so.")
                || name.rsplit_once('.').is_some_and(|(_, ending)| ending == "so"));
        return if library { keep() } else { None };
    }
    match path {
        "usr/x86_64-w64-mingw32/lib/zlib1.dll" => return Some(Place::Zlib64),
        "usr/i686-w64-mingw32/lib/zlib1.dll" => return Some(Place::Zlib32),
        "usr/lib64/ld-linux-x86-64.so.2" => return keep(),
        "usr/lib/wine/wine64" | "usr/lib/wine/wineserver64" => return keep(),
        _ => {}
    }
    if let Some(name) = inside(path, "usr/share/doc") {
        return if name.ends_with("/copyright") { keep() } else { None };
    }
    if path.starts_with("usr/share/ca-certificates/") {
        return path
            .rsplit_once('.')
            .is_some_and(|(_, ending)| ending == "crt")
            .then_some(Place::Certificate);
    }
    let kept = ["usr/share/wine", "usr/lib/locale/C.utf8", "usr/share/common-licenses"];
    if kept.iter().any(|directory| inside(path, directory).is_some()) {
        return if inside(path, "usr/share/wine/applications").is_some() { None } else { keep() };
    }
    None
}

fn inside<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    path.strip_prefix(directory)?.strip_prefix('/').filter(|rest| !rest.is_empty())
}

fn plain(name: &str) -> Option<String> {
    let plain = !name.is_empty() && !name.contains('/') && !list::excluded(name);
    plain.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_to_their_places() {
        let keep = |path: &str| Some(Place::Keep(path.to_owned()));
        for (path, expected) in [
            (
                "usr/lib/x86_64-linux-gnu/wine/x86_64-windows/cmd.exe",
                Some(Place::Windows64("cmd.exe".into())),
            ),
            ("usr/lib/x86_64-linux-gnu/wine/x86_64-windows/notepad.exe", None),
            ("usr/lib/x86_64-linux-gnu/wine/x86_64-windows/a/b.dll", None),
            (
                "usr/lib/x86_64-linux-gnu/wine/x86_64-unix/ntdll.so",
                keep("usr/lib/x86_64-linux-gnu/wine/x86_64-unix/ntdll.so"),
            ),
            ("usr/lib/x86_64-linux-gnu/wine/x86_64-unix/winex11.so", None),
            ("usr/lib/x86_64-linux-gnu/libc.so.6", keep("usr/lib/x86_64-linux-gnu/libc.so.6")),
            ("usr/lib/x86_64-linux-gnu/gconv/BIG5.so", None),
            ("usr/bin/ldd", None),
            ("usr/share/doc/libc6/copyright", keep("usr/share/doc/libc6/copyright")),
            ("usr/share/doc/libc6/changelog.gz", None),
            ("usr/share/ca-certificates/mozilla/X.crt", Some(Place::Certificate)),
            ("usr/i686-w64-mingw32/lib/zlib1.dll", Some(Place::Zlib32)),
            ("usr/share/wine/nls/c_437.nls", keep("usr/share/wine/nls/c_437.nls")),
            ("usr/share/wine/applications/x", None),
        ] {
            assert_eq!(place(true, path), expected, "{path}");
        }
        let narrow = "usr/lib/i386-linux-gnu/wine/i386-windows/cmd.exe";
        assert_eq!(place(false, narrow), Some(Place::Windows32("cmd.exe".into())));
        assert_eq!(place(false, "usr/lib/i386-linux-gnu/libc.so.6"), None);
    }
}

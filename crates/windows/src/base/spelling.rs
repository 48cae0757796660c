//! Names of directories as Windows spells them; Wine writes them in lower case.

/// Directories by their paths in lower case.
const DIRECTORIES: [(&str, &str); 24] = [
    ("program files", "Program Files"),
    ("program files (x86)", "Program Files (x86)"),
    ("programdata", "ProgramData"),
    ("users", "Users"),
    ("windows", "Windows"),
    ("windows/fonts", "Fonts"),
    ("windows/globalization", "Globalization"),
    ("windows/globalization/sorting", "Sorting"),
    ("windows/help", "Help"),
    ("windows/inf", "INF"),
    ("windows/logs", "Logs"),
    ("windows/performance", "Performance"),
    ("windows/performance/winsat", "WinSAT"),
    ("windows/resources", "Resources"),
    ("windows/resources/themes", "Themes"),
    ("windows/security", "Security"),
    ("windows/system", "System"),
    ("windows/system32", "System32"),
    ("windows/syswow64", "SysWOW64"),
    ("windows/tasks", "Tasks"),
    ("windows/temp", "Temp"),
    ("windows/winsxs", "WinSxS"),
    ("windows/winsxs/manifests", "Manifests"),
    ("windows/microsoft.net", "Microsoft.NET"),
];

/// A path of a drive with every known directory spelled as Windows does.
pub(super) fn spelled(path: &str) -> String {
    let mut spelled = String::with_capacity(path.len());
    let mut lower = String::with_capacity(path.len());
    for part in path.split('/') {
        if !lower.is_empty() {
            lower.push('/');
            spelled.push('/');
        }
        lower.push_str(&part.to_lowercase());
        let known = DIRECTORIES.iter().find(|(path, _)| *path == lower);
        spelled.push_str(known.map_or(part, |(_, name)| name));
    }
    spelled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_spelled_as_on_windows() {
        for (path, expected) in [
            ("windows/system32/kernel32.dll", "Windows/System32/kernel32.dll"),
            ("windows/syswow64", "Windows/SysWOW64"),
            ("users/Public/Documents", "Users/Public/Documents"),
            ("Program Files (x86)/x", "Program Files (x86)/x"),
            ("windows/system32/inf", "Windows/System32/inf"),
        ] {
            assert_eq!(spelled(path), expected);
        }
    }
}

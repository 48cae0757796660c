//! The environment of a Windows process: what the registry says, what belongs to the account,
//! and what the image and the user add. Names are compared without regard to case, and keep the
//! spelling that came first.

use silo_hive::{Hive, Key, Value, ValueType};

/// Where the system's own variables are, below `HKLM\System`.
const SYSTEM: &str = "ControlSet001\\Control\\Session Manager\\Environment";
/// Where an account's are, below its own hive.
const ACCOUNT: &str = "Environment";

/// Variables of an environment, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| same(known, name)).map(|(_, value)| value.as_str())
    }

    /// Sets a variable; one that is known keeps its spelling.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| same(known, name)) {
            Some((_, known)) => value.clone_into(known),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Sets or removes variables as Docker writes them: `NAME=value`, or `NAME` to remove.
    pub fn apply(&mut self, variables: &[String]) {
        for variable in variables {
            // Windows' hidden variables begin with an equals sign.
            let split = variable.char_indices().skip(1).find(|(_, c)| *c == '=');
            match split {
                Some((at, _)) => self.set(&variable[..at], &variable[at + 1..]),
                None => self.0.retain(|(known, _)| !same(known, variable)),
            }
        }
    }

    /// Puts values in place of `%NAME%`; what is not known stays.
    pub fn expand(&self, text: &str) -> String {
        let mut result = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('%') {
            let (before, after) = (&rest[..start], &rest[start + 1..]);
            result.push_str(before);
            let value = after.find('%').and_then(|end| Some((end, self.get(&after[..end])?)));
            match value {
                Some((end, value)) => {
                    result.push_str(value);
                    rest = &after[end + 1..];
                }
                None => {
                    result.push('%');
                    rest = after;
                }
            }
        }
        result.push_str(rest);
        result
    }

    /// `NAME=value`, in the order that Windows keeps: by name, in upper case.
    pub fn block(&self) -> Vec<String> {
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort_by_cached_key(|(name, _)| name.to_uppercase());
        sorted.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// Adds the values of a key: plain ones first, then those with references to others.
    fn add_key(&mut self, key: Option<&Key>) {
        let values = || key.map(Key::values).unwrap_or_default().iter();
        let named = |value: &Value| Some((value.name.to_string(), value.text()?));
        for (name, text) in values().filter(|v| v.kind == ValueType::SZ).filter_map(named) {
            self.set(&name, &text);
        }
        for (name, text) in values().filter(|v| v.kind == ValueType::EXPAND_SZ).filter_map(named) {
            let text = self.expand(&text);
            self.set(&name, &text);
        }
    }
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || a.to_uppercase() == b.to_uppercase()
}

/// Who a process belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account<'a> {
    /// `ContainerAdministrator`.
    pub name: &'a str,
    /// `C:\Users\ContainerAdministrator`.
    pub profile: &'a str,
}

/// The environment of an account in a container named `host`, before the image and the user
/// add to it. `system` is `HKLM\System`, `user` the account's own hive.
pub fn base(system: &Hive, user: &Hive, host: &str, account: &Account<'_>) -> Environment {
    let mut all = Environment::default();
    for (name, value) in [
        ("ALLUSERSPROFILE", "C:\\ProgramData"),
        ("CommonProgramFiles", "C:\\Program Files\\Common Files"),
        ("CommonProgramFiles(x86)", "C:\\Program Files (x86)\\Common Files"),
        ("CommonProgramW6432", "C:\\Program Files\\Common Files"),
        ("ProgramData", "C:\\ProgramData"),
        ("ProgramFiles", "C:\\Program Files"),
        ("ProgramFiles(x86)", "C:\\Program Files (x86)"),
        ("ProgramW6432", "C:\\Program Files"),
        ("PROMPT", "$P$G"),
        ("PUBLIC", "C:\\Users\\Public"),
        ("SystemDrive", "C:"),
        ("SystemRoot", "C:\\Windows"),
        ("windir", "C:\\Windows"),
        ("ComSpec", "C:\\Windows\\system32\\cmd.exe"),
        ("OS", "Windows_NT"),
        ("PATHEXT", ".COM;.EXE;.BAT;.CMD;.VBS;.VBE;.JS;.JSE;.WSF;.WSH;.MSC"),
        ("USERDOMAIN", "User Manager"),
    ] {
        all.set(name, value);
    }
    all.set("COMPUTERNAME", &host.to_uppercase());
    all.set("USERNAME", account.name);
    all.set("USERPROFILE", account.profile);
    all.set("APPDATA", &format!("{}\\AppData\\Roaming", account.profile));
    all.set("LOCALAPPDATA", &format!("{}\\AppData\\Local", account.profile));
    let temporary = format!("{}\\AppData\\Local\\Temp", account.profile);
    all.add_key(system.get(SYSTEM));
    // The registry's are the system's own; an account has its own place for such files.
    all.set("TEMP", &temporary);
    all.set("TMP", &temporary);
    let path = all.get("Path").map(str::to_owned);
    all.add_key(user.get(ACCOUNT));
    // The hive may be another account's, which names its own place.
    for name in ["TEMP", "TMP"] {
        let usual = all
            .get(name)
            .is_some_and(|value| value.to_ascii_lowercase().ends_with("\\appdata\\local\\temp"));
        if usual {
            all.set(name, &temporary);
        }
    }
    // As on Windows, an account's path is added to the system's.
    if let (Some(system), Some(own)) = (path, all.get("Path").map(str::to_owned))
        && own != system
    {
        all.set("Path", &format!("{};{own}", system.trim_end_matches(';')));
    }
    all
}

#[cfg(test)]
mod tests {
    use silo_hive::FileTime;

    use super::*;

    fn hive(path: &str, values: Vec<Value>) -> Hive {
        let mut hive = Hive::new(Key::new("ROOT"));
        hive.root.create(path, FileTime(0)).unwrap().set_values(values);
        hive
    }

    #[test]
    fn names_have_no_case() {
        let mut all = Environment::default();
        all.apply(&["Path=a".into(), "PATH=b".into(), "X=1".into(), "=C:=C:\\w".into()]);
        all.apply(&["x".into()]);
        assert_eq!(all.block(), ["=C:=C:\\w", "Path=b"]);
        all.apply(&["EMPTY=".into()]);
        assert_eq!(all.get("empty"), Some(""));
    }

    #[test]
    fn references() {
        let mut all = Environment::default();
        all.apply(&["SystemRoot=C:\\Windows".into()]);
        for (text, expanded) in [
            ("%systemroot%\\x", "C:\\Windows\\x"),
            ("%NONE%;%SystemRoot%", "%NONE%;C:\\Windows"),
            ("100%", "100%"),
            ("%%", "%%"),
        ] {
            assert_eq!(all.expand(text), expanded);
        }
    }

    #[test]
    fn registry_and_account() {
        let system = hive(
            SYSTEM,
            vec![
                Value::expand_string("Path", "%SystemRoot%\\system32;%SystemRoot%"),
                Value::string("A", "1"),
                Value::expand_string("TEMP", "%SystemRoot%\\TEMP"),
                Value::dword("NUMBER", 3),
            ],
        );
        let user = hive(
            ACCOUNT,
            vec![
                Value::expand_string("PATH", "%USERPROFILE%\\bin"),
                Value::string("TMP", "C:\\users\\ContainerAdministrator\\AppData\\Local\\Temp"),
            ],
        );
        let account = Account { name: "ContainerUser", profile: "C:\\Users\\ContainerUser" };
        let all = base(&system, &user, "box", &account);
        assert_eq!(
            all.get("path"),
            Some("C:\\Windows\\system32;C:\\Windows;C:\\Users\\ContainerUser\\bin")
        );
        assert_eq!(all.get("A"), Some("1"));
        assert_eq!(all.get("COMPUTERNAME"), Some("BOX"));
        for name in ["TEMP", "TMP"] {
            assert_eq!(all.get(name), Some("C:\\Users\\ContainerUser\\AppData\\Local\\Temp"));
        }
    }
}

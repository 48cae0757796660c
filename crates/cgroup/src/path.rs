//! Where in the hierarchies a group is.

use std::fmt;

use crate::error::Error;

/// The parent of groups for which none is asked.
pub const DEFAULT_PARENT: &str = "/silo";

/// A place in every hierarchy: below its root, or below the group that this process is in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CgroupPath {
    absolute: bool,
    /// Components joined by `/`, none of them empty, `.` or `..`; at least one.
    components: String,
}

impl CgroupPath {
    /// The group `id` below `parent`, or below [`DEFAULT_PARENT`] if `parent` is empty.
    ///
    /// A parent with a leading `/` counts from the root of the hierarchies; a systemd slice name
    /// like `a-b.slice` stands for its directory, `/a.slice/a-b.slice`; any other counts from
    /// this process's own group.
    ///
    /// # Errors
    ///
    /// If either part has characters or steps (`..`) that no group can be named with.
    pub fn new(parent: &str, id: &str) -> Result<Self, Error> {
        let parent = if parent.is_empty() { DEFAULT_PARENT } else { parent };
        if !parent.contains('/')
            && let Some(directory) = slice_directory(parent)
        {
            return Self::parse(&format!("{directory}/{id}"));
        }
        Self::parse(&format!("{parent}/{id}"))
    }

    /// From `linux.cgroupsPath` of the OCI runtime specification: a path as in [`Self::new`], or
    /// systemd's `slice:prefix:name`, which stands for the directory that systemd would use. An
    /// empty one gives the group `id` below the default parent.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn from_oci(path: &str, id: &str) -> Result<Self, Error> {
        if path.is_empty() {
            return Self::new("", id);
        }
        let parts: Vec<&str> = path.split(':').collect();
        if let [slice, prefix, name] = parts[..]
            && !path.contains('/')
        {
            let slice = if slice.is_empty() { "system.slice" } else { slice };
            let unit = match (prefix, name.strip_suffix(".slice")) {
                (_, Some(_)) => name.to_owned(),
                ("", None) => format!("{name}.scope"),
                (prefix, None) => format!("{prefix}-{name}.scope"),
            };
            let directory = slice_directory(slice).ok_or_else(|| Error::Path {
                path: path.to_owned(),
                reason: "the part before the first colon is not a slice",
            })?;
            return Self::parse(&format!("{directory}/{unit}"));
        }
        Self::parse(path)
    }

    fn parse(path: &str) -> Result<Self, Error> {
        let bad = |reason| Error::Path { path: path.to_owned(), reason };
        if path.chars().any(|c| c == '\0' || c == '\n') {
            return Err(bad("it has a line feed or a zero byte"));
        }
        let parts: Vec<&str> =
            path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.contains(&"..") {
            return Err(bad("it has '..'"));
        }
        if parts.is_empty() {
            return Err(bad("it names the root"));
        }
        if parts.iter().any(|part| part.len() > 255) {
            return Err(bad("a part has more than 255 bytes"));
        }
        Ok(Self { absolute: path.starts_with('/'), components: parts.join("/") })
    }

    /// The path below the root of a hierarchy, without a leading `/`. `own` is that of this
    /// process's group.
    pub(crate) fn below_root(&self, own: &str) -> String {
        if self.absolute || own.is_empty() {
            self.components.clone()
        } else {
            format!("{own}/{}", self.components)
        }
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.absolute { "/" } else { "" }, self.components)
    }
}

/// The directory of a systemd slice: every dash begins a level (systemd.slice(5)).
fn slice_directory(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(String::new());
    }
    if name.split('-').any(str::is_empty) || name.contains('/') {
        return None;
    }
    let mut directory = String::new();
    for (at, _) in name.match_indices('-').chain([(name.len(), "")]) {
        directory.push_str(&format!("/{}.slice", &name[..at]));
    }
    Some(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents() {
        for (parent, id, path) in [
            ("", "x", "/silo/x"),
            ("/a/b/", "x", "/a/b/x"),
            ("a", "x", "a/x"),
            ("a-b.slice", "x", "/a.slice/a-b.slice/x"),
            ("/a-b.slice", "x", "/a-b.slice/x"),
            ("//a//./b", "x", "/a/b/x"),
        ] {
            assert_eq!(CgroupPath::new(parent, id).unwrap().to_string(), path, "{parent} {id}");
        }
        for (parent, id) in [("..", "x"), ("/a", "../x"), ("/a", "x\ny"), ("/", ""), ("/a", "\0")] {
            assert!(CgroupPath::new(parent, id).is_err(), "{parent:?} {id:?}");
        }
    }

    #[test]
    fn oci_paths() {
        for (given, path) in [
            ("", "/silo/id"),
            ("/docker/abc", "/docker/abc"),
            ("nested/abc", "nested/abc"),
            ("system.slice:docker:abc", "/system.slice/docker-abc.scope"),
            (":silo:abc", "/system.slice/silo-abc.scope"),
            ("user-1000.slice::abc", "/user.slice/user-1000.slice/abc.scope"),
            ("a.slice:x:b.slice", "/a.slice/b.slice"),
            ("-.slice:x:b", "/x-b.scope"),
        ] {
            assert_eq!(CgroupPath::from_oci(given, "id").unwrap().to_string(), path, "{given}");
        }
        assert!(CgroupPath::from_oci("nonsense:a:b", "id").is_err());
    }

    #[test]
    fn relative_paths_are_below_the_own_group() {
        let relative = CgroupPath::new("a", "x").unwrap();
        assert_eq!(relative.below_root("own/group"), "own/group/a/x");
        assert_eq!(relative.below_root(""), "a/x");
        assert_eq!(CgroupPath::new("/a", "x").unwrap().below_root("own"), "a/x");
    }
}

//! Destinations and working directories of Linux and Windows containers.
//!
//! Inside of a build all paths are absolute, have `/` between their elements and no drive:
//! a Windows container has its files on `C:`, so a drive letter, in any case, can only be that
//! one and is taken off. `C:folder` is relative to the working directory, as on Windows itself.

/// What a path is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Os {
    /// And everything that has its paths.
    #[default]
    Linux,
    /// Drives, and either slash.
    Windows,
}

/// Why a path cannot be used, in BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `C:` and nothing behind it.
    #[error("removing drive letter: No relative path specified in {0:?}")]
    NoPath(String),
    /// `\\server\share` or `\\.\pipe\name`.
    #[error("removing drive letter: UNC paths are not supported")]
    Unc,
    /// Another drive.
    #[error("removing drive letter: The specified path is not on the system drive (C:)")]
    Drive,
}

impl Os {
    /// The path with `/` between its elements.
    pub fn to_slash(self, path: &str) -> String {
        match self {
            Self::Linux => path.to_owned(),
            Self::Windows => path.replace('\\', "/"),
        }
    }

    /// The path with the separators that the system itself writes.
    pub fn from_slash(self, path: &str) -> String {
        match self {
            Self::Linux => path.to_owned(),
            Self::Windows => path.replace('/', "\\"),
        }
    }

    /// Whether a path, whose drive does not count, is absolute.
    pub fn is_absolute(self, path: &str) -> bool {
        self.without_drive(path, false).is_ok_and(|path| path.starts_with('/'))
    }

    /// The path without its drive, on Windows with `/` and cleaned; Linux paths as they are.
    pub fn without_drive(self, path: &str, keep_slash: bool) -> Result<String, Error> {
        if self == Self::Linux {
            return Ok(path.to_owned());
        }
        if path.len() == 2 && path.ends_with(':') {
            return Err(Error::NoPath(path.to_owned()));
        }
        let slashed = self.to_slash(path);
        if slashed.starts_with("//") {
            return Err(Error::Unc);
        }
        let rest = match slashed.split_once(':') {
            None => slashed.as_str(),
            Some((drive, rest)) if drive.eq_ignore_ascii_case("c") => rest,
            Some(_) => return Err(Error::Drive),
        };
        let mut cleaned = crate::ignore::clean(rest);
        if keep_slash && cleaned.len() > 1 && rest.ends_with('/') {
            cleaned.push('/');
        }
        Ok(cleaned)
    }

    /// A path joined to its parent: absolute, with `/`. With `keep_slash` the path ends in a `/`
    /// or `/.` where it was written so, which makes it a directory for `COPY`.
    pub fn normalize(self, parent: &str, path: &str, keep_slash: bool) -> Result<String, Error> {
        let original = self.to_slash(path);
        let parent = match parent {
            "" => "/".to_owned(),
            _ => self.without_drive(&self.to_slash(parent), keep_slash)?,
        };
        let parent = if parent.starts_with('/') {
            parent
        } else {
            crate::ignore::clean(&format!("/{parent}"))
        };
        let mut path = match original.as_str() {
            "" => parent.clone(),
            _ => self.without_drive(&original, keep_slash)?,
        };
        if !path.starts_with('/') {
            path = crate::ignore::clean(&format!("{parent}/{path}"));
        }
        if keep_slash {
            if original.ends_with('/') && !path.ends_with('/') {
                path.push('/');
            } else if original.ends_with("/.") && !path.ends_with("/.") {
                if path != "/" {
                    path.push('/');
                }
                path.push('.');
            }
        }
        Ok(path)
    }

    /// The working directory after `WORKDIR path`, as an image's config has it: `\app` for
    /// Windows.
    pub fn workdir(self, current: &str, path: &str) -> Result<String, Error> {
        Ok(self.from_slash(&self.normalize(current, path, false)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_directories() {
        for (os, current, path, expected) in [
            (Os::Linux, "", "app", "/app"),
            (Os::Linux, "/a", "b/../c", "/a/c"),
            (Os::Linux, "/a", "/b", "/b"),
            (Os::Linux, "/a", "", "/a"),
            (Os::Linux, "/a", "C:\\x", "/a/C:\\x"),
            (Os::Windows, "", "app", "\\app"),
            (Os::Windows, "", "C:\\app", "\\app"),
            (Os::Windows, "\\a", "c:/b\\c/", "\\b\\c"),
            (Os::Windows, "\\a", "C:b", "\\a\\b"),
            (Os::Windows, "C:\\a", "..\\..\\b", "\\b"),
            (Os::Windows, "C:\\a", "/", "\\"),
            (Os::Windows, "\\a", "", "\\a"),
        ] {
            assert_eq!(os.workdir(current, path).as_deref(), Ok(expected), "{current} {path}");
        }
    }

    #[test]
    fn destinations() {
        for (os, parent, path, expected) in [
            (Os::Linux, "/w", "a/", "/w/a/"),
            (Os::Linux, "/w", ".", "/w"),
            (Os::Linux, "/w", "./", "/w/"),
            (Os::Linux, "/w", "a/.", "/w/a/."),
            (Os::Linux, "/", "/.", "/."),
            (Os::Windows, "\\w", "a\\", "/w/a/"),
            (Os::Windows, "\\w", "C:\\a\\", "/a/"),
            (Os::Windows, "\\w", "C:\\", "/"),
            (Os::Windows, "\\w", ".\\", "/w/"),
            (Os::Windows, "\\w", "a\\.", "/w/a/."),
        ] {
            assert_eq!(os.normalize(parent, path, true).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn refused() {
        for (path, error) in [
            ("D:\\x", Error::Drive),
            ("C:", Error::NoPath("C:".to_owned())),
            ("\\\\server\\share", Error::Unc),
            ("//./pipe/x", Error::Unc),
            ("ab:c", Error::Drive),
        ] {
            assert_eq!(Os::Windows.normalize("", path, true), Err(error), "{path}");
        }
        assert!(Os::Windows.is_absolute("c:/x") && Os::Windows.is_absolute("\\x"));
        assert!(!Os::Windows.is_absolute("C:x") && !Os::Windows.is_absolute("D:\\x"));
        assert!(Os::Linux.is_absolute("/x") && !Os::Linux.is_absolute("x"));
    }
}

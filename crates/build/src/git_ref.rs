//! Names of git repositories and of what is meant in them.
//!
//! ```text
//! REPOSITORY[?ref=..&tag=..&branch=..&subdir=..&checksum=..&keep-git-dir=..&submodules=..]
//!           [#REFERENCE[:DIRECTORY]]
//! ```
//!
//! Repositories are `git://`, `ssh://`, `git@host:path`, `http(s)://` that end with `.git`, and
//! any `git+ssh://` or `git+http(s)://`.

use silo_types::query::unescape;

/// A part of a git repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GitRef {
    /// What `git fetch` is told.
    pub(crate) remote: String,
    /// Branch, tag or commit; empty for the repository's own choice.
    pub(crate) reference: String,
    /// A directory in it; empty for all.
    pub(crate) directory: String,
    /// How the commit's name begins, where that is checked.
    pub(crate) checksum: Option<String>,
    /// `.git` is kept, or not; `None` where the URL does not say.
    pub(crate) keep: Option<bool>,
    /// Submodules are left out.
    pub(crate) no_submodules: bool,
}

/// Whether a source is a URL of a file.
pub(crate) fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// A boolean of a query; its name alone says yes.
fn switch(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("invalid {name} value: {other:?}")), // buildkit wording
    }
}

/// Sets what may be said once, or twice alike.
fn set(what: &str, place: &mut String, value: String) -> Result<(), String> {
    if !place.is_empty() && *place != value {
        // buildkit wording
        return Err(format!("{what} conflicts: {place:?} vs {value:?}"));
    }
    *place = value;
    Ok(())
}

/// A full name of a branch or tag.
fn full(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

impl GitRef {
    /// Reads a repository's URL; `None` for what is none.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, String> {
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let explicit = place.strip_prefix("git+").filter(|place| {
            ["ssh://", "http://", "https://"].iter().any(|start| place.starts_with(start))
        });
        let is_git = explicit.is_some()
            || ["git://", "ssh://", "git@"].iter().any(|start| place.starts_with(start))
            || (is_url(place) && place.strip_suffix(".git").is_some());
        let is_short = place.starts_with("github.com/");
        if !is_git && !is_short {
            return Ok(None);
        }
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let place = explicit.unwrap_or(place);
        let mut found = Self {
            remote: if is_short { format!("https://{place}") } else { place.to_owned() },
            reference: reference.to_owned(),
            directory: directory.trim_matches('/').to_owned(),
            ..Self::default()
        };
        let checked = found.ask(query).and_then(|()| found.check());
        checked.map_err(|why| format!("invalid git source {text:?}: {why}"))?;
        Ok(Some(found))
    }

    /// Takes what a query says.
    fn ask(&mut self, query: &str) -> Result<(), String> {
        let (mut tag, mut branch) = (None, None);
        let mut seen: Vec<String> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plain = |text| unescape(text).map_err(|error| error.to_string());
            let (name, value) = (plain(name)?, plain(value)?);
            // buildkit wording
            if seen.contains(&name) {
                return Err(format!("query {name:?} has multiple values"));
            }
            seen.push(name.clone());
            let (name, value) = (name.as_str(), value.as_str());
            if value.is_empty() && !matches!(name, "submodules" | "keep-git-dir") {
                return Err(format!("query {name:?} has no value"));
            }
            match name {
                "ref" => set("ref", &mut self.reference, value.to_owned())?,
                "tag" => tag = Some(full("refs/tags/", value)),
                "branch" => branch = Some(full("refs/heads/", value)),
                "subdir" => {
                    let value = value.trim_matches('/').to_owned();
                    set("subdir", &mut self.directory, value)?;
                }
                "checksum" | "commit" => self.checksum = Some(value.to_owned()),
                "keep-git-dir" => self.keep = Some(switch(name, value)?),
                "submodules" => self.no_submodules = !switch(name, value)?,
                other => return Err(format!("unexpected query {other:?}")),
            }
        }
        if tag.is_some() && branch.is_some() {
            return Err("branch conflicts with tag".to_owned());
        }
        match tag.or(branch) {
            Some(reference) => set("ref", &mut self.reference, reference),
            None => Ok(()),
        }
    }

    /// Refuses what git, or a path, would take for something else.
    fn check(&self) -> Result<(), String> {
        let is_odd = |part: &str| {
            part.starts_with('-') || part.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        let reference = &self.reference;
        if is_odd(&self.remote) || self.remote.contains("::") {
            return Err("the repository cannot be named so".to_owned());
        }
        if is_odd(reference)
            || reference.contains("..")
            || reference.contains(['~', '^', ':', '\\'])
        {
            return Err("the reference cannot be named so".to_owned());
        }
        let leaves = self.directory.split('/').any(|part| part == "..");
        if self.directory.starts_with('-') || leaves || self.directory.contains('\0') {
            return Err("the directory must be one of the repository".to_owned());
        }
        let is_commit = |text: &String| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !self.checksum.as_ref().is_none_or(is_commit) {
            return Err("the checksum is no name of a commit".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories() {
        let reference = |remote: &str, reference: &str, directory: &str| GitRef {
            remote: remote.into(),
            reference: reference.into(),
            directory: directory.into(),
            ..GitRef::default()
        };
        for (text, expected) in [
            ("https://h/a.git", Some(reference("https://h/a.git", "", ""))),
            ("https://h/a.git#v1:sub/dir", Some(reference("https://h/a.git", "v1", "sub/dir"))),
            ("git@h:a/b.git#main", Some(reference("git@h:a/b.git", "main", ""))),
            ("git@h:a/b.git?ref=x&subdir=/s/", Some(reference("git@h:a/b.git", "x", "s"))),
            ("github.com/a/b", Some(reference("https://github.com/a/b", "", ""))),
            ("git+https://h/a#v1", Some(reference("https://h/a", "v1", ""))),
            ("git+ssh://g@h:22/a?tag=v1", Some(reference("ssh://g@h:22/a", "refs/tags/v1", ""))),
            (
                "https://h/a.git?ref=v1&subdir=sub%2Fdir",
                Some(reference("https://h/a.git", "v1", "sub/dir")),
            ),
            ("https://h/a.git?branch=b", Some(reference("https://h/a.git", "refs/heads/b", ""))),
            ("https://h/a.git?ref=v1#v1:s", Some(reference("https://h/a.git", "v1", "s"))),
            ("https://h/a.tar.gz", None),
            ("https://h/a.tar.gz?ref=a.git", None),
            ("a.git", None),
            ("git+file:///etc/a.git", None),
            ("file:///etc/a.git", None),
        ] {
            assert_eq!(GitRef::parse(text).unwrap(), expected, "{text}");
        }
        let all = "https://h/a.git?checksum=ab12&keep-git-dir&submodules=false";
        let all = GitRef::parse(all).unwrap().unwrap();
        assert_eq!((all.checksum.as_deref(), all.keep), (Some("ab12"), Some(true)));
        assert!(all.no_submodules);
    }

    #[test]
    fn what_is_refused() {
        for (bad, why) in [
            ("https://h/a.git#--upload-pack=touch x", "reference"),
            ("https://h/a.git#-x", "reference"),
            ("https://h/a.git#main:../..", "directory"),
            ("https://h/a.git#main:a/../../b", "directory"),
            ("git@-oProxyCommand=x:a.git# b", "reference"),
            ("https://h/a.git#a..b", "reference"),
            ("git://ext::sh -c x/a.git", "repository"),
            ("git+ssh://-oProxyCommand=x/ a", "repository"),
            ("https://h/a.git?ref=--upload-pack%3Dx", "reference"),
            ("https://h/a.git?subdir=..%2F..", "directory"),
            ("https://h/a.git?checksum=--help", "checksum"),
            ("https://h/a.git?ref=a#b", "ref conflicts: \"b\" vs \"a\""),
            ("https://h/a.git?ref=a&ref=a", "query \"ref\" has multiple values"),
            ("https://h/a.git?ref=", "query \"ref\" has no value"),
            ("https://h/a.git?tag=a&branch=a", "branch conflicts with tag"),
            ("https://h/a.git?submodules=maybe", "invalid submodules value: \"maybe\""),
            ("https://h/a.git?exec=x", "unexpected query \"exec\""),
        ] {
            let error = GitRef::parse(bad).unwrap_err();
            assert!(error.starts_with("invalid git source") && error.contains(why), "{error}");
        }
    }
}

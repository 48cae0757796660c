//! `--secret` and `--ssh`.

use std::path::{Path, PathBuf};

use silo_buildkit::client::Secret;

use crate::failure::{Failure, Outcome};
use crate::options::values::csv_fields;

/// The fields of `name=value,name=value`; why not, for a person.
pub(super) fn fields(text: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |field: String| match field.split_once('=') {
        Some((name, value)) => Ok((name.to_lowercase(), value.to_owned())),
        // docker wording
        None => Err(format!("invalid field '{field}' must be a key=value pair")),
    };
    csv_fields(text)?.into_iter().map(pair).collect()
}

/// `id=NAME[,src=PATH|,env=VARIABLE]`
pub(super) fn secret(text: &str) -> Outcome<(String, Secret)> {
    let bad = |what: String| Failure::new(format!("ERROR: invalid secret {text:?}: {what}"));
    let (mut id, mut kind, mut source, mut variable) =
        (String::new(), String::new(), String::new(), String::new());
    for (name, value) in fields(text).map_err(bad)? {
        match name.as_str() {
            "id" => id = value,
            "type" if matches!(value.as_str(), "file" | "env") => kind = value,
            "type" => return Err(bad(format!("unsupported secret type {value:?}"))),
            "src" | "source" => source = value,
            "env" => variable = value,
            other => return Err(bad(format!("unexpected key '{other}' in '{other}={value}'"))),
        }
    }
    if id.is_empty() {
        return Err(bad("id is missing".to_owned()));
    }
    if kind == "env" && variable.is_empty() {
        variable = std::mem::take(&mut source);
    }
    if source.is_empty() && variable.is_empty() {
        // A name alone is a variable if there is one, else a file.
        if kind != "file" && std::env::var_os(&id).is_some() {
            variable.clone_from(&id);
        } else {
            source.clone_from(&id);
        }
    }
    if !variable.is_empty() {
        let Some(value) = std::env::var_os(&variable) else {
            return Err(bad(format!("environment variable {variable:?} is not set")));
        };
        use std::os::unix::ffi::OsStringExt as _;
        return Ok((id, Secret::Value(value.into_vec())));
    }
    let path = PathBuf::from(&source);
    if let Err(error) = fs_err::metadata(&path) {
        return Err(Failure::new(format!("ERROR: failed to stat {source}: {}", error.kind())));
    }
    Ok((id, Secret::File(path)))
}

/// `default` or `ID[=SOCKET]`; without a socket the agent of `SSH_AUTH_SOCK`.
pub(super) fn agent(text: &str) -> Outcome<(String, PathBuf)> {
    use std::os::unix::fs::FileTypeExt as _;
    let (id, path) = text.split_once('=').unwrap_or((text, ""));
    let path = if path.is_empty() {
        let variable = std::env::var_os("SSH_AUTH_SOCK").filter(|value| !value.is_empty());
        PathBuf::from(variable.ok_or_else(|| {
            Failure::new("ERROR: invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")
        })?)
    } else {
        PathBuf::from(path)
    };
    let is_socket = fs_err::metadata(&path).map(|found| found.file_type().is_socket());
    match is_socket {
        Ok(true) => Ok((id.to_owned(), path)),
        Ok(false) => Err(no_key(&path)),
        Err(error) => Err(Failure::new(format!("ERROR: {error}"))),
    }
}

fn no_key(path: &Path) -> Failure {
    Failure::new(format!(
        "ERROR: {} is no socket of an agent; add the key to an agent with ssh-add and give its \
         socket",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_files_or_variables() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let (id, found) = secret(&format!("id=a,src={path}")).unwrap();
        assert_eq!((id.as_str(), found), ("a", Secret::File(file.path().into())));
        let value = std::env::var("PATH").unwrap().into_bytes();
        for text in ["id=x,env=PATH", "id=x,type=env,src=PATH", "id=PATH"] {
            assert_eq!(secret(text).unwrap().1, Secret::Value(value.clone()), "{text}");
        }
        // A path with a comma, as Go's CSV has it.
        let odd = file.path().with_extension("a,b");
        fs_err::write(&odd, "x").unwrap();
        let (_, found) = secret(&format!("id=a,\"src={}\"", odd.display())).unwrap();
        assert_eq!(found, Secret::File(odd.clone()));
        fs_err::remove_file(&odd).unwrap();
        for text in
            ["src=/etc/passwd", "id=a,type=key", "id=a,mode=1", "id=a,src=/no/such/file", "id=a,x"]
        {
            assert!(secret(text).is_err(), "{text}");
        }
    }

    #[test]
    fn agents_are_sockets() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let (id, found) = agent(&format!("key={}", path.display())).unwrap();
        assert_eq!((id.as_str(), found), ("key", path));
        let refused = agent(&format!("key={}", directory.path().display())).unwrap_err();
        assert!(refused.message.contains("ssh-add"), "{refused:?}");
    }
}

//! `--secret` and `--ssh`.

use std::io::Read as _;
use std::path::PathBuf;

use silo_buildkit::client::Secret;

use super::agent::Key;
use crate::failure::{Failure, Outcome};
use crate::options::values::csv_fields;

/// Bytes of a file with a key. buildx's limit.
const MAX_KEY: u64 = 100 * 1024;

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

/// Where signatures of an id come from.
#[derive(Debug)]
pub(super) enum Agent {
    /// The socket of an agent.
    Socket(PathBuf),
    /// Keys of files.
    Keys(Vec<Key>),
}

/// `default` or `ID[=SOCKET|KEY[,KEY]]`; without a place the agent of `SSH_AUTH_SOCK`.
pub(super) fn agent(text: &str) -> Outcome<(String, Agent)> {
    use std::os::unix::fs::FileTypeExt as _;
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let paths: Vec<PathBuf> = if paths.is_empty() {
        let variable = std::env::var_os("SSH_AUTH_SOCK").filter(|value| !value.is_empty());
        vec![PathBuf::from(variable.ok_or_else(|| {
            Failure::new("ERROR: invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")
        })?)]
    } else {
        paths.split(',').map(PathBuf::from).collect()
    };
    let mut keys = Vec::new();
    for path in &paths {
        let failed =
            |why: String| Failure::new(format!("ERROR: ssh key {}: {why}", path.display()));
        let found = fs_err::metadata(path).map_err(|error| failed(error.kind().to_string()))?;
        if found.file_type().is_socket() {
            if paths.len() > 1 {
                return Err(Failure::new("ERROR: only single socket allowed"));
            }
            return Ok((id.to_owned(), Agent::Socket(path.clone())));
        }
        if !found.is_file() {
            return Err(failed("it is neither a socket nor a file".to_owned()));
        }
        let mut text = Vec::new();
        fs_err::File::open(path)
            .and_then(|file| file.take(MAX_KEY).read_to_end(&mut text))
            .map_err(|error| failed(error.to_string()))?;
        let text = String::from_utf8_lossy(&text);
        keys.push(Key::parse(&text, &path.display().to_string()).map_err(failed)?);
    }
    Ok((id.to_owned(), Agent::Keys(keys)))
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
    fn agents_are_sockets_or_keys() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let (id, found) = agent(&format!("key={}", path.display())).unwrap();
        assert!(matches!(found, Agent::Socket(found) if found == path));
        assert_eq!(id, "key");
        let file = directory.path().join("file");
        fs_err::write(&file, "no key").unwrap();
        for (place, said) in [
            (directory.path().display().to_string(), "neither a socket nor a file"),
            (file.display().to_string(), "no private key"),
            (format!("{},{}", path.display(), path.display()), "only single socket"),
            ("/no/such/file".to_owned(), "not found"),
        ] {
            let refused = agent(&format!("key={place}")).unwrap_err();
            assert!(refused.message.contains(said), "{place}: {refused:?}");
        }
    }
}

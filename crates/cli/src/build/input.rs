//! Where the context and the Dockerfile of a build come from.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use silo_buildkit::client::{Share, is_remote};
use silo_dockerfile::MAX_FILE;
use tempfile::TempDir;

use crate::failure::{Failure, Outcome};

/// Bytes of standard input that are looked at to tell an archive from a Dockerfile.
const HEAD: usize = 512;

/// A private directory that goes with the value.
pub(super) fn aside() -> Outcome<TempDir> {
    let made = tempfile::Builder::new().prefix("silo-build-").tempdir();
    made.map_err(|error| Failure::io(&std::env::temp_dir().display().to_string(), &error))
}

/// Whether bytes begin an archive: tar, or something compressed.
fn is_archive(head: &[u8]) -> bool {
    const MAGICS: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    head.get(257..262) == Some(b"ustar") || MAGICS.iter().any(|magic| head.starts_with(magic))
}

fn read_stdin(head: Vec<u8>) -> Outcome<Vec<u8>> {
    let mut text = head;
    // One byte more than the engine reads, so that it says what is wrong.
    let mut rest = std::io::stdin().lock().take(MAX_FILE as u64 + 1);
    rest.read_to_end(&mut text).map_err(|error| Failure::io("stdin", &error))?;
    Ok(text)
}

/// Settles what the build gets for the words of the command line. What is returned has to live
/// as long as the build.
pub(super) fn prepare(
    context: &str,
    file: &str,
    share: &mut Share,
    attributes: &mut HashMap<String, String>,
) -> Outcome<Vec<TempDir>> {
    let mut places = Vec::new();
    let mut put = |name: &str, value: String| {
        attributes.insert(name.to_owned(), value);
    };
    if context == "-" && file == "-" {
        return Err(Failure::new(
            "ERROR: invalid argument: can't use stdin for both build context and dockerfile",
        ));
    }
    let mut dockerfile_text = None;
    if context == "-" {
        let mut head = Vec::new();
        let stdin = std::io::stdin().lock();
        let read = stdin.take(HEAD as u64).read_to_end(&mut head);
        read.map_err(|error| Failure::io("stdin", &error))?;
        if head.is_empty() {
            return Err(Failure::new("ERROR: failed to build: failed to read from stdin: EOF"));
        }
        if is_archive(&head) {
            let id = silo_types::ExecId::random().as_str()[..25].to_owned();
            put("context", format!("http://buildkit-session/{id}"));
            if !file.is_empty() {
                put("filename", file.to_owned());
            }
            share.archive = Some((id, head));
            return Ok(places);
        }
        if !file.is_empty() {
            return Err(Failure::new(
                "ERROR: ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
            ));
        }
        dockerfile_text = Some(read_stdin(head)?);
        let empty = aside()?;
        share.directories.insert("context".to_owned(), empty.path().to_owned());
        places.push(empty);
    } else if is_remote(context) {
        put("context", context.to_owned());
        if !matches!(file, "" | "-") {
            put("filename", file.to_owned());
        }
    } else {
        let path = Path::new(context);
        match fs_err::metadata(path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                return Err(Failure::new(format!(
                    "ERROR: unable to prepare context: path {context:?} is not a directory"
                )));
            }
            Err(_) => {
                return Err(Failure::new(format!(
                    "ERROR: unable to prepare context: path {context:?} not found"
                )));
            }
        }
        share.directories.insert("context".to_owned(), path.to_owned());
        let whole = fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        put("sharedkey:localdir:context", key(&whole));
        if file != "-" {
            let dockerfile =
                if file.is_empty() { path.join("Dockerfile") } else { PathBuf::from(file) };
            let name = dockerfile.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let directory = dockerfile.parent().filter(|parent| !parent.as_os_str().is_empty());
            let directory = directory.unwrap_or(Path::new(".")).to_owned();
            let whole = fs_err::canonicalize(&directory).unwrap_or_else(|_| directory.clone());
            put("sharedkey:localdir:dockerfile", key(&whole));
            put("filename", name);
            share.directories.insert("dockerfile".to_owned(), directory);
        }
    }
    if file == "-" {
        dockerfile_text = Some(read_stdin(Vec::new())?);
    }
    if let Some(text) = dockerfile_text {
        let place = aside()?;
        let path = place.path().join("Dockerfile");
        fs_err::write(&path, text).map_err(|error| Failure::new(error.to_string()))?;
        put("filename", "Dockerfile".to_owned());
        if is_remote(context) {
            put("dockerfilekey", "dockerfile".to_owned());
        }
        share.directories.insert("dockerfile".to_owned(), place.path().to_owned());
        places.push(place);
    }
    Ok(places)
}

/// What tells a directory from others of the same name, in the engine's memory of transfers.
fn key(directory: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    silo_oci::image::digest(directory.as_os_str().as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_and_dockerfiles_are_told_apart() {
        let mut tar = vec![0; HEAD];
        tar[257..262].copy_from_slice(b"ustar");
        for (head, expected) in [
            (&tar[..], true),
            (b"\x1f\x8b\x08\x00", true),
            (b"BZh9", true),
            (b"FROM scratch\n", false),
            (b"", false),
        ] {
            assert_eq!(is_archive(head), expected, "{head:?}");
        }
    }

    #[test]
    fn places_become_directories_or_addresses() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().to_str().unwrap();
        let (mut share, mut attributes) = (Share::default(), HashMap::new());
        prepare(at, &format!("{at}/sub/My.file"), &mut share, &mut attributes).unwrap();
        assert_eq!(share.directories["context"], root.path());
        assert_eq!(share.directories["dockerfile"], root.path().join("sub"));
        assert_eq!(attributes["filename"], "My.file");
        let (mut share, mut attributes) = (Share::default(), HashMap::new());
        let git = "https://host/x.git#main:sub";
        prepare(git, "", &mut share, &mut attributes).unwrap();
        assert_eq!(attributes["context"], git);
        assert!(share.directories.is_empty());
        let missing = prepare(&format!("{at}/none"), "", &mut share, &mut attributes);
        assert!(missing.unwrap_err().message.contains("unable to prepare context: path"));
        let file = root.path().join("file");
        fs_err::write(&file, "").unwrap();
        let refused = prepare(file.to_str().unwrap(), "", &mut share, &mut attributes);
        assert!(refused.unwrap_err().message.contains("is not a directory"));
    }
}

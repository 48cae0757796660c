//! `builder cache`: the build cache out of an engine and into another one.
//!
//! It travels as an OCI layout in a tar; a directory holds the same layout unpacked.

use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use fs_err::File;
use silo_archive::{Entry, EntryKind, Reader, Writer, pipe};

use super::container::NoFlags;
use super::image_stream::{Target, open, upload};
use crate::command::Invocation;
use crate::failure::{Failure, Outcome};
use crate::value::Value;

const ENDPOINT: &str = "/silo/builder/cache";
const BLOBS: &str = "blobs/sha256";

/// `builder cache`
pub(crate) async fn cache(invocation: Invocation) -> Outcome {
    let (_, words) = invocation.parse::<NoFlags>()?;
    let place = words[1].as_str();
    match words[0].as_str() {
        "export" => export(&invocation, place).await,
        "import" => import(&invocation, place).await,
        other => Err(Failure::new(format!(
            "silo: '{other}' is not a silo builder cache command: there are export and import"
        ))),
    }
}

fn failed(what: &str) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| Failure::new(format!("{what}: {error}"))
}

async fn export(invocation: &Invocation, place: &str) -> Outcome {
    let directory = Path::new(place);
    let client = invocation.cli.client().await?;
    if !directory.is_dir() && !place.ends_with('/') {
        let place = if place == "-" { "" } else { place };
        let target = Target::new(place, "export the build cache")?;
        return target.take(client.get(ENDPOINT).send().await?).await;
    }
    fs_err::create_dir_all(directory).map_err(failed("failed to export the build cache"))?;
    let archive = Aside::new(directory, "cache.tar");
    let path = archive.0.to_string_lossy().into_owned();
    let target = Target::new(&path, "export the build cache")?;
    target.take(client.get(ENDPOINT).send().await?).await?;
    let file = File::open(&archive.0).map_err(failed("failed to export the build cache"))?;
    unpack(file, directory).map_err(failed("failed to export the build cache"))
}

async fn import(invocation: &Invocation, place: &str) -> Outcome {
    let body = match place {
        "-" => upload(std::io::stdin()),
        path if Path::new(path).is_dir() => upload(pack(Path::new(path))?),
        path => upload(open(path)?),
    };
    let client = invocation.cli.client().await?;
    let answer: Value = client.post(ENDPOINT).body("application/x-tar", body).receive().await?;
    let count = |name: &str, one: &str, many: &str| {
        let count = answer.get(name).float();
        format!("{count} {}", if (count - 1.0).abs() < 0.5 { one } else { many })
    };
    invocation.cli.line(&format!(
        "Imported {}, {} and {}",
        count("Steps", "new step", "new steps"),
        count("Layers", "new layer", "new layers"),
        count("Mounts", "cache mount", "cache mounts"),
    ))
}

/// A file that goes at the end.
struct Aside(PathBuf);

impl Aside {
    fn new(directory: &Path, name: &str) -> Self {
        Self(directory.join(format!(".{name}.{}", std::process::id())))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _gone = fs_err::remove_file(&self.0);
    }
}

/// Whether a name is that of a blob.
fn is_blob(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Unpacks the layout into a directory. The index comes last, so that a layout that was there is
/// whole at any moment.
fn unpack(input: impl Read, directory: &Path) -> std::io::Result<()> {
    let odd = |error: silo_archive::Error| std::io::Error::other(silo_types::error::chain(&error));
    let mut reader = Reader::new(BufReader::new(input));
    fs_err::create_dir_all(directory.join(BLOBS))?;
    let mut index = None;
    while let Some(entry) = reader.next_entry().map_err(odd)? {
        if entry.kind != EntryKind::Regular {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let blob = name.strip_prefix(BLOBS).and_then(|rest| rest.strip_prefix('/'));
        if name == "index.json" {
            let mut bytes = Vec::new();
            (&mut reader).take(entry.size).read_to_end(&mut bytes)?;
            index = Some(bytes);
        } else if name == "oci-layout" || blob.is_some_and(is_blob) {
            write(&directory.join(&name), directory, &mut reader)?;
        } else {
            return Err(std::io::Error::other(format!("the engine sent {name:?}")));
        }
    }
    reader.finish().map_err(odd)?;
    let index = index.ok_or_else(|| std::io::Error::other("the engine sent no index.json"))?;
    write(&directory.join("index.json"), directory, &mut &index[..])
}

fn write(path: &Path, directory: &Path, input: &mut impl Read) -> std::io::Result<()> {
    let aside = Aside::new(directory, "blob");
    let mut file = File::create(&aside.0)?;
    std::io::copy(input, &mut file)?;
    fs_err::rename(&aside.0, path)
}

/// A layout in a directory as a tar, which is written while it is read.
fn pack(directory: &Path) -> Outcome<impl Read + Send + 'static> {
    let mut names = vec!["oci-layout".to_owned(), "index.json".to_owned()];
    let blobs = fs_err::read_dir(directory.join(BLOBS))
        .map_err(|_| Failure::new(format!("{} holds no build cache", directory.display())))?;
    for entry in blobs {
        let entry = entry.map_err(failed("failed to import the build cache"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_blob(&name) {
            names.push(format!("{BLOBS}/{name}"));
        }
    }
    let (mut output, input) = pipe::pipe();
    let directory = directory.to_owned();
    std::thread::spawn(move || {
        let written = (|| -> std::io::Result<()> {
            let mut writer = Writer::new(&mut output);
            for name in names {
                let mut file = File::open(directory.join(&name))?;
                let size = file.metadata()?.len();
                let mut entry = Entry::new(EntryKind::Regular, name, 0o644);
                (entry.size, entry.stored) = (size, size);
                writer
                    .append(&entry, &mut file)
                    .map_err(|error| std::io::Error::other(silo_types::error::chain(&error)))?;
            }
            let output = writer
                .finish()
                .map_err(|error| std::io::Error::other(silo_types::error::chain(&error)))?;
            output.flush()
        })();
        match written {
            Ok(()) => output.finish(),
            Err(error) => output.fail(error),
        }
    });
    Ok(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_goes_into_a_directory_and_back() {
        let temporary = tempfile::tempdir().unwrap();
        let (one, two) = (temporary.path().join("one"), temporary.path().join("two"));
        let blob = "a".repeat(64);
        fs_err::create_dir_all(one.join(BLOBS)).unwrap();
        for (name, text) in
            [("oci-layout", "{}"), ("index.json", "index"), (&*format!("{BLOBS}/{blob}"), "blob")]
        {
            fs_err::write(one.join(name), text).unwrap();
        }
        fs_err::write(one.join(BLOBS).join("not a blob"), "x").unwrap();
        unpack(pack(&one).unwrap(), &two).unwrap();
        assert_eq!(fs_err::read(two.join(BLOBS).join(&blob)).unwrap(), b"blob");
        assert_eq!(fs_err::read(two.join("index.json")).unwrap(), b"index");
        assert_eq!(fs_err::read_dir(two.join(BLOBS)).unwrap().count(), 1);
        assert_eq!(fs_err::read_dir(&two).unwrap().count(), 3, "nothing else is left");
        assert!(pack(temporary.path()).is_err());
    }

    #[test]
    fn nothing_is_written_elsewhere() {
        let temporary = tempfile::tempdir().unwrap();
        for name in ["../x", "/tmp/x", "blobs/sha256/../../../x", "blobs/sha256/short"] {
            let mut writer = Writer::new(Vec::new());
            let mut entry = Entry::new(EntryKind::Regular, name, 0o644);
            (entry.size, entry.stored) = (1, 1);
            writer.append(&entry, &mut &b"x"[..]).unwrap();
            let bytes = writer.finish().unwrap();
            assert!(unpack(&bytes[..], &temporary.path().join("in")).is_err(), "{name}");
        }
        assert_eq!(fs_err::read_dir(temporary.path()).unwrap().count(), 1);
    }
}

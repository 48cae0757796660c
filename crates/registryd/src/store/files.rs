//! The directories, and content in them.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fs_err::File;

use crate::Error;
use crate::name::{Algorithm, Digest, Hasher};

/// Paths of the registry's files.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The registry's directory in the engine's data root.
    root: PathBuf,
    /// The engine's own content.
    engine: PathBuf,
}

impl Files {
    /// Makes the directories that are not there.
    pub(crate) fn open(data_root: &Path) -> Result<Self, Error> {
        fs_err::create_dir_all(data_root).map_err(Error::io("create", data_root))?;
        let root = data_root.join("registry");
        for name in ["", "blobs", "blobs/sha256", "blobs/sha512", "uploads", "staging"] {
            let path = root.join(name);
            make_directory(&path)?;
        }
        Ok(Self { root, engine: data_root.join(silo_store::CONTENT_BLOBS) })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("registry.db")
    }

    /// Where content is, or would be.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs(digest.algorithm).join(digest.hex())
    }

    pub(crate) fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.as_str())
    }

    /// Uploads that are not finished.
    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// What is being written and has no name yet.
    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// A file in the staging directory that nobody else has.
    pub(crate) fn stage(&self) -> Result<Staged, Error> {
        Ok(Staged { path: self.staging().join(random_name()?) })
    }

    /// Removes what an earlier server was writing. Nobody else serves these files.
    pub(crate) fn clear_staging(&self) -> Result<(), Error> {
        for name in names(&self.staging())? {
            let path = self.staging().join(name);
            fs_err::remove_file(&path).map_err(Error::io("remove", path))?;
        }
        Ok(())
    }

    /// Where the engine has the same content, if it has it.
    pub(crate) fn of_engine(&self, digest: &Digest) -> Option<PathBuf> {
        (digest.algorithm == Algorithm::Sha256).then(|| self.engine.join(digest.hex()))
    }

    /// Makes a complete file durable, and one with the engine's of the same content.
    pub(crate) fn settle(&self, path: &Path, digest: &Digest) -> Result<(), Error> {
        if let Some(other) = self.of_engine(digest)
            && let Err(error) = silo_store::share(&other, path)
        {
            tracing::debug!(%error, %digest, "not shared with the engine");
        }
        let sync = || File::open(path)?.sync_all();
        sync().map_err(Error::io("flush", path))
    }

    /// Gives a durable file the name of its content, durably.
    pub(crate) fn place(&self, path: &Path, digest: &Digest) -> Result<(), Error> {
        let to = self.blob(digest);
        fs_err::rename(path, &to).map_err(Error::io("rename", path))?;
        let directory = self.blobs(digest.algorithm);
        let sync = || File::open(&directory)?.sync_all();
        sync().map_err(Error::io("flush", &directory))
    }
}

/// Makes a directory that only its owner may look into, if it is not there.
pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    match rustix::fs::mkdir(path, rustix::fs::Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(Error::io("create", path)(error.into())),
    }
}

/// The names in a directory, as far as they are text (all of the registry's own are).
pub(crate) fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(directory).map_err(Error::io("list", directory))? {
        let entry = entry.map_err(Error::io("list", directory))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

/// A file that is removed when this is dropped, if it is still there.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) path: PathBuf,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What remains is collected.
        drop(fs_err::remove_file(&self.path));
    }
}

/// Reads content for its digest.
pub(crate) fn digest_of(mut input: impl Read, algorithm: Algorithm) -> io::Result<Hasher> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(hasher),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A random UUID (version 4): names of uploads cannot be guessed.
pub(crate) fn random_name() -> Result<String, Error> {
    let mut bytes = [0; 16];
    let count = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::io("read", "/dev/urandom")(error.into()))?;
    if count != bytes.len() {
        return Err(Error::io("read", "/dev/urandom")(io::ErrorKind::UnexpectedEof.into()));
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = silo_types::digest::hex(&bytes);
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Ok(parts.join("-"))
}

/// Whether text is a name that [`random_name`] makes: nothing else is looked for on the disk.
pub(crate) fn is_random_name(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_uploads() {
        let name = random_name().unwrap();
        assert!(is_random_name(&name), "{name}");
        assert_ne!(name, random_name().unwrap());
        let slash = name.replace('-', "/");
        for bad in ["", "..", "../../../../../../../../../etc/passwd-", &name[1..], &slash] {
            assert!(!is_random_name(bad), "{bad}");
        }
    }
}

//! Private directories for what is fetched or unpacked. Each goes when its value is dropped; what a
//! killed daemon left goes when the builder is opened next.

use std::path::{Path, PathBuf};

use silo_types::Error;

/// A directory that is removed with the value.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes one in `parent`, which is made too.
    pub(crate) fn new(parent: &Path) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt as _;
        let make = |path: &Path| {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| Error::internal(format!("create {}: {error}", path.display())))
        };
        make(parent)?;
        silo_sys::path::spread(parent);
        let path = parent.join(silo_types::id::random_hex(16));
        make(&path)?;
        Ok(Self { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        fs_err::create_dir(&path).map_err(|error| Error::internal(error.to_string()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        // Nobody waits for thousands of files to go.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || remove(&path))),
            Err(_) => remove(&path),
        }
    }
}

/// Removes a directory with all in it.
pub(crate) fn remove(path: &Path) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
    let removed = silo_sys::path::open_root(parent)
        .and_then(|parent| silo_sys::path::remove_all_at(parent, name));
    if let Err(error) = removed
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "could not clean up");
    }
}

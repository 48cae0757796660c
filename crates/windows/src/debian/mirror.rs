//! Where packages come from: a mirror by HTTP, or a directory with the same layout.

use std::fmt;
use std::io::{self, Read, Seek};
use std::path::PathBuf;

use fs_err as fs;

use super::{Error, safe_path};

/// The root of an archive: what has `dists/` and `pool/` beneath it.
#[derive(Debug, Clone)]
pub struct Mirror {
    address: String,
    directory: PathBuf,
}

impl Mirror {
    /// A mirror by its address: `file://` and an absolute path, `http://` or `https://`.
    pub fn new(address: &str) -> Result<Self, Error> {
        let address = address.trim_end_matches('/');
        let wrong = || Error::Address(address.to_owned());
        let directory = match address.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => PathBuf::from(path),
            _ => return Err(wrong()),
        };
        Ok(Self { address: address.to_owned(), directory })
    }

    /// The root of another archive on the same mirror: `debian` beside it is `debian-security`.
    pub fn beside(&self, suffix: &str) -> Result<Self, Error> {
        Self::new(&format!("{}{suffix}", self.address))
    }

    /// A whole small file.
    pub fn small(&self, path: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let (_, body) = self.open(path, 0)?;
        let mut bytes = Vec::new();
        body.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| Error::Fetch { path: format!("{self}/{path}"), source })?;
        if bytes.len() as u64 > limit {
            let reason = format!("it is larger than {limit} bytes");
            return Err(Error::Malformed { path: format!("{self}/{path}"), reason });
        }
        Ok(bytes)
    }

    /// Opens a file, from `offset` on if that can be had: gives the offset at which it begins.
    pub fn open(&self, path: &str, offset: u64) -> Result<(u64, Box<dyn Read + Send>), Error> {
        let name = || format!("{self}/{path}");
        if !safe_path(path) {
            return Err(Error::Malformed { path: name(), reason: "it is no path".to_owned() });
        }
        let failed = |source| Error::Fetch { path: name(), source };
        match fs::File::open(self.directory.join(path)) {
            Ok(mut file) => {
                file.seek(io::SeekFrom::Start(offset)).map_err(failed)?;
                Ok((offset, Box::new(file)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Missing(name())),
            Err(error) => Err(failed(error)),
        }
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

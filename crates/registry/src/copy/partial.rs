//! Blobs of layouts that have come in part.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use silo_oci::image::Descriptor;

use super::check::Checked;
use super::{CopyError, layout};

/// Where what has come in part lies in a layout.
pub(super) const PARTIAL: &str = ".partial";
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// A blob of a layout that has come in part.
pub(super) struct Partial {
    file: fs_err::File,
    path: PathBuf,
    pub(super) have: u64,
}

impl Partial {
    pub(super) fn open(layout: &Path, blob: &Descriptor) -> Result<Self, CopyError> {
        let directory = layout.join(PARTIAL);
        fs_err::create_dir_all(&directory).map_err(CopyError::io("create", &directory))?;
        let path = directory.join(blob.digest.hex());
        let mut options = fs_err::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(CopyError::io("open", &path))?;
        let have = file.metadata().map_err(CopyError::io("read", &path))?.len();
        // One that is all there was not right, or it would be a blob.
        let have = if have < blob.size { have } else { 0 };
        Ok(Self { file, path, have })
    }

    /// Adds the rest, and makes a blob of it.
    pub(super) fn fill(mut self, layout: &Path, mut rest: Checked) -> Result<(), CopyError> {
        let failed = || CopyError::io("write", &self.path);
        self.file.set_len(self.have).map_err(failed())?;
        self.file.seek(SeekFrom::Start(0)).map_err(failed())?;
        let mut hash = Sha256::new();
        let mut left = (&mut self.file).take(self.have);
        let mut piece = vec![0; PIECE];
        loop {
            let count = left.read(&mut piece).map_err(failed())?;
            if count == 0 {
                break;
            }
            hash.update(&piece[..count]);
        }
        (rest.at, rest.hash) = (self.have - left.limit(), Some(hash));
        let mut ended = rest.wanted.size == 0;
        while !ended {
            let piece = match rest.next() {
                Ok(piece) => piece,
                Err(error) => {
                    if rest.at >= rest.wanted.size {
                        // All of it is there, and wrong: there is nothing to go on with.
                        fs_err::remove_file(&self.path).ok();
                    }
                    return Err(error);
                }
            };
            self.file.write_all(&piece).map_err(failed())?;
            ended = piece.is_empty() || rest.at >= rest.wanted.size;
        }
        if rest.hash.is_some() {
            rest.end()?;
        }
        self.file.sync_data().map_err(failed())?;
        let path = layout.join(layout::blob_name(&rest.wanted.digest));
        fs_err::rename(&self.path, &path).map_err(CopyError::io("rename", &self.path))
    }
}

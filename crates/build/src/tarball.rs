//! A context that comes as a tar, as with the classic `POST /build`.

use std::io::Read;
use std::sync::Arc;

use silo_dockerfile::ignore::Patterns;
use silo_types::Error;

use crate::Boxed;
use crate::builder::Builder;
use crate::context::{Context, Filter, Transfer, Tree};
use crate::fetch;

/// A context that was unpacked.
#[derive(Debug)]
pub struct TarContext {
    tree: Arc<Tree>,
}

impl Builder {
    /// Unpacks a context, compressed or not, into a private directory, which goes with the
    /// context. Blocks.
    ///
    /// Clients send the Dockerfile and `.dockerignore` even where the latter leaves them out; as
    /// with dockerd they are then no part of the context, but can be read.
    pub fn unpack(&self, input: impl Read + Send) -> Result<TarContext, Error> {
        let tree = fetch::unpack(self.scratch()?, input)?;
        Ok(TarContext { tree: Arc::new(tree) })
    }
}

impl TarContext {
    /// Takes files away that `.dockerignore` leaves out, of those that are named.
    pub fn drop_ignored(&self, names: &[&str]) -> Result<(), Error> {
        let limit = 1 << 20;
        let text =
            silo_sys::path::read_regular_file_in_root(self.tree.root(), ".dockerignore", limit);
        let Ok(Some(text)) = text else { return Ok(()) };
        let Ok(patterns) = Patterns::parse(&text) else { return Ok(()) };
        for name in names {
            if patterns.matches(name)
                && let Ok((parent, last)) = silo_sys::path::parent_in_root(self.tree.root(), name)
            {
                silo_sys::path::remove_all_at(parent, last).map_err(|error| {
                    Error::internal(format!("leave {name} out of the context: {error}"))
                })?;
            }
        }
        Ok(())
    }

    /// Reads a file of the context, if it is there.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        let limit = silo_dockerfile::MAX_FILE as u64;
        silo_sys::path::read_regular_file_in_root(self.tree.root(), path, limit).ok().flatten()
    }
}

impl Context for TarContext {
    fn tree<'a>(
        &'a self,
        _filter: &'a Filter,
        _transfer: &'a Transfer<'a>,
    ) -> Boxed<'a, Result<Arc<Tree>, Error>> {
        Box::pin(async { Ok(Arc::clone(&self.tree)) })
    }
}

//! Small programs of the engine's own that it runs in a container to ask it something.
//!
//! They are put into the container's prefix beside what starts its programs, so they work in
//! containers of any base, and write their answer there.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use silo_docker::exec::ExecCreateRequest;
use silo_sys::path;
use silo_types::{Error, ExecId};
use silo_windows::control;

use super::process;
use crate::container::Container;
use crate::engine::Engine;

/// Such a program. Its one argument is the name of its directory.
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) bytes: fn() -> &'static [u8],
}

impl Engine {
    /// Runs a program in a running container; `read` gets its directory when it was done.
    pub(super) async fn run_tool<T>(
        self: &Arc<Self>,
        container: &Arc<Container>,
        tool: &Tool,
        timeout: Duration,
        read: impl FnOnce(&OwnedFd) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let name = process::exec_name(ExecId::random().as_str());
        let prefix = Self::windows_prefix(container);
        let failed = |error: io::Error| {
            Error::internal(format!("put a program into {}: {error}", prefix.display()))
        };
        let result = match place(&prefix, &name, tool).map_err(failed) {
            Ok(()) => self.run_placed(container, tool, &name, timeout).await,
            Err(error) => Err(error),
        };
        let result = result.and_then(|()| {
            let failed = |error| Error::internal(format!("read what {} wrote: {error}", tool.name));
            read(&open_folder(&prefix, &name).map_err(failed)?)
        });
        if let Err(error) = remove(&prefix, &name) {
            tracing::warn!(container = %container.id, %error, "files of a program stay");
        }
        result
    }

    async fn run_placed(
        self: &Arc<Self>,
        container: &Arc<Container>,
        tool: &Tool,
        name: &str,
        timeout: Duration,
    ) -> Result<(), Error> {
        let program = format!("\\\\?\\unix\\prefix\\{}\\{name}\\{}", control::FOLDER, tool.name);
        let request = ExecCreateRequest {
            cmd: vec![program, name.to_owned()].into(),
            user: "ContainerAdministrator".into(),
            working_dir: "C:\\".into(),
            ..ExecCreateRequest::default()
        };
        match self.run_internal(container, request, timeout).await? {
            Some(0) => Ok(()),
            Some(status) => Err(Error::internal(format!("Wine says {status:#x}"))),
            None => Err(Error::internal(format!(
                "Wine did not answer within {} seconds",
                timeout.as_secs()
            ))),
        }
    }
}

/// The directory of the control directories. What is in a prefix is a stranger's: no link is
/// followed, and files are made anew.
fn control_folder(prefix: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let prefix = path::open_root(prefix)?;
    path::open_in_root_no_links(prefix, control::FOLDER, flags, Mode::empty())
}

/// A directory within it.
fn open_folder(prefix: &Path, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    path::open_in_root_no_links(control_folder(prefix)?, name, flags, Mode::empty())
}

/// Puts the program into a new directory.
fn place(prefix: &Path, name: &str, tool: &Tool) -> io::Result<()> {
    rustix::fs::mkdirat(control_folder(prefix)?, name, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = open_folder(prefix, name)?;
    let file = rustix::fs::openat(folder, tool.name, flags, Mode::from_raw_mode(0o755))?;
    std::fs::File::from(file).write_all((tool.bytes)())
}

fn remove(prefix: &Path, name: &str) -> io::Result<()> {
    path::remove_all_at(control_folder(prefix)?, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_leads_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let (prefix, outside) = (directory.path().join("prefix"), directory.path().join("outside"));
        fs_err::create_dir_all(prefix.join(control::FOLDER)).unwrap();
        fs_err::create_dir(&outside).unwrap();
        let tool = Tool { name: "tool.exe", bytes: || b"MZ" };
        place(&prefix, "a", &tool).unwrap();
        assert!(place(&prefix, "a", &tool).is_err(), "it is there");
        fs_err::write(outside.join("answer"), "a secret").unwrap();
        let link = prefix.join(control::FOLDER).join("a/answer");
        std::os::unix::fs::symlink(outside.join("answer"), link).unwrap();
        let folder = open_folder(&prefix, "a").unwrap();
        assert!(path::read_regular_file_in_root(&folder, "answer", 100).is_err());
        remove(&prefix, "a").unwrap();
        assert!(outside.join("answer").exists());

        fs_err::remove_dir(prefix.join(control::FOLDER)).unwrap();
        std::os::unix::fs::symlink(&outside, prefix.join(control::FOLDER)).unwrap();
        assert!(place(&prefix, "b", &tool).is_err());
        assert!(!outside.join("b").exists());
    }
}

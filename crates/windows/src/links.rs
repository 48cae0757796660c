//! Links on a container's drive C: that its programs ask for.
//!
//! Wine cannot make them: its `CreateSymbolicLink` does nothing and says that it did. `mklink.exe`
//! puts a file into `/prefix/.silo/links/`, written aside and renamed, with a name of letters and
//! digits, and writes a byte to the FIFO beside it; process 1 makes the link, removes the file and
//! answers with `<name>.answer`. Records and the FIFO are as in [`crate::control`]:
//!
//! | file | records |
//! | --- | --- |
//! | `<name>` | `link`: the whole path of the link, `target`: where it leads, from the link or from `C:\` |
//! | `<name>.answer` | `code`: a Windows error, 0 when it is made |
//!
//! A link is a relative symbolic link of Linux that stays on C:, as links of layers are
//! (see [`silo_winlayer::target`]); a commit makes a reparse point of it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use silo_sys::path;
use silo_winlayer::path::{LayerPath, Part};
use silo_winlayer::target;

use crate::control;
use crate::path::{WindowsPath, spelling};

/// The directory of requests, beside those of processes.
const FOLDER: &str = "links";

/// How folders are opened: to be read.
const FOLDER_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Windows' numbers for what can be wrong with a link.
mod code {
    pub(super) const ACCESS_DENIED: u32 = 5;
    pub(super) const PATH_NOT_FOUND: u32 = 3;
    pub(super) const INVALID_NAME: u32 = 123;
    pub(super) const ALREADY_EXISTS: u32 = 183;
    pub(super) const INVALID_REPARSE_DATA: u32 = 4392;
}

/// The requests of a container.
#[derive(Debug)]
pub(crate) struct Requests {
    folder: PathBuf,
    drive: OwnedFd,
    wake: File,
}

impl Requests {
    /// Makes the directory for them below `prefix`, anew. Links are made on `drive`.
    pub(crate) fn open(prefix: &Path, drive: &Path) -> io::Result<Self> {
        let folder = prefix.join(control::FOLDER).join(FOLDER);
        match fs_err::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs_err::create_dir(&folder)?,
        }
        let wake = control::make_wake(&folder, false)?;
        let drive = path::reopen(path::open_root(drive)?, FOLDER_FLAGS)?;
        Ok(Self { folder, drive, wake })
    }

    /// Makes links as they are asked for.
    pub(crate) fn serve(&self) -> io::Result<()> {
        let mut buffer = [0; 64];
        loop {
            match (&self.wake).read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            for entry in fs_err::read_dir(&self.folder)? {
                let name = entry?.file_name();
                let name = name.to_str().unwrap_or_default();
                if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                    // Who asked may be gone already, and its file with it.
                    self.answer(name).ok();
                }
            }
        }
    }

    fn answer(&self, name: &str) -> io::Result<()> {
        let folder = path::open_root(&self.folder)?;
        let request = path::read_regular_file_in_root(&folder, name, control::LIMIT)?;
        path::remove_all_at(&folder, name)?;
        let request = request.unwrap_or_default();
        let of = |key| control::record(&request, key).unwrap_or_default();
        let code = make(self.drive.as_fd(), &of("link"), &of("target")).err().unwrap_or(0);
        let new = self.folder.join(format!("{name}.new"));
        fs_err::write(&new, format!("code={code}\0"))?;
        fs_err::rename(new, self.folder.join(format!("{name}.answer")))
    }
}

/// Makes a link on a drive; the error is one of Windows'.
fn make(drive: BorrowedFd<'_>, link: &str, target: &str) -> Result<(), u32> {
    let WindowsPath { drive: letter, mut names } =
        WindowsPath::parse(link).map_err(|_| code::INVALID_NAME)?;
    let name = names.pop().filter(|_| letter == 'C').ok_or(code::INVALID_NAME)?;
    let (folder, place) = folder(drive, &names).map_err(number)?;
    let same = spelling(&[folder.as_fd()], std::slice::from_ref(&name)).map_err(number)?;
    if rustix::fs::statat(&folder, &same, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return Err(code::ALREADY_EXISTS);
    }
    let place = place.join(&name);
    let at = place.to_str().ok_or(code::INVALID_NAME)?;
    let at = LayerPath::new(Part::Files, at).map_err(|_| code::INVALID_NAME)?;
    let wrong = |_| code::INVALID_REPARSE_DATA;
    let names = target::resolve(&at, &target.replace('/', "\\")).map_err(wrong)?;
    let spelled = spelling(&[drive], &names).map_err(number)?;
    let names: Vec<_> = spelled.iter().map(|name| name.to_string_lossy()).collect();
    let target = target::to_posix(&at, &names).map_err(wrong)?;
    rustix::fs::symlinkat(target, &folder, &name).map_err(|error| number(error.into()))
}

/// Opens a folder of a drive, in whatever case and through links; also where it really is.
fn folder(drive: BorrowedFd<'_>, names: &[String]) -> io::Result<(OwnedFd, PathBuf)> {
    let place = |fd: BorrowedFd<'_>| fs_err::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let root = place(drive)?;
    let mut held = path::reopen(drive, FOLDER_FLAGS)?;
    let mut at = PathBuf::new();
    for name in names {
        let spelled = spelling(&[held.as_fd()], std::slice::from_ref(name))?;
        held = path::open_in_root(drive, at.join(spelled), FOLDER_FLAGS, Mode::empty())?;
        let real = place(held.as_fd())?;
        at = real.strip_prefix(&root).map_err(|_| io::ErrorKind::NotFound)?.into();
    }
    Ok((held, at))
}

fn number(error: io::Error) -> u32 {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => code::PATH_NOT_FOUND,
        io::ErrorKind::AlreadyExists => code::ALREADY_EXISTS,
        _ => code::ACCESS_DENIED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_on_the_drive() {
        let drive = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(drive.path().join("Windows/System32")).unwrap();
        fs_err::create_dir_all(drive.path().join("app/bin")).unwrap();
        let root = path::reopen(path::open_root(drive.path()).unwrap(), FOLDER_FLAGS).unwrap();
        for (link, target, made) in [
            ("C:\\lnk", "C:\\windows\\SYSTEM32", Ok(("lnk", "Windows/System32"))),
            ("C:\\APP\\lnk", "C:\\Windows", Ok(("app/lnk", "../Windows"))),
            ("c:/app/bin/rel", "..\\x/y", Ok(("app/bin/rel", "../x/y"))),
            ("C:\\root", "\\", Ok(("root", "."))),
            // The folder is a link, so the target is relative to where that leads.
            ("C:\\app\\LNK\\system32\\deep", "C:\\App", Ok(("Windows/System32/deep", "../../app"))),
            ("C:\\LNK", "C:\\x", Err(code::ALREADY_EXISTS)),
            ("C:\\none\\x", "C:\\x", Err(code::PATH_NOT_FOUND)),
            ("D:\\x", "C:\\x", Err(code::INVALID_NAME)),
            ("C:\\", "C:\\x", Err(code::INVALID_NAME)),
            ("C:\\nul", "C:\\x", Err(code::INVALID_NAME)),
            ("C:\\a", "..\\x", Err(code::INVALID_REPARSE_DATA)),
            ("C:\\a", "\\\\?\\unix\\etc", Err(code::INVALID_REPARSE_DATA)),
            ("C:\\a", "D:\\x", Err(code::INVALID_REPARSE_DATA)),
            ("C:\\a", "\\\\server\\share", Err(code::INVALID_REPARSE_DATA)),
        ] {
            let result = make(root.as_fd(), link, target);
            assert_eq!(result, made.map(|_| ()), "{link} -> {target}");
            if let Ok((place, text)) = made {
                let seen = fs_err::read_link(drive.path().join(place)).unwrap();
                assert_eq!(seen, Path::new(text), "{link}");
            }
        }
    }

    #[test]
    fn what_is_asked_is_answered() {
        let directory = tempfile::tempdir().unwrap();
        let (prefix, drive) = (directory.path().join("prefix"), directory.path().join("c"));
        fs_err::create_dir_all(prefix.join(control::FOLDER)).unwrap();
        fs_err::create_dir(&drive).unwrap();
        let requests = Requests::open(&prefix, &drive).unwrap();
        let file = |name: &str| requests.folder.join(name);
        for (name, text, answer) in [
            ("1", "link=C:\\a\0target=b\0", "code=0\0"),
            ("2", "link=C:\\a\0target=b\0", "code=183\0"),
            ("3", "", "code=123\0"),
        ] {
            fs_err::write(file(name), text).unwrap();
            requests.answer(name).unwrap();
            let given = fs_err::read_to_string(file(&format!("{name}.answer"))).unwrap();
            assert_eq!(given, answer, "{text:?}");
            assert!(!file(name).exists());
        }
        assert!(fs_err::symlink_metadata(drive.join("a")).unwrap().is_symlink());
    }
}

//! Pseudo-terminals (pty(7), ioctl_tty(2)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// A new, unlocked master of the devpts instance whose root is `devpts`; `None` is the host's.
pub fn open_master(devpts: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let master = match devpts {
        None => {
            rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?
        }
        Some(root) => rustix::fs::openat(
            root,
            "ptmx",
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )?,
    };
    rustix::pty::unlockpt(&master)?;
    Ok(master)
}

/// The other side of `master`, found without a path, so that no mount can misdirect it.
pub fn open_peer(master: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    Ok(rustix::pty::ioctl_tiocgptpeer(master, flags)?)
}

/// Sets the terminal's size; its foreground processes get `SIGWINCH` when it differs.
pub fn set_size(terminal: impl AsFd, size: Size) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// The terminal's size.
pub fn size(terminal: impl AsFd) -> io::Result<Size> {
    let size = rustix::termios::tcgetwinsize(terminal)?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Makes `terminal` the controlling terminal of the calling session leader.
pub fn set_controlling(terminal: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_shares_size_and_bytes() {
        let master = open_master(None).unwrap();
        let peer = open_peer(&master).unwrap();
        let wanted = Size { rows: 33, columns: 101 };
        set_size(&master, wanted).unwrap();
        assert_eq!(size(&peer).unwrap(), wanted);
        rustix::io::write(&peer, b"a\n").unwrap();
        let mut buffer = [0; 8];
        let n = rustix::io::read(&master, &mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"a\r\n");
    }
}

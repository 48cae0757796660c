//! File modes as they travel: Go's `os.FileMode`, whose upper bits are its own.

use rustix::fs::FileType;

const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const FIFO: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHARACTER_DEVICE: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;
const IRREGULAR: u32 = 1 << 19;
const TYPE: u32 = DIRECTORY | SYMLINK | DEVICE | FIFO | SOCKET | CHARACTER_DEVICE | IRREGULAR;

/// The type of a file; `None` for one that has no meaning.
pub(super) fn file_type(mode: u32) -> Option<FileType> {
    Some(match mode & TYPE {
        0 => FileType::RegularFile,
        DIRECTORY => FileType::Directory,
        SYMLINK => FileType::Symlink,
        FIFO => FileType::Fifo,
        SOCKET => FileType::Socket,
        DEVICE => FileType::BlockDevice,
        both if both == DEVICE | CHARACTER_DEVICE => FileType::CharacterDevice,
        _ => return None,
    })
}

/// The twelve permission bits as the kernel has them.
pub(super) fn permissions(mode: u32) -> u32 {
    let bit = |go: u32, unix: u32| if mode & go == 0 { 0 } else { unix };
    mode & 0o777 | bit(SETUID, 0o4000) | bit(SETGID, 0o2000) | bit(STICKY, 0o1000)
}

/// The mode of a file of the kernel, as it travels.
pub(super) fn from_kernel(mode: u32) -> u32 {
    let bit = |unix: u32, go: u32| if mode & unix == 0 { 0 } else { go };
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => DIRECTORY,
        FileType::Symlink => SYMLINK,
        FileType::Fifo => FIFO,
        FileType::Socket => SOCKET,
        FileType::BlockDevice => DEVICE,
        FileType::CharacterDevice => DEVICE | CHARACTER_DEVICE,
        _ => 0,
    };
    mode & 0o777 | bit(0o4000, SETUID) | bit(0o2000, SETGID) | bit(0o1000, STICKY) | kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_survive_both_ways() {
        for kernel in [0o100_644, 0o040_755, 0o120_777, 0o010_600, 0o104_755, 0o041_777, 0o102_711]
        {
            let go = from_kernel(kernel);
            assert_eq!(permissions(go), kernel & 0o7777, "{kernel:o}");
            assert_eq!(file_type(go), Some(FileType::from_raw_mode(kernel)), "{kernel:o}");
        }
        assert_eq!(file_type(DIRECTORY | SYMLINK), None);
        assert_eq!(file_type(CHARACTER_DEVICE), None);
    }
}

//! A finished filter, and its bytes for keeping or handing to another process.

use libc::sock_filter;

/// `SECCOMP_FILTER_FLAG_TSYNC`.
pub const FLAG_TSYNC: u32 = 1;
/// `SECCOMP_FILTER_FLAG_LOG`.
pub const FLAG_LOG: u32 = 1 << 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`.
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The kernel's limit of instructions in one filter (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// A classic BPF program over `struct seccomp_data`, ready for seccomp(2).
#[derive(Clone)]
pub struct Program {
    /// The instructions, in order.
    pub instructions: Vec<sock_filter>,
    /// The `SECCOMP_FILTER_FLAG_*` bits to load it with. [`FLAG_NEW_LISTENER`] is among them
    /// exactly if an action of the profile notifies a listener.
    pub flags: u32,
}

impl Program {
    /// Whether loading gives a listener descriptor that somebody has to serve.
    pub fn notifies(&self) -> bool {
        self.flags & FLAG_NEW_LISTENER != 0
    }

    /// The program as bytes: the flags, then every instruction as the kernel lays it out, all
    /// in little endian. They mean something to the same version of Silo only.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + self.instructions.len() * 8);
        bytes.extend(self.flags.to_le_bytes());
        for filter in &self.instructions {
            bytes.extend(filter.code.to_le_bytes());
            bytes.extend([filter.jt, filter.jf]);
            bytes.extend(filter.k.to_le_bytes());
        }
        bytes
    }

    /// What [`Self::to_bytes`] wrote; `None` if these are no such bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first_chunk::<4>()?;
        let (chunks, []) = rest.as_chunks::<8>() else { return None };
        if chunks.is_empty() || chunks.len() > MAX_INSTRUCTIONS {
            return None;
        }
        let instructions = chunks
            .iter()
            .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| sock_filter {
                code: u16::from_le_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_le_bytes([k0, k1, k2, k3]),
            })
            .collect();
        Some(Self { instructions, flags: u32::from_le_bytes(*flags) })
    }
}

impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Eq for Program {}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program")
            .field("instructions", &self.instructions.len())
            .field("flags", &self.flags)
            .finish()
    }
}

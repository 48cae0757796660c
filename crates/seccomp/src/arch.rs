//! Architectures: their names in the OCI runtime specification and in Docker's profiles, and
//! what the kernel calls them in `seccomp_data.arch` (`AUDIT_ARCH_*` of linux/audit.h).

use crate::table::{N, SYSCALLS};

/// An architecture whose system calls a filter can decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// 64-bit x86 with 32-bit pointers: the numbers of x86_64 with bit 30 set.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM, EABI.
    Arm,
}

/// The bit that marks an x32 call.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

impl Arch {
    /// The architecture that this program was built for, if it is one that Silo filters.
    pub const fn native() -> Option<Self> {
        if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else if cfg!(target_arch = "x86") {
            Some(Self::X86)
        } else if cfg!(target_arch = "arm") {
            Some(Self::Arm)
        } else {
            None
        }
    }

    /// From the OCI name, such as `SCMP_ARCH_X86_64`; `None` for one that Silo has no table for.
    pub fn from_oci(name: &str) -> Option<Self> {
        Some(match name {
            "SCMP_ARCH_X86_64" => Self::X86_64,
            "SCMP_ARCH_X86" => Self::X86,
            "SCMP_ARCH_X32" => Self::X32,
            "SCMP_ARCH_AARCH64" => Self::Aarch64,
            "SCMP_ARCH_ARM" => Self::Arm,
            _ => return None,
        })
    }

    /// The OCI name.
    pub const fn oci_name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
        }
    }

    /// The name in `includes.arches` and `excludes.arches` of a Docker profile.
    pub const fn docker_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
        }
    }

    /// The value of `seccomp_data.arch`. x86_64 and x32 share one.
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether only the low halves of arguments mean something, so that comparisons ignore the
    /// high ones (as libseccomp does).
    pub(crate) const fn narrow(self) -> bool {
        matches!(self, Self::X86 | Self::X32 | Self::Arm)
    }

    /// The number of a call in `seccomp_data.nr`, the x32 bit included.
    pub fn number(self, name: &str) -> Option<u32> {
        lookup(name).and_then(|row| self.pick(row))
    }

    /// Every call of the architecture with its number, by name.
    pub fn syscalls(self) -> impl Iterator<Item = (&'static str, u32)> {
        SYSCALLS.iter().filter_map(move |(name, row)| Some((*name, self.pick(row)?)))
    }

    pub(crate) fn pick(self, row: &[u32; 5]) -> Option<u32> {
        let number = row[match self {
            Self::X86_64 => 0,
            Self::X86 => 1,
            Self::X32 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
        }];
        if number == N {
            None
        } else if self == Self::X32 {
            Some(number | X32_BIT)
        } else {
            Some(number)
        }
    }
}

/// The row of a call by its name.
pub(crate) fn lookup(name: &str) -> Option<&'static [u32; 5]> {
    let at = SYSCALLS.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
    Some(&SYSCALLS[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_numbers_are_unique() {
        assert!(SYSCALLS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for arch in [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64] {
            let mut numbers: Vec<u32> = arch.syscalls().map(|(_, number)| number).collect();
            let count = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), count, "{arch:?}");
        }
    }

    #[test]
    fn known_numbers() {
        for (arch, name, number) in [
            (Arch::X86_64, "read", Some(0)),
            (Arch::X86_64, "clone3", Some(435)),
            (Arch::X86_64, "socketcall", None),
            (Arch::X86, "socketcall", Some(102)),
            (Arch::X86, "socket", Some(359)),
            (Arch::X32, "read", Some(X32_BIT)),
            (Arch::X32, "execve", Some(X32_BIT + 520)),
            (Arch::Aarch64, "openat", Some(56)),
            (Arch::Aarch64, "open", None),
            (Arch::Arm, "set_tls", Some(0x000f_0005)),
            (Arch::X86_64, "file_setattr", Some(469)),
            (Arch::X86_64, "no_such_call", None),
        ] {
            assert_eq!(arch.number(name), number, "{arch:?} {name}");
        }
    }

    #[test]
    fn names_go_both_ways() {
        for arch in [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm] {
            assert_eq!(Arch::from_oci(arch.oci_name()), Some(arch));
        }
        assert_eq!(Arch::from_oci("SCMP_ARCH_S390X"), None);
    }
}

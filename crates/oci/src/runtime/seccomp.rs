//! The system call filter as the specification describes it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::record;

record! {
    /// A system call filter.
    LinuxSeccomp {
        /// What is done with a call that no rule matches.
        default_action: SeccompAction,
        ; optional:
        /// The error number of the default action, `EPERM` when absent.
        default_errno_ret: Option<u32>,
        /// The architectures whose calls are let through to the rules, beside the machine's own.
        architectures: Vec<SeccompArch>,
        /// Flags of the filter.
        flags: Vec<SeccompFlag>,
        /// The socket of a listener for [`SeccompAction::Notify`].
        listener_path: Option<PathBuf>,
        /// Text for the listener.
        listener_metadata: String,
        /// The rules.
        syscalls: Vec<LinuxSyscall>,
    }
}

record! {
    /// A rule: calls, conditions on their arguments, and the action.
    LinuxSyscall {
        /// The names of the calls; those unknown to the machine are skipped.
        names: Vec<String>,
        /// What is done.
        action: SeccompAction,
        ; optional:
        /// The error number, or the data for a tracer.
        errno_ret: Option<u32>,
        /// Conditions that must all hold; several on one argument are alternatives.
        args: Vec<LinuxSeccompArg>,
    }
}

record! {
    /// A condition on one argument of a call.
    LinuxSeccompArg {
        /// The argument, 0 to 5.
        index: u32,
        /// The value compared with; the mask for [`SeccompOperator::MaskedEqual`].
        value: u64,
        /// The comparison.
        op: SeccompOperator,
        ; optional:
        /// The second value, for [`SeccompOperator::MaskedEqual`].
        value_two: u64,
    }
}

/// What is done with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum SeccompAction {
    /// End the thread; the specification's old name of [`Self::KillThread`].
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    /// End the process.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// End the thread.
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    /// Send `SIGSYS`.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// Return an error.
    #[default]
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// Tell a tracer.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// Allow.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// Allow and log.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// Ask the listener.
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// A comparison of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum SeccompOperator {
    /// Not equal.
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    /// Less.
    #[serde(rename = "SCMP_CMP_LT")]
    LessThan,
    /// Less or equal.
    #[serde(rename = "SCMP_CMP_LE")]
    LessEqual,
    /// Equal.
    #[default]
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    /// Greater or equal.
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterEqual,
    /// Greater.
    #[serde(rename = "SCMP_CMP_GT")]
    GreaterThan,
    /// Equal to the second value after masking with the first.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// A flag of the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SeccompFlag {
    /// All threads of the process get the filter.
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    Tsync,
    /// Every action but allow is logged.
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    /// The filter does not turn on mitigations of speculative store bypass.
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow,
    /// A call that the listener has received can only be interrupted by fatal signals.
    #[serde(rename = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")]
    WaitKillableRecv,
}

/// Declares the architectures.
macro_rules! arches {
    ($($(#[$meta:meta])* $name:ident = $text:literal,)*) => {
        /// An architecture whose calls a filter treats.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum SeccompArch {
            $(
                $(#[$meta])*
                #[serde(rename = $text)]
                $name,
            )*
        }
    };
}

arches! {
    /// The machine's own.
    Native = "SCMP_ARCH_NATIVE",
    /// Intel, 32 bits.
    X86 = "SCMP_ARCH_X86",
    /// Intel, 64 bits.
    X86_64 = "SCMP_ARCH_X86_64",
    /// Intel, 64 bits with 32-bit pointers.
    X32 = "SCMP_ARCH_X32",
    /// Arm, 32 bits.
    Arm = "SCMP_ARCH_ARM",
    /// Arm, 64 bits.
    Aarch64 = "SCMP_ARCH_AARCH64",
    /// MIPS, 32 bits.
    Mips = "SCMP_ARCH_MIPS",
    /// MIPS, 64 bits.
    Mips64 = "SCMP_ARCH_MIPS64",
    /// MIPS, 64 bits with 32-bit pointers.
    Mips64N32 = "SCMP_ARCH_MIPS64N32",
    /// MIPS, 32 bits, little-endian.
    Mipsel = "SCMP_ARCH_MIPSEL",
    /// MIPS, 64 bits, little-endian.
    Mipsel64 = "SCMP_ARCH_MIPSEL64",
    /// MIPS, 64 bits with 32-bit pointers, little-endian.
    Mipsel64N32 = "SCMP_ARCH_MIPSEL64N32",
    /// PowerPC, 32 bits.
    Ppc = "SCMP_ARCH_PPC",
    /// PowerPC, 64 bits.
    Ppc64 = "SCMP_ARCH_PPC64",
    /// PowerPC, 64 bits, little-endian.
    Ppc64le = "SCMP_ARCH_PPC64LE",
    /// IBM Z, 31 bits.
    S390 = "SCMP_ARCH_S390",
    /// IBM Z, 64 bits.
    S390x = "SCMP_ARCH_S390X",
    /// PA-RISC, 32 bits.
    Parisc = "SCMP_ARCH_PARISC",
    /// PA-RISC, 64 bits.
    Parisc64 = "SCMP_ARCH_PARISC64",
    /// RISC-V, 64 bits.
    Riscv64 = "SCMP_ARCH_RISCV64",
    /// LoongArch, 64 bits.
    Loongarch64 = "SCMP_ARCH_LOONGARCH64",
    /// Motorola 68000.
    M68k = "SCMP_ARCH_M68K",
    /// SuperH, little-endian.
    Sh = "SCMP_ARCH_SH",
    /// SuperH, big-endian.
    Sheb = "SCMP_ARCH_SHEB",
}

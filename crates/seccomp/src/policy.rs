//! A profile with its words understood: actions as the kernel's return values, conditions
//! grouped into alternatives. [`crate::compile`] works on this form.

use silo_oci::runtime::{
    LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, SeccompAction, SeccompArch, SeccompFlag,
    SeccompOperator,
};

use crate::arch::Arch;
use crate::error::Error;
use crate::program;

/// `SECCOMP_RET_*`, with the errno or the tracer's value in the low 16 bits.
pub(crate) type Return = u32;

pub(crate) const RET_KILL_PROCESS: Return = 0x8000_0000;
pub(crate) const RET_KILL_THREAD: Return = 0;
pub(crate) const RET_TRAP: Return = 0x0003_0000;
pub(crate) const RET_ERRNO: Return = 0x0005_0000;
pub(crate) const RET_NOTIFY: Return = 0x7fc0_0000;
pub(crate) const RET_TRACE: Return = 0x7ff0_0000;
pub(crate) const RET_LOG: Return = 0x7ffc_0000;
pub(crate) const RET_ALLOW: Return = 0x7fff_0000;

const EPERM: u32 = libc::EPERM.unsigned_abs();
/// The highest errno that the kernel returns for `SECCOMP_RET_ERRNO`.
const MAX_ERRNO: u32 = 4095;

/// One comparison of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Condition {
    /// The argument, 0 to 5.
    pub(crate) index: u32,
    pub(crate) compare: SeccompOperator,
    /// Compared with the argument.
    pub(crate) value: u64,
    /// Applied to the argument first; all ones but for `MaskedEqual`.
    pub(crate) mask: u64,
}

/// Calls, an action for them, and what their arguments must be.
#[derive(Debug)]
pub(crate) struct Rule<'a> {
    pub(crate) names: &'a [String],
    pub(crate) action: Return,
    /// Alternatives, each with conditions that must all hold. None at all: always.
    pub(crate) when: Vec<Vec<Condition>>,
}

/// A whole profile.
#[derive(Debug)]
pub(crate) struct Policy<'a> {
    pub(crate) default: Return,
    /// The machine's own first, without repetitions.
    pub(crate) arches: Vec<Arch>,
    pub(crate) rules: Vec<Rule<'a>>,
    /// What calls newer than any that the profile names return, if not the default.
    pub(crate) newer: Option<Return>,
    pub(crate) flags: u32,
}

impl<'a> Policy<'a> {
    /// Understands a profile for a machine whose own architecture is `native`.
    pub(crate) fn new(profile: &'a LinuxSeccomp, native: Arch) -> Result<Self, Error> {
        if profile.default_action == SeccompAction::Notify {
            return Err(Error::NotifyByDefault);
        }
        let default = action(profile.default_action, profile.default_errno_ret)?;
        let mut rules = Vec::with_capacity(profile.syscalls.len());
        for rule in &profile.syscalls {
            let ret = action(rule.action, rule.errno_ret)?;
            if rule.action == SeccompAction::Notify && rule.names.iter().any(|name| name == "write")
            {
                return Err(Error::NotifyWrite);
            }
            rules.push(Rule { names: &rule.names, action: ret, when: alternatives(rule)? });
        }
        let notifies = rules.iter().any(|rule| rule.action == RET_NOTIFY);
        Ok(Self {
            default,
            arches: arches(profile, native),
            rules,
            newer: newer(profile),
            flags: flags(profile, notifies),
        })
    }
}

/// The kernel's return value for an action.
fn action(action: SeccompAction, errno: Option<u32>) -> Result<Return, Error> {
    let data = |most: u32| match errno {
        Some(errno) if errno > most => Err(Error::Errno { action, errno }),
        errno => Ok(errno.unwrap_or(EPERM)),
    };
    Ok(match action {
        SeccompAction::Kill | SeccompAction::KillThread => RET_KILL_THREAD,
        SeccompAction::KillProcess => RET_KILL_PROCESS,
        SeccompAction::Trap => RET_TRAP,
        SeccompAction::Errno => RET_ERRNO | data(MAX_ERRNO)?,
        SeccompAction::Trace => RET_TRACE | data(u32::from(u16::MAX))?,
        SeccompAction::Allow => RET_ALLOW,
        SeccompAction::Log => RET_LOG,
        SeccompAction::Notify => RET_NOTIFY,
    })
}

/// The machine's own architecture and those others that its kernel can run.
fn arches(profile: &LinuxSeccomp, native: Arch) -> Vec<Arch> {
    let mut arches = vec![native];
    for arch in &profile.architectures {
        let arch = match (arch, native) {
            (SeccompArch::X86_64, Arch::X86_64) => Arch::X86_64,
            (SeccompArch::X86, Arch::X86_64 | Arch::X86) => Arch::X86,
            (SeccompArch::X32, Arch::X86_64) => Arch::X32,
            (SeccompArch::Arm, Arch::Aarch64 | Arch::Arm) => Arch::Arm,
            _ => continue,
        };
        if !arches.contains(&arch) {
            arches.push(arch);
        }
    }
    arches
}

/// Under a default that refuses, calls that are newer than all that the profile names get
/// `ENOSYS`: programs then fall back to older calls, as on an older kernel. runc does so too.
fn newer(profile: &LinuxSeccomp) -> Option<Return> {
    match profile.default_action {
        SeccompAction::Allow | SeccompAction::Log | SeccompAction::Notify => None,
        _ => Some(RET_ERRNO | libc::ENOSYS.unsigned_abs()),
    }
}

fn flags(profile: &LinuxSeccomp, notifies: bool) -> u32 {
    let mut flags = if notifies { program::FLAG_NEW_LISTENER } else { 0 };
    if profile.flags.is_empty() {
        flags |= program::FLAG_SPEC_ALLOW;
    }
    for flag in &profile.flags {
        flags |= match flag {
            SeccompFlag::Tsync => program::FLAG_TSYNC,
            SeccompFlag::Log => program::FLAG_LOG,
            SeccompFlag::SpecAllow => program::FLAG_SPEC_ALLOW,
            SeccompFlag::WaitKillableRecv => program::FLAG_WAIT_KILLABLE_RECV,
        };
    }
    flags
}

/// The conditions of a rule. If two are on one argument then every one is an alternative of its
/// own; else all must hold. (runc and crun have it so, and profiles rely on it.)
fn alternatives(rule: &LinuxSyscall) -> Result<Vec<Vec<Condition>>, Error> {
    let mut seen = [false; 6];
    let mut repeated = false;
    let mut conditions = Vec::with_capacity(rule.args.len());
    for arg in &rule.args {
        let slot = usize::try_from(arg.index).ok().and_then(|index| seen.get_mut(index));
        let Some(slot) = slot else {
            let call = rule.names.first().cloned().unwrap_or_default();
            return Err(Error::ArgumentIndex { call, index: arg.index });
        };
        repeated |= std::mem::replace(slot, true);
        conditions.push(condition(arg));
    }
    Ok(if repeated {
        conditions.into_iter().map(|condition| vec![condition]).collect()
    } else if conditions.is_empty() {
        Vec::new()
    } else {
        vec![conditions]
    })
}

fn condition(arg: &LinuxSeccompArg) -> Condition {
    let (value, mask) = match arg.op {
        SeccompOperator::MaskedEqual => (arg.value_two & arg.value, arg.value),
        _ => (arg.value, u64::MAX),
    };
    Condition { index: arg.index, compare: arg.op, value, mask }
}

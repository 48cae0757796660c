//! Docker's form of a profile: rules that are part of it only under conditions, and its JSON.

use std::path::PathBuf;

use serde::Deserialize;
use silo_oci::runtime::{
    LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, SeccompAction, SeccompArch, SeccompFlag,
};

use crate::arch::Arch;
use crate::default::{Effect, RULES, When};
use crate::error::Error;

/// The machine that a profile is resolved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// The machine's own architecture.
    pub arch: Arch,
    /// The first two numbers of the kernel's release.
    pub kernel: (u64, u64),
}

impl Host {
    /// This machine, whose kernel has the given release (`uname -r`). A release that does not
    /// start with two numbers counts as 0.0, so that no rule for newer kernels is used.
    ///
    /// # Errors
    ///
    /// If the architecture is one that Silo does not filter.
    pub fn new(release: &str) -> Result<Self, Error> {
        let arch = Arch::native().ok_or(Error::NoNativeArchitecture)?;
        Ok(Self { arch, kernel: kernel_version(release).unwrap_or((0, 0)) })
    }
}

/// The default profile for a container with these capabilities in its bounding set (`CAP_...`).
pub fn default_profile<S: AsRef<str>>(bounding: &[S], host: &Host) -> LinuxSeccomp {
    let has = |wanted: &str| bounding.iter().any(|cap| cap.as_ref() == wanted);
    let mut syscalls = Vec::with_capacity(RULES.len() + 16);
    for rule in RULES {
        let included = match rule.when {
            When::Always => true,
            When::Has(cap) => has(cap),
            When::Lacks(cap) => !has(cap),
            When::On(arches) => arches.contains(&host.arch.docker_name()),
            When::Kernel(major, minor) => host.kernel >= (major, minor),
        };
        if !included {
            continue;
        }
        let (action, errno_ret) = match rule.effect {
            Effect::Allow => (SeccompAction::Allow, None),
            Effect::Missing => (SeccompAction::Errno, Some(libc::ENOSYS.unsigned_abs())),
        };
        let names: Vec<String> = rule.names.split_whitespace().map(str::to_owned).collect();
        if rule.args.is_empty() {
            syscalls.push(LinuxSyscall { names, action, errno_ret, args: Vec::new() });
            continue;
        }
        for &(index, op, value, value_two) in rule.args {
            let args = vec![LinuxSeccompArg { index, value, op, value_two }];
            syscalls.push(LinuxSyscall { names: names.clone(), action, errno_ret, args });
        }
    }
    LinuxSeccomp {
        default_action: SeccompAction::Errno,
        default_errno_ret: Some(libc::EPERM.unsigned_abs()),
        architectures: match host.arch {
            Arch::X86_64 | Arch::X32 => {
                vec![SeccompArch::X86_64, SeccompArch::X86, SeccompArch::X32]
            }
            Arch::Aarch64 => vec![SeccompArch::Aarch64, SeccompArch::Arm],
            Arch::X86 | Arch::Arm => Vec::new(),
        },
        syscalls,
        ..LinuxSeccomp::default()
    }
}

/// Reads a Docker profile (`--security-opt seccomp=profile.json`) and resolves its conditions.
/// `None` is a profile that says nothing, which means no filter.
///
/// # Errors
///
/// If the bytes are not such a profile; the messages are Docker's.
pub fn docker_profile_json<S: AsRef<str>>(
    json: &[u8],
    bounding: &[S],
    host: &Host,
) -> Result<Option<LinuxSeccomp>, Error> {
    let file: File = serde_json::from_slice(json).map_err(Error::Decode)?;
    let rules = file.syscalls.unwrap_or_default();
    let default_action = match file.default_action {
        Some(action) => action,
        None if rules.is_empty() => return Ok(None),
        None => return Err(Error::NoDefaultAction),
    };
    let mut architectures = file.architectures.unwrap_or_default();
    let arch_map = file.arch_map.unwrap_or_default();
    if !architectures.is_empty() && !arch_map.is_empty() {
        return Err(Error::ArchitecturesTwice);
    }
    if let Some(entry) =
        arch_map.into_iter().find(|entry| own(entry.architecture) == Some(host.arch))
    {
        architectures.push(entry.architecture);
        architectures.extend(entry.sub_architectures.unwrap_or_default());
    }
    let mut syscalls = Vec::with_capacity(rules.len());
    for rule in rules {
        let mut names = rule.names.unwrap_or_default();
        if let Some(name) = rule.name.filter(|name| !name.is_empty()) {
            if !names.is_empty() {
                return Err(Error::NamesTwice);
            }
            names.push(name);
        }
        let excluded = match &rule.excludes {
            Some(filter) => filter.any(bounding, host)?,
            None => false,
        };
        let included = match &rule.includes {
            Some(filter) => filter.all(bounding, host)?,
            None => true,
        };
        if included && !excluded {
            let args = rule.args.unwrap_or_default();
            syscalls.push(LinuxSyscall {
                names,
                action: rule.action,
                errno_ret: rule.errno_ret,
                args,
            });
        }
    }
    Ok(Some(LinuxSeccomp {
        default_action,
        default_errno_ret: file.default_errno_ret,
        architectures,
        flags: file.flags.unwrap_or_default(),
        listener_path: file.listener_path,
        listener_metadata: file.listener_metadata.unwrap_or_default(),
        syscalls,
    }))
}

/// The architecture that an entry of `archMap` is for, if it can be a machine's own here.
fn own(arch: SeccompArch) -> Option<Arch> {
    match arch {
        SeccompArch::X86_64 => Some(Arch::X86_64),
        SeccompArch::X86 => Some(Arch::X86),
        SeccompArch::Aarch64 => Some(Arch::Aarch64),
        SeccompArch::Arm => Some(Arch::Arm),
        _ => None,
    }
}

/// The first two numbers of a kernel's release.
fn kernel_version(release: &str) -> Option<(u64, u64)> {
    let (major, rest) = release.split_once('.')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, rest[..digits].parse().ok()?))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: Option<SeccompAction>,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<SeccompArch>>,
    arch_map: Option<Vec<ArchEntry>>,
    flags: Option<Vec<SeccompFlag>>,
    listener_path: Option<PathBuf>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<FileRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchEntry {
    architecture: SeccompArch,
    sub_architectures: Option<Vec<SeccompArch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileRule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: SeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl Filter {
    /// Whether every part that is given holds; capabilities must all be there.
    fn all<S: AsRef<str>>(&self, bounding: &[S], host: &Host) -> Result<bool, Error> {
        let newer = self.newer(host)?;
        let caps = self.caps.as_deref().unwrap_or_default();
        Ok(self.arch(host) != Some(false)
            && caps.iter().all(|wanted| bounding.iter().any(|cap| cap.as_ref() == wanted))
            && newer != Some(false))
    }

    /// Whether one of the parts that are given holds; one capability is enough.
    fn any<S: AsRef<str>>(&self, bounding: &[S], host: &Host) -> Result<bool, Error> {
        let newer = self.newer(host)?;
        let caps = self.caps.as_deref().unwrap_or_default();
        Ok(self.arch(host) == Some(true)
            || caps.iter().any(|wanted| bounding.iter().any(|cap| cap.as_ref() == wanted))
            || newer == Some(true))
    }

    fn arch(&self, host: &Host) -> Option<bool> {
        let arches = self.arches.as_deref().filter(|arches| !arches.is_empty())?;
        Some(arches.iter().any(|arch| arch == host.arch.docker_name()))
    }

    fn newer(&self, host: &Host) -> Result<Option<bool>, Error> {
        let Some(text) = self.min_kernel.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let version = text
            .split_once('.')
            .and_then(|(major, minor)| {
                Some((u64::from(major.parse::<u8>().ok()?), u64::from(minor.parse::<u8>().ok()?)))
            })
            .filter(|&version| version != (0, 0))
            .ok_or_else(|| Error::KernelVersion(text.to_owned()))?;
        Ok(Some(host.kernel >= version))
    }
}

//! Memory and swap. Version 1 limits their sum, version 2 swap alone; the runtime specification
//! has the sum.

use silo_oci::runtime::LinuxMemory;

use super::{Setting, invalid};
use crate::controller::Controller::Memory;
use crate::error::Error;
use crate::files;
use crate::group::Cgroup;
use crate::hierarchy::Version;

/// Limits that agree with each other. `None` leaves a limit as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limits {
    limit: Option<Bytes>,
    /// Memory and swap together.
    total: Option<Bytes>,
    reservation: Option<Bytes>,
    tcp: Option<Bytes>,
    swappiness: Option<u64>,
    disable_oom_killer: bool,
    check: bool,
}

/// An amount, or none set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bytes {
    Exactly(u64),
    Unlimited,
}

impl Bytes {
    fn v1(self) -> String {
        match self {
            Self::Exactly(bytes) => bytes.to_string(),
            Self::Unlimited => "-1".to_owned(),
        }
    }

    fn v2(self) -> String {
        match self {
            Self::Exactly(bytes) => bytes.to_string(),
            Self::Unlimited => "max".to_owned(),
        }
    }
}

impl Limits {
    pub(super) fn new(memory: &LinuxMemory) -> Result<Self, Error> {
        let bytes = |what, value: Option<i64>| match value {
            None | Some(0) => Ok(None),
            Some(-1) => Ok(Some(Bytes::Unlimited)),
            Some(value) => match u64::try_from(value) {
                Ok(value) => Ok(Some(Bytes::Exactly(value))),
                Err(_) => Err(invalid(what, value, "it is negative")),
            },
        };
        let limit = bytes("memory limit", memory.limit)?;
        let total = bytes("memory and swap limit", memory.swap)?;
        if let (Some(limit @ Bytes::Exactly(_)), Some(Bytes::Exactly(total))) = (limit, total)
            && Bytes::Exactly(total) < limit
        {
            return Err(invalid(
                "memory and swap limit",
                total,
                format!("it is less than the memory limit {}", limit.v1()),
            ));
        }
        let swappiness = memory.swappiness.filter(|&value| value != u64::MAX);
        if let Some(value) = swappiness.filter(|&value| value > 100) {
            return Err(invalid("swappiness", value, "it should be between 0 and 100"));
        }
        Ok(Self {
            limit,
            total,
            reservation: bytes("memory reservation", memory.reservation)?,
            tcp: bytes("kernel TCP memory limit", memory.kernel_tcp)?,
            swappiness,
            disable_oom_killer: memory.disable_oom_killer == Some(true),
            check: memory.check_before_update == Some(true),
        })
    }

    fn is_empty(&self) -> bool {
        *self
            == Self {
                limit: None,
                total: None,
                reservation: None,
                tcp: None,
                swappiness: None,
                disable_oom_killer: false,
                check: self.check,
            }
    }
}

impl Cgroup {
    pub(super) fn apply_memory(&self, limits: &Limits) -> Result<(), Error> {
        if limits.is_empty() {
            return Ok(());
        }
        let (at, _) = self.ensure(Memory, "memory limit")?;
        match self.version(at) {
            Version::V1 => self.memory_v1(limits),
            Version::V2 => self.memory_v2(limits),
        }
    }

    fn memory_v1(&self, limits: &Limits) -> Result<(), Error> {
        let (at, directory) = self.ensure(Memory, "memory limit")?;
        let limit = limits
            .limit
            .map(|bytes| Setting::new(Memory, "memory limit", "memory.limit_in_bytes", bytes.v1()));
        let total_file = "memory.memsw.limit_in_bytes";
        let total =
            |bytes: Bytes| Setting::new(Memory, "memory and swap limit", total_file, bytes.v1());
        let settings = match (limit, limits.total) {
            // The kernel keeps the sum at least as large as the limit all the time, so that a
            // growing sum comes first and a shrinking one last.
            (Some(limit), Some(bytes)) => {
                let present = files::read_number(directory, total_file)
                    .map_err(|source| self.read_error(at, total_file, source))?;
                if bytes > Bytes::Exactly(present) {
                    vec![total(bytes), limit]
                } else {
                    vec![limit, total(bytes)]
                }
            }
            // No limit on memory alone would still be one by the sum.
            (Some(limit), None) if limits.limit == Some(Bytes::Unlimited) => {
                vec![total(Bytes::Unlimited).optional(), limit]
            }
            (Some(limit), None) => vec![limit],
            (None, Some(bytes)) => vec![total(bytes)],
            (None, None) => Vec::new(),
        };
        let rest = [
            limits.reservation.map(|bytes| {
                let file = "memory.soft_limit_in_bytes";
                Setting::new(Memory, "memory reservation", file, bytes.v1())
            }),
            limits.tcp.map(|bytes| {
                let file = "memory.kmem.tcp.limit_in_bytes";
                Setting::new(Memory, "kernel TCP memory limit", file, bytes.v1())
            }),
            limits
                .swappiness
                .map(|value| Setting::new(Memory, "swappiness", "memory.swappiness", value)),
            limits
                .disable_oom_killer
                .then(|| Setting::new(Memory, "OOM killer setting", "memory.oom_control", 1)),
        ];
        settings
            .iter()
            .chain(rest.iter().flatten())
            .try_for_each(|setting| self.write_setting(setting))
    }

    fn memory_v2(&self, limits: &Limits) -> Result<(), Error> {
        if limits.disable_oom_killer {
            let reason = "cgroup version 2 cannot disable the OOM killer";
            return Err(invalid("OOM killer setting", "disabled", reason));
        }
        let (at, directory) = self.ensure(Memory, "memory limit")?;
        let number = |name| {
            files::read_number(directory, name).map_err(|source| self.read_error(at, name, source))
        };
        if let (Some(Bytes::Exactly(limit)), true) = (limits.limit, limits.check) {
            let used = number("memory.current")?;
            if used > limit {
                let reason = format!("{used} bytes are in use");
                return Err(invalid("memory limit", limit, reason));
            }
        }
        let swap = match (limits.total, limits.limit) {
            (None, Some(Bytes::Unlimited)) => Some(Bytes::Unlimited),
            (None, _) => None,
            (Some(Bytes::Unlimited), _) => Some(Bytes::Unlimited),
            (Some(Bytes::Exactly(total)), limit) => {
                let limit = match limit {
                    Some(Bytes::Exactly(limit)) => Some(limit),
                    Some(Bytes::Unlimited) => None,
                    None => Some(number("memory.max")?).filter(|&limit| limit != u64::MAX),
                };
                match limit.map(|limit| total.checked_sub(limit)) {
                    Some(Some(swap)) => Some(Bytes::Exactly(swap)),
                    Some(None) => {
                        let reason = "it is less than the memory limit";
                        return Err(invalid("memory and swap limit", total, reason));
                    }
                    None => {
                        let reason = "it needs a memory limit";
                        return Err(invalid("memory and swap limit", total, reason));
                    }
                }
            }
        };
        let settings = [
            swap.map(|bytes| {
                let setting = Setting::new(Memory, "swap limit", "memory.swap.max", bytes.v2());
                // Without swap there is nothing to limit.
                match bytes {
                    Bytes::Unlimited | Bytes::Exactly(0) => setting.optional(),
                    Bytes::Exactly(_) => setting,
                }
            }),
            limits
                .limit
                .map(|bytes| Setting::new(Memory, "memory limit", "memory.max", bytes.v2())),
            limits
                .reservation
                .map(|bytes| Setting::new(Memory, "memory reservation", "memory.low", bytes.v2())),
        ];
        settings.iter().flatten().try_for_each(|setting| self.write_setting(setting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_agree() {
        let memory = |limit, swap| LinuxMemory {
            limit: Some(limit),
            swap: Some(swap),
            ..LinuxMemory::default()
        };
        for (limit, swap, good) in [
            (100, 100, true),
            (100, 99, false),
            (100, -1, true),
            (-1, 99, true),
            (0, 0, true),
            (-2, 0, false),
            (0, i64::MIN, false),
        ] {
            assert_eq!(Limits::new(&memory(limit, swap)).is_ok(), good, "{limit} {swap}");
        }
        let swappy = |value| LinuxMemory { swappiness: Some(value), ..LinuxMemory::default() };
        assert!(Limits::new(&swappy(100)).is_ok());
        assert!(Limits::new(&swappy(101)).is_err());
    }
}

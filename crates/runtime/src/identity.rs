//! Who a process is and what it may do: limits, scheduling, groups, user, capabilities.
//!
//! [`Identity`] is resolved from the configuration before anything is made, so that a wrong name
//! or number makes nothing fail half-way.

use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use silo_oci::capability::ALL as CAPABILITIES;
use silo_oci::runtime::{IoPriorityClass, LinuxCapabilities, PosixRlimit, Process, Scheduler};
use silo_sys::process::{self, Scheduling};

use crate::error::{Context as _, Error};

/// The resource limits in the order of their numbers on every machine but MIPS and SPARC.
const LIMITS: &[&str] = &[
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// The five sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capabilities {
    bounding: CapabilitySet,
    effective: CapabilitySet,
    inheritable: CapabilitySet,
    permitted: CapabilitySet,
    ambient: CapabilitySet,
}

/// Everything about a process but its program and streams.
#[derive(Debug)]
pub(crate) struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    pub(crate) umask: Option<u32>,
    limits: Vec<(u32, u64, u64)>,
    capabilities: Option<Capabilities>,
    pub(crate) no_new_privileges: bool,
    scheduling: Option<Scheduling>,
    io_priority: Option<(u8, u8)>,
}

fn set(names: &[String]) -> Result<CapabilitySet, Error> {
    let mut set = CapabilitySet::empty();
    for name in names {
        let number = CAPABILITIES.iter().position(|known| known == name).ok_or_else(|| {
            Error::invalid(format!("process.capabilities: no variant for {name}"))
        })?;
        set |= CapabilitySet::from_bits_retain(1 << number);
    }
    Ok(set)
}

impl Capabilities {
    fn new(sets: &LinuxCapabilities) -> Result<Self, Error> {
        Ok(Self {
            bounding: set(&sets.bounding)?,
            effective: set(&sets.effective)?,
            inheritable: set(&sets.inheritable)?,
            permitted: set(&sets.permitted)?,
            ambient: set(&sets.ambient)?,
        })
    }
}

/// The number of a resource limit and its values.
fn limit(limit: &PosixRlimit) -> Result<(u32, u64, u64), Error> {
    let number = LIMITS
        .iter()
        .position(|name| *name == limit.kind)
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| Error::invalid(format!("process.rlimits: no limit {:?}", limit.kind)))?;
    if limit.soft > limit.hard {
        return Err(Error::invalid(format!(
            "process.rlimits: the soft limit of {} is above the hard one",
            limit.kind
        )));
    }
    Ok((number, limit.soft, limit.hard))
}

fn scheduling(scheduler: &Scheduler) -> Result<Scheduling, Error> {
    let policy = match scheduler.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => return Err(Error::invalid(format!("process.scheduler: no policy {other:?}"))),
    };
    let mut flags = 0;
    for flag in &scheduler.flags {
        flags |= match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            other => return Err(Error::invalid(format!("process.scheduler: no flag {other:?}"))),
        };
    }
    if !(-20..=19).contains(&scheduler.nice) {
        return Err(Error::invalid("process.scheduler: nice is not within -20 and 19"));
    }
    if scheduler.priority != 0 && !matches!(policy, 1 | 2) {
        return Err(Error::invalid("process.scheduler: priority needs a real-time policy"));
    }
    if (scheduler.runtime, scheduler.deadline, scheduler.period) != (0, 0, 0) && policy != 6 {
        return Err(Error::invalid(
            "process.scheduler: runtime, deadline and period need SCHED_DEADLINE",
        ));
    }
    Ok(Scheduling {
        policy,
        flags,
        nice: scheduler.nice,
        priority: u32::try_from(scheduler.priority)
            .map_err(|_| Error::invalid("process.scheduler: negative priority"))?,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    })
}

impl Identity {
    pub(crate) fn new(process: &Process) -> Result<Self, Error> {
        let id = |id: u32, what: &str| {
            // The last number means "leave as it is" to the kernel.
            if id == u32::MAX {
                Err(Error::invalid(format!("process.user: impossible {what}")))
            } else {
                Ok(id)
            }
        };
        let user = &process.user;
        let groups = user
            .additional_gids
            .iter()
            .map(|&gid| id(gid, "additional gid").map(Gid::from_raw))
            .collect::<Result<Vec<_>, _>>()?;
        let mut limits: Vec<(u32, u64, u64)> = Vec::new();
        for rlimit in &process.rlimits {
            let found = limit(rlimit)?;
            if limits.iter().any(|other| other.0 == found.0) {
                return Err(Error::invalid(format!("process.rlimits: {} twice", rlimit.kind)));
            }
            limits.push(found);
        }
        let io_priority = match &process.io_priority {
            None => None,
            Some(priority) => Some((
                match priority.class {
                    IoPriorityClass::RealTime => 1,
                    IoPriorityClass::BestEffort => 2,
                    IoPriorityClass::Idle => 3,
                },
                u8::try_from(priority.priority)
                    .ok()
                    .filter(|level| *level < 8)
                    .ok_or_else(|| Error::invalid("process.ioPriority: not within 0 and 7"))?,
            )),
        };
        Ok(Self {
            uid: Uid::from_raw(id(user.uid, "uid")?),
            gid: Gid::from_raw(id(user.gid, "gid")?),
            groups,
            umask: user.umask,
            limits,
            capabilities: process.capabilities.as_ref().map(Capabilities::new).transpose()?,
            no_new_privileges: process.no_new_privileges,
            scheduling: process.scheduler.as_ref().map(scheduling).transpose()?,
            io_priority,
        })
    }

    pub(crate) fn uid(&self) -> Uid {
        self.uid
    }

    /// Limits, scheduling and priorities: what needs privileges over the host.
    pub(crate) fn limit(&self) -> Result<(), Error> {
        for &(number, soft, hard) in &self.limits {
            process::set_resource_limit(number, soft, hard).step(|| {
                let name = usize::try_from(number).map_or("", |number| LIMITS[number]);
                format!("error setting rlimit {name}")
            })?;
        }
        if let Some(scheduling) = self.scheduling {
            process::set_scheduling(scheduling).step(|| "set scheduler".into())?;
        }
        if let Some((class, level)) = self.io_priority {
            process::set_io_priority(class, level).step(|| "set io priority".into())?;
        }
        Ok(())
    }

    /// Narrows the bounding set, which needs `CAP_SETPCAP`.
    pub(crate) fn bound(&self) -> Result<(), Error> {
        let Some(capabilities) = self.capabilities else { return Ok(()) };
        for number in 0..64 {
            let one = CapabilitySet::from_bits_retain(1 << number);
            if capabilities.bounding.contains(one) {
                continue;
            }
            match rustix::thread::remove_capability_from_bounding_set(one) {
                Ok(()) => {}
                // Past the last capability of this kernel.
                Err(rustix::io::Errno::INVAL) => break,
                Err(error) => return Err(Error::step("apply bounding set", error)),
            }
        }
        Ok(())
    }

    /// Becomes the user, with exactly the groups and capabilities of the configuration.
    pub(crate) fn assume(&self) -> Result<(), Error> {
        let step = || "apply capabilities".to_owned();
        rustix::thread::set_keep_capabilities(true).step(step)?;
        match rustix::thread::set_thread_groups(&self.groups) {
            // Without privilege over groups a user namespace denies even an empty list; there
            // the process has the groups that its maker had, which map to nobody.
            Err(rustix::io::Errno::PERM) if self.groups.is_empty() && groups_denied() => {}
            result => result.step(|| "setgroups".into())?,
        }
        rustix::thread::set_thread_res_gid(self.gid, self.gid, self.gid)
            .step(|| format!("setgid {}", self.gid.as_raw()))?;
        rustix::thread::set_thread_res_uid(self.uid, self.uid, self.uid)
            .step(|| format!("setuid {}", self.uid.as_raw()))?;
        rustix::thread::set_keep_capabilities(false).step(step)?;
        if let Some(capabilities) = self.capabilities {
            // What the kernel does not have yet cannot be given.
            let own = rustix::thread::capabilities(None).step(step)?;
            let sets = CapabilitySets {
                effective: capabilities.effective & own.permitted,
                permitted: capabilities.permitted & own.permitted,
                inheritable: capabilities.inheritable & own.permitted,
            };
            rustix::thread::set_capabilities(None, sets).step(step)?;
            match rustix::thread::clear_ambient_capability_set() {
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(Error::step(step(), error)),
            }
            let ambient = capabilities.ambient & sets.permitted & sets.inheritable;
            for number in 0..64 {
                let one = CapabilitySet::from_bits_retain(1 << number);
                if ambient.contains(one) {
                    rustix::thread::configure_capability_in_ambient_set(one, true).step(step)?;
                }
            }
        }
        Ok(())
    }
}

fn groups_denied() -> bool {
    fs_err::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
        || !rustix::process::getgroups().is_ok_and(|groups| groups.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(json: &str) -> Process {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn wrong_values_are_told_before_anything_is_made() {
        let cases = [
            (r#"{"capabilities":{"bounding":["TEST_CAP"]}}"#, "no variant for TEST_CAP"),
            (r#"{"rlimits":[{"type":"RLIMIT_X","soft":1,"hard":1}]}"#, "no limit"),
            (r#"{"rlimits":[{"type":"RLIMIT_CPU","soft":2,"hard":1}]}"#, "above the hard"),
            (r#"{"user":{"uid":4294967295,"gid":0}}"#, "impossible uid"),
            (r#"{"user":{"uid":0,"gid":0,"additionalGids":[4294967295]}}"#, "additional gid"),
            (r#"{"scheduler":{"policy":"SCHED_X"}}"#, "no policy"),
            (r#"{"scheduler":{"policy":"SCHED_OTHER","nice":20}}"#, "nice"),
            (r#"{"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}}"#, "ioPriority"),
        ];
        for (json, expected) in cases {
            let error = Identity::new(&process(json)).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn sets_are_bits() {
        let identity = Identity::new(&process(
            r#"{"capabilities":{"bounding":["CAP_CHOWN","CAP_KILL"],"permitted":["CAP_KILL"]}}"#,
        ))
        .unwrap();
        let capabilities = identity.capabilities.unwrap();
        assert_eq!(capabilities.bounding, CapabilitySet::CHOWN | CapabilitySet::KILL);
        assert_eq!(capabilities.permitted, CapabilitySet::KILL);
        assert_eq!(capabilities.inheritable, CapabilitySet::empty());
        assert_eq!(CAPABILITIES.len(), 41);
    }
}

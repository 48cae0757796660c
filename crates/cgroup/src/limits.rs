//! From the limits of the OCI runtime specification to values of files.
//!
//! [`plan`] is pure: it understands and checks the limits first, so that nothing is written if
//! one makes no sense. Memory, whose order of writing depends on the present values, and
//! devices, which have rules, are in modules of their own.

mod block;
mod cpu;
mod memory;

use silo_oci::runtime::LinuxResources;

use crate::controller::Controller;
use crate::error::Error;
use crate::files;
use crate::group::Cgroup;
use crate::hierarchy::Version;

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) controller: Controller,
    /// What the limit is called, for messages.
    pub(crate) what: &'static str,
    pub(crate) file: String,
    pub(crate) value: String,
    /// What if there is no such file.
    pub(crate) absent: Absent,
    /// The kernel may refuse the value until the later ones are set: then it is tried again.
    pub(crate) again: bool,
}

/// What to do about a file that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It is an error.
    Fail,
    /// Nothing.
    Ignore,
    /// Write another file.
    Other { file: String, value: String },
}

impl Setting {
    pub(crate) fn new(
        controller: Controller,
        what: &'static str,
        file: impl Into<String>,
        value: impl ToString,
    ) -> Self {
        Self {
            controller,
            what,
            file: file.into(),
            value: value.to_string(),
            absent: Absent::Fail,
            again: false,
        }
    }

    pub(crate) fn or(mut self, file: impl Into<String>, value: impl ToString) -> Self {
        self.absent = Absent::Other { file: file.into(), value: value.to_string() };
        self
    }

    pub(crate) fn optional(mut self) -> Self {
        self.absent = Absent::Ignore;
        self
    }

    pub(crate) fn again(mut self) -> Self {
        self.again = true;
        self
    }
}

pub(crate) fn invalid(
    setting: &'static str,
    value: impl ToString,
    reason: impl Into<String>,
) -> Error {
    Error::Invalid { setting, value: value.to_string(), reason: reason.into() }
}

/// The settings for all limits but memory, devices and unified ones. `version` tells what the
/// hierarchy of a controller is; for one that is missing the answer does not matter.
pub(crate) fn plan(
    resources: &LinuxResources,
    version: impl Fn(Controller) -> Version,
) -> Result<Vec<Setting>, Error> {
    let mut plan = Vec::new();
    if let Some(limits) = &resources.cpu {
        match version(Controller::Cpu) {
            Version::V1 => cpu::v1(limits, &mut plan)?,
            Version::V2 => cpu::v2(limits, &mut plan)?,
        }
        for (what, file, list) in [
            ("processor set", "cpuset.cpus", &limits.cpus),
            ("memory node set", "cpuset.mems", &limits.mems),
        ] {
            if !list.is_empty() {
                plan.push(Setting::new(Controller::Cpuset, what, file, list));
            }
        }
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        let value = if limit > 0 { limit.to_string() } else { "max".to_owned() };
        plan.push(Setting::new(Controller::Pids, "pids limit", "pids.max", value));
    }
    if let Some(limits) = &resources.block_io {
        match version(Controller::Blkio) {
            Version::V1 => block::v1(limits, &mut plan)?,
            Version::V2 => block::v2(limits, &mut plan)?,
        }
    }
    for limit in &resources.hugepage_limits {
        let size = &limit.page_size;
        let digits = ["KB", "MB", "GB"].into_iter().find_map(|unit| size.strip_suffix(unit));
        if !digits.is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        }) {
            return Err(invalid("huge page size", size, "it is not of the form 2MB"));
        }
        let (main, reserved) = match version(Controller::Hugetlb) {
            Version::V1 => ("limit_in_bytes", "rsvd.limit_in_bytes"),
            Version::V2 => ("max", "rsvd.max"),
        };
        let setting = |file: &str| {
            let file = format!("hugetlb.{size}.{file}");
            Setting::new(Controller::Hugetlb, "huge page limit", file, limit.limit)
        };
        plan.push(setting(main));
        plan.push(setting(reserved).optional());
    }
    if let Some(network) = &resources.network {
        if let Some(class) = network.class_id.filter(|&class| class != 0) {
            plan.push(Setting::new(Controller::NetCls, "network class", "net_cls.classid", class));
        }
        for priority in &network.priorities {
            let value = format!("{} {}", priority.name, priority.priority);
            plan.push(Setting::new(
                Controller::NetPrio,
                "network priority",
                "net_prio.ifpriomap",
                value,
            ));
        }
    }
    for (device, limit) in &resources.rdma {
        let part = |name, value: Option<u32>| {
            value.map_or(format!("{name}=max"), |value| format!("{name}={value}"))
        };
        let handles = part("hca_handle", limit.hca_handles);
        let objects = part("hca_object", limit.hca_objects);
        let value = format!("{device} {handles} {objects}");
        plan.push(Setting::new(Controller::Rdma, "rdma limit", "rdma.max", value));
    }
    Ok(plan)
}

/// Files that are no limits: what they do is the engine's to do.
const NOT_LIMITS: [&str; 6] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.kill",
    "cgroup.freeze",
    "cgroup.type",
    "cgroup.subtree_control",
];

impl Cgroup {
    /// Sets limits. What is absent from `resources`, or 0 where 0 cannot be meant, stays as it
    /// is. The group is made in further hierarchies if they are needed, and its processes are
    /// moved there.
    ///
    /// Limits on the kernel's memory are passed over, as the kernel does.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for limits that make no sense, before anything is changed;
    /// [`Error::NoController`] for one that the machine does not have, or not for us;
    /// [`Error::Write`] for a value that the kernel refuses. Those before it stay set.
    pub fn apply(&self, resources: &LinuxResources) -> Result<(), Error> {
        let plan = plan(resources, |controller| {
            self.hierarchy_of(controller).map_or(Version::V1, |at| self.version(at))
        })?;
        let memory = resources.memory.as_ref().map(memory::Limits::new).transpose()?;
        for name in resources.unified.keys() {
            if name.is_empty() || name.contains('/') || NOT_LIMITS.contains(&name.as_str()) {
                return Err(invalid("unified setting", name, "it is not the name of a limit"));
            }
        }
        self.apply_devices(&resources.devices)?;
        if let Some(memory) = memory {
            self.apply_memory(&memory)?;
        }
        self.write_all(&plan)?;
        for (name, value) in &resources.unified {
            let Some(at) = self.unified() else {
                return Err(invalid("unified setting", name, "there is no cgroup version 2"));
            };
            let Some(directory) = self.ensure_at(at)? else { return Err(Error::NotWritable) };
            for line in value.lines() {
                self.write_in(at, directory, name, line)?;
            }
        }
        Ok(())
    }

    fn write_all(&self, plan: &[Setting]) -> Result<(), Error> {
        let mut again = Vec::new();
        for setting in plan {
            match self.write_setting(setting) {
                Err(Error::Write { source, .. })
                    if setting.again && source.raw_os_error() == Some(libc::EINVAL) =>
                {
                    again.push(setting);
                }
                result => result?,
            }
        }
        again.into_iter().try_for_each(|setting| self.write_setting(setting))
    }

    pub(crate) fn write_setting(&self, setting: &Setting) -> Result<(), Error> {
        let (at, directory) = self.ensure(setting.controller, setting.what)?;
        let Err(error) = files::write(directory, &setting.file, &setting.value) else {
            return Ok(());
        };
        if error.raw_os_error() == Some(libc::ENOENT) {
            match &setting.absent {
                Absent::Ignore => return Ok(()),
                Absent::Other { file, value } => {
                    return self.write_in(at, directory, file, value);
                }
                Absent::Fail => {}
            }
        }
        Err(self.write_error(at, &setting.file, &setting.value, error))
    }
}

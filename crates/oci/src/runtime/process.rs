//! The program of a container, or one that is executed in it later.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::record;

record! {
    /// A program with everything that it is given at its start.
    Process {
        /// Who it runs as.
        user: User,
        /// Its working directory, an absolute path inside the root.
        cwd: PathBuf,
        ; optional:
        /// Whether it gets a terminal.
        terminal: bool,
        /// The size of the terminal.
        console_size: Option<ConsoleSize>,
        /// The arguments; the first is looked up in `PATH` of `env`.
        args: Vec<String>,
        /// The command line, used on Windows in place of `args`.
        command_line: String,
        /// The environment, each entry `NAME=value`.
        env: Vec<String>,
        /// The capability sets.
        capabilities: Option<LinuxCapabilities>,
        /// Resource limits.
        rlimits: Vec<PosixRlimit>,
        /// Whether the program can never gain privileges through execve.
        no_new_privileges: bool,
        /// The AppArmor profile.
        apparmor_profile: String,
        /// The value of `oom_score_adj`.
        oom_score_adj: Option<i32>,
        /// The scheduling policy and its parameters.
        scheduler: Option<Scheduler>,
        /// The SELinux label.
        selinux_label: String,
        /// The input and output priority.
        #[serde(rename = "ioPriority")]
        io_priority: Option<LinuxIoPriority>,
        /// Processors on which a program executed later is run.
        #[serde(rename = "execCPUAffinity")]
        exec_cpu_affinity: Option<CpuAffinity>,
    }
}

record! {
    /// A terminal's size in characters.
    ConsoleSize {
        /// Rows.
        height: u16,
        /// Columns.
        width: u16,
    }
}

record! {
    /// A user and groups, as numbers in the container.
    User {
        /// The user id.
        uid: u32,
        /// The group id.
        gid: u32,
        ; optional:
        /// The file mode creation mask.
        umask: Option<u32>,
        /// Exactly the supplementary groups that the program has.
        additional_gids: Vec<u32>,
        /// The user's name, used on Windows.
        username: String,
    }
}

record! {
    /// The capability sets by their names, such as `CAP_CHOWN`.
    LinuxCapabilities {
        ; optional:
        /// The bounding set.
        bounding: Vec<String>,
        /// The effective set.
        effective: Vec<String>,
        /// The inheritable set.
        inheritable: Vec<String>,
        /// The permitted set.
        permitted: Vec<String>,
        /// The ambient set.
        ambient: Vec<String>,
    }
}

record! {
    /// One resource limit.
    PosixRlimit {
        /// The limit's name, such as `RLIMIT_NOFILE`.
        #[serde(rename = "type")]
        kind: String,
        /// The ceiling.
        hard: u64,
        /// The value in force.
        soft: u64,
    }
}

record! {
    /// The scheduling attributes of `sched_setattr`.
    Scheduler {
        /// The policy, such as `SCHED_BATCH`.
        policy: String,
        ; optional:
        /// The nice value, for the ordinary policies.
        nice: i32,
        /// The static priority, for the real-time policies.
        priority: i32,
        /// Flags such as `SCHED_FLAG_RESET_ON_FORK`.
        flags: Vec<String>,
        /// Nanoseconds of run time, for the deadline policy.
        runtime: u64,
        /// Nanoseconds until the deadline.
        deadline: u64,
        /// Nanoseconds of the period.
        period: u64,
    }
}

/// A class of input and output priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum IoPriorityClass {
    /// First access to the disk.
    #[serde(rename = "IOPRIO_CLASS_RT")]
    RealTime,
    /// The class of ordinary processes.
    #[default]
    #[serde(rename = "IOPRIO_CLASS_BE")]
    BestEffort,
    /// Served when nobody else asks.
    #[serde(rename = "IOPRIO_CLASS_IDLE")]
    Idle,
}

record! {
    /// The arguments of `ioprio_set`.
    LinuxIoPriority {
        /// The class.
        class: IoPriorityClass,
        /// The level in the class, 0 (first) to 7.
        priority: i32,
    }
}

record! {
    /// Processors for a program that is executed in a running container, as lists like `0-3,7`.
    CpuAffinity {
        ; optional:
        /// Before the process is in the container's cgroup.
        initial: String,
        /// After it is.
        #[serde(rename = "final")]
        last: String,
    }
}

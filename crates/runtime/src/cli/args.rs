//! What can be given on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Run containers according to the OCI runtime specification.
#[derive(Debug, Parser)]
#[command(name = "silo runtime", version, disable_help_subcommand = true)]
pub(super) struct Arguments {
    /// Directory of the containers' state
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// File that errors are written to as well
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) log: Option<PathBuf>,
    /// Form of the log
    #[arg(long, value_enum, default_value_t, global = true)]
    pub(super) log_format: LogFormat,
    /// Log more
    #[arg(long, global = true)]
    pub(super) debug: bool,
    /// Accepted; the paths of cgroups are understood in both forms
    #[arg(long)]
    pub(super) systemd_cgroup: bool,
    /// Accepted; whether the caller is root is seen
    #[arg(long, value_name = "BOOL")]
    pub(super) rootless: Option<String>,
    /// Accepted; there is no checkpointing
    #[arg(long, value_name = "FILE")]
    pub(super) criu: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a container
    Create(Box<Create>),
    /// Make a container and run it
    Run(Box<Run>),
    /// Run the program of a container that was made
    Start(Id),
    /// Show the state of a container
    State(Id),
    /// Send a signal to a container
    Kill(Kill),
    /// Remove what is left of a container
    Delete(Delete),
    /// Run a further program in a container
    Exec(Box<Exec>),
    /// List the containers
    List(List),
    /// List the processes of a container
    Ps(Ps),
    /// Freeze the processes of a container
    Pause(Id),
    /// Let the processes of a container go on
    Resume(Id),
    /// Change the limits of a container
    Update(Box<Update>),
    /// Show what a container uses, and when memory is out
    Events(Events),
    /// Write a configuration to begin with
    Spec(SpecArguments),
    /// Show what this runtime can do
    Features,
}

#[derive(Debug, Args)]
pub(super) struct Id {
    /// Container
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Container
    pub(super) id: String,
    /// Directory of the configuration
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(super) bundle: PathBuf,
    /// Socket that gets the master of the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// File that gets the process id
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Move the root in place of pivoting to it
    #[arg(long)]
    pub(super) no_pivot: bool,
    /// Keep the session keyring
    #[arg(long)]
    pub(super) no_new_keyring: bool,
    /// Descriptors from 3 on that the program inherits
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) preserve_fds: u32,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) create: Create,
    /// Do not wait for the program's end
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Keep the state of the ended container
    #[arg(long)]
    pub(super) keep: bool,
    /// Accepted
    #[arg(long)]
    pub(super) no_subreaper: bool,
}

#[derive(Debug, Args)]
pub(super) struct Kill {
    /// Container
    pub(super) id: String,
    /// Signal, by name or number
    #[arg(default_value = "SIGTERM")]
    pub(super) signal: String,
    /// To all processes of the container
    #[arg(short, long)]
    pub(super) all: bool,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Container
    pub(super) id: String,
    /// End the container if it runs
    #[arg(short, long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Exec {
    /// Container
    pub(super) id: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) command: Vec<String>,
    /// File with the process's configuration
    #[arg(short, long, value_name = "FILE")]
    pub(super) process: Option<PathBuf>,
    /// Give it a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<PathBuf>,
    /// Variable of the environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(super) env: Vec<String>,
    /// User, as UID[:GID]
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(super) user: Option<String>,
    /// Additional group
    #[arg(short = 'g', long, value_name = "GID")]
    pub(super) additional_gids: Vec<u32>,
    /// Do not wait for the program's end
    #[arg(short, long)]
    pub(super) detach: bool,
    /// File that gets the process id
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Socket that gets the master of the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// Capability to add
    #[arg(short, long, value_name = "NAME")]
    pub(super) cap: Vec<String>,
    /// The program cannot gain privileges
    #[arg(long)]
    pub(super) no_new_privs: bool,
    /// Descriptors from 3 on that the program inherits
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) preserve_fds: u32,
    /// AppArmor profile
    #[arg(long, value_name = "NAME")]
    pub(super) apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub(super) process_label: Option<String>,
    /// Cgroup below the container's
    #[arg(long, value_name = "PATH")]
    pub(super) cgroup: Vec<String>,
    /// Run it even if the container is frozen
    #[arg(long)]
    pub(super) ignore_paused: bool,
}

/// The form of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ListFormat {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Form of the list
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) format: ListFormat,
    /// Ids only
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct Ps {
    /// Container
    pub(super) id: String,
    /// Form of the list
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) format: ListFormat,
    /// Options for ps
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) options: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Container
    pub(super) id: String,
    /// Time between two shows of what is used
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub(super) interval: String,
    /// Show once what is used
    #[arg(long)]
    pub(super) stats: bool,
}

#[derive(Debug, Args)]
pub(super) struct SpecArguments {
    /// Directory to write to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(super) bundle: PathBuf,
    /// For a caller that is not root
    #[arg(long)]
    pub(super) rootless: bool,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    /// Container
    pub(super) id: String,
    /// File with the limits as in the configuration; "-" is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(super) resources: Option<PathBuf>,
    /// Weight of block devices
    #[arg(long)]
    pub(super) blkio_weight: Option<u16>,
    /// Period of CPU time in microseconds
    #[arg(long)]
    pub(super) cpu_period: Option<u64>,
    /// CPU time in each period in microseconds
    #[arg(long, allow_negative_numbers = true)]
    pub(super) cpu_quota: Option<i64>,
    /// CPU time that may be saved up
    #[arg(long)]
    pub(super) cpu_burst: Option<u64>,
    /// Share of CPU time
    #[arg(long, alias = "cpu-shares")]
    pub(super) cpu_share: Option<u64>,
    /// Period of real-time scheduling
    #[arg(long)]
    pub(super) cpu_rt_period: Option<u64>,
    /// Time of real-time scheduling
    #[arg(long, allow_negative_numbers = true)]
    pub(super) cpu_rt_runtime: Option<i64>,
    /// CPUs
    #[arg(long)]
    pub(super) cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long)]
    pub(super) cpuset_mems: Option<String>,
    /// 1 for a container that runs when nobody else would
    #[arg(long)]
    pub(super) cpu_idle: Option<i64>,
    /// Memory in bytes
    #[arg(long, allow_negative_numbers = true)]
    pub(super) memory: Option<String>,
    /// Memory that is kept when it is short
    #[arg(long, allow_negative_numbers = true)]
    pub(super) memory_reservation: Option<String>,
    /// Memory and swap in bytes
    #[arg(long, allow_negative_numbers = true)]
    pub(super) memory_swap: Option<String>,
    /// Accepted; the kernel has no such limit any more
    #[arg(long, hide = true)]
    pub(super) kernel_memory: Option<String>,
    /// Accepted
    #[arg(long, hide = true)]
    pub(super) kernel_memory_tcp: Option<String>,
    /// Number of processes
    #[arg(long, allow_negative_numbers = true)]
    pub(super) pids_limit: Option<i64>,
    /// Schema of the level 3 cache
    #[arg(long)]
    pub(super) l3_cache_schema: Option<String>,
    /// Schema of the memory bandwidth
    #[arg(long)]
    pub(super) mem_bw_schema: Option<String>,
}

//! The flags of `run`, `create` and `update` that describe a container.

pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod values;

use crate::flags::{GoDuration, flags};
use mount::Mounts;
use network::Networks;
use values::{
    AttachList, Bytes, Cpus, DeviceRules, DnsSearch, EnvList, ExtraHosts, Gpus, IpAddress, IpList,
    Labels, Links, Map, SwapBytes, Sysctls, ThrottleBytes, ThrottleOps, Ulimits, WeightDevices,
};

flags! {
    /// Flags of `run`.
    RunFlags {
        detach: bool, ['d'] "detach", "Run container in background and print container ID";
        detach_keys: String, "detach-keys", "Override the key sequence for detaching a container";
        sig_proxy: Option<bool>, "sig-proxy", "Proxy received signals to the process (default true)";
        name: String, "name", "Assign a name to the container";
        pull: Option<String>, "pull", "Pull image before running (\"always\", \"missing\", \"never\") (default \"missing\")";
        quiet: bool, ['q'] "quiet", "Suppress the pull output";
        base: Option<String>, "base", "What to put beneath an image with Microsoft's base layers (\"silo\", \"exact\") (default \"silo\")";
        platform: Option<String>, "platform", "Set platform if server is multi-platform capable";
        disable_content_trust: Option<bool>, "disable-content-trust", "";
        add_host: ExtraHosts, "add-host", "Add a custom host-to-IP mapping (host:ip)";
        annotation: Map, "annotation", "Add an annotation to the container (passed through to the OCI runtime)";
        attach: AttachList, ['a'] "attach", "Attach to STDIN, STDOUT or STDERR";
        blkio_weight: u16, "blkio-weight", "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)";
        blkio_weight_device: WeightDevices, "blkio-weight-device", "Block IO weight (relative device weight) (default [])";
        cap_add: Vec<String>, "cap-add", "Add Linux capabilities";
        cap_drop: Vec<String>, "cap-drop", "Drop Linux capabilities";
        cgroup_parent: String, "cgroup-parent", "Optional parent cgroup for the container";
        cgroupns: String, "cgroupns", "Cgroup namespace to use (host|private)\n'host':    Run the container in the host's cgroup namespace\n'private': Run the container in its own private cgroup namespace\n'':        Use the daemon's default";
        cidfile: String, "cidfile", "Write the container ID to the file";
        cpu_count: i64, "cpu-count", "CPU count (Windows only)";
        cpu_percent: i64, "cpu-percent", "CPU percent (Windows only)";
        cpu_period: i64, "cpu-period", "Limit CPU CFS (Completely Fair Scheduler) period";
        cpu_quota: i64, "cpu-quota", "Limit CPU CFS (Completely Fair Scheduler) quota";
        cpu_rt_period: i64, "cpu-rt-period", "Limit CPU real-time period in microseconds";
        cpu_rt_runtime: i64, "cpu-rt-runtime", "Limit CPU real-time runtime in microseconds";
        cpu_shares: i64, ['c'] "cpu-shares", "CPU shares (relative weight)";
        cpus: Cpus, "cpus", "Number of CPUs";
        cpuset_cpus: String, "cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)";
        cpuset_mems: String, "cpuset-mems", "MEMs in which to allow execution (0-3, 0,1)";
        device: Vec<String>, "device", "Add a host device to the container";
        device_cgroup_rule: DeviceRules, "device-cgroup-rule", "Add a rule to the cgroup allowed devices list";
        device_read_bps: ThrottleBytes, "device-read-bps", "Limit read rate (bytes per second) from a device (default [])";
        device_read_iops: ThrottleOps, "device-read-iops", "Limit read rate (IO per second) from a device (default [])";
        device_write_bps: ThrottleBytes, "device-write-bps", "Limit write rate (bytes per second) to a device (default [])";
        device_write_iops: ThrottleOps, "device-write-iops", "Limit write rate (IO per second) to a device (default [])";
        dns: IpList, "dns", "Set custom DNS servers";
        dns_option: Vec<String>, "dns-option" ("dns-opt"), "Set DNS options";
        dns_search: DnsSearch, "dns-search", "Set custom DNS search domains";
        domainname: String, "domainname", "Container NIS domain name";
        entrypoint: Option<String>, "entrypoint", "Overwrite the default ENTRYPOINT of the image";
        env: EnvList, ['e'] "env", "Set environment variables";
        env_file: Vec<String>, "env-file", "Read in a file of environment variables";
        expose: Vec<String>, "expose", "Expose a port or a range of ports";
        gpus: Gpus, "gpus", "GPU devices to add to the container ('all' to pass all GPUs)";
        group_add: Vec<String>, "group-add", "Add additional groups to join";
        health_cmd: String, "health-cmd", "Command to run to check health";
        health_interval: GoDuration, "health-interval", "Time between running the check (ms|s|m|h) (default 0s)";
        health_retries: i64, "health-retries", "Consecutive failures needed to report unhealthy";
        health_start_interval: GoDuration, "health-start-interval", "Time between running the check during the start period (ms|s|m|h) (default 0s)";
        health_start_period: GoDuration, "health-start-period", "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)";
        health_timeout: GoDuration, "health-timeout", "Maximum time to allow one check to run (ms|s|m|h) (default 0s)";
        hostname: String, ['h'] "hostname", "Container host name";
        init: Option<bool>, "init", "Run an init inside the container that forwards signals and reaps processes";
        interactive: bool, ['i'] "interactive", "Keep STDIN open even if not attached";
        io_maxbandwidth: Bytes, "io-maxbandwidth", "Maximum IO bandwidth limit for the system drive (Windows only)";
        io_maxiops: u64, "io-maxiops", "Maximum IOps limit for the system drive (Windows only)";
        ip: IpAddress, "ip", "IPv4 address (e.g., 172.30.100.104)";
        ip6: IpAddress, "ip6", "IPv6 address (e.g., 2001:db8::33)";
        ipc: String, "ipc", "IPC mode to use";
        isolation: String, "isolation", "Container isolation technology";
        kernel_memory: Bytes, "kernel-memory", "";
        label: Labels, ['l'] "label", "Set meta data on a container";
        label_file: Vec<String>, "label-file", "Read in a line delimited file of labels";
        link: Links, "link", "Add link to another container";
        link_local_ip: Vec<String>, "link-local-ip", "Container IPv4/IPv6 link-local addresses";
        log_driver: String, "log-driver", "Logging driver for the container";
        log_opt: Vec<String>, "log-opt", "Log driver options";
        mac_address: String, "mac-address", "Container MAC address (e.g., 92:d0:c6:0a:29:33)";
        memory: Bytes, ['m'] "memory", "Memory limit";
        memory_reservation: Bytes, "memory-reservation", "Memory soft limit";
        memory_swap: SwapBytes, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap";
        memory_swappiness: Option<i64>, "memory-swappiness", "Tune container memory swappiness (0 to 100) (default -1)";
        mount: Mounts, "mount", "Attach a filesystem mount to the container";
        network: Networks, "network" ("net"), "Connect a container to a network";
        network_alias: Vec<String>, "network-alias" ("net-alias"), "Add network-scoped alias for the container";
        no_healthcheck: bool, "no-healthcheck", "Disable any container-specified HEALTHCHECK";
        oom_kill_disable: bool, "oom-kill-disable", "Disable OOM Killer";
        oom_score_adj: i64, "oom-score-adj", "Tune host's OOM preferences (-1000 to 1000)";
        pid: String, "pid", "PID namespace to use";
        pids_limit: i64, "pids-limit", "Tune container pids limit (set -1 for unlimited)";
        privileged: bool, "privileged", "Give extended privileges to this container";
        publish: Vec<String>, ['p'] "publish", "Publish a container's port(s) to the host";
        publish_all: bool, ['P'] "publish-all", "Publish all exposed ports to random ports";
        read_only: bool, "read-only", "Mount the container's root filesystem as read only";
        restart: Option<String>, "restart", "Restart policy to apply when a container exits (default \"no\")";
        rm: bool, "rm", "Automatically remove the container and its associated anonymous volumes when it exits";
        runtime: String, "runtime", "Runtime to use for this container";
        security_opt: Vec<String>, "security-opt", "Security Options";
        shm_size: Bytes, "shm-size", "Size of /dev/shm";
        stop_signal: String, "stop-signal", "Signal to stop the container";
        stop_timeout: Option<i64>, "stop-timeout", "Timeout (in seconds) to stop a container";
        storage_opt: Vec<String>, "storage-opt", "Storage driver options for the container";
        sysctl: Sysctls, "sysctl", "Sysctl options (default map[])";
        tmpfs: Vec<String>, "tmpfs", "Mount a tmpfs directory";
        tty: bool, ['t'] "tty", "Allocate a pseudo-TTY";
        ulimit: Ulimits, "ulimit", "Ulimit options (default [])";
        user: String, ['u'] "user", "Username or UID (format: <name|uid>[:<group|gid>])";
        userns: String, "userns", "User namespace to use";
        uts: String, "uts", "UTS namespace to use";
        volume: Vec<String>, ['v'] "volume", "Bind mount a volume";
        volume_driver: String, "volume-driver", "Optional volume driver for the container";
        volumes_from: Vec<String>, "volumes-from", "Mount volumes from the specified container(s)";
        workdir: String, ['w'] "workdir", "Working directory inside the container";
    }
}

flags! {
    /// Flags of `update`.
    UpdateFlags {
        blkio_weight: u16, "blkio-weight", "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)";
        cpu_period: i64, "cpu-period", "Limit CPU CFS (Completely Fair Scheduler) period";
        cpu_quota: i64, "cpu-quota", "Limit CPU CFS (Completely Fair Scheduler) quota";
        cpu_rt_period: i64, "cpu-rt-period", "Limit the CPU real-time period in microseconds";
        cpu_rt_runtime: i64, "cpu-rt-runtime", "Limit the CPU real-time runtime in microseconds";
        cpu_shares: i64, ['c'] "cpu-shares", "CPU shares (relative weight)";
        cpus: Cpus, "cpus", "Number of CPUs";
        cpuset_cpus: String, "cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)";
        cpuset_mems: String, "cpuset-mems", "MEMs in which to allow execution (0-3, 0,1)";
        kernel_memory: Bytes, "kernel-memory", "";
        memory: Bytes, ['m'] "memory", "Memory limit";
        memory_reservation: Bytes, "memory-reservation", "Memory soft limit";
        memory_swap: SwapBytes, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap";
        pids_limit: Option<i64>, "pids-limit", "Tune container pids limit (set -1 for unlimited)";
        restart: Option<String>, "restart", "Restart policy to apply when a container exits";
    }
}

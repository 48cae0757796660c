//! `/containers`: configuration, create, list, inspect and the small verbs.

use serde::{Deserialize, Deserializer};

use crate::host_config::{HostConfig, Resources, RestartPolicy};
use crate::images::GraphDriver;
use crate::mounts::MountPoint;
use crate::networks::{EndpointSettings, NetworkingConfig, PortBinding};
use crate::{List, Map, empty};

model! {
    /// A JSON object that is only there: the values of Go's `map[string]struct{}`.
    pub struct EmptyObject {
    }
}

/// Reads `null`, a list, or one string as a list of one, as dockerd does for commands.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<List<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a string or a list of strings")]
    enum Form {
        One(String),
        Many(Vec<String>),
    }
    Ok(List(Option::<Form>::deserialize(deserializer)?.map(|form| match form {
        Form::One(one) => vec![one],
        Form::Many(many) => many,
    })))
}

/// What an image proposes and a container has: program, environment, ports and so on.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Host name in the container.
    #[serde(deserialize_with = "crate::value::nullable")]
    pub hostname: String,
    /// Domain name in the container.
    #[serde(deserialize_with = "crate::value::nullable")]
    pub domainname: String,
    /// `user[:group]`, names or numbers.
    #[serde(deserialize_with = "crate::value::nullable")]
    pub user: String,
    /// The client wanted to be attached to standard input.
    #[serde(deserialize_with = "crate::value::nullable")]
    pub attach_stdin: bool,
    /// The client wanted to be attached to standard output.
    #[serde(deserialize_with = "crate::value::nullable")]
    pub attach_stdout: bool,
    /// The client wanted to be attached to standard error.
    #[serde(deserialize_with = "crate::value::nullable")]
    pub attach_stderr: bool,
    /// `port/protocol` keys.
    #[serde(skip_serializing_if = "empty")]
    pub exposed_ports: Map<EmptyObject>,
    /// Standard streams are a terminal.
    #[serde(deserialize_with = "crate::value::nullable")]
    pub tty: bool,
    /// Standard input stays open.
    #[serde(deserialize_with = "crate::value::nullable")]
    pub open_stdin: bool,
    /// Standard input closes when its first client goes.
    #[serde(deserialize_with = "crate::value::nullable")]
    pub stdin_once: bool,
    /// `NAME=value`.
    pub env: List<String>,
    /// Arguments; `null` takes the image's.
    #[serde(deserialize_with = "one_or_many")]
    pub cmd: List<String>,
    /// How health is found out.
    #[serde(skip_serializing_if = "empty")]
    pub healthcheck: Option<HealthConfig>,
    /// Windows only: the command is a finished command line.
    #[serde(deserialize_with = "crate::value::nullable", skip_serializing_if = "empty")]
    pub args_escaped: bool,
    /// The image as the client named it.
    #[serde(deserialize_with = "crate::value::nullable")]
    pub image: String,
    /// Paths that are to be volumes.
    pub volumes: Map<EmptyObject>,
    /// Working directory.
    #[serde(deserialize_with = "crate::value::nullable")]
    pub working_dir: String,
    /// Program; `null` takes the image's, `[]` and `[""]` have none.
    #[serde(deserialize_with = "one_or_many")]
    pub entrypoint: List<String>,
    /// No network at all.
    #[serde(deserialize_with = "crate::value::nullable", skip_serializing_if = "empty")]
    pub network_disabled: bool,
    /// Container-wide hardware address, of API versions before 1.44.
    #[serde(deserialize_with = "crate::value::nullable", skip_serializing_if = "empty")]
    pub mac_address: String,
    /// Triggers for builds on this image.
    pub on_build: List<String>,
    /// Labels.
    pub labels: Map<String>,
    /// The signal that stops the container.
    #[serde(deserialize_with = "crate::value::nullable", skip_serializing_if = "empty")]
    pub stop_signal: String,
    /// Seconds between the stop signal and SIGKILL.
    #[serde(skip_serializing_if = "empty")]
    pub stop_timeout: Option<i64>,
    /// The shell of the shell forms.
    #[serde(skip_serializing_if = "empty")]
    pub shell: List<String>,
}

model! {
    /// A health check; times in nanoseconds, zero inherits.
    pub struct HealthConfig {
        /// Empty inherits, `["NONE"]` disables, `["CMD", ...]` or `["CMD-SHELL", line]`.
        #[serde(skip_serializing_if = "empty")]
        pub test: List<String>,
        /// Time between checks.
        #[serde(skip_serializing_if = "empty")]
        pub interval: i64,
        /// Time one check may take.
        #[serde(skip_serializing_if = "empty")]
        pub timeout: i64,
        /// Time in which failures do not count.
        #[serde(skip_serializing_if = "empty")]
        pub start_period: i64,
        /// Time between checks during the start period.
        #[serde(skip_serializing_if = "empty")]
        pub start_interval: i64,
        /// Failures in a row that make it unhealthy.
        #[serde(skip_serializing_if = "empty")]
        pub retries: i64,
    }
}

model! {
    /// `POST /containers/create`.
    pub struct ContainerCreateRequest {
        flatten
        /// The portable part.
        pub config: Config,
        /// The host's part.
        pub host_config: HostConfig,
        /// Networks to join.
        #[serde(skip_serializing_if = "empty")]
        pub networking_config: Option<NetworkingConfig>,
    }
}

model! {
    /// Answer of `POST /containers/create`.
    pub struct ContainerCreateResponse {
        /// The new container.
        pub id: String,
        /// What was ignored or adjusted.
        pub warnings: Vec<String>,
    }
}

model! {
    /// One line of `GET /containers/json`.
    pub struct ContainerSummary {
        /// Full id.
        pub id: String,
        /// `/name`, and names through links.
        pub names: Vec<String>,
        /// Image as named at creation, or its id when the name points elsewhere now.
        pub image: String,
        /// Image id.
        #[serde(rename = "ImageID")]
        pub image_id: String,
        /// Command line.
        pub command: String,
        /// Unix seconds.
        pub created: i64,
        /// Published and exposed ports.
        pub ports: Vec<PortSummary>,
        /// Bytes in the writable layer, when asked for.
        #[serde(skip_serializing_if = "empty")]
        pub size_rw: i64,
        /// Bytes of image and writable layer, when asked for.
        #[serde(skip_serializing_if = "empty")]
        pub size_root_fs: i64,
        /// Labels.
        pub labels: Map<String>,
        /// `created`, `running`, ...
        pub state: String,
        /// `Up 3 minutes (healthy)`.
        pub status: String,
        /// The little of it that lists show.
        pub host_config: SummaryHostConfig,
        /// Health, since 1.52.
        #[serde(skip_serializing_if = "empty")]
        pub health: Option<HealthSummary>,
        /// Joined networks.
        pub network_settings: Option<SummaryNetworkSettings>,
        /// Mounts.
        pub mounts: Vec<MountPoint>,
    }
}

model! {
    /// `HostConfig` in lists.
    pub struct SummaryHostConfig {
        /// Network mode.
        #[serde(skip_serializing_if = "empty")]
        pub network_mode: String,
        /// OCI annotations.
        #[serde(skip_serializing_if = "empty")]
        pub annotations: Map<String>,
    }
}

model! {
    /// `Health` in lists.
    pub struct HealthSummary {
        /// `none`, `starting`, `healthy` or `unhealthy`.
        pub status: String,
        /// Failures in a row.
        pub failing_streak: i64,
    }
}

model! {
    /// `NetworkSettings` in lists.
    pub struct SummaryNetworkSettings {
        /// By network name.
        pub networks: Map<EndpointSettings>,
    }
}

model! {
    /// One port in lists.
    pub struct PortSummary {
        /// Host address.
        #[serde(rename = "IP", skip_serializing_if = "empty")]
        pub ip: String,
        /// Port in the container.
        pub private_port: u16,
        /// Port on the host.
        #[serde(skip_serializing_if = "empty")]
        pub public_port: u16,
        /// `tcp`, `udp` or `sctp`.
        #[serde(rename = "Type")]
        pub protocol: String,
    }
}

model! {
    /// `GET /containers/{id}/json`.
    pub struct ContainerInspect {
        /// Full id.
        pub id: String,
        /// RFC 3339.
        pub created: String,
        /// Program.
        pub path: String,
        /// Its arguments.
        pub args: Vec<String>,
        /// State.
        pub state: ContainerState,
        /// Image id.
        pub image: String,
        /// Host path of its resolv.conf.
        pub resolv_conf_path: String,
        /// Host path of its hostname file.
        pub hostname_path: String,
        /// Host path of its hosts file.
        pub hosts_path: String,
        /// Host path of its json-file log.
        pub log_path: String,
        /// `/name`.
        pub name: String,
        /// Restarts by policy so far.
        pub restart_count: i64,
        /// Storage driver.
        pub driver: String,
        /// `linux` or `windows`.
        pub platform: String,
        /// SELinux label of mounts.
        pub mount_label: String,
        /// SELinux label of the process.
        pub process_label: String,
        /// AppArmor profile.
        #[serde(rename = "AppArmorProfile")]
        pub app_armor_profile: String,
        /// Running execs.
        #[serde(rename = "ExecIDs")]
        pub exec_ids: List<String>,
        /// The host's part of the configuration.
        pub host_config: HostConfig,
        /// Where the root file system lies.
        #[serde(skip_serializing_if = "empty")]
        pub graph_driver: Option<GraphDriver>,
        /// Bytes in the writable layer, when asked for.
        #[serde(skip_serializing_if = "empty")]
        pub size_rw: Option<i64>,
        /// Bytes of image and writable layer, when asked for.
        #[serde(skip_serializing_if = "empty")]
        pub size_root_fs: Option<i64>,
        /// Mounts.
        pub mounts: Vec<MountPoint>,
        /// The portable part of the configuration.
        pub config: Config,
        /// Networks.
        pub network_settings: NetworkSettings,
    }
}

model! {
    /// `State` of an inspected container.
    pub struct ContainerState {
        /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
        pub status: String,
        /// Runs (also while paused or restarting).
        pub running: bool,
        /// Frozen.
        pub paused: bool,
        /// Waits for its restart.
        pub restarting: bool,
        /// The kernel killed it for memory.
        #[serde(rename = "OOMKilled")]
        pub oom_killed: bool,
        /// Removal failed half-way.
        pub dead: bool,
        /// Host pid, zero when not running.
        pub pid: i32,
        /// Exit code of the last run.
        pub exit_code: i64,
        /// Why it did not start.
        pub error: String,
        /// RFC 3339 or Go's zero time.
        pub started_at: String,
        /// RFC 3339 or Go's zero time.
        pub finished_at: String,
        /// Health, when checked.
        #[serde(skip_serializing_if = "empty")]
        pub health: Option<Health>,
    }
}

model! {
    /// Health of a container.
    pub struct Health {
        /// `starting`, `healthy` or `unhealthy`.
        pub status: String,
        /// Failures in a row.
        pub failing_streak: i64,
        /// The last five checks, oldest first.
        pub log: List<HealthcheckResult>,
    }
}

model! {
    /// One check.
    pub struct HealthcheckResult {
        /// RFC 3339 with offset.
        pub start: String,
        /// RFC 3339 with offset.
        pub end: String,
        /// 0 is healthy.
        pub exit_code: i64,
        /// The first 4096 bytes it wrote.
        pub output: String,
    }
}

model! {
    /// `NetworkSettings` of an inspected container. The flat fields describe the default bridge
    /// and are part of API versions before 1.52 only.
    pub struct NetworkSettings {
        /// Bridge name.
        pub bridge: String,
        /// Sandbox id.
        #[serde(rename = "SandboxID")]
        pub sandbox_id: String,
        /// Unused.
        pub hairpin_mode: bool,
        /// Unused.
        #[serde(rename = "LinkLocalIPv6Address")]
        pub link_local_ipv6_address: String,
        /// Unused.
        #[serde(rename = "LinkLocalIPv6PrefixLen")]
        pub link_local_ipv6_prefix_len: i64,
        /// `port/protocol` to its host addresses; `null` when exposed only.
        pub ports: Map<List<PortBinding>>,
        /// Path of the network namespace.
        pub sandbox_key: String,
        /// Unused.
        #[serde(rename = "SecondaryIPAddresses")]
        pub secondary_ip_addresses: List<String>,
        /// Unused.
        #[serde(rename = "SecondaryIPv6Addresses")]
        pub secondary_ipv6_addresses: List<String>,
        /// Endpoint on the default bridge.
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        /// Gateway on the default bridge.
        pub gateway: String,
        /// IPv6 address on the default bridge.
        #[serde(rename = "GlobalIPv6Address")]
        pub global_ipv6_address: String,
        /// Its prefix length.
        #[serde(rename = "GlobalIPv6PrefixLen")]
        pub global_ipv6_prefix_len: i64,
        /// Address on the default bridge.
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        /// Its prefix length.
        #[serde(rename = "IPPrefixLen")]
        pub ip_prefix_len: i64,
        /// IPv6 gateway on the default bridge.
        #[serde(rename = "IPv6Gateway")]
        pub ipv6_gateway: String,
        /// Hardware address on the default bridge.
        pub mac_address: String,
        /// By network name.
        pub networks: Map<EndpointSettings>,
    }
}

model! {
    /// Answer of `POST /containers/{id}/wait`.
    pub struct WaitResponse {
        /// Why waiting ended without an exit.
        #[serde(skip_serializing_if = "empty")]
        pub error: Option<WaitError>,
        /// Exit code.
        pub status_code: i64,
    }
}

model! {
    /// See [`WaitResponse`].
    pub struct WaitError {
        /// For people.
        #[serde(skip_serializing_if = "empty")]
        pub message: String,
    }
}

model! {
    /// `GET /containers/{id}/top`.
    pub struct TopResponse {
        /// One row of columns for each process.
        pub processes: Vec<Vec<String>>,
        /// Column heads.
        pub titles: Vec<String>,
    }
}

model! {
    /// One entry of `GET /containers/{id}/changes`.
    pub struct FilesystemChange {
        /// Path in the container.
        pub path: String,
        /// 0 changed, 1 added, 2 deleted.
        pub kind: u32,
    }
}

model! {
    /// `POST /containers/{id}/update`: zero and `null` leave a value as it is.
    pub struct UpdateRequest {
        flatten
        /// New limits.
        pub resources: Resources,
        /// New policy; an empty name leaves it.
        pub restart_policy: RestartPolicy,
    }
}

model! {
    /// Answer of `POST /containers/{id}/update`.
    pub struct UpdateResponse {
        /// What was ignored.
        pub warnings: List<String>,
    }
}

model! {
    /// Answer of `POST /containers/prune`.
    pub struct ContainersPruneReport {
        /// Ids.
        pub containers_deleted: List<String>,
        /// Bytes.
        pub space_reclaimed: u64,
    }
}

model! {
    /// What `X-Docker-Container-Path-Stat` holds, in base64.
    pub struct PathStat {
        /// Last component.
        #[serde(rename = "name")]
        pub name: String,
        /// Bytes.
        #[serde(rename = "size")]
        pub size: i64,
        /// Go's `os.FileMode`: permission bits below, kind in the high bits.
        #[serde(rename = "mode")]
        pub mode: u32,
        /// RFC 3339.
        #[serde(rename = "mtime")]
        pub mtime: String,
        /// Target of a symbolic link, resolved in the container.
        #[serde(rename = "linkTarget")]
        pub link_target: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn create_reads_flat_config() {
        let request: ContainerCreateRequest = serde_json::from_str(
            r#"{"Image":"busybox","Cmd":"true","Env":null,"Tty":null,"Unknown":{"x":[1]},
                "Entrypoint":[],"ExposedPorts":{"80/tcp":{}},
                "HostConfig":{"Memory":1048576,"Binds":[],"AutoRemove":true,"Init":null}}"#,
        )
        .unwrap();
        assert_eq!(request.config.image, "busybox");
        assert_eq!(&*request.config.cmd, ["true"]);
        assert!(request.config.env.is_null());
        assert!(!request.config.entrypoint.is_null());
        assert_eq!(request.host_config.resources.memory, 1 << 20);
        assert!(!request.host_config.binds.is_null() && request.host_config.links.is_null());
        assert!(request.host_config.auto_remove);
        assert!(request.config.exposed_ports.contains_key("80/tcp"));
    }

    #[test]
    fn create_refuses_wrong_types() {
        for bad in [
            r#"{"Cmd":1}"#,
            r#"{"HostConfig":[]}"#,
            r#"{"HostConfig":{"Memory":"1g"}}"#,
            r#"{"Labels":[]}"#,
            "[]",
        ] {
            assert!(serde_json::from_str::<ContainerCreateRequest>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn config_writes_as_dockerd() {
        let text = serde_json::to_string(&Config { image: "a".into(), ..Config::default() });
        assert_eq!(
            text.unwrap(),
            "{\"Hostname\":\"\",\"Domainname\":\"\",\"User\":\"\",\"AttachStdin\":false,\
             \"AttachStdout\":false,\"AttachStderr\":false,\"Tty\":false,\"OpenStdin\":false,\
             \"StdinOnce\":false,\"Env\":null,\"Cmd\":null,\"Image\":\"a\",\"Volumes\":null,\
             \"WorkingDir\":\"\",\"Entrypoint\":null,\"OnBuild\":null,\"Labels\":null}"
        );
    }
}

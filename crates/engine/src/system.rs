//! What the engine says about itself: info, version, use of the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use silo_docker::query::{ContainerListQuery, ImageListQuery};
use silo_docker::system::{
    Commit, Component, DiskUsage, FirewallInfo, IndexInfo, Info, Platform, PluginsInfo,
    RegistryConfig, Runtime, SwarmInfo, Usage, Version,
};
use silo_docker::{API_VERSION, List, MIN_API_VERSION};
use silo_types::{Error, duration};

use crate::engine::Engine;

/// The name by which Docker's tools know overlay mounts of unpacked layers.
pub const STORAGE_DRIVER: &str = "overlay2";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const ENGINE_ID: &str = "engine-id";

/// Which kinds of objects `GET /system/df` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsageKinds {
    /// Containers.
    pub containers: bool,
    /// Images.
    pub images: bool,
    /// Volumes.
    pub volumes: bool,
    /// Build cache.
    pub build_cache: bool,
}

impl DiskUsageKinds {
    /// Every kind.
    pub const ALL: Self = Self { containers: true, images: true, volumes: true, build_cache: true };
    /// No kind.
    pub const NONE: Self =
        Self { containers: false, images: false, volumes: false, build_cache: false };
}

/// Reads a moment as filters give it: `2h` ago, RFC 3339, a date or date and time in UTC, or Unix
/// seconds with a fraction.
pub(crate) fn parse_moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(Some(nanoseconds)) = crate::events::unix_time(text).ok_or(())
        && !text.is_empty()
    {
        return Timestamp::from_nanosecond(i128::from(nanoseconds)).ok();
    }
    if let Some(ago) = duration::parse_go(text) {
        return now.checked_sub(SignedDuration::try_from(ago).ok()?).ok();
    }
    let utc = |text: &str| {
        let time: jiff::civil::DateTime = text.parse().ok()?;
        time.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    };
    text.parse().ok().or_else(|| utc(text))
}

/// The networks whose registries may be without certificates, loopback addresses first.
fn insecure_networks(insecure: &[String]) -> Vec<String> {
    let given = insecure.iter().filter(|entry| entry.parse::<ipnet::IpNet>().is_ok());
    let networks = ["::1/128", "127.0.0.0/8"].map(str::to_owned).into_iter();
    networks.chain(given.cloned()).collect()
}

fn os_release(text: &str, key: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Go's name of the processor.
fn go_arch() -> String {
    silo_oci::platform::Platform::host().architecture
}

fn uname_text(text: &std::ffi::CStr) -> String {
    text.to_string_lossy().into_owned()
}

impl Engine {
    /// The random id by which this data root is known.
    fn id(&self) -> Result<String, Error> {
        if let Some(id) = self.db.get(ENGINE_ID)? {
            return Ok(id);
        }
        let hex = silo_types::id::random_hex(16);
        let id = format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        );
        self.db.set(ENGINE_ID, &id)?;
        Ok(id)
    }

    /// What of the host limits containers, in dockerd's words.
    fn host_warnings(&self) -> List<String> {
        let host = self.host();
        let mut warnings = Vec::new();
        for (fine, what) in [
            (host.memory_limit, "No memory limit support"),
            (host.swap_limit, "No swap limit support"),
            (host.cgroup_v2 || host.oom_kill_disable, "No oom kill disable support"),
            (host.cpu_cfs, "No cpu cfs quota support"),
            (host.cpu_cfs, "No cpu cfs period support"),
            (host.cpu_shares, "No cpu shares support"),
            (host.cpuset, "No cpuset support"),
            (host.pids_limit, "No pids limit support"),
            (!host.ipv4_forwarding_disabled, "IPv4 forwarding is disabled"),
        ] {
            if !fine {
                warnings.push(format!("WARNING: {what}"));
            }
        }
        if warnings.is_empty() { List::null() } else { warnings.into() }
    }

    /// `GET /info`.
    pub fn info(&self) -> Result<Info, Error> {
        let (mut running, mut paused, mut stopped) = (0, 0, 0);
        for container in self.containers.all() {
            match container.state().status() {
                "paused" => paused += 1,
                "running" | "restarting" => running += 1,
                _ => stopped += 1,
            }
        }
        let uname = rustix::system::uname();
        let memory = rustix::system::sysinfo();
        let mem_total = memory.totalram.saturating_mul(u64::from(memory.mem_unit));
        let release = fs_err::read_to_string("/etc/os-release")
            .or_else(|_| fs_err::read_to_string("/usr/lib/os-release"))
            .unwrap_or_default();
        let operating_system = match os_release(&release, "PRETTY_NAME") {
            name if name.is_empty() => "Linux".to_owned(),
            name => name,
        };
        let open_files = fs_err::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let host = self.host();
        let config = self.config();
        let proxies = config.proxies.masked();
        let mut security_options = Vec::new();
        for (on, option) in [
            (host.apparmor, "name=apparmor"),
            (host.seccomp, "name=seccomp,profile=builtin"),
            (host.selinux, "name=selinux"),
            (host.cgroup_v2, "name=cgroupns"),
        ] {
            if on {
                security_options.push(option.to_owned());
            }
        }
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Ok(Info {
            id: self.id()?,
            containers: running + paused + stopped,
            containers_running: running,
            containers_paused: paused,
            containers_stopped: stopped,
            images: count(self.images.len()),
            driver: STORAGE_DRIVER.to_owned(),
            driver_status: vec![
                ["Supports d_type".to_owned(), "true".to_owned()],
                ["Native Overlay Diff".to_owned(), "true".to_owned()],
            ],
            plugins: PluginsInfo {
                volume: words(&["local"]),
                network: words(&["bridge", "host", "null"]),
                authorization: List::null(),
                log: words(&["json-file", "local", "none"]),
            },
            memory_limit: host.memory_limit,
            swap_limit: host.swap_limit,
            cpu_cfs_period: host.cpu_cfs,
            cpu_cfs_quota: host.cpu_cfs,
            cpu_shares: host.cpu_shares,
            cpu_set: host.cpuset,
            pids_limit: host.pids_limit,
            ipv4_forwarding: !host.ipv4_forwarding_disabled,
            debug: tracing::enabled!(tracing::Level::DEBUG),
            n_fd: count(open_files),
            oom_kill_disable: host.oom_kill_disable,
            n_goroutines: count(tokio::runtime::Handle::current().metrics().num_alive_tasks()),
            system_time: silo_types::time::rfc3339_nano(Timestamp::now()),
            logging_driver: config.log_driver.clone(),
            cgroup_driver: "cgroupfs".to_owned(),
            cgroup_version: if host.cgroup_v2 { "2" } else { "1" }.to_owned(),
            n_events_listener: count(self.events.listeners()),
            kernel_version: uname_text(uname.release()),
            operating_system,
            os_version: os_release(&release, "VERSION_ID"),
            os_type: "linux".to_owned(),
            architecture: uname_text(uname.machine()),
            index_server_address: "https://index.docker.io/v1/".to_owned(),
            registry_config: RegistryConfig {
                insecure_registry_cidrs: insecure_networks(&config.registries.insecure),
                index_configs: BTreeMap::from([(
                    "docker.io".to_owned(),
                    IndexInfo {
                        name: "docker.io".to_owned(),
                        mirrors: config.registries.mirrors.clone(),
                        secure: true,
                        official: true,
                    },
                )]),
                mirrors: config.registries.mirrors.clone().into(),
            },
            n_cpu: i64::from(host.cpu_count),
            mem_total: i64::try_from(mem_total).unwrap_or(i64::MAX),
            generic_resources: List::null(),
            docker_root_dir: config.data_root.to_string_lossy().into_owned(),
            name: uname_text(uname.nodename()),
            http_proxy: proxies.http,
            https_proxy: proxies.https,
            no_proxy: proxies.no,
            labels: config.labels.clone(),
            server_version: VERSION.to_owned(),
            runtimes: BTreeMap::from([(
                "silo".to_owned(),
                Runtime { path: "silo".to_owned(), ..Runtime::default() },
            )]),
            default_runtime: "silo".to_owned(),
            swarm: SwarmInfo { local_node_state: "inactive".to_owned(), ..SwarmInfo::default() },
            live_restore_enabled: true,
            init_binary: "docker-init".to_owned(),
            containerd_commit: Commit::default(),
            runc_commit: Commit { id: VERSION.to_owned() },
            init_commit: Commit { id: VERSION.to_owned() },
            security_options,
            firewall_backend: Some(FirewallInfo {
                driver: "nftables".to_owned(),
                info: List::null(),
            }),
            warnings: self.host_warnings(),
            ..Info::default()
        })
    }

    /// `GET /version`.
    pub fn version(&self) -> Version {
        let uname = rustix::system::uname();
        let kernel = uname_text(uname.release());
        let details = [
            ("ApiVersion", API_VERSION.to_string()),
            ("Arch", go_arch()),
            ("Experimental", "false".to_owned()),
            ("KernelVersion", kernel.clone()),
            ("MinAPIVersion", MIN_API_VERSION.to_string()),
            ("Os", "linux".to_owned()),
        ];
        Version {
            platform: Platform { name: "Silo Engine".to_owned() },
            components: vec![Component {
                name: "Engine".to_owned(),
                version: VERSION.to_owned(),
                details: details.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            }],
            version: VERSION.to_owned(),
            api_version: API_VERSION.to_string(),
            min_api_version: MIN_API_VERSION.to_string(),
            // Clients expect the field to be there.
            go_version: "none".to_owned(),
            os: "linux".to_owned(),
            arch: go_arch(),
            kernel_version: kernel,
            ..Version::default()
        }
    }

    /// `GET /system/df`.
    pub async fn disk_usage(self: &Arc<Self>, kinds: DiskUsageKinds) -> Result<DiskUsage, Error> {
        let mut usage = DiskUsage::default();
        if kinds.images {
            let query = ImageListQuery {
                all: false,
                shared_size: true,
                containers: true,
                ..ImageListQuery::default()
            };
            let items = self.image_list(&query)?;
            let total_size = self.layers_size();
            let active = items.iter().filter(|image| image.containers > 0);
            let used: i64 = active.clone().map(|image| image.size - image.shared_size).sum();
            usage.image_usage = Some(Usage {
                active_count: count(active.count()),
                total_count: count(items.len()),
                total_size,
                reclaimable: (total_size - used).max(0),
                items,
            });
        }
        if kinds.containers {
            let query =
                ContainerListQuery { all: true, size: true, ..ContainerListQuery::default() };
            let items = self.container_list(query).await?;
            let active = |state: &str| matches!(state, "running" | "paused" | "restarting");
            let idle = items.iter().filter(|item| !active(&item.state));
            usage.container_usage = Some(Usage {
                active_count: count(items.iter().filter(|item| active(&item.state)).count()),
                total_count: count(items.len()),
                total_size: items.iter().map(|item| item.size_rw).sum(),
                reclaimable: idle.map(|item| item.size_rw).sum(),
                items,
            });
        }
        if kinds.volumes {
            let engine = Arc::clone(self);
            let items = tokio::task::spawn_blocking(move || engine.volume_usage())
                .await
                .map_err(|error| Error::internal(format!("measure volumes: {error}")))?;
            let (mut total_size, mut reclaimable, mut active_count) = (0, 0, 0);
            for volume in items.iter().filter_map(|volume| volume.usage_data.as_ref()) {
                total_size += volume.size.max(0);
                if volume.ref_count > 0 {
                    active_count += 1;
                } else {
                    reclaimable += volume.size.max(0);
                }
            }
            let total_count = count(items.len());
            usage.volume_usage =
                Some(Usage { active_count, total_count, total_size, reclaimable, items });
        }
        if kinds.build_cache {
            usage.build_cache_usage = Some(Usage::default());
        }
        Ok(usage)
    }

    /// Bytes of all layers of images, each once.
    fn layers_size(&self) -> i64 {
        let counts = self.layer_counts();
        let layers = counts.keys().filter_map(|chain| self.store.layer(chain).ok());
        i64::try_from(layers.map(|layer| layer.size).sum::<u64>()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        for (text, expected) in [
            ("1h30m", Some("2026-01-02T01:34:05Z")),
            ("1700000000", Some("2023-11-14T22:13:20Z")),
            ("1700000000.5", Some("2023-11-14T22:13:20.5Z")),
            ("2025-06-01T00:00:00+02:00", Some("2025-05-31T22:00:00Z")),
            ("2025-06-01T10:00:00", Some("2025-06-01T10:00:00Z")),
            ("2025-06-01", Some("2025-06-01T00:00:00Z")),
            ("", None),
            ("soon", None),
            ("-1h", None),
        ] {
            let moment = parse_moment(text, now).map(silo_types::time::rfc3339_nano);
            assert_eq!(moment.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn os_release_is_unquoted() {
        let text = "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_ID='12'\n";
        assert_eq!(os_release(text, "PRETTY_NAME"), "Debian GNU/Linux 12");
        assert_eq!(os_release(text, "VERSION_ID"), "12");
        assert_eq!(os_release(text, "MISSING"), "");
    }
}

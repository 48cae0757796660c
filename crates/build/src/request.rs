//! What a client wants built.

use std::collections::BTreeMap;
use std::sync::Arc;

use silo_docker::host_config::Ulimit;
use silo_engine::images::WhichBase;
use silo_oci::platform::Platform;
use silo_oci::reference::Reference;

use crate::attest::Attest;
use crate::context::{Context, ContextRef};
use crate::secret::{Nothing, RegistryKeys, Secrets, SshAgents};
use crate::transfer::CacheImport;

/// A build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// By which it can be cancelled; empty for none.
    pub id: String,
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
    /// The main context.
    pub context: ContextRef,
    /// `--build-context`, by name.
    pub named_contexts: BTreeMap<String, ContextRef>,
    /// The stage that is wanted, by name or number; empty for the last.
    pub target: String,
    /// `--build-arg`. One without a value has none.
    pub args: BTreeMap<String, Option<String>>,
    /// Labels for the image.
    pub labels: BTreeMap<String, String>,
    /// Names for the image.
    pub tags: Vec<Reference>,
    /// The platform to build for; `None` for what the base images are.
    pub platform: Option<Platform>,
    /// Says in progress which platform steps are for.
    pub show_platform: bool,
    /// Takes nothing from the cache.
    pub no_cache: bool,
    /// Takes nothing from the cache in these stages.
    pub no_cache_filter: Vec<String>,
    /// Images in the store whose steps may be taken as a cache.
    pub cache_from: Vec<String>,
    /// Those of `cache_from` whose registries may be without TLS.
    pub cache_insecure: Vec<String>,
    /// Caches of other engines whose steps may be taken.
    pub cache_imports: Vec<CacheImport>,
    /// Notes in the image how its layers are found as a cache.
    pub inline_cache: bool,
    /// Takes nothing from the cache that is not in one of these images, as the classic builder.
    pub cache_from_only: bool,
    /// Looks for newer base images.
    pub pull: bool,
    /// What is beneath images with Microsoft's base layers.
    pub base: WhichBase,
    /// The network of `RUN`: empty or `default`, `none`, `host`, or another mode.
    pub network: String,
    /// `host:address` lines of `/etc/hosts`.
    pub extra_hosts: Vec<String>,
    /// Host name of `RUN`'s containers; empty for a generated one.
    pub hostname: String,
    /// Limits of `RUN`'s containers.
    pub limits: Limits,
    /// Unix time that stands in for now in everything the image holds, and bounds the times of
    /// its files.
    pub source_date_epoch: Option<i64>,
    /// `RUN --security=insecure` is allowed.
    pub allow_insecure: bool,
    /// Only looks for what is dubious, and builds nothing.
    pub check: bool,
    /// What is to be said about the result.
    pub attest: Option<Attest>,
    /// Puts the image into the engine's store.
    pub store: bool,
    /// What `RUN --mount=type=secret` shows.
    pub secrets: Arc<dyn Secrets>,
    /// What `RUN --mount=type=ssh` connects to.
    pub ssh: Arc<dyn SshAgents>,
    /// What base images are pulled with.
    pub registry_keys: Arc<dyn RegistryKeys>,
}

/// Limits of the containers that carry out `RUN`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// Bytes of `/dev/shm`; 0 for the default.
    pub shm_size: i64,
    /// `ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of memory and swap; -1 for no limit.
    pub memory_swap: i64,
    /// Weight of the processors.
    pub cpu_shares: i64,
    /// Microseconds of a period.
    pub cpu_period: i64,
    /// Microseconds of processor time in a period.
    pub cpu_quota: i64,
    /// Processors, as `0-2`.
    pub cpuset_cpus: String,
    /// Memory nodes.
    pub cpuset_mems: String,
    /// The cgroup above the containers'.
    pub cgroup_parent: String,
    /// `--security-opt`.
    pub security_opt: Vec<String>,
}

/// Where the Dockerfile is.
#[derive(Debug, Clone)]
pub enum DockerfileSource {
    /// In a context of its own or the main one, at this path; so is its `.dockerignore`.
    InContext {
        /// Where; `None` for the main context.
        context: Option<Arc<dyn Context>>,
        /// Path from the context's root; empty for `Dockerfile`.
        path: String,
    },
    /// Here.
    Text {
        /// What messages call it.
        name: String,
        /// Its text.
        text: Vec<u8>,
    },
}

impl BuildRequest {
    /// A build of `Dockerfile` in `context`, with nothing special, whose image is stored.
    pub fn new(context: ContextRef) -> Self {
        Self {
            id: String::new(),
            dockerfile: DockerfileSource::InContext { context: None, path: String::new() },
            context,
            named_contexts: BTreeMap::new(),
            target: String::new(),
            args: BTreeMap::new(),
            labels: BTreeMap::new(),
            tags: Vec::new(),
            platform: None,
            show_platform: false,
            no_cache: false,
            no_cache_filter: Vec::new(),
            cache_from: Vec::new(),
            cache_insecure: Vec::new(),
            cache_imports: Vec::new(),
            inline_cache: false,
            cache_from_only: false,
            pull: false,
            base: WhichBase::Default,
            network: String::new(),
            extra_hosts: Vec::new(),
            hostname: String::new(),
            limits: Limits::default(),
            source_date_epoch: None,
            allow_insecure: false,
            check: false,
            attest: None,
            store: true,
            secrets: Arc::new(Nothing),
            ssh: Arc::new(Nothing),
            registry_keys: Arc::new(Nothing),
        }
    }
}

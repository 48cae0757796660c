//! Every environment variable that the command line reads.

/// The engine's address, as Docker's command line reads it.
pub(crate) const DOCKER_HOST: &str = "DOCKER_HOST";
/// The engine's address for `silo` alone; it comes before `DOCKER_HOST`.
pub(crate) const SILO_HOST: &str = "SILO_HOST";
/// The context to use.
pub(crate) const DOCKER_CONTEXT: &str = "DOCKER_CONTEXT";
/// The directory of `config.json`.
pub(crate) const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
/// The version of the API to speak, instead of the newest that both sides know.
pub(crate) const DOCKER_API_VERSION: &str = "DOCKER_API_VERSION";
/// The platform of new containers.
pub(crate) const DOCKER_DEFAULT_PLATFORM: &str = "DOCKER_DEFAULT_PLATFORM";
/// The directory of the engine's persistent state.
pub(crate) const SILO_ROOT: &str = "SILO_ROOT";
/// The directory of the engine's state that a reboot may lose.
pub(crate) const SILO_RUN_ROOT: &str = "SILO_RUN_ROOT";
/// The user's directory for such state.
pub(crate) const XDG_RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";
/// The user's directory for persistent state.
pub(crate) const XDG_DATA_HOME: &str = "XDG_DATA_HOME";
/// The user's directory for what can be had again.
pub(crate) const XDG_CACHE_HOME: &str = "XDG_CACHE_HOME";
/// The Debian mirror that Windows containers are set up from.
pub(crate) const SILO_DEBIAN_MIRROR: &str = "SILO_DEBIAN_MIRROR";
/// Whether `run` and `create` set Windows containers up when they have to: `auto`, `never`, or
/// `ask`, which is the default.
pub(crate) const SILO_WINDOWS_SETUP: &str = "SILO_WINDOWS_SETUP";
/// Where temporary files are.
pub(crate) const TMPDIR: &str = "TMPDIR";
/// The user's home.
pub(crate) const HOME: &str = "HOME";

/// A variable's value, if it is set and not empty.
pub(crate) fn get(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

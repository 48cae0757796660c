//! The start of a Windows container and of further programs in it.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use silo_docker::exec::ExecCreateRequest;
use silo_docker::host_config::Resources;
use silo_oci::runtime::Process;
use silo_shim::config::{RootConfig, ShimConfig};
use silo_shim::protocol::ProcessRef;
use silo_shim::{Given, Shim};
use silo_store::Snapshot;
use silo_types::Error;
use silo_windows::command;
use silo_windows::control::{self, Failure as Failed, Rights, Start, Terminal};
use silo_windows::environment::{self, Account};
use silo_windows::path::WindowsPath;
use silo_windows::registry::files;

use super::registry::{Prepared, Variables};
use super::{account, drive, paths, process, spec};
use crate::container::{Container, Record};
use crate::containers::archive::blocking;
use crate::containers::rootfs::is_pristine;
use crate::containers::sandbox::Prepared as Network;
use crate::containers::start::Failure;
use crate::engine::Engine;
use crate::spec as linux;
use crate::spec::mounts::Extra;

/// A terminal whose size nobody told.
const TERMINAL: Terminal = Terminal { columns: 80, rows: 25 };

/// Name and profile of an account.
const fn account_of(rights: Rights) -> Account<'static> {
    match rights {
        Rights::Administrator => {
            Account { name: "ContainerAdministrator", profile: "C:\\Users\\ContainerAdministrator" }
        }
        Rights::User => Account { name: "ContainerUser", profile: "C:\\Users\\ContainerUser" },
    }
}

impl Engine {
    /// Makes a Windows container and runs its program.
    pub(crate) async fn run_windows(
        self: &Arc<Self>,
        container: &Arc<Container>,
        record: &Record,
        network: &mut Network,
    ) -> Result<(Shim, i64), Failure> {
        let drive = self.windows_drive(container)?;
        let runtime = self
            .store
            .snapshot(&super::runtime_snapshot(container.id.as_str()))
            .map_err(Error::from_kind)?;
        let rights = account(&record.config.user)?;
        let variables = self.lay_out(container, record, &drive).await?;
        let directory = working_directory(&record.config.working_dir)?;
        let command = record.command();
        let start = Start {
            command: command::line(&command, record.config.args_escaped),
            directory: directory.to_string(),
            rights,
            environment: block(&variables, record, rights, &[]),
            terminal: record.config.tty.then(|| terminal(record.host_config.console_size)),
        };
        let folder = process::folder(container, control::INIT);
        process::prepare(&folder, &start)?;

        for mount in &record.mounts {
            if paths::pipe_of(&mount.destination).is_some() {
                paths::pipe_source(&mount.source)?;
            }
        }
        let mut mounts = self.mount_sources(container, record)?;
        let mut trees = container.take_trees();
        for mount in &mut mounts {
            let place = Self::place(&drive, &mount.destination)?;
            let tree = trees.iter_mut().find(|(destination, _)| *destination == mount.destination);
            if let Some((destination, _)) = tree {
                destination.clone_from(&place);
            }
            mount.destination = place;
        }
        mounts.append(&mut network.files);
        if let Some(processors) = processors(&record.host_config.resources) {
            // Where Wine counts them.
            let list = container.path("processors");
            fs_err::write(&list, format!("0-{}\n", processors - 1))
                .map_err(|error| Error::internal(error.to_string()))?;
            mounts.push(Extra::file(list, "/sys/devices/system/cpu/online", false));
        }
        let limited = record.host_config.resources.memory > 0;
        if limited {
            mounts.push(Extra::file(self.memory_library()?, spec::MEMORY, false));
        }
        let namespaces = linux::Namespaces {
            network: std::mem::take(&mut network.join),
            ..linux::Namespaces::default()
        };
        let security = record.security();
        let cgroup = self.cgroup_path(container.id.as_str(), record);
        let filter = self.filters.of(&security, false, &spec::capabilities())?;
        let mut generated = linux::generate(
            linux::Input {
                host: &self.host,
                config: &record.config,
                host_config: &record.host_config,
                security: &security,
                args: Vec::new(),
                linked: Vec::new(),
                user: &linux::user::Resolved::default(),
                mounts,
                shm: None,
                namespaces,
                cgroup: cgroup.display().to_string(),
            },
            filter,
        )
        .map_err(|error| Failure::from(Error::internal(error.message().to_owned())))?;
        let name = account_of(rights).name;
        let lasting = spec::Lasting {
            volatile: record.is_ephemeral(),
            // What a step of a build leaves is committed.
            forgets: record.host_config.auto_remove,
        };
        spec::adapt(&mut generated, &drive, lasting, &Self::windows_prefix(container), name);
        if limited && let Some(process) = &mut generated.process {
            spec::limit_memory(process);
        }
        Self::write_spec(container, generated)?;

        let config = ShimConfig {
            root: RootConfig::Overlay {
                lowers: runtime.lowers,
                upper: runtime.upper,
                work: runtime.work,
                // Nobody can write to it.
                volatile: true,
            },
            init_binary: Some(self.config.init_binary.clone()),
            ..self.shim_config(container, record, cgroup, network)?
        };
        let given = Given { netns: network.netns.take(), shm: None, trees };
        let (shim, at) = self.launch(container, &config, given).await?;
        let pid = shim.pid();
        if let Err(failure) = started(folder, pid).await? {
            drop(shim.shutdown().await);
            let program = process::program_of(record);
            let (error, exit_code) =
                process::explain(failure.as_ref(), &program, &directory.to_string());
            return Err(Failure { error, exit_code });
        }
        Ok((shim, at))
    }

    /// The library by which Wine sees a memory limit, as a file.
    fn memory_library(&self) -> Result<PathBuf, Error> {
        let path = self.config.run_root.join("windows-memory.so");
        let bytes = silo_winprograms::memory();
        if fs_err::read(&path).is_ok_and(|there| there == bytes) {
            return Ok(path);
        }
        let write = || -> io::Result<()> {
            let mut new = tempfile::NamedTempFile::new_in(&self.config.run_root)?;
            io::Write::write_all(&mut new, bytes)?;
            rustix::fs::fchmod(&new, rustix::fs::Mode::from_raw_mode(0o444))?;
            new.persist(&path)?;
            Ok(())
        };
        write().map_err(|error| Error::internal(format!("write {}: {error}", path.display())))?;
        Ok(path)
    }

    /// Makes the prefix of a container that has none yet, and reads what its programs' environment
    /// needs of the registry.
    async fn lay_out(
        self: &Arc<Self>,
        container: &Arc<Container>,
        record: &Record,
        drive: &Snapshot,
    ) -> Result<Arc<Prepared>, Error> {
        let chain = drive.chain.ok_or_else(|| Error::internal("a drive C: without layers"))?;
        let (engine, prefix) = (Arc::clone(self), Self::windows_prefix(container));
        let pristine = is_pristine(container);
        let drives: Vec<char> = record
            .mounts
            .iter()
            .filter_map(|mount| mount.destination.strip_prefix("/drives/")?.chars().next())
            .collect();
        let work = move || -> Result<Arc<Prepared>, Error> {
            let ready = engine.windows_registry(chain)?;
            let failed = |error: io::Error| {
                Error::internal(format!("make Wine's prefix {}: {error}", prefix.display()))
            };
            if !prefix.join(files::SYSTEM).exists() {
                make_prefix(&prefix, &ready.directory, &drives).map_err(failed)?;
            }
            if pristine {
                return Ok(ready);
            }
            // Its programs may have changed the environment.
            let variables = Variables::read(&prefix).map_err(failed)?;
            Ok(Arc::new(Prepared { directory: ready.directory.clone(), variables }))
        };
        blocking(work).await
    }

    /// Where something is mounted: as it is spelled on the drive.
    fn place(drive: &Snapshot, destination: &str) -> Result<String, Error> {
        let Some(below) = destination.strip_prefix("/c/") else {
            return Ok(destination.to_owned());
        };
        let names: Vec<String> = below.split('/').map(str::to_owned).collect();
        Ok(Path::new(super::DRIVE)
            .join(drive::spelled(drive, &names)?)
            .to_string_lossy()
            .into_owned())
    }

    /// What starts a further program in a container, and the name under which it is followed.
    pub(crate) fn windows_exec(
        container: &Container,
        id: &str,
        request: &ExecCreateRequest,
        own: &Process,
    ) -> Result<(Process, String), Error> {
        let record = container.record();
        let user = if request.user.is_empty() { &record.config.user } else { &request.user };
        let rights = account(user)?;
        let prefix = Self::windows_prefix(container);
        let variables = Variables::read(&prefix)
            .map_err(|error| Error::internal(format!("read the container's registry: {error}")))?;
        let ready = Prepared { directory: prefix, variables };
        let base = working_directory(&record.config.working_dir)?;
        let directory = match request.working_dir.as_str() {
            "" => base,
            path => base.join(path).map_err(|error| Error::invalid(error.to_string()))?,
        };
        let start = Start {
            command: command::line(&request.cmd, false),
            directory: directory.to_string(),
            rights,
            environment: block(&ready, &record, rights, &request.env),
            terminal: request.tty.then(|| request.console_size.map_or(TERMINAL, terminal)),
        };
        let name = process::exec_name(id);
        process::prepare(&process::folder(container, &name), &start)?;
        let mut process = own.clone();
        spec::process(&mut process, &name, account_of(rights).name);
        if spec::limits_memory(own) {
            spec::limit_memory(&mut process);
        }
        process.terminal = request.tty;
        process.console_size = None;
        Ok((process, name))
    }

    /// Waits until a further program runs.
    pub(crate) async fn windows_exec_started(
        container: &Container,
        name: &str,
        pid: i32,
        request: &ExecCreateRequest,
    ) -> Result<(), (i64, Error)> {
        let folder = process::folder(container, name);
        match started(folder, pid).await.map_err(|error| (126, error))? {
            Ok(()) => Ok(()),
            Err(failure) => {
                let program = request.cmd.first().cloned().unwrap_or_default();
                let (error, code) =
                    process::explain(failure.as_ref(), &program, &request.working_dir);
                Err((code, error))
            }
        }
    }

    /// Tells all programs of a Windows container that it is shut down.
    pub(crate) fn windows_shutdown(container: &Container) {
        tell(container, control::Request::Shutdown);
    }

    /// Tells the services of a Windows container that it is stopped; its end waits for them.
    pub(crate) fn windows_stop_services(container: &Container) {
        tell(container, control::Request::Services);
    }

    /// Tells a Windows program the new size of its terminal.
    pub(crate) fn windows_resize(
        container: &Container,
        process: &ProcessRef,
        rows: u16,
        columns: u16,
    ) {
        if !super::is(&container.record()) {
            return;
        }
        let name = match process {
            ProcessRef::Init => control::INIT.to_owned(),
            ProcessRef::Exec(id) => process::exec_name(id.as_str()),
        };
        let request = control::Request::Resize(Terminal { columns, rows });
        let folder = process::folder(container, &name);
        if let Err(error) = folder.request(request) {
            tracing::debug!(container = %container.id, %error, "could not tell a size");
        }
    }
}

fn tell(container: &Container, request: control::Request) {
    let folder = process::folder(container, control::INIT);
    if let Err(error) = folder.request(request) {
        tracing::debug!(container = %container.id, %error, "could not tell of the shutdown");
    }
}

/// Waits until the program of a process runs, or could not be started.
async fn started(folder: process::Folder, pid: i32) -> Result<Result<(), Option<Failed>>, Error> {
    blocking(move || {
        process::wait_started(&folder, pid)
            .map_err(|error| Error::internal(format!("wait for the program: {error}")))
    })
    .await
}

/// Makes a prefix of the prepared registry's files.
fn make_prefix(prefix: &Path, registry: &Path, drives: &[char]) -> io::Result<()> {
    match fs_err::remove_dir_all(prefix) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let devices = prefix.join("dosdevices");
    fs_err::create_dir_all(&devices)?;
    fs_err::create_dir_all(prefix.join(control::FOLDER))?;
    symlink("/c", devices.join("c:"))?;
    for drive in drives {
        match symlink(format!("/drives/{drive}"), devices.join(format!("{drive}:"))) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    fs_err::write(prefix.join(".update-timestamp"), "disable")?;
    for name in [files::USER, files::DEFAULT_USER, files::SYSTEM] {
        fs_err::copy(registry.join(name), prefix.join(name))?;
    }
    Ok(())
}

fn working_directory(path: &str) -> Result<WindowsPath, Error> {
    let path = if path.is_empty() { "C:\\" } else { path };
    WindowsPath::parse(path).map_err(|error| {
        Error::invalid(format!("the working directory '{path}' is invalid: {error}"))
    })
}

fn terminal([height, width]: [u32; 2]) -> Terminal {
    match (u16::try_from(width), u16::try_from(height)) {
        (Ok(columns @ 1..), Ok(rows @ 1..)) => Terminal { columns, rows },
        _ => TERMINAL,
    }
}

/// How many processors a program is to see, where fewer than the host's are asked for.
fn processors(resources: &Resources) -> Option<u64> {
    const NANO: u64 = 1_000_000_000;
    let positive = |number: i64| u64::try_from(number).ok().filter(|&number| number > 0);
    let host = std::thread::available_parallelism().map_or(u64::MAX, |n| n.get() as u64);
    let quota = positive(resources.cpu_quota)
        .map(|quota| quota.div_ceil(positive(resources.cpu_period).unwrap_or(100_000)));
    positive(resources.cpu_count)
        .or_else(|| positive(resources.nano_cpus).map(|cpus| cpus.div_ceil(NANO)))
        .or(quota)
        .or_else(|| (!resources.cpuset_cpus.is_empty()).then(|| listed(&resources.cpuset_cpus)))
        .filter(|&count| count > 0 && count < host)
}

/// How many numbers a list such as `0-2,5` has.
fn listed(list: &str) -> u64 {
    list.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            Some(last.checked_sub(first)?.saturating_add(1))
        })
        .fold(0, u64::saturating_add)
}

/// The environment of a program.
fn block(ready: &Prepared, record: &Record, rights: Rights, more: &[String]) -> Vec<String> {
    let Variables { system, user } = &ready.variables;
    let mut all = environment::base(system, user, &record.config.hostname, &account_of(rights));
    let mut own = record.config.env.to_vec();
    paths::merge_names(&mut own);
    if let Some(count) = processors(&record.host_config.resources) {
        all.set("NUMBER_OF_PROCESSORS", &count.to_string());
    }
    all.apply(&own);
    all.apply(more);
    all.block()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_are_seen() {
        for (list, count) in [("0", 1), ("0-2,5", 4), ("3-1", 0), ("x", 0), ("0, 1", 2)] {
            assert_eq!(listed(list), count, "{list}");
        }
        let host = std::thread::available_parallelism().unwrap().get();
        if host > 1 {
            let seen = |change: fn(&mut Resources)| {
                let mut resources = Resources::default();
                change(&mut resources);
                processors(&resources)
            };
            assert_eq!(seen(|r| r.nano_cpus = 500_000_000), Some(1));
            assert_eq!(seen(|r| r.cpu_quota = 50_000), Some(1));
            assert_eq!(seen(|r| r.cpuset_cpus = "0".into()), Some(1));
            assert_eq!(seen(|r| r.nano_cpus = 1_000_000_000_000), None);
        }
        assert_eq!(processors(&Resources::default()), None);
    }
}

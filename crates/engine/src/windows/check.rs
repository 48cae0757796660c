//! The compatibility report of an image, and the warning before a program that will not run.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use silo_types::{Digest, Error};
use silo_windows::base::{self, BUILDS, KINDS};
use silo_windows::check::{
    Assessment, Command, Drive, Grade, LookedUp, Need, Reason, Report, Surroundings, Verdict,
    answers, assess, features, glance, search_directories, services,
};
use silo_windows::registry::HiveName;
use silo_windows::runtime;

use super::{DRIVE, OS, RUNTIME_IMAGE};
use crate::container::Record;
use crate::containers::archive::blocking;
use crate::engine::Engine;
use crate::images::Entry;

/// Most programs of a layer that are looked at.
const MAX_PROGRAMS: usize = 2000;
/// Most commands about which there was nothing to say that are remembered.
const MAX_KNOWN: usize = 4096;

/// Commands of layers about which there was nothing to say.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<HashSet<Key>>);

/// A command where it is: the layers never change, and of a mount's file it is known which it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    chain: Digest,
    words: Vec<String>,
    path: String,
    directory: String,
    file: Option<[u64; 5]>,
}

impl Key {
    fn of(record: &Record, chain: Digest, path: String) -> Self {
        let directory = record.config.working_dir.clone();
        Self { chain, words: record.command(), path, directory, file: None }
    }
}

impl Known {
    fn has(&self, key: &Key) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    fn add(&self, key: Key) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(key);
    }
}

/// A base image of Silo's.
pub(super) struct Base {
    pub(super) name: String,
    pub(super) chain: Vec<Digest>,
}

fn failed(error: std::io::Error) -> Error {
    Error::internal(format!("read drive C: of the image: {error}"))
}

impl Engine {
    /// The report of an image.
    pub async fn windows_check(self: &Arc<Self>, name: &str) -> Result<Report, Error> {
        let (entry, name, notice) = match self.image(name) {
            Ok(entry) => (entry, name.to_owned(), None),
            Err(error) => {
                let found = self.windows_substitute(name);
                let missing = || self.windows_base_is_missing(name).unwrap_or(error);
                let found = found.ok_or_else(missing)?;
                (found.entry, found.name, Some(found.notice))
            }
        };
        if entry.image.config.os != OS {
            return Err(Error::invalid(format!(
                "{name} is an image for {}: there is nothing to check",
                entry.image.config.os
            )));
        }
        let engine = Arc::clone(self);
        blocking(move || engine.report(&entry, &name, notice)).await
    }

    fn report(&self, entry: &Entry, name: &str, notice: Option<String>) -> Result<Report, Error> {
        let top = entry.image.top().ok_or_else(|| {
            Error::invalid(format!("image {name} has no layers, so there is no drive C:"))
        })?;
        let lease = self.store.lease();
        lease.hold(top);
        let stack = self.store.stack(Some(top)).map_err(Error::from_kind)?;
        let base = self.silo_bases().find(|base| stack.starts_with(&base.chain));
        let mut drive = Drive::new(self.image_drive(&top)?);
        let mut left_out = Vec::new();
        let programs = self.own_programs(entry, base.as_ref(), &mut drive, &mut left_out)?;
        let system = self.effective_registry(top)?;
        let base_top = base.as_ref().and_then(|base| base.chain.last());
        let below = base_top.map(|chain| self.effective_registry(*chain)).transpose()?;
        let services = services(
            system.hive(HiveName::System),
            below.as_ref().map(|below| below.hive(HiveName::System)),
        );
        let config = &entry.image.config.config;
        let mut words = config.entrypoint.clone().unwrap_or_default();
        words.extend(config.cmd.clone().unwrap_or_default());
        let path = self.search_path(top, &config.env.clone().unwrap_or_default());
        let wine = self.wine_version();
        let mut reasons = features(
            system.hive(HiveName::Software),
            below.as_ref().map(|below| below.hive(HiveName::Software)),
        );
        if wine.is_empty() {
            reasons.push(Reason {
                grade: Grade::No,
                text: "no Wine runtime is set up".to_owned(),
                advice: "run `silo windows setup` once".to_owned(),
            });
        }
        let processor = entry.image.config.architecture.as_str();
        if !matches!(processor, "" | "amd64" | "386") {
            reasons.push(Reason {
                grade: Grade::No,
                text: format!("the image is for another processor: {processor}"),
                advice: "use its version for amd64".to_owned(),
            });
        }
        left_out.extend(notice);
        let input = Assessment {
            subject: name.to_owned(),
            command: Command {
                words: &words,
                escaped: config.args_escaped,
                path: &path,
                directory: &config.working_dir,
            },
            programs,
            services,
            reasons,
            left_out,
        };
        let mut report = assess(&mut drive, input).map_err(failed)?;
        report.wine = wine;
        report.base = base.map(|base| base.name).unwrap_or_default();
        Ok(report)
    }

    /// What a base has of libraries that a client's programs need; `name` may be empty.
    pub async fn windows_libraries(
        self: &Arc<Self>,
        name: &str,
        needs: Vec<Need>,
    ) -> Result<LookedUp, Error> {
        let (entry, name) = if name.is_empty() {
            let base = self.silo_bases().next().ok_or_else(super::not_set_up)?;
            (self.image(&base.name)?, base.name)
        } else {
            (self.image(name)?, name.to_owned())
        };
        let chain = entry.image.top().filter(|_| entry.image.config.os == OS);
        let chain = chain.ok_or_else(|| Error::invalid(format!("{name} is no Windows image")))?;
        let engine = Arc::clone(self);
        blocking(move || {
            let lease = engine.store.lease();
            lease.hold(chain);
            let mut drive = Drive::new(engine.image_drive(&chain)?);
            let answers = answers(&mut drive, &needs, true).map_err(failed)?;
            let surroundings = Surroundings::of(&mut drive).map_err(failed)?;
            Ok(LookedUp { wine: engine.wine_version(), base: name, answers, surroundings })
        })
        .await
    }

    /// What is to be said before a container is started whose program will not run.
    pub(crate) async fn windows_warning(
        self: &Arc<Self>,
        record: &Record,
        chain: Option<Digest>,
    ) -> Option<String> {
        let chain = chain?;
        if self.is_known(record, chain) {
            return None;
        }
        let (engine, record) = (Arc::clone(self), record.clone());
        // A registry that is not ready is made here in place of at the start.
        let result = blocking(move || Ok(engine.first_program(&record, chain))).await;
        let verdict = result.ok().flatten()?;
        let reason = verdict.reasons.into_iter().find(|reason| reason.grade.is_bad())?;
        let what =
            if verdict.grade == Grade::No { "will not run" } else { "is not likely to work" };
        let advice =
            if reason.advice.is_empty() { String::new() } else { format!("; {}", reason.advice) };
        Some(format!("{} {what}: {}{advice}", verdict.path, reason.text))
    }

    /// Whether there was nothing to say of a command that was looked at before.
    fn is_known(&self, record: &Record, chain: Digest) -> bool {
        let from_registry =
            !record.config.env.iter().any(|variable| named_path(variable).is_some());
        if from_registry && !self.windows_registry_is_ready(&chain) {
            return false;
        }
        let path = self.search_path(chain, &record.config.env);
        !has_mounts(record) && self.windows_known.has(&Key::of(record, chain, path))
    }

    /// The verdict on the program of a container, where it is a bad one.
    fn first_program(&self, record: &Record, chain: Digest) -> Option<Verdict> {
        let words = record.command();
        let path = self.search_path(chain, &record.config.env);
        let command = Command {
            words: &words,
            escaped: record.config.args_escaped,
            path: &path,
            directory: &record.config.working_dir,
        };
        let mut image: Option<Drive> = None;
        let mut key = Key::of(record, chain, path.clone());
        if !has_mounts(record) && self.windows_known.has(&key) {
            return None;
        }
        let search = search_directories(&path);
        for (program, _) in command.programs() {
            for names in command.candidates(&program) {
                let (mut own, inner) = match mounted(record, &names) {
                    Some((Ok(root), inner)) => (Some(Drive::new(root)), inner),
                    // A volume that is not made yet, or a single file: who knows.
                    Some((Err(_), _)) => return None,
                    None => (None, names),
                };
                if image.is_none() {
                    image = Some(Drive::new(self.image_drive(&chain).ok()?));
                }
                let system = image.as_mut()?;
                let drive = own.as_mut().unwrap_or(&mut *system);
                let Some(file) = drive.find(&inner).ok()? else { continue };
                let Some(opened) = drive.open(&file).ok()? else { continue };
                let verdict = if let Some(own) = &mut own {
                    key.file = Some(identity(&opened)?);
                    if self.windows_known.has(&key) {
                        return None;
                    }
                    let verdict = glance(own, Some(system), &file, &[]).ok()??;
                    Verdict { path: program.clone(), ..verdict }
                } else {
                    glance(system, None, &file, &search).ok()??
                };
                if verdict.grade.is_bad() {
                    return Some(verdict);
                }
                self.windows_known.add(key);
                return None;
            }
        }
        // What is not there, the start tells.
        None
    }

    /// `PATH` of a container's programs.
    fn search_path(&self, chain: Digest, env: &[String]) -> String {
        env.iter()
            .find_map(|variable| named_path(variable))
            .map(str::to_owned)
            .or_else(|| self.registry_path(chain))
            .unwrap_or_default()
    }

    fn registry_path(&self, chain: Digest) -> Option<String> {
        let ready = self.windows_registry(chain).ok()?;
        let key = ready.variables.system.get(super::registry::ENVIRONMENT)?;
        key.value("Path")?.text()
    }

    /// The version of Wine that is set up; empty where there is none.
    fn wine_version(&self) -> String {
        let Ok(entry) = self.image(RUNTIME_IMAGE) else { return String::new() };
        entry.image.config.config.labels.get(runtime::LABEL).cloned().unwrap_or_default()
    }

    /// Silo's own base images that are there.
    pub(super) fn silo_bases(&self) -> impl Iterator<Item = Base> {
        // The newest of the usual ones comes first.
        let kinds = KINDS.iter().filter(|kind| kind.name == "servercore").chain(&KINDS);
        kinds.flat_map(|kind| BUILDS.iter().rev().map(move |build| (kind, build))).filter_map(
            |(kind, build)| {
                let name = format!("{}/{}:{}", base::REPOSITORY, kind.name, build.tag);
                let entry = self.image(&name).ok()?;
                Some(Base { name, chain: entry.image.chain.clone() })
            },
        )
    }

    /// The drive C: of an image, as a mount that nobody else sees.
    fn image_drive(&self, chain: &Digest) -> Result<OwnedFd, Error> {
        let layers = self.windows_layers(chain)?;
        let lowers: Vec<&Path> = layers.iter().map(|layer| layer.files.as_path()).collect();
        match lowers[..] {
            // An overlay has two layers or more.
            [only] => silo_sys::path::open_root(only).map_err(failed),
            _ => silo_sys::mount::overlay(&lowers, None, super::OVERLAY_OPTIONS).map_err(failed),
        }
    }

    /// The programs that an image has beside its base's; without a base of Silo's, all but
    /// Windows' own.
    fn own_programs(
        &self,
        entry: &Entry,
        base: Option<&Base>,
        drive: &mut Drive,
        left_out: &mut Vec<String>,
    ) -> Result<Vec<PathBuf>, Error> {
        let mut found: BTreeSet<PathBuf> = BTreeSet::new();
        let mut whole = true;
        let mut look = |drive: &Drive, skip: bool| -> Result<(), Error> {
            let walked = drive.walk(
                Path::new(""),
                &mut |path| !(skip && path.as_os_str().eq_ignore_ascii_case("windows")),
                &mut |path| {
                    let program =
                        path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("exe"));
                    if program && found.len() <= MAX_PROGRAMS {
                        found.insert(path.to_owned());
                    }
                },
            );
            whole &= walked.map_err(failed)?;
            Ok(())
        };
        match base {
            Some(base) => {
                let layers = match entry.image.chain.last() {
                    Some(top) => self.windows_layers(top)?,
                    None => Vec::new(),
                };
                let above = layers.len().saturating_sub(base.chain.len());
                for layer in layers.iter().take(above) {
                    let root = silo_sys::path::open_root(&layer.files).map_err(failed)?;
                    look(&Drive::new(root), false)?;
                }
            }
            None => look(drive, true)?,
        }
        if !whole {
            left_out.push("files beyond the first 400000".to_owned());
        }
        // Layers above may have taken some away.
        let mut programs = Vec::new();
        for path in found {
            if drive.open(&path).map_err(failed)?.is_some() {
                programs.push(path);
            }
        }
        Ok(programs)
    }
}

/// The value of a variable, if it is `PATH`.
fn named_path(variable: &str) -> Option<&str> {
    let (name, value) = variable.split_once('=')?;
    name.eq_ignore_ascii_case("path").then_some(value)
}

/// Whether something is mounted on drive C:.
fn has_mounts(record: &Record) -> bool {
    record.mounts.iter().any(|mount| mount.destination.starts_with(DRIVE))
}

/// The root of the mount that covers a path on drive C:, if one does, and the path in it.
fn mounted(record: &Record, names: &[String]) -> Option<(std::io::Result<OwnedFd>, Vec<String>)> {
    let covering = record.mounts.iter().filter_map(|mount| {
        let place: Vec<&str> = mount.destination.strip_prefix("/c/")?.split('/').collect();
        let covers = place.len() <= names.len()
            && place.iter().zip(names).all(|(a, b)| silo_windows::path::same(a, b));
        covers.then_some((mount, place.len()))
    });
    let (mount, depth) = covering.max_by_key(|(_, depth)| *depth)?;
    let open = || -> std::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(mount.source.as_str(), flags, Mode::empty())?;
        if mount.subpath.is_empty() {
            return Ok(root);
        }
        silo_sys::path::open_in_root_no_links(root, &mount.subpath, flags, Mode::empty())
    };
    Some((open(), names[depth..].to_vec()))
}

/// What changes with a file.
fn identity(file: &std::fs::File) -> Option<[u64; 5]> {
    let stat = rustix::fs::fstat(file).ok()?;
    let size = u64::try_from(stat.st_size).ok()?;
    let seconds = u64::try_from(stat.st_ctime).ok()?;
    Some([stat.st_dev, stat.st_ino, size, seconds, stat.st_ctime_nsec])
}

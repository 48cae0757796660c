//! What is said of a result, with what is given out.

use std::io::Read;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use sha2::{Digest as _, Sha256};
use silo_archive::{EntryKind, Reader, pipe};
use silo_oci::attest::{Attached, Subject, package_url};
use silo_oci::image::Descriptor;
use silo_oci::reference::Reference;
use silo_types::{Digest, Error};

use crate::builder::Builder;
use crate::context::Tree;
use crate::outcome::Outcome;

/// How what is said goes with images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Its manifests point to the images by themselves too, so that registries list them.
    pub artifact: bool,
}

/// Gives what is said of each of the results, which have these names as images.
pub(crate) fn attach<'a>(
    outcomes: &'a [Outcome],
    names: &'a [Reference],
    options: AttachOptions,
) -> impl Fn(usize, &Descriptor) -> Option<Attached> + 'a {
    move |at, target| {
        let said = &outcomes.get(at)?.said.attestations;
        if said.is_empty() {
            return None;
        }
        let platform = target.platform.as_ref();
        let names = names.iter().map(|name| package_url("docker", name, platform));
        Some(Attached::new(target, &names.collect::<Vec<_>>(), said, options.artifact))
    }
}

impl Builder {
    /// A result with what is said of its files as files among them. Their names begin with
    /// `prefix`. Blocks.
    pub(crate) fn beside_files(&self, outcome: &Outcome, prefix: &str) -> Result<Outcome, Error> {
        let said = &outcome.said;
        if said.attestations.is_empty() || said.inline_only {
            return Ok(outcome.clone());
        }
        let subjects = subjects(&self.own_files(outcome)?)?;
        let is_windows = outcome.config.os == "windows";
        let workspace = self.engine.workspace(outcome.chain, is_windows, false)?;
        let root = workspace.mount()?;
        for said in &said.attestations {
            // As BuildKit: a file of the root, wherever it is said to be.
            let name = said.file.rsplit('/').next().unwrap_or_default();
            let name = format!("{prefix}{name}");
            if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\0']) {
                return Err(Error::invalid(format!("{name:?} is no name of an attestation")));
            }
            let failed =
                |error: rustix::io::Errno| Error::internal(format!("write {name}: {error}"));
            match rustix::fs::unlinkat(&root, name.as_str(), AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(failed(error)),
            }
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let file = rustix::fs::openat(
                &root,
                name.as_str(),
                flags | OFlags::CLOEXEC,
                Mode::from_raw_mode(0o600),
            );
            let mut file = std::fs::File::from(file.map_err(failed)?);
            let text = said.statement(subjects.clone(), true);
            std::io::Write::write_all(&mut file, &text)
                .map_err(|error| Error::internal(format!("write {name}: {error}")))?;
        }
        drop(root);
        let made = workspace.commit(said.epoch)?;
        let Some((layer, lease)) = made else { return Ok(outcome.clone()) };
        let (chain, lease) = (Some(layer.chain_id), Arc::new(lease));
        Ok(Outcome { chain, lease, said: Arc::default(), ..outcome.clone() })
    }
}

/// The regular files of a root, each with its digest.
fn subjects(tree: &Tree) -> Result<Vec<Subject>, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::internal(format!("look at files: {error}"));
    let (mut writer, reader) = pipe::pipe();
    std::thread::scope(|scope| {
        let root = tree.root();
        let packing = scope.spawn(move || {
            let packed = silo_store::tree::export(root.as_fd(), &mut writer);
            match &packed {
                Ok(()) => writer.finish(),
                Err(_) => writer.fail(std::io::Error::other("the files cannot be read")),
            }
            packed
        });
        let mut reader = Reader::new(std::io::BufReader::with_capacity(256 << 10, reader));
        let mut subjects: Vec<Subject> = Vec::new();
        let mut buffer = vec![0; 256 << 10];
        let listed = loop {
            let entry = match reader.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => break Ok(subjects),
                Err(error) => break Err(failed(&error)),
            };
            let name = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
            match entry.kind {
                EntryKind::Regular => {
                    let mut hash = Sha256::new();
                    let read = loop {
                        match reader.read(&mut buffer) {
                            Ok(0) => break Ok(()),
                            Ok(count) => hash.update(&buffer[..count]),
                            Err(error) => break Err(error),
                        }
                    };
                    if let Err(error) = read {
                        break Err(failed(&error));
                    }
                    let digest = Digest::from_sha256(hash.finalize().into());
                    subjects.push(Subject::new(name(&entry.path), &digest));
                }
                EntryKind::HardLink => {
                    let first = name(&entry.link);
                    let first = subjects.iter().find(|subject| subject.name == first);
                    let same = first.map(|first| Subject {
                        name: name(&entry.path),
                        digest: first.digest.clone(),
                    });
                    subjects.extend(same);
                }
                _ => {}
            }
        };
        drop(reader);
        let packed = packing.join().map_err(|_| Error::internal("a panic while reading files"))?;
        let listed = listed?;
        packed.map_err(Error::from_kind)?;
        Ok(listed)
    })
}

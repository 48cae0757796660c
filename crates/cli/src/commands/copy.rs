//! Copying images between registries, layouts, archives and an engine.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use fs_err::File;
use silo_oci::platform::{Platform, PlatformError};
use silo_oci::reference::{Reference, is_tag};
use silo_registry::{
    CopyError, CopyOptions, Credentials, Location, Progress, Registries, Source, Target,
};

use super::image_stream::upload;
use crate::command::Invocation;
use crate::context::Cli;
use crate::direct;
use crate::env;
use crate::failure::{Failure, Outcome};
use crate::flags::flags;
use crate::progress::{Messages, Sink, show};

flags! {
    /// Flags of `copy`.
    CopyFlags {
        all_tags: bool, ['a'] "all-tags", "Copy everything that has a tag in the repository, layout or archive";
        insecure: bool, "insecure", "Take any certificate, or no TLS, of both registries";
        platform: Vec<String>, "platform", "Copy the images for these platforms alone, in place of all";
        quiet: bool, ['q'] "quiet", "Print the digest only";
        referrers: bool, "referrers", "Copy signatures, attestations and whatever else is about the image, too";
        tag: Vec<String>, ['t'] "tag", "One more tag for the image at the target";
    }
}

fn failed(error: CopyError) -> Failure {
    direct::failure(&error)
}

fn credentials(cli: &Cli, location: &Location) -> Outcome<Credentials> {
    match location {
        Location::Registry(reference) => direct::credentials_for(cli.config(), reference),
        _ => Ok(Credentials::default()),
    }
}

/// A file for what goes from or to an engine, which is gone when it is closed. Images can be too
/// large for where temporary files usually are, which may be memory.
fn scratch(location: &Location) -> Outcome<File> {
    let directory = env::get(env::TMPDIR).map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let file = tempfile::tempfile_in(&directory).map_err(|error| {
        Failure::new(format!("make a temporary file in {}: {error}", directory.display()))
    })?;
    Ok(File::from_parts(file, location.to_string()))
}

async fn source(cli: &Cli, from: &Location, registries: &Arc<Registries>) -> Outcome<Source> {
    let Location::Engine(name) = from else {
        return Source::open(from, registries, &credentials(cli, from)?).map_err(failed);
    };
    let client = cli.client().await?;
    let request = client.get("/images/get").query("names", name.familiar());
    let mut answer = request.send().await?;
    let mut file = scratch(from)?;
    while let Some(chunk) = answer.chunk().await? {
        std::io::Write::write_all(&mut file, &chunk)
            .map_err(|error| Failure::new(error.to_string()))?;
    }
    Source::docker_archive(file).map_err(failed)
}

/// Where it goes, and what has to be loaded in the end.
async fn target(
    cli: &Cli,
    to: &Location,
    registries: &Arc<Registries>,
) -> Outcome<(Target, Option<File>)> {
    let Location::Engine(name) = to else {
        let target = Target::open(to, registries, &credentials(cli, to)?).map_err(failed)?;
        return Ok((target, None));
    };
    // What is wrong with the engine is known before anything is fetched.
    cli.client().await?;
    let file = scratch(to)?;
    let again = file.try_clone().map_err(|error| Failure::new(error.to_string()))?;
    Ok((Target::docker_archive(file, name).map_err(failed)?, Some(again)))
}

async fn load(cli: &Cli, mut file: File) -> Outcome {
    std::io::Seek::rewind(&mut file).map_err(|error| Failure::new(error.to_string()))?;
    let client = cli.client().await?;
    let request = client.post("/images/load").query("quiet", "1");
    show(request.body("application/x-tar", upload(file)).send().await?, Sink::Nothing).await
}

fn platforms(words: &[String]) -> Outcome<Vec<Platform>> {
    let words = words.iter().flat_map(|word| word.split(','));
    words
        .map(|word| word.trim().parse())
        .collect::<Result<_, _>>()
        .map_err(|error: PlatformError| Failure::new(error.to_string()))
}

fn locations(flags: &CopyFlags, words: &[String]) -> Outcome<(Location, Location)> {
    let parse = if flags.all_tags { Location::parse_repository } else { Location::parse };
    let from = parse(&words[0]).map_err(failed)?;
    let to = parse(&words[1]).map_err(failed)?;
    if from == to {
        return Err(Failure::new(format!("{from} and {to} are the same")));
    }
    if flags.all_tags && !flags.tag.is_empty() {
        return Err(Failure::new("--all-tags and --tag exclude each other"));
    }
    if let Some(wrong) = flags.tag.iter().find(|tag| !is_tag(tag)) {
        return Err(Failure::new(format!("{wrong:?} is no tag")));
    }
    Ok((from, to))
}

/// `copy`
pub(crate) async fn copy(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<CopyFlags>()?;
    let cli = &invocation.cli;
    let platforms = platforms(&flags.platform)?;
    let (from, to) = locations(&flags, &words)?;
    let domains = [&from, &to].into_iter().filter_map(|location| match location {
        Location::Registry(reference) => Some(reference.domain().to_owned()),
        _ => None,
    });
    let registries =
        direct::registries(if flags.insecure { domains.collect() } else { Vec::new() });
    let source = Arc::new(source(cli, &from, &registries).await?);
    let (target, loaded) = target(cli, &to, &registries).await?;
    let options = CopyOptions {
        platforms,
        all_tags: flags.all_tags,
        tags: flags.tag,
        referrers: flags.referrers,
        at_once: registries.config().at_once,
    };
    let sink = if flags.quiet { Sink::Nothing } else { Sink::Stderr };
    let messages = Mutex::new(Messages::new(sink));
    let progress = Progress::new(move |message| {
        let line = serde_json::to_vec(&message).unwrap_or_default();
        // What cannot be shown is copied all the same.
        messages.lock().unwrap_or_else(PoisonError::into_inner).message(&line).ok();
    });
    let copied = silo_registry::copy(&source, &Arc::new(target), &options, &progress).await;
    let copied = copied.map_err(failed)?;
    if let Some(file) = loaded {
        load(cli, file).await?;
    }
    let more = match copied.referrers {
        0 => String::new(),
        1 => ", 1 manifest about the image".to_owned(),
        count => format!(", {count} manifests about the image"),
    };
    let counts = format!("({} blobs sent, {} were there{more})", copied.sent, copied.present);
    for (tag, digest) in &copied.roots {
        cli.line(&match tag {
            _ if flags.quiet => digest.to_string(),
            Some(tag) => format!("{}: digest: {digest}", tagged(&to, tag)),
            None => format!("{to}: digest: {digest} {counts}"),
        })?;
    }
    if flags.all_tags && !flags.quiet {
        let tags = if copied.roots.len() == 1 { "tag" } else { "tags" };
        cli.line(&format!("{} {tags} {counts}", copied.roots.len()))?;
    }
    Ok(())
}

/// One tag of many at the target.
fn tagged(to: &Location, tag: &str) -> String {
    match to {
        Location::Registry(reference) => {
            reference.with_tag(tag).as_ref().map_or_else(|_| to.to_string(), Reference::familiar)
        }
        other => format!("{other}:{tag}"),
    }
}

//! Copying images between registries and layouts.

use std::sync::{Arc, Mutex, PoisonError};

use silo_oci::platform::Platform;
use silo_registry::{CopyOptions, Credentials, Location, Progress, Source, Target};

use crate::command::Invocation;
use crate::context::Cli;
use crate::direct;
use crate::failure::{Failure, Outcome};
use crate::flags::flags;
use crate::progress::{Messages, Sink};

flags! {
    /// Flags of `copy`.
    CopyFlags {
        insecure: bool, "insecure", "Take any certificate, or no TLS, of both registries";
        platform: Option<String>, "platform", "Copy the image for this platform alone, in place of all";
        quiet: bool, ['q'] "quiet", "Print the digest only";
        referrers: bool, "referrers", "Copy signatures, attestations and whatever else is about the image, too";
    }
}

fn credentials(cli: &Cli, location: &Location) -> Outcome<Credentials> {
    match location {
        Location::Registry(reference) => direct::credentials_for(cli.config(), reference),
        _ => Ok(Credentials::default()),
    }
}

/// `copy`
pub(crate) async fn copy(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<CopyFlags>()?;
    let cli = &invocation.cli;
    let failed = |error: silo_registry::CopyError| direct::failure(&error);
    let platform: Option<Platform> = match &flags.platform {
        Some(text) => {
            Some(text.parse().map_err(|error: silo_oci::platform::PlatformError| {
                Failure::new(error.to_string())
            })?)
        }
        None => None,
    };
    let from = Location::parse(&words[0]).map_err(failed)?;
    let to = Location::parse(&words[1]).map_err(failed)?;
    if from == to {
        return Err(Failure::new(format!("{from} and {to} are the same")));
    }
    let domains = [&from, &to].into_iter().filter_map(|location| match location {
        Location::Registry(reference) => Some(reference.domain().to_owned()),
        _ => None,
    });
    let registries =
        direct::registries(if flags.insecure { domains.collect() } else { Vec::new() });
    let source =
        Arc::new(Source::open(&from, &registries, &credentials(cli, &from)?).map_err(failed)?);
    let target = Arc::new(Target::open(&to, &registries, &credentials(cli, &to)?).map_err(failed)?);
    let options =
        CopyOptions { platform, referrers: flags.referrers, at_once: registries.config().at_once };
    let sink = if flags.quiet { Sink::Nothing } else { Sink::Stderr };
    let messages = Mutex::new(Messages::new(sink));
    let progress = Progress::new(move |message| {
        let line = serde_json::to_vec(&message).unwrap_or_default();
        // What cannot be shown is copied all the same.
        messages.lock().unwrap_or_else(PoisonError::into_inner).message(&line).ok();
    });
    let copied = silo_registry::copy(&source, &target, &options, &progress).await;
    let copied = copied.map_err(failed)?;
    let digest = copied.root.digest;
    if flags.quiet {
        return cli.line(&digest.to_string());
    }
    let more = match copied.referrers {
        0 => String::new(),
        1 => ", 1 manifest about the image".to_owned(),
        count => format!(", {count} manifests about the image"),
    };
    cli.line(&format!(
        "{to}: digest: {digest} ({} blobs sent, {} were there{more})",
        copied.sent, copied.present
    ))
}

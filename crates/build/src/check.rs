//! What is dubious in a Dockerfile: shown with every build, and all that `--check` does.

use std::collections::{BTreeMap, BTreeSet};

use silo_dockerfile::Dockerfile;
use silo_dockerfile::ignore::Patterns;
use silo_dockerfile::lint::{self, Base, Config};
use silo_dockerfile::path::Os;
use silo_types::{Digest, ErrorKind};

use crate::job::Job;
use crate::outcome::BuildError;
use crate::plan;
use crate::progress::{Event, Warning};
use crate::request::BuildRequest;

/// The argument that stands in for the `check` directive.
const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// The rules that a client asks for in place of those of the file.
pub(crate) fn asked(request: &BuildRequest) -> Result<Option<Config>, BuildError> {
    let Some(Some(text)) = request.args.get(ARGUMENT) else { return Ok(None) };
    Config::parse(text).map(Some).map_err(|cause| {
        let message = format!("failed to parse {ARGUMENT}: {cause}");
        BuildError::new(ErrorKind::InvalidParameter, message)
    })
}

impl Job {
    /// Tells what is dubious in the Dockerfile, as part of the work that `vertex` is. The error
    /// is for a build that is not to go on because of it.
    pub(crate) fn check(
        &self,
        dockerfile: &Dockerfile,
        config: &Config,
        vertex: Digest,
    ) -> (Vec<Warning>, Result<(), BuildError>) {
        let given = self.request.args.iter();
        let args: BTreeMap<String, String> =
            given.filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
        let predefined: Vec<_> = plan::predefined(&self.request).into_iter().collect();
        let stages: BTreeSet<usize> = self.plan.needed.iter().copied().collect();
        let ignore = Patterns::new(&self.filter.exclude).ok();
        let context = lint::Context {
            args: &args,
            predefined: &predefined,
            base: &|name| self.base_of(name),
            platform: self.request.platform.as_ref(),
            ignore: ignore.as_ref(),
            stages: Some(&stages),
        };
        let mut found = dockerfile.warnings.clone();
        found.extend(lint::check(dockerfile, config, &context));
        let stop = match lint::violation(config, &found) {
            Some(message) => Err(BuildError::new(ErrorKind::InvalidParameter, message)),
            None => Ok(()),
        };
        let shown = |warning: &lint::Warning| Warning {
            vertex,
            short: warning.short(),
            detail: vec![warning.rule.description.to_owned()],
            url: warning.rule.url.to_owned(),
            location: Some(self.location(warning.span)),
        };
        let warnings: Vec<Warning> = found.iter().map(shown).collect();
        for warning in &warnings {
            self.progress.event(Event::Warning(warning.clone()));
        }
        (warnings, stop)
    }

    /// What an image in the store brings to a stage.
    fn base_of(&self, name: &str) -> Option<Base> {
        let engine = &self.builder.engine;
        let entry = match engine.image_best(name, self.request.platform.as_ref()) {
            Ok(entry) => entry,
            Err(_) => engine.substitute(name)?.0,
        };
        // Each stage gets the image of its platform from an index.
        let is_one = !engine.image_has_index(name);
        let image = &entry.image.config;
        let env = image.config.env.iter().flatten();
        let pair = |text: &String| text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        Some(Base {
            env: env.filter_map(pair).collect(),
            shell: image.config.shell.is_some(),
            platform: (is_one && !image.architecture.is_empty()).then(|| image.platform()),
            os: if image.os == "windows" { Os::Windows } else { Os::Linux },
        })
    }
}

//! From a stage's state to an image.

use std::sync::Arc;

use silo_oci::image::{ImageConfig, RootFs};
use silo_types::Digest;

use crate::job::{Job, blocking};
use crate::outcome::{BuildError, Outcome};
use crate::progress::{Event, Status, Warning};
use crate::state::{State, rfc3339};

impl Job {
    /// The configuration of an image of this state, but for its layers.
    pub(crate) fn image_of(&self, state: &State) -> ImageConfig {
        let mut config = state.finished();
        if let Some(seconds) = self.request.source_date_epoch {
            let time = rfc3339(seconds.saturating_mul(1_000_000_000));
            config.created.clone_from(&time);
            for history in config.history.iter_mut().filter(|history| history.created.is_none()) {
                history.created.clone_from(&time);
            }
        }
        config
    }

    /// The id that an image of this state would have.
    pub(crate) fn image_id(&self, state: &State) -> Digest {
        let mut config = self.image_of(state);
        let diff_ids = self.builder.engine.store().diff_ids(state.chain).unwrap_or_default();
        config.rootfs = RootFs { diff_ids, ..RootFs::default() };
        silo_oci::image::digest(&config.to_bytes())
    }

    /// Makes the image of the target and, if that is asked for, puts it into the store.
    pub(crate) async fn finish(self: &Arc<Self>, state: Arc<State>) -> Result<Outcome, BuildError> {
        let mut config = self.image_of(&state);
        let labels = self.request.labels.iter();
        config.config.labels.extend(labels.map(|(key, value)| (key.clone(), value.clone())));
        if self.request.inline_cache {
            config.inline_cache = self.builder.inline_cache(state.chain, &self.steps())?;
        }
        if !self.request.store {
            return self.unstored(&state, config);
        }
        let work = self.work("exporting to image", None);
        let vertex = work.vertex.digest;
        let status = |text: &str| {
            let now = jiff::Timestamp::now();
            self.progress.event(Event::Status(Status {
                vertex,
                id: text.to_owned(),
                name: text.to_owned(),
                current: 0,
                total: 0,
                at: now,
                started: Some(now),
                completed: Some(now),
            }));
        };
        status("exporting layers");
        let engine = Arc::clone(&self.builder.engine);
        let (chain, names) = (state.chain, self.request.tags.clone());
        let made = blocking(move || Ok(engine.put_image(chain, config, &names)?)).await;
        let (image, lease) = work.end_with(made, |(image, _)| {
            status(&format!("writing image {}", image.id));
            for name in &self.request.tags {
                status(&format!("naming to {name}"));
            }
        })?;
        Ok(Outcome {
            image: image.id,
            manifest: Some(image.manifest),
            config: image.config,
            chain: state.chain,
            warnings: Vec::new(),
            said: Arc::default(),
            steps: self.steps(),
            lease: Arc::new(lease),
        })
    }

    /// An image that is not in the store, though its layers are.
    fn unstored(&self, state: &State, mut config: ImageConfig) -> Result<Outcome, BuildError> {
        let store = self.builder.engine.store();
        let lease = store.lease();
        state.chain.inspect(|top| lease.hold(*top));
        let diff_ids = store.diff_ids(state.chain).map_err(silo_types::Error::from_kind)?;
        config.rootfs = RootFs { diff_ids, ..RootFs::default() };
        Ok(Outcome {
            image: silo_oci::image::digest(&config.to_bytes()),
            manifest: None,
            config: Arc::new(config),
            chain: state.chain,
            warnings: Vec::new(),
            said: Arc::default(),
            steps: self.steps(),
            lease: Arc::new(lease),
        })
    }

    /// The outcome of a build that only looked.
    pub(crate) fn nothing(&self, warnings: Vec<Warning>) -> Outcome {
        let config = ImageConfig::default();
        let id = silo_oci::image::digest(&config.to_bytes());
        let lease = Arc::new(self.builder.engine.store().lease());
        let (manifest, chain, config) = (None, None, Arc::new(config));
        let (said, steps) = (Arc::default(), Vec::new());
        Outcome { image: id, manifest, config, chain, warnings, said, steps, lease }
    }
}

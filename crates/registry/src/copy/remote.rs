//! A repository that is copied from or to.

use std::sync::Arc;

use silo_oci::reference::{Reference, is_tag};

use crate::manifest::Resolved;
use crate::{Action, Credentials, Error, Registries, Repository};

/// A repository, and the name in it that was given.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) repository: Box<Repository>,
    pub(super) reference: Reference,
}

impl Remote {
    /// It is asked when there is something to ask.
    pub(super) fn open(
        reference: &Reference,
        action: Action,
        registries: &Arc<Registries>,
        credentials: &Credentials,
    ) -> Result<Self, Error> {
        let repository = Box::new(registries.repository(reference, action, credentials)?);
        Ok(Self { repository, reference: reference.clone() })
    }

    /// What a tag leads to, if it leads somewhere.
    pub(super) async fn tagged(&self, tag: &str) -> Result<Option<Resolved>, Error> {
        if !is_tag(tag) {
            return Ok(None);
        }
        let Ok(reference) = self.reference.with_tag(tag) else { return Ok(None) };
        match self.repository.manifest(&reference).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

//! The builds of late, for `docker buildx history` and for clients that look a build up once more
//! when it has ended. Kept in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{Stream, StreamExt as _, stream};
use prost::Message as _;
use tokio::sync::broadcast;

use crate::pb::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest,
    UpdateBuildHistoryRequest,
};

/// Builds that are remembered, besides pinned ones.
const REMEMBERED: usize = 50;
/// Pinned builds.
const MAX_PINNED: usize = 50;
/// Bytes of a record; of one with more, nobody learns what was asked for.
const MAX_RECORD: usize = 256 << 10;
/// Events that a client may be late by.
const BACKLOG: usize = 64;

/// The builds of late.
#[derive(Debug)]
pub(crate) struct History {
    records: Mutex<VecDeque<BuildHistoryRecord>>,
    events: broadcast::Sender<BuildHistoryEvent>,
}

impl Default for History {
    fn default() -> Self {
        Self { records: Mutex::default(), events: broadcast::Sender::new(BACKLOG) }
    }
}

fn event(kind: BuildHistoryEventType, record: BuildHistoryRecord) -> BuildHistoryEvent {
    BuildHistoryEvent { r#type: kind.into(), record: Some(record) }
}

impl History {
    /// Records that a build began or, with a time of completion, ended.
    pub(crate) fn record(&self, mut record: BuildHistoryRecord) {
        if record.encoded_len() > MAX_RECORD {
            record.frontend_attrs.clear();
            record.exporters.clear();
        }
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.retain(|known| known.r#ref != record.r#ref);
        records.push_back(record.clone());
        while records.iter().filter(|record| !record.pinned).count() > REMEMBERED {
            let Some(oldest) = records.iter().position(|record| !record.pinned) else { break };
            records.remove(oldest);
        }
        let kind = match record.completed_at {
            Some(_) => BuildHistoryEventType::Complete,
            None => BuildHistoryEventType::Started,
        };
        // Nobody may be listening.
        let _listeners = self.events.send(event(kind, record));
    }

    /// Pins, unpins or forgets a build. Returns whether it is known.
    pub(crate) fn update(&self, request: &UpdateBuildHistoryRequest) -> bool {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(position) = records.iter().position(|record| record.r#ref == request.r#ref) else {
            return false;
        };
        if request.delete {
            if let Some(record) = records.remove(position) {
                // Nobody may be listening.
                let _listeners = self.events.send(event(BuildHistoryEventType::Deleted, record));
            }
        } else if !request.finalize {
            let pinned = records.iter().filter(|record| record.pinned).count();
            records[position].pinned = request.pinned && pinned < MAX_PINNED;
        }
        true
    }

    /// What is known, and, unless the client wants to leave early, what happens.
    pub(crate) fn listen(
        self: &Arc<Self>,
        request: BuildHistoryRequest,
    ) -> impl Stream<Item = BuildHistoryEvent> + Send + use<> {
        let follow = (!request.early_exit).then(|| self.events.subscribe());
        let wanted = move |record: &BuildHistoryRecord| {
            (request.r#ref.is_empty() || request.r#ref == record.r#ref)
                && !(request.active_only && record.completed_at.is_some())
        };
        let known: Vec<BuildHistoryEvent> = {
            let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            let known = records.iter().filter(|record| wanted(record)).map(|record| {
                let kind = match record.completed_at {
                    Some(_) => BuildHistoryEventType::Complete,
                    None => BuildHistoryEventType::Started,
                };
                event(kind, record.clone())
            });
            match usize::try_from(request.limit) {
                Ok(limit @ 1..) => {
                    let mut latest: Vec<_> = known.rev().take(limit).collect();
                    latest.reverse();
                    latest
                }
                _ => known.collect(),
            }
        };
        let later = stream::unfold(follow, |follow| async move {
            let mut follow = follow?;
            loop {
                match follow.recv().await {
                    Ok(event) => return Some((event, Some(follow))),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        stream::iter(known).chain(later)
    }
}

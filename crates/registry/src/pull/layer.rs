//! One layer on its way into the store.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use silo_store::Received;
use tokio::sync::{mpsc, watch};

use super::{Layer, Puller, blocking};
use crate::feed::{Feeder, feed};
use crate::progress::Progress;
use crate::{Error, Repository};

/// Keeps everybody else from a layer.
type Alone = Arc<tokio::sync::OwnedMutexGuard<()>>;

/// One layer on its way.
pub(super) struct LayerWork {
    pub(super) puller: Puller,
    pub(super) repository: Arc<Repository>,
    pub(super) layer: Layer,
    pub(super) id: String,
    pub(super) progress: Progress,
    /// There are clones of it for as long as something of the pull's goes on.
    pub(super) busy: mpsc::Sender<()>,
}

impl LayerWork {
    pub(super) async fn run(&self, mut beneath: watch::Receiver<bool>) -> Result<(), Error> {
        let received = {
            let alone = Arc::new(self.puller.alone(&self.layer.descriptor.digest).await);
            let permits = &self.puller.permits;
            let _permit = if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
                Ok(permit)
            } else {
                self.progress.state(&self.id, "Waiting");
                Arc::clone(permits).acquire_owned().await
            };
            // Another pull may have brought it meanwhile.
            if self.puller.store.layer(&self.layer.chain).is_ok() {
                None
            } else {
                let received = self.receive(&alone).await;
                Some(received.map_err(|error| error.of_layer(&self.layer.descriptor.digest))?)
            }
        };
        // A sender that is gone is a layer that failed, whose reason counts.
        beneath.wait_for(|placed| *placed).await.map_err(|_| Error::Cancelled)?;
        if let Some(received) = received {
            let (store, layer) = (self.puller.store.clone(), self.layer.clone());
            let busy = self.busy.clone();
            blocking(move || {
                let _busy = busy;
                store.place_received(received, layer.parent.as_ref(), &layer.diff_id)
            })
            .await?;
        }
        self.progress.state(&self.id, "Pull complete");
        Ok(())
    }

    /// Gets the layer from where it is: a blob that the store has already, or the registry. What
    /// an earlier try left may be damaged, so that what is wrong with it is not the end.
    async fn receive(&self, alone: &Alone) -> Result<Received, Error> {
        let place = self.repository.place();
        match self.receive_once(alone).await {
            Err((error, _)) if error.is_of_content() && self.repository.distrust(place) => {
                tracing::debug!(layer = self.id, %error, "a mirror is left");
                self.receive_once(alone).await.map_err(|(error, _)| error)
            }
            Err((Error::Store(error), true)) => {
                tracing::debug!(layer = self.id, %error, "begin a layer anew");
                self.receive_once(alone).await.map_err(|(error, _)| error)
            }
            result => result.map_err(|(error, _)| error),
        }
    }

    /// With an error comes whether anything was there from an earlier try.
    async fn receive_once(&self, alone: &Alone) -> Result<Received, (Error, bool)> {
        let fresh = |error| (error, false);
        let descriptor = &self.layer.descriptor;
        let store = self.puller.store.clone();
        let wanted = descriptor.clone();
        let (held, busy) = (Arc::clone(alone), self.busy.clone());
        let (receiving, position) = blocking(move || {
            // Nobody else may begin with the layer before this thread has left it, even if the
            // pull is dropped.
            let (_busy, _held) = (busy, held);
            let mut receiving = store.receive_layer(&wanted)?;
            let position = receiving.resume()?;
            Ok((receiving, position))
        })
        .await
        .map_err(fresh)?;
        let resumed = position > 0;
        let broken = |error| (error, resumed);
        // Bytes go to a thread, which waits for the disk; the empty piece is the end.
        let (sender, mut pieces) = feed();
        let (held, busy) = (Arc::clone(alone), self.busy.clone());
        let thread = tokio::task::spawn_blocking(move || {
            let (_busy, _held) = (busy, held);
            // It goes, and cleans up, before those two.
            let mut receiving = receiving;
            while let Some(piece) = pieces.next() {
                if piece.is_empty() {
                    return receiving.finish().map(Some);
                }
                receiving.write(&piece)?;
            }
            // Nobody wants it any more.
            Ok(None)
        });
        let mut meter = self.progress.meter(&self.id, "Downloading", descriptor.size);
        let copied = async {
            let mut current = position;
            if let Ok(file) = self.puller.store.open_blob(&descriptor.digest) {
                copy_blob(file, current, &sender).await?;
            } else {
                let mut stream = self.repository.blob_in_parts(descriptor, current);
                while let Some(piece) = stream.next().await? {
                    current += piece.len() as u64;
                    meter.at(current);
                    if sender.send(piece).await.is_err() {
                        return Ok(());
                    }
                }
            }
            self.progress.state(&self.id, "Verifying Checksum");
            self.progress.state(&self.id, "Download complete");
            let mut unpacking = self.progress.meter(&self.id, "Extracting", descriptor.size);
            unpacking.at(descriptor.size);
            // A thread that has ended has the reason.
            drop(sender.send(Bytes::new()).await);
            Ok(())
        }
        .await;
        drop(sender);
        let received = thread.await;
        copied.map_err(broken)?;
        match received {
            Ok(Ok(Some(received))) => Ok(received),
            Ok(Ok(None)) => Err(broken(Error::Cancelled)),
            Ok(Err(error)) => Err(broken(error.into())),
            Err(_) => Err(broken(Error::Broken("a panic while unpacking a layer"))),
        }
    }
}

/// Sends what the store has of a blob.
async fn copy_blob(mut file: std::fs::File, position: u64, sender: &Feeder) -> Result<(), Error> {
    let sender = sender.clone();
    let copied = tokio::task::spawn_blocking(move || {
        file.seek(SeekFrom::Start(position))?;
        loop {
            let mut piece = vec![0; 256 << 10];
            let count = file.read(&mut piece)?;
            piece.truncate(count);
            if count == 0 || sender.blocking_send(piece.into()).is_err() {
                return Ok(());
            }
        }
    });
    match copied.await {
        Ok(result) => result.map_err(Error::Read),
        Err(_) => Err(Error::Broken("a panic while reading a layer")),
    }
}

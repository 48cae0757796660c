//! Bytes on their way from the network to a thread that waits for the disk.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes that may wait for the thread.
const ROOM: u32 = 512 << 10;
/// What a piece takes at least: a small one may keep a whole buffer of the connection's.
const LEAST: u32 = 8 << 10;

type Piece = (Bytes, OwnedSemaphorePermit);

/// The end that bytes go into.
#[derive(Debug, Clone)]
pub(crate) struct Feeder {
    sender: mpsc::UnboundedSender<Piece>,
    room: Arc<Semaphore>,
}

/// The end that the thread has.
#[derive(Debug)]
pub(crate) struct Fed(mpsc::UnboundedReceiver<Piece>);

/// The thread wants no more.
#[derive(Debug)]
pub(crate) struct Gone;

/// A queue of at most [`ROOM`] bytes, however they are cut into pieces.
pub(crate) fn feed() -> (Feeder, Fed) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(usize::try_from(ROOM).unwrap_or(usize::MAX)));
    (Feeder { sender, room }, Fed(receiver))
}

impl Feeder {
    /// Hands bytes over as soon as there is room.
    pub(crate) async fn send(&self, piece: Bytes) -> Result<(), Gone> {
        // One that is larger than the room has it for itself.
        let taken = u32::try_from(piece.len()).unwrap_or(ROOM).clamp(LEAST, ROOM);
        let room = Arc::clone(&self.room).acquire_many_owned(taken);
        let permit = room.await.map_err(|_| Gone)?;
        self.sender.send((piece, permit)).map_err(|_| Gone)
    }

    /// The same for a thread of the runtime's that may block.
    pub(crate) fn blocking_send(&self, piece: Bytes) -> Result<(), Gone> {
        tokio::runtime::Handle::current().block_on(self.send(piece))
    }
}

impl Fed {
    /// The next piece, once it has come; `None` when nobody has any more. Its room is free again.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        self.0.blocking_recv().map(|(piece, _)| piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_bytes() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let fits = |feeder: &Feeder, length: usize| {
            let mut send = Box::pin(feeder.send(vec![0; length].into()));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            send.as_mut().poll(&mut context).is_ready()
        };
        for (length, expected) in [(1, 64), (8 << 10, 64), (200 << 10, 2), (5 << 20, 1)] {
            let (feeder, mut fed) = feed();
            let count = std::iter::repeat_with(|| fits(&feeder, length)).take_while(|fits| *fits);
            assert_eq!(count.count(), expected, "{length}");
            assert_eq!(fed.next().map(|piece| piece.len()), Some(length));
            assert!(fits(&feeder, length), "{length}: there is room again");
            drop(fed);
            runtime.block_on(async { feeder.send(Bytes::new()).await.unwrap_err() });
        }
    }
}

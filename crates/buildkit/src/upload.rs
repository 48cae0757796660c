//! A context that is an archive on the client's standard input.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use futures_util::stream;
use silo_build::context::{Context, Filter, Transfer, Tree};
use silo_build::{Boxed, Builder, TarContext};
use silo_types::Error;
use tokio::sync::{OnceCell, mpsc};
use tonic::Request;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};

use crate::filesync::Meter;
use crate::pb::moby::upload::v1::BytesMessage;
use crate::pb::moby::upload::v1::upload_client::UploadClient;
use crate::session::{MAX_MESSAGE, Session};

/// Messages that wait to be unpacked.
const QUEUE: usize = 16;

/// An archive that the client has under an id.
#[derive(Debug)]
pub(crate) struct Upload {
    builder: Arc<Builder>,
    session: Arc<Session>,
    id: String,
    unpacked: OnceCell<TarContext>,
}

impl Upload {
    pub(crate) fn new(builder: Arc<Builder>, session: Arc<Session>, id: String) -> Self {
        Self { builder, session, id, unpacked: OnceCell::new() }
    }

    async fn fetch(&self, to: &Transfer<'_>) -> Result<TarContext, Error> {
        let path: AsciiMetadataValue = format!("/{}", self.id)
            .parse()
            .map_err(|_| Error::invalid("invalid id of an upload"))?;
        let (_nothing, mut outgoing) = mpsc::channel::<BytesMessage>(1);
        let mut request = Request::new(stream::poll_fn(move |cx| outgoing.poll_recv(cx)));
        let host = AsciiMetadataValue::from_static("buildkit-session");
        request.metadata_mut().insert(AsciiMetadataKey::from_static("urlpath"), path);
        request.metadata_mut().insert(AsciiMetadataKey::from_static("urlhost"), host);
        let mut client = UploadClient::with_origin(self.session.channel(), Session::origin())
            .max_decoding_message_size(MAX_MESSAGE);
        let said = |status: tonic::Status| Error::invalid(status.message());
        let mut incoming = client.pull(request).await.map_err(said)?.into_inner();
        let (queue, messages) = mpsc::channel(QUEUE);
        let builder = Arc::clone(&self.builder);
        let unpacked = tokio::task::spawn_blocking(move || {
            builder.unpack(Pipe { messages, rest: Bytes::new() })
        });
        let mut meter = Meter::new(to, "transferring context:".to_owned());
        let sent = loop {
            match incoming.message().await {
                Ok(Some(message)) => {
                    meter.add(message.data.len());
                    if queue.send(Ok(message.data)).await.is_err() {
                        // Nobody reads beyond the archive's end.
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(status) => break Err(said(status)),
            }
        };
        if let Err(error) = &sent {
            // The reader may have ended on its own.
            let _ended = queue.send(Err(error.message().to_owned())).await;
        }
        drop(queue);
        meter.end();
        let unpacked = unpacked.await.map_err(|error| Error::internal(error.to_string()))?;
        sent.and(unpacked)
    }
}

impl Context for Upload {
    fn tree<'a>(
        &'a self,
        filter: &'a Filter,
        transfer: &'a Transfer<'a>,
    ) -> Boxed<'a, Result<Arc<Tree>, Error>> {
        Box::pin(async move {
            let context = self.unpacked.get_or_try_init(|| self.fetch(transfer)).await?;
            context.tree(filter, transfer).await
        })
    }
}

/// Messages as a file.
struct Pipe {
    messages: mpsc::Receiver<Result<Bytes, String>>,
    rest: Bytes,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.messages.blocking_recv() {
                Some(Ok(bytes)) => self.rest = bytes,
                Some(Err(words)) => return Err(io::Error::other(words)),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

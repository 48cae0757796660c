//! Directories of the client that hold content by digest: caches and OCI layouts.
//!
//! The session answers containerd's content service for each of them; a header says which is
//! meant. Names are BuildKit's: `local:DIRECTORY` for a cache, `oci:NAME` for a layout.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use futures_util::stream;
use silo_build::{BlobSink, BlobSource, WriteBlob};
use silo_oci::image::Descriptor;
use silo_types::{Digest, Error};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::{Code, Request, Status, Streaming};

use crate::http2::Channel;
use crate::pb::containerd::services::content::v1::content_client::ContentClient;
use crate::pb::containerd::services::content::v1::{
    AbortRequest, InfoRequest, ReadContentRequest, ReadContentResponse, WriteAction,
    WriteContentRequest, WriteContentResponse,
};
use crate::session::{MAX_MESSAGE, Session};

/// The header that names a directory.
pub(crate) const STORE: &str = "buildkit-attachable-store-id";
const READ: &str = "/containerd.services.content.v1.Content/Read";
/// Bytes of a message.
const CHUNK: usize = 256 * 1024;

/// A directory of a client's. Its methods block, outside of the runtime's own threads.
#[derive(Clone)]
pub(crate) struct ClientContent {
    session: Arc<Session>,
    store: AsciiMetadataValue,
    runtime: Handle,
}

impl fmt::Debug for ClientContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientContent").field("store", &self.store).finish_non_exhaustive()
    }
}

/// An answer of the client's as an error.
fn said(what: &str) -> impl FnOnce(Status) -> Error {
    move |status| {
        let message = format!("{what}: {}", status.message());
        match status.code() {
            Code::NotFound => Error::not_found(message),
            Code::InvalidArgument => Error::invalid(message),
            _ => Error::internal(message),
        }
    }
}

impl ClientContent {
    /// A directory by its name in the session.
    pub(crate) fn new(session: Arc<Session>, store: &str) -> Result<Self, Error> {
        if !session.answers(READ) {
            return Err(Error::invalid(format!("the client's session has no store {store:?}")));
        }
        let name = store.parse();
        let name =
            name.map_err(|_| Error::invalid(format!("invalid name {store:?} of a store")))?;
        Ok(Self { session, store: name, runtime: Handle::current() })
    }

    fn client(&self) -> ContentClient<Channel> {
        ContentClient::with_origin(self.session.channel(), Session::origin())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(AsciiMetadataKey::from_static(STORE), self.store.clone());
        request
    }

    /// Waits for an answer, unless the client goes.
    fn wait<T>(&self, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        self.runtime.block_on(async {
            tokio::select! {
                answer = answer => answer,
                () = self.session.closed() => Err(Status::cancelled("session closed")),
            }
        })
    }

    fn has(&self, digest: &Digest) -> Result<bool, Error> {
        let request = self.request(InfoRequest { digest: digest.to_string() });
        let mut client = self.client();
        match self.wait(client.info(request)) {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(said("look for a blob")(status)),
        }
    }
}

impl BlobSource for ClientContent {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, Error> {
        let request = self.request(ReadContentRequest {
            digest: digest.to_string(),
            ..ReadContentRequest::default()
        });
        let mut client = self.client();
        let answer = self.wait(client.read(request));
        let stream = answer.map_err(said(&format!("read blob {digest}")))?.into_inner();
        Ok(Box::new(Reader { content: self.clone(), stream, piece: Bytes::new() }))
    }
}

/// A blob that is read.
struct Reader {
    content: ClientContent,
    stream: Streaming<ReadContentResponse>,
    piece: Bytes,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.content.wait(self.stream.message()) {
                Ok(Some(message)) => self.piece = message.data,
                Ok(None) => return Ok(0),
                Err(status) => return Err(io::Error::other(status.message().to_owned())),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl BlobSink for ClientContent {
    fn put(&mut self, blob: &Descriptor, write: WriteBlob<'_>) -> Result<(), Error> {
        if self.has(&blob.digest)? {
            return Ok(());
        }
        let total = i64::try_from(blob.size).unwrap_or(i64::MAX);
        let reference = format!("silo-{}-{}", blob.digest.hex(), silo_types::id::random_hex(8));
        let first = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: reference.clone(),
            total,
            expected: blob.digest.to_string(),
            ..WriteContentRequest::default()
        };
        let (send, mut receive) = mpsc::channel(2);
        // There is room.
        let _sent = send.try_send(first);
        let request = self.request(stream::poll_fn(move |cx| receive.poll_recv(cx)));
        let mut client = self.client();
        let what = format!("write blob {}", blob.digest);
        let answers = match self.wait(client.write(request)) {
            Ok(answers) => answers.into_inner(),
            Err(status) if status.code() == Code::AlreadyExists => return Ok(()),
            Err(status) => return Err(said(&what)(status)),
        };
        let mut writer =
            Writer { content: self.clone(), send, answers, buffer: Vec::new(), offset: 0 };
        let written = (|| -> Result<(), Error> {
            match writer.answer() {
                Ok(()) => {}
                Err(status) if status.code() == Code::AlreadyExists => return Ok(()),
                Err(status) => return Err(said(&what)(status)),
            }
            write(&mut writer)?;
            writer.flush().map_err(|error| Error::internal(format!("{what}: {error}")))?;
            let commit = WriteContentRequest {
                action: WriteAction::Commit.into(),
                total,
                offset: writer.offset,
                expected: blob.digest.to_string(),
                ..WriteContentRequest::default()
            };
            match writer.exchange(commit) {
                Err(status) if status.code() != Code::AlreadyExists => Err(said(&what)(status)),
                _ => Ok(()),
            }
        })();
        drop(writer);
        if written.is_err() {
            let abort = self.request(AbortRequest { r#ref: reference });
            // The reason is known already.
            drop(self.wait(client.abort(abort)));
        }
        written
    }
}

/// A blob that is written.
struct Writer {
    content: ClientContent,
    send: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
    buffer: Vec<u8>,
    offset: i64,
}

impl Writer {
    fn answer(&mut self) -> Result<(), Status> {
        match self.content.wait(self.answers.message())? {
            Some(_) => Ok(()),
            None => Err(Status::unknown("the client ended the transfer")),
        }
    }

    fn exchange(&mut self, message: WriteContentRequest) -> Result<(), Status> {
        // Why it ended comes with the answer.
        let _sent = self.send.blocking_send(message);
        self.answer()
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = Bytes::from(std::mem::take(&mut self.buffer));
        let length = i64::try_from(data.len()).unwrap_or(0);
        let message = WriteContentRequest {
            action: WriteAction::Write.into(),
            offset: self.offset,
            data,
            ..WriteContentRequest::default()
        };
        self.exchange(message).map_err(|status| io::Error::other(status.message().to_owned()))?;
        self.offset += length;
        Ok(())
    }
}

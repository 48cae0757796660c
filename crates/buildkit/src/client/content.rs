//! Directories of content that a client lets its build have: caches and OCI layouts.
//!
//! What the builder writes goes to `ingest/` and gets its name under `blobs/sha256/` when it is
//! whole and what it should be.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use fs_err::File;
use futures_util::{Stream, StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use silo_oci::image::{Descriptor, Index, media, to_bytes};
use silo_types::Digest;
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::services::Services;
use crate::content::STORE;
use crate::pb::containerd::services::content::v1::content_server::Content;
use crate::pb::containerd::services::content::v1::{
    AbortRequest, AbortResponse, Info, InfoRequest, InfoResponse, ReadContentRequest,
    ReadContentResponse, WriteAction, WriteContentRequest, WriteContentResponse,
};

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Bytes of a piece.
const PIECE: usize = 256 * 1024;
/// Pieces that wait.
const QUEUE: usize = 4;
/// The largest index of a layout.
const MAX_INDEX: u64 = 8 << 20;
const NAME: &str = "org.opencontainers.image.ref.name";
const FULL_NAME: &str = "io.containerd.image.name";

fn failed(error: io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::NotFound => Status::not_found("not found"),
        _ => Status::unknown(error.to_string()),
    }
}

fn digest(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("invalid digest {text:?}")))
}

fn blob(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join("blobs/sha256").join(digest.hex())
}

impl Services {
    fn store(&self, metadata: &MetadataMap) -> Result<PathBuf, Status> {
        let name = metadata.get(STORE).and_then(|name| name.to_str().ok()).unwrap_or_default();
        let store = self.share().stores.get(name).cloned();
        store.ok_or_else(|| Status::not_found(format!("unknown store {name}")))
    }
}

#[tonic::async_trait]
impl Content for Services {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let store = self.store(request.metadata())?;
        let digest = digest(&request.get_ref().digest)?;
        let found = fs_err::metadata(blob(&store, &digest)).map_err(failed)?;
        let size = i64::try_from(found.len()).unwrap_or(i64::MAX);
        let info = Info { digest: digest.to_string(), size, ..Info::default() };
        Ok(Response::new(InfoResponse { info: Some(info) }))
    }

    type ReadStream = Messages<ReadContentResponse>;

    async fn read(
        &self,
        request: Request<ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let store = self.store(request.metadata())?;
        let request = request.into_inner();
        let path = blob(&store, &digest(&request.digest)?);
        let mut file = File::open(path).map_err(failed)?;
        let mut offset = u64::try_from(request.offset)
            .map_err(|_| Status::invalid_argument("invalid offset"))?;
        file.seek(io::SeekFrom::Start(offset)).map_err(failed)?;
        let length = match request.size {
            0 => u64::MAX,
            size => u64::try_from(size).unwrap_or(u64::MAX),
        };
        let mut file = file.into_file().take(length);
        let (send, mut receive) = mpsc::channel(QUEUE);
        tokio::task::spawn_blocking(move || {
            loop {
                let mut piece = vec![0; PIECE];
                let message = match file.read(&mut piece) {
                    Ok(0) => return,
                    Ok(count) => {
                        piece.truncate(count);
                        let at = i64::try_from(offset).unwrap_or(i64::MAX);
                        offset += count as u64;
                        Ok(ReadContentResponse { offset: at, data: piece.into() })
                    }
                    Err(error) => Err(failed(error)),
                };
                let is_end = message.is_err();
                if send.blocking_send(message).is_err() || is_end {
                    return;
                }
            }
        });
        Ok(Response::new(stream::poll_fn(move |cx| receive.poll_recv(cx)).boxed()))
    }

    type WriteStream = Messages<WriteContentResponse>;

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let store = self.store(request.metadata())?;
        let mut incoming = request.into_inner();
        let (send, mut receive) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let mut ingest = None;
            while let Ok(Some(message)) = incoming.message().await {
                let is_last = message.action() == WriteAction::Commit;
                let store = store.clone();
                let taken = tokio::task::spawn_blocking(move || {
                    let answer = take(&store, &mut ingest, message);
                    (ingest, answer)
                });
                let Ok((next, answer)) = taken.await else { return };
                ingest = next;
                let is_end = is_last || answer.is_err();
                if send.send(answer).await.is_err() || is_end {
                    return;
                }
            }
        });
        Ok(Response::new(stream::poll_fn(move |cx| receive.poll_recv(cx)).boxed()))
    }

    /// What is not whole goes with the call that wrote it.
    async fn abort(
        &self,
        _request: Request<AbortRequest>,
    ) -> Result<Response<AbortResponse>, Status> {
        Ok(Response::new(AbortResponse {}))
    }
}

/// A blob that is written; removed unless it gets its name.
struct Ingest {
    path: PathBuf,
    file: File,
    hash: Sha256,
    offset: i64,
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let _placed = fs_err::remove_file(&self.path);
    }
}

fn take(
    store: &Path,
    ingest: &mut Option<Ingest>,
    message: WriteContentRequest,
) -> Result<WriteContentResponse, Status> {
    let action = message.action();
    if ingest.is_none() {
        if let Ok(digest) = message.expected.parse()
            && fs_err::metadata(blob(store, &digest)).is_ok()
        {
            return Err(Status::already_exists(format!("content {digest}: already exists")));
        }
        let folder = store.join("ingest");
        fs_err::create_dir_all(&folder).map_err(failed)?;
        let path = folder.join(silo_types::id::random_hex(16));
        let file = File::create_new(&path).map_err(failed)?;
        *ingest = Some(Ingest { path, file, hash: Sha256::new(), offset: 0 });
    }
    let Some(current) = ingest else { return Err(Status::internal("no blob")) };
    if action != WriteAction::Stat && message.offset != current.offset {
        return Err(Status::out_of_range("the parts of a blob are out of order"));
    }
    current.file.write_all(&message.data).map_err(failed)?;
    current.hash.update(&message.data);
    current.offset += i64::try_from(message.data.len()).unwrap_or(0);
    if action == WriteAction::Commit {
        let actual = Digest::from_sha256(current.hash.clone().finalize().into());
        let expected = digest(&message.expected)?;
        if actual != expected || message.total != current.offset {
            return Err(Status::failed_precondition(format!(
                "unexpected commit digest {actual}, expected {expected}"
            )));
        }
        let to = blob(store, &actual);
        fs_err::create_dir_all(to.parent().unwrap_or(store)).map_err(failed)?;
        fs_err::rename(&current.path, to).map_err(failed)?;
    }
    Ok(WriteContentResponse {
        action: action.into(),
        offset: current.offset,
        total: message.total,
        ..WriteContentResponse::default()
    })
}

fn index(directory: &Path) -> io::Result<Option<Index>> {
    let mut bytes = Vec::new();
    match File::open(directory.join("index.json")) {
        Ok(file) => file.take(MAX_INDEX).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Index::parse(&bytes).map(Some).map_err(|error| {
        io::Error::other(format!("index.json: {}", silo_types::error::chain(&error)))
    })
}

/// What a layout in a directory has under a name; without that name, all that it has, if that is
/// one thing.
pub fn resolve_layout(directory: &Path, tag: &str) -> io::Result<Option<Digest>> {
    let Some(index) = index(directory)? else { return Ok(None) };
    let is_named = |descriptor: &&Descriptor| {
        let is = |name: &str| {
            descriptor.annotations.get(name).is_some_and(|name| {
                name == tag || name.rsplit_once(':').is_some_and(|(_, last)| last == tag)
            })
        };
        is(NAME) || is(FULL_NAME)
    };
    let found = index.manifests.iter().find(is_named).or(match &index.manifests[..] {
        [only] if tag == "latest" => Some(only),
        _ => None,
    });
    Ok(found.map(|descriptor| descriptor.digest))
}

/// Gives something in a directory a name, in place of what had it, and makes the directory a
/// layout.
pub fn name_in_layout(directory: &Path, tag: &str, mut named: Descriptor) -> io::Result<()> {
    let mut index = index(directory)?.unwrap_or(Index {
        schema_version: 2,
        media_type: media::OCI_INDEX.to_owned(),
        manifests: Vec::new(),
        annotations: BTreeMap::new(),
    });
    index.manifests.retain(|known| known.annotations.get(NAME).is_none_or(|name| name != tag));
    named.annotations.insert(NAME.to_owned(), tag.to_owned());
    index.manifests.push(named);
    let write = |name: &str, bytes: &[u8]| {
        let aside = directory.join(format!(".{name}.{}", std::process::id()));
        fs_err::write(&aside, bytes)?;
        fs_err::rename(&aside, directory.join(name))
    };
    write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    write("index.json", &to_bytes(&index))
}

/// A part of a blob.
#[cfg(test)]
fn message(action: WriteAction, offset: i64, data: &'static [u8]) -> WriteContentRequest {
    WriteContentRequest {
        action: action.into(),
        offset,
        data: bytes::Bytes::from_static(data),
        expected: silo_oci::image::digest(b"content").to_string(),
        total: 7,
        ..WriteContentRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_gets_its_name_when_it_is_whole() {
        let temporary = tempfile::tempdir().unwrap();
        let store = temporary.path();
        let path = blob(store, &silo_oci::image::digest(b"content"));
        let mut ingest = None;
        take(store, &mut ingest, message(WriteAction::Stat, 0, b"")).unwrap();
        take(store, &mut ingest, message(WriteAction::Write, 0, b"cont")).unwrap();
        let early = take(store, &mut ingest, message(WriteAction::Write, 2, b"x")).unwrap_err();
        assert_eq!(early.code(), tonic::Code::OutOfRange);
        let short = take(store, &mut ingest, message(WriteAction::Commit, 4, b"")).unwrap_err();
        assert_eq!(short.code(), tonic::Code::FailedPrecondition);
        assert!(!path.exists());
        take(store, &mut ingest, message(WriteAction::Write, 4, b"ent")).unwrap();
        take(store, &mut ingest, message(WriteAction::Commit, 7, b"")).unwrap();
        drop(ingest.take());
        assert_eq!(fs_err::read(&path).unwrap(), b"content");
        assert_eq!(fs_err::read_dir(store.join("ingest")).unwrap().count(), 0);
        let again = take(store, &mut ingest, message(WriteAction::Stat, 0, b"")).unwrap_err();
        assert_eq!(again.code(), tonic::Code::AlreadyExists);
    }

    #[test]
    fn names_of_a_layout() {
        let temporary = tempfile::tempdir().unwrap();
        let layout = temporary.path();
        assert_eq!(resolve_layout(layout, "latest").unwrap(), None);
        let thing = |byte| Descriptor::new("x", Digest::from_sha256([byte; 32]), 1);
        name_in_layout(layout, "one", thing(1)).unwrap();
        assert_eq!(resolve_layout(layout, "latest").unwrap(), Some(thing(1).digest));
        name_in_layout(layout, "two", thing(2)).unwrap();
        name_in_layout(layout, "one", thing(3)).unwrap();
        for (tag, expected) in
            [("one", Some(thing(3).digest)), ("two", Some(thing(2).digest)), ("latest", None)]
        {
            assert_eq!(resolve_layout(layout, tag).unwrap(), expected, "{tag}");
        }
        fs_err::write(layout.join("index.json"), "{}").unwrap();
        assert!(resolve_layout(layout, "one").is_err());
    }
}

//! What a set-up asks the engine for, from a thread that may block.

use std::io::{self, Write};

use serde_json::{Value as Json, json};
use silo_archive::pipe::{self, PipeReader};
use silo_client::{Body, BodySender, Client, ClientError};
use silo_windows::image::{Image, write_archive};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;

use crate::failure::{Failure, Outcome};
use crate::progress::{Sink, show};

/// Bytes that are sent at once.
const CHUNK: usize = 256 << 10;
/// What is kept of what a program says.
const MAX_SAID: u64 = 64 << 10;

/// The engine.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    client: Client,
    handle: Handle,
}

impl Engine {
    /// To be called where the runtime is; used elsewhere.
    pub(crate) fn new(client: Client) -> Self {
        Self { client, handle: Handle::current() }
    }

    /// What the engine says of an image; `None` if it has no such.
    pub(super) fn image(&self, name: &str) -> Outcome<Option<Json>> {
        self.found(&format!("/images/{name}/json"))
    }

    fn found(&self, path: &str) -> Outcome<Option<Json>> {
        match self.handle.block_on(self.client.get(path).receive::<Json>()) {
            Ok(found) => Ok(Some(found)),
            Err(ClientError::Engine { status: 404, .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Loads images; what several of them share is sent once.
    pub(super) fn load(&self, images: &[Image<'_>]) -> Outcome {
        let (sender, body) = {
            let _entered = self.handle.enter();
            Body::stream()
        };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut upload = Upload { sender, buffer: Vec::with_capacity(CHUNK) };
                let written = write_archive(images, &mut upload).and_then(|()| upload.flush());
                if let Err(error) = written {
                    upload.sender.fail_blocking(error);
                }
            });
            self.handle.block_on(async {
                let request = self.client.post("/images/load").query("quiet", "1");
                let answer = request.body("application/x-tar", body).send().await?;
                show(answer, Sink::Nothing).await
            })
        })
    }

    /// Removes an image's name, and the image with its last one. Its absence is no failure.
    pub(super) fn remove_image(&self, name: &str) -> Outcome {
        self.absent_is_fine(
            self.handle.block_on(self.client.delete(format!("/images/{name}")).done()),
        )
    }

    /// Removes an image by its id if nobody needs it: containers and other names keep it.
    pub(super) fn forget_image(&self, id: &str) -> Outcome {
        match self.handle.block_on(self.client.delete(format!("/images/{id}")).done()) {
            Err(ClientError::Engine { status: 404 | 409, .. }) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Removes a container, running or not. Its absence is no failure.
    pub(super) fn remove_container(&self, name: &str) -> Outcome {
        self.absent_is_fine(self.handle.block_on(remove(&self.client, name)))
    }

    #[expect(clippy::unused_self, reason = "belongs to the requests of this engine")]
    fn absent_is_fine(&self, result: Result<(), ClientError>) -> Outcome {
        match result {
            Err(ClientError::Engine { status: 404, .. }) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Creates a container and starts it.
    pub(super) fn start(&self, name: &str, config: &Json) -> Outcome {
        self.handle.block_on(async {
            let create = self.client.post("/containers/create").query("name", name);
            create.json(config).receive::<Json>().await?;
            self.client.post(format!("/containers/{name}/start")).done().await?;
            Ok(())
        })
    }

    /// Runs a program in a container to its end: its exit code, and the end of what it said.
    pub(super) fn exec(
        &self,
        container: &str,
        environment: &[&str],
        command: &[&str],
    ) -> Outcome<(i64, String)> {
        self.handle.block_on(async {
            let exec = json!({
                "Cmd": command,
                "Env": environment,
                "AttachStdout": true,
                "AttachStderr": true,
            });
            let create = self.client.post(format!("/containers/{container}/exec"));
            let created: Json = create.json(&exec).receive().await?;
            let id = created["Id"].as_str().unwrap_or_default().to_owned();
            let start = self.client.post(format!("/exec/{id}/start"));
            let hijacked = start.json(&json!({"Detach": false, "Tty": false})).hijack().await?;
            let mut said = hijacked.early.to_vec();
            let mut stream = hijacked.stream;
            let failed = |error| Failure::io("the output of Wine", &error);
            (&mut stream).take(MAX_SAID).read_to_end(&mut said).await.map_err(failed)?;
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map_err(failed)?;
            let ended: Json = self.client.get(format!("/exec/{id}/json")).receive().await?;
            let said = said.iter().filter(|byte| matches!(byte, b'\n' | b' '..=b'~'));
            let said = said.map(|byte| char::from(*byte)).collect();
            Ok((ended["ExitCode"].as_i64().unwrap_or(-1), said))
        })
    }

    /// The tar of a directory in a container.
    pub(super) fn copy_out<T>(
        &self,
        container: &str,
        path: &str,
        read: impl FnOnce(PipeReader) -> T + Send,
    ) -> Outcome<T>
    where
        T: Send,
    {
        let (mut writer, reader) = pipe::pipe();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || read(reader));
            let sent = self.handle.block_on(async {
                let request = self.client.get(format!("/containers/{container}/archive"));
                let mut answer = request.query("path", path).send().await?;
                while let Some(chunk) = answer.chunk().await? {
                    // The reader says itself why it takes no more.
                    if writer.send(chunk.to_vec()).is_err() {
                        return Ok(());
                    }
                }
                Ok(())
            });
            match sent {
                Ok(()) => writer.finish(),
                Err(error) => {
                    writer.fail(io::Error::other("the engine gave up"));
                    drop(thread.join());
                    return Err(error);
                }
            }
            thread.join().map_err(|_| Failure::new("Wine's prefix could not be read"))
        })
    }
}

/// Removes a container, running or not.
pub(crate) async fn remove(client: &Client, name: &str) -> Result<(), ClientError> {
    let request = client.delete(format!("/containers/{name}"));
    request.query("force", "1").query("v", "1").done().await
}

/// Sends what is written to it.
struct Upload {
    sender: BodySender,
    buffer: Vec<u8>,
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        if self.sender.send_blocking(piece) {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
}

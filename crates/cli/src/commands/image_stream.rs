//! Archives in and out: `load`, `save`, `import` and `export`.

use std::io::{Read, Write};

use fs_err::File;
use silo_client::{Body, Response};
use silo_oci::reference::Reference;

use super::image::platform_json;
use crate::command::Invocation;
use crate::failure::{Failure, Outcome};
use crate::flags::flags;
use crate::progress::{Sink, show};
use crate::terminal;

flags! {
    /// Flags of `export`.
    OutputFlags {
        output: String, ['o'] "output", "Write to a file, instead of STDOUT";
    }
}

flags! {
    /// Flags of `load`.
    LoadFlags {
        input: String, ['i'] "input", "Read from tar archive file, instead of STDIN";
        platform: Vec<String>, "platform", "Load only the given platform(s)";
        quiet: bool, ['q'] "quiet", "Suppress the load output";
    }
}

flags! {
    /// Flags of `save`.
    SaveFlags {
        output: String, ['o'] "output", "Write to a file, instead of STDOUT";
        platform: Vec<String>, "platform", "Save only the given platform(s)";
    }
}

flags! {
    /// Flags of `import`.
    ImportFlags {
        change: Vec<String>, ['c'] "change", "Apply Dockerfile instruction to the created image";
        message: String, ['m'] "message", "Set commit message for imported image";
        platform: Option<String>, "platform", "Set platform if server is multi-platform capable";
    }
}

/// Bytes that are read and sent at once.
const CHUNK: usize = 256 * 1024;

/// A body that is read from a file or from stdin on a thread of its own.
pub(crate) fn upload(mut source: impl Read + Send + 'static) -> Body {
    let (sender, body) = Body::stream();
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    if !sender.send_blocking(buffer[..length].to_vec()) {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return sender.fail_blocking(error),
            }
        }
    });
    body
}

/// Where an archive goes: stdout, or a file that only gets its name when it is complete.
pub(super) struct Target {
    file: Option<(File, String, String)>,
}

impl Target {
    pub(super) fn new(path: &str, verb: &str) -> Outcome<Self> {
        if path.is_empty() {
            if terminal::stdout_is_terminal() {
                return Err(Failure::new(
                    "cowardly refusing to save to a terminal. Use the -o flag or redirect",
                ));
            }
            return Ok(Self { file: None });
        }
        let final_path = std::path::Path::new(path);
        if fs_err::symlink_metadata(final_path).is_ok_and(|data| data.is_dir()) {
            return Err(Failure::new(format!("failed to {verb}: {path} is a directory")));
        }
        // A device or pipe is written to as it is.
        let special = fs_err::metadata(final_path).is_ok_and(|data| !data.is_file());
        let temporary =
            if special { path.to_owned() } else { format!("{path}.{}.tmp", std::process::id()) };
        let opened = if special {
            fs_err::OpenOptions::new().write(true).open(&temporary)
        } else {
            File::create(&temporary)
        };
        let file = opened.map_err(|error| Failure::new(format!("failed to {verb}: {error}")))?;
        Ok(Self { file: Some((file, temporary, path.to_owned())) })
    }

    pub(super) async fn take(mut self, mut answer: Response) -> Outcome {
        let mut stdout = std::io::stdout().lock();
        while let Some(chunk) = answer.chunk().await? {
            let written = match &mut self.file {
                Some((file, ..)) => file.write_all(&chunk),
                None => stdout.write_all(&chunk),
            };
            written.map_err(|error| Failure::io("output", &error))?;
        }
        if let Some((file, temporary, path)) = self.file.take() {
            drop(file);
            if temporary != path {
                fs_err::rename(&temporary, &path)
                    .map_err(|error| Failure::new(error.to_string()))?;
            }
        }
        stdout.flush().map_err(|error| Failure::io("stdout", &error))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((_, temporary, path)) = &self.file
            && temporary != path
        {
            fs_err::remove_file(temporary).ok();
        }
    }
}

/// `export`
pub(crate) async fn export(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<OutputFlags>()?;
    let target = Target::new(&flags.output, "export container")?;
    let client = invocation.cli.client().await?;
    let answer = client.get(format!("/containers/{}/export", words[0])).send().await?;
    target.take(answer).await
}

/// `save`
pub(crate) async fn save(invocation: Invocation) -> Outcome {
    let (flags, names) = invocation.parse::<SaveFlags>()?;
    save_images(&invocation, &flags.output, &names, &flags.platform).await
}

/// Writes an archive of images to a file or to stdout.
pub(super) async fn save_images(
    invocation: &Invocation,
    output: &str,
    names: &[String],
    platforms: &[String],
) -> Outcome {
    let target = Target::new(output, "save image")?;
    let client = invocation.cli.client().await?;
    let mut request = client.get("/images/get");
    for name in names {
        request = request.query("names", name);
    }
    for platform in platforms {
        request = request.query("platform", platform_json(platform));
    }
    target.take(request.send().await?).await
}

/// `load`
pub(crate) async fn load(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<LoadFlags>()?;
    load_images(&invocation, &flags.input, flags.quiet, &flags.platform).await
}

/// Loads an archive of images from a file or from stdin.
pub(super) async fn load_images(
    invocation: &Invocation,
    input: &str,
    quiet: bool,
    platforms: &[String],
) -> Outcome {
    let body = if input.is_empty() {
        if terminal::stdin_is_terminal() {
            return Err(Failure::new("requested load from stdin, but stdin is empty"));
        }
        upload(std::io::stdin())
    } else {
        upload(open(input)?)
    };
    let client = invocation.cli.client().await?;
    // Progress is for eyes only.
    let quiet = quiet || !terminal::stdout_is_terminal();
    let mut request = client.post("/images/load").query("quiet", if quiet { "1" } else { "0" });
    for platform in platforms {
        request = request.query("platform", platform_json(platform));
    }
    show(request.body("application/x-tar", body).send().await?, Sink::Stdout).await
}

/// `import`
pub(crate) async fn import(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<ImportFlags>()?;
    let source = &words[0];
    let remote = source.starts_with("http://") || source.starts_with("https://");
    let body = if remote {
        Body::empty()
    } else if source == "-" {
        upload(std::io::stdin())
    } else {
        upload(open(source)?)
    };
    let client = invocation.cli.client().await?;
    let mut request = client
        .post("/images/create")
        .query("fromSrc", if remote { source.as_str() } else { "-" })
        .query("message", &flags.message);
    if let Some(name) = words.get(1) {
        Reference::parse(name).map_err(|error| Failure::new(error.to_string()))?;
        request = request.query("repo", name);
    }
    request = request.query_some("platform", flags.platform.as_deref().map(str::to_lowercase));
    for change in &flags.change {
        request = request.query("changes", change);
    }
    show(request.body("text/plain", body).send().await?, Sink::Stdout).await
}

pub(super) fn open(path: &str) -> Outcome<File> {
    File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::new(format!("open {path}: no such file or directory"))
        }
        _ => Failure::new(error.to_string()),
    })
}

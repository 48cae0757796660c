//! `cp`: files between a container and this machine, as tar streams.
//!
//! What the paths mean follows `cp -a` and Docker: an existing directory takes the source under
//! its own name, anything else gives the copy its name, and a source that ends in `/.` stands for
//! the directory's contents.

mod pack;
mod unpack;

use std::io::{BufRead, Read, Write};
use std::path::{Component, Path, PathBuf};

use bytes::{Buf, Bytes};
use silo_client::{Body, BodySender, Client, ClientError, Response};
use tokio::sync::mpsc;

use crate::command::Invocation;
use crate::commands::upload;
use crate::config::base64_decode;
use crate::context::warn;
use crate::failure::{Failure, Outcome};
use crate::flags::flags;
use crate::terminal;
use crate::value::Value;

flags! {
    /// Flags of `cp`.
    CpFlags {
        archive: bool, ['a'] "archive", "Archive mode (copy all uid/gid information)";
        follow_link: bool, ['L'] "follow-link", "Always follow symlinks in SRC_PATH";
        quiet: bool, ['q'] "quiet", "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached";
    }
}

/// Go's bits of a file mode that are asked for here.
const GO_DIRECTORY: i64 = 1 << 31;
const GO_SYMLINK: i64 = 1 << 27;

/// One side of a copy, as far as it decides names.
#[derive(Debug, Clone, Default)]
struct Side {
    path: String,
    exists: bool,
    is_dir: bool,
}

/// `cp`
pub(crate) async fn cp(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<CpFlags>()?;
    if words[0].is_empty() {
        return Err(Failure::new("source can not be empty"));
    }
    if words[1].is_empty() {
        return Err(Failure::new("destination can not be empty"));
    }
    match (split(&words[0]), split(&words[1])) {
        ((Some(container), source), (None, target)) => {
            let client = invocation.cli.client().await?;
            from_container(&client, &flags, container, &slashes(source), target).await
        }
        ((None, source), (Some(container), target)) => {
            let client = invocation.cli.client().await?;
            to_container(&client, &flags, source, container, &slashes(target)).await
        }
        ((Some(_), _), (Some(_), _)) => {
            Err(Failure::new("copying between containers is not supported"))
        }
        _ => Err(Failure::new("must specify at least one container source")),
    }
}

/// `CONTAINER:PATH`; a local path with a colon is written with `./` or `/` before it.
fn split(argument: &str) -> (Option<&str>, &str) {
    if argument.starts_with('/') {
        return (None, argument);
    }
    match argument.split_once(':') {
        Some((container, path)) if !container.starts_with('.') && !container.is_empty() => {
            (Some(container), path)
        }
        _ => (None, argument),
    }
}

/// A path of a Windows container, `C:\\folder`, with the slashes that the rest works with.
fn slashes(path: &str) -> std::borrow::Cow<'_, str> {
    match path.as_bytes() {
        [letter, b':', b'\\', ..] if letter.is_ascii_alphabetic() => path.replace('\\', "/").into(),
        _ => path.into(),
    }
}

/// Directory and last element of a path. `.` at the end is an element, since it says "contents".
fn split_path(path: &str) -> (String, String) {
    let dot = path == "." || path.ends_with("/.");
    let clean = clean(path);
    if dot {
        return (clean, ".".to_owned());
    }
    match clean.rsplit_once('/') {
        Some(("", "")) => ("/".into(), "/".into()),
        Some(("", last)) => ("/".into(), last.to_owned()),
        Some((directory, last)) => (directory.to_owned(), last.to_owned()),
        None => (".".to_owned(), clean),
    }
}

/// The path without `.`, `..` and double slashes.
fn clean(path: &str) -> String {
    let mut out = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::ParentDir => {
                if !out.pop() {
                    out.push("..");
                }
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    let text = out.to_string_lossy().into_owned();
    if text.is_empty() { ".".to_owned() } else { text }
}

fn says_directory(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.") || path == "."
}

/// Where the archive is unpacked, and which first element gets which other name.
fn plan(source: &Side, target: &Side) -> Outcome<(String, Option<(String, String)>)> {
    let (_, source_base) = split_path(&source.path);
    let (target_dir, target_base) = split_path(&target.path);
    if target.exists && target.is_dir {
        return Ok((target.path.clone(), None));
    }
    if target.exists && source.is_dir {
        return Err(Failure::new("cannot copy directory"));
    }
    if !target.exists && !source.is_dir && says_directory(&target.path) {
        return Err(Failure::new("no such directory"));
    }
    Ok((target_dir, Some((source_base, target_base))))
}

/// Gives the first element of an archive's name its new name.
fn rename(name: &[u8], renamed: Option<&(String, String)>) -> Vec<u8> {
    let Some((old, new)) = renamed else { return name.to_vec() };
    let text = name.strip_prefix(b"./").unwrap_or(name);
    if old == "." || old == "/" {
        let rest = text.strip_prefix(b".").filter(|rest| rest.is_empty()).unwrap_or(text);
        return [new.as_bytes(), b"/", rest].concat();
    }
    match text.strip_prefix(old.as_bytes()) {
        Some(rest) if rest.is_empty() || rest.starts_with(b"/") => [new.as_bytes(), rest].concat(),
        _ => name.to_vec(),
    }
}

/// What the engine says of a path, from the header of an answer.
fn stat_of(answer: &Response) -> Value {
    answer
        .headers()
        .get("x-docker-container-path-stat")
        .and_then(|value| value.to_str().ok())
        .and_then(base64_decode)
        .and_then(|json| Value::parse(&json).ok())
        .unwrap_or_default()
}

async fn stat(client: &Client, container: &str, path: &str) -> Result<Value, ClientError> {
    let answer = client
        .request(silo_client::Method::HEAD, format!("/containers/{container}/archive"))
        .query("path", path)
        .send()
        .await?;
    let stat = stat_of(&answer);
    answer.bytes().await?;
    Ok(stat)
}

/// The link's target, seen from the root.
fn follow(path: &str, target: &str) -> String {
    if target.starts_with('/') {
        return target.to_owned();
    }
    let (directory, _) = split_path(path);
    clean(&format!("{directory}/{target}"))
}

async fn from_container(
    client: &Client,
    flags: &CpFlags,
    container: &str,
    source: &str,
    target: &str,
) -> Outcome {
    let mut source_path = source.to_owned();
    let (_, given_base) = split_path(source);
    if flags.follow_link
        && let Ok(found) = stat(client, container, source).await
        && found.get("mode").int() & GO_SYMLINK != 0
    {
        source_path = follow(source, found.get("linkTarget").str());
    }
    let answer = client
        .get(format!("/containers/{container}/archive"))
        .query("path", &source_path)
        .send()
        .await?;
    if target == "-" {
        return copy_out(answer).await;
    }
    let found = stat_of(&answer);
    let is_dir = found.get("mode").int() & GO_DIRECTORY != 0;
    let source_side = Side { path: source_path.clone(), exists: true, is_dir };
    let target_side = local_target(target)?;
    let (directory, mut renamed) = plan(&source_side, &target_side)?;
    if renamed.is_none() && source_path != source {
        // A followed link keeps the name that was asked for.
        renamed = Some((split_path(&source_path).1, given_base));
    }
    let (sender, receiver) = mpsc::channel(4);
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut input = ChannelReader { receiver, current: Bytes::new(), total: 0 };
        let result = unpack::unpack(&mut input, Path::new(&directory), renamed.as_ref());
        // What follows the archive's end is padding, which the engine must be able to send.
        std::io::copy(&mut input, &mut std::io::sink()).ok();
        result.map(|()| input.total)
    });
    let mut answer = answer;
    while let Some(chunk) = answer.chunk().await? {
        if sender.send(chunk).await.is_err() {
            break;
        }
    }
    drop(sender);
    let total = unpacking.await.map_err(|error| Failure::new(error.to_string()))??;
    report(flags, total, target);
    Ok(())
}

async fn copy_out(mut answer: Response) -> Outcome {
    if terminal::stdout_is_terminal() {
        return Err(Failure::new("cowardly refusing to write an archive to a terminal"));
    }
    let mut stdout = std::io::stdout().lock();
    while let Some(chunk) = answer.chunk().await? {
        stdout.write_all(&chunk).map_err(|error| Failure::io("stdout", &error))?;
    }
    stdout.flush().map_err(|error| Failure::io("stdout", &error))
}

/// What is at a local destination, links followed.
fn local_target(target: &str) -> Outcome<Side> {
    let path = Path::new(target);
    let mut side = Side { path: target.to_owned(), exists: false, is_dir: false };
    if let Ok(data) = fs_err::metadata(path) {
        side.exists = true;
        side.is_dir = data.is_dir();
        if !data.is_dir() && !data.is_file() {
            return Err(Failure::new(format!(
                "invalid output path: {target:?} must be a directory or a regular file"
            )));
        }
    } else {
        let (directory, _) = split_path(target);
        if fs_err::metadata(&directory).is_err() {
            return Err(Failure::new(format!(
                "invalid output path: directory {directory:?} does not exist"
            )));
        }
    }
    Ok(side)
}

async fn to_container(
    client: &Client,
    flags: &CpFlags,
    source: &str,
    container: &str,
    target: &str,
) -> Outcome {
    let mut side = Side { path: target.to_owned(), ..Side::default() };
    match stat(client, container, target).await {
        Ok(mut found) => {
            if found.get("mode").int() & GO_SYMLINK != 0 {
                side.path = follow(target, found.get("linkTarget").str());
                found = stat(client, container, &side.path).await.unwrap_or_default();
            }
            side.exists = found != Value::Nil;
            side.is_dir = found.get("mode").int() & GO_DIRECTORY != 0;
        }
        // A missing path is about to be made, but the container itself may be what is missing.
        Err(ClientError::Engine { .. }) => {
            client.get(format!("/containers/{container}/json")).done().await?;
        }
        Err(error) => return Err(error.into()),
    }
    let (directory, body) = if source == "-" {
        if !side.is_dir {
            return Err(Failure::new(format!(
                "destination \"{container}:{target}\" must be a directory"
            )));
        }
        (side.path.clone(), upload(std::io::stdin()))
    } else {
        let source_side = local_source(source, flags.follow_link)?;
        let (directory, renamed) = plan(&source_side, &side)?;
        let (sender, body) = Body::stream();
        let base = split_path(source).1;
        let path = PathBuf::from(&source_side.path);
        tokio::task::spawn_blocking(move || {
            let first = rename(base.as_bytes(), renamed.as_ref());
            let mut output =
                std::io::BufWriter::with_capacity(256 * 1024, Upload { sender: sender.clone() });
            if let Err(error) = pack::pack(&path, &first, &mut output) {
                sender.fail_blocking(error);
            }
        });
        (directory, body)
    };
    client
        .put(format!("/containers/{container}/archive"))
        .query("path", &directory)
        .query("noOverwriteDirNonDir", "true")
        .query_some("copyUIDGID", flags.archive.then_some("true"))
        .body("application/x-tar", body)
        .done()
        .await?;
    report(flags, 0, &format!("{container}:{target}"));
    Ok(())
}

fn local_source(source: &str, follow_link: bool) -> Outcome<Side> {
    let path = Path::new(source);
    let data = if follow_link || source.ends_with('/') {
        fs_err::metadata(path)
    } else {
        fs_err::symlink_metadata(path)
    };
    match data {
        Ok(data) => {
            let resolved = if follow_link {
                fs_err::canonicalize(path)
                    .map_or_else(|_| source.to_owned(), |path| path.to_string_lossy().into_owned())
            } else {
                source.to_owned()
            };
            // The name stays the one that was given; `plan` only looks at the end of it.
            let path = if source.ends_with("/.") { format!("{resolved}/.") } else { resolved };
            Ok(Side { path, exists: true, is_dir: data.is_dir() })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::new(format!("lstat {source}: no such file or directory")))
        }
        Err(error) => Err(Failure::new(error.to_string())),
    }
}

fn report(flags: &CpFlags, bytes: u64, target: &str) {
    if flags.quiet || !terminal::stderr_is_terminal() {
        return;
    }
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let size = silo_types::size::human_with_precision(bytes as f64, 3);
    let amount = if bytes == 0 { String::new() } else { format!(" {size}") };
    warn(&format!("Successfully copied{amount} to {target}"));
}

/// Reads what another task puts into a channel.
struct ChannelReader {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
    total: u64,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let available = self.fill_buf()?;
        let length = buffer.len().min(available.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for ChannelReader {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(bytes) => self.current = bytes,
                None => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, length: usize) {
        self.current.advance(length);
        self.total += length as u64;
    }
}

/// Writes into a request's body.
struct Upload {
    sender: BodySender,
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.sender.send_blocking(bytes.to_vec()) {
            Ok(bytes.len())
        } else {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        for (argument, container, path) in [
            ("c:/x", Some("c"), "/x"),
            ("/a:b", None, "/a:b"),
            ("./a:b", None, "./a:b"),
            ("a", None, "a"),
            ("-", None, "-"),
            ("c:x", Some("c"), "x"),
        ] {
            assert_eq!(split(argument), (container, path));
        }
    }

    #[test]
    fn paths_of_windows_have_slashes() {
        for (path, plain) in
            [("C:\\a\\b\\", "C:/a/b/"), ("/a\\b", "/a\\b"), ("C:x\\y", "C:x\\y"), ("c:", "c:")]
        {
            assert_eq!(slashes(path), plain);
        }
    }

    #[test]
    fn plans() {
        let side = |path: &str, exists, is_dir| Side { path: path.into(), exists, is_dir };
        let renamed = |old: &str, new: &str| Some((old.to_owned(), new.to_owned()));
        for (source, target, expected) in [
            (side("/s/f", true, false), side("/d", true, true), ("/d", None)),
            (side("/s/f", true, false), side("/d/g", false, false), ("/d", renamed("f", "g"))),
            (side("/s/f", true, false), side("/d/g", true, false), ("/d", renamed("f", "g"))),
            (
                side("/s/dir", true, true),
                side("/d/new", false, false),
                ("/d", renamed("dir", "new")),
            ),
            (
                side("/s/dir/.", true, true),
                side("/d/new", false, false),
                ("/d", renamed(".", "new")),
            ),
            (side("/s/dir/.", true, true), side("/d", true, true), ("/d", None)),
        ] {
            let (directory, names) = plan(&source, &target).unwrap();
            assert_eq!((directory.as_str(), names), expected);
        }
        let error = |source: &Side, target: &Side| plan(source, target).unwrap_err().message;
        assert_eq!(
            error(&side("/s", true, true), &side("/f", true, false)),
            "cannot copy directory"
        );
        assert_eq!(
            error(&side("/s/f", true, false), &side("/d/", false, false)),
            "no such directory"
        );
    }

    #[test]
    fn renames() {
        let pair = |old: &str, new: &str| (old.to_owned(), new.to_owned());
        for (name, names, expected) in [
            ("f", Some(pair("f", "g")), "g"),
            ("dir/f", Some(pair("dir", "new")), "new/f"),
            ("dirx/f", Some(pair("dir", "new")), "dirx/f"),
            ("./a", Some(pair(".", "new")), "new/a"),
            (".", Some(pair(".", "new")), "new/"),
            ("a", None, "a"),
        ] {
            assert_eq!(rename(name.as_bytes(), names.as_ref()), expected.as_bytes(), "{name}");
        }
    }
}

//! What the builder fetches itself: files and archives by HTTP, and git repositories.
//!
//! Servers are not trusted: what they send is written below a private directory only. `git` runs
//! without hooks and configuration of anybody, and only with the protocols that go over a network.
//! References and directories that begin with `-` or leave the repository are refused
//! (CVE-2019-13139).

use std::io::{BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};
use sha2::{Digest as _, Sha256};
use silo_archive::{Reader, compress};
use silo_types::{Digest, Error, ErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::Boxed;
use crate::attest::capture::Capture;
use crate::builder::Builder;
use crate::context::{Context, ContextRef, Digests, Filter, Transfer, Tree};
pub(crate) use crate::git_ref::{GitRef, is_url};
use crate::job::{Work, blocking};
use crate::mounts::Agent;
use crate::outcome::BuildError;
use crate::progress::Stream;
use crate::scratch::Scratch;
use crate::secret::SshAgents;

/// Bytes of what a program writes that are kept of each of its outputs.
const MAX_OUTPUT: u64 = 256 << 10;
/// The name of a file whose URL has none.
const UNNAMED: &str = "__unnamed__";
/// The agent of the client that git may use.
const DEFAULT_AGENT: &str = "default";

/// A remote source.
#[derive(Debug, Clone)]
pub(crate) enum Remote {
    /// A file at a URL.
    Http(String),
    /// A repository; with its `.git`.
    Git(GitRef, bool),
}

/// Whether a file is an archive that `ADD` unpacks.
pub(crate) fn is_archive(file: std::fs::File) -> bool {
    let Ok((compression, input)) = compress::detect(file) else { return false };
    let Ok(input) = compress::decoder(compression, BufReader::new(input)) else { return false };
    Reader::new(BufReader::new(input)).next_entry().is_ok_and(|entry| entry.is_some())
}

/// A context whose files are all here.
#[derive(Debug)]
pub(crate) struct Fixed(pub(crate) Arc<Tree>);

impl Context for Fixed {
    fn tree<'a>(
        &'a self,
        _filter: &'a Filter,
        _transfer: &'a Transfer<'a>,
    ) -> Boxed<'a, Result<Arc<Tree>, Error>> {
        Box::pin(async { Ok(Arc::clone(&self.0)) })
    }
}

impl Builder {
    /// A new private directory.
    pub(crate) fn scratch(&self) -> Result<Scratch, Error> {
        Scratch::new(&self.directory.join("scratch"))
    }

    /// The files of a context.
    pub(crate) async fn files_of(
        &self,
        context: &ContextRef,
        ssh: &Arc<dyn SshAgents>,
        capture: &Capture,
    ) -> Result<Arc<dyn Context>, BuildError> {
        let invalid = |text| BuildError::new(ErrorKind::InvalidParameter, text);
        match context {
            ContextRef::Files(files) => Ok(Arc::clone(files)),
            ContextRef::Git(url) => {
                let reference = GitRef::parse(url).map_err(invalid)?;
                let reference =
                    reference.ok_or_else(|| invalid(format!("{url:?} is not a git repository")))?;
                let remote = Remote::Git(reference, false);
                let tree = self.fetch(&remote, None, None, (ssh, capture)).await?;
                Ok(Arc::new(Fixed(tree)))
            }
            ContextRef::Http(url) => {
                let remote = Remote::Http(url.clone());
                let tree = self.fetch(&remote, None, None, (ssh, capture)).await?;
                self.unpacked(tree).await
            }
            ContextRef::Empty => {
                let scratch = self.scratch()?;
                let path = scratch.path().to_owned();
                let tree = Tree::open(&path, Arc::default(), Some(Box::new(scratch)))?;
                Ok(Arc::new(Fixed(Arc::new(tree))))
            }
            ContextRef::Layout { digest, .. } => {
                Err(invalid(format!("image layout {digest} is not a context")))
            }
            ContextRef::Image(name) => Err(invalid(format!("image {name} is not a context"))),
        }
    }

    /// A context of an archive that was fetched; anything else is its Dockerfile.
    async fn unpacked(&self, tree: Arc<Tree>) -> Result<Arc<dyn Context>, BuildError> {
        let scratch = self.scratch()?;
        blocking(move || {
            let failed = |error: std::io::Error| Error::internal(format!("read context: {error}"));
            let open = || -> std::io::Result<std::fs::File> {
                let directory = silo_sys::path::reopen(tree.root(), OFlags::RDONLY)?;
                let mut entries = rustix::fs::Dir::read_from(&directory)?;
                while let Some(entry) = entries.read() {
                    let entry = entry?;
                    let name = entry.file_name();
                    if name != c"." && name != c".." {
                        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                        let file = rustix::fs::openat(&directory, name, flags, Mode::empty())?;
                        return Ok(file.into());
                    }
                }
                Err(std::io::ErrorKind::NotFound.into())
            };
            if is_archive(open().map_err(failed)?) {
                let tree = unpack(scratch, open().map_err(failed)?)?;
                return Ok(Arc::new(Fixed(Arc::new(tree))) as Arc<dyn Context>);
            }
            let path = scratch.path().to_owned();
            let mut text = Vec::new();
            let limit = silo_dockerfile::MAX_FILE as u64 + 1;
            open().and_then(|file| file.take(limit).read_to_end(&mut text)).map_err(failed)?;
            fs_err::write(path.join("Dockerfile"), text).map_err(failed)?;
            let tree = Tree::open(&path, Arc::default(), Some(Box::new(scratch)))?;
            Ok(Arc::new(Fixed(Arc::new(tree))) as Arc<dyn Context>)
        })
        .await
    }

    /// Fetches a remote source into a tree: a file alone, or a repository's files.
    pub(crate) async fn fetch(
        &self,
        remote: &Remote,
        checksum: Option<&str>,
        work: Option<&Work>,
        (ssh, capture): (&Arc<dyn SshAgents>, &Capture),
    ) -> Result<Arc<Tree>, BuildError> {
        let scratch = self.scratch()?;
        match remote {
            Remote::Http(url) => {
                let (tree, digest) = self.fetch_file(scratch, url, checksum).await?;
                capture.http(url, digest);
                Ok(tree)
            }
            Remote::Git(reference, keep) => {
                let agent = self.agent_for(reference, ssh).await?;
                let keep = reference.keep.unwrap_or(*keep);
                let (tree, commit) =
                    git(scratch, reference.clone(), keep, checksum, work, agent).await?;
                capture.git(&reference.remote, &reference.reference, &commit);
                Ok(Arc::new(tree))
            }
        }
    }

    /// The client's agent, where a repository may need it.
    async fn agent_for(
        &self,
        source: &GitRef,
        ssh: &Arc<dyn SshAgents>,
    ) -> Result<Option<Agent>, BuildError> {
        if is_url(&source.remote) || source.remote.starts_with("git://") {
            return Ok(None);
        }
        if !ssh.has(DEFAULT_AGENT).await? {
            return Ok(None);
        }
        let agent =
            Agent::listen(self.scratch()?, Arc::clone(ssh), DEFAULT_AGENT.into(), 0o600, (0, 0));
        let agent =
            agent.map_err(|error| Error::internal(format!("forward an ssh agent: {error}")))?;
        Ok(Some(agent))
    }

    async fn fetch_file(
        &self,
        scratch: Scratch,
        url: &str,
        checksum: Option<&str>,
    ) -> Result<(Arc<Tree>, Digest), BuildError> {
        let parsed = silo_http::parse_url(url).map_err(Error::from_kind)?;
        let download = self.engine.http().get(&parsed).await.map_err(Error::from_kind)?;
        let name = file_name(parsed.path());
        let modified = download
            .headers()
            .get("last-modified")
            .and_then(|value| value.to_str().ok())
            .and_then(|text| jiff::fmt::rfc2822::parse(text).ok())
            .map_or(0, |time| time.timestamp().as_second());
        let (url, checksum) = (url.to_owned(), checksum.map(str::to_owned));
        blocking(move || {
            let path = scratch.path().join(&name);
            let mut input = download.into_reader();
            let mut write = || -> std::io::Result<[u8; 32]> {
                use std::os::unix::fs::OpenOptionsExt as _;
                let mut options = fs_err::OpenOptions::new();
                options.options_mut().mode(0o600);
                let mut file = options.write(true).create_new(true).open(&path)?;
                let mut hash = Sha256::new();
                let mut buffer = vec![0; 256 << 10];
                loop {
                    let count = input.read(&mut buffer)?;
                    if count == 0 {
                        break;
                    }
                    hash.update(&buffer[..count]);
                    file.write_all(&buffer[..count])?;
                }
                let time = rustix::fs::Timespec { tv_sec: modified, tv_nsec: 0 };
                let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
                rustix::fs::futimens(file.file(), &times)?;
                Ok(hash.finalize().into())
            };
            let digest = write()
                .map_err(|error| Error::internal(format!("failed to load {url}: {error}")))?;
            let actual = format!("sha256:{}", silo_types::digest::hex(&digest));
            if let Some(wanted) = checksum.filter(|wanted| *wanted != actual) {
                // buildkit wording
                let text = format!("digest mismatch {actual}: {wanted}");
                return Err(BuildError::new(ErrorKind::InvalidParameter, text));
            }
            let directory = scratch.path().to_owned();
            let tree = Tree::open(&directory, Arc::default(), Some(Box::new(scratch)))?;
            Ok((Arc::new(tree), Digest::from_sha256(digest)))
        })
        .await
    }
}

/// The last part of a URL's path.
fn file_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    match name {
        "" | "." | ".." => UNNAMED.to_owned(),
        name => name.to_owned(),
    }
}

/// Unpacks a context, compressed or not, into a private directory. Its files belong to root, and
/// are hashed on the way.
pub(crate) fn unpack(scratch: Scratch, input: impl Read + Send) -> Result<Tree, Error> {
    let path = scratch.directory("files")?;
    let root = silo_sys::path::open_root(&path)
        .map_err(|error| Error::internal(format!("open {}: {error}", path.display())))?;
    let digests = Arc::<Digests>::default();
    let observer: Arc<dyn silo_store::tree::Observer> = Arc::clone(&digests) as _;
    let options = silo_store::tree::UnpackOptions {
        owner: Some((0, 0)),
        is_new: true,
        observer: Some(&observer),
        ..silo_store::tree::UnpackOptions::default()
    };
    silo_store::tree::unpack_into(&root, Path::new(""), input, options)
        .map_err(Error::from_kind)?;
    Ok(Tree::open(&path, digests, Some(Box::new(scratch)))?.giving_files())
}

/// Runs a program that speaks to strangers: of what it writes only the beginning is kept, and it
/// ends with all that it has started when the future is dropped.
async fn run_bounded(mut command: Command) -> std::io::Result<Output> {
    /// Kills a group of processes whose first was not waited for.
    struct Group(Option<Pid>);
    impl Drop for Group {
        fn drop(&mut self) {
            if let Some(group) = self.0 {
                // It may have ended.
                let _gone = rustix::process::kill_process_group(group, Signal::KILL);
            }
        }
    }
    async fn beginning(pipe: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
        let mut kept = Vec::new();
        let mut pipe = pipe.take(MAX_OUTPUT);
        pipe.read_to_end(&mut kept).await?;
        tokio::io::copy(&mut pipe.into_inner(), &mut tokio::io::sink()).await?;
        Ok(kept)
    }
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(std::io::Error::other("no output"));
    };
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(id.and_then(Pid::from_raw));
    let (stdout, stderr) = tokio::try_join!(beginning(stdout), beginning(stderr))?;
    let status = child.wait().await?;
    group.0 = None;
    Ok(Output { status, stdout, stderr })
}

/// Fetches one commit of a repository.
async fn git(
    scratch: Scratch,
    source: GitRef,
    keep: bool,
    checksum: Option<&str>,
    work: Option<&Work>,
    agent: Option<Agent>,
) -> Result<(Tree, String), BuildError> {
    let checkout = scratch.directory("files")?;
    let home = scratch.directory("home")?;
    // Without an agent there is nobody to prove it to. With one, a host that nobody knows yet is
    // taken for what it says, as BuildKit does; one that is known must be the same.
    let known = format!("-o UserKnownHostsFile={}/known_hosts", home.display());
    let ssh = format!(
        "ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none \
         -o StrictHostKeyChecking=accept-new {known}"
    );
    let run = async |arguments: &[&str]| -> Result<String, BuildError> {
        let mut command = Command::new("git");
        command
            .args(["-c", "protocol.allow=never"])
            .args(
                ["http", "https", "git", "ssh"]
                    .iter()
                    .flat_map(|name| ["-c".to_owned(), format!("protocol.{name}.allow=always")]),
            )
            .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"])
            .args(["-c", "init.templateDir=", "-c", "init.defaultBranch=main"])
            .args(arguments)
            .current_dir(&checkout)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &home)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_SSH_COMMAND", &ssh)
            .stdin(Stdio::null());
        if let Some(agent) = &agent {
            command.env("SSH_AUTH_SOCK", agent.path());
        }
        let failed = |text: String| BuildError::new(ErrorKind::Internal, text);
        let output = run_bounded(command).await;
        let output = output.map_err(|error| failed(format!("cannot run git: {error}")))?;
        if let Some(work) = work {
            work.log(Stream::Stderr, output.stderr.clone().into());
        }
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(failed(format!("failed to fetch {}: {}", source.remote, text.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    run(&["init", "--quiet"]).await?;
    // Submodules whose places are relative are beside what this name stands for.
    run(&["config", "remote.origin.url", &source.remote]).await?;
    let reference = if source.reference.is_empty() { "HEAD" } else { &source.reference };
    let fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--", &source.remote, reference];
    if run(&fetch).await.is_err() {
        // Servers need not give out a commit that no name leads to, nor a part of the history.
        let all = ["HEAD", "+refs/heads/*:refs/heads/*"];
        let fetch = ["fetch", "--quiet", "--tags", "--update-head-ok", "--", &source.remote];
        run(&[&fetch[..], &all].concat()).await?;
        let found = if source.reference.is_empty() { "FETCH_HEAD" } else { reference };
        run(&["checkout", "--quiet", "--force", "--detach", found]).await?;
    } else {
        run(&["checkout", "--quiet", "--detach", "FETCH_HEAD"]).await?;
    }
    let commit = run(&["rev-parse", "HEAD"]).await?;
    for wanted in [checksum, source.checksum.as_deref()].into_iter().flatten() {
        if !commit.starts_with(wanted) {
            // buildkit wording
            let text = format!("expected checksum to match {wanted}, got {commit}");
            return Err(BuildError::new(ErrorKind::InvalidParameter, text));
        }
    }
    if !source.no_submodules {
        let update = ["submodule", "--quiet", "update", "--init", "--recursive"];
        if run(&[&update[..], &["--depth=1"]].concat()).await.is_err() {
            // What came without its past would not be asked for the rest.
            run(&["submodule", "--quiet", "deinit", "--force", "--all"]).await?;
            crate::scratch::remove(&checkout.join(".git/modules"));
            run(&update).await?;
        }
    }
    blocking(move || {
        let failed = |error: std::io::Error| {
            // docker wording
            let text = format!("error setting git checkout directory: {error}");
            BuildError::new(ErrorKind::InvalidParameter, text)
        };
        if !keep {
            crate::scratch::remove(&checkout.join(".git"));
        }
        let root = silo_sys::path::open_root(&checkout).map_err(failed)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let directory = Path::new(&source.directory);
        let root =
            silo_sys::path::open_in_root(&root, directory, flags, Mode::empty()).map_err(failed)?;
        Ok((Tree::of(root, Arc::default(), Some(Box::new(scratch))), commit))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn programs_are_held_to_bounds() {
        let mut command = Command::new("sh");
        command.args(["-c", "yes | head -c 1000000; echo said >&2; exit 3"]);
        let output = run_bounded(command).await.unwrap();
        assert_eq!(output.stdout.len() as u64, MAX_OUTPUT);
        assert_eq!((&*output.stderr, output.status.code()), (&b"said\n"[..], Some(3)));
        // What it has started ends with it, so that nobody holds the pipe any more.
        let (mut ended, held) = std::io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "exec 3>&0; sleep 1000 & echo >&3; wait"]).stdin(held);
        let running = tokio::spawn(run_bounded(command));
        let begun = tokio::task::spawn_blocking(move || (ended.read(&mut [0]).unwrap(), ended));
        let (count, mut ended) = begun.await.unwrap();
        assert_eq!(count, 1);
        running.abort();
        let rest = tokio::task::spawn_blocking(move || ended.read(&mut [0]).unwrap());
        assert_eq!(rest.await.unwrap(), 0);
    }

    #[test]
    fn names_of_files() {
        for (path, name) in [("/a/b.txt", "b.txt"), ("/", UNNAMED), ("/a/..", UNNAMED)] {
            assert_eq!(file_name(path), name);
        }
    }
}

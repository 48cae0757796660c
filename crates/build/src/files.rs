//! `COPY`, `ADD` and `WORKDIR`: steps that need no container.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use silo_dockerfile::ast;
use silo_dockerfile::ignore::Patterns;
use silo_engine::Engine;
use silo_engine::builds::{HeldLayer, Workspace};
use silo_types::{Digest, Error, ErrorKind};

use crate::adopt::{self, Candidate};
use crate::cache::{Hit, KeyBuilder, Record};
use crate::context::{ContextRef, Digests, Tree};
use crate::copy::chmod::Chmod;
use crate::copy::copier::{Copier, Options};
use crate::copy::digest::Hasher;
use crate::copy::resolve::{self, Names};
use crate::copy::select::{Filter, Found, select};
use crate::copy::{CopyError, owner};
use crate::fetch;
use crate::job::{Job, Work, blocking};
use crate::outcome::BuildError;
use crate::plan::Origin;
use crate::progress::{NoteKind, Stream};
use crate::stage::Turn;
use crate::state::State;

/// `COPY` or `ADD`.
#[derive(Debug, Clone, Default)]
pub(crate) struct CopyStep {
    sources: ast::Sources,
    from: Option<String>,
    chown: Option<String>,
    chmod: Option<String>,
    link: bool,
    parents: bool,
    exclude: Vec<String>,
    /// It is `ADD`.
    is_add: bool,
    keep_git_dir: bool,
    checksum: Option<String>,
    unpack: Option<bool>,
}

impl From<ast::Copy> for CopyStep {
    fn from(copy: ast::Copy) -> Self {
        Self {
            sources: copy.sources,
            from: copy.from,
            chown: copy.chown,
            chmod: copy.chmod,
            link: copy.link,
            parents: copy.parents,
            exclude: copy.exclude,
            ..Self::default()
        }
    }
}

impl From<ast::Add> for CopyStep {
    fn from(add: ast::Add) -> Self {
        Self {
            sources: add.sources,
            chown: add.chown,
            chmod: add.chmod,
            link: add.link,
            exclude: add.exclude,
            is_add: true,
            keep_git_dir: add.keep_git_dir.unwrap_or(false),
            checksum: add.checksum,
            unpack: add.unpack,
            ..Self::default()
        }
    }
}

impl CopyStep {
    /// The step as BuildKit's history has it: of the flags those that are about the files.
    fn created_by(&self) -> String {
        let mut words = vec![if self.is_add { "ADD" } else { "COPY" }.to_owned()];
        words.extend(self.parents.then(|| "--parents".to_owned()));
        words.extend(self.chown.as_ref().map(|owner| format!("--chown={owner}")));
        words.extend(self.chmod.as_ref().map(|mode| format!("--chmod={mode}")));
        words.extend(self.sources.paths.iter().cloned());
        words.extend(self.sources.inline.iter().map(|source| format!("<<{}", source.name)));
        words.push(self.sources.destination.clone());
        format!("{} # buildkit", words.join(" "))
    }
}

/// Where files come from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) tree: Arc<Tree>,
    /// The layers that they are, where they are layers: then their contents need no look.
    pub(crate) chain: Option<Digest>,
    pub(crate) names: Names,
}

/// What is copied, found.
#[derive(Debug)]
struct Piece {
    source: Source,
    found: Vec<Found>,
    filter: Filter,
    /// Archives among them are unpacked.
    unpack: bool,
}

/// The layers after a step that made no container.
type Made = Option<HeldLayer>;

/// What such a step came to.
enum Finished {
    New(Made),
    /// A layer that an image has, and that is the same.
    Known(Candidate),
}

/// Makes a layer, unless one of the candidates has the same files.
fn finished(
    engine: &Engine,
    workspace: Workspace,
    candidates: Vec<Candidate>,
    latest: Option<i64>,
) -> Result<Finished, BuildError> {
    match adopt::same(engine.store(), workspace.upper(), candidates) {
        Some(candidate) => Ok(Finished::Known(candidate)),
        None => Ok(Finished::New(workspace.commit(latest)?)),
    }
}

impl Job {
    /// The files of a stage, an image or a context.
    pub(crate) async fn source(
        self: &Arc<Self>,
        turn: &Turn<'_>,
        from: Option<&str>,
        work: &Work,
    ) -> Result<Source, BuildError> {
        let Some(from) = from else {
            let tree = self.context(turn.step.is_none()).await?;
            return Ok(Source { tree, chain: None, names: Names::Exact });
        };
        let preferred = turn.stage.platform.as_ref().or(self.request.platform.as_ref());
        let state = match self.plan.origin(from, turn.stage.index, &self.request) {
            Origin::Stage(index) => State::clone(&*self.stage(index).await?),
            Origin::Image(name) => self.image_state(&name, None, preferred, work).await?,
            Origin::Scratch => State::scratch("linux", "", ""),
            Origin::Context(name) => match self.request.named_contexts.get(&name) {
                Some(ContextRef::Image(image)) => {
                    self.image_state(image, None, preferred, work).await?
                }
                Some(ContextRef::Layout { source, digest }) => {
                    self.layout_state(&name, source, *digest, preferred).await?
                }
                Some(ContextRef::Empty) | None => State::scratch("linux", "", ""),
                Some(context) => {
                    let ssh = &self.request.ssh;
                    let context = self.builder.files_of(context, ssh, &self.capture).await?;
                    let tree = self.named_tree(&name, &context).await?;
                    return Ok(Source { tree, chain: None, names: Names::Exact });
                }
            },
        };
        self.source_of(state).await
    }

    /// The files of a state.
    pub(crate) async fn source_of(&self, state: State) -> Result<Source, BuildError> {
        let engine = Arc::clone(&self.builder.engine);
        let (chain, names, windows) = (state.chain, state.names(), state.is_windows());
        blocking(move || {
            let root = engine.layers_root(chain, windows)?;
            // The layers stay as long as the tree.
            let keep: Box<dyn crate::context::Keep> = Box::new(state.leases);
            let tree = Arc::new(Tree::of(root, Arc::new(Digests::default()), Some(keep)));
            Ok(Source { tree, chain, names })
        })
        .await
    }

    /// `COPY` and `ADD`.
    pub(crate) async fn copy(
        self: &Arc<Self>,
        turn: &Turn<'_>,
        mut state: State,
        step: CopyStep,
    ) -> Result<State, BuildError> {
        let mut work = turn.work();
        let done = self.copy_files(turn, &mut state, step, &mut work).await;
        work.end(done.map_err(|error| turn.error(error)))?;
        Ok(state)
    }

    async fn copy_files(
        self: &Arc<Self>,
        turn: &Turn<'_>,
        state: &mut State,
        step: CopyStep,
        work: &mut Work,
    ) -> Result<(), BuildError> {
        let destination = state.place(&step.sources.destination)?;
        let chmod = step.chmod.as_deref().map(Chmod::parse).transpose()?;
        let patterns = |list: &[String]| {
            Patterns::new(list)
                .map_err(|error| BuildError::new(ErrorKind::InvalidParameter, error.to_string()))
        };
        let exclude = if step.exclude.is_empty() { None } else { Some(patterns(&step.exclude)?) };

        let mut local = Vec::new();
        let mut pieces: Vec<Piece> = Vec::new();
        let mut remote = Vec::new();
        for path in &step.sources.paths {
            if let Some(reference) = fetch::GitRef::parse(path)
                .map_err(|message| BuildError::new(ErrorKind::InvalidParameter, message))?
            {
                if !step.is_add {
                    let message = "source can't be a git ref for COPY"; // buildkit wording
                    return Err(BuildError::new(ErrorKind::InvalidParameter, message));
                }
                remote.push(fetch::Remote::Git(reference, step.keep_git_dir));
            } else if fetch::is_url(path) {
                if !step.is_add {
                    let message = "source can't be a URL for COPY"; // buildkit wording
                    return Err(BuildError::new(ErrorKind::InvalidParameter, message));
                }
                remote.push(fetch::Remote::Http(path.clone()));
            } else {
                local.push(path.clone());
            }
        }
        if step.checksum.is_some() && remote.len() + local.len() != 1 {
            let message = "checksum can't be specified for multiple sources"; // buildkit wording
            return Err(BuildError::new(ErrorKind::InvalidParameter, message));
        }
        if step.checksum.is_some() && remote.is_empty() {
            let message = "checksum requires HTTP(S) or Git sources"; // buildkit wording
            return Err(BuildError::new(ErrorKind::InvalidParameter, message));
        }
        for remote in remote {
            let is_git = matches!(remote, fetch::Remote::Git(..));
            let checksum = step.checksum.as_deref();
            let from = (&self.request.ssh, &self.capture);
            let tree = self.builder.fetch(&remote, checksum, Some(&*work), from).await?;
            let source = Source { tree, chain: None, names: Names::Exact };
            let piece = blocking(move || {
                let pattern = if is_git { "." } else { "*" };
                let found = select(source.tree.root(), pattern, Names::Exact)?;
                let filter = Filter { include: None, exclude: None };
                Ok(Piece { source, found, filter, unpack: false })
            })
            .await?;
            pieces.push(Piece { unpack: !is_git && step.unpack.unwrap_or(false), ..piece });
        }

        // The layers of a source say what its files are: then they need no look at all.
        let mut key = self.copy_key(state, &step, &destination);
        let mut alias = None;
        if !local.is_empty() {
            let source = self.source(turn, step.from.as_deref(), work).await?;
            if let Some(chain) = &source.chain
                && pieces.is_empty()
            {
                let mut fast = key.clone();
                fast.field("layers");
                fast.chain(Some(chain));
                let fast = fast.finish();
                if !turn.no_cache && self.apply_hit(state, &fast, work).await? {
                    self.copied(&step, state, work);
                    return Ok(());
                }
                alias = Some(fast);
            }
            let unpack = step.unpack.unwrap_or(step.is_add);
            let (parents, shown) = (step.parents, step.from.is_some());
            let finding = blocking(move || {
                let mut pieces = Vec::new();
                for path in local {
                    pieces.push(find(&source, &path, parents, exclude.clone(), unpack, shown)?);
                }
                Ok(pieces)
            });
            let mut found = finding.await.map_err(|error| classic(error, step.is_add))?;
            pieces.append(&mut found);
        }
        let pieces = Arc::new(pieces);
        let hashed = Arc::clone(&pieces);
        let digests = blocking(move || {
            hashed
                .iter()
                .map(|piece| piece.digest().map_err(Into::into))
                .collect::<Result<Vec<_>, BuildError>>()
        })
        .await?;
        key.list(&digests);
        let key = key.finish();
        let turn_lock = self.builder.cache.turn(&key);
        let _turn = turn_lock.lock().await;
        if !turn.no_cache && self.apply_hit(state, &key, work).await? {
            if let Some(alias) = alias {
                self.builder.cache.alias(&alias, &key)?;
            }
            self.copied(&step, state, work);
            return Ok(());
        }

        let engine = Arc::clone(&self.builder.engine);
        let (chain, windows, names) = (state.chain, state.is_windows(), state.names());
        let latest = self.request.source_date_epoch;
        let now = self.now() / 1_000_000_000;
        let (inline, chown) = (step.sources.inline.clone(), step.chown.clone());
        let link = step.link;
        let candidates = self.candidates_of(turn, state, &["COPY", "ADD"]);
        let made = blocking(move || {
            let workspace = engine.workspace(chain, windows, link)?;
            let root = workspace.mount()?;
            let owner = match &chown {
                None => None,
                Some(_) if windows => {
                    let message = "--chown is not supported by Windows images";
                    return Err(BuildError::new(ErrorKind::InvalidParameter, message));
                }
                Some(text) if link => {
                    let below = engine.layers_root(chain, windows)?;
                    Some(owner::parse(text, below.as_fd())?)
                }
                Some(text) => Some(owner::parse(text, root.as_fd())?),
            };
            let upper = silo_sys::path::open_root(workspace.upper())
                .map_err(CopyError::io("open", workspace.upper()))?;
            let options = Options { owner, chmod, names };
            let mut copier = Copier::new(root.as_fd(), options).with_upper(upper.as_fd());
            for piece in pieces.iter() {
                let taken = piece.source.tree.take();
                copier.give(taken.as_ref().map(|(_, digests)| Arc::clone(digests)));
                for found in &piece.found {
                    let from = piece.source.tree.root();
                    if piece.unpack
                        && unpack(from, found, root.as_fd(), &destination, &copier, owner)?
                    {
                        continue;
                    }
                    copier.copy(from, found, &piece.filter, &destination)?;
                }
            }
            for source in &inline {
                copier.inline(&source.name, source.data.as_bytes(), &destination, now)?;
            }
            drop(copier);
            drop(upper);
            drop(root);
            finished(&engine, workspace, candidates, latest)
        })
        .await?;
        self.keep_finished(turn, state, (&key, alias), made, work)?;
        self.copied(&step, state, work);
        Ok(())
    }

    /// Takes over what a step made, or what an image has that is the same.
    fn keep_finished(
        &self,
        turn: &Turn<'_>,
        state: &mut State,
        (key, alias): (&str, Option<String>),
        made: Finished,
        work: &mut Work,
    ) -> Result<(), BuildError> {
        match made {
            Finished::New(made) => self.keep(state, key, alias, turn, made),
            Finished::Known(candidate) => {
                if self.take(turn, state, key, alias, &candidate, work)? {
                    return Ok(());
                }
                Err(Error::conflict("a layer of the cache was removed while it was used").into())
            }
        }
    }

    fn copied(&self, step: &CopyStep, state: &mut State, work: &Work) {
        state.note_layer(step.created_by());
        work.note(NoteKind::Image(self.image_id(state)));
    }

    /// What a copy depends on, but for the files.
    fn copy_key(&self, state: &State, step: &CopyStep, destination: &str) -> KeyBuilder {
        let mut key = KeyBuilder::new(if step.is_add { "add" } else { "copy" });
        key.chain(state.chain.as_ref());
        key.field(&state.image.os);
        key.field(destination);
        key.list(&step.sources.paths);
        key.list(&step.exclude);
        key.field(step.chown.as_deref().unwrap_or_default());
        key.field(step.chmod.as_deref().unwrap_or_default());
        key.field([
            u8::from(step.link),
            u8::from(step.parents),
            u8::from(step.unpack.unwrap_or(step.is_add)),
            u8::from(step.keep_git_dir),
        ]);
        for source in &step.sources.inline {
            key.list([source.name.as_bytes(), source.data.as_bytes()]);
        }
        key.field(self.request.source_date_epoch.map_or(String::new(), |time| time.to_string()));
        key
    }

    /// Takes a step's layers from the cache, or from those that the client named, if they are
    /// there.
    pub(crate) async fn apply_hit(
        self: &Arc<Self>,
        state: &mut State,
        key: &str,
        work: &mut Work,
    ) -> Result<bool, BuildError> {
        let hit = match self.builder.cache.get(key)? {
            Some(hit) => hit,
            None => match self.imported(key, work).await? {
                Some(hit) => hit,
                None => return Ok(false),
            },
        };
        if let (Some(allowed), Some(chain)) = (&self.allowed, &hit.chain)
            && !allowed.contains(chain)
        {
            return Ok(false);
        }
        work.cached();
        self.use_step(&hit.key);
        let changed = hit.chain != state.chain;
        state.pending = Some((hit.created, changed));
        if changed {
            state.chain = hit.chain;
            state.leases.extend(hit.lease);
        }
        Ok(true)
    }

    /// Brings a step of a cache that the client named into the engine's own.
    async fn imported(self: &Arc<Self>, key: &str, work: &Work) -> Result<Option<Hit>, BuildError> {
        if self.imports.is_empty() {
            return Ok(None);
        }
        let (job, wanted) = (Arc::clone(self), key.to_owned());
        let (found, errors) = blocking(move || {
            let mut errors = Vec::new();
            let mut tell = |error: &Error| errors.push(error.chain());
            let found = job.imports.find(&job.builder, &wanted, &mut tell);
            Ok((found, errors))
        })
        .await?;
        for error in errors {
            work.log(Stream::Stderr, format!("the cache has this step, but: {error}\n").into());
        }
        let Some((record, aliases, lease)) = found else { return Ok(None) };
        let cache = &self.builder.cache;
        cache.put(&record, lease.map(Arc::new))?;
        for alias in aliases {
            cache.alias(&alias.key, &alias.record)?;
        }
        Ok(cache.get(key)?)
    }

    /// Takes over what a step made, and records it.
    pub(crate) fn keep(
        &self,
        state: &mut State,
        key: &str,
        alias: Option<String>,
        turn: &Turn<'_>,
        made: Made,
    ) -> Result<(), BuildError> {
        self.use_step(key);
        let parent = state.chain;
        let created = self.now();
        let mut record = Record {
            key: key.to_owned(),
            parent,
            chain: parent,
            kind: "regular".into(),
            description: turn.title.clone(),
            created,
            last_used: crate::cache::now(),
            uses: 1,
            size: 0,
        };
        let mut lease = state.leases.last().cloned();
        state.pending = Some((created, made.is_some()));
        if let Some((layer, held)) = made {
            record.chain = Some(layer.chain_id);
            record.size = layer.size;
            let held = Arc::new(held);
            state.chain = record.chain;
            state.leases.push(Arc::clone(&held));
            lease = Some(held);
        }
        if record.chain.is_none() {
            lease = None;
        }
        self.builder.cache.put(&record, lease)?;
        if let Some(alias) = alias {
            self.builder.cache.alias(&alias, key)?;
        }
        Ok(())
    }

    /// A layer with the files of a tree.
    pub(crate) async fn layer_of_tree(
        &self,
        mut state: State,
        tree: Arc<Tree>,
    ) -> Result<State, BuildError> {
        let engine = Arc::clone(&self.builder.engine);
        let (windows, names) = (state.is_windows(), state.names());
        let latest = self.request.source_date_epoch;
        let made = blocking(move || {
            let workspace = engine.workspace(None, windows, false)?;
            let root = workspace.mount()?;
            let upper = silo_sys::path::open_root(workspace.upper())
                .map_err(CopyError::io("open", workspace.upper()))?;
            let options = Options { owner: None, chmod: None, names };
            let mut copier = Copier::new(root.as_fd(), options).with_upper(upper.as_fd());
            for found in select(tree.root(), ".", Names::Exact)? {
                copier.copy(tree.root(), &found, &Filter::default(), "/")?;
            }
            drop(copier);
            drop(upper);
            drop(root);
            Ok(workspace.commit(latest)?)
        })
        .await?;
        if let Some((layer, lease)) = made {
            state.chain = Some(layer.chain_id);
            state.leases.push(Arc::new(lease));
            state.note_at("FROM context", self.now());
        }
        Ok(state)
    }

    /// `WORKDIR`: makes the directory where it is missing.
    pub(crate) async fn workdir(
        self: &Arc<Self>,
        turn: &Turn<'_>,
        mut state: State,
        path: &str,
    ) -> Result<State, BuildError> {
        let mut work = turn.work();
        let done = self.make_workdir(turn, &mut state, path, &mut work).await;
        work.end(done.map_err(|error| turn.error(error)))?;
        Ok(state)
    }

    async fn make_workdir(
        self: &Arc<Self>,
        turn: &Turn<'_>,
        state: &mut State,
        path: &str,
        work: &mut Work,
    ) -> Result<(), BuildError> {
        let directory = state.workdir(path)?;
        let place = state.place(path)?;
        state.config().working_dir.clone_from(&directory);
        let note = format!("WORKDIR {directory}");
        if place == "/" {
            state.note(note, false);
            work.note(NoteKind::Image(self.image_id(state)));
            return Ok(());
        }
        let user = if state.is_windows() { String::new() } else { state.image.config.user.clone() };
        let mut key = KeyBuilder::new("workdir");
        key.chain(state.chain.as_ref());
        key.list([&state.image.os, &place, &user]);
        key.field(self.request.source_date_epoch.map_or(String::new(), |time| time.to_string()));
        let key = key.finish();
        if turn.no_cache || !self.apply_hit(state, &key, work).await? {
            let engine = Arc::clone(&self.builder.engine);
            let (chain, windows, names) = (state.chain, state.is_windows(), state.names());
            let latest = self.request.source_date_epoch;
            let candidates = self.candidates_of(turn, state, &["WORKDIR"]);
            let made = blocking(move || {
                let workspace = engine.workspace(chain, windows, false)?;
                let root = workspace.mount()?;
                let path = PathBuf::from(place.trim_matches('/'));
                let resolved = resolve::resolve(root.as_fd(), &path, names)
                    .map_err(CopyError::io("resolve", &path))?;
                let there = resolve::stat(root.as_fd(), &resolved)
                    .map_err(CopyError::io("look at", &path))?;
                if there.as_ref().is_some_and(resolve::is_directory) {
                    return Ok(Finished::New(None));
                }
                let owner = match user.as_str() {
                    "" => None,
                    user => Some(owner::parse(user, root.as_fd())?),
                };
                let options = Options { owner, chmod: None, names };
                Copier::new(root.as_fd(), options).make_directories(&path)?;
                drop(root);
                finished(&engine, workspace, candidates, latest)
            })
            .await?;
            self.keep_finished(turn, state, (&key, None), made, work)?;
        }
        state.note_layer(note);
        work.note(NoteKind::Image(self.image_id(state)));
        Ok(())
    }
}

impl Piece {
    fn digest(&self) -> Result<[u8; 32], CopyError> {
        let mut hasher = Hasher::new(self.source.tree.digests());
        for found in &self.found {
            hasher.add(self.source.tree.root(), found, &self.filter)?;
        }
        Ok(hasher.finish())
    }
}

/// Finds what one path of a `COPY` names.
fn find(
    source: &Source,
    path: &str,
    parents: bool,
    exclude: Option<Patterns>,
    unpack: bool,
    from_elsewhere: bool,
) -> Result<Piece, BuildError> {
    let path = match source.names {
        Names::Exact => path.to_owned(),
        Names::AnyCase => {
            let path = path.replace('\\', "/");
            path.split_once(':').map_or(path.clone(), |(_, rest)| rest.to_owned())
        }
    };
    let root = source.tree.root();
    let missing = |error: CopyError| match error {
        CopyError::NotFound(shown) => {
            // buildkit wording
            let mut error = BuildError::new(
                ErrorKind::NotFound,
                format!(
                    "failed to compute cache key: failed to calculate checksum: {shown:?}: not found"
                ),
            );
            let reason = if from_elsewhere {
                String::new()
            } else {
                "file not found in build context or excluded by .dockerignore: ".into()
            };
            let name = shown.trim_start_matches('/');
            // docker wording
            error.classic = Some(format!(" failed: {reason}stat {name}: file does not exist"));
            error
        }
        error => error.into(),
    };
    let (base, include) = match (parents, path.split_once("/./")) {
        (false, _) => (path.clone(), None),
        (true, Some((base, pattern))) => (base.to_owned(), Some(pattern)),
        (true, None) => (".".to_owned(), Some(path.as_str())),
    };
    let include =
        match include {
            None => None,
            Some(pattern) => {
                let plain = !silo_dockerfile::glob::has_wildcards(pattern)
                    && !silo_dockerfile::glob::has_wildcards(&base);
                if plain {
                    select(root, &format!("{base}/{pattern}"), source.names).map_err(missing)?;
                }
                let pattern = pattern.trim_start_matches('/');
                let patterns = Patterns::new([pattern]);
                Some(patterns.map_err(|error| {
                    BuildError::new(ErrorKind::InvalidParameter, error.to_string())
                })?)
            }
        };
    let found = select(root, &base, source.names).map_err(missing)?;
    Ok(Piece { source: source.clone(), found, filter: Filter { include, exclude }, unpack })
}

/// Completes the words of the classic builder.
fn classic(mut error: BuildError, is_add: bool) -> BuildError {
    if let Some(text) = &mut error.classic {
        text.insert_str(0, if is_add { "ADD" } else { "COPY" });
    }
    error
}

/// Unpacks an archive into a directory; false for what is none.
fn unpack(
    from: std::os::fd::BorrowedFd<'_>,
    found: &Found,
    root: std::os::fd::BorrowedFd<'_>,
    destination: &str,
    copier: &Copier<'_>,
    owner: Option<(u32, u32)>,
) -> Result<bool, BuildError> {
    use rustix::fs::{FileType, Mode, OFlags};
    if FileType::from_raw_mode(found.stat.st_mode) != FileType::RegularFile {
        return Ok(false);
    }
    let open = || {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        silo_sys::path::open_in_root_no_links(from, &found.path, flags, Mode::empty())
            .map(std::fs::File::from)
    };
    let failed = || CopyError::io::<std::io::Error>("open", &found.path);
    if !fetch::is_archive(open().map_err(failed())?) {
        return Ok(false);
    }
    let clean = silo_sys::path::clean(destination);
    copier.make_directories(&clean)?;
    let options =
        silo_store::tree::UnpackOptions { owner, ..silo_store::tree::UnpackOptions::default() };
    silo_store::tree::unpack_into(root, &clean, open().map_err(failed())?, options)
        .map_err(Error::from_kind)?;
    Ok(true)
}

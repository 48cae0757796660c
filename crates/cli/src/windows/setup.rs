//! The set-up itself, in a thread that may block.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fs_err as fs;
use serde_json::{Value as Json, json};
use silo_types::error::chain;
use silo_windows::base::{self, BUILDS, KINDS};
use silo_windows::debian::fetch::Suite;
use silo_windows::debian::index::Package;
use silo_windows::debian::{Fetcher, Mirror};
use silo_windows::image::{Image, Layer};
use silo_windows::runtime::{self, Parts, Runtime, list, pe};
use silo_windows::spool::Spool;

use super::engine::Engine;
use super::show::Show;
use crate::env;
use crate::failure::{Failure, Outcome};

/// The Debian release that the runtime is made from.
const RELEASE: &str = "trixie";
/// The image in which the stock prefix is made, and its container.
pub(crate) const SETUP: &str = "silo-windows-setup";
/// Processes that Wine may have: a prefix takes thirty, and a Wine that is set wrongly starts
/// them without end.
const MAX_PROCESSES: u32 = 300;
/// How often a first start that leaves something out is tried: on a busy machine Wine does not
/// wait long enough for its own services, and tells nobody.
const FIRST_STARTS: u32 = 5;
/// The prefix that is made.
const PREFIX: [&str; 1] = ["WINEPREFIX=/prefix"];
/// The prefix of the container's own process, a server of Wine that nobody asks for anything. The
/// one that serves the first start is started by that, so that there cannot be two of them, of
/// which the later ends at once.
const IDLE_PREFIX: &str = "WINEPREFIX=/root";
/// Exit code of a program that was killed. Wine's server does that to programs which are not gone
/// half a second after they said that they end, as happens on a busy machine. The prefix shows
/// whether it is complete.
const KILLED: i64 = 137;

/// What is wanted.
#[derive(Debug)]
pub(crate) struct Request {
    /// The mirror's address.
    pub(crate) mirror: String,
    /// Where downloads are kept.
    pub(crate) cache: PathBuf,
    /// Whether text is really drawn.
    pub(crate) fonts: bool,
    /// Whether to look for newer packages though all is there.
    pub(crate) update: bool,
    /// Whether to make everything again.
    pub(crate) force: bool,
    /// Whether to say nothing but the result.
    pub(crate) quiet: bool,
}

fn failure(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(chain(error))
}

/// Sets Windows containers up, and says what is there then.
pub(crate) fn setup(engine: &Engine, request: &Request, stop: &AtomicBool) -> Outcome<String> {
    let show = Show::new(request.quiet);
    let result = Setup { engine, request, stop, show: &show }.run();
    if result.is_err() {
        show.clear();
    }
    result
}

struct Setup<'a> {
    engine: &'a Engine,
    request: &'a Request,
    stop: &'a AtomicBool,
    show: &'a Show,
}

impl Setup<'_> {
    fn run(&self) -> Outcome<String> {
        let began = Instant::now();
        let programs = silo_winprograms::programs();
        let replaced: Vec<&str> = programs.iter().map(|program| program.name).collect();
        let parts = Parts {
            boot: Some(silo_winprograms::boot()),
            shell: silo_winprograms::shell(),
            server: silo_winprograms::server(),
            replaced: &replaced,
            fonts: self.request.fonts,
        };
        let bytes: Vec<&[u8]> = programs.iter().map(|program| program.bytes).collect();
        let maker = runtime::maker(&parts, &bytes);
        let current = self.current()?;
        let again = self.request.update || self.request.force;
        if let Some(current) = &current
            && current.complete
            && current.maker == maker
            && !again
        {
            return Ok(format!("Windows containers are set up: Wine {}.", current.version));
        }

        let cache = &self.request.cache;
        fs::create_dir_all(cache).map_err(|error| failure(&error))?;
        let _lock = lock(cache)?;
        self.clean()?;
        let (fetcher, packages) = self.choose()?;
        let recipe = runtime::recipe(&maker, &packages);
        if let Some(current) = &current
            && current.complete
            && current.recipe == recipe
            && !self.request.force
        {
            return Ok(format!("Windows containers are up to date: Wine {}.", current.version));
        }
        let runtime = self.runtime(&fetcher, &packages, parts)?;
        let created = runtime.tree.newest();
        let wine = layer("Wine from Debian's packages", |out| {
            runtime.tree.write_layer(out).map_err(std::io::Error::other)
        })?;
        let config = runtime.config(&recipe, &maker);
        let tags =
            vec![format!("{}:{}", runtime::REPOSITORY, runtime.tag), runtime::CURRENT.to_owned()];
        let image = Image::new(config.clone(), vec![&wine], tags, created);
        let prefix = self.prefix(&runtime, &wine, config, created)?;

        self.show.step("Making base images");
        let boot = pe::mark(silo_winprograms::boot()).map_err(|error| failure(&error))?;
        let shell = pe::mark(silo_winprograms::shell()).map_err(|error| failure(&error))?;
        let own: Vec<_> = programs
            .iter()
            .map(|program| (program.name, program.bytes))
            .chain([("wineboot.exe", &boot[..]), (runtime::SHELL_LIBRARY, &shell[..])])
            .map(|(name, bytes)| base::content::Program { name, narrow: false, bytes })
            .collect();
        let content = base::content(prefix, &own, created).map_err(|error| failure(&error))?;
        let shared = layer("Wine's Windows files", |out| content.write_layer(out))?;
        let mut small = Vec::new();
        for (kind, build) in kinds_and_builds() {
            let deltas = base::build::deltas(&content.hives, kind, build, created)
                .map_err(|error| failure(&error))?;
            let what = format!("Windows {} {}", kind.name, build.version());
            small.push((kind, build, layer(&what, move |out| deltas.write_layer(out))?));
        }
        let mut images = vec![image];
        for (kind, build, delta) in &small {
            let config = base::build::config(kind, build, &runtime.version, &recipe);
            let tags = build.tags(kind).into_iter().map(|tag| name(kind, tag)).collect();
            images.push(Image::new(config, vec![&shared, delta], tags, created));
        }
        self.show.done("");

        self.show.step("Loading images");
        // All of them last and at once: what is loaded is complete.
        let before = self.ids()?;
        self.engine.load(&images)?;
        for old in before.iter().filter(|old| images.iter().all(|image| image.id() != **old)) {
            self.engine.forget_image(old)?;
        }
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let size = silo_types::size::human((wine.size + shared.size) as f64);
        self.show.done(&format!("{} images, {size}", images.len()));
        let seconds = began.elapsed().as_secs_f64();
        let version = &runtime.version;
        Ok(format!("Windows containers are set up: Wine {version}. ({seconds:.0} s)"))
    }

    /// What the engine has already.
    fn current(&self) -> Outcome<Option<Current>> {
        let Some(image) = self.engine.image(runtime::CURRENT)? else { return Ok(None) };
        let label = |image: &Json, name: &str| {
            image["Config"]["Labels"][name].as_str().unwrap_or_default().to_owned()
        };
        let recipe = label(&image, runtime::RECIPE);
        let mut complete = true;
        for (kind, build) in kinds_and_builds() {
            let base = self.engine.image(&name(kind, build.tag))?;
            complete &= base.is_some_and(|base| label(&base, runtime::RECIPE) == recipe);
        }
        let (maker, version) = (label(&image, runtime::MAKER), label(&image, runtime::LABEL));
        Ok(Some(Current { complete, maker, recipe, version }))
    }

    /// The ids of the images of an earlier set-up.
    fn ids(&self) -> Outcome<BTreeSet<String>> {
        let mut ids = BTreeSet::new();
        let bases = kinds_and_builds().map(|(kind, build)| name(kind, build.tag));
        for name in bases.chain([runtime::CURRENT.to_owned()]) {
            let image = self.engine.image(&name)?.unwrap_or_default();
            ids.extend(image["Id"].as_str().map(str::to_owned));
        }
        Ok(ids)
    }

    /// Removes the container and image of the prefix, also those that a killed set-up left.
    fn clean(&self) -> Outcome {
        self.engine.remove_container(SETUP)?;
        self.engine.remove_image(SETUP)
    }

    /// Finds the packages that are needed.
    fn choose(&self) -> Outcome<(Fetcher, Vec<Package>)> {
        self.show.step(&format!("Reading Debian {RELEASE}'s index"));
        let mirror =
            Mirror::new(&self.request.mirror, env::get).map_err(|error| failure(&error))?;
        let suite = |mirror: Mirror, name: String, required| Suite { mirror, name, required };
        let suites = vec![
            suite(mirror.clone(), RELEASE.to_owned(), true),
            suite(mirror.beside("-security"), format!("{RELEASE}-security"), false),
        ];
        let fetcher = Fetcher::new(suites, self.request.cache.clone());
        let indexes = fetcher.indexes(&["amd64", "i386"], self.show);
        let indexes = indexes.map_err(|error| failure(&error))?;
        let mut wishes = list::PACKAGES.to_vec();
        if self.request.fonts {
            wishes.extend(list::PACKAGES_FONTS);
        }
        let mut packages = Vec::new();
        for (index, wishes) in indexes.iter().zip([&wishes[..], &list::PACKAGES_32]) {
            packages.extend(index.choose(wishes).map_err(|error| failure(&error))?);
        }
        self.show.done(&format!("{} packages", packages.len()));
        Ok((fetcher, packages))
    }

    fn runtime(
        &self,
        fetcher: &Fetcher,
        packages: &[Package],
        parts: Parts<'_>,
    ) -> Outcome<Runtime> {
        self.show.step("Fetching packages");
        let fetched =
            fetcher.packages(packages, self.show, self.stop).map_err(|error| failure(&error))?;
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let size = packages.iter().map(|package| package.size).sum::<u64>() as f64;
        self.show.done(&silo_types::size::human(size));
        self.go_on()?;
        self.show.step("Making the Wine runtime");
        let runtime =
            runtime::make(&fetched, parts, &self.request.cache).map_err(|error| failure(&error))?;
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let size = silo_types::size::human(runtime.tree.size() as f64);
        self.show.done(&format!("Wine {}, {size}", runtime.version));
        self.go_on()?;
        Ok(runtime)
    }

    /// Has Wine make its prefix, in a container.
    fn prefix(
        &self,
        runtime: &Runtime,
        wine: &Layer<'_>,
        config: Json,
        created: i64,
    ) -> Outcome<base::Prefix> {
        self.show.step("Starting Wine for the first time");
        let above = layer("What the first start needs", |out| {
            runtime.setup.write_layer(out).map_err(std::io::Error::other)
        })?;
        let image =
            Image::new(config, vec![wine, &above], vec![format!("{SETUP}:latest")], created);
        let set_up = runtime.tree.read("usr/share/wine/wine.inf");
        let set_up = set_up.map_err(|error| failure(&error))?.unwrap_or_default();
        let made = self.engine.load(&[image]).and_then(|()| self.first_starts(&set_up));
        let cleaned = self.clean();
        let prefix = made?;
        cleaned?;
        self.go_on()?;
        self.show.done("");
        Ok(prefix)
    }

    /// Starts Wine until its prefix is complete.
    fn first_starts(&self, set_up: &[u8]) -> Outcome<base::Prefix> {
        let mut missing = String::new();
        for _ in 0..FIRST_STARTS {
            let prefix = self.first_start()?;
            match prefix.missing_service(set_up) {
                None => return Ok(prefix),
                Some(service) => missing = service,
            }
            self.engine.remove_container(SETUP)?;
        }
        Err(Failure::new(format!(
            "Wine's prefix lacks the service {missing:?} after {FIRST_STARTS} trials; the machine \
             may be too busy: try again later"
        )))
    }

    fn first_start(&self) -> Outcome<base::Prefix> {
        let container = json!({
            "Image": SETUP,
            "Hostname": base::SETUP_HOST,
            "Cmd": [runtime::SERVER, "-f", "-p"],
            "Env": [
                IDLE_PREFIX,
                "WINEDEBUG=-all",
                "LC_ALL=C.UTF-8",
                "HOME=/root",
                format!("USER={}", base::SETUP_USER),
            ],
            "HostConfig": {
                "NetworkMode": "none",
                "PidsLimit": MAX_PROCESSES,
                "SecurityOpt": ["no-new-privileges"],
            },
        });
        self.engine.start(SETUP, &container)?;
        let (code, said) =
            self.engine.exec(SETUP, &PREFIX, &[runtime::LOADER, "wineboot", "-i"])?;
        self.go_on()?;
        if code != 0 && code != KILLED {
            let said = said.lines().rev().take(5).collect::<Vec<_>>().join("; ");
            return Err(Failure::new(format!(
                "Wine could not make its prefix (exit code {code}): {said}"
            )));
        }
        // The server saves the registry when it is told to end.
        for option in ["-k", "-w"] {
            self.engine.exec(SETUP, &PREFIX, &[runtime::SERVER, option])?;
        }
        let spool = Spool::new(&self.request.cache).map_err(|error| failure(&error))?;
        let spool = Arc::new(spool);
        self.engine
            .copy_out(SETUP, "/prefix", |stream| base::read_prefix(stream, &spool))?
            .map_err(|error| failure(&error))
    }

    fn go_on(&self) -> Outcome {
        if self.stop.load(Ordering::Relaxed) { Err(Failure::code(130)) } else { Ok(()) }
    }
}

/// Keeps others from the cache while this set-up runs.
fn lock(cache: &Path) -> Outcome<fs::File> {
    let file = fs::File::create(cache.join("lock")).map_err(|error| failure(&error))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::new(format!(
            "another set-up is running (it holds {})",
            file.path().display()
        ))),
        Err(error) => Err(Failure::io("the lock of the cache", &error.into())),
    }
}

/// What the engine has.
struct Current {
    /// Whether every base image is there and belongs to the runtime.
    complete: bool,
    maker: String,
    recipe: String,
    version: String,
}

fn layer<'a>(
    what: &str,
    write: impl Fn(&mut dyn std::io::Write) -> std::io::Result<()> + Sync + 'a,
) -> Outcome<Layer<'a>> {
    Layer::new(what, write).map_err(|error| failure(&error))
}

/// Every base image's kind and build.
pub(crate) fn kinds_and_builds() -> impl Iterator<Item = (&'static base::Kind, &'static base::Build)>
{
    KINDS.iter().flat_map(|kind| BUILDS.iter().map(move |build| (kind, build)))
}

/// The name of a base image.
pub(crate) fn name(kind: &base::Kind, tag: &str) -> String {
    format!("{}/{}:{tag}", base::REPOSITORY, kind.name)
}

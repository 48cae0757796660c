//! Every command: the table, and a module for each kind of object.

mod build;
mod build_cache;
mod container;
mod copy;
mod exec;
mod hive;
mod image;
mod image_stream;
mod image_tree;
mod inspect;
mod list;
mod login;
mod logs;
mod manifest;
mod meta;
mod network;
mod registries;
mod registry;
mod run;
mod search;
mod stats;
mod system;
mod volume;
mod windows;

pub(crate) use build::BuildFlags;
pub(crate) use image_stream::upload;

use crate::command::{Arity, Command};
use crate::flags::FlagSet;
use crate::options::{RunFlags, UpdateFlags};

/// Groups of commands.
pub(crate) const GROUPS: &[(&str, &str)] = &[
    ("builder", "Manage builds"),
    ("container", "Manage containers"),
    ("hive", "Read and change registry hives of Windows"),
    ("image", "Manage images"),
    ("manifest", "Manage image manifests and manifest lists"),
    ("network", "Manage networks"),
    ("system", "Manage Silo"),
    ("volume", "Manage volumes"),
    ("windows", "Manage Windows containers' runtime and base images"),
];

/// Commands that help shows first, in their order.
pub(crate) const COMMON: &[&str] =
    &["run", "exec", "ps", "build", "pull", "push", "images", "login", "search", "version", "info"];

/// Makes an async function the command's function.
macro_rules! run {
    ($function:path) => {
        |invocation| Box::pin($function(invocation))
    };
}

const MANY_CONTAINERS: &str = "[OPTIONS] CONTAINER [CONTAINER...]";

/// The table.
pub(crate) const COMMANDS: &[Command] = &[
    Command::new(
        "container",
        "run",
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create and run a new container from an image",
        Arity::AtLeast(1),
        RunFlags::FLAGS,
        run!(run::run),
    )
    .top("run")
    .runs_program(),
    Command::new(
        "container",
        "create",
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create a new container",
        Arity::AtLeast(1),
        RunFlags::FLAGS,
        run!(run::create),
    )
    .top("create")
    .runs_program(),
    Command::new(
        "container",
        "exec",
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        "Execute a command in a running container",
        Arity::AtLeast(2),
        exec::ExecFlags::FLAGS,
        run!(exec::exec),
    )
    .top("exec")
    .runs_program(),
    Command::new(
        "container",
        "ls",
        "[OPTIONS]",
        "List containers",
        Arity::None,
        list::PsFlags::FLAGS,
        run!(list::ps),
    )
    .aliases(&["ps", "list"])
    .top("ps"),
    Command::new(
        "container",
        "attach",
        "[OPTIONS] CONTAINER",
        "Attach local standard input, output, and error streams to a running container",
        Arity::Exactly(1),
        run::AttachFlags::FLAGS,
        run!(run::attach),
    )
    .top("attach"),
    Command::new(
        "container",
        "start",
        MANY_CONTAINERS,
        "Start one or more stopped containers",
        Arity::AtLeast(1),
        run::StartFlags::FLAGS,
        run!(run::start),
    )
    .top("start"),
    Command::new(
        "container",
        "stop",
        MANY_CONTAINERS,
        "Stop one or more running containers",
        Arity::AtLeast(1),
        container::StopFlags::FLAGS,
        run!(container::stop),
    )
    .top("stop"),
    Command::new(
        "container",
        "restart",
        MANY_CONTAINERS,
        "Restart one or more containers",
        Arity::AtLeast(1),
        container::StopFlags::FLAGS,
        run!(container::restart),
    )
    .top("restart"),
    Command::new(
        "container",
        "kill",
        MANY_CONTAINERS,
        "Kill one or more running containers",
        Arity::AtLeast(1),
        container::KillFlags::FLAGS,
        run!(container::kill),
    )
    .top("kill"),
    Command::new(
        "container",
        "rm",
        MANY_CONTAINERS,
        "Remove one or more containers",
        Arity::AtLeast(1),
        container::RmFlags::FLAGS,
        run!(container::rm),
    )
    .aliases(&["remove"])
    .top("rm"),
    Command::new(
        "container",
        "pause",
        "CONTAINER [CONTAINER...]",
        "Pause all processes within one or more containers",
        Arity::AtLeast(1),
        &[],
        run!(container::pause),
    )
    .top("pause"),
    Command::new(
        "container",
        "unpause",
        "CONTAINER [CONTAINER...]",
        "Unpause all processes within one or more containers",
        Arity::AtLeast(1),
        &[],
        run!(container::unpause),
    )
    .top("unpause"),
    Command::new(
        "container",
        "wait",
        "CONTAINER [CONTAINER...]",
        "Block until one or more containers stop, then print their exit codes",
        Arity::AtLeast(1),
        &[],
        run!(container::wait),
    )
    .top("wait"),
    Command::new(
        "container",
        "rename",
        "CONTAINER NEW_NAME",
        "Rename a container",
        Arity::Exactly(2),
        &[],
        run!(container::rename),
    )
    .top("rename"),
    Command::new(
        "container",
        "update",
        MANY_CONTAINERS,
        "Update configuration of one or more containers",
        Arity::AtLeast(1),
        UpdateFlags::FLAGS,
        run!(container::update),
    )
    .top("update"),
    Command::new(
        "container",
        "top",
        "CONTAINER [ps OPTIONS]",
        "Display the running processes of a container",
        Arity::AtLeast(1),
        &[],
        run!(container::top),
    )
    .top("top")
    .runs_program(),
    Command::new(
        "container",
        "port",
        "CONTAINER [PRIVATE_PORT[/PROTO]]",
        "List port mappings or a specific mapping for the container",
        Arity::Between(1, 2),
        &[],
        run!(container::port),
    )
    .top("port"),
    Command::new(
        "container",
        "diff",
        "CONTAINER",
        "Inspect changes to files or directories on a container's filesystem",
        Arity::Exactly(1),
        &[],
        run!(container::diff),
    )
    .top("diff"),
    Command::new(
        "container",
        "prune",
        "[OPTIONS]",
        "Remove all stopped containers",
        Arity::None,
        container::PruneFlags::FLAGS,
        run!(container::prune),
    ),
    Command::new(
        "container",
        "logs",
        "[OPTIONS] CONTAINER",
        "Fetch the logs of a container",
        Arity::Exactly(1),
        logs::LogsFlags::FLAGS,
        run!(logs::logs),
    )
    .top("logs"),
    Command::new(
        "container",
        "stats",
        "[OPTIONS] [CONTAINER...]",
        "Display a live stream of container(s) resource usage statistics",
        Arity::AtLeast(0),
        stats::StatsFlags::FLAGS,
        run!(stats::stats),
    )
    .top("stats"),
    Command::new(
        "container",
        "cp",
        "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tsilo cp [OPTIONS] SRC_PATH|- \
         CONTAINER:DEST_PATH",
        "Copy files/folders between a container and the local filesystem",
        Arity::Exactly(2),
        crate::cp::CpFlags::FLAGS,
        run!(crate::cp::cp),
    )
    .top("cp"),
    Command::new(
        "container",
        "export",
        "[OPTIONS] CONTAINER",
        "Export a container's filesystem as a tar archive",
        Arity::Exactly(1),
        image_stream::OutputFlags::FLAGS,
        run!(image_stream::export),
    )
    .top("export"),
    Command::new(
        "container",
        "commit",
        "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        "Create a new image from a container's changes",
        Arity::Between(1, 2),
        image::CommitFlags::FLAGS,
        run!(image::commit),
    )
    .top("commit"),
    Command::new(
        "container",
        "inspect",
        MANY_CONTAINERS,
        "Display detailed information on one or more containers",
        Arity::AtLeast(1),
        inspect::ContainerFlags::FLAGS,
        run!(inspect::containers),
    ),
    Command::new(
        "image",
        "ls",
        "[OPTIONS] [REPOSITORY[:TAG]]",
        "List images",
        Arity::AtMost(1),
        image::ImagesFlags::FLAGS,
        run!(image::images),
    )
    .aliases(&["list"])
    .top("images"),
    Command::new(
        "image",
        "rm",
        "[OPTIONS] IMAGE [IMAGE...]",
        "Remove one or more images",
        Arity::AtLeast(1),
        image::RmiFlags::FLAGS,
        run!(image::rmi),
    )
    .aliases(&["remove"])
    .top("rmi"),
    Command::new(
        "image",
        "tag",
        "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
        Arity::Exactly(2),
        &[],
        run!(image::tag),
    )
    .top("tag"),
    Command::new(
        "image",
        "history",
        "[OPTIONS] IMAGE",
        "Show the history of an image",
        Arity::Exactly(1),
        image::HistoryFlags::FLAGS,
        run!(image::history),
    )
    .top("history"),
    Command::new(
        "image",
        "load",
        "[OPTIONS]",
        "Load an image from a tar archive or STDIN",
        Arity::None,
        image_stream::LoadFlags::FLAGS,
        run!(image_stream::load),
    )
    .top("load"),
    Command::new(
        "image",
        "save",
        "[OPTIONS] IMAGE [IMAGE...]",
        "Save one or more images to a tar archive (streamed to STDOUT by default)",
        Arity::AtLeast(1),
        image_stream::SaveFlags::FLAGS,
        run!(image_stream::save),
    )
    .top("save"),
    Command::new(
        "image",
        "import",
        "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        "Import the contents from a tarball to create a filesystem image",
        Arity::Between(1, 2),
        image_stream::ImportFlags::FLAGS,
        run!(image_stream::import),
    )
    .top("import"),
    Command::new(
        "image",
        "prune",
        "[OPTIONS]",
        "Remove unused images",
        Arity::None,
        image::PruneFlags::FLAGS,
        run!(image::prune),
    ),
    Command::new(
        "image",
        "inspect",
        "[OPTIONS] IMAGE [IMAGE...]",
        "Display detailed information on one or more images",
        Arity::AtLeast(1),
        inspect::ObjectFlags::FLAGS,
        run!(inspect::images),
    ),
    Command::new(
        "image",
        "pull",
        "[OPTIONS] NAME[:TAG|@DIGEST]",
        "Download an image from a registry",
        Arity::Exactly(1),
        registry::PullFlags::FLAGS,
        run!(registry::pull),
    )
    .top("pull"),
    Command::new(
        "image",
        "push",
        "[OPTIONS] NAME[:TAG]",
        "Upload an image to a registry",
        Arity::Exactly(1),
        registry::PushFlags::FLAGS,
        run!(registry::push),
    )
    .top("push"),
    registries::TABLE[0],
    registries::TABLE[1],
    registries::TABLE[2],
    registries::TABLE[3],
    registries::TABLE[4],
    registries::TABLE[5],
    Command::new(
        "builder",
        "build",
        "[OPTIONS] PATH | URL | -",
        "Build an image from a Dockerfile",
        Arity::Exactly(1),
        BuildFlags::FLAGS,
        run!(build::build),
    ),
    Command::new(
        "builder",
        "cache",
        "export|import FILE|DIRECTORY|-",
        "Save the build cache, cache mounts included, or load one that was saved",
        Arity::Exactly(2),
        &[],
        run!(build_cache::cache),
    ),
    Command::new(
        "builder",
        "prune",
        "[OPTIONS]",
        "Remove build cache",
        Arity::None,
        build::PruneFlags::FLAGS,
        run!(build::prune),
    ),
    Command::new(
        "image",
        "build",
        "[OPTIONS] PATH | URL | -",
        "Build an image from a Dockerfile",
        Arity::Exactly(1),
        BuildFlags::FLAGS,
        run!(build::build),
    )
    .top("build"),
    registries::TABLE[6],
    registries::TABLE[7],
    registries::TABLE[8],
    Command::new(
        "volume",
        "create",
        "[OPTIONS] [VOLUME]",
        "Create a volume",
        Arity::AtMost(1),
        volume::CreateFlags::FLAGS,
        run!(volume::create),
    ),
    Command::new(
        "volume",
        "ls",
        "[OPTIONS]",
        "List volumes",
        Arity::None,
        volume::LsFlags::FLAGS,
        run!(volume::ls),
    )
    .aliases(&["list"]),
    Command::new(
        "volume",
        "rm",
        "[OPTIONS] VOLUME [VOLUME...]",
        "Remove one or more volumes",
        Arity::AtLeast(1),
        volume::RmFlags::FLAGS,
        run!(volume::rm),
    )
    .aliases(&["remove"]),
    Command::new(
        "volume",
        "prune",
        "[OPTIONS]",
        "Remove unused local volumes",
        Arity::None,
        volume::PruneFlags::FLAGS,
        run!(volume::prune),
    ),
    Command::new(
        "volume",
        "inspect",
        "[OPTIONS] VOLUME [VOLUME...]",
        "Display detailed information on one or more volumes",
        Arity::AtLeast(1),
        inspect::ObjectFlags::FLAGS,
        run!(inspect::volumes),
    ),
    Command::new(
        "network",
        "create",
        "[OPTIONS] NETWORK",
        "Create a network",
        Arity::Exactly(1),
        network::CreateFlags::FLAGS,
        run!(network::create),
    ),
    Command::new(
        "network",
        "ls",
        "[OPTIONS]",
        "List networks",
        Arity::None,
        network::LsFlags::FLAGS,
        run!(network::ls),
    )
    .aliases(&["list"]),
    Command::new(
        "network",
        "rm",
        "NETWORK [NETWORK...]",
        "Remove one or more networks",
        Arity::AtLeast(1),
        network::RmFlags::FLAGS,
        run!(network::rm),
    )
    .aliases(&["remove"]),
    Command::new(
        "network",
        "connect",
        "[OPTIONS] NETWORK CONTAINER",
        "Connect a container to a network",
        Arity::Exactly(2),
        network::ConnectFlags::FLAGS,
        run!(network::connect),
    ),
    Command::new(
        "network",
        "disconnect",
        "[OPTIONS] NETWORK CONTAINER",
        "Disconnect a container from a network",
        Arity::Exactly(2),
        network::DisconnectFlags::FLAGS,
        run!(network::disconnect),
    ),
    Command::new(
        "network",
        "prune",
        "[OPTIONS]",
        "Remove all unused networks",
        Arity::None,
        container::PruneFlags::FLAGS,
        run!(network::prune),
    ),
    Command::new(
        "network",
        "inspect",
        "[OPTIONS] NETWORK [NETWORK...]",
        "Display detailed information on one or more networks",
        Arity::AtLeast(1),
        inspect::NetworkFlags::FLAGS,
        run!(inspect::networks),
    ),
    Command::new(
        "",
        "inspect",
        "[OPTIONS] NAME|ID [NAME|ID...]",
        "Return low-level information on Silo objects",
        Arity::AtLeast(1),
        inspect::AnyFlags::FLAGS,
        run!(inspect::any),
    )
    .top("inspect"),
    Command::new(
        "system",
        "info",
        "[OPTIONS]",
        "Display system-wide information",
        Arity::None,
        system::FormatFlags::FLAGS,
        run!(system::info),
    )
    .top("info"),
    Command::new(
        "",
        "version",
        "[OPTIONS]",
        "Show the Silo version information",
        Arity::None,
        system::FormatFlags::FLAGS,
        run!(system::version),
    )
    .top("version"),
    Command::new(
        "system",
        "events",
        "[OPTIONS]",
        "Get real time events from the server",
        Arity::None,
        system::EventsFlags::FLAGS,
        run!(system::events),
    )
    .top("events"),
    Command::new(
        "system",
        "df",
        "[OPTIONS]",
        "Show disk usage",
        Arity::None,
        system::DfFlags::FLAGS,
        run!(system::df),
    ),
    Command::new(
        "system",
        "prune",
        "[OPTIONS]",
        "Remove unused data",
        Arity::None,
        system::PruneFlags::FLAGS,
        run!(system::prune),
    ),
    Command::new(
        "hive",
        "dump",
        "[OPTIONS] FILE [KEY]",
        "Show the keys and values of a registry hive",
        Arity::Between(1, 2),
        hive::DumpFlags::FLAGS,
        run!(hive::dump),
    ),
    Command::new(
        "hive",
        "get",
        "[OPTIONS] FILE KEY [VALUE]",
        "Show a value of a key, or all of them",
        Arity::Between(2, 3),
        hive::GetFlags::FLAGS,
        run!(hive::get),
    ),
    Command::new(
        "hive",
        "set",
        "[OPTIONS] FILE KEY [VALUE [DATA...]]",
        "Set or delete a value or a key",
        Arity::AtLeast(2),
        hive::SetFlags::FLAGS,
        run!(hive::set),
    ),
    Command::new(
        "hive",
        "diff",
        "[OPTIONS] BASE TARGET",
        "Show how one hive differs from another, or write that as a differencing hive",
        Arity::Exactly(2),
        hive::DiffFlags::FLAGS,
        run!(hive::diff),
    ),
    Command::new(
        "hive",
        "merge",
        "[OPTIONS] BASE DELTA [DELTA...]",
        "Lay differencing hives over a hive, lowest first",
        Arity::AtLeast(2),
        hive::MergeFlags::FLAGS,
        run!(hive::merge),
    ),
    Command::new(
        "hive",
        "export",
        "[OPTIONS] FILE [KEY]",
        "Write a hive, or a key with all below it, in another format",
        Arity::Between(1, 2),
        hive::ExportFlags::FLAGS,
        run!(hive::export),
    ),
    Command::new(
        "hive",
        "import",
        "[OPTIONS] FILE REGFILE|- [REGFILE...]",
        "Make the changes of registry editor files (.reg) in a hive",
        Arity::AtLeast(2),
        hive::ImportFlags::FLAGS,
        run!(hive::import),
    ),
    Command::new(
        "windows",
        "setup",
        "[OPTIONS]",
        "Make the Wine runtime and the base images from a Debian mirror",
        Arity::None,
        windows::SetupFlags::FLAGS,
        run!(windows::setup_windows),
    ),
    Command::new(
        "windows",
        "info",
        "",
        "Show which Wine and base images are there, and what of the host is fit for them",
        Arity::None,
        &[],
        run!(windows::info),
    ),
    Command::new(
        "windows",
        "check",
        "[OPTIONS] IMAGE|FILE|DIRECTORY",
        "Tell which programs will run, which will not, and why",
        Arity::Exactly(1),
        windows::CheckFlags::FLAGS,
        run!(windows::check_windows),
    ),
    Command::new(
        "windows",
        "export",
        "[OPTIONS]",
        "Save the Wine runtime and the base images to a tar archive (streamed to STDOUT by default)",
        Arity::None,
        image_stream::OutputFlags::FLAGS,
        run!(windows::export),
    ),
    Command::new(
        "windows",
        "import",
        "[OPTIONS]",
        "Load the Wine runtime and the base images from a tar archive or STDIN",
        Arity::None,
        windows::ImportFlags::FLAGS,
        run!(windows::import),
    ),
    Command::new(
        "",
        "doctor",
        "",
        "Check what of this host is fit for containers, and say what to do where it is not",
        Arity::None,
        &[],
        run!(meta::doctor),
    )
    .top("doctor"),
    Command::new(
        "",
        "completion",
        "bash|zsh|fish",
        "Write a completion script for a shell",
        Arity::Exactly(1),
        &[],
        run!(meta::completion),
    )
    .top("completion"),
    Command::new(
        "",
        "man",
        "DIRECTORY",
        "Write man pages",
        Arity::Exactly(1),
        &[],
        run!(meta::man),
    )
    .top("man")
    .hidden(),
];

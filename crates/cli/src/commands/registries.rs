//! Commands that ask registries themselves, for the table of all commands.

use super::{copy, login, manifest, search};
use crate::command::{Arity, Command};
use crate::flags::FlagSet;

/// `copy`, those of `manifest`, and `search`, `login` and `logout`.
pub(super) const TABLE: [Command; 9] = [
    Command::new(
        "image",
        "copy",
        "[OPTIONS] SOURCE TARGET",
        "Copy an image between registries, OCI layouts (oci:DIRECTORY[:TAG]), archives (oci-archive:FILE[:TAG], docker-archive:FILE[:NAME]) and the engine (docker-daemon:NAME)",
        Arity::Exactly(2),
        copy::CopyFlags::FLAGS,
        |invocation| Box::pin(copy::copy(invocation)),
    )
    .top("copy"),
    Command::new(
        "manifest",
        "annotate",
        "[OPTIONS] MANIFEST_LIST MANIFEST",
        "Add additional information to a local image manifest",
        Arity::Exactly(2),
        manifest::AnnotateFlags::FLAGS,
        |invocation| Box::pin(std::future::ready(manifest::annotate(invocation))),
    ),
    Command::new(
        "manifest",
        "create",
        "MANIFEST_LIST MANIFEST [MANIFEST...]",
        "Create a local manifest list for annotating and pushing to a registry",
        Arity::AtLeast(2),
        manifest::CreateFlags::FLAGS,
        |invocation| Box::pin(manifest::create(invocation)),
    ),
    Command::new(
        "manifest",
        "inspect",
        "[OPTIONS] [MANIFEST_LIST] MANIFEST",
        "Display an image manifest, or manifest list",
        Arity::Between(1, 2),
        manifest::InspectFlags::FLAGS,
        |invocation| Box::pin(manifest::inspect(invocation)),
    ),
    Command::new(
        "manifest",
        "push",
        "[OPTIONS] MANIFEST_LIST",
        "Push a manifest list to a repository",
        Arity::Exactly(1),
        manifest::PushFlags::FLAGS,
        |invocation| Box::pin(manifest::push(invocation)),
    ),
    Command::new(
        "manifest",
        "rm",
        "MANIFEST_LIST [MANIFEST_LIST...]",
        "Delete one or more manifest lists from local storage",
        Arity::AtLeast(1),
        &[],
        |invocation| Box::pin(std::future::ready(manifest::rm(invocation))),
    ),
    Command::new(
        "",
        "search",
        "[OPTIONS] TERM",
        "Search a registry for images",
        Arity::Exactly(1),
        search::SearchFlags::FLAGS,
        |invocation| Box::pin(search::search(invocation)),
    )
    .top("search"),
    Command::new(
        "",
        "login",
        "[OPTIONS] [SERVER]",
        "Authenticate to a registry",
        Arity::AtMost(1),
        login::LoginFlags::FLAGS,
        |invocation| Box::pin(login::login(invocation)),
    )
    .top("login"),
    Command::new(
        "",
        "logout",
        "[SERVER]",
        "Log out from a registry",
        Arity::AtMost(1),
        &[],
        |invocation| Box::pin(std::future::ready(login::logout(invocation))),
    )
    .top("logout"),
];

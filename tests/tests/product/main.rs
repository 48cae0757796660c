//! Drives a whole engine through the real `docker` CLI and its API, a module a feature.
//!
//! Every test but those that name a difference passes on a real Docker Engine as well.

mod build;
mod buildkit;
mod copy;
mod crash;
mod engines;
mod errors;
mod events;
mod exec;
mod hive;
mod images;
mod inspect;
mod interop;
mod lifecycle;
mod limits;
mod login;
mod logs;
mod network;
mod platforms;
mod registry;
mod registry_faults;
mod registryd;
mod run;
mod security;
mod silo_build;
mod streams;
mod volumes;
mod websocket;
mod windows;
mod windows_commit;
mod windows_registry;
mod windows_setup;

//! `silo build`: what the flags ask for, and how a build is shown.
//!
//! The command is a client of BuildKit's API ([`silo_buildkit::client`]): files of the context
//! go to the engine when it asks for them, and only those that have changed since the last time.

mod agent;
mod attest;
pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod display;
mod input;
mod output;
mod plain;
mod rawjson;
pub(crate) mod request;
mod share;
mod trace;
mod tty;

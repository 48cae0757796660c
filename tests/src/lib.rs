//! What product tests share: an engine of their own to drive through the real `docker` CLI.
//!
//! A test that names no difference passes on Docker too: with `SILO_TEST_ENGINE=docker` and
//! `SILO_TEST_DOCKER_HOST=unix:///...` the same tests drive that engine.

mod engine;
mod http;
mod skip;

pub use engine::{Engine, Kind, Outcome};
pub use http::Response;
pub use skip::skip;

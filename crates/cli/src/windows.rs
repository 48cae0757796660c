//! Setting Windows containers up: the work between a Debian mirror and the engine.
//!
//! Packages are fetched and images made here, on the client; the engine is asked for nothing but
//! what every client may ask: to load images, and to run one container, isolated and without a
//! network, in which Wine makes its prefix. So nothing of it needs privileges here, and it works
//! with an engine elsewhere.
//!
//! What an interrupted set-up leaves is the download cache. A container that was killed together
//! with everything ends by itself and is removed by the next set-up.

pub(crate) mod check;
mod engine;
pub(crate) mod host;
mod setup;
mod show;

pub(crate) use engine::{Engine, remove};
pub(crate) use setup::{Request, SETUP, kinds_and_builds, name, setup};

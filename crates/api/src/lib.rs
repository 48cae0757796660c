//! The Docker Engine HTTP API, versions 1.24 to 1.55, over one or several listeners.
//!
//! [`serve`] speaks HTTP/1.1. A request's path, after an optional `/v1.NN`, picks a handler
//! (`route`); the handler calls [`silo_engine::Engine`] and shapes the result for the client's
//! version (`compat`). Errors are `{"message": ...}` with dockerd's status and words.
//!
//! Attach and exec take the connection over: after the head, `101 UPGRADED` or, where the client
//! did not ask for an upgrade, `200 OK`, both directions are raw bytes. Without a terminal, output
//! is framed: one byte stream (1 output, 2 error), three zero bytes, four bytes length in network
//! order, payload.

mod body;
mod compat;
mod conn;
mod handlers;
mod query;
mod request;
mod request_body;
mod respond;
mod route;
mod server;
mod websocket;

pub use server::{Backend, Listener, serve};

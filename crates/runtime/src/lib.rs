//! The compute layer: the OCI runtime specification in, isolated processes out.
#![warn(missing_docs)]

mod error;
mod gate;
mod request;
mod sync;

pub use error::Error;
pub use gate::Gate;
pub use request::{CreateRequest, Created, ExecRequest, GateKind, Placement, Root, Started, Stdio};

/// Makes a container.
pub fn create(request: CreateRequest<'_>) -> Result<Created, Error> {
    Err(Error::invalid(request.id))
}

/// Starts a process in a container.
pub fn exec(request: ExecRequest<'_>) -> Result<Started, Error> {
    Err(Error::invalid(request.pid.as_raw_nonzero().to_string()))
}

//! `POST /containers/{id}/wait`.

use std::future::Future;

use silo_docker::containers::{WaitError, WaitResponse};
use silo_docker::query::WaitCondition;
use silo_types::Error;

use crate::container::State;
use crate::engine::Engine;

impl Engine {
    /// Waits for a condition of a container.
    ///
    /// When this returns, the wait has begun: whatever happens afterwards is seen by the future,
    /// so the server can send its headers and the client can start the container.
    pub fn container_wait(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = WaitResponse> + Send + 'static, Error> {
        let container = self.container(name)?;
        let mut watch = container.watch();
        let begun = watch.borrow_and_update().exits;
        Ok(async move {
            let met = |state: &State| match condition {
                WaitCondition::NotRunning => !state.running || state.exits != begun,
                WaitCondition::NextExit => state.exits != begun || state.removed,
                WaitCondition::Removed => state.removed,
            };
            let response = match watch.wait_for(met).await {
                // Who waits for the removal hears of a failed start by the exit code alone.
                Ok(state) => response(&state, condition != WaitCondition::Removed),
                Err(_) => response(&State::default(), false),
            };
            drop(container);
            response
        })
    }
}

fn response(state: &State, with_error: bool) -> WaitResponse {
    let failed = with_error && !state.error.is_empty();
    WaitResponse {
        error: failed.then(|| WaitError { message: state.error.clone() }),
        status_code: state.exit_code,
    }
}

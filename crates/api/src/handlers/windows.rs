//! `/silo/windows`: what Docker has nothing like.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /silo/windows/check?image=NAME` | the compatibility report of an image |
//! | `POST /silo/windows/libraries?image=BASE` | what a base has of libraries that programs need |
//!
//! Bodies are JSON, with the fields of `silo_windows::check`.

use serde::Deserialize;
use silo_types::Error;
use silo_windows::check::Need;

use crate::request::Request;
use crate::respond::{self, Answer};

/// What a client's programs need.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Needs {
    needs: Vec<Need>,
}

pub(crate) async fn check(request: Request) -> Answer {
    let image = request.query.get("image");
    if image.is_empty() {
        return Err(Error::invalid("no image to check was named"));
    }
    respond::json(&request.engine.windows_check(image).await?)
}

pub(crate) async fn libraries(mut request: Request) -> Answer {
    let Needs { needs } = request.json().await?;
    let image = request.query.get("image").to_owned();
    respond::json(&request.engine.windows_libraries(&image, needs).await?)
}

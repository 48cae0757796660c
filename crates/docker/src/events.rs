//! `GET /events`.

use std::collections::BTreeMap;

use crate::empty;

model! {
    /// One event.
    pub struct EventMessage {
        /// The action again, for containers and images; before 1.52.
        #[serde(rename = "status", skip_serializing_if = "empty")]
        pub status: String,
        /// The actor's id again, for containers and images; before 1.52.
        #[serde(rename = "id", skip_serializing_if = "empty")]
        pub id: String,
        /// The container's image; before 1.52.
        #[serde(rename = "from", skip_serializing_if = "empty")]
        pub from: String,
        /// `container`, `image`, `volume`, `network` or `daemon`.
        #[serde(rename = "Type")]
        pub kind: String,
        /// `create`, `start`, `die`, ...
        pub action: String,
        /// What it happened to.
        pub actor: EventActor,
        /// `local`.
        #[serde(rename = "scope", skip_serializing_if = "empty")]
        pub scope: String,
        /// Unix seconds.
        #[serde(rename = "time", skip_serializing_if = "empty")]
        pub time: i64,
        /// Unix nanoseconds.
        #[serde(rename = "timeNano", skip_serializing_if = "empty")]
        pub time_nano: i64,
    }
}

model! {
    /// What an event happened to.
    pub struct EventActor {
        /// Id or name.
        #[serde(rename = "ID")]
        pub id: String,
        /// Name, image, labels, exit code, ...
        pub attributes: BTreeMap<String, String>,
    }
}

//! Registries, mirrors, proxies and networks that misbehave: everything ends right, or fails with
//! a clear error and nothing half-stored.

mod mirrors;
mod progress;
mod proxies;
mod pull;
mod push;
mod tls;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use silo_tests::{Asked, Content, Engine, Reply, Scripted};

/// An engine that does not wait long before it asks again.
fn impatient() -> Engine {
    let mut engine = Engine::prepare();
    engine.add_option("--registry-retry-wait=1");
    engine
}

/// A server of `content` that does wrong where `fault` has an answer.
fn faulty(
    content: Content,
    fault: impl Fn(&Asked, &Content) -> Option<Reply> + Send + Sync + 'static,
) -> (Scripted, Arc<Mutex<Content>>) {
    let content = Arc::new(Mutex::new(content));
    let shared = Arc::clone(&content);
    let server = Scripted::start(move |asked| {
        let mut content = shared.lock().expect("the content");
        fault(asked, &content).unwrap_or_else(|| content.answer(asked))
    });
    (server, content)
}

/// What is below some directories of an engine's data root, but for whole content.
fn unfinished(engine: &Engine) -> BTreeSet<String> {
    let root = engine.data_root();
    let mut found = BTreeSet::new();
    for directory in ["content/ingest", "content/partial", "layers"] {
        for entry in fs_err::read_dir(root.join(directory)).into_iter().flatten() {
            let name = entry.expect("an entry").file_name().into_string().expect("a name");
            if directory != "layers" || name.starts_with('.') {
                found.insert(format!("{directory}/{name}"));
            }
        }
    }
    found
}

//! The event bus: what happened lately, and what happens.
//!
//! Events lie in a ring of the last [`KEPT`] messages, numbered without gaps. A subscriber is a
//! cursor into that numbering and is woken when the newest number grows, so replay of the past
//! and the live stream are one thing, publishing never waits, and a slow subscriber loses the
//! oldest messages instead of holding up the engine.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use silo_docker::Filters;
use silo_docker::events::{EventActor, EventMessage};
use silo_docker::query::EventsQuery;
use silo_oci::reference::Reference;
use silo_types::Error;
use tokio::sync::watch;

/// How many messages are kept for replay.
pub const KEPT: usize = 4096;

#[derive(Debug, Default)]
struct Ring {
    messages: VecDeque<Arc<EventMessage>>,
    /// The number of the message that comes next.
    next: u64,
}

/// The bus.
#[derive(Debug)]
pub struct Events {
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self { ring: Mutex::default(), newest: watch::Sender::new(0) }
    }
}

impl Events {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Announces that `action` happened to the `kind` of object named `id`.
    pub fn publish(
        &self,
        kind: &str,
        action: &str,
        id: &str,
        attributes: BTreeMap<String, String>,
    ) {
        let now = Timestamp::now();
        let mut message = EventMessage {
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: EventActor { id: id.to_owned(), attributes },
            scope: "local".to_owned(),
            time: now.as_second(),
            time_nano: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
            ..EventMessage::default()
        };
        legacy_fields(&mut message);
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.messages.len() == KEPT {
            ring.messages.pop_front();
        }
        ring.messages.push_back(Arc::new(message));
        ring.next += 1;
        let next = ring.next;
        // Under the lock, so that numbers are announced in order.
        self.newest.send_replace(next);
    }

    /// How many subscribers there are.
    pub fn listeners(&self) -> usize {
        self.newest.receiver_count()
    }

    /// A stream of what matches the query.
    pub fn subscribe(self: &Arc<Self>, query: EventsQuery) -> Result<EventStream, Error> {
        let since = unix_time(&query.since).ok_or_else(|| invalid_time("since", &query.since))?;
        let until = unix_time(&query.until).ok_or_else(|| invalid_time("until", &query.until))?;
        if let (Some(first), Some(last)) = (since, until)
            && last < first
        {
            return Err(Error::invalid(format!(
                "`since` time ({}) cannot be after `until` time ({})",
                query.since, query.until
            )));
        }
        let newest = self.newest.subscribe();
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.next - ring.messages.len() as u64;
        let cursor = match (since, until) {
            (None, None) => ring.next,
            (None, Some(_)) => oldest,
            (Some(since), _) => {
                let early = ring.messages.iter().rev().take_while(|m| m.time_nano >= since).count();
                ring.next - early as u64
            }
        };
        drop(ring);
        Ok(EventStream { bus: Arc::clone(self), newest, cursor, until, filters: query.filters })
    }
}

fn invalid_time(name: &str, value: &str) -> Error {
    Error::invalid(format!(
        "invalid value for '{name}': failed to parse value as timestamp: {value:?}"
    ))
}

/// One subscriber.
#[derive(Debug)]
pub struct EventStream {
    bus: Arc<Events>,
    newest: watch::Receiver<u64>,
    cursor: u64,
    /// Unix nanoseconds.
    until: Option<i64>,
    filters: Filters,
}

impl EventStream {
    /// The next message that matches; `None` when the query's `until` has passed.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Arc<EventMessage>> {
        loop {
            self.newest.mark_unchanged();
            while let Some(message) = self.take() {
                if self.until.is_some_and(|until| message.time_nano > until) {
                    return None;
                }
                if matches(&self.filters, &message) {
                    return Some(message);
                }
            }
            let Some(until) = self.until else {
                self.newest.changed().await.ok()?;
                continue;
            };
            let now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
            let left = Duration::from_nanos(u64::try_from(until.saturating_sub(now)).unwrap_or(0));
            if left.is_zero() {
                return None;
            }
            tokio::select! {
                changed = self.newest.changed() => changed.ok()?,
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    fn take(&mut self) -> Option<Arc<EventMessage>> {
        let ring = self.bus.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.next - ring.messages.len() as u64;
        self.cursor = self.cursor.max(oldest);
        let index = usize::try_from(self.cursor - oldest).ok()?;
        let message = ring.messages.get(index).cloned()?;
        self.cursor += 1;
        Some(message)
    }
}

/// Docker's rules of `docker events --filter`.
fn matches(filters: &Filters, message: &EventMessage) -> bool {
    if filters.is_empty() {
        return true;
    }
    let attribute = |name: &str| message.actor.attributes.get(name).map_or("", String::as_str);
    // These actions carry details after a colon.
    let detailed = ["health_status", "exec_create", "exec_start"];
    let event = if filters.get("event").any(|value| detailed.contains(&value)) {
        filters.prefix("event", &message.action)
    } else {
        filters.exact("event", &message.action)
    };
    let kinds = [
        "daemon",
        "container",
        "plugin",
        "volume",
        "network",
        "node",
        "service",
        "secret",
        "config",
    ];
    event
        && filters.exact("type", &message.kind)
        && filters.exact("scope", &message.scope)
        && kinds.iter().all(|kind| {
            filters.prefix(kind, &message.actor.id) || filters.prefix(kind, attribute("name"))
        })
        && matches_image(filters, message)
        && filters.labels("label", |key| message.actor.attributes.get(key).map(String::as_str))
}

fn matches_image(filters: &Filters, message: &EventMessage) -> bool {
    if !filters.contains("image") {
        return true;
    }
    let key = if message.kind == "image" { "name" } else { "image" };
    let name = message.actor.attributes.get(key).map_or("", String::as_str);
    let bare = |text: &str| match Reference::parse_normalized(text) {
        Ok(reference) => reference.familiar_name(),
        Err(_) => text.to_owned(),
    };
    [message.actor.id.as_str(), name]
        .iter()
        .any(|text| filters.exact("image", text) || filters.exact("image", &bare(text)))
}

/// Fills the fields that predate `Type` and `Actor`.
fn legacy_fields(message: &mut EventMessage) {
    let wanted = match message.kind.as_str() {
        "container" => {
            message.from = message.actor.attributes.get("image").cloned().unwrap_or_default();
            true
        }
        "image" => true,
        _ => false,
    };
    if wanted {
        message.status = message.action.clone();
        message.id.clone_from(&message.actor.id);
    }
}

/// Reads `seconds[.fraction]` as Unix nanoseconds; empty text is no time. `None` is bad text.
#[expect(clippy::option_option, reason = "no time and bad text are different")]
pub(crate) fn unix_time(text: &str) -> Option<Option<i64>> {
    if text.is_empty() {
        return Some(None);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = &fraction[..fraction.len().min(9)];
    let nanos: i64 = format!("{digits:0<9}").parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(events: &Events, action: &str, name: &str) {
        let attributes = [("name", name), ("image", "busybox:latest"), ("color", "blue")];
        let attributes =
            attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        events.publish("container", action, "c1", attributes);
    }

    async fn actions(mut stream: EventStream) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(message) = stream.next().await {
            seen.push(message.action.clone());
        }
        seen
    }

    fn query(since: &str, until: &str, filters: &str) -> EventsQuery {
        let filters = Filters::parse(filters).unwrap();
        EventsQuery { since: since.into(), until: until.into(), filters }
    }

    #[tokio::test]
    async fn past_is_filtered() {
        let events = Arc::new(Events::new());
        container(&events, "create", "web");
        container(&events, "exec_start: sh -c x", "web");
        events.publish("volume", "create", "v1", BTreeMap::new());
        let until = (Timestamp::now().as_second() + 1).to_string();
        let until = format!("{until}.000000000");
        for (filters, expected) in [
            ("{}", vec!["create", "exec_start: sh -c x", "create"]),
            (r#"{"type":["volume"]}"#, vec!["create"]),
            (r#"{"event":["exec_start"]}"#, vec!["exec_start: sh -c x"]),
            (r#"{"container":["web"],"event":["create"]}"#, vec!["create"]),
            (r#"{"image":["busybox"]}"#, vec!["create", "exec_start: sh -c x"]),
            (r#"{"label":["color=red"]}"#, vec![]),
            (r#"{"volume":["v1"]}"#, vec!["create"]),
        ] {
            let stream = events.subscribe(query("1.5", &until, filters)).unwrap();
            assert_eq!(actions(stream).await, expected, "{filters}");
        }
    }

    #[tokio::test]
    async fn live_follows_and_ring_drops_the_oldest() {
        let events = Arc::new(Events::new());
        container(&events, "create", "a");
        let mut live = events.subscribe(query("", "", "{}")).unwrap();
        for _ in 0..KEPT + 10 {
            container(&events, "start", "a");
        }
        container(&events, "die", "a");
        let first = live.next().await.unwrap();
        assert_eq!((first.action.as_str(), first.status.as_str()), ("start", "start"));
        assert_eq!((first.id.as_str(), first.from.as_str()), ("c1", "busybox:latest"));
        for _ in 0..KEPT - 2 {
            live.next().await.unwrap();
        }
        assert_eq!(live.next().await.unwrap().action, "die");
        assert_eq!(events.listeners(), 1);
    }

    #[test]
    fn times() {
        assert_eq!(unix_time(""), Some(None));
        assert_eq!(unix_time("12"), Some(Some(12_000_000_000)));
        assert_eq!(unix_time("12.5"), Some(Some(12_500_000_000)));
        assert_eq!(unix_time("12.0000000019"), Some(Some(12_000_000_001)));
        for bad in ["x", "1.x", "1.-5", "99999999999999999999", "."] {
            assert_eq!(unix_time(bad), None, "{bad}");
        }
        let events = Arc::new(Events::new());
        assert!(events.subscribe(query("10", "5", "{}")).is_err());
        assert!(events.subscribe(query("x", "", "{}")).is_err());
    }
}

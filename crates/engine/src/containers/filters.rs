//! The filters of container lists.

use std::collections::BTreeSet;
use std::sync::Arc;

use silo_docker::Filters;
use silo_types::Error;

use crate::container::{Container, Record, State};
use crate::containers::validate;
use crate::engine::Engine;

const LIST: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATUSES: &[&str] =
    &["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTH: &[&str] = &["none", "starting", "healthy", "unhealthy"];

/// Filters whose values have been checked.
#[derive(Debug)]
pub(crate) struct ListFilter {
    filters: Filters,
    exited: Vec<i64>,
    images: Option<BTreeSet<String>>,
    before: Option<i64>,
    since: Option<i64>,
    publish: BTreeSet<String>,
    expose: BTreeSet<String>,
    is_task: Option<bool>,
    /// A filter by status shows containers that do not run, too.
    pub(crate) all: bool,
}

impl ListFilter {
    /// Checks the filters; `before`, `since` and `ancestor` are looked up.
    pub(crate) fn new(engine: &Engine, filters: Filters) -> Result<Self, Error> {
        // docker wording, throughout
        filters.validate(LIST)?;
        let mut exited = Vec::new();
        for value in filters.get("exited") {
            exited.push(value.parse().map_err(|_| {
                Error::invalid(format!("invalid filter 'exited={value}': strconv.Atoi: parsing {value:?}: invalid syntax"))
            })?);
        }
        for value in filters.get("status") {
            if !STATUSES.contains(&value) {
                return Err(Error::invalid(format!("invalid filter 'status={value}'")));
            }
        }
        for value in filters.get("health") {
            if !HEALTH.contains(&value) {
                return Err(Error::invalid(format!("invalid filter 'health={value}'")));
            }
        }
        let is_task = if filters.contains("is-task") {
            Some(filters.boolean("is-task", false)?)
        } else {
            None
        };
        let (before, since) = (made(engine, &filters, "before")?, made(engine, &filters, "since")?);
        let images = filters.contains("ancestor").then(|| {
            filters.get("ancestor").flat_map(|name| engine.image_descendants(name)).collect()
        });
        let all = filters.get("status").next().is_some();
        let (publish, expose) = (ports(&filters, "publish")?, ports(&filters, "expose")?);
        Ok(Self { filters, exited, images, before, since, publish, expose, is_task, all })
    }

    /// Whether a container is to be shown.
    pub(crate) fn matches(&self, container: &Arc<Container>) -> bool {
        let record = container.record();
        let state = container.state();
        self.matches_record(container.id.as_str(), &record) && self.matches_state(&record, &state)
    }

    fn matches_record(&self, id: &str, record: &Record) -> bool {
        let filters = &self.filters;
        if self.before.is_some_and(|before| record.created >= before)
            || self.since.is_some_and(|since| record.created <= since)
            || self.is_task == Some(true)
        {
            return false;
        }
        let slashed = format!("/{}", record.name);
        let isolation = match record.host_config.isolation.as_str() {
            "" => "default",
            other => other,
        };
        (filters.pattern("name", &record.name) || filters.pattern("name", &slashed))
            && (!filters.contains("id") || filters.prefix("id", id))
            && filters.labels("label", |key| record.config.labels.get(key).map(String::as_str))
            && filters.exact("isolation", isolation)
            && self.images.as_ref().is_none_or(|images| {
                record.image.is_some_and(|image| images.contains(&image.to_string()))
            })
            && (!filters.contains("volume")
                || filters.get("volume").any(|wanted| {
                    record.mounts.iter().any(|mount| {
                        let by_name =
                            if mount.name.is_empty() { &mount.source } else { &mount.name };
                        mount.destination == wanted || by_name == wanted
                    })
                }))
    }

    fn matches_state(&self, record: &Record, state: &State) -> bool {
        let filters = &self.filters;
        if !self.exited.is_empty()
            && (state.running || state.started_at == 0 || !self.exited.contains(&state.exit_code))
        {
            return false;
        }
        let health = state.health.as_ref().map_or("none", |health| health.status.as_str());
        if !filters.exact("status", state.status()) || !filters.exact("health", health) {
            return false;
        }
        if filters.contains("network") {
            let (name, id) = match &state.network {
                Some(network) => (network.network.as_str(), network.network_id.as_str()),
                None => (crate::networks::name_of_mode(&record.host_config.network_mode), ""),
            };
            let found = filters
                .get("network")
                .any(|wanted| wanted == name || (!id.is_empty() && id.starts_with(wanted)));
            if !found {
                return false;
            }
        }
        if self.publish.is_empty() && self.expose.is_empty() {
            return true;
        }
        super::list::ports(record, state).iter().any(|port| {
            let public = format!("{}/{}", port.public_port, port.protocol);
            let private = format!("{}/{}", port.private_port, port.protocol);
            self.publish.contains(&public) || self.expose.contains(&private)
        })
    }
}

/// When the container was made that a filter names.
fn made(engine: &Engine, filters: &Filters, name: &str) -> Result<Option<i64>, Error> {
    let mut last = None;
    for value in filters.get(name) {
        last = Some(engine.containers.find(value)?.record().created);
    }
    Ok(last)
}

/// The `port/protocol` texts that the values of a filter stand for.
fn ports(filters: &Filters, name: &str) -> Result<BTreeSet<String>, Error> {
    let mut set = BTreeSet::new();
    for value in filters.get(name) {
        if value.contains(':') {
            return Err(Error::invalid(format!(
                "filter for '{name}' should not contain ':': {value}"
            )));
        }
        let (range, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
        let (first, last) = validate::parse_port_range(range).ok_or_else(|| {
            Error::invalid(format!("error while looking up for {name} {value}: invalid port"))
        })?;
        set.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(json: &str) -> ListFilter {
        let filters = Filters::parse(json).unwrap();
        ListFilter {
            exited: filters.get("exited").map(|v| v.parse().unwrap()).collect(),
            images: None,
            before: None,
            since: None,
            publish: ports(&filters, "publish").unwrap(),
            expose: ports(&filters, "expose").unwrap(),
            is_task: None,
            all: false,
            filters,
        }
    }

    fn container() -> Arc<Container> {
        let record: Record = serde_json::from_str(
            r#"{"created":5,"image":null,"os":"linux",
                "config":{"Labels":{"a":"b"},"ExposedPorts":{"80/tcp":{}}},"host_config":{},
                "mounts":[{"name":"data","destination":"/data","kind":"volume"}]}"#,
        )
        .unwrap();
        let record = Record { name: "web-1".into(), ..record };
        let state = State { started_at: 1, exit_code: 3, ..State::default() };
        let id = format!("{:a<64}", "").parse().unwrap();
        Arc::new(Container::new(id, "/nowhere".into(), record, state))
    }

    #[test]
    fn each_filter_decides() {
        let container = container();
        for (json, shown) in [
            ("{}", true),
            (r#"{"name":["web"]}"#, true),
            (r#"{"name":["^/web-1$"]}"#, true),
            (r#"{"name":["db"]}"#, false),
            (r#"{"id":["aaa"]}"#, true),
            (r#"{"id":["b"]}"#, false),
            (r#"{"label":["a"]}"#, true),
            (r#"{"label":["a=c"]}"#, false),
            (r#"{"exited":["3"]}"#, true),
            (r#"{"exited":["0"]}"#, false),
            (r#"{"status":["exited"]}"#, true),
            (r#"{"status":["running"]}"#, false),
            (r#"{"health":["none"]}"#, true),
            (r#"{"volume":["data"]}"#, true),
            (r#"{"volume":["/data"]}"#, true),
            (r#"{"volume":["x"]}"#, false),
            (r#"{"network":["bridge"]}"#, true),
            (r#"{"network":["host"]}"#, false),
            (r#"{"isolation":["hyperv"]}"#, false),
        ] {
            assert_eq!(filter(json).matches(&container), shown, "{json}");
        }
    }

    #[test]
    fn ranges_of_ports() {
        let set = ports(&Filters::parse(r#"{"expose":["80-82/udp"]}"#).unwrap(), "expose");
        assert_eq!(set.unwrap().len(), 3);
        for bad in [r#"{"expose":["1:2"]}"#, r#"{"expose":["x"]}"#] {
            assert!(ports(&Filters::parse(bad).unwrap(), "expose").is_err());
        }
    }
}

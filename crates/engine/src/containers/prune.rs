//! `docker container prune`.

use std::sync::Arc;

use silo_docker::Filters;
use silo_docker::containers::ContainersPruneReport;
use silo_docker::query::ContainerRemoveQuery;
use silo_types::Error;

use crate::engine::Engine;

impl Engine {
    /// Removes every container that does not run and that the filters choose.
    pub async fn container_prune(
        self: &Arc<Self>,
        filters: &Filters,
    ) -> Result<ContainersPruneReport, Error> {
        filters.validate(&["label", "label!", "until"])?;
        let until = until(filters)?;
        let mut report = ContainersPruneReport::default();
        for container in self.containers.all() {
            let record = container.record();
            let label = |key: &str| record.config.labels.get(key).map(String::as_str);
            let excluded = filters.contains("label!") && filters.labels("label!", label);
            if container.is_running()
                || until.is_some_and(|until| record.created >= until)
                || !filters.labels("label", label)
                || excluded
            {
                continue;
            }
            let size = self.container_sizes(&container).await.map_or(0, |(own, _)| own);
            let id = container.id.as_str();
            match self.container_remove(id, ContainerRemoveQuery::default()).await {
                Ok(()) => {
                    report.containers_deleted.make().push(id.to_owned());
                    report.space_reclaimed += u64::try_from(size).unwrap_or(0);
                }
                Err(error) => tracing::warn!(container = id, %error, "could not prune"),
            }
        }
        let reclaimed = report.space_reclaimed.to_string();
        let attributes = [("reclaimed".to_owned(), reclaimed)].into();
        self.events.publish("container", "prune", "", attributes);
        Ok(report)
    }
}

/// The `until` filter in nanoseconds since 1970: a time, Unix seconds, or a duration back from
/// now.
fn until(filters: &Filters) -> Result<Option<i64>, Error> {
    let mut values = filters.get("until");
    let Some(text) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        // docker wording
        return Err(Error::invalid("more than one until filter specified"));
    }
    if let Some(ago) = silo_types::duration::parse_go(text) {
        let ago = i64::try_from(ago.as_nanos()).unwrap_or(i64::MAX);
        return Ok(Some(crate::container::now().saturating_sub(ago)));
    }
    if let Some(Some(time)) = crate::events::unix_time(text) {
        return Ok(Some(time));
    }
    match silo_types::time::parse(text).map(|time| i64::try_from(time.as_nanosecond())) {
        Some(Ok(time)) => Ok(Some(time)),
        _ => Err(Error::invalid(format!("invalid until filter: {text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_is_a_time_or_a_duration() {
        let read = |text: &str| {
            let mut filters = Filters::default();
            filters.add("until", text);
            until(&filters)
        };
        assert_eq!(until(&Filters::default()).unwrap(), None);
        assert_eq!(read("2023-11-14T22:13:20Z").unwrap(), Some(1_700_000_000_000_000_000));
        assert_eq!(read("1700000000").unwrap(), Some(1_700_000_000_000_000_000));
        let hour_ago = crate::container::now() - 3_600_000_000_000;
        assert!((read("1h").unwrap().unwrap() - hour_ago).abs() < 1_000_000_000);
        assert!(read("yesterday").is_err());
    }
}

//! Between the `config` object of an image and the `Config` of the API.

use std::collections::BTreeMap;

use silo_docker::containers::{Config, EmptyObject, HealthConfig};
use silo_docker::{List, Map};
use silo_oci::image::{ContainerConfig, Empty, Healthcheck};

#[expect(clippy::zero_sized_map_values, reason = "the document's own form")]
fn set(from: &BTreeMap<String, Empty>) -> Map<EmptyObject> {
    if from.is_empty() {
        return Map::null();
    }
    from.keys().map(|key| (key.clone(), EmptyObject {})).collect()
}

/// What the API shows of an image's defaults.
pub(crate) fn to_api(from: &ContainerConfig) -> Config {
    Config {
        hostname: from.hostname.clone(),
        domainname: from.domainname.clone(),
        user: from.user.clone(),
        exposed_ports: set(&from.exposed_ports),
        env: List(from.env.clone()),
        cmd: List(from.cmd.clone()),
        healthcheck: from.healthcheck.as_ref().map(|check| HealthConfig {
            test: List(check.test.clone()),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        args_escaped: from.args_escaped,
        volumes: set(&from.volumes),
        working_dir: from.working_dir.clone(),
        entrypoint: List(from.entrypoint.clone()),
        on_build: List(from.on_build.clone()),
        labels: if from.labels.is_empty() { Map::null() } else { from.labels.clone().into() },
        stop_signal: from.stop_signal.clone(),
        stop_timeout: from.stop_timeout,
        shell: List(from.shell.clone()),
        ..Config::default()
    }
}

/// What an image keeps of a container's configuration.
pub(crate) fn from_api(from: &Config) -> ContainerConfig {
    let set = |map: &Map<EmptyObject>| map.keys().map(|key| (key.clone(), Empty {})).collect();
    ContainerConfig {
        user: from.user.clone(),
        exposed_ports: set(&from.exposed_ports),
        env: from.env.0.clone(),
        cmd: from.cmd.0.clone(),
        healthcheck: from.healthcheck.as_ref().map(|check| Healthcheck {
            test: check.test.0.clone(),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        args_escaped: from.args_escaped,
        volumes: set(&from.volumes),
        working_dir: from.working_dir.clone(),
        entrypoint: from.entrypoint.0.clone(),
        on_build: from.on_build.0.clone(),
        labels: from.labels.clone().into_map(),
        stop_signal: from.stop_signal.clone(),
        stop_timeout: from.stop_timeout,
        shell: from.shell.0.clone(),
        ..ContainerConfig::default()
    }
}

/// Fills what `config` leaves open from `base`, as dockerd merges an image into a container.
pub(crate) fn merge(config: &mut Config, base: &Config) {
    let inherit = |mine: &mut String, theirs: &String| {
        if mine.is_empty() {
            mine.clone_from(theirs);
        }
    };
    inherit(&mut config.user, &base.user);
    inherit(&mut config.working_dir, &base.working_dir);
    inherit(&mut config.stop_signal, &base.stop_signal);
    for (mine, theirs) in
        [(&mut config.exposed_ports, &base.exposed_ports), (&mut config.volumes, &base.volumes)]
    {
        if mine.is_empty() {
            mine.clone_from(theirs);
        } else {
            mine.make().extend(theirs.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
    }
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    if config.env.is_empty() {
        config.env.clone_from(&base.env);
    } else {
        for variable in &base.env {
            if !config.env.iter().any(|mine| name(mine) == name(variable)) {
                config.env.make().push(variable.clone());
            }
        }
    }
    let labels = config.labels.make();
    for (key, value) in &base.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if config.entrypoint.is_empty() {
        if config.cmd.is_empty() {
            config.cmd.clone_from(&base.cmd);
        }
        if config.entrypoint.is_null() {
            config.entrypoint.clone_from(&base.entrypoint);
        }
    }
    match (&mut config.healthcheck, &base.healthcheck) {
        (mine @ None, theirs) => mine.clone_from(theirs),
        (Some(mine), Some(theirs)) => {
            if mine.test.is_empty() {
                mine.test.clone_from(&theirs.test);
            }
            for (mine, theirs) in [
                (&mut mine.interval, theirs.interval),
                (&mut mine.timeout, theirs.timeout),
                (&mut mine.start_period, theirs.start_period),
                (&mut mine.start_interval, theirs.start_interval),
                (&mut mine.retries, theirs.retries),
            ] {
                if *mine == 0 {
                    *mine = theirs;
                }
            }
        }
        (Some(_), None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> List<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn commands_replace_or_inherit() {
        let base = Config {
            entrypoint: words(&["/init"]),
            cmd: words(&["serve"]),
            env: words(&["PATH=/bin", "A=1"]),
            ..Config::default()
        };
        for (entrypoint, cmd, expected) in [
            (List::null(), List::null(), (words(&["/init"]), words(&["serve"]))),
            (List::null(), words(&["x"]), (words(&["/init"]), words(&["x"]))),
            (words(&["/x"]), List::null(), (words(&["/x"]), List::null())),
            (words(&[]), List::null(), (words(&[]), words(&["serve"]))),
            (words(&[]), words(&["y"]), (words(&[]), words(&["y"]))),
        ] {
            let mut config = Config { entrypoint, cmd, env: words(&["A=2"]), ..Config::default() };
            merge(&mut config, &base);
            assert_eq!((config.entrypoint, config.cmd), expected);
            assert_eq!(config.env, words(&["A=2", "PATH=/bin"]));
        }
    }

    #[test]
    fn images_round_trip() {
        let config = Config {
            user: "1:2".into(),
            env: words(&["A=1"]),
            entrypoint: words(&[]),
            volumes: [("/data".to_owned(), EmptyObject {})].into_iter().collect(),
            ..Config::default()
        };
        assert_eq!(to_api(&from_api(&config)), config);
    }
}

//! What a container takes of its image.
//!
//! An image is a stranger's: it fills in what the client left open about the program, and its
//! labels are only carried along. Nothing of it decides about the host.

use silo_docker::containers::{Config, EmptyObject, HealthConfig};
use silo_oci::image::ContainerConfig;
use silo_types::Error;

/// Fills in what the client left open.
pub(crate) fn merge(config: &mut Config, image: Option<&ContainerConfig>) -> Result<(), Error> {
    if let Some(image) = image {
        fill(config, image);
    }
    if config.entrypoint.len() == 1 && config.entrypoint[0].is_empty() {
        config.entrypoint = silo_docker::List::null();
    }
    if config.entrypoint.is_empty() && config.cmd.is_empty() {
        return Err(Error::invalid("no command specified")); // docker wording
    }
    Ok(())
}

fn fill(config: &mut Config, image: &ContainerConfig) {
    let either = |ours: &mut String, theirs: &String| {
        if ours.is_empty() {
            ours.clone_from(theirs);
        }
    };
    either(&mut config.user, &image.user);
    either(&mut config.working_dir, &image.working_dir);
    either(&mut config.stop_signal, &image.stop_signal);
    if config.stop_timeout.is_none() {
        config.stop_timeout = image.stop_timeout;
    }
    for port in image.exposed_ports.keys() {
        config.exposed_ports.make().entry(port.clone()).or_insert(EmptyObject {});
    }
    for path in image.volumes.keys() {
        config.volumes.make().entry(path.clone()).or_insert(EmptyObject {});
    }
    for (name, value) in &image.labels {
        config.labels.make().entry(name.clone()).or_insert_with(|| value.clone());
    }
    if config.volumes.is_empty() {
        config.volumes = silo_docker::Map::null();
    }
    if config.labels.is_null() {
        config.labels = silo_docker::Map::new();
    }
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    for variable in image.env.iter().flatten() {
        let known = config.env.iter().any(|ours| name(ours) == name(variable));
        if !known {
            config.env.make().push(variable.clone());
        }
    }
    if config.entrypoint.is_empty() {
        if config.cmd.is_empty() {
            if let Some(cmd) = &image.cmd {
                config.cmd = cmd.clone().into();
            }
            config.args_escaped = image.args_escaped;
        }
        if config.entrypoint.is_null()
            && let Some(entrypoint) = &image.entrypoint
        {
            config.entrypoint = entrypoint.clone().into();
        }
    }
    if config.shell.is_empty()
        && let Some(shell) = &image.shell
    {
        config.shell = shell.clone().into();
    }
    if config.on_build.is_null()
        && let Some(on_build) = &image.on_build
    {
        config.on_build = on_build.clone().into();
    }
    if let Some(theirs) = &image.healthcheck {
        let ours = config.healthcheck.get_or_insert_with(HealthConfig::default);
        if ours.test.is_empty() {
            ours.test = theirs.test.clone().unwrap_or_default().into();
        }
        for (ours, theirs) in [
            (&mut ours.interval, theirs.interval),
            (&mut ours.timeout, theirs.timeout),
            (&mut ours.start_period, theirs.start_period),
            (&mut ours.start_interval, theirs.start_interval),
            (&mut ours.retries, theirs.retries),
        ] {
            if *ours == 0 {
                *ours = theirs;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    fn image() -> ContainerConfig {
        ContainerConfig {
            user: "web".into(),
            env: Some(list(&["A=image", "B=image"])),
            cmd: Some(list(&["serve"])),
            entrypoint: Some(list(&["/run"])),
            labels: BTreeMap::from([("l".to_owned(), "image".to_owned())]),
            working_dir: "/srv".into(),
            ..ContainerConfig::default()
        }
    }

    #[test]
    fn the_client_goes_first() {
        let mut config =
            Config { env: list(&["A=own"]).into(), user: "me".into(), ..Config::default() };
        merge(&mut config, Some(&image())).unwrap();
        assert_eq!(&*config.env, list(&["A=own", "B=image"]));
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("me", "/srv"));
        assert_eq!(&*config.entrypoint, list(&["/run"]));
        assert_eq!(&*config.cmd, list(&["serve"]));
        assert_eq!(config.labels["l"], "image");
    }

    #[test]
    fn an_own_entrypoint_drops_the_images_command() {
        for (entrypoint, cmd, expected_entrypoint, expected_cmd) in [
            (vec!["sh"], vec![], vec!["sh"], vec![]),
            (vec![], vec!["x"], vec!["/run"], vec!["x"]),
            (vec![""], vec!["x"], vec![], vec!["x"]),
        ] {
            let mut config = Config {
                entrypoint: if entrypoint.is_empty() {
                    silo_docker::List::null()
                } else {
                    list(&entrypoint).into()
                },
                cmd: list(&cmd).into(),
                ..Config::default()
            };
            merge(&mut config, Some(&image())).unwrap();
            assert_eq!(&*config.entrypoint, list(&expected_entrypoint));
            assert_eq!(&*config.cmd, list(&expected_cmd));
        }
    }

    #[test]
    fn something_must_run() {
        let error = merge(&mut Config::default(), None).unwrap_err();
        assert_eq!(error.message(), "no command specified");
    }
}

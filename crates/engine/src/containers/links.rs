//! `--link`: what a container on the default bridge learns of another one.

use silo_types::Error;

use crate::container::Record;
use crate::containers::validate;
use crate::engine::Engine;

/// What the links of a container amount to.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Lines for /etc/hosts: address, and names separated by blanks.
    pub(crate) hosts: Vec<(String, String)>,
    /// Variables.
    pub(crate) env: Vec<String>,
}

/// `name` or `name:alias`, with a slash before the name or not.
pub(crate) fn parse(link: &str) -> Option<(&str, &str)> {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    // Inspect shows `/child:/parent/alias`, and that can be given back.
    let alias = alias.rsplit('/').next().unwrap_or(alias);
    let name = name.strip_prefix('/').unwrap_or(name);
    (!name.is_empty() && !alias.is_empty()).then_some((name, alias))
}

impl Engine {
    /// Checks that the other ends of links exist.
    pub(crate) fn check_links(&self, links: &[String]) -> Result<(), Error> {
        for link in links {
            // docker wording
            let (name, _) = parse(link)
                .ok_or_else(|| Error::invalid(format!("bad format for links: {link}")))?;
            self.containers.find(name).map_err(|error| {
                Error::invalid(format!("could not get container for {name}: {}", error.message()))
            })?;
        }
        Ok(())
    }

    /// What a container that starts learns of those that it is linked to and that run.
    pub(crate) fn links(&self, record: &Record) -> Result<Links, Error> {
        let mut links = Links::default();
        for link in &record.host_config.links {
            let Some((name, alias)) = parse(link) else { continue };
            let other = self.containers.find(name)?;
            let theirs = other.record();
            let address = {
                let state = other.state();
                let network = state.network.as_ref().filter(|_| state.running);
                network.and_then(|network| network.bridge.as_ref()).map(|end| end.ip.to_string())
            };
            let Some(address) = address else {
                // docker wording
                return Err(Error::conflict(format!(
                    "Cannot link to a non running container: /{} AS /{}/{alias}",
                    theirs.name, record.name
                )));
            };
            let mut names = vec![alias.to_owned()];
            for name in [&theirs.config.hostname, &theirs.name] {
                if !name.is_empty() && !names.contains(name) {
                    names.push(name.clone());
                }
            }
            links.env.extend(variables(&record.name, alias, &address, &theirs));
            links.hosts.push((address, names.join(" ")));
        }
        Ok(links)
    }
}

impl Engine {
    /// Removes a link by its name, `parent/alias`.
    pub(crate) fn remove_link(&self, name: &str) -> Result<(), Error> {
        // docker wording
        let plain = name.strip_prefix('/').unwrap_or(name);
        let Some((parent, alias)) = plain.rsplit_once('/') else {
            self.container(name)?;
            return Err(Error::internal(
                "Conflict, cannot remove the default link name of the container",
            ));
        };
        let parent = self.containers.find(parent).map_err(|_| {
            Error::internal(format!("Cannot get parent /{parent} for link name /{plain}"))
        })?;
        let mut record = Record::clone(&parent.record());
        record
            .host_config
            .links
            .make()
            .retain(|link| parse(link).is_none_or(|(_, own_alias)| own_alias != alias));
        let json = serde_json::to_string(&record)
            .map_err(|error| Error::internal(format!("write record: {error}")))?;
        self.db.container_set_config(parent.id.as_str(), &json)?;
        parent.set_record(record);
        Ok(())
    }
}

/// The links of a container as inspect shows them.
pub(crate) fn shown(record: &Record) -> silo_docker::List<String> {
    if record.host_config.links.is_empty() {
        return silo_docker::List::null();
    }
    let links = record.host_config.links.iter().filter_map(|link| parse(link));
    links.map(|(name, alias)| format!("/{name}:/{}/{alias}", record.name)).collect()
}

/// The variables that tell of a linked container.
fn variables(own_name: &str, alias: &str, address: &str, theirs: &Record) -> Vec<String> {
    let prefix = alias.to_ascii_uppercase().replace('-', "_");
    let mut list = vec![format!("{prefix}_NAME=/{own_name}/{alias}")];
    let mut ports: Vec<(u16, String)> =
        theirs.config.exposed_ports.keys().filter_map(|port| validate::parse_port(port)).collect();
    ports.sort();
    if let Some((port, protocol)) = ports.first() {
        list.push(format!("{prefix}_PORT={protocol}://{address}:{port}"));
    }
    for (port, protocol) in &ports {
        let base = format!("{prefix}_PORT_{port}_{}", protocol.to_ascii_uppercase());
        list.push(format!("{base}={protocol}://{address}:{port}"));
        list.push(format!("{base}_ADDR={address}"));
        list.push(format!("{base}_PORT={port}"));
        list.push(format!("{base}_PROTO={protocol}"));
    }
    for variable in &theirs.config.env {
        let name = variable.split('=').next().unwrap_or_default();
        if variable.contains('=') && !matches!(name, "HOME" | "PATH") {
            list.push(format!("{prefix}_ENV_{variable}"));
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_link() {
        assert_eq!(parse("db"), Some(("db", "db")));
        assert_eq!(parse("db:data"), Some(("db", "data")));
        assert_eq!(parse("/db:/web/data"), Some(("db", "data")));
        for bad in ["", ":", "db:", ":x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn variables_tell_of_ports_and_environment() {
        let theirs: Record = serde_json::from_str(
            r#"{"created":1,"image":null,"os":"linux","host_config":{},"mounts":[],
                "config":{"ExposedPorts":{"80/tcp":{}},"Env":["A=1","PATH=/x"]}}"#,
        )
        .unwrap();
        assert_eq!(
            variables("web", "my-db", "172.17.0.2", &theirs),
            [
                "MY_DB_NAME=/web/my-db",
                "MY_DB_PORT=tcp://172.17.0.2:80",
                "MY_DB_PORT_80_TCP=tcp://172.17.0.2:80",
                "MY_DB_PORT_80_TCP_ADDR=172.17.0.2",
                "MY_DB_PORT_80_TCP_PORT=80",
                "MY_DB_PORT_80_TCP_PROTO=tcp",
                "MY_DB_ENV_A=1",
            ]
        );
    }
}

//! Verbs on networks.

use serde_json::{Value as Json, json};

use super::container::{PruneFlags, confirmed, for_each, prune_filters};
use super::volume::natural_key;
use crate::command::Invocation;
use crate::context::warn;
use crate::create::pairs;
use crate::failure::{Failure, Outcome};
use crate::flags::{Filters, flags};
use crate::format::{Format, Kind};
use crate::options::network::endpoint_json;
use crate::options::values::{IpAddress, Labels, Map};
use crate::table::short_id;
use crate::value::{Row, Value, join_pairs};

flags! {
    /// Flags of `network create`.
    CreateFlags {
        attachable: bool, "attachable", "Enable manual container attachment";
        aux_address: Map, "aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver (default map[])";
        config_from: String, "config-from", "The network from which to copy the configuration";
        config_only: bool, "config-only", "Create a configuration only network";
        driver: Option<String>, ['d'] "driver", "Driver to manage the Network (default \"bridge\")";
        gateway: Vec<String>, "gateway", "IPv4 or IPv6 Gateway for the master subnet";
        ingress: bool, "ingress", "Create swarm routing-mesh network";
        internal: bool, "internal", "Restrict external access to the network";
        ip_range: Vec<String>, "ip-range", "Allocate container ip from a sub-range";
        ipam_driver: Option<String>, "ipam-driver", "IP Address Management Driver (default \"default\")";
        ipam_opt: Map, "ipam-opt", "Set IPAM driver specific options (default map[])";
        ipv4: Option<bool>, "ipv4", "Enable or disable IPv4 address assignment";
        ipv6: Option<bool>, "ipv6", "Enable or disable IPv6 address assignment";
        label: Labels, "label", "Set metadata on a network";
        opt: Map, ['o'] "opt", "Set driver specific options (default map[])";
        scope: String, "scope", "Control the network's scope";
        subnet: Vec<String>, "subnet", "Subnet in CIDR format that represents a network segment";
    }
}

flags! {
    /// Flags of `network ls`.
    LsFlags {
        filter: Filters, ['f'] "filter", "Provide filter values (e.g. \"driver=bridge\")";
        format: String, "format", "Format output using a custom template";
        no_trunc: bool, "no-trunc", "Do not truncate the output";
        quiet: bool, ['q'] "quiet", "Only display network IDs";
    }
}

flags! {
    /// Flags of `network rm`.
    RmFlags {
        force: bool, ['f'] "force", "Do not error if the network does not exist";
    }
}

flags! {
    /// Flags of `network connect`.
    ConnectFlags {
        alias: Vec<String>, "alias", "Add network-scoped alias for the container";
        driver_opt: Map, "driver-opt", "driver options for the network";
        gw_priority: i64, "gw-priority", "Highest gw-priority provides the default gateway. Accepts positive and negative values.";
        ip: IpAddress, "ip", "IPv4 address (e.g., \"172.30.100.104\")";
        ip6: IpAddress, "ip6", "IPv6 address (e.g., \"2001:db8::33\")";
        link: Vec<String>, "link", "Add link to another container";
        link_local_ip: Vec<String>, "link-local-ip", "Add a link-local address for the container";
    }
}

flags! {
    /// Flags of `network disconnect`.
    DisconnectFlags {
        force: bool, ['f'] "force", "Force the container to disconnect from a network";
    }
}

const KIND: Kind = Kind {
    headings: &[
        ("CreatedAt", "CREATED AT"),
        ("Driver", "DRIVER"),
        ("ID", "NETWORK ID"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("Name", "NAME"),
        ("Scope", "SCOPE"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    quiet: "{{.ID}}",
    raw: "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
};

/// A time of JSON as Go prints it.
fn go_time(text: &str) -> String {
    let Ok(time) = text.parse::<jiff::Timestamp>() else { return text.to_owned() };
    // The zone is the text's own; engines write UTC or the host's.
    let zone = jiff::tz::TimeZone::UTC;
    let zoned = time.to_zoned(zone);
    zoned.strftime("%Y-%m-%d %H:%M:%S%.f %z UTC").to_string()
}

/// `network ls`
pub(crate) async fn ls(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<LsFlags>()?;
    let format = if flags.format.is_empty() && !flags.quiet {
        invocation.cli.config().text("networksFormat")
    } else {
        &flags.format
    };
    let format = Format::new(&KIND, format, flags.quiet)?;
    let client = invocation.cli.client().await?;
    let listed: Value =
        client.get("/networks").query_some("filters", flags.filter.query()).receive().await?;
    let mut networks: Vec<&Value> = listed.list().iter().collect();
    networks.sort_by_key(|network| natural_key(network.get("Name").str()));
    let rows: Vec<Row> = networks
        .into_iter()
        .map(|network| {
            let text = |name: &str| Value::text(network.get(name).str());
            let flag = |name: &str| Value::Text(network.get(name).bool().to_string());
            let id = network.get("Id").str();
            let labels = network.get("Labels").pairs();
            Row {
                type_name: "*network.networkContext",
                fields: vec![
                    ("CreatedAt", Value::Text(go_time(network.get("Created").str()))),
                    ("Driver", text("Driver")),
                    ("ID", Value::Text(if flags.no_trunc { id.into() } else { short_id(id) })),
                    ("IPv4", flag("EnableIPv4")),
                    ("IPv6", flag("EnableIPv6")),
                    ("Internal", flag("Internal")),
                    ("Labels", Value::Text(join_pairs(&labels))),
                    ("Name", text("Name")),
                    ("Scope", text("Scope")),
                ],
                labels,
            }
        })
        .collect();
    format.print(&invocation.cli, &KIND, &rows)
}

/// `network create`
pub(crate) async fn create(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<CreateFlags>()?;
    let body = create_request(&flags, &words[0])?;
    let client = invocation.cli.client().await?;
    let made: Value = client.post("/networks/create").json(&body).receive().await?;
    let warning = made.get("Warning").str();
    if !warning.is_empty() {
        warn(&format!("WARNING: {warning}"));
    }
    invocation.cli.line(made.get("Id").str())
}

fn create_request(flags: &CreateFlags, name: &str) -> Result<Json, String> {
    if flags.subnet.len() < flags.ip_range.len() || flags.subnet.len() < flags.gateway.len() {
        return Err("every ip-range or gateway must have a corresponding subnet".into());
    }
    let mut configs = Vec::new();
    for (index, subnet) in flags.subnet.iter().enumerate() {
        let mut config = json!({"Subnet": subnet});
        if let Some(range) = flags.ip_range.get(index) {
            config["IPRange"] = json!(range);
        }
        if let Some(gateway) = flags.gateway.get(index) {
            config["Gateway"] = json!(gateway);
        }
        configs.push(config);
    }
    if let (Some(first), false) = (configs.first_mut(), flags.aux_address.0.is_empty()) {
        first["AuxiliaryAddresses"] = flags.aux_address.json();
    }
    let mut body = json!({
        "Driver": flags.driver.as_deref().unwrap_or("bridge"),
        "Scope": flags.scope,
        "IPAM": {
            "Driver": flags.ipam_driver.as_deref().unwrap_or("default"),
            "Options": flags.ipam_opt.json(),
            "Config": configs,
        },
        "Internal": flags.internal,
        "Attachable": flags.attachable,
        "Ingress": flags.ingress,
        "ConfigOnly": flags.config_only,
        "ConfigFrom": if flags.config_from.is_empty() {
            Json::Null
        } else {
            json!({"Network": flags.config_from})
        },
        "Options": flags.opt.json(),
        "Labels": pairs(&flags.label.0),
        "Name": name,
    });
    if let Some(enable) = flags.ipv4 {
        body["EnableIPv4"] = json!(enable);
    }
    if let Some(enable) = flags.ipv6 {
        body["EnableIPv6"] = json!(enable);
    }
    Ok(body)
}

/// `network rm`
pub(crate) async fn rm(invocation: Invocation) -> Outcome {
    let (flags, names) = invocation.parse::<RmFlags>()?;
    let force = flags.force;
    for_each(&invocation, &names, |client, name| async move {
        match client.delete(format!("/networks/{name}")).done().await {
            Err(error) if force && error.status() == Some(404) => Ok(None),
            other => other.map(|()| Some(name.to_owned())).map_err(Failure::from),
        }
    })
    .await
}

/// `network connect`
pub(crate) async fn connect(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<ConnectFlags>()?;
    let mut ipam = serde_json::Map::new();
    for (name, value) in [("IPv4Address", &flags.ip.0), ("IPv6Address", &flags.ip6.0)] {
        if !value.is_empty() {
            ipam.insert(name.into(), json!(value));
        }
    }
    if !flags.link_local_ip.is_empty() {
        ipam.insert("LinkLocalIPs".into(), json!(flags.link_local_ip));
    }
    let list = |items: &[String]| if items.is_empty() { Json::Null } else { json!(items) };
    let endpoint = endpoint_json(
        Json::Object(ipam),
        list(&flags.link),
        list(&flags.alias),
        String::new(),
        flags.driver_opt.json(),
        flags.gw_priority,
    );
    let client = invocation.cli.client().await?;
    client
        .post(format!("/networks/{}/connect", words[0]))
        .json(&json!({"Container": words[1], "EndpointConfig": endpoint}))
        .done()
        .await?;
    Ok(())
}

/// `network disconnect`
pub(crate) async fn disconnect(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<DisconnectFlags>()?;
    let client = invocation.cli.client().await?;
    client
        .post(format!("/networks/{}/disconnect", words[0]))
        .json(&json!({"Container": words[1], "Force": flags.force}))
        .done()
        .await?;
    Ok(())
}

/// `network prune`
pub(crate) async fn prune(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<PruneFlags>()?;
    let question =
        "WARNING! This will remove all custom networks not used by at least one container.";
    if !flags.force && !confirmed(question)? {
        return Err(Failure::new("network prune has been cancelled"));
    }
    let filters = prune_filters(&invocation, &flags.filter);
    let client = invocation.cli.client().await?;
    let pruned: Value =
        client.post("/networks/prune").query_some("filters", filters.query()).receive().await?;
    let names: Vec<String> =
        pruned.get("NetworksDeleted").list().iter().map(ToString::to_string).collect();
    if names.is_empty() {
        return Ok(());
    }
    invocation.cli.print(&format!("Deleted Networks:\n{}\n\n", names.join("\n")))
}

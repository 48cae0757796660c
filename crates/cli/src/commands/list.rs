//! `ps`

use std::time::Duration;

use silo_oci::reference::Reference;
use silo_types::{duration, size};

use crate::command::Invocation;
use crate::failure::Outcome;
use crate::flags::{Filters, flags};
use crate::format::{Format, Kind};
use crate::table::{ellipsis, short_id};
use crate::value::{Row, Value, join_pairs};

flags! {
    /// Flags of `ps`.
    PsFlags {
        all: bool, ['a'] "all", "Show all containers (default shows just running)";
        filter: Filters, ['f'] "filter", "Filter output based on conditions provided";
        format: String, "format", "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.";
        last: Option<i64>, ['n'] "last", "Show n last created containers (includes all states) (default -1)";
        latest: bool, ['l'] "latest", "Show the latest created container (includes all states)";
        no_trunc: bool, "no-trunc", "Don't truncate output";
        quiet: bool, ['q'] "quiet", "Only display container IDs";
        size: bool, ['s'] "size", "Display total file sizes";
    }
}

/// Rows about containers.
pub(super) const KIND: Kind = Kind {
    headings: &[
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Labels", "LABELS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Mounts", "MOUNTS"),
        ("Names", "NAMES"),
        ("Networks", "NETWORKS"),
        ("Platform", "PLATFORM"),
        ("Ports", "PORTS"),
        ("RunningFor", "CREATED"),
        ("Size", "SIZE"),
        ("State", "STATE"),
        ("Status", "STATUS"),
    ],
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    quiet: "{{.ID}}",
    raw: "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n",
};

const WITH_SIZE: Kind = Kind {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}",
    ..KIND
};

/// `ps`
pub(crate) async fn ps(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<PsFlags>()?;
    let cli = &invocation.cli;
    let kind = if flags.size { &WITH_SIZE } else { &KIND };
    let format = if flags.format.is_empty() && !flags.quiet {
        cli.config().text("psFormat")
    } else {
        &flags.format
    };
    let format = Format::new(kind, format, flags.quiet)?;
    let limit = if flags.latest { 1 } else { flags.last.unwrap_or(-1) };
    let client = cli.client().await?;
    let containers: Value = client
        .get("/containers/json")
        .query_if("all", flags.all)
        .query_some("filters", flags.filter.query())
        .query_some("limit", (limit > 0).then(|| limit.to_string()))
        .query_if("size", flags.size || format.uses("Size"))
        .receive()
        .await?;
    let now = now();
    let rows: Vec<Row> =
        containers.list().iter().map(|item| row(item, !flags.no_trunc, now)).collect();
    format.print(cli, kind, &rows)
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    silo_types::time::now().as_second()
}

/// `2 hours ago`
pub(super) fn ago(seconds: i64, now: i64) -> String {
    let since = u64::try_from(now - seconds).unwrap_or(0);
    format!("{} ago", duration::human(Duration::from_secs(since)))
}

/// A moment in the local time zone, as Go prints it.
pub(super) fn local_time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(
        |_| String::new(),
        |time| {
            let zoned = time.to_zoned(jiff::tz::TimeZone::system());
            zoned.strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
        },
    )
}

/// The row of one container.
pub(super) fn row(container: &Value, trunc: bool, now: i64) -> Row {
    let text = |name: &str| container.get(name).str();
    let created = container.get("Created").int();
    let command = text("Command");
    let command = if trunc { ellipsis(command, 20) } else { command.to_owned() };
    let labels = container.get("Labels").pairs();
    let mounts = container.get("Mounts").list();
    let mount_names: Vec<String> = mounts
        .iter()
        .map(|mount| {
            let name = mount.get("Name").str();
            let name = if name.is_empty() { mount.get("Source").str() } else { name };
            if trunc { ellipsis(name, 15) } else { name.to_owned() }
        })
        .collect();
    let local = mounts.iter().filter(|mount| mount.get("Driver").str() == "local").count();
    let networks = container.path(&["NetworkSettings", "Networks"]).entries();
    let networks: Vec<&str> = networks.iter().map(|(name, _)| name.as_str()).collect();
    let (own, all) = (container.get("SizeRw").float(), container.get("SizeRootFs").float());
    let mut shown_size = size::human_with_precision(own, 3);
    if all > 0.0 {
        shown_size.push_str(&format!(" (virtual {})", size::human_with_precision(all, 3)));
    }
    Row {
        type_name: "*formatter.ContainerContext",
        fields: vec![
            ("Command", Value::Text(crate::template::quote(&command))),
            ("CreatedAt", Value::Text(local_time(created))),
            ("ID", Value::Text(if trunc { short_id(text("Id")) } else { text("Id").to_owned() })),
            ("Image", Value::Text(image_name(text("Image"), text("ImageID"), trunc))),
            ("Labels", Value::Text(join_pairs(&labels))),
            ("LocalVolumes", Value::Text(local.to_string())),
            ("Mounts", Value::Text(mount_names.join(","))),
            ("Names", Value::Text(names(container.get("Names").list(), trunc))),
            ("Networks", Value::Text(networks.join(","))),
            ("Platform", Value::Nil),
            ("Ports", Value::Text(ports(container.get("Ports").list()))),
            ("RunningFor", Value::Text(ago(created, now))),
            ("Size", Value::Text(shown_size)),
            ("State", Value::text(text("State"))),
            ("Status", Value::text(text("Status"))),
        ],
        labels,
    }
}

fn names(names: &[Value], trunc: bool) -> String {
    let names: Vec<&str> =
        names.iter().map(|name| name.str().strip_prefix('/').unwrap_or(name.str())).collect();
    if trunc {
        // A legacy link's name has a slash inside.
        names.iter().find(|name| !name.contains('/')).map(ToString::to_string).unwrap_or_default()
    } else {
        names.join(",")
    }
}

fn image_name(image: &str, id: &str, trunc: bool) -> String {
    if image.is_empty() {
        return "<no image>".into();
    }
    if !trunc {
        return image.to_owned();
    }
    if !id.is_empty() && short_id(id) == short_id(image) {
        return short_id(id);
    }
    match Reference::parse(image) {
        Ok(reference) if reference.digest().is_some() => match reference.tag() {
            Some(tag) => format!("{}:{tag}", reference.familiar_name()),
            None => reference.familiar_name(),
        },
        Ok(reference) => reference.familiar(),
        Err(_) => image.to_owned(),
    }
}

/// `0.0.0.0:80->90/tcp, 99/tcp`; neighbours with the same numbers inside and outside are ranges.
pub(super) fn ports(ports: &[Value]) -> String {
    struct Port<'a> {
        ip: &'a str,
        inside: i64,
        outside: i64,
        protocol: &'a str,
    }
    let mut ports: Vec<Port<'_>> = ports
        .iter()
        .map(|port| Port {
            ip: port.get("IP").str(),
            inside: port.get("PrivatePort").int(),
            outside: port.get("PublicPort").int(),
            protocol: port.get("Type").str(),
        })
        .collect();
    ports.sort_by_key(|port| {
        let address = port.ip.parse::<std::net::IpAddr>().ok();
        (port.inside, address, port.outside, port.protocol)
    });
    let join = |ip: &str, port: &str| {
        if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
    };
    let show = |ip: &str, protocol: &str, first: i64, last: i64| {
        let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
        if ip.is_empty() {
            format!("{range}/{protocol}")
        } else {
            format!("{}->{range}/{protocol}", join(ip, &range))
        }
    };
    let mut groups: Vec<(&str, &str, i64, i64)> = Vec::new();
    let (mut done, mut mapped) = (Vec::new(), Vec::new());
    for port in &ports {
        if !port.ip.is_empty() && port.outside != port.inside {
            let outside = join(port.ip, &port.outside.to_string());
            mapped.push(format!("{outside}->{}/{}", port.inside, port.protocol));
            continue;
        }
        let same = groups.iter_mut().find(|group| (group.0, group.1) == (port.ip, port.protocol));
        match same {
            None => groups.push((port.ip, port.protocol, port.inside, port.inside)),
            Some(group) if port.inside == group.3 + 1 => group.3 = port.inside,
            Some(group) => {
                done.push(show(group.0, group.1, group.2, group.3));
                (group.2, group.3) = (port.inside, port.inside);
            }
        }
    }
    done.extend(groups.iter().map(|group| show(group.0, group.1, group.2, group.3)));
    done.extend(mapped);
    done.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Value {
        Value::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn port_lists() {
        for (json, shown) in [
            ("[]", ""),
            (r#"[{"PrivatePort":80,"Type":"tcp"}]"#, "80/tcp"),
            (
                r#"[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},
                {"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},
                {"PrivatePort":99,"Type":"udp"}]"#,
                "99/udp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
            ),
            (
                r#"[{"IP":"0.0.0.0","PrivatePort":81,"PublicPort":81,"Type":"tcp"},
                {"IP":"0.0.0.0","PrivatePort":80,"PublicPort":80,"Type":"tcp"},
                {"PrivatePort":5,"Type":"tcp"},{"PrivatePort":6,"Type":"tcp"}]"#,
                "5-6/tcp, 0.0.0.0:80-81->80-81/tcp",
            ),
        ] {
            assert_eq!(ports(parse(json).list()), shown);
        }
    }

    #[test]
    fn default_table() {
        let container = parse(
            r#"{"Id":"0123456789abcdef","Names":["/x/y","/web"],"Image":"busybox",
            "ImageID":"sha256:ff","Command":"sh -c 'sleep 1000000'","Created":1700000000,
            "Ports":[],"Labels":{"b":"2","a":"1"},"State":"running","Status":"Up 2 hours",
            "SizeRw":1234567,"SizeRootFs":2000000}"#,
        );
        let rows = [row(&container, true, 1_700_007_200)];
        let text = Format::new(&KIND, "", false).unwrap().render(&KIND, &rows).unwrap();
        assert_eq!(
            text,
            "CONTAINER ID   IMAGE     COMMAND                  CREATED       STATUS       PORTS   \
             \x20 NAMES\n0123456789ab   busybox   \"sh -c 'sleep 100000…\"   2 hours ago   Up 2 \
             hours             web\n"
        );
        let format = Format::new(&KIND, "{{.Labels}} {{.Size}} {{.Label \"b\"}}", false).unwrap();
        assert_eq!(format.render(&KIND, &rows).unwrap(), "a=1,b=2 1.23MB (virtual 2MB) 2\n");
    }

    #[test]
    fn images_of_containers() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (image, id, shown) in [
            ("busybox", "sha256:aa", "busybox"),
            ("docker.io/library/busybox:1", "sha256:aa", "busybox:1"),
            (&format!("sha256:{hex}"), &format!("sha256:{hex}"), "e3b0c44298fc"),
            (&format!("a/b:1@sha256:{hex}"), "sha256:aa", "a/b:1"),
            ("", "x", "<no image>"),
        ] {
            assert_eq!(image_name(image, id, true), shown);
        }
    }
}

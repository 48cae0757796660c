//! `info`, `version`, `events`, `system df` and `system prune`.

use silo_client::API_VERSION;
use silo_types::size;

use super::container::{confirmed, prune_filters};
use super::image::{image_row, prune_result};
use super::list::{self, now};
use super::logs::moment;
use super::{image, volume};
use crate::command::Invocation;
use crate::context::warn;
use crate::failure::{Failure, Outcome};
use crate::flags::{Filters, flags};
use crate::format::{self, Format, Kind};
use crate::table;
use crate::value::{Row, Value};

flags! {
    /// Flags of `info` and `version`.
    FormatFlags {
        format: String, ['f'] "format", "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.";
    }
}

flags! {
    /// Flags of `events`.
    EventsFlags {
        filter: Filters, ['f'] "filter", "Filter output based on conditions provided";
        format: String, "format", "Format output using a custom template";
        since: String, "since", "Show all events created since timestamp";
        until: String, "until", "Stream events until this timestamp";
    }
}

flags! {
    /// Flags of `system df`.
    DfFlags {
        format: String, "format", "Format output using a custom template";
        verbose: bool, ['v'] "verbose", "Show detailed information on space usage";
    }
}

flags! {
    /// Flags of `system prune`.
    PruneFlags {
        all: bool, ['a'] "all", "Remove all unused images not just dangling ones";
        filter: Filters, "filter", "Provide filter values (e.g. \"label=<key>=<value>\")";
        force: bool, ['f'] "force", "Do not prompt for confirmation";
        volumes: bool, "volumes", "Prune anonymous volumes";
    }
}

/// `info`
pub(crate) async fn info(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<FormatFlags>()?;
    let cli = &invocation.cli;
    let client = cli.client().await?;
    let info: Value = client.get("/info").receive().await?;
    if !flags.format.is_empty() {
        let mut entries = info.entries().to_vec();
        entries.push(("ClientInfo".into(), client_info(&invocation)));
        return cli.line(&format::object(&Value::Map(entries), &flags.format)?);
    }
    let mut text = format!(
        "Client:\n Version:    {}\n Context:    {}\n Debug Mode: {}\n\nServer:\n",
        env!("CARGO_PKG_VERSION"),
        context_name(&invocation),
        cli.flags().debug
    );
    text.push_str(&server_info(&info));
    cli.print(&text)?;
    for warning in info.get("Warnings").list() {
        warn(&warning.to_string());
    }
    Ok(())
}

fn context_name(invocation: &Invocation) -> String {
    let flag = &invocation.cli.flags().context;
    let set = invocation.cli.config().text("currentContext");
    [flag.as_str(), set, "default"]
        .into_iter()
        .find(|name| !name.is_empty())
        .map_or_else(String::new, str::to_owned)
}

fn client_info(invocation: &Invocation) -> Value {
    Value::Map(vec![
        ("Debug".into(), Value::Bool(invocation.cli.flags().debug)),
        ("Version".into(), Value::text(env!("CARGO_PKG_VERSION"))),
        ("Context".into(), Value::Text(context_name(invocation))),
        ("Plugins".into(), Value::List(Vec::new())),
    ])
}

fn server_info(info: &Value) -> String {
    let mut out = String::new();
    let mut line = |label: &str, value: String, always: bool| {
        if always || !value.is_empty() {
            out.push_str(&format!(" {label}: {value}\n"));
        }
    };
    let text = |name: &str| info.get(name).str().to_owned();
    let number = |name: &str| info.get(name).int().to_string();
    line("Containers", number("Containers"), true);
    line(" Running", number("ContainersRunning"), true);
    line(" Paused", number("ContainersPaused"), true);
    line(" Stopped", number("ContainersStopped"), true);
    line("Images", number("Images"), true);
    line("Server Version", text("ServerVersion"), false);
    line("Storage Driver", text("Driver"), false);
    for pair in info.get("DriverStatus").list() {
        if let [name, value] = pair.list() {
            line(&format!(" {name}"), value.to_string(), true);
        }
    }
    line("Logging Driver", text("LoggingDriver"), false);
    line("Cgroup Driver", text("CgroupDriver"), false);
    line("Cgroup Version", text("CgroupVersion"), false);
    out.push_str(" Plugins:\n");
    let names =
        |value: &Value| value.list().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    for kind in ["Volume", "Network", "Log"] {
        out.push_str(&format!("  {kind}: {}\n", names(info.path(&["Plugins", kind]))));
    }
    let mut line = |label: &str, value: String, always: bool| {
        if always || !value.is_empty() {
            out.push_str(&format!(" {label}: {value}\n"));
        }
    };
    line("Swarm", info.path(&["Swarm", "LocalNodeState"]).str().to_owned(), true);
    let mut runtimes: Vec<&str> =
        info.get("Runtimes").entries().iter().map(|(name, _)| name.as_str()).collect();
    if !runtimes.is_empty() {
        runtimes.sort_unstable();
        line("Runtimes", runtimes.join(" "), true);
        line("Default Runtime", text("DefaultRuntime"), true);
    }
    if info.get("OSType").str() == "linux" {
        line("Init Binary", text("InitBinary"), true);
        for (label, name) in [
            ("containerd version", "ContainerdCommit"),
            ("runc version", "RuncCommit"),
            ("init version", "InitCommit"),
        ] {
            line(label, info.path(&[name, "ID"]).str().to_owned(), true);
        }
        let options = info.get("SecurityOptions").list();
        if !options.is_empty() {
            out.push_str(" Security Options:\n");
            for option in options {
                for pair in option.str().split(',') {
                    match pair.split_once('=') {
                        Some(("name", name)) => out.push_str(&format!("  {name}\n")),
                        Some(("profile", name)) => out.push_str(&format!("   Profile: {name}\n")),
                        _ => {}
                    }
                }
            }
        }
    }
    let mut line = |label: &str, value: String, always: bool| {
        if always || !value.is_empty() {
            out.push_str(&format!(" {label}: {value}\n"));
        }
    };
    line("Kernel Version", text("KernelVersion"), false);
    line("Operating System", text("OperatingSystem"), false);
    line("OSType", text("OSType"), false);
    line("Architecture", text("Architecture"), false);
    line("CPUs", number("NCPU"), true);
    line("Total Memory", size::binary(info.get("MemTotal").float()), true);
    line("Name", text("Name"), false);
    line("ID", text("ID"), false);
    line("Docker Root Dir", text("DockerRootDir"), true);
    line("Debug Mode", info.get("Debug").bool().to_string(), true);
    line("HTTP Proxy", text("HttpProxy"), false);
    line("HTTPS Proxy", text("HttpsProxy"), false);
    line("No Proxy", text("NoProxy"), false);
    let labels = info.get("Labels").list();
    if !labels.is_empty() {
        out.push_str(" Labels:\n");
        for label in labels {
            out.push_str(&format!("  {label}\n"));
        }
    }
    out.push_str(&format!(" Experimental: {}\n", info.get("ExperimentalBuild").bool()));
    let insecure = info.path(&["RegistryConfig", "InsecureRegistryCIDRs"]).list();
    if !insecure.is_empty() {
        out.push_str(" Insecure Registries:\n");
        for network in insecure {
            out.push_str(&format!("  {network}\n"));
        }
    }
    out.push_str(&format!(" Live Restore Enabled: {}\n\n", info.get("LiveRestoreEnabled").bool()));
    out
}

/// `version`
pub(crate) async fn version(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<FormatFlags>()?;
    let cli = &invocation.cli;
    let (server, api, problem) = match cli.client().await {
        Ok(client) => {
            let api = client.version().to_owned();
            match client.get("/version").receive::<Value>().await {
                Ok(version) => (version, api, None),
                Err(error) => (Value::Nil, api, Some(Failure::from(error))),
            }
        }
        Err(failure) => (Value::Nil, API_VERSION.to_owned(), Some(failure)),
    };
    let entries = [
        ("Version", env!("CARGO_PKG_VERSION").to_owned()),
        ("ApiVersion", api.clone()),
        ("DefaultAPIVersion", API_VERSION.to_owned()),
        ("Os", std::env::consts::OS.to_owned()),
        ("Arch", go_arch().to_owned()),
        ("Context", context_name(&invocation)),
    ];
    let client_part: Vec<(String, Value)> =
        entries.iter().map(|(name, value)| ((*name).to_owned(), Value::text(value))).collect();
    let all = Value::Map(vec![
        ("Client".into(), Value::Map(client_part)),
        ("Server".into(), server.clone()),
    ]);
    if !flags.format.is_empty() {
        cli.line(&format::object(&all, &flags.format)?)?;
        return problem.map_or(Ok(()), Err);
    }
    let downgraded = if api == API_VERSION {
        String::new()
    } else {
        format!(" (downgraded from {API_VERSION})")
    };
    let mut text = format!(
        "Client:\n Version:\t{}\n API version:\t{api}{downgraded}\n OS/Arch:\t{}/{}\n Context:\t{}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        go_arch(),
        context_name(&invocation)
    );
    if server != Value::Nil {
        text.push_str("\nServer:");
        let platform = server.path(&["Platform", "Name"]).str();
        if !platform.is_empty() {
            text.push_str(&format!(" {platform}"));
        }
        text.push('\n');
        for component in server.get("Components").list() {
            let name = component.get("Name").str();
            text.push_str(&format!(" {name}:\n  Version:\t{}\n", component.get("Version").str()));
            let details = component.get("Details");
            let detail = |name: &str| details.get(name).str();
            if name == "Engine" {
                text.push_str(&format!(
                    "  API version:\t{} (minimum version {})\n",
                    detail("ApiVersion"),
                    detail("MinAPIVersion")
                ));
                for (label, key) in [
                    ("Go version", "GoVersion"),
                    ("Git commit", "GitCommit"),
                    ("Built", "BuildTime"),
                ] {
                    if !detail(key).is_empty() {
                        text.push_str(&format!("  {label}:\t{}\n", detail(key)));
                    }
                }
                text.push_str(&format!("  OS/Arch:\t{}/{}\n", detail("Os"), detail("Arch")));
                text.push_str(&format!("  Experimental:\t{}\n", detail("Experimental")));
            } else {
                for (key, value) in details.pairs() {
                    text.push_str(&format!("  {key}:\t{value}\n"));
                }
            }
        }
    }
    cli.print(&table::align(&text, 20, 1))?;
    problem.map_or(Ok(()), Err)
}

/// The architecture in Go's words.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// `events`
pub(crate) async fn events(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<EventsFlags>()?;
    let format = if flags.format == "json" { "{{json .}}" } else { &flags.format };
    if !format.is_empty() {
        crate::template::Template::parse(format)
            .map_err(|error| Failure::new(format!("template parsing error: {error}")))?;
    }
    let (since, until) = (moment(&flags.since)?, moment(&flags.until)?);
    let client = invocation.cli.client().await?;
    let mut answer = client
        .get("/events")
        .query_some("since", since)
        .query_some("until", until)
        .query_some("filters", flags.filter.query())
        .send()
        .await?;
    let mut pending = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        pending.extend_from_slice(&chunk);
        // Engines end each event with a newline, or with nothing at all.
        let mut events = serde_json::Deserializer::from_slice(&pending).into_iter::<Value>();
        let mut lines = String::new();
        while let Some(Ok(event)) = events.next() {
            if format.is_empty() {
                lines.push_str(&event_line(&event));
            } else {
                lines.push_str(&format::object(&event, format)?);
            }
            lines.push('\n');
        }
        let used = events.byte_offset();
        pending.drain(..used);
        invocation.cli.print(&lines)?;
    }
    Ok(())
}

/// `2026-01-02T03:04:05.000000000Z container start ID (image=busybox, name=x)`
fn event_line(event: &Value) -> String {
    let nanoseconds = event.get("timeNano").int();
    let time = if nanoseconds == 0 {
        jiff::Timestamp::from_second(event.get("time").int())
    } else {
        jiff::Timestamp::from_nanosecond(i128::from(nanoseconds))
    };
    let time = time.map(|time| {
        let zoned = time.to_zoned(jiff::tz::TimeZone::system());
        zoned.strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string().replace("+00:00", "Z")
    });
    let actor = event.get("Actor");
    let attributes: Vec<String> = actor
        .get("Attributes")
        .pairs()
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mut line = format!(
        "{} {} {} {}",
        time.unwrap_or_default(),
        event.get("Type").str(),
        event.get("Action").str(),
        actor.get("ID").str()
    );
    if !attributes.is_empty() {
        line.push_str(&format!(" ({})", attributes.join(", ")));
    }
    line
}

const DF: Kind = Kind {
    headings: &[
        ("Active", "ACTIVE"),
        ("Reclaimable", "RECLAIMABLE"),
        ("Size", "SIZE"),
        ("TotalCount", "TOTAL"),
        ("Type", "TYPE"),
    ],
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    quiet: "{{.Type}}",
    raw: "",
};

fn df_row(kind: &'static str, total: usize, active: usize, bytes: f64, reclaimable: f64) -> Row {
    let mut shown = size::human(reclaimable);
    if bytes > 0.0 && kind != "Build Cache" {
        shown.push_str(&format!(" ({}%)", (reclaimable * 100.0 / bytes).floor()));
    }
    Row {
        type_name: "*formatter.diskUsageContext",
        fields: vec![
            ("Active", Value::Text(active.to_string())),
            ("Reclaimable", Value::Text(shown)),
            ("Size", Value::Text(size::human(bytes))),
            ("TotalCount", Value::Text(total.to_string())),
            ("Type", Value::text(kind)),
        ],
        labels: Vec::new(),
    }
}

/// `system df`
pub(crate) async fn df(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<DfFlags>()?;
    let format = Format::new(&DF, &flags.format, false)?;
    let client = invocation.cli.client().await?;
    let usage: Value = client.get("/system/df").receive().await?;
    if flags.verbose && flags.format.is_empty() {
        return invocation.cli.print(&verbose_df(&usage)?);
    }
    format.print(&invocation.cli, &DF, &df_rows(&usage))
}

fn df_rows(usage: &Value) -> Vec<Row> {
    let list = |name: &str| usage.get(name).list();
    let images = list("Images");
    let used = images.iter().filter(|image| image.get("Containers").int() > 0);
    let layers = usage.get("LayersSize").float();
    let in_use: f64 = used
        .clone()
        .filter(|image| image.get("Size").int() != -1 && image.get("SharedSize").int() != -1)
        .map(|image| image.get("Size").float() - image.get("SharedSize").float())
        .sum();
    let containers = list("Containers");
    let is_active = |container: &&Value| {
        matches!(container.get("State").str(), "running" | "paused" | "restarting")
    };
    let sum = |items: &mut dyn Iterator<Item = &Value>| -> f64 {
        items.map(|item| item.get("SizeRw").float()).sum()
    };
    let all = sum(&mut containers.iter());
    let idle = sum(&mut containers.iter().filter(|container| !is_active(container)));
    let volumes = list("Volumes");
    let refs = |volume: &Value| volume.path(&["UsageData", "RefCount"]).int();
    let volume_size = |volume: &Value| volume.path(&["UsageData", "Size"]).float().max(0.0);
    let volume_all: f64 = volumes.iter().map(volume_size).sum();
    let volume_idle: f64 = volumes.iter().filter(|v| refs(v) == 0).map(volume_size).sum();
    let cache = list("BuildCache");
    let cache_size = |entry: &&Value| !entry.get("Shared").bool();
    let cache_all: f64 = cache.iter().filter(cache_size).map(|e| e.get("Size").float()).sum();
    let cache_idle: f64 = cache
        .iter()
        .filter(cache_size)
        .filter(|entry| !entry.get("InUse").bool())
        .map(|entry| entry.get("Size").float())
        .sum();
    vec![
        df_row("Images", images.len(), used.count(), layers, (layers - in_use).max(0.0)),
        df_row(
            "Containers",
            containers.len(),
            containers.iter().filter(is_active).count(),
            all,
            idle,
        ),
        df_row(
            "Local Volumes",
            volumes.len(),
            volumes.iter().filter(|volume| refs(volume) > 0).count(),
            volume_all,
            volume_idle,
        ),
        df_row(
            "Build Cache",
            cache.len(),
            cache.iter().filter(|entry| entry.get("InUse").bool()).count(),
            cache_all,
            cache_idle,
        ),
    ]
}

fn verbose_df(usage: &Value) -> Outcome<String> {
    const IMAGES: Kind = Kind {
        table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
        ..image::KIND
    };
    const CONTAINERS: Kind = Kind {
        table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
        ..list::KIND
    };
    const VOLUMES: Kind = Kind { table: "{{.Name}}\t{{.Links}}\t{{.Size}}", ..volume::KIND };
    let now = now();
    let images: Vec<Row> = usage
        .get("Images")
        .list()
        .iter()
        .map(|image| {
            let first = image.get("RepoTags").list().first().map_or("", Value::str);
            let (name, tag) = first.rsplit_once(':').unwrap_or(("<none>", "<none>"));
            image_row(image, name, tag, "", true, now)
        })
        .collect();
    let containers: Vec<Row> = usage
        .get("Containers")
        .list()
        .iter()
        .map(|container| {
            let mut row = list::row(container, true, now);
            for (name, value) in &mut row.fields {
                if *name == "Size" {
                    let own = container.get("SizeRw").float();
                    *value = Value::Text(size::human_with_precision(own, 3));
                }
            }
            row
        })
        .collect();
    let volumes: Vec<Row> = usage.get("Volumes").list().iter().map(volume::row).collect();
    let render = |kind: &Kind, rows: &[Row]| Format::new(kind, "", false)?.render(kind, rows);
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space \
         usage:\n\n{}\nBuild cache usage: 0B\n\n{}",
        render(&IMAGES, &images)?,
        render(&CONTAINERS, &containers)?,
        render(&VOLUMES, &volumes)?,
        table::align("CACHE ID\tCACHE TYPE\tSIZE\tCREATED\tLAST USED\tUSAGE\tSHARED\n", 10, 3),
    ))
}

/// `system prune`
pub(crate) async fn prune(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<PruneFlags>()?;
    let filters = prune_filters(&invocation, &flags.filter);
    if flags.volumes && filters.0.contains_key("until") {
        return Err(Failure::new(
            "ERROR: The \"until\" filter is not supported with \"--volumes\"",
        ));
    }
    let mut items =
        vec!["all stopped containers", "all networks not used by at least one container"];
    if flags.volumes {
        items.push("all anonymous volumes not used by at least one container");
    }
    items.push(if flags.all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    });
    let question = format!("WARNING! This will remove:\n  - {}\n", items.join("\n  - "));
    if !flags.force && !confirmed(&question)? {
        return Err(Failure::new("system prune has been cancelled"));
    }
    let client = invocation.cli.client().await?;
    let mut space = 0.0;
    let mut text = String::new();
    let mut section = |heading: &str, names: Vec<String>| {
        if !names.is_empty() {
            text.push_str(&format!("{heading}\n{}\n\n", names.join("\n")));
        }
    };
    let names = |value: &Value| value.list().iter().map(ToString::to_string).collect::<Vec<_>>();
    let post = |path: &'static str, filters: Filters| {
        let client = client.clone();
        async move { client.post(path).query_some("filters", filters.query()).receive::<Value>().await }
    };
    let pruned = post("/containers/prune", filters.clone()).await?;
    space += pruned.get("SpaceReclaimed").float();
    section("Deleted Containers:", names(pruned.get("ContainersDeleted")));
    let pruned = post("/networks/prune", filters.clone()).await?;
    section("Deleted Networks:", names(pruned.get("NetworksDeleted")));
    if flags.volumes {
        let pruned = post("/volumes/prune", filters.clone()).await?;
        space += pruned.get("SpaceReclaimed").float();
        section("Deleted Volumes:", names(pruned.get("VolumesDeleted")));
    }
    let mut image_filters = filters.clone();
    image_filters.add("dangling", if flags.all { "false" } else { "true" });
    let pruned = post("/images/prune", image_filters).await?;
    let (lines, freed) = prune_result(&pruned);
    space += freed;
    section("Deleted Images:", lines);
    text.push_str(&format!("Total reclaimed space: {}\n", size::human(space)));
    invocation.cli.print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_as_lines() {
        let event = Value::parse(
            br#"{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":
            {"name":"x","image":"busybox"}},"time":1700000000,"timeNano":1700000000000000005}"#,
        )
        .unwrap();
        let line = event_line(&event);
        assert!(line.ends_with(" container start abc (image=busybox, name=x)"), "{line}");
        assert!(line.contains(".000000005"), "{line}");
    }

    #[test]
    fn disk_usage_table() {
        let usage = Value::parse(
            br#"{"LayersSize":1000,"Images":[{"Containers":1,"Size":400,"SharedSize":100},
            {"Containers":0,"Size":700,"SharedSize":100}],"Containers":[{"State":"running",
            "SizeRw":10},{"State":"exited","SizeRw":30}],"Volumes":[{"UsageData":{"RefCount":0,
            "Size":37}}],"BuildCache":[]}"#,
        )
        .unwrap();
        let text = Format::new(&DF, "", false).unwrap().render(&DF, &df_rows(&usage)).unwrap();
        assert_eq!(
            text,
            "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
             Images          2         1         1kB       700B (70%)\n\
             Containers      2         1         40B       30B (75%)\n\
             Local Volumes   1         0         37B       37B (100%)\n\
             Build Cache     0         0         0B        0B\n"
        );
    }
}

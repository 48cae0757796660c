//! Verbs on volumes.

use serde_json::json;
use silo_types::size;

use super::container::{confirmed, for_each, prune_filters, prune_report};
use crate::command::Invocation;
use crate::context::warn;
use crate::create::pairs;
use crate::failure::{Failure, Outcome};
use crate::flags::{Filters, flags};
use crate::format::{Format, Kind};
use crate::options::values::{Labels, Map};
use crate::value::{Row, Value, join_pairs};

flags! {
    /// Flags of `volume create`.
    CreateFlags {
        driver: Option<String>, ['d'] "driver", "Specify volume driver name (default \"local\")";
        label: Labels, "label", "Set metadata for a volume";
        name: String, "name", "";
        opt: Map, ['o'] "opt", "Set driver specific options (default map[])";
    }
}

flags! {
    /// Flags of `volume ls`.
    LsFlags {
        filter: Filters, ['f'] "filter", "Provide filter values (e.g. \"dangling=true\")";
        format: String, "format", "Format output using a custom template";
        quiet: bool, ['q'] "quiet", "Only display volume names";
    }
}

flags! {
    /// Flags of `volume rm`.
    RmFlags {
        force: bool, ['f'] "force", "Force the removal of one or more volumes";
    }
}

flags! {
    /// Flags of `volume prune`.
    PruneFlags {
        all: bool, ['a'] "all", "Remove all unused volumes, not just anonymous ones";
        filter: Filters, "filter", "Provide filter values (e.g. \"label=<label>\")";
        force: bool, ['f'] "force", "Do not prompt for confirmation";
    }
}

/// Rows about volumes.
pub(super) const KIND: Kind = Kind {
    headings: &[
        ("Availability", "AVAILABILITY"),
        ("Driver", "DRIVER"),
        ("Group", "GROUP"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Size", "SIZE"),
        ("Status", "STATUS"),
    ],
    table: "{{.Driver}}\t{{.Name}}",
    quiet: "{{.Name}}",
    raw: "name: {{.Name}}\ndriver: {{.Driver}}\n",
};

/// The row of one volume.
pub(super) fn row(volume: &Value) -> Row {
    let labels = volume.get("Labels").pairs();
    let usage = volume.get("UsageData");
    let known = |text: String| Value::Text(if *usage == Value::Nil { "N/A".into() } else { text });
    let text = |name: &str| Value::text(volume.get(name).str());
    Row {
        type_name: "*formatter.volumeContext",
        fields: vec![
            ("Availability", Value::text("N/A")),
            ("Driver", text("Driver")),
            ("Group", Value::text("N/A")),
            ("Labels", Value::Text(join_pairs(&labels))),
            ("Links", known(usage.get("RefCount").int().to_string())),
            ("Mountpoint", text("Mountpoint")),
            ("Name", text("Name")),
            ("Scope", text("Scope")),
            ("Size", known(size::human(usage.get("Size").float()))),
            ("Status", Value::text("N/A")),
        ],
        labels,
    }
}

/// `volume create`
pub(crate) async fn create(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<CreateFlags>()?;
    if !flags.name.is_empty() && !words.is_empty() {
        return Err(Failure::new(
            "conflicting options: cannot specify a volume-name through both --name and as a \
             positional arg",
        ));
    }
    let name = words.first().unwrap_or(&flags.name);
    let client = invocation.cli.client().await?;
    let made: Value = client
        .post("/volumes/create")
        .json(&json!({
            "Driver": flags.driver.as_deref().unwrap_or("local"),
            "DriverOpts": flags.opt.json(),
            "Labels": pairs(&flags.label.0),
            "Name": name,
        }))
        .receive()
        .await?;
    invocation.cli.line(made.get("Name").str())
}

/// `volume ls`
pub(crate) async fn ls(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<LsFlags>()?;
    let format = if flags.format.is_empty() && !flags.quiet {
        invocation.cli.config().text("volumesFormat")
    } else {
        &flags.format
    };
    let format = Format::new(&KIND, format, flags.quiet)?;
    let client = invocation.cli.client().await?;
    let listed: Value =
        client.get("/volumes").query_some("filters", flags.filter.query()).receive().await?;
    let mut volumes: Vec<&Value> = listed.get("Volumes").list().iter().collect();
    volumes.sort_by_key(|volume| natural_key(volume.get("Name").str()));
    let rows: Vec<Row> = volumes.into_iter().map(row).collect();
    format.print(&invocation.cli, &KIND, &rows)
}

/// Names in an order where `a2` is before `a10`.
pub(super) fn natural_key(name: &str) -> Vec<(u8, u128, String)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if digits > 0 {
            let (number, after) = rest.split_at(digits);
            parts.push((0, number.parse().unwrap_or(u128::MAX), number.to_owned()));
            rest = after;
        } else {
            let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let (text, after) = rest.split_at(end);
            parts.push((1, 0, text.to_owned()));
            rest = after;
        }
    }
    parts
}

/// `volume rm`
pub(crate) async fn rm(invocation: Invocation) -> Outcome {
    let (flags, names) = invocation.parse::<RmFlags>()?;
    let force = flags.force;
    for_each(&invocation, &names, |client, name| async move {
        match client.delete(format!("/volumes/{name}")).query_if("force", force).done().await {
            Err(error) if force && error.status() == Some(404) => {
                warn(&error.to_string());
                Ok(None)
            }
            other => other.map(|()| Some(name.to_owned())).map_err(Failure::from),
        }
    })
    .await
}

/// `volume prune`
pub(crate) async fn prune(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<PruneFlags>()?;
    let question = if flags.all {
        "WARNING! This will remove all local volumes not used by at least one container."
    } else {
        "WARNING! This will remove anonymous local volumes not used by at least one container."
    };
    if !flags.force && !confirmed(question)? {
        return Err(Failure::new("volume prune has been cancelled"));
    }
    let mut filters = prune_filters(&invocation, &flags.filter);
    if flags.all {
        if filters.0.contains_key("all") {
            return Err(Failure::new(
                "conflicting options: cannot specify both --all and --filter all=1",
            ));
        }
        filters.add("all", "true");
    }
    let client = invocation.cli.client().await?;
    let pruned: Value =
        client.post("/volumes/prune").query_some("filters", filters.query()).receive().await?;
    let names: Vec<String> =
        pruned.get("VolumesDeleted").list().iter().map(ToString::to_string).collect();
    let space = pruned.get("SpaceReclaimed").float();
    invocation.cli.print(&prune_report("Deleted Volumes:", &names, space))
}

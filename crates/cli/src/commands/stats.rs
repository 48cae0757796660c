//! `stats`

use std::io::Write;

use silo_client::Client;
use silo_types::size;

use crate::command::Invocation;
use crate::failure::{Failure, Outcome};
use crate::flags::flags;
use crate::format::{Format, Kind};
use crate::table::short_id;
use crate::terminal;
use crate::value::{Row, Value};

flags! {
    /// Flags of `stats`.
    StatsFlags {
        all: bool, ['a'] "all", "Show all containers (default shows just running)";
        format: String, "format", "Format output using a custom template";
        no_stream: bool, "no-stream", "Disable streaming stats and only pull the first result";
        no_trunc: bool, "no-trunc", "Do not truncate output";
    }
}

const KIND: Kind = Kind {
    headings: &[
        ("BlockIO", "BLOCK I/O"),
        ("CPUPerc", "CPU %"),
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("MemPerc", "MEM %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("Name", "NAME"),
        ("NetIO", "NET I/O"),
        ("PIDs", "PIDS"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    quiet: "{{.ID}}",
    raw: "",
};

/// `stats`
pub(crate) async fn stats(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<StatsFlags>()?;
    let cli = &invocation.cli;
    let format =
        if flags.format.is_empty() { cli.config().text("statsFormat") } else { &flags.format };
    let format = Format::new(&KIND, format, false)?;
    let client = cli.client().await?;
    let live = !flags.no_stream && terminal::stdout_is_terminal() && format.is_table();
    loop {
        // Each round asks the engine for two samples, which takes a second: that is the pace.
        let names =
            if words.is_empty() { running(&client, flags.all).await? } else { words.clone() };
        let mut tasks = Vec::new();
        for name in names {
            let client = client.clone();
            tasks.push(tokio::task::spawn(async move {
                let sample: Result<Value, _> = client
                    .get(format!("/containers/{name}/stats"))
                    .query("stream", "0")
                    .receive()
                    .await;
                (name, sample)
            }));
        }
        let idle = tasks.is_empty();
        let mut rows = Vec::new();
        for task in tasks {
            let (name, sample) = task.await.map_err(|error| Failure::new(error.to_string()))?;
            match sample {
                Ok(sample) => rows.push(row(&name, &sample, !flags.no_trunc)),
                Err(error) if words.is_empty() && error.status() == Some(404) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let text = format.render(&KIND, &rows)?;
        if live {
            write!(std::io::stdout().lock(), "\x1b[H\x1b[2J")
                .map_err(|error| Failure::io("stdout", &error))?;
        }
        cli.print(&text)?;
        if flags.no_stream {
            return Ok(());
        }
        if idle {
            // Nothing to sample: the next container to start is an event.
            wait_for_start(&client).await?;
        }
    }
}

async fn running(client: &Client, all: bool) -> Outcome<Vec<String>> {
    let listed: Value = client.get("/containers/json").query_if("all", all).receive().await?;
    Ok(listed.list().iter().map(|item| short_id(item.get("Id").str())).collect())
}

async fn wait_for_start(client: &Client) -> Outcome {
    let mut events = client
        .get("/events")
        .query("filters", r#"{"type":{"container":true},"event":{"start":true}}"#)
        .send()
        .await?;
    events.chunk().await?;
    Ok(())
}

fn row(name: &str, sample: &Value, trunc: bool) -> Row {
    let memory = sample.get("memory_stats");
    let limit = memory.get("limit").float();
    let used = memory_used(memory);
    let percent = if limit > 0.0 { used / limit * 100.0 } else { 0.0 };
    let (received, sent) =
        sample.get("networks").entries().iter().fold((0.0, 0.0), |sum, (_, n)| {
            (sum.0 + n.get("rx_bytes").float(), sum.1 + n.get("tx_bytes").float())
        });
    let (mut read, mut written) = (0.0, 0.0);
    for entry in sample.path(&["blkio_stats", "io_service_bytes_recursive"]).list() {
        let value = entry.get("value").float();
        match entry.get("op").str().bytes().next() {
            Some(b'r' | b'R') => read += value,
            Some(b'w' | b'W') => written += value,
            _ => {}
        }
    }
    let id = sample.get("id").str();
    let id = if trunc { short_id(id) } else { id.to_owned() };
    let shown = sample.get("name").str();
    let two = |a: f64, b: f64| {
        format!("{} / {}", size::human_with_precision(a, 3), size::human_with_precision(b, 3))
    };
    Row {
        type_name: "*container.statsContext",
        fields: vec![
            ("BlockIO", Value::Text(two(read, written))),
            ("CPUPerc", Value::Text(format!("{:.2}%", cpu_percent(sample)))),
            ("Container", Value::text(name)),
            ("ID", Value::Text(id)),
            ("MemPerc", Value::Text(format!("{percent:.2}%"))),
            ("MemUsage", Value::Text(format!("{} / {}", size::binary(used), size::binary(limit)))),
            ("Name", Value::text(shown.strip_prefix('/').unwrap_or(shown))),
            ("NetIO", Value::Text(two(received, sent))),
            ("PIDs", Value::Text(sample.path(&["pids_stats", "current"]).int().to_string())),
        ],
        labels: Vec::new(),
    }
}

/// Use without the page cache that the kernel would give back at once.
fn memory_used(memory: &Value) -> f64 {
    let usage = memory.get("usage").float();
    let stats = memory.get("stats");
    // The first name is that of cgroup v1, the second of v2.
    let inactive = stats
        .find("total_inactive_file")
        .or_else(|| stats.find("inactive_file"))
        .map_or(0.0, Value::float);
    if inactive < usage { usage - inactive } else { usage }
}

fn cpu_percent(sample: &Value) -> f64 {
    let (now, before) = (sample.get("cpu_stats"), sample.get("precpu_stats"));
    let delta = |path: &[&str]| now.path(path).float() - before.path(path).float();
    let (used, system) = (delta(&["cpu_usage", "total_usage"]), delta(&["system_cpu_usage"]));
    let cpus = match now.get("online_cpus").float() {
        0.0 => Value::Int(
            i64::try_from(now.path(&["cpu_usage", "percpu_usage"]).list().len()).unwrap_or(0),
        )
        .float(),
        cpus => cpus,
    };
    if system > 0.0 && used > 0.0 { used / system * cpus * 100.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row() {
        let sample = Value::parse(
            br#"{"name":"/web","id":"0123456789abcdef","pids_stats":{"current":3},
            "networks":{"eth0":{"rx_bytes":1500,"tx_bytes":500}},
            "memory_stats":{"usage":3145728,"limit":104857600,"stats":{"inactive_file":1048576}},
            "cpu_stats":{"cpu_usage":{"total_usage":300},"system_cpu_usage":2000,"online_cpus":2},
            "precpu_stats":{"cpu_usage":{"total_usage":100},"system_cpu_usage":1000},
            "blkio_stats":{"io_service_bytes_recursive":[{"op":"Read","value":4096},
            {"op":"write","value":1}]}}"#,
        )
        .unwrap();
        let text = Format::new(&KIND, "", false)
            .unwrap()
            .render(&KIND, &[row("web", &sample, true)])
            .unwrap();
        assert_eq!(
            text,
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O        BLOCK \
             I/O    PIDS\n0123456789ab   web       40.00%    2MiB / 100MiB       2.00%     1.5kB \
             / 500B   4.1kB / 1B   3\n"
        );
    }
}

//! Verbs on containers that are one request each.

use std::io::Write;

use silo_types::size;

use crate::command::Invocation;
use crate::context::warn;
use crate::create::update_request;
use crate::failure::{Failure, Outcome};
use crate::flags::{Filters, flags};
use crate::options::UpdateFlags;
use crate::table;
use crate::value::Value;

flags! {
    /// Flags of `stop` and `restart`.
    StopFlags {
        signal: String, ['s'] "signal", "Signal to send to the container";
        timeout: Option<i64>, ['t'] "timeout" ("time"), "Seconds to wait before killing the container";
    }
}

flags! {
    /// Flags of `kill`.
    KillFlags {
        signal: String, ['s'] "signal", "Signal to send to the container";
    }
}

flags! {
    /// Flags of `rm`.
    RmFlags {
        force: bool, ['f'] "force", "Force the removal of a running container (uses SIGKILL)";
        link: bool, ['l'] "link", "Remove the specified link";
        volumes: bool, ['v'] "volumes", "Remove anonymous volumes associated with the container";
    }
}

flags! {
    /// Flags of `prune`.
    PruneFlags {
        filter: Filters, "filter", "Provide filter values (e.g. \"until=<timestamp>\")";
        force: bool, ['f'] "force", "Do not prompt for confirmation";
    }
}

flags! {
    /// No flags.
    NoFlags {}
}

/// Sends a request for each name, prints the names that succeed and the errors of the others.
pub(super) async fn for_each<'a, F, S>(
    invocation: &Invocation,
    names: &'a [String],
    send: F,
) -> Outcome
where
    F: Fn(silo_client::Client, &'a str) -> S,
    S: Future<Output = Outcome<Option<String>>>,
{
    let client = invocation.cli.client().await?;
    let mut failed = false;
    for name in names {
        match send(client.clone(), name).await {
            Ok(Some(text)) => invocation.cli.line(&text)?,
            Ok(None) => {}
            Err(failure) => {
                warn(&failure.message);
                failed = true;
            }
        }
    }
    if failed { Err(Failure::code(1)) } else { Ok(()) }
}

async fn post_each(
    invocation: &Invocation,
    names: &[String],
    verb: &str,
    query: &[(&str, String)],
) -> Outcome {
    for_each(invocation, names, |client, name| async move {
        let mut request = client.post(format!("/containers/{name}/{verb}"));
        for (key, value) in query {
            request = request.query(key, value);
        }
        request.done().await?;
        Ok(Some(name.to_owned()))
    })
    .await
}

fn stop_query(flags: &StopFlags) -> Vec<(&'static str, String)> {
    let mut query = Vec::new();
    if !flags.signal.is_empty() {
        query.push(("signal", flags.signal.clone()));
    }
    if let Some(timeout) = flags.timeout {
        query.push(("t", timeout.to_string()));
    }
    query
}

/// `stop`
pub(crate) async fn stop(invocation: Invocation) -> Outcome {
    let (flags, names) = invocation.parse::<StopFlags>()?;
    post_each(&invocation, &names, "stop", &stop_query(&flags)).await
}

/// `restart`
pub(crate) async fn restart(invocation: Invocation) -> Outcome {
    let (flags, names) = invocation.parse::<StopFlags>()?;
    post_each(&invocation, &names, "restart", &stop_query(&flags)).await
}

/// `kill`
pub(crate) async fn kill(invocation: Invocation) -> Outcome {
    let (flags, names) = invocation.parse::<KillFlags>()?;
    let query =
        if flags.signal.is_empty() { vec![] } else { vec![("signal", flags.signal.clone())] };
    post_each(&invocation, &names, "kill", &query).await
}

/// `pause`
pub(crate) async fn pause(invocation: Invocation) -> Outcome {
    let (_, names) = invocation.parse::<NoFlags>()?;
    post_each(&invocation, &names, "pause", &[]).await
}

/// `unpause`
pub(crate) async fn unpause(invocation: Invocation) -> Outcome {
    let (_, names) = invocation.parse::<NoFlags>()?;
    post_each(&invocation, &names, "unpause", &[]).await
}

/// `rm`
pub(crate) async fn rm(invocation: Invocation) -> Outcome {
    let (flags, names) = invocation.parse::<RmFlags>()?;
    let flags = &flags;
    for_each(&invocation, &names, |client, name| async move {
        let name = name.trim_matches('/');
        if name.is_empty() {
            return Err(Failure::new("container name cannot be empty"));
        }
        let removed = client
            .delete(format!("/containers/{name}"))
            .query_if("force", flags.force)
            .query_if("link", flags.link)
            .query_if("v", flags.volumes)
            .done()
            .await;
        match removed {
            // Forced removal of what is not there is what was wanted.
            Err(error) if flags.force && error.status() == Some(404) => {
                warn(&error.to_string());
                Ok(None)
            }
            other => other.map(|()| Some(name.to_owned())).map_err(Failure::from),
        }
    })
    .await
}

/// `wait`
pub(crate) async fn wait(invocation: Invocation) -> Outcome {
    let (_, names) = invocation.parse::<NoFlags>()?;
    for_each(&invocation, &names, |client, name| async move {
        let ended: Value = client.post(format!("/containers/{name}/wait")).receive().await?;
        Ok(Some(ended.get("StatusCode").int().to_string()))
    })
    .await
}

/// `rename`
pub(crate) async fn rename(invocation: Invocation) -> Outcome {
    let (_, words) = invocation.parse::<NoFlags>()?;
    let (old, new) = (words[0].trim(), words[1].trim());
    if old.is_empty() || new.is_empty() {
        return Err(Failure::new("Error: Neither old nor new names may be empty"));
    }
    let client = invocation.cli.client().await?;
    let renamed = client.post(format!("/containers/{old}/rename")).query("name", new).done().await;
    renamed.map_err(|error| {
        warn(&Failure::from(error).message);
        Failure::new(format!("Error: failed to rename container named {old}"))
    })
}

/// `update`
pub(crate) async fn update(invocation: Invocation) -> Outcome {
    let (flags, names) = invocation.parse::<UpdateFlags>()?;
    if !invocation.args.iter().any(|arg| arg.starts_with('-')) {
        return Err(Failure::new("you must provide one or more flags when using this command"));
    }
    let body = &update_request(&flags)?;
    for_each(&invocation, &names, |client, name| async move {
        let answer: Value =
            client.post(format!("/containers/{name}/update")).json(body).receive().await?;
        for warning in answer.get("Warnings").list() {
            warn(&warning.to_string());
        }
        Ok(Some(name.to_owned()))
    })
    .await
}

/// `top`
pub(crate) async fn top(invocation: Invocation) -> Outcome {
    let (_, words) = invocation.parse::<NoFlags>()?;
    let client = invocation.cli.client().await?;
    let arguments = words[1..].join(" ");
    let listed: Value = client
        .get(format!("/containers/{}/top", words[0]))
        .query_some("ps_args", (!arguments.is_empty()).then_some(arguments))
        .receive()
        .await?;
    let line = |cells: &[Value]| {
        cells.iter().map(ToString::to_string).collect::<Vec<_>>().join("\t") + "\n"
    };
    let mut text = line(listed.get("Titles").list());
    for process in listed.get("Processes").list() {
        text.push_str(&line(process.list()));
    }
    invocation.cli.print(&table::align(&text, 20, 3))
}

/// `port`
pub(crate) async fn port(invocation: Invocation) -> Outcome {
    let (_, words) = invocation.parse::<NoFlags>()?;
    let client = invocation.cli.client().await?;
    let container: Value = client.get(format!("/containers/{}/json", words[0])).receive().await?;
    let ports = container.path(&["NetworkSettings", "Ports"]);
    let address = |host: &Value| {
        let (ip, port) = (host.get("HostIp").str(), host.get("HostPort").str());
        if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
    };
    let mut lines = Vec::new();
    if let Some(wanted) = words.get(1) {
        let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        if number.parse::<u16>().is_err() {
            return Err(Failure::new(format!(
                "Error: invalid port ({number}): invalid port number: invalid syntax"
            )));
        }
        let hosts = ports.get(&format!("{number}/{protocol}")).list();
        if hosts.is_empty() {
            return Err(Failure::new(format!(
                "Error: No public port '{wanted}' published for {}",
                words[0]
            )));
        }
        lines.extend(hosts.iter().map(address));
    } else {
        for (port, hosts) in ports.entries() {
            lines.extend(hosts.list().iter().map(|host| format!("{port} -> {}", address(host))));
        }
    }
    lines.sort_by_key(|line| {
        let number = line.split('/').next().and_then(|number| number.parse::<u32>().ok());
        (number, line.clone())
    });
    for line in lines {
        invocation.cli.line(&line)?;
    }
    Ok(())
}

/// `diff`
pub(crate) async fn diff(invocation: Invocation) -> Outcome {
    let (_, words) = invocation.parse::<NoFlags>()?;
    let client = invocation.cli.client().await?;
    let changes: Value = client.get(format!("/containers/{}/changes", words[0])).receive().await?;
    let mut text = String::new();
    for change in changes.list() {
        let kind = match change.get("Kind").int() {
            0 => "C",
            1 => "A",
            _ => "D",
        };
        text.push_str(&format!("{kind} {}\n", change.get("Path").str()));
    }
    invocation.cli.print(&text)
}

/// Asks a question on stderr; anything but yes is no.
pub(super) fn confirmed(question: &str) -> Outcome<bool> {
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "{question}\nAre you sure you want to continue? [y/N] ")
        .map_err(|error| Failure::io("stderr", &error))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| Failure::io("stdin", &error))?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

/// Adds what the configuration always leaves out or in.
pub(super) fn prune_filters(invocation: &Invocation, flags: &Filters) -> Filters {
    let mut filters = flags.clone();
    for item in invocation.cli.config().get("pruneFilters").list() {
        if let Some((name, value)) = item.str().split_once('=') {
            filters.add(name, value);
        }
    }
    filters
}

/// What a prune says: the removed under a heading, and the space.
pub(super) fn prune_report(heading: &str, names: &[String], bytes: f64) -> String {
    let mut text = String::new();
    if !names.is_empty() {
        text.push_str(&format!("{heading}\n{}\n\n", names.join("\n")));
    }
    text.push_str(&format!("Total reclaimed space: {}\n", size::human(bytes)));
    text
}

/// `container prune`
pub(crate) async fn prune(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<PruneFlags>()?;
    if !flags.force && !confirmed("WARNING! This will remove all stopped containers.")? {
        return Err(Failure::new("container prune has been cancelled"));
    }
    let filters = prune_filters(&invocation, &flags.filter);
    let client = invocation.cli.client().await?;
    let pruned: Value =
        client.post("/containers/prune").query_some("filters", filters.query()).receive().await?;
    let names: Vec<String> =
        pruned.get("ContainersDeleted").list().iter().map(ToString::to_string).collect();
    let space = pruned.get("SpaceReclaimed").float();
    invocation.cli.print(&prune_report("Deleted Containers:", &names, space))
}

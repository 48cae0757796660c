//! `docker top`: the processes of a container as the host sees them.
//!
//! Nothing of the container's is run or loaded for it. The usual columns are read from /proc;
//! for other options the host's own `ps` is asked.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use silo_docker::containers::TopResponse;
use silo_types::Error;

use super::archive::blocking;
use crate::engine::Engine;

/// Ticks of /proc in a second, on every architecture of Linux.
const TICKS: u64 = 100;
/// What Docker asks `ps` for when the client says nothing.
const DEFAULT_OPTIONS: &str = "-ef";

impl Engine {
    /// The processes of a running container.
    pub async fn container_top(
        self: &Arc<Self>,
        name: &str,
        options: &str,
    ) -> Result<TopResponse, Error> {
        let asks_windows = options.is_empty();
        let options = if options.is_empty() { DEFAULT_OPTIONS } else { options };
        check_options(options)?;
        let container = self.container(name)?;
        // docker wording
        if container.state().restarting {
            return Err(Error::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        let group = self.running_group(&container)?;
        let mut pids = group.pids().map_err(Error::from_kind)?;
        pids.sort_unstable();
        let answer = if asks_windows && crate::windows::is(&container.record()) {
            self.windows_top(&container, &pids).await
        } else if options == DEFAULT_OPTIONS {
            blocking(move || Ok(full_listing(&pids))).await?
        } else {
            run_ps(options, &pids).await?
        };
        self.container_event(&container, "top", &[]);
        Ok(answer)
    }
}

/// Refuses renamings of columns that would hide which one is the process id.
fn check_options(options: &str) -> Result<(), Error> {
    for word in options.split_whitespace().skip(1) {
        if let Some((name, title)) = word.rsplit_once('=')
            && title.starts_with("PID")
            && name != "pid"
        {
            return Err(Error::internal(format!("specifying \"{name}={title}\" is not allowed")));
        }
    }
    Ok(())
}

/// What /proc/<pid>/stat says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) comm: String,
    parent: i32,
    tty: u32,
    /// Ticks of processor time.
    pub(crate) used: u64,
    /// Ticks after boot.
    started: u64,
}

fn parse_stat(text: &str) -> Option<Stat> {
    let (before, after) = text.rsplit_once(") ")?;
    let comm = before.split_once(" (")?.1.to_owned();
    let fields: Vec<&str> = after.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        comm,
        parent: fields.get(1)?.parse().ok()?,
        tty: fields.get(4)?.parse::<i32>().ok()?.cast_unsigned(),
        used: number(11)? + number(12)?,
        started: number(19)?,
    })
}

/// The same of a process, if it is there.
pub(crate) fn stat_of(pid: i32) -> Option<Stat> {
    let bytes = fs_err::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(String::from_utf8_lossy(&bytes).trim_end())
}

fn tty_name(number: u32) -> String {
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00));
    match major {
        0 => "?".into(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        _ => "?".into(),
    }
}

/// The columns of `ps -ef`.
fn full_listing(pids: &[i32]) -> TopResponse {
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
    let users = users_of_host();
    let now = Timestamp::now();
    let uptime = fs_err::read_to_string("/proc/uptime")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .unwrap_or(0.0);
    let mut processes = Vec::new();
    for pid in pids {
        let read = |name: &str| fs_err::read(format!("/proc/{pid}/{name}")).ok();
        let Some(stat) = stat_of(*pid) else { continue };
        let uid = read("status")
            .and_then(|bytes| {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let line = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
                line.split_whitespace().nth(1)?.parse::<u32>().ok()
            })
            .unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "ticks since boot are far below 2^52")]
        let age = (uptime - stat.started as f64 / TICKS as f64).max(0.0);
        let used = stat.used / TICKS;
        let command = read("cmdline").filter(|line| !line.is_empty()).map_or_else(
            || format!("[{}]", stat.comm),
            |line| {
                let text = String::from_utf8_lossy(&line);
                text.trim_end_matches('\0').replace(['\0', '\n'], " ")
            },
        );
        processes.push(vec![
            users.get(&uid).cloned().unwrap_or_else(|| uid.to_string()),
            pid.to_string(),
            stat.parent.to_string(),
            percent(used, age).to_string(),
            start_time(now, age),
            tty_name(stat.tty),
            format!("{:02}:{:02}:{:02}", used / 3600, used / 60 % 60, used % 60),
            command,
        ]);
    }
    TopResponse { processes, titles: titles.map(str::to_owned).to_vec() }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share between 0 and 99"
)]
fn percent(used: u64, age: f64) -> u64 {
    if age < 1.0 { 0 } else { (used as f64 * 100.0 / age).min(99.0) as u64 }
}

fn start_time(now: Timestamp, age: f64) -> String {
    let ago = std::time::Duration::try_from_secs_f64(age).unwrap_or_default();
    let started = now.checked_sub(ago).unwrap_or(now).to_zoned(TimeZone::system());
    let format = if age < 24.0 * 3600.0 { "%H:%M" } else { "%b%d" };
    started.strftime(format).to_string()
}

fn users_of_host() -> HashMap<u32, String> {
    let text = fs_err::read_to_string("/etc/passwd").unwrap_or_default();
    let mut users = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(_), Some(Ok(uid))) =
            (fields.next(), fields.next(), fields.next().map(str::parse))
        {
            users.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    users
}

/// Asks the host's `ps`, and leaves out what is not of the container.
async fn run_ps(options: &str, pids: &[i32]) -> Result<TopResponse, Error> {
    let list: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let words: Vec<&str> = options.split(' ').collect();
    let run = async |extra: Option<String>| {
        tokio::process::Command::new("ps")
            .args(&words)
            .args(extra)
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| Error::internal(format!("ps: {error}")))
    };
    let mut output = run(Some(format!("-q{}", list.join(",")))).await?;
    if !output.status.success() {
        // Some options cannot be combined with a list of processes.
        output = run(None).await?;
    }
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Error::internal(format!("ps: {}", text.lines().next().unwrap_or("failed"))));
    }
    parse_ps(&String::from_utf8_lossy(&output.stdout), pids)
}

fn parse_ps(text: &str, pids: &[i32]) -> Result<TopResponse, Error> {
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or("").split_ascii_whitespace().map(str::to_owned).collect();
    // docker wording
    let column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::internal("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    let mut ours = false;
    for line in lines {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let Some(&pid) = fields.get(column) else { continue };
        // Threads have a dash there, and follow their process.
        if pid != "-" {
            let pid: i32 = pid
                .parse()
                .map_err(|_| Error::internal(format!("Unexpected pid '{pid}': invalid syntax")))?;
            ours = pids.contains(&pid);
        }
        if !ours {
            continue;
        }
        let split = fields.len().min(titles.len() - 1);
        let mut row: Vec<String> = fields[..split].iter().map(|&f| f.to_owned()).collect();
        row.push(fields[split..].join(" "));
        processes.push(row);
    }
    Ok(TopResponse { processes, titles })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_with_odd_names() {
        let stat =
            parse_stat("7 (a) b (c) S 1 7 7 34817 7 4194560 1 0 0 0 150 50 0 0 20 0 1 0 12345 1 1")
                .unwrap();
        assert_eq!(
            stat,
            Stat { comm: "a) b (c".into(), parent: 1, tty: 34817, used: 200, started: 12345 }
        );
        assert_eq!(tty_name(34817), "pts/1");
        assert_eq!(tty_name(0), "?");
        assert_eq!(parse_stat("7"), None);
    }

    #[test]
    fn this_process_is_listed() {
        let own = i32::try_from(std::process::id()).unwrap();
        let top = full_listing(&[own, i32::MAX]);
        assert_eq!(top.processes.len(), 1);
        assert_eq!(top.processes[0].len(), top.titles.len());
        assert_eq!(top.processes[0][1], own.to_string());
    }

    #[test]
    fn output_of_ps_is_filtered() {
        let text = "  PID TTY CMD\n    1 ?   init\n   20 ?   sh -c x\n    - -   -\n   30 ?   no\n";
        let top = parse_ps(text, &[20]).unwrap();
        assert_eq!(top.processes, [["20", "?", "sh -c x"], ["-", "-", "-"]]);
        assert!(parse_ps("A B\n", &[1]).is_err());
    }

    #[test]
    fn the_pid_column_keeps_its_name() {
        assert!(check_options("-o pid=PID,cmd").is_ok());
        assert!(check_options("-eo pid,comm").is_ok());
        assert!(check_options("-o user=PID").is_err());
    }
}

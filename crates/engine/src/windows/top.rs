//! `docker top` of a Windows container: its processes as Windows sees them.
//!
//! Wine is asked, since only its server knows the process ids that programs see. A container
//! that is paused cannot answer; then Linux tells what it can. In both cases what Silo runs
//! beside Windows, process 1 and Wine's server, is left out: no Windows program sees it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use silo_docker::containers::TopResponse;
use silo_sys::path;
use silo_types::{Error, size};
use silo_windows::init::LOADER;

use super::tool::Tool;
use crate::container::Container;
use crate::engine::Engine;

const LIST: Tool = Tool { name: "silo-list.exe", bytes: silo_winprograms::processes };
/// What it writes.
const FILE: &str = "processes";
/// How long it may take. It takes a twentieth of a second.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of its answer.
const LIMIT: u64 = 4 << 20;
/// Ticks of /proc in a second.
const TICKS: u64 = 100;

/// A Windows process.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    name: String,
    /// None where it cannot be known.
    id: Option<u64>,
    /// Processor time.
    used: Duration,
    /// Bytes of memory of its own.
    private: u64,
}

#[expect(clippy::cast_precision_loss, reason = "a size for people")]
fn human(bytes: u64) -> String {
    size::human(bytes as f64)
}

impl Process {
    fn row(self) -> Vec<String> {
        let seconds = self.used.as_secs();
        let time = format!(
            "{:02}:{:02}:{:02}.{:03}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            self.used.subsec_millis()
        );
        let id = self.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        vec![self.name, id, time, human(self.private)]
    }
}

impl Engine {
    /// The processes of a running Windows container, of which `pids` are Linux' ids.
    pub(crate) async fn windows_top(
        self: &Arc<Self>,
        container: &Arc<Container>,
        pids: &[i32],
    ) -> TopResponse {
        let paused = container.state().paused;
        let asked = if paused {
            None
        } else {
            let read = |folder: &OwnedFd| {
                let unreadable = |error: &dyn std::fmt::Display| {
                    Error::internal(format!("read the list of processes: {error}"))
                };
                path::read_regular_file_in_root(folder, FILE, LIMIT)
                    .map_err(|error| unreadable(&error))?
                    .ok_or_else(|| unreadable(&"it is too long"))
            };
            self.run_tool(container, &LIST, TIMEOUT, read)
                .await
                .inspect_err(|error| tracing::debug!(container = %container.id, %error, "top"))
                .ok()
        };
        let processes = match asked {
            Some(answer) => parse(&answer),
            None => pids.iter().filter_map(|&pid| of_linux(pid)).collect(),
        };
        TopResponse {
            // docker wording
            titles: ["Name", "PID", "CPU", "Private Working Set"].map(str::to_owned).to_vec(),
            processes: processes.into_iter().map(Process::row).collect(),
        }
    }
}

/// Reads the answer of a container. What is wrong in it is left out.
fn parse(answer: &[u8]) -> Vec<Process> {
    let record = |record: &[u8]| {
        let text = String::from_utf8_lossy(record);
        let mut fields = text.splitn(4, ' ');
        let mut number = || fields.next()?.parse::<u64>().ok();
        let (id, used, private) = (number()?, number()?, number()?);
        let name = fields.next()?.chars().filter(|c| !c.is_control()).take(260).collect();
        Some(Process { name, id: Some(id), used: Duration::from_micros(used / 10), private })
    };
    answer.split(|&byte| byte == 0).filter_map(record).collect()
}

/// What Linux tells of a process of Wine's.
fn of_linux(pid: i32) -> Option<Process> {
    let of = |what: &str| format!("/proc/{pid}/{what}");
    if fs_err::read_link(of("exe")).ok()?.as_os_str() != LOADER {
        return None;
    }
    let stat = crate::containers::top::stat_of(pid)?;
    let status = fs_err::read_to_string(of("status")).ok()?;
    let private = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|value| value.trim().split(' ').next()?.parse::<u64>().ok())
        .unwrap_or(0);
    Some(Process {
        name: stat.comm,
        id: None,
        used: Duration::from_millis(stat.used * (1000 / TICKS)),
        private: private * 1024,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let answer =
            b"64 15600000 2338816 my program.exe\x00x\x001 2\x00172 36000000000 5000000 a\x1bb\xff.exe\0";
        let rows: Vec<_> = parse(answer).into_iter().map(Process::row).collect();
        assert_eq!(
            rows,
            [
                ["my program.exe", "64", "00:00:01.560", "2.339MB"],
                ["ab\u{fffd}.exe", "172", "01:00:00.000", "5MB"]
            ]
        );
    }

    #[test]
    fn only_wines_are_told() {
        assert_eq!(of_linux(i32::try_from(std::process::id()).unwrap()), None);
    }
}

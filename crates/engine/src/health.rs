//! Health checks: a program run in the container from time to time, and what its results mean.

use std::sync::Arc;
use std::time::Duration;

use silo_docker::containers::{Config, HealthConfig, HealthcheckResult};
use silo_types::time;

use crate::container::{Container, HealthState, Live, State, now, timestamp};
use crate::engine::Engine;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: i64 = 3;
/// Results that are kept.
const KEPT: usize = 5;
/// Bytes of output that are kept of each check.
const OUTPUT: usize = 4096;
/// The exit code of a check that did not come to an end.
const NO_RESULT: i64 = -1;

const STARTING: &str = "starting";
const HEALTHY: &str = "healthy";
const UNHEALTHY: &str = "unhealthy";

/// A check with its times filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

fn nanoseconds(value: i64, default: Duration) -> Duration {
    u64::try_from(value).ok().filter(|&v| v > 0).map_or(default, Duration::from_nanos)
}

impl Check {
    /// The check of a container, if it has one.
    fn of(config: &Config) -> Option<Self> {
        let HealthConfig { test, interval, timeout, start_period, start_interval, retries } =
            config.healthcheck.as_ref()?;
        let (kind, rest) = test.split_first()?;
        let command = match kind.as_str() {
            "CMD" => rest.to_vec(),
            "CMD-SHELL" => {
                let mut command = if config.shell.is_empty() {
                    vec!["/bin/sh".to_owned(), "-c".to_owned()]
                } else {
                    config.shell.to_vec()
                };
                command.extend_from_slice(rest);
                command
            }
            _ => return None,
        };
        if command.is_empty() {
            return None;
        }
        Some(Self {
            command,
            interval: nanoseconds(*interval, DEFAULT_INTERVAL),
            timeout: nanoseconds(*timeout, DEFAULT_TIMEOUT),
            start_period: nanoseconds(*start_period, Duration::ZERO),
            start_interval: nanoseconds(*start_interval, DEFAULT_START_INTERVAL),
            retries: if *retries > 0 { *retries } else { DEFAULT_RETRIES },
        })
    }

    /// How long to wait for the next check.
    fn wait(&self, status: &str, up: Duration) -> Duration {
        if status == STARTING && up < self.start_period {
            self.start_interval
        } else {
            self.interval
        }
    }

    /// Takes a result into account; true when the status has changed.
    fn judge(&self, health: &mut HealthState, result: HealthcheckResult, up: Duration) -> bool {
        let before = health.status.clone();
        if result.exit_code == 0 {
            health.failing_streak = 0;
            health.status = HEALTHY.into();
        } else if health.status != STARTING || up >= self.start_period {
            health.failing_streak += 1;
            if health.failing_streak >= self.retries {
                health.status = UNHEALTHY.into();
            }
        }
        if health.log.len() >= KEPT {
            health.log.drain(..=health.log.len() - KEPT);
        }
        health.log.push(result);
        health.status != before
    }
}

fn up_time(state: &State, at: i64) -> Duration {
    Duration::from_nanos(u64::try_from(at.saturating_sub(state.started_at)).unwrap_or(0))
}

/// The time of a check as Docker writes it.
fn moment(nanoseconds: i64) -> String {
    time::or_zero(timestamp(nanoseconds))
}

impl Engine {
    /// Begins the checks of a container that has just been started.
    pub(crate) fn begin_health_checks(
        self: &Arc<Self>,
        container: &Arc<Container>,
        live: &mut Live,
    ) {
        if Check::of(&container.record().config).is_none() {
            container.change(|state| state.health = None);
            return;
        }
        container.change(|state| {
            let health = state.health.get_or_insert_with(HealthState::default);
            health.status = STARTING.into();
            health.failing_streak = 0;
        });
        self.continue_health_checks(container, live);
    }

    /// Goes on with the checks of a container that was found again or thawed.
    pub(crate) fn continue_health_checks(
        self: &Arc<Self>,
        container: &Arc<Container>,
        live: &mut Live,
    ) {
        let Some(check) = Check::of(&container.record().config) else { return };
        let (engine, container) = (Arc::clone(self), Arc::clone(container));
        let task = tokio::spawn(async move { engine.check_health(&container, &check).await });
        if let Some(previous) = live.health.replace(task.abort_handle()) {
            previous.abort();
        }
    }

    /// Checks until the task is ended.
    async fn check_health(self: &Arc<Self>, container: &Arc<Container>, check: &Check) {
        loop {
            let wait = {
                let state = container.state();
                let status = state.health.as_ref().map_or("", |health| &health.status);
                check.wait(status, up_time(&state, now()))
            };
            tokio::time::sleep(wait).await;
            let start = now();
            let (exit_code, output) =
                match self.probe(container, &check.command, check.timeout, OUTPUT).await {
                    Ok(Some((code, output))) => (code, output),
                    Ok(None) => (
                        NO_RESULT,
                        format!("Health check exceeded timeout ({})", go_seconds(check.timeout)),
                    ),
                    Err(error) => (NO_RESULT, error.message().to_owned()),
                };
            let result =
                HealthcheckResult { start: moment(start), end: moment(now()), exit_code, output };
            let mut changed = None;
            container.change(|state| {
                let up = up_time(state, start);
                if let Some(health) = &mut state.health
                    && check.judge(health, result, up)
                {
                    changed = Some(health.status.clone());
                }
            });
            if let Some(status) = changed {
                self.container_event(container, &format!("health_status: {status}"), &[]);
            }
        }
    }
}

/// A duration as Go writes it, for the whole and broken seconds that occur here.
fn go_seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, duration.subsec_nanos()) {
        (0, 0) => format!("{seconds}s"),
        (minutes, 0) => format!("{minutes}m{}s", seconds % 60),
        _ if seconds == 0 => format!("{}ms", duration.as_secs_f64() * 1000.0),
        _ => format!("{}s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &str) -> Option<Check> {
        let healthcheck = serde_json::from_str(config).unwrap();
        Check::of(&Config { healthcheck: Some(healthcheck), ..Config::default() })
    }

    fn result(exit_code: i64) -> HealthcheckResult {
        HealthcheckResult { exit_code, ..HealthcheckResult::default() }
    }

    #[test]
    fn forms_of_a_check() {
        let shell = check(r#"{"Test":["CMD-SHELL","exit 1"]}"#).unwrap();
        assert_eq!(shell.command, ["/bin/sh", "-c", "exit 1"]);
        assert_eq!((shell.interval, shell.retries), (DEFAULT_INTERVAL, 3));
        let plain = check(r#"{"Test":["CMD","a","b"],"Interval":1000000,"Retries":1}"#).unwrap();
        assert_eq!(plain.command, ["a", "b"]);
        assert_eq!(plain.interval, Duration::from_millis(1));
        for none in [r#"{"Test":["NONE"]}"#, r#"{"Test":[]}"#, r#"{"Test":["CMD"]}"#, "{}"] {
            assert_eq!(check(none), None, "{none}");
        }
    }

    #[test]
    fn results_change_the_status() {
        let check = check(r#"{"Test":["CMD","x"],"Retries":2,"StartPeriod":10000000000}"#).unwrap();
        let mut health = HealthState { status: STARTING.into(), ..HealthState::default() };
        let (early, late) = (Duration::from_secs(1), Duration::from_secs(20));
        assert!(!check.judge(&mut health, result(1), early), "does not count yet");
        assert_eq!(health.failing_streak, 0);
        assert!(!check.judge(&mut health, result(1), late));
        assert!(check.judge(&mut health, result(1), late));
        assert_eq!((health.status.as_str(), health.failing_streak), (UNHEALTHY, 2));
        assert!(check.judge(&mut health, result(0), late));
        assert_eq!((health.status.as_str(), health.failing_streak), (HEALTHY, 0));
        for code in 10..20 {
            check.judge(&mut health, result(code), late);
        }
        let codes: Vec<_> = health.log.iter().map(|entry| entry.exit_code).collect();
        assert_eq!(codes, [15, 16, 17, 18, 19]);
        assert_eq!(check.wait(STARTING, early), DEFAULT_START_INTERVAL);
        assert_eq!(check.wait(HEALTHY, early), DEFAULT_INTERVAL);
    }

    #[test]
    fn durations_as_go_writes_them() {
        for (milliseconds, text) in
            [(30_000, "30s"), (90_000, "1m30s"), (500, "500ms"), (1500, "1.5s")]
        {
            assert_eq!(go_seconds(Duration::from_millis(milliseconds)), text);
        }
    }
}

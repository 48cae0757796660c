//! Restart policies: whether a container that ended starts again, and after how long.

use std::time::Duration;

use silo_types::Error;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_mins(1);
/// A container that ran at least this long starts again after the first delay.
const LONG_RUN: Duration = Duration::from_secs(10);

/// When a container starts again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Never.
    No,
    /// Whenever it ends, also at the daemon's start.
    Always,
    /// As [`Policy::Always`], unless a client stopped it.
    UnlessStopped,
    /// After an exit code other than zero, at most so many times; zero means without limit.
    OnFailure(u64),
}

impl Policy {
    /// Reads the API's name and retry count.
    pub fn parse(name: &str, maximum_retry_count: i64) -> Result<Self, Error> {
        // docker wording, throughout
        if maximum_retry_count < 0 {
            return Err(Error::invalid(
                "invalid restart policy: maximum retry count cannot be negative",
            ));
        }
        let policy = match name {
            "" | "no" => Self::No,
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            "on-failure" => {
                return Ok(Self::OnFailure(u64::try_from(maximum_retry_count).unwrap_or(0)));
            }
            other => {
                return Err(Error::invalid(format!(
                    "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
                )));
            }
        };
        if maximum_retry_count != 0 {
            return Err(Error::invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            ));
        }
        Ok(policy)
    }

    /// Whether a container with this policy starts when the daemon does, given that it was not
    /// running or had ended meanwhile.
    pub fn at_daemon_start(self, stopped_by_client: bool, exit_code: i64, restarts: u64) -> bool {
        match self {
            Self::No => false,
            Self::Always => true,
            Self::UnlessStopped => !stopped_by_client,
            Self::OnFailure(limit) => {
                exit_code != 0 && !stopped_by_client && (limit == 0 || restarts < limit)
            }
        }
    }
}

/// The memory between the restarts of one container.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    delay: Option<Duration>,
    restarts: u64,
}

impl Backoff {
    /// The delay before the container starts again, or `None` when it stays down.
    pub fn next(
        &mut self,
        policy: Policy,
        exit_code: i64,
        stopped_by_client: bool,
        ran: Duration,
    ) -> Option<Duration> {
        if policy == Policy::No {
            return None;
        }
        let delay = match self.delay {
            Some(previous) if ran < LONG_RUN => (previous * 2).min(LONGEST_DELAY),
            _ => FIRST_DELAY,
        };
        self.delay = Some(delay);
        let again = !stopped_by_client
            && match policy {
                Policy::No => false,
                Policy::Always | Policy::UnlessStopped => true,
                Policy::OnFailure(limit) => exit_code != 0 && (limit == 0 || self.restarts < limit),
            };
        if again {
            self.restarts += 1;
        }
        again.then_some(delay)
    }

    /// A client started the container: counts begin anew.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn delays_double_up_to_a_minute_and_fall_back_after_a_long_run() {
        let mut backoff = Backoff::default();
        let mut delays = Vec::new();
        for _ in 0..12 {
            delays.push(backoff.next(Policy::Always, 0, false, SHORT).unwrap().as_millis());
        }
        assert_eq!(
            delays,
            [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]
        );
        assert_eq!(backoff.next(Policy::Always, 0, false, LONG_RUN), Some(FIRST_DELAY));
    }

    #[test]
    fn policies_decide() {
        let once =
            |policy, code, stopped| Backoff::default().next(policy, code, stopped, SHORT).is_some();
        for (policy, code, stopped, again) in [
            (Policy::No, 1, false, false),
            (Policy::Always, 0, false, true),
            (Policy::Always, 0, true, false),
            (Policy::UnlessStopped, 0, false, true),
            (Policy::UnlessStopped, 0, true, false),
            (Policy::OnFailure(0), 0, false, false),
            (Policy::OnFailure(0), 1, false, true),
            (Policy::OnFailure(0), 1, true, false),
        ] {
            assert_eq!(once(policy, code, stopped), again, "{policy:?} {code} {stopped}");
        }
        let mut backoff = Backoff::default();
        let tries =
            (0..9).filter(|_| backoff.next(Policy::OnFailure(3), 1, false, SHORT).is_some());
        assert_eq!(tries.count(), 3);
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(Policy::parse("", 0).unwrap(), Policy::No);
        assert_eq!(Policy::parse("on-failure", 4).unwrap(), Policy::OnFailure(4));
        for (name, count) in [("x", 0), ("always", 1), ("no", 2), ("on-failure", -1)] {
            assert!(Policy::parse(name, count).is_err(), "{name} {count}");
        }
    }
}

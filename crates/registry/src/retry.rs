//! Trying again what may succeed a little later.

use std::hash::BuildHasher as _;
use std::time::Duration;

use crate::{Error, Retry};

/// The attempts at one thing.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    retry: &'a Retry,
    failed: u32,
}

impl Retry {
    pub(crate) fn begin(&self) -> Attempts<'_> {
        Attempts { retry: self, failed: 0 }
    }

    /// The wait after so many failures, without what is added by chance.
    fn wait(&self, failures: u32) -> Duration {
        let factor = 1_u32 << failures.saturating_sub(1).min(16);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

impl Attempts<'_> {
    /// Counts a failure. `None` if that was the last attempt or another would not help; otherwise
    /// how long to wait for it.
    pub(crate) fn next(&mut self, error: &Error) -> Option<Duration> {
        let asked = error.passing()?;
        self.failed += 1;
        if self.failed >= self.retry.attempts {
            return None;
        }
        let wait = self.retry.wait(self.failed);
        if asked > self.retry.longest {
            return None;
        }
        let wait = wait.max(asked);
        // Those who failed together should not come back together.
        let chance = std::hash::RandomState::new().hash_one(self.failed) % 256;
        let part = u32::try_from(chance).unwrap_or(0);
        Some(wait + wait * part / 1024)
    }

    /// Waits for the next attempt, or gives the error back.
    pub(crate) async fn again(&mut self, error: Error) -> Result<(), Error> {
        match self.next(&error) {
            Some(wait) => {
                tracing::debug!(%error, ?wait, "try again");
                tokio::time::sleep(wait).await;
                Ok(())
            }
            None => Err(error),
        }
    }

    /// It went on in between: failures are counted anew.
    pub(crate) fn progressed(&mut self) {
        self.failed = 0;
    }
}

/// Reads `Retry-After` in seconds. A date is taken for none: it would need a clock that agrees
/// with the server's.
pub(crate) fn after(header: &str) -> Option<Duration> {
    header.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Problem;

    fn refused(status: u16, after: Option<u64>) -> Error {
        let problem = Problem { code: String::new(), text: String::new() };
        Error::refused(status, problem, after.map(Duration::from_secs))
    }

    #[test]
    fn waits() {
        let retry =
            Retry { attempts: 4, first: Duration::from_secs(1), longest: Duration::from_secs(3) };
        let mut attempts = retry.begin();
        let near = |wait: Duration, seconds: u64| {
            let seconds = Duration::from_secs(seconds);
            wait >= seconds && wait <= seconds + seconds / 4
        };
        assert!(near(attempts.next(&refused(503, None)).unwrap(), 1));
        assert!(near(attempts.next(&refused(429, Some(3))).unwrap(), 3));
        assert!(near(attempts.next(&refused(500, Some(0))).unwrap(), 3));
        assert_eq!(attempts.next(&refused(503, None)), None, "the last");
        attempts.progressed();
        assert!(attempts.next(&refused(503, None)).is_some());
        assert_eq!(attempts.next(&refused(404, None)), None, "final");
        assert_eq!(retry.begin().next(&refused(429, Some(4))), None, "too long");
        assert_eq!(after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(after(""), None);
    }
}

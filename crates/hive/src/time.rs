//! Times as Windows counts them.

/// Ticks between the start of 1601 and that of 1970.
const EPOCH: u64 = 116_444_736_000_000_000;

/// A moment: 100 ns ticks since the start of 1601, UTC (`FILETIME`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileTime(pub u64);

impl FileTime {
    /// Seconds since 1970 as a time. What does not fit becomes the nearest time.
    pub fn from_unix(seconds: i64) -> Self {
        let ticks = i128::from(seconds) * 10_000_000 + i128::from(EPOCH);
        Self(u64::try_from(ticks.max(0)).unwrap_or(u64::MAX))
    }

    /// Whole seconds since 1970, rounded down.
    pub fn unix(self) -> i64 {
        let ticks = i128::from(self.0) - i128::from(EPOCH);
        i64::try_from(ticks.div_euclid(10_000_000)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_seconds() {
        let cases = [(0, EPOCH), (1, EPOCH + 10_000_000), (-11_644_473_600, 0), (i64::MIN, 0)];
        for (seconds, ticks) in cases {
            assert_eq!(FileTime::from_unix(seconds), FileTime(ticks), "{seconds}");
        }
        assert_eq!(FileTime(EPOCH + 19_999_999).unix(), 1);
        assert_eq!(FileTime(EPOCH - 1).unix(), -1);
        assert_eq!(FileTime::from_unix(i64::MAX), FileTime(u64::MAX));
    }
}

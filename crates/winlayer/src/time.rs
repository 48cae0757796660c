//! Times of NTFS: 100 nanoseconds since 1601.

use silo_archive::Time;
use silo_archive::pax;

/// Seconds from 1601 to 1970.
const EPOCH: i64 = 11_644_473_600;
/// Ticks of a second.
const TICKS: i64 = 10_000_000;

/// A FILETIME: 100 ns since 1601-01-01 UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileTime(pub i64);

impl FileTime {
    /// From seconds and nanoseconds since 1970; what is finer than 100 ns is cut off. `None`
    /// beyond the years that a FILETIME holds.
    pub fn from_unix(time: Time) -> Option<Self> {
        let seconds = time.seconds.checked_add(EPOCH)?;
        let ticks = i64::from(time.nanos / 100);
        seconds.checked_mul(TICKS)?.checked_add(ticks).map(Self)
    }

    /// Seconds and nanoseconds since 1970.
    pub fn to_unix(self) -> Time {
        let nanos = self.0.rem_euclid(TICKS) * 100;
        Time { seconds: self.0.div_euclid(TICKS) - EPOCH, nanos: u32::try_from(nanos).unwrap_or(0) }
    }

    /// Reads the time of a PAX record.
    pub fn parse(text: &[u8]) -> Option<Self> {
        pax::parse_time(text).and_then(Self::from_unix)
    }

    /// The value for a PAX record, as Go writes it.
    pub fn to_pax(self) -> String {
        pax::format_time(self.to_unix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (text, ticks) in [
            ("0", 116_444_736_000_000_000),
            ("-11644473600", 0),
            ("1700000000.1234567", 133_444_736_001_234_567),
            ("-1.5", 116_444_735_985_000_000),
            ("-11644473600.0000001", -1),
        ] {
            assert_eq!(FileTime::parse(text.as_bytes()), Some(FileTime(ticks)), "{text}");
            assert_eq!(FileTime(ticks).to_pax(), text);
        }
        assert_eq!(FileTime::parse(b"1.123456789"), FileTime::parse(b"1.1234567"));
        assert_eq!(FileTime::parse(b"9223372036854775807"), None);
    }

    #[test]
    fn extremes_round_trip() {
        for ticks in [i64::MIN, -1, 0, 1, i64::MAX] {
            let time = FileTime(ticks);
            assert_eq!(
                FileTime::from_unix(time.to_unix()),
                Some(time).filter(|_| ticks != i64::MIN)
            );
        }
    }
}

//! Durations as Go and Docker read and write them.

use std::time::Duration;

/// `Less than a second`, `5 minutes`, `2 weeks`: the rules of docker/go-units' `HumanDuration`.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Hours are rounded to the nearest, as Go does it.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// Reads Go's duration syntax: `1h15m30.5s`, `300ms`, `-2s` is refused, `0` is zero.
pub fn parse_go(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total_ns: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit_ns: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total_ns = total_ns.checked_add(whole.checked_mul(unit_ns)?)?;
        let mut scale = unit_ns;
        for digit in fraction.bytes() {
            if !digit.is_ascii_digit() {
                return None;
            }
            scale /= 10;
            total_ns = total_ns.checked_add(u128::from(digit - b'0') * scale)?;
        }
        rest = tail;
    }
    let total_ns = i64::try_from(total_ns).ok()?;
    Some(Duration::from_nanos(total_ns.unsigned_abs()))
}

/// Writes as Go's `Duration.String`: `1m30s`, `1.5s`, `300ms`, `0s`.
pub fn format_go(duration: Duration) -> String {
    let ns = duration.as_nanos();
    let trimmed = |whole: u128, fraction: u128, width: usize| {
        if fraction == 0 {
            whole.to_string()
        } else {
            format!("{whole}.{fraction:0width$}").trim_end_matches('0').to_owned()
        }
    };
    match ns {
        0 => "0s".into(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}µs", trimmed(ns / 1_000, ns % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", trimmed(ns / 1_000_000, ns % 1_000_000, 6)),
        _ => {
            let (seconds, fraction) = (ns / 1_000_000_000, ns % 1_000_000_000);
            let (minutes, hours) = (seconds / 60, seconds / 3600);
            let tail = format!("{}s", trimmed(seconds % 60, fraction, 9));
            match (hours, minutes) {
                (0, 0) => tail,
                (0, _) => format!("{minutes}m{tail}"),
                _ => format!("{hours}h{}m{tail}", minutes % 60),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn human_as_go_units() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (45, "45 seconds"),
            (60, "About a minute"),
            (180, "3 minutes"),
            (3600, "About an hour"),
            (4 * 3600, "4 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn go_syntax_both_ways() {
        for (text, ns) in [
            ("0s", 0),
            ("1.5s", 1_500_000_000),
            ("300ms", 300_000_000),
            ("1h15m30.918s", 4_530_918_000_000),
            ("1m0s", 60_000_000_000),
            ("15ns", 15),
            ("1.5µs", 1_500),
        ] {
            assert_eq!(parse_go(text), Some(Duration::from_nanos(ns)), "{text}");
            assert_eq!(format_go(Duration::from_nanos(ns)), text);
        }
        for bad in ["", "1", "s", "-1s", "1.s.", "1x", ".s", "99999999999h", "1.2.3s"] {
            assert_eq!(parse_go(bad), None, "{bad}");
        }
    }
}

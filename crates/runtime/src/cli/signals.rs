//! Signals by name.

use crate::error::Error;

const NAMES: &[&str] = &[
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The number of a signal given as `9`, `KILL`, `SIGKILL`, `SIGRTMIN+3`.
pub(super) fn parse(text: &str) -> Result<i32, Error> {
    let unknown = || Error::invalid(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let aliased = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    if let Some(at) = NAMES.iter().position(|known| *known == aliased) {
        return i32::try_from(at + 1).map_err(|_| unknown());
    }
    let real_time = |rest: &str, base: i32, sign: char| -> Option<i32> {
        if rest.is_empty() {
            return Some(base);
        }
        let distance: i32 = rest.strip_prefix(sign)?.parse().ok()?;
        let number = if sign == '+' { base + distance } else { base - distance };
        (0..=30).contains(&distance).then_some(number)
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(rest, 34, '+').ok_or_else(unknown);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(rest, 64, '-').ok_or_else(unknown);
    }
    Err(unknown())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_and_numbers() {
        let cases = [
            ("9", 9),
            ("KILL", 9),
            ("sigkill", 9),
            ("SIGSYS", 31),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("0", 0),
        ];
        for (text, number) in cases {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for wrong in ["", "SIG", "65", "-1", "NOPE", "RTMIN-1", "RTMIN+31"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

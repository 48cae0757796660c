//! Signal names and numbers as Docker reads them: `SIGTERM`, `term`, `15`, `RTMIN+3`.

use silo_types::Error;

/// `SIGKILL`.
pub(crate) const KILL: i32 = 9;
/// `SIGTERM`, the stop signal of a container that names none.
pub(crate) const TERM: i32 = 15;

const FIRST_REAL_TIME: i32 = 34;
const LAST: i32 = 64;

const NAMES: &[(&str, i32)] = &[
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
];

/// The number of the signal that `text` names.
pub(crate) fn parse(text: &str) -> Result<i32, Error> {
    // docker wording
    let invalid = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=LAST).contains(&number) { Ok(number) } else { Err(invalid()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(&(_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(number);
    }
    let real_time = |rest: &str, base: i32, sign: i32| {
        if rest.is_empty() {
            return Some(base);
        }
        let offset = rest.strip_prefix(if sign > 0 { '+' } else { '-' })?.parse::<i32>().ok()?;
        let number = base + sign * offset;
        (offset >= 0 && (FIRST_REAL_TIME..=LAST).contains(&number)).then_some(number)
    };
    name.strip_prefix("RTMIN")
        .and_then(|rest| real_time(rest, FIRST_REAL_TIME, 1))
        .or_else(|| name.strip_prefix("RTMAX").and_then(|rest| real_time(rest, LAST, -1)))
        .ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("15", 15),
            ("USR1", 10),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMAX", 64),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "65", "-1", "SIG", "NOPE", "RTMIN+40", "RTMIN-1", "RTMAX+1"] {
            assert_eq!(parse(bad).unwrap_err().message(), format!("invalid signal: {bad}"));
        }
    }
}

//! Sizes as Docker reads and writes them (the rules of Go's docker/go-units).

/// Decimal size with four significant digits, `1.23MB`, as in `docker images`.
pub fn human(bytes: f64) -> String {
    custom(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"], 4)
}

/// Decimal size with `digits` significant digits, as `docker images` (3) and `docker ps -s` (3).
pub fn human_with_precision(bytes: f64, digits: usize) -> String {
    custom(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"], digits)
}

/// Binary size with four significant digits, `1.5GiB`, as in `docker stats`.
pub fn binary(bytes: f64) -> String {
    custom(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"], 4)
}

fn custom(mut value: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut unit = 0;
    while value >= base && unit < units.len() - 1 {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// C's `%.<digits>g` for the values that occur here.
fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let digits = i32::try_from(digits).unwrap_or(4);
    #[expect(clippy::cast_possible_truncation, reason = "the logarithm of an f64 is below 310")]
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = usize::try_from(digits - 1 - magnitude).unwrap_or(0);
    let mut text = format!("{value:.decimals$}");
    if magnitude >= digits {
        // `%g` turns to an exponent here: 1000 with three digits is `1e+03`.
        let mantissa = value / 10f64.powi(magnitude);
        let places = usize::try_from(digits - 1).unwrap_or(0);
        let mut mantissa = format!("{mantissa:.places$}");
        trim_zeros(&mut mantissa);
        return format!("{mantissa}e+{magnitude:02}");
    }
    trim_zeros(&mut text);
    text
}

fn trim_zeros(text: &mut String) {
    if text.contains('.') {
        let kept = text.trim_end_matches('0').trim_end_matches('.').len();
        text.truncate(kept);
    }
}

/// Reads `512m`, `1.5g`, `10kb`, `1048576` as bytes with 1024 as the base, as `--memory` does.
///
/// Returns `None` for negative, empty, overlarge or unknown forms.
pub fn parse_binary(text: &str) -> Option<u64> {
    let number_end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_end);
    let suffix = suffix.strip_prefix(' ').unwrap_or(suffix).to_ascii_lowercase();
    let shift = match suffix.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).filter(|&bytes| i64::try_from(bytes).is_ok());
    }
    let value: f64 = number.parse().ok()?;
    let bytes = value * f64::from(2u32).powi(shift);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "range checked on the line before"
    )]
    (bytes.is_finite() && (0.0..9.2e18).contains(&bytes)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_as_go_units() {
        for (bytes, text) in [
            (0.0, "0B"),
            (999.0, "999B"),
            (1000.0, "1kB"),
            (1_024.0, "1.024kB"),
            (1_000_000.0, "1MB"),
            (4_491_537.0, "4.492MB"),
            (1e15, "1PB"),
        ] {
            assert_eq!(human(bytes), text);
        }
        assert_eq!(human_with_precision(4_491_537.0, 3), "4.49MB");
        assert_eq!(binary(1536.0 * 1024.0), "1.5MiB");
        assert_eq!(binary(1023.99 * 1024.0), "1024KiB");
    }

    #[test]
    fn reads_as_go_units() {
        for (text, bytes) in [
            ("32", Some(32)),
            ("32b", Some(32)),
            ("32B", Some(32)),
            ("32k", Some(32 << 10)),
            ("32.5kB", Some(33_280)),
            ("32 kb", Some(32 << 10)),
            ("1g", Some(1 << 30)),
            ("2TiB", Some(2 << 40)),
            ("", None),
            ("-1", None),
            ("k", None),
            ("1x", None),
            ("1.2.3", None),
            ("99999999999999999999", None),
            ("9000000p", None),
        ] {
            assert_eq!(parse_binary(text), bytes, "{text}");
        }
    }
}

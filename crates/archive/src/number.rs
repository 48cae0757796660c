//! Numbers of tar headers: octal text, or base-256 with the top bit of the field set.

/// Parses a numeric field. `None` for anything that readers differ about: signs, digits 8
/// and 9, blanks between digits, text after a terminator, or more than 63 bits.
pub(crate) fn parse(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // Two's complement in all but the top bit, which is only the mark.
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (index, byte) in field.iter().enumerate() {
            let byte = if index == 0 && !negative { byte & 0x7f } else { *byte };
            value = value.checked_shl(8)? | i128::from(byte);
            if value > i128::from(i64::MAX) || value < i128::from(i64::MIN) {
                return None;
            }
        }
        return i64::try_from(value).ok();
    }
    let start = field.iter().position(|byte| *byte != b' ' && *byte != 0)?;
    octal(&field[start..])
}

/// Parses a numeric field in which nothing at all stands for 0.
pub(crate) fn parse_or_zero(field: &[u8]) -> Option<i64> {
    if field.iter().all(|byte| *byte == b' ' || *byte == 0) { Some(0) } else { parse(field) }
}

fn octal(digits: &[u8]) -> Option<i64> {
    let end = digits.iter().position(|b| !(b'0'..=b'7').contains(b)).unwrap_or(digits.len());
    if end == 0 || !digits[end..].iter().all(|byte| *byte == b' ' || *byte == 0) {
        return None;
    }
    digits[..end]
        .iter()
        .try_fold(0_i64, |value, digit| value.checked_mul(8)?.checked_add(i64::from(digit - b'0')))
}

/// Writes a number: octal with a closing NUL where it fits, otherwise nothing and `false`.
pub(crate) fn write_octal(field: &mut [u8], value: u64) -> bool {
    let digits = field.len() - 1;
    if digits * 3 < 64 && value >> (digits * 3) != 0 {
        return false;
    }
    for (index, byte) in field[..digits].iter_mut().enumerate() {
        let shift = (digits - 1 - index) * 3;
        let digit = if shift < 64 { (value >> shift) & 7 } else { 0 };
        *byte = b'0' + u8::try_from(digit).unwrap_or(0);
    }
    field[digits] = 0;
    true
}

/// Digits only, as PAX numbers must be.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let cases: [(&[u8], Option<i64>); 14] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"644     ", Some(0o644)),
            (b"77777777", Some(0o7777_7777)),
            (b"00006 44", None),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"0644\0junk", None),
            (b"\0\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
        ];
        for (field, want) in cases {
            assert_eq!(parse(field), want, "{field:?}");
        }
        assert_eq!(parse_or_zero(b"  \0 "), Some(0));
    }

    #[test]
    fn writes_what_it_reads() {
        let mut field = [0_u8; 12];
        for value in [0, 1, 0o644, (1 << 33) - 1] {
            assert!(write_octal(&mut field, value));
            assert_eq!(parse(&field), i64::try_from(value).ok());
        }
        assert!(!write_octal(&mut field, 1 << 33));
    }
}

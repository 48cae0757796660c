//! Names of keys and values.

use std::cmp::Ordering;
use std::fmt;

use crate::upcase::upcase;

/// UTF-16 text of the registry: a name or a class. Any unit may stand in it, also unpaired
/// surrogates and NUL. Equality is exact; [`Name::order`] is Windows' order without case.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Name(Box<[u16]>);

impl Name {
    /// The text's units.
    pub fn units(&self) -> &[u16] {
        &self.0
    }

    /// Whether there is no unit.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Windows' order: unit by unit in upper case, then the shorter one first.
    pub fn order(&self, other: &Self) -> Ordering {
        compare(self, other.0.iter().copied())
    }

    /// Whether both are the same name for Windows.
    pub fn is(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.order(other).is_eq()
    }

    /// Whether every unit is below 0x100, which is stored in one byte.
    pub(crate) fn is_narrow(&self) -> bool {
        self.0.iter().all(|&unit| unit < 0x100)
    }

    /// The hash of `lh` lists.
    pub(crate) fn hash37(&self) -> u32 {
        self.0
            .iter()
            .fold(0_u32, |hash, &unit| hash.wrapping_mul(37).wrapping_add(u32::from(upcase(unit))))
    }
}

/// [`Name::order`] against units from anywhere.
pub(crate) fn compare(name: &Name, other: impl Iterator<Item = u16>) -> Ordering {
    let mut units = name.0.iter();
    for theirs in other {
        match units.next() {
            None => return Ordering::Less,
            Some(&ours) if ours == theirs => {}
            Some(&ours) => match upcase(ours).cmp(&upcase(theirs)) {
                Ordering::Equal => {}
                unequal => return unequal,
            },
        }
    }
    if units.next().is_some() { Ordering::Greater } else { Ordering::Equal }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.encode_utf16().collect())
    }
}

impl From<&String> for Name {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&[u16]> for Name {
    fn from(units: &[u16]) -> Self {
        Self(units.into())
    }
}

impl From<Vec<u16>> for Name {
    fn from(units: Vec<u16>) -> Self {
        Self(units.into_boxed_slice())
    }
}

/// What is no character is shown as U+FFFD.
impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        char::decode_utf16(self.0.iter().copied())
            .try_for_each(|unit| formatter.write_char(unit.unwrap_or(char::REPLACEMENT_CHARACTER)))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf16_lossy(&self.0), formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_ignores_case() {
        let cases = [
            ("", "a", Ordering::Less),
            ("a", "A", Ordering::Equal),
            ("a", "_", Ordering::Less),
            ("ab", "a", Ordering::Greater),
            ("Ärger", "äRGER", Ordering::Equal),
            ("ß", "SS", Ordering::Greater),
            ("z", "é", Ordering::Less),
        ];
        for (left, right, expected) in cases {
            assert_eq!(Name::from(left).order(&Name::from(right)), expected, "{left} {right}");
        }
        assert!(Name::from("ControlSet001").is(&Name::from("CONTROLSET001")));
        assert!(!Name::from("a").is(&Name::from("ab")));
    }

    #[test]
    fn hashes_of_known_names() {
        let cases = [
            ("", 0),
            ("ROOT", 0x0041_1300),
            ("Software", 0xE9FE_1463),
            ("ControlSet001", 0x8F3B_A9A2),
        ];
        for (name, hash) in cases {
            assert_eq!(Name::from(name).hash37(), hash, "{name}");
        }
    }

    #[test]
    fn shows_what_it_can() {
        assert_eq!(Name::from(&[0x61, 0xD800, 0x62][..]).to_string(), "a\u{FFFD}b");
    }
}

//! Typed ids: 256 random bits in lower-case hex, as Docker's, and checked names.

use std::fmt;
use std::str::FromStr;

/// A string that is not an id or name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {value:?}: expected {expected}")]
pub struct IdError {
    /// The kind of id that was wanted.
    pub what: &'static str,
    /// What was given, cut to 80 characters.
    pub value: String,
    /// The form that is accepted.
    pub expected: &'static str,
}

impl IdError {
    fn new(what: &'static str, value: &str, expected: &'static str) -> Self {
        Self { what, value: value.chars().take(80).collect(), expected }
    }
}

/// Fills `buffer` from the kernel's random source.
fn random_bytes(buffer: &mut [u8]) {
    let mut filled = 0;
    while filled < buffer.len() {
        // getrandom(2) without flags only blocks at early boot and only fails when interrupted.
        if let Ok(n) =
            rustix::rand::getrandom(&mut buffer[filled..], rustix::rand::GetRandomFlags::empty())
        {
            filled += n;
        }
    }
}

/// `byte_count` random bytes in lower-case hex.
pub fn random_hex(byte_count: usize) -> String {
    let mut bytes = vec![0; byte_count];
    random_bytes(&mut bytes);
    crate::digest::hex(&bytes)
}

/// A uniformly distributed random number, for choosing generated names.
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    random_bytes(&mut bytes);
    u64::from_ne_bytes(bytes)
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// A new random id.
            pub fn random() -> Self {
                // An id whose first twelve digits are all decimal would read as a number where
                // the short id serves as a host name; Docker draws again, and so do we.
                loop {
                    let id = random_hex(32);
                    if id[..12].bytes().any(|b| !b.is_ascii_digit()) {
                        return Self(id);
                    }
                }
            }

            /// All 64 hex digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first twelve hex digits, as people see ids.
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                if text.len() == 64 && text.bytes().all(hex) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(IdError::new($what, text, "64 lower-case hex digits"))
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

hex_id!(
    /// Names one container.
    ContainerId,
    "container id"
);
hex_id!(
    /// Names one process that was started in a container after its first.
    ExecId,
    "exec id"
);
hex_id!(
    /// Names one network.
    NetworkId,
    "network id"
);

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]+`: the names that Docker accepts for containers and volumes.
pub fn is_restricted_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// The name of a volume: safe as a single path component.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct VolumeName(String);

impl VolumeName {
    /// A new random name, as given to anonymous volumes.
    pub fn random() -> Self {
        Self(random_hex(32))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        if is_restricted_name(text) && text.len() <= 255 {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::new("volume name", text, "[a-zA-Z0-9][a-zA-Z0-9_.-], 2 to 255 characters"))
        }
    }
}

impl<'de> serde::Deserialize<'de> for VolumeName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_parse_and_differ() {
        let (a, b) = (ContainerId::random(), ContainerId::random());
        assert_ne!(a, b);
        assert_eq!(a.as_str().parse::<ContainerId>().as_ref(), Ok(&a));
        assert_eq!(a.short().len(), 12);
    }

    #[test]
    fn ids_refuse_paths_and_case() {
        for bad in ["", "../x", &"A".repeat(64), &"a".repeat(63), &"g".repeat(64)] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn volume_names_are_single_components() {
        for good in ["data", "a.b-c_d", "0x"] {
            assert!(good.parse::<VolumeName>().is_ok(), "{good}");
        }
        for bad in ["", "a", ".", "..", "a/b", ".hidden", "-x", "a b", "ä1", &"a".repeat(256)] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad}");
        }
    }
}

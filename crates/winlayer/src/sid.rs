//! Security identifiers.

use std::fmt;
use std::str::FromStr;

/// The most sub-authorities.
pub const MAX_SUB_AUTHORITIES: usize = 15;

/// A security identifier: `S-1-authority-sub-sub...`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sid {
    /// Authority, 48 bits.
    authority: u64,
    sub: Vec<u32>,
}

/// Text or bytes that are no identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a security identifier")]
pub struct InvalidSid;

/// Identifiers with two letters in SDDL, that are the same on every machine. The rest of
/// those that SDDL knows are relative to a domain.
const ALIASES: &[(&str, u64, &[u32])] = &[
    ("WD", 1, &[0]),
    ("CO", 3, &[0]),
    ("CG", 3, &[1]),
    ("OW", 3, &[4]),
    ("NU", 5, &[2]),
    ("IU", 5, &[4]),
    ("SU", 5, &[6]),
    ("AN", 5, &[7]),
    ("ED", 5, &[9]),
    ("PS", 5, &[10]),
    ("AU", 5, &[11]),
    ("RC", 5, &[12]),
    ("SY", 5, &[18]),
    ("LS", 5, &[19]),
    ("NS", 5, &[20]),
    ("WR", 5, &[33]),
    ("BA", 5, &[32, 544]),
    ("BU", 5, &[32, 545]),
    ("BG", 5, &[32, 546]),
    ("PU", 5, &[32, 547]),
    ("AO", 5, &[32, 548]),
    ("SO", 5, &[32, 549]),
    ("PO", 5, &[32, 550]),
    ("BO", 5, &[32, 551]),
    ("RE", 5, &[32, 552]),
    ("RU", 5, &[32, 554]),
    ("RD", 5, &[32, 555]),
    ("NO", 5, &[32, 556]),
    ("MU", 5, &[32, 558]),
    ("LU", 5, &[32, 559]),
    ("IS", 5, &[32, 568]),
    ("CY", 5, &[32, 569]),
    ("ER", 5, &[32, 573]),
    ("CD", 5, &[32, 574]),
    ("RA", 5, &[32, 575]),
    ("ES", 5, &[32, 576]),
    ("MS", 5, &[32, 577]),
    ("HA", 5, &[32, 578]),
    ("AA", 5, &[32, 579]),
    ("RM", 5, &[32, 580]),
    ("UD", 5, &[84, 0, 0, 0, 0, 0]),
    ("AC", 15, &[2, 1]),
    ("LW", 16, &[4096]),
    ("ME", 16, &[8192]),
    ("MP", 16, &[8448]),
    ("HI", 16, &[12288]),
    ("SI", 16, &[16384]),
    ("AS", 18, &[1]),
    ("SS", 18, &[2]),
];

/// Names of identifiers for people, that every Windows container has.
const NAMES: &[(&str, u64, &[u32])] = &[
    ("Everyone", 1, &[0]),
    ("CREATOR OWNER", 3, &[0]),
    ("CREATOR GROUP", 3, &[1]),
    ("OWNER RIGHTS", 3, &[4]),
    ("NT AUTHORITY\\NETWORK", 5, &[2]),
    ("NT AUTHORITY\\BATCH", 5, &[3]),
    ("NT AUTHORITY\\INTERACTIVE", 5, &[4]),
    ("NT AUTHORITY\\SERVICE", 5, &[6]),
    ("NT AUTHORITY\\ANONYMOUS LOGON", 5, &[7]),
    ("NT AUTHORITY\\Authenticated Users", 5, &[11]),
    ("NT AUTHORITY\\RESTRICTED", 5, &[12]),
    ("NT AUTHORITY\\SYSTEM", 5, &[18]),
    ("NT AUTHORITY\\LOCAL SERVICE", 5, &[19]),
    ("NT AUTHORITY\\NETWORK SERVICE", 5, &[20]),
    ("BUILTIN\\Administrators", 5, &[32, 544]),
    ("BUILTIN\\Users", 5, &[32, 545]),
    ("BUILTIN\\Guests", 5, &[32, 546]),
    ("BUILTIN\\Power Users", 5, &[32, 547]),
    (
        "NT SERVICE\\TrustedInstaller",
        5,
        &[80, 956_008_885, 3_418_522_649, 1_831_038_044, 1_853_292_631, 2_271_478_464],
    ),
    ("User Manager\\ContainerAdministrator", 5, &[93, 2, 1]),
    ("User Manager\\ContainerUser", 5, &[93, 2, 2]),
    ("APPLICATION PACKAGE AUTHORITY\\ALL APPLICATION PACKAGES", 15, &[2, 1]),
    ("APPLICATION PACKAGE AUTHORITY\\ALL RESTRICTED APPLICATION PACKAGES", 15, &[2, 2]),
    ("Mandatory Label\\Low Mandatory Level", 16, &[4096]),
    ("Mandatory Label\\Medium Mandatory Level", 16, &[8192]),
    ("Mandatory Label\\High Mandatory Level", 16, &[12288]),
    ("Mandatory Label\\System Mandatory Level", 16, &[16384]),
];

impl Sid {
    /// An identifier of an authority; `None` if it has too many parts or the authority too
    /// many bits.
    pub fn new(authority: u64, sub: impl Into<Vec<u32>>) -> Option<Self> {
        let sub = sub.into();
        (authority >> 48 == 0 && sub.len() <= MAX_SUB_AUTHORITIES)
            .then_some(Self { authority, sub })
    }

    fn fixed(sub: &[u32]) -> Self {
        Self { authority: 5, sub: sub.to_vec() }
    }

    /// `BUILTIN\Administrators`.
    pub fn administrators() -> Self {
        Self::fixed(&[32, 544])
    }

    /// `BUILTIN\Users`.
    pub fn users() -> Self {
        Self::fixed(&[32, 545])
    }

    /// `NT AUTHORITY\SYSTEM`.
    pub fn system() -> Self {
        Self::fixed(&[18])
    }

    /// `User Manager\ContainerAdministrator`, whom a container's processes run as by default.
    pub fn container_administrator() -> Self {
        Self::fixed(&[93, 2, 1])
    }

    /// `User Manager\ContainerUser`, who has no rights of an administrator.
    pub fn container_user() -> Self {
        Self::fixed(&[93, 2, 2])
    }

    /// Reads one off the start of `bytes`; gives what follows.
    pub fn read(bytes: &[u8]) -> Result<(Self, &[u8]), InvalidSid> {
        let Some(([1, count, authority @ ..], rest)) = bytes.split_first_chunk::<8>() else {
            return Err(InvalidSid);
        };
        let count = usize::from(*count);
        let size = count * 4;
        if count > MAX_SUB_AUTHORITIES || rest.len() < size {
            return Err(InvalidSid);
        }
        let authority = authority.iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        let words = rest[..size].as_chunks::<4>().0;
        let sub = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        Ok((Self { authority, sub }, &rest[size..]))
    }

    /// Appends its binary form.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(1);
        out.push(u8::try_from(self.sub.len()).unwrap_or(0));
        out.extend_from_slice(&self.authority.to_be_bytes()[2..]);
        for sub in &self.sub {
            out.extend_from_slice(&sub.to_le_bytes());
        }
    }

    /// Size of its binary form.
    pub fn size(&self) -> usize {
        8 + 4 * self.sub.len()
    }

    /// Its two letters in SDDL.
    pub fn alias(&self) -> Option<&'static str> {
        self.find(ALIASES)
    }

    /// The identifier of two letters.
    pub fn from_alias(alias: &str) -> Option<Self> {
        let found = ALIASES.iter().find(|(known, _, _)| *known == alias)?;
        Some(Self { authority: found.1, sub: found.2.to_vec() })
    }

    /// The name of its account, if it is one that every Windows has.
    pub fn name(&self) -> Option<&'static str> {
        self.find(NAMES)
    }

    fn find(&self, list: &[(&'static str, u64, &[u32])]) -> Option<&'static str> {
        let same = |(_, authority, sub): &&(&str, u64, &[u32])| {
            *authority == self.authority && *sub == self.sub
        };
        list.iter().find(same).map(|found| found.0)
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.authority >> 32 == 0 {
            write!(f, "S-1-{}", self.authority)?;
        } else {
            write!(f, "S-1-0x{:012x}", self.authority)?;
        }
        self.sub.iter().try_for_each(|sub| write!(f, "-{sub}"))
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sid {
    type Err = InvalidSid;

    fn from_str(text: &str) -> Result<Self, InvalidSid> {
        let rest = text.strip_prefix("S-1-").or_else(|| text.strip_prefix("s-1-"));
        let mut parts = rest.ok_or(InvalidSid)?.split('-');
        let authority = parts.next().ok_or(InvalidSid)?;
        let authority = match authority.strip_prefix("0x").or_else(|| authority.strip_prefix("0X"))
        {
            Some(hex) => number(hex, 16)?,
            None => number(authority, 10)?,
        };
        let sub = parts
            .map(|part| u32::try_from(number(part, 10)?).map_err(|_| InvalidSid))
            .collect::<Result<Vec<_>, _>>()?;
        Self::new(authority, sub).ok_or(InvalidSid)
    }
}

fn number(text: &str, radix: u32) -> Result<u64, InvalidSid> {
    let digits = !text.is_empty() && text.chars().all(|letter| letter.is_digit(radix));
    digits.then(|| u64::from_str_radix(text, radix).ok()).flatten().ok_or(InvalidSid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_bytes() {
        for (text, alias, bytes) in [
            ("S-1-1-0", Some("WD"), &b"\x01\x01\0\0\0\0\0\x01\0\0\0\0"[..]),
            ("S-1-5-18", Some("SY"), b"\x01\x01\0\0\0\0\0\x05\x12\0\0\0"),
            ("S-1-5-32-544", Some("BA"), b"\x01\x02\0\0\0\0\0\x05\x20\0\0\0\x20\x02\0\0"),
            ("S-1-5-93-2-1", None, b"\x01\x03\0\0\0\0\0\x05\x5d\0\0\0\x02\0\0\0\x01\0\0\0"),
            ("S-1-0x0123456789ab-1", None, b"\x01\x01\x01\x23\x45\x67\x89\xab\x01\0\0\0"),
            ("S-1-0", None, b"\x01\0\0\0\0\0\0\0"),
        ] {
            let sid: Sid = text.parse().unwrap();
            assert_eq!(sid.to_string(), text);
            assert_eq!(sid.alias(), alias);
            let mut out = Vec::new();
            sid.write(&mut out);
            assert_eq!(out, bytes);
            assert_eq!(out.len(), sid.size());
            out.push(7);
            assert_eq!(Sid::read(&out), Ok((sid, &[7][..])));
        }
        assert_eq!(
            Sid::container_administrator().name(),
            Some("User Manager\\ContainerAdministrator")
        );
        assert_eq!(Sid::container_user().to_string(), "S-1-5-93-2-2");
    }

    #[test]
    fn refusals() {
        let many = format!("S-1-5{}", "-1".repeat(16));
        for bad in ["", "S-1", "S-1-", "S-2-5-18", "S-1-5-", "S-1-5--1", "S-1-5-4294967296"]
            .into_iter()
            .chain(["S-1-x", "S-1-+5-1", "S-1-5-1 ", "S-1-0x1000000000000", many.as_str()])
        {
            assert!(bad.parse::<Sid>().is_err(), "{bad:?}");
        }
        let cut: [&[u8]; 4] = [
            b"",
            b"\x01\x01\0\0\0\0\0\x01\0\0\0",
            b"\x02\0\0\0\0\0\0\x01",
            b"\x01\x10\0\0\0\0\0\x01",
        ];
        for bad in cut {
            assert_eq!(Sid::read(bad), Err(InvalidSid));
        }
    }

    #[test]
    fn aliases_are_different() {
        let all: std::collections::HashSet<_> = ALIASES.iter().map(|alias| alias.0).collect();
        assert_eq!(all.len(), ALIASES.len());
    }
}

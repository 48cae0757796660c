//! The `Release` file of a suite: which index files it has, with their checksums.

use std::collections::BTreeMap;

use silo_types::Digest;

use super::control::stanzas;

/// Index files that one suite may have; Debian's have about a thousand.
const MAX_FILES: usize = 100_000;

/// What a suite says of itself, believed after its signature was checked.
#[derive(Debug)]
pub struct Release {
    /// `Suite` or `Codename`, as in `trixie`.
    pub codename: String,
    /// Until when it holds, seconds since 1970, where it says so.
    pub valid_until: Option<i64>,
    /// Whether the mirror also has index files under names that are their checksums.
    pub by_hash: bool,
    files: BTreeMap<String, (Digest, u64)>,
}

impl Release {
    /// Reads the text of a `Release` file.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let stanza = stanzas(text).next().ok_or("it is empty")?;
        let codename = stanza.line("Codename").ok_or("it has no codename")?.to_owned();
        let valid_until = match stanza.line("Valid-Until") {
            Some(date) => Some(parse_date(date).ok_or("it has a date that is none")?),
            None => None,
        };
        let by_hash = stanza.line("Acquire-By-Hash") == Some("yes");
        let mut files = BTreeMap::new();
        for line in stanza.get("SHA256").ok_or("it has no SHA256 sums")?.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(sum), Some(size), Some(path), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                if line.trim().is_empty() {
                    continue;
                }
                return Err("a line of its SHA256 sums has no three words");
            };
            let digest =
                format!("sha256:{sum}").parse().map_err(|_| "it has a checksum that is none")?;
            let size = size.parse().map_err(|_| "it has a size that is none")?;
            files.insert(path.to_owned(), (digest, size));
            if files.len() > MAX_FILES {
                return Err("it has more than 100000 files");
            }
        }
        Ok(Self { codename, valid_until, by_hash, files })
    }

    /// Checksum and size of an index file, by its path from the suite's directory.
    pub fn file(&self, path: &str) -> Option<(Digest, u64)> {
        self.files.get(path).copied()
    }
}

/// A date such as `Sat, 12 Sep 2026 07:55:09 UTC`, in seconds since 1970.
fn parse_date(date: &str) -> Option<i64> {
    let mut words = date.split_ascii_whitespace().skip(1);
    let day: i64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = i64::try_from(MONTHS.iter().position(|name| *name == month)?).ok()? + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let mut time = words.next()?.split(':').map(str::parse::<i64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    if !matches!(words.next(), Some("UTC" | "+0000" | "GMT")) {
        return None;
    }
    let sound = (1..=31).contains(&day)
        && (1970..=9999).contains(&year)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..61).contains(&second);
    if !sound {
        return None;
    }
    // Days since 1970-01-01, years beginning in March (Hinnant's days_from_civil).
    let y = if month <= 2 { year - 1 } else { year };
    let era = y / 400;
    let of_era = y - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read() {
        let sum = "a".repeat(64);
        let text = format!(
            "Origin: Debian\nCodename: trixie\nDate: Sat, 12 Sep 2026 07:55:09 UTC\nMD5Sum:\n 00 1 x\nSHA256:\n {sum}  12 main/binary-amd64/Packages.xz\n"
        );
        let release = Release::parse(&text).unwrap();
        assert_eq!(release.codename, "trixie");
        assert_eq!(release.valid_until, None);
        let (digest, size) = release.file("main/binary-amd64/Packages.xz").unwrap();
        assert_eq!((digest.to_string(), size), (format!("sha256:{sum}"), 12));
        assert!(release.file("x").is_none());
    }

    #[test]
    fn damaged_files_are_refused() {
        for text in [
            "",
            "Codename: x\n",
            "SHA256:\n",
            "Codename: x\nSHA256:\n zz 1 a\n",
            "Codename: x\nSHA256:\n aa 1\n",
            "Codename: x\nValid-Until: never\nSHA256:\n",
        ] {
            assert!(Release::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dates_are_read() {
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", Some(0)),
            ("Sat, 12 Sep 2026 07:55:09 UTC", Some(1_789_199_709)),
            ("Tue, 29 Feb 2000 12:00:00 +0000", Some(951_825_600)),
            ("Sat, 12 Sep 2026 07:55:09 CET", None),
            ("12 Sep 2026", None),
            ("Sat, 12 Foo 2026 07:55:09 UTC", None),
            ("Sat, 12 Sep 2026 27:55:09 UTC", None),
        ] {
            assert_eq!(parse_date(text), expected, "{text}");
        }
    }
}

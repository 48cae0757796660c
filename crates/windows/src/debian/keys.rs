//! Debian's public keys, and their armour taken off.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The keys that sign Debian 13: archive, security updates, releases; ASCII armoured, from
/// Debian's package `debian-archive-keyring`.
pub const DEBIAN_13: [&str; 3] = [
    include_str!("../../keys/debian-archive-trixie-automatic.asc"),
    include_str!("../../keys/debian-archive-trixie-security-automatic.asc"),
    include_str!("../../keys/debian-archive-trixie-stable.asc"),
];

/// The binary keyring of several armoured keys (RFC 9580, section 6.2). `None` when one of them
/// is not armoured key material. The checksum of the armour is not looked at: keys are ours, or
/// the user's own.
pub fn keyring(armoured: &[&str]) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    for key in armoured {
        let mut lines = key.lines().map(str::trim_end);
        lines.by_ref().find(|line| *line == "-----BEGIN PGP PUBLIC KEY BLOCK-----")?;
        // Armour headers end with an empty line.
        lines.by_ref().find(|line| line.is_empty())?;
        let mut text = String::new();
        let mut ended = false;
        for line in lines {
            if line == "-----END PGP PUBLIC KEY BLOCK-----" {
                ended = true;
                break;
            }
            if !line.starts_with('=') {
                text.push_str(line);
            }
        }
        if !ended || text.is_empty() {
            return None;
        }
        all.extend(STANDARD.decode(text).ok()?);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_debian_can_be_dearmoured() {
        let keyring = keyring(&DEBIAN_13).unwrap();
        // Public-key packets, in old and new format.
        assert!(matches!(keyring[0], 0x99 | 0x98 | 0xc6));
        assert!(keyring.len() > 3000);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA",
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!\n-----END PGP PUBLIC KEY BLOCK-----",
        ] {
            assert_eq!(keyring(&[text]), None, "{text}");
        }
    }
}

//! `keys.asc` and the signatures beside it were made by GnuPG 2.2, as of 2025-01-01 and
//! 2025-06-01: an RSA key with a subkey, Ed25519 keys, one that lived a year, and one that may
//! not sign. `stranger.asc` is by a key that is not among them.

use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::debian::keys;

const TEXT: &str = "Origin: Test\nCodename: trixie\n- dash\nlast";
const KEYS: &str = include_str!("keys.asc");
const RSA: &str = include_str!("rsa.asc");
const ED: &str = include_str!("ed.asc");
/// Half a year after the signatures.
const NOW: u64 = 1_764_547_200;

fn dearmoured() -> Vec<u8> {
    keys::keyring(&[KEYS]).unwrap()
}

fn ring() -> Keyring {
    Keyring::parse(&dearmoured()).unwrap()
}

fn refusal(text: &str, signature: &str, now: u64) -> String {
    ring().check(text, signature, now).unwrap_err()
}

#[test]
fn signatures_of_known_keys_hold() {
    let primary = include_str!("primary.asc");
    for signature in [RSA, ED, primary, include_str!("three.asc")] {
        ring().check(TEXT, signature, NOW).unwrap();
    }
    // The signature is of the bytes, not of lines.
    refusal(&TEXT.replace('\n', "\r\n"), primary, NOW);
}

#[test]
fn what_does_not_hold_is_refused() {
    let short = include_str!("short.asc");
    let old = include_str!("old.asc");
    for (text, signature, now, reason) in [
        ("Origin: Tesu", RSA, NOW, "of another text"),
        (&format!("{TEXT}\n"), ED, NOW, "of another text"),
        (TEXT, include_str!("stranger.asc"), NOW, "unknown keys"),
        (TEXT, short, 1_749_600_000, "it has expired"),
        (TEXT, old, 1_767_300_000, "the key has expired"),
        (TEXT, "", NOW, "armour"),
        (TEXT, "-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----", NOW, "no signature"),
    ] {
        let said = refusal(text, signature, now);
        assert!(said.contains(reason), "{reason}: {said}");
    }
    ring().check(TEXT, short, 1_749_000_000).unwrap();
    ring().check(TEXT, old, 1_760_000_000).unwrap();
}

#[test]
fn one_wrong_signature_spoils_the_others() {
    let (good, bad) = (armour(ED).unwrap(), armour(RSA).unwrap());
    let both = |bytes: &[u8]| {
        let base64 = STANDARD.encode(bytes);
        format!("-----BEGIN PGP SIGNATURE-----\n\n{base64}\n-----END PGP SIGNATURE-----\n")
    };
    ring().check(TEXT, &both(&[&good[..], &bad].concat()), NOW).unwrap();
    let mut damaged = bad.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let said = refusal(TEXT, &both(&[&good[..], &damaged].concat()), NOW);
    assert!(said.contains("another text"), "{said}");
    // Something else after a signature, and a packet that goes on behind the end.
    refusal(TEXT, &both(&[&good[..], &[0xc6, 0]].concat()), NOW);
    refusal(TEXT, &both(&[&good[..], &[0xc2, 9]].concat()), NOW);
}

#[test]
fn every_bit_of_a_signature_counts() {
    for armoured in [RSA, ED] {
        let whole = armour(armoured).unwrap();
        let (_, body) = Reader(&whole).packet().unwrap();
        let signature = Signature::parse(body).unwrap();
        let ring = ring();
        let key = ring.0.iter().find(|key| signature.is_by(key)).unwrap();
        // What is signed, the hint, and the numbers; the unsigned part only says whose it is.
        let unsigned = signature.signed.len() + 2;
        let free = unsigned..body.len() - signature.numbers.len() - 2;
        for at in (0..body.len()).filter(|at| !free.contains(at)) {
            for bit in 0..8 {
                let mut other = body.to_vec();
                other[at] ^= 1 << bit;
                let held = Signature::parse(&other)
                    .is_some_and(|signature| signature.check(key, TEXT, NOW).is_ok());
                // The numbers' lengths are in bits, of which bytes are what matters.
                let length = body.len() - signature.numbers.len() + 1;
                assert!(!held || at == length || at > length, "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn keys_say_what_they_are_for() {
    let ring = ring();
    let signing: Vec<bool> = ring.0.iter().map(|key| key.signs).collect();
    assert_eq!(signing, [true, true, true, true, false]);
    let expire: Vec<bool> = ring.0.iter().map(|key| key.expires.is_some()).collect();
    assert_eq!(expire, [true, true, false, true, false]);
    let bytes = dearmoured();
    for cut in 1..bytes.len() {
        // A key without the signature that tells its use is not for signatures.
        if let Some(ring) = Keyring::parse(&bytes[..cut]) {
            assert!(ring.0.iter().filter(|key| key.signs).count() <= 4);
        }
    }
}

#[test]
fn debians_keys_are_understood() {
    let ring = Keyring::parse(&keys::keyring(&keys::DEBIAN_13).unwrap()).unwrap();
    assert_eq!(ring.0.len(), 5, "three with two subkeys");
    assert!(ring.0.iter().all(|key| key.signs && key.expires.is_some_and(|at| at > NOW)));
}

/// Says the same as GnuPG where that is installed.
#[test]
fn gpgv_says_the_same() {
    if Command::new("gpgv").arg("--version").output().is_err() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    fs_err::write(path("keys"), dearmoured()).unwrap();
    for text in [TEXT, "Origin: Tesu"] {
        fs_err::write(path("text"), text).unwrap();
        for signature in [RSA, ED, include_str!("primary.asc"), include_str!("stranger.asc")] {
            fs_err::write(path("signature"), signature).unwrap();
            let status = Command::new("gpgv")
                .arg("--homedir")
                .arg(scratch.path())
                .arg("--keyring")
                .args([path("keys"), path("signature"), path("text")])
                .output()
                .unwrap()
                .status;
            assert_eq!(ring().check(text, signature, NOW).is_ok(), status.success());
        }
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _any = Keyring::parse(&bytes);
        let _nothing = Signature::parse(&bytes);
        let base64 = STANDARD.encode(&bytes);
        let armoured =
            format!("-----BEGIN PGP SIGNATURE-----\n\n{base64}\n-----END PGP SIGNATURE-----\n");
        prop_assert!(ring().check(TEXT, &armoured, NOW).is_err());
    }

    #[test]
    fn any_damage(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = dearmoured();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _any = Keyring::parse(&bytes);
    }
}

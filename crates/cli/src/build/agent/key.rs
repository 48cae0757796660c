//! Private keys of files: OpenSSH's own form (PROTOCOL.key), PKCS#8, and PKCS#1 of RSA. Keys with
//! a passphrase are left to a real agent.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};

const MAGIC: &[u8] = b"openssh-key-v1\0";
/// What a client asks of a signature by RSA.
const SHA256: u32 = 2;
const SHA512: u32 = 4;

/// A private key.
pub(in crate::build) struct Key {
    /// The public key as agents name it.
    pub(super) public: Vec<u8>,
    pub(super) comment: String,
    signer: Signer,
}

enum Signer {
    Ed25519(Ed25519KeyPair),
    /// With the name of its curve.
    Ecdsa(Box<EcdsaKeyPair>, &'static str),
    Rsa(Box<RsaKeyPair>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("comment", &self.comment).finish_non_exhaustive()
    }
}

/// Adds bytes with their length before them.
pub(super) fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Takes bytes that have their length before them.
pub(super) fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (bytes, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

/// A number without zeros before it.
fn trimmed(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Adds a number, which is not negative.
fn put_number(out: &mut Vec<u8>, number: &[u8]) {
    let number = trimmed(number);
    let mut bytes = Vec::with_capacity(number.len() + 1);
    if number.first().is_some_and(|byte| *byte >= 0x80) {
        bytes.push(0);
    }
    bytes.extend_from_slice(number);
    put(out, &bytes);
}

/// `number mod (prime - 1)`, for a prime that is odd.
fn modulo_less_one(number: &[u8], prime: &[u8]) -> Option<Vec<u8>> {
    let mut modulus = trimmed(prime).to_vec();
    let last = modulus.last_mut()?;
    if *last & 1 == 0 {
        return None;
    }
    *last -= 1;
    // Bit by bit; one byte more than the modulus has holds twice the rest.
    modulus.insert(0, 0);
    let mut rest = vec![0_u8; modulus.len()];
    for bit in number.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            let next = *byte >> 7;
            *byte = *byte << 1 | carry;
            carry = next;
        }
        if rest >= modulus {
            let mut borrow = false;
            for (byte, less) in rest.iter_mut().zip(&modulus).rev() {
                let (difference, first) = byte.overflowing_sub(*less);
                let (difference, second) = difference.overflowing_sub(u8::from(borrow));
                *byte = difference;
                borrow = first || second;
            }
        }
    }
    Some(trimmed(&rest).to_vec())
}

impl Key {
    /// Reads a key; the error is in words.
    pub(in crate::build) fn parse(text: &str, comment: &str) -> Result<Self, String> {
        let (kind, bytes) = pem(text)?;
        let unknown = || {
            format!(
                "cannot read this {kind}: ed25519, ecdsa-sha2-nistp256 and -nistp384, and rsa of 2048 bits or more are known"
            )
        };
        match kind.as_str() {
            "OPENSSH PRIVATE KEY" => Self::openssh(&bytes, comment)?.ok_or_else(unknown),
            "PRIVATE KEY" => Self::pkcs8(&bytes, comment).ok_or_else(unknown),
            "RSA PRIVATE KEY" => {
                let pair = RsaKeyPair::from_der(&bytes).map_err(|_| unknown())?;
                Ok(Self::rsa(pair, comment))
            }
            "ENCRYPTED PRIVATE KEY" => Err(PASSPHRASE.to_owned()),
            "EC PRIVATE KEY" => {
                Err("convert it to OpenSSH's form first, with ssh-keygen -p -f FILE".to_owned())
            }
            other => Err(format!("{other:?} is no private key")),
        }
    }

    fn ed25519(pair: Ed25519KeyPair, comment: &str) -> Self {
        let mut public = Vec::new();
        put(&mut public, b"ssh-ed25519");
        put(&mut public, pair.public_key().as_ref());
        Self { public, comment: comment.to_owned(), signer: Signer::Ed25519(pair) }
    }

    fn ecdsa(pair: EcdsaKeyPair, curve: &'static str, comment: &str) -> Self {
        let mut public = Vec::new();
        put(&mut public, format!("ecdsa-sha2-{curve}").as_bytes());
        put(&mut public, curve.as_bytes());
        put(&mut public, pair.public_key().as_ref());
        let signer = Signer::Ecdsa(Box::new(pair), curve);
        Self { public, comment: comment.to_owned(), signer }
    }

    fn rsa(pair: RsaKeyPair, comment: &str) -> Self {
        let components = PublicKeyComponents::<Vec<u8>>::from(pair.public());
        let mut public = Vec::new();
        put(&mut public, b"ssh-rsa");
        put_number(&mut public, &components.e);
        put_number(&mut public, &components.n);
        Self { public, comment: comment.to_owned(), signer: Signer::Rsa(Box::new(pair)) }
    }

    fn pkcs8(bytes: &[u8], comment: &str) -> Option<Self> {
        let random = SystemRandom::new();
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
            return Some(Self::ed25519(pair, comment));
        }
        for (algorithm, curve) in CURVES {
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(algorithm, bytes, &random) {
                return Some(Self::ecdsa(pair, curve, comment));
            }
        }
        Some(Self::rsa(RsaKeyPair::from_pkcs8(bytes).ok()?, comment))
    }

    /// `None` for a key of a kind that is not known.
    fn openssh(bytes: &[u8], comment: &str) -> Result<Option<Self>, String> {
        let read = || -> Option<(&[u8], &[u8])> {
            let mut rest = bytes.strip_prefix(MAGIC)?;
            let cipher = take(&mut rest)?;
            let (_kdf, _options) = (take(&mut rest)?, take(&mut rest)?);
            let rest_of_keys = rest.strip_prefix(&1_u32.to_be_bytes())?;
            let mut rest = rest_of_keys;
            let _public = take(&mut rest)?;
            Some((cipher, take(&mut rest)?))
        };
        let (cipher, private) = read().ok_or("the file is damaged")?;
        if cipher != b"none" {
            return Err(PASSPHRASE.to_owned());
        }
        Ok(Self::openssh_private(private, comment))
    }

    fn openssh_private(private: &[u8], comment: &str) -> Option<Self> {
        // Two numbers that are the same show that the right passphrase was used.
        let (checks, mut rest) = private.split_at_checked(8)?;
        if checks[..4] != checks[4..] {
            return None;
        }
        let kind = take(&mut rest)?;
        let mut key = match kind {
            b"ssh-ed25519" => {
                let (public, both) = (take(&mut rest)?, take(&mut rest)?);
                let seed = both.get(..32)?;
                let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public).ok()?;
                Self::ed25519(pair, comment)
            }
            b"ssh-rsa" => {
                let mut number = || take(&mut rest).map(trimmed);
                let (modulus, exponent, secret) = (number()?, number()?, number()?);
                let (inverse, first, second) = (number()?, number()?, number()?);
                let components = KeyPairComponents {
                    public_key: PublicKeyComponents { n: modulus, e: exponent },
                    d: secret,
                    p: first,
                    q: second,
                    dP: &modulo_less_one(secret, first)?,
                    dQ: &modulo_less_one(secret, second)?,
                    qInv: inverse,
                };
                Self::rsa(RsaKeyPair::from_components(&components).ok()?, comment)
            }
            _ => {
                let curve = take(&mut rest)?;
                let (algorithm, curve) =
                    CURVES.into_iter().find(|(_, name)| name.as_bytes() == curve)?;
                let (public, number) = (take(&mut rest)?, trimmed(take(&mut rest)?));
                let mut private = vec![0; public.len() / 2];
                let zeros = private.len().checked_sub(number.len())?;
                private[zeros..].copy_from_slice(number);
                let random = SystemRandom::new();
                let pair = EcdsaKeyPair::from_private_key_and_public_key(
                    algorithm, &private, public, &random,
                );
                Self::ecdsa(pair.ok()?, curve, comment)
            }
        };
        if let Some(own) = take(&mut rest).filter(|own| !own.is_empty()) {
            key.comment = String::from_utf8_lossy(own).into_owned();
        }
        Some(key)
    }

    /// A signature, with the name of its algorithm. There is none by RSA with SHA-1.
    pub(super) fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let mut signature = Vec::new();
        match &self.signer {
            Signer::Ed25519(pair) => {
                put(&mut signature, b"ssh-ed25519");
                put(&mut signature, pair.sign(data).as_ref());
            }
            Signer::Ecdsa(pair, curve) => {
                let fixed = pair.sign(&random, data).ok()?;
                let (r, s) = fixed.as_ref().split_at_checked(fixed.as_ref().len() / 2)?;
                let mut numbers = Vec::new();
                put_number(&mut numbers, r);
                put_number(&mut numbers, s);
                put(&mut signature, format!("ecdsa-sha2-{curve}").as_bytes());
                put(&mut signature, &numbers);
            }
            Signer::Rsa(pair) => {
                let (padding, name): (&dyn ring::signature::RsaEncoding, &[u8]) =
                    if flags & SHA512 != 0 {
                        (&RSA_PKCS1_SHA512, b"rsa-sha2-512")
                    } else if flags & SHA256 != 0 {
                        (&RSA_PKCS1_SHA256, b"rsa-sha2-256")
                    } else {
                        return None;
                    };
                let mut bytes = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, data, &mut bytes).ok()?;
                put(&mut signature, name);
                put(&mut signature, &bytes);
            }
        }
        Some(signature)
    }
}

const PASSPHRASE: &str =
    "it is protected by a passphrase: add it to an agent with ssh-add and give the agent's socket";

type Curve = (&'static ring::signature::EcdsaSigningAlgorithm, &'static str);
const CURVES: [Curve; 2] = [
    (&ECDSA_P256_SHA256_FIXED_SIGNING, "nistp256"),
    (&ECDSA_P384_SHA384_FIXED_SIGNING, "nistp384"),
];

/// The kind and the bytes of the first thing in a file of RFC 7468.
fn pem(text: &str) -> Result<(String, Vec<u8>), String> {
    let no_key = || "it is no private key in PEM form".to_owned();
    let (_, rest) = text.split_once("-----BEGIN ").ok_or_else(no_key)?;
    let (kind, rest) = rest.split_once("-----").ok_or_else(no_key)?;
    let (body, _) = rest.split_once("-----END ").ok_or_else(no_key)?;
    if body.contains("ENCRYPTED") {
        return Err(PASSPHRASE.to_owned());
    }
    let body: String = body.split_whitespace().collect();
    let bytes = STANDARD.decode(body).map_err(|_| no_key())?;
    Ok((kind.to_owned(), bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file as ssh-keygen writes it, with or without a cipher.
    fn file(cipher: &str, private: &[u8]) -> String {
        let mut bytes = MAGIC.to_vec();
        put(&mut bytes, cipher.as_bytes());
        put(&mut bytes, b"none");
        put(&mut bytes, b"");
        bytes.extend(1_u32.to_be_bytes());
        put(&mut bytes, b"public");
        put(&mut bytes, private);
        let text = STANDARD.encode(bytes);
        format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{text}\n-----END OPENSSH PRIVATE KEY-----\n")
    }

    fn private(kind: &str, parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![7; 8];
        put(&mut bytes, kind.as_bytes());
        for part in parts {
            put(&mut bytes, part);
        }
        put(&mut bytes, b"a comment");
        bytes
    }

    /// A key, and what verifies its signatures.
    pub(in crate::build::agent) fn sample() -> (Key, Vec<u8>) {
        let seed = [5; 32];
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let public = pair.public_key().as_ref().to_vec();
        let both = [&seed[..], &public].concat();
        let text = file("none", &private("ssh-ed25519", &[&public, &both]));
        (Key::parse(&text, "file").unwrap(), public)
    }

    #[test]
    fn numbers() {
        for (number, prime, rest) in [
            (&[100][..], &[7][..], &[4][..]),
            (&[1, 0, 0], &[0, 251], &[36]),
            (&[5], &[7], &[5]),
            (&[6], &[7], &[]),
            (&[0xff; 5], &[1, 1], &[255]),
        ] {
            assert_eq!(modulo_less_one(number, prime).unwrap(), rest, "{number:?} {prime:?}");
        }
        assert_eq!(modulo_less_one(&[1], &[8]), None);
        let mut out = Vec::new();
        put_number(&mut out, &[0, 0, 0x80]);
        assert_eq!(out, [0, 0, 0, 2, 0, 0x80]);
    }

    #[test]
    fn what_is_no_key_is_told() {
        for (text, said) in [
            (String::new(), "no private key"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----".into(), "no private key"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----".into(), "cannot read"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA".into(), "no private key"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA"
                    .into(),
                "passphrase",
            ),
            (file("aes256-ctr", b"secret"), "passphrase"),
            (file("none", b"short"), "cannot read"),
            (file("none", &private("ssh-ed25519", &[b"x", b"y"])), "cannot read"),
            (file("none", &private("sk-ssh-ed25519@openssh.com", &[b"x"])), "cannot read"),
            (file("none", &private("ssh-rsa", &[&b"\x01"[..]; 6])), "cannot read"),
        ] {
            let error = Key::parse(&text, "x").unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}

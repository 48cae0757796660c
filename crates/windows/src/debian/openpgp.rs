//! OpenPGP signatures of texts (RFC 9580, RFC 4880): what Debian's archive needs of it.
//!
//! Certificates are version 4 with RSA or Ed25519 keys; they are the program's own, so the
//! signatures inside them are believed, and only tell until when a key may be used and for what.
//! Signatures are version 4, of types 0 and 1, over SHA-256, SHA-384 or SHA-512. Everything else
//! is passed over as if it were not there: nothing is believed by it. The arithmetic is `ring`'s,
//! which TLS has in the program already.
//!
//! Not a library, as none is of this size: `pgp` 0.21 brings 90 crates that nothing else here
//! needs, ciphers and curves for encryption, private keys and messages, without a feature to
//! leave them out; `sequoia-openpgp` 2.4 brings 116 and is under the LGPL, which a static binary
//! cannot carry lightly.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use ring::signature::{self as arithmetic, RsaPublicKeyComponents, UnparsedPublicKey};

/// Packets (RFC 9580, section 5).
const SIGNATURE: u8 = 2;
const PUBLIC_KEY: u8 = 6;
const PUBLIC_SUBKEY: u8 = 14;
/// Algorithms of keys (section 9.1).
const RSA: u8 = 1;
const EDDSA_LEGACY: u8 = 22;
const ED25519: u8 = 27;
/// Curve Ed25519, as keys of algorithm 22 name it.
const ED25519_LEGACY_CURVE: &[u8] = &[9, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];
/// Types of signatures (section 5.2.1).
const BINARY: u8 = 0x00;
const TEXT: u8 = 0x01;
const CERTIFICATIONS: std::ops::RangeInclusive<u8> = 0x10..=0x13;
const SUBKEY_BINDING: u8 = 0x18;
const REVOCATIONS: [u8; 2] = [0x20, 0x28];
/// The flag of keys that sign.
const SIGNS: u8 = 0x02;
/// Signatures of one text that are looked at; Debian has three.
const MAX_SIGNATURES: usize = 32;

/// A key that may sign.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    fingerprint: [u8; 20],
    numbers: Numbers,
    /// Seconds since 1970.
    created: u64,
    /// Seconds since 1970; `None` for ever.
    expires: Option<u64>,
    signs: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Numbers {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ed25519([u8; 32]),
}

/// Keys that are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keyring(Vec<Key>);

impl Keyring {
    /// Reads a binary keyring: certificates one after the other. `None` when it is damaged.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut keys: Vec<Key> = Vec::new();
        // Whether the last key packet was one that is understood.
        let mut known = false;
        let mut primary = None;
        let mut rest = Reader(bytes);
        while !rest.0.is_empty() {
            let (tag, body) = rest.packet()?;
            match tag {
                PUBLIC_KEY | PUBLIC_SUBKEY => {
                    let key = Key::parse(body);
                    known = key.is_some();
                    if tag == PUBLIC_KEY {
                        primary.clone_from(&key);
                    }
                    keys.extend(key);
                }
                SIGNATURE if known => {
                    let (Some(key), Some(signature)) = (keys.last_mut(), Signature::parse(body))
                    else {
                        continue;
                    };
                    // Others have their say on who somebody is, not on a key's use.
                    if !primary.as_ref().is_some_and(|primary| signature.is_by(primary)) {
                        continue;
                    }
                    if CERTIFICATIONS.contains(&signature.kind) || signature.kind == SUBKEY_BINDING
                    {
                        key.expires = signature.lives.map(|seconds| key.created + seconds);
                        key.signs = signature.flags & SIGNS != 0;
                    } else if REVOCATIONS.contains(&signature.kind) {
                        keys.pop();
                        known = false;
                        // Without its first key a certificate's others are nobody's.
                        primary = primary.filter(|_| signature.kind == REVOCATIONS[1]);
                    }
                }
                _ => {}
            }
        }
        Some(Self(keys))
    }

    /// Checks that one of the keys signed a text, now being `now` in seconds since 1970. Of
    /// several signatures those by unknown keys do not count, and none by a known key may be
    /// wrong.
    ///
    /// # Errors
    ///
    /// Why nothing is to be believed.
    pub fn check(&self, text: &str, armoured: &str, now: u64) -> Result<(), String> {
        let bytes = armour(armoured).ok_or("the signature's armour is damaged")?;
        let mut good = false;
        let mut unknown = Vec::new();
        let mut rest = Reader(&bytes);
        for _ in 0..MAX_SIGNATURES {
            if rest.0.is_empty() {
                break;
            }
            let (tag, body) = rest.packet().ok_or("the signature is damaged")?;
            if tag != SIGNATURE {
                return Err("something other than signatures is among the signatures".to_owned());
            }
            let Some(signature) = Signature::parse(body) else { continue };
            let Some(key) = self.0.iter().find(|key| signature.is_by(key)) else {
                unknown.push(signature.issuer_hex());
                continue;
            };
            signature.check(key, text, now)?;
            good = true;
        }
        match (good, unknown.is_empty()) {
            (true, _) => Ok(()),
            (false, false) => Err(format!("it is by unknown keys: {}", unknown.join(", "))),
            (false, true) => Err("it has no signature that is understood".to_owned()),
        }
    }
}

impl Key {
    fn parse(body: &[u8]) -> Option<Self> {
        let mut hashed = vec![0x99];
        hashed.extend(u16::try_from(body.len()).ok()?.to_be_bytes());
        hashed.extend(body);
        let fingerprint = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &hashed);
        let mut body = Reader(body);
        if body.byte()? != 4 {
            return None;
        }
        let created = body.number()?;
        let numbers = match body.byte()? {
            RSA => Numbers::Rsa { n: body.integer()?.to_vec(), e: body.integer()?.to_vec() },
            EDDSA_LEGACY => {
                (body.take(ED25519_LEGACY_CURVE.len())? == ED25519_LEGACY_CURVE).then_some(())?;
                let point = body.integer()?.strip_prefix(&[0x40])?;
                Numbers::Ed25519(point.try_into().ok()?)
            }
            ED25519 => Numbers::Ed25519(body.take(32)?.try_into().ok()?),
            _ => return None,
        };
        let fingerprint = fingerprint.as_ref().try_into().ok()?;
        Some(Self { fingerprint, numbers, created, expires: None, signs: false })
    }
}

/// A signature of version 4 without unknown critical parts.
#[derive(Debug)]
struct Signature<'a> {
    kind: u8,
    algorithm: u8,
    hash: u8,
    /// What of it is signed: all up to the hashed subpackets.
    signed: &'a [u8],
    /// The first bytes of the hash.
    hint: [u8; 2],
    numbers: &'a [u8],
    /// Of its issuer: the last eight bytes of the fingerprint, or all of it.
    issuer: Option<&'a [u8]>,
    /// Seconds since 1970.
    created: Option<u64>,
    /// Seconds it holds from then on.
    holds: Option<u64>,
    /// Seconds that the key it is about may be used, from the key's creation on.
    lives: Option<u64>,
    /// What the key may be used for.
    flags: u8,
}

impl<'a> Signature<'a> {
    fn parse(body: &'a [u8]) -> Option<Self> {
        let mut rest = Reader(body);
        (rest.byte()? == 4).then_some(())?;
        let (kind, algorithm, hash) = (rest.byte()?, rest.byte()?, rest.byte()?);
        let length = usize::from(rest.short()?);
        let hashed = rest.take(length)?;
        let signed = &body[..6 + length];
        let length = usize::from(rest.short()?);
        let unhashed = rest.take(length)?;
        let hint = rest.take(2)?.try_into().ok()?;
        let numbers = rest.0;
        let mut signature = Self {
            kind,
            algorithm,
            hash,
            signed,
            hint,
            numbers,
            issuer: None,
            created: None,
            holds: None,
            lives: None,
            flags: 0,
        };
        let mut rest = Reader(hashed);
        while !rest.0.is_empty() {
            let (kind, critical, value) = rest.subpacket()?;
            signature.learn(kind, critical, value)?;
        }
        // What is not signed may only say where to look for the key.
        let mut rest = Reader(unhashed);
        while !rest.0.is_empty() {
            let (kind, _, value) = rest.subpacket()?;
            if kind == 16 && signature.issuer.is_none() {
                signature.issuer = Some(value);
            }
        }
        Some(signature)
    }

    /// Takes a signed subpacket in (section 5.2.3.7). `None` for one that must be understood,
    /// and is not.
    fn learn(&mut self, kind: u8, critical: bool, value: &'a [u8]) -> Option<()> {
        let seconds = || Some(u64::from(u32::from_be_bytes(value.try_into().ok()?)));
        match kind {
            2 => self.created = Some(seconds()?),
            3 => self.holds = Some(seconds()?).filter(|seconds| *seconds > 0),
            9 => self.lives = Some(seconds()?).filter(|seconds| *seconds > 0),
            27 => self.flags = *value.first()?,
            33 if value.first() == Some(&4) => self.issuer = Some(value.get(1..21)?),
            // Preferences and features, which matter to those who write.
            11 | 21 | 22 | 23 | 25 | 30 | 34 => {}
            _ if critical => return None,
            _ => {}
        }
        Some(())
    }

    fn is_by(&self, key: &Key) -> bool {
        self.issuer.is_some_and(|issuer| match issuer.len() {
            8 => key.fingerprint[12..] == *issuer,
            _ => key.fingerprint == *issuer,
        })
    }

    fn issuer_hex(&self) -> String {
        let issuer = self.issuer.unwrap_or_default().iter();
        issuer.fold(String::new(), |text, byte| format!("{text}{byte:02X}"))
    }

    /// Checks that `key` made it of `text`.
    fn check(&self, key: &Key, text: &str, now: u64) -> Result<(), String> {
        let fail = |reason: &str| Err(format!("{reason} (key {})", self.issuer_hex()));
        let Some(created) = self.created else { return fail("it does not say when it was made") };
        if !key.signs {
            return fail("the key is not one for signatures");
        }
        if created < key.created {
            return fail("it is older than the key");
        }
        if key.expires.is_some_and(|until| now >= until || created >= until) {
            return fail("the key has expired; a newer Silo knows newer keys");
        }
        if self.holds.is_some_and(|seconds| now >= created + seconds) {
            return fail("it has expired");
        }
        let mut message = match self.kind {
            BINARY => text.as_bytes().to_vec(),
            TEXT => text.replace('\n', "\r\n").into_bytes(),
            _ => return fail("it is no signature of a text"),
        };
        message.extend(self.signed);
        message.extend([4, 0xff]);
        let Ok(length) = u32::try_from(self.signed.len()) else { return fail("it is too long") };
        message.extend(length.to_be_bytes());
        match self.verify(key, &message) {
            Some(true) => Ok(()),
            Some(false) => fail("it is of another text"),
            None => fail("it is of a kind that is not believed"),
        }
    }

    /// Whether the numbers are right; `None` for unknown algorithms.
    fn verify(&self, key: &Key, message: &[u8]) -> Option<bool> {
        let (hash, rsa) = match self.hash {
            8 => (&digest::SHA256, &arithmetic::RSA_PKCS1_2048_8192_SHA256),
            9 => (&digest::SHA384, &arithmetic::RSA_PKCS1_2048_8192_SHA384),
            10 => (&digest::SHA512, &arithmetic::RSA_PKCS1_2048_8192_SHA512),
            _ => return None,
        };
        let sum = digest::digest(hash, message);
        if sum.as_ref()[..2] != self.hint {
            return Some(false);
        }
        let mut numbers = Reader(self.numbers);
        match (&key.numbers, self.algorithm) {
            (Numbers::Rsa { n, e }, RSA) => {
                // Numbers are written without zeros in front.
                let Some(number) = padded(numbers.integer()?, n.len()) else { return Some(false) };
                Some(RsaPublicKeyComponents { n, e }.verify(rsa, message, &number).is_ok())
            }
            (Numbers::Ed25519(point), EDDSA_LEGACY | ED25519) => {
                let signature = if self.algorithm == ED25519 {
                    numbers.take(64)?.to_vec()
                } else {
                    let (r, s) = (padded(numbers.integer()?, 32), padded(numbers.integer()?, 32));
                    let (Some(r), Some(s)) = (r, s) else { return Some(false) };
                    [r, s].concat()
                };
                let key = UnparsedPublicKey::new(&arithmetic::ED25519, point);
                Some(key.verify(sum.as_ref(), &signature).is_ok())
            }
            _ => None,
        }
    }
}

/// A number with zeros in front, up to a length.
fn padded(number: &[u8], length: usize) -> Option<Vec<u8>> {
    let zeros = length.checked_sub(number.len())?;
    let mut padded = vec![0; zeros];
    padded.extend(number);
    Some(padded)
}

/// Takes the armour off (section 6.2). Its checksum, which is optional, is not looked at.
fn armour(text: &str) -> Option<Vec<u8>> {
    let mut lines = text.lines();
    (lines.next()? == "-----BEGIN PGP SIGNATURE-----").then_some(())?;
    // Headers end with an empty line.
    lines.by_ref().find(|line| line.trim().is_empty())?;
    let mut base64 = String::new();
    for line in lines {
        match line {
            "-----END PGP SIGNATURE-----" => return STANDARD.decode(base64).ok(),
            line if line.starts_with('=') => {}
            line => base64.push_str(line.trim_end()),
        }
    }
    None
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn short(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn number(&mut self) -> Option<u64> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?).into())
    }

    /// A number of any length (section 3.2), without its length.
    fn integer(&mut self) -> Option<&'a [u8]> {
        let bits = usize::from(self.short()?);
        self.take(bits.div_ceil(8))
    }

    /// A packet's tag and body (section 4.2). Bodies of unknown length are not for signatures.
    fn packet(&mut self) -> Option<(u8, &'a [u8])> {
        let head = self.byte()?;
        let (tag, length) = match head {
            0xc0.. => (head & 0x3f, self.length(224)?),
            0x80.. => {
                let length = match head & 3 {
                    0 => self.byte()?.into(),
                    1 => self.short()?.into(),
                    2 => usize::try_from(self.number()?).ok()?,
                    _ => return None,
                };
                (head >> 2 & 0xf, length)
            }
            _ => return None,
        };
        Some((tag, self.take(length)?))
    }

    /// A length of one, two or five bytes; first bytes from `partial` to 254 have another
    /// meaning in packets, but not in subpackets.
    fn length(&mut self, partial: u8) -> Option<usize> {
        Some(match self.byte()? {
            255 => usize::try_from(self.number()?).ok()?,
            first if first >= partial => return None,
            first @ 192.. => ((usize::from(first) - 192) << 8) + usize::from(self.byte()?) + 192,
            first => first.into(),
        })
    }

    /// A subpacket's kind, whether it must be understood, and its value (section 5.2.3.7).
    fn subpacket(&mut self) -> Option<(u8, bool, &'a [u8])> {
        let length = self.length(255)?;
        let (kind, value) = self.take(length)?.split_first()?;
        Some((kind & 0x7f, kind & 0x80 != 0, value))
    }
}

#[cfg(test)]
pub(super) mod signer;
#[cfg(test)]
mod tests;

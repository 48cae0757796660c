//! Signs texts, for tests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::{ED25519, Key, Keyring, Numbers, SIGNATURE, TEXT};

/// A key that signs.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    key: Key,
}

impl Signer {
    /// One of 256 keys.
    pub(crate) fn new(number: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap();
        let point = pair.public_key().as_ref().try_into().unwrap();
        let key = Key {
            fingerprint: [number; 20],
            numbers: Numbers::Ed25519(point),
            created: 0,
            expires: None,
            signs: true,
        };
        Self { pair, key }
    }

    /// The keyring of this key.
    pub(crate) fn keyring(&self) -> Keyring {
        Keyring(vec![self.key.clone()])
    }

    /// A clearsigned text. It must not end in a newline, nor have lines to be escaped.
    pub(crate) fn clearsigned(&self, text: &str) -> String {
        let mut signed = vec![4, TEXT, ED25519, 8, 0, 29, 5, 2, 0, 0, 0, 9, 22, 33, 4];
        signed.extend(self.key.fingerprint);
        let mut message = text.replace('\n', "\r\n").into_bytes();
        message.extend(&signed);
        message.extend([4, 0xff, 0, 0, 0, u8::try_from(signed.len()).unwrap()]);
        let sum = digest::digest(&digest::SHA256, &message);
        let mut body = signed;
        body.extend([0, 0]);
        body.extend(&sum.as_ref()[..2]);
        body.extend(self.pair.sign(sum.as_ref()).as_ref());
        let mut packet = vec![0xc0 | SIGNATURE, u8::try_from(body.len()).unwrap()];
        packet.extend(body);
        format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{text}\n\
             -----BEGIN PGP SIGNATURE-----\n\n{}\n-----END PGP SIGNATURE-----\n",
            STANDARD.encode(packet)
        )
    }
}

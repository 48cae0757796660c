//! Clearsigned text (RFC 9580, section 7), taken apart: what is checked afterwards is exactly the
//! text that is then parsed, so nothing outside the signed part can ever be believed.

const BEGIN_MESSAGE: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const BEGIN_SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END_SIGNATURE: &str = "-----END PGP SIGNATURE-----";

/// A clearsigned file taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Clearsigned {
    /// The signed text, lines ended by a newline but for the last.
    pub text: String,
    /// The signature, armoured.
    pub signature: String,
}

/// Takes a clearsigned file apart. There must be one message, and nothing before or after it.
pub fn split(file: &str) -> Result<Clearsigned, &'static str> {
    let mut lines = file.lines();
    if lines.next() != Some(BEGIN_MESSAGE) {
        return Err("it does not begin with a signed message");
    }
    loop {
        match lines.next() {
            Some("") => break,
            Some(line) if line.starts_with("Hash: ") => {}
            _ => return Err("its armour has unknown headers"),
        }
    }
    let mut text = String::with_capacity(file.len());
    let mut first = true;
    loop {
        let line = match lines.next() {
            Some(BEGIN_SIGNATURE) => break,
            Some(line) => line,
            None => return Err("it has no signature"),
        };
        let line = match line.strip_prefix("- ") {
            Some(line) => line,
            None if line.starts_with('-') => return Err("a line of it should be escaped"),
            None => line,
        };
        if line.ends_with([' ', '\t', '\r']) {
            return Err("a line of it ends in space, which signatures do not cover");
        }
        if !first {
            text.push('\n');
        }
        first = false;
        text.push_str(line);
    }
    let mut signature = format!("{BEGIN_SIGNATURE}\n");
    loop {
        let Some(line) = lines.next() else { return Err("its signature is cut off") };
        signature.push_str(line);
        signature.push('\n');
        if line == END_SIGNATURE {
            break;
        }
    }
    if lines.any(|line| !line.is_empty()) {
        return Err("something follows its signature");
    }
    Ok(Clearsigned { text, signature })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nOrigin: Debian\n- -x\n-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n";

    #[test]
    fn a_message_is_taken_apart() {
        let parts = split(MESSAGE).unwrap();
        assert_eq!(parts.text, "Origin: Debian\n-x");
        assert!(parts.signature.starts_with(BEGIN_SIGNATURE));
        assert!(parts.signature.ends_with("-----END PGP SIGNATURE-----\n"));
    }

    #[test]
    fn what_could_be_taken_in_two_ways_is_refused() {
        let cases = [
            format!("x\n{MESSAGE}"),
            format!("{MESSAGE}Origin: Evil\n"),
            MESSAGE.replace("Hash: SHA512", "Origin: Evil"),
            MESSAGE.replace("Origin: Debian", "Origin: Debian "),
            MESSAGE.replace("- -x", "-x"),
            MESSAGE.replace("-----BEGIN PGP SIGNATURE-----", ""),
            MESSAGE.replace("-----END PGP SIGNATURE-----", ""),
            String::new(),
        ];
        for case in cases {
            assert!(split(&case).is_err(), "{case}");
        }
    }
}

//! Clearsigned text (RFC 9580, section 7): taken apart here, checked by `gpgv` or `sqv`.
//!
//! The verifier is given exactly the text that is parsed afterwards, and a detached signature:
//! so nothing outside the signed part can ever be believed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_err as fs;

use super::Error;

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

/// Checks signatures with a program of the host.
#[derive(Debug)]
pub struct Verifier {
    program: PathBuf,
    sequoia: bool,
}

impl Verifier {
    /// The verifier of this host: `gpgv`, or else `sqv`.
    pub fn find() -> Result<Self, Error> {
        let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
        for (name, sequoia) in [("gpgv", false), ("gpgv2", false), ("sqv", true)] {
            for directory in std::env::split_paths(&path).filter(|path| path.is_absolute()) {
                let program = directory.join(name);
                if program.is_file() {
                    return Ok(Self { program, sequoia });
                }
            }
        }
        Err(Error::NoVerifier)
    }

    /// Checks that a key of the `keyring` signed the text of `path`, which only names it in
    /// errors. Other signatures beside it may be by unknown keys. `scratch` is a private
    /// directory.
    pub fn check(
        &self,
        path: &str,
        signed: &Clearsigned,
        keyring: &[u8],
        scratch: &Path,
    ) -> Result<(), Error> {
        let write = |name: &str, bytes: &[u8]| {
            let file = scratch.join(name);
            fs::write(&file, bytes)
                .map(|()| file)
                .map_err(|error| Error::File("cannot write what is to be verified", error))
        };
        let keyring = write("keyring.gpg", keyring)?;
        let text = write("signed.txt", signed.text.as_bytes())?;
        let signature = write("signature.asc", signed.signature.as_bytes())?;
        let mut command = Command::new(&self.program);
        if !self.sequoia {
            // An empty home: the user's configuration and keys have no say.
            command.args(["--status-fd", "1", "--homedir"]).arg(scratch);
        }
        command.arg("--keyring").arg(keyring).arg(signature).arg(text);
        let output = command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Error::File("cannot run the signature verifier", error))?;
        let holds = if self.sequoia {
            output.status.success()
        } else {
            gpgv_says_good(&String::from_utf8_lossy(&output.stdout))
        };
        if holds {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let reason: Vec<&str> = said.lines().filter(|line| !line.is_empty()).take(8).collect();
        Err(Error::Signature { path: path.to_owned(), reason: reason.join("; ") })
    }
}

/// Reads gpgv's status lines: a good signature by a known key, and none that is bad. gpgv's exit
/// status also tells of unknown keys, with which Debian signs too.
fn gpgv_says_good(status: &str) -> bool {
    let mut good = false;
    let mut valid = false;
    for line in status.lines() {
        let mut words = line.split(' ');
        if words.next() != Some("[GNUPG:]") {
            continue;
        }
        match words.next() {
            Some("GOODSIG") => good = true,
            Some("VALIDSIG") => valid = true,
            Some("BADSIG") => return false,
            _ => {}
        }
    }
    good && valid
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

    #[test]
    fn the_status_of_gpgv_is_understood() {
        let good = "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG A x\n[GNUPG:] VALIDSIG B\n";
        let cases = [
            (good.to_owned(), true),
            (format!("[GNUPG:] ERRSIG C\n[GNUPG:] NO_PUBKEY C\n{good}"), true),
            (format!("{good}[GNUPG:] BADSIG D x\n"), false),
            (good.replace("GOODSIG", "EXPKEYSIG"), false),
            (good.replace("[GNUPG:]", "gpgv:"), false),
            (String::new(), false),
        ];
        for (status, expected) in cases {
            assert_eq!(gpgv_says_good(&status), expected, "{status}");
        }
    }

    #[test]
    fn an_unknown_signer_is_refused() {
        let Ok(verifier) = Verifier::find() else { return };
        let scratch = tempfile::tempdir().unwrap();
        let keyring = super::super::keys::keyring(&super::super::keys::DEBIAN_13).unwrap();
        let parts = split(MESSAGE).unwrap();
        let error = verifier.check("InRelease", &parts, &keyring, scratch.path()).unwrap_err();
        assert!(matches!(error, Error::Signature { .. }), "{error}");
    }
}

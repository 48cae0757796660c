//! Detach keys: the sequence that ends an attached session and leaves the container running.

use silo_types::Error;

/// `ctrl-p,ctrl-q`: what Docker listens for when nothing else was asked.
pub(crate) const DEFAULT: &[u8] = &[16, 17];

/// Reads `ctrl-a,b,ctrl-[`: single characters and `ctrl-` with a letter or one of `@[\]^_`.
///
/// An empty text means [`DEFAULT`].
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, Error> {
    if text.is_empty() {
        return Ok(DEFAULT.to_vec());
    }
    // docker wording
    let invalid = || Error::invalid(format!("Invalid detach keys ({text}) provided"));
    text.split(',')
        .map(|key| match key.as_bytes() {
            [byte] => Ok(*byte),
            [b'c', b't', b'r', b'l', b'-', byte] => match byte {
                b'a'..=b'z' => Ok(byte - b'a' + 1),
                b'@' => Ok(0),
                b'[' => Ok(27),
                b'\\' => Ok(28),
                b']' => Ok(29),
                b'^' => Ok(30),
                b'_' => Ok(31),
                _ => Err(invalid()),
            },
            _ => Err(invalid()),
        })
        .collect()
}

/// Watches one client's input for the detach keys.
#[derive(Debug)]
pub(crate) struct Watch {
    keys: Vec<u8>,
    matched: usize,
}

impl Watch {
    /// Watches for `keys`; an empty sequence never matches.
    pub(crate) fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Appends to `out` what of `input` is for the process, and says whether the sequence ended.
    ///
    /// Keys that may begin the sequence are held back until the next one shows that they do not.
    /// What follows a complete sequence is dropped.
    pub(crate) fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            out.extend_from_slice(input);
            return false;
        }
        for &byte in input {
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return true;
                }
                continue;
            }
            if self.matched > 0 {
                out.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
                if byte == self.keys[0] {
                    self.matched = 1;
                    continue;
                }
            }
            out.push(byte);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sequences() {
        assert_eq!(parse("").unwrap(), DEFAULT);
        assert_eq!(parse("ctrl-a,a").unwrap(), [1, b'a']);
        assert_eq!(parse("ctrl-@,ctrl-[,ctrl-_").unwrap(), [0, 27, 31]);
        for bad in ["ctrl-", "ctrl-A", "ab", "ctrl-1", ",", "a,,b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn finds_the_sequence_across_reads_and_passes_the_rest() {
        let run = |chunks: &[&[u8]]| {
            let mut watch = Watch::new(DEFAULT.to_vec());
            let mut out = Vec::new();
            let ended = chunks.iter().any(|chunk| watch.feed(chunk, &mut out));
            (out, ended)
        };
        assert_eq!(run(&[b"abc"]), (b"abc".to_vec(), false));
        assert_eq!(run(&[b"a\x10", b"\x11b"]), (b"a".to_vec(), true));
        assert_eq!(run(&[b"a\x10b"]), (b"a\x10b".to_vec(), false));
        assert_eq!(run(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
    }
}

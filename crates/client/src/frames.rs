//! Docker's multiplexed output: frames of eight bytes of header (the stream's number, three
//! zeros, the length as a big-endian number) and the payload.

use bytes::{Buf, Bytes, BytesMut};

/// Which stream a frame is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Input, which engines only send by mistake; it goes where output goes.
    Stdin,
    /// Output.
    Stdout,
    /// Errors.
    Stderr,
    /// A failure of the engine, as text.
    System,
}

/// Takes frames out of bytes as they come. Payloads are handed on in pieces, so that memory
/// stays bounded whatever length a frame claims.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
    current: Option<(Channel, usize)>,
}

impl Frames {
    /// Adds bytes that have come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece. `Ok(None)` when more bytes are needed; the error is a header that is none.
    pub fn next_piece(&mut self) -> Result<Option<(Channel, Bytes)>, u8> {
        loop {
            if let Some((channel, left)) = self.current {
                if left == 0 {
                    self.current = None;
                    continue;
                }
                let length = left.min(self.buffer.len());
                if length == 0 {
                    return Ok(None);
                }
                self.current = Some((channel, left - length));
                return Ok(Some((channel, self.buffer.split_to(length).freeze())));
            }
            if self.buffer.len() < 8 {
                return Ok(None);
            }
            let channel = match self.buffer[0] {
                0 => Channel::Stdin,
                1 => Channel::Stdout,
                2 => Channel::Stderr,
                3 => Channel::System,
                other => return Err(other),
            };
            self.buffer.advance(4);
            self.current = Some((channel, self.buffer.get_u32() as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_any_pieces() {
        let mut wire = Vec::new();
        for (stream, text) in [(1u8, "hello"), (2, ""), (2, "err"), (1, "x")] {
            wire.extend([stream, 0, 0, 0]);
            wire.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            wire.extend(text.as_bytes());
        }
        for size in 1..wire.len() {
            let mut frames = Frames::default();
            let (mut out, mut err) = (String::new(), String::new());
            for piece in wire.chunks(size) {
                frames.push(piece);
                while let Some((channel, bytes)) = frames.next_piece().unwrap() {
                    let text = std::str::from_utf8(&bytes).unwrap();
                    if channel == Channel::Stdout { out += text } else { err += text }
                }
            }
            assert_eq!((out.as_str(), err.as_str()), ("hellox", "err"), "{size}");
        }
    }

    #[test]
    fn unknown_stream() {
        let mut frames = Frames::default();
        frames.push(b"HTTP/1.1");
        assert_eq!(frames.next_piece(), Err(b'H'));
    }
}

//! Whiteouts of layers, by name (OCI image specification, "Whiteouts").

/// What a name says about the layers beneath.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteout<'a> {
    /// Nothing: an ordinary name.
    None,
    /// The entry of this name does not exist any more.
    Remove(&'a [u8]),
    /// Nothing that they have in this directory exists any more.
    Opaque,
    /// Bookkeeping of AUFS, without meaning for anybody else.
    Metadata,
    /// A whiteout of nothing, `.`, `..` or of something with a slash: an attack.
    Invalid,
}

/// Start of the name of a whiteout.
pub const PREFIX: &[u8] = b".wh.";
/// Name that makes a directory opaque.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// Reads the last component of a path.
pub fn parse(name: &[u8]) -> Whiteout<'_> {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return Whiteout::None;
    };
    if name == OPAQUE {
        return Whiteout::Opaque;
    }
    match rest {
        b"" | b"." | b".." => Whiteout::Invalid,
        _ if rest.contains(&b'/') || rest.contains(&0) => Whiteout::Invalid,
        _ if rest.starts_with(PREFIX) => Whiteout::Metadata,
        _ => Whiteout::Remove(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, want) in [
            (&b"a"[..], Whiteout::None),
            (b".wh", Whiteout::None),
            (b".wh.a", Whiteout::Remove(b"a")),
            (b".wh..a", Whiteout::Remove(b".a")),
            (b".wh...a", Whiteout::Remove(b"..a")),
            (b".wh..wh..opq", Whiteout::Opaque),
            (b".wh..wh.plnk", Whiteout::Metadata),
            (b".wh..wh..opq2", Whiteout::Metadata),
            (b".wh.", Whiteout::Invalid),
            (b".wh..", Whiteout::Invalid),
            (b".wh...", Whiteout::Invalid),
            (b".wh.a/b", Whiteout::Invalid),
        ] {
            assert_eq!(parse(name), want, "{}", String::from_utf8_lossy(name));
        }
    }
}

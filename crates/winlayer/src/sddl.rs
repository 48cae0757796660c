//! Security descriptors as text (`[MS-DTYP]` 2.5.1), both ways.
//!
//! Text is as Windows writes it: rights by name where a name stands for exactly the mask,
//! then by the letters of directory rights if those cover it, then as a hexadecimal number.
//! Conditions and resource attributes have no text here.

use std::fmt::Write as _;

use crate::descriptor::{
    Ace, AceBody, Acl, AclField, ObjectTypes, SecurityDescriptor, ace_type, control,
};
use crate::sid::Sid;

/// The longest text in bytes.
pub const MAX_TEXT: usize = 256 << 10;
/// The most entries of a list: as many as fit.
const MAX_ACES: usize = 4000;

/// Why a text is no descriptor, or a descriptor has no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too long a text, or too many entries.
    #[error("too long")]
    Length,
    /// Something else was expected.
    #[error("not valid at byte {at}: expected {expected}")]
    Syntax {
        /// Where, in bytes.
        at: usize,
        /// What there should be.
        expected: &'static str,
    },
    /// A part that has no text.
    #[error("an entry of type {0} has no text here")]
    Unsupported(u8),
}

const KINDS: &[(&str, u8)] = &[
    ("A", ace_type::ALLOW),
    ("D", ace_type::DENY),
    ("AU", ace_type::AUDIT),
    ("AL", ace_type::ALARM),
    ("OA", 5),
    ("OD", 6),
    ("OU", 7),
    ("OL", 8),
    ("ML", ace_type::LABEL),
    ("SP", ace_type::POLICY),
    ("TL", ace_type::TRUST),
];

const FLAGS: &[(&str, u8)] = &[
    ("OI", 0x1),
    ("CI", 0x2),
    ("NP", 0x4),
    ("IO", 0x8),
    ("ID", 0x10),
    ("CR", 0x20),
    ("SA", 0x40),
    ("FA", 0x80),
];

/// Rights that stand for a mask as a whole.
const WHOLE: &[(&str, u32)] = &[
    ("FA", 0x1f_01ff),
    ("FR", 0x12_0089),
    ("FW", 0x12_0116),
    ("FX", 0x12_00a0),
    ("KA", 0xf_003f),
    ("KR", 0x2_0019),
    ("KW", 0x2_0006),
];

/// Rights of one bit, in the order in which Windows writes them.
const BITS: &[(&str, u32)] = &[
    ("CC", 0x1),
    ("DC", 0x2),
    ("LC", 0x4),
    ("SW", 0x8),
    ("RP", 0x10),
    ("WP", 0x20),
    ("DT", 0x40),
    ("LO", 0x80),
    ("CR", 0x100),
    ("SD", 0x1_0000),
    ("RC", 0x2_0000),
    ("WD", 0x4_0000),
    ("WO", 0x8_0000),
    ("GA", 0x1000_0000),
    ("GX", 0x2000_0000),
    ("GW", 0x4000_0000),
    ("GR", 0x8000_0000),
];

/// Rights of integrity labels.
const LABEL: &[(&str, u32)] = &[("NW", 0x1), ("NR", 0x2), ("NX", 0x4)];

const NULL: &str = "NO_ACCESS_CONTROL";

/// Writes a descriptor as text.
pub fn format(descriptor: &SecurityDescriptor) -> Result<String, Error> {
    let mut out = String::new();
    if let Some(owner) = &descriptor.owner {
        out.push_str("O:");
        push_sid(&mut out, owner);
    }
    if let Some(group) = &descriptor.group {
        out.push_str("G:");
        push_sid(&mut out, group);
    }
    for (tag, list, shift) in [("D:", &descriptor.dacl, 0), ("S:", &descriptor.sacl, 1)] {
        let list = match list {
            AclField::Absent => continue,
            AclField::Null => None,
            AclField::List(list) => Some(list),
        };
        out.push_str(tag);
        for (text, bit) in LIST_FLAGS {
            if descriptor.control & (bit << shift) != 0 {
                out.push_str(text);
            }
        }
        match list {
            None => out.push_str(NULL),
            Some(list) => list.aces.iter().try_for_each(|ace| push_ace(&mut out, ace))?,
        }
    }
    Ok(out)
}

/// Flags of a DACL; those of a SACL are one bit higher.
const LIST_FLAGS: [(&str, u16); 3] = [
    ("P", control::DACL_PROTECTED),
    ("AR", control::DACL_AUTO_INHERIT_REQ),
    ("AI", control::DACL_AUTO_INHERITED),
];

fn push_sid(out: &mut String, sid: &Sid) {
    match sid.alias() {
        Some(alias) => out.push_str(alias),
        None => push(out, format_args!("{sid}")),
    }
}

/// Appends; strings never fail.
fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "strings take everything");
}

fn push_ace(out: &mut String, ace: &Ace) -> Result<(), Error> {
    let kind = KINDS.iter().find(|(_, kind)| *kind == ace.kind);
    let (Some((name, _)), AceBody::Known { mask, object, sid, data }) = (kind, &ace.body) else {
        return Err(Error::Unsupported(ace.kind));
    };
    if !data.is_empty() {
        return Err(Error::Unsupported(ace.kind));
    }
    push(out, format_args!("({name};"));
    for (flag, bit) in FLAGS {
        if ace.flags & bit != 0 {
            out.push_str(flag);
        }
    }
    out.push(';');
    push_rights(out, *mask, ace.kind == ace_type::LABEL);
    let types = object.unwrap_or_default();
    for guid in [types.object, types.inherited] {
        out.push(';');
        if let Some(guid) = guid {
            push_guid(out, &guid);
        }
    }
    out.push(';');
    push_sid(out, sid);
    out.push(')');
    Ok(())
}

fn push_rights(out: &mut String, mask: u32, label: bool) {
    let whole = WHOLE.iter().find(|(_, whole)| *whole == mask).filter(|_| !label);
    if let Some((name, _)) = whole {
        out.push_str(name);
        return;
    }
    let bits = if label { LABEL } else { BITS };
    let known = bits.iter().fold(0, |all, (_, bit)| all | bit);
    if mask & !known != 0 || mask == 0 {
        push(out, format_args!("0x{mask:x}"));
        return;
    }
    for (name, bit) in bits {
        if mask & bit != 0 {
            out.push_str(name);
        }
    }
}

fn push_guid(out: &mut String, guid: &[u8; 16]) {
    let order = [3, 2, 1, 0, 16, 5, 4, 16, 7, 6, 16, 8, 9, 16, 10, 11, 12, 13, 14, 15];
    for at in order {
        match guid.get(at) {
            Some(byte) => push(out, format_args!("{byte:02x}")),
            None => out.push('-'),
        }
    }
}

fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    let dashes = [8, 13, 18, 23];
    if bytes.len() != 36 || !dashes.iter().all(|at| bytes[*at] == b'-') {
        return None;
    }
    let hex: Vec<u8> = bytes
        .iter()
        .enumerate()
        .filter(|(at, _)| !dashes.contains(at))
        .map(|(_, byte)| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let flat: Vec<u8> = hex.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect();
    let mut guid = [0; 16];
    for (to, from) in [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].iter().zip(flat) {
        guid[*to] = from;
    }
    Some(guid)
}

/// Reads a text.
pub fn parse(text: &str) -> Result<SecurityDescriptor, Error> {
    if text.len() > MAX_TEXT {
        return Err(Error::Length);
    }
    let mut parser = Parser { text, at: 0 };
    let mut found =
        SecurityDescriptor { control: control::SELF_RELATIVE, ..SecurityDescriptor::default() };
    let mut seen = [false; 4];
    loop {
        parser.blanks();
        let Some(tag) = parser.rest().chars().next() else {
            return Ok(found);
        };
        let index = "OGDS".find(tag).filter(|index| !seen[*index]);
        let index = index.ok_or(parser.expected("O:, G:, D: or S:, each once"))?;
        seen[index] = true;
        parser.at += 1;
        parser.take(":", "a colon")?;
        match tag {
            'O' => found.owner = Some(parser.sid()?),
            'G' => found.group = Some(parser.sid()?),
            'D' => found.dacl = parser.list(&mut found.control, 0)?,
            _ => found.sacl = parser.list(&mut found.control, 1)?,
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn expected(&self, expected: &'static str) -> Error {
        Error::Syntax { at: self.at, expected }
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn take(&mut self, token: &'static str, expected: &'static str) -> Result<(), Error> {
        if self.eat(token) { Ok(()) } else { Err(self.expected(expected)) }
    }

    /// An identifier, as far as it goes.
    fn sid(&mut self) -> Result<Sid, Error> {
        self.blanks();
        let rest = self.rest();
        let is_numeric = rest.starts_with("S-1-") || rest.starts_with("s-1-");
        let (sid, length) = if is_numeric {
            let part = |letter: char| letter.is_ascii_hexdigit() || "-xX".contains(letter);
            let end = rest[1..].find(|letter| !part(letter)).map_or(rest.len(), |end| end + 1);
            // The D of what follows an owner looks like a digit.
            let end = if rest[end..].starts_with(':') { end - 1 } else { end };
            (rest[..end].parse().ok(), end)
        } else {
            (rest.get(..2).and_then(Sid::from_alias), 2)
        };
        let sid = sid.ok_or(self.expected("a security identifier"))?;
        self.at += length;
        Ok(sid)
    }

    fn list(&mut self, control: &mut u16, shift: u32) -> Result<AclField, Error> {
        self.blanks();
        if self.eat(NULL) {
            return Ok(AclField::Null);
        }
        while let Some((text, bit)) =
            LIST_FLAGS.iter().find(|(text, _)| self.rest().starts_with(text))
        {
            self.at += text.len();
            *control |= bit << shift;
        }
        if self.eat(NULL) {
            return Ok(AclField::Null);
        }
        let mut aces = Vec::new();
        loop {
            self.blanks();
            if !self.eat("(") {
                break;
            }
            if aces.len() >= MAX_ACES {
                return Err(Error::Length);
            }
            aces.push(self.ace()?);
        }
        let objects = aces.iter().any(|ace| (5..=8).contains(&ace.kind));
        let size: usize = aces.iter().map(size).sum();
        if size > usize::from(u16::MAX) - 8 {
            return Err(Error::Length);
        }
        Ok(AclField::List(Acl { revision: if objects { 4 } else { 2 }, aces }))
    }

    /// A field of an entry, without the sign that ends it.
    fn field(&mut self) -> Result<&'a str, Error> {
        let rest = self.rest();
        let end = rest.find([';', '(', ')']).filter(|end| rest[*end..].starts_with(';'));
        let end = end.ok_or(self.expected("a semicolon"))?;
        self.at += end + 1;
        Ok(rest[..end].trim_matches([' ', '\t', '\r', '\n']))
    }

    fn ace(&mut self) -> Result<Ace, Error> {
        let bad = self.expected("a type of entry");
        let name = self.field()?;
        let kind = KINDS.iter().find(|(known, _)| *known == name).ok_or(bad)?.1;
        let bad = self.expected("flags of an entry");
        let flags =
            letters(self.field()?, FLAGS.iter().map(|(n, b)| (*n, u32::from(*b)))).ok_or(bad)?;
        let flags = u8::try_from(flags).unwrap_or(0);
        let bad = self.expected("rights");
        let mask = rights(self.field()?, kind == ace_type::LABEL).ok_or(bad)?;
        let mut types = ObjectTypes::default();
        for place in [&mut types.object, &mut types.inherited] {
            let bad = self.expected("a GUID, and only in an object's entry");
            let text = self.field()?;
            if !text.is_empty() {
                *place = Some(parse_guid(text).filter(|_| (5..=8).contains(&kind)).ok_or(bad)?);
            }
        }
        let sid = self.sid()?;
        self.blanks();
        self.take(")", "the end of an entry")?;
        let object = (5..=8).contains(&kind).then_some(types);
        Ok(Ace { kind, flags, body: AceBody::Known { mask, object, sid, data: Vec::new() } })
    }
}

/// Size of an entry in bytes.
fn size(ace: &Ace) -> usize {
    match &ace.body {
        AceBody::Other(bytes) => 4 + bytes.len(),
        AceBody::Known { sid, data, .. } => 44 + sid.size() + data.len(),
    }
}

/// The bits of names of two letters in a row.
fn letters<'a>(text: &str, known: impl Iterator<Item = (&'a str, u32)> + Clone) -> Option<u32> {
    let mut rest = text;
    let mut bits = 0;
    while !rest.is_empty() {
        let name = rest.get(..2)?;
        bits |= known.clone().find(|(known, _)| *known == name)?.1;
        rest = &rest[2..];
    }
    Some(bits)
}

fn rights(text: &str, label: bool) -> Option<u32> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let valid = !hex.is_empty() && hex.len() <= 8 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        return valid.then(|| u32::from_str_radix(hex, 16).ok()).flatten();
    }
    if text.starts_with(|letter: char| letter.is_ascii_digit()) {
        let valid = text.bytes().all(|byte| byte.is_ascii_digit());
        return valid.then(|| text.parse().ok()).flatten();
    }
    if label {
        return letters(text, LABEL.iter().copied());
    }
    letters(text, WHOLE.iter().chain(BITS).copied().chain([("KX", 0x2_0019)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_round_trip() {
        for text in [
            "",
            "O:BAG:SY",
            "O:BAG:SYD:(A;;FA;;;BA)(A;;FA;;;SY)(A;;0x1200a9;;;BU)",
            "O:BAG:SYD:(A;OICI;FA;;;BA)(A;OICIIO;GA;;;CO)(A;CI;LC;;;BU)(A;CI;DC;;;BU)",
            "O:S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464\
             G:S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464\
             D:PAI(A;OICIIO;GA;;;CO)(A;;0x1301bf;;;SY)(A;;0x1200a9;;;AC)",
            "O:S-1-5-93-2-1G:S-1-5-93-2-2D:AI(A;ID;FA;;;S-1-5-93-2-2)",
            "D:(A;OICIIO;SDGXGWGR;;;AU)",
            "D:NO_ACCESS_CONTROL",
            "D:PNO_ACCESS_CONTROL",
            "D:",
            "D:(D;;CCDCLCSWRPWPDTLOCRSDRCWDWO;;;WD)",
            "D:(OA;CI;RPWP;bf967aba-0de6-11d0-a285-00aa003049e2;;PS)",
            "S:(ML;OICI;NWNRNX;;;LW)",
            "S:PARAI(AU;SAFA;FA;;;WD)",
            "O:SYD:(A;;KA;;;BA)(A;;KR;;;BU)",
            "D:(A;;0x0;;;BA)",
        ] {
            let parsed = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(format(&parsed).unwrap(), text);
            let bytes = parsed.to_bytes();
            assert_eq!(SecurityDescriptor::parse(&bytes).unwrap().to_bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn other_spellings() {
        for (text, want) in [
            ("D:(A;;0x1f01ff;;;BA)", "D:(A;;FA;;;BA)"),
            ("D:(A;;2032127;;;S-1-5-32-544)", "D:(A;;FA;;;BA)"),
            (" O:BA G:SY\r\nD: ( A ; OI ; FRFX ; ; ; BU )", "O:BAG:SYD:(A;OI;0x1200a9;;;BU)"),
            ("D:(A;;KX;;;BU)", "D:(A;;KR;;;BU)"),
            ("G:SYO:BA", "O:BAG:SY"),
            ("O:S-1-5-0xDD:", "O:S-1-5-0xDD:"),
        ] {
            match parse(text) {
                Ok(parsed) => assert_eq!(format(&parsed).unwrap(), want),
                Err(_) => assert_eq!(text, want),
            }
        }
    }

    #[test]
    fn refusals() {
        for text in [
            "O",
            "O:",
            "O:XX",
            "X:BA",
            "O:BAO:BA",
            "D:(A;;FA;;;BA",
            "D:(A;;FA;;BA)",
            "D:(Q;;FA;;;BA)",
            "D:(A;XX;FA;;;BA)",
            "D:(A;;ZZ;;;BA)",
            "D:(A;;0x;;;BA)",
            "D:(A;;0x100000000;;;BA)",
            "D:(A;;;;;S-1-5-)",
            "D:(A;;FA;bf967aba-0de6-11d0-a285-00aa003049e2;;BA)",
            "D:(XA;;FX;;;WD;(x))",
            "D:Q",
            "O:é",
            "D:(A;;é;;;BA)",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "[OGDSAIPR:;()x0-9BAUYC-]{0,60}") {
            if let Ok(parsed) = parse(&text) {
                let shown = format(&parsed).unwrap();
                prop_assert_eq!(format(&parse(&shown).unwrap()).unwrap(), shown);
            }
        }
    }
}

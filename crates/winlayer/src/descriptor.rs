//! Security descriptors in self-relative form, as `MSWINDOWS.rawsd` holds them
//! (`[MS-DTYP]` 2.4.6).
//!
//! A descriptor is kept as the bytes that came; parsing is for judging and showing it. What
//! [`SecurityDescriptor::to_bytes`] writes has owner, group, SACL and DACL in this order,
//! which is how the descriptors in BuildKit's layers are laid out.

use crate::sid::Sid;

/// The largest descriptor in bytes.
pub const MAX_SIZE: usize = 64 << 10;

/// Bits of the control field.
pub mod control {
    /// There is a DACL.
    pub const DACL_PRESENT: u16 = 0x4;
    /// There is a SACL.
    pub const SACL_PRESENT: u16 = 0x10;
    /// Inherit to children on request.
    pub const DACL_AUTO_INHERIT_REQ: u16 = 0x100;
    /// The same for the SACL.
    pub const SACL_AUTO_INHERIT_REQ: u16 = 0x200;
    /// Inherited entries are marked.
    pub const DACL_AUTO_INHERITED: u16 = 0x400;
    /// The same for the SACL.
    pub const SACL_AUTO_INHERITED: u16 = 0x800;
    /// Nothing is inherited.
    pub const DACL_PROTECTED: u16 = 0x1000;
    /// The same for the SACL.
    pub const SACL_PROTECTED: u16 = 0x2000;
    /// All in one piece, with offsets.
    pub const SELF_RELATIVE: u16 = 0x8000;
}

/// Types of access control entries.
pub mod ace_type {
    /// Access allowed.
    pub const ALLOW: u8 = 0;
    /// Access denied.
    pub const DENY: u8 = 1;
    /// Audit.
    pub const AUDIT: u8 = 2;
    /// Alarm.
    pub const ALARM: u8 = 3;
    /// First of the types with object GUIDs (allow, deny, audit, alarm).
    pub const ALLOW_OBJECT: u8 = 5;
    /// Last of them.
    pub const ALARM_OBJECT: u8 = 8;
    /// Access allowed under a condition.
    pub const ALLOW_CALLBACK: u8 = 9;
    /// Access denied under a condition.
    pub const DENY_CALLBACK: u8 = 10;
    /// First of the conditional types with object GUIDs (allow, deny).
    pub const ALLOW_CALLBACK_OBJECT: u8 = 11;
    /// Last of them.
    pub const DENY_CALLBACK_OBJECT: u8 = 12;
    /// Audit under a condition.
    pub const AUDIT_CALLBACK: u8 = 13;
    /// Alarm under a condition.
    pub const ALARM_CALLBACK: u8 = 14;
    /// Audit under a condition, with object GUIDs.
    pub const AUDIT_CALLBACK_OBJECT: u8 = 15;
    /// Alarm under a condition, with object GUIDs.
    pub const ALARM_CALLBACK_OBJECT: u8 = 16;
    /// Integrity label.
    pub const LABEL: u8 = 17;
    /// Resource attribute.
    pub const RESOURCE: u8 = 18;
    /// Central access policy.
    pub const POLICY: u8 = 19;
    /// Trust label of a process.
    pub const TRUST: u8 = 20;
    /// Access filter.
    pub const FILTER: u8 = 21;
}

/// Why bytes are no security descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not base64.
    #[error("not valid base64, or too long")]
    Encoding,
    /// Shorter than it says, or longer than any.
    #[error("a length that does not fit")]
    Length,
    /// Not revision 1, or not in self-relative form.
    #[error("not a self-relative security descriptor")]
    Form,
    /// An owner or group that is no identifier.
    #[error("an invalid owner or group")]
    Sid,
    /// A list whose header or length is wrong.
    #[error("an invalid access control list")]
    Acl,
    /// An entry whose length or identifier is wrong.
    #[error("an invalid access control entry")]
    Ace,
}

/// A DACL or SACL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AclField {
    /// None is said.
    #[default]
    Absent,
    /// There is one without a list: for a DACL, everybody may do everything.
    Null,
    /// The list.
    List(Acl),
}

/// An access control list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    /// Revision: 2, or 4 for lists with object entries.
    pub revision: u8,
    /// Entries in order.
    pub aces: Vec<Ace>,
}

/// An access control entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ace {
    /// Type, see [`ace_type`].
    pub kind: u8,
    /// Inheritance and audit flags.
    pub flags: u8,
    /// The rest.
    pub body: AceBody,
}

/// What an entry has after its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AceBody {
    /// Access mask and identifier.
    Known {
        /// The rights.
        mask: u32,
        /// GUIDs of object types; `None` for types that have no place for them.
        object: Option<ObjectTypes>,
        /// Whose.
        sid: Sid,
        /// What follows: a condition or resource attribute, or nothing.
        data: Vec<u8>,
    },
    /// Of a type that is not known.
    Other(Vec<u8>),
}

/// The GUIDs of an object entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObjectTypes {
    /// Kind of object, property or right.
    pub object: Option<[u8; 16]>,
    /// Kind of object that inherits the entry.
    pub inherited: Option<[u8; 16]>,
}

/// A security descriptor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityDescriptor {
    /// Bits of [`control`]. What they say of the lists' presence follows from the lists.
    pub control: u16,
    /// Of the resource manager; 0 for files.
    pub manager: u8,
    /// Owner.
    pub owner: Option<Sid>,
    /// Primary group.
    pub group: Option<Sid>,
    /// System list: audit and labels.
    pub sacl: AclField,
    /// Discretionary list: access.
    pub dacl: AclField,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

impl SecurityDescriptor {
    /// Parses a descriptor. Bytes between and after its pieces are let be.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() < 20 || bytes.len() > MAX_SIZE {
            return Err(Error::Length);
        }
        let control = u16_at(bytes, 2).ok_or(Error::Length)?;
        if bytes[0] != 1 || control & control::SELF_RELATIVE == 0 {
            return Err(Error::Form);
        }
        let piece = |at: usize| -> Result<Option<&[u8]>, Error> {
            let offset = u32_at(bytes, at).and_then(|offset| usize::try_from(offset).ok());
            match offset.ok_or(Error::Length)? {
                0 => Ok(None),
                offset if offset < 20 => Err(Error::Length),
                offset => bytes.get(offset..).map(Some).ok_or(Error::Length),
            }
        };
        let sid = |at: usize| -> Result<Option<Sid>, Error> {
            let read = |bytes| Sid::read(bytes).map(|(sid, _)| sid).map_err(|_| Error::Sid);
            piece(at)?.map(read).transpose()
        };
        let list = |at: usize, present: u16| -> Result<AclField, Error> {
            if control & present == 0 {
                return Ok(AclField::Absent);
            }
            piece(at)?.map_or(Ok(AclField::Null), |bytes| Acl::read(bytes).map(AclField::List))
        };
        Ok(Self {
            control,
            manager: bytes[1],
            owner: sid(4)?,
            group: sid(8)?,
            sacl: list(12, control::SACL_PRESENT)?,
            dacl: list(16, control::DACL_PRESENT)?,
        })
    }

    /// Its bytes in self-relative form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut control = self.control & !(control::DACL_PRESENT | control::SACL_PRESENT);
        control |= control::SELF_RELATIVE;
        if self.dacl != AclField::Absent {
            control |= control::DACL_PRESENT;
        }
        if self.sacl != AclField::Absent {
            control |= control::SACL_PRESENT;
        }
        let mut out = vec![1, self.manager];
        out.extend_from_slice(&control.to_le_bytes());
        out.resize(20, 0);
        let begin = |out: &mut Vec<u8>, at: usize| {
            let offset = u32::try_from(out.len()).unwrap_or(0).to_le_bytes();
            out[at..at + 4].copy_from_slice(&offset);
        };
        for (at, sid) in [(4, &self.owner), (8, &self.group)] {
            if let Some(sid) = sid {
                begin(&mut out, at);
                sid.write(&mut out);
            }
        }
        for (at, list) in [(12, &self.sacl), (16, &self.dacl)] {
            if let AclField::List(list) = list {
                begin(&mut out, at);
                list.write(&mut out);
            }
        }
        out
    }
}

impl Acl {
    fn read(bytes: &[u8]) -> Result<Self, Error> {
        let size = u16_at(bytes, 2).map(usize::from).ok_or(Error::Acl)?;
        let count = u16_at(bytes, 4).ok_or(Error::Acl)?;
        let revision = bytes[0];
        if !(2..=4).contains(&revision) || size < 8 {
            return Err(Error::Acl);
        }
        let mut rest = bytes.get(8..size).ok_or(Error::Acl)?;
        let mut aces = Vec::new();
        for _ in 0..count {
            let size = u16_at(rest, 2).map(usize::from).ok_or(Error::Ace)?;
            if size < 4 || !size.is_multiple_of(4) || size > rest.len() {
                return Err(Error::Ace);
            }
            let (ace, after) = rest.split_at(size);
            aces.push(Ace::read(ace)?);
            rest = after;
        }
        Ok(Self { revision, aces })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.revision, 0, 0, 0]);
        out.extend_from_slice(&u16::try_from(self.aces.len()).unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        for ace in &self.aces {
            ace.write(out);
        }
        let size = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
        out[start + 2..start + 4].copy_from_slice(&size.to_le_bytes());
    }
}

impl Ace {
    fn has_object(kind: u8) -> bool {
        use ace_type as t;
        matches!(
            kind,
            t::ALLOW_OBJECT
                ..=t::ALARM_OBJECT
                    | t::ALLOW_CALLBACK_OBJECT
                    | t::DENY_CALLBACK_OBJECT
                    | t::AUDIT_CALLBACK_OBJECT
                    | t::ALARM_CALLBACK_OBJECT
        )
    }

    /// Whether an entry of a type ends with data after its identifier.
    fn has_data(kind: u8) -> bool {
        matches!(kind, ace_type::ALLOW_CALLBACK..=ace_type::ALARM_CALLBACK_OBJECT)
            || matches!(kind, ace_type::RESOURCE | ace_type::FILTER)
    }

    fn read(bytes: &[u8]) -> Result<Self, Error> {
        let (kind, flags, rest) = (bytes[0], bytes[1], &bytes[4..]);
        let known = kind <= ace_type::FILTER && kind != 4;
        if !known {
            return Ok(Self { kind, flags, body: AceBody::Other(rest.to_vec()) });
        }
        let mask = u32_at(rest, 0).ok_or(Error::Ace)?;
        let mut rest = &rest[4..];
        let mut object = None;
        if Self::has_object(kind) {
            let present = u32_at(rest, 0).ok_or(Error::Ace)?;
            rest = &rest[4..];
            let mut guid = |bit: u32| -> Result<Option<[u8; 16]>, Error> {
                if present & bit == 0 {
                    return Ok(None);
                }
                let (guid, after) = rest.split_first_chunk::<16>().ok_or(Error::Ace)?;
                rest = after;
                Ok(Some(*guid))
            };
            object = Some(ObjectTypes { object: guid(1)?, inherited: guid(2)? });
        }
        let (sid, data) = Sid::read(rest).map_err(|_| Error::Ace)?;
        // What follows an entry of another type is of no meaning.
        let data = if Self::has_data(kind) { data.to_vec() } else { Vec::new() };
        Ok(Self { kind, flags, body: AceBody::Known { mask, object, sid, data } })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.kind, self.flags, 0, 0]);
        match &self.body {
            AceBody::Other(bytes) => out.extend_from_slice(bytes),
            AceBody::Known { mask, object, sid, data } => {
                out.extend_from_slice(&mask.to_le_bytes());
                if let Some(types) = object {
                    let present = u32::from(types.object.is_some())
                        | u32::from(types.inherited.is_some()) << 1;
                    out.extend_from_slice(&present.to_le_bytes());
                    for guid in [types.object, types.inherited].into_iter().flatten() {
                        out.extend_from_slice(&guid);
                    }
                }
                sid.write(out);
                out.extend_from_slice(data);
            }
        }
        out.resize(start + (out.len() - start).next_multiple_of(4), 0);
        let size = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
        out[start + 2..start + 4].copy_from_slice(&size.to_le_bytes());
    }
}

/// What BuildKit gives directories that it makes: the descriptor of `C:\`.
pub fn default_directory() -> Vec<u8> {
    fixed(
        "O:BAG:SYD:(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)(A;;FA;;;BA)(A;OICIIO;GA;;;CO)\
         (A;OICI;0x1200a9;;;BU)(A;CI;LC;;;BU)(A;CI;DC;;;BU)",
    )
}

/// What BuildKit gives files that it makes.
pub fn default_file() -> Vec<u8> {
    fixed("O:BAG:SYD:(A;;FA;;;BA)(A;;FA;;;SY)(A;;0x1200a9;;;BU)")
}

fn fixed(text: &str) -> Vec<u8> {
    crate::sddl::parse(text).map(|descriptor| descriptor.to_bytes()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    const FILE: &str = "01000480140000002400000000000000300000000102000000000005200000002002000001\
        010000000000051200000002004c000300000000001800ff011f000102000000000005200000002002000000001\
        400ff011f0001010000000000051200000000001800a900120001020000000000052000000021020000";
    const DIRECTORY: &str = "0100048014000000240000000000000030000000010200000000000520000000200200\
        000101000000000005120000000200a8000700000000031800ff011f00010200000000000520000000200200000\
        0031400ff011f0001010000000000051200000000001800ff011f00010200000000000520000000200200000\
        00b140000000010010100000000000300000000\
        00031800a900120001020000000000052000000021020000000218000400000001020000000000052000000021020000\
        000218000200000001020000000000052000000021020000";

    #[test]
    fn buildkit_descriptors() {
        assert_eq!(default_file(), hex(FILE));
        assert_eq!(default_directory(), hex(DIRECTORY));
        for text in [FILE, DIRECTORY] {
            let bytes = hex(text);
            let parsed = SecurityDescriptor::parse(&bytes).unwrap();
            assert_eq!(parsed.owner, Some(Sid::administrators()));
            assert_eq!(parsed.group, Some(Sid::system()));
            assert_eq!(parsed.to_bytes(), bytes);
        }
    }

    #[test]
    fn malformed() {
        let good = hex(FILE);
        let change = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            SecurityDescriptor::parse(&bytes).err()
        };
        for (at, byte, want) in [
            (0, 2, Some(Error::Form)),
            (3, 0, Some(Error::Form)),
            (4, 1, Some(Error::Length)),
            (4, 0xff, Some(Error::Length)),
            (4, 0, None),
            (20, 2, Some(Error::Sid)),
            (21, 16, Some(Error::Sid)),
            (48, 9, Some(Error::Acl)),
            (50, 7, Some(Error::Acl)),
            (50, 0xff, Some(Error::Acl)),
            (52, 4, Some(Error::Ace)),
            (52, 2, None),
            (58, 0x19, Some(Error::Ace)),
            (58, 0, Some(Error::Ace)),
            (65, 15, Some(Error::Ace)),
        ] {
            assert_eq!(change(at, byte), want, "byte {at} = {byte}");
        }
        for length in 0..good.len() {
            assert!(SecurityDescriptor::parse(&good[..length]).is_err(), "{length}");
        }
        assert_eq!(SecurityDescriptor::parse(&vec![1; MAX_SIZE + 1]), Err(Error::Length));
    }

    #[test]
    fn null_and_absent_lists() {
        for dacl in [AclField::Absent, AclField::Null] {
            let descriptor =
                SecurityDescriptor { control: control::SELF_RELATIVE, dacl, ..Default::default() };
            let parsed = SecurityDescriptor::parse(&descriptor.to_bytes()).unwrap();
            assert_eq!(parsed.dacl, descriptor.dacl);
        }
    }

    proptest! {
        #[test]
        fn what_parses_is_written_and_parsed_again(
            flips in proptest::collection::vec((0_usize..216, any::<u8>()), 0..6)
        ) {
            let mut bytes = hex(DIRECTORY);
            for (at, byte) in flips {
                bytes[at] = byte;
            }
            if let Ok(parsed) = SecurityDescriptor::parse(&bytes) {
                let again = SecurityDescriptor::parse(&parsed.to_bytes()).unwrap();
                prop_assert_eq!(again.to_bytes(), parsed.to_bytes());
            }
        }
    }
}

//! Values and their types.

use std::fmt;

use crate::name::Name;

/// Longest name of a value, in UTF-16 units.
pub const MAX_VALUE_NAME: usize = 16_383;

/// The type of a value's data. Any number is legal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueType(pub u32);

/// The names of the types, by number.
const TYPES: [&str; 12] = [
    "REG_NONE",
    "REG_SZ",
    "REG_EXPAND_SZ",
    "REG_BINARY",
    "REG_DWORD",
    "REG_DWORD_BIG_ENDIAN",
    "REG_LINK",
    "REG_MULTI_SZ",
    "REG_RESOURCE_LIST",
    "REG_FULL_RESOURCE_DESCRIPTOR",
    "REG_RESOURCE_REQUIREMENTS_LIST",
    "REG_QWORD",
];

impl ValueType {
    /// No type.
    pub const NONE: Self = Self(0);
    /// A string.
    pub const SZ: Self = Self(1);
    /// A string with `%variables%`.
    pub const EXPAND_SZ: Self = Self(2);
    /// Bytes.
    pub const BINARY: Self = Self(3);
    /// A number of 32 bits.
    pub const DWORD: Self = Self(4);
    /// A number of 32 bits, big-endian.
    pub const DWORD_BIG_ENDIAN: Self = Self(5);
    /// The target of a symbolic link, without NUL.
    pub const LINK: Self = Self(6);
    /// Strings, each ended by NUL, and one more NUL.
    pub const MULTI_SZ: Self = Self(7);
    /// Hardware resources of a driver.
    pub const RESOURCE_LIST: Self = Self(8);
    /// Hardware resources of a device.
    pub const FULL_RESOURCE_DESCRIPTOR: Self = Self(9);
    /// Hardware resources that a driver could use.
    pub const RESOURCE_REQUIREMENTS_LIST: Self = Self(10);
    /// A number of 64 bits.
    pub const QWORD: Self = Self(11);

    /// `REG_SZ` and so on, for types that have a name.
    pub fn name(self) -> Option<&'static str> {
        TYPES.get(usize::try_from(self.0).ok()?).copied()
    }

    /// The type of a name in either case, with or without `REG_`, or of a number.
    pub fn parse(text: &str) -> Option<Self> {
        let upper = text.to_ascii_uppercase();
        let short = upper.strip_prefix("REG_").unwrap_or(&upper);
        let known = (0_u32..).zip(TYPES).find(|(_, name)| name["REG_".len()..] == *short);
        if let Some((number, _)) = known {
            return Some(Self(number));
        }
        let number = match upper.strip_prefix("0X") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => upper.parse(),
        };
        number.ok().map(Self)
    }

    /// Whether data of this type is text.
    pub fn is_text(self) -> bool {
        matches!(self, Self::SZ | Self::EXPAND_SZ | Self::LINK | Self::MULTI_SZ)
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => formatter.pad(name),
            None => formatter.pad(&format!("0x{:x}", self.0)),
        }
    }
}

impl fmt::Debug for ValueType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A named piece of data of a key. The value without a name is the key's default value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The name; empty for the default value.
    pub name: Name,
    /// What the data is.
    pub kind: ValueType,
    /// The data as it is stored: strings are UTF-16, little-endian, mostly with a NUL at the end.
    pub data: Vec<u8>,
    /// In a differencing hive: the value of this name does not exist. Such a value has type 0
    /// and no data.
    pub tombstone: bool,
}

impl Value {
    /// A value with these bytes.
    pub fn new(name: impl Into<Name>, kind: ValueType, data: Vec<u8>) -> Self {
        Self { name: name.into(), kind, data, tombstone: false }
    }

    /// `REG_SZ`
    pub fn string(name: impl Into<Name>, text: &str) -> Self {
        Self::new(name, ValueType::SZ, utf16(text, true))
    }

    /// `REG_EXPAND_SZ`
    pub fn expand_string(name: impl Into<Name>, text: &str) -> Self {
        Self::new(name, ValueType::EXPAND_SZ, utf16(text, true))
    }

    /// `REG_MULTI_SZ`. Empty strings end the list for most readers, and are written as they are.
    pub fn strings<'a>(name: impl Into<Name>, texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut data: Vec<u8> = texts.into_iter().flat_map(|text| utf16(text, true)).collect();
        data.extend([0, 0]);
        Self::new(name, ValueType::MULTI_SZ, data)
    }

    /// `REG_DWORD`
    pub fn dword(name: impl Into<Name>, number: u32) -> Self {
        Self::new(name, ValueType::DWORD, number.to_le_bytes().to_vec())
    }

    /// `REG_QWORD`
    pub fn qword(name: impl Into<Name>, number: u64) -> Self {
        Self::new(name, ValueType::QWORD, number.to_le_bytes().to_vec())
    }

    /// `REG_BINARY`
    pub fn binary(name: impl Into<Name>, data: Vec<u8>) -> Self {
        Self::new(name, ValueType::BINARY, data)
    }

    /// `REG_LINK`, the target of a symbolic link such as `\Registry\Machine\System\ControlSet001`.
    pub fn link(target: &str) -> Self {
        Self::new("SymbolicLinkValue", ValueType::LINK, utf16(target, false))
    }

    /// The mark of a differencing hive that there is no such value.
    pub fn tombstone(name: impl Into<Name>) -> Self {
        Self { tombstone: true, ..Self::new(name, ValueType::NONE, Vec::new()) }
    }

    /// The text of a string, an expandable string or a link, up to the first NUL.
    pub fn text(&self) -> Option<String> {
        if !matches!(self.kind, ValueType::SZ | ValueType::EXPAND_SZ | ValueType::LINK) {
            return None;
        }
        let units: Vec<u16> = self.units().take_while(|&unit| unit != 0).collect();
        Some(String::from_utf16_lossy(&units))
    }

    /// The strings of a `REG_MULTI_SZ`, up to the first empty one.
    pub fn texts(&self) -> Option<Vec<String>> {
        if self.kind != ValueType::MULTI_SZ {
            return None;
        }
        let units: Vec<u16> = self.units().collect();
        let texts = units.split(|&unit| unit == 0).take_while(|text| !text.is_empty());
        Some(texts.map(String::from_utf16_lossy).collect())
    }

    /// The number of a `REG_DWORD` of either byte order, or a `REG_QWORD`.
    pub fn number(&self) -> Option<u64> {
        match self.kind {
            ValueType::DWORD => Some(u32::from_le_bytes(self.data[..].try_into().ok()?).into()),
            ValueType::DWORD_BIG_ENDIAN => {
                Some(u32::from_be_bytes(self.data[..].try_into().ok()?).into())
            }
            ValueType::QWORD => Some(u64::from_le_bytes(self.data[..].try_into().ok()?)),
            _ => None,
        }
    }

    /// The data as UTF-16 units; an odd last byte is left out.
    pub(crate) fn units(&self) -> impl Iterator<Item = u16> + '_ {
        self.data.as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair))
    }
}

/// Text as stored data.
pub(crate) fn utf16(text: &str, nul: bool) -> Vec<u8> {
    let mut data = Vec::with_capacity(2 * text.len() + 2);
    data.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    if nul {
        data.extend([0, 0]);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_by_name_and_number() {
        let cases = [
            ("REG_SZ", Some(ValueType::SZ)),
            ("expand_sz", Some(ValueType::EXPAND_SZ)),
            ("11", Some(ValueType::QWORD)),
            ("0xffff0012", Some(ValueType(0xFFFF_0012))),
            ("REG_NOTHING", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(ValueType::parse(text), expected, "{text}");
        }
        assert_eq!(ValueType(0xFFFF_0012).to_string(), "0xffff0012");
        assert_eq!(ValueType::MULTI_SZ.to_string(), "REG_MULTI_SZ");
    }

    #[test]
    fn what_goes_in_comes_out() {
        assert_eq!(Value::string("a", "Käse").text().as_deref(), Some("Käse"));
        assert_eq!(Value::link("\\x").data, b"\\\0x\0");
        assert_eq!(Value::strings("", ["a", "bc"]).data, b"a\0\0\0b\0c\0\0\0\0\0");
        assert_eq!(Value::strings("", ["a", "bc"]).texts().unwrap(), ["a", "bc"]);
        assert_eq!(Value::strings("", []).texts().unwrap(), [""; 0]);
        assert_eq!(Value::dword("", 7).number(), Some(7));
        assert_eq!(Value::qword("", u64::MAX).number(), Some(u64::MAX));
        assert_eq!(Value::new("", ValueType::DWORD, vec![1]).number(), None);
        assert_eq!(Value::new("", ValueType::SZ, vec![65, 0, 66]).text().as_deref(), Some("A"));
        assert_eq!(Value::binary("", vec![1]).text(), None);
    }
}

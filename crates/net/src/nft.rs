//! nftables by netlink (`linux/netfilter/nf_tables.h`): transactions, and rules as lists of
//! expressions over registers.

use std::io;

use crate::nl::{
    APPEND, Attributes, CREATE, DUMP, Messages, REQUEST, Socket, attribute, read_string,
};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = SUBSYSTEM;
const GETTABLE: u16 = SUBSYSTEM | 0x1;
pub(crate) const DELTABLE: u16 = SUBSYSTEM | 0x2;
pub(crate) const NEWCHAIN: u16 = SUBSYSTEM | 0x3;
const GETCHAIN: u16 = SUBSYSTEM | 0x4;
const NEWRULE: u16 = SUBSYSTEM | 0x6;
const GETRULE: u16 = SUBSYSTEM | 0x7;
const DELRULE: u16 = SUBSYSTEM | 0x8;
const NEWSET: u16 = SUBSYSTEM | 0x9;
const NEWSETELEM: u16 = SUBSYSTEM | 0xc;
const DELSETELEM: u16 = SUBSYSTEM | 0xe;
/// `NFNLGRP_NFTABLES`: notifications of every change.
pub(crate) const GROUP: u32 = 7;

const FAMILY_IP: u8 = 2;
/// Length of `struct nfgenmsg` before the attributes.
pub(crate) const FIXED: usize = 4;

const ELEMENT: u16 = 1; // NFTA_LIST_ELEM
const VALUE: u16 = 1; // NFTA_DATA_VALUE
const VERDICT: u16 = 2; // NFTA_DATA_VERDICT

/// The first 32-bit register; the following ones have the following numbers.
pub(crate) const R0: u32 = 8;
const REG_VERDICT: u32 = 0;

/// `nft`'s numbers of data types, which only `nft list` looks at.
pub(crate) const TYPE_IPV4: u32 = 7;
pub(crate) const TYPE_PROTO: u32 = 12;
pub(crate) const TYPE_PORT: u32 = 13;
pub(crate) const TYPE_IFNAME: u32 = 41;

/// The number of a concatenation of types.
pub(crate) fn concat(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, kind| all << 6 | kind)
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Accept,
    Return,
}

impl Verdict {
    fn code(self) -> u32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Return => (-5_i32).cast_unsigned(),
        }
    }
}

/// `meta` keys.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meta {
    InName = 6,
    OutName = 7,
    L4Proto = 16,
}

/// `ct` keys.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ct {
    State = 0,
    Status = 2,
}

pub(crate) const CT_ESTABLISHED_RELATED: u32 = 2 | 4;
pub(crate) const CT_STATUS_DNAT: u32 = 1 << 5;

/// The expressions of one rule.
#[derive(Debug)]
pub(crate) struct Rule<'a, 'b>(&'a mut Attributes<'b>);

impl Rule<'_, '_> {
    fn push(&mut self, name: &str, body: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.0.nest(ELEMENT, |a| {
            a.string(1, name).nest(2, body);
        });
        self
    }

    fn meta(&mut self, key: Meta, register: u32) -> &mut Self {
        self.push("meta", |a| {
            a.be32(1, register).be32(2, key as u32);
        })
    }

    fn compare(&mut self, register: u32, equal: bool, value: &[u8]) -> &mut Self {
        self.push("cmp", |a| {
            a.be32(1, register).be32(2, u32::from(!equal)).nest(3, |a| {
                a.bytes(VALUE, value);
            });
        })
    }

    /// Loads part of the network header (base 1) or transport header (base 2).
    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) -> &mut Self {
        self.push("payload", |a| {
            a.be32(1, register).be32(2, base).be32(3, offset).be32(4, length);
        })
    }

    fn interface(&mut self, key: Meta, name: &str, equal: bool) -> &mut Self {
        let mut padded = [0; 16];
        let length = name.len().min(15);
        padded[..length].copy_from_slice(&name.as_bytes()[..length]);
        self.meta(key, R0).compare(R0, equal, &padded)
    }

    /// `iifname "name"`.
    pub(crate) fn from(&mut self, name: &str) -> &mut Self {
        self.interface(Meta::InName, name, true)
    }

    /// `oifname "name"`.
    pub(crate) fn to(&mut self, name: &str) -> &mut Self {
        self.interface(Meta::OutName, name, true)
    }

    /// `oifname != "name"`.
    pub(crate) fn not_to(&mut self, name: &str) -> &mut Self {
        self.interface(Meta::OutName, name, false)
    }

    /// `oifname @set`.
    pub(crate) fn out_of(&mut self, set: &str) -> &mut Self {
        self.meta(Meta::OutName, R0).push("lookup", |a| {
            a.string(1, set).be32(2, R0);
        })
    }

    fn masked(&mut self, mask: &[u8], expected: &[u8], equal: bool) -> &mut Self {
        let length = u32::try_from(mask.len()).unwrap_or_default();
        self.push("bitwise", |a| {
            a.be32(1, R0).be32(2, R0).be32(3, length);
            a.nest(4, |a| {
                a.bytes(VALUE, mask);
            });
            a.nest(5, |a| {
                a.bytes(VALUE, &[0; 4][..mask.len().min(4)]);
            });
        });
        self.compare(R0, equal, expected)
    }

    fn network(&mut self, offset: u32, net: ipnet::Ipv4Net, equal: bool) -> &mut Self {
        self.payload(1, offset, 4, R0).masked(
            &net.netmask().octets(),
            &net.network().octets(),
            equal,
        )
    }

    /// `ip saddr net`.
    pub(crate) fn source(&mut self, net: ipnet::Ipv4Net) -> &mut Self {
        self.network(12, net, true)
    }

    /// `ip daddr net`.
    pub(crate) fn destination(&mut self, net: ipnet::Ipv4Net) -> &mut Self {
        self.network(16, net, true)
    }

    /// `ct key & bits != 0`.
    pub(crate) fn connection(&mut self, key: Ct, bits: u32) -> &mut Self {
        self.push("ct", |a| {
            a.be32(1, R0).be32(2, key as u32);
        });
        self.masked(&bits.to_ne_bytes(), &[0; 4], false)
    }

    /// `fib daddr type local`.
    pub(crate) fn local_target(&mut self) -> &mut Self {
        const RESULT_ADDRTYPE: u32 = 3;
        const FLAG_DADDR: u32 = 2;
        const LOCAL: u32 = 2;
        self.push("fib", |a| {
            a.be32(1, R0).be32(2, RESULT_ADDRTYPE).be32(3, FLAG_DADDR);
        });
        self.compare(R0, true, &LOCAL.to_ne_bytes())
    }

    /// Loads destination address, protocol, destination port into three registers from `first`.
    pub(crate) fn load_target(&mut self, address: bool) -> &mut Self {
        let mut register = R0;
        if address {
            self.payload(1, 16, 4, register);
            register += 1;
        }
        self.meta(Meta::L4Proto, register).payload(2, 2, 2, register + 1)
    }

    /// Looks the registers up in a map, result from the first register on; no match ends the rule.
    pub(crate) fn map(&mut self, name: &str) -> &mut Self {
        self.push("lookup", |a| {
            a.string(1, name).be32(2, R0).be32(3, R0);
        })
    }

    /// `dnat to` the address in the first register and the port in the second.
    pub(crate) fn dnat(&mut self) -> &mut Self {
        const DNAT: u32 = 1;
        const PROTO_SPECIFIED: u32 = 2;
        self.push("nat", |a| {
            a.be32(1, DNAT).be32(2, u32::from(FAMILY_IP));
            a.be32(3, R0).be32(5, R0 + 1).be32(7, PROTO_SPECIFIED);
        })
    }

    pub(crate) fn masquerade(&mut self) -> &mut Self {
        self.push("masq", |_| ())
    }

    pub(crate) fn counter(&mut self) -> &mut Self {
        self.push("counter", |a| {
            a.bytes(1, &[0; 8]).bytes(2, &[0; 8]);
        })
    }

    pub(crate) fn verdict(&mut self, verdict: Verdict) -> &mut Self {
        self.push("immediate", |a| {
            a.be32(1, REG_VERDICT).nest(2, |a| {
                a.nest(VERDICT, |a| {
                    a.be32(1, verdict.code());
                });
            });
        })
    }
}

/// Where a base chain is hooked in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook {
    pub(crate) kind: &'static str,
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// Changes that are made together or not at all.
#[derive(Debug)]
pub(crate) struct Transaction {
    messages: Messages,
}

fn fixed(family: u8, resource: u16) -> [u8; FIXED] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

impl Transaction {
    pub(crate) fn new() -> Self {
        let mut messages = Messages::new();
        messages.add(BATCH_BEGIN, REQUEST, &fixed(0, 10), |_| ());
        Self { messages }
    }

    fn add(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.messages.add(kind, REQUEST | flags, &fixed(FAMILY_IP, 0), body);
    }

    pub(crate) fn add_table(&mut self, table: &str) {
        self.add(NEWTABLE, CREATE, |a| {
            a.string(1, table).be32(2, 0);
        });
    }

    pub(crate) fn delete_table(&mut self, table: &str) {
        self.add(DELTABLE, 0, |a| {
            a.string(1, table);
        });
    }

    pub(crate) fn add_chain(&mut self, table: &str, chain: &str, hook: Hook) {
        const ACCEPT: u32 = 1;
        self.add(NEWCHAIN, CREATE, |a| {
            a.string(1, table).string(3, chain);
            a.nest(4, |a| {
                a.be32(1, hook.number).be32(2, hook.priority.cast_unsigned());
            });
            a.be32(5, ACCEPT).string(7, hook.kind);
        });
    }

    /// Adds a rule at the end of a chain, or at its beginning.
    fn rule(
        &mut self,
        flags: u16,
        table: &str,
        chain: &str,
        user_data: Option<&[u8]>,
        body: impl FnOnce(&mut Rule<'_, '_>),
    ) {
        self.add(NEWRULE, CREATE | flags, |a| {
            a.string(1, table).string(2, chain);
            a.nest(4, |a| body(&mut Rule(a)));
            if let Some(data) = user_data {
                a.bytes(7, data);
            }
        });
    }

    pub(crate) fn add_rule(
        &mut self,
        table: &str,
        chain: &str,
        body: impl FnOnce(&mut Rule<'_, '_>),
    ) {
        self.rule(APPEND, table, chain, None, body);
    }

    /// Inserts a rule at the head of a chain, with a comment by which it is found again.
    pub(crate) fn insert_rule(
        &mut self,
        table: &str,
        chain: &str,
        comment: &str,
        body: impl FnOnce(&mut Rule<'_, '_>),
    ) {
        self.rule(0, table, chain, Some(&comment_data(comment)), body);
    }

    pub(crate) fn delete_rule(&mut self, table: &str, chain: &str, handle: u64) {
        self.add(DELRULE, 0, |a| {
            a.string(1, table).string(2, chain).bytes(3, &handle.to_be_bytes());
        });
    }

    /// Adds a set with keys of `key` (type, length in bytes), or a map from them to `data`.
    pub(crate) fn add_set(
        &mut self,
        table: &str,
        name: &str,
        id: u32,
        key: (u32, u32),
        data: Option<(u32, u32)>,
    ) {
        const FLAG_MAP: u32 = 8;
        self.add(NEWSET, CREATE, |a| {
            a.string(1, table).string(2, name).be32(3, data.map_or(0, |_| FLAG_MAP));
            a.be32(4, key.0).be32(5, key.1);
            if let Some(data) = data {
                a.be32(6, data.0).be32(7, data.1);
            }
            a.be32(10, id);
            if key.0 == TYPE_IFNAME {
                // For `nft list`: names are in host order (NFTNL_UDATA_SET_KEYBYTEORDER).
                a.bytes(13, &[0, 4, 1, 0, 0, 0]);
            }
        });
    }

    fn element(
        &mut self,
        kind: u16,
        flags: u16,
        table: &str,
        set: &str,
        key: &[u8],
        data: Option<&[u8]>,
    ) {
        self.add(kind, flags, |a| {
            a.string(1, table).string(2, set).nest(3, |a| {
                a.nest(ELEMENT, |a| {
                    a.nest(1, |a| {
                        a.bytes(VALUE, key);
                    });
                    if let Some(data) = data {
                        a.nest(2, |a| {
                            a.bytes(VALUE, data);
                        });
                    }
                });
            });
        });
    }

    pub(crate) fn add_element(&mut self, table: &str, set: &str, key: &[u8], data: Option<&[u8]>) {
        self.element(NEWSETELEM, CREATE, table, set, key, data);
    }

    pub(crate) fn delete_element(&mut self, table: &str, map: &str, key: &[u8]) {
        self.element(DELSETELEM, 0, table, map, key, None);
    }
}

/// The user data of a rule with a comment, as nft writes it: type 0, length, string.
fn comment_data(comment: &str) -> Vec<u8> {
    let mut data = vec![0, u8::try_from(comment.len() + 1).unwrap_or(u8::MAX)];
    data.extend_from_slice(comment.as_bytes());
    data.push(0);
    data
}

/// A netfilter socket kept open: opening and closing one costs a thousand times a transaction.
#[derive(Debug)]
pub(crate) struct Nft(pub(crate) Socket);

impl Nft {
    pub(crate) fn open() -> io::Result<Self> {
        Socket::netfilter().map(Self)
    }

    pub(crate) fn commit(&mut self, mut transaction: Transaction) -> io::Result<()> {
        transaction.messages.add(BATCH_END, REQUEST, &fixed(0, 10), |_| ());
        self.0.transaction(transaction.messages)
    }

    fn exists(
        &mut self,
        kind: u16,
        family: u8,
        body: impl FnOnce(&mut Attributes<'_>),
    ) -> io::Result<bool> {
        let mut request = Messages::new();
        request.add(kind, REQUEST, &fixed(family, 0), body);
        let mut found = false;
        match self.0.query(request, |_| found = true) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            result => result.map(|()| found),
        }
    }

    pub(crate) fn has_table(&mut self, table: &str) -> io::Result<bool> {
        self.exists(GETTABLE, FAMILY_IP, |a| {
            a.string(1, table);
        })
    }

    pub(crate) fn has_inet_table(&mut self, table: &str) -> io::Result<bool> {
        const FAMILY_INET: u8 = 1;
        self.exists(GETTABLE, FAMILY_INET, |a| {
            a.string(1, table);
        })
    }

    pub(crate) fn has_chain(&mut self, table: &str, chain: &str) -> io::Result<bool> {
        self.exists(GETCHAIN, FAMILY_IP, |a| {
            a.string(1, table).string(3, chain);
        })
    }

    /// Handles of the rules of a chain that bear a comment.
    pub(crate) fn rules_with_comment(
        &mut self,
        table: &str,
        chain: &str,
        comment: &str,
    ) -> io::Result<Vec<u64>> {
        let wanted = comment_data(comment);
        let mut request = Messages::new();
        request.add(GETRULE, REQUEST | DUMP, &fixed(FAMILY_IP, 0), |a| {
            a.string(1, table).string(2, chain);
        });
        let mut handles = Vec::new();
        self.0.query(request, |message| {
            let attributes = message.payload.get(FIXED..).unwrap_or_default();
            let ours = attribute(attributes, 7) == Some(&wanted)
                && attribute(attributes, 2).map(read_string).as_deref() == Some(chain);
            if ours {
                let handle = attribute(attributes, 3).and_then(|b| b.first_chunk::<8>());
                handles.extend(handle.map(|b| u64::from_be_bytes(*b)));
            }
        })?;
        Ok(handles)
    }

    /// Base chains of every family at the forward hook whose policy is drop: (table, chain).
    pub(crate) fn dropping_forward_chains(&mut self) -> io::Result<Vec<(String, String)>> {
        const FORWARD: u32 = 2;
        let mut request = Messages::new();
        request.add(GETCHAIN, REQUEST | DUMP, &fixed(0, 0), |_| ());
        let mut chains = Vec::new();
        self.0.query(request, |message| {
            let family = message.payload.first().copied().unwrap_or_default();
            let attributes = message.payload.get(FIXED..).unwrap_or_default();
            let number = |data: Option<&[u8]>| {
                data.and_then(|b| b.first_chunk::<4>()).map(|b| u32::from_be_bytes(*b))
            };
            let hook = attribute(attributes, 4).and_then(|hook| number(attribute(hook, 1)));
            // NFPROTO_INET and NFPROTO_IPV4 see our packets.
            if hook == Some(FORWARD)
                && number(attribute(attributes, 5)) == Some(0)
                && [1, FAMILY_IP].contains(&family)
            {
                let name = |kind| attribute(attributes, kind).map(read_string).unwrap_or_default();
                chains.push((name(1), name(3)));
            }
        })?;
        Ok(chains)
    }
}

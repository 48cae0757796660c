//! Forgets tracked UDP flows of a published port (`linux/netfilter/nfnetlink_conntrack.h`).
//!
//! Translation is decided once per flow. A client that sent to the port before it was published,
//! or while another container had it, would stay with that decision as long as it keeps sending.

use std::io;

use crate::nft::FIXED;
use crate::nl::{DUMP, Messages, REQUEST, Socket, attribute};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIG: u16 = 1;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
/// Bits of the fields that a filter compares: protocol and destination port.
const BY_PROTOCOL_AND_PORT: u32 = 1 << 3 | 1 << 5;

const IPV4: [u8; FIXED] = [2, 0, 0, 0];

/// Deletes the flows whose first packet went to `port` of `protocol`.
pub(crate) fn forget(socket: &mut Socket, protocol: u8, port: u16) -> io::Result<()> {
    let mut request = Messages::new();
    request.add(GET, REQUEST | DUMP, &IPV4, |a| {
        a.nest(TUPLE_ORIG, |a| {
            a.nest(2, |a| {
                a.u8(1, protocol).bytes(3, &port.to_be_bytes());
            });
        });
        a.nest(FILTER, |a| {
            a.u32(1, BY_PROTOCOL_AND_PORT).u32(2, 0);
        });
    });
    let mut deletions = Messages::new();
    socket.query(request, |message| {
        let attributes = message.payload.get(FIXED..).unwrap_or_default();
        let Some(tuple) = attribute(attributes, TUPLE_ORIG) else { return };
        // Kernels before 5.8 do not filter.
        let field = |kind| attribute(tuple, 2).and_then(|proto| attribute(proto, kind));
        if field(1) != Some(&[protocol]) || field(3) != Some(&port.to_be_bytes()) {
            return;
        }
        deletions.add(DELETE, REQUEST, &IPV4, |a| {
            a.nest(TUPLE_ORIG, |a| {
                a.raw(tuple);
            });
            if let Some(zone) = attribute(attributes, ZONE) {
                a.bytes(ZONE, zone);
            }
        });
    })?;
    if deletions.len() == 0 {
        return Ok(());
    }
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    socket
        .each(deletions)?
        .into_iter()
        .find(|result| result.as_ref().is_err_and(|error| !gone(error)))
        .unwrap_or(Ok(()))
}

//! Addresses of a subnet, one bit each.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::NetError;

/// The address pools that Docker tries in turn for a network without a subnet.
pub(crate) fn default_pools() -> impl Iterator<Item = Ipv4Net> {
    let class_b = (17..32).map(|b| ([172, b, 0, 0], 16));
    let class_c = (0..16).map(|c| ([192, 168, c * 16, 0], 20));
    class_b.chain(class_c).filter_map(|(ip, prefix)| Ipv4Net::new(ip.into(), prefix).ok())
}

/// Whether two networks have an address in common.
pub(crate) fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Which addresses of a subnet are taken. Hands them out in a circle, so that an address rests
/// as long as possible before it is used again.
#[derive(Debug)]
pub(crate) struct Ipam {
    subnet: Ipv4Net,
    taken: Vec<u64>,
    /// Offset at which the next search begins.
    next: u32,
}

impl Ipam {
    /// All free but network, broadcast and gateway.
    pub(crate) fn new(subnet: Ipv4Net, gateway: Ipv4Addr) -> Self {
        let size = 1_usize << (32 - u32::from(subnet.prefix_len())).min(24);
        let mut ipam = Self { subnet, taken: vec![0; size.div_ceil(64)], next: 1 };
        for address in [subnet.network(), subnet.broadcast(), gateway] {
            ipam.mark(address, true);
        }
        ipam
    }

    fn size(&self) -> u32 {
        1 << (32 - u32::from(self.subnet.prefix_len())).min(24)
    }

    fn offset(&self, address: Ipv4Addr) -> Option<u32> {
        let offset = u32::from(address).checked_sub(u32::from(self.subnet.network()))?;
        (offset < self.size()).then_some(offset)
    }

    fn bit(offset: u32) -> (usize, u64) {
        (usize::try_from(offset / 64).unwrap_or(usize::MAX), 1 << (offset % 64))
    }

    fn is_taken(&self, offset: u32) -> bool {
        let (word, bit) = Self::bit(offset);
        self.taken.get(word).is_none_or(|w| w & bit != 0)
    }

    fn mark(&mut self, address: Ipv4Addr, taken: bool) {
        let Some(offset) = self.offset(address) else { return };
        let (word, bit) = Self::bit(offset);
        if let Some(w) = self.taken.get_mut(word) {
            if taken { *w |= bit } else { *w &= !bit }
        }
    }

    /// The next free address.
    pub(crate) fn allocate(&mut self) -> Result<Ipv4Addr, NetError> {
        let size = self.size();
        let offset = (self.next..size)
            .chain(1..self.next)
            .find(|&offset| !self.is_taken(offset))
            .ok_or_else(|| NetError::NoFreeAddress(self.subnet.to_string()))?;
        self.next = if offset + 1 < size { offset + 1 } else { 1 };
        let address = Ipv4Addr::from(u32::from(self.subnet.network()) + offset);
        self.mark(address, true);
        Ok(address)
    }

    /// Takes a certain address.
    pub(crate) fn reserve(&mut self, address: Ipv4Addr) -> Result<(), NetError> {
        let offset = self.offset(address).ok_or(NetError::AddressOutside(address.into()))?;
        if self.is_taken(offset) {
            return Err(NetError::AddressInUse);
        }
        self.mark(address, true);
        Ok(())
    }

    pub(crate) fn free(&mut self, address: Ipv4Addr) {
        self.mark(address, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round() {
        let gateway = Ipv4Addr::from([10, 0, 0, 1]);
        let mut ipam = Ipam::new("10.0.0.0/29".parse().unwrap(), gateway);
        let all: Vec<_> = (0..5).map(|_| ipam.allocate().unwrap().octets()[3]).collect();
        assert_eq!(all, [2, 3, 4, 5, 6]);
        assert!(matches!(ipam.allocate(), Err(NetError::NoFreeAddress(_))));
        ipam.free([10, 0, 0, 3].into());
        ipam.free([10, 0, 0, 5].into());
        assert!(matches!(ipam.reserve([10, 0, 0, 2].into()), Err(NetError::AddressInUse)));
        assert!(matches!(ipam.reserve([10, 0, 1, 2].into()), Err(NetError::AddressOutside(_))));
        ipam.reserve([10, 0, 0, 5].into()).unwrap();
        assert_eq!(ipam.allocate().unwrap().octets()[3], 3);
    }

    #[test]
    fn a_freed_address_rests() {
        let mut ipam = Ipam::new("10.0.0.0/24".parse().unwrap(), [10, 0, 0, 1].into());
        let first = ipam.allocate().unwrap();
        ipam.free(first);
        assert_ne!(ipam.allocate().unwrap(), first);
    }

    #[test]
    fn pools_are_dockers() {
        let pools: Vec<_> = default_pools().collect();
        assert_eq!(pools.len(), 31);
        assert_eq!(pools[0].to_string(), "172.17.0.0/16");
        assert_eq!(pools[30].to_string(), "192.168.240.0/20");
        assert!(overlap(pools[0], "172.17.3.0/24".parse().unwrap()));
        assert!(!overlap(pools[0], pools[1]));
    }
}

//! Networks as Kubernetes writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network: an address whose host bits are zero, and the length of its prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cidr {
    /// The network's address.
    pub addr: IpAddr,
    /// Bits of the prefix: at most 32 for IPv4, 128 for IPv6.
    pub prefix: u8,
}

impl Cidr {
    /// The network of an address and a prefix; `None` if the prefix is too long.
    pub fn new(addr: IpAddr, prefix: u8) -> Option<Self> {
        let addr = match addr {
            IpAddr::V4(a) => {
                let mask = prefix_mask(prefix, 32)? as u32;
                IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & mask))
            }
            IpAddr::V6(a) => {
                IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & prefix_mask(prefix, 128)?))
            }
        };
        Some(Self { addr, prefix })
    }

    /// The network of one address.
    pub fn host(addr: IpAddr) -> Self {
        let prefix = if addr.is_ipv4() { 32 } else { 128 };
        Self { addr, prefix }
    }

    /// As Go's `ParseCIDR` after Kubernetes' `ParseCIDRSloppy`: surrounding
    /// whitespace is not allowed, host bits are dropped, and the octets of an
    /// IPv4 address may have leading zeros, which are decimal.
    pub fn parse(text: &str) -> Option<Self> {
        let (addr, prefix) = text.split_once('/')?;
        if prefix.is_empty() || prefix.len() > 3 || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let addr: IpAddr = match addr.parse() {
            Ok(addr) => addr,
            Err(_) => IpAddr::V4(sloppy_v4(addr)?),
        };
        // An IPv4 address in an IPv6 network has no family in kube-proxy.
        if matches!(addr, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            return None;
        }
        Self::new(addr, prefix.parse().ok()?)
    }

    /// Whether the network holds an address (of the same family).
    pub fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.addr.is_ipv4()
            && Self::new(addr, self.prefix).is_some_and(|net| net.addr == self.addr)
    }

    /// Whether the network is of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.addr.is_ipv4()
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

/// The upper `prefix` bits of a number of `width` bits.
fn prefix_mask(prefix: u8, width: u32) -> Option<u128> {
    let prefix = u32::from(prefix);
    (prefix <= width).then(|| {
        let all = u128::MAX >> (128 - width);
        all & !all.checked_shr(prefix).unwrap_or(0)
    })
}

fn sloppy_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() {
            0
        } else {
            digits.parse().ok()?
        };
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_as_kube_proxy_does() {
        for (text, want) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("010.001.0.0/16", Some("10.1.0.0/16")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("::/0", Some("::/0")),
            ("2001:db8::1/64", Some("2001:db8::/64")),
            ("2001:db8::1/128", Some("2001:db8::1/128")),
            ("10.0.0.0/32", Some("10.0.0.0/32")),
            ("10.0.0.0", None),
            ("10.0.0.0/", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/33", None),
            ("10.0.0/8", None),
            ("10.0.0.0.0/8", None),
            ("10..0.0/8", None),
            ("256.0.0.0/8", None),
            ("::/129", None),
            ("::/300", None),
            ("::ffff:10.0.0.0/104", None),
            ("ten/8", None),
            ("", None),
        ] {
            let got = Cidr::parse(text).map(|c| c.to_string());
            assert_eq!(got.as_deref(), want, "{text:?}");
        }
    }

    #[test]
    fn contains_addresses_of_its_family_only() {
        let net = Cidr::parse("10.1.0.0/16").unwrap();
        assert!(net.contains("10.1.255.255".parse().unwrap()));
        assert!(!net.contains("10.2.0.0".parse().unwrap()));
        assert!(!net.contains("::ffff:10.1.0.1".parse().unwrap()));
        let all = Cidr::parse("::/0").unwrap();
        assert!(all.contains("2001:db8::1".parse().unwrap()));
        assert!(!all.contains("10.0.0.1".parse().unwrap()));
    }
}

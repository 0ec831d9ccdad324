//! Networks and client keys.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of networks, asked "does one of them hold this address?".
///
/// IPv4-mapped IPv6 addresses count as IPv4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// The set of these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether one of the networks holds `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The networks.
    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.0.iter()
    }
}

/// What limits and affinity know a client by: its IPv4 /32 or IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey(pub u128);

impl ClientKey {
    /// The key of `address`.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            // IPv4 as the mapped range, so that it can never equal an IPv6 /64.
            IpAddr::V4(v4) => Self(u128::from(v4.to_ipv6_mapped())),
            IpAddr::V6(v6) => Self(u128::from(v6) >> 64 << 64),
        }
    }

    /// The network that the client is in: an IPv4 /16 or an IPv6 /48.
    #[must_use]
    pub fn network(self) -> Self {
        let is_ipv4 = self.0 >> 32 == 0xffff;
        let bits = if is_ipv4 { 16 } else { 80 };
        Self(self.0 >> bits << bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_b6_a_client_is_an_ipv4_address_or_an_ipv6_64() {
        let key = |address: &str| ClientKey::of(address.parse().expect("an address"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_eq!(key("2001:db8:0:1::1"), key("2001:db8:0:1:ffff::2"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8:0:2::1"));
    }

    #[test]
    fn a_network_is_an_ipv4_16_or_an_ipv6_48() {
        let network = |address: &str| ClientKey::of(address.parse().expect("an address")).network();
        assert_eq!(network("192.0.2.1"), network("192.0.255.255"));
        assert_ne!(network("192.0.2.1"), network("192.1.2.1"));
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:ffff::1"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:1:1::1"));
        assert_ne!(network("0.0.0.1"), network("::1"));
    }
}

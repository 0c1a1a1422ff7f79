//! Which addresses a tenant may have the server reach: those of the public internet, and those that its operator allows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses that may be reached beside public ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Public addresses, and those of `allowed`.
    #[must_use]
    pub fn allowing(allowed: Vec<IpNet>) -> Self {
        Self(allowed)
    }

    /// Whether the server may connect to an address.
    #[must_use]
    pub fn allow(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address)) || is_public(address)
    }
}

/// Whether an address belongs to the public internet, by the special-purpose registries of RFC 6890.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let special = match first {
        // This network, loopback, multicast, reserved and broadcast.
        0 | 127 | 224..=255 => true,
        // Shared by a provider's customers (RFC 6598).
        100 => second & 0xc0 == 64,
        // Protocol assignments, documentation, and the relays of 6to4.
        192 => matches!((second, third), (0, 0 | 2) | (88, 99)),
        // Benchmarks and documentation.
        198 => matches!((second, third), (18 | 19, _) | (51, 100)),
        203 => (second, third) == (0, 113),
        _ => false,
    };
    !special && !address.is_private() && !address.is_link_local()
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    // An IPv4 address in the form of NAT64 (RFC 6052) or 6to4 (RFC 3056) leads to that address.
    let embedded = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match parts {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => is_public_v4(embedded(high, low)),
        // Protocol assignments, among them Teredo, and documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast; everything else is loopback, mapped, local, multicast or reserved.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(networks: &Networks, address: &str) -> bool {
        networks.allow(address.parse().expect(address))
    }

    #[test]
    fn only_the_public_internet_is_reached_by_itself() {
        let nothing_more = Networks::default();
        for public in [
            "1.1.1.1",
            "93.184.216.34",
            "100.63.0.1",
            "172.32.0.1",
            "192.1.1.1",
            "198.20.0.1",
            "2606:4700::1",
            "2a00:1450:4001::200e",
            "64:ff9b::101:101",
            "::ffff:8.8.8.8",
        ] {
            assert!(allows(&nothing_more, public), "{public}");
        }
        for special in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "100::1",
            "5f00::1",
        ] {
            assert!(!allows(&nothing_more, special), "{special}");
        }
    }

    #[test]
    fn an_operator_allows_networks_by_name() {
        let own =
            Networks::allowing(vec!["10.0.0.0/8".parse().expect("a network"), "::1/128".parse().expect("a network")]);
        assert!(allows(&own, "10.9.8.7") && allows(&own, "::1") && allows(&own, "::ffff:10.9.8.7"));
        assert!(!allows(&own, "127.0.0.1") && !allows(&own, "192.168.0.1"));
    }
}

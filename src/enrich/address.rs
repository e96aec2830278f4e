//! Addresses as events carry them: free text in, an address or nothing out.
//!
//! OpenVidu writes what its proxy or socket gave it. [`parse`] therefore takes the spellings that occur (spaces, brackets,
//! a port, a zone index, the leading `/` of Java, the first of a forwarded list) and never fails. An IPv4 address inside
//! IPv6 (`::ffff:192.0.2.1`) comes out as IPv4, so that both spellings of one client are one address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address that `text` spells, or nothing.
#[must_use]
pub fn parse(text: &str) -> Option<IpAddr> {
    let first = text.split(',').next().unwrap_or("");
    let host = first.trim().trim_start_matches('/');
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => host,
    };
    let host = host.split_once('%').map_or(host, |(address, _zone)| address);
    host.parse::<IpAddr>()
        .ok()
        .or_else(|| {
            // Only IPv4 may carry a port without brackets.
            let (address, port) = host.split_once(':')?;
            port.parse::<u16>().ok()?;
            address.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
        })
        .map(|address| address.to_canonical())
}

/// What one subscriber of the internet has: of IPv6 a network, in which a machine changes its address now and then (RFC 8981).
#[must_use]
pub fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// Whether an address can be somebody's place on the internet.
///
/// Not so: private, loopback, link-local, shared (RFC 6598), documentation, benchmark, multicast, reserved and
/// unspecified addresses, and the unique-local and site-local ones of IPv6.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let reserved = first == 0
        || first >= 240
        || (first == 100 && second & 0xc0 == 64)
        || (first == 198 && second & 0xfe == 18)
        || (first == 192 && second == 0 && third == 0);
    !(reserved
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, third, fourth, ..] = address.segments();
    let documentation =
        (first == 0x2001 && second == 0xdb8) || (first == 0x3fff && second < 0x1000);
    let discard = first == 0x100 && second == 0 && third == 0 && fourth == 0;
    let site_local = first & 0xffc0 == 0xfec0;
    !(documentation
        || discard
        || site_local
        || address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unique_local()
        || address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_spellings_of_one_address_are_one_address() {
        let expected = "81.2.69.142".parse().ok();
        for text in [
            "81.2.69.142",
            "  81.2.69.142\n",
            "81.2.69.142:51820",
            "/81.2.69.142",
            "/81.2.69.142:443",
            "::ffff:81.2.69.142",
            "::FFFF:5102:458e",
            "[::ffff:81.2.69.142]:443",
            "81.2.69.142, 10.0.0.1",
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        let expected = "2a02:cf40::1".parse().ok();
        for text in ["2a02:cf40::1", "[2a02:cf40::1]", "[2a02:CF40:0::1]:8443", "2a02:cf40::1%eth0"]
        {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn an_address_of_ipv4_is_a_household_and_of_ipv6_a_network() {
        let household = |text: &str| household(text.parse().unwrap());
        assert_eq!(household("2001:db8:1:2::3"), household("2001:db8:1:2:ffff::4"));
        assert_ne!(household("2001:db8:1:2::3"), household("2001:db8:1:3::3"));
        assert_ne!(household("192.0.2.1"), household("192.0.2.2"));
        assert_ne!(household("::ffff:192.0.2.1"), household("::ffff:192.0.2.2"));
    }

    #[test]
    fn what_is_no_address_is_nothing() {
        for text in [
            "",
            " ",
            "unknown",
            "null",
            "81.2.69",
            "81.2.69.256",
            "81.2.69.142:port",
            "[::1",
            ":80",
            "example.org",
            "81.2.69.142:99999",
            "%",
            "[]",
            "2a02:cf40::1:99999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "100::1",
            "2001:db8::1",
            "3fff:fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "81.2.69.142",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2a02:cf40::1",
            "2001:4860::8888",
            "::ffff:81.2.69.142",
            "3fff:1000::1",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_nothing(text in ".{0,80}") {
            prop_assert!(parse(&text).is_none_or(|address| address == address.to_canonical()));
        }

        #[test]
        fn an_address_survives_its_own_spelling(bits: u128, port: u16) {
            let address = IpAddr::V6(Ipv6Addr::from_bits(bits));
            prop_assert_eq!(parse(&address.to_string()), Some(address.to_canonical()));
            prop_assert_eq!(parse(&format!("[{address}]:{port}")), Some(address.to_canonical()));
        }
    }
}

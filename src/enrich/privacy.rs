//! Privacy: what is stored of an address, a user id, a camera's URI.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::{Addresses, Secret};

/// Replaces user ids by a keyed hash, so that one user stays one user and nobody can tell who.
#[derive(Clone)]
pub struct UserHash(Hmac<Sha256>);

impl std::fmt::Debug for UserHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserHash(***)")
    }
}

impl UserHash {
    /// A hash with this key.
    ///
    /// # Panics
    ///
    /// Never: HMAC takes keys of any length.
    #[must_use]
    pub fn new(key: &Secret) -> Self {
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key.expose().as_bytes());
        Self(mac.expect("HMAC takes keys of any length"))
    }

    /// 16 hexadecimal digits in capitals, the form of OpenVidu's own user ids.
    #[must_use]
    pub fn hash(&self, user: &str) -> String {
        let mut mac = self.0.clone();
        mac.update(user.as_bytes());
        mac.finalize().into_bytes().iter().take(8).map(|byte| format!("{byte:02X}")).collect()
    }
}

/// What is stored of `address`.
#[must_use]
pub fn address(address: IpAddr, keep: Addresses) -> Option<IpAddr> {
    match (keep, address) {
        (Addresses::Keep, address) => Some(address),
        (Addresses::Drop, _) => None,
        (Addresses::Truncate, IpAddr::V4(address)) => {
            Some(Ipv4Addr::from_bits(address.to_bits() & 0xffff_ff00).into())
        }
        (Addresses::Truncate, IpAddr::V6(address)) => {
            Some(Ipv6Addr::from_bits(address.to_bits() >> 80 << 80).into())
        }
    }
}

/// `uri` without user name and password.
#[must_use]
pub fn redact_uri(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    // Passwords are not always escaped: the host begins after the last @ before the path, or after any @ if that leaves none.
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => match path.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://{host}"),
            None => uri.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_their_end() {
        let truncated =
            |text: &str| address(text.parse().unwrap(), Addresses::Truncate).unwrap().to_string();
        assert_eq!(truncated("93.184.216.34"), "93.184.216.0");
        assert_eq!(truncated("2606:2800:220:1:248:1893:25c8:1946"), "2606:2800:220::");
        assert_eq!(address("93.184.216.34".parse().unwrap(), Addresses::Drop), None);
    }

    #[test]
    fn user_hash_depends_on_key_and_user() {
        let hash = UserHash::new(&Secret::new("key one"));
        assert_eq!(hash.hash("ana"), hash.hash("ana"));
        assert_ne!(hash.hash("ana"), hash.hash("bo"));
        assert_ne!(hash.hash("ana"), UserHash::new(&Secret::new("key two")).hash("ana"));
        assert_eq!(hash.hash("ana").len(), 16);
    }

    #[test]
    fn camera_uris_lose_their_passwords() {
        let cases = [
            ("rtsp://admin:secret@10.0.0.7:554/live", "rtsp://10.0.0.7:554/live"),
            ("rtsp://admin:p@ss@10.0.0.7/live", "rtsp://10.0.0.7/live"),
            ("rtsp://admin:p/ss@10.0.0.7/live", "rtsp://10.0.0.7/live"),
            ("rtsp://10.0.0.7/live", "rtsp://10.0.0.7/live"),
            ("no uri", "no uri"),
        ];
        for (uri, expected) in cases {
            assert_eq!(redact_uri(uri), expected);
        }
    }
}

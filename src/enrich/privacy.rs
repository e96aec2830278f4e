//! Privacy: what of a person's data reaches a document. Applied last, after places are looked up and ids are made.
//!
//! * Addresses are kept, truncated (the last octet of IPv4, all but the first 48 bits of IPv6 become 0) or dropped. IPv4
//!   inside IPv6 counts as IPv4, otherwise its truncated form would hold no part of it.
//! * User ids become 16 upper-case hexadecimal digits, the first 8 bytes of HMAC-SHA-256(key, id): the form of OpenVidu's
//!   own user ids, the same for the same key, and not to be undone or guessed without it.
//! * User name and password are cut out of `rtspUri`, in front of the host and in what looks like a query.
//! * Fields of the list are left out.
//!
//! Nothing here fails: what cannot be understood is not let through where letting it through could reveal something.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::address;
use crate::config::{Addresses, PrivacyConfig};

/// Written where a part of a text was removed.
const REMOVED: &str = "***";

/// Names under which cameras take a user and a password in the address of a stream.
const CREDENTIAL_KEYS: &[&str] = &[
    "user", "username", "usr", "login", "loginuse", "account", "password", "passwd", "pass", "pwd",
    "psw", "loginpas", "passcode", "token", "auth", "key",
];

/// The `[privacy]` section, ready to be applied.
#[derive(Clone)]
pub struct Privacy {
    addresses: Addresses,
    user_hash: Option<Hmac<Sha256>>,
    drop_fields: HashSet<Box<str>>,
    redact_rtsp_uri: bool,
}

impl fmt::Debug for Privacy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Privacy")
            .field("addresses", &self.addresses)
            .field("hashes_users", &self.user_hash.is_some())
            .field("drop_fields", &self.drop_fields)
            .field("redact_rtsp_uri", &self.redact_rtsp_uri)
            .finish()
    }
}

impl Privacy {
    /// What the settings ask for.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "HMAC takes a key of any length")]
    pub fn new(config: &PrivacyConfig) -> Self {
        let key = config.user_hash_key.expose();
        let user_hash = (!key.is_empty())
            .then(|| Hmac::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length"));
        Self {
            addresses: config.addresses,
            user_hash,
            drop_fields: config.drop_fields.iter().map(|name| name.as_str().into()).collect(),
            redact_rtsp_uri: config.redact_rtsp_uri,
        }
    }

    /// What to store of an address; `None`: nothing. A text that is no address is stored only where addresses are kept.
    #[must_use]
    pub fn address<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        match self.addresses {
            Addresses::Keep => Some(Cow::Borrowed(text)),
            Addresses::Truncate => {
                address::parse(text).map(|address| Cow::Owned(truncate(address).to_string()))
            }
            Addresses::Drop => None,
        }
    }

    /// A text such as an ICE candidate or a session description, in which words may be addresses.
    ///
    /// Each word that is one is truncated, or replaced by the unspecified address of its family.
    #[must_use]
    pub fn addresses_within<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let change: fn(IpAddr) -> IpAddr = match self.addresses {
            Addresses::Keep => return Cow::Borrowed(text),
            Addresses::Truncate => truncate,
            Addresses::Drop => unspecified,
        };
        let mut changed = String::new();
        let mut done = 0;
        for word in text.split_ascii_whitespace() {
            // Words are parts of the text, so their place in it is known without searching.
            let start = word.as_ptr().addr() - text.as_ptr().addr();
            if let Some(address) = address::parse(word) {
                changed.push_str(text.get(done..start).unwrap_or_default());
                changed.push_str(&change(address).to_string());
                done = start + word.len();
            }
        }
        if done == 0 {
            return Cow::Borrowed(text);
        }
        changed.push_str(text.get(done..).unwrap_or_default());
        Cow::Owned(changed)
    }

    /// The id to store for a user.
    #[must_use]
    pub fn user<'t>(&self, id: &'t str) -> Cow<'t, str> {
        let Some(hash) = &self.user_hash else { return Cow::Borrowed(id) };
        if id.is_empty() {
            return Cow::Borrowed(id);
        }
        let digest = hash.clone().chain_update(id.as_bytes()).finalize().into_bytes();
        Cow::Owned(digest.iter().take(8).map(|byte| format!("{byte:02X}")).collect())
    }

    /// Whether user ids are replaced, so that texts which repeat them have to be looked at too.
    #[must_use]
    pub fn hashes_users(&self) -> bool {
        self.user_hash.is_some()
    }

    /// Whether any field is left out.
    #[must_use]
    pub fn drops_any(&self) -> bool {
        !self.drop_fields.is_empty()
    }

    /// Whether the field of this name is left out.
    #[must_use]
    pub fn drops(&self, field: &str) -> bool {
        self.drop_fields.contains(field)
    }

    /// Whether user names and passwords are cut out of the addresses of streams.
    #[must_use]
    pub fn redacts_rtsp_uris(&self) -> bool {
        self.redact_rtsp_uri
    }

    /// The address of a camera's stream as it may be stored.
    #[must_use]
    pub fn rtsp_uri<'t>(&self, uri: &'t str) -> Cow<'t, str> {
        if self.redact_rtsp_uri { without_credentials(uri) } else { Cow::Borrowed(uri) }
    }
}

/// The address of a camera's stream without user name and password, which is its own address without them.
#[must_use]
pub fn without_credentials(uri: &str) -> Cow<'_, str> {
    let (scheme, rest) = uri.split_at(uri.find("://").map_or(0, |at| at + "://".len()));
    let rest = rest.get(user_info_len(rest)..).unwrap_or_default();
    match without_pairs(rest) {
        Some(rest) => Cow::Owned(format!("{scheme}{rest}")),
        None if scheme.len() + rest.len() == uri.len() => Cow::Borrowed(uri),
        None => Cow::Owned(format!("{scheme}{rest}")),
    }
}

/// Bytes in front of the host, including the `@`. `rest` is what follows the scheme.
///
/// Passwords hold unescaped `/`, `?` and `@`. So only where the part before the first `/` can be a host with nothing before
/// it does an `@` further on belong to the path; elsewhere all up to the last one may be password.
fn user_info_len(rest: &str) -> usize {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if is_host(authority) { 0 } else { rest.rfind('@').map_or(0, |at| at + 1) }
}

/// Whether a text can be a host with or without a port.
fn is_host(text: &str) -> bool {
    let port = match text.rsplit_once(']') {
        Some((_, port)) => port.strip_prefix(':'),
        None => text.split_once(':').map(|(_, port)| port),
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    !text.is_empty() && !text.contains('@') && port.is_none_or(is_port)
}

/// The text with the values of `user=…`, `password=…` and the like removed; `None` if there are none.
///
/// Cameras separate such pairs by `&`, `;`, `/` or `_`, in the query or in the path.
fn without_pairs(text: &str) -> Option<String> {
    let mut changed = String::new();
    let mut done = 0;
    for (equals, _) in text.match_indices('=') {
        let key_start = text
            .get(done..equals)
            .and_then(|key| key.rfind(|c: char| !c.is_ascii_alphanumeric()))
            .map_or(done, |at| done + at + 1);
        let key = text.get(key_start..equals).unwrap_or_default();
        if !CREDENTIAL_KEYS.iter().any(|known| key.eq_ignore_ascii_case(known)) {
            continue;
        }
        let value_start = equals + 1;
        let in_query = text.get(..equals).is_some_and(|before| before.contains('?'));
        let value_len = value_len(text.get(value_start..).unwrap_or_default(), in_query);
        if value_len > 0 {
            changed.push_str(text.get(done..value_start).unwrap_or_default());
            changed.push_str(REMOVED);
            done = value_start + value_len;
        }
    }
    changed.push_str(text.get(done..).unwrap_or_default());
    (done > 0).then_some(changed)
}

/// Bytes of a value: up to a separator, or up to `_` with another key after it.
fn value_len(text: &str, in_query: bool) -> usize {
    let ends = |(at, c): (usize, char)| match c {
        '&' | ';' | '#' => true,
        '/' | '?' => !in_query,
        '_' => {
            let rest = text.get(at + 1..).unwrap_or_default();
            let key = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
            key > 0 && rest.as_bytes().get(key) == Some(&b'=')
        }
        _ => false,
    };
    text.char_indices().find(|found| ends(*found)).map_or(text.len(), |(at, _)| at)
}

fn truncate(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, third, _] = address.octets();
            IpAddr::V4(Ipv4Addr::new(first, second, third, 0))
        }
        IpAddr::V6(address) => {
            let [first, second, third, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0))
        }
    }
}

fn unspecified(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Secret;

    fn privacy(addresses: Addresses) -> Privacy {
        Privacy::new(&PrivacyConfig {
            addresses,
            user_hash_key: Secret::new("a key of some length"),
            drop_fields: vec!["clientData".into(), "data".into()],
            redact_rtsp_uri: true,
        })
    }

    #[test]
    fn addresses_are_kept_truncated_or_dropped() {
        let [keep, truncate, drop] =
            [Addresses::Keep, Addresses::Truncate, Addresses::Drop].map(privacy);
        for (text, truncated) in [
            ("81.2.69.142", Some("81.2.69.0")),
            ("81.2.69.142:443", Some("81.2.69.0")),
            ("::ffff:81.2.69.142", Some("81.2.69.0")),
            ("2a02:cf40:1234:5678:9abc::1", Some("2a02:cf40:1234::")),
            ("[2a02:cf40:1234:5678::1]:443", Some("2a02:cf40:1234::")),
            ("fe80::1%eth0", Some("fe80::")),
            ("unknown", None),
            ("alice@example.org", None),
        ] {
            assert_eq!(keep.address(text).as_deref(), Some(text));
            assert_eq!(truncate.address(text).as_deref(), truncated, "{text}");
            assert_eq!(drop.address(text), None);
        }
    }

    #[test]
    fn addresses_inside_a_text_are_changed_and_nothing_else() {
        let candidate = "candidate:1 1 udp 2013266431 81.2.69.142 48210 typ srflx raddr 2a02:cf40:1:2::3 rport 9";
        assert_eq!(privacy(Addresses::Keep).addresses_within(candidate), candidate);
        assert_eq!(
            privacy(Addresses::Truncate).addresses_within(candidate),
            "candidate:1 1 udp 2013266431 81.2.69.0 48210 typ srflx raddr 2a02:cf40:1:: rport 9"
        );
        assert_eq!(
            privacy(Addresses::Drop).addresses_within(candidate),
            "candidate:1 1 udp 2013266431 0.0.0.0 48210 typ srflx raddr :: rport 9"
        );
        let description = "v=0\r\nc=IN IP4 81.2.69.142\r\na=rtcp:9 IN IP4 81.2.69.142\r\n";
        assert_eq!(
            privacy(Addresses::Truncate).addresses_within(description),
            "v=0\r\nc=IN IP4 81.2.69.0\r\na=rtcp:9 IN IP4 81.2.69.0\r\n"
        );
        let plain = "candidate:1 1 udp 1 d3f1.local 9 typ host";
        assert!(matches!(privacy(Addresses::Drop).addresses_within(plain), Cow::Borrowed(_)));
    }

    #[test]
    fn user_ids_become_ids_of_the_same_form_that_depend_on_the_key() {
        let privacy = privacy(Addresses::Keep);
        // echo -n 6596FB7B9D1A7C25 | openssl dgst -sha256 -hmac "a key of some length"
        assert_eq!(privacy.user("6596FB7B9D1A7C25"), "72BE09EAA0681C7F");
        assert_eq!(privacy.user(""), "");
        let other = Privacy::new(&PrivacyConfig {
            user_hash_key: Secret::new("another key"),
            addresses: Addresses::Keep,
            drop_fields: Vec::new(),
            redact_rtsp_uri: true,
        });
        assert_ne!(other.user("6596FB7B9D1A7C25"), privacy.user("6596FB7B9D1A7C25"));
        let none = Privacy::new(&PrivacyConfig {
            user_hash_key: Secret::new(""),
            addresses: Addresses::Keep,
            drop_fields: Vec::new(),
            redact_rtsp_uri: false,
        });
        assert_eq!(none.user("6596FB7B9D1A7C25"), "6596FB7B9D1A7C25");
        assert!(privacy.hashes_users() && !none.hashes_users());
        assert_eq!(none.rtsp_uri("rtsp://u:p@host/"), "rtsp://u:p@host/");
    }

    #[test]
    fn listed_fields_are_left_out() {
        let privacy = privacy(Addresses::Keep);
        assert!(privacy.drops("clientData") && privacy.drops("data"));
        assert!(!privacy.drops("serverData") && !privacy.drops("") && !privacy.drops("clientdata"));
    }

    #[test]
    fn user_and_password_are_cut_out_of_stream_addresses() {
        let privacy = privacy(Addresses::Keep);
        for (uri, redacted) in [
            ("rtsp://user:p%40ss@host:554/path?x=1", "rtsp://host:554/path?x=1"),
            ("rtsp://user@host/path", "rtsp://host/path"),
            ("RTSPS://user:p@ss@host/path", "RTSPS://host/path"),
            ("rtsp://admin:pa/ss@10.0.0.9:554/stream", "rtsp://10.0.0.9:554/stream"),
            ("rtsp://admin:pa?s/s@10.0.0.9/stream", "rtsp://10.0.0.9/stream"),
            ("rtsp://admin:p@/s@10.0.0.9/stream", "rtsp://10.0.0.9/stream"),
            ("rtsp://:secret@host", "rtsp://host"),
            ("rtsp://admin:/x@host/s", "rtsp://host/s"),
            ("rtsp://u:p@[2001:db8::9]:554/s", "rtsp://[2001:db8::9]:554/s"),
            ("user:secret@host/path", "host/path"),
            (
                "rtsp://host/s?user=admin&password=12345&c=1",
                "rtsp://host/s?user=***&password=***&c=1",
            ),
            (
                "rtsp://host/user=admin_password=tlJw_pbo6_channel=1_stream=0.sdp",
                "rtsp://host/user=***_password=***_channel=1_stream=0.sdp",
            ),
            (
                "rtsp://host/user=admin&password=&channel=1",
                "rtsp://host/user=***&password=&channel=1",
            ),
            ("rtsp://host/s?PWD=a/b?c&x=2", "rtsp://host/s?PWD=***&x=2"),
            ("rtsp://u:p@host/s?token=abc", "rtsp://host/s?token=***"),
        ] {
            assert_eq!(privacy.rtsp_uri(uri), redacted, "{uri}");
        }
        for uri in [
            "rtsp://host/stream",
            "rtsp://host:554/cam@1",
            "rtsp://[2001:db8::9]/s",
            "rtsp://host",
            "",
            "rtsp://",
            "rtsp://host/s?channel=1",
            "no address at all",
        ] {
            assert!(matches!(privacy.rtsp_uri(uri), Cow::Borrowed(same) if same == uri), "{uri}");
        }
    }

    proptest! {
        #[test]
        fn no_password_survives(
            user in "[a-z0-9%.+-]{0,8}", password in "[a-zA-Z0-9@/?%!:&=#]{0,6}QQ[a-zA-Z0-9@/?%!:&=#]{0,6}",
            host in "(cam\\.example|10\\.0\\.0\\.9|\\[2001:db8::9\\])", rest in "(:554)?(/[a-z0-9]{0,6})?",
        ) {
            // Digits and a slash cannot be told from a port and a path.
            let before = password.split(['/', '?', '#']).next().unwrap();
            prop_assume!(before.is_empty() || !before.bytes().all(|byte| byte.is_ascii_digit()));
            let uri = format!("rtsp://{user}:{password}@{host}{rest}");
            let redacted = privacy(Addresses::Keep).rtsp_uri(&uri).into_owned();
            prop_assert!(!redacted.contains("QQ"), "{} from {}", redacted, uri);
            prop_assert_eq!(redacted, format!("rtsp://{host}{rest}"));
        }

        #[test]
        fn any_text_goes_through(text in "\\PC{0,80}") {
            for addresses in [Addresses::Keep, Addresses::Truncate, Addresses::Drop] {
                let privacy = privacy(addresses);
                prop_assert!(privacy.address(&text).is_none_or(|kept| kept.len() <= text.len() + 45));
                prop_assert!(privacy.rtsp_uri(&text).len() <= text.len() * 4);
                let once = privacy.addresses_within(&text).into_owned();
                prop_assert_eq!(&*privacy.addresses_within(&once), &*once);
                prop_assert_eq!(privacy.user(&text).len(), if text.is_empty() { 0 } else { 16 });
            }
        }

        #[test]
        fn truncation_leaves_the_network_and_repeats_without_change(bits: u128) {
            let address = IpAddr::V6(Ipv6Addr::from_bits(bits));
            let privacy = privacy(Addresses::Truncate);
            let once = privacy.address(&address.to_string()).unwrap().into_owned();
            prop_assert_eq!(privacy.address(&once).unwrap(), once.as_str());
        }
    }
}

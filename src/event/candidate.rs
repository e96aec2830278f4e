//! What ICE candidates tell of the way that media takes.

use serde::{Deserialize, Serialize};

/// What kind of address a candidate is (RFC 8839).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CandidateKind {
    /// Of the machine itself.
    Host,
    /// As a STUN server sees it.
    Srflx,
    /// As the other end sees it.
    Prflx,
    /// Of a TURN server that relays.
    Relay,
}

/// How packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "names of protocols")]
pub enum Transport {
    Udp,
    Tcp,
}

/// What an ICE candidate tells of its path. What it does not tell is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Of what kind it is.
    pub kind: Option<CandidateKind>,
    /// How packets go.
    pub transport: Option<Transport>,
}

/// The pair of candidates that ICE has selected.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Pair {
    /// The media server's end.
    pub local: Option<CandidateKind>,
    /// The other end.
    pub remote: Option<CandidateKind>,
    /// How packets go.
    pub transport: Option<Transport>,
}

impl CandidateKind {
    const ALL: [Self; 4] = [Self::Host, Self::Srflx, Self::Prflx, Self::Relay];

    /// As in candidates.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Srflx => "srflx",
            Self::Prflx => "prflx",
            Self::Relay => "relay",
        }
    }
}

impl Transport {
    /// In lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

impl Candidate {
    /// Reads `candidate:1 1 udp 2013266431 192.0.2.7 48210 typ relay …` (RFC 8839), with or without `a=` in front.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut words = text.split_ascii_whitespace();
        let transport = words.clone().nth(2).unwrap_or_default();
        words.find(|word| word.eq_ignore_ascii_case("typ"));
        let kind = words.next().unwrap_or_default();
        let mut kinds = CandidateKind::ALL.into_iter();
        let mut transports = [Transport::Udp, Transport::Tcp].into_iter();
        Self {
            kind: kinds.find(|known| kind.eq_ignore_ascii_case(known.name())),
            transport: transports.find(|known| transport.eq_ignore_ascii_case(known.name())),
        }
    }
}

impl Pair {
    /// Of the object that Kurento tells; `None` if `json` is none.
    #[must_use]
    pub fn read(json: &str) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Told {
            #[serde(default)]
            local_candidate: String,
            #[serde(default)]
            remote_candidate: String,
        }
        let told: Told = serde_json::from_str(json).ok()?;
        let local = Candidate::read(&told.local_candidate);
        let remote = Candidate::read(&told.remote_candidate);
        Some(Self {
            local: local.kind,
            remote: remote.kind,
            transport: local.transport.or(remote.transport),
        })
    }

    /// Whether it tells nothing.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Whether a TURN server stands between.
    #[must_use]
    pub fn is_relayed(self) -> bool {
        [self.local, self.remote].contains(&Some(CandidateKind::Relay))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::CandidateKind::{Host, Prflx, Relay, Srflx};
    use super::Transport::{Tcp, Udp};
    use super::*;

    #[test]
    fn candidates_tell_their_type_and_transport() {
        for (text, kind, transport) in [
            ("candidate:1 1 udp 2013266431 192.0.2.7 48210 typ host", Some(Host), Some(Udp)),
            (
                "a=candidate:842163049 1 UDP 1677729535 192.0.2.7 46154 typ srflx raddr 10.0.0.2 rport 9",
                Some(Srflx),
                Some(Udp),
            ),
            (
                "candidate:2 1 TCP 1015021823 192.0.2.7 9 typ prflx tcptype active",
                Some(Prflx),
                Some(Tcp),
            ),
            (
                "candidate:7 1 udp 41885439 198.51.100.3 61000 typ relay raddr 0.0.0.0 rport 0",
                Some(Relay),
                Some(Udp),
            ),
            (
                "candidate:7 1 udp 41885439 d3f1.local 61000 typ HOST generation 0",
                Some(Host),
                Some(Udp),
            ),
            ("candidate:7 1 sctp 41885439 192.0.2.7 61000 typ odd", None, None),
            ("candidate:7 1 udp 41885439 192.0.2.7 61000 typ", None, Some(Udp)),
            ("typ relay", Some(Relay), None),
            ("", None, None),
        ] {
            assert_eq!(Candidate::read(text), Candidate { kind, transport }, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_goes_through(text in "\\PC{0,80}") {
            prop_assert_eq!(Candidate::read(&text), Candidate::read(&format!(" {text} ")));
        }
    }
}

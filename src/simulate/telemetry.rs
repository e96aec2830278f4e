//! What the media server sees of a simulated session.

use std::collections::{BTreeMap, BTreeSet};

use super::rng::Rng;
use super::{Emitted, Endpoint, MEDIA_NODE, Script};
use crate::json::Object;

/// How well somebody is connected, all through a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Good,
    /// Media stops for a moment.
    Poor,
    /// Some endpoints never connect, media of others stops for good.
    Bad,
}

/// Milliseconds from the endpoint's creation to each state of its ICE component, on a good network.
const ICE: [(i64, &str); 4] =
    [(6, "GATHERING"), (60, "CONNECTING"), (200, "CONNECTED"), (320, "READY")];
/// When ICE is given up, milliseconds.
const ICE_FAILS_AFTER: i64 = 10_000;

/// `odd`: chance of what is told besides.
pub(super) fn tell(
    script: &Script,
    rng: &mut Rng,
    odd: &mut Rng,
    stats_every: i64,
) -> Vec<Emitted> {
    let mut teller = Teller { script, events: Vec::new() };
    teller.shown();
    let mut networks: BTreeMap<&str, Network> = BTreeMap::new();
    let mut receiving: BTreeSet<&str> = BTreeSet::new();
    for endpoint in &script.endpoints {
        let network = *networks.entry(endpoint.user).or_insert_with(|| match rng.below(50) {
            0 => Network::Bad,
            1..=3 => Network::Poor,
            _ => Network::Good,
        });
        let own = &mut Own { endpoint, network, rng };
        if !teller.connects(own) {
            continue;
        }
        if endpoint.is_publisher {
            teller.odd(endpoint, odd);
            teller.interrupts(own);
            teller.quality(own);
            for (media, every_second) in [("audio", 50), ("video", 120)] {
                teller.received(own, media, every_second, stats_every);
            }
        } else if receiving.insert(&endpoint.connection) {
            teller.sent(own, stats_every);
        }
    }
    teller.events.sort_by_key(|event| event.at);
    teller.events
}

/// An endpoint, and the chance it is subject to.
struct Own<'a> {
    endpoint: &'a Endpoint,
    network: Network,
    rng: &'a mut Rng,
}

struct Teller<'a> {
    script: &'a Script,
    events: Vec<Emitted>,
}

impl Teller<'_> {
    /// The session as the REST API shows it, where anybody comes.
    fn shown(&mut self) {
        let Script { id, unique_id, start, .. } = self.script;
        if self.script.endpoints.is_empty() {
            return;
        }
        let mut json = Object::with_capacity(300);
        json.text("elastic_type", "seen");
        json.text("type", "session");
        json.text("sessionId", id);
        json.text("uniqueSessionId", unique_id);
        json.text("customSessionId", id);
        json.text("mediaMode", "ROUTED");
        json.text("recordingMode", "MANUAL");
        json.text("media_node_id", MEDIA_NODE);
        json.integer("timestamp", *start);
        self.events.push(Emitted { at: *start, json: json.finish() });
    }

    fn emit(&mut self, at: i64, endpoint: &Endpoint, fill: impl FnOnce(&mut Object)) {
        if at >= endpoint.to {
            return;
        }
        let mut json = Object::with_capacity(400);
        json.text("sessionId", &self.script.id);
        json.text("uniqueSessionId", &self.script.unique_id);
        json.text("connectionId", &endpoint.connection);
        fill(&mut json);
        json.integer("timestamp", at);
        self.events.push(Emitted { at, json: json.finish() });
    }

    fn kms(&mut self, at: i64, endpoint: &Endpoint, kind: &str, fill: impl FnOnce(&mut Object)) {
        self.emit(at, endpoint, |json| {
            json.text_if("user", Some(endpoint.user).filter(|user| !user.is_empty()));
            json.text("endpoint", &endpoint.name);
            json.text("type", kind);
            json.integer("msSinceEndpointCreation", at - endpoint.from);
            fill(json);
        });
    }

    fn flow(&mut self, at: i64, endpoint: &Endpoint, media: &str, state: &str) {
        let kind = if endpoint.is_publisher {
            "MediaFlowInStateChanged"
        } else {
            "MediaFlowOutStateChanged"
        };
        self.kms(at, endpoint, kind, |json| {
            json.text("state", state);
            json.text("padName", "default");
            json.text("mediaType", media);
        });
    }

    /// ICE, and the first media. Whether it came that far.
    fn connects(&mut self, own: &mut Own<'_>) -> bool {
        let endpoint = own.endpoint;
        let late = own.rng.span(if own.network == Network::Good { 300 } else { 1500 });
        let fails = own.network == Network::Bad && own.rng.below(3) == 0;
        let length = endpoint.to - endpoint.from;
        let states = ICE.iter().take(if fails { 2 } else { ICE.len() }).copied();
        let failed = fails.then(|| (ICE_FAILS_AFTER.min(length / 2), "FAILED"));
        // Receivers are many; their states on the way are left out.
        for (after, state) in states.chain(failed) {
            if endpoint.is_publisher || matches!(state, "CONNECTED" | "FAILED") {
                self.kms(
                    endpoint.from + after + late,
                    endpoint,
                    "IceComponentStateChanged",
                    |json| {
                        json.integer("streamId", 1);
                        json.integer("componentId", 1);
                        json.text("state", state);
                    },
                );
            }
        }
        if fails {
            return false;
        }
        let kind = match own.rng.below(10) {
            0 => "relay",
            1..=3 => "host",
            _ => "srflx",
        };
        self.kms(endpoint.from + late + 180, endpoint, "NewCandidatePairSelected", |json| {
            let pair = format!(
                "{{\"streamId\":1,\"componentId\":1,\"localCandidate\":\"candidate:1 1 UDP 2013266431 172.17.0.3 40000 typ host\",\"remoteCandidate\":\"candidate:2 1 UDP 1677729535 198.51.100.7 50000 typ {kind}\"}}"
            );
            json.json("candidatePair", &pair);
        });
        if endpoint.is_publisher {
            self.kms(endpoint.from + late + 260, endpoint, "IceGatheringDone", |_| {});
            self.flow(endpoint.from + late + 400, endpoint, "AUDIO", "FLOWING");
        }
        self.flow(endpoint.from + late + 450, endpoint, "VIDEO", "FLOWING");
        true
    }

    /// Media that has to be translated, and what the media server complains about.
    fn odd(&mut self, endpoint: &Endpoint, rng: &mut Rng) {
        if rng.below(12) == 0 {
            self.kms(endpoint.from + 1_000, endpoint, "MediaTranscodingStateChanged", |json| {
                json.text("state", "TRANSCODING");
                json.text("binName", "kurento.WebRtcEndpoint");
                json.text("mediaType", "VIDEO");
            });
        }
        if rng.below(40) == 0 {
            self.kms(endpoint.from + 2_000, endpoint, "UNEXPECTED_ERROR", |json| {
                json.text("description", "Unexpected media processing error");
                json.integer("errorCode", 101);
            });
        }
    }

    /// Media that stops on the way.
    fn interrupts(&mut self, own: &mut Own<'_>) {
        let endpoint = own.endpoint;
        let length = endpoint.to - endpoint.from;
        if own.network == Network::Good || own.rng.below(3) == 0 {
            return;
        }
        let stop = endpoint.from + length / 4 + own.rng.span(length / 4 + 1);
        self.flow(stop, endpoint, "VIDEO", "NOT_FLOWING");
        let is_lost = own.network == Network::Bad && own.rng.below(3) == 0;
        if !is_lost {
            let gap = (2_000 + own.rng.span(18_000)) / self.script.pace;
            self.flow(stop + gap.max(1), endpoint, "VIDEO", "FLOWING");
        }
    }

    fn quality(&mut self, own: &mut Own<'_>) {
        let endpoint = own.endpoint;
        let length = endpoint.to - endpoint.from;
        let levels: &[i64] = match own.network {
            Network::Good if own.rng.below(4) > 0 => &[],
            Network::Good => &[4, 5],
            Network::Poor if own.rng.below(3) == 0 => &[3, 4, 2, 4],
            Network::Poor => &[3, 4],
            Network::Bad => &[2, 3, 1],
        };
        let mut before = 5;
        for (index, level) in (1..).zip(levels) {
            let at = endpoint.from + length * index / 6 + own.rng.span(length / 8 + 1);
            self.emit(at, endpoint, |json| {
                json.integer("newValue", *level);
                json.integer("oldValue", before);
            });
            before = *level;
        }
    }

    /// What the media server received from a publisher, at every tick since its creation.
    fn received(&mut self, own: &mut Own<'_>, media: &str, every_second: i64, every: i64) {
        let endpoint = own.endpoint;
        let (mut at, mut lost) = (endpoint.from + every, 0);
        while at < endpoint.to {
            let packets = (at - endpoint.from) * every_second / 1000;
            let (rate, jitter) = match own.network {
                Network::Good => (1, 2 + own.rng.span(10)),
                Network::Poor => (20, 15 + own.rng.span(40)),
                Network::Bad => (80, 50 + own.rng.span(150)),
            };
            lost += own.rng.span(every * every_second / 1_000_000 * rate * 2 + 1);
            self.stats(at, endpoint, media, |json| {
                json.number("jitter", seconds(jitter));
                json.integer("bytesReceived", packets * 900);
                json.integer("packetsReceived", packets);
                json.integer("packetsLost", lost);
                json.integer("nackCount", lost / 2);
                json.integer("pliCount", lost / 50);
            });
            at += every;
        }
    }

    /// What it sent to a receiver.
    fn sent(&mut self, own: &mut Own<'_>, every: i64) {
        let endpoint = own.endpoint;
        let mut at = endpoint.from + every;
        while at < endpoint.to {
            let packets = (at - endpoint.from) * 120 / 1000;
            let trip = match own.network {
                Network::Good => 15 + own.rng.span(60),
                Network::Poor => 120 + own.rng.span(200),
                Network::Bad => 300 + own.rng.span(900),
            };
            self.stats(at, endpoint, "video", |json| {
                json.number("rtt", seconds(trip));
                json.integer("bytesSent", packets * 900);
                json.integer("packetsSent", packets);
                // The longer the way, the more is held back.
                json.integer("targetBitrate", 60_000_000 / (40 + trip));
            });
            at += every;
        }
    }

    fn stats(&mut self, at: i64, endpoint: &Endpoint, media: &str, fill: impl FnOnce(&mut Object)) {
        self.emit(at, endpoint, |json| {
            json.text_if("user", Some(endpoint.user).filter(|user| !user.is_empty()));
            json.text("endpoint", &endpoint.name);
            json.text("mediaType", media);
            fill(json);
        });
    }
}

#[expect(clippy::cast_precision_loss, reason = "some hundred milliseconds")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

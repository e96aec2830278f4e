//! A simulated OpenVidu cluster, for `callscope demo`, tests and benches.
//!
//! [`session`] plays one session by a script of chance: people join over time, publish camera and screen, subscribe to each
//! other, lose their network, come back; recordings become ready soon, late or never; nodes crash. What comes out are the
//! webhook bodies of OpenVidu 2.22, field for field and in the order of its cascades, each with the time at which it is
//! sent. The same seed gives the same bytes. Beside the events stands the [`Truth`], counted by the script itself.
//!
//! [`telemetry`] tells what OpenVidu's own indexer would have written beside them: what the media server saw of every endpoint,
//! with networks that lose packets, stop media or never connect. It is told apart, because no webhook of OpenVidu carries it;
//! that it names users makes people of connections.
//!
//! With a `pace` above 1 everything takes that much less time, while identities and times stay those of the clock.

use std::fmt::Write;

use crate::json::Object;

pub mod community;
pub mod rng;
pub mod send;
mod telemetry;

use rng::Rng;

/// An event, and when it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    /// Milliseconds since 1970.
    pub at: i64,
    /// Webhook body.
    pub json: String,
}

/// What the summaries of a session must show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Truth {
    /// `uniqueSessionId`.
    pub unique_session_id: String,
    /// Connections.
    pub connections: usize,
    /// Streams that were sent.
    pub publishers: usize,
    /// Streams that were received.
    pub subscribers: usize,
    /// Recordings with their final status.
    pub recordings: Vec<&'static str>,
    /// Why it ended.
    pub reason: &'static str,
    /// When it ended.
    pub end: i64,
}

const PEOPLE: &[&str] = &[
    "Ana", "Bo", "Chen", "Dara", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kofi", "Lena",
    "Mateo", "Nadia", "Olu", "Priya", "Quinn", "Rosa", "Sven", "Tomás", "Uma", "Viktor", "Wen",
    "Ximena", "Yusuf", "Zoë",
];
const NAMES: &[&str] = &[
    "daily-standup",
    "support",
    "design-review",
    "physics-101",
    "telehealth",
    "board-meeting",
    "sales-call",
    "interview",
    "all-hands",
    "retro",
    "piano-lesson",
    "onboarding",
];
const PLATFORMS: &[&str] = &[
    "Chrome 129.0.6668.70 on Linux 64-bit",
    "Chrome 129.0.0.0 on Windows 10 64-bit",
    "Chrome 130.0.0.0 on OS X 10.15.7",
    "Safari 17.6 on OS X 10.15.7",
    "Firefox 131.0 on Windows 10 64-bit",
    "Microsoft Edge 129.0.2792 on Windows 10 64-bit",
    "Safari 17.5 on Apple iPhone (iOS 17.5)",
    "Chrome Mobile 129.0.6668 on Samsung Galaxy S23 (Android 14)",
];
/// Where a person is.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// As events name it: city and country.
    pub name: &'static str,
    /// Of the person's machine.
    pub address: &'static str,
    /// Latitude and longitude, degrees.
    pub at: (f64, f64),
}

const fn place(name: &'static str, address: &'static str, at: (f64, f64)) -> Place {
    Place { name, address, at }
}

/// Where people call from.
pub const PLACES: &[Place] = &[
    place("Madrid, Spain", "80.58.61.250", (40.4, -3.7)),
    place("Lyon, France", "90.80.70.60", (45.8, 4.8)),
    place("Berlin, Germany", "91.64.10.20", (52.5, 13.4)),
    place("São Paulo, Brazil", "177.8.9.10", (-23.6, -46.6)),
    place("Mumbai, India", "49.36.1.2", (19.1, 72.9)),
    place("Chicago, United States", "73.8.9.10", (41.9, -87.6)),
    place("Lagos, Nigeria", "105.112.3.4", (6.5, 3.4)),
    place("Tokyo, Japan", "126.1.2.3", (35.7, 139.7)),
    place("Sydney, Australia", "1.128.5.6", (-33.9, 151.2)),
    place("London, United Kingdom", "81.2.69.142", (51.5, -0.1)),
];

/// A GeoIP database of [`PLACES`], written by `examples/places.rs`.
pub const PLACES_DATABASE: &[u8] = include_bytes!("simulate/places.mmdb");

/// Where the media of all sessions is.
const MEDIA_NODE: &str = "media_i-0a1b2c3d4e5f";

/// One session that begins at `start`.
#[must_use]
pub fn session(seed: u64, start: i64, pace: i64) -> (Vec<Emitted>, Truth) {
    let mut script = Script::new(seed, start, pace.max(1));
    script.play();
    // Chance of its own, so that the story is the same without it.
    script.application(&mut Rng::new(seed.rotate_left(32)));
    let mut events = script.events;
    // Chance draws times in the order of the story; a webhook sends in the order of time.
    events.sort_by_key(|event| event.at);
    (events, script.truth)
}

/// What the media server tells of the session that [`session`] plays with the same arguments: `kms`, `webrtcStats` (every
/// `stats_every` milliseconds) and `networkQualityStats`, and what the REST API shows of the session.
#[must_use]
pub fn telemetry(seed: u64, start: i64, pace: i64, stats_every: i64) -> Vec<Emitted> {
    let mut script = Script::new(seed, start, pace.max(1));
    script.play();
    let (chance, odd) = (&mut Rng::new(!seed), &mut Rng::new((!seed).rotate_left(32)));
    telemetry::tell(&script, chance, odd, stats_every.max(1000))
}

struct Person {
    /// Empty for a camera.
    name: &'static str,
    connection: String,
    client_data: String,
    platform: &'static str,
    place: &'static str,
    address: &'static str,
    joined: i64,
    leaves: i64,
    reason: &'static str,
    stream: Option<Stream>,
}

#[derive(Clone)]
struct Stream {
    id: String,
    source: &'static str,
    from: i64,
}

/// One end of a stream in the media server.
struct Endpoint {
    user: &'static str,
    connection: String,
    /// As the media server calls it.
    name: String,
    is_publisher: bool,
    from: i64,
    to: i64,
}

struct Script {
    rng: Rng,
    pace: i64,
    start: i64,
    id: String,
    unique_id: String,
    events: Vec<Emitted>,
    endpoints: Vec<Endpoint>,
    truth: Truth,
}

impl Script {
    fn new(seed: u64, start: i64, pace: i64) -> Self {
        let mut rng = Rng::new(seed);
        let id = match rng.below(3) {
            0 => format!("ses_{}", capitalised(&mut rng, 9)),
            _ => {
                let name = rng.pick(NAMES);
                if rng.below(2) == 0 {
                    (*name).to_owned()
                } else {
                    format!("{name}-{}", rng.below(90) + 10)
                }
            }
        };
        let unique_id = format!("{id}_{start}");
        let truth = Truth { unique_session_id: unique_id.clone(), ..Truth::default() };
        Self { rng, pace, start, id, unique_id, events: Vec::new(), endpoints: Vec::new(), truth }
    }

    /// So many seconds of the story.
    fn seconds(&mut self, least: i64, most: i64) -> i64 {
        let millis = least * 1000 + self.rng.span((most - least) * 1000 + 1);
        (millis / self.pace).max(1)
    }

    fn play(&mut self) {
        self.emit(self.start, "sessionCreated", self.start, |_| {});
        if self.rng.below(40) == 0 {
            // Nobody comes; the garbage collector removes it without a word.
            self.truth = Truth::default();
            return;
        }
        let length = self.seconds(180, 3000);
        let is_talk = self.rng.below(20) == 0;
        let count = 1 + self.rng.below(if is_talk { 2 } else { 8 });
        let crashes = self.rng.below(50) == 0;
        let closes = self.rng.below(6) == 0;
        let planned_end = self.start + length;
        let reason = if crashes {
            "nodeCrashed"
        } else if closes {
            "sessionClosedByServer"
        } else {
            "disconnect"
        };
        let mut people = Vec::new();
        for _ in 0..count {
            self.person(planned_end, reason, &mut people);
        }
        if self.rng.below(15) == 0 {
            self.camera(planned_end, reason, &mut people);
        }
        // With nobody left before the planned end, the session ends with the last one.
        let last = people.iter().map(|person| person.leaves).max().unwrap_or(planned_end);
        let end = if crashes || closes { planned_end } else { last };
        self.streams(&people);
        for person in &people {
            self.leave(person);
        }
        let final_reason = if reason == "disconnect" { "lastParticipantLeft" } else { reason };
        if self.rng.below(3) == 0 {
            self.recording(end, final_reason);
        }
        if crashes {
            let (id, at) = (self.id.clone(), end - 1);
            self.raw(at, &format!(
                "{{\"timestamp\":{at},\"id\":\"{MEDIA_NODE}\",\"environmentId\":\"i-0a1b2c3d4e5f\",\"ip\":\"172.17.0.3\",\"uri\":\"ws://172.17.0.3:8888/kurento\",\"nodeRole\":\"medianode\",\"sessionIds\":[\"{id}\"],\"recordingIds\":[],\"clusterId\":\"demo\",\"timeOfDisconnection\":{at},\"event\":\"nodeCrashed\"}}"
            ));
        }
        let start = self.start;
        self.emit(end + 2, "sessionDestroyed", end + 2, |json| {
            ended(json, start, end + 2, Some(final_reason))
        });
        self.truth.reason = final_reason;
        self.truth.end = end + 2;
    }

    /// Somebody comes, perhaps loses the network and comes back, perhaps shares a screen.
    fn person(&mut self, planned_end: i64, reason: &'static str, people: &mut Vec<Person>) {
        // Nobody is there twice; drawn once, so that what follows does not depend on who came before.
        let drawn = usize::try_from(self.rng.below(PEOPLE.len() as u64)).unwrap_or(0);
        let is_new = |name: &&&str| people.iter().all(|person| person.name != **name);
        let mut names = PEOPLE.iter().cycle().skip(drawn).take(PEOPLE.len());
        let name = names.find(is_new).copied().unwrap_or("Nobody");
        let Place { name: place, address, .. } = *self.rng.pick(PLACES);
        let platform = *self.rng.pick(PLATFORMS);
        let late = self.seconds(1, 120);
        let joined = (self.start + late).min(planned_end - 1);
        let leaves = if self.rng.below(4) == 0 {
            joined + (planned_end - joined) / 2 + 1
        } else {
            planned_end - self.rng.span(400) / self.pace
        };
        let leaves = leaves.max(joined + 1).min(planned_end);
        let mut add = |script: &mut Self,
                       joined: i64,
                       leaves: i64,
                       reason: &'static str,
                       source: Option<&'static str>| {
            let connection = format!("con_{}", capitalised(&mut script.rng, 9));
            let stream = source.map(|source| Stream {
                id: format!(
                    "str_{}_{}_{connection}",
                    source.get(..3).unwrap_or("CUS"),
                    capitalised(&mut script.rng, 3)
                ),
                source,
                from: (joined + 800 / script.pace).min(leaves - 1).max(joined),
            });
            let client_data = format!("{{\"clientData\":\"{name}\"}}");
            let person = Person {
                name,
                connection,
                client_data,
                platform,
                place,
                address,
                joined,
                leaves,
                reason,
                stream,
            };
            script.join(&person);
            people.push(person);
        };
        let camera = (self.rng.below(8) > 0).then_some("CAMERA");
        if self.rng.below(30) == 0 && leaves - joined > 10 {
            let lost = joined + (leaves - joined) / 3;
            add(self, joined, lost, "networkDisconnect", camera);
            add(self, lost + (leaves - lost) / 10, leaves, reason, camera);
        } else {
            add(self, joined, leaves, reason, camera);
        }
        if self.rng.below(5) == 0 && leaves - joined > 10 {
            let from = joined + (leaves - joined) / 4;
            add(self, from, from + (leaves - from) / 2, "disconnect", Some("SCREEN"));
        }
    }

    fn camera(&mut self, planned_end: i64, reason: &'static str, people: &mut Vec<Person>) {
        let connection =
            format!("ipc_IPCAM_rtsp_{}_203_0_113_7_554_live", capitalised(&mut self.rng, 3));
        let joined = (self.start + self.seconds(5, 60)).min(planned_end - 1);
        let stream = Stream {
            id: format!("str_IPC_{}_{connection}", capitalised(&mut self.rng, 3)),
            source: "IPCAM",
            from: joined,
        };
        let person = Person {
            name: "",
            connection,
            client_data: String::new(),
            platform: "IPCAM",
            place: "unknown",
            address: "203.0.113.7",
            joined,
            leaves: planned_end,
            reason,
            stream: Some(stream),
        };
        self.join(&person);
        people.push(person);
    }

    fn join(&mut self, person: &Person) {
        self.truth.connections += 1;
        self.emit(person.joined, "participantJoined", person.joined, |json| {
            attributes(json, person)
        });
    }

    fn leave(&mut self, person: &Person) {
        let at = person.leaves;
        self.emit(at, "participantLeft", at, |json| {
            ended(json, person.joined, at, Some(person.reason));
            attributes(json, person);
        });
    }

    /// Everybody receives what the others send, for as long as both are there.
    fn streams(&mut self, people: &[Person]) {
        for sender in people {
            let Some(stream) = &sender.stream else { continue };
            self.truth.publishers += 1;
            self.stream(sender, stream, None, (stream.from, sender.leaves), sender.reason);
            for receiver in people {
                let from = stream.from.max(receiver.joined) + 200 / self.pace;
                let to = sender.leaves.min(receiver.leaves);
                let is_same =
                    receiver.connection == sender.connection || receiver.platform == "IPCAM";
                if is_same || from >= to {
                    continue;
                }
                self.truth.subscribers += 1;
                let reason =
                    if receiver.leaves < sender.leaves { receiver.reason } else { sender.reason };
                self.stream(receiver, stream, Some(&sender.connection), (from, to), reason);
            }
        }
    }

    fn stream(
        &mut self,
        owner: &Person,
        stream: &Stream,
        from: Option<&str>,
        (start, end): (i64, i64),
        reason: &'static str,
    ) {
        let media = |json: &mut Object| {
            json.text("streamId", &stream.id);
            json.text("participantId", &owner.connection);
            json.text("connectionId", &owner.connection);
            json.text("connection", if from.is_some() { "INBOUND" } else { "OUTBOUND" });
            json.text_if("receivingFrom", from);
            if stream.source == "IPCAM" && from.is_none() {
                json.text("rtspUri", "rtsp://admin:secret@203.0.113.7:554/live");
                json.flag("adaptativeBitrate", true);
                json.flag("onlyPlayWithSubscribers", true);
                json.integer("networkCache", 2000);
            }
            json.text("videoSource", stream.source);
            if stream.source == "IPCAM" {
                json.json("videoFramerate", "null");
                json.json("videoDimensions", "null");
            } else {
                let screen = stream.source == "SCREEN";
                json.integer("videoFramerate", if screen { 15 } else { 30 });
                let size = if screen {
                    r#"{"width":1920,"height":1080}"#
                } else {
                    r#"{"width":640,"height":480}"#
                };
                json.text("videoDimensions", size);
            }
            json.flag("audioEnabled", true);
            json.flag("videoEnabled", true);
        };
        let name = match from {
            Some(_) => format!("{}_{}", owner.connection, stream.id),
            None => stream.id.clone(),
        };
        self.endpoints.push(Endpoint {
            user: owner.name,
            connection: owner.connection.clone(),
            name,
            is_publisher: from.is_none(),
            from: start,
            to: end,
        });
        self.emit(start, "webrtcConnectionCreated", start, media);
        self.emit(end, "webrtcConnectionDestroyed", end, |json| {
            ended(json, start, end, Some(reason));
            media(json);
        });
    }

    fn recording(&mut self, end: i64, session_reason: &'static str) {
        let start = (self.start + self.seconds(20, 100)).min(end - 2);
        let by_hand = self.rng.below(2) == 0;
        let stop = if by_hand { start + (end - start) / 2 } else { end };
        let reason = if by_hand { "recordingStoppedByServer" } else { session_reason };
        let composed = self.rng.below(2) == 0;
        let failed = self.rng.below(10) == 0;
        let late = self.rng.below(4) == 0;
        let wait = if late { self.seconds(200, 900) } else { self.seconds(2, 15) };
        // Its files are gone with the node, or it is never processed.
        let lost = session_reason == "nodeCrashed" && !by_hand || late && wait / 1_000 % 2 == 0;
        let id = self.id.clone();
        let seconds = (stop - start) as f64 / 1000.0;
        let status = |script: &mut Self, at: i64, status: &'static str| {
            let is_final = status == "ready";
            script.emit(at, "recordingStatusChanged", at, |json| {
                json.integer("startTime", start);
                json.number("duration", if is_final { seconds } else { 0.0 });
                json.text_if("reason", Some(reason).filter(|_| status != "started"));
                json.text("id", &id);
                json.text("name", &id);
                json.text("outputMode", if composed { "COMPOSED" } else { "INDIVIDUAL" });
                if composed {
                    json.text("resolution", "1280x720");
                    json.integer("frameRate", 25);
                    json.text("recordingLayout", "BEST_FIT");
                    json.text("media_node_id", MEDIA_NODE);
                }
                json.flag("hasAudio", true);
                json.flag("hasVideo", true);
                #[expect(clippy::cast_possible_truncation, reason = "some megabytes")]
                json.integer("size", if is_final { (seconds * 180_000.0) as i64 } else { 0 });
                json.text("status", status);
            });
        };
        status(self, start, "started");
        status(self, stop, "stopped");
        let outcome = if lost {
            "none"
        } else if failed {
            "failed"
        } else {
            "ready"
        };
        if outcome != "none" {
            status(self, stop + wait, outcome);
        }
        self.truth.recordings.push(outcome);
    }

    /// What the application sends beside media: people write to each other, and here and there a filter finds something.
    fn application(&mut self, rng: &mut Rng) {
        let writes = rng.below(4) == 0;
        let finds = rng.below(25) == 0;
        let senders: Vec<(String, String, i64, i64)> = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.is_publisher)
            .map(|end| (end.connection.clone(), end.name.clone(), end.from, end.to))
            .collect();
        for (connection, stream, from, to) in &senders {
            let at = from + rng.span(to - from);
            if writes {
                let kind = *rng.pick(&["chat", "chat", "hand"]);
                self.emit(at, "signalSent", at, |json| {
                    json.text("from", connection);
                    json.texts("to", senders.iter().map(|(other, ..)| &**other));
                    json.text("type", kind);
                    json.text("data", "{\"message\":\"Hello!\"}");
                });
            }
            if finds {
                self.emit(at, "filterEventDispatched", at, |json| {
                    json.text("connectionId", connection);
                    json.text("streamId", stream);
                    json.text("filterType", "ZBarFilter");
                    json.text("eventType", "CodeFound");
                    json.text("data", "{codeType=EAN-13, type=CodeFound, value=0012345678905}");
                });
            }
        }
    }

    fn emit(&mut self, at: i64, event: &str, timestamp: i64, fill: impl FnOnce(&mut Object)) {
        let mut json = Object::with_capacity(400);
        json.text("sessionId", &self.id);
        json.text("uniqueSessionId", &self.unique_id);
        json.integer("timestamp", timestamp);
        fill(&mut json);
        json.text("event", event);
        self.events.push(Emitted { at, json: json.finish() });
    }

    fn raw(&mut self, at: i64, json: &str) {
        self.events.push(Emitted { at, json: json.to_owned() });
    }
}

fn attributes(json: &mut Object, person: &Person) {
    json.text("participantId", &person.connection);
    json.text("connectionId", &person.connection);
    json.text("location", person.place);
    json.text("ip", person.address);
    json.text("platform", person.platform);
    json.text("clientData", &person.client_data);
    json.text("serverData", "");
}

fn ended(json: &mut Object, start: i64, end: i64, reason: Option<&str>) {
    json.integer("startTime", start);
    json.integer("duration", (end - start) / 1000);
    json.text_if("reason", reason);
}

/// A capital and letters or digits, as in OpenVidu's ids.
fn capitalised(rng: &mut Rng, rest: usize) -> String {
    const CAPITALS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const ALL: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::with_capacity(rest + 1);
    let _infallible = text.write_char(char::from(*rng.pick(CAPITALS)));
    for _ in 0..rest {
        let _infallible = text.write_char(char::from(*rng.pick(ALL)));
    }
    text
}

/// When sessions begin between `from` and `to`: many on a working day, few at night and on weekends.
#[must_use]
pub fn arrivals(seed: u64, from: i64, to: i64) -> Vec<i64> {
    const HOUR: i64 = 3_600_000;
    let mut rng = Rng::new(seed);
    let mut starts = Vec::new();
    let mut hour = from;
    while hour < to {
        let of_day = hour.div_euclid(HOUR).rem_euclid(24);
        let is_weekend = (hour.div_euclid(24 * HOUR) + 3).rem_euclid(7) >= 5;
        let busy = match of_day {
            8..=11 | 13..=16 => 9,
            7 | 12 | 17..=20 => 4,
            _ => 1,
        };
        let most = if is_weekend { busy / 3 + 1 } else { busy };
        for _ in 0..rng.below(most + 1) {
            starts.push((hour + rng.span(HOUR)).min(to - 1));
        }
        hour += HOUR;
    }
    starts.sort_unstable();
    starts
}

#[cfg(test)]
mod tests;

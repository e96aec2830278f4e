//! What went wrong in a session: a code that can be counted, and for each case one sentence that can be read out to whoever
//! calls support, with the figure it stands on.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use super::is_abnormal;
use super::quality::{MOST, START_SLOW, millis};
use crate::event::Media;
use crate::json::Object;
use crate::sessions::browser::Reporter;
use crate::sessions::endpoint::{Endpoint, Ice, Measured};
use crate::sessions::incarnation::{Incarnation, Person};
use crate::sessions::sketch::Spread;
use crate::sessions::state::{End, Stream};

/// Media that stopped at least this long before its stream's end is lost; a shorter stop belongs to the end. Milliseconds.
const MEDIA_LOST: i64 = 3_000;
/// How OpenVidu begins the ids of connections of IP cameras (`IdentifierPrefixes.IPCAM_ID` of its server).
const CAMERA_ID: &str = "ipc_";
/// What is said instead.
const AN_IP_CAMERA: &str = "an IP camera";
/// Media that stopped for less only stutters. Milliseconds.
const MEDIA_GAP: i64 = 1_000;
/// So many people who were cut off for one reason within so many milliseconds were cut off together.
const TOGETHER: (usize, i64) = (4, 5_000);
/// Of people who were cut off together, those who are named.
const NAMED_MAX: usize = 3;
/// Network quality up to here is bad, of 0 to 5.
const QUALITY_LOW: i64 = 2;
/// Percent of packets. Sound and picture break up beyond, whatever the codec conceals.
const LOSS_HIGH: f64 = 5.0;
/// Thousandths of packets that have to be lost before their share counts: a call that has just begun loses one of ten.
const LOST_MIN: u64 = 50_000;
/// Microseconds. People talk at the same time beyond (ITU-T G.114 gives 400 ms for one way).
const ROUND_TRIP_HIGH: u64 = 500_000;
/// Microseconds. Jitter buffers of browsers hardly grow beyond without being heard.
const JITTER_HIGH: u64 = 100_000;
/// Values that there have to be before most of them count.
const VALUES_MIN: u64 = 3;
/// Problems that are told in sentences; their codes are all there.
const TOLD_MAX: usize = 50;

/// One thing that went wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem<'a> {
    /// What kind of thing.
    pub code: &'static str,
    /// When, milliseconds since 1970, where that is a moment.
    at: Option<i64>,
    /// Whose; absent where it is that of several people.
    connection_id: Option<&'a str>,
    /// Which stream.
    stream_id: Option<&'a str>,
    /// The figure that it stands on: milliseconds, percent, a level or a number of people or streams.
    value: Option<f64>,
    /// One sentence, without the time; empty of those beyond the bound.
    text: String,
}

/// Everything that went wrong: how the session ended and who was cut off, then in the order of people and their streams.
#[must_use]
pub fn all<'a>(incarnation: &'a Incarnation<'a>) -> Vec<Problem<'a>> {
    let people = &incarnation.connections;
    let sent = people.iter().flat_map(|person| {
        let endpoints =
            person.connection.endpoints.iter().map(|endpoint| About::of(person, endpoint));
        endpoints.filter(|about| about.is_sent())
    });
    let unsent = sent.filter(|about| about.endpoint.ice() == Some(Ice::Failed) || about.is_mute());
    let unsent = unsent.filter_map(|about| about.stream?.named()).collect();
    let mut teller = Teller { people, cut: HashSet::new(), unsent, problems: Vec::new() };
    if let Some((end, why)) = incarnation.end.and_then(abnormal) {
        let found = Problem::of("abnormalEnd").at(end.time);
        teller.add(found, |_| format!("The session was cut off: {why}."));
    }
    teller.cut_off();
    people.iter().for_each(|person| teller.person(person));
    for (key, recording) in &incarnation.recordings {
        if let Some(last) = recording.known_end().filter(|last| !last.ready) {
            let found = Problem::of("recordingFailed").at(last.time);
            teller.add(found, |_| format!("Recording {} failed.", key.id));
        }
    }
    teller.problems
}

/// The codes of `problems`.
#[must_use]
pub fn codes(problems: &[Problem<'_>]) -> BTreeSet<&'static str> {
    problems.iter().map(|problem| problem.code).collect()
}

/// The list `problemDetails` of a document: those that are told in sentences.
#[must_use]
pub fn json(problems: &[Problem<'_>]) -> String {
    let mut json = "[".to_owned();
    for (index, problem) in problems.iter().take(TOLD_MAX).enumerate() {
        if index > 0 {
            json.push(',');
        }
        let mut object = Object::with_capacity(256);
        object.text("code", problem.code);
        object.text("text", &problem.text);
        if let Some(at) = problem.at {
            object.integer("at", at);
        }
        object.text_if("connectionId", problem.connection_id);
        object.text_if("streamId", problem.stream_id);
        if let Some(value) = problem.value {
            object.number("value", value);
        }
        json.push_str(&object.finish());
    }
    json.push(']');
    json
}

/// The end, if nobody wanted it, and why it came, as one would say it.
fn abnormal(end: &End) -> Option<(&End, &'static str)> {
    let reason = end.reason.as_deref().filter(|reason| is_abnormal(Some(reason)))?;
    let why = match reason {
        "networkDisconnect" => "the network was lost",
        "mediaServerDisconnect" => "the media server was lost",
        "mediaServerReconnect" => "the media server was started again",
        "nodeCrashed" => "the node that carried it crashed",
        _ => "the server was stopped",
    };
    Some((end, why))
}

impl<'a> Problem<'a> {
    fn of(code: &'static str) -> Self {
        let text = String::new();
        Self { code, at: None, connection_id: None, stream_id: None, value: None, text }
    }

    fn at(self, time: i64) -> Self {
        Self { at: Some(time), ..self }
    }

    fn by(self, person: &Person<'a>) -> Self {
        Self { connection_id: Some(person.id), ..self }
    }

    fn on(self, stream: Option<&'a Stream>) -> Self {
        Self { stream_id: stream.and_then(Stream::named), ..self }
    }

    fn worth(self, value: f64) -> Self {
        Self { value: Some(value), ..self }
    }
}

/// What a sentence about a stream is about.
#[derive(Clone, Copy)]
struct About<'p, 'a> {
    person: &'p Person<'a>,
    /// Absent where only telemetry has told of it.
    stream: Option<&'a Stream>,
    endpoint: &'a Endpoint,
}

impl<'p, 'a> About<'p, 'a> {
    fn of(person: &'p Person<'a>, endpoint: &'a Endpoint) -> Self {
        Self { person, stream: person.stream_of(endpoint), endpoint }
    }

    /// Whether it is of what the person sends.
    fn is_sent(&self) -> bool {
        let by_name = || match Reporter::read(&self.endpoint.name) {
            Some(reporter) => reporter.sends,
            None => crate::enrich::fields::is_publisher(&self.endpoint.name, self.person.id),
        };
        self.stream.map_or_else(by_name, |stream| stream.outbound)
    }

    fn is_mute(&self) -> bool {
        let (start, end) = self.person.span(self.stream);
        end.is_some_and(|end| self.person.is_mute(self.endpoint, end - start))
    }

    fn problem(self, code: &'static str) -> Problem<'a> {
        Problem::of(code).by(self.person).on(self.stream)
    }
}

/// Somebody who did not mean to leave.
struct CutOff<'p, 'a> {
    at: i64,
    why: &'static str,
    person: &'p Person<'a>,
}

/// When who came: the starts of each user's connections, in their order.
struct Returns<'p>(HashMap<&'p str, Vec<i64>>);

impl<'p> Returns<'p> {
    fn of(people: &'p [Person<'_>]) -> Self {
        let mut starts: HashMap<&str, Vec<i64>> = HashMap::new();
        for person in people {
            starts.entry(person.user().0).or_default().push(person.start);
        }
        Self(starts)
    }

    /// When somebody came again who had been cut off at `at`.
    fn after(&self, person: &Person<'_>, at: i64) -> Option<i64> {
        let starts = self.0.get(person.user().0)?;
        starts.iter().copied().find(|start| *start >= at && *start > person.start)
    }
}

struct Teller<'p, 'a> {
    people: &'p [Person<'a>],
    /// Streams of people who were cut off: what others received of these ended with them.
    cut: HashSet<&'p str>,
    /// Streams of which nothing came to the server: nothing of them can go on to others.
    unsent: HashSet<&'p str>,
    problems: Vec<Problem<'a>>,
}

impl<'a> Teller<'_, 'a> {
    fn add(&mut self, mut problem: Problem<'a>, text: impl FnOnce(&Self) -> String) {
        if self.problems.len() < TOLD_MAX {
            problem.text = text(self);
            // A name is written as it is.
            if problem.text.starts_with(AN_IP_CAMERA) {
                problem.text = capital(&problem.text);
            }
        }
        self.problems.push(problem);
    }

    /// Who did not mean to leave, and whether they came back: many at one moment in one sentence.
    fn cut_off(&mut self) {
        let mut cut: Vec<CutOff<'_, 'a>> = Vec::new();
        for person in self.people {
            let Some((end, why)) = person.connection.end.as_ref().and_then(abnormal) else {
                continue;
            };
            let sent = person.streams.iter().filter(|stream| stream.outbound);
            self.cut.extend(sent.filter_map(|stream| stream.named()));
            cut.push(CutOff { at: end.time, why, person });
        }
        if cut.is_empty() {
            return;
        }
        // People stay in their order at one moment.
        cut.sort_by_key(|one| (one.why, one.at));
        let together = |one: &CutOff<'_, '_>, first: &CutOff<'_, '_>| {
            one.why == first.why && one.at - first.at <= TOGETHER.1
        };
        let mut rest = cut.as_slice();
        let returns = Returns::of(self.people);
        while let Some(first) = rest.first() {
            let size = rest.iter().take_while(|one| together(one, first)).count();
            let (group, after) = rest.split_at(size);
            rest = after;
            if group.len() < TOGETHER.0 {
                for CutOff { at, why, person } in group {
                    self.add(Problem::of("abnormalEnd").at(*at).by(person), |_| {
                        let back = returns.after(person, *at);
                        let back = back.map_or_else(String::new, |back| {
                            format!(" Back after {}.", seconds(back - at))
                        });
                        format!("{} was cut off: {why}.{back}", person.name())
                    });
                }
                continue;
            }
            let count = group.len();
            let found = Problem::of("abnormalEnd").at(first.at);
            self.add(found.worth(number(i64::try_from(count).unwrap_or(i64::MAX))), |_| {
                let names: Vec<_> = group.iter().take(NAMED_MAX).map(|one| one.person.name()).collect();
                let back = group.iter().filter(|one| returns.after(one.person, one.at).is_some()).count();
                let back = if back == 0 { "nobody".to_owned() } else { back.to_string() };
                let (names, more) = (names.join(", "), count - names.len());
                format!("{count} people were cut off at once: {}. They are {names} and {more} more; {back} came back.", first.why)
            });
        }
    }

    fn person(&mut self, person: &Person<'a>) {
        let connection = person.connection;
        // What ends with its connection, or with that of who sends it, needs no sentence of its own.
        if connection.end.as_ref().and_then(abnormal).is_none() {
            for stream in &person.streams {
                let Some((end, why)) = stream.end.as_ref().and_then(abnormal) else { continue };
                if !stream.outbound && stream.named().is_some_and(|id| self.cut.contains(id)) {
                    continue;
                }
                let found = Problem::of("abnormalEnd").at(end.time).by(person).on(Some(stream));
                self.add(found, |teller| {
                    let what = teller.media(person, Some(stream), None);
                    capital(&format!("{what} was cut off: {why}."))
                });
            }
        }
        if let Some(level) = connection.quality.filter(|level| *level <= QUALITY_LOW) {
            self.add(Problem::of("lowNetworkQuality").by(person).worth(number(level)), |_| {
                let name = person.name();
                format!("{name} had a bad network: its quality fell to {level} of 5.")
            });
        }
        self.ice(person);
        for endpoint in &connection.endpoints {
            let about = About::of(person, endpoint);
            self.flows(about);
            let reported =
                about.stream.into_iter().flat_map(|stream| person.reported_of(Some(stream)));
            self.measured(about, &std::iter::once(endpoint).chain(reported).collect::<Vec<_>>());
        }
        // What the media server told nothing of.
        let own = connection.endpoints.iter().filter_map(|own| person.stream_of(own));
        let mut told: BTreeSet<_> = own.map(|stream| Some(stream.place())).collect();
        for (stream, endpoint) in &person.reported {
            if told.insert(stream.map(Stream::place)) {
                let about = About { person, stream: *stream, endpoint };
                self.measured(about, &person.reported_of(*stream).collect::<Vec<_>>());
            }
        }
    }

    /// Who could not send is told stream by stream, who could not receive once.
    fn ice(&mut self, person: &Person<'a>) {
        let endpoints = person.connection.endpoints.iter();
        let failed = endpoints.filter_map(|endpoint| {
            let (at, ice) = endpoint.ice_since()?;
            (ice == Ice::Failed).then(|| (at, About::of(person, endpoint)))
        });
        let (sent, received): (Vec<_>, Vec<_>) = failed.partition(|(_, about)| about.is_sent());
        const CAUSE: &str = "no way for media was found between browser and media server. A firewall, or a TURN server that is missing or \
                             wrong, is the usual cause";
        for (at, about) in sent {
            self.add(about.problem("iceFailed").at(at), |teller| {
                let what = teller.media(person, about.stream, None);
                capital(&format!("{what} could not be sent: {CAUSE}."))
            });
        }
        match received.as_slice() {
            [] => {}
            [(at, about)] => self.add(about.problem("iceFailed").at(*at), |teller| {
                let from = about.stream.map(|stream| Members::of(stream).receiving_from);
                let from =
                    from.map_or_else(|| "media".into(), |from| teller.name(&from).into_owned());
                format!("{} could not receive {from}: {CAUSE}.", person.name())
            }),
            several => {
                let count = several.len();
                let first = several.iter().map(|(at, _)| *at).min();
                let found = Problem { at: first, ..Problem::of("iceFailed").by(person) };
                let value = i64::try_from(count).unwrap_or(i64::MAX);
                self.add(found.worth(number(value)), |_| {
                    format!("{} could not receive {count} streams: {CAUSE}.", person.name())
                });
            }
        }
    }

    fn flows(&mut self, about: About<'_, 'a>) {
        let About { person, stream, endpoint } = about;
        let (start, end) = person.span(stream);
        let is_others = !about.is_sent()
            && stream.and_then(Stream::named).is_some_and(|id| self.unsent.contains(id));
        if about.is_mute() && !is_others {
            let span = end.map_or(0, |end| end - start);
            self.add(about.problem("noMedia").at(start).worth(number(span)), |teller| {
                let what = capital(&teller.media(person, stream, None));
                format!("{what} never came, though a way for it was found. Encryption that could not be agreed on (DTLS), or a device that gives nothing, is the usual cause.")
            });
        }
        for (part, state) in endpoint.flows() {
            let kind = match part {
                "AUDIO" => Some(Media::Audio),
                "VIDEO" => Some(Media::Video),
                _ => None,
            };
            let mut gaps = state.gaps().filter(|(from, to)| to - from >= MEDIA_GAP);
            if let Some((from, to)) = gaps.next() {
                let span = to - from + gaps.map(|(from, to)| to - from).sum::<i64>();
                let found = about.problem("mediaGap").at(from).worth(number(span));
                self.add(found, |teller| {
                    let what = capital(&teller.media(person, stream, kind));
                    format!("{what} stopped for {} and came back.", seconds(span))
                });
            }
            // What never was there has not stopped, and what a browser went on receiving came back unseen.
            let stopped = state
                .stopped()
                .filter(|from| state.has_flown() && !person.has_received(endpoint, Some(*from)));
            let lost = stopped.zip(end).map(|(from, end)| (from, end - from));
            if let Some((from, span)) = lost.filter(|(_, span)| *span >= MEDIA_LOST) {
                let found = about.problem("mediaLost").at(from).worth(number(span));
                self.add(found, |teller| {
                    let what = capital(&teller.media(person, stream, kind));
                    format!(
                        "{what} stopped {} before the end and did not come back.",
                        seconds(span)
                    )
                });
            }
        }
    }

    /// Of each figure the worst kind of media, whoever has measured it: `endpoints` are of one stream.
    fn measured(&mut self, about: About<'_, 'a>, endpoints: &[&Endpoint]) {
        let endpoint = about.endpoint;
        let measured = || {
            let all = endpoints.iter().flat_map(|endpoint| &endpoint.measured);
            all.map(|((_, media), measured)| (*media, measured))
        };
        let losses = measured().filter_map(|(media, measured)| {
            let loss = measured.loss()?;
            (loss.lost >= LOST_MIN && loss.percent() >= LOSS_HIGH).then_some((media, loss))
        });
        if let Some((media, loss)) =
            losses.max_by(|(_, one), (_, other)| one.percent().total_cmp(&other.percent()))
        {
            let percent = (loss.percent() * 10.0).round() / 10.0;
            self.add(about.problem("highLoss").worth(percent), |teller| {
                let what = teller.measured_media(about, Some(media));
                format!(
                    "{percent} % of {what} was lost on the way; it breaks up above {LOSS_HIGH} %."
                )
            });
        }
        let worst = |spread: fn(&Measured) -> &Spread, limit: u64| {
            let values = measured().filter_map(|(media, measured)| {
                let spread = spread(measured);
                let most = spread.percentile(MOST).filter(|most| *most >= limit)?;
                (spread.count() >= VALUES_MIN).then_some((most, media))
            });
            values.max()
        };
        if let Some((trip, media)) = worst(|measured| &measured.round_trip, ROUND_TRIP_HIGH) {
            self.add(about.problem("highRoundTrip").worth(millis(trip)), |teller| {
                let what = capital(&teller.measured_media(about, Some(media)));
                let (trip, limit) = (span(trip), span(ROUND_TRIP_HIGH));
                format!("{what} took up to {trip} to the other end and back; people interrupt each other above {limit}.")
            });
        }
        if let Some((jitter, media)) = worst(|measured| &measured.jitter, JITTER_HIGH) {
            self.add(about.problem("highJitter").worth(millis(jitter)), |teller| {
                let what = capital(&teller.measured_media(about, Some(media)));
                let (jitter, limit) = (span(jitter), span(JITTER_HIGH));
                format!("{what} came up to {jitter} early or late; that is noticed above {limit}.")
            });
        }
        if let Some(after) = endpoint.first_media.filter(|after| *after >= START_SLOW) {
            self.add(about.problem("slowStart").worth(number(after)), |teller| {
                let what = capital(&teller.measured_media(about, None));
                format!("{what} began to flow only after {}.", seconds(after))
            });
        }
    }

    /// The same of what was measured, of which the stream may not be known.
    fn measured_media(&self, about: About<'_, '_>, kind: Option<Media>) -> String {
        if about.stream.is_none() && !about.is_sent() {
            return format!("what {} received", about.person.name());
        }
        self.media(about.person, about.stream, kind)
    }

    /// What of a person a stream is, in the middle of a sentence; `kind`: one kind of media of it, or all.
    fn media(&self, person: &Person<'_>, stream: Option<&Stream>, kind: Option<Media>) -> String {
        let name = person.name();
        let Some(stream) = stream else { return format!("{name}’s media") };
        let Members { video_source, receiving_from } = Members::of(stream);
        if stream.outbound {
            let what = match (kind, video_source == "SCREEN") {
                (Some(Media::Audio), _) => "sound",
                (_, true) => "screen",
                (Some(Media::Video), false) => "picture",
                (None, false) => "camera",
            };
            return format!("{name}’s {what}");
        }
        let did = match kind {
            Some(Media::Audio) => "heard of",
            Some(Media::Video) => "saw of",
            None => "received from",
        };
        format!("what {name} {did} {}", self.name(&receiving_from))
    }

    /// What the person of a connection is called.
    fn name<'n>(&'n self, connection_id: &'n str) -> Cow<'n, str> {
        match self.people.iter().find(|person| person.id == connection_id) {
            Some(person) => person.name(),
            None if connection_id.is_empty() => Cow::Borrowed("somebody"),
            None => Cow::Borrowed(connection_id),
        }
    }
}

impl Person<'_> {
    /// What people call the person: the name that the client gave itself, else the user. A camera that nobody has named has its
    /// address in its connection's id.
    #[must_use]
    pub fn name(&self) -> Cow<'_, str> {
        let named = self.client_data().and_then(|data| own_name(&data));
        let user = || match self.user().0 {
            id if id == self.id && id.starts_with(CAMERA_ID) => AN_IP_CAMERA,
            user => user,
        };
        named.map_or_else(|| Cow::Borrowed(user()), Cow::Owned)
    }

    /// What the client said about itself.
    #[must_use]
    pub fn client_data(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Data {
            #[serde(rename = "clientData")]
            client_data: String,
        }
        let joined = self.connection.joined.as_ref()?;
        let data: Data = serde_json::from_str(&format!("{{{}}}", joined.data)).ok()?;
        Some(data.client_data)
    }
}

/// The name in a client's data: under one of the names that applications use for it, or a short text that is nothing else.
fn own_name(data: &str) -> Option<String> {
    let data = data.split("%/%").next().unwrap_or_default().trim();
    let cut = |name: &str| crate::json::prefix(name.trim(), NAME_BYTES_MAX).to_owned();
    if !data.starts_with('{') {
        return (1..PLAIN_BYTES_MAX).contains(&data.len()).then(|| cut(data));
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(data).ok()?;
    let names = ["clientData", "name", "userName", "nickname", "user"];
    let mut texts = names.iter().filter_map(|name| object.get(*name)?.as_str());
    texts.find(|text| !text.trim().is_empty()).map(cut)
}

/// Longer texts are no names.
const PLAIN_BYTES_MAX: usize = 60;
/// Of a name in a sentence.
const NAME_BYTES_MAX: usize = 100;

/// What a stream's attributes tell of it.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Members {
    video_source: String,
    receiving_from: String,
}

impl Members {
    fn of(stream: &Stream) -> Self {
        let members = stream.attributes.as_ref().map_or("", |attributes| &*attributes.members);
        serde_json::from_str(&format!("{{{members}}}")).unwrap_or_default()
    }
}

/// As a sentence begins.
fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

fn seconds(millis: i64) -> String {
    match millis {
        ..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{} s", millis / 1000),
        _ => format!("{} min", millis / 60_000),
    }
}

fn span(micros: u64) -> String {
    seconds(i64::try_from(micros.saturating_add(500) / 1000).unwrap_or(i64::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "a span in milliseconds, or a level")]
fn number(integer: i64) -> f64 {
    integer as f64
}

//! Facts: the content of an event, as a 64-bit hash.
//!
//! Hashed is what the fold reads of the event, before privacy and enrichment, so that a change of settings makes no new
//! facts. Another copy of the same occurrence with the same content is the same fact; with other content it is another.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::enrich::privacy::without_credentials;
use crate::event::candidate::{CandidateKind, Transport};
use crate::event::{
    Body, End, Event, Field, FieldName, Packets, Participant, Recording, Seen, Told,
};

/// Members of stream and recording events that the fold reads without typing them.
pub const STREAM_MEMBERS: &[FieldName] = &[
    FieldName::VideoSource,
    FieldName::VideoFramerate,
    FieldName::VideoDimensions,
    FieldName::AudioEnabled,
    FieldName::VideoEnabled,
    FieldName::RtspUri,
    FieldName::AdaptativeBitrate,
    FieldName::OnlyPlayWithSubscribers,
    FieldName::NetworkCache,
];
/// Members of a recording that do not change while it is processed.
pub const RECORDING_MEMBERS: &[FieldName] =
    &[FieldName::Name, FieldName::OutputMode, FieldName::RecordingLayout, FieldName::CustomLayout];
/// Members of a recording that processing may correct.
pub const RECORDING_VALUES: &[FieldName] =
    &[FieldName::HasAudio, FieldName::HasVideo, FieldName::Resolution, FieldName::FrameRate];

/// Hashes parts with their lengths, so that no two lists of parts read the same. They are put together first: hashing some
/// two hundred bytes at once costs a fraction of what keeping a state for parts does.
#[derive(Debug)]
pub struct Hasher(Vec<u8>);

impl Hasher {
    /// A hash of things called `domain`; equal parts of different domains differ.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        let mut hasher = Self(Vec::with_capacity(256));
        hasher.text(domain);
        hasher
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        self.0.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A text or its absence.
    pub fn optional(&mut self, text: Option<&str>) {
        match text {
            Some(text) => {
                self.0.push(1);
                self.text(text);
            }
            None => self.0.push(0),
        }
    }

    /// An integer.
    pub fn integer(&mut self, integer: i64) {
        self.0.extend_from_slice(&integer.to_le_bytes());
    }

    /// A field's value: texts as they read, numbers by value, anything else as its tidy JSON.
    pub fn field(&mut self, field: &Field<'_>) {
        let mark = self.0.len();
        let inner = field.json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        if let Some(inner) = inner {
            self.0.push(b't');
            // Its length follows it, so that it need not be put together first.
            let is_whole =
                crate::event::unescape(inner, |part| self.0.extend_from_slice(part.as_bytes()));
            if !is_whole {
                self.0.truncate(mark + 1);
                self.0.extend_from_slice(field.text().unwrap_or_default().as_bytes());
            }
            let length = (self.0.len() - mark) as u64;
            self.0.extend_from_slice(&length.to_le_bytes());
        } else if let Some(integer) = field.integer() {
            self.0.push(b'i');
            self.integer(integer);
        } else if let Some(number) = field.number() {
            self.0.push(b'n');
            self.0.extend_from_slice(&number.to_bits().to_le_bytes());
        } else {
            self.0.push(b'j');
            self.text(&field.json);
        }
    }

    /// 64 bits.
    #[must_use]
    pub fn digest(&self) -> u64 {
        xxh3_64(&self.0)
    }

    /// 128 bits.
    #[must_use]
    pub fn digest128(&self) -> u128 {
        xxh3_128(&self.0)
    }
}

/// The fact that `event` is for its session, connection, stream or recording. `None` if the fold reads nothing of it but
/// perhaps the user.
#[must_use]
pub fn of(event: &Event<'_>) -> Option<u64> {
    let mut hasher = Hasher::new("fact");
    hasher.integer(event.time);
    hasher.optional(event.connection_id.as_deref());
    match &event.body {
        Body::SessionCreated => hasher.text("sessionCreated"),
        Body::SessionDestroyed(end) => {
            hasher.text("sessionDestroyed");
            hash_end(&mut hasher, Some(end));
        }
        Body::Participant(participant) => {
            hasher.text("participant");
            hash_participant(&mut hasher, participant);
        }
        Body::Stream(stream) => {
            hasher.text(if stream.outbound { "publish" } else { "subscribe" });
            hash_end(&mut hasher, stream.destroyed.as_ref());
            hasher.text(&stream.stream_id);
            hasher.optional(stream.receiving_from.as_deref());
            hash_members(&mut hasher, event, STREAM_MEMBERS);
        }
        Body::Recording(recording) => hash_recording(&mut hasher, event, recording),
        Body::Seen(seen) => {
            hasher.text("seen");
            hash_seen(&mut hasher, event, seen);
        }
        Body::Endpoint(endpoint) => {
            hasher.text(&endpoint.name);
            hash_told(&mut hasher, &endpoint.told);
        }
        Body::NetworkQuality(level) => {
            hasher.text("networkQuality");
            hasher.integer(*level);
        }
        Body::Broadcast(_) | Body::Other => return None,
    }
    Some(hasher.digest())
}

/// The fact that telemetry names `user` as the user of `connection`.
#[must_use]
pub fn user(connection: &str, user: &str) -> u64 {
    let mut hasher = Hasher::new("user");
    hasher.text(connection);
    hasher.text(user);
    hasher.digest()
}

fn hash_end(hasher: &mut Hasher, end: Option<&End<'_>>) {
    match end {
        Some(end) => {
            hasher.text("end");
            hasher.integer(end.start.unwrap_or(i64::MIN));
            hasher.optional(end.reason.as_deref());
        }
        None => hasher.text("start"),
    }
}

fn hash_participant(hasher: &mut Hasher, participant: &Participant<'_>) {
    hash_end(hasher, participant.left.as_ref());
    hasher.optional(participant.location.as_deref());
    hasher.optional(participant.geo_points.as_deref());
    hasher.optional(participant.ip.as_deref());
    hasher.optional(participant.platform.as_deref());
    hasher.optional(participant.client_data.as_deref());
    hasher.optional(participant.server_data.as_deref());
}

fn hash_recording(hasher: &mut Hasher, event: &Event<'_>, recording: &Recording<'_>) {
    hasher.text(recording.status.name());
    hasher.integer(i64::from(recording.old_name));
    hasher.text(&recording.id);
    hasher.integer(recording.start);
    hasher.optional(recording.reason.as_deref());
    hasher.integer(recording.size);
    hasher.integer(recording.duration.to_bits().cast_signed());
    hash_members(hasher, event, RECORDING_MEMBERS);
    hash_members(hasher, event, RECORDING_VALUES);
    hash_members(hasher, event, &[FieldName::MediaNodeId]);
}

fn hash_seen(hasher: &mut Hasher, event: &Event<'_>, seen: &Seen<'_>) {
    match seen {
        Seen::Session(session) => {
            hasher.text("session");
            hasher.optional(session.custom_session_id.as_deref());
            hasher.optional(session.media_mode.as_deref());
            hasher.optional(session.recording_mode.as_deref());
            hasher.optional(session.media_node_id.as_deref());
        }
        Seen::Connection(shown) => {
            hasher.text("participant");
            hash_participant(hasher, shown);
        }
        Seen::Recording(recording) => hash_recording(hasher, event, recording),
        Seen::Presence { start, is_shown } => {
            hasher.text(if *is_shown { "shown" } else { "gone" });
            hasher.integer(*start);
        }
    }
}

fn hash_told(hasher: &mut Hasher, told: &Told<'_>) {
    let counts = |hasher: &mut Hasher, counts: &[Option<u64>]| {
        let signed = |count: &Option<u64>| count.map_or(-1, u64::cast_signed);
        counts.iter().for_each(|count| hasher.integer(signed(count)));
    };
    match told {
        Told::State(state) => {
            hasher.text("mediaState");
            hasher.integer(state.aspect as i64);
            hasher.text(&state.part);
            hasher.text(&state.state);
            hasher.integer(state.after.unwrap_or(i64::MIN));
        }
        Told::Pair(pair) => {
            hasher.text("pair");
            hasher.optional(pair.local.map(CandidateKind::name));
            hasher.optional(pair.remote.map(CandidateKind::name));
            hasher.optional(pair.transport.map(Transport::name));
        }
        Told::Stats(stats) => {
            hasher.text("stats");
            hasher.integer(stats.side as i64);
            hasher.integer(stats.media as i64);
            let Packets { lost, received, sent } = stats.packets;
            counts(hasher, &[stats.jitter, stats.round_trip, lost, received, sent]);
            if stats.rates != Packets::default() {
                let Packets { lost, received, sent } = stats.rates;
                counts(hasher, &[lost, received, sent]);
            }
        }
    }
}

fn hash_members(hasher: &mut Hasher, event: &Event<'_>, names: &[FieldName]) {
    for name in names {
        match event.field(*name) {
            // As it is stored: the same camera by whatever credentials.
            Some(field) if *name == FieldName::RtspUri => {
                hasher.optional(
                    field.text().map(|uri| without_credentials(&uri).into_owned()).as_deref(),
                );
            }
            Some(field) => {
                hasher.integer(1);
                hasher.field(field);
            }
            None if *name == FieldName::RtspUri => hasher.optional(None),
            None => hasher.integer(0),
        }
    }
}

//! Facts: the content of an event, as a 64-bit hash.
//!
//! Hashed is what the fold reads of the event, before privacy and enrichment, so that a change of settings makes no new
//! facts. Another copy of the same occurrence with the same content is the same fact; with other content it is another.

use xxhash_rust::xxh3::Xxh3;

use crate::event::{Body, End, Event, Field, FieldName};

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

/// Hashes parts with their lengths, so that no two lists of parts read the same.
pub struct Hasher(Xxh3);

impl Hasher {
    /// A hash of things called `domain`; equal parts of different domains differ.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        let mut hasher = Self(Xxh3::new());
        hasher.text(domain);
        hasher
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    /// A text or its absence.
    pub fn optional(&mut self, text: Option<&str>) {
        match text {
            Some(text) => {
                self.0.update(&[1]);
                self.text(text);
            }
            None => self.0.update(&[0]),
        }
    }

    /// An integer.
    pub fn integer(&mut self, integer: i64) {
        self.0.update(&integer.to_le_bytes());
    }

    /// A field's value: texts as they read, numbers by value, anything else as its tidy JSON.
    pub fn field(&mut self, field: &Field<'_>) {
        if let Some(text) = field.text() {
            self.0.update(b"t");
            self.text(&text);
        } else if let Some(integer) = field.integer() {
            self.0.update(b"i");
            self.integer(integer);
        } else if let Some(number) = field.number() {
            self.0.update(b"n");
            self.0.update(&number.to_bits().to_le_bytes());
        } else {
            self.0.update(b"j");
            self.text(&field.json);
        }
    }

    /// 64 bits.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.0.digest()
    }

    /// 128 bits.
    #[must_use]
    pub fn digest128(&self) -> u128 {
        self.0.digest128()
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
            hash_end(&mut hasher, participant.left.as_ref());
            hasher.optional(participant.location.as_deref());
            hasher.optional(participant.ip.as_deref());
            hasher.optional(participant.platform.as_deref());
            hasher.optional(participant.client_data.as_deref());
            hasher.optional(participant.server_data.as_deref());
        }
        Body::Stream(stream) => {
            hasher.text(if stream.outbound { "publish" } else { "subscribe" });
            hash_end(&mut hasher, stream.destroyed.as_ref());
            hasher.text(&stream.stream_id);
            hasher.optional(stream.receiving_from.as_deref());
            hash_members(&mut hasher, event, STREAM_MEMBERS);
        }
        Body::Recording(recording) => {
            hasher.text(recording.status.name());
            hasher.integer(i64::from(recording.old_name));
            hasher.text(&recording.id);
            hasher.integer(recording.start);
            hasher.optional(recording.reason.as_deref());
            hasher.integer(recording.size);
            hasher.integer(recording.duration.to_bits().cast_signed());
            hash_members(&mut hasher, event, RECORDING_MEMBERS);
            hash_members(&mut hasher, event, RECORDING_VALUES);
            hash_members(&mut hasher, event, &[FieldName::MediaNodeId]);
        }
        Body::MediaState(state) => {
            hasher.text("mediaState");
            hasher.integer(state.aspect as i64);
            hasher.text(&state.endpoint);
            hasher.text(&state.part);
            hasher.text(&state.state);
        }
        Body::NetworkQuality(level) => {
            hasher.text("networkQuality");
            hasher.integer(*level);
        }
        Body::Other => return None,
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

fn hash_members(hasher: &mut Hasher, event: &Event<'_>, names: &[FieldName]) {
    for name in names {
        match event.field(*name) {
            Some(field) => {
                hasher.integer(1);
                hasher.field(field);
            }
            None => hasher.integer(0),
        }
    }
}

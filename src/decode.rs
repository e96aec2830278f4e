//! Decoding: bytes of any of OpenVidu's wire formats to one [`Event`].
//!
//! The format is recognised from the content and never configured: a webhook body (`event` inside), a line of a CDR file
//! (the event's name is the only key of the root), such a line inside the server's log (`… CDRLoggerFile - {…}`), an already
//! indexed document (`elastic_type` inside), or telemetry without any of these marks, told by its fields.
//! All formats of one occurrence give the same event, apart from [`Origin`](crate::event::Origin).
//!
//! Promises: never panics; every error says what is wrong; what it does not know passes through unchanged. Text that is not
//! UTF-8 is taken as Latin-1, which OpenVidu sent up to 2.17. A key that occurs twice counts with its last value, and text
//! halves of a surrogate pair become U+FFFD, since no index takes either.
//! It does not judge times against a clock, except that nothing real happened before 2016.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::{Event, Field, FieldName, text_of};

mod body;
mod shape;

pub(crate) use shape::LOG_MARK;

/// Members of one event; more are nobody's event.
pub const FIELDS_MAX: usize = 1000;
/// Members that an already indexed document has beside those of its event, at most.
const ADDED_MAX: usize = 100;
/// Objects and lists within each other; OpenVidu's own are below 10.
pub const DEPTH_MAX: usize = 100;
/// Bytes of an id. OpenVidu's own are below 100.
pub const ID_BYTES_MAX: usize = 1024;
/// 2016-01-01: OpenVidu did not exist before.
pub const TIME_MIN: i64 = 1_451_606_400_000;

/// 2100-01-01: nothing that is told has happened after.
pub const TIME_MAX: i64 = 4_102_444_800_000;

/// Whether something can have happened then.
#[must_use]
pub fn is_time(time: i64) -> bool {
    (TIME_MIN..TIME_MAX).contains(&time)
}

/// Why bytes are no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The JSON is broken.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// JSON, but no object.
    #[error("not a JSON object")]
    NotAnObject,
    /// An object without anything that makes it an event.
    #[error(
        "no event: neither `event` nor `elastic_type` nor a single root key names one, and its fields are not those of any telemetry"
    )]
    NotAnEvent,
    /// `timestamp` is missing or not a whole number of milliseconds.
    #[error("no usable `timestamp` (milliseconds since 1970 are expected)")]
    NoTime,
    /// `timestamp` lies before 2016 or after 2100.
    #[error("`timestamp` {0} lies before 2016 or after 2100; milliseconds since 1970 are expected")]
    OddTime(i64),
    /// The start in `uniqueSessionId` lies before 2016 or more than a day after the event.
    #[error(
        "`uniqueSessionId` ends in {0}, which is no start of a session that is told of at that time"
    )]
    OddStart(i64),
    /// Something the event cannot do without.
    #[error("`{event}` without usable `{field}`")]
    Missing {
        /// Event name.
        event: String,
        /// The missing field.
        field: &'static str,
    },
    /// More members than [`FIELDS_MAX`].
    #[error("more than {FIELDS_MAX} fields")]
    TooManyFields,
    /// Objects and lists within each other beyond [`DEPTH_MAX`].
    #[error("objects and lists are nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// An id above [`ID_BYTES_MAX`].
    #[error("`{0}` is longer than {ID_BYTES_MAX} bytes")]
    LongId(&'static str),
}

/// What a record turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<'a> {
    /// An event.
    Event(Box<Event<'a>>),
    /// An already indexed summary (or another document made from events); callscope makes its own.
    Summary,
}

/// The bytes as text: UTF-8, else Latin-1. A byte order mark and blanks around are left out.
#[must_use]
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text.trim_start_matches('\u{feff}').trim()),
        Err(_) => Cow::Owned(
            bytes.iter().map(|byte| char::from(*byte)).collect::<String>().trim().to_owned(),
        ),
    }
}

/// Decodes one record.
///
/// # Errors
///
/// If `text` is no event; the message says why.
pub fn decode(text: &str) -> Result<Decoded<'_>, DecodeError> {
    let json = shape::strip_log_prefix(text);
    if let Some((name, payload)) = shape::single_root(json)
        && let Ok(members) = members(payload)
    {
        return body::cdr(Cow::Borrowed(name), members);
    }
    let members = members(json)?;
    match shape::recognise(&members) {
        Some(shape::Shape::Indexed) => body::indexed(members),
        Some(shape::Shape::Webhook) => body::webhook(members),
        Some(shape::Shape::Root) => {
            let (name, payload) = shape::only_member(members);
            body::cdr(name, self::members(payload)?)
        }
        Some(shape::Shape::Telemetry(kind)) => body::telemetry(kind, members),
        None => Err(DecodeError::NotAnEvent),
    }
}

/// The members of an object: names unescaped, values as they stand.
type Members<'a> = Vec<(Cow<'a, str>, &'a str)>;

fn members(json: &str) -> Result<Members<'_>, DecodeError> {
    if !json.starts_with('{') {
        return match serde_json::from_str::<&RawValue>(json) {
            Ok(_) => Err(DecodeError::NotAnObject),
            Err(error) => Err(DecodeError::NotJson(error.to_string())),
        };
    }
    let object: Object<'_> = serde_json::from_str(json).map_err(|error| {
        // The visitor below stops after one member too many and has no other way to say so.
        if error.is_data() {
            DecodeError::TooManyFields
        } else {
            DecodeError::NotJson(error.to_string())
        }
    })?;
    Ok(object.0)
}

struct Object<'a>(Members<'a>);

#[derive(PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Self::Value = Vec::with_capacity(20);
                while let Some(Key(name)) = map.next_key()? {
                    let value: &'de RawValue = map.next_value()?;
                    // Quadratic, but bounded, and an event has some 15 members.
                    if let Some(member) = members.iter_mut().find(|(known, _)| *known == name) {
                        member.1 = value.get();
                    } else if members.len() < FIELDS_MAX + ADDED_MAX {
                        members.push((name, value.get()));
                    } else {
                        return Err(serde::de::Error::custom("too many fields"));
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Reader).map(Object)
    }
}

/// A member as it is passed on: one line, nulls left out, nothing that an index refuses as JSON.
/// `None` for `null`.
fn field<'a>(
    name: Cow<'a, str>,
    known: Option<FieldName>,
    json: &'a str,
) -> Result<Option<Field<'a>>, DecodeError> {
    let json = match json.as_bytes().first() {
        Some(b'n') => return Ok(None),
        Some(b'{' | b'[') => Cow::Owned(tidy(json)?),
        Some(b'"') if text_of(json).is_none() => Cow::Owned(whole_text(json)),
        _ => Cow::Borrowed(json),
    };
    Ok(Some(Field { name, known, json }))
}

/// An object or array with nulls left out of objects, keys once and in order, on one line. Scalars stay as they are written,
/// but for numbers that no index holds, which become texts.
fn tidy(json: &str) -> Result<String, DecodeError> {
    let mut tidied = String::with_capacity(json.len());
    tidy_into(&mut tidied, json, 0)?;
    Ok(tidied)
}

fn tidy_into(tidied: &mut String, json: &str, depth: usize) -> Result<(), DecodeError> {
    let broken = |error: serde_json::Error| DecodeError::NotJson(error.to_string());
    if depth > DEPTH_MAX {
        return Err(DecodeError::TooDeep);
    }
    match json.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<Key<'_>, &RawValue> =
                serde_json::from_str(json).map_err(broken)?;
            tidied.push('{');
            let mut is_first = true;
            for (Key(name), value) in members.iter().filter(|(_, value)| value.get() != "null") {
                if !std::mem::take(&mut is_first) {
                    tidied.push(',');
                }
                crate::json::quote(tidied, name);
                tidied.push(':');
                tidy_into(tidied, value.get(), depth + 1)?;
            }
            tidied.push('}');
        }
        Some(b'[') => {
            let values: Vec<&RawValue> = serde_json::from_str(json).map_err(broken)?;
            tidied.push('[');
            for (index, value) in values.into_iter().enumerate() {
                if index > 0 {
                    tidied.push(',');
                }
                tidy_into(tidied, value.get(), depth + 1)?;
            }
            tidied.push(']');
        }
        Some(b'"') if text_of(json).is_none() => tidied.push_str(&whole_text(json)),
        _ if crate::document::names::is_odd_number(json) => crate::json::quote(tidied, json),
        _ => tidied.push_str(json),
    }
    Ok(())
}

/// A JSON string with halves of surrogate pairs replaced.
fn whole_text(json: &str) -> String {
    struct Bytes(Vec<u8>);
    impl<'de> Deserialize<'de> for Bytes {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Reader;
            impl Visitor<'_> for Reader {
                type Value = Vec<u8>;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a string")
                }

                fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                    Ok(bytes.to_vec())
                }
            }
            deserializer.deserialize_bytes(Reader).map(Bytes)
        }
    }
    let text = serde_json::from_str::<Bytes>(json).map_or_else(
        |_| "\u{fffd}".to_owned(),
        |bytes| String::from_utf8_lossy(&bytes.0).into_owned(),
    );
    serde_json::Value::String(text).to_string()
}

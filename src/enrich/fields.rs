//! Values that hide in other fields: dimensions in a JSON text, an id in an application's own
//! data, one name for the two that Kurento gave an event.
//!
//! Everything here takes what came and answers "nothing" where it tells nothing; none of it is an error.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Longest value taken out of an application's data.
const PICKED_BYTES_MAX: usize = 256;

/// Largest width or height believed.
const PIXELS_MAX: u32 = 65_535;

/// What OpenVidu puts between the data of client and server where it joins the two.
const JOINT: &str = "%/%";

/// Width and height in pixels, from `{"width":640,"height":480}` as text (`videoDimensions`).
#[must_use]
pub fn video_dimensions(text: &str) -> Option<(u32, u32)> {
    #[derive(Deserialize)]
    struct Dimensions<'a> {
        #[serde(borrow)]
        width: &'a RawValue,
        #[serde(borrow)]
        height: &'a RawValue,
    }
    let pixels = |value: &RawValue| {
        let text = value.get().trim_matches('"').trim();
        // Some clients send fractions: 640.0.
        let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
        whole.parse::<u32>().ok().filter(|pixels| (1..=PIXELS_MAX).contains(pixels))
    };
    let dimensions: Dimensions<'_> = serde_json::from_str(text).ok()?;
    Some((pixels(dimensions.width)?, pixels(dimensions.height)?))
}

/// Whether `endpoint` of `connection` sends what its participant publishes; the others receive.
///
/// A publisher's endpoint is its stream id, a subscriber's the receiver's connection id followed by a whole stream id. Up to
/// 2.11 a stream id begins with its connection id too: `CONNECTION_CAMERA_XHIHV`.
#[must_use]
pub(crate) fn is_publisher(endpoint: &str, connection: &str) -> bool {
    let rest = endpoint.strip_prefix(connection).and_then(|rest| rest.strip_prefix('_'));
    rest.is_none_or(|rest| {
        let kind = rest.split('_').next().unwrap_or("");
        rest.is_empty()
            || rest.split('_').count() == 2 && kind.bytes().all(|byte| byte.is_ascii_uppercase())
    })
}

/// The name that Kurento's event has since OpenVidu 2.23, whichever generation wrote it. Other names come back as they are.
#[must_use]
pub fn kurento_type(name: &str) -> &str {
    match name {
        "IceComponentStateChange" => "IceComponentStateChanged",
        "ConnectionStateChange" => "ConnectionStateChanged",
        "MediaStateChange" => "MediaStateChanged",
        "MediaFlowInStateChange" => "MediaFlowInStateChanged",
        "MediaFlowOutStateChange" => "MediaFlowOutStateChanged",
        "MediaTranscodingStateChange" => "MediaTranscodingStateChanged",
        "UriEndpointStateChange" => "UriEndpointStateChanged",
        "DataChannelOpen" => "DataChannelOpened",
        "DataChannelClose" => "DataChannelClosed",
        other => other,
    }
}

/// A path into the data that an application gave a participant, such as `serverData.user.id`.
///
/// `serverData` or `clientData` alone means the whole text. Members of objects go by name, elements of lists by number. A
/// text on the way that is itself JSON is looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPath {
    root: Root,
    steps: Vec<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    ClientData,
    ServerData,
}

/// Why a text is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be serverData or clientData, or begin with one of them and a dot, such as \"serverData.userId\""
)]
pub struct NoDataPath;

impl DataPath {
    /// The path that `text` spells; `None` for the empty text, which means no path.
    ///
    /// # Errors
    ///
    /// [`NoDataPath`] if it begins otherwise or has an empty step.
    pub fn parse(text: &str) -> Result<Option<Self>, NoDataPath> {
        if text.is_empty() {
            return Ok(None);
        }
        let mut steps = text.split('.');
        let root = match steps.next() {
            Some("clientData") => Root::ClientData,
            Some("serverData") => Root::ServerData,
            _ => return Err(NoDataPath),
        };
        let steps: Vec<Box<str>> = steps.map(Box::from).collect();
        if steps.iter().any(|step| step.trim().is_empty()) {
            return Err(NoDataPath);
        }
        Ok(Some(Self { root, steps }))
    }

    /// The text or number at the end of the path, at most 256 bytes and not empty; numbers as they are written.
    ///
    /// Either text may be no JSON, or both joined by `%/%`.
    #[must_use]
    pub fn pick(&self, client_data: &str, server_data: &str) -> Option<String> {
        let text = match self.root {
            Root::ClientData => client_data.split_once(JOINT).map_or(client_data, |(own, _)| own),
            Root::ServerData => match (server_data, client_data.split_once(JOINT)) {
                ("", Some((_, joined))) => joined,
                _ => server_data.split_once(JOINT).map_or(server_data, |(_, own)| own),
            },
        };
        let json;
        let picked = if self.steps.is_empty() {
            Cow::Borrowed(text)
        } else {
            json = descend(text, &self.steps)?;
            leaf(&json)?
        };
        let picked = picked.trim();
        (!picked.is_empty() && picked.len() <= PICKED_BYTES_MAX).then(|| picked.to_owned())
    }
}

impl fmt::Display for DataPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.root {
            Root::ClientData => "clientData",
            Root::ServerData => "serverData",
        })?;
        self.steps.iter().try_for_each(|step| write!(f, ".{step}"))
    }
}

/// The JSON at the end of `steps`.
fn descend<'t>(json: &'t str, steps: &[Box<str>]) -> Option<Cow<'t, str>> {
    let Some((step, further)) = steps.split_first() else { return Some(Cow::Borrowed(json)) };
    if json.trim_start().starts_with('"') {
        let inner: Cow<'_, str> = serde_json::from_str::<Text<'_>>(json).ok()?.0;
        // One text in another is unwrapped once, so that a text of texts cannot keep us busy.
        if inner.trim_start().starts_with('"') {
            return None;
        }
        return descend(&inner, steps).map(|found| Cow::Owned(found.into_owned()));
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let found = deserializer.deserialize_any(Member(step)).ok()??;
    deserializer.end().ok()?;
    descend(found.get(), further)
}

/// A text that is decoded, or a number as it is written; nothing for anything else.
fn leaf(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b'"' => Some(serde_json::from_str::<Text<'_>>(json).ok()?.0),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(json)),
        _ => None,
    }
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Finds one member of an object, or one element of a list. Of several members with the name the last counts, as in
/// JavaScript.
struct Member<'s>(&'s str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Text(name)) = map.next_key()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let wanted = self.0.parse::<usize>().ok();
        let mut found = None;
        let mut index = 0;
        loop {
            if wanted == Some(index) {
                found = seq.next_element()?;
                if found.is_none() {
                    return Ok(None);
                }
            } else if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            index += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_endpoint_sends_unless_it_is_a_receiver_followed_by_a_stream() {
        for (endpoint, connection, expected) in [
            ("str_CAM_x_con_A", "con_A", true),
            ("con_A_str_CAM_y_con_B", "con_A", false),
            ("con_AB_CAMERA_XHIHV", "con_A", true),
            ("con_A_CAMERA_XHIHV", "con_A", true),
            ("con_A_con_B_CAMERA_XHIHV", "con_A", false),
            ("con_A", "con_A", true),
            ("con_A_", "con_A", true),
        ] {
            assert_eq!(is_publisher(endpoint, connection), expected, "{endpoint} {connection}");
        }
    }

    #[test]
    fn dimensions_are_read_from_their_text() {
        for (text, expected) in [
            (r#"{"width":640,"height":480}"#, Some((640, 480))),
            (r#" { "height" : 720.0, "width" : "1280", "x": [] } "#, Some((1280, 720))),
            (r#"{"width":640}"#, None),
            (r#"{"width":0,"height":480}"#, None),
            (r#"{"width":-1,"height":480}"#, None),
            (r#"{"width":1e9,"height":480}"#, None),
            (r#"{"width":70000,"height":480}"#, None),
            (r#"{"width":null,"height":480}"#, None),
            (r#"{"width":640,"height":480"#, None),
            ("640x480", None),
            ("null", None),
            ("", None),
        ] {
            assert_eq!(video_dimensions(text), expected, "{text}");
        }
    }

    #[test]
    fn both_generations_of_a_kurento_event_have_one_name() {
        for (old, new) in [
            ("IceComponentStateChange", "IceComponentStateChanged"),
            ("MediaFlowInStateChange", "MediaFlowInStateChanged"),
            ("MediaFlowOutStateChange", "MediaFlowOutStateChanged"),
            ("MediaTranscodingStateChange", "MediaTranscodingStateChanged"),
            ("DataChannelOpen", "DataChannelOpened"),
            ("DataChannelClose", "DataChannelClosed"),
        ] {
            assert_eq!(kurento_type(old), new);
            assert_eq!(kurento_type(new), new);
        }
        for same in ["NewCandidatePairSelected", "IceGatheringDone", "UNEXPECTED_ELEMENT_ERROR", ""]
        {
            assert_eq!(kurento_type(same), same);
        }
    }

    fn pick(path: &str, client_data: &str, server_data: &str) -> Option<String> {
        DataPath::parse(path).unwrap().unwrap().pick(client_data, server_data)
    }

    #[test]
    fn a_path_leads_to_a_text_or_a_number() {
        let data = r#"{"userId":"alice","user":{"id":897,"e":1e3,"big":123456789012345678901,"no":null,"on":true},
            "list":[{"id":"a"},{"id":"b"}],"inner":"{\"id\":\"\u00e9\"}","name":" Bob ","userId2":""}"#;
        for (path, expected) in [
            ("serverData.userId", Some("alice")),
            ("serverData.user.id", Some("897")),
            ("serverData.user.e", Some("1e3")),
            ("serverData.user.big", Some("123456789012345678901")),
            ("serverData.list.1.id", Some("b")),
            ("serverData.inner.id", Some("é")),
            ("serverData.name", Some("Bob")),
            ("serverData.user", None),
            ("serverData.user.no", None),
            ("serverData.user.on", None),
            ("serverData.list", None),
            ("serverData.list.2.id", None),
            ("serverData.list.x", None),
            ("serverData.userId.x", None),
            ("serverData.userId2", None),
            ("serverData.nothing", None),
            ("clientData.userId", None),
        ] {
            assert_eq!(pick(path, "", data).as_deref(), expected, "{path}");
        }
        assert_eq!(pick("clientData.userId", data, "").as_deref(), Some("alice"));
        assert_eq!(pick("serverData.a", "", r#"{"a":1,"a":2}"#).as_deref(), Some("2"));
    }

    #[test]
    fn data_that_is_no_json_gives_nothing_and_its_whole_text_can_be_asked_for() {
        for data in [
            "",
            "TestClient",
            "{'user': 'client1'}",
            "{\"userId\":\"a\"",
            "{\"userId\":\"a\"} x",
            "[",
            "\"",
            "null",
        ] {
            assert_eq!(pick("serverData.userId", "", data), None, "{data}");
        }
        assert_eq!(pick("clientData", "Alice Example", "").as_deref(), Some("Alice Example"));
        assert_eq!(pick("serverData", "Alice Example", ""), None);
    }

    #[test]
    fn joined_data_is_taken_apart() {
        let joined = r#"{"id":"c"}%/%{"id":"s"}"#;
        assert_eq!(pick("clientData.id", joined, "").as_deref(), Some("c"));
        assert_eq!(pick("serverData.id", joined, "").as_deref(), Some("s"));
        assert_eq!(pick("serverData.id", "", joined).as_deref(), Some("s"));
        assert_eq!(pick("serverData.id", joined, r#"{"id":"own"}"#).as_deref(), Some("own"));
    }

    #[test]
    fn a_value_has_at_most_256_bytes() {
        for (length, fits) in [(256, true), (257, false)] {
            let value = "x".repeat(length);
            assert_eq!(
                pick("clientData.id", &format!("{{\"id\":\"{value}\"}}"), "").is_some(),
                fits
            );
        }
    }

    #[test]
    fn deep_data_is_refused_and_does_not_overflow() {
        let deep = "[".repeat(100_000);
        assert_eq!(pick("serverData.0.0", "", &deep), None);
        let mut text = "\"x\"".to_owned();
        for _ in 0..8 {
            text = serde_json::to_string(&text).unwrap();
        }
        assert_eq!(pick("serverData.x", "", &text), None);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        assert_eq!(DataPath::parse(""), Ok(None));
        for text in
            ["userId", "serverdata.x", "serverData.", "serverData..x", ".", "data.x", "serverDataX"]
        {
            assert_eq!(DataPath::parse(text), Err(NoDataPath), "{text}");
        }
        for text in ["serverData", "clientData.user.id", "serverData.a b"] {
            assert_eq!(DataPath::parse(text).unwrap().unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_goes_through(text in "\\PC{0,80}", other in "\\PC{0,40}") {
            prop_assert!(video_dimensions(&text).is_none_or(|(width, height)| width * height > 0));
            prop_assert_eq!(kurento_type(&text), text.as_str());
            for path in ["serverData.a.b", "clientData", "clientData.0"] {
                prop_assert!(pick(path, &text, &other).is_none_or(|value| value.len() <= PICKED_BYTES_MAX));
            }
        }

        #[test]
        fn what_was_put_in_comes_out(key in "[^.\\s]{1,12}", value in "\\S\\PC{0,30}\\S") {
            let data = serde_json::json!({"other": [1], "user": {key.clone(): value}}).to_string();
            let picked = pick(&format!("serverData.user.{key}"), "", &data);
            prop_assume!(!data.contains(JOINT));
            prop_assert_eq!(picked, Some(value.trim().to_owned()));
        }
    }
}

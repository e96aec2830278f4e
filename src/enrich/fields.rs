//! Fields that hold more than they say: JSON inside texts, ICE candidates, paths into an application's own data.

use serde::Deserialize;
use serde_json::Value;

use crate::json::Object;

/// Longest value taken out of an application's own data, in bytes.
const PICKED_BYTES_MAX: usize = 256;

/// Width and height in `{"width":640,"height":480}`; anything else is no size.
#[must_use]
pub fn video_size(dimensions: &str) -> Option<(i64, i64)> {
    #[derive(Deserialize)]
    struct Size {
        width: f64,
        height: f64,
    }
    let size: Size = serde_json::from_str(dimensions).ok()?;
    let whole = |number: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "within 1 and 65 535")]
        (1.0..=65_535.0).contains(&number).then_some(number as i64)
    };
    Some((whole(size.width)?, whole(size.height)?))
}

/// The object `candidate` of documents, from a `candidatePair`: `localType` and `remoteType` (`host`, `srflx`, `prflx`,
/// `relay`) and `transport` (`udp`, `tcp`).
#[must_use]
pub fn candidate_json(pair: &str) -> Option<String> {
    let pair: Value = serde_json::from_str(pair).ok()?;
    let candidate = |name: &str| pair.get(name).and_then(Value::as_str).unwrap_or("");
    let (local, remote) = (candidate("localCandidate"), candidate("remoteCandidate"));
    let mut json = Object::with_capacity(80);
    json.text_if("localType", candidate_type(local));
    json.text_if("remoteType", candidate_type(remote));
    json.text_if("transport", transport(local).or_else(|| transport(remote)));
    let json = json.finish();
    (json != "{}").then_some(json)
}

/// RFC 8839: `candidate:FOUNDATION COMPONENT TRANSPORT PRIORITY ADDRESS PORT typ TYPE …`
fn candidate_type(candidate: &str) -> Option<&'static str> {
    let found = candidate.split_ascii_whitespace().skip_while(|word| *word != "typ").nth(1)?;
    ["host", "srflx", "prflx", "relay"].into_iter().find(|known| *known == found)
}

fn transport(candidate: &str) -> Option<&'static str> {
    let found = candidate.split_ascii_whitespace().nth(2)?;
    ["udp", "tcp"].into_iter().find(|known| known.eq_ignore_ascii_case(found))
}

/// The object `net_total` of documents: the sum over all interfaces of `monitoringStats.net`.
#[must_use]
pub fn net_total_json(net: &str) -> Option<String> {
    let net: Value = serde_json::from_str(net).ok()?;
    let sum = |name: &str| -> i64 {
        let interfaces = net.as_object().into_iter().flat_map(serde_json::Map::values);
        interfaces
            .filter_map(|interface| interface.get(name)?.as_i64())
            .fold(0, i64::saturating_add)
    };
    let mut json = Object::with_capacity(64);
    json.integer("rxBytes", sum("rxBytes"));
    json.integer("txBytes", sum("txBytes"));
    Some(json.finish())
}

/// Where an application put something into `serverData` or `clientData`, which are texts that often hold JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    in_server_data: bool,
    names: Vec<String>,
}

impl Path {
    /// `serverData.user.id`; `None` for an empty path.
    #[must_use]
    pub fn new(path: &str) -> Option<Self> {
        let mut names = path.split('.');
        let in_server_data = match names.next()? {
            "serverData" => true,
            "clientData" => false,
            _ => return None,
        };
        Some(Self { in_server_data, names: names.map(str::to_owned).collect() })
    }

    /// What stands there, if it is a text or a number of a sensible length.
    #[must_use]
    pub fn pick(&self, server_data: Option<&str>, client_data: Option<&str>) -> Option<String> {
        let text = if self.in_server_data { server_data } else { client_data }?;
        // OpenVidu's clients see both joined by `%/%`; some applications store them like that.
        let text = match text.split_once("%/%") {
            Some((client, server)) => {
                if self.in_server_data {
                    server
                } else {
                    client
                }
            }
            None => text,
        };
        let root: Value = serde_json::from_str(text).ok()?;
        let found = self.names.iter().try_fold(&root, |value, name| value.get(name))?;
        let picked = match found {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        (!picked.is_empty() && picked.len() <= PICKED_BYTES_MAX).then_some(picked)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// B59
    #[test]
    fn odd_video_sizes_are_none() {
        assert_eq!(video_size(r#"{"width":640,"height":480}"#), Some((640, 480)));
        assert_eq!(video_size(r#"{"width":640.0,"height":480}"#), Some((640, 480)));
        for text in [
            "",
            "null",
            "{",
            r#"{"width":640}"#,
            r#"{"width":-1,"height":2}"#,
            r#"{"width":1e300,"height":2}"#,
        ] {
            assert_eq!(video_size(text), None, "{text}");
        }
    }

    #[test]
    fn candidates_tell_type_and_transport() {
        let pair = r#"{"localCandidate":"candidate:1 1 UDP 2013266431 172.17.0.3 5000 typ host",
            "remoteCandidate":"candidate:2 1 udp 41885695 203.0.113.5 6000 typ relay raddr 0.0.0.0 rport 0","streamId":"1"}"#;
        assert_eq!(
            candidate_json(pair).unwrap(),
            r#"{"localType":"host","remoteType":"relay","transport":"udp"}"#
        );
        assert_eq!(candidate_json(r#"{"localCandidate":7}"#), None);
    }

    #[test]
    fn a_path_leads_into_data_that_may_be_anything() {
        let path = Path::new("serverData.user.id").unwrap();
        assert_eq!(path.pick(Some(r#"{"user":{"id":"u7"}}"#), None).as_deref(), Some("u7"));
        assert_eq!(path.pick(Some(r#"{"user":{"id":7}}"#), None).as_deref(), Some("7"));
        assert_eq!(
            path.pick(Some(r#"{"c":1}%/%{"user":{"id":"u7"}}"#), None).as_deref(),
            Some("u7")
        );
        for data in ["", "{'user': 1}", r#"{"user":{"id":null}}"#, r#"{"user":[]}"#] {
            assert_eq!(path.pick(Some(data), None), None, "{data}");
        }
        assert_eq!(path.pick(None, Some(r#"{"user":{"id":"u7"}}"#)), None);
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in ".*") {
            let _size = video_size(&text);
            let _candidate = candidate_json(&text);
            let _total = net_total_json(&text);
            let _picked = Path::new("clientData.a").unwrap().pick(None, Some(&text));
        }
    }
}

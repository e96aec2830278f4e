//! Where a passing field may stand, so that no index refuses the document for it.

/// Where a field goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Where it stood.
    Indexed,
    /// Below `malformed`: the name is known and promises another shape.
    Malformed,
    /// Below `unindexed`: no index takes the name or the value.
    Unindexed,
}

/// Longest field name that is indexed, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Largest value without a shape of its own that is indexed, in bytes: an index holds no term above 32 766.
const NUMBER_BYTES_MAX: usize = 64;

/// Fields of OpenVidu's that are objects.
const OBJECTS: &[&str] = &["candidatePair", "mediaNodes", "mem", "net", "system", "webrtc_stats"];

/// Names that callscope gives a meaning of its own; an event that brings one of them does not mean that.
const OWN: &[&str] = &[
    "_id",
    "_index",
    "_source",
    "_version",
    "_type",
    "_routing",
    "_ignored",
    "_field_names",
    "abnormal",
    "candidate",
    "client",
    "closedBy",
    "contentOmitted",
    "elastic_type",
    "finalStatus",
    "geo",
    "geoPoints",
    "health",
    "lifetime",
    "malformed",
    "problems",
    "recordings",
    "startGuessed",
    "streamedSeconds",
    "tenant",
    "truncated",
    "unindexed",
    "users",
    "connections",
    "publishers",
    "subscribers",
    "userIdSource",
];

/// Fields of OpenVidu's that are texts, numbers, truth values or lists of them. Sorted.
const SCALARS: &[&str] = &[
    "adaptativeBitrate",
    "audioEnabled",
    "binName",
    "broadcasts",
    "bytesReceived",
    "bytesSent",
    "channelId",
    "clientData",
    "clusterId",
    "componentId",
    "connection",
    "content",
    "cpu",
    "customLayout",
    "data",
    "description",
    "duration",
    "endTime",
    "endpoint",
    "environmentId",
    "errorCode",
    "eventType",
    "filterType",
    "firCount",
    "fractionLost",
    "frameRate",
    "from",
    "hasAudio",
    "hasVideo",
    "id",
    "ip",
    "issuer",
    "jitter",
    "layout",
    "location",
    "mediaType",
    "media_node_id",
    "msSinceEndpointCreation",
    "nackCount",
    "name",
    "networkCache",
    "newState",
    "newStatus",
    "newValue",
    "nodeId",
    "nodeRole",
    "oldState",
    "oldStatus",
    "oldValue",
    "onlyPlayWithSubscribers",
    "operation",
    "outputMode",
    "packetsLost",
    "packetsReceived",
    "packetsSent",
    "padName",
    "platform",
    "pliCount",
    "reason",
    "receivingFrom",
    "recordingIds",
    "recordingLayout",
    "remb",
    "resolution",
    "rtspUri",
    "rtt",
    "serverData",
    "sessionIds",
    "size",
    "sliCount",
    "startTime",
    "state",
    "status",
    "streamId",
    "targetBitrate",
    "timeOfDisconnection",
    "to",
    "type",
    "uri",
    "user",
    "videoDimensions",
    "videoEnabled",
    "videoFramerate",
    "videoSource",
];

/// Where the field `name` with the value `json` goes.
#[must_use]
pub fn place_of(name: &str, json: &str) -> Place {
    let is_object = json.starts_with('{') || (json.starts_with('[') && json.contains('{'));
    if SCALARS.binary_search(&name).is_ok() {
        return match () {
            () if is_object => Place::Malformed,
            () if is_odd_number(json) => Place::Malformed,
            () => Place::Indexed,
        };
    }
    if OBJECTS.contains(&name) {
        return if json.starts_with('{') { Place::Indexed } else { Place::Malformed };
    }
    if OWN.contains(&name) {
        return Place::Malformed;
    }
    // Unknown objects could disagree with unknown texts of the same name, or hold names without end.
    if is_object || is_odd_number(json) || !is_name(name) {
        Place::Unindexed
    } else {
        Place::Indexed
    }
}

/// A number that some index cannot hold.
#[must_use]
pub fn is_odd_number(json: &str) -> bool {
    let is_number = json.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    is_number && (json.len() > NUMBER_BYTES_MAX || crate::event::number_of(json).is_none())
}

/// Dots make paths and control characters or blanks at the edges are refused by one index or another.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('_')
        && name.trim() == name
        && !name.contains(|character: char| {
            character == '.' || character == '*' || character.is_control()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_sorted() {
        assert!(SCALARS.is_sorted());
    }

    #[test]
    fn odd_fields_are_moved_aside() {
        let cases = [
            ("reason", r#""disconnect""#, Place::Indexed),
            ("reason", r#"{"a":1}"#, Place::Malformed),
            ("reason", r#"[{"a":1}]"#, Place::Malformed),
            ("to", r#"["con_A","con_B"]"#, Place::Indexed),
            ("jitter", "1e400", Place::Malformed),
            ("net", r#"{"eth0":{"rxBytes":1}}"#, Place::Indexed),
            ("net", "7", Place::Malformed),
            ("client", r#""x""#, Place::Malformed),
            ("", r#""x""#, Place::Unindexed),
            ("a.b", r#""x""#, Place::Unindexed),
            ("newIn2030", r#""x""#, Place::Indexed),
            ("newIn2030", r#"{"a":1}"#, Place::Unindexed),
        ];
        for (name, json, place) in cases {
            assert_eq!(place_of(name, json), place, "{name}: {json}");
        }
    }
}

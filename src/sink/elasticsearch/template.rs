//! The bodies that setup sends: index template, mappings, lifecycle policies.
//!
//! Fields that nobody knows are indexed only where the server keeps a document that has too many of them (Elasticsearch from
//! 8.13: `ignore_dynamic_beyond_limit`). Elsewhere they are stored and not searched: there, one field beyond the limit would
//! cost the document. Below the objects that are known, nothing else is indexed anywhere.

use serde_json::{Value, json};

use super::ElasticsearchSink;
use crate::config::Period;

/// Version of template and policy; raise it with every change.
const SCHEMA: u32 = 2;
/// Texts longer than this are kept but not searched.
const TEXT_MAX: u32 = 1024;

const TEXTS: &[&str] = &[
    "elastic_type",
    "event",
    "sessionId",
    "uniqueSessionId",
    "customSessionId",
    "session",
    "connectionId",
    "participantId",
    "connection",
    "user",
    "userIdSource",
    "streamId",
    "receivingFrom",
    "endpoint",
    "endpointUid",
    "reason",
    "location",
    "platform",
    "clientData",
    "serverData",
    "ip",
    "videoSource",
    "videoDimensions",
    "rtspUri",
    "id",
    "name",
    "outputMode",
    "resolution",
    "recordingLayout",
    "customLayout",
    "status",
    "finalStatus",
    "cluster_id",
    "clusterId",
    "master_node_id",
    "media_node_id",
    "environmentId",
    "uri",
    "newStatus",
    "oldStatus",
    "nodeRole",
    "nodeId",
    "sessionIds",
    "recordingIds",
    "broadcasts",
    "type",
    "state",
    "oldState",
    "newState",
    "padName",
    "binName",
    "mediaType",
    "description",
    "issuer",
    "operation",
    "content",
    "data",
    "from",
    "to",
    "filterType",
    "eventType",
    "mediaMode",
    "recordingMode",
    "closedBy",
    "health",
    "problems",
    "tenant",
    "mediaRole",
    "scope",
    "superseded",
    "layout",
];
const DATES: &[&str] =
    &["timestamp", "startTime", "createdAt", "destroyedAt", "timeOfDisconnection", "endTime"];
const NUMBERS: &[&str] = &[
    "duration",
    "cpu",
    "jitter",
    "jitterMs",
    "rtt",
    "rttMs",
    "fractionLost",
    "targetBitrate",
    "memPercentage",
];
const INTEGERS: &[&str] = &[
    "size",
    "videoFramerate",
    "videoWidth",
    "videoHeight",
    "frameRate",
    "networkCache",
    "componentId",
    "channelId",
    "errorCode",
    "msSinceEndpointCreation",
    "bytesReceived",
    "bytesSent",
    "packetsReceived",
    "packetsSent",
    "packetsLost",
    "remb",
    "firCount",
    "pliCount",
    "nackCount",
    "sliCount",
    "newValue",
    "oldValue",
    "packetsLostDelta",
    "packetsReceivedDelta",
    "packetsSentDelta",
    "bytesReceivedDelta",
    "bytesSentDelta",
    "nackDelta",
    "pliDelta",
    "firDelta",
    "notFlowingMs",
    "processingMs",
    "joinDelta",
    "streamedSeconds",
    "num_sessions",
    "num_connections",
    "num_publishers",
    "num_subscribers",
    "num_streams",
    "num_recordings",
    "num_broadcasts",
    "dayOfWeek",
    "hourOfDay",
];
const FLAGS: &[&str] = &[
    "audioEnabled",
    "videoEnabled",
    "hasAudio",
    "hasVideo",
    "adaptativeBitrate",
    "onlyPlayWithSubscribers",
    "abnormal",
    "firstMedia",
    "truncated",
    "contentOmitted",
    "startGuessed",
    "uniqueSessionIdDerived",
    "locationDerived",
    "geoPointsDerived",
];
const CONTAINERS: &[&str] = &["users", "recordings", "connections", "publishers", "subscribers"];
const UNSEARCHED: &[&str] = &["net", "malformed", "unindexed", "webrtc_stats", "candidatePair"];

/// Types without which readers go wrong, so that existing indices are looked at.
pub(super) const FIELDS_THAT_MATTER: &[(&str, &str)] = &[
    ("timestamp", "date"),
    ("elastic_type", "keyword"),
    ("sessionId", "keyword"),
    ("uniqueSessionId", "keyword"),
    ("event", "keyword"),
    ("duration", "double"),
];

/// Which server, and what it can.
pub(super) struct Server {
    pub(super) is_opensearch: bool,
    /// Major and minor.
    pub(super) version: (u32, u32),
}

impl Server {
    /// Whether a document with more fields than an index may have is kept, without those beyond.
    fn keeps_documents_beyond_limit(&self) -> bool {
        !self.is_opensearch && self.version >= (8, 13)
    }
}

impl ElasticsearchSink {
    pub(super) fn template(&self, server: &Server, has_lifecycle: bool) -> Value {
        let index = &self.config.index;
        let mut settings = json!({
            "index.number_of_shards": self.config.shards,
            "index.number_of_replicas": self.config.replicas,
            "index.refresh_interval": "1s",
            "index.codec": "best_compression",
            "index.mapping.ignore_malformed": true,
            "index.mapping.total_fields.limit": 2000,
        });
        if let Some(settings) = settings.as_object_mut() {
            if server.keeps_documents_beyond_limit() {
                settings.insert(
                    "index.mapping.total_fields.ignore_dynamic_beyond_limit".to_owned(),
                    json!(true),
                );
            }
            if !server.is_opensearch && has_lifecycle {
                settings.insert("index.lifecycle.name".to_owned(), json!(self.template_name()));
            }
        }
        let mut template = json!({ "settings": settings, "mappings": mappings(server.keeps_documents_beyond_limit()) });
        let patterns = if self.config.period == Period::None {
            json!([index])
        } else {
            if let Some(template) = template.as_object_mut() {
                template.insert("aliases".to_owned(), json!({ index: {} }));
            }
            json!([format!("{index}-events-*")])
        };
        json!({
            "index_patterns": patterns,
            "priority": 400,
            "composed_of": [],
            "_meta": { "managed_by": "callscope", "schema": SCHEMA },
            "template": template,
        })
    }

    pub(super) fn ilm(&self, days: u64) -> (String, Value) {
        let delete = json!({ "min_age": format!("{}d", days + self.period_days()), "actions": { "delete": {} } });
        let body = json!({ "policy": { "phases": { "hot": { "min_age": "0ms", "actions": {} }, "delete": delete } } });
        (format!("/_ilm/policy/{}", self.template_name()), body)
    }

    pub(super) fn ism(&self, days: u64) -> (String, Value) {
        let age = format!("{}d", days + self.period_days());
        let patterns = json!([format!("{}-events-*", self.config.index)]);
        let body = json!({ "policy": {
            "description": "callscope: delete old events",
            "default_state": "live",
            "states": [
                { "name": "live", "actions": [], "transitions": [{ "state_name": "expired", "conditions": { "min_index_age": age } }] },
                { "name": "expired", "actions": [{ "delete": {} }], "transitions": [] },
            ],
            "ism_template": [{ "index_patterns": patterns, "priority": 100 }],
        } });
        (format!("/_plugins/_ism/policies/{}", self.template_name()), body)
    }

    /// Age counts from an index's creation, which is the beginning of its period, or later.
    fn period_days(&self) -> u64 {
        match self.config.period {
            Period::Month => 31,
            Period::Day => 1,
            Period::None => 0,
        }
    }
}

fn mappings(is_open: bool) -> Value {
    let text = json!({
        "type": "keyword", "ignore_above": TEXT_MAX,
        "fields": { "keyword": { "type": "keyword", "ignore_above": TEXT_MAX } },
    });
    let (number, integer) = (json!({ "type": "double" }), json!({ "type": "long" }));
    let date = json!({ "type": "date", "format": "epoch_millis||strict_date_optional_time" });
    let unsearched = json!({ "type": "object", "enabled": false });
    let mut properties = serde_json::Map::new();
    let mut all = |names: &[&str], kind: &Value| properties.extend(members(names, kind));
    all(TEXTS, &text);
    all(DATES, &date);
    all(NUMBERS, &number);
    all(INTEGERS, &integer);
    all(FLAGS, &json!({ "type": "boolean" }));
    all(UNSEARCHED, &unsearched);
    let container =
        [("numberOfElements", json!({ "type": "integer" })), ("content", unsearched.clone())];
    all(CONTAINERS, &object(container.map(owned)));
    let mut geo = members(
        &["continent", "country", "countryCode", "region", "city", "asOrganization"],
        &text,
    );
    geo.push(owned(("asn", integer.clone())));
    let others = [
        ("geo", object(geo)),
        ("geoPoints", json!({ "type": "geo_point", "ignore_malformed": true })),
        ("client", object(members(&["browser", "version", "os", "device"], &text))),
        ("candidate", object(members(&["localType", "remoteType", "transport"], &text))),
        ("lifetime", json!({ "type": "date_range", "format": "epoch_millis" })),
        ("mem", object(members(&["used", "percentage"], &number))),
        ("net_total", object(members(&["rxBytes", "txBytes"], &integer))),
    ];
    properties.extend(others.map(owned));
    properties.extend(autoscaling(&number, &unsearched));
    json!({
        "dynamic": is_open,
        "date_detection": false,
        "numeric_detection": false,
        "dynamic_templates": [
            { "objects": { "match_mapping_type": "object", "mapping": unsearched } },
            { "texts": { "match_mapping_type": "string", "mapping": text } },
            { "numbers": { "match_mapping_type": "long", "mapping": number } },
        ],
        "properties": properties,
    })
}

/// `mediaNodes` and `system` of the event `autoscaling`.
fn autoscaling(number: &Value, unsearched: &Value) -> [(String, Value); 2] {
    let nodes = |names: &[&str], lists: &[&str]| {
        let mut all = members(names, number);
        all.extend(members(lists, unsearched));
        object(all)
    };
    let launch = nodes(&["total"], &["newNodes", "waitingIdleToTerminateNodes", "canceledNodes"]);
    let terminate = nodes(&["total"], &["runningNodes", "launchingNodes"]);
    let config = nodes(&["maxNodes", "minNodes", "maxAvgLoad", "minAvgLoad"], &[]);
    let status = nodes(
        &["numNodes", "totalLoad", "avgLoad"],
        &["runningNodes", "launchingNodes", "waitingIdleToTerminateNodes", "canceledNodes"],
    );
    [
        owned(("mediaNodes", object([("launch", launch), ("terminate", terminate)].map(owned)))),
        owned(("system", object([("config", config), ("status", status)].map(owned)))),
    ]
}

/// An object of which nothing but `members` is indexed.
fn object(members: impl IntoIterator<Item = (String, Value)>) -> Value {
    let members: serde_json::Map<String, Value> = members.into_iter().collect();
    json!({ "dynamic": false, "properties": members })
}

fn members(names: &[&str], kind: &Value) -> Vec<(String, Value)> {
    names.iter().map(|name| owned((name, kind.clone()))).collect()
}

fn owned((name, kind): (&str, Value)) -> (String, Value) {
    (name.to_owned(), kind)
}

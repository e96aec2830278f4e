//! What the servers need before the first document: template, alias, lifecycle.

use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::ElasticsearchSink;
use crate::config::Period;

/// Version of template and policy; raise it with every change.
const SCHEMA: u32 = 1;
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
];
const CONTAINERS: &[&str] = &["users", "recordings", "connections", "publishers", "subscribers"];
const UNSEARCHED: &[&str] = &["net", "malformed", "unindexed", "webrtc_stats"];

/// Why setting up did not work.
pub(super) enum SetupError {
    /// Somebody has to change something.
    Refused(anyhow::Error),
    /// No answer; worth another try.
    Away(anyhow::Error),
}

/// Something that setup creates or replaces.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it is, for people.
    pub what: String,
    /// Where it goes.
    pub path: String,
    /// What goes there.
    pub body: Value,
    /// What stands there now, if anything.
    pub before: Option<Value>,
    /// Left out with a warning where the server has no such thing.
    pub is_optional: bool,
}

/// Which server, and what it can.
struct Server {
    is_opensearch: bool,
    /// Major and minor.
    version: (u32, u32),
}

impl ElasticsearchSink {
    pub(super) fn template_name(&self) -> String {
        format!("{}-events", self.config.index)
    }

    /// What setup would send, with what stands there now.
    ///
    /// # Errors
    ///
    /// If the servers do not answer, or refuse; the message says what to do.
    pub async fn plan(&self) -> anyhow::Result<Vec<Step>> {
        self.steps().await.map_err(|error| match error {
            SetupError::Refused(error) | SetupError::Away(error) => error,
        })
    }

    pub(super) async fn set_up(&self) -> Result<(), SetupError> {
        for step in self.steps().await? {
            let (status, answer) = self
                .ask(Method::Put, &step.path, Some(step.body.to_string()))
                .await
                .map_err(SetupError::Away)?;
            match status {
                200..=299 => tracing::debug!(path = step.path, "created or replaced"),
                _ if step.is_optional => {
                    tracing::warn!(
                        path = step.path,
                        status,
                        "server has no such lifecycle management; indices are kept for ever"
                    );
                }
                _ => return Err(refusal(status, &answer, &step.what)),
            }
        }
        Ok(())
    }

    async fn steps(&self) -> Result<Vec<Step>, SetupError> {
        let server = self.server().await?;
        self.refuse_plain_index().await?;
        let days = self.config.retention.as_secs() / 86_400;
        let mut steps = Vec::new();
        if days > 0 {
            let (path, body) = if server.is_opensearch { self.ism(days) } else { self.ilm(days) };
            let what =
                format!("lifecycle policy {}: delete after {days} days", self.template_name());
            steps.push(self.step(what, path, body, true).await?);
        }
        let body = self.template(&server, days > 0);
        let path = format!("/_index_template/{}", self.template_name());
        steps.push(
            self.step(format!("index template {}", self.template_name()), path, body, false)
                .await?,
        );
        Ok(steps)
    }

    async fn step(
        &self,
        what: String,
        path: String,
        body: Value,
        is_optional: bool,
    ) -> Result<Step, SetupError> {
        let (status, before) =
            self.ask(Method::Get, &path, None).await.map_err(SetupError::Away)?;
        Ok(Step { what, path, body, before: (status == 200).then_some(before), is_optional })
    }

    async fn server(&self) -> Result<Server, SetupError> {
        let (mut status, mut told) =
            self.ask(Method::Get, "/", None).await.map_err(SetupError::Away)?;
        if status == 405 {
            // Builds of Elasticsearch without the module that answers there.
            (status, told) = self
                .ask(Method::Get, "/_nodes/_local/none", None)
                .await
                .map_err(SetupError::Away)?;
            let node = told
                .get("nodes")
                .and_then(Value::as_object)
                .and_then(|nodes| nodes.values().next());
            told = json!({ "version": { "number": node.and_then(|node| node.get("version")).cloned() } });
        }
        if status != 200 {
            return Err(refusal(status, &told, "who are you"));
        }
        let version = told.get("version").cloned().unwrap_or_default();
        let number = version.get("number").and_then(Value::as_str).unwrap_or("0.0");
        let mut parts = number.split('.').map(|part| part.parse().unwrap_or(0));
        let version_number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let is_opensearch =
            version.get("distribution").and_then(Value::as_str) == Some("opensearch");
        Ok(Server { is_opensearch, version: version_number })
    }

    /// An index that has the alias's name stands in its way; OpenVidu Pro makes such a one.
    async fn refuse_plain_index(&self) -> Result<(), SetupError> {
        let index = &self.config.index;
        if self.config.period == Period::None {
            return Ok(());
        }
        let (status, found) = self
            .ask(Method::Get, &format!("/{index}/_alias"), None)
            .await
            .map_err(SetupError::Away)?;
        let is_plain =
            status == 200 && found.as_object().is_some_and(|found| found.contains_key(index));
        if is_plain {
            return Err(SetupError::Refused(anyhow::anyhow!(
                "there is an index called {index} already, so no alias can have that name; set elasticsearch.period = \"none\" to write into it, \
                 set another elasticsearch.index, or reindex it to another name and delete it"
            )));
        }
        Ok(())
    }

    fn template(&self, server: &Server, has_lifecycle: bool) -> Value {
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
            if !server.is_opensearch && server.version >= (8, 13) {
                settings.insert(
                    "index.mapping.total_fields.ignore_dynamic_beyond_limit".to_owned(),
                    json!(true),
                );
            }
            if !server.is_opensearch && has_lifecycle {
                settings.insert("index.lifecycle.name".to_owned(), json!(self.template_name()));
            }
        }
        let mut template = json!({ "settings": settings, "mappings": mappings() });
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
            "_meta": { "managed_by": "callscope", "schema": SCHEMA },
            "template": template,
        })
    }

    fn ilm(&self, days: u64) -> (String, Value) {
        let delete = json!({ "min_age": format!("{}d", days + self.period_days()), "actions": { "delete": {} } });
        let body = json!({ "policy": { "phases": { "hot": { "min_age": "0ms", "actions": {} }, "delete": delete } } });
        (format!("/_ilm/policy/{}", self.template_name()), body)
    }

    fn ism(&self, days: u64) -> (String, Value) {
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

    /// Age counts from an index's creation, which is the beginning of its period.
    fn period_days(&self) -> u64 {
        match self.config.period {
            Period::Month => 31,
            Period::Day => 1,
            Period::None => 0,
        }
    }
}

fn refusal(status: u16, answer: &Value, what: &str) -> SetupError {
    let reason = answer
        .pointer("/error/reason")
        .and_then(Value::as_str)
        .map_or_else(|| answer.to_string(), str::to_owned);
    match status {
        401 | 403 => SetupError::Refused(anyhow::anyhow!(
            "{what}: the server refuses (status {status}: {reason}); see elasticsearch.username, .password and .api_key, and that they may manage templates and write indices"
        )),
        429 | 500..=599 => SetupError::Away(anyhow::anyhow!("{what}: status {status}: {reason}")),
        _ => SetupError::Refused(anyhow::anyhow!(
            "{what}: the server refuses (status {status}: {reason})"
        )),
    }
}

fn mappings() -> Value {
    let text = json!({
        "type": "keyword", "ignore_above": TEXT_MAX,
        "fields": { "keyword": { "type": "keyword", "ignore_above": TEXT_MAX } },
    });
    let date = json!({ "type": "date", "format": "epoch_millis||strict_date_optional_time" });
    let object = |names: &[&str], kind: &Value| -> Value {
        let members: serde_json::Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), kind.clone())).collect();
        json!({ "properties": members })
    };
    let mut properties = serde_json::Map::new();
    let mut all = |names: &[&str], kind: &Value| {
        properties.extend(names.iter().map(|name| ((*name).to_owned(), kind.clone())));
    };
    all(TEXTS, &text);
    all(DATES, &date);
    all(NUMBERS, &json!({ "type": "double" }));
    all(INTEGERS, &json!({ "type": "long" }));
    all(FLAGS, &json!({ "type": "boolean" }));
    let unsearched = json!({ "type": "object", "enabled": false });
    all(UNSEARCHED, &unsearched);
    all(
        CONTAINERS,
        &json!({ "properties": { "numberOfElements": { "type": "integer" }, "content": unsearched } }),
    );
    let number = json!({ "type": "double" });
    let mut geo =
        object(&["continent", "country", "countryCode", "region", "city", "asOrganization"], &text);
    if let Some(geo) = geo.pointer_mut("/properties").and_then(Value::as_object_mut) {
        geo.insert("asn".to_owned(), json!({ "type": "long" }));
    }
    let others = [
        ("geo", geo),
        ("geoPoints", json!({ "type": "geo_point", "ignore_malformed": true })),
        ("client", object(&["browser", "version", "os", "device"], &text)),
        ("candidate", object(&["localType", "remoteType", "transport"], &text)),
        ("lifetime", json!({ "type": "date_range", "format": "epoch_millis" })),
        ("mem", object(&["used", "percentage"], &number)),
        ("net_total", object(&["rxBytes", "txBytes"], &json!({ "type": "long" }))),
    ];
    properties.extend(others.into_iter().map(|(name, kind)| (name.to_owned(), kind)));
    json!({
        "date_detection": false,
        "numeric_detection": false,
        "dynamic_templates": [
            { "objects": { "match_mapping_type": "object", "match": "*", "path_unmatch": ["system*", "mediaNodes*", "candidatePair*"], "mapping": unsearched } },
            { "texts": { "match_mapping_type": "string", "mapping": text } },
            { "numbers": { "match_mapping_type": "long", "mapping": number } },
        ],
        "properties": properties,
    })
}

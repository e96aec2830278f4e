//! The bodies that setup sends: index template, mappings, lifecycle policies.
//!
//! Fields that nobody knows are indexed only where the server keeps a document that has too many of them (Elasticsearch from
//! 8.13: `ignore_dynamic_beyond_limit`). Elsewhere they are stored and not searched: there, one field beyond the limit would
//! cost the document. Below the objects that are known, nothing else is indexed anywhere.

use serde_json::{Map, Value, json};

use super::ElasticsearchSink;
use crate::config::Period;
use crate::document::fields::{FIELDS, FOLDED, Holds, Unit};

/// Version of template and policy; raise it with every change.
const SCHEMA: u32 = 4;
/// Texts longer than this are kept but not searched.
const TEXT_MAX: u32 = 1024;

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
    let mut properties = Map::new();
    for (name, holds) in FIELDS {
        let mut mapping = mapping(*holds);
        if FOLDED.contains(name) {
            fold(&mut mapping);
        }
        put(&mut properties, name, mapping);
    }
    json!({
        "dynamic": is_open,
        "date_detection": false,
        "numeric_detection": false,
        "dynamic_templates": [
            { "objects": { "match_mapping_type": "object", "mapping": mapping(Holds::Unsearched) } },
            { "texts": { "match_mapping_type": "string", "mapping": mapping(Holds::Text) } },
            { "numbers": { "match_mapping_type": "long", "mapping": mapping(Holds::Number(Unit::Number)) } },
        ],
        "properties": properties,
    })
}

pub(super) fn mapping(holds: Holds) -> Value {
    match holds {
        Holds::Text => json!({
            "type": "keyword", "ignore_above": TEXT_MAX,
            "fields": { "keyword": { "type": "keyword", "ignore_above": TEXT_MAX } },
        }),
        Holds::Date => {
            json!({ "type": "date", "format": "epoch_millis||strict_date_optional_time" })
        }
        Holds::Number(_) => json!({ "type": "double" }),
        Holds::Whole(_) => json!({ "type": "long" }),
        Holds::Flag => json!({ "type": "boolean" }),
        Holds::Point => json!({ "type": "geo_point", "ignore_malformed": true }),
        Holds::Span => json!({ "type": "date_range", "format": "epoch_millis" }),
        Holds::Unsearched => json!({ "type": "object", "enabled": false }),
    }
}

/// Servers have this normalizer of their own.
fn fold(mapping: &mut Value) {
    for keyword in ["", "/fields/keyword"] {
        if let Some(keyword) = mapping.pointer_mut(keyword).and_then(Value::as_object_mut) {
            keyword.insert("normalizer".to_owned(), json!("lowercase"));
        }
    }
}

/// Puts what is called `name` among `properties`, dots making objects of which nothing else is indexed.
fn put(properties: &mut Map<String, Value>, name: &str, mapping: Value) {
    let Some((object, member)) = name.split_once('.') else {
        properties.insert(name.to_owned(), mapping);
        return;
    };
    let object =
        properties.entry(object).or_insert_with(|| json!({ "dynamic": false, "properties": {} }));
    if let Some(members) = object.get_mut("properties").and_then(Value::as_object_mut) {
        put(members, member, mapping);
    }
}

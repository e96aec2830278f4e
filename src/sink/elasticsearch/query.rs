//! A [`Search`] as Elasticsearch and OpenSearch understand it.

use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::ElasticsearchSink;
use super::template::mapping;
use crate::document::SUPERSEDED;
use crate::document::fields::{self, Holds};
use crate::panels::answer::{self as panels, View};
use crate::panels::{Panel, request};
use crate::search::{Found, Page, Search, SearchError, Sort, WORDS};

/// How long the servers may search.
const TIMEOUT: &str = "20s";

#[derive(serde::Deserialize)]
struct Answer {
    hits: Hits,
}

#[derive(serde::Deserialize)]
struct Hits {
    total: Total,
    hits: Vec<Hit>,
}

#[derive(serde::Deserialize)]
struct Total {
    value: u64,
}

#[derive(serde::Deserialize)]
struct Hit {
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_source")]
    source: Value,
}

impl ElasticsearchSink {
    /// Answers `search` from what the servers have made searchable.
    ///
    /// # Errors
    ///
    /// If it asks for more than can be given, or the servers do not answer.
    pub async fn search(&self, search: &Search) -> Result<Page, SearchError> {
        search.check()?;
        let answer = self.found(&body(search)).await?;
        let unreadable = |error: serde_json::Error| SearchError::Unavailable(error.into());
        let answer: Answer = serde_json::from_value(answer).map_err(unreadable)?;
        let found = |hit: Hit| {
            let source = serde_json::value::to_raw_value(&hit.source).map_err(unreadable)?;
            Ok(Found { id: hit.id, source })
        };
        let documents =
            answer.hits.hits.into_iter().map(found).collect::<Result<_, SearchError>>()?;
        Ok(Page { total: answer.hits.total.value, documents })
    }

    /// What `panel` shows of that which the servers have made searchable.
    ///
    /// # Errors
    ///
    /// If it has more parts than the servers count, or they do not answer whole and in time.
    pub async fn panel(&self, panel: &Panel, view: &View) -> Result<panels::Answer, SearchError> {
        let answer = self.found(&request::body(panel, view)).await?;
        request::read(panel, view, &answer).map_err(|error| SearchError::Unavailable(error.into()))
    }

    /// The answer to a search, whole or not at all.
    async fn found(&self, body: &Value) -> Result<Value, SearchError> {
        let path =
            format!("/{}/_search?ignore_unavailable=true&timeout={TIMEOUT}", self.config.index);
        let (status, answer) = self
            .ask(Method::Post, &path, Some(body.to_string()))
            .await
            .map_err(SearchError::Unavailable)?;
        let unavailable = |problem: String| Err(SearchError::Unavailable(anyhow::anyhow!(problem)));
        if status != 200 {
            let told = answer.to_string();
            if told.contains("too_many_buckets") {
                let problem = "there are more parts than the servers count (search.max_buckets)";
                return Err(SearchError::Refused(problem.to_owned()));
            }
            if matches!(status, 401 | 403) {
                return Err(SearchError::Denied(format!("status {status}: {told}")));
            }
            return unavailable(format!("status {status}: {told}"));
        }
        if answer.get("timed_out") == Some(&json!(true)) {
            return unavailable(format!("the search took longer than {TIMEOUT}"));
        }
        if let Some(reason) = answer.pointer("/_shards/failures/0/reason") {
            return unavailable(format!("a part of the index does not answer: {reason}"));
        }
        Ok(answer)
    }
}

fn body(search: &Search) -> Value {
    let mut conditions = Vec::new();
    for (field, values) in &search.filters {
        // Numbers and truth values are found under their own name, texts under their name too: both are keywords.
        conditions.push(json!({ "terms": { field: values } }));
    }
    if search.from.is_some() || search.to.is_some() {
        let mut range = serde_json::Map::new();
        range.extend(search.from.map(|time| ("gte".to_owned(), json!(time))));
        range.extend(search.to.map(|time| ("lt".to_owned(), json!(time))));
        range.insert("format".to_owned(), json!("epoch_millis"));
        conditions.push(json!({ "range": { "timestamp": range } }));
    }
    for word in search.text.split_whitespace() {
        let pattern = format!("*{}*", word.replace(['\\', '*', '?'], "?"));
        let anywhere: Vec<Value> = WORDS
            .iter()
            .map(|field| json!({ "wildcard": { *field: { "value": pattern, "case_insensitive": true } } }))
            .collect();
        conditions.push(json!({ "bool": { "should": anywhere, "minimum_should_match": 1 } }));
    }
    let Sort { field, is_rising } = &search.sort;
    let order = if *is_rising { "asc" } else { "desc" };
    let mapping = mapping(fields::find(field).unwrap_or(Holds::Text));
    json!({
        "size": search.limit,
        "from": search.offset,
        "track_total_hits": 10_000,
        "query": { "bool": { "filter": conditions, "must_not": [{ "term": { "elastic_type": SUPERSEDED } }] } },
        "sort": [
            { fields::exact(field): { "order": order, "missing": "_last", "unmapped_type": mapping.get("type") } },
            { "timestamp": { "order": "desc", "unmapped_type": "date" } },
            { "_doc": {} },
        ],
    })
}

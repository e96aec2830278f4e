//! A [`Search`] as Elasticsearch and OpenSearch understand it.

use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::ElasticsearchSink;
use crate::document::SUPERSEDED;
use crate::search::{Found, Order, Page, Search, SearchError, WORDS};

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
        let path = format!("/{}/_search?ignore_unavailable=true", self.config.index);
        let (status, answer) = self
            .ask(Method::Post, &path, Some(body(search).to_string()))
            .await
            .map_err(SearchError::Unavailable)?;
        if status != 200 {
            return Err(SearchError::Unavailable(anyhow::anyhow!("status {status}: {answer}")));
        }
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
    let order = match search.order {
        Order::Newest => "desc",
        Order::Oldest => "asc",
    };
    json!({
        "size": search.limit,
        "from": search.offset,
        "track_total_hits": 10_000,
        "query": { "bool": { "filter": conditions, "must_not": [{ "term": { "elastic_type": SUPERSEDED } }] } },
        "sort": [{ "timestamp": { "order": order, "unmapped_type": "date" } }, { "_doc": {} }],
    })
}

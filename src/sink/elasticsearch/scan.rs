//! All documents of an index, one after another, and how many there are: for those who compare.

use elasticsearch::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ElasticsearchSink;
use crate::document::SUPERSEDED;

/// Documents of one answer.
const PAGE: usize = 2_000;
/// How long the server keeps its place between two answers.
const KEPT: &str = "2m";

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "_scroll_id")]
    scroll_id: Option<String>,
    hits: Hits,
}

#[derive(Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_source")]
    source: Value,
}

/// Documents that are no observations and stand for nothing that has gone.
fn kept() -> Value {
    json!({ "bool": { "must_not": [{ "terms": { "elastic_type": [SUPERSEDED, "platformStats"] } }] } })
}

impl ElasticsearchSink {
    /// Gives every document of `index` to `each`, with its id, but for `platformStats` and what was superseded.
    ///
    /// # Errors
    ///
    /// If there is no such index, or the servers do not answer.
    pub async fn scan(
        &self,
        index: &str,
        mut each: impl FnMut(String, Value),
    ) -> anyhow::Result<()> {
        let body = json!({ "size": PAGE, "sort": ["_doc"], "query": kept() });
        let path = format!("/{index}/_search?scroll={KEPT}");
        let mut answer = self.told(&path, &body).await?;
        loop {
            let page: Answer = serde_json::from_value(answer)?;
            if page.hits.hits.is_empty() {
                return Ok(());
            }
            for hit in page.hits.hits {
                each(hit.id, hit.source);
            }
            let Some(scroll_id) = page.scroll_id else { return Ok(()) };
            let body = json!({ "scroll": KEPT, "scroll_id": scroll_id });
            answer = self.told("/_search/scroll", &body).await?;
        }
    }

    /// Documents of `index` with these ids.
    ///
    /// # Errors
    ///
    /// As [`scan`](Self::scan).
    pub async fn with_ids(
        &self,
        index: &str,
        ids: &[&str],
    ) -> anyhow::Result<Vec<(String, Value)>> {
        let body = json!({ "size": ids.len(), "query": { "ids": { "values": ids } } });
        let answer = self.told(&format!("/{index}/_search"), &body).await?;
        let page: Answer = serde_json::from_value(answer)?;
        Ok(page.hits.hits.into_iter().map(|hit| (hit.id, hit.source)).collect())
    }

    /// Has everything that was written to `index` so far found and counted from now on.
    ///
    /// # Errors
    ///
    /// If the servers refuse, or do not answer.
    pub async fn refresh(&self, index: &str) -> anyhow::Result<()> {
        let path = format!("/{index}/_refresh?ignore_unavailable=true");
        // Elasticsearch refuses a body here.
        self.answered(&path, None).await.map(drop)
    }

    /// Raw documents in `index`; an index that is not there has none.
    ///
    /// # Errors
    ///
    /// If the servers do not answer, or not for all of it.
    pub async fn count_raw(&self, index: &str) -> anyhow::Result<u64> {
        let mut query = kept();
        if let Some(must_not) = query.pointer_mut("/bool/must_not").and_then(Value::as_array_mut) {
            must_not.push(json!({ "wildcard": { "elastic_type": "*Summary" } }));
        }
        let path = format!("/{index}/_count?ignore_unavailable=true");
        let answer = self.told(&path, &json!({ "query": query })).await?;
        let failed = answer.pointer("/_shards/failed").and_then(Value::as_u64).unwrap_or(0);
        anyhow::ensure!(
            failed == 0,
            "{path}: {failed} shards of {index} do not answer; ask again when the cluster is green or yellow"
        );
        answer
            .get("count")
            .and_then(Value::as_u64)
            .ok_or_else(|| anyhow::anyhow!("the answer has no count: {answer}"))
    }

    async fn told(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.answered(path, Some(body.to_string())).await
    }

    async fn answered(&self, path: &str, body: Option<String>) -> anyhow::Result<Value> {
        let (status, answer) = self.ask(Method::Post, path, body).await?;
        anyhow::ensure!(
            status == 200,
            "{path}: status {status}: {}",
            answer.pointer("/error/reason").and_then(Value::as_str).unwrap_or("no reason told")
        );
        Ok(answer)
    }
}

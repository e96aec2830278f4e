//! One bulk request: its lines, and what its answer means for each document.
//!
//! Whether an index takes documents is asked by a write that can only conflict: it passes everything that a real one has to
//! pass, and stores nothing. It tells a document that the store always fails from a store that fails, and a blocked index of a
//! past period (read-only, closed by its lifecycle) from a blocked cluster: if the index of the present takes documents, those
//! for a blocked one of the past become dead letters and do not hold up the rest.

use std::collections::BTreeSet;
use std::io::BufWriter;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use elasticsearch::http::Method;
use elasticsearch::http::headers::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::answer::{self, Cure, Reply, Trouble, Verdict};
use super::work::Batch;
use super::{ElasticsearchSink, setup};
use crate::document::Document;
use crate::json::Object;
use crate::sink::{Written, index_name};

/// Indices remembered as made with the template; beyond that it is looked for again.
const SEEN_MAX: usize = 1024;
/// Id that no document has, under which is asked whether an index takes documents.
const PROBE: &str = "callscope-probe";

/// Milliseconds for which the name of an index is the same in any case.
const DAY: i64 = 86_400_000;

/// A document, and the index it goes to.
type Chosen<'d> = (Arc<str>, &'d Document);

impl ElasticsearchSink {
    /// Sends some of `documents` as one request, and finds out what its answer means for each of them.
    pub(super) async fn attempt(&self, batch: Batch, documents: &[Document]) -> (Batch, Reply) {
        let mut chosen: Vec<Chosen<'_>> = Vec::with_capacity(batch.documents.len());
        let mut day = i64::MIN;
        for document in batch.documents.iter().filter_map(|index| documents.get(*index)) {
            // Documents that stand together are mostly of one day.
            let known = chosen.last().filter(|_| day == document.index_time.div_euclid(DAY));
            let name = known.map(|(name, _)| Arc::clone(name));
            let name = name.unwrap_or_else(|| index_name(&self.config, document.index_time).into());
            day = document.index_time.div_euclid(DAY);
            chosen.push((name, document));
        }
        let indices: BTreeSet<&str> = chosen.iter().map(|(name, _)| &**name).collect();
        if let Err(verdict) = self.look_for_template(&indices).await {
            return (batch, Reply::All(verdict));
        }
        let probes = if batch.has_probe() { indices } else { BTreeSet::new() };
        let count = chosen.len() + probes.len();
        let started = tokio::time::Instant::now();
        let reply = self.bulk(encode(&chosen, &probes), count).await;
        let seconds = started.elapsed().as_secs_f64();
        let reply = match reply {
            Reply::Items(verdicts) => Reply::Items(self.settle(&chosen, &probes, verdicts).await),
            reply @ (Reply::Halve(_) | Reply::All(_)) => reply,
        };
        self.count(&chosen, &reply, seconds);
        (batch, reply)
    }

    fn count(&self, chosen: &[Chosen<'_>], reply: &Reply, seconds: f64) {
        let Some(metrics) = &self.metrics else { return };
        let Reply::Items(verdicts) = reply else { return metrics.bulk("failed", seconds) };
        let mut outcome = "ok";
        for ((_, document), verdict) in chosen.iter().zip(verdicts) {
            if !matches!(verdict, Verdict::Done(_)) {
                outcome = "retried";
                metrics.index_failure(&document.elastic_type, "retried");
            }
        }
        metrics.bulk(outcome, seconds);
    }

    /// Sends `body`, which makes `count` items.
    async fn bulk(&self, body: Body, count: usize) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        let compress = self.config.gzip;
        if compress {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        // Compression would hold up every other request on this thread.
        let written = tokio::task::spawn_blocking(move || body.written(compress)).await;
        let body = match written.map_err(anyhow::Error::from).and_then(|result| Ok(result?)) {
            Ok(body) => body,
            Err(error) => return Reply::All(failed(&error)),
        };
        // The server waits for a missing shard less long than we wait for the server, so that it can still tell.
        let timeout_ms = (self.config.request_timeout / 2).as_millis();
        let path = format!(
            "/_bulk?timeout={timeout_ms}ms&filter_path=errors,items.*.status,items.*.error"
        );
        match self.send(Method::Post, &path, headers, Some(Bytes::from(body))).await {
            Ok(answer) => answer::reply(answer.status, &answer.body, count).told_by(answer.url),
            Err(error) => Reply::All(failed(&error)),
        }
    }

    /// The verdicts on the documents `chosen`, whose items come before those of `probes`, in the light of all of them.
    async fn settle(
        &self,
        chosen: &[Chosen<'_>],
        probes: &BTreeSet<&str>,
        mut verdicts: Vec<Verdict>,
    ) -> Vec<Verdict> {
        let asked = verdicts.split_off(chosen.len());
        let names = || chosen.iter().map(|(name, _)| &**name);
        let told = names().zip(&verdicts).chain(probes.iter().copied().zip(&asked));
        let takes: BTreeSet<&str> =
            told.filter(|(_, verdict)| is_taken(verdict)).map(|(name, _)| name).collect();
        for (name, verdict) in names().zip(&mut verdicts) {
            match verdict {
                Verdict::Again { trouble: trouble @ Trouble::Failed, .. }
                    if takes.contains(name) =>
                {
                    *trouble = Trouble::FailedAlone;
                }
                Verdict::Pause { reason, cure: Cure::Alias } => {
                    *reason = format!("{reason}; {}", setup::name_is_taken(&self.config.index));
                }
                Verdict::Done(_) | Verdict::Again { .. } | Verdict::Pause { .. } => {}
            }
        }
        let is_blocked =
            |verdict: &Verdict| matches!(verdict, Verdict::Pause { cure: Cure::Index, .. });
        if !verdicts.iter().any(is_blocked) {
            return verdicts;
        }
        let present = index_name(&self.config, chrono::Utc::now().timestamp_millis());
        let has_block_in_the_past =
            names().zip(&verdicts).any(|(name, verdict)| is_blocked(verdict) && *name < *present);
        let goes_on = has_block_in_the_past
            && (takes.contains(present.as_str()) || self.takes_documents(&present).await);
        for (name, verdict) in names().zip(&mut verdicts) {
            if let Verdict::Pause { reason, cure: Cure::Index } = verdict
                && *name < *present
                && goes_on
            {
                *verdict = Verdict::Done(Written::Dead(reason.as_str().into()));
            }
        }
        verdicts
    }

    /// Whether `index` takes documents at this moment.
    async fn takes_documents(&self, index: &str) -> bool {
        let probes = BTreeSet::from([index]);
        if self.look_for_template(&probes).await.is_err() {
            return false;
        }
        let reply = self.bulk(encode(&[], &probes), 1).await;
        matches!(reply, Reply::Items(verdicts) if verdicts.iter().all(is_taken))
    }

    /// Without the template the first document would make an index with guessed types, which nothing mends later.
    async fn look_for_template(&self, indices: &BTreeSet<&str>) -> Result<(), Verdict> {
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let are_seen = {
            let seen = seen();
            indices.iter().all(|index| seen.contains(*index))
        };
        if are_seen {
            return Ok(());
        }
        let name = self.template_name();
        let asked = self.ask(Method::Get, &format!("/_index_template/{name}"), None).await;
        let (status, body) = asked.map_err(|error| failed(&error))?;
        let told = || format!("index template {name}: status {status}: {body}");
        match status {
            200 => {
                let mut seen = seen();
                if seen.len() + indices.len() > SEEN_MAX {
                    seen.clear();
                }
                seen.extend(indices.iter().map(|index| (*index).to_owned()));
                Ok(())
            }
            404 => Err(Verdict::Pause {
                reason: format!(
                    "the index template {name} is missing; run `callscope setup`, or set sink.setup and restart"
                ),
                cure: Cure::Cluster,
            }),
            429 | 500.. => Err(Verdict::Again { reason: told(), trouble: Trouble::Away }),
            _ => Err(Verdict::Pause { reason: told(), cure: Cure::Cluster }),
        }
    }
}

/// The lines of a bulk request: what is to be done, and the document it is to be done with.
struct Body(Vec<(String, Bytes)>);

impl Body {
    /// All lines, compressed as they are put together: what is held at once is the compressed body, not the other one.
    fn written(self, compress: bool) -> std::io::Result<Vec<u8>> {
        let lines = |output: &mut dyn std::io::Write| {
            self.0.iter().try_for_each(|(action, document)| {
                output.write_all(action.as_bytes())?;
                output.write_all(document)?;
                output.write_all(b"\n")
            })
        };
        let bytes: usize = self.0.iter().map(|(action, json)| action.len() + json.len() + 1).sum();
        if !compress {
            let mut body = Vec::with_capacity(bytes);
            lines(&mut body)?;
            return Ok(body);
        }
        let body = Vec::with_capacity(bytes / 6);
        let encoder = flate2::write::GzEncoder::new(body, flate2::Compression::fast());
        let mut output = BufWriter::with_capacity(1 << 16, encoder);
        lines(&mut output)?;
        output.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()
    }
}

/// The request for `chosen` documents with the names of their indices, then a question to each of `probes`.
fn encode(chosen: &[Chosen<'_>], probes: &BTreeSet<&str>) -> Body {
    let mut lines = Vec::with_capacity(chosen.len() + probes.len());
    for (index, document) in chosen {
        let mut action = Object::with_capacity(144);
        action.text("_index", index);
        action.text("_id", &document.id);
        if let Some(version) = document.version {
            action.json("version", &version.to_string());
            action.text("version_type", "external_gte");
        }
        let name = if document.version.is_some() { "index" } else { "create" };
        lines.push((line(name, action), document.json.clone()));
    }
    for index in probes {
        let mut action = Object::with_capacity(144);
        action.text("_index", index);
        action.text("_id", PROBE);
        // No document has this id, so none can have this place in the index's history: always a conflict.
        action.json("if_seq_no", "0");
        action.json("if_primary_term", "1");
        lines.push((line("index", action), Bytes::from_static(b"{}")));
    }
    Body(lines)
}

fn line(name: &str, action: Object) -> String {
    let mut line = Object::with_capacity(160);
    line.json(name, &action.finish());
    line.finish() + "\n"
}

/// The store has it, or a newer one, or said that it would conflict: its index takes documents.
fn is_taken(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Done(Written::Stored | Written::Existed | Written::Older))
}

fn failed(error: &anyhow::Error) -> Verdict {
    Verdict::Again { reason: format!("{error:#}"), trouble: Trouble::Away }
}

//! The index that callscope brings, for those who have no other.
//!
//! A `tantivy` index in one folder, with the same documents as Elasticsearch would hold: a document without a version is
//! written once, one with a version replaces any with a smaller or equal one. Every [`write`](Sink::write) is one durable
//! commit. It answers [`Search`] and nothing else: no query language of its own, no foreign query JSON.
//!
//! Writing blocks the thread it is called on, which is the lane's own. A disk that refuses makes it wait and try again, with
//! nothing acknowledged meanwhile. Texts above 1024 characters and what is unbounded by nature are kept but not searched.
//!
//! Fields: `_id` (the id, whole), `_version` (0 for none), `_source` (the document), `timestamp` (milliseconds since 1970),
//! `json` (all members, dots make paths), `words` (what a person looks for, in lower case).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tantivy::collector::{Count, TopDocs};
use tantivy::query::{AllQuery, BooleanQuery, FuzzyTermQuery, Occur, Query, RangeQuery, TermQuery};
use tantivy::schema::{
    Field, IndexRecordOption, JsonObjectOptions, NumericOptions, OwnedValue, Schema,
    TextFieldIndexing, TextOptions, Value as _,
};
use tantivy::{
    DocSet, Index, IndexReader, IndexWriter, ReloadPolicy, Searcher, TERMINATED, TantivyDocument,
    Term,
};
use tokio_util::sync::CancellationToken;

use super::{Sink, SinkError, SinkStatus, StatusSender, Written};
use crate::config::EmbeddedConfig;
use crate::document::{Document, SUPERSEDED, fields};
use crate::search::{Found, Page, Search, SearchError, WORDS, words};

mod order;
mod panels;

/// Version of the fields above.
const FORMAT: &str = "1";
const FORMAT_FILE: &str = "callscope-format";
/// Longest text that is searched, in bytes: as in Elasticsearch's template.
const TEXT_BYTES_MAX: usize = 1024;
/// Members that are kept but not searched: they grow without bound.
const UNSEARCHED: &[&str] = &["content", "malformed", "net", "unindexed", "webrtc_stats"];
/// Members whose lists are kept but not searched.
const CONTAINERS: &[&str] = &["users", "recordings", "connections", "publishers", "subscribers"];
/// First and longest delay after the disk refused.
const DELAY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// It cannot be opened.
    #[error("cannot open the index in {}: {source:#}; if it is damaged, move the folder away and fill a new one with `callscope import` from the CDR files", path.display())]
    Unusable {
        /// Which folder.
        path: PathBuf,
        /// What is wrong.
        source: anyhow::Error,
    },
    /// It was written by another version.
    #[error("the index in {} has format {found}, this version of callscope uses {FORMAT}; move the folder away and fill a new one with `callscope import` from the CDR files", path.display())]
    Format {
        /// Which folder.
        path: PathBuf,
        /// Its format.
        found: String,
    },
}

#[derive(Debug, Clone, Copy)]
struct Fields {
    id: Field,
    version: Field,
    source: Field,
    timestamp: Field,
    json: Field,
    words: Field,
}

/// The open index.
pub struct EmbeddedIndex {
    index: Index,
    fields: Fields,
    heap_bytes: usize,
    reader: IndexReader,
    writer: Mutex<Option<IndexWriter>>,
    stop: CancellationToken,
    status: StatusSender,
}

impl std::fmt::Debug for EmbeddedIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedIndex").finish_non_exhaustive()
    }
}

/// The index in `folder`; `None`: there is none yet.
fn existing(folder: &Path) -> Result<Option<Index>, EmbeddedError> {
    let unusable = |source: anyhow::Error| EmbeddedError::Unusable { path: folder.into(), source };
    if !folder.join("meta.json").exists() {
        // Locks, and what a process leaves that died while it made the folder, begin with a dot.
        let is_part = |name: &std::ffi::OsStr| {
            !name.as_encoded_bytes().starts_with(b".") && name != FORMAT_FILE
        };
        let mut entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries.flatten(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(error.into())),
        };
        return match entries.find(|entry| is_part(&entry.file_name())) {
            Some(_) => {
                Err(unusable(anyhow::anyhow!("meta.json is missing, which names its parts")))
            }
            None => Ok(None),
        };
    }
    let found = std::fs::read_to_string(folder.join(FORMAT_FILE)).unwrap_or_default();
    if found.trim() != FORMAT {
        return Err(EmbeddedError::Format { path: folder.into(), found: found.trim().to_owned() });
    }
    Index::open_in_dir(folder).map(Some).map_err(|error| unusable(error.into()))
}

/// `tantivy` writes what it replaces under a name of its own first. A process that was killed leaves that behind, and nobody
/// else writes here while the writer is ours.
fn remove_unfinished(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".tmp") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl EmbeddedIndex {
    /// Opens the index in `folder`, or makes one. `stop` ends waiting for the disk.
    ///
    /// # Errors
    ///
    /// If it cannot be used; the message says what to do.
    pub fn open(
        folder: &Path,
        config: &EmbeddedConfig,
        stop: CancellationToken,
        status: StatusSender,
    ) -> Result<Self, EmbeddedError> {
        let unusable =
            |source: anyhow::Error| EmbeddedError::Unusable { path: folder.into(), source };
        let (schema, fields) = schema();
        let index = if let Some(index) = existing(folder)? {
            index
        } else {
            let create = || -> anyhow::Result<Index> {
                std::fs::create_dir_all(folder)?;
                std::fs::write(folder.join(FORMAT_FILE), FORMAT)?;
                Ok(Index::create_in_dir(folder, schema)?)
            };
            create().map_err(unusable)?
        };
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into();
        let reader = reader.map_err(|error| unusable(error.into()))?;
        let opened = Self {
            index,
            fields,
            heap_bytes: config.heap_bytes.get().max(15_000_000),
            reader,
            writer: Mutex::new(None),
            stop,
            status,
        };
        // Taking the writer now finds out whether the folder can be written and nobody else does.
        let writer = opened.new_writer().map_err(|error| unusable(error.into()))?;
        *opened.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        remove_unfinished(folder).map_err(|error| unusable(error.into()))?;
        Ok(opened)
    }

    /// Whether the index in `folder` can be opened, if there is one. Nothing is changed.
    ///
    /// # Errors
    ///
    /// If it cannot be used; the message says what to do.
    pub fn check(folder: &Path) -> Result<(), EmbeddedError> {
        let Some(index) = existing(folder)? else { return Ok(()) };
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into();
        let unusable =
            |source: anyhow::Error| EmbeddedError::Unusable { path: folder.into(), source };
        reader.map(drop).map_err(|error: tantivy::TantivyError| unusable(error.into()))
    }

    /// Documents that search can find, and those it hides.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.reader.searcher().num_docs()
    }

    /// The document with this id.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn get(&self, id: &str) -> Result<Option<Found>, SearchError> {
        let searcher = self.reader.searcher();
        let query =
            TermQuery::new(Term::from_field_text(self.fields.id, id), IndexRecordOption::Basic);
        let found = searcher
            .search(&query, &TopDocs::with_limit(1).order_by_score())
            .map_err(unavailable)?;
        found.into_iter().next().map(|(_, address)| self.found(&searcher, address)).transpose()
    }

    /// Answers `search` from what was committed last.
    ///
    /// # Errors
    ///
    /// If it asks for more than can be given, or the index cannot be read.
    pub fn search(&self, search: &Search) -> Result<Page, SearchError> {
        search.check()?;
        let searcher = self.reader.searcher();
        let query = self.query(search);
        let total = searcher.search(&query, &Count).map_err(unavailable)? as u64;
        let top = TopDocs::with_limit(search.limit.max(1)).and_offset(search.offset);
        let found =
            searcher.search(&query, &top.order_by(order::of(&search.sort))).map_err(unavailable)?;
        let mut documents = Vec::with_capacity(found.len());
        for (key, address) in found.into_iter().take(search.limit) {
            documents.push((key, self.found(&searcher, address)?));
        }
        // Equals have no order in the index; ids give them one within the page.
        for equals in documents.chunk_by_mut(|(one, _), (other, _)| one == other) {
            equals.sort_by(|(_, one), (_, other)| one.id.cmp(&other.id));
        }
        Ok(Page { total, documents: documents.into_iter().map(|(_, found)| found).collect() })
    }

    fn query(&self, search: &Search) -> BooleanQuery {
        let hidden: Box<dyn Query> =
            Box::new(self.any_of("elastic_type", &[SUPERSEDED.to_owned()]));
        let mut clauses = self.narrowed(&search.filters, search.from, search.to);
        clauses.extend([
            (Occur::Must, Box::new(AllQuery) as Box<dyn Query>),
            (Occur::MustNot, hidden),
        ]);
        for word in words(&search.text) {
            let term = Term::from_field_text(self.fields.words, &word);
            clauses.push((Occur::Must, Box::new(FuzzyTermQuery::new_prefix(term, 0, true))));
        }
        BooleanQuery::new(clauses)
    }

    /// Fields have to have one of their values each, and `timestamp` to be from `from` on and before `to`.
    fn narrowed(
        &self,
        filters: &[(String, Vec<String>)],
        from: Option<i64>,
        to: Option<i64>,
    ) -> Vec<(Occur, Box<dyn Query>)> {
        use std::ops::Bound;
        let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        for (field, values) in filters {
            clauses.push((Occur::Must, Box::new(self.any_of(field, values))));
        }
        if from.is_some() || to.is_some() {
            let term = |time: i64| Term::from_field_i64(self.fields.timestamp, time);
            let from = from.map_or(Bound::Unbounded, |time| Bound::Included(term(time)));
            let to = to.map_or(Bound::Unbounded, |time| Bound::Excluded(term(time)));
            clauses.push((Occur::Must, Box::new(RangeQuery::new(from, to))));
        }
        clauses
    }

    /// Documents whose member at `path` is one of `values`, be it a text, a number or a truth value.
    fn any_of(&self, path: &str, values: &[String]) -> BooleanQuery {
        let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        let mut add = |term: Term| {
            clauses.push((Occur::Should, Box::new(TermQuery::new(term, IndexRecordOption::Basic))));
        };
        let path = path.strip_suffix(".keyword").unwrap_or(path);
        let at = || Term::from_field_json_path(self.fields.json, path, true);
        for value in values {
            let mut term = at();
            term.append_type_and_str(&fields::folded(path, value));
            add(term);
            if let Ok(integer) = value.parse::<i64>() {
                let mut term = at();
                term.append_type_and_fast_value(integer);
                add(term);
            } else if let Ok(number) = value.parse::<f64>() {
                let mut term = at();
                term.append_type_and_fast_value(number);
                add(term);
            }
            if let Ok(flag) = value.parse::<bool>() {
                let mut term = at();
                term.append_type_and_fast_value(flag);
                add(term);
            }
        }
        BooleanQuery::new(clauses)
    }

    fn found(
        &self,
        searcher: &Searcher,
        address: tantivy::DocAddress,
    ) -> Result<Found, SearchError> {
        let document: TantivyDocument = searcher.doc(address).map_err(unavailable)?;
        let id =
            document.get_first(self.fields.id).and_then(|value| value.as_str()).unwrap_or_default();
        let source = document
            .get_first(self.fields.source)
            .and_then(|value| value.as_bytes())
            .unwrap_or_default();
        let source = RawValue::from_string(String::from_utf8_lossy(source).into_owned());
        let source = source.map_err(|error| SearchError::Unavailable(error.into()))?;
        Ok(Found { id: id.to_owned(), source })
    }

    fn new_writer(&self) -> tantivy::Result<IndexWriter> {
        self.index.writer_with_num_threads(1, self.heap_bytes)
    }

    /// Writes all documents in one commit, or nothing.
    fn commit(&self, documents: &[Document]) -> tantivy::Result<Vec<Written>> {
        let mut guard = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut writer = match guard.take() {
            Some(writer) => writer,
            None => self.new_writer()?,
        };
        // Whatever fails below leaves no writer behind: what it has taken in is dropped with it.
        let searcher = self.reader.searcher();
        let mut pending: HashMap<&str, Option<u64>> = HashMap::with_capacity(documents.len());
        let mut answers = Vec::with_capacity(documents.len());
        for document in documents {
            let known = match pending.get(&*document.id) {
                Some(known) => Some(*known),
                None => self.stored_version(&searcher, &document.id)?,
            };
            let answer = match (document.version, known) {
                (None, Some(_)) => Written::Existed,
                (Some(own), Some(Some(known))) if own < known => Written::Older,
                (own, known) => match self.prepare(document) {
                    Ok(prepared) => {
                        if known.is_some() {
                            writer.delete_term(Term::from_field_text(self.fields.id, &document.id));
                        }
                        writer.add_document(prepared)?;
                        pending.insert(&document.id, own);
                        Written::Stored
                    }
                    Err(reason) => Written::Dead(reason),
                },
            };
            answers.push(answer);
        }
        if !pending.is_empty() {
            writer.commit()?;
            self.reader.reload()?;
        }
        *guard = Some(writer);
        Ok(answers)
    }

    /// Whether the id is stored, and with which version.
    fn stored_version(
        &self,
        searcher: &Searcher,
        id: &str,
    ) -> tantivy::Result<Option<Option<u64>>> {
        let term = Term::from_field_text(self.fields.id, id);
        for segment in searcher.segment_readers() {
            let Some(mut postings) = segment
                .inverted_index(self.fields.id)?
                .read_postings(&term, IndexRecordOption::Basic)?
            else {
                continue;
            };
            while postings.doc() != TERMINATED {
                let is_alive =
                    segment.alive_bitset().is_none_or(|alive| alive.is_alive(postings.doc()));
                if is_alive {
                    let version =
                        segment.fast_fields().u64("_version")?.first(postings.doc()).unwrap_or(0);
                    return Ok(Some(Some(version).filter(|version| *version > 0)));
                }
                postings.advance();
            }
        }
        Ok(None)
    }

    fn prepare(&self, document: &Document) -> Result<TantivyDocument, Box<str>> {
        let mut prepared = TantivyDocument::default();
        prepared.add_text(self.fields.id, &document.id);
        prepared.add_u64(self.fields.version, document.version.unwrap_or(0));
        prepared.add_bytes(self.fields.source, &document.json);
        let parsed: Result<Value, _> = serde_json::from_slice(&document.json);
        let mut members = match parsed {
            Ok(Value::Object(members)) => members,
            Ok(_) => return Err("not a JSON object".into()),
            Err(error) => return Err(format!("not JSON: {error}").into()),
        };
        let time = members.get("timestamp").and_then(Value::as_i64).unwrap_or(document.index_time);
        prepared.add_i64(self.fields.timestamp, time);
        let mut text = String::new();
        for word in WORDS.iter().filter_map(|name| members.get(*name)?.as_str()) {
            text.push_str(crate::json::prefix(word, TEXT_BYTES_MAX));
            text.push(' ');
        }
        prepared.add_text(self.fields.words, text);
        members.retain(|name, value| is_searched(name, value));
        for name in fields::FOLDED {
            if let Some(Value::String(text)) = members.get_mut(*name) {
                *text = fields::folded(name, text).into_owned();
            }
        }
        for name in CONTAINERS {
            if let Some(Value::Object(container)) = members.get_mut(*name) {
                container.remove("content");
            }
        }
        let members = members.into_iter().map(|(name, value)| (name, OwnedValue::from(value)));
        prepared.add_object(self.fields.json, members.collect());
        Ok(prepared)
    }
}

impl Sink for EmbeddedIndex {
    async fn setup(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, documents: &[Document]) -> Result<Vec<Written>, SinkError> {
        let mut delay = DELAY.0;
        loop {
            match self.commit(documents) {
                Ok(answers) => {
                    self.status.send_if_modified(|status| {
                        let was = std::mem::take(status);
                        was != SinkStatus::Accepting
                    });
                    return Ok(answers);
                }
                Err(error) => {
                    tracing::warn!(error = %error, "embedded index cannot be written, trying again");
                    self.status.send_replace(SinkStatus::Waiting(format!(
                        "the embedded index cannot be written: {error}"
                    )));
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(SinkError::Stopped),
                () = tokio::time::sleep(delay) => delay = (delay * 2).min(DELAY.1),
            }
        }
    }
}

fn unavailable(error: tantivy::TantivyError) -> SearchError {
    SearchError::Unavailable(error.into())
}

/// What is kept but not searched is left out, at any depth.
fn is_searched(name: &str, value: &mut Value) -> bool {
    if UNSEARCHED.contains(&name) || name.is_empty() {
        return false;
    }
    match value {
        Value::String(text) => text.len() <= TEXT_BYTES_MAX,
        Value::Object(members) => {
            members.retain(|name, value| is_searched(name, value));
            true
        }
        Value::Array(values) => {
            values.retain_mut(|value| is_searched("-", value));
            true
        }
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) => true,
    }
}

fn schema() -> (Schema, Fields) {
    let mut schema = Schema::builder();
    let whole = || {
        TextFieldIndexing::default().set_tokenizer("raw").set_index_option(IndexRecordOption::Basic)
    };
    let id =
        TextOptions::default().set_indexing_options(whole().set_fieldnorms(false)).set_stored();
    let words = TextFieldIndexing::default()
        .set_tokenizer("default")
        .set_index_option(IndexRecordOption::Basic);
    let json = JsonObjectOptions::default()
        .set_indexing_options(whole())
        .set_fast("raw")
        .set_expand_dots_enabled();
    let fields = Fields {
        id: schema.add_text_field("_id", id),
        version: schema.add_u64_field("_version", NumericOptions::default().set_fast()),
        source: schema.add_bytes_field("_source", tantivy::schema::STORED),
        timestamp: schema
            .add_i64_field("timestamp", NumericOptions::default().set_fast().set_indexed()),
        json: schema.add_json_field("json", json),
        words: schema.add_text_field("words", TextOptions::default().set_indexing_options(words)),
    };
    (schema.build(), fields)
}

#[cfg(test)]
mod tests;

//! Standard output as a sink: one JSON object per line and write.
//!
//! `{"_index":…,"_id":…,"_version":…,"_source":{…}}`, `_version` on summaries only. A later line with the same `_id` replaces
//! the earlier one.

use std::io::Write;
use std::sync::Mutex;

use super::{Sink, SinkError, Written, index_name};
use crate::config::ElasticsearchConfig;
use crate::document::Document;
use crate::json::Object;

/// Writes lines.
#[derive(Debug)]
pub struct StdoutSink<W> {
    config: ElasticsearchConfig,
    output: Mutex<W>,
}

impl<W: Write + Send> StdoutSink<W> {
    /// Writes to `output`, with the index names that `config` gives.
    pub fn new(config: &ElasticsearchConfig, output: W) -> Self {
        Self { config: config.clone(), output: Mutex::new(output) }
    }

    fn lines(&self, documents: &[Document]) -> std::io::Result<()> {
        let mut lines = Vec::new();
        for document in documents {
            let mut line = Object::with_capacity(128);
            line.text("_index", &index_name(&self.config, document.index_time));
            line.text("_id", &document.id);
            if let Some(version) = document.version {
                line.json("_version", &version.to_string());
            }
            // All but the closing brace, so that the document is copied once.
            let head = line.finish();
            lines.extend_from_slice(head.as_bytes().get(..head.len() - 1).unwrap_or_default());
            lines.extend_from_slice(b",\"_source\":");
            lines.extend_from_slice(&document.json);
            lines.extend_from_slice(b"}\n");
        }
        let mut output = self.output.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        output.write_all(&lines)?;
        output.flush()
    }
}

impl<W: Write + Send> Sink for StdoutSink<W> {
    async fn setup(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, documents: &[Document]) -> Result<Vec<Written>, SinkError> {
        match self.lines(documents) {
            Ok(()) => Ok(vec![Written::Stored; documents.len()]),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(SinkError::Unread),
            Err(error) => Err(SinkError::Output(error)),
        }
    }
}

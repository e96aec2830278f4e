//! One record through the pure middle: decode, enrich, fold, raw document.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::clock::Clock;
use super::context::{self, Samples};
use super::overflow::{Overflow, OverflowError};
use crate::config::Config;
use crate::decode::{self, Decoded};
use crate::document::{self, Document};
use crate::enrich::place::GeoIp;
use crate::enrich::{Enriched, Enricher};
use crate::event::Event;
use crate::sessions::{self, Keeping, Limits, Outcome, Sessions, Source};

/// How far an event's time may lie after the wall clock before it is no event any more.
const AHEAD_MAX: i64 = 86_400_000;

/// What became of one record.
#[derive(Debug)]
pub enum Folded {
    /// An event, and its raw document.
    Event(Outcome, Document),
    /// An already indexed summary; callscope makes its own.
    Skipped,
    /// No event; why.
    Dead(String),
}

/// Decoding, enrichment and fold of one lane, with what they need to know.
#[derive(Debug)]
pub struct Folder {
    /// The fold.
    pub sessions: Sessions,
    /// Where sessions go that do not fit into memory.
    pub overflow: Option<Overflow>,
    enricher: Enricher,
    /// Used again for every event.
    enriched: Enriched,
    samples: Samples,
    sources: BTreeMap<String, (String, String)>,
}

/// The times that a record is judged by, milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The lane's clock.
    pub lane: i64,
    /// The wall clock; nothing that it tells is more than a day later.
    pub wall: i64,
}

impl Folder {
    /// As the settings say, with places from `geoip`.
    #[must_use]
    pub fn new(config: &Config, geoip: Arc<GeoIp>, keeping: Keeping) -> Self {
        Self::resume(config, geoip, Sessions::new(Limits::new(&config.sessions), keeping))
    }

    /// Goes on with sessions that were restored.
    #[must_use]
    pub fn resume(config: &Config, geoip: Arc<GeoIp>, sessions: Sessions) -> Self {
        let sources = config.sources.iter().map(|(name, source)| {
            let cluster_id = source.cluster_id.clone().unwrap_or_default();
            (name.clone(), (cluster_id, source.master_node_id.clone().unwrap_or_default()))
        });
        Self {
            sessions,
            overflow: None,
            enricher: Enricher::new(config, geoip),
            enriched: Enriched::default(),
            samples: Samples::default(),
            sources: sources.collect(),
        }
    }

    /// Takes other databases for what comes next.
    pub fn set_geoip(&mut self, geoip: Arc<GeoIp>) {
        self.enricher.set_geoip(geoip);
    }

    /// Folds one record and moves the clock of its input. `observe` sees the event, for the metrics.
    ///
    /// # Errors
    ///
    /// If its session is not in memory and cannot be brought back.
    pub fn fold(
        &mut self,
        payload: &[u8],
        source: &str,
        times: Times,
        clock: &mut Clock,
        observe: impl FnOnce(&Event<'_>),
    ) -> Result<Folded, OverflowError> {
        let text = decode::text(payload);
        let event = match decode::decode(&text) {
            Ok(Decoded::Event(event)) => event,
            Ok(Decoded::Summary) => return Ok(Folded::Skipped),
            Err(error) => return Ok(Folded::Dead(error.to_string())),
        };
        if event.time > times.wall.saturating_add(AHEAD_MAX) {
            return Ok(Folded::Dead(format!(
                "`timestamp` {} lies more than a day ahead of the clock",
                event.time
            )));
        }
        let (cluster_id, master_node_id) =
            self.sources.get(source).map_or(("", ""), |(cluster, master)| (cluster, master));
        let source = Source { name: source, cluster_id, master_node_id };
        let name = sessions::name_of(&event, source);
        if let (Some(name), Some(overflow)) = (name, &mut self.overflow) {
            overflow.bring_back(&mut self.sessions, name)?;
        }
        clock.observe(&event, times.wall);
        self.enricher.enrich(&event, &mut self.enriched);
        let enriched = &self.enriched;
        let session = name.and_then(|name| self.sessions.get(name));
        let context = context::context(&event, session, &mut self.samples);
        let document = document::raw(&event, enriched, source, &context);
        let outcome = name.map_or(Outcome::Passed, |name| {
            self.sessions.apply(&event, name, enriched, source, times.lane)
        });
        observe(&event);
        Ok(Folded::Event(outcome, document))
    }

    /// Puts sessions away that do not fit into memory.
    ///
    /// # Errors
    ///
    /// If that fails; they are lost to this process then.
    pub fn relieve(&mut self) -> Result<(), OverflowError> {
        self.overflow.as_mut().map_or(Ok(()), |overflow| overflow.relieve(&mut self.sessions))
    }

    /// Drops the sessions in memory and brings back as many others as fit. `false` if there were none.
    ///
    /// # Errors
    ///
    /// If they cannot be brought back.
    pub fn next_part(&mut self) -> Result<bool, OverflowError> {
        let Some(overflow) = self.overflow.as_mut().filter(|overflow| !overflow.is_empty()) else {
            return Ok(false);
        };
        self.sessions.clear();
        overflow.drain(&mut self.sessions)?;
        Ok(true)
    }
}

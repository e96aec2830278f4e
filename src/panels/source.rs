//! Whose documents a panel looks at: callscope's own, or what others write about the hosts beside them.

use serde::Deserialize;

use crate::document::fields::Holds::{self, Date, Number, Text, Whole};
use crate::document::fields::{self, Unit};
use crate::document::{KINDS, SUPERSEDED};

/// Whose documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// Events and summaries of callscope.
    #[default]
    Events,
    /// Metricbeat of OpenVidu Pro, on each node: `metricbeat-*`.
    Metricbeat,
    /// Micrometer of OpenVidu Pro's server: `server-metrics-*`.
    ServerMetrics,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Events, Self::Metricbeat, Self::ServerMetrics];

    /// What a field of its documents holds.
    #[must_use]
    pub fn find(self, name: &str) -> Option<Holds> {
        self.fields().iter().find(|(known, _)| *known == name).map(|(_, holds)| *holds)
    }

    /// The fields that panels may use.
    #[must_use]
    pub fn fields(self) -> &'static [(&'static str, Holds)] {
        match self {
            Self::Events => fields::FIELDS,
            Self::Metricbeat => METRICBEAT,
            Self::ServerMetrics => SERVER_METRICS,
        }
    }

    /// By what name servers compare and divide a field: Metricbeat's texts are searched as a whole already.
    #[must_use]
    pub fn exact(self, name: &str) -> String {
        match (self, self.find(name)) {
            (Self::Events | Self::ServerMetrics, Some(Text)) => format!("{name}.keyword"),
            _ => name.to_owned(),
        }
    }

    /// When it was.
    #[must_use]
    pub fn time(self) -> &'static str {
        match self {
            Self::Events => "timestamp",
            Self::Metricbeat | Self::ServerMetrics => "@timestamp",
        }
    }

    /// What it is about.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Events => "elastic_type",
            Self::Metricbeat => "event.dataset",
            Self::ServerMetrics => "name",
        }
    }

    /// What [`kind`](Self::kind) can be.
    #[must_use]
    pub fn kinds(self) -> Vec<&'static str> {
        match self {
            Self::Events => KINDS.iter().copied().filter(|kind| *kind != SUPERSEDED).collect(),
            Self::Metricbeat => DATASETS.to_vec(),
            Self::ServerMetrics => NAMES.to_vec(),
        }
    }

    /// The identifier of its data view.
    #[must_use]
    pub fn view(self) -> &'static str {
        match self {
            Self::Events => "callscope",
            Self::Metricbeat => "callscope-metricbeat",
            Self::ServerMetrics => "callscope-server-metrics",
        }
    }

    /// Whether a number only grows, until its host starts anew: how fast is what one wants to know.
    #[must_use]
    pub fn grows(self, name: &str) -> bool {
        self == Self::Metricbeat && GROWING.contains(&name)
    }
}

/// What a field holds, whosever it is. No two of them mean different things by one name.
#[must_use]
pub fn find(name: &str) -> Option<Holds> {
    Source::ALL.into_iter().find_map(|source| source.find(name))
}

/// See [`Source::exact`].
#[must_use]
pub fn exact(name: &str) -> String {
    let source = Source::ALL.into_iter().find(|source| source.find(name).is_some());
    source.unwrap_or_default().exact(name)
}

/// Data sets of Metricbeat's modules `system` and `nginx`.
const DATASETS: &[&str] = &[
    "system.cpu",
    "system.memory",
    "system.network",
    "system.diskio",
    "system.filesystem",
    "system.fsstat",
    "nginx.stubstatus",
];

/// As Metricbeat 7 documents them; `fields.*` is added by OpenVidu's own configuration of it.
const METRICBEAT: &[(&str, Holds)] = &[
    ("@timestamp", Date),
    ("event.dataset", Text),
    ("fields.cluster_id", Text),
    ("fields.node_id", Text),
    ("fields.node_role", Text),
    ("fields.ip", Text),
    ("system.cpu.total.norm.pct", Number(Unit::Share)),
    ("system.cpu.user.norm.pct", Number(Unit::Share)),
    ("system.cpu.system.norm.pct", Number(Unit::Share)),
    ("system.cpu.nice.norm.pct", Number(Unit::Share)),
    ("system.cpu.irq.norm.pct", Number(Unit::Share)),
    ("system.cpu.softirq.norm.pct", Number(Unit::Share)),
    ("system.cpu.iowait.norm.pct", Number(Unit::Share)),
    ("system.memory.total", Whole(Unit::Bytes)),
    ("system.memory.free", Whole(Unit::Bytes)),
    ("system.memory.actual.used.bytes", Whole(Unit::Bytes)),
    ("system.memory.actual.used.pct", Number(Unit::Share)),
    ("system.memory.swap.used.pct", Number(Unit::Share)),
    ("system.network.name", Text),
    ("system.network.in.bytes", Whole(Unit::Bytes)),
    ("system.network.out.bytes", Whole(Unit::Bytes)),
    ("system.network.in.packets", Whole(Unit::Number)),
    ("system.network.out.packets", Whole(Unit::Number)),
    ("system.network.in.dropped", Whole(Unit::Number)),
    ("system.network.out.dropped", Whole(Unit::Number)),
    ("system.diskio.name", Text),
    ("system.diskio.read.bytes", Whole(Unit::Bytes)),
    ("system.diskio.write.bytes", Whole(Unit::Bytes)),
    ("system.filesystem.mount_point", Text),
    ("system.filesystem.used.pct", Number(Unit::Share)),
    ("system.fsstat.total_size.used", Whole(Unit::Bytes)),
    ("system.fsstat.total_size.total", Whole(Unit::Bytes)),
    ("nginx.stubstatus.active", Whole(Unit::Number)),
    ("nginx.stubstatus.reading", Whole(Unit::Number)),
    ("nginx.stubstatus.writing", Whole(Unit::Number)),
    ("nginx.stubstatus.waiting", Whole(Unit::Number)),
    ("nginx.stubstatus.requests", Whole(Unit::Number)),
    ("nginx.stubstatus.accepts", Whole(Unit::Number)),
    ("nginx.stubstatus.handled", Whole(Unit::Number)),
    ("nginx.stubstatus.dropped", Whole(Unit::Number)),
];

const GROWING: &[&str] = &[
    "system.network.in.bytes",
    "system.network.out.bytes",
    "system.network.in.packets",
    "system.network.out.packets",
    "system.network.in.dropped",
    "system.network.out.dropped",
    "system.diskio.read.bytes",
    "system.diskio.write.bytes",
    "nginx.stubstatus.requests",
    "nginx.stubstatus.accepts",
    "nginx.stubstatus.handled",
    "nginx.stubstatus.dropped",
];

/// Names of meters of Spring Boot 2 that panels use.
const NAMES: &[&str] = &[
    "http_server_requests",
    "http_server_requests_percentile",
    "http_client_requests",
    "logback_events",
    "process_start_time",
    "system_cpu_usage",
    "process_cpu_usage",
    "jvm_memory_used",
    "jvm_memory_committed",
    "jvm_memory_max",
    "jvm_classes_loaded",
    "jvm_classes_unloaded",
    "jvm_buffer_memory_used",
    "jvm_buffer_total_capacity",
    "jvm_threads_live",
    "jvm_threads_daemon",
    "jvm_threads_peak",
    "tomcat_threads_config_max",
    "jvm_gc_pause",
    "jvm_gc_memory_allocated",
    "jvm_gc_memory_promoted",
    "tomcat_global_error",
    "tomcat_sessions_active_current",
    "tomcat_global_sent",
    "tomcat_global_received",
];

/// A document is one meter at one moment, so what its numbers are counted in is told by its name.
const SERVER_METRICS: &[(&str, Holds)] = &[
    ("@timestamp", Date),
    ("name", Text),
    ("host", Text),
    ("application", Text),
    ("status", Text),
    ("api", Text),
    ("phi", Text),
    ("level", Text),
    ("area", Text),
    ("id", Text),
    ("value", Number(Unit::Number)),
    ("count", Number(Unit::Number)),
    ("sum", Number(Unit::Milliseconds)),
    ("mean", Number(Unit::Milliseconds)),
    ("max", Number(Unit::Milliseconds)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_sources_mean_different_things_by_one_name() {
        for (name, holds) in Source::ALL.into_iter().flat_map(Source::fields) {
            for source in Source::ALL {
                assert!(source.find(name).is_none_or(|other| other == *holds), "{name}");
                if source.find(name).is_some() {
                    assert_eq!(source.exact(name), exact(name), "{name}");
                }
            }
        }
        for source in Source::ALL {
            assert_eq!(source.find(source.time()), Some(Date));
            assert_eq!(source.find(source.kind()), Some(Text));
        }
        assert!(
            GROWING
                .iter()
                .all(|name| Source::Metricbeat.grows(name)
                    && find(name).is_some_and(Holds::is_number))
        );
    }
}

//! callscope turns the events of video calls into searchable documents: every event as it came, enriched with place and
//! client, and one summary for every session, user, connection, publisher, subscriber and recording.
//!
//! # One way through
//!
//! ```text
//!  webhook ─▶ journal ─┐
//!                      ├─▶ lane:  decode ▶ enrich ▶ fold ▶ documents ▶ sink ▶ checkpoint
//!  CDR file ───────────┘          └────── pure, no I/O, no clock ─────┘
//! ```
//!
//! With [`kafka`] a forwarder takes the same [`inputs`] to a topic, and a lane for each of its partitions reads from there; the
//! checkpoint is a topic too.
//!
//! * A [`record`] is bytes with a position. Every input is a log that can be read again from a position: a CDR file
//!   ([`files`]) or the [`journal`], which makes the webhook replayable. A webhook is answered once its record is durable.
//! * The pure middle: [`decode`] recognises every wire format of OpenVidu and gives one [`event`]; [`enrich`] adds what an
//!   address or a platform text tells; [`sessions`] merges the event's facts into the state of its session; [`summary`] and
//!   [`document`] write what is stored. Plain functions: no async, no logging, no environment; time is an argument.
//! * The [`lane`] owns its open sessions by value, on one thread, without locks. Its cycle reads a batch, folds it, hands the
//!   documents to the [`sink`], waits for an answer about every one of them, and only then saves the [`checkpoint`]: changed
//!   entities and positions, together or not at all. A crash repeats at most one cycle, and repeating changes nothing.
//!   Documents that are due go out before time takes a session away, however much time a batch spans.
//! * What is no event, or what the store refuses for good, becomes a letter in [`dead_letters`].
//! * [`rest`] asks the platform's own API for what no event tells, and journals it.
//! * [`http`] takes webhooks in and shows what was found: [`live`] is a picture of the open sessions made by the lane,
//!   [`search`] asks what was stored.
//! * [`panels`] describe the dashboards once; [`kibana`] brings them to a Kibana or an OpenSearch Dashboards.
//! * [`command`] wires all of this together, one module for each command of [`cli`]; [`simulate`] plays an OpenVidu cluster
//!   for the demo and for tests.
//!
//! # What it promises
//!
//! 1. Conservation: every record and every document has exactly one outcome, counted in
//!    [`Tally`](checkpoint::Tally), whose sums balance at every checkpoint.
//! 2. Nothing acknowledged is lost, nothing is counted twice, through `kill -9` at any moment.
//! 3. Determinism: the same events, in any order, repetition, cut and crash, give the same documents, as far as they came
//!    within the life times of [`sessions`]. Not promised so are context fields ([`document::Context`]) and
//!    `platformStats` ([`lane::stats`]).
//! 4. Bounds: memory stays flat with a dead sink; one bad document delays others by at most one round trip.
//! 5. A restart goes on where it stood; an unreadable checkpoint stops the start and says what to do.
//!
//! Stopping is not the end of a session: open sessions wait in the checkpoint.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::string_slice,
        reason = "a test that fails shows where"
    )
)]

pub mod config;
pub mod record;
pub mod journal;
pub mod files;
pub mod json;
mod recent;
pub mod event;
pub mod decode;
pub mod enrich;
pub mod sessions;
pub mod summary;
pub mod document;
mod transport;
pub mod sink;
pub mod dead_letters;
pub mod checkpoint;
pub mod lane;
pub mod inputs;
pub mod rest;
pub mod reports;
pub mod kafka;
pub mod live;
pub mod search;
pub mod panels;
pub mod kibana;
pub mod http;
pub mod metrics;
pub mod logging;
pub mod simulate;
pub mod cli;
pub mod command;

//! Turns the events of video calls into searchable documents.
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
pub mod event;
pub mod decode;
pub mod enrich;
pub mod sessions;
pub mod summary;
pub mod document;
pub mod sink;
pub mod dead_letters;
pub mod checkpoint;
pub mod lane;
pub mod live;
pub mod search;
pub mod http;
pub mod metrics;
pub mod logging;
pub mod simulate;
pub mod cli;
pub mod command;

//! Behaviour of callscope as a whole, one module for each kind of promise.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    clippy::needless_pass_by_value,
    unreachable_pub,
    missing_docs,
    reason = "a test that fails shows where"
)]

mod behaviours;
mod figures;
mod lifetimes;
#[path = "../support/month.rs"]
mod month;
mod property;
mod quality;
mod reports;
mod samples;
mod schemas;
mod seen;
mod story;
mod support;

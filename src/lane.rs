//! The lane: the unit of order and ownership.
//!
//! A lane owns its open sessions by value, on one thread, without locks. It reads batches from its inputs and takes each
//! through one [`cycle`]: fold, write, save. A crash anywhere repeats at most one cycle, and repeating changes nothing.

pub mod clock;
pub mod context;
pub mod cycle;
pub mod fold;
pub mod outlet;
pub mod overflow;
pub mod stats;

pub use cycle::{Item, Lane, LaneError};

//! The lane: the unit of order and ownership.
//!
//! A lane owns its open sessions by value, on one thread, without locks. It reads batches from its inputs and takes each
//! through one [`cycle`]: [`fold`] it, have the [`outlet`] write it, save. A crash anywhere repeats at most one cycle, and
//! repeating changes nothing. `import`, which saves nothing, folds the next batch while the outlet writes the one before, and
//! keeps what does not fit into memory in an [`overflow`].

pub mod clock;
pub mod context;
pub mod cycle;
pub mod databases;
pub mod fold;
mod level;
pub mod outlet;
pub mod overflow;
pub mod stats;

pub use cycle::{Item, Lane, LaneError};

//! The lane: the unit of order and ownership. It owns its open sessions by value, on one thread, without locks.

pub mod clock;
pub mod context;
pub mod fold;

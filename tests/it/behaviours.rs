//! What the fold must do, one test for each numbered behaviour.

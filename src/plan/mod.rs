//! PROJECT + OBSERVED + POLICY → PLAN. Pure, synchronous, deterministic.

pub mod step;

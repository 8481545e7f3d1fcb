//! Boots measured: many runs of one image, in turn, each a process of its own, and what they come to.
//!
//! `docs/bench.md` says how it is measured; [`phase::Phase`] where every phase begins and ends.

pub mod child;
pub mod host;
pub mod page_cache;
pub mod phase;
pub mod plan;
pub mod record;
pub mod runner;
pub mod stats;
pub mod summary;
pub mod svg;
pub mod work_dir;

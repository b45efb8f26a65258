//! What has been counted, added up.
//!
//! Workers count into tallies of their own (`Tally`), the rooms below into plain numbers; nothing is added up before
//! somebody asks. Log, metrics, JSON and page are made of the same outcomes and the same numbers, so they can't disagree.
//!
//! - `tally`: what one worker has counted, and the samples that it gives away;
//! - `figures`: all of it, at one moment;
//! - `text`: the figures as Prometheus reads them.

mod figures;
mod tally;
mod text;

pub use figures::{BackendFigures, Figures, QueueFigures, Sources, WorkerFigures};
pub use tally::{Doing, Sample, Samples, Tally, WAITS, WaitsFor};
pub use text::{Circumstances, METRICS, Metric, write_text};

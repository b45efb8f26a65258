//! Which exchanges are told of, how, and where.

use clap::ValueEnum;
use std::path::PathBuf;
use std::time::Duration;

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// What its lines look like. Default `text`.
    pub format: AccessLogFormat,
    /// The file at whose end they are written. Default: standard output.
    pub file: Option<PathBuf>,
    /// Of so many exchanges that went well, one is told of. Default 1: all.
    pub one_in: u64,
    /// Exchanges that went well are told of only if they took so long. Default 0 s: all.
    pub slower_than: Duration,
}

impl Default for AccessLogSettings {
    fn default() -> AccessLogSettings {
        AccessLogSettings { format: AccessLogFormat::Text, file: None, one_in: 1, slower_than: Duration::ZERO }
    }
}

/// The wire log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireLogSettings {
    /// Whether clients that come from now on are observed. Default off.
    pub on: bool,
    /// The file at whose end it is written. Default: standard error.
    pub file: Option<PathBuf>,
}

/// What a line of the access log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessLogFormat {
    /// None is written.
    Off,
    /// For people.
    Text,
    /// As Apache and nginx write it, with more behind it.
    Combined,
    /// An object for each exchange.
    Json,
}

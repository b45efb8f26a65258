//! The words of health: what failed, why a backend is out, and what is said when that changes.

use std::fmt;
use std::time::Duration;

/// What a request met with, that is the backend's doing. Not among them: a spare that was closed when it was used again,
/// a client that left, and a shortage of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens, or there is no way there, or no connection came about in time.
    Refused,
    /// A connection, but no answer on it: closed, reset, timed out, or not HTTP.
    NoAnswer,
}

/// Why a backend is out on passive evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Connections are refused.
    Refused,
    /// Requests are not answered.
    NoAnswer,
    /// So many requests wait for an answer that another would only wait too.
    Stalled,
}

impl Why {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Why::Refused => "refused",
            Why::NoAnswer => "no-answer",
            Why::Stalled => "stalled",
        }
    }
}

/// What a check found, with the evidence: "GET /healthz answered 500".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The backend is well.
    Good(String),
    /// It is not.
    Bad(String),
}

/// A backend has left rotation or come back, and why: "3 connections in a row were refused".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flip {
    /// Out on passive evidence.
    Ejected {
        /// In a word.
        why: Why,
        /// The time until its trial.
        length: Duration,
        /// In words.
        evidence: String,
        /// The same has not been told before.
        is_news: bool,
    },
    /// Back, after an ejection.
    Readmitted {
        /// The time it was out.
        after: Duration,
        /// In words.
        evidence: String,
        /// Its ejection was.
        is_news: bool,
    },
    /// Out on active evidence.
    Down {
        /// In words.
        evidence: String,
    },
    /// Checks are good again.
    Up {
        /// In words.
        evidence: String,
    },
}

impl Flip {
    /// Writes it to the log, as something that happened to this backend.
    pub fn tell(&self, backend: &str) {
        match self {
            Flip::Ejected { is_news: false, .. } | Flip::Readmitted { is_news: false, .. } => {
                log::debug!("backend {backend} is {self}");
            }
            Flip::Ejected { .. } | Flip::Down { .. } => log::warn!("backend {backend} is {self}"),
            Flip::Readmitted { .. } | Flip::Up { .. } => log::info!("backend {backend} is {self}"),
        }
    }
}

impl fmt::Display for Flip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flip::Ejected { length, evidence, .. } => write!(f, "ejected for {length:?}: {evidence}"),
            Flip::Readmitted { after, evidence, .. } => write!(f, "readmitted after {after:?}: {evidence}"),
            Flip::Down { evidence } => write!(f, "down: {evidence}"),
            Flip::Up { evidence } => write!(f, "up: {evidence}"),
        }
    }
}

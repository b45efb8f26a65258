//! One line for each finished exchange: which are told of, and how.
//!
//! - `format`: what a line looks like;
//! - `escape`: what a stranger wrote, made harmless;
//! - `clock`: the time, as text.

mod clock;
mod escape;
mod format;

pub use clock::Clock;
pub use format::write_line;

use crate::config::AccessLogSettings;
use crate::error::Reason;
use crate::http::Version;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// What is told of a finished exchange.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// When it ended.
    pub ended: SystemTime,
    /// Who asked.
    pub client: SocketAddr,
    /// The method and target as they were asked for; empty when the request line was not understood.
    pub method: &'a [u8],
    /// See `method`.
    pub target: &'a [u8],
    /// The version that the client spoke, if that was understood.
    pub version: Option<Version>,
    /// What the client says of where it comes from and what it is; `None` also where no format tells of them.
    pub referer: Option<&'a [u8]>,
    /// See `referer`.
    pub user_agent: Option<&'a [u8]>,
    /// The request's id: the client's or a fresh one.
    pub id: &'a [u8],
    /// The status that went out, or 499.
    pub status: u16,
    /// Bytes of the request's body that came from the client, without their framing; in a tunnel, all that came.
    pub bytes_in: u64,
    /// Bytes of the answer's body that went out, without their framing, whoever the answer was from; in a tunnel, all
    /// that went out.
    pub bytes_out: u64,
    /// In the queue for a place at a backend; `None` if it did not wait.
    pub queued: Option<Duration>,
    /// From the choice of a backend to the connection; `None` for a spare, and where nobody was reached.
    pub connect: Option<Duration>,
    /// From the request's last byte to the answer's head; `None` if no backend has answered.
    pub first_byte: Option<Duration>,
    /// From the request's first byte to the answer's head; `None` if no backend has answered.
    pub head: Option<Duration>,
    /// From the request's first byte to the answer's last.
    pub total: Duration,
    /// Who answered, or was asked last; `None` if nobody was asked.
    pub backend: Option<&'a str>,
    /// How many backends were asked; 0 for a request that was refused.
    pub tries: u32,
    /// Why it did not go as the client hoped.
    pub reason: Option<Reason>,
}

/// Whether an exchange is told of: it failed, or it was slow enough and is one of the sample. `dice` gives any number.
pub fn is_told(outcome: &Outcome<'_>, settings: &AccessLogSettings, dice: impl FnOnce() -> u64) -> bool {
    let failed = outcome.reason.is_some() || outcome.status >= 500;
    failed
        || outcome.total >= settings.slower_than
            && (settings.one_in == 1 || dice().checked_rem(settings.one_in) == Some(0))
}

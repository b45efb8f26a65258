//! A fault plus who is to blame gives a status, or silence.
//!
//! Every way in which an exchange can go wrong is one line of one table. The same word stands in the access log, in
//! the counters and in the answer's body, so that an operator who sees one can search for the others.

use crate::balance::Failure;
use crate::http::Flaw;
use crate::net::is_shortage;
use std::fmt;
use std::io::{self, ErrorKind};

/// Whose doing a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client's: a 4xx, or a client that left.
    Client,
    /// The backend's: a 502 or 504.
    Backend,
    /// Ours: a 500 or 503.
    Us,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident: $word:literal, $blame:ident, $status:literal;)*) => {
        /// Why an exchange did not go as its client hoped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Reason] = &[$(Reason::$variant,)*];

            /// The word for it, everywhere.
            pub const fn word(self) -> &'static str {
                match self { $(Reason::$variant => $word,)* }
            }

            /// Whose doing it is.
            pub const fn blame(self) -> Blame {
                match self { $(Reason::$variant => Blame::$blame,)* }
            }

            /// The status of our answer, if one is still possible. 499 stands in the log only: nobody is there to be
            /// answered.
            pub const fn status(self) -> u16 {
                match self { $(Reason::$variant => $status,)* }
            }
        }
    };
}

reasons! {
    /// The request is not HTTP/1.1 as the RFC writes it, or its end can't be known for sure.
    BadRequest: "bad-request", Client, 400;
    /// The body ended before its end.
    ClientCutBody: "client-cut-body", Client, 400;
    /// The head was begun but not finished in time.
    ClientHeadTimeout: "client-head-timeout", Client, 408;
    /// No byte of the body came, or was taken by the client, for too long.
    ClientBodyTimeout: "client-body-timeout", Client, 408;
    /// The client sent its body, or took its answer, at less than the lowest rate.
    ClientTooSlow: "client-too-slow", Client, 408;
    /// No byte went through a tunnel, in either direction, for too long.
    TunnelIdle: "tunnel-idle", Client, 408;
    /// The body is larger than its limit.
    BodyTooLarge: "body-too-large", Client, 413;
    /// The request target is longer than its limit.
    TargetTooLong: "target-too-long", Client, 414;
    /// An expectation other than 100-continue.
    ExpectationFailed: "expectation-failed", Client, 417;
    /// A request for an https URL on a plain port.
    Misdirected: "misdirected", Client, 421;
    /// The client's address has asked more often than it may.
    TooManyRequests: "too-many-requests", Client, 429;
    /// The head is larger than its limit, or has more fields.
    HeadTooLarge: "head-too-large", Client, 431;
    /// The client left before its answer was complete.
    ClientGone: "client-gone", Client, 499;
    /// CONNECT, TRACE for ourselves, or a transfer coding that we don't know.
    NotImplemented: "not-implemented", Client, 501;
    /// HTTP of another major version.
    UnsupportedVersion: "unsupported-version", Client, 505;
    /// The request goes in circles.
    Loop: "loop", Client, 508;
    /// Nobody listens on the backend's port.
    BackendRefused: "backend-refused", Backend, 502;
    /// There is no way to the backend.
    BackendUnreachable: "backend-unreachable", Backend, 502;
    /// The backend closed or reset the connection before the first byte of an answer.
    BackendClosedBeforeResponse: "backend-closed-before-response", Backend, 502;
    /// The backend closed or reset the connection within the head of its answer.
    BackendCutHead: "backend-cut-head", Backend, 502;
    /// The backend's answer is not HTTP/1.1 as the RFC writes it, or its end can't be known for sure.
    BackendBadResponse: "backend-bad-response", Backend, 502;
    /// The backend's answer has a status after which the request is tried elsewhere.
    BackendRetryStatus: "backend-retry-status", Backend, 502;
    /// The backend's answer ended before its end. The client's connection is cut, so that the client can tell.
    BackendCutBody: "backend-cut-body", Backend, 502;
    /// The connection to the backend did not come about in time.
    BackendConnectTimeout: "backend-connect-timeout", Backend, 504;
    /// The head of the answer was not complete in time.
    BackendHeadTimeout: "backend-head-timeout", Backend, 504;
    /// No byte of a body came from the backend, or was taken by it, for too long.
    BackendBodyTimeout: "backend-body-timeout", Backend, 504;
    /// A fault of this program. The log says where.
    Internal: "internal-error", Us, 500;
    /// As many exchanges as are let in are under way.
    Overloaded: "overloaded", Us, 503;
    /// All backends are full, and so is the queue before them.
    QueueFull: "queue-full", Us, 503;
    /// No place at a backend became free in time.
    QueueTimeout: "queue-timeout", Us, 503;
    /// No backend is in the rotation.
    NoBackend: "no-backend", Us, 503;
    /// This process has run out of descriptors or ports, and could free none.
    OutOfDescriptors: "out-of-descriptors", Us, 503;
    /// The drain timeout ended before the exchange did.
    Shutdown: "shutdown", Us, 503;
}

impl Reason {
    /// What it shows of the backend that was asked, if anything.
    pub fn failure(self) -> Option<Failure> {
        if matches!(self, Reason::BackendRefused | Reason::BackendUnreachable | Reason::BackendConnectTimeout) {
            Some(Failure::Refused)
        } else if matches!(
            self,
            Reason::BackendClosedBeforeResponse
                | Reason::BackendCutHead
                | Reason::BackendBadResponse
                | Reason::BackendHeadTimeout
        ) {
            Some(Failure::NoAnswer)
        } else {
            None
        }
    }
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line of the table.
    pub reason: Reason,
    /// More, for the client whose message it is about.
    pub detail: Option<&'static str>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.word())?;
        self.detail.map_or(Ok(()), |detail| write!(f, " ({detail})"))
    }
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Fault {
        Fault { reason, detail: None }
    }
}

impl Fault {
    /// A flaw in what a client sent.
    pub fn of_request(flaw: Flaw) -> Fault {
        let reason = match flaw {
            Flaw::Syntax(_) | Flaw::Framing(_) | Flaw::UnaskedUpgrade => Reason::BadRequest,
            Flaw::UnknownCoding | Flaw::Connect => Reason::NotImplemented,
            Flaw::TargetTooLong => Reason::TargetTooLong,
            Flaw::HeadTooLarge | Flaw::TooManyFields => Reason::HeadTooLarge,
            Flaw::UnsupportedVersion => Reason::UnsupportedVersion,
            Flaw::Expectation => Reason::ExpectationFailed,
            Flaw::Misdirected => Reason::Misdirected,
            Flaw::Loop => Reason::Loop,
        };
        Fault { reason, detail: Some(flaw.text()) }
    }

    /// A flaw in what a backend sent. The client is not told which: it is not its message.
    pub fn of_response(flaw: Flaw) -> Fault {
        log::debug!("a backend's answer was refused: {}", flaw.text());
        Reason::BackendBadResponse.into()
    }

    /// A connection that did not come about.
    pub fn of_dial(error: &io::Error) -> Fault {
        let kind = error.kind();
        if is_shortage(error) {
            Reason::OutOfDescriptors.into()
        } else if kind == ErrorKind::TimedOut {
            Reason::BackendConnectTimeout.into()
        } else if kind == ErrorKind::ConnectionRefused || kind == ErrorKind::ConnectionReset {
            Reason::BackendRefused.into()
        } else {
            Reason::BackendUnreachable.into()
        }
    }
}

/// The reason phrases of our own answers.
pub fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "",
    }
}

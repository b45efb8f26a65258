//! How the end of a body is known: RFC 9112 section 6.3, the steps in its order.
//!
//! Two parties that disagree about where a message ends will take the rest of it for another message, one that its
//! sender never wrote. That is all there is to request smuggling, and why every doubt here is a refusal.

use super::{Flaw, Version, fields, head};
use std::fmt;

/// How the end of a body is known (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// No body byte follows. `Content-Length: 0` is this too: one meaning, one value.
    None,
    /// Exactly this many bytes follow; never zero.
    Length(u64),
    /// Chunks, to the last one and its trailer section.
    Chunked,
    /// To the backend's close. Never the answer for a request.
    UntilClose,
}

impl fmt::Display for BodyFraming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyFraming::None => f.write_str("no body"),
            BodyFraming::Length(length) => write!(f, "a body of {length} B"),
            BodyFraming::Chunked => f.write_str("a body in chunks"),
            BodyFraming::UntilClose => f.write_str("a body up to the close"),
        }
    }
}

/// The framing fields of one head, taken in line by line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FramingFields {
    length: Option<Result<u64, Flaw>>,
    coding: Option<Coding>,
}

/// What all Transfer-Encoding lines joined amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// Exactly `chunked`, once.
    Chunked,
    /// Codings we don't know; `chunked` may be the last.
    Unknown { then_chunked: bool },
    /// Not a list of codings with `chunked` last and once.
    Faulty,
}

impl FramingFields {
    /// One Content-Length line. Repeated equal values count as one, on a line of their own or as a list (RFC 9110
    /// section 8.6): some library between here and the sender has joined two lines.
    pub(super) fn add_length(&mut self, value: &[u8]) {
        for value in fields::list(value) {
            let length = fields::decimal(value).ok_or(Flaw::Framing("a Content-Length that is not a decimal number"));
            self.length = Some(match (self.length, length) {
                (None, length) => length,
                (Some(Ok(earlier)), Ok(later)) if earlier == later => Ok(later),
                (Some(Err(flaw)), _) | (_, Err(flaw)) => Err(flaw),
                (Some(Ok(_)), Ok(_)) => Err(Flaw::Framing("two Content-Length values that differ")),
            });
        }
    }

    /// One Transfer-Encoding line.
    pub(super) fn add_codings(&mut self, value: &[u8]) {
        for coding in fields::list(value) {
            self.coding = Some(match (self.coding, head::token(coding)) {
                (_, None) | (Some(Coding::Faulty), _) => Coding::Faulty,
                // RFC 9112 section 6.1: chunked must be last and once, else the length is unknowable.
                (Some(Coding::Chunked | Coding::Unknown { then_chunked: true }), _) => Coding::Faulty,
                (None, Some(name)) if name.eq_ignore_ascii_case("chunked") => Coding::Chunked,
                (Some(Coding::Unknown { .. }), Some(name)) if name.eq_ignore_ascii_case("chunked") => {
                    Coding::Unknown { then_chunked: true }
                }
                (None | Some(Coding::Unknown { .. }), Some(_)) => Coding::Unknown { then_chunked: false },
            });
        }
    }

    /// The validated Content-Length, if there is one.
    ///
    /// # Errors
    /// A value that is not a number, or two that differ.
    pub(super) fn length(&self) -> Result<Option<u64>, Flaw> {
        self.length.transpose()
    }

    /// The framing of a request.
    ///
    /// # Errors
    /// Everything that leaves the length in doubt.
    pub(super) fn of_request(&self, version: Version) -> Result<BodyFraming, Flaw> {
        match self.coding {
            // RFC 9112 section 6.3, step 3 lets a server go on with the coding; it is how requests are smuggled.
            Some(_) if self.length.is_some() => Err(Flaw::Framing("both Content-Length and Transfer-Encoding")),
            Some(_) if version == Version::Http10 => Err(Flaw::Framing("Transfer-Encoding in HTTP/1.0")),
            Some(Coding::Chunked) => Ok(BodyFraming::Chunked),
            Some(Coding::Unknown { .. }) => Err(Flaw::UnknownCoding),
            Some(Coding::Faulty) => Err(Flaw::Framing("a Transfer-Encoding that is not chunked, once and last")),
            None => Ok(of_length(self.length()?.unwrap_or(0))), // steps 6 and 7
        }
    }

    /// The framing of a response to a request; `to_head`: the request's method was HEAD.
    ///
    /// # Errors
    /// Everything that leaves the length in doubt, and any coding but a single `chunked`.
    pub(super) fn of_response(&self, version: Version, status: u16, to_head: bool) -> Result<BodyFraming, Flaw> {
        // Step 1: these never have a body, whatever the fields say.
        if to_head || status < 200 || status == 204 || status == 304 {
            return Ok(BodyFraming::None);
        }
        match self.coding {
            Some(_) if self.length.is_some() => Err(Flaw::Framing("both Content-Length and Transfer-Encoding")),
            Some(_) if version == Version::Http10 => Err(Flaw::Framing("Transfer-Encoding in HTTP/1.0")),
            Some(Coding::Chunked) => Ok(BodyFraming::Chunked), // step 4
            Some(Coding::Unknown { .. }) => Err(Flaw::UnknownCoding),
            Some(Coding::Faulty) => Err(Flaw::Framing("a Transfer-Encoding that is not chunked, once and last")),
            None => Ok(self.length()?.map_or(BodyFraming::UntilClose, of_length)), // steps 5, 6 and 8
        }
    }

    /// Whether there is any Transfer-Encoding.
    pub(super) fn is_coded(&self) -> bool {
        self.coding.is_some()
    }
}

fn of_length(length: u64) -> BodyFraming {
    match length {
        0 => BodyFraming::None,
        length => BodyFraming::Length(length),
    }
}

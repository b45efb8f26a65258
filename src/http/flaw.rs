//! Everything that can be wrong with a message.
//!
//! A flaw says what is wrong, never whose fault it is or what the answer will be: the same bare LF is a 400 from a
//! client and a 502 from a backend. That translation stands in `error.rs`.

/// Why a message, or the rest of it, can't be understood or won't be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The bytes are not HTTP/1.1 as the RFC writes it; the text says what and where.
    Syntax(&'static str),
    /// The end of the body can't be known for sure (RFC 9112 section 6.3): two lengths, a bad one, a bad coding.
    Framing(&'static str),
    /// A transfer coding other than `chunked`.
    UnknownCoding,
    /// The request target does not end within its limit.
    TargetTooLong,
    /// The head does not end within its limit.
    HeadTooLarge,
    /// More field lines than the limit.
    TooManyFields,
    /// A major version other than 1.
    UnsupportedVersion,
    /// CONNECT: we are nobody's tunnel.
    Connect,
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// An `https` target on a plain port.
    Misdirected,
    /// Our own name is in `Via` so often that the request must be going in circles.
    Loop,
    /// A 101 that the client did not ask for, or to a protocol that it did not offer.
    UnaskedUpgrade,
}

impl Flaw {
    /// What is wrong, for the one who wrote the message.
    pub const fn text(self) -> &'static str {
        match self {
            Flaw::Syntax(what) | Flaw::Framing(what) => what,
            Flaw::UnknownCoding => "a transfer coding other than chunked",
            Flaw::TargetTooLong => "the request target is longer than its limit",
            Flaw::HeadTooLarge => "the head is larger than its limit",
            Flaw::TooManyFields => "more field lines than the limit",
            Flaw::UnsupportedVersion => "only HTTP/1.0 and HTTP/1.1 are spoken here",
            Flaw::Connect => "CONNECT is not offered",
            Flaw::Expectation => "the only expectation known is 100-continue",
            Flaw::Misdirected => "an https target on a plain port",
            Flaw::Loop => "the request has passed here too often already",
            Flaw::UnaskedUpgrade => "an upgrade that nobody asked for",
        }
    }
}

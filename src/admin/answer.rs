//! What is answered, and the fields that go with everything.

use crate::error::phrase;
use std::borrow::Cow;
use std::fmt::Write as _;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) kind: Kind,
    pub(super) body: Cow<'static, str>,
    /// A field beside those that all have: name and value.
    pub(super) field: Option<(&'static str, &'static str)>,
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Html,
    Json,
    /// What Prometheus reads.
    Metrics,
    /// Server-sent events: a body that ends with the connection.
    Events,
}

impl Kind {
    fn content_type(self) -> &'static str {
        match self {
            Kind::Text => "text/plain; charset=utf-8",
            Kind::Html => "text/html; charset=utf-8",
            Kind::Json => "application/json",
            Kind::Metrics => "text/plain; version=0.0.4; charset=utf-8",
            Kind::Events => "text/event-stream",
        }
    }
}

impl Answer {
    /// An answer with this body.
    pub(super) fn new(status: u16, kind: Kind, body: impl Into<Cow<'static, str>>) -> Answer {
        Answer { status, kind, body: body.into(), field: None }
    }

    /// A line of text.
    pub(super) fn line(status: u16, line: &str) -> Answer {
        Answer::new(status, Kind::Text, format!("{line}\n"))
    }

    /// The same, with another field.
    pub(super) fn with(self, name: &'static str, value: &'static str) -> Answer {
        Answer { field: Some((name, value)), ..self }
    }

    /// Its head, to the empty line. The page may load what `policy` lets it, and from nowhere else; what else is asked for
    /// here is no page, and may load nothing at all.
    pub(super) fn head(&self, policy: &str) -> String {
        let policy = if self.kind == Kind::Html { policy } else { "default-src 'none'; frame-ancestors 'none'" };
        let phrase = match self.status {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            other => phrase(other),
        };
        let mut head = format!("HTTP/1.1 {} {phrase}\r\n", self.status);
        let mut field = |name, value: &str| {
            let _never_fails = write!(head, "{name}: {value}\r\n");
        };
        field("Content-Type", self.kind.content_type());
        if self.kind != Kind::Events {
            field("Content-Length", &self.body.len().to_string());
        }
        field("Connection", "close");
        field("Cache-Control", "no-store");
        field("Content-Security-Policy", policy);
        field("Cross-Origin-Resource-Policy", "same-origin");
        field("Referrer-Policy", "no-referrer");
        field("X-Content-Type-Options", "nosniff");
        if let Some((name, value)) = self.field {
            field(name, value);
        }
        head + "\r\n"
    }
}

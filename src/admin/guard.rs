//! Who may ask for what.
//!
//! A web page from anywhere can make a browser send requests here. It can't read the answers (no other origin is let
//! to), unless its own name is made to lead here (DNS rebinding): so the name that is asked for must be one of ours. And
//! it can't give an order, since that takes a token which no browser adds by itself.

use super::answer::Answer;
use super::reading;
use crate::config::AdminSettings;
use crate::http::{BodyFraming, Request};
use std::net::{Ipv4Addr, Ipv6Addr};

/// What may be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Page,
    /// The page without script.
    Tables,
    /// A chapter of the walkthrough.
    Reading(&'static str),
    Alive,
    Ready,
    Stats,
    Metrics,
    Events,
    /// Drain the backend of this name, or make it ready again.
    Order {
        name: String,
        drain: bool,
    },
}

/// What is asked for, if it may be.
pub(super) fn judge(request: &Request<'_, '_>, settings: &AdminSettings) -> Result<Wish, Answer> {
    // HTTP/1.0 without Host is what probes send, and no browser.
    if request.authority().is_some_and(|authority| !is_ours(authority, &settings.hosts)) {
        let right = "421: not by this name: only by address, as localhost, or by a name of admin.hosts";
        return Err(Answer::line(421, right));
    }
    let path = str::from_utf8(request.path_without_query()).unwrap_or_default();
    let Some(wish) = wish(path) else {
        let right = "404: there are /, /table, /docs/NAME, /healthz, /readyz, /stats.json, /metrics, /events and /backends/NAME/drain or ready";
        return Err(Answer::line(404, right));
    };
    if request.framing != BodyFraming::None {
        return Err(Answer::line(413, "413: nothing here takes a body"));
    }
    match (&wish, request.method) {
        (Wish::Order { .. }, "POST") => may_order(request, settings).map(|()| wish),
        (Wish::Order { .. }, _) => Err(Answer::line(405, "405: an order is given by POST").with("Allow", "POST")),
        (_, "GET" | "HEAD") => Ok(wish),
        (_, _) => Err(Answer::line(405, "405: this is only looked at, by GET or HEAD").with("Allow", "GET, HEAD")),
    }
}

fn wish(path: &str) -> Option<Wish> {
    Some(match path {
        "/" => Wish::Page,
        "/table" => Wish::Tables,
        "/healthz" => Wish::Alive,
        "/readyz" => Wish::Ready,
        "/stats.json" => Wish::Stats,
        "/metrics" => Wish::Metrics,
        "/events" => Wish::Events,
        _ if path.starts_with("/docs/") => Wish::Reading(reading::chapter(path.strip_prefix("/docs/")?)?),
        _ => {
            // A name may have slashes of its own.
            let (name, order) = path.strip_prefix("/backends/")?.rsplit_once('/')?;
            let drain = match order {
                "drain" => true,
                "ready" => false,
                _ => return None,
            };
            Wish::Order { name: decoded(name)?, drain }
        }
    })
}

/// Whether the name, with or without a port, is an address, `localhost`, or one of these.
fn is_ours(authority: &str, names: &[String]) -> bool {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(host, _)| host.parse::<Ipv6Addr>().is_ok());
    }
    let host = authority.split_once(':').map_or(authority, |(host, _)| host);
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_named = |name: &str| host.eq_ignore_ascii_case(name);
    host.parse::<Ipv4Addr>().is_ok() || is_named("localhost") || names.iter().any(|name| is_named(name))
}

fn may_order(request: &Request<'_, '_>, settings: &AdminSettings) -> Result<(), Answer> {
    let Some(token) = &settings.token else {
        return Err(Answer::line(403, "403: no orders are taken, since there is no admin.token in the configuration"));
    };
    // Our own page gives no orders, so no page does.
    if request.field("Origin").is_some() {
        return Err(Answer::line(403, "403: no orders are taken from a web page"));
    }
    let given = request.field("Authorization").and_then(|value| {
        let (scheme, token) = value.split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
    });
    match given {
        Some(given) if token.is(given) => Ok(()),
        Some(_) => Err(Answer::line(403, "403: that is not the token")),
        None => {
            let right = "401: an order takes a field Authorization: Bearer TOKEN";
            Err(Answer::line(401, right).with("WWW-Authenticate", "Bearer"))
        }
    }
}

/// The text without its percent-encoding; none if that is broken.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        let digits = str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_localhost_and_configured_names_are_ours() {
        let names = ["lb.example".to_owned()];
        let all_ours =
            ["127.0.0.1", "127.0.0.1:9900", "10.1.2.3:80", "[::1]", "[::1]:9900", "LocalHost:1", "LB.example."];
        for ours in all_ours {
            assert!(is_ours(ours, &names), "{ours}");
        }
        let others =
            ["", ":80", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[evil]", "[::1", "1.2.3"];
        for other in others {
            assert!(!is_ours(other, &names), "{other}");
        }
    }

    #[test]
    fn orders_name_backends_even_such_with_slashes() {
        let order = |name: &str, drain| Some(Wish::Order { name: name.to_owned(), drain });
        let rows = [
            ("/backends/b1/drain", order("b1", true)),
            ("/backends/127.0.0.1:3000/app/ready", order("127.0.0.1:3000/app", false)),
            ("/backends/127.0.0.1%3A3000%2Fapp/ready", order("127.0.0.1:3000/app", false)),
            ("/backends/a%2/drain", None),
            ("/backends/a%+1/drain", None),
            ("/backends/drain", None),
            ("/backends/b1", None),
            ("/backends/b1/kill", None),
            ("/healthz/", None),
        ];
        for (path, wanted) in rows {
            assert_eq!(wish(path), wanted, "{path}");
        }
    }
}

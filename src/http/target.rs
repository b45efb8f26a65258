//! What a request line may ask for, and for whom (RFC 9112 section 3.2).

use super::Flaw;
use std::net::Ipv6Addr;

/// A request target in the form in which it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'b> {
    /// What stands before `path`: nothing, or the `/` that an absolute target left out.
    pub(super) lead: &'static str,
    /// Path and query, byte for byte as they came.
    pub(super) path: &'b str,
    /// The host and port of an absolute target: they replace the Host field.
    pub(super) authority: Option<&'b str>,
    /// `*`, which names the server itself and gets no path prefix.
    pub(super) is_asterisk: bool,
}

/// Reads a target in origin-, absolute- or asterisk-form.
///
/// # Errors
/// A byte outside the visible ASCII characters, a `#`, another form, userinfo, an empty or malformed authority; 421's
/// [`Flaw::Misdirected`] for `https`; [`Flaw::Connect`] for CONNECT, whatever its target.
pub(super) fn read<'b>(method: &str, target: &'b str) -> Result<Target<'b>, Flaw> {
    if method == "CONNECT" {
        return Err(Flaw::Connect);
    }
    if !target.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b'#') {
        return Err(Flaw::Syntax("a byte in the target that may not be there"));
    }
    let plain = Target { lead: "", path: target, authority: None, is_asterisk: false };
    if target.starts_with('/') {
        return Ok(plain);
    }
    if target == "*" {
        return match method {
            "OPTIONS" => Ok(Target { is_asterisk: true, ..plain }),
            _ => Err(Flaw::Syntax("the target * with a method other than OPTIONS")),
        };
    }
    let (scheme, rest) = target.split_once("://").ok_or(Flaw::Syntax("a target that is neither a path nor a URL"))?;
    if scheme.eq_ignore_ascii_case("https") {
        return Err(Flaw::Misdirected);
    }
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(Flaw::Syntax("a target with a scheme other than http"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() || !is_valid_authority(authority) {
        return Err(Flaw::Syntax("a target with a malformed or empty host"));
    }
    let absolute = Target { path, authority: Some(authority), ..plain };
    Ok(match path {
        "" if method == "OPTIONS" => Target { path: "*", is_asterisk: true, ..absolute }, // RFC 9112 section 3.2.4
        path if path.starts_with('/') => absolute,
        _ => Target { lead: "/", ..absolute },
    })
}

/// Whether this is `uri-host [ ":" port ]` (RFC 9110 section 4.2.1 with RFC 3986 section 3.2.2). An empty host is
/// valid grammar for a Host field as long as it is empty altogether.
pub fn is_valid_authority(authority: &str) -> bool {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let Some((literal, port)) = rest.split_once(']') else { return false };
        if literal.parse::<Ipv6Addr>().is_err() && !is_future_address(literal) {
            return false;
        }
        ("[", port)
    } else {
        let (host, port) = authority.split_at(authority.bytes().position(|b| b == b':').unwrap_or(authority.len()));
        if !is_registered_name(host) {
            return false;
        }
        (host, port)
    };
    match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(digits) => !host.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// `reg-name`: unreserved characters, sub-delimiters and percent-encoded octets. IPv4 addresses are among them.
fn is_registered_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let fine = match byte {
            b'%' => {
                let mut hex = || bytes.next().is_some_and(|b| b.is_ascii_hexdigit());
                hex() && hex()
            }
            b'-' | b'.' | b'_' | b'~' => true,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if !fine {
            return false;
        }
    }
    true
}

/// `IPvFuture`: `v`, hex digits, a dot, and at least one more character. Nobody has seen one.
fn is_future_address(literal: &str) -> bool {
    let Some((version, address)) = literal.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    !version.is_empty()
        && version.bytes().all(|b| b.is_ascii_hexdigit())
        && !address.is_empty()
        && address.bytes().all(|b| b == b':' || (b != b'%' && is_registered_name(str::from_utf8(&[b]).unwrap_or("%"))))
}

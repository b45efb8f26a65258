//! The names that mean something to a proxy, and the values that have a grammar of their own.

use super::{Field, Flaw, head};

/// The field names that a proxy reads, writes or removes. All others pass unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Authorization,
    Connection,
    ContentLength,
    Date,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    MaxForwards,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XRequestId,
    /// One of these names with something else for a dash: `X_Forwarded_For`. CGI and its heirs (WSGI, Rack, PHP) make
    /// one variable of both, so to them it would be the field that we have checked, written or removed.
    Twin,
    /// Any other.
    Other,
}

/// Recognises a name, in any case. Its length and its first letter leave one candidate at most, so nothing more is looked at
/// of nearly every name that means nothing here.
pub(super) fn recognise(name: &str) -> Name {
    let first = name.bytes().next().map_or(0, |letter| letter.to_ascii_lowercase());
    let (known, meaning) = match (name.len(), first) {
        (2, b't') => ("te", Name::Te),
        (3, b'v') => ("via", Name::Via),
        (4, b'd') => ("date", Name::Date),
        (4, b'h') => ("host", Name::Host),
        (6, b'e') => ("expect", Name::Expect),
        (7, b't') => ("trailer", Name::Trailer),
        (7, b'u') => ("upgrade", Name::Upgrade),
        (9, b'f') => ("forwarded", Name::Forwarded),
        (10, b'c') => ("connection", Name::Connection),
        (10, b'k') => ("keep-alive", Name::KeepAlive),
        (12, b'm') => ("max-forwards", Name::MaxForwards),
        (12, b'x') => ("x-request-id", Name::XRequestId),
        (13, b'a') => ("authorization", Name::Authorization),
        (14, b'c') => ("content-length", Name::ContentLength),
        (14, b'h') => ("http2-settings", Name::Http2Settings),
        (15, b'x') => ("x-forwarded-for", Name::XForwardedFor),
        (16, b'p') => ("proxy-connection", Name::ProxyConnection),
        (16, b'x') => ("x-forwarded-host", Name::XForwardedHost),
        (17, b't') => ("transfer-encoding", Name::TransferEncoding),
        (17, b'x') => ("x-forwarded-proto", Name::XForwardedProto),
        (18, b'p') => ("proxy-authenticate", Name::ProxyAuthenticate),
        (19, b'p') => ("proxy-authorization", Name::ProxyAuthorization),
        _ => return Name::Other,
    };
    if is_same(name, known) {
        meaning
    } else if is_twin(name, known) {
        Name::Twin
    } else {
        Name::Other
    }
}

/// Whether the name is this known one, which is in lower case. Setting one bit makes a letter lower-case and leaves digits
/// and dashes as they are; no byte that a token may have becomes one of these by it. (`eq_ignore_ascii_case` looks at more
/// on both sides; and a fold, unlike `all`, lets the compiler look at several bytes at a time.)
fn is_same(name: &str, known: &str) -> bool {
    let pairs = name.bytes().zip(known.bytes());
    name.len() == known.len() && pairs.fold(0, |differing, (a, b)| differing | ((a | 0x20) ^ b)) == 0
}

/// Whether the two differ in nothing but what stands for the dashes: in the name, anything that CGI turns into `_`.
fn is_twin(name: &str, known: &str) -> bool {
    let same = |(a, b): (u8, u8)| a.eq_ignore_ascii_case(&b) || (b == b'-' && !a.is_ascii_alphanumeric());
    name.len() == known.len() && name.bytes().zip(known.bytes()).all(same)
}

/// Whether the name is one of the many `X-Forwarded-…`, by which backends are told where a request came from.
pub(super) fn is_claim(name: &str) -> bool {
    const PREFIX: &str = "x-forwarded-";
    name.get(..PREFIX.len()).is_some_and(|start| is_twin(start, PREFIX))
}

/// Whether these credentials speak for all that comes by a connection, and not for a message (RFC 4559): whoever shares it
/// is taken for their owner.
pub(super) fn speak_for_connection(credentials: &[u8]) -> bool {
    let scheme = credentials.split(|&byte| byte == b' ').next().unwrap_or_default();
    [&b"ntlm"[..], b"negotiate"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

/// The elements of a comma-separated list, without the white space around them. Empty ones are kept: some lists may
/// have them (RFC 9110 section 5.6.1.2), and for some they are an attack.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

/// Without the white space at both ends. CR and LF are here only as the folds of a backend's value, where they count
/// as white space too: an option on a line of its own is still an option.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] | [rest @ .., b' ' | b'\t' | b'\r' | b'\n'] = bytes {
        bytes = rest;
    }
    bytes
}

/// A decimal number as RFC 9110 writes it: digits, nothing else, and no more than fit.
///
/// Not `str::parse`: that takes `+5`, which the next reader may take for something else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// What the Connection fields of one head say, over all their lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// `close`: this is the last message on the connection.
    pub close: bool,
    /// `keep-alive`: HTTP/1.0's wish to go on.
    pub keep_alive: bool,
    /// `upgrade`: the Upgrade field is meant.
    pub upgrade: bool,
    /// Some field is named as hop-by-hop beyond those that always are.
    pub(super) names_fields: bool,
    /// How many options there are, empty ones included.
    count: usize,
}

/// What Connection may not name in a request.
pub(super) const NEEDED_OF_REQUEST: [&str; 4] = ["host", "content-length", "transfer-encoding", "authorization"];

/// What it may not name in a response. (Transfer-Encoding ends here whether it is named or not, and some servers name it.)
pub(super) const NEEDED_OF_RESPONSE: [&str; 1] = ["content-length"];

/// More options than any head has use for: each field is compared with all that are named.
const MOST_OPTIONS: usize = 100;

impl ConnectionOptions {
    /// Takes in one Connection line.
    ///
    /// # Errors
    /// When it names one of these fields, which no hop may remove: whoever gets the rest would see another message.
    pub(super) fn add(&mut self, value: &[u8], needed: &[&str]) -> Result<(), Flaw> {
        for option in list(value) {
            self.count += 1;
            if self.count > MOST_OPTIONS {
                return Err(Flaw::Syntax("Connection has more than 100 options"));
            }
            match option {
                o if o.eq_ignore_ascii_case(b"close") => self.close = true,
                o if o.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                o if o.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                o if o.is_empty() || o.eq_ignore_ascii_case(b"te") => {}
                o if needed.iter().any(|name| o.eq_ignore_ascii_case(name.as_bytes())) => {
                    return Err(Flaw::Syntax("Connection names a field that is not its to remove"));
                }
                _ => self.names_fields = true,
            }
        }
        Ok(())
    }
}

/// Whether some Connection line among `fields` names this field.
pub(super) fn is_named_by_connection(fields: &[Field<'_>], name: &str) -> bool {
    connection_named(fields).any(|option| option.eq_ignore_ascii_case(name))
}

/// Everything that the Connection lines among `fields` name.
pub(super) fn connection_named<'f>(fields: &'f [Field<'_>]) -> impl Iterator<Item = &'f str> {
    fields
        .iter()
        .filter(|field| recognise(field.name) == Name::Connection)
        .flat_map(|field| list(field.value))
        .filter_map(head::token)
}

/// Names that a trailer section may not carry on: they would steer framing, routing, authentication, caching or the
/// next hop after the decision was made from the head (RFC 9110 section 6.5.1).
pub(super) fn is_forbidden_in_trailers(name: &str) -> bool {
    const FORBIDDEN: [&str; 22] = [
        "age",
        "cache-control",
        "close",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "expires",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "location",
        "pragma",
        "range",
        "retry-after",
        "set-cookie",
        "traceparent",
        "vary",
        "warning",
        "www-authenticate",
    ];
    recognise(name) != Name::Other
        || is_claim(name)
        || FORBIDDEN.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

//! A request head with its meaning.

use super::fields::{self, ConnectionOptions, Name};
use super::framing::FramingFields;
use super::target::{self, Target};
use super::{BodyFraming, Field, FieldTable, Flaw, Version, head, is_valid_authority};
use memchr::memchr;

/// How large a request head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in all, start line to empty line. Default 16 KiB; beyond it 431.
    pub head_bytes: usize,
    /// Bytes of the request target. Default 8 KiB; beyond it 414.
    pub target_bytes: usize,
    /// Field lines. Default 100; beyond it 431.
    pub fields: usize,
}

/// Our own part in a Via chain; so often there, a request goes in circles.
const VIA_NAME: &[u8] = b"threadbare";
const VIA_LIMIT: usize = 10;

/// A request that may go on.
#[derive(Debug)]
pub struct Request<'t, 'b> {
    /// The method, as it came.
    pub method: &'b str,
    /// The version, as it came.
    pub version: Version,
    /// How its body ends.
    pub framing: BodyFraming,
    /// What its Connection fields say.
    pub options: ConnectionOptions,
    /// `Expect: 100-continue`, where it means something: in HTTP/1.1, with a body.
    pub expects_continue: bool,
    /// Its credentials speak for the connection on which it goes on: nobody else may have that one.
    pub speaks_for_connection: bool,
    /// A real upgrade: HTTP/1.1, `Connection: upgrade`, and an Upgrade field that names more than `h2c`.
    pub upgrades: bool,
    /// Max-Forwards, on the two methods that have it.
    pub max_forwards: Option<MaxForwards>,
    /// The id it brought along, if that is fit for use.
    pub id: Option<&'b str>,
    pub(super) target: Target<'b>,
    /// The host and port that it is for: of an absolute target, else of the Host field.
    pub(super) authority: Option<&'b str>,
    /// A Content-Length was there, maybe 0.
    pub(super) states_length: bool,
    /// TE lists `trailers`.
    pub(super) takes_trailers: bool,
    pub(super) fields: &'t [Field<'b>],
}

/// How often an OPTIONS or TRACE request may still be forwarded (RFC 9110 section 7.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxForwards {
    /// Not at all: it is answered here.
    AnswerHere,
    /// So often after this time.
    Left(u64),
}

/// Whether an incomplete head is already beyond a limit.
///
/// # Errors
/// [`Flaw::TargetTooLong`] or [`Flaw::HeadTooLarge`]; the former wins.
pub fn refuse_early(so_far: &[u8], limits: Limits) -> Result<(), Flaw> {
    if so_far.len() <= limits.target_bytes.min(limits.head_bytes) {
        return Ok(());
    }
    let so_far = proper(so_far);
    let first_line = head::split_first_line(so_far).map_or(so_far, |(line, _)| line);
    if let Some(method_end) = memchr(b' ', first_line) {
        let behind = first_line.get(method_end + 1..).unwrap_or_default();
        if memchr(b' ', behind).unwrap_or(behind.len()) > limits.target_bytes {
            return Err(Flaw::TargetTooLong);
        }
    }
    if so_far.len() > limits.head_bytes { Err(Flaw::HeadTooLarge) } else { Ok(()) }
}

/// A head without the empty line that may stand before it (RFC 9112 section 2.2).
fn proper(head: &[u8]) -> &[u8] {
    head.strip_prefix(b"\r\n").unwrap_or(head)
}

/// Method, target and version of a head that may have been refused, or be incomplete: if its first line is whole, within the
/// limits, and such that it may be repeated.
pub fn understood_line(so_far: &[u8], limits: Limits) -> Option<(&str, &str, Version)> {
    let (line, _) = head::split_first_line(proper(so_far))?;
    let (method, target, version) = head::split_request_line(line).ok()?;
    let is_plain = target.len() <= limits.target_bytes && target.bytes().all(|b| (0x21..=0x7e).contains(&b));
    is_plain.then_some((method, target, version))
}

impl<'t, 'b> Request<'t, 'b> {
    /// Reads a complete head, as far as a [`HeadScan`](super::HeadScan) found it to go.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(head: &'b [u8], table: &'t mut FieldTable<'b>, limits: Limits) -> Result<Request<'t, 'b>, Flaw> {
        refuse_early(head, limits)?;
        let (line, block) = head::split_first_line(proper(head)).ok_or(Flaw::Syntax("a head without a line"))?;
        let (method, target, version) = head::split_request_line(line)?;
        let target = target::read(method, target)?;
        let fields = table.split(block, limits.fields)?;

        let mut framing = FramingFields::default();
        let mut options = ConnectionOptions::default();
        let mut host = None;
        let mut expectation = None;
        let mut offers_upgrade = false;
        let mut takes_trailers = false;
        let mut max_forwards = None;
        let mut ids = 0;
        let mut id = None;
        let mut passages = 0;
        let mut speaks_for_connection = false;
        for field in fields {
            match fields::recognise(field.name) {
                Name::Connection => options.add(field.value, &fields::NEEDED_OF_REQUEST)?,
                Name::ContentLength => framing.add_length(field.value),
                Name::TransferEncoding => framing.add_codings(field.value),
                Name::Host => {
                    if host.is_some() {
                        return Err(Flaw::Syntax("more than one Host field"));
                    }
                    let value = str::from_utf8(field.value).ok().filter(|value| is_valid_authority(value));
                    host = Some(value.ok_or(Flaw::Syntax("a Host field that is not host and port"))?);
                }
                Name::Expect => {
                    let is_known = field.value.eq_ignore_ascii_case(b"100-continue");
                    expectation = Some(is_known && expectation != Some(false));
                }
                Name::Upgrade => offers_upgrade |= offered_protocols(field.value).next().is_some(),
                Name::Te => takes_trailers |= fields::list(field.value).any(is_trailers),
                Name::MaxForwards => {
                    // The least of several: nobody gains a hop by saying it twice.
                    let is_number = !field.value.is_empty() && field.value.iter().all(u8::is_ascii_digit);
                    let left = is_number.then(|| fields::decimal(field.value).unwrap_or(u64::MAX));
                    max_forwards = max_forwards.into_iter().chain(left).min();
                }
                Name::XRequestId => {
                    ids += 1;
                    id = head::token(field.value).filter(|id| id.len() <= 128);
                }
                Name::Via => passages += memchr::memmem::find_iter(field.value, VIA_NAME).count(),
                Name::Authorization => speaks_for_connection |= fields::speak_for_connection(field.value),
                Name::Date
                | Name::Forwarded
                | Name::Http2Settings
                | Name::KeepAlive
                | Name::ProxyAuthenticate
                | Name::ProxyAuthorization
                | Name::ProxyConnection
                | Name::Trailer
                | Name::XForwardedFor
                | Name::XForwardedHost
                | Name::XForwardedProto
                | Name::Twin
                | Name::Other => {}
            }
        }
        if host.is_none() && version == Version::Http11 {
            return Err(Flaw::Syntax("HTTP/1.1 without a Host field")); // RFC 9112 section 3.2
        }
        if passages >= VIA_LIMIT {
            return Err(Flaw::Loop);
        }
        let states_length = framing.length()?.is_some();
        let framing = framing.of_request(version)?;
        let expects_continue = match expectation {
            _ if version == Version::Http10 => false, // RFC 9110 section 10.1.1: ignored
            Some(false) => return Err(Flaw::Expectation),
            Some(true) => framing != BodyFraming::None,
            None => false,
        };
        let forwards_count = matches!(method, "OPTIONS" | "TRACE");
        Ok(Request {
            method,
            version,
            framing,
            options,
            expects_continue,
            speaks_for_connection,
            upgrades: offers_upgrade && options.upgrade && version == Version::Http11,
            max_forwards: max_forwards.filter(|_| forwards_count).map(|left| match left.checked_sub(1) {
                None => MaxForwards::AnswerHere,
                Some(left) => MaxForwards::Left(left),
            }),
            id: id.filter(|_| ids == 1),
            target,
            authority: target.authority.or(host),
            states_length,
            takes_trailers,
            fields,
        })
    }

    /// Path and query, byte for byte as they came.
    pub fn path(&self) -> &'b str {
        self.target.path
    }

    /// The host and port that it is for: of an absolute target, else of the Host field.
    pub fn authority(&self) -> Option<&'b str> {
        self.authority
    }

    /// The protocols that the Upgrade fields offer, `h2c` taken off the list.
    pub fn offered_protocols(&self) -> impl Iterator<Item = &'b str> {
        let upgrades = self.fields.iter().filter(|field| fields::recognise(field.name) == Name::Upgrade);
        upgrades.flat_map(|field| offered_protocols(field.value))
    }

    /// The fields that Connection names beyond those that are always hop-by-hop: trailers may not carry them either.
    pub fn connection_named(&self) -> Box<[Box<str>]> {
        match self.options.names_fields {
            true => fields::connection_named(self.fields).map(Box::from).collect(),
            false => Box::default(),
        }
    }
}

/// Another HTTP through us, in the open or in TLS, would be a tunnel past every rule here, so it is never offered on.
pub(super) fn offered_protocols(value: &[u8]) -> impl Iterator<Item = &str> {
    fields::list(value).filter_map(protocol).filter(|protocol| {
        let name = protocol.split('/').next();
        !name.is_some_and(|name| ["h2c", "h2", "http", "tls"].iter().any(|past| name.eq_ignore_ascii_case(past)))
    })
}

/// `name [ "/" version ]` (RFC 9110 section 7.8).
pub(super) fn protocol(bytes: &[u8]) -> Option<&str> {
    let mut parts = bytes.splitn(2, |&b| b == b'/');
    let is_token = |part: &[u8]| head::token(part).is_some();
    if parts.next().is_some_and(is_token) && parts.next().is_none_or(is_token) {
        str::from_utf8(bytes).ok()
    } else {
        None
    }
}

fn is_trailers(coding: &[u8]) -> bool {
    coding.eq_ignore_ascii_case(b"trailers")
}

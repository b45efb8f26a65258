//! What goes on, and what ends here (RFC 9110 section 7.6).
//!
//! Every message is written afresh: our start line, their fields without those that end at this hop, then our own
//! fields. Ours come last, after Connection has done its removing, so nobody can name them away.

use super::digits::{write_address, write_decimal};
use super::fields::{self, Name};
use super::request::{MaxForwards, offered_protocols};
use super::{BodyFraming, Flaw, Request, Response, Version, chunked, response};
use memchr::memchr;
use std::net::IpAddr;

/// Who sends a request, as far as the next hop is told.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The client's address.
    pub address: IpAddr,
    /// What the peer itself claims about where the request came from.
    pub claims: Claims,
    /// The id for a request that brought none.
    pub fresh_id: &'a str,
    /// Whether we sign with Via.
    pub via: bool,
}

/// What becomes of X-Forwarded-For and its kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claims {
    /// The peer is a stranger: what it claims is replaced.
    Replaced,
    /// The peer is a proxy of ours: what it claims is extended.
    Extended,
}

/// A request head, ready to be sent but for what depends on the backend: its path prefix, and its name for a client
/// that gave no Host.
#[derive(Debug, Default)]
pub struct ForwardedRequest {
    /// The head, complete for a backend without a prefix and a client that gave a Host.
    pub bytes: Vec<u8>,
    /// Where the path begins, if a prefix may go before it.
    path_at: Option<usize>,
    /// Where the target begins, for the log.
    target_at: usize,
    /// Where the field lines begin.
    fields_at: usize,
    /// No Host was given: the backend's own name must be.
    lacks_host: bool,
    /// Where the id stands.
    id: std::ops::Range<usize>,
}

impl ForwardedRequest {
    /// The method.
    pub fn method(&self) -> &[u8] {
        self.bytes.get(..self.target_at.saturating_sub(1)).unwrap_or_default()
    }

    /// The target, before any prefix.
    pub fn target(&self) -> &[u8] {
        let end = self.fields_at.saturating_sub(b" HTTP/1.1\r\n".len());
        self.bytes.get(self.target_at..end).unwrap_or_default()
    }

    /// The request's id: the client's, or the fresh one.
    pub fn id(&self) -> &[u8] {
        self.bytes.get(self.id.clone()).unwrap_or_default()
    }

    /// The value of the first field of this name, in any case, if it goes on.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let fields = self.bytes.get(self.fields_at..).unwrap_or_default();
        // Where a Host is to go, an empty line stands for it.
        let mut rest = if self.lacks_host { fields.get(2..).unwrap_or_default() } else { fields };
        loop {
            let (line, behind) = rest.split_at_checked(memchr(b'\n', rest)?)?;
            let line = line.strip_suffix(b"\r").filter(|line| !line.is_empty())?;
            let (before, value) = line.split_at_checked(memchr(b':', line)?)?;
            if before.eq_ignore_ascii_case(name.as_bytes()) {
                return Some(fields::trim(value.get(1..)?));
            }
            rest = behind.get(1..)?;
        }
    }

    /// The head for a backend with this path prefix and this authority, in the pieces in which it is sent.
    pub fn pieces<'a>(&'a self, prefix: &'a str, authority: &'a str) -> [&'a [u8]; 6] {
        if prefix.is_empty() && !self.lacks_host {
            return [&self.bytes, b"", b"", b"", b"", b""]; // one piece, in one plain write
        }
        let prefix_at = self.path_at.unwrap_or(self.target_at);
        let prefix = if self.path_at.is_some() { prefix.as_bytes() } else { b"" };
        let (start, rest) = self.bytes.split_at_checked(prefix_at).unwrap_or_default();
        if !self.lacks_host {
            return [start, prefix, rest, b"", b"", b""];
        }
        let (line, fields) = rest.split_at_checked(self.fields_at - prefix_at).unwrap_or_default();
        [start, prefix, line, b"Host: ", authority.as_bytes(), fields]
    }
}

/// Writes the head with which a request goes on.
pub fn forward_request(request: &Request<'_, '_>, sender: &Sender<'_>) -> ForwardedRequest {
    // Room for the fields that we add, so that the head is written without growing.
    let mut out =
        Vec::with_capacity(512 + request.fields.iter().map(|f| f.name.len() + f.value.len() + 4).sum::<usize>());
    out.extend_from_slice(request.method.as_bytes());
    out.push(b' ');
    let target_at = out.len();
    out.extend_from_slice(request.target.lead.as_bytes());
    out.extend_from_slice(request.target.path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let fields_at = out.len();

    let lacks_host = request.authority.is_none();
    if lacks_host {
        // The backend's authority goes before this line end: see `ForwardedRequest::pieces`.
        out.extend_from_slice(b"\r\n");
    } else if request.target.authority.is_some() {
        write_host(&mut out, request);
    }
    for field in request.fields {
        if request.options.names_fields && fields::is_named_by_connection(request.fields, field.name) {
            continue;
        }
        match fields::recognise(field.name) {
            Name::Host if request.target.authority.is_none() => write_host(&mut out, request),
            Name::Trailer if request.framing == BodyFraming::Chunked => write_field(&mut out, field.name, field.value),
            Name::MaxForwards => match request.max_forwards {
                Some(MaxForwards::Left(left)) => write_number(&mut out, field.name, left),
                Some(MaxForwards::AnswerHere) | None => write_field(&mut out, field.name, field.value),
            },
            Name::Expect if request.expects_continue => write_field(&mut out, field.name, field.value),
            // A stranger tells nobody where the request came from.
            Name::Other if sender.claims == Claims::Replaced && fields::is_claim(field.name) => {}
            Name::Authorization | Name::Via | Name::Date | Name::Other => {
                write_field(&mut out, field.name, field.value)
            }
            // They end here, or are written afresh below.
            Name::Connection
            | Name::ContentLength
            | Name::Expect
            | Name::Forwarded
            | Name::Host
            | Name::Http2Settings
            | Name::KeepAlive
            | Name::ProxyAuthenticate
            | Name::ProxyAuthorization
            | Name::ProxyConnection
            | Name::Te
            | Name::Trailer
            | Name::TransferEncoding
            | Name::Upgrade
            | Name::XForwardedFor
            | Name::XForwardedHost
            | Name::XForwardedProto
            | Name::XRequestId
            | Name::Twin => {}
        }
    }

    match request.framing {
        BodyFraming::Length(length) => write_number(&mut out, "Content-Length", length),
        BodyFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        BodyFraming::None if request.states_length => out.extend_from_slice(b"Content-Length: 0\r\n"),
        BodyFraming::None | BodyFraming::UntilClose => {}
    }
    write_origin(&mut out, request, sender);
    out.extend_from_slice(b"X-Request-Id: ");
    let id_at = out.len();
    out.extend_from_slice(request.id.unwrap_or(sender.fresh_id).as_bytes());
    let id = id_at..out.len();
    out.extend_from_slice(b"\r\n");
    if sender.via {
        out.extend_from_slice(via(request.version));
    }
    let takes_trailers = request.takes_trailers && request.version == Version::Http11;
    if request.upgrades {
        out.extend_from_slice(b"Upgrade: ");
        write_list(
            &mut out,
            request
                .fields
                .iter()
                .filter(|f| fields::recognise(f.name) == Name::Upgrade)
                .flat_map(|f| offered_protocols(f.value).map(str::as_bytes)),
        );
    }
    out.extend_from_slice(match (request.upgrades, takes_trailers) {
        (true, true) => b"TE: trailers\r\nConnection: upgrade, TE\r\n",
        (true, false) => b"Connection: upgrade\r\n",
        (false, true) => b"TE: trailers\r\nConnection: TE\r\n",
        (false, false) => b"",
    });
    out.extend_from_slice(b"\r\n");

    let path_at = if request.target.is_asterisk { None } else { Some(target_at) };
    ForwardedRequest { bytes: out, path_at, target_at, fields_at, lacks_host, id }
}

/// Where the request came from: X-Forwarded-For, -Proto, -Host and Forwarded (RFC 7239).
fn write_origin(out: &mut Vec<u8>, request: &Request<'_, '_>, sender: &Sender<'_>) {
    let extended = sender.claims == Claims::Extended;
    let earlier = |name: Name| {
        request.fields.iter().filter(move |f| extended && fields::recognise(f.name) == name).map(|f| f.value)
    };
    out.extend_from_slice(b"X-Forwarded-For: ");
    write_earlier(out, earlier(Name::XForwardedFor));
    let address_at = out.len();
    write_address(sender.address, out);
    let address = address_at..out.len();
    out.extend_from_slice(b"\r\n");
    write_first_claim(out, "X-Forwarded-Proto", earlier(Name::XForwardedProto), Some("http"));
    let authority = request.authority.filter(|host| !host.is_empty());
    write_first_claim(out, "X-Forwarded-Host", earlier(Name::XForwardedHost), authority);

    out.extend_from_slice(b"Forwarded: ");
    write_earlier(out, earlier(Name::Forwarded).filter(|value| closes_quotes(value)));
    let (before, behind): (&[u8], &[u8]) = match sender.address.to_canonical() {
        IpAddr::V4(_) => (b"for=", b""),
        IpAddr::V6(_) => (b"for=\"[", b"]\""),
    };
    out.extend_from_slice(before);
    out.extend_from_within(address);
    out.extend_from_slice(behind);
    if let Some(host) = authority {
        let quote: &[u8] = if host.bytes().all(super::head::is_token_byte) { b"" } else { b"\"" };
        for piece in [b";host=", quote, host.as_bytes(), quote] {
            out.extend_from_slice(piece);
        }
    }
    out.extend_from_slice(b";proto=http\r\n");
}

/// Whether what is quoted in a value ends in it: else whatever is written behind it would be a part of the quote.
fn closes_quotes(value: &[u8]) -> bool {
    let mut is_quoted = false;
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\\' if is_quoted => _ = bytes.next(),
            _ => {}
        }
    }
    !is_quoted
}

/// What earlier hops have said, each with the comma behind it: ours comes last.
fn write_earlier<'v>(out: &mut Vec<u8>, elements: impl Iterator<Item = &'v [u8]>) {
    for element in elements.filter(|element| !element.is_empty()) {
        out.extend_from_slice(element);
        out.extend_from_slice(b", ");
    }
}

/// What was claimed at the first hop stands; ours only fills the gap.
fn write_first_claim<'v>(
    out: &mut Vec<u8>,
    name: &str,
    earlier: impl Iterator<Item = &'v [u8]>,
    ours: Option<&'v str>,
) {
    let mut earlier = earlier.peekable();
    let ours = ours.filter(|_| earlier.peek().is_none()).map(str::as_bytes);
    for claim in earlier.chain(ours) {
        write_field(out, name, claim);
    }
}

/// What becomes of the client's connection after this answer, as far as the answer must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It stays open, as the version has it.
    Stays,
    /// It stays open, which an HTTP/1.0 client must be told.
    StaysByRequest,
    /// It is closed.
    Closes,
}

/// What an answer to the client needs beside the response itself.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The client's version.
    pub version: Version,
    /// Whether the client's connection goes on.
    pub persistence: Persistence,
    /// The time, in the Date field's format, for a response that has none.
    pub date: &'a str,
    /// Whether we sign with Via.
    pub via: bool,
    /// A cookie of ours: name and value.
    pub cookie: Option<(&'a str, &'a [u8])>,
}

/// How the body of a response is framed towards the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endings {
    /// As it came: a known length, or none.
    AsItCame,
    /// In chunks of ours.
    Chunks,
    /// By the end of the connection: an HTTP/1.0 client knows no chunks.
    Close,
}

impl Endings {
    /// How that is, in words.
    pub fn words(self) -> &'static str {
        match self {
            Endings::AsItCame => "as it came",
            Endings::Chunks => "in chunks of ours",
            Endings::Close => "up to the close",
        }
    }

    /// The framing that a client of this version can read.
    pub fn of(framing: BodyFraming, version: Version) -> Endings {
        match (framing, version) {
            (BodyFraming::None | BodyFraming::Length(_), _) => Endings::AsItCame,
            (BodyFraming::Chunked | BodyFraming::UntilClose, Version::Http11) => Endings::Chunks,
            (BodyFraming::Chunked | BodyFraming::UntilClose, Version::Http10) => Endings::Close,
        }
    }
}

/// Appends the head with which a final response, or a 101, goes on.
pub fn forward_response(response: &Response<'_, '_>, answer: &Answer<'_>, out: &mut Vec<u8>) {
    let ending = Endings::of(response.framing, answer.version);
    write_status_line(out, response);
    write_end_to_end_fields(out, response, ending);
    if let Some(length) = response.length {
        write_number(out, "Content-Length", length);
    }
    if ending == Endings::Chunks {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if !response.has_date() {
        write_field(out, "Date", answer.date.as_bytes());
    }
    if let Some((name, value)) = answer.cookie {
        out.extend_from_slice(b"Set-Cookie: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        out.extend_from_slice(value);
        out.extend_from_slice(b"; Path=/; HttpOnly; SameSite=Lax\r\n");
    }
    if answer.via {
        out.extend_from_slice(via(response.version));
    }
    // On a 426 the field says what to upgrade to, and belongs to this hop like every Upgrade (RFC 9110 section 15.5.22).
    let mut upgrade = false;
    if response.status == 101 || response.status == 426 {
        for field in response.fields.iter().filter(|f| fields::recognise(f.name) == Name::Upgrade) {
            write_unfolded(out, field.name, field.value);
            upgrade = true;
        }
    }
    out.extend_from_slice(close_fields(answer.persistence, upgrade));
    out.extend_from_slice(b"\r\n");
}

/// The Connection field that says what becomes of the client's connection.
pub fn close_fields(persistence: Persistence, upgrade: bool) -> &'static [u8] {
    match (persistence, upgrade) {
        (Persistence::Stays, false) => b"",
        (Persistence::Stays, true) => b"Connection: upgrade\r\n",
        (Persistence::StaysByRequest, false) => b"Connection: keep-alive\r\n",
        (Persistence::StaysByRequest, true) => b"Connection: upgrade, keep-alive\r\n",
        (Persistence::Closes, false) => b"Connection: close\r\n",
        (Persistence::Closes, true) => b"Connection: upgrade, close\r\n",
    }
}

/// Appends an interim response as it goes on: without framing, which it never has.
pub fn forward_interim(response: &Response<'_, '_>, via_on: bool, out: &mut Vec<u8>) {
    write_status_line(out, response);
    write_end_to_end_fields(out, response, Endings::AsItCame);
    if via_on {
        out.extend_from_slice(via(response.version));
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends what may go on of a trailer section, and its empty line. `named`: what the head's Connection named.
///
/// # Errors
/// A section that does not consist of field lines.
pub fn forward_trailers(section: &[u8], named: &[Box<str>], out: &mut Vec<u8>) -> Result<(), Flaw> {
    chunked::filter_trailers(section, response::FIELD_LIMIT, named, out)
}

fn write_status_line(out: &mut Vec<u8>, response: &Response<'_, '_>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write_decimal(response.status.into(), out); // three digits: 100 - 599
    out.push(b' '); // it stays even without a reason
    out.extend_from_slice(response.reason.unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

/// The fields that are for the client, in their order. Trailer passes where trailers do.
fn write_end_to_end_fields(out: &mut Vec<u8>, response: &Response<'_, '_>, ending: Endings) {
    let trailers_pass = ending == Endings::Chunks && response.framing == BodyFraming::Chunked;
    for field in response.fields {
        if response.options.names_fields && fields::is_named_by_connection(response.fields, field.name) {
            continue;
        }
        match fields::recognise(field.name) {
            Name::Trailer if trailers_pass => write_unfolded(out, field.name, field.value),
            Name::Authorization
            | Name::Date
            | Name::Expect
            | Name::Forwarded
            | Name::Host
            | Name::MaxForwards
            | Name::Via
            | Name::XForwardedFor
            | Name::XForwardedHost
            | Name::XForwardedProto
            | Name::XRequestId
            | Name::Twin
            | Name::Other => write_unfolded(out, field.name, field.value),
            Name::Connection
            | Name::ContentLength
            | Name::Http2Settings
            | Name::KeepAlive
            | Name::ProxyAuthenticate
            | Name::ProxyAuthorization
            | Name::ProxyConnection
            | Name::Te
            | Name::Trailer
            | Name::TransferEncoding
            | Name::Upgrade => {}
        }
    }
}

/// One field line.
pub(super) fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4); // once, instead of four times
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The same, of a response: a folded value loses its folds. CR LF and the white space around become one space.
pub(super) fn write_unfolded(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    if memchr::memchr(b'\n', value).is_none() {
        return write_field(out, name, value);
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    for (nth, line) in value.split(|&b| b == b'\n').map(fields::trim).filter(|line| !line.is_empty()).enumerate() {
        if nth > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_host(out: &mut Vec<u8>, request: &Request<'_, '_>) {
    write_field(out, "Host", request.authority.unwrap_or_default().as_bytes());
}

fn write_number(out: &mut Vec<u8>, name: &str, number: u64) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    write_decimal(number, out);
    out.extend_from_slice(b"\r\n");
}

/// The rest of a field line whose value is a list.
fn write_list<'v>(out: &mut Vec<u8>, elements: impl Iterator<Item = &'v [u8]>) {
    for (nth, element) in elements.filter(|element| !element.is_empty()).enumerate() {
        if nth > 0 {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(element);
    }
    out.extend_from_slice(b"\r\n");
}

fn via(version: Version) -> &'static [u8] {
    match version {
        Version::Http11 => b"Via: 1.1 threadbare\r\n",
        Version::Http10 => b"Via: 1.0 threadbare\r\n",
    }
}

//! What must hold for any bytes: one function for each of the five things that read or write bytes of strangers.
//!
//! Each takes arbitrary bytes and panics if the program and the second reader (`strict`) disagree about them, if the
//! outcome depends on how the bytes were cut, or if what is written does not read as what was meant. No socket is opened:
//! the whole program is fuzzed by `tests/z_fuzz.rs`, with the same reader.

#![forbid(unsafe_code)]

pub mod mutate;
pub mod strict;

use strict::{Framing, Read};
use threadbare::http::{
    Answer, BodyFraming, CHUNK_HEAD_ROOM, CHUNK_TAIL, ChunkDecoder, Claims, Endings, FieldTable, Flaw, HeadScan,
    LAST_CHUNK, Limits, Persistence, Request, Response, Sender, Version, client_may_stay, forward_interim,
    forward_request, forward_response, forward_trailers, refuse_early, write_chunk_head,
};

/// Larger than any input, so that the limits (which have tests of their own) hide nothing.
const LIMITS: Limits = Limits { head_bytes: 1 << 20, target_bytes: 1 << 20, fields: 1 << 12 };

/// The head of a request: where it ends, what it says, and that a second reader sees the same.
pub fn request_head(data: &[u8]) {
    request_head_cut(data, &CUTS);
}

fn request_head_cut(data: &[u8], cuts: &[usize]) {
    let whole = scan(data, HeadScan::of_request(), cuts);
    let skipped = if data.starts_with(b"\r\n") { 2 } else { 0 };
    let second = strict::head(&data[skipped..]);
    let Some(end) = same_end(data, whole, &second, skipped) else { return };
    let Read::Whole(second) = second else { unreachable!("the ends are the same") };
    judge_request(&data[..end], strict::request(&second));
}

/// The head of a response, to a GET and to a HEAD; and that what goes on of it reads as one response.
pub fn response_head(data: &[u8]) {
    response_head_cut(data, &CUTS);
}

fn response_head_cut(data: &[u8], cuts: &[usize]) {
    let whole = scan(data, HeadScan::strict(), cuts);
    let second = strict::head(data);
    let Some(end) = same_end(data, whole, &second, 0) else { return };
    let Read::Whole(second) = second else { unreachable!("the ends are the same") };
    for to_head in [false, true] {
        let mut table = FieldTable::default();
        let first = Response::read(&data[..end], &mut table, to_head);
        match (&first, strict::response(&second, to_head, true)) {
            (Err(_), Err(_)) => {}
            (Ok(first), Ok(second)) => {
                assert_eq!(first.status, second.status, "{}", show(data));
                assert_eq!(framing_of(first.framing), second.framing, "{}", show(data));
                assert_eq!(first.version == Version::Http10, second.minor == 0, "{}", show(data));
                response_goes_on(first, &second, to_head, data);
            }
            (first, second) => panic!("{first:?}, but {second:?}: {}", show(data)),
        }
    }
}

/// The framing decision: these bytes are field lines, in every kind of message that they may frame. (How heads are cut is for
/// the two above; seven messages, cut at every byte, would leave time for a tenth of the cases.)
pub fn framing(data: &[u8]) {
    for start in ["POST / HTTP/1.1", "GET / HTTP/1.0"] {
        request_head_cut(&[start.as_bytes(), b"\r\nHost: a\r\n", data, b"\r\n\r\n"].concat(), &[]);
    }
    for start in ["HTTP/1.1 200 OK", "HTTP/1.0 200 OK", "HTTP/1.1 304 ", "HTTP/1.1 204", "HTTP/1.1 103 Early"] {
        response_head_cut(&[start.as_bytes(), b"\r\n", data, b"\r\n\r\n"].concat(), &[]);
    }
}

/// A chunked body: decoded the same by both readers and however it is cut, and the same again when it is written afresh.
pub fn chunks(data: &[u8]) {
    let whole = decode(data, data.len().max(1));
    for step in [1, 2, 3, 7] {
        assert_eq!(decode(data, step), whole, "in pieces of {step}: {}", show(data));
    }
    match (&whole, strict::chunked(data)) {
        (Ok(first), Read::Whole(second)) => {
            assert!(first.ended, "{}", show(data));
            assert_eq!((&first.data, first.used), (&second.data, second.length), "{}", show(data));
            let again = encode(first, &[]);
            let again = match strict::chunked(&again) {
                Read::Whole(again) => again,
                other @ (Read::Half | Read::Bad(_)) => panic!("{other:?} for what was written: {}", show(&again)),
            };
            assert_eq!(again.data, second.data, "{}", show(data));
            let mut passed = second.trailers.iter();
            for trailer in &again.trailers {
                assert!(passed.any(|before| before == trailer), "{trailer:?} from nowhere: {}", show(data));
                assert!(!steers(&trailer.0), "{trailer:?} went on: {}", show(data));
            }
        }
        // A beginning that can't become a body may be refused before its line ends.
        (Err(_), Read::Bad(_) | Read::Half) => {}
        (Ok(first), Read::Half) => assert!(!first.ended, "{}", show(data)),
        // A trailer section is judged when it is to go on.
        (Ok(first), Read::Bad(_)) => {
            let refused = forward_trailers(&first.trailers, &[], &mut Vec::new()).is_err();
            assert!(first.ended && refused, "{first:?}: {}", show(data));
        }
        (first, second) => panic!("{first:?}, but {second:?}: {}", show(data)),
    }
}

/// Requests, one behind the other on a connection, as they go on: as many messages as came, with the meaning that they
/// came with. The first byte chooses who sends them and to whom.
pub fn forwarding(data: &[u8]) {
    let Some((&choice, mut rest)) = data.split_first() else { return };
    let extended = choice & 1 == 1;
    let claims = if extended { Claims::Extended } else { Claims::Replaced };
    let sender = Sender { address: [192, 0, 2, 7].into(), claims, fresh_id: "fresh", via: choice & 2 == 2 };
    let prefix = if choice & 4 == 4 { "/b" } else { "" };
    let mut written = Vec::new();
    let mut expected = Vec::new();
    while let Ok(Some(end)) = scan(rest, HeadScan::of_request(), &CUTS) {
        let mut table = FieldTable::default();
        let Ok(request) = Request::read(&rest[..end], &mut table, LIMITS) else { break };
        let Read::Whole(second) = strict::head(rest.strip_prefix(b"\r\n").unwrap_or(rest)) else {
            panic!("no head: {}", show(rest))
        };
        let second = strict::request(&second).unwrap_or_else(|why| panic!("{why}: {}", show(rest)));
        let behind = &rest[end..];
        let (body, used) = match request.framing {
            BodyFraming::None => (Vec::new(), 0),
            BodyFraming::Length(length) => match usize::try_from(length).ok().and_then(|length| behind.get(..length)) {
                Some(data) => (data.to_vec(), data.len()),
                None => break,
            },
            BodyFraming::Chunked => match decode(behind, 5) {
                Ok(decoded) if decoded.ended => {
                    let named = request.connection_named();
                    if forward_trailers(&decoded.trailers, &named, &mut Vec::new()).is_err() {
                        break;
                    }
                    (encode(&decoded, &named), decoded.used)
                }
                _ => break,
            },
            BodyFraming::UntilClose => panic!("a request until the close: {}", show(rest)),
        };
        let Read::Whole(second_body) = strict::body(behind, second.framing) else {
            panic!("another end of the body: {}", show(rest))
        };
        assert_eq!(second_body.length, used, "another end of the body: {}", show(rest));
        written.extend(forward_request(&request, &sender).pieces(prefix, "backend:81").concat());
        written.extend(body);
        let is_last = !client_may_stay(request.version, request.options) || request.upgrades;
        expected.push((second, second_body.data));
        rest = &behind[used..];
        if is_last {
            break;
        }
    }

    let mut back = &written[..];
    for (came, came_body) in &expected {
        let Read::Whole(head) = strict::head(back) else { panic!("no head in {}", show(&written)) };
        let went = strict::request(&head);
        if went == Err("a loop") && sender.via {
            return; // with our own name it has been there ten times: the next of us will refuse it
        }
        let went = went.unwrap_or_else(|why| panic!("{why} in {} from {}", show(&written), show(data)));
        let story = || format!("{} as {}", show(data), show(&written));
        assert_eq!(others_count(&back[..head.length]), Some(went.fields.len()), "{}", story());
        let Read::Whole(went_body) = strict::body(&back[head.length..], went.framing) else {
            panic!("no end of the body: {}", story())
        };
        assert_eq!((&went.method, went.minor, went.framing), (&came.method, 1, came.framing), "{}", story());
        let prefix = if came.target == b"*" { "" } else { prefix };
        assert_eq!(went.target, [prefix.as_bytes(), &came.target].concat(), "{}", story());
        assert_eq!(went.host.as_deref(), Some(came.host.as_deref().unwrap_or(b"backend:81")), "{}", story());
        assert_eq!(&went_body.data, came_body, "{}", story());
        assert_eq!(plain(&went.fields), plain(&came.fields), "{}", story());
        let for_whom = strict::members(&went.fields, b"x-forwarded-for");
        assert_eq!(for_whom.last(), Some(&&b"192.0.2.7"[..]), "{}", story());
        assert!(extended || for_whom.len() == 1, "a stranger's claim passed: {}", story());
        assert_eq!(strict::all(&went.fields, b"x-request-id").len(), 1, "{}", story());
        back = &back[head.length + went_body.length..];
    }
    assert!(back.is_empty(), "more went on than came: {} as {}", show(data), show(&written));
}

// What the oracles share.

/// In pieces of so many bytes heads come.
const CUTS: [usize; 3] = [1, 3, 16];

/// Where the head ends, found at once and found in pieces, which must be the same.
fn scan(data: &[u8], fresh: HeadScan, cuts: &[usize]) -> Result<Option<usize>, Flaw> {
    let whole = fresh.clone().advance(data);
    for &step in cuts {
        let mut again = fresh.clone();
        let mut outcome = Ok(None);
        let mut so_far = 0;
        while outcome == Ok(None) && so_far < data.len() {
            so_far = (so_far + step).min(data.len());
            outcome = again.advance(&data[..so_far]);
        }
        assert_eq!(outcome, whole, "in pieces of {step}: {}", show(data));
    }
    let _ = refuse_early(data, LIMITS);
    whole
}

/// The end of the head, if both readers see one; a panic if only one does, or another.
fn same_end(
    data: &[u8],
    first: Result<Option<usize>, Flaw>,
    second: &Read<strict::Head<'_>>,
    skipped: usize,
) -> Option<usize> {
    match (first, second) {
        (Ok(Some(end)), Read::Whole(head)) => {
            assert_eq!(end, head.length + skipped, "{}", show(data));
            Some(end)
        }
        (Ok(None), Read::Half) | (Err(_), Read::Bad(_)) => None,
        (first, second) => panic!("{first:?}, but {second:?}: {}", show(data)),
    }
}

fn judge_request(head: &[u8], second: Result<strict::Request, &'static str>) {
    let mut table = FieldTable::default();
    match (Request::read(head, &mut table, LIMITS), second) {
        (Err(_), Err(_)) => {}
        (Ok(first), Ok(second)) => {
            assert_eq!(first.method.as_bytes(), second.method, "{}", show(head));
            assert_eq!(framing_of(first.framing), second.framing, "{}", show(head));
            assert_eq!(first.version == Version::Http10, second.minor == 0, "{}", show(head));
        }
        (first, second) => panic!("{first:?}, but {second:?}: {}", show(head)),
    }
}

/// What goes on of a response is one response, and means what came.
fn response_goes_on(first: &Response<'_, '_>, came: &strict::Response, to_head: bool, data: &[u8]) {
    for (version, persistence) in [(Version::Http11, Persistence::Stays), (Version::Http10, Persistence::Closes)] {
        let answer = Answer { version, persistence, date: "a fine day", via: true, cookie: None };
        let mut written = Vec::new();
        if first.is_interim() {
            forward_interim(first, true, &mut written);
        } else {
            forward_response(first, &answer, &mut written);
        }
        let story = || format!("{} as {}", show(data), show(&written));
        let Read::Whole(head) = strict::head(&written) else { panic!("no head: {}", story()) };
        assert_eq!(head.length, written.len(), "more than a head: {}", story());
        let went = strict::response(&head, to_head, false).unwrap_or_else(|why| panic!("{why}: {}", story()));
        assert_eq!((went.status, went.minor, &went.reason), (came.status, 1, &came.reason), "{}", story());
        let expected = match Endings::of(first.framing, version) {
            Endings::AsItCame => came.framing,
            Endings::Chunks => Framing::Chunked,
            Endings::Close => Framing::UntilClose,
        };
        assert_eq!(went.framing, expected, "{}", story());
        let mended = |fields: &[strict::Field]| -> Vec<strict::Field> {
            let fields = plain(fields).into_iter().chain(twins(fields));
            fields.collect()
        };
        assert_eq!(mended(&went.fields), mended(&came.fields), "{}", story());
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Decoded {
    data: Vec<u8>,
    trailers: Vec<u8>,
    used: usize,
    ended: bool,
}

/// What the decoder makes of these bytes, in pieces of so many.
fn decode(bytes: &[u8], step: usize) -> Result<Decoded, Flaw> {
    let mut decoder = ChunkDecoder::new(1 << 20);
    let mut whole = Decoded { data: Vec::new(), trailers: Vec::new(), used: 0, ended: false };
    for piece in bytes.chunks(step) {
        let mut piece = piece.to_vec();
        let decoded = decoder.decode(&mut piece)?;
        assert!(decoded.data.end <= decoded.used && decoded.used <= piece.len(), "{decoded:?}: {}", show(bytes));
        assert!(decoded.ended || decoded.used == piece.len(), "bytes left over: {}", show(bytes));
        whole.data.extend_from_slice(&piece[decoded.data]);
        whole.used += decoded.used;
        if decoded.ended {
            whole.ended = true;
            break;
        }
    }
    whole.trailers = decoder.trailers().to_vec();
    Ok(whole)
}

/// The body as it goes on, in two chunks if it is long enough for two.
fn encode(decoded: &Decoded, named: &[Box<str>]) -> Vec<u8> {
    let mut written = Vec::new();
    let (a, b) = decoded.data.split_at(decoded.data.len() / 3);
    for data in [a, b].into_iter().filter(|data| !data.is_empty()) {
        let mut room = [0; CHUNK_HEAD_ROOM];
        written.extend_from_slice(write_chunk_head(data.len(), &mut room));
        written.extend_from_slice(data);
        written.extend_from_slice(CHUNK_TAIL);
    }
    written.extend_from_slice(LAST_CHUNK);
    if forward_trailers(&decoded.trailers, named, &mut written).is_err() {
        written.extend_from_slice(b"\r\n");
    }
    written
}

/// How many fields a third reader finds in a head.
fn others_count(head: &[u8]) -> Option<usize> {
    let mut room = vec![httparse::EMPTY_HEADER; 1 << 12];
    let mut request = httparse::Request::new(&mut room);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => Some(request.headers.len()),
        Ok(_) | Err(_) => None,
    }
}

/// The fields that nobody on the way has a say in, in their order: neither of this hop nor ours, nor named by Connection.
fn plain(fields: &[strict::Field]) -> Vec<strict::Field> {
    let named = strict::members(fields, b"connection");
    let passes = |(name, _): &&strict::Field| {
        !named.iter().any(|named| named.eq_ignore_ascii_case(name)) && !is_special(name) && !is_twin(name)
    };
    fields.iter().filter(passes).cloned().collect()
}

/// The fields that CGI would take for special ones.
fn twins(fields: &[strict::Field]) -> Vec<strict::Field> {
    let named = strict::members(fields, b"connection");
    let is_named = |name: &[u8]| named.iter().any(|named| named.eq_ignore_ascii_case(name));
    fields.iter().filter(|field| is_twin(&field.0) && !is_named(&field.0)).cloned().collect()
}

const SPECIAL: [&str; 22] = [
    "close", // reserved in the registry of field names: wherever a connection is closed, Connection names it
    "connection",
    "content-length",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

fn is_special(name: &[u8]) -> bool {
    SPECIAL.iter().any(|special| name.eq_ignore_ascii_case(special.as_bytes()))
}

/// As CGI makes variables of names: upper case, and `_` for all that is neither a letter nor a digit.
fn is_twin(name: &[u8]) -> bool {
    let variable = |name: &[u8]| -> Vec<u8> {
        let one = |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_uppercase() } else { b'_' };
        name.iter().map(one).collect()
    };
    !is_special(name) && SPECIAL.iter().any(|special| variable(special.as_bytes()) == variable(name))
}

/// Whether a trailer of this name would steer somebody.
fn steers(name: &[u8]) -> bool {
    let others =
        ["authorization", "cookie", "set-cookie", "content-type", "content-encoding", "content-range", "range"];
    is_special(name) || is_twin(name) || others.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

fn framing_of(framing: BodyFraming) -> Framing {
    match framing {
        BodyFraming::None => Framing::None,
        BodyFraming::Length(length) => Framing::Length(length),
        BodyFraming::Chunked => Framing::Chunked,
        BodyFraming::UntilClose => Framing::UntilClose,
    }
}

fn show(bytes: &[u8]) -> String {
    format!("b\"{}\"", bytes.escape_ascii())
}

//! What holds for messages that nobody thought of: generated ones, and valid ones with damage done to them.

use super::chunked::decode;
use super::*;
use crate::http::{BodyFraming, CHUNK_HEAD_ROOM, CHUNK_TAIL, ChunkDecoder, Endings, LAST_CHUNK, MaxForwards};
use crate::http::{refuse_early, write_chunk_head};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A head may grow by what we add to it.
const ROOMY: Limits = Limits { head_bytes: 64 * 1024, target_bytes: 16 * 1024, fields: 200 };

/// Bytes that mean something somewhere in a message, for generating them and for damaging them.
const SNIPPETS: [&[u8]; 40] = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b": ",
    b",",
    b";",
    b"=",
    b"\"",
    b"\\",
    b"\0",
    b"\x7f",
    b"\xff",
    b"0",
    b"5",
    b"a",
    b"F",
    b"+5",
    b"0x5",
    b"00000000",
    b"ffffffffffffffff",
    b"/",
    b"*",
    b"?",
    b"#",
    b"http://b",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"chunked",
    b"close",
    b"Host: b\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close, x\r\n",
    b"Upgrade: websocket\r\n",
    b"\r\n ",
    b"X: y\r\n",
];

/// Field lines that do something to a request or a response, and are fine by themselves.
const LINES: [&str; 48] = [
    "X: y",
    "x:z",
    "A: b: c\t",
    "Accept: */*",
    "Cookie: a=b; c=d",
    "Set-Cookie: a=b",
    "Authorization: Basic YTpi",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: upgrade",
    "Connection: upgrade, x",
    "Connection: X , te",
    "Connection: cookie,accept",
    "Connection: date",
    "Connection: x-forwarded-for, via, x-request-id",
    "Connection: max-forwards, trailer, expect",
    "Connection: ,,",
    "Keep-Alive: timeout=5, max=10",
    "Proxy-Connection: keep-alive",
    "Proxy-Authorization: x",
    "Proxy-Authenticate: x",
    "TE: trailers",
    "TE: gzip;q=0.5, trailers",
    "Trailer: X-Sum",
    "Upgrade: websocket",
    "Upgrade: h2c, a/1",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMA",
    "Expect: 100-continue",
    "Max-Forwards: 0",
    "Max-Forwards: 7",
    "Max-Forwards: x",
    "Via: 1.0 a, 1.1 threadbare",
    "Via: 1.1 threadbare",
    "X-Forwarded-For: 198.51.100.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: b",
    "Forwarded: for=_a;proto=https",
    "X-Request-Id: abc",
    "X-Request-Id: a b",
    "Date: Sun, 06 Nov 1994 08:49:37 GMT",
    "traceparent: 00-x",
    "X-Empty:",
    "X-Obs: \u{e4}\u{fc}",
    "Content_Length: 7",
    "Connection: authorizations",
    "X-Forwarded-For:",
    "Forwarded: ,",
];

/// The same for those that frame a body, of which a message has one at most.
const FRAMINGS: [&str; 10] = [
    "",
    "",
    "Content-Length: 0\r\n",
    "Content-Length: 5\r\n",
    "content-length: 005\r\nContent-Length: 5\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: 18446744073709551615\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding: CHUNKED\r\n",
    "Transfer-Encoding:\tchunked \r\n",
];

/// Lines that should be refused, or mended.
const FAULTY: [&str; 12] = [
    "Content-Length: +5",
    "Content-Length: 7",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding:",
    "Connection: host",
    "Expect: x",
    "Host: c",
    "Content-Length : 5",
    "X: folded\r\n value",
    "Connection: a,\r\n x",
    " X: y",
];

fn lines() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        24 => select(&LINES[..]).prop_map(str::to_owned),
        4 => "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}:[ \t]{0,2}[ -~]{0,12}",
        1 => select(&FAULTY[..]).prop_map(str::to_owned),
    ];
    vec(line, 0..6).prop_map(|lines| lines.iter().map(|line| format!("{line}\r\n")).collect())
}

fn request_head() -> impl Strategy<Value = Vec<u8>> {
    let method = prop_oneof![
        4 => select(vec!["GET", "HEAD", "POST", "OPTIONS", "TRACE", "PUT", "X"]).prop_map(str::to_owned),
        1 => "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}",
    ];
    let target = prop_oneof![
        8 => select(vec!["/", "/a?b", "//a/../b", "http://b", "http://b:80?q", "http://b/x", "HTTP://[::1]/"])
            .prop_map(str::to_owned),
        2 => "/[!-~]{0,12}",
        1 => Just("*".to_owned()),
    ];
    let version = select(vec!["1.1", "1.1", "1.1", "1.0", "1.5"]);
    let host = prop_oneof![9 => select(vec!["Host: a\r\n", "host:a.b:80\r\n", "Host:\r\n"]), 1 => Just("")];
    let framing = select(&FRAMINGS[..]);
    (method, target, version, lines(), host, framing, lines()).prop_map(
        |(method, target, version, before, host, framing, behind)| {
            format!("{method} {target} HTTP/{version}\r\n{before}{host}{framing}{behind}\r\n").into_bytes()
        },
    )
}

fn response_head() -> impl Strategy<Value = Vec<u8>> {
    let version = select(vec!["1.1", "1.1", "1.0"]);
    let status = prop_oneof![select(vec![100_u16, 101, 103, 200, 200, 204, 304, 404, 426]), 100..600_u16];
    let reason = prop_oneof![Just(String::new()), Just(" ".to_owned()), " [ -~\u{e4}\t]{1,12}"];
    (version, status, reason, lines(), select(&FRAMINGS[..]), lines()).prop_map(
        |(version, status, reason, before, framing, behind)| {
            format!("HTTP/{version} {status}{reason}\r\n{before}{framing}{behind}\r\n").into_bytes()
        },
    )
}

fn chunked_body() -> impl Strategy<Value = Vec<u8>> {
    let extension =
        prop_oneof![9 => select(vec!["", ";a", ";a=b", " ; a = \"b\\\" c\""]), 1 => select(vec![";", ";a=\""])];
    let chunk = (extension, vec(any::<u8>(), 0..12)).prop_map(|(extension, data)| {
        if data.is_empty() {
            Vec::new()
        } else {
            [format!("{:X}{extension}\r\n", data.len()).as_bytes(), &data, b"\r\n"].concat()
        }
    });
    (vec(chunk, 0..5), select(vec!["0", "00", "0;a"]), prop_oneof![3 => Just(String::new()), 1 => lines()]).prop_map(
        |(chunks, last, trailers)| [&chunks.concat()[..], format!("{last}\r\n{trailers}\r\n").as_bytes()].concat(),
    )
}

/// Damage, half of the time: at some places some bytes are taken out and a snippet is put in.
fn damaged(intact: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let wound = (any::<Index>(), 0..4_usize, select(&SNIPPETS[..]));
    (intact, prop_oneof![Just(Vec::new()), vec(wound, 1..4)]).prop_map(|(mut bytes, wounds)| {
        for (place, taken, put) in wounds {
            let from = place.index(bytes.len() + 1);
            let to = (from + taken).min(bytes.len());
            bytes.splice(from..to, put.iter().copied());
        }
        bytes
    })
}

/// Anything at all, made of bytes that mean something or of bytes that don't.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let snippet = prop_oneof![3 => select(&SNIPPETS[..]).prop_map(<[u8]>::to_vec), 1 => vec(any::<u8>(), 0..8)];
    vec(snippet, 0..24).prop_map(|snippets| snippets.concat())
}

/// Cuts bytes at these places.
fn cut<'b>(bytes: &'b [u8], cuts: &[Index]) -> Vec<&'b [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// A head read in any way that it may be read in; the point is that none of them panics.
fn read_in_every_way(bytes: &[u8]) {
    for mut scan in [HeadScan::of_request(), HeadScan::strict()] {
        let end = scan.advance(bytes);
        let _ = refuse_early(bytes, LIMITS);
        let Ok(Some(end)) = end else { continue };
        let head = &bytes[..end];
        let mut out = Vec::new();
        if let Ok(request) = Request::read(head, &mut FieldTable::default(), LIMITS) {
            for sender in [&STRANGER, &PROXY_OF_OURS] {
                out.extend(joined(&forward_request(&request, sender), "/b", "backend:81"));
            }
            let _ = (request.connection_named(), request.offered_protocols().count());
        }
        for to_head in [false, true] {
            if let Ok(response) = Response::read(head, &mut FieldTable::default(), to_head) {
                forward_response(&response, &TO_1_0, &mut out);
                forward_interim(&response, true, &mut out);
                let _ = response.switches_to_one_of(&["a".into()]);
            }
        }
    }
    let _ = crate::http::forward_trailers(bytes, &["x".into()], &mut Vec::new());
}

/// A head split by the simplest means there are: lines at CRLF, names at the first colon.
fn split_plainly(head: &[u8]) -> Vec<(String, String)> {
    let text = text_of(head.to_vec());
    let text = text.strip_prefix("\r\n").unwrap_or(&text); // the empty line that may stand before a request
    let lines = text.strip_suffix("\r\n\r\n").unwrap().split("\r\n").skip(1);
    let fields = lines.map(|line| line.split_once(':').unwrap_or_else(|| panic!("no colon in {line:?}")));
    fields.map(|(name, value)| (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())).collect()
}

/// Everything in a request that somebody behind us could take in another way.
type Meaning = (String, String, Option<String>, BodyFraming, bool, bool, bool, Option<String>);

fn meaning(request: &Request<'_, '_>) -> Meaning {
    let target = format!("{}{}", request.target.lead, request.target.path);
    let takes_trailers = request.takes_trailers && request.version == Version::Http11;
    let authority = request.authority.map(str::to_owned);
    let id = request.id.map(str::to_owned);
    let (expects, upgrades) = (request.expects_continue, request.upgrades);
    (request.method.to_owned(), target, authority, request.framing, expects, upgrades, takes_trailers, id)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn however_a_head_is_cut_the_scan_finds_the_same(
        bytes in prop_oneof![damaged(request_head()), damaged(response_head()), anything()],
        cuts in vec(any::<Index>(), 0..8),
        of_request in any::<bool>(),
    ) {
        let fresh = || if of_request { HeadScan::of_request() } else { HeadScan::strict() };
        let expected = fresh().advance(&bytes);
        let mut scan = fresh();
        let mut verdict = Ok(None);
        let mut so_far = 0;
        for piece in cut(&bytes, &cuts) {
            so_far += piece.len();
            verdict = scan.advance(&bytes[..so_far]);
            if verdict != Ok(None) {
                break;
            }
        }
        prop_assert_eq!(verdict, expected, "{}", show(&bytes));
    }

    #[test]
    fn however_a_chunked_body_is_cut_it_decodes_to_the_same(
        bytes in prop_oneof![chunked_body(), damaged(chunked_body()), anything()],
        cuts in vec(any::<Index>(), 0..8),
    ) {
        let whole = decode([&bytes[..]]);
        prop_assert_eq!(decode(cut(&bytes, &cuts)), whole.clone(), "{}", show(&bytes));
        prop_assert_eq!(decode(bytes.chunks(1)), whole, "{}", show(&bytes));
    }

    #[test]
    fn what_is_written_in_chunks_is_read_as_it_was(
        pieces in vec(vec(any::<u8>(), 1..300), 0..6),
        trailers in prop_oneof![Just("\r\n".to_owned()), "(X-[a-z]: [!-~]{0,9}\r\n){1,3}\r\n"],
        behind in anything(),
        cuts in vec(any::<Index>(), 0..8),
    ) {
        let mut written = Vec::new();
        for piece in &pieces {
            let mut room = [0; CHUNK_HEAD_ROOM];
            written.extend_from_slice(write_chunk_head(piece.len(), &mut room));
            written.extend_from_slice(piece);
            written.extend_from_slice(CHUNK_TAIL);
        }
        written.extend_from_slice(LAST_CHUNK);
        written.extend_from_slice(trailers.as_bytes());
        let end = written.len();
        written.extend(behind);
        let section = if trailers == "\r\n" { Vec::new() } else { trailers.into_bytes() };
        prop_assert_eq!(decode(cut(&written, &cuts)), Ok(((pieces.concat(), end, true), section)), "{}", show(&written));
    }

    #[test]
    fn a_cut_body_never_counts_as_ended(body in chunked_body(), place in any::<Index>()) {
        if let Ok(((_, used, true), _)) = decode([&body[..]]) {
            let short = &body[..place.index(used)];
            prop_assert!(matches!(decode([short]), Ok(((_, _, false), _))), "{}", show(short));
        }
    }

    #[test]
    fn no_bytes_make_anything_panic(
        bytes in prop_oneof![damaged(request_head()), damaged(response_head()), anything(), vec(any::<u8>(), 0..200)],
        limit in 0..40_usize,
    ) {
        read_in_every_way(&bytes);
        let mut decoder = ChunkDecoder::new(limit);
        let mut pieces = bytes.chunks(7).map(<[u8]>::to_vec);
        while pieces.next().is_some_and(|mut piece| decoder.decode(&mut piece).is_ok()) {}
    }

    #[test]
    fn a_request_that_passes_has_the_fields_that_anybody_would_see(head in damaged(request_head())) {
        let mut scan = HeadScan::of_request();
        let Ok(Some(end)) = scan.advance(&head) else { return Ok(()) };
        let mut table = FieldTable::default();
        let Ok(request) = Request::read(&head[..end], &mut table, LIMITS) else { return Ok(()) };
        let seen: Vec<_> =
            request.fields.iter().map(|field| (field.name.to_owned(), text_of(field.value.to_vec()))).collect();
        prop_assert_eq!(seen, split_plainly(&head[..end]), "{}", show(&head));
    }

    #[test]
    fn what_goes_on_of_a_request_is_one_request_with_the_same_meaning(
        head in damaged(request_head()),
        extended in any::<bool>(),
        via in any::<bool>(),
        prefix in select(vec!["", "/b", "/b/c"]),
    ) {
        let mut scan = HeadScan::of_request();
        let Ok(Some(end)) = scan.advance(&head) else { return Ok(()) };
        let mut table = FieldTable::default();
        let Ok(request) = Request::read(&head[..end], &mut table, LIMITS) else { return Ok(()) };
        let sender = Sender { via, ..if extended { PROXY_OF_OURS } else { STRANGER } };
        let named = request.connection_named();
        let written = joined(&forward_request(&request, &sender), prefix, "backend:81");

        let mut expected = meaning(&request);
        if !request.target.is_asterisk {
            expected.1.insert_str(0, prefix);
        }
        expected.2.get_or_insert_with(|| "backend:81".to_owned());
        expected.7.get_or_insert_with(|| "fresh".to_owned());
        let names_expect = named.iter().any(|name| name.eq_ignore_ascii_case("expect"));
        expected.4 &= !names_expect; // it was a word between the client and us
        let left = request.max_forwards.filter(|_| !named.iter().any(|name| name.eq_ignore_ascii_case("max-forwards")));

        let mut scan = HeadScan::of_request();
        prop_assert_eq!(scan.advance(&written), Ok(Some(written.len())), "{} as {}", show(&head), show(&written));
        prop_assert!(!written.starts_with(b"\r\n"));
        let mut table = FieldTable::default();
        let again = match Request::read(&written, &mut table, ROOMY) {
            Err(Flaw::Loop) if via => return Ok(()),
            again => again.unwrap_or_else(|flaw| panic!("{flaw:?}: {} as {}", show(&head), show(&written))),
        };
        prop_assert_eq!(meaning(&again), expected, "{} as {}", show(&head), show(&written));
        prop_assert_eq!(again.version, Version::Http11);
        prop_assert!(!again.options.close && !again.options.keep_alive && !again.options.names_fields);
        if let Some(MaxForwards::Left(left)) = left {
            let expected = left.checked_sub(1).map_or(MaxForwards::AnswerHere, MaxForwards::Left);
            prop_assert_eq!(again.max_forwards, Some(expected), "{}", show(&head));
        }
        // No more fields than they seem to be, and none that ends here or that Connection named.
        let seen = split_plainly(&written);
        prop_assert_eq!(seen.len(), again.fields.len(), "{}", show(&written));
        let hop_by_hop = ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "http2-settings"];
        let ours = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-request-id", "via", "te", "upgrade", "connection"];
        for (name, _) in &seen {
            let name = name.to_ascii_lowercase();
            prop_assert!(!hop_by_hop.contains(&&*name), "{} as {}", show(&head), show(&written));
            let is_named = named.iter().any(|named| named.eq_ignore_ascii_case(&name));
            prop_assert!(!is_named || ours.contains(&&*name), "{} as {}", show(&head), show(&written));
        }
        let lengths = seen.iter().filter(|field| field.0.eq_ignore_ascii_case("content-length")).count();
        let codings = seen.iter().filter(|field| field.0.eq_ignore_ascii_case("transfer-encoding")).count();
        prop_assert!(lengths + codings <= 1, "{}", show(&written));
    }

    #[test]
    fn what_went_on_once_goes_on_unchanged(head in request_head()) {
        let sender = Sender { via: false, ..STRANGER };
        let on = |head: &[u8]| with_request(head, |verdict| {
            let request = verdict.ok()?;
            // Max-Forwards is meant to change, and a Connection that names it or Expect makes a difference once.
            Some(joined(&forward_request(&request, &sender), "", "backend:81")).filter(|_| request.max_forwards.is_none())
        });
        if let Some(once) = on(&head) {
            let twice = on(&once).unwrap_or_else(|| panic!("{} as {}", show(&head), show(&once)));
            // A Host that the client did not give is a claim of the client's from the second time on.
            if with_request(&head, |request| request.unwrap().authority.is_some()) {
                prop_assert_eq!(show(&twice), show(&once), "{}", show(&head));
            }
        }
    }

    #[test]
    fn what_goes_on_of_a_response_is_one_response_with_the_same_meaning(
        head in damaged(response_head()),
        to_head in any::<bool>(),
        answer in select(vec![TO_1_1, TO_1_0, Answer { persistence: Persistence::StaysByRequest, ..TO_1_0 }]),
    ) {
        let mut scan = HeadScan::strict();
        let Ok(Some(end)) = scan.advance(&head) else { return Ok(()) };
        let mut table = FieldTable::default();
        let Ok(response) = Response::read(&head[..end], &mut table, to_head) else { return Ok(()) };
        let mut written = Vec::new();
        if response.is_interim() {
            forward_interim(&response, answer.via, &mut written);
        } else {
            forward_response(&response, &answer, &mut written);
        }

        let mut scan = HeadScan::strict();
        prop_assert_eq!(scan.advance(&written), Ok(Some(written.len())), "{} as {}", show(&head), show(&written));
        let mut table = FieldTable::default();
        let again = Response::read(&written, &mut table, to_head)
            .unwrap_or_else(|flaw| panic!("{flaw:?}: {} as {}", show(&head), show(&written)));
        let expected = match Endings::of(response.framing, answer.version) {
            Endings::AsItCame => response.framing,
            Endings::Chunks => BodyFraming::Chunked,
            Endings::Close => BodyFraming::UntilClose,
        };
        prop_assert_eq!((again.status, again.framing), (response.status, expected), "{} as {}", show(&head), show(&written));
        prop_assert_eq!(again.reason.unwrap_or_default(), response.reason.unwrap_or_default());
        prop_assert_eq!(again.length, response.length, "{} as {}", show(&head), show(&written));
        prop_assert_eq!(again.version, Version::Http11);
        if !response.is_interim() {
            prop_assert!(again.has_date(), "{} as {}", show(&head), show(&written));
            prop_assert_eq!(again.options.close, answer.persistence == Persistence::Closes);
        }
        // Whatever was mended stays mended: a strict reader sees the same fields.
        prop_assert_eq!(split_plainly(&written).len(), again.fields.len(), "{} as {}", show(&head), show(&written));
        let lengths = again.fields.iter().filter(|field| field.name.eq_ignore_ascii_case("content-length")).count();
        let codings = again.fields.iter().filter(|field| field.name.eq_ignore_ascii_case("transfer-encoding")).count();
        prop_assert!(lengths + codings <= 1, "{} as {}", show(&head), show(&written));
    }
}

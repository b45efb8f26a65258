//! The PROXY protocol: what a header says, what is none, that it does not matter how the bytes are cut, and who is heard
//! on a listener that expects one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use program::Program;
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use support::{Backend, Client, End, TempFile, each, eventually};
use threadbare::net::proxy_protocol::{LONGEST, Parsed, parse};
use threadbare::{Balancer, Config};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A version 2 header.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, block].concat()
}

fn v4_block() -> Vec<u8> {
    [&[192, 0, 2, 1][..], &[198, 51, 100, 1], &[0xdc, 0x04], &[0x01, 0xbb]].concat()
}

fn v6_block() -> Vec<u8> {
    let mut block = vec![0x20, 0x01, 0x0d, 0xb8];
    block.extend([0; 11]);
    block.push(1);
    block.extend([0xff; 16]);
    block.extend([0xdc, 0x04, 0x01, 0xbb]);
    block
}

fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(91));
    assert_eq!(longest.len(), 107);
    let with_values = |block: Vec<u8>| [block, vec![0x04, 0, 3, 1, 2, 3]].concat();
    vec![
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".into(), Some("192.0.2.1:56324")),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".into(), Some("255.255.255.255:65535")),
        (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".into(), Some("0.0.0.0:0")),
        (b"PROXY TCP6 2001:db8::1 ::1 56324 443\r\n".into(), Some("[2001:db8::1]:56324")),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n".into(), Some("[::ffff:192.0.2.1]:1")),
        (b"PROXY UNKNOWN\r\n".into(), None),
        (b"PROXY UNKNOWN whatever \xc3\xa4 it says\r\n".into(), None),
        (longest.into(), None),
        (v2(0x21, 0x11, &v4_block()), Some("192.0.2.1:56324")),
        (v2(0x21, 0x21, &v6_block()), Some("[2001:db8::1]:56324")),
        (v2(0x21, 0x11, &with_values(v4_block())), Some("192.0.2.1:56324")),
        (v2(0x21, 0x21, &with_values(v6_block())), Some("[2001:db8::1]:56324")),
        (v2(0x21, 0x00, &[]), None),
        (v2(0x21, 0x00, b"of no meaning"), None),
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0x11, &v4_block()), None),
        (v2(0x20, 0x77, &[]), None),
        (v2(0x20, 0x00, &[0; 4096]), None),
    ]
}

#[test]
fn a_good_header_says_who_the_client_is_and_where_it_ends() {
    for (header, source) in good() {
        let shown = String::from_utf8_lossy(&header).into_owned();
        let expected = Parsed::Header { source: source.map(|text| text.parse().unwrap()), length: header.len() };
        for rest in ["", "GET / HTTP/1.1\r\n", "PROXY ", "\r\n"] {
            let bytes = [&header[..], rest.as_bytes()].concat();
            assert_eq!(parse(&bytes), Ok(expected), "{shown:?} before {rest:?}");
        }
        for cut in 0..header.len() {
            assert_eq!(parse(&header[..cut]), Ok(Parsed::Incomplete), "the first {cut} bytes of {shown:?}");
        }
        assert!(header.len() <= LONGEST);
    }
}

fn bad() -> Vec<(Vec<u8>, &'static str)> {
    let none = "no PROXY header";
    let ending = "the PROXY line does not end in CR LF";
    let words = "the PROXY line has not two addresses and two ports";
    let address = "the PROXY line has an address that is none of its family";
    let port = "the PROXY line has a port that is none";
    let family = "the PROXY line is of no known family";
    let command = "the PROXY header is of no known version and command";
    let family_2 = "the PROXY header is of no known family";
    let short = "the PROXY header is too short for its addresses";
    vec![
        (b"GET / HTTP/1.1\r\n".into(), none),
        (b"POST / HTTP/1.1\r\n".into(), none),
        (b"PRI * HTTP/2.0\r\n".into(), none),
        (b"proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n".into(), none),
        (b" PROXY UNKNOWN\r\n".into(), none),
        (b"PROXY\tUNKNOWN\r\n".into(), none),
        (b"PROXY\r\n".into(), none),
        (b"\x16\x03\x01".into(), none),
        (b"\r\nPROXY UNKNOWN\r\n".into(), none),
        (b"\r\n\r\n\0\r\nQUIT\r".into(), none),
        (b"PROXY UNKNOWN\n".into(), ending),
        (b"PROXY UNKNOWN\r\r\n".into(), ending),
        (b"PROXY TCP4 192.0.2.1\r 198.51.100.1 1 2\r\n".into(), ending),
        (b"PROXY \r\n".into(), words),
        (b"PROXY TCP4\r\n".into(), words),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n".into(), words),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n".into(), words),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2 \r\n".into(), words),
        (b"PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n".into(), words),
        (b"PROXY TCP5 192.0.2.1 198.51.100.1 1 2\r\n".into(), family),
        (b"PROXY tcp4 192.0.2.1 198.51.100.1 1 2\r\n".into(), family),
        (b"PROXY UNKNOWNS 192.0.2.1 198.51.100.1 1 2\r\n".into(), family),
        (b"PROXY TCP4 2001:db8::1 198.51.100.1 1 2\r\n".into(), address),
        (b"PROXY TCP4 192.0.2.1 2001:db8::1 1 2\r\n".into(), address),
        (b"PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n".into(), address),
        (b"PROXY TCP4 192.0.02.1 198.51.100.1 1 2\r\n".into(), address),
        (b"PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n".into(), address),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n".into(), address),
        (b"PROXY TCP6 [::1] [::1] 1 2\r\n".into(), address),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 2\r\n".into(), port),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n".into(), port),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n".into(), port),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n".into(), port),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 -1 2\r\n".into(), port),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1  2\r\n".into(), port),
        (b"PROXY TCP4 \xff\xff 198.51.100.1 1 2\r\n".into(), "the PROXY line is not text"),
        (format!("PROXY UNKNOWN {}\r\n", "f".repeat(92)).into(), "the PROXY line is too long"),
        (format!("PROXY UNKNOWN {}\n", "f".repeat(1000)).into(), "the PROXY line is too long"),
        (v2(0x11, 0x11, &v4_block()), command),
        (v2(0x31, 0x11, &v4_block()), command),
        (v2(0x22, 0x11, &v4_block()), command),
        (v2(0x01, 0x11, &v4_block()), command),
        (v2(0x21, 0x12, &v4_block()), family_2),
        (v2(0x21, 0x10, &v4_block()), family_2),
        (v2(0x21, 0x01, &v4_block()), family_2),
        (v2(0x21, 0x22, &v6_block()), family_2),
        (v2(0x21, 0x31, &[0; 216]), family_2),
        (v2(0x21, 0x41, &[0; 36]), family_2),
        (v2(0x21, 0x11, &v4_block()[..11]), short),
        (v2(0x21, 0x21, &v6_block()[..35]), short),
        (v2(0x21, 0x11, &[]), short),
        (v2(0x21, 0x11, &[0; 4097]), "the PROXY header is too long"),
        (v2(0x20, 0x00, &[0; 4097]), "the PROXY header is too long"),
    ]
}

#[test]
fn a_bad_header_is_refused_with_its_reason() {
    for (header, reason) in bad() {
        assert_eq!(parse(&header), Err(reason), "{:?}", String::from_utf8_lossy(&header));
    }
}

#[test]
fn what_is_refused_stays_refused_for_the_same_reason() {
    for (header, reason) in bad() {
        for cut in 0..header.len() {
            let said = parse(&header[..cut]);
            let shown = String::from_utf8_lossy(&header);
            assert!(said == Ok(Parsed::Incomplete) || said == Err(reason), "{said:?} after {cut} bytes of {shown:?}");
        }
    }
}

#[test]
fn nobody_can_keep_us_reading_for_ever() {
    let endless = [&b"PROXY UNKNOWN "[..], &[b'f'; 93]].concat();
    assert!(parse(&endless).is_err(), "a line of 107 bytes without an end");
    for first in 0..=u8::MAX {
        for rest in [0x00, 0x21, 0xff] {
            let bytes = [&[first][..], &[rest; LONGEST - 1]].concat();
            assert_ne!(parse(&bytes), Ok(Parsed::Incomplete), "{first:#x} {rest:#x}");
        }
    }
}

/// Bytes that come close to a header.
fn near_header() -> impl Strategy<Value = Vec<u8>> {
    let mutated = (0..good().len(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(
        |(nth, place, byte, is_changed)| {
            let mut header = good().swap_remove(nth).0;
            if is_changed {
                let place = place.index(header.len());
                header[place] = byte;
            }
            header
        },
    );
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![4 => mutated, 1 => noise]
}

fn rendered(source: SocketAddr, destination: IpAddr, port: u16) -> [Vec<u8>; 2] {
    let (name, family) = if source.is_ipv4() { ("TCP4", 0x11) } else { ("TCP6", 0x21) };
    let line = format!("PROXY {name} {} {destination} {} {port}\r\n", source.ip(), source.port());
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let ports = [source.port().to_be_bytes(), port.to_be_bytes()].concat();
    [line.into(), v2(0x21, family, &[octets(source.ip()), octets(destination), ports].concat())]
}

proptest! {
    #[test]
    fn any_cut_comes_to_the_same_end(bytes in near_header()) {
        let mut last = parse(b"");
        for end in 0..=bytes.len() {
            let said = parse(&bytes[..end]);
            prop_assert!(last == Ok(Parsed::Incomplete) || said == last, "{last:?}, then {said:?} at {end}");
            if let Ok(Parsed::Header { length, .. }) = said {
                prop_assert!(length <= end);
            }
            last = said;
        }
    }

    #[test]
    fn any_client_is_read_as_it_was_written(
        pair in prop_oneof![
            (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
            (any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
        ],
        ports in any::<(u16, u16)>(),
        rest in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let source = SocketAddr::new(pair.0, ports.0);
        for header in rendered(source, pair.1, ports.1) {
            let said = parse(&[&header[..], &rest].concat());
            prop_assert_eq!(said, Ok(Parsed::Header { source: Some(source), length: header.len() }));
        }
    }
}

const PROXIES: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.0/8\"]\n";
const STRANGERS: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\nproxy_protocol_from = [\"192.0.2.0/24\"]\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const V1: &str = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";

fn config(file: &str, backends: &[&Backend], flags: &[&str]) -> Config {
    let file = TempFile::new(file);
    let urls: Vec<String> = backends.iter().map(|backend| backend.url()).collect();
    let mut words = vec!["--config", file.path(), "--access-log", "off"];
    words.extend(flags);
    words.extend(urls.iter().map(String::as_str));
    Config::from_args(words).unwrap_or_else(|error| panic!("{error}"))
}

fn balancer(file: &str, backends: &[&Backend], flags: &[&str]) -> Balancer {
    Balancer::start(config(file, backends, flags)).unwrap()
}

/// A client that has said this already.
fn saying(balancer: &Balancer, bytes: &[u8]) -> Client {
    let mut client = Client::connect(balancer.address());
    client.send(bytes);
    client
}

/// The connection ends, and not a byte came before that.
fn expect_silence(client: &mut Client) {
    let (bytes, end) = client.try_to_end();
    let is_end = matches!(end, End::Closed | End::Reset); // a reset, if something was still to be read
    assert!(bytes.is_empty() && is_end, "{end:?}, after {} bytes, in {}", bytes.len(), client.story());
}

/// Who asked, as the backend was told.
fn told(response: &support::Response) -> (String, String) {
    let text = response.text();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
    };
    (value("X-Forwarded-For: "), value("Forwarded: "))
}

#[test]
fn whom_a_header_names_is_the_client_for_the_backend() {
    let backend = Backend::echo();
    let balancer = balancer(PROXIES, &[&backend], &[]);
    each(good(), |(header, source)| {
        let mut client = saying(&balancer, &[&header[..], GET.as_bytes()].concat());
        let (list, forwarded) = told(&client.read_response("GET"));
        let peer: SocketAddr = source.map_or_else(|| client.local_address(), |source| source.parse().unwrap());
        let address = peer.ip().to_canonical();
        assert_eq!(list, address.to_string(), "a peer that is not known keeps its address: {}", client.story());
        assert!(forwarded.contains(&address.to_string()), "{forwarded}");
        // The header stands for the connection, not for its first request.
        client.send(GET.as_bytes());
        assert_eq!(told(&client.read_response("GET")).0, list);
    });
}

#[test]
fn whom_a_header_names_is_the_client_for_the_access_log() {
    let backend = Backend::answering(OK);
    let file = TempFile::new(PROXIES);
    let program = Program::listening(program::command().args(["--config", file.path(), &backend.url()]));
    let mut client = Client::connect(program.address());
    client.send(format!("{V1}{GET}").as_bytes());
    assert_eq!(client.read_response("GET").status, 200);
    client.send(b"GET / HTTP/9.9\r\n\r\n");
    client.expect_refusal(&[505]);
    for line in program.stdout.wait_for_lines(2) {
        assert!(line.contains(" 192.0.2.1:56324 "), "{line}");
    }
}

#[test]
fn whom_a_header_names_is_the_client_for_the_hash() {
    let backends = [Backend::answering(OK), Backend::answering(OK), Backend::answering(OK)];
    let balancer = balancer(PROXIES, &backends.each_ref(), &["--policy", "hash", "--hash-key", "client"]);
    let asked = || backends.each_ref().map(|backend| backend.requests().len());
    for host in 1..=20 {
        let before = asked();
        for port in [1, 2] {
            let header = format!("PROXY TCP4 192.0.2.{host} 198.51.100.1 {port} 443\r\n");
            assert_eq!(saying(&balancer, format!("{header}{GET}").as_bytes()).read_response("GET").status, 200);
            eventually(|| balancer.counters().in_flight == 0, "it is over");
        }
        let after = asked();
        let gained: Vec<usize> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
        assert!(gained.contains(&2), "host {host} went to {gained:?}");
    }
    assert!(asked().iter().all(|&count| count > 0), "they are not all the same client: {:?}", asked());
}

#[test]
fn whom_a_header_names_is_trusted_or_is_not_whoever_brought_the_header() {
    let backend = Backend::echo();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
    for (trusted, list) in [("192.0.2.1", "203.0.113.9, 192.0.2.1"), ("127.0.0.0/8", "192.0.2.1")] {
        let balancer = balancer(PROXIES, &[&backend], &["--trusted-proxy", trusted]);
        let answer = saying(&balancer, format!("{V1}{request}").as_bytes()).read_response("GET");
        assert_eq!(told(&answer).0, list, "{trusted} is trusted");
    }
}

#[test]
fn a_header_may_come_cut_at_any_byte_and_with_the_request_behind_it() {
    let backend = Backend::echo();
    let balancer = balancer(PROXIES, &[&backend], &[]);
    let headers = [V1.as_bytes().to_vec(), v2(0x21, 0x11, &[v4_block(), vec![0x04, 0, 3, 1, 2, 3]].concat())];
    each(headers, |header| {
        let whole = [&header[..], b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"].concat();
        let expect = |mut client: Client| {
            let answer = client.read_response("POST");
            assert!(answer.text().ends_with("\r\n\r\nbody"), "{answer:?}");
            assert_eq!(told(&answer).0, "192.0.2.1");
        };
        for cut in 1..=header.len() {
            let mut client = Client::connect(balancer.address());
            client.send_split(&whole, &[cut]);
            expect(client);
        }
        let mut client = Client::connect(balancer.address());
        client.send_split(&whole, &(1..whole.len()).collect::<Vec<_>>());
        expect(client);
    });
}

#[test]
fn requests_that_come_with_the_header_are_all_answered() {
    let backend = Backend::echo();
    let balancer = balancer(PROXIES, &[&backend], &[]);
    // More behind a long header than is read with it at once.
    let header = v2(0x21, 0x11, &[v4_block(), vec![0x04, 0x0f, 0xe1], vec![0; 0x0fe1]].concat());
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n{}", "x".repeat(200_000));
    let mut client = saying(&balancer, &[&header[..], request.as_bytes(), GET.as_bytes()].concat());
    assert!(client.read_response("POST").text().ends_with("xxx"));
    assert_eq!(told(&client.read_response("GET")).0, "192.0.2.1");
}

#[test]
fn a_strangers_header_is_a_bad_request() {
    let backend = Backend::echo();
    let plain = "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    for file in [plain, STRANGERS] {
        let balancer = balancer(file, &[&backend], &[]);
        for (header, _) in good() {
            let mut client = saying(&balancer, &[&header[..], GET.as_bytes()].concat());
            client.expect_refusal(&[400]);
        }
        assert_eq!(saying(&balancer, GET.as_bytes()).read_response("GET").status, 200);
    }
    assert!(backend.requests().iter().all(|request| !format!("{request:?}").contains("192.0.2.")));
}

#[test]
fn a_second_header_is_a_bad_request() {
    let backend = Backend::answering(OK);
    let balancer = balancer(PROXIES, &[&backend], &[]);
    for second in [V1.as_bytes().to_vec(), v2(0x21, 0x11, &v4_block())] {
        let mut client = saying(&balancer, &[V1.as_bytes(), &second, GET.as_bytes()].concat());
        client.expect_refusal(&[400]);
    }
    assert_eq!(backend.requests().len(), 0);
}

#[test]
fn what_should_begin_with_a_header_and_does_not_is_closed_without_a_word() {
    let backend = Backend::answering(OK);
    let balancer = balancer(PROXIES, &[&backend], &[]);
    let rows = bad().into_iter().map(|(header, _)| header).chain([GET.as_bytes().to_vec()]);
    each(rows, |header| {
        expect_silence(&mut saying(&balancer, &[&header[..], GET.as_bytes()].concat()));
    });
    eventually(|| balancer.counters().connections == 0, "all are closed");
    assert_eq!((backend.requests().len(), balancer.counters().exchanges), (0, 0));
}

#[test]
fn an_announced_length_sizes_nothing_and_is_not_waited_for() {
    let backend = Backend::answering(OK);
    let balancer = balancer(PROXIES, &[&backend], &[]);
    expect_silence(&mut saying(&balancer, &[SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat()));
    expect_silence(&mut saying(&balancer, &[b'P'; 100_000]));
}

#[test]
fn that_a_header_is_missing_is_told_but_not_for_each_connection() {
    let backend = Backend::answering(OK);
    let file = TempFile::new(PROXIES);
    let program = Program::listening(program::command().args(["--config", file.path(), &backend.url()]));
    for _ in 0..50 {
        let mut client = Client::connect(program.address());
        client.send(GET.as_bytes());
        expect_silence(&mut client);
    }
    let line = program.stderr.wait_for("which is to begin with a PROXY header: no PROXY header");
    assert!(line.contains("WARN") && line.contains(" 127.0.0.1:"), "{line}");
    assert_eq!(program.stderr.so_far().matches("PROXY header").count(), 2, "once, in one line, of fifty");
    // Somebody who looks whether the port is open is not worth a word.
    drop(Client::connect(program.address()));
}

#[test]
fn whoever_brings_no_header_or_nothing_behind_it_is_left_when_the_time_for_a_first_byte_is_over() {
    let backend = Backend::answering(OK);
    let balancer = balancer(PROXIES, &[&backend], &["--first-byte-timeout", "300ms"]);
    let beginnings = ["", "P", "PROXY TCP4 192.0.2.1 198", "\r\n\r\n\0\r\nQUIT\n", V1];
    let mut clients = beginnings.map(|beginning| saying(&balancer, beginning.as_bytes()));
    for client in &mut clients {
        expect_silence(client);
    }
    // A byte now and then does not renew it.
    let mut client = Client::connect(balancer.address());
    let mut header = format!("PROXY UNKNOWN {}", "x".repeat(80)).into_bytes().into_iter();
    while let Some(byte) = header.next()
        && client.try_send(&[byte])
    {
        std::thread::sleep(Duration::from_millis(20)); // more than a second and a half in all
    }
    let (bytes, _) = client.try_to_end();
    assert!(header.next().is_some() && bytes.is_empty(), "the whole header was waited for");
}

#[test]
fn a_crowd_in_the_middle_of_its_headers_holds_nobody_up() {
    let backend = Backend::answering(OK);
    let balancer = balancer(PROXIES, &[&backend], &["--workers", "1"]);
    let mut crowd: Vec<Client> = (0..200).map(|_| saying(&balancer, &V1.as_bytes()[..20])).collect();
    let mut client = saying(&balancer, format!("{V1}{GET}").as_bytes());
    assert_eq!(client.read_response("GET").status, 200);
    for client in &mut crowd {
        client.send(&[&V1.as_bytes()[20..], GET.as_bytes()].concat());
        assert_eq!(client.read_response("GET").status, 200);
    }
}

#[test]
fn a_reload_changes_who_brings_headers_for_connections_to_come_and_for_no_other() {
    let backend = Backend::echo();
    let balancer = balancer(PROXIES, &[&backend], &[]);
    let mut begun = saying(&balancer, &V1.as_bytes()[..10]);
    let mut known = saying(&balancer, format!("{V1}{GET}").as_bytes());
    assert_eq!(told(&known.read_response("GET")).0, "192.0.2.1");
    eventually(|| balancer.counters().parked == 2, "both are looked at, and wait");
    balancer.reload(config(STRANGERS, &[&backend], &[])).unwrap();

    let mut plain = saying(&balancer, GET.as_bytes());
    assert_eq!(told(&plain.read_response("GET")).0, "127.0.0.1");
    saying(&balancer, format!("{V1}{GET}").as_bytes()).expect_refusal(&[400]);
    begun.send(&[&V1.as_bytes()[10..], GET.as_bytes()].concat());
    for client in [&mut begun, &mut known] {
        client.send(GET.as_bytes());
        assert_eq!(told(&client.read_response("GET")).0, "192.0.2.1");
    }
    balancer.reload(config(PROXIES, &[&backend], &[])).unwrap();
    expect_silence(&mut saying(&balancer, GET.as_bytes()));
    plain.send(GET.as_bytes());
    assert_eq!(plain.read_response("GET").status, 200);
}

#[test]
fn a_drain_answers_what_was_on_its_way_behind_a_header_and_does_not_wait_for_the_rest_of_one() {
    let backend = Backend::answering(OK);
    let balancer = balancer(PROXIES, &[&backend], &["--first-byte-timeout", "60s"]);
    let mut half = saying(&balancer, &V1.as_bytes()[..20]);
    let mut late = saying(&balancer, &V1.as_bytes()[..20]);
    eventually(|| balancer.counters().parked == 2, "both wait");
    let listener = balancer.address();
    let drain = std::thread::spawn(move || balancer.drain(Duration::from_secs(30)));
    eventually(|| std::net::TcpStream::connect(listener).is_err(), "the drain has begun");
    late.send(&[&V1.as_bytes()[20..], GET.as_bytes()].concat());
    let answer = late.read_response("GET");
    assert!(answer.status == 200 && answer.closes(), "{answer:?}");
    expect_silence(&mut half);
    assert!(drain.join().unwrap(), "nothing was cut");
}

//! The PROXY protocol: what a header says, what is none, and that it does not matter how the bytes are cut.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};
use threadbare::net::proxy_protocol::{LONGEST, Parsed, parse};

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

//! What a proxy before us says of a connection's client: the PROXY protocol, versions 1 and 2.
//!
//! A header of a few bytes stands before the first byte of the client's own. Nothing here reads: bytes in, a decision
//! out, and it does not matter how the bytes were cut: a beginning is `Incomplete` or already wrong, never another
//! header. A listener expects the header or does not; guessing would let a client write its own.
//!
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// "The worst case" of the specification, with its CR LF.
const LONGEST_LINE: usize = 107;

/// What a version 2 header may hold behind its first 16 bytes: addresses, and the values that proxies add to them. More
/// than a kilobyte is seen only where certificates are passed on.
const LONGEST_BLOCK: usize = 4096;

/// The most bytes that a header may have: who has read so many knows.
pub const LONGEST: usize = FIXED + LONGEST_BLOCK;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family, length.
const FIXED: usize = 16;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header.
    Incomplete,
    /// A whole header.
    Header {
        /// The client; none if the proxy does not know it, or speaks for itself (a health check): then the peer of the
        /// connection is meant.
        source: Option<SocketAddr>,
        /// Bytes of the header; what follows is the client's.
        length: usize,
    },
}

/// Reads the header at the beginning of `bytes`.
///
/// # Errors
/// What is wrong with it, whatever follows.
pub fn parse(bytes: &[u8]) -> Result<Parsed, &'static str> {
    match bytes.first() {
        None => Ok(Parsed::Incomplete),
        Some(b'P') => text(bytes),
        Some(b'\r') => binary(bytes),
        Some(_) => Err("no PROXY header"),
    }
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443` and CR LF.
fn text(bytes: &[u8]) -> Result<Parsed, &'static str> {
    const WORD: &[u8] = b"PROXY ";
    if !begins(bytes, WORD) {
        return Err("no PROXY header");
    }
    let line = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        // The last place for a CR is the last but one.
        return if line.len() + 1 < LONGEST_LINE { Ok(Parsed::Incomplete) } else { Err("the PROXY line is too long") };
    };
    if end + 2 > LONGEST_LINE {
        return Err("the PROXY line is too long");
    }
    let (line, ending) = bytes.split_at(end);
    if !begins(ending, b"\r\n") {
        return Err("the PROXY line does not end in CR LF");
    }
    if ending.len() < 2 {
        return Ok(Parsed::Incomplete);
    }
    let words = line.get(WORD.len()..).and_then(|words| std::str::from_utf8(words).ok());
    let source = client(words.ok_or("the PROXY line is not text")?)?;
    Ok(Parsed::Header { source, length: end + 2 })
}

fn client(words: &str) -> Result<Option<SocketAddr>, &'static str> {
    let mut words = words.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(None); // "the receiver must ignore anything presented before the CRLF"
    }
    let [Some(source), Some(destination), Some(source_port), Some(destination_port), None] =
        [words.next(), words.next(), words.next(), words.next(), words.next()]
    else {
        return Err("the PROXY line has not two addresses and two ports");
    };
    let address: fn(&str) -> Option<IpAddr> = match family {
        Some("TCP4") => |word| word.parse().ok().map(IpAddr::V4),
        Some("TCP6") => |word| word.parse().ok().map(IpAddr::V6),
        Some(_) | None => return Err("the PROXY line is of no known family"),
    };
    let no_address = "the PROXY line has an address that is none of its family";
    let no_port = "the PROXY line has a port that is none";
    address(destination).ok_or(no_address)?;
    port(destination_port).ok_or(no_port)?;
    Ok(Some(SocketAddr::new(address(source).ok_or(no_address)?, port(source_port).ok_or(no_port)?)))
}

/// Digits alone, without a zero in front (`parse` would take a plus sign too).
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_plain)
}

/// Version 2: signature, version and command, family, length, addresses, values.
fn binary(bytes: &[u8]) -> Result<Parsed, &'static str> {
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    if !begins(bytes, SIGNATURE) {
        return Err("no PROXY header");
    }
    let command = bytes.get(12).copied();
    let family = bytes.get(13).copied();
    if command.is_some_and(|command| !matches!(command, LOCAL | PROXY)) {
        return Err("the PROXY header is of no known version and command");
    }
    // Unspecified, TCP over IPv4, TCP over IPv6; datagrams and Unix sockets bring no client of ours. The proxy's own
    // connections may say what they like.
    let least = match family {
        _ if command != Some(PROXY) => 0,
        None | Some(0x00) => 0,
        Some(0x11) => 12,
        Some(0x21) => 36,
        Some(_) => return Err("the PROXY header is of no known family"),
    };
    let Some((&[high, low], block)) = bytes.get(14..).and_then(|rest| rest.split_first_chunk()) else {
        return Ok(Parsed::Incomplete);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length < least {
        return Err("the PROXY header is too short for its addresses");
    }
    if length > LONGEST_BLOCK {
        return Err("the PROXY header is too long");
    }
    let Some(block) = block.get(..length) else { return Ok(Parsed::Incomplete) };
    let source = match least {
        12 => source(block, 8, |address: [u8; 4]| Ipv4Addr::from(address).into()),
        36 => source(block, 32, |address: [u8; 16]| Ipv6Addr::from(address).into()),
        _ => None,
    };
    Ok(Parsed::Header { source, length: FIXED + length })
}

/// The first address of a block, and the port that follows both.
fn source<const N: usize>(block: &[u8], port: usize, address: fn([u8; N]) -> IpAddr) -> Option<SocketAddr> {
    let from = block.first_chunk().copied().map(address)?;
    let port = block.get(port..)?.first_chunk().copied().map(u16::from_be_bytes)?;
    Some(SocketAddr::new(from, port))
}

/// Whether `bytes`, as far as they go, are `wanted`.
fn begins(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.iter().zip(wanted).all(|(byte, wanted)| byte == wanted)
}

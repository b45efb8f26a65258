//! Seeds out of the tests' own tables, and damage to them, the same for the same number.
//!
//! What a test has a row for is where the program makes a difference, so the rows are the best place to start from: the
//! literals are read off the source text, and no second list can fall behind the first.

use std::fs;
use std::path::Path;

/// What the tests' tables hold.
#[derive(Debug, Default)]
pub struct Seeds {
    /// Whole requests, or what should be.
    pub requests: Vec<Vec<u8>>,
    /// Whole responses, or what should be.
    pub responses: Vec<Vec<u8>>,
    /// Field lines, without their line ends.
    pub lines: Vec<Vec<u8>>,
    /// Chunked bodies.
    pub bodies: Vec<Vec<u8>>,
}

/// Reads the string literals of all tests below `root`, the folder of the crate.
pub fn seeds(root: &Path) -> Seeds {
    let mut seeds = Seeds::default();
    for folder in ["tests", "src/http/tests"] {
        let mut files: Vec<_> = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
            for literal in literals(&fs::read(file).unwrap()) {
                seeds.sort_in(literal);
            }
        }
    }
    seeds.requests.extend(
        seeds.lines.iter().map(|line| {
            [b"POST /a?b HTTP/1.1\r\nHost: a\r\n", &line[..], b"\r\nContent-Length: 5\r\n\r\nhello"].concat()
        }),
    );
    seeds.requests.extend(
        seeds
            .bodies
            .iter()
            .map(|body| [b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", &body[..]].concat()),
    );
    seeds.responses.extend(
        seeds
            .lines
            .iter()
            .map(|line| [b"HTTP/1.1 200 OK\r\n", &line[..], b"\r\nContent-Length: 5\r\n\r\nhello"].concat()),
    );
    seeds.responses.extend(
        seeds.bodies.iter().map(|body| [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &body[..]].concat()),
    );
    for list in [&mut seeds.requests, &mut seeds.responses, &mut seeds.lines, &mut seeds.bodies] {
        list.sort();
        list.dedup();
    }
    seeds
}

impl Seeds {
    fn sort_in(&mut self, literal: Vec<u8>) {
        let first_line = literal.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let has = |word: &[u8]| first_line.windows(word.len()).any(|window| window == word);
        let begins_as_chunk = first_line.first().is_some_and(u8::is_ascii_hexdigit);
        // What has a brace is a pattern, to be filled in by its test.
        if literal.len() < 3 || literal.len() > 2048 || literal.contains(&b'{') {
            // Nothing to begin with.
        } else if first_line.starts_with(b"HTTP/1.") {
            self.responses.push(literal);
        } else if has(b" HTTP/1.") {
            self.requests.push(literal);
        } else if begins_as_chunk && literal.ends_with(b"\r\n") {
            self.bodies.push(literal);
        } else if has(b":") && !has(b"://") {
            self.lines.push(literal.strip_suffix(b"\r\n").unwrap_or(&literal).to_vec());
        }
    }
}

/// What the string literals of this source text hold, byte strings and others.
fn literals(source: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut rest = source;
    loop {
        rest = match rest {
            [] => return found,
            [b'/', b'/', behind @ ..] => &behind[behind.iter().position(|&b| b == b'\n').unwrap_or(behind.len())..],
            [b'\'', b'\\', _, behind @ ..] | [b'\'', b'"', behind @ ..] => behind,
            [b'"', behind @ ..] => {
                let (text, length) = unescape(behind);
                found.push(text);
                &behind[length..]
            }
            [_, behind @ ..] => behind,
        }
    }
}

/// The text up to the closing quote, and how long it was with that.
fn unescape(source: &[u8]) -> (Vec<u8>, usize) {
    let mut text = Vec::new();
    let mut at = 0;
    while let Some(&byte) = source.get(at) {
        at += 1;
        if byte == b'"' {
            break;
        } else if byte != b'\\' {
            text.push(byte);
            continue;
        }
        let escaped = source.get(at).copied().unwrap_or_default();
        at += 1;
        match escaped {
            b'r' => text.push(b'\r'),
            b'n' => text.push(b'\n'),
            b't' => text.push(b'\t'),
            b'0' => text.push(0),
            b'x' => {
                let digits = String::from_utf8_lossy(source.get(at..at + 2).unwrap_or_default()).into_owned();
                text.extend(u8::from_str_radix(&digits, 16));
                at += 2;
            }
            b'u' => {
                let length = source[at..].iter().position(|&byte| byte == b'}').unwrap_or_default();
                let digits = String::from_utf8_lossy(&source[at + 1..at + length]).into_owned();
                let char = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                text.extend(char.unwrap_or_default().to_string().bytes());
                at += length + 1;
            }
            b'\n' => at += source[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count(),
            other => text.push(other),
        }
    }
    (text, at)
}

/// Numbers that look random and are the same for the same seed (xorshift64*).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall as they did the last time for this seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap_or_default() % bound
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Bytes that mean something somewhere.
pub const SNIPPETS: [&[u8]; 48] = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\r\n\r\n",
    b"\n\n",
    b" ",
    b"\t",
    b":",
    b" :",
    b",",
    b";",
    b"=",
    b"\"",
    b"\\",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b"\xa0",
    b"0",
    b"5",
    b"a",
    b"+5",
    b"0x5",
    b"-1",
    b"00000000",
    b"ffffffffffffffff",
    b"18446744073709551616",
    b"/",
    b"*",
    b"?",
    b"#",
    b"http://b",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"chunked",
    b"identity",
    b"close",
    b"\r\nHost: b",
    b"\r\nContent-Length: 5",
    b"\r\nContent-Length: 0",
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nConnection: close, x",
    b"\r\nExpect: 100-continue",
    b"\r\n ",
    b"0\r\n\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
];

/// Requests with nothing wrong: the damage alone decides.
pub const GOOD_REQUESTS: [&[u8]; 8] = [
    b"GET /a?b=c HTTP/1.1\r\nHost: a\r\nCookie: d=e\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a:80\r\nVia: 1.1 x\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /q HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"GET http://b/r HTTP/1.1\r\nHost: a\r\nConnection: x, te\r\nX: y\r\nTE: trailers\r\n\r\n",
    b"POST /s HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
    b"POST /t HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabcGET /u HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n",
];

/// Responses with nothing wrong.
pub const GOOD_RESPONSES: [&[u8]; 7] = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nX: y\r\n\r\nuntil the end",
    b"HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nX : y\r\n z\r\n\r\nhello",
    b"HTTP/1.1 204 No Content\r\nConnection: x\r\nX: y\r\n\r\n",
];

/// A case: one of the good ones or of the rows, damaged or, sometimes, as it is.
pub fn case(good: &[&[u8]], rows: &[Vec<u8>], lines: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = if dice.below(2) == 0 { dice.pick(good).to_vec() } else { dice.pick(rows).clone() };
    if dice.below(8) > 0 {
        damage(&mut bytes, lines, dice);
    }
    bytes
}

/// Does damage: at one to three places some bytes are taken out, put in, doubled, turned or swapped.
pub fn damage(bytes: &mut Vec<u8>, lines: &[Vec<u8>], dice: &mut Dice) {
    for _wound in 0..=dice.below(3) {
        let from = dice.below(bytes.len() + 1);
        let to = (from + dice.below(6)).min(bytes.len());
        match dice.below(8) {
            0 => drop(bytes.drain(from..to)),
            1 => {
                let doubled = bytes[from..to].to_vec();
                bytes.splice(from..from, doubled);
            }
            2 if from < bytes.len() => bytes[from] ^= 1 << dice.below(8),
            3 if from < bytes.len() => bytes[from] = u8::try_from(dice.below(256)).unwrap_or_default(),
            4 | 5 => {
                // A line from somebody else's table, behind some line.
                let ends: Vec<usize> =
                    bytes.windows(2).enumerate().filter(|(_, two)| two == b"\r\n").map(|(at, _)| at).collect();
                if !ends.is_empty() {
                    let at = *dice.pick(&ends);
                    bytes.splice(at..at, [b"\r\n", &dice.pick(lines)[..]].concat());
                }
            }
            _ => drop(bytes.splice(from..to, dice.pick(&SNIPPETS).iter().copied())),
        }
    }
}

//! What the torture test is made of: backends that are processes, clients that believe nothing, and a stage for both.
//!
//! Whoever sees only an id knows what must be said about it: the size, the framing and every byte of a body follow from
//! it. So each answer is checked without any memory of what was asked, and one that went to the wrong client, lost its
//! end or got another's middle can't pass for the right one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

pub(crate) mod backend;
pub(crate) mod distance;
pub(crate) mod load;
pub(crate) mod stage;

/// One word out of another, without a pattern that a mistake could hide in (splitmix64).
pub(crate) fn scramble(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// What is said about an id: in the answer, or in the request body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Answer,
    Upload,
}

/// Whether the body of this id comes in chunks.
pub(crate) fn is_chunked(id: u64, side: Side) -> bool {
    scramble(seed(id, side)) & 0b11 == 0
}

/// The one body that this id has on this side.
pub(crate) fn content(id: u64, side: Side) -> Vec<u8> {
    let seed = seed(id, side);
    let length = length(scramble(seed ^ 1), side);
    let mut body = format!("id={id};").into_bytes();
    let mut word = seed;
    while body.len() < length {
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        body.extend_from_slice(&word.to_be_bytes());
    }
    body
}

/// A checksum that depends on every byte and on its place.
pub(crate) fn checksum(body: &[u8]) -> u64 {
    body.chunks(8).fold(body.len() as u64, |sum, piece| {
        let word = piece.iter().fold(0, |word: u64, byte| word << 8 | u64::from(*byte));
        (sum.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
    })
}

/// The body in chunks of many sizes, without the last one.
pub(crate) fn chunks(id: u64, body: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(body.len() + 64);
    let mut rest = body;
    let mut word = id;
    while !rest.is_empty() {
        word = scramble(word);
        let (chunk, behind) = rest.split_at(rest.len().min(1 + word as usize % 20_000));
        framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
        rest = behind;
    }
    framed
}

fn seed(id: u64, side: Side) -> u64 {
    scramble(id << 1 | u64::from(side == Side::Upload))
}

/// Most bodies are small, some fill a few buffers, a few fill every buffer on the way.
fn length(word: u64, side: Side) -> usize {
    let size = (word >> 8) as usize;
    match (word % 100, side) {
        (0..80, _) => size % 2_000,
        (80..96, _) => size % 30_000,
        (96..99, _) | (_, Side::Upload) => size % 120_000,
        (_, Side::Answer) => 200_000 + size % 300_000,
    }
}

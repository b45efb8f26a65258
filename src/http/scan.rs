//! Where does the head end, and is it fit to be parsed at all?
//!
//! A head arrives in pieces of any size. Two things follow. Looking for its end from the start each time would cost
//! the square of its length, so a scan remembers how far it has looked. And a head that can never become valid must
//! be refused when the bad byte is seen, not when the head ends: a TLS hello or a head with bare LFs has no end.

use super::Flaw;

/// A search for the end of a head, to be continued as bytes arrive.
#[derive(Clone, Debug)]
pub struct HeadScan {
    /// Everything before this index has been looked at.
    seen: usize,
    /// The two bytes before that one.
    before: [u8; 2],
}

/// What a byte says, with the two before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// Nothing: the head goes on.
    Nothing,
    /// It is the last byte of the head.
    End,
    Flaw(&'static str),
}

impl HeadScan {
    /// For a request: one empty line before it is ignored (RFC 9112 section 2.2).
    pub const fn of_request() -> HeadScan {
        HeadScan { seen: 0, before: *b"  " } // no line has ended here, so an empty one is no end
    }

    /// For a response or a trailer section: nothing is skipped. In a trailer section an empty first line is its end.
    pub const fn strict() -> HeadScan {
        HeadScan { seen: 0, before: *b"\r\n" } // as if a line had ended here
    }

    /// Looks at the bytes that are new since the last call. `bytes` is everything so far, from the first byte on.
    ///
    /// `Some(end)`: the head is complete, and `end` is the index behind its empty line.
    ///
    /// # Errors
    /// A bare CR, a bare LF or another control character but tab: no continuation can make this a head. What comes first is
    /// told of; what comes behind the head's end is not looked at.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Flaw> {
        while let Some(new) = bytes.get(self.seen..).filter(|new| !new.is_empty()) {
            let block = self.seen.checked_sub(2).and_then(|start| bytes.get(start..)?.first_chunk());
            if let Some(block) = block.filter(|block| is_plain(block)) {
                self.before = [block[BLOCK], block[BLOCK + 1]];
                self.seen += BLOCK;
                continue;
            }
            // Only a byte with two before it can be the first of a block.
            let count = if self.seen < 2 { 2 } else { BLOCK };
            for &byte in new.iter().take(count) {
                let [before, last] = self.before;
                self.before = [last, byte];
                self.seen += 1;
                match sign(before, last, byte) {
                    Sign::Nothing => {}
                    Sign::End => return Ok(Some(self.seen)),
                    Sign::Flaw(what) => return Err(Flaw::Syntax(what)),
                }
            }
        }
        Ok(None)
    }
}

/// A CR or an LF without the other, and any control character but tab, have no meaning, and receivers differ on what they
/// do.
fn sign(before: u8, last: u8, byte: u8) -> Sign {
    match (before, last, byte) {
        (b'\n', b'\r', b'\n') => Sign::End,
        (_, b'\r', b'\n') => Sign::Nothing,
        (_, b'\r', _) => Sign::Flaw("a bare CR in the head"),
        (_, _, b'\n') => Sign::Flaw("a bare LF in the head"),
        (_, _, b'\r' | b'\t') => Sign::Nothing,
        (_, _, 0..0x20 | 0x7f) => Sign::Flaw("a control character in the head"),
        (_, _, _) => Sign::Nothing,
    }
}

/// As many bytes are looked at together.
const BLOCK: usize = 16;

/// Whether no byte behind the first two of these has a sign. Without branches, all sixteen are looked at in the time of
/// two or three.
fn is_plain(block: &[u8; BLOCK + 2]) -> bool {
    let [before, last, these] = [0, 1, 2].map(|start| block.get(start..start + BLOCK).unwrap_or_default());
    let mut signs = false;
    for ((&before, &last), &byte) in before.iter().zip(last).zip(these) {
        let is_control = ((byte < 0x20) & (byte != b'\t') & (byte != b'\r') & (byte != b'\n')) | (byte == 0x7f);
        let is_parted = (last == b'\r') != (byte == b'\n');
        let is_end = (before == b'\n') & (byte == b'\n');
        signs |= is_control | is_parted | is_end;
    }
    !signs
}

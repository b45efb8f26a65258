//! Where does the head end, and is it fit to be parsed at all?
//!
//! A head arrives in pieces of any size. Two things follow. Looking for its end from the start each time would cost
//! the square of its length, so a scan remembers how far it has looked. And a head that can never become valid must
//! be refused when the bad byte is seen, not when the head ends: a TLS hello or a head with bare LFs has no end.

use super::Flaw;
use memchr::memchr2;

/// A search for the end of a head, to be continued as bytes arrive.
#[derive(Clone, Debug)]
pub struct HeadScan {
    /// Everything before this index has been looked at.
    seen: usize,
    /// Where the line that is being read begins.
    line: usize,
    /// How many empty lines may still be skipped before the head begins.
    skippable: usize,
    /// Where the head proper begins: behind a skipped empty line.
    start: usize,
    /// Where the first line ends (the index of its CR), once that is known.
    first_line_end: Option<usize>,
}

impl HeadScan {
    /// For a request: one empty line before it is ignored (RFC 9112 section 2.2).
    pub const fn of_request() -> HeadScan {
        HeadScan { seen: 0, line: 0, skippable: 1, start: 0, first_line_end: None }
    }

    /// For a response or a trailer section: nothing is skipped. In a trailer section an empty first line is its end.
    pub const fn strict() -> HeadScan {
        HeadScan { seen: 0, line: 0, skippable: 0, start: 0, first_line_end: None }
    }

    /// Where the head begins.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Where the first line ends, if its end has been seen.
    pub fn first_line_end(&self) -> Option<usize> {
        self.first_line_end
    }

    /// Looks at the bytes that are new since the last call. `bytes` is everything so far, from the first byte on.
    ///
    /// `Some(end)`: the head is complete, and `end` is the index behind its empty line.
    ///
    /// # Errors
    /// A bare CR, a bare LF or another control character but tab: no continuation can make this a head.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Flaw> {
        let first_new = self.seen;
        let end = self.find_end(bytes);
        // All lines in one sweep: line by line it takes half as many instructions again. What comes first is told of.
        refuse_controls(bytes.get(first_new..self.seen).unwrap_or_default())?;
        end
    }

    /// Goes from line end to line end, to that of the head or one that is none.
    fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Flaw> {
        loop {
            let new = bytes.get(self.seen..).unwrap_or_default();
            let Some(ahead) = memchr2(b'\r', b'\n', new) else {
                self.seen = bytes.len();
                return Ok(None);
            };
            self.seen += ahead; // to the CR, which is looked at again until its LF is here
            match new.get(ahead..).unwrap_or_default() {
                [b'\r', b'\n', ..] => {}
                [b'\r'] => return Ok(None),
                [b'\r', ..] => return Err(Flaw::Syntax("a bare CR in the head")),
                _ => return Err(Flaw::Syntax("a bare LF in the head")),
            }
            let empty = self.seen == self.line;
            let line_end = self.seen;
            self.seen += 2;
            self.line = self.seen;
            if !empty {
                self.first_line_end.get_or_insert(line_end);
            } else if self.first_line_end.is_none() && self.skippable > 0 {
                self.skippable -= 1;
                self.start = self.seen;
            } else {
                return Ok(Some(self.seen));
            }
        }
    }
}

/// Every control character but tab is refused: none has a meaning in a head, and receivers differ on what they do. CR and
/// LF have been judged already.
fn refuse_controls(text: &[u8]) -> Result<(), Flaw> {
    // A fold, not `any`: without the early exit the compiler checks 16 or 32 bytes at a time.
    let is_bad = |b: u8| ((b < 0x20) & (b != b'\t') & (b != b'\r') & (b != b'\n')) | (b == 0x7f);
    let bad = text.iter().fold(false, |bad, &b| bad | is_bad(b));
    if bad { Err(Flaw::Syntax("a control character in the head")) } else { Ok(()) }
}

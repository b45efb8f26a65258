//! Where does the head end, and is it fit to be parsed at all?
//!
//! A head arrives in pieces of any size. Two things follow. Looking for its end from the start each time would cost
//! the square of its length, so a scan remembers how far it has looked. And a head that can never become valid must
//! be refused when the bad byte is seen, not when the head ends: a TLS hello or a head with bare LFs has no end.

use super::Flaw;
use memchr::memchr_iter;

/// The end of the last line, and the empty line behind it.
const END: &[u8] = b"\r\n\r\n";

const EMPTY_LINE: &[u8] = b"\r\n";

/// A search for the end of a head, to be continued as bytes arrive.
#[derive(Clone, Debug)]
pub struct HeadScan {
    /// Everything before this index has been looked at.
    seen: usize,
    /// One empty line before the head is no head.
    skips_empty_line: bool,
}

impl HeadScan {
    /// For a request: one empty line before it is ignored (RFC 9112 section 2.2).
    pub const fn of_request() -> HeadScan {
        HeadScan { seen: 0, skips_empty_line: true }
    }

    /// For a response or a trailer section: nothing is skipped. In a trailer section an empty first line is its end.
    pub const fn strict() -> HeadScan {
        HeadScan { seen: 0, skips_empty_line: false }
    }

    /// Looks at the bytes that are new since the last call. `bytes` is everything so far, from the first byte on.
    ///
    /// `Some(end)`: the head is complete, and `end` is the index behind its empty line.
    ///
    /// # Errors
    /// A bare CR, a bare LF or another control character but tab: no continuation can make this a head. What comes first is
    /// told of; what comes behind the head's end is not looked at.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Flaw> {
        let end = self.find_end(bytes);
        let new = bytes.get(self.seen..end.unwrap_or(bytes.len())).unwrap_or_default();
        if has_flaw(new) {
            return Err(first_flaw(new));
        }
        // A CR is looked at again, together with the LF that must be next.
        let held_back = usize::from(new.last() == Some(&b'\r'));
        self.seen += new.len() - held_back;
        Ok(end)
    }

    fn find_end(&self, bytes: &[u8]) -> Option<usize> {
        let is_skipped = self.skips_empty_line && bytes.starts_with(EMPTY_LINE);
        let start = if is_skipped { EMPTY_LINE.len() } else { 0 };
        if bytes.get(start..)?.starts_with(EMPTY_LINE) {
            return Some(start + EMPTY_LINE.len()); // all of it is an empty line
        }
        let mut line_ends = memchr_iter(b'\n', bytes.get(self.seen..)?).map(|at| self.seen + at + 1);
        line_ends.find(|&end| bytes.get(..end).is_some_and(|so_far| so_far.ends_with(END)))
    }
}

/// Whether there is a byte that no head may have: a CR or LF without the other, or any control character but tab, since
/// none has a meaning and receivers differ on what they do. `bytes` begin where no CR is before them.
fn has_flaw(bytes: &[u8]) -> bool {
    let Some((first, behind)) = bytes.split_first() else { return false };
    let is_parted = |before: u8, b: u8| (before == b'\r') != (b == b'\n');
    // A fold, not `any`: without the early exit the compiler checks 16 bytes at a time.
    let pairs = bytes.iter().zip(behind);
    pairs.fold(is_control(*first) | (*first == b'\n'), |bad, (&before, &b)| bad | is_control(b) | is_parted(before, b))
}

fn is_control(b: u8) -> bool {
    ((b < 0x20) & (b != b'\t') & (b != b'\r') & (b != b'\n')) | (b == 0x7f)
}

/// Which of them comes first.
#[cold]
fn first_flaw(bytes: &[u8]) -> Flaw {
    let mut rest = bytes;
    loop {
        rest = match rest {
            [b'\r', b'\n', behind @ ..] => behind,
            [b'\r', ..] => return Flaw::Syntax("a bare CR in the head"),
            [b'\n', ..] => return Flaw::Syntax("a bare LF in the head"),
            [b, behind @ ..] if !is_control(*b) => behind,
            _ => return Flaw::Syntax("a control character in the head"),
        };
    }
}

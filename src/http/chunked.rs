//! The one transfer coding, read and written (RFC 9112 section 7.1).
//!
//! What comes in chunked is decoded and framed afresh; no chunk head, extension or line end of the sender's is ever
//! passed on, so whatever another reader might have made of them, nobody will.

use super::{Flaw, HeadScan, fields, head};
use std::ops::Range;

/// What one call of [`ChunkDecoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Where the data lies now, in one piece.
    pub data: Range<usize>,
    /// How many bytes belong to this body; what lies behind them doesn't.
    pub used: usize,
    /// The last chunk and the trailer section have been read.
    pub ended: bool,
}

/// Where in the grammar the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    /// 1 - 16 hex digits, nothing before or between them.
    Size { digits: u8 },
    /// White space behind the size, which only an extension may follow.
    SizeSpace,
    /// White space or the first byte of an extension's name.
    Name,
    /// More of the name.
    InName,
    /// White space behind the name.
    NameSpace,
    /// White space or the first byte of a value.
    Value,
    /// More of an unquoted value.
    InValue,
    /// More of a quoted value.
    Quoted,
    /// The byte behind a backslash.
    Escaped,
    /// Behind a closing quote.
    QuoteEnd,
    /// White space behind a value.
    ValueSpace,
    /// The LF of a chunk head.
    HeadLf,
    /// Chunk data.
    Data,
    /// The CR behind the data.
    DataCr,
    /// The LF behind the data.
    DataLf,
    /// The trailer section.
    Trailers,
    /// Nothing: the body has ended.
    Nothing,
}

/// Reads a chunked body that comes in pieces of any size.
#[derive(Debug)]
pub struct ChunkDecoder {
    expects: Expects,
    /// While a size is read: its value so far. In the data: how much is still to come.
    size: u64,
    /// Bytes of extensions that may still come.
    extension_allowance: usize,
    /// The trailer section so far.
    trailers: Vec<u8>,
    trailer_scan: HeadScan,
    trailer_limit: usize,
}

/// 16 KiB of extensions in one body: they mean nothing to anybody, and free bytes invite abuse.
const EXTENSION_ALLOWANCE: usize = 16 * 1024;

impl ChunkDecoder {
    /// A decoder at the start of a body; a trailer section may have up to `trailer_limit` bytes.
    pub fn new(trailer_limit: usize) -> ChunkDecoder {
        ChunkDecoder {
            expects: Expects::Size { digits: 0 },
            size: 0,
            extension_allowance: EXTENSION_ALLOWANCE,
            trailers: Vec::new(),
            trailer_scan: HeadScan::strict(),
            trailer_limit: trailer_limit.max(2), // the empty line is always allowed, however it is cut
        }
    }

    /// The raw trailer section with its empty line, once the body has ended; empty when there were no trailers.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Decodes the next bytes in place: the data of all chunks in them is moved together, behind the first of it.
    ///
    /// # Errors
    /// Any departure from the grammar; what was decoded before it must not be completed.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, Flaw> {
        let mut at = 0;
        let mut data = 0..0;
        while self.expects != Expects::Nothing {
            if self.expects == Expects::Data {
                let run = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - at);
                if data.is_empty() {
                    data = at..at + run;
                } else {
                    bytes.copy_within(at..at + run, data.end);
                    data.end += run;
                }
                at += run;
                self.size -= run as u64;
                if self.size > 0 {
                    break;
                }
                self.expects = Expects::DataCr;
            } else if self.expects == Expects::Trailers {
                at += self.take_trailers(bytes.get(at..).unwrap_or_default())?;
                if self.expects == Expects::Trailers {
                    break;
                }
            } else {
                let Some(&byte) = bytes.get(at) else { break };
                at += 1;
                self.expects = self.step(byte)?;
            }
        }
        Ok(Decoded { data, used: at, ended: self.expects == Expects::Nothing })
    }

    /// One byte of a chunk head or of the line end behind the data.
    fn step(&mut self, byte: u8) -> Result<Expects, Flaw> {
        use Expects::{
            Data, DataCr, DataLf, Escaped, HeadLf, InName, InValue, Name, NameSpace, QuoteEnd, Quoted, Size, SizeSpace,
            Trailers, Value, ValueSpace,
        };
        let expects = self.expects;
        if matches!(byte, b'\r' | b'\n') || matches!(expects, Size { .. } | DataCr | DataLf | HeadLf) {
            return Ok(match (expects, byte) {
                (Size { digits }, byte) if byte.is_ascii_hexdigit() => {
                    // RFC 9112 section 7.1: anticipate large sizes. 16 digits fit `u64`; zeros in front count as digits.
                    if digits == 16 {
                        return Err(Flaw::Framing("a chunk size of more than 16 digits"));
                    }
                    self.size = self.size << 4 | u64::from(hex_value(byte));
                    Size { digits: digits + 1 }
                }
                (Size { digits: 1.. }, b'\r') | (InName | InValue | QuoteEnd, b'\r') => HeadLf,
                (Size { digits: 1.. }, b' ' | b'\t') => SizeSpace,
                (Size { digits: 1.. }, b';') => Name,
                (Size { .. }, _) => return Err(Flaw::Framing("a chunk size that is not hex digits and CRLF")),
                (HeadLf, b'\n') if self.size == 0 => Trailers,
                (HeadLf, b'\n') => Data,
                (DataCr, b'\r') => DataLf,
                (DataLf, b'\n') => Size { digits: 0 },
                (DataCr | DataLf, _) => return Err(Flaw::Framing("chunk data that does not end where its size says")),
                _ => return Err(Flaw::Framing("a chunk head that does not end in CRLF")),
            });
        }
        self.extension_allowance =
            self.extension_allowance.checked_sub(1).ok_or(Flaw::Framing("too many bytes of chunk extensions"))?;
        Ok(match (expects, byte) {
            (SizeSpace | Name | NameSpace | Value | ValueSpace, b' ' | b'\t') => expects,
            (SizeSpace | InName | NameSpace | InValue | QuoteEnd | ValueSpace, b';') => Name,
            (Name | InName, byte) if head::is_token_byte(byte) => InName,
            (InName, b' ' | b'\t') => NameSpace,
            (InName | NameSpace, b'=') => Value,
            (Value, b'"') => Quoted,
            (Value | InValue, byte) if head::is_token_byte(byte) => InValue,
            (InValue | QuoteEnd, b' ' | b'\t') => ValueSpace,
            (Quoted, b'"') => QuoteEnd,
            (Quoted, b'\\') => Escaped,
            (Quoted, b'\t' | b' '..=b'~' | 0x80..) => Quoted,
            (Escaped, b'\t' | b' '..=b'~' | 0x80..) => Quoted,
            _ => return Err(Flaw::Framing("a malformed chunk extension")),
        })
    }

    /// Takes in what belongs to the trailer section and says how much that was.
    fn take_trailers(&mut self, bytes: &[u8]) -> Result<usize, Flaw> {
        if self.trailers.is_empty() && bytes.starts_with(b"\r\n") {
            self.expects = Expects::Nothing; // no trailers: nearly always
            return Ok(2);
        }
        let before = self.trailers.len();
        // One byte over the limit is enough to know that it is exceeded.
        let room = self.trailer_limit.saturating_add(1).saturating_sub(before);
        self.trailers.extend(bytes.iter().take(room));
        match self.trailer_scan.advance(&self.trailers)? {
            Some(end) if end <= self.trailer_limit => {
                self.trailers.truncate(end);
                self.expects = Expects::Nothing;
                if end == 2 {
                    self.trailers.clear();
                }
                Ok(end - before)
            }
            _ if self.trailers.len() > self.trailer_limit => Err(Flaw::HeadTooLarge),
            _ => Ok(bytes.len()),
        }
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// Room for the head of any chunk: 16 digits and CRLF.
pub const CHUNK_HEAD_ROOM: usize = 18;

/// What stands behind the data of every chunk.
pub const CHUNK_TAIL: &[u8] = b"\r\n";

/// The last chunk, without the trailer section and its empty line.
pub const LAST_CHUNK: &[u8] = b"0\r\n";

/// Writes the head of a chunk of `size` bytes into `room` and returns it.
pub fn write_chunk_head(size: usize, room: &mut [u8; CHUNK_HEAD_ROOM]) -> &[u8] {
    let mut rest = size;
    let mut start = room.len();
    for (at, slot) in room.iter_mut().enumerate().rev() {
        *slot = match at {
            17 => b'\n',
            16 => b'\r',
            _ => {
                let digit = b"0123456789abcdef".get(rest & 15).copied().unwrap_or(b'0');
                rest >>= 4;
                digit
            }
        };
        start = at;
        if at < 16 && rest == 0 {
            break;
        }
    }
    room.get(start..).unwrap_or_default()
}

/// The fields of a complete trailer section that may go on, each with its CRLF, and the closing empty line.
///
/// # Errors
/// A section that does not consist of field lines.
pub(super) fn filter_trailers(section: &[u8], limit: usize, named: &[Box<str>], out: &mut Vec<u8>) -> Result<(), Flaw> {
    if !section.is_empty() {
        let mut table = head::FieldTable::default();
        for field in table.split(section, limit)? {
            let named = named.iter().any(|name| field.name.eq_ignore_ascii_case(name));
            if !named && !fields::is_forbidden_in_trailers(field.name) {
                super::forward::write_field(out, field.name, field.value);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

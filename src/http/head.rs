//! A head split into its start line and fields.
//!
//! `httparse` does the splitting into fields, and only this file knows it. The start lines are ours: what `httparse`
//! lets pass there (a bare LF, `#` or UTF-8 in the target, the status `099`) is refused here.

use super::Flaw;
use memchr::memchr;

/// One field line: name and value, the value without the white space around it.
pub type Field<'b> = httparse::Header<'b>;

/// Room for the fields of one head, on the caller's stack.
///
/// Nearly every head has fewer than 32 fields, and clearing room for many more costs more than parsing a few.
pub struct FieldTable<'b> {
    few: [Field<'b>; 32],
    many: Vec<Field<'b>>,
}

impl Default for FieldTable<'_> {
    fn default() -> Self {
        FieldTable { few: [httparse::EMPTY_HEADER; 32], many: Vec::new() }
    }
}

impl<'b> FieldTable<'b> {
    /// Splits the field lines of `block` (from behind the start line through the empty line).
    ///
    /// # Errors
    /// [`Flaw::TooManyFields`] beyond `limit`; [`Flaw::Syntax`] for a line that is not a field line.
    pub(super) fn split(&mut self, block: &'b [u8], limit: usize) -> Result<&[Field<'b>], Flaw> {
        let FieldTable { few, many } = self;
        let fields = match httparse::parse_headers(block, few) {
            Err(httparse::Error::TooManyHeaders) => {
                many.resize(limit, httparse::EMPTY_HEADER);
                complete(httparse::parse_headers(block, many))?
            }
            split => complete(split)?,
        };
        if fields.len() > limit { Err(Flaw::TooManyFields) } else { Ok(fields) }
    }

    /// Splits a whole response head, mending what RFC 9112 lets a proxy mend (sections 5.1 and 5.2): white space
    /// before a colon is dropped, and a folded line stays in its value as CR LF and white space, for the writer to
    /// turn into a space.
    ///
    /// # Errors
    /// As [`FieldTable::split`], and for a status line that is none.
    pub(super) fn split_response(&mut self, head: &'b [u8], limit: usize) -> Result<&[Field<'b>], Flaw> {
        let mut lenient = httparse::ParserConfig::default();
        lenient.allow_spaces_after_header_name_in_responses(true).allow_obsolete_multiline_headers_in_responses(true);
        let FieldTable { few, many } = self;
        let mut response = httparse::Response::new(few);
        let fields = match lenient.parse_response(&mut response, head) {
            Err(httparse::Error::TooManyHeaders) => {
                many.resize(limit, httparse::EMPTY_HEADER);
                response = httparse::Response::new(many);
                let parsed = lenient.parse_response(&mut response, head);
                complete(parsed.map(|_| httparse::Status::Complete((0, &*response.headers))))?
            }
            Ok(httparse::Status::Complete(_)) => &*response.headers,
            Ok(httparse::Status::Partial) => return Err(Flaw::Syntax("the head ends too soon")),
            Err(error) => return Err(of_httparse(error)),
        };
        if fields.len() > limit { Err(Flaw::TooManyFields) } else { Ok(fields) }
    }
}

fn complete<'h, 'b>(split: httparse::Result<(usize, &'h [Field<'b>])>) -> Result<&'h [Field<'b>], Flaw> {
    match split {
        Ok(httparse::Status::Complete((_, fields))) => Ok(fields),
        Ok(httparse::Status::Partial) => Err(Flaw::Syntax("the head ends too soon")),
        Err(error) => Err(of_httparse(error)),
    }
}

fn of_httparse(error: httparse::Error) -> Flaw {
    match error {
        httparse::Error::HeaderName => Flaw::Syntax("a field name that is not a token followed by a colon"),
        httparse::Error::HeaderValue => Flaw::Syntax("a field value with a byte that may not be there"),
        httparse::Error::NewLine => Flaw::Syntax("a line end that is not CRLF"),
        httparse::Error::Status => Flaw::Syntax("a malformed status line"),
        httparse::Error::Token => Flaw::Syntax("a byte that is not part of a token"),
        httparse::Error::TooManyHeaders => Flaw::TooManyFields,
        httparse::Error::Version => Flaw::Syntax("a malformed version"),
    }
}

/// The versions that make a difference. 1.2 to 1.9 count as 1.1 (RFC 9110 section 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Closes unless told otherwise, knows no chunks and no interim responses.
    Http10,
    /// All the rest.
    Http11,
}

/// The first line of a head, without its CRLF, and what lies behind that. `None`: its end is not there yet.
pub(super) fn split_first_line(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = head.split_at_checked(memchr(b'\r', head)?)?;
    Some((line, rest.strip_prefix(b"\r\n")?))
}

/// Method, target and version of a request line, the line without its CRLF.
///
/// # Errors
/// Anything but `token SP target SP HTTP/d.d`, with exactly these two spaces.
pub(super) fn split_request_line(line: &[u8]) -> Result<(&str, &str, Version), Flaw> {
    const MALFORMED: Flaw = Flaw::Syntax("a request line that is not: method, space, target, space, version");
    let method_end = memchr(b' ', line).ok_or(MALFORMED)?;
    let (method, rest) = line.split_at(method_end);
    let rest = rest.get(1..).unwrap_or_default();
    let target_end = memchr(b' ', rest).ok_or(MALFORMED)?;
    let (target, rest) = rest.split_at(target_end);
    let version = rest.get(1..).unwrap_or_default();

    let method = token(method).ok_or(Flaw::Syntax("a method that is not a token"))?;
    let target = str::from_utf8(target).map_err(|_| Flaw::Syntax("a byte above 0x7E in the target"))?;
    if target.is_empty() {
        return Err(MALFORMED);
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Version::Http11,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(Flaw::UnsupportedVersion),
        _ => return Err(MALFORMED),
    };
    Ok((method, target, version))
}

/// Version, status and reason of a status line, the line without its CRLF. The reason may hold obs-text; `None` when
/// not even the space before it is there.
///
/// # Errors
/// A version other than 1.0 and 1.1, or a status that is not three digits from 100 to 599.
pub(super) fn split_status_line(line: &[u8]) -> Result<(Version, u16, Option<&[u8]>), Flaw> {
    const MALFORMED: Flaw = Flaw::Syntax("a malformed status line");
    let (version, rest) = match line.split_at_checked(9).ok_or(MALFORMED)? {
        (b"HTTP/1.1 ", rest) => (Version::Http11, rest),
        (b"HTTP/1.0 ", rest) => (Version::Http10, rest),
        _ => return Err(MALFORMED),
    };
    let (status, reason) = match rest {
        [a, b, c] => ([a, b, c], None),
        [a, b, c, b' ', reason @ ..] => ([a, b, c], Some(reason)),
        _ => return Err(MALFORMED),
    };
    if !status.iter().all(|digit| digit.is_ascii_digit()) {
        return Err(MALFORMED);
    }
    let status = status.iter().fold(0u16, |number, &&digit| number * 10 + u16::from(digit - b'0'));
    if (100..600).contains(&status) {
        Ok((version, status, reason))
    } else {
        Err(Flaw::Syntax("a status outside 100 - 599"))
    }
}

/// The bytes as text, if they are a token (RFC 9110 section 5.6.2).
pub(super) fn token(bytes: &[u8]) -> Option<&str> {
    if bytes.is_empty() || !bytes.iter().all(|&b| is_token_byte(b)) {
        return None;
    }
    str::from_utf8(bytes).ok()
}

/// RFC 9110 section 5.6.2: any visible character but the delimiters.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

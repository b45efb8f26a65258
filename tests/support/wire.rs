//! One end of a TCP connection, and HTTP/1.1 read from it to the letter.
//!
//! What comes out of the balancer was framed by the balancer, so the reading here allows only what we would write
//! ourselves: no bare line ends, no folded lines, no second length, no chunk extension.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::PATIENCE;

/// Why what was wanted did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// An end of file.
    Closed,
    /// A reset.
    Reset,
    /// Nothing, for as long as we wait.
    TimedOut,
    /// Bytes that are not the HTTP/1.1 they should have been.
    Malformed(String),
}

/// How the end of a body is known. What the fields say, not what they mean: `Length(0)` had a `Content-Length: 0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Neither field, or a message that has no body whatever its fields say.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// A response to its connection's close.
    UntilClose,
}

/// Field lines in their order, their case and their repetitions. A byte of a value is a char (Latin-1): none is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl Fields {
    /// The value of the one field of that name, in any case; panics if there are two, since a test that asks for one
    /// has not thought of them.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} came {} times: {self:?}", all.len());
        all.first().copied()
    }

    /// The values of all fields of that name, in any case, line by line.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// Whether a list field, over all its lines, has this member, in any case.
    pub(crate) fn lists(&self, name: &str, member: &str) -> bool {
        self.all(name).iter().flat_map(|value| value.split(',')).any(|m| m.trim().eq_ignore_ascii_case(member))
    }

    fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Self, String> {
        let field = |line: &[u8]| {
            let colon = line.iter().position(|&byte| byte == b':').ok_or("a field line without a colon")?;
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            if !is_token(name) {
                return Err("a field name that is not a token");
            }
            Ok((latin(name), latin(value).trim_matches([' ', '\t']).to_owned()))
        };
        lines
            .map(|line| field(line).map_err(|why| format!("{why}: {}", show(line))))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// A start line and its fields. Reads as its fields: `head.get("Host")`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// Every byte, to the empty line and with it.
    pub(crate) raw: Vec<u8>,
    /// The first line, without its CRLF.
    pub(crate) start: String,
    /// The rest.
    pub(crate) fields: Fields,
}

impl Deref for Head {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.fields
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show(&self.raw))
    }
}

impl Head {
    fn parse(raw: &[u8]) -> Result<Self, String> {
        let text = raw.strip_suffix(b"\r\n\r\n").ok_or("a head without its empty line")?;
        let lines = split_lines(text)?;
        let (start, fields) = lines.split_first().ok_or("a head without a line")?;
        Ok(Self { raw: raw.to_vec(), start: latin(start), fields: Fields::parse(fields.iter().copied())? })
    }

    /// Method and target of a request line.
    pub(super) fn request_line(&self) -> Result<(String, String), String> {
        let words: Vec<&str> = self.start.split(' ').collect();
        let [method, target, "HTTP/1.1"] = words[..] else {
            return Err(format!("not an HTTP/1.1 request line: {:?}", self.start));
        };
        if !is_token(method.as_bytes()) || target.is_empty() || !target.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
            return Err(format!("a request line with a faulty word: {:?}", self.start));
        }
        if self.all("Host").len() != 1 {
            return Err(format!("a request needs one Host: {}", show(&self.raw)));
        }
        Ok((method.to_owned(), target.to_owned()))
    }

    /// Status and reason of a status line.
    pub(super) fn status_line(&self) -> Result<(u16, String), String> {
        let fault = || format!("not an HTTP/1.1 status line: {:?}", self.start);
        let rest = self.start.strip_prefix("HTTP/1.1 ").ok_or_else(fault)?;
        let (code, reason) = rest.split_once(' ').ok_or_else(fault)?;
        let status = code.parse().ok().filter(|status| (100..600).contains(status)).ok_or_else(fault)?;
        if code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(fault());
        }
        Ok((status, reason.to_owned()))
    }

    /// How the body of this request ends.
    pub(super) fn request_framing(&self) -> Result<Framing, String> {
        Ok(self.length_or_chunked()?.unwrap_or(Framing::None))
    }

    /// How the body of this response to `method` ends.
    pub(super) fn response_framing(&self, method: &str, status: u16) -> Result<Framing, String> {
        let said = self.length_or_chunked()?;
        let bodiless = status < 200 || status == 204;
        match said {
            Some(framing) if bodiless => Err(format!("{status} with {framing:?}: {}", show(&self.raw))),
            Some(Framing::Chunked) if status == 304 || method == "HEAD" => {
                Err(format!("{status} to {method} with a Transfer-Encoding: {}", show(&self.raw)))
            }
            _ if bodiless || status == 304 || method == "HEAD" => Ok(Framing::None),
            said => Ok(said.unwrap_or(Framing::UntilClose)),
        }
    }

    fn length_or_chunked(&self) -> Result<Option<Framing>, String> {
        match (&self.all("Content-Length")[..], &self.all("Transfer-Encoding")[..]) {
            ([], []) => Ok(None),
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
            // Formatting the number again catches a sign, a leading zero, white space: all but the plain decimal.
            ([text], []) => match text.parse::<u64>() {
                Ok(length) if length.to_string() == *text => Ok(Some(Framing::Length(length))),
                Ok(_) | Err(_) => Err(format!("Content-Length: {text}")),
            },
            (lengths, codings) => Err(format!("Content-Length {lengths:?} with Transfer-Encoding {codings:?}")),
        }
    }
}

/// Where in a body the reading stands.
pub(super) struct Decoder {
    framing: Framing,
    /// Bytes left of the length, or of the chunk.
    left: u64,
    /// The CRLF behind a chunk is still to be read.
    behind_chunk: bool,
    /// Set with the end of a chunked body.
    pub(super) trailers: Option<Fields>,
}

impl Decoder {
    pub(super) fn new(framing: Framing) -> Self {
        let left = match framing {
            Framing::Length(length) => length,
            Framing::None | Framing::Chunked | Framing::UntilClose => 0,
        };
        Self { framing, left, behind_chunk: false, trailers: None }
    }
}

/// A socket, what has been read from it and not used, and everything it ever said.
pub(super) struct Wire {
    stream: Arc<TcpStream>,
    unread: Vec<u8>,
    heard: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: Arc<TcpStream>) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, unread: Vec::new(), heard: Vec::new() }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Everything that ever came, for the message of a panic.
    pub(super) fn transcript(&self) -> String {
        show(&self.heard)
    }

    /// False if the other side was no longer there to take it.
    pub(super) fn send(&self, bytes: &[u8]) -> bool {
        (&*self.stream).write_all(bytes).is_ok()
    }

    /// An end of file for the other side; what it says can still be read.
    pub(super) fn half_close(&self) {
        // An error means that the connection is gone already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The close that follows will be a reset, whatever is still on its way.
    pub(super) fn reset_on_close(&self) {
        rustix::net::sockopt::set_socket_linger(&*self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// The next head. `End::Closed` only if not one byte of it came.
    pub(super) fn head(&mut self) -> Result<Head, End> {
        let raw = self.take_through(b"\r\n\r\n")?;
        Head::parse(&raw).map_err(End::Malformed)
    }

    /// The next bytes of a body, at least one and at most `most`; None at its end.
    pub(super) fn body(&mut self, decoder: &mut Decoder, most: usize) -> Result<Option<Vec<u8>>, End> {
        match decoder.framing {
            Framing::None => return Ok(None),
            Framing::UntilClose => {
                return match self.some(most) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(End::Closed) => Ok(None),
                    Err(end) => Err(end),
                };
            }
            Framing::Chunked if decoder.trailers.is_some() => return Ok(None),
            Framing::Chunked if decoder.left == 0 => {
                if decoder.behind_chunk && self.exactly(2)? != b"\r\n" {
                    return Err(End::Malformed(format!("no CRLF behind a chunk: {}", self.transcript())));
                }
                let line = self.take_through(b"\r\n")?;
                decoder.left = chunk_size(&line).map_err(End::Malformed)?;
                decoder.behind_chunk = true;
                if decoder.left == 0 {
                    decoder.trailers = Some(self.trailers()?);
                    return Ok(None);
                }
            }
            Framing::Length(_) | Framing::Chunked => {}
        }
        if decoder.left == 0 {
            return Ok(None);
        }
        let bytes = self.some(most.min(usize::try_from(decoder.left).unwrap_or(usize::MAX)))?;
        decoder.left -= u64::try_from(bytes.len()).unwrap();
        Ok(Some(bytes))
    }

    fn trailers(&mut self) -> Result<Fields, End> {
        let mut text = Vec::new();
        loop {
            match &self.take_through(b"\r\n")?[..] {
                b"\r\n" => break,
                line => text.extend_from_slice(line),
            }
        }
        let Some(text) = text.strip_suffix(b"\r\n") else {
            return Ok(Fields::default());
        };
        split_lines(text).and_then(|lines| Fields::parse(lines.into_iter())).map_err(End::Malformed)
    }

    /// Just so many bytes, whatever they mean.
    pub(super) fn exactly(&mut self, count: usize) -> Result<Vec<u8>, End> {
        while self.unread.len() < count {
            self.fill()?;
        }
        Ok(self.unread.drain(..count).collect())
    }

    /// What came until the connection ended, and how it ended.
    pub(super) fn read_to_end(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.fill() {
                return (std::mem::take(&mut self.unread), end);
            }
        }
    }

    fn some(&mut self, most: usize) -> Result<Vec<u8>, End> {
        if self.unread.is_empty() {
            self.fill()?;
        }
        let count = most.min(self.unread.len());
        Ok(self.unread.drain(..count).collect())
    }

    fn take_through(&mut self, mark: &[u8]) -> Result<Vec<u8>, End> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.unread[searched..].windows(mark.len()).position(|window| window == mark) {
                return Ok(self.unread.drain(..searched + at + mark.len()).collect());
            }
            searched = self.unread.len().saturating_sub(mark.len() - 1);
            match self.fill() {
                Err(End::Closed) if !self.unread.is_empty() => {
                    return Err(End::Malformed(format!("closed inside a line or a head: {}", self.transcript())));
                }
                filled => filled?,
            }
        }
    }

    fn fill(&mut self) -> Result<(), End> {
        let mut buffer = [0; 64 * 1024];
        loop {
            return match (&*self.stream).read(&mut buffer) {
                Ok(0) => Err(End::Closed),
                Ok(count) => {
                    self.unread.extend_from_slice(&buffer[..count]);
                    self.heard.extend_from_slice(&buffer[..count]);
                    Ok(())
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Err(End::TimedOut),
                Err(_) => Err(End::Reset),
            };
        }
    }
}

/// Bytes as a literal would spell them, and no more of them than a person reads.
pub(crate) fn show(bytes: &[u8]) -> String {
    const ENOUGH: usize = 2048;
    let shown = bytes[..bytes.len().min(ENOUGH)].escape_ascii();
    if bytes.len() > ENOUGH { format!("{shown}... ({} bytes)", bytes.len()) } else { shown.to_string() }
}

fn chunk_size(line: &[u8]) -> Result<u64, String> {
    let digits = line.strip_suffix(b"\r\n").unwrap_or(line);
    let plain = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let size = std::str::from_utf8(digits).ok().filter(|_| plain).and_then(|text| u64::from_str_radix(text, 16).ok());
    size.ok_or_else(|| format!("not a plain chunk size: {}", show(line)))
}

fn split_lines(text: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    match lines.iter().find(|line| line.is_empty() || line.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t'))
    {
        Some(line) => Err(format!("an empty line or a control character: {}", show(line))),
        None => Ok(lines),
    }
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

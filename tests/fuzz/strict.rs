//! A second reader of HTTP/1.1, written from the RFCs and the rules of `docs/CONFORMANCE.md` and from nothing else.
//!
//! It shares no line with the program, and does everything the plain way: whole messages, line by line, no state. Where
//! the two disagree, one of them is wrong, and a fuzzer says on which bytes.

/// What a reader makes of the bytes so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read<T> {
    /// The whole of it.
    Whole(T),
    /// The beginning of one: more bytes are needed.
    Half,
    /// It can't become one, and why.
    Bad(&'static str),
}

/// Name and value.
pub type Field = (Vec<u8>, Vec<u8>);

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// All until the connection ends.
    UntilClose,
}

/// The lines of a head, without their line ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head<'b> {
    /// The first.
    pub start: &'b [u8],
    /// The others.
    pub lines: Vec<&'b [u8]>,
    /// How long all that is, with the empty line.
    pub length: usize,
}

/// A request head with its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// As it came.
    pub method: Vec<u8>,
    /// In origin- or asterisk-form.
    pub target: Vec<u8>,
    /// HTTP/1.this.
    pub minor: u8,
    /// Whom it is for.
    pub host: Option<Vec<u8>>,
    /// How it ends.
    pub framing: Framing,
    /// Every field.
    pub fields: Vec<Field>,
}

/// A response head with its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP/1.this.
    pub minor: u8,
    /// 100 - 599.
    pub status: u16,
    /// What stands behind it.
    pub reason: Vec<u8>,
    /// How it ends.
    pub framing: Framing,
    /// Every field.
    pub fields: Vec<Field>,
}

/// A body, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Its bytes.
    pub data: Vec<u8>,
    /// What came behind the last chunk.
    pub trailers: Vec<Field>,
    /// How long it was on the wire.
    pub length: usize,
}

/// How a body reads that is framed like this.
pub fn body(bytes: &[u8], framing: Framing) -> Read<Body> {
    match framing {
        Framing::None => Read::Whole(Body::default()),
        Framing::UntilClose => Read::Half,
        Framing::Length(length) => match usize::try_from(length).ok().and_then(|length| bytes.get(..length)) {
            Some(data) => Read::Whole(Body { data: data.to_vec(), trailers: Vec::new(), length: data.len() }),
            None => Read::Half,
        },
        Framing::Chunked => chunked(bytes),
    }
}

/// A head, to its empty line. Nothing is skipped before it.
pub fn head(bytes: &[u8]) -> Read<Head<'_>> {
    let mut lines = Vec::new();
    let mut at = 0;
    loop {
        match line(&bytes[at..]) {
            Read::Whole(text) => {
                at += text.len() + 2;
                if text.is_empty() {
                    let mut lines = lines.into_iter();
                    return Read::Whole(Head {
                        start: lines.next().unwrap_or_default(),
                        lines: lines.collect(),
                        length: at,
                    });
                }
                lines.push(text);
            }
            Read::Half => return Read::Half,
            Read::Bad(why) => return Read::Bad(why),
        }
    }
}

fn line(bytes: &[u8]) -> Read<&[u8]> {
    for (at, &byte) in bytes.iter().enumerate() {
        match (byte, bytes.get(at + 1)) {
            (b'\r', Some(b'\n')) => return Read::Whole(&bytes[..at]),
            (b'\r', None) => return Read::Half,
            (b'\t' | 0x20..=0x7e | 0x80..=0xff, _) => {}
            _ => return Read::Bad("a control character, or a line end that is not CRLF"),
        }
    }
    Read::Half
}

/// Judges a complete request head.
pub fn request(head: &Head<'_>) -> Result<Request, &'static str> {
    let words: Vec<&[u8]> = head.start.split(|&byte| byte == b' ').collect();
    let [method, target, version] = words[..] else { return Err("not three words") };
    if !is_token(method) || method == b"CONNECT" {
        return Err("the method");
    }
    let minor = match version.strip_prefix(b"HTTP/1.") {
        Some([digit @ b'0'..=b'9']) => digit - b'0',
        _ => return Err("the version"),
    };
    let fields = fields(&head.lines, false)?;
    let (target, authority) = origin_form(method, target)?;
    let host = match &all(&fields, b"host")[..] {
        [] if minor > 0 => return Err("no Host"),
        [] => None,
        [host] if is_authority(host) => Some(host.to_vec()),
        _ => return Err("a faulty Host, or two"),
    };
    let expectations = all(&fields, b"expect");
    if minor > 0 && !expectations.iter().all(|value| value.eq_ignore_ascii_case(b"100-continue")) {
        return Err("another expectation");
    }
    let passages = all(&fields, b"via").iter().map(|value| count(value, b"threadbare")).sum::<usize>();
    if passages >= 10 {
        return Err("a loop");
    }
    connection_names_none_of(&fields, &[b"host", b"content-length", b"transfer-encoding", b"authorization"])?;
    let framing = match framing_fields(&fields, minor)? {
        None | Some(Framing::Length(0)) => Framing::None,
        Some(framing) => framing,
    };
    let (method, host) = (method.to_vec(), authority.or(host));
    Ok(Request { method, target, minor, host, framing, fields })
}

/// Judges a complete response head. Folded lines and white space before a colon are mended if `mends`.
pub fn response(head: &Head<'_>, to_head: bool, mends: bool) -> Result<Response, &'static str> {
    let (minor, rest) = match head.start {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'1', b' ', rest @ ..] => (minor - b'0', rest),
        _ => return Err("the version"),
    };
    let (digits, reason) = match rest {
        [digits @ .., b' '] if digits.len() == 3 => (digits, &[][..]),
        rest if rest.len() == 3 => (rest, &[][..]),
        [a, b, c, b' ', reason @ ..] => (&[*a, *b, *c][..], reason),
        _ => return Err("the status line"),
    };
    let status = match number(digits) {
        Some(status @ 100..=599) => u16::try_from(status).unwrap_or_default(),
        _ => return Err("the status"),
    };
    let fields = fields(&head.lines, mends)?;
    if fields.len() > 256 {
        return Err("too many fields");
    }
    connection_names_none_of(&fields, &[b"content-length"])?;
    let said = framing_fields(&fields, minor);
    let framing = match status {
        100..200 | 204 => Framing::None,
        _ if to_head || status == 304 => {
            // A length that tells of a body elsewhere must at least be one.
            if all(&fields, b"transfer-encoding").is_empty() {
                said?;
            }
            Framing::None
        }
        _ => match said? {
            Some(Framing::Length(0)) => Framing::None,
            said => said.unwrap_or(Framing::UntilClose),
        },
    };
    Ok(Response { minor, status, reason: reason.to_vec(), framing, fields })
}

/// Field lines as names and values.
pub fn fields(lines: &[&[u8]], mends: bool) -> Result<Vec<Field>, &'static str> {
    let mut fields: Vec<Field> = Vec::new();
    for line in lines {
        if let ([b' ' | b'\t', ..], true, Some((_, value))) = (*line, mends, fields.last_mut()) {
            let more = trim(line);
            if !more.is_empty() && !value.is_empty() {
                value.push(b' ');
            }
            value.extend_from_slice(more);
            continue;
        }
        let colon = line.iter().position(|&byte| byte == b':').ok_or("a line without a colon")?;
        let name = if mends { trim_end(&line[..colon]) } else { &line[..colon] };
        if !is_token(name) {
            return Err("a name that is not a token");
        }
        fields.push((name.to_vec(), trim(&line[colon + 1..]).to_vec()));
    }
    Ok(fields)
}

/// What stands in the target, in the form in which it goes on, and whom an absolute one is for.
fn origin_form(method: &[u8], target: &[u8]) -> Result<(Vec<u8>, Option<Vec<u8>>), &'static str> {
    if target.is_empty() || !target.iter().all(|byte| (0x21..=0x7e).contains(byte) && *byte != b'#') {
        return Err("a byte in the target");
    }
    if target[0] == b'/' || (target == b"*" && method == b"OPTIONS") {
        return Ok((target.to_vec(), None));
    }
    if target.len() < 7 || !target[..7].eq_ignore_ascii_case(b"http://") {
        return Err("the form of the target");
    }
    let rest = &target[7..];
    let end = rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || !is_authority(authority) {
        return Err("the host of the target");
    }
    let path = match path {
        [] if method == b"OPTIONS" => b"*".to_vec(),
        [b'/', ..] => path.to_vec(),
        _ => [b"/", path].concat(),
    };
    Ok((path, Some(authority.to_vec())))
}

/// Host and port, or nothing at all.
fn is_authority(bytes: &[u8]) -> bool {
    let (host, port) = match bytes {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|&byte| byte == b']') else { return false };
            let literal = String::from_utf8_lossy(&rest[..end]).into_owned();
            let future = || {
                let (version, address) = literal.strip_prefix(['v', 'V'])?.split_once('.')?;
                let fits = |c: char| c == ':' || c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(c);
                let is_one = !version.is_empty() && !address.is_empty();
                Some(is_one && version.chars().all(|c| c.is_ascii_hexdigit()) && address.chars().all(fits))
            };
            if literal.parse::<std::net::Ipv6Addr>().is_err() && future() != Some(true) {
                return false;
            }
            (&b"literal"[..], &rest[end + 1..])
        }
        _ => bytes.split_at(bytes.iter().position(|&byte| byte == b':').unwrap_or(bytes.len())),
    };
    let mut at = 0;
    while at < host.len() {
        at += match host[at] {
            b'%' if host.len() > at + 2 && host[at + 1..at + 3].iter().all(u8::is_ascii_hexdigit) => 3,
            byte if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte) => 1,
            _ => return false,
        };
    }
    match port {
        [] => true,
        [b':', digits @ ..] => !host.is_empty() && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn connection_names_none_of(fields: &[Field], needed: &[&[u8]]) -> Result<(), &'static str> {
    let named = members(fields, b"connection");
    if all(fields, b"connection").iter().flat_map(|value| value.split(|&byte| byte == b',')).count() > 100 {
        return Err("more options than make sense");
    }
    let names_needed = named.iter().any(|name| needed.iter().any(|needed| name.eq_ignore_ascii_case(needed)));
    if names_needed { Err("Connection names what every hop needs") } else { Ok(()) }
}

/// What the framing fields say, if there are any.
fn framing_fields(fields: &[Field], minor: u8) -> Result<Option<Framing>, &'static str> {
    let has_codings = !all(fields, b"transfer-encoding").is_empty();
    let codings = members(fields, b"transfer-encoding");
    let lengths = members(fields, b"content-length");
    match (has_codings, lengths.split_first()) {
        (false, None) => Ok(None),
        (true, None) => match &codings[..] {
            [coding] if coding.eq_ignore_ascii_case(b"chunked") && minor > 0 => Ok(Some(Framing::Chunked)),
            _ => Err("the coding"),
        },
        (false, Some((first, others))) => {
            let length = number(first).ok_or("a length that is no number")?;
            if others.iter().any(|other| number(other) != Some(length)) {
                return Err("two lengths");
            }
            Ok(Some(Framing::Length(length)))
        }
        (true, Some(_)) => Err("a length and a coding"),
    }
}

/// A chunked body, to its last CRLF.
pub fn chunked(bytes: &[u8]) -> Read<Body> {
    let mut body = Body::default();
    let mut at = 0;
    loop {
        let text = match line(&bytes[at..]) {
            Read::Whole(text) => text,
            Read::Half => return Read::Half,
            Read::Bad(why) => return Read::Bad(why),
        };
        let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = u64::from_str_radix(&String::from_utf8_lossy(&text[..digits]), 16);
        let (Ok(size), true) = (size, digits <= 16) else { return Read::Bad("the size of a chunk") };
        if !is_extensions(&text[digits..]) {
            return Read::Bad("the extensions of a chunk");
        }
        at += text.len() + 2;
        if size == 0 {
            break;
        }
        let rest = &bytes[at..];
        let Some(data) = usize::try_from(size).ok().and_then(|size| rest.get(..size)) else { return Read::Half };
        match &rest[data.len()..] {
            [b'\r', b'\n', ..] => {}
            [] | [b'\r'] => return Read::Half,
            _ => return Read::Bad("no CRLF behind the data of a chunk"),
        }
        body.data.extend_from_slice(data);
        at += data.len() + 2;
    }
    let mut lines = Vec::new();
    loop {
        match line(&bytes[at..]) {
            Read::Whole(text) => {
                at += text.len() + 2;
                if text.is_empty() {
                    break;
                }
                lines.push(text);
            }
            Read::Half => return Read::Half,
            Read::Bad(why) => return Read::Bad(why),
        }
    }
    match fields(&lines, false) {
        Ok(trailers) => Read::Whole(Body { trailers, length: at, ..body }),
        Err(why) => Read::Bad(why),
    }
}

/// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`, and white space behind it only after a value.
fn is_extensions(mut rest: &[u8]) -> bool {
    loop {
        if rest.is_empty() {
            return true;
        }
        rest = trim_start(rest);
        let [b';', behind @ ..] = rest else { return false };
        let Some(behind) = behind_token(trim_start(behind)) else { return false };
        rest = behind;
        if let [b'=', behind @ ..] = trim_start(rest) {
            let behind = trim_start(behind);
            let Some(behind) = behind_token(behind).or_else(|| behind_quoted(behind)) else { return false };
            rest = behind;
        }
    }
}

fn behind_token(bytes: &[u8]) -> Option<&[u8]> {
    let length = bytes.iter().take_while(|&&byte| is_token(&[byte])).count();
    (length > 0).then(|| &bytes[length..])
}

fn behind_quoted(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', _, behind @ ..] => behind,
            [b'\\'] | [] => return None,
            [_, behind @ ..] => behind,
        };
    }
}

/// The values of all fields of this name, which is given in lower case.
pub fn all<'f>(fields: &'f [Field], name: &[u8]) -> Vec<&'f [u8]> {
    fields.iter().filter(|field| field.0.eq_ignore_ascii_case(name)).map(|field| &field.1[..]).collect()
}

/// The members of a list, over all its lines; an empty line has one, an empty one.
pub fn members<'f>(fields: &'f [Field], name: &[u8]) -> Vec<&'f [u8]> {
    all(fields, name).into_iter().flat_map(|value| value.split(|&byte| byte == b',')).map(trim).collect()
}

/// A decimal number of 64 bits.
pub fn number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let text = text.trim_start_matches('0');
    if text.is_empty() { Some(0) } else { text.parse().ok() }
}

/// RFC 9110 section 5.6.2.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Without the white space around it.
pub fn trim(bytes: &[u8]) -> &[u8] {
    trim_start(trim_end(bytes))
}

fn trim_start(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|byte| b" \t".contains(byte)).count()..]
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len() - bytes.iter().rev().take_while(|byte| b" \t".contains(byte)).count()]
}

fn count(text: &[u8], word: &[u8]) -> usize {
    let mut rest = text;
    let mut found = 0;
    while let Some(at) = rest.windows(word.len()).position(|window| window == word) {
        found += 1;
        rest = &rest[at + word.len()..];
    }
    found
}

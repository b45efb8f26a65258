//! The wire log: what happens for a client, call by call, for whoever learns or looks for a fault.
//!
//! One line for every call on a socket, every decision, every park and every wake-up. What is said on the wire is shown
//! by its first bytes; the values of fields that let somebody in are masked, wherever the bytes were cut. `docs/LOGS.md` shows
//! what it looks like.

use crate::lines::Lines;
use crate::net::{Call, Glance, Observer};
use std::fmt::{self, Write};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// So much is shown of what a call has moved: the beginning of most heads, on a line that fits a wide window.
const SHOWN: usize = 96;

/// Fields whose values let somebody in.
const SECRETS: [&str; 5] = ["authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key"];

/// What is told of one client, until it is handed over.
pub struct Trail {
    log: Arc<Lines>,
    began: Instant,
    /// The number of its connection.
    client: u64,
    /// Whose turn it is.
    worker: AtomicUsize,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    lines: String,
    /// Whom the connections beside the client's are to.
    backend: String,
    /// How far what is said on each connection has come, in either direction.
    masks: Vec<(u64, Direction, Mask)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

impl Trail {
    /// The trail of a client that this worker has just accepted.
    pub fn new(log: &Arc<Lines>, client: u64, peer: SocketAddr, began: Instant, worker: usize) -> Trail {
        let (log, worker) = (Arc::clone(log), AtomicUsize::new(worker));
        let trail = Trail { log, began, client, worker, notes: Mutex::default() };
        trail.line("client", format_args!("accepted from {peer}"));
        trail
    }

    /// A worker goes on with it.
    pub fn turn_of(&self, worker: usize) {
        self.worker.store(worker, Ordering::Relaxed);
    }

    /// Hands the lines so far over to the writer. To be done before another worker may go on with the client: so they
    /// stay in order.
    pub fn hand_over(&self) {
        let mut lines = std::mem::take(&mut self.notes().lines).into_bytes();
        self.log.send(&mut lines);
    }

    fn line(&self, socket: &str, what: fmt::Arguments<'_>) {
        let micros = self.began.elapsed().as_micros();
        let worker = format!("w{}", self.worker.load(Ordering::Relaxed));
        let client = format!("#{}", self.client);
        let mut notes = self.notes();
        writeln!(notes.lines, "{micros:>9} us  {worker:<3} {client:<6} {socket:<22} {what}")
            .expect("writing to a String can't fail");
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Lines are only ever appended.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first bytes of what has gone over a connection, harmless and without secrets.
    fn quote<'b>(&self, number: u64, direction: Direction, bytes: impl Iterator<Item = &'b u8>) -> String {
        let mut notes = self.notes();
        let found = notes.masks.iter().position(|(of, which, _)| (*of, *which) == (number, direction));
        let at = found.unwrap_or_else(|| {
            notes.masks.push((number, direction, Mask::default()));
            notes.masks.len() - 1
        });
        let mask = &mut notes.masks[at].2;
        let mut shown = String::from("\"");
        let mut is_masked = false;
        let mut is_more = false;
        for (nth, &byte) in bytes.enumerate() {
            let is_secret = mask.hides(byte); // of those that are not shown too, so that it knows where it is
            if nth >= SHOWN {
                is_more = true;
            } else if !is_secret {
                is_masked = false;
                escape(byte, &mut shown);
            } else if !std::mem::replace(&mut is_masked, true) {
                shown.push_str("***");
            }
        }
        shown.push('"');
        if is_more {
            shown.push_str(" ...");
        }
        shown
    }
}

impl Drop for Trail {
    /// Behind the last call on the last connection of its client.
    fn drop(&mut self) {
        self.hand_over();
    }
}

impl Observer for Trail {
    fn call(&self, number: u64, call: &Call<'_>) {
        let socket =
            if number == self.client { "client".to_owned() } else { format!("{} #{number}", self.notes().backend) };
        let line = |what: fmt::Arguments<'_>| self.line(&socket, what);
        match call {
            Call::Dial(address) => line(format_args!("connects to {address}")),
            Call::Bind => line(format_args!("is taken from the spares")),
            Call::Read(Ok([])) => line(format_args!("< end")),
            Call::Read(Ok(bytes)) => {
                let quote = self.quote(number, Direction::In, bytes.iter());
                line(format_args!("< {} B  {quote}", bytes.len()));
            }
            Call::Read(Err(error)) if error.kind() == ErrorKind::WouldBlock => line(format_args!("< nothing yet")),
            Call::Read(Err(error)) => line(format_args!("< lost: {error}")),
            Call::Write(pieces, Ok(taken)) => {
                let wanted: usize = pieces.iter().map(|piece| piece.len()).sum();
                let bytes = pieces.iter().copied().flatten().take(*taken);
                let quote = self.quote(number, Direction::Out, bytes);
                match wanted - taken {
                    0 => line(format_args!("> {taken} B  {quote}")),
                    _ => line(format_args!("> {taken} of {wanted} B  {quote}")),
                }
            }
            Call::Write(_, Err(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                line(format_args!("> takes nothing yet"));
            }
            Call::Write(_, Err(error)) => line(format_args!("> lost: {error}")),
            Call::Glance(Glance::Quiet) => line(format_args!("? open, and nothing to read")),
            Call::Glance(Glance::Bytes) => line(format_args!("? something to read")),
            Call::Glance(Glance::Ended) => line(format_args!("? at its end")),
            Call::Shutdown => line(format_args!("> end")),
            Call::Reset => line(format_args!("is to be closed with a reset")),
            Call::Rest => line(format_args!("rests as a spare")),
            Call::Close => line(format_args!("closed")),
        }
        if matches!(call, Call::Rest | Call::Close) {
            self.notes().masks.retain(|(of, _, _)| *of != number);
        }
    }

    fn note(&self, what: fmt::Arguments<'_>) {
        self.line("", what);
    }

    fn meet(&self, name: &str) {
        self.notes().backend.replace_range(.., name);
    }
}

/// Quotes and backslashes are escaped, and everything that is not visible ASCII.
fn escape(byte: u8, out: &mut String) {
    match byte {
        b'\'' => out.push('\''), // needs no escape between quotes
        _ => out.extend(std::ascii::escape_default(byte).map(char::from)),
    }
}

/// Tells which bytes are of a secret field's value, however the bytes are cut.
///
/// All that goes over a connection is read as lines, bodies too: what looks like such a field there is masked as well.
#[derive(Default)]
struct Mask {
    place: Place,
    name: String,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// In what may be a field's name.
    #[default]
    Name,
    /// In the value of one that is no secret, or in what is no field.
    Plain,
    /// In the value of one that is.
    Secret,
    /// Behind the line of one that is: if it goes on with a blank, the value does.
    BehindSecret,
}

impl Mask {
    /// Takes the next byte in, and says whether it is a secret.
    fn hides(&mut self, byte: u8) -> bool {
        if byte == b'\n' {
            self.name.clear();
            self.place = if self.place == Place::Secret { Place::BehindSecret } else { Place::Name };
            return false;
        }
        if self.place == Place::BehindSecret {
            self.place = if matches!(byte, b' ' | b'\t') { Place::Secret } else { Place::Name };
        }
        match self.place {
            Place::Name if byte == b':' => {
                let name = self.name.trim_end();
                let is_secret = SECRETS.iter().any(|secret| secret.eq_ignore_ascii_case(name));
                self.place = if is_secret { Place::Secret } else { Place::Plain };
                false
            }
            Place::Name => {
                self.name.push(char::from(byte));
                if self.name.len() > 40 {
                    self.place = Place::Plain; // no secret has so long a name, even with blanks behind it
                }
                false
            }
            Place::Secret => !matches!(byte, b'\r' | b' '),
            Place::Plain | Place::BehindSecret => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail() -> Trail {
        Trail::new(&Arc::new(Lines::new("log of a test")), 1, ([127, 0, 0, 1], 1).into(), Instant::now(), 0)
    }

    /// What is shown of this, cut before each of these places.
    fn shown(text: &str, cuts: &[usize]) -> String {
        let trail = trail();
        let mut all = String::new();
        let mut begin = 0;
        for &cut in cuts.iter().chain([&text.len()]) {
            let quote = trail.quote(1, Direction::In, text.as_bytes()[begin..cut].iter());
            all += quote.trim_matches('"');
            begin = cut;
        }
        all
    }

    #[test]
    fn what_lets_somebody_in_is_masked_however_the_bytes_are_cut() {
        // No other word has a Q.
        let rows = [
            "GET / HTTP/1.1\r\nCookie: QQQQ\r\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nauthorization:QQQQ\r\n\r\n",
            "GET / HTTP/1.1\r\nProxy-Authorization:  Basic QQQQ\r\n\r\n",
            "HTTP/1.1 200 OK\r\nSet-Cookie : a\r\n QQQQ\r\nX: y\r\n",
            "X-Api-Key: QQQQ",
        ];
        for row in rows {
            for one in 0..=row.len() {
                for other in one..=row.len() {
                    let shown = shown(row, &[one, other]);
                    assert!(!shown.contains('Q'), "{row:?} cut at {one} and {other}: {shown}");
                }
            }
            assert!(!row.contains("X: y") || shown(row, &[]).contains("X: y"), "{}", shown(row, &[]));
        }
    }

    #[test]
    fn what_is_shown_is_visible_ascii_and_no_more_than_the_beginning() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let trail = trail();
        for chunk in all.chunks(16) {
            let quote = trail.quote(1, Direction::Out, chunk.iter());
            assert!(quote.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{quote}");
        }
        let long = trail.quote(2, Direction::Out, [b'a'; 1000].iter());
        assert_eq!(long, format!("\"{}\" ...", "a".repeat(SHOWN)));
        assert_eq!(trail.quote(3, Direction::Out, b"it's \"so\"\r\n".iter()), r#""it's \"so\"\r\n""#);
    }
}

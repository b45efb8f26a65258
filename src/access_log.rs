//! One line for each finished exchange.
//!
//! Workers never write to a file. They gather lines while they work, hand them over once per batch of turns, and go on;
//! one thread writes. When it can't keep up, because a disk is full or a pipe is slow, lines are dropped and counted:
//! the log may stop, the traffic may not.

use crate::error::Reason;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// What is told of a finished exchange.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// When it ended.
    pub ended: SystemTime,
    /// Who asked.
    pub client: SocketAddr,
    /// The method and target as they were asked for; empty when the request line was not understood.
    pub method: &'a [u8],
    /// See `method`.
    pub target: &'a [u8],
    /// The request's id; empty if it has none.
    pub id: &'a [u8],
    /// The status that went out, or 499.
    pub status: u16,
    /// Bytes of the request's body that came from the client, without their framing; in a tunnel, all that came.
    pub bytes_in: u64,
    /// Bytes of the answer's body that went out, without their framing, whoever the answer was from; in a tunnel, all
    /// that went out.
    pub bytes_out: u64,
    /// In the queue for a place at a backend; `None` if it did not wait.
    pub queued: Option<Duration>,
    /// From the choice of a backend to the connection; `None` for a spare, and where nobody was reached.
    pub connect: Option<Duration>,
    /// From the request's last byte to the answer's head; `None` if no backend has answered.
    pub first_byte: Option<Duration>,
    /// From the request's first byte to the answer's last.
    pub total: Duration,
    /// Who answered, or was asked last; `None` if nobody was asked.
    pub backend: Option<&'a str>,
    /// How many backends were asked; 0 for a request that was refused.
    pub tries: u32,
    /// Why it did not go as the client hoped.
    pub reason: Option<Reason>,
}

/// As many batches of lines may wait for the writer; beyond them, lines are dropped. At 8 lines a batch this is half a
/// second of a busy machine.
const BATCHES: usize = 8192;

/// How long the writer lets lines gather. A sender that finds it asleep in the channel pays a wake-up, so it is not
/// woken for each batch, but for the first after a silence.
const GATHER: Duration = Duration::from_millis(20);

/// Where workers hand their lines over.
#[derive(Debug)]
pub struct AccessLog {
    batches: Sender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Starts the writer.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<(AccessLog, JoinHandle<()>)> {
        let (batches, incoming) = bounded(BATCHES);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        let writer = std::thread::Builder::new().name("access log".to_owned()).spawn(move || {
            write_all(&incoming, out, &lost);
        })?;
        Ok((AccessLog { batches, dropped }, writer))
    }

    /// Hands over a batch of lines, and leaves the buffer empty.
    pub fn send(&self, lines: &mut Vec<u8>) {
        if lines.is_empty() {
            return;
        }
        let batch = std::mem::take(lines);
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = self.batches.try_send(batch) {
            self.dropped.fetch_add(count_lines(&batch), Ordering::Relaxed);
        }
    }

    /// Ends the writer, once everything handed over so far is written.
    pub fn end(&self) {
        // An empty batch is the end. If there is no room even for that, the writer hangs, and is left behind.
        let _full = self.batches.send_timeout(Vec::new(), Duration::from_millis(100));
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn count_lines(batch: &[u8]) -> u64 {
    batch.iter().map(|&byte| u64::from(byte == b'\n')).sum()
}

fn write_all(batches: &Receiver<Vec<u8>>, mut out: impl Write, dropped: &AtomicU64) {
    let mut gathered = Vec::new();
    let mut healthy = true;
    let mut told = 0;
    let mut ended = false;
    while !ended && let Ok(first) = batches.recv() {
        if !first.is_empty() {
            std::thread::sleep(GATHER);
        }
        for batch in std::iter::once(first).chain(batches.try_iter()) {
            ended |= batch.is_empty();
            gathered.extend_from_slice(&batch);
        }
        match out.write_all(&gathered).and_then(|()| out.flush()) {
            Ok(()) => healthy = true,
            Err(error) => {
                dropped.fetch_add(count_lines(&gathered), Ordering::Relaxed);
                if healthy {
                    log::warn!("the access log can't be written: {error}");
                }
                healthy = false;
            }
        }
        gathered.clear();
        let lost = dropped.load(Ordering::Relaxed);
        if healthy && lost > told {
            log::warn!("the access log has lost {} lines", lost - told);
            told = lost;
        }
    }
}

/// Writes times as text, and remembers the last second: within it, only the milliseconds differ.
#[derive(Debug, Default)]
pub struct Clock {
    second: u64,
    text: String,
}

impl Clock {
    fn write(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if since.as_secs() != self.second || self.text.is_empty() {
            self.second = since.as_secs();
            let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(self.second);
            self.text = humantime::format_rfc3339_seconds(whole).to_string();
        }
        out.extend_from_slice(self.text.trim_end_matches('Z').as_bytes());
        write_to(out, format_args!(".{:03}Z", since.subsec_millis()));
    }
}

/// Appends the line for one outcome.
///
/// ```text
/// 2026-01-02T03:04:05.678Z 127.0.0.1:50000 "GET /x" 200 29B 1.2ms (connect 0.1ms wait 0.9ms) 127.0.0.1:8081/b8081 id=8d1f
/// ```
pub fn write_line(outcome: &Outcome<'_>, clock: &mut Clock, out: &mut Vec<u8>) {
    clock.write(outcome.ended, out);
    write_to(out, format_args!(" {} \"", outcome.client));
    if outcome.method.is_empty() {
        out.push(b'-');
    } else {
        escape(outcome.method, out);
        out.push(b' ');
        escape(outcome.target, out);
    }
    write_to(out, format_args!("\" {} {}B ", outcome.status, outcome.bytes_out));
    milliseconds(outcome.total, out);
    let parts = [("queue", outcome.queued), ("connect", outcome.connect), ("wait", outcome.first_byte)];
    let known = parts.into_iter().filter_map(|(name, duration)| Some((name, duration?)));
    for (nth, (name, duration)) in known.clone().enumerate() {
        write_to(out, format_args!("{}{name} ", if nth == 0 { " (" } else { " " }));
        milliseconds(duration, out);
    }
    if known.count() > 0 {
        out.push(b')');
    }
    write_to(out, format_args!(" {}", outcome.backend.unwrap_or("-")));
    if outcome.tries > 1 {
        write_to(out, format_args!(" tries={}", outcome.tries));
    }
    if outcome.bytes_in > 0 {
        write_to(out, format_args!(" in={}B", outcome.bytes_in));
    }
    if !outcome.id.is_empty() {
        out.extend_from_slice(b" id=");
        escape(outcome.id, out);
    }
    if let Some(reason) = outcome.reason {
        write_to(out, format_args!(" {}", reason.word()));
    }
    out.push(b'\n');
}

fn milliseconds(duration: Duration, out: &mut Vec<u8>) {
    let micros = duration.as_micros();
    write_to(out, format_args!("{}.{}ms", micros / 1000, micros % 1000 / 100));
}

/// What a stranger wrote must not end our line, nor steer somebody's terminal.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => write_to(out, format_args!("\\x{byte:02x}")),
        }
    }
}

fn write_to(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a Vec can't fail");
}

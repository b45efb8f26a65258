//! Requests, counted by backend and timed: in a closed loop or in an open one.
//!
//! In a closed loop each client sends its next request when it has its answer. So when the server stops, the clients
//! stop with it, and the requests that would have come meanwhile are neither sent nor missed: a stall of a second is
//! one slow answer. In an open loop requests are due at fixed times, and each is timed from when it was due.

use clap::Parser;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Sends requests, and says how they fared.
#[derive(Parser)]
pub(crate) struct Settings {
    /// To whom.
    #[arg(value_name = "ADDR:PORT")]
    to: SocketAddr,
    /// What for.
    #[arg(default_value = "/")]
    path: String,
    /// With what method.
    #[arg(long, default_value = "GET")]
    method: String,
    /// How many requests, in all.
    #[arg(long, value_name = "N", default_value_t = 100)]
    requests: u32,
    /// How many clients, each with a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 1)]
    clients: u32,
    /// An open loop: so many requests are due every second, whether there are answers or not.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// How long an answer is waited for.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = super::duration)]
    patience: Duration,
    /// A field that every request has: `Name: value`. May be repeated.
    #[arg(long, value_name = "FIELD")]
    field: Vec<String>,
}

/// What came of all requests.
#[derive(Default)]
struct Tally {
    answers: BTreeMap<u16, u32>,
    backends: BTreeMap<String, u32>,
    failures: BTreeMap<&'static str, u32>,
    from_sending: Vec<Duration>,
    from_due: Vec<Duration>,
}

/// Sends them all, and prints the tally.
pub(crate) fn run(settings: &Settings) -> io::Result<()> {
    let next = AtomicU32::new(0);
    let tally = Mutex::new(Tally::default());
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..settings.clients.max(1) {
            scope.spawn(|| send(settings, &next, began, &tally));
        }
    });
    let took = began.elapsed();
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.print(settings, took);
    Ok(())
}

/// One client: takes request after request, until there is none left.
fn send(settings: &Settings, next: &AtomicU32, began: Instant, tally: &Mutex<Tally>) {
    let mut connection = None;
    loop {
        let nth = next.fetch_add(1, Ordering::Relaxed);
        if nth >= settings.requests {
            return;
        }
        let due = match settings.rate {
            Some(rate) => began + Duration::from_secs(1) * nth / rate.max(1),
            None => Instant::now(),
        };
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let sent = Instant::now();
        let outcome = exchange(settings, &mut connection);
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.from_sending.push(sent.elapsed());
        tally.from_due.push(due.elapsed());
        match outcome {
            Ok(answer) => {
                *tally.answers.entry(answer.status).or_default() += 1;
                *tally.backends.entry(answer.backend.unwrap_or_else(|| "-".to_owned())).or_default() += 1;
            }
            Err(failure) => {
                connection = None;
                *tally.failures.entry(failure).or_default() += 1;
            }
        }
    }
}

struct Answer {
    status: u16,
    /// What `lab backend` calls itself.
    backend: Option<String>,
}

/// A connection that was kept ended before the first byte of an answer.
const GONE: &str = "closed without an answer";

/// One request and its answer, over the connection that there is, or a new one. A server may close a kept connection at any
/// moment, so a GET is sent again then, as browsers do it (RFC 9112 section 9.3.1); a POST is not.
fn exchange(settings: &Settings, kept: &mut Option<BufReader<TcpStream>>) -> Result<Answer, &'static str> {
    if let Some(connection) = kept.take() {
        let outcome = ask(settings, connection, kept);
        let may_repeat = ["GET", "HEAD"].contains(&settings.method.as_str());
        if !(may_repeat && outcome.as_ref().is_err_and(|failure| *failure == GONE)) {
            return outcome;
        }
    }
    let socket = TcpStream::connect(settings.to).map_err(|_| "refused")?;
    socket.set_nodelay(true).and_then(|()| socket.set_read_timeout(Some(settings.patience))).map_err(word)?;
    ask(settings, BufReader::new(socket), kept)
}

/// One request and its answer over this connection, which is kept if it goes on.
fn ask(
    settings: &Settings,
    mut connection: BufReader<TcpStream>,
    kept: &mut Option<BufReader<TcpStream>>,
) -> Result<Answer, &'static str> {
    let Settings { method, path, to, .. } = settings;
    let fields: String = settings.field.iter().map(|field| format!("{field}\r\n")).collect();
    let length = if method == "POST" || method == "PUT" { "Content-Length: 0\r\n" } else { "" };
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\n{fields}{length}\r\n");
    connection.get_mut().write_all(request.as_bytes()).map_err(|_| GONE)?;
    match connection.fill_buf() {
        Ok([]) => return Err(GONE),
        Err(error) if word_for(&error) == TOO_LATE => return Err(TOO_LATE),
        Err(_) => return Err(GONE),
        Ok(_) => {}
    }
    let (answer, stays) = read_answer(&mut connection, method == "HEAD")?;
    if stays {
        *kept = Some(connection);
    }
    Ok(answer)
}

/// An answer, and whether the connection goes on.
fn read_answer(from: &mut BufReader<TcpStream>, to_head: bool) -> Result<(Answer, bool), &'static str> {
    let status_line = line(from)?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("not HTTP")?;
    let mut answer = Answer { status, backend: None };
    let (mut length, mut chunked, mut stays) = (None, false, true);
    loop {
        let field = line(from)?;
        let Some((name, value)) = field.split_once(':') else { break };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok(),
            "transfer-encoding" => chunked = true,
            "connection" => stays = !value.eq_ignore_ascii_case("close"),
            "x-backend" => answer.backend = Some(value.to_owned()),
            _ => {}
        }
    }
    if to_head || status == 204 || status == 304 {
        return Ok((answer, stays));
    }
    if chunked {
        loop {
            let size = u64::from_str_radix(&line(from)?, 16).map_err(|_| "not HTTP")?;
            pass_over(from, size)?;
            line(from)?;
            if size == 0 {
                return Ok((answer, stays));
            }
        }
    }
    match length {
        Some(length) => pass_over(from, length)?,
        None => {
            io::copy(from, &mut io::sink()).map_err(word)?;
            stays = false;
        }
    }
    Ok((answer, stays))
}

fn line(from: &mut BufReader<TcpStream>) -> Result<String, &'static str> {
    let mut line = String::new();
    from.read_line(&mut line).map_err(word)?;
    if line.ends_with('\n') { Ok(line.trim_end().to_owned()) } else { Err("cut off") }
}

fn pass_over(from: &mut BufReader<TcpStream>, length: u64) -> Result<(), &'static str> {
    let passed = io::copy(&mut from.take(length), &mut io::sink()).map_err(word)?;
    if passed == length { Ok(()) } else { Err("cut off") }
}

const TOO_LATE: &str = "too late";

fn word(error: io::Error) -> &'static str {
    word_for(&error)
}

fn word_for(error: &io::Error) -> &'static str {
    if error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::TimedOut { TOO_LATE } else { "cut off" }
}

impl Tally {
    fn print(mut self, settings: &Settings, took: Duration) {
        let count = self.from_sending.len();
        let rate = count as f64 / took.as_secs_f64();
        tell!("requests   {count}, {rate:.0}/s");
        tell!("answers    {}", list(&self.answers));
        if !self.failures.is_empty() {
            tell!("failures   {}", list(&self.failures));
        }
        tell!("backends   {}", list(&self.backends));
        tell!("time       {}", percentiles(&mut self.from_sending));
        if settings.rate.is_some() {
            tell!("since due  {}", percentiles(&mut self.from_due));
        }
    }
}

fn list<K: std::fmt::Display>(counts: &BTreeMap<K, u32>) -> String {
    let counts: Vec<String> = counts.iter().map(|(what, count)| format!("{what}: {count}")).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let within = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    let show = |percent| within(percent).copied().map(super::show).unwrap_or_default();
    format!("half within {}, 90 % within {}, 99 % within {}, slowest {}", show(50), show(90), show(99), show(100))
}

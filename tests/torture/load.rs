//! Clients that keep a balancer busy, and believe nothing that they hear.
//!
//! In a closed loop a client asks again when it has its answer, so a stall hides the requests that it held back. In an
//! open loop requests are due when they are due, and each one's time counts from then.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Side, checksum, chunks, content, is_chunked, scramble};

/// No id is used twice while a process lives. 0 is nobody's.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The longest that a client waits for a byte. Longer than any time of the balancer's that a test sets.
const LONGEST_SILENCE: Duration = Duration::from_secs(20);

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The backend's whole answer, byte for byte, and the backend's name.
    Whole(String),
    /// An answer that began, and recognisably broke off.
    Cut,
    /// The balancer's own answer: a status and what it says.
    Refused(String),
    /// No byte of an answer.
    Nothing(String),
}

/// One request, as its client saw it.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) id: u64,
    pub(crate) is_post: bool,
    /// When it was sent, or due.
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    pub(crate) outcome: Outcome,
}

impl Sample {
    pub(crate) fn ended(&self) -> Instant {
        self.began + self.took
    }

    fn is_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Refused(_) | Outcome::Nothing(_))
    }
}

/// What all clients saw.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) samples: Vec<Sample>,
    /// What must never happen, in sentences.
    pub(crate) violations: Vec<String>,
    /// Kept connections that were closed before a byte of the answer, whose GET was therefore sent again.
    pub(crate) stale: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.samples.extend(other.samples);
        self.violations.extend(other.violations);
        self.stale += other.stale;
    }

    /// GETs, or POSTs, that got no byte of a backend's answer.
    pub(crate) fn failed(&self, is_post: bool) -> usize {
        self.samples.iter().filter(|sample| sample.is_post == is_post && sample.is_failed()).count()
    }

    /// Answers that began and broke off, to GETs or POSTs.
    pub(crate) fn cut(&self, is_post: bool) -> usize {
        self.samples.iter().filter(|sample| sample.is_post == is_post && sample.outcome == Outcome::Cut).count()
    }

    pub(crate) fn worst(&self) -> Duration {
        self.samples.iter().map(|sample| sample.took).max().unwrap_or_default()
    }

    pub(crate) fn longer_than(&self, time: Duration) -> usize {
        self.samples.iter().filter(|sample| sample.took > time).count()
    }

    /// How many whole answers came from this backend.
    pub(crate) fn answered_by(&self, name: &str) -> usize {
        self.samples.iter().filter(|sample| sample.outcome == Outcome::Whole(name.to_owned())).count()
    }

    /// The time from `moment` until a backend's share is back: the end of the first 100 ms in which it gave at least
    /// 80 % of `fair`, its share of all answers. None if that never came.
    pub(crate) fn share_back(&self, name: &str, fair: f64, moment: Instant) -> Option<Duration> {
        let mut whole: Vec<(Duration, bool)> = Vec::new();
        for sample in &self.samples {
            if let (Outcome::Whole(by), Some(since)) = (&sample.outcome, sample.ended().checked_duration_since(moment))
            {
                whole.push((since, by == name));
            }
        }
        whole.sort_unstable();
        let window = Duration::from_millis(100);
        let last = whole.last()?.0;
        for (nth, (first, is_its)) in whole.iter().enumerate() {
            if !is_its || *first + window > last {
                continue;
            }
            let within = whole[nth..].iter().take_while(|(since, _)| *since < *first + window);
            let (all, its) = within.fold((0, 0), |(all, its), (_, is_its)| (all + 1, its + usize::from(*is_its)));
            if f64::from(its as u32) >= 0.8 * fair * f64::from(all) {
                return Some(*first + window);
            }
        }
        None
    }

    /// Why requests failed, and how often.
    pub(crate) fn reasons(&self) -> BTreeMap<String, usize> {
        let mut reasons = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.is_failed()) {
            if let Outcome::Refused(why) | Outcome::Nothing(why) = &sample.outcome {
                let method = if sample.is_post { "POST" } else { "GET" };
                *reasons.entry(format!("{method}: {why}")).or_default() += 1;
            }
        }
        reasons
    }
}

/// Clients in a closed loop, until they are told to finish.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// So many clients, each with a connection of its own, of whose requests so many in a hundred are POSTs; each waits
    /// for up to `pause` between two requests.
    pub(crate) fn start(address: SocketAddr, clients: usize, posts: u64, pause: Duration) -> Self {
        let (stop, begun) = (Arc::new(AtomicBool::new(false)), Arc::<AtomicUsize>::default());
        let run = |nth: usize| {
            let (stop, begun) = (Arc::clone(&stop), Arc::clone(&begun));
            spawn(move || {
                let mut client = Client::new(address);
                let mut die = scramble(nth as u64);
                // Bounded in count as well: a million samples of a client are more than anybody asked for.
                while !stop.load(Ordering::SeqCst) && client.tally.samples.len() < 1_000_000 {
                    die = scramble(die);
                    begun.fetch_add(1, Ordering::SeqCst);
                    client.ask((die >> 32) % 100 < posts, Instant::now());
                    if !pause.is_zero() {
                        thread::sleep(pause.mul_f64((die % 1000) as f64 / 1000.0));
                    }
                }
                client.tally
            })
        };
        Self { clients: (0..clients).map(run).collect(), stop, begun }
    }

    /// So many clients, each of which GETs every `rest`, and looks before whether its connection has been closed.
    pub(crate) fn regular(address: SocketAddr, clients: u32, rest: Duration) -> Self {
        let (stop, begun) = (Arc::new(AtomicBool::new(false)), Arc::<AtomicUsize>::default());
        let run = |nth: u32| {
            let (stop, begun) = (Arc::clone(&stop), Arc::clone(&begun));
            spawn(move || {
                let mut client = Client::new(address);
                thread::sleep(rest * nth / clients);
                while !stop.load(Ordering::SeqCst) {
                    begun.fetch_add(1, Ordering::SeqCst);
                    client.look();
                    client.ask(false, Instant::now());
                    thread::sleep(rest);
                }
                client.tally
            })
        };
        Self { clients: (0..clients).map(run).collect(), stop, begun }
    }

    /// Requests begun so far.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// Lets every client have its last answer.
    pub(crate) fn finish(self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        let mut tally = Tally::default();
        for client in self.clients {
            tally.add(client.join().unwrap());
        }
        tally
    }
}

/// GETs in an open loop: so many a second, for so long. A request that is due never waits for another: if every client
/// is busy there is one more.
pub(crate) fn open_loop(address: SocketAddr, a_second: u32, time: Duration) -> JoinHandle<Tally> {
    spawn(move || {
        let (due, dues) = crossbeam_channel::unbounded::<Instant>();
        let idle = Arc::<AtomicUsize>::default();
        let mut clients = Vec::new();
        let began = Instant::now();
        for nth in 0.. {
            let moment = began + Duration::from_secs(1) * nth / a_second;
            if moment > began + time {
                break;
            }
            thread::sleep(moment.saturating_duration_since(Instant::now()));
            // A client counts itself idle; whoever hands out a request counts it busy.
            if idle.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |idle| idle.checked_sub(1)).is_err() {
                let (dues, idle) = (dues.clone(), Arc::clone(&idle));
                clients.push(spawn(move || {
                    let mut client = Client::new(address);
                    while let Ok(moment) = dues.recv() {
                        client.ask(false, moment);
                        idle.fetch_add(1, Ordering::SeqCst);
                    }
                    client.tally
                }));
            }
            due.send(moment).unwrap();
        }
        drop(due);
        let mut tally = Tally::default();
        for client in clients {
            tally.add(client.join().unwrap());
        }
        tally
    })
}

fn spawn(run: impl FnOnce() -> Tally + Send + 'static) -> JoinHandle<Tally> {
    thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap()
}

/// A client with one connection, which it keeps as long as it may.
pub(crate) struct Client {
    address: SocketAddr,
    kept: Option<BufReader<TcpStream>>,
    pub(crate) tally: Tally,
}

/// An answer: its status, its fields in lower case, its body.
struct Answer {
    status: u16,
    fields: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// Why there is no whole answer.
enum Lack {
    /// Not one byte came.
    Nothing(io::Error),
    /// It broke off.
    Cut,
    /// It is not HTTP.
    Malformed(String),
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, kept: None, tally: Tally::default() }
    }

    /// Leaves a connection that has ended.
    fn look(&mut self) {
        let has_ended = |stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            let seen = stream.peek(&mut [0]);
            stream.set_nonblocking(false).unwrap();
            !seen.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        };
        self.kept.take_if(|kept| has_ended(kept.get_ref()));
    }

    /// Makes one request, due at this moment, and keeps account of what came of it.
    pub(crate) fn ask(&mut self, is_post: bool, due: Instant) {
        let id = NEXT_ID.fetch_add(1, Ordering::SeqCst);
        let outcome = self.outcome(id, is_post);
        self.tally.samples.push(Sample { id, is_post, began: due, took: due.elapsed(), outcome });
    }

    fn outcome(&mut self, id: u64, is_post: bool) -> Outcome {
        loop {
            let was_kept = self.kept.is_some();
            match self.exchange(id, is_post) {
                Ok(answer) => return self.judge(id, answer),
                // What every client does (RFC 9110 section 9.2.2): the close of a kept connection may have crossed a
                // request, and one that may be repeated is.
                Err(Lack::Nothing(_)) if was_kept && !is_post => self.tally.stale += 1,
                Err(Lack::Nothing(error)) => {
                    let connection = if was_kept { "a kept" } else { "a new" };
                    return Outcome::Nothing(format!("no byte on {connection} connection: {}", error.kind()));
                }
                Err(Lack::Cut) => return Outcome::Cut,
                Err(Lack::Malformed(why)) => {
                    self.tally.violations.push(format!("the answer to {id} is no HTTP: {why}"));
                    return Outcome::Cut;
                }
            }
        }
    }

    fn judge(&mut self, id: u64, answer: Answer) -> Outcome {
        let field = |name: &str| answer.fields.get(name).map_or("", String::as_str);
        if field("x-id").is_empty() {
            let said = String::from_utf8_lossy(&answer.body);
            if answer.status < 500 {
                self.tally.violations.push(format!("request {id}: a {} that no backend sent: {said}", answer.status));
            }
            // The status and the reason word; behind them is the request's own id.
            let why = said.split(" (").next().unwrap_or_default();
            return Outcome::Refused(if why.is_empty() { answer.status.to_string() } else { why.to_owned() });
        }
        let expected = content(id, Side::Answer);
        if field("x-id") != id.to_string()
            || answer.body.starts_with(b"id=") && !answer.body.starts_with(&expected[..8.min(expected.len())])
        {
            self.tally.violations.push(format!("request {id} got the answer to {}", field("x-id")));
        } else if answer.body != expected || field("x-checksum") != format!("{:x}", checksum(&expected)) {
            let (came, due) = (answer.body.len(), expected.len());
            self.tally.violations.push(format!("the answer to {id} looks whole and isn't: {came} bytes of {due}"));
        } else if answer.status != 200 {
            self.tally.violations.push(format!("request {id} reached its backend spoilt: {}", answer.status));
        }
        Outcome::Whole(field("x-backend").to_owned())
    }

    fn exchange(&mut self, id: u64, is_post: bool) -> Result<Answer, Lack> {
        let mut stream = match self.kept.take() {
            Some(stream) => stream,
            None => connect(self.address).map_err(Lack::Nothing)?,
        };
        let sent = send(stream.get_ref(), id, is_post);
        // Even if it could not all be sent there may be an answer: the reason why.
        let answer = match read_answer(&mut stream) {
            Err(Lack::Nothing(error)) => return Err(Lack::Nothing(sent.err().unwrap_or(error))),
            other => other?,
        };
        let closes = answer.fields.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !closes {
            if !stream.buffer().is_empty() {
                self.tally.violations.push(format!("{} bytes behind the answer to {id}", stream.buffer().len()));
            } else if sent.is_ok() {
                self.kept = Some(stream);
            }
        }
        Ok(answer)
    }
}

fn connect(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LONGEST_SILENCE))?;
    stream.set_write_timeout(Some(LONGEST_SILENCE))?;
    Ok(BufReader::with_capacity(32 << 10, stream))
}

fn send(mut stream: &TcpStream, id: u64, is_post: bool) -> io::Result<()> {
    if !is_post {
        return stream.write_all(format!("GET /{id} HTTP/1.1\r\nHost: torture\r\nX-Id: {id}\r\n\r\n").as_bytes());
    }
    let body = content(id, Side::Upload);
    let sum = checksum(&body);
    let mut request =
        format!("POST /{id} HTTP/1.1\r\nHost: torture\r\nX-Id: {id}\r\nX-Checksum: {sum:x}\r\n").into_bytes();
    if is_chunked(id, Side::Upload) {
        request.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        request.extend(chunks(id, &body));
        request.extend_from_slice(b"0\r\n\r\n");
    } else {
        request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend(body);
    }
    stream.write_all(&request)
}

fn read_answer(reader: &mut impl BufRead) -> Result<Answer, Lack> {
    match reader.fill_buf() {
        Ok([]) => return Err(Lack::Nothing(ErrorKind::UnexpectedEof.into())),
        Err(error) => return Err(Lack::Nothing(error)),
        Ok(_) => {}
    }
    let malformed = |line: &str| Lack::Malformed(format!("{line:?}"));
    let first = read_line(reader)?;
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| malformed(&first))?;
    let mut fields = BTreeMap::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
        if fields.insert(name.to_ascii_lowercase(), value.trim().to_owned()).is_some() {
            return Err(malformed(&line));
        }
    }
    let mut body = Vec::new();
    match (fields.get("content-length"), fields.get("transfer-encoding").map(String::as_str)) {
        (Some(length), None) => take(reader, length.parse().map_err(|_| malformed(length))?, &mut body)?,
        (None, Some("chunked")) => loop {
            let line = read_line(reader)?;
            let size = u64::from_str_radix(&line, 16).map_err(|_| malformed(&line))?;
            take(reader, size, &mut body)?;
            let end = read_line(reader)?;
            if !end.is_empty() {
                return Err(malformed(&end));
            }
            if size == 0 {
                break;
            }
        },
        // Neither a backend of ours nor the balancer ends an answer with a close: its end could not be told from a cut.
        (length, coding) => return Err(Lack::Malformed(format!("length {length:?}, coding {coding:?}"))),
    }
    Ok(Answer { status, fields, body })
}

fn read_line(reader: &mut impl BufRead) -> Result<String, Lack> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).map_err(|_| Lack::Cut)?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None if line.ends_with(b"\n") => Err(Lack::Malformed(format!("{:?}", String::from_utf8_lossy(&line)))),
        None => Err(Lack::Cut),
    }
}

fn take(reader: &mut impl BufRead, count: u64, into: &mut Vec<u8>) -> Result<(), Lack> {
    let before = into.len();
    reader.take(count).read_to_end(into).map_err(|_| Lack::Cut)?;
    if (into.len() - before) as u64 == count { Ok(()) } else { Err(Lack::Cut) }
}

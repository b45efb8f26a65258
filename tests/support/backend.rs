//! A backend that does what a script says, and remembers what it was sent.

use std::fmt;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use rustix::net::{AddressFamily, SocketType};

use super::PATIENCE;
use super::wire::{Decoder, End, Fields, Framing, Head, Wire, show};

/// A request as it reached a backend, so far.
#[derive(Clone)]
pub(crate) struct Received {
    /// Which connection it came on; the first one accepted is 0.
    pub(crate) connection: usize,
    /// The head as it came.
    pub(crate) head: Head,
    /// The first word of the request line.
    pub(crate) method: String,
    /// The second.
    pub(crate) target: String,
    /// How its end is known.
    pub(crate) framing: Framing,
    /// The body, decoded: what has been read of it.
    pub(crate) body: Vec<u8>,
    /// Fields behind the last chunk.
    pub(crate) trailers: Fields,
    /// Whether the end of the body came.
    pub(crate) whole: bool,
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extent = if self.whole { "whole" } else { "so far" };
        write!(f, "connection {}, {extent}: {:?}{} {:?}", self.connection, self.head, show(&self.body), self.trailers)
    }
}

/// What a backend has seen.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Connections accepted.
    pub(crate) accepted: usize,
    /// Connections whose script is still running.
    pub(crate) open: usize,
    /// Every request whose head came, in that order.
    pub(crate) requests: Vec<Received>,
    /// What was not HTTP/1.1, and scripts that panicked.
    pub(crate) faults: Vec<String>,
    /// A connection is closed by dropping its only strong reference, so that a reset is a reset.
    streams: Vec<Weak<TcpStream>>,
    stopping: bool,
}

impl Record {
    /// How many requests came to their end.
    pub(crate) fn whole(&self) -> usize {
        self.requests.iter().filter(|request| request.whole).count()
    }
}

#[derive(Default)]
struct Shared {
    record: Mutex<Record>,
    changed: Condvar,
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record());
        self.changed.notify_all();
    }
}

/// A server on a port of the system's choosing, with a thread for each connection. Dropping it closes everything, joins
/// every thread, and fails the test if what came was not HTTP/1.1 or if a script panicked.
pub(crate) struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    /// The port of a backend that refuses: bound, so that nobody else gets it, and never listening.
    _port: Option<OwnedFd>,
}

impl Backend {
    /// Runs `script` for every connection; when it returns, the connection is closed.
    pub(crate) fn start(script: impl Fn(&mut BackendSide) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let acceptor = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&listener, &shared, &script))
        };
        Self { address, shared, acceptor: Some(acceptor), _port: None }
    }

    /// Reads every request to its end and answers it with these bytes; HEAD with only the head among them.
    pub(crate) fn answering(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        let head = response.windows(4).position(|window| window == b"\r\n\r\n").expect("a response head") + 4;
        Self::start(move |connection| {
            while let Some(request) = connection.read_request() {
                connection.send(if request.method == "HEAD" { &response[..head] } else { &response });
                if request.head.lists("Connection", "close") {
                    break;
                }
            }
        })
    }

    /// Answers every request with 200 and, as its body, the request itself: head as it came, body decoded.
    pub(crate) fn echo() -> Self {
        Self::start(|connection| {
            while let Some(request) = connection.read_request() {
                let echo = [&request.head.raw[..], &request.body].concat();
                connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", echo.len()).as_bytes());
                if request.method != "HEAD" {
                    connection.send(&echo);
                }
                if request.head.lists("Connection", "close") {
                    break;
                }
            }
        })
    }

    /// An address that refuses connections for as long as this lives.
    pub(crate) fn refusing() -> Self {
        let port = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&port, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = SocketAddr::try_from(rustix::net::getsockname(&port).unwrap()).unwrap();
        Self { address, shared: Arc::default(), acceptor: None, _port: Some(port) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `--backend` takes; a prefix may be put behind it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections it has accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.record().accepted
    }

    /// How many connections are open on its side.
    pub(crate) fn open(&self) -> usize {
        self.shared.record().open
    }

    /// Every request whose head has come.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.shared.record().requests.clone()
    }

    /// Waits until `count` requests have come whole, and returns all there are.
    pub(crate) fn wait_for_requests(&self, count: usize) -> Vec<Received> {
        self.wait_until(&format!("{count} whole requests"), |record| record.whole() >= count);
        self.requests()
    }

    /// Waits until what has been seen fulfils `condition`; `what` is the sentence that fails: "both connections close".
    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn(&Record) -> bool) {
        let record = self.shared.record();
        let waiting = self.shared.changed.wait_timeout_while(record, PATIENCE, |record| !condition(record));
        let (record, wait) = waiting.unwrap_or_else(PoisonError::into_inner);
        assert!(!wait.timed_out(), "waited {PATIENCE:?}, and still not: {what}; the backend has seen {record:#?}");
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.shared.change(|record| {
            record.stopping = true;
            for stream in record.streams.iter().filter_map(Weak::upgrade) {
                // An error means that the connection is gone already.
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
        // Wakes the accept; refused only if nobody is in it any more.
        drop(TcpStream::connect_timeout(&self.address, PATIENCE));
        let joined = acceptor.join();
        if !thread::panicking() {
            assert!(joined.is_ok(), "the backend's acceptor panicked");
            let faults = std::mem::take(&mut self.shared.record().faults);
            assert!(faults.is_empty(), "at the backend: {faults:#?}");
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, script: &(impl Fn(&mut BackendSide) + Sync)) {
    thread::scope(|scope| {
        loop {
            let (stream, _) = listener.accept().unwrap();
            let stream = Arc::new(stream);
            let number = {
                // One lock for both: `drop` shuts down what is listed, so nothing may be listed behind its back.
                let mut record = shared.record();
                if record.stopping {
                    break;
                }
                record.streams.retain(|stream| stream.strong_count() > 0);
                record.streams.push(Arc::downgrade(&stream));
                record.accepted += 1;
                record.open += 1;
                record.accepted - 1
            };
            shared.changed.notify_all();
            let mut side =
                BackendSide { number, wire: Some(Wire::new(stream)), shared: Arc::clone(shared), current: None };
            scope.spawn(move || {
                let outcome = catch_unwind(AssertUnwindSafe(|| script(&mut side)));
                side.close();
                side.shared.change(|record| {
                    record.open -= 1;
                    if outcome.is_err() {
                        record.faults.push(format!("the script of connection {number} panicked"));
                    }
                });
            });
        }
    });
}

/// A backend's side of one connection, in the hands of a script. Once the balancer has left, reads say None and sends
/// say false, so that a script simply comes to its end.
pub(crate) struct BackendSide {
    /// Which connection this is; the first one accepted is 0.
    pub(crate) number: usize,
    /// None once closed.
    wire: Option<Wire>,
    shared: Arc<Shared>,
    /// The request being read: its place in the record, and where in its body the reading stands.
    current: Option<(usize, Decoder)>,
}

impl BackendSide {
    /// Reads one request to its end; None if there is no more, or not all of it came.
    pub(crate) fn read_request(&mut self) -> Option<Received> {
        self.read_head()?;
        self.read_rest()
    }

    /// Reads one head, and leaves the body to `read_body_bytes` and `read_rest`.
    pub(crate) fn read_head(&mut self) -> Option<Head> {
        let read = self.wire.as_mut()?.head();
        let head = self.accept_or_note(read)?;
        let (method, target) = self.accept_or_note(head.request_line().map_err(End::Malformed))?;
        let framing = self.accept_or_note(head.request_framing().map_err(End::Malformed))?;
        let received = Received {
            connection: self.number,
            head: head.clone(),
            method,
            target,
            framing,
            body: Vec::new(),
            trailers: Fields::default(),
            whole: false,
        };
        let mut place = 0;
        self.shared.change(|record| {
            place = record.requests.len();
            record.requests.push(received);
        });
        self.current = Some((place, Decoder::new(framing)));
        Some(head)
    }

    /// The next `count` bytes of the body, or fewer if it ends before; None if the connection does.
    pub(crate) fn read_body_bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            match self.read_piece(count - bytes.len())? {
                Some(piece) => bytes.extend(piece),
                None => break,
            }
        }
        Some(bytes)
    }

    /// The request whose head has been read, with all of its body; None if not all of it comes.
    pub(crate) fn read_rest(&mut self) -> Option<Received> {
        let place = self.current.as_ref().expect("read_head comes first").0;
        while self.read_piece(usize::MAX)?.is_some() {}
        self.current = None;
        Some(self.shared.record().requests[place].clone())
    }

    /// Just so many bytes, whatever they mean.
    pub(crate) fn read_raw(&mut self, count: usize) -> Option<Vec<u8>> {
        self.wire.as_mut()?.exactly(count).ok()
    }

    /// All that still comes, and how the connection ended.
    pub(crate) fn read_to_end(&mut self) -> (Vec<u8>, End) {
        self.wire.as_mut().expect("the script has closed the connection").read_to_end()
    }

    /// Sends these bytes; false if the balancer was no longer there to take them.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.wire.as_ref().is_some_and(|wire| wire.send(bytes))
    }

    /// Closes the connection: an end of file if everything was read, a reset if not.
    pub(crate) fn close(&mut self) {
        self.wire = None;
    }

    /// Resets the connection.
    pub(crate) fn reset(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.reset_on_close();
        }
    }

    /// Sends an end of file; requests can still be read.
    pub(crate) fn half_close(&mut self) {
        if let Some(wire) = &self.wire {
            wire.half_close();
        }
    }

    fn read_piece(&mut self, most: usize) -> Option<Option<Vec<u8>>> {
        let (place, decoder) = self.current.as_mut().expect("read_head comes first");
        let (place, read) = (*place, self.wire.as_mut()?.body(decoder, most));
        let trailers = decoder.trailers.clone();
        let piece = self.accept_or_note(read)?;
        self.shared.change(|record| {
            let request = &mut record.requests[place];
            match &piece {
                Some(bytes) => request.body.extend(bytes),
                None => request.whole = true,
            }
            request.trailers = trailers.unwrap_or_default();
        });
        Some(piece)
    }

    /// The balancer may leave at any time; what it says while it is here must be HTTP/1.1.
    fn accept_or_note<T>(&mut self, read: Result<T, End>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(End::Closed | End::Reset | End::TimedOut) => None,
            Err(End::Malformed(why)) => {
                let heard = self.wire.as_ref().map(Wire::transcript).unwrap_or_default();
                self.shared.change(|record| {
                    // A request that breaks off because the test is over is nobody's fault.
                    if !record.stopping {
                        record.faults.push(format!("{why}, in {heard}"));
                    }
                });
                None
            }
        }
    }
}

//! A client that sends exactly the bytes it is given.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType};

use super::wire::{Decoder, End, Fields, Framing, Head, Wire, show};

/// One response, whole.
#[derive(Clone)]
pub(crate) struct Response {
    /// The head as it came.
    pub(crate) head: Head,
    /// Three digits.
    pub(crate) status: u16,
    /// What stands behind them.
    pub(crate) reason: String,
    /// How its end was known.
    pub(crate) framing: Framing,
    /// The body, decoded.
    pub(crate) body: Vec<u8>,
    /// Fields behind the last chunk.
    pub(crate) trailers: Fields,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{} {:?}", self.head, show(&self.body), self.trailers)
    }
}

impl Response {
    /// The body, for a person.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the close of the connection is announced.
    pub(crate) fn closes(&self) -> bool {
        self.head.lists("Connection", "close")
    }
}

/// A response that did not come whole: what there was of it, and why there was no more.
#[derive(Debug)]
pub(crate) struct Cut {
    /// None if it broke off inside the head.
    pub(crate) head: Option<Head>,
    /// The body so far, decoded.
    pub(crate) body: Vec<u8>,
    /// What came instead of the rest.
    pub(crate) end: End,
}

/// One client connection.
pub(crate) struct Client {
    wire: Wire,
    /// Everything that was sent, for the message of a panic.
    said: Vec<u8>,
    /// The response whose head has been read, and where in its body the reading stands.
    current: Option<(Response, Decoder)>,
}

impl Client {
    /// Connects; fails the test if nobody is there.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
        Self::on(stream)
    }

    /// Connects, behind as small a receive buffer as the kernel gives: what it does not read stays with the balancer.
    pub(crate) fn connect_with_little_room(address: SocketAddr) -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        set_socket_recv_buffer_size(&socket, 1).unwrap();
        rustix::net::connect(&socket, &address).unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
        Self::on(TcpStream::from(socket))
    }

    fn on(stream: TcpStream) -> Self {
        Self { wire: Wire::new(Arc::new(stream)), said: Vec::new(), current: None }
    }

    /// Our own end of the connection.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.wire.stream().local_addr().unwrap()
    }

    /// Sends these bytes; fails the test if they are not taken.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        assert!(self.try_send(bytes), "the balancer did not take {}", show(bytes));
    }

    /// Sends these bytes to a balancer that may have left; false if it had.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.said.extend_from_slice(bytes);
        self.wire.send(bytes)
    }

    /// Sends these bytes cut before each of these positions, which are in rising order.
    ///
    /// The pause gives the balancer a chance to see each piece alone. Nothing is being waited for: the outcome must be
    /// the same if it sees two pieces as one.
    pub(crate) fn send_split(&mut self, bytes: &[u8], cuts: &[usize]) {
        let mut begin = 0;
        for &cut in cuts.iter().chain([&bytes.len()]) {
            self.send(&bytes[begin..cut]);
            begin = cut;
            if cut < bytes.len() {
                thread::sleep(Duration::from_micros(300));
            }
        }
    }

    /// Reads one final response to a request with this method; fails the test if it is not well-formed and whole.
    pub(crate) fn read_response(&mut self, method: &str) -> Response {
        self.try_response(method).unwrap_or_else(|cut| panic!("{:?} instead of a response: {}", cut.end, self.story()))
    }

    /// Reads one final response to a request with this method, or as much of it as there is.
    pub(crate) fn try_response(&mut self, method: &str) -> Result<Response, Cut> {
        match self.try_head(method) {
            Ok(_) => self.try_rest(),
            Err(end) => Err(Cut { head: None, body: Vec::new(), end }),
        }
    }

    /// Reads the head of a final response, and leaves its body to `read_body_bytes` and `read_rest`.
    pub(crate) fn read_head(&mut self, method: &str) -> Head {
        self.try_head(method).unwrap_or_else(|end| panic!("{end:?} instead of a response head: {}", self.story()))
    }

    /// Reads the head of a final response, or learns why there is none.
    pub(crate) fn try_response_head(&mut self, method: &str) -> Result<Head, End> {
        self.try_head(method)
    }

    /// Reads one interim (1xx) response.
    pub(crate) fn read_interim(&mut self) -> Response {
        let read = self.wire.head().and_then(|head| response(head, "GET"));
        let response = read.unwrap_or_else(|end| panic!("{end:?} instead of an interim response: {}", self.story()));
        assert!(response.status < 200, "{} where an interim response was due: {}", response.status, self.story());
        response
    }

    /// The next `count` bytes of the body, or fewer if it ends before.
    pub(crate) fn read_body_bytes(&mut self, count: usize) -> Vec<u8> {
        let (response, decoder) = self.current.as_mut().expect("read_head comes first");
        let before = response.body.len();
        while response.body.len() < before + count {
            match self.wire.body(decoder, before + count - response.body.len()) {
                Ok(Some(bytes)) => response.body.extend(bytes),
                Ok(None) => break,
                Err(end) => {
                    let (said, heard) = (show(&self.said), self.wire.transcript());
                    panic!("{end:?} inside a body:\n   sent: {said}\n  heard: {heard}")
                }
            }
        }
        response.body[before..].to_vec()
    }

    /// The response whose head has been read, with all of its body.
    pub(crate) fn read_rest(&mut self) -> Response {
        self.try_rest().unwrap_or_else(|cut| panic!("{:?} inside a body: {}", cut.end, self.story()))
    }

    /// The response whose head has been read, or as much of its body as there is.
    pub(crate) fn try_rest(&mut self) -> Result<Response, Cut> {
        let (mut response, mut decoder) = self.current.take().expect("read_head comes first");
        loop {
            match self.wire.body(&mut decoder, usize::MAX) {
                Ok(Some(bytes)) => response.body.extend(bytes),
                Ok(None) => break,
                Err(end) => {
                    return Err(Cut { head: Some(response.head), body: response.body, end });
                }
            }
        }
        response.trailers = decoder.trailers.unwrap_or_default();
        Ok(response)
    }

    /// Just so many bytes, whatever they mean.
    pub(crate) fn read_raw(&mut self, count: usize) -> Vec<u8> {
        self.wire.exactly(count).unwrap_or_else(|end| panic!("{end:?} instead of {count} bytes: {}", self.story()))
    }

    /// All that still comes before a clean end of file.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let (bytes, end) = self.wire.read_to_end();
        assert_eq!(end, End::Closed, "instead of a clean end: {}", self.story());
        bytes
    }

    /// All that still comes, and how the connection ended.
    pub(crate) fn try_to_end(&mut self) -> (Vec<u8>, End) {
        self.wire.read_to_end()
    }

    /// The balancer closes now, cleanly and without another byte.
    pub(crate) fn expect_closed(&mut self) {
        let (bytes, end) = self.wire.read_to_end();
        assert!(bytes.is_empty() && end == End::Closed, "{end:?} after {} in {}", show(&bytes), self.story());
    }

    /// The balancer resets the connection, without another byte.
    pub(crate) fn expect_reset(&mut self) {
        let (bytes, end) = self.wire.read_to_end();
        assert!(bytes.is_empty() && end == End::Reset, "{end:?} after {} in {}", show(&bytes), self.story());
    }

    /// The balancer refuses what was sent, with one of these statuses: it says that it closes, and does, and nothing that
    /// was sent behind the refused request is answered.
    pub(crate) fn expect_refusal(&mut self, statuses: &[u16]) -> Response {
        let response = self.read_response("GET");
        assert!(statuses.contains(&response.status), "not {statuses:?}: {}", self.story());
        assert!(response.closes(), "the close is not announced: {}", self.story());
        self.expect_closed();
        response
    }

    /// The same connection for another thread, which may send while this one reads.
    pub(crate) fn second_hand(&self) -> TcpStream {
        self.wire.stream().try_clone().unwrap()
    }

    /// Sends an end of file; answers can still be read.
    pub(crate) fn half_close(&mut self) {
        self.wire.half_close();
    }

    /// Leaves with a reset.
    pub(crate) fn abort(self) {
        self.wire.reset_on_close();
    }

    /// What was said on both sides, for the message of a failure.
    pub(crate) fn story(&self) -> String {
        format!("\n   sent: {}\n  heard: {}", show(&self.said), self.wire.transcript())
    }

    fn try_head(&mut self, method: &str) -> Result<Head, End> {
        assert!(self.current.is_none(), "the response before is not read to its end");
        let response = response(self.wire.head()?, method)?;
        if response.status < 200 && response.status != 101 {
            return Err(End::Malformed("an interim response where a final one was due".to_owned()));
        }
        let head = response.head.clone();
        let decoder = Decoder::new(response.framing);
        self.current = Some((response, decoder));
        Ok(head)
    }
}

fn response(head: Head, method: &str) -> Result<Response, End> {
    let (status, reason) = head.status_line().map_err(End::Malformed)?;
    let framing = head.response_framing(method, status).map_err(End::Malformed)?;
    Ok(Response { head, status, reason, framing, body: Vec::new(), trailers: Fields::default() })
}

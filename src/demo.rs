//! The two embedded backends of the zero-argument run.
//!
//! As plain as a server can be: a thread for each connection, blocking reads, one answer. That is fine for a
//! demonstration, and everything that the balancer itself must not do: see what becomes of it with a thousand clients
//! that say nothing.

use crate::http::{BodyFraming, FieldTable, HeadScan, Limits, Request, client_may_stay};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// The ports of the demonstration's backends.
pub const PORTS: [u16; 2] = [8081, 8082];

/// A backend that listens, but does not answer yet.
pub struct DemoBackend {
    listener: TcpListener,
    port: u16,
}

impl DemoBackend {
    /// Listens on this port of 127.0.0.1.
    ///
    /// # Errors
    /// The address that could not be had, and why.
    pub fn bind(port: u16) -> Result<DemoBackend, (SocketAddr, io::Error)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).map_err(|error| (address, error))?;
        let port = listener.local_addr().map_err(|error| (address, error))?.port();
        Ok(DemoBackend { listener, port })
    }

    /// How a balancer names it: everything is answered below `/b` and the port.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{0}/b{0}", self.port)
    }

    /// Answers in threads of its own, for as long as the process lives.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn serve(self) -> io::Result<()> {
        thread::Builder::new().name(format!("demo backend {}", self.port)).spawn(move || {
            for connection in self.listener.incoming().flatten() {
                let port = self.port;
                let thread = thread::Builder::new().name("demo connection".to_owned());
                // No thread to be had: the connection is closed, and the balancer tries elsewhere.
                drop(thread.spawn(move || converse(connection, port)));
            }
        })?;
        Ok(())
    }
}

const LIMITS: Limits = Limits { head_bytes: 64 * 1024, target_bytes: 64 * 1024, fields: 1000 };

/// Answers request after request, until one of the two has had enough.
fn converse(mut connection: TcpStream, port: u16) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut received = Vec::new();
    let mut scan = HeadScan::of_request();
    loop {
        let head_end = match scan.advance(&received) {
            Ok(Some(head_end)) => head_end,
            Ok(None) => {
                read_some(&mut connection, &mut received)?;
                continue;
            }
            Err(_) => return Ok(()),
        };
        let mut table = FieldTable::default();
        let Ok(request) = Request::read(&received[..head_end], &scan, &mut table, LIMITS) else { return Ok(()) };
        let stays = client_may_stay(request.version, request.options) && request.framing != BodyFraming::Chunked;
        connection.write_all(&answer(&request, port, stays))?;
        let body = match request.framing {
            BodyFraming::Length(length) => length,
            BodyFraming::None | BodyFraming::Chunked | BodyFraming::UntilClose => 0,
        };
        if !stays {
            return Ok(());
        }
        let begun = usize::try_from(body).unwrap_or(usize::MAX).min(received.len() - head_end);
        received.drain(..head_end + begun);
        io::copy(&mut (&connection).take(body - begun as u64), &mut io::sink())?;
        scan = HeadScan::of_request();
    }
}

fn answer(request: &Request<'_, '_>, port: u16, stays: bool) -> Vec<u8> {
    let own = format!("/b{port}");
    let is_ours = request.path().strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    let (status, body) = match is_ours {
        true => ("200 OK", format!("Hello from backend server on :{port}\n")),
        false => ("404 Not Found", format!("Only {own} is known here\n")),
    };
    let close = if stays { "" } else { "Connection: close\r\n" };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n{close}\r\n");
    let body = if request.method == "HEAD" { String::new() } else { body };
    (head + &body).into_bytes()
}

fn read_some(connection: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    match connection.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => {
            into.extend_from_slice(&buffer[..n]);
            Ok(())
        }
    }
}

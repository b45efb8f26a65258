//! A server that does as it is told: also what no server should.

use clap::{Parser, ValueEnum};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use threadbare::http::{BodyFraming, ChunkDecoder, FieldTable, HeadScan, Limits, Request, client_may_stay};

/// A backend that can be slow, wrong, cut off, silent, echoing or upgrading.
#[derive(Parser)]
pub(crate) struct Settings {
    /// Where to listen.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// What it calls itself, in its answers and in the field X-Backend.
    #[arg(long, default_value = "backend")]
    name: String,
    /// What it does with a request.
    #[arg(long, value_enum, default_value_t = Behaviour::Answer)]
    behave: Behaviour,
    /// How long it thinks before it answers, or between two pieces.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = super::duration)]
    delay: Duration,
    /// Answers only once this file is there.
    #[arg(long, value_name = "FILE")]
    until: Option<PathBuf>,
    /// At how many requests it works at once; the others wait.
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    at_once: usize,
    /// With what status it answers.
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// Fields that it adds to its answer: `Name: value`. May be repeated.
    #[arg(long, value_name = "FIELD")]
    field: Vec<String>,
    /// How long its body is, in bytes, if it is to be long.
    #[arg(long, value_name = "BYTES")]
    body: Option<usize>,
    /// Of how many pieces its drip consists.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pieces: usize,
    /// Prints whatever it reads, as it comes.
    #[arg(long)]
    tell: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Behaviour {
    /// Answers.
    Answer,
    /// Answers with the request, as it came.
    Echo,
    /// Sends its body in pieces, in chunks, with pauses.
    Drip,
    /// Announces more than it sends, and closes.
    Cut,
    /// Answers with something that is not HTTP.
    Nonsense,
    /// Answers with a length and with chunks: where does the body end?
    TwoLengths,
    /// Reads the request and never answers.
    Silent,
    /// Reads the request and closes without a word.
    HangUp,
    /// Changes to a protocol in which every byte comes back.
    Upgrade,
}

/// A gate that lets so many in at once, in the order in which they came.
struct Gate {
    at_once: usize,
    /// How many have come, and how many have left again.
    passed: Mutex<(usize, usize)>,
    left: Condvar,
}

impl Gate {
    fn while_inside(&self, work: impl FnOnce()) {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let nth = passed.0;
        passed.0 += 1;
        let is_full = |passed: &mut (usize, usize)| nth >= passed.1.saturating_add(self.at_once);
        drop(self.left.wait_while(passed, is_full).unwrap_or_else(PoisonError::into_inner));
        work();
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).1 += 1;
        self.left.notify_all();
    }
}

/// Serves until the process is ended.
pub(crate) fn serve(settings: &Settings) -> io::Result<()> {
    let listener = TcpListener::bind(settings.listen)?;
    tell!("{} listens on {}", settings.name, listener.local_addr()?);
    let gate = Arc::new(Gate { at_once: settings.at_once, passed: Mutex::default(), left: Condvar::new() });
    thread::scope(|scope| {
        for (nth, client) in listener.incoming().flatten().enumerate() {
            let gate = Arc::clone(&gate);
            scope.spawn(move || {
                let mut guest = Guest { settings, nth: nth + 1, client, received: Vec::new() };
                // However the conversation ends, it was this client's alone.
                let _ended = guest.converse(&gate);
            });
        }
    });
    Ok(())
}

/// One connection.
struct Guest<'s> {
    settings: &'s Settings,
    nth: usize,
    client: TcpStream,
    /// What has come and belongs to no request yet.
    received: Vec<u8>,
}

/// How often a backend looks whether its file is there.
const GLANCE: Duration = Duration::from_millis(20);

const LIMITS: Limits = Limits { head_bytes: 1 << 20, target_bytes: 1 << 20, fields: 1000 };

impl Guest<'_> {
    fn converse(&mut self, gate: &Gate) -> io::Result<()> {
        self.client.set_nodelay(true)?;
        loop {
            let Some(asked) = self.read_request()? else { return Ok(()) };
            let settings = self.settings;
            gate.while_inside(|| {
                thread::sleep(settings.delay);
                while settings.until.as_ref().is_some_and(|file| !file.exists()) {
                    thread::sleep(GLANCE);
                }
            });
            if !self.answer(&asked)? || !asked.stays {
                self.client.shutdown(Shutdown::Write)?;
                // The other side should see an end, not a reset: what it still says is read.
                while self.read()? {}
                return Ok(());
            }
        }
    }

    /// `false`: the connection ends with this answer.
    fn answer(&mut self, asked: &Asked) -> io::Result<bool> {
        let settings = self.settings;
        let name = &settings.name;
        let body = match settings.body {
            Some(length) => Body::Dots(length),
            None if settings.behave == Behaviour::Echo => Body::Text(asked.bytes.clone()),
            None => Body::Text(format!("hello from {name}\n").into_bytes()),
        };
        let mut head = format!("HTTP/1.1 {} {}\r\nX-Backend: {name}\r\n", settings.status, phrase(settings.status));
        for field in &settings.field {
            head += field;
            head += "\r\n";
        }
        if !asked.stays {
            head += "Connection: close\r\n";
        }
        let length = body.length();
        match settings.behave {
            Behaviour::Answer | Behaviour::Echo => {
                let body = if asked.is_head { &Body::Dots(0) } else { &body };
                self.say_both(&format!("{head}Content-Length: {length}\r\n\r\n"), body)?;
                Ok(true)
            }
            Behaviour::Drip => {
                self.say(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes())?;
                for piece in 1..=settings.pieces {
                    let text = format!("piece {piece} from {name}\n");
                    self.say(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())?;
                    thread::sleep(settings.delay);
                }
                self.say(b"0\r\n\r\n")?;
                Ok(true)
            }
            Behaviour::Cut => {
                self.say_both(&format!("{head}Content-Length: {}\r\n\r\n", 2 * length), &body)?;
                Ok(false)
            }
            Behaviour::Nonsense => {
                self.say(b"220 mail.example ESMTP ready\r\n")?;
                Ok(false)
            }
            Behaviour::TwoLengths => {
                let head = format!("{head}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n");
                self.say_both(&head, &body)?;
                Ok(false)
            }
            Behaviour::Silent => {
                while self.read()? {}
                Ok(false)
            }
            Behaviour::HangUp => Ok(false),
            Behaviour::Upgrade => {
                self.say(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")?;
                loop {
                    let words = std::mem::take(&mut self.received);
                    self.say(&words)?;
                    if !self.read()? {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Reads a request to its end; none if the client has left, or does not speak HTTP.
    fn read_request(&mut self) -> io::Result<Option<Asked>> {
        let mut scan = HeadScan::of_request();
        let head_end = loop {
            match scan.advance(&self.received) {
                Ok(Some(head_end)) => break head_end,
                Ok(None) => {}
                Err(_) => return Ok(None),
            }
            if !self.read()? {
                return Ok(None);
            }
        };
        let head: Vec<u8> = self.received.drain(..head_end).collect();
        let mut table = FieldTable::default();
        let Ok(request) = Request::read(&head, &mut table, LIMITS) else { return Ok(None) };
        let stays = client_may_stay(request.version, request.options);
        let (is_head, framing) = (request.method == "HEAD", request.framing);
        if request.expects_continue {
            self.say(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = self.read_body(framing)?;
        Ok(body.map(|body| Asked { stays, is_head, bytes: [head, body].concat() }))
    }

    fn read_body(&mut self, framing: BodyFraming) -> io::Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        match framing {
            BodyFraming::None | BodyFraming::UntilClose => {}
            BodyFraming::Length(length) => {
                let length = usize::try_from(length).map_err(|_| ErrorKind::OutOfMemory)?;
                while self.received.len() < length {
                    if !self.read()? {
                        return Ok(None);
                    }
                }
                body = self.received.drain(..length).collect();
            }
            BodyFraming::Chunked => {
                let mut decoder = ChunkDecoder::new(LIMITS.head_bytes);
                loop {
                    let Ok(decoded) = decoder.decode(&mut self.received) else { return Ok(None) };
                    body.extend_from_slice(&self.received[decoded.data.clone()]);
                    self.received.drain(..decoded.used);
                    if decoded.ended {
                        break;
                    }
                    if !self.read()? {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(body))
    }

    /// Reads what is there; `false` at the end.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 64 * 1024];
        let count = self.client.read(&mut buffer)?;
        self.received.extend_from_slice(&buffer[..count]);
        if self.settings.tell {
            let what = if count == 0 { "the end".to_owned() } else { format!("{count} bytes") };
            let mut text = format!("{}, connection {}: {what}\n", self.settings.name, self.nth);
            for line in buffer[..count].split_inclusive(|&byte| byte == b'\n') {
                text += &format!("    {}\n", line.escape_ascii());
            }
            tell!("{}", text.trim_end()); // all at once, so that connections don't interrupt each other
        }
        Ok(count > 0)
    }

    /// A head and its body: at once if the body is short.
    fn say_both(&mut self, head: &str, body: &Body) -> io::Result<()> {
        match body {
            Body::Text(text) => self.say(&[head.as_bytes(), text].concat()),
            Body::Dots(length) => {
                self.say(head.as_bytes())?;
                let dots = [b'.'; 64 * 1024];
                (0..*length).step_by(dots.len()).try_for_each(|said| self.say(&dots[..dots.len().min(length - said)]))
            }
        }
    }

    fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.client.write_all(bytes)
    }
}

/// What an answer consists of, behind its head.
enum Body {
    Text(Vec<u8>),
    /// So many dots. They are nowhere as a whole: a crowd may ask for them.
    Dots(usize),
}

impl Body {
    fn length(&self) -> usize {
        match self {
            Body::Text(text) => text.len(),
            Body::Dots(length) => *length,
        }
    }
}

/// A request that has come whole.
struct Asked {
    stays: bool,
    is_head: bool,
    /// Its head as it came, and its body, decoded.
    bytes: Vec<u8>,
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        404 => "Not Found",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Said So",
    }
}

//! A backend that can be killed: the test's own binary, started again as a small HTTP/1.1 server.
//!
//! It listens twice: for requests, and for orders. An order is a line on a connection of its own, answered with a line,
//! so that a backend which resets everything still hears that it may stop doing so.
//!
//! A POST is *executed* by one write to a file that outlives the process, before the answer or what happens instead of
//! one. Counting its lines afterwards tells whether anything was executed twice.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::{Side, checksum, chunks, content, is_chunked, scramble};
use crate::program::Program;
use crate::support::eventually;

/// The environment variable that makes the test's binary a backend: its name, its port and its file of POSTs.
const ROLE: &str = "THREADBARE_TORTURE_BACKEND";

/// How a backend behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It answers.
    Normal,
    /// It breaks off in the middle of every answer.
    Cut,
    /// It closes instead of answering.
    Close,
    /// It resets the connection instead of answering.
    Reset,
    /// It thinks for so many milliseconds before it answers.
    Slow(u64),
    /// It closes a connection that has been idle for 0.2 to 12 ms.
    ClosesIdle,
    /// It does not listen; connections that it has go on.
    Deaf,
    /// It does not listen, finishes what it has begun, and closes what is idle: an orderly stop.
    Leaving,
}

impl Mode {
    fn word(self) -> String {
        match self {
            Self::Normal => "0 0".to_owned(),
            Self::Cut => "1 0".to_owned(),
            Self::Close => "2 0".to_owned(),
            Self::Reset => "3 0".to_owned(),
            Self::Slow(millis) => format!("4 {millis}"),
            Self::ClosesIdle => "5 0".to_owned(),
            Self::Deaf => "6 0".to_owned(),
            Self::Leaving => "7 0".to_owned(),
        }
    }

    fn of(word: &str) -> Option<Self> {
        let (number, millis) = word.split_once(' ')?;
        Some(match number {
            "0" => Self::Normal,
            "1" => Self::Cut,
            "2" => Self::Close,
            "3" => Self::Reset,
            "4" => Self::Slow(millis.parse().ok()?),
            "5" => Self::ClosesIdle,
            "6" => Self::Deaf,
            "7" => Self::Leaving,
            _ => return None,
        })
    }
}

/// What a backend has counted since it was started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Requests read, whatever came of them.
    pub(crate) requests: u64,
    /// Idle connections that it closed.
    pub(crate) idle_closes: u64,
    /// Requests that were not what their id says.
    pub(crate) spoilt: u64,
    /// Connections that are open.
    pub(crate) connections: u64,
}

/// A backend, seen from the test. It ends with its owner, and by itself when the test's process ends.
pub(crate) struct BackendProcess {
    pub(crate) name: String,
    port: u16,
    log: PathBuf,
    control: SocketAddr,
    program: Program,
    is_running: bool,
}

impl BackendProcess {
    /// Starts it, and returns once it listens.
    pub(crate) fn start(name: &str, log: &Path) -> Self {
        let port = quiet_port();
        let (program, control) = launch(name, port, log);
        Self { name: name.to_owned(), port, log: log.to_owned(), control, program, is_running: true }
    }

    /// Where it is, as a URL.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it on the spot (kill -9).
    pub(crate) fn kill(&mut self) {
        self.program.signal(Signal::KILL);
        self.program.wait();
        self.is_running = false;
    }

    /// Ends it as a well-behaved server ends: it closes its listener, finishes what it has begun, closes what is idle.
    pub(crate) fn leave(&mut self) {
        self.set(Mode::Leaving);
        eventually(|| self.counts().connections == 0, "a leaving backend has finished");
        self.kill();
    }

    /// Starts it again on the same port; returns once it listens.
    pub(crate) fn restart(&mut self) {
        assert!(!self.is_running, "{} still runs", self.name);
        (self.program, self.control) = launch(&self.name, self.port, &self.log);
        self.is_running = true;
    }

    /// Stops the process where it stands. Its kernel side goes on: connections are accepted, requests are taken.
    pub(crate) fn stop(&self) {
        self.program.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        self.program.signal(Signal::CONT);
    }

    /// Changes how it behaves, from the next request on.
    pub(crate) fn set(&self, mode: Mode) {
        assert_eq!(self.order(&format!("mode {}", mode.word())), "ok", "{} does not take {mode:?}", self.name);
    }

    /// What it has counted so far.
    pub(crate) fn counts(&self) -> Counts {
        let line = self.order("counts");
        let numbers: Vec<u64> = line.split(' ').filter_map(|n| n.parse().ok()).collect();
        let [requests, idle_closes, spoilt, connections] = numbers[..] else { panic!("{}: {line:?}", self.name) };
        Counts { requests, idle_closes, spoilt, connections }
    }

    fn order(&self, line: &str) -> String {
        let mut stream = TcpStream::connect(self.control).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }
}

/// A free port that is no connection's own: below those that the system hands out by itself. With one of these, a
/// connection to a backend that is down could get the very port that it connects to, and meet itself there.
pub(crate) fn quiet_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..1000 {
        let first = u16::try_from(process::id() % 300).unwrap() * 40;
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("a thousand ports in a row are taken");
}

fn launch(name: &str, port: u16, log: &Path) -> (Program, SocketAddr) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["be_a_backend", "--exact", "--ignored", "--nocapture"]);
    command.env(ROLE, format!("{name} {port} {}", log.display()));
    // Its standard input ends when we do, and so does it.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let program = Program::spawn_as_is(&mut command);
    let line = program.stdout.wait_for("takes orders on ");
    let (_, control) = line.rsplit_once(' ').unwrap();
    (program, control.parse().unwrap())
}

// From here on: inside the backend's process.

struct Server {
    name: String,
    port: u16,
    mode: Mutex<Mode>,
    is_deaf: AtomicBool,
    log: File,
    requests: AtomicU64,
    idle_closes: AtomicU64,
    spoilt: AtomicU64,
    connections: AtomicU64,
}

impl Server {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }
}

/// Is a backend until standard input ends, if the environment says so; returns at once if not.
pub(crate) fn be_one_if_told() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut words = role.splitn(3, ' ');
    let (name, port, log) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let server = Arc::new(Server {
        name: name.to_owned(),
        port: port.parse().unwrap(),
        mode: Mutex::new(Mode::Normal),
        is_deaf: AtomicBool::new(false),
        log: OpenOptions::new().append(true).create(true).open(log).unwrap(),
        requests: AtomicU64::new(0),
        idle_closes: AtomicU64::new(0),
        spoilt: AtomicU64::new(0),
        connections: AtomicU64::new(0),
    });
    let listener = listen(server.port);
    let orders = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = format!("{} takes orders on {}\n", server.name, orders.local_addr().unwrap());
    io::stdout().write_all(line.as_bytes()).unwrap();
    let serving = Arc::clone(&server);
    thread::spawn(move || accept(&serving, listener));
    thread::spawn(move || {
        for stream in orders.incoming().flatten() {
            // Whoever gave the order may have ended before its answer.
            let _ = obey(&server, stream);
        }
    });
    let _ = io::stdin().read_to_end(&mut Vec::new());
    process::exit(0);
}

fn listen(port: u16) -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    // std's backlog of 128 is a limit of its own, and none that is tested here.
    rustix::net::listen(&listener, 4096).unwrap();
    listener
}

fn obey(server: &Arc<Server>, stream: TcpStream) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let answer = match line.trim_end().split_once(' ') {
        Some(("mode", word)) => {
            let mode = Mode::of(word).ok_or(ErrorKind::InvalidData)?;
            *server.mode.lock().unwrap() = mode;
            let is_deaf = matches!(mode, Mode::Deaf | Mode::Leaving);
            let was_deaf = server.is_deaf.swap(is_deaf, Ordering::SeqCst);
            if is_deaf && !was_deaf {
                // Wakes the thread that accepts, which then drops its listener: and only then is the order obeyed.
                while TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).is_ok() {
                    thread::sleep(Duration::from_millis(1));
                }
            } else if was_deaf && !is_deaf {
                while TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).is_err() {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            "ok".to_owned()
        }
        Some(_) | None => {
            let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
            let (requests, closes) = (read(&server.requests), read(&server.idle_closes));
            format!("{requests} {closes} {} {}", read(&server.spoilt), read(&server.connections))
        }
    };
    (&stream).write_all(format!("{answer}\n").as_bytes())
}

fn accept(server: &Arc<Server>, mut listener: TcpListener) {
    loop {
        if let Ok((stream, _)) = listener.accept() {
            attend(server, stream);
        }
        if server.is_deaf.load(Ordering::SeqCst) {
            // Whoever is in the backlog has been let in already: closing would reset them.
            listener.set_nonblocking(true).unwrap();
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(false).unwrap();
                attend(server, stream);
            }
            drop(listener);
            while server.is_deaf.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            listener = listen(server.port);
        }
    }
}

fn attend(server: &Arc<Server>, stream: TcpStream) {
    let server = Arc::clone(server);
    server.connections.fetch_add(1, Ordering::SeqCst);
    let run = move || {
        // The other side may leave at any moment; that is no news.
        let _ = serve(&server, stream);
        server.connections.fetch_sub(1, Ordering::SeqCst);
    };
    thread::Builder::new().stack_size(128 << 10).spawn(run).unwrap();
}

/// One request, as far as this server wants to know.
struct Request {
    is_post: bool,
    id: u64,
    is_whole: bool,
}

fn serve(server: &Server, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(32 << 10, &stream);
    let mut die = u64::from(stream.peer_addr()?.port());
    let mut has_been_used = false;
    loop {
        die = scramble(die);
        if !wait_for_request(server, &mut reader, has_been_used, die)? {
            return Ok(());
        }
        has_been_used = true;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let request = read_request(&mut reader)?;
        // A health check has no id, and is nobody's request.
        server.requests.fetch_add(u64::from(request.id != 0), Ordering::SeqCst);
        if !request.is_whole {
            server.spoilt.fetch_add(1, Ordering::SeqCst);
        }
        if request.is_post && request.is_whole {
            // One write: the line is there or it isn't, however the process ends.
            (&server.log).write_all(format!("{} {}\n", request.id, server.name).as_bytes())?;
        }
        let mode = server.mode();
        let answer = answer(server, &request, mode == Mode::Leaving);
        match mode {
            Mode::Leaving => return (&stream).write_all(&answer),
            Mode::Normal | Mode::ClosesIdle | Mode::Deaf => (&stream).write_all(&answer)?,
            Mode::Slow(millis) => {
                thread::sleep(Duration::from_millis(millis));
                (&stream).write_all(&answer)?;
            }
            Mode::Cut => {
                let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
                let body = answer.len() - head;
                // Somewhere in the body; now and then a byte before its end, or just before the last chunk.
                let cut = match die % 8 {
                    0 => body - 1,
                    1 if is_chunked(request.id, Side::Answer) => body - b"0\r\n\r\n".len(),
                    _ => die as usize % body,
                };
                return (&stream).write_all(&answer[..head + cut]);
            }
            Mode::Close => return Ok(()),
            Mode::Reset => {
                let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
                return Ok(());
            }
        }
    }
}

/// Whether there is one; false once the connection has ended, or is to end.
fn wait_for_request(
    server: &Server,
    reader: &mut BufReader<&TcpStream>,
    has_been_used: bool,
    die: u64,
) -> io::Result<bool> {
    loop {
        let closes_idle = has_been_used && server.mode() == Mode::ClosesIdle;
        // Otherwise it is the time in which a connection notices a change of mode.
        let time = if closes_idle { Duration::from_micros(200 + die % 11_800) } else { Duration::from_millis(20) };
        reader.get_ref().set_read_timeout(Some(time))?;
        match reader.fill_buf() {
            Ok(bytes) => return Ok(!bytes.is_empty()),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            Err(_) if closes_idle => {
                server.idle_closes.fetch_add(1, Ordering::SeqCst);
                return Ok(false);
            }
            Err(_) if has_been_used && server.mode() == Mode::Leaving => return Ok(false),
            Err(_) => {}
        }
    }
}

fn answer(server: &Server, request: &Request, closes: bool) -> Vec<u8> {
    let body = content(request.id, Side::Answer);
    let status = if request.is_whole { "200 OK" } else { "422 Unprocessable Content" };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nX-Id: {}\r\nX-Backend: {}\r\nX-Checksum: {:x}\r\n",
        request.id,
        server.name,
        checksum(&body)
    )
    .into_bytes();
    if closes {
        answer.extend_from_slice(b"Connection: close\r\n");
    }
    if is_chunked(request.id, Side::Answer) {
        answer.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        answer.extend(chunks(request.id, &body));
        answer.extend_from_slice(b"0\r\n\r\n");
    } else {
        answer.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        answer.extend(body);
    }
    answer
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Request> {
    let first = read_line(reader)?;
    let (mut id, mut length, mut is_chunked, mut sum) = (0, 0, false, None);
    loop {
        let line = read_line(reader)?.to_ascii_lowercase();
        let Some((name, value)) = line.split_once(':') else { break };
        let value = value.trim();
        match name {
            "x-id" => id = value.parse().map_err(|_| ErrorKind::InvalidData)?,
            "x-checksum" => sum = u64::from_str_radix(value, 16).ok(),
            "content-length" => length = value.parse().map_err(|_| ErrorKind::InvalidData)?,
            "transfer-encoding" => is_chunked = true,
            _ => {}
        }
    }
    let mut body = Vec::new();
    if is_chunked {
        loop {
            let size = usize::from_str_radix(&read_line(reader)?, 16).map_err(|_| ErrorKind::InvalidData)?;
            take(reader, size, &mut body)?;
            let end = read_line(reader)?;
            if size == 0 && end.is_empty() {
                break;
            }
        }
    } else {
        take(reader, length, &mut body)?;
    }
    let is_post = first.starts_with("POST ");
    let is_health_check = id == 0;
    let is_whole = is_health_check
        || (first.starts_with(&format!("{} /{id} ", if is_post { "POST" } else { "GET" }))
            && if is_post {
                body == content(id, Side::Upload) && sum == Some(checksum(&body))
            } else {
                body.is_empty()
            });
    Ok(Request { is_post, id, is_whole })
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(ErrorKind::UnexpectedEof.into()),
    }
}

fn take(reader: &mut impl BufRead, count: usize, into: &mut Vec<u8>) -> io::Result<()> {
    let before = into.len();
    reader.take(count as u64).read_to_end(into)?;
    if into.len() - before == count { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

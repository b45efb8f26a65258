//! The two embedded backends of the zero-argument run, and the ways in which they can be made unwell.
//!
//! As plain as a server can be: a thread for each connection, blocking reads, one answer. That is fine for a
//! demonstration, and everything that the balancer itself must not do: see what becomes of it with a thousand clients
//! that say nothing.
//!
//! A backend does as it is told by a POST to its own port. The balancer puts `/b8081` before what it passes on, so
//! no client of the balancer reaches these commands.

use crate::http::{BodyFraming, FieldTable, HeadScan, Limits, Request, client_may_stay};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// The ports of the demonstration's backends.
pub const PORTS: [u16; 2] = [8081, 8082];

/// Where the demonstration can be seen into, unless another place is asked for or this port is taken.
pub const ADMIN_PORT: u16 = 9900;

/// The longest that a backend can be told to take for an answer, or to stay dead.
const LONGEST: Duration = Duration::from_secs(60);

/// How long an answer takes if `/demo/slow` does not say.
const SLOW: Duration = Duration::from_millis(500);

/// How long a backend stays dead if `/demo/die` does not say.
const DEAD: Duration = Duration::from_secs(20);

/// What is known at `/demo/`, for those who ask for something else.
const COMMANDS: &str = "POST /demo/slow?ms=500, /demo/fail, /demo/die?s=20 and /demo/well";

/// A backend that listens, but does not answer yet.
pub struct DemoBackend {
    listener: TcpListener,
    patient: Arc<Patient>,
    /// All of the demonstration's backends: any of them can make the others well.
    ward: Arc<[Arc<Patient>]>,
}

impl DemoBackend {
    /// Listens on each of these ports of 127.0.0.1, or on none; 0 is a port of the system's choosing.
    ///
    /// # Errors
    /// The address that could not be had, and why.
    pub fn bind(ports: &[u16]) -> Result<Vec<DemoBackend>, (SocketAddr, io::Error)> {
        let mut listeners = Vec::new();
        let mut ward = Vec::new();
        for &port in ports {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let listener = TcpListener::bind(address).map_err(|error| (address, error))?;
            let address = listener.local_addr().map_err(|error| (address, error))?;
            listeners.push(listener);
            ward.push(Arc::new(Patient { address, ..Patient::default() }));
        }
        let ward: Arc<[Arc<Patient>]> = ward.into();
        let patients = ward.iter().map(Arc::clone);
        let backends = listeners.into_iter().zip(patients);
        Ok(backends.map(|(listener, patient)| DemoBackend { listener, patient, ward: Arc::clone(&ward) }).collect())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.patient.address
    }

    /// How a balancer names it: everything is answered below `/b` and the port.
    pub fn url(&self) -> String {
        format!("http://{}/b{}", self.address(), self.address().port())
    }

    /// Answers in threads of its own, for as long as the process lives.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn serve(self) -> io::Result<()> {
        let DemoBackend { mut listener, patient, ward } = self;
        let thread = thread::Builder::new().name(format!("demo backend {}", patient.address.port()));
        thread.spawn(move || {
            loop {
                let accepted = listener.accept();
                if patient.is_dead() {
                    // Only a closed listener refuses; one that does not accept keeps its callers waiting.
                    drop((accepted, listener));
                    patient.cut_connections();
                    listener = patient.come_back();
                    continue;
                }
                let Ok((connection, _)) = accepted else { continue };
                let connection = patient.admit(connection);
                let (patient, ward) = (Arc::clone(&patient), Arc::clone(&ward));
                let thread = thread::Builder::new().name("demo connection".to_owned());
                // No thread to be had: the connection is closed, and the balancer tries elsewhere.
                drop(thread.spawn(move || converse(&connection, &patient, &ward)));
            }
        })?;
        Ok(())
    }
}

/// What a backend has been told to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    /// To answer at once.
    #[default]
    Well,
    /// To take this long for each answer.
    Slow(Duration),
    /// To answer every request with 500.
    Failing,
    /// To refuse connections until then.
    Dead(Instant),
}

/// What it does from now on, behind its name.
impl fmt::Display for Mood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mood::Well => f.write_str("is well"),
            Mood::Slow(time) => write!(f, "takes {} ms for each answer", time.as_millis()),
            Mood::Failing => f.write_str("answers every request with 500"),
            Mood::Dead(until) => {
                let left = until.saturating_duration_since(Instant::now()).as_secs_f64().round();
                write!(f, "refuses connections for {left} s")
            }
        }
    }
}

/// A backend as its own threads and its neighbours see it.
struct Patient {
    address: SocketAddr,
    mood: Mutex<Mood>,
    changed: Condvar,
    /// The connections that are open, and some that were.
    connections: Mutex<Vec<Weak<TcpStream>>>,
}

impl Default for Patient {
    fn default() -> Patient {
        Patient {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            mood: Mutex::default(),
            changed: Condvar::new(),
            connections: Mutex::default(),
        }
    }
}

impl Patient {
    fn mood(&self) -> MutexGuard<'_, Mood> {
        self.mood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_dead(&self) -> bool {
        matches!(*self.mood(), Mood::Dead(_))
    }

    fn take_to_heart(&self, mood: Mood) {
        log::info!("the demonstration's backend on {} {mood}", self.address);
        *self.mood() = mood;
        self.changed.notify_all();
        if let Mood::Dead(_) = mood {
            // The acceptor sleeps until somebody comes.
            drop(TcpStream::connect(self.address));
        }
    }

    fn admit(&self, connection: TcpStream) -> Arc<TcpStream> {
        let connection = Arc::new(connection);
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| connection.strong_count() > 0);
        connections.push(Arc::downgrade(&connection));
        connection
    }

    fn cut_connections(&self) {
        let connections = std::mem::take(&mut *self.connections.lock().unwrap_or_else(PoisonError::into_inner));
        for connection in connections.iter().filter_map(Weak::upgrade) {
            // An error means that it is gone already.
            let _gone = connection.shutdown(Shutdown::Both);
        }
    }

    /// Sleeps until the time is over or somebody says that it is well, and listens again.
    fn come_back(&self) -> TcpListener {
        let mut mood = self.mood();
        while let Mood::Dead(until) = *mood {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                *mood = Mood::Well;
            } else {
                mood = self.changed.wait_timeout(mood, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        drop(mood);
        loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => return listener,
                Err(error) => log::warn!("the demonstration's backend can't listen on {}: {error}", self.address),
            }
            thread::sleep(Duration::from_secs(1));
        }
    }
}

const LIMITS: Limits = Limits { head_bytes: 64 * 1024, target_bytes: 64 * 1024, fields: 1000 };

/// Answers request after request, until one of the two has had enough.
fn converse(mut connection: &TcpStream, patient: &Patient, ward: &[Arc<Patient>]) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut received = Vec::new();
    let mut scan = HeadScan::of_request();
    loop {
        let head_end = match scan.advance(&received) {
            Ok(Some(head_end)) => head_end,
            Ok(None) => {
                read_some(connection, &mut received)?;
                continue;
            }
            Err(_) => return Ok(()),
        };
        let mut table = FieldTable::default();
        let Ok(request) = Request::read(&received[..head_end], &mut table, LIMITS) else { return Ok(()) };
        let stays = client_may_stay(request.version, request.options) && request.framing != BodyFraming::Chunked;
        let told = command(&request, patient, ward);
        let (answer, moods) = told.unwrap_or_else(|| (ordinary(&request, patient), Vec::new()));
        // Told to die, it says so before it does; all else it does before it says so.
        let (dying, other): (Vec<_>, Vec<_>) = moods.into_iter().partition(|(_, mood)| matches!(mood, Mood::Dead(_)));
        for (patient, mood) in other {
            patient.take_to_heart(mood);
        }
        connection.write_all(&answer.written(&request, stays))?;
        for (patient, mood) in dying {
            patient.take_to_heart(mood);
        }
        let body = match request.framing {
            BodyFraming::Length(length) => length,
            BodyFraming::None | BodyFraming::Chunked | BodyFraming::UntilClose => 0,
        };
        if !stays {
            return Ok(());
        }
        let begun = usize::try_from(body).unwrap_or(usize::MAX).min(received.len() - head_end);
        received.drain(..head_end + begun);
        io::copy(&mut connection.take(body - begun as u64), &mut io::sink())?;
        scan = HeadScan::of_request();
    }
}

struct Answer {
    status: &'static str,
    body: String,
}

impl Answer {
    fn written(&self, request: &Request<'_, '_>, stays: bool) -> Vec<u8> {
        let Answer { status, body } = self;
        let close = if stays { "" } else { "Connection: close\r\n" };
        let allow = if status.starts_with("405") { "Allow: POST\r\n" } else { "" };
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n{allow}Content-Length: {length}\r\n{close}\r\n");
        let body = if request.method == "HEAD" { "" } else { body };
        (head + body).into_bytes()
    }
}

/// What everybody gets who asks for nothing special, in the way that the backend feels now.
fn ordinary(request: &Request<'_, '_>, patient: &Patient) -> Answer {
    let port = patient.address.port();
    let own = format!("/b{port}");
    let mood = *patient.mood();
    if let Mood::Slow(time) = mood {
        thread::sleep(time);
    }
    let is_ours = request.path().strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    let (status, body) = match is_ours {
        _ if mood == Mood::Failing => ("500 Internal Server Error", format!("The backend on :{port} fails, as told\n")),
        true => ("200 OK", format!("Hello from backend server on :{port}\n")),
        false => ("404 Not Found", format!("Only {own} is known here\n")),
    };
    Answer { status, body }
}

/// If this tells the backend how to feel: what it says to that, and who feels how from then on.
fn command<'a>(
    request: &Request<'_, '_>,
    patient: &'a Patient,
    ward: &'a [Arc<Patient>],
) -> Option<(Answer, Vec<(&'a Patient, Mood)>)> {
    let told = request.path().strip_prefix("/demo/")?;
    let refused = |status, body: String| Some((Answer { status, body: body + "\n" }, Vec::new()));
    if request.method != "POST" {
        return refused("405 Method Not Allowed", format!("This takes a POST: {COMMANDS}"));
    }
    let (word, query) = told.split_once('?').unwrap_or((told, ""));
    let port = patient.address.port();
    let mood = match word {
        "slow" => {
            let Some(time) = time(query, "ms", Duration::from_millis(1), SLOW) else {
                let most = LONGEST.as_millis();
                return refused(
                    "400 Bad Request",
                    format!("ms is a whole number up to {most}, as in /demo/slow?ms=500"),
                );
            };
            Mood::Slow(time)
        }
        "fail" => Mood::Failing,
        "die" => {
            let Some(time) = time(query, "s", Duration::from_secs(1), DEAD) else {
                let most = LONGEST.as_secs();
                return refused("400 Bad Request", format!("s is a whole number up to {most}, as in /demo/die?s=20"));
            };
            Mood::Dead(Instant::now() + time)
        }
        "well" if query.is_empty() => {
            let body = "All backends of the demonstration are well\n".to_owned();
            let moods = ward.iter().map(|patient| (&**patient, Mood::Well)).collect();
            return Some((Answer { status: "200 OK", body }, moods));
        }
        _ => return refused("404 Not Found", format!("There is no /demo/{told}, but there is {COMMANDS}")),
    };
    let other = ward.iter().find(|other| other.address != patient.address && !other.is_dead());
    let from = other.map_or(patient.address, |other| other.address);
    let how = "say to either of the two (a dead one can't hear you): curl -X POST";
    let body = format!("The backend on :{port} {mood}. To end that, {how} {from}/demo/well\n");
    Some((Answer { status: "200 OK", body }, vec![(patient, mood)]))
}

/// The time in a query of one name and a whole number of these units; the default if the query is empty.
fn time(query: &str, name: &str, unit: Duration, default: Duration) -> Option<Duration> {
    if query.is_empty() {
        return Some(default);
    }
    let digits = query.strip_prefix(name)?.strip_prefix('=')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| is_number)?;
    unit.checked_mul(number).filter(|time| *time <= LONGEST)
}

fn read_some(mut connection: &TcpStream, into: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    match connection.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => {
            into.extend_from_slice(&buffer[..n]);
            Ok(())
        }
    }
}

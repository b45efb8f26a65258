//! What has to come at just the right moment, so that no script of a client or a backend could bring it about: here no
//! worker is at work, and a client has its turns when a test says so, at whatever time that says.

use super::*;
use crate::addresses::Guest;
use crate::balance::Origin;
use crate::config::Config;
use crate::exchange::{Arrival, Client, Door, Phase, Shared, Turn};
use crate::lines::Lines;
use crate::live::Live;
use crate::metrics::{Samples, Tally, WaitsFor};
use crate::net::{Headcount, Listeners, Lot, Unparked, bind};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize};

/// One client, and the desk of the only worker.
struct Stage {
    desk: Desk,
    client: Option<Box<Client>>,
    /// The other end of the client's connection.
    far: TcpStream,
    /// The time, behind the real one.
    later: Duration,
}

impl Stage {
    /// A client that has connected to a balancer before these backends, with these flags.
    fn before(backends: &[&TcpListener], flags: &[&str]) -> io::Result<Stage> {
        let mut words = vec!["--access-log".to_owned(), "off".to_owned()];
        for backend in backends {
            backend.set_nonblocking(true)?;
            words.push(format!("--backend={}", backend.local_addr()?));
        }
        words.extend(flags.iter().map(|&flag| flag.to_owned()));
        let config = Config::from_args(words).map_err(|error| io::Error::other(error.to_string()))?;
        let lot = Lot::new(4096)?;
        let bound = bind([], Vec::new()).map_err(|(_, error)| error)?;
        let shared = Arc::new(Shared {
            live: Live::new(config, Arc::new(Origin::resolve)),
            listeners: Listeners::new(bound, lot.bells()?)?,
            lot,
            access_log: Lines::new("access log"),
            wire_log: Arc::new(Lines::new("wire log")),
            connections: Headcount::of_at_most(1),
            door: Door::default(),
            tallies: (0..2).map(|_| Tally::default()).collect(),
            samples: Samples::default(),
            is_leaving: AtomicBool::new(false),
            collected: AtomicUsize::new(0),
            late: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let far = TcpStream::connect(listener.local_addr()?)?;
        far.set_read_timeout(Some(Duration::from_secs(10)))?;
        let (near, peer) = listener.accept()?;
        near.set_nonblocking(true)?;
        let now = Instant::now();
        let arrival = Arrival::Direct(Guest::default());
        let presence = shared.connections.enter().ok_or(ErrorKind::AddrInUse)?;
        let client = |connection| Box::new(Client::new(connection, presence, peer, arrival, now, &shared));
        shared.lot.admit(mio::net::TcpStream::from_std(near), now + Duration::from_secs(600), client)?;
        let client = shared.lot.take_oldest_idle(|_| Some(now));
        Ok(Stage { desk: Desk::new(shared, 0), client, far, later: Duration::ZERO })
    }

    /// Gives the client its turns, whenever something has come that it waits for, until `is_enough`.
    fn go_on(&mut self, is_enough: impl Fn(&mut Client) -> bool) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let shared = Arc::clone(&self.desk.shared);
        let mut ready = Vec::new();
        while let Some(mut client) = self.client.take() {
            self.desk.clear(Instant::now() + self.later);
            let Turn::Park(watch) = client.turn(&mut self.desk) else { break };
            if is_enough(&mut client) {
                self.client = Some(client);
                break;
            }
            self.client = match shared.lot.park(client, watch) {
                Err(Unparked::Ready(client) | Unparked::Refused(client)) => Some(client),
                Ok(()) => loop {
                    shared.lot.wait(&mut ready);
                    match ready.pop() {
                        None if Instant::now() >= deadline => return Err(ErrorKind::TimedOut.into()),
                        None => {}
                        client => break client,
                    }
                },
            };
        }
        Ok(())
    }

    /// Gives the client a turn in which it may read one byte more than it already has, as soon as something has come from
    /// both sides.
    fn go_on_briefly(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let Some(mut client) = self.client.take() else { return Err(ErrorKind::NotFound.into()) };
        while !client.connection.is_stirring() || !client.backend().is_some_and(Connection::is_stirring) {
            self.desk.shared.lot.wait(&mut Vec::new());
            if Instant::now() >= deadline {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        self.desk.clear(Instant::now());
        self.desk.budget = 1;
        client.turn(&mut self.desk);
        self.client = Some(client);
        Ok(())
    }

    /// Writes to the client, until the kernel has no more room for it, and makes none for more than a tick. Returns how
    /// much that was.
    fn fill(&mut self) -> usize {
        let (mut length, mut looks) = (0, 0);
        while let Some(client) = self.client.as_mut().filter(|_| looks < 3) {
            looks += 1; // the first may be over at once, the second where a tick is: the third takes a whole one
            while let Ok(count) = client.connection.write(&[&[b'y'; 4096]]) {
                (length, looks) = (length + count, 0);
            }
            self.desk.shared.lot.wait(&mut Vec::new());
        }
        length
    }
}

/// The exchange that is under way.
fn exchange(client: &mut Client) -> Option<&mut Exchange> {
    match &mut client.phase {
        Phase::Serving(exchange) => Some(exchange),
        Phase::Introduction | Phase::Idle | Phase::Head(_) | Phase::Tunnelling(_) | Phase::Lingering(_) => None,
    }
}

fn waits_for(what: WaitsFor) -> impl Fn(&mut Client) -> bool {
    move |client| exchange(client).is_some_and(|exchange| exchange.waits_for() == what)
}

/// Accepts a connection, and reads the head that comes by it.
fn asked(backend: &TcpListener) -> io::Result<TcpStream> {
    backend.set_nonblocking(false)?;
    let (connection, _) = backend.accept()?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        (&connection).read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(connection)
}

/// Where there is no pipe, bytes are taken from their source only once they have been given on.
#[cfg(target_os = "linux")]
#[test]
fn a_put_of_which_a_lost_backend_took_some_with_it_is_not_said_to_another() {
    let backends = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let mut stage = Stage::before(&[&backends[0], &backends[1]], &[]).unwrap();
    stage.far.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").unwrap();
    stage.go_on(waits_for(WaitsFor::Body)).unwrap();
    let first = asked(&backends[0]).unwrap();
    let under_way = exchange(stage.client.as_mut().unwrap()).unwrap();
    assert!(under_way.upload.is_whole(), "no byte of the body has come yet");
    // It is lost behind the look whether it takes bytes, which finds nothing wrong, and before the call to give some.
    under_way.leg.as_mut().unwrap().connection.shutdown_write().unwrap();
    stage.far.write_all(&[b'y'; 1000]).unwrap();
    stage.go_on(waits_for(WaitsFor::Backend)).unwrap();
    drop(first);
    stage.go_on(|client| exchange(client).is_none_or(|exchange| exchange.tried.len() > 1)).unwrap();
    let other = backends[1].accept().map(|_| "asked").map_err(|error| error.kind());
    assert_eq!(other, Err(ErrorKind::WouldBlock), "it would get a thousand bytes less than it was promised");
    let mut answer = [0; 12];
    stage.far.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 502", "{}", answer.escape_ascii());
}

#[test]
fn a_reader_has_its_time_from_the_head_of_its_answer_on() {
    const TIME: Duration = Duration::from_secs(60);
    let flags = ["--response-head-timeout", "1h", "--response-body-timeout", "60s", "--lowest-rate", "0"];
    for goes_on in [true, false] {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stage = Stage::before(&[&backend], &flags).unwrap();
        stage.far.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let is_sent = |exchange: &mut Exchange| exchange.upload.state == Sending::Done;
        stage.go_on(|client| exchange(client).is_some_and(is_sent)).unwrap();
        let mut connection = asked(&backend).unwrap();
        let told = stage.fill(); // before that, and it has not taken it: not a byte of the answer has room beside it
        stage.later = TIME * 10; // as long as the backend thinks
        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        stage.go_on(waits_for(WaitsFor::SlowReader)).unwrap();
        assert!(stage.client.is_some(), "it is cut off before it could know that there is an answer");
        stage.later += if goes_on { TIME * 9 / 10 } else { TIME };
        if goes_on {
            let mut before = vec![0; told];
            stage.far.read_exact(&mut before).unwrap();
            stage.go_on(|client| exchange(client).is_none()).unwrap();
            let mut answer = [0; 15];
            stage.far.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
        } else {
            stage.go_on(|_| true).unwrap();
            assert!(stage.client.is_none(), "its time is over, and it has not taken a byte");
        }
    }
}

#[test]
fn what_goes_up_leaves_a_share_of_the_turn_to_what_comes_down() {
    let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let chunks = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (is_tunnel, request) in [(false, &chunks[..]), (true, upgrade)] {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stage = Stage::before(&[&backend], &[]).unwrap();
        stage.far.write_all(request).unwrap();
        let is_sent = |client: &mut Client| exchange(client).is_some_and(|exchange| exchange.leg.is_some());
        stage.go_on(is_sent).unwrap();
        let mut connection = asked(&backend).unwrap();
        if is_tunnel {
            let switched = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
            connection.write_all(switched).unwrap();
            stage.go_on(|client| matches!(client.phase, Phase::Tunnelling(_))).unwrap();
            let mut head = [0; 200];
            assert_ne!(stage.far.read(&mut head).unwrap(), 0);
        }
        connection.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n").unwrap();
        stage.far.write_all(b"5\r\nhello\r\n").unwrap();
        stage.go_on_briefly().unwrap();
        let mut answer = [0; 12];
        stage.far.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413", "{}", answer.escape_ascii());
    }
}

#[test]
fn what_a_lost_client_has_not_been_given_is_not_told_of_as_delivered() {
    let chunked = ("Transfer-Encoding: chunked", "8\r\nabcdefgh\r\n", "2\r\nij\r\n0\r\n\r\n");
    for (framing, begin, rest) in [("Content-Length: 10", "abcdefgh", "ij"), chunked] {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stage = Stage::before(&[&backend], &[]).unwrap();
        stage.desk.tally().want_samples(1);
        stage.far.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        stage.go_on(|client| exchange(client).is_some_and(|exchange| exchange.upload.state == Sending::Done)).unwrap();
        let mut connection = asked(&backend).unwrap();
        write!(connection, "HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{begin}").unwrap();
        stage.go_on(|client| exchange(client).is_some_and(|exchange| exchange.said == Said::Head)).unwrap();
        // It is lost behind all looks, and before the call to give it the rest.
        stage.client.as_mut().unwrap().connection.shutdown_write().unwrap();
        connection.write_all(rest.as_bytes()).unwrap();
        stage.go_on(|client| exchange(client).is_none()).unwrap();
        let told = stage.desk.shared.samples.take().map(|sample| sample.bytes_out).collect::<Vec<_>>();
        // Where framing is left over with the rest, it is a few less.
        assert!(matches!(told[..], [8]) || framing != "Content-Length: 10" && matches!(told[..], [..8]), "{told:?}");
    }
}

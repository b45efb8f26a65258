//! The lot through its public face: no wake-up is lost, no visit is in two hands, no deadline is early.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use threadbare::net::{Connection, Glance, Lot, Unparked, Wants, Watch};

/// The longest that anything here waits.
const PATIENCE: Duration = Duration::from_secs(8);

struct Visit {
    client: Connection,
    /// Somebody has it in hand: to be found out if two had.
    taken: AtomicBool,
    /// Bytes read and not yet written back.
    pending: Vec<u8>,
    backend: Option<Connection>,
}

fn lot() -> Lot<Visit> {
    Lot::new(threadbare::net::raise_limit()).unwrap()
}

/// A socket accepted from a listener, and its other end.
fn pair() -> (mio::net::TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    far.set_nodelay(true).unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    let (near, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    (mio::net::TcpStream::from_std(near), far)
}

fn admit(lot: &Lot<Visit>, near: mio::net::TcpStream, deadline: Instant) {
    let visit = |client| Box::new(Visit { client, taken: AtomicBool::new(false), pending: Vec::new(), backend: None });
    lot.admit(near, deadline, visit).unwrap();
}

/// Waits until a visit comes out.
fn next(lot: &Lot<Visit>) -> Box<Visit> {
    let began = Instant::now();
    let mut ready = Vec::new();
    while ready.is_empty() {
        lot.wait(&mut ready).unwrap();
        assert!(began.elapsed() < PATIENCE, "nobody came out of the lot");
    }
    assert_eq!(ready.len(), 1);
    ready.pop().unwrap()
}

fn later() -> Instant {
    Instant::now() + PATIENCE
}

#[test]
fn a_byte_wakes_the_visit_that_waits_for_it() {
    let lot = lot();
    let (near, mut far) = pair();
    admit(&lot, near, later());
    assert_eq!(lot.parked(), 1);
    far.write_all(b"x").unwrap();
    let mut visit = next(&lot);
    assert_eq!(lot.parked(), 0);
    assert_eq!(visit.client.read(&mut [0; 8]).unwrap(), 1);
    assert_eq!(visit.client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_byte_that_came_before_the_visit_was_parked_does_not_wait_for_another() {
    let lot = lot();
    let (near, mut far) = pair();
    admit(&lot, near, later());
    far.write_all(b"x").unwrap();
    let visit = next(&lot);
    // The byte is still there: parking must say so, since the kernel will not say it again.
    let watch = Watch::client(&visit.client, Wants::READABLE, later());
    match lot.park(visit, watch) {
        Err(Unparked::Ready(mut visit)) => assert_eq!(visit.client.read(&mut [0; 8]).unwrap(), 1),
        Err(Unparked::Refused(_)) | Ok(()) => panic!("the visit was parked upon a byte that it waits for"),
    }
}

#[test]
fn an_end_behind_a_short_read_is_not_forgotten() {
    let lot = lot();
    let (near, mut far) = pair();
    admit(&lot, near, later());
    far.write_all(b"last words").unwrap();
    drop(far);
    // Until the end has arrived too, so that both are in one event.
    let mut visit = next(&lot);
    let began = Instant::now();
    while !visit.client.is_ending() {
        let watch = Watch::client(&visit.client, Wants::CLOSED, later());
        visit = match lot.park(visit, watch) {
            Ok(()) => next(&lot),
            Err(Unparked::Ready(visit)) => visit,
            Err(Unparked::Refused(_)) => panic!("refused"),
        };
        assert!(began.elapsed() < PATIENCE);
    }
    assert_eq!(visit.client.read(&mut [0; 64]).unwrap(), 10);
    assert_eq!(visit.client.read(&mut [0; 64]).unwrap(), 0, "the end was forgotten");
}

#[test]
fn a_reset_that_a_write_has_met_with_is_no_end_to_the_read_behind_it() {
    let lot = lot();
    let (near, far) = pair();
    admit(&lot, near, later());
    rustix::net::sockopt::set_socket_linger(&far, Some(Duration::ZERO)).unwrap();
    drop(far);
    let mut visit = next(&lot);
    assert_eq!(visit.client.write(&[b"too late"]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(visit.client.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[cfg(target_os = "linux")]
#[test]
fn what_lies_behind_an_urgent_byte_is_not_waited_for() {
    let lot = lot();
    let (near, mut far) = pair();
    far.write_all(b"before").unwrap();
    rustix::net::send(&far, b"!", rustix::net::SendFlags::OOB).unwrap();
    far.write_all(b"behind").unwrap();
    admit(&lot, near, later()); // so that all of it is in one event
    let mut visit = next(&lot);
    let mut buffer = [0; 64];
    assert_eq!(visit.client.read(&mut buffer).unwrap(), 6);
    assert_eq!(visit.client.read(&mut buffer[6..]).unwrap(), 6, "the kernel would not say it again");
    assert_eq!(&buffer[..12], b"beforebehind");
    assert_eq!(visit.client.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_visit_is_woken_only_by_what_it_waits_for() {
    let lot = lot();
    let (near, mut far) = pair();
    let (other_near, mut other_far) = pair();
    admit(&lot, near, later());
    far.write_all(b"x").unwrap();
    let mut visit = next(&lot);
    assert_eq!(visit.client.read(&mut [0; 8]).unwrap(), 1);
    let watch = Watch::client(&visit.client, Wants::CLOSED, later());
    assert!(lot.park(visit, watch).is_ok());
    admit(&lot, other_near, later());
    far.write_all(b"not what it waits for").unwrap();
    other_far.write_all(b"y").unwrap();
    // The second client's byte came after the first one's: if that woke anybody, it is out by now.
    let mut woken = next(&lot);
    let mut byte = [0; 1];
    assert_eq!(woken.client.read(&mut byte).unwrap(), 1);
    assert_eq!(&byte, b"y");
    assert_eq!(lot.parked(), 1);
}

#[test]
fn a_deadline_is_never_early_and_hardly_late() {
    let lot = lot();
    let (near, _far) = pair();
    let deadline = Instant::now() + Duration::from_millis(150);
    admit(&lot, near, deadline);
    let visit = next(&lot);
    assert!(Instant::now() >= deadline, "early");
    assert_eq!(visit.client.glance(), Glance::Quiet);
}

#[test]
fn thousands_of_deadlines_at_once_are_all_kept() {
    let lot = lot();
    let pairs: Vec<_> = (0..200).map(|_| pair()).collect();
    let deadline = Instant::now() + Duration::from_millis(50);
    let mut far = Vec::new();
    for (near, other) in pairs {
        admit(&lot, near, deadline);
        far.push(other);
    }
    let mut ready = Vec::new();
    let mut out = 0;
    let began = Instant::now();
    while out < 200 {
        lot.wait(&mut ready).unwrap();
        out += ready.drain(..).count();
        assert!(began.elapsed() < PATIENCE, "{out} of 200 came out");
    }
    assert_eq!(lot.parked(), 0);
}

#[test]
fn who_is_admitted_while_a_drain_has_begun_goes_when_its_grace_is_over() {
    let lot = Lot::new(1024).unwrap();
    lot.announce_drain(Instant::now());
    let (near, _far) = pair();
    admit(&lot, near, later());
    next(&lot);
}

#[test]
fn a_drain_ends_the_idle_and_no_others_and_lets_none_park_again() {
    let lot = lot();
    let (near, mut far) = pair();
    let (idle_near, mut idle_far) = pair();
    admit(&lot, near, later());
    far.write_all(b"x").unwrap();
    let mut visit = next(&lot);
    assert_eq!(visit.client.read(&mut [0; 8]).unwrap(), 1);
    let busy = Watch::client(&visit.client, Wants::READABLE, later());
    assert!(lot.park(visit, busy).is_ok());
    admit(&lot, idle_near, later());
    assert_eq!(lot.drain(|_| false, Instant::now()).len(), 1);
    assert_eq!(idle_far.read(&mut [0; 8]).unwrap(), 0, "the idle one is closed");
    assert_eq!(lot.parked(), 1);
    far.write_all(b"y").unwrap();
    let mut visit = next(&lot);
    assert_eq!(visit.client.read(&mut [0; 8]).unwrap(), 1);
    let idle = Watch::client(&visit.client, Wants::READABLE, later()).idle();
    assert!(matches!(lot.park(visit, idle), Err(Unparked::Refused(_))));
    assert_eq!(far.read(&mut [0; 8]).unwrap(), 0, "and closed");
}

#[test]
fn a_closed_lot_gives_everything_back_and_lets_nobody_wait() {
    let lot = Arc::new(lot());
    let (near, _far) = pair();
    admit(&lot, near, later());
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let lot = Arc::clone(&lot);
            thread::spawn(move || {
                let mut ready = Vec::new();
                while lot.wait(&mut ready).is_some() {}
            })
        })
        .collect();
    assert_eq!(lot.close().len(), 1);
    for thread in waiting {
        thread.join().unwrap();
    }
}

/// A listener that echoes what it gets, on every connection, until it is dropped.
struct Echo {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Echo {
    fn start() -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut threads = Vec::new();
            for connection in listener.incoming().take_while(|_| !stopped.load(Ordering::Acquire)) {
                threads.push(thread::spawn(move || parrot(connection.unwrap())));
            }
            for thread in threads {
                thread.join().unwrap();
            }
        });
        Echo { address, stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        TcpStream::connect(self.address).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn parrot(mut connection: TcpStream) {
    let mut buffer = [0; 4096];
    connection.set_nodelay(true).unwrap();
    while let Ok(n @ 1..) = connection.read(&mut buffer) {
        if connection.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
}

/// One turn of a little relay: client to backend and back, the backend taken from and given back to a common stock so
/// that it changes owners all the time.
fn turn(visit: &mut Visit, stock: &std::sync::Mutex<Vec<Connection>>, echo: SocketAddr) -> io::Result<Watch> {
    assert!(!visit.taken.swap(true, Ordering::AcqRel), "the visit was in two hands");
    let mut buffer = [0; 256];
    let outcome = loop {
        if let Some(backend) = &mut visit.backend {
            if !visit.pending.is_empty() {
                match backend.write(&[&visit.pending]) {
                    Ok(n) => drop(visit.pending.drain(..n)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        break Watch::client(&visit.client, Wants::NOTHING, later())
                            .and_backend(backend, Wants::WRITABLE);
                    }
                    Err(error) => return Err(error),
                }
                continue;
            }
            match backend.read(&mut buffer) {
                Ok(n) => {
                    visit.client.write(&[&buffer[..n]])?;
                    if buffer[..n].ends_with(b"\n") {
                        let mut backend = visit.backend.take().unwrap();
                        backend.unbind();
                        stock.lock().unwrap().push(backend);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    break Watch::client(&visit.client, Wants::CLOSED, later()).and_backend(backend, Wants::READABLE);
                }
                Err(error) => return Err(error),
            }
        } else {
            match visit.client.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    visit.pending.extend_from_slice(&buffer[..n]);
                    let spare = stock.lock().unwrap().pop();
                    visit.backend = Some(match spare {
                        Some(mut spare) => {
                            spare.bind_to(&visit.client);
                            spare
                        }
                        None => visit.client.dial(echo)?,
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    break Watch::client(&visit.client, Wants::READABLE, later()).idle();
                }
                Err(error) => return Err(error),
            }
        }
    };
    visit.taken.store(false, Ordering::Release);
    Ok(outcome)
}

#[test]
fn in_a_storm_no_wake_up_is_lost_and_no_visit_is_in_two_hands() {
    const CLIENTS: usize = 48;
    const ROUNDS: usize = 300;
    let lot = Arc::new(lot());
    let stock = Arc::new(std::sync::Mutex::new(Vec::new()));
    let server = Echo::start();
    let echo = server.address;
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let (lot, stock) = (Arc::clone(&lot), Arc::clone(&stock));
            thread::spawn(move || {
                let mut ready = Vec::new();
                while lot.wait(&mut ready).is_some() {
                    for mut visit in ready.drain(..) {
                        while let Ok(watch) = turn(&mut visit, &stock, echo) {
                            match lot.park(visit, watch) {
                                Err(Unparked::Ready(back)) => visit = back,
                                Ok(()) | Err(Unparked::Refused(_)) => break,
                            }
                        }
                    }
                }
            })
        })
        .collect();
    let done = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (near, mut far) = pair();
            admit(&lot, near, later());
            let done = Arc::clone(&done);
            thread::spawn(move || {
                for round in 0..ROUNDS {
                    let said = format!("{number} {round}\n");
                    far.write_all(said.as_bytes()).unwrap();
                    let mut heard = vec![0; said.len()];
                    far.read_exact(&mut heard).unwrap_or_else(|error| panic!("client {said:?}: {error}"));
                    assert_eq!(heard, said.as_bytes(), "another client's bytes");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(done.load(Ordering::Relaxed), CLIENTS * ROUNDS);
    drop(lot.close());
    for worker in workers {
        worker.join().unwrap();
    }
    // With every connection to it closed, the echo can end.
    assert!(stock.lock().unwrap().drain(..).count() <= CLIENTS);
}

#[test]
fn a_byte_that_comes_while_the_one_before_it_is_read_is_not_forgotten() {
    const CLIENTS: usize = 8;
    const PAIRS: usize = 3000;
    let lot = Arc::new(lot());
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let lot = Arc::clone(&lot);
            thread::spawn(move || {
                let mut ready = Vec::new();
                while lot.wait(&mut ready).is_some() {
                    for mut visit in ready.drain(..) {
                        while let Ok(n) = read_some(&mut visit) {
                            visit.pending.resize(visit.pending.len() + n, b'x');
                            if visit.pending.len() == 2 {
                                visit.pending.clear();
                                visit.client.write(&[b"!"]).unwrap();
                            }
                            let watch = Watch::client(&visit.client, Wants::READABLE, later());
                            match lot.park(visit, watch) {
                                Err(Unparked::Ready(back)) => visit = back,
                                Ok(()) | Err(Unparked::Refused(_)) => break,
                            }
                        }
                    }
                }
            })
        })
        .collect();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (near, mut far) = pair();
            admit(&lot, near, later());
            thread::spawn(move || {
                for pair in 0..PAIRS {
                    far.write_all(b"x").unwrap();
                    far.write_all(b"x").unwrap();
                    far.read_exact(&mut [0])
                        .unwrap_or_else(|error| panic!("pair {pair}: a byte was forgotten: {error}"));
                }
            })
        })
        .collect();
    let outcomes: Vec<_> = clients.into_iter().map(thread::JoinHandle::join).collect();
    drop(lot.close());
    for worker in workers {
        worker.join().unwrap();
    }
    assert!(outcomes.iter().all(Result::is_ok));
}

/// One short read, which by the rules is not followed by another before the next event.
fn read_some(visit: &mut Visit) -> io::Result<usize> {
    match visit.client.read(&mut [0; 16]) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        outcome => outcome,
    }
}

//! As many workers as cores, and not one more for ten thousand idle clients.
//!
//! A worker waits until some visits can go on, or somebody comes, and gives each of them a turn. A turn never waits. A
//! panic in one costs its client's connection, never the worker.

use crate::error::Reason;
use crate::exchange::{Client, ClientPromise, Desk, Shared, Turn};
use crate::metrics::Doing;
use crate::net::Unparked;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Starts as many workers as `shared` has tallies for.
///
/// # Errors
/// No thread could be started. Those that were end when the lot is closed.
pub fn start(shared: &Arc<Shared>, threads: &mut Vec<JoinHandle<()>>) -> io::Result<()> {
    for worker in 0..shared.tallies.len() - 1 {
        let shared = Arc::clone(shared);
        let name = format!("worker {worker}");
        threads.push(std::thread::Builder::new().name(name).spawn(move || work(&shared, worker))?);
    }
    Ok(())
}

fn work(shared: &Arc<Shared>, worker: usize) {
    let mut desk = Desk::new(Arc::clone(shared), worker);
    let mut ready = Vec::new();
    let mut resumed = Instant::now();
    let mut swept = resumed;
    let mut promise = shared.listeners.promise();
    loop {
        desk.tally().note(Doing::Waiting);
        let hear = |bell| shared.listeners.hear(bell);
        let Some(rest) = shared.lot.wait_and_hear(&mut ready, promise.due(), hear) else { return };
        desk.tally().note(Doing::Working);
        desk.tally().count_rest(resumed, rest);
        resumed = rest.until;
        if resumed.duration_since(swept) >= SWEEP {
            swept = resumed;
            shared.live.current().rotation.sweep(resumed);
            shared.door.sweep(resumed);
        }
        accept(shared, worker, &mut promise, resumed);
        answer_calls(&mut desk, shared);
        for client in ready.drain(..) {
            desk.clear(resumed);
            take_turns(client, &mut desk, shared);
            answer_calls(&mut desk, shared);
        }
        desk.hand_over_lines();
        accept(shared, worker, &mut promise, resumed); // somebody may have left a place
    }
}

/// How often spares are looked at, and a part of the addresses, by each worker.
const SWEEP: Duration = Duration::from_millis(100);

/// Accepts clients that wait, if somebody has rung, or this worker has promised to look again.
fn accept(shared: &Arc<Shared>, worker: usize, promise: &mut ClientPromise, now: Instant) {
    let outcome = catch_unwind(AssertUnwindSafe(|| shared.accept(promise, now, worker)));
    if outcome.is_err() {
        shared.tallies[worker].count_panic();
        promise.look_at(now); // nobody rings again for those who wait still
    }
}

/// Gives those a turn who have been given a place at a backend: by the turn before, that is, by somebody who left one.
fn answer_calls(desk: &mut Desk, shared: &Arc<Shared>) {
    loop {
        let called = shared.live.queue.take_called();
        if called.is_empty() {
            return;
        }
        for client in called.into_iter().filter_map(|whom| shared.lot.call(whom)) {
            desk.clear(Instant::now());
            take_turns(client, desk, shared);
        }
    }
}

/// Gives a client its turn, and another if what it waits for came meanwhile.
fn take_turns(mut client: Box<Client>, desk: &mut Desk, shared: &Arc<Shared>) {
    while let Some(Turn::Park(watch)) = guarded(&mut client, desk) {
        match shared.lot.park(client, watch) {
            Err(Unparked::Ready(back)) => client = back,
            Err(Unparked::Refused(back)) if back.has_news() => client = back,
            Err(Unparked::Refused(client)) => return end(client, desk),
            Ok(()) => return,
        }
        desk.clear(Instant::now());
    }
}

/// Ends a client that may not park any more, with whatever can still be said and written down.
fn end(mut client: Box<Client>, desk: &mut Desk) {
    client.fail(Reason::Shutdown.into(), desk);
    guarded(&mut client, desk);
}

/// A turn that may panic. `None`: the connection is lost to it.
fn guarded(client: &mut Client, desk: &mut Desk) -> Option<Turn> {
    if let Ok(turn) = catch_unwind(AssertUnwindSafe(|| client.turn(desk))) {
        return Some(turn);
    }
    desk.tally().count_panic();
    desk.renew(); // its buffers may have been lent out
    let apology = catch_unwind(AssertUnwindSafe(|| {
        client.fail(Reason::Internal.into(), desk);
        client.turn(desk)
    }));
    apology.ok()
}

#[cfg(test)]
mod tests {
    use crate::{Balancer, Config};
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    /// What a client hears that asks for this, until the connection ends.
    fn ask(address: SocketAddr, target: &str) -> String {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(client, "GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut heard = String::new();
        // A reset is one of the ways in which a connection may end here.
        let _reset = client.read_to_string(&mut heard);
        heard
    }

    #[test]
    fn a_panic_costs_its_connection_and_nothing_else() {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = backend.local_addr().unwrap().to_string();
        let answers = std::thread::spawn(move || {
            for _ in 0..3 {
                let (mut connection, _) = backend.accept().unwrap();
                let mut head = [0; 4096];
                assert_ne!(connection.read(&mut head).unwrap(), 0);
                connection.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine").unwrap();
            }
        });
        // As many connections as there will be panics: each of them must be counted out.
        let flags = "--listen 127.0.0.1:0 --workers 2 --access-log off --connections-per-address 5";
        let flags: Vec<&str> = flags.split(' ').chain([&*url]).collect();
        let balancer = Balancer::start(Config::from_args(flags).unwrap()).unwrap();
        // More often than there are workers: none of them may be lost to it.
        for panics in 1..=4 {
            let heard = ask(balancer.address(), "/panic/early");
            assert!(heard.starts_with("HTTP/1.1 500 "), "{heard:?}");
            assert!(heard.contains("internal-error"), "{heard:?}");
            assert_eq!(balancer.counters().panics, panics);
        }
        assert!(ask(balancer.address(), "/").ends_with("fine"));
        let cut = ask(balancer.address(), "/panic/late");
        assert!(!cut.contains("500"), "a second answer began: {cut:?}");
        assert!(ask(balancer.address(), "/").ends_with("fine"));
        assert_eq!((balancer.counters().panics, balancer.counters().in_flight), (5, 0));
        answers.join().unwrap();
    }
}

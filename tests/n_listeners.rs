//! Listening sockets through their public face: who changes them while they accept loses no connection.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::AssertUnwindSafe;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use threadbare::net::{self, Acceptor, Bound, Listeners, Lot, Passed, Promise};

/// The longest that anything here waits.
const PATIENCE: Duration = Duration::from_secs(8);

const ANY: &str = "127.0.0.1:0";

type Name = &'static str;

/// Three workers who wait in a lot, accept, and say to each client whose listener it has come by; they end with their test.
struct Crew {
    lot: Arc<Lot<()>>,
    handle: Listeners<Name>,
    is_full: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Crew {
    fn start(bound: Bound<Name>) -> Self {
        let lot = Arc::new(Lot::new(1024).unwrap());
        let handle = Listeners::new(bound, lot.bells().unwrap()).unwrap();
        let is_full = Arc::new(AtomicBool::new(false));
        let worker = || {
            let (lot, listeners, is_full) = (Arc::clone(&lot), handle.clone(), Arc::clone(&is_full));
            thread::spawn(move || work(&lot, &listeners, &is_full))
        };
        let workers = vec![worker(), worker(), worker()];
        Self { lot, handle, is_full, workers }
    }

    fn on(wanted: &[(&str, Name)]) -> Self {
        Self::start(net::bind(pairs(wanted), Vec::new()).unwrap())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.handle.finish(|| Some(()), || false, greet);
        assert_eq!(self.lot.close().len(), 0);
        self.workers.drain(..).for_each(|worker| worker.join().unwrap());
    }
}

fn work(lot: &Lot<()>, listeners: &Listeners<Name>, is_full: &AtomicBool) {
    let mut promise = listeners.promise();
    while let Some(rest) = lot.wait_and_hear(&mut Vec::new(), promise.due(), |bell| listeners.hear(bell)) {
        let place = || (!is_full.load(Ordering::Acquire)).then_some(());
        listeners.accept(&mut promise, rest.until, place, || false, greet);
    }
}

fn greet(mut socket: mio::net::TcpStream, _: SocketAddr, name: Name, (): ()) -> io::Result<()> {
    socket.write_all(name.as_bytes())
}

fn pairs(wanted: &[(&str, Name)]) -> Vec<(SocketAddr, Name)> {
    wanted.iter().map(|(address, name)| (address.parse().unwrap(), *name)).collect()
}

/// What the listener says to whoever connects.
fn greeting(address: SocketAddr) -> String {
    heard(TcpStream::connect(address).unwrap())
}

fn heard(mut client: TcpStream) -> String {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    said
}

fn wait_until_refusing(address: SocketAddr) {
    let began = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(began.elapsed() < PATIENCE, "{address} still accepts");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_connection_is_told_by_which_listener_it_came() {
    let crew = Crew::on(&[(ANY, "first"), (ANY, "second")]);
    let addresses = crew.handle.addresses();
    assert_eq!([greeting(addresses[0]), greeting(addresses[1])], ["first", "second"]);
}

#[test]
fn a_listener_is_added_and_another_removed_while_a_third_stays() {
    let crew = Crew::on(&[(ANY, "stays"), ("127.0.0.2:0", "goes")]);
    let before = crew.handle.addresses();
    let after = crew.handle.replace(pairs(&[("127.0.0.3:0", "comes"), (ANY, "stays, renamed")])).unwrap();
    assert_eq!(after[1], before[0], "port 0 before and after is the same listener");
    assert_eq!(crew.handle.addresses(), after);
    assert_eq!([greeting(after[0]), greeting(after[1])], ["comes", "stays, renamed"]);
    wait_until_refusing(before[1]);
}

#[test]
fn no_connection_to_a_listener_that_stays_is_refused_or_lost() {
    let crew = Crew::on(&[(ANY, "stays")]);
    let address = crew.handle.addresses()[0];
    let clients = thread::spawn(move || {
        for nth in 0..300 {
            assert_eq!(greeting(address), "stays", "connection {nth}");
        }
    });
    let mut turn = 0;
    while !clients.is_finished() || turn < 3 {
        let others = [(ANY, "stays"), ("127.0.0.2:0", "comes and goes"), ("127.0.0.3:0", "comes and goes")];
        let after = crew.handle.replace(pairs(&others[..1 + turn % 3])).unwrap();
        assert_eq!(after[0], address);
        turn += 1;
    }
    clients.join().unwrap();
}

#[test]
fn who_waits_in_the_backlog_of_a_listener_that_goes_is_accepted() {
    let crew = Crew::on(&[(ANY, "goes")]);
    let address = crew.handle.addresses()[0];
    crew.is_full.store(true, Ordering::Release);
    let waiting: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(crew.handle.replace([]).unwrap(), []);
    crew.is_full.store(false, Ordering::Release);
    for client in waiting {
        assert_eq!(heard(client), "goes");
    }
    wait_until_refusing(address);
}

#[test]
fn a_listener_that_is_wanted_again_before_it_is_gone_stays() {
    let crew = Crew::on(&[(ANY, "there")]);
    let address = crew.handle.addresses()[0];
    crew.is_full.store(true, Ordering::Release);
    let waiting = TcpStream::connect(address).unwrap();
    crew.handle.replace([]).unwrap();
    assert_eq!(crew.handle.replace(pairs(&[(ANY, "and back")])).unwrap(), [address]);
    crew.is_full.store(false, Ordering::Release);
    assert_eq!(heard(waiting), "and back");
    assert_eq!(greeting(address), "and back");
}

/// Sockets that nobody waits for: what is heard of them is asked for, and who is admitted is counted.
struct Bench {
    lot: Lot<()>,
    listeners: Listeners<Name>,
    address: SocketAddr,
}

impl Bench {
    fn new() -> Self {
        let lot = Lot::new(1024).unwrap();
        let listeners =
            Listeners::new(net::bind(pairs(&[(ANY, "")]), Vec::new()).unwrap(), lot.bells().unwrap()).unwrap();
        let address = listeners.addresses()[0];
        let bench = Self { lot, listeners, address };
        assert_eq!(bench.accept(&mut bench.promise(), Instant::now(), true), 0, "nobody has come");
        bench
    }

    fn promise(&self) -> Promise<Name> {
        self.listeners.promise()
    }

    /// So many clients that wait, and the socket has rung.
    fn crowd(&self, size: usize) -> Vec<TcpStream> {
        let clients = (0..size).map(|_| TcpStream::connect(self.address).unwrap()).collect();
        self.wait_until_it_rings();
        clients
    }

    fn wait_until_it_rings(&self) {
        let (began, rung) = (Instant::now(), Cell::new(false));
        while !rung.get() {
            assert!(began.elapsed() < PATIENCE, "it does not ring");
            let hear = |bell| {
                rung.set(true);
                self.listeners.hear(bell);
            };
            self.lot.wait_and_hear(&mut Vec::new(), None, hear).unwrap();
        }
    }

    /// How many are admitted, or, if there is no place, would have been.
    fn accept(&self, promise: &mut Promise<Name>, now: Instant, has_place: bool) -> usize {
        let looks = Cell::new(0);
        let place = || {
            looks.set(looks.get() + usize::from(!has_place));
            has_place.then_some(())
        };
        let admit = |_, _, _, ()| {
            looks.set(looks.get() + 1);
            Ok(())
        };
        self.listeners.accept(promise, now, place, || false, admit);
        looks.get()
    }
}

#[test]
fn of_a_crowd_some_are_accepted_at_a_time_and_anybody_may_go_on() {
    let bench = Bench::new();
    let _crowd = bench.crowd(40);
    let (began, mut promises, mut accepted) = (Instant::now(), [bench.promise(), bench.promise()], Vec::new());
    while accepted.iter().sum::<usize>() < 40 {
        for promise in &mut promises {
            let some = bench.accept(promise, began, true);
            assert!(some < 16 || promise.due() == Some(began), "more may wait: it comes again at once");
            accepted.push(some);
        }
        assert!(began.elapsed() < PATIENCE, "{accepted:?}");
    }
    assert!(accepted.iter().all(|&some| some <= 16), "{accepted:?}");
}

#[test]
fn where_there_is_no_place_one_comes_again_and_nobody_else_tries() {
    let bench = Bench::new();
    let _crowd = bench.crowd(1);
    let (now, mut first, mut second) = (Instant::now(), bench.promise(), bench.promise());
    assert_eq!(bench.accept(&mut first, now, false), 1);
    let due = first.due().unwrap();
    assert!(due > now);
    let _another = bench.crowd(1);
    assert_eq!(bench.accept(&mut second, now, true), 0, "the first one has promised to come");
    assert_eq!(bench.accept(&mut first, now, true), 0, "and its time has not come");
    assert_eq!((first.due(), second.due()), (Some(due), None));
    assert_eq!(bench.accept(&mut first, due, true), 2);
    assert_eq!(first.due(), None);
    let _third = bench.crowd(1);
    assert_eq!(bench.accept(&mut second, now, true), 1);
}

#[test]
fn a_promise_does_not_end_with_whoever_has_made_it() {
    let bench = Bench::new();
    let _crowd = bench.crowd(1);
    let (now, mut first, mut second) = (Instant::now(), bench.promise(), bench.promise());
    assert_eq!(bench.accept(&mut first, now, false), 1);
    assert_eq!(bench.accept(&mut second, now, true), 0);
    drop(first);
    assert_eq!(bench.accept(&mut second, now, true), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_socket_that_another_process_has_shut_down_is_not_tried_again_and_again() {
    let bench = Bench::new();
    let elsewhere = bench.listeners.sockets().unwrap().swap_remove(0).socket;
    rustix::net::shutdown(&elsewhere, rustix::net::Shutdown::Both).unwrap();
    bench.wait_until_it_rings();
    let mut promise = bench.promise();
    assert_eq!(bench.accept(&mut promise, Instant::now(), true), 0);
    assert_eq!(promise.due(), None, "it can't be accepted from any more");
}

#[test]
fn places_that_are_left_go_round_among_the_listeners() {
    let rows = pairs(&[(ANY, "first"), ("127.0.0.2:0", "second")]);
    let lot = Lot::<()>::new(1024).unwrap();
    let listeners = Listeners::new(net::bind(rows, Vec::new()).unwrap(), lot.bells().unwrap()).unwrap();
    let addresses = listeners.addresses();
    let _crowd: Vec<TcpStream> = [0, 0, 0, 1, 1, 1].map(|nth| TcpStream::connect(addresses[nth]).unwrap()).into();
    let (mut promise, mut now, admitted) = (listeners.promise(), Instant::now(), RefCell::new(Vec::new()));
    for _ in 0..4 {
        let left = Cell::new(1_u32);
        let place = || left.replace(0).checked_sub(1);
        let admit = |_, _, name, _| {
            admitted.borrow_mut().push(name);
            Ok(())
        };
        listeners.accept(&mut promise, now, place, || false, admit);
        now = promise.due().unwrap();
    }
    assert_eq!(*admitted.borrow(), ["first", "second", "first", "second"]);
}

#[test]
fn nobody_is_lost_whom_several_accept_while_one_finishes() {
    for _ in 0..20 {
        let crew = Crew::on(&[(ANY, "there")]);
        let address = crew.handle.addresses()[0];
        crew.is_full.store(true, Ordering::Release);
        let waiting: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
        crew.is_full.store(false, Ordering::Release);
        drop(crew);
        for client in waiting {
            assert_eq!(heard(client), "there");
        }
    }
}

#[test]
fn who_waits_behind_a_connection_over_which_its_host_has_panicked_is_accepted() {
    let bench = Bench::new();
    let _crowd = bench.crowd(3);
    let (began, mut promise) = (Instant::now(), bench.promise());
    let admit = |_: mio::net::TcpStream, _: SocketAddr, _: Name, (): ()| panic!("as a test");
    let accept = || bench.listeners.accept(&mut promise, began, || Some(()), || false, admit);
    assert!(std::panic::catch_unwind(AssertUnwindSafe(accept)).is_err());
    let mut accepted = 0;
    while accepted < 2 {
        promise.look_at(began); // as a worker does
        accepted += bench.accept(&mut promise, began, true);
        assert!(began.elapsed() < PATIENCE, "{accepted}");
    }
}

#[test]
fn nothing_changes_if_one_address_can_not_be_had() {
    let crew = Crew::on(&[(ANY, "stays")]);
    let before = crew.handle.addresses();
    let taken = TcpListener::bind(ANY).unwrap();
    let taken_address = taken.local_addr().unwrap();
    let wanted = [("127.0.0.2:0".parse().unwrap(), "would come"), (taken_address, "can't come")];
    let (address, error) = crew.handle.replace(wanted).unwrap_err();
    assert_eq!((address, error.kind()), (taken_address, ErrorKind::AddrInUse));
    assert_eq!(crew.handle.addresses(), before);
    assert_eq!(greeting(before[0]), "stays");
}

#[test]
fn a_stopped_listener_is_closed_though_a_handle_lives_on() {
    let crew = Crew::on(&[("127.0.0.4:0", "was there")]); // where no other test takes the port again
    let handle = crew.handle.clone();
    let address = handle.addresses()[0];
    drop(crew);
    wait_until_refusing(address); // not at once: a process that another test just starts holds all sockets for a moment
    assert!(handle.replace(pairs(&[(ANY, "too late")])).is_err());
    assert_eq!(handle.addresses(), []);
}

#[test]
fn a_listener_that_goes_is_forgotten_though_another_process_holds_its_socket() {
    let crew = Crew::on(&[(ANY, "goes"), ("127.0.0.2:0", "stays")]);
    let addresses = crew.handle.addresses();
    let elsewhere = crew.handle.sockets().unwrap().swap_remove(0).socket;
    crew.handle.replace(pairs(&[("127.0.0.2:0", "stays")])).unwrap();
    // Whoever is greeted was there in time; the first who is not belongs to the other process.
    let began = Instant::now();
    elsewhere.set_nonblocking(true).unwrap();
    loop {
        let _client = TcpStream::connect(addresses[0]).unwrap();
        if elsewhere.accept().is_ok() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the listener is still emptied by who should have left it");
    }
    assert_eq!(greeting(addresses[1]), "stays");
}

#[test]
fn a_passed_socket_takes_the_place_of_the_one_for_its_address() {
    let opened = TcpListener::bind(ANY).unwrap();
    let local = opened.local_addr().unwrap();
    let early = TcpStream::connect(local).unwrap();
    let rows = [Passed { address: ANY.parse().unwrap(), socket: opened.try_clone().unwrap() }];
    let bound = net::bind(pairs(&[("127.0.0.2:0", "own"), (ANY, "passed")]), rows.into()).unwrap();
    assert_eq!(bound.addresses().unwrap()[1], local);
    let crew = Crew::start(bound);
    assert_eq!(heard(early), "passed", "who came before the change of hands");
    assert_eq!(greeting(crew.handle.addresses()[0]), "own");
}

/// Runs one test of this file as another process, with these words of a shell before it.
fn as_a_process(test: &str, words: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{words} exec \"$0\" --exact {test} --ignored --nocapture");
    command.args(["-c", &script]).arg(std::env::current_exe().unwrap());
    command.stdout(Stdio::null());
    command
}

#[test]
fn sockets_from_a_service_manager_are_found() {
    let opened = TcpListener::bind(ANY).unwrap();
    let address = opened.local_addr().unwrap();
    let mut child = as_a_process("started_with_a_socket", "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(opened)))
        .spawn()
        .unwrap();
    assert_eq!(greeting(address), "activated");
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "the other process of the test above"]
fn started_with_a_socket() {
    let (passed, complaints) = net::activated().unwrap();
    assert!(complaints.is_empty(), "{complaints:?}");
    assert_eq!(passed.len(), 1);
    assert_eq!(passed[0].address, passed[0].socket.local_addr().unwrap());
    let wanted: Vec<_> = passed.iter().map(|passed| (passed.address, "activated")).collect();
    let bound = net::bind(wanted, passed).unwrap();
    let acceptor = Acceptor::new(bound).unwrap();
    let listeners = acceptor.listeners();
    acceptor.accept(
        || Some(()),
        || false,
        |socket, peer, name, place| {
            listeners.stop();
            greet(socket, peer, name, place)
        },
    );
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let mut child = as_a_process("started_with_somebody_elses_socket", "LISTEN_FDS=1 LISTEN_PID=1").spawn().unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "the other process of the test above"]
fn started_with_somebody_elses_socket() {
    assert!(net::activated().unwrap().0.is_empty());
}

#[test]
fn a_socket_from_a_service_manager_that_is_of_no_use_is_told_of() {
    let taken = TcpListener::bind(ANY).unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let script = "exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_threadbare"), "--listen", &listen, "127.0.0.1:9"]);
    let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(said.contains("WARN") && said.contains("socket 0 of the service manager is of no use here"), "{said}");
}

#[test]
fn more_sockets_than_a_process_can_have_are_an_error_at_the_start() {
    // Its one address is taken, so that it ends in any case.
    let taken = TcpListener::bind(ANY).unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let rows = [("10000000", true), ("18446744073709551615", true), ("96", false)];
    for (announced, is_refused) in rows {
        let words = format!("ulimit -n 96; export LISTEN_FDS={announced} LISTEN_PID=$$; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &words, env!("CARGO_BIN_EXE_threadbare"), "--listen", &listen, "127.0.0.1:9"]);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let refusal = format!("LISTEN_FDS={announced}, and this process can have 96 descriptors");
        assert_eq!(said.contains(&refusal), is_refused, "{announced}: {said}");
    }
}

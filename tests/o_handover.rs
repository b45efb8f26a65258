//! A restart that refuses nobody: listening sockets pass from one process to another while clients connect.
//!
//! Both "processes" are threads of this one, but for the test that kills one; the sockets are real, and so is the file.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

#[path = "support/folder.rs"]
mod folder;

use crossbeam_channel::{Receiver, unbounded};
use folder::Folder;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use threadbare::net::handover::{self, Inherited, Offer};
use threadbare::net::{self, Acceptor, Bound, Listeners, Passed};

/// The longest that anything here waits.
const PATIENCE: Duration = Duration::from_secs(8);

const ANY: &str = "127.0.0.1:0";

type Name = &'static str;

/// Where a listener is offered, alone in a folder of its own.
struct Meeting(Folder);

impl Meeting {
    fn new() -> Self {
        Self(Folder::new())
    }

    fn path(&self) -> PathBuf {
        self.0.path("socket").into()
    }

    /// What lies there.
    fn names(&self) -> Vec<String> {
        fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Accepts, and says its name to each client; ends with its test.
struct Process {
    handle: Listeners<Name>,
    is_full: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Process {
    fn start(bound: Bound<Name>) -> Self {
        let acceptor = Acceptor::new(bound).unwrap();
        let handle = acceptor.listeners();
        let is_full = Arc::new(AtomicBool::new(false));
        let full = Arc::clone(&is_full);
        let place = move || (!full.load(Ordering::Acquire)).then_some(());
        let greet = |mut socket: mio::net::TcpStream, _, name: Name, ()| socket.write_all(name.as_bytes());
        let thread = thread::spawn(move || acceptor.accept(place, || false, greet));
        Self { handle, is_full, thread: Some(thread) }
    }

    fn on(addresses: &[&str], name: Name) -> Self {
        Self::start(net::bind(wanted(addresses, name), Vec::new()).unwrap())
    }

    /// One that takes the place of another, as far as `done`.
    fn with(inherited: &mut Inherited, addresses: &[&str], name: Name) -> Self {
        Self::start(net::bind(wanted(addresses, name), std::mem::take(&mut inherited.sockets)).unwrap())
    }

    /// Offers its sockets; the receiver hears when they have been taken.
    fn offer(&self, meeting: &Meeting) -> (Offer, Receiver<()>) {
        let handle = self.handle.clone();
        let (taken, was_taken) = unbounded();
        let offer = handover::offer(&meeting.path(), move || handle.sockets(), move || taken.send(()).unwrap_or(()));
        (offer.unwrap(), was_taken)
    }

    fn address(&self) -> SocketAddr {
        self.handle.addresses()[0]
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.handle.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn wanted(addresses: &[&str], name: Name) -> Vec<(SocketAddr, Name)> {
    addresses.iter().map(|address| (address.parse().unwrap(), name)).collect()
}

fn take_over(meeting: &Meeting) -> Inherited {
    handover::take_over(&meeting.path()).unwrap().expect("somebody offers")
}

fn greeting(address: SocketAddr) -> String {
    heard(TcpStream::connect(address).unwrap_or_else(|error| panic!("{address} is refused: {error}")))
}

fn heard(mut client: TcpStream) -> String {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    said
}

fn eventually(condition: impl Fn() -> bool, what: &str) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited, and still not: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn who_connects_while_nobody_accepts_is_served_by_the_new_process() {
    let meeting = Meeting::new();
    let old = Process::on(&[ANY], "old");
    old.is_full.store(true, Ordering::Release); // from here on it accepts nobody
    let address = old.address();
    let (_offer, was_taken) = old.offer(&meeting);
    let before: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut inherited = take_over(&meeting);
    let bound = net::bind(wanted(&[ANY], "new"), std::mem::take(&mut inherited.sockets)).unwrap();
    assert_eq!(bound.addresses().unwrap(), [address], "port 0 in the settings of both is the same listener");
    drop(old); // sooner than it would by itself: nobody accepts, and nobody is refused
    let between: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    let new = Process::start(bound);
    inherited.done().unwrap();
    was_taken.recv_timeout(PATIENCE).unwrap();
    for client in before.into_iter().chain(between) {
        assert_eq!(heard(client), "new");
    }
    assert_eq!(greeting(new.address()), "new");
}

#[test]
fn a_stream_of_clients_does_not_notice_a_row_of_restarts() {
    let meeting = Meeting::new();
    let mut process = Process::on(&[ANY], "first");
    let address = process.address();
    let over = Arc::new(AtomicBool::new(false));
    let (served, greetings) = unbounded();
    let clients = {
        let over = Arc::clone(&over);
        thread::spawn(move || {
            while !over.load(Ordering::Acquire) {
                served.send(greeting(address)).unwrap();
            }
        })
    };
    let (mut offer, mut was_taken) = process.offer(&meeting);
    for name in ["second", "third", "fourth", "fifth"] {
        let mut inherited = take_over(&meeting);
        let new = Process::with(&mut inherited, &[ANY], name);
        inherited.done().unwrap();
        was_taken.recv_timeout(PATIENCE).unwrap();
        (offer, was_taken) = new.offer(&meeting); // the path is free at once
        process = new; // the one before drains
        let began = Instant::now();
        while greetings.recv_timeout(PATIENCE).unwrap() != name {
            assert!(began.elapsed() < PATIENCE, "{name} serves nobody");
        }
    }
    over.store(true, Ordering::Release);
    clients.join().unwrap();
    drop(offer);
    drop(process);
}

#[test]
fn a_new_process_that_ends_before_it_accepts_changes_nothing() {
    let meeting = Meeting::new();
    let old = Process::on(&[ANY], "old");
    let (_offer, was_taken) = old.offer(&meeting);
    for _ in 0..3 {
        drop(take_over(&meeting));
        assert_eq!(greeting(old.address()), "old");
    }
    assert!(was_taken.try_recv().is_err());
    let mut inherited = take_over(&meeting);
    let _new = Process::with(&mut inherited, &[ANY], "new");
    inherited.done().unwrap();
    was_taken.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_new_process_that_is_killed_before_it_accepts_changes_nothing() {
    let meeting = Meeting::new();
    let old = Process::on(&[ANY], "old");
    let (_offer, was_taken) = old.offer(&meeting);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "takes_over_and_waits", "--ignored", "--nocapture"])
        .env("THREADBARE_TEST_PATH", meeting.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = child.stdout.take().unwrap();
    let mut text = String::new();
    while !text.contains("has one socket") {
        let mut byte = [0];
        assert_eq!(said.read(&mut byte).unwrap(), 1, "it has said only {text:?}");
        text.push(char::from(byte[0]));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(greeting(old.address()), "old");
    assert_eq!(take_over(&meeting).sockets.len(), 1);
    assert!(was_taken.try_recv().is_err());
}

#[test]
#[ignore = "the other process of the test above"]
fn takes_over_and_waits() {
    let path = PathBuf::from(std::env::var_os("THREADBARE_TEST_PATH").unwrap());
    let inherited = handover::take_over(&path).unwrap().unwrap();
    assert_eq!(inherited.sockets.len(), 1);
    println!("has one socket");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
}

#[test]
fn more_sockets_than_a_message_may_carry_pass_with_their_addresses() {
    let meeting = Meeting::new();
    net::raise_limit();
    let sockets: Vec<TcpListener> = (0..300).map(|_| TcpListener::bind(ANY).unwrap()).collect();
    let locals: Vec<SocketAddr> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
    let clones = move || {
        let name = |(nth, socket): (u16, &TcpListener)| {
            let address = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], nth));
            Ok(Passed { address, socket: socket.try_clone()? })
        };
        (0..).zip(&sockets).map(name).collect()
    };
    let _offer = handover::offer(&meeting.path(), clones, || ()).unwrap();
    let inherited = take_over(&meeting);
    assert_eq!(inherited.sockets.len(), 300);
    for (nth, (passed, local)) in inherited.sockets.iter().zip(locals).enumerate() {
        assert_eq!(usize::from(passed.address.port()), nth);
        assert_eq!(passed.socket.local_addr().unwrap(), local);
    }
}

#[test]
fn a_listener_that_only_the_new_settings_have_is_opened_and_one_that_they_lack_is_closed() {
    let meeting = Meeting::new();
    let old = Process::on(&[ANY, "127.0.0.2:0"], "old");
    let (_offer, was_taken) = old.offer(&meeting);
    let gone = old.handle.addresses()[1];
    let mut inherited = take_over(&meeting);
    let new = Process::with(&mut inherited, &["127.0.0.3:0", ANY], "new");
    inherited.done().unwrap();
    was_taken.recv_timeout(PATIENCE).unwrap();
    assert_eq!(new.handle.addresses()[1], old.address());
    drop(old);
    assert_eq!(greeting(new.handle.addresses()[1]), "new");
    assert_eq!(greeting(new.handle.addresses()[0]), "new");
    assert!(TcpStream::connect(gone).is_err());
}

#[test]
fn where_nobody_offers_nothing_is_taken() {
    let meeting = Meeting::new();
    assert!(handover::take_over(&meeting.path()).unwrap().is_none(), "no file");
    drop(UnixListener::bind(meeting.path()).unwrap());
    assert!(handover::take_over(&meeting.path()).unwrap().is_none(), "a file that a dead process has left");
}

#[test]
fn the_file_is_for_its_owner_alone_and_goes_with_the_offer() {
    let meeting = Meeting::new();
    let old = Process::on(&[ANY], "old");
    let (offer, _) = old.offer(&meeting);
    assert_eq!(fs::metadata(meeting.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(meeting.names(), ["socket"]);
    drop(offer);
    assert!(meeting.names().is_empty());
}

#[test]
fn a_file_of_a_dead_process_is_replaced_and_one_of_a_living_is_not() {
    let meeting = Meeting::new();
    drop(UnixListener::bind(meeting.path()).unwrap());
    let old = Process::on(&[ANY], "old");
    let (_offer, was_taken) = old.offer(&meeting);
    let second = handover::offer(&meeting.path(), || Ok(Vec::new()), || ());
    assert_eq!(second.unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(take_over(&meeting).sockets.len(), 1, "the living one still offers");
    assert!(was_taken.try_recv().is_err());
    assert_eq!(meeting.names(), ["socket"]);
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let meeting = Meeting::new();
    fs::write(meeting.path(), "precious").unwrap();
    let offer = handover::offer(&meeting.path(), || Ok(Vec::new()), || ());
    assert_eq!(offer.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(meeting.path()).unwrap(), b"precious");
}

#[test]
fn an_offer_that_ends_leaves_the_file_of_another_process_alone() {
    let meeting = Meeting::new();
    let old = Process::on(&[ANY], "old");
    let (offer, _) = old.offer(&meeting);
    fs::remove_file(meeting.path()).unwrap();
    let _other = UnixListener::bind(meeting.path()).unwrap();
    drop(offer);
    assert_eq!(meeting.names(), ["socket"]);
}

#[test]
fn who_talks_nonsense_gets_nothing_and_is_in_nobodys_way() {
    let meeting = Meeting::new();
    let old = Process::on(&[ANY], "old");
    let (_offer, was_taken) = old.offer(&meeting);
    for nonsense in ["", "\n", "GET / HTTP/1.1\r\n\r\n", "threadbare takes over 2\n", "accepting\n"] {
        let mut stranger = UnixStream::connect(meeting.path()).unwrap();
        stranger.set_read_timeout(Some(PATIENCE)).unwrap();
        stranger.write_all(nonsense.as_bytes()).unwrap();
        stranger.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // A reset says that it was not even read to its end.
        let _ = stranger.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{nonsense:?}");
    }
    assert_eq!(take_over(&meeting).sockets.len(), 1);
    assert!(was_taken.try_recv().is_err());
}

#[test]
fn an_offer_ends_though_a_new_process_keeps_it_waiting() {
    let meeting = Meeting::new();
    let old = Process::on(&[ANY], "old");
    let (offer, was_taken) = old.offer(&meeting);
    let inherited = take_over(&meeting);
    drop(offer);
    inherited.done().expect("the old process has ended, and nobody but the new one has its sockets");
    assert!(was_taken.recv_timeout(PATIENCE).is_err());
    eventually(|| meeting.names().is_empty(), "the file is gone");
}

#[test]
fn a_new_process_gives_up_only_if_the_old_one_lives() {
    for (who, answers, goes_on) in [
        ("one that has given up waiting", &["0\n", "0\n"][..], false),
        ("one that is gone", &["0\n"], true),
        ("one that is about to go", &["0\n", "", ""], true),
    ] {
        let meeting = Meeting::new();
        let listener = UnixListener::bind(meeting.path()).unwrap();
        thread::spawn(move || {
            for answer in answers {
                let (mut socket, _) = listener.accept().unwrap();
                socket.read_exact(&mut [0; "threadbare takes over 1\n".len()]).unwrap();
                socket.write_all(answer.as_bytes()).unwrap(); // so many sockets, and no word more
            }
        });
        assert_eq!(take_over(&meeting).done().is_ok(), goes_on, "{who}");
    }
}

#[test]
fn a_process_that_speaks_no_hand_over_is_not_believed() {
    for (answer, kind) in [
        ("", ErrorKind::UnexpectedEof),
        ("1\n127.0.0.1:0\n", ErrorKind::UnexpectedEof),
        ("0\n127.0.0.1:0\n", ErrorKind::InvalidData),
        ("many\n", ErrorKind::InvalidData),
        ("1\nlocalhost\n", ErrorKind::InvalidData),
        ("-1\n", ErrorKind::InvalidData),
        ("\n", ErrorKind::InvalidData),
    ] {
        let meeting = Meeting::new();
        let listener = UnixListener::bind(meeting.path()).unwrap();
        let other = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            socket.read_exact(&mut [0; "threadbare takes over 1\n".len()]).unwrap();
            socket.write_all(answer.as_bytes()).unwrap();
        });
        assert_eq!(handover::take_over(&meeting.path()).unwrap_err().kind(), kind, "{answer:?}");
        other.join().unwrap();
    }
}

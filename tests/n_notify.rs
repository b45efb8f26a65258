//! What the service manager hears, in its own place: a datagram socket.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use crossbeam_channel::TryRecvError;
use program::{BINARY, Program};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Backend, Client, Folder, PATIENCE};
use threadbare::notify::Notifier;

/// A service manager, under an abstract name that no other test has.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn new(test: &str) -> Self {
        let name = format!("threadbare-{}-{test}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, name: format!("@{name}") }
    }

    fn notifier(&self) -> Notifier {
        Notifier::to(OsStr::new(&self.name))
    }

    fn heard(&self) -> String {
        let mut words = [0; 512];
        let length = self.socket.recv(&mut words).unwrap();
        String::from_utf8(words[..length].to_vec()).unwrap()
    }
}

#[test]
fn every_word_is_heard_as_the_manual_has_it() {
    let manager = Manager::new("words");
    let notifier = manager.notifier();
    let main_process = format!("MAINPID={}", std::process::id());
    let rows: [(&dyn Fn(), &str); 5] = [
        (&|| notifier.ready(), "READY=1"),
        (&|| notifier.stopping(), "STOPPING=1"),
        (&|| notifier.status("two backends"), "STATUS=two backends"),
        (&|| notifier.status("no\nREADY=1"), "STATUS=no READY=1"),
        (&|| notifier.main_process(), &main_process),
    ];
    for (tell, words) in rows {
        tell();
        assert_eq!(manager.heard(), words);
    }
}

#[test]
fn a_reload_says_when_it_began() {
    let manager = Manager::new("reload");
    let microseconds = || {
        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
    };
    let before = microseconds();
    manager.notifier().reloading();
    let heard = manager.heard();
    let began = heard.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap_or_else(|| panic!("{heard:?}"));
    assert!((before..=microseconds()).contains(&began.parse().unwrap()), "{heard:?}");
}

#[test]
fn a_path_is_as_good_as_an_abstract_name() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    Notifier::to(OsStr::new(&path)).ready();
    let mut words = [0; 64];
    let length = manager.recv(&mut words).unwrap();
    assert_eq!(&words[..length], b"READY=1");
}

#[test]
fn the_watchdog_hears_of_the_living_only() {
    let manager = Manager::new("watchdog");
    let is_alive = Arc::new(AtomicBool::new(false));
    let (asked, was_asked) = crossbeam_channel::unbounded();
    let watchdog = {
        let is_alive = Arc::clone(&is_alive);
        let ask = move || {
            asked.send(()).unwrap();
            is_alive.load(Ordering::Acquire)
        };
        manager.notifier().watchdog_every(Duration::from_millis(1), ask).unwrap()
    };
    for _ in 0..5 {
        was_asked.recv_timeout(PATIENCE).unwrap();
    }
    manager.socket.set_nonblocking(true).unwrap();
    assert!(manager.socket.recv(&mut [0; 64]).is_err(), "a dead program was called alive");
    manager.socket.set_nonblocking(false).unwrap();
    is_alive.store(true, Ordering::Release);
    assert_eq!(manager.heard(), "WATCHDOG=1");
    drop(watchdog);
    while was_asked.try_recv().is_ok() {}
    let end = was_asked.try_recv();
    assert_eq!(end, Err(TryRecvError::Disconnected), "the thread has not ended");
}

#[test]
fn nobody_is_told_anything_where_nobody_has_asked() {
    let nobody = Notifier::default();
    nobody.ready();
    nobody.reloading();
    let nowhere = Notifier::to(OsStr::new("/nonexistent/notify"));
    nowhere.stopping();
    assert!(nobody.watchdog(|| true).unwrap().is_none() && nowhere.watchdog(|| true).unwrap().is_none());
}

#[test]
fn the_environment_says_whom_to_tell_and_how_often() {
    for (words, is_watched) in [
        ("WATCHDOG_USEC=2000 WATCHDOG_PID=$$", true),
        ("WATCHDOG_USEC=2000", true),
        ("WATCHDOG_USEC=2000 WATCHDOG_PID=1", false),
        ("WATCHDOG_USEC=0", false),
        ("", false),
    ] {
        let manager = Manager::new("environment");
        let script =
            format!("NOTIFY_SOCKET={} {words} exec \"$0\" --exact started_by_a_manager --ignored", manager.name);
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .arg(std::env::current_exe().unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert_eq!(manager.heard(), format!("STATUS=watched: {is_watched}"), "{words}");
        if is_watched {
            assert_eq!(manager.heard(), "WATCHDOG=1", "{words}");
        }
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success(), "{words}");
    }
}

#[test]
#[ignore = "the other process of the test above"]
fn started_by_a_manager() {
    let notifier = Notifier::from_env();
    let (go, may_go) = crossbeam_channel::bounded(1);
    // Not alive before it has been told whether it is watched, so that the words come in one order.
    let alive = move || may_go.try_recv().is_ok();
    let watchdog = notifier.watchdog(alive).unwrap();
    notifier.status(&format!("watched: {}", watchdog.is_some()));
    go.send(()).unwrap_or_default();
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
}

/// The program, at a socket that its manager has opened, with these words in its environment.
fn activated(opened: TcpListener, words: &str) -> Command {
    let script = format!("exec 3<&0 </dev/null; {words} LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.env_remove("RUST_LOG").args(["-c", &script, BINARY]);
    command.stdin(OwnedFd::from(opened)).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[test]
fn the_program_serves_at_its_managers_sockets_and_tells_it_what_it_does() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let opened = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = opened.local_addr().unwrap();
    let mut early = Client::connect(address); // while no process is there to accept
    let manager = Manager::new("program");
    let mut command = activated(opened, &format!("NOTIFY_SOCKET={} WATCHDOG_USEC=200000", manager.name));
    command.arg(backend.url());
    let mut program = Program::spawn_and_listen(&mut command);
    assert_eq!(program.address(), address, "nothing was said of where to listen, so it listens where it was told to");
    let heard_next = || std::iter::repeat_with(|| manager.heard()).find(|words| words != "WATCHDOG=1").unwrap();
    assert_eq!(heard_next(), "READY=1");
    assert_eq!(manager.heard(), "WATCHDOG=1", "its workers are alive");
    early.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(early.read_response("GET").status, 200);
    program.signal(Signal::HUP);
    let reloading = heard_next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(heard_next(), "READY=1", "also where there was nothing to reload");
    program.terminate();
    assert_eq!(heard_next(), "STOPPING=1");
    assert_eq!(program.exit_code(), 0);
}

#[test]
fn a_reload_keeps_the_sockets_of_the_manager_and_so_does_one_after_a_hand_over() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let folder = Folder::new();
    let config = folder.file("config.toml", format!("[[backend]]\nurl = \"{}\"\n", backend.url()));
    let flags = ["--config", &config, "--handover", &folder.path("handover.sock")];
    let opened = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = opened.local_addr().unwrap();
    let mut old = Program::spawn_and_listen(activated(opened, "").args(flags));
    let reload = |program: &Program| {
        let before = program.listening_sockets();
        program.signal(Signal::HUP);
        program.stderr.wait_for("reloaded: ");
        assert_eq!(program.listening_sockets(), before, "it listens elsewhere");
        let mut client = Client::connect(address);
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(client.read_response("GET").status, 200);
    };
    reload(&old);
    let new = Program::listening(program::command().args(flags));
    assert_eq!((new.address(), old.exit_code()), (address, 0));
    reload(&new);
}

#[test]
fn the_manager_of_a_process_that_was_taken_over_hears_of_no_stop() {
    let manager = Manager::new("hand-over");
    let folder = Folder::new();
    let flags = ["--listen", "127.0.0.1:0", "--handover", &folder.path("handover.sock"), "127.0.0.1:9"];
    let start = || {
        Program::listening(
            program::command().env("NOTIFY_SOCKET", &manager.name).env_remove("WATCHDOG_USEC").args(flags),
        )
    };
    let mut old = start();
    let mut new = start();
    assert_eq!(old.exit_code(), 0);
    new.terminate();
    assert_eq!(new.exit_code(), 0);
    let main_process = format!("MAINPID={}", new.id());
    manager.notifier().status("over");
    let heard: Vec<String> =
        std::iter::repeat_with(|| manager.heard()).take_while(|words| words != "STATUS=over").collect();
    assert_eq!(heard, ["READY=1", &main_process, "READY=1", "STOPPING=1"], "a manager that hears of a stop stops all");
}

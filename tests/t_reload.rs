//! Another configuration while everything runs, and another process in the place of this one: nobody loses a request.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use program::{Program, command, free_port};
use rustix::process::Signal;
use support::{Backend, Client, Folder, Gate, eventually, placed};
use threadbare::balance::Condition;
use threadbare::{Balancer, Config};

const LISTENER: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\n";

fn backends(backends: &[&Backend]) -> String {
    backends.iter().map(|backend| format!("[[backend]]\nurl = \"{}\"\n", backend.url())).collect()
}

fn start(config: &str) -> Program {
    Program::listening(command().args(["--config", config]))
}

fn named(name: &'static str) -> Backend {
    Backend::start(move |connection| {
        while connection.read_request().is_some() {
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()).as_bytes());
        }
    })
}

fn get(client: &mut Client) -> String {
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_response("GET").text()
}

#[test]
fn a_reload_changes_the_backends_and_keeps_the_clients() {
    let folder = Folder::new();
    let config = folder.path("config.toml");
    let (old, stays, new) = (named("old"), named("stays"), named("new"));
    fs::write(&config, format!("{LISTENER}{}", backends(&[&old, &stays]))).unwrap();
    let program = start(&config);
    let mut client = Client::connect(program.address());
    let answers: Vec<String> = (0..4).map(|_| get(&mut client)).collect();
    assert_eq!(answers, ["old", "stays", "old", "stays"]);

    fs::write(&config, format!("{LISTENER}{}", backends(&[&stays, &new]))).unwrap();
    program.signal(Signal::HUP);
    program.stderr.wait_for("reloaded");
    let mut answers: Vec<String> = (0..4).map(|_| get(&mut client)).collect();
    answers.sort();
    assert_eq!(answers, ["new", "new", "stays", "stays"], "over the same client connection");
    assert_eq!(stays.accepted(), 1, "a backend that stays keeps its spares");
    old.wait_until("the spare of the backend that is gone is closed", |record| record.open == 0);
}

#[test]
fn what_has_begun_ends_under_the_old_configuration() {
    let folder = Folder::new();
    let config = folder.path("config.toml");
    let gate = Gate::new();
    let old = {
        let gate = gate.clone();
        Backend::start(move |connection| {
            while connection.read_request().is_some() {
                gate.pass();
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold");
            }
        })
    };
    let new = named("new");
    fs::write(&config, format!("{LISTENER}{}", backends(&[&old]))).unwrap();
    let program = start(&config);
    let mut waiting = Client::connect(program.address());
    waiting.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    old.wait_for_requests(1);
    fs::write(&config, format!("{LISTENER}{}[timeouts]\nresponse_head = \"1ms\"\n", backends(&[&new]))).unwrap();
    program.signal(Signal::HUP);
    program.stderr.wait_for("reloaded");
    // Under the new configuration it would have run out of time by now: an answer later than that shows that it didn't.
    let mut client = Client::connect(program.address());
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!([200, 504].contains(&client.read_response("GET").status));
    gate.open();
    assert_eq!(waiting.read_response("GET").text(), "old");
}

#[test]
fn whoever_waits_after_a_failed_try_goes_to_a_backend_that_a_reload_brings() {
    let folder = Folder::new();
    let config = folder.path("config.toml");
    let (gate, refusing, new) = (Gate::new(), Backend::refusing(), named("new"));
    let busy = behind(&gate);
    let limit = "[balance]\nmax_in_flight = 1\n";
    fs::write(&config, format!("{LISTENER}{}{limit}", backends(&[&busy, &refusing]))).unwrap();
    let program = start(&config);
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(program.address())).collect();
    for client in &mut clients {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        busy.wait_for_requests(1); // the second is refused by the other, and waits for this one
    }
    let mut third = Client::connect(program.address());
    third.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    fs::write(&config, format!("{LISTENER}{}{limit}", backends(&[&new]))).unwrap();
    program.signal(Signal::HUP);
    program.stderr.wait_for("reloaded");
    assert_eq!(clients[1].read_response("GET").text(), "new");
    assert_eq!(third.read_response("GET").text(), "new");
    gate.open();
    assert_eq!(clients[0].read_response("GET").text(), "good");
}

#[test]
fn a_tunnel_outlives_the_configuration_under_which_it_began() {
    let folder = Folder::new();
    let config = folder.path("config.toml");
    let echo = Backend::start(|connection| {
        if connection.read_request().is_some() {
            connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
            while let Some(byte) = connection.read_raw(1) {
                connection.send(&byte);
            }
        }
    });
    let new = named("new");
    fs::write(&config, format!("{LISTENER}{}", backends(&[&echo]))).unwrap();
    let program = start(&config);
    let mut tunnel = Client::connect(program.address());
    tunnel.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(tunnel.read_response("GET").status, 101);
    fs::write(&config, format!("{LISTENER}{}[timeouts]\ntunnel = \"1ms\"\n", backends(&[&new]))).unwrap();
    program.signal(Signal::HUP);
    program.stderr.wait_for("reloaded");
    // Answers of the new one, for longer than a tick: by then the tunnel would be over under its timeout.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(250) {
        assert_eq!(get(&mut Client::connect(program.address())), "new");
    }
    tunnel.send(b"still there");
    assert_eq!(tunnel.read_raw(11), b"still there");
}

#[test]
fn a_backend_that_stays_keeps_its_health_its_place_its_spares_and_its_counts() {
    let folder = Folder::new();
    let config = folder.path("config.toml");
    let gate = Gate::new();
    let (busy, refusing) = (behind(&gate), Backend::refusing());
    let text = |more: &str| {
        let named = format!("{LISTENER}{}max_in_flight = 1\n{}", backends(&[&busy]), backends(&[&refusing]));
        format!("{named}[passive_health]\nfailures = 1\nshortest_ejection = \"30s\"\n{more}")
    };
    fs::write(&config, text("")).unwrap();
    let args = ["--access-log", "off", "--config", &config];
    let settings = Config::from_args(args).unwrap();
    let balancer = Balancer::start(settings.clone()).unwrap();
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(balancer.address())).collect();
    for client in &mut clients {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        busy.wait_for_requests(1); // the second is refused elsewhere, and waits
    }
    let standing = || {
        let figures = balancer.figures();
        let of = |nth: usize| {
            let backend = &figures.backends[nth];
            let is_up = backend.condition == Condition::Up;
            (is_up, backend.in_flight, backend.balance.dials, backend.balance.ejections)
        };
        (of(0), of(1))
    };
    let before = ((true, 1, 1, 0), (false, 0, 1, 1));
    eventually(|| standing() == before, "one has all that it may have, the other is out");
    fs::write(&config, text("[timeouts]\nidle = \"59s\"\n")).unwrap();
    balancer.reload(settings.reload().unwrap()).unwrap();
    assert_eq!(standing(), before, "nothing of that is forgotten");
    let mut third = Client::connect(balancer.address());
    third.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually(|| placed(&balancer) == 3, "it has asked");
    assert_eq!(busy.requests().len(), 1, "the limit counts the one from before");
    gate.open();
    for client in clients.iter_mut().chain([&mut third]) {
        assert_eq!(client.read_response("GET").text(), "good");
    }
    assert_eq!(busy.accepted(), 1, "by the same connection");
    let ended = || (balancer.figures().backends[0].balance.requests(), balancer.counters().exchanges);
    eventually(|| ended() == (3, 3), "all three are in one account");
}

#[test]
fn a_bad_file_changes_nothing_and_is_told_with_its_place() {
    let folder = Folder::new();
    let config = folder.path("config.toml");
    let backend = named("good");
    let admin = "[admin]\nlisten = \"127.0.0.1:0\"\n";
    fs::write(&config, format!("{LISTENER}{}{admin}", backends(&[&backend]))).unwrap();
    let program = start(&config);
    let admin = admin_address(&program);
    let mut client = Client::connect(program.address());
    assert_eq!(get(&mut client), "good");
    let rows = [
        ("[balance]\npolicie = \"x\"\n", "policy"),
        ("[timeouts\n", "config.toml"),
        ("[[listener]]\naddress = \"192.0.2.1:1\"\n", "192.0.2.1:1"),
        ("vanished", "can't read"),
        ("a folder", "can't read"),
        ("\u{ff}", "config.toml"),
    ];
    for (nth, (bad, wanted)) in rows.into_iter().enumerate() {
        let _gone_already = fs::remove_file(&config);
        match bad {
            "vanished" => {}
            "a folder" => fs::create_dir(&config).unwrap(),
            _ => {
                let _no_folder = fs::remove_dir(&config);
                fs::write(&config, format!("{}{bad}", backends(&[&backend]))).unwrap();
            }
        }
        let before = program.stderr.so_far().matches("is kept").count();
        program.signal(Signal::HUP);
        eventually(|| program.stderr.so_far().matches("is kept").count() > before, "the reload is refused");
        program.stderr.wait_for(wanted);
        assert_eq!(get(&mut client), "good");
        assert_eq!(get(&mut Client::connect(program.address())), "good", "it listens where it did");
        let mut viewer = Client::connect(admin);
        viewer.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let metrics = viewer.read_response("GET").text();
        let line = format!("threadbare_reloads_total{{outcome=\"refused\"}} {}", nth + 1);
        assert!(metrics.lines().any(|there| there == line), "no {line} in {metrics}");
    }
}

#[test]
fn a_file_that_is_refused_tells_its_secret_to_nobody() {
    let folder = Folder::new();
    let config = folder.path("config.toml");
    let backend = named("good");
    let text = |line: &str| format!("{LISTENER}{}[admin]\nlisten = \"127.0.0.1:0\"\n{line}\n", backends(&[&backend]));
    fs::write(&config, text("token = \"S3cretOfSixteen+more\"")).unwrap();
    let program = start(&config);
    let admin = admin_address(&program);
    let rows = [
        "token = \"S3cretOfSixteen+more",
        "token = \"S3cretOfSixteen more\"",
        "token = S3cretOfSixteen+more",
        "token = [\"S3cretOfSixteen+more\"]",
        "token = \"${S3cretOfSixteen}\"",
        "tokne = \"S3cretOfSixteen+more\"",
        "token = \"S3cretOfSixteen+more\"\ntoken = \"S3cretOfSixteen+more\"",
    ];
    for (nth, line) in rows.into_iter().enumerate() {
        fs::write(&config, text(line)).unwrap();
        program.signal(Signal::HUP);
        eventually(|| program.stderr.so_far().matches("  = ").count() > nth, "the reload is refused, and why is told");
        for path in ["/stats.json", "/", "/table", "/metrics", "/events"] {
            let mut viewer = Client::connect(admin);
            viewer.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
            let told = if path == "/events" {
                viewer.read_head("GET");
                let mut events = String::new();
                while !events.contains("the old configuration is kept: ") || !events.ends_with('\n') {
                    events += &String::from_utf8_lossy(&viewer.read_body_bytes(1));
                }
                events
            } else {
                viewer.read_response("GET").text()
            };
            assert!(!told.contains("S3cret"), "{line}, {path}: {told}");
            if path == "/stats.json" {
                let stats: serde_json::Value = serde_json::from_str(&told).unwrap();
                let why = stats["reloads"]["last_error"].as_str().unwrap();
                assert!(
                    why.contains(&format!(", at {config}:7:")) || why.contains(&format!(", at {config}:8:")),
                    "{why}"
                );
                assert!(!why.contains('\n') && !why.contains("token ="), "the place and the words alone: {why}");
            }
        }
    }
    let said = program.stderr.so_far();
    assert!(said.contains("token = ***") && !said.contains("S3cret"), "{said}");
}

/// Something that can be opened, and whose words may be long in coming.
fn make_pipe(at: &str) {
    assert!(process::Command::new("mkfifo").arg(at).status().unwrap().success());
}

#[test]
fn what_is_no_file_any_more_is_not_waited_for() {
    let backend = named("good");
    let rows: [(&str, fn(&str)); 4] = [
        ("a pipe", make_pipe),
        ("a socket", |at| drop(UnixListener::bind(at).unwrap())),
        ("a device", |at| symlink("/dev/null", at).unwrap()),
        ("irectory", |at| fs::create_dir(at).unwrap()),
    ];
    for (wanted, make) in rows {
        let folder = Folder::new();
        let config = folder.file("config.toml", format!("{LISTENER}{}", backends(&[&backend])));
        let mut program = start(&config);
        fs::remove_file(&config).unwrap();
        make(&config);
        program.signal(Signal::HUP);
        let line = program.stderr.wait_for("can't read");
        assert!(line.contains(&config) && line.contains(wanted), "not {wanted:?}: {line}");
        assert_eq!(get(&mut Client::connect(program.address())), "good", "{wanted}");
        program.terminate();
        assert_eq!(program.exit_code(), 0, "it still hears signals, also where there is {wanted}");
    }
}

#[test]
fn a_pipe_is_read_at_the_start_and_not_again() {
    let folder = Folder::new();
    let (config, backend) = (folder.path("config.toml"), named("good"));
    make_pipe(&config);
    let writer = {
        let (config, text) = (config.clone(), format!("{LISTENER}{}", backends(&[&backend])));
        thread::spawn(move || fs::write(config, text).unwrap())
    };
    let mut program = start(&config);
    writer.join().unwrap();
    program.signal(Signal::HUP);
    let line = program.stderr.wait_for("can't read");
    assert!(line.contains("it is a pipe") && line.contains("a reload takes a file"), "{line}");
    assert_eq!(get(&mut Client::connect(program.address())), "good");
    program.terminate();
    assert_eq!(program.exit_code(), 0);
}

#[test]
fn what_can_not_change_is_said_by_name() {
    let folder = Folder::new();
    let config = folder.path("config.toml");
    let backend = named("good");
    fs::write(&config, format!("workers = 1\n{LISTENER}{}", backends(&[&backend]))).unwrap();
    let program = start(&config);
    fs::write(&config, format!("workers = 2\n{LISTENER}{}", backends(&[&backend]))).unwrap();
    program.signal(Signal::HUP);
    let line = program.stderr.wait_for("restart");
    assert!(line.contains("workers"), "{line}");
}

#[test]
fn what_can_not_change_is_said_as_long_as_the_file_differs_from_what_runs() {
    let backend = named("good");
    let config = |workers| {
        let flags =
            ["--listen", "127.0.0.1:0", "--access-log", "off", "--backend", &backend.url(), "--workers", workers];
        Config::from_args(flags).unwrap()
    };
    let balancer = Balancer::start(config("1")).unwrap();
    for (workers, said) in [("2", &["workers"][..]), ("2", &["workers"]), ("1", &[])] {
        assert_eq!(balancer.reload(config(workers)).unwrap(), said, "{workers}");
    }
}

#[test]
fn a_hundred_reloads_under_load_lose_nothing() {
    let folder = Folder::new();
    let config = folder.path("config.toml");
    let (one, other) = (named("one"), named("other"));
    let texts = [format!("{LISTENER}{}", backends(&[&one, &other])), format!("{LISTENER}{}", backends(&[&other]))];
    fs::write(&config, &texts[0]).unwrap();
    let program = start(&config);
    let ended = Arc::new(AtomicBool::new(false));
    let address = program.address();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let ended = Arc::clone(&ended);
            thread::spawn(move || {
                let mut answered = 0;
                while !ended.load(Ordering::Relaxed) {
                    let mut client = Client::connect(address);
                    for _ in 0..5 {
                        assert!(["one", "other"].contains(&&*get(&mut client)));
                        answered += 1;
                    }
                }
                answered
            })
        })
        .collect();
    for nth in 1..=100 {
        // Renamed into place, as editors do it: a file that is half written is no configuration.
        let draft = folder.path("draft.toml");
        fs::write(&draft, &texts[nth % 2]).unwrap();
        fs::rename(&draft, &config).unwrap();
        program.signal(Signal::HUP);
        program.stderr.wait_for_times(nth, "reloaded");
    }
    ended.store(true, Ordering::Relaxed);
    let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(answered > 100, "hardly any load: {answered}");
    assert!(!program.stderr.so_far().contains("is kept"), "{}", program.stderr.so_far());
}

#[test]
fn twenty_restarts_under_load_refuse_nobody() {
    let folder = Folder::new();
    let (config, socket) = (folder.path("config.toml"), folder.path("handover.sock"));
    let backend = named("good");
    fs::write(&config, format!("handover = \"{socket}\"\n{LISTENER}{}", backends(&[&backend]))).unwrap();
    let mut program = start(&config);
    let ended = Arc::new(AtomicBool::new(false));
    let address = program.address();
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let ended = Arc::clone(&ended);
            thread::spawn(move || {
                let mut answered = 0;
                while !ended.load(Ordering::Relaxed) {
                    let mut client = Client::connect(address); // fails the test if it is refused
                    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                    assert_eq!(client.read_response("GET").text(), "good");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for _ in 0..20 {
        let next = start(&config);
        assert_eq!(next.address(), address, "it listens on the sockets of the one before");
        assert_eq!(program.exit_code(), 0, "the one before drains and ends by itself");
        program = next;
    }
    ended.store(true, Ordering::Relaxed);
    let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(answered > 20, "hardly any load: {answered}");
}

#[test]
fn during_a_drain_delay_it_says_that_it_is_not_ready_and_lets_newcomers_in_all_the_same() {
    let backend = named("good");
    let mut program = Program::start(["--drain-delay", "2s", "--admin", "127.0.0.1:0", &backend.url()]);
    let admin = admin_address(&program);
    assert_eq!(status_of(admin, "/readyz"), 200);
    program.terminate();
    program.stderr.wait_for("accepting goes on");
    assert_eq!((status_of(admin, "/readyz"), status_of(admin, "/healthz")), (503, 200));
    let mut client = Client::connect(program.address());
    for closes in [false, false, true] {
        client.send(
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", if closes { "Connection: close\r\n" } else { "" })
                .as_bytes(),
        );
        let answer = client.read_response("GET");
        assert_eq!((&*answer.text(), answer.closes()), ("good", closes), "as if nothing were about to happen");
    }
    assert_eq!(program.exit_code(), 0);
}

fn admin_address(program: &Program) -> SocketAddr {
    let line = program.stderr.wait_for("the admin listener is at http://");
    line.split_once("http://").unwrap().1.trim_end_matches('/').parse().unwrap()
}

fn status_of(admin: SocketAddr, path: &str) -> u16 {
    let mut client = Client::connect(admin);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes());
    client.read_response("GET").status
}

#[test]
fn a_reload_adds_and_removes_listeners_and_nobody_is_refused_by_one_that_stays() {
    let folder = Folder::new();
    let config = folder.path("config.toml");
    let backend = named("good");
    let stays = SocketAddr::from(([127, 0, 0, 1], free_port()));
    // Where nobody's connections begin: while it is not listened to, no client may come to have this port for its own.
    let elsewhere = TcpListener::bind("127.0.0.2:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
    let comes = elsewhere.local_addr().unwrap();
    drop(elsewhere);
    let listener = |address: SocketAddr| format!("[[listener]]\naddress = \"{address}\"\n");
    let texts = [listener(stays), listener(stays) + &listener(comes)].map(|text| text + &backends(&[&backend]));
    fs::write(&config, &texts[0]).unwrap();
    let program = start(&config);
    assert_eq!(program.address(), stays);
    let mut kept = Client::connect(stays);
    assert_eq!(get(&mut kept), "good");
    let ended = Arc::new(AtomicBool::new(false));
    let newcomers = {
        let ended = Arc::clone(&ended);
        thread::spawn(move || {
            let mut answered = 0;
            while !ended.load(Ordering::Relaxed) {
                // The balancer closes first: no port of ours stays taken for a minute, which a listener might want next.
                let mut newcomer = Client::connect(stays);
                newcomer.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                assert_eq!(newcomer.read_response("GET").text(), "good");
                newcomer.expect_closed();
                answered += 1;
            }
            answered
        })
    };
    for nth in 1..=10 {
        let draft = folder.path("draft.toml");
        fs::write(&draft, &texts[nth % 2]).unwrap();
        fs::rename(&draft, &config).unwrap();
        program.signal(Signal::HUP);
        eventually(|| program.stderr.so_far().matches("reloaded").count() >= nth, "it has been reloaded");
        if nth % 2 == 1 {
            assert_eq!(get(&mut Client::connect(comes)), "good", "it listens there too");
        } else {
            eventually(|| TcpStream::connect(comes).is_err(), "it does not listen there any more");
        }
    }
    assert_eq!(get(&mut kept), "good", "over the connection from before");
    ended.store(true, Ordering::Relaxed);
    assert!(newcomers.join().unwrap() > 10, "hardly any load");
}

/// A backend that answers "good" once the gate is open.
fn behind(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::start(move |connection| {
        while connection.read_request().is_some() {
            gate.pass();
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
        }
    })
}

#[test]
fn a_log_is_opened_again_while_a_drain_goes_on() {
    for delay in ["0s", "1h"] {
        let folder = Folder::new();
        let (log, renamed) = (folder.path("access.log"), folder.path("access.log.1"));
        let gate = Gate::new();
        let backend = behind(&gate);
        let mut program = Program::start(["--access-log-file", &log, "--drain-delay", delay, &backend.url()]);
        let mut client = Client::connect(program.address());
        client.send(b"GET /late HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        backend.wait_for_requests(1);
        program.terminate();
        program.stderr.wait_for("draining: ");
        fs::rename(&log, &renamed).unwrap();
        program.signal(Signal::HUP);
        eventually(|| fs::exists(&log).unwrap(), "the file is there again");
        gate.open();
        assert_eq!(client.read_response("GET").text(), "good");
        if delay == "0s" {
            assert_eq!(program.exit_code(), 0, "SIGHUP does not cut a drain short");
        }
        eventually(|| fs::read_to_string(&log).unwrap().contains("/late"), "the line is in the new file");
        assert_eq!(fs::read_to_string(&renamed).unwrap(), "");
    }
}

#[test]
fn a_process_that_drains_already_is_taken_over_and_still_finishes_what_it_has() {
    for (delay, is_asked_again) in [("1h", false), ("1h", true), ("0s", false)] {
        let folder = Folder::new();
        let (config, socket) = (folder.path("config.toml"), folder.path("handover.sock"));
        let gate = Gate::new();
        let backend = behind(&gate);
        let timeouts = format!("[timeouts]\ndrain_delay = \"{delay}\"\n");
        let text = format!("handover = \"{socket}\"\n{LISTENER}{}{timeouts}", backends(&[&backend]));
        fs::write(&config, text).unwrap();
        let mut old = start(&config);
        let mut client = Client::connect(old.address());
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        backend.wait_for_requests(1);
        if is_asked_again {
            // First taken over, then asked to end by whoever has started the new one.
            let _new = start(&config);
            old.stderr.wait_for("draining: what is in flight");
            old.terminate();
        } else {
            old.terminate();
            old.stderr.wait_for("draining: ");
            let new = start(&config);
            assert!(delay == "0s" || new.address() == old.address(), "it listens where the old one did");
            old.stderr.wait_for("have been taken over");
        }
        gate.open();
        assert_eq!(client.read_response("GET").text(), "good");
        assert_eq!(old.exit_code(), 0, "delay {delay}, asked again: {is_asked_again}");
    }
}

/// Hands sockets over as a running process does, but none; when the new one accepts, this does the rest.
fn a_running_process(path: &str, end: impl FnOnce(UnixListener, UnixStream) + Send + 'static) -> JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        let (mut new, _) = listener.accept().unwrap();
        new.read_exact(&mut [0; "threadbare takes over 1\n".len()]).unwrap();
        new.write_all(b"0\n").unwrap();
        new.read_exact(&mut [0; "accepting\n".len()]).unwrap();
        end(listener, new);
    })
}

#[test]
fn a_process_whose_predecessor_dies_before_its_last_word_serves_all_the_same() {
    let folder = Folder::new();
    let path = folder.path("handover.sock");
    let backend = named("good");
    let dies = |listener, new| {
        drop(new); // in this order the new one can still connect, for a moment
        drop(listener);
    };
    let old = a_running_process(&path, dies);
    let new = Program::start(["--handover", &path, &backend.url()]);
    old.join().unwrap();
    assert_eq!(get(&mut Client::connect(new.address())), "good");
    let next = Program::start(["--handover", &path, &backend.url()]);
    assert_eq!(next.address(), new.address(), "and can be taken over itself");
}

#[test]
fn a_process_that_can_not_be_taken_over_itself_serves_all_the_same() {
    let folder = Folder::new();
    let path = folder.path("handover.sock");
    let backend = named("good");
    let place = path.clone();
    let hands_over = move |listener, mut new: UnixStream| {
        drop(listener);
        fs::remove_file(&place).unwrap();
        fs::write(&place, "somebody's").unwrap(); // now nobody can offer anything there
        new.write_all(b"yours\n").unwrap();
    };
    let old = a_running_process(&path, hands_over);
    let new = Program::start(["--handover", &path, &backend.url()]);
    old.join().unwrap();
    assert_eq!(get(&mut Client::connect(new.address())), "good");
    new.stderr.wait_for("can't start the hand-over");
}

//! The wire log: each step of an exchange is a line, in its order, and no line shows a secret.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use program::Program;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::process::Signal;
use std::net::TcpListener;
use support::{Backend, Client, Folder, Gate, eventually};
use threadbare::metrics::WaitsFor;
use threadbare::net::Passed;
use threadbare::{Balancer, Config};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A line, taken apart at its columns.
#[derive(Clone, Debug)]
struct Line {
    micros: u64,
    worker: String,
    client: String,
    socket: String,
    what: String,
}

impl Line {
    fn read(line: &str) -> Line {
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
        let column = |from: usize, to: usize| line.get(from..to.min(line.len())).unwrap_or_default().trim().to_owned();
        let micros = column(0, 9).parse().unwrap_or_else(|_| panic!("{line}"));
        assert_eq!(column(9, 13), "us", "{line}");
        let (socket, what) =
            line[25..].split_at(line[25..].char_indices().skip(22).find(|(_, c)| *c == ' ').unwrap().0);
        Line {
            micros,
            worker: column(14, 18),
            client: column(18, 25),
            socket: socket.trim().to_owned(),
            what: what.trim().to_owned(),
        }
    }
}

/// All lines so far.
fn lines(program: &Program) -> Vec<Line> {
    let said = program.stderr.so_far();
    said.lines().filter(|line| line.starts_with("  ")).map(Line::read).collect()
}

/// Waits until the client of this number is gone, and returns what was told of it.
fn story(program: &Program, client: &str) -> Vec<Line> {
    let of_client = || -> Vec<Line> { lines(program).into_iter().filter(|line| line.client == client).collect() };
    let is_over = |line: &Line| line.socket == "client" && line.what == "closed";
    eventually(|| of_client().iter().any(is_over), "the client's last line is there");
    let story = of_client();
    assert!(story.is_sorted_by_key(|line| line.micros), "not in its order: {story:#?}");
    assert!(story.iter().all(|line| line.worker.starts_with('w')), "{story:#?}");
    story
}

/// These steps are there, in this order: the socket, and how what was done on it begins.
fn follows(story: &[Line], steps: &[(&str, &str)]) {
    let mut rest = story.iter();
    for (socket, what) in steps {
        let is_it = |line: &Line| line.socket.starts_with(socket) && line.what.starts_with(what);
        let is_socket = |line: &Line| !socket.is_empty() || line.socket.is_empty();
        assert!(rest.any(|line| is_it(line) && is_socket(line)), "no {socket} {what}, or not there: {story:#?}");
    }
}

fn observed(flags: &[&str]) -> Program {
    Program::start([&["--wire-log", "on", "--access-log", "off"], flags].concat())
}

fn get(client: &mut Client) -> u16 {
    client.send(GET);
    client.read_response("GET").status
}

/// A backend that answers nothing before the gate is open.
fn answering_behind_a_gate(answer: &'static str) -> (Backend, Gate) {
    let gate = Gate::new();
    let passed = gate.clone();
    let backend = Backend::start(move |connection| {
        while connection.read_request().is_some() {
            passed.pass();
            connection.send(answer.as_bytes());
        }
    });
    (backend, gate)
}

/// The first request, so that whatever comes next finds the client parked: what comes before that is seen by its worker at
/// once, and there is no waiting to be told of.
fn get_step_by_step(program: &Program, client: &mut Client, request: &[u8], gate: &Gate) {
    client.send(request);
    program.stderr.wait_for("parked, for bytes of the backend");
    gate.open();
    assert_eq!(client.read_response("GET").status, 200);
    program.stderr.wait_for("parked, for bytes of the client");
}

fn always_ok() -> Backend {
    Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

#[test]
fn a_request_over_a_new_connection_and_one_over_a_spare_are_told_step_by_step() {
    let (backend, gate) = answering_behind_a_gate("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let program = observed(&[&backend.url()]);
    let mut client = Client::connect(program.address());
    get_step_by_step(&program, &mut client, GET, &gate);
    assert_eq!(get(&mut client), 200);
    let name = backend.address().to_string();
    let local = client.local_address();
    drop(client);
    let story = story(&program, "#1");
    follows(
        &story,
        &[
            ("client", &format!("accepted from {local}")),
            ("", "awake: bytes of the client"),
            ("client", r#"< 27 B  "GET / HTTP/1.1\r\nHost: a\r\n\r\n""#),
            ("", "GET /: no body; id "),
            ("", &format!("to {name}: turn 1 of the rotation")),
            ("", "no spare that would do: a new connection"),
            (&name, &format!("connects to {name}")),
            (&name, "> "),
            ("", "parked, for bytes of the backend, the end or a reset of the client; 60.0 s at most"),
            ("", "awake: bytes of the backend"),
            (&name, r#"< 40 B  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok""#),
            ("", "200: a body of 2 B, which goes on as it came"),
            (&name, "rests as a spare"),
            ("client", "> "),
            ("", "done, and the client may ask again"),
            ("", "parked, for bytes of the client; 60.0 s at most"),
            ("", "awake: bytes of the client"),
            ("client", "< 27 B"),
            ("", &format!("to {name}: turn 2 of the rotation")),
            (&name, "is taken from the spares"),
            (&name, "? open, and nothing to read"),
            (&name, "> "),
            (&name, "< 40 B"),
            (&name, "rests as a spare"),
            ("client", "< end"),
            ("client", "closed"),
        ],
    );
    let sockets: Vec<&str> = story.iter().map(|line| &*line.socket).filter(|socket| socket.contains('#')).collect();
    assert!(sockets.iter().all(|socket| *socket == sockets[0]), "one connection, one number: {sockets:?}");
    assert_eq!(story.iter().filter(|line| line.what.starts_with("connects")).count(), 1);
}

#[test]
fn a_body_in_chunks_is_told_piece_by_piece() {
    let backend = Backend::echo();
    let program = observed(&[&backend.url()]);
    let mut client = Client::connect(program.address());
    client.send(b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    backend.wait_until("the head", |record| record.requests.len() == 1);
    program.stderr.wait_for("parked, for bytes of the backend, bytes or a reset");
    client.send(b"3\r\na\0b\r\n");
    backend.wait_until("the first chunk", |record| record.requests[0].body.len() == 3);
    client.send(b"0\r\n\r\n");
    assert_eq!(client.read_response("POST").status, 200);
    drop(client);
    let name = backend.address().to_string();
    follows(
        &story(&program, "#1"),
        &[
            ("", "POST /up: a body in chunks"),
            (&name, "> "),
            ("", "parked, for bytes of the backend, bytes or a reset of the client; 30.0 s at most"),
            ("", "awake: bytes of the client"),
            ("client", r#"< 8 B  "3\r\na\x00b\r\n""#),
            (&name, r#"> 8 B  "3\r\na\x00b\r\n""#),
            ("client", r#"< 5 B  "0\r\n\r\n""#),
            (&name, r#"> 5 B  "0\r\n\r\n""#),
            (&name, "< "),
            ("client", "> "),
        ],
    );
}

#[test]
fn a_connection_rests_before_the_client_has_the_end_of_the_answer() {
    let gate = Gate::new();
    let backend = Backend::start({
        let gate = gate.clone();
        move |connection| {
            connection.read_request();
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
            gate.pass();
            connection.send(b"ok");
            connection.read_request();
        }
    });
    let program = observed(&[&backend.url()]);
    let mut client = Client::connect(program.address());
    client.send(GET);
    client.read_head("GET");
    gate.open();
    assert_eq!(client.read_rest().text(), "ok");
    drop(client);
    let name = backend.address().to_string();
    let rests = (&*name, "rests as a spare");
    follows(&story(&program, "#1"), &[("client", "> "), (&name, "< 2 B  \"ok\""), rests, ("client", "> 2 B  \"ok\"")]);
}

#[test]
fn a_second_try_is_told_with_its_reason() {
    let (refusing, echo) = (Backend::refusing(), Backend::echo());
    let program = observed(&[&refusing.url(), &echo.url()]);
    let mut client = Client::connect(program.address());
    assert_eq!(get(&mut client), 200);
    drop(client);
    let (one, other) = (refusing.address().to_string(), echo.address().to_string());
    follows(
        &story(&program, "#1"),
        &[
            ("", &format!("to {one}: turn 1")),
            (&one, "connects to "),
            (&one, "> lost: Connection refused"),
            (&one, "closed"),
            ("", "backend-refused: tried again elsewhere"),
            ("", &format!("to {other}: instead of one who can't take it")),
            (&other, "connects to "),
            (&other, "rests as a spare"),
        ],
    );
}

#[test]
fn a_spare_that_its_backend_has_closed_is_told_of() {
    let backend = Backend::start(|connection| {
        connection.read_request();
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        if connection.number == 0 {
            connection.read_head(); // the next request, which is not answered
        }
    });
    let program = observed(&[&backend.url()]);
    let mut client = Client::connect(program.address());
    assert_eq!((get(&mut client), get(&mut client)), (200, 200));
    drop(client);
    let name = backend.address().to_string();
    follows(
        &story(&program, "#1"),
        &[
            (&name, "is taken from the spares"),
            (&name, "> "),
            (&name, "< "),
            (&name, "closed"),
            ("", "backend-closed-before-response: tried again at the same backend, by a new connection"),
            (&name, "connects to "),
        ],
    );
}

#[test]
fn a_tunnel_is_told_in_both_directions() {
    let backend = Backend::start(|connection| {
        connection.read_request();
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: talk\r\nConnection: upgrade\r\n\r\n");
        connection.read_raw(3);
        connection.send(b"bye");
    });
    let program = observed(&[&backend.url()]);
    let mut client = Client::connect(program.address());
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: talk\r\nConnection: upgrade\r\n\r\n");
    client.read_head("GET");
    program.stderr.wait_for("parked, for bytes of the backend, bytes or a reset");
    client.send(b"hey");
    assert_eq!(client.read_raw(3), b"bye");
    client.half_close();
    client.expect_closed();
    drop(client);
    let name = backend.address().to_string();
    follows(
        &story(&program, "#1"),
        &[
            ("", "101: from here on it is a tunnel"),
            ("", "parked, for bytes of the backend, bytes or a reset of the client; 3600.0 s at most"),
            ("client", "< 3 B  \"hey\""),
            (&name, "> 3 B  \"hey\""),
            (&name, "< 3 B  \"bye\""),
            ("client", "> 3 B  \"bye\""),
            ("", "the tunnel has ended"),
        ],
    );
}

#[test]
fn what_is_refused_or_has_to_wait_is_told_of() {
    let gate = Gate::new();
    let backend = Backend::start({
        let gate = gate.clone();
        move |connection| {
            while connection.read_request().is_some() {
                gate.pass();
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    });
    let program = observed(&["--max-in-flight", "1", &backend.url()]);
    let mut refused = Client::connect(program.address());
    refused.send(b"GET / HTTP/1.1\r\n\r\n");
    refused.expect_refusal(&[400]);
    let mut first = Client::connect(program.address());
    first.send(GET);
    backend.wait_until("the first request", |record| record.requests.len() == 1);
    let mut second = Client::connect(program.address());
    second.send(GET);
    program.stderr.wait_for("all who could serve are full: in the queue");
    gate.open();
    assert_eq!((first.read_response("GET").status, second.read_response("GET").status), (200, 200));
    follows(
        &story(&program, "#1"),
        &[
            ("client", "< "),
            ("", "refused: bad-request (HTTP/1.1 without a Host field)"),
            ("client", "> "),
            ("client", "> end"),
        ],
    );
    let queued = lines(&program).into_iter().find(|line| line.what.ends_with("in the queue")).unwrap();
    drop((first, second));
    follows(
        &story(&program, &queued.client),
        &[
            ("", "all who could serve are full: in the queue"),
            ("", "parked, for the end or a reset or a call of the client; 5.0 s at most"),
            ("", &format!("to {}: from the queue: a place has become free", backend.address())),
        ],
    );
}

#[test]
fn no_line_shows_what_lets_somebody_in() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nset-cookie: a=S3CRET\r\nContent-Length: 2\r\n\r\nok");
    let program = observed(&[&backend.url()]);
    let request =
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic S3CRET\r\ncookie: S3CRET\r\nX-Plain: seen\r\n\r\n";
    let cuts = [[40, 50], [52, 56], [58, 61], [70, 80]];
    for cuts in cuts {
        let mut client = Client::connect(program.address());
        client.send_split(request, &cuts);
        assert_eq!(client.read_response("GET").status, 200);
    }
    eventually(|| lines(&program).iter().filter(|line| line.what == "closed").count() >= cuts.len(), "they are closed");
    assert!(backend.requests().iter().all(|request| request.head.get("Cookie") == Some("S3CRET")), "it does go on");
    let said = program.stderr.so_far();
    assert!(said.contains("Basic") || said.contains("***"), "{said}");
    for part in ["S3CRET", "S3C", "RET\\r", "CRET"] {
        assert!(!said.contains(part), "{part}: {said}");
    }
}

#[test]
fn lines_of_many_clients_at_once_stay_in_their_order_for_each() {
    let backend = always_ok();
    let program = observed(&[&backend.url()]);
    let address = program.address();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                (0..20).for_each(|_| assert_eq!(get(&mut client), 200));
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    // All that happens in a few milliseconds is written a moment later.
    eventually(|| lines(&program).iter().filter(|line| line.what == "closed").count() == 8, "all is told");
    let is_accepted = |line: &Line| line.what.starts_with("accepted");
    let numbers: Vec<String> = lines(&program).into_iter().filter(is_accepted).map(|line| line.client).collect();
    assert_eq!(numbers.len(), 8);
    for number in numbers {
        let story = story(&program, &number);
        let step = ("", "done, and the client may ask again");
        follows(&story, &[[("client", "< 27 B"), step]; 20].concat());
    }
}

#[test]
fn it_is_off_unless_it_is_asked_for_and_a_reload_turns_it_on_and_off() {
    let backend = always_ok();
    let folder = Folder::new();
    let (config, log) = (folder.path("config.toml"), folder.path("wire"));
    let say = |keys: &str| {
        std::fs::write(&config, format!("[[backend]]\nurl = \"{}\"\n[log]\naccess = \"off\"\n{keys}", backend.url()))
            .unwrap();
    };
    say("");
    let program = Program::start(["--config", &config]);
    let reload = |keys: &str, count: usize| {
        say(keys);
        program.signal(Signal::HUP);
        eventually(|| program.stderr.so_far().matches("reloaded").count() == count, "it is reloaded");
    };
    let mut old = Client::connect(program.address());
    assert_eq!(get(&mut old), 200);
    reload(&format!("wire = true\nwire_file = {log:?}"), 1);
    assert_eq!(get(&mut old), 200);
    let mut new = Client::connect(program.address());
    assert_eq!(get(&mut new), 200);
    let told = || std::fs::read_to_string(&log).unwrap();
    eventually(|| told().contains("done, and the client may ask again"), "the new client is told of");
    assert_eq!(told().matches("accepted from").count(), 1, "and no other: {}", told());
    reload("", 2);
    assert_eq!(get(&mut new), 200);
    eventually(|| told().contains("no more is told"), "it ends");
    assert_eq!(get(&mut new), 200);
    drop((old, new));
    eventually(|| told().contains("no more is told"), "it ends");
    let last = told().lines().last().unwrap().to_owned();
    assert!(last.contains("no more is told"), "{last}");
    assert!(lines(&program).is_empty(), "{}", program.stderr.so_far());
}

#[test]
fn the_page_shows_lines_as_they_are() {
    let page = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/LOGS.md")).unwrap();
    let (_, behind) = page.split_once("```wire\n").unwrap();
    let shown: Vec<Line> = behind.split_once("```").unwrap().0.lines().map(Line::read).collect();
    let (backend, gate) = answering_behind_a_gate("HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nContent-Length: 5\r\n\r\nhello");
    let program = observed(&[&backend.url()]);
    let mut client = Client::connect(program.address());
    get_step_by_step(&program, &mut client, b"GET /one HTTP/1.1\r\nHost: a\r\nCookie: secret=1\r\n\r\n", &gate);
    client.send(b"GET /two HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_response("GET");
    drop(client);
    let name = backend.address().to_string();
    let real = story(&program, "#1");
    // What differs from run to run is cut off.
    let plain = |line: &Line, name: &str| {
        let what = if line.what.starts_with("connects to ") { "connects" } else { &line.what }.replace(name, "b");
        let what = what.split(['"', ';']).next().unwrap().split(" from 1").next().unwrap();
        let what = what.trim_matches(|c: char| c.is_ascii_digit() || " B".contains(c));
        (line.socket.replace(name, "b"), what.to_owned())
    };
    let shown: Vec<_> = shown.iter().map(|line| plain(line, "b8081")).collect();
    let real: Vec<_> = real.iter().take(shown.len()).map(|line| plain(line, &name)).collect();
    assert_eq!(shown, real);
}

/// How many bytes went on this socket in this direction.
fn bytes(story: &[Line], is_it: impl Fn(&str) -> bool, direction: &str) -> u64 {
    let count = |line: &Line| line.what.strip_prefix(direction)?.trim().split(' ').next()?.parse::<u64>().ok();
    story.iter().filter(|line| is_it(&line.socket)).filter_map(count).sum()
}

#[test]
fn no_more_of_a_long_body_is_taken_from_its_backend_than_its_client_takes() {
    const LENGTH: usize = 64 * 1024 * 1024;
    let backend = Backend::start(|connection| {
        if connection.read_request().is_some() {
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes());
            let _sent_whole = (0..LENGTH / 65536).all(|_| connection.send(&[b'x'; 65536]));
        }
    });
    let program = observed(&["--response-body-timeout", "1s", &backend.url()]);
    let mut client = Client::connect(program.address());
    client.send(GET);
    let story = story(&program, "#1"); // it reads nothing, and is cut
    let came = bytes(&story, |socket| socket.starts_with("127."), "<");
    let went = bytes(&story, |socket| socket == "client", ">");
    assert!(went > 2 * 65536, "{story:#?}");
    assert!(came <= went, "{came} B were read, {went} B were taken, and the difference is kept: {story:#?}");
    assert!(story.iter().any(|line| line.what.contains("client-body-timeout")), "{story:#?}");
}

#[test]
fn of_an_answer_whose_reader_is_slow_no_more_is_kept_than_the_largest_head() {
    // What its client does not take of the first read has to be kept: so that is no larger than it must be.
    const LENGTH: usize = 1024 * 1024;
    let address = "127.0.0.1:0".parse().unwrap();
    for limit in [1024_u64, 8 * 1024, 32 * 1024] {
        let backend = Backend::start(|connection| {
            if connection.read_request().is_some() {
                // In one piece, so that a larger read would find more.
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
                connection.send(&[head.as_bytes(), &[b'x'; LENGTH]].concat());
            }
        });
        let socket = TcpListener::bind(address).unwrap();
        set_socket_send_buffer_size(&socket, 1).unwrap(); // whom it accepts inherits it: the smallest that there is
        let folder = Folder::new();
        let log = folder.path("wire");
        let (url, largest) = (backend.url(), limit.to_string());
        let flags = ["--listen", "127.0.0.1:0", "--access-log", "off", "--wire-log", "on", "--wire-log-file", &log];
        let flags = [&flags[..], &["--response-head-bytes", &largest, &url]].concat();
        let balancer = Balancer::start_on(vec![Passed { address, socket }], Config::from_args(flags).unwrap()).unwrap();
        let mut client = Client::connect_with_little_room(balancer.address());
        client.send(GET);
        let is_slow = || balancer.figures().parked[WaitsFor::SlowReader as usize] == 1;
        eventually(is_slow, "the client has no room for more, and is waited for");
        client.abort();
        let told = || std::fs::read_to_string(&log).unwrap_or_default();
        eventually(|| told().contains("client                 closed"), "the client's last line is there");
        let story: Vec<Line> = told().lines().map(Line::read).collect();
        let came = bytes(&story, |socket| socket.starts_with("127."), "<");
        let went = bytes(&story, |socket| socket == "client", ">");
        assert!(came > 0 && went > 0, "{story:#?}");
        let kept = came.saturating_sub(went);
        assert!(kept <= limit, "{kept} B were kept, where a head has {limit} at most: {story:#?}");
    }
}

#[test]
fn a_wire_log_that_is_rotated_goes_on_in_a_new_file() {
    let backend = always_ok();
    let folder = Folder::new();
    let (log, old) = (folder.path("wire"), folder.path("wire.1"));
    let program = observed(&["--wire-log-file", &log, &backend.url()]);
    let told = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(get(&mut Client::connect(program.address())), 200);
    eventually(|| told(&log).contains("client                 closed"), "the first client is told of");
    std::fs::rename(&log, &old).unwrap();
    program.signal(Signal::HUP);
    eventually(|| std::fs::exists(&log).unwrap(), "the file is there again");
    assert_eq!(get(&mut Client::connect(program.address())), 200);
    eventually(|| told(&log).contains("client                 closed"), "the second client is told of");
    assert_eq!((told(&old).matches("accepted").count(), told(&log).matches("accepted").count()), (1, 1));
    assert!(!program.stderr.so_far().contains("ERROR"), "nothing else was to be read again");
}

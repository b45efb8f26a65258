//! The exercises of the walkthrough. Each is red until a reader has done it, so none runs unless it is asked for:
//!
//! ```sh
//! cargo test --test exercises chapter_1_ -- --ignored
//! ```

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use program::{Program, free_port, output};
use support::{Backend, BackendSide, Client, Cut, Gate, Response, balancer, eventually, placed};
use threadbare::balance::{Candidate, two_choices};
use threadbare::net::{Connection, Lot};

/// The dummy, before these backends.
fn dummy(backends: &[&Backend]) -> Program {
    Program::listening_silently(|address| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dummy"));
        command.arg(address.rsplit(':').next().unwrap());
        command.args(backends.iter().map(|backend| backend.address().port().to_string()));
        command
    })
}

fn ask(balancer: &Program, request: &str) -> Result<Response, Cut> {
    let mut client = Client::connect(balancer.address());
    client.send(request.as_bytes());
    client.try_response(request.split(' ').next().unwrap())
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
#[ignore = "an exercise"]
fn chapter_1_every_cookie_reaches_the_client() {
    let answer = "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX: y\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok";
    let backend = Backend::answering(answer);
    let answer = ask(&dummy(&[&backend]), GET).unwrap();
    assert_eq!(answer.head.all("Set-Cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.head.all("Content-Length"), ["2"]);
    assert_eq!(answer.text(), "ok");
}

#[test]
#[ignore = "an exercise"]
fn chapter_2_it_says_that_it_listens_once_it_does() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [taken.local_addr().unwrap().port(), free_port()].map(|port| port.to_string());
    let output = output(Command::new(env!("CARGO_BIN_EXE_dummy")).args(&ports));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!said.contains(&format!("listening on :{}", ports[0])), "{said}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dummy"));
    let port = free_port();
    let running = Program::spawn(command.arg(port.to_string()).arg(free_port().to_string()));
    running.stdout.wait_for(&format!("Load balancer is listening on :{port}"));
    TcpStream::connect(("127.0.0.1", port)).unwrap();
}

#[test]
#[ignore = "an exercise"]
fn chapter_3_each_piece_goes_on_as_it_comes() {
    let seen = Gate::new();
    let backend = Backend::start({
        let seen = seen.clone();
        move |connection: &mut BackendSide| {
            connection.read_request();
            connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ndata: first\n\n");
            seen.pass();
            connection.send(b"data: second\n\n");
        }
    });
    let dummy = dummy(&[&backend]);
    let mut client = Client::connect(dummy.address());
    client.send(GET.as_bytes());
    client.read_head("GET");
    assert_eq!(client.read_body_bytes(13), b"data: first\n\n");
    seen.open();
    assert_eq!(client.read_rest().text(), "data: first\n\ndata: second\n\n");
}

#[test]
#[ignore = "an exercise"]
fn chapter_4_method_path_and_body_reach_the_backend() {
    let backend = Backend::echo();
    let dummy = dummy(&[&backend]);
    let echo = ask(&dummy, "PUT /tea HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\ngreen").unwrap().text();
    assert!(echo.starts_with("PUT /tea HTTP/1.1\r\n") && echo.ends_with("\r\n\r\ngreen"), "{echo}");
    let mut client = Client::connect(dummy.address());
    client.send_split(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf\r\n\r\nof", &[20, 53]);
    assert!(client.read_response("POST").text().ends_with("\r\n\r\nhalf\r\n\r\nof"));
    assert!(ask(&dummy, GET).unwrap().text().starts_with("GET / HTTP/1.1\r\n"));
}

#[test]
#[ignore = "an exercise"]
fn chapter_5_an_answer_carries_the_id_of_its_request() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let balancer = balancer(&[&backend.url()], &[]);
    let mut client = Client::connect(balancer.address());
    for id in ["mine", "another"] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\n\r\n").as_bytes());
        assert_eq!(client.read_response("GET").head.get("X-Request-Id"), Some(id));
    }
    client.send(GET.as_bytes());
    let answered = client.read_response("GET").head.get("X-Request-Id").map(str::to_owned);
    let asked = backend.requests()[2].head.get("X-Request-Id").map(str::to_owned);
    assert!(asked.is_some() && asked == answered, "{asked:?} {answered:?}");
}

#[test]
#[ignore = "an exercise"]
fn chapter_6_the_emptiest_of_three_is_always_chosen() {
    let candidate = |nth, in_flight| Candidate { nth, weight: 1.0, in_flight, latency: 0.0 };
    for number in 0..1000 {
        let three = [candidate(0, 7), candidate(1, 0), candidate(2, 3)];
        let choice = two_choices(three.into_iter(), number);
        assert_eq!(choice, Some(1), "number {number}: with three candidates, three different ones are all of them");
    }
    let four: Vec<_> =
        (0..1000).map(|number| two_choices((0..4).map(|nth| candidate(nth, nth)), number).unwrap()).collect();
    assert!(four.contains(&0) && four.contains(&1), "of four, the emptiest is not always among three");
    assert!(!four.contains(&2) && !four.contains(&3), "of three, the best is never the last but one");
    assert_eq!(two_choices([candidate(5, 1)].into_iter(), 3), Some(5));
}

#[test]
#[ignore = "an exercise"]
fn chapter_7_the_fifty_first_client_is_closed() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let dummy = dummy(&[&backend]);
    // Whoever waited until it listens may still be there for a moment.
    eventually(|| ask(&dummy, GET).is_ok(), "it answers");
    let crowd: Vec<Client> = (0..200).map(|_| Client::connect(dummy.address())).collect();
    let mut late = Client::connect(dummy.address());
    let (heard, _) = late.try_to_end();
    assert!(heard.is_empty());
    assert!(dummy.status("Threads").unwrap() < 60);
    drop(crowd);
    eventually(|| ask(&dummy, GET).is_ok(), "it answers again once the crowd has left");
}

#[test]
#[ignore = "an exercise"]
fn chapter_8_a_worker_sleeps_while_nobody_is_parked_and_no_deadline_is_missed() {
    let lot: Lot<Connection> = Lot::new(1024).unwrap();
    let began = Instant::now();
    lot.wait(&mut Vec::new()).unwrap();
    assert!(began.elapsed() > Duration::from_millis(500), "nobody is parked, and it woke up all the same");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (expired, lateness) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut ready = Vec::new();
            while let Some(rest) = lot.wait(&mut ready) {
                ready.drain(..).for_each(|_visit| expired.send(rest.until).unwrap());
            }
        });
        for _ in 0..3 {
            // Time to fall asleep in. If that is too short, it is not asleep, and sees the deadline anyway.
            thread::sleep(Duration::from_millis(50));
            let _far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (near, _) = listener.accept().unwrap();
            near.set_nonblocking(true).unwrap();
            let due = Instant::now() + Duration::from_millis(100);
            lot.admit(mio::net::TcpStream::from_std(near), due, Box::new).unwrap();
            let now = lateness.recv().unwrap();
            // Not asserted before the lot is closed: the thread would be waited for for ever.
            if now < due || now - due > Duration::from_millis(500) {
                lot.close();
                panic!("a deadline was not kept: {:?} late", now.saturating_duration_since(due));
            }
        }
        lot.close();
    });
}

#[test]
#[ignore = "an exercise"]
fn chapter_9_a_dead_backend_is_passed_over() {
    let (alive, dead) = (Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), Backend::refusing());
    let balancer = dummy(&[&dead, &alive]);
    alive.wait_for_requests(1); // the look whether it listens: to the dummy a request, which takes a turn
    for _ in 0..10 {
        assert_eq!(ask(&balancer, GET).unwrap().status, 200);
    }
    drop((alive, balancer));
    let nobody = dummy(&[&dead]);
    assert_eq!(ask(&nobody, GET).unwrap().status, 500);
}

#[test]
#[ignore = "an exercise"]
fn chapter_10_a_backend_that_says_nothing_is_given_up() {
    let backend = Backend::start(|connection| {
        connection.read_request();
        connection.read_to_end();
    });
    assert_eq!(ask(&dummy(&[&backend]), GET).unwrap().status, 500);
}

#[test]
#[ignore = "an exercise"]
fn chapter_11_a_long_queue_is_served_from_its_end_and_a_short_one_from_its_beginning() {
    let gate = Gate::new();
    let backend = Backend::start({
        let gate = gate.clone();
        move |connection: &mut BackendSide| {
            while let Some(request) = connection.read_request() {
                if request.target == "/0" {
                    gate.pass();
                }
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    });
    let balancer = balancer(&[&backend.url()], &["--max-in-flight", "1"]);
    let mut clients = Vec::new();
    for nth in 0..=13 {
        let mut client = Client::connect(balancer.address());
        client.send(format!("GET /{nth} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        eventually(|| placed(&balancer) == nth + 1, "it has its place, or waits");
        if nth == 0 {
            backend.wait_for_requests(1);
        }
        clients.push(client);
    }
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read_response("GET").status, 200);
    }
    let targets: Vec<String> = backend.requests().into_iter().map(|request| request.target).collect();
    let right = [0, 13, 12, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(|nth| format!("/{nth}"));
    assert_eq!(targets, right);
}

#[test]
#[ignore = "an exercise"]
fn chapter_12_only_websocket_is_offered() {
    let backend = Backend::echo();
    let balancer = balancer(&[&backend.url()], &[]);
    for (offer, passes) in [("echo", false), ("websocket", true), ("WebSocket", true), ("echo, websocket", true)] {
        let mut client = Client::connect(balancer.address());
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {offer}\r\n\r\n").as_bytes());
        let echo = client.read_response("GET").text().to_ascii_lowercase();
        assert_eq!(echo.contains("upgrade: websocket\r\n"), passes, "{offer}: {echo}");
        assert!(!echo.contains("upgrade: echo"), "{offer}: {echo}");
    }
}

#[test]
#[ignore = "an exercise"]
fn chapter_13_the_log_tells_every_second_how_many_are_still_there() {
    let gate = Gate::new();
    let backend = Backend::start({
        let gate = gate.clone();
        move |connection: &mut BackendSide| {
            connection.read_request();
            gate.pass();
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let url = backend.url();
    let mut balancer = Program::start([url.as_str(), "--drain-timeout", "60s"]);
    let mut impatient = Program::start([url.as_str(), "--drain-timeout", "2s"]);
    let ask = |balancer: &Program| {
        let mut client = Client::connect(balancer.address());
        client.send(GET.as_bytes());
        client
    };
    let mut clients: Vec<Client> = (0..3).map(|_| ask(&balancer)).collect();
    let _unlucky = ask(&impatient);
    backend.wait_for_requests(4);
    let began = Instant::now();
    impatient.terminate();
    assert_eq!(impatient.exit_code(), 3);
    assert!(began.elapsed() < Duration::from_secs(20), "a deadline of two seconds does not move");
    balancer.terminate();
    balancer.stderr.wait_for("3 connections are still open");
    clients.pop();
    balancer.stderr.wait_for("2 connections are still open");
    gate.open();
    assert_eq!(balancer.exit_code(), 0);
    drop(clients);
}

#[test]
#[ignore = "an exercise"]
fn chapter_14_two_dummies_agree_and_few_paths_move() {
    let backend = |name: &'static str| {
        Backend::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()))
    };
    let [a, b, c] = ["a", "b", "c"].map(backend);
    let (one, other, smaller) = (dummy(&[&a, &b, &c]), dummy(&[&c, &a, &b]), dummy(&[&a, &b]));
    let served_by = |dummy: &Program, nth: i32| {
        let path = format!("GET /page/{nth} HTTP/1.1\r\nHost: a\r\n\r\n");
        ask(dummy, &path).unwrap().text()
    };
    let mut used = BTreeSet::new();
    for nth in 0..60 {
        let name = served_by(&one, nth);
        assert_eq!(served_by(&other, nth), name, "page {nth}: they don't agree");
        if name != "c" {
            assert_eq!(served_by(&smaller, nth), name, "page {nth} has moved, and c did not have it");
        }
        used.insert(name);
    }
    assert_eq!(used.len(), 3, "everybody has a share: {used:?}");
}

//! What requests show of their backends: who fails is left alone for a while, and tried again by a single request.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use program::Program;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};
use support::{Backend, Client, Gate, TempFile, balancer, eventually, placed};
use threadbare::balance::{
    self, BackendSettings, BalanceSettings, Condition, Failure, PassiveHealth, RetrySettings, Rotation,
};
use threadbare::{Balancer, Config};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Whoever is ejected stays so, however long the machine takes for the rest of the test.
const FOR_GOOD: &[&str] = &["--shortest-ejection", "1h", "--longest-ejection", "1h"];

fn ask(balancer: &Balancer) -> u16 {
    ask_at(balancer.address())
}

fn ask_at(address: SocketAddr) -> u16 {
    let mut client = Client::connect(address);
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.read_response("GET").status
}

fn configured(text: &str) -> Balancer {
    let file = TempFile::new(text);
    let config = Config::from_args(["--listen", "127.0.0.1:0", "--access-log", "off", "--config", file.path()]);
    Balancer::start(config.unwrap_or_else(|error| panic!("{text}: {error}"))).unwrap()
}

/// Answers while it is well; else closes without a word. A connection carries one request.
fn moody(well: &Arc<AtomicBool>) -> Backend {
    let well = Arc::clone(well);
    Backend::start(move |connection| {
        if connection.read_request().is_some() && well.load(Ordering::SeqCst) {
            connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        }
    })
}

#[test]
fn a_backend_that_fails_three_times_in_a_row_is_left_alone_until_a_trial_succeeds() {
    let well = Arc::new(AtomicBool::new(false));
    let (sick, sound) = (moody(&well), Backend::answering(OK));
    let patient = balancer(&[&sick.url(), &sound.url()], FOR_GOOD);
    for _ in 0..20 {
        assert_eq!(ask(&patient), 200, "a GET survives the failures that tell of it");
    }
    assert_eq!(sick.requests().len(), 3, "three failures in a row, and then nothing");
    let balancer = balancer(&[&sick.url(), &sound.url()], &["--shortest-ejection", "50ms"]);
    let ejections = || balancer.figures().backends[0].balance.ejections;
    eventually(|| ask(&balancer) == 200 && ejections() > 0, "it fails three times here, too");
    well.store(true, Ordering::SeqCst);
    let asked = sick.requests().len();
    eventually(|| ask(&balancer) == 200 && sick.requests().len() > asked + 1, "it is tried again, and has its turns");
}

#[test]
fn what_cannot_be_accepted_as_an_answer_counts_like_none() {
    let rows = [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n",
    ];
    for said in rows {
        let (sick, sound) = (Backend::answering(said), Backend::answering(OK));
        let balancer = balancer(&[&sick.url(), &sound.url()], FOR_GOOD);
        let failed = (0..20).filter(|_| ask(&balancer) == 502).count();
        assert_eq!((failed, sick.requests().len()), (3, 3), "three failures in a row, and then nothing: {said:?}");
    }
}

#[test]
fn a_backup_is_tried_again_though_another_serves() {
    let well = Arc::new(AtomicBool::new(false));
    let (sick, sound) = (moody(&well), Backend::answering(OK));
    let drained = "[[backend]]\nurl = \"127.0.0.1:1\"\nstate = \"drain\"\n";
    let backup = |backend: &Backend| format!("[[backend]]\nurl = \"{}\"\nbackup = true\n", backend.url());
    let balancer = configured(&format!("{drained}{}{}", backup(&sick), backup(&sound)));
    let is_out = || matches!(balancer.figures().backends[1].condition, Condition::Ejected(..));
    eventually(|| ask(&balancer) == 200 && is_out(), "it has its turns, until it is ejected");
    well.store(true, Ordering::SeqCst);
    let asked = sick.requests().len();
    eventually(|| ask(&balancer) == 200 && sick.requests().len() > asked + 1, "it is tried again, and has its turns");
}

#[test]
fn an_answer_in_between_makes_failures_forgotten() {
    let well = Arc::new(AtomicBool::new(true));
    let (moody, sound) = (moody(&well), Backend::answering(OK));
    let balancer = balancer(&[&moody.url(), &sound.url()], &[]);
    for turn in 0..24 {
        well.store(turn % 3 == 2, Ordering::SeqCst);
        let before = moody.requests().len();
        eventually(|| ask(&balancer) == 200 && moody.requests().len() > before, "it still gets its turns");
    }
}

#[test]
fn a_backend_that_has_stopped_answering_gets_nothing_new() {
    let gate = Gate::new();
    let stopped = {
        let gate = gate.clone();
        Backend::start(move |connection| {
            while connection.read_request().is_some() {
                gate.pass();
                connection.send(OK);
            }
        })
    };
    let sound = Backend::answering(OK);
    let balancer = balancer(&[&stopped.url(), &sound.url()], FOR_GOOD);
    let mut waiting = Vec::new();
    for nth in 0..8 {
        let mut client = Client::connect(balancer.address());
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        stopped.wait_for_requests(nth + 1);
        waiting.push(client);
        assert_eq!(ask(&balancer), 200, "the other one has the turns between");
    }
    // From half a second on, no turn goes there.
    let begun = Instant::now();
    let mut answered = 0;
    while begun.elapsed() < Duration::from_millis(600) || answered <= 10 {
        let mut client = Client::connect(balancer.address());
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        waiting.push(client);
        answered += 1;
        if stopped.requests().len() > 40 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20)); // a steady load, not a wait
    }
    let with_it = || balancer.figures().backends[0].in_flight;
    eventually(|| ask(&balancer) == 200 && stopped.requests().len() == with_it(), "it has read what it was sent");
    let collected = with_it();
    for _ in 0..30 {
        assert_eq!(ask(&balancer), 200, "everybody who comes now is answered by the other one");
    }
    assert_eq!(stopped.requests().len(), collected);
    gate.open();
    for client in &mut waiting {
        assert_eq!(client.read_response("GET").status, 200);
    }
    let before = stopped.requests().len();
    eventually(|| ask(&balancer) == 200 && stopped.requests().len() > before, "it is back once it has answered");
}

#[test]
fn a_backend_that_waits_for_slow_clients_does_not_stand_still() {
    let backends = [Backend::answering(OK), Backend::answering(OK)];
    let urls = backends.each_ref().map(Backend::url);
    let balancer = balancer(&[&urls[0], &urls[1]], &["--stall-in-flight", "2", "--stall", "20ms"]);
    let mut uploads: Vec<Client> = (0..8).map(|_| Client::connect(balancer.address())).collect();
    for upload in &mut uploads {
        upload.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\nbegun");
    }
    let begun = |backend: &Backend| backend.requests().iter().filter(|request| request.method == "POST").count();
    eventually(|| backends.iter().all(|backend| begun(backend) == 4), "each backend has four uploads");
    let asked = || backends.each_ref().map(|backend| backend.requests().len());
    // An answer would end a stall: so nothing is asked for, for longer than it takes to see one.
    thread::sleep(Duration::from_millis(100));
    let before = asked();
    assert_eq!((0..4).map(|_| ask(&balancer)).collect::<Vec<_>>(), [200; 4]);
    assert_eq!(asked(), before.map(|count| count + 2), "both have their turns");
    for upload in &mut uploads {
        upload.send(&[b'x'; 40_000 - 5]);
        assert_eq!(upload.read_response("POST").status, 200);
    }
}

#[test]
fn the_time_that_requests_wait_in_the_queue_is_not_a_backends_silence() {
    let (bodies, answers) = (Gate::new(), Gate::new());
    let backend = || {
        let (bodies, answers) = (bodies.clone(), answers.clone());
        Backend::start(move |connection| {
            while let Some(request) = connection.read_request() {
                if request.target == "/long" {
                    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
                    bodies.pass();
                    connection.send(b"ok");
                } else {
                    answers.pass();
                    connection.send(OK);
                }
            }
        })
    };
    let backends = [backend(), backend()];
    let urls = backends.each_ref().map(Backend::url);
    let flags = ["--max-in-flight", "2", "--stall-in-flight", "2", "--stall", "2s"];
    let balancer = balancer(&[&urls[0], &urls[1]], &flags);
    let asks = |target: &str| {
        let mut client = Client::connect(balancer.address());
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        client
    };
    let mut clients: Vec<Client> = (0..4).map(|_| asks("/long")).collect();
    for client in &mut clients {
        client.read_head("GET");
    }
    let waiting: Vec<Client> = (0..4).map(|_| asks("/")).collect();
    eventually(|| placed(&balancer) == 8, "four wait in the queue");
    thread::sleep(Duration::from_millis(2200)); // for longer than a backend may be silent
    bodies.open();
    backends.iter().for_each(|backend| drop(backend.wait_for_requests(4)));
    let last = asks("/"); // whoever chooses looks who stands still
    eventually(|| placed(&balancer) == 5, "the last one waits");
    let conditions = || balancer.figures().backends.iter().map(|backend| backend.condition).collect::<Vec<_>>();
    assert_eq!(conditions(), [Condition::Up; 2], "they have only just been asked");
    answers.open();
    for mut client in waiting.into_iter().chain([last]) {
        assert_eq!(client.read_response("GET").status, 200);
    }
}

#[test]
fn who_has_one_slow_request_does_not_stand_still_when_many_come() {
    let (polls, answers) = (Gate::new(), Gate::new());
    let backend = || {
        let (polls, answers) = (polls.clone(), answers.clone());
        Backend::start(move |connection| {
            while let Some(request) = connection.read_request() {
                if request.target == "/poll" {
                    polls.pass()
                } else {
                    answers.pass()
                }
                connection.send(OK);
            }
        })
    };
    let backends = [backend(), backend()];
    let urls = backends.each_ref().map(Backend::url);
    let balancer = balancer(&[&urls[0], &urls[1]], &["--stall-in-flight", "4", "--stall", "2s"]);
    let asks = |target: &str| {
        let mut client = Client::connect(balancer.address());
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        client
    };
    let slow = [asks("/poll"), asks("/poll")];
    backends.iter().for_each(|backend| drop(backend.wait_for_requests(1)));
    thread::sleep(Duration::from_millis(2200)); // for longer than a backend of many requests may be silent
    let many = [(); 7].map(|()| asks("/"));
    eventually(|| placed(&balancer) == 9, "they are with the backends");
    let last = asks("/"); // whoever chooses looks who stands still
    eventually(|| placed(&balancer) == 10, "the last one is too");
    let conditions = balancer.figures().backends.iter().map(|backend| backend.condition).collect::<Vec<_>>();
    assert_eq!(conditions, [Condition::Up; 2], "they have only just been asked");
    polls.open();
    answers.open();
    for mut client in slow.into_iter().chain(many).chain([last]) {
        assert_eq!(client.read_response("GET").status, 200);
    }
}

#[test]
fn evidence_of_requests_never_ejects_more_than_half_and_never_empties_the_rotation() {
    let well = Arc::new(AtomicBool::new(false));
    let backends = [moody(&well), moody(&well), moody(&well)];
    let urls = backends.each_ref().map(Backend::url);
    let balancer = balancer(&[&urls[0], &urls[1], &urls[2]], &[]);
    for _ in 0..30 {
        assert_eq!(ask(&balancer), 502, "they are asked all the same");
    }
    let asked: Vec<usize> = backends.iter().map(|backend| backend.requests().len()).collect();
    assert!(asked.iter().filter(|&&asked| asked > 20).count() >= 2, "more than half are still asked: {asked:?}");
    well.store(true, Ordering::SeqCst);
    // The two that were never ejected are well again at once.
    assert!((0..10).filter(|_| ask(&balancer) == 200).count() >= 9);
}

#[test]
fn backends_that_drain_are_not_the_half_that_is_left() {
    let well = Arc::new(AtomicBool::new(false));
    let (sick, drained) = ([moody(&well), moody(&well)], [Backend::answering(OK), Backend::answering(OK)]);
    let drain = |backend: &Backend| format!("[[backend]]\nurl = \"{}\"\nstate = \"drain\"\n", backend.url());
    let serve = |backend: &Backend| format!("[[backend]]\nurl = \"{}\"\n", backend.url());
    let text = sick.iter().map(serve).chain(drained.iter().map(drain)).collect::<String>();
    let balancer = configured(&text);
    for _ in 0..30 {
        assert!(ask(&balancer) >= 500);
    }
    let figures = balancer.figures();
    let never = figures.backends[..2].iter().filter(|backend| backend.balance.ejections == 0).count();
    assert_eq!(never, 1, "one of the two was left");
    well.store(true, Ordering::SeqCst);
    assert_eq!(ask(&balancer), 200);
}

#[test]
fn two_workers_that_eject_at_once_eject_no_more_than_half() {
    for round in 0..1000 {
        let queue = Arc::default();
        let backend = |nth: u16| {
            let settings = BackendSettings::at(format!("127.0.0.1:{}", 1 + nth).parse().unwrap());
            (Arc::new(balance::Backend::new(&settings.name, settings.origin.clone(), Vec::new(), &queue)), settings)
        };
        let (balance, passive) = (BalanceSettings::default(), PassiveHealth::default());
        let members = [backend(1), backend(2)];
        let rotation = Rotation::new(members.clone(), Arc::clone(&queue), &balance, passive, &RetrySettings::default());
        let both = Barrier::new(2);
        thread::scope(|scope| {
            for (backend, _) in &members {
                let (rotation, both) = (&rotation, &both);
                scope.spawn(move || {
                    both.wait();
                    (0..3).for_each(|_| rotation.failed(backend, Failure::NoAnswer, None, Instant::now()));
                });
            }
        });
        let out = members.iter().filter(|(backend, _)| backend.health.is_out()).count();
        assert_eq!(out, 1, "in round {round}");
    }
}

#[test]
fn where_all_refuse_they_are_tried_all_the_same() {
    let (one, other) = (Backend::refusing(), Backend::refusing());
    let balancer = balancer(&[&one.url(), &other.url()], &[]);
    for _ in 0..20 {
        assert_eq!(ask(&balancer), 502);
    }
}

#[test]
fn that_the_rotation_is_empty_and_they_are_tried_all_the_same_is_said_once_a_second() {
    let (one, other) = (Backend::refusing(), Backend::refusing());
    let program = Program::start(["--failures", "1", &one.url(), &other.url()]);
    let begun = Instant::now();
    assert_eq!(ask_at(program.address()), 502, "both refuse, and are out from now on");
    for _ in 0..50 {
        assert_eq!(ask_at(program.address()), 502, "the last failure is told, and not that there is nobody to ask");
    }
    let words = "no backend is fit for requests: they are tried all the same";
    let line = program.stderr.wait_for(words);
    assert!(line.contains("WARN"), "{line}");
    let said = u64::try_from(program.stderr.so_far().matches(words).count()).unwrap();
    assert!(said <= begun.elapsed().as_secs() + 1, "{said} times in {:?}", begun.elapsed());
}

#[test]
fn a_backend_that_requests_take_out_is_told_of_once_with_the_evidence_and_once_when_it_is_back() {
    let well = Arc::new(AtomicBool::new(false));
    let (sick, sound) = (moody(&well), Backend::answering(OK));
    let flags = ["--shortest-ejection", "20ms", "--longest-ejection", "20ms", "--slow-start", "0s"];
    let program = Program::start([&flags[..], &[&sick.url(), &sound.url()]].concat());
    // Three failures, and then trials that fail.
    eventually(|| ask_at(program.address()) == 200 && sick.requests().len() >= 10, "it is tried again and again");
    well.store(true, Ordering::SeqCst);
    let before = sick.requests().len();
    eventually(|| ask_at(program.address()) == 200 && sick.requests().len() > before + 3, "it has its turns again");
    program.stderr.wait_for("is readmitted");
    let said = program.stderr.so_far();
    let of_it: Vec<&str> = said.lines().filter(|line| line.contains(&sick.address().to_string())).collect();
    let [out, back] = of_it[..] else { panic!("{of_it:#?}") };
    assert!(
        out.contains("WARN") && out.contains("is ejected for 20ms: 3 requests in a row were not answered"),
        "{out}"
    );
    assert!(back.contains("INFO") && back.contains("is readmitted after "), "{back}");
    assert!(back.contains("it answered its trial"), "{back}");
}

#[test]
fn a_backend_that_checks_take_out_is_told_of_once_with_the_evidence_and_once_when_it_is_back() {
    let well = Arc::new(AtomicBool::new(false));
    let backend = {
        let well = Arc::clone(&well);
        Backend::start(move |connection| {
            while connection.read_request().is_some() {
                let status = if well.load(Ordering::SeqCst) { "200 OK" } else { "500 No" };
                connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
            }
        })
    };
    let program = Program::start(["--health-path", "/healthz", "--health-interval", "20ms", &backend.url()]);
    backend.wait_for_requests(10); // it falls with the third
    well.store(true, Ordering::SeqCst);
    let before = backend.requests().len();
    program.stderr.wait_for("is up");
    backend.wait_for_requests(before + 10);
    let said = program.stderr.so_far();
    let of_it: Vec<&str> = said.lines().filter(|line| line.contains(&backend.address().to_string())).collect();
    let [out, back] = of_it[..] else { panic!("{of_it:#?}") };
    let words = "is down: GET /healthz answered 500, the last of 3 bad checks in a row";
    assert!(out.contains("WARN") && out.contains(words), "{out}");
    let words = "is up: GET /healthz answered 200, the last of 2 good checks in a row";
    assert!(back.contains("INFO") && back.contains(words), "{back}");
}

#[test]
fn a_kept_connection_that_its_backend_has_closed_is_no_failure() {
    // One answer a connection, without saying so: each spare that rests is a trap.
    let closing = Backend::start(|connection| {
        if connection.read_request().is_some() {
            connection.send(OK);
        }
    });
    let sound = Backend::answering(OK);
    let balancer = balancer(&[&closing.url(), &sound.url()], &[]);
    for _ in 0..40 {
        assert_eq!(ask(&balancer), 200);
    }
    assert_eq!(closing.requests().len(), 20, "it has kept all its turns");
}

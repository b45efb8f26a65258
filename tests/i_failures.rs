//! When something fails: backends that are down, die or dawdle, clients that vanish, times that run out, and the end of
//! the balancer itself.
//!
//! Three promises stand behind all of it. What could be answered is answered. What must not be done twice is not done
//! twice. And nothing stays behind: every exchange that began has ended, and every connection is closed or kept on
//! purpose.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use support::{
    Backend, BackendSide, BlackHole, Client, End, Framing, Gate, PATIENCE, TempFile, balancer, each, eventually,
};
use threadbare::Balancer;
use threadbare::error::Fault;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A balancer before these backends.
struct House {
    balancer: Balancer,
    backends: Vec<Backend>,
}

impl House {
    fn before(backends: impl IntoIterator<Item = Backend>) -> Self {
        Self::with(backends, &[])
    }

    fn with(backends: impl IntoIterator<Item = Backend>, flags: &[&str]) -> Self {
        let backends: Vec<Backend> = backends.into_iter().collect();
        let urls: Vec<String> = backends.iter().map(Backend::url).collect();
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        Self { balancer: balancer(&urls, flags), backends }
    }

    fn client(&self) -> Client {
        Client::connect(self.balancer.address())
    }

    /// Status and text of the answer to this request, from a client of its own.
    fn ask(&self, request: &str) -> (u16, String) {
        ask(self.balancer.address(), request)
    }

    /// How many requests have come to each backend, finished or not.
    fn asked(&self) -> Vec<usize> {
        self.backends.iter().map(|backend| backend.requests().len()).collect()
    }

    /// Every request that came to any of them.
    fn all_asked(&self) -> usize {
        self.asked().iter().sum()
    }

    /// No exchange and no client is left, and no connection to a backend but those that are kept on purpose.
    fn comes_to_rest(&self) {
        let rests = || {
            let counters = self.balancer.counters();
            let open: usize = self.backends.iter().map(Backend::open).sum();
            counters.in_flight == 0 && counters.connections == 0 && counters.spares == open
        };
        eventually(rests, "no exchange and no connection is left");
        assert_eq!(self.balancer.counters().panics, 0);
    }
}

fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut client = Client::connect(address);
    client.send(request.as_bytes());
    let response = client.read_response(request.split(' ').next().unwrap());
    (response.status, response.text())
}

/// Runs `work` in this many threads at once, each with its number.
fn at_once(threads: usize, work: impl Fn(usize) + Send + Sync + 'static) {
    let work = Arc::new(work);
    let threads: Vec<_> = (0..threads)
        .map(|nth| {
            let work = Arc::clone(&work);
            thread::spawn(move || work(nth))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Tries every row, all of them at once: for rows that do little but wait.
fn each_at_once<Row: Send>(rows: impl IntoIterator<Item = Row>, test: impl Fn(Row) + Sync) {
    let failed = thread::scope(|scope| {
        let rows: Vec<_> = rows.into_iter().map(|row| scope.spawn(|| test(row))).collect();
        rows.into_iter().map(|row| row.join().is_err()).filter(|&failed| failed).count()
    });
    assert_eq!(failed, 0, "of the rows failed, each with its own message above");
}

/// Reads every request and leaves without a word.
fn closing() -> Backend {
    Backend::start(|connection| {
        connection.read_request();
    })
}

/// Reads every request and resets.
fn resetting() -> Backend {
    Backend::start(|connection| {
        connection.read_request();
        connection.reset();
    })
}

/// Resets every connection before it reads a byte.
fn slamming() -> Backend {
    Backend::start(BackendSide::reset)
}

fn good() -> Backend {
    Backend::answering(OK)
}

/// Reads every request and waits for the balancer to leave.
fn patient() -> Backend {
    Backend::start(|connection| {
        if connection.read_request().is_some() {
            connection.read_to_end();
        }
    })
}

/// Answers every request once the gate is open.
fn gated(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::start(move |connection| {
        while connection.read_request().is_some() {
            gate.pass();
            connection.send(OK.as_bytes());
        }
    })
}

// Backends that can't be reached.

#[test]
fn with_one_of_two_backends_down_nothing_fails() {
    let requests = [
        GET.to_owned(),
        POST.to_owned(),
        "PATCH / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "FOO / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{}", "y".repeat(100_000)),
    ];
    let rows = requests.iter().flat_map(|request| [(request, true), (request, false)]);
    each(rows, |(request, first)| {
        let mut backends = vec![Backend::refusing(), good()];
        if !first {
            backends.reverse();
        }
        let house = House::before(backends);
        for nth in 0..10 {
            assert_eq!(house.ask(request), (200, "ok".to_owned()), "the {nth}th {:?}", &request[..20]);
        }
        let whole = house.backends[usize::from(first)].wait_for_requests(10);
        assert_eq!(whole.len(), 10, "each of them once");
        house.comes_to_rest();
    });
}

#[test]
fn with_two_of_three_backends_down_nothing_fails_at_once_either() {
    let house = House::with([Backend::refusing(), good(), Backend::refusing()], &["--workers", "4"]);
    let address = house.balancer.address();
    at_once(8, move |nth| {
        for _request in 0..20 {
            assert_eq!(ask(address, if nth % 2 == 0 { GET } else { POST }).0, 200);
        }
    });
    assert_eq!(house.all_asked(), 160);
    house.comes_to_rest();
}

#[test]
fn a_backend_that_refuses_is_a_bad_gateway() {
    each([1, 2, 3, 5], |count| {
        let house = House::before((0..count).map(|_| Backend::refusing()));
        for request in [GET, POST] {
            let (status, text) = house.ask(request);
            assert!(status == 502 && text.contains("backend-refused"), "{count} backends: {status} {text:?}");
        }
        house.comes_to_rest();
    });
}

#[test]
fn a_failure_is_told_as_what_it_is_where_the_others_drain_or_are_down() {
    // Whoever can't be asked is nobody to try next: that would be a retry, and then the failure of having nobody.
    let (refusing, silent, drains) =
        (Backend::refusing(), Backend::start(|connection| _ = connection.read_request()), good());
    for (sick, reason) in [(&refusing, "backend-refused"), (&silent, "backend-closed-before-response")] {
        let one = format!("[[backend]]\nurl = \"{}\"\n", sick.url());
        let file = TempFile::new(format!("{one}[[backend]]\nurl = \"{}\"\nstate = \"drain\"\n", drains.url()));
        let balancer = balancer(&[], &["--config", file.path()]);
        let (status, text) = ask(balancer.address(), GET);
        assert!(status == 502 && text.contains(reason), "{status} {text:?}");
        let figures = balancer.figures();
        let retries: u64 = figures.backends.iter().map(|backend| backend.balance.retries).sum();
        assert_eq!((figures.failed(), figures.refused(), retries), (1, 0, 0));
    }
    assert!(drains.requests().is_empty());
}

#[test]
fn what_is_short_here_is_not_held_against_a_backend_and_what_leads_nowhere_is() {
    let rows = [
        (Errno::MFILE, "out-of-descriptors"),
        (Errno::NOBUFS, "out-of-descriptors"),
        // No port that is free towards this one, or no way to addresses of its kind: another may be reached.
        (Errno::ADDRNOTAVAIL, "backend-unreachable"),
        (Errno::NETUNREACH, "backend-unreachable"),
        (Errno::CONNREFUSED, "backend-refused"),
        (Errno::TIMEDOUT, "backend-connect-timeout"),
    ];
    each(rows, |(error, word)| assert_eq!(Fault::of_dial(&error.into()).reason.word(), word));
}

#[test]
fn a_connection_that_does_not_come_about_is_given_up_in_time() {
    let Some(hole) = BlackHole::open() else { return };
    let url = format!("http://{}", hole.address());
    let timeout = Duration::from_millis(300);
    each([GET, POST], |request| {
        let balancer = balancer(&[&url], &["--connect-timeout", "300ms"]);
        let asked = Instant::now();
        let (status, text) = ask(balancer.address(), request);
        assert!(status == 504 && text.contains("backend-connect-timeout"), "{status} {text:?}");
        assert!(asked.elapsed() >= timeout, "after {:?} already", asked.elapsed());
        assert_eq!(balancer.counters().in_flight, 0);
    });
    // Nothing was sent, so another is asked, whatever the method.
    let other = good();
    let balancer = balancer(&[&url, &other.url()], &["--connect-timeout", "300ms"]);
    for request in [GET, GET, POST, POST] {
        assert_eq!(ask(balancer.address(), request), (200, "ok".to_owned()));
    }
    assert_eq!(other.requests().len(), 4);
}

#[test]
fn a_client_that_leaves_while_we_connect_is_noticed() {
    let Some(hole) = BlackHole::open() else { return };
    each(["closes", "resets"], |how| {
        let balancer = balancer(&[&format!("http://{}", hole.address())], &["--connect-timeout", "1h"]);
        let mut client = Client::connect(balancer.address());
        client.send(GET.as_bytes());
        eventually(|| balancer.counters().in_flight == 1, "the request is under way");
        if how == "closes" {
            drop(client)
        } else {
            client.abort()
        }
        eventually(
            || balancer.counters().in_flight == 0 && balancer.counters().connections == 0,
            "nothing is left of it",
        );
    });
}

// Backends that die.

#[test]
fn what_may_be_done_twice_is_tried_elsewhere_and_only_so_often() {
    let length = "Content-Length: 5\r\n\r\nhello";
    let chunks = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let long = format!("Content-Length: 100000\r\n\r\n{}", "y".repeat(100_000));
    let rows = [
        // Of four backends that all die: the first, and two more.
        ("GET", "\r\n", 4, 3),
        ("HEAD", "\r\n", 4, 3),
        ("OPTIONS", "\r\n", 4, 3),
        ("TRACE", "\r\n", 4, 3),
        ("PUT", length, 4, 3),
        ("DELETE", "\r\n", 4, 3),
        ("DELETE", length, 4, 3),
        ("GET", "\r\n", 2, 2),
        ("GET", "\r\n", 1, 1),
        // Not idempotent, for all we know.
        ("POST", "\r\n", 4, 1),
        ("POST", length, 4, 1),
        ("PATCH", length, 4, 1),
        ("FOO", "\r\n", 4, 1),
        ("get", "\r\n", 4, 1),
        ("PROPFIND", "\r\n", 4, 1),
        // Idempotent, but no longer whole in memory.
        ("PUT", chunks, 4, 1),
        ("PUT", &long, 4, 1),
    ];
    let deaths: [(&str, fn() -> Backend); 2] = [("close", closing), ("reset", resetting)];
    let rows = rows.iter().flat_map(|row| deaths.map(|death| (row, death)));
    each(rows, |((method, rest, backends, times), (how, death))| {
        let house = House::before((0..*backends).map(|_| death()));
        let (status, text) = house.ask(&format!("{method} / HTTP/1.1\r\nHost: a\r\n{rest}"));
        let told = format!("{method} with {:?}, {backends} that {how}", &rest[..rest.len().min(20)]);
        assert_eq!(status, 502, "{told}");
        assert!(*method == "HEAD" || text.contains("backend-closed-before-response"), "{told}: {text:?}");
        house.comes_to_rest();
        assert_eq!(house.all_asked(), *times, "times asked: {told}");
        assert!(house.asked().iter().all(|asked| *asked <= 1), "no backend twice: {told}");
    });
}

#[test]
fn an_answer_that_ends_in_a_reset_while_its_request_goes_up_does_not_look_whole() {
    // Whose call meets with the reset, the one that writes the request or the one that reads the answer?
    let resetting = Backend::start(|connection| {
        if connection.read_head().is_some() {
            connection.send(b"HTTP/1.0 200 OK\r\n\r\nthe beginning of something");
            connection.read_raw(100_000);
            connection.reset();
        }
    });
    let house = House::before([resetting]);
    let chunk = [&b"4000\r\n"[..], &[b'x'; 0x4000], b"\r\n"].concat().repeat(8);
    for nth in 0..20 {
        let mut client = house.client();
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut hand = client.second_hand();
        let (chunk, is_over) = (chunk.clone(), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&is_over);
        let sender = thread::spawn(move || while !stop.load(Ordering::Acquire) && hand.write_all(&chunk).is_ok() {});
        let (heard, _) = client.try_to_end();
        is_over.store(true, Ordering::Release);
        client.abort();
        sender.join().unwrap();
        let heard = String::from_utf8_lossy(&heard);
        assert!(heard.contains("the beginning of") && !heard.ends_with("0\r\n\r\n"), "the {nth}th: {heard:?}");
    }
}

#[test]
fn a_long_put_is_not_lost_to_a_spare_that_dies_under_it() {
    let fickle = Backend::start(|connection| {
        if connection.read_request().is_some() {
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            connection.read_raw(1);
            connection.reset();
        }
    });
    let house = House::before([fickle]);
    let chunks = [&b"30d40\r\n"[..], &[b'x'; 200_000], b"\r\n0\r\n\r\n"].concat();
    each(
        [("Content-Length: 200000", &[b'x'; 200_000][..]), ("Transfer-Encoding: chunked", &chunks)],
        |(framing, body)| {
            let mut client = house.client();
            for _ in 0..2 {
                client.send(&[format!("PUT / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes(), body].concat());
                assert_eq!(client.read_response("PUT").status, 200, "{}", client.story());
            }
        },
    );
}

#[test]
fn a_put_of_which_a_backend_has_had_some_is_not_said_to_another() {
    // Long bodies are not collected: what has gone on is gone, and the other would get less than it was promised.
    const LENGTH: usize = 8 * 1024 * 1024;
    let rows = [1, 100_000, LENGTH / 2, LENGTH].into_iter().flat_map(|had| [(had, "closes"), (had, "resets")]);
    each(rows, |(had, how)| {
        let lost = Backend::start(move |connection| {
            if connection.read_head().is_some() {
                connection.read_body_bytes(had);
                if how == "resets" {
                    connection.reset();
                }
            }
        });
        let house = House::before([lost, good()]);
        let mut client = house.client();
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes());
        house.backends[0].wait_until("the head has come alone", |record| record.requests.len() == 1);
        let mut hand = client.second_hand();
        let sender = thread::spawn(move || hand.write_all(&vec![b'y'; LENGTH]).is_ok());
        let is_over = || house.balancer.counters().exchanges == 1 || house.asked()[1] > 0;
        eventually(is_over, "the exchange has ended, or has gone elsewhere");
        assert_eq!(house.asked(), [1, 0], "lost after {had} bytes, it {how}");
        assert_eq!(client.read_response("PUT").status, 502, "lost after {had} bytes, it {how}: {}", client.story());
        drop(client);
        sender.join().unwrap();
        house.comes_to_rest();
    });
}

#[test]
fn a_backend_that_slams_the_door_has_taken_nothing_from_a_get() {
    // It accepts and resets; what was on its way to it may be said again if it may be done twice.
    let house = House::before([slamming(), good(), slamming()]);
    for nth in 0..12 {
        assert_eq!(house.ask(GET), (200, "ok".to_owned()), "the {nth}th");
    }
    house.comes_to_rest();
}

#[test]
fn a_get_survives_the_death_of_its_backend() {
    let deaths: [(&str, fn() -> Backend); 3] = [("close", closing), ("reset", resetting), ("slam", slamming)];
    each(deaths, |(how, death)| {
        let house = House::with([death(), good()], &["--workers", "2"]);
        for nth in 0..10 {
            assert_eq!(house.ask(GET), (200, "ok".to_owned()), "the {nth}th of those that {how}");
        }
        let put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        for nth in 0..4 {
            assert_eq!(house.ask(put).0, 200, "the {nth}th of those that {how}");
            assert_eq!(house.backends[1].requests().pop().unwrap().body, b"hello", "whole, after those that {how}");
        }
        let address = house.balancer.address();
        at_once(6, move |_nth| (0..10).for_each(|_| assert_eq!(ask(address, GET).0, 200)));
        house.comes_to_rest();
    });
}

#[test]
fn a_byte_of_an_answer_ends_all_trying() {
    let said =
        ["H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 103 x\r\n\r\n", "\r\n", "no HTTP\r\n\r\n", "HTTP/1.1 200 OK\r\nX: \0"];
    let rows = said.into_iter().flat_map(|said| ["closes", "resets"].map(|how| (said, how)));
    each(rows, |(said, how)| {
        let dying = || {
            Backend::start(move |connection| {
                if connection.read_request().is_some() {
                    connection.send(said.as_bytes());
                    if how == "resets" {
                        connection.reset();
                    }
                }
            })
        };
        let house = House::before([dying(), dying(), dying()]);
        let mut client = house.client();
        client.send(GET.as_bytes());
        if said.contains(" 103 ") {
            // A reset may overtake what came before it.
            match client.try_response("GET") {
                Ok(response) => assert_eq!(response.status, 502, "{}", client.story()),
                Err(_) => assert_eq!(client.read_response("GET").status, 502, "{}", client.story()),
            }
        } else {
            assert_eq!(client.read_response("GET").status, 502, "{}", client.story());
        }
        drop(client);
        house.comes_to_rest();
        // What a reset has overtaken has not come.
        let most = if how == "resets" { 3 } else { 1 };
        assert!((1..=most).contains(&house.all_asked()), "{said:?}, then it {how}: asked {:?}", house.asked());
    });
}

#[test]
fn a_byte_of_an_answer_that_has_been_read_ends_all_trying() {
    // The byte has been read for certain: the death comes when the client has heard of it.
    let heard = Gate::new();
    let dying = || {
        let heard = heard.clone();
        Backend::start(move |connection| {
            if connection.read_request().is_some() {
                connection.send(b"HTTP/1.1 103 Early Hints\r\n\r\n");
                heard.pass();
                connection.reset();
            }
        })
    };
    let house = House::before([dying(), dying()]);
    let mut client = house.client();
    client.send(GET.as_bytes());
    client.read_interim();
    heard.open();
    assert_eq!(client.read_response("GET").status, 502, "{}", client.story());
    assert_eq!(house.all_asked(), 1);
}

#[test]
fn who_does_not_take_interim_responses_is_waited_for_and_not_their_backend() {
    // More than the buffers on the way take.
    const HINTS: usize = 4000;
    let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n", "x".repeat(2000));
    let said = hint.repeat(HINTS) + OK;
    let head_timeout = Duration::from_millis(300);
    let flags = |body_timeout| ["--response-head-timeout", "300ms", "--response-body-timeout", body_timeout];

    // Whoever goes on in time gets all of it, though the backend's time would long have been over.
    let house = House::with([Backend::answering(said.clone())], &flags("30s"));
    let mut client = house.client();
    client.send(GET.as_bytes());
    house.backends[0].wait_for_requests(1);
    thread::sleep(2 * head_timeout); // not a wait for something: the client's slowness is what is tried
    (0..HINTS).for_each(|_| assert_eq!(client.read_interim().status, 103));
    assert_eq!(client.read_response("GET").status, 200, "{}", client.story());
    drop(client);
    house.comes_to_rest();

    // Whoever does not is given up, which is not held against the backend.
    let flags = [&flags("1s")[..], &["--failures", "1", "--admin", "127.0.0.1:0"]].concat();
    let house = House::with([Backend::answering(said)], &flags);
    let mut client = house.client();
    client.send(GET.as_bytes());
    eventually(|| house.balancer.counters().exchanges == 1, "the client is given up");
    let mut look = Client::connect(house.balancer.admin_address().unwrap());
    look.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let told = look.read_response("GET").text();
    let series =
        ["reasons_total{reason=\"client-body-timeout\"} 1", "reasons_total{reason=\"backend-head-timeout\"} 0"];
    for series in series {
        assert!(told.contains(&format!("\nthreadbare_{series}\n")), "no {series} in {told}");
    }
    let ejections = told.lines().find(|line| line.starts_with("threadbare_backend_ejections_total"));
    assert!(ejections.is_some_and(|line| line.ends_with(" 0")), "{ejections:?}");
}

#[test]
fn every_way_of_failing_leaves_a_balancer_that_works() {
    let ways = [
        "",
        "H",
        "no HTTP\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ];
    let house = House::before([Backend::start(move |connection| {
        while let Some(request) = connection.read_request() {
            match request.target[1..].parse::<usize>() {
                Ok(way) => {
                    connection.send(ways[way].as_bytes());
                    if request.head.get("X-Reset").is_some() {
                        connection.reset();
                    }
                    return;
                }
                Err(_) => drop(connection.send(OK.as_bytes())),
            }
        }
    })]);
    let rows = (0..ways.len()).flat_map(|way| ["", "X-Reset: 1\r\n"].map(|line| (way, line)));
    each(rows, |(way, line)| {
        for method in ["GET", "POST"] {
            let mut client = house.client();
            client.send(format!("{method} /{way} HTTP/1.1\r\nHost: a\r\n{line}\r\n").as_bytes());
            match client.try_response(method) {
                Ok(response) => assert_eq!(response.status, 502, "{:?} {line:?}: {}", ways[way], client.story()),
                Err(cut) => assert_ne!(cut.end, End::TimedOut, "{:?} {line:?}: {}", ways[way], client.story()),
            }
        }
        assert_eq!(house.ask("GET /good HTTP/1.1\r\nHost: a\r\n\r\n"), (200, "ok".to_owned()), "after {:?}", ways[way]);
        house.comes_to_rest();
    });
}

// Spares that die.

#[test]
fn a_request_over_a_spare_that_dies_is_said_again_to_the_same_backend() {
    // The close crosses the request: the spare seems alive when it is taken.
    let rows = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"];
    let rows = rows.into_iter().flat_map(|method| ["closes", "resets"].map(|how| (method, how)));
    each(rows, |(method, how)| {
        let dying = || {
            Backend::start(move |connection| {
                connection.read_request();
                connection.send(OK.as_bytes());
                if connection.read_request().is_some() && how == "resets" {
                    connection.reset();
                }
            })
        };
        let house = House::before([dying(), dying()]);
        for _backend in 0..2 {
            assert_eq!(house.ask(GET).0, 200);
        }
        eventually(|| house.balancer.counters().spares == 2, "each has a spare");
        let request = format!("{method} /again HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        let mut client = house.client();
        client.send(request.as_bytes());
        assert_eq!(client.read_response(method).status, 200, "over a spare that {how}: {}", client.story());
        let again = |backend: &Backend| backend.requests().iter().filter(|request| request.target == "/again").count();
        assert_eq!((again(&house.backends[0]), again(&house.backends[1])), (2, 0), "{method} over a spare that {how}");
        assert_eq!(house.balancer.counters().dials, 3, "{method} over a spare that {how}");
    });
}

#[test]
fn a_post_over_a_spare_that_dies_is_never_said_again() {
    let die = Arc::new(AtomicBool::new(false));
    let house = House::before([Backend::start({
        let die = Arc::clone(&die);
        move |connection| {
            let mut is_spare = false;
            while connection.read_request().is_some() {
                if is_spare && die.load(Ordering::SeqCst) {
                    return;
                }
                connection.send(OK.as_bytes());
                is_spare = true;
            }
        }
    })]);
    // Once the backend is known to keep spares, POSTs go over them.
    let goes_over_a_spare = || {
        thread::sleep(Duration::from_millis(50));
        let before = house.balancer.counters().spares_reused;
        assert_eq!(house.ask(POST).0, 200);
        house.balancer.counters().spares_reused > before
    };
    eventually(goes_over_a_spare, "a POST goes over a spare");
    die.store(true, Ordering::SeqCst);
    let asked = house.all_asked();
    let mut sent = 0;
    let mut failed = 0;
    // A fresh connection answers; a spare dies under the first POST that trusts it.
    while failed == 0 && sent < 100 {
        sent += 1;
        failed += usize::from(house.ask(POST).0 == 502);
    }
    assert_eq!((failed, house.all_asked() - asked), (1, sent), "of {sent} POSTs: failed, and times done");
}

#[test]
fn a_backend_that_closes_idle_connections_at_any_moment_is_normal_life() {
    // It keeps no connection for longer than this, and says nothing of it.
    let rows = [0, 1, 3, 10].into_iter().flat_map(|age| [("GET", age), ("POST", age)]);
    each(rows, |(method, age)| {
        let house = House::with(
            [Backend::start(move |connection| {
                if connection.read_request().is_some() {
                    connection.send(OK.as_bytes());
                    thread::sleep(Duration::from_millis(age));
                    // A request that has come meanwhile is never read: the close becomes a reset.
                }
            })],
            &["--workers", "2"],
        );
        let address = house.balancer.address();
        at_once(4, move |client| {
            let mut connection = Client::connect(address);
            for nth in 0..40 {
                let request = format!("{method} /{client}-{nth} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
                connection.send(request.as_bytes());
                let response = connection.read_response(method);
                assert_eq!(response.status, 200, "{method} number {nth}, at {age} ms: {}", response.text());
            }
        });
        let mut times = BTreeMap::new();
        for request in house.backends[0].requests() {
            *times.entry(request.target).or_insert(0) += 1;
        }
        assert_eq!(times.len(), 160);
        if method == "POST" {
            assert!(times.values().all(|&times| times == 1), "done twice, at {age} ms: {times:?}");
        }
        house.comes_to_rest();
    });
}

// Rotation.

#[test]
fn backends_take_turns_in_their_order() {
    each(1..=5, |count| {
        let house = House::before(
            (0..count).map(|nth| Backend::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{nth}"))),
        );
        let mut client = house.client();
        for nth in 0..17 {
            // Whatever the method, and whoever asks.
            let request = if nth % 2 == 0 { GET } else { POST };
            let answer = if nth % 3 == 0 {
                house.ask(request).1
            } else {
                client.send(request.as_bytes());
                client.read_response("GET").text()
            };
            assert_eq!(answer, (nth % count).to_string(), "the {nth}th of {count}");
        }
    });
}

#[test]
fn turns_are_exact_even_when_many_ask_at_once() {
    each([1, 2, 3, 7], |count| {
        let house = House::with((0..count).map(|_| good()), &["--workers", "4"]);
        let address = house.balancer.address();
        at_once(8, move |nth| {
            let mut client = Client::connect(address);
            for request in 0..25 + nth {
                client.send(if (request + nth) % 3 == 0 { POST.as_bytes() } else { GET.as_bytes() });
                assert_eq!(client.read_response("GET").status, 200, "{}", client.story());
                if request % 5 == 0 {
                    client = Client::connect(address);
                }
            }
        });
        let asked = house.asked();
        assert_eq!(asked.iter().sum::<usize>(), 228);
        assert!(asked.iter().max().unwrap() - asked.iter().min().unwrap() <= 1, "{asked:?}");
    });
}

#[test]
fn a_second_try_takes_no_second_turn_and_gives_no_neighbour_a_double_share() {
    let deaths: [(&str, fn() -> Backend); 3] = [("refuse", Backend::refusing), ("close", closing), ("slam", slamming)];
    let rows = deaths.into_iter().flat_map(|death| (0..4).map(move |place| (death, place)));
    each(rows, |((how, death), place)| {
        let mut backends: Vec<Backend> = (0..3).map(|_| good()).collect();
        backends.insert(place, death());
        let house = House::before(backends);
        for nth in 0..48 {
            assert_eq!(house.ask(GET).0, 200, "the {nth}th");
        }
        // 12 turns each; the twelve of the dead one are spread among the three others, four each.
        let mut asked = house.asked();
        asked.remove(place);
        assert_eq!(asked, [16, 16, 16], "one of four, at {place}, that {how}");
    });
}

#[test]
fn refused_requests_take_no_turn() {
    let house = House::before([good(), good()]);
    for _request in 0..3 {
        house.ask("GET / HTTP/1.1\r\nX: no-host\r\n\r\n");
        house.ask("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n");
        house.ask(GET);
    }
    assert_eq!(house.asked(), [2, 1]);
}

// Clients that vanish.

/// A backend with a way to wait in for every kind of client.
fn obliging() -> Backend {
    Backend::start(|connection| {
        while let Some(head) = connection.read_head() {
            let target = head.start.split(' ').nth(1).unwrap_or_default().to_owned();
            match &*target {
                "/continue" => {
                    connection.send(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                "/early" => {
                    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
                }
                _ => {}
            }
            if connection.read_rest().is_none() {
                return;
            }
            match &*target {
                "/wait" | "/early" => {
                    connection.read_to_end();
                }
                "/tunnel" => {
                    connection.send(b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello");
                    connection.read_to_end();
                }
                "/length" => {
                    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
                    while connection.send(&[b'y'; 10_000]) {}
                }
                "/chunks" => {
                    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                    let chunk = format!("2710\r\n{}\r\n", "y".repeat(10_000));
                    while connection.send(chunk.as_bytes()) {}
                }
                "/quiet" => {
                    connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nhello");
                    connection.read_to_end();
                }
                _ => {
                    connection.send(OK.as_bytes());
                }
            }
        }
    })
}

#[test]
fn a_client_may_vanish_at_any_point() {
    let upgrade = "Connection: upgrade\r\nUpgrade: x\r\n";
    // What it says, and how much of an answer it waits for before it vanishes.
    let rows: Vec<(String, usize)> = [
        ("", 0),
        ("\r\n", 0),
        ("G", 0),
        ("GET / HTTP/1.1\r\n", 0),
        ("GET / HTTP/1.1\r\nHost: a\r\n", 0),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r", 0),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", 0),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe", 0),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", 0),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhe", 0),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 0),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5", 0),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", 0),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 0),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n", 0),
        ("POST /continue HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 12),
        ("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhe", 12),
        ("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n", 0),
        ("POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 0),
        ("GET /wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 0),
        ("GET /wait HTTP/1.0\r\n\r\n", 0),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 12),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /wait HTTP/1.1\r\nHost: a\r\n\r\n", 12),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 12),
        ("GET /length HTTP/1.1\r\nHost: a\r\n\r\n", 1000),
        ("GET /length HTTP/1.0\r\n\r\n", 1000),
        ("GET /chunks HTTP/1.1\r\nHost: a\r\n\r\n", 1000),
        ("GET /chunks HTTP/1.0\r\n\r\n", 1000),
        ("GET /quiet HTTP/1.1\r\nHost: a\r\n\r\n", 12),
        ("no request\r\n\r\n", 12),
    ]
    .into_iter()
    .map(|(said, heard)| (said.to_owned(), heard))
    .chain([(format!("GET /tunnel HTTP/1.1\r\nHost: a\r\n{upgrade}\r\nhello"), 12)])
    .collect();
    let house = House::before([obliging()]);
    let rows = rows.iter().flat_map(|(said, heard)| ["closes", "resets"].map(|how| (said, *heard, how)));
    each(rows, |(said, heard, how)| {
        let mut client = house.client();
        client.send(said.as_bytes());
        client.read_raw(heard);
        if said.contains("/wait") && heard == 0 {
            let waits = || house.backends[0].requests().last().is_some_and(|request| request.target == "/wait");
            eventually(waits, "the request waits at the backend");
        }
        if how == "closes" {
            drop(client)
        } else {
            client.abort()
        }
        let rests = || {
            let counters = house.balancer.counters();
            counters.in_flight == 0 && counters.connections == 0 && counters.spares == house.backends[0].open()
        };
        eventually(rests, &format!("nothing is left of a client that {how} after {said:?}"));
    });
    assert_eq!(house.ask(GET), (200, "ok".to_owned()), "and the next one is served");
    let parts = house.backends[0].requests();
    let faulty = parts.iter().find(|request| request.whole && request.framing == Framing::Length(100_000));
    assert!(faulty.is_none(), "a part was taken for the whole: {faulty:?}");
    house.comes_to_rest();
}

#[test]
fn a_client_that_ends_in_the_middle_of_its_body_is_told_or_left() {
    let rows = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nA\r\nhello",
    ];
    each(rows, |request| {
        let house = House::before([good()]);
        let mut client = house.client();
        client.send(request.as_bytes());
        client.half_close();
        match client.try_response("POST") {
            Ok(response) => assert!(response.status == 400 && response.closes(), "{}", client.story()),
            Err(cut) => assert_eq!(cut.end, End::Closed, "{}", client.story()),
        }
        assert!(house.backends[0].requests().iter().all(|request| !request.whole), "{}", client.story());
        drop(client);
        house.comes_to_rest();
    });
}

#[test]
fn a_hundred_clients_vanish_at_once() {
    let house = House::with([obliging(), obliging()], &["--workers", "2"]);
    let targets = ["/wait", "/length", "/chunks", "/quiet", "/"];
    let mut clients: Vec<Client> = (0..100).map(|_| house.client()).collect();
    for (nth, client) in clients.iter_mut().enumerate() {
        let target = targets[nth % targets.len()];
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    }
    eventually(|| house.all_asked() == 100, "all of them are under way");
    for (nth, client) in clients.into_iter().enumerate() {
        if nth % 2 == 0 { drop(client) } else { client.abort() }
    }
    house.comes_to_rest();
    assert_eq!(house.ask(GET).0, 200);
}

// Times that run out.

#[test]
fn a_new_connection_that_says_nothing_is_closed_silently() {
    let timeout = Duration::from_millis(300);
    let house = House::with([good()], &["--first-byte-timeout", "300ms"]);
    let began = Instant::now();
    let mut client = house.client();
    client.expect_closed();
    assert!(began.elapsed() >= timeout, "after {:?} already", began.elapsed());
    assert_eq!(house.balancer.counters().exchanges, 0, "there was no request that could be counted");
}

#[test]
fn an_idle_connection_is_closed_silently() {
    let timeout = Duration::from_millis(300);
    let house = House::with([good()], &["--idle-timeout", "300ms"]);
    let began = Instant::now(); // of the idle time nobody here can tell just when it begins
    let mut client = house.client();
    for _request in 0..2 {
        client.send(GET.as_bytes());
        assert!(!client.read_response("GET").closes(), "{}", client.story());
    }
    client.expect_closed();
    assert!(began.elapsed() >= timeout, "after {:?} already", began.elapsed());
    house.comes_to_rest();
}

#[test]
fn half_a_head_is_given_up_in_time_however_it_drips() {
    let timeout = Duration::from_millis(300);
    let heads = [
        "G",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n",
    ];
    let rows = heads.into_iter().flat_map(|head| [(head, false), (head, true)]);
    each_at_once(rows, |(head, drips)| {
        let house = House::with([good()], &["--head-timeout", "300ms"]);
        let began = Instant::now();
        let mut client = house.client();
        client.send(head.as_bytes());
        let (address, mut stream) = (house.balancer.address(), client.second_hand());
        let stop = Arc::new(AtomicBool::new(!drips));
        let dripping = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                // A field that never ends: a byte now and then does not renew the time for a head.
                while !stop.load(Ordering::SeqCst) && stream.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(10));
                }
            }
        });
        let response = client.read_response("GET");
        assert_eq!(response.status, 408, "{address}: {}", client.story());
        assert!(response.text().contains("client-head-timeout") && response.closes(), "{}", client.story());
        assert!(began.elapsed() >= timeout, "after {:?} already", began.elapsed());
        stop.store(true, Ordering::SeqCst);
        dripping.join().unwrap();
        drop(client);
        house.comes_to_rest();
        assert_eq!(house.all_asked(), 0);
    });
}

#[test]
fn half_a_head_behind_an_answer_has_its_own_time() {
    let house = House::with([good()], &["--head-timeout", "300ms"]);
    let mut client = house.client();
    client.send(format!("{GET}GET / HT").as_bytes());
    assert_eq!(client.read_response("GET").status, 200, "{}", client.story());
    client.expect_refusal(&[408]);
}

#[test]
fn an_answer_may_take_longer_than_a_client() {
    // What limits clients does not limit backends.
    let flags = [
        "--first-byte-timeout",
        "200ms",
        "--head-timeout",
        "200ms",
        "--idle-timeout",
        "200ms",
        "--request-body-timeout",
        "200ms",
        "--response-body-timeout",
        "200ms",
        "--spare-timeout",
        "200ms",
        "--tunnel-timeout",
        "200ms",
    ];
    let backend = Backend::start(|connection| {
        while connection.read_request().is_some() {
            thread::sleep(Duration::from_millis(600));
            connection.send(OK.as_bytes());
        }
    });
    let house = House::with([backend], &flags);
    for request in [GET, POST] {
        assert_eq!(house.ask(request), (200, "ok".to_owned()));
    }
}

#[test]
fn a_body_that_stops_is_given_up_in_time() {
    let timeout = Duration::from_millis(300);
    let rows = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ];
    each_at_once(rows, |request| {
        let house = House::with([good()], &["--request-body-timeout", "300ms"]);
        let began = Instant::now();
        let mut client = house.client();
        client.send(request.as_bytes());
        let response = client.read_response("POST");
        assert_eq!(response.status, 408, "{}", client.story());
        assert!(response.text().contains("client-body-timeout") && response.closes(), "{}", client.story());
        assert!(began.elapsed() >= timeout, "after {:?} already", began.elapsed());
        client.expect_closed();
        drop(client);
        house.backends[0].wait_until("half a request is no request", |record| record.open == 0);
        assert!(house.backends[0].requests().iter().all(|request| !request.whole));
        house.comes_to_rest();
    });
}

#[test]
fn a_body_that_goes_on_has_all_the_time_it_needs() {
    // Longer in all than any of these times; none of its pauses is.
    let flags =
        ["--request-body-timeout", "800ms", "--response-head-timeout", "800ms", "--response-body-timeout", "800ms"];
    let house = House::with([Backend::echo()], &flags);
    let mut client = house.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    while began.elapsed() < Duration::from_millis(1300) {
        let paused = Instant::now();
        thread::sleep(Duration::from_millis(50));
        longest = longest.max(paused.elapsed());
        client.try_send(b"1\r\ny\r\n");
    }
    client.try_send(b"0\r\n\r\n");
    if longest > Duration::from_millis(500) {
        println!("not judged: a pause of {longest:?}");
        return;
    }
    assert_eq!(client.read_response("POST").status, 200, "{}", client.story());
}

#[test]
fn a_backend_that_takes_no_more_of_a_body_is_given_up_in_time() {
    let house = House::with(
        [Backend::start(|connection| {
            if connection.read_head().is_some() {
                // As long as the balancer stays, which shows in the other backend's answer.
                connection.read_body_bytes(1000);
                thread::sleep(Duration::from_millis(1500));
            }
        })],
        &["--request-body-timeout", "300ms"],
    );
    let mut client = house.client();
    let mut stream = client.second_hand();
    let sender = thread::spawn(move || {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n";
        drop(stream.write_all(head.as_bytes()));
        while stream.write_all(&[b'y'; 64 * 1024]).is_ok() {}
    });
    let response = client.read_response("POST");
    assert_eq!(response.status, 504, "{}", response.text());
    assert!(response.text().contains("backend-body-timeout") && response.closes(), "{}", response.text());
    drop(client);
    sender.join().unwrap();
    house.comes_to_rest();
}

#[test]
fn a_response_that_stops_is_cut_in_time() {
    let timeout = Duration::from_millis(300);
    let parts = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nX: until-close\r\n\r\nhello",
    ];
    let rows = parts.into_iter().flat_map(|part| [(part, "1.1"), (part, "1.0")]);
    each_at_once(rows, |(part, version)| {
        let house = House::with(
            [Backend::start(move |connection| {
                if connection.read_request().is_some() {
                    connection.send(part.as_bytes());
                    connection.read_to_end();
                }
            })],
            &["--response-body-timeout", "300ms"],
        );
        let asked = Instant::now();
        let mut client = house.client();
        client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes());
        let cut = client.try_response("GET").expect_err("finished as if it were whole");
        assert!(cut.head.is_some() && b"hello".starts_with(&cut.body), "{}", client.story());
        assert_ne!(cut.end, End::TimedOut, "{}", client.story());
        let only_a_reset_tells = version == "1.0" && !part.contains("Content-Length");
        assert!(!only_a_reset_tells || cut.end == End::Reset, "{:?}: {}", cut.end, client.story());
        assert!(asked.elapsed() >= timeout, "after {:?} already", asked.elapsed());
        drop(client);
        house.comes_to_rest();
    });
}

#[test]
fn a_client_that_takes_nothing_is_left_in_time() {
    let house = House::with([obliging()], &["--response-body-timeout", "300ms"]);
    each(["/length", "/chunks"], |target| {
        let mut client = house.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        eventually(|| house.balancer.counters().in_flight == 1, "the request is under way");
        let left = || house.balancer.counters().connections == 0 && house.backends[0].open() == 0;
        eventually(left, "both connections are closed, though the client is there");
        // What the system still holds for the client is the system's to deliver.
        drop(client);
    });
    house.comes_to_rest();
}

#[test]
fn a_response_that_goes_on_has_all_the_time_it_needs() {
    let longest = Arc::new(AtomicUsize::new(0));
    let house = House::with(
        [Backend::start({
            let longest = Arc::clone(&longest);
            move |connection| {
                connection.read_request();
                connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                let began = Instant::now();
                while began.elapsed() < Duration::from_millis(1300) {
                    let paused = Instant::now();
                    thread::sleep(Duration::from_millis(50));
                    longest.fetch_max(usize::try_from(paused.elapsed().as_millis()).unwrap(), Ordering::SeqCst);
                    connection.send(b"1\r\ny\r\n");
                }
                connection.send(b"0\r\n\r\n");
            }
        })],
        &["--response-body-timeout", "800ms", "--response-head-timeout", "800ms", "--idle-timeout", "800ms"],
    );
    let mut client = house.client();
    client.send(GET.as_bytes());
    let told = client.try_response("GET");
    let longest = longest.load(Ordering::SeqCst);
    if longest > 500 {
        println!("not judged: a pause of {longest} ms");
        return;
    }
    assert!(told.is_ok(), "{}", client.story());
}

// The end of the balancer.

/// A balancer that is being drained in a thread of its own: it has stopped accepting, and knows that it ends.
fn drain(balancer: Balancer, timeout: Duration) -> thread::JoinHandle<bool> {
    let address = balancer.address();
    let draining = thread::spawn(move || balancer.drain(timeout));
    eventually(|| TcpStream::connect(address).is_err(), "new connections are refused");
    draining
}

#[test]
fn a_drain_with_nothing_to_do_is_done() {
    let House { balancer, backends } = House::before([good()]);
    let (address, began) = (balancer.address(), Instant::now());
    assert_eq!(ask(address, GET).0, 200);
    eventually(|| balancer.counters().connections == 0, "the client has left");
    assert!(balancer.drain(Duration::from_secs(60)), "there was nothing to finish");
    assert!(began.elapsed() < Duration::from_secs(30), "it waited {:?} for nobody", began.elapsed());
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    backends[0].wait_until("the spare is closed", |record| record.open == 0);
}

#[test]
fn a_drain_finishes_what_is_in_flight_and_says_that_it_closes() {
    let requests = [GET, POST, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"];
    let gate = Gate::new();
    let House { balancer, backends } = House::before([gated(&gate)]);
    let mut clients: Vec<Client> = requests.iter().map(|_| Client::connect(balancer.address())).collect();
    for (client, request) in clients.iter_mut().zip(requests) {
        // What is behind it is no longer begun.
        client.send(format!("{request}GET /behind HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    }
    backends[0].wait_for_requests(3);
    let draining = drain(balancer, PATIENCE);
    gate.open();
    for client in &mut clients {
        let response = client.read_response("GET");
        assert_eq!(response.text(), "ok", "{}", client.story());
        assert!(response.closes(), "{}", client.story());
        client.expect_closed();
    }
    drop(clients);
    assert!(draining.join().unwrap(), "everything was finished");
    assert!(backends[0].requests().iter().all(|request| request.target != "/behind"));
}

#[test]
fn a_drain_finishes_a_response_that_has_begun() {
    let (begun, gate) = (Gate::new(), Gate::new());
    let House { balancer, backends: _backends } = House::before([Backend::start({
        let (begun, gate) = (begun.clone(), gate.clone());
        move |connection| {
            connection.read_request();
            connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
            begun.open();
            gate.pass();
            connection.send(b"5\r\nworld\r\n0\r\n\r\n");
        }
    })]);
    let mut client = Client::connect(balancer.address());
    client.send(GET.as_bytes());
    client.read_head("GET");
    assert_eq!(client.read_body_bytes(5), b"hello", "{}", client.story());
    begun.pass();
    let draining = drain(balancer, PATIENCE);
    gate.open();
    assert_eq!(client.read_rest().text(), "helloworld", "{}", client.story());
    client.expect_closed();
    drop(client);
    assert!(draining.join().unwrap(), "everything was finished");
}

#[test]
fn a_drain_closes_what_is_idle_soon() {
    let gate = Gate::new();
    let House { balancer, backends } = House::before([good(), gated(&gate)]);
    let mut idle = Client::connect(balancer.address());
    idle.send(GET.as_bytes());
    assert!(!idle.read_response("GET").closes(), "{}", idle.story());
    let mut busy = Client::connect(balancer.address());
    busy.send(GET.as_bytes());
    backends[1].wait_for_requests(1);
    let draining = drain(balancer, PATIENCE);
    // Though the other one is still waiting.
    idle.expect_closed();
    gate.open();
    assert_eq!(busy.read_response("GET").text(), "ok", "{}", busy.story());
    drop(busy);
    assert!(draining.join().unwrap(), "everything was finished");
}

/// A client asks in a drain that waits for whoever was here; `begin`: what it has done before.
fn ask_in_a_patient_drain(begin: impl FnOnce(&mut Client)) {
    let House { balancer, backends: _backends } = House::with([good()], &["--drain-idle", "1h"]);
    let mut client = Client::connect(balancer.address());
    begin(&mut client);
    eventually(|| balancer.counters().parked == 1, "the client is idle, and in no worker's hands");
    let draining = drain(balancer, Duration::from_secs(120));
    client.send(POST.as_bytes());
    let response = client.read_response("POST");
    assert!(response.text() == "ok" && response.closes(), "{}", client.story());
    drop(client);
    assert!(draining.join().unwrap(), "everything was finished");
}

#[test]
fn a_drain_answers_a_request_that_was_on_its_way_over_a_kept_connection() {
    ask_in_a_patient_drain(|client| {
        client.send(POST.as_bytes());
        assert!(!client.read_response("POST").closes(), "{}", client.story());
    });
}

#[test]
fn a_drain_hears_whoever_has_just_connected() {
    ask_in_a_patient_drain(|_| {});
}

#[test]
fn a_drain_that_may_wait_for_nobody_closes_what_is_idle_at_once() {
    let House { balancer, backends: _backends } = House::with([good()], &["--drain-idle", "0s"]);
    let mut client = Client::connect(balancer.address());
    client.send(GET.as_bytes());
    assert!(!client.read_response("GET").closes(), "{}", client.story());
    let draining = drain(balancer, Duration::from_secs(120));
    client.expect_closed();
    assert!(draining.join().unwrap(), "everything was finished");
}

#[test]
fn a_drain_waits_for_idle_clients_no_longer_than_for_half_of_its_time() {
    let House { balancer, backends: _backends } = House::with([good()], &["--drain-idle", "1h"]);
    let mut client = Client::connect(balancer.address());
    client.send(GET.as_bytes());
    assert!(!client.read_response("GET").closes(), "{}", client.story());
    // Else there would be something left to cut.
    assert!(balancer.drain(Duration::from_secs(2)), "an idle client is not unfinished");
    client.expect_closed();
}

#[test]
fn a_drain_does_not_wait_for_those_who_never_speak() {
    let House { balancer, backends: _backends } = House::before([good()]);
    let mut silent = Client::connect(balancer.address());
    eventually(|| balancer.counters().connections == 1, "the client is here");
    let began = Instant::now();
    assert!(balancer.drain(Duration::from_secs(60)), "there was nothing to finish");
    assert!(began.elapsed() < Duration::from_secs(30), "it waited {:?}", began.elapsed());
    silent.expect_closed();
}

#[test]
fn a_drain_ends_when_its_time_does_and_says_so() {
    let timeout = Duration::from_millis(300);
    // Waiting for an answer, in the middle of one, in the middle of a request, and in a tunnel.
    let requests = [
        ("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n", ""),
        ("GET /quiet HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhello", ""),
        ("GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "HTTP/1.1 101"),
    ];
    each_at_once(requests, |(request, heard)| {
        let House { balancer, backends } = House::before([obliging()]);
        let mut client = Client::connect(balancer.address());
        client.send(request.as_bytes());
        backends[0].wait_until("the request is under way", |record| !record.requests.is_empty());
        assert_eq!(client.read_raw(heard.len()), heard.as_bytes());
        let began = Instant::now();
        assert!(!balancer.drain(timeout), "{request:?} was not finished");
        assert!(began.elapsed() >= timeout, "after {:?} already", began.elapsed());
        let (bytes, end) = client.try_to_end();
        let text = String::from_utf8_lossy(&bytes);
        assert_ne!(end, End::TimedOut, "{request:?}");
        if heard.is_empty() {
            assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("shutdown"), "{request:?}: {text:?}");
        }
        assert!(!text.ends_with("0\r\n\r\n"), "finished as if it were whole: {text:?}");
        backends[0].wait_until("the backend is let go", |record| record.open == 0);
    });
}

#[test]
fn a_balancer_that_is_dropped_stops_at_once() {
    let House { balancer, backends } = House::before([patient()]);
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(balancer.address())).collect();
    for client in clients.iter_mut().take(5) {
        client.send(GET.as_bytes());
    }
    backends[0].wait_for_requests(5);
    let began = Instant::now();
    drop(balancer);
    assert!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
    for client in &mut clients {
        assert_ne!(client.try_to_end().1, End::TimedOut, "{}", client.story());
    }
    backends[0].wait_until("the backend is let go", |record| record.open == 0);
}

// No more than so many.

#[test]
fn more_clients_than_there_are_places_wait_and_are_served_in_the_end() {
    let gate = Gate::new();
    let house = House::with([gated(&gate)], &["--max-connections", "2"]);
    let mut first: Vec<Client> = (0..2).map(|_| house.client()).collect();
    for client in &mut first {
        client.send(GET.as_bytes());
    }
    house.backends[0].wait_for_requests(2);
    let mut second: Vec<Client> = (0..3).map(|_| house.client()).collect();
    for client in &mut second {
        client.send(GET.as_bytes());
    }
    assert_eq!(house.balancer.counters().connections, 2);
    gate.open();
    for client in &mut first {
        assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
    }
    // Whoever stays keeps its place; whoever leaves frees it.
    drop(first);
    for mut client in second {
        assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
        assert!(house.balancer.counters().connections <= 2);
    }
    house.comes_to_rest();
}

#[test]
fn there_are_never_more_clients_than_places() {
    let (at_once_now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let backend = Backend::start({
        let (at_once_now, most) = (Arc::clone(&at_once_now), Arc::clone(&most));
        move |connection| {
            while connection.read_request().is_some() {
                most.fetch_max(at_once_now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(2));
                at_once_now.fetch_sub(1, Ordering::SeqCst);
                connection.send(OK.as_bytes());
            }
        }
    });
    let house = House::with([backend], &["--max-connections", "5", "--workers", "4"]);
    let address = house.balancer.address();
    at_once(20, move |_nth| {
        for _request in 0..5 {
            assert_eq!(ask(address, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").0, 200);
        }
    });
    assert_eq!(house.all_asked(), 100);
    assert!(most.load(Ordering::SeqCst) <= 5, "{} at once", most.load(Ordering::SeqCst));
    house.comes_to_rest();
}

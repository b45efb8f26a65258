//! Weights, policies, backups, retries and limits: who gets how much, and who gets nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use std::io::{ErrorKind, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::{Backend, Client, Gate, TempFile, balancer, eventually};
use threadbare::{Balancer, Config};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn good() -> Backend {
    Backend::answering(OK)
}

/// A balancer with this file: `{n}` stands for the nth backend's URL.
fn configured(text: &str, backends: &[&Backend]) -> Balancer {
    let mut text = text.to_owned();
    for (nth, backend) in backends.iter().enumerate() {
        text = text.replace(&format!("{{{nth}}}"), &backend.url());
    }
    let file = TempFile::new(&text);
    let config = Config::from_args(["--listen", "127.0.0.1:0", "--access-log", "off", "--config", file.path()]);
    Balancer::start(config.unwrap_or_else(|error| panic!("{text}: {error}"))).unwrap()
}

fn ask(balancer: &Balancer, request: &str) -> support::Response {
    let mut client = Client::connect(balancer.address());
    client.send(request.as_bytes());
    client.read_response(request.split(' ').next().unwrap())
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn asked(backends: &[&Backend]) -> Vec<usize> {
    backends.iter().map(|backend| backend.requests().len()).collect()
}

#[test]
fn a_backend_of_weight_three_gets_exactly_three_times_as_much() {
    let (heavy, light) = (good(), good());
    let balancer =
        configured("[[backend]]\nurl = \"{0}\"\nweight = 3\n[[backend]]\nurl = \"{1}\"\n", &[&heavy, &light]);
    for _ in 0..40 {
        assert_eq!(ask(&balancer, GET).status, 200);
    }
    assert_eq!(asked(&[&heavy, &light]), [30, 10]);
}

#[test]
fn a_backend_that_drains_gets_nothing_new_and_a_backup_only_what_nobody_else_can_take() {
    let (drained, first, backup) = (good(), Backend::refusing(), good());
    let text = "[[backend]]\nurl = \"{0}\"\nstate = \"drain\"\n[[backend]]\nurl = \"{1}\"\n[[backend]]\nurl = \"{2}\"\n\
                backup = true\n";
    let balancer = configured(text, &[&drained, &first, &backup]);
    for _ in 0..10 {
        assert_eq!(ask(&balancer, GET).status, 200);
    }
    assert_eq!(asked(&[&drained, &backup]), [0, 10]);

    // Not even from a client whose cookie names it.
    let (drained, other) = (good(), good());
    let text = "[[backend]]\nurl = \"{0}\"\nname = \"a\"\nstate = \"drain\"\n[[backend]]\nurl = \"{1}\"\n\
                [balance]\nsticky_cookie = \"tie\"\n";
    let balancer = configured(text, &[&drained, &other]);
    let cookie =
        String::from_utf8(threadbare::balance::Sticky::of(0x7468_7265_6164_6261, "a").digits().to_vec()).unwrap();
    let answer = ask(&balancer, &format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: tie={cookie}\r\n\r\n"));
    assert!(answer.head.get("Set-Cookie").is_some(), "it is tied anew");
    assert_eq!(asked(&[&drained, &other]), [0, 1]);

    let (first, backup) = (good(), good());
    let text = "[[backend]]\nurl = \"{0}\"\n[[backend]]\nurl = \"{1}\"\nbackup = true\n";
    let balancer = configured(text, &[&first, &backup]);
    for _ in 0..10 {
        assert_eq!(ask(&balancer, GET).status, 200);
    }
    assert_eq!(asked(&[&first, &backup]), [10, 0]);
}

#[test]
fn backups_have_turns_as_often_as_their_weights_say() {
    let (drained, heavy, light) = (good(), good(), good());
    let text = "[[backend]]\nurl = \"{0}\"\nstate = \"drain\"\n[[backend]]\nurl = \"{1}\"\nbackup = true\nweight = 3\n\
                [[backend]]\nurl = \"{2}\"\nbackup = true\n";
    let balancer = configured(text, &[&drained, &heavy, &light]);
    for _ in 0..40 {
        assert_eq!(ask(&balancer, GET).status, 200);
    }
    assert_eq!(asked(&[&drained, &heavy, &light]), [0, 30, 10]);
    // Where load is looked at, too: while nothing is in flight, equals take turns.
    let (drained, one, other) = (good(), good(), good());
    let text = text.replace("weight = 3\n", "") + "[balance]\npolicy = \"least_in_flight\"\n";
    let balancer = configured(&text, &[&drained, &one, &other]);
    for _ in 0..40 {
        assert_eq!(ask(&balancer, GET).status, 200);
        eventually(|| balancer.counters().in_flight == 0, "it is over");
    }
    assert_eq!(asked(&[&drained, &one, &other]), [0, 20, 20]);
}

#[test]
fn where_load_is_looked_at_a_busy_backend_is_spared() {
    for policy in ["least_in_flight", "two_choices"] {
        let gate = Gate::new();
        let busy = {
            let gate = gate.clone();
            Backend::start(move |connection| {
                while connection.read_request().is_some() {
                    gate.pass();
                    connection.send(OK.as_bytes());
                }
            })
        };
        let idle = good();
        let balancer = balancer(&[&busy.url(), &idle.url()], &["--policy", policy]);
        let mut waiting = Vec::new();
        while busy.requests().is_empty() {
            let mut client = Client::connect(balancer.address());
            client.send(GET.as_bytes());
            waiting.push(client);
            eventually(|| busy.requests().len() + idle.requests().len() >= waiting.len(), "it has been passed on");
        }
        eventually(|| balancer.counters().in_flight == 1, "only the one at the busy backend waits");
        for _ in 0..30 {
            assert_eq!(ask(&balancer, GET).status, 200);
            eventually(|| balancer.counters().in_flight == 1, "it is over");
        }
        assert_eq!(busy.requests().len(), 1, "{policy}: nobody is sent to wait behind another");
        gate.open();
        for client in &mut waiting {
            assert_eq!(client.read_response("GET").status, 200);
        }
    }
}

#[test]
fn the_time_that_a_client_takes_over_its_body_is_not_the_backends_latency() {
    // The answer to the whole request; the answer to a part of it, for which the client let the backend wait as well.
    for target in ["/whole", "/early"] {
        let fast = Backend::start(|connection| {
            while let Some(head) = connection.read_head() {
                if head.start.contains("/early") {
                    connection.read_body_bytes(2);
                    connection.send(OK.as_bytes());
                    connection.read_rest();
                } else {
                    connection.read_rest();
                    connection.send(OK.as_bytes());
                }
            }
        });
        let slow = Backend::start(|connection| {
            while connection.read_request().is_some() {
                thread::sleep(Duration::from_millis(400)); // the backend's slowness, not a wait
                connection.send(OK.as_bytes());
            }
        });
        let balancer = balancer(&[&fast.url(), &slow.url()], &["--policy", "peak_ewma"]);
        for _ in 0..2 {
            assert_eq!(ask(&balancer, GET).status, 200);
        }
        assert_eq!(asked(&[&fast, &slow]), [1, 1], "both are known now");
        let mut client = Client::connect(balancer.address());
        client.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes());
        client.send(b"1\r\na\r\n");
        thread::sleep(Duration::from_millis(1200)); // the client's slowness, not a wait
        client.send(b"1\r\nb\r\n");
        if target == "/early" {
            assert_eq!(client.read_response("POST").status, 200);
            client.send(b"0\r\n\r\n");
        } else {
            client.send(b"0\r\n\r\n");
            assert_eq!(client.read_response("POST").status, 200);
        }
        eventually(|| balancer.counters().in_flight == 0, "it is over");
        assert_eq!(ask(&balancer, GET).status, 200);
        let heads = |backend: &Backend| backend.requests().len();
        assert_eq!((heads(&fast), heads(&slow)), (3, 1), "{target}: whoever was fast is fast");
    }
}

#[test]
fn how_long_a_backend_takes_is_told_by_the_head_of_its_answer_and_not_by_what_it_says_before() {
    let hinting = Backend::start(|connection| {
        while connection.read_request().is_some() {
            connection.send(b"HTTP/1.1 103 Early Hints\r\n\r\n");
            thread::sleep(Duration::from_millis(1500)); // the backend's slowness, not a wait
            connection.send(OK.as_bytes());
        }
    });
    let slow = Backend::start(|connection| {
        while connection.read_request().is_some() {
            thread::sleep(Duration::from_millis(200)); // the backend's slowness, not a wait
            connection.send(b"HTTP/1.1 103 Early Hints\r\n\r\n");
            connection.send(OK.as_bytes());
        }
    });
    let balancer = balancer(&[&hinting.url(), &slow.url()], &["--policy", "peak_ewma"]);
    let mut client = Client::connect(balancer.address());
    let mut ask = || {
        client.send(GET.as_bytes());
        assert_eq!(client.read_interim().status, 103);
        assert_eq!(client.read_response("GET").status, 200);
        eventually(|| balancer.counters().in_flight == 0, "it is over");
        asked(&[&hinting, &slow])
    };
    ask();
    assert_eq!(ask(), [1, 1], "both are known now");
    assert_eq!(ask(), [1, 2], "whoever answers sooner is asked again");
}

#[test]
fn how_long_a_backend_takes_is_known_where_it_asks_for_the_body_first() {
    let asking = |millis| {
        Backend::start(move |connection| {
            while connection.read_head().is_some() {
                connection.send(b"HTTP/1.1 100 Continue\r\n\r\n");
                connection.read_rest();
                thread::sleep(Duration::from_millis(millis)); // the backend's slowness, not a wait
                connection.send(OK.as_bytes());
            }
        })
    };
    let (quick, slow) = (asking(50), asking(1000));
    let balancer = balancer(&[&quick.url(), &slow.url()], &["--policy", "peak_ewma"]);
    let mut client = Client::connect(balancer.address());
    for nth in 1..=6 {
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
        assert_eq!(client.read_interim().status, 100);
        client.send(b"a");
        assert_eq!(client.read_response("POST").status, 200);
        eventually(|| balancer.counters().in_flight == 0, "it is over");
        if nth == 2 {
            assert_eq!(asked(&[&quick, &slow]), [1, 1], "both are known now");
        }
    }
    assert_eq!(asked(&[&quick, &slow]), [5, 1], "whoever answers sooner is asked again");
}

#[test]
fn what_comes_behind_a_body_that_is_too_large_is_the_next_request() {
    // In one piece, so that the end of the body and what follows are read at once.
    let head = &b"POST /big HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
    let big = [head, b"7d0\r\n", &[b'x'; 2000], b"\r\n0\r\n\r\n"].concat();
    for behind in [GET, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"] {
        let backend = Backend::start(|connection| {
            while let Some(head) = connection.read_head() {
                connection.read_rest();
                if head.start.contains("/big") || !connection.send(OK.as_bytes()) {
                    break;
                }
            }
        });
        let balancer = balancer(&[&backend.url()], &["--max-body", "1000"]);
        let mut client = Client::connect(balancer.address());
        client.send(&[&big[..], behind.as_bytes()].concat());
        assert_eq!(client.read_response("POST").status, 413, "{}", client.story());
        assert_eq!(client.read_response("POST").status, 200, "{}", client.story());
    }
}

#[test]
fn a_status_that_is_to_be_retried_is_asked_for_elsewhere_if_nothing_can_be_done_twice_by_it() {
    let sick = || Backend::answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nsick");
    let rows: &[(&str, u16)] = &[
        (GET, 200),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 503),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 503),
        ("PATCH / HTTP/1.1\r\nHost: a\r\n\r\n", 503),
    ];
    for (request, status) in rows {
        let (sick, sound) = (sick(), good());
        let balancer = balancer(&[&sick.url(), &sound.url()], &["--retry-status", "503"]);
        assert_eq!(ask(&balancer, request).status, *status, "{request}");
        assert_eq!(asked(&[&sick, &sound]), [1, usize::from(*status == 200)], "{request}");
    }
    // Without the wish, and where nobody else is left, the answer passes as it is.
    let (one, other) = (sick(), sick());
    let balancer_without = balancer(&[&one.url(), &other.url()], &[]);
    assert_eq!(ask(&balancer_without, GET).text(), "sick");
    assert_eq!(asked(&[&one, &other]), [1, 0]);
    let balancer = balancer(&[&one.url(), &other.url()], &["--retry-status", "503"]);
    assert_eq!(ask(&balancer, GET).text(), "sick");
    assert_eq!(asked(&[&one, &other]), [2, 1], "each of them once more");
}

#[test]
fn repetitions_have_a_budget() {
    let resetting = || {
        Backend::start(|connection| {
            connection.read_request();
            connection.reset();
        })
    };
    let backends = [resetting(), resetting(), resetting()];
    let urls = backends.each_ref().map(Backend::url);
    let flags = ["--retry-budget", "10", "--retry-budget-floor", "0", "--passive-health", "off"];
    let balancer = balancer(&[&urls[0], &urls[1], &urls[2]], &flags);
    for _ in 0..200 {
        assert_eq!(ask(&balancer, GET).status, 502);
    }
    let tries: usize = backends.iter().map(|backend| backend.requests().len()).sum();
    // The bucket holds ten at the start, and each request adds a tenth.
    assert!((200..=231).contains(&tries), "{tries} tries for 200 requests");
}

#[test]
fn a_body_beyond_its_limit_is_refused_however_it_is_framed() {
    let backend = Backend::echo();
    let balancer = balancer(&[&backend.url()], &["--max-body", "10"]);
    let answer = ask(&balancer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789");
    assert_eq!(answer.status, 200);
    let answer = ask(&balancer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n01234567890");
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(answer.text().contains("body-too-large") && answer.closes(), "{answer:?}");
    assert_eq!(backend.requests().len(), 1, "it never reached a backend");
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(ask(&balancer, &format!("{chunked}a\r\n0123456789\r\n0\r\n\r\n")).status, 200);
    let answer = ask(&balancer, &format!("{chunked}6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n"));
    assert_eq!(answer.status, 413, "{answer:?}");
    let whole = backend.requests().into_iter().filter(|request| request.whole).count();
    assert_eq!(whole, 2, "what is too large never reaches a backend as a whole");
}

/// A balancer for which a client's rate counts after a tenth of a second, and must be this.
fn hurried(backend: &Backend, lowest_rate: u64, more: &[&str]) -> Balancer {
    let url = backend.url();
    let flags = ["--listen", "127.0.0.1:0", "--access-log", "off", "--backend", &url];
    let mut config = Config::from_args(flags.iter().chain(more).copied()).unwrap();
    config.load.lowest_rate = lowest_rate;
    config.load.rate_grace = Duration::from_millis(100);
    Balancer::start(config).unwrap()
}

#[test]
fn a_client_that_sends_its_body_too_slowly_is_told_however_often_a_byte_comes() {
    for (lowest_rate, status) in [(10_000, 408), (0, 200)] {
        let backend = Backend::echo();
        let balancer = hurried(&backend, lowest_rate, &[]);
        let mut client = Client::connect(balancer.address());
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let begun = Instant::now();
        // No silence is longer than any timeout, and all in all it is a hundredth of the lowest rate.
        while balancer.counters().exchanges == 0 && (status == 408 || begun.elapsed() < Duration::from_millis(400)) {
            assert!(begun.elapsed() < support::PATIENCE, "it is not cut");
            client.try_send(b"1\r\nx\r\n");
            thread::sleep(Duration::from_millis(10)); // the client's slowness, not a wait
        }
        client.try_send(b"0\r\n\r\n");
        let answer = client.read_response("POST");
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.text().contains("client-too-slow"), status == 408, "{answer:?}");
    }
}

#[test]
fn a_client_that_waits_for_a_100_is_not_slow_its_backend_is() {
    for hint in ["", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let backend = Backend::start(move |connection| {
            connection.read_head();
            connection.send(hint.as_bytes());
            connection.read_to_end();
        });
        let balancer = hurried(&backend, 10_000, &["--request-body-timeout", "1s"]);
        let mut client = Client::connect(balancer.address());
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n");
        if !hint.is_empty() {
            assert_eq!(client.read_interim().status, 103);
        }
        let answer = client.read_response("POST");
        assert!(answer.status == 504 && answer.text().contains("backend-body-timeout"), "{answer:?}");
    }
}

#[test]
fn a_client_that_takes_its_answer_too_slowly_is_cut_off() {
    let backend = Backend::start(|connection| {
        if connection.read_request().is_some() {
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
            while connection.send(&[b'x'; 100_000]) {}
        }
    });
    // What the kernel keeps for a client has been taken, as far as anybody can tell: so it must be a lot.
    let balancer = hurried(&backend, 900_000_000, &[]);
    let mut client = Client::connect(balancer.address());
    client.send(GET.as_bytes());
    client.read_head("GET");
    let (mut hand, mut piece) = (client.second_hand(), vec![0; 50_000]);
    let end = loop {
        match hand.read(&mut piece) {
            Ok(0) => panic!("it ends as if it were whole"),
            Ok(_) => thread::sleep(Duration::from_millis(10)), // the client's slowness, not a wait
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(end, ErrorKind::ConnectionReset);
}

#[test]
fn a_backend_that_is_slow_costs_its_client_nothing() {
    let backend = Backend::start(|connection| {
        while connection.read_request().is_some() {
            connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for _ in 0..30 {
                thread::sleep(Duration::from_millis(10)); // the backend's slowness, not a wait
                connection.send(b"1\r\nx\r\n");
            }
            connection.send(b"0\r\n\r\n");
        }
    });
    let balancer = hurried(&backend, 900_000_000, &[]);
    assert_eq!(ask(&balancer, GET).body.len(), 30);
}

#[test]
fn beyond_the_cap_everybody_is_told_at_once() {
    let gate = Gate::new();
    let held = {
        let gate = gate.clone();
        Backend::start(move |connection| {
            while connection.read_request().is_some() {
                gate.pass();
                connection.send(OK.as_bytes());
            }
        })
    };
    let balancer = balancer(&[&held.url()], &["--max-exchanges", "3"]);
    let mut waiting: Vec<Client> = (0..3).map(|_| Client::connect(balancer.address())).collect();
    for client in &mut waiting {
        client.send(GET.as_bytes());
    }
    held.wait_for_requests(3);
    let mut late = Client::connect(balancer.address());
    late.send(GET.as_bytes());
    let answer = late.read_response("GET");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.text().contains("overloaded") && answer.head.get("Retry-After").is_some(), "{answer:?}");
    gate.open();
    for client in &mut waiting {
        assert_eq!(client.read_response("GET").status, 200);
    }
    late.send(GET.as_bytes());
    assert_eq!(late.read_response("GET").status, 200, "over the same connection, once there is room");
}

#[test]
fn a_backend_whose_checks_fail_gets_nothing_and_is_believed() {
    let status = std::sync::Arc::new(AtomicUsize::new(500));
    let checked = {
        let status = std::sync::Arc::clone(&status);
        Backend::start(move |connection| {
            while let Some(request) = connection.read_request() {
                let status = if request.target == "/healthz" { status.load(Ordering::SeqCst) } else { 200 };
                connection.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok").as_bytes());
            }
        })
    };
    let flags = ["--health-path", "/healthz", "--health-interval", "20ms", "--health-fall", "2", "--slow-start", "0s"];
    let balancer = balancer(&[&checked.url()], &flags);
    eventually(|| ask(&balancer, GET).status == 503, "its checks fail, so there is no backend");
    status.store(200, Ordering::SeqCst);
    eventually(|| ask(&balancer, GET).status == 200, "it is back");
}

#[test]
fn a_backend_that_comes_back_begins_with_a_tenth_of_its_turns() {
    let status = std::sync::Arc::new(AtomicUsize::new(500));
    let back = {
        let status = std::sync::Arc::clone(&status);
        Backend::start(move |connection| {
            while let Some(request) = connection.read_request() {
                let status = if request.target == "/healthz" { status.load(Ordering::SeqCst) } else { 200 };
                connection.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok").as_bytes());
            }
        })
    };
    let other = good();
    let flags = ["--health-path", "/healthz", "--health-interval", "20ms", "--health-fall", "1", "--slow-start", "1h"];
    let balancer = balancer(&[&back.url(), &other.url()], &flags);
    let asked = || back.requests().iter().filter(|request| request.target == "/").count();
    let gains = |requests: usize| {
        let before = asked();
        (0..requests).for_each(|_| assert_eq!(ask(&balancer, GET).status, 200));
        asked() - before
    };
    eventually(|| gains(4) == 0, "it is out");
    status.store(200, Ordering::SeqCst);
    eventually(|| gains(4) > 0, "it is back");
    // A hundred turns are its own; what it gives away does not come back to it.
    let gained = gains(200);
    assert!((5..=15).contains(&gained), "{gained} of 200");
}

#[test]
fn a_client_comes_back_to_its_backend_by_its_cookie_and_to_another_if_that_is_out() {
    let named =
        |name: &str| Backend::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()));
    let mut backends = vec![named("a"), named("b"), named("c")];
    let urls: Vec<String> = backends.iter().map(Backend::url).collect();
    let balancer = balancer(&[&urls[0], &urls[1], &urls[2]], &["--sticky-cookie", "tie"]);
    let mut tied = String::new();
    for _ in 0..3 {
        let first = ask(&balancer, GET);
        let cookie = first.head.get("Set-Cookie").unwrap().to_owned();
        let (pair, attributes) = cookie.split_once(';').unwrap();
        assert!(
            pair.starts_with("tie=") && attributes.contains("HttpOnly") && attributes.contains("Path=/"),
            "{cookie}"
        );
        for backend in &backends {
            let port = backend.address().port().to_string();
            assert!(!cookie.contains(&port), "{cookie} tells where the backend is");
        }
        for _ in 0..5 {
            let again = ask(&balancer, &format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; {pair}\r\n\r\n"));
            assert_eq!(again.text(), first.text());
            assert_eq!(again.head.get("Set-Cookie"), None, "it has it already");
        }
        tied = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {pair}\r\n\r\n");
    }
    drop(backends.pop()); // the third client's
    for _ in 0..10 {
        let elsewhere = ask(&balancer, &tied);
        assert!(["a", "b"].contains(&&*elsewhere.text()), "{elsewhere:?}");
        assert!(elsewhere.head.get("Set-Cookie").is_some(), "it is tied anew");
    }
    let unknown = ask(&balancer, "GET / HTTP/1.1\r\nHost: a\r\nCookie: tie=0123456789abcdef\r\n\r\n");
    assert_eq!(unknown.status, 200);
    assert!(unknown.head.get("Set-Cookie").is_some(), "a cookie that names nobody is replaced");
}

#[test]
fn the_same_key_goes_to_the_same_backend() {
    let backends = [good(), good(), good()];
    let urls = backends.each_ref().map(Backend::url);
    for (key, requests) in [
        ("client", ["GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"]),
        ("path", ["GET /same?1 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /same?2 HTTP/1.1\r\nHost: a\r\n\r\n"]),
        (
            "header:User",
            ["GET /1 HTTP/1.1\r\nHost: a\r\nuser: x\r\n\r\n", "GET /2 HTTP/1.1\r\nHost: a\r\nUser: x\r\n\r\n"],
        ),
        (
            "cookie:id",
            [
                "GET /1 HTTP/1.1\r\nHost: a\r\nCookie: id=x\r\n\r\n",
                "GET /2 HTTP/1.1\r\nHost: a\r\nCookie: y=z; id=x\r\n\r\n",
            ],
        ),
        ("query:q", ["GET /1?q=x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /2?p=y&q=x HTTP/1.1\r\nHost: a\r\n\r\n"]),
    ] {
        let balancer = balancer(&[&urls[0], &urls[1], &urls[2]], &["--policy", "hash", "--hash-key", key]);
        let before = asked(&backends.each_ref());
        for request in requests.iter().cycle().take(6) {
            assert_eq!(ask(&balancer, request).status, 200);
            eventually(|| balancer.counters().in_flight == 0, "it is over");
        }
        let after = asked(&backends.each_ref());
        let gained: Vec<usize> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
        assert!(gained.contains(&6), "{key}: {gained:?}");
    }
}

/// What a listener behind a proxy gets, so that a client may have any address.
const BEHIND_A_PROXY: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.0/8\"]\n";

fn settings(text: &str, backend: &Backend) -> Config {
    let file = TempFile::new(text);
    let config = Config::from_args(["--access-log", "off", "--config", file.path(), &backend.url()]);
    config.unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Its connection, once the proxy has said whose it is.
fn connect_from(balancer: &Balancer, address: &str) -> Client {
    let mut client = Client::connect(balancer.address());
    let family = if address.contains(':') { "TCP6 {} ::" } else { "TCP4 {} 0.0.0.0" };
    client.send(format!("PROXY {} 1 2\r\n", family.replace("{}", address)).as_bytes());
    client
}

fn is_served(client: &mut Client) -> bool {
    client.try_send(GET.as_bytes());
    match client.try_response("GET") {
        Ok(response) => {
            assert_eq!(response.status, 200, "{response:?}");
            true
        }
        Err(cut) => {
            assert!(cut.head.is_none() && cut.end != support::End::TimedOut, "{cut:?}");
            false
        }
    }
}

#[test]
fn an_address_that_has_as_many_connections_as_it_may_gets_no_other_and_no_answer() {
    let backend = good();
    let balancer = balancer(&[&backend.url()], &["--connections-per-address", "2"]);
    // They count from the beginning, whether they ask or not.
    let mut clients = [Client::connect(balancer.address()), Client::connect(balancer.address())];
    for _ in 0..20 {
        let (bytes, end) = Client::connect(balancer.address()).try_to_end();
        assert!(bytes.is_empty() && end == support::End::Closed, "{end:?} after {bytes:?}");
    }
    assert!(clients.iter_mut().all(is_served), "those that are there notice nothing");
    let [first, second] = clients;
    first.abort();
    eventually(|| is_served(&mut Client::connect(balancer.address())), "one has left, and another may come");
    drop(second);
    eventually(|| balancer.counters().connections == 0, "all have left");
}

#[test]
fn a_connection_counts_no_longer_than_it_lasts_however_it_ends() {
    const MOST: usize = 5;
    let backend = Backend::start(|connection| {
        while let Some(request) = connection.read_request() {
            match &*request.target {
                "/tunnel" => {
                    connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
                    connection.read_to_end();
                }
                "/cut" => {
                    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                    return;
                }
                "/reset" => return connection.reset(),
                _ => {
                    connection.send(OK.as_bytes());
                }
            }
        }
    });
    let most = MOST.to_string();
    let flags = ["--connections-per-address", &most, "--first-byte-timeout", "500ms", "--head-timeout", "500ms"];
    let balancer = balancer(&[&backend.url()], &flags);
    let tunnel = "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    // What a client says, whether it waits for what comes, and whether it leaves with a reset.
    let rows = [
        ("", false, false),
        ("", false, true),
        ("", true, false),
        ("GET / HT", false, true),
        ("GET / HT", true, false),
        ("nonsense\n\n", true, false),
        (GET, false, true),
        (GET, false, false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true, false),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", false, true),
        ("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n", true, false),
        ("POST /reset HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", true, false),
        (tunnel, false, true),
        (tunnel, false, false),
    ];
    for (bytes, waits, resets) in rows {
        let clients: Vec<Client> = (0..MOST)
            .map(|_| {
                let mut client = Client::connect(balancer.address());
                client.send(bytes.as_bytes());
                client
            })
            .collect();
        for mut client in clients {
            if bytes == tunnel {
                assert_eq!(client.read_head("GET").start, "HTTP/1.1 101 Switching Protocols");
            }
            if waits {
                let (_, end) = client.try_to_end();
                assert_ne!(end, support::End::TimedOut, "{}", client.story());
            }
            if resets {
                client.abort();
            }
        }
        let is_room = || {
            let mut clients: Vec<Client> = (0..MOST).map(|_| Client::connect(balancer.address())).collect();
            clients.iter_mut().all(is_served)
        };
        eventually(is_room, &format!("after {bytes:?} there is room for all again"));
        eventually(|| balancer.counters().connections == 0, "all have left");
    }
}

#[test]
fn behind_a_proxy_it_is_the_clients_address_that_counts() {
    let backend = good();
    let text = format!("{BEHIND_A_PROXY}[load]\nconnections_per_address = 1\n");
    let balancer = Balancer::start(settings(&text, &backend)).unwrap();
    let mut first = ["192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1"].map(|address| {
        let mut client = connect_from(&balancer, address);
        assert!(is_served(&mut client), "{address}");
        client
    });
    for address in ["192.0.2.1", "::ffff:192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2:ffff:ffff:ffff:ffff"] {
        assert!(!is_served(&mut connect_from(&balancer, address)), "{address}");
    }
    // The proxy's own connections count as its own.
    let mut unknown = Client::connect(balancer.address());
    unknown.send(b"PROXY UNKNOWN\r\n");
    assert!(is_served(&mut unknown) && first.iter_mut().all(is_served));
    let mut unknown = Client::connect(balancer.address());
    unknown.send(b"PROXY UNKNOWN\r\n");
    assert!(!is_served(&mut unknown));
}

#[test]
fn an_address_that_asks_too_often_is_told_when_to_come_again() {
    let backend = good();
    let text = format!("{BEHIND_A_PROXY}[load]\nrequests_per_address = 1\nrequest_burst_per_address = 3\n");
    let balancer = Balancer::start(settings(&text, &backend)).unwrap();
    let mut client = connect_from(&balancer, "2001:db8::1");
    let began = std::time::Instant::now();
    client.send(GET.repeat(40).as_bytes());
    let answers: Vec<support::Response> = (0..40).map(|_| client.read_response("GET")).collect();
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    let most = 4 + usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!((3..=most).contains(&passed), "{passed} passed");
    assert!(answers[..3].iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(backend.requests().len(), passed, "the others reached nobody");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert!(answer.status == 429 && answer.text().contains("429 too-many-requests"), "{answer:?}");
        assert!(answer.reason == "Too Many Requests" && !answer.closes(), "{answer:?}");
        assert_eq!(answer.head.get("Retry-After"), Some("1"), "{answer:?}");
    }
    assert_eq!(answers.iter().filter(|answer| answer.status == 429).count(), 40 - passed);
    // Its neighbour in the same network is the same client; whoever lives elsewhere is not.
    client = connect_from(&balancer, "2001:db8::2");
    client.send(GET.repeat(10).as_bytes());
    assert!((0..10).any(|_| client.read_response("GET").status == 429));
    assert!(is_served(&mut connect_from(&balancer, "2001:db8:1::1")));
    eventually(|| ask_from(&balancer, "2001:db8::1") == 200, "after a second it is its turn again");
    eventually(|| balancer.counters().in_flight == 0, "refused requests are counted out");
}

fn ask_from(balancer: &Balancer, address: &str) -> u16 {
    let mut client = connect_from(balancer, address);
    client.send(GET.as_bytes());
    client.read_response("GET").status
}

#[test]
fn the_body_of_a_request_too_many_is_never_parsed_as_a_request() {
    let backend = good();
    let balancer = balancer(&[&backend.url()], &["--requests-per-address", "1"]);
    let upload = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{GET}", GET.len());
    let refused = || {
        let mut client = Client::connect(balancer.address());
        client.send(upload.as_bytes());
        let answer = client.read_response("POST");
        let is_refused = answer.status == 429;
        if is_refused {
            assert!(answer.closes(), "{answer:?}");
            client.expect_closed();
        }
        is_refused
    };
    eventually(refused, "one of them is one too many");
    assert!(backend.requests().iter().all(|request| request.method == "POST"));
}

#[test]
fn proxies_that_are_trusted_are_many_clients_and_not_limited() {
    let backend = good();
    let flags = ["--connections-per-address", "1", "--requests-per-address", "1", "--trusted-proxy", "127.0.0.1"];
    let balancer = balancer(&[&backend.url()], &flags);
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(balancer.address())).collect();
    assert!(clients.iter_mut().all(is_served));
}

#[test]
fn a_reload_changes_what_an_address_may_and_drops_nobody() {
    let backend = good();
    let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\n[load]\n";
    let set = |load: &str| settings(&format!("{listener}{load}"), &backend);
    let balancer = Balancer::start(set("connections_per_address = 1")).unwrap();
    let connect = || Client::connect(balancer.address());
    let mut clients = vec![connect()];
    assert!(is_served(&mut clients[0]) && !is_served(&mut connect()));
    balancer.reload(set("connections_per_address = 2")).unwrap();
    clients.push(connect());
    assert!(clients.iter_mut().all(is_served) && !is_served(&mut connect()));
    balancer.reload(set("connections_per_address = 1")).unwrap();
    assert!(clients.iter_mut().all(is_served), "who is there stays");
    assert!(!is_served(&mut connect()));
    balancer.reload(set("")).unwrap();
    clients.extend([connect(), connect()]);
    assert!(clients.iter_mut().all(is_served));
    // Those that came while there was no limit are not counted, the two before them are.
    balancer.reload(set("connections_per_address = 3")).unwrap();
    clients.push(connect());
    assert!(clients.iter_mut().all(is_served) && !is_served(&mut connect()));

    balancer.reload(set("requests_per_address = 1")).unwrap();
    let mut statuses = Vec::new();
    for _ in 0..20 {
        clients[0].send(GET.as_bytes());
        statuses.push(clients[0].read_response("GET").status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    balancer.reload(set("requests_per_address = 1000000")).unwrap();
    assert!(clients.iter_mut().all(is_served), "a connection that was open before");
}

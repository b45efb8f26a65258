//! The demonstration's own backends: slow, failing, dead and well again, as they are told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use support::{Client, End, Response, balancer, each, eventually};
use threadbare::demo::DemoBackend;

/// Two of them, on ports of the system's choosing, each with its name for a balancer.
fn two() -> [(SocketAddr, String); 2] {
    let backends = DemoBackend::bind(&[0, 0]).unwrap_or_else(|(address, error)| panic!("{address}: {error}"));
    let backends = backends.into_iter().map(|backend| {
        let place = (backend.address(), backend.url());
        backend.serve().unwrap();
        place
    });
    backends.collect::<Vec<_>>().try_into().unwrap()
}

fn ask(client: &mut Client, method: &str, target: &str) -> Response {
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    client.read_response(method)
}

fn ask_at(address: SocketAddr, method: &str, target: &str) -> Response {
    ask(&mut Client::connect(address), method, target)
}

fn own(address: SocketAddr) -> String {
    format!("/b{}", address.port())
}

#[test]
fn told_to_be_slow_it_takes_its_time_until_it_is_told_otherwise() {
    let [(slow, _), (other, _)] = two();
    let said = ask_at(slow, "POST", "/demo/slow?ms=300");
    assert!(said.status == 200 && said.text().contains("300 ms"), "{said:?}");
    let begin = Instant::now();
    assert_eq!(ask_at(slow, "GET", &own(slow)).status, 200);
    assert!(begin.elapsed() >= Duration::from_millis(300), "it took {:?}", begin.elapsed());
    assert_eq!(ask_at(slow, "POST", "/demo/slow?ms=60000").status, 200);
    assert_eq!(ask_at(slow, "POST", "/demo/well").status, 200, "a command does not wait");
    // A minute would be longer than anything here is waited for.
    assert_eq!(ask_at(slow, "GET", &own(slow)).status, 200);
    assert_eq!(ask_at(other, "GET", &own(other)).status, 200);
}

#[test]
fn told_to_fail_it_answers_everything_with_500_on_the_same_connection() {
    let [(failing, _), _] = two();
    let mut client = Client::connect(failing);
    assert_eq!(ask(&mut client, "GET", &own(failing)).status, 200);
    assert_eq!(ask_at(failing, "POST", "/demo/fail").status, 200);
    let answer = ask(&mut client, "GET", &own(failing));
    assert!(answer.status == 500 && answer.text().contains("as told"), "{answer:?}");
    assert_eq!(ask_at(failing, "POST", "/demo/well").status, 200);
    assert_eq!(ask(&mut client, "GET", &own(failing)).status, 200);
}

#[test]
fn told_to_die_it_says_so_cuts_what_is_open_and_refuses_until_its_time_is_over() {
    let [(dead, _), _] = two();
    let mut kept = Client::connect(dead);
    assert_eq!(ask(&mut kept, "GET", &own(dead)).status, 200);
    let begin = Instant::now();
    let said = ask_at(dead, "POST", "/demo/die?s=1");
    assert!(said.status == 200 && said.text().contains("refuses connections for 1 s"), "{said:?}");
    eventually(|| TcpStream::connect(dead).is_err(), "it refuses connections");
    let (_, end) = kept.try_to_end();
    assert!(matches!(end, End::Closed | End::Reset), "{end:?}");
    eventually(|| TcpStream::connect(dead).is_ok(), "it is back");
    assert!(begin.elapsed() >= Duration::from_millis(900), "it was back after {:?}", begin.elapsed());
    assert_eq!(ask_at(dead, "GET", &own(dead)).status, 200);
}

#[test]
fn a_dead_one_is_made_well_through_its_neighbour() {
    let [(dead, _), (other, _)] = two();
    let said = ask_at(dead, "POST", "/demo/die").text();
    assert!(said.contains(&format!("curl -X POST {other}/demo/well")), "{said}");
    eventually(|| TcpStream::connect(dead).is_err(), "it refuses connections");
    assert_eq!(ask_at(other, "GET", &own(other)).status, 200, "its neighbour lives");
    assert_eq!(ask_at(other, "POST", "/demo/well").status, 200);
    eventually(|| TcpStream::connect(dead).is_ok(), "it is back before its 20 s are over");
    assert_eq!(ask_at(dead, "GET", &own(dead)).status, 200);
}

#[test]
fn it_can_die_again_and_again() {
    let [(dead, _), (other, _)] = two();
    for _ in 0..5 {
        assert_eq!(ask_at(dead, "POST", "/demo/die").status, 200);
        eventually(|| TcpStream::connect(dead).is_err(), "it refuses connections");
        assert_eq!(ask_at(other, "POST", "/demo/well").status, 200);
        eventually(|| TcpStream::connect(dead).is_ok(), "it is back");
    }
}

#[test]
fn what_it_does_not_understand_is_refused_with_what_would_be_right() {
    let [(address, _), _] = two();
    each(
        [
            ("GET", "/demo/slow", 405, "POST"),
            ("POST", "/demo/", 404, "/demo/slow?ms=500"),
            ("POST", "/demo/dye", 404, "/demo/die?s=20"),
            ("POST", "/demo/well?really", 404, "/demo/well"),
            ("POST", "/demo/slow?ms=", 400, "up to 60000"),
            ("POST", "/demo/slow?ms=+5", 400, "/demo/slow?ms=500"),
            ("POST", "/demo/slow?ms=60001", 400, "up to 60000"),
            ("POST", "/demo/slow?ms=99999999999999999999", 400, "up to 60000"),
            ("POST", "/demo/slow?s=5", 400, "ms is a whole number"),
            ("POST", "/demo/die?s=61", 400, "up to 60"),
            ("POST", "/demo/die?ms=5", 400, "/demo/die?s=20"),
        ],
        |(method, target, status, words)| {
            let answer = ask_at(address, method, target);
            assert_eq!(answer.status, status, "{method} {target}");
            assert!(answer.text().contains(words), "{method} {target}: {}", answer.text());
            assert_eq!(answer.head.fields.all("Allow").len(), usize::from(status == 405), "{method} {target}");
        },
    );
    assert_eq!(ask_at(address, "GET", &own(address)).status, 200, "it is as well as before");
}

#[test]
fn no_client_of_the_balancer_commands_a_backend() {
    let [(one, first), (two, second)] = two();
    let balancer = balancer(&[&first, &second], &[]);
    for command in ["/demo/die", "/demo/fail", "/../demo/fail", "/%2e%2e/demo/fail"] {
        for _ in 0..2 {
            let said = ask_at(balancer.address(), "POST", command).text();
            assert!(!said.contains("To end that"), "{command}: {said}");
        }
    }
    for address in [one, two] {
        assert_eq!(ask_at(address, "GET", &own(address)).status, 200);
    }
}

#[test]
fn with_one_of_them_dead_every_request_is_answered_and_the_dead_one_is_back_by_itself() {
    let [(dead, first), (_, second)] = two();
    let balancer = balancer(&[&first, &second], &["--shortest-ejection", "100ms", "--longest-ejection", "200ms"]);
    let mut client = Client::connect(balancer.address());
    assert_eq!(ask_at(dead, "POST", "/demo/die?s=2").status, 200);
    eventually(|| TcpStream::connect(dead).is_err(), "it refuses connections");
    for _ in 0..20 {
        assert_eq!(ask(&mut client, "GET", "/").status, 200);
    }
    let greeting = format!("Hello from backend server on :{}\n", dead.port());
    let client = std::cell::RefCell::new(client);
    eventually(|| ask(&mut client.borrow_mut(), "GET", "/").text() == greeting, "the dead one answers again");
}

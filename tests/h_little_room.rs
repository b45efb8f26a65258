//! Buffers so small that what should have had room has none: nothing is lost then, said twice or forgotten.
//!
//! How much a connection takes is a guess at what the kernel has room for. Crumbs take more of it than they have bytes:
//! so of what has left the one connection, some has to be kept until the other takes it. Elsewhere than on Linux none
//! leaves its connection before the other has taken it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]
#![cfg(target_os = "linux")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustix::net::sockopt::set_socket_send_buffer_size;
use support::{Backend, Client, Gate, balancer, each, eventually};
use threadbare::metrics::WaitsFor;
use threadbare::net::Passed;
use threadbare::{Balancer, Config};

/// Waits until the only client of this balancer is parked, and waits for this.
fn waits_for(balancer: &Balancer, what: WaitsFor) {
    eventually(|| balancer.figures().parked[what as usize] == 1, &format!("the client waits: {what:?}"));
}

/// Bytes without a pattern that a lost or doubled one could hide in.
fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|nth| (nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).to_le_bytes()[0]).collect()
}

/// Sends a body, and between pieces of this length 200 crumbs, each a byte in a packet of its own: over seventeen of
/// them the kernel keeps most of a kilobyte of books.
fn crumble(body: &[u8], length: usize, mut send: impl FnMut(&[u8])) {
    // Whatever else this thread sends comes to lie between two of the bytes, so that they are never one piece again.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    one.set_nodelay(true).unwrap();
    let (mut other, _) = listener.accept().unwrap();
    for piece in body.chunks(length + 200) {
        let (long, crumbs) = piece.split_at(length.min(piece.len()));
        send(long);
        for crumb in crumbs.chunks(1) {
            send(crumb);
            one.write_all(b"x").unwrap();
            other.read_exact(&mut [0]).unwrap();
        }
    }
}

#[test]
fn what_a_slow_reader_has_no_room_for_comes_to_it_later_and_in_its_place() {
    const LENGTH: usize = 4 * 1024 * 1024;
    let address = "127.0.0.1:0".parse().unwrap();
    let body = Arc::new(noise(LENGTH));
    each(0..2, |nth| {
        let socket = TcpListener::bind(address).unwrap();
        set_socket_send_buffer_size(&socket, 1).unwrap(); // whom it accepts inherits it: the smallest that there is
        let backend = Backend::start({
            let body = Arc::clone(&body);
            move |connection| {
                if connection.read_request().is_some() {
                    connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes());
                    crumble(&body, 128 * 1024, |piece| _ = connection.send(piece));
                }
            }
        });
        let flags = ["--listen", "127.0.0.1:0", "--access-log", "off", "--workers", "1", "--backend", &backend.url()];
        let config = Config::from_args(flags).unwrap();
        let balancer = Balancer::start_on(vec![Passed { address, socket }], config).unwrap();
        let mut client = Client::connect_with_little_room(balancer.address());
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_head("GET");
        let begun = client.read_body_bytes(LENGTH / 8);
        waits_for(&balancer, WaitsFor::SlowReader); // it stops, and goes on once there is no room for more
        assert!(begun == body[..LENGTH / 8], "the beginning differs, time {nth}");
        assert!(client.read_rest().body == *body, "the rest differs, time {nth}");
    });
}

/// Runs a test of this file in another process and a network of its own, in which send buffers have so many bytes.
fn among_send_buffers_of(bytes: usize, test: &str) {
    let in_a_network = |words: &str| {
        let settings = format!("ip link set lo up && echo 1 {bytes} {bytes} >/proc/sys/net/ipv4/tcp_wmem");
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "sh", "-c", &format!("{settings} && {words}")]);
        command.arg(std::env::current_exe().unwrap()).output()
    };
    if !in_a_network("true").is_ok_and(|output| output.status.success()) {
        println!("skipped: this user can have no network of its own here");
        return;
    }
    let output = in_a_network(&format!("exec \"$0\" --exact {test} --ignored --nocapture")).unwrap();
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "among send buffers of {bytes} B: {}", String::from_utf8_lossy(&told));
}

#[test]
fn a_body_passes_both_ways_however_small_the_send_buffers_are() {
    // A socket can't ask for so little, but the system's settings allow it. A quarter of each is not a byte.
    each([1, 3], |bytes| among_send_buffers_of(bytes, "a_body_goes_there_and_back"));
}

#[test]
#[ignore = "the other process of the test above"]
fn a_body_goes_there_and_back() {
    const LENGTH: usize = 70 * 1024; // more than is read at once: some of it is passed on without that
    let backend = Backend::start(|connection| {
        if let Some(request) = connection.read_request() {
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes());
            connection.send(&request.body);
        }
    });
    let balancer = balancer(&[&backend.url()], &[]);
    let body = noise(LENGTH);
    let mut client = Client::connect(balancer.address());
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes());
    thread::scope(|scope| {
        let (mut hand, body) = (client.second_hand(), &body);
        scope.spawn(move || hand.write_all(body).unwrap());
        assert!(client.read_response("PUT").body == *body, "another body has come back");
    });
}

#[test]
fn what_a_backend_with_little_room_does_not_take_comes_to_it_later_and_in_its_place() {
    // As for the slow reader above: two packets fill it, and the crumbs that are poured at once make four.
    among_send_buffers_of(2000, "crumbs_go_to_a_slow_backend");
}

#[test]
#[ignore = "the other process of the test above"]
fn crumbs_go_to_a_slow_backend() {
    const LENGTH: usize = 1024 * 1024;
    let body = Arc::new(noise(LENGTH));
    for nth in 0..2 {
        let goes_on = Gate::new();
        let backend = Backend::start({
            let goes_on = goes_on.clone();
            move |connection| {
                if connection.read_head().is_some() {
                    goes_on.pass();
                    connection.read_rest();
                    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
            }
        });
        let balancer = balancer(&[&backend.url()], &["--workers", "1"]);
        let mut client = Client::connect(balancer.address());
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes());
        backend.wait_until("the head comes", |record| record.requests.len() == 1);
        let mut hand = client.second_hand();
        set_socket_send_buffer_size(&hand, 200_000).unwrap(); // the client's own is not to be small
        let sender = thread::spawn({
            let body = Arc::clone(&body);
            move || crumble(&body, 16 * 1024, |piece| hand.write_all(piece).unwrap())
        });
        waits_for(&balancer, WaitsFor::Backend); // it takes nothing, and goes on once there is no room for more
        goes_on.open();
        assert_eq!(client.read_response("PUT").text(), "ok", "{}", client.story());
        let received = backend.wait_for_requests(1).pop().unwrap();
        assert!(received.body == *body, "another body has come, time {nth}");
        sender.join().unwrap();
    }
}

//! A load balancer that lies: the walkthrough's first chapter counts ten ways, and every one is on purpose.
//!
//! `dummy [PORT BACKEND_PORT...]` balances on the first port, and starts a backend of its own on each of the others.
//! Without arguments these are 8080, 8081 and 8082.

#![allow(clippy::print_stdout, reason = "it says what it does, as its model did")]

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::{env, thread};

static CURRENT: Mutex<usize> = Mutex::new(0);

fn main() {
    let mut ports: Vec<u16> = env::args().skip(1).filter_map(|port| port.parse().ok()).collect();
    if ports.len() < 2 {
        ports = vec![8080, 8081, 8082];
    }
    let backends: &[u16] = ports.split_off(1).leak();
    for &port in backends {
        thread::spawn(move || serve("Backend", port, backends));
    }
    serve("Load balancer", ports[0], backends);
}

fn serve(what: &str, port: u16, backends: &'static [u16]) {
    println!("{what} is listening on :{port}");
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(listener) => {
            for client in listener.incoming().flatten() {
                thread::spawn(move || answer(client, backends));
            }
        }
        Err(error) => println!("Error for server on :{port}: {error}"),
    }
}

fn answer(mut client: TcpStream, backends: &[u16]) -> io::Result<()> {
    let lines = BufReader::new(&client).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or("/");
    match backends.iter().find(|port| path == format!("/b{port}")) {
        None => balance(client, backends),
        Some(port) => {
            let body = format!("Hello from backend server on :{port}\n");
            write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        }
    }
}

fn balance(mut client: TcpStream, backends: &[u16]) -> io::Result<()> {
    let Ok(response) = ask_next(backends) else {
        return client.write_all(b"HTTP/1.1 500 Backend Error\r\nContent-Length: 14\r\n\r\nBackend Error\n");
    };
    let head_end = response.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(response.len(), |at| at + 4);
    let (head, body) = response.split_at(head_end);
    let head = String::from_utf8_lossy(head);
    let mut fields: BTreeMap<&str, &str> = head.lines().filter_map(|line| line.split_once(": ")).collect();
    let length = body.len().to_string();
    fields.insert("Content-Length", &length);
    write!(client, "HTTP/1.1 200 OK\r\n")?;
    for (name, value) in fields {
        write!(client, "{name}: {value}\r\n")?;
    }
    write!(client, "\r\n")?;
    client.write_all(body)
}

fn ask_next(backends: &[u16]) -> io::Result<Vec<u8>> {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let port = backends[*current];
    *current = (*current + 1) % backends.len();
    drop(current);
    let mut backend = TcpStream::connect(("127.0.0.1", port))?;
    let request = format!("GET /b{port} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    backend.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    backend.read_to_end(&mut response)?;
    Ok(response)
}

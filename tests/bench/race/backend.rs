//! Who answers.

use crate::contender::{Process, free_port};
use crate::scenario::Around;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The body of a small answer.
pub(crate) const SMALL: &str = "a small answer, as an API or a page fragment would give: 64 byte\n";

/// Two of them, as long as this value lives.
pub(crate) struct Backends {
    pub(crate) addresses: [SocketAddr; 2],
    _processes: [Process; 2],
}

impl Backends {
    pub(crate) fn start(around: Around, folder: &Path) -> Backends {
        let addresses = [free_port(), free_port()];
        let start = |address| match around {
            Around::SlowBackends => {
                let mut slow = Command::new(std::env::current_exe().unwrap());
                slow.args(["role", "slow", &format!("{address}")]);
                Process::start(slow, address, &folder.join("slow"))
            }
            Around::Nothing | Around::IdleCrowd(_) => nginx(address, folder),
        };
        Backends { _processes: addresses.map(start), addresses }
    }
}

/// One worker each, since two of them share the machine with everybody else.
fn nginx(address: SocketAddr, folder: &Path) -> Process {
    let files = folder.join("files");
    if !files.exists() {
        fs::create_dir_all(&files).unwrap();
        for (name, size) in
            [("4k", 4 << 10), ("16k", 16 << 10), ("64k", 64 << 10), ("1m", 1 << 20), ("100m", 100 << 20)]
        {
            fs::write(files.join(name), vec![b'x'; size]).unwrap();
        }
    }
    let name = format!("backend-{}", address.port());
    let config = folder.join(format!("{name}.conf"));
    let said = folder.join(format!("{name}.stderr"));
    let (folder, files) = (folder.display(), files.display());
    let text = format!(
        "daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.error crit;
        worker_rlimit_nofile 20000;
        events {{ worker_connections 8192; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; default_type text/plain;
            keepalive_requests 1000000000; keepalive_timeout 120s; client_body_buffer_size 128k;
            client_body_temp_path {folder}/{name}.body; proxy_temp_path {folder}/{name}.proxy;
            fastcgi_temp_path {folder}/{name}.fastcgi; uwsgi_temp_path {folder}/{name}.uwsgi;
            scgi_temp_path {folder}/{name}.scgi;
            server {{
                listen {address} backlog=4096; root {files};
                location /small {{ return 200 '{SMALL}'; }}
                location /post {{ return 200 '{SMALL}'; }}
                location /closing {{ keepalive_timeout 0; return 200 '{SMALL}'; }}
                # Server-side includes may change the length, so nginx sends chunks.
                location /chunked {{ ssi on; ssi_types *; try_files /16k =404; }}
            }}
        }}\n"
    );
    fs::write(&config, text).unwrap();
    let mut nginx = Command::new("nginx");
    nginx.arg("-c").arg(&config);
    Process::start(nginx, address, &said)
}

/// How long the slow backend takes.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers everything after 100 ms: one thread, whatever the number of connections. Requests come in one piece here.
pub(crate) fn slow(listen: &str) {
    threadbare::net::raise_limit();
    let listener = std::net::TcpListener::bind(listen).unwrap();
    rustix::net::listen(&listener, 4096).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new().unwrap();
    poll.registry().register(&mut listener, Token(0), Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(1024);
    let mut clients: Vec<Option<TcpStream>> = vec![None];
    let mut due: VecDeque<(Instant, usize)> = VecDeque::new();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{SMALL}", SMALL.len());
    loop {
        let wait = due.front().map(|(when, _)| when.saturating_duration_since(Instant::now()));
        // Rounded up to a millisecond, since the kernel counts no smaller.
        poll.poll(&mut events, wait.map(|wait| wait + Duration::from_micros(999))).unwrap();
        for event in &events {
            if event.token() == Token(0) {
                while let Ok((mut client, _)) = listener.accept() {
                    client.set_nodelay(true).unwrap();
                    let token = Token(clients.len());
                    poll.registry().register(&mut client, token, Interest::READABLE).unwrap();
                    clients.push(Some(client));
                }
                continue;
            }
            let nth = event.token().0;
            let mut request = [0; 4096];
            match clients[nth].as_mut().map(|client| client.read(&mut request)) {
                Some(Ok(n)) if n > 0 => due.push_back((Instant::now() + PAUSE, nth)),
                Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => {}
                None | Some(Ok(_) | Err(_)) => clients[nth] = None,
            }
        }
        while let Some(&(when, nth)) = due.front()
            && when <= Instant::now()
        {
            due.pop_front();
            if let Some(client) = &mut clients[nth] {
                let _client_left = client.write_all(answer.as_bytes());
            }
        }
    }
}

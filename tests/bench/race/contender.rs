//! Who races, and how each is set up.
//!
//! Everybody gets two workers or threads, keeps connections on both sides, takes the backends in turn and adds
//! X-Forwarded-For, as it is usual (threadbare adds the rest of its fields too). Whatever would stop a connection from
//! being kept (a most of requests, a most of spares) is set high. Access logs go to a file, buffered where that can be
//! set.

use crate::backend::Backends;
use crate::usage::{family, signal};
use rustix::process::Signal;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
enum Kind {
    Threadbare { program: String },
    Floor,
    Nginx,
    HaProxy,
    Caddy,
    Go { program: String },
}

/// A proxy that is here, and its version.
pub(crate) struct Contender {
    kind: Kind,
    version: String,
}

/// A proxy at work.
pub(crate) struct Running {
    process: Process,
    pub(crate) address: SocketAddr,
}

impl Running {
    pub(crate) fn processes(&self) -> Vec<u32> {
        family(self.process.0.id())
    }
}

/// Those who are installed here.
pub(crate) fn present(program: &str) -> Vec<Contender> {
    let mut present = vec![
        Contender {
            version: first_line(program, &["--version"]).unwrap(),
            kind: Kind::Threadbare { program: program.to_owned() },
        },
        Contender { version: String::new(), kind: Kind::Floor },
    ];
    for (kind, program, flags) in
        [(Kind::Nginx, "nginx", ["-v"]), (Kind::HaProxy, "haproxy", ["-v"]), (Kind::Caddy, "caddy", ["version"])]
    {
        present.extend(first_line(program, &flags).map(|version| Contender { kind, version }));
    }
    present.extend(go());
    present
}

/// Go's proxy is built where Go is.
fn go() -> Option<Contender> {
    let version = first_line("go", &["version"])?;
    let program = format!("{}/race-reverse-proxy", env!("CARGO_TARGET_TMPDIR"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/race/reverse_proxy.go");
    let built = Command::new("go").args(["build", "-o", &program, source]).status().unwrap();
    assert!(built.success(), "{source} does not build");
    Some(Contender { kind: Kind::Go { program }, version })
}

/// The first line that a program says of itself; `None`: it isn't here.
fn first_line(program: &str, flags: &[&str]) -> Option<String> {
    let output = Command::new(program).args(flags).output().ok()?;
    let said = [output.stdout, output.stderr].concat(); // nginx says its version on standard error
    String::from_utf8_lossy(&said).lines().next().map(|line| line.trim().to_owned())
}

impl Contender {
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Threadbare { .. } => "threadbare",
            Kind::Floor => "floor",
            Kind::Nginx => "nginx",
            Kind::HaProxy => "HAProxy",
            Kind::Caddy => "Caddy",
            Kind::Go { .. } => "Go",
        }
    }

    /// Somebody to be measured against.
    pub(crate) fn is_peer(&self) -> bool {
        !matches!(self.kind, Kind::Threadbare { .. } | Kind::Floor)
    }

    /// Name and version, in few words.
    pub(crate) fn title(&self) -> String {
        let version = self.version.split_whitespace().find(|word| word.contains('.')).unwrap_or_default();
        let version = version.trim_start_matches("nginx/").trim_start_matches(['v', 'g', 'o']);
        format!("{} {version}", self.name()).trim_end().to_owned()
    }

    pub(crate) fn start(&self, backends: &Backends, log: bool, folder: &Path) -> Running {
        let address = free_port();
        let folder = folder.join(self.name());
        fs::create_dir_all(&folder).unwrap();
        let [one, other] = backends.addresses.map(|address| address.to_string());
        let on = if log { "on" } else { "off" };
        let configured = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let mut command = match &self.kind {
            Kind::Threadbare { program } => {
                let mut command = Command::new(program);
                command.args(["--workers", "2", "--listen", &address.to_string()]);
                command.args(["--access-log", if log { "text" } else { "off" }, &one, &other]).env_remove("RUST_LOG");
                command
            }
            Kind::Floor => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(["role", "floor", &address.to_string(), &one, &other]);
                command
            }
            Kind::Nginx => {
                let config = configured("nginx.conf", nginx(address, [&one, &other], log, &folder));
                let mut command = Command::new("nginx");
                command.arg("-c").arg(config);
                command
            }
            Kind::HaProxy => {
                let config = configured("haproxy.cfg", haproxy(address, [&one, &other], log));
                let mut command = Command::new("haproxy");
                command.arg("-f").arg(config);
                command
            }
            Kind::Caddy => {
                let config = configured("Caddyfile", caddy(address, [&one, &other], log, &folder));
                let mut command = Command::new("caddy");
                command.args(["run", "--adapter", "caddyfile", "--config"]).arg(config).env("GOMAXPROCS", "2");
                command.env("HOME", &folder).env("XDG_DATA_HOME", &folder).env("XDG_CONFIG_HOME", &folder);
                command
            }
            Kind::Go { program } => {
                let mut command = Command::new(program);
                command.args([&address.to_string(), on, &one, &other]).env("GOMAXPROCS", "2");
                command
            }
        };
        command.stdout(File::create(folder.join("stdout")).unwrap());
        Running { process: Process::start(command, address, &folder.join("stderr")), address }
    }
}

fn nginx(address: SocketAddr, [one, other]: [&str; 2], log: bool, folder: &Path) -> String {
    let folder = folder.display();
    let log = if log { format!("{folder}/access.log combined buffer=64k flush=1s") } else { "off".to_owned() };
    format!(
        "daemon off; worker_processes 2; pid {folder}/pid; error_log {folder}/error crit; worker_rlimit_nofile 20000;
        events {{ worker_connections 16384; }}
        http {{
            access_log {log}; client_max_body_size 200m; keepalive_requests 1000000000; keepalive_timeout 120s;
            client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
            upstream backends {{ server {one}; server {other}; keepalive 2048; keepalive_requests 1000000000; }}
            server {{
                listen {address} backlog=4096;
                location / {{
                    proxy_pass http://backends; proxy_http_version 1.1;
                    proxy_set_header Connection ''; proxy_set_header Host $host;
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                }}
            }}
        }}\n"
    )
}

fn haproxy(address: SocketAddr, [one, other]: [&str; 2], log: bool) -> String {
    let log = if log { "log stdout format raw local0 info\n option httplog" } else { "no log" };
    format!(
        "global
 nbthread 2
 maxconn 16000
 no strict-limits
defaults
 mode http
 {log}
 option forwardfor
 option http-keep-alive
 http-reuse always
 timeout connect 5s
 timeout client 120s
 timeout server 120s
 timeout http-keep-alive 120s
frontend race
 bind {address} backlog 4096
 default_backend backends
backend backends
 balance roundrobin
 server one {one}
 server other {other}
"
    )
}

fn caddy(address: SocketAddr, [one, other]: [&str; 2], log: bool, folder: &Path) -> String {
    let log = if log { format!("log {{\n output file {}/access.log\n }}", folder.display()) } else { String::new() };
    format!(
        "{{
 admin off
 auto_https off
 log {{
  level ERROR
  exclude http.log.access
 }}
}}
http://{address} {{
 {log}
 reverse_proxy {one} {other} {{
  lb_policy round_robin
  transport http {{
   keepalive_idle_conns 8192
   keepalive_idle_conns_per_host 4096
   compression off
  }}
 }}
}}
"
    )
}

/// A process that ends with this value.
pub(crate) struct Process(Child);

impl Process {
    /// Starts it, and waits until somebody listens at its address. What it says goes to the file `said`.
    pub(crate) fn start(mut command: Command, address: SocketAddr, said: &Path) -> Process {
        command.stdin(Stdio::null()).stderr(File::create(said).unwrap());
        let mut process = Process(command.spawn().unwrap());
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            let is_running = process.0.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(10);
            assert!(is_running, "nobody listens on {address}: {}", fs::read_to_string(said).unwrap_or_default());
            thread::sleep(Duration::from_millis(10));
        }
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Asked first: killed outright, nginx would leave its workers behind.
        let family = family(self.0.id());
        signal(self.0.id(), Signal::TERM);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            if self.0.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        family.into_iter().for_each(|process| signal(process, Signal::KILL));
        let _reaped = self.0.wait();
    }
}

/// A port that nobody listens on at the moment.
pub(crate) fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

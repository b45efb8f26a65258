//! Real programs on both sides: what users have, not what we wrote. Each test says so when its program isn't installed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use support::{Backend, Folder, TempFile, balancer, eventually};
use threadbare::Balancer;

/// Whether a program can be run here; says so if not.
fn is_installed(program: &str, version: &str) -> bool {
    let found = Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

/// What a program prints; it must end well.
fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {} {out} {err}", output.status);
    out.into_owned()
}

/// A server that ends with its test.
struct Server {
    child: Child,
    address: SocketAddr,
    _folder: Folder,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first, so that a server with workers can end them too.
        let _gone = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ended = self.child.wait();
    }
}

impl Server {
    /// Starts a program that listens on a port of its own, once it does.
    fn start(command: impl FnOnce(SocketAddr, &Folder) -> Command) -> Server {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = Folder::new();
        let child = command(address, &folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Server { child, address, _folder: folder };
        eventually(|| TcpStream::connect(address).is_ok(), "the server listens");
        server
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A file that no two places of look alike.
fn patterned(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at / 7 + at / 251 + at) % 251).unwrap()).collect()
}

fn curl(balancer: &Balancer, path: &str, flags: &[&str]) -> String {
    let url = format!("http://{}{path}", balancer.address());
    output(Command::new("curl").args(["-sS", "--max-time", "20"]).args(flags).arg(url))
}

#[test]
fn curl_gets_posts_and_uploads() {
    if !is_installed("curl", "--version") {
        return;
    }
    let backend = Backend::echo();
    let balancer = balancer(&[&backend.url()], &[]);
    assert!(curl(&balancer, "/x?y=z", &[]).starts_with("GET /x?y=z HTTP/1.1\r\n"));
    assert!(curl(&balancer, "/", &["--http1.0"]).starts_with("GET / HTTP/1.1\r\n"));
    assert!(curl(&balancer, "/", &["--head"]).starts_with("HTTP/1.1 200 "));
    assert!(curl(&balancer, "/", &["-d", "a=b"]).ends_with("\r\n\r\na=b"));

    let folder = Folder::new();
    // curl asks for a 100 before bodies of more than a megabyte.
    let body = "0123456789abcdef".repeat(200_000);
    let file = &*folder.file("body", &body);
    assert!(curl(&balancer, "/", &["--data-binary", &format!("@{file}")]).ends_with(&body));
    let expecting = ["-H", "Expect: 100-continue", "--data-binary", &format!("@{file}")];
    assert!(curl(&balancer, "/", &expecting).ends_with(&body));
    let chunked = curl(&balancer, "/", &["-T", file, "-H", "Transfer-Encoding: chunked"]);
    assert!(chunked.starts_with("PUT ") && chunked.ends_with(&body));
    // From a pipe, so that even curl does not know how much it is.
    let mut piped = Command::new("curl");
    piped.args(["-sS", "--max-time", "20", "-T", "-"]).arg(format!("http://{}/", balancer.address()));
    let piped = piped.stdin(fs::File::open(file).unwrap()).output().unwrap();
    let heard = String::from_utf8_lossy(&piped.stdout);
    assert!(heard.starts_with("PUT / ") && heard.contains("Transfer-Encoding: chunked\r\n"), "{:.300}", heard);
    assert!(heard.ends_with(&body), "{} bytes of more than {}", heard.len(), body.len());
}

#[test]
fn curl_hears_an_early_refusal() {
    if !is_installed("curl", "--version") {
        return;
    }
    let backend = Backend::start(|connection| {
        if connection.read_head().is_some() {
            connection.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n");
            connection.read_to_end();
        }
    });
    let balancer = balancer(&[&backend.url()], &[]);
    let file = TempFile::new(vec![b'x'; 8 * 1024 * 1024]);
    let upload = format!("@{}", file.path());
    let heard = curl(&balancer, "/", &["-w", "%{http_code}", "-H", "Expect:", "--data-binary", &upload]);
    assert_eq!(heard, "no\n413");
}

#[test]
fn wrk_finds_no_fault() {
    if Command::new("wrk").arg("--version").output().is_err() {
        println!("skipped: wrk is not installed");
        return;
    }
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (one, other) = (Backend::answering(answer), Backend::answering(answer));
    let balancer = balancer(&[&one.url(), &other.url()], &[]);
    let url = format!("http://{}/", balancer.address());
    let told = output(Command::new("wrk").args(["-t1", "-c16", "-d1s", &url]));
    assert!(told.contains("requests in"), "{told}");
    assert!(!told.contains("Socket errors") && !told.contains("Non-2xx"), "{told}");
}

#[test]
fn nginx_serves_files_behind_it() {
    if !is_installed("nginx", "-v") || !is_installed("curl", "--version") {
        return;
    }
    let large = patterned(10 * 1024 * 1024);
    let server = Server::start(|address, folder| {
        folder.file("large", &large);
        folder.file("page.html", "<p>".repeat(2000));
        let folder = folder.as_ref().to_str().unwrap();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {folder}/{kind};"))
            .concat();
        let config = format!(
            "daemon off; pid {folder}/pid; error_log {folder}/errors; worker_processes 1; events {{}}
             http {{ access_log off; gzip on; gzip_proxied any; gzip_types text/html; {temporary}
             server {{ listen {address}; root {folder}; }} }}"
        );
        fs::write(format!("{folder}/nginx.conf"), config).unwrap();
        // The workers of an nginx that was started by root are somebody else, and must be let in.
        let _open = Command::new("chmod").args(["-R", "a+rX", folder]).status();
        let mut command = Command::new("nginx");
        command.args(["-p", folder, "-c", &format!("{folder}/nginx.conf"), "-e", &format!("{folder}/errors")]);
        command
    });
    let balancer = balancer(&[&server.url()], &[]);
    let url = format!("http://{}/large", balancer.address());
    for _ in 0..3 {
        let got = Command::new("curl").args(["-sS", "--max-time", "20", &url]).output().unwrap();
        assert!(got.stdout == large, "{} of {} bytes: {got:?}", got.stdout.len(), large.len());
    }
    let part = Command::new("curl").args(["-sS", "-r", "1000-1999", &url]).output().unwrap();
    assert_eq!(part.stdout, large[1000..2000]);
    assert!(curl(&balancer, "/missing", &["-w", "%{http_code}"]).ends_with("404"));
    let head = curl(&balancer, "/large", &["-I"]);
    assert!(head.contains("Content-Length: 10485760"), "{head}");
    let tag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap().trim().to_owned();
    let fresh = curl(&balancer, "/large", &["-H", &format!("If-None-Match: {tag}"), "-w", "%{http_code}"]);
    assert_eq!(fresh, "304");
    // Compressed on the way, so nobody knows the length before: it goes in chunks.
    let page = curl(&balancer, "/page.html", &["--compressed", "-i"]);
    assert!(page.contains("Transfer-Encoding: chunked") && page.ends_with(&"<p>".repeat(2000)), "{page}");
}

/// Runs a client's script, with the balancer's host and port behind it.
fn run_script(program: &str, flag: &str, script: &str, balancer: &Balancer) -> String {
    let (host, port) = (balancer.address().ip().to_string(), balancer.address().port().to_string());
    output(Command::new(program).args([flag, script, &host, &port]))
}

#[test]
fn pythons_client_and_server_understand_each_other() {
    if !is_installed("python3", "--version") {
        return;
    }
    let body = patterned(300_000);
    let server = Server::start(|address, folder| {
        folder.file("file", &body);
        let mut command = Command::new("python3");
        command.args(["-m", "http.server", "--bind", "127.0.0.1", &address.port().to_string(), "--directory"]);
        command.arg(folder.as_ref());
        command
    });
    let echo = Backend::echo();
    let files = balancer(&[&server.url()], &[]);
    let sum: u64 = body.iter().map(|&byte| u64::from(byte)).sum();
    let get = "import http.client, sys
c = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=20)
for _ in range(5):
    c.request('GET', '/file'); r = c.getresponse(); b = r.read(); assert r.status == 200, r.status
    print(len(b), sum(b))";
    assert_eq!(run_script("python3", "-c", get, &files), format!("{} {sum}\n", body.len()).repeat(5));

    let echoes = balancer(&[&echo.url()], &[]);
    let post = "import http.client, sys
c = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=20)
for n in (0, 1, 40000, 1000000):
    c.request('POST', '/', body=b'x' * n); r = c.getresponse(); b = r.read()
    assert r.status == 200 and b.count(b'x') >= n, (r.status, n)
    c.request('POST', '/', body=iter([b'y' * n, b'z']), encode_chunked=True, headers={'Transfer-Encoding': 'chunked'})
    r = c.getresponse(); b = r.read(); assert b.endswith(b'y' * n + b'z'), n
print('fine')";
    assert_eq!(run_script("python3", "-c", post, &echoes), "fine\n");
}

#[test]
fn nodes_client_and_server_understand_each_other() {
    if !is_installed("node", "--version") {
        return;
    }
    let serve = "const http = require('http');
http.createServer((q, s) => { q.on('error', () => {}); s.writeHead(200, {'X-Method': q.method}); q.pipe(s); })
  .listen(Number(process.argv[1]), '127.0.0.1');";
    let server = Server::start(|address, _| {
        let mut command = Command::new("node");
        command.args(["-e", serve, &address.port().to_string()]);
        command
    });
    let balancer = balancer(&[&server.url()], &[]);
    let ask = "const http = require('http'), agent = new http.Agent({keepAlive: true, maxSockets: 4});
const [host, port] = process.argv.slice(1); let open = 40, sockets = new Set();
for (let i = 0; i < 40; i++) {
  const body = 'b'.repeat(i * 5000);
  const q = http.request({host, port, agent, method: 'POST', path: '/' + i}, s => {
    let got = ''; s.on('data', d => got += d);
    s.on('end', () => {
      if (got !== body || s.headers['x-method'] !== 'POST') { console.log('wrong', i, got.length); process.exit(1); }
      if (--open === 0) { console.log('fine', sockets.size <= 4); agent.destroy(); }
    });
  });
  q.on('socket', s => sockets.add(s)); q.write(body.slice(0, 10)); q.end(body.slice(10));
}";
    assert_eq!(run_script("node", "-e", ask, &balancer), "fine true\n");
}

#[test]
fn netcat_gets_an_answer_though_it_has_ended_its_side() {
    // What `nc -N` does, without needing it: the request, the end of our side, then the answer.
    let backend = Backend::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
    let balancer = balancer(&[&backend.url()], &["--half-close", "answer"]);
    let mut nc = TcpStream::connect(balancer.address()).unwrap();
    nc.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    nc.shutdown(std::net::Shutdown::Write).unwrap();
    let mut heard = String::new();
    nc.read_to_string(&mut heard).unwrap();
    assert!(heard.starts_with("HTTP/1.1 200 ") && heard.ends_with("ok\n"), "{heard}");
}

#[test]
fn python_reads_every_line_of_the_json_log() {
    if !is_installed("python3", "--version") {
        return;
    }
    let backend = Backend::echo();
    let folder = Folder::new();
    let log = folder.path("log");
    // One worker, so that the lines are in the order of the requests.
    let flags = ["--workers", "1", "--access-log", "json", "--access-log-file", &log];
    // The harness turns the log off, and a flag is given once.
    let url = backend.url();
    let words = ["--listen", "127.0.0.1:0", &url].into_iter().chain(flags);
    let balancer = Balancer::start(threadbare::Config::from_args(words).unwrap()).unwrap();
    let rows: [&[u8]; 6] = [
        b"GET /plain HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /a\"b\\c{}[],:%00%ff HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\x1b[2J HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for row in rows {
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        client.write_all(row).unwrap();
        let mut answer = Vec::new();
        let _reset = client.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 "), "{row:?}");
    }
    drop(balancer); // writes the last line
    let program = "\
import json, sys
for line in open(sys.argv[1], encoding='utf-8', newline='\\n'):
    told = json.loads(line)
    print(told['status'], told['method'], told['target'], told['bytes_in'] + told['tries'])";
    let told = output(Command::new("python3").args(["-c", program]).arg(&log));
    let expected = "200 GET /plain 1\n200 GET /a\"b\\c{}[],:%00%ff 1\n400 None None 0\n400 None None 0\n\
                    400 None None 0\n501 CONNECT a:443 0\n";
    assert_eq!(told, expected);
}

#[test]
fn haproxy_says_who_its_clients_are() {
    if !is_installed("haproxy", "-v") || !is_installed("curl", "--version") {
        return;
    }
    let backend = Backend::echo();
    let text = "[[listener]]\naddress = \"127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.1\"]\n";
    let file = TempFile::new(text);
    let flags = ["--access-log", "off", "--config", file.path(), &backend.url()];
    let config = threadbare::Config::from_args(flags).unwrap();
    let balancer = Balancer::start(config).unwrap();
    for version in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"] {
        let proxy = Server::start(|address, folder| {
            let text = format!(
                "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n\
                 frontend clients\n  bind {address}\n  unique-id-format %[uuid()]\n  default_backend balancer\n\
                 backend balancer\n  server one {} {version} check check-send-proxy inter 50ms\n",
                balancer.address()
            );
            let file = folder.file("haproxy.cfg", text);
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(file);
            command
        });
        for client in ["127.0.0.2", "127.0.0.3"] {
            let url = format!("{}/x", proxy.url());
            let flags = ["-sS", "--max-time", "20", "--interface", client, "-d", "a=b", &url];
            let heard = output(Command::new("curl").args(flags));
            let expected = format!("X-Forwarded-For: {client}\r\n");
            assert!(heard.contains(&expected) && heard.ends_with("a=b"), "{version}: {heard}");
        }
    }
}

//! The ten lies of the walkthrough's first chapter. Each test tries both programs: the dummy lies, and threadbare doesn't.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use program::{Program, command, free_port, output};
use support::{Backend, Client, Cut, End, Gate, Response};
use threadbare::demo::DemoBackend;

/// Long enough for an answer that comes at all, here.
const A_WHILE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Suspect {
    Dummy,
    Threadbare,
}

impl Suspect {
    /// The balancer, before backends on these ports, each of which answers below `/b` and its port.
    fn start(self, ports: &[u16], flags: &[&str]) -> Program {
        match self {
            Suspect::Threadbare => {
                let backends = ports.iter().map(|port| format!("http://127.0.0.1:{port}/b{port}"));
                Program::start(flags.iter().map(|&flag| flag.to_owned()).chain(backends))
            }
            Suspect::Dummy => Program::listening_silently(|address| {
                let mut command = dummy();
                command.arg(address.rsplit(':').next().unwrap()).args(ports.iter().map(u16::to_string));
                command
            }),
        }
    }
}

fn dummy() -> Command {
    Command::new(env!("CARGO_BIN_EXE_dummy"))
}

/// The dummy lies, and threadbare doesn't.
fn catch_lying(lies: impl Fn(Suspect) -> bool) {
    assert!(lies(Suspect::Dummy), "the dummy does not lie any more");
    assert!(!lies(Suspect::Threadbare), "threadbare lies as the dummy does");
}

fn ports(backends: &[&Backend]) -> Vec<u16> {
    backends.iter().map(|backend| backend.address().port()).collect()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn ask(balancer: &Program, request: &str) -> Result<Response, Cut> {
    let mut client = Client::connect(balancer.address());
    client.second_hand().set_read_timeout(Some(A_WHILE)).unwrap();
    client.send(request.as_bytes());
    client.try_response(request.split(' ').next().unwrap())
}

#[test]
fn lie_1_it_forgets_method_path_fields_and_body() {
    catch_lying(|suspect| {
        let backend = Backend::echo();
        let balancer = suspect.start(&ports(&[&backend]), &[]);
        let request = "POST /orders?new=1 HTTP/1.1\r\nHost: a\r\nX-Who: me\r\nContent-Length: 5\r\n\r\n2 tea";
        let echo = ask(&balancer, request).unwrap().text();
        let remembered = ["POST /", "/orders?new=1", "X-Who: me", "\r\n\r\n2 tea"].map(|part| echo.contains(part));
        assert!(remembered == [true; 4] || remembered == [false; 4], "{echo}");
        !remembered[0]
    });
}

#[test]
fn lie_2_it_turns_404_into_200() {
    catch_lying(|suspect| {
        let backend = Backend::answering("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnone\n");
        let balancer = suspect.start(&ports(&[&backend]), &[]);
        ask(&balancer, GET).unwrap().status == 200
    });
}

#[test]
fn lie_3_it_keeps_only_the_last_set_cookie() {
    catch_lying(|suspect| {
        let answer = "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n";
        let backend = Backend::answering(answer);
        let balancer = suspect.start(&ports(&[&backend]), &[]);
        ask(&balancer, GET).unwrap().head.all("Set-Cookie") == ["b=2"]
    });
}

#[test]
fn lie_4_with_one_backend_dead_every_other_request_fails_for_ever() {
    catch_lying(|suspect| {
        let (alive, dead) = (Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Backend::refusing());
        let balancer = suspect.start(&ports(&[&alive, &dead]), &[]);
        if suspect == Suspect::Dummy {
            alive.wait_for_requests(1); // the look whether it listens: to the dummy a request, which takes a turn
        }
        let statuses: Vec<u16> = (0..20).map(|_| ask(&balancer, GET).unwrap().status).collect();
        assert!(statuses.iter().all(|status| [200, 500].contains(status)), "{statuses:?}");
        statuses.contains(&500) && statuses.windows(2).all(|pair| pair[0] != pair[1])
    });
}

#[test]
fn lie_5_it_has_no_deadline() {
    catch_lying(|suspect| {
        let backend = Backend::start(|connection| {
            connection.read_request();
            connection.read_to_end();
        });
        let balancer = suspect.start(&ports(&[&backend]), &["--response-head-timeout", "200ms"]);
        match ask(&balancer, GET) {
            Ok(answer) => answer.status != 504,
            Err(cut) => cut.end == End::TimedOut,
        }
    });
}

#[test]
fn lie_6_it_makes_a_cut_off_answer_look_whole() {
    catch_lying(|suspect| {
        let backend = Backend::start(|connection| {
            connection.read_request();
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it");
        });
        let balancer = suspect.start(&ports(&[&backend]), &[]);
        ask(&balancer, GET).is_ok()
    });
}

#[test]
fn lie_7_its_three_servers_share_one_table_of_routes() {
    catch_lying(|suspect| {
        let mut ports = vec![free_port(), free_port()];
        if suspect == Suspect::Threadbare {
            let backends = DemoBackend::bind(&[0, 0]).unwrap();
            ports = backends.iter().map(|backend| backend.address().port()).collect();
            backends.into_iter().for_each(|backend| backend.serve().unwrap());
        }
        let _balancer = suspect.start(&ports, &[]);
        support::eventually(
            || std::net::TcpStream::connect(("127.0.0.1", ports[0])).is_ok(),
            "the first backend listens",
        );
        let mut client = Client::connect(([127, 0, 0, 1], ports[0]).into());
        // A backend that knows one path only; asked for another, it should not know it.
        client.send(format!("GET /b{} HTTP/1.1\r\nHost: a\r\n\r\n", ports[1]).as_bytes());
        client.read_response("GET").status != 404
    });
}

#[test]
fn lie_8_it_says_that_it_listens_before_it_does() {
    catch_lying(|suspect| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let output = match suspect {
            Suspect::Dummy => output(dummy().args([address.port(), free_port()].map(|port| port.to_string()))),
            Suspect::Threadbare => output(command().args(["--listen", &address.to_string(), "127.0.0.1:1"])),
        };
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8(said).unwrap().contains(&match suspect {
            Suspect::Dummy => format!("listening on :{}", address.port()),
            Suspect::Threadbare => "listening on".to_owned(),
        })
    });
}

#[test]
fn lie_9_it_waits_for_nobody() {
    catch_lying(|suspect| {
        let gate = Gate::new();
        let backend = Backend::start({
            let gate = gate.clone();
            move |connection| {
                connection.read_request();
                gate.pass();
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
            }
        });
        let mut balancer = suspect.start(&ports(&[&backend]), &[]);
        let mut client = Client::connect(balancer.address());
        client.send(GET.as_bytes());
        backend.wait_for_requests(1);
        balancer.terminate();
        if suspect == Suspect::Dummy {
            balancer.wait();
        } else {
            balancer.wait_until_refusing();
        }
        gate.open();
        client.try_response("GET").is_err()
    });
}

#[test]
fn lie_10_it_holds_streams_back() {
    catch_lying(|suspect| {
        let seen = Gate::new();
        let backend = Backend::start({
            let seen = seen.clone();
            move |connection| {
                connection.read_request();
                connection.send(b"HTTP/1.1 200 OK\r\n\r\ndata: first\n\n");
                seen.pass();
                connection.send(b"data: second\n\n");
            }
        });
        let balancer = suspect.start(&ports(&[&backend]), &[]);
        let mut client = Client::connect(balancer.address());
        client.send(GET.as_bytes());
        client.second_hand().set_read_timeout(Some(A_WHILE)).unwrap();
        let first = client.try_response_head("GET");
        seen.open();
        first.is_err()
    });
}

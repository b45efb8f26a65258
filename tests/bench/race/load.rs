//! Who asks.

use crate::scenario::Scenario;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A run of wrk, to be begun.
pub(crate) struct Load(Command);

/// A run of wrk.
pub(crate) struct Loading(Child);

/// What it saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// Connections refused or broken, requests that took ten seconds, and statuses from 400 on.
    pub(crate) failed: u64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Load {
    pub(crate) fn of(scenario: &Scenario, address: SocketAddr, seconds: u64, folder: &Path) -> Load {
        let script = folder.join(format!("{}.lua", scenario.name));
        std::fs::write(&script, lua(scenario)).unwrap();
        let mut wrk = Command::new("wrk");
        let threads = scenario.connections.min(2);
        wrk.args(["--threads", &threads.to_string(), "--connections", &scenario.connections.to_string()]);
        wrk.args(["--duration", &format!("{seconds}s"), "--timeout", "10s", "--script"]).arg(script);
        wrk.arg(format!("http://{address}{}", scenario.target)).stdout(Stdio::piped());
        Load(wrk)
    }

    pub(crate) fn run(self) -> Answered {
        self.begin().end()
    }

    pub(crate) fn begin(mut self) -> Loading {
        Loading(self.0.spawn().expect("wrk must be installed"))
    }
}

/// wrk's report is for people; the script says the same in numbers.
fn lua(scenario: &Scenario) -> String {
    let mut script = String::new();
    if scenario.body > 0 {
        script += &format!("wrk.method = 'POST'\nwrk.body = string.rep('x', {})\n", scenario.body);
    }
    if scenario.closes {
        script += "wrk.headers['Connection'] = 'close'\n";
    }
    script
        + "done = function(summary, latency)\n\
           local e = summary.errors\n\
           print('numbers', summary.requests, summary.bytes, summary.duration,\n\
               e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99))\n\
           end\n"
}

impl Loading {
    pub(crate) fn end(self) -> Answered {
        let output = self.0.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let line = said.lines().find_map(|line| line.strip_prefix("numbers"));
        let line = line.unwrap_or_else(|| panic!("wrk has said nothing that is understood: {said}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let [requests, bytes, duration, failed, p50, p99] = words[..] else { panic!("{line:?} are not six numbers") };
        let whole = |word: &str| word.parse::<u64>().unwrap();
        let real = |word: &str| word.parse::<f64>().unwrap();
        Answered {
            requests: whole(requests).max(1),
            bytes: whole(bytes),
            seconds: real(duration) / 1e6,
            failed: whole(failed),
            p50: real(p50),
            p99: real(p99),
        }
    }
}

/// Clients that have had an answer and are silent, as long as this value lives.
pub(crate) struct Crowd(Vec<TcpStream>);

impl Crowd {
    pub(crate) fn of(size: usize, address: SocketAddr) -> Crowd {
        let mut crowd = Vec::with_capacity(size);
        while crowd.len() < size {
            // Many ask before the first one listens: one after the other, they would take a minute.
            let mut next: Vec<TcpStream> = (0..AT_ONCE.min(size - crowd.len())).map(|_| asking(address)).collect();
            next.iter_mut().for_each(read_small_answer);
            crowd.append(&mut next);
        }
        Crowd(crowd)
    }

    pub(crate) fn size(&self) -> usize {
        self.0.len()
    }
}

/// Fewer than any backlog holds.
const AT_ONCE: usize = 200;

fn asking(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(client, "GET /small HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    client
}

fn read_small_answer(client: &mut TcpStream) {
    let mut heard = Vec::new();
    let mut buffer = [0; 1024];
    while !heard.ends_with(crate::backend::SMALL.as_bytes()) {
        let n = client.read(&mut buffer).unwrap();
        assert_ne!(n, 0, "an idle client was sent away: {:?}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&buffer[..n]);
    }
}

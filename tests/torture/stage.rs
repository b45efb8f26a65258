//! A balancer before three backends, and the account that each act closes with.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::backend::{BackendProcess, Counts, Mode, quiet_port};
use super::load::{Outcome, Tally};
use crate::program::{Program, command};
use crate::support::{Folder, eventually};

/// This part of the time that the whole play may take: `TORTURE_SECONDS`, 20 if not given, 6,000 at most.
pub(crate) fn time(part: f64) -> Duration {
    let seconds = env::var("TORTURE_SECONDS").ok().and_then(|seconds| seconds.parse::<f64>().ok()).unwrap_or(20.0);
    Duration::from_secs_f64(seconds.clamp(10.0, 6000.0) * part)
}

/// What the balancer is told beyond its backends. Where a backend's share is measured it is due at once, not after a slow
/// start.
const FLAGS: [(&str, &str); 4] =
    [("--access-log", "off"), ("--slow-start", "0s"), ("--health-path", "/0"), ("--health-interval", "200ms")];

/// Three backends, the balancer before them, and a folder for their files. All end with it.
pub(crate) struct Stage {
    act: &'static str,
    folder: Folder,
    pub(crate) backends: Vec<BackendProcess>,
    pub(crate) balancer: Program,
    flags: Vec<(String, String)>,
    lines: Vec<String>,
    missed: Vec<String>,
    /// One act at a time: each measures, and the machine is shared.
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    /// Backends `a`, `b` and `c`, and a balancer with these flags.
    pub(crate) fn set(act: &'static str, flags: &[(&str, &str)]) -> Self {
        let (turn, folder, backends) = prepare(act);
        let flags: Vec<(String, String)> =
            FLAGS.iter().chain(flags).map(|(flag, value)| ((*flag).to_owned(), (*value).to_owned())).collect();
        let balancer = start(&backends, &flags, "127.0.0.1:0");
        Self { act, folder, backends, balancer, flags, lines: Vec::new(), missed: Vec::new(), _turn: turn }
    }

    /// The same with a configuration file, which can be read again; on a port that the file names.
    pub(crate) fn set_with_file(act: &'static str) -> Self {
        let (turn, folder, backends) = prepare(act);
        let file = folder.path("threadbare.toml");
        let address: SocketAddr = ([127, 0, 0, 1], quiet_port()).into();
        fs::write(&file, configuration(&folder, address, &backends, &[1, 1, 1])).unwrap();
        let balancer = Program::listening(command().arg("--config").arg(&file));
        let (flags, lines, missed) = (Vec::new(), Vec::new(), Vec::new());
        Self { act, folder, backends, balancer, flags, lines, missed, _turn: turn }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.balancer.address()
    }

    /// Starts another balancer in the place of one that has ended.
    pub(crate) fn start_again(&mut self) {
        let address = self.address().to_string();
        self.balancer = start(&self.backends, &self.flags, &address);
    }

    /// Whether the balancer waits for one that takes its sockets over.
    pub(crate) fn can_hand_over(&self) -> bool {
        fs::exists(self.folder.path("handover.sock")).unwrap()
    }

    /// Starts another balancer beside the one that runs, which hands its sockets over and ends by itself.
    pub(crate) fn hand_over(&mut self) {
        let successor = Program::listening(command().arg("--config").arg(self.folder.path("threadbare.toml")));
        let mut predecessor = std::mem::replace(&mut self.balancer, successor);
        assert_eq!(predecessor.exit_code(), 0, "the one that handed over: {}", predecessor.stderr.so_far());
    }

    /// Writes the file with these weights, 0 leaving a backend out, and has it read again.
    pub(crate) fn reload(&self, weights: &[u32]) {
        let text = configuration(&self.folder, self.address(), &self.backends, weights);
        self.reload_text(&text, "reloaded");
    }

    /// Writes the file with this time for idle clients in a drain, and has it read again.
    pub(crate) fn let_idle_clients_stay(&self, time: &str) {
        let text = configuration(&self.folder, self.address(), &self.backends, &[1, 1, 1]);
        self.reload_text(&format!("{text}\n[timeouts]\ndrain_idle = \"{time}\"\n"), "reloaded");
    }

    /// Writes a file that is none, has it read, and expects that the old one stays.
    pub(crate) fn reload_nonsense(&self) {
        self.reload_text("[[backend]\nurl = 7\n", "kept");
    }

    fn reload_text(&self, text: &str, word: &str) {
        let count = || self.balancer.stderr.so_far().lines().filter(|line| line.contains(word)).count();
        let before = count();
        fs::write(self.folder.path("threadbare.toml"), text).unwrap();
        self.balancer.signal(Signal::HUP);
        eventually(|| count() > before, &format!("a line with {word:?}"));
    }

    pub(crate) fn set_all(&self, mode: Mode) {
        for backend in &self.backends {
            backend.set(mode);
        }
    }

    /// What all backends have counted since they were started.
    pub(crate) fn counts(&self) -> Counts {
        let mut all = Counts::default();
        for counts in self.backends.iter().map(BackendProcess::counts) {
            all.requests += counts.requests;
            all.idle_closes += counts.idle_closes;
            all.spoilt += counts.spoilt;
            all.connections += counts.connections;
        }
        all
    }

    /// Adds a figure to the account.
    pub(crate) fn figure(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Adds a figure, and whether it is what this program sets out to reach. `TORTURE_GOALS=assert` makes a missed one
    /// a failure.
    pub(crate) fn goal(&mut self, is_met: bool, line: impl Into<String>) {
        let line = line.into();
        self.lines.push(format!("{line} ({})", if is_met { "as it should be" } else { "MISSED" }));
        if !is_met {
            self.missed.push(line);
        }
    }

    /// Ends the balancer, which must have nothing in flight, and closes the account.
    pub(crate) fn finish(mut self, tally: Tally) {
        let began = Instant::now();
        self.balancer.terminate();
        assert_eq!(self.balancer.exit_code(), 0, "something was cut short: {}", self.balancer.stderr.so_far());
        assert!(began.elapsed() < Duration::from_secs(2), "something was in flight for {:?}", began.elapsed());
        let said = self.balancer.stderr.so_far();
        assert!(!said.contains("panicked"), "a panic: {said}");
        self.close(tally);
    }

    /// Closes the account: prints the figures, and fails if something happened that must never happen.
    pub(crate) fn close(mut self, mut tally: Tally) {
        let mut executed: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for line in fs::read_to_string(self.folder.path("posts")).unwrap_or_default().lines() {
            let (id, backend) = line.split_once(' ').unwrap();
            executed.entry(id.parse().unwrap()).or_default().push(backend.to_owned());
        }
        let twice: Vec<_> = executed.iter().filter(|(_, backends)| backends.len() > 1).collect();
        for (id, backends) in &twice {
            tally.violations.push(format!("POST {id} was executed by {backends:?}"));
        }
        for sample in tally.samples.iter().filter(|sample| sample.is_post) {
            let Outcome::Whole(backend) = &sample.outcome else { continue };
            if executed.get(&sample.id).is_none_or(|backends| !backends.contains(backend)) {
                tally.violations.push(format!("POST {} was answered by {backend}, and not executed there", sample.id));
            }
        }
        let posts = tally.samples.iter().filter(|sample| sample.is_post).count();
        let mut account = format!(
            "\n{}\n  requests {} ({posts} POST, {} executed, {} twice), failed GET {}, failed POST {}, cut GET {}, cut \
             POST {}, repeated by clients {}\n  worst {:.2?}, over 1 s: {}\n",
            self.act,
            tally.samples.len(),
            executed.len(),
            twice.len(),
            tally.failed(false),
            tally.failed(true),
            tally.cut(false),
            tally.cut(true),
            tally.stale,
            tally.worst(),
            tally.longer_than(Duration::from_secs(1)),
        );
        for (why, count) in tally.reasons() {
            account += &format!("  {count} x {why}\n");
        }
        for line in self.lines.drain(..) {
            account += &format!("  {line}\n");
        }
        // Past the capture of passing tests: the figures are what an act is played for.
        io::stderr().write_all(account.as_bytes()).unwrap();
        assert!(!tally.samples.is_empty(), "nothing was asked");
        let (count, first) = (tally.violations.len(), tally.violations.iter().take(10).collect::<Vec<_>>());
        assert!(tally.violations.is_empty(), "{count} times what must never happen: {first:#?}");
        if env::var("TORTURE_GOALS").is_ok_and(|word| word == "assert") {
            assert!(self.missed.is_empty(), "missed: {:#?}", self.missed);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for backend in &self.backends {
            backend.go_on();
        }
    }
}

fn prepare(act: &str) -> (MutexGuard<'static, ()>, Folder, Vec<BackendProcess>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // An open loop against a backend that does not answer has a connection for each request.
    assert!(threadbare::net::raise_limit() >= 4096, "{act}: too few descriptors");
    let folder = Folder::new();
    let posts = folder.as_ref().join("posts");
    let backends = ["a", "b", "c"].map(|name| BackendProcess::start(name, &posts));
    (turn, folder, backends.into())
}

fn start(backends: &[BackendProcess], flags: &[(String, String)], address: &str) -> Program {
    let mut command = command();
    command.args(["--listen", address]);
    for backend in backends {
        command.args(["--backend", &backend.url()]);
    }
    for (flag, value) in flags {
        command.args([flag, value]);
    }
    Program::listening(&mut command)
}

fn configuration(folder: &Folder, address: SocketAddr, backends: &[BackendProcess], weights: &[u32]) -> String {
    let mut text = format!("handover = \"{}\"\n", folder.path("handover.sock"));
    text += &format!("[log]\naccess = \"off\"\n[[listener]]\naddress = \"{address}\"\n");
    for (backend, weight) in backends.iter().zip(weights).filter(|(_, weight)| **weight > 0) {
        text += &format!("[[backend]]\nname = \"{}\"\nurl = \"{}\"\nweight = {weight}\n", backend.name, backend.url());
    }
    text
}

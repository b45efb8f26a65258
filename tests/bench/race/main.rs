//! The race: `cargo bench --bench race`.
//!
//! threadbare and, where they are installed, nginx, HAProxy, Caddy and Go's `httputil.ReverseProxy` carry the same load
//! to the same two nginx backends, in turn, several rounds interleaved. A ratio is taken within a round, and of the
//! rounds the median: what else the machine does hits all of them, and cancels out. Beside them runs a *floor*: a relay
//! on our own lot that parses nothing, which shows what reading HTTP costs us.
//!
//! - `scenario`: what is asked for, and which bars must be taken there;
//! - `contender`: who races, and how each is set up;
//! - `backend`: who answers;
//! - `load`: who asks;
//! - `usage`: what it cost, as the kernel counts it;
//! - `floor`: the relay that parses nothing;
//! - `result`: medians, ratios and bars;
//! - `report`: tables, and the page in `docs`;
//! - `plot`: the pictures in it.
//!
//! nginx and wrk must be installed; strace adds the counts of system calls. A run without arguments takes about half
//! an hour; `-- --help` says how to choose less.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a bench prints, and fails by panicking")]

mod backend;
mod contender;
mod floor;
mod load;
mod plot;
mod report;
mod result;
mod scenario;
mod usage;

use backend::Backends;
use contender::{Contender, Running};
use load::{Crowd, Load};
use result::{Measured, Outcome, Sample};
use scenario::{Around, SCENARIOS, Scenario};
use std::path::PathBuf;
use std::time::Duration;
use usage::{Syscalls, Usage};

const HELP: &str = "\
cargo bench --bench race -- [options]
  --scenario NAME,...  only these; a name that ends in * stands for all that begin so
  --only NAME,...      only these contenders, beside threadbare
  --rounds N           rounds, interleaved [default: 5]
  --seconds N          whole seconds that each contender is loaded in each round [default: 2]
  --program PATH       race this build of threadbare [default: the one that cargo has just made]
  --write              write the results to docs/BENCHMARKS.md, and its pictures
  --list               say which scenarios there are";

/// What was asked for on the command line.
struct Options {
    scenarios: Vec<&'static Scenario>,
    contenders: Vec<Contender>,
    rounds: usize,
    seconds: u64,
    write: bool,
    command: String,
}

fn main() {
    // Cargo says so to every bench.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["role", "floor", listen, backends @ ..] => floor::relay(listen, backends),
        ["role", "slow", listen] => backend::slow(listen),
        ["--help" | "-h"] => println!("{HELP}"),
        ["--list"] => SCENARIOS.iter().for_each(|scenario| println!("{:18} {}", scenario.name, scenario.what)),
        words => race(&options(words)),
    }
}

fn options(words: &[&str]) -> Options {
    let (mut scenarios, mut only, mut program) = (Vec::new(), None, env!("CARGO_BIN_EXE_threadbare").to_owned());
    let (mut rounds, mut seconds, mut write) = (5, 2, false);
    let mut left = words.iter();
    while let Some(&word) = left.next() {
        let mut value = || *left.next().unwrap_or_else(|| panic!("{word} wants a value\n{HELP}"));
        match word {
            "--scenario" => scenarios.extend(value().split(',').flat_map(scenario::named)),
            "--only" => only = Some(value().split(',').map(str::to_owned).collect::<Vec<_>>()),
            "--rounds" => rounds = value().parse().expect("--rounds is a number"),
            "--seconds" => seconds = value().parse().expect("--seconds is a whole number"),
            "--program" => program = value().to_owned(),
            "--write" => write = true,
            _ => panic!("{word} is not known\n{HELP}"),
        }
    }
    assert!((1..=100).contains(&rounds) && (1..=60).contains(&seconds), "1 - 100 rounds of 1 - 60 seconds");
    let is_wanted =
        |name: &str| only.as_ref().is_none_or(|only| name == "threadbare" || only.iter().any(|o| o == name));
    Options {
        scenarios: if scenarios.is_empty() { SCENARIOS.iter().collect() } else { scenarios },
        contenders: contender::present(&program).into_iter().filter(|contender| is_wanted(contender.name())).collect(),
        rounds,
        seconds,
        write,
        command: format!("cargo bench --bench race -- {}", words.join(" ")),
    }
}

fn race(options: &Options) {
    threadbare::net::raise_limit();
    let workshop = Workshop::new();
    let present: Vec<String> = options.contenders.iter().map(Contender::title).collect();
    println!("{}\n\n{}\n", options.command, present.join(", "));
    let mut measured = Vec::new();
    for scenario in &options.scenarios {
        let done = run(scenario, options, &workshop);
        println!("{}", report::scenario(&done));
        measured.push(done);
    }
    println!("{}", report::bars(&measured));
    if options.write {
        report::write(&measured, &present, &options.command, options.rounds, options.seconds);
        plot::write(&measured);
    }
}

/// A folder for configurations, logs and files to be served, as long as this value lives.
pub(crate) struct Workshop(PathBuf);

impl Workshop {
    fn new() -> Workshop {
        let folder = std::env::temp_dir().join(format!("threadbare-race-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Workshop(folder)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.0);
    }
}

/// One scenario. In every round everybody is started afresh, warmed up and loaded, one after the other: where a process
/// happens to lie in memory, and which cores it shares with whom, lasts for its life and moves its numbers by a tenth.
fn run(scenario: &'static Scenario, options: &Options, workshop: &Workshop) -> Measured {
    let takes_part = |contender: &&Contender| scenario.floor || contender.name() != "floor";
    let contenders: Vec<&Contender> = options.contenders.iter().filter(takes_part).collect();
    let mut outcomes: Vec<Outcome> =
        contenders.iter().map(|contender| Outcome::new(contender.name(), contender.is_peer())).collect();
    for round in 0..options.rounds {
        let backends = Backends::start(scenario.around, &workshop.0);
        // Another one begins each time, so that nobody always follows the same neighbour.
        for turn in 0..contenders.len() {
            let nth = (turn + round) % contenders.len();
            let running = contenders[nth].start(&backends, scenario.log, &workshop.0);
            let load_for = |seconds| Load::of(scenario, running.address, seconds, &workshop.0).run();
            // We learn in the first second how long a backend keeps connections, which is of use to whoever sends bodies.
            load_for(if scenario.body > 0 { 2 } else { 1 });
            outcomes[nth].rounds.push(sample(scenario, &running, options.seconds, workshop));
            if round + 1 == options.rounds {
                outcomes[nth].syscalls = Syscalls::count(&running.processes(), &workshop.0, || load_for(1).requests);
            }
        }
    }
    Measured { scenario, outcomes }
}

/// One contender, loaded for so long.
fn sample(scenario: &Scenario, running: &Running, seconds: u64, workshop: &Workshop) -> Sample {
    let quiet = Usage::of(&running.processes());
    let crowd = match scenario.around {
        Around::IdleCrowd(size) => Some(Crowd::of(size, running.address)),
        Around::Nothing | Around::SlowBackends => None,
    };
    let crowded = crowd.as_ref().map(|_| Usage::of(&running.processes()));
    let before = Usage::of(&running.processes());
    let load = Load::of(scenario, running.address, seconds, &workshop.0).begin();
    std::thread::sleep(Duration::from_millis(600 * seconds));
    let midway = Usage::of(&running.processes());
    let answered = load.end();
    let after = Usage::of(&running.processes());
    Sample {
        requests: answered.requests,
        bytes: answered.bytes.max(answered.requests * scenario.body as u64),
        seconds: answered.seconds,
        failed: answered.failed,
        p50: answered.p50,
        p99: answered.p99,
        cpu: after.cpu - before.cpu,
        switches: after.switches - before.switches,
        resident: midway.resident,
        threads: midway.threads,
        idle_bytes: crowd
            .zip(crowded)
            .map(|(crowd, crowded)| (crowded.resident as f64 - quiet.resident as f64) / crowd.size() as f64),
    }
}

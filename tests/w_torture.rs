//! The torture test: what the program promises while everything around it breaks.
//!
//! Each act plays one kind of trouble, with real processes that are killed, stopped and restarted under load, and closes
//! with an account of what clients saw. What must never happen fails the act: an answer that went to another client, a
//! cut answer that looks whole, a POST that was executed twice, a GET that failed although a backend was there, an
//! exchange that never ended. What should not happen is a *goal*, and is printed with the figures.
//!
//!     cargo test --test w_torture -- --ignored
//!
//! takes about a minute; `TORTURE_SECONDS=120` plays longer, and `TORTURE_GOALS=assert` insists on the goals too. One
//! act alone is played by its name. The acts wait for one another. Twenty minutes of the storm alone:
//!
//!     TORTURE_SECONDS=6000 cargo test --test w_torture everything_breaks -- --ignored

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]
#![allow(clippy::cast_possible_truncation, reason = "samples and dice are small")]

#[path = "support/program.rs"]
mod program;
mod support;
mod torture;

use std::thread;
use std::time::{Duration, Instant};

use support::eventually;
use torture::backend::{Mode, be_one_if_told};
use torture::distance::Way;
use torture::load::{Client, Load, Outcome, Tally, open_loop};
use torture::scramble;
use torture::stage::{Stage, time};

/// Clients of most acts: enough to keep several requests at each backend, few enough for two cores.
const CLIENTS: usize = 16;

/// Of a hundred requests.
const POSTS: u64 = 25;

/// The longest that a client rests between two requests.
const PAUSE: Duration = Duration::from_millis(8);

/// Not a test: what the acts' backends run. Without the acts' word it ends at once.
#[test]
#[ignore = "the acts start it as a process of its own"]
fn be_a_backend() {
    be_one_if_told();
}

#[test]
#[ignore = "takes seconds: part of the torture test"]
fn one_of_three_is_killed_and_comes_back() {
    let mut stage = Stage::set("kill -9 of one backend of three", &[]);
    let load = Load::start(stage.address(), CLIENTS, POSTS, PAUSE);
    let period = time(0.1).min(Duration::from_secs(3));
    let kills = (time(0.1).as_secs_f64() / period.as_secs_f64()) as usize;
    let mut returns = Vec::new();
    for nth in 0..kills {
        // What is slept here is how long the trouble lasts.
        thread::sleep(period / 4);
        stage.backends[nth % 3].kill();
        thread::sleep(period / 4);
        stage.backends[nth % 3].restart();
        returns.push((nth % 3, Instant::now()));
        thread::sleep(period / 2);
    }
    let tally = load.finish();
    assert_eq!(tally.failed(false), 0, "GETs failed with two backends left: {:?}", tally.reasons());
    assert!(tally.failed(true) + tally.cut(true) <= CLIENTS * kills, "more POSTs failed than were in flight");
    assert!(tally.cut(false) <= CLIENTS * kills, "more answers were cut than were in flight");
    stage.figure(format!("kills: {kills}"));
    for (nth, moment) in returns {
        let back = tally.share_back(["a", "b", "c"][nth], 1.0 / 3.0, moment);
        let is_met = back.is_some_and(|time| time <= Duration::from_secs(1));
        stage.goal(is_met, format!("share back after its restart: {back:.0?}"));
    }
    stage.finish(tally);
}

#[test]
#[ignore = "takes seconds: part of the torture test"]
fn backends_are_restarted_one_after_the_other() {
    let mut stage = Stage::set("rolling restart of all backends", &[]);
    let load = Load::start(stage.address(), CLIENTS, POSTS, PAUSE);
    let began = Instant::now();
    let mut restarts = 0;
    while began.elapsed() < time(0.08) {
        let backend = &mut stage.backends[restarts % 3];
        backend.leave();
        backend.restart();
        restarts += 1;
        thread::sleep(Duration::from_millis(200)); // as a deployment waits for what it started
    }
    assert!(restarts >= 3, "not every backend was restarted");
    let tally = load.finish();
    assert_eq!(tally.failed(false) + tally.cut(false), 0, "GETs failed with two backends left: {:?}", tally.reasons());
    stage.figure(format!("restarts: {restarts}"));
    let failed = tally.failed(true) + tally.cut(true);
    stage.goal(failed == 0, format!("failed POST: {failed}"));
    stage.finish(tally);
}

#[test]
#[ignore = "takes seconds: part of the torture test"]
fn one_of_three_stands_still() {
    let mut stage = Stage::set("SIGSTOP of one backend of three", &[]);
    let still = time(0.1).min(Duration::from_secs(5));
    let lead = Duration::from_millis(500);
    // Of three backends a stopped one would have got 267 a second: five seconds are a third of 4,000 requests.
    let load = open_loop(stage.address(), 800, lead + still + Duration::from_secs(1));
    thread::sleep(lead);
    stage.backends[0].stop();
    thread::sleep(still);
    stage.backends[0].go_on();
    let tally = load.join().unwrap();
    assert_eq!(tally.failed(false) + tally.cut(false), 0, "requests failed: {:?}", tally.reasons());
    let (late, all) = (tally.longer_than(Duration::from_secs(1)), tally.samples.len());
    let by_others = tally.samples.iter().filter(|sample| sample.outcome != Outcome::Whole("a".to_owned()));
    let busy = by_others.filter(|sample| sample.took > Duration::from_secs(1)).count();
    stage.figure(format!("of those over 1 s, answered by one that was not stopped: {busy}"));
    stage.goal(late < 100, format!("stopped for {still:?}; over 1 s: {late} of {all} in an open loop"));
    stage.finish(tally);
}

#[test]
#[ignore = "takes seconds: part of the torture test"]
fn backends_close_idle_connections_at_any_moment() {
    let mut stage = Stage::set("backends that close idle connections after 0.2 to 12 ms", &[]);
    stage.set_all(Mode::ClosesIdle);
    // Rests are as long as the backends' patience: this is where a close and a request meet.
    let load = Load::start(stage.address(), 2 * CLIENTS, 50, Duration::from_millis(25));
    thread::sleep(time(0.1));
    let tally = load.finish();
    let closes = stage.counts().idle_closes;
    assert!(closes > 100, "only {closes} idle connections were closed");
    assert_eq!(tally.failed(false) + tally.cut(false), 0, "GETs failed: {:?}", tally.reasons());
    let failed = tally.failed(true) + tally.cut(true);
    let rate = 1000.0 * failed as f64 / closes as f64;
    stage.goal(failed == 0, format!("failed POST per 1,000 closes: {rate:.1} ({failed} of {closes} closes)"));
    stage.finish(tally);
}

#[test]
#[ignore = "takes seconds: part of the torture test"]
fn a_backend_comes_and_goes() {
    let mut stage = Stage::set("one backend closes its listener and opens it again, over and over", &[]);
    let load = Load::start(stage.address(), CLIENTS, POSTS, PAUSE);
    let began = Instant::now();
    let mut flaps = 0;
    while began.elapsed() < time(0.06) {
        stage.backends[0].set(Mode::Deaf);
        thread::sleep(Duration::from_millis(60));
        stage.backends[0].set(Mode::Normal);
        thread::sleep(Duration::from_millis(60));
        flaps += 1;
    }
    let tally = load.finish();
    assert_eq!(tally.failed(false) + tally.cut(false), 0, "GETs failed with two backends left: {:?}", tally.reasons());
    let failed = tally.failed(true) + tally.cut(true);
    stage.goal(failed == 0, format!("failed POST: {failed} in {flaps} flaps"));
    stage.finish(tally);
}

#[test]
#[ignore = "takes seconds: part of the torture test"]
fn a_graceful_stop_loses_nothing_and_another_process_takes_the_place() {
    let mut stage = Stage::set("graceful stop under load, and a start in its place", &[]);
    stage.set_all(Mode::Slow(40));
    let load = Load::start(stage.address(), CLIENTS, POSTS, PAUSE);
    eventually(|| load.begun() > 10 * CLIENTS, "the load has begun");
    let stopped = Instant::now();
    stage.balancer.terminate();
    assert_eq!(stage.balancer.exit_code(), 0, "something was cut short: {}", stage.balancer.stderr.so_far());
    let ended = Instant::now();
    stage.balancer.wait_until_refusing();
    stage.start_again();
    let started = Instant::now();
    thread::sleep(time(0.04));
    let tally = load.finish();
    let in_flight = tally.samples.iter().filter(|sample| sample.began < stopped && sample.ended() > stopped);
    let lost = in_flight.clone().filter(|sample| !matches!(sample.outcome, Outcome::Whole(_))).count();
    let last = in_flight.clone().map(|sample| sample.ended()).max().unwrap_or(stopped);
    let begun = in_flight.count();
    // A client that asks on a kept connection at the moment when it closes cannot know whether it was heard.
    assert!(begun > 0, "nothing was in flight");
    stage.goal(lost == 0, format!("in flight at the signal: {begun}, lost: {lost}"));
    let after_last = ended.saturating_duration_since(last);
    stage.figure(format!("exit 0 {:.0?} after the signal, {after_last:.0?} after the last answer", ended - stopped));
    let (refused, other): (Vec<_>, Vec<_>) = tally
        .samples
        .iter()
        .filter(|sample| sample.began >= stopped && !matches!(sample.outcome, Outcome::Whole(_)))
        .partition(|sample| matches!(&sample.outcome, Outcome::Nothing(why) if why.contains("refused")));
    stage.figure(format!("refused until the next one listened: {} in {:.0?}", refused.len(), started - ended));
    stage.goal(other.is_empty(), format!("begun after the signal and lost otherwise: {}", other.len()));
    let late = tally.samples.iter().filter(|sample| sample.began > started);
    let late_failures = late.filter(|sample| !matches!(sample.outcome, Outcome::Whole(_))).count();
    assert_eq!(late_failures, 0, "requests failed after the restart");
    stage.finish(tally);
}

#[test]
#[ignore = "takes seconds: part of the torture test"]
fn a_reload_under_load_fails_nothing() {
    let mut stage = Stage::set_with_file("reload under load");
    let load = Load::start(stage.address(), CLIENTS, POSTS, Duration::from_millis(1));
    let began = Instant::now();
    let mut reloads = 0;
    while began.elapsed() < time(0.08) {
        let die = scramble(reloads);
        let weight = |shift: u32| (die >> shift) as u32 % 3;
        // One of the three is always there.
        stage.reload(&[1 + weight(8), weight(16), weight(24)]);
        reloads += 1;
        if reloads % 4 == 0 {
            stage.reload_nonsense();
        }
        thread::sleep(Duration::from_millis(50));
    }
    let tally = load.finish();
    let failed = tally.failed(false) + tally.failed(true) + tally.cut(false) + tally.cut(true);
    assert_eq!(failed, 0, "of {} requests in {reloads} reloads: {:?}", tally.samples.len(), tally.reasons());
    stage.figure(format!("reloads: {reloads}, failed: {failed}"));
    stage.finish(tally);
}

#[test]
#[ignore = "takes seconds: part of the torture test"]
fn a_new_process_takes_the_sockets_over() {
    let mut stage = Stage::set_with_file("restart with a hand-over of the sockets");
    assert!(stage.can_hand_over(), "the balancer waits for no successor: {}", stage.balancer.stderr.so_far());
    let load = Load::start(stage.address(), CLIENTS, POSTS, PAUSE);
    let began = Instant::now();
    let mut restarts = 0;
    while began.elapsed() < time(0.06) {
        thread::sleep(Duration::from_millis(200));
        stage.hand_over();
        restarts += 1;
    }
    let tally = load.finish();
    assert_eq!(tally.failed(false) + tally.cut(false), 0, "GETs failed: {:?}", tally.reasons());
    let failed = tally.failed(true) + tally.cut(true);
    stage.goal(failed == 0, format!("failed POST: {failed} in {restarts} restarts"));
    stage.finish(tally);
}

#[test]
#[ignore = "takes seconds: part of the torture test"]
fn a_restart_is_noticed_at_a_distance_by_those_who_were_silent() {
    let mut stage = Stage::set_with_file("restart with a hand-over, from 40 ms away and from nearby");
    let clients = 100;
    let mut all = Tally::default();
    for (away, rest, stay) in [(40, 500, "1s"), (40, 1500, "1s"), (0, 1500, "1s"), (40, 1500, "10s")] {
        stage.let_idle_clients_stay(stay);
        let way = Way::to(stage.address(), Duration::from_millis(away));
        let load = Load::regular(way.address, clients, Duration::from_millis(rest));
        let another = 2 * clients as usize;
        eventually(|| load.begun() > another, "every client knows the balancer");
        stage.hand_over();
        let begun = load.begun();
        eventually(|| load.begun() > begun + another, "every client has met the new one");
        let tally = load.finish();
        let met = format!("{} of {} requests met the close", tally.stale, tally.samples.len());
        let line = format!("{away} ms away, each client asks every {rest} ms, --drain-idle {stay}: {met}");
        // Whoever was silent for less than that is answered, and told then that the connection closes.
        if rest < 1000 || stay == "10s" {
            stage.goal(tally.stale == 0, line)
        } else {
            stage.figure(line)
        }
        all.add(tally);
    }
    assert_eq!(all.failed(false) + all.cut(false), 0, "sent again, a GET is answered: {:?}", all.reasons());
    stage.finish(all);
}

#[test]
#[ignore = "takes seconds: part of the torture test"]
fn all_backends_reset_everything() {
    let mut stage = Stage::set("all backends reset everything", &[]);
    let mut tally = Tally::default();
    stage.set_all(Mode::Reset);
    let before = stage.counts().requests;
    let load = Load::start(stage.address(), CLIENTS, POSTS, PAUSE);
    thread::sleep(time(0.04));
    let troubled = load.finish();
    let tries = (stage.counts().requests - before) as f64 / troubled.samples.len() as f64;
    assert!(tries <= 3.0, "{tries} tries for each request");
    stage.goal(tries <= 1.3, format!("tries per request: {tries:.2}"));
    tally.add(troubled);
    stage.set_all(Mode::Normal);
    let mended = Instant::now();
    // Clean once every client has had ten good answers in a row, however long backends stay ejected.
    let mut client = Client::new(stage.address());
    let mut row = 0;
    while row < 10 * CLIENTS {
        client.ask(row % 4 == 0, Instant::now());
        let good = matches!(client.tally.samples.last().unwrap().outcome, Outcome::Whole(_));
        row = if good { row + 1 } else { 0 };
        assert!(mended.elapsed() < Duration::from_secs(40), "never clean again: {:?}", client.tally.reasons());
        thread::sleep(Duration::from_millis(1));
    }
    let bad = client.tally.samples.iter().filter(|sample| !matches!(sample.outcome, Outcome::Whole(_)));
    let clean = bad.map(|sample| sample.ended() - mended).max().unwrap_or_default();
    stage.goal(clean <= Duration::from_secs(2), format!("clean again after {clean:.0?}"));
    tally.add(client.tally);
    stage.finish(tally);
}

#[test]
#[ignore = "takes seconds: part of the torture test"]
fn a_slow_backend_gets_less_under_least_in_flight() {
    let mut stage = Stage::set("one backend ten times slower, least in flight", &[("--policy", "least_in_flight")]);
    stage.set_all(Mode::Slow(4));
    stage.backends[2].set(Mode::Slow(40));
    let load = Load::start(stage.address(), CLIENTS, POSTS, Duration::ZERO);
    thread::sleep(time(0.06));
    let tally = load.finish();
    let share = 100.0 * tally.answered_by("c") as f64 / tally.samples.len() as f64;
    assert_eq!(tally.failed(false) + tally.failed(true), 0, "{:?}", tally.reasons());
    stage.goal(share < 10.0, format!("the slow backend's share: {share:.1} % (4.8 % by its speed, 33 % in turns)"));
    stage.finish(tally);
}

#[test]
#[ignore = "takes seconds: part of the torture test"]
fn everything_breaks_at_once_and_nothing_stays_behind() {
    let mut stage = Stage::set_with_file("the storm");
    // A calm load first, so that what it leaves is what the storm may leave too.
    let load = Load::start(stage.address(), CLIENTS, POSTS, PAUSE);
    thread::sleep(time(0.03));
    let mut tally = load.finish();
    let left_by_all = |stage: &Stage| stage.counts().connections == 0;
    eventually(|| left_by_all(&stage), "every spare is closed");
    let before = Footprint::of(&stage);

    let load = Load::start(stage.address(), CLIENTS, POSTS, PAUSE);
    let began = Instant::now();
    let (mut die, mut blows) = (1, [0; 8]);
    while began.elapsed() < time(0.2) {
        die = scramble(die);
        // One at a time: there is always a backend that could have answered.
        let victim = (die >> 8) as usize % 3;
        let lasts = Duration::from_millis(20 + (die >> 16) % 150);
        let kind = (die >> 32) as usize % blows.len();
        blows[kind] += 1;
        match kind {
            0 => {
                stage.backends[victim].kill();
                thread::sleep(lasts);
                stage.backends[victim].restart();
            }
            1 => {
                stage.backends[victim].stop();
                thread::sleep(lasts);
                stage.backends[victim].go_on();
            }
            _ => {
                let modes = [Mode::Cut, Mode::Close, Mode::Reset, Mode::Slow(30), Mode::ClosesIdle, Mode::Deaf];
                stage.backends[victim].set(modes[kind - 2]);
                thread::sleep(lasts);
                stage.backends[victim].set(Mode::Normal);
            }
        }
        if die % 3 == 0 {
            stage.reload(&[1, 1 + (die >> 40) as u32 % 2, 1]);
        }
        thread::sleep(Duration::from_millis(20));
    }
    let calm = Instant::now();
    thread::sleep(time(0.03));
    tally.add(load.finish());
    let begun_calm = tally.samples.iter().filter(|sample| sample.began > calm);
    let late = begun_calm.filter(|sample| !matches!(sample.outcome, Outcome::Whole(_))).count();
    assert_eq!(late, 0, "requests failed after the storm: {:?}", tally.reasons());
    assert_eq!(tally.failed(false), 0, "GETs failed though a backend was well: {:?}", tally.reasons());

    eventually(|| left_by_all(&stage), "every spare is closed");
    let after = Footprint::of(&stage);
    let names = "kills, stops, cuts, closes, resets, slow, idle closes, deaf";
    stage.figure(format!("blows: {blows:?} ({names})"));
    stage.figure(format!("before {before:?}, after {after:?}"));
    if let (Some(before), Some(after)) = (before, after) {
        assert!(after.descriptors <= before.descriptors + 2, "descriptors: {before:?}, then {after:?}");
        assert_eq!(after.threads, before.threads, "threads");
        // The allocator keeps what the storm's buffers took; a leak of one answer in a hundred would be more.
        assert!(after.memory <= before.memory + 16 * 1024, "memory in KiB: {before:?}, then {after:?}");
    }
    stage.finish(tally);
}

/// What the balancer holds.
#[derive(Clone, Copy, Debug)]
struct Footprint {
    descriptors: usize,
    threads: u64,
    /// Resident, in KiB.
    memory: u64,
}

impl Footprint {
    /// None where there is no `/proc`.
    fn of(stage: &Stage) -> Option<Self> {
        let balancer = &stage.balancer;
        Some(Self {
            descriptors: balancer.descriptors()?,
            threads: balancer.status("Threads")?,
            memory: balancer.status("VmRSS")?,
        })
    }
}

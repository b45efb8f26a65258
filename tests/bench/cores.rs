//! What would wear out first on more cores than we have: `cargo bench --bench cores`.
//!
//! First the costs of what workers share are measured here: a counter that two cores want, a list of spares behind its
//! lock, a poll of their `epoll`. Then a simulation of workers that do nothing but take turns and share these things says how
//! many requests a second come of it on 2 to 256 cores. It knows nothing of clients (there is always something to do),
//! of the kernel's own locks but the one in an `epoll`, of memory and of sockets on the other half of the machine: what it
//! shows is a ceiling, and which shared thing is it.
//!
//! `-- --as-documented` simulates with the costs that stand in `docs/ARCHITECTURE.md`; its numbers are always the same.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a bench prints, and fails by panicking")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// All times are nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Costs {
    /// A turn, but for what is shared: half of a small GET.
    turn: u64,
    /// One addition to a counter that another core has just added to.
    counter: u64,
    /// Taking the lock of the spares, a change to the list, and letting go, when another core has just done the same.
    spares: u64,
    /// A poll that finds [`EVENTS`], when another core has just polled: the kernel lets one at a time take them.
    poll: u64,
}

/// What was measured on two cores of a virtual machine (AMD EPYC), in a quiet moment.
const DOCUMENTED: Costs = Costs { turn: 14_000, counter: 10, spares: 60, poll: 1800 };

/// At most so many events are told at once.
const EVENTS: usize = 16;

fn main() {
    let as_documented = std::env::args().any(|arg| arg == "--as-documented");
    let costs = if as_documented { DOCUMENTED } else { measured() };
    println!("| shared thing | ns |\n|---|---|");
    for (name, cost) in [
        ("turn, half of a small GET (given)", costs.turn),
        ("counter", costs.counter),
        ("spares", costs.spares),
        ("poll", costs.poll),
    ] {
        println!("| {name} | {cost} |");
    }
    println!(
        "\n| cores | one lot | lots of 8 cores | and counters of their own | nothing shared |\n|---|---|---|---|---|"
    );
    for cores in [2, 8, 32, 64, 128, 256] {
        let one = simulate(cores, &Design { cores_a_lot: cores, cores_a_counter: cores }, costs);
        let lots = simulate(cores, &Design { cores_a_lot: 8, cores_a_counter: cores }, costs);
        let own = simulate(cores, &Design { cores_a_lot: 8, cores_a_counter: 8 }, costs);
        let ideal = cores as f64 * 1e9 / (2.0 * costs.turn as f64);
        let cell = |rate: f64| format!("{:.2} M/s ({:.0} %)", rate / 1e6, 100.0 * rate / ideal);
        println!("| {cores} | {} | {} | {} | {:.2} M/s |", cell(one), cell(lots), cell(own), ideal / 1e6);
    }
}

/// Who shares what.
struct Design {
    cores_a_lot: usize,
    /// Counters and spares.
    cores_a_counter: usize,
}

/// Something that one core at a time can have, and the others wait for in the order in which they come.
#[derive(Clone, Copy, Default)]
struct Shared {
    free_at: u64,
    last: usize,
}

impl Shared {
    /// Uses it; returns when that is done. Whoever had it last has it at hand.
    fn used_by(&mut self, core: usize, from: u64, cost: u64) -> u64 {
        let cost = if self.last == core { cost / 8 } else { cost };
        self.last = core;
        self.free_at = self.free_at.max(from) + cost;
        self.free_at
    }
}

/// What a worker does next. A request is two turns: one that sends it on, one that brings back its answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Poll,
    /// So many turns are left of those that the last poll gave.
    Turn(u64),
    /// The shared words that one turn touches: the turns' number, a backend's counts, the snapshot's count.
    Count(u64, usize),
    Spares(u64),
}

/// In each turn, so many shared words are written: 21 a request before those were cut that could be, 13 now, which lie in
/// about six places.
const PLACES_A_TURN: usize = 3;

/// Requests a second.
fn simulate(cores: usize, design: &Design, costs: Costs) -> f64 {
    const SPAN: u64 = 50_000_000; // 50 ms
    let mut polls = vec![Shared::default(); cores.div_ceil(design.cores_a_lot)];
    let groups = cores.div_ceil(design.cores_a_counter);
    // Two backends share the requests: each group has words of its own for each place.
    let mut counters = vec![[Shared::default(); 8]; groups];
    let mut spares = vec![[Shared::default(); 2]; groups];
    let mut workers: BinaryHeap<Reverse<(u64, usize, Step)>> =
        (0..cores).map(|core| Reverse((core as u64 * 97, core, Step::Poll))).collect();
    let mut number: u64 = 1;
    let mut turns = 0;
    while let Some(Reverse((now, core, step))) = workers.pop() {
        if now > SPAN {
            break;
        }
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let chance = number >> 33;
        let one_of_two = usize::from(chance.is_multiple_of(2));
        let (lot, group) = (core / design.cores_a_lot, core / design.cores_a_counter);
        let next = match step {
            Step::Poll => (polls[lot].used_by(core, now, costs.poll), Step::Turn(EVENTS as u64)),
            Step::Turn(0) => (now, Step::Poll),
            Step::Turn(left) => {
                turns += 1;
                // No two turns take the same time: a quarter more or less.
                let time = costs.turn * 3 / 4 + chance % (costs.turn / 2);
                (now + time, Step::Count(left, PLACES_A_TURN))
            }
            Step::Count(left, 0) => (now, Step::Spares(left)),
            Step::Count(left, places) => {
                let place = &mut counters[group][places + 3 * one_of_two];
                (place.used_by(core, now, costs.counter), Step::Count(left, places - 1))
            }
            Step::Spares(left) => {
                let list = &mut spares[group][one_of_two];
                (list.used_by(core, now, costs.spares), Step::Turn(left - 1))
            }
        };
        workers.push(Reverse((next.0, core, next.1)));
    }
    turns as f64 / 2.0 / (SPAN as f64 / 1e9)
}

fn measured() -> Costs {
    Costs { turn: DOCUMENTED.turn, counter: counter(), spares: spares(), poll: poll() }
}

const TIMES: u64 = 2_000_000;

/// Nanoseconds for each of so many runs, of two threads at once.
fn contended(times: u64, work: impl Fn() + Sync) -> u64 {
    let start = Barrier::new(2);
    let run = || {
        start.wait();
        let began = Instant::now();
        (0..times).for_each(|_| work());
        began.elapsed()
    };
    let longest = thread::scope(|scope| {
        let other = scope.spawn(run);
        run().max(other.join().unwrap())
    });
    // Two threads have done it so often, one after the other.
    each(longest, 2 * times)
}

fn each(time: Duration, times: u64) -> u64 {
    u64::try_from(time.as_nanos()).unwrap() / times
}

fn counter() -> u64 {
    let counter = AtomicU64::new(0);
    contended(TIMES, || _ = counter.fetch_add(1, Ordering::Relaxed))
}

fn spares() -> u64 {
    let list = Mutex::new(vec![[0u64; 8]; 64]);
    contended(TIMES, || {
        let spare = list.lock().unwrap().pop();
        list.lock().unwrap().extend(black_box(spare));
    }) / 2
}

/// A poll that finds sixteen of 64 sockets readable, while another thread polls the same `epoll`.
#[cfg(target_os = "linux")]
fn poll() -> u64 {
    use rustix::event::{Timespec, epoll};
    use std::io::Write;
    use std::mem::MaybeUninit;
    use std::os::unix::net::UnixStream;
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let pairs: Vec<(UnixStream, UnixStream)> = (0..64).map(|_| UnixStream::pair().unwrap()).collect();
    for (nth, (near, far)) in (0..).zip(&pairs) {
        // Nobody reads this, and nobody has asked for edges: each poll tells of some again, each time of the next.
        (&*far).write_all(b"x").unwrap();
        epoll::add(&poller, near, epoll::EventData::new_u64(nth), epoll::EventFlags::IN).unwrap();
    }
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    contended(TIMES / 10, || {
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        let (told, _) = epoll::wait(&poller, &mut room, Some(&at_once)).unwrap();
        assert_eq!(told.len(), EVENTS);
    })
}

/// Where there is no `epoll`, nobody polls while another does.
#[cfg(not(target_os = "linux"))]
fn poll() -> u64 {
    DOCUMENTED.poll
}

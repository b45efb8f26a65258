//! Looks the names of backends up again, now and then, in a thread of its own: a resolver may take its time.
//!
//! The last good answer stays. A backend whose name had no address when it was configured gets one as soon as there is
//! one: such names are asked for every second, unless the resolver takes longer. It often does for a name that it doesn't
//! find: so these have rounds of their own, and the others wait for one of them at most. What comes of another answer is
//! the business of `live`.

use crate::balance::BackendSettings;
use crate::live::Live;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// As often at least is it asked for a name that has no address yet.
const EAGER: Duration = Duration::from_secs(1);

/// The thread that looks names up. Dropped, it ends; a look-up that is under way is left behind.
pub struct Names {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Names {
    /// Begins to look up the names of these backends, at the configured interval, a tenth more or less.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start<L: AsRef<Live> + Send + Sync + 'static>(live: Arc<L>) -> io::Result<Names> {
        let stopped = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stopped);
        let thread = thread::Builder::new().name("names".to_owned()).spawn(move || {
            let live = (*live).as_ref();
            let found = Round::begun(Whom::Found); // the start has just looked
            look_up(live, Whom::Missing); // and had less patience
            let mut rounds = [found, Round::begun(Whom::Missing)]; // in this order, when both are due
            while !is_stopped.load(Ordering::Acquire) {
                for round in &mut rounds {
                    if round.time_left(live).is_zero() {
                        look_up(live, round.whom);
                        *round = Round::begun(round.whom);
                    }
                }
                let left = rounds.iter().map(|round| round.time_left(live)).min();
                thread::park_timeout(left.unwrap_or_default());
            }
        })?;
        Ok(Names { stopped, thread })
    }

    /// Another configuration holds: its interval counts from the last look, and a new name without an address is asked for
    /// again within a second.
    pub fn wake(&self) {
        self.thread.thread().unpark();
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        self.wake();
    }
}

/// Whose turn it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// Names that have an address.
    Found,
    /// Names that have had none yet.
    Missing,
}

/// When names of one kind were looked up last.
struct Round {
    whom: Whom,
    last: Instant,
    dice: u32,
}

impl Round {
    fn begun(whom: Whom) -> Round {
        Round { whom, last: Instant::now(), dice: roll() }
    }

    /// How long until the next.
    fn time_left(&self, live: &Live) -> Duration {
        let interval = with_jitter(live.current().config.balance.resolve_interval, self.dice); // a reload may have changed it
        let interval = match self.whom {
            Whom::Found => interval,
            Whom::Missing if live.lacks_address() => interval.min(EAGER),
            Whom::Missing => return Duration::MAX,
        };
        interval.saturating_sub(self.last.elapsed())
    }
}

/// Looks these names up, one after the other.
fn look_up(live: &Live, whom: Whom) {
    let mut found = Vec::new();
    let snapshot = live.current();
    let is_asked_for = |settings: &&BackendSettings| {
        !settings.origin.is_address() && (whom == Whom::Missing) == snapshot.lacks_address(settings)
    };
    for settings in snapshot.config.backends.iter().filter(is_asked_for) {
        match live.look_up(&settings.origin) {
            Ok(addresses) if addresses.is_empty() => {}
            Ok(addresses) => found.push((settings.origin.clone(), addresses)),
            // Said once a change, not once an interval: a name that was never found has been complained of already.
            Err(error) => log::debug!("backend {} is not to be found, and stays where it was: {error}", settings.name),
        }
    }
    if !found.is_empty() {
        live.locate(&found);
    }
}

/// Many copies of this program that were started together don't ask together.
fn with_jitter(interval: Duration, dice: u32) -> Duration {
    let tenth = interval / 10;
    interval - tenth + tenth * 2 * dice / 1000
}

/// A number below 1000, by chance.
fn roll() -> u32 {
    let dice = RandomState::new().hash_one(0) % 1000; // keys of its own each time, from the system
    u32::try_from(dice).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_differ_by_a_tenth_at_most() {
        let interval = Duration::from_secs(10);
        let rolls: Vec<Duration> = (0..100).map(|_| with_jitter(interval, roll())).collect();
        assert!(rolls.iter().all(|roll| (9..=11).contains(&roll.as_secs())), "{rolls:?}");
        assert!(rolls.iter().any(|roll| roll != &rolls[0]), "{rolls:?}");
    }
}

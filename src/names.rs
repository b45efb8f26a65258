//! Looks the names of backends up again, now and then, in a thread of its own: a resolver may take its time.
//!
//! The last good answer stays. A backend whose name had no address when it was configured gets one as soon as there is
//! one: such names are asked for every second. What comes of another answer is the business of `live`.

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
            let (mut last, mut dice) = (Instant::now(), roll()); // the start has just looked
            while !is_stopped.load(Ordering::Acquire) {
                let time_left = |last: Instant, dice| {
                    let interval = live.current().config.balance.resolve_interval; // a reload may have changed it
                    with_jitter(interval, dice).saturating_sub(last.elapsed())
                };
                let is_due = time_left(last, dice).is_zero();
                look_up(live, is_due);
                if is_due {
                    (last, dice) = (Instant::now(), roll());
                }
                let left = time_left(last, dice);
                thread::park_timeout(if live.lacks_address() { left.min(EAGER) } else { left });
            }
        })?;
        Ok(Names { stopped, thread })
    }

    /// Another configuration holds: its interval counts from the last look, and a new name without an address is asked for
    /// again.
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

/// Looks up all names, or those alone that have no address yet.
fn look_up(live: &Live, all: bool) {
    let mut found = Vec::new();
    let snapshot = live.current();
    let is_asked_for =
        |settings: &&BackendSettings| !settings.origin.is_address() && (all || snapshot.lacks_address(settings));
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

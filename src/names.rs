//! Looks the names of backends up again, now and then, in a thread of its own: a resolver may take its time.
//!
//! The last good answer stays. A backend whose name had no address when it was configured gets one as soon as there is
//! one. What comes of another answer is the business of `live`.

use crate::live::Live;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

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
            // The start did not wait long for an answer: here it may take its time.
            if live.lacks_address() {
                look_up(live);
            }
            while !is_stopped.load(Ordering::Acquire) {
                let interval = live.current().config.balance.resolve_interval;
                thread::park_timeout(with_jitter(interval));
                if is_stopped.load(Ordering::Acquire) {
                    return;
                }
                look_up(live);
            }
        })?;
        Ok(Names { stopped, thread })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        self.thread.thread().unpark();
    }
}

fn look_up(live: &Live) {
    let mut found = Vec::new();
    for settings in live.current().config.backends.iter().filter(|settings| !settings.origin.is_address()) {
        match live.look_up(&settings.origin) {
            Ok(addresses) if addresses.is_empty() => {}
            Ok(addresses) => found.push((settings.origin.clone(), addresses)),
            // Said once a change, not once an interval: a name that was never found has been complained of already.
            Err(error) => log::debug!("backend {} is not to be found, and stays where it was: {error}", settings.name),
        }
    }
    live.locate(&found);
}

/// Many copies of this program that were started together don't ask together.
fn with_jitter(interval: Duration) -> Duration {
    let tenth = interval / 10;
    let dice = RandomState::new().hash_one(0) % 1000; // keys of its own each time, from the system
    interval - tenth + tenth * 2 * u32::try_from(dice).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_differ_by_a_tenth_at_most() {
        let interval = Duration::from_secs(10);
        let rolls: Vec<Duration> = (0..100).map(|_| with_jitter(interval)).collect();
        assert!(rolls.iter().all(|roll| (9..=11).contains(&roll.as_secs())), "{rolls:?}");
        assert!(rolls.iter().any(|roll| roll != &rolls[0]), "{rolls:?}");
    }
}

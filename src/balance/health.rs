//! Whether a backend is fit for requests, as far as anybody can tell.
//!
//! Evidence comes from three sides: what requests meet with (*passive*), what checks meet with (*active*), and who
//! knocks at a backend that refused. The facts and rules are in `state`, which is pure: no clock, no lock,
//! numbers in and verdicts out. This file makes them cheap to share: whoever asks about a backend reads one atomic
//! word, and only a change takes the lock. What a change amounts to comes back as a `Flip`, so that it is said once.
//!
//! No socket and no clock may enter: `now` is handed in.

mod fastest;
mod flip;
mod state;
#[cfg(test)]
mod tests;

pub use flip::{Failure, Flip, Verdict, Why};

use super::{Account, ActiveHealth, PassiveHealth};
use fastest::Fastest;
use state::{Claim, State};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is known of one backend. Shared by all who use or check it.
#[derive(Debug)]
pub struct Health {
    /// Times are counted from here, in milliseconds.
    born: Instant,
    /// What `state` comes to: a time, and in the lowest bits what it is the time of. Zero while all is well.
    word: AtomicU64,
    /// When the backend last answered, or last got something to do.
    progress: AtomicU64,
    /// How many unanswered requests are many.
    many: AtomicUsize,
    /// For how long they have to be fewer until it is forgotten that they were many; in milliseconds.
    stall: AtomicU64,
    /// When they became so many, for the first time since an answer, or since they had been fewer for `stall`.
    crowded: AtomicU64,
    /// Since when every tick has found fewer. [`NOT_FEW`]: the last one has not, or they have become many since.
    few_since: AtomicU64,
    fastest: Fastest,
    state: Mutex<State>,
    /// Where changes are counted.
    account: Option<Arc<Account>>,
}

/// What a backend may be given now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Standing {
    /// Requests.
    In {
        /// The part of its weight that counts: below 1 for a while after it came back.
        share: f64,
    },
    /// One request, for whoever gets hold of [`Health::claim_trial`].
    TrialDue,
    /// Nothing, until then; or while a trial is under way.
    Ejected(Why, Instant),
    /// Nothing: its checks fail, or its name has no address.
    Down,
}

/// How a backend looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// In rotation.
    Up,
    /// Out on passive evidence; so long until a request may try it.
    Ejected(Why, Duration),
    /// Out on passive evidence, and a request is trying it.
    OnTrial(Why),
    /// Out because its checks fail, or its name has no address.
    Down,
}

/// One request's leave to try an ejected backend. Dropped without a result (the client left), it goes to the next.
#[derive(Debug)]
#[must_use = "a trial that is dropped has told nothing"]
pub struct Trial {
    health: Arc<Health>,
    claim: Claim,
    is_settled: bool,
}

// The flags in the word. None of them: in rotation, and nothing to remember.
/// Failures have been counted that an answer makes forgotten.
const MARKED: u64 = 1;
/// Out on passive evidence; the word's time is when a trial is due.
const EJECTED: u64 = 2;
/// A trial is under way.
const ON_TRIAL: u64 = 4;
/// Out because nobody listens.
const REFUSED: u64 = 8;
/// Out because nothing was answered.
const STALLED: u64 = 16;
/// Out because checks fail, or because its name has no address.
const DOWN: u64 = 32;
/// Back since the word's time, and not at its full share yet.
const RAMPING: u64 = 64;
/// So many bits are flags; the rest is time.
const FLAG_BITS: u32 = 8;

/// A time that never comes.
const NOT_FEW: u64 = u64::MAX;

impl Health {
    /// A backend about which nothing bad is known.
    pub fn new(now: Instant) -> Health {
        Health::of_account(now, None)
    }

    /// The same, with an account in which changes are counted.
    pub fn of_account(now: Instant, account: Option<Arc<Account>>) -> Health {
        Health {
            born: now,
            word: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            many: AtomicUsize::new(PassiveHealth::default().stall_in_flight),
            stall: AtomicU64::new(state::milliseconds(PassiveHealth::default().stall)),
            crowded: AtomicU64::new(0),
            few_since: AtomicU64::new(0),
            fastest: Fastest::default(),
            state: Mutex::default(),
            account,
        }
    }

    /// Tells that this backend has left rotation or come back, if it has: counts it, logs it, and says it to whoever
    /// watches.
    pub fn tell(&self, flip: Option<Flip>) {
        if let (Some(flip), Some(account)) = (flip, &self.account) {
            account.note(&flip);
        }
    }

    /// How it looks from outside. Takes no lock and changes nothing, unlike [`Health::standing`].
    pub fn condition(&self, now: Instant) -> Condition {
        let word = self.word.load(Ordering::Relaxed);
        let until_due = Duration::from_millis((word >> FLAG_BITS).saturating_sub(self.clock(now)));
        if word & DOWN != 0 {
            Condition::Down
        } else if word & EJECTED == 0 {
            Condition::Up
        } else if word & ON_TRIAL != 0 {
            Condition::OnTrial(why(word))
        } else {
            Condition::Ejected(why(word), until_due)
        }
    }

    /// What the backend may be given now.
    pub fn standing(&self, now: Instant, slow_start: Duration) -> Standing {
        let word = self.word.load(Ordering::Relaxed);
        if word & (EJECTED | DOWN | RAMPING) == 0 {
            return Standing::In { share: 1.0 };
        }
        let time = word >> FLAG_BITS;
        if word & DOWN != 0 {
            Standing::Down
        } else if word & EJECTED != 0 {
            match self.clock(now) >= time {
                true => Standing::TrialDue,
                false => Standing::Ejected(why(word), self.born + Duration::from_millis(time)),
            }
        } else {
            Standing::In { share: self.share(time, now, slow_start) }
        }
    }

    /// Whether it is out, on evidence of either kind. Asks for no lock: for those who look at all backends.
    pub fn is_out(&self) -> bool {
        self.word.load(Ordering::Relaxed) & (EJECTED | DOWN) != 0
    }

    /// How many requests unanswered are many is found in these settings, from now on. Those who are many by another number
    /// have become so only now.
    pub fn heed(&self, settings: &PassiveHealth, now: Instant) {
        self.stall.store(state::milliseconds(settings.stall), Ordering::Relaxed);
        let many = settings.stall_in_flight.max(1);
        if self.many.swap(many, Ordering::Relaxed) != many {
            self.crowded.store(self.clock(now), Ordering::Relaxed);
            self.few_since.store(0, Ordering::Relaxed); // the next tick sees whether they are
        }
    }

    /// So many requests are to be answered (`awaited`). To be told every tick: whoever leaves has no clock.
    pub fn note_awaited(&self, now: Instant, awaited: usize) {
        let is_few = awaited < self.many.load(Ordering::Relaxed);
        if is_few != (self.few_since.load(Ordering::Relaxed) != NOT_FEW) {
            self.few_since.store(if is_few { self.clock(now) } else { NOT_FEW }, Ordering::Relaxed);
        }
    }

    /// A request goes to the backend, which was to answer so many (`awaited`) before. Tunnels, and answers that have
    /// begun, don't count there.
    pub fn entered(&self, now: Instant, awaited: usize) {
        if awaited == 0 {
            // It was idle: nobody could have expected an answer of it. A moment ago, so that those who become many in
            // the same one have come since.
            self.note_progress(self.clock(now).saturating_sub(1));
        } else if awaited + 1 == self.many.load(Ordering::Relaxed) {
            self.note_crowd(now);
        }
    }

    /// The backend has answered a request: a whole head has come, whatever its status.
    pub fn answered(&self, trial: Option<Trial>, now: Instant) -> Option<Flip> {
        self.note_progress(self.clock(now));
        let claim = trial.map(Trial::settle);
        if claim.is_none() && self.word.load(Ordering::Relaxed) & (MARKED | EJECTED) == 0 {
            return None;
        }
        self.change(|state| state.answered(claim, self.clock(now)))
    }

    /// A request has met with a failure that is the backend's doing. `may_eject` is asked whether passive evidence of
    /// this kind may take the backend out; it may look at all backends, itself counted as in, and change none.
    pub fn failed(
        &self,
        failure: Failure,
        trial: Option<Trial>,
        now: Instant,
        settings: &PassiveHealth,
        may_eject: impl FnOnce(Failure) -> bool,
    ) -> Option<Flip> {
        let claim = trial.map(Trial::settle);
        self.change(|state| state.failed(failure, claim, self.clock(now), settings, may_eject))
    }

    /// An answer took so long.
    pub fn note_latency(&self, took: Duration, now: Instant) {
        self.fastest.note(state::milliseconds(took), self.clock(now));
    }

    /// Whether the backend, which is to answer so many requests (`awaited`), has stopped answering: nobody looks that up
    /// under a lock. To be asked before it is given another, or every tick. Tunnels, and answers that have begun, are not
    /// awaited.
    pub fn has_stalled(&self, now: Instant, awaited: usize, settings: &PassiveHealth) -> bool {
        if awaited < settings.stall_in_flight.max(1) || !settings.enabled {
            return false;
        }
        if self.word.load(Ordering::Relaxed) & (EJECTED | DOWN) != 0 {
            return false;
        }
        let usual = Duration::from_millis(self.fastest.read(self.clock(now)));
        self.silence(now) >= patience(awaited, settings).max(2 * usual)
    }

    /// Ejects a backend that has stalled, if it may be: see [`Health::has_stalled`] and [`Health::failed`].
    pub fn stalled(
        &self,
        now: Instant,
        awaited: usize,
        settings: &PassiveHealth,
        may_eject: impl FnOnce(Failure) -> bool,
    ) -> Option<Flip> {
        if !self.has_stalled(now, awaited, settings) {
            return None;
        }
        let silence = self.silence(now);
        self.change(|state| state.stalled(awaited, silence, self.clock(now), settings, may_eject))
    }

    /// Leave to send one request, if a trial is due and nobody else has it. It must go to `answered` or `failed`.
    pub fn claim_trial(self: &Arc<Health>, now: Instant) -> Option<Trial> {
        if self.word.load(Ordering::Relaxed) & EJECTED == 0 {
            return None;
        }
        let claim = self.change(|state| state.claim(self.clock(now)))?;
        Some(Trial { health: Arc::clone(self), claim, is_settled: false })
    }

    /// Leave to send a request to an ejected backend because there is no other: its success readmits, its failure
    /// makes nothing worse.
    pub fn last_resort(self: &Arc<Health>) -> Trial {
        Trial { health: Arc::clone(self), claim: Claim::NONE, is_settled: false }
    }

    /// A check has come to a verdict, which is believed.
    pub fn checked(&self, verdict: &Verdict, now: Instant, settings: &ActiveHealth) -> Option<Flip> {
        self.change(|state| state.checked(verdict, self.clock(now), settings))
    }

    /// Its name has been looked up, and has an address or none. Without one it is down.
    pub fn located(&self, has_address: bool, now: Instant) -> Option<Flip> {
        self.change(|state| state.located(has_address, self.clock(now)))
    }

    /// It has joined the others while they were at work: its share grows slowly, as that of one who comes back.
    pub fn joins_late(&self, now: Instant) {
        self.change(|state| state.ramp = Some(self.clock(now)));
    }

    /// There are no checks any more: what they found is forgotten.
    pub fn unchecked(&self, now: Instant) -> Option<Flip> {
        if self.word.load(Ordering::Relaxed) & DOWN == 0 {
            return None;
        }
        self.change(|state| state.unchecked(self.clock(now)))
    }

    /// What requests show does not count any more: what they have shown is forgotten.
    pub fn forgive(&self, now: Instant) -> Option<Flip> {
        if self.word.load(Ordering::Relaxed) & (MARKED | EJECTED) == 0 {
            return None;
        }
        self.change(|state| state.forgiven(self.clock(now)))
    }

    /// Whether it would help to know that somebody listens again.
    pub fn wants_knock(&self, now: Instant) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        word & (EJECTED | REFUSED | ON_TRIAL | DOWN) == EJECTED | REFUSED && self.clock(now) < word >> FLAG_BITS
    }

    /// Somebody listens again: a trial is due at once.
    pub fn opened(&self, now: Instant) {
        self.change(|state| state.hasten(self.clock(now)));
    }

    /// For how long it has answered none of many.
    fn silence(&self, now: Instant) -> Duration {
        let since = self.progress.load(Ordering::Relaxed).max(self.crowded.load(Ordering::Relaxed));
        Duration::from_millis(self.clock(now).saturating_sub(since))
    }

    fn note_progress(&self, now: u64) {
        // Stored only when it changes: a thousand answers in a millisecond leave the others' copies of the line alone.
        if self.progress.load(Ordering::Relaxed) < now {
            self.progress.store(now, Ordering::Relaxed);
        }
    }

    /// They have become many. A few may have waited for long, for what takes long. But where of the many some have left and
    /// others come, and none was answered, the silence goes on; unless they were few for so long that it is another crowd.
    #[cold] // hardly any request is the one with which they do, and all enter
    fn note_crowd(&self, now: Instant) {
        let now = self.clock(now);
        let few_for = now.saturating_sub(self.few_since.swap(NOT_FEW, Ordering::Relaxed));
        let is_new = few_for >= self.stall.load(Ordering::Relaxed);
        if is_new || self.crowded.load(Ordering::Relaxed) <= self.progress.load(Ordering::Relaxed) {
            self.crowded.store(now, Ordering::Relaxed);
        }
    }

    fn share(&self, since: u64, now: Instant, slow_start: Duration) -> f64 {
        let elapsed = Duration::from_millis(self.clock(now).saturating_sub(since));
        if elapsed < slow_start {
            return 0.1 + 0.9 * elapsed.as_secs_f64() / slow_start.as_secs_f64();
        }
        self.change(|state| state.end_ramp(since));
        1.0
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // Whoever panicked under this lock left numbers, each of them whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = change(&mut state);
        self.word.store(word_of(&state), Ordering::Relaxed);
        outcome
    }

    fn clock(&self, now: Instant) -> u64 {
        state::milliseconds(now.saturating_duration_since(self.born))
    }
}

/// How long a silence is borne while so many wait. With twice as many, half as long, for as many more come each second; but
/// not less than a quarter, since every program stops for a moment now and then.
fn patience(awaited: usize, settings: &PassiveHealth) -> Duration {
    let times = awaited as f64 / settings.stall_in_flight.max(1) as f64;
    settings.stall.div_f64(times.clamp(1.0, 4.0))
}

/// One word, so that nobody reads the flags of one moment with the time of another.
fn word_of(state: &State) -> u64 {
    let marked = if state.is_marked() { MARKED } else { 0 };
    let down = if state.is_down || state.is_nowhere { DOWN } else { 0 };
    let (flags, time) = match (&state.ejection, state.ramp) {
        (Some(ejection), _) => {
            let why = match ejection.why {
                Why::Refused => REFUSED,
                Why::NoAnswer => 0,
                Why::Stalled => STALLED,
            };
            (EJECTED | why | if ejection.trial.is_some() { ON_TRIAL } else { 0 }, ejection.due)
        }
        (None, Some(since)) => (RAMPING, since),
        (None, None) => (0, 0),
    };
    (time << FLAG_BITS) | flags | marked | down
}

fn why(word: u64) -> Why {
    match (word & REFUSED, word & STALLED) {
        (0, 0) => Why::NoAnswer,
        (0, _) => Why::Stalled,
        _ => Why::Refused,
    }
}

impl Trial {
    fn settle(mut self) -> Claim {
        self.is_settled = true;
        self.claim
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if !self.is_settled {
            self.health.change(|state| state.abandon(self.claim));
        }
    }
}

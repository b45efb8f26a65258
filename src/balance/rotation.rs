//! The order in which backends take turns.
//!
//! One atomic counter, and every request takes the next number: `fetch_add` gives each to exactly one worker. (The
//! tempting alternative, read the cursor, choose, store it back modulo the count, gives the same turn to two workers
//! that read at once.) N requests over k backends differ by at most one per backend, in whatever order they come.
//!
//! A turn that falls to a backend which can't take it (ejected, full, tried already) goes to one of the others, by a
//! second counter: were it simply the next in the order, a dead backend's neighbour would get a double share.

#[cfg(test)]
mod tests;

use super::backend::InFlight;
use super::queue::{Queue, Waiting};
use super::{
    Backend, BackendSettings, BalanceSettings, Budget, Candidate, Failure, Order, PassiveHealth, Policy, RetrySettings,
    Standing, Sticky, Trial, key_hash, least_in_flight, peak_ewma, rendezvous, two_choices,
};
use crate::net::Caller;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The backends in their order.
#[derive(Debug)]
pub struct Rotation {
    members: Arc<[Member]>,
    /// In which all but the backups take turns. Who drains has none.
    order: Order,
    /// In which the backups do, while none of the others is fit.
    backup_order: Order,
    policy: Policy,
    hash_load_percent: u32,
    turns: Arc<Turns>,
    /// What may be tried again. Goes on over reloads, unless it was changed.
    pub budget: Arc<Budget>,
    queue: Arc<Queue>,
    /// Most that wait in it.
    queue_limit: usize,
    slow_start: Duration,
    passive: PassiveHealth,
    born: Instant,
    /// When it was last said that every backend is ejected, in seconds since `born`, from 1.
    last_cry: AtomicU64,
}

/// What a request says of where it wants to go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// What the policy `hash` goes by.
    pub key: u64,
    /// The backend that its cookie names.
    pub sticky: Option<Sticky>,
}

/// The same in every process: a client that comes back by way of another one finds its backend.
const STICKY_KEY: u64 = 0x7468_7265_6164_6261;

/// What goes on over reloads.
#[derive(Debug, Default)]
struct Turns {
    /// The counter of all turns.
    first: AtomicUsize,
    /// Spreads second choices and second tries.
    second: AtomicUsize,
    ejecting: Mutex<()>,
    /// How often backends had fallen ill or recovered when it was last looked.
    changes: AtomicU64,
}

impl Turns {
    /// The next turn, which no other request gets.
    fn take(&self) -> usize {
        self.first.fetch_add(1, Ordering::Relaxed)
    }

    /// The next number for a second choice or a second try.
    fn take_second(&self) -> usize {
        self.second.fetch_add(1, Ordering::Relaxed)
    }

    /// To be held from when it is counted who is out, until one more is. Taken only where something has failed, or has
    /// stalled and may be ejected.
    fn ejecting(&self) -> MutexGuard<'_, ()> {
        self.ejecting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A backend, and what was said about its place among the others.
#[derive(Debug)]
pub struct Member {
    /// The backend.
    pub backend: Arc<Backend>,
    /// Most exchanges at once; `None`: no limit.
    pub max_in_flight: Option<usize>,
    /// Its share, beside the others' weights.
    pub weight: u32,
    /// By which the policy `hash` knows it, here and in every other process.
    id: u64,
    /// What stands in the cookie of its clients.
    pub sticky: Sticky,
    /// It gets requests only while all others are out, drain, or have failed that request. Who is only full is waited for.
    pub backup: bool,
    /// It gets nothing new.
    pub drain: bool,
}

impl Member {
    pub(super) fn try_enter(&self, now: Instant) -> Option<InFlight> {
        self.backend.enter(self.max_in_flight, now)
    }

    /// Whether it is known to have room, and nobody waits for that. It may be otherwise a moment later.
    fn is_free(&self) -> bool {
        !self.is_full() && !self.backend.is_wanted()
    }

    /// Whether it is known to be full. It may not be a moment later.
    pub(super) fn is_full(&self) -> bool {
        self.max_in_flight.is_some_and(|most| self.backend.in_flight() >= most)
    }
}

/// Whose turn it is.
#[derive(Debug)]
pub struct Pick {
    /// The backend's number among the members.
    pub nth: usize,
    /// The exchange, counted in.
    pub place: InFlight,
    /// The request tells whether the backend is fit again.
    pub trial: Option<Trial>,
    /// What has decided it.
    pub by: By,
}

/// What has decided whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The turn of this number, counted from 0.
    Turn(usize),
    /// The policy, among those who could; under round robin, for one who can't.
    Policy(Policy),
    /// The request's cookie.
    Cookie,
    /// That it is to be seen whether the backend is fit again.
    Trial,
    /// That nobody is fit.
    Need,
    /// The first place that became free.
    Place,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            By::Turn(number) => write!(f, "turn {} of the rotation", number.wrapping_add(1)),
            By::Policy(Policy::RoundRobin) => f.write_str("instead of one who can't take it"),
            By::Policy(policy) => write!(f, "by the policy ({policy:?})"),
            By::Cookie => f.write_str("by its cookie"),
            By::Trial => f.write_str("to see whether it is fit again"),
            By::Need => f.write_str("since nobody is fit"),
            By::Place => f.write_str("from the queue: a place has become free"),
        }
    }
}

/// Why nobody's turn it is.
#[derive(Debug)]
pub enum Unserved {
    /// All who could serve are full: there is a place in the queue.
    Wait(Waiting),
    /// All who could serve are full, and so is the queue.
    QueueFull,
    /// There is nobody who could.
    Nobody,
}

impl Rotation {
    /// A rotation over these backends, beginning with the first.
    pub fn new(
        members: impl IntoIterator<Item = (Arc<Backend>, BackendSettings)>,
        queue: Arc<Queue>,
        balance: &BalanceSettings,
        passive: PassiveHealth,
        retries: &RetrySettings,
    ) -> Rotation {
        Rotation::going_on(members, Arc::default(), budget(retries), queue, balance, passive)
    }

    /// The rotation after a change: its turns go on where these are.
    pub fn succeeded_by(
        &self,
        members: impl IntoIterator<Item = (Arc<Backend>, BackendSettings)>,
        balance: &BalanceSettings,
        passive: PassiveHealth,
        retries: &RetrySettings,
    ) -> Rotation {
        let new = budget(retries);
        let budget = if new.is_like(&self.budget) { Arc::clone(&self.budget) } else { new };
        Rotation::going_on(members, Arc::clone(&self.turns), budget, Arc::clone(&self.queue), balance, passive)
    }

    fn going_on(
        members: impl IntoIterator<Item = (Arc<Backend>, BackendSettings)>,
        turns: Arc<Turns>,
        budget: Arc<Budget>,
        queue: Arc<Queue>,
        balance: &BalanceSettings,
        passive: PassiveHealth,
    ) -> Rotation {
        let member = |(backend, settings): (Arc<Backend>, BackendSettings)| Member {
            max_in_flight: settings.max_in_flight.or(balance.max_in_flight),
            weight: settings.weight,
            id: key_hash(backend.name.as_bytes()),
            sticky: Sticky::of(STICKY_KEY, &backend.name),
            backend,
            backup: settings.backup,
            drain: settings.drain,
        };
        let members: Arc<[Member]> = members.into_iter().map(member).collect();
        let now = Instant::now();
        members.iter().for_each(|member| member.backend.health.heed(&passive, now));
        let order = |backup| {
            let has_turns = |member: &Member| !member.drain && member.backup == backup;
            let weight = |member| if has_turns(member) { member.weight } else { 0 };
            Order::new(&members.iter().map(weight).collect::<Vec<_>>())
        };
        Rotation {
            order: order(false),
            backup_order: order(true),
            hash_load_percent: balance.hash_load_percent,
            policy: balance.policy,
            members,
            turns,
            budget,
            queue,
            queue_limit: balance.queue,
            slow_start: balance.slow_start,
            passive,
            born: now,
            last_cry: AtomicU64::new(0),
        }
    }

    /// Whose turn it is. A request that has been tried elsewhere goes to a backend where it has not been, without taking
    /// another turn. A backend that its cookie names is waited for if it is full, and passed over if it is
    /// out or drains. `whom`: to be called when a place becomes free.
    ///
    /// # Errors
    /// A place in the queue, or why there is none.
    pub fn next(&self, wish: Wish, tried: &[usize], whom: Caller, now: Instant) -> Result<Pick, Unserved> {
        if tried.is_empty() {
            self.budget.deposit();
        }
        let tied = self.tied_to(wish, tried, now);
        if let Some(nth) = tied
            && let Some(pick) = self.enter(nth, By::Cookie, now)
        {
            return Ok(pick);
        }
        let turn = (tied.is_none() && tried.is_empty()).then(|| self.turns.take());
        if let Some(turn) = turn
            && let Some(pick) = self.in_turn(&self.order, turn, now)
        {
            return Ok(pick);
        }
        // Drawn once for all looks from here on: were it drawn for each, a pair of backends might see only odd numbers.
        let number = match turn {
            Some(turn) if self.policy != Policy::RoundRobin => turn,
            _ => self.turns.take_second(),
        };
        if tied.is_none()
            && let Some(pick) = self.choose(wish.key, turn, number, tried, now)
        {
            return Ok(pick);
        }
        if let Some(barred) = self.barred(wish, tried, now) {
            let waiting = self.queue.join(whom, &self.members, barred, self.queue_limit, now);
            return Err(waiting.map_or(Unserved::QueueFull, Unserved::Wait));
        }
        self.last_resort(turn.unwrap_or(number), tried, now).ok_or(Unserved::Nobody)
    }

    /// Whoever waits, under this rotation or an older one, waits from now on for those of these backends that could serve,
    /// in the same place. `false`: it has been given a place already. `None`: there is nobody to wait for.
    pub fn take_over(&self, waiting: &mut Waiting, wish: Wish, tried: &[usize], now: Instant) -> Option<bool> {
        self.barred(wish, tried, now).map(|barred| waiting.move_on(&self.members, barred, now))
    }

    /// The places of these backends among all, of those that are among them.
    pub fn places_of<'b>(&self, backends: impl IntoIterator<Item = &'b Arc<Backend>>) -> Vec<usize> {
        let place = |backend| self.members.iter().position(|member| Arc::ptr_eq(&member.backend, backend));
        backends.into_iter().filter_map(place).collect()
    }

    /// The backend that the request's cookie names, if it may go there.
    fn tied_to(&self, wish: Wish, tried: &[usize], now: Instant) -> Option<usize> {
        let sticky = wish.sticky?;
        let nth = self.members.iter().position(|member| member.sticky == sticky && !member.drain)?;
        (!tried.contains(&nth) && self.is_in(nth, now)).then_some(nth)
    }

    fn is_fit(&self, nth: usize, backup: bool, tried: &[usize], now: Instant) -> bool {
        let member = &self.members[nth];
        member.backup == backup && !member.drain && !tried.contains(&nth) && self.is_in(nth, now)
    }

    /// Whom a request that waits does not wait for. `None`: it would wait for nobody.
    fn barred(&self, wish: Wish, tried: &[usize], now: Instant) -> Option<Vec<usize>> {
        let all = 0..self.members.len();
        if let Some(nth) = self.tied_to(wish, tried, now) {
            return Some(all.filter(|other| *other != nth).collect());
        }
        let barred = |backup| all.clone().filter(move |nth| !self.is_fit(*nth, backup, tried, now)).collect();
        [false, true].map(barred).into_iter().find(|barred: &Vec<usize>| barred.len() < self.members.len())
    }

    /// What the order of turns says; under another policy, only whether somebody is to be tried out.
    fn in_turn(&self, order: &Order, turn: usize, now: Instant) -> Option<Pick> {
        let nth = order.at(turn)?;
        match self.standing(&self.members[nth], now) {
            Standing::TrialDue => self.try_out(nth, now),
            Standing::In { share } => {
                let takes_it = self.policy == Policy::RoundRobin && (share >= 1.0 || fraction(turn) < share);
                if takes_it { self.enter(nth, By::Turn(turn), now) } else { None }
            }
            Standing::Ejected(..) | Standing::Down => None,
        }
    }

    /// One by the policy; a backup, in its turn or by the policy, while none of the others is fit.
    fn choose(&self, key: u64, turn: Option<usize>, number: usize, tried: &[usize], now: Instant) -> Option<Pick> {
        let fit = |backup| move |nth: &usize| self.is_fit(*nth, backup, tried, now);
        if let Some(pick) = self.by_policy(key, number, &fit(false), now) {
            return Some(pick);
        }
        if (0..self.members.len()).any(|nth| fit(false)(&nth)) {
            return None; // who is only full is waited for, rather than passed over for a backup
        }
        let in_turn = turn.and_then(|turn| self.in_turn(&self.backup_order, turn, now));
        in_turn.or_else(|| self.by_policy(key, number, &fit(true), now))
    }

    /// Whether somebody could be asked at once who has not been asked yet.
    pub fn has_another(&self, tried: &[usize], now: Instant) -> bool {
        let fit = |backup| (0..self.members.len()).filter(move |nth| self.is_fit(*nth, backup, tried, now));
        let is_free = |nth: usize| self.members[nth].is_free();
        // As `next` has it: a backup is passed over while another is fit, be that one free or full.
        if fit(false).next().is_some() { fit(false).any(is_free) } else { fit(true).any(is_free) }
    }

    /// Whether there is anybody whom a request that has been tried here and there could still go to, now or after a wait, and
    /// be it for want of a better one.
    pub fn has_any_left(&self, tried: &[usize], now: Instant) -> bool {
        (0..self.members.len()).any(|nth| self.is_left(nth, tried, now))
    }

    fn is_left(&self, nth: usize, tried: &[usize], now: Instant) -> bool {
        let member = &self.members[nth];
        let is_left = || match self.standing(member, now) {
            Standing::In { .. } => true,
            Standing::TrialDue | Standing::Ejected(..) => !member.is_full(), // nobody waits for who is not fit
            Standing::Down => false,
        };
        !member.drain && !tried.contains(&nth) && is_left()
    }

    /// One of those that are fit and have room.
    fn by_policy(&self, key: u64, number: usize, fit: &impl Fn(&usize) -> bool, now: Instant) -> Option<Pick> {
        let free = || (0..self.members.len()).filter(fit).filter(|&nth| self.members[nth].is_free());
        let candidates = || {
            free().map(|nth| {
                let backend = &self.members[nth].backend;
                let (in_flight, latency) = (backend.in_flight(), backend.latency.read(now));
                Candidate { nth, weight: self.weight(nth, now), in_flight, latency }
            })
        };
        let preferred = match self.policy {
            Policy::RoundRobin => {
                // Who comes back slowly gives a part of its turns away, and must not get them back here.
                let at_full_share = || free().filter(|&nth| !self.is_ramping(nth, now));
                match number.checked_rem(at_full_share().count()) {
                    Some(turn) => at_full_share().nth(turn),
                    None => free().nth(number.checked_rem(free().count())?),
                }
            }
            Policy::LeastInFlight => least_in_flight(candidates(), number as u64),
            Policy::TwoChoices => two_choices(candidates(), number as u64),
            Policy::PeakEwma => peak_ewma(candidates(), number as u64),
            Policy::Hash => {
                // Load changes while it is looked at: looked at once, the bound is one that somebody meets.
                let candidates: Vec<Candidate> = candidates().collect();
                let id = |nth: usize| self.members[nth].id;
                rendezvous(candidates.iter().copied(), key, id, self.hash_load_percent)
            }
        };
        // One that has filled up this moment is passed over.
        preferred.into_iter().chain(free()).find_map(|nth| self.enter(nth, By::Policy(self.policy), now))
    }

    /// The weight that counts now: less than was configured while a backend comes back slowly.
    fn weight(&self, nth: usize, now: Instant) -> f64 {
        let member = &self.members[nth];
        match self.standing(member, now) {
            Standing::In { share } => share * f64::from(member.weight),
            Standing::TrialDue | Standing::Ejected(..) | Standing::Down => f64::from(member.weight),
        }
    }

    fn is_ramping(&self, nth: usize, now: Instant) -> bool {
        matches!(self.standing(&self.members[nth], now), Standing::In { share } if share < 1.0)
    }

    fn enter(&self, nth: usize, by: By, now: Instant) -> Option<Pick> {
        let member = &self.members[nth];
        if member.backend.is_wanted() {
            return None; // whoever waits for it goes first
        }
        Some(Pick { nth, place: member.try_enter(now)?, trial: None, by })
    }

    /// The request that shows whether an ejected backend is fit again.
    fn try_out(&self, nth: usize, now: Instant) -> Option<Pick> {
        let member = &self.members[nth];
        let trial = member.backend.health.claim_trial(now)?;
        Some(Pick { nth, place: member.try_enter(now)?, trial: Some(trial), by: By::Trial })
    }

    /// Passive evidence has emptied the rotation: it is not trusted that far.
    fn last_resort(&self, number: usize, tried: &[usize], now: Instant) -> Option<Pick> {
        let ejected = || (0..self.members.len()).filter(|&nth| self.is_left(nth, tried, now));
        let nth = ejected().nth(number.checked_rem(ejected().count())?)?;
        let pick = self.try_out(nth, now).or_else(|| {
            let trial = self.members[nth].backend.health.last_resort();
            Some(Pick { nth, place: self.members[nth].try_enter(now)?, trial: Some(trial), by: By::Need })
        });
        let second = now.saturating_duration_since(self.born).as_secs() + 1;
        if tried.is_empty() && self.last_cry.swap(second, Ordering::Relaxed) != second {
            log::warn!("no backend is fit for requests: they are tried all the same");
        }
        pick
    }

    fn is_in(&self, nth: usize, now: Instant) -> bool {
        matches!(self.standing(&self.members[nth], now), Standing::In { .. })
    }

    fn standing(&self, member: &Member, now: Instant) -> Standing {
        let backend = &member.backend;
        let awaited = backend.awaited();
        // Asked before the lock, too: who may not be ejected may stand still for long, and is looked at in every choice.
        if backend.health.has_stalled(now, awaited, &self.passive) && self.may_eject(backend) {
            let _one_at_a_time = self.turns.ejecting();
            let may_eject = |_| self.may_eject(backend);
            backend.health.tell(backend.health.stalled(now, awaited, &self.passive, may_eject));
        }
        backend.health.standing(now, self.slow_start)
    }

    /// Never more than half are ejected on evidence that might as well be the requests' doing: of all, or of the backups
    /// or the others among themselves. Either leaves somebody. Who drains is none of them, whatever its health. Two workers
    /// that count at once would each find room for one: see `Turns::ejecting`.
    fn may_eject(&self, backend: &Backend) -> bool {
        let is_it = |member: &&Member| std::ptr::eq(&*member.backend, backend);
        let is_backup = self.members.iter().find(is_it).map(|member| member.backup);
        let leaves_half = |is_counted: &dyn Fn(&Member) -> bool| {
            let others = || self.members.iter().filter(|member| !is_it(member) && !member.drain && is_counted(member));
            let out = others().filter(|member| member.backend.health.is_out()).count();
            (out + 1) * 2 <= others().count() + 1
        };
        leaves_half(&|_| true) || leaves_half(&|member| Some(member.backup) == is_backup)
    }

    /// A backend has answered: a whole head has come.
    pub fn answered(&self, place: &mut InFlight, trial: Option<Trial>, now: Instant) {
        place.is_answered();
        place.health.tell(place.health.answered(trial, now));
    }

    /// So long has a backend taken to answer.
    pub fn note_latency(&self, place: &InFlight, took: Duration, now: Instant) {
        place.health.note_latency(took, now);
        if self.policy == Policy::PeakEwma {
            place.latency.observe(took, now);
        }
    }

    /// A request has met with a failure that is the backend's doing.
    pub fn failed(&self, backend: &Backend, failure: Failure, trial: Option<Trial>, now: Instant) {
        let _one_at_a_time = self.turns.ejecting();
        // Who refuses connections is down for certain.
        let may_eject = |failure| failure == Failure::Refused || self.may_eject(backend);
        backend.health.tell(backend.health.failed(failure, trial, now, &self.passive, may_eject));
    }

    /// Hands free places to those who wait.
    pub fn serve_queue(&self, now: Instant) {
        for member in self.members.iter() {
            self.queue.serve(&member.backend, now);
        }
    }

    /// All backends.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Housekeeping, once a tick. Whoever waits is called if backends have fallen ill or recovered.
    pub fn sweep(&self, now: Instant) {
        let mut changes = 0;
        for member in self.members.iter() {
            member.backend.sweep(now);
            member.backend.health.note_awaited(now, member.backend.awaited());
            changes += member.backend.account.changes();
        }
        if self.turns.changes.swap(changes, Ordering::Relaxed) != changes {
            self.queue.call_all();
        }
    }
}

fn budget(retries: &RetrySettings) -> Arc<Budget> {
    Arc::new(Budget::new(retries.budget_percent, retries.budget_floor, Instant::now()))
}

/// A number from 0 to 1, spread evenly: turns that follow each other get fractions that don't.
fn fraction(turn: usize) -> f64 {
    // Weyl's sequence: the multiples of the golden ratio.
    let step = (turn as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (step >> 32) as f64 / f64::from(u32::MAX)
}

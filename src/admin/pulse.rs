//! The numbers four times a second, and what has happened in between.
//!
//! One thread reads them, and all who watch are shown the same. Whoever asks in between is shown what was read a moment
//! ago: so asking more often reads nothing more often.

use super::House;
use crate::balance::Condition;
use crate::events::{Event, EventKind};
use crate::exchange::Shared;
use crate::live::{self, Snapshot};
use crate::metrics::{self, Circumstances, Figures, Sample};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// From one set of numbers to the next.
const BEAT: Duration = Duration::from_millis(250);

/// So many sets are remembered: rates are those of the last second.
const REMEMBERED: usize = 4;

/// Numbers so young are as good as new.
const FRESH: Duration = Duration::from_millis(20);

/// So many events are remembered.
const EVENTS: usize = 50;

/// So many samples are remembered, and so many are taken between two beats.
const SAMPLES: usize = 32;
const SAMPLES_A_BEAT: u64 = 8;

/// Whoever asks for the numbers watches for so long.
const INTEREST: Duration = Duration::from_secs(2);

/// So long nobody must have been turned away for it to be over.
const CALM: Duration = Duration::from_secs(2);

/// Workers look for work ten times a second. If they have not for so long, something is very wrong.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// What was read, and what happened.
pub(super) struct Board {
    state: Mutex<State>,
    beat: Condvar,
    began: Instant,
}

struct State {
    live: live::View,
    /// What was read last.
    latest: Arc<Figures>,
    /// One for each beat, the oldest first.
    history: VecDeque<Arc<Figures>>,
    events: VecDeque<Event>,
    samples: VecDeque<Sample>,
    shedding: Option<Shedding>,
    /// When the workers were last seen to look for work, and how often they had by then.
    looks: (u64, Instant),
    interest: Option<Instant>,
    frame: Arc<str>,
    number: u64,
    has_ended: bool,
}

/// Requests are being turned away.
struct Shedding {
    /// How many had been before.
    before: u64,
    /// When the last one was.
    last: Instant,
}

/// Everything that is told, at one moment.
pub(super) struct View {
    pub(super) figures: Arc<Figures>,
    /// A second before, or whatever comes nearest to it.
    pub(super) earlier: Arc<Figures>,
    pub(super) events: Vec<Event>,
    pub(super) samples: Vec<Sample>,
    pub(super) uptime: Duration,
    pub(super) viewers: usize,
    pub(super) is_draining: bool,
    pub(super) is_demo: bool,
    pub(super) reloads: (u64, u64),
    pub(super) last_error: Option<String>,
}

impl Board {
    pub(super) fn new(shared: &Shared) -> Board {
        let live = shared.live.view();
        let state = State {
            latest: Arc::new(shared.figures(&live)),
            live,
            history: VecDeque::new(),
            events: VecDeque::new(),
            samples: VecDeque::new(),
            shedding: None,
            looks: (shared.lot.looks(), Instant::now()),
            interest: None,
            frame: "".into(),
            number: 0,
            has_ended: false,
        };
        Board { state: Mutex::new(state), beat: Condvar::new(), began: Instant::now() }
    }

    /// The number of the frame that is shown now.
    pub(super) fn frame(&self) -> u64 {
        self.lock().number
    }

    /// The next frame after this one, once it is there; none at the end.
    pub(super) fn next_frame(&self, seen: u64) -> Option<(u64, Arc<str>)> {
        let waiting = self.beat.wait_while(self.lock(), |state| state.number == seen && !state.has_ended);
        let state = waiting.unwrap_or_else(PoisonError::into_inner);
        (!state.has_ended).then(|| (state.number, Arc::clone(&state.frame)))
    }

    /// Somebody looks at the numbers now and then.
    pub(super) fn note_interest(&self) {
        self.lock().interest = Some(Instant::now());
    }

    /// Ends the beat, and all who wait for it.
    pub(super) fn end(&self) {
        self.lock().has_ended = true;
        self.beat.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked under this lock left numbers that the next beat replaces.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl House {
    /// Reads and shows the numbers until the end.
    pub(super) fn beat(&self) {
        let mut next = Instant::now() + BEAT;
        loop {
            let mut state = self.board.lock();
            while !state.has_ended
                && let left = next.saturating_duration_since(Instant::now())
                && !left.is_zero()
            {
                (state, _) = self.board.beat.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            }
            if state.has_ended {
                return;
            }
            next = (next + BEAT).max(Instant::now());
            let samples = state.go_on(&self.shared, self.viewers.count() > 0);
            if self.viewers.count() > 0 {
                let view = self.look(&state, samples);
                drop(state); // nobody need wait while it is written down
                let frame = format!("event: stats\ndata: {}\n\n", super::stats::write(&view));
                state = self.board.lock();
                state.frame = frame.into();
                state.number += 1;
                self.board.beat.notify_all();
            }
        }
    }

    /// The numbers as they are now, or were a moment ago.
    pub(super) fn view<T>(&self, tell: impl FnOnce(&View) -> T) -> T {
        let _one_at_a_time = self.pen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.board.lock();
        state.refresh(&self.shared);
        let samples = state.samples.iter().cloned().collect();
        let view = self.look(&state, samples);
        drop(state);
        tell(&view)
    }

    /// What is configured now.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        let mut state = self.board.lock();
        state.refresh_live(&self.shared);
        state.live.share()
    }

    /// Whether the workers look for work.
    pub(super) fn is_alive(&self) -> bool {
        let (looks, at) = self.board.lock().looks;
        self.shared.lot.looks() != looks || at.elapsed() < HEARTBEAT
    }

    /// Why no requests should be sent here, if none should.
    pub(super) fn unready(&self) -> Option<&'static str> {
        let (snapshot, now) = (self.snapshot(), Instant::now());
        // One whose trial is due counts: it takes a request to try it, and where nobody is ready none is sent.
        let may_serve = |condition| match condition {
            Condition::Up | Condition::OnTrial(_) => true,
            Condition::Ejected(_, due) => due.is_zero(),
            Condition::Down => false,
        };
        let mut members = snapshot.rotation.members().iter().filter(|member| !member.drain);
        if self.shared.is_leaving.load(Ordering::Relaxed) {
            Some("draining")
        } else if !members.any(|member| may_serve(member.backend.health.condition(now))) {
            Some("no backend is up")
        } else {
            None
        }
    }

    fn look(&self, state: &State, samples: Vec<Sample>) -> View {
        let reloads = &self.shared.live.reloads;
        View {
            figures: Arc::clone(&state.latest),
            earlier: Arc::clone(state.history.front().unwrap_or(&state.latest)),
            events: state.events.iter().cloned().collect(),
            samples,
            uptime: self.board.began.elapsed(),
            viewers: self.viewers.count(),
            is_draining: self.shared.is_leaving.load(Ordering::Relaxed),
            is_demo: state.live.config.demo,
            reloads: (reloads.done(), reloads.refused()),
            last_error: reloads.last_error(),
        }
    }
}

impl View {
    /// As Prometheus reads it.
    pub(super) fn text(&self) -> String {
        let View { uptime, viewers, is_draining, reloads, .. } = *self;
        metrics::write_text(&self.figures, &Circumstances { reloads, is_draining, uptime, viewers })
    }
}

impl State {
    /// Reads the numbers anew, unless that was done a moment ago under the same configuration.
    fn refresh(&mut self, shared: &Shared) {
        self.refresh_live(shared);
        if self.latest.at.elapsed() >= FRESH {
            self.latest = Arc::new(shared.figures(&self.live));
        }
        for event in shared.live.books.events.hear() {
            remember(&mut self.events, event, EVENTS);
        }
    }

    /// Looks for another configuration. Numbers of the old one are not as good as new, however young they are.
    fn refresh_live(&mut self, shared: &Shared) {
        if self.live.refresh(&shared.live) {
            self.latest = Arc::new(shared.figures(&self.live));
        }
    }

    /// Goes on to the next beat. Returns what has been sampled since the last one.
    fn go_on(&mut self, shared: &Shared, is_watched: bool) -> Vec<Sample> {
        self.refresh(shared);
        self.look_for_shedding(shared);
        remember(&mut self.history, Arc::clone(&self.latest), REMEMBERED + 1);
        let looks = shared.lot.looks();
        if looks != self.looks.0 {
            self.looks = (looks, Instant::now());
        }
        let samples: Vec<Sample> = shared.samples.take().collect();
        for sample in &samples {
            remember(&mut self.samples, sample.clone(), SAMPLES);
        }
        let is_watched = is_watched || self.interest.is_some_and(|at| at.elapsed() < INTEREST);
        let each = if is_watched { SAMPLES_A_BEAT.div_ceil(shared.tallies.len() as u64 - 1) } else { 0 };
        shared.tallies.iter().for_each(|tally| tally.want_samples(each));
        samples
    }

    fn look_for_shedding(&mut self, shared: &Shared) {
        let events = &shared.live.books.events;
        let shed = self.latest.shed();
        let before = self.history.back().map_or(shed, |earlier| earlier.shed());
        match &mut self.shedding {
            None if shed > before => {
                self.shedding = Some(Shedding { before, last: self.latest.at });
                events.tell(EventKind::Shedding, "requests are turned away: there are too many".to_owned());
            }
            Some(shedding) if shed > before => shedding.last = self.latest.at,
            Some(shedding) if shedding.last.elapsed() >= CALM => {
                let count = shed - shedding.before;
                self.shedding = None;
                events.tell(EventKind::Shedding, format!("no more requests are turned away; {count} were"));
            }
            Some(_) | None => {}
        }
    }
}

/// Puts something behind the others, of which so many are kept.
fn remember<T>(all: &mut VecDeque<T>, new: T, most: usize) {
    if all.len() >= most {
        all.pop_front();
    }
    all.push_back(new);
}

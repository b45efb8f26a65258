//! The facts about one backend and the rules that judge them.
//!
//! Pure: times are milliseconds that were handed in, and nothing here is shared. Two verdicts stand side by side. The
//! *active* one is believed: down is out, whatever requests show. The *passive* one guesses from what requests met
//! with, so it ends by itself: an ejection leads to a trial, and a trial that fails to an ejection twice as long.

use super::{Failure, Flip, Verdict, Why};
use crate::balance::{ActiveHealth, PassiveHealth};
use std::time::Duration;

/// A trial that has told nothing for so long is given up, and another let through, in milliseconds. The answer to the
/// first still counts. Well below the response head timeout, and more than an honest answer takes.
pub(super) const TRIAL_PATIENCE: u64 = 10_000;

/// Of a backend that stalls again and again so many stalls are told ...
const LOUD: u32 = 5;

/// ... in so long, in milliseconds. The rest is counted.
const MINUTE: u64 = 60_000;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Failures since the last answer.
    failures: u32,
    /// How many of them, at the end, were refused connections.
    refused: u32,
    /// Ejections since the last answer.
    ejections: u32,
    /// Out on passive evidence.
    pub(super) ejection: Option<Ejection>,
    /// Out on active evidence.
    pub(super) is_down: bool,
    /// Its name has no address: nobody could be asked.
    pub(super) is_nowhere: bool,
    /// Good checks since the last bad one.
    good: u32,
    /// Bad checks since the last good one.
    bad: u32,
    /// When it came back, until its share is full again.
    pub(super) ramp: Option<u64>,
    /// Trials so far.
    trials: u64,
    /// How many stalls there have been since `stalls_since`, less than a minute ago.
    stalls: u32,
    stalls_since: u64,
}

#[derive(Debug)]
pub(super) struct Ejection {
    pub(super) why: Why,
    since: u64,
    /// When the next trial may be claimed. A claim moves it to when the claim runs out.
    pub(super) due: u64,
    /// The trial that is under way.
    pub(super) trial: Option<Claim>,
    /// It has been told of, so its end is too.
    is_news: bool,
}

/// The number of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim(u64);

impl Claim {
    /// Of a request that is none's trial: it frees no claim, and its failure tells nothing new.
    pub(super) const NONE: Claim = Claim(0);
}

impl State {
    /// Whether there is anything that an answer would make forgotten.
    pub(super) fn is_marked(&self) -> bool {
        self.failures > 0 || self.ejections > 0
    }

    pub(super) fn answered(&mut self, trial: Option<Claim>, now: u64) -> Option<Flip> {
        if let Some(ejection) = &self.ejection {
            // Answers to what was asked before the ejection come late, from a backend that nobody can reach any more:
            // they prove nothing but that a stall is over.
            if trial.is_none() && ejection.why != Why::Stalled {
                return None;
            }
            let evidence = if trial.is_some() { "it answered its trial" } else { "it answers again" };
            return self.forgive(now, evidence);
        }
        self.forget();
        None
    }

    pub(super) fn failed(
        &mut self,
        failure: Failure,
        trial: Option<Claim>,
        now: u64,
        settings: &PassiveHealth,
        may_eject: impl FnOnce(Failure) -> bool,
    ) -> Option<Flip> {
        if let Some(ejection) = &self.ejection {
            // Other requests were sent before the ejection: they are what it is for, and make it no longer.
            if trial.is_none() || ejection.trial != trial {
                return None;
            }
            return self.failed_trial(failure, now, settings, may_eject);
        }
        if !settings.enabled || self.is_down {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        self.refused = match failure {
            Failure::Refused => self.refused.saturating_add(1),
            Failure::NoAnswer => 0,
        };
        let enough = settings.failures.max(1);
        if self.failures < enough {
            return None;
        }
        // Refusals weigh more, so only an unbroken row of them counts as such.
        let refused = self.refused >= enough;
        if !may_eject(if refused { Failure::Refused } else { Failure::NoAnswer }) {
            return None;
        }
        let (why, evidence) = match (refused, self.refused) {
            (true, 1) => (Why::Refused, "a connection was refused".to_owned()),
            (true, n) => (Why::Refused, format!("{n} connections in a row were refused")),
            (false, _) if self.failures == 1 => (Why::NoAnswer, "a request was not answered".to_owned()),
            (false, _) => (Why::NoAnswer, format!("{} requests in a row were not answered", self.failures)),
        };
        Some(self.eject(why, [now, now], settings, evidence, true))
    }

    fn failed_trial(
        &mut self,
        failure: Failure,
        now: u64,
        settings: &PassiveHealth,
        may_eject: impl FnOnce(Failure) -> bool,
    ) -> Option<Flip> {
        let ejection = self.ejection.take()?;
        let (why, evidence) = match failure {
            Failure::Refused => (Why::Refused, "its trial was refused too"),
            Failure::NoAnswer => (Why::NoAnswer, "its trial was not answered"),
        };
        if !settings.enabled || (ejection.why != why && !may_eject(failure)) {
            self.ramp = Some(now);
            let evidence = "its trial failed, but that is no reason to keep it out".to_owned();
            return Some(Flip::Readmitted { after: span(ejection.since, now), evidence, is_news: ejection.is_news });
        }
        // That it stays out, for the reason that was told, is no news; its return will be.
        let is_news = ejection.why != why || !ejection.is_news;
        let flip = self.eject(why, [ejection.since, now], settings, evidence.to_owned(), is_news);
        if let Some(ejection) = &mut self.ejection {
            ejection.is_news = true;
        }
        Some(flip)
    }

    pub(super) fn stalled(
        &mut self,
        awaited: usize,
        silence: Duration,
        now: u64,
        settings: &PassiveHealth,
        may_eject: impl FnOnce(Failure) -> bool,
    ) -> Option<Flip> {
        if self.ejection.is_some() || self.is_down || !may_eject(Failure::NoAnswer) {
            return None;
        }
        let mut evidence = format!("{awaited} requests wait, and none was answered for {silence:?}");
        if self.stalls == 0 || now >= self.stalls_since.saturating_add(MINUTE) {
            if let Some(untold @ 1..) = self.stalls.checked_sub(LOUD) {
                evidence += &format!("; {untold} stalls went untold");
            }
            (self.stalls, self.stalls_since) = (0, now);
        }
        self.stalls = self.stalls.saturating_add(1);
        let is_news = self.stalls <= LOUD;
        Some(self.eject(Why::Stalled, [now, now], settings, evidence, is_news))
    }

    fn eject(
        &mut self,
        why: Why,
        [since, now]: [u64; 2],
        settings: &PassiveHealth,
        evidence: String,
        is_news: bool,
    ) -> Flip {
        let doubled = 2u32.checked_pow(self.ejections).and_then(|times| settings.shortest_ejection.checked_mul(times));
        let length = doubled.unwrap_or(Duration::MAX).min(settings.longest_ejection);
        self.ejections = self.ejections.saturating_add(1);
        self.ramp = None;
        self.ejection =
            Some(Ejection { why, since, due: now.saturating_add(milliseconds(length)), trial: None, is_news });
        Flip::Ejected { why, length, evidence, is_news }
    }

    /// One caller gets it, and nobody else before it is settled, abandoned or given up.
    pub(super) fn claim(&mut self, now: u64) -> Option<Claim> {
        let ejection = self.ejection.as_mut().filter(|ejection| now >= ejection.due && !self.is_down)?;
        self.trials += 1;
        let claim = Claim(self.trials);
        ejection.trial = Some(claim);
        ejection.due = now.saturating_add(TRIAL_PATIENCE);
        Some(claim)
    }

    /// A trial has told nothing: the next request may try at once.
    pub(super) fn abandon(&mut self, claim: Claim) {
        if let Some(ejection) = self.ejection.as_mut().filter(|ejection| ejection.trial == Some(claim)) {
            ejection.trial = None;
            ejection.due = 0;
        }
    }

    /// There is hope: the trial is due at once, unless one is under way.
    pub(super) fn hasten(&mut self, now: u64) {
        if let Some(ejection) = self.ejection.as_mut().filter(|ejection| ejection.trial.is_none()) {
            ejection.due = ejection.due.min(now);
        }
    }

    pub(super) fn checked(&mut self, verdict: &Verdict, now: u64, settings: &ActiveHealth) -> Option<Flip> {
        match verdict {
            Verdict::Good(evidence) => {
                self.bad = 0;
                self.good = self.good.saturating_add(1);
                self.hasten(now);
                if !self.is_down || self.good < settings.rise {
                    return None;
                }
                self.is_down = false;
                self.ramp = Some(now);
                Some(Flip::Up { evidence: in_a_row(evidence, self.good, "good") })
            }
            Verdict::Bad(evidence) => {
                self.good = 0;
                self.bad = self.bad.saturating_add(1);
                if self.is_down || self.bad < settings.fall {
                    return None;
                }
                self.is_down = true;
                self.ramp = None;
                Some(Flip::Down { evidence: in_a_row(evidence, self.bad, "bad") })
            }
        }
    }

    /// Its name has got an address, or has none yet.
    pub(super) fn located(&mut self, has_address: bool, now: u64) -> Option<Flip> {
        if self.is_nowhere != has_address {
            return None;
        }
        self.is_nowhere = !has_address;
        if !has_address {
            return Some(Flip::Down { evidence: "its name has no address".to_owned() });
        }
        self.ramp = Some(now);
        Some(Flip::Up { evidence: "its name has an address".to_owned() })
    }

    pub(super) fn unchecked(&mut self, now: u64) -> Option<Flip> {
        (self.good, self.bad) = (0, 0);
        if !std::mem::take(&mut self.is_down) {
            return None;
        }
        self.ramp = Some(now);
        Some(Flip::Up { evidence: "it is not checked any more".to_owned() })
    }

    pub(super) fn forgiven(&mut self, now: u64) -> Option<Flip> {
        self.forgive(now, "what requests show does not count any more")
    }

    /// The share that began to grow then is full.
    pub(super) fn end_ramp(&mut self, since: u64) {
        if self.ramp == Some(since) {
            self.ramp = None;
        }
    }

    fn forgive(&mut self, now: u64, evidence: &str) -> Option<Flip> {
        self.forget();
        let ejection = self.ejection.take()?;
        // Who was only slow has lost nothing that it would have to warm up again.
        self.ramp = (ejection.why != Why::Stalled).then_some(now);
        let (evidence, is_news) = (evidence.to_owned(), ejection.is_news);
        Some(Flip::Readmitted { after: span(ejection.since, now), evidence, is_news })
    }

    fn forget(&mut self) {
        (self.failures, self.refused, self.ejections) = (0, 0, 0);
    }
}

fn in_a_row(evidence: &str, count: u32, kind: &str) -> String {
    if count == 1 { evidence.to_owned() } else { format!("{evidence}, the last of {count} {kind} checks in a row") }
}

fn span(from: u64, to: u64) -> Duration {
    Duration::from_millis(to.saturating_sub(from))
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

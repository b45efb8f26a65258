//! Medians, ratios and bars.

use crate::scenario::{Against, BARS, Bar, Metric, Per, Scenario};
use crate::usage::Syscalls;

/// One contender, loaded once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) requests: u64,
    /// Of bodies, and of heads where the answer is what is large.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) failed: u64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Processor time, microseconds.
    pub(crate) cpu: f64,
    pub(crate) switches: u64,
    /// Bytes, in the midst of it.
    pub(crate) resident: u64,
    pub(crate) threads: usize,
    /// What each idle connection has added.
    pub(crate) idle_bytes: Option<f64>,
}

/// All rounds of one contender.
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) is_peer: bool,
    pub(crate) rounds: Vec<Sample>,
    pub(crate) syscalls: Option<Syscalls>,
}

/// One scenario, by everybody.
pub(crate) struct Measured {
    pub(crate) scenario: &'static Scenario,
    pub(crate) outcomes: Vec<Outcome>,
}

impl Sample {
    /// Microseconds per request, or per MiB.
    pub(crate) fn cpu_per(&self, per: Per) -> f64 {
        match per {
            Per::Request => self.cpu / self.requests as f64,
            Per::Mebibyte => self.cpu / (self.bytes as f64 / f64::from(1 << 20)),
        }
    }

    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }
}

impl Outcome {
    pub(crate) fn new(name: &'static str, is_peer: bool) -> Outcome {
        Outcome { name, is_peer, rounds: Vec::new(), syscalls: None }
    }

    pub(crate) fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }

    /// What an idle connection added in the round in which it added most: the others may find memory that an earlier one took.
    pub(crate) fn idle_bytes(&self) -> Option<f64> {
        self.rounds.iter().filter_map(|sample| sample.idle_bytes).max_by(f64::total_cmp)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.rounds.iter().map(|sample| sample.failed).sum()
    }
}

impl Measured {
    pub(crate) fn ours(&self) -> &Outcome {
        self.named("threadbare").expect("we always take part")
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Outcome> {
        self.outcomes.iter().find(|outcome| outcome.name == name)
    }

    fn of(&self, metric: Metric, sample: &Sample) -> f64 {
        match metric {
            Metric::Cpu => sample.cpu_per(self.scenario.per),
            Metric::Rate => sample.rate(),
            Metric::P99 => sample.p99,
            Metric::Threads => sample.threads as f64,
            Metric::Failed => sample.failed as f64,
            Metric::IdleBytes | Metric::Syscalls | Metric::Moves => f64::NAN,
        }
    }

    /// Ours over somebody's, round by round: the median of it. `None`: there is nobody to compare with.
    pub(crate) fn ratio(&self, metric: Metric, against: Against) -> Option<f64> {
        let ours = self.ours();
        let rival = match against {
            Against::BestPeer => self.best_peer(metric)?,
            Against::Floor => self.named("floor")?,
            Against::Nobody => return self.plainly(metric),
        };
        if metric == Metric::IdleBytes {
            return Some(ours.idle_bytes()? / rival.idle_bytes()?);
        }
        let rounds = ours.rounds.iter().zip(&rival.rounds);
        let median = median(rounds.map(|(ours, theirs)| self.of(metric, ours) / self.of(metric, theirs)).collect());
        median.is_finite().then_some(median)
    }

    /// The peer whose median is the best. One that is lucky in a round is not the best for that: of four, one always is.
    pub(crate) fn best_peer(&self, metric: Metric) -> Option<&Outcome> {
        let rank = |peer: &&Outcome| match metric {
            Metric::Rate => -peer.median(Sample::rate),
            Metric::IdleBytes => peer.idle_bytes().unwrap_or(f64::NAN),
            Metric::Cpu | Metric::P99 | Metric::Threads | Metric::Syscalls | Metric::Moves | Metric::Failed => {
                peer.median(|sample| self.of(metric, sample))
            }
        };
        self.outcomes.iter().filter(|outcome| outcome.is_peer).min_by(|a, b| rank(a).total_cmp(&rank(b)))
    }

    fn plainly(&self, metric: Metric) -> Option<f64> {
        let ours = self.ours();
        let value = match metric {
            Metric::Syscalls => ours.syscalls.as_ref()?.all,
            Metric::Moves => ours.syscalls.as_ref()?.moves,
            Metric::Failed => ours.failed() as f64,
            Metric::IdleBytes => ours.idle_bytes()?,
            Metric::Cpu | Metric::Rate | Metric::P99 | Metric::Threads => ours.median(|sample| self.of(metric, sample)),
        };
        value.is_finite().then_some(value)
    }
}

/// A bar in one scenario, and what came of it.
pub(crate) struct Verdict {
    pub(crate) bar: &'static Bar,
    pub(crate) scenario: &'static str,
    pub(crate) value: f64,
    pub(crate) is_taken: bool,
}

/// Every bar for which something was measured.
pub(crate) fn verdicts(measured: &[Measured]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for bar in &BARS {
        let is_meant = |name: &str| bar.scenarios.iter().any(|wanted| *wanted == "*" || *wanted == name);
        for measured in measured.iter().filter(|measured| is_meant(measured.scenario.name)) {
            if let Some(value) = measured.ratio(bar.metric, bar.against) {
                verdicts.push(Verdict { bar, scenario: measured.scenario.name, value, is_taken: bar.is_taken(value) });
            }
        }
    }
    verdicts
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.is_empty() {
        f64::NAN
    } else if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

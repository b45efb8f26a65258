//! Asks backends whether they are well.
//!
//! One thread beside the workers, for all backends: its sockets wait together (`Probes`), so a backend that hangs
//! delays no other's check. It does two things. Where checks are configured, it *checks*: a GET, or a connection if
//! there is no path to ask for. And wherever nobody listened, it *knocks*: a backend that has been restarted gets its
//! trial within half a second, however long its ejection has become.
//!
//! What evidence amounts to is decided in `balance`; here it is only gathered.

use crate::balance::{ActiveHealth, Health, Origin, Verdict};
use crate::http::{FieldTable, HeadScan, Response};
use crate::net::{Found, ProbeStopper, Probes};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it is looked who is to be checked and who has been ejected meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// From one knock to the next, and how long one may take.
const KNOCK: Duration = Duration::from_millis(500);

/// What is longer is as good as never, and can be reckoned with.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A backend to be looked after. It is the same as before if its `health` is.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it is called in the log.
    pub name: Arc<str>,
    /// Its Host field, and what goes before every path.
    pub origin: Origin,
    /// Where it is, the preferred address first.
    pub addresses: Vec<SocketAddr>,
    /// Where the evidence goes.
    pub health: Arc<Health>,
    /// How it is checked; `None`: it isn't.
    pub active: Option<Arc<ActiveHealth>>,
}

/// The thread that asks. Dropping it ends it.
pub struct Checker {
    stopper: ProbeStopper,
    thread: Option<JoinHandle<()>>,
}

impl Checker {
    /// Begins to look after these; `targets` is asked ten times a second, so that a reload may change them.
    ///
    /// # Errors
    /// The system has no thread or poll to give.
    pub fn start(targets: impl Fn() -> Vec<Target> + Send + 'static) -> io::Result<Checker> {
        let probes = Probes::new()?;
        let stopper = probes.stopper();
        let rounds = Rounds { probes, watched: HashMap::new(), asking: HashMap::new(), number: 0 };
        let thread = std::thread::Builder::new().name("health".to_owned());
        let thread = thread.spawn(move || rounds.go(targets))?;
        Ok(Checker { stopper, thread: Some(thread) })
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.stopper.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the health checker has ended in a panic");
        }
    }
}

/// All backends that are looked after, and all questions that are under way.
struct Rounds {
    probes: Probes,
    /// By the address of their health, which stays taken as long as it stands here.
    watched: HashMap<usize, Watched>,
    /// By number of the probe.
    asking: HashMap<u64, (usize, Question)>,
    /// The last probe's.
    number: u64,
}

#[derive(Clone, Copy)]
enum Question {
    Check,
    Knock,
}

struct Watched {
    target: Target,
    next_check: Instant,
    is_checking: bool,
    next_knock: Instant,
    is_knocking: bool,
}

impl Rounds {
    fn go(mut self, targets: impl Fn() -> Vec<Target>) {
        while !self.probes.is_stopped() {
            let now = Instant::now();
            self.look(targets(), now);
            if let Err(error) = self.ask_and_listen(now + LOOK) {
                log::error!("the health of backends can't be checked any more: {error}");
                return;
            }
        }
    }

    /// Takes note of who is to be looked after from now on.
    fn look(&mut self, targets: Vec<Target>, now: Instant) {
        let mut before = std::mem::take(&mut self.watched);
        for target in targets {
            let key = Arc::as_ptr(&target.health).addr();
            let mut watched = match before.remove(&key) {
                Some(watched) => Watched { target, ..watched },
                None => Watched { target, next_check: now, is_checking: false, next_knock: now, is_knocking: false },
            };
            match &watched.target.active {
                // A reload may have made the interval shorter.
                Some(active) => watched.next_check = watched.next_check.min(now + interval(active, 1.1)),
                None => watched.target.health.tell(watched.target.health.unchecked(now)),
            }
            self.watched.insert(key, watched);
        }
        // The rest is gone, and nobody hears what its last questions find: another might get the address that it is known by.
        for (key, gone) in before {
            if gone.is_checking || gone.is_knocking {
                self.asking.retain(|_, (asked, _)| *asked != key);
            }
        }
    }

    /// Asks whoever is due, and hears what the others say, until then.
    fn ask_and_listen(&mut self, until: Instant) -> io::Result<()> {
        loop {
            let now = Instant::now();
            for (key, watched) in &mut self.watched {
                for question in watched.due(now) {
                    self.number += 1;
                    let (words, timeout) = watched.begin(question, now);
                    self.asking.insert(self.number, (*key, question));
                    self.probes.begin(self.number, &watched.target.addresses, words, now + timeout);
                }
            }
            let next = self.watched.values().filter_map(Watched::next).fold(until, Instant::min);
            let over = self.probes.wait(next, |_, heard| final_status(heard).is_some())?;
            if self.probes.is_stopped() {
                return Ok(()); // what is cut short by that tells nothing
            }
            let now = Instant::now();
            for (number, found) in over {
                let Some((key, question)) = self.asking.remove(&number) else { continue };
                if let Some(watched) = self.watched.get_mut(&key) {
                    watched.end(question, found, now);
                }
            }
            if now >= until {
                return Ok(());
            }
        }
    }
}

impl Watched {
    fn due(&self, now: Instant) -> impl Iterator<Item = Question> + use<> {
        let check = self.target.active.is_some() && !self.is_checking && now >= self.next_check;
        let knock = !self.is_knocking && now >= self.next_knock && self.target.health.wants_knock(now);
        check.then_some(Question::Check).into_iter().chain(knock.then_some(Question::Knock))
    }

    /// When it has to be thought of again, besides at the next look.
    fn next(&self) -> Option<Instant> {
        (self.target.active.is_some() && !self.is_checking).then_some(self.next_check)
    }

    /// What is to be said, and how long it may take.
    fn begin(&mut self, question: Question, now: Instant) -> (Vec<u8>, Duration) {
        match (question, &self.target.active) {
            (Question::Check, Some(active)) => {
                self.is_checking = true;
                self.next_check = now + interval(active, jitter());
                (request(&self.target.origin, active), active.timeout.min(DAY))
            }
            (Question::Knock, _) | (Question::Check, None) => {
                self.is_knocking = true;
                self.next_knock = now + KNOCK;
                (Vec::new(), KNOCK)
            }
        }
    }

    fn end(&mut self, question: Question, found: Found, now: Instant) {
        let target = &self.target;
        if let Found::NotTried(error) = &found {
            log::warn!("backend {} was not asked whether it is well: {error}", target.name);
        }
        match question {
            Question::Knock => {
                self.is_knocking = false;
                if matches!(found, Found::Opened) && target.health.wants_knock(now) {
                    log::debug!("backend {} listens again", target.name);
                    target.health.opened(now);
                }
            }
            Question::Check => {
                self.is_checking = false;
                let Some(active) = &target.active else { return };
                if let Some(verdict) = verdict(&found, active) {
                    target.health.tell(target.health.checked(&verdict, now, active));
                }
            }
        }
    }
}

/// What is asked. Nothing, where a connection is enough.
fn request(origin: &Origin, active: &ActiveHealth) -> Vec<u8> {
    let Some(path) = &active.path else { return Vec::new() };
    let Origin { authority, prefix, .. } = origin;
    format!(
        "GET {prefix}{path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: threadbare-health\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// What a check has found; `None`: nothing about the backend.
fn verdict(found: &Found, active: &ActiveHealth) -> Option<Verdict> {
    let what = active.path.as_ref().map_or_else(|| "the connection".to_owned(), |path| format!("GET {path}"));
    let bad = |how: &str| Some(Verdict::Bad(format!("{what} {how}")));
    let late = || format!("took longer than {:?}", active.timeout);
    match found {
        Found::NotTried(_) => None,
        Found::Opened if active.path.is_none() => Some(Verdict::Good("it lets us in".to_owned())),
        Found::Opened => None, // the path is new, and this check is not about it
        Found::Refused(error) if error.kind() == io::ErrorKind::ConnectionRefused => bad("was refused"),
        Found::Refused(error) => bad(&format!("failed: {error}")),
        Found::NoConnection if active.path.is_some() => bad(&format!("got no connection within {:?}", active.timeout)),
        Found::NoConnection | Found::NoAnswer => bad(&late()),
        Found::Cut => bad("was cut off"),
        Found::Endless => bad("was answered with a head without end"),
        Found::Heard(heard) => match final_status(heard)? {
            Err(flaw) => bad(&format!("was not answered in HTTP: {flaw}")),
            Ok(status) if (active.status.0..=active.status.1).contains(&status) => {
                Some(Verdict::Good(format!("{what} answered {status}")))
            }
            Ok(status) => bad(&format!("answered {status}")),
        },
    }
}

/// The status of the first response here that is no interim one, judged as strictly as any other; `None`: not yet.
fn final_status(mut heard: &[u8]) -> Option<Result<u16, &'static str>> {
    loop {
        let mut scan = HeadScan::strict();
        let end = match scan.advance(heard) {
            Ok(end) => end?,
            Err(flaw) => return Some(Err(flaw.text())),
        };
        let (head, rest) = heard.split_at_checked(end)?;
        match Response::read(head, &mut FieldTable::default(), false) {
            Ok(response) if response.is_interim() => heard = rest,
            Ok(response) => return Some(Ok(response.status)),
            Err(flaw) => return Some(Err(flaw.text())),
        }
    }
}

fn interval(active: &ActiveHealth, times: f64) -> Duration {
    active.interval.min(DAY).mul_f64(times)
}

/// A tenth more or less, so that checks that began together do not stay together.
fn jitter() -> f64 {
    let dice = RandomState::new().hash_one(0u8) >> 32; // a hasher's keys are random
    0.9 + 0.2 * (f64::from(u32::try_from(dice).unwrap_or_default()) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_counts_once_its_head_is_whole_and_final() {
        let rows = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Some(200)),
            ("HTTP/1.0 503 No\r\n\r\n", Some(503)),
            ("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n", Some(404)),
            ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n", Some(101)),
            ("SSH-2.0-OpenSSH\r\n\r\n", None),
            ("HTTP/1.1 +20 OK\r\n\r\n", None),
        ];
        for (text, status) in rows {
            for end in 0..text.len() {
                let early = final_status(&text.as_bytes()[..end]);
                assert!(early.is_none(), "{:?}: {early:?}", &text[..end]);
            }
            let judged = final_status(text.as_bytes());
            assert_eq!(judged.map(Result::ok), Some(status), "{text:?}");
        }
    }

    #[test]
    fn intervals_differ_by_a_tenth_at_most_even_where_nobody_meant_them() {
        let rolls: Vec<f64> = (0..100).map(|_| jitter()).collect();
        assert!(rolls.iter().all(|roll| (0.9..=1.1).contains(roll)), "{rolls:?}");
        assert!(rolls.iter().any(|roll| roll != &rolls[0]), "{rolls:?}");
        let never = ActiveHealth { interval: Duration::MAX, ..ActiveHealth::default() };
        assert_eq!(interval(&never, 1.0), DAY);
    }
}

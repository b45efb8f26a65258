//! Start everything; drain; stop.

use crate::admin::Admin;
use crate::balance::{Balance, Origin};
use crate::config::{AccessLogFormat, Config, ListenerSettings};
use crate::error::Reason;
use crate::events::EventKind;
use crate::exchange::{Desk, Door, Shared};
use crate::health::{Checker, Target};
use crate::lines::{Lines, Place};
use crate::live::{Live, LookUp};
use crate::metrics::{Figures, Samples, Tally};
use crate::names::Names;
use crate::net::{self, Acceptor, Headcount, Listeners, Lot, Passed};
use crate::workers;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Descriptors that clients don't get: for listeners, logs, and the first backends.
const RESERVE: usize = 64;

/// How long the last lines of a log are waited for.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A balancer that runs until it is drained or dropped.
///
/// ```no_run
/// let config = threadbare::Config::from_args(["--listen", "127.0.0.1:0", "--backend", "127.0.0.1:3000"])?;
/// let balancer = threadbare::Balancer::start(config)?;
/// println!("listening on {}", balancer.address());
/// let all_finished = balancer.drain(std::time::Duration::from_secs(30));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Balancer {
    shared: Arc<Shared>,
    /// What was set at the start: of what can't change without a restart, that is what runs.
    first: Config,
    /// It listens where others have opened sockets for it, since nothing was said of where.
    listens_as_passed: bool,
    checker: Option<Checker>,
    names: Option<Names>,
    workers: Vec<JoinHandle<()>>,
    admin: Option<Admin>,
}

/// Why a balancer did not start.
#[derive(Debug)]
pub enum StartError {
    /// An address can't be listened on.
    Listen(SocketAddr, io::Error),
    /// The file of this log can't be written to.
    Log(&'static str, Place, io::Error),
    /// The system has no thread, poll or descriptor to give.
    System(&'static str, io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Listen(address, error) => {
                write!(f, "can't listen on {address} (port {}): {error}", address.port())
            }
            StartError::Log(log, place, error) => write!(f, "can't write the {log} to {place}: {error}"),
            StartError::System(what, error) => write!(f, "can't start {what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// What has been counted. Taken while everything runs, so one number may be a moment older than another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Client connections open now.
    pub connections: usize,
    /// Exchanges that have ended.
    pub exchanges: usize,
    /// Exchanges begun and not ended.
    pub in_flight: usize,
    /// Client connections that wait in the lot.
    pub parked: usize,
    /// Backend connections opened.
    pub dials: usize,
    /// Backend connections used again.
    pub spares_reused: usize,
    /// Kept backend connections found dead.
    pub spares_dead: usize,
    /// Backend connections kept now.
    pub spares: usize,
    /// Turns that panicked.
    pub panics: usize,
    /// Lines that the access log could not keep up with.
    pub log_lines_dropped: u64,
}

impl Balancer {
    /// Starts to listen, accept and answer.
    ///
    /// # Errors
    /// An address that can't be had, or a system that has no threads left. Nothing
    /// keeps running then.
    pub fn start(config: Config) -> Result<Balancer, StartError> {
        Balancer::start_on(Vec::new(), config)
    }

    /// The same, with listening sockets that somebody else has opened. They serve in the place of those that would be
    /// opened for their addresses; if nothing was said of where to listen, as they are.
    ///
    /// # Errors
    /// As for `start`.
    pub fn start_on(passed: Vec<Passed>, config: Config) -> Result<Balancer, StartError> {
        Balancer::start_with(passed, config, Arc::new(Origin::resolve))
    }

    /// The same, with another way to find the addresses of names than the system's resolver. It is asked at the start,
    /// at a reload, and once an interval, in a thread of its own.
    ///
    /// # Errors
    /// As for `start`.
    pub fn start_with(mut passed: Vec<Passed>, mut config: Config, look_up: LookUp) -> Result<Balancer, StartError> {
        // Of two that were opened for the same address (port 0), the last: it is told of behind the others.
        let for_admin = passed.iter().rposition(|passed| config.admin.listen == Some(passed.address));
        let for_admin: Vec<Passed> = for_admin.map(|nth| passed.remove(nth)).into_iter().collect();
        let listens_as_passed = config.listens_by_default() && !passed.is_empty();
        if listens_as_passed {
            config.listeners = passed.iter().map(|passed| passed.address.into()).collect();
        }
        let descriptors = net::raise_limit();
        let listen = |(address, error)| StartError::Listen(address, error);
        let admin = config.admin.listen.map(|address| net::bind([(address, ())], for_admin));
        let admin = admin.transpose().map_err(listen)?;
        let bound = net::bind(wanted(&config), passed).map_err(listen)?;
        let system = |what| move |error| StartError::System(what, error);
        let most = config.max_connections.unwrap_or(descriptors.saturating_sub(RESERVE)).max(1);
        let (access_log, wire_log) = (Lines::new("access log"), Arc::new(Lines::new("wire log")));
        for (log, place) in [(&access_log, access_log_place(&config)), (&*wire_log, wire_log_place(&config))] {
            if let Some(place) = place {
                log.write_to(open_log(log, &place)?).map_err(system("a log"))?;
            }
        }
        let first = config.clone();
        let lot = Lot::new(descriptors).map_err(system("the lot"))?;
        let bells = lot.bells().map_err(system("the listeners"))?;
        let shared = Arc::new(Shared {
            listeners: Listeners::new(bound, bells).map_err(system("the listeners"))?,
            lot,
            access_log,
            wire_log,
            connections: Headcount::of_at_most(most),
            door: Door::default(),
            tallies: (0..=config.workers).map(|_| Tally::default()).collect(),
            samples: Samples::default(),
            is_leaving: AtomicBool::new(false),
            collected: AtomicUsize::new(0),
            late: AtomicUsize::new(0),
            live: Live::new(config, look_up),
        });
        // From here on, dropping the balancer ends what has been started.
        let mut balancer =
            Balancer { shared, first, listens_as_passed, checker: None, names: None, workers: Vec::new(), admin: None };
        let shared = Arc::clone(&balancer.shared);
        let checker = Checker::start(move || targets(&shared.live)).map_err(system("the health checker"))?;
        balancer.checker = Some(checker);
        let names = Names::start(Arc::clone(&balancer.shared)).map_err(system("the thread that looks names up"))?;
        balancer.names = Some(names);
        workers::start(&balancer.shared, &mut balancer.workers).map_err(system("a worker"))?;
        if let Some(bound) = admin {
            let acceptor = Acceptor::new(bound).map_err(system("the admin listener"))?;
            let admin = Admin::start(&balancer.shared, acceptor).map_err(system("the admin listener"))?;
            balancer.admin = Some(admin);
        }
        let events = &balancer.shared.live.books.events;
        events.tell(EventKind::Started, format!("threadbare {} has started", env!("CARGO_PKG_VERSION")));
        log::debug!("{descriptors} descriptors allow {most} client connections");
        Ok(balancer)
    }

    /// Where it listens first.
    pub fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    /// Where it listens, with the ports that the system chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.listeners.addresses()
    }

    /// The listening sockets, to be handed over.
    pub fn listeners(&self) -> Listeners<Arc<ListenerSettings>> {
        self.shared.listeners.clone()
    }

    /// Whether the workers have looked for work since the last time that this was asked.
    pub fn is_alive(&self) -> impl Fn() -> bool + Send + 'static {
        let shared = Arc::clone(&self.shared);
        let last = AtomicU64::new(0);
        move || {
            let looks = shared.lot.looks();
            last.swap(looks, Ordering::Relaxed) != looks
        }
    }

    /// What opens the files of the logs again, for whoever has renamed them, up to the end of a drain: what was handed over
    /// before is written to the old one or the new one, whole. It fails where one of them can't be opened: that one stays
    /// what it was, and the other is opened all the same.
    pub fn log_reopener(&self) -> impl Fn() -> Result<(), StartError> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            let live = shared.live.current();
            let places = [access_log_place(&live.config), wire_log_place(&live.config)];
            let mut outcome = Ok(());
            for (log, place) in [&shared.access_log, &*shared.wire_log].into_iter().zip(places) {
                let Some(place @ Place::File(_)) = place else { continue };
                let opened = open_log(log, &place)
                    .and_then(|file| log.write_to(file).map_err(|error| StartError::System("a log", error)));
                outcome = outcome.and(opened);
            }
            outcome
        }
    }

    fn logs(&self) -> [&Lines; 2] {
        [&self.shared.access_log, &self.shared.wire_log]
    }

    /// Goes on with another configuration: all of it or, if an address or a file can't be had, nothing. What has begun
    /// ends under the old one. Returns the keys that differ from what runs, and can't change without a restart.
    ///
    /// # Errors
    /// An address that can't be listened on, a file that can't be written to.
    pub fn reload(&self, mut config: Config) -> Result<Vec<&'static str>, StartError> {
        let old = self.shared.live.current();
        if self.listens_as_passed && config.listens_by_default() {
            // Nothing is said of where to listen, as before: the sockets of others stay, and nobody moves to the default.
            config.listeners = old.config.listeners.iter().map(|listener| listener.address.into()).collect();
        }
        let places = |config: &Config| [access_log_place(config), wire_log_place(config)];
        let mut moves = Vec::new();
        for ((log, before), place) in self.logs().into_iter().zip(places(&old.config)).zip(places(&config)) {
            if let Some(place) = place.filter(|place| before.as_ref() != Some(place)) {
                moves.push((log, open_log(log, &place)?));
            }
        }
        self.shared
            .listeners
            .replace(wanted(&config))
            .map_err(|(address, error)| StartError::Listen(address, error))?;
        let restart = self.first.needs_restart(&config);
        let live = &self.shared.live;
        live.replace(config);
        if let Some(names) = &self.names {
            names.wake();
        }
        for (log, file) in moves {
            log.write_to(file).map_err(|error| StartError::System("a log", error))?;
        }
        live.reloads.count_done();
        let backends = live.current().rotation.members().len();
        live.books.events.tell(EventKind::Reloaded, format!("another configuration holds, with {backends} backends"));
        Ok(restart)
    }

    /// Takes note of a configuration that was offered and could not be taken, and why: for whoever watches. Nobody is
    /// asked who they are, so it quotes nothing of the configuration.
    pub fn reload_refused(&self, why: &str) {
        let live = &self.shared.live;
        live.reloads.count_refused(why);
        let first = why.lines().next().unwrap_or_default();
        live.books.events.tell(EventKind::ReloadRefused, format!("the old configuration is kept: {first}"));
    }

    /// What cuts a drain short, also one that is yet to come: as if its timeout were over.
    pub fn drain_cutter(&self) -> impl Fn() + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.connections.give_up()
    }

    /// Says that a drain is to come, to whoever asks whether requests should be sent here.
    pub fn announce_drain(&self) {
        if !self.shared.is_leaving.swap(true, Ordering::Relaxed) {
            let text = "this process is about to end: requests should go elsewhere".to_owned();
            self.shared.live.books.events.tell(EventKind::Drain, text);
        }
    }

    /// Where the admin listener is, with the port that the system chose; none if it is off.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// The listening socket of the admin listener, to be handed over; none if it is off.
    pub fn admin_listener(&self) -> Option<Listeners<()>> {
        self.admin.as_ref().map(Admin::listeners)
    }

    /// What has been counted so far, in short.
    pub fn counters(&self) -> Counters {
        let figures = self.figures();
        let over_backends = |number: fn(&Balance) -> u64| count(figures.over_backends(number));
        Counters {
            connections: figures.connections,
            exchanges: count(figures.requests - figures.open),
            in_flight: count(figures.open),
            parked: figures.parked.iter().sum(),
            dials: over_backends(|balance| balance.dials),
            spares_reused: over_backends(|balance| balance.spares_reused),
            spares_dead: over_backends(|balance| balance.spares_dead),
            spares: figures.backends.iter().map(|backend| backend.spares).sum(),
            panics: count(figures.panics),
            log_lines_dropped: figures.log_lines_dropped,
        }
    }

    /// What has been counted so far, and how things stand.
    pub fn figures(&self) -> Figures {
        self.shared.figures(&self.shared.live.current())
    }

    /// Stops accepting, closes idle connections, finishes what is in flight, and stops. What is not finished after
    /// `timeout` is cut. Says whether everything was finished.
    pub fn drain(mut self, timeout: Duration) -> bool {
        self.announce_drain();
        let deadline = Instant::now() + timeout;
        // Who has just connected, or just been answered, may have a request on its way: a close that meets it loses it.
        let pause = self.shared.live.current().config.timeouts.drain_idle.min(timeout / 2);
        let grace = Instant::now() + pause;
        self.shared.lot.announce_drain(grace); // first, so that every answer from now on says that it closes
        self.shared.accept_the_last(self.last_tally());
        drop(self.shared.lot.drain(|client| client.may_be_about_to_ask(pause), grace));
        let is_finished = self.shared.connections.wait_until_empty(deadline);
        self.stop();
        is_finished
    }

    /// The number of no worker: that of whoever ends what they have left undone.
    fn last_tally(&self) -> usize {
        self.shared.tallies.len() - 1
    }

    fn stop(&mut self) {
        self.shared.accept_the_last(self.last_tally());
        self.checker = None;
        self.names = None;
        let mut desk = Desk::new(Arc::clone(&self.shared), self.last_tally());
        for mut client in self.shared.lot.close() {
            client.fail(Reason::Shutdown.into(), &mut desk);
            client.turn(&mut desk);
        }
        desk.hand_over_lines();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                log::error!("a worker has ended in a panic");
            }
        }
        drop(self.shared.lot.close()); // whoever was just being admitted
        self.admin = None; // last: to the end it can be asked how far the end is
        for log in self.logs() {
            log.end(Instant::now() + LAST_LINES);
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Where the access log is written; `None`: nowhere.
fn access_log_place(config: &Config) -> Option<Place> {
    let log = &config.access_log;
    (log.format != AccessLogFormat::Off).then(|| log.file.clone().map_or(Place::Stdout, Place::File))
}

/// Where the wire log is written; `None`: nowhere.
fn wire_log_place(config: &Config) -> Option<Place> {
    let log = &config.wire_log;
    log.on.then(|| log.file.clone().map_or(Place::Stderr, Place::File))
}

fn open_log(log: &Lines, place: &Place) -> Result<File, StartError> {
    place.open().map_err(|error| StartError::Log(log.name(), place.clone(), error))
}

/// Where to listen, and what holds there.
fn wanted(config: &Config) -> impl Iterator<Item = (SocketAddr, Arc<ListenerSettings>)> {
    config.listeners.iter().map(|listener| (listener.address, Arc::new(listener.clone())))
}

/// Who is to be looked after.
fn targets(live: &Live) -> Vec<Target> {
    let snapshot = live.current();
    let active = snapshot.config.health.clone().map(Arc::new);
    let backends = snapshot.rotation.members().iter().map(|member| &member.backend);
    backends
        .filter(|backend| backend.address_count() > 0)
        .map(|backend| Target {
            name: Arc::clone(&backend.name),
            origin: backend.origin.clone(),
            addresses: backend.addresses_by_preference(),
            health: Arc::clone(&backend.health),
            active: active.clone(),
        })
        .collect()
}

//! The current snapshot of configuration and backends: one swap, never two.
//!
//! A snapshot never changes. A reload makes a new one and puts it in the place of the old one, which lives on for the
//! exchanges that began under it. Backends that stay are the same objects in both: their health, their spares, their
//! counts and the exchanges in flight with them know of no reload.
//!
//! A name whose every address is a backend of its own makes a new snapshot too, once its addresses are others.
//!
//! Whoever works keeps a snapshot at hand and compares one number to see whether it is still the current one.

use crate::balance::{Backend, BackendSettings, Books, Member, Origin, Queue, Rotation};
use crate::config::Config;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How the addresses of a backend are found: [`Origin::resolve`], unless somebody knows better.
pub type LookUp = Arc<dyn Fn(&Origin) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// The longest that the start, or a reload, waits for a resolver. An answer takes milliseconds; where name servers are
/// down, backends that need none of them are not to wait for its timeouts.
const PATIENCE: Duration = Duration::from_secs(2);

/// What holds at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// What was set.
    pub config: Config,
    /// Whose turn it is.
    pub rotation: Rotation,
    /// What was ordered since that was set.
    orders: Orders,
}

/// By the name of a backend, or of all that its name comes to: whether it is to be drained, whatever the configuration
/// says.
type Orders = BTreeMap<String, bool>;

impl Snapshot {
    /// Whether the name of this backend has no address yet.
    pub fn lacks_address(&self, settings: &BackendSettings) -> bool {
        addresses_in(self, settings).is_empty()
    }
}

/// The snapshot that holds now.
pub struct Live {
    current: Mutex<Arc<Snapshot>>,
    version: AtomicU64,
    /// Held by whoever makes a new snapshot out of the current one: of two at once, one would be lost. Never by a worker.
    changing: Mutex<()>,
    look_up: LookUp,
    /// How often another configuration was offered.
    pub reloads: Reloads,
    /// Who waits for a place at a backend, under whatever snapshot.
    pub queue: Arc<Queue>,
    /// What is counted of backends, under whatever snapshot.
    pub books: Arc<Books>,
}

/// How often another configuration was offered, and what came of it.
#[derive(Debug, Default)]
pub struct Reloads {
    done: AtomicU64,
    refused: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Reloads {
    /// Counts one that holds now.
    pub fn count_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Counts one that was refused, and remembers why.
    pub fn count_refused(&self, why: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    /// How many hold or held.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// How many were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Why the last one was refused, unless one has been taken since.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A snapshot at hand, and its number.
#[derive(Clone, Debug)]
pub struct View {
    snapshot: Arc<Snapshot>,
    version: u64,
}

impl Live {
    /// The first snapshot. Looks up the names of backends.
    pub fn new(config: Config, look_up: LookUp) -> Live {
        let queue = Arc::default();
        // One more than workers: whoever ends what they have left undone counts too.
        let books = Arc::new(Books::new(config.workers + 1));
        let found = find_all(config.backends.iter(), &look_up);
        let backends =
            |settings| backends_of(settings, &found_at(&found, settings).unwrap_or_default(), &[], &queue, &books);
        let members: Vec<_> = config.backends.iter().flat_map(backends).collect();
        let rotation =
            Rotation::new(members, Arc::clone(&queue), &config.balance, config.passive_health, &config.retries);
        let orders = Orders::new();
        let current = Mutex::new(Arc::new(Snapshot { config, rotation, orders }));
        Live {
            current,
            version: AtomicU64::new(0),
            changing: Mutex::default(),
            look_up,
            reloads: Reloads::default(),
            queue,
            books,
        }
    }

    /// The snapshot that holds now.
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&lock(&self.current))
    }

    /// The same, to be kept at hand.
    pub fn view(&self) -> View {
        let current = lock(&self.current);
        View { snapshot: Arc::clone(&current), version: self.version.load(Ordering::Acquire) }
    }

    /// Puts a new snapshot in the place of the current one. Looks up the names of backends that are new. What was ordered
    /// before is forgotten: after a reload, what stands in the file holds.
    pub fn replace(&self, config: Config) {
        let _alone = lock(&self.changing);
        let old = self.current();
        let are_new = config.backends.iter().filter(|settings| addresses_in(&old, settings).is_empty());
        let found = find_all(are_new, &self.look_up);
        let addresses = |settings: &_| found_at(&found, settings).unwrap_or_else(|| addresses_in(&old, settings));
        let new = self.put_in(config, &old, Orders::new(), addresses);
        if !new.config.passive_health.enabled {
            for member in new.rotation.members() {
                let health = &member.backend.health;
                health.tell(health.forgive(Instant::now()));
            }
        }
    }

    /// Whether the name of some backend has no address yet.
    pub fn lacks_address(&self) -> bool {
        let current = self.current();
        current.config.backends.iter().any(|settings| current.lacks_address(settings))
    }

    /// Drains the backend of this name, or makes it ready again, until another order or another configuration comes. Where
    /// every address of a name is a backend, the name stands for all of them. `None`: there is no such backend; else
    /// whether anything has changed.
    pub fn order(&self, name: &str, drain: bool) -> Option<bool> {
        let _alone = lock(&self.changing);
        let old = self.current();
        let members = old.rotation.members();
        let entry = old.config.backends.iter().find(|settings| settings.name == name);
        let is_meant = |member: &Member| {
            *member.backend.name == *name || entry.is_some_and(|entry| member.backend.origin == entry.origin)
        };
        if !members.iter().any(is_meant) {
            return None;
        }
        let meant = || members.iter().filter(|member| is_meant(member));
        // For a name, what holds for the addresses that are yet to come counts too.
        let stands = |entry: &BackendSettings| old.orders.get(name).copied().unwrap_or(entry.drain);
        let changes = meant().any(|member| member.drain != drain) || entry.is_some_and(|entry| stands(entry) != drain);
        if changes {
            let mut orders = old.orders.clone();
            meant().for_each(|member| _ = orders.remove(&*member.backend.name));
            orders.insert(name.to_owned(), drain);
            self.put_in(old.config.clone(), &old, orders, |settings| addresses_in(&old, settings));
        }
        Some(changes)
    }

    /// Asks where a name is. May take as long as a resolver does.
    ///
    /// # Errors
    /// The resolver's.
    pub fn look_up(&self, origin: &Origin) -> io::Result<Vec<SocketAddr>> {
        (self.look_up)(origin)
    }

    /// Names have been looked up again, and these were found, each at an address at least. A backend with many addresses
    /// moves; where every address is a backend of its own, they come and go.
    pub fn locate(&self, found: &[(Origin, Vec<SocketAddr>)]) {
        let _alone = lock(&self.changing);
        let old = self.current();
        let mut is_other = false;
        for settings in &old.config.backends {
            let Some(addresses) = found_at(found, settings) else { continue };
            if settings.expand {
                is_other |= in_order(&addresses) != addresses_in(&old, settings);
            } else if let Some(backend) = find(old.rotation.members(), &settings.name, &settings.origin) {
                move_to(backend, &addresses);
            }
        }
        if !is_other {
            return;
        }
        let addresses = |settings: &_| found_at(found, settings).unwrap_or_else(|| addresses_in(&old, settings));
        let new = self.put_in(old.config.clone(), &old, old.orders.clone(), addresses);
        for late in only_in(&new, &old) {
            // Behind a name, one that comes back often has another address than before: it is spared like one.
            late.health.joins_late(Instant::now());
            log::info!("backend {} joins: its name has this address now", late.name);
        }
        for gone in only_in(&old, &new).filter(|gone| gone.address_count() > 0) {
            log::info!("backend {} leaves: its name has this address no more", gone.name);
        }
    }

    /// The one swap.
    fn put_in(
        &self,
        config: Config,
        old: &Snapshot,
        mut orders: Orders,
        addresses: impl Fn(&BackendSettings) -> Vec<SocketAddr>,
    ) -> Arc<Snapshot> {
        let backends =
            |settings| backends_of(settings, &addresses(settings), old.rotation.members(), &self.queue, &self.books);
        let mut members: Vec<_> = config.backends.iter().flat_map(backends).collect();
        for (backend, settings) in &mut members {
            let order = orders.get(&*backend.name).or_else(|| orders.get(&settings.name));
            settings.drain = order.copied().unwrap_or(settings.drain);
        }
        // Who leaves takes along what was ordered for it: else, it would hold again once that address is somebody else's.
        let is_here =
            |name: &str| members.iter().any(|(backend, settings)| *backend.name == *name || settings.name == name);
        orders.retain(|name, _| is_here(name));
        let rotation = old.rotation.succeeded_by(members, &config.balance, config.passive_health, &config.retries);
        let new = Arc::new(Snapshot { config, rotation, orders });
        let mut current = lock(&self.current);
        *current = Arc::clone(&new);
        self.version.fetch_add(1, Ordering::Release);
        drop(current);
        for gone in only_in(old, &new) {
            gone.retire();
        }
        new.rotation.serve_queue(Instant::now()); // a limit may have been raised
        self.queue.call_all(); // and whoever waits may go to somebody else
        new
    }
}

/// The backends that these settings come to, at these addresses: those that were there before, or new ones.
fn backends_of(
    settings: &BackendSettings,
    addresses: &[SocketAddr],
    before: &[Member],
    queue: &Arc<Queue>,
    books: &Books,
) -> Vec<(Arc<Backend>, BackendSettings)> {
    let backend = |name: &str, addresses: &[SocketAddr]| {
        let stays = find(before, name, &settings.origin)
            .filter(|backend| !settings.expand || *backend.addresses() == *addresses);
        let backend = stays.cloned().unwrap_or_else(|| {
            let origin = settings.origin.clone();
            let backend = Arc::new(Backend::in_books(name, origin, addresses.to_vec(), queue, books));
            // Whoever has looked the name up has said so already, and why.
            let _told = backend.health.located(!addresses.is_empty(), Instant::now());
            backend
        });
        move_to(&backend, addresses);
        (backend, settings.clone())
    };
    if settings.expand && !addresses.is_empty() {
        return in_order(addresses).iter().map(|at| backend(&settings.name_at(*at), &[*at])).collect();
    }
    vec![backend(&settings.name, addresses)]
}

/// Looks these up, all at once. Whoever has no address, or none soon enough, is down until it has one.
fn find_all<'s>(all: impl Iterator<Item = &'s BackendSettings>, look_up: &LookUp) -> Vec<(Origin, Vec<SocketAddr>)> {
    let (tell, answers) = mpsc::channel();
    let mut missing = HashSet::new();
    for settings in all {
        let (origin, tell, look_up) = (settings.origin.clone(), tell.clone(), Arc::clone(look_up));
        let name = settings.name.clone();
        let ask = move || {
            let answer = look_up(&origin);
            let _nobody_waits_any_more = tell.send((name, origin, answer));
        };
        missing.insert(settings.name.as_str());
        if settings.origin.is_address() {
            ask(); // there is nobody to wait for
        } else if let Err(error) = thread::Builder::new().name("look-up".to_owned()).spawn(ask) {
            log::warn!("backend {} can't be looked up now: {error}", settings.name);
        }
    }
    drop(tell);
    let until = Instant::now() + PATIENCE;
    let mut found = Vec::new();
    while let Ok((name, origin, answer)) = answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
        missing.remove(&*name);
        match answer {
            Ok(addresses) if addresses.is_empty() => log::warn!("backend {name} is down: its name has no address"),
            Ok(addresses) => found.push((origin, addresses)),
            Err(error) => log::warn!("backend {name} is down: its name has no address: {error}"),
        }
    }
    for name in missing {
        log::warn!("backend {name} is down: its name has no address yet, after {PATIENCE:?}");
    }
    found
}

fn found_at(found: &[(Origin, Vec<SocketAddr>)], settings: &BackendSettings) -> Option<Vec<SocketAddr>> {
    let (_, addresses) = found.iter().find(|(origin, _)| *origin == settings.origin)?;
    Some(addresses.clone())
}

/// The addresses under which a snapshot knows this place.
fn addresses_in(snapshot: &Snapshot, settings: &BackendSettings) -> Vec<SocketAddr> {
    let members = snapshot.rotation.members().iter().filter(|member| member.backend.origin == settings.origin);
    members.flat_map(|member| member.backend.addresses().to_vec()).collect()
}

/// A name server may give addresses in any order and more than once; the backends at them have one order.
fn in_order(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut addresses = addresses.to_vec();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn find<'m>(members: &'m [Member], name: &str, origin: &Origin) -> Option<&'m Arc<Backend>> {
    let mut backends = members.iter().map(|member| &member.backend);
    backends.find(|backend| *backend.name == *name && backend.origin == *origin)
}

fn only_in<'s>(one: &'s Snapshot, other: &'s Snapshot) -> impl Iterator<Item = &'s Arc<Backend>> {
    let backends = one.rotation.members().iter().map(|member| &member.backend);
    backends.filter(|backend| !other.rotation.members().iter().any(|member| Arc::ptr_eq(&member.backend, backend)))
}

fn move_to(backend: &Backend, addresses: &[SocketAddr]) {
    if backend.move_to(addresses) {
        log::info!("backend {} is at {addresses:?}", backend.name);
        backend.health.tell(backend.health.located(!addresses.is_empty(), Instant::now()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A snapshot is put in as a whole, or not at all.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl View {
    /// Looks whether there is a newer one, and says whether there was.
    pub fn refresh(&mut self, live: &Live) -> bool {
        if self.is_current(live) {
            return false;
        }
        *self = live.view();
        true
    }

    /// Whether there is no newer one.
    pub fn is_current(&self, live: &Live) -> bool {
        live.version.load(Ordering::Acquire) == self.version
    }

    /// The snapshot, for an exchange that may outlive it.
    pub fn share(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }
}

impl std::ops::Deref for View {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

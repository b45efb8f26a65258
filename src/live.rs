//! The current snapshot of configuration and backends: one swap, never two.
//!
//! A snapshot never changes. A reload makes a new one and puts it in the place of the old one, which lives on for the
//! exchanges that began under it. Backends that stay are the same objects in both: their health, their spares, their
//! counts and the exchanges in flight with them know of no reload.
//!
//! Whoever works keeps a snapshot at hand and compares one number to see whether it is still the current one.

use crate::balance::{Backend, BackendSettings, Queue, Rotation};
use crate::config::Config;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What holds at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// What was set.
    pub config: Config,
    /// Whose turn it is.
    pub rotation: Rotation,
}

/// The snapshot that holds now.
#[derive(Debug)]
pub struct Live {
    current: Mutex<Arc<Snapshot>>,
    version: AtomicU64,
    /// Who waits for a place at a backend, under whatever snapshot.
    pub queue: Arc<Queue>,
}

/// A snapshot at hand, and its number.
#[derive(Clone, Debug)]
pub struct View {
    snapshot: Arc<Snapshot>,
    version: u64,
}

impl Live {
    /// The first snapshot. Looks up the names of backends.
    pub fn new(config: Config) -> Live {
        let queue = Arc::default();
        let members = config.backends.iter().map(|settings| (new_backend(settings, &queue), settings.clone()));
        let rotation =
            Rotation::new(members, Arc::clone(&queue), &config.balance, config.passive_health, &config.retries);
        let snapshot = Arc::new(Snapshot { config, rotation });
        Live { current: Mutex::new(snapshot), version: AtomicU64::new(0), queue }
    }

    /// The snapshot that holds now.
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.lock())
    }

    /// The same, to be kept at hand.
    pub fn view(&self) -> View {
        let current = self.lock();
        View { snapshot: Arc::clone(&current), version: self.version.load(Ordering::Acquire) }
    }

    /// Puts a new snapshot in the place of the current one. Looks up the names of backends that are new.
    pub fn replace(&self, config: Config) {
        let old = self.current();
        let stays = |settings: &BackendSettings| {
            let mut members = old.rotation.members().iter().map(|member| &member.backend);
            members.find(|backend| *backend.name == settings.name && backend.origin == settings.origin).cloned()
        };
        let members: Vec<_> = config.backends.iter().map(|settings| (stays(settings), settings.clone())).collect();
        let members = members
            .into_iter()
            .map(|(stays, settings)| (stays.unwrap_or_else(|| new_backend(&settings, &self.queue)), settings));
        let rotation = old.rotation.succeeded_by(members, &config.balance, config.passive_health, &config.retries);
        let new = Arc::new(Snapshot { config, rotation });
        let mut current = self.lock();
        *current = Arc::clone(&new);
        self.version.fetch_add(1, Ordering::Release);
        drop(current);
        if !new.config.passive_health.enabled {
            for member in new.rotation.members() {
                if let Some(flip) = member.backend.health.forgive(Instant::now()) {
                    flip.tell(&member.backend.name);
                }
            }
        }
        for member in old.rotation.members() {
            if !new.rotation.members().iter().any(|other| Arc::ptr_eq(&member.backend, &other.backend)) {
                member.backend.retire();
            }
        }
        new.rotation.serve_queue(); // a limit may have been raised
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Snapshot>> {
        // A snapshot is put in as a whole, or not at all.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    /// Looks whether there is a newer one, and says whether there was.
    pub fn refresh(&mut self, live: &Live) -> bool {
        if live.version.load(Ordering::Acquire) == self.version {
            return false;
        }
        *self = live.view();
        true
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

/// A name that has no address makes its backend one that nobody reaches, until it has one.
fn new_backend(settings: &BackendSettings, queue: &Arc<Queue>) -> Arc<Backend> {
    let addresses = settings.origin.resolve().unwrap_or_else(|error| {
        log::warn!("backend {} is not to be found: {error}", settings.name);
        Vec::new()
    });
    Arc::new(Backend::new(&settings.name, settings.origin.clone(), addresses, queue))
}

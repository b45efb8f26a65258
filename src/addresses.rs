//! What each client address has open, and how often it asks.
//!
//! Numbers alone: no sockets, no clock, no settings. Whoever asks says what time it is and how much is too much, so a
//! limit may change at any moment.
//!
//! **What an address is.** Of IPv6 the first 64 bits: a household or a machine is given so much at least, and whoever has
//! one such network has 2^64 addresses in it, so that counting them one by one would limit nobody. IPv4 addresses count
//! one by one, in IPv6 clothes too.
//!
//! **Why memory has an end.** An entry is needed while its address has a connection open, or its bucket is not full
//! again. Connections are limited as a whole; and a request empties its bucket by one token, which is back after a second
//! at the latest. With a burst of a second's worth there are thus no more entries than connections, and requests let in
//! within the last second; with a burst of ten thousand seconds' worth, ten times as many, since it takes more requests to
//! be remembered for longer. What is not needed any more is swept out. How many addresses there are in the world, and how
//! many of them somebody owns, does not come into it: no request comes but over a connection that stands.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So that workers seldom want the same lock: each is held for one look into a table, or while one table is swept.
const SHARDS: usize = 16;

const SECOND: u64 = 1_000_000_000; // ns

/// What is known of client addresses.
#[derive(Debug)]
pub struct Addresses {
    shards: [Mutex<HashMap<Address, Entry>>; SHARDS],
    /// With keys of its own: nobody can choose addresses that all fall into one shard.
    hasher: RandomState,
    began: Instant,
    /// How often a shard was swept.
    sweeps: AtomicUsize,
}

/// What counts as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Address(Ipv6Addr);

#[derive(Debug, Default)]
struct Entry {
    /// Connections.
    open: usize,
    /// When its bucket will be full again, in nanoseconds since the beginning: the whole state of a bucket is one time.
    full_at: u64,
}

/// How often an address may ask: a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come in a second, at least one. A request takes one.
    pub a_second: u32,
    /// Tokens that the bucket holds, at least one: requests that may come at once.
    pub burst: u32,
}

/// A connection that may stay, and is counted out when this is dropped. By default, one that is not counted.
#[derive(Debug, Default)]
pub struct Guest(Option<(Arc<Addresses>, Address)>);

impl Default for Addresses {
    fn default() -> Addresses {
        Addresses {
            shards: Default::default(),
            hasher: RandomState::new(),
            began: Instant::now(),
            sweeps: AtomicUsize::new(0),
        }
    }
}

impl Addresses {
    /// Counts a connection in; none if its address has as many as `most` open.
    pub fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Guest> {
        let address = Address::of(address);
        let mut shard = self.shard(address);
        let entry = shard.entry(address).or_default();
        if entry.open >= most {
            return None;
        }
        entry.open += 1;
        drop(shard);
        Some(Guest(Some((Arc::clone(self), address))))
    }

    /// Takes a token for a request out of its address's bucket; `false`: there is none, and the next one comes within a
    /// second.
    pub fn may_ask(&self, address: IpAddr, rate: Rate, now: Instant) -> bool {
        let now = self.nanoseconds(now);
        let token = SECOND / u64::from(rate.a_second.max(1));
        let full_from_empty = token.saturating_mul(u64::from(rate.burst.max(1)));
        let address = Address::of(address);
        let mut shard = self.shard(address);
        let entry = shard.entry(address).or_default();
        // Not emptier than empty: under a slower rate, or a greater burst, it may have been.
        entry.full_at = entry.full_at.clamp(now, now.saturating_add(full_from_empty));
        let without_one = entry.full_at.saturating_add(token);
        let is_there = without_one - now <= full_from_empty;
        if is_there {
            entry.full_at = without_one;
        }
        is_there
    }

    /// Forgets what need not be known any more, in a part of the whole; to be called now and then.
    pub fn sweep(&self, now: Instant) {
        let nth = self.sweeps.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let now = self.nanoseconds(now);
        let mut shard = lock(&self.shards[nth]);
        shard.retain(|_, entry| entry.open > 0 || entry.full_at > now);
        if shard.capacity() > 4 * shard.len().max(16) {
            let needed = 2 * shard.len();
            shard.shrink_to(needed); // what a flood has taken is given back
        }
    }

    /// How many addresses something is known of, and for how many there is room.
    pub fn known(&self) -> (usize, usize) {
        let sizes = self.shards.iter().map(lock).map(|shard| (shard.len(), shard.capacity()));
        sizes.fold((0, 0), |(known, room), (len, capacity)| (known + len, room + capacity))
    }

    fn shard(&self, address: Address) -> MutexGuard<'_, HashMap<Address, Entry>> {
        // The remainder is below 16.
        let nth = usize::try_from(self.hasher.hash_one(address) % SHARDS as u64).unwrap_or_default();
        lock(&self.shards[nth])
    }

    fn nanoseconds(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.began);
        u64::try_from(since.min(Duration::from_secs(u64::MAX / SECOND)).as_nanos()).unwrap_or(u64::MAX)
    }
}

fn lock(shard: &Mutex<HashMap<Address, Entry>>) -> MutexGuard<'_, HashMap<Address, Entry>> {
    // Nothing panics under this lock that could leave an entry half written.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Address {
    fn of(address: IpAddr) -> Address {
        Address(match address.to_canonical() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)),
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some((addresses, address)) = &self.0 else { return };
        let mut shard = addresses.shard(*address);
        if let Some(entry) = shard.get_mut(address) {
            entry.open = entry.open.saturating_sub(1);
            if entry.open == 0 && entry.full_at == 0 {
                shard.remove(address); // the rest waits for the sweep, which knows the time
            }
        }
    }
}

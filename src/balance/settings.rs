//! What an operator may say about balancing: each backend, the policy, and what is made of evidence.

use super::Origin;
use std::net::SocketAddr;
use std::time::Duration;

/// One backend, as it was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSettings {
    /// Where it is.
    pub origin: Origin,
    /// What it is called in logs and metrics. Default: host, port and prefix.
    pub name: String,
    /// Its share, beside the others' weights: 1 - 256. Default 1.
    pub weight: u32,
    /// Most exchanges that it gets at once; more wait in the queue. Default: what `BalanceSettings` says.
    pub max_in_flight: Option<usize>,
    /// It gets requests only while all others are out or drain; for who is only full they wait. Default no.
    pub backup: bool,
    /// It gets nothing new. Default no.
    pub drain: bool,
    /// Every address of its name is a backend of its own. Default no: they are ways to one backend.
    pub expand: bool,
}

impl BackendSettings {
    /// A backend about which nothing more was said.
    pub fn at(origin: Origin) -> BackendSettings {
        let name = format!("{}{}", origin.authority, origin.prefix);
        BackendSettings { origin, name, weight: 1, max_in_flight: None, backup: false, drain: false, expand: false }
    }

    /// What the backend at one address of the name is called, where each is a backend of its own: `NAME/10.0.0.7:80`.
    pub fn name_at(&self, address: SocketAddr) -> String {
        format!("{}/{address}", self.name)
    }

    /// Whether a backend at an address of this name could be called so.
    pub fn may_take_name(&self, name: &str) -> bool {
        let address = name.strip_prefix(&*self.name).and_then(|rest| rest.strip_prefix('/'));
        self.expand && address.is_some_and(|address| address.parse::<SocketAddr>().is_ok())
    }
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Each in its turn, as often as its weight says.
    #[default]
    RoundRobin,
    /// Whoever has the fewest exchanges in flight for its weight.
    LeastInFlight,
    /// The less loaded one of two, taken at random.
    TwoChoices,
    /// Of two taken at random, the one with less load times latency.
    PeakEwma,
    /// Always the same for the same key (rendezvous hashing).
    Hash,
}

/// What the policy `hash` goes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    #[default]
    Client,
    /// The path, without the query.
    Path,
    /// The value of a request field.
    Field(String),
    /// The value of a cookie.
    Cookie(String),
    /// The value of a query parameter.
    Query(String),
}

/// How requests are shared out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceSettings {
    /// Default `round_robin`.
    pub policy: Policy,
    /// What `hash` goes by. Default: the client's address.
    pub hash_key: HashKey,
    /// Under `hash`, most load of one backend, in percent of its fair share: 101 - 1000. Default 125.
    pub hash_load_percent: u32,
    /// The cookie that ties a client to its backend. Default: none.
    pub sticky_cookie: Option<String>,
    /// How long a backend that comes back takes to reach its full share. Default 10 s; 0 turns it off.
    pub slow_start: Duration,
    /// How often names are resolved again. Default 10 s.
    pub resolve_interval: Duration,
    /// Most exchanges at once at a backend that says nothing else. Default: no limit.
    pub max_in_flight: Option<usize>,
    /// Most exchanges that wait for a place at a backend. Default 1,000; beyond it 503 `queue-full`.
    pub queue: usize,
}

impl Default for BalanceSettings {
    fn default() -> BalanceSettings {
        BalanceSettings {
            policy: Policy::default(),
            hash_key: HashKey::default(),
            hash_load_percent: 125,
            sticky_cookie: None,
            slow_start: Duration::from_secs(10),
            resolve_interval: Duration::from_secs(10),
            max_in_flight: None,
            queue: 1000,
        }
    }
}

/// What is made of what requests show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassiveHealth {
    /// Default on.
    pub enabled: bool,
    /// So many failures in a row eject a backend. Default 3.
    pub failures: u32,
    /// The first ejection's length; each that follows is twice as long. Default 1 s.
    pub shortest_ejection: Duration,
    /// No ejection is longer. Default 30 s.
    pub longest_ejection: Duration,
    /// With so many in flight ... Default 8.
    pub stall_in_flight: usize,
    /// ... and none answered for so long, it gets nothing new. Default 500 ms.
    pub stall: Duration,
}

impl Default for PassiveHealth {
    fn default() -> PassiveHealth {
        PassiveHealth {
            enabled: true,
            failures: 3,
            shortest_ejection: Duration::from_secs(1),
            longest_ejection: Duration::from_secs(30),
            stall_in_flight: 8,
            stall: Duration::from_millis(500),
        }
    }
}

/// How backends are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveHealth {
    /// What is asked for with GET; `None`: a connection is enough.
    pub path: Option<String>,
    /// From one check to the next, a tenth more or less. Default 2 s.
    pub interval: Duration,
    /// A check takes no longer. Default 1 s.
    pub timeout: Duration,
    /// So many good checks in a row readmit a backend. Default 2.
    pub rise: u32,
    /// So many bad ones eject it. Default 3.
    pub fall: u32,
    /// The least and the greatest status that is good. Default 200 - 399.
    pub status: (u16, u16),
}

impl Default for ActiveHealth {
    fn default() -> ActiveHealth {
        ActiveHealth {
            path: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            status: (200, 399),
        }
    }
}

/// What may be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// Requests that are sent again, in percent of all. Default 20.
    pub budget_percent: u32,
    /// So many a second are always allowed. Default 10.
    pub budget_floor: u32,
    /// Statuses after which a bodyless idempotent request is tried elsewhere. Default none.
    pub statuses: Vec<u16>,
}

impl Default for RetrySettings {
    fn default() -> RetrySettings {
        RetrySettings { budget_percent: 20, budget_floor: 10, statuses: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_of_each_address_is_called_by_it_and_nothing_else_is() {
        let mut settings = BackendSettings::at("http://a:80".parse().unwrap());
        settings.name = "app".to_owned();
        let address = "10.0.0.7:80".parse().unwrap();
        assert_eq!(settings.name_at(address), "app/10.0.0.7:80");
        assert!(!settings.may_take_name("app/10.0.0.7:80"), "its addresses are ways to one backend");
        settings.expand = true;
        assert!(settings.may_take_name(&settings.name_at(address)));
        assert!(settings.may_take_name("app/[::1]:80"));
        for name in ["app", "app/", "app/10.0.0.7", "app/x:80", "app2/10.0.0.7:80", "10.0.0.7:80"] {
            assert!(!settings.may_take_name(name), "{name}");
        }
    }
}

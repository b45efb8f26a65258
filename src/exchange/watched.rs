//! A client of which the wire log tells: what it waits for, and what has come of that.

use super::stop::Wait;
use crate::lines::Lines;
use crate::net::{Connection, Observer, Wants};
use crate::wire_log::Trail;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A client that is observed.
pub(super) struct Watched {
    trail: Arc<Trail>,
    /// What it waited for when it was parked.
    awaited: Wait,
}

impl Watched {
    /// Begins to observe a client that this worker has just accepted.
    pub(super) fn new(
        log: &Arc<Lines>,
        client: &mut Connection,
        peer: SocketAddr,
        began: Instant,
        worker: usize,
    ) -> Watched {
        let trail = Arc::new(Trail::new(log, client.number(), peer, began, worker));
        client.be_observed(Some(Arc::clone(&trail) as Arc<dyn Observer>));
        trail.hand_over();
        Watched { trail, awaited: Wait::client(Wants::READABLE) }
    }

    /// A worker goes on with it: what has come?
    pub(super) fn wakes(&self, client: &Connection, backend: Option<&Connection>, worker: usize) {
        self.trail.turn_of(worker);
        let of_client = client.news(self.awaited.client);
        let of_backend = backend.map_or(Wants::NOTHING, |backend| backend.news(self.awaited.backend));
        let what = both(of_client, of_backend).unwrap_or_else(|| "nothing new, it is time".to_owned());
        client.note(format_args!("awake: {what}"));
    }

    /// It is to be parked.
    pub(super) fn parks(&mut self, client: &Connection, wait: Wait, most: Duration) {
        self.awaited = wait;
        let what = both(wait.client, wait.backend).unwrap_or_else(|| "nothing".to_owned());
        client.note(format_args!("parked, for {what}; {:.1} s at most", most.as_secs_f64()));
    }

    /// The turn is over. To be called before another worker may go on.
    pub(super) fn turn_ends(&self) {
        self.trail.hand_over();
    }
}

fn both(client: Wants, backend: Wants) -> Option<String> {
    let of = |wants: Wants, whom: &str| (wants != Wants::NOTHING).then(|| format!("{wants} of the {whom}"));
    match (of(client, "client"), of(backend, "backend")) {
        (Some(client), Some(backend)) => Some(format!("{backend}, {client}")),
        (client, backend) => client.or(backend),
    }
}

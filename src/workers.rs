//! The pool: as many workers as cores, and not one more for ten thousand idle clients.
//!
//! A worker waits for the baton, collects the visits that can go on, passes the baton on, and gives each of them a
//! turn. A turn never waits. A panic in one costs its client's connection, never the worker.

use crate::error::Reason;
use crate::exchange::{Budget, Client, Desk, Shared, Turn};
use crate::net::{Ready, Unparked};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

/// Starts a worker for each set of counts in `shared`.
///
/// # Errors
/// No thread could be started. Those that were end when the lot is closed.
pub fn start(shared: &Arc<Shared>, threads: &mut Vec<JoinHandle<()>>) -> io::Result<()> {
    for worker in 0..shared.counts.len() {
        let shared = Arc::clone(shared);
        let name = format!("worker {worker}");
        threads.push(std::thread::Builder::new().name(name).spawn(move || work(&shared, worker))?);
    }
    Ok(())
}

fn work(shared: &Arc<Shared>, worker: usize) {
    let mut desk = Desk::new(Arc::clone(shared), worker);
    let mut ready = Vec::new();
    let mut swept = Instant::now();
    while let Some(mut baton) = shared.lot.lead() {
        let now = baton.wait(&mut ready);
        // With a single visit in hand, the baton is kept for the length of its turn: passing it on would wake
        // another worker for nothing. The turn is a short one, since meanwhile nobody watches the lot.
        let mut baton = Some(baton);
        let alone = ready.len() == 1;
        if !alone {
            baton = None;
        }
        for visit in ready.drain(..) {
            let (Ready::Woken(client) | Ready::Expired(client)) = visit;
            desk.clear(now, if alone { Budget::OneBuffer } else { Budget::Whole });
            take_turns(client, &mut desk, shared);
        }
        desk.hand_over_lines();
        drop(baton);
        if now.duration_since(swept) >= SWEEP {
            swept = now;
            shared.rotation.sweep(now);
        }
    }
}

/// Spares are looked at so often, by each worker that is awake anyway.
const SWEEP: std::time::Duration = std::time::Duration::from_millis(100);

/// Gives a client its turn, and another if what it waits for came meanwhile.
fn take_turns(mut client: Box<Client>, desk: &mut Desk, shared: &Arc<Shared>) {
    loop {
        let Some(turn) = guarded(&mut client, desk) else { return };
        let watch = match turn {
            Turn::Close => return,
            Turn::Park(watch) => watch,
        };
        match shared.lot.park(client, watch) {
            Ok(()) | Err(Unparked::Refused(_)) => return,
            Err(Unparked::Ready(back)) => client = back,
        }
        desk.clear(Instant::now(), Budget::Whole);
    }
}

/// A turn that may panic. `None`: the connection is lost to it.
fn guarded(client: &mut Client, desk: &mut Desk) -> Option<Turn> {
    if let Ok(turn) = catch_unwind(AssertUnwindSafe(|| client.turn(desk))) {
        return Some(turn);
    }
    desk.counts().panics.fetch_add(1, Ordering::Relaxed);
    desk.renew(); // its buffers may have been lent out
    let apology = catch_unwind(AssertUnwindSafe(|| {
        client.fail(Reason::Internal.into(), desk);
        client.turn(desk)
    }));
    apology.ok()
}

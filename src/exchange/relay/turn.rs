//! Whose turn it is, and the wait for it where all who could serve are full.
//!
//! A request that waits has a place in the queue, and nothing else: no backend, no buffer, no thread. It is called when it
//! has been given a place at a backend, and when backends have come, gone, fallen ill or recovered.

use super::Exchange;
use crate::balance::{By, Pick, Unserved, Waiting};
use crate::error::Reason;
use crate::exchange::desk::Desk;
use crate::exchange::stop::{Stop, Wait};
use crate::net::{Connection, Wants};
use std::sync::Arc;

impl Exchange {
    /// Whose turn it is; if all who could serve are full, once one of them isn't any more.
    pub(super) fn wait_for_turn(&mut self, client: &Connection, desk: &Desk) -> Result<Pick, Stop> {
        if self.waiting.is_none() {
            match self.snapshot.rotation.next(self.wish, &self.tried, client.caller(), desk.now) {
                Ok(pick) => return Ok(pick),
                Err(Unserved::Wait(waiting)) => {
                    client.note(format_args!("all who could serve are full: in the queue"));
                    self.waiting = Some(waiting);
                }
                Err(Unserved::QueueFull) => return Err(Reason::QueueFull.into()),
                Err(Unserved::Nobody) => return Err(Reason::NoBackend.into()),
            }
        }
        client.heed_call();
        let given = self.waiting.as_ref().and_then(Waiting::given).or_else(|| {
            self.look_again(desk);
            self.waiting.as_ref().and_then(Waiting::given)
        });
        match given {
            Some((nth, place)) => {
                self.leave_queue(desk);
                Ok(Pick { nth, place, trial: None, by: By::Place })
            }
            None if self.waiting.is_some() => Err(Stop::NotYet(Wait::client(Wants::CALL))),
            None => self.wait_for_turn(client, desk), // whom it waited for will not serve it any more
        }
    }

    /// No backend has a request that waits in the queue: it may go to those that have come since, or are well again, and
    /// need not wait for those that have left or are out. It keeps its place while there is anybody to wait for.
    fn look_again(&mut self, desk: &Desk) {
        // First the place in the queue, then this look: who changes something does so, then calls those who wait.
        // Whichever comes second sees the other.
        let Some(waiting) = &mut self.waiting else { return };
        let (live, old) = (&desk.shared.live, &self.snapshot);
        let is_current = desk.live.is_current(live) && std::ptr::eq(&*desk.live, &**old);
        let new = if is_current { Arc::clone(old) } else { live.current() };
        let tried = self.tried.iter().filter_map(|nth| old.rotation.members().get(*nth));
        let tried = new.rotation.places_of(tried.map(|member| &member.backend));
        match new.rotation.take_over(waiting, self.wish, &tried, desk.now) {
            Some(false) => return, // its place has the old number
            Some(true) => {}
            None => self.leave_queue(desk),
        }
        (self.snapshot, self.tried) = (new, tried);
    }

    /// It waits no longer, whatever the reason.
    pub(super) fn leave_queue(&mut self, desk: &Desk) {
        if let Some(waiting) = self.waiting.take() {
            self.record.queued += desk.now.saturating_duration_since(waiting.joined());
        }
    }
}

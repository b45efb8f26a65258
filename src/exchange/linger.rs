//! The gentle close.
//!
//! Closing a socket that holds unread bytes sends a reset, and a reset overtakes what the client has not read yet: our
//! last answer. So our direction is ended first, and what still comes is read and thrown away, within bounds.

use super::desk::Desk;
use super::stop::{Stop, Wait};
use crate::net::{Connection, Wants};
use std::io;
use std::time::Instant;

/// 16 MiB: more than the kernels on both sides hold of what was sent before our answer could be looked at. Whoever sends
/// that much behind it has not looked.
const MOST: usize = 16 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Linger {
    /// What the client has yet to take of our last answer.
    answer: Vec<u8>,
    half_closed: bool,
    discarded: usize,
    pub(super) deadline: Instant,
}

impl Linger {
    /// Begins to close, once the client has taken `answer`.
    pub(super) fn after(answer: Vec<u8>, desk: &Desk) -> Linger {
        Linger { answer, half_closed: false, discarded: 0, deadline: desk.now + desk.live.config.timeouts.linger }
    }

    /// Closes at once: nobody reads any more, or must not believe that this is the end.
    pub(super) fn at_once(desk: &Desk) -> Linger {
        Linger { answer: Vec::new(), half_closed: true, discarded: MOST, deadline: desk.now }
    }

    /// `Ok`: the connection may be dropped.
    pub(super) fn advance(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<(), Stop> {
        while !self.answer.is_empty() {
            match client.write(&[&self.answer]) {
                Ok(n) => drop(self.answer.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Stop::NotYet(Wait::client(Wants::WRITABLE)));
                }
                Err(_) => return Ok(()),
            }
        }
        if !self.half_closed {
            self.half_closed = true;
            if client.shutdown_write().is_err() {
                return Ok(());
            }
        }
        while self.discarded < MOST {
            if desk.budget == 0 && desk.spend(client).is_ok() {
                return Err(Stop::NotYet(Wait::client(Wants::READABLE)));
            }
            match client.read(&mut desk.inbound) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    self.discarded += n;
                    desk.budget = desk.budget.saturating_sub(n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Stop::NotYet(Wait::client(Wants::READABLE)));
                }
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }
}

//! The request's way to the backend: its head, what was collected of its body, and the rest as it comes.

use super::desk::{Desk, Shared};
use super::leg::Leg;
use super::pump::{Encoding, Halt, Pump};
use super::stop::{Stop, Wait};
use crate::error::{Fault, Reason};
use crate::http::{BodyFraming, ForwardedRequest, Request, Sender, forward_request};
use crate::net::{Connection, Wants};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bodies up to here are collected: larger than nearly all forms and API calls.
const COLLECTED_BODY: u64 = 32 * 1024;

/// 64 MiB of collected bodies in all; beyond it, bodies stream.
const COLLECTED_IN_ALL: usize = 64 * 1024 * 1024;

/// So many small bodies that are late may stream at once. The others are waited for until they are here: senders that
/// are slow on purpose come by the thousand, and each would hold a connection to a backend.
const LATE: usize = 16;

/// A request on its way.
pub(super) struct Upload {
    /// The head as it goes out; behind it, what was collected of the body.
    head: ForwardedRequest,
    collect: Option<Collect>,
    /// It is small and late, and streams.
    late: Option<Share>,
    /// How much of the head, and of the body that was collected behind it, the backend has taken.
    sent: usize,
    /// It has taken all of that.
    head_is_sent: bool,
    /// The rest of the body.
    pump: Pump,
    pub(super) state: Sending,
    /// When the last byte was sent, or the rest was given up.
    done: Instant,
    /// So many milliseconds later, the backend has last shown that it is at work.
    renewed_after: u32,
    /// The answer may have waited until the client took what came before it.
    was_held_up: bool,
}

/// How far the request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// There is more to send.
    Going,
    /// The backend has all of it.
    Done,
    /// The backend takes no more, or the client's body is at fault. What the backend has said is read all the same.
    Broken(Option<Fault>),
}

/// A small request body that is waited for before a backend is bothered with it.
struct Collect {
    missing: u64,
    /// As much was missing when it was last decided to wait until then.
    was_missing: u64,
    until: Instant,
    _memory: Share,
}

impl Upload {
    /// Nothing has been sent yet.
    pub(super) fn new(request: &Request<'_, '_>, sender: &Sender<'_>, desk: &Desk) -> Upload {
        let config = &desk.live.config;
        let collect = match request.framing {
            BodyFraming::Length(length) if length <= COLLECTED_BODY && !request.expects_continue => {
                let until = desk.now + config.timeouts.collect;
                let memory = usize::try_from(length)
                    .ok()
                    .and_then(|length| Share::take(&desk.shared, |shared| &shared.collected, length, COLLECTED_IN_ALL));
                memory.map(|memory| Collect { missing: length, was_missing: length, until, _memory: memory })
            }
            BodyFraming::None | BodyFraming::Length(_) | BodyFraming::Chunked | BodyFraming::UntilClose => None,
        };
        let encoding = if request.framing == BodyFraming::Chunked { Encoding::Chunked } else { Encoding::Raw };
        let named = request.connection_named();
        Upload {
            head: forward_request(request, sender),
            collect,
            late: None,
            sent: 0,
            head_is_sent: false,
            pump: Pump::new(request.framing, encoding, config.request_limits.head_bytes, named)
                .up_to(config.load.max_body.unwrap_or(u64::MAX)),
            state: Sending::Going,
            done: desk.now,
            renewed_after: 0,
            was_held_up: false,
        }
    }

    /// Takes in a small body before anybody is bothered with it: so slow little uploads don't occupy a backend, and
    /// the request can be said again. What has not come in time streams like any other body, if not too many do.
    pub(super) fn collect(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<(), Stop> {
        let Some(collect) = &mut self.collect else { return Ok(()) };
        while collect.missing > 0 {
            let room = usize::try_from(collect.missing).unwrap_or(usize::MAX).min(desk.inbound.len());
            match client.read(&mut desk.inbound[..room]) {
                Ok(0) => return Err(Reason::ClientCutBody.into()),
                Ok(n) => {
                    // Grows with what has come, never with what was announced.
                    self.head.bytes.extend_from_slice(&desk.inbound[..n]);
                    self.pump.skip(n as u64);
                    collect.missing -= n as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && desk.now < collect.until => {
                    client.note(format_args!(
                        "{} B of a small body are waited for, before a backend is",
                        collect.missing
                    ));
                    return Err(Stop::NotYet(Wait::client(Wants::READABLE)));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.late = Share::take(&desk.shared, |shared| &shared.late, 1, LATE);
                    if self.late.is_some() {
                        break;
                    }
                    if collect.missing == collect.was_missing {
                        return Err(Reason::ClientBodyTimeout.into());
                    }
                    collect.was_missing = collect.missing;
                    collect.until = desk.now + desk.live.config.timeouts.request_body;
                }
                Err(_) => return Err(Reason::ClientGone.into()),
            }
        }
        collect.missing = 0; // nothing that would still be waited for; the memory is shared as long as the bytes are there
        Ok(())
    }

    /// Sends what can be sent without waiting: head and collected body in one, then the rest.
    pub(super) fn run(&mut self, client: &mut Connection, leg: &mut Leg, desk: &mut Desk) -> Result<(), Stop> {
        if self.state != Sending::Going {
            return Ok(());
        }
        if !self.head_is_sent {
            self.send_head(leg, desk)?;
        }
        if self.state != Sending::Going {
            return Ok(());
        }
        let halt = match self.pump.run(client, &mut leg.connection, desk) {
            Ok(()) => {
                self.state = Sending::Done;
                self.late = None;
                (self.done, self.renewed_after) = (desk.now, 0);
                return Ok(());
            }
            Err(halt) => halt,
        };
        if let Some((source, sink)) = halt.wants() {
            return Err(Stop::NotYet(Wait { client: source, backend: sink }));
        }
        let fault = match halt {
            Halt::SourceFlawed(flaw) => Some(Fault::of_request(flaw)),
            Halt::SourceCut => Some(Reason::ClientCutBody.into()),
            Halt::SourceTooLong => Some(Reason::BodyTooLarge.into()),
            Halt::SinkLost | Halt::SourceQuiet | Halt::SinkFull | Halt::BudgetSpent => None,
        };
        self.break_off(fault, desk.now);
        Ok(())
    }

    /// Nothing more is sent; the answer's time begins.
    fn break_off(&mut self, fault: Option<Fault>, now: Instant) {
        self.state = Sending::Broken(fault);
        self.late = None;
        (self.done, self.renewed_after) = (now, 0);
    }

    fn send_head(&mut self, leg: &mut Leg, desk: &mut Desk) -> Result<(), Stop> {
        while !self.head_is_sent {
            match leg.write_head(&self.head, self.sent, desk.now) {
                Ok((n, left)) => {
                    self.sent += n;
                    self.head_is_sent = left == 0;
                    desk.moved = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(Stop::NotYet(Wait::backend(Wants::WRITABLE)));
                }
                Err(error) if leg.is_connecting() => return Err(Fault::of_dial(&error).into()),
                Err(_) => {
                    self.break_off(None, desk.now);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Bytes of the body that the client has sent, as far as they were read.
    pub(super) fn carried(&self) -> u64 {
        self.pump.carried()
    }

    /// The head as it goes out.
    pub(super) fn head(&self) -> &ForwardedRequest {
        &self.head
    }

    /// The head, for a tunnel to tell of.
    pub(super) fn take_head(&mut self) -> ForwardedRequest {
        std::mem::take(&mut self.head)
    }

    /// Until when a small body is waited for, while it is.
    pub(super) fn collects_until(&self) -> Option<Instant> {
        self.collect.as_ref().filter(|collect| collect.missing > 0).map(|collect| collect.until)
    }

    /// When its last byte was sent, or the rest was given up.
    pub(super) fn done(&self) -> Instant {
        self.done
    }

    /// From when on an answer is waited for.
    pub(super) fn answer_is_due_from(&self) -> Instant {
        self.done + Duration::from_millis(self.renewed_after.into())
    }

    /// How long the backend, which it came to then, has taken to answer by now. A client's time is not the backend's: a
    /// request that was whole when it came is the backend's from then on, connecting included; of one whose body came by
    /// and by, only what follows the last byte is. And an answer to a part of a request may have waited for more of it, or
    /// not: that says nothing of how fast anybody is. Nor does one that a slow reader has kept waiting.
    pub(super) fn answered_after(&self, came: Instant, now: Instant) -> Option<Duration> {
        let since = if self.is_whole() { came } else { self.done };
        (self.state == Sending::Done && !self.was_held_up).then(|| now.saturating_duration_since(since))
    }

    /// The backend has shown that it is at work: its time begins anew.
    pub(super) fn renew(&mut self, now: Instant) {
        let after = now.saturating_duration_since(self.done);
        self.renewed_after = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
    }

    /// Nothing could be heard of the backend, until now.
    pub(super) fn note_held_up(&mut self, now: Instant) {
        self.was_held_up = true;
        self.renew(now);
    }

    /// The request is still whole in memory, or in the client's hands.
    pub(super) fn is_whole(&self) -> bool {
        !self.pump.began
    }

    /// No byte of it has left us.
    pub(super) fn is_untouched(&self) -> bool {
        self.sent == 0
    }

    /// Everything that the client had to send has been read.
    pub(super) fn is_read(&self) -> bool {
        self.state == Sending::Done || self.pump.has_ended()
    }

    /// It is the backend that is waited for: to take bytes.
    pub(super) fn waits_for_backend(&self) -> bool {
        !self.head_is_sent || self.pump.waits_for_sink()
    }

    /// Makes ready to say it all again.
    pub(super) fn restart(&mut self) {
        self.sent = 0;
        self.head_is_sent = false;
        self.state = Sending::Going;
    }
}

/// A part of what there is of something in all, as long as this value lives.
struct Share {
    shared: Arc<Shared>,
    taken: fn(&Shared) -> &AtomicUsize,
    amount: usize,
}

impl Share {
    /// As much of it, if no more than `most` is taken then.
    fn take(shared: &Arc<Shared>, taken: fn(&Shared) -> &AtomicUsize, amount: usize, most: usize) -> Option<Share> {
        // Taken before it is checked, so that two workers can't both take the last of it.
        let share = Share { shared: Arc::clone(shared), taken, amount };
        let before = taken(shared).fetch_add(amount, Ordering::Relaxed);
        (before + amount <= most).then_some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        (self.taken)(&self.shared).fetch_sub(self.amount, Ordering::Relaxed);
    }
}

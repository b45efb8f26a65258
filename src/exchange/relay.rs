//! One request and its final response, across the balancer.
//!
//! The story, from top to bottom: collect a small body, choose a backend, send it the request, bring back the answer.
//! Both directions run at once, since a backend may answer before it has read the request: every turn moves both, and
//! waits for whatever either still needs.
//!
//! - `turn`: whose turn it is, and the wait for one that has room;
//! - `patience`: what is waited for, and until when.

mod patience;
#[cfg(test)]
mod tests;
mod turn;

use super::desk::Desk;
use super::gather::{Gather, Gathered, Missing};
use super::leg::{Asked, Leg, spare_life};
use super::pace::Pace;
use super::pump::{Encoding, Halt, Pump};
use super::record::{Carried, Named, Record};
use super::stop::{Stop, Wait};
use super::tunnel::{Direction, Tunnel};
use super::upload::{Sending, Upload};
use super::wish;
use crate::balance::{Failure, Need, Trial, Waiting, Wish};
use crate::config::HalfClose;
use crate::error::{Fault, Reason};
use crate::http::{
    Answer, BodyFraming, CHUNK_HEAD_ROOM, Endings, FieldTable, Flaw, Persistence, Request, Response, Sender, Version,
    backend_may_be_reused, client_may_stay, forward_interim, forward_response,
};
use crate::live::Snapshot;
use crate::net::{Connection, Glance, Wants};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request that has begun, and everything that is to be known of it until it ends.
pub(super) struct Exchange {
    traits: Traits,
    /// Where it wants to go.
    wish: Wish,
    upload: Upload,
    /// A place in the queue, while every backend that could serve is full.
    waiting: Option<Waiting>,
    /// The backend that is to be asked, and how; once there is a connection, the leg has it.
    asked: Option<Asked>,
    leg: Option<Leg>,
    /// The backends that have been asked, the current one included.
    tried: Vec<usize>,
    /// How often a request that had already left us was sent again.
    repeats: u32,
    said: Said,
    gather: Gather,
    download: Pump,
    /// What the response allows, once it is here.
    verdict: Verdict,
    /// The client's end of file has been looked at, and does not mean that it is gone.
    client_end_is_fine: bool,
    /// When a byte of either body last moved.
    progress: Instant,
    pace: Pace,
    record: Record,
    /// What held when it began, and holds until it ends.
    snapshot: Arc<Snapshot>,
}

/// What must be remembered of a request once its head has been forwarded.
struct Traits {
    version: Version,
    is_head: bool,
    is_idempotent: bool,
    is_bodiless: bool,
    may_stay: bool,
    /// Its credentials are for one connection.
    speaks_for_connection: bool,
    /// It asked for a 100, which has not come yet.
    awaits_continue: bool,
    /// The protocols that it offers to upgrade to.
    offered: Box<[Box<str>]>,
}

/// How much of an answer the client has had: whether another can still be given is a matter of type, not of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing. The request may be tried again elsewhere.
    Nothing,
    /// Only what is no answer (1xx): an error can still be answered, but nothing is tried again.
    Interim,
    /// A final head. Nothing can be unsaid.
    Head,
}

/// What the response's head decided.
struct Verdict {
    persistence: Persistence,
    /// The body is told from a cut-off one only by a reset.
    ends_with_close: bool,
    /// How long the backend's connection may be kept, if it may.
    spare_life: Option<Duration>,
}

/// How an exchange ended for the client's connection.
pub(super) enum After {
    /// It may bring another request.
    Stay,
    /// It is closed, gently.
    Close,
    /// It is closed at once: the client has said that it sends no more, and there is nothing unread that a close would
    /// answer with a reset.
    Done,
    /// It belongs to another protocol now.
    Tunnel(Box<Tunnel>),
}

/// So often is a request sent again that a backend may have seen.
const REPEATS: u32 = 2;

impl Exchange {
    /// An exchange for this request. Nothing has happened yet.
    pub(super) fn new(request: &Request<'_, '_>, sender: &Sender<'_>, record: Record, desk: &Desk) -> Exchange {
        Exchange {
            traits: Traits {
                version: request.version,
                is_head: request.method == "HEAD",
                // RFC 9110 section 9.2.2. An unknown method may do anything.
                is_idempotent: matches!(request.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"),
                is_bodiless: request.framing == BodyFraming::None,
                may_stay: client_may_stay(request.version, request.options),
                speaks_for_connection: request.speaks_for_connection,
                awaits_continue: request.expects_continue,
                offered: match request.upgrades {
                    true => request.offered_protocols().map(Box::from).collect(),
                    false => Box::default(),
                },
            },
            wish: wish::of(request, sender.address, &desk.live),
            upload: Upload::new(request, sender, desk),
            waiting: None,
            asked: None,
            leg: None,
            tried: Vec::new(),
            repeats: 0,
            said: Said::Nothing,
            gather: Gather::of_response(),
            download: Pump::new(BodyFraming::None, Encoding::Raw, 0, Box::default()),
            verdict: Verdict { persistence: Persistence::Closes, ends_with_close: false, spare_life: None },
            client_end_is_fine: false,
            progress: desk.now,
            pace: Pace::default(),
            record,
            snapshot: desk.live.share(),
        }
    }

    /// Goes on as far as it can without waiting.
    pub(super) fn advance(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<After, Stop> {
        self.collect(client, desk)?;
        loop {
            let outcome = match self.choose(client, desk) {
                Ok(()) => self.relay_both_ways(client, desk),
                // In the queue: whoever leaves loses the place.
                Err(Stop::NotYet(wait)) => self.watch_for_leaving(client, wait),
                Err(fault) => Err(fault),
            };
            let fault = match outcome {
                Ok(after) => return Ok(after),
                Err(Stop::NotYet(wait)) => match self.overdue(desk) {
                    None => return Err(Stop::NotYet(wait)),
                    Some(reason) => reason.into(),
                },
                Err(Stop::Fault(fault)) => fault,
            };
            self.blame(&fault, desk);
            if !self.tries_again(&fault, desk.now) {
                return Err(Stop::Fault(fault));
            }
            if let Some(backend) = &self.record.backend {
                backend.account.count_retry();
            }
            let place = if self.asked.is_some() { "at the same backend, by a new connection" } else { "elsewhere" };
            client.note(format_args!("{fault}: tried again {place}"));
        }
    }

    /// Whose turn it is, and a connection to it: a spare, or a new one.
    fn choose(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<(), Stop> {
        // Once the backend has given everything its connection is released, and nobody else is to be asked.
        if self.leg.is_some() || self.said == Said::Head {
            return Ok(());
        }
        #[cfg(test)]
        assert_ne!(self.upload.head().target(), b"/panic/early", "a test asked for it");
        let asked = match self.asked.take() {
            Some(asked) => asked,
            None => {
                let pick = self.wait_for_turn(client, desk)?;
                self.tried.push(pick.nth);
                self.record.tries += 1;
                client.note(format_args!("to {}: {}", pick.place.name, pick.by));
                self.record.backend = Some(Arc::clone(pick.place.backend()));
                Asked::of_rotation(pick, self.need(client))
            }
        };
        match Leg::to(asked, client, desk) {
            Ok(leg) => self.leg = Some(leg),
            Err((asked, fault)) => {
                self.asked = Some(asked);
                return Err(fault.into());
            }
        }
        Ok(())
    }

    /// Holds a fault against the backend, if it was its doing.
    fn blame(&mut self, fault: &Fault, desk: &Desk) {
        let was_spare = self.leg.as_ref().is_some_and(Leg::is_spare);
        let failure = match fault.reason.failure() {
            // A backend that closes a connection which it kept is no news.
            Some(_) if was_spare && fault.reason == Reason::BackendClosedBeforeResponse => return,
            Some(failure) => failure,
            // It may have left for the sake of addresses where nobody answers, each of which takes its time.
            None if fault.reason == Reason::ClientGone && self.leg.as_ref().is_some_and(Leg::is_another_try) => {
                Failure::Refused
            }
            None => return,
        };
        if self.leg.as_ref().is_some_and(|leg| leg.asked.place.has_left(&leg.connection)) {
            return; // what an address does that is the backend's no more tells nothing of it
        }
        let asked = self.leg.as_mut().map(|leg| &mut leg.asked).or(self.asked.as_mut());
        if let Some(asked) = asked.filter(|_| self.said != Said::Head) {
            if fault.reason.failure() == Some(Failure::Refused) && asked.has_another_address() {
                return; // which is tried next: it may let us in
            }
            let trial: Option<Trial> = asked.trial.take();
            self.snapshot.rotation.failed(&asked.place, failure, trial, desk.now);
        }
    }

    /// Sends the request and brings back the response, at the same time.
    fn relay_both_ways(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<After, Stop> {
        desk.moved = false;
        let up = match &mut self.leg {
            Some(leg) => {
                let up = self.upload.run(client, leg, desk);
                self.record.connect = leg.connect; // here: a swift backend may be through with its answer in this turn
                up
            }
            None => Ok(()), // the backend has said all it had to say
        };
        if self.said != Said::Head {
            let awaits = self.awaits_backend();
            if let Some(leg) = &mut self.leg {
                leg.asked.place.awaits_backend(awaits, desk.now);
            }
        }
        desk.leave_a_share();
        let up = match up {
            Ok(()) => Wait::NOTHING,
            Err(Stop::NotYet(wait)) => wait,
            Err(Stop::Fault(fault)) => return Err(fault.into()),
        };
        let down = self.download(client, desk);
        if desk.moved {
            self.progress = desk.now;
        }
        let wait = match down {
            Ok(After::Stay) => return Ok(self.finish(client, desk)),
            Ok(after) => return Ok(after),
            Err(Stop::NotYet(wait)) => up.and(wait),
            Err(Stop::Fault(fault)) => return Err(fault.into()),
        };
        if let Sending::Broken(Some(fault)) = self.upload.state {
            // The client broke its request off: what the backend had said before is through.
            return Err(if client.is_broken() { Reason::ClientGone.into() } else { fault.into() });
        }
        if wait.client.is_for_bytes() && !self.awaits_backend() {
            self.wait_for_client(desk)?;
        }
        self.watch_for_leaving(client, wait)
    }

    /// A reset means that the client is gone. So does, while its backend has more to give to a whole request, its end of file
    /// with nothing unread before it.
    fn watch_for_leaving(&mut self, client: &Connection, wait: Wait) -> Result<After, Stop> {
        if client.is_broken() {
            return Err(Reason::ClientGone.into());
        }
        let wait = wait.and(Wait::client(Wants::BROKEN));
        // Once the backend has given everything, there is nothing left to call off.
        if !self.upload.is_read() || self.client_end_is_fine || (self.leg.is_none() && self.waiting.is_none()) {
            return Err(Stop::NotYet(wait));
        }
        if client.is_ending() {
            match client.glance() {
                Glance::Ended if self.snapshot.config.half_close == HalfClose::Gone => {
                    return Err(Reason::ClientGone.into());
                }
                Glance::Ended | Glance::Bytes => {
                    self.client_end_is_fine = true;
                    return Err(Stop::NotYet(wait));
                }
                Glance::Quiet => {}
            }
        }
        Err(Stop::NotYet(wait.and(Wait::client(Wants::CLOSED))))
    }

    /// The response's way: interim responses, the head, the body.
    fn download(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<After, Stop> {
        while self.said != Said::Head {
            if let Some(leg) = &mut self.leg
                && desk.budget == 0
                && !leg.connection.holds_bytes()
            {
                // A backend that sends interim responses without end would never end its turn.
                desk.spend(&mut leg.connection).map_err(|_| Reason::BackendCutHead)?;
                return Err(Stop::NotYet(Wait::backend(Wants::READABLE)));
            }
            if let Some(tunnel) = self.head_of_response(client, desk)? {
                return Ok(After::Tunnel(tunnel));
            }
        }
        #[cfg(test)]
        assert_ne!(self.upload.head().target(), b"/panic/late", "a test asked for it");
        let outcome = match &mut self.leg {
            Some(leg) => self.download.run_to_last(&mut leg.connection, client, desk),
            None => self.download.flush(client, desk).map(|()| None),
        };
        if self.download.has_ended() {
            self.release_backend(desk); // it need not wait for a slow reader, nor a fast one meet itself
        }
        let last = outcome.map_err(of_download)?;
        if let Some(last) = last {
            self.download.finish(&last, client, desk).map_err(of_download)?;
        }
        Ok(After::Stay)
    }

    /// Reads one head from the backend and passes it on. A 101 begins a tunnel.
    fn head_of_response(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<Option<Box<Tunnel>>, Stop> {
        if self.download.has_leftover() {
            self.download.flush(client, desk).map_err(of_download)?; // interim responses, to a slow reader
            self.upload.note_held_up(desk.now);
        }
        let Some(leg) = &mut self.leg else { return Err(Reason::BackendClosedBeforeResponse.into()) };
        let limit = self.snapshot.config.response_head_bytes;
        let too_large = |so_far: &[u8]| if so_far.len() > limit { Err(Flaw::HeadTooLarge) } else { Ok(()) };
        // Room for the largest head, and not for more: the rest of a long body is better left where it is until the client
        // is seen to take it.
        let room = desk.inbound.len().min(limit + CHUNK_HEAD_ROOM);
        let gathered = self.gather.read(&mut leg.connection, &mut desk.inbound[..room], too_large);
        let Gathered { head_end, end } = match gathered {
            Ok(gathered) => gathered,
            Err(Missing::NotYet) => return Err(Stop::NotYet(Wait::backend(Wants::READABLE))),
            Err(Missing::Flawed(flaw)) => return Err(Fault::of_response(flaw).into()),
            Err(Missing::Ended) if self.gather.is_empty() => {
                leg.was_closed(desk.now);
                return Err(Reason::BackendClosedBeforeResponse.into());
            }
            Err(Missing::Ended) => return Err(Reason::BackendCutHead.into()),
        };
        if head_end > limit {
            return Err(Fault::of_response(Flaw::HeadTooLarge).into());
        }
        self.gather = Gather::of_response();
        desk.budget = desk.budget.saturating_sub(end);

        let mut out = std::mem::take(&mut desk.out);
        let mut inbound = std::mem::take(&mut desk.inbound);
        out.clear();
        let outcome = self.pass_on_head(&mut inbound[..end], head_end, &mut out, client, desk);
        // From now on the client has its time to take it. (A 101 may have to wait, and nothing has moved then.)
        desk.moved |= !matches!(outcome, Err(Stop::NotYet(_)));
        desk.out = out;
        desk.inbound = inbound;
        outcome
    }

    /// Reads a complete head, and whatever lies behind it in `inbound`, and writes what the client gets of it.
    fn pass_on_head(
        &mut self,
        inbound: &mut [u8],
        head_end: usize,
        out: &mut Vec<u8>,
        client: &mut Connection,
        desk: &mut Desk,
    ) -> Result<Option<Box<Tunnel>>, Stop> {
        let Some(leg) = &mut self.leg else { return Err(Reason::BackendClosedBeforeResponse.into()) };
        let (head, behind) = inbound.split_at_mut(head_end);
        let mut table = FieldTable::default();
        let response = Response::read(head, &mut table, self.traits.is_head).map_err(Fault::of_response)?;
        if response.status == 101 {
            if !response.switches_to_one_of(&self.traits.offered) {
                return Err(Fault::of_response(Flaw::UnaskedUpgrade).into());
            }
            match self.upload.state {
                Sending::Done => {}
                Sending::Going => {
                    // The request's body goes out whole before the tunnel begins: until then the 101 waits.
                    leg.connection.put_back(inbound);
                    return Err(Stop::NotYet(Wait::NOTHING));
                }
                Sending::Broken(fault) => return Err(fault.unwrap_or(Reason::BackendBadResponse.into()).into()),
            }
        }
        if response.is_interim() {
            leg.connection.put_back(behind);
            self.note_answer(desk.now);
            client.note(format_args!("{}: an interim response", response.status));
            self.said = Said::Interim;
            self.traits.awaits_continue &= response.status != 100;
            self.upload.renew(desk.now); // a backend that says "102 Processing" is not late
            if self.traits.version == Version::Http11 {
                forward_interim(&response, self.snapshot.config.via, out);
                self.download.send(&[out], client, desk).map_err(of_download)?;
            }
            return Ok(None);
        }

        // A 101 may have waited for the end of the request.
        if response.status != 101
            && let Some(took) = self.upload.answered_after(leg.asked.place.since, desk.now)
        {
            self.snapshot.rotation.note_latency(&leg.asked.place, took, desk.now);
        }
        if self.is_worth_another_try(response.status, desk.now) {
            self.note_answer(desk.now);
            return Err(Reason::BackendRetryStatus.into());
        }
        self.record.note_head((self.upload.state != Sending::Going).then(|| self.upload.done()), desk.now);
        let version = self.traits.version;
        let ending = Endings::of(response.framing, version);
        let stays = self.traits.may_stay
            && self.upload.state == Sending::Done
            && ending != Endings::Close
            && !desk.shared.lot.is_draining();
        self.verdict = Verdict {
            persistence: match (stays, version) {
                (_, _) if response.status == 101 => Persistence::Stays,
                (false, _) => Persistence::Closes,
                (true, Version::Http11) => Persistence::Stays,
                (true, Version::Http10) => Persistence::StaysByRequest,
            },
            ends_with_close: ending == Endings::Close,
            spare_life: (backend_may_be_reused(response.version, response.options, response.framing)
                && !response.announces_in_vain
                && !self.traits.speaks_for_connection
                && !self.traits.awaits_continue) // who never said 100 may not take what follows for the body
                .then(|| spare_life(response.keep_alive_timeout, desk)),
        };
        match response.status {
            101 => client.note(format_args!("101: from here on it is a tunnel")),
            status => client.note(format_args!("{status}: {}, which goes on {}", response.framing, ending.words())),
        }
        let via = self.snapshot.config.via;
        let date = if response.has_date() { "" } else { desk.date() };
        let cookie = self.cookie();
        let cookie = cookie.as_ref().map(|(name, digits)| (name.as_str(), digits.as_slice()));
        let answer = Answer { version, persistence: self.verdict.persistence, date, via, cookie };
        forward_response(&response, &answer, out);
        if response.status == 101 {
            self.note_answer(desk.now);
            return self.begin_tunnel(out, behind, client, desk).map(Some);
        }
        let encoding = if ending == Endings::Chunks { Encoding::Chunked } else { Encoding::Raw };
        let trailer_limit = self.snapshot.config.response_head_bytes;
        self.download = Pump::new(response.framing, encoding, trailer_limit, response.connection_named());
        let piece = self.download.take_in(behind).map_err(of_download)?;
        self.note_answer(desk.now);
        if piece.used < behind.len() {
            self.verdict.spare_life = None; // bytes that nobody asked for: they go nowhere, and nor does the connection
        }
        if self.download.has_ended() {
            self.release_backend(desk); // before the client knows, and asks again
        }
        self.download.give_on(out, behind, &piece, client, desk).map_err(of_download)?;
        self.said = Said::Head; // not before: a faulty first chunk can still be answered with a 502
        self.record.status = response.status;
        Ok(None)
    }

    /// The backend has answered, with what can be accepted: until that is known, it may be a failure yet.
    fn note_answer(&mut self, now: Instant) {
        if let Some(Leg { asked, .. }) = &mut self.leg {
            let trial = asked.trial.take();
            self.snapshot.rotation.answered(&mut asked.place, trial, now);
        }
    }

    /// The cookie that ties the client to the backend that has answered, unless it has that one already.
    fn cookie(&self) -> Option<(String, [u8; 16])> {
        let name = self.snapshot.config.balance.sticky_cookie.as_ref()?;
        let sticky = self.snapshot.rotation.members().get(*self.tried.last()?)?.sticky;
        (self.wish.sticky != Some(sticky)).then(|| (name.clone(), sticky.digits()))
    }

    /// Whether this answer is passed over, and somebody else is asked: only where that was wished for, nothing can be done
    /// twice by it, and there is somebody else.
    fn is_worth_another_try(&self, status: u16, now: Instant) -> bool {
        let rotation = &self.snapshot.rotation;
        self.snapshot.config.retries.statuses.contains(&status)
            && self.traits.is_idempotent
            && self.traits.is_bodiless
            && self.said == Said::Nothing
            && self.repeats < REPEATS
            && rotation.has_another(&self.tried, now)
            && rotation.budget.try_withdraw(now)
    }

    /// From here on, both sides speak a protocol of their own.
    fn begin_tunnel(
        &mut self,
        head: &[u8],
        behind: &mut [u8],
        client: &mut Connection,
        desk: &mut Desk,
    ) -> Result<Box<Tunnel>, Stop> {
        let mut down = Pump::tunnel();
        let piece = down.take_in(behind).map_err(of_download)?;
        down.give_on(head, behind, &piece, client, desk).map_err(of_download)?;
        self.said = Said::Head;
        self.record.status = 101;
        let leg = self.leg.take().ok_or(Reason::BackendClosedBeforeResponse)?;
        Ok(Box::new(Tunnel {
            leg,
            head: self.upload.take_head(),
            record: self.record.clone(),
            bytes_in: self.upload.carried(),
            snapshot: Arc::clone(&self.snapshot),
            up: Direction::new(Pump::tunnel()),
            down: Direction::new(down),
            progress: desk.now,
        }))
    }

    /// The backend has given everything: its connection rests, or goes.
    fn release_backend(&mut self, desk: &Desk) {
        let Some(leg) = self.leg.take() else { return };
        let reusable = self.upload.state == Sending::Done && !leg.connection.holds_bytes();
        if let (true, Some(life)) = (reusable, self.verdict.spare_life) {
            leg.rest(desk.now, life);
        }
    }

    /// The client has everything.
    fn finish(&mut self, client: &Connection, desk: &mut Desk) -> After {
        self.count_out(None, 0, desk);
        match self.verdict.persistence {
            Persistence::Stays | Persistence::StaysByRequest => After::Stay,
            // Some old clients send an empty line behind a body, whatever they have said.
            Persistence::Closes if !self.traits.may_stay && self.traits.is_bodiless && client.is_quiet() => After::Done,
            Persistence::Closes => After::Close,
        }
    }

    /// Whether, and where, the request is tried again after this fault: never once a byte of an answer has come, but for one
    /// that is passed over, and only if it is still whole, in memory or in the client's hands.
    fn tries_again(&mut self, fault: &Fault, now: Instant) -> bool {
        let leg = self.leg.take(); // whatever happens next, this connection is spent
        let was_spare = leg.as_ref().is_some_and(Leg::is_spare);
        let Some(mut asked) = leg.map(|leg| leg.asked).or(self.asked.take()) else { return false };
        if self.said != Said::Nothing || !self.upload.is_whole() || !self.gather.is_empty() {
            return false;
        }
        let may_repeat = self.traits.is_idempotent || self.upload.is_untouched();
        let never_connected = fault.reason.failure() == Some(Failure::Refused);
        let was_silent = fault.reason == Reason::BackendClosedBeforeResponse;
        if never_connected {
            // Nothing was sent: the backend's next address, then the next backend, each once, whatever the method.
            self.asked = asked.try_next_address().then_some(asked);
        } else if was_silent && may_repeat && was_spare {
            // A backend that closes a connection which it kept is no news: the same one, over a new connection.
            asked.spare = None;
            self.asked = Some(asked);
        } else if fault.reason == Reason::BackendRetryStatus || was_silent && may_repeat && self.may_go_elsewhere(now) {
            self.repeats += 1;
        } else {
            return false;
        }
        match &mut self.asked {
            Some(asked) => asked.place.awaits_backend(true, now),
            None if !self.snapshot.rotation.has_any_left(&self.tried, now) => return false,
            None => {}
        }
        self.upload.restart();
        true
    }

    /// Whether another backend may be sent what one has been sent: that costs a token, and there has to be somebody.
    fn may_go_elsewhere(&self, now: Instant) -> bool {
        let rotation = &self.snapshot.rotation;
        self.repeats < REPEATS && rotation.has_any_left(&self.tried, now) && rotation.budget.try_withdraw(now)
    }

    /// How much of an answer the client has had.
    pub(super) fn said(&self) -> Said {
        self.said
    }

    /// The client's connection may go on if the answer is one of ours: the whole request has been read.
    pub(super) fn may_stay(&self) -> bool {
        self.traits.may_stay && self.upload.is_read()
    }

    /// Which spares will do. If one turns out to be dead, the request is said again, as long as that can be done: some of a
    /// body that streams is gone then, unless its client waits for a 100.
    fn need(&self, client: &Connection) -> Need {
        let stays_whole = self.upload.is_read() || self.traits.awaits_continue && client.is_quiet();
        if self.traits.is_idempotent && stays_whole { Need::Alive } else { Need::Sure }
    }

    /// Whether it is HEAD that is to be answered.
    pub(super) fn is_head(&self) -> bool {
        self.traits.is_head
    }

    /// The client's version.
    pub(super) fn version(&self) -> Version {
        self.traits.version
    }

    /// The request's id.
    pub(super) fn id(&self) -> &[u8] {
        self.upload.head().id()
    }

    /// Only a reset tells the client that this answer was cut off.
    pub(super) fn must_reset(&self) -> bool {
        self.said == Said::Head && self.verdict.ends_with_close
    }

    /// The interim responses that the client has yet to take.
    pub(super) fn take_leftover(&mut self) -> Vec<u8> {
        self.download.take_leftover()
    }

    /// The backend's connection, while there is one.
    pub(super) fn backend(&self) -> Option<&Connection> {
        self.leg.as_ref().map(|leg| &leg.connection)
    }

    /// Counts the exchange out of the books. `reason`: why it did not go as the client hoped; `own_answer`: how many
    /// bytes of a body our own answer to that has.
    pub(super) fn count_out(&mut self, reason: Option<Reason>, own_answer: u64, desk: &mut Desk) {
        self.leave_queue(desk); // in vain
        let bytes_out = match self.said {
            Said::Head => self.download.delivered(),
            Said::Nothing | Said::Interim => own_answer,
        };
        let carried = Carried { bytes_in: self.upload.carried(), bytes_out };
        let named = Named::of_head(self.upload.head(), self.traits.version, desk);
        self.record.count_out(named, carried, reason, desk);
    }
}

/// What a download's halt means.
fn of_download(halt: Halt) -> Stop {
    match halt {
        Halt::SourceQuiet | Halt::BudgetSpent => Stop::NotYet(Wait::backend(Wants::READABLE)),
        Halt::SinkFull => Stop::NotYet(Wait::client(Wants::WRITABLE)),
        Halt::SourceCut | Halt::SourceTooLong => Reason::BackendCutBody.into(),
        Halt::SourceFlawed(flaw) => Fault::of_response(flaw).into(),
        Halt::SinkLost => Reason::ClientGone.into(),
    }
}

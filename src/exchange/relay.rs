//! One request and its final response, across the balancer.
//!
//! The story, from top to bottom: collect a small body, choose a backend, send it the request, bring back the answer.
//! Both directions run at once, since a backend may answer before it has read the request: every turn moves both, and
//! waits for whatever either still needs.

use super::desk::{Desk, Shared};
use super::gather::{Gather, Gathered, Missing};
use super::pump::{Encoding, Halt, Pump};
use super::stop::{Stop, Wait};
use super::tunnel::{Direction, Tunnel};
use crate::access_log::Outcome;
use crate::balance::{Backend, InFlight, Need};
use crate::config::HalfClose;
use crate::error::{Fault, Reason};
use crate::http::{
    Answer, BodyFraming, Endings, FieldTable, Flaw, ForwardedRequest, Persistence, Request, Response, Version,
    backend_may_be_reused, client_may_stay, forward_interim, forward_request, forward_response,
};
use crate::net::{Connection, Glance, Wants, is_shortage};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

/// A request that has begun, and everything that is to be known of it until it ends.
pub(super) struct Exchange {
    /// The head as it goes to the backend; behind it, what was collected of the body.
    head: ForwardedRequest,
    traits: Traits,
    collect: Option<Collect>,
    upload: Upload,
    /// The backend that is asked, and how.
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
    record: Record,
}

/// What must be remembered of a request once its head has been forwarded.
struct Traits {
    version: Version,
    is_head: bool,
    is_idempotent: bool,
    may_stay: bool,
    expects_continue: bool,
    /// The protocols that it offers to upgrade to.
    offered: Box<[Box<str>]>,
}

/// A small request body that is waited for before a backend is bothered with it.
struct Collect {
    missing: u64,
    until: Instant,
    _ticket: Ticket,
}

/// The request's way to the backend.
struct Upload {
    /// How much of the head, and the body that was collected behind it, the backend has taken.
    sent: usize,
    /// It has taken all of that.
    head_is_sent: bool,
    /// The rest of the body.
    pump: Pump,
    state: Sending,
    /// When the last byte was sent.
    done: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Going,
    Done,
    /// The backend takes no more, or the client gave no more. What the backend has said is read all the same.
    Broken(Option<Reason>),
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

/// Whom to ask.
#[derive(Clone)]
struct Asked {
    backend: Arc<Backend>,
    way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Over a spare, or else by a new connection.
    Any,
    /// By a new connection to the `attempt`th of its addresses.
    Fresh { attempt: usize },
}

/// The way to a backend.
pub(super) struct Leg {
    backend: InFlight,
    pub(super) connection: Connection,
    kind: Kind,
    since: Instant,
    /// It has taken a byte, so the connection stands.
    connected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Kept since then.
    Spare { rested: Instant },
    /// Opened for this exchange.
    Fresh,
}

/// What the response's head decided.
struct Verdict {
    persistence: Persistence,
    /// The body is told from a cut-off one only by a reset.
    ends_with_close: bool,
    /// How long the backend's connection may be kept, if it may.
    spare_life: Option<Duration>,
}

/// What is told of the exchange when it has ended.
pub(super) struct Record {
    client: SocketAddr,
    began: Instant,
    pub(super) status: u16,
    backend: Option<Arc<str>>,
    tries: u32,
    connect: Option<Duration>,
    wait: Option<Duration>,
}

/// How an exchange ended for the client's connection.
pub(super) enum After {
    /// It may bring another request.
    Stay,
    /// It is closed, gently.
    Close,
    /// It belongs to another protocol now.
    Tunnel(Box<Tunnel>),
}

/// Bodies up to here are collected: larger than nearly all forms and API calls.
const COLLECTED_BODY: u64 = 32 * 1024;

/// 64 MiB of collected bodies in all; beyond it, bodies stream.
const COLLECTED_IN_ALL: usize = 64 * 1024 * 1024;

/// So often is a request sent again that a backend may have seen.
const REPEATS: u32 = 2;

impl Exchange {
    /// An exchange for this request. Nothing has happened yet.
    pub(super) fn new(
        request: &Request<'_, '_>,
        sender: &crate::http::Sender<'_>,
        client: SocketAddr,
        desk: &Desk,
    ) -> Exchange {
        let timeouts = &desk.shared.config.timeouts;
        let collect = match request.framing {
            BodyFraming::Length(length) if length <= COLLECTED_BODY && !request.expects_continue => {
                Ticket::new(&desk.shared, length).map(|ticket| Collect {
                    missing: length,
                    until: desk.now + timeouts.collect,
                    _ticket: ticket,
                })
            }
            BodyFraming::None | BodyFraming::Length(_) | BodyFraming::Chunked | BodyFraming::UntilClose => None,
        };
        let encoding = if request.framing == BodyFraming::Chunked { Encoding::Chunked } else { Encoding::Raw };
        let trailer_limit = desk.shared.config.request_limits.head_bytes;
        Exchange {
            head: forward_request(request, sender),
            traits: Traits {
                version: request.version,
                is_head: request.method == "HEAD",
                // RFC 9110 section 9.2.2. An unknown method may do anything.
                is_idempotent: matches!(request.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"),
                may_stay: client_may_stay(request.version, request.options),
                expects_continue: request.expects_continue,
                offered: match request.upgrades {
                    true => request.offered_protocols().map(Box::from).collect(),
                    false => Box::default(),
                },
            },
            collect,
            upload: Upload {
                sent: 0,
                head_is_sent: false,
                pump: Pump::new(request.framing, encoding, trailer_limit, request.connection_named()),
                state: Sending::Going,
                done: desk.now,
            },
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
            record: Record::new(client, desk),
        }
    }

    /// Goes on as far as it can without waiting.
    pub(super) fn advance(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<After, Stop> {
        self.collect(client, desk)?;
        loop {
            let outcome = match self.choose(client, desk) {
                Ok(()) => self.relay_both_ways(client, desk),
                Err(fault) => Err(Stop::Fault(fault)),
            };
            let fault = match outcome {
                Ok(after) => return Ok(after),
                Err(Stop::NotYet(wait)) => match self.overdue(desk) {
                    None => return Err(Stop::NotYet(wait)),
                    Some(reason) => reason.into(),
                },
                Err(Stop::Fault(fault)) => fault,
            };
            if !self.tries_again(&fault, desk) {
                return Err(Stop::Fault(fault));
            }
        }
    }

    /// Takes in a small body before anybody is bothered with it: so slow little uploads don't occupy a backend, and
    /// the request can be said again. What has not come in time streams like any other body.
    fn collect(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<(), Stop> {
        let Some(collect) = &mut self.collect else { return Ok(()) };
        while collect.missing > 0 {
            let room = usize::try_from(collect.missing).unwrap_or(usize::MAX).min(desk.inbound.len());
            match client.read(&mut desk.inbound[..room]) {
                Ok(0) => return Err(Reason::ClientCutBody.into()),
                Ok(n) => {
                    // Grows with what has come, never with what was announced.
                    self.head.bytes.extend_from_slice(&desk.inbound[..n]);
                    self.upload.pump.skip(n as u64);
                    collect.missing -= n as u64;
                    self.progress = desk.now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && desk.now < collect.until => {
                    return Err(Stop::NotYet(Wait::client(Wants::READABLE)));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Err(Reason::ClientGone.into()),
            }
        }
        // From here on nothing is missing that would be waited for; the ticket stays as long as the bytes do.
        collect.missing = 0;
        Ok(())
    }

    /// Whose turn it is, and a connection to it: a spare, or a new one.
    fn choose(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<(), Fault> {
        if self.leg.is_some() {
            return Ok(());
        }
        if self.asked.is_none() {
            let (nth, backend) = desk.shared.rotation.next(&self.tried).ok_or(Reason::NoBackend)?;
            self.tried.push(nth);
            self.record.tries += 1;
            self.record.backend = Some(Arc::clone(&backend.name));
            self.asked = Some(Asked { backend: Arc::clone(backend), way: Way::Any });
        }
        let Some(Asked { backend, way }) = &self.asked else { return Err(Reason::NoBackend.into()) };
        let spare = match way {
            Way::Any => backend.spare(client, self.traits.need(), desk.now),
            Way::Fresh { .. } => None,
        };
        let (connection, kind) = match spare {
            Some((connection, rested)) => (connection, Kind::Spare { rested }),
            None => (dial(backend, way.attempt(), client, &desk.shared)?, Kind::Fresh),
        };
        let connected = kind != Kind::Fresh;
        let backend = InFlight::new(Arc::clone(backend));
        self.leg = Some(Leg { backend, connection, kind, since: desk.now, connected });
        Ok(())
    }

    /// Sends the request and brings back the response, at the same time.
    fn relay_both_ways(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<After, Stop> {
        desk.moved = false;
        let up = self.upload(client, desk);
        let down = match up {
            Err(Stop::Fault(fault)) => Err(Stop::Fault(fault)),
            Ok(()) | Err(Stop::NotYet(_)) => self.download(client, desk),
        };
        if desk.moved {
            self.progress = desk.now;
        }
        let wait = match (up, down) {
            (_, Ok(After::Stay)) => return Ok(self.finish(desk)),
            (_, Ok(after)) => return Ok(after),
            (_, Err(Stop::Fault(fault))) => return Err(Stop::Fault(fault)),
            (Ok(()), Err(Stop::NotYet(wait))) => wait,
            (Err(Stop::NotYet(up)), Err(Stop::NotYet(down))) => up.and(down),
            (Err(Stop::Fault(fault)), Err(Stop::NotYet(_))) => return Err(Stop::Fault(fault)),
        };
        if let Sending::Broken(Some(reason)) = self.upload.state
            && self.said != Said::Head
        {
            return Err(reason.into()); // the client cut its request, and no answer had come before that
        }
        self.watch_for_leaving(client, desk, wait)
    }

    /// A reset means that the client is gone. So does, while a whole request waits for its backend, its end of file with
    /// nothing unread before it.
    fn watch_for_leaving(&mut self, client: &Connection, desk: &Desk, wait: Wait) -> Result<After, Stop> {
        if client.is_broken() {
            return Err(Reason::ClientGone.into());
        }
        let wait = wait.and(Wait::client(Wants::BROKEN));
        // Once the backend has given everything, there is nothing left to call off.
        if self.upload.state == Sending::Going || self.client_end_is_fine || self.leg.is_none() {
            return Err(Stop::NotYet(wait));
        }
        if client.is_ending() {
            match client.glance() {
                Glance::Ended if desk.shared.config.half_close == HalfClose::Gone => {
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

    /// The request's way: head and collected body first, then the rest of the body.
    fn upload(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<(), Stop> {
        let Some(leg) = &mut self.leg else { return Ok(()) };
        if self.upload.state != Sending::Going {
            return Ok(());
        }
        let origin = &leg.backend.origin;
        let pieces = self.head.pieces(&origin.prefix, &origin.authority);
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        while self.upload.sent < length {
            match leg.connection.write(&behind(&pieces, self.upload.sent)) {
                Ok(n) => {
                    self.upload.sent += n;
                    desk.moved = true;
                    if !leg.connected {
                        leg.connected = true;
                        self.record.connect = Some(desk.now.saturating_duration_since(leg.since));
                        leg.backend.prefer(self.asked.as_ref().map_or(0, |asked| asked.way.attempt()));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(Stop::NotYet(Wait::backend(Wants::WRITABLE)));
                }
                Err(error) if !leg.connected => return Err(Fault::of_dial(&error).into()),
                Err(_) => {
                    self.upload.state = Sending::Broken(None);
                    return Ok(());
                }
            }
        }
        self.upload.head_is_sent = true;
        let halt = match self.upload.pump.run(client, &mut leg.connection, desk) {
            Ok(()) => {
                self.upload.state = Sending::Done;
                self.upload.done = desk.now;
                return Ok(());
            }
            Err(halt) => halt,
        };
        if let Some((source, sink)) = halt.wants() {
            return Err(Stop::NotYet(Wait { client: source, backend: sink }));
        }
        self.upload.state = match halt {
            Halt::SourceFlawed(flaw) if self.said != Said::Head => return Err(Fault::of_request(flaw).into()),
            Halt::SourceCut | Halt::SourceFlawed(_) => Sending::Broken(Some(Reason::ClientCutBody)),
            Halt::SinkLost | Halt::SourceQuiet | Halt::SinkFull | Halt::BudgetSpent => Sending::Broken(None),
        };
        Ok(())
    }

    /// The response's way: interim responses, the head, the body.
    fn download(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<After, Stop> {
        while self.said != Said::Head {
            if let Some(tunnel) = self.head_of_response(client, desk)? {
                return Ok(After::Tunnel(tunnel));
            }
        }
        let outcome = match &mut self.leg {
            Some(leg) => self.download.run(&mut leg.connection, client, desk),
            None => self.download.flush(client, desk),
        };
        if self.download.has_ended() {
            self.release_backend(desk); // it need not wait for a slow reader
        }
        match outcome {
            Ok(()) => Ok(After::Stay),
            Err(halt) => Err(of_download(halt)),
        }
    }

    /// Reads one head from the backend and passes it on. A 101 begins a tunnel.
    fn head_of_response(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<Option<Box<Tunnel>>, Stop> {
        self.download.flush(client, desk).map_err(of_download)?; // interim responses, to a slow reader
        let Some(leg) = &mut self.leg else { return Err(Reason::BackendClosedBeforeResponse.into()) };
        let limit = desk.shared.config.response_head_bytes;
        let too_large = |so_far: &[u8], _: &_| if so_far.len() > limit { Err(Flaw::HeadTooLarge) } else { Ok(()) };
        let Gathered { scan, head_end, end } = match self.gather.read(&mut leg.connection, &mut desk.inbound, too_large)
        {
            Ok(gathered) => gathered,
            Err(Missing::NotYet) => return Err(Stop::NotYet(Wait::backend(Wants::READABLE))),
            Err(Missing::Flawed(flaw)) => return Err(Fault::of_response(flaw).into()),
            Err(Missing::Ended) if self.gather.is_empty() => return Err(self.silent_close(desk)),
            Err(Missing::Ended) => return Err(Reason::BackendCutHead.into()),
        };
        if head_end > limit {
            return Err(Fault::of_response(Flaw::HeadTooLarge).into());
        }
        self.gather = Gather::of_response();
        self.record.wait.get_or_insert(desk.now.saturating_duration_since(self.upload.done));

        let mut out = std::mem::take(&mut desk.out);
        let mut inbound = std::mem::take(&mut desk.inbound);
        out.clear();
        let outcome = self.pass_on_head(&mut inbound[..end], head_end, &scan, &mut out, client, desk);
        desk.out = out;
        desk.inbound = inbound;
        outcome
    }

    /// Reads a complete head, and whatever lies behind it in `inbound`, and writes what the client gets of it.
    fn pass_on_head(
        &mut self,
        inbound: &mut [u8],
        head_end: usize,
        scan: &crate::http::HeadScan,
        out: &mut Vec<u8>,
        client: &mut Connection,
        desk: &mut Desk,
    ) -> Result<Option<Box<Tunnel>>, Stop> {
        let Some(leg) = &mut self.leg else { return Err(Reason::BackendClosedBeforeResponse.into()) };
        let (head, behind) = inbound.split_at_mut(head_end);
        let mut table = FieldTable::default();
        let response = Response::read(head, scan, &mut table, self.traits.is_head).map_err(Fault::of_response)?;
        if response.status == 101 {
            if !response.switches_to_one_of(&self.traits.offered) {
                return Err(Fault::of_response(Flaw::UnaskedUpgrade).into());
            }
            if self.upload.state == Sending::Going {
                // The request's body goes out whole before the tunnel begins: until then the 101 waits.
                leg.connection.put_back(inbound);
                return Err(Stop::NotYet(Wait::NOTHING));
            }
        }
        if response.is_interim() {
            leg.connection.put_back(behind);
            self.said = Said::Interim;
            self.upload.done = desk.now; // a backend that says "102 Processing" is not late
            if self.traits.version == Version::Http11 {
                forward_interim(&response, desk.shared.config.via, out);
                self.download.send(&[out], client, desk).map_err(of_download)?;
            }
            return Ok(None);
        }

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
            spare_life: backend_may_be_reused(response.version, response.options, response.framing)
                .then(|| spare_life(response.keep_alive_timeout, desk)),
        };
        let via = desk.shared.config.via;
        let date = if response.has_date() { "" } else { desk.date() };
        let answer = Answer { version, persistence: self.verdict.persistence, date, via };
        forward_response(&response, &answer, out);
        self.said = Said::Head;
        self.record.status = response.status;
        if response.status == 101 {
            return self.begin_tunnel(out, behind, client, desk).map(Some);
        }
        let encoding = if ending == Endings::Chunks { Encoding::Chunked } else { Encoding::Raw };
        let trailer_limit = desk.shared.config.response_head_bytes;
        let interim = self.download.take_leftover();
        self.download = Pump::new(response.framing, encoding, trailer_limit, response.connection_named());
        self.download.send(&[&interim], client, desk).map_err(of_download)?;
        let used = self.download.carry(out, behind, client, desk).map_err(of_download)?;
        if used < behind.len() {
            self.verdict.spare_life = None; // bytes that nobody asked for: they go nowhere, and nor does the connection
        }
        Ok(None)
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
        down.carry(head, behind, client, desk).map_err(of_download)?;
        let leg = self.leg.take().ok_or(Reason::BackendClosedBeforeResponse)?;
        let blank = Record::new(self.record.client, desk);
        Ok(Box::new(Tunnel {
            leg,
            head: std::mem::take(&mut self.head),
            record: std::mem::replace(&mut self.record, blank),
            up: Direction::new(Pump::tunnel()),
            down: Direction::new(down),
            progress: desk.now,
        }))
    }

    /// The backend has closed without a byte of an answer.
    fn silent_close(&mut self, desk: &Desk) -> Stop {
        if let Some(Leg { backend, kind: Kind::Spare { rested }, .. }) = &self.leg {
            backend.note_closed_spare(desk.now.saturating_duration_since(*rested));
        }
        Reason::BackendClosedBeforeResponse.into()
    }

    /// The backend has given everything: its connection rests, or goes.
    fn release_backend(&mut self, desk: &Desk) {
        let Some(leg) = self.leg.take() else { return };
        let reusable = self.upload.state == Sending::Done && !leg.connection.holds_bytes();
        if let (true, Some(life)) = (reusable, self.verdict.spare_life) {
            leg.backend.rest(leg.connection, desk.now, life);
        }
    }

    /// The client has everything.
    fn finish(&mut self, desk: &mut Desk) -> After {
        self.release_backend(desk);
        self.count_out(None, desk);
        match self.verdict.persistence {
            Persistence::Stays | Persistence::StaysByRequest => After::Stay,
            Persistence::Closes => After::Close,
        }
    }

    /// Whether something has been waited for too long.
    fn overdue(&self, desk: &Desk) -> Option<Reason> {
        let (deadline, reason) = self.deadline(desk);
        (desk.now >= deadline).then_some(reason)
    }

    /// Until when this exchange waits for what it waits for, and what it means if that does not come.
    pub(super) fn deadline(&self, desk: &Desk) -> (Instant, Reason) {
        let timeouts = &desk.shared.config.timeouts;
        if let Some(collect) = self.collect.as_ref().filter(|collect| collect.missing > 0) {
            return (collect.until, Reason::ClientBodyTimeout);
        }
        if let Some(leg) = self.leg.as_ref().filter(|leg| !leg.connected) {
            return (leg.since + timeouts.connect, Reason::BackendConnectTimeout);
        }
        if self.said == Said::Head {
            let reader_is_slow = self.download.has_leftover();
            let reason = if reader_is_slow { Reason::ClientBodyTimeout } else { Reason::BackendBodyTimeout };
            return (self.progress + timeouts.response_body, reason);
        }
        if self.upload.state == Sending::Going {
            let pump = &self.upload.pump;
            // A client that asked for a 100 waits for the backend as we do.
            let is_asked = self.traits.expects_continue && self.said == Said::Nothing && !pump.began;
            let backend_is_slow = !self.upload.head_is_sent || pump.has_leftover() || is_asked;
            let reason = if backend_is_slow { Reason::BackendBodyTimeout } else { Reason::ClientBodyTimeout };
            return (self.progress + timeouts.request_body, reason);
        }
        (self.upload.done + timeouts.response_head, Reason::BackendHeadTimeout)
    }

    /// Whether, and where, the request is tried again after this fault: never once a byte of an answer has come, and
    /// only if it is still whole in memory.
    fn tries_again(&mut self, fault: &Fault, desk: &Desk) -> bool {
        let leg = self.leg.take(); // whatever happens next, this connection is spent
        let Some(asked) = &mut self.asked else { return false };
        let is_whole = !self.upload.pump.began;
        if self.said != Said::Nothing || !is_whole || !self.gather.is_empty() {
            return false;
        }
        let may_repeat = self.traits.is_idempotent || self.upload.sent == 0;
        let was_spare = leg.is_some_and(|leg| leg.kind != Kind::Fresh);
        let never_connected =
            matches!(fault.reason, Reason::BackendRefused | Reason::BackendUnreachable | Reason::BackendConnectTimeout);
        let was_silent = fault.reason == Reason::BackendClosedBeforeResponse;
        if never_connected {
            // Nothing was sent: the backend's next address, then the next backend, each once, whatever the method.
            let attempt = asked.way.attempt() + 1;
            if attempt < asked.backend.address_count() {
                asked.way = Way::Fresh { attempt };
            } else {
                self.asked = None;
            }
        } else if was_silent && may_repeat && was_spare {
            // A backend that closes a connection which it kept is no news: the same one, over a new connection.
            asked.way = Way::Fresh { attempt: 0 };
        } else if was_silent && may_repeat && self.repeats < REPEATS {
            self.repeats += 1;
            self.asked = None;
        } else {
            return false;
        }
        if self.asked.is_none() && self.tried.len() >= desk.shared.rotation.backends().len() {
            return false;
        }
        self.upload.sent = 0;
        self.upload.head_is_sent = false;
        self.upload.state = Sending::Going;
        true
    }

    /// How much of an answer the client has had.
    pub(super) fn said(&self) -> Said {
        self.said
    }

    /// The client's connection may go on if the answer is one of ours: the whole request has been read.
    pub(super) fn may_stay(&self) -> bool {
        let is_read = self.upload.state == Sending::Done || !self.upload.pump.began && self.upload.pump.has_ended();
        self.traits.may_stay && is_read
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
        self.head.id()
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

    /// Counts the exchange out of the books. `reason`: why it did not go as the client hoped.
    pub(super) fn count_out(&mut self, reason: Option<Reason>, desk: &mut Desk) {
        self.record.count_out(&self.head, self.download.carried(), reason, desk);
    }
}

impl Traits {
    fn need(&self) -> Need {
        if self.is_idempotent { Need::Alive } else { Need::Sure }
    }
}

impl Way {
    fn attempt(self) -> usize {
        match self {
            Way::Any => 0,
            Way::Fresh { attempt } => attempt,
        }
    }
}

impl Record {
    pub(super) fn new(client: SocketAddr, desk: &Desk) -> Record {
        Record { client, began: desk.now, status: 0, backend: None, tries: 0, connect: None, wait: None }
    }

    /// Counts the exchange out of the books, with a line in the log.
    pub(super) fn count_out(&self, head: &ForwardedRequest, bytes: u64, reason: Option<Reason>, desk: &mut Desk) {
        // Once a head has gone out, its status is what the client got, whatever came after.
        let status = match (self.status, reason) {
            (0, Some(reason)) => reason.status(),
            (status, _) => status,
        };
        desk.count_ended(&Outcome {
            ended: SystemTime::now(),
            client: self.client,
            method: head.method(),
            target: head.target(),
            id: head.id(),
            status,
            bytes,
            connect: self.connect,
            wait: self.wait,
            total: self.began.elapsed(),
            backend: self.backend.as_deref(),
            tries: self.tries,
            reason,
        });
    }
}

/// Memory for a collected body, as long as this value lives.
struct Ticket {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Ticket {
    fn new(shared: &Arc<Shared>, length: u64) -> Option<Ticket> {
        let bytes = usize::try_from(length).ok()?;
        // Taken before it is checked, so that two workers can't both take the last of it.
        let ticket = Ticket { shared: Arc::clone(shared), bytes };
        let before = shared.collected.fetch_add(bytes, Ordering::Relaxed);
        (before + bytes <= COLLECTED_IN_ALL).then_some(ticket)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.collected.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Opens a connection. Where this process has run out of descriptors, the longest rest of somebody else ends.
fn dial(backend: &Backend, attempt: usize, client: &Connection, shared: &Shared) -> Result<Connection, Fault> {
    loop {
        match backend.dial(client, attempt) {
            Ok(connection) => return Ok(connection),
            Err(error) if is_shortage(&error) && shared.make_room() => {}
            Err(error) => return Err(Fault::of_dial(&error)),
        }
    }
}

/// How long a backend's connection is kept: less than the backend keeps it, if it says so.
fn spare_life(backend_keeps: Option<u64>, desk: &Desk) -> Duration {
    let ours = desk.shared.config.timeouts.spare;
    // Half of it: the count began when the response was written, and the next request must arrive in time.
    backend_keeps.map_or(ours, |seconds| ours.min(Duration::from_secs(seconds) / 2))
}

/// The pieces without their first `sent` bytes.
fn behind<'p>(pieces: &[&'p [u8]; 6], sent: usize) -> [&'p [u8]; 6] {
    let mut skip = sent;
    pieces.map(|piece| {
        let skipped = skip.min(piece.len());
        skip -= skipped;
        &piece[skipped..]
    })
}

/// What a download's halt means.
fn of_download(halt: Halt) -> Stop {
    match halt {
        Halt::SourceQuiet | Halt::BudgetSpent => Stop::NotYet(Wait::backend(Wants::READABLE)),
        Halt::SinkFull => Stop::NotYet(Wait::client(Wants::WRITABLE)),
        Halt::SourceCut => Reason::BackendCutBody.into(),
        Halt::SourceFlawed(flaw) => Fault::of_response(flaw).into(),
        Halt::SinkLost => Reason::ClientGone.into(),
    }
}

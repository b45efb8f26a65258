//! One client connection's life, and one exchange across it.
//!
//! This is where the program is told as a story: read a request, find it a backend, carry both messages across, and
//! begin again. Readiness mechanics stay in `net`, rules of the protocol in `http`, policy in `balance`; what is left
//! is the order of things.
//!
//! - `stop`: how straight-line code says "not yet";
//! - `door`: who comes in, and how many of one address may;
//! - `gather`: a head, from as many reads as it takes;
//! - `relay`: one request and its response;
//! - `upload`: the request's way to the backend;
//! - `leg`: the connection to one;
//! - `pace`: the lowest rate of a client;
//! - `pump`: one direction of a body;
//! - `tunnel`: what comes after a 101;
//! - `answer`: answers of our own;
//! - `linger`: the gentle close;
//! - `watched`: a client of which the wire log tells;
//! - `wish`: where a request wants to go;
//! - `record`: what is told of it all;
//! - `desk`: what a worker lends to every turn.

mod answer;
mod desk;
mod door;
mod gather;
mod leg;
mod linger;
mod pace;
mod pump;
mod record;
mod relay;
mod stop;
mod tunnel;
mod upload;
mod watched;
mod wish;

pub use desk::{Desk, Shared};
pub use door::{Arrival, Door};

use crate::addresses::Guest;
use crate::config::ListenerSettings;
use crate::error::{Fault, Reason};
use crate::http::{
    BodyFraming, Claims, FieldTable, MaxForwards, Persistence, Request, Sender, Version, client_may_stay, refuse_early,
    understood_line,
};
use crate::metrics::WaitsFor;
use crate::net::{Accepted, Connection, Glance, Presence, Promise, Wants, Watch};
use answer::Body;
use door::Unintroduced;
use gather::{Gather, Gathered, Missing, PORTION};
use linger::Linger;
use record::{Carried, Named, Record};
use relay::{After, Exchange, Said};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stop::{Stop, Wait};
use tunnel::Tunnel;
use watched::Watched;

/// A worker's promise to look for clients that wait.
pub type ClientPromise = Promise<Arc<ListenerSettings>>;

/// One client connection, from its first byte to its last.
pub struct Client {
    connection: Connection,
    /// Counts it out, once its connection is closed.
    _presence: Presence,
    /// Who it is; the peer, unless a proxy has said otherwise.
    address: SocketAddr,
    phase: Phase,
    /// Since when it has been idle.
    since: Instant,
    /// It has had an answer.
    is_known: bool,
    /// Counts it out of its address's connections, once it is gone.
    guest: Guest,
    /// Told of all that happens, if that is wished.
    watched: Option<Box<Watched>>,
    shared: Arc<Shared>,
}

enum Phase {
    /// A proxy has yet to say whose connection it is. What it has said so far is held by the connection.
    Introduction,
    /// Between two requests: no byte of the next one has come. Owns nothing.
    Idle,
    /// Some of a head has come.
    Head(Box<BegunHead>),
    /// A request is under way.
    Serving(Box<Exchange>),
    /// HTTP is over.
    Tunnelling(Box<Tunnel>),
    /// Everything is said, and the connection is being closed.
    Lingering(Box<Linger>),
}

/// What waits is small: an exchange takes about a kilobyte, a tunnel two thirds of one, and a client that has neither
/// a fifth. The walkthrough says so, and ten thousand of them are what it costs to wait.
///
/// glibc keeps what is freed at hand for the next that asks, each thread for itself, up to 1,032 bytes. An exchange beyond
/// that goes through the shared heap, there and back: 160 instructions more for each request.
const _: () = assert!(size_of::<Exchange>() <= 1032 && size_of::<Tunnel>() <= 768 && size_of::<Client>() <= 256);

/// A client that has said nothing yet is left alone for so long.
const REST: Duration = Duration::from_secs(1);

struct BegunHead {
    gather: Gather,
    /// When its first byte came.
    began: Instant,
    /// A byte a second does not renew it.
    deadline: Instant,
}

/// How a turn ends.
pub enum Turn {
    /// It waits.
    Park(Watch),
    /// The connection is done with.
    Close,
}

impl Client {
    /// A client that has just connected.
    fn new(
        connection: Connection,
        presence: Presence,
        peer: SocketAddr,
        arrival: Arrival,
        now: Instant,
        shared: &Arc<Shared>,
    ) -> Client {
        let (phase, guest) = match arrival {
            Arrival::Introduced => (Phase::Introduction, Guest::default()),
            Arrival::Direct(guest) => (Phase::Idle, guest),
        };
        Client {
            connection,
            _presence: presence,
            address: peer,
            phase,
            since: now,
            is_known: false,
            guest,
            watched: None,
            shared: Arc::clone(shared),
        }
    }

    /// The same, with everything that happens told of in the wire log.
    #[must_use]
    fn observed(mut self, worker: usize) -> Client {
        let watched = Watched::new(&self.shared.wire_log, &mut self.connection, self.address, self.since, worker);
        self.watched = Some(Box::new(watched));
        self
    }

    /// Since when it has been idle, if it has been for long enough to be closed when a descriptor is needed. A client
    /// that has just connected is about to ask for something.
    fn rests_since(&self) -> Option<Instant> {
        (self.is_known || self.since.elapsed() >= REST).then_some(self.since)
    }

    /// Whether its next request may be on its way: it has never asked, or has had its answer for less than `pause`. Or it is
    /// here, and nobody has seen it yet.
    pub fn may_be_about_to_ask(&self, pause: Duration) -> bool {
        !self.is_known || self.since.elapsed() < pause || self.connection.glance() == Glance::Bytes
    }

    /// Whether its next request is here, or its end, and no event has told of it yet.
    pub fn has_news(&self) -> bool {
        if self.is_between_requests() {
            self.connection.look_again();
        }
        self.is_between_requests() && self.connection.is_stirring()
    }

    /// Does everything that can be done now without waiting.
    pub fn turn(&mut self, desk: &mut Desk) -> Turn {
        if let Some(watched) = &self.watched {
            watched.wakes(&self.connection, self.backend(), desk.worker());
            if !desk.live.config.wire_log.on {
                self.be_unobserved();
            }
        }
        let turn = self.go_on(desk);
        if let Some(watched) = &self.watched {
            watched.turn_ends();
        }
        turn
    }

    /// The wire log has been turned off. A connection to a backend that is in use is told of up to its end.
    fn be_unobserved(&mut self) {
        self.connection.note(format_args!("no more is told: the wire log has been turned off"));
        self.connection.be_observed(None);
        self.watched = None;
    }

    fn go_on(&mut self, desk: &mut Desk) -> Turn {
        loop {
            match self.go_through_phases(desk) {
                Ok(()) => return Turn::Close,
                Err(Stop::Fault(fault)) => self.fail(fault, desk),
                Err(Stop::NotYet(wait)) => {
                    let (deadline, reason) = self.deadline(desk);
                    if desk.now < deadline {
                        if let Some(watched) = &mut self.watched {
                            watched.parks(&self.connection, wait, deadline.saturating_duration_since(desk.now));
                        }
                        return Turn::Park(self.watch(wait, deadline));
                    }
                    match self.phase {
                        Phase::Introduction => {
                            self.shared.door.regret(&self.connection, self.address, desk.now);
                            return Turn::Close;
                        }
                        // Nobody has asked for anything, or everything is said: silence is an answer.
                        _ if self.is_between_requests() => return Turn::Close,
                        Phase::Idle | Phase::Lingering(_) => return Turn::Close,
                        Phase::Head(_) | Phase::Serving(_) | Phase::Tunnelling(_) => self.fail(reason.into(), desk),
                    }
                }
            }
        }
    }

    /// The backend's connection, while there is one.
    fn backend(&self) -> Option<&Connection> {
        match &self.phase {
            Phase::Serving(exchange) => exchange.backend(),
            Phase::Tunnelling(tunnel) => Some(&tunnel.leg.connection),
            Phase::Introduction | Phase::Idle | Phase::Head(_) | Phase::Lingering(_) => None,
        }
    }

    /// The phases in their order. `Ok`: the connection is done with.
    fn go_through_phases(&mut self, desk: &mut Desk) -> Result<(), Stop> {
        loop {
            match &mut self.phase {
                Phase::Introduction => {
                    if !self.be_introduced(desk)? {
                        return Ok(());
                    }
                }
                Phase::Idle | Phase::Head(_) => {
                    if !self.begin(desk)? {
                        return Ok(());
                    }
                }
                Phase::Serving(exchange) => match exchange.advance(&mut self.connection, desk)? {
                    After::Stay => {
                        self.connection.note(format_args!("done, and the client may ask again"));
                        self.idle(desk);
                    }
                    After::Done => {
                        self.connection.note(format_args!("done, and the client asks no more"));
                        return Ok(());
                    }
                    After::Close => {
                        self.connection.note(format_args!("done, and the client's connection ends with it"));
                        self.phase = Phase::Lingering(Box::new(Linger::after(Vec::new(), desk)));
                    }
                    After::Tunnel(tunnel) => self.phase = Phase::Tunnelling(tunnel),
                },
                Phase::Tunnelling(tunnel) => {
                    tunnel.advance(&mut self.connection, desk)?;
                    tunnel.count_out(None, desk);
                    self.connection.note(format_args!("the tunnel has ended"));
                    return Ok(());
                }
                Phase::Lingering(linger) => return linger.advance(&mut self.connection, desk),
            }
        }
    }

    /// Reads what a proxy says of the client, before the client's own first byte. `false`: the connection is to be
    /// closed, without a word: nobody knows who would read it.
    fn be_introduced(&mut self, desk: &mut Desk) -> Result<bool, Stop> {
        match self.shared.door.introduction(&mut self.connection, self.address, desk) {
            Ok(source) => {
                self.address = source.unwrap_or(self.address);
                self.connection.note(format_args!("a proxy says whose connection it is: {}", self.address));
                let Some(guest) = self.shared.door.let_in(self.address, &desk.live.config, desk.now) else {
                    self.connection.note(format_args!("its address has as many connections as it may"));
                    return Ok(false);
                };
                self.guest = guest;
                self.phase = Phase::Idle;
                Ok(true)
            }
            Err(Unintroduced::NotYet) => Err(Stop::NotYet(Wait::client(Wants::READABLE))),
            Err(Unintroduced::Ended | Unintroduced::Flawed) => Ok(false),
        }
    }

    /// Reads a request's head and begins its exchange. `false`: the client has left between two requests.
    fn begin(&mut self, desk: &mut Desk) -> Result<bool, Stop> {
        if desk.budget == 0 && !self.connection.holds_bytes() {
            // A client that pipelines without end, answered here each time, would never end its turn.
            desk.spend(&mut self.connection).map_err(|_| Reason::ClientGone)?;
            return Err(Stop::NotYet(Wait::client(Wants::READABLE)));
        }
        let limits = desk.live.config.request_limits;
        let deadline = desk.now + desk.live.config.timeouts.head;
        let mut begun = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Head(begun) if begun.gather.is_blank() => BegunHead { began: desk.now, deadline, ..*begun },
            Phase::Head(begun) => *begun,
            Phase::Introduction | Phase::Idle | Phase::Serving(_) | Phase::Tunnelling(_) | Phase::Lingering(_) => {
                BegunHead { gather: Gather::of_request(), began: desk.now, deadline }
            }
        };
        let check = |so_far: &[u8]| refuse_early(so_far, limits);
        let mut inbound = std::mem::take(&mut desk.inbound);
        // Room for the largest head, and not for more: what comes behind it would be kept for as long as the exchange waits.
        // (What has come may be more than a reload allows since.)
        let most = limits.head_bytes.max(begun.gather.so_far().len()) + PORTION;
        let room = inbound.len().min(most);
        let gathered = begun.gather.read(&mut self.connection, &mut inbound[..room], check);
        let outcome = match gathered {
            Ok(gathered) => {
                desk.budget = desk.budget.saturating_sub(gathered.end);
                self.open_exchange(&inbound, &gathered, begun.began, desk);
                Ok(true)
            }
            Err(Missing::NotYet) => {
                if !begun.gather.is_empty() {
                    self.phase = Phase::Head(Box::new(begun));
                }
                Err(Stop::NotYet(Wait::client(Wants::READABLE)))
            }
            Err(Missing::Ended) => Ok(false),
            Err(Missing::Flawed(flaw)) => {
                self.refuse(Fault::of_request(flaw), begun.gather.so_far(), begun.began, desk);
                Ok(true)
            }
        };
        desk.inbound = inbound;
        outcome
    }

    /// Reads a complete head. What lies behind it stays with the connection.
    fn open_exchange(&mut self, inbound: &[u8], gathered: &Gathered, began: Instant, desk: &mut Desk) {
        let (head, behind) = inbound[..gathered.end].split_at(gathered.head_end);
        let mut table = FieldTable::default();
        let request = match Request::read(head, &mut table, desk.live.config.request_limits) {
            Ok(request) => request,
            Err(flaw) => return self.refuse(Fault::of_request(flaw), head, began, desk),
        };
        self.connection.put_back(behind);
        let fresh_id = if request.id.is_none() { desk.fresh_id() } else { [b'0'; 16] };
        let fresh_id = str::from_utf8(&fresh_id).unwrap_or_default();
        let id = request.id.unwrap_or(fresh_id).as_bytes();
        let record = Record::new(self.address, began);
        let (method, path, framing) = (request.method, request.path(), request.framing);
        self.connection.note(format_args!("{method} {path}: {framing}; id {}", id.escape_ascii()));
        if !self.shared.door.may_ask(self.address, &desk.live.config, desk.now) {
            return self.turn_away(&request, id, record, Reason::TooManyRequests, desk);
        }
        if request.max_forwards == Some(MaxForwards::AnswerHere) {
            return self.answer_here(&request, id, record, desk);
        }
        let load = &desk.live.config.load;
        if let BodyFraming::Length(length) = request.framing
            && load.max_body.is_some_and(|most| length > most)
        {
            return self.turn_away(&request, id, record, Reason::BodyTooLarge, desk);
        }
        if load.max_exchanges.is_some_and(|most| desk.in_flight() >= most) {
            return self.turn_away(&request, id, record, Reason::Overloaded, desk);
        }
        let sender =
            Sender { address: self.address.ip(), claims: self.claims(desk), fresh_id, via: desk.live.config.via };
        desk.count_begun();
        self.phase = Phase::Serving(Box::new(Exchange::new(&request, &sender, record, desk)));
    }

    fn claims(&self, desk: &Desk) -> Claims {
        // Where a PROXY header has named the client, that is who is asked after, not the proxy who sent the header: that
        // one passes bytes on unread, so what the request claims was claimed by the client. To trust the proxy here
        // would be to believe everybody behind it.
        match desk.live.config.trusts(self.address.ip()) {
            true => Claims::Extended,
            false => Claims::Replaced,
        }
    }

    /// A request that is in order, and yet not let in.
    fn turn_away(&mut self, request: &Request<'_, '_>, id: &[u8], record: Record, reason: Reason, desk: &mut Desk) {
        let stays = self.stays_after(request, desk);
        let body = if request.method == "HEAD" { Body::Omitted } else { Body::Sent };
        let mut out = Vec::new();
        self.connection.note(format_args!("turned away: {}", reason.word()));
        let persistence = persistence(stays, request.version);
        let bytes_out = answer::to_fault(&reason.into(), id, persistence, body, desk, &mut out);
        desk.count_begun();
        let named = Named::of_request(request, id, desk);
        record.count_out(named, Carried { bytes_out, ..Carried::default() }, Some(reason), desk);
        self.say(out, stays, desk);
    }

    /// Whether the connection goes on after an answer of ours to this request, which nobody has read beyond its head.
    fn stays_after(&self, request: &Request<'_, '_>, desk: &Desk) -> bool {
        let is_bodiless = request.framing == BodyFraming::None;
        is_bodiless && client_may_stay(request.version, request.options) && !desk.shared.lot.is_draining()
    }

    /// OPTIONS and TRACE that may not go further.
    fn answer_here(&mut self, request: &Request<'_, '_>, id: &[u8], mut record: Record, desk: &mut Desk) {
        let stays = self.stays_after(request, desk);
        let persistence = persistence(stays, request.version);
        let mut out = Vec::new();
        let (status, bytes_out) = answer::to_last_hop(request.method == "OPTIONS", id, persistence, desk, &mut out);
        desk.count_begun();
        record.status = status;
        let reason = (status != 200).then_some(Reason::NotImplemented);
        let named = Named::of_request(request, id, desk);
        record.count_out(named, Carried { bytes_out, ..Carried::default() }, reason, desk);
        self.say(out, stays, desk);
    }

    /// A request that could not be read: nothing behind it can be trusted to be one.
    fn refuse(&mut self, fault: Fault, head: &[u8], began: Instant, desk: &mut Desk) {
        self.connection.note(format_args!("refused: {}", fault));
        let line = head.strip_prefix(b"\r\n").unwrap_or(head);
        let body = if line.starts_with(b"HEAD ") { Body::Omitted } else { Body::Sent };
        let id = desk.fresh_id();
        let mut out = Vec::new();
        let bytes_out = answer::to_fault(&fault, &id, Persistence::Closes, body, desk, &mut out);
        desk.count_begun();
        let named = Named::of_line(understood_line(head, desk.live.config.request_limits), &id);
        let carried = Carried { bytes_out, ..Carried::default() };
        Record::new(self.address, began).count_out(named, carried, Some(fault.reason), desk);
        self.say(out, false, desk);
    }

    /// Ends what is under way: with an answer of our own if none has begun, else so that the client can tell.
    pub fn fail(&mut self, fault: Fault, desk: &mut Desk) {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Head(begun) if begun.gather.is_blank() => self.hang_up(desk),
            Phase::Head(begun) => self.refuse(fault, begun.gather.so_far(), begun.began, desk),
            Phase::Serving(mut exchange) => {
                self.connection.note(format_args!("fails: {fault}"));
                if exchange.said() == Said::Head || fault.reason == Reason::ClientGone {
                    exchange.count_out(Some(fault.reason), 0, desk);
                    // What a client has not taken in all that time, the kernel need not keep for it either.
                    if exchange.must_reset()
                        || matches!(fault.reason, Reason::ClientBodyTimeout | Reason::ClientTooSlow)
                    {
                        self.connection.reset_on_close();
                    }
                    return self.hang_up(desk);
                }
                let stays = exchange.may_stay() && !desk.shared.lot.is_draining();
                let body = if exchange.is_head() { Body::Omitted } else { Body::Sent };
                let mut out = exchange.take_leftover();
                let persistence = persistence(stays, exchange.version());
                let length = answer::to_fault(&fault, exchange.id(), persistence, body, desk, &mut out);
                exchange.count_out(Some(fault.reason), length, desk);
                self.say(out, stays, desk);
            }
            Phase::Tunnelling(mut tunnel) => {
                self.connection.note(format_args!("the tunnel fails: {fault}"));
                tunnel.count_out(Some(fault.reason), desk);
                tunnel.cut(&self.connection);
                self.hang_up(desk);
            }
            Phase::Introduction | Phase::Idle | Phase::Lingering(_) => self.hang_up(desk),
        }
    }

    /// Says something of our own, and stays or goes.
    fn say(&mut self, mut answer: Vec<u8>, stays: bool, desk: &mut Desk) {
        // A client that does not take a few hundred bytes has not taken earlier answers: it need not stay.
        let written = if stays { self.connection.write(&[&answer]).unwrap_or(0) } else { 0 };
        if stays && written == answer.len() {
            self.idle(desk);
        } else {
            self.phase = Phase::Lingering(Box::new(Linger::after(answer.split_off(written), desk)));
        }
    }

    /// Closes without another word, at the next step.
    fn hang_up(&mut self, desk: &Desk) {
        self.phase = Phase::Lingering(Box::new(Linger::at_once(desk)));
    }

    fn idle(&mut self, desk: &Desk) {
        self.phase = Phase::Idle;
        self.since = desk.now;
        self.is_known = true;
    }

    fn watch(&self, wait: Wait, deadline: Instant) -> Watch {
        let watch = Watch::client(&self.connection, wait.client, deadline);
        let watch = match &self.phase {
            // Half a header is no request either: a drain need not wait for the rest. What both wait for is number 0.
            Phase::Introduction => return watch.idle(),
            _ if self.is_between_requests() => return watch.idle(),
            Phase::Idle | Phase::Head(_) => watch.of_kind(WaitsFor::Head as u8),
            Phase::Serving(exchange) => watch.of_kind(exchange.waits_for() as u8),
            Phase::Tunnelling(_) => watch.of_kind(WaitsFor::Tunnel as u8),
            Phase::Lingering(_) => watch.of_kind(WaitsFor::Closing as u8),
        };
        match self.backend() {
            Some(backend) => watch.and_backend(backend, wait.backend),
            None => watch,
        }
    }

    /// No request has begun: an empty line, which some clients send behind a body, is none.
    fn is_between_requests(&self) -> bool {
        match &self.phase {
            Phase::Idle => true,
            Phase::Head(begun) => begun.gather.is_blank(),
            Phase::Introduction | Phase::Serving(_) | Phase::Tunnelling(_) | Phase::Lingering(_) => false,
        }
    }

    /// Until when it waits, and what it means if nothing comes.
    fn deadline(&self, desk: &Desk) -> (Instant, Reason) {
        let timeouts = &desk.live.config.timeouts;
        match &self.phase {
            _ if self.is_known && self.is_between_requests() => (self.since + timeouts.idle, Reason::ClientGone),
            // A header does not renew it: through a proxy, a silent client stays as long as without.
            _ if self.is_between_requests() => (self.since + timeouts.first_byte, Reason::ClientGone),
            Phase::Introduction | Phase::Idle => (self.since + timeouts.first_byte, Reason::ClientGone),
            Phase::Head(begun) => (begun.deadline, Reason::ClientHeadTimeout),
            Phase::Serving(exchange) => exchange.deadline(),
            Phase::Tunnelling(tunnel) => (tunnel.deadline(), Reason::TunnelIdle),
            Phase::Lingering(linger) => (linger.deadline, Reason::ClientGone),
        }
    }
}

fn persistence(stays: bool, version: Version) -> Persistence {
    match (stays, version) {
        (false, _) => Persistence::Closes,
        (true, Version::Http11) => Persistence::Stays,
        (true, Version::Http10) => Persistence::StaysByRequest,
    }
}

impl Shared {
    /// Accepts clients that wait, if somebody has rung; to be called by each worker, with a promise of its own: see
    /// [`Listeners::accept`](crate::net::Listeners::accept).
    pub fn accept(self: &Arc<Self>, promise: &mut ClientPromise, now: Instant, worker: usize) {
        let admit = |socket, peer, listener, presence| self.admit(socket, peer, listener, presence, worker);
        if self.connections.take_place_again() {
            promise.look_at(now); // whatever was promised: there is a place now
        }
        self.listeners.accept(promise, now, || self.connections.enter(), || self.make_room(), admit);
    }

    /// Accepts all clients that wait, and nobody any more.
    pub fn accept_the_last(self: &Arc<Self>, worker: usize) {
        let admit = |socket, peer, listener, presence| self.admit(socket, peer, listener, presence, worker);
        self.listeners.finish(|| self.connections.enter(), || self.make_room(), admit);
    }

    fn admit(
        self: &Arc<Self>,
        socket: Accepted,
        peer: SocketAddr,
        listener: Arc<ListenerSettings>,
        presence: Presence,
        worker: usize,
    ) -> io::Result<()> {
        let now = Instant::now();
        let snapshot = self.live.current();
        let config = &snapshot.config;
        let Some(arrival) = self.door.arrival(peer, &listener, config, now) else { return Ok(()) };
        let deadline = now + config.timeouts.first_byte;
        self.lot.admit(socket, deadline, |connection| {
            let client = Client::new(connection, presence, peer, arrival, now, self);
            Box::new(if config.wire_log.on { client.observed(worker) } else { client })
        })
    }

    /// Frees a descriptor: the oldest spare's, else that of the client that has been idle longest. `false`: there is
    /// neither.
    pub fn make_room(&self) -> bool {
        self.live.current().rotation.members().iter().any(|member| member.backend.close_oldest_spare())
            || self.lot.take_oldest_idle(Client::rests_since).is_some()
    }
}

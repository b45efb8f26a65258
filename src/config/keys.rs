//! Every key of the configuration, a line each: its place in the file, its flag, what it means, and how it is read and
//! written. The flags, their help, the file, `--check` and the reload are made from these lines; the defaults are those
//! of `Config::defaults`.

use super::admin::{host, token as admin_token};
use super::values::{
    address, choice, choices, field_count, hash_key, head_size, level, name, number, on_or_off, path, policies, policy,
    show_choice, show_hash_key, show_policy, show_size, show_statuses, show_switch, show_time, size, state, states,
    statuses, switch, time, time_or_none, token,
};
use super::{AccessLogFormat, Config, HalfClose, ListenerSettings};
use crate::balance::{ActiveHealth, BackendSettings};
use clap::builder::PossibleValue;

/// One key, of the whole configuration or of a listener or backend.
pub(super) struct Key<T> {
    /// Where it stands in the file: section and name, such as `timeouts.idle`.
    pub(super) path: &'static str,
    /// Its flag, without the dashes; empty if it has none.
    pub(super) flag: &'static str,
    pub(super) shape: Shape,
    pub(super) about: &'static str,
    /// What stands for the default where none can be written down.
    pub(super) unset: Option<&'static str>,
    pub(super) needs_restart: bool,
    /// Its value is shown to nobody.
    pub(super) is_secret: bool,
    /// Empties a list before its first item is read.
    pub(super) clear: Option<fn(&mut T)>,
    /// Takes a value, or one more item of a list.
    pub(super) read: fn(&mut T, &str) -> Result<(), String>,
    /// The value, the items of a list, or nothing if it is not set.
    pub(super) show: fn(&T) -> Vec<String>,
}

/// What a value looks like.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// A string.
    Text(&'static str),
    /// A whole number.
    Number,
    /// A string with a duration.
    Time,
    /// A string with a size, or a number of bytes.
    Size,
    /// A boolean; `on` and `off` as a flag.
    Switch,
    /// One of these strings.
    Choice(&'static str, fn() -> Vec<PossibleValue>),
    /// Strings.
    Texts(&'static str),
    /// Whole numbers.
    Numbers(&'static str),
}

impl Shape {
    /// How the value is called in the help.
    pub(super) fn value_name(self) -> &'static str {
        match self {
            Shape::Text(name) | Shape::Choice(name, _) | Shape::Texts(name) | Shape::Numbers(name) => name,
            Shape::Number => "N",
            Shape::Time => "TIME",
            Shape::Size => "SIZE",
            Shape::Switch => "on|off",
        }
    }

    /// What may be chosen, where it is a choice.
    pub(super) fn choices(self) -> Option<Vec<PossibleValue>> {
        match self {
            Shape::Choice(_, choices) => Some(choices()),
            Shape::Switch => Some(on_or_off()),
            Shape::Text(_) | Shape::Number | Shape::Time | Shape::Size | Shape::Texts(_) | Shape::Numbers(_) => None,
        }
    }
}

impl<T> Key<T> {
    /// The section; empty for the keys above all sections.
    pub(super) fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The name within its section.
    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    pub(super) fn is_list(&self) -> bool {
        self.clear.is_some()
    }

    /// Where none is written down, these words stand for the default.
    const fn unset(self, words: &'static str) -> Key<T> {
        Key { unset: Some(words), ..self }
    }

    /// It is read once, at the start.
    const fn needs_restart(self) -> Key<T> {
        Key { needs_restart: true, ..self }
    }

    const fn secret(self) -> Key<T> {
        Key { is_secret: true, ..self }
    }

    const fn list(self, clear: fn(&mut T)) -> Key<T> {
        Key { clear: Some(clear), ..self }
    }
}

const fn key<T>(
    path: &'static str,
    flag: &'static str,
    shape: Shape,
    about: &'static str,
    read: fn(&mut T, &str) -> Result<(), String>,
    show: fn(&T) -> Vec<String>,
) -> Key<T> {
    Key { path, flag, shape, about, unset: None, needs_restart: false, is_secret: false, clear: None, read, show }
}

/// No upper end.
const ANY: u64 = u64::MAX;

/// Rates and counts up to here fit everywhere they go.
const MANY: u64 = 1_000_000_000;

/// Those that stand above all sections or in one, in the order in which the help tells them.
#[rustfmt::skip] // a table: a row at a time
pub(super) const KEYS: &[Key<Config>] = &[
    key::<Config>("workers", "workers", Shape::Number, "Worker threads, up to 1024; one for each core if not given",
        // More workers than this only wait for each other; a thousand is beyond any machine that this was thought for.
        |c, t| put(&mut c.workers, number(t, 1, 1024)), |c| one(c.workers))
        .unset("one for each core").needs_restart(),
    key::<Config>("max_connections", "max-connections", Shape::Number,
        "Most client connections at once; more wait in the backlog. The descriptor limit less 64 if not given",
        |c, t| put_some(&mut c.max_connections, number(t, 1, ANY)), |c| perhaps(c.max_connections))
        .unset("the descriptor limit less 64").needs_restart(),
    key::<Config>("handover", "handover", Shape::Text("SOCKET"),
        "A Unix socket over which a newer process takes the listening sockets over; nobody can if not given",
        |c, t| put_some(&mut c.handover, file_name(t).map(Into::into)),
        |c| perhaps(c.handover.as_ref().map(|path| path.display())))
        .unset("none").needs_restart(),
    key::<Config>("admin.listen", "admin", Shape::Text("ADDR:PORT"),
        "Where the admin listener serves its page, numbers and health; it is off if not given",
        |c, t| put_some(&mut c.admin.listen, address(t)), |c| perhaps(c.admin.listen))
        .unset("off").needs_restart(),
    key::<Config>("admin.anywhere", "admin-anywhere", Shape::Switch,
        "Let the admin listener have an address that other machines can reach",
        |c, t| put(&mut c.admin.anywhere, switch(t)), |c| one(show_switch(c.admin.anywhere)))
        .needs_restart(),
    key::<Config>("admin.hosts", "admin-host", Shape::Texts("NAME"),
        "A name, beside localhost, by which the admin listener may be asked for. May be given more than once",
        |c, t| add(&mut c.admin.hosts, host(t)), |c| all(&c.admin.hosts))
        .list(|c| c.admin.hosts.clear()),
    // No flag: whoever lists the processes sees all flags.
    key::<Config>("admin.token", "", Shape::Text("TOKEN"), "What whoever drains a backend must know",
        |c, t| put_some(&mut c.admin.token, admin_token(t)), |_| Vec::new())
        .unset("none (and never shown)").secret(),
    key::<Config>("log.access", "access-log", Shape::Choice("ACCESS_LOG", choices::<AccessLogFormat>),
        "A line for each exchange",
        |c, t| put(&mut c.access_log.format, choice(t)), |c| one(show_choice(&c.access_log.format))),
    key::<Config>("log.access_file", "access-log-file", Shape::Text("FILE"),
        "The file at whose end the lines are written, opened again with SIGHUP; standard output if not given",
        |c, t| put_some(&mut c.access_log.file, file_name(t).map(Into::into)),
        |c| perhaps(c.access_log.file.as_ref().map(|path| path.display())))
        .unset("standard output"),
    key::<Config>("log.access_sample", "access-log-sample", Shape::Number,
        "Of so many exchanges that went well, one gets its line; those that failed always do",
        |c, t| put(&mut c.access_log.one_in, number(t, 1, MANY)), |c| one(c.access_log.one_in)),
    key::<Config>("log.access_slower_than", "access-log-slower-than", Shape::Time,
        "Exchanges that went well get a line only if they took so long; those that failed always do",
        |c, t| put(&mut c.access_log.slower_than, time_or_none(t)), |c| one(show_time(c.access_log.slower_than))),
    key::<Config>("log.wire", "wire-log", Shape::Switch,
        "Tell of every call on a socket and every decision, for learning and for looking for a fault. It shows the \
         beginnings of what is said, bodies too, though no passwords of Authorization and no cookies",
        |c, t| put(&mut c.wire_log.on, switch(t)), |c| one(show_switch(c.wire_log.on))),
    key::<Config>("log.wire_file", "wire-log-file", Shape::Text("FILE"),
        "The file at whose end the wire log is written, opened again with SIGHUP; standard error if not given",
        |c, t| put_some(&mut c.wire_log.file, file_name(t).map(Into::into)),
        |c| perhaps(c.wire_log.file.as_ref().map(|path| path.display())))
        .unset("standard error"),
    key::<Config>("log.level", "log-level", Shape::Text("LEVEL"),
        "How much to say on standard error: off, error, warn, info, debug or trace",
        |c, t| put(&mut c.log_level, level(t)), |c| one(c.log_level.as_str().to_ascii_lowercase())),
    key::<Config>("forwarding.via", "via", Shape::Switch,
        "Sign messages with Via. Turn it off for backends that treat proxied requests worse: nginx does not compress \
         for them",
        |c, t| put(&mut c.via, switch(t)), |c| one(show_switch(c.via))),
    key::<Config>("forwarding.half_close", "half-close", Shape::Choice("HALF_CLOSE", choices::<HalfClose>),
        "What a client's end of file behind a whole request means: it is gone, or it waits for its answer as nc -N \
         does",
        |c, t| put(&mut c.half_close, choice(t)), |c| one(show_choice(&c.half_close))),
    key::<Config>("forwarding.trusted_proxies", "trusted-proxy", Shape::Texts("NET"),
        "A network of proxies (10.0.0.0/8) whose X-Forwarded-For, -Proto, -Host and Forwarded are believed and \
         extended. May be given more than once",
        |c, t| add(&mut c.trusted_proxies, t.parse()), |c| all(&c.trusted_proxies))
        .list(|c| c.trusted_proxies.clear()),
    key::<Config>("balance.policy", "policy", Shape::Choice("POLICY", policies), "Who gets the next request",
        |c, t| put(&mut c.balance.policy, policy(t)), |c| one(show_policy(c.balance.policy))),
    key::<Config>("balance.hash_key", "hash-key", Shape::Text("KEY"),
        "What the policy hash goes by: client, path, header:NAME, cookie:NAME or query:NAME",
        |c, t| put(&mut c.balance.hash_key, hash_key(t)), |c| one(show_hash_key(&c.balance.hash_key))),
    key::<Config>("balance.hash_load", "hash-load", Shape::Number,
        "Under the policy hash, most load of one backend, in percent of its fair share: 101 to 1000",
        |c, t| put(&mut c.balance.hash_load_percent, number(t, 101, 1000)), |c| one(c.balance.hash_load_percent)),
    key::<Config>("balance.sticky_cookie", "sticky-cookie", Shape::Text("NAME"),
        "The cookie that ties a client to its backend; none if not given",
        |c, t| put_some(&mut c.balance.sticky_cookie, token(t)), |c| perhaps(c.balance.sticky_cookie.as_ref()))
        .unset("none"),
    key::<Config>("balance.slow_start", "slow-start", Shape::Time,
        "How long a backend that comes back takes to reach its full share; 0s turns it off",
        |c, t| put(&mut c.balance.slow_start, time_or_none(t)), |c| one(show_time(c.balance.slow_start))),
    key::<Config>("balance.resolve_interval", "resolve-interval", Shape::Time,
        "How often backends' names are resolved again",
        |c, t| put(&mut c.balance.resolve_interval, time(t)), |c| one(show_time(c.balance.resolve_interval))),
    key::<Config>("balance.max_in_flight", "max-in-flight", Shape::Number,
        "Most requests at once at each backend; more wait in the queue. No limit if not given",
        |c, t| put_some(&mut c.balance.max_in_flight, number(t, 1, MANY)), |c| perhaps(c.balance.max_in_flight))
        .unset("no limit"),
    key::<Config>("balance.queue", "queue", Shape::Number, "Most requests that wait for a place at a backend; beyond it 503",
        |c, t| put(&mut c.balance.queue, number(t, 0, MANY)), |c| one(c.balance.queue)),
    key::<Config>("passive_health.enabled", "passive-health", Shape::Switch,
        "Eject backends whose answers to requests fail",
        |c, t| put(&mut c.passive_health.enabled, switch(t)), |c| one(show_switch(c.passive_health.enabled))),
    key::<Config>("passive_health.failures", "failures", Shape::Number, "So many failures in a row eject a backend",
        |c, t| put(&mut c.passive_health.failures, number(t, 1, MANY)), |c| one(c.passive_health.failures)),
    key::<Config>("passive_health.shortest_ejection", "shortest-ejection", Shape::Time,
        "The first ejection's length; each that follows is twice as long",
        |c, t| put(&mut c.passive_health.shortest_ejection, time(t)),
        |c| one(show_time(c.passive_health.shortest_ejection))),
    key::<Config>("passive_health.longest_ejection", "longest-ejection", Shape::Time, "No ejection is longer",
        |c, t| put(&mut c.passive_health.longest_ejection, time(t)),
        |c| one(show_time(c.passive_health.longest_ejection))),
    key::<Config>("passive_health.stall_in_flight", "stall-in-flight", Shape::Number,
        "A backend that has so many requests in flight and stands still gets nothing new",
        |c, t| put(&mut c.passive_health.stall_in_flight, number(t, 1, MANY)),
        |c| one(c.passive_health.stall_in_flight)),
    key::<Config>("passive_health.stall", "stall", Shape::Time,
        "A backend stands still once it has answered none of its requests for so long",
        |c, t| put(&mut c.passive_health.stall, time(t)), |c| one(show_time(c.passive_health.stall))),
    key::<Config>("health.path", "health-path", Shape::Text("PATH"),
        "Ask every backend with a GET for this, now and then, whether it is well; if not given, none is asked, unless \
         one of the flags below is: then a TCP connection is enough",
        |c, t| put_some(&mut checks(c).path, path(t)), |c| perhaps(c.health.as_ref().and_then(|h| h.path.as_ref())))
        .unset("a TCP connection is enough"),
    key::<Config>("health.interval", "health-interval", Shape::Time, "From one check of a backend to the next",
        |c, t| put(&mut checks(c).interval, time(t)), |c| check(c, |h| show_time(h.interval))),
    key::<Config>("health.timeout", "health-timeout", Shape::Time, "A check of a backend; then it has failed",
        |c, t| put(&mut checks(c).timeout, time(t)), |c| check(c, |h| show_time(h.timeout))),
    key::<Config>("health.rise", "health-rise", Shape::Number, "So many good checks in a row readmit a backend",
        |c, t| put(&mut checks(c).rise, number(t, 1, 1000)), |c| check(c, |h| h.rise.to_string())),
    key::<Config>("health.fall", "health-fall", Shape::Number, "So many bad checks in a row eject a backend",
        |c, t| put(&mut checks(c).fall, number(t, 1, 1000)), |c| check(c, |h| h.fall.to_string())),
    key::<Config>("health.status", "health-status", Shape::Text("STATUS"),
        "What a good check is answered with: 200 or 200-399",
        |c, t| put(&mut checks(c).status, statuses(t)), |c| check(c, |h| show_statuses(h.status))),
    key::<Config>("retry.budget", "retry-budget", Shape::Number,
        "Requests that are sent again, in percent of all: 0 to 100",
        |c, t| put(&mut c.retries.budget_percent, number(t, 0, 100)), |c| one(c.retries.budget_percent)),
    key::<Config>("retry.budget_floor", "retry-budget-floor", Shape::Number,
        "So many a second may always be sent again",
        |c, t| put(&mut c.retries.budget_floor, number(t, 0, MANY)), |c| one(c.retries.budget_floor)),
    key::<Config>("retry.statuses", "retry-status", Shape::Numbers("STATUS"),
        "A status (400 to 599) after which an idempotent request without a body is tried elsewhere. May be given more \
         than once",
        |c, t| add(&mut c.retries.statuses, number(t, 400, 599)), |c| all(&c.retries.statuses))
        .list(|c| c.retries.statuses.clear()),
    key::<Config>("load.max_exchanges", "max-exchanges", Shape::Number,
        "Most requests in flight and in the queue, in all; beyond it 503. No limit if not given",
        |c, t| put_some(&mut c.load.max_exchanges, number(t, 1, ANY)), |c| perhaps(c.load.max_exchanges))
        .unset("no limit"),
    key::<Config>("load.max_body", "max-body", Shape::Size,
        "Largest request body; beyond it 413. No limit if not given",
        |c, t| put_some(&mut c.load.max_body, size(t)), |c| perhaps(c.load.max_body.map(show_size)))
        .unset("no limit"),
    key::<Config>("load.lowest_rate", "lowest-rate", Shape::Number,
        "The least that a client must send or take of a body, in bytes a second, once it has been waited for for 30s; \
         0 turns it off",
        |c, t| put(&mut c.load.lowest_rate, number(t, 0, MANY)), |c| one(c.load.lowest_rate)),
    key::<Config>("load.connections_per_address", "connections-per-address", Shape::Number,
        "Most connections open at once from one address (IPv6: from one /64); more are closed at once. No limit if not \
         given",
        |c, t| put_some(&mut c.load.connections_per_address, number(t, 1, MANY)),
        |c| perhaps(c.load.connections_per_address))
        .unset("no limit"),
    key::<Config>("load.requests_per_address", "requests-per-address", Shape::Number,
        "Most requests a second from one address (IPv6: from one /64); beyond it 429. No limit if not given",
        |c, t| put_some(&mut c.load.requests_per_address, number(t, 1, MANY)),
        |c| perhaps(c.load.requests_per_address))
        .unset("no limit"),
    key::<Config>("load.request_burst_per_address", "request-burst-per-address", Shape::Number,
        "Of these, so many at once after a pause; a second's worth if not given",
        |c, t| put_some(&mut c.load.request_burst_per_address, number(t, 1, MANY)),
        |c| perhaps(c.load.request_burst_per_address))
        .unset("a second's worth"),
    key::<Config>("timeouts.first_byte", "first-byte-timeout", Shape::Time,
        "A new connection, until its first byte; then it is closed",
        |c, t| put(&mut c.timeouts.first_byte, time(t)), |c| one(show_time(c.timeouts.first_byte))),
    key::<Config>("timeouts.head", "head-timeout", Shape::Time,
        "A request head, from its first byte to its last; then 408",
        |c, t| put(&mut c.timeouts.head, time(t)), |c| one(show_time(c.timeouts.head))),
    key::<Config>("timeouts.idle", "idle-timeout", Shape::Time,
        "A client connection between two requests; then it is closed",
        |c, t| put(&mut c.timeouts.idle, time(t)), |c| one(show_time(c.timeouts.idle))),
    key::<Config>("timeouts.request_body", "request-body-timeout", Shape::Time,
        "A request body, between two pieces of it; then 408",
        |c, t| put(&mut c.timeouts.request_body, time(t)), |c| one(show_time(c.timeouts.request_body))),
    key::<Config>("timeouts.connect", "connect-timeout", Shape::Time,
        "A connection to a backend; then the next backend, or 504",
        |c, t| put(&mut c.timeouts.connect, time(t)), |c| one(show_time(c.timeouts.connect))),
    key::<Config>("timeouts.response_head", "response-head-timeout", Shape::Time,
        "A response head, from the end of the request; then 504",
        |c, t| put(&mut c.timeouts.response_head, time(t)), |c| one(show_time(c.timeouts.response_head))),
    key::<Config>("timeouts.response_body", "response-body-timeout", Shape::Time,
        "A response body, between two pieces of it, in either direction; then it is cut",
        |c, t| put(&mut c.timeouts.response_body, time(t)), |c| one(show_time(c.timeouts.response_body))),
    key::<Config>("timeouts.spare", "spare-timeout", Shape::Time,
        "A kept connection to a backend; less if the backend says so",
        |c, t| put(&mut c.timeouts.spare, time(t)), |c| one(show_time(c.timeouts.spare))),
    key::<Config>("timeouts.tunnel", "tunnel-timeout", Shape::Time,
        "A tunnel (WebSocket) without a byte in either direction; then it is closed",
        |c, t| put(&mut c.timeouts.tunnel, time(t)), |c| one(show_time(c.timeouts.tunnel))),
    key::<Config>("timeouts.queue", "queue-timeout", Shape::Time,
        "A request that waits for a place at a backend; then 503",
        |c, t| put(&mut c.timeouts.queue, time(t)), |c| one(show_time(c.timeouts.queue))),
    key::<Config>("timeouts.drain_delay", "drain-delay", Shape::Time,
        "From the signal until accepting ends, for whoever still sends clients here",
        |c, t| put(&mut c.timeouts.drain_delay, time_or_none(t)), |c| one(show_time(c.timeouts.drain_delay))),
    key::<Config>("timeouts.drain_idle", "drain-idle", Shape::Time,
        "In a drain, a client connection used within this time may bring another request for as long",
        |c, t| put(&mut c.timeouts.drain_idle, time_or_none(t)), |c| one(show_time(c.timeouts.drain_idle))),
    key::<Config>("timeouts.drain", "drain-timeout", Shape::Time,
        "A drain, from the end of accepting; then the rest is cut, and the exit code is 3",
        |c, t| put(&mut c.timeouts.drain, time(t)), |c| one(show_time(c.timeouts.drain))),
    key::<Config>("limits.head_bytes", "head-bytes", Shape::Size, "Largest request head, up to 64KiB; beyond it 431",
        |c, t| put(&mut c.request_limits.head_bytes, head_size(t)), |c| one(bytes(c.request_limits.head_bytes))),
    key::<Config>("limits.target_bytes", "target-bytes", Shape::Size,
        "Longest request target, up to 64KiB; beyond it 414",
        |c, t| put(&mut c.request_limits.target_bytes, head_size(t)), |c| one(bytes(c.request_limits.target_bytes))),
    key::<Config>("limits.head_fields", "head-fields", Shape::Number,
        "Most field lines in a request head, up to 1000; beyond it 431",
        |c, t| put(&mut c.request_limits.fields, field_count(t)), |c| one(c.request_limits.fields)),
    key::<Config>("limits.response_head_bytes", "response-head-bytes", Shape::Size,
        "Largest response head, up to 64KiB; beyond it 502",
        |c, t| put(&mut c.response_head_bytes, head_size(t)), |c| one(bytes(c.response_head_bytes))),
];

/// Those of each `[[listener]]`.
#[rustfmt::skip]
pub(super) const OF_LISTENER: &[Key<ListenerSettings>] = &[
    key::<ListenerSettings>("listener.address", "", Shape::Text("ADDR:PORT"), "Where to listen",
        |l, t| put(&mut l.address, address(t)), |l| one(l.address))
        .unset("required"),
    key::<ListenerSettings>("listener.proxy_protocol_from", "", Shape::Texts("NET"),
        "Whose connections begin with a PROXY protocol header",
        |l, t| add(&mut l.proxy_protocol_from, t.parse()), |l| all(&l.proxy_protocol_from))
        .list(|l| l.proxy_protocol_from.clear()),
];

/// Those of each `[[backend]]`.
#[rustfmt::skip]
pub(super) const OF_BACKEND: &[Key<BackendSettings>] = &[
    key::<BackendSettings>("backend.url", "", Shape::Text("URL"), "Where it is",
        |b, t| put(&mut b.origin, t.parse()), |b| one(&b.origin))
        .unset("required"),
    key::<BackendSettings>("backend.name", "", Shape::Text("NAME"), "What it is called in logs and metrics",
        |b, t| put(&mut b.name, name(t)), |b| one(&b.name))
        .unset("host, port and prefix"),
    key::<BackendSettings>("backend.weight", "", Shape::Number, "Its share, beside the others' weights",
        |b, t| put(&mut b.weight, number(t, 1, 256)), |b| one(b.weight)),
    key::<BackendSettings>("backend.max_in_flight", "", Shape::Number, "Most requests that it gets at once",
        |b, t| put_some(&mut b.max_in_flight, number(t, 1, MANY)), |b| perhaps(b.max_in_flight))
        .unset("what `balance.max_in_flight` says"),
    key::<BackendSettings>("backend.backup", "", Shape::Switch, "It gets requests only while all others are out or drain",
        |b, t| put(&mut b.backup, switch(t)), |b| one(show_switch(b.backup))),
    key::<BackendSettings>("backend.state", "", Shape::Choice("STATE", states), "Whether it gets anything new",
        |b, t| put(&mut b.drain, state(t)), |b| one(if b.drain { "drain" } else { "ready" })),
    key::<BackendSettings>("backend.expand", "", Shape::Switch, "Every address of its name is a backend of its own",
        |b, t| put(&mut b.expand, switch(t)), |b| one(show_switch(b.expand))),
];

fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    value.map(|value| *place = value)
}

fn put_some<T>(place: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    put(place, value.map(Some))
}

fn add<T>(list: &mut Vec<T>, value: Result<T, String>) -> Result<(), String> {
    value.map(|value| list.push(value))
}

fn one(value: impl ToString) -> Vec<String> {
    vec![value.to_string()]
}

fn perhaps(value: Option<impl ToString>) -> Vec<String> {
    value.into_iter().map(|value| value.to_string()).collect()
}

fn all(values: &[impl ToString]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn bytes(size: usize) -> String {
    show_size(size as u64)
}

/// Any word about active checks turns them on.
fn checks(config: &mut Config) -> &mut ActiveHealth {
    config.health.get_or_insert_default()
}

fn check(config: &Config, show: fn(&ActiveHealth) -> String) -> Vec<String> {
    perhaps(config.health.as_ref().map(show))
}

fn file_name(text: &str) -> Result<&str, String> {
    Some(text).filter(|text| !text.is_empty() && !text.contains('\0')).ok_or_else(|| "it takes a file name".to_owned())
}

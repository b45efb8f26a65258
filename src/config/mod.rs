//! Flags to a validated, immutable `Config`.
//!
//! Here stands every timeout and limit that can be set, with its default; the help text is made from the same lines.

use crate::balance::{ActiveHealth, BackendSettings, BalanceSettings, Origin, PassiveHealth, RetrySettings};
use crate::http;
use crate::net::Network;
use clap::{Parser, ValueEnum};
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that can be set, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect. Default 127.0.0.1:8080.
    pub listeners: Vec<ListenerSettings>,
    /// Where their requests go, in the order in which they take turns.
    pub backends: Vec<BackendSettings>,
    /// Whether to start the two backends of the demonstration and stand before them.
    pub demo: bool,
    /// Worker threads. Default: one for each core.
    pub workers: usize,
    /// The access log, on standard output. Default on.
    pub access_log: AccessLogFormat,
    /// What the log tells beyond errors. Default `info`.
    pub log_level: log::LevelFilter,
    /// Most client connections open at once. Default: the descriptor limit less 64.
    pub max_connections: Option<usize>,
    /// Whether we sign with Via. Default on.
    pub via: bool,
    /// What a client's end of file behind a whole request means.
    pub half_close: HalfClose,
    /// Peers whose X-Forwarded-For and Forwarded are extended rather than replaced. Default none.
    pub trusted_proxies: Vec<Network>,
    /// Limits of request heads.
    pub request_limits: http::Limits,
    /// Largest response head, in bytes. Default 32 KiB; beyond it 502.
    pub response_head_bytes: usize,
    /// All timeouts.
    pub timeouts: Timeouts,
    /// How requests are shared out.
    pub balance: BalanceSettings,
    /// What is made of what requests show.
    pub passive_health: PassiveHealth,
    /// How backends are asked whether they are well. Default: they are not asked.
    pub health: Option<ActiveHealth>,
    /// What may be tried again.
    pub retries: RetrySettings,
    /// How much is let in.
    pub load: Load,
    /// The Unix socket over which a newer process takes the listening sockets over. Default: none.
    pub handover: Option<PathBuf>,
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Peers whose connections begin with a PROXY protocol header (version 1 or 2). Default none; others may not send
    /// one.
    pub proxy_protocol_from: Vec<Network>,
}

impl From<SocketAddr> for ListenerSettings {
    fn from(address: SocketAddr) -> ListenerSettings {
        ListenerSettings { address, proxy_protocol_from: Vec::new() }
    }
}

/// How much is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Most exchanges in flight and in the queue, in all. Default: no limit; beyond it 503 `overloaded`.
    pub max_exchanges: Option<usize>,
    /// Largest request body, in bytes. Default: no limit; beyond it 413 `body-too-large`.
    pub max_body: Option<u64>,
    /// The least that a client must send of a body, or take of one, in bytes a second, once it has been waited for for
    /// 30 s. Default 240; 0 turns it off.
    pub lowest_rate: u64,
    /// Most connections from one address. Default: no limit; more are closed at once.
    pub connections_per_address: Option<usize>,
    /// Most requests from one address, a second. Default: no limit; beyond it 429 `too-many-requests`.
    pub requests_per_address: Option<u32>,
}

impl Default for Load {
    fn default() -> Load {
        Load {
            max_exchanges: None,
            max_body: None,
            lowest_rate: 240,
            connections_per_address: None,
            requests_per_address: None,
        }
    }
}

/// Every timeout: what it watches, its default, and the reason word that its end is logged with.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// A new connection, for its first byte. Default 10 s; closed silently.
    pub first_byte: Duration,
    /// A request head, from its first byte to its last; more bytes do not renew it. Default 10 s; 408
    /// `client-head-timeout`.
    pub head: Duration,
    /// A kept client connection, between two requests. Default 60 s; closed silently.
    pub idle: Duration,
    /// A request body, between two pieces of it. Default 30 s; 408 `client-body-timeout`.
    pub request_body: Duration,
    /// A small request body, to be complete before a backend is chosen. Half a second, fixed; then it streams.
    pub collect: Duration,
    /// A connection to a backend. Default 3 s; then the next backend, or 504 `backend-connect-timeout`.
    pub connect: Duration,
    /// A response head, from the end of the request. Default 60 s; 504 `backend-head-timeout`.
    pub response_head: Duration,
    /// A response body, between two pieces of it. Default 60 s; cut, `backend-body-timeout` or `client-body-timeout`.
    pub response_body: Duration,
    /// A kept backend connection. Default 4 s, less when the backend says so; closed silently.
    pub spare: Duration,
    /// A tunnel without a byte in either direction. Default 1 h; closed.
    pub tunnel: Duration,
    /// A close after our last byte, for the client's. One second, fixed; closed.
    pub linger: Duration,
    /// A place at a backend, from the end of the queue. Default 5 s; 503 `queue-timeout`.
    pub queue: Duration,
    /// From the signal until accepting ends: readiness fails already. Default 0 s.
    pub drain_delay: Duration,
    /// A drain, from the end of accepting. Default 30 s; the rest is cut, `shutdown`, exit code 3.
    pub drain: Duration,
}

/// What a client's end of file behind a whole request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HalfClose {
    /// The client is gone: its request is given up.
    Gone,
    /// The client waits for its answer, as `nc -N` does.
    Answer,
}

/// The access log's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessLogFormat {
    /// None.
    Off,
    /// A line for each exchange, for people.
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Why there is no `Config`, or none is needed.
#[derive(Debug)]
pub struct ConfigError(clap::Error);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// Prints it where it belongs and ends the process: 0 after `--help` and `--version`, else 2.
    pub fn exit(&self) -> ! {
        self.0.exit()
    }
}

/// An HTTP/1.1 load balancer: gives every backend its turn.
///
/// Without --listen and --backend it shows itself: two small backends on 127.0.0.1:8081 and :8082, and the balancer on
/// 127.0.0.1:8080 before them. Try `curl http://127.0.0.1:8080/` twice.
///
/// Durations are written like 500ms, 10s or 1m 30s, sizes like 8192, 16KiB or 1MiB.
#[derive(Debug, Parser)]
#[command(name = "threadbare", version, max_term_width = 100)]
#[command(after_help = "\
Examples:
  threadbare                                          the demonstration
  threadbare 127.0.0.1:3000 127.0.0.1:3001            two backends, listening on 127.0.0.1:8080
  threadbare --listen 0.0.0.0:80 --backend http://10.0.0.1:8000/app --backend http://10.0.0.2:8000/app

Signals: SIGTERM and SIGINT finish what is in flight and exit; a second one exits at once.
Exit codes: 0 all was finished, 1 could not start, 2 a wrong flag, 3 something was cut short.")]
struct Flags {
    /// Where to listen, as ADDRESS:PORT; IPv6 in brackets, port 0 for a free one. May be given more than once
    #[arg(long, value_name = "ADDR:PORT", value_parser = address, help_heading = "What listens where")]
    listen: Vec<SocketAddr>,

    /// A backend, as http://host:port/prefix; scheme, port (80) and prefix are optional. May be given more than once
    #[arg(long, value_name = "URL", help_heading = "What listens where")]
    backend: Vec<Origin>,

    /// More backends
    #[arg(value_name = "URL")]
    backends: Vec<Origin>,

    /// Worker threads, up to 1024; one for each core if not given
    #[arg(long, value_name = "N", value_parser = worker_count, help_heading = "What listens where")]
    workers: Option<NonZeroUsize>,

    /// Most client connections at once; more wait in the backlog. The descriptor limit less 64 if not given
    #[arg(long, value_name = "N", value_parser = count, help_heading = "What listens where")]
    max_connections: Option<NonZeroUsize>,

    /// A line for each exchange, on standard output
    #[arg(long, value_enum, default_value = "text", help_heading = "What is told")]
    access_log: AccessLogFormat,

    /// How much to say on standard error: off, error, warn, info, debug or trace
    #[arg(long, env = "RUST_LOG", value_name = "LEVEL", value_parser = level, default_value = "info",
        help_heading = "What is told")]
    log_level: log::LevelFilter,

    /// Sign messages with Via. Turn it off for backends that treat proxied requests worse: nginx does not compress for
    /// them
    #[arg(long, value_enum, value_name = "on|off", default_value = "on", help_heading = "Forwarding")]
    via: Switch,

    /// What a client's end of file behind a whole request means: it is gone, or it waits for its answer as nc -N does
    #[arg(long, value_enum, default_value = "gone", help_heading = "Forwarding")]
    half_close: HalfClose,

    /// A network of proxies (10.0.0.0/8) whose X-Forwarded-For, -Proto, -Host and Forwarded are believed and extended.
    /// May be given more than once
    #[arg(long, value_name = "NET", help_heading = "Forwarding")]
    trusted_proxy: Vec<Network>,

    /// Most exchanges at once at each backend; more wait in the queue. No limit if not given
    #[arg(long, value_name = "N", value_parser = count, help_heading = "Load")]
    max_in_flight: Option<NonZeroUsize>,

    /// Most requests that wait for a place at a backend, up to 1000000; beyond it 503
    #[arg(long, value_name = "N", value_parser = queue_length, default_value = "1000", help_heading = "Load")]
    queue: usize,

    /// A place at a backend, from the end of the queue; then 503
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s", help_heading = "Load")]
    queue_timeout: Duration,

    /// A new connection, until its first byte; then it is closed
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s", help_heading = "Timeouts")]
    first_byte_timeout: Duration,

    /// A request head, from its first byte to its last; then 408
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s", help_heading = "Timeouts")]
    head_timeout: Duration,

    /// A client connection between two requests; then it is closed
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s", help_heading = "Timeouts")]
    idle_timeout: Duration,

    /// A request body, between two pieces of it; then 408
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s", help_heading = "Timeouts")]
    request_body_timeout: Duration,

    /// A connection to a backend; then the next backend, or 504
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "3s", help_heading = "Timeouts")]
    connect_timeout: Duration,

    /// A response head, from the end of the request; then 504
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s", help_heading = "Timeouts")]
    response_head_timeout: Duration,

    /// A response body, between two pieces of it, in either direction; then it is cut
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s", help_heading = "Timeouts")]
    response_body_timeout: Duration,

    /// A kept connection to a backend; less if the backend says so
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "4s", help_heading = "Timeouts")]
    spare_timeout: Duration,

    /// A tunnel (WebSocket) without a byte in either direction; then it is closed
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1h", help_heading = "Timeouts")]
    tunnel_timeout: Duration,

    /// A drain, from the signal; then the rest is cut, and the exit code is 3
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s", help_heading = "Timeouts")]
    drain_timeout: Duration,

    /// Largest request head, up to 64KiB; beyond it 431
    #[arg(long, value_name = "SIZE", value_parser = head_size, default_value = "16KiB", help_heading = "Limits")]
    head_bytes: usize,

    /// Longest request target, up to 64KiB; beyond it 414
    #[arg(long, value_name = "SIZE", value_parser = head_size, default_value = "8KiB", help_heading = "Limits")]
    target_bytes: usize,

    /// Most field lines in a request head, up to 1000; beyond it 431
    #[arg(long, value_name = "N", value_parser = field_count, default_value = "100", help_heading = "Limits")]
    head_fields: usize,

    /// Largest response head, up to 64KiB; beyond it 502
    #[arg(long, value_name = "SIZE", value_parser = head_size, default_value = "32KiB", help_heading = "Limits")]
    response_head_bytes: usize,
}

impl Config {
    /// Reads flags, without the program's name before them.
    ///
    /// # Errors
    /// What is wrong, where, and what would be right; also the answers to `--help` and `--version`.
    pub fn from_args<A>(args: impl IntoIterator<Item = A>) -> Result<Config, ConfigError>
    where
        A: Into<OsString> + Clone,
    {
        let args = args.into_iter().map(Into::into);
        let flags = Flags::try_parse_from(std::iter::once(OsString::from("threadbare")).chain(args));
        flags.and_then(Config::of_flags).map_err(ConfigError)
    }

    fn of_flags(flags: Flags) -> Result<Config, clap::Error> {
        let backends: Vec<Origin> = flags.backend.into_iter().chain(flags.backends).collect();
        let demo = backends.is_empty() && flags.listen.is_empty();
        if backends.is_empty() && !demo {
            return Err(complaint(
                clap::error::ErrorKind::MissingRequiredArgument,
                "there is no backend to give the requests to; name one with --backend http://host:port",
            ));
        }
        if let Some(twice) = repeated(&flags.listen.iter().filter(|address| address.port() != 0).collect::<Vec<_>>()) {
            return Err(complaint(
                clap::error::ErrorKind::ValueValidation,
                &format!("--listen {twice} is given twice"),
            ));
        }
        let listen = if flags.listen.is_empty() { vec![([127, 0, 0, 1], 8080).into()] } else { flags.listen };
        let max_in_flight = flags.max_in_flight.map(NonZeroUsize::get);
        let backend = |origin| BackendSettings { max_in_flight, ..BackendSettings::at(origin) };
        let backends = backends.into_iter().map(backend).collect();
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Config {
            listeners: listen.into_iter().map(ListenerSettings::from).collect(),
            backends,
            demo,
            workers: flags.workers.map_or(cores, NonZeroUsize::get),
            access_log: flags.access_log,
            log_level: flags.log_level,
            max_connections: flags.max_connections.map(NonZeroUsize::get),
            via: flags.via == Switch::On,
            half_close: flags.half_close,
            trusted_proxies: flags.trusted_proxy,
            request_limits: http::Limits {
                head_bytes: flags.head_bytes,
                target_bytes: flags.target_bytes,
                fields: flags.head_fields,
            },
            response_head_bytes: flags.response_head_bytes,
            timeouts: Timeouts {
                first_byte: flags.first_byte_timeout,
                head: flags.head_timeout,
                idle: flags.idle_timeout,
                request_body: flags.request_body_timeout,
                collect: Duration::from_millis(500),
                connect: flags.connect_timeout,
                response_head: flags.response_head_timeout,
                response_body: flags.response_body_timeout,
                spare: flags.spare_timeout,
                tunnel: flags.tunnel_timeout,
                linger: Duration::from_secs(1),
                queue: flags.queue_timeout,
                drain_delay: Duration::ZERO,
                drain: flags.drain_timeout,
            },
            balance: BalanceSettings { queue: flags.queue, ..BalanceSettings::default() },
            passive_health: PassiveHealth::default(),
            health: None,
            retries: RetrySettings::default(),
            load: Load::default(),
            handover: None,
        })
    }
}

fn complaint(kind: clap::error::ErrorKind, what: &str) -> clap::Error {
    <Flags as clap::CommandFactory>::command().error(kind, what)
}

fn repeated<T: PartialEq>(values: &[T]) -> Option<&T> {
    values.iter().enumerate().find(|(nth, value)| values[..*nth].contains(value)).map(|(_, value)| value)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an address is IP:PORT, such as 127.0.0.1:8080 or [::1]:8080".to_owned())
}

fn count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "it takes a number, of at least 1".to_owned())
}

fn queue_length(text: &str) -> Result<usize, String> {
    let length = text.parse().ok().filter(|length| *length <= 1_000_000);
    length.ok_or_else(|| "it takes a number from 0 to 1000000".to_owned())
}

/// More workers than this only wait for each other; a thousand is beyond any machine that this was thought for.
fn worker_count(text: &str) -> Result<NonZeroUsize, String> {
    count(text).ok().filter(|count| count.get() <= 1024).ok_or_else(|| "it takes a number from 1 to 1024".to_owned())
}

fn level(text: &str) -> Result<log::LevelFilter, String> {
    // Clap doesn't say where the value came from, and whoever set the variable may not know of the flag.
    let right = "a level (of --log-level or RUST_LOG) is off, error, warn, info, debug or trace";
    text.parse().map_err(|_| right.to_owned())
}

/// A century is for ever, and no sum of an instant and a timeout overflows.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; a duration is a number with a unit, such as 500ms, 10s or 2h"))?;
    if duration < Duration::from_millis(1) {
        return Err("nothing can happen in no time; the least is 1ms".to_owned());
    }
    Ok(duration.min(LONGEST))
}

fn head_size(text: &str) -> Result<usize, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1024,
        "kB" => 1000,
        "MiB" => 1024 * 1024,
        _ => return Err("a size is a number of bytes, or a number with kB, KiB or MiB".to_owned()),
    };
    let size = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(factor));
    size.filter(|size| (64..=64 * 1024).contains(size)).ok_or_else(|| "a head is limited to 64 B - 64 KiB".to_owned())
}

fn field_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=1000).contains(count));
    count.ok_or_else(|| "a number of field lines is 1 - 1000".to_owned())
}

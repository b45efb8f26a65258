//! A file and flags to a validated, immutable `Config`.
//!
//! - `keys`: every key, a line each, from which everything else is made;
//! - `admin`: what is said of the admin listener;
//! - `values`: single values as people write them;
//! - `complaint`: what is wrong with a file, as people are told it, without its secret;
//! - `file`: the configuration file, with the place of everything that is wrong in it;
//! - `logs`: which exchanges are told of, how, and where;
//! - `flags`: the command line and its help;
//! - `show`: a configuration as a file again.
//!
//! Defaults stand here and in the settings of the rooms below, in `Config::defaults` and the `Default`s that it calls.

mod admin;
mod keys;
mod values;
mod complaint;
mod file;
mod flags;
mod logs;
mod show;

pub use logs::{AccessLogFormat, AccessLogSettings, WireLogSettings};

use crate::addresses::Rate;
use crate::balance::{ActiveHealth, BackendSettings, BalanceSettings, Origin, PassiveHealth, RetrySettings};
use crate::http;
use crate::net::Network;
pub use admin::{AdminSettings, Token};
use clap::ValueEnum;
use complaint::Complaint;
use file::{File, Patience};
use flags::Flags;
use keys::Key;
use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where it listens if nothing is said.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

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
    /// Which exchanges are told of, how, and where.
    pub access_log: AccessLogSettings,
    /// Whether every call on a socket is told of, and where.
    pub wire_log: WireLogSettings,
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
    /// Where it is watched from.
    pub admin: AdminSettings,
    /// What it was made of, to be read again.
    sources: Arc<Sources>,
}

/// What a configuration was made of.
#[derive(Debug, Default)]
struct Sources {
    args: Vec<OsString>,
    has_file: bool,
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Peers whose connections begin with a PROXY protocol header (version 1 or 2), and are closed without one. Default
    /// none; what others say first is a request.
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
    /// `rate_grace`. Default 240; 0 turns it off. `client-too-slow`: 408, or a reset where an answer has begun.
    pub lowest_rate: u64,
    /// So long a client has been waited for before its rate counts: a pause is nobody's fault. 30 s, fixed.
    pub rate_grace: Duration,
    /// Most connections open at once from one address (of IPv6, from one /64). Default: no limit; more are closed at
    /// once. It does not hold for `trusted_proxies`, nor does the next.
    pub connections_per_address: Option<usize>,
    /// Most requests a second from one address. Default: no limit; beyond it 429 `too-many-requests`.
    pub requests_per_address: Option<u32>,
    /// Of these, so many at once from one address that has not asked for a while. Default: a second's worth.
    pub request_burst_per_address: Option<u32>,
}

impl Load {
    /// How often an address may ask; none if as often as it likes.
    pub fn rate_per_address(&self) -> Option<Rate> {
        let a_second = self.requests_per_address?;
        Some(Rate { a_second, burst: self.request_burst_per_address.unwrap_or(a_second) })
    }
}

impl Default for Load {
    fn default() -> Load {
        Load {
            max_exchanges: None,
            max_body: None,
            lowest_rate: 240,
            rate_grace: Duration::from_secs(30),
            connections_per_address: None,
            requests_per_address: None,
            request_burst_per_address: None,
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
    /// From the signal until accepting ends, for whoever still sends clients here. Default 0 s.
    pub drain_delay: Duration,
    /// In a drain: a client connection that was used within this time may bring another request for as long, and at most for
    /// half of the drain. Default 1 s; closed.
    pub drain_idle: Duration,
    /// A drain, from the end of accepting. Default 30 s; the rest is cut, `shutdown`, exit code 3.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            first_byte: Duration::from_secs(10),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            request_body: Duration::from_secs(30),
            collect: Duration::from_millis(500),
            connect: Duration::from_secs(3),
            response_head: Duration::from_secs(60),
            response_body: Duration::from_secs(60),
            spare: Duration::from_secs(4),
            tunnel: Duration::from_secs(3600),
            linger: Duration::from_secs(1),
            queue: Duration::from_secs(5),
            drain_delay: Duration::ZERO,
            drain_idle: Duration::from_secs(1),
            drain: Duration::from_secs(30),
        }
    }
}

/// What a client's end of file behind a whole request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HalfClose {
    /// The client is gone: its request is given up.
    Gone,
    /// The client waits for its answer, as `nc -N` does.
    Answer,
}

/// Why there is no `Config`, or none is needed.
#[derive(Debug)]
pub struct ConfigError(Why);

#[derive(Debug)]
enum Why {
    /// A flag; or `--help` and `--version`, which clap answers.
    Flags(clap::Error),
    /// The file, or what file and flags come to.
    Settings(Complaint),
    /// `--check`: the configuration, as a file.
    Shown(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Why::Flags(error) => error.fmt(f),
            Why::Settings(complaint) => writeln!(f, "error: {}", complaint.full),
            Why::Shown(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<clap::Error> for ConfigError {
    fn from(error: clap::Error) -> ConfigError {
        ConfigError(Why::Flags(error))
    }
}

impl From<Complaint> for ConfigError {
    fn from(complaint: Complaint) -> ConfigError {
        ConfigError(Why::Settings(complaint))
    }
}

impl From<String> for ConfigError {
    fn from(what: String) -> ConfigError {
        Complaint::from(what).into()
    }
}

impl ConfigError {
    /// What is wrong and where, in one line, without the line that is wrong: for those who may not see the file.
    pub fn in_short(&self) -> String {
        match &self.0 {
            Why::Flags(error) => {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                first.strip_prefix("error: ").unwrap_or(first).to_owned()
            }
            Why::Settings(complaint) => complaint.short.clone(),
            Why::Shown(_) => "the settings were only to be shown".to_owned(),
        }
    }

    /// Prints it where it belongs and ends the process: 0 after `--help`, `--version` and `--check`, else 2.
    pub fn exit(&self) -> ! {
        match &self.0 {
            Why::Flags(error) => error.exit(),
            Why::Settings(_) => {
                eprint!("{self}");
                std::process::exit(2)
            }
            Why::Shown(text) => {
                let written = std::io::stdout().write_all(text.as_bytes());
                std::process::exit(i32::from(written.is_err()))
            }
        }
    }
}

impl Config {
    /// Reads flags, without the program's name before them, and the file that they name.
    ///
    /// # Errors
    /// What is wrong, where, and what would be right; also the answers to `--help`, `--version` and `--check`.
    pub fn from_args<A>(args: impl IntoIterator<Item = A>) -> Result<Config, ConfigError>
    where
        A: Into<OsString> + Clone,
    {
        Config::read(args.into_iter().map(Into::into).collect(), Patience::Endless)
    }

    fn read(args: Vec<OsString>, patience: Patience) -> Result<Config, ConfigError> {
        let flags = Flags::parse(args.iter().cloned())?;
        let mut config = Config::defaults();
        let file = match &flags.file {
            Some(path) => Some(File::read(path, patience, &mut config)?),
            None => None,
        };
        flags.apply(&mut config)?;
        config.take_places(&flags, file.is_some())?;
        config.check_ejections(file.as_ref())?;
        config.check_burst(file.as_ref())?;
        config.check_admin(file.as_ref())?;
        if flags.check {
            return Err(ConfigError(Why::Shown(show::show(&config))));
        }
        config.sources = Arc::new(Sources { args, has_file: file.is_some() });
        Ok(config)
    }

    /// Reads the same file again, and lets the same flags override it. Waits for nobody.
    ///
    /// # Errors
    /// As for `from_args`; that there is no file; that it is a pipe or the like, whose end may be far.
    pub fn reload(&self) -> Result<Config, ConfigError> {
        if !self.sources.has_file {
            return Err(String::from("there is no file to read again; name one with --config FILE").into());
        }
        Config::read(self.sources.args.clone(), Patience::None)
    }

    /// Whether there is a file to read again.
    pub fn has_file(&self) -> bool {
        self.sources.has_file
    }

    /// The keys that differ and are read only once, at the start; everything else may change while it runs.
    pub fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        let differs = |key: &&Key<Config>| key.needs_restart && (key.show)(self) != (key.show)(new);
        keys::KEYS.iter().filter(differs).map(|key| key.path).collect()
    }

    /// Whether what this peer tells of its own clients is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(peer))
    }

    /// Whether nothing was said of where to listen, or what would have been assumed anyway.
    pub fn listens_by_default(&self) -> bool {
        self.listeners == [DEFAULT_ADDRESS.into()]
    }

    /// What holds where nothing is said: no listener and no backend among it.
    fn defaults() -> Config {
        Config {
            listeners: Vec::new(),
            backends: Vec::new(),
            demo: false,
            workers: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            access_log: AccessLogSettings::default(),
            wire_log: WireLogSettings::default(),
            log_level: log::LevelFilter::Info,
            max_connections: None,
            via: true,
            half_close: HalfClose::Gone,
            trusted_proxies: Vec::new(),
            request_limits: http::Limits { head_bytes: 16 * 1024, target_bytes: 8 * 1024, fields: 100 },
            response_head_bytes: 32 * 1024,
            timeouts: Timeouts::default(),
            balance: BalanceSettings::default(),
            passive_health: PassiveHealth::default(),
            health: None,
            retries: RetrySettings::default(),
            load: Load::default(),
            handover: None,
            admin: AdminSettings::default(),
            sources: Arc::default(),
        }
    }

    /// The defaults, also of what is off by default.
    fn with_everything() -> Config {
        Config { health: Some(ActiveHealth::default()), ..Config::defaults() }
    }

    /// Where it listens, and where the requests go.
    fn take_places(&mut self, flags: &Flags, has_file: bool) -> Result<(), ConfigError> {
        if !flags.backends.is_empty() {
            self.backends = flags.backends.iter().cloned().map(BackendSettings::at).collect();
        }
        if let Some(twice) = repeated(&flags.backends, same_place) {
            return Err(flags::complaint(&format!("--backend {twice} is given twice")).into());
        }
        if !flags.listen.is_empty() {
            self.listeners = flags.listen.iter().copied().map(ListenerSettings::from).collect();
        }
        if let Some(twice) = repeated(&flags.listen, |one, other| one == other && one.port() != 0) {
            return Err(flags::complaint(&format!("--listen {twice} is given twice")).into());
        }
        self.demo = self.backends.is_empty() && self.listeners.is_empty() && !has_file && !flags.check;
        if self.backends.is_empty() && !self.demo {
            return Err(flags::complaint(
                "there is no backend to give the requests to; name one with --backend http://host:port, or in the \
                 file of --config with [[backend]] and url = \"http://host:port\"",
            )
            .into());
        }
        if self.listeners.is_empty() {
            self.listeners = vec![DEFAULT_ADDRESS.into()];
        }
        Ok(())
    }

    /// Whoever reaches the admin listener sees the addresses of all backends: that is not to happen by mistake.
    fn check_admin(&self, file: Option<&File>) -> Result<(), ConfigError> {
        let Some(address) = self.admin.listen.filter(|address| !address.ip().is_loopback()) else { return Ok(()) };
        if self.admin.anywhere {
            return Ok(());
        }
        let what = format!("the admin listener at {address} could be reached from other machines");
        let right = "listen at 127.0.0.1 or [::1], or say `anywhere = true` too";
        let right_flags = "listen at 127.0.0.1 or [::1], or say --admin-anywhere on too";
        let flag = format!("--admin {address}");
        Err(complaint_about(file, &["admin.listen"], &what, right, &format!("{flag}: {what}; {right_flags}")))
    }

    /// Two keys that can only be wrong together.
    fn check_ejections(&self, file: Option<&File>) -> Result<(), ConfigError> {
        let (shortest, longest) = (self.passive_health.shortest_ejection, self.passive_health.longest_ejection);
        if shortest <= longest {
            return Ok(());
        }
        let what = format!("the shortest ejection ({shortest:?}) is longer than the longest ({longest:?})");
        let right = "`shortest_ejection` is at most `longest_ejection`";
        let keys = ["passive_health.longest_ejection", "passive_health.shortest_ejection"];
        let of_flags = format!("{what}; --shortest-ejection is at most --longest-ejection");
        Err(complaint_about(file, &keys, &what, right, &of_flags))
    }

    /// A burst alone would look like a limit, and be none.
    fn check_burst(&self, file: Option<&File>) -> Result<(), ConfigError> {
        if self.load.request_burst_per_address.is_none() || self.load.requests_per_address.is_some() {
            return Ok(());
        }
        let what = "a burst without a rate limits nobody";
        let right = "say `requests_per_address` too: how many requests a second";
        let of_flags = format!("--request-burst-per-address: {what}; say --requests-per-address N too");
        Err(complaint_about(file, &["load.request_burst_per_address"], what, right, &of_flags))
    }
}

/// What is wrong with values that are possible one by one: at the first of these keys that the file has, or else in the
/// words of the flags.
fn complaint_about(file: Option<&File>, keys: &[&str], what: &str, right: &str, of_flags: &str) -> ConfigError {
    let placed = |file: &File| keys.iter().find_map(|key| file.complaint_about(key, what, right));
    match file.and_then(placed) {
        Some(complaint) => complaint.into(),
        None => flags::complaint(of_flags).into(),
    }
}

/// Every key of the file, in the order of the help: where it stands, its flag, and its default as people write it.
pub fn keys() -> Vec<(&'static str, &'static str, String)> {
    fn rows<T>(keys: &'static [Key<T>], defaults: &T) -> Vec<(&'static str, &'static str, String)> {
        let shown = |key: &Key<T>| match key.unset {
            Some(words) => words.to_owned(),
            None => show::value(key, defaults).unwrap_or_default(),
        };
        keys.iter().map(|key| (key.path, key.flag, shown(key))).collect()
    }
    let listener = ListenerSettings::from(SocketAddr::from(([127, 0, 0, 1], 8080)));
    let mut all = rows(keys::KEYS, &Config::with_everything());
    all.extend(rows(keys::OF_LISTENER, &listener));
    all.extend(
        "http://127.0.0.1"
            .parse()
            .map(|origin| rows(keys::OF_BACKEND, &BackendSettings::at(origin)))
            .unwrap_or_default(),
    );
    all
}

/// Whether two names are of the same backend: the port 80 need not be said, and hosts have no case.
fn same_place(one: &Origin, other: &Origin) -> bool {
    let authority = |origin: &Origin| {
        let lower = origin.authority.to_ascii_lowercase();
        lower.strip_suffix(":80").map(str::to_owned).unwrap_or(lower)
    };
    authority(one) == authority(other) && one.prefix == other.prefix
}

fn repeated<T>(values: &[T], same: impl Fn(&T, &T) -> bool) -> Option<&T> {
    let is_repeated = |(nth, value): &(usize, &T)| values.iter().take(*nth).any(|other| same(other, value));
    values.iter().enumerate().find(is_repeated).map(|(_, value)| value)
}

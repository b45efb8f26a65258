//! The command line: a flag for every key, and a few of its own.

use super::Config;
use super::keys::{KEYS, Key};
use super::values::address;
use crate::balance::Origin;
use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

const LISTENING: &str = "What listens where";

/// What the command line says.
pub(super) struct Flags {
    matches: ArgMatches,
    /// The file to read before the flags are heard.
    pub(super) file: Option<PathBuf>,
    /// Whether the configuration is only to be shown.
    pub(super) check: bool,
    /// Listeners instead of the file's, if any.
    pub(super) listen: Vec<SocketAddr>,
    /// Backends instead of the file's, if any.
    pub(super) backends: Vec<Origin>,
}

impl Flags {
    /// Reads flags, without the program's name before them.
    pub(super) fn parse(args: impl Iterator<Item = OsString>) -> Result<Flags, clap::Error> {
        let name = std::iter::once(OsString::from("threadbare"));
        let mut matches = command().try_get_matches_from(name.chain(args))?;
        let mut backends: Vec<Origin> = matches.remove_many("backend").into_iter().flatten().collect();
        backends.extend(matches.remove_many::<Origin>("backends").into_iter().flatten());
        Ok(Flags {
            file: matches.remove_one("config"),
            check: matches.get_flag("check"),
            listen: matches.remove_many("listen").into_iter().flatten().collect(),
            backends,
            matches,
        })
    }

    /// Lets the flags that were given override what stands there.
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), clap::Error> {
        for key in KEYS.iter().filter(|key| !key.flag.is_empty()) {
            if self.matches.value_source(key.path).is_none_or(|source| source == ValueSource::DefaultValue) {
                continue;
            }
            if let Some(clear) = key.clear {
                clear(config);
            }
            for text in self.matches.get_many::<String>(key.path).into_iter().flatten() {
                let wrong = |error| complaint(&format!("--{} {text}: {error}", key.flag));
                (key.read)(config, text).map_err(wrong)?;
            }
        }
        if self.matches.get_flag("health_tcp") {
            config.health.get_or_insert_default().path = None;
        }
        Ok(())
    }
}

/// What is wrong with values that are possible one by one.
pub(super) fn complaint(what: &str) -> clap::Error {
    command().error(ErrorKind::ValueValidation, what)
}

fn command() -> Command {
    let about = "An HTTP/1.1 load balancer: gives every backend its turn";
    let more = "\
An HTTP/1.1 load balancer: gives every backend its turn.

Without --listen and --backend it shows itself: two small backends on 127.0.0.1:8081 and :8082, and the balancer on \
127.0.0.1:8080 before them. Try `curl http://127.0.0.1:8080/` twice.

Durations are written like 500ms, 10s or 1m 30s, sizes like 8192, 16KiB or 1MiB.";
    let after = "\
Examples:
  threadbare                                          the demonstration
  threadbare 127.0.0.1:3000 127.0.0.1:3001            two backends, listening on 127.0.0.1:8080
  threadbare --listen 0.0.0.0:80 --backend http://10.0.0.1:8000/app --backend http://10.0.0.2:8000/app
  threadbare --config threadbare.toml --check         what that file comes to, defaults included

Signals: SIGTERM and SIGINT finish what is in flight and exit; a second one cuts it short. SIGHUP reads the file\nof --config again, and opens the log files again.
Exit codes: 0 all was finished, 1 could not start, 2 a wrong flag or file, 3 something was cut short.";
    let command = Command::new("threadbare").version(env!("CARGO_PKG_VERSION")).max_term_width(100);
    let command = command.about(about).long_about(more).after_help(after).args(own());
    let defaults = Config::with_everything();
    KEYS.iter().filter(|key| !key.flag.is_empty()).fold(command, |command, key| {
        let command = command.arg(flag(key, &defaults));
        if key.path == "health.path" { command.arg(health_tcp()) } else { command }
    })
}

/// The flags that are no keys, or whose keys are more than a flag can say.
fn own() -> [Arg; 5] {
    let many = |id: &'static str| Arg::new(id).action(ArgAction::Append).help_heading(LISTENING);
    [
        many("listen").long("listen").value_name("ADDR:PORT").value_parser(address).help(
            "Where to listen, as ADDRESS:PORT; IPv6 in brackets, port 0 for a free one. May be given more than once",
        ),
        many("backend").long("backend").value_name("URL").value_parser(str::parse::<Origin>).help(
            "A backend, as http://host:port/prefix; scheme, port (80) and prefix are optional. May be given more than \
             once",
        ),
        Arg::new("backends")
            .action(ArgAction::Append)
            .value_name("URL")
            .value_parser(str::parse::<Origin>)
            .help("More backends"),
        Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("A file of settings, in TOML; flags override it, and flags alone are enough if not given"),
        Arg::new("check").long("check").action(ArgAction::SetTrue).help(
            "Only check the settings and show them all, defaults included, as a file for --config; it starts if not \
             given",
        ),
    ]
}

fn health_tcp() -> Arg {
    Arg::new("health_tcp").long("health-tcp").action(ArgAction::SetTrue).conflicts_with("health.path").help(
        "Try to connect to every backend, now and then; if not given, none is asked, unless another flag or the file \
         says so",
    )
    .help_heading("Health")
}

fn flag(key: &'static Key<Config>, defaults: &Config) -> Arg {
    let arg = Arg::new(key.path).long(key.flag).value_name(key.shape.value_name()).help(key.about);
    let arg = arg.help_heading(heading(key));
    let arg = match key.shape.choices() {
        Some(choices) => arg.value_parser(PossibleValuesParser::new(choices)),
        None => arg.value_parser(|text: &str| (key.read)(&mut Config::defaults(), text).map(|()| text.to_owned())),
    };
    let is_empty = || std::env::var_os("RUST_LOG").is_some_and(|level| level.is_empty()); // as if it were not there
    let arg = if key.path == "log.level" && !is_empty() { arg.env("RUST_LOG") } else { arg };
    match (key.show)(defaults).into_iter().next() {
        _ if key.is_list() => arg.action(ArgAction::Append),
        Some(default) if key.unset.is_none() => arg.default_value(default),
        _ => arg,
    }
}

fn heading(key: &Key<Config>) -> &'static str {
    match key.section() {
        "log" => "What is told",
        "admin" => "Seeing inside",
        "forwarding" => "Forwarding",
        "balance" => "Balancing",
        "passive_health" | "health" => "Health",
        "retry" => "Retries",
        "load" => "Load",
        "timeouts" => "Timeouts",
        "limits" => "Limits",
        _ => LISTENING,
    }
}

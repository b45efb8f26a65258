//! The configuration file: what it says, what is wrong with it and where, what overrides it, and what a reload changes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use program::{Program, command, output, run};
use support::{Backend, Client, TempFile, each};
use threadbare::Config;
use threadbare::addresses::Rate;
use threadbare::balance::{HashKey, Policy};

const BACKEND: &str = "[[backend]]\nurl = \"http://127.0.0.1:9\"\n";

/// What this file and these flags come to.
fn config(file: &str, flags: &[&str]) -> Config {
    let file = TempFile::new(file);
    Config::from_args([&["--config", file.path()], flags].concat()).unwrap_or_else(|error| panic!("{error}"))
}

/// Why this file and these flags come to nothing.
fn complaint(file: &str, flags: &[&str]) -> String {
    let file = TempFile::new(file);
    match Config::from_args([&["--config", file.path()], flags].concat()) {
        Ok(config) => panic!("it is taken: {config:?}"),
        Err(error) => error.to_string().replace(file.path(), "FILE"),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Every key, with a value that is not its default.
const EVERYTHING: &str = r#"
workers = 3
max_connections = 1000
handover = "/run/threadbare.sock"

[[listener]]
address = "127.0.0.1:8081"
proxy_protocol_from = ["10.0.0.0/8", "2001:db8::1"]

[[listener]]
address = "[::1]:8082"

[[backend]]
url = "http://127.0.0.1:3000/prefix"
name = "a"
weight = 256
max_in_flight = 100
backup = true
state = "drain"
expand = true

[[backend]]
url = "127.0.0.1:3001"

[balance]
policy = "hash"
hash_key = "header:X-User"
hash_load = 150
sticky_cookie = "NAME"
max_in_flight = 44
slow_start = "0s"
resolve_interval = "1m 30s"
queue = 0

[passive_health]
enabled = false
failures = 5
shortest_ejection = "2s"
longest_ejection = "2s"
stall_in_flight = 9
stall = "600ms"

[health]
path = "/healthz"
interval = "3s"
timeout = "2s"
rise = 3
fall = 4
status = "200"

[retry]
budget = 30
budget_floor = 20
statuses = [502, 503]

[load]
max_exchanges = 10
max_body = "1MiB"
lowest_rate = 0
connections_per_address = 30
requests_per_address = 40
request_burst_per_address = 50

[limits]
head_bytes = 4096
target_bytes = "2KiB"
head_fields = 50
response_head_bytes = "64KiB"

[timeouts]
first_byte = "1s"
head = "2s"
idle = "3s"
request_body = "4s"
connect = "5s"
response_head = "6s"
response_body = "7s"
spare = "8s"
tunnel = "9s"
queue = "10s"
drain_delay = "11s"
drain_idle = "12s"
drain = "13s"

[forwarding]
via = false
half_close = "answer"
trusted_proxies = ["10.0.0.0/8"]

[admin]
listen = "10.0.0.1:9900"
anywhere = true
hosts = ["LB.example"]
token = "0123456789abcdef"

[log]
level = "warn"
access = "json"
access_file = "/var/log/threadbare.log"
access_sample = 10
access_slower_than = "250ms"
wire = true
wire_file = "/var/log/threadbare.wire"
"#;

#[test]
fn every_key_of_the_file_is_taken() {
    let config = config(EVERYTHING, &[]);
    assert_eq!((config.workers, config.max_connections), (3, Some(1000)));
    assert_eq!(config.handover.as_deref(), Some(Path::new("/run/threadbare.sock")));
    let addresses: Vec<String> = config.listeners.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(addresses, ["127.0.0.1:8081", "[::1]:8082"]);
    let proxies = config.listeners.iter().map(|listener| listener.proxy_protocol_from.len());
    assert_eq!(proxies.collect::<Vec<_>>(), [2, 0]);

    let [first, second] = &config.backends[..] else { panic!("{:?}", config.backends) };
    assert_eq!((first.origin.to_string(), &*first.name), ("http://127.0.0.1:3000/prefix".to_owned(), "a"));
    assert_eq!((first.weight, first.max_in_flight), (256, Some(100)));
    assert!(first.backup && first.drain && first.expand, "{first:?}");
    assert_eq!((&*second.name, second.weight, second.max_in_flight), ("127.0.0.1:3001", 1, None));
    assert!(!second.backup && !second.drain && !second.expand, "{second:?}");

    let balance = &config.balance;
    assert_eq!((balance.policy, &balance.hash_key), (Policy::Hash, &HashKey::Field("X-User".to_owned())));
    assert_eq!((balance.hash_load_percent, balance.max_in_flight), (150, Some(44)));
    assert_eq!(balance.sticky_cookie.as_deref(), Some("NAME"));
    assert_eq!((balance.slow_start, balance.resolve_interval), (Duration::ZERO, Duration::from_secs(90)));
    assert_eq!(balance.queue, 0);

    let passive = &config.passive_health;
    assert_eq!((passive.enabled, passive.failures, passive.stall_in_flight), (false, 5, 9));
    let lengths = [passive.shortest_ejection, passive.longest_ejection, passive.stall];
    assert_eq!(lengths.map(|length| length.as_millis()), [2000, 2000, 600]);

    let health = config.health.as_ref().unwrap();
    assert_eq!((health.path.as_deref(), health.status), (Some("/healthz"), (200, 200)));
    assert_eq!((health.interval.as_secs(), health.timeout.as_secs(), health.rise, health.fall), (3, 2, 3, 4));

    assert_eq!((config.retries.budget_percent, config.retries.budget_floor), (30, 20));
    assert_eq!(config.retries.statuses, [502, 503]);
    let load = &config.load;
    assert_eq!((load.max_exchanges, load.max_body, load.lowest_rate), (Some(10), Some(1 << 20), 0));
    assert_eq!((load.connections_per_address, load.requests_per_address), (Some(30), Some(40)));
    assert_eq!(load.rate_per_address(), Some(Rate { a_second: 40, burst: 50 }));
    let limits = &config.request_limits;
    assert_eq!((limits.head_bytes, limits.target_bytes, limits.fields), (4096, 2048, 50));
    assert_eq!(config.response_head_bytes, 65536);

    let t = &config.timeouts;
    let timeouts = [t.first_byte, t.head, t.idle, t.request_body, t.connect, t.response_head, t.response_body];
    assert_eq!(timeouts.map(|timeout| timeout.as_secs()), [1, 2, 3, 4, 5, 6, 7]);
    let timeouts = [t.spare, t.tunnel, t.queue, t.drain_delay, t.drain_idle, t.drain];
    assert_eq!(timeouts.map(|timeout| timeout.as_secs()), [8, 9, 10, 11, 12, 13]);

    let admin = &config.admin;
    assert_eq!((admin.listen.unwrap().to_string(), admin.anywhere), ("10.0.0.1:9900".to_owned(), true));
    assert_eq!(admin.hosts, ["lb.example"]);
    assert!(admin.token.as_ref().unwrap().is(b"0123456789abcdef"));

    assert!(!config.via && !config.demo);
    assert_eq!((config.trusted_proxies.len(), config.log_level), (1, log::LevelFilter::Warn));
    let log = &config.access_log;
    assert_eq!(format!("{:?} {:?}", config.half_close, log.format), "Answer Json");
    assert_eq!(log.file.as_deref(), Some(Path::new("/var/log/threadbare.log")));
    assert_eq!((log.one_in, log.slower_than), (10, Duration::from_millis(250)));
    assert!(config.wire_log.on);
    assert_eq!(config.wire_log.file.as_deref(), Some(Path::new("/var/log/threadbare.wire")));
}

#[test]
fn a_file_with_a_backend_is_enough_and_the_rest_is_as_without_a_file() {
    let from_file = config(BACKEND, &[]);
    let from_flags = Config::from_args(["127.0.0.1:9"]).unwrap();
    let shown = |config: &Config| {
        let debug = format!("{config:?}");
        debug.split(", sources: ").next().unwrap().to_owned()
    };
    assert_eq!(shown(&from_file), shown(&from_flags));
    assert_eq!(from_file.listeners[0].address.to_string(), "127.0.0.1:8080");
}

#[test]
fn a_name_that_resembles_none_is_answered_with_those_that_there_are() {
    for (file, wanted) in [
        ("[zebra]\nstripes = 2", ["`zebra` above all sections", "may stand there: workers, ", ", timeouts, "]),
        ("[load]\nzebra = 2", ["`zebra` in [load]", "may stand there: max_exchanges, ", ", lowest_rate, "]),
    ] {
        let message = complaint(file, &["127.0.0.1:9"]);
        assert!(wanted.iter().all(|words| message.contains(words)), "{message}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    // The file; the line and column of the place, and what stands in the message.
    let rows: &[(&str, &str, &[&str])] = &[
        // No such key.
        ("wrkers = 2", "1:1", &["wrkers = *", "^^^^^^", "`wrkers`", "nearest is `workers`"]),
        ("[timeout]\nidle = \"1s\"", "1:2", &["`timeout`", "`timeouts`"]),
        ("[timeouts]\nidel = \"1s\"", "2:1", &["`idel` in [timeouts]", "`idle`"]),
        ("idle = \"1s\"", "1:1", &["`idle`", "`idle` in [timeouts]"]),
        ("idle_timeout = \"1s\"", "1:1", &["`idle` in [timeouts]"]),
        ("[timeouts]\nworkers = 1", "2:1", &["`workers` stands above all sections"]),
        ("[access_log]\nformat = \"text\"", "1:2", &["`access_log` above all sections", "`access` stands in [log]"]),
        ("[[backends]]\nurl = \"a\"", "1:3", &["`backends`", "`backend`"]),
        ("[[backend]]\nurl = \"a\"\nwieght = 2", "3:1", &["wieght = *", "in [[backend]]", "`weight`"]),
        // Wrong types.
        ("workers = \"2\"", "1:11", &["\"2\"", "^^^", "can't be a string", "a whole number"]),
        ("workers = 2.5", "1:11", &["a number with a fraction", "a whole number"]),
        ("workers = [2]", "1:11", &["an array", "a whole number"]),
        ("[workers]\nn = 2", "1:1", &["a table", "a whole number"]),
        ("timeouts = 3", "1:12", &["can't be a whole number", "[timeouts]"]),
        ("backend = \"127.0.0.1:1\"", "1:11", &["can't be a string", "[[backend]]"]),
        ("backend = [1]", "1:12", &["can't be a whole number", "[[backend]]"]),
        ("[backend]\nurl = \"a\"", "1:1", &["can't be a table", "[[backend]]"]),
        ("[timeouts]\nidle = 10", "2:8", &["`timeouts.idle`", "a whole number", "\"10s\""]),
        ("[forwarding]\nvia = \"on\"", "2:7", &["can't be a string", "true or false"]),
        ("[forwarding]\ntrusted_proxies = \"10.0.0.0/8\"", "2:19", &["an array of strings"]),
        ("[forwarding]\ntrusted_proxies = [\"::/0\", 10]", "2:28", &["^^", "an array of strings"]),
        ("[retry]\nstatuses = [502, \"503\"]", "2:18", &["an array of whole numbers"]),
        ("[balance]\nslow_start = 1979-05-27", "2:14", &["a date or time", "\"10s\""]),
        // Impossible values.
        ("workers = 0", "1:11", &["workers = 0", "^", "1 to 1024"]),
        ("workers = -1", "1:11", &["\"-1\"", "1 to 1024"]),
        ("workers = 0x1_000", "1:11", &["\"4096\"", "1 to 1024"]),
        ("workers = 999999999999999999999999", "1:11", &["1 to 1024"]),
        ("max_connections = 0", "1:19", &["at least 1"]),
        ("handover = \"\"", "1:12", &["a file name"]),
        ("[[listener]]\naddress = \"localhost:80\"", "2:11", &["localhost:80", "IP:PORT"]),
        ("[[listener]]\naddress = \"[::]:80\"\nproxy_protocol_from = true", "3:23", &["an array of strings"]),
        ("[[listener]]\naddress = \"[::]:80\"\nproxy_protocol_from = [\"10.0.0.0/33\"]", "3:24", &["10.0.0.0/8"]),
        ("[[backend]]\nurl = \"https://a\"", "2:7", &["https", "http://host:port"]),
        ("[[backend]]\nurl = \"a\"\nname = \"a b\"", "3:8", &["visible ASCII"]),
        ("[[backend]]\nurl = \"a\"\nweight = 0", "3:10", &["1 to 256"]),
        ("[[backend]]\nurl = \"a\"\nweight = 257", "3:10", &["1 to 256"]),
        ("[[backend]]\nurl = \"a\"\nmax_in_flight = 0", "3:17", &["1 to "]),
        ("[[backend]]\nurl = \"a\"\nstate = \"up\"", "3:9", &["ready, drain"]),
        ("[forwarding]\ntrusted_proxies = [\"10.0.0.0/33\"]", "2:20", &["10.0.0.0/33", "32 bits"]),
        ("[balance]\nhash_key = \"header:\"", "2:12", &["a name is"]),
        ("[balance]\nhash_key = \"user\"", "2:12", &["header:NAME"]),
        ("[balance]\nhash_load = 100", "2:13", &["101 to 1000"]),
        ("[balance]\npolicy = \"fair\"", "2:10", &["round_robin, least_in_flight, two_choices, peak_ewma, hash"]),
        ("[balance]\nslow_start = \"soon\"", "2:14", &["10s"]),
        ("[balance]\nresolve_interval = \"0s\"", "2:20", &["1ms"]),
        ("[balance]\nqueue = -1", "2:9", &["0 to "]),
        ("[passive_health]\nfailures = 0", "2:12", &["1 to "]),
        ("[passive_health]\nstall_in_flight = 0", "2:19", &["1 to "]),
        (
            "[passive_health]\nshortest_ejection = \"2s\"\nlongest_ejection = \"1s\"",
            "3:20",
            &["longer than the longest", "at most"],
        ),
        ("[passive_health]\nshortest_ejection = \"31s\"", "2:21", &["longer than the longest", "at most"]),
        ("[health]\npath = \"healthz\"", "2:8", &["/healthz"]),
        ("[health]\nrise = 0", "2:8", &["1 to 1000"]),
        ("[health]\nfall = 0", "2:8", &["1 to 1000"]),
        ("[health]\nstatus = \"399-200\"", "2:10", &["200-399"]),
        ("[health]\nstatus = \"20x\"", "2:10", &["200-399"]),
        ("[retry]\nbudget = 101", "2:10", &["0 to 100"]),
        ("[retry]\nstatuses = [502, 200]", "2:18", &["400 to 599"]),
        ("[load]\nmax_exchanges = 0", "2:17", &["at least 1"]),
        ("[load]\nmax_body = \"many\"", "2:12", &["KiB"]),
        ("[load]\nconnections_per_address = 0", "2:27", &["1 to 1000000000"]),
        ("[load]\nrequests_per_address = \"10/s\"", "2:24", &["a whole number"]),
        ("[load]\nrequest_burst_per_address = 5", "2:29", &["limits nobody", "`requests_per_address`"]),
        ("[limits]\nhead_bytes = \"1MiB\"", "2:14", &["64 B - 64 KiB"]),
        ("[limits]\nhead_bytes = 1", "2:14", &["64 B - 64 KiB"]),
        ("[limits]\nhead_fields = 0", "2:15", &["1 - 1000"]),
        ("[timeouts]\nidle = \"0s\"", "2:8", &["1ms"]),
        ("[forwarding]\nhalf_close = \"maybe\"", "2:14", &["gone, answer"]),
        ("[admin]\nlisten = \"localhost:9900\"", "2:10", &["listen = ****************", "`admin.listen`", "IP:PORT"]),
        ("[admin]\nlisten = \"0.0.0.0:9900\"", "2:10", &["from other machines", "127.0.0.1", "anywhere = true"]),
        ("[admin]\nanywhere = \"yes\"", "2:12", &["can't be a string", "true or false"]),
        ("[admin]\nhosts = [\"lb:9900\"]", "2:10", &["without a port"]),
        ("[admin]\ntoken = \"secret\"", "2:9", &["at least 16", "${ADMIN_TOKEN}"]),
        ("[log]\nlevel = \"loud\"", "2:9", &["off, error, warn"]),
        ("[log]\naccess = \"xml\"", "2:10", &["off, text, combined, json"]),
        ("[log]\naccess_file = \"\"", "2:15", &["a file name"]),
        ("[log]\nwire = \"on\"", "2:8", &["can't be a string", "true or false"]),
        ("[log]\nwire_file = \"\"", "2:13", &["a file name"]),
        ("[log]\naccess_sample = 0", "2:17", &["1 to "]),
        ("[log]\naccess_slower_than = 250", "2:22", &["\"10s\""]),
        // What is there twice, or not at all.
        ("workers = 2\nworkers = 3", "2:1", &["duplicate key", "given once"]),
        ("[timeouts]\n[timeouts]", "2:2", &["duplicate key", "given once"]),
        ("[[backend]]\nurl = \"a\"\n[[backend]]\nurl = \"http://A:80\"", "4:7", &["given twice", "weight"]),
        (
            "[[backend]]\nurl = \"a\"\nname = \"x\"\n[[backend]]\nurl = \"b\"\nname = \"x\"",
            "6:8",
            &["\"x\" is given twice", "a name of its own"],
        ),
        ("[[backend]]\nurl = \"a\"\nname = \"b\"\n[[backend]]\nurl = \"b\"", "5:7", &["\"b\" is given twice"]),
        ("[[backend]]\nurl = \"a\"\nexpand = \"yes\"", "3:10", &["`backend.expand`", "true or false"]),
        (
            "[[backend]]\nurl = \"a\"\nexpand = true\n[[backend]]\nurl = \"b\"\nname = \"a/10.0.0.7:80\"",
            "6:8",
            &["\"a\" and \"a/10.0.0.7:80\"", "NAME/ADDRESS:PORT"],
        ),
        (
            "[[backend]]\nurl = \"a/[::1]:80\"\n[[backend]]\nurl = \"a\"\nexpand = true",
            "4:7",
            &["\"a/[::1]:80\" and \"a\"", "NAME/ADDRESS:PORT"],
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\n[[listener]]\naddress = \"127.0.0.1:1\"",
            "4:11",
            &["127.0.0.1:1 is given twice"],
        ),
        ("[[backend]]\nweight = 2", "1:1", &["[[backend]]", "no url", "url = "]),
        ("[[listener]]", "1:1", &["[[listener]]", "no address", "address = "]),
        // What is no TOML.
        ("workers 2", "1:9", &["workers 2", "workers = 2"]),
        ("workers =", "1:10", &["workers =", "such as workers = 2"]),
        ("handover = \"/run", "1:17", &["expected `\"`"]),
        ("\t[balance]\n\tqueue = x", "2:10", &["\tqueue = x", "\t        ^"]),
    ];
    each(rows, |(file, place, wanted)| {
        let message = complaint(file, &["127.0.0.1:9"]);
        let line = file.lines().nth(place.split(':').next().unwrap().parse::<usize>().unwrap() - 1).unwrap();
        assert!(message.contains(&format!("--> FILE:{place}\n")), "not at {place}: {message}");
        // Whole, unless a secret could be on it.
        let shown = message.lines().nth(3).unwrap().split_once(" | ").unwrap().1;
        let key = line.split_once('=').map_or("", |(key, _)| key);
        let is_shown = shown == line || shown.starts_with(key) && shown.contains("= *") && shown.len() == line.len();
        assert!(is_shown && message.contains('^'), "not {line:?}: {message}");
        for words in *wanted {
            assert!(message.contains(words), "no {words:?} in: {message}");
        }
    });
}

#[test]
fn the_message_is_laid_out_like_a_compilers() {
    let message = complaint("# é\nworkers = 2\n[timeouts]\nidel = \"4s\" # four\n", &[]);
    let expected = "\
error: there is no key `idel` in [timeouts]
 --> FILE:4:1
  |
4 | idel = **** * ****
  | ^^^^
  = the nearest is `idle`
";
    assert_eq!(message, expected);
    let message = complaint("[timeouts]\nidle = \"4\u{1}s\" # four\n", &[]);
    assert!(message.contains("\n2 | idle = \"4\u{fffd}s\" # four\n"), "{message}");
}

#[test]
fn what_may_be_the_secret_is_not_quoted() {
    let secret = "S3cretOfSixteen+more==";
    // The file, the place of what is wrong, and the line as it is shown.
    let rows = [
        // A slip on its line.
        ("[admin]\ntoken = \"SECRET\n", "2:32", "token = ***********************"),
        ("[admin]\ntoken = \"SECRET \"\n", "2:9", "token = *********************** *"),
        ("[admin]\ntoken = \"S3cretO\"\n", "2:9", "token = *********"),
        ("[admin]\ntoken = \"SECRET\"\ntoken = \"SECRET\"\n", "3:1", "token = ************************"),
        ("[admin]\ntoken = SECRET\n", "2:29", "token = **********************"),
        ("[admin]\ntoken = [\"SECRET\"]\n", "2:9", "token = **************************"),
        ("[admin]\ntoken = \"SECRET\" x\n", "2:34", "token = ************************ *"),
        ("[admin]\ntoken = \"${NOPE}SECRET\"\n", "2:10", "token = *******************************"),
        ("[admin]\ntoken = \"${SECRET}\"\n", "2:10", "token = ***************************"),
        ("[admin]\ntoken = \"${S3cretOfSixteen}\"\n", "2:10", "token = ********************"),
        ("[admin]\ntokne = \"SECRET\"\n", "2:1", "tokne = ************************"),
        ("[admin]\npassword = \"SECRET\"\n", "2:1", "******** * ************************"),
        ("[admin]\nname = \"SECRET\"\n", "2:1", "name = ************************"),
        ("[admin]\ntoken \"SECRET\"\n", "2:7", "***** ************************"),
        ("[admin]\ntoken: \"SECRET\"\n", "2:8", "****** ************************"),
        ("[admin]\n\"SECRET\"\n", "2:25", "************************"),
        // Another way to write it.
        ("[admin]\n\"token\" = \"SECRET\n", "2:34", "******* * ***********************"),
        ("admin.token = \"SECRET\n", "1:38", "admin.token = ***********************"),
        ("admin.tokne = \"SECRET\"\n", "1:7", "admin.tokne = ************************"),
        ("admin = { token = \"SECRET }\n", "1:44", "admin = * ***** * *********************** *"),
        (
            "admin = { listen = \"x\", token = \"SECRET\" }\n",
            "1:20",
            "admin = * ****** * **** ***** * ************************ *",
        ),
        (
            "admin = {\n  listen = \"127.0.0.1:1\",\n  token = \"SECRET,\n}\n",
            "3:35",
            "  token = ************************",
        ),
        ("[admin]\ntoken = \"\"\"\nSECRET\\q\"\"\"\n", "3:24", "***************************"),
        ("[admin]\ntoken = [\n  \"SECRET\n]\n", "3:26", "  ***********************"),
        // Somewhere else.
        ("= \"SECRET\"\n", "1:1", "= ************************"),
        ("tokne = \"SECRET\"\n", "1:1", "tokne = ************************"),
        ("[log]\ntoken = \"SECRET\"\n", "2:1", "token = ************************"),
        ("[log]\nlevel = \"info\" token = \"SECRET\"\n", "2:16", "level = ****** ***** * ************************"),
        ("admin = \"SECRET\"\n", "1:9", "admin = ************************"),
        ("[admin]\nlisten = \"SECRET\"\n", "2:10", "listen = ************************"),
        ("[admin]\nhosts = [\"SECRET\"]\n", "2:10", "hosts = **************************"),
        ("[admin]\nlisten = \"${SECRET}\"\n", "2:11", "listen = ***************************"),
    ];
    each(rows, |(file, place, shown)| {
        let message = complaint(&file.replace("SECRET", secret), &["127.0.0.1:9"]);
        assert!(message.contains(&format!("--> FILE:{place}\n")), "not at {place}: {message}");
        assert!(message.contains(&format!(" | {shown}\n")) && message.contains('^'), "not {shown:?}: {message}");
        assert!(!message.contains("S3cret"), "{message}");
    });
}

#[test]
fn a_variable_that_is_no_text_is_not_quoted_either() {
    for (file, named) in
        [("handover = \"${TB_A}\"\n", "TB_A is not UTF-8"), ("[admin]\ntoken = \"${TB_A}\"\n", "is not UTF-8")]
    {
        let file = TempFile::new(file);
        let mut command = command();
        command.args(["--check", "--config", file.path()]).env("TB_A", OsStr::from_bytes(b"S3cretOfSixteen\xff"));
        let (code, stdout, stderr) = told(&output(&mut command));
        assert_eq!((code, &*stdout), (Some(2), ""), "{stderr}");
        assert!(stderr.contains(named) && !stderr.contains("S3cret"), "{stderr}");
    }
}

#[test]
fn a_wrong_file_ends_the_program_with_2_and_a_word() {
    let wrong = TempFile::new("workers = 0");
    let (code, stdout, stderr) = told(&run(&["--config", wrong.path()]));
    assert_eq!((code, &*stdout), (Some(2), ""));
    assert!(stderr.starts_with("error: ") && stderr.contains(&format!("{}:1:11", wrong.path())), "{stderr}");

    let (code, _, stderr) = told(&run(&["--config", "/nowhere/at.toml"]));
    assert!(code == Some(2) && stderr.contains("can't read /nowhere/at.toml"), "{stderr}");

    let no_text = TempFile::new(b"workers = 2\nhandover = \"\xff\"\n");
    let (code, _, stderr) = told(&run(&["--config", no_text.path()]));
    assert!(code == Some(2) && stderr.contains(":2:13") && stderr.contains("UTF-8"), "{stderr}");
}

#[test]
fn without_a_backend_both_ways_to_name_one_are_told() {
    for flags in [&[][..], &["--check"]] {
        let message = complaint("workers = 2", flags);
        assert!(message.contains("--backend http://host:port") && message.contains("[[backend]]"), "{message}");
    }
    let file = TempFile::new("");
    let (code, stdout, stderr) = told(&run(&["--config", file.path()]));
    assert_eq!((code, &*stdout), (Some(2), ""), "{stderr}");
}

#[test]
fn flags_override_the_file() {
    let overridden = config(
        EVERYTHING,
        &["--workers", "4", "--idle-timeout", "60s", "--via", "on", "--trusted-proxy", "::/0", "--retry-status", "504"],
    );
    assert_eq!((overridden.workers, overridden.timeouts.idle.as_secs(), overridden.via), (4, 60, true));
    assert_eq!((overridden.trusted_proxies.len(), &overridden.retries.statuses[..]), (1, &[504][..]));
    assert!(overridden.trusted_proxies[0].contains("::2".parse().unwrap()));
    assert_eq!((overridden.backends.len(), overridden.listeners.len()), (2, 2), "what no flag names stays");
    assert_eq!(overridden.timeouts.head.as_secs(), 2);

    let elsewhere = config(EVERYTHING, &["--backend", "127.0.0.1:7", "127.0.0.1:8", "--listen", "127.0.0.1:0"]);
    let names: Vec<&str> = elsewhere.backends.iter().map(|backend| &*backend.name).collect();
    assert_eq!(names, ["127.0.0.1:7", "127.0.0.1:8"]);
    assert_eq!((elsewhere.listeners.len(), elsewhere.listeners[0].address.port()), (1, 0));
}

#[test]
fn a_flag_that_makes_the_file_impossible_is_refused() {
    let message = complaint(BACKEND, &["--longest-ejection", "500ms"]);
    assert!(message.contains("--shortest-ejection") && message.contains("--longest-ejection"), "{message}");
    let message = complaint(BACKEND, &["--request-burst-per-address", "5"]);
    assert!(message.contains("--requests-per-address N too"), "{message}");
    let burst = "[load]\nrequest_burst_per_address = 9\n";
    let rate = config(&format!("{BACKEND}{burst}"), &["--requests-per-address", "5"]).load.rate_per_address();
    assert_eq!(rate, Some(Rate { a_second: 5, burst: 9 }), "one from the file, one from a flag");
    let rate = config(BACKEND, &["--requests-per-address", "5"]).load.rate_per_address();
    assert_eq!(rate, Some(Rate { a_second: 5, burst: 5 }), "a burst of a second's worth, where none is given");
}

#[test]
fn one_backend_twice_is_refused_as_a_flag_too() {
    let output = run(&["127.0.0.1:9", "--backend", "http://127.0.0.1:9/"]);
    let (code, _, stderr) = told(&output);
    assert!(code == Some(2) && stderr.contains("http://127.0.0.1:9 is given twice"), "{stderr}");
}

#[test]
fn backends_are_asked_for_their_health_once_a_key_or_flag_says_so() {
    let path = |config: Config| config.health.map(|health| health.path.unwrap_or_default());
    let section = format!("{BACKEND}[health]\n");
    let with_path = format!("{BACKEND}[health]\npath = \"/up\"\n");
    each(
        [
            (BACKEND, &[][..], None),
            (&section, &[], Some("")),
            (&with_path, &[], Some("/up")),
            (BACKEND, &["--health-tcp"], Some("")),
            (BACKEND, &["--health-path", "/x"], Some("/x")),
            (BACKEND, &["--health-interval", "1s"], Some("")),
            (&with_path, &["--health-path", "/x"], Some("/x")),
            (&with_path, &["--health-tcp"], Some("")),
        ],
        |(file, flags, expected)| {
            assert_eq!(path(config(file, flags)).as_deref(), expected, "{file} {flags:?}");
        },
    );
    assert!(complaint(BACKEND, &["--health-tcp", "--health-path", "/x"]).contains("cannot be used with"));
}

// What is shown.

fn check(file: &str, flags: &[&str]) -> String {
    let file = TempFile::new(file);
    let (code, stdout, stderr) = told(&run(&[&["--check", "--config", file.path()], flags].concat()));
    assert_eq!((code, &*stderr), (Some(0), ""), "{file:?}", file = file.path());
    stdout
}

#[test]
fn what_check_shows_is_a_file_that_says_the_same() {
    let strange = format!("handover = '/a \"${{b}}\\${{'\n{BACKEND}").replace("${", "$${");
    let rows = [
        (BACKEND, &[][..]),
        (EVERYTHING, &[]),
        (&strange, &[]),
        (BACKEND, &["--health-tcp", "--listen", "[::1]:0", "--spare-timeout", "1500us", "--max-body", "1000"]),
        (BACKEND, &["--tunnel-timeout", "5000years", "--hash-key", "query:a b\u{1}\"", "--policy", "peak_ewma"]),
        (EVERYTHING, &["127.0.0.1:1", "--health-interval", "90m", "--head-bytes", "1000", "--trusted-proxy", "::/0"]),
    ];
    each(rows, |(file, flags)| {
        let shown = check(file, flags);
        assert_eq!(check(&shown, &[]), shown);
        let debug = |config: Config| format!("{config:?}").split(", sources: ").next().unwrap().to_owned();
        let secret = "token: Some(Token(not shown))";
        assert!(!shown.contains("0123456789abcdef"), "the secret is shown: {shown}");
        assert_eq!(debug(config(&shown, &[])), debug(config(file, flags)).replace(secret, "token: None"));
    });
    assert!(check(&strange, &[]).contains(r#"handover = "/a \"$${b}\\$${""#));
}

#[test]
fn check_shows_every_key_with_its_default() {
    let shown = check(BACKEND, &["--health-tcp"]);
    for (path, _, default) in threadbare::config::keys() {
        let name = path.rsplit('.').next().unwrap();
        let of_backend = ["backend.url", "backend.name", "listener.address", "workers"].contains(&path);
        let line = if of_backend {
            format!("\n{name} = ")
        } else if default.starts_with(|c: char| c.is_ascii_digit() || "\"[tf".contains(c)) && !default.contains("the ")
        {
            format!("\n{name} = {default}\n")
        } else {
            format!("\n# {name}: {default}\n")
        };
        assert!(format!("\n{shown}").contains(&line), "{path}: no {line:?} in {shown}");
    }
    assert!(check(BACKEND, &[]).contains("\n# [health]: backends are not asked\n"));
}

#[test]
fn check_needs_no_file_and_starts_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, stdout, stderr) = told(&run(&["--check", "--listen", &address, "http://nowhere.invalid"]));
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert!(
        stdout.contains(&format!("address = \"{address}\"")) && stdout.contains("url = \"http://nowhere.invalid\"")
    );
    let (code, stdout, stderr) = told(&run(&["--check"]));
    assert_eq!((code, &*stdout), (Some(2), ""), "there is nothing to be used again: {stderr}");
    assert!(stderr.contains("[[backend]]"), "{stderr}");
}

// The environment.

/// What `--check` says of this file, with these variables.
fn check_with(file: &str, variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let file = TempFile::new(file);
    let mut command = command();
    command.args(["--check", "--config", file.path()]).env_remove("TB_MISSING").envs(variables.iter().copied());
    told(&output(&mut command))
}

#[test]
fn strings_take_variables_from_the_environment() {
    let file = "handover = \"/run/${TB_A}-$${TB_A}-$$-${TB_B}.sock\"\n[forwarding]\ntrusted_proxies = [\"${TB_NET}\"]\n\
                [[backend]]\nurl = \"http://${TB_HOST}:80\"\n[timeouts]\nidle = '${TB_B}s'\n";
    let variables = [("TB_A", "a${x}"), ("TB_B", "7"), ("TB_HOST", "one"), ("TB_NET", "10.0.0.0/8")];
    let (code, stdout, stderr) = check_with(file, &variables);
    assert_eq!(code, Some(0), "{stderr}");
    for line in [
        "handover = \"/run/a$${x}-$${TB_A}-$$-7.sock\"",
        "url = \"http://one:80\"",
        "idle = \"7s\"",
        "trusted_proxies = [\"10.0.0.0/8\"]",
    ] {
        assert!(stdout.contains(&format!("{line}\n")), "no {line:?} in {stdout}");
    }
}

#[test]
fn a_variable_that_is_missing_or_misspelt_is_told_with_its_place() {
    let rows = [
        // The string; the column, the carets, and the message.
        ("/a-${TB_MISSING}", 16, "^^^^^^^^^^^^^", "TB_MISSING"),
        ("${TB_A}$${b}${TB_MISSING}-${TB_A}", 25, "^^^^^^^^^^^^^", "TB_MISSING"),
        ("${}", 13, "^^^", "not the name of a variable"),
        ("${a b}", 13, "^^^^^^", "not the name of a variable"),
        ("${TB_A", 13, "^^^^^^", "has no end"),
    ];
    each(rows, |(string, column, carets, words)| {
        let (code, stdout, stderr) = check_with(&format!("handover = \"{string}\"\n{BACKEND}"), &[("TB_A", "a")]);
        assert_eq!((code, &*stdout), (Some(2), ""), "{string}");
        assert!(stderr.contains(&format!(":1:{column}\n")), "not at {column}: {stderr}");
        assert!(stderr.contains(words) && stderr.contains("$${"), "{string}: {stderr}");
        assert!(stderr.contains(&format!(" {carets}")), "not {carets}: {stderr}");
    });
}

#[test]
fn the_level_of_the_environment_stands_between_file_and_flag() {
    let level = |file: &str, variable: &str, flags: &[&str]| {
        let file = TempFile::new(format!("{BACKEND}[log]\nlevel = \"{file}\""));
        let mut command = command();
        command.args(["--check", "--config", file.path()]).args(flags);
        if !variable.is_empty() {
            command.env("RUST_LOG", variable);
        }
        let (_, stdout, _) = told(&output(&mut command));
        stdout.lines().find_map(|line| line.strip_prefix("level = ")).unwrap().to_owned()
    };
    assert_eq!(level("warn", "", &[]), "\"warn\"");
    assert_eq!(level("warn", "debug", &[]), "\"debug\"");
    assert_eq!(level("warn", "debug", &["--log-level", "info"]), "\"info\"");
}

// Reload.

#[test]
fn a_reload_reads_the_file_again_and_lets_the_same_flags_override_it() {
    let file = TempFile::new(format!("{BACKEND}[timeouts]\nidle = \"1s\"\nhead = \"1s\"\n"));
    let old = Config::from_args(["--config", file.path(), "--head-timeout", "7s"]).unwrap();
    let other = "[[backend]]\nurl = \"http://127.0.0.1:10\"\n[timeouts]\nidle = \"2s\"\nhead = \"2s\"\n";
    fs::write(file.path(), other).unwrap();
    let new = old.reload().unwrap();
    assert_eq!((old.timeouts.idle.as_secs(), old.timeouts.head.as_secs()), (1, 7), "what is there never changes");
    assert_eq!((new.timeouts.idle.as_secs(), new.timeouts.head.as_secs()), (2, 7));
    assert_eq!(new.backends[0].name, "127.0.0.1:10");

    fs::write(file.path(), "workers = 0").unwrap();
    let error = new.reload().unwrap_err().to_string();
    assert!(error.contains(&format!("{}:1:11", file.path())), "{error}");

    fs::write(file.path(), BACKEND).unwrap();
    assert_eq!(new.reload().unwrap().timeouts.idle.as_secs(), 60, "a key that has left the file has its default again");
}

#[test]
fn without_a_file_there_is_nothing_to_read_again() {
    let error = Config::from_args(["127.0.0.1:9"]).unwrap().reload().unwrap_err().to_string();
    assert!(error.contains("no file to read again") && error.contains("--config"), "{error}");
}

#[test]
fn some_keys_need_a_restart_and_the_others_do_not() {
    let plain = config(BACKEND, &["--workers", "2"]);
    assert!(plain.needs_restart(&plain).is_empty());
    let other = config(EVERYTHING, &[]);
    let restart = ["workers", "max_connections", "handover", "admin.listen", "admin.anywhere"];
    assert_eq!(plain.needs_restart(&other), restart);
    let same_of_those = config(BACKEND, &["--workers", "2", "--via", "off", "--listen", "127.0.0.1:1", "127.0.0.1:2"]);
    assert!(plain.needs_restart(&same_of_those).is_empty());
}

// The program with a file.

#[test]
fn the_program_runs_from_its_file() {
    let backend = Backend::echo();
    let file = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n[[backend]]\nurl = \"{}\"\n", backend.url());
    let file = TempFile::new(file);
    let mut program = Program::listening(command().args(["--config", file.path()]));
    let mut client = Client::connect(program.address());
    client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response("GET").status, 200);
    program.terminate();
    assert_eq!(program.exit_code(), 0);
}

// The reference.

/// One row of `docs/CONFIGURATION.md`.
struct Row {
    path: String,
    flag: String,
    default: String,
    example: String,
}

fn reference() -> Vec<Row> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIGURATION.md")).unwrap();
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.trim_matches(['`', '[', ']']).to_owned();
        } else if line.starts_with("| `") {
            let line = line.replace("\\|", "\u{1}");
            let cells: Vec<String> =
                line.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect();
            let [name, flag, default, example, meaning] = &cells[..] else { panic!("not five cells: {line}") };
            assert!(meaning.len() > 10, "no meaning: {line}");
            let name = name.trim_matches('`');
            let path = if section == "Above all sections" { name.to_owned() } else { format!("{section}.{name}") };
            let flag = flag.trim_matches('`').trim_start_matches("--").split(' ').next().unwrap().to_owned();
            let [default, example] = [default, example].map(|cell| cell.trim_matches('`').to_owned());
            rows.push(Row { path, flag, default, example });
        }
    }
    rows
}

#[test]
fn the_reference_documents_every_key_and_no_other() {
    let documented: BTreeMap<String, (String, String)> =
        reference().into_iter().map(|row| (row.path, (row.flag, row.default))).collect();
    let real: BTreeMap<String, (String, String)> = threadbare::config::keys()
        .into_iter()
        .map(|(path, flag, default)| (path.to_owned(), (flag.to_owned(), default)))
        .collect();
    let [names_documented, names_real] = [&documented, &real].map(|keys| keys.keys().collect::<BTreeSet<_>>());
    assert_eq!(names_documented, names_real);
    for (path, (flag, default)) in real {
        assert_eq!(documented[&path], (flag, default), "flag and default of {path}");
    }
}

/// The keys without which this one is refused, as the file has them and as flags.
fn needed_for(path: &str) -> (&'static str, &'static [&'static str]) {
    match path {
        "load.request_burst_per_address" => ("requests_per_address = 1\n", &["--requests-per-address", "1"]),
        _ => ("", &[]),
    }
}

#[test]
fn every_example_of_the_reference_is_taken_and_is_not_the_default() {
    let rows = reference();
    assert!(rows.len() > 50, "the reference was not understood");
    each(rows, |row| {
        let (section, name) = row.path.rsplit_once('.').unwrap_or(("", &row.path));
        assert!(row.example.starts_with(&format!("{name} = ")), "{}: {}", row.path, row.example);
        let example = &row.example;
        let file = match section {
            "" => format!("{example}\n{BACKEND}"),
            "backend" if name == "url" => format!("[[backend]]\n{example}"),
            "backend" => format!("{BACKEND}{example}"),
            "listener" if name == "address" => format!("{BACKEND}[[listener]]\n{example}"),
            "listener" => format!("{BACKEND}[[listener]]\naddress = \"127.0.0.1:0\"\n{example}"),
            _ => format!("{BACKEND}[{section}]\n{}{example}", needed_for(&row.path).0),
        };
        let shown = check(&file, &[]);
        let is_shown = shown.contains(&format!("\n{example}\n")) || shown.starts_with(&format!("{example}\n"));
        assert_eq!(is_shown, row.path != "admin.token", "{shown}");
        assert_ne!(example.split_once(" = ").unwrap().1, row.default, "{}", row.path);
    });
}

/// What a flag says where the file says this.
fn as_flags(flag: &str, value: &str) -> Vec<String> {
    let plain = |value: &str| match value.trim() {
        "true" => "on".to_owned(),
        "false" => "off".to_owned(),
        text => text.trim_matches('"').to_owned(),
    };
    let items = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let values: Vec<&str> = items.map_or(vec![value], |items| items.split(',').collect());
    values.into_iter().flat_map(|value| [format!("--{flag}"), plain(value)]).collect()
}

#[test]
fn every_key_has_a_flag_that_says_the_same_except_a_secret_and_those_of_listeners_and_backends() {
    each(reference(), |row| {
        let (section, _) = row.path.rsplit_once('.').unwrap_or_default();
        if ["listener", "backend"].contains(&section) || row.path == "admin.token" {
            assert_eq!(row.flag, "", "{}", row.path);
            return;
        }
        let heading = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        let file = if heading.is_empty() {
            format!("{}\n{BACKEND}", row.example)
        } else {
            format!("{BACKEND}{heading}{}{}\n", needed_for(&row.path).0, row.example)
        };
        let words = as_flags(&row.flag, row.example.split_once(" = ").unwrap().1);
        let needed = needed_for(&row.path).1;
        let words: Vec<&str> = needed.iter().copied().chain(words.iter().map(String::as_str)).collect();
        assert_eq!(check(BACKEND, &words), check(&file, &[]), "{words:?}");
        assert_ne!(check(BACKEND, &words), check(BACKEND, needed), "{words:?}");
    });
}

#[test]
fn the_whole_example_of_the_reference_is_taken() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIGURATION.md")).unwrap();
    let mut examples = 0;
    for example in page.split("```toml\n").skip(1) {
        let mut with_all = command();
        let file = TempFile::new(example.split("```").next().unwrap());
        with_all.args(["--check", "--config", file.path()]).env("HOST", "one").env("HOME", "/root");
        let (code, _, stderr) = told(&output(&mut with_all));
        assert_eq!(code, Some(0), "{stderr}");
        examples += 1;
    }
    assert!(examples > 0);
}

//! Names: one backend with many addresses, or a backend at each of them, that come and go with the answers of a name
//! server. The name server here is a function of the test's; one test asks the system's own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use program::{Program, command};
use support::{Backend, BlackHole, Client, Gate, Response, TempFile, eventually, placed};
use threadbare::live::LookUp;
use threadbare::{Balancer, Config};

/// What it says may change at any moment.
#[derive(Clone, Default)]
struct NameServer {
    answer: Arc<Mutex<Option<Vec<SocketAddr>>>>,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    fn knowing(backends: &[&Backend]) -> NameServer {
        let names = NameServer::default();
        names.says(backends);
        names
    }

    fn says(&self, backends: &[&Backend]) {
        *self.answer.lock().unwrap() = Some(backends.iter().map(|backend| backend.address()).collect());
    }

    fn fails(&self) {
        *self.answer.lock().unwrap() = None;
    }

    /// Waits until what it says has been heard: the question after the next comes once the next answer has been used.
    fn is_heard(&self) {
        let before = self.asked.load(Ordering::SeqCst);
        eventually(|| self.asked.load(Ordering::SeqCst) >= before + 3, "the name is looked up again");
    }

    fn look_up(&self) -> LookUp {
        let NameServer { answer, asked } = self.clone();
        Arc::new(move |origin| {
            asked.fetch_add(1, Ordering::SeqCst);
            if origin.is_address() {
                return origin.resolve();
            }
            answer.lock().unwrap().clone().ok_or_else(|| io::Error::other("no such name, says the test"))
        })
    }
}

const POOL: &str = "[[backend]]\nname = \"pool\"\nurl = \"http://pool.test\"\nexpand = true\n";

fn config(text: &str, flags: &[&str]) -> Config {
    let file = TempFile::new(text);
    let mut words = vec!["--listen", "127.0.0.1:0", "--access-log", "off", "--config", file.path()];
    words.extend(flags);
    if !flags.contains(&"--resolve-interval") {
        words.extend(["--resolve-interval", "5ms"]);
    }
    Config::from_args(words).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn start(text: &str, flags: &[&str], names: &NameServer) -> Balancer {
    Balancer::start_with(Vec::new(), config(text, flags), names.look_up()).unwrap()
}

fn named(name: &'static str) -> Backend {
    Backend::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()))
}

/// Holds every answer back until the gate is open.
fn gated(name: &'static str, gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::start(move |connection| {
        while connection.read_request().is_some() {
            gate.pass();
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()).as_bytes());
        }
    })
}

fn ask(balancer: &Balancer, request: &str) -> Response {
    let mut client = Client::connect(balancer.address());
    client.send(request.as_bytes());
    let response = client.read_response("GET");
    drop(client);
    eventually(|| balancer.counters().connections == 0, "the client has left");
    response
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Who answers so many requests, one after the other.
fn answers(balancer: &Balancer, count: usize) -> Vec<String> {
    (0..count).map(|_| ask(balancer, GET).text()).collect()
}

fn share(answers: &[String], name: &str) -> usize {
    answers.iter().filter(|answer| *answer == name).count()
}

#[test]
fn every_address_of_a_name_is_a_backend_with_turns_of_its_own() {
    let (one, two, other) = (named("one"), named("two"), named("other"));
    let names = NameServer::knowing(&[&one, &two]);
    let weight = "weight = 2\n[[backend]]\nurl = ";
    let balancer = start(&format!("{POOL}{weight}\"{}\"\n", other.url()), &[], &names);
    let answers = answers(&balancer, 20);
    assert_eq!([share(&answers, "one"), share(&answers, "two"), share(&answers, "other")], [8, 8, 4]);
}

#[test]
fn without_expand_all_addresses_are_ways_to_one_backend() {
    let (refusing, two, other) = (Backend::refusing(), named("two"), named("other"));
    let names = NameServer::knowing(&[&refusing, &two]);
    let text = format!("[[backend]]\nurl = \"http://pool.test\"\n[[backend]]\nurl = \"{}\"\n", other.url());
    let balancer = start(&text, &[], &names);
    let answers = answers(&balancer, 20);
    assert_eq!([share(&answers, "two"), share(&answers, "other")], [10, 10]);
}

/// One backend, wherever its name is.
const ONE: &str = "[[backend]]\nname = \"one\"\nurl = \"http://one.test\"\n";

#[test]
fn where_a_name_has_moved_the_next_request_goes_there_however_many_connections_were_kept() {
    let (old, new) = (named("old"), named("new"));
    let names = NameServer::knowing(&[&old]);
    let balancer = start(ONE, &["--spare-timeout", "1h"], &names);
    assert_eq!(share(&answers(&balancer, 4), "old"), 4);
    names.says(&[&new, &old]);
    names.is_heard();
    assert_eq!(
        (share(&answers(&balancer, 4), "old"), old.accepted()),
        (4, 1),
        "it is still there: so is its connection"
    );
    names.says(&[&new]);
    names.is_heard();
    assert_eq!(share(&answers(&balancer, 4), "new"), 4);
    old.wait_until("nothing is kept to where nobody goes", |record| record.open == 0);
}

#[test]
fn what_is_under_way_when_a_name_moves_is_finished_and_its_connection_is_not_kept() {
    let gate = Gate::new();
    let (old, new) = (gated("old", &gate), named("new"));
    let names = NameServer::knowing(&[&old]);
    let balancer = start(ONE, &["--spare-timeout", "1h"], &names);
    let mut client = Client::connect(balancer.address());
    client.send(GET.as_bytes());
    old.wait_for_requests(1);
    names.says(&[&new]);
    names.is_heard();
    gate.open();
    assert_eq!(client.read_response("GET").text(), "old");
    client.send(GET.as_bytes());
    assert_eq!(client.read_response("GET").text(), "new");
    old.wait_until("its connection is closed", |record| record.open == 0);
}

#[test]
fn an_address_that_stays_keeps_its_connections_while_others_come_and_go() {
    let (stays, goes) = (named("stays"), named("goes"));
    let names = NameServer::knowing(&[&stays, &goes]);
    let balancer = start(ONE, &["--spare-timeout", "1h"], &names);
    for answer in [&[&stays][..], &[&stays, &goes], &[&stays], &[&stays, &goes]] {
        assert_eq!(share(&answers(&balancer, 4), "stays"), 4);
        names.says(answer);
        names.is_heard();
    }
    assert_eq!(share(&answers(&balancer, 4), "stays"), 4);
    assert_eq!(stays.accepted(), 1, "it was there all the time");
}

#[test]
fn what_is_under_way_is_kept_afterwards_if_its_address_has_stayed_and_not_if_it_has_only_come_back() {
    let gate = Gate::new();
    let (stays, returns) = (gated("stays", &gate), gated("returns", &gate));
    let names = NameServer::knowing(&[&returns, &stays]);
    let balancer = start(ONE, &["--spare-timeout", "1h"], &names);
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(balancer.address())).collect();
    clients[0].send(GET.as_bytes());
    returns.wait_for_requests(1);
    names.says(&[&stays]);
    names.is_heard();
    clients[1].send(GET.as_bytes());
    stays.wait_for_requests(1);
    for answer in [&[&stays, &returns][..], &[&stays], &[&stays, &returns]] {
        names.says(answer);
        names.is_heard();
    }
    gate.open();
    assert_eq!(clients[1].read_response("GET").text(), "stays");
    assert_eq!(clients[0].read_response("GET").text(), "returns");
    returns.wait_until("another machine may have that address now", |record| record.open == 0);
    drop(clients);
    assert_eq!(share(&answers(&balancer, 4), "stays"), 4);
    assert_eq!(stays.accepted(), 1, "it was there all the time");
}

#[test]
fn a_backend_is_not_held_to_account_for_an_address_while_it_has_another() {
    let (refusing, refusing_too, good) = (Backend::refusing(), Backend::refusing(), named("good"));
    for (second, status, ejections) in [(&good, 200, 0), (&refusing_too, 502, 1)] {
        let names = NameServer::knowing(&[&refusing, second]);
        let balancer = start("[[backend]]\nurl = \"http://pool.test\"\n", &["--failures", "1"], &names);
        assert_eq!(ask(&balancer, GET).status, status);
        assert_eq!(balancer.figures().backends.remove(0).balance.ejections, ejections, "{status}");
    }
}

#[test]
fn who_leaves_while_one_address_after_the_other_is_silent_tells_of_the_backend_all_the_same() {
    let Some(holes) = (0..3).map(|_| BlackHole::open()).collect::<Option<Vec<BlackHole>>>() else { return };
    let names = NameServer::default();
    *names.answer.lock().unwrap() = Some(holes.iter().map(BlackHole::address).collect());
    let flags = ["--connect-timeout", "300ms", "--failures", "1"];
    let balancer = start("[[backend]]\nurl = \"http://pool.test\"\n", &flags, &names);
    let mut client = Client::connect(balancer.address());
    client.send(GET.as_bytes());
    eventually(|| balancer.counters().dials == 2, "the second address is tried");
    drop(client);
    let ejections = || balancer.figures().backends.remove(0).balance.ejections;
    eventually(|| ejections() == 1, "it is ejected");
}

#[test]
fn what_an_address_does_that_is_gone_is_not_held_against_where_the_name_is_now() {
    let Some(hole) = BlackHole::open() else { return };
    let good = named("good");
    let names = NameServer::default();
    *names.answer.lock().unwrap() = Some(vec![hole.address()]);
    let flags = ["--connect-timeout", "1s", "--failures", "1"];
    let balancer = start("[[backend]]\nurl = \"http://pool.test\"\n", &flags, &names);
    let mut client = Client::connect(balancer.address());
    client.send(GET.as_bytes());
    eventually(|| balancer.counters().dials == 1, "the old address is tried");
    names.says(&[&good]);
    assert_eq!(client.read_response("GET").status, 504, "{}", client.story());
    assert_eq!(balancer.figures().backends.remove(0).balance.ejections, 0);
}

#[test]
fn what_state_backup_and_limit_say_holds_for_each_address() {
    let (one, two, other) = (named("one"), named("two"), named("other"));
    let names = NameServer::knowing(&[&one, &two]);
    for (said, wanted) in [("state = \"drain\"", [0, 0, 10]), ("backup = true", [0, 0, 10])] {
        let text = format!("{POOL}{said}\n[[backend]]\nurl = \"{}\"\n", other.url());
        let balancer = start(&text, &[], &names);
        let answers = answers(&balancer, 10);
        assert_eq!([share(&answers, "one"), share(&answers, "two"), share(&answers, "other")], wanted, "{said}");
    }
    let gate = Gate::new();
    let (one, two) = (gated("one", &gate), gated("two", &gate));
    names.says(&[&one, &two]);
    let balancer = start(&format!("{POOL}max_in_flight = 2\n"), &[], &names);
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(balancer.address())).collect();
    clients.iter_mut().for_each(|client| client.send(GET.as_bytes()));
    eventually(|| balancer.counters().in_flight == 10, "all have asked");
    eventually(|| one.requests().len() + two.requests().len() == 4, "two at each have been passed on");
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read_response("GET").status, 200);
    }
    assert!(one.accepted() <= 2 && two.accepted() <= 2, "{} and {}", one.accepted(), two.accepted());
}

#[test]
fn addresses_come_and_go_while_those_that_stay_keep_everything() {
    let gate = Gate::new();
    let (stays, goes, comes) = (named("stays"), gated("goes", &gate), named("comes"));
    let names = NameServer::knowing(&[&stays, &goes]);
    let balancer = start(POOL, &["--slow-start", "0s"], &names);
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(balancer.address())).collect();
    clients.iter_mut().for_each(|client| client.send(GET.as_bytes()));
    stays.wait_for_requests(1);
    goes.wait_for_requests(1);
    names.says(&[&comes, &stays]);
    names.is_heard();
    let answers: Vec<String> = (0..10)
        .map(|_| {
            let mut client = Client::connect(balancer.address());
            client.send(GET.as_bytes());
            client.read_response("GET").text()
        })
        .collect();
    assert_eq!([share(&answers, "stays"), share(&answers, "comes")], [5, 5]);
    assert_eq!(stays.accepted(), 1, "it has kept its connection");
    gate.open();
    let mut begun: Vec<String> = clients.iter_mut().map(|client| client.read_response("GET").text()).collect();
    begun.sort();
    assert_eq!(begun, ["goes", "stays"], "what had begun is finished");
    goes.wait_until("and then nothing is kept", |record| record.open == 0);
    assert_eq!(goes.requests().len(), 1);
}

#[test]
fn whoever_waits_in_the_queue_goes_to_the_addresses_that_there_are_now() {
    let (first_gate, second_gate) = (Gate::new(), Gate::new());
    let (full, new) = (gated("full", &first_gate), gated("new", &second_gate));
    let names = NameServer::knowing(&[&full]);
    let balancer = start(&format!("{POOL}max_in_flight = 1\n"), &[], &names);
    let mut clients = Vec::new();
    for nth in 0..6 {
        let mut client = Client::connect(balancer.address());
        client.send(format!("GET /{nth} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        clients.push(client);
        eventually(|| placed(&balancer) == nth + 1, "this one waits before the next one comes");
    }
    full.wait_for_requests(1);
    names.says(&[&full, &new]);
    new.wait_for_requests(1);
    names.says(&[&new]);
    names.is_heard();
    first_gate.open();
    assert_eq!(clients[0].read_response("GET").text(), "full", "what had begun is finished");
    second_gate.open();
    for client in &mut clients[1..] {
        assert_eq!(client.read_response("GET").text(), "new");
    }
    let targets: Vec<String> = new.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/1", "/2", "/3", "/4", "/5"], "first come, first served, as before");
    assert_eq!(full.requests().len(), 1, "nobody is sent to an address that is gone");
}

#[test]
fn another_order_of_the_same_addresses_changes_nothing() {
    let (one, two) = (named("one"), named("two"));
    let names = NameServer::knowing(&[&one, &two]);
    let balancer = start(POOL, &[], &names);
    let mut all = answers(&balancer, 10);
    for turned in [[&two, &one, &two], [&one, &two, &one]] {
        names.says(&turned);
        names.is_heard();
        all.extend(answers(&balancer, 10));
    }
    assert_eq!([share(&all, "one"), share(&all, "two")], [15, 15]);
    assert_eq!((one.accepted(), two.accepted()), (1, 1));
}

#[test]
fn a_look_up_that_fails_or_finds_nothing_leaves_the_last_good_answer() {
    let (one, two) = (named("one"), named("two"));
    let names = NameServer::knowing(&[&one, &two]);
    let balancer = start(POOL, &[], &names);
    assert_eq!(share(&answers(&balancer, 10), "one"), 5);
    names.fails();
    names.is_heard();
    assert_eq!(share(&answers(&balancer, 10), "one"), 5);
    names.says(&[]);
    names.is_heard();
    assert_eq!(share(&answers(&balancer, 10), "one"), 5);
    assert_eq!((one.accepted(), two.accepted()), (1, 1));
}

#[test]
fn a_name_without_an_address_is_down_until_it_has_one_and_never_stops_the_start() {
    let backend = named("found");
    for expand in ["", "expand = true\n"] {
        let names = NameServer::default();
        let text = format!("[[backend]]\nurl = \"http://pool.test\"\n{expand}");
        let balancer = start(&text, &["--health-tcp", "--health-interval", "5ms"], &names);
        let answer = ask(&balancer, GET);
        assert_eq!(answer.status, 503, "{expand}: {answer:?}");
        assert!(answer.text().contains("no-backend"), "{expand}: {answer:?}");
        names.says(&[&backend]);
        eventually(|| ask(&balancer, GET).status == 200, "it is found");

        // Beside another it costs nobody a try, and does not count among those that may be ejected.
        let names = NameServer::default();
        let other = named("other");
        let balancer = start(&format!("{text}[[backend]]\nurl = \"{}\"\n", other.url()), &[], &names);
        assert_eq!(share(&answers(&balancer, 10), "other"), 10, "{expand}");
    }
}

#[test]
fn a_resolver_that_hangs_holds_up_nobody_else() {
    let (other, found) = (named("other"), named("found"));
    let gate = Gate::new();
    let look_up: LookUp = {
        let (gate, address) = (gate.clone(), found.address());
        Arc::new(move |origin| {
            if origin.is_address() {
                return origin.resolve();
            }
            gate.pass();
            Ok(vec![address])
        })
    };
    let text = format!("{POOL}[[backend]]\nurl = \"{}\"\n", other.url());
    let settings = config(&text, &["--resolve-interval", "1h"]);
    let balancer = Balancer::start_with(Vec::new(), settings.clone(), look_up).unwrap();
    assert_eq!(share(&answers(&balancer, 10), "other"), 10, "it has started, and the name is down");
    balancer.reload(settings).unwrap();
    gate.open();
    eventually(|| ask(&balancer, GET).text() == "found", "an answer that was late counts all the same");
}

#[test]
fn a_name_that_takes_long_not_to_be_found_is_not_asked_for_twice_before_the_others_are_asked() {
    const INTERVAL: Duration = Duration::from_millis(20);
    let good = named("good");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let look_up: LookUp = {
        let (asked, address) = (Arc::clone(&asked), good.address());
        Arc::new(move |origin| {
            let is_good = origin.to_string().contains("one.test");
            asked.lock().unwrap().push(if is_good { "good" } else { "lost" });
            if is_good {
                return Ok(vec![address]);
            }
            thread::sleep(2 * INTERVAL); // so that the good one is due by now
            thread::current().unpark(); // and whoever asks is woken before his time, as by a reload
            Err(io::Error::other("no such name, says the test"))
        })
    };
    let text = format!("[[backend]]\nname = \"lost\"\nurl = \"http://lost.test\"\n{ONE}");
    let settings = config(&text, &["--resolve-interval", "20ms"]);
    let balancer = Balancer::start_with(Vec::new(), settings, look_up).unwrap();
    eventually(|| asked.lock().unwrap().len() >= 12, "they are asked for again and again");
    drop(balancer);
    let asked = asked.lock().unwrap()[2..].to_vec(); // the start asks for both at once
    assert!(asked.windows(2).all(|two| two != ["lost"; 2]), "{asked:?}");
}

#[test]
fn a_reload_changes_how_often_names_are_looked_up_from_then_on() {
    let (old, new) = (named("old"), named("new"));
    let names = NameServer::knowing(&[&old]);
    let balancer = start(ONE, &["--resolve-interval", "1h"], &names);
    assert_eq!(ask(&balancer, GET).text(), "old");
    names.says(&[&new]);
    balancer.reload(config(ONE, &["--resolve-interval", "5ms"])).unwrap();
    eventually(|| ask(&balancer, GET).text() == "new", "the new interval holds, however long the old one was");
}

#[test]
fn a_name_that_a_reload_has_brought_gets_an_address_as_soon_as_there_is_one_however_long_the_interval_is() {
    let (other, found) = (named("other"), named("found"));
    let names = NameServer::default();
    let text = format!("[[backend]]\nurl = \"{}\"\n", other.url());
    let flags = ["--resolve-interval", "1h", "--slow-start", "0s"];
    let balancer = start(&text, &flags, &names);
    balancer.reload(config(&format!("{text}{ONE}"), &flags)).unwrap();
    assert_eq!(share(&answers(&balancer, 4), "other"), 4, "it has none yet");
    names.says(&[&found]);
    eventually(|| ask(&balancer, GET).text() == "found", "it is asked for again");
    let asked = names.asked.load(Ordering::SeqCst);
    balancer.reload(config(&format!("{text}{ONE}weight = 2\n"), &flags)).unwrap();
    assert_eq!(share(&answers(&balancer, 6), "found"), 4);
    assert_eq!(names.asked.load(Ordering::SeqCst), asked, "no sooner than the interval says, once it has one");
}

/// `POOL`, and who may give orders.
fn ordered(names: &NameServer) -> Balancer {
    let admin = "[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"0123456789abcdef\"\n";
    start(&format!("{POOL}{admin}"), &["--slow-start", "0s"], names)
}

/// What comes of an order for the pool, or for one of its addresses.
fn order(balancer: &Balancer, of: Option<&Backend>, word: &str) -> String {
    let name = of.map_or("pool".to_owned(), |backend| format!("pool/{}", backend.address()));
    let token = "Authorization: Bearer 0123456789abcdef";
    let mut client = Client::connect(balancer.admin_address().unwrap());
    client.send(format!("POST /backends/{name}/{word} HTTP/1.1\r\nHost: localhost\r\n{token}\r\n\r\n").as_bytes());
    let answer = client.read_response("POST").text();
    answer.strip_prefix(&format!("{name}: ")).unwrap_or_else(|| panic!("{answer}")).trim_end().to_owned()
}

#[test]
fn an_order_for_a_name_holds_for_addresses_that_are_yet_to_come_whatever_each_of_the_others_was_told_before() {
    let (one, two, late) = (named("one"), named("two"), named("late"));
    let names = NameServer::knowing(&[&one, &two]);
    let balancer = ordered(&names);
    for each in [Some(&one), Some(&two), None] {
        assert_eq!(order(&balancer, each, "drain"), "drain");
        assert_eq!(order(&balancer, each, "drain"), "drain, as before");
    }
    names.says(&[&one, &two, &late]);
    names.is_heard();
    assert_eq!(ask(&balancer, GET).status, 503, "it drains as well");
    assert_eq!(order(&balancer, Some(&late), "ready"), "ready");
    assert_eq!(share(&answers(&balancer, 4), "late"), 4);
    assert_eq!(order(&balancer, None, "drain"), "drain");
    assert_eq!(ask(&balancer, GET).status, 503);
    assert_eq!(order(&balancer, None, "ready"), "ready");
    assert_eq!(order(&balancer, None, "ready"), "ready, as before");
    assert_eq!(share(&answers(&balancer, 6), "late"), 2);
}

#[test]
fn what_was_ordered_for_an_address_ends_when_it_leaves() {
    let (goes, stays) = (named("goes"), named("stays"));
    let names = NameServer::knowing(&[&goes, &stays]);
    let balancer = ordered(&names);
    assert_eq!(order(&balancer, Some(&goes), "drain"), "drain");
    names.says(&[&stays]);
    names.is_heard();
    assert_eq!(order(&balancer, None, "ready"), "ready, as before");
    names.says(&[&goes, &stays]);
    names.is_heard();
    assert_eq!(share(&answers(&balancer, 4), "goes"), 2);
    assert_eq!(order(&balancer, Some(&goes), "drain"), "drain");
    assert_eq!(share(&answers(&balancer, 4), "goes"), 0);
}

#[test]
fn a_client_finds_its_backend_by_its_cookie_after_other_addresses_have_come_and_gone() {
    let backends = [named("a"), named("b"), named("c")];
    let [a, b, c] = &backends;
    let names = NameServer::knowing(&[a, b]);
    let balancer = start(POOL, &["--sticky-cookie", "tie", "--slow-start", "0s"], &names);
    let first = ask(&balancer, GET);
    let cookie = first.head.get("Set-Cookie").unwrap().split(';').next().unwrap().to_owned();
    let tied = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
    let (its, gone) = if first.text() == "a" { (a, b) } else { (b, a) };
    for answer in [vec![its, c], vec![c, its, gone], vec![its]] {
        names.says(&answer);
        names.is_heard();
        for _ in 0..4 {
            assert_eq!(ask(&balancer, &tied).text(), first.text());
        }
    }
    names.says(&[c]);
    names.is_heard();
    let elsewhere = ask(&balancer, &tied);
    assert_eq!(elsewhere.text(), "c");
    assert!(elsewhere.head.get("Set-Cookie").is_some(), "it is tied anew");
}

#[test]
fn a_key_moves_only_if_its_address_goes() {
    let backends = [named("a"), named("b"), named("c"), named("d")];
    let names = NameServer::knowing(&backends.each_ref());
    let balancer = start(POOL, &["--policy", "hash", "--hash-key", "path"], &names);
    let owners = || -> Vec<String> {
        let request = |key| format!("GET /{key} HTTP/1.1\r\nHost: a\r\n\r\n");
        (0..60).map(|key| ask(&balancer, &request(key)).text()).collect()
    };
    let before = owners();
    assert!(["a", "b", "c", "d"].iter().all(|name| share(&before, name) > 3), "{before:?}");
    names.says(&[&backends[3], &backends[0], &backends[1]]);
    names.is_heard();
    for (key, (before, after)) in before.iter().zip(owners()).enumerate() {
        assert!(if before == "c" { after != "c" } else { *before == after }, "/{key} was {before}'s and is {after}'s");
    }
    names.says(&backends.each_ref());
    names.is_heard();
    // Its share grows slowly, but whatever else it has not got is where it was.
    assert!(before.iter().zip(owners()).all(|(before, after)| *before == after || before == "c"));
}

#[test]
fn each_address_is_checked_by_itself() {
    let is_well = Arc::new(AtomicBool::new(false));
    let moody = {
        let is_well = Arc::clone(&is_well);
        Backend::start(move |connection| {
            while let Some(request) = connection.read_request() {
                let status = if request.target == "/healthz" && !is_well.load(Ordering::SeqCst) { 500 } else { 200 };
                connection.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\nmoody").as_bytes());
            }
        })
    };
    let (sound, late) = (named("sound"), named("late"));
    let names = NameServer::knowing(&[&moody, &sound]);
    let flags = ["--health-path", "/healthz", "--health-interval", "5ms", "--health-fall", "2", "--slow-start", "0s"];
    let balancer = start(POOL, &flags, &names);
    eventually(|| share(&answers(&balancer, 4), "sound") == 4, "the sick address is out, and only that");
    names.says(&[&moody, &sound, &late]);
    names.is_heard();
    let answers_now = answers(&balancer, 10);
    assert_eq!(share(&answers_now, "moody"), 0, "{answers_now:?}: what is known of it has stayed");
    late.wait_until("the new address is checked too", |record| {
        record.requests.iter().any(|request| request.target == "/healthz")
    });
    is_well.store(true, Ordering::SeqCst);
    eventually(|| share(&answers(&balancer, 6), "moody") == 2, "it is back");
}

#[test]
fn an_address_that_comes_later_starts_slowly_and_those_of_the_start_do_not() {
    let (first, second, late) = (named("first"), named("second"), named("late"));
    let names = NameServer::knowing(&[&first, &second]);
    let balancer = start(POOL, &["--slow-start", "1h"], &names);
    assert_eq!(share(&answers(&balancer, 10), "first"), 5);
    names.says(&[&first, &second, &late]);
    names.is_heard();
    let answers = answers(&balancer, 300);
    let [a, b, c] = ["first", "second", "late"].map(|name| share(&answers, name));
    // A tenth of its hundred turns; the rest goes to the others alike.
    assert!((5..=15).contains(&c), "{c} of 300");
    assert!(a.abs_diff(b) <= 10, "{a} and {b}");
}

#[test]
fn a_reload_keeps_what_is_known_of_a_pool() {
    let (one, two, other) = (named("one"), named("two"), named("other"));
    let names = NameServer::knowing(&[&one, &two]);
    // It is looked up at the start, and then not for a while.
    let balancer = start(POOL, &["--resolve-interval", "1h"], &names);
    assert_eq!(share(&answers(&balancer, 4), "one"), 2);
    names.fails();
    let text = format!("{POOL}weight = 2\n[[backend]]\nurl = \"{}\"\n", other.url());
    balancer.reload(config(&text, &["--resolve-interval", "1h"])).unwrap();
    let more = answers(&balancer, 10);
    assert_eq!([share(&more, "one"), share(&more, "two"), share(&more, "other")], [4, 4, 2]);
    assert_eq!((one.accepted(), two.accepted()), (1, 1), "they are the same backends");
    let text = "[[backend]]\nname = \"pool\"\nurl = \"http://pool.test\"\n";
    balancer.reload(config(text, &["--resolve-interval", "1h"])).unwrap();
    let answers = answers(&balancer, 4);
    assert!(share(&answers, "one") == 4 || share(&answers, "two") == 4, "one backend, and one way to it: {answers:?}");
    assert_eq!(names.asked.load(Ordering::SeqCst), 2, "at the start, and for the other backend's address");
}

#[test]
fn the_systems_own_resolver_is_asked_and_each_backend_is_called_by_name_and_address() {
    let backend = named("here");
    let port = backend.address().port();
    for (url, name) in [
        (format!("http://localhost:{port}/prefix"), format!("localhost:{port}/prefix/127.0.0.1:{port}")),
        (format!("http://127.0.0.1:{port}"), format!("127.0.0.1:{port}/127.0.0.1:{port}")),
    ] {
        let file = TempFile::new(format!(
            "[balance]\nresolve_interval = \"1ms\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[backend]]\nurl = \"{url}\"\nexpand = true\n"
        ));
        let mut program = Program::listening(command().args(["--config", file.path()]));
        for _ in 0..4 {
            let mut client = Client::connect(program.address());
            client.send(GET.as_bytes());
            // The name may have an address of IPv6 as well, where nobody listens.
            assert_eq!(client.read_response("GET").text(), "here");
        }
        program.stdout.wait_for(&name);
        program.terminate();
        assert_eq!(program.exit_code(), 0);
        let said = program.stderr.so_far();
        assert!(!said.contains("joins") && !said.contains("leaves"), "nothing has changed: {said}");
    }
}

//! The glass box in a real browser: what it shows, to whom, and how fast.
//!
//! Each test says so where no Chromium is installed. `AXE_CORE` names the `axe.min.js` of axe-core, by which the page's
//! accessibility is judged; `BLESS_PICTURES=1` draws the pictures in `docs/images` anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

#[path = "support/browser.rs"]
mod browser;
#[path = "support/program.rs"]
mod program;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use browser::Browser;
use program::{Program, command};
use rustix::process::Signal;
use serde_json::Value;
use sha2::{Digest, Sha256};
use support::Client;
use threadbare::demo::DemoBackend;

const PAGE: &str = include_str!("../src/admin/glass_box.html");

/// The page may have so many bytes.
const MOST: usize = 40_000;

const DARK: (&str, &str) = ("prefers-color-scheme", "dark");
const LIGHT: (&str, &str) = ("prefers-color-scheme", "light");
const STILL: (&str, &str) = ("prefers-reduced-motion", "reduce");

/// A balancer with its page, before two backends that do as they are told.
struct House {
    program: Program,
    page: String,
    backends: Vec<SocketAddr>,
}

impl House {
    fn start() -> House {
        let backends = DemoBackend::bind(&[0, 0]).unwrap_or_else(|(address, error)| panic!("{address}: {error}"));
        let mut flags: Vec<String> = ["--admin", "127.0.0.1:0", "--access-log", "off"].map(str::to_owned).into();
        flags.extend(backends.iter().map(DemoBackend::url));
        let addresses = backends.iter().map(DemoBackend::address).collect();
        backends.into_iter().for_each(|backend| backend.serve().unwrap());
        let program = Program::start(flags);
        let page = page_of(&program);
        House { program, page, backends: addresses }
    }

    /// Tells a backend how to feel.
    fn tell(&self, nth: usize, what: &str) {
        let mut client = Client::connect(self.backends[nth]);
        client.send(format!("POST /demo/{what} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(client.read_response("POST").status, 200, "{what}");
    }

    fn traffic(&self) -> Traffic {
        Traffic::start(self.program.address(), 3)
    }
}

/// Where the page is, as the log tells it.
fn page_of(program: &Program) -> String {
    let line = program.stderr.wait_for("admin listener is at http://");
    let (_, rest) = line.split_once(" is at ").unwrap();
    rest.to_owned()
}

/// Clients that ask, wait for the answer, and ask again, until this is dropped.
struct Traffic {
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Traffic {
    fn start(address: SocketAddr, clients: usize) -> Traffic {
        let is_over = Arc::<AtomicBool>::default();
        let ask = |is_over: Arc<AtomicBool>| {
            let mut targets = ["/", "/cart?item=7", "/orders/1829", "/logo.svg"].iter().cycle();
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(mut stream) = TcpStream::connect(address) else { return };
                    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
                    let mut buffer = [0; 1024];
                    for target in targets.by_ref().take(50) {
                        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
                        let answered = stream.write_all(request.as_bytes()).and_then(|()| stream.read(&mut buffer));
                        if !answered.is_ok_and(|n| n > 0) || is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        thread::sleep(Duration::from_millis(40)); // as a person would, who reads before asking on
                    }
                }
            }
        };
        let clients = (0..clients).map(|_| thread::spawn(ask(Arc::clone(&is_over)))).collect();
        Traffic { is_over, clients }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

/// A browser that shows the page, with numbers on it; None where there is no browser.
fn watching(house: &House, features: &[(&str, &str)]) -> Option<Browser> {
    let mut browser = Browser::start()?;
    browser.look(1280, 900, features);
    browser.open(&house.page);
    browser.wait_for("document.body.className === 'live'", "the page lives");
    Some(browser)
}

fn number(browser: &mut Browser, id: &str) -> f64 {
    let text = browser.text_of(id).replace(',', "");
    text.parse().unwrap_or_else(|_| panic!("#{id} is {text:?}"))
}

const HAS_DOTS: &str = "document.querySelectorAll('.dot').length > 2";

// The file.

#[test]
fn the_page_is_one_small_file_that_asks_nobody_else() {
    assert!(PAGE.len() < MOST, "{} bytes", PAGE.len());
    assert_eq!((PAGE.matches("<script>").count(), PAGE.matches("<style>").count()), (1, 1));
    for (words, why) in [
        ("innerHTML", "values are set as text"),
        ("outerHTML", "values are set as text"),
        ("insertAdjacentHTML", "values are set as text"),
        ("document.write", "values are set as text"),
        ("DOMParser", "values are set as text"),
        ("eval(", "no text is run"),
        ("src=", "nothing is loaded"),
        ("@import", "nothing is loaded"),
        ("url(", "nothing is loaded"),
        ("https://", "nobody else is named"),
        (" style=\"", "styles stand in one place"),
        (" onclick=\"", "scripts stand in one place"),
    ] {
        assert!(!PAGE.contains(words), "{words}: {why}");
    }
    for (at, _) in PAGE.match_indices("http://") {
        let behind = &PAGE[at + "http://".len()..];
        let is_name = ["www.w3.org/2000/svg'", "127.0.0.1:8080'", "'"].iter().any(|name| behind.starts_with(name));
        assert!(is_name, "it names {:?}", behind.chars().take(40).collect::<String>());
    }
}

fn get(url: &str) -> support::Response {
    let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut client = Client::connect(authority.parse().unwrap());
    client.send(format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes());
    client.read_response("GET")
}

#[test]
fn only_the_script_and_the_style_that_we_wrote_may_run() {
    let house = House::start();
    let response = get(&house.page);
    let policy = response.head.fields.get("Content-Security-Policy").unwrap().to_owned();
    let page = response.text();
    let hash_of = |tag: &str| {
        let (_, rest) = page.split_once(&format!("<{tag}>")).unwrap();
        let (inside, _) = rest.split_once(&format!("</{tag}>")).unwrap();
        format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(inside)))
    };
    let expected = [
        "default-src 'none'".to_owned(),
        "connect-src 'self'".to_owned(),
        format!("script-src {}", hash_of("script")),
        format!("style-src {}", hash_of("style")),
        "frame-ancestors 'none'".to_owned(),
        "base-uri 'none'".to_owned(),
        "form-action 'none'".to_owned(),
    ];
    let mut said: Vec<&str> = policy.split(';').map(str::trim).collect();
    said.sort_unstable();
    let mut wanted: Vec<&str> = expected.iter().map(String::as_str).collect();
    wanted.sort_unstable();
    assert_eq!(said, wanted);
}

#[test]
fn every_chapter_that_the_page_links_to_is_served() {
    let house = House::start();
    let links: Vec<&str> = PAGE.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let in_script = PAGE.split(".', '").skip(1).filter_map(|rest| rest.split_once("'],"));
    let in_script = in_script.map(|(page, _)| format!("docs/{page}.md"));
    let links: Vec<String> = links.into_iter().map(str::to_owned).chain(in_script).collect();
    assert!(links.len() > 14, "{links:?}");
    for link in links {
        let response = get(&format!("{}{link}", house.page));
        assert_eq!(response.status, 200, "{link}");
        assert!(!response.body.is_empty(), "{link}");
    }
}

// In the browser.

/// What axe-core has against the page as it is. The dots are taken away first: it can't judge what lies below them.
fn violations(browser: &mut Browser, axe: &str) -> Vec<String> {
    browser.value(axe);
    browser.value("document.getElementById('rails').style.display = 'none'; 0");
    let judged = browser.value("axe.run()");
    browser.value("document.getElementById('rails').style.display = ''; 0");
    let all = judged["violations"].as_array().unwrap().iter();
    let mut complaints: Vec<String> = all.map(Value::to_string).collect();
    // Contrast that it could not measure has not been shown to be enough; a dash is too short for it.
    for rule in judged["incomplete"].as_array().unwrap().iter().filter(|rule| rule["id"] == "color-contrast") {
        let unknown = rule["nodes"].as_array().unwrap().iter().filter(|node| !node.to_string().contains("too short"));
        complaints.extend(unknown.map(Value::to_string));
    }
    complaints
}

/// The text of axe-core; None, with a word on standard output, where nobody has said where it is.
fn axe() -> Option<String> {
    let Some(path) = std::env::var_os("AXE_CORE") else {
        println!("not judged by axe-core: AXE_CORE does not say where its axe.min.js is");
        return None;
    };
    Some(fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

#[test]
fn it_loads_without_a_complaint_in_both_themes_at_1280_and_400_pixels() {
    let house = House::start();
    let Some(mut browser) = Browser::start() else { return };
    let _traffic = house.traffic();
    let axe = axe();
    for theme in [LIGHT, DARK] {
        for width in [1280, 400] {
            let case = format!("{} at {width} px", theme.1);
            browser.look(width, 900, &[theme]);
            browser.open(&house.page);
            browser.wait_for(HAS_DOTS, "requests travel");
            let wide = browser.value("document.documentElement.scrollWidth - innerWidth");
            assert!(wide.as_f64().unwrap() <= 0.0, "{case}: {wide} px too wide");
            let background = browser.text("getComputedStyle(document.body).backgroundColor");
            let first = background.trim_start_matches("rgb(").split(',').next().unwrap().parse::<u8>().unwrap();
            assert_eq!(first < 128, theme == DARK, "{case}: the page is {background}");
            if let Some(axe) = &axe {
                let against = violations(&mut browser, axe);
                assert!(against.is_empty(), "{case}: {against:#?}");
            }
        }
    }
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let outside: Vec<String> =
        browser.requests().into_iter().filter(|url| !url.starts_with(&house.page) && url != "about:blank").collect();
    assert!(outside.is_empty(), "{outside:?}");
}

#[test]
fn it_moves_when_traffic_moves() {
    let house = House::start();
    let Some(mut browser) = watching(&house, &[LIGHT]) else { return };
    browser.wait_for("document.querySelectorAll('#sum dd').length > 8", "the books are open");
    let answered = "+document.querySelectorAll('#sum dd')[2].textContent.replace(',', '')";
    assert_eq!(browser.value(answered), Value::from(0), "nobody has asked for anything");
    assert_eq!(browser.value("document.querySelectorAll('.dot').length"), Value::from(0));
    let traffic = house.traffic();
    browser.wait_for(&format!("{answered} > 20"), "the answers are counted");
    browser.wait_for(HAS_DOTS, "requests travel");
    let places = "[...document.querySelectorAll('.dot')].map(dot => dot.getAttribute('transform')).join()";
    let before = browser.text(places);
    browser.wait_for(&format!("{places} !== {before:?}"), "the dots have moved");
    let line = "document.querySelector('#tiles path:not(.area)').getAttribute('d')";
    let before = browser.text(line);
    browser.wait_for(&format!("{line} !== {before:?}"), "the line has moved");
    let shares = "[...document.querySelectorAll('b.req')].map(share => parseInt(share.textContent))";
    browser.wait_for(&format!("{shares}.every(share => share >= 49 && share <= 51)"), "turns are fair");
    assert!(number(&mut browser, "connections") >= 3.0);
    drop(traffic);
    browser.wait_for("document.querySelectorAll('.dot').length === 0", "the last dot has come home");
    assert!(browser.text_of("verdict").contains("the books balance ("), "on every tick");
}

#[test]
fn the_page_shows_the_numbers_that_the_json_tells() {
    let house = House::start();
    let Some(mut browser) = watching(&house, &[LIGHT]) else { return };
    let traffic = house.traffic();
    browser.wait_for(HAS_DOTS, "requests travel");
    let mut refused = Client::connect(house.program.address());
    refused.send(b"nonsense\r\n\r\n");
    refused.expect_refusal(&[400]);
    drop((traffic, refused));
    let json = || serde_json::from_slice::<Value>(&get(&format!("{}stats.json", house.page)).body).unwrap();
    support::eventually(|| json()["clients"]["connections"] == 0, "every client has left");
    let json = json();
    let told = |of: &Value, names: &[&str]| names.iter().map(|name| of[name].to_string()).collect::<Vec<_>>().join(",");
    let lot = ["request", "head", "body", "queue", "backend", "slow_reader", "tunnel", "closing"];
    let classes = ["2xx", "3xx", "4xx", "5xx"];
    let rows = [
        ("#sum div:not(.op) dd", told(&json["books"], &["requests", "answered", "refused", "failed", "open"])),
        ("#answers li:not(:first-child) b", told(&json["responses"], &classes)),
        ("#lot b", told(&json["lot"], &lot)),
        ("#connections, #parked", "0,0".to_owned()),
        ("#backends dl div:first-child dd", "0,0".to_owned()),
    ];
    assert!(rows[0].1.split(',').filter(|number| *number != "0").count() >= 3, "{rows:?}");
    for (where_it_stands, told) in rows {
        let shown = format!(
            "[...document.querySelectorAll({where_it_stands:?})].map(node => node.textContent.replace(/,/g, '')).join()"
        );
        browser.wait_for(&format!("{shown} === {told:?}"), &format!("{where_it_stands} shows {told}"));
    }
}

#[test]
fn every_box_says_what_it_is_and_links_to_its_chapter() {
    let house = House::start();
    let Some(mut browser) = watching(&house, &[LIGHT]) else { return };
    browser.wait_for("document.querySelectorAll('#tiles > li').length === 4", "all boxes are there");
    let boxes = "[...document.querySelectorAll('main section, .stations > li, #tiles > li')]";
    assert!(browser.value(&format!("{boxes}.length")).as_u64().unwrap() >= 13);
    let lacking = format!(
        "{boxes}.filter(box => !(box.querySelector('.what')?.textContent.length > 40) || \
         !box.querySelector('.what a[href^=\"docs/\"]')).map(box => box.textContent.slice(0, 60))"
    );
    assert_eq!(browser.value(&lacking), Value::Array(Vec::new()));
}

#[test]
fn a_killed_backend_shows_within_two_seconds() {
    let house = House::start();
    let Some(mut browser) = watching(&house, &[LIGHT]) else { return };
    let _traffic = house.traffic();
    browser.wait_for(HAS_DOTS, "requests travel");
    let state = "document.querySelector('#backends .state').textContent";
    let look = "document.querySelector('#backends path').getAttribute('d') + \
                getComputedStyle(document.querySelector('#backends .state')).color";
    assert_eq!(browser.text(state), "up");
    let before = browser.text(look);
    // More than once, for a machine that has other things to do as well.
    let mut times = Vec::new();
    while !times.iter().any(|time| *time < Duration::from_secs(2)) {
        assert!(times.len() < 3, "it took {times:?}");
        let begin = Instant::now();
        house.tell(0, "die");
        browser.wait_for(&format!("{state} === 'ejected'"), "the backend is ejected");
        times.push(begin.elapsed());
        assert_ne!(before, browser.text(look), "in shape and colour too");
        browser.wait_for("document.getElementById('events').textContent.includes('ejected')", "the event is told");
        house.tell(1, "well");
        browser.wait_for(&format!("{state} === 'up'"), "the backend is back");
    }
    browser.wait_for("document.getElementById('events').textContent.includes('readmitted')", "and that is told");
}

#[test]
fn a_slow_backend_has_half_of_the_requests_and_nearly_all_of_the_waiting() {
    let house = House::start();
    let Some(mut browser) = watching(&house, &[LIGHT]) else { return };
    let _traffic = house.traffic();
    house.tell(0, "slow?ms=200");
    let share = |name: &str| format!("parseInt(document.querySelector('#backends b.{name}').textContent)");
    let (waiting, requests) = (share("wait"), share("req"));
    let half = format!("{waiting} > 85 && {requests} >= 40 && {requests} <= 60");
    browser.wait_for(&half, "half of the requests, and nearly all of the waiting");
}

#[test]
fn when_the_stream_stops_it_greys_itself_and_says_how_old_its_numbers_are() {
    let house = House::start();
    let Some(mut browser) = watching(&house, &[LIGHT]) else { return };
    let is_grey = "getComputedStyle(document.querySelector('main')).filter.includes('grayscale(1)')";
    assert_eq!(browser.value(is_grey), Value::from(false));
    assert_eq!(browser.value("document.getElementById('old').hidden"), Value::from(true));
    house.program.signal(Signal::STOP);
    browser.wait_for(is_grey, "the page is grey");
    let said = "document.getElementById('old').textContent";
    browser.wait_for(&format!("{said}.startsWith('These numbers are 3 s old')"), "it says how old its numbers are");
    house.program.signal(Signal::CONT);
    browser.wait_for(&format!("!{is_grey}"), "the page lives again");
    assert_eq!(browser.value("document.getElementById('old').hidden"), Value::from(true));
    let House { program, .. } = house;
    drop(program);
    browser.wait_for(is_grey, "the page is grey when the balancer has gone");
    assert_eq!(browser.value("document.querySelectorAll('#backends > li').length"), Value::from(2), "and still there");
}

#[test]
fn one_request_is_chosen_with_the_mouse_and_its_life_is_told() {
    let house = House::start();
    let Some(mut browser) = watching(&house, &[LIGHT]) else { return };
    let _traffic = house.traffic();
    browser.wait_for(HAS_DOTS, "requests travel");
    browser.value("const speed = document.getElementById('speed'); speed.value = 0; 0");
    let place = "(() => { const box = [...document.querySelectorAll('.dot .seen')].pop().getBoundingClientRect(); \
                 return (box.x + box.width / 2) + ' ' + (box.y + box.height / 2); })()";
    let before = browser.text(place);
    browser.wait_for(&format!("{place} === {before:?}"), "the dots stand still");
    let (x, y) = before.split_once(' ').unwrap();
    browser.click(x.parse().unwrap(), y.parse().unwrap());
    browser.wait_for("document.querySelectorAll('.dot.chosen').length === 1", "one dot is chosen");
    assert!(browser.text_of("who").starts_with("GET /"), "{}", browser.text_of("who"));
    let how = browser.text_of("how");
    assert!(how.starts_with("200 from ") && how.ends_with("as its client hoped"), "{how}");
    let stages = browser.text("[...document.querySelectorAll('#stages b')].map(b => b.textContent).join()");
    assert_eq!(stages, "read,chosen,dialled,waited,relayed");
    let sum =
        "[...document.querySelectorAll('#stages li')].reduce((sum, i) => sum + +i.style.getPropertyValue('--w'), 0)";
    let sum = browser.value(sum).as_f64().unwrap();
    assert!((sum - 1.0).abs() < 0.01, "the stages are the whole of it: {sum}");
}

#[test]
fn everything_is_reached_by_keyboard() {
    let house = House::start();
    let Some(mut browser) = watching(&house, &[LIGHT, STILL]) else { return };
    let traffic = house.traffic();
    browser.wait_for("document.querySelectorAll('#pick button').length > 2", "requests can be chosen");
    drop(traffic);
    let name = "(() => { const at = document.activeElement; return at.id || at.textContent.trim() || at.tagName; })()";
    let mut reached = Vec::new();
    for _ in 0..60 {
        browser.press("Tab", "");
        reached.push(browser.text(name));
        let is_pick = browser.value("document.activeElement.parentElement.parentElement?.id === 'pick'");
        if is_pick == true && !reached.contains(&"(chosen)".to_owned()) {
            browser.press("Enter", "\r");
            let pressed = browser.value("document.activeElement.getAttribute('aria-pressed')");
            assert_eq!(pressed, Value::from("true"), "Enter chooses");
            reached.push("(chosen)".to_owned());
        }
        let ring = browser.value("getComputedStyle(document.activeElement).outlineStyle");
        assert!(ring == "solid" || ring == "auto", "no ring around {:?}", reached.last());
        if reached.last().is_some_and(|last| last.contains("Prometheus")) {
            break;
        }
    }
    for expected in ["All numbers as a table", "theme", "speed", "Chapter\u{a0}8", "(chosen)", "and for Prometheus"] {
        assert!(reached.iter().any(|name| name == expected), "{expected} is not among {reached:#?}");
    }
}

#[test]
fn who_wants_less_motion_gets_dots_that_stand_still() {
    let house = House::start();
    let Some(mut browser) = watching(&house, &[LIGHT, STILL]) else { return };
    let _traffic = house.traffic();
    browser.wait_for(HAS_DOTS, "requests are shown");
    let moved = browser.value(
        "new Promise(done => { const before = new Map([...document.querySelectorAll('.dot')].map(dot => \
         [dot, dot.getAttribute('transform')])); let frames = 0; const look = () => { frames += 1; \
         if (frames < 20) return requestAnimationFrame(look); \
         done([...before].filter(([dot, at]) => at && dot.isConnected && dot.getAttribute('transform') !== at).length); \
         }; look(); })",
    );
    assert_eq!(moved, Value::from(0));
    let running = browser.value("document.getAnimations().filter(one => one.playState === 'running').length");
    assert_eq!(running, Value::from(0), "nothing else moves either");
}

#[test]
fn the_theme_is_chosen_and_remembered() {
    let house = House::start();
    let Some(mut browser) = watching(&house, &[LIGHT]) else { return };
    let background = "getComputedStyle(document.body).backgroundColor";
    let light = browser.text(background);
    browser.value("document.getElementById('theme').click(); 0");
    let dark = browser.text(background);
    assert_ne!(light, dark);
    browser.open(&house.page);
    assert_eq!((browser.text(background), browser.text_of("theme")), (dark, "Theme: dark".to_owned()));
    browser.value("document.getElementById('theme').click(); 0");
    assert_eq!(browser.text(background), light);
}

#[test]
fn without_script_it_is_a_table() {
    let house = House::start();
    let Some(mut browser) = Browser::start() else { return };
    let mut client = Client::connect(house.program.address());
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response("GET").status, 200);
    browser.call("Emulation.setScriptExecutionDisabled", serde_json::json!({ "value": true }));
    let axe = axe();
    for (path, width) in [("", 1280), ("", 400), ("table", 1280), ("table", 400)] {
        let case = format!("/{path} at {width} px");
        browser.look(width, 900, &[LIGHT]);
        browser.open(&format!("{}{path}", house.page));
        let shown = browser.text("document.body.innerText");
        for words in ["requests", "answered", "in flight", "p99", "a slow reader", "turns a second", "spares"] {
            assert!(shown.to_lowercase().contains(&words.to_lowercase()), "{case}: no {words:?} in {shown}");
        }
        for address in &house.backends {
            assert!(shown.contains(&address.to_string()), "{case}: no {address} in {shown}");
        }
        let wide = browser.value("document.documentElement.scrollWidth - innerWidth");
        assert!(wide.as_f64().unwrap() <= 0.0, "{case}: {wide} px too wide");
    }
    browser.call("Emulation.setScriptExecutionDisabled", serde_json::json!({ "value": false }));
    browser.open(&format!("{}table", house.page));
    if let Some(axe) = axe {
        browser.value(&axe);
        let against = browser.value("axe.run().then(judged => judged.violations)");
        assert_eq!(against, Value::Array(Vec::new()));
    }
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn what_a_client_writes_stays_text() {
    let house = House::start();
    let Some(mut browser) = watching(&house, &[LIGHT, STILL]) else { return };
    let target = "/<img/src=x/onerror=document.title='broken'>";
    let is_over = Arc::<AtomicBool>::default();
    let clients = {
        let (address, is_over) = (house.program.address(), Arc::clone(&is_over));
        thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let mut client = Client::connect(address);
                client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
                client.read_response("GET");
                thread::sleep(Duration::from_millis(20));
            }
        })
    };
    browser.wait_for("document.getElementById('who').textContent.includes('onerror')", "the target is told");
    is_over.store(true, Ordering::Relaxed);
    clients.join().unwrap();
    assert_eq!(browser.value("document.images.length"), Value::from(0));
    browser.open(&format!("{}table", house.page));
    assert_eq!(browser.value("document.images.length"), Value::from(0));
    assert!(!browser.text("document.title").contains("broken"));
}

// The demonstration, with its fixed ports.

#[test]
fn the_commands_that_the_demonstration_offers_do_what_they_say() {
    let deadline = Instant::now() + support::PATIENCE;
    let program = loop {
        let mut program = Program::spawn(&mut command());
        if program.listens_or_ends("127.0.0.1:8080") {
            break program;
        }
        let said = program.stderr.all();
        assert_eq!(program.exit_code(), 1, "{said}");
        if Instant::now() > deadline {
            println!("skipped: {said}");
            return;
        }
        thread::sleep(Duration::from_millis(50));
    };
    let page = page_of(&program);
    let Some(mut browser) = Browser::start() else { return };
    browser.look(1280, 900, &[LIGHT]);
    browser.open(&page);
    browser.wait_for("document.querySelectorAll('#try pre').length === 6", "there is something to try");
    let commands = browser.value("[...document.querySelectorAll('#try pre')].map(pre => pre.textContent)");
    let commands: Vec<&str> = commands.as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect();
    let [send, slow, attack, kill, fail, well] = commands[..] else { panic!("{commands:?}") };
    let begin = |line: &str| {
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(line).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        Shell(shell.spawn().unwrap())
    };
    let run = |line: &str| assert!(begin(line).0.wait().unwrap().success(), "{line}");
    let _sending = begin(send);
    browser.wait_for(HAS_DOTS, "requests travel");
    let first = |what: &str| format!("document.querySelector('#backends {what}').textContent");
    run(slow);
    browser.wait_for(&format!("parseInt({}) > 80", first("b.wait")), "the slow one has most of the waiting");
    run(well);
    let _attacking = begin(attack);
    let waiting_for_a_head = "+document.querySelectorAll('#lot b')[1].textContent >= 200";
    browser.wait_for(waiting_for_a_head, "the attackers are parked");
    run(fail);
    browser.wait_for(&format!("+{} > 0", first("dl div:nth-child(4) dd")), "its errors are counted");
    run(well);
    run(kill);
    browser.wait_for(&format!("{} === 'ejected'", first(".state")), "the dead one is ejected");
    run(well);
    browser.wait_for(&format!("{} === 'up'", first(".state")), "it is back");
    let Some(axe) = axe() else { return };
    let against = violations(&mut browser, &axe);
    assert!(against.is_empty(), "{against:#?}");
}

/// A shell with its children, which end with it.
struct Shell(std::process::Child);

impl Drop for Shell {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = rustix::process::kill_process_group(rustix::process::Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

// The pictures.

/// How they are made is how they can be made again: a minute of traffic, one backend slow for a part of it.
#[test]
fn the_pictures_in_the_readme_show_both_themes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("docs/images");
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let is_blessing = std::env::var_os("BLESS_PICTURES").is_some();
    if is_blessing {
        draw(&folder);
    }
    for theme in [LIGHT, DARK] {
        let name = format!("glass-box-{}.png", theme.1);
        let picture = fs::read(folder.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(picture.starts_with(b"\x89PNG") && picture.len() < 400_000, "{name}: {} bytes", picture.len());
        assert!(readme.contains(&format!("docs/images/{name}")), "{name} does not stand in the README");
    }
}

fn draw(folder: &Path) {
    let house = House::start();
    let Some(mut browser) = watching(&house, &[LIGHT]) else { return };
    let _traffic = Traffic::start(house.program.address(), 12);
    thread::sleep(Duration::from_secs(35)); // the lines are a minute long
    house.tell(0, "slow?ms=120");
    thread::sleep(Duration::from_secs(27));
    for theme in [LIGHT, DARK] {
        browser.look(1280, 1000, &[theme]);
        browser.wait_for(HAS_DOTS, "requests travel");
        thread::sleep(Duration::from_secs(1)); // transitions end
        let picture = BASE64_STANDARD.decode(browser.screenshot()).unwrap();
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(format!("glass-box-{}.png", theme.1)), picture).unwrap();
    }
}

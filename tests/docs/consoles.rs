//! Console blocks: what stands behind `$` is run, and what stands below it is what was printed.
//!
//! All blocks of a page run from top to bottom in one shell, in an empty folder, with the built programs first in PATH.
//! Ports are translated to free ones, and back in what is printed. Times, rates, sizes of memory, ids and ports of the
//! system's choosing are washed out of both sides before they are compared; a line `...` stands for lines left out, and
//! `~26` for a number that may be a third of it or three times as much.
//!
//! A command that ends in `&` is waited for until it listens, and says what it says into a file.

use super::{Block, Page, blesses, none, replace};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The ports that pages may speak of.
const PORTS: [u16; 10] = [8080, 8081, 8082, 8083, 3000, 3001, 3002, 3003, 3004, 9000];

/// No page takes longer; one that does not end is a failure.
const LONGEST: Duration = Duration::from_secs(120);

/// What a shell is asked before each command, and says in its output.
const MARK: &str = "-- the next command --";

/// Runs every page that has something to run, two at a time.
pub(crate) fn run_all(pages: &[Page]) {
    if !Path::new("/proc/net/tcp").exists() || !has("bash") || !has("curl") {
        println!("skipped: the pages are for Linux, with bash and curl");
        return;
    }
    let next = AtomicUsize::new(0);
    let complaints = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(page) = pages.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = run(page);
                    complaints.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
                }
            });
        }
    });
    none(&complaints.into_inner().unwrap());
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// A command, and what the page says that it prints.
struct Step {
    command: String,
    expected: Vec<String>,
    line: usize,
}

fn steps(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (nth, line) in block.text.lines().enumerate() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), expected: Vec::new(), line: block.line + nth });
        } else if let Some(step) = steps.last_mut() {
            match line.strip_prefix("> ").filter(|_| step.expected.is_empty()) {
                Some(more) => step.command = format!("{}\n{more}", step.command),
                None => step.expected.push(line.to_owned()),
            }
        }
    }
    steps
}

/// Runs a page, and says where it does not do what it says.
fn run(page: &Page) -> Vec<String> {
    let blocks: Vec<Block> = page.blocks().into_iter().filter(|block| block.language == "console").collect();
    let all: Vec<Vec<Step>> = blocks.iter().map(steps).collect();
    let steps: Vec<&Step> = all.iter().flatten().collect();
    if steps.is_empty() {
        return Vec::new();
    }
    let careless = steps.iter().filter(|step| is_background(&step.command) && !step.command.contains('>'));
    let careless: Vec<String> =
        careless.map(|step| format!("{}:{}: what is left running says it into a file", page.name, step.line)).collect();
    if !careless.is_empty() {
        return careless;
    }
    let ports = Ports::choose(&steps);
    let printed = match run_in_a_shell(&page.name, &steps, ports) {
        Ok(printed) => printed,
        Err(why) => return vec![format!("{}: {why}", page.name)],
    };
    if blesses() {
        let mut outputs = printed.iter();
        for (block, steps) in blocks.iter().zip(&all) {
            let text: String =
                steps.iter().zip(outputs.by_ref()).map(|(step, printed)| blessed(step, printed)).collect();
            if text != block.text {
                replace(page, &format!("```console\n{}```\n", block.text), &format!("```console\n{text}```\n"));
            }
        }
        return Vec::new();
    }
    let differing = steps.iter().zip(&printed).filter(|(step, printed)| !is_as_expected(step, printed));
    differing
        .map(|(step, printed)| {
            let command = &step.command;
            format!("{}:{}: {command}\nprints\n{}\n", page.name, step.line, printed.join("\n"))
        })
        .collect()
}

fn is_background(command: &str) -> bool {
    command.trim_end().ends_with('&')
}

fn is_as_expected(step: &Step, printed: &[String]) -> bool {
    let wash_all = |lines: &[String]| lines.iter().map(|line| wash(line)).collect::<Vec<_>>();
    matches(&wash_all(&step.expected), &wash_all(printed))
}

/// `...` stands for any lines, or none.
fn matches(expected: &[String], printed: &[String]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((dots, rest)) if dots == "..." => (0..=printed.len()).any(|skip| matches(rest, &printed[skip..])),
        Some((line, rest)) => {
            printed.split_first().is_some_and(|(first, behind)| is_alike(line, first) && matches(rest, behind))
        }
    }
}

/// Word by word the same, but for numbers that are only said to be about so much: `~26`.
fn is_alike(expected: &str, printed: &str) -> bool {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (expected, printed) = (words(expected), words(printed));
    let alike = |(expected, printed): (&String, &String)| match expected.strip_prefix('~') {
        None => expected == printed,
        Some(about) => {
            let number = |text: &str| text.trim_end_matches(',').parse::<f64>().ok();
            let close = |(about, real): (f64, f64)| (about / 3.0..=about * 3.0).contains(&real);
            number(about).zip(number(printed)).is_some_and(close)
        }
    };
    expected.len() == printed.len() && expected.iter().zip(&printed).all(alike)
}

fn blessed(step: &Step, printed: &[String]) -> String {
    let mut text = format!("$ {}\n", step.command.replace('\n', "\n> "));
    let lines = if is_as_expected(step, printed) { &step.expected } else { printed };
    for line in lines {
        text += line;
        text.push('\n');
    }
    text
}

/// The ports of a page, and those that stand for them while it runs.
struct Ports(BTreeMap<u16, TcpListener>);

impl Ports {
    /// Free ports of four digits, so that what is printed has the lengths that the page tells of.
    fn choose(steps: &[&Step]) -> Ports {
        static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let named =
            |port: &u16| steps.iter().any(|step| numbers(&step.command).any(|number| number == port.to_string()));
        let seed = std::process::id().wrapping_mul(7919) % 5000;
        let mut candidates = (0..5000).map(|nth| 4000 + u16::try_from((seed + nth) % 5000).unwrap());
        let mut free = || loop {
            let port = candidates.next().expect("a free port below 9000");
            if !PORTS.contains(&port)
                && !taken.contains(&port)
                && let Ok(listener) = TcpListener::bind(("127.0.0.1", port))
            {
                taken.insert(port);
                return listener;
            }
        };
        Ports(PORTS.into_iter().filter(named).map(|port| (port, free())).collect())
    }

    /// Each port of the page, and the one that stands for it.
    fn pairs(&self) -> Vec<(String, String)> {
        self.0
            .iter()
            .map(|(port, listener)| (port.to_string(), listener.local_addr().unwrap().port().to_string()))
            .collect()
    }
}

/// The numbers in a text, as they are written.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Puts other numbers in the place of these.
fn translate(text: &str, pairs: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(length);
        // `b8081` is how the dummy's backends call their only path.
        let (b, number) = word.strip_prefix('b').map_or(("", word), |number| ("b", number));
        match pairs.iter().find(|(from, _)| from == number) {
            Some((_, to)) => out = out + b + to,
            None => out += word,
        }
        let next = behind.chars().next().map_or(0, char::len_utf8);
        out += &behind[..next];
        rest = &behind[next..];
    }
    out
}

/// What each step printed, line by line.
fn run_in_a_shell(page: &str, steps: &[&Step], ports: Ports) -> Result<Vec<Vec<String>>, String> {
    let name = page.replace(['/', '.'], "-");
    let folder = std::env::temp_dir().join(format!("threadbare-{name}-{}", std::process::id()));
    let _left_over = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("work")).unwrap();
    let there = ports.pairs();
    let script: String = steps.iter().map(|step| line_of_script(&translate(&step.command, &there))).collect();
    let script = format!("{PREAMBLE}{script}printf '\\n%s\\n' '{MARK}'\n");
    drop(ports);
    let outcome = shell(&script, &folder);
    let _gone = fs::remove_dir_all(&folder);
    let back: Vec<(String, String)> = there.into_iter().map(|(here, there)| (there, here)).collect();
    let text = translate(&outcome?, &back);
    let mark = format!("\n{MARK}\n");
    let mut parts = text.split(&mark);
    let _before_the_first = parts.next();
    let parts: Vec<Vec<String>> = parts.map(lines_of).collect();
    if parts.len() != steps.len() + 1 {
        return Err(format!("the shell ended after {} of {} commands:\n{text}", parts.len(), steps.len()));
    }
    Ok(parts.into_iter().take(steps.len()).collect())
}

fn lines_of(part: &str) -> Vec<String> {
    let is_ours = |line: &&str| !(line.starts_with("script:") && line.contains("line"));
    part.lines().filter(is_ours).map(|line| line.trim_end().to_owned()).collect()
}

/// Waits until somebody listens on a port, without being a connection.
const PREAMBLE: &str = r#"
wait_for() {
  local bytes hex; IFS=.: read -ra bytes <<<"$1"
  hex=$(printf '%02X%02X%02X%02X:%04X' "${bytes[3]}" "${bytes[2]}" "${bytes[1]}" "${bytes[0]}" "${bytes[4]}")
  for _ in $(seq 1000); do
    if grep -q " $hex 00000000:0000 0A" /proc/net/tcp; then return; fi
    sleep 0.01
  done
  echo "nobody listens on $1"
}
"#;

fn line_of_script(command: &str) -> String {
    // Whoever types is not so fast that a log's writer has not woken up meanwhile.
    let reads =
        ["cat ", "grep ", "cut ", "sed ", "awk ", "sort ", "wc "].iter().any(|program| command.starts_with(program));
    let pause = if reads { "sleep 0.3\n" } else { "" };
    let mut line = format!("{pause}printf '\\n%s\\n' '{MARK}'\n{command}\n");
    if is_background(command) {
        let mut words = command.split_whitespace();
        let addresses: Vec<String> = match words.next() {
            // Its backends too: they may come to listen after it does.
            Some("dummy") => {
                words.map_while(|word| word.parse().ok()).map(|port: u16| format!("127.0.0.1:{port}")).collect()
            }
            Some(_) | None => words.skip_while(|word| *word != "--listen").skip(1).take(1).map(str::to_owned).collect(),
        };
        for address in addresses {
            line += &format!("wait_for {address}\n");
        }
    }
    line
}

fn shell(script: &str, folder: &Path) -> Result<String, String> {
    let said = folder.join("said");
    let file = File::create(&said).unwrap();
    fs::write(folder.join("script"), script).unwrap();
    let programs = PathBuf::from(env!("CARGO_BIN_EXE_threadbare")).parent().unwrap().to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let mut bash = Command::new("bash");
    bash.arg("../script").current_dir(folder.join("work")).process_group(0);
    bash.env("PATH", path).env("LC_ALL", "C").env_remove("RUST_LOG").env_remove("BLESS");
    bash.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    let mut bash = bash.spawn().map_err(|error| format!("bash: {error}"))?;
    let group = Pid::from_child(&bash);
    let deadline = Instant::now() + LONGEST;
    let in_time = loop {
        if bash.try_wait().unwrap().is_some() {
            break true;
        }
        if Instant::now() >= deadline {
            break false;
        }
        thread::sleep(Duration::from_millis(10));
    };
    // Whatever the page has left running, and the shell itself if it still is.
    let _gone = kill_process_group(group, Signal::KILL);
    let _ended = bash.wait();
    let text = String::from_utf8_lossy(&fs::read(&said).unwrap()).into_owned();
    if in_time { Ok(text) } else { Err(format!("it does not end; so far:\n{text}")) }
}

/// A line without what differs each time.
fn wash(line: &str) -> String {
    if line.to_ascii_lowercase().trim_start_matches(['<', ' ']).starts_with("date: ") {
        return "Date: <when>".to_owned();
    }
    let mut line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((before, date)) = line.split_once("Date: ")
        && let Some((_, behind)) = date.split_once(" GMT")
    {
        line = format!("{before}Date: <when>{behind}");
    }
    let mut out = String::new();
    let mut rest = line.as_str();
    while let Some(first) = rest.chars().next() {
        let begins = !out.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '<');
        let washed = if begins { at_start(&out, rest) } else { None };
        let (text, length) = washed.unwrap_or((first.to_string(), first.len_utf8()));
        out += &text;
        rest = &rest[length..];
    }
    out
}

/// What the beginning of this text is washed to, and how long that is; none: it stays.
fn at_start(before: &str, text: &str) -> Option<(String, usize)> {
    let length = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    let word = &text[..length];
    let is_digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    if word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
        return Some(("<id>".to_owned(), length));
    }
    // 2026-01-02T03:04:05.678Z
    if is_digits && word.len() == 4 && text.get(4..5) == Some("-") && text.get(10..11) == Some("T") {
        let end = text.find('Z').filter(|&end| end < 32)? + 1;
        return Some(("<when>".to_owned(), end));
    }
    if word.len() == 2 && word.starts_with('w') && word.ends_with(|c: char| c.is_ascii_digit()) {
        return Some(("<worker>".to_owned(), length));
    }
    if is_digits && word.len() == 5 && before.ends_with("127.0.0.1:") {
        return Some(("<port>".to_owned(), length));
    }
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let number = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    for (unit, what) in [
        ("ns", "<time>"),
        ("us", "<time>"),
        ("ms", "<time>"),
        ("s", "<time>"),
        ("/s", "<rate>"),
        (" us", "<time>"),
        (" KiB", "<size>"),
        (" MiB", "<size>"),
    ] {
        let behind = text[number..].strip_prefix(unit);
        if behind.is_some_and(|behind| !behind.starts_with(|c: char| c.is_alphanumeric())) {
            return Some((what.to_owned(), number + unit.len()));
        }
    }
    None
}

#[test]
fn what_differs_each_time_is_washed_out_and_nothing_else() {
    for (line, washed) in [
        ("took  1.2ms, 30us and 4s", "took <time>, <time> and <time>"),
        ("requests   200, 1196/s", "requests 200, <rate>"),
        ("2026-11-25T09:54:12.424Z 127.0.0.1:38260 \"GET /\"", "<when> 127.0.0.1:<port> \"GET /\""),
        ("127.0.0.1:8081 id=52646554398210c0", "127.0.0.1:8081 id=<id>"),
        ("Date: Wed, 25 Nov 2026 09:54:12 GMT", "Date: <when>"),
        ("< date: Wed", "Date: <when>"),
        ("9 KiB each, 15B and 3 MiB", "<size> each, 15B and <size>"),
        (
            "28 us w0 #1 \"a\\r\\nDate: Wed, 25 Nov 2026 10:34:57 GMT\\r\"",
            "<time> <worker> #1 \"a\\r\\nDate: <when>\\r\"",
        ),
        ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK"),
        ("Content-Length: 15", "Content-Length: 15"),
    ] {
        assert_eq!(wash(line), washed, "{line}");
    }
}

#[test]
fn ports_are_translated_as_whole_numbers() {
    let pairs = [("8080".to_owned(), "4001".to_owned())];
    assert_eq!(translate("8080 :8080/x 18080 b8080 a8080", &pairs), "4001 :4001/x 18080 b4001 a8080");
}

#[test]
fn about_so_much_is_a_matter_of_orders_of_magnitude() {
    for (expected, printed, is_so) in [
        ("one: ~26, two: 3", "one: 20, two: 3", true),
        ("one: ~26", "one: 8", false),
        ("one: ~26", "one: 26", true),
        ("~100", "301", false),
        ("~100", "many", false),
        ("a b", "a", false),
    ] {
        assert_eq!(is_alike(expected, printed), is_so, "{expected} {printed}");
    }
}

#[test]
fn dots_stand_for_any_lines() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    for (expected, printed, is_so) in
        [("a\n...\nd", "a\nb\nc\nd", true), ("...", "", true), ("a\n...", "b", false), ("a", "a\nb", false)]
    {
        assert_eq!(matches(&lines(expected), &lines(printed)), is_so, "{expected:?} {printed:?}");
    }
}

//! The rules of the house: what the tree itself must keep to. Where this file fails, the plan has changed or the code
//! has left it; everything else can wait until that is settled.
//!
//! The rules are read off the source text, so a sentence in a comment or a word in a string breaks none of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// Where each crate may be named, and why nowhere else. An empty list: everywhere.
const CRATES: [(&str, &[&str]); 15] = [
    ("httparse", &["src/http/head.rs"]),
    ("memchr", &["src/http/"]),
    ("mio", &["src/net/"]),
    ("rustix", &["src/net/", "src/notify.rs", "src/config/file.rs"]),
    ("listenfd", &["src/net/activation.rs"]),
    // Where threads meet.
    (
        "crossbeam_channel",
        &[
            "src/events.rs",
            "src/lines.rs",
            "src/logger.rs",
            "src/metrics/tally.rs",
            "src/main.rs",
            "src/net/lot.rs",
            "src/notify.rs",
            "src/server.rs",
            "src/workers.rs",
        ],
    ),
    ("signal_hook", &["src/main.rs"]),
    ("clap", &["src/config/", "src/bin/lab/"]),
    ("toml", &["src/config/"]),
    ("strsim", &["src/config/"]),
    ("serde_json", &["src/admin/"]),
    ("httpdate", &["src/exchange/desk.rs"]),
    ("humantime", &["src/access_log/", "src/bin/lab/", "src/config/"]),
    ("simple_logger", &["src/logger.rs"]),
    ("log", &[]),
];

/// What would make `src/http` impure: sockets, clocks, threads, what threads share, files, and dice.
const IMPURE: [&str; 24] = [
    "std::net::Tcp",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "std::time",
    "Instant",
    "SystemTime",
    "std::thread",
    "thread_local",
    "std::sync",
    "Mutex",
    "RwLock",
    "Condvar",
    "OnceLock",
    "Arc",
    "std::fs",
    "File",
    "std::env",
    "std::process",
    "std::os",
    "rand",
    "HashMap",
    "RandomState",
];

/// Rooms that know nothing of one another, although one is listed below the other.
const STRANGERS: [(&str, &str, &str); 2] = [
    ("net", "http", "net moves bytes and does not know what they say"),
    ("workers", "http", "workers take turns and do not know what at"),
];

/// Lines that a file of `src` may have. What is longer is two things, and the second wants a name of its own.
const LONGEST_FILE: usize = 700;

#[test]
fn every_file_belongs_to_a_room_and_every_room_is_listed_once() {
    let rooms = rooms();
    let mut complaints = Vec::new();
    for (nth, (room, line)) in rooms.iter().enumerate() {
        if rooms.iter().take(nth).any(|(earlier, _)| earlier == room) {
            complaints.push(format!("src/lib.rs:{line}: the room {room} is listed twice"));
        }
    }
    for source in sources("src") {
        let is_listed = |room: &str| rooms.iter().any(|(listed, _)| listed == room);
        if source.room().is_some_and(|room| !is_listed(&room)) {
            complaints.push(format!("{}:1: belongs to no room that src/lib.rs lists", source.path));
        }
    }
    assert!(rooms.len() > 3, "src/lib.rs lists hardly any rooms: {rooms:?}");
    none(complaints);
}

#[test]
fn a_room_imports_only_rooms_that_are_listed_below_it() {
    let rooms = rooms();
    let position = |room: &str| rooms.iter().position(|(listed, _)| listed == room);
    let mut complaints = Vec::new();
    for source in sources("src") {
        let Some(room) = source.room() else { continue };
        for (line, imported) in source.crate_paths() {
            let complaint = match (position(&room), position(&imported)) {
                _ if imported == room => continue,
                (_, None) => format!("names crate::{imported}, which is not a room; import from the room"),
                (Some(here), Some(there)) if there > here => continue,
                (_, Some(_)) => format!("the room {room} names {imported}, which src/lib.rs lists above it"),
            };
            complaints.push(format!("{}:{line}: {complaint}", source.path));
        }
        // Another room is reached by its name, so that this test sees it.
        let climb = if source.is_room_itself() { "super::" } else { "super::super" };
        for line in source.lines_with(climb) {
            complaints.push(format!("{}:{line}: {climb} climbs out of the room {room}", source.path));
        }
    }
    none(complaints);
}

#[test]
fn net_knows_no_http_and_neither_do_the_workers() {
    let mut complaints = Vec::new();
    for source in sources("src") {
        for (room, stranger, why) in STRANGERS {
            let named = source.crate_paths().into_iter().filter(|(_, imported)| imported == stranger);
            if source.room().as_deref() == Some(room) {
                complaints.extend(named.map(|(line, _)| format!("{}:{line}: names {stranger}; {why}", source.path)));
            }
        }
    }
    none(complaints);
}

#[test]
fn a_crate_is_named_only_where_it_has_been_admitted() {
    let mut complaints = Vec::new();
    for (line, name, _) in dependencies("dependencies") {
        if !CRATES.iter().any(|(admitted, _)| *admitted == name.replace('-', "_")) {
            complaints.push(format!("Cargo.toml:{line}: {name} has no row that says where it may be named"));
        }
    }
    for source in sources("src") {
        for (name, places) in CRATES {
            if !places.is_empty() && !places.iter().any(|place| source.path.starts_with(place)) {
                let lines = source.lines_with(name).into_iter();
                complaints.extend(lines.map(|line| format!("{}:{line}: {name} is for {places:?}", source.path)));
            }
        }
    }
    none(complaints);
}

#[test]
fn every_crate_is_admitted_with_a_sentence() {
    let mut complaints = Vec::new();
    for section in ["dependencies", "dev-dependencies"] {
        let dependencies = dependencies(section);
        assert!(!dependencies.is_empty(), "Cargo.toml has no [{section}]");
        for (line, name, above) in dependencies {
            if !(above.starts_with("# ") && above.ends_with('.') && above.contains(' ')) {
                complaints.push(format!("Cargo.toml:{line}: no sentence above {name} says what it is for"));
            }
        }
    }
    none(complaints);
}

#[test]
fn http_owns_no_socket_reads_no_clock_starts_no_thread_and_rolls_no_die() {
    let mut complaints = Vec::new();
    for source in sources("src/http") {
        for word in IMPURE {
            let lines = source.lines_with(word).into_iter();
            complaints
                .extend(lines.map(|line| format!("{}:{line}: {word}, in a room of bytes and decisions", source.path)));
        }
    }
    none(complaints);
}

#[test]
fn nothing_here_is_async() {
    let mut complaints = Vec::new();
    for (path, lock) in ["Cargo.lock", "tests/fuzz/Cargo.lock"].map(|path| (path, read(path))) {
        for (nth, line) in lock.lines().enumerate() {
            let name = line.strip_prefix("name = \"").and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
            let is_runtime =
                ["tokio", "async-std", "smol", "futures", "async-io", "monoio", "glommio", "compio"].contains(&name);
            if is_runtime || name.starts_with("futures-") || name.starts_with("tokio-") {
                complaints.push(format!("{path}:{}: {name}, not even by way of another crate", nth + 1));
            }
        }
    }
    for source in sources("src").into_iter().chain(sources("tests")) {
        for word in ["async fn", "async move", "async {", "async |", ".await"] {
            let lines = source.lines_with(word).into_iter();
            complaints.extend(lines.map(|line| format!("{}:{line}: {word}", source.path)));
        }
    }
    none(complaints);
}

#[test]
fn what_comes_through_cargo_is_free_and_comes_from_one_place() {
    let policy = read(".deny.toml");
    let allowed = strings_of(&policy, "allow = [");
    let sources = strings_of(&policy, "allow-registry = [");
    assert!(allowed.len() > 3 && sources.len() == 1, ".deny.toml was not understood: {allowed:?} {sources:?}");
    let mut complaints = Vec::new();
    for (path, lock) in ["Cargo.lock", "tests/fuzz/Cargo.lock"].map(|path| (path, read(path))) {
        for (nth, line) in lock.lines().enumerate() {
            let source = line.strip_prefix("source = \"registry+").and_then(|rest| rest.strip_suffix('"'));
            if line.starts_with("source = ") && !source.is_some_and(|source| sources.iter().any(|s| s == source)) {
                complaints.push(format!("{path}:{}: {line}: not from {sources:?}", nth + 1));
            }
        }
    }
    for banned in strings_of(&policy, "deny = [") {
        let is_there = read("Cargo.lock").contains(&format!("name = \"{banned}\"\n"));
        complaints.extend(is_there.then(|| format!("Cargo.lock:1: {banned} is banned by .deny.toml")));
    }
    // Every crate's own words about its licence, as Cargo has them without the network.
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--offline", "--format-version", "1"]).current_dir(root());
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata = String::from_utf8(output.stdout).unwrap();
    let licences: Vec<&str> = metadata
        .split(",\"license\":")
        .skip(1)
        .map(|rest| rest.split(",\"license_file\"").next().unwrap().trim_matches('"'))
        .collect();
    let crates = read("Cargo.lock").matches("[[package]]").count();
    assert!(licences.len() == crates, "{} licences of {crates} crates", licences.len());
    for licence in licences {
        if !is_allowed(licence, &allowed) {
            complaints.push(format!("Cargo.lock:1: a crate's licence is {licence}, and .deny.toml allows {allowed:?}"));
        }
    }
    none(complaints);
}

#[test]
fn a_licence_is_allowed_if_a_way_through_it_is() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
    let rows = [
        ("MIT", true),
        ("GPL-3.0", false),
        ("null", false),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND Apache-2.0", true),
        ("(MIT OR GPL-3.0) AND LGPL-2.1", false),
        ("Apache-2.0 WITH LLVM-exception OR LGPL-2.1", true),
        ("Apache-2.0 WITH Another-exception", false),
    ];
    for (licence, is_fine) in rows {
        assert_eq!(is_allowed(licence, &allowed), is_fine, "{licence}");
    }
}

#[test]
fn no_code_of_ours_is_unsafe() {
    let manifest = read("Cargo.toml");
    assert!(manifest.lines().any(|line| line == "unsafe_code = \"forbid\""), "Cargo.toml does not forbid unsafe code");
    let mut complaints = Vec::new();
    for source in sources("src") {
        complaints.extend(source.lines_with("unsafe").iter().map(|line| format!("{}:{line}: unsafe", source.path)));
    }
    none(complaints);
}

#[test]
fn nothing_is_unwrapped_outside_of_tests() {
    let mut complaints = Vec::new();
    for source in sources("src") {
        for call in [".unwrap()", ".unwrap_unchecked()", ".expect(\"\")", "panic!", "todo!", "unimplemented!"] {
            let lines = source.lines_with(call).into_iter();
            complaints.extend(
                lines.map(|line| format!("{}:{line}: {call}; `?`, or expect(\"why it can't fail\")", source.path)),
            );
        }
    }
    none(complaints);
}

#[test]
fn every_file_says_at_its_head_what_it_is() {
    let complaints = sources("src").into_iter().chain(sources("tests")).filter_map(|source| {
        let says = source.raw.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > "//! ".len());
        (!says).then(|| format!("{}:1: the file does not begin with a //! that says what it is", source.path))
    });
    none(complaints.collect());
}

#[test]
fn no_file_is_too_long_to_be_read_at_a_sitting() {
    let complaints = sources("src").into_iter().filter_map(|source| {
        let length = source.raw.lines().count();
        (length > LONGEST_FILE)
            .then(|| format!("{}:{length}: the file ends here, not by line {LONGEST_FILE}", source.path))
    });
    none(complaints.collect());
}

#[test]
fn peers_are_clients_and_backends_and_threads_are_workers() {
    let mut complaints = Vec::new();
    for source in sources("src") {
        for (nth, line) in source.raw.lines().enumerate() {
            for word in ["upstream", "upstreams", "downstream", "downstreams", "pool", "pools", "TODO", "FIXME", "XXX"]
            {
                if finds(&line.to_ascii_lowercase(), &word.to_ascii_lowercase()) {
                    complaints.push(format!("{}:{}: {word} is not a word of this house", source.path, nth + 1));
                }
            }
        }
    }
    none(complaints);
}

#[test]
fn the_top_level_holds_what_a_newcomer_expects_and_no_more() {
    let expected = ["Cargo.toml", "Cargo.lock", "src", "tests", "docs", "README.md", "target"];
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let surprising = entries
        .filter(|name| !name.starts_with('.') && !name.starts_with("LICENSE") && !expected.contains(&name.as_str()));
    none(surprising.map(|name| format!("{name}:1: not expected at the top level")).collect());
}

/// Whether an SPDX expression leaves a way that is allowed. Brackets stand only around alternatives: `(A OR B) AND C`.
fn is_allowed(licence: &str, allowed: &[String]) -> bool {
    let licence = licence.replace('/', " OR ");
    if let Some((before, behind)) = licence.split_once(" AND ") {
        return is_allowed(before, allowed) && is_allowed(behind, allowed);
    }
    let alternatives = licence.trim_matches(['(', ')']).split(" OR ").map(str::trim);
    alternatives.into_iter().any(|one| allowed.iter().any(|allowed| allowed == one))
}

/// The strings between this opening of a list and its bracket.
fn strings_of(policy: &str, opening: &str) -> Vec<String> {
    let opening = format!("\n{opening}");
    let (_, list) = policy.split_once(&opening).unwrap_or_else(|| panic!("no {opening:?} in .deny.toml"));
    let list = list.split(']').next().unwrap();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

// How the tree is read.

#[test]
fn comments_strings_and_test_modules_are_no_code() {
    let rows = [
        ("a // b", "a     "),
        ("a /* b /* c */ d */ e", "a                   e"),
        ("a(\"b // c\\\"d\") e", "a(\"         \") e"),
        ("r\"a\\\" b", "r\"  \" b"),
        ("r#\"a\"b\"# c", "r#\"   \"# c"),
        ("'\"' a '\\'' b '/' 'c", "' ' a '  ' b ' ' 'c"),
        ("fn f<'a>(b: &'a str)", "fn f<'a>(b: &'a str)"),
        ("a\n// b\nc", "a\n    \nc"),
        ("a\n#[cfg(test)]\nmod b { c {} d }\ne", "a\n            \n                \ne"),
        ("#[cfg(test)]\nmod b;\nc", "            \n      \nc"),
    ];
    for (raw, code) in rows {
        assert_eq!(code_of(raw), code, "{raw:?}");
    }
    assert!(finds("use mio::{Poll}", "mio") && !finds("use mio_x::Poll", "mio") && !finds("use amio", "mio"));
}

/// One file of the tree.
struct Source {
    /// From the top level on, with slashes.
    path: String,
    raw: String,
    /// The file without comments, what strings hold, and test modules; what is left stands where it stood.
    code: String,
}

impl Source {
    /// The room that the file belongs to; `None` for those that stand above all rooms, for the programs beside the
    /// balancer, and for tests.
    fn room(&self) -> Option<String> {
        let inside = self.path.strip_prefix("src/")?;
        let room = inside.split('/').next()?.trim_end_matches(".rs");
        (!["lib", "main", "bin"].contains(&room) && !self.is_test()).then(|| room.to_owned())
    }

    /// `src/net.rs` or `src/net/mod.rs`, and not a file within.
    fn is_room_itself(&self) -> bool {
        self.path.matches('/').count() == 1 || (self.path.matches('/').count() == 2 && self.path.ends_with("/mod.rs"))
    }

    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// The first names of all paths that begin at the crate's root, with their lines: `crate::a::b`, `crate::{a, b::c}`.
    fn crate_paths(&self) -> Vec<(usize, String)> {
        let mut paths = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            let rest = self.code.get(at + "crate::".len()..).unwrap();
            let names = match rest.strip_prefix('{') {
                None => vec![first_name(rest)],
                Some(group) => names_of_group(group),
            };
            let line = self.code.get(..at).unwrap().matches('\n').count() + 1;
            paths.extend(names.into_iter().map(|name| (line, name)));
        }
        paths
    }

    fn lines_with(&self, words: &str) -> Vec<usize> {
        if self.is_test() {
            return Vec::new();
        }
        let lines = self.code.lines().enumerate();
        lines.filter(|(_, line)| finds(line, words)).map(|(nth, _)| nth + 1).collect()
    }
}

fn first_name(path: &str) -> String {
    path.trim_start().chars().take_while(|&c| is_word(c)).collect()
}

/// The first name of each path in `a, b::{c, d}, e}`.
fn names_of_group(group: &str) -> Vec<String> {
    let mut names = vec![first_name(group)];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(first_name(group.get(at + 1..).unwrap())),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Whether these words stand in the line, and not as a part of longer ones.
fn finds(line: &str, words: &str) -> bool {
    line.match_indices(words).any(|(at, _)| {
        let before = line.get(..at).unwrap().chars().next_back();
        let behind = line.get(at + words.len()..).unwrap().chars().next();
        let begins = !words.starts_with(is_word) || !before.is_some_and(is_word);
        // `std::net::Tcp` is meant as the beginning of several names.
        let ends = !words.ends_with(is_word) || words.ends_with("Tcp") || !behind.is_some_and(is_word);
        begins && ends
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The rooms in the order in which `src/lib.rs` lists them, with their lines.
fn rooms() -> Vec<(String, usize)> {
    let lib = code_of(&read("src/lib.rs"));
    let room = |line: &str| {
        let line = line.trim();
        let line = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub ")).unwrap_or(line);
        line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
    };
    lib.lines().enumerate().filter_map(|(nth, line)| Some((room(line)?, nth + 1))).collect()
}

/// The crates in a section of `Cargo.toml`: line, name, and the line above.
fn dependencies(section: &str) -> Vec<(usize, String, String)> {
    let manifest = read("Cargo.toml");
    let lines: Vec<&str> = manifest.lines().collect();
    let heading = format!("[{section}]");
    let begin = lines.iter().position(|line| *line == heading).unwrap_or_else(|| panic!("no {heading} in Cargo.toml"));
    let section = lines.iter().enumerate().skip(begin + 1).take_while(|(_, line)| !line.starts_with('['));
    let named = section.filter(|(_, line)| line.starts_with(is_word));
    named
        .map(|(nth, line)| {
            let name = line.split([' ', '=', '.']).next().unwrap_or_default();
            (nth + 1, name.to_owned(), lines.get(nth - 1).unwrap().trim().to_owned())
        })
        .collect()
}

fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Rust files under a folder, in the order of their names.
fn sources(folder: &str) -> Vec<Source> {
    let mut folders: Vec<PathBuf> = vec![root().join(folder)];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let names = path.strip_prefix(root()).unwrap().iter().map(|name| name.to_str().unwrap());
                let path = names.collect::<Vec<_>>().join("/");
                let raw = read(&path);
                sources.push(Source { code: code_of(&raw), path, raw });
            }
        }
    }
    assert!(!sources.is_empty(), "no source in {folder}");
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// The text with a space for every character of a comment, of what a string holds and of a test module.
fn code_of(raw: &str) -> String {
    let mut code = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(first) = rest.chars().next() {
        let after_word = code.chars().next_back().is_some_and(is_word);
        let (opening, inside, closing) = if rest.starts_with("//") {
            (0, rest.find('\n').unwrap_or(rest.len()), 0)
        } else if rest.starts_with("/*") {
            (0, length_of_comment(rest), 0)
        } else if let Some(hashes) = raw_string(rest).filter(|_| !after_word) {
            let opening = "r".len() + hashes + "\"".len();
            let end = format!("\"{}", "#".repeat(hashes));
            let body = rest.get(opening..).unwrap_or_default();
            (opening, body.find(&end).unwrap_or(body.len()), end.len())
        } else if first == '"' {
            (1, length_of_quoted(rest.get(1..).unwrap_or_default(), '"'), 1)
        } else if first == '\'' && is_character(rest) {
            (1, length_of_quoted(rest.get(1..).unwrap_or_default(), '\''), 1)
        } else {
            (first.len_utf8(), 0, 0)
        };
        let (kept, behind) = rest.split_at(opening);
        let (blanked, behind) = behind.split_at(inside);
        let (end, behind) = behind.split_at(closing.min(behind.len()));
        code.push_str(kept);
        blank(&mut code, blanked);
        code.push_str(end);
        rest = behind;
    }
    without_test_modules(&code)
}

fn blank(code: &mut String, text: &str) {
    code.extend(text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
}

/// Comments of this kind may lie within one another.
fn length_of_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// How many bytes stand before the quote that ends this.
fn length_of_quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if c == quote && !escaped {
            return at;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// `r"`, `r#"` and so on: how many hashes?
fn raw_string(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('r')?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest.trim_start_matches('#').starts_with('"').then_some(hashes)
}

/// A character, and not a lifetime: `'a'` and `'\n'`, but not `'a`.
fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

/// Blanks every `#[cfg(test)] mod ...`, to its semicolon or its closing brace.
fn without_test_modules(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        let (before, module) = rest.split_at(at);
        out.push_str(before);
        let mut depth = 0;
        let end = module.char_indices().find(|&(_, c)| {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            depth == 0 && (c == ';' || c == '}')
        });
        let (module, behind) = module.split_at(end.map_or(module.len(), |(at, _)| at + 1));
        blank(&mut out, module);
        rest = behind;
    }
    out.push_str(rest);
    out
}

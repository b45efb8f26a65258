//! What a document says is what the program does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use threadbare::error::Reason;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn documents() -> Vec<(PathBuf, String)> {
    let pages = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.chain([root().join("README.md")]).map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// All of `src` and `tests`, in one.
fn source() -> String {
    fn gather(folder: &Path, into: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                gather(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                *into += &fs::read_to_string(&path).unwrap();
            }
        }
    }
    let mut all = String::new();
    gather(&root().join("src"), &mut all);
    gather(&root().join("tests"), &mut all);
    all
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Every word of the source.
fn words(source: &str) -> HashSet<&str> {
    source.split(|c| !is_word(c)).collect()
}

/// The name of every function in the source, tests included.
fn functions(source: &str) -> HashSet<&str> {
    let name = |rest: &'_ str| rest.find(|c| !is_word(c)).filter(|&end| rest[end..].starts_with(['(', '<']));
    source.split("fn ").skip(1).filter_map(|rest| Some(&rest[..name(rest)?])).collect()
}

/// The cells of the first table behind this heading, row by row, without its head.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, behind) = page.split_once(heading).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let lines = behind.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| {
        let line = line.replace("\\|", "\u{1}");
        line.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
    };
    lines.skip(2).map(cells).collect()
}

/// Every flag with its default, as `--help` tells them.
fn flags() -> BTreeMap<String, Option<String>> {
    let output = Command::new(env!("CARGO_BIN_EXE_threadbare")).arg("--help").env_remove("RUST_LOG").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let mut flags = BTreeMap::new();
    let mut current = String::new();
    for line in help.lines().map(str::trim) {
        if let Some(at) = line.find("--").filter(|&at| at <= 4) {
            current = line[at..].split(' ').next().unwrap().to_owned();
            flags.insert(current.clone(), None);
        } else if let Some(default) = line.strip_prefix("[default: ") {
            flags.insert(current.clone(), Some(default.trim_end_matches(']').to_owned()));
        }
    }
    flags.remove("--help");
    flags.remove("--version");
    flags
}

#[test]
fn the_readme_lists_every_flag_with_its_default() {
    let rows = table(&text("README.md"), "## Flags");
    let documented: BTreeMap<String, String> = rows
        .into_iter()
        .map(|row| {
            (row[0].trim_matches('`').split(' ').next().unwrap().to_owned(), row[1].trim_matches('`').to_owned())
        })
        .collect();
    let real = flags();
    assert!(real.len() > 15, "the help was not understood: {real:?}");
    assert_eq!(documented.keys().collect::<Vec<_>>(), real.keys().collect::<Vec<_>>());
    for (flag, default) in real {
        if let Some(default) = default {
            assert_eq!(documented[&flag], default, "the default of {flag}");
        }
    }
}

#[test]
fn the_table_of_timeouts_is_that_of_the_program() {
    let rows = table(&text("docs/ARCHITECTURE.md"), "## Every timeout");
    let mut real = flags();
    real.retain(|flag, _| flag.ends_with("-timeout"));
    for row in &rows {
        let flag = row[1].trim_matches('`');
        if flag != "fixed" {
            let default = real.remove(flag).unwrap_or_else(|| panic!("there is no {flag}"));
            assert_eq!(default.as_deref(), Some(row[2].as_str()), "the default of {flag}");
        }
        for word in row[4].split(", ").map(|word| word.trim_matches('`')).filter(|word| *word != "-") {
            assert!(Reason::ALL.iter().any(|reason| reason.word() == word), "{word} is no reason word");
        }
    }
    assert!(real.is_empty(), "not in the table: {real:?}");
    let config = threadbare::Config::from_args(["127.0.0.1:1"]).unwrap();
    let fixed: Vec<&str> = rows.iter().filter(|row| row[1] == "fixed").map(|row| row[2].as_str()).collect();
    assert_eq!(fixed, [format!("{:?}", config.timeouts.collect), format!("{:?}", config.timeouts.linger)]);
}

#[test]
fn the_table_of_rooms_is_the_list_of_modules() {
    let rows = table(&text("docs/ARCHITECTURE.md"), "## The rooms");
    let documented: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).skip(1).collect();
    let lib = text("src/lib.rs");
    let modules: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")).map(|name| name.trim_end_matches(';')).collect();
    assert_eq!(documented, modules);
}

/// Names of the kernel's, not ours.
const SYSTEM_CALLS: [&str; 5] = ["epoll_wait", "epoll_pwait", "epoll_ctl", "recvfrom", "getsockopt"];

/// Names in other programs, to which the walkthrough compares ours.
const ELSEWHERE: [&str; 22] = [
    "ReverseProxy",
    "USR2",
    "accept_mutex",
    "client_body_timeout",
    "client_header_timeout",
    "fail_timeout",
    "io_uring",
    "large_client_header_buffers",
    "least_conn",
    "max_conns",
    "max_fails",
    "mod_reqtimeout",
    "proxy_buffering",
    "proxy_read_timeout",
    "proxy_request_buffering",
    "request_headers_timeout",
    "request_timeout",
    "tcp_wmem",
    "upgrade_configs",
    "upgrade_sock",
    "worker_shutdown_timeout",
    "zone_sync",
];

#[test]
fn every_name_that_a_document_cites_is_in_the_source() {
    let source = source();
    let words = words(&source);
    for (path, page) in documents() {
        let mut cited = 0;
        for name in page.split('`').skip(1).step_by(2) {
            let is_path = name.split("::").all(|part| part.chars().all(|c| c.is_alphanumeric() || c == '_'));
            let is_code = name.contains("::") || name.contains('_') || name.starts_with(|c: char| c.is_uppercase());
            if !is_path
                || !is_code
                || name.is_empty()
                || SYSTEM_CALLS.contains(&name)
                || ELSEWHERE.contains(&name)
                || name.chars().all(|c| c.is_uppercase() || c == '_')
            {
                continue;
            }
            for part in name.split("::") {
                assert!(words.contains(part), "{}: `{name}` is not in the source", path.display());
            }
            cited += 1;
        }
        assert!(cited > 0 || !path.ends_with("ARCHITECTURE.md"), "{} cites nothing", path.display());
    }
}

#[test]
fn every_rule_has_tests_and_every_test_of_a_rule_exists() {
    let page = text("docs/CONFORMANCE.md");
    let source = source();
    let functions = functions(&source);
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| rule |")).collect();
    assert!(rows.len() > 40, "the list was not understood");
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for test in tests.split(", ").map(|name| name.trim_matches('`')) {
            assert!(functions.contains(test), "there is no test {test:?} for: {row}");
        }
    }
}

#[test]
fn every_technique_of_smuggling_has_a_function_that_refuses_it_and_a_test_that_shows_it() {
    let page = text("docs/SMUGGLING.md");
    let source = source();
    let functions = functions(&source);
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| technique |"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert!(rows.len() > 40, "the list was not understood");
    for row in rows {
        let [_, _, refusers, tests] = row[..] else { panic!("not four cells: {row:?}") };
        for function in refusers.split(", ").map(|name| name.trim_matches('`')) {
            let mut parts: Vec<&str> = function.split("::").collect();
            let name = parts.pop().unwrap();
            assert!(functions.contains(name), "there is no function {function:?} for: {row:?}");
            for owner in parts {
                let declarations = [format!(" {owner} {{"), format!(" {owner}<"), format!("mod {owner};")];
                assert!(
                    declarations.iter().any(|words| source.contains(words)),
                    "there is no {owner} for {function:?}"
                );
            }
        }
        for test in tests.split(", ").map(|name| name.trim_matches('`')) {
            assert!(functions.contains(test), "there is no test {test:?} for: {row:?}");
        }
    }
}

#[test]
fn every_claim_of_security_has_tests() {
    let source = source();
    let functions = functions(&source);
    let rows = table(&text("docs/SECURITY.md"), "## What is defended");
    assert!(rows.len() > 10, "the list was not understood");
    for row in rows {
        let [claim, tests] = &row[..] else { panic!("not two cells: {row:?}") };
        for test in tests.split(", ").map(|name| name.trim_matches('`')) {
            assert!(functions.contains(test), "there is no test {test:?} for: {claim}");
        }
    }
}

#[test]
fn every_source_file_that_a_document_names_exists() {
    for (path, page) in documents() {
        for name in page.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs") && !name.contains(' ')) {
            let places = ["", "src", "tests"].map(|folder| root().join(folder).join(name));
            assert!(places.iter().any(|place| place.exists()), "{}: there is no {name}", path.display());
        }
    }
}

#[test]
fn the_page_about_metrics_knows_how_many_buckets_there_are() {
    let buckets = threadbare::counting::BOUNDS.len() + 1;
    assert!(text("docs/METRICS.md").contains(&format!("counted in {buckets} buckets")), "there are {buckets}");
}

#[test]
fn the_readme_names_the_oldest_rust_that_will_do() {
    let manifest = text("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(text("README.md").contains(&format!("Rust {version}")), "it is {version}");
}

#[test]
fn the_first_screen_of_the_readme_holds_the_two_commands() {
    let readme = text("README.md");
    let first_screen: Vec<&str> = readme.lines().take(25).collect();
    for command in ["cargo run --release ", "cargo test ", "curl http://127.0.0.1:8080/"] {
        assert!(first_screen.iter().any(|line| line.starts_with(command)), "{command:?} is not on the first screen");
    }
    assert!(text("Cargo.toml").contains("default-run = \"threadbare\""));
}

#[test]
fn what_the_readme_shows_of_the_demonstration_is_what_it_says() {
    let readme = text("README.md");
    let demo = text("src/demo.rs");
    assert!(demo.contains("Hello from backend server on :{port}"));
    for port in threadbare::demo::PORTS {
        assert!(readme.contains(&format!("\nHello from backend server on :{port}\n")), "port {port}");
    }
}

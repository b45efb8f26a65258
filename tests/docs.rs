//! The walkthrough is true by construction: its quotes are the source, its commands run, its links lead somewhere.
//!
//! `BLESS=1 cargo test --test docs` writes anew what has drifted: quotes, what commands print, tables, pictures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

#[path = "docs/changes.rs"]
mod changes;
#[path = "docs/consoles.rs"]
mod consoles;
#[path = "docs/measured.rs"]
mod measured;
#[path = "docs/pictures.rs"]
mod pictures;
#[path = "docs/quotes.rs"]
mod quotes;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The sections of a chapter, in their order.
const SECTIONS: [&str; 9] = [
    "What you will know",
    "Try it",
    "Predict",
    "Look",
    "What happened",
    "Real world",
    "Break it",
    "Make it",
    "You may have believed",
];

/// Words of a chapter, with all that stands in it. One that is longer is two.
const WORDS: std::ops::RangeInclusive<usize> = 1500..=2500;

const QUOTES: usize = 5;
const LINES_OF_A_QUOTE: usize = 25;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One page, below the top level.
pub(crate) struct Page {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A fenced block of a page.
pub(crate) struct Block {
    pub(crate) language: String,
    /// Where its text begins, counted from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
    /// The last line above it that is not empty.
    pub(crate) caption: String,
}

impl Page {
    fn read(path: &Path) -> Page {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        Page { name, text }
    }

    /// Its number, if it is a chapter.
    pub(crate) fn chapter(&self) -> Option<u32> {
        self.name.strip_prefix("docs/")?.get(..2)?.parse().ok()
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut inside = false;
        let mut caption = String::new();
        for (nth, line) in self.text.lines().enumerate() {
            match line.strip_prefix("```") {
                Some(_) if inside => inside = false,
                Some(language) => {
                    inside = true;
                    let (language, caption) = (language.trim().to_owned(), std::mem::take(&mut caption));
                    blocks.push(Block { language, line: nth + 2, text: String::new(), caption });
                }
                None if inside => {
                    let block = blocks.last_mut().unwrap();
                    block.text += line;
                    block.text.push('\n');
                }
                None if !line.trim().is_empty() => line.clone_into(&mut caption),
                None => {}
            }
        }
        assert!(!inside, "{}: a block without an end", self.name);
        blocks
    }

    /// The page without its blocks.
    fn prose(&self) -> String {
        let mut inside = false;
        let mut prose = String::new();
        for line in self.text.lines() {
            if line.starts_with("```") {
                inside = !inside;
            } else if !inside {
                prose += line;
                prose.push('\n');
            }
        }
        prose
    }

    fn headings(&self) -> Vec<String> {
        let headings = self.prose();
        let headings = headings.lines().filter(|line| line.starts_with('#'));
        headings.map(|line| line.trim_start_matches('#').trim().to_owned()).collect()
    }

    /// What its links point at, as they are written.
    fn links(&self) -> Vec<String> {
        let prose = self.prose();
        // What stands between backticks is no link.
        let plain: String = prose.split('`').step_by(2).collect::<Vec<_>>().join("``");
        plain.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
    }
}

/// Every page that is a Markdown file: those in `docs`, and the README.
pub(crate) fn pages() -> Vec<Page> {
    let entries = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    paths.push(root().join("README.md"));
    paths.sort();
    paths.iter().map(|path| Page::read(path)).collect()
}

fn chapters() -> Vec<Page> {
    let chapters: Vec<Page> = pages().into_iter().filter(|page| page.chapter().is_some()).collect();
    assert!(!chapters.is_empty());
    chapters
}

pub(crate) fn page(name: &str) -> Page {
    Page::read(&root().join(name))
}

/// Whether what has drifted is to be written anew.
pub(crate) fn blesses() -> bool {
    std::env::var_os("BLESS").is_some_and(|value| value == "1")
}

/// Puts one text into a page in the place of another. Several tests do so at once, each to its own blocks.
pub(crate) fn replace(page: &Page, old: &str, new: &str) {
    static PEN: Mutex<()> = Mutex::new(());
    let _pen = PEN.lock().unwrap_or_else(PoisonError::into_inner);
    let path = root().join(&page.name);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(old), "{} has changed meanwhile", page.name);
    fs::write(&path, text.replacen(old, new, 1)).unwrap();
}

pub(crate) fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// How GitHub makes an anchor of a heading.
fn slug(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|&c| c.is_alphanumeric() || c == '-' || c == '_' || c == ' ');
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_quote_of_the_source_is_what_the_source_says() {
    let mut complaints = Vec::new();
    let mut quoted = 0;
    for page in pages() {
        for block in page.blocks().iter().filter(|block| block.language == "rust") {
            quoted += 1;
            let place = format!("{}:{}", page.name, block.line);
            match quotes::woven(block) {
                Ok(text) if text == block.text => {}
                Ok(text) if blesses() => {
                    let fenced = |text: &str| format!("{}\n\n```rust\n{text}```\n", block.caption);
                    replace(&page, &fenced(&block.text), &fenced(&text));
                }
                Ok(text) => complaints.push(format!("{place}: the source says now (BLESS=1 writes it):\n{text}")),
                Err(why) => complaints.push(format!("{place}: {why}")),
            }
        }
    }
    none(&complaints);
    assert!(quoted > 0, "not one quote was found");
}

#[test]
fn quotes_are_few_and_short() {
    let mut complaints = Vec::new();
    for page in chapters() {
        let blocks = page.blocks();
        let quotes: Vec<&Block> = blocks.iter().filter(|block| block.language == "rust").collect();
        if quotes.is_empty() || quotes.len() > QUOTES {
            complaints.push(format!("{}: {} quotes; 1 - {QUOTES} is what a reader takes in", page.name, quotes.len()));
        }
        for quote in quotes {
            let lines = quote.text.lines().count();
            if lines > LINES_OF_A_QUOTE {
                complaints.push(format!("{}:{}: {lines} lines; {LINES_OF_A_QUOTE} fit", page.name, quote.line));
            }
        }
    }
    none(&complaints);
}

#[test]
fn every_command_of_a_page_prints_what_the_page_says() {
    consoles::run_all(&pages());
}

#[test]
fn every_change_that_a_page_asks_for_can_be_made() {
    changes::check(&chapters());
}

#[test]
#[ignore = "builds a copy of the tree for each chapter: some minutes"]
fn what_is_broken_turns_exactly_the_named_tests_red() {
    changes::break_everything(&chapters());
}

#[test]
#[ignore = "builds a copy of the tree for each chapter: some minutes"]
fn every_exercise_is_red_without_its_answer_and_green_with_it() {
    changes::do_every_exercise();
}

#[test]
fn every_table_of_measurements_is_its_file() {
    measured::check(&pages());
}

#[test]
fn every_picture_is_what_its_measurements_draw() {
    pictures::check();
}

#[test]
fn every_link_leads_somewhere() {
    let mut complaints = Vec::new();
    for from in pages() {
        let folder = Path::new(&from.name).parent().unwrap().to_owned();
        for link in from.links().iter().filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { PathBuf::from(&from.name) } else { folder.join(file) };
            if !root().join(&target).exists() {
                complaints.push(format!("{}: {link} leads nowhere", from.name));
            } else if !heading.is_empty() {
                let there = Page::read(&root().join(&target).canonicalize().unwrap());
                if !there.headings().iter().any(|text| slug(text) == heading) {
                    complaints.push(format!("{}: {link}: no such heading there", from.name));
                }
            }
        }
    }
    none(&complaints);
}

#[test]
fn every_chapter_has_its_sections_and_is_neither_long_nor_thin() {
    let mut complaints = Vec::new();
    for chapter in chapters() {
        let sections = chapter.headings();
        let sections: Vec<&str> = sections.iter().skip(1).map(String::as_str).collect();
        let main: Vec<&str> = sections.iter().copied().filter(|section| SECTIONS.contains(section)).collect();
        if main != SECTIONS {
            complaints.push(format!("{}: its sections are {main:?}", chapter.name));
        }
        let words = chapter.text.split_whitespace().count();
        if !WORDS.contains(&words) {
            complaints.push(format!("{}: {words} words; a chapter has {WORDS:?}", chapter.name));
        }
        if !chapter.blocks().iter().any(|block| block.language == "console") {
            complaints.push(format!("{}: nothing to try", chapter.name));
        }
    }
    none(&complaints);
}

/// The first number behind these words of a page.
fn number_behind(page: &Page, words: &str) -> f64 {
    let text = page.text.replace('\n', " ");
    let (_, behind) = text.split_once(words).unwrap_or_else(|| panic!("{}: it does not say {words:?}", page.name));
    let digits: String = behind.chars().take_while(|&c| c.is_ascii_digit() || c == ',' || c == '.').collect();
    digits.replace(',', "").trim_end_matches('.').parse().unwrap_or_else(|_| panic!("{words:?} is no number: {digits}"))
}

#[test]
fn what_the_first_chapter_says_of_lines_has_been_counted() {
    /// Without comments and empty lines.
    fn lines(file: &Path) -> usize {
        let text = fs::read_to_string(file).unwrap();
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
    }
    fn count(folder: &Path) -> usize {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let counted = paths.map(|path| match path.file_name().and_then(|name| name.to_str()) {
            Some("bin" | "tests" | "tests.rs") => 0,
            Some(name) if name.ends_with(".rs") => lines(&path),
            _ if path.is_dir() => count(&path),
            _ => 0,
        });
        counted.sum()
    }
    let chapter = page("docs/01-the-dummy.md");
    let dummy = lines(&root().join("src/bin/dummy.rs"));
    let said = number_behind(&chapter, "The dummy is that loop, in ");
    assert!((said - dummy as f64).abs() < 0.5, "it has {dummy} lines, not {said}");
    let (said, counted) = (number_behind(&chapter, "threadbare spends some "), count(&root().join("src")) as f64);
    assert!((said - counted).abs() < 0.15 * counted, "it says {said}, and there are {counted}");
    let copying = quotes::lines_of("src/exchange/pump.rs", "Pump::run_to_last");
    assert!(chapter.text.contains(&format!("(`Pump::run_to_last`) takes {copying} of them")), "there are {copying}");
}

#[test]
fn the_techniques_of_smuggling_are_about_as_many_as_the_pages_say() {
    let chapter = page("docs/04-where-does-the-body-end.md").text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(chapter.contains("lists some sixty,"), "it does not say any more how many they are");
    for overview in ["README.md", "docs/README.md"] {
        assert!(page(overview).text.contains("some sixty"), "{overview} does not say how many they are");
    }
    let techniques = page("docs/SMUGGLING.md").text.lines().filter(|line| line.ends_with("` |")).count();
    assert!((50..70).contains(&techniques), "there are {techniques}");
}

#[test]
fn the_wire_log_of_chapter_5_waits_for_as_long_as_its_backend_takes() {
    let chapter = page("docs/05-life-of-one-request.md");
    let delay = number_behind(&chapter, "--name one --delay ") * 1000.0;
    let moment = |line: &str| line.trim_start().split(' ').next().unwrap().parse::<f64>().unwrap();
    let told: Vec<&str> = chapter.text.lines().filter(|line| line.contains(" us  ")).collect();
    let parked = told.iter().position(|line| line.contains(" parked, for bytes of the backend")).unwrap();
    let waited = moment(told[parked + 1]) - moment(told[parked]);
    assert!(told[parked + 1].contains(" awake: bytes of the backend"), "{}", told[parked + 1]);
    // The backend's clock began when it had read the request, which is a moment before we parked.
    assert!((delay - 5_000.0..delay + 100_000.0).contains(&waited), "it waited {waited} us for {delay}");
}

#[test]
fn the_functions_that_chapter_5_names_are_in_the_files_that_it_names() {
    let chapter = page("docs/05-life-of-one-request.md");
    let mut named = 0;
    for (before, behind) in chapter.text.match_indices("` (`src/").map(|(at, _)| chapter.text.split_at(at)) {
        let function = before.rsplit('`').next().unwrap();
        let file = behind.split('`').nth(2).unwrap();
        assert!(quotes::lines_of(file, function) > 0);
        named += 1;
    }
    assert!(named > 10, "it names {named}");
}

#[test]
fn the_rates_of_chapter_6_are_those_that_its_text_speaks_of() {
    let chapter = page("docs/06-whose-turn-is-it.md");
    let by_turns = number_behind(&chapter, "127.0.0.1:8081 --requests 60 --clients 6 requests   60, ");
    let by_load = number_behind(&chapter, "127.0.0.1:8082 --requests 60 --clients 6 requests   60, ");
    // The slow one needs 200 ms for each of its twenty, and six clients can ask at once.
    let at_most = 60.0 / (20.0 * 0.2 / 6.0);
    assert!((0.5 * at_most..=at_most).contains(&by_turns), "by turns {by_turns} a second, at most {at_most}");
    assert!(by_load > 2.0 * by_turns, "{by_load} and {by_turns}");
}

#[test]
fn the_reports_of_chapter_11_are_those_that_its_text_speaks_of() {
    let chapter = page("docs/11-too-much.md");
    let report = |command: &str, line: &str, column: &str| {
        let (_, behind) = chapter.text.split_once(command).unwrap_or_else(|| panic!("nobody says {command}"));
        let line = behind.lines().find(|there| there.starts_with(line)).unwrap();
        let (_, value) = line.split_once(column).unwrap_or_else(|| panic!("{line}: no {column}"));
        let digits: String = value.chars().take_while(|&c| c.is_ascii_digit() || c == '.').collect();
        let unit = if value[digits.len()..].starts_with('s') { 1000.0 } else { 1.0 };
        digits.parse::<f64>().unwrap() * unit
    };
    let (many, few) = ("--rate 200 --requests 200 --clients 200\n", "--rate 200 --requests 200 --clients 10\n");
    let served = report(many, "requests ", "200, ");
    assert!((70.0..=101.0).contains(&served), "a hundred a second is what the backend can do, not {served}");
    let slowest = report(many, "since due ", "slowest ");
    assert!((700.0..1500.0).contains(&slowest), "the slowest waits for a second, not for {slowest} ms");
    let (polite, due) = (report(few, "time ", "half within "), report(few, "since due ", "half within "));
    assert!(due > 3.0 * polite, "that a request was due earlier is not to be seen: {polite} ms, {due} ms");
}

#[test]
fn the_contents_page_names_every_page_in_its_order() {
    let links = page("docs/README.md").links();
    let linked: Vec<&String> = links.iter().filter(|link| link.ends_with(".md") && !link.contains('/')).collect();
    let mut missing = Vec::new();
    for other in pages() {
        let Some(name) = other.name.strip_prefix("docs/").filter(|name| *name != "README.md") else { continue };
        if !linked.iter().any(|link| *link == name) {
            missing.push(format!("docs/README.md: does not name {name}"));
        }
    }
    none(&missing);
    let numbered: Vec<&&String> = linked.iter().filter(|link| link.starts_with(|c: char| c.is_ascii_digit())).collect();
    assert!(numbered.is_sorted(), "{numbered:?}");
}

#[test]
fn every_picture_has_a_sentence_for_those_who_cannot_see_it() {
    let mut complaints = Vec::new();
    for page in pages() {
        for (alt, rest) in page.prose().split("![").skip(1).filter_map(|rest| rest.split_once("](")) {
            if alt.split_whitespace().count() < 6 {
                complaints.push(format!("{}: {:?} says too little", page.name, rest.split(')').next()));
            }
        }
    }
    none(&complaints);
}

#[test]
fn every_term_of_the_glossary_is_linked_from_where_it_is_met() {
    let glossary = page("docs/glossary.md");
    let linked: BTreeSet<String> = chapters()
        .iter()
        .flat_map(Page::links)
        .filter_map(|link| link.strip_prefix("glossary.md#").map(str::to_owned))
        .collect();
    let terms: Vec<String> = glossary.headings().iter().skip(1).map(|term| slug(term)).collect();
    assert!(terms.len() > 20, "{terms:?}");
    let missing = terms.iter().filter(|term| !linked.contains(*term));
    none(&missing.map(|term| format!("docs/glossary.md: no chapter links {term}")).collect::<Vec<_>>());
    assert!(terms.is_sorted_by_key(|term| term.replace('-', " ")), "they are not in the order of the alphabet");
    let mut complaints = Vec::new();
    for (term, entry) in terms.iter().zip(glossary.text.split("\n## ").skip(1)) {
        let Some((chapter, _)) =
            entry.split_once("[Chapter ").and_then(|(_, rest)| rest.split_once("](")?.1.split_once(')'))
        else {
            complaints.push(format!("docs/glossary.md: {term}: which chapter?"));
            continue;
        };
        if !page(&format!("docs/{chapter}")).links().contains(&format!("glossary.md#{term}")) {
            complaints.push(format!("docs/glossary.md: {term} is not linked from {chapter}"));
        }
    }
    none(&complaints);
}

#[test]
fn every_file_of_the_source_belongs_to_a_page_and_is_called_what_it_calls_itself() {
    fn gather(folder: &Path, into: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                gather(&path, into);
            } else {
                into.insert(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut files = BTreeSet::new();
    gather(&root().join("src"), &mut files);
    let map = page("docs/files.md");
    let mut mapped = BTreeSet::new();
    let mut complaints = Vec::new();
    for row in map.text.lines().filter(|line| line.starts_with("| [")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let file = cells[0].split('`').nth(1).unwrap_or_default().to_owned();
        if !cells[1].starts_with('[') {
            complaints.push(format!("docs/files.md: {file} has no chapter"));
        }
        let head = fs::read_to_string(root().join(&file)).unwrap_or_default();
        let head = head.lines().take_while(|line| line.starts_with("//! ")).map(|line| &line[4..]);
        let head = head.collect::<Vec<_>>().join(" ");
        let begins = head.strip_prefix(cells[2]).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ':']));
        if file.ends_with(".rs") && !begins {
            complaints.push(format!("docs/files.md: {file} says of itself: {head}"));
        }
        if !mapped.insert(file.clone()) {
            complaints.push(format!("docs/files.md: {file} stands there twice"));
        }
    }
    let in_a_test = |file: &&String| file.contains("/tests/") || file.ends_with("/tests.rs");
    complaints.extend(
        files.difference(&mapped).filter(|file| !in_a_test(file)).map(|file| format!("docs/files.md: lacks {file}")),
    );
    complaints.extend(mapped.difference(&files).map(|file| format!("docs/files.md: there is no {file}")));
    none(&complaints);
}

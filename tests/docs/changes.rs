//! Changes to the source that a page asks for: what is broken in *Break it*, and what answers an exercise.
//!
//! A change is a block of `diff` below a line that names its file. It has no line numbers: the lines that stay or go must
//! stand in the file once, in that order.

use super::{Block, Page, blesses, none, page, pages, replace, root};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A change to one file.
struct Change {
    place: String,
    file: String,
    old: String,
    new: String,
}

impl Change {
    fn of(page: &Page, block: &Block) -> Change {
        let place = format!("{}:{}", page.name, block.line);
        let file = block.caption.split('`').nth(1).unwrap_or_else(|| panic!("{place}: whose change is it?")).to_owned();
        let (mut old, mut new) = (String::new(), String::new());
        for line in block.text.lines() {
            let (mark, text) = (line.get(..1).unwrap_or(" "), line.get(1..).unwrap_or_default());
            if mark != "+" {
                old = old + text + "\n";
            }
            if mark != "-" {
                new = new + text + "\n";
            }
        }
        Change { place, file, old, new }
    }

    /// The file's text with the change made.
    fn made_in(&self, text: &str) -> Result<String, String> {
        match text.matches(&self.old).count() {
            1 => Ok(text.replacen(&self.old, &self.new, 1)),
            0 => Err(format!("{}: what is to be changed is not in {}", self.place, self.file)),
            count => Err(format!("{}: what is to be changed stands in {} {count} times", self.place, self.file)),
        }
    }
}

/// What a chapter's *Break it* breaks, and which tests of which file it says turn red.
struct Break {
    changes: Vec<Change>,
    /// The whole line.
    line: String,
    /// Behind `cargo test`.
    flags: Vec<String>,
    /// The file of tests that they name.
    tests: String,
    red: BTreeSet<String>,
}

fn breaks(chapters: &[Page]) -> Vec<(&Page, Break)> {
    let of = |page: &Page| {
        let blocks = page.blocks();
        let changes: Vec<Change> =
            blocks.iter().filter(|block| block.language == "diff").map(|block| Change::of(page, block)).collect();
        let line = page.text.lines().find(|line| line.starts_with("Red: `cargo test --test "));
        let line = line.unwrap_or_else(|| panic!("{}: which test turns red?", page.name)).to_owned();
        let mut names = line.split('`').skip(1).step_by(2);
        let words = names.next().unwrap_or_default().split(' ').skip("cargo test".split(' ').count());
        let flags: Vec<String> = words.map(str::to_owned).collect();
        let tests = flags.get(1).cloned().unwrap_or_default();
        let red = names.map(str::to_owned).collect();
        Break { changes, line, flags, tests, red }
    };
    chapters.iter().map(|page| (page, of(page))).collect()
}

/// The changes below each heading of the answers, with the chapter's number.
fn answers() -> Vec<(String, Vec<Change>)> {
    let page = page("docs/answers.md");
    let headings: Vec<(usize, String)> = page
        .text
        .lines()
        .enumerate()
        .filter_map(|(nth, line)| Some((nth, line.strip_prefix("## Chapter ")?.to_owned())))
        .collect();
    let blocks = page.blocks();
    let below = |begin: usize, end: usize| {
        let inside = blocks.iter().filter(|block| (begin..end).contains(&block.line) && block.language == "diff");
        inside.map(|block| Change::of(&page, block)).collect()
    };
    let ends = headings.iter().skip(1).map(|(line, _)| *line).chain([usize::MAX]);
    headings.iter().zip(ends).map(|((begin, number), end)| (number.clone(), below(*begin, end))).collect()
}

/// The files with all of these changes made.
fn changed(changes: &[Change]) -> Result<Vec<(PathBuf, String)>, String> {
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    for change in changes {
        let path = PathBuf::from(&change.file);
        let earlier = files.iter().position(|(file, _)| *file == path);
        let text = match earlier {
            Some(nth) => files.remove(nth).1,
            None => fs::read_to_string(root().join(&path)).map_err(|error| format!("{}: {error}", change.file))?,
        };
        files.push((path, change.made_in(&text)?));
    }
    Ok(files)
}

/// Every change can be made, every chapter has a test for its exercise and an answer, and what turns red exists.
pub(crate) fn check(chapters: &[Page]) {
    let mut complaints = Vec::new();
    let exercises = fs::read_to_string(root().join("tests/exercises.rs")).unwrap();
    for (page, broken) in breaks(chapters) {
        complaints.extend(changed(&broken.changes).err());
        let tests = fs::read_to_string(root().join(format!("tests/{}.rs", broken.tests))).unwrap_or_default();
        let missing = broken.red.iter().filter(|name| !tests.contains(&format!("fn {name}()")));
        complaints.extend(missing.map(|name| format!("{}: tests/{}.rs has no {name}", page.name, broken.tests)));
        if broken.red.is_empty() || broken.changes.is_empty() {
            complaints.push(format!("{}: nothing is broken, or nothing turns red", page.name));
        }
        let number = page.chapter().unwrap();
        if !exercises.contains(&format!("fn chapter_{number}_")) || !page.text.contains(&format!(" chapter_{number}_ "))
        {
            complaints.push(format!("{}: it has no exercise, or does not say how to run it", page.name));
        }
        if !answers().iter().any(|(answered, _)| *answered == number.to_string()) {
            complaints.push(format!("{}: its exercise has no answer", page.name));
        }
    }
    complaints.extend(answers().iter().filter_map(|(_, changes)| changed(changes).err()));
    let undone = |file: &str| file.starts_with("src/") || file.starts_with("tests/");
    let changes = answers().into_iter().flat_map(|(_, changes)| changes);
    let left = changes.filter(|change| !undone(&change.file));
    complaints.extend(left.map(|change| format!("{}: `git checkout src tests` does not undo it", change.place)));
    if !page("docs/README.md").text.contains("`git checkout src tests && cargo build`") {
        complaints.push("docs/README.md: it does not say how changes are undone".to_owned());
    }
    none(&complaints);
}

/// A copy of the tree, in which things may be broken. It stays, so that the next run finds most of it built.
struct Copy {
    folder: PathBuf,
    /// Two tests at once would break it for each other.
    _alone: MutexGuard<'static, ()>,
}

impl Copy {
    fn make() -> Copy {
        let folder = root().join("target/exercises");
        static ALONE: Mutex<()> = Mutex::new(());
        let copy = Copy { folder, _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner) };
        for part in ["src", "tests", "Cargo.toml", "Cargo.lock"] {
            copy.bring(Path::new(part));
        }
        // The admin page has some pages in it.
        for page in pages() {
            copy.write(Path::new(&page.name), &page.text);
        }
        copy.remove_what_is_gone(Path::new("src"));
        copy.remove_what_is_gone(Path::new("tests"));
        copy
    }

    fn bring(&self, part: &Path) {
        let from = root().join(part);
        if from.is_dir() {
            for entry in fs::read_dir(&from).unwrap() {
                self.bring(&part.join(entry.unwrap().file_name()));
            }
        } else {
            self.write(part, &fs::read_to_string(&from).unwrap());
        }
    }

    fn remove_what_is_gone(&self, part: &Path) {
        for entry in fs::read_dir(self.folder.join(part)).unwrap() {
            let entry = entry.unwrap();
            let inside = part.join(entry.file_name());
            if entry.path().is_dir() {
                self.remove_what_is_gone(&inside);
            } else if !root().join(&inside).exists() {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    /// Writes only what differs: an older file is one that need not be built again.
    fn write(&self, part: &Path, text: &str) {
        let to = self.folder.join(part);
        if fs::read_to_string(&to).is_ok_and(|there| there == text) {
            return;
        }
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, text).unwrap();
    }

    /// Makes changes, runs tests, and takes the changes back. The names of those that failed, and of those that ran.
    fn test(&self, changes: &[Change], flags: &[&str]) -> Result<(BTreeSet<String>, BTreeSet<String>), String> {
        let files = changed(changes)?;
        for (file, text) in &files {
            self.write(file, text);
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--locked"]).args(flags).current_dir(&self.folder);
        cargo.env("CARGO_TARGET_DIR", self.folder.join("target")).env("CARGO_PROFILE_DEV_DEBUG", "0");
        cargo.env_remove("BLESS").env_remove("RUSTFLAGS").env("RUST_BACKTRACE", "0");
        let outcome = output_in_time(&mut cargo, &self.folder);
        for (file, _) in &files {
            self.write(file, &fs::read_to_string(root().join(file)).unwrap());
        }
        let said = outcome?;
        let named = |end: &str| {
            let lines = said.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(end));
            lines.map(str::to_owned).collect::<BTreeSet<String>>()
        };
        let failed = named(" ... FAILED");
        let passed = named(" ... ok");
        if failed.is_empty() && passed.is_empty() {
            let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error")).collect();
            return Err(format!("no test ran: {}", errors.join("; ")));
        }
        let ran = failed.union(&passed).cloned().collect();
        Ok((failed, ran))
    }
}

/// What a command says on both streams. One that does not end is ended, with everything that it has started.
fn output_in_time(command: &mut Command, folder: &Path) -> Result<String, String> {
    const LONGEST: Duration = Duration::from_secs(480); // the first builds everything
    let said = folder.join("said");
    let file = File::create(&said).unwrap();
    command.process_group(0).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + LONGEST;
    let in_time = loop {
        if child.try_wait().unwrap().is_some() {
            break true;
        }
        if Instant::now() >= deadline {
            break false;
        }
        thread::sleep(Duration::from_millis(20));
    };
    let _gone = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let _ended = child.wait();
    let text = String::from_utf8_lossy(&fs::read(&said).unwrap()).into_owned();
    if in_time { Ok(text) } else { Err(format!("{command:?} does not end:\n{text}")) }
}

/// Breaks what each chapter breaks: exactly the tests that it names turn red.
pub(crate) fn break_everything(chapters: &[Page]) {
    let copy = Copy::make();
    let mut complaints = Vec::new();
    for (page, broken) in breaks(chapters) {
        let flags: Vec<&str> = broken.flags.iter().map(String::as_str).collect();
        let mut outcome = copy.test(&broken.changes, &flags);
        if !outcome.as_ref().is_ok_and(|(red, _)| *red == broken.red) {
            // What is broken may leave a test to chance that never is otherwise. A second look decides.
            outcome = copy.test(&broken.changes, &flags);
        }
        match outcome {
            Err(why) => complaints.push(format!("{}: {why}", page.name)),
            Ok((red, _)) if red == broken.red => {}
            Ok((red, _)) if blesses() => {
                let names: Vec<String> = red.iter().map(|name| format!("`{name}`")).collect();
                let line = format!("Red: `cargo test {}` with {}.", broken.flags.join(" "), names.join(", "));
                replace(page, &broken.line, &line);
            }
            Ok((red, _)) => {
                complaints.push(format!("{}: red is {red:?}, and should be {:?}", page.name, broken.red));
            }
        }
    }
    none(&complaints);
}

/// Does every exercise: red without its answer, green with it.
pub(crate) fn do_every_exercise() {
    let copy = Copy::make();
    let mut complaints = Vec::new();
    match copy.test(&[], &["--test", "exercises", "--", "--ignored"]) {
        Err(why) => complaints.push(why),
        Ok((red, all)) => {
            complaints.extend(all.difference(&red).map(|name| format!("{name} is green before anybody has done it")));
        }
    }
    for (number, changes) in answers() {
        let name = format!("chapter_{number}_");
        match copy.test(&changes, &["--test", "exercises", "--", "--ignored", &name]) {
            Err(why) => complaints.push(format!("chapter {number}: {why}")),
            Ok((red, _)) => complaints.extend(red.iter().map(|name| format!("{name} is red with its answer"))),
        }
    }
    none(&complaints);
}

//! What is wrong with a configuration file, as people are told it: its secret is not among that.
//!
//! A line that is wrong is shown, with a caret under the place; but a secret may stand on it. In a file that is no TOML
//! nobody can say for sure what belongs to what: a quote, a line end or a letter of a key may be what is missing. So it
//! is not asked where a secret is, but where none can be: a line is shown as it is only if it begins with a key that is
//! known and no secret, holds no second `=`, and stands outside of the sections that hold a secret. Of every other line
//! the first word is shown, where that is a key or looks like one, and the rest as asterisks: the caret still points at
//! the right column.
//!
//! The standard error of the program gets all of it. Whoever watches by way of the admin listener, which asks nobody who
//! they are, gets what is wrong and its place, and not the line.

use super::keys::{KEYS, Key, OF_BACKEND, OF_LISTENER};
use std::path::Path;

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Complaint {
    /// What is wrong and where, in one line.
    pub(super) short: String,
    /// The same with the line itself, a caret under the place, and what would be right.
    pub(super) full: String,
}

impl From<String> for Complaint {
    fn from(what: String) -> Complaint {
        Complaint { short: what.clone(), full: what }
    }
}

/// A place in a file, and what is wrong there.
pub(super) struct At<'f> {
    pub(super) path: &'f Path,
    pub(super) text: &'f str,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) what: &'f str,
    pub(super) right: &'f str,
}

impl At<'_> {
    /// The complaint with its file, line and column, the line itself, and a caret under the place.
    pub(super) fn complaint(&self) -> Complaint {
        // What is missing at the end is missing behind the last word.
        let start = self.start.min(self.text.trim_end().len());
        let before = self.text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let (above, below) = self.text.split_at_checked(line_start).unwrap_or_default();
        let line = below.lines().next().unwrap_or_default();
        let number = before.matches('\n').count() + 1;
        let indent = self.text.get(line_start..start).unwrap_or_default();
        let place = self.text.get(start..self.end).and_then(|place| place.lines().next()).unwrap_or_default();
        let carets = "^".repeat(place.chars().count().max(1));
        let blanks: String = indent.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let shown = shown(line, section_below(above));
        let margin = " ".repeat(number.to_string().len());
        let column = indent.chars().count() + 1;
        let what: String = self.what.chars().map(visible).collect();
        let (right, path) = (self.right, self.path.display());
        let full = format!(
            "{what}\n{margin}--> {path}:{number}:{column}\n{margin} |\n{number} | {shown}\n{margin} | \
             {blanks}{carets}\n{margin} = {right}"
        );
        Complaint { short: format!("{what}, at {path}:{number}:{column}"), full }
    }
}

/// The section to which a line below this belongs; empty above all sections.
fn section_below(above: &str) -> &str {
    let header = above.lines().rev().find_map(|line| line.trim_start().strip_prefix('['));
    header.and_then(|header| header.trim_start_matches('[').split(']').next()).unwrap_or_default().trim()
}

/// The line as it is shown: in full where no secret can be on it.
fn shown(line: &str, section: &str) -> String {
    let is_of_a_word = |c: char| c.is_ascii_lowercase() || "_.[]".contains(c);
    let word_at = line.len() - line.trim_start().len();
    let from_word = line.get(word_at..).unwrap_or_default();
    let word = from_word.split(|c| !is_of_a_word(c)).next().unwrap_or_default();
    let word_end = word_at + word.len();
    let rest = line.get(word_end..).unwrap_or_default();
    let value = rest.trim_start();
    let is_one_word = value.is_empty() || value.len() < rest.len() || value.starts_with('=');
    let is_followed = value.starts_with('=') || !value.contains('=');
    let bare = if !is_one_word {
        0
    } else if is_plain_section(section) && is_plain_name(word) && rest.matches('=').count() <= 1 && is_followed {
        line.len()
    } else if !is_like_a_name(word) {
        0
    } else if word.starts_with('[') {
        word_end
    } else if value.starts_with('=') {
        line.len() - value.len() + 1
    } else {
        0
    };
    let hide = |(at, c): (usize, char)| match c {
        ' ' | '\t' => c,
        _ if at >= bare => '*',
        c => visible(c),
    };
    line.char_indices().map(hide).collect()
}

fn visible(c: char) -> char {
    if c.is_control() { '\u{fffd}' } else { c }
}

/// Whether there is such a section, and none of its keys is a secret.
pub(super) fn is_plain_section(section: &str) -> bool {
    let mut keys = KEYS.iter().filter(|key| key.section() == section).peekable();
    ["listener", "backend"].contains(&section) || keys.peek().is_some() && keys.all(|key| !key.is_secret)
}

/// Whether a key or a section is called that, and is neither a secret nor next to one.
fn is_plain_name(word: &str) -> bool {
    !word.is_empty()
        && names().any(|(section, name, path)| is_plain_section(section) && [section, name, path].contains(&word))
}

/// Whether a key or a section is called something like that.
pub(super) fn is_like_a_name(word: &str) -> bool {
    let word = word.trim_matches(['[', ']']);
    // A slip in a name makes it less than 1; of what is no name at all hardly anything is above 0.7.
    let is_like = |name: &str| strsim::jaro_winkler(name, word) > 0.8;
    names().any(|(section, name, path)| is_like(section) || is_like(name) || is_like(path))
}

/// Section, name and path of every key.
fn names() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    fn of<T>(keys: &'static [Key<T>]) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        keys.iter().map(|key| (key.section(), key.name(), key.path))
    }
    of(KEYS).chain(of(OF_LISTENER)).chain(of(OF_BACKEND))
}

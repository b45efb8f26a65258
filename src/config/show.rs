//! A configuration as a file that says the same.

use super::Config;
use super::keys::{KEYS, Key, OF_BACKEND, OF_LISTENER, Shape};
use std::fmt::Write as _;

/// The whole of it, defaults included; what is not set is a comment.
pub(super) fn show(config: &Config) -> String {
    let mut text = String::new();
    for key in KEYS.iter().filter(|key| key.section().is_empty()) {
        show_key(&mut text, key, config);
    }
    for listener in &config.listeners {
        text += "\n[[listener]]\n";
        OF_LISTENER.iter().for_each(|key| show_key(&mut text, key, listener));
    }
    for backend in &config.backends {
        text += "\n[[backend]]\n";
        OF_BACKEND.iter().for_each(|key| show_key(&mut text, key, backend));
    }
    let mut section = "";
    for key in KEYS.iter().filter(|key| !key.section().is_empty()) {
        if key.section() == "health" && config.health.is_none() {
            if section != "health" {
                text += "\n# [health]: backends are not asked\n";
            }
        } else {
            if key.section() != section {
                let _never_fails = writeln!(text, "\n[{}]", key.section());
            }
            show_key(&mut text, key, config);
        }
        section = key.section();
    }
    text
}

fn show_key<T>(text: &mut String, key: &Key<T>, of: &T) {
    let _never_fails = match value(key, of) {
        Some(value) => writeln!(text, "{} = {value}", key.name()),
        None => writeln!(text, "# {}: {}", key.name(), key.unset.unwrap_or("none")),
    };
}

/// A key's value as it stands in a file; nothing if it is not set.
pub(super) fn value<T>(key: &Key<T>, of: &T) -> Option<String> {
    let values: Vec<String> = (key.show)(of).iter().map(|value| literal(key.shape, value)).collect();
    if key.is_list() { Some(format!("[{}]", values.join(", "))) } else { values.into_iter().next() }
}

fn literal(shape: Shape, value: &str) -> String {
    match shape {
        Shape::Number | Shape::Numbers(_) => value.to_owned(),
        Shape::Switch => (value == "on").to_string(),
        Shape::Text(_) | Shape::Time | Shape::Size | Shape::Choice(..) | Shape::Texts(_) => quoted(value),
    }
}

/// A string of TOML, in which the environment is not asked.
fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.replace("${", "$${").chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => {
                let _never_fails = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text + "\""
}

//! Single values as people write them: read, with what would be right where they are wrong, and written again.

use crate::balance::{HashKey, Policy};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use std::net::SocketAddr;
use std::time::Duration;

/// A century is for ever, and no sum of an instant and a timeout overflows.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// More than nothing: something is waited for.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let time = time_or_none(text)?;
    if time < Duration::from_millis(1) {
        return Err("nothing can happen in no time; the least is 1ms".to_owned());
    }
    Ok(time)
}

/// A duration that may be nothing.
pub(super) fn time_or_none(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; a duration is a number with a unit, such as 500ms, 10s or 2h"))?;
    Ok(time.min(LONGEST))
}

/// A duration in the largest unit that it is a whole number of; minutes are written as seconds.
pub(super) fn show_time(time: Duration) -> String {
    let seconds = time.as_secs();
    if !time.subsec_nanos().is_multiple_of(1_000_000) {
        humantime::format_duration(time).to_string()
    } else if time.subsec_millis() != 0 {
        format!("{}ms", time.as_millis())
    } else if seconds != 0 && seconds.is_multiple_of(3600) {
        format!("{}h", seconds / 3600)
    } else {
        format!("{seconds}s")
    }
}

/// A size in bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("a size is a number of bytes, or a number with kB, KiB, MiB or GiB".to_owned()),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    number.ok_or_else(|| "a size is a number of bytes below 2^64, or a number with kB, KiB, MiB or GiB".to_owned())
}

/// A size that a head may be limited to.
pub(super) fn head_size(text: &str) -> Result<usize, String> {
    const RANGE: &str = "a head is limited to 64 B - 64 KiB";
    let size = size(text).map_err(|error| format!("{error}; {RANGE}"))?;
    let size = usize::try_from(size).ok().filter(|size| (64..=64 * 1024).contains(size));
    size.ok_or_else(|| RANGE.to_owned())
}

/// A size in the largest unit that it is a whole number of.
pub(super) fn show_size(size: u64) -> String {
    for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if size != 0 && size.is_multiple_of(factor) {
            return format!("{}{unit}", size / factor);
        }
    }
    format!("{size}B")
}

/// A whole number, `least` to `most`.
pub(super) fn number<N: TryFrom<u64>>(text: &str, least: u64, most: u64) -> Result<N, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| is_plain && (least..=most).contains(number));
    number.and_then(|number| N::try_from(number).ok()).ok_or_else(|| match most {
        // Nothing could be counted that far: the upper end would only distract.
        u64::MAX => format!("it takes a number, of at least {least}"),
        _ => format!("it takes a number from {least} to {most}"),
    })
}

/// Field lines in a head.
pub(super) fn field_count(text: &str) -> Result<usize, String> {
    number(text, 1, 1000).map_err(|_| "a number of field lines is 1 - 1000".to_owned())
}

/// `true` and `false` of the file are `on` and `off` of the flags.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it is on or off".to_owned()),
    }
}

pub(super) fn show_switch(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an address is IP:PORT, such as 127.0.0.1:8080 or [::1]:8080".to_owned())
}

pub(super) fn level(text: &str) -> Result<log::LevelFilter, String> {
    // Clap doesn't say where the value came from, and whoever set the variable may not know of the flag.
    let right = "a level (of --log-level or RUST_LOG) is off, error, warn, info, debug or trace";
    text.parse().map_err(|_| right.to_owned())
}

/// One of the values of a type that clap knows.
pub(super) fn choice<E: ValueEnum>(text: &str) -> Result<E, String> {
    let named = |value: &&E| value.to_possible_value().is_some_and(|possible| possible.get_name() == text);
    E::value_variants().iter().find(named).cloned().ok_or_else(|| one_of(&choices::<E>()))
}

pub(super) fn show_choice<E: ValueEnum>(value: &E) -> String {
    value.to_possible_value().map(|possible| possible.get_name().to_owned()).unwrap_or_default()
}

pub(super) fn choices<E: ValueEnum>() -> Vec<PossibleValue> {
    E::value_variants().iter().filter_map(E::to_possible_value).collect()
}

pub(super) fn on_or_off() -> Vec<PossibleValue> {
    ["on", "off"].map(PossibleValue::new).to_vec()
}

/// The sentence about these values.
pub(super) fn one_of(choices: &[PossibleValue]) -> String {
    let names: Vec<&str> = choices.iter().map(PossibleValue::get_name).collect();
    format!("it is one of {}", names.join(", "))
}

/// How policies are called. They live in a room that doesn't know clap.
const POLICIES: [(Policy, &str, &str); 5] = [
    (Policy::RoundRobin, "round_robin", "Each in its turn, as often as its weight says"),
    (Policy::LeastInFlight, "least_in_flight", "Whoever has the fewest requests in flight for its weight"),
    (Policy::TwoChoices, "two_choices", "The less loaded one of two, taken at random"),
    (Policy::PeakEwma, "peak_ewma", "Of two taken at random, the one with less load times latency"),
    (Policy::Hash, "hash", "Always the same for the same hash key"),
];

pub(super) fn policy(text: &str) -> Result<Policy, String> {
    let named = POLICIES.iter().find(|(_, name, _)| *name == text);
    named.map(|(policy, ..)| *policy).ok_or_else(|| one_of(&policies()))
}

pub(super) fn show_policy(policy: Policy) -> String {
    POLICIES.iter().find(|(other, ..)| *other == policy).map(|(_, name, _)| (*name).to_owned()).unwrap_or_default()
}

pub(super) fn policies() -> Vec<PossibleValue> {
    POLICIES.iter().map(|(_, name, about)| PossibleValue::new(name).help(about)).collect()
}

pub(super) fn hash_key(text: &str) -> Result<HashKey, String> {
    const SHAPE: &str = "a hash key is client, path, header:NAME, cookie:NAME or query:NAME";
    match text.split_once(':') {
        None if text == "client" => Ok(HashKey::Client),
        None if text == "path" => Ok(HashKey::Path),
        Some(("header", name)) => token(name).map(HashKey::Field),
        Some(("cookie", name)) => token(name).map(HashKey::Cookie),
        Some(("query", name)) if !name.is_empty() => Ok(HashKey::Query(name.to_owned())),
        _ => Err(SHAPE.to_owned()),
    }
}

pub(super) fn show_hash_key(key: &HashKey) -> String {
    match key {
        HashKey::Client => "client".to_owned(),
        HashKey::Path => "path".to_owned(),
        HashKey::Field(name) => format!("header:{name}"),
        HashKey::Cookie(name) => format!("cookie:{name}"),
        HashKey::Query(name) => format!("query:{name}"),
    }
}

/// A name as fields and cookies have them (RFC 9110 section 5.6.2).
pub(super) fn token(text: &str) -> Result<String, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_token) {
        return Err(format!("{text:?} is not a name; a name is made of letters, digits and !#$%&'*+-.^_`|~"));
    }
    Ok(text.to_owned())
}

/// What a backend is called, in logs and metrics.
pub(super) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 255 || !text.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        return Err("a name is 1 - 255 visible ASCII characters, without blanks".to_owned());
    }
    Ok(text.to_owned())
}

/// `ready` or `drain`: whether it is to be drained.
pub(super) fn state(text: &str) -> Result<bool, String> {
    match text {
        "ready" => Ok(false),
        "drain" => Ok(true),
        _ => Err(one_of(&states())),
    }
}

pub(super) fn states() -> Vec<PossibleValue> {
    ["ready", "drain"].map(PossibleValue::new).to_vec()
}

/// What a health check asks for.
pub(super) fn path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') || !text.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#') {
        return Err("a path begins with / and is visible ASCII without #, such as /healthz".to_owned());
    }
    Ok(text.to_owned())
}

/// The least and the greatest of some statuses.
pub(super) fn statuses(text: &str) -> Result<(u16, u16), String> {
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    let status = |text| number(text, 100, 599).ok();
    let range = status(least).zip(status(most)).filter(|(least, most)| least <= most);
    range.ok_or_else(|| "it is a status (100 - 599) or a range of them, such as 200 or 200-399".to_owned())
}

pub(super) fn show_statuses((least, most): (u16, u16)) -> String {
    if least == most { least.to_string() } else { format!("{least}-{most}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_as_the_same() {
        for micros in [0, 1, 1000, 1500, 500_000, 1_000_000, 1_500_000, 59_000_000, 60_000_000, 3_600_000_000] {
            let time = Duration::from_micros(micros);
            assert_eq!(time_or_none(&show_time(time)), Ok(time), "{time:?}");
        }
        for bytes in [0, 1, 1000, 1024, 1025, 1 << 20, (1 << 30) + 1, 5 << 30, u64::MAX] {
            assert_eq!(size(&show_size(bytes)), Ok(bytes), "{bytes}");
        }
        for (policy_of_row, name, _) in POLICIES {
            assert_eq!(policy(name), Ok(policy_of_row));
            assert_eq!(show_policy(policy_of_row), name);
        }
        for text in ["client", "path", "header:X-User", "cookie:id", "query:a b"] {
            assert_eq!(show_hash_key(&hash_key(text).unwrap()), text);
        }
        for text in ["200", "200-399"] {
            assert_eq!(show_statuses(statuses(text).unwrap()), text);
        }
    }

    #[test]
    fn durations_and_sizes_are_shown_as_people_write_them() {
        let times = [(500, "500ms"), (10_000, "10s"), (60_000, "60s"), (3_600_000, "1h"), (0, "0s")];
        for (millis, text) in times {
            assert_eq!(show_time(Duration::from_millis(millis)), text);
        }
        for (bytes, text) in [(16 << 10, "16KiB"), (1 << 20, "1MiB"), (1000, "1000B")] {
            assert_eq!(show_size(bytes), text);
        }
    }
}

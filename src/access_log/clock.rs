//! The time of a line, as text.

use std::io::Write;
use std::time::{Duration, SystemTime};

/// Writes times as text, and remembers the last second: within it, only the fractions differ.
#[derive(Debug, Default)]
pub struct Clock {
    second: u64,
    /// `2026-01-02T03:04:05`.
    rfc3339: String,
    /// `02/Jan/2026:03:04:05 +0000`.
    common: String,
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Clock {
    /// As RFC 3339 has it, in UTC, with milliseconds.
    pub(super) fn write_milliseconds(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let fraction = self.turn_to(time);
        out.extend_from_slice(self.rfc3339.as_bytes());
        write!(out, ".{:03}Z", fraction.as_millis()).expect("writing to a Vec can't fail");
    }

    /// The same, with microseconds.
    pub(super) fn write_microseconds(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let fraction = self.turn_to(time);
        out.extend_from_slice(self.rfc3339.as_bytes());
        write!(out, ".{:06}Z", fraction.as_micros()).expect("writing to a Vec can't fail");
    }

    /// As the common log format has it: whole seconds, in UTC.
    pub(super) fn write_common(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        self.turn_to(time);
        out.extend_from_slice(self.common.as_bytes());
    }

    /// Returns what is above the whole second.
    fn turn_to(&mut self, time: SystemTime) -> Duration {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if since.as_secs() != self.second || self.rfc3339.is_empty() {
            self.second = since.as_secs();
            let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(self.second);
            self.rfc3339 = humantime::format_rfc3339_seconds(whole).to_string().trim_end_matches('Z').to_owned();
            self.common = common(&self.rfc3339).unwrap_or_default();
        }
        Duration::from_nanos(u64::from(since.subsec_nanos()))
    }
}

/// The other way to write `2026-01-02T03:04:05`.
fn common(rfc3339: &str) -> Option<String> {
    let (date, time) = rfc3339.split_once('T')?;
    let [year, month, day] = *date.split('-').collect::<Vec<_>>() else { return None };
    let month = MONTHS.get(month.parse::<usize>().ok()?.checked_sub(1)?)?;
    Some(format!("{day}/{month}/{year}:{time} +0000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_either_way() {
        let mut clock = Clock::default();
        let mut told = |micros| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
            let mut out = [const { Vec::new() }; 3];
            clock.write_milliseconds(time, &mut out[0]);
            clock.write_microseconds(time, &mut out[1]);
            clock.write_common(time, &mut out[2]);
            out.map(|text| String::from_utf8(text).unwrap())
        };
        let first = ["1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00.000001Z", "01/Jan/1970:00:00:00 +0000"];
        assert_eq!(told(1), first);
        let later = ["2026-11-25T09:42:40.678Z", "2026-11-25T09:42:40.678901Z", "25/Nov/2026:09:42:40 +0000"];
        assert_eq!(told(1_795_599_760_678_901), later);
        assert_eq!(told(1_795_599_760_000_000)[1], "2026-11-25T09:42:40.000000Z");
    }
}

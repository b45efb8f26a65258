//! The numbers as plain tables, made of the same JSON that the page draws.
//!
//! Names, targets and sentences in it are other people's; everything that is written here is escaped.

use serde_json::Value;
use std::fmt::Write as _;

/// A name for people, and where in the JSON its value is; that stands in the name's `title`.
type Place = (&'static str, &'static str);

const NOW: [Place; 17] = [
    ("state", "/state"),
    ("up for", "/uptime_ms"),
    ("version", "/version"),
    ("client connections", "/clients/connections"),
    ("idle connections", "/clients/idle"),
    ("requests a second", "/window/requests_per_second"),
    ("errors a second", "/window/errors_per_second"),
    ("p50 of the last second", "/window/p50_us"),
    ("p99 of the last second", "/window/p99_us"),
    ("bytes in", "/bytes/in_bytes"),
    ("bytes out", "/bytes/out_bytes"),
    ("reloads", "/reloads/done"),
    ("reloads refused", "/reloads/refused"),
    ("why the last reload was refused", "/reloads/last_error"),
    ("lines that the log has dropped", "/log/lines_dropped"),
    ("viewers of the page", "/viewers"),
    ("a demonstration", "/demo"),
];

const LATENCY: [Place; 12] = [
    ("from first byte to last: requests", "/latency/total/count"),
    ("all together", "/latency/total/sum_us"),
    ("half of them at most", "/latency/total/p50_us"),
    ("90 of 100 at most", "/latency/total/p90_us"),
    ("99 of 100 at most", "/latency/total/p99_us"),
    ("the longest", "/latency/total/max_us"),
    ("until the answer begins: requests", "/latency/head/count"),
    ("all of these together", "/latency/head/sum_us"),
    ("half of these at most", "/latency/head/p50_us"),
    ("90 of 100 of these at most", "/latency/head/p90_us"),
    ("99 of 100 of these at most", "/latency/head/p99_us"),
    ("the longest of these", "/latency/head/max_us"),
];

const ANSWERS: [Place; 5] = [
    ("1xx", "/responses/1xx"),
    ("2xx", "/responses/2xx"),
    ("3xx", "/responses/3xx"),
    ("4xx", "/responses/4xx"),
    ("5xx", "/responses/5xx"),
];

const BOOKS: [Place; 5] = [
    ("requests", "/books/requests"),
    ("answered", "/books/answered"),
    ("refused", "/books/refused"),
    ("failed", "/books/failed"),
    ("open", "/books/open"),
];

const LOT: [Place; 9] = [
    ("parked in all", "/lot/parked"),
    ("for a request", "/lot/request"),
    ("for the rest of a head", "/lot/head"),
    ("for the rest of a body", "/lot/body"),
    ("for a place at a backend", "/lot/queue"),
    ("for a backend's answer", "/lot/backend"),
    ("for a slow reader", "/lot/slow_reader"),
    ("for a tunnel's next word", "/lot/tunnel"),
    ("for a gentle close", "/lot/closing"),
];

const QUEUE: [Place; 5] = [
    ("waiting now", "/queue/length"),
    ("the oldest has waited", "/queue/oldest_us"),
    ("served", "/queue/served"),
    ("waited in vain", "/queue/timed_out"),
    ("turned away", "/queue/full"),
];

const WORKERS: [Place; 7] = [
    ("worker", "/id"),
    ("doing", "/doing"),
    ("busy", "/busy_share"),
    ("turns a second", "/turns_per_second"),
    ("turns", "/turns"),
    ("has worked for", "/busy_us"),
    ("panics", "/panics"),
];

const BACKENDS: [Place; 33] = [
    ("backend", "/name"),
    ("address", "/address"),
    ("state", "/state"),
    ("why", "/why"),
    ("weight", "/weight"),
    ("backup", "/backup"),
    ("share of requests", "/share"),
    ("share of waiting", "/waiting_share"),
    ("in flight", "/in_flight"),
    ("not answered yet", "/awaited"),
    ("answers", "/latency/count"),
    ("waited for them in all", "/latency/sum_us"),
    ("p50", "/latency/p50_us"),
    ("p90", "/latency/p90_us"),
    ("p99", "/latency/p99_us"),
    ("longest", "/latency/max_us"),
    ("requests", "/requests"),
    ("1xx", "/responses/1xx"),
    ("2xx", "/responses/2xx"),
    ("3xx", "/responses/3xx"),
    ("4xx", "/responses/4xx"),
    ("5xx", "/responses/5xx"),
    ("failures", "/failures"),
    ("retries", "/retries"),
    ("ejections", "/ejections"),
    ("readmissions", "/readmissions"),
    ("next trial in", "/next_trial_us"),
    ("spares", "/spares"),
    ("spares used again", "/spares_reused"),
    ("spares found dead", "/spares_dead"),
    ("dials", "/dials"),
    ("bytes in", "/bytes_in"),
    ("bytes out", "/bytes_out"),
];

/// A moment, which is told as the time since.
const ENDED: &str = "/ended_ms";

const SAMPLES: [Place; 15] = [
    ("request", "/target"),
    ("method", "/method"),
    ("status", "/status"),
    ("backend", "/backend"),
    ("reason", "/reason"),
    ("tries", "/tries"),
    ("queued", "/queue_us"),
    ("dialled", "/connect_us"),
    ("waited", "/first_byte_us"),
    ("answer began", "/head_us"),
    ("in all", "/total_us"),
    ("bytes in", "/bytes_in"),
    ("bytes out", "/bytes_out"),
    ("ended", ENDED),
    ("id", "/id"),
];

/// All of them.
pub(super) fn write(stats: &Value) -> String {
    let mut out = String::new();
    column(&mut out, "Now", stats, &NOW);
    column(&mut out, "The books: requests = answered + refused + failed + open", stats, &BOOKS);
    rows(&mut out, "The backends", stats, "/backends", &BACKENDS);
    column(&mut out, "The lot: who is parked, and what for", stats, &LOT);
    rows(&mut out, "The workers", stats, "/workers", &WORKERS);
    column(&mut out, "The queue for a place at a backend", stats, &QUEUE);
    column(&mut out, "Answers, by the class of their status", stats, &ANSWERS);
    column(&mut out, "How long requests took", stats, &LATENCY);
    let reasons = stats["reasons"].as_object().into_iter().flatten();
    pairs(
        &mut out,
        "Reasons why requests did not go as hoped",
        reasons.map(|(word, count)| (&**word, count.to_string())),
    );
    let events = stats["events"].as_array().into_iter().flatten().rev();
    let told = events.map(|event| {
        let [kind, text] = ["kind", "text"].map(|name| event[name].as_str().unwrap_or_default());
        (kind, format!("{text} ({})", ago(stats, &event["at_ms"])))
    });
    pairs(&mut out, "What happened, the newest first", told);
    rows(&mut out, "A sample of the last requests", stats, "/samples", &SAMPLES);
    out
}

/// A table of names and values.
fn column(out: &mut String, caption: &str, stats: &Value, places: &[Place]) {
    begin(out, caption);
    for (name, place) in places {
        let (name, title, value) = (Escaped(name), title(place), shown(stats, place));
        write_to(
            out,
            format_args!("<tr><th scope=\"row\" title=\"{title}\">{name}</th><td>{}</td></tr>\n", Escaped(&value)),
        );
    }
    out.push_str("</table></div>\n");
}

/// The same, where the names are not ours.
fn pairs<'a>(out: &mut String, caption: &str, pairs: impl Iterator<Item = (&'a str, String)>) {
    begin(out, caption);
    for (name, value) in pairs {
        write_to(out, format_args!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", Escaped(name), Escaped(&value)));
    }
    out.push_str("</table></div>\n");
}

/// What a value is called in the JSON.
fn title(place: &str) -> Escaped<'_> {
    Escaped(place.trim_start_matches('/'))
}

/// A table with a row for each of a list.
fn rows(out: &mut String, caption: &str, stats: &Value, list: &str, columns: &[Place]) {
    begin(out, caption);
    out.push_str("<tr>");
    for (name, place) in columns {
        write_to(out, format_args!("<th scope=\"col\" title=\"{}\">{}</th>", title(place), Escaped(name)));
    }
    out.push_str("</tr>\n");
    for item in stats.pointer(list).and_then(Value::as_array).into_iter().flatten() {
        out.push_str("<tr>");
        for (nth, (_, place)) in columns.iter().enumerate() {
            let value = if *place == ENDED { ago(stats, &item["ended_ms"]) } else { shown(item, place) };
            let (open, close) = if nth == 0 { ("th scope=\"row\"", "th") } else { ("td", "td") };
            write_to(out, format_args!("<{open}>{}</{close}>", Escaped(&value)));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

/// A wide table is scrolled by itself, also by keyboard.
fn begin(out: &mut String, caption: &str) {
    let caption = Escaped(caption);
    write_to(
        out,
        format_args!(
            "<div class=\"wide\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\"><table>\n<caption>{caption}</caption>\n"
        ),
    );
}

fn write_to(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _never_fails = out.write_fmt(text);
}

/// How long this moment has been over.
fn ago(stats: &Value, moment: &Value) -> String {
    let [now, then] = [&stats["now_ms"], moment].map(|value| value.as_u64().unwrap_or_default());
    format!("{} s ago", now.saturating_sub(then) / 1000)
}

/// The value at this place, as people read it; its unit stands at the end of its name.
fn shown(stats: &Value, place: &str) -> String {
    let value = stats.pointer(place).unwrap_or(&Value::Null);
    if value.is_null() {
        "\u{2013}".to_owned()
    } else if let Some(text) = value.as_str() {
        text.to_owned()
    } else if let Some(is_so) = value.as_bool() {
        if is_so { "yes" } else { "no" }.to_owned()
    } else if place.ends_with("_us") {
        duration(value.as_u64().unwrap_or_default())
    } else if place.ends_with("_ms") {
        format!("{} s", value.as_u64().unwrap_or_default() / 1000)
    } else if place.ends_with("share") {
        format!("{:.0} %", value.as_f64().unwrap_or_default() * 100.0)
    } else {
        value.to_string()
    }
}

fn duration(us: u64) -> String {
    let part = |unit: u64, word: &str| format!("{}.{:02} {word}", us / unit, us % unit / (unit / 100));
    match us {
        0..1000 => format!("{us} \u{b5}s"),
        1000..1_000_000 => part(1000, "ms"),
        1_000_000.. => part(1_000_000, "s"),
    }
}

/// Text that is no markup, whatever stands in it.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_shown_with_their_units() {
        let rows = [
            ("a_us", json!(999), "999 \u{b5}s"),
            ("a_us", json!(12_345), "12.34 ms"),
            ("a_us", json!(2_500_000), "2.50 s"),
            ("a_us", json!(null), "\u{2013}"),
            ("a_ms", json!(61_000), "61 s"),
            ("busy_share", json!(0.126), "13 %"),
            ("count", json!(7), "7"),
            ("is", json!(true), "yes"),
        ];
        for (name, value, wanted) in rows {
            assert_eq!(shown(&json!({ name: value }), &format!("/{name}")), wanted, "{name}: {value}");
        }
    }

    #[test]
    fn nothing_in_a_value_is_markup() {
        let stats = json!({
            "backends": [{ "name": "<b>&'\"", "why": "<script>" }],
            "reasons": { "<i>": 1 },
            "events": [{ "at_ms": 0, "kind": "<u>", "text": "<s>" }],
        });
        let written = write(&stats);
        for tag in ["<b>", "<script>", "<i>", "<u>", "<s>", "'\""] {
            assert!(!written.contains(tag), "{tag}");
        }
        assert!(written.contains("&lt;b&gt;&amp;&#39;&quot;"));
    }
}

//! The numbers as a page: a table that needs neither script nor style.

use super::pulse::View;
use super::stats;
use std::fmt::Write as _;

/// What the page may load: nothing.
pub(super) const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page.
pub(super) fn write(view: &View) -> String {
    let figures = &view.figures;
    let state = if view.is_draining { "draining" } else { "serving" };
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>threadbare</title>\n",
    );
    let mut add = |text: std::fmt::Arguments<'_>| {
        let _never_fails = page.write_fmt(text);
    };
    add(format_args!("<h1>threadbare {}</h1>\n<table>\n", env!("CARGO_PKG_VERSION")));
    add(format_args!("<caption>It is {state}, and has been up for {} s</caption>\n", view.uptime.as_secs()));
    let rows = [
        ("requests", figures.requests),
        ("answered", figures.answered),
        ("refused", figures.refused()),
        ("failed", figures.failed()),
        ("open", figures.open),
        ("connections", figures.connections as u64),
        ("parked", figures.parked.iter().sum::<usize>() as u64),
        ("in the queue", figures.queue.length as u64),
    ];
    for (name, number) in rows {
        add(format_args!("<tr><th scope=\"row\">{name}<td>{number}\n"));
    }
    add(format_args!("</table>\n<table>\n<caption>Backends</caption>\n<tr>"));
    for name in ["name", "address", "state", "requests", "failures", "in flight", "spares", "p50", "p99"] {
        add(format_args!("<th scope=\"col\">{name}"));
    }
    for backend in &figures.backends {
        let (name, address) = (escaped(&backend.name), escaped(&backend.address));
        let (state, why, _) = stats::condition(backend);
        let state = if why.is_empty() { state.to_owned() } else { format!("{state}: {why}") };
        let (requests, failures) = (backend.balance.requests(), backend.balance.failures);
        let head = &backend.balance.head;
        let [p50, p99] = [50, 99].map(|percent| head.percentile(percent));
        add(format_args!("\n<tr><th scope=\"row\">{name}<td>{address}<td>{state}<td>{requests}<td>{failures}"));
        add(format_args!("<td>{}<td>{}<td>{p50} \u{b5}s<td>{p99} \u{b5}s", backend.in_flight, backend.spares));
    }
    add(format_args!("\n</table>\n"));
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

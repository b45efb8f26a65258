//! The figures as Prometheus reads them (text format 0.0.4): base units, `_total` behind what only grows, one family after
//! the other. What each means stands in one table, which `docs/METRICS.md` is held against.

use super::figures::{BackendFigures, Figures};
use super::tally::{Doing, WaitsFor};
use crate::balance::{Balance, Condition};
use crate::counting::Distribution;
use std::fmt::{Display, Write as _};
use std::time::Duration;

/// One family of numbers.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels, with a comma between them.
    pub labels: &'static str,
    /// What it means.
    pub help: &'static str,
    write: fn(&mut Family<'_>, &Figures, &Circumstances),
}

/// What is to be told beside the figures.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Configurations that were taken, and that were refused.
    pub reloads: (u64, u64),
    /// A drain is announced.
    pub is_draining: bool,
    /// How long the program has been serving.
    pub uptime: Duration,
    /// How many watch the event stream.
    pub viewers: usize,
}

const fn metric(
    name: &'static str,
    kind: &'static str,
    labels: &'static str,
    help: &'static str,
    write: fn(&mut Family<'_>, &Figures, &Circumstances),
) -> Metric {
    Metric { name, kind, labels, help, write }
}

/// All families, in the order in which they are written.
#[rustfmt::skip] // a table: a row at a time
pub const METRICS: &[Metric] = &[
    metric("threadbare_build_info", "gauge", "version", "1; the version is in the label.",
        |m, _, _| m.add(&[env!("CARGO_PKG_VERSION")], 1)),
    metric("threadbare_uptime_seconds", "gauge", "", "Time since it began to serve.",
        |m, _, c| m.add(&[], c.uptime.as_secs_f64())),
    metric("threadbare_draining", "gauge", "", "1 from the announcement of a drain on.",
        |m, _, c| m.add(&[], u8::from(c.is_draining))),
    metric("threadbare_requests_begun_total", "counter", "", "Requests that have begun.",
        |m, f, _| m.add(&[], f.requests)),
    metric("threadbare_requests_total", "counter", "backend, class",
        "Requests that have ended, by the backend that answered or was asked last (none: empty) and the class of their status.",
        |m, f, _| {
            classes(m, "", &f.own);
            accounts(f).for_each(|(name, balance)| classes(m, name, &balance.classes));
        }),
    metric("threadbare_reasons_total", "counter", "reason", "Requests that have not ended as their client hoped, by reason word.",
        |m, f, _| f.reasons.iter().for_each(|(reason, count)| m.add(&[reason.word()], count))),
    metric("threadbare_requests_in_flight", "gauge", "", "Requests that have begun and not ended.",
        |m, f, _| m.add(&[], f.open)),
    metric("threadbare_request_bytes_total", "counter", "", "Bytes of request bodies that came from clients.",
        |m, f, _| m.add(&[], f.bytes_in)),
    metric("threadbare_response_bytes_total", "counter", "", "Bytes of response bodies that went out to clients.",
        |m, f, _| m.add(&[], f.bytes_out)),
    metric("threadbare_response_head_seconds", "histogram", "", "From the last byte of a request to the head of its response.",
        |m, f, _| m.add_histogram(&[], &f.head)),
    metric("threadbare_request_seconds", "histogram", "", "From the first byte of a request to the last of its response.",
        |m, f, _| m.add_histogram(&[], &f.total)),
    metric("threadbare_client_connections", "gauge", "", "Client connections that are open.",
        |m, f, _| m.add(&[], f.connections)),
    metric("threadbare_parked", "gauge", "for", "Clients that are parked in the lot, by what they wait for.",
        |m, f, _| WaitsFor::ALL.iter().zip(f.parked).for_each(|(what, count)| m.add(&[what.word()], count))),
    metric("threadbare_queue_length", "gauge", "", "Requests that wait for a place at a backend.",
        |m, f, _| m.add(&[], f.queue.length)),
    metric("threadbare_queue_oldest_seconds", "gauge", "", "How long the first of them has waited; 0 if none does.",
        |m, f, _| m.add(&[], f.queue.oldest.unwrap_or_default().as_secs_f64())),
    metric("threadbare_queue_served_total", "counter", "", "Requests that were given a place after a wait.",
        |m, f, _| m.add(&[], f.queue.served)),
    metric("threadbare_worker_turns_total", "counter", "worker", "Turns that a worker has given.",
        |m, f, _| m.each_worker(f, |worker| worker.turns)),
    metric("threadbare_worker_busy_seconds_total", "counter", "worker", "Time that a worker has worked.",
        |m, f, _| m.each_worker(f, |worker| worker.busy.as_secs_f64())),
    metric("threadbare_worker_state", "gauge", "worker, state", "1 for what a worker does now: waiting or working.",
        |m, f, _| for (nth, worker) in f.workers.iter().enumerate() {
            Doing::ALL.iter().for_each(|doing| m.add(&[&nth.to_string(), doing.word()], u8::from(worker.doing == *doing)));
        }),
    metric("threadbare_worker_stretch_seconds", "histogram", "", "How long a worker works from one wait to the next.",
        |m, f, _| m.add_histogram(&[], &f.stretches)),
    metric("threadbare_panics_total", "counter", "", "Turns that panicked; each has cost a connection.",
        |m, f, _| m.add(&[], f.panics)),
    metric("threadbare_backend_up", "gauge", "backend", "1 if the backend gets requests: it is neither ejected nor down nor drained.",
        |m, f, _| m.each_backend(f, |backend| u8::from(backend.condition == Condition::Up && !backend.drain))),
    metric("threadbare_backend_draining", "gauge", "backend", "1 if the backend gets nothing new, by configuration or order.",
        |m, f, _| m.each_backend(f, |backend| u8::from(backend.drain))),
    metric("threadbare_backend_weight", "gauge", "backend", "Its share, beside the others' weights.",
        |m, f, _| m.each_backend(f, |backend| backend.weight)),
    metric("threadbare_backend_in_flight", "gauge", "backend", "Requests that are with the backend.",
        |m, f, _| m.each_backend(f, |backend| backend.in_flight)),
    metric("threadbare_backend_awaited", "gauge", "backend", "Those of them that it has not answered yet.",
        |m, f, _| m.each_backend(f, |backend| backend.awaited)),
    metric("threadbare_backend_spares", "gauge", "backend", "Connections to the backend that are kept for the next request.",
        |m, f, _| m.each_backend(f, |backend| backend.spares)),
    metric("threadbare_backend_failures_total", "counter", "backend", "Requests that have ended by the backend's fault.",
        |m, f, _| m.each_account(f, |balance| balance.failures)),
    metric("threadbare_backend_request_bytes_total", "counter", "backend", "Bytes of request bodies, of requests that ended with the backend.",
        |m, f, _| m.each_account(f, |balance| balance.bytes_in)),
    metric("threadbare_backend_response_bytes_total", "counter", "backend", "Bytes of response bodies, of requests that ended with the backend.",
        |m, f, _| m.each_account(f, |balance| balance.bytes_out)),
    metric("threadbare_backend_response_head_seconds", "histogram", "backend", "From the last byte of a request to the head of the backend's response.",
        |m, f, _| accounts(f).for_each(|(name, balance)| m.add_histogram(&[name], &balance.head))),
    metric("threadbare_backend_dials_total", "counter", "backend", "Connections opened to the backend.",
        |m, f, _| m.each_account(f, |balance| balance.dials)),
    metric("threadbare_backend_spares_reused_total", "counter", "backend", "Kept connections that were used again.",
        |m, f, _| m.each_account(f, |balance| balance.spares_reused)),
    metric("threadbare_backend_spares_dead_total", "counter", "backend", "Kept connections that the backend had closed.",
        |m, f, _| m.each_account(f, |balance| balance.spares_dead)),
    metric("threadbare_backend_retries_total", "counter", "backend", "Tries with the backend that failed and were followed by another, there or elsewhere.",
        |m, f, _| m.each_account(f, |balance| balance.retries)),
    metric("threadbare_backend_ejections_total", "counter", "backend", "How often the backend was taken out of the rotation.",
        |m, f, _| m.each_account(f, |balance| balance.ejections)),
    metric("threadbare_backend_readmissions_total", "counter", "backend", "How often the backend has come back.",
        |m, f, _| m.each_account(f, |balance| balance.readmissions)),
    metric("threadbare_log_lines_dropped_total", "counter", "", "Lines that the access log could not keep up with.",
        |m, f, _| m.add(&[], f.log_lines_dropped)),
    metric("threadbare_reloads_total", "counter", "outcome", "Configurations offered: done or refused.",
        |m, _, c| {
            m.add(&["done"], c.reloads.0);
            m.add(&["refused"], c.reloads.1);
        }),
    metric("threadbare_viewers", "gauge", "", "How many watch the event stream.",
        |m, _, c| m.add(&[], c.viewers)),
];

/// Where buckets end, in microseconds: those of the histogram that people would choose. (Prometheus keeps a series for
/// each, for every backend.)
const LE: [u64; 18] = [
    100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// All of it.
pub fn write_text(figures: &Figures, circumstances: &Circumstances) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let Metric { name, kind, help, .. } = metric;
        let _never_fails = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        (metric.write)(&mut Family { metric, text: &mut text }, figures, circumstances);
    }
    text
}

/// One family, being written.
struct Family<'t> {
    metric: &'static Metric,
    text: &'t mut String,
}

impl Family<'_> {
    fn add(&mut self, labels: &[&str], value: impl Display) {
        self.line("", labels, None, value);
    }

    fn add_histogram(&mut self, labels: &[&str], distribution: &Distribution) {
        for (bound, count) in distribution.cumulative().filter(|(bound, _)| LE.contains(bound)) {
            self.line("_bucket", labels, Some(&seconds(bound)), count);
        }
        self.line("_bucket", labels, Some("+Inf"), distribution.count());
        self.line("_sum", labels, None, seconds(distribution.sum()));
        self.line("_count", labels, None, distribution.count());
    }

    fn each_worker<V: Display>(&mut self, figures: &Figures, value: impl Fn(&super::WorkerFigures) -> V) {
        for (nth, worker) in figures.workers.iter().enumerate() {
            self.add(&[&nth.to_string()], value(worker));
        }
    }

    fn each_backend<V: Display>(&mut self, figures: &Figures, value: impl Fn(&BackendFigures) -> V) {
        for backend in &figures.backends {
            self.add(&[&backend.name], value(backend));
        }
    }

    fn each_account(&mut self, figures: &Figures, value: impl Fn(&Balance) -> u64) {
        accounts(figures).for_each(|(name, balance)| self.add(&[name], value(balance)));
    }

    fn line(&mut self, suffix: &str, values: &[&str], le: Option<&str>, value: impl Display) {
        *self.text += self.metric.name;
        *self.text += suffix;
        let names = self.metric.labels.split(", ").filter(|name| !name.is_empty());
        let labels = names.zip(values.iter().copied()).chain(le.map(|le| ("le", le)));
        for (nth, (name, value)) in labels.clone().enumerate() {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let before = if nth == 0 { '{' } else { ',' };
            let _never_fails = write!(self.text, "{before}{name}=\"{escaped}\"");
        }
        let end = if labels.count() > 0 { "}" } else { "" };
        let _never_fails = writeln!(self.text, "{end} {value}");
    }
}

fn classes(family: &mut Family<'_>, backend: &str, classes: &[u64]) {
    for (class, count) in classes.iter().enumerate().skip(1) {
        family.add(&[backend, &format!("{class}xx")], count);
    }
}

/// Those that have a name. What is forgotten of backends that are long gone would move from one series to another.
fn accounts(figures: &Figures) -> impl Iterator<Item = (&str, &Balance)> {
    figures.accounts.iter().filter(|(name, _)| !name.is_empty()).map(|(name, balance)| (&**name, balance))
}

/// Microseconds as seconds, exactly.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

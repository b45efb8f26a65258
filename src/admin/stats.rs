//! The numbers as JSON. Names are only ever added; durations are whole microseconds, sizes are bytes.

use super::pulse::View;
use crate::balance::{Balance, CLASSES, Condition};
use crate::counting::Distribution;
use crate::metrics::{BackendFigures, Figures, Sample, WaitsFor};
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime};

/// All that there is to tell, written down.
pub(super) fn write(view: &View) -> String {
    value(view).to_string()
}

/// All that there is to tell.
pub(super) fn value(view: &View) -> Value {
    let figures = &view.figures;
    let (done, refused) = view.reloads;
    json!({
        "now_ms": milliseconds(SystemTime::now()),
        "uptime_ms": u64::try_from(view.uptime.as_millis()).unwrap_or(u64::MAX),
        "version": env!("CARGO_PKG_VERSION"),
        "state": if view.is_draining { "draining" } else { "serving" },
        "reloads": {"done": done, "refused": refused, "last_error": view.last_error},
        "books": {
            "requests": figures.requests,
            "answered": figures.answered,
            "refused": figures.refused(),
            "failed": figures.failed(),
            "open": figures.open,
        },
        "responses": classes(&figures.classes),
        "reasons": figures.reasons.iter().filter(|(_, count)| *count > 0).map(|(reason, count)| (reason.word().to_owned(), json!(count))).collect::<Map<_, _>>(),
        "bytes": {"in_bytes": figures.bytes_in, "out_bytes": figures.bytes_out},
        "latency": {"head": distribution(&figures.head), "total": distribution(&figures.total)},
        "window": window(view),
        "clients": {"connections": figures.connections, "idle": figures.parked[WaitsFor::Request as usize]},
        "lot": lot(figures),
        "queue": {
            "length": figures.queue.length,
            "oldest_us": figures.queue.oldest.map(micros),
            "served": figures.queue.served,
            "timed_out": figures.of_reason(crate::error::Reason::QueueTimeout),
            "full": figures.of_reason(crate::error::Reason::QueueFull),
        },
        "workers": workers(view),
        "backends": backends(view),
        "events": view.events.iter().map(|event| json!({"at_ms": milliseconds(event.at), "kind": event.kind.word(), "text": event.text})).collect::<Vec<_>>(),
        "samples": view.samples.iter().map(sample).collect::<Vec<_>>(),
        "log": {"lines_dropped": figures.log_lines_dropped},
        "demo": view.is_demo,
        "viewers": view.viewers,
    })
}

fn lot(figures: &Figures) -> Value {
    let parts = WaitsFor::ALL.iter().zip(figures.parked).map(|(what, count)| (what.word().to_owned(), json!(count)));
    let sum: usize = figures.parked.iter().sum();
    parts.chain([("parked".to_owned(), json!(sum))]).collect::<Map<_, _>>().into()
}

/// What happened in the last second.
fn window(view: &View) -> Value {
    let (now, then) = (&view.figures, &view.earlier);
    let total = now.total.since(&then.total);
    let per_second = |count: u64| rate(count as f64, view);
    let errors = |figures: &Figures| figures.classes.last().copied().unwrap_or_default();
    json!({
        "p50_us": total.percentile(50),
        "p99_us": total.percentile(99),
        "requests_per_second": per_second(total.count()),
        "errors_per_second": per_second(errors(now).saturating_sub(errors(then))),
    })
}

/// So much a second, since the earlier figures.
fn rate(amount: f64, view: &View) -> f64 {
    let seconds = view.figures.at.saturating_duration_since(view.earlier.at).as_secs_f64();
    if seconds > 0.0 { rounded(amount / seconds) } else { 0.0 }
}

/// Four digits behind the point are enough for anybody.
fn rounded(number: f64) -> f64 {
    (number * 10_000.0).round() / 10_000.0
}

fn workers(view: &View) -> Vec<Value> {
    let pairs = view.figures.workers.iter().zip(&view.earlier.workers);
    pairs
        .enumerate()
        .map(|(id, (now, then))| {
            json!({
                "id": id,
                "doing": now.doing.word(),
                "turns": now.turns,
                "turns_per_second": rate(now.turns.saturating_sub(then.turns) as f64, view),
                "busy_share": rate(now.busy.saturating_sub(then.busy).as_secs_f64(), view).min(1.0),
                "busy_us": micros(now.busy),
                "panics": now.panics,
            })
        })
        .collect()
}

fn backends(view: &View) -> Vec<Value> {
    let figures = &view.figures;
    let before = |backend: &BackendFigures| {
        let earlier = view.earlier.backends.iter().find(|earlier| earlier.name == backend.name);
        earlier.map_or(0, |earlier| earlier.balance.requests())
    };
    let recent = |backend: &BackendFigures| backend.balance.requests().saturating_sub(before(backend));
    let all_recent: u64 = figures.backends.iter().map(recent).sum();
    let all: u64 = figures.backends.iter().map(|backend| backend.balance.requests()).sum();
    let waited = |backend: &BackendFigures| waited(backend, view);
    let all_waited: u64 = figures.backends.iter().map(waited).sum();
    let part = |of: u64, all: u64| if all > 0 { rounded(of as f64 / all as f64) } else { 0.0 };
    let row = |backend: &BackendFigures| {
        let (state, why, next_trial) = condition(backend);
        let Balance { dials, spares_reused, spares_dead, retries, ejections, readmissions, .. } = backend.balance;
        // Of the last second; before anything has ended in it, of all time.
        let share = match all_recent {
            0 => part(backend.balance.requests(), all),
            all_recent => part(recent(backend), all_recent),
        };
        json!({
            "name": &*backend.name,
            "address": backend.address,
            "state": state,
            "why": why,
            "weight": backend.weight,
            "backup": backend.backup,
            "requests": backend.balance.requests(),
            "share": share,
            "waiting_share": part(waited(backend), all_waited),
            "in_flight": backend.in_flight,
            "awaited": backend.awaited,
            "spares": backend.spares,
            "dials": dials,
            "spares_reused": spares_reused,
            "spares_dead": spares_dead,
            "retries": retries,
            "ejections": ejections,
            "readmissions": readmissions,
            "responses": classes(&backend.balance.classes),
            "failures": backend.balance.failures,
            "bytes_in": backend.balance.bytes_in,
            "bytes_out": backend.balance.bytes_out,
            "latency": distribution(&backend.balance.head),
            "next_trial_us": next_trial.map(micros),
        })
    };
    figures.backends.iter().map(row).collect()
}

/// How long clients have waited for this backend within the last second or so, all of them together, in microseconds:
/// for answers that have come since, and for those that were awaited then and still are.
fn waited(backend: &BackendFigures, view: &View) -> u64 {
    let Some(before) = view.earlier.backends.iter().find(|earlier| earlier.name == backend.name) else { return 0 };
    let answered = backend.balance.head.since(&before.balance.head).sum();
    let in_vain = backend.awaited.min(before.awaited) as u64;
    answered + in_vain * micros(view.figures.at.saturating_duration_since(view.earlier.at))
}

/// The word for it, why it is so, and the time until a trial is due.
pub(super) fn condition(backend: &BackendFigures) -> (&'static str, &'static str, Option<Duration>) {
    match backend.condition {
        Condition::Down => ("down", "its checks fail, or its name has no address", None),
        Condition::Ejected(why, due) => ("ejected", why.word(), Some(due)),
        Condition::OnTrial(why) => ("trial", why.word(), None),
        Condition::Up if backend.drain => ("drain", "it is to get nothing new", None),
        Condition::Up => ("up", "", None),
    }
}

fn sample(sample: &Sample) -> Value {
    json!({
        "id": sample.id,
        "method": sample.method,
        "target": sample.target,
        "status": sample.status,
        "backend": sample.backend,
        "reason": sample.reason.map(|reason| reason.word()),
        "ended_ms": milliseconds(sample.ended),
        "tries": sample.tries,
        "queue_us": sample.queued.map(micros),
        "connect_us": sample.connect.map(micros),
        "first_byte_us": sample.first_byte.map(micros),
        "head_us": sample.head.map(micros),
        "total_us": micros(sample.total),
        "bytes_in": sample.bytes_in,
        "bytes_out": sample.bytes_out,
    })
}

fn classes(classes: &[u64; CLASSES]) -> Value {
    let counts = classes.iter().enumerate().skip(1).map(|(class, count)| (format!("{class}xx"), json!(count)));
    counts.collect::<Map<_, _>>().into()
}

fn distribution(distribution: &Distribution) -> Value {
    json!({
        "count": distribution.count(),
        "sum_us": distribution.sum(),
        "p50_us": distribution.percentile(50),
        "p90_us": distribution.percentile(90),
        "p99_us": distribution.percentile(99),
        "max_us": distribution.max(),
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

//! Tables, and the page in `docs`.

use crate::result::{Measured, Outcome, Sample, Verdict, verdicts};
use crate::scenario::{Against, Metric, Per};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

/// What the bench writes stands between these two lines of the page; the rest of it is written by hand.
const BEGIN: &str = "<!-- written by the bench: begin -->";
const END: &str = "<!-- written by the bench: end -->";

/// The table of one scenario.
pub(crate) fn scenario(measured: &Measured) -> String {
    let scenario = measured.scenario;
    let unit = match scenario.per {
        Per::Request => "CPU µs/request",
        Per::Mebibyte => "CPU µs/MiB",
    };
    let idle = if measured.ours().rounds[0].idle_bytes.is_some() { (" B/idle |", "---|") } else { ("", "") };
    let mut text = format!(
        "### {}: {}\n\n| | requests/s | {unit} | p50 µs | p99 µs | MiB | threads | switches | system calls | failed |{}\n\
         |---|---|---|---|---|---|---|---|---|---|{}\n",
        scenario.name, scenario.what, idle.0, idle.1
    );
    for outcome in &measured.outcomes {
        text += &row(outcome, scenario.per);
    }
    for (against, name) in [(Against::BestPeer, "the best peer's"), (Against::Floor, "the floor's")] {
        let ratios = [("processor time", Metric::Cpu), ("requests/s", Metric::Rate), ("p99", Metric::P99)];
        let rival = |metric| match against {
            Against::BestPeer => measured.best_peer(metric).map(|peer| format!(" ({})", peer.name)).unwrap_or_default(),
            Against::Floor | Against::Nobody => String::new(),
        };
        let known = ratios.iter().filter_map(|(name, metric)| Some((name, metric, measured.ratio(*metric, against)?)));
        let known: Vec<String> =
            known.map(|(name, metric, ratio)| format!("{name} {ratio:.2}{}", rival(*metric))).collect();
        if !known.is_empty() {
            write!(text, "\nOurs over {name}: {}.\n", known.join(", ")).unwrap();
        }
    }
    text
}

fn row(outcome: &Outcome, per: Per) -> String {
    let median = |of: fn(&Sample) -> f64| outcome.median(of);
    let per_request = |sample: &Sample| sample.switches as f64 / sample.requests as f64;
    let syscalls = outcome.syscalls.as_ref().map_or("-".to_owned(), |syscalls| format!("{:.2}", syscalls.all));
    let idle = outcome.idle_bytes().map(|bytes| format!(" {bytes:.0} |")).unwrap_or_default();
    format!(
        "| {} | {:.0} | {:.1} | {:.0} | {:.0} | {:.1} | {:.0} | {:.2} | {syscalls} | {} |{idle}\n",
        outcome.name,
        median(Sample::rate),
        outcome.median(|sample| sample.cpu_per(per)),
        median(|sample| sample.p50),
        median(|sample| sample.p99),
        median(|sample| sample.resident as f64) / f64::from(1 << 20),
        median(|sample| sample.threads as f64),
        outcome.median(per_request),
        outcome.failed(),
    )
}

/// Every bar: what was to be reached, what was, and whether that is won or lost.
pub(crate) fn bars(measured: &[Measured]) -> String {
    let verdicts = verdicts(measured);
    let mut text = "| bar | against | scenario | wanted | measured | |\n|---|---|---|---|---|---|\n".to_owned();
    for verdict in verdicts.iter().filter(|verdict| verdict.bar.metric != Metric::Failed) {
        let Verdict { bar, scenario, value, is_taken } = verdict;
        let against = match bar.against {
            Against::BestPeer => "best peer",
            Against::Floor => "floor",
            Against::Nobody => "-",
        };
        let won = if *is_taken { "won" } else { "**lost**" };
        let sign = bar.sign();
        writeln!(text, "| {} | {against} | {scenario} | {sign} {:.4} | {value:.2} | {won} |", bar.claim, bar.limit)
            .unwrap();
    }
    let failing = verdicts.iter().filter(|verdict| verdict.bar.metric == Metric::Failed && !verdict.is_taken);
    let failing: Vec<String> = failing.map(|verdict| format!("{} ({})", verdict.scenario, verdict.value)).collect();
    let won = if failing.is_empty() { "won" } else { "**lost**" };
    let seen = if failing.is_empty() { "none".to_owned() } else { failing.join(", ") };
    writeln!(text, "| failed requests | - | all | none | {seen} | {won} |").unwrap();
    text
}

/// Puts the results into the page.
pub(crate) fn write(measured: &[Measured], contenders: &[String], command: &str, rounds: usize, seconds: u64) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/BENCHMARKS.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the results");
    let (_, behind) = rest.split_once(END).expect("the page has a place for the results");
    let mut text = format!(
        "{BEGIN}\n\n{}. {}. {rounds} rounds of {seconds} s each; `{command}`.\n\n## Bars\n\n{}\n",
        machine(),
        contenders.join(", "),
        bars(measured)
    );
    text += "## Scenarios\n\nMedians over the rounds. *Switches* and *system calls* are per request; *MiB* is memory in the midst of the load.\n\n";
    for measured in measured {
        text += &scenario(measured);
        text += &where_calls_go(measured);
        text.push('\n');
    }
    std::fs::write(path, format!("{before}{text}{END}{behind}")).unwrap();
}

/// What our system calls are, and what those of the others are.
fn where_calls_go(measured: &Measured) -> String {
    if measured.scenario.name != "small-64" {
        return String::new();
    }
    let mut text = "\nSystem calls per request:".to_owned();
    for outcome in &measured.outcomes {
        let Some(syscalls) = &outcome.syscalls else { continue };
        let each: Vec<String> = syscalls
            .each
            .iter()
            .filter(|(_, calls)| *calls >= 0.01)
            .map(|(name, calls)| format!("{name} {calls:.2}"))
            .collect();
        write!(text, "\n- {}: {} ({:.2} move bytes)", outcome.name, each.join(", "), syscalls.moves).unwrap();
    }
    text + "\n"
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let facts: BTreeMap<&str, &str> =
        cpu.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key.trim(), value.trim())).collect();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let kernel = Command::new("uname").arg("-r").output().map(|output| output.stdout).unwrap_or_default();
    let kernel = String::from_utf8_lossy(&kernel).trim().split('-').next().unwrap_or_default().to_owned();
    format!(
        "{} cores of a virtual machine ({}), {} GiB, Linux {kernel}",
        std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        facts.get("model name").unwrap_or(&"unknown"),
        memory.unwrap_or_default() >> 20,
    )
}

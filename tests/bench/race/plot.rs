//! The pictures in the page: SVG, written by hand, legible on a light page and on a dark one.

use crate::result::{Measured, Outcome, Sample};
use crate::scenario::{Against, Metric, Per};
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 44.0;
const ROW: f64 = 24.0;

/// Text and lines follow the reader's theme; the colours of the contenders are dark and light enough for both.
const STYLE: &str = "<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.faint { fill: #59636e; }
.grid { stroke: #d1d9e0; }
.one { stroke: #59636e; stroke-width: 1.5; }
.ours { stroke-width: 3.5; }
.bar { stroke: #1f2328; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .faint { fill: #9198a1; }
  .grid { stroke: #3d444d; }
  .one { stroke: #9198a1; }
  .bar { stroke: #e6edf3; }
}
</style>\n";

/// Draws everything for which enough was measured.
pub(crate) fn write(measured: &[Measured]) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks");
    std::fs::create_dir_all(folder).unwrap();
    let save = |name: &str, picture: String| std::fs::write(format!("{folder}/{name}.svg"), picture).unwrap();
    save("ratios", ratios(measured));
    let small: Vec<&Measured> =
        measured.iter().filter(|measured| measured.scenario.name.starts_with("small-")).collect();
    if small.len() > 1 {
        save(
            "cpu",
            lines("Processor time per small GET, µs, by connections", &small, |sample| sample.cpu_per(Per::Request)),
        );
        save("rate", lines("Small GETs per second, by connections", &small, Sample::rate));
        save("p99", lines("p99 of small GETs, µs, by connections", &small, |sample| sample.p99));
    }
}

/// Ours over the best peer, a row for each scenario: to the left of 1 we need less.
fn ratios(measured: &[Measured]) -> String {
    let rows: Vec<(&Measured, f64)> =
        measured.iter().filter_map(|m| Some((m, m.ratio(Metric::Cpu, Against::BestPeer)?))).collect();
    let height = TOP + ROW * rows.len() as f64 + 34.0;
    let (low, high) =
        rows.iter().fold((0.5f64, 1.3f64), |(low, high), (_, ratio)| (low.min(*ratio * 0.95), high.max(*ratio * 1.05)));
    let x = |ratio: f64| LEFT + (ratio / low).ln() / (high / low).ln() * (WIDTH - LEFT - RIGHT);
    let mut svg = begin(height, "Our processor time over the best peer's (less is better)");
    let bottom = height - 30.0;
    for mark in
        [0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0].into_iter().filter(|mark| (low..=high).contains(mark))
    {
        let class = if mark == 1.0 { "one" } else { "grid" };
        let at = x(mark);
        write!(
            svg,
            "<line class=\"{class}\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{bottom:.1}\"/>",
            TOP - 8.0
        )
        .unwrap();
        text(&mut svg, at, bottom + 18.0, "middle", "faint", &format!("{mark}"));
    }
    for (nth, (measured, ratio)) in rows.iter().enumerate() {
        let y = TOP + ROW * (nth as f64 + 0.5);
        let colour = if *ratio <= 1.0 { "#2f9e62" } else { "#d9622b" };
        text(&mut svg, LEFT - 12.0, y + 4.0, "end", "", measured.scenario.name);
        let (from, to) = (x(1.0).min(x(*ratio)), x(1.0).max(x(*ratio)));
        write!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"12\" fill=\"{colour}\"/>",
            y - 6.0,
            to - from
        )
        .unwrap();
        if let Some(limit) = wanted(measured.scenario.name) {
            let at = x(limit);
            write!(
                svg,
                "<line class=\"bar\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                y - 9.0,
                y + 9.0
            )
            .unwrap();
        }
        text(&mut svg, WIDTH - RIGHT + 14.0, y + 4.0, "start", "", &format!("{ratio:.2}"));
    }
    text(&mut svg, WIDTH - RIGHT + 14.0, TOP - 12.0, "start", "faint", "| is the bar");
    svg + "</svg>\n"
}

/// The bar for processor time there, if there is one.
fn wanted(scenario: &str) -> Option<f64> {
    let bars = crate::scenario::BARS.iter();
    let mut bars = bars.filter(|bar| bar.metric == Metric::Cpu && bar.against == Against::BestPeer);
    bars.find(|bar| bar.scenarios.contains(&scenario)).map(|bar| bar.limit)
}

/// One line for each contender, over the numbers of connections. Both axes are logarithmic.
fn lines(title: &str, measured: &[&Measured], of: impl Fn(&Sample) -> f64 + Copy) -> String {
    let (height, bottom, left) = (380.0, 340.0, 70.0);
    let names: Vec<&'static str> = measured[0].outcomes.iter().map(|outcome| outcome.name).collect();
    let value = |measured: &Measured, name: &str| measured.named(name).map(|outcome: &Outcome| outcome.median(of));
    let all: Vec<f64> = measured.iter().flat_map(|m| names.iter().filter_map(|name| value(m, name))).collect();
    let low = all.iter().copied().fold(f64::INFINITY, f64::min) * 0.9;
    let high = all.iter().copied().fold(0.0, f64::max) * 1.1;
    let y = |value: f64| bottom - (value / low).ln() / (high / low).ln() * (bottom - TOP);
    let step = (WIDTH - left - RIGHT) / (measured.len() - 1) as f64;
    let mut svg = begin(height, title);
    let decades = (0..7).flat_map(|power| [1.0, 1.5, 2.0, 3.0, 5.0, 7.0].map(|digit| digit * 10f64.powi(power)));
    for mark in decades.filter(|mark| (low..=high).contains(mark)) {
        let at = y(mark);
        write!(svg, "<line class=\"grid\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>", WIDTH - RIGHT)
            .unwrap();
        text(&mut svg, left - 8.0, at + 4.0, "end", "faint", &format!("{mark}"));
    }
    for (nth, measured) in measured.iter().enumerate() {
        let connections = measured.scenario.connections.to_string();
        text(&mut svg, left + step * nth as f64, bottom + 20.0, "middle", "faint", &connections);
    }
    let mut labels = Vec::new();
    for name in names {
        let points: Vec<(f64, f64)> = measured
            .iter()
            .enumerate()
            .filter_map(|(nth, m)| Some((left + step * nth as f64, y(value(m, name)?))))
            .collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let (colour, more) = match name {
            "threadbare" => ("#e0434f", " class=\"ours\""),
            "floor" => ("#8b949e", " stroke-dasharray=\"5 4\""),
            "nginx" => ("#2f9e62", ""),
            "HAProxy" => ("#3f83d6", ""),
            "Caddy" => ("#9a6fd0", ""),
            _ => ("#1f9fb0", ""),
        };
        write!(
            svg,
            "<polyline{more} fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            path.join(" ")
        )
        .unwrap();
        labels.extend(points.last().map(|(_, y)| (*y, name, colour)));
    }
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut above = f64::NEG_INFINITY;
    for (y, name, colour) in labels {
        above = y.max(above + 16.0); // labels do not lie on one another
        write!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"4\" fill=\"{colour}\"/>",
            WIDTH - RIGHT + 6.0,
            above - 2.0
        )
        .unwrap();
        text(&mut svg, WIDTH - RIGHT + 20.0, above + 4.0, "start", "", name);
    }
    svg + "</svg>\n"
}

fn begin(height: f64, title: &str) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">\n{STYLE}"
    );
    text(&mut svg, 12.0, 20.0, "start", "title", title);
    svg
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, class: &str, words: &str) {
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{words}</text>").unwrap();
}

//! Tables of measurements: what a page shows is what a file in `docs/measured` holds, and that file says how it was
//! measured. What a table claims is a matter of orders of magnitude.

use super::{Page, blesses, none, replace, root};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// A file of measurements: `# ` and the command, a head, rows.
struct Measured {
    command: String,
    rows: Vec<Vec<String>>,
}

fn read(name: &str) -> Measured {
    let path = root().join(format!("docs/measured/{name}.csv"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let command = text.lines().take_while(|line| line.starts_with("# ")).collect::<Vec<_>>().join(" ");
    let rows = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    Measured { command, rows: rows.map(|line| line.split(',').map(|cell| cell.trim().to_owned()).collect()).collect() }
}

fn table(measured: &Measured) -> String {
    let mut text = String::new();
    for (nth, row) in measured.rows.iter().enumerate() {
        text += &format!("| {} |\n", row.join(" | "));
        if nth == 0 {
            text += &format!("|{}\n", "---|".repeat(row.len()));
        }
    }
    text
}

/// Every table below `<!-- measured: name -->` is that of its file; every file is shown.
pub(crate) fn check(pages: &[Page]) {
    const MARK: &str = "<!-- measured: ";
    let mut complaints = Vec::new();
    let mut shown = BTreeSet::new();
    for page in pages {
        for part in page.text.split(MARK).skip(1) {
            let (name, rest) = part.split_once(" -->\n").unwrap();
            shown.insert(name.to_owned());
            let measured = read(name);
            if measured.command.len() < 20 {
                complaints.push(format!("docs/measured/{name}.csv: how was it measured?"));
            }
            let there: String =
                rest.lines().take_while(|line| line.starts_with('|')).map(|line| format!("{line}\n")).collect();
            let right = table(&measured);
            if there != right && blesses() {
                let marked = |table: &str| format!("{MARK}{name} -->\n{table}");
                replace(page, &marked(&there), &marked(&right));
            } else if there != right {
                complaints.push(format!("{}: the table {name} is not that of its file:\n{right}", page.name));
            }
        }
    }
    for entry in fs::read_dir(root().join("docs/measured")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !shown.contains(name.trim_end_matches(".csv")) {
            complaints.push(format!("docs/measured/{name}: shown nowhere"));
        }
    }
    none(&complaints);
}

/// The number in this column of each row, by the row's first cell.
fn column(name: &str, nth: usize) -> BTreeMap<String, f64> {
    let rows = read(name).rows;
    let number = |row: &Vec<String>| Some((row[0].clone(), row.get(nth)?.parse().ok()?));
    rows.iter().skip(1).filter_map(number).collect()
}

/// The rows with their least and greatest numbers.
pub(crate) fn ranges(name: &str) -> Vec<(String, f64, f64)> {
    let rows = read(name).rows;
    let number = |row: &Vec<String>, nth: usize| row.get(nth).and_then(|cell| cell.parse().ok()).unwrap_or(0.0);
    rows.iter().skip(1).map(|row| (row[0].clone(), number(row, 1), number(row, 2))).collect()
}

#[test]
fn a_thread_for_each_client_costs_more_than_workers_around_one_lot_and_a_poller_no_less() {
    let least = column("designs", 1);
    assert!(least["workers around one lot"] < least["a thread for each client"]);
    assert!(least["workers around one lot"] < least["a poller thread and a channel to the workers"]);
    assert!(least["a relay that parses nothing"] <= least["workers around one lot"]);
}

#[test]
fn two_wakings_are_about_what_a_thread_for_each_client_costs_more() {
    let least = column("designs", 1);
    let more = least["a thread for each client"] - least["workers around one lot"];
    let threads = column("threads", 1);
    let waking = threads["to wake while it sleeps in read"] - threads["the same two calls with nobody to wake"];
    let wakings = 2.0 * waking;
    assert!((more / 3.0..more * 3.0).contains(&wakings), "{wakings} and {more}");
}

#[test]
fn a_thread_in_use_is_kibibytes_and_its_promise_mebibytes() {
    let numbers = column("threads", 1);
    let used = numbers["memory in use"];
    assert!((4.0..64.0).contains(&used), "{used}");
    assert!(numbers["memory promised"] > 30.0 * used);
    assert!(numbers["to wake while it sleeps in read"] >= 1.0);
}

//! Pictures that are drawn from measurements: bars, legible on light and dark.

use super::{blesses, measured, none, root};
use std::fmt::Write;
use std::fs;

/// Which measurements have a picture, and what its bars say.
const PICTURES: [(&str, &str); 1] = [("designs", "microseconds of processor time for a request")];

const ROW: usize = 28;
const LABELS: f64 = 330.0;
const WIDTH: f64 = 300.0;

/// Every picture is what its measurements draw.
pub(crate) fn check() {
    let mut complaints = Vec::new();
    for (name, unit) in PICTURES {
        let path = root().join(format!("docs/pictures/{name}.svg"));
        let drawn = draw(&measured::ranges(name), unit);
        if fs::read_to_string(&path).is_ok_and(|there| there == drawn) {
            continue;
        }
        if blesses() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, drawn).unwrap();
        } else {
            complaints.push(format!("{}: its measurements draw another picture (BLESS=1 writes it)", path.display()));
        }
    }
    none(&complaints);
}

/// A bar for each row, from nothing to its least value, and fainter to its greatest.
fn draw(rows: &[(String, f64, f64)], unit: &str) -> String {
    let greatest = rows.iter().map(|(_, _, most)| *most).fold(1.0, f64::max);
    let height = ROW * (rows.len() + 1) + 8;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 {height}\" font-family=\"sans-serif\" font-size=\"14\">\n\
         <style>text {{ fill: #24292f }} @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} }}</style>\n"
    );
    for (nth, (label, least, most)) in rows.iter().enumerate() {
        let top = ROW * nth + 8;
        let (first, both) = (least / greatest * WIDTH, most / greatest * WIDTH);
        let value = if least == most { format!("{least}") } else { format!("{least} - {most}") };
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>\n\
             <rect x=\"{LABELS}\" y=\"{top}\" width=\"{both:.1}\" height=\"18\" fill=\"#4c8ed9\" opacity=\"0.45\"/>\n\
             <rect x=\"{LABELS}\" y=\"{top}\" width=\"{first:.1}\" height=\"18\" fill=\"#4c8ed9\"/>\n\
             <text x=\"{:.1}\" y=\"{}\">{value}</text>",
            LABELS - 10.0,
            top + 14,
            LABELS + both + 8.0,
            top + 14,
        )
        .unwrap();
    }
    let bottom = ROW * rows.len() + 22;
    svg + &format!("<text x=\"{LABELS}\" y=\"{bottom}\">{unit}</text>\n</svg>\n")
}

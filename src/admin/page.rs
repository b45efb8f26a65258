//! The glass box: one file that moves by itself, and the same numbers as tables for those without script.

use super::pulse::View;
use super::{stats, tables};

/// The page.
const GLASS_BOX: &str = include_str!("glass_box.html");

/// Where in it the tables are put.
const NUMBERS: &str = "<!--numbers-->";

/// What a browser may do with the page: run this script, wear this style, and ask us for the numbers; no more. The digests
/// are of what stands between the tags, and tests say what they must be.
pub(super) const POLICY: &str = "default-src 'none'; connect-src 'self'; \
     script-src 'sha256-thqOSz9tB/d00oThiy7lgMsbkr7/7WoVwBhdA8ORF5s='; \
     style-src 'sha256-Lv7NYUFkhu5BG+5Tjta5iZI1BkYJLNlNGR7VShIbtDs='; \
     frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The page, with tables for those who run no script.
pub(super) fn write(view: &View) -> String {
    GLASS_BOX.replacen(NUMBERS, &tables::write(&stats::value(view)), 1)
}

/// The tables alone, in the same clothes.
pub(super) fn write_tables(view: &View) -> String {
    let head = GLASS_BOX.split_once("</head>").map_or(GLASS_BOX, |(head, _)| head);
    let tables = tables::write(&stats::value(view));
    format!(
        "{head}</head>\n<body>\n<header><div><h1>threadbare <span>all numbers</span></h1>\n\
         <p class=\"what\">As they were when you asked; ask again for newer ones. <a href=\".\">The page that moves</a></p>\n\
         </div></header>\n<main>\n{tables}</main>\n</body>\n</html>\n"
    )
}

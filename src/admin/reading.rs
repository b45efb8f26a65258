//! The pages of `docs/` that the glass box links to. They are part of the program, so they are there without a network,
//! and tell of this version.

/// Each with its name; their text is Markdown.
const PAGES: [(&str, &str); 3] = [
    ("ARCHITECTURE.md", include_str!("../../docs/ARCHITECTURE.md")),
    ("BALANCING.md", include_str!("../../docs/BALANCING.md")),
    ("RELIABILITY.md", include_str!("../../docs/RELIABILITY.md")),
];

/// The page of this name.
pub(super) fn page(name: &str) -> Option<&'static str> {
    PAGES.iter().find(|(other, _)| *other == name).map(|(_, text)| *text)
}

//! The chapters of the walkthrough, to which the glass box links. They are part of the program, so they are there
//! without a network, and tell of this version.

/// Each with its name; their text is Markdown.
const CHAPTERS: [(&str, &str); 14] = [
    ("01-the-dummy.md", include_str!("../../docs/01-the-dummy.md")),
    ("02-two-sockets.md", include_str!("../../docs/02-two-sockets.md")),
    ("03-bytes-are-not-messages.md", include_str!("../../docs/03-bytes-are-not-messages.md")),
    ("04-where-does-the-body-end.md", include_str!("../../docs/04-where-does-the-body-end.md")),
    ("05-life-of-one-request.md", include_str!("../../docs/05-life-of-one-request.md")),
    ("06-whose-turn-is-it.md", include_str!("../../docs/06-whose-turn-is-it.md")),
    ("07-what-does-a-thread-cost.md", include_str!("../../docs/07-what-does-a-thread-cost.md")),
    ("08-waiting-for-free.md", include_str!("../../docs/08-waiting-for-free.md")),
    ("09-when-a-backend-dies.md", include_str!("../../docs/09-when-a-backend-dies.md")),
    ("10-slow-on-purpose.md", include_str!("../../docs/10-slow-on-purpose.md")),
    ("11-too-much.md", include_str!("../../docs/11-too-much.md")),
    ("12-after-101.md", include_str!("../../docs/12-after-101.md")),
    ("13-leaving-politely.md", include_str!("../../docs/13-leaving-politely.md")),
    ("14-more-than-one-machine.md", include_str!("../../docs/14-more-than-one-machine.md")),
];

/// The chapter of this name.
pub(super) fn chapter(name: &str) -> Option<&'static str> {
    CHAPTERS.iter().find(|(other, _)| *other == name).map(|(_, text)| *text)
}

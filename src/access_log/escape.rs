//! What a stranger wrote, made harmless: it must not end our line, nor steer somebody's terminal.

use std::io::Write;

/// For lines that people read, and the combined format: `\"`, `\\`, and `\xNN` for what is not visible ASCII.
pub(super) fn plain(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => write!(out, "\\x{byte:02x}").expect("writing to a Vec can't fail"),
        }
    }
}

/// For a JSON string (RFC 8259 section 7). A byte beyond ASCII is told as the character of that number: whatever the
/// bytes are, the text is valid, and which bytes they were can be read off it.
pub(super) fn json(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => write!(out, "\\u{byte:04x}").expect("writing to a Vec can't fail"),
        }
    }
}

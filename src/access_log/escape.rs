//! What a stranger wrote, made harmless: it must not end our line, nor steer somebody's terminal.

use std::io::Write;

/// For lines that people read, and the combined format: `\"`, `\\`, and `\xNN` for what is not visible ASCII.
pub(super) fn plain(text: &[u8], out: &mut Vec<u8>) {
    if is_harmless(text) {
        return out.extend_from_slice(text);
    }
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
    if is_harmless(text) {
        return out.extend_from_slice(text);
    }
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => write!(out, "\\u{byte:04x}").expect("writing to a Vec can't fail"),
        }
    }
}

/// Nearly everything is, and goes over in one piece. (A fold, not `all`: without the early exit the compiler looks at 16
/// or 32 bytes at a time.)
fn is_harmless(text: &[u8]) -> bool {
    text.iter().fold(true, |so_far, &byte| so_far & (b' '..=b'~').contains(&byte) & (byte != b'"') & (byte != b'\\'))
}

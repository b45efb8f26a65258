//! What is said of the admin listener, and the one secret that a configuration may hold.

use std::fmt;
use std::net::SocketAddr;

/// The admin listener, as it was configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where it listens. Default: nowhere.
    pub listen: Option<SocketAddr>,
    /// It may listen where others than this machine's own programs reach it. Default no.
    pub anywhere: bool,
    /// Names, beside `localhost`, under which it is asked for. Default none.
    pub hosts: Vec<String>,
    /// What whoever changes something must know. Default: nobody can change anything.
    pub token: Option<Token>,
}

/// A secret. It is never shown: not by `--check`, not in a log, and not by a complaint about the file in which it stands.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Fewer characters could be guessed in time.
const SHORTEST: usize = 16;

impl Token {
    /// Whether these are the same characters. How long that takes says nothing of where they differ.
    pub fn is(&self, guess: &[u8]) -> bool {
        let ours = self.0.as_bytes();
        // Every byte of the guess is looked at, whatever the first ones were.
        let differences = guess.iter().enumerate().fold(0, |differences, (nth, byte)| {
            let other = ours.get(nth % ours.len().max(1)).copied().unwrap_or_default();
            differences | std::hint::black_box(byte ^ other)
        });
        differences == 0 && guess.len() == ours.len()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(not shown)")
    }
}

/// What `Authorization: Bearer` may carry (RFC 6750 section 2.1), and not too little of it.
pub(super) fn token(text: &str) -> Result<Token, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if text.len() < SHORTEST || !text.bytes().all(is_plain) {
        // Not the text itself: an error may end up in a log.
        return Err(format!(
            "a token is at least {SHORTEST} letters, digits and -._~+/=, best taken from the environment: \
             \"${{ADMIN_TOKEN}}\""
        ));
    }
    Ok(Token(text.to_owned()))
}

/// A name under which the admin listener is asked for: no port, and no address, since every address is let in.
pub(super) fn host(text: &str) -> Result<String, String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if text.is_empty() || text.len() > 253 || !text.bytes().all(is_part) {
        return Err("a host is a name such as lb1.example.com, without a port".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = token("0123456789abcdef").unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for guess in
            ["", "0", "0123456789abcde", "0123456789abcdeg", "0123456789abcdef0", "0123456789abcdef0123456789abcdef"]
        {
            assert!(!token.is(guess.as_bytes()), "{guess}");
        }
        assert_eq!(format!("{token:?}"), "Token(not shown)");
    }
}

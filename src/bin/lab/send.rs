//! Bytes, exactly as they are written, and what comes back.

use clap::Parser;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Sends bytes exactly as they are written, each piece in a write of its own, and shows what comes back.
#[derive(Parser)]
pub(crate) struct Settings {
    /// To whom.
    #[arg(value_name = "ADDR:PORT")]
    to: SocketAddr,
    /// What; `\r`, `\n`, `\\` and `\xHH` mean what they mean in a program.
    #[arg(value_name = "PIECE", required = true)]
    pieces: Vec<String>,
    /// How long to listen after each piece but the last.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = super::duration)]
    pause: Duration,
    /// How long to listen after the last one, from the last byte that came.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = super::duration)]
    patience: Duration,
    /// Says how many bytes each read brought.
    #[arg(long)]
    reads: bool,
}

/// How listening ended.
enum End {
    Silence,
    Closed,
    Reset,
}

/// Sends everything, and shows everything.
pub(crate) fn run(settings: &Settings) -> io::Result<()> {
    let mut socket = TcpStream::connect(settings.to)?;
    socket.set_nodelay(true)?;
    let mut heard = Vec::new();
    let mut end = End::Silence;
    for (nth, piece) in settings.pieces.iter().enumerate() {
        if socket.write_all(&unescape(piece)).is_err() {
            end = End::Reset;
            break;
        }
        let is_last = nth + 1 == settings.pieces.len();
        let wait = if is_last { settings.patience } else { settings.pause };
        end = listen(&mut socket, wait, is_last, settings.reads, &mut heard)?;
    }
    let text = String::from_utf8_lossy(&heard).replace('\r', "");
    match text.strip_suffix('\n') {
        Some(text) => tell!("{text}"),
        None if text.is_empty() => {}
        None => tell!("{text}"),
    }
    tell!(
        "-- {}",
        match end {
            End::Silence => "still open",
            End::Closed => "closed",
            End::Reset => "reset",
        }
    );
    Ok(())
}

/// Listens for so long; if `renewed`, from the last byte that came.
fn listen(socket: &mut TcpStream, wait: Duration, renewed: bool, reads: bool, heard: &mut Vec<u8>) -> io::Result<End> {
    let mut deadline = Instant::now() + wait;
    let mut buffer = [0; 64 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(End::Silence);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut buffer) {
            Ok(0) => return Ok(End::Closed),
            Ok(count) => {
                if reads {
                    tell!("-- a read brought {count} bytes");
                }
                heard.extend_from_slice(&buffer[..count]);
                if renewed {
                    deadline = Instant::now() + wait;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::TimedOut => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Ok(End::Reset),
        }
    }
}

/// `\r`, `\n`, `\t`, `\\` and `\xHH` as bytes; anything else as it is.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let (byte, length) = match (first, behind) {
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [b'\\', ..]) => (b'\\', 2),
            (b'\\', [b'x', high, low, ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 4),
                _ => (b'\\', 1),
            },
            (byte, _) => (*byte, 1),
        };
        bytes.push(byte);
        rest = rest.get(length..).unwrap_or_default();
    }
    bytes
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

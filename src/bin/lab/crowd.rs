//! Clients that only wait, or are slow, while something else happens.

use clap::{Parser, ValueEnum};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use threadbare::net::raise_limit;

/// Keeps clients connected that wait or are slow, runs a command meanwhile, and says how many are still there.
#[derive(Parser)]
pub(crate) struct Settings {
    /// To whom they connect.
    #[arg(value_name = "ADDR:PORT")]
    to: SocketAddr,
    /// How many they are.
    #[arg(long, value_name = "N", default_value_t = 100)]
    clients: usize,
    /// What they do.
    #[arg(long, value_enum, default_value_t = Kind::Idle)]
    kind: Kind,
    /// What to run while they are there.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// They say nothing.
    Idle,
    /// They send half a head, and no more.
    HalfHead,
    /// They send a head, a byte every tenth of a second.
    SlowHead,
    /// They ask, and read a byte of the answer every tenth of a second.
    SlowReader,
    /// They ask, and wait for the answer.
    Waiting,
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n";

const TICK: Duration = Duration::from_millis(100);

/// Connects, runs the command, counts.
pub(crate) fn run(settings: &Settings) -> io::Result<()> {
    raise_limit();
    let mut clients = Vec::new();
    for _ in 0..settings.clients {
        let mut client = TcpStream::connect(settings.to)?;
        let words = match settings.kind {
            Kind::Idle | Kind::SlowHead => &[][..],
            Kind::HalfHead => &REQUEST[..20],
            Kind::SlowReader | Kind::Waiting => REQUEST,
        };
        client.write_all(words)?;
        client.set_nonblocking(true)?;
        clients.push(client);
    }
    tell!("{} clients are connected", clients.len());
    let is_over = AtomicBool::new(false);
    let status = thread::scope(|scope| {
        scope.spawn(|| {
            for tick in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                clients.iter().for_each(|client| go_on(client, settings.kind, tick));
                thread::sleep(TICK);
            }
        });
        let [program, flags @ ..] = &settings.command[..] else { return Err(ErrorKind::InvalidInput.into()) };
        let status = Command::new(program).args(flags).status();
        is_over.store(true, Ordering::Relaxed);
        status
    })?;
    let still = clients.iter().filter(|client| is_connected(client)).count();
    tell!("{still} of them are still connected");
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("the command has failed: {status}"))) }
}

/// What a slow client does in a tick. Errors are how it learns that it has been left: see `is_connected`.
fn go_on(mut client: &TcpStream, kind: Kind, tick: usize) {
    match kind {
        Kind::SlowHead => {
            let byte = REQUEST.get(tick..=tick).unwrap_or_default();
            let _left = client.write(byte);
        }
        Kind::SlowReader => {
            let _left = client.read(&mut [0]);
        }
        Kind::Idle | Kind::HalfHead | Kind::Waiting => {}
    }
}

/// Not left by the other side; whatever it has said is passed over.
fn is_connected(mut client: &TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

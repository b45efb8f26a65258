//! Listening sockets that a service manager has opened before it started this process (`LISTEN_FDS`).
//!
//! They listen while no process does, so a restart refuses nobody; and they may have a port below 1024 though this
//! process may not open one.

use super::descriptors::raise_limit;
use super::listener::Passed;
use listenfd::ListenFd;
use std::{env, io, process};

/// The sockets that were passed on to this process, and what is to be said of those that are of no use. To be called once,
/// before any other thread runs: the words in the environment are erased, so that a child does not take them for its own.
///
/// # Errors
/// More were announced than a process can have: each would be looked for.
pub fn activated() -> io::Result<(Vec<Passed>, Vec<String>)> {
    let (announced, most) = (announced(), raise_limit());
    if announced > most as u64 {
        let text = format!("LISTEN_FDS={announced}, and this process can have {most} descriptors");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut descriptors = ListenFd::from_env();
    let (mut passed, mut complaints) = (Vec::new(), Vec::new());
    for nth in 0..descriptors.len() {
        let socket = descriptors
            .take_tcp_listener(nth)
            .and_then(|socket| socket.map(|socket| Ok(Passed { address: socket.local_addr()?, socket })).transpose());
        match socket {
            Ok(socket) => passed.extend(socket),
            Err(error) => complaints.push(format!("socket {nth} of the service manager is of no use here: {error}")),
        }
    }
    Ok((passed, complaints))
}

/// How many sockets are said to have been passed on to this process.
fn announced() -> u64 {
    let word = |name| env::var(name).unwrap_or_default();
    let pid = word("LISTEN_PID");
    let is_ours = pid.is_empty() || pid.parse() == Ok(process::id());
    if is_ours { word("LISTEN_FDS").parse().unwrap_or(0) } else { 0 }
}

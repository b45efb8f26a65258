//! Listening sockets that a service manager has opened before it started this process (`LISTEN_FDS`).
//!
//! They listen while no process does, so a restart refuses nobody; and they may have a port below 1024 though this
//! process may not open one.

use super::listener::Passed;
use listenfd::ListenFd;

/// The sockets that were passed on to this process. To be called once, before any other thread runs: the words in the
/// environment are erased, so that a child does not take them for its own.
pub fn activated() -> Vec<Passed> {
    let mut descriptors = ListenFd::from_env();
    let mut passed = Vec::new();
    for nth in 0..descriptors.len() {
        let socket = descriptors
            .take_tcp_listener(nth)
            .and_then(|socket| socket.map(|socket| Ok(Passed { address: socket.local_addr()?, socket })).transpose());
        match socket {
            Ok(socket) => passed.extend(socket),
            Err(error) => log::warn!("a socket of the service manager is of no use here: {error}"),
        }
    }
    passed
}

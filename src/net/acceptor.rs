//! A thread that does nothing but accept, where no worker does: for the admin listener.

use super::listener::{Bell, Bells, Bound, Listeners};
use mio::net::TcpStream;
use mio::{Events, Poll, Token, Waker};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

const WAKE: Token = Token(0);

/// Listening sockets, and what a thread needs to wait until they ring. Dropping it closes them.
pub struct Acceptor<L> {
    poll: Poll,
    listeners: Listeners<L>,
}

impl<L: Clone> Acceptor<L> {
    /// Watches these sockets.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(bound: Bound<L>) -> io::Result<Acceptor<L>> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Arc::new(Waker::new(&registry, WAKE)?);
        let listeners = Listeners::new(bound, Bells { registry, waker })?;
        Ok(Acceptor { poll, listeners })
    }

    /// Changes and ends [`Acceptor::accept`], from other threads.
    pub fn listeners(&self) -> Listeners<L> {
        self.listeners.clone()
    }

    /// Accepts connections until it is stopped; then once more until none is waiting. For what it is told, see
    /// [`Listeners::accept`].
    pub fn accept<P>(
        mut self,
        place: impl Fn() -> Option<P>,
        make_room: impl Fn() -> bool,
        admit: impl Fn(TcpStream, SocketAddr, L, P) -> io::Result<()>,
    ) {
        let mut events = Events::with_capacity(64);
        let mut promise = self.listeners.promise();
        while !self.listeners.is_stopping() {
            self.listeners.accept(&mut promise, Instant::now(), &place, &make_room, &admit);
            let pause = promise.due().map(|due| due.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, pause) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    log::error!("the kernel would not say whether connections are waiting: {error}");
                    return;
                }
                Ok(()) | Err(_) => {}
            }
            events.iter().filter_map(|event| Bell::of_token(event.token())).for_each(|bell| self.listeners.hear(bell));
        }
        self.listeners.finish(place, make_room, admit);
    }
}

impl<L> Drop for Acceptor<L> {
    fn drop(&mut self) {
        self.listeners.close();
    }
}

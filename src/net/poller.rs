//! Which sockets have something to do: what the kernel says, to whoever asks.
//!
//! All workers ask at once, through one `epoll`, and the kernel shares the events out among them: each event is told to
//! one of those who ask, a new event wakes one of those who sleep, and whoever leaves events behind wakes the next. An
//! earlier version had one `mio::Poll`, which a single thread at a time may ask, and passed it from worker to worker. Now
//! and then the thread that held it was not running: another's turn on its core had come. Meanwhile nobody could ask, and
//! the machine stood idle for a twentieth of the time, under full load.
//!
//! `mio` still knows how sockets are registered. Where there is no `epoll`, it also asks, one thread at a time.

use super::hints::{BROKEN, CLOSED, READABLE, URGENT, WRITABLE};
use super::listener::Bells;
use mio::{Poll, Registry, Token, Waker};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// At most so many events are told at once. With 1,024, one worker hoarded five turns for each of the other's.
const EVENTS_AT_ONCE: usize = 16;

const WAKER: Token = Token(usize::MAX);

/// Something to ask the kernel by.
pub(super) struct Poller {
    registry: Registry,
    waker: Arc<Waker>,
    #[cfg(not(target_os = "linux"))]
    poll: std::sync::Mutex<(Poll, mio::Events)>,
}

impl Poller {
    /// # Errors
    /// The kernel's, when it has none to give.
    pub(super) fn new() -> io::Result<Poller> {
        let poll = Poll::new()?;
        Ok(Poller {
            registry: poll.registry().try_clone()?,
            waker: Arc::new(Waker::new(poll.registry(), WAKER)?),
            #[cfg(not(target_os = "linux"))]
            poll: std::sync::Mutex::new((poll, mio::Events::with_capacity(EVENTS_AT_ONCE))),
        })
    }

    /// By which sockets are registered.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// By which listening sockets ring for those who wait here.
    pub(super) fn bells(&self) -> io::Result<Bells> {
        Ok(Bells { registry: self.registry.try_clone()?, waker: Arc::clone(&self.waker) })
    }

    /// Ends the waiting of one of those who wait, or of the next who would.
    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("no worker could be woken: {error}"); // the next tick will
        }
    }

    /// Waits until something has happened, `timeout` at most, and tells of it: of which socket, and as which hints. Any
    /// number of threads may wait.
    pub(super) fn wait(&self, timeout: Duration, mut tell: impl FnMut(Token, u8)) {
        let outcome = self.ask(timeout, |token, hints| {
            if token != WAKER {
                tell(token, hints);
            }
        });
        match outcome {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                log::error!("the kernel would not say which sockets are ready: {error}");
            }
            Ok(()) | Err(_) => {}
        }
    }

    #[cfg(target_os = "linux")]
    fn ask(&self, timeout: Duration, mut tell: impl FnMut(Token, u8)) -> io::Result<()> {
        use rustix::event::{Timespec, epoll};
        use std::mem::MaybeUninit;
        let timeout = Timespec::try_from(timeout).ok();
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS_AT_ONCE];
        let (events, _) = epoll::wait(&self.registry, &mut room, timeout.as_ref())?;
        for epoll::Event { flags, data } in events.iter().copied() {
            let Ok(token) = usize::try_from(data.u64()) else { continue };
            tell(Token(token), hints_of(flags));
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn ask(&self, timeout: Duration, mut tell: impl FnMut(Token, u8)) -> io::Result<()> {
        let mut held = self.poll.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (poll, events) = &mut *held;
        poll.poll(events, Some(timeout))?;
        for event in &*events {
            tell(event.token(), hints_of(event));
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn hints_of(flags: rustix::event::epoll::EventFlags) -> u8 {
    use rustix::event::epoll::EventFlags;
    let mut hints = 0;
    for (reasons, hint) in [
        (EventFlags::IN, READABLE),
        (EventFlags::PRI, READABLE | URGENT),
        (EventFlags::OUT, WRITABLE),
        (EventFlags::RDHUP, READABLE | CLOSED),
        (EventFlags::HUP.union(EventFlags::ERR), READABLE | WRITABLE | CLOSED | BROKEN),
    ] {
        if flags.intersects(reasons) {
            hints |= hint;
        }
    }
    hints
}

#[cfg(not(target_os = "linux"))]
fn hints_of(event: &mio::event::Event) -> u8 {
    let mut hints = 0;
    for (is_so, hint) in [
        (event.is_readable(), READABLE),
        (event.is_writable(), WRITABLE),
        (event.is_read_closed(), READABLE | CLOSED),
        (event.is_write_closed() || event.is_error(), READABLE | WRITABLE | CLOSED | BROKEN),
    ] {
        if is_so {
            hints |= hint;
        }
    }
    hints
}

//! What the service manager is told (`sd_notify(3)`): that we are ready, reload, stop, or are alive.
//!
//! A few words in a datagram. Where nobody has asked for them (`NOTIFY_SOCKET` is not set), nothing is done.

use crossbeam_channel::{RecvTimeoutError, Sender};
use rustix::time::{ClockId, clock_gettime};
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Whom to tell. Clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Notifier(Option<Arc<UnixDatagram>>);

impl Notifier {
    /// Tells whoever the environment names (`NOTIFY_SOCKET`), if anybody.
    pub fn from_env() -> Notifier {
        env::var_os("NOTIFY_SOCKET").map_or_else(Notifier::default, |name| Notifier::to(&name))
    }

    /// Tells the socket of this name: a path, or an abstract name behind an `@`.
    pub fn to(name: &OsStr) -> Notifier {
        match connect(name) {
            Ok(socket) => Notifier(Some(Arc::new(socket))),
            Err(error) => {
                log::warn!("the service manager can't be told anything, at {}: {error}", name.display());
                Notifier(None)
            }
        }
    }

    /// The program serves; or it does again, after it was reloaded.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// A reload begins; [`Notifier::ready`] ends it, whether it has succeeded or not.
    pub fn reloading(&self) {
        // The manager compares this to the moment at which it asked.
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// The program drains, and will end by itself; and no other process has taken its place.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// A line for people.
    pub fn status(&self, line: &str) {
        self.tell(&format!("STATUS={}", line.replace(['\n', '\r'], " ")));
    }

    /// This process is the service's main one from now on, in the place of the one that has handed its sockets over.
    /// Not to be said in a container, where the process has another number than outside. systemd hears it only with
    /// `NotifyAccess=all`, for whoever says it is not the main process yet.
    pub fn main_process(&self) {
        self.tell(&format!("MAINPID={}", std::process::id()));
    }

    /// Says that the program is alive, as often as the environment asks for it (`WATCHDOG_USEC`), as long as
    /// `is_alive` holds. None if nobody asks.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn watchdog(&self, is_alive: impl Fn() -> bool + Send + 'static) -> io::Result<Option<Watchdog>> {
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_for_us =
            env::var_os("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(std::process::id().into());
        let patience = number("WATCHDOG_USEC").filter(|&patience| patience > 0 && is_for_us && self.0.is_some());
        patience.map(|patience| self.watchdog_every(Duration::from_micros(patience) / 2, is_alive)).transpose()
    }

    /// The same, this often, whatever the environment says.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn watchdog_every(
        &self,
        interval: Duration,
        is_alive: impl Fn() -> bool + Send + 'static,
    ) -> io::Result<Watchdog> {
        let notifier = self.clone();
        let (end, ended) = crossbeam_channel::bounded::<()>(0);
        let thread = std::thread::Builder::new().name("watchdog".to_owned());
        let thread = thread.spawn(move || {
            while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                if is_alive() {
                    notifier.tell("WATCHDOG=1");
                }
            }
        })?;
        Ok(Watchdog { end: Some(end), thread: Some(thread) })
    }

    fn tell(&self, words: &str) {
        let Some(socket) = &self.0 else { return };
        if let Err(error) = socket.send(words.as_bytes()) {
            log::debug!("the service manager was not told {words:?}: {error}");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.as_bytes().strip_prefix(b"@") {
        None => socket.connect(name)?,
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)?;
        }
        #[cfg(not(target_os = "linux"))]
        Some(_) => return Err(io::ErrorKind::Unsupported.into()),
    }
    // A manager that is busy may be waited for; one that does not listen is not worth more.
    socket.set_write_timeout(Some(Duration::from_secs(1)))?;
    Ok(socket)
}

/// Says that the program is alive until it is dropped.
#[derive(Debug)]
pub struct Watchdog {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.end.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the watchdog has ended in a panic");
        }
    }
}

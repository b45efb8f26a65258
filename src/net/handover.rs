//! How listening sockets pass from a process to the one that replaces it, so that a restart refuses nobody.
//!
//! The running process offers its sockets on a Unix socket. The new one connects, and:
//!
//! ```text
//! new: threadbare takes over 1
//! old: 2                          how many sockets follow
//!      127.0.0.1:0                the address of each in the settings, and the socket itself (SCM_RIGHTS)
//!      [::]:443
//! new: accepting                  as soon as it does
//! old: yours, and closes          first its own end of the path, then the connection; then it drains
//! ```
//!
//! A socket lives as long as one process has it, and so does its backlog: between the first line and the last both may
//! accept, and at no moment nobody can. If the new process ends before its last word, or takes too long, the old one
//! goes on as if nothing had happened. If the old one ends sooner, the new one has the sockets all the same.
//!
//! Only the same user may take: the file is for its owner alone, and both sides ask the kernel whom they have before
//! them. Root is believed by anybody and believes nobody else, so it can't take over from another user.

use super::listener::Passed;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg, sockopt,
};
use rustix::process::geteuid;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TAKE: &str = "threadbare takes over 1\n";
const ACCEPTING: &str = "accepting\n";
const YOURS: &str = "yours\n";

/// How long the other process is waited for where it has nothing to do but to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How long the new process may take to begin: names are resolved, and a large configuration is read.
const BEGIN: Duration = Duration::from_secs(60);

/// More sockets than anybody listens on: what is said of their number sizes nothing.
const MOST: usize = 4096;

/// The longest line: an IPv6 address with its scope and port.
const LINE: usize = 80;

/// Sockets that a running process has handed over, and is still accepting from.
#[derive(Debug)]
pub struct Inherited {
    /// For [`bind`](super::bind), which may take them out: what it is not given is closed by [`Inherited::done`].
    pub sockets: Vec<Passed>,
    old: UnixStream,
    path: PathBuf,
}

/// Asks the process that offers its sockets at `path` for them; none if there is no such process.
///
/// # Errors
/// The process that is there belongs to somebody else, does not answer, or says what can't be understood.
pub fn take_over(path: &Path) -> io::Result<Option<Inherited>> {
    let mut old = match UnixStream::connect(path) {
        Ok(old) => old,
        Err(error) if is_nobody(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    check_peer(&old)?;
    old.set_read_timeout(Some(ANSWER))?;
    old.set_write_timeout(Some(ANSWER))?;
    old.write_all(TAKE.as_bytes())?;
    let sockets = receive(&old)?;
    Ok(Some(Inherited { sockets, old, path: path.to_owned() }))
}

impl Inherited {
    /// Says that this process accepts. When this returns the old one accepts no more than what waits while it drains,
    /// and the path is free for an [`offer`] of this process. If the old one has ended meanwhile, that is as good.
    ///
    /// # Errors
    /// The old process has given up waiting: then it goes on, and this one should not.
    pub fn done(mut self) -> io::Result<()> {
        self.sockets.clear();
        match self.say_accepting() {
            Err(_) if has_ended(&self.path) => {
                log::info!("the process before this one has ended by itself");
                Ok(())
            }
            said => said,
        }
    }

    fn say_accepting(&mut self) -> io::Result<()> {
        self.old.write_all(ACCEPTING.as_bytes())?;
        let mut answer = Vec::new();
        (&self.old).take(LINE as u64).read_to_end(&mut answer)?;
        if answer == YOURS.as_bytes() { Ok(()) } else { Err(ErrorKind::ConnectionAborted.into()) }
    }
}

/// Whether nobody offers sockets at the path any more. Who lives answers; who is just about to end may still be connected
/// to, and then says nothing.
fn has_ended(path: &Path) -> bool {
    let deadline = Instant::now() + ANSWER;
    while Instant::now() < deadline {
        match take_over(path) {
            Ok(None) => return true,
            Ok(Some(_)) => return false,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    false
}

/// Nobody has made the file, or whoever has made it is gone.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

fn receive(old: &UnixStream) -> io::Result<Vec<Passed>> {
    let not_understood = || io::Error::new(ErrorKind::InvalidData, "the running process says what is no hand-over");
    let mut text = Vec::new();
    let mut sockets: Vec<OwnedFd> = Vec::new();
    loop {
        let mut piece = [0; 1024];
        // The kernel ends a message behind one that brought descriptors, so there is never more than one message's.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = match recvmsg(old, &mut [IoSliceMut::new(&mut piece)], &mut control, flags) {
            Err(Errno::INTR) => continue,
            received => received?,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                sockets.extend(descriptors);
            }
        }
        if received.bytes == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        text.extend_from_slice(piece.get(..received.bytes).unwrap_or_default());
        if received.flags.contains(ReturnFlags::CTRUNC) || sockets.len() > MOST || text.len() > MOST * LINE {
            return Err(not_understood());
        }
        // Whole lines only: what stands behind the last line end may not be all of it.
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let lines = text.get(..whole).and_then(|lines| std::str::from_utf8(lines).ok()).ok_or_else(not_understood)?;
        let mut lines = lines.lines();
        let Some(count) = lines.next() else { continue };
        let count: usize = count.parse().map_err(|_| not_understood())?;
        let addresses: Vec<SocketAddr> =
            lines.map(|line| line.parse().map_err(|_| not_understood())).collect::<Result<_, _>>()?;
        if addresses.len() > count || sockets.len() > count {
            return Err(not_understood());
        }
        if addresses.len() == count && sockets.len() == count {
            let sockets = sockets.into_iter().map(OwnedFd::into);
            return Ok(addresses
                .into_iter()
                .zip(sockets)
                .map(|(address, socket)| Passed { address, socket })
                .collect());
        }
    }
}

/// Sockets on offer, until they are taken or this is dropped.
#[derive(Debug)]
pub struct Offer {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// Offers `sockets` at `path` to whoever replaces this process, from a thread of its own. `on_taken` is called there
/// once the new process accepts: now this one should drain. What a dead process has left at `path` is replaced.
///
/// # Errors
/// A process that lives offers its sockets there, or the path is of no use.
pub fn offer(
    path: &Path,
    sockets: impl Fn() -> io::Result<Vec<Passed>> + Send + 'static,
    on_taken: impl FnOnce() + Send + 'static,
) -> io::Result<Offer> {
    let (stop, stopped) = UnixStream::pair()?;
    let place = Place::claim(path)?;
    let thread = std::thread::Builder::new().name("hand-over".to_owned());
    let thread = thread.spawn(move || place.serve(&stopped, sockets, on_taken))?;
    Ok(Offer { stop: Some(stop), thread: Some(thread) })
}

impl Drop for Offer {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Dropped by `on_taken`, it can't wait for itself.
        let thread = self.thread.take().filter(|thread| thread.thread().id() != std::thread::current().id());
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("the hand-over has ended in a panic");
        }
    }
}

/// The file at which we are found.
struct Place {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of our file: another process may have put its own in that place.
    identity: (u64, u64),
}

impl Place {
    fn claim(path: &Path) -> io::Result<Place> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(file) if !file.file_type().is_socket() => return Err(ErrorKind::AlreadyExists.into()),
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => return Err(ErrorKind::AddrInUse.into()),
                Err(error) if is_nobody(&error) => {}
                Err(error) => return Err(error),
            },
        }
        // Under another name until nobody else may open it; the last step replaces a stale file in one go.
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let name = PathBuf::from(name);
        match fs::remove_file(&name) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&name)?;
        let placed: io::Result<_> = (|| {
            fs::set_permissions(&name, Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            let identity = identity(&name)?;
            fs::rename(&name, path)?;
            Ok(identity)
        })();
        if placed.is_err() {
            let _is_gone_already = fs::remove_file(&name);
        }
        Ok(Place { listener, path: path.to_owned(), identity: placed? })
    }

    fn serve(self, stop: &UnixStream, sockets: impl Fn() -> io::Result<Vec<Passed>>, on_taken: impl FnOnce()) {
        loop {
            match wait(&self.listener, stop, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => return self.leave(),
                Err(error) => {
                    log::error!("nobody can take over this process's sockets any more: {error}");
                    return self.leave();
                }
                Ok(()) => {}
            }
            let new = self.listener.accept();
            match new.and_then(|(new, _)| hand_over(&new, stop, &sockets).map(|()| new)) {
                Ok(new) => {
                    // In this order: the new process may claim the path once it sees the connection's end.
                    drop(self.listener);
                    drop(new);
                    log::info!("another process has taken over the listening sockets");
                    return on_taken();
                }
                // Nothing is on offer any more, as the next look shows.
                Err(error) if error.kind() == ErrorKind::Interrupted => {
                    log::info!("this process ends while another one is about to take over its listening sockets");
                }
                Err(error) => {
                    log::warn!("the listening sockets have not been taken over; this process goes on: {error}");
                    // Not at once: the reason may be one that lasts, as a lack of descriptors does.
                    let _is_late_or_stopped = wait(stop, stop, Some(Duration::from_millis(50)));
                }
            }
        }
    }

    /// Takes the file along, unless it is somebody else's by now.
    fn leave(self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("{} is left behind: {error}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Returns once the new process has said that it accepts, and has been told that the sockets are its own.
fn hand_over(mut new: &UnixStream, stop: &UnixStream, sockets: impl Fn() -> io::Result<Vec<Passed>>) -> io::Result<()> {
    check_peer(new)?;
    new.set_write_timeout(Some(ANSWER))?;
    expect(new, stop, TAKE, ANSWER)?;
    let sockets = sockets()?;
    new.write_all(format!("{}\n", sockets.len()).as_bytes())?;
    for Passed { address, socket } in &sockets {
        send(new, &format!("{address}\n"), socket)?;
    }
    expect(new, stop, ACCEPTING, BEGIN)?;
    new.write_all(YOURS.as_bytes())
}

/// One socket a message: the kernel allows 253, and that is fewer than somebody may have.
fn send(new: &UnixStream, line: &str, socket: impl AsFd) -> io::Result<()> {
    let descriptors = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = sendmsg(new, &[IoSlice::new(line.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    // So few bytes are sent whole or not at all.
    if fits && sent == line.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
}

/// Reads these words, and not a byte beyond.
fn expect(mut from: &UnixStream, stop: &UnixStream, words: &str, limit: Duration) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    for &wanted in words.as_bytes() {
        let mut byte = [0];
        wait(from, stop, Some(deadline.saturating_duration_since(Instant::now())))?;
        from.read_exact(&mut byte)?;
        if byte != [wanted] {
            return Err(io::Error::new(ErrorKind::InvalidData, "the new process says what is no hand-over"));
        }
    }
    Ok(())
}

/// Waits until there is something to read.
///
/// # Errors
/// `Interrupted` if nothing is on offer any more, `TimedOut` after the limit.
fn wait(socket: impl AsFd, stop: &UnixStream, limit: Option<Duration>) -> io::Result<()> {
    let limit = limit.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
    loop {
        let mut both = [PollFd::new(&socket, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut both, limit.as_ref()) {
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(0) => return Err(ErrorKind::TimedOut.into()),
            Ok(_) => {}
        }
        let [_, stopped] = both;
        return if stopped.revents().is_empty() { Ok(()) } else { Err(ErrorKind::Interrupted.into()) };
    }
}

/// The same user as we, or root. Both sides ask, so root as the new process meets its own refusal.
fn check_peer(peer: &UnixStream) -> io::Result<()> {
    let user = sockopt::socket_peercred(peer)?.uid;
    if user.is_root() || user == geteuid() { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
}

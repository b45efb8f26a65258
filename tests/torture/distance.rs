//! A way that takes time, which loopback does not have.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Carries bytes to somebody and back, each of them a while after it has come; ends with its test.
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    is_over: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Way {
    pub(crate) fn to(there: SocketAddr, delay: Duration) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&listener, 1024).unwrap(); // in a restart everybody comes at once
        let address = listener.local_addr().unwrap();
        let is_over = Arc::<AtomicBool>::default();
        let ends = Arc::clone(&is_over);
        let acceptor = thread::spawn(move || {
            for here in listener.incoming().flatten() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let there = TcpStream::connect(there).unwrap();
                carry(here.try_clone().unwrap(), there.try_clone().unwrap(), delay);
                carry(there, here, delay);
            }
        });
        Way { address, is_over, acceptor: Some(acceptor) }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(self.address);
        let _ended = self.acceptor.take().map(JoinHandle::join);
    }
}

/// One direction, to its end: one thread reads, and another one writes later.
fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    to.set_nodelay(true).unwrap();
    let (came, due) = crossbeam_channel::unbounded::<(Instant, Vec<u8>)>();
    spawn(move || {
        let mut buffer = [0; 16 << 10];
        loop {
            // A reset is an end as well: whoever waits for an answer learns from both that there is none.
            let count = from.read(&mut buffer).unwrap_or(0);
            let is_wanted = came.send((Instant::now() + delay, buffer[..count].to_vec())).is_ok();
            if count == 0 || !is_wanted {
                return;
            }
        }
    });
    spawn(move || {
        for (moment, bytes) in due {
            thread::sleep(moment.saturating_duration_since(Instant::now()));
            if bytes.is_empty() || to.write_all(&bytes).is_err() {
                let _gone = to.shutdown(Shutdown::Write);
                return;
            }
        }
    });
}

fn spawn(run: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap();
}

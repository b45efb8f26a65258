//! An address where nobody answers.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};

/// It does not even refuse, for as long as this lives.
pub(crate) struct BlackHole {
    address: SocketAddr,
    _listener: OwnedFd,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    /// A listener that never accepts, with a backlog that is full. None, with a word about it, where the system does not
    /// work like that.
    #[expect(clippy::print_stdout, reason = "a test says when it is skipped")]
    pub(crate) fn open() -> Option<Self> {
        let listener = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address = SocketAddr::try_from(rustix::net::getsockname(&listener).unwrap()).unwrap();
        let mut waiting = Vec::new();
        while waiting.len() < 16 {
            match TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
                Ok(stream) => waiting.push(stream),
                Err(_) => return Some(Self { address, _listener: listener, _waiting: waiting }),
            }
        }
        println!("not tried: a full backlog does not keep anybody waiting on this system");
        None
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

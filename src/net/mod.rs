//! Sockets, and where they wait.
//!
//! Nothing here knows HTTP: bytes are bytes, and a visit to the lot is whatever its owner parks there. What the room
//! promises to the rooms above: no call in it blocks but waiting for events, and a wake-up is never lost.
//!
//! - `descriptors`: how many sockets the process may have;
//! - `table`: one entry for each descriptor number, made when it is first needed;
//! - `hints`: what the kernel has said about each socket;
//! - `connection`: one non-blocking TCP connection;
//! - `pipe`: a way from socket to socket on which no byte is copied;
//! - `observer`: somebody who listens to what happens on connections;
//! - `deadlines`: when a parked visit has waited long enough;
//! - `poller`: which sockets have something to do;
//! - `lot`: where visits are parked, and where workers wait for those that can go on;
//! - `headcount`: how many are here, at most so many, and a wait until nobody is;
//! - `network`: addresses that begin with the same bits;
//! - `probe`: short connections that find out whether anybody is there;
//! - `listener`: where connections come from;
//! - `acceptor`: a thread that does nothing but accept;
//! - `activation`: listening sockets that a service manager has opened;
//! - `handover`: listening sockets that pass from a process to the one that replaces it;
//! - `proxy_protocol`: what a proxy before us says of a connection's client.

mod acceptor;
mod activation;
mod connection;
mod deadlines;
mod descriptors;
pub mod handover;
mod headcount;
mod hints;
mod listener;
mod lot;
mod network;
mod observer;
mod pipe;
mod poller;
mod probe;
pub mod proxy_protocol;
mod table;

pub use acceptor::Acceptor;
pub use activation::activated;
pub use connection::{Caller, Connection, Glance, Stuck};
pub use descriptors::{is_out_of_descriptors, is_shortage, raise_limit};
pub use headcount::{Headcount, Presence};
pub use hints::Wants;
pub use listener::{Bell, Bells, Bound, Listeners, Passed, Promise, bind, limit_send_buffer};
/// A socket that a listener has accepted.
pub use mio::net::TcpStream as Accepted;

pub use lot::{Lot, Rest, Unparked, Watch};
pub use network::Network;
pub use observer::{Call, Observer};
pub use pipe::Pipe;
pub use probe::{Found, ProbeStopper, Probes};

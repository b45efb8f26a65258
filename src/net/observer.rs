//! Somebody who listens to what happens on connections.
//!
//! Every call on a socket of an exchange is told to the observer of its client's connection, if it has one: a backend's
//! connection is observed for as long as it is bound to a client that is. Where nobody listens, it costs a look at an
//! empty place.

use super::connection::{Connection, Glance};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// A call on a socket, and what came of it.
#[derive(Debug)]
pub enum Call<'a> {
    /// It begins to connect.
    Dial(SocketAddr),
    /// It was kept, and is bound to this client from now on.
    Bind,
    /// It was read from.
    Read(Result<&'a [u8], &'a io::Error>),
    /// These pieces were written, or as much of them as it took.
    Write(&'a [&'a [u8]], Result<usize, &'a io::Error>),
    /// It was looked at, without taking anything from it.
    Glance(Glance),
    /// Our direction was ended.
    Shutdown,
    /// Its close is to be a reset.
    Reset,
    /// It is kept, for whoever comes next.
    Rest,
    /// It is closed.
    Close,
}

/// Who listens to what happens for one client.
pub trait Observer: Send + Sync {
    /// A call was made on the connection of this number.
    fn call(&self, number: u64, call: &Call<'_>);

    /// Something was decided.
    fn note(&self, what: fmt::Arguments<'_>);

    /// The connections beside the client's are to somebody of this name, from now on.
    fn meet(&self, name: &str);
}

/// The observer of a connection, mostly none.
#[derive(Clone, Default)]
pub(super) struct Ear(Option<Arc<dyn Observer>>);

impl Ear {
    /// Tells of a call. Whoever isn't observed pays for the look alone: the call is not even made up.
    #[inline]
    pub(super) fn hear<'a>(&self, number: u64, call: impl FnOnce() -> Call<'a>) {
        if let Some(observer) = &self.0 {
            tell(&**observer, number, &call());
        }
    }
}

#[cold]
fn tell(observer: &dyn Observer, number: u64, call: &Call<'_>) {
    observer.call(number, call);
}

#[cold]
fn note(observer: &dyn Observer, what: fmt::Arguments<'_>) {
    observer.note(what);
}

impl Connection {
    /// Lets this observer listen, to this connection and those that are bound to it; or nobody.
    pub fn be_observed(&mut self, observer: Option<Arc<dyn Observer>>) {
        self.ear = Ear(observer);
    }

    /// Whether somebody listens.
    pub fn is_observed(&self) -> bool {
        self.ear.0.is_some()
    }

    /// Tells the observer, if there is one, what was decided.
    #[inline]
    pub fn note(&self, what: fmt::Arguments<'_>) {
        if let Some(observer) = &self.ear.0 {
            note(&**observer, what);
        }
    }

    /// Tells the observer, if there is one, whom the next connections beside this one are to.
    pub fn meet(&self, name: &str) {
        if let Some(observer) = &self.ear.0 {
            observer.meet(name);
        }
    }
}

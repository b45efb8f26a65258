//! Why straight-line code stops: not yet, or never.
//!
//! A turn reads like the RFC's story of an exchange, from top to bottom. Where it can't go on without waiting it
//! returns "not yet" by way of `?`, like any other error; the struct it works on remembers the phase, so the next turn
//! goes on where this one stopped.

use crate::error::Fault;
use crate::net::Wants;

/// Why a turn stops.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// Nothing more can be done before one of these happens.
    NotYet(Wait),
    /// It went wrong.
    Fault(Fault),
}

/// What a turn waits for on its two sockets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) client: Wants,
    pub(super) backend: Wants,
}

impl Wait {
    pub(super) const NOTHING: Wait = Wait { client: Wants::NOTHING, backend: Wants::NOTHING };

    pub(super) fn client(wants: Wants) -> Wait {
        Wait { client: wants, ..Wait::NOTHING }
    }

    pub(super) fn backend(wants: Wants) -> Wait {
        Wait { backend: wants, ..Wait::NOTHING }
    }

    pub(super) fn and(self, other: Wait) -> Wait {
        Wait { client: self.client.and(other.client), backend: self.backend.and(other.backend) }
    }
}

impl<F: Into<Fault>> From<F> for Stop {
    fn from(fault: F) -> Stop {
        Stop::Fault(fault.into())
    }
}
